"""The dense tail: the factors that are not eliminated, in one dense block.

Notation
--------
``S = Z_t'V_c^-1 Z_t`` (T, T) are the cross-products of the tail's columns once the factors of the
chain are eliminated, and ``S_c = Z_t'V_c^-1 c`` those with other columns. With Lambda the block-
diagonal root of the tail's D and ``C = I + Lambda'S Lambda``,

    log|V| = log|V_c| + log|C|,         c'V^-1 c = c'V_c^-1 c - S_c'B S_c
    B = Lambda C^-1 Lambda'             covariance of the tail's effects given y and beta
    Z_t'V^-1 c = S_c - S B S_c,         B S_c the BLUPs of the tail for the response c
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mixedlearn.engines.elimination.dense import invert

FloatArray = NDArray[np.float64]

# A smaller singular value of Lambda, in natural units, would cost digits where it divides.
SMALL_ROOT = 1e-3


@dataclass(frozen=True, slots=True)
class Tail:
    """The tail at one theta.

    Attributes
    ----------
    shapes : tuple of (int, int)
        q and m of every factor in the tail; its columns are in this order, effect by effect.
    roots : tuple of ndarray of shape (q, q)
        Lambda of every factor.
    products : ndarray of shape (T, T)
        S.
    inverse : ndarray of shape (T, T)
        ``C^-1``.
    log_det : float
        log|C|.
    """

    shapes: tuple[tuple[int, int], ...]
    roots: tuple[FloatArray, ...]
    products: FloatArray
    inverse: FloatArray
    log_det: float

    def turn(self, rows: FloatArray, *, transposed: bool) -> FloatArray:
        """Lambda (or its transpose) times rows of shape (T, c)."""
        return _turn(self.shapes, self.roots, rows, transposed=transposed)

    def solve(self, data: FloatArray) -> tuple[FloatArray, FloatArray]:
        """``B S_c`` and ``S_c'B S_c``, shapes (T, c) and (c, c).

        With z the solution of ``C z = r``, improved by the residual once, ``z'(2 r - C z)`` is off
        by the square of the error of z: an inverse alone loses the digits that a large D costs.
        """
        right = self.turn(data, transposed=True)
        solution = self.inverse @ right
        solution += self.inverse @ (right - self._times(solution))
        lost = solution.T @ (2.0 * right - self._times(solution))
        return self.turn(solution, transposed=False), (lost + lost.T) / 2.0

    def _times(self, columns: FloatArray) -> FloatArray:
        """``C`` times columns of shape (T, c)."""
        turned = self.products @ self.turn(columns, transposed=False)
        return columns + self.turn(turned, transposed=True)

    def scores(self, data: FloatArray, blups: FloatArray) -> FloatArray:
        """``Z_t'V^-1 c`` from S_c and the BLUPs that `solve` gives, shape (T, c).

        Where D is large the difference would cancel, and it is ``D^-1 B S_c``.
        """
        scores = data - self.products @ blups
        for own, (q, m), root in zip(self.slices(), self.shapes, self.roots, strict=True):
            if np.linalg.svd(root, compute_uv=False)[-1] > 1.0:
                part = blups[own].reshape(q, -1)
                scores[own] = np.linalg.solve(root @ root.T, part).reshape(q * m, -1)
        return scores

    def by_factor(self, rows: FloatArray) -> list[FloatArray]:
        """Rows of shape (T, c) by factor, shapes (q, c, m)."""
        return [
            rows[own].reshape(q, m, -1).transpose(0, 2, 1)
            for own, (q, m) in zip(self.slices(), self.shapes, strict=True)
        ]

    def covariance(self) -> FloatArray:
        """B."""
        return _turn_both(self.shapes, self.roots, self.inverse, transposed=False)

    def slices(self) -> list[slice]:
        """Columns of every factor."""
        bounds = np.cumsum([0, *(q * m for q, m in self.shapes)]).tolist()
        return [slice(*pair) for pair in pairwise(bounds)]

    def information(self) -> list[FloatArray]:
        """``sum_j M_jj`` of every factor, shapes (q, q), where ``M = Z_t'V^-1 Z_t``.

        From ``Lambda'M Lambda = I - C^-1`` where Lambda is far from singular.
        """
        found = []
        for own, (q, m), root in zip(self.slices(), self.shapes, self.roots, strict=True):
            if np.linalg.svd(root, compute_uv=False)[-1] > SMALL_ROOT:
                kept = m * np.eye(q) - _diagonal_sum(self.inverse[own, own], q, m)
                undone = np.linalg.inv(root)
                found.append(undone.T @ kept @ undone)
                continue
            products = np.ascontiguousarray(self.products[:, own])
            half = self.inverse @ self.turn(products, transposed=True)
            part, turned = (
                columns.reshape(len(columns), q, m)
                for columns in (products, self.turn(half, transposed=False))
            )
            lost = np.einsum("tam,tbm->ab", part, turned, optimize=True)
            found.append(_diagonal_sum(self.products[own, own], q, m) - (lost + lost.T) / 2.0)
        return found


def solve_tail(
    shapes: Sequence[tuple[int, int]], roots: Sequence[FloatArray], products: FloatArray
) -> Tail:
    """Invert ``C = I + Lambda'S Lambda``.

    Raises
    ------
    numpy.linalg.LinAlgError
        If it is not positive definite to rounding.
    """
    shapes, roots = tuple(shapes), tuple(roots)
    scaled = _turn_both(shapes, roots, products, transposed=True)
    scaled.flat[:: len(scaled) + 1] += 1.0
    log_det = invert(scaled)
    return Tail(shapes, roots, products, scaled, log_det)


def _turn(
    shapes: Sequence[tuple[int, int]],
    roots: Sequence[FloatArray],
    rows: FloatArray,
    *,
    transposed: bool,
) -> FloatArray:
    result = np.empty_like(rows)
    start = 0
    for root, (q, m) in zip(roots, shapes, strict=True):
        own = slice(start, start + q * m)
        start = own.stop
        matrix = root.T if transposed else root
        if q == 1:
            np.multiply(rows[own], matrix[0, 0], out=result[own])
        else:
            part = rows[own].reshape(q, -1)
            result[own] = (matrix @ part).reshape(q * m, -1)
    return result


def _turn_both(
    shapes: Sequence[tuple[int, int]],
    roots: Sequence[FloatArray],
    matrix: FloatArray,
    *,
    transposed: bool,
) -> FloatArray:
    """Lambda (or its transpose) on both sides of a symmetric matrix."""
    if all(q == 1 for q, _ in shapes):
        sizes = np.repeat([root[0, 0] for root in roots], [m for _, m in shapes])
        result = matrix * sizes
        result *= sizes[:, None]
        return result
    half = _turn(shapes, roots, matrix, transposed=transposed)
    return _turn(shapes, roots, np.ascontiguousarray(half.T), transposed=transposed)


def _diagonal_sum(block: FloatArray, q: int, m: int) -> FloatArray:
    """Sum over levels of the (q, q) blocks of one factor."""
    return np.einsum("aibi->ab", block.reshape(q, m, q, m))
