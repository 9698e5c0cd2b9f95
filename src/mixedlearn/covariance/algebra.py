"""Algebra of covariance matrices: correlations, roots, what to do where one is singular."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dtrtri

FloatArray = NDArray[np.float64]

# A pivot below this share of its own diagonal entry is rounding error of a singular matrix.
PIVOT_TOLERANCE = 1e-12
# Eigenvalues of an information below this share of the largest are zero.
SINGULAR_INFORMATION = 1e-10


def correlations(covariance: FloatArray) -> FloatArray:
    """Correlations of covariances, shapes (..., q, q); NaN with an effect of variance zero."""
    deviations = np.sqrt(np.einsum("...aa->...a", covariance))
    sizes = deviations[..., :, None] * deviations[..., None, :]
    return np.clip(covariance / np.where(sizes > 0.0, sizes, np.nan), -1.0, 1.0)


def triangular_root(root: FloatArray) -> FloatArray:
    """Lower triangular root of ``root root'``."""
    return np.linalg.qr(root.T)[1].T


def cholesky(matrix: FloatArray) -> FloatArray:
    """Lower Cholesky root of one matrix; numpy takes several times as long for a small one.

    Raises
    ------
    LinAlgError
        If the matrix is not positive definite.
    """
    if not len(matrix):
        return matrix
    root, info = dpotrf(matrix, lower=1, clean=1)
    if info:
        raise np.linalg.LinAlgError("The matrix is not positive definite.")
    return np.asarray(root)


def inverse_of_lower(root: FloatArray) -> FloatArray:
    """Inverse of one lower triangular matrix."""
    return np.asarray(dtrtri(root, lower=1)[0]) if len(root) else root


def semidefinite_cholesky(matrix: FloatArray) -> FloatArray:
    """Lower Cholesky root of a positive semi-definite matrix; zero pivots give zero columns."""
    size = len(matrix)
    root = np.zeros((size, size))
    for j in range(size):
        column = matrix[j:, j] - root[j:, :j] @ root[j, :j]
        if column[0] > PIVOT_TOLERANCE * matrix[j, j] and column[0] > 0.0:
            root[j:, j] = column / np.sqrt(column[0])
    return root


def lifted(matrix: FloatArray, floor: float = 0.0) -> FloatArray:
    """A symmetric matrix with its eigenvalues lifted to a floor."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2.0)
    return np.asarray((vectors * np.maximum(values, floor)) @ vectors.T)


def smallest_deviation(root: FloatArray) -> Any:
    """The smallest singular value of a root, shape (...) for (..., q, q); infinite without any."""
    return np.linalg.svd(root, compute_uv=False).min(axis=-1, initial=np.inf)


def pseudo_inverse(information: FloatArray, sizes: FloatArray) -> FloatArray:
    """Inverse of an information, but for directions of which nothing is left in it.

    Parameters
    ----------
    information : ndarray of shape (a, a)
    sizes : ndarray of shape (a,)
        Roots of what its diagonal would be without fixed effects, say, so that what rounding leaves
        of an entry is seen to be nothing.
    """
    scale = np.where(sizes > 0.0, sizes, 1.0)
    values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    known = values > SINGULAR_INFORMATION * values.max(initial=0.0)
    root = vectors[:, known] / np.sqrt(values[known]) / scale[:, None]
    return np.asarray(root @ root.T)
