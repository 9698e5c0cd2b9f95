"""The likelihood with one standard deviation or correlation held at a value.

Notation
--------
Minus twice the log-likelihood before the noise variance is profiled out is, with the objective f of
the engine, ``s2 = r2/df`` and ``tau`` the logarithm of the noise variance,

    d(theta, tau) = f(theta) + df (tau - log s2 + s2 exp(-tau) - 1)

- A standard deviation ``exp(tau/2) (t'D t)^(1/2)`` of a random effect, t its row in the engine's
  basis, is held at v by ``tau = 2 log v - log t'D t``; the noise's own by ``tau = 2 log v``. What
  is left is a function of theta alone, without constraints.
- A correlation does not depend on tau. Its angle, ``arccos`` of it, is drawn to a target by the
  penalty ``w/2 (angle - target)^2`` on f: the minimum lies on the profile, at its own angle.

Everything depends on Lambda through the D_k, so derivatives by D and the chain rule of `components`
give those by theta.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.components import VarianceComponents, theta_gradient, theta_hessian
from mixedlearn.engines.protocol import Evaluation, Objective

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HeldDeviation:
    """A standard deviation at a value.

    Attributes
    ----------
    factor : int or None
        The factor whose random effect it is; None for the noise.
    row : ndarray of shape (q,)
        t, the effect in terms of the engine's effects; empty for the noise.
    value : float
        v, in the engine's unit of the response.
    """

    factor: int | None
    row: FloatArray
    value: float


@dataclass(frozen=True, slots=True)
class DrawnAngle:
    """The angle of two random effects of a factor, drawn to a target.

    Attributes
    ----------
    factor : int
    row, other : ndarray of shape (q,)
        The two effects in terms of the engine's effects.
    target : float
        In radians.
    weight : float
        w of the penalty.
    """

    factor: int
    row: FloatArray
    other: FloatArray
    target: float
    weight: float


class ConstrainedEngine:
    """An engine's likelihood under a constraint.

    Parameters
    ----------
    engine : Objective
    df : int
        Degrees of freedom of its residual sum of squares.
    constraint : HeldDeviation or DrawnAngle
    """

    def __init__(self, engine: Objective, df: int, constraint: HeldDeviation | DrawnAngle):
        self.components: VarianceComponents = engine.components
        self.size = engine.size
        self.has_exact_hessian = engine.has_exact_hessian
        self._engine = engine
        self._df = df
        self._constraint = constraint

    def evaluate(self, theta: FloatArray, order: int) -> Evaluation:
        """The constrained objective, with its gradient and Hessian of every order above zero."""
        evaluation = self._engine.evaluate(theta, 2 if order else 0)
        roots = self.components.roots(theta)
        constraint = self._constraint
        if isinstance(constraint, HeldDeviation):
            change, gradients, second = _held(evaluation, roots, constraint, self._df)
        else:
            change, gradients, second = _drawn(evaluation, roots, constraint)
        objective = evaluation.objective + change
        if not np.isfinite(objective):
            nothing = np.zeros(len(theta))
            return replace(
                evaluation,
                objective=np.inf,
                gradient=nothing,
                hessian=np.outer(nothing, nothing),
                rounding=0.0,
            )
        if order == 0:
            return replace(evaluation, objective=objective)
        arguments = (self.components.directions(theta), roots, gradients)
        return replace(
            evaluation,
            objective=objective,
            gradient=theta_gradient(*arguments),
            hessian=theta_hessian(*arguments, second, self.components.curvatures(theta)),
            covariance_gradients=tuple(gradients),
        )


def noise_log_variance(roots: Sequence[FloatArray], held: HeldDeviation) -> float:
    """Tau of a constraint; infinite where the effect has no variance."""
    if held.factor is None:
        return 2.0 * float(np.log(held.value))
    square = float(np.square(held.row @ roots[held.factor]).sum())
    return float(2.0 * np.log(held.value) - np.log(square)) if square > 0.0 else np.inf


def effects_angle(root: FloatArray, row: FloatArray, other: FloatArray) -> float:
    """Angle between two effects' rows of a root of D; NaN where one has no variance."""
    first, second = row @ root, other @ root
    first_size, second_size = np.linalg.norm(first), np.linalg.norm(second)
    if not first_size * second_size > 0.0:
        return np.nan
    # Half the angle by its tangent keeps the digits that a cosine near one loses.
    first, second = first / first_size, second / second_size
    half = np.arctan2(np.linalg.norm(first - second), np.linalg.norm(first + second))
    return float(2.0 * half)


_Derivatives = tuple[float, list[FloatArray], FloatArray]


def _held(
    evaluation: Evaluation, roots: Sequence[FloatArray], held: HeldDeviation, df: int
) -> _Derivatives:
    """What d has more than f, and the derivatives of d by the D_k."""
    tau = noise_log_variance(roots, held)
    s2 = evaluation.fixed.noise_variance
    if not (np.isfinite(tau) and np.isfinite(evaluation.objective)):
        return np.inf, [], np.empty(0)
    ratio = float(np.exp(np.log(s2) - tau))
    change = df * (tau - float(np.log(s2)) + ratio - 1.0)
    curvature = evaluation.curvature
    if curvature is None or not np.isfinite(ratio):
        return change, [], np.empty(0)
    # The derivatives of log s2; those of d by theta at fixed tau, and by tau.
    residual = np.concatenate([own.ravel() for own in curvature.residual_gradients]) / df
    log_second = curvature.residual / df - np.outer(residual, residual)
    gradient = np.concatenate([own.ravel() for own in evaluation.covariance_gradients])
    gradient = gradient + df * (ratio - 1.0) * residual
    second = curvature.objective + df * (
        (ratio - 1.0) * log_second + ratio * np.outer(residual, residual)
    )
    if held.factor is not None:
        square = float(np.square(held.row @ roots[held.factor]).sum())
        # tau' = -w'/w and tau'' = w'w'/w^2 for w = t'D t, which is linear in D.
        slope = -_flat(roots, held.factor, np.outer(held.row, held.row)) / square
        by_tau = df * (1.0 - ratio)
        gradient = gradient + by_tau * slope
        mixed = np.outer(-df * ratio * residual, slope)
        second = second + mixed + mixed.T
        second = second + (df * ratio + by_tau) * np.outer(slope, slope)
    return change, _unflat(roots, gradient), second


def _drawn(evaluation: Evaluation, roots: Sequence[FloatArray], drawn: DrawnAngle) -> _Derivatives:
    """The penalty, and the derivatives of the sum of f and the penalty by the D_k."""
    angle = effects_angle(roots[drawn.factor], drawn.row, drawn.other)
    off = angle - drawn.target
    change = 0.5 * drawn.weight * off**2
    curvature = evaluation.curvature
    if curvature is None or not (np.isfinite(change) and np.isfinite(evaluation.objective)):
        return (change if np.isfinite(change) else np.inf), [], np.empty(0)
    slope, bend = _angle_derivatives(roots, drawn, angle)
    gradient = np.concatenate([own.ravel() for own in evaluation.covariance_gradients])
    second = curvature.objective + drawn.weight * (np.outer(slope, slope) + off * bend)
    return change, _unflat(roots, gradient + drawn.weight * off * slope), second


def _angle_derivatives(
    roots: Sequence[FloatArray], drawn: DrawnAngle, angle: float
) -> tuple[FloatArray, FloatArray]:
    """First and second derivatives of the angle by the D_k.

    With ``c = N / sqrt(A B)``, all of N, A, B linear in D, and ``angle = arccos c``.
    """
    root = roots[drawn.factor]
    first, second = drawn.row @ root, drawn.other @ root
    size, other_size = float(np.linalg.norm(first)), float(np.linalg.norm(second))
    own = _flat(roots, drawn.factor, np.outer(drawn.row, drawn.row)) / size**2
    other = _flat(roots, drawn.factor, np.outer(drawn.other, drawn.other)) / other_size**2
    both = np.outer(drawn.row, drawn.other)
    shared = _flat(roots, drawn.factor, (both + both.T) / 2.0) / (size * other_size)
    cosine, sine = np.cos(angle), max(np.sin(angle), np.finfo(float).tiny ** 0.25)
    mean = (own + other) / 2.0
    slope = shared - cosine * mean
    mixed = np.outer(shared, mean)
    bend = cosine * (np.outer(own, own) + np.outer(other, other)) / 2.0
    bend = bend + cosine * np.outer(mean, mean) - mixed - mixed.T
    return -slope / sine, -bend / sine - cosine / sine**3 * np.outer(slope, slope)


def _flat(roots: Sequence[FloatArray], k: int, matrix: FloatArray) -> FloatArray:
    """A matrix of factor k among zeros of the others, row by row."""
    return np.concatenate(
        [matrix.ravel() if other == k else np.zeros(root.size) for other, root in enumerate(roots)]
    )


def _unflat(roots: Sequence[FloatArray], flat: FloatArray) -> list[FloatArray]:
    """The matrices of all factors."""
    bounds = np.cumsum([root.size for root in roots])[:-1]
    return [
        part.reshape(root.shape) for part, root in zip(np.split(flat, bounds), roots, strict=True)
    ]
