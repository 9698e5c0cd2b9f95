"""Dense symmetric matrices: the inverse by matrix products.

Everything large is a product of matrices, which the same library computes as all other products of
the package: two libraries with threads of their own would wait for each other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# Matrices up to this size are left to LAPACK.
LEAF = 256


def invert(matrix: FloatArray) -> float:
    """Overwrite a positive definite matrix with its inverse.

    Rows and columns are scaled to a unit diagonal first: what is lost in rounding then depends on
    how nearly collinear they are, not on their units.

    Returns
    -------
    log_det : float
        log-determinant of the matrix.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the matrix is not positive definite to rounding.
    """
    squares = np.diag(matrix).copy()
    if not (squares > 0.0).all():
        raise np.linalg.LinAlgError("a diagonal entry is not positive")
    scale = 1.0 / np.sqrt(squares)
    _scale(matrix, scale)
    log_det = _invert_scaled(matrix)
    _scale(matrix, scale)
    return log_det + float(np.log(squares).sum())


def _scale(matrix: FloatArray, scale: FloatArray) -> None:
    matrix *= scale
    matrix *= scale[:, None]


def _invert_scaled(matrix: FloatArray) -> float:
    """By halves, with the Schur complement ``S = C_22 - C_21 C_11^-1 C_12``."""
    n = len(matrix)
    if n <= LEAF:
        root = np.linalg.cholesky(matrix)
        inverse_root = np.linalg.inv(root)
        np.matmul(inverse_root.T, inverse_root, out=matrix)
        return 2.0 * float(np.log(np.diag(root)).sum())
    half = n // 2
    first, last = slice(half), slice(half, n)
    below = matrix[last, first].copy()
    log_det = _invert_scaled(matrix[first, first])
    regression = below @ matrix[first, first]
    _subtract_symmetric(matrix[last, last], regression, below.T)
    log_det += _invert_scaled(matrix[last, last])
    np.matmul(matrix[last, last], regression, out=below)
    np.negative(below, out=matrix[last, first])
    _subtract_symmetric(matrix[first, first], regression.T, matrix[last, first])
    matrix[first, last] = matrix[last, first].T
    return log_det


def _subtract_symmetric(matrix: FloatArray, left: FloatArray, right: FloatArray) -> None:
    """Subtract a product that is symmetric, three of its four quarters computed."""
    half = len(matrix) // 2
    first, last = slice(half), slice(half, len(matrix))
    matrix[first, first] -= left[first] @ right[:, first]
    matrix[last, last] -= left[last] @ right[:, last]
    matrix[last, first] -= left[last] @ right[:, first]
    matrix[first, last] = matrix[last, first].T


def mirror_upper(matrix: FloatArray) -> None:
    """Copy the upper triangle to the lower one, in place, block by block."""
    for start in range(0, len(matrix), LEAF):
        own, rest = slice(start, start + LEAF), slice(start + LEAF, None)
        block = np.triu(matrix[own, own])
        matrix[own, own] = block + np.triu(block, 1).T
        matrix[rest, own] = matrix[own, rest].T
