"""Trust-region Newton-Raphson in local coordinates.

The same steps, model and certificate as in `newton`, for objectives whose parameters are points
that only know how to move: see `covariance.residual.base`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mixedlearn.search.local_model import judge, promised_decrease, trust_region_step
from mixedlearn.search.newton import SMALLEST_RADIUS
from mixedlearn.search.progress import tell_iteration

FloatArray = NDArray[np.float64]

# The objective is a sum of many terms, of which rounding error leaves this much undetermined.
ROUNDING = 1e-14


class MovingObjective(Protocol):
    """An objective of points."""

    def evaluate(self, point: Any, order: int) -> Any:
        """Objective, gradient and Hessian in local coordinates."""
        ...

    def moved(self, point: Any, step: FloatArray) -> Any:
        """The point after a step in local coordinates."""
        ...

    def charted(self, point: Any) -> tuple[Any, NDArray[np.intp]]:
        """The same model in other coordinates, and those that are free there."""
        ...

    def lengths(self, point: Any) -> FloatArray:
        """Natural lengths of the local coordinates."""
        ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """Where a search ended.

    Attributes
    ----------
    point : object
    evaluation : object
    is_certified : bool
    n_iterations : int
    """

    point: Any
    evaluation: Any
    is_certified: bool
    n_iterations: int


@dataclass(frozen=True, slots=True)
class _Model:
    """The quadratic model around a point, in natural lengths and the Hessian's eigenvectors."""

    free: NDArray[np.intp]
    lengths: FloatArray
    slope: FloatArray
    curvature: FloatArray
    vectors: FloatArray

    @property
    def promised(self) -> float:
        """Decrease that the model promises within the natural length; see `LocalModel`."""
        return float(promised_decrease(self.slope, self.curvature))

    def step(self, radius: float) -> tuple[FloatArray, float, float]:
        """A step in all local coordinates, its length, and the decrease that it promises."""
        step = trust_region_step(self.slope, self.curvature, radius)
        promised = -float(step @ (self.slope + 0.5 * self.curvature * step))
        whole = np.zeros(len(self.lengths))
        whole[self.free] = self.lengths[self.free] * (self.vectors @ step)
        return whole, float(np.linalg.norm(step)), promised


def _model(objective: MovingObjective, point: Any, free: NDArray[np.intp], found: Any) -> _Model:
    lengths = objective.lengths(point)
    own = lengths[free]
    hessian = found.hessian[np.ix_(free, free)] * own[:, None] * own
    curvature, vectors = np.linalg.eigh(hessian)
    slope = (found.gradient[free] * own) @ vectors
    return _Model(free, lengths, slope, curvature, vectors)


def descend_from(objective: MovingObjective, start: Any, *, max_iter: int, tol: float) -> Arrival:
    """Minimise from a start by trust-region Newton-Raphson.

    Parameters
    ----------
    objective : MovingObjective
    start : object
        A point.
    max_iter : int
    tol : float
        Promised decrease of the objective at which to stop.
    """
    point, free = objective.charted(start)
    found = objective.evaluate(point, 2)
    radius, n_iterations = 1.0, 0
    if not np.isfinite(found.objective):
        return Arrival(point, found, False, 1)
    model = _model(objective, point, free, found)
    while n_iterations < max_iter:
        rounding = ROUNDING * abs(found.objective) * len(model.lengths)
        step, size, promised = model.step(radius)
        if model.promised <= tol + rounding and promised <= 1e-3 * tol + rounding:
            break
        n_iterations += 1
        tell_iteration()
        trial, trial_free = objective.charted(objective.moved(point, step))
        trial_found = objective.evaluate(trial, 2)
        gained = found.objective - trial_found.objective
        is_accepted, radius = judge(gained, promised, rounding, size, radius)
        if is_accepted and np.isfinite(trial_found.objective):
            point, free, found = trial, trial_free, trial_found
            model = _model(objective, point, free, found)
        elif radius < SMALLEST_RADIUS or promised <= rounding:
            break
    rounding = ROUNDING * abs(found.objective) * len(model.lengths)
    if tol < model.promised <= tol + rounding:
        # The objective tells no step from rounding any more, but the gradient does.
        end, end_free = objective.charted(objective.moved(point, model.step(radius)[0]))
        end_found = objective.evaluate(end, 2)
        if np.isfinite(end_found.objective):
            end_model = _model(objective, end, end_free, end_found)
            if end_model.promised < model.promised:
                point, found, model = end, end_found, end_model
    is_certified = bool(model.promised <= tol + rounding)
    return Arrival(point, found, is_certified, max(n_iterations, 1))
