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

Several responses that share Z are evaluated at once, each at a Lambda of its own: arrays have their
axis, ``...``, before the columns, and the levels last, so that Python's share of an evaluation is
divided by their number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.components import VarianceComponents
from mixedlearn.covariance.structures import Structure
from mixedlearn.engines.levels import (
    LevelMoments,
    LevelPosterior,
    compress,
    conditional_means,
    conditional_moments,
    level_blocks,
    solve_levels,
    sum_over_rows,
    within_variance,
)
from mixedlearn.engines.likelihood import NO_RESIDUAL, ProfiledLikelihood
from mixedlearn.engines.plan import Block, Plan
from mixedlearn.engines.profiled import ProfiledEngine, Solution
from mixedlearn.engines.protocol import Curvature, FixedEffects

FloatArray = NDArray[np.float64]


def plan_one_factor(shapes: Sequence[tuple[int, int]]) -> Plan:
    """The plan for at most one factor of so many effects and levels: blocks of a level each."""
    blocks = tuple(Block(k, m, q, is_dense=False) for k, (q, m) in enumerate(shapes))
    return Plan("one_factor", blocks, is_exact=OneFactorEngine.has_exact_hessian)


class OneFactorEngine(ProfiledEngine):
    """The likelihood with one grouping factor.

    Of several responses `evaluate` alone can be asked, with a row of theta for each.

    Parameters
    ----------
    moments : LevelMoments
    structure : Structure
        Structure of D in the engine's columns.
    likelihood : ProfiledLikelihood
        Its constant an array, of several responses.
    """

    def __init__(
        self,
        moments: LevelMoments,
        structure: Structure,
        likelihood: ProfiledLikelihood,
    ):
        self._levels = moments
        self._moments = compress(moments)
        # Without levels there is one block of none.
        self._blocks = list(level_blocks(self._moments.rows)) or [slice(0)]
        r, *_, n_columns, n_levels = self._moments.rows.shape
        super().__init__(
            VarianceComponents((structure,)),
            (moments.rows.shape[-1],),
            likelihood,
            self._moments.within,
            within_variance(moments, likelihood.n_rows),
            r * n_columns * n_levels,
        )

    def _moments_of(self, coef: FloatArray) -> tuple[FloatArray, ...]:
        """D from the residuals at some beta.

        With ``A_i = U_i'U_i`` and ``v_i = U_i'e_i``, e_i the residuals, ``E v_i v_i' = s2 (A_i +
        A_i D A_i)`` but for the estimation of beta: linear in D.
        """
        q = self._moments.n_effects
        if q == 0:
            return (np.zeros((0, 0)),)
        root = self._moments.rows[:, :q]
        residual = self._moments.rows[:, -1] - np.matmul(coef, self._moments.rows[:, q:-1])
        square = sum_over_rows(root, root)
        moment = sum_over_rows(root, residual[:, None])[:, 0]
        flat = square.reshape(q * q, -1)
        weighted = flat * self._moments.multiplicity
        system = (weighted @ flat.T).reshape(q, q, q, q).transpose(0, 3, 1, 2)
        # Where the levels use up all rows, the total variance, one, has to do.
        noise = max(self.within_variance, NO_RESIDUAL) if self.within_variance > 0.0 else 1.0
        excess = (moment @ moment.T / noise).ravel() - weighted.sum(axis=1)
        solution = np.linalg.lstsq(system.reshape(q * q, q * q), excess, rcond=1e-8)[0]
        return (self.components.structures[0].project(solution.reshape(q, q), floor=0.01),)

    def random_effects(
        self, roots: Sequence[FloatArray], fixed: FixedEffects
    ) -> tuple[FloatArray, ...]:
        """BLUPs of the engine's random effects, shape (q, m)."""
        return (conditional_means(self._levels, roots[0], fixed),)

    def posterior(self, roots: Sequence[FloatArray]) -> LevelPosterior:
        """Distribution of the random effects given the response."""
        return conditional_moments(self._levels, roots[0])

    def _solve(self, roots: tuple[FloatArray, ...]) -> Solution:
        """The details are ``[P_i, K_i]``, shape (r, ..., q + p + 1, m), block by block."""
        rows, multiplicity = self._moments.rows, self._moments.multiplicity
        q = self._moments.n_effects
        cross, log_det = self._moments.within, 0.0
        blocks = []
        for block in self._blocks:
            solved, pivots = solve_levels(rows[..., block], roots[0])
            data = solved[..., q:, :]
            cross = cross + (data @ data.swapaxes(-1, -2)).sum(axis=0)
            log_det = log_det + 2.0 * (np.log(pivots) @ multiplicity[block]).sum(axis=0)
            blocks.append(solved)
        return Solution(log_det, cross, blocks)

    def _derivatives(
        self, details: list[FloatArray], fixed: FixedEffects, order: int
    ) -> tuple[tuple[FloatArray, ...], Curvature | None]:
        likelihood = self.likelihood
        q, p = self._moments.n_effects, likelihood.n_fixed
        turn = _to_residuals(fixed)
        found = [
            _level_sums(solved, turn, self._moments.multiplicity[block], likelihood.reml, order)
            for block, solved in zip(self._blocks, details, strict=True)
        ]
        sums = found[0] if len(found) == 1 else _LevelSums.total(found)
        lead = sums.information.shape[:-2]
        s2 = np.asarray(fixed.noise_variance)[..., None, None]
        products = sums.products.reshape(*lead, q, p + 1, q, p + 1 if likelihood.reml else 1)
        scores = products[..., p, :, -1] / s2
        gradient = sums.information - scores
        leverages = products[..., :p, :, :-1]
        if likelihood.reml:
            gradient -= np.einsum("...apbp->...ab", leverages)
        if order < 2:
            return (gradient,), None
        c = products[..., :p, :, -1].swapaxes(-1, -2).reshape(*lead, q * q, p)
        residual = (2.0 / s2) * (_as_form(sums.score_fourth) - c @ c.swapaxes(-1, -2))
        g = scores.reshape(*lead, q * q)
        second = _as_form(sums.fourth) + residual
        second -= g[..., :, None] * g[..., None, :] / likelihood.df
        if likelihood.reml:
            t = leverages.swapaxes(-3, -2).reshape(*lead, q * q, p * p)
            second -= t @ t.swapaxes(-1, -2)
        return (gradient,), Curvature(second, (-scores,), residual)


@dataclass(frozen=True, slots=True)
class _LevelSums:
    """Sums over levels that give the gradient and the Hessian.

    Attributes
    ----------
    information : ndarray of shape (..., q, q)
        ``sum M_i``.
    products : ndarray of shape (..., q (p + 1), q w)
        ``sum [N_i, u_i] (x) [N_i, u_i]`` for REML (w = p + 1), ``sum [N_i, u_i] (x) u_i`` for ML
        (w = 1), with N_i times a root of H^-1.
    fourth, score_fourth : ndarray of shape (..., q q, q q)
        ``sum M_i (x) (2 B_i - M_i)`` and ``sum M_i (x) u_i u_i'``; empty below order 2.
    """

    information: FloatArray
    products: FloatArray
    fourth: FloatArray
    score_fourth: FloatArray

    @classmethod
    def total(cls, parts: Sequence[_LevelSums]) -> _LevelSums:
        """The sums over all blocks of levels."""
        return cls(
            reduce(add, [part.information for part in parts]),
            reduce(add, [part.products for part in parts]),
            reduce(add, [part.fourth for part in parts]),
            reduce(add, [part.score_fourth for part in parts]),
        )


def _to_residuals(fixed: FixedEffects) -> FloatArray:
    """What turns [X y] into X times the root of H^-1 and the residual, (..., p + 1, p + 1)."""
    p = fixed.coef.shape[-1]
    turn = np.zeros((*fixed.coef.shape[:-1], p + 1, p + 1))
    turn[..., :p, :p] = fixed.inverse_root.swapaxes(-1, -2)
    turn[..., p, :p] = -fixed.coef
    turn[..., p, p] = 1.0
    return turn


def _level_sums(
    solved: FloatArray, turn: FloatArray, multiplicity: FloatArray, reml: bool, order: int
) -> _LevelSums:
    """The sums over some levels, from ``[P_i, K_i]`` of shape (r, ..., q + p + 1, m)."""
    p, n_levels = turn.shape[-1] - 1, solved.shape[-1]
    q = solved.shape[-2] - p - 1
    lead = turn.shape[:-2]
    root = solved[..., :q, :]
    square = sum_over_rows(root, root)  # M_i
    mixed = sum_over_rows(root, turn @ solved[..., q:, :])  # [N_i root, u_i]
    u = mixed[..., p, :]
    flat = mixed.reshape(*lead, q * (p + 1), n_levels)
    products = flat @ (flat if reml else u).swapaxes(-1, -2)
    information = square @ multiplicity
    if order < 2:
        return _LevelSums(information, products, np.empty(0), np.empty(0))
    weight = -multiplicity * square
    if reml:
        fixed = mixed[..., :p, :]
        weight += 2.0 * np.einsum("...apm,...bpm->...abm", fixed, fixed)
    shape = (*lead, q * q, n_levels)
    flat_square = square.reshape(shape)
    scores = u[..., :, None, :] * u[..., None, :, :]
    return _LevelSums(
        information,
        products,
        flat_square @ weight.reshape(shape).swapaxes(-1, -2),
        flat_square @ scores.reshape(shape).swapaxes(-1, -2),
    )


def _as_form(fourth: FloatArray) -> FloatArray:
    """``sum A_i (x) B_i`` as the form ``sum tr(E A_i F B_i)`` in E and F, (..., q q, q q)."""
    *lead, size, _ = fourth.shape
    q, n = math.isqrt(size), len(lead)
    axes = (*range(n), n + 3, n, n + 1, n + 2)
    return fourth.reshape(*lead, q, q, q, q).transpose(axes).reshape(fourth.shape)
