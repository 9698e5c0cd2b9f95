"""One grouping factor: the likelihood as a sum over levels.

Notation
--------
With U_i, R_i and W of `levels`, and ``L_i L_i' = I + U_i D U_i'``,

    log|V_i| = log|L_i L_i'|,      K_i = L_i^-1 R_i,      P_i = L_i^-1 U_i
    [X y]'V^-1[X y] = W + sum_i K_i'K_i
    M_i = Z_i'V_i^-1 Z_i = P_i'P_i,    N_i = Z_i'V_i^-1 X_i = P_i'K_i
    u_i = Z_i'V_i^-1 (y_i - X_i beta)

Every term is a sum of squares: nothing cancels, however large D is. (The same quantities written
with ``A_i - A_i Lambda S_i^-1 Lambda'A_i`` lose as many digits as D gains.) With
``B_i = N_i H^-1 N_i'`` (zero for ML), the gradient of the objective by D is

    G = sum_i (M_i - B_i - u_i u_i'/s2)

and its Hessian in directions E, F (Lindstrom & Bates 1988, section 3, for the profiled likelihood)

      sum_i tr(E M_i F (2 u_i u_i'/s2 + 2 B_i - M_i)) - (2/s2) c_E'H^-1 c_F - g_E g_F / df
      - tr(H^-1 T_E H^-1 T_F)                                                        (REML only)
    c_E = sum_i N_i'E u_i,    g_E = sum_i u_i'E u_i / s2,    T_E = sum_i N_i'E N_i
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.components import VarianceComponents, theta_gradient, theta_hessian
from mixedlearn.covariance.structures import Structure
from mixedlearn.engines.levels import (
    LevelMoments,
    LevelPosterior,
    coef_within,
    compress,
    conditional_means,
    conditional_moments,
    level_blocks,
    solve_levels,
    sum_over_rows,
    within_residual,
)
from mixedlearn.engines.likelihood import NO_RESIDUAL, ProfiledLikelihood
from mixedlearn.engines.protocol import Curvature, Evaluation, FixedEffects, worthless_evaluation

FloatArray = NDArray[np.float64]


class OneFactorEngine:
    """The likelihood with one grouping factor.

    Parameters
    ----------
    moments : LevelMoments
    structure : Structure
        Structure of D in the engine's columns.
    likelihood : ProfiledLikelihood
    """

    has_exact_hessian = True

    def __init__(
        self,
        moments: LevelMoments,
        structure: Structure,
        likelihood: ProfiledLikelihood,
    ):
        self.components = VarianceComponents((structure,))
        self.n_levels: tuple[int, ...] = (moments.rows.shape[2],)
        self.likelihood = likelihood
        square, df = within_residual(moments, likelihood.n_rows)
        self.within_variance = square / df if df > 0 else 0.0
        self._levels = moments
        self._moments = compress(moments)
        self.size = self._moments.rows.size
        self._structure = structure

    def start(self) -> tuple[FloatArray, ...]:
        """D by the method of moments, from the residuals of ordinary least squares."""
        return (self._moments_of(np.zeros(self.likelihood.n_fixed)),)

    def start_from_within(self) -> tuple[FloatArray, ...]:
        """D by the method of moments, from the residuals of the regression within levels.

        What a huge D would give: where the regressions within and between levels disagree, the
        likelihood may have one optimum near each.
        """
        return (self._moments_of(coef_within(self._moments.within)),)

    def _moments_of(self, coef: FloatArray) -> FloatArray:
        """D from the residuals at some beta.

        With ``A_i = U_i'U_i`` and ``v_i = U_i'e_i``, e_i the residuals, ``E v_i v_i' = s2 (A_i +
        A_i D A_i)`` but for the estimation of beta: linear in D.
        """
        q = self._moments.n_effects
        if q == 0:
            return np.zeros((0, 0))
        root = self._moments.rows[:, :q]
        residual = self._moments.rows[:, -1] - np.matmul(coef, self._moments.rows[:, q:-1])
        multiplicity = self._moments.multiplicity
        square = np.einsum("kim,kjm->ijm", root, root)
        moment = np.einsum("kim,km->im", root, residual)
        system = np.einsum("abm,cdm->adbc", square * multiplicity, square).reshape(q * q, q * q)
        # Where the levels use up all rows, the total variance, one, has to do.
        noise = max(self.within_variance, NO_RESIDUAL) if self.within_variance > 0.0 else 1.0
        excess = moment @ moment.T / noise - (square * multiplicity).sum(axis=2)
        solution = np.linalg.lstsq(system, excess.ravel(), rcond=1e-8)[0].reshape(q, q)
        return self._structure.project(solution, floor=0.01)

    def evaluate(self, theta: FloatArray, order: int) -> Evaluation:
        """Objective, gradient and Hessian at theta; see the module's head for the formulas."""
        (factor,) = self.components.roots(theta)
        likelihood = self.likelihood
        solved, cross, log_det = self._solve(factor)
        try:
            fixed = likelihood.least_squares(cross)
        except np.linalg.LinAlgError:
            # D so large that X'V^-1 X is singular to rounding: no point to stay at.
            return worthless_evaluation(theta, likelihood.n_fixed, self.components)
        objective = likelihood.objective(log_det, fixed)
        largest = np.square(factor).max(initial=0.0)
        rounding = likelihood.rounding(objective, fixed, largest)
        nothing = np.empty(0)
        if order == 0:
            return Evaluation(theta, objective, nothing, nothing, (), fixed, rounding)
        sums = self._derivative_sums(solved, fixed, order)
        arguments = (self.components.directions(theta), (factor,), (sums.gradient,))
        gradient = theta_gradient(*arguments)
        found = Evaluation(theta, objective, gradient, nothing, (sums.gradient,), fixed, rounding)
        if order == 1:
            return found
        curvature = self._curvature(sums, fixed.noise_variance)
        curvatures = self.components.curvatures(theta)
        hessian = theta_hessian(*arguments, curvature.objective, curvatures)
        return replace(found, hessian=hessian, curvature=curvature)

    def random_effects(
        self, factors: Sequence[FloatArray], fixed: FixedEffects
    ) -> tuple[FloatArray, ...]:
        """BLUPs of the engine's random effects, shape (q, m)."""
        return (conditional_means(self._levels, factors[0], fixed),)

    def posterior(self, factors: Sequence[FloatArray]) -> LevelPosterior:
        """Distribution of the random effects given the response."""
        return conditional_moments(self._levels, factors[0])

    def _solve(self, factor: FloatArray) -> tuple[list[FloatArray], FloatArray, float]:
        """``[P_i, K_i]`` block by block, ``[X y]'V^-1[X y]`` and log|V|."""
        q = self._moments.n_effects
        cross = self._moments.within.copy()
        log_det = 0.0
        blocks = []
        for block in level_blocks(self._moments.rows):
            solved, pivots = solve_levels(self._moments.rows[:, :, block], factor)
            for j in range(len(solved)):
                cross += solved[j, q:] @ solved[j, q:].T
                log_det += 2.0 * float(np.log(pivots[j]) @ self._moments.multiplicity[block])
            blocks.append(solved)
        return blocks, cross, log_det

    def _derivative_sums(
        self, blocks: list[FloatArray], fixed: FixedEffects, order: int
    ) -> _DerivativeSums:
        q, p = self._moments.n_effects, self.likelihood.n_fixed
        s2 = fixed.noise_variance
        information, scores = np.zeros((q, q)), np.zeros((q, q))
        fourth, score_fourth = np.zeros((q * q, q * q)), np.zeros((q * q, q * q))
        mixed_scores, leverages = np.zeros((q * p, q)), np.zeros((q * p, q * p))
        for block, solved in zip(level_blocks(self._moments.rows), blocks, strict=True):
            root = solved[:, :q]  # P_i
            multiplicity = self._moments.multiplicity[block]
            residual = solved[:, -1] - np.matmul(fixed.coef, solved[:, q:-1])
            u = sum_over_rows(root, residual[:, None])[:, 0]
            square = sum_over_rows(root, root)  # M_i
            scores += u @ u.T / s2
            information += square @ multiplicity
            # N_i times a root of H^-1
            mixed = sum_over_rows(root, np.matmul(fixed.inverse_root.T, solved[:, q:-1]))
            flat = mixed.reshape(q * p, mixed.shape[2])
            mixed_scores += flat @ u.T
            if self.likelihood.reml:
                leverages += flat @ flat.T
            if order == 2:
                weight = -multiplicity * square
                if self.likelihood.reml:
                    _add_leverages(weight, mixed)
                flat_square = square.reshape(q * q, -1)
                fourth += flat_square @ weight.reshape(q * q, -1).T
                score_fourth += flat_square @ (u[:, None] * u).reshape(q * q, -1).T
        products = leverages.reshape(q, p, q, p)
        gradient = information - scores - np.einsum("apbp->ab", products)
        spread = mixed_scores.reshape(q, p, q)
        return _DerivativeSums(gradient, scores, fourth, score_fourth, spread, products)

    def _curvature(self, sums: _DerivativeSums, s2: float) -> Curvature:
        """Second derivatives by the entries of D."""
        q, p = self._moments.n_effects, self.likelihood.n_fixed
        c = sums.mixed_scores.transpose(0, 2, 1).reshape(q * q, p)
        residual = (2.0 / s2) * (_as_form(sums.score_fourth, q) - c @ c.T)
        g = sums.scores.ravel()
        second = _as_form(sums.fourth, q) + residual - np.outer(g, g) / self.likelihood.df
        if self.likelihood.reml:
            t = sums.leverages.transpose(0, 2, 1, 3).reshape(q * q, p * p)
            second -= t @ t.T
        return Curvature(second, (-sums.scores,), residual)


@dataclass(frozen=True, slots=True)
class _DerivativeSums:
    """Sums over levels that give the gradient and the Hessian.

    ``gradient`` is G (q, q); ``scores`` sum u_i u_i'/s2 (q, q); ``fourth`` sum M_i (x)
    (2 B_i - M_i) and ``score_fourth`` sum M_i (x) u_i u_i' (q q, q q); ``mixed_scores`` sum N_i u_i
    (q, p, q) and ``leverages`` sum N_i (x) N_i (q, p, q, p), both with N_i times a root of H^-1.
    """

    gradient: FloatArray
    scores: FloatArray
    fourth: FloatArray
    score_fourth: FloatArray
    mixed_scores: FloatArray
    leverages: FloatArray


def _as_form(fourth: FloatArray, q: int) -> FloatArray:
    """``sum A_i (x) B_i`` as the form ``sum tr(E A_i F B_i)`` in E and F."""
    return fourth.reshape(q, q, q, q).transpose(3, 0, 1, 2).reshape(q * q, q * q)


def _add_leverages(weight: FloatArray, mixed: FloatArray) -> None:
    """Add 2 B_i to the weights of the Hessian, in place."""
    for a in range(len(mixed)):
        for b in range(a, len(mixed)):
            leverage = 2.0 * np.einsum("pm,pm->m", mixed[a], mixed[b])
            weight[a, b] += leverage
            if b > a:
                weight[b, a] += leverage
