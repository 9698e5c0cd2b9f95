"""The optimiser where the objective's derivatives are estimated with random probes.

The probes are the same at every theta, so that the estimated gradient is a smooth function, whose
zero Newton-Raphson finds as fast as that of any other. An estimate of the objective itself is
neither needed nor of use: it is not the one whose gradient this is. What a step gains is measured
along it, by the gradients at both ends:

    f(D_0) - f(D_1) = -sum_k <G_k(D_0) + G_k(D_1), D_1k - D_0k> / 2        but for third order

How far the zero may be from that of the exact gradient follows from how the probes differ among
each other: with S the covariance of the mean of their gradients and H the Hessian,
``H^-1 S H^-1``, beside the covariance ``2 H^-1`` of the estimates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.components import (
    VarianceComponents,
    covariance_directions,
    theta_gradient,
)
from mixedlearn.engines.protocol import Engine, Evaluation, SampledEngine
from mixedlearn.engines.stochastic.conjugate_gradients import NotSolved
from mixedlearn.search.local_model import judge, local_model, trust_region_step
from mixedlearn.search.newton import (
    SMALL_DEVIATION,
    SMALLEST_RADIUS,
    ZERO_LOSS,
    Optimum,
    State,
    em_steps,
    state_at,
)
from mixedlearn.search.progress import tell_iteration
from mixedlearn.search.starts import MUCH_NOISE

FloatArray = NDArray[np.float64]

# Of a promised decrease, what the tolerance of iterative solutions leaves undetermined.
ROUNDING = 1e-9
# The largest sampling error, in standard errors of the estimates: a quarter of what is promised, so
# that the error itself, not only its size on average, stays below that.
GOAL = 0.0125
# From a share of the goal on, fewer probes than this do not tell how large it is.
SURE, RELIABLE_PROBES = 0.5, 24
# A round has at most so many times the probes of the last, and none more than this.
MOST_GROWTH, MOST_PROBES = 4, 1024
# A variance, in natural units, that is zero.
NO_VARIANCE = 1e-16
# Variances beside which the noise is that within levels.
LARGE = 1e4


def minimise_sampled(
    engine: SampledEngine, start: FloatArray | None, *, max_iter: int, tol: float
) -> Optimum:
    """The optimum as an engine's probes have it; the arguments are those of `starts.minimise`.

    More noise than there is within the levels of all factors is a sign of another optimum, in which
    the random effects take what the fixed effects seemed to explain.

    Raises
    ------
    NotSolved
        As for `descend_sampled`.
    """
    optimum = descend_sampled(engine, start, max_iter=max_iter, tol=tol)
    identities = [np.eye(structure.n_effects) for structure in engine.components.structures]
    large = engine.components.theta_of([LARGE * identity for identity in identities])
    n_effects = sum(m * len(own) for m, own in zip(engine.n_levels, identities, strict=True))
    share_within = 1.0 - n_effects / engine.n_rows
    within = engine.fixed_effects(large)
    noise = share_within * optimum.evaluation.fixed.noise_variance
    if within is None or noise <= MUCH_NOISE * within.noise_variance:
        return optimum
    left = max_iter - optimum.n_iterations
    try:
        other = descend_sampled(engine, large, max_iter=left, tol=tol)
    except NotSolved:
        return optimum
    own, theirs = (engine.evaluate(end.evaluation.theta, 0).objective for end in (optimum, other))
    n_iterations = optimum.n_iterations + other.n_iterations
    return replace(other if theirs < own else optimum, n_iterations=n_iterations)


def descend_sampled(
    engine: Engine, start: FloatArray | None, *, max_iter: int, tol: float
) -> Optimum:
    """The optimum that one start leads to.

    Its objective is estimated as well, and the gradients of the probes are kept.

    Raises
    ------
    NotSolved
        If there is no theta from which to go on.
    """
    components = engine.components
    if start is None:
        start = components.theta_of(engine.start())
    state, n_iterations = em_steps(engine, state_at(engine, start), max_iter)
    if not np.isfinite(state.evaluation.objective):
        raise NotSolved
    radius = 1.0
    while not state.model.is_minimum(tol) and n_iterations < max_iter:
        model = state.model
        step = trust_region_step(model.slope, model.curvature, radius)
        promised = float(model.promised_by(step))
        trial = state_at(engine, model.moved(step))
        n_iterations += 1
        tell_iteration()
        gained = gain(components, state.evaluation, trial.evaluation)
        rounding = max(state.evaluation.rounding, ROUNDING)
        is_accepted, radius = judge(gained, promised, rounding, np.linalg.norm(step), radius)
        if is_accepted:
            state = trial
        elif radius < SMALLEST_RADIUS:
            break
    settled = _settle(engine, state, tol)
    state = state if settled is None else settled
    return Optimum(state.evaluation, bool(state.model.is_minimum(tol)), max(n_iterations, 1))


def gain(components: VarianceComponents, before: Evaluation, after: Evaluation) -> float:
    """Decrease of the objective from one theta to another by the gradients at both."""
    if not (np.isfinite(before.objective) and np.isfinite(after.objective)):
        return -np.inf
    total = 0.0
    for old, new, first, last in zip(
        components.roots(before.theta),
        components.roots(after.theta),
        before.covariance_gradients,
        after.covariance_gradients,
        strict=True,
    ):
        change = new @ new.T - old @ old.T
        total -= 0.5 * float(np.vdot(first + last, change))
    return total


def _settle(engine: Engine, state: State, tol: float) -> State | None:
    """Set variances that the data cannot tell from zero to exactly zero, if any."""
    components, theta = engine.components, state.evaluation.theta
    settled = None
    for structure, own in zip(components.structures, components.slices, strict=True):
        for end in structure.settlements(theta[own]):
            if end.size >= SMALL_DEVIATION or np.array_equal(theta[own][end.entries], end.values):
                continue
            moved = (theta if settled is None else settled.evaluation.theta).copy()
            moved[own][end.entries] = end.values
            trial = state_at(engine, moved)
            lost = -gain(components, state.evaluation, trial.evaluation)
            if lost <= ZERO_LOSS + ROUNDING and trial.model.is_minimum(tol):
                settled = trial
    return settled


@dataclass(frozen=True, slots=True)
class SamplingErrors:
    """How far the probes may have moved the estimates.

    Attributes
    ----------
    theta : ndarray of shape (n_parameters,)
        The optimum, in the chart.
    free : ndarray of shape (n_free,), int
        Its free entries.
    moves : ndarray of shape (n_probes, n_free)
        What each probe moves them by: the root of the sum of squares is their standard error over
        draws of probes.
    log_noise : ndarray of shape (n_free,)
        Derivatives of the logarithm of the noise variance.
    share : float
        The largest error of an entry of the D_k or of the noise variance, relative to the standard
        error that the data leave.
    """

    theta: FloatArray
    free: NDArray[np.intp]
    moves: FloatArray
    log_noise: FloatArray
    share: float


def sampling_errors(components: VarianceComponents, optimum: Optimum, df: int) -> SamplingErrors:
    """The sampling errors of an optimum; ``df`` are the degrees of freedom of the noise."""
    evaluation = optimum.evaluation
    theta, free = components.charted(evaluation.theta)
    model = local_model(evaluation, free)
    assert evaluation.sampled_gradients is not None
    assert evaluation.curvature is not None
    roots = components.roots(theta)
    samples = theta_gradient(components.directions(theta), roots, evaluation.sampled_gradients)
    # Where nothing curves, a variance is zero and has no error, or nothing is known of it.
    determined = model.is_determined
    vectors = model.lengths[:, None] * model.vectors[:, determined]
    inverse_root = vectors / np.sqrt(model.curvature[determined])
    n_probes = len(samples)
    moves = samples[:, free] @ inverse_root @ inverse_root.T
    moves /= np.sqrt(n_probes * max(n_probes - 1.0, 1.0))
    deviations = np.sqrt(2.0) * inverse_root.T
    shares, log_noise = [0.0], np.zeros(len(theta))
    for change, slope in zip(
        covariance_directions(components, theta),
        evaluation.curvature.residual_gradients,
        strict=True,
    ):
        log_noise += np.einsum("aij,ij->a", change, slope) / df
        shares.append(_share(size(moves, change[free]), size(deviations, change[free])))
    log_noise = log_noise[free]
    deviation = np.hypot(size(deviations, log_noise), np.sqrt(2.0 / df))
    shares.append(_share(size(moves, log_noise), deviation))
    shares += _shares_at_zero(roots, evaluation)
    return SamplingErrors(theta, free, moves, log_noise, max(shares))


def _shares_at_zero(roots: Sequence[FloatArray], evaluation: Evaluation) -> list[float]:
    """The same shares of variances that are zero, where theta says nothing of their error.

    What a probe moves the gradient by D moves D by its share of average information.
    """
    assert evaluation.sampled_gradients is not None
    assert evaluation.curvature is not None
    shares, start = [], 0
    for root, samples in zip(roots, evaluation.sampled_gradients, strict=True):
        own = slice(start, start + root.size)
        start = own.stop
        values, vectors = np.linalg.eigh(root @ root.T)
        for vector in vectors.T[values <= NO_VARIANCE]:
            pair = np.kron(vector, vector)
            information = float(pair @ evaluation.curvature.objective[own, own] @ pair)
            error = standard_error(np.einsum("jab,a,b->j", samples, vector, vector))
            if information > 0.0:
                shares.append(error / np.sqrt(2.0 * information))
    return shares


def size(rows: FloatArray, change: FloatArray) -> FloatArray:
    """Root of the sum of squares of the changes by several moves of the parameters."""
    return np.asarray(np.sqrt(np.square(np.tensordot(rows, change, 1)).sum(axis=0)))


def standard_error(deviations: FloatArray) -> float:
    """Standard error of a mean from how the values differ from it."""
    n = len(deviations)
    return float(np.sqrt(np.square(deviations).sum() / (n * max(n - 1.0, 1.0))))


def _share(errors: FloatArray, deviations: FloatArray) -> float:
    known = deviations > 0.0
    return float((errors[known] / deviations[known]).max(initial=0.0))


def probes_needed(errors: SamplingErrors, n_probes: int, n_levels: Sequence[int]) -> int:
    """How many probes keep the share of the sampling errors below its goal.

    Where on the way there a factor loses its error, having fewer levels than there are probes, it
    is for that many to tell how many more are needed.
    """
    needed = n_probes * (errors.share / GOAL) ** 2
    if n_probes < RELIABLE_PROBES and errors.share > SURE * GOAL:
        # A few probes say little of how they differ.
        needed = max(needed, RELIABLE_PROBES)
    most = max(n_probes, min(MOST_GROWTH * n_probes, MOST_PROBES))
    enough = min(max(n_probes, ceil(needed)), most)
    return min([enough, *(m + 1 for m in n_levels if n_probes <= m < enough)])
