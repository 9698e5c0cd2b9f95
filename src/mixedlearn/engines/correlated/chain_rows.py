"""Rows in chains: correlations that fall with time, or none, for series of any length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.residual.base import ResidualCovariance
from mixedlearn.covariance.residual.monomial import Monomial
from mixedlearn.data.blocks import find_blocks
from mixedlearn.engines.correlated.chain_sums import ChainSums
from mixedlearn.engines.correlated.chains import Kinds, Weights
from mixedlearn.engines.correlated.covariance import Parameters, Point
from mixedlearn.engines.correlated.effects import LevelRows
from mixedlearn.engines.correlated.effects_likelihood import EffectsLikelihood
from mixedlearn.engines.correlated.rows import NoiseRows
from mixedlearn.engines.correlated.starts import start_correlations, start_deviations
from mixedlearn.engines.profiled import ProfiledLikelihood

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]

# Derivatives by more parameters of the noise take more than dense covariances of few occasions.
MOST_PARAMETERS = 12


def are_chains(
    noise: NoiseRows, codes: Sequence[IntArray], parts: Sequence[ResidualCovariance]
) -> bool:
    """Whether rows are chains, with random effects of one level at a time."""
    n_parameters = sum(part.n_parameters for part in parts)
    if not noise.is_markov or n_parameters > MOST_PARAMETERS:
        return False
    if not codes:
        return True
    n_blocks = int(find_blocks([noise.series, *codes]).max()) + 1
    return all(len(np.unique(own)) == n_blocks for own in codes)


class ChainRows:
    """Rows in the order of time, series by series.

    Parameters
    ----------
    noise : NoiseRows
    codes : sequence of ndarray of shape (n,), int
        The levels of every factor: rows that share one of a factor share one of all.
    z : sequence of ndarray of shape (n, q)
        The random columns of every factor.
    """

    def __init__(self, noise: NoiseRows, codes: Sequence[IntArray], z: Sequence[FloatArray]):
        n = len(noise.series)
        self._noise = noise
        self._level = (
            np.unique(codes[0], return_inverse=True)[1].ravel() if codes else np.zeros(n, int)
        )
        self._z = np.hstack([np.zeros((n, 0)), *z])
        self._order = np.lexsort((noise.times, noise.series, self._level))
        series, times = noise.series[self._order], noise.times[self._order]
        is_first = np.append(True, series[1:] != series[:-1])
        gap = np.where(is_first, np.inf, np.append(0.0, np.diff(times)))
        deviations = noise.deviations[self._order]
        before = np.vstack([deviations[:1], deviations[:-1]])
        before[is_first] = 0.0
        self._kinds = Kinds(noise.part[self._order], deviations, before, gap)

    def likelihood(
        self,
        parameters: Parameters,
        basis: FloatArray,
        columns: FloatArray,
        base: ProfiledLikelihood,
    ) -> EffectsLikelihood:
        """The likelihood of the rows; see `BlockRows.likelihood`."""
        order = self._order
        rows = LevelRows(self._level[order], self._z[order], (basis @ columns)[order])
        side = ChainSums(rows, self._kinds)
        factors = range(len(parameters.components.structures))
        own = base.n_rows, base.reml, base.constant
        return EffectsLikelihood(side, parameters, factors, *own)

    def precision(
        self, parts: Sequence[ResidualCovariance], point: Point
    ) -> tuple[IntArray, FloatArray, FloatArray]:
        """The order of rows in which ``R^-1`` is tridiagonal, its diagonal and the one above."""
        weights = self._weights(parts, point)
        return self._order, weights.diagonal, weights.lagged[1:]

    def whitened(
        self, parts: Sequence[ResidualCovariance], point: Point, basis: FloatArray
    ) -> tuple[FloatArray, float]:
        """Rows times a root of ``R^-1``, and ``log|R|``."""
        weights = self._weights(parts, point)
        rows = basis[self._order]
        # Of row t of K, in `chains`: own is 1 / (s_t^2 (1 - phi^2)), lagged over its root the rest.
        root = np.sqrt(weights.own)[:, None]
        turned = root * rows
        turned[1:] += (weights.lagged[1:, None] / root[1:]) * rows[:-1]
        found = np.empty_like(basis)
        found[self._order] = turned
        return found, float(weights.log_det.sum())

    def solved(
        self, parts: Sequence[ResidualCovariance], point: Point, rows: FloatArray
    ) -> FloatArray:
        """``R^-1`` times rows."""
        found = np.empty_like(rows)
        found[self._order] = self._weights(parts, point).times(rows[self._order])
        return found

    def precisions(self, parts: Sequence[ResidualCovariance], point: Point) -> FloatArray:
        """The diagonal of ``R^-1``, shape (n,)."""
        found = np.empty(len(self._order))
        found[self._order] = self._weights(parts, point).diagonal
        return found

    def _weights(self, parts: Sequence[ResidualCovariance], point: Point) -> Weights:
        """The weights of the rows."""
        places = [slice(0, part.n_parameters) for part in parts]
        return self._kinds.weights(parts, point, places, 0)[()]

    def moments(self, number: int, part: ResidualCovariance, residuals: FloatArray) -> FloatArray:
        """What a part starts from: see `BlockRows.moments`; of rows that follow each other."""
        assert isinstance(part, Monomial)
        deviations, scaled, variance = start_deviations(number, part, self._noise, residuals)
        if not part.ranges:
            return deviations
        gap, scaled = self._kinds.gap, scaled[self._order]
        is_pair = np.isfinite(gap) & (self._kinds.part == number)
        if not is_pair.any():
            return np.append(deviations, 0.0)
        usual = float(np.median(gap[is_pair]))
        pairs = np.flatnonzero(is_pair & (gap <= usual))
        mean = np.mean(scaled[pairs] * scaled[pairs - 1]) / variance
        exponent = float(np.mean(gap[pairs]))
        return np.append(
            deviations, start_correlations(part, np.array([mean]), np.array([exponent]))
        )
