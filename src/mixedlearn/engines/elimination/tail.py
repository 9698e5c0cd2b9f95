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
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mixedlearn.engines.elimination.dense import (
    SymmetricMatrix,
    blocks_of,
    factorise_in_place,
    invert_root_in_place,
    row_blocks,
    solve_by_root,
)

FloatArray = NDArray[np.float64]

# A smaller singular value of Lambda, in natural units, would cost digits where it divides.
SMALL_ROOT = 1e-3
# Columns of the tail that are multiplied by it at once.
PRODUCT_COLUMNS = 128


class Tail:
    """The tail at one theta: S, and the root of C, which gives way to ``C^-1`` once it is needed.

    Parameters
    ----------
    shapes : sequence of (int, int)
        q and m of every factor in the tail; its columns are in this order, effect by effect.
    roots : sequence of ndarray of shape (q, q)
        Lambda of every factor.
    products : SymmetricMatrix
        S.
    scaled : SymmetricMatrix
        Overwritten by C, its root, its inverse.

    Attributes
    ----------
    log_det : float
        log|C|.

    Raises
    ------
    numpy.linalg.LinAlgError
        If C is not positive definite to rounding.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        roots: Sequence[FloatArray],
        products: SymmetricMatrix,
        scaled: SymmetricMatrix,
    ):
        self.shapes, self.roots, self.products = tuple(shapes), tuple(roots), products
        for own in row_blocks(len(products)):
            rows = self._turned_rows(products, own, transposed=True)
            rows[np.arange(len(rows)), np.arange(own.start, own.stop)] += 1.0
            scaled.set_rows(own, rows)
        self.log_det = factorise_in_place(scaled)
        self._scaled, self._is_inverted = scaled, False

    @property
    def inverse(self) -> SymmetricMatrix:
        """``C^-1``."""
        if not self._is_inverted:
            invert_root_in_place(self._scaled)
            self._is_inverted = True
        return self._scaled

    def turn(self, rows: FloatArray, *, transposed: bool) -> FloatArray:
        """Lambda (or its transpose) times rows of shape (T, c)."""
        result = np.empty_like(rows)
        for own, (q, m), root in zip(self.slices(), self.shapes, self.roots, strict=True):
            matrix = root.T if transposed else root
            if q == 1:
                np.multiply(rows[own], matrix[0, 0], out=result[own])
            else:
                result[own] = (matrix @ rows[own].reshape(q, -1)).reshape(q * m, -1)
        return result

    def solve(self, data: FloatArray) -> tuple[FloatArray, FloatArray]:
        """``B S_c`` and ``S_c'B S_c``, shapes (T, c) and (c, c).

        With z the solution of ``C z = r``, improved by the residual once, ``z'(2 r - C z)`` is off
        by the square of the error of z: one solution loses the digits that a large D costs.
        """
        right = self.turn(data, transposed=True)
        solution = self._solution(right)
        solution += self._solution(right - self._times(solution))
        lost = solution.T @ (2.0 * right - self._times(solution))
        return self.turn(solution, transposed=False), (lost + lost.T) / 2.0

    def _solution(self, right: FloatArray) -> FloatArray:
        """``C^-1`` times columns of shape (T, c)."""
        if self._is_inverted:
            return self._scaled.times(right)
        return solve_by_root(self._scaled, right)

    def _times(self, columns: FloatArray) -> FloatArray:
        """``C`` times columns of shape (T, c)."""
        turned = self.products.times(self.turn(columns, transposed=False))
        return columns + self.turn(turned, transposed=True)

    def scores(self, data: FloatArray, blups: FloatArray) -> FloatArray:
        """``Z_t'V^-1 c`` from S_c and the BLUPs that `solve` gives, shape (T, c).

        Where D is large the difference would cancel, and it is ``D^-1 B S_c``.
        """
        scores = data - self.products.times(blups)
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

    def covariance_rows(self, own: slice) -> FloatArray:
        """Some rows of B, shape (b, T)."""
        return self._turned_rows(self.inverse, own, transposed=False)

    def covariance(self) -> FloatArray:
        """B in full, shape (T, T)."""
        result = np.empty((len(self.products),) * 2)
        for own in row_blocks(len(self.products)):
            result[own] = self.covariance_rows(own)
        return result

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
                kept = m * np.eye(q) - self.inverse.diagonals(own, q).sum(axis=2)
                undone = np.linalg.inv(root)
                found.append(undone.T @ kept @ undone)
                continue
            lost = self._lost(own.start, q, m)
            found.append(self.products.diagonals(own, q).sum(axis=2) - lost)
        return found

    def _lost(self, start: int, q: int, m: int) -> FloatArray:
        """``sum_j S_j'B S_j`` of a factor whose columns begin at ``start``, shape (q, q)."""
        lost = np.zeros((q, q))
        for own in blocks_of(m, max(PRODUCT_COLUMNS // q, 1)):
            effects = (start + a * m for a in range(q))
            rows = [self.products.rows(slice(e + own.start, e + own.stop)) for e in effects]
            turned = self.turn(np.concatenate(rows).T, transposed=True)
            solved = self.inverse.times(turned)
            left, right = (part.reshape(len(part), q, -1) for part in (turned, solved))
            lost += np.einsum("tam,tbm->ab", left, right, optimize=True)
        return (lost + lost.T) / 2.0

    def _turned_rows(self, matrix: SymmetricMatrix, own: slice, *, transposed: bool) -> FloatArray:
        """Some rows of a matrix with Lambda (or its transpose) on both sides, shape (b, T)."""
        if all(q == 1 for q, _ in self.shapes):
            sizes = np.repeat([root[0, 0] for root in self.roots], [m for _, m in self.shapes])
            result = matrix.rows(own)
            result *= sizes
            result *= sizes[own, None]
            return result
        result = np.empty((own.stop - own.start, len(matrix)))
        for columns, (q, m), root in zip(self.slices(), self.shapes, self.roots, strict=True):
            weights = root.T if transposed else root
            for a in range(q):
                # Those of the rows that belong to this effect, counted from its first one.
                first = columns.start + a * m
                start, stop = max(own.start - first, 0), min(own.stop - first, m)
                if start >= stop:
                    continue
                part = result[first + start - own.start : first + stop - own.start]
                part[:] = 0.0
                for b in range(q):
                    other = columns.start + b * m
                    part += weights[a, b] * matrix.rows(slice(other + start, other + stop))
        for columns, (q, m), root in zip(self.slices(), self.shapes, self.roots, strict=True):
            weights = root.T if transposed else root
            rows = result[:, columns].reshape(-1, q, m)
            result[:, columns] = np.matmul(weights, rows).reshape(-1, q * m)
        return result
