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

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance import CovarianceStructure
from mixedlearn.engines.levels import (
    LevelMoments,
    compress,
    level_blocks,
    solve_levels,
    sum_over_rows,
    within_residual,
)
from mixedlearn.engines.protocol import Evaluation, FixedEffects, worthless_evaluation

FloatArray = NDArray[np.float64]

# A residual sum of squares below this share of that of ordinary least squares is rounding error.
NO_RESIDUAL = 1e-13
# The objective is a sum of many terms, of which rounding error leaves this much undetermined.
ROUNDING = 1e-14


class OneFactorEngine:
    """The likelihood with one grouping factor.

    Parameters
    ----------
    moments : LevelMoments
    structure : CovarianceStructure
        Structure of D in the engine's columns.
    reml : bool
        Restricted likelihood or likelihood.
    n_rows : int
        Number of rows.
    constant : float
        What the objective in the user's units has more than in the engine's columns.
    """

    def __init__(
        self,
        moments: LevelMoments,
        structure: CovarianceStructure,
        *,
        reml: bool,
        n_rows: int,
        constant: float,
    ):
        self.structure = structure
        self.n_levels = moments.rows.shape[2]
        self.reml = reml
        self.n_fixed = len(moments.within) - 1
        self.df = n_rows - self.n_fixed if reml else n_rows
        self.constant = constant
        # Sum of squares of the response: a unit for each degree of freedom.
        self._total = n_rows - self.n_fixed
        square, df = within_residual(moments, n_rows)
        self.within_variance = square / df if df > 0 else 0.0
        self._moments = compress(moments)
        self.size = self._moments.rows.size
        self._directions = structure.directions()

    def start(self) -> FloatArray:
        """D by the method of moments, from the residuals of ordinary least squares."""
        return self._moments_of(np.zeros(self.n_fixed))

    def start_from_within(self) -> FloatArray:
        """D by the method of moments, from the residuals of the regression within levels.

        What a huge D would give: where the regressions within and between levels disagree, the
        likelihood may have one optimum near each.
        """
        within = self._moments.within
        varies = np.diag(within)[:-1] > 0.0
        coef = np.zeros(self.n_fixed)
        coef[varies] = within[:-1, -1][varies] / np.diag(within)[:-1][varies]
        return self._moments_of(coef)

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
        return self.structure.project(solution, floor=0.01)

    def evaluate(self, theta: FloatArray, order: int) -> Evaluation:
        """Objective, gradient and Hessian at theta; see the module's head for the formulas."""
        factor = self.structure.lambda_from_theta(theta)
        solved, cross, log_det = self._solve(factor)
        try:
            fixed = self._least_squares(cross)
        except np.linalg.LinAlgError:
            # D so large that X'V^-1 X is singular to rounding: no point to stay at.
            return worthless_evaluation(theta, self.n_fixed, self.structure.n_effects)
        s2 = fixed.noise_variance
        objective = self.constant + log_det + self.df * (1.0 + np.log(2.0 * np.pi * s2))
        if self.reml:
            objective -= 2.0 * np.log(np.diag(fixed.inverse_root)).sum()
        # The residual sum of squares is a difference of sums that are as large as the total, and a
        # large D separates columns by as many digits as it has itself.
        rounding = ROUNDING * (abs(objective) + self._total / s2)
        rounding += 4.0 * np.finfo(float).eps * np.square(factor).max(initial=0.0)
        nothing = np.empty(0)
        if order == 0:
            return Evaluation(theta, float(objective), nothing, nothing, nothing, fixed, rounding)
        sums = self._derivative_sums(solved, fixed, order)
        by_lambda = 2.0 * sums.gradient @ factor
        gradient = np.einsum("aij,ij->a", self._directions, by_lambda)
        hessian = self._hessian(factor, sums, s2) if order == 2 else nothing
        return Evaluation(
            theta, float(objective), gradient, hessian, sums.gradient, fixed, rounding
        )

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

    def _least_squares(self, cross: FloatArray) -> FixedEffects:
        p = self.n_fixed
        root = np.linalg.cholesky(cross[:p, :p])
        inverse_root = np.linalg.inv(root).T
        projection = inverse_root.T @ cross[:p, p]
        residual = float(cross[p, p] - projection @ projection)
        if not residual > NO_RESIDUAL * self._total:
            raise np.linalg.LinAlgError("the residual sum of squares is lost in rounding")
        return FixedEffects(inverse_root @ projection, inverse_root, residual / self.df)

    def _derivative_sums(
        self, blocks: list[FloatArray], fixed: FixedEffects, order: int
    ) -> _DerivativeSums:
        q, p = self._moments.n_effects, self.n_fixed
        s2 = fixed.noise_variance
        information, scores = np.zeros((q, q)), np.zeros((q, q))
        fourth = np.zeros((q * q, q * q))
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
            if self.reml:
                leverages += flat @ flat.T
            if order == 2:
                weight = (2.0 / s2) * u[:, None] * u - multiplicity * square
                if self.reml:
                    _add_leverages(weight, mixed)
                fourth += square.reshape(q * q, -1) @ weight.reshape(q * q, -1).T
        products = leverages.reshape(q, p, q, p)
        gradient = information - scores - np.einsum("apbp->ab", products)
        return _DerivativeSums(gradient, scores, fourth, mixed_scores.reshape(q, p, q), products)

    def _hessian(self, factor: FloatArray, sums: _DerivativeSums, s2: float) -> FloatArray:
        q, n_parameters = self._moments.n_effects, len(self._directions)
        change = self._directions @ factor.T
        change = change + change.transpose(0, 2, 1)  # derivatives of D, (n_parameters, q, q)
        flat = change.reshape(n_parameters, q * q)
        fourth = sums.fourth.reshape(q, q, q, q).transpose(3, 0, 1, 2).reshape(q * q, q * q)
        hessian = flat @ fourth @ flat.T
        c = np.einsum("eab,apb->ep", change, sums.mixed_scores)
        g = flat @ sums.scores.ravel()
        hessian -= (2.0 / s2) * (c @ c.T) + np.outer(g, g) / self.df
        if self.reml:
            t = np.tensordot(change, sums.leverages, ((1, 2), (0, 2)))
            t = t.reshape(n_parameters, self.n_fixed**2)
            hessian -= t @ t.T
        curvature = (sums.gradient @ self._directions).reshape(n_parameters, q * q)
        hessian += 2.0 * curvature @ self._directions.reshape(n_parameters, q * q).T
        return (hessian + hessian.T) / 2.0


@dataclass(frozen=True, slots=True)
class _DerivativeSums:
    """Sums over levels that give the gradient and the Hessian.

    ``gradient`` is G (q, q); ``scores`` sum u_i u_i'/s2 (q, q); ``fourth`` sum M_i (x)
    (2 u_i u_i'/s2 + 2 B_i - M_i) (q q, q q); ``mixed_scores`` sum N_i u_i (q, p, q) and
    ``leverages`` sum N_i (x) N_i (q, p, q, p), both with N_i times a root of H^-1.
    """

    gradient: FloatArray
    scores: FloatArray
    fourth: FloatArray
    mixed_scores: FloatArray
    leverages: FloatArray


def _add_leverages(weight: FloatArray, mixed: FloatArray) -> None:
    """Add 2 B_i to the weights of the Hessian, in place."""
    for a in range(len(mixed)):
        for b in range(a, len(mixed)):
            leverage = 2.0 * np.einsum("pm,pm->m", mixed[a], mixed[b])
            weight[a, b] += leverage
            if b > a:
                weight[b, a] += leverage
