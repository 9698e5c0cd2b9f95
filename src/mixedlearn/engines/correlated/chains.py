"""Chains: rows in the order of time, of which each depends on the one before alone.

The noise covariance R of such rows has a tridiagonal inverse P. With a row's standard deviation s
and the correlation phi with the row before (zero for the first row of a series), ``P = K'K``, and
row t of K is

    (e_t / s_t - phi_t e_{t-1} / s_{t-1}) / sqrt(1 - phi_t^2)

so that ``U'P U`` is a sum over rows and pairs of rows, with weights that depend on the parameters:

    U'P U = sum_t own_t u_t u_t' + before_t u_{t-1} u_{t-1}'
                  + lagged_t (u_t u_{t-1}' + u_{t-1} u_t')
    own = c / s_t^2,  before = phi^2 c / s_{t-1}^2,  lagged = -phi c / (s_t s_{t-1}),
    c = 1 / (1 - phi^2)

Rows with the same weights whatever the parameters are (the same gap, the same stratum) are of one
*kind*, and their products are added up once. Where there are many kinds the rows themselves are
passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solveh_banded
from scipy.sparse import csr_array

from mixedlearn.covariance.residual.base import ResidualCovariance
from mixedlearn.covariance.residual.monomial import Monomial
from mixedlearn.data.blocks import numbered
from mixedlearn.engines.correlated.covariance import Point

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]

# Directions of a level's random columns of which less is there are not regressed on.
LEAST_DIRECTION = 1e-8
# Kinds are worth while if they need no more numbers than so many times the rows.
MOST_OF_ROWS = 2.0


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of kinds of rows, or of rows, and what they add to ``log|R|``.

    Attributes
    ----------
    own, before, lagged : ndarray of shape (n_kinds,)
    log_det : ndarray of shape (n_kinds,)
    """

    own: FloatArray
    before: FloatArray
    lagged: FloatArray
    log_det: FloatArray

    @property
    def diagonal(self) -> FloatArray:
        """That of P, of the weights of rows."""
        found = self.own.copy()
        found[:-1] += self.before[1:]
        return found

    def times(self, rows: FloatArray) -> FloatArray:
        """P times rows, from the weights of the rows."""
        found = self.diagonal[:, None] * rows
        found[1:] += self.lagged[1:, None] * rows[:-1]
        found[:-1] += self.lagged[1:, None] * rows[1:]
        return found

    def put(self, places: IntArray, other: Weights) -> None:
        """Take the weights of others at these places."""
        self.own[places], self.before[places] = other.own, other.before
        self.lagged[places], self.log_det[places] = other.lagged, other.log_det


@dataclass(frozen=True, slots=True)
class Kinds:
    """What the weights of rows depend on.

    Attributes
    ----------
    part : ndarray of shape (n_kinds,), int
        The part of the noise covariance.
    deviations, before : ndarray of shape (n_kinds, n_deviations)
        See `Layout.deviations`; of the row, and of the one before.
    gap : ndarray of shape (n_kinds,)
        Time since the row before; infinite for the first row of a series.
    """

    part: IntArray
    deviations: FloatArray
    before: FloatArray
    gap: FloatArray

    def weights(
        self, parts: Sequence[ResidualCovariance], point: Point, places: Sequence[slice], order: int
    ) -> dict[tuple[int, ...], Weights]:
        """The weights, and their derivatives by the parameters at these places.

        Returns
        -------
        weights : dict of tuple of int to Weights
            ``()`` for the weights, ``(a,)`` and ``(a, b)``, a not above b, for derivatives.
        """
        found: dict[tuple[int, ...], Weights] = {}
        for number, (part, place) in enumerate(zip(parts, places, strict=True)):
            assert isinstance(part, Monomial)
            rows = np.flatnonzero(self.part == number)
            own = self.rows(rows)
            for key, weights in _of_part(part, point.parts[number], own, order).items():
                placed = tuple(place.start + k for k in key)
                if placed not in found:
                    found[placed] = Weights(*np.zeros((4, len(self.part))))
                found[placed].put(rows, weights)
        return found

    def rows(self, chosen: IntArray) -> Kinds:
        """Some of them."""
        return Kinds(
            self.part[chosen], self.deviations[chosen], self.before[chosen], self.gap[chosen]
        )


def _of_part(
    part: Monomial, point: FloatArray, kinds: Kinds, order: int
) -> dict[tuple[int, ...], Weights]:
    """The weights of kinds of one part, with their derivatives by its parameters."""
    n_dev, n = part.n_deviations, part.n_parameters
    here, there = kinds.deviations[:, :n_dev], kinds.before[:, :n_dev]
    s_here, s_there = here @ point[:n_dev], there @ point[:n_dev]
    phi = _correlations(part, point, kinds.gap)
    u = 1.0 / (1.0 - phi[0] ** 2)
    # u, phi u and log(1 - phi^2) with their derivatives by phi.
    shrink = u, 2.0 * phi[0] * u**2, 2.0 * u**2 + 8.0 * phi[0] ** 2 * u**3
    lag = phi[0] * u, u + phi[0] * shrink[1], 2.0 * shrink[1] + phi[0] * shrink[2]
    log = np.log1p(-(phi[0] ** 2)), -2.0 * lag[0], -2.0 * lag[1]
    sizes = np.exp(-2.0 * s_here), np.exp(-2.0 * s_there), np.exp(-s_here - s_there)
    own = [sizes[0] * value for value in shrink]
    # phi^2 u = u - 1.
    before = [sizes[1] * value for value in (shrink[0] - 1.0, *shrink[1:])]
    lagged = [-sizes[2] * value for value in lag]
    found: dict[tuple[int, ...], Weights] = {}
    found[()] = Weights(own[0], before[0], lagged[0], 2.0 * s_here + log[0])
    if order == 0:
        return found
    slopes = [
        (-2.0 * here[:, j], -2.0 * there[:, j], -here[:, j] - there[:, j]) for j in range(n_dev)
    ]
    nothing = np.zeros(len(phi[0]))
    for j in range(n_dev):
        a, b, c = slopes[j]
        found[(j,)] = Weights(a * own[0], b * before[0], c * lagged[0], 2.0 * here[:, j])
        for k in range(j + 1):
            d, e, f = slopes[k]
            found[(k, j)] = Weights(a * d * own[0], b * e * before[0], c * f * lagged[0], nothing)
    if n > n_dev:
        first = [phi[1] * values[1] for values in (own, before, lagged, log)]
        second = [
            phi[1] ** 2 * values[2] + phi[2] * values[1] for values in (own, before, lagged, log)
        ]
        found[(n_dev,)] = Weights(*first)
        found[(n_dev, n_dev)] = Weights(*second)
        for j in range(n_dev):
            a, b, c = slopes[j]
            found[(j, n_dev)] = Weights(a * first[0], b * first[1], c * first[2], nothing)
    return found


def _correlations(
    part: Monomial, point: FloatArray, gap: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Phi with its first and second derivatives by the coordinate of the correlation."""
    if not part.ranges:
        nothing = np.zeros(len(gap))
        return nothing, nothing, nothing
    rho, slope, bend = part.ranges[0].value(point[part.n_deviations])
    is_pair = np.isfinite(gap)
    g = np.where(is_pair, gap, 1.0)
    phi = rho**g
    first = np.where(g == 1.0, 1.0, g * rho ** np.where(g == 1.0, 1.0, g - 1.0))
    factor = g * (g - 1.0)
    second = np.where(factor == 0.0, 0.0, factor * rho ** np.where(factor == 0.0, 0.0, g - 2.0))
    return (
        np.where(is_pair, phi, 0.0),
        np.where(is_pair, slope * first, 0.0),
        np.where(is_pair, slope**2 * second + bend * first, 0.0),
    )


@dataclass(frozen=True, slots=True)
class Products:
    """``U'P U`` or its derivative, for U = [Z W].

    Attributes
    ----------
    within : ndarray of shape (q, q, m)
        ``Z'P Z`` of every level.
    across : ndarray of shape (q, k, m)
        ``Z'P W`` of every level.
    total : ndarray of shape (k, k)
        ``W'P W``.
    """

    within: FloatArray
    across: FloatArray
    total: FloatArray


@dataclass(frozen=True)
class Chain:
    """Rows in the order of time, series by series.

    Attributes
    ----------
    order : ndarray of shape (n,), int
        The rows of the data in this order.
    kinds : Kinds
        Of the rows, one by one.
    level : ndarray of shape (n,), int
        The level of the random effects, from zero.
    z : ndarray of shape (n, q)
        The random columns of all factors.
    w : ndarray of shape (n, k)
        Fixed columns and response, less ``Z B``.
    """

    order: IntArray
    kinds: Kinds
    level: IntArray
    z: FloatArray
    w: FloatArray

    @property
    def n_levels(self) -> int:
        """Number of levels of the random effects; without any all rows are of one."""
        return int(self.level.max()) + 1

    @cached_property
    def _sum_by_level(self) -> csr_array:
        n = len(self.level)
        return csr_array((np.ones(n), (self.level, np.arange(n))), (self.n_levels, n))

    def times(self, weights: Weights, rows: FloatArray) -> FloatArray:
        """P, or its derivative, times rows."""
        return weights.times(rows)

    def solve(self, weights: Weights, rows: FloatArray) -> FloatArray:
        """R times rows, from the weights of P."""
        banded = np.zeros((2, len(rows)))
        banded[1] = weights.diagonal
        banded[0] = weights.lagged
        return np.asarray(solveh_banded(banded, rows))

    def products(self, weights: Weights) -> Products:
        """``U'P U``."""
        q = self.z.shape[1]
        turned = self.times(weights, np.hstack([self.z, self.w]))
        within = np.zeros((q, q, self.n_levels))
        across = np.zeros((q, self.w.shape[1], self.n_levels))
        for j in range(q):
            by_level = self.by_level(self.z[:, j : j + 1] * turned)
            within[j], across[j] = by_level[:, :q].T, by_level[:, q:].T
        return Products(within, across, self.w.T @ turned[:, q:])

    def by_level(self, rows: FloatArray) -> FloatArray:
        """Sums of rows by level, shape (m, ...)."""
        return np.asarray(self._sum_by_level @ rows)

    def effects(self, values: FloatArray) -> FloatArray:
        """``Z v`` for values of every level, (q, c, m), shape (n, c)."""
        found = np.zeros((len(self.level), values.shape[1]))
        for column, own in zip(self.z.T, values, strict=True):
            found += column[:, None] * own.T[self.level]
        return found

    def projection(self) -> FloatArray:
        """A regression of W on the columns of every level, shape (q, k, m).

        It may be any: where columns depend on each other a little is left of what they explain.
        """
        q = self.z.shape[1]
        if not q:
            return np.zeros((0, self.w.shape[1], self.n_levels))
        products = [
            self.by_level(column[:, None] * np.hstack([self.z, self.w])) for column in self.z.T
        ]
        both = np.array(products).transpose(1, 0, 2)
        gram, across = both[:, :, :q], both[:, :, q:]
        size = np.trace(gram, axis1=1, axis2=2)
        ridge = np.where(size > 0.0, LEAST_DIRECTION * size, 1.0)
        ridged = gram + ridge[:, None, None] * np.eye(q)
        return np.asarray(np.linalg.solve(ridged, across).transpose(1, 2, 0))

    def turned(self, turn: FloatArray) -> Chain:
        """The rows with other columns of W."""
        return replace(self, w=self.w @ turn)


class ChainSums:
    """The rows of a chain, added up by their kinds where that is worth while.

    Parameters
    ----------
    chain : Chain
        With all of W.

    Attributes
    ----------
    chain : Chain
        With what is left of W.
    kinds : Kinds
        Those whose weights are asked for.
    projection : ndarray of shape (q, k, m)
        B.
    multiplicity : ndarray of shape (m,)
        How many levels a level stands for in sums of what does not involve W.
    by_kind : tuple of ndarray, or None
        The arrays of `Products`, with an axis in front: three products of every kind. None where
        the rows themselves are passed over.
    """

    def __init__(self, chain: Chain):
        self.projection = chain.projection()
        self.multiplicity = np.ones(chain.n_levels)
        chain = replace(chain, w=chain.w - chain.effects(self.projection))
        self.chain = chain
        own = chain.kinds
        gap = np.where(np.isfinite(own.gap), own.gap, -1.0)
        number = numbered(np.column_stack([own.part, gap, own.deviations, own.before]))
        n_kinds = int(number.max()) + 1
        q, k = chain.z.shape[1], chain.w.shape[1]
        needed = 3 * n_kinds * (chain.n_levels * q * (q + k) + k * k)
        self.by_kind: tuple[FloatArray, ...] | None = None
        self.kinds = own
        self._counts: FloatArray | None = None
        if needed <= MOST_OF_ROWS * len(number) * (q + k):
            first = np.unique(number, return_index=True)[1]
            self.kinds = own.rows(first)
            self._counts = np.bincount(number).astype(float)
            self.by_kind = _sums_by_kind(chain, number, n_kinds)

    def log_det(self, weights: Weights) -> float:
        """``log|R|``, or its derivative."""
        if self._counts is None:
            return float(weights.log_det.sum())
        return float(weights.log_det @ self._counts)

    def products(self, weights: Weights) -> Products:
        """``U'P U``."""
        if self.by_kind is None:
            return self.chain.products(weights)
        flat = np.concatenate([weights.own, weights.before, weights.lagged])
        return Products(*(np.tensordot(flat, own, 1) for own in self.by_kind))

    def turned(self, turn: FloatArray) -> ChainSums:
        """The sums with other columns of W."""
        other = copy(self)
        other.chain = self.chain.turned(turn)
        other.projection = np.matmul(turn.T, self.projection)
        if self.by_kind is not None:
            within, across, total = self.by_kind
            other.by_kind = within, np.matmul(turn.T, across), turn.T @ total @ turn
        return other

    def pooled(self) -> ChainSums:
        """The same sums over levels from few of them, where many have the same ``Z'P Z``.

        All that the likelihood asks for is quadratic in what the levels have of W, with weights
        that depend on ``Z'P Z`` alone: any levels with the same second moments will do.
        """
        if self.by_kind is None or not self.projection.size:
            return self
        within, across, total = self.by_kind
        m = within.shape[-1]
        number = numbered(within.reshape(-1, m).T)
        own = np.concatenate([across, self.projection[None]])
        width = own[..., 0].size
        if (int(number.max()) + 1) * width > m // 2:
            return self
        kept, rows, multiplicity = [], [], []
        for of_kind in np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))):
            if not len(of_kind):
                continue
            flat = own[..., of_kind].reshape(width, len(of_kind)).T
            few = np.linalg.qr(flat, mode="r") if len(of_kind) > width else flat
            kept.append(np.full(len(few), of_kind[0]))
            rows.append(few)
            multiplicity.append(np.append(float(len(of_kind)), np.zeros(len(few) - 1)))
        levels = np.concatenate(kept)
        moved = np.concatenate(rows).T.reshape(*own.shape[:-1], len(levels))
        other = copy(self)
        other.by_kind = np.ascontiguousarray(within[..., levels]), moved[:-1], total
        other.projection, other.multiplicity = moved[-1], np.concatenate(multiplicity)
        return other


def _sums_by_kind(chain: Chain, number: IntArray, n_kinds: int) -> tuple[FloatArray, ...]:
    """Products of the rows of every kind: own, before, lagged; three arrays as in `Products`."""
    q, k, m = chain.z.shape[1], chain.w.shape[1], chain.n_levels
    within = np.zeros((3, n_kinds, q, q, m))
    across = np.zeros((3, n_kinds, q, k, m))
    total = np.zeros((3, n_kinds, k, k))
    u = np.hstack([chain.z, chain.w])
    before = np.vstack([np.zeros((1, q + k)), u[:-1]])
    before[~np.isfinite(chain.kinds.gap)] = 0.0
    for kind in range(n_kinds):
        rows = np.flatnonzero(number == kind)
        own, old, level = u[rows], before[rows], chain.level[rows]
        sums = csr_array((np.ones(len(rows)), (level, np.arange(len(rows)))), (m, len(rows)))
        pairs = ((own, own), (old, old), (own, old))
        for which, (left, right) in enumerate(pairs):
            product = left[:, q:].T @ right[:, q:]
            total[which, kind] = product + product.T if which == 2 else product
            for j in range(q):
                by_level = sums @ (left[:, j : j + 1] * right)
                if which == 2:
                    by_level = by_level + sums @ (right[:, j : j + 1] * left)
                within[which, kind, j] = by_level[:, :q].T
                across[which, kind, j] = by_level[:, q:].T
    return tuple(own.reshape(3 * n_kinds, *own.shape[2:]) for own in (within, across, total))
