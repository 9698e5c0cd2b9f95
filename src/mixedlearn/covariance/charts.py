"""Charts: coordinates around a point in which Newton-Raphson may step and judge.

With a fixed order of the rows, a triangular Lambda with a small pivot above large entries makes a
chart in which valleys are curved and a stationary point need not be one in D. Pivoting keeps the
entries of a column below its pivot, so that a second-order stationary point in the chart satisfies
the optimality conditions in D, a singular D included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.algebra import semidefinite_cholesky

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Chart:
    """A point in other coordinates.

    Attributes
    ----------
    theta : ndarray of shape (n_parameters,)
        The same D as that of the point.
    free : ndarray of shape (n_parameters,), bool
        Entries of theta that the chart leaves free; the others stay.
    """

    theta: FloatArray
    free: NDArray[np.bool_]


def triangular_chart(
    root: FloatArray, mask: NDArray[np.bool_]
) -> tuple[FloatArray | None, NDArray[np.bool_]]:
    """Rotation that makes Lambda triangular by rows in the order of a pivoted Cholesky of D.

    With a mask the largest pivot is taken among the effects that a perfect elimination order allows
    next.

    Parameters
    ----------
    root : ndarray of shape (q, q)
        Lambda.
    mask : ndarray of shape (q, q), bool
        The entries of D that are free.

    Returns
    -------
    rotation : ndarray of shape (q, q) or None
        Orthogonal; ``root @ rotation`` is zero outside the free entries. None for the identity.
    free : ndarray of shape (q, q), bool
        The free entries of that triangle.
    """
    q = len(root)
    covariance = root @ root.T
    rest = covariance.tolist()
    remaining = list(range(q))
    order: list[int] = []
    is_full = bool(mask.all())
    while remaining:
        allowed = remaining if is_full else simplicial(remaining, mask)
        pivot = max(allowed, key=lambda i: rest[i][i])
        order.append(pivot)
        remaining.remove(pivot)
        if rest[pivot][pivot] > 0.0:
            for i in remaining:
                share = rest[i][pivot] / rest[pivot][pivot]
                for j in remaining:
                    rest[i][j] -= share * rest[pivot][j]
    free = np.empty((q, q), bool)
    columns = np.arange(q)
    free[order] = columns <= columns[:, None]
    if not is_full:
        free &= mask[:, order]
    if not root[~free].any():
        return None, free
    if is_full:
        return np.linalg.qr(root[order].T)[0], free
    triangular = np.empty((q, q))
    triangular[order] = semidefinite_cholesky(covariance[order][:, order])
    left, _, right = np.linalg.svd(root.T @ triangular)
    return left @ right, free


def triangular_charts(roots: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
    """Lambdas of shape (n, q, q) without a mask in their charts, and the free entries, flat."""
    n, q, _ = roots.shape
    rest = roots @ roots.transpose(0, 2, 1)
    order = np.empty((n, q), dtype=np.intp)
    number = np.arange(n)
    taken = np.zeros((n, q), bool)
    for j in range(q):
        diagonal = np.where(taken, -np.inf, np.einsum("naa->na", rest))
        order[:, j] = pivot = diagonal.argmax(axis=1)
        taken[number, pivot] = True
        column = rest[number, :, pivot]
        square = diagonal[number, pivot]
        share = column / np.where(square > 0.0, square, np.inf)[:, None]
        rest = rest - share[:, :, None] * column[:, None]
    permuted = roots[number[:, None], order]
    lower = np.linalg.qr(permuted.transpose(0, 2, 1))[1].transpose(0, 2, 1)
    rotated = np.empty_like(roots)
    rotated[number[:, None], order] = np.tril(lower)
    rows, columns = np.tril_indices(q)
    return rotated.reshape(n, q * q), order[:, rows] * q + columns


def simplicial(remaining: list[int], mask: NDArray[np.bool_]) -> list[int]:
    """The effects whose remaining neighbours are all neighbours of each other."""
    found = []
    for candidate in remaining:
        neighbours = [i for i in remaining if i != candidate and mask[i, candidate]]
        if mask[np.ix_(neighbours, neighbours)].all():
            found.append(candidate)
    return found
