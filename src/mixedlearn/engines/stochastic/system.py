"""The equations of the tail at one Lambda, which nothing makes dense.

Notation
--------
With the first factor eliminated (`eliminated`), ``M = Z_t'V_c^-1 Z_t = G_tt - A'O A`` and Lambda
the root of the tail's D, all that is asked for are solutions of

    C x = r,     C = I + Lambda'M Lambda

Its diagonal blocks, one for each level, precondition them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedlearn.engines.stochastic.conjugate_gradients import solve
from mixedlearn.engines.stochastic.eliminated import Eliminated
from mixedlearn.engines.stochastic.pairs import times_blocks
from mixedlearn.engines.stochastic.products import Products

FloatArray = NDArray[np.float64]


class System:
    """The equations at one Lambda.

    Parameters
    ----------
    products : Products
    roots : sequence of ndarray of shape (q, q)
        Lambda of every factor of the model.

    Attributes
    ----------
    first : Eliminated
    blocks : list of ndarray of shape (q, q, m)
        Diagonal blocks of M, of every factor of the tail; exact with one stage in the first.
    inverse_blocks : list of ndarray of shape (q, q, m)
        Inverses of those of C.
    """

    def __init__(self, products: Products, roots: Sequence[FloatArray]):
        self.products, self.roots = products, roots
        (k,) = products.first.factors
        self.first = Eliminated(products.squares[k], roots[k])
        self.blocks = [
            products.squares[other] - products.forms(other, k, self.first.own)
            for other in products.tail.factors
        ]
        own_roots = [roots[k] for k in products.tail.factors]
        triangles = [
            _triangles(block, root) for block, root in zip(self.blocks, own_roots, strict=True)
        ]
        self._triangles = triangles
        self.log_det_blocks = -2.0 * sum(
            float(np.log(np.einsum("aam->am", own)).sum()) for own in triangles
        )
        self.inverse_blocks = [np.einsum("cam,cbm->abm", own, own) for own in triangles]

    def preconditioned_rows(self) -> FloatArray:
        """``sum_i R_i'P^-1 R_i`` over the levels of the first factor, shape (q, q).

        R are the products ``Lambda'Z_t'V_c^-1 Z_c``, P the diagonal blocks of C.
        """
        products = self.products
        (k,) = products.first.factors
        total = np.zeros(self.first.own.shape)
        for other, inverse in zip(products.tail.factors, self.inverse_blocks, strict=True):
            root = self.roots[other]
            middle = np.einsum("ab,bcm,dc->adm", root, inverse, root, optimize=True)
            total += products.forms(k, other, middle)
        left = self.first.left()
        return np.einsum("bam,bcm,cdm->ad", left, total, left, optimize=True)

    # The tail's effects in units of their roots.

    def turn(self, vectors: FloatArray, *, transposed: bool = False) -> FloatArray:
        """Lambda, or its transpose, times vectors over the tail."""
        tail = self.products.tail
        turned = []
        for k, part in zip(tail.factors, tail.parts(vectors), strict=True):
            root = self.roots[k].T if transposed else self.roots[k]
            turned.append(root[0, 0] * part if len(root) == 1 else np.tensordot(root, part, 1))
        return tail.join(turned, vectors.shape[1])

    def times_products(self, vectors: FloatArray) -> FloatArray:
        """``M v``."""
        products = self.products
        return products.tail_times(vectors) - products.through_first(self.first.own, vectors)

    def times(self, vectors: FloatArray) -> FloatArray:
        """``C v``."""
        turned = self.turn(self.times_products(self.turn(vectors)), transposed=True)
        turned += vectors
        return turned

    def precondition(self, vectors: FloatArray) -> FloatArray:
        """The inverse of the diagonal blocks of C times vectors."""
        return self._times_blocks(self.inverse_blocks, vectors)

    def whiten(self, vectors: FloatArray) -> FloatArray:
        """``T C T'v`` for the root T of the inverse of C's diagonal blocks: near v."""
        spread = [own.transpose(1, 0, 2) for own in self._triangles]
        return self._times_blocks(self._triangles, self.times(self._times_blocks(spread, vectors)))

    def _times_blocks(self, blocks: Sequence[FloatArray], vectors: FloatArray) -> FloatArray:
        tail = self.products.tail
        parts = zip(blocks, tail.parts(vectors), strict=True)
        return tail.join([times_blocks(own, part) for own, part in parts], vectors.shape[1])

    def solve(
        self, right: FloatArray, tol: float, start: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Solutions of ``C x = r`` and their residuals."""
        return solve(self.times, self.precondition, right, tol, start)


def form(solutions: FloatArray, right: FloatArray, residuals: FloatArray) -> FloatArray:
    """``r'C^-1 r`` of several right-hand sides, off by the square of the error of solutions."""
    product = solutions.T @ (right + residuals)
    return (product + product.T) / 2.0


def _triangles(blocks: FloatArray, root: FloatArray) -> FloatArray:
    """Inverses of the lower triangular roots of ``I + Lambda'M_i Lambda``, shape (q, q, m)."""
    if len(root) == 1:
        return 1.0 / np.sqrt(1.0 + root[0, 0] ** 2 * blocks)
    inner = np.einsum("ba,bcm,cd->mad", root, blocks, root, optimize=True) + np.eye(len(root))
    inverse = np.linalg.inv(np.linalg.cholesky(inner))
    return np.ascontiguousarray(inverse.transpose(1, 2, 0))
