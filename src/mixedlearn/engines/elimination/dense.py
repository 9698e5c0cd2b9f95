"""Dense symmetric matrices in half the memory: products, roots and inverses by blocks.

A symmetric matrix is one triangle. Two of them share an array of shape (n, n + 1): one lies below
its first diagonal, the other above the next. Everything large is a product of matrices, which the
same library computes as all other products of the package: two libraries with threads of their own
would wait for each other. What is beside a matrix at any time are blocks of rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# Rows of a block of a root, whose Cholesky decomposition is left to LAPACK.
LEAF = 192
# Rows up to which a triangle is inverted by LAPACK, which takes it for a full matrix.
TRIANGLE_LEAF = 64
# Rows up to which a symmetric matrix is multiplied as a full one.
PRODUCT_LEAF = 512
# Numbers in a block of rows that are taken out of a triangle.
BLOCK_ENTRIES = 1 << 21


@dataclass(frozen=True, slots=True)
class SymmetricMatrix:
    """A symmetric matrix.

    Attributes
    ----------
    lower : ndarray of shape (n, n)
        The matrix in its lower triangle; what is above the diagonal belongs to somebody else.
    """

    lower: FloatArray

    def __len__(self) -> int:
        return len(self.lower)

    def rows(self, own: slice) -> FloatArray:
        """Some rows in full, shape (b, n)."""
        result = np.empty((own.stop - own.start, len(self)))
        result[:, : own.start] = self.lower[own, : own.start]
        result[:, own] = _mirrored(self.lower[own, own])
        result[:, own.stop :] = self.lower[own.stop :, own].T
        return result

    def set_rows(self, own: slice, rows: FloatArray) -> None:
        """Store some rows of shape (b, n), of which those up to the diagonal are read."""
        self.lower[own, : own.start] = rows[:, : own.start]
        _store_lower(self.lower[own, own], rows[:, own])

    def add_upper_rows(self, own: slice, rows: FloatArray) -> None:
        """Add to some rows; of shape (b, n) and zero before the diagonal."""
        self.lower[own.start :, own] += rows[:, own.start :].T

    def diagonals(self, own: slice, q: int) -> FloatArray:
        """Diagonals of the q x q blocks that a diagonal block consists of, shape (q, q, m)."""
        m = (own.stop - own.start) // q
        result = np.empty((q, q, m))
        for a in range(q):
            for b in range(a + 1):
                block = self.lower[own.start + a * m :, own.start + b * m :]
                result[a, b] = result[b, a] = block.diagonal()[:m]
        return result

    def times(self, columns: FloatArray) -> FloatArray:
        """The product with columns of shape (n, c)."""
        result = np.empty((len(self), columns.shape[1]))
        _multiply(self.lower, columns, result)
        return result


def two_matrices(n: int) -> tuple[SymmetricMatrix, SymmetricMatrix]:
    """Two symmetric matrices of zeros in one array.

    The rows of the first are contiguous in memory up to the diagonal, those of the second from the
    diagonal on.
    """
    both = np.zeros((n, n + 1))
    return SymmetricMatrix(both[:, :-1]), SymmetricMatrix(both[:, 1:].T)


def blocks_of(n: int, size: int) -> list[slice]:
    """The numbers up to n in blocks of this size."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def row_blocks(n: int) -> list[slice]:
    """The rows of a matrix of shape (n, n), in blocks of so many entries that memory is bounded."""
    return blocks_of(n, max(BLOCK_ENTRIES // max(n, 1), 1))


def factorise_in_place(matrix: SymmetricMatrix) -> float:
    """Overwrite a positive definite matrix ``C = L L'`` with its root.

    Below the blocks on the diagonal stands L, and in them the inverses of the blocks of L. How much
    is lost in rounding depends on how nearly collinear the rows are, not on their units.

    Returns
    -------
    log_det : float
        log-determinant of the matrix.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the matrix is not positive definite to rounding.
    """
    lower, log_det = matrix.lower, 0.0
    for own in blocks_of(len(lower), LEAF):
        done, rest = slice(own.start), slice(own.stop, None)
        across = lower[own, done]
        inverse, part = _inverse_root(_mirrored(lower[own, own]) - across @ across.T)
        log_det += part
        _store_lower(lower[own, own], inverse)
        below = lower[rest, own] - lower[rest, done] @ across.T
        np.matmul(below, inverse.T, out=lower[rest, own])
    return log_det


def solve_by_root(root: SymmetricMatrix, columns: FloatArray) -> FloatArray:
    """``C^-1`` times columns of shape (n, c), where `factorise_in_place` has left the root of C."""
    lower, result = root.lower, columns.copy()
    blocks = blocks_of(len(lower), LEAF)
    for own in blocks:
        result[own] -= lower[own, : own.start] @ result[: own.start]
        result[own] = np.tril(lower[own, own]) @ result[own]
    for own in reversed(blocks):
        result[own] -= lower[own.stop :, own].T @ result[own.stop :]
        result[own] = np.tril(lower[own, own]).T @ result[own]
    return result


def invert_root_in_place(root: SymmetricMatrix) -> None:
    """Overwrite what `factorise_in_place` leaves with the inverse Z of the matrix.

    From the last block of columns to the first (Takahashi, Fagan & Chen 1973), with r all rows
    after block j:

        Z_rj = -Z_rr L_rj L_jj^-1,      Z_jj = (L_jj L_jj')^-1 - (L_rj L_jj^-1)'Z_rj
    """
    lower = root.lower
    for own in reversed(blocks_of(len(lower), LEAF)):
        rest = slice(own.stop, None)
        inverse = np.tril(lower[own, own])
        below = lower[rest, own] @ inverse
        solved = SymmetricMatrix(lower[rest, rest]).times(below)
        np.negative(solved, out=lower[rest, own])
        _store_lower(lower[own, own], inverse.T @ inverse + below.T @ solved)


def _inverse_root(matrix: FloatArray) -> tuple[FloatArray, float]:
    """``L^-1`` and the log-determinant of a small full matrix ``L L'``."""
    squares = matrix.diagonal()
    if not (squares > 0.0).all():
        raise np.linalg.LinAlgError("a diagonal entry is not positive")
    # To a unit diagonal first: an inverse by LAPACK would choose its pivots by the units.
    scale = 1.0 / np.sqrt(squares)
    root: FloatArray = np.linalg.cholesky(matrix * scale * scale[:, None])
    log_det = 2.0 * np.log(root.diagonal()).sum() + np.log(squares).sum()
    return _inverse_of_triangle(root) * scale, float(log_det)


def _inverse_of_triangle(lower: FloatArray) -> FloatArray:
    """The inverse of a small lower triangle, by halves."""
    n = len(lower)
    if n <= TRIANGLE_LEAF:
        return np.tril(np.linalg.inv(lower))
    first, last = slice(n // 2), slice(n // 2, n)
    result = np.zeros_like(lower)
    result[first, first] = _inverse_of_triangle(lower[first, first])
    result[last, last] = _inverse_of_triangle(lower[last, last])
    result[last, first] = -(result[last, last] @ (lower[last, first] @ result[first, first]))
    return result


def _multiply(lower: FloatArray, columns: FloatArray, result: FloatArray) -> None:
    """Overwrite the result with the product of a symmetric matrix and columns, by halves."""
    n = len(lower)
    if n <= PRODUCT_LEAF:
        np.matmul(_mirrored(lower), columns, out=result)
        return
    first, last = slice(n // 2), slice(n // 2, n)
    _multiply(lower[first, first], columns[first], result[first])
    _multiply(lower[last, last], columns[last], result[last])
    result[first] += lower[last, first].T @ columns[last]
    result[last] += lower[last, first] @ columns[first]


def _mirrored(lower: FloatArray) -> FloatArray:
    """A small symmetric matrix in full."""
    result = np.tril(lower)
    result += np.tril(lower, -1).T
    return result


def _store_lower(target: FloatArray, values: FloatArray) -> None:
    """Overwrite a lower triangle."""
    np.copyto(target, values, where=np.tri(len(target), dtype=bool))
