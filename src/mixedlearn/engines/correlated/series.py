"""Series within levels: any structure, beside random effects of factors above the series.

The rows of a series have a dense covariance R of their own. In it are the random effects of factors
whose levels are the series; the effects of factors above join several series. With ``P = R^-1``,
``F = P [Z W]`` after the columns are turned (see `effects_likelihood`), and N the sum of
``F_z H F_z'`` and of the squares that the objective holds, the derivatives have for every pattern

    <R_a, n P - N>,   tr(R_a P R_b (2 N - n P)) + <R_ab, n P - N>

as in `likelihood`, and ``Z'P_a U = -F_z'R_a F``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from mixedlearn.engines.correlated.covariance import BlockCovariance, Parameters, Point
from mixedlearn.engines.correlated.effects import (
    Derivatives,
    LevelRows,
    NoiseSlope,
    Solved,
)
from mixedlearn.engines.correlated.likelihood import (
    Patterns,
    Rotated,
    inverses_by_pattern,
    outer_by_pattern,
    quadratic_forms,
)
from mixedlearn.engines.levels import sum_over_rows

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class SeriesSet:
    """Series whose rows are laid out in one table of places.

    Attributes
    ----------
    rows : ndarray of shape (n_series, T), int
        The row in every place, pattern by pattern; -1 where there is none.
    patterns : Patterns
        With no rows of its own.
    level : ndarray of shape (n_series,), int
        The level of the effects of every series.
    model : BlockCovariance
        R, where the scale is one.
    """

    rows: IntArray
    patterns: Patterns
    level: IntArray
    model: BlockCovariance

    def padded(self, rows: FloatArray) -> FloatArray:
        """Rows in their places, shape (n_series, T, c), zero where there are none."""
        return np.where(self.rows[..., None] >= 0, rows[self.rows], 0.0)

    def of_series(self, direction: FloatArray) -> FloatArray:
        """A direction of every series, from one of all (T, T) or of every pattern."""
        return direction if direction.ndim == 2 else direction[self.patterns.pattern]

    def put(self, found: FloatArray, padded: FloatArray) -> None:
        """Rows from their places."""
        is_there = self.rows >= 0
        found[self.rows[is_there]] = padded[is_there]


class SeriesSide:
    """Series within levels: a `NoiseSide`.

    Parameters
    ----------
    rows : LevelRows
        With the random columns of factors above the series alone.
    sets : sequence of SeriesSet
    """

    def __init__(self, rows: LevelRows, sets: Sequence[SeriesSet]):
        self.projection = rows.projection()
        self.multiplicity = np.ones(rows.n_levels)
        self.rows = rows.less(self.projection)
        self.sets = list(sets)

    def at(self, parameters: Parameters, point: Point, order: int) -> SeriesState | None:
        """The noise at a point; None where it is singular."""
        try:
            return SeriesState(self, parameters, replace(point, log_scale=0.0))
        except np.linalg.LinAlgError:
            return None

    def pooled(self) -> SeriesSide:
        """These: series of one pattern differ in their level."""
        return self

    def turned(self, turn: FloatArray) -> SeriesSide:
        """The same with other columns of W."""
        other = copy(self)
        other.rows = self.rows.turned(turn)
        other.projection = np.matmul(turn.T, self.projection)
        return other


class SeriesState:
    """Series at a point: a `NoiseState`.

    Parameters
    ----------
    side : SeriesSide
    parameters : Parameters
    point : Point
        With a scale of one.
    """

    def __init__(self, side: SeriesSide, parameters: Parameters, point: Point):
        self._side, self._parameters, self._point = side, parameters, point
        self._models = [own.model.with_parameters(parameters) for own in side.sets]
        self.log_det = 0.0
        self._inverses = []
        for own, model in zip(side.sets, self._models, strict=True):
            inverse, log_det = inverses_by_pattern(model.covariance(point), own.patterns)
            self._inverses.append(inverse)
            self.log_det += log_det
        self._z = self.times(side.rows.z)
        turned = np.hstack([self._z, self.times(side.rows.w)])
        self.products = side.rows.products(turned)

    def times(self, rows: FloatArray) -> FloatArray:
        """P times rows."""
        found = np.zeros_like(rows)
        for own, inverse in zip(self._side.sets, self._inverses, strict=True):
            own.put(found, inverse[own.patterns.pattern] @ own.padded(rows))
        return found

    def _directions(self) -> Iterator[tuple[SeriesSet, NDArray[np.intp], FloatArray]]:
        """For every set the places of the parameters that it depends on, and the R_a."""
        for own, model in zip(self._side.sets, self._models, strict=True):
            directions = model.directions(self._point)
            places = np.flatnonzero(directions.reshape(len(directions), -1).any(axis=1))
            if self._parameters.is_relative:
                # The scale is no matter of R.
                places = places[places > 0]
            yield own, places, directions[places]

    def add_noise(self, found: Derivatives, solved: Solved) -> list[NoiseSlope]:
        """Add derivatives by the parameters of R; return those of the products."""
        side, s2 = self._side, solved.variance
        left = side.rows.w @ solved.turn - side.rows.effects(solved.he)
        whole = self.times(left)
        slopes: dict[int, NoiseSlope] = {}
        models = zip(self._models, self._inverses, self._directions(), strict=True)
        for model, inverse, (own, places, directions) in models:
            rows, z = own.padded(whole), own.padded(self._z)
            turned = z @ np.moveaxis(solved.h[:, :, own.level], -1, 0)
            of_effects = outer_by_pattern(turned, z, own.patterns)
            counted = rows[..., found.counted]
            outer = of_effects + outer_by_pattern(counted, counted, own.patterns) / s2
            expected = own.patterns.counts[:, None, None] * inverse
            is_shared = directions.ndim == 3
            excess = (expected - of_effects).sum(axis=0) if is_shared else expected - of_effects
            weights = (expected - outer).sum(axis=0) if is_shared else expected - outer
            found.second += np.triu(self._second(model, weights))
            if not len(places):
                # Series of one row have no correlation.
                continue
            found.first[places] += directions.reshape(len(places), -1) @ excess.ravel()
            hessian, forms = quadratic_forms(
                directions, Rotated(inverse, rows), own.patterns, 2.0 * outer - expected
            )
            found.second[np.ix_(places, places)] += np.triu(hessian)
            found.forms[places] -= forms / s2
            if len(solved.h):
                self._add_slopes(slopes, own, places, directions, z, rows)
        for place, slope in slopes.items():
            h_left = sum_over_rows(solved.h, slope.left)
            slopes[place] = replace(slope, h_left=h_left)
        return list(slopes.values())

    def _second(self, model: BlockCovariance, weights: FloatArray) -> FloatArray:
        """``<R_ab, weights>``, without the scale."""
        found = model.second(self._point, weights)
        if self._parameters.is_relative:
            found[0] = found[:, 0] = 0.0
        return found

    def _add_slopes(
        self,
        slopes: dict[int, NoiseSlope],
        own: SeriesSet,
        places: NDArray[np.intp],
        directions: FloatArray,
        z: FloatArray,
        rows: FloatArray,
    ) -> None:
        """Add ``Z'P_a [Z, W J]`` of the series of a set to those of all."""
        q, n, m = z.shape[2], len(own.level), self._side.rows.n_levels
        by_level = csr_array((np.ones(n), (own.level, np.arange(n))), (m, n))
        both = np.concatenate([z, rows], axis=2)
        for place, direction in zip(places.tolist(), directions, strict=True):
            products = z.swapaxes(-1, -2) @ (own.of_series(direction) @ both)
            sums = -(by_level @ products.reshape(n, -1)).reshape(m, q, -1).transpose(1, 2, 0)
            within, left = sums[:, :q], sums[:, q:]
            if place in slopes:
                within, left = within + slopes[place].within, left + slopes[place].left
            slopes[place] = NoiseSlope(place, within, left, left)

    def moves(self, left: FloatArray) -> dict[int, FloatArray]:
        """``R_a P rows`` for every parameter of R, by its place."""
        rows = self.times(left)
        found: dict[int, FloatArray] = {}
        for own, places, directions in self._directions():
            padded = own.padded(rows)
            for place, direction in zip(places.tolist(), directions, strict=True):
                moved = own.of_series(direction) @ padded
                own.put(found.setdefault(place, np.zeros_like(rows)), moved)
        return found
