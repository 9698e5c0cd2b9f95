"""Several grouping factors: the likelihood by elimination, level by level where that is possible.

Notation
--------
The stages s = 0, 1, ... of the chain are eliminated in turn, the tail last (`chain`,
`reduced`, `tail`). At stage s, ``V_s`` contains the random effects of stages 0 to s. With U_i the
root of the level's cross-products under ``V_(s-1)``, A_i, R_i, Y_i the later stages' columns, the
tail's and X and y in the same rows, and ``L_i L_i' = I + U_i D U_i'``,

    P_i = L_i^-1 U_i,    K_i = L_i^-1 [A_i R_i Y_i]
    log|V_s| = log|V_(s-1)| + sum_i log|L_i L_i'|
    c'V_s^-1 c = (what lies outside the rows) + sum_i K_i'K_i           for all columns c

Everything is a sum of squares up to the tail, whose own products S lose
``sum_i R_i'(I - (L_i L_i')^-1) R_i`` at each stage: one product of sparse rows instead of two. For
the derivatives the stages are passed in reverse: the BLUPs of all columns c at once, ``F_s = D
Z_s'V^-1 c``, come from those of the later stages,

    Z_s'V^-1 c = P_i'(K_c - K_A F_A - K_R F_R)

and with ``N_i = P_i'K_i``, C the covariance of the later random effects given y and beta,

    sum_i Z_i'V^-1 Z_i = sum_i (P_i'P_i - N_i C N_i')

where C is a small matrix for each level of the chain plus one for the tail (B of `tail`): no
inverse across blocks is formed. The second derivative is average information (Gilmour, Thompson &
Cullis 1995): with ``w_E = Z E u`` and ``P = V^-1 - V^-1 X H^-1 X'V^-1``

    w_E'P w_F / s2 - g_E g_F / df,        g_E = sum_i u_i'E u_i / s2

to which `components` adds the exact second-order term of D in theta. It agrees with the Hessian on
average and takes one solution for each entry of the D_k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.components import VarianceComponents
from mixedlearn.data.sums import Sums
from mixedlearn.engines.elimination.chain import plan_elimination
from mixedlearn.engines.elimination.dense import row_blocks, two_matrices
from mixedlearn.engines.elimination.level_pairs import forms_of_rows, gram_of_rows
from mixedlearn.engines.elimination.links import Link, forms_through_chain, link_stages
from mixedlearn.engines.elimination.posterior import SeveralFactorsPosterior
from mixedlearn.engines.elimination.reduced import (
    DataProducts,
    ReducedProducts,
    Spans,
    Stage,
    add_data,
    add_effects,
    sum_by_level,
)
from mixedlearn.engines.elimination.tail import Tail
from mixedlearn.engines.levels import (
    factorise,
    factorise_with_inverse,
    solve_levels,
    sum_over_rows,
)
from mixedlearn.engines.likelihood import ProfiledLikelihood
from mixedlearn.engines.moments import start_from_moments
from mixedlearn.engines.plan import Block, Plan
from mixedlearn.engines.profiled import ProfiledEngine, Solution
from mixedlearn.engines.protocol import Curvature, FixedEffects
from mixedlearn.threads import threads_for

FloatArray = NDArray[np.float64]


def plan_several(sums: Sums, n_effects: Sequence[int]) -> Plan:
    """The plan for several factors: a chain level by level, all others in the dense block.

    Parameters
    ----------
    sums : Sums
    n_effects : sequence of int
        Effects per level, q, of every factor.
    """
    order = plan_elimination(sums, n_effects)
    blocks = []
    for k, outer in zip(order.chain, (*order.chain[1:], None), strict=True):
        pairs = (len(sums.pairs(k, other)[0]) * order.shapes[other][0] for other in order.tail)
        q, m = order.shapes[k]
        blocks.append(Block(k, m, q, is_dense=False, nested_in=outer, n_beside=sum(pairs)))
    for k in order.tail:
        q, m = order.shapes[k]
        blocks.append(Block(k, m, q, is_dense=True))
    is_exact = SeveralFactorsEngine.has_exact_hessian
    return Plan("elimination", tuple(blocks), is_exact, order)


@dataclass(frozen=True, slots=True)
class SolvedStage:
    """A stage at one theta.

    Attributes
    ----------
    to_rows : ndarray of shape (r, q, m) or None
        What turns products with the stage's columns into its rows; None for stage 0, whose rows are
        given.
    spans : Spans
        ``[A_i, R_i]``.
    inverse : ndarray of shape (r, r, m)
        ``L_i^-1``.
    projected : ndarray of shape (r, q, m)
        P_i.
    solved : Spans
        ``L_i^-1 [A_i, R_i]``.
    log_det : float
        ``sum_i log|L_i L_i'|``.
    """

    to_rows: FloatArray | None
    spans: Spans
    inverse: FloatArray
    projected: FloatArray
    solved: Spans
    log_det: float


@dataclass(frozen=True, slots=True)
class Elimination:
    """All stages and the tail at one theta.

    Attributes
    ----------
    covariances : list of ndarray of shape (q, q)
        D of every factor.
    stages : list of SolvedStage
    tail : Tail
    """

    covariances: list[FloatArray]
    stages: list[SolvedStage]
    tail: Tail

    @property
    def log_det(self) -> float:
        """log|V|."""
        return sum(stage.log_det for stage in self.stages) + self.tail.log_det


@dataclass(frozen=True, slots=True)
class EliminatedData:
    """Columns c after the elimination of all random effects.

    Attributes
    ----------
    solved : list of ndarray of shape (r, c, m)
        ``K_c`` of every stage.
    tail : ndarray of shape (T, c)
        ``Z_t'V_c^-1 c`` of the tail.
    tail_blups : ndarray of shape (T, c)
        BLUPs of the tail.
    cross : ndarray of shape (c, c)
        ``c'V^-1 c``.
    """

    solved: list[FloatArray]
    tail: FloatArray
    tail_blups: FloatArray
    cross: FloatArray


class SeveralFactorsEngine(ProfiledEngine):
    """The likelihood with several grouping factors.

    Parameters
    ----------
    reduced : ReducedProducts
    components : VarianceComponents
        Structures of the D_k in the engine's columns.
    n_levels : tuple of int
        Number of levels of every factor.
    likelihood : ProfiledLikelihood
    """

    has_exact_hessian = False

    def __init__(
        self,
        reduced: ReducedProducts,
        components: VarianceComponents,
        n_levels: tuple[int, ...],
        likelihood: ProfiledLikelihood,
    ):
        self._reduced = reduced
        # The last solution is kept, for derivatives and BLUPs at the same roots.
        self._last: tuple[bytes, Elimination, EliminatedData] | None = None
        parts = (reduced.columns, reduced.data.rows, reduced.tail_rows.rows)
        super().__init__(
            components,
            n_levels,
            likelihood,
            reduced.data.gram,
            reduced.within_variance,
            sum(part.size for part in parts) + reduced.plan.n_tail**2,
        )

    def _moments_of(self, coef: FloatArray) -> tuple[FloatArray, ...]:
        starting, data = self._reduced.starting, self._reduced.data
        contrast = np.append(-coef, 1.0)
        squares, counts, sizes = [], [], []
        for products, own in zip(starting.data, starting.sizes, strict=True):
            moments = np.einsum("c,acm->am", contrast, products)
            positive = own > 0.0
            ratio = np.where(positive, np.square(moments) / np.where(positive, own, 1.0), 0.0)
            squares += ratio.sum(axis=1).tolist()
            counts += positive.sum(axis=1).tolist()
            sizes += own.sum(axis=1).tolist()
        residual = np.einsum("c,rcm->rm", contrast, data.rows)
        return start_from_moments(
            squares=np.array(squares),
            counts=np.array(counts),
            sizes=np.array(sizes),
            overlaps=starting.overlaps,
            total=float(contrast @ data.gram @ contrast + np.vdot(residual, residual)),
            df=self.likelihood.total,
            n_effects=[structure.n_effects for structure in self.components.structures],
        )

    @property
    def _multiplications(self) -> float:
        return float(self._reduced.plan.n_tail) ** 3

    @property
    def _n_differences(self) -> float:
        # The tail's products are differences: with a large D they lose digits in every row, of
        # either sign.
        return 0.5 * float(np.sqrt(self.likelihood.df))

    def _solve(self, roots: tuple[FloatArray, ...]) -> Solution:
        """The details are the elimination, of the effects and of X and y."""
        elimination, eliminated = self._solve_at(roots)
        return Solution(elimination.log_det, eliminated.cross, (elimination, eliminated))

    def _derivatives(
        self, details: tuple[Elimination, EliminatedData], fixed: FixedEffects, order: int
    ) -> tuple[tuple[FloatArray, ...], Curvature | None]:
        elimination, eliminated = details
        s2 = fixed.noise_variance
        scores, _ = self._scores(elimination, eliminated)
        information = self._information(elimination)
        u = [own[:, -1] - np.einsum("p,qpm->qm", fixed.coef, own[:, :-1]) for own in scores]
        gradients, squares = [], []
        for own, effect, whole in zip(scores, u, information, strict=True):
            square = effect @ effect.T / s2
            gradient = whole - square
            if self.likelihood.reml:
                mixed = np.einsum("qpm,pr->qrm", own[:, :-1], fixed.inverse_root)
                gradient -= np.einsum("arm,brm->ab", mixed, mixed)
            gradients.append(gradient)
            squares.append(square)
        if order < 2:
            return tuple(gradients), None
        g = np.concatenate([square.ravel() for square in squares])
        average = self._average_information(elimination, u, fixed)
        second = average - np.outer(g, g) / self.likelihood.df
        # The average is that of the exact curvature, which has twice as much, and its expectation.
        curvature = Curvature(second, tuple(-square for square in squares), 2.0 * average)
        return tuple(gradients), curvature

    def random_effects(
        self, roots: Sequence[FloatArray], fixed: FixedEffects
    ) -> tuple[FloatArray, ...]:
        """BLUPs of the engine's random effects, ``D_k u_k``."""
        with threads_for(self._multiplications):
            _, blups = self._scores(*self._solve_at(roots))
        contrast = np.append(-fixed.coef, 1.0)
        return tuple(np.einsum("c,qcm->qm", contrast, own) for own in blups)

    def posterior(self, roots: Sequence[FloatArray]) -> SeveralFactorsPosterior:
        """Distribution of the random effects given the response."""
        with threads_for(self._multiplications):
            elimination, eliminated = self._solve_at(roots)
            _, blups = self._scores(elimination, eliminated)
            links = self._links(elimination, with_first=True)
            tail_covariance = elimination.tail.covariance()
        response = tuple(own[:, :-1] for own in blups)
        return SeveralFactorsPosterior(
            self._reduced.plan,
            self._reduced.stages,
            elimination.covariances,
            links,
            tail_covariance,
            response,
        )

    def _solve_at(self, roots: Sequence[FloatArray]) -> tuple[Elimination, EliminatedData]:
        """The elimination of the random effects, and of X and y."""
        key = np.concatenate([root.ravel() for root in roots]).tobytes()
        last = self._last
        if last is None or last[0] != key:
            # Two eliminations at once would be twice the memory.
            self._last = last = None
            elimination = self._eliminate(roots)
            last = key, elimination, self._eliminate_data(elimination, self._reduced.data)
            self._last = last
        return last[1:]

    def _eliminate(self, roots: Sequence[FloatArray]) -> Elimination:
        """Eliminate the chain, stage by stage, and solve the tail."""
        reduced = self._reduced
        scaled, products = two_matrices(reduced.plan.n_tail)
        for rows in row_blocks(len(products)):
            products.add_upper_rows(rows, reduced.tail_products[rows].toarray())
        effects = reduced.effects.copy()
        solved = []
        for s, stage in enumerate(reduced.stages):
            pattern, q = stage.pattern, stage.n_effects
            if s == 0:
                columns, to_rows = reduced.columns, None
                spans = Spans(columns[:, q:], reduced.tail_rows.rows)
            else:
                columns, to_rows = factorise_with_inverse(effects.blocks[s])
                spans = Spans(columns[:, q:], pattern.spread(to_rows, effects.tails[s]))
                add_effects(effects, reduced.stages, s, spans, -1.0)
            own = _solve_stage(stage, roots[stage.factor], columns, to_rows, spans)
            add_effects(effects, reduced.stages, s, own.solved, 1.0)
            if reduced.plan.n_tail:
                lost = _lost_rows(columns[:, :q], roots[stage.factor])
                if s == 0:
                    gram = reduced.tail_rows.gram(lost)
                else:
                    gram = gram_of_rows(pattern, pattern.spread(lost, spans.tails))
                for rows, part in gram:
                    products.add_upper_rows(rows, -part)
            solved.append(own)
        tail_roots = [roots[k] for k in reduced.plan.tail]
        tail = Tail(reduced.plan.tail_shapes, tail_roots, products, scaled)
        return Elimination([root @ root.T for root in roots], solved, tail)

    def _eliminate_data(self, elimination: Elimination, data: DataProducts) -> EliminatedData:
        """Carry further columns through the elimination."""
        stages = self._reduced.stages
        data = data.copy()
        solved = []
        for s, stage in enumerate(elimination.stages):
            rows = data.rows
            if stage.to_rows is not None:
                rows = sum_over_rows(stage.to_rows.transpose(1, 0, 2), data.blocks[s])
                add_data(data, stages, s, stage.spans, rows, -1.0)
            own = sum_over_rows(stage.inverse.transpose(1, 0, 2), rows)
            add_data(data, stages, s, stage.solved, own, 1.0)
            solved.append(own)
        blups, lost = elimination.tail.solve(data.tail)
        return EliminatedData(solved, data.tail, blups, data.gram - lost)

    def _scores(
        self, elimination: Elimination, data: EliminatedData
    ) -> tuple[list[FloatArray], list[FloatArray]]:
        """``Z_k'V^-1 c`` of every factor and its BLUPs ``D_k Z_k'V^-1 c``, shapes (q, c, m).

        The stages are passed in reverse, for the BLUPs of later ones are taken out.
        """
        reduced, tail = self._reduced, elimination.tail
        scores: list[FloatArray] = [np.empty(0)] * len(reduced.plan.shapes)
        blups = scores.copy()
        for k, score, blup in zip(
            reduced.plan.tail,
            tail.by_factor(tail.scores(data.tail, data.tail_blups)),
            tail.by_factor(data.tail_blups),
            strict=True,
        ):
            scores[k], blups[k] = score, blup
        for s in reversed(range(len(reduced.stages))):
            stage, solved = reduced.stages[s], elimination.stages[s]
            later = [blups[other] for other in reduced.plan.chain[s + 1 :]]
            rest = data.solved[s] - _times(stage, solved.solved, later, data.tail_blups)
            k = stage.factor
            scores[k] = sum_over_rows(solved.projected, rest)
            blups[k] = np.einsum("ab,bcm->acm", elimination.covariances[k], scores[k])
        return scores, blups

    def _information(self, elimination: Elimination) -> list[FloatArray]:
        """``sum_i Z_i'V^-1 Z_i`` of every factor, shapes (q, q)."""
        reduced, tail = self._reduced, elimination.tail
        found: list[FloatArray] = [np.empty(0)] * len(reduced.plan.shapes)
        for k, own in zip(reduced.plan.tail, tail.information(), strict=True):
            found[k] = own
        form = tail.covariance_rows
        links = self._links(elimination, with_first=False)
        for s, (stage, solved, link) in enumerate(
            zip(reduced.stages, elimination.stages, links, strict=True)
        ):
            own = np.einsum("ram,rbm->ab", solved.projected, solved.projected)
            if stage.n_above:
                spread = sum_over_rows(link.above.transpose(1, 0, 2), link.covariance_above)
                own -= np.einsum("acm,bcm->ab", spread, link.above)
            if reduced.plan.n_tail:
                if s == 0:
                    coefficients = sum_over_rows(solved.projected, solved.inverse)
                    own -= reduced.tail_rows.forms(coefficients, form)
                else:
                    own -= forms_of_rows(stage.pattern, link.tails, form)
                own -= forms_through_chain(reduced, links, s, form)
            found[stage.factor] = (own + own.T) / 2.0
        return found

    def _links(self, elimination: Elimination, *, with_first: bool) -> list[Link]:
        return link_stages(
            self._reduced,
            [stage.projected for stage in elimination.stages],
            [stage.solved.above for stage in elimination.stages],
            [stage.solved.tails for stage in elimination.stages],
            elimination.covariances,
            with_first=with_first,
        )

    def _average_information(
        self, elimination: Elimination, effects: Sequence[FloatArray], fixed: FixedEffects
    ) -> FloatArray:
        """``w'P w / s2`` for the columns ``w = Z_k e_a e_b'u_k``, shape (sum q_k^2, sum q_k^2)."""
        p = self.likelihood.n_fixed
        columns, products = self._turned_columns(effects)
        both = self._reduced.data.beside(columns, products)
        cross = self._eliminate_data(elimination, both).cross
        projection = fixed.inverse_root.T @ cross[:p, p + 1 :]
        return (cross[p + 1 :, p + 1 :] - projection.T @ projection) / fixed.noise_variance

    def _turned_columns(self, effects: Sequence[FloatArray]) -> tuple[DataProducts, FloatArray]:
        """The columns ``Z_k e_a e_b'u_k`` as further data, and their products with X and y."""
        reduced = self._reduced
        outside, data = reduced.effects, reduced.data
        n_columns = sum(len(effect) ** 2 for effect in effects)
        turned, column = [], 0
        for effect in effects:
            q, m = effect.shape
            own = np.zeros((q, n_columns, m))
            for a in range(q):
                own[a, column : column + q] = effect
                column += q
            turned.append(own)
        tail = np.concatenate(
            [
                np.empty((0, n_columns)),
                *(turned[k].transpose(0, 2, 1).reshape(-1, n_columns) for k in reduced.plan.tail),
            ]
        )
        chain = [turned[k] for k in reduced.plan.chain]

        first = reduced.stages[0]
        q = first.n_effects
        spans = Spans(reduced.columns[:, q:], reduced.tail_rows.rows)
        rows = _times(first, spans, chain[1:], tail)
        rows += sum_over_rows(reduced.columns[:, :q].transpose(1, 0, 2), chain[0])
        blocks = [np.empty((0, 0, 0))]
        upper = reduced.tail_products
        tail_products = upper @ tail + upper.T @ tail - upper.diagonal()[:, None] * tail
        if tail.size:
            # Outside the bases of stage 0, as all other products here.
            for values in reduced.tail_rows.rows:
                matrix = first.pattern.matrix(values)
                tail_products -= matrix.T @ (matrix @ tail)
        for s, stage in enumerate(reduced.stages[1:], start=1):
            q, block = stage.n_effects, outside.blocks[s]
            own = _times(stage, Spans(block[:, q:], outside.tails[s]), chain[s + 1 :], tail)
            blocks.append(own + sum_over_rows(block[:, :q], chain[s]))
            for values, coordinates in zip(outside.tails[s], chain[s], strict=True):
                tail_products += stage.pattern.matrix(values).T @ coordinates.T
        for s, stage in enumerate(reduced.stages[1:], start=1):
            for later, offset in enumerate(stage.offsets):
                q, outer = stage.n_effects, s + 1 + later
                part = outside.blocks[s][:, q + offset.start : q + offset.stop]
                products = sum_over_rows(part, chain[s])
                n_levels = reduced.stages[outer].n_levels
                blocks[outer] += sum_by_level(products, stage.ancestors[later], n_levels)
        gram = tail.T @ tail_products
        with_data = data.tail.T @ tail
        for own, block, coordinates in zip(data.blocks[1:], blocks[1:], chain[1:], strict=True):
            gram += np.einsum("acm,adm->cd", block, coordinates)
            with_data += np.einsum("apm,acm->pc", own, coordinates)
        return DataProducts(rows, blocks, tail_products, gram), with_data


def _times(stage: Stage, rows: Spans, later: Sequence[FloatArray], tail: FloatArray) -> FloatArray:
    """Rows of a stage times coordinates in the later stages (q, c, m) and in the tail (T, c)."""
    result = np.zeros((len(rows.above), tail.shape[1], stage.n_levels))
    if later:
        above = [own[:, :, code] for own, code in zip(later, stage.ancestors, strict=True)]
        result += sum_over_rows(rows.above.transpose(1, 0, 2), np.concatenate(above))
    if tail.size:
        for row, values in zip(result, rows.tails, strict=True):
            row += (stage.pattern.matrix(values) @ tail).T
    return result


def _lost_rows(columns: FloatArray, root: FloatArray) -> FloatArray:
    """Rows whose squares are ``I - (L_i L_i')^-1``, shape (q, r, m), for U_i of shape (r, q, m).

    By ``I - (I + B B')^-1 = B (I + B'B)^-1 B'`` with ``B = U_i Lambda``.
    """
    spread = np.matmul(root.T, columns)
    q = len(root)
    square = sum_over_rows(spread, spread)
    square[np.arange(q), np.arange(q)] += 1.0
    part = np.concatenate([square, spread.transpose(1, 0, 2)], axis=1)
    factorise(part)
    return part[:, q:]


def _solve_stage(
    stage: Stage,
    root: FloatArray,
    columns: FloatArray,
    to_rows: FloatArray | None,
    spans: Spans,
) -> SolvedStage:
    r, width, n_levels = columns.shape
    rows = np.zeros((r, width + r, n_levels))
    rows[:, :width] = columns
    rows[np.arange(r), width + np.arange(r)] = 1.0
    solved, pivots = solve_levels(rows, root)
    q, inverse = stage.n_effects, solved[:, width:]
    return SolvedStage(
        to_rows=to_rows,
        spans=spans,
        inverse=inverse,
        projected=solved[:, :q],
        solved=Spans(solved[:, q:width], stage.pattern.spread(inverse, spans.tails)),
        log_det=2.0 * float(np.log(pivots).sum()),
    )
