"""The optimiser: EM steps, then trust-region Newton-Raphson, then a certificate.

The objective depends on Lambda only through ``Lambda Lambda'``, so Newton runs in theta without
bounds, through zero. A zero column of Lambda is always stationary and often a saddle; the exact
trust-region step (Nocedal & Wright 2006, section 4.3) follows negative curvature away from it.
Lengths of theta are measured relative to ``max(1, |theta|)``, entry by entry: in the engine's
columns one is the natural unit, and a large entry acts through its logarithm.

An optimum is accepted with a certificate that depends on no unit: the quadratic model promises less
than ``tol`` for a step of natural length in any direction. That says that the Newton decrement is
small and that the Hessian is positive semi-definite, both at once. Before that theta is put in its
canonical form, in which a singular D has zero columns in Lambda; the Hessian's block of a zero
column is twice a block of G, the derivative by D, so the certificate includes the condition at the
boundary: no variance that is zero would lower the objective by growing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedlearn.engines.protocol import Engine, Evaluation

FloatArray = NDArray[np.float64]

N_EM_STEPS = 2
# A variance below this, in natural units, is set to zero if the objective agrees.
SMALL_VARIANCE = 1e-3
# What the objective may lose when a variance is set to zero.
ZERO_LOSS = 1e-9
# Curvature below this, in natural units, leaves a direction undetermined.
FLAT_CURVATURE = 1e-6
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
    evaluation = engine.evaluate(theta, 2)
    while True:
        evaluation = _newton(engine, evaluation, path, max_iter, tol)
        settled = _settle(engine, evaluation)
        if settled is not None and _is_minimum(settled, tol):
            evaluation = settled
        promised = promised_decrease(evaluation)
        certified = _is_minimum(evaluation, tol)
        if certified or settled is None or len(path) >= max_iter:
            evaluation = _polish(engine, evaluation)
            path.append(evaluation.objective)
            return Optimum(evaluation, promised, certified, tuple(path))
        evaluation = settled


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
    engine: Engine, evaluation: Evaluation, path: list[float], max_iter: int, tol: float
) -> Evaluation:
    """Trust-region Newton-Raphson until the certificate holds or nothing more can be gained."""
    radius = 1.0
    while not _is_minimum(evaluation, tol) and len(path) < max_iter:
        lengths = _natural_lengths(evaluation.theta)
        scaled, promised = trust_region_step(
            evaluation.gradient * lengths,
            evaluation.hessian * np.outer(lengths, lengths),
            radius,
        )
        trial = engine.evaluate(evaluation.theta + lengths * scaled, 2)
        path.append(min(trial.objective, evaluation.objective))
        rounding = ROUNDING * abs(evaluation.objective)
        gained = evaluation.objective - trial.objective
        if promised <= rounding:
            return trial if gained >= 0.0 else evaluation
        agreement = gained / promised
        size = float(np.linalg.norm(scaled))
        if agreement < 0.25 or not np.isfinite(agreement):
            radius = 0.25 * size
        elif agreement > 0.75 and size > 0.8 * radius:
            radius *= 3.0
        if gained > -rounding and agreement > 1e-4:
            evaluation = trial
        elif radius < 1e-10:
            return evaluation
    return evaluation


def _settle(engine: Engine, evaluation: Evaluation) -> Evaluation | None:
    """Set variances that the data cannot tell from zero to exactly zero.

    Returns None where there is nothing to set, or where the objective would suffer.
    """
    structure = engine.structure
    if structure.n_parameters == 0:
        return None
    lengths = _natural_lengths(evaluation.theta)
    curvature = np.linalg.eigvalsh(evaluation.hessian * np.outer(lengths, lengths))
    factor = structure.lambda_from_theta(evaluation.theta)
    covariance = factor @ factor.T
    is_flat = curvature[0] < FLAT_CURVATURE
    if structure.kind == "full":
        sizes, basis = np.linalg.eigh(covariance)
    else:
        sizes, basis = np.diag(covariance), np.eye(len(covariance))
    settled = None
    for j in np.argsort(sizes):
        if not (sizes[j] < SMALL_VARIANCE or is_flat):
            break
        projector = np.eye(len(basis)) - np.outer(basis[:, j], basis[:, j])
        if structure.kind == "scalar":
            projector = np.zeros_like(projector)
        candidate = projector @ covariance @ projector
        theta = structure.theta_from_covariance(candidate)
        trial = engine.evaluate(theta, 0)
        if trial.objective > evaluation.objective + ZERO_LOSS + ROUNDING * abs(trial.objective):
            continue
        covariance, settled = candidate, theta
    return None if settled is None else engine.evaluate(settled, 2)


def _polish(engine: Engine, evaluation: Evaluation) -> Evaluation:
    """Take the last Newton step: it squares the error for the price of one objective."""
    if len(evaluation.theta) == 0:
        return evaluation
    lengths = _natural_lengths(evaluation.theta)
    curvature, vectors = np.linalg.eigh(evaluation.hessian * np.outer(lengths, lengths))
    slope = vectors.T @ (evaluation.gradient * lengths)
    determined = curvature > FLAT_CURVATURE
    step = np.where(determined, -slope / np.where(determined, curvature, 1.0), 0.0)
    polished = engine.evaluate(evaluation.theta + lengths * (vectors @ step), 0)
    loss = polished.objective - evaluation.objective
    return polished if loss <= ROUNDING * abs(evaluation.objective) else evaluation


def _natural_lengths(theta: FloatArray) -> FloatArray:
    return np.maximum(1.0, np.abs(theta))


def _is_minimum(evaluation: Evaluation, tol: float) -> bool:
    return promised_decrease(evaluation) <= tol + ROUNDING * abs(evaluation.objective)


def promised_decrease(evaluation: Evaluation) -> float:
    """Decrease that the quadratic model promises within the natural length of theta.

    Summed over the Hessian's eigenvectors: ``c^2 / 2w`` where the Newton step is shorter than one,
    ``|c| - w/2`` at length one where it is longer or the curvature w is negative.
    """
    if len(evaluation.theta) == 0:
        return 0.0
    lengths = _natural_lengths(evaluation.theta)
    curvature, vectors = np.linalg.eigh(evaluation.hessian * np.outer(lengths, lengths))
    slope = np.abs(vectors.T @ (evaluation.gradient * lengths))
    inside = slope < curvature
    at_newton = slope**2 / (2.0 * np.where(inside, curvature, 1.0))
    return float(np.maximum(np.where(inside, at_newton, slope - curvature / 2.0), 0.0).sum())


def trust_region_step(
    gradient: FloatArray, hessian: FloatArray, radius: float
) -> tuple[FloatArray, float]:
    """Exact minimiser of ``g's + s'Hs/2`` over ``|s| <= radius``, and the decrease it promises."""
    curvature, vectors = np.linalg.eigh(hessian)
    slope = vectors.T @ gradient
    lowest = curvature[0]
    spread = max(abs(lowest), abs(curvature[-1]), 1e-300)
    if lowest > 1e-14 * spread and np.linalg.norm(slope / curvature) <= radius:
        step = -slope / curvature
    else:
        shift = max(0.0, -lowest) + 1e-14 * spread
        step = -slope / (curvature + shift)
        size = float(np.linalg.norm(step))
        if size < radius:
            # The hard case: the slope has no part along the lowest curvature, so any sign does.
            step[0] += np.copysign(np.sqrt(radius**2 - size**2), step[0])
        else:
            step = -slope / (curvature + _secular_root(slope, curvature, shift, radius))
    promised = -(slope @ step + 0.5 * (curvature * step) @ step)
    return vectors @ step, float(promised)


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
