"""The covariance of the noise of single rows of a fit.

Models with a residual structure are ordinary ones for the rows times a root of ``R^-1``. What looks
at single rows needs R itself: residuals, leverages and the deletion of rows, sandwiches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.residual.base import ResidualCovariance
from mixedlearn.data.rows import CodedRows
from mixedlearn.engines.correlated.chain_rows import ChainRows
from mixedlearn.engines.correlated.covariance import Point
from mixedlearn.engines.correlated.rows import NoiseRows
from mixedlearn.engines.plan import check_block_memory
from mixedlearn.model.correlated import FittedNoise
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.given_noise import alike

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class RowNoise:
    """R of rows, relative to the noise variance, and block-diagonal by the levels of the series.

    All that it is applied to has been multiplied by the roots of the weights. Rows of weight zero
    are of no level: they stay as they are.

    Attributes
    ----------
    noise : FittedNoise
    rows : NoiseRows
        Of the rows of positive weight.
    present : ndarray of shape (n_present,), int
        Which rows these are.
    basis : ndarray of shape (n, k + 2)
        Basis columns of all rows, times the roots of their weights.
    """

    noise: FittedNoise
    rows: NoiseRows
    present: NDArray[np.intp]
    basis: FloatArray

    @property
    def is_correlated(self) -> bool:
        """Whether rows of one level are."""
        return self.noise.binding.correlation is not None

    @cached_property
    def series(self) -> NDArray[np.intp]:
        """The level of the series of every row; -1 for rows of weight zero."""
        found = np.full(len(self.basis), -1)
        found[self.present] = self.rows.series
        return found

    @cached_property
    def variances(self) -> FloatArray:
        """The diagonal of R, shape (n,)."""
        found = np.ones(len(self.basis))
        found[self.present] = self.noise.variances_of(self.rows)
        return found

    @cached_property
    def precisions(self) -> FloatArray:
        """The diagonal of ``R^-1``, shape (n,)."""
        found = np.ones(len(self.basis))
        if self._chain is not None:
            found[self.present] = self._chain.precisions(*self._point)
            return found
        for places, covariance in self._blocks:
            found[places] = np.einsum("gmm->gm", np.linalg.inv(covariance))
        return found

    def whitened(self, values: FloatArray) -> FloatArray:
        """``L^-1 values`` of values of shape (n, c), with ``L L' = R`` and L a lower triangle.

        So the noise of a row is left with what the rows before it in its level do not tell.
        """
        found = values.copy()
        if self._chain is not None:
            found[self.present] = self._chain.whitened(*self._point, values[self.present])[0]
            return found
        for places, covariance in self._blocks:
            found[places] = np.linalg.solve(np.linalg.cholesky(covariance), values[places])
        return found

    def solved(self, values: FloatArray) -> FloatArray:
        """``R^-1 values`` of values of shape (n, c)."""
        found = values.copy()
        if self._chain is not None:
            found[self.present] = self._chain.solved(*self._point, values[self.present])
            return found
        for places, covariance in self._blocks:
            found[places] = np.linalg.solve(covariance, values[places])
        return found

    def covariance(self, places: NDArray[np.intp]) -> FloatArray:
        """R of sets of rows (g, n), each of which holds whole levels, shape (g, n, n)."""
        number = np.full(len(self.basis), -1)
        number[places] = np.arange(len(places))[:, None]
        position = np.zeros(len(self.basis), dtype=np.intp)
        position[places] = np.arange(places.shape[1])
        found = np.zeros((*places.shape, places.shape[1]))
        for rows, covariance in self._blocks:
            own = number[rows[:, 0]] >= 0
            at, inside = position[rows[own]], number[rows[own, 0]]
            found[inside[:, None, None], at[:, :, None], at[:, None, :]] = covariance[own]
        return found

    def of_present(self) -> RowNoise:
        """That of the rows of positive weight alone."""
        places = np.arange(len(self.present))
        return RowNoise(self.noise, self.rows, places, self.basis[self.present])

    @property
    def _point(self) -> tuple[tuple[ResidualCovariance, ...], Point]:
        """What R is a function of; the R of a chain has no reference beside it."""
        return self.noise.binding.parts, self.noise.point

    @cached_property
    def _chain(self) -> ChainRows | None:
        """The rows as a chain, if each depends on the one before alone."""
        return ChainRows(self.rows, [], []) if self.rows.is_markov else None

    @cached_property
    def _blocks(self) -> list[tuple[NDArray[np.intp], FloatArray]]:
        """Levels of as many rows each, (g, m), in order of their times, and their R (g, m, m).

        Raises
        ------
        MemoryError
            If they do not fit into memory.
        """
        rows = self.rows
        order = np.lexsort((rows.times, rows.series))
        levels = np.split(order, np.flatnonzero(np.diff(rows.series[order])) + 1)
        sets = [places for _, places in alike(rows, [(order[:0], own) for own in levels])]
        check_block_memory([(len(own), own.shape[1]) for own in sets], 1)
        return [(self.present[own], self.noise.covariance(rows, own)) for own in sets]


def row_noise(model: FittedModel, rows: CodedRows, noise_rows: NoiseRows) -> RowNoise:
    """R of rows at the estimates of a model with a residual structure.

    Parameters
    ----------
    model : FittedModel
    rows : CodedRows
    noise_rows : NoiseRows
        What the noise depends on, of the rows of positive weight.
    """
    present = np.flatnonzero(rows.given_weights > 0.0)
    basis = model.sums.weighted_rows(rows, slice(None))
    return RowNoise(model.noise, noise_rows, present, basis)
