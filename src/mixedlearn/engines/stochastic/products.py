"""The cross-products of a model, as the stochastic engine passes over them.

Notation
--------
The factor of the most levels, the *first*, is eliminated level by level; of all others those with
few random effects stand beside X (`small`), and the rest are the *tail*. With Z_c the random
columns of the first factor and Z_t those of the tail,

    G_cc = Z_c'Z_c,     G_tt = Z_t'Z_t,     A = Z_c'Z_t

are never made dense: they are products of levels with themselves and of pairs of levels that occur
together. Vectors of shape (n, c) over the first factor or over the tail hold the coordinates of c
columns, factor by factor, effect by effect, level by level.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.sums import Sums
from mixedlearn.engines.bases import FixedBasis, RandomBasis
from mixedlearn.engines.elimination.chain import EliminationPlan
from mixedlearn.engines.stochastic.pairs import Pair, through, times_blocks

FloatArray = NDArray[np.float64]

# Pairs of levels in a chunk of what is summed over them.
CHUNK_PAIRS = 1 << 20
# Random effects of small factors, which are columns beside X, and their products with the first.
MOST_SMALL_EFFECTS, MOST_SMALL_PRODUCTS = 64, 30_000_000


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

    def join(self, parts: Sequence[FloatArray], n_columns: int) -> FloatArray:
        """The inverse of `parts`, of which there may be none."""
        return np.concatenate(
            [np.empty((0, n_columns)), *(part.reshape(-1, n_columns) for part in parts)]
        )


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
    first, tail, small : Side
        Small factors are not among the tail.
    squares : list of ndarray of shape (q, q, m)
        Products of every factor's columns with each other, by level.
    first_data, tail_data : ndarray of shape (n, s + p + 1)
        Products with the columns of the small factors, with X and with y.
    gram : ndarray of shape (s + p + 1, s + p + 1)
        Products of these columns with each other.
    """

    def __init__(
        self,
        sums: Sums,
        plan: EliminationPlan,
        fixed: FixedBasis,
        randoms: Sequence[RandomBasis],
    ):
        self.plan = plan
        small = _small_factors(plan)
        self.first = Side(plan.chain, plan.shapes)
        self.tail = Side(tuple(k for k in plan.tail if k not in small), plan.shapes)
        self.small = Side(small, plan.shapes)
        basis = np.column_stack([fixed.columns, fixed.response])
        columns = [random.columns for random in randoms]
        self.squares = [sums.level_squares(k, own) for k, own in enumerate(columns)]
        data = [
            sums.level_products(k, own, basis).transpose(0, 2, 1) for k, own in enumerate(columns)
        ]
        self._pairs: dict[tuple[int, int], Pair] = {}
        for k, other in combinations(range(len(columns)), 2):
            pair = Pair(
                *sums.pairs(k, other),
                sums.crossed(k, other, columns[k], columns[other]),
                (plan.shapes[k][1], plan.shapes[other][1]),
            )
            if other == plan.chain[0]:
                # The levels that are eliminated first are the rows.
                self._pairs[other, k] = pair.turned()
            else:
                self._pairs[k, other] = pair
        with_small = [np.concatenate([self._beside(k), own], 2) for k, own in enumerate(data)]
        self.first_data, self.tail_data, rows = (
            side.join([with_small[k] for k in side.factors], with_small[0].shape[2])
            for side in (self.first, self.tail, self.small)
        )
        beside = rows[:, self.small.size :]
        self.gram = np.block([[rows], [beside.T, sums.products(basis)]])

    def pair(self, k: int, other: int) -> tuple[Pair, bool]:
        """The products of two factors, and whether the first is that of the pair."""
        own = self._pairs.get((k, other))
        return (self._pairs[other, k], False) if own is None else (own, True)

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

    def _beside(self, k: int) -> FloatArray:
        """Products of a factor with the columns of the small ones, shape (q, m, s)."""
        q, m = self.plan.shapes[k]
        result = np.zeros((q, m, self.small.size))
        for other, own, (q_other, m_other) in zip(
            self.small.factors, self.small.slices, self.small.shapes, strict=True
        ):
            part = result[:, :, own].reshape(q, m, q_other, m_other)
            if k == other:
                level = np.arange(m)
                part[:, level, :, level] = self.squares[k].transpose(2, 0, 1)
                continue
            levels, theirs, values = self.entries(k, other)
            part[:, levels, :, theirs] = values.transpose(2, 0, 1)
        return result

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

    def times(self, side: Side, first: FloatArray, tail: FloatArray) -> FloatArray:
        """Products of one side with vectors over both."""
        result = self._product(side, self.first, first)
        result += self._product(side, self.tail, tail)
        return result

    def first_times(self, vectors: FloatArray) -> FloatArray:
        """``G_cc v``."""
        return self._product(self.first, self.first, vectors)

    def tail_times(self, vectors: FloatArray) -> FloatArray:
        """``G_tt v``."""
        return self._product(self.tail, self.tail, vectors)

    def to_first(self, vectors: FloatArray) -> FloatArray:
        """``A v`` for vectors over the tail."""
        return self._product(self.first, self.tail, vectors)

    def through_first(self, middle: FloatArray, vectors: FloatArray) -> FloatArray:
        """``A'M A v`` with a block of M for each level of the first factor."""
        (k,) = self.first.factors
        if not self.tail.factors:
            return np.zeros_like(vectors)
        pairs = [self._pairs[k, other] for other in self.tail.factors]
        return self.tail.join(through(pairs, middle, self.tail.parts(vectors)), vectors.shape[1])

    def to_tail(self, vectors: FloatArray) -> FloatArray:
        """``A'v`` for vectors over the first."""
        return self._product(self.tail, self.first, vectors)


def replace_large(
    side: Side, roots: Sequence[FloatArray], scores: FloatArray, blups: FloatArray
) -> None:
    """Scores ``Z_k'V^-1 c`` of factors with a large D from their BLUPs, in place.

    As differences they would cancel.
    """
    parts = zip(side.factors, side.parts(scores), side.parts(blups), strict=True)
    for k, score, blup in parts:
        root = roots[k]
        if np.linalg.svd(root, compute_uv=False)[-1] > 1.0:
            score[:] = np.tensordot(np.linalg.inv(root @ root.T), blup, 1)


def _small_factors(plan: EliminationPlan) -> tuple[int, ...]:
    """The factors of the tail, from the smallest one on, that are few columns together."""
    n_first = sum(plan.shapes[k][0] * plan.shapes[k][1] for k in plan.chain)
    most = min(MOST_SMALL_EFFECTS, MOST_SMALL_PRODUCTS // max(n_first, 1))
    found: list[int] = []
    for k in sorted(plan.tail, key=lambda k: plan.shapes[k][0] * plan.shapes[k][1]):
        most -= plan.shapes[k][0] * plan.shapes[k][1]
        if most < 0:
            break
        found.append(k)
    return tuple(sorted(found))
