"""Elimination: which factors are eliminated level by level, and which stay in one dense block.

A factor whose levels never occur together has a block-diagonal matrix, and can be eliminated level
by level. Once it is, the levels of another factor are coupled wherever they share one of its
levels: they stay apart only if each of its levels occurs with one level of the other, that is if
it is nested in the other. So the factors that are eliminated form a *chain*, each nested in the
next, and the chain with the most random effects is chosen; all others are the *tail*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

from mixedlearn.data.sums import Sums
from mixedlearn.engines.elimination.level_pairs import TailPattern

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EliminationPlan:
    """The order of elimination.

    Attributes
    ----------
    chain : tuple of int
        Factors that are eliminated level by level, in this order.
    tail : tuple of int
        Factors that stay in the dense block.
    ancestors : tuple of tuple of ndarray of shape (m,), int
        For every factor of the chain, the level of each later one that contains each level.
    shapes : tuple of (int, int)
        Number of effects q and of levels m of every factor of the model.
    """

    chain: tuple[int, ...]
    tail: tuple[int, ...]
    ancestors: tuple[tuple[NDArray[np.int32], ...], ...]
    shapes: tuple[tuple[int, int], ...]

    @property
    def tail_shapes(self) -> tuple[tuple[int, int], ...]:
        """Effects q and levels m of the factors in the tail."""
        return tuple(self.shapes[k] for k in self.tail)

    @property
    def n_tail(self) -> int:
        """T, the number of columns of the tail."""
        return sum(q * m for q, m in self.tail_shapes)


def plan_elimination(sums: Sums, n_effects: Sequence[int]) -> EliminationPlan:
    """Choose the chain with the most random effects.

    Parameters
    ----------
    sums : Sums
    n_effects : sequence of int
        Effects per level, q, of every factor.
    """
    shapes = tuple(zip(n_effects, sums.n_levels, strict=True))
    order = sorted(range(len(shapes)), key=lambda k: (-shapes[k][1], -shapes[k][0], k))
    # Chains that end in each factor, from the largest factor to the smallest.
    best: dict[int, tuple[int, ...]] = {}
    for position, k in enumerate(order):
        longest: tuple[int, ...] = ()
        for inner in order[:position]:
            if sums.is_nested(inner, k) and _count(best[inner], shapes) > _count(longest, shapes):
                longest = best[inner]
        best[k] = (*longest, k)
    chain = max(best.values(), key=lambda factors: _count(factors, shapes))
    tail = tuple(k for k in order if k not in chain)
    ancestors = tuple(
        tuple(sums.containing_level(k, outer) for outer in chain[position + 1 :])
        for position, k in enumerate(chain)
    )
    return EliminationPlan(chain, tail, ancestors, shapes)


def tail_pattern(
    sums: Sums, plan: EliminationPlan, k: int
) -> tuple[TailPattern, list[NDArray[np.intp]]]:
    """Which columns of the tail the levels of factor k occur with.

    Returns the pattern and, for every effect of every factor of the tail in turn, where the pairs
    of levels of their crossing (in the crossing's order) stand among the entries.
    """
    levels, columns, start = [], [], 0
    for other in plan.tail:
        own, theirs = sums.pairs(k, other)
        q, m = plan.shapes[other]
        for effect in range(q):
            levels.append(own)
            columns.append(start + effect * m + theirs)
        start += q * m
    sizes = [len(part) for part in levels]
    all_levels = np.concatenate([np.empty(0, np.int32), *levels])
    all_columns = np.concatenate([np.empty(0, np.int32), *columns])
    # The conversion sorts the entries in linear time and says where each has gone.
    shape = (plan.shapes[k][1], max(plan.n_tail, 1))
    number = np.arange(1, len(all_levels) + 1)
    table = coo_array((number, (all_levels, all_columns)), shape=shape).tocsr()
    table.sort_indices()
    place = np.empty(len(number), dtype=np.intp)
    place[table.data - 1] = np.arange(len(number))
    pattern = TailPattern(
        pointers=table.indptr.astype(np.int32),
        columns=table.indices.astype(np.int32),
        levels=np.repeat(np.arange(shape[0], dtype=np.int32), np.diff(table.indptr)),
        n_columns=plan.n_tail,
    )
    return pattern, np.split(place, np.cumsum(sizes)[:-1]) if sizes else []


def _count(factors: Sequence[int], shapes: Sequence[tuple[int, int]]) -> int:
    return sum(shapes[k][0] * shapes[k][1] for k in factors)
