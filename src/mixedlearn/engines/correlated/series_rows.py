"""Rows in series below levels: any structure beside random effects of factors above the series."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.residual.base import ResidualCovariance
from mixedlearn.data.blocks import BlockSet, find_blocks
from mixedlearn.engines.correlated.blocks import BlockRows
from mixedlearn.engines.correlated.covariance import BlockCovariance, Parameters, Point, RandomRows
from mixedlearn.engines.correlated.effects import LevelRows
from mixedlearn.engines.correlated.effects_likelihood import EffectsLikelihood
from mixedlearn.engines.correlated.likelihood import Patterns
from mixedlearn.engines.correlated.rows import NoiseRows
from mixedlearn.engines.correlated.series import SeriesSet, SeriesSide
from mixedlearn.engines.profiled import ProfiledLikelihood

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]


def factors_above(noise: NoiseRows, codes: Sequence[IntArray]) -> tuple[int, ...] | None:
    """The factors whose levels join several series; None where there are others in between.

    All others have the series as their levels.
    """
    blocks = find_blocks([noise.series, *codes])
    n_series, n_blocks = len(np.unique(noise.series)), len(np.unique(blocks))
    if n_series == n_blocks:
        return None
    sizes = [len(np.unique(own)) for own in codes]
    if not all(size in (n_series, n_blocks) for size in sizes):
        return None
    return tuple(k for k, size in enumerate(sizes) if size == n_blocks)


class SeriesRows:
    """Rows sorted into series, which factors above join.

    Parameters
    ----------
    noise : NoiseRows
    codes : sequence of ndarray of shape (n,), int
        The levels of every factor.
    z : sequence of ndarray of shape (n, q)
        The random columns of every factor.
    above : sequence of int
        The factors that join series.
    """

    def __init__(
        self,
        noise: NoiseRows,
        codes: Sequence[IntArray],
        z: Sequence[FloatArray],
        above: Sequence[int],
    ):
        self._within = [k for k in range(len(codes)) if k not in above]
        own = [(codes[k], z[k]) for k in self._within]
        self._series = BlockRows(noise, [code for code, _ in own], [column for _, column in own])
        self._noise, self._above, self._z = noise, tuple(above), list(z)
        self._level = np.unique(codes[self._above[0]], return_inverse=True)[1].ravel()

    def likelihood(
        self,
        parameters: Parameters,
        basis: FloatArray,
        columns: FloatArray,
        base: ProfiledLikelihood,
    ) -> EffectsLikelihood:
        """The likelihood of the rows; see `BlockRows.likelihood`."""
        z = np.hstack([self._z[k] for k in self._above])
        rows = LevelRows(self._level, z, basis @ columns)
        side = SeriesSide(rows, [self._series_set(own, parameters) for own in self._series.sets])
        own = base.n_rows, base.reml, base.constant
        return EffectsLikelihood(side, parameters, self._above, *own)

    def whitened(
        self, parts: Sequence[ResidualCovariance], point: Point, basis: FloatArray
    ) -> tuple[FloatArray, float]:
        """Rows times a root of ``R^-1``, and ``log|R|``."""
        return self._series.whitened(parts, point, basis)

    def moments(self, number: int, part: ResidualCovariance, residuals: FloatArray) -> FloatArray:
        """What a part starts from; see `BlockRows.moments`."""
        return self._series.moments(number, part, residuals)

    def _series_set(self, own: BlockSet, parameters: Parameters) -> SeriesSet:
        """A set of series with the effects that are constant in them."""
        n_patterns, t = own.is_there.shape
        pattern = np.repeat(np.arange(n_patterns), own.counts.astype(int))
        rows = np.full((len(pattern), t), -1)
        for number, (there, members) in enumerate(zip(own.is_there, own.members, strict=True)):
            rows[np.ix_(pattern == number, there)] = members
        randoms = [
            self._series.random_rows(self._within.index(k), own)
            if k in self._within
            else RandomRows(np.zeros_like(columns[own.example]), None)
            for k, columns in enumerate(self._z)
        ]
        part = int(self._noise.part[own.example.flat[0]])
        return SeriesSet(
            rows,
            Patterns(own.is_there, own.counts, np.empty((0, t, 0)), pattern),
            self._level[rows.max(axis=1)],
            BlockCovariance(parameters, part, self._noise.layout(own), randoms),
        )
