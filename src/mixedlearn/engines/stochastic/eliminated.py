"""The factor that is eliminated level by level, at one Lambda.

Notation
--------
With ``F_i = Z_i'Z_i`` of its level i, and V_c the covariance with the effects of this factor alone,

    O_i = Lambda (I + Lambda'F_i Lambda)^-1 Lambda'      their covariance given all other effects
    V_c^-1 = I - sum_i Z_i O_i Z_i',      log|V_c| = sum_i log|I + Lambda'F_i Lambda|
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedlearn.engines.stochastic.pairs import times_blocks

FloatArray = NDArray[np.float64]


class Eliminated:
    """The levels of a factor at one Lambda.

    Parameters
    ----------
    squares : ndarray of shape (q, q, m)
        F_i.
    root : ndarray of shape (q, q)
        Lambda.

    Attributes
    ----------
    own : ndarray of shape (q, q, m)
        O_i.
    log_det : float
        log|V_c|.
    """

    def __init__(self, squares: FloatArray, root: FloatArray):
        self._squares = squares
        if len(root) == 1:
            variance = root[0, 0] ** 2
            pivots = 1.0 + variance * squares[0, 0]
            self.own = (variance / pivots)[None, None]
            self.log_det = float(np.log(pivots).sum())
            return
        inner = np.einsum("ba,bcm,cd->mad", root, squares, root, optimize=True)
        inner += np.eye(len(root))
        blocks = root @ np.linalg.inv(inner) @ root.T
        self.own = np.ascontiguousarray(blocks.transpose(1, 2, 0))
        self.log_det = float(np.linalg.slogdet(inner)[1].sum())

    def times(self, vectors: FloatArray) -> FloatArray:
        """The O_i times vectors of shape (q m, c), effect by effect."""
        q, _, m = self.own.shape
        parts = vectors.reshape(q, m, vectors.shape[1])
        return times_blocks(self.own, parts).reshape(vectors.shape)

    def left(self) -> FloatArray:
        """``I - O_i F_i``: what is left of a level's columns in V_c^-1, shape (q, q, m)."""
        lost = np.einsum("abm,bcm->acm", self.own, self._squares)
        return np.eye(len(self.own))[:, :, None] - lost

    def information(self) -> FloatArray:
        """``sum_i Z_i'V_c^-1 Z_i``, shape (q, q)."""
        total = np.einsum("abm,bcm->ac", self._squares, self.left())
        return np.asarray(total + total.T) / 2.0
