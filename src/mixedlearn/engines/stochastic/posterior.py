"""The random effects given the response, by a solution for every row that is asked for.

For a row with coordinates ``z_c`` over the first factor and ``z_t`` over the tail, with O, A and C
as in `eliminated` and `system`,

    var(z'b) = z_c'O z_c + h'C^-1 h,      h = Lambda'(z_t - A'O z_c)

Small factors (`small`) add ``g'B_s g`` with their covariance B_s and ``g = z_s - F'z``, where F are
the BLUPs of the other effects for their columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mixedlearn.engines.stochastic.conjugate_gradients import BLOCK_COLUMNS
from mixedlearn.engines.stochastic.products import Side
from mixedlearn.engines.stochastic.system import System, form
from mixedlearn.threads import one_thread

FloatArray = NDArray[np.float64]

# Residuals relative to the right-hand sides: variances are off by the square.
TOLERANCE = 1e-6
# The covariance of the effects of so many levels takes a minute or so.
MOST_LEVELS = 5000


@dataclass(frozen=True, slots=True)
class StochasticPosterior:
    """Distribution of the engine's random effects given the response, relative to the noise.

    Attributes
    ----------
    system : System
    small_covariance : ndarray of shape (s, s)
        B_s.
    first_response, tail_response : ndarray of shape (n, s)
        F.
    coef_response : tuple of ndarray of shape (q, p, m)
        For every factor, minus the change of the BLUPs with beta.
    """

    system: System
    small_covariance: FloatArray
    first_response: FloatArray
    tail_response: FloatArray
    coef_response: tuple[FloatArray, ...]

    def covariance(self, k: int) -> FloatArray:
        """Covariance of the effects of every level of factor k, beta known: (q, q, m).

        Raises
        ------
        ValueError
            If there are very many levels.
        """
        shapes = self.system.products.plan.shapes
        q, m = shapes[k]
        if m > MOST_LEVELS:
            raise ValueError(
                f"The covariances of the random effects of {m:,} levels, given the data, take a "
                "solution of the equations for each with solver='stochastic'. Ask for those of the "
                "rows that you need by predict(X, return_std=True), or fit with solver='exact'."
            )
        codes = [np.full(m, -1) for _ in shapes]
        codes[k] = np.arange(m)
        result = np.empty((q, q, m))
        for a in range(q):
            result[a, a] = self._variance_of(k, [a], codes)
            for b in range(a):
                both = self._variance_of(k, [a, b], codes)
                result[a, b] = result[b, a] = (both - result[a, a] - result[b, b]) / 2.0
        return result

    def _variance_of(
        self, k: int, effects: list[int], codes: Sequence[NDArray[np.integer]]
    ) -> FloatArray:
        """Variance of the sum of some effects of every level of factor k."""
        columns = [np.zeros((len(codes[k]), q)) for q, _ in self.system.products.plan.shapes]
        columns[k][:, effects] = 1.0
        return self.variance(columns, codes)

    def variance(
        self, columns: Sequence[FloatArray], codes: Sequence[NDArray[np.integer]]
    ) -> FloatArray:
        """Variance of ``sum_k z_k'b_k`` for new rows, shape (n,)."""
        keys = np.column_stack([*codes, *columns])
        distinct, place = np.unique(keys, axis=0, return_inverse=True)
        n_factors, n = len(codes), len(distinct)
        own_codes = distinct[:, :n_factors].astype(np.int64).T
        bounds = np.cumsum([n_factors, *(own.shape[1] for own in columns)]).tolist()
        own_columns = [distinct[:, slice(*pair)] for pair in pairwise(bounds)]
        variance = np.empty(n)
        with one_thread:
            for start in range(0, n, BLOCK_COLUMNS):
                part = slice(start, start + BLOCK_COLUMNS)
                variance[part] = self._block(
                    [own[part] for own in own_columns], [own[part] for own in own_codes]
                )
        return variance[place.ravel()]

    def _block(
        self, columns: Sequence[FloatArray], codes: Sequence[NDArray[np.integer]]
    ) -> FloatArray:
        system, products = self.system, self.system.products
        in_first = _coordinates(products.first, columns, codes)
        in_tail = _coordinates(products.tail, columns, codes)
        pushed = system.first.times(in_first)
        right = system.turn(in_tail - products.to_tail(pushed), transposed=True)
        solutions, residuals = system.solve(right, TOLERANCE)
        own = np.einsum("nc,nc->c", in_first, pushed)
        in_small = _coordinates(products.small, columns, codes)
        in_small -= self.first_response.T @ in_first + self.tail_response.T @ in_tail
        own += np.einsum("nc,nc->c", in_small, self.small_covariance @ in_small)
        return np.asarray(own + np.diag(form(solutions, right, residuals)))


def _coordinates(
    side: Side, columns: Sequence[FloatArray], codes: Sequence[NDArray[np.integer]]
) -> FloatArray:
    """The coordinates of rows, zero where a level is unknown: shape (n, n_rows)."""
    n_rows = len(columns[0])
    vectors = np.zeros((side.size, n_rows))
    for k, part in zip(side.factors, side.parts(vectors), strict=True):
        known = np.flatnonzero(codes[k] >= 0)
        part[:, codes[k][known], known] = columns[k][known].T
    return vectors
