"""Random effects beside noise of any covariance: rows, products and derivatives by level.

See `effects_likelihood` for the notation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from mixedlearn.engines.correlated.covariance import Parameters, Point
from mixedlearn.engines.levels import sum_over_rows

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]

# Directions of a level's random columns of which less is there are not regressed on.
LEAST_DIRECTION = 1e-8


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
class LevelRows:
    """Rows with random effects of one level each.

    Attributes
    ----------
    level : ndarray of shape (n,), int
        The level of the random effects, from zero.
    z : ndarray of shape (n, q)
        The random columns of all factors.
    w : ndarray of shape (n, k)
        Fixed columns and response.
    """

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
        both = np.moveaxis(self.by_effects(np.hstack([self.z, self.w])), -1, 0)
        gram, across = both[:, :, :q], both[:, :, q:]
        size = np.trace(gram, axis1=1, axis2=2)
        ridge = np.where(size > 0.0, LEAST_DIRECTION * size, 1.0)
        ridged = gram + ridge[:, None, None] * np.eye(q)
        return np.asarray(np.linalg.solve(ridged, across).transpose(1, 2, 0))

    def by_effects(self, rows: FloatArray) -> FloatArray:
        """``Z'rows`` of every level, shape (q, c, m)."""
        found = np.zeros((self.z.shape[1], rows.shape[1], self.n_levels))
        for j, column in enumerate(self.z.T):
            found[j] = self.by_level(column[:, None] * rows).T
        return found

    def products(self, turned: FloatArray) -> Products:
        """``U'rows`` for U = [Z W] and rows of as many columns."""
        q = self.z.shape[1]
        by_level = self.by_effects(turned)
        return Products(by_level[:, :q], by_level[:, q:], self.w.T @ turned[:, q:])

    def less(self, projection: FloatArray) -> LevelRows:
        """The rows less what a projection explains of W."""
        return replace(self, w=self.w - self.effects(projection))

    def turned(self, turn: FloatArray) -> LevelRows:
        """The rows with other columns of W."""
        return replace(self, w=self.w @ turn)


@dataclass(frozen=True, slots=True)
class Solved:
    """The likelihood at a point, in the turned columns; see `effects_likelihood`."""

    objective: float
    coef: FloatArray
    inverse_root: FloatArray
    turn: FloatArray
    h: FloatArray
    g: FloatArray
    f: FloatArray
    e: FloatArray
    he: FloatArray
    residual: float
    variance: float


@dataclass(frozen=True, slots=True)
class NoiseSlope:
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


class Derivatives:
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

    def __init__(self, n: int, p: int, *, reml: bool, is_relative: bool):
        self._is_relative = is_relative
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
        if self._is_relative:
            # All but log|V| is proportional to 1 / s2.
            self.second[0] = -2.0 * squares
        self.second = np.triu(self.second) + np.triu(self.second, 1).T
        crossed = self.forms[:, :p, p]
        self.second -= 2.0 * crossed @ crossed.T
        if self._reml:
            flat = self.forms[:, :p, :p].reshape(len(self.forms), -1)
            self.second -= flat @ flat.T


class NoiseState(Protocol):
    """The noise at a point: R, and its derivatives by the parameters.

    Attributes
    ----------
    log_det : float
        ``log|R|``.
    products : Products
        ``U'P U``.
    """

    log_det: float
    products: Products

    def add_noise(self, found: Derivatives, solved: Solved) -> list[NoiseSlope]:
        """Add derivatives by the parameters of the noise; return those of the products."""
        ...

    def times(self, rows: FloatArray) -> FloatArray:
        """P times rows."""
        ...

    def moves(self, left: FloatArray) -> dict[int, FloatArray]:
        """``R_a P rows`` for every parameter of the noise, by its place."""
        ...


class NoiseSide(Protocol):
    """What the likelihood asks of the noise.

    Attributes
    ----------
    rows : LevelRows
        With what is left of W.
    projection : ndarray of shape (q, k, m)
        B.
    multiplicity : ndarray of shape (m,)
        How many levels a level stands for in sums of what does not involve W.
    """

    rows: LevelRows
    projection: FloatArray
    multiplicity: FloatArray

    def at(self, parameters: Parameters, point: Point, order: int) -> NoiseState | None:
        """The noise at a point; None where it is singular."""
        ...

    def pooled(self) -> NoiseSide:
        """The same from few levels, if many look alike."""
        ...

    def turned(self, turn: FloatArray) -> NoiseSide:
        """The same with other columns of W."""
        ...


def trace(left: FloatArray, right: FloatArray, multiplicity: FloatArray) -> float:
    """``sum tr left'right`` over levels."""
    return float(np.sum(left * right, axis=(0, 1)) @ multiplicity)


def contracted(left: FloatArray, right: FloatArray) -> FloatArray:
    """``sum left'right`` over effects and levels, from (q, c, m) and (q, k, m), shape (c, k)."""
    flat, other = (
        own.transpose(1, 0, 2).reshape(own.shape[1], len(own) * own.shape[2])
        for own in (left, right)
    )
    return np.asarray(flat @ other.T)


def add_pairs(
    found: Derivatives, slopes: Sequence[NoiseSlope], solved: Solved, multiplicity: FloatArray
) -> None:
    """Add what two first derivatives by parameters of the noise make of each other."""
    if not slopes or not len(solved.h):
        return
    n, counted = len(slopes), found.counted
    turned = np.array([sum_over_rows(solved.h, own.within) for own in slopes])
    value = -np.tensordot(turned * multiplicity, turned.swapaxes(1, 2), ((1, 2, 3), (1, 2, 3)))
    left = np.array([own.left[:, counted] for own in slopes]).reshape(n, -1)
    h_left = np.array([own.h_left[:, counted] for own in slopes]).reshape(n, -1)
    value -= 2.0 * h_left @ left.T / solved.variance
    places = np.array([own.place for own in slopes])
    found.second[np.ix_(places, places)] += np.triu((value + value.T) / 2.0)
