"""What the optimiser asks of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.components import VarianceComponents

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FixedEffects:
    """Generalised least squares at one theta, in the engine's columns.

    Attributes
    ----------
    coef : ndarray of shape (..., p)
        beta*.
    inverse_root : ndarray of shape (..., p, p)
        Upper triangular; ``inverse_root inverse_root'`` is the inverse of ``X*'V^-1 X*``.
    noise_variance : float, or ndarray of shape (...)
        s2, relative to the squared scale of y*.
    """

    coef: FloatArray
    inverse_root: FloatArray
    noise_variance: Any

    def of(self, response: int) -> FixedEffects:
        """Those of one of several responses."""
        return FixedEffects(
            self.coef[response], self.inverse_root[response], float(self.noise_variance[response])
        )


@dataclass(frozen=True, slots=True)
class Curvature:
    """Derivatives by the entries of the D_k, row by row; only symmetric directions count.

    Attributes
    ----------
    objective : ndarray of shape (sum q_k^2, sum q_k^2)
        Second derivative of the objective, or what average information puts in its place.
    residual_gradients : tuple of ndarray of shape (q_k, q_k)
        Derivative of the residual sum of squares r2 by every D, over s2.
    residual : ndarray of shape (sum q_k^2, sum q_k^2)
        Second derivative of r2, over s2.
    """

    objective: FloatArray
    residual_gradients: tuple[FloatArray, ...]
    residual: FloatArray


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The objective and what was asked of its derivatives at one theta.

    Several responses, with a theta each, add their axis, ``...``.

    Attributes
    ----------
    theta : ndarray of shape (..., n_parameters)
        Where the objective was evaluated.
    objective : float, or ndarray of shape (...)
        Minus twice the profiled log-likelihood (restricted, for REML); infinite where it cannot be
        computed.
    gradient : ndarray of shape (..., n_parameters)
        Its derivative by theta; empty below order 1.
    hessian : ndarray of shape (..., n_parameters, n_parameters)
        Its second derivative by theta; empty below order 2.
    covariance_gradients : tuple of ndarray of shape (..., q_k, q_k)
        G, its derivative by D, of every factor; empty below order 1.
    fixed : FixedEffects
        Generalised least squares at theta.
    rounding : float, or ndarray of shape (...)
        How far rounding error may have moved the objective.
    curvature : Curvature or None
        Second derivatives by D; None below order 2.
    sampled_objectives : ndarray of shape (n_probes,), optional
        How the objective of every probe differs from the mean of all, where it is estimated with
        random probes: at order 0 alone. At other orders the objective is then but near.
    sampled_gradients : tuple of ndarray of shape (n_probes, q_k, q_k), optional
        The same of G, for every factor.
    """

    theta: FloatArray
    objective: Any
    gradient: FloatArray
    hessian: FloatArray
    covariance_gradients: tuple[FloatArray, ...]
    fixed: FixedEffects
    rounding: Any
    curvature: Curvature | None = None
    sampled_objectives: FloatArray | None = None
    sampled_gradients: tuple[FloatArray, ...] | None = None


def worthless_evaluation(
    theta: FloatArray, n_fixed: int, components: VarianceComponents
) -> Evaluation:
    """An evaluation where the objective cannot be computed: infinite, with no way out of it."""
    lead, size = theta.shape[:-1], theta.shape[-1]
    identity = np.tile(np.eye(n_fixed), (*lead, 1, 1))
    return Evaluation(
        theta,
        np.full(lead, np.inf) if lead else np.inf,
        np.zeros((*lead, size)),
        np.zeros((*lead, size, size)),
        tuple(np.zeros((*lead, own.n_effects, own.n_effects)) for own in components.structures),
        FixedEffects(np.zeros((*lead, n_fixed)), identity, np.ones(lead) if lead else 1.0),
        np.zeros(lead) if lead else 0.0,
    )


class Posterior(Protocol):
    """Distribution of the engine's random effects given the response, relative to the noise."""

    @property
    def coef_response(self) -> tuple[FloatArray, ...]:
        """For every factor, minus the change of the BLUPs with beta: shapes (q_k, p, m_k)."""
        ...

    def covariance(self, k: int) -> FloatArray:
        """Covariance of the effects of every level of factor k, beta known: (q_k, q_k, m_k)."""
        ...

    def variance(
        self, columns: Sequence[FloatArray], codes: Sequence[NDArray[np.integer]]
    ) -> FloatArray:
        """Variance of ``sum_k z_k'b_k`` for new rows, beta known, shape (n,).

        ``columns`` holds the z_k, shapes (n, q_k), ``codes`` the level of each row; a row takes no
        part in a factor where the code is -1.
        """
        ...


class Objective(Protocol):
    """What Newton-Raphson asks for.

    `evaluate` may be called at any theta, in any order; nothing is kept between calls that would
    change a result.
    ``has_exact_hessian`` tells whether `evaluate` gives the Hessian or average information;
    ``size`` is the count of numbers that an evaluation passes over.
    """

    components: VarianceComponents
    size: int
    has_exact_hessian: bool

    def evaluate(self, theta: FloatArray, order: int) -> Evaluation:
        """Objective (order 0), with its gradient (1), and its Hessian (2)."""
        ...


class Engine(Objective, Protocol):
    """The likelihood of one model; knows no rows.

    ``within_variance`` is the residual variance within levels, to which the noise variance compares
    (zero where no rows are left). ``n_probes`` is the number of random probes that the objective
    and its derivatives are estimated with; zero where they are exact.
    """

    n_levels: tuple[int, ...]
    n_rows: int
    within_variance: float
    n_probes: int

    def start(self) -> tuple[FloatArray, ...]:
        """Starting values of the D_k from moments, shapes (q_k, q_k)."""
        ...

    def start_from_within(self) -> tuple[FloatArray, ...]:
        """Other starting values, for beta as the rows within levels give it."""
        ...

    def random_effects(
        self, roots: Sequence[FloatArray], fixed: FixedEffects
    ) -> tuple[FloatArray, ...]:
        """BLUPs of the engine's random effects at the Lambdas given, shapes (q_k, m_k)."""
        ...

    def posterior(self, roots: Sequence[FloatArray]) -> Posterior:
        """Distribution of the random effects given the response, at the Lambdas given."""
        ...


class SampledEngine(Engine, Protocol):
    """An engine that estimates the objective and its derivatives with random probes."""

    def fixed_effects(self, theta: FloatArray) -> FixedEffects | None:
        """Generalised least squares at theta to some digits; None where it cannot be had."""
        ...

    def with_probes(self, n_probes: int) -> SampledEngine:
        """The same engine with another number of probes."""
        ...
