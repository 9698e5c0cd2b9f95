"""The sums of several factors, reduced to what an evaluation needs.

Notation
--------
The factors of the chain (see `chain`) are its stages s = 0, 1, ...; stage 0 has the most
levels. The levels of stage 0 are reduced to a few rows each, as in `levels`: with Q_i an
orthonormal basis of the level's random columns

    U_i = Q_i'Z_i    A_i = Q_i'[columns of the later stages]    R_i = Q_i'[columns of the tail]
    Y_i = Q_i'[X y]

and everything else is stored as cross-products of what lies outside these bases. That part does not
depend on theta, so that an evaluation adds sums of squares to it and nothing cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from mixedlearn.data.sums import Sums
from mixedlearn.engines.bases import FixedBasis, RandomBasis
from mixedlearn.engines.elimination.chain import EliminationPlan, tail_pattern
from mixedlearn.engines.elimination.level_pairs import TailPattern, TailRows
from mixedlearn.engines.levels import (
    factorise_with_inverse,
    reduce_levels,
    separate_levels,
    sum_over_rows,
    within_variance,
)

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Stage:
    """A factor of the chain: how its levels lie in the later ones and over the tail.

    Attributes
    ----------
    factor : int
        Position of the factor in the model.
    n_effects, n_levels : int
        q and m.
    ancestors : tuple of ndarray of shape (m,), int
        For every later stage, the level that contains each level.
    offsets : tuple of slice
        Where the columns of every later stage stand among the columns of all of them.
    pattern : TailPattern
        Columns of the tail that the levels occur with.
    entries : tuple of ndarray of shape (n_entries,), int
        For every later stage, the entry of its pattern that contains each entry.
    """

    factor: int
    n_effects: int
    n_levels: int
    ancestors: tuple[NDArray[np.int32], ...]
    offsets: tuple[slice, ...]
    pattern: TailPattern
    entries: tuple[NDArray[np.intp], ...]

    @property
    def n_above(self) -> int:
        """Number of columns of all later stages."""
        return self.offsets[-1].stop if self.offsets else 0


@dataclass(slots=True)
class EffectProducts:
    """Cross-products of the stages that remain, with each other and with the tail.

    Attributes
    ----------
    blocks : list of ndarray of shape (q, q + n_above, m)
        For every stage, products of its columns with themselves and those of later stages.
    tails : list of ndarray of shape (q, n_entries)
        For every stage, products of its columns with those of the tail.
    """

    blocks: list[FloatArray]
    tails: list[FloatArray]

    def copy(self) -> EffectProducts:
        """A copy whose sums may be changed."""
        return EffectProducts(
            [block.copy() for block in self.blocks], [part.copy() for part in self.tails]
        )


@dataclass(slots=True)
class DataProducts:
    """Cross-products of further columns, X and y say, with the random columns and each other.

    Attributes
    ----------
    rows : ndarray of shape (r, c, m)
        The columns in the bases of stage 0.
    blocks : list of ndarray of shape (q, c, m)
        For every stage, products with its columns; those of stage 0 are empty.
    tail : ndarray of shape (T, c)
        Products with the tail's columns.
    gram : ndarray of shape (c, c)
        Products with each other.
    """

    rows: FloatArray
    blocks: list[FloatArray]
    tail: FloatArray
    gram: FloatArray

    def copy(self) -> DataProducts:
        """A copy whose sums may be changed; the rows are shared."""
        return DataProducts(
            self.rows, [block.copy() for block in self.blocks], self.tail.copy(), self.gram.copy()
        )

    def beside(self, other: DataProducts, products: FloatArray) -> DataProducts:
        """These columns and others, with the products between the two."""
        return DataProducts(
            np.concatenate([self.rows, other.rows], axis=1),
            [
                np.concatenate([own, their], axis=1)
                for own, their in zip(self.blocks, other.blocks, strict=True)
            ],
            np.concatenate([self.tail, other.tail], axis=1),
            np.block([[self.gram, products], [products.T, other.gram]]),
        )


@dataclass(frozen=True, slots=True)
class Spans:
    """Rows of the levels of a stage, in the columns that remain when it is eliminated.

    Attributes
    ----------
    above : ndarray of shape (r, n_above, m)
        Columns of the later stages.
    tails : ndarray of shape (r, n_entries)
        Columns of the tail.
    """

    above: FloatArray
    tails: FloatArray


@dataclass(frozen=True, slots=True)
class StartingSums:
    """What starting values by moments need; see `moments`.

    Attributes
    ----------
    data : tuple of ndarray of shape (q, p + 1, m)
        ``Z_k'[X y]`` by level, for every factor.
    sizes : tuple of ndarray of shape (q, m)
        Squares of the columns of every level.
    overlaps : ndarray of shape (n_groups, n_groups)
        ``sum_ij (Z_g'Z_h)_ij^2 / n_i`` between the effects of all factors.
    """

    data: tuple[FloatArray, ...]
    sizes: tuple[FloatArray, ...]
    overlaps: FloatArray


@dataclass(frozen=True, slots=True)
class ReducedProducts:
    """The data of a model with several factors.

    Attributes
    ----------
    plan : EliminationPlan
    stages : tuple of Stage
    columns : ndarray of shape (r, q + n_above, m)
        ``[U_i, A_i]`` of stage 0.
    tail_rows : TailRows
        R_i of stage 0.
    tail_products : csr_array of shape (T, T)
        Products of the tail's columns with each other, whole: the upper triangle.
    effects : EffectProducts
        Cross-products outside the bases of stage 0.
    data : DataProducts
        Those of X and y.
    within_variance : float
        Residual variance within the levels of stage 0.
    starting : StartingSums
    """

    plan: EliminationPlan
    stages: tuple[Stage, ...]
    columns: FloatArray
    tail_rows: TailRows
    tail_products: csr_array
    effects: EffectProducts
    data: DataProducts
    within_variance: float
    starting: StartingSums


def reduce_several(
    sums: Sums,
    plan: EliminationPlan,
    fixed: FixedBasis,
    randoms: Sequence[RandomBasis],
    *,
    rotate: bool = True,
) -> tuple[FixedBasis, ReducedProducts]:
    """Reduce the sums of several factors; the fixed columns are rotated on the way.

    Without ``rotate`` they stay as they are: what follows is for BLUPs, not for the likelihood.
    """
    first = plan.chain[0]
    moments = reduce_levels(sums, first, fixed, randoms[first])
    if rotate:
        fixed, moments = separate_levels(fixed, moments)
    blocks = _Blocks(sums, plan, randoms, np.column_stack([fixed.columns, fixed.response]))
    patterns = [tail_pattern(sums, plan, k) for k in plan.chain]
    stages = _make_stages(plan, [pattern for pattern, _ in patterns])
    q = stages[0].n_effects

    # Stage 0 in the bases of its levels: ``Q_i'c`` from the products of c with its z columns.
    _, to_basis = factorise_with_inverse(sums.z_level_products(first))
    spread = blocks.with_z_columns()
    columns = np.concatenate(
        [
            moments.rows[:, :q],
            sum_over_rows(to_basis.transpose(1, 0, 2), spread.above(0)),
        ],
        axis=1,
    )
    tail_values = spread.over_tail(0, patterns[0][1], len(stages[0].pattern.columns))
    tail_rows = TailRows(stages[0].pattern, stages[0].pattern.spread(to_basis, tail_values))

    effects = EffectProducts([np.empty((0, 0, 0))], [np.empty((0, 0))])
    data = DataProducts(
        rows=moments.rows[:, q:],
        blocks=[np.empty((0, 0, 0))],
        tail=blocks.tail_data(),
        gram=moments.within,
    )
    for s, stage in enumerate(stages[1:], start=1):
        own = blocks.squares[stage.factor]
        effects.blocks.append(np.concatenate([own, blocks.above(s)], axis=1))
        n_entries = len(stage.pattern.columns)
        effects.tails.append(blocks.over_tail(s, patterns[s][1], n_entries))
        data.blocks.append(blocks.data[stage.factor].copy())
    # What lies within the bases of stage 0 is taken out; W in the data's gram has it out already.
    # The tail's own products stay whole: see `engine`.
    within = Spans(columns[:, q:], tail_rows.rows)
    add_effects(effects, stages, 0, within, -1.0)
    add_data(data, stages, 0, within, data.rows, -1.0, with_gram=False)
    return fixed, ReducedProducts(
        plan=plan,
        stages=stages,
        columns=columns,
        tail_rows=tail_rows,
        tail_products=blocks.tail(),
        effects=effects,
        data=data,
        within_variance=within_variance(moments, sums.n_rows),
        starting=_starting_sums(blocks),
    )


class _Blocks:
    """The blocks of ``[Z_1 ... Z_K X y]'[Z_1 ... Z_K X y]``, factor by factor.

    Parameters
    ----------
    sums : Sums
    plan : EliminationPlan
    randoms : sequence of RandomBasis
    basis : ndarray of shape (k + 2, p + 1)
        X and y in terms of the basis columns.
    """

    def __init__(
        self,
        sums: Sums,
        plan: EliminationPlan,
        randoms: Sequence[RandomBasis],
        basis: FloatArray,
    ):
        self.sums, self.plan = sums, plan
        self.columns = [random.columns for random in randoms]
        self.data = [sums.level_products(k, own, basis) for k, own in enumerate(self.columns)]
        self.squares = [sums.level_squares(k, own) for k, own in enumerate(self.columns)]

    def with_z_columns(self) -> _Blocks:
        """The same with the z columns of the sums for the first stage's own."""
        other = copy(self)
        first = self.plan.chain[0]
        other.columns = [
            np.eye(len(columns)) if k == first else columns
            for k, columns in enumerate(self.columns)
        ]
        return other

    def crossed(self, k: int, other: int) -> FloatArray:
        """``Z_k'Z_l`` for the pairs of levels that occur together, shape (q_k, q_l, n_pairs)."""
        return self.sums.crossed(k, other, self.columns[k], self.columns[other])

    def above(self, s: int) -> FloatArray:
        """Products of stage s with all later stages, by level of s: shape (q, n_above, m)."""
        k = self.plan.chain[s]
        parts = [np.empty((self.columns[k].shape[1], 0, self.plan.shapes[k][1]))]
        for other in self.plan.chain[s + 1 :]:
            values = self.crossed(k, other)
            by_level = np.empty_like(values)
            by_level[:, :, self.sums.pairs(k, other)[0]] = values
            parts.append(by_level)
        return np.concatenate(parts, axis=1)

    def over_tail(self, s: int, places: Sequence[NDArray[np.intp]], n_entries: int) -> FloatArray:
        """Products of stage s with the tail, in the entries of its pattern: (q, n_entries)."""
        k = self.plan.chain[s]
        result = np.empty((self.columns[k].shape[1], n_entries))
        effects = [
            values
            for other in self.plan.tail
            for values in self.crossed(k, other).transpose(1, 0, 2)
        ]
        for place, values in zip(places, effects, strict=True):
            result[:, place] = values
        return result

    def tail(self) -> csr_array:
        """Products of the tail's columns: the upper triangle, sparse, of shape (T, T)."""
        bounds = np.cumsum([0, *(q * m for q, m in self.plan.tail_shapes)]).tolist()
        rows, columns, values = [], [], []
        for i, k in enumerate(self.plan.tail):
            q, m = self.plan.shapes[k]
            level = np.arange(m, dtype=np.int32)
            for a in range(q):
                for b in range(a, q):
                    rows.append(bounds[i] + a * m + level)
                    columns.append(bounds[i] + b * m + level)
                    values.append(self.squares[k][a, b])
            for j, other in enumerate(self.plan.tail[i + 1 :], start=i + 1):
                own, theirs = self.sums.pairs(k, other)
                m_other = self.plan.shapes[other][1]
                for a, row in enumerate(self.crossed(k, other)):
                    for b, entries in enumerate(row):
                        rows.append(bounds[i] + a * m + own)
                        columns.append(bounds[j] + b * m_other + theirs)
                        values.append(entries)
        shape = (self.plan.n_tail, self.plan.n_tail)
        if not values:
            return csr_array(shape)
        places = np.concatenate(rows), np.concatenate(columns)
        return coo_array((np.concatenate(values), places), shape=shape).tocsr()

    def tail_data(self) -> FloatArray:
        """Products of the tail's columns with X and y, shape (T, p + 1)."""
        n_columns = self.data[0].shape[1]
        parts = [self.data[k].transpose(0, 2, 1).reshape(-1, n_columns) for k in self.plan.tail]
        return np.concatenate([np.empty((0, n_columns)), *parts])


def _make_stages(plan: EliminationPlan, patterns: Sequence[TailPattern]) -> tuple[Stage, ...]:
    stages = []
    for s, k in enumerate(plan.chain):
        sizes = [plan.shapes[other][0] for other in plan.chain[s + 1 :]]
        bounds = np.cumsum([0, *sizes]).tolist()
        entries = []
        for ancestor, outer in zip(plan.ancestors[s], patterns[s + 1 :], strict=True):
            keys = outer.levels.astype(np.int64) * max(plan.n_tail, 1) + outer.columns
            levels = ancestor[patterns[s].levels].astype(np.int64)
            entries.append(
                np.searchsorted(keys, levels * max(plan.n_tail, 1) + patterns[s].columns)
            )
        stages.append(
            Stage(
                factor=k,
                n_effects=plan.shapes[k][0],
                n_levels=plan.shapes[k][1],
                ancestors=plan.ancestors[s],
                offsets=tuple(slice(*pair) for pair in pairwise(bounds)),
                pattern=patterns[s],
                entries=tuple(entries),
            )
        )
    return tuple(stages)


def _starting_sums(blocks: _Blocks) -> StartingSums:
    shapes = blocks.plan.shapes
    sizes = [np.einsum("aam->am", square) for square in blocks.squares]
    inverse = [np.where(size > 0.0, 1.0 / np.where(size > 0.0, size, 1.0), 0.0) for size in sizes]
    overlaps: list[list[FloatArray]] = [[np.empty(0)] * len(shapes) for _ in shapes]
    for k in range(len(shapes)):
        overlaps[k][k] = np.einsum("am,abm->ab", inverse[k], np.square(blocks.squares[k]))
        for other in range(k + 1, len(shapes)):
            squares = np.square(blocks.crossed(k, other))
            own, theirs = blocks.sums.pairs(k, other)
            overlaps[k][other] = np.einsum("am,abm->ab", inverse[k][:, own], squares)
            overlaps[other][k] = np.einsum("bm,abm->ba", inverse[other][:, theirs], squares)
    return StartingSums(tuple(blocks.data), tuple(sizes), np.block(overlaps))


def add_effects(
    effects: EffectProducts,
    stages: Sequence[Stage],
    s: int,
    spans: Spans,
    sign: float,
) -> None:
    """Add the products of rows of stage s to those of the later stages' columns, in place."""
    stage = stages[s]
    for later, own in enumerate(stage.offsets):
        outer = s + 1 + later
        left = spans.above[:, own]
        products = sum_over_rows(left, spans.above[:, own.start :])
        ancestor, n_levels = stage.ancestors[later], stages[outer].n_levels
        effects.blocks[outer] += sign * sum_by_level(products, ancestor, n_levels)
        if len(stage.pattern.columns):
            values = [
                sum(
                    row[column][stage.pattern.levels] * tail
                    for row, tail in zip(left, spans.tails, strict=True)
                )
                for column in range(left.shape[1])
            ]
            part = effects.tails[outer]
            sums = sum_by_level(np.array(values)[None], stage.entries[later], part.shape[1])[0]
            part += sign * sums


def add_data(
    data: DataProducts,
    stages: Sequence[Stage],
    s: int,
    spans: Spans,
    rows: FloatArray,
    sign: float,
    *,
    with_gram: bool = True,
) -> None:
    """Add the products of rows of stage s with further columns, in place."""
    stage = stages[s]
    for later, own in enumerate(stage.offsets):
        outer = s + 1 + later
        products = sum_over_rows(spans.above[:, own], rows)
        ancestor, n_levels = stage.ancestors[later], stages[outer].n_levels
        data.blocks[outer] += sign * sum_by_level(products, ancestor, n_levels)
    if data.tail.size:
        for tail, row in zip(spans.tails, rows, strict=True):
            data.tail += sign * (stage.pattern.matrix(tail).T @ row.T)
    if with_gram:
        for row in rows:
            data.gram += sign * (row @ row.T)


def sum_by_level(values: FloatArray, codes: NDArray[np.integer], n_levels: int) -> FloatArray:
    """Sums over the entries of each level: (a, b, m) gives (a, b, n_levels)."""
    result = np.empty((*values.shape[:2], n_levels))
    for a, row in enumerate(values):
        for b, entries in enumerate(row):
            result[a, b] = np.bincount(codes, weights=entries, minlength=n_levels)
    return result
