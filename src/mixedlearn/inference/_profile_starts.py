"""Further starts of a constrained fit, where the other parameters may have several optima.

A start near by may stay with an optimum of the other parameters that is not the lowest. There may
be several with few levels, and beside each other where correlations are nearly one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.algebra import smallest_deviation
from mixedlearn.engines.problem import Problem
from mixedlearn.search.starts import FEW_LEVELS

FloatArray = NDArray[np.float64]

# Further starts are tried for up to this many numbers in the reduced data.
FEW_NUMBERS = 20_000
# A standard deviation that is smaller, in natural units, makes D nearly singular.
NEARLY_SINGULAR = 0.1
# Sizes of the effects, relative to those near by.
OTHER_SIZES = (1.0 / 3.0, 3.0)


def other_starts(
    problem: Problem, theta: FloatArray, held: tuple[int, int] | None
) -> list[FloatArray]:
    """Thetas with effects of other sizes, and without correlations; none where one start will do.

    Parameters
    ----------
    problem : Problem
    theta : ndarray of shape (n_parameters,)
        Near by.
    held : tuple of (int, int) or None
        The factor and the effect whose size is not changed.
    """
    if not (len(theta) and problem.engine.size <= FEW_NUMBERS and _may_be_several(problem, theta)):
        return []
    starts = []
    for size in OTHER_SIZES:
        scales = [np.full(len(random.to_user), size) for random in problem.randoms]
        if held is not None:
            scales[held[0]][held[1]] = 1.0
        starts.append(_moved(problem, theta, scales, keep_correlations=True))
    if len(theta) > 1:
        ones = [np.ones(len(random.to_user)) for random in problem.randoms]
        starts.append(_moved(problem, theta, ones, keep_correlations=False))
    return starts


def _may_be_several(problem: Problem, theta: FloatArray) -> bool:
    engine = problem.engine
    smallest = min(smallest_deviation(root) for root in engine.components.roots(theta))
    return min(engine.n_levels) <= FEW_LEVELS or bool(smallest < NEARLY_SINGULAR)


def _moved(
    problem: Problem, theta: FloatArray, scales: list[FloatArray], *, keep_correlations: bool
) -> FloatArray:
    """Theta with the user's effects scaled, and with or without their correlations."""
    components = problem.engine.components
    covariances = []
    # A model without random effects has a structure without a factor.
    for random, structure, own, scale in zip(
        problem.randoms,
        components.structures,
        components.roots(theta),
        scales,
        strict=False,
    ):
        root = scale[:, None] * (random.to_user @ own)
        covariance = root @ root.T if keep_correlations else np.diag(np.square(root).sum(axis=1))
        turned = random.from_user @ covariance @ random.from_user.T
        covariances.append(structure.project(turned))
    return components.theta_of(covariances)
