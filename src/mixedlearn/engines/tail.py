"""The dense tail: the factors that are not eliminated, in one dense block.

Notation
--------
``S = Z_t'V_c^-1 Z_t`` (T, T) are the cross-products of the tail's columns once the factors of the
chain are eliminated, and ``S_c = Z_t'V_c^-1 c`` those with other columns. With Lambda the block-
diagonal root of the tail's D and ``L L' = I + Lambda'S Lambda``,

    log|V| = log|V_c| + log|L L'|,      c'V^-1 c = c'V_c^-1 c - Y'Y,     Y = L^-1 Lambda'S_c
    B = Lambda (L L')^-1 Lambda'        covariance of the tail's effects given y and beta
    Z_t'V^-1 c = S_c - S B S_c,         B S_c the BLUPs of the tail for the response c
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

FloatArray = NDArray[np.float64]

# A smaller singular value of Lambda, in natural units, would cost digits where it divides.
SMALL_ROOT = 1e-3
# Rows that are copied across the diagonal at a time, so that both places stay in the cache.
MIRRORED_ROWS = 256


@dataclass(frozen=True, slots=True)
class Tail:
    """The factorised tail.

    Attributes
    ----------
    shapes : tuple of (int, int)
        q and m of every factor in the tail; its columns are in this order, effect by effect.
    factors : tuple of ndarray of shape (q, q)
        Lambda of every factor.
    products : ndarray of shape (T, T)
        S.
    root : ndarray of shape (T, T)
        L, lower triangular.
    """

    shapes: tuple[tuple[int, int], ...]
    factors: tuple[FloatArray, ...]
    products: FloatArray
    root: FloatArray

    @property
    def log_det(self) -> float:
        """``log|L L'|``."""
        return 2.0 * float(np.log(np.diag(self.root)).sum())

    def half_solve(self, data: FloatArray) -> FloatArray:
        """``L^-1 Lambda' data`` for data of shape (T, c)."""
        return _solve(self.root, self.turn(data, transposed=True))

    def turn(self, rows: FloatArray, *, transposed: bool) -> FloatArray:
        """Lambda (or its transpose) times rows of shape (T, c)."""
        return _turn(self.shapes, self.factors, rows, transposed=transposed)

    def blups(self, half: FloatArray) -> FloatArray:
        """``B S_c`` from ``Y = L^-1 Lambda'S_c``."""
        return self.turn(_solve(self.root, half, transposed=True), transposed=False)

    def inverse(self) -> FloatArray:
        """``(L L')^-1``, shape (T, T)."""
        if not len(self.root):
            return self.root
        lower, status = lapack.dpotri(self.root, lower=1)
        _check(status)
        return _mirrored(lower)

    def covariance(self, inverse: FloatArray) -> FloatArray:
        """B from the inverse of ``L L'``."""
        return _turn_both(self.shapes, self.factors, inverse, transposed=False)

    def slices(self) -> list[slice]:
        """Columns of every factor."""
        bounds = np.cumsum([0, *(q * m for q, m in self.shapes)]).tolist()
        return [slice(*pair) for pair in pairwise(bounds)]

    def information(self, inverse: FloatArray) -> list[FloatArray]:
        """``sum_j M_jj`` of every factor, shapes (q, q), where ``M = Z_t'V^-1 Z_t``.

        From ``Lambda'M Lambda = I - (L L')^-1`` where Lambda is far from singular.
        """
        found = []
        for own, (q, m), factor in zip(self.slices(), self.shapes, self.factors, strict=True):
            if np.linalg.svd(factor, compute_uv=False)[-1] > SMALL_ROOT:
                kept = m * np.eye(q) - _diagonal_sum(inverse[own, own], q, m)
                undone = np.linalg.inv(factor)
                found.append(undone.T @ kept @ undone)
                continue
            half = self.half_solve(np.ascontiguousarray(self.products[:, own]))
            part = half.reshape(len(half), q, m)
            lost = np.tensordot(part, part, ((0, 2), (0, 2)))
            found.append(_diagonal_sum(self.products[own, own], q, m) - lost)
        return found


def factorise_tail(
    shapes: Sequence[tuple[int, int]], factors: Sequence[FloatArray], products: FloatArray
) -> Tail:
    """Factorise ``I + Lambda'S Lambda``.

    Raises
    ------
    numpy.linalg.LinAlgError
        If it is not positive definite to rounding.
    """
    shapes, factors = tuple(shapes), tuple(factors)
    if not len(products):
        return Tail(shapes, factors, products, products)
    scaled = _turn_both(shapes, factors, products, transposed=True)
    scaled.flat[:: len(scaled) + 1] += 1.0
    root, status = lapack.dpotrf(scaled.T, lower=1, overwrite_a=1, clean=1)
    _check(status)
    return Tail(shapes, factors, products, root)


def _turn(
    shapes: Sequence[tuple[int, int]],
    factors: Sequence[FloatArray],
    rows: FloatArray,
    *,
    transposed: bool,
) -> FloatArray:
    result = np.empty_like(rows)
    start = 0
    for factor, (q, m) in zip(factors, shapes, strict=True):
        own = slice(start, start + q * m)
        start = own.stop
        matrix = factor.T if transposed else factor
        if q == 1:
            np.multiply(rows[own], matrix[0, 0], out=result[own])
        else:
            part = rows[own].reshape(q, -1)
            result[own] = (matrix @ part).reshape(q * m, -1)
    return result


def _turn_both(
    shapes: Sequence[tuple[int, int]],
    factors: Sequence[FloatArray],
    matrix: FloatArray,
    *,
    transposed: bool,
) -> FloatArray:
    """Lambda (or its transpose) on both sides of a symmetric matrix."""
    if all(q == 1 for q, _ in shapes):
        sizes = np.repeat([factor[0, 0] for factor in factors], [m for _, m in shapes])
        result = matrix * sizes
        result *= sizes[:, None]
        return result
    half = _turn(shapes, factors, matrix, transposed=transposed)
    return _turn(shapes, factors, np.ascontiguousarray(half.T), transposed=transposed)


def _solve(root: FloatArray, right: FloatArray, *, transposed: bool = False) -> FloatArray:
    if not right.size:
        return right
    solution, status = lapack.dtrtrs(root, right, lower=1, trans=int(transposed))
    _check(status)
    return solution


def _check(status: int) -> None:
    if status != 0:
        raise np.linalg.LinAlgError("the tail is not positive definite to rounding")


def _mirrored(lower: FloatArray) -> FloatArray:
    """The symmetric matrix whose lower triangle is given (column by column), in place."""
    full = lower.T
    for start in range(0, len(full), MIRRORED_ROWS):
        own, rest = slice(start, start + MIRRORED_ROWS), slice(start + MIRRORED_ROWS, None)
        block = np.triu(full[own, own])
        full[own, own] = block + np.triu(block, 1).T
        full[rest, own] = full[own, rest].T
    return full


def _diagonal_sum(block: FloatArray, q: int, m: int) -> FloatArray:
    """Sum over levels of the (q, q) blocks of one factor."""
    return np.einsum("aibi->ab", block.reshape(q, m, q, m))
