"""Profiles of the likelihood: one parameter held at a value, all others optimised.

With f(v) minus twice the log-likelihood maximised over all parameters but one, which is held at v,
the profile deviance is ``f(v) - f(estimate)`` and the signed root its square root with the sign of
``v - estimate`` (Bates & Watts 1988, section 6.1; Bates et al. 2015, section 5.1). At the optimum
over the others, the derivative of f(v) is the partial derivative by v (the envelope theorem), so
the ends of intervals are found by Newton steps on the signed root.

Variance parameters are held by `engines.constrained`, fixed effects by taking them out of the
response and of the columns.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mixedlearn.engines.constrained import (
    ConstrainedEngine,
    DrawnAngle,
    HeldDeviation,
    effects_angle,
    noise_log_variance,
)
from mixedlearn.engines.problem import Problem, make_problem
from mixedlearn.engines.protocol import Engine
from mixedlearn.engines.recipe import MAX_ITER, TOL
from mixedlearn.inference._parameters import (
    Parameter,
    correlation_of,
    largest_pair,
    parameter_value,
)
from mixedlearn.inference._profile_starts import other_starts
from mixedlearn.model.fit import refit
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.submodels import with_coef_held, without_coefs, without_effects
from mixedlearn.search.newton import descend, minimise_from
from mixedlearn.search.starts import from_its_end

FloatArray = NDArray[np.float64]

# A model without an effect whose objective is above that of the fit by more than this bounds no
# interval, so that it need not be the lowest optimum.
FAR_ABOVE = 20.0
# The last step of a descent squares what is left of it.
NEAR_OPTIMUM = 1e-6
# A standard deviation grows or falls by no more than this, in its logarithm, at once.
MOST_LOG_STEP = 3.0
# An estimate below this share of its scale tells nothing about where an interval may end.
NEARLY_ZERO = 0.05
# A target of the penalty is corrected at most so often.
MAX_CORRECTIONS = 60
# Effects whose variances the likelihood can do without by so little have none.
NO_RISE = 1e-7
# Angles of effects: what counts as none, and how exactly a value is met; the slope does the rest.
SMALLEST_ANGLE = 1e-4
ANGLE_TOLERANCE = 1e-7
# An effect with a smaller standard deviation, relative to the noise, has none.
NO_DEVIATION = 1e-7
# How much stiffer than the likelihood the penalty on an angle is.
STIFFNESS = 1e3


@dataclass(frozen=True, slots=True)
class ProfilePoint:
    """A point of a profile.

    Attributes
    ----------
    value : float
        Where the parameter is held, in the user's units.
    objective : float
        f there.
    slope : float
        The derivative of f by the value.
    theta : ndarray of shape (n_parameters,), or Point
        The others' optimum, in the engine's columns.
    """

    value: float
    objective: float
    slope: float
    theta: Any


class Profiler(Protocol):
    """The profile of one parameter, between two bounds; f is nowhere above ``highest``."""

    origin: ProfilePoint
    lower: float
    upper: float
    scale: float
    highest: float

    def guess(self, root: float) -> float:
        """About where the signed root is reached."""
        ...

    def moved(self, value: float, change: float) -> float:
        """The value moved by a small change, on a scale on which the signed root is straighter."""
        ...

    def at(self, value: float, near: ProfilePoint) -> ProfilePoint:
        """The profile at (or, for an angle, close to) a value strictly between the bounds."""
        ...

    def exactly_at(self, value: float, near: ProfilePoint) -> ProfilePoint:
        """The profile at a value strictly between the bounds."""
        ...

    def objective_at_bound(self, bound: float) -> float:
        """F at a bound of the parameter; infinite where that is no model."""
        ...

    def other_starts(self, near: ProfilePoint) -> list[ProfilePoint]:
        """Points to start from, beside the one near by, where there may be several optima."""
        ...


def make_profiler(model: FittedModel, parameter: Parameter, problem: Problem) -> Profiler | None:
    """The profiler of a parameter; None where it cannot be estimated.

    Raises
    ------
    ValueError
        If it is a fixed effect and the criterion the restricted likelihood.
    """
    refuse_restricted(model, parameter)
    if model.fixed_basis.is_exact or np.isnan(parameter_value(model, parameter)):
        return None
    if parameter.kind == "coef":
        return CoefProfiler(model, parameter.effect, problem)
    if parameter.kind == "correlation":
        correlation = CorrelationProfiler(model, parameter, problem)
        is_flat = correlation.highest - model.objective < NO_RISE
        return None if is_flat else correlation
    if parameter.kind == "sd" and model.random_bases[parameter.factor].aliased[parameter.effect]:
        return None
    return DeviationProfiler(model, parameter, problem)


def refuse_restricted(model: FittedModel, parameter: Parameter) -> None:
    """Refuse a profile of the restricted likelihood over a fixed effect.

    Raises
    ------
    ValueError
    """
    if model.specification.reml and parameter.kind == "coef":
        raise ValueError(
            f"The restricted likelihood has no profile over the fixed effect {parameter.name!r}: "
            "restricted likelihoods with different fixed effects do not compare. Set reml=False."
        )


def _theta(model: FittedModel, engine: Engine) -> FloatArray:
    """Theta of the fit, in the engine's columns."""
    return engine.components.theta_of_roots(model.roots) if model.roots else np.empty(0)


def _other_points(
    problem: Problem, origin: ProfilePoint, near: ProfilePoint, held: tuple[int, int] | None
) -> list[ProfilePoint]:
    """Where else to start: at the fit, and where `other_starts` says."""
    starts = [replace(near, theta=theta) for theta in other_starts(problem, near.theta, held)]
    return [*([] if near is origin else [origin]), *starts] if starts else []


def _objective_without(model: FittedModel, k: int, effects: Set[int]) -> float:
    """F of the model without some random effects of a factor."""
    sums, specification = without_effects(model.sums, model.specification, k, effects)
    return refit(model, sums=sums, specification=specification).objective


def _bound_without(model: FittedModel, k: int, effects: Set[int]) -> float:
    """The same, or that of another optimum where both are too high to bound an interval."""
    sums, specification = without_effects(model.sums, model.specification, k, effects)
    engine = make_problem(sums, model.recipe.of(specification)).engine
    if engine.components.n_parameters:
        start = engine.components.theta_of(engine.start())
        first = minimise_from(engine, start, MAX_ITER, TOL).evaluation.objective
        if first - model.objective > FAR_ABOVE:
            return first
    return _objective_without(model, k, effects)


class DeviationProfiler:
    """The standard deviation of a random effect, or of the noise."""

    lower, upper = 0.0, np.inf
    highest = np.inf

    def __init__(self, model: FittedModel, parameter: Parameter, problem: Problem):
        self._model = model
        self._problem = problem
        self._engine: Engine = problem.engine
        self._df = model.likelihood_df
        self._parameter = parameter
        self._unit = problem.fixed.scale
        theta = _theta(model, self._engine)
        value = parameter_value(model, parameter)
        self.origin = ProfilePoint(value, model.objective, 0.0, theta)
        if parameter.kind == "noise":
            self._factor: int | None = None
            self._row = np.empty(0)
            self.scale = value
            self._spread = 1.0 / np.sqrt(2.0 * self._df)
        else:
            self._factor = parameter.factor
            self._random = problem.randoms[parameter.factor]
            self._row = self._random.to_user[parameter.effect]
            n_levels = model.sums.n_levels[parameter.factor]
            noise = np.sqrt(model.noise_variance)
            natural = float(noise * np.linalg.norm(self._row) / n_levels**0.25)
            self.scale = max(value, natural)
            self._spread = 1.0 / np.sqrt(2.0 * n_levels)

    def guess(self, root: float) -> float:
        """About where the signed root is reached."""
        if self.origin.value < NEARLY_ZERO * self.scale:
            return abs(root) * self.scale if root > 0.0 else 0.0
        return self.origin.value * float(np.exp(root * self._spread))

    def moved(self, value: float, change: float) -> float:
        """The value moved by a change, on the scale of its logarithm."""
        return value * float(np.exp(np.clip(change / value, -MOST_LOG_STEP, MOST_LOG_STEP)))

    def at(self, value: float, near: ProfilePoint) -> ProfilePoint:
        """The profile at a value."""
        held = HeldDeviation(self._factor, self._row, value / self._unit)
        constrained = ConstrainedEngine(self._engine, self._df, held)
        start = self._start(value, near)
        search = partial(descend, constrained, max_iter=MAX_ITER, tol=NEAR_OPTIMUM)
        optimum = from_its_end(search(start), search)
        evaluation = optimum.evaluation
        tau = noise_log_variance(self._engine.components.roots(evaluation.theta), held)
        by_tau = self._df * (1.0 - float(np.exp(np.log(evaluation.fixed.noise_variance) - tau)))
        return ProfilePoint(value, evaluation.objective, 2.0 * by_tau / value, evaluation.theta)

    exactly_at = at

    def objective_at_bound(self, bound: float) -> float:
        """F where the random effect has no variance."""
        if self._factor is None or bound > 0.0:
            return np.inf
        return _objective_without(self._model, self._factor, set(self._parameter.effects))

    def other_starts(self, near: ProfilePoint) -> list[ProfilePoint]:
        """Points to start from, beside the one near by."""
        held = None if self._factor is None else (self._factor, self._parameter.effect)
        return _other_points(self._problem, self.origin, near, held)

    def _start(self, value: float, near: ProfilePoint) -> FloatArray:
        """Theta near by, with this effect's deviation scaled as the value is."""
        if self._factor is None:
            return near.theta
        components = self._engine.components
        roots = list(components.roots(near.theta))
        own = roots[self._factor]
        structure = components.structures[self._factor]
        if float(np.linalg.norm(self._row @ own)) > 0.0:
            scaling = np.ones(len(self._random.to_user))
            ratio = value / near.value if near.value > 0.0 else 1.0
            scaling[list(self._parameter.effects)] = ratio
            roots[self._factor] = self._random.from_user * scaling @ self._random.to_user @ own
            return components.theta_of_roots(roots)
        noise = self._engine.evaluate(near.theta, 0).fixed.noise_variance
        square = float(self._row @ self._row)
        needed = (value / self._unit) ** 2 / noise
        added = needed * np.outer(self._row, self._row) / square**2
        covariances = [root @ root.T for root in roots]
        covariances[self._factor] = structure.project(own @ own.T + added)
        return components.theta_of(covariances)


class CorrelationProfiler:
    """The correlation of two random effects of a level, or of several pairs.

    Where one of the two has no variance any correlation will do, so the profile never rises above
    that of the models without one of them; see `Correlation.freed_by`.
    """

    scale = 1.0

    def __init__(self, model: FittedModel, parameter: Parameter, problem: Problem):
        self._problem = problem
        self._engine: Engine = problem.engine
        self._df = model.likelihood_df
        self._factor = parameter.factor
        random = problem.randoms[parameter.factor]
        self._to_user, self._from_user = random.to_user, random.from_user
        correlation = correlation_of(parameter)
        self.lower, self.upper = correlation.lower, correlation.upper
        self._pairs = correlation.pairs
        covariance = model.covariances[parameter.factor]
        self._effects = largest_pair(covariance, correlation)
        self._row, self._other = (random.to_user[effect] for effect in self._effects)
        theta = _theta(model, self._engine)
        value = parameter_value(model, parameter)
        self.origin = ProfilePoint(value, model.objective, 0.0, theta)
        n_levels = model.sums.n_levels[parameter.factor]
        self._spread = 1.0 / np.sqrt(n_levels)
        self._weight = STIFFNESS * n_levels
        self.highest = min(
            _bound_without(model, parameter.factor, effects) for effects in correlation.freed_by
        )

    def guess(self, root: float) -> float:
        """About where the signed root is reached."""
        centre = np.arctanh(np.clip(self.origin.value, -0.99, 0.99))
        return self._inside(float(np.tanh(centre + root * self._spread)))

    def _inside(self, value: float) -> float:
        """The value, but for its distance from the ends; the least angle where they are one."""
        first, last = np.arccos(self.upper), np.arccos(self.lower)
        least = min(SMALLEST_ANGLE, (last - first) / 4.0)
        return float(np.cos(np.clip(np.arccos(value), first + least, last - least)))

    def moved(self, value: float, change: float) -> float:
        """The value moved by a change, on the scale of the angle."""
        angle = np.arccos(value)
        turned = angle - change / max(np.sin(angle), SMALLEST_ANGLE)
        return float(np.cos(np.clip(turned, np.arccos(self.upper), np.arccos(self.lower))))

    def at(self, value: float, near: ProfilePoint) -> ProfilePoint:
        """The profile close to a value."""
        angle = float(np.arccos(value))
        # Where the likelihood pulls as it did near by, the penalty has to pull the other way.
        pull = -near.slope * np.sin(np.arccos(near.value))
        return self._bounded(self._drawn_to(angle + pull / self._weight, near))

    def _bounded(self, point: ProfilePoint) -> ProfilePoint:
        if point.objective <= self.highest:
            return point
        return replace(point, objective=self.highest, slope=0.0)

    def exactly_at(self, value: float, near: ProfilePoint) -> ProfilePoint:
        """The profile at a value."""
        angle = float(np.arccos(value))
        target = angle - near.slope * np.sin(np.arccos(near.value)) / self._weight
        for _ in range(MAX_CORRECTIONS):
            near = self._drawn_to(target, near)
            off = angle - float(np.arccos(near.value))
            if abs(off) < ANGLE_TOLERANCE:
                break
            target += off
        objective = near.objective + near.slope * (value - near.value)
        return self._bounded(replace(near, value=value, objective=objective))

    def objective_at_bound(self, bound: float) -> float:
        """F where the two effects are as correlated as they can be."""
        inside = self._inside(bound)
        point = self.exactly_at(inside, self.origin)
        # At one the way is nothing but the least angle, and a slope by the value has no limit.
        way = 0.0 if abs(bound) == 1.0 else bound - inside
        return point.objective + point.slope * way

    def other_starts(self, near: ProfilePoint) -> list[ProfilePoint]:
        """Points to start from, beside the one near by."""
        held = self._factor, self._effects[0]
        return _other_points(self._problem, self.origin, near, held)

    def _drawn_to(self, target: float, near: ProfilePoint) -> ProfilePoint:
        drawn = DrawnAngle(self._factor, self._row, self._other, target, self._weight)
        constrained = ConstrainedEngine(self._engine, self._df, drawn)
        start = self._start(near, target)
        optimum = descend(constrained, start, max_iter=MAX_ITER, tol=NEAR_OPTIMUM)
        evaluation = optimum.evaluation
        own = self._engine.components.roots(evaluation.theta)[self._factor]
        if min(np.linalg.norm(row @ own) for row in (self._row, self._other)) < NO_DEVIATION:
            # The angle is rounding error: this is the model without one of the effects.
            return ProfilePoint(float(np.cos(target)), self.highest, 0.0, evaluation.theta)
        angle = effects_angle(own, self._row, self._other)
        off = angle - target
        objective = evaluation.objective - 0.5 * self._weight * off**2
        slope = self._weight * off / max(float(np.sin(angle)), SMALLEST_ANGLE)
        return ProfilePoint(float(np.cos(angle)), objective, slope, evaluation.theta)

    def _start(self, near: ProfilePoint, target: float) -> FloatArray:
        """Theta near by, with the correlation set to that of the target."""
        components = self._engine.components
        covariances = [root @ root.T for root in components.roots(near.theta)]
        covariance = self._to_user @ covariances[self._factor] @ self._to_user.T
        value = self._inside(float(np.cos(np.clip(target, 0.0, np.pi))))
        for i, j in self._pairs:
            size = float(np.sqrt(max(covariance[i, i] * covariance[j, j], 0.0)))
            covariance[i, j] = covariance[j, i] = size * value
        turned = self._from_user @ covariance @ self._from_user.T
        # What one correlation does to the others may need mending.
        structure = components.structures[self._factor]
        covariances[self._factor] = structure.project(turned)
        return components.theta_of(covariances)


class CoefScale:
    """Where the profile of a fixed effect lies; of the likelihood, not the restricted one.

    Attributes
    ----------
    origin : ProfilePoint
    scale : float
    """

    lower, upper = -np.inf, np.inf
    highest = np.inf

    def __init__(self, model: FittedModel, coef: int, objective: float, theta: Any):
        self.origin = ProfilePoint(float(model.coef[coef]), objective, 0.0, theta)
        self.scale = float(np.sqrt(model.coef_covariance[coef, coef]))

    def guess(self, root: float) -> float:
        """About where the signed root is reached."""
        return self.origin.value + root * self.scale

    def moved(self, value: float, change: float) -> float:
        """The value moved by a change."""
        return value + change

    def objective_at_bound(self, bound: float) -> float:
        """A fixed effect has no bounds."""
        return np.inf


class CoefProfiler(CoefScale):
    """A fixed effect."""

    def __init__(self, model: FittedModel, coef: int, problem: Problem):
        aliased = model.fixed_basis.aliased
        # An aliased column would take the place of the one that is held.
        self._recipe = model.recipe.of(
            without_coefs(model.specification, set(np.flatnonzero(aliased).tolist()))
        )
        self._sums = model.sums
        self._coef = int((~aliased[:coef]).sum())
        self._problem = problem
        self._engine: Engine = problem.engine
        self._fixed = problem.fixed
        self._row = coef
        super().__init__(model, coef, model.objective, _theta(model, self._engine))

    def at(self, value: float, near: ProfilePoint) -> ProfilePoint:
        """The profile at a value."""
        sums, specification = with_coef_held(
            self._sums, self._recipe.specification, self._coef, value
        )
        problem = make_problem(sums, self._recipe.of(specification), randoms=self._problem.randoms)
        search = partial(descend, problem.engine, max_iter=MAX_ITER, tol=NEAR_OPTIMUM)
        optimum = from_its_end(search(near.theta), search)
        evaluation = optimum.evaluation
        # The derivative at this theta, where all coefficients are free: f depends on the value
        # through r2(free) + (value - coef)^2 / variance.
        free = self._engine.evaluate(evaluation.theta, 0).fixed
        row = self._fixed.to_user[self._row]
        estimate = self._fixed.offset[self._row] + self._fixed.scale * float(row @ free.coef)
        variance = float(np.square(row @ free.inverse_root).sum())
        noise = evaluation.fixed.noise_variance * problem.fixed.scale**2
        slope = 2.0 * (value - estimate) / (variance * noise)
        return ProfilePoint(value, evaluation.objective, slope, evaluation.theta)

    exactly_at = at

    def other_starts(self, near: ProfilePoint) -> list[ProfilePoint]:
        """Points to start from, beside the one near by."""
        return _other_points(self._problem, self.origin, near, None)
