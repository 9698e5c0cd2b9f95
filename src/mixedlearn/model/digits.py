"""Digits that the first sums of a fit could not keep, from another look at the rows.

Sums of squares hold some sixteen digits of the whole. Where the fixed and the random effects
explain almost all of the response, few of them are left for the noise. A first fit is near enough
to take from the rows what it explains: what is left is summed up again, and the model fitted once
more.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mixedlearn.data.rows import Rows
from mixedlearn.data.sums import Sums
from mixedlearn.engines.problem import projections
from mixedlearn.model.fit import fit_sums
from mixedlearn.model.fitted import FittedModel

# Below this share of the squares that it is a difference of, the noise has lost digits that count.
LITTLE = 1e-7
# A first fit to sums without any digits of the noise is poor, and the next one better.
MOST_LOOKS = 3


def with_more_digits(model: FittedModel, rows: Rows) -> FittedModel:
    """The model fitted again to what it leaves of the rows, where it explains almost all.

    Parameters
    ----------
    model : FittedModel
    rows : Rows
        Those of its sums.
    """
    if _share_of_noise(model) > LITTLE:
        return model
    for _ in range(MOST_LOOKS):
        was_poor = model.fixed_basis.is_exact or model.is_bounded
        model = _fit_again(model, rows)
        if not was_poor:
            break
    return model


def _share_of_noise(model: FittedModel) -> float:
    """Share of the response's square, as it is in the sums, that is noise."""
    fixed = model.fixed_basis
    if not model.roots or fixed.is_exact:
        return fixed.unexplained
    return fixed.unexplained * model.fixed_effects.noise_variance


def _fit_again(model: FittedModel, rows: Rows) -> FittedModel:
    specification = model.specification
    coef = model.coef
    taken = np.zeros(rows.X.shape[1] + 1)
    if specification.fit_intercept:
        taken[0] = coef[0]
    taken[np.array(specification.fixed, int) + 1] = coef[int(specification.fit_intercept) :]
    sums = Sums.of(rows, specification.slopes, taken=taken)
    recipe = replace(model.recipe, is_bounded=False)
    start = None
    if model.roots and not model.fixed_basis.is_exact:
        sums = sums.with_remainder(rows, *projections(sums, model.problem()))
        start = model.user_theta
    return fit_sums(sums, recipe, start=start)
