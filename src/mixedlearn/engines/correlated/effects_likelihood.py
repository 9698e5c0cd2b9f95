"""The likelihood of random effects beside noise of any covariance, and its exact derivatives.

Notation
--------
With P the inverse of the noise covariance R of all rows, Z the random columns and W = [X y], every
row of one level: ``V = s2 (R + Z D Z')`` and for every level

    F = Z'P Z,   E = Z'P W,   H = Lambda (I + Lambda'F Lambda)^-1 Lambda',   J = [-H E; I]
    S = s2 W'V^-1 W = W'P W - sum E'H E
    log|V| = n log s2 + log|R| + sum log|I + Lambda'F Lambda|

Derivatives by a parameter a of the noise, with P_a that of P, F_a and E_a those of F and E, and
``R_a = E_a - F_a H E``,

    S_a = J'[Z W]'P_a [Z W] J,            S_ab = J'[Z W]'P_ab [Z W] J - 2 R_a'H R_b
    log|M|_a = tr H F_a,                  log|M|_ab = tr H F_ab - tr H F_a H F_b

and by a direction D_d of D, with ``r = E - F H E``, ``Phi = F - F H F``, ``G = I - H F``,

    S_d = -r'D_d r,                       S_de = 2 sym r'D_d Phi D_e r - r'D_de r
    log|M|_d = tr D_d Phi,                log|M|_de = tr D_de Phi - tr D_d Phi D_e Phi
    S_da = -2 sym r'D_d G'R_a,            log|M|_da = tr D_d G'F_a G

(Wolfinger, Tobias & Sall 1994 for independent noise.) Where the effects are much larger than the
noise, S is a small difference of large numbers. So the rows are kept as ``W - Z B``, B a regression
on the columns of every level, which any B leaves as exact: with E of these,

    S = W'P W - sum E'H E + sum [B'G'E + E'G B + B'F G B],    J = [G B - H E; I]

The columns of W are turned so that those of X are orthonormal in the metric of V and the last is
the residual: as in `likelihood`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from mixedlearn.covariance.algebra import cholesky, inverse_of_lower, pseudo_inverse
from mixedlearn.covariance.components import theta_hessian
from mixedlearn.engines.correlated.covariance import Parameters, Point
from mixedlearn.engines.correlated.effects import (
    Derivatives,
    NoiseSide,
    NoiseSlope,
    NoiseState,
    Products,
    Solved,
    add_pairs,
    contracted,
    trace,
)
from mixedlearn.engines.correlated.likelihood import BlockEvaluation, coefficient_turn
from mixedlearn.engines.levels import sum_over_rows

FloatArray = NDArray[np.float64]

_NOTHING = np.empty(0)


class EffectsLikelihood:
    """The likelihood of rows of one level each; see `BlockLikelihood`, which takes any.

    Parameters
    ----------
    side : NoiseSide
    parameters : Parameters
    factors : sequence of int
        Those whose effects are the levels'; the noise has the effects of others.
    n_rows : int
    reml : bool
    constant : float
        What the objective has besides, of the units of X and y.
    """

    def __init__(
        self,
        side: NoiseSide,
        parameters: Parameters,
        factors: Sequence[int],
        n_rows: int,
        reml: bool,
        constant: float,
    ):
        self.side = side
        self.parameters = parameters
        self.factors = tuple(factors)
        self.n_rows = n_rows
        self.n_fixed = side.rows.w.shape[1] - 1
        self.reml = reml
        self.df = n_rows - self.n_fixed if reml else n_rows
        self.constant = constant

    @cached_property
    def _pooled(self) -> NoiseSide:
        return self.side.pooled()

    def with_parameters(self, parameters: Parameters) -> EffectsLikelihood:
        """The same rows with other parameters."""
        return self._with(self.side, parameters)

    def turned(self, turn: FloatArray) -> EffectsLikelihood:
        """The likelihood with other columns of X and y, ``[X y] @ turn``."""
        return self._with(self.side.turned(turn), self.parameters)

    def _with(self, side: NoiseSide, parameters: Parameters) -> EffectsLikelihood:
        own = self.factors, self.n_rows, self.reml, self.constant
        return EffectsLikelihood(side, parameters, *own)

    def _moves(self, point: Point) -> dict[int, FloatArray]:
        """Directions of D among the effects of all factors by level, (q, q), by their places."""
        moves, places = self.parameters.moves(point.theta), self.parameters.of_factors
        chosen = np.concatenate([np.empty(0, int), *(places[k] for k in self.factors)])
        found = _placed([moves[k] for k in self.factors])
        return dict(zip(chosen.tolist(), found, strict=True))

    def evaluate(self, point: Point, order: int) -> BlockEvaluation:
        """Objective, gradient and Hessian; orders 0 and 2."""
        p = self.n_fixed
        singular = BlockEvaluation(np.inf, _NOTHING, _NOTHING, np.zeros(p), np.eye(p))
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            state = self._pooled.at(self.parameters, point, order)
            solved = None if state is None else self._solve(self._pooled, state, point)
            if state is None or solved is None:
                return singular
            own = solved.objective, solved.coef, solved.inverse_root
            if order == 0:
                return BlockEvaluation(own[0], _NOTHING, _NOTHING, *own[1:])
            found = self._derivatives(self._pooled, state, point, solved)
        if not (np.isfinite(found.first).all() and np.isfinite(found.second).all()):
            return singular
        return BlockEvaluation(own[0], found.first, found.second, *own[1:])

    def _solve(self, side: NoiseSide, state: NoiseState, point: Point) -> Solved | None:
        """The likelihood at a point; None where V is singular."""
        p = self.n_fixed
        found = state.products
        roots = self.parameters.components.roots(point.theta)
        # An empty block, for models without factors by level.
        root = block_diag(np.empty((0, 0)), *(roots[k] for k in self.factors))
        variance = float(np.exp(2.0 * point.log_scale))
        log_det = self.n_rows * 2.0 * point.log_scale + state.log_det
        try:
            h, log_det_m = _middle(found.within, root, side.multiplicity)
            g = _shrunk(found.within, root)
            he, square = _take_out_effects(found, side.projection, h, g)
            square = square / variance
            lower = cholesky(square[:p, :p])
        except np.linalg.LinAlgError:
            return None
        inverse_root = inverse_of_lower(lower).T
        projection = square[p, :p] @ inverse_root
        coef = inverse_root @ projection
        residual = float(square[p, p] - projection @ projection)
        objective = self.constant + log_det + log_det_m + residual
        objective += self.df * np.log(2.0 * np.pi)
        if self.reml:
            objective -= 2.0 * float(np.log(inverse_root.diagonal()).sum())
        if not (np.isfinite(objective) and residual > 0.0):
            return None
        turn = coefficient_turn(coef, inverse_root)
        return Solved(
            objective,
            coef,
            inverse_root,
            turn,
            h,
            g,
            found.within,
            np.matmul(turn.T, found.across),
            np.matmul(turn.T, he),
            residual,
            variance,
        )

    def _derivatives(
        self, side: NoiseSide, state: NoiseState, point: Point, solved: Solved
    ) -> Derivatives:
        p, is_relative = self.n_fixed, self.parameters.is_relative
        n = self.parameters.n_parameters
        found = Derivatives(n, p, reml=self.reml, is_relative=is_relative)
        if is_relative:
            # The scale: A = S / s2, which is diagonal in the turned columns.
            found.forms[0] = -2.0 * np.diag([*np.ones(p), solved.residual])
            found.first[0] = 2.0 * self.n_rows
        noise = state.add_noise(found, solved)
        add_pairs(found, noise, solved, side.multiplicity)
        self._add_effects(found, side.multiplicity, solved, point, noise)
        found.finish()
        return found

    def _add_effects(
        self,
        found: Derivatives,
        multiplicity: FloatArray,
        solved: Solved,
        point: Point,
        noise: Sequence[NoiseSlope],
    ) -> None:
        """Add derivatives by the parameters of the random effects."""
        f, s2, moves = solved.f, solved.variance, self._moves(point)
        if not moves:
            return
        r = solved.e - sum_over_rows(f, solved.he)
        # H F, whose rows are to be contracted: F H is its transpose.
        hf = sum_over_rows(solved.h, f)
        phi = sum_over_rows(f, solved.g)
        across = [own.left - sum_over_rows(hf, own.left) for own in noise]
        within = []
        for own in noise:
            half = own.within - sum_over_rows(hf, own.within)
            within.append((half - sum_over_rows(half.swapaxes(0, 1), hf)) @ multiplicity)
        turned: dict[int, tuple[FloatArray, FloatArray]] = {}
        for d, move in moves.items():
            move_r, move_phi = np.tensordot(move, r, 1), np.tensordot(move, phi, 1)
            found.first[d] = float(np.trace(move_phi @ multiplicity))
            found.forms[d] = -contracted(r, move_r) / s2
            for own, g_left, gfg in zip(noise, across, within, strict=True):
                value = float(np.sum(move * gfg)) - 2.0 * found.product(move_r, g_left) / s2
                found.add_second(own.place, d, value)
            turned[d] = move_r, move_phi
            phi_move_r = sum_over_rows(phi, move_r)
            for e, (other_r, other_phi) in turned.items():
                value = -trace(move_phi.swapaxes(0, 1), other_phi, multiplicity)
                value += 2.0 * found.product(phi_move_r, other_r) / s2
                found.add_second(e, d, value)
        if not self.parameters.is_linear:
            by_d = phi @ multiplicity - _outer(r[:, found.counted]) / s2
            place = self.parameters.of_theta
            found.second[place, place] += np.triu(self._curvature(point, by_d))

    def _curvature(self, point: Point, by_d: FloatArray) -> FloatArray:
        """What the curvature of the roots adds to the Hessian by theta."""
        components = self.parameters.components
        roots = components.roots(point.theta)
        weights, start = [np.zeros((len(own), len(own))) for own in roots], 0
        for k in self.factors:
            stop = start + len(roots[k])
            weights[k] = by_d[start:stop, start:stop]
            start = stop
        n_entries = sum(own.size for own in weights)
        return theta_hessian(
            components.directions(point.theta),
            roots,
            weights,
            np.zeros((n_entries, n_entries)),
            components.curvatures(point.theta),
        )

    def kenward_roger(self, point: Point) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """See `BlockLikelihood.kenward_roger`; ``V_a Om X`` is formed for the rows."""
        side, parameters, p = self.side, self.parameters, self.n_fixed
        state = side.at(parameters, point, 2)
        assert state is not None
        solved = self._solve(side, state, point)
        assert solved is not None
        found = self._derivatives(side, state, point, solved)
        hessian = found.second
        covariance = 2.0 * pseudo_inverse(hessian, np.sqrt(np.abs(hessian.diagonal())))
        changes = -found.forms[:, :p, :p]
        rows, s2 = side.rows, solved.variance
        left = rows.w[:, :p] @ solved.turn[:p, :p]
        x = left + rows.effects(np.matmul(solved.turn.T, side.projection)[:, :p])
        r = solved.e[:, :p] - sum_over_rows(solved.f, solved.he[:, :p])
        moved = np.zeros((parameters.n_parameters, *x.shape))
        if parameters.is_relative:
            moved[0] = 2.0 * x
        for place, own in state.moves(left - rows.effects(solved.he[:, :p])).items():
            moved[place] = own
        for place, move in self._moves(point).items():
            moved[place] = rows.effects(np.tensordot(move, r, 1))
        excess = -np.einsum("aij,ajk->ik", changes, np.tensordot(covariance, changes, 1))
        mixed = np.tensordot(covariance, moved, 1)
        for own, other in zip(moved, mixed, strict=True):
            inner = state.times(other)
            excess += own.T @ inner / s2
            here, across = rows.by_effects(state.times(own)), rows.by_effects(inner)
            excess -= contracted(here, sum_over_rows(solved.h, across)) / s2
        return solved.inverse_root, covariance, changes, excess


def _take_out_effects(
    found: Products, projection: FloatArray, h: FloatArray, g: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """``H E - G B`` and S.

    B may be large, and Phi next to F small: neither S nor Phi is taken as a difference.
    """
    f, e = found.within, found.across
    he = sum_over_rows(h, e)
    square = found.total - contracted(e, he)
    if not len(f):
        return he, square
    gb = sum_over_rows(g.swapaxes(0, 1), projection)
    crossed = contracted(gb, e)
    return he - gb, square + crossed + crossed.T + contracted(projection, sum_over_rows(f, gb))


def _placed(moves: Sequence[FloatArray]) -> list[FloatArray]:
    """Directions of every D_k among the effects of all factors, each (q, q)."""
    q = sum(own.shape[-1] for own in moves)
    found, start = [], 0
    for own in moves:
        stop = start + own.shape[-1]
        for move in own:
            whole = np.zeros((q, q))
            whole[start:stop, start:stop] = move
            found.append(whole)
        start = stop
    return found


def _middle(f: FloatArray, root: FloatArray, multiplicity: FloatArray) -> tuple[FloatArray, float]:
    """H of every level, and ``sum log|I + Lambda'F Lambda|``."""
    if not f.size:
        return f, 0.0
    middle = np.eye(len(root)) + root.T @ np.moveaxis(f, -1, 0) @ root
    lower = np.linalg.cholesky(middle)
    inverse = np.linalg.inv(lower) @ root.T
    h = inverse.swapaxes(-1, -2) @ inverse
    log_det = np.log(lower.diagonal(axis1=-2, axis2=-1)).sum(axis=-1)
    return np.moveaxis(h, 0, -1), 2.0 * float(log_det @ multiplicity)


def _shrunk(f: FloatArray, root: FloatArray) -> FloatArray:
    """``G = (I + D F)^-1`` of every level, shape (q, q, m)."""
    middle = np.eye(len(root)) + root @ root.T @ np.moveaxis(f, -1, 0)
    return np.moveaxis(np.asarray(np.linalg.inv(middle)), 0, -1)


def _outer(rows: FloatArray) -> FloatArray:
    """``sum r r'`` over columns and levels, from (q, c, m), shape (q, q)."""
    flat = rows.reshape(len(rows), rows.shape[1] * rows.shape[2])
    return np.asarray(flat @ flat.T)
