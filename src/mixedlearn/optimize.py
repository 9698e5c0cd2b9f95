"""The optimiser: EM steps, then trust-region Newton-Raphson, then a certificate.

The objective depends on Lambda only through ``Lambda Lambda'``, so Newton runs in theta without
bounds, through zero. A zero column of Lambda is always stationary and often a saddle; the exact
trust-region step (Nocedal & Wright 2006, section 4.3) follows negative curvature away from it.
Lengths of theta are measured relative to ``max(1, |theta|)``, entry by entry: in the engine's
columns one is the natural unit, and a large entry acts through its logarithm.

An optimum is accepted with a certificate that depends on no unit: the quadratic model promises less
than ``tol`` for a step of natural length in any direction. That says that the Newton decrement is
small and that the Hessian is positive semi-definite, both at once. Where D is singular, Lambda has a
zero column (after a rotation), and the Hessian's block of a zero column is twice a block of G, the
derivative by D: so the certificate includes the condition at the boundary, that no variance that is
zero would lower the objective by growing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance import CovarianceStructure, triangular_chart
from mixedlearn.engines.protocol import Engine, Evaluation

FloatArray = NDArray[np.float64]

N_EM_STEPS = 2
# A standard deviation below this, in natural units, is set to zero if the objective agrees.
SMALL_DEVIATION = 0.03
# What the objective may lose when a variance is set to zero.
ZERO_LOSS = 1e-9
# Curvature below this, in natural units, leaves a direction undetermined.
FLAT_CURVATURE = 1e-6
# Curvature below this share of the largest is zero but for rounding.
ROUNDING_CURVATURE = 1e-10
# The objective is a sum of many terms: differences below this share of it are rounding error.
ROUNDING = 1e-14


@dataclass(frozen=True, slots=True)
class Optimum:
    """What the optimiser found.

    Attributes
    ----------
    evaluation : Evaluation
        The objective at the optimum.
    promised_decrease : float
        Largest decrease of the objective that its quadratic model still promises within the
        natural length of theta.
    is_certified : bool
        Whether that is below the tolerance.
    path : tuple of float
        The objective after each iteration.
    """

    evaluation: Evaluation
    promised_decrease: float
    is_certified: bool
    path: tuple[float, ...]


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
        rounding = ROUNDING * abs(self.evaluation.objective)
        return self.model.promised_decrease <= tol + rounding


def local_model(structure: CovarianceStructure, evaluation: Evaluation) -> LocalModel:
    """The quadratic model around an evaluation of order 2."""
    theta, gradient, hessian = evaluation.theta, evaluation.gradient, evaluation.hessian
    free = np.ones(len(theta), bool)
    if structure.kind == "unrestricted":
        q = structure.n_effects
        factor = structure.lambda_from_theta(theta)
        rotation, triangle = triangular_chart(factor, structure.mask)
        free = triangle.ravel()
        if rotation is not None:
            theta = np.where(triangle, factor @ rotation, 0.0).ravel()
            turn = np.kron(np.eye(q), rotation)
            gradient, hessian = turn.T @ gradient, turn.T @ hessian @ turn
    lengths = np.maximum(1.0, np.abs(theta[free]))
    scaled = hessian[np.ix_(free, free)] * np.outer(lengths, lengths)
    curvature, vectors = np.linalg.eigh(scaled)
    slope = vectors.T @ (gradient[free] * lengths)
    return LocalModel(theta, free, lengths, slope, curvature, vectors)


def minimise(
    engine: Engine, starts: Iterable[FloatArray], *, max_iter: int, tol: float
) -> Optimum:
    """Minimise the engine's objective from each start and keep the lowest end.

    Parameters
    ----------
    engine : Engine
    starts : iterable of ndarray of shape (n_parameters,)
    max_iter : int
        Most iterations from each start, EM steps included.
    tol : float
        Promised decrease of the objective at which to stop.
    """
    optima = [_minimise_from(engine, start, max_iter, tol) for start in starts]
    lowest = min(optimum.evaluation.objective for optimum in optima)
    near = [o for o in optima if o.evaluation.objective <= lowest + ZERO_LOSS]
    return max(near, key=lambda optimum: optimum.is_certified)


def _minimise_from(engine: Engine, start: FloatArray, max_iter: int, tol: float) -> Optimum:
    theta, path = _em(engine, start, min(N_EM_STEPS, max_iter - 1))
    state = _at(engine, theta)
    while True:
        state = _newton(engine, state, path, max_iter, tol)
        settled = _settle(engine, state)
        if settled is not None and settled.is_minimum(tol):
            state = settled
        if state.is_minimum(tol) or settled is None or len(path) >= max_iter:
            break
        state = settled
    polished = _polish(engine, state)
    if not state.is_minimum(tol):
        # What kept the certificate away may have been an error of the size that polishing squares.
        state = _at(engine, polished.theta)
    path.append(polished.objective)
    return Optimum(
        polished, state.model.promised_decrease, state.is_minimum(tol), tuple(path)
    )


def _at(engine: Engine, theta: FloatArray) -> _State:
    evaluation = engine.evaluate(theta, 2)
    return _State(evaluation, local_model(engine.structure, evaluation))


def _em(engine: Engine, theta: FloatArray, n_steps: int) -> tuple[FloatArray, list[float]]:
    """Take EM steps, which never increase the objective and cope with any start."""
    structure = engine.structure
    path: list[float] = []
    if not (structure.n_parameters and structure.is_closed_under_em):
        return theta, path
    for _ in range(n_steps):
        evaluation = engine.evaluate(theta, 1)
        path.append(evaluation.objective)
        factor = structure.lambda_from_theta(theta)
        updated = structure.em_update(
            factor @ factor.T, evaluation.covariance_gradient, engine.n_levels
        )
        theta = structure.theta_from_covariance(updated)
    return theta, path


def _newton(
    engine: Engine, state: _State, path: list[float], max_iter: int, tol: float
) -> _State:
    """Trust-region Newton-Raphson until the certificate holds or nothing more can be gained."""
    radius = 1.0
    while not state.is_minimum(tol) and len(path) < max_iter:
        model, objective = state.model, state.evaluation.objective
        step = trust_region_step(model.slope, model.curvature, radius)
        promised = -float(model.slope @ step + 0.5 * (model.curvature * step) @ step)
        trial = _at(engine, model.moved(step))
        gained = objective - trial.evaluation.objective
        path.append(objective - max(gained, 0.0))
        rounding = ROUNDING * abs(objective)
        if promised <= rounding and np.isfinite(gained):
            return trial if gained >= 0.0 else state
        agreement = gained / promised
        size = float(np.linalg.norm(step))
        if agreement < 0.25 or not np.isfinite(agreement):
            radius = 0.25 * size
        elif agreement > 0.75 and size > 0.8 * radius:
            radius *= 3.0
        if gained > -rounding and agreement > 1e-4:
            state = trial
        elif radius < 1e-10:
            return state
    return state


def _settle(engine: Engine, state: _State) -> _State | None:
    """Set variances that the data cannot tell from zero to exactly zero.

    Returns None where there is nothing to set, or where the objective would suffer.
    """
    structure, evaluation = engine.structure, state.evaluation
    if structure.n_parameters == 0:
        return None
    factor = structure.lambda_from_theta(state.model.theta)
    sizes = np.linalg.norm(factor, axis=0)
    is_flat = np.abs(state.model.curvature).max() < FLAT_CURVATURE
    settled = None
    for j in np.argsort(sizes):
        if not (sizes[j] < SMALL_DEVIATION or is_flat):
            break
        candidate = factor.copy()
        candidate[:, slice(None) if structure.kind == "scalar" else j] = 0.0
        theta = structure.theta_from_lambda(candidate)
        trial = engine.evaluate(theta, 0)
        if trial.objective <= evaluation.objective + ZERO_LOSS + ROUNDING * abs(trial.objective):
            factor, settled = candidate, theta
    return None if settled is None else _at(engine, settled)


def _polish(engine: Engine, state: _State) -> Evaluation:
    """Take the last Newton step: it squares the error for the price of one objective."""
    model, evaluation = state.model, state.evaluation
    determined = model.curvature > FLAT_CURVATURE
    step = np.where(determined, -model.slope / np.where(determined, model.curvature, 1.0), 0.0)
    polished = engine.evaluate(model.moved(step), 0)
    loss = polished.objective - evaluation.objective
    return polished if loss <= ROUNDING * abs(evaluation.objective) else evaluation


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


def _secular_root(
    slope: FloatArray, curvature: FloatArray, lower: float, radius: float
) -> float:
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
