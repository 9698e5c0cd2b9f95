"""The cross-products of a model, as the stochastic engine passes over them.

Notation
--------
The factors of the *chain* (see `elimination.chain`) are eliminated level by level, all others are
the *tail*. With Z_c and Z_t their random columns,

    G_cc = Z_c'Z_c,     G_tt = Z_t'Z_t,     A = Z_c'Z_t

are never made dense: they are products of levels with themselves and of pairs of levels that occur
together. Vectors of shape (n, c) over the chain or over the tail hold the coordinates of c columns,
factor by factor, effect by effect, level by level.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.sums import Sums
from mixedlearn.engines.bases import FixedBasis, RandomBasis
from mixedlearn.engines.elimination.chain import EliminationPlan
from mixedlearn.engines.stochastic.pairs import Pair

FloatArray = NDArray[np.float64]

# Pairs of levels in a chunk of what is summed over them.
CHUNK_PAIRS = 1 << 20


class Side:
    """Where the coordinates of some factors stand in vectors.

    Parameters
    ----------
    factors : tuple of int
    shapes : sequence of (int, int)
        Effects q and levels m of every factor of the model.
    """

    def __init__(self, factors: tuple[int, ...], shapes: Sequence[tuple[int, int]]):
        self.factors = factors
        self.shapes = [shapes[k] for k in factors]
        bounds = np.cumsum([0, *(q * m for q, m in self.shapes)]).tolist()
        self.slices = [slice(*pair) for pair in pairwise(bounds)]
        self.size = bounds[-1]

    def parts(self, vectors: FloatArray) -> list[FloatArray]:
        """Vectors of shape (n, c) by factor, views of shape (q, m, c)."""
        return [
            vectors[own].reshape(q, m, vectors.shape[1])
            for own, (q, m) in zip(self.slices, self.shapes, strict=True)
        ]

    def join(self, parts: Sequence[FloatArray]) -> FloatArray:
        """The inverse of `parts`."""
        n_columns = parts[0].shape[2] if parts else 0
        return np.concatenate([np.empty((0, n_columns)), *(p.reshape(-1, n_columns) for p in parts)])


class Products:
    """Cross-products of the random columns, X and y, in the engine's columns.

    Parameters
    ----------
    sums : Sums
    plan : EliminationPlan
    fixed : FixedBasis
    randoms : sequence of RandomBasis

    Attributes
    ----------
    chain, tail : Side
    squares : list of ndarray of shape (q, q, m)
        Products of every factor's columns with each other, by level.
    chain_data, tail_data : ndarray of shape (n, p + 1)
        Products with X and y.
    gram : ndarray of shape (p + 1, p + 1)
        Products of X and y with each other.
    """

    def __init__(
        self,
        sums: Sums,
        plan: EliminationPlan,
        fixed: FixedBasis,
        randoms: Sequence[RandomBasis],
    ):
        self.plan = plan
        self.chain, self.tail = Side(plan.chain, plan.shapes), Side(plan.tail, plan.shapes)
        basis = np.column_stack([fixed.columns, fixed.response])
        columns = [random.columns for random in randoms]
        self.squares = [sums.level_squares(k, own) for k, own in enumerate(columns)]
        data = [
            sums.level_products(k, own, basis).transpose(0, 2, 1) for k, own in enumerate(columns)
        ]
        self.chain_data = self.chain.join([data[k] for k in plan.chain])
        self.tail_data = self.tail.join([data[k] for k in plan.tail])
        self.gram = sums.products(basis)
        self._pairs = {
            (k, other): Pair(
                *sums.pairs(k, other),
                sums.crossed(k, other, columns[k], columns[other]),
                (plan.shapes[k][1], plan.shapes[other][1]),
            )
            for k, other in sums.crossings
        }
        # What every level of the chain has in common with the levels that contain it.
        self.above = [self._above(s) for s in range(len(plan.chain))]

    def pair(self, k: int, other: int) -> tuple[Pair, bool]:
        """The products of two factors, and whether the first is that of the pair."""
        return (self._pairs[k, other], True) if k < other else (self._pairs[other, k], False)

    def entries(
        self, k: int, other: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], FloatArray]:
        """Levels of two factors that occur together, and their products (q_k, q_other, n)."""
        pair, is_first = self.pair(k, other)
        if is_first:
            return pair.first, pair.second, pair.values
        return pair.second, pair.first, pair.values.transpose(1, 0, 2)

    def forms(self, k: int, other: int, middle: FloatArray) -> FloatArray:
        """``sum_j Z_i'Z_j M_j Z_j'Z_i`` over the levels j of another factor, for every level i.

        Parameters
        ----------
        k, other : int
        middle : ndarray of shape (q_other, q_other, m_other)
            M_j, symmetric.

        Returns
        -------
        forms : ndarray of shape (q_k, q_k, m_k)
        """
        own, theirs, values = self.entries(k, other)
        q, m = self.plan.shapes[k]
        result = np.zeros((q, q, m))
        for start in range(0, len(own), CHUNK_PAIRS):
            part = slice(start, start + CHUNK_PAIRS)
            levels, entries = own[part], values[:, :, part]
            turned = np.einsum("abn,bcn->acn", entries, middle[:, :, theirs[part]])
            for a in range(q):
                for b in range(a + 1):
                    terms = np.einsum("cn,cn->n", entries[a], turned[b])
                    total = np.bincount(levels, weights=terms, minlength=m)
                    result[a, b] += total
                    if b < a:
                        result[b, a] += total
        return result

    def _above(self, s: int) -> FloatArray:
        """Products of stage s with all later stages, by level of s: shape (q, n_above, m)."""
        k = self.plan.chain[s]
        q, m = self.plan.shapes[k]
        parts = [np.empty((q, 0, m))]
        for other in self.plan.chain[s + 1 :]:
            own, _, values = self.entries(k, other)
            by_level = np.empty(values.shape)
            by_level[:, :, own] = values
            parts.append(by_level)
        return np.concatenate(parts, axis=1)

    def _times(self, k: int, other: int, vectors: FloatArray) -> FloatArray:
        """``Z_k'Z_l v``, shapes (q_l, m_l, c) and (q_k, m_k, c)."""
        if k == other:
            return times_blocks(self.squares[k], vectors)
        pair, is_first = self.pair(k, other)
        return pair.times(vectors) if is_first else pair.times_transposed(vectors)

    def _product(self, left: Side, right: Side, vectors: FloatArray) -> FloatArray:
        result = np.zeros((left.size, vectors.shape[1]))
        for own, k in zip(left.parts(result), left.factors, strict=True):
            for part, other in zip(right.parts(vectors), right.factors, strict=True):
                own += self._times(k, other, part)
        return result

    def chain_times(self, vectors: FloatArray) -> FloatArray:
        """``G_cc v``."""
        return self._product(self.chain, self.chain, vectors)

    def tail_times(self, vectors: FloatArray) -> FloatArray:
        """``G_tt v``."""
        return self._product(self.tail, self.tail, vectors)

    def to_chain(self, vectors: FloatArray) -> FloatArray:
        """``A v`` for vectors over the tail."""
        return self._product(self.chain, self.tail, vectors)

    def to_tail(self, vectors: FloatArray) -> FloatArray:
        """``A'v`` for vectors over the chain."""
        return self._product(self.tail, self.chain, vectors)


def times_blocks(blocks: FloatArray, vectors: FloatArray) -> FloatArray:
    """A block for each level times vectors: (q, r, m) and (r, m, c) give (q, m, c)."""
    if blocks.shape[:2] == (1, 1):
        return blocks[0, 0][:, None] * vectors
    return np.einsum("abm,bmc->amc", blocks, vectors)
