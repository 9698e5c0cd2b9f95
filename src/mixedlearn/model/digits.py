"""Digits that the first sums of a fit could not keep, from another look at the rows.

Sums of squares hold some sixteen digits of the whole. Where the fixed and the random effects
explain almost all of the response, few of them are left for the noise; where columns are nearly
collinear, few for what tells them apart; where weights differ by many orders of magnitude, few for
rows of little weight. A first fit is near enough to take from the rows what it explains: what is
left is summed up again, without squares, and the model fitted once more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.rows import Rows
from mixedlearn.data.sums import Sums
from mixedlearn.engines.problem import with_triangles
from mixedlearn.model.fit import fit_sums
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.notes import (
    EXACT_FIT,
    FEWER_DIGITS,
    LOST_DIGITS,
    MUCH_ROUNDING,
    lost_weights_note,
)

FloatArray = NDArray[np.float64]

# Below this share of the squares that it is a difference of, the noise has lost digits that count.
LITTLE_NOISE = 1e-7
# The same where columns differ by a small share of their squares, times that share.
LITTLE_INDEPENDENT_NOISE = 1e-9
# Rows of less than this share of the largest weight have lost digits.
LITTLE_WEIGHT = 1e-8
# Beyond this ratio of weights, no look at the rows brings back what those of little weight say.
MOST_WEIGHT_RATIO = 1e13
# Relative rounding error of sums of squares.
ROUNDING = 2e-16
# A fit to sums without digits of the noise is poor, and the next one better: so often at most, and
# as long as each from the second has a tenth of the rounding error of the last.
MOST_LOOKS = 5
MUCH_BETTER = 0.1


class SourceOfRows(Protocol):
    """Where the rows of a fit can be looked at again, wherever they are."""

    @property
    def weight_range(self) -> tuple[float, float]:
        """The least and the largest weight."""

    def sums(self, model: FittedModel, taken: FloatArray) -> Sums:
        """The sums of a model for the response less what was taken; see `Sums.of`."""

    def with_triangles(self, sums: Sums, model: FittedModel) -> Sums:
        """The sums with the triangles that the engine of a model can use."""


@dataclass(frozen=True, slots=True)
class RowsAtHand:
    """Rows in memory."""

    rows: Rows

    @property
    def weight_range(self) -> tuple[float, float]:
        """The least and the largest weight."""
        return self.rows.weight_range

    def sums(self, model: FittedModel, taken: FloatArray) -> Sums:
        """The sums for the response less what was taken."""
        return Sums.of(self.rows, model.specification.slopes, taken=taken)

    def with_triangles(self, sums: Sums, model: FittedModel) -> Sums:
        """The sums with triangles of these rows, or of those among them that these are."""
        chunks = sums.basis_chunks(self.rows)
        return with_triangles(sums, chunks, model.specification, model.problem())


def with_more_digits(model: FittedModel, source: SourceOfRows) -> FittedModel:
    """The model fitted again to what it leaves of the rows, where squares lose digits.

    Parameters
    ----------
    model : FittedModel
    source : SourceOfRows
        Of the rows of its sums.
    """
    least, most = source.weight_range
    if keeps_digits(model) and least > LITTLE_WEIGHT * most:
        return model
    model = _look_again(model, source)
    if most <= MOST_WEIGHT_RATIO * least:
        return model
    return _without_claims(model, lost_weights_note(most / least))


def without_rows(model: FittedModel, weights: tuple[float, float]) -> FittedModel:
    """The model with what is to be said where squares lose digits and no rows are there.

    Parameters
    ----------
    model : FittedModel
    weights : tuple of float
        The least and the largest weight of the rows of its sums.
    """
    least, most = weights
    if least <= LITTLE_WEIGHT * most:
        return _without_claims(model, lost_weights_note(most / least))
    if keeps_digits(model):
        return model
    noise = _share_of_noise(model)
    rounding = ROUNDING * model.sums.n_rows / noise if noise > 0.0 else np.inf
    if rounding > MUCH_ROUNDING or model.fixed_basis.is_exact or model.is_bounded:
        return _without_claims(model, LOST_DIGITS)
    rounding = max(model.rounding, rounding)
    return replace(model, rounding=rounding, warnings=(*model.warnings, FEWER_DIGITS))


def keeps_digits(model: FittedModel) -> bool:
    """Whether sums of squares leave enough digits of the noise."""
    noise = _share_of_noise(model)
    is_independent = noise * model.fixed_basis.independence > LITTLE_INDEPENDENT_NOISE
    return bool(noise > LITTLE_NOISE and is_independent)


def _look_again(model: FittedModel, source: SourceOfRows) -> FittedModel:
    for look in range(MOST_LOOKS):
        last, model = model, _fit_again(model, source)
        was_poor = last.fixed_basis.is_exact or last.is_bounded
        is_no_better = look > 0 and model.rounding > MUCH_BETTER * last.rounding
        if not was_poor and (model.rounding <= MUCH_ROUNDING or is_no_better):
            break
    return model


def _without_claims(model: FittedModel, why: str) -> FittedModel:
    """The same fit, of which no digit is certain."""
    notes = (note for note in model.warnings if note != EXACT_FIT)
    return replace(
        model,
        is_certified=False,
        rounding=np.inf,
        warnings=(*notes, why),
    )


def _share_of_noise(model: FittedModel) -> float:
    """Share of the response's square, as it is in the sums, that is noise."""
    fixed = model.fixed_basis
    if not model.roots or fixed.is_exact:
        return fixed.unexplained
    return fixed.unexplained * model.fixed_effects.noise_variance


def _fit_again(model: FittedModel, source: SourceOfRows) -> FittedModel:
    specification = model.specification
    coef = model.coef
    taken = np.zeros(len(specification.columns) + 1)
    if specification.fit_intercept:
        taken[0] = coef[0]
    taken[np.array(specification.fixed, int) + 1] = coef[int(specification.fit_intercept) :]
    sums = source.sums(model, taken)
    recipe = replace(model.recipe, is_bounded=False)
    start = None
    if model.roots and not model.fixed_basis.is_exact:
        sums = source.with_triangles(sums, model)
        start = model.user_theta
    return fit_sums(sums, recipe, start=start)
