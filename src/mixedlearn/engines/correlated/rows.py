"""What the noise of rows depends on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.residual.base import Layout
from mixedlearn.covariance.residual.correlations import Correlation
from mixedlearn.data.blocks import BlockSet

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Exponents:
    """From times of shape (..., T) and occasions to `Layout.exponents`.

    A class of its own, because formats other than pickle name the types that they load.

    Attributes
    ----------
    correlation : Correlation or None
    n : int
        Number of correlation parameters.
    """

    correlation: Correlation | None
    n: int

    def __call__(self, times: FloatArray, occasions: IntArray) -> FloatArray:
        """The exponents of all pairs of rows, shape (n, ..., T, T)."""
        if self.correlation is None or self.n == 0:
            return np.zeros((0, *times.shape, times.shape[-1]))
        return self.correlation.exponents(times, occasions, self.n)


def gaps_within(series: IntArray, times: FloatArray) -> tuple[FloatArray, IntArray]:
    """The times between rows that follow each other in a level, and the later of the two rows."""
    order = np.lexsort((times, series))
    follows = np.diff(series[order]) == 0
    return np.diff(times[order])[follows], order[1:][follows]


@dataclass(frozen=True, slots=True)
class NoiseRows:
    """What the noise of rows depends on.

    Attributes
    ----------
    series : ndarray of shape (n,), int
        The level of every row in the series factor: the noise of rows of one level is correlated.
    times : ndarray of shape (n,)
        Their order within a level, and the times between them.
    occasions : ndarray of shape (n,), int
        The number of the occasion.
    deviations : ndarray of shape (n, n_deviations)
        See `Layout`.
    part : ndarray of shape (n,), int
        Which part of the noise covariance holds for the row.
    exponents : Exponents
    is_stationary : bool
        Whether only differences of times count.
    is_markov : bool
        Whether a row depends on those before through the last of them alone: see `chains`.
    """

    series: IntArray
    times: FloatArray
    occasions: IntArray
    deviations: FloatArray
    part: IntArray
    exponents: Exponents
    is_stationary: bool
    is_markov: bool

    def layout(self, own: BlockSet) -> Layout:
        """The layout of blocks."""
        rows = own.example
        same = None
        if not own.is_shared:
            series = self.series[rows]
            same = series[..., :, None] == series[..., None, :]
        return self.layout_of(rows, None if same is None or same.all() else same)

    def layout_of(self, rows: IntArray, same: NDArray[np.bool_] | None = None) -> Layout:
        """The layout of rows of one series, shape (..., T), or of those that are the same."""
        return Layout(
            self.deviations[rows],
            self.exponents(self.times[rows], self.occasions[rows]),
            self.occasions[rows],
            same,
        )

    @property
    def gaps(self) -> tuple[FloatArray, IntArray]:
        """The times between rows that follow each other in a level, and the parts of these."""
        gaps, rows = gaps_within(self.series, self.times)
        return gaps, self.part[rows]

    def of(self, chosen: IntArray) -> NoiseRows:
        """Some of the rows."""
        return replace(
            self,
            series=self.series[chosen],
            times=self.times[chosen],
            occasions=self.occasions[chosen],
            deviations=self.deviations[chosen],
            part=self.part[chosen],
        )

    def joined(self, other: NoiseRows) -> NoiseRows:
        """These rows and others, with the same levels of the series."""
        return replace(
            self,
            series=np.append(self.series, other.series),
            times=np.append(self.times, other.times),
            occasions=np.append(self.occasions, other.occasions),
            deviations=np.vstack([self.deviations, other.deviations]),
            part=np.append(self.part, other.part),
        )
