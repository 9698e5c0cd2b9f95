"""Intervals and curves from a profile: Newton steps on its signed root.

The signed root of a profile is straighter than the profile itself, and its derivative is known (see
`_profilers`), so that few steps lead to the end of an interval.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedlearn.inference._models import normal_quantile
from mixedlearn.inference._profilers import Profiler

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
    inside, outside = origin.value, np.inf * side
    asked_bound = False
    value, near = profiler.guess(root), origin
    for _ in range(MAX_STEPS):
        is_near_bound = (value - bound) * side > -NEAR_BOUND * profiler.scale
        if is_near_bound and not asked_bound:
            asked_bound = True
            if profiler.objective_at_bound(bound) - origin.objective <= root**2:
                return bound
            outside = bound
        if not (value - inside) * side > 0.0 or not (outside - value) * side > 0.0:
            value = (
                (inside + outside) / 2.0 if np.isfinite(outside) else 2.0 * inside - origin.value
            )
        near = profiler.at(value, near)
        reached = abs(signed_root(profiler, near.value, near.objective))
        off = abs(root) - reached
        if off > 0.0:
            inside = near.value
            # The noise next to a random effect of every row, the variance of a single level.
            if abs(inside - bound) < AT_BOUND * profiler.scale or (
                np.isinf(bound) and abs(inside - origin.value) > FAR_OUT * profiler.scale
            ):
                return bound
        else:
            outside = near.value
        by_value = abs(near.slope) / (2.0 * reached) if reached > 0.0 else 0.0
        # Where it has not risen at all, twice as far.
        flat = max(profiler.scale, abs(near.value - origin.value))
        step = side * (off / by_value if by_value > 0.0 else flat)
        value = profiler.moved(near.value, step)
        if abs(off) < ROOT_TOLERANCE or abs(step) < STEP_TOLERANCE * profiler.scale:
            # The last step squares the error.
            return value
    return near.value


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
                near = profiler.exactly_at(value, near)
                objectives[position] = near.objective
    objectives[places == origin.value] = origin.objective
    return objectives
