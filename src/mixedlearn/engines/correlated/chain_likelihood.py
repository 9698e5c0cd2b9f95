"""The likelihood of chains with random effects, and its exact derivatives.

Notation
--------
With P the inverse of the noise covariance R of all rows, Z the random columns and W = [X y] (see
`chains`), ``V = s2 (R + Z D Z')`` and for every level

    F = Z'P Z,   E = Z'P W,   H = Lambda (I + Lambda'F Lambda)^-1 Lambda',   J = [-H E; I]
    S = s2 W'V^-1 W = W'P W - sum E'H E
    log|V| = n log s2 + log|R| + sum log|I + Lambda'F Lambda|

Derivatives by a parameter a of the noise, whose P_a is tridiagonal too, with F_a and E_a those of F
and E and ``R_a = E_a - F_a H E``,

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

The columns of W are turned so that those of
X are orthonormal in the metric of V and the last is the residual: as in `likelihood`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.algebra import cholesky, inverse_of_lower, pseudo_inverse
from mixedlearn.covariance.components import theta_hessian
from mixedlearn.engines.correlated.chains import Chain, ChainSums, Products, Weights
from mixedlearn.engines.correlated.covariance import Parameters, Point
from mixedlearn.engines.correlated.likelihood import BlockEvaluation, coefficient_turn
from mixedlearn.engines.levels import sum_over_rows

FloatArray = NDArray[np.float64]

_NOTHING = np.empty(0)


@dataclass(frozen=True, slots=True)
class _Solved:
    """The likelihood at a point, in the turned columns."""

    objective: float
    coef: FloatArray
    inverse_root: FloatArray
    weights: dict[tuple[int, ...], Weights]
    turn: FloatArray
    h: FloatArray
    f: FloatArray
    e: FloatArray
    he: FloatArray
    residual: float
    variance: float


@dataclass(frozen=True, slots=True)
class _NoiseSlope:
    """The derivatives by one parameter of the noise.

    Attributes
    ----------
    place : int
        Of the parameter.
    within, left, h_left : ndarray of shape (q, q, m), (q, p + 1, m), (q, p + 1, m)
        F_a, R_a and ``H R_a``.
    """

    place: int
    within: FloatArray
    left: FloatArray
    h_left: FloatArray


class _Derivatives:
    """First and second derivatives, added up term by term.

    Attributes
    ----------
    first : ndarray of shape (a,)
        Of ``log|V|``; from `finish` on the gradient.
    second : ndarray of shape (a, a)
        The upper triangle of what is linear in second derivatives; from `finish` on the Hessian.
    forms : ndarray of shape (a, p + 1, p + 1)
        First derivatives of ``S / s2``.
    """

    def __init__(self, n: int, p: int, *, reml: bool):
        self.first, self.second = np.zeros(n), np.zeros((n, n))
        self.forms = np.zeros((n, p + 1, p + 1))
        self._p, self._reml = p, reml
        # Columns whose squares the objective holds: of X by REML, and of the residual.
        self.counted = slice(0 if reml else p, p + 1)

    def add_second(self, a: int, b: int, value: float) -> None:
        """Add to the derivative by two parameters."""
        self.second[min(a, b), max(a, b)] += value

    def product(self, left: FloatArray, right: FloatArray) -> float:
        """``sum left * right`` over the counted columns, from (q, p + 1, m)."""
        return float(np.sum(left[:, self.counted] * right[:, self.counted]))

    def finish(self) -> None:
        """Add what follows from first derivatives alone."""
        p, counted = self._p, self.counted
        squares = np.einsum("acc->a", self.forms[:, counted, counted])
        self.first += squares
        # All but log|V| is proportional to 1 / s2.
        self.second[0] = -2.0 * squares
        self.second = np.triu(self.second) + np.triu(self.second, 1).T
        crossed = self.forms[:, :p, p]
        self.second -= 2.0 * crossed @ crossed.T
        if self._reml:
            flat = self.forms[:, :p, :p].reshape(len(self.forms), -1)
            self.second -= flat @ flat.T


class ChainLikelihood:
    """The likelihood of chains; see `BlockLikelihood`, which takes any structure.

    Parameters
    ----------
    sums : ChainSums
    parameters : Parameters
    n_rows : int
    reml : bool
    constant : float
        What the objective has besides, of the units of X and y.
    """

    def __init__(
        self, sums: ChainSums, parameters: Parameters, n_rows: int, reml: bool, constant: float
    ):
        self.sums = sums
        self.parameters = parameters
        self.n_rows = n_rows
        self.n_fixed = sums.chain.w.shape[1] - 1
        self.reml = reml
        self.df = n_rows - self.n_fixed if reml else n_rows
        self.constant = constant

    @cached_property
    def _pooled(self) -> ChainSums:
        return self.sums.pooled()

    def with_parameters(self, parameters: Parameters) -> ChainLikelihood:
        """The same rows with other parameters."""
        return ChainLikelihood(self.sums, parameters, self.n_rows, self.reml, self.constant)

    def turned(self, turn: FloatArray) -> ChainLikelihood:
        """The likelihood with other columns of X and y, ``[X y] @ turn``."""
        return ChainLikelihood(
            self.sums.turned(turn), self.parameters, self.n_rows, self.reml, self.constant
        )

    def evaluate(self, point: Point, order: int) -> BlockEvaluation:
        """Objective, gradient and Hessian; orders 0 and 2."""
        p = self.n_fixed
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            solved = self._solve(self._pooled, point, order)
            if solved is None:
                return BlockEvaluation(np.inf, _NOTHING, _NOTHING, np.zeros(p), np.eye(p))
            own = solved.objective, solved.coef, solved.inverse_root
            if order == 0:
                return BlockEvaluation(own[0], _NOTHING, _NOTHING, *own[1:])
            found = self._derivatives(self._pooled, point, solved)
        if not (np.isfinite(found.first).all() and np.isfinite(found.second).all()):
            return BlockEvaluation(np.inf, _NOTHING, _NOTHING, np.zeros(p), np.eye(p))
        return BlockEvaluation(own[0], found.first, found.second, *own[1:])

    def _solve(self, sums: ChainSums, point: Point, order: int) -> _Solved | None:
        """The likelihood at a point; None where V is singular."""
        p, parameters = self.n_fixed, self.parameters
        weights = sums.kinds.weights(parameters.parts, point, parameters.slices, order)
        if not all(np.isfinite(own).all() for own in (weights[()].own, weights[()].lagged)):
            return None
        found = sums.products(weights[()])
        root = _joined(parameters.components.roots(point.theta))
        variance = float(np.exp(2.0 * point.log_scale))
        log_det = self.n_rows * 2.0 * point.log_scale + sums.log_det(weights[()])
        try:
            h, log_det_m = _middle(found.within, root, sums.multiplicity)
            he, square = _take_out_effects(found, sums.projection, h, root)
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
        return _Solved(
            objective,
            coef,
            inverse_root,
            weights,
            turn,
            h,
            found.within,
            np.matmul(turn.T, found.across),
            np.matmul(turn.T, he),
            residual,
            variance,
        )

    def _derivatives(self, sums: ChainSums, point: Point, solved: _Solved) -> _Derivatives:
        p = self.n_fixed
        found = _Derivatives(self.parameters.n_parameters, p, reml=self.reml)
        # The scale: A = S / s2, which is diagonal in the turned columns.
        found.forms[0] = -2.0 * np.diag([*np.ones(p), solved.residual])
        found.first[0] = 2.0 * self.n_rows
        noise = self._add_noise(found, sums, solved)
        self._add_effects(found, sums.multiplicity, solved, point, noise)
        found.finish()
        return found

    def _add_noise(
        self, found: _Derivatives, sums: ChainSums, solved: _Solved
    ) -> list[_NoiseSlope]:
        """Add derivatives by the parameters of the noise."""
        h, he, s2 = solved.h, solved.he, solved.variance
        slopes = []
        for key, weights in solved.weights.items():
            if not key:
                continue
            products = _turned_products(sums.products(weights), solved.turn)
            within, across = products.within, products.across
            log_det = sums.log_det(weights) + _trace(h, within, sums.multiplicity)
            left = across - sum_over_rows(within, he)
            square = products.total - _contracted(across, he) - _contracted(he, left)
            if len(key) == 1:
                found.first[key[0]] = log_det
                found.forms[key[0]] = square / s2
                slopes.append(_NoiseSlope(key[0], within, left, sum_over_rows(h, left)))
            else:
                squares = square.diagonal()[found.counted].sum()
                found.add_second(key[0], key[1], log_det + float(squares) / s2)
        turned = [sum_over_rows(h, own.within) for own in slopes]
        for i, (own, hf) in enumerate(zip(slopes, turned, strict=True)):
            for other, other_hf in zip(slopes[: i + 1], turned, strict=False):
                value = -_trace(hf.swapaxes(0, 1), other_hf, sums.multiplicity)
                value -= 2.0 * found.product(own.h_left, other.left) / s2
                found.add_second(own.place, other.place, value)
        return slopes

    def _add_effects(
        self,
        found: _Derivatives,
        multiplicity: FloatArray,
        solved: _Solved,
        point: Point,
        noise: Sequence[_NoiseSlope],
    ) -> None:
        """Add derivatives by the parameters of the random effects."""
        f, s2, start = solved.f, solved.variance, self.parameters.of_theta.start
        components = self.parameters.components
        moves = _placed(self.parameters.moves(point.theta))
        if not moves:
            return
        r = solved.e - sum_over_rows(f, solved.he)
        # H F, whose rows are to be contracted: F H is its transpose.
        hf = sum_over_rows(solved.h, f)
        phi = sum_over_rows(f, _shrunk(f, _joined(components.roots(point.theta))))
        across = [own.left - sum_over_rows(hf, own.left) for own in noise]
        within = []
        for own in noise:
            half = own.within - sum_over_rows(hf, own.within)
            within.append((half - sum_over_rows(half.swapaxes(0, 1), hf)) @ multiplicity)
        turned = []
        for d, move in enumerate(moves, start):
            move_r, move_phi = np.tensordot(move, r, 1), np.tensordot(move, phi, 1)
            found.first[d] = float(np.trace(move_phi @ multiplicity))
            found.forms[d] = -_contracted(r, move_r) / s2
            for own, g_left, gfg in zip(noise, across, within, strict=True):
                value = float(np.sum(move * gfg)) - 2.0 * found.product(move_r, g_left) / s2
                found.add_second(own.place, d, value)
            turned.append((move_r, move_phi, sum_over_rows(phi, move_r)))
            for e, (other_r, other_phi, _) in enumerate(turned, start):
                value = -_trace(move_phi.swapaxes(0, 1), other_phi, multiplicity)
                value += 2.0 * found.product(turned[-1][2], other_r) / s2
                found.add_second(e, d, value)
        if not self.parameters.is_linear:
            by_d = phi @ multiplicity - _outer(r[:, found.counted]) / s2
            place = self.parameters.of_theta
            found.second[place, place] += np.triu(self._curvature(point, by_d))

    def _curvature(self, point: Point, by_d: FloatArray) -> FloatArray:
        """What the curvature of the roots adds to the Hessian by theta."""
        components = self.parameters.components
        roots = components.roots(point.theta)
        weights, start = [], 0
        for root in roots:
            stop = start + len(root)
            weights.append(by_d[start:stop, start:stop])
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
        """See `BlockLikelihood.kenward_roger`.

        ``V_a Om X`` is formed for the rows: with ``R_a = -R P_a R`` it takes one solve by P.
        """
        solved = self._solve(self.sums, point, 2)
        assert solved is not None
        p, s2, chain = self.n_fixed, solved.variance, self.sums.chain
        found = self._derivatives(self.sums, point, solved)
        hessian = found.second
        covariance = 2.0 * pseudo_inverse(hessian, np.sqrt(np.abs(hessian.diagonal())))
        changes = -found.forms[:, :p, :p]
        parameters = self.parameters
        weights = chain.kinds.weights(parameters.parts, point, parameters.slices, 1)
        projected = np.matmul(solved.turn.T, self.sums.projection)[:, :p]
        left = chain.w[:, :p] @ solved.turn[:p, :p]
        x = left + chain.effects(projected)
        left = left - chain.effects(solved.he[:, :p])
        r = solved.e[:, :p] - sum_over_rows(solved.f, solved.he[:, :p])
        moved = [2.0 * x]
        for key, own in weights.items():
            if len(key) == 1:
                moved.append(-chain.solve(weights[()], chain.times(own, left)))
        moved += [
            chain.effects(np.tensordot(move, r, 1))
            for move in _placed(parameters.moves(point.theta))
        ]
        excess = -np.einsum("aij,ajk->ik", changes, np.tensordot(covariance, changes, 1))
        for a, rows in enumerate(moved):
            mixed = sum(own * share for own, share in zip(moved, covariance[a], strict=True))
            inner = chain.times(weights[()], mixed)
            across = _by_effects(chain, inner)
            excess += rows.T @ inner / s2
            here = _by_effects(chain, chain.times(weights[()], rows))
            excess -= _contracted(here, sum_over_rows(solved.h, across)) / s2
        return solved.inverse_root, covariance, changes, excess


def _take_out_effects(
    found: Products, projection: FloatArray, h: FloatArray, root: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """``H E - G B`` and S.

    B may be large, and Phi next to F small: neither S nor Phi is taken as a difference.
    """
    f, e = found.within, found.across
    he = sum_over_rows(h, e)
    square = found.total - _contracted(e, he)
    if not len(f):
        return he, square
    gb = sum_over_rows(_shrunk(f, root).swapaxes(0, 1), projection)
    crossed = _contracted(gb, e)
    return he - gb, square + crossed + crossed.T + _contracted(projection, sum_over_rows(f, gb))


def _turned_products(own: Products, turn: FloatArray) -> Products:
    return Products(own.within, np.matmul(turn.T, own.across), turn.T @ own.total @ turn)


def _trace(left: FloatArray, right: FloatArray, multiplicity: FloatArray) -> float:
    """``sum tr left'right`` over levels."""
    return float(np.sum(left * right, axis=(0, 1)) @ multiplicity)


def _by_effects(chain: Chain, rows: FloatArray) -> FloatArray:
    """``Z'rows`` of every level, shape (q, c, m)."""
    found = np.zeros((chain.z.shape[1], rows.shape[1], chain.n_levels))
    for j, column in enumerate(chain.z.T):
        found[j] = chain.by_level(column[:, None] * rows).T
    return found


def _joined(roots: Sequence[FloatArray]) -> FloatArray:
    """The roots of all factors as one, (q, q)."""
    q = sum(len(root) for root in roots)
    found, start = np.zeros((q, q)), 0
    for root in roots:
        stop = start + len(root)
        found[start:stop, start:stop] = root
        start = stop
    return found


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


def _contracted(left: FloatArray, right: FloatArray) -> FloatArray:
    """``sum left'right`` over effects and levels, from (q, c, m) and (q, k, m), shape (c, k)."""
    flat, other = (
        own.transpose(1, 0, 2).reshape(own.shape[1], len(own) * own.shape[2])
        for own in (left, right)
    )
    return np.asarray(flat @ other.T)


def _outer(rows: FloatArray) -> FloatArray:
    """``sum r r'`` over columns and levels, from (q, c, m), shape (q, q)."""
    flat = rows.reshape(len(rows), rows.shape[1] * rows.shape[2])
    return np.asarray(flat @ flat.T)
