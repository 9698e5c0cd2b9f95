"""Profiles of the likelihood with a residual structure.

A parameter is drawn to a target by a penalty on its scale (see `_noise_parameters`), ``w/2 (scale -
target)^2``: the minimum of the likelihood and the penalty lies on the profile, at its own value,
and the pull of the penalty is the slope of the profile there. A fixed effect is held by turning the
columns of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.jets import Jet
from mixedlearn.engines.correlated.covariance import Point
from mixedlearn.engines.correlated.likelihood import BlockEvaluation, holding
from mixedlearn.engines.correlated.problem import CorrelatedProblem, NoiseLikelihood
from mixedlearn.engines.recipe import MAX_ITER, TOL
from mixedlearn.inference._noise_parameters import NoiseCoordinates, noise_coordinates
from mixedlearn.inference._parameters import (
    Parameter,
    correlation_of,
    parameter_value,
    parameters,
)
from mixedlearn.inference._profilers import (
    MAX_CORRECTIONS,
    CoefScale,
    ProfilePoint,
    Profiler,
    refuse_restricted,
)
from mixedlearn.model.fitted import FittedModel
from mixedlearn.search.moving import descend_from

FloatArray = NDArray[np.float64]

# How much stiffer than the likelihood the penalty is.
STIFFNESS = 100.0
# How exactly a value is met on its scale; the slope does the rest.
TOLERANCE = 1e-6
# A parameter moves by no more than this on its scale at once.
MOST_STEP = 3.0
# A standard deviation of this share is none, and a correlation so close to an end is there.
NEAR_ZERO = 1e-4
NEAR_END = 1e-8


def make_noise_profiler(model: FittedModel, parameter: Parameter) -> Profiler | None:
    """The profiler of a parameter; None where it cannot be estimated.

    Raises
    ------
    ValueError
        If it is a fixed effect and the criterion the restricted likelihood.
    """
    refuse_restricted(model, parameter)
    value = parameter_value(model, parameter)
    if np.isnan(value):
        return None
    coordinates = noise_coordinates(model)
    if parameter.kind == "coef":
        return _CoefProfiler(model, parameter.effect, coordinates)
    if parameter.kind in ("sd", "correlation"):
        aliased = coordinates.problem.randoms[parameter.factor].aliased
        if value == 0.0 or any(aliased[own] for own in (parameter.effect, parameter.other)):
            return None
    return _DrawnProfiler(model, parameter, coordinates)


class _OnProblem:
    """Another objective in the coordinates of a problem."""

    problem: CorrelatedProblem

    def moved(self, point: Point, step: FloatArray) -> Point:
        return self.problem.moved(point, step)

    def charted(self, point: Point) -> tuple[Point, NDArray[np.intp]]:
        return self.problem.charted(point)

    def lengths(self, point: Point) -> FloatArray:
        return self.problem.lengths(point)


@dataclass(frozen=True)
class _Drawn(_OnProblem):
    """The likelihood with a penalty that draws a parameter to a target on its scale."""

    problem: CorrelatedProblem
    coordinates: NoiseCoordinates
    parameter: Parameter
    target: float
    weight: float

    def on_scale(self, point: Point) -> Jet:
        return self.coordinates.on_scale(self.parameter, point)

    def evaluate(self, point: Point, order: int) -> BlockEvaluation:
        found = self.problem.evaluate(point, order)
        if not np.isfinite(found.objective):
            return found
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            own = self.on_scale(point)
            penalty = own.through(
                0.5 * self.weight * (own.values - self.target) ** 2,
                self.weight * (own.values - self.target),
                self.weight,
            )
        if not np.isfinite(penalty.second).all():
            return replace(found, objective=np.inf)
        return replace(
            found,
            objective=found.objective + penalty.values,
            gradient=found.gradient + penalty.first,
            hessian=found.hessian + penalty.second,
        )


class _DrawnProfiler:
    """A parameter of the covariances."""

    def __init__(self, model: FittedModel, parameter: Parameter, coordinates: NoiseCoordinates):
        self._coordinates = coordinates
        self._parameter = parameter
        self._scale = coordinates.scale(parameter)
        self.lower, self.upper = self._scale.lower, self._scale.upper
        value = parameter_value(model, parameter)
        objective = coordinates.problem.evaluate(coordinates.point, 0).objective
        self.origin = ProfilePoint(value, objective, 0.0, coordinates.point)
        error = coordinates.error(coordinates.on_scale(parameter, coordinates.point))
        self._spread = error if 0.0 < error < MOST_STEP else 1.0
        self._weight = STIFFNESS * 2.0 / self._spread**2
        self.scale = self._spread * self._scale.slope(value)
        self.highest = np.inf
        if parameter.kind == "correlation":
            ends = correlation_of(parameter)
            self.lower, self.upper = ends.lower, ends.upper
            self.highest = min(self._without(model, effects) for effects in ends.freed_by)

    def _without(self, model: FittedModel, effects: frozenset[int]) -> float:
        """F of the model without some random effects."""
        (own,) = (
            _DrawnProfiler(model, found, self._coordinates)
            for found in parameters(model)
            if found.kind == "sd"
            and found.factor == self._parameter.factor
            and set(found.effects) & effects
        )
        return own.objective_at_bound(0.0)

    def guess(self, root: float) -> float:
        """About where the signed root is reached."""
        return self._scale.value(self._scale.of(self.origin.value) + root * self._spread)

    def moved(self, value: float, change: float) -> float:
        """The value moved by a change, on its scale."""
        step = np.clip(change / self._scale.slope(value), -MOST_STEP, MOST_STEP)
        moved = self._scale.value(self._scale.of(value) + float(step))
        return float(np.clip(moved, self.lower, self.upper))

    def at(self, value: float, near: ProfilePoint) -> ProfilePoint:
        """The profile close to a value."""
        pull = near.slope * self._scale.slope(near.value)
        return self._drawn_to(self._scale.of(value) + pull / self._weight, near)

    def exactly_at(self, value: float, near: ProfilePoint) -> ProfilePoint:
        """The profile at a value."""
        place = self._scale.of(value)
        target = place + near.slope * self._scale.slope(near.value) / self._weight
        for _ in range(MAX_CORRECTIONS):
            near = self._drawn_to(target, near)
            off = place - self._scale.of(near.value)
            if abs(off) < TOLERANCE:
                break
            target += off
        return replace(
            near, value=value, objective=near.objective + near.slope * (value - near.value)
        )

    def objective_at_bound(self, bound: float) -> float:
        """F at a bound; infinite where no noise is left."""
        if np.isinf(bound):
            return np.inf
        if self._parameter.kind == "sd":
            return self.exactly_at(NEAR_ZERO * self.origin.value, self.origin).objective
        part = self._parameter.residual
        is_free = part is not None and part.kind == "correlation" and bound == 0.0
        if self._parameter.kind != "correlation" and not is_free:
            return np.inf
        inside = bound + NEAR_END * (self.origin.value - bound)
        return min(self.exactly_at(inside, self.origin).objective, self.highest)

    def other_starts(self, near: ProfilePoint) -> list[ProfilePoint]:
        """None but the one near by."""
        return []

    def _drawn_to(self, target: float, near: ProfilePoint) -> ProfilePoint:
        own = self._coordinates
        drawn = _Drawn(own.problem, own, self._parameter, target, self._weight)
        end = descend_from(drawn, near.theta, max_iter=MAX_ITER, tol=TOL)
        off = drawn.on_scale(end.point).values - target
        value = self._scale.value(target + off)
        objective = end.evaluation.objective - 0.5 * self._weight * off**2
        slope = -self._weight * off / self._scale.slope(value)
        if objective > self.highest:
            return ProfilePoint(value, self.highest, 0.0, end.point)
        return ProfilePoint(value, objective, slope, end.point)


@dataclass(frozen=True)
class _Held(_OnProblem):
    """The likelihood with a fixed effect held."""

    problem: CorrelatedProblem
    likelihood: NoiseLikelihood

    def evaluate(self, point: Point, order: int) -> BlockEvaluation:
        return self.likelihood.evaluate(point, order)


class _CoefProfiler(CoefScale):
    """A fixed effect."""

    def __init__(self, model: FittedModel, coef: int, coordinates: NoiseCoordinates):
        self._problem = coordinates.problem
        fixed = self._problem.fixed
        self._row, self._offset = fixed.scale * fixed.to_user[coef], fixed.offset[coef]
        objective = self._problem.evaluate(coordinates.point, 0).objective
        super().__init__(model, coef, objective, coordinates.point)

    def at(self, value: float, near: ProfilePoint) -> ProfilePoint:
        """The profile at a value."""
        own = value - self._offset
        held = _Held(self._problem, self._problem.likelihood.turned(holding(self._row, own)))
        end = descend_from(held, near.theta, max_iter=MAX_ITER, tol=TOL)
        # The derivative where all coefficients are free: f depends on the value through
        # (value - coef)^2 / variance.
        free = self._problem.evaluate(end.point, 0)
        variance = float(np.square(self._row @ free.inverse_root).sum())
        slope = 2.0 * (own - float(self._row @ free.coef)) / variance
        return ProfilePoint(value, end.evaluation.objective, slope, end.point)

    exactly_at = at

    def other_starts(self, near: ProfilePoint) -> list[ProfilePoint]:
        """None but the one near by."""
        return []
