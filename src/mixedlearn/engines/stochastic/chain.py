"""The chain at one Lambda: what its levels say of each other, given the effects of the tail.

Notation
--------
The stages of the chain are eliminated in turn, as in `elimination.engine`, here in the coordinates
of the effects themselves, so that no root has to be inverted. At stage s, with V_s the covariance
that contains the effects of stages 0 to s, and for every level i

    F_i = Z_i'V_(s-1)^-1 Z_i,    E_i = Z_i'V_(s-1)^-1 [columns of the levels that contain it]
    O_i = Lambda (I + Lambda'F_i Lambda)^-1 Lambda'
    V_s^-1 = V_(s-1)^-1 - sum_i V_(s-1)^-1 Z_i O_i Z_i'V_(s-1)^-1

O_i is the covariance of the level's effects given y, beta and all later effects, which they change
by ``-O_i E_i``. With B the covariance of all effects of the chain given those of the tail,

    V_c^-1 = I - Z_c B Z_c',      B z:  pass z up the chain, apply the O_i, pass the result down
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from mixedlearn.engines.elimination.reduced import sum_by_level
from mixedlearn.engines.stochastic.pairs import times_blocks
from mixedlearn.engines.stochastic.products import Products

FloatArray = NDArray[np.float64]


class SolvedChain:
    """The chain at one Lambda.

    Parameters
    ----------
    products : Products
    roots : sequence of ndarray of shape (q, q)
        Lambda of every factor of the model.

    Attributes
    ----------
    own : list of ndarray of shape (q, q, m)
        O_i of every stage.
    log_det : float
        log|V_c|.
    """

    def __init__(self, products: Products, roots: Sequence[FloatArray]):
        self._products = products
        plan = products.plan
        self.own: list[FloatArray] = []
        self.log_det = 0.0
        self._squares = [products.squares[k].copy() for k in plan.chain]
        self._above = [above.copy() for above in products.above]
        self._passed: list[FloatArray] = []
        for s, k in enumerate(plan.chain):
            own, log_det = posterior_blocks(self._squares[s], roots[k])
            self.log_det += log_det
            passed = np.einsum("abm,bcm->acm", own, self._above[s])
            self.own.append(own)
            self._passed.append(passed)
            self._eliminate(s, passed)
        self._links = [self._links_of(s) for s in range(len(plan.chain))]

    def _offsets(self, s: int) -> list[tuple[int, slice, NDArray[np.int32]]]:
        """For every later stage: it, its columns among those of all later ones, the ancestors."""
        plan, start, found = self._products.plan, 0, []
        for later, k in enumerate(plan.chain[s + 1 :]):
            stop = start + plan.shapes[k][0]
            found.append((s + 1 + later, slice(start, stop), plan.ancestors[s][later]))
            start = stop
        return found

    def _eliminate(self, s: int, passed: FloatArray) -> None:
        """Take what stage s explains from the products of the later stages."""
        above = self._above[s]
        for outer, columns, ancestor in self._offsets(s):
            lost = np.einsum("abm,acm->bcm", above[:, columns], passed[:, columns.start :])
            q, _, m = self._squares[outer].shape
            total = sum_by_level(lost, ancestor, m)
            self._squares[outer] -= total[:, :q]
            self._above[outer] -= total[:, q:]

    def _links_of(self, s: int) -> list[list[list[csr_array]]]:
        """``O_i E_i`` as sparse matrices, for every later stage and every pair of effects."""
        found = []
        for _, columns, ancestor in self._offsets(s):
            m = len(ancestor)
            n_outer = int(self._products.plan.shapes[self._products.plan.chain[_]][1])
            pointers = np.arange(m + 1, dtype=np.int32)
            found.append(
                [
                    [csr_array((part, ancestor, pointers), shape=(m, n_outer)) for part in row]
                    for row in self._passed[s][:, columns]
                ]
            )
        return found

    def times(self, vectors: FloatArray) -> FloatArray:
        """``B z`` for vectors over the chain."""
        side = self._products.chain
        if len(self.own) == 1:
            (part,) = side.parts(vectors)
            return side.join([times_blocks(self.own[0], part)], vectors.shape[1])
        parts = side.parts(vectors.copy())
        for s, links in enumerate(self._links):
            for (outer, _, _), matrices in zip(self._offsets(s), links, strict=True):
                for row, own in zip(matrices, parts[s], strict=True):
                    for matrix, theirs in zip(row, parts[outer], strict=True):
                        theirs -= matrix.T @ own
        parts = [times_blocks(own, part) for own, part in zip(self.own, parts, strict=True)]
        for s in reversed(range(len(parts))):
            for (outer, _, _), matrices in zip(self._offsets(s), self._links[s], strict=True):
                for row, own in zip(matrices, parts[s], strict=True):
                    for matrix, theirs in zip(row, parts[outer], strict=True):
                        own -= matrix @ theirs
        return side.join(parts, vectors.shape[1])

    def information(self) -> list[FloatArray]:
        """``sum_i Z_i'V_c^-1 Z_i`` of every stage, shapes (q, q)."""
        found: list[FloatArray] = []
        path = np.empty((0, 0, 0))
        for s in reversed(range(len(self.own))):
            square, own, above = self._squares[s], self.own[s], self._above[s]
            kept = np.einsum("abm,bcm->acm", square, own)
            total = square.sum(axis=2) - np.einsum("abm,bcm->ac", kept, square)
            offsets = self._offsets(s)
            if offsets:
                path = path[:, :, offsets[0][2]]
                rest = above - np.einsum("abm,bcm->acm", kept, above)
                total -= np.einsum("abm,bcm,dcm->ad", rest, path, rest, optimize=True)
                passed = self._passed[s]
                mixed = np.einsum("abm,bcm->acm", passed, path)
                both = own + np.einsum("abm,cbm->acm", mixed, passed)
                path = np.concatenate(
                    [
                        np.concatenate([both, -mixed], axis=1),
                        np.concatenate([-mixed.transpose(1, 0, 2), path], axis=1),
                    ]
                )
            else:
                path = own
            found.append((total + total.T) / 2.0)
        return found[::-1]


def posterior_blocks(squares: FloatArray, root: FloatArray) -> tuple[FloatArray, float]:
    """``Lambda (I + Lambda'F_i Lambda)^-1 Lambda'`` of every level, and sum of log-determinants.

    Parameters
    ----------
    squares : ndarray of shape (q, q, m)
        F_i.
    root : ndarray of shape (q, q)
        Lambda.
    """
    if len(root) == 1:
        variance = root[0, 0] ** 2
        pivots = 1.0 + variance * squares[0, 0]
        return (variance / pivots)[None, None], float(np.log(pivots).sum())
    inner = np.einsum("ba,bcm,cd->mad", root, squares, root, optimize=True)
    inner += np.eye(len(root))
    log_det = float(np.linalg.slogdet(inner)[1].sum())
    blocks = root @ np.linalg.inv(inner) @ root.T
    return np.ascontiguousarray(blocks.transpose(1, 2, 0)), log_det
