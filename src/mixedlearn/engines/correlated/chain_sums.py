"""Chains beside random effects: sums of their rows, and the noise at a point.

With ``R_a = -R P_a R`` and P_a tridiagonal, as P is, all derivatives are those of `chains.Weights`.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from mixedlearn.data.blocks import numbered
from mixedlearn.engines.correlated.chains import Kinds, Weights
from mixedlearn.engines.correlated.covariance import Parameters, Point
from mixedlearn.engines.correlated.effects import (
    Derivatives,
    LevelRows,
    NoiseSlope,
    Products,
    Solved,
    contracted,
    trace,
)
from mixedlearn.engines.levels import sum_over_rows

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]

# Kinds are worth while if they need no more numbers than so many times the rows, or so many.
MOST_OF_ROWS = 2.0
FEW_NUMBERS = 4_000_000


class ChainSums:
    """Rows in chains, added up by their kinds where that is worth while: a `NoiseSide`.

    Parameters
    ----------
    rows : LevelRows
        In the order of time, series by series.
    kinds : Kinds
        Of the rows, one by one.

    Attributes
    ----------
    rows : LevelRows
        With what is left of W.
    row_kinds, kinds : Kinds
        Of the rows, and those that the sums are by.
    projection : ndarray of shape (q, k, m)
        B.
    multiplicity : ndarray of shape (m,)
        How many levels a level stands for in sums of what does not involve W.
    by_kind : tuple of ndarray, or None
        The arrays of `Products`, with an axis in front: three products of every kind. None where
        the rows themselves are passed over.
    """

    def __init__(self, rows: LevelRows, kinds: Kinds):
        self.projection = rows.projection()
        self.multiplicity = np.ones(rows.n_levels)
        self.rows = rows.less(self.projection)
        self.row_kinds = own = kinds
        gap = np.where(np.isfinite(own.gap), own.gap, -1.0)
        number = numbered(np.column_stack([own.part, gap, own.deviations, own.before]))
        n_kinds = int(number.max()) + 1
        q, k = rows.z.shape[1], rows.w.shape[1]
        needed = 3 * n_kinds * (rows.n_levels * q * (q + k) + k * k)
        self.by_kind: tuple[FloatArray, ...] | None = None
        self.kinds = own
        self._counts: FloatArray | None = None
        if needed <= max(MOST_OF_ROWS * len(number) * (q + k), FEW_NUMBERS):
            first = np.unique(number, return_index=True)[1]
            self.kinds = own.rows(first)
            self._counts = np.bincount(number).astype(float)
            self.by_kind = _sums_by_kind(self.rows, kinds, number)

    def log_det(self, weights: Weights) -> float:
        """``log|R|``, or its derivative."""
        if self._counts is None:
            return float(weights.log_det.sum())
        return float(weights.log_det @ self._counts)

    def products(self, weights: Weights) -> Products:
        """``U'P U``."""
        if self.by_kind is None:
            turned = weights.times(np.hstack([self.rows.z, self.rows.w]))
            return self.rows.products(turned)
        flat = np.concatenate([weights.own, weights.before, weights.lagged])
        return Products(*(np.tensordot(flat, own, 1) for own in self.by_kind))

    def at(self, parameters: Parameters, point: Point, order: int) -> ChainState | None:
        """The noise at a point; None where it is singular."""
        weights = self.kinds.weights(parameters.parts, point, parameters.slices, order)
        if not (np.isfinite(weights[()].own).all() and np.isfinite(weights[()].lagged).all()):
            return None
        return ChainState(self, weights, partial(self._row_weights, parameters, point))

    def _row_weights(self, parameters: Parameters, point: Point) -> dict[tuple[int, ...], Weights]:
        return self.row_kinds.weights(parameters.parts, point, parameters.slices, 1)

    def turned(self, turn: FloatArray) -> ChainSums:
        """The sums with other columns of W."""
        other = copy(self)
        other.rows = self.rows.turned(turn)
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


class ChainState:
    """Chains at a point: a `NoiseState`.

    Parameters
    ----------
    sums : ChainSums
    weights : dict of tuple of int to Weights
        By kind; see `Kinds.weights`.
    row_weights : callable
        Makes those of the rows, of first order.
    """

    def __init__(
        self,
        sums: ChainSums,
        weights: dict[tuple[int, ...], Weights],
        row_weights: Callable[[], dict[tuple[int, ...], Weights]],
    ):
        self._sums, self._weights, self._make_row_weights = sums, weights, row_weights
        self.log_det = sums.log_det(weights[()])
        self.products = sums.products(weights[()])

    @cached_property
    def _row_weights(self) -> dict[tuple[int, ...], Weights]:
        return self._make_row_weights()

    def add_noise(self, found: Derivatives, solved: Solved) -> list[NoiseSlope]:
        """Add derivatives by the parameters of the noise; return those of the products."""
        h, he, s2, multiplicity = solved.h, solved.he, solved.variance, self._sums.multiplicity
        slopes = []
        for key, weights in self._weights.items():
            if not key:
                continue
            products = self._sums.products(weights)
            within, across = products.within, np.matmul(solved.turn.T, products.across)
            log_det = self._sums.log_det(weights) + trace(h, within, multiplicity)
            left = across - sum_over_rows(within, he)
            square = solved.turn.T @ products.total @ solved.turn
            square = square - contracted(across, he) - contracted(he, left)
            if len(key) == 1:
                found.first[key[0]] = log_det
                found.forms[key[0]] = square / s2
                slopes.append(NoiseSlope(key[0], within, left, sum_over_rows(h, left)))
            else:
                squares = square.diagonal()[found.counted].sum()
                found.add_second(key[0], key[1], log_det + float(squares) / s2)
        return slopes

    def times(self, rows: FloatArray) -> FloatArray:
        """P times rows."""
        return self._row_weights[()].times(rows)

    def moves(self, left: FloatArray) -> dict[int, FloatArray]:
        """``R_a P rows`` for every parameter of the noise, by its place."""
        weights = self._row_weights
        return {
            key[0]: -weights[()].solve(own.times(left))
            for key, own in weights.items()
            if len(key) == 1
        }


def _sums_by_kind(rows: LevelRows, kinds: Kinds, number: IntArray) -> tuple[FloatArray, ...]:
    """Products of the rows of every kind: own, before, lagged; three arrays as in `Products`."""
    q, k, m = rows.z.shape[1], rows.w.shape[1], rows.n_levels
    n_kinds = int(number.max()) + 1
    within = np.zeros((3, n_kinds, q, q, m))
    across = np.zeros((3, n_kinds, q, k, m))
    total = np.zeros((3, n_kinds, k, k))
    u = np.hstack([rows.z, rows.w])
    before = np.vstack([np.zeros((1, q + k)), u[:-1]])
    before[~np.isfinite(kinds.gap)] = 0.0
    for kind in range(n_kinds):
        chosen = np.flatnonzero(number == kind)
        own, old, n = u[chosen], before[chosen], len(chosen)
        sums = csr_array((np.ones(n), (rows.level[chosen], np.arange(n))), (m, n))
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
