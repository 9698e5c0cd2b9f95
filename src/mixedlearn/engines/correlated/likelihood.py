"""The likelihood of blocks of rows with dense covariances, and its exact derivatives.

Notation
--------
The rows fall into *blocks* that are independent of each other. ``V`` is the covariance of a block,
noise and random effects, a function of parameters a; ``W = [X y]`` its rows. Blocks with the same V
have a *pattern* in common, and are kept as few *pseudo-blocks* with the same sum of products. With
``Om = V^-1``,

    A = sum W'Om W,     C = (X'Om X)^-1,     b = C X'Om y,     r2 = y'Om y - b'X'Om y
    f = sum log|V| + r2 + df log(2 pi) + [log|X'Om X| for REML]

No variance is profiled out. After one rotation, ``F = Om W M`` with M so that the columns are those
of X, orthonormal in the metric Om, and the residual,

    N = sum F F' by pattern (the columns of X for REML alone),     n the count of its blocks
    K_a = sum F'V_a F,     u_a its last column
    f_a  = sum <V_a, n Om - N>
    f_ab = sum tr(V_a Om V_b (2 N - n Om)) + <V_ab, n Om - N> - 2 u_a'u_b - <K_a, K_b>

(Lindstrom & Bates 1988; in this form every term is a sum over patterns or pseudo-blocks.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.algebra import cholesky, inverse_of_lower, pseudo_inverse
from mixedlearn.engines.correlated.covariance import BlockCovariance, Parameters, Point

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Patterns:
    """Blocks by pattern, all with the same T places, of which a pattern may leave some empty.

    Attributes
    ----------
    is_there : ndarray of shape (n_patterns, T), bool
        The places that hold a row.
    counts : ndarray of shape (n_patterns,)
        How many blocks have the pattern.
    rows : ndarray of shape (n_pseudo, T, q)
        W of the pseudo-blocks, zero where no row is, pattern by pattern.
    pattern : ndarray of shape (n_pseudo,), int
        The pattern of each.
    """

    is_there: NDArray[np.bool_]
    counts: FloatArray
    rows: FloatArray
    pattern: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Rotated:
    """One set of patterns at a point, after the rotation.

    Attributes
    ----------
    inverses : ndarray of shape (n_patterns, T, T)
        Om, zero where no row is.
    rows : ndarray of shape (n_pseudo, T, q)
        F.
    """

    inverses: FloatArray
    rows: FloatArray


@dataclass(frozen=True, slots=True)
class BlockEvaluation:
    """The objective and its derivatives at one point.

    Attributes
    ----------
    objective : float
        Minus twice the (restricted) log-likelihood; infinite where V is singular.
    gradient : ndarray of shape (n_parameters,)
    hessian : ndarray of shape (n_parameters, n_parameters)
        Empty below order 2, as the gradient is.
    coef : ndarray of shape (p,)
        b.
    inverse_root : ndarray of shape (p, p)
        Upper triangular; its square is C.
    """

    objective: float
    gradient: FloatArray
    hessian: FloatArray
    coef: FloatArray
    inverse_root: FloatArray


_NOTHING = np.empty(0)
# With fewer blocks by pattern, one product for each is faster than a loop over patterns.
FEW_BLOCKS = 32
# Numbers in the work arrays of some patterns.
CHUNK_ENTRIES = 1 << 21


class BlockLikelihood:
    """The likelihood of sets of blocks.

    Parameters
    ----------
    sets : sequence of (Patterns, BlockCovariance)
        All models have the same parameters.
    n_rows : int
    reml : bool
    constant : float
        What the objective has besides, of the units of X and y.
    """

    def __init__(
        self,
        sets: Sequence[tuple[Patterns, BlockCovariance]],
        n_rows: int,
        reml: bool,
        constant: float,
    ):
        self.sets = list(sets)
        self.n_parameters = sets[0][1].n_parameters
        self.n_fixed = sets[0][0].rows.shape[2] - 1
        self.n_rows = n_rows
        self.df = n_rows - self.n_fixed if reml else n_rows
        self.reml = reml
        self.constant = constant

    def with_parameters(self, parameters: Parameters) -> BlockLikelihood:
        """The same rows with other parameters."""
        sets = [(patterns, model.with_parameters(parameters)) for patterns, model in self.sets]
        return BlockLikelihood(sets, self.n_rows, self.reml, self.constant)

    def turned(self, turn: FloatArray) -> BlockLikelihood:
        """The likelihood with other columns of X and y, ``[X y] @ turn``."""
        sets = [
            (replace(patterns, rows=patterns.rows @ turn), model) for patterns, model in self.sets
        ]
        return BlockLikelihood(sets, self.n_rows, self.reml, self.constant)

    def evaluate(self, point: Point, order: int) -> BlockEvaluation:
        """Objective, gradient and Hessian; orders 0 and 2."""
        # On its way a search may try what overflows; that is as good as singular.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            found = self._solve(point)
            if found is None:
                return self._singular()
            objective, coef, inverse_root, rotated = found
            if order == 0:
                return BlockEvaluation(objective, _NOTHING, _NOTHING, coef, inverse_root)
            gradient, hessian, _ = self._derivatives(point, rotated)
        if not (np.isfinite(gradient).all() and np.isfinite(hessian).all()):
            return self._singular()
        return BlockEvaluation(objective, gradient, hessian, coef, inverse_root)

    def _singular(self) -> BlockEvaluation:
        p = self.n_fixed
        return BlockEvaluation(np.inf, _NOTHING, _NOTHING, np.zeros(p), np.eye(p))

    def _solve(self, point: Point) -> tuple[float, FloatArray, FloatArray, list[Rotated]] | None:
        """The objective, b, the root of C and the rotated sets; None where V is singular."""
        p = self.n_fixed
        inverses, products, log_det = [], [], 0.0
        square = np.zeros((p + 1, p + 1))
        try:
            for patterns, model in self.sets:
                inverse, own_log_det = inverses_by_pattern(model.covariance(point), patterns)
                rows = _times_by_pattern(inverse, patterns)
                square += np.tensordot(patterns.rows, rows, ((0, 1), (0, 1)))
                log_det += own_log_det
                inverses.append(inverse)
                products.append(rows)
            root = cholesky(square[:p, :p])
        except np.linalg.LinAlgError:
            return None
        inverse_root = inverse_of_lower(root).T
        projection = square[p, :p] @ inverse_root
        coef = inverse_root @ projection
        residual = float(square[p, p] - projection @ projection)
        objective = self.constant + log_det + residual + self.df * np.log(2.0 * np.pi)
        if self.reml:
            objective -= 2.0 * float(np.log(inverse_root.diagonal()).sum())
        if not np.isfinite(objective):
            return None
        turn = coefficient_turn(coef, inverse_root)
        rotated = [
            Rotated(inverse, rows @ turn) for inverse, rows in zip(inverses, products, strict=True)
        ]
        return objective, coef, inverse_root, rotated

    def _derivatives(
        self, point: Point, rotated: Sequence[Rotated]
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Gradient, Hessian, and the K_a, shape (n_parameters, p + 1, p + 1)."""
        p = self.n_fixed
        gradient = np.zeros(self.n_parameters)
        hessian = np.zeros((self.n_parameters, self.n_parameters))
        forms = np.zeros((self.n_parameters, p + 1, p + 1))
        for (patterns, model), own in zip(self.sets, rotated, strict=True):
            rows = own.rows if self.reml else own.rows[..., p:]
            outer = outer_by_pattern(rows, rows, patterns)
            counted = patterns.counts[:, None, None] * own.inverses
            excess = counted - outer
            directions = model.directions(point)
            is_shared = directions.ndim == 3
            weights = excess.sum(axis=0) if is_shared else excess
            gradient += directions.reshape(len(gradient), -1) @ weights.ravel()
            hessian += model.second(point, weights)
            own_hessian, own_forms = quadratic_forms(
                directions, own, patterns, 2.0 * outer - counted
            )
            hessian += own_hessian
            forms += own_forms
        last = forms[:, :p, p]
        hessian -= 2.0 * last @ last.T
        if self.reml:
            fixed = forms[:, :p, :p].reshape(len(gradient), -1)
            hessian -= fixed @ fixed.T
        return gradient, (hessian + hessian.T) / 2.0, forms

    def kenward_roger(self, point: Point) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """What Kenward and Roger's method needs, in columns in which C is the identity.

        Returns
        -------
        inverse_root : ndarray of shape (p, p)
            Of C.
        covariance : ndarray of shape (n_parameters, n_parameters)
            W, twice the inverse of the observed information of the objective.
        changes : ndarray of shape (n_parameters, p, p)
            The derivatives of the covariance of b, K_a.
        excess : ndarray of shape (p, p)
            ``sum_ab W_ab (Q_ab - K_a K_b)``, ``Q_ab = X'Om V_a Om V_b Om X``: half of what the
            adjusted covariance has more than the identity (Kenward & Roger 1997, equation 3,
            without second derivatives of V, so that it does not depend on the parameters).
        """
        found = self._solve(point)
        assert found is not None
        _, _, inverse_root, rotated = found
        p = self.n_fixed
        _, hessian, forms = self._derivatives(point, rotated)
        covariance = 2.0 * pseudo_inverse(hessian, np.sqrt(np.abs(hessian.diagonal())))
        changes = forms[:, :p, :p]
        mixed = np.tensordot(covariance, changes, 1)
        excess = -np.einsum("aij,ajk->ik", changes, mixed)
        for (patterns, model), own in zip(self.sets, rotated, strict=True):
            excess += _second_order(model.directions(point), own, patterns, covariance, p)
        return inverse_root, covariance, changes, excess


def holding(row: FloatArray, value: float) -> FloatArray:
    """What turns [X y] so that ``row @ b`` has a value, and the other coefficients are free."""
    p = len(row)
    # The first of the turned coefficients is the one that is held.
    basis = np.linalg.qr(row[:, None], mode="complete")[0]
    turn = np.zeros((p + 1, p))
    turn[:p, : p - 1] = basis[:, 1:]
    turn[:p, -1] = -basis[:, 0] * (value / float(row @ basis[:, 0]))
    turn[-1, -1] = 1.0
    return turn


def coefficient_turn(coef: FloatArray, inverse_root: FloatArray) -> FloatArray:
    """What turns [X y] into X orthonormal in the metric Om, and the residual."""
    p = len(coef)
    turn = np.zeros((p + 1, p + 1))
    turn[:p, :p] = inverse_root
    turn[:p, p] = -coef
    turn[p, p] = 1.0
    return turn


def inverses_by_pattern(covariance: FloatArray, patterns: Patterns) -> tuple[FloatArray, float]:
    """Om by pattern, zero where no row is, and ``sum log|V|`` over all blocks."""
    there = patterns.is_there
    if not there.all():
        both = there[:, :, None] & there[:, None, :]
        covariance = np.where(both, covariance, np.eye(there.shape[1]))
    elif covariance.ndim == 2:
        covariance = np.broadcast_to(covariance, (len(there), *covariance.shape))
    root = np.linalg.cholesky(covariance)
    log_det = 2.0 * float(np.log(root.diagonal(axis1=-2, axis2=-1)).sum(axis=-1) @ patterns.counts)
    inverse_root = np.linalg.inv(root)
    inverse = inverse_root.swapaxes(-1, -2) @ inverse_root
    if not there.all():
        inverse = np.where(both, inverse, 0.0)
    return inverse, log_det


def outer_by_pattern(left: FloatArray, right: FloatArray, patterns: Patterns) -> FloatArray:
    """``sum left right'`` by pattern, from rows of shape (n_pseudo, T, c)."""
    n_patterns, t = len(patterns.counts), left.shape[1]
    if len(left) == n_patterns:
        return np.asarray(left @ right.swapaxes(-1, -2))
    bounds = np.searchsorted(patterns.pattern, np.arange(n_patterns + 1))
    if len(left) < FEW_BLOCKS * n_patterns:
        return np.add.reduceat(left @ right.swapaxes(-1, -2), bounds[:-1], axis=0)
    found = np.empty((n_patterns, t, t))
    for k, (start, stop) in enumerate(pairwise(bounds)):
        own, other = (rows[start:stop].transpose(1, 0, 2).reshape(t, -1) for rows in (left, right))
        found[k] = own @ other.T
    return found


def _times_by_pattern(matrices: FloatArray, patterns: Patterns) -> FloatArray:
    """A matrix for every pattern, (n_patterns, T, T), times the rows of its pseudo-blocks."""
    n_patterns = len(matrices)
    if len(patterns.rows) == n_patterns:
        return np.asarray(matrices @ patterns.rows)
    if len(patterns.rows) < FEW_BLOCKS * n_patterns:
        return np.asarray(matrices[patterns.pattern] @ patterns.rows)
    bounds = np.searchsorted(patterns.pattern, np.arange(n_patterns + 1))
    found = np.empty_like(patterns.rows)
    for matrix, (start, stop) in zip(matrices, pairwise(bounds), strict=True):
        product = np.tensordot(matrix, patterns.rows[start:stop], (1, 1))
        found[start:stop] = product.transpose(1, 0, 2)
    return found


def quadratic_forms(
    directions: FloatArray, rotated: Rotated, patterns: Patterns, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """``sum tr(V_a Om V_b weights)``, and ``K_a = sum F'V_a F``."""
    if directions.ndim != 3:
        return _own_forms(directions, rotated, patterns, weights)
    if _is_dear(len(directions), len(patterns.counts), rotated.rows.shape):
        return _few_forms(directions, rotated, patterns, weights)
    return _shared_forms(directions, rotated, patterns, weights)


def _is_dear(n: int, n_patterns: int, shape: tuple[int, ...]) -> bool:
    """Whether the products of all pairs of places cost more than n directions by themselves."""
    n_pseudo, t, q = shape
    by_pairs = n_patterns * t**4 + n_pseudo * (t * q) ** 2
    return by_pairs > n * (2 * n_patterns * t**3 + n_pseudo * t * q * (t + q))


def _shared_forms(
    directions: FloatArray, rotated: Rotated, patterns: Patterns, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """``sum tr(V_a Om V_b weights)`` and K_a, where all patterns share the V_a.

    The products of all pairs of places are formed once, and no direction is met before them.
    """
    n, t = directions.shape[:2]
    flat = directions.reshape(n, t * t)
    n_patterns = len(weights)
    fourth = weights.reshape(n_patterns, -1).T @ rotated.inverses.reshape(n_patterns, -1)
    # [s, w, t, u] to [(s, t), (u, w)].
    fourth = fourth.reshape(t, t, t, t).transpose(0, 2, 3, 1).reshape(t * t, t * t)
    q = rotated.rows.shape[2]
    pairs = rotated.rows.reshape(-1, t * q)
    pairs = (pairs.T @ pairs).reshape(t, q, t, q).transpose(0, 2, 1, 3).reshape(t * t, q * q)
    return flat @ fourth @ flat.T, (flat @ pairs).reshape(n, q, q)


def _few_forms(
    directions: FloatArray, rotated: Rotated, patterns: Patterns, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The same, one direction after the other."""
    n, t = directions.shape[:2]
    q = rotated.rows.shape[2]
    own = directions[:, None]
    left = (own @ rotated.inverses).reshape(n, -1)
    right = (own @ weights).swapaxes(-1, -2).reshape(n, -1)
    rows = np.ascontiguousarray(rotated.rows.transpose(1, 0, 2)).reshape(t, -1)
    forms = np.empty((n, q, q))
    for direction, form in zip(directions, forms, strict=True):
        form[:] = rows.reshape(-1, q).T @ (direction @ rows).reshape(-1, q)
    return left @ right.T, forms


def _own_forms(
    directions: FloatArray, rotated: Rotated, patterns: Patterns, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """``sum tr(V_a Om V_b weights)`` and K_a, where every pattern has V_a of its own."""
    n, n_patterns, t = directions.shape[:3]
    q = rotated.rows.shape[2]
    hessian, forms = np.zeros((n, n)), np.zeros((n, q, q))
    size = max(CHUNK_ENTRIES // (n * t * max(t, q)), 1)
    bounds = np.searchsorted(patterns.pattern, np.arange(n_patterns + 1))
    for start in range(0, n_patterns, size):
        chosen = slice(start, start + size)
        own = directions[:, chosen]
        left = own @ rotated.inverses[chosen]
        right = (own @ weights[chosen]).swapaxes(-1, -2)
        hessian += left.reshape(n, -1) @ right.reshape(n, -1).T
        pseudo = slice(bounds[start], bounds[min(start + size, n_patterns)])
        rows = rotated.rows[pseudo]
        turned = own[:, patterns.pattern[pseudo] - start] @ rows
        forms += np.tensordot(turned, rows, ((1, 2), (0, 1))).transpose(0, 2, 1)
    return hessian, forms


def _second_order(
    directions: FloatArray,
    rotated: Rotated,
    patterns: Patterns,
    covariance: FloatArray,
    n_fixed: int,
) -> FloatArray:
    """``sum_ab W_ab Q_ab``, shape (p, p)."""
    rows = rotated.rows[..., :n_fixed]
    n, t = len(directions), directions.shape[-1]
    if directions.ndim == 3:
        # Z_v[s, w] = sum_tu Wt[(s, t), (u, w)] Om_v[t, u] for every pattern v.
        flat = directions.reshape(n, t * t)
        whole = (flat.T @ covariance @ flat).reshape(t, t, t, t).transpose(0, 3, 1, 2)
        inverses = rotated.inverses.reshape(-1, t * t)
        middle = (inverses @ whole.reshape(t * t, t * t).T).reshape(-1, t, t)
        turned = middle[patterns.pattern] @ rows
        return np.asarray(np.tensordot(rows, turned, ((0, 1), (0, 1))))
    total = np.zeros((n_fixed, n_fixed))
    size = max(CHUNK_ENTRIES // (n * t * max(t, n_fixed)), 1)
    n_patterns = directions.shape[1]
    bounds = np.searchsorted(patterns.pattern, np.arange(n_patterns + 1))
    for start in range(0, n_patterns, size):
        pseudo = slice(bounds[start], bounds[min(start + size, n_patterns)])
        number = patterns.pattern[pseudo]
        left = directions[:, number] @ rows[pseudo]
        right = np.tensordot(covariance, rotated.inverses[number] @ left, 1)
        total += np.tensordot(left, right, ((0, 1, 2), (0, 1, 2)))
    return total
