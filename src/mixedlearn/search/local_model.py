"""The quadratic model of an objective around a theta: its steps, and the certificate.

The objective depends on Lambda only through ``Lambda Lambda'``, so theta moves without bounds,
through zero, in the charts of the structures (`covariance.charts`). Lengths of theta are measured
relative to ``max(1, |theta|)``, entry by entry: in the engine's columns one is the natural unit,
and a large entry acts through its logarithm. In these lengths and in the eigenvectors of the
Hessian, with slopes c and curvatures w, the model is

    f(s) = f + sum_j (c_j s_j + w_j s_j^2 / 2)

An optimum is accepted with a certificate that depends on no unit: the model promises less than
``tol`` for a step of natural length in any direction. That says that the Newton decrement is small
and that the Hessian is positive semi-definite, both at once (with average information, that the
curvature is, on average over such data). Where D is singular, Lambda has a zero column (after a
rotation), and the Hessian's block of a zero column is twice a block of G, the derivative by D: so
the certificate includes the condition at the boundary, that no variance that is zero would lower
the objective by growing.

Several objectives, with a theta each, add their axis, ``...``, to all arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedlearn.engines.protocol import Evaluation, Objective

FloatArray = NDArray[np.float64]

# Curvature below this, in natural units, leaves a direction undetermined.
FLAT_CURVATURE = 1e-6
# Curvature below this share of the largest is zero but for rounding.
ROUNDING_CURVATURE = 1e-10
# Shares of what the model promised: a step that gains less is refused, calls for a shorter one, or
# gains enough for a longer one (Nocedal & Wright 2006, algorithm 4.1).
REFUSED_AGREEMENT = 1e-4
POOR_AGREEMENT = 0.25
GOOD_AGREEMENT = 0.75
# Most iterations for the length of a step on the trust region's border, and how near is enough.
N_BORDER_ITERATIONS = 60
NEAR_BORDER = 1e-6
SMALLEST = float(np.finfo(float).tiny)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """The quadratic model of the objective around a point, in natural lengths.

    Attributes
    ----------
    theta : ndarray of shape (..., n_parameters)
        The point, in the chart.
    free : ndarray of shape (..., n_free), int
        Entries of theta that the chart leaves free.
    lengths : ndarray of shape (..., n_free)
        Natural lengths of the free entries.
    slope, curvature : ndarray of shape (..., n_free)
        Gradient and Hessian in the Hessian's eigenvectors; curvature ascends.
    vectors : ndarray of shape (..., n_free, n_free)
        The eigenvectors.
    objective, rounding : float, or ndarray of shape (...)
        As in `Evaluation`.
    promised_decrease : float, or ndarray of shape (...)
        Decrease that the model promises within the natural length of theta. Summed over the
        eigenvectors: ``c^2 / 2w`` where the Newton step is shorter than one, ``|c| - w/2`` at
        length one where it is longer or the curvature w is negative.
    """

    theta: FloatArray
    free: NDArray[np.intp]
    lengths: FloatArray
    slope: FloatArray
    curvature: FloatArray
    vectors: FloatArray
    objective: Any
    rounding: Any
    promised_decrease: Any

    def rows(self, chosen: NDArray[np.intp]) -> LocalModel:
        """The models of some of several objectives."""
        return LocalModel(*(getattr(self, part.name)[chosen] for part in fields(self)))

    def put(self, chosen: NDArray[np.intp], other: LocalModel) -> None:
        """Replace the models of some of several objectives."""
        for part in fields(self):
            getattr(self, part.name)[chosen] = getattr(other, part.name)

    def moved(self, step: FloatArray) -> FloatArray:
        """Theta after a step given in the eigenvectors."""
        theta = self.theta.copy()
        change = (self.vectors @ step[..., None])[..., 0]
        theta[_places(self.free)] += self.lengths * change
        return theta

    def promised_by(self, step: FloatArray) -> Any:
        """Decrease that the model promises for a step given in the eigenvectors."""
        return -(step * (self.slope + 0.5 * self.curvature * step)).sum(axis=-1)

    def is_minimum(self, tol: float) -> Any:
        """Whether the certificate holds."""
        is_small = self.promised_decrease <= tol + self.rounding
        return np.isfinite(self.objective) & is_small

    @property
    def newton_length(self) -> float:
        """Length of the Newton step of one objective; infinite without positive curvature."""
        if self.curvature[0] <= 0.0:
            return np.inf
        return float(np.linalg.norm(self.slope / self.curvature))

    @property
    def is_determined(self) -> NDArray[np.bool_]:
        """Eigenvectors along which the objective curves upwards, shape (..., n_free)."""
        return np.asarray(self.curvature > FLAT_CURVATURE)

    def newton_end(self) -> FloatArray:
        """Theta after a Newton step along the eigenvectors that are determined."""
        is_determined = self.is_determined
        curvature = np.where(is_determined, self.curvature, 1.0)
        return self.moved(np.where(is_determined, -self.slope / curvature, 0.0))


def evaluate_with_model(objective: Objective, theta: FloatArray) -> tuple[Evaluation, LocalModel]:
    """The objective at a theta, with its derivatives, and the model around it."""
    theta, free = objective.components.charted(theta)
    evaluation = objective.evaluate(theta, 2)
    return evaluation, local_model(evaluation, free)


def local_model(evaluation: Evaluation, free: NDArray[np.intp]) -> LocalModel:
    """The quadratic model around an evaluation of order 2 in a chart."""
    theta = evaluation.theta
    places = _places(free)
    lengths = np.maximum(1.0, np.abs(theta[places]))
    # One index more for the Hessian's second axis.
    pairs = (*(place[..., None] for place in places), free[..., None, :])
    scaled = evaluation.hessian[pairs] * lengths[..., :, None] * lengths[..., None, :]
    curvature, vectors = np.linalg.eigh(scaled)
    slope = ((evaluation.gradient[places] * lengths)[..., None, :] @ vectors)[..., 0, :]
    return LocalModel(
        theta,
        free,
        lengths,
        slope,
        curvature,
        vectors,
        evaluation.objective,
        evaluation.rounding,
        promised_decrease(slope, curvature),
    )


def promised_decrease(slope: FloatArray, curvature: FloatArray) -> Any:
    """Decrease that a model promises within the natural length; see `LocalModel`."""
    # The share of the step of length one that the model wants along each eigenvector.
    size = np.maximum(np.abs(slope), SMALLEST)
    share = size / np.maximum(curvature, size)
    return (share * (size - 0.5 * share * curvature)).sum(axis=-1)


def _places(free: NDArray[np.intp]) -> tuple[NDArray[np.intp], ...]:
    """The index of the free entries in an array with the same leading axes."""
    if free.ndim == 1:
        return (free,)
    return np.arange(len(free))[:, None], free


def trust_region_step(slope: FloatArray, curvature: FloatArray, radius: Any) -> FloatArray:
    """Exact minimiser of ``c's + s'Ws/2`` over ``|s| <= radius``, W diagonal and ascending.

    Parameters
    ----------
    slope, curvature : ndarray of shape (..., n)
        c and the diagonal of W.
    radius : float, or ndarray of shape (...)
    """
    lowest = curvature[..., 0]
    largest = np.abs(curvature).max(axis=-1)
    negligible = ROUNDING_CURVATURE * np.maximum(largest, SMALLEST)
    shift = negligible - np.minimum(lowest, 0.0)
    step = -slope / (curvature + shift[..., None])
    square = (step * step).sum(axis=-1)
    is_long = square > radius * radius
    if is_long.any():
        step[is_long] = _border_steps(
            slope[is_long], curvature[is_long], shift[is_long], np.asarray(radius)[is_long]
        )
    is_hard = ~is_long & (lowest < -negligible)
    if is_hard.any():
        # The slope has no part along the lowest curvature, so either sign does.
        first = step[..., 0]
        rest = np.sqrt(np.maximum(radius * radius - (square - first * first), 0.0))
        step[..., 0] = np.where(is_hard, np.copysign(rest, first), first)
    return step


def _border_steps(
    slope: FloatArray, curvature: FloatArray, shift: FloatArray, radius: FloatArray
) -> FloatArray:
    """Steps ``-c / (w + mu)`` with ``|c / (w + mu)| = radius``, by Newton in mu.

    On ``1/radius - 1/|c / (w + mu)|``, which is concave: from below, no iteration goes beyond the
    solution (Nocedal & Wright 2006, algorithm 4.3).

    Parameters
    ----------
    slope, curvature : ndarray of shape (n, n_free)
    shift, radius : ndarray of shape (n,)
        A mu below the solution, above minus the lowest curvature, and the lengths of the steps.
    """
    for _ in range(N_BORDER_ITERATIONS):
        denominators = curvature + shift[:, None]
        step = slope / denominators
        squares = step * step
        total = squares.sum(axis=1)
        excess = np.sqrt(total) / radius - 1.0
        is_off = excess >= NEAR_BORDER
        if not is_off.any():
            break
        shift = shift + is_off * excess * total / (squares / denominators).sum(axis=1)
    return -step


def judge(
    gained: Any, promised: Any, rounding: Any, size: Any, radius: Any
) -> tuple[NDArray[np.bool_], Any]:
    """Whether a step is accepted, and the next radius, from what it gained and what was promised.

    Parameters
    ----------
    gained, promised : float, or ndarray of shape (...)
        Decrease of the objective and of its model.
    rounding : float, or ndarray of shape (...)
        How far rounding error may have moved the objective.
    size, radius : float, or ndarray of shape (...)
        Length of the step, and how long it might have been.
    """
    agreement = gained / np.maximum(promised, SMALLEST)
    is_poor = ~(agreement >= POOR_AGREEMENT)
    is_long = (agreement > GOOD_AGREEMENT) & (size > 0.8 * radius)
    is_accepted = (gained > -rounding) & (agreement > REFUSED_AGREEMENT)
    return is_accepted, np.where(is_poor, 0.25 * size, np.where(is_long, 3.0 * radius, radius))
