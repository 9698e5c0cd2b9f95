"""What the optimiser asks of an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance import CovarianceStructure

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FixedEffects:
    """Generalised least squares at one theta, in the engine's columns.

    Attributes
    ----------
    coef : ndarray of shape (p,)
        beta*.
    inverse_root : ndarray of shape (p, p)
        Upper triangular; ``inverse_root inverse_root'`` is the inverse of ``X*'V^-1 X*``.
    noise_variance : float
        s2, relative to the squared scale of y*.
    """

    coef: FloatArray
    inverse_root: FloatArray
    noise_variance: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The objective and what was asked of its derivatives at one theta.

    Attributes
    ----------
    theta : ndarray of shape (n_parameters,)
        Where the objective was evaluated.
    objective : float
        Minus twice the profiled log-likelihood (restricted, for REML).
    gradient : ndarray of shape (n_parameters,)
        Its derivative by theta; empty below order 1.
    hessian : ndarray of shape (n_parameters, n_parameters)
        Its second derivative by theta; empty below order 2.
    covariance_gradient : ndarray of shape (q, q)
        G, its derivative by D; empty below order 1.
    fixed : FixedEffects
        Generalised least squares at theta.
    rounding : float
        How far rounding error may have moved the objective.
    """

    theta: FloatArray
    objective: float
    gradient: FloatArray
    hessian: FloatArray
    covariance_gradient: FloatArray
    fixed: FixedEffects
    rounding: float


def worthless_evaluation(theta: FloatArray, n_fixed: int, n_effects: int) -> Evaluation:
    """An evaluation where the objective cannot be computed: infinite, with no way out of it."""
    size = len(theta)
    return Evaluation(
        theta,
        np.inf,
        np.zeros(size),
        np.zeros((size, size)),
        np.zeros((n_effects, n_effects)),
        FixedEffects(np.zeros(n_fixed), np.eye(n_fixed), 1.0),
        0.0,
    )


class Engine(Protocol):
    """The likelihood of one model; knows no rows.

    `evaluate` may be called at any theta, in any order; an engine holds no state between calls.
    ``size`` is the count of numbers that an evaluation passes over, ``within_variance`` the
    residual variance within levels, to which the noise variance compares (zero where no rows are
    left).
    """

    structure: CovarianceStructure
    n_levels: int
    size: int
    within_variance: float

    def start(self) -> FloatArray:
        """Starting value of D from moments, shape (q, q)."""
        ...

    def start_from_within(self) -> FloatArray:
        """Another starting value of D, for beta as the rows within levels give it."""
        ...

    def evaluate(self, theta: FloatArray, order: int) -> Evaluation:
        """Objective (order 0), with its gradient (1), and its Hessian (2)."""
        ...
