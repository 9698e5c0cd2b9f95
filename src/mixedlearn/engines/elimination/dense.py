"""Dense symmetric matrices in half the memory: products, roots and inverses by blocks.

A symmetric matrix is one triangle. Two of them share an array of shape (n, n + 1): one lies below
its first diagonal, the other above the next. Everything large is a product of matrices, which the
same library computes as all other products of the package: two libraries with threads of their own
would wait for each other. What is beside a matrix at any time are blocks of rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# Rows of a block of a root, whose Cholesky decomposition is left to LAPACK.
LEAF = 256
# Rows up to which a triangle is copied, and inverted by LAPACK, as if it were a full matrix.
TRIANGLE_LEAF = 64
# Rows up to which a symmetric matrix is multiplied as a full one.
PRODUCT_LEAF = 256
# Numbers in a block of rows that are taken out of a triangle.
BLOCK_ENTRIES = 1 << 20


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
        _mirror(self.lower[own, own], result[:, own])
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
    return _factorise(matrix.lower)


def solve_by_root(root: SymmetricMatrix, columns: FloatArray) -> FloatArray:
    """``C^-1`` times columns of shape (n, c), where `factorise_in_place` has left the root of C."""
    rows = columns.T.copy()
    _divide(rows, root.lower, transposed=True)
    _divide(rows, root.lower, transposed=False)
    return rows.T


def invert_root_in_place(root: SymmetricMatrix) -> None:
    """Overwrite what `factorise_in_place` leaves with the inverse of the matrix."""
    _invert(root.lower)


def _factorise(lower: FloatArray) -> float:
    """By halves: ``L_21 = C_21 L_11^-T``, and L_22 the root of ``C_22 - L_21 L_21'``."""
    if len(lower) <= LEAF:
        inverse, log_det = _inverse_root(_mirrored(lower))
        _store_lower(lower, inverse)
        return log_det
    first, last = _halves(len(lower))
    log_det = _factorise(lower[first, first])
    below = lower[last, first]
    _divide(below, lower[first, first], transposed=True)
    _subtract(lower[last, last], below, below.T)
    return log_det + _factorise(lower[last, last])


def _invert(lower: FloatArray) -> None:
    """By halves, the last first (Takahashi, Fagan & Chen 1973), from the root to the inverse Z.

    ``Z_22 = (L_22 L_22')^-1``; with ``K = L_21 L_11^-1``, ``Z_21 = -Z_22 K`` and
    ``Z_11 = (L_11 L_11')^-1 - K'Z_21``.
    """
    if len(lower) <= LEAF:
        inverse = _lower(lower)
        _store_lower(lower, inverse.T @ inverse)
        return
    first, last = _halves(len(lower))
    below = lower[last, first]
    _invert(lower[last, last])
    _divide(below, lower[first, first], transposed=False)
    _invert(lower[first, first])
    solved = SymmetricMatrix(lower[last, last]).times(below)
    np.negative(solved, out=solved)
    _subtract(lower[first, first], below.T, solved)
    below[:] = solved


def _divide(rows: FloatArray, lower: FloatArray, *, transposed: bool) -> None:
    """Overwrite rows with their product with ``L^-1`` (or its transpose), by halves."""
    if len(lower) <= LEAF:
        inverse = _lower(lower)
        rows[:] = rows @ (inverse.T if transposed else inverse)
        return
    first, last = _halves(len(lower))
    if transposed:
        _divide(rows[:, first], lower[first, first], transposed=True)
        rows[:, last] -= rows[:, first] @ lower[last, first].T
        _divide(rows[:, last], lower[last, last], transposed=True)
    else:
        _divide(rows[:, last], lower[last, last], transposed=False)
        rows[:, first] -= rows[:, last] @ lower[last, first]
        _divide(rows[:, first], lower[first, first], transposed=False)


def _subtract(lower: FloatArray, left: FloatArray, right: FloatArray) -> None:
    """Subtract a product that is symmetric, by halves."""
    if len(lower) <= LEAF:
        _store_lower(lower, lower - left @ right)
        return
    first, last = _halves(len(lower))
    _subtract(lower[first, first], left[first], right[:, first])
    _subtract(lower[last, last], left[last], right[:, last])
    lower[last, first] -= left[last] @ right[:, first]


def _halves(n: int) -> tuple[slice, slice]:
    return slice(n // 2), slice(n // 2, n)


def _inverse_root(matrix: FloatArray) -> tuple[FloatArray, float]:
    """``L^-1`` and the log-determinant of a small full matrix ``L L'``."""
    squares = matrix.diagonal()
    if not (squares > 0.0).all():
        raise np.linalg.LinAlgError("a diagonal entry is not positive")
    # To a unit diagonal first: an inverse by LAPACK would choose its pivots by the units.
    scale = 1.0 / np.sqrt(squares)
    root = np.asarray(np.linalg.cholesky(matrix * scale * scale[:, None]), dtype=np.float64)
    log_det = 2.0 * np.log(root.diagonal()).sum() + np.log(squares).sum()
    return _inverse_of_triangle(root) * scale, float(log_det)


def _inverse_of_triangle(lower: FloatArray) -> FloatArray:
    """The inverse of a small lower triangle, by halves."""
    n = len(lower)
    if n <= TRIANGLE_LEAF:
        return _lower(np.asarray(np.linalg.inv(lower), dtype=np.float64))
    first, last = _halves(n)
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
    first, last = _halves(n)
    _multiply(lower[first, first], columns[first], result[first])
    _multiply(lower[last, last], columns[last], result[last])
    result[first] += lower[last, first].T @ columns[last]
    result[last] += lower[last, first] @ columns[first]


def _mirrored(lower: FloatArray) -> FloatArray:
    """A symmetric matrix in full."""
    result = np.empty(lower.shape)
    _mirror(lower, result)
    return result


def _mirror(lower: FloatArray, result: FloatArray) -> None:
    """Overwrite the result with a symmetric matrix in full."""
    for own in blocks_of(len(lower), TRIANGLE_LEAF):
        before = slice(own.start)
        result[own, before] = lower[own, before]
        result[before, own] = lower[own, before].T
        block = lower[own, own]
        result[own, own] = np.where(_triangle(len(block)), block, block.T)


def _lower(matrix: FloatArray) -> FloatArray:
    """The lower triangle, with zeros above."""
    return np.where(_triangle(len(matrix)), matrix, 0.0)


def _store_lower(target: FloatArray, values: FloatArray) -> None:
    """Overwrite a lower triangle."""
    np.copyto(target, values, where=_triangle(len(target)))


@lru_cache(maxsize=8)
def _triangle(n: int) -> NDArray[np.bool_]:
    """Which places of (n, n) lie in the lower triangle."""
    return np.tri(n, dtype=bool)
