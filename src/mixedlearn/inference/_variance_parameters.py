r"""Variance parameters: their covariance, and how everything that is estimated changes with them.

Notation
--------
With theta the free entries of the Lambdas (in the chart of `search.local_model`), s2(theta) the
profiled noise variance, df that of the likelihood and f the profiled objective, the deviance before
profiling is

    d(theta, tau) = f(theta) - df (1 + log s2(theta)) + df tau + df s2(theta) / exp(tau)

Take ``eta = tau - log s2(theta)`` for the noise: at the optimum eta is zero, and the Hessian of d
in (theta, eta) is that of f beside ``d^2 d / d eta^2 = df``. So the parameters' covariance by the
observed information, twice the inverse of the Hessian, is

    cov(theta) = 2 f''^-1,     var(eta) = 2 / df,     cov(theta, eta) = 0

and a derivative by theta at a fixed eta is that of the profiled quantity, while one by eta is the
quantity itself if it is proportional to the noise variance, as ``s2 H^-1`` and ``s2 D_k`` are.

The engines give f' exactly; the derivatives of f', of log s2 and of ``H^-1`` by theta are central
differences of fourth order. At a variance of zero everything is an even function of theta, so such
a direction contributes nothing. Where an evaluation is dear the differences are one-sided: one
evaluation for each entry of theta instead of four, and about five digits instead of ten.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from mixedlearn.engines.protocol import Evaluation
from mixedlearn.model.fitted import FittedModel, covariance_changes, once_per_fit
from mixedlearn.search.local_model import (
    FLAT_CURVATURE,
    ROUNDING_CURVATURE,
    evaluate_with_model,
)

FloatArray = NDArray[np.float64]

# Multiplications from which on an evaluation is dear: hundredths of a second.
DEAR = 1e8
# A derivative beyond this share, in a direction in which the likelihood is flat, is not rounding.
FLAT_SHARE = 1e-6
# Uncertainty of the objective from which on one-sided differences would lose more digits.
ROUNDING = 1e-7


@dataclass(frozen=True, slots=True)
class _Differences:
    """A step in natural lengths of theta, and weights of the values at so many steps."""

    step: float
    weights: tuple[tuple[int, float], ...]


# Abramowitz & Stegun (1964, 25.3.6).
CENTRAL = _Differences(1e-3, ((-2, 1.0 / 12.0), (-1, -2.0 / 3.0), (1, 2.0 / 3.0), (2, -1.0 / 12.0)))
# Where derivatives are estimated, the tolerance of iterative solutions asks for longer steps.
SAMPLED = _Differences(1e-2, ((-1, -0.5), (1, 0.5)))
ONE_SIDED = _Differences(1e-6, ((0, -1.0), (1, 1.0)))


@dataclass(frozen=True, slots=True)
class VarianceParameters:
    """The a parameters (theta's free entries, then eta), locally.

    Attributes
    ----------
    covariance : ndarray of shape (a, a)
        Their covariance by the observed information. Directions in which the objective is flat, or
        curved downwards, have none.
    undetermined : ndarray of shape (a, d)
        Those directions.
    coef_changes : ndarray of shape (a, p, p)
        Derivatives of the covariance of the coefficients: ``root change root'`` for ``s2 root
        root'``, with root in the engine's columns (``FixedEffects.inverse_root``).
    noise_changes : ndarray of shape (a,)
        Derivatives of the noise variance.
    covariance_changes : tuple of ndarray of shape (a, q_k, q_k)
        Derivatives of every factor's covariance matrix, in the user's units.
    theta : ndarray of shape (n_parameters,)
        The optimum, in the engine's columns.
    entries : ndarray of shape (a - 1,), int
        Its free entries.
    lengths : ndarray of shape (a - 1,)
        Their natural lengths.
    """

    covariance: FloatArray
    undetermined: FloatArray
    coef_changes: FloatArray
    noise_changes: FloatArray
    covariance_changes: tuple[FloatArray, ...]
    theta: FloatArray
    entries: NDArray[np.intp]
    lengths: FloatArray


@once_per_fit
def variance_parameters(model: FittedModel) -> VarianceParameters:
    """The variance parameters of a model with random effects and noise, at its optimum."""
    problem = model.problem()
    engine, components = problem.engine, problem.engine.components
    optimum, local = evaluate_with_model(engine, components.theta_of_roots(model.roots))
    is_dear = problem.plan.multiplications > DEAR and optimum.rounding < ROUNDING
    differences = ONE_SIDED if is_dear else CENTRAL
    if engine.n_probes:
        differences = SAMPLED
    entries = local.free
    n_free, n_fixed = len(entries), len(optimum.fixed.coef)
    hessian = np.zeros((n_free, n_free))
    log_noise = np.zeros(n_free)
    coef_changes = np.zeros((n_free + 1, n_fixed, n_fixed))
    for a, (entry, length) in enumerate(zip(entries, local.lengths, strict=True)):
        for steps, weight in differences.weights:
            theta = local.theta.copy()
            theta[entry] += steps * differences.step * length
            there = engine.evaluate(theta, 1) if steps else optimum
            share = weight / (differences.step * length)
            hessian[a] += share * there.gradient[entries]
            log_noise[a] += share * np.log(there.fixed.noise_variance)
            coef_changes[a] += share * _relative_covariance(there, optimum)
    coef_changes[-1] = np.eye(n_fixed)
    covariance = np.zeros((n_free + 1, n_free + 1))
    covariance[:-1, :-1], flat = inverse_information(hessian, local.lengths)
    covariance[-1, -1] = 2.0 / model.likelihood_df
    return VarianceParameters(
        covariance,
        np.vstack([flat, np.zeros((1, flat.shape[1]))]),
        coef_changes,
        model.noise_variance * np.append(log_noise, 1.0),
        _with_noise(model, covariance_changes(model, components, local.theta, entries, log_noise)),
        local.theta,
        entries,
        local.lengths,
    )


def _relative_covariance(there: Evaluation, here: Evaluation) -> FloatArray:
    """Covariance of the coefficients at one theta in terms of the root of that at another."""
    root = solve_triangular(here.fixed.inverse_root, there.fixed.inverse_root)
    share = there.fixed.noise_variance / here.fixed.noise_variance
    return share * (root @ root.T)


def inverse_information(hessian: FloatArray, lengths: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Twice the inverse of the Hessian over the directions that curve upwards, and the others."""
    scaled = (hessian + hessian.T) / 2.0 * np.outer(lengths, lengths)
    curvature, vectors = np.linalg.eigh(scaled)
    directions = lengths[:, None] * vectors
    least = max(FLAT_CURVATURE, ROUNDING_CURVATURE * curvature.max(initial=0.0))
    known = curvature > least
    root = directions[:, known] * np.sqrt(2.0 / curvature[known])
    return root @ root.T, directions[:, ~known]


def _with_noise(model: FittedModel, changes: tuple[FloatArray, ...]) -> tuple[FloatArray, ...]:
    """Derivatives by theta with those by eta after them."""
    return tuple(
        np.concatenate([own, covariance[None]])
        for own, covariance in zip(changes, model.covariances, strict=True)
    )
