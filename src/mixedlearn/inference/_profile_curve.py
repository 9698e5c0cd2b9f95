"""Intervals and curves from a profile: Newton steps on its signed root.

The signed root of a profile is straighter than the profile itself, and its derivative is known (see
`_profilers`), so that few steps lead to the end of an interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mixedlearn.inference._models import normal_quantile
from mixedlearn.inference._noise_profilers import make_noise_profiler
from mixedlearn.inference._parameters import Parameter
from mixedlearn.inference._profilers import ProfilePoint, Profiler, make_profiler
from mixedlearn.model.fitted import FittedModel

FloatArray = NDArray[np.float64]

# With the signed root this near to that of the end of an interval, one more step is the last.
ROOT_TOLERANCE = 1e-4
STEP_TOLERANCE = 1e-12
MAX_STEPS = 60
# So near to a bound, relative to the parameter's scale, the bound itself is asked.
NEAR_BOUND = 0.05
# Where the profile has not risen so near to a bound, or so far out, it is flat.
AT_BOUND = 1e-6
FAR_OUT = 1e10
# An objective that is lower by less than this is the same.
SAME_OBJECTIVE = 1e-3


def make_profilers(model: FittedModel) -> Callable[[Parameter], Profiler | None]:
    """From a parameter to its profiler; None where it cannot be estimated."""
    if model.noise is not None:
        return partial(make_noise_profiler, model)
    return partial(make_profiler, model, problem=model.problem())


def signed_root(profiler: Profiler, value: float, objective: float) -> float:
    """The signed root of the profile deviance."""
    deviance = max(objective - profiler.origin.objective, 0.0)
    return float(np.copysign(np.sqrt(deviance), value - profiler.origin.value))


def interval_end(profiler: Profiler, root: float) -> float:
    """Where the signed root of the profile reaches ``root``; a bound if it never does."""
    side = 1.0 if root > 0.0 else -1.0
    bound = profiler.upper if root > 0.0 else profiler.lower
    origin = profiler.origin
    if origin.value == bound or profiler.highest - origin.objective <= root**2:
        return bound
    inside, outside = origin, np.inf * side
    asked_bound = False
    value, near = profiler.guess(root), origin
    for _ in range(MAX_STEPS):
        is_near_bound = (value - bound) * side > -NEAR_BOUND * profiler.scale
        if is_near_bound and not asked_bound:
            asked_bound = True
            if profiler.objective_at_bound(bound) - origin.objective <= root**2:
                return bound
            outside = bound
        if not (value - inside.value) * side > 0.0 or not (outside - value) * side > 0.0:
            is_open = np.isinf(outside)
            value = 2.0 * inside.value - origin.value if is_open else (inside.value + outside) / 2.0
        start, near = near, profiler.at(value, near)
        if start is not inside and _has_reached(profiler, near, root):
            # It may be outside only for the optimum of the others that the start led to.
            near = lower_of(near, profiler.at(value, inside))
        value, is_last = _newton(profiler, near, root)
        if is_last:
            best = near
            for other in profiler.other_starts(near):
                best = lower_of(best, profiler.at(near.value, other))
            if best is near:
                # The last step squares the error.
                return value
            near, outside = best, bound if asked_bound else np.inf * side
            value, _ = _newton(profiler, near, root)
        if _has_reached(profiler, near, root):
            outside = near.value
            continue
        inside = near
        # The noise next to a random effect of every row, the variance of a single level.
        is_at_bound = abs(near.value - bound) < AT_BOUND * profiler.scale
        is_far_out = abs(near.value - origin.value) > FAR_OUT * profiler.scale
        if is_at_bound or (np.isinf(bound) and is_far_out):
            return bound
    return near.value


def _has_reached(profiler: Profiler, point: ProfilePoint, root: float) -> bool:
    return abs(signed_root(profiler, point.value, point.objective)) >= abs(root)


def _newton(profiler: Profiler, point: ProfilePoint, root: float) -> tuple[float, bool]:
    """Where a Newton step on the signed root leads, and whether it is the last."""
    reached = abs(signed_root(profiler, point.value, point.objective))
    off = abs(root) - reached
    by_value = abs(point.slope) / (2.0 * reached) if reached > 0.0 else 0.0
    # Where it has not risen at all, twice as far.
    flat = max(profiler.scale, abs(point.value - profiler.origin.value))
    step = float(np.copysign(1.0, root)) * (off / by_value if by_value > 0.0 else flat)
    is_last = abs(off) < ROOT_TOLERANCE or abs(step) < STEP_TOLERANCE * profiler.scale
    return profiler.moved(point.value, step), is_last


def lower_of(first: ProfilePoint, second: ProfilePoint) -> ProfilePoint:
    """The second if its objective, at the value of the first, is lower by more than rounding."""
    objective = second.objective + second.slope * (first.value - second.value)
    return second if objective < first.objective - SAME_OBJECTIVE else first


def profile_interval(profiler: Profiler, level: float) -> tuple[float, float]:
    """Where twice the decrease of the log-likelihood reaches the quantile of chi-squared(1)."""
    root = normal_quantile(level)
    return interval_end(profiler, -root), interval_end(profiler, root)


def profile_curve(profiler: Profiler, places: Sequence[float] | FloatArray) -> FloatArray:
    """F at every place, each found from its neighbour on the way from the estimate."""
    origin = profiler.origin
    places = np.asarray(places, dtype=float)
    objectives = np.full(len(places), np.nan)
    for side in (-1.0, 1.0):
        near = origin
        of_side = np.flatnonzero((places - origin.value) * side > 0.0)
        for position in of_side[np.argsort(side * places[of_side])]:
            value = float(places[position])
            if value in (profiler.lower, profiler.upper):
                objectives[position] = profiler.objective_at_bound(value)
            else:
                starts = profiler.other_starts(near)
                near = profiler.exactly_at(value, near)
                for start in starts:
                    near = lower_of(near, profiler.exactly_at(value, start))
                objectives[position] = near.objective
    objectives[places == origin.value] = origin.objective
    return objectives
