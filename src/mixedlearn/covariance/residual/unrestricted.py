"""A covariance of its own for every two occasions.

The local coordinates at ``R = L L'`` are those of ``L T(z) T(z)'L'``, T lower triangular with
``exp(z_ii)`` on its diagonal. Whatever the units of the occasions and however correlated they are,
the same step is as long.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.residual.base import Layout, ResidualCovariance

FloatArray = NDArray[np.float64]


class Unrestricted(ResidualCovariance):
    """A covariance of its own for every two occasions; a point is a root of R.

    Parameters
    ----------
    n_occasions : int
        Number of occasions, T.
    """

    is_relative = False

    def __init__(self, n_occasions: int):
        self.n_occasions = n_occasions
        self._rows, self._columns = np.tril_indices(n_occasions)

    @property
    def n_parameters(self) -> int:
        """Number of variances and covariances."""
        return len(self._rows)

    def covariance(self, point: FloatArray, layout: Layout) -> FloatArray:
        """R, shape (..., T, T)."""
        return _at(point @ point.T, layout)

    def directions(self, point: FloatArray, layout: Layout) -> FloatArray:
        """``L (e_i e_j' + e_j e_i') L'``."""
        left, right = point.T[self._rows], point.T[self._columns]
        one_sided = left[:, :, None] * right[:, None, :]
        return _at(one_sided + one_sided.swapaxes(-1, -2), layout)

    def second(self, point: FloatArray, layout: Layout, weights: FloatArray) -> FloatArray:
        """``sum(R_ab * weights)`` of the second derivatives.

        ``R_ab = L (E_a E_b' + E_b E_a' + [a = b on the diagonal] 2 E_a) L'``.
        """
        places = (layout.occasions[..., :, None], layout.occasions[..., None, :])
        own = weights if layout.is_correlated is None else weights * layout.is_correlated
        whole = np.zeros((self.n_occasions, self.n_occasions))
        np.add.at(whole, places, own)
        turned = point.T @ whole @ point
        shared = self._columns[:, None] == self._columns
        result = 2.0 * shared * turned[self._rows[:, None], self._rows]
        diagonal = np.flatnonzero(self._rows == self._columns)
        result[diagonal, diagonal] += 2.0 * np.diag(turned)
        return np.asarray(result)

    def moved(self, point: FloatArray, step: FloatArray) -> FloatArray:
        """``L T(z)``."""
        triangle = np.zeros((self.n_occasions, self.n_occasions))
        triangle[self._rows, self._columns] = step
        diagonal = np.arange(self.n_occasions)
        triangle[diagonal, diagonal] = np.exp(triangle[diagonal, diagonal])
        return np.asarray(point @ triangle)

    def starts(self, moments: FloatArray) -> list[FloatArray]:
        """Points to search from.

        Parameters
        ----------
        moments : ndarray of shape (T, T)
            Covariances of the pairs of occasions; they need not be one matrix of covariances.
        """
        sizes = np.sqrt(np.diag(moments))
        values, vectors = np.linalg.eigh(moments / np.outer(sizes, sizes))
        lifted = (vectors * np.maximum(values, 0.05)) @ vectors.T
        scale = sizes / np.sqrt(np.diag(lifted))
        return [np.linalg.cholesky(lifted * np.outer(scale, scale))]


def _at(matrices: FloatArray, layout: Layout) -> FloatArray:
    """Entries of matrices over all occasions, (..., T, T), for the occasions of some rows."""
    occasions = layout.occasions
    found = matrices[..., occasions[..., :, None], occasions[..., None, :]]
    return found if layout.is_correlated is None else found * layout.is_correlated
