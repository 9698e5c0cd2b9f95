"""Whether the residual structure of one model is a special case of that of another.

The logarithm of a covariance that is a product of powers is linear in the logarithms of its
parameters: for two rows of a level its columns are one, ``B_s + B_t`` and the exponents (see
`covariance.residual.monomial`). One structure is a special case of another if its columns are
combinations of the other's, over all pairs of rows that there are. An unstructured covariance has a
column of its own for every two occasions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.residual.correlations import Free
from mixedlearn.model.correlated import FittedNoise
from mixedlearn.model.fitted import FittedModel

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]

# Pairs of rows that are looked at.
MOST_PAIRS = 20_000
# Share of a column that its combination may lack, by rounding error.
SAME = 1e-8


def missing_noise(smaller: FittedModel, larger: FittedModel) -> str:
    """What the noise of a model has that of another one has not, in words; empty if nothing."""
    one, other = smaller.noise, larger.noise
    if one is None:
        return ""
    if other is None:
        return "the residual structure"
    first, second = _pairs(one if one.binding.correlation is not None else other)
    what = f"the residual structure {one.description}"
    if one.binding.correlation is not None and other.binding.correlation is None:
        return what
    if isinstance(other.binding.correlation, Free):
        cells = _cells(other, first, second)
        own = _columns(one, first, second)
        is_inside = all(
            np.allclose(own[cells == cell], own[cells == cell][:1]) for cell in np.unique(cells)
        )
        return "" if is_inside and _same_series(one, other) else what
    if isinstance(one.binding.correlation, Free):
        return what
    own, there = _columns(one, first, second), _columns(other, first, second)
    solution = np.linalg.lstsq(there, own, rcond=None)[0]
    left = np.linalg.norm(own - there @ solution, axis=0)
    is_inside = (left <= SAME * np.maximum(np.linalg.norm(own, axis=0), 1.0)).all()
    has_same_series = one.binding.correlation is None or _same_series(one, other)
    return "" if is_inside and has_same_series else what


def _same_series(one: FittedNoise, other: FittedNoise) -> bool:
    """Whether rows are correlated with the same others, or not at all."""
    left, right = one.noise_rows.series, other.noise_rows.series
    if one.binding.correlation is None:
        return True
    pairs = np.unique(np.column_stack([left, right]), axis=0)
    return len(pairs) == len(np.unique(left)) == len(np.unique(right))


def _pairs(noise: FittedNoise) -> tuple[IntArray, IntArray]:
    """Pairs of rows of a level, every row with itself among them."""
    series = noise.noise_rows.series
    order = np.argsort(series, kind="stable")
    first, second = [order], [order]
    n_pairs, gap = len(order), 1
    while n_pairs < MOST_PAIRS:
        is_pair = series[order[gap:]] == series[order[:-gap]]
        if not is_pair.any():
            break
        first.append(order[:-gap][is_pair])
        second.append(order[gap:][is_pair])
        n_pairs, gap = n_pairs + int(is_pair.sum()), gap + 1
    return np.concatenate(first), np.concatenate(second)


def _columns(noise: FittedNoise, first: IntArray, second: IntArray) -> FloatArray:
    """The columns of the logarithm of the covariances of pairs, (n_pairs, n_columns)."""
    rows = noise.noise_rows
    found = [np.ones((len(first), 1))]
    if isinstance(noise.binding.correlation, Free):
        cells = _cells(noise, first, second)
        return np.asarray(cells[:, None] == np.unique(cells), dtype=float)
    found.append(rows.deviations[first] + rows.deviations[second])
    pairs = np.column_stack([first, second])
    exponents = rows.exponents(rows.times[pairs], rows.occasions[pairs])
    found.append(exponents[:, :, 0, 1].T * (first != second)[:, None])
    columns = np.hstack(found)
    if len(noise.binding.parts) == 1:
        return columns
    part = rows.part[first][:, None] == np.arange(len(noise.binding.parts))
    return np.hstack([columns * own[:, None] for own in part.T])


def _cells(noise: FittedNoise, first: IntArray, second: IntArray) -> IntArray:
    """The number of the pair of occasions, and of the part, of every pair of rows."""
    rows = noise.noise_rows
    n = int(rows.occasions.max()) + 1
    low = np.minimum(rows.occasions[first], rows.occasions[second])
    high = np.maximum(rows.occasions[first], rows.occasions[second])
    return np.asarray((rows.part[first] * n + low) * n + high)
