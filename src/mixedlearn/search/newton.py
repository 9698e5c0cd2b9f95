"""The optimiser of one objective: EM steps, then trust-region Newton-Raphson to a certificate.

A zero column of Lambda is always stationary and often a saddle; the exact trust-region step
(Nocedal & Wright 2006, section 4.3) follows negative curvature away from it. The steps and the
certificate are those of `local_model`; what is special to one objective is here: EM steps from far
away, steps along straight lines in D, and variances that are set to exactly zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.components import VarianceComponents
from mixedlearn.engines.protocol import Engine, Evaluation, Objective
from mixedlearn.search.local_model import (
    FLAT_CURVATURE,
    POOR_AGREEMENT,
    LocalModel,
    evaluate_with_model,
    judge,
    trust_region_step,
)
from mixedlearn.search.progress import tell_iteration

FloatArray = NDArray[np.float64]

N_EM_STEPS = 2
# Where Newton's step is shorter than this, in natural lengths, it is better than EM's.
NEAR = 0.5
# A standard deviation below this, in natural units, is set to zero if the objective agrees.
SMALL_DEVIATION = 0.03
# A standard deviation below this is zero but for rounding.
ROUNDING_DEVIATION = 1e-12
# Average information is no Hessian, and with few data far from it: the last steps do not square the
# error, so go on for longer.
AVERAGE_SHARE = 1e-4
# Objectives closer than this are equal: a variance may be set to zero, another start gains nothing.
ZERO_LOSS = 1e-9
SMALLEST_RADIUS = 1e-10
# Standard deviations with which what a chart does not see is tried.
WAY_OUT_SIZES = (0.3, 0.03, 0.003)
# So often, at most, a search goes on from there.
MOST_WAYS_OUT = 5
# Up to this many numbers in the reduced data are few.
FEW_DATA = 100_000


@dataclass(frozen=True, slots=True)
class Optimum:
    """What the optimiser found.

    Attributes
    ----------
    evaluation : Evaluation
        The objective at the optimum.
    is_certified : bool
        Whether the quadratic model promises less than the tolerance (and rounding error).
    n_iterations : int
        EM and Newton steps taken; at least one.
    errors : object, optional
        Sampling errors, where derivatives are estimated.
    """

    evaluation: Evaluation
    is_certified: bool
    n_iterations: int
    errors: Any = None


@dataclass(frozen=True, slots=True)
class State:
    """An evaluation of order 2 with its quadratic model."""

    evaluation: Evaluation
    model: LocalModel


def state_at(engine: Objective, theta: FloatArray) -> State:
    """The evaluation at a theta, with its model."""
    return State(*evaluate_with_model(engine, theta))


def minimise_from(engine: Engine, start: FloatArray, max_iter: int, tol: float) -> Optimum:
    """The optimum that one start leads to."""
    state, n_iterations = em_steps(engine, state_at(engine, start), max_iter)
    return _descend(engine, state, n_iterations, max_iter, tol)


def descend(engine: Objective, start: FloatArray, *, max_iter: int, tol: float) -> Optimum:
    """Minimise by Newton-Raphson alone, from a start that is near.

    For objectives that EM is not meant for; the arguments are those of `minimise`.
    """
    if engine.components.n_parameters == 0:
        return Optimum(engine.evaluate(np.empty(0), 0), True, 1)
    return _descend(engine, state_at(engine, start), 0, max_iter, tol)


def _descend(
    engine: Objective, state: State, n_iterations: int, max_iter: int, tol: float
) -> Optimum:
    optimum = _arrive(engine, state, n_iterations, max_iter, tol)
    for _ in range(MOST_WAYS_OUT):
        way_out = _way_out(engine, optimum.evaluation)
        if way_out is None:
            return optimum
        optimum = _arrive(engine, state_at(engine, way_out), optimum.n_iterations, max_iter, tol)
    return replace(optimum, is_certified=False)


def _way_out(engine: Objective, evaluation: Evaluation) -> FloatArray | None:
    """A lower theta near by that no derivative shows; see `Structure.ways_out`."""
    components = engine.components
    if all(structure.is_linear for structure in components.structures):
        return None
    theta = evaluation.theta
    gradients = engine.evaluate(theta, 1).covariance_gradients
    best, lowest = None, evaluation.objective - ZERO_LOSS - evaluation.rounding
    for structure, own, gradient in zip(
        components.structures, components.slices, gradients, strict=True
    ):
        for size in WAY_OUT_SIZES:
            for moved in structure.ways_out(theta[own], gradient, size):
                trial = theta.copy()
                trial[own] = moved
                objective = engine.evaluate(trial, 0).objective
                if objective < lowest:
                    best, lowest = trial, objective
    return best


def _arrive(
    engine: Objective, state: State, n_iterations: int, max_iter: int, tol: float
) -> Optimum:
    """Descend to where nothing more is promised."""
    while True:
        state, n_iterations = _newton(engine, state, n_iterations, max_iter, tol)
        settled = _settle(engine, state)
        if settled is not None and settled.model.is_minimum(tol):
            state = settled
        if state.model.is_minimum(tol) or settled is None or n_iterations >= max_iter:
            break
        state = settled
    polished = _polish(engine, state)
    if not state.model.is_minimum(tol):
        # What kept the certificate away may have been an error of the size that polishing squares.
        state = state_at(engine, polished.theta)
    polished = _without_rounding(engine, polished)
    return Optimum(polished, bool(state.model.is_minimum(tol)), max(n_iterations, 1))


def em_steps(engine: Engine, state: State, max_iter: int) -> tuple[State, int]:
    """Take EM steps while far away: they never increase the objective and cope with any start."""
    components = engine.components
    n_steps = 0
    while state.model.newton_length > NEAR and n_steps < min(N_EM_STEPS, max_iter - 1):
        evaluation = state.evaluation
        updated = [
            structure.em_update(root @ root.T, gradient, n_levels)
            for structure, root, gradient, n_levels in zip(
                components.structures,
                components.roots(evaluation.theta),
                evaluation.covariance_gradients,
                engine.n_levels,
                strict=True,
            )
        ]
        known = [covariance for covariance in updated if covariance is not None]
        if len(known) < len(updated):
            break
        state = state_at(engine, components.theta_of(known))
        n_steps += 1
        tell_iteration()
    return state, n_steps


def _newton(
    engine: Objective, state: State, n_iterations: int, max_iter: int, tol: float
) -> tuple[State, int]:
    """Trust-region Newton-Raphson until the certificate holds or nothing more can be gained."""
    radius = 1.0
    is_rough = not engine.has_exact_hessian and engine.size <= FEW_DATA
    goal = AVERAGE_SHARE * tol if is_rough else tol
    while not state.model.is_minimum(goal) and n_iterations < max_iter:
        model, objective = state.model, state.evaluation.objective
        step = trust_region_step(model.slope, model.curvature, radius)
        promised = float(model.promised_by(step))
        trial = state_at(engine, model.moved(step))
        if objective - trial.evaluation.objective < POOR_AGREEMENT * promised:
            straight = state_at(engine, _straight_step(engine.components, model, step))
            if straight.evaluation.objective < trial.evaluation.objective:
                trial = straight
        gained = objective - trial.evaluation.objective
        n_iterations += 1
        tell_iteration()
        rounding = state.evaluation.rounding
        if promised <= rounding:
            return (trial if gained >= 0.0 else state), n_iterations
        size = np.linalg.norm(step)
        is_accepted, radius = judge(gained, promised, rounding, size, radius)
        if is_accepted:
            state = trial
        elif radius < SMALLEST_RADIUS:
            return state, n_iterations
    return state, n_iterations


def _straight_step(
    components: VarianceComponents, model: LocalModel, step: FloatArray
) -> FloatArray:
    """The same step taken along a straight line in D instead of in Lambda.

    Where columns are nearly collinear, the data determine little more than a linear combination of
    variances: a valley that is straight in D and curved in Lambda.
    """
    covariances = []
    moved = components.roots(model.moved(step))
    origin = components.roots(model.theta)
    for structure, root, end in zip(components.structures, origin, moved, strict=True):
        change = end - root
        covariance = root @ root.T + root @ change.T + change @ root.T
        covariances.append(structure.project(covariance))
    return components.theta_of(covariances)


def _settle(engine: Objective, state: State) -> State | None:
    """Set variances that the data cannot tell from zero to exactly zero.

    Returns None where there is nothing to set, or where the objective would suffer.
    """
    components, theta, model = engine.components, state.model.theta, state.model
    stiffness = np.zeros(components.n_parameters)
    stiffness[model.free] = np.abs(np.square(model.vectors) @ model.curvature)
    candidates: list[tuple[float, NDArray[np.intp], FloatArray]] = []
    for structure, own in zip(components.structures, components.slices, strict=True):
        for end in structure.settlements(theta[own]):
            is_flat = stiffness[own][end.entries].max(initial=0.0) < FLAT_CURVATURE
            is_there = np.array_equal(theta[own][end.entries], end.values)
            if (end.size < SMALL_DEVIATION or is_flat) and not is_there:
                candidates.append((end.size, own.start + end.entries, end.values))
    settled = None
    most = state.evaluation.objective + ZERO_LOSS
    for _, entries, values in sorted(candidates, key=lambda candidate: candidate[0]):
        moved = theta.copy()
        moved[entries] = values
        trial = engine.evaluate(moved, 0)
        if trial.objective <= most + trial.rounding:
            theta = settled = moved
    return None if settled is None else state_at(engine, settled)


def _polish(engine: Objective, state: State) -> Evaluation:
    """Take the last Newton step: it squares the error for the price of one objective."""
    model, evaluation = state.model, state.evaluation
    if not engine.has_exact_hessian and model.promised_decrease <= evaluation.rounding:
        # Another step would not square the error, and may be dear.
        return evaluation
    polished = engine.evaluate(model.newton_end(), 0)
    loss = polished.objective - evaluation.objective
    return polished if loss <= evaluation.rounding else evaluation


def _without_rounding(engine: Objective, evaluation: Evaluation) -> Evaluation:
    """The evaluation with variances that are zero but for rounding set to zero."""
    theta = evaluation.theta.copy()
    components = engine.components
    for structure, own in zip(components.structures, components.slices, strict=True):
        for end in structure.settlements(theta[own]):
            if end.size < ROUNDING_DEVIATION:
                theta[own][end.entries] = end.values
    return replace(evaluation, theta=theta)
