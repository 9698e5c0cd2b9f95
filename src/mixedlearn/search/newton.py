"""The optimiser: EM steps, then trust-region Newton-Raphson, then a certificate.

The objective depends on Lambda only through ``Lambda Lambda'``, so Newton runs in theta without
bounds, through zero. A zero column of Lambda is always stationary and often a saddle; the exact
trust-region step (Nocedal & Wright 2006, section 4.3) follows negative curvature away from it.
Lengths of theta are measured relative to ``max(1, |theta|)``, entry by entry: in the engine's
columns one is the natural unit, and a large entry acts through its logarithm.

An optimum is accepted with a certificate that depends on no unit: the quadratic model promises less
than ``tol`` for a step of natural length in any direction. That says that the Newton decrement is
small and that the Hessian is positive semi-definite, both at once (with average information, that
the curvature is, on average over such data). Where D is singular, Lambda has
a zero column (after a rotation), and the Hessian's block of a zero column is twice a block of G,
the derivative by D: so the certificate includes the condition at the boundary, that no variance
that is zero would lower the objective by growing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.components import VarianceComponents
from mixedlearn.covariance.structures import Structure
from mixedlearn.engines.protocol import Engine, Evaluation, Objective

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
# Curvature below this, in natural units, leaves a direction undetermined.
FLAT_CURVATURE = 1e-6
# Curvature below this share of the largest is zero but for rounding.
ROUNDING_CURVATURE = 1e-10
# Shares of what the model promised: a step that gains less is refused, calls for a shorter one, or
# gains enough for a longer one (Nocedal & Wright 2006, algorithm 4.1).
REFUSED_AGREEMENT = 1e-4
POOR_AGREEMENT = 0.25
GOOD_AGREEMENT = 0.75
SMALLEST_RADIUS = 1e-10
# Signs of several optima: so long a path, so few levels, or so many times the noise within levels.
MANY_ITERATIONS = 10
FEW_LEVELS = 10
MUCH_NOISE = 1.05
# Further starts are tried for up to this many numbers in the reduced data.
FEW_DATA = 100_000
N_MIXED_STARTS = 4
# Standard deviations with which what a chart does not see is tried.
WAY_OUT_SIZES = (0.3, 0.03, 0.003)
# So often, at most, a search goes on from there.
MOST_WAYS_OUT = 5
# So many ends in a row at the same optimum are enough where several optima are rare.
ENOUGH_AGREEING = 4
# With several factors and slopes, effects of one factor may stand in for those of another.
N_MIXED_STARTS_SEVERAL = 16


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
    """

    evaluation: Evaluation
    is_certified: bool
    n_iterations: int


@dataclass(frozen=True, slots=True)
class LocalModel:
    """The quadratic model of the objective around a point, in natural lengths.

    Attributes
    ----------
    theta : ndarray of shape (n_parameters,)
        The point, rotated into a triangular chart where D is full.
    free : ndarray of shape (n_parameters,), bool
        Entries of theta that the chart leaves free.
    lengths : ndarray of shape (n_free,)
        Natural lengths of the free entries.
    slope, curvature : ndarray of shape (n_free,)
        Gradient and Hessian in the Hessian's eigenvectors; curvature ascends.
    vectors : ndarray of shape (n_free, n_free)
        The eigenvectors.
    """

    theta: FloatArray
    free: NDArray[np.bool_]
    lengths: FloatArray
    slope: FloatArray
    curvature: FloatArray
    vectors: FloatArray

    def moved(self, step: FloatArray) -> FloatArray:
        """Theta after a step given in the eigenvectors."""
        theta = self.theta.copy()
        theta[self.free] += self.lengths * (self.vectors @ step)
        return theta

    @property
    def newton_length(self) -> float:
        """Length of the Newton step; infinite where the curvature is not positive."""
        if self.curvature[0] <= 0.0:
            return np.inf
        return float(np.linalg.norm(self.slope / self.curvature))

    @property
    def promised_decrease(self) -> float:
        """Decrease that the model promises within the natural length of theta.

        Summed over the eigenvectors: ``c^2 / 2w`` where the Newton step is shorter than one,
        ``|c| - w/2`` at length one where it is longer or the curvature w is negative.
        """
        slope = np.abs(self.slope)
        inside = slope < self.curvature
        at_newton = slope**2 / (2.0 * np.where(inside, self.curvature, 1.0))
        at_bound = slope - self.curvature / 2.0
        return float(np.maximum(np.where(inside, at_newton, at_bound), 0.0).sum())


@dataclass(frozen=True, slots=True)
class _State:
    """An evaluation of order 2 with its quadratic model."""

    evaluation: Evaluation
    model: LocalModel

    def is_minimum(self, tol: float) -> bool:
        """Whether the certificate holds."""
        evaluation, promised = self.evaluation, self.model.promised_decrease
        return bool(np.isfinite(evaluation.objective) and promised <= tol + evaluation.rounding)


def local_model(components: VarianceComponents, evaluation: Evaluation) -> LocalModel:
    """The quadratic model around an evaluation of order 2."""
    theta, gradient, hessian = evaluation.theta, evaluation.gradient, evaluation.hessian
    free = np.ones(len(theta), bool)
    for structure, own in zip(components.structures, components.slices, strict=True):
        chart = structure.chart(theta[own])
        if chart is None:
            continue
        free[own] = chart.free
        if chart.turn is not None:
            theta = theta.copy()
            theta[own] = chart.theta
            turn = np.eye(len(theta))
            turn[own, own] = chart.turn
            gradient, hessian = turn.T @ gradient, turn.T @ hessian @ turn
    lengths = np.maximum(1.0, np.abs(theta[free]))
    scaled = hessian[np.ix_(free, free)] * np.outer(lengths, lengths)
    curvature, vectors = np.linalg.eigh(scaled)
    slope = vectors.T @ (gradient[free] * lengths)
    return LocalModel(theta, free, lengths, slope, curvature, vectors)


def minimise(engine: Engine, start: FloatArray | None, *, max_iter: int, tol: float) -> Optimum:
    """Minimise the engine's objective.

    Where there may be several optima, further starts are tried and the lowest end counts. Some
    structures have several whatever the data are like; see `correlated_starts`. Of all others a
    singular D, a missing certificate, a long path, few levels, or more noise than there is within
    levels are the signs. Where the data are many only the noise is asked, and only one more start
    is made.

    Parameters
    ----------
    engine : Engine
    start : ndarray of shape (n_parameters,) or None
        Theta to start from; None for the engine's own start, from moments.
    max_iter : int
        Most iterations from each start, EM steps included.
    tol : float
        Promised decrease of the objective at which to stop.
    """
    components = engine.components
    if components.n_parameters == 0:
        return _only_point(engine)
    if start is None:
        start = components.theta_of(engine.start())
    best = minimise_from(engine, start, max_iter, tol)
    starts = further_starts(engine) if may_be_local(engine, best) else correlated_starts(engine)
    n_agreeing = 0
    for covariances in starts:
        theta = components.theta_of(covariances)
        optimum = minimise_from(engine, theta, max_iter, tol)
        gain = best.evaluation.objective - optimum.evaluation.objective
        least = ZERO_LOSS + optimum.evaluation.rounding
        agrees = optimum.is_certified and best.is_certified and abs(gain) <= least
        n_agreeing = n_agreeing + 1 if agrees else 0
        if gain > least or (optimum.is_certified and not best.is_certified and gain > -least):
            best = optimum
        if n_agreeing == ENOUGH_AGREEING and _has_intercepts_only(components):
            break
    if not best.is_certified:
        # The end that is lowest so far may be on its way: it is one more start.
        optimum = minimise_from(engine, best.evaluation.theta, max_iter, tol)
        if optimum.evaluation.objective <= best.evaluation.objective:
            best = optimum
    return best


def _has_intercepts_only(components: VarianceComponents) -> bool:
    """Whether several factors have one effect each: a second optimum is rare then."""
    structures = components.structures
    return len(structures) > 1 and all(structure.n_effects == 1 for structure in structures)


def may_be_local(engine: Engine, optimum: Optimum) -> bool:
    """Whether there is a sign of several optima; see `minimise`."""
    if optimum.evaluation.fixed.noise_variance > MUCH_NOISE * engine.within_variance:
        return True
    if engine.size > FEW_DATA:
        return False
    factors = engine.components.roots(optimum.evaluation.theta)
    return bool(
        not optimum.is_certified
        or optimum.n_iterations > MANY_ITERATIONS
        or min(engine.n_levels) <= FEW_LEVELS
        or min(_smallest_deviation(factor) for factor in factors) < SMALL_DEVIATION
    )


def _smallest_deviation(factor: FloatArray) -> float:
    return float(np.linalg.svd(factor, compute_uv=False).min(initial=np.inf))


def further_starts(engine: Engine) -> Iterator[tuple[FloatArray, ...]]:
    """Beta from within levels; variances of all sizes; effects of mixed sizes and correlations."""
    structures = engine.components.structures
    identities = [np.eye(structure.n_effects) for structure in structures]
    yield engine.start_from_within()
    if engine.size > FEW_DATA:
        return
    for size in (1.0, 1e2, 1e4, 1e6, 1e10):
        yield tuple(size * identity for identity in identities)
    yield from correlated_starts(engine)
    if len(structures) > 1:
        for large in range(len(structures)):
            sizes = [1e2 if k == large else 1e-2 for k in range(len(structures))]
            yield tuple(size * identity for size, identity in zip(sizes, identities, strict=True))
    if engine.components.n_parameters > 1:
        generator = np.random.default_rng(0)
        trade = len(structures) > 1 and engine.size <= FEW_DATA // 4
        for _ in range(N_MIXED_STARTS_SEVERAL if trade else N_MIXED_STARTS):
            yield tuple(_mixed_start(structure, generator) for structure in structures)


def correlated_starts(engine: Engine) -> Iterator[tuple[FloatArray, ...]]:
    """Correlations of both signs, for structures that tie them to each other.

    Such a structure may have an optimum for each sign, whatever the data are like.
    """
    structures = engine.components.structures
    if engine.size > FEW_DATA or all(structure.is_linear for structure in structures):
        return
    trials = [structure.trials() for structure in structures]
    for number in range(1, max(map(len, trials))):
        yield tuple(own[number % len(own)] for own in trials)


def _mixed_start(structure: Structure, generator: np.random.Generator) -> FloatArray:
    q = structure.n_effects
    root = generator.standard_normal((q, q)) * 10.0 ** generator.uniform(-2, 3, (q, 1))
    return structure.project(root @ root.T)


def _without_rounding(engine: Objective, evaluation: Evaluation) -> Evaluation:
    """The evaluation with variances that are zero but for rounding set to zero."""
    theta = evaluation.theta.copy()
    components = engine.components
    for structure, own in zip(components.structures, components.slices, strict=True):
        for end in structure.settlements(theta[own]):
            if end.size < ROUNDING_DEVIATION:
                theta[own][end.entries] = end.values
    return replace(evaluation, theta=theta)


def minimise_from(engine: Engine, start: FloatArray, max_iter: int, tol: float) -> Optimum:
    """The optimum that one start leads to."""
    state, n_iterations = _em(engine, _at(engine, start), max_iter)
    return _descend(engine, state, n_iterations, max_iter, tol)


def descend(engine: Objective, start: FloatArray, *, max_iter: int, tol: float) -> Optimum:
    """Minimise by Newton-Raphson alone, from a start that is near.

    For objectives that EM is not meant for; the arguments are those of `minimise`.
    """
    if engine.components.n_parameters == 0:
        return _only_point(engine)
    return _descend(engine, _at(engine, start), 0, max_iter, tol)


def _only_point(engine: Objective) -> Optimum:
    return Optimum(engine.evaluate(np.empty(0), 0), True, 1)


def _descend(
    engine: Objective, state: _State, n_iterations: int, max_iter: int, tol: float
) -> Optimum:
    optimum = _arrive(engine, state, n_iterations, max_iter, tol)
    for _ in range(MOST_WAYS_OUT):
        way_out = _way_out(engine, optimum.evaluation)
        if way_out is None:
            return optimum
        optimum = _arrive(engine, _at(engine, way_out), optimum.n_iterations, max_iter, tol)
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
    engine: Objective, state: _State, n_iterations: int, max_iter: int, tol: float
) -> Optimum:
    """Descend to where nothing more is promised."""
    while True:
        state, n_iterations = _newton(engine, state, n_iterations, max_iter, tol)
        settled = _settle(engine, state)
        if settled is not None and settled.is_minimum(tol):
            state = settled
        if state.is_minimum(tol) or settled is None or n_iterations >= max_iter:
            break
        state = settled
    polished = _polish(engine, state)
    if not state.is_minimum(tol):
        # What kept the certificate away may have been an error of the size that polishing squares.
        state = _at(engine, polished.theta)
    polished = _without_rounding(engine, polished)
    return Optimum(polished, state.is_minimum(tol), max(n_iterations, 1))


def _at(engine: Objective, theta: FloatArray) -> _State:
    evaluation = engine.evaluate(theta, 2)
    return _State(evaluation, local_model(engine.components, evaluation))


def _em(engine: Engine, state: _State, max_iter: int) -> tuple[_State, int]:
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
        state = _at(engine, components.theta_of(known))
        n_steps += 1
    return state, n_steps


def _newton(
    engine: Objective, state: _State, n_iterations: int, max_iter: int, tol: float
) -> tuple[_State, int]:
    """Trust-region Newton-Raphson until the certificate holds or nothing more can be gained."""
    radius = 1.0
    is_rough = not engine.has_exact_hessian and engine.size <= FEW_DATA
    goal = AVERAGE_SHARE * tol if is_rough else tol
    while not state.is_minimum(goal) and n_iterations < max_iter:
        model, objective = state.model, state.evaluation.objective
        step = trust_region_step(model.slope, model.curvature, radius)
        promised = -float(model.slope @ step + 0.5 * (model.curvature * step) @ step)
        trial = _at(engine, model.moved(step))
        if objective - trial.evaluation.objective < POOR_AGREEMENT * promised:
            straight = _at(engine, _straight_step(engine.components, model, step))
            if straight.evaluation.objective < trial.evaluation.objective:
                trial = straight
        gained = objective - trial.evaluation.objective
        n_iterations += 1
        rounding = state.evaluation.rounding
        if promised <= rounding:
            return (trial if gained >= 0.0 else state), n_iterations
        agreement = gained / promised
        size = float(np.linalg.norm(step))
        if not agreement >= POOR_AGREEMENT:
            radius = 0.25 * size
        elif agreement > GOOD_AGREEMENT and size > 0.8 * radius:
            radius *= 3.0
        if gained > -rounding and agreement > REFUSED_AGREEMENT:
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
    for structure, factor, end in zip(components.structures, origin, moved, strict=True):
        change = end - factor
        covariance = factor @ factor.T + factor @ change.T + change @ factor.T
        covariances.append(structure.project(covariance))
    return components.theta_of(covariances)


def _settle(engine: Objective, state: _State) -> _State | None:
    """Set variances that the data cannot tell from zero to exactly zero.

    Returns None where there is nothing to set, or where the objective would suffer.
    """
    components, theta = engine.components, state.model.theta
    stiffness = np.zeros(components.n_parameters)
    stiffness[state.model.free] = np.abs(state.model.vectors**2 @ state.model.curvature)
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
    return None if settled is None else _at(engine, settled)


def _polish(engine: Objective, state: _State) -> Evaluation:
    """Take the last Newton step: it squares the error for the price of one objective."""
    model, evaluation = state.model, state.evaluation
    if not engine.has_exact_hessian and model.promised_decrease <= evaluation.rounding:
        # Another step would not square the error, and may be dear.
        return evaluation
    determined = model.curvature > FLAT_CURVATURE
    step = np.where(determined, -model.slope / np.where(determined, model.curvature, 1.0), 0.0)
    polished = engine.evaluate(model.moved(step), 0)
    loss = polished.objective - evaluation.objective
    return polished if loss <= evaluation.rounding else evaluation


def trust_region_step(slope: FloatArray, curvature: FloatArray, radius: float) -> FloatArray:
    """Exact minimiser of ``c's + s'Ws/2`` over ``|s| <= radius``, W diagonal and ascending."""
    lowest = curvature[0]
    negligible = ROUNDING_CURVATURE * max(abs(lowest), abs(curvature[-1]), 1e-300)
    shift = negligible + max(0.0, -lowest)
    step = -slope / (curvature + shift)
    size = float(np.linalg.norm(step))
    if size > radius:
        step = -slope / (curvature + _secular_root(slope, curvature, shift, radius))
    elif lowest < -negligible:
        # The hard case: the slope has no part along the lowest curvature, so either sign does.
        step[0] += np.copysign(np.sqrt(radius**2 - size**2), step[0])
    return step


def _secular_root(slope: FloatArray, curvature: FloatArray, lower: float, radius: float) -> float:
    """The shift mu > lower at which ``|g / (w + mu)| = radius``, by safeguarded Newton."""
    upper = lower + float(np.linalg.norm(slope)) / radius
    shift = lower
    for _ in range(60):
        step = slope / (curvature + shift)
        size = float(np.linalg.norm(step))
        if abs(size - radius) < 1e-6 * radius:
            break
        if size > radius:
            lower = shift
        else:
            upper = shift
        change = (size / radius - 1.0) * size**2 / float((step**2 / (curvature + shift)).sum())
        shift += change
        if not lower < shift < upper:
            shift = (lower + upper) / 2.0
    return shift
