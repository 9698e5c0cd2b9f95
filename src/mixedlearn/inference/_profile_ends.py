"""Ends of profile intervals: Newton steps on the signed root, within a bracket.

The signed root is nearly straight on the scales on which the profilers move, so few steps suffice.
A step may start from an optimum of the other parameters that is the lowest no more: what lies
outside is asked again from a point inside, and an end from other starts.
"""

from __future__ import annotations

import numpy as np

from mixedlearn.inference._profile import NEAR_BOUND, ProfilePoint, Profiler

# With the signed root this near to that of the end of an interval, one more step is the last.
ROOT_TOLERANCE = 1e-4
STEP_TOLERANCE = 1e-12
MAX_STEPS = 60
# An objective that is lower by less than this is the same.
LOSS = 1e-3


def signed_root(profiler: Profiler, value: float, objective: float) -> float:
    """The signed root of the profile deviance."""
    deviance = max(objective - profiler.origin.objective, 0.0)
    return float(np.copysign(np.sqrt(deviance), value - profiler.origin.value))


def interval_end(profiler: Profiler, root: float) -> float:
    """Where the signed root of the profile reaches ``root``; a bound if it never does."""
    side = 1.0 if root > 0.0 else -1.0
    bound = profiler.upper if root > 0.0 else profiler.lower
    origin = profiler.origin
    if origin.value == bound or profiler.most - origin.objective <= root**2:
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
            value = (
                (inside.value + outside) / 2.0
                if np.isfinite(outside)
                else 2.0 * inside.value - origin.value
            )
        start, near = near, profiler.at(value, near)
        off = abs(root) - abs(signed_root(profiler, near.value, near.objective))
        if off < 0.0 and start is not inside:
            # It may be outside only for the optimum of the others that the start led to.
            near = lower_of(near, profiler.at(value, inside))
        next_value, is_last = _newton(profiler, near, root)
        if is_last:
            best = near
            for other in profiler.other_starts(near):
                best = lower_of(best, profiler.at(near.value, other))
            if best is near:
                # The last step squares the error.
                return next_value
            near, outside = best, bound if asked_bound else np.inf * side
            next_value, _ = _newton(profiler, near, root)
        if abs(signed_root(profiler, near.value, near.objective)) < abs(root):
            inside = near
        else:
            outside = near.value
        value = next_value
    return near.value


def _newton(profiler: Profiler, point: ProfilePoint, root: float) -> tuple[float, bool]:
    """Where a Newton step on the signed root leads, and whether it is the last."""
    reached = abs(signed_root(profiler, point.value, point.objective))
    off = abs(root) - reached
    by_value = abs(point.slope) / (2.0 * reached) if reached > 0.0 else 0.0
    step = np.sign(root) * (off / by_value if by_value > 0.0 else profiler.scale)
    is_last = abs(off) < ROOT_TOLERANCE or abs(step) < STEP_TOLERANCE * profiler.scale
    return profiler.moved(point.value, step), is_last


def lower_of(first: ProfilePoint, second: ProfilePoint) -> ProfilePoint:
    """The second if its objective, at the value of the first, is lower by more than rounding."""
    objective = second.objective + second.slope * (first.value - second.value)
    return second if objective < first.objective - LOSS else first
