"""More rows for a fitted model: BLUPs of new and known levels without a refit.

With the fixed effects and the variance components as they were fitted, the BLUPs and their
covariances depend on the rows only through the cross-products, so rows that come later are added to
those of the fit, level by level. The engine is then made in the columns of the fit: at known
estimates BLUPs are ``D Z'V^-1 (y - X beta)`` whatever the columns' sizes in the new rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.sums import CrossProducts, merge
from mixedlearn.engines.choose import engine_in_bases
from mixedlearn.model.fitted import FittedModel, user_blups


def with_more_rows(
    model: FittedModel,
    products: CrossProducts,
    places: Sequence[tuple[NDArray[np.integer], NDArray[np.integer]]],
    n_levels: Sequence[int],
) -> FittedModel:
    """The model with BLUPs given further rows as well.

    Parameters
    ----------
    model : FittedModel
    products : CrossProducts
        Of the further rows, with the shift of the model's own.
    places : sequence of (ndarray, ndarray) of int
        For every factor, the level that each known level, and each of the further rows' levels,
        becomes.
    n_levels : sequence of int
        For every factor, the number of levels of both together.
    """
    known = model.products if model.observed is None else model.observed
    observed = merge(known, products, places, n_levels)
    bases = model.fixed_basis, model.random_bases
    engine = engine_in_bases(observed, model.specification, *bases)
    blups = user_blups(engine, *bases, model.factors, model.fixed_effects)
    return replace(model, observed=observed, blups=blups)


def of_the_fit(model: FittedModel) -> FittedModel:
    """The model with the BLUPs of the rows of the fit alone."""
    if model.observed is None:
        return model
    bases = model.fixed_basis, model.random_bases
    engine = engine_in_bases(model.products, model.specification, *bases)
    blups = user_blups(engine, *bases, model.factors, model.fixed_effects)
    return replace(model, observed=None, blups=blups)
