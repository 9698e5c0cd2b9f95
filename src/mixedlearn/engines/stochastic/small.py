"""Small factors beside X: their random effects, in one small dense block.

Notation
--------
A factor of few levels is crossed with everything: conjugate gradients would take many iterations
for it, and random probes say little of a trace over few levels. Its columns S are carried through
the elimination and the iterative solutions like those of X and y. With V_o the covariance without
its effects, ``M = S'V_o^-1 S``, and Lambda the root of its D,

    K = I + Lambda'M Lambda,      B = Lambda K^-1 Lambda'       covariance given y and beta
    log|V| = log|V_o| + log|K|,   c'V^-1 d = c'V_o^-1 d - c'V_o^-1 S B S'V_o^-1 d
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedlearn.engines.stochastic.products import Side, replace_large

FloatArray = NDArray[np.float64]


class SmallFactors:
    """The small factors at one Lambda.

    Parameters
    ----------
    side : Side
    roots : sequence of ndarray of shape (q, q)
        Lambda of every factor of the model.
    cross : ndarray of shape (s + c, s + c)
        ``[S X y]'V_o^-1[S X y]``.

    Attributes
    ----------
    covariance : ndarray of shape (s, s)
        B.
    log_det : float
        log|K|.
    cross : ndarray of shape (c, c)
        ``[X y]'V^-1[X y]``.
    blups : ndarray of shape (s, c)
        BLUPs of their effects for each of the columns.
    """

    def __init__(self, side: Side, roots: Sequence[FloatArray], cross: FloatArray):
        self._side, self._roots = side, roots
        s = side.size
        self._products, self._data = cross[:s, :s], cross[:s, s:]
        self.covariance, self.log_det = np.zeros((s, s)), 0.0
        if s:
            # The root is Kronecker's product of Lambda and the identity, for every factor.
            turned = self._turn(self._turn(self._products).T)
            triangle = np.linalg.cholesky(np.eye(s) + turned)
            self.log_det = 2.0 * float(np.log(np.diag(triangle)).sum())
            half = self._turn(np.linalg.inv(triangle).T, transposed=False)
            self.covariance = half @ half.T
        self.blups = self.covariance @ self._data
        self.cross = cross[s:, s:] - self._data.T @ self.blups

    def _turn(self, rows: FloatArray, *, transposed: bool = True) -> FloatArray:
        """Lambda', or Lambda, times rows of shape (s, c)."""
        parts = []
        for k, part in zip(self._side.factors, self._side.parts(rows), strict=True):
            root = self._roots[k].T if transposed else self._roots[k]
            parts.append(np.tensordot(root, part, 1))
        return self._side.join(parts, rows.shape[1])

    def spread(self, columns: FloatArray) -> FloatArray:
        """What ``[S X y]`` gives, with the effects of S taken out: (n, s + c) to (n, c)."""
        s = self._side.size
        return columns[:, s:] - columns[:, :s] @ self.blups

    def scores(self) -> FloatArray:
        """``S'V^-1[X y]``, shape (s, c)."""
        scores = self._data - self._products @ self.blups
        replace_large(self._side, self._roots, scores, self.blups)
        return scores

    def information(self) -> list[FloatArray]:
        """``sum_i Z_i'V^-1 Z_i`` of the small factors, shapes (q, q)."""
        kept = self._products - self._products @ self.covariance @ self._products
        found = []
        for own, (q, m) in zip(self._side.slices, self._side.shapes, strict=True):
            found.append(np.einsum("aibi->ab", kept[own, own].reshape(q, m, q, m)))
        return found

    def taken(self, scores: FloatArray) -> FloatArray:
        """``sum_i T_i B T_i'`` for the ``T_i = Z_i'V_o^-1 S`` of another factor, (q, m, s)."""
        return np.asarray(np.einsum("ams,bms->ab", scores @ self.covariance, scores))
