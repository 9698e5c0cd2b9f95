"""The covariance of the noise of single rows of a fit.

Models with a residual structure are ordinary ones for the rows times a root of ``R^-1``. What looks
at single rows needs R itself: residuals, leverages and the deletion of rows, sandwiches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.rows import CodedRows
from mixedlearn.engines.correlated.problem import NoiseRows
from mixedlearn.model.correlated import FittedNoise
from mixedlearn.model.fitted import FittedModel

FloatArray = NDArray[np.float64]

# Entries of the matrices that are made at a time.
MOST_ENTRIES = 1 << 22


@dataclass(frozen=True, slots=True)
class RowNoise:
    """R of rows, relative to the noise variance, and block-diagonal by the levels of the series.

    All that it is applied to has been multiplied by the roots of the weights. Rows of weight zero
    are in no block: they stay as they are.

    Attributes
    ----------
    basis : ndarray of shape (n, k + 2)
        Basis columns of the rows, times the roots of their weights.
    variances : ndarray of shape (n,)
        The diagonal of R.
    series : ndarray of shape (n,), int
        The level of the series; -1 for rows of weight zero.
    blocks : tuple of (ndarray of shape (g, m), ndarray of shape (g, m, m))
        The rows of levels of m rows in order of their times, and their R.
    """

    basis: FloatArray
    variances: FloatArray
    series: NDArray[np.intp]
    blocks: tuple[tuple[NDArray[np.intp], FloatArray], ...]

    @property
    def is_correlated(self) -> bool:
        """Whether any two rows are."""
        return any(places.shape[1] > 1 for places, _ in self.blocks)

    @property
    def precisions(self) -> FloatArray:
        """The diagonal of ``R^-1``."""
        found = np.ones(len(self.variances))
        for places, covariance in self.blocks:
            found[places] = np.einsum("gmm->gm", np.linalg.inv(covariance))
        return found

    def whitened(self, values: FloatArray) -> FloatArray:
        """``L^-1 values`` of values of shape (n, c), with ``L L' = R`` and L a lower triangle.

        So the noise of a row is left with what the rows before it in its level do not tell.
        """
        found = values.copy()
        for places, covariance in self.blocks:
            found[places] = np.linalg.solve(np.linalg.cholesky(covariance), values[places])
        return found

    def solved(self, values: FloatArray) -> FloatArray:
        """``R^-1 values`` of values of shape (n, c)."""
        found = values.copy()
        for places, covariance in self.blocks:
            found[places] = np.linalg.solve(covariance, values[places])
        return found

    def covariance(self, places: NDArray[np.intp]) -> FloatArray:
        """R of sets of rows (g, n), each of which holds whole levels, shape (g, n, n)."""
        number = np.full(len(self.variances), -1)
        number[places] = np.arange(len(places))[:, None]
        position = np.zeros(len(self.variances), dtype=np.intp)
        position[places] = np.arange(places.shape[1])
        found = np.zeros((*places.shape, places.shape[1]))
        for rows, covariance in self.blocks:
            own = number[rows[:, 0]] >= 0
            at, inside = position[rows[own]], number[rows[own, 0]]
            found[inside[:, None, None], at[:, :, None], at[:, None, :]] = covariance[own]
        return found

    def of(self, present: NDArray[np.bool_]) -> RowNoise:
        """That of the rows of positive weight alone."""
        number = np.cumsum(present) - 1
        blocks = tuple((number[places], own) for places, own in self.blocks)
        return RowNoise(self.basis[present], self.variances[present], self.series[present], blocks)


def row_noise(model: FittedModel, rows: CodedRows, noise_rows: NoiseRows) -> RowNoise:
    """R of rows at the estimates of a model with a residual structure.

    Parameters
    ----------
    model : FittedModel
    rows : CodedRows
    noise_rows : NoiseRows
        What the noise depends on, of the rows of positive weight.
    """
    noise: FittedNoise = model.noise
    present = np.flatnonzero(rows.given_weights > 0.0)
    series = noise_rows.series
    order = np.lexsort((noise_rows.times, series))
    counts = np.bincount(series)
    starts = np.cumsum(counts) - counts
    part = np.full(len(counts), -1)
    part[series] = noise_rows.part
    variances = np.ones(len(rows.X))
    blocks = []
    for number, m in np.unique(np.column_stack([part, counts])[counts > 0], axis=0):
        levels = np.flatnonzero((part == number) & (counts == m))
        places = order[starts[levels][:, None] + np.arange(m)]
        size = int(m) ** 2 * max(noise.binding.n_correlations, 1)
        step = max(MOST_ENTRIES // size, 1)
        covariance = np.concatenate(
            [
                noise.covariance(noise_rows, places[first : first + step])
                for first in range(0, len(places), step)
            ]
        )
        places = present[places]
        variances[places] = np.einsum("gmm->gm", covariance)
        blocks.append((places, covariance))
    basis = model.sums.weighted_rows(rows, slice(None))
    levels = np.full(len(rows.X), -1)
    levels[present] = series
    return RowNoise(basis, variances, levels, tuple(blocks))
