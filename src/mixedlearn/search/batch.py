"""The optimiser for many objectives at once: trust-region Newton-Raphson, as in `optimize`.

The same steps, charts and certificate as there, for a stack of thetas. What does not arrive here is
left to `optimize`: rare enough that it may cost what it costs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from mixedlearn.engines.batch import OneFactorBatch
from mixedlearn.search.newton import (
    FLAT_CURVATURE,
    GOOD_AGREEMENT,
    POOR_AGREEMENT,
    REFUSED_AGREEMENT,
    ROUNDING_CURVATURE,
)

FloatArray = NDArray[np.float64]

# Most steps of a batch; what needs more is for the optimiser of single objectives.
MAX_STEPS = 25
# Halvings that find the length of a step on the trust region's border.
N_HALVINGS = 30


@dataclass(slots=True)
class BatchState:
    """Quadratic models of objectives around a theta each, in natural lengths; see `LocalModel`.

    Attributes
    ----------
    theta : ndarray of shape (n, n_parameters)
        Rotated into a triangular chart where D is full.
    free : ndarray of shape (n, n_free), int
        Entries of theta that the chart leaves free.
    lengths, slope, curvature : ndarray of shape (n, n_free)
    vectors : ndarray of shape (n, n_free, n_free)
    objective, rounding : ndarray of shape (n,)
    n_steps : ndarray of shape (n,), int
        Steps taken so far.
    """

    theta: FloatArray
    free: NDArray[np.intp]
    lengths: FloatArray
    slope: FloatArray
    curvature: FloatArray
    vectors: FloatArray
    objective: FloatArray
    rounding: FloatArray
    n_steps: NDArray[np.intp]

    def rows(self, chosen: NDArray[np.intp]) -> BatchState:
        """The states of some objectives."""
        return BatchState(*(getattr(self, part.name)[chosen] for part in fields(self)))

    def put(self, chosen: NDArray[np.intp], other: BatchState) -> None:
        """Replace the states of some objectives."""
        for part in fields(self):
            getattr(self, part.name)[chosen] = getattr(other, part.name)

    def moved(self, step: FloatArray) -> FloatArray:
        """Thetas after steps given in the eigenvectors."""
        theta = self.theta.copy()
        change = self.lengths * np.einsum("nab,nb->na", self.vectors, step)
        np.put_along_axis(
            theta, self.free, np.take_along_axis(theta, self.free, axis=1) + change, axis=1
        )
        return theta

    def are_minima(self, tol: float) -> NDArray[np.bool_]:
        """Whether the certificates hold."""
        slope = np.abs(self.slope)
        inside = slope < self.curvature
        at_newton = slope**2 / (2.0 * np.where(inside, self.curvature, 1.0))
        at_bound = slope - self.curvature / 2.0
        promised = np.maximum(np.where(inside, at_newton, at_bound), 0.0).sum(axis=1)
        return np.asarray(np.isfinite(self.objective) & (promised <= tol + self.rounding))


def descend(
    batch: OneFactorBatch, theta: FloatArray, responses: NDArray[np.intp], tol: float
) -> tuple[BatchState, NDArray[np.bool_]]:
    """Minimise the objectives of some responses from a theta each.

    Returns
    -------
    states : BatchState
    arrived : ndarray of shape (n,), bool
        Where the certificate holds.
    """
    state = _at(batch, theta, responses)
    radius = np.ones(len(theta))
    arrived = state.are_minima(tol)
    stuck = ~np.isfinite(state.objective)
    for step in range(1, MAX_STEPS + 1):
        active = np.flatnonzero(~(arrived | stuck))
        if not len(active):
            break
        before = state.rows(active)
        steps = _trust_region_steps(before.slope, before.curvature, radius[active])
        promised = -(steps * (before.slope + 0.5 * before.curvature * steps)).sum(axis=1)
        trial = _at(batch, before.moved(steps), responses[active])
        gained = before.objective - trial.objective
        with np.errstate(divide="ignore", invalid="ignore"):
            agreement = np.where(promised > 0.0, gained / promised, -np.inf)
        sizes = np.linalg.norm(steps, axis=1)
        is_poor = ~(agreement >= POOR_AGREEMENT)
        is_long = (agreement > GOOD_AGREEMENT) & (sizes > 0.8 * radius[active])
        radius[active[is_poor]] = 0.25 * sizes[is_poor]
        radius[active[is_long]] *= 3.0
        # Where the promise drowns in rounding error and the certificate fails, nothing helps here.
        stuck[active] = promised <= before.rounding
        is_accepted = (gained > -before.rounding) & (agreement > REFUSED_AGREEMENT)
        better = np.flatnonzero(is_accepted & ~stuck[active])
        trial.n_steps[:] = step
        state.put(active[better], trial.rows(better))
        arrived[active[better]] = trial.are_minima(tol)[better]
    return state, arrived


def polished(state: BatchState) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Thetas after the last Newton step, and whether every direction is determined."""
    determined = state.curvature > FLAT_CURVATURE
    curvature = np.where(determined, state.curvature, 1.0)
    step = np.where(determined, -state.slope / curvature, 0.0)
    return state.moved(step), np.asarray(determined.all(axis=1))


def _at(batch: OneFactorBatch, theta: FloatArray, responses: NDArray[np.intp]) -> BatchState:
    theta, free = batch.structure.charts(theta)
    evaluation = batch.evaluate(theta, responses, 2)
    lengths = np.maximum(1.0, np.abs(np.take_along_axis(theta, free, axis=1)))
    number = np.arange(len(theta))[:, None, None]
    hessian = evaluation.hessian[number, free[:, :, None], free[:, None]]
    curvature, vectors = np.linalg.eigh(hessian * lengths[:, :, None] * lengths[:, None])
    gradient = np.take_along_axis(evaluation.gradient, free, axis=1) * lengths
    return BatchState(
        theta,
        free,
        lengths,
        np.einsum("nba,nb->na", vectors, gradient),
        curvature,
        vectors,
        evaluation.objective,
        evaluation.rounding,
        np.zeros(len(theta), dtype=np.intp),
    )


def _trust_region_steps(slope: FloatArray, curvature: FloatArray, radius: FloatArray) -> FloatArray:
    """Exact minimisers of ``c's + s'Ws/2`` over ``|s| <= radius``; see `trust_region_step`."""
    lowest = curvature[:, 0]
    largest = np.maximum(np.abs(lowest), np.abs(curvature[:, -1]))
    negligible = ROUNDING_CURVATURE * np.maximum(largest, 1e-300)
    shift = negligible + np.maximum(0.0, -lowest)
    step = -slope / (curvature + shift[:, None])
    size = np.linalg.norm(step, axis=1)
    is_long = size > radius
    if is_long.any():
        own_slope, own_curvature = slope[is_long], curvature[is_long]
        low = shift[is_long]
        high = low + np.linalg.norm(own_slope, axis=1) / radius[is_long]
        for _ in range(N_HALVINGS):
            middle = (low + high) / 2.0
            sizes = np.linalg.norm(own_slope / (own_curvature + middle[:, None]), axis=1)
            too_long = sizes > radius[is_long]
            low, high = np.where(too_long, middle, low), np.where(too_long, high, middle)
        step[is_long] = -own_slope / (own_curvature + high[:, None])
    is_hard = ~is_long & (lowest < -negligible)
    missing = np.sqrt(np.maximum(radius**2 - size**2, 0.0))
    step[is_hard, 0] += np.copysign(missing, step[:, 0])[is_hard]
    return step
