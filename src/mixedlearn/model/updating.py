"""More rows for a fitted model: BLUPs of new and known levels without a refit.

With the fixed effects and the variance components as they were fitted, the BLUPs and their
covariances depend on the rows only through the sums, so rows that come later are added to those of
the fit, level by level. The engine is then made in the columns of the fit: at known estimates BLUPs
are ``D Z'V^-1 (y - X beta)`` whatever the columns' sizes in the new rows.
"""

from __future__ import annotations

from mixedlearn.data.rows import Rows
from mixedlearn.data.sums import Sums
from mixedlearn.engines.problem import engine_in_bases
from mixedlearn.model.fitted import FittedModel, user_blups


def with_more_rows(model: FittedModel, rows: Rows) -> FittedModel:
    """The model with BLUPs given further rows as well.

    Parameters
    ----------
    model : FittedModel
    rows : Rows
        Of positive weight, with labels of every factor.
    """
    # With the shift of the fit, the fitted bases hold for the sums of both.
    further = Sums.of(rows, model.specification.slopes, like=model.sums)
    return _observing(model, model.observed + further)


def of_the_fit(model: FittedModel) -> FittedModel:
    """The model with the BLUPs of the rows of the fit alone."""
    return model if model.observed_sums is None else _observing(model, None)


def _observing(model: FittedModel, observed: Sums | None) -> FittedModel:
    """The model with the BLUPs that some sums give; None: those of the fit."""
    bases = model.fixed_basis, model.random_bases
    sums = model.sums if observed is None else observed
    engine = engine_in_bases(sums, model.recipe, *bases)
    blups = user_blups(engine, *bases, model.roots, model.fixed_effects)
    return model.observing(observed, blups)
