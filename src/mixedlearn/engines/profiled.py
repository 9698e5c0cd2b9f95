"""The engines' common part: from a theta to the profiled objective and its derivatives.

Every engine takes the same way from theta to an evaluation,

    Lambda -> (solution: log|V|, [X y]'V^-1[X y]) -> beta, s2 -> objective -> derivatives by D
           -> derivatives by theta

and supplies two of the steps: the solution at a Lambda, and the derivatives by the D_k.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.components import VarianceComponents, theta_gradient, theta_hessian
from mixedlearn.engines.levels import coef_within
from mixedlearn.engines.likelihood import ProfiledLikelihood
from mixedlearn.engines.protocol import Curvature, Evaluation, FixedEffects, worthless_evaluation
from mixedlearn.threads import LARGE_PRODUCT, one_thread, threads_for

FloatArray = NDArray[np.float64]
_NOTHING = np.empty(0)


@dataclass(frozen=True, slots=True)
class Solution:
    """An engine's equations, solved at one Lambda.

    Attributes
    ----------
    log_det : float or ndarray of shape (...)
        log|V|.
    cross : ndarray of shape (..., p + 1, p + 1)
        ``[X y]'V^-1[X y]``.
    details : object
        What the engine needs for the derivatives.
    """

    log_det: Any
    cross: FloatArray
    details: Any


class ProfiledEngine(ABC):
    """An engine whose beta and noise variance are profiled out.

    Parameters
    ----------
    components : VarianceComponents
        Structures of the D_k in the engine's columns.
    n_levels : tuple of int
        Number of levels of every factor.
    likelihood : ProfiledLikelihood
    within : ndarray of shape (..., p + 1, p + 1)
        Cross-products of X and y within levels, those of X diagonal.
    within_variance : float
        Residual variance within levels.
    size : int
        Count of numbers that an evaluation of a response passes over.
    """

    has_exact_hessian = True
    n_probes = 0

    def __init__(
        self,
        components: VarianceComponents,
        n_levels: tuple[int, ...],
        likelihood: ProfiledLikelihood,
        within: FloatArray,
        within_variance: Any,
        size: int,
    ):
        self.components = components
        self.n_levels = n_levels
        self.likelihood = likelihood
        self.n_rows = likelihood.n_rows
        self.within_variance = within_variance
        self.size = size
        self._within = within
        squares = within.diagonal(axis1=-2, axis2=-1)[..., :-1]
        # A large D separates columns that vary within levels from those that do not by as many
        # digits as it has itself, up to what there is of such variation.
        self._separation = 1.0 / np.where(squares > 0.0, squares, 1.0).min(initial=1.0)

    def start(self) -> tuple[FloatArray, ...]:
        """The D_k by the method of moments, from the residuals of ordinary least squares."""
        return self._moments_of(np.zeros(self.likelihood.n_fixed))

    def start_from_within(self) -> tuple[FloatArray, ...]:
        """The D_k by the method of moments, from the residuals of the regression within levels.

        What a huge D would give: where the regressions within and between levels disagree, the
        likelihood may have one optimum near each.
        """
        return self._moments_of(coef_within(self._within))

    def evaluate(self, theta: FloatArray, order: int) -> Evaluation:
        """Objective, gradient and Hessian at theta; see the module's head for the steps.

        Parameters
        ----------
        theta : ndarray of shape (..., n_parameters)
            A row for each response, for an engine of several.
        order : int
            0, 1 or 2.
        """
        if one_thread.is_active and self._multiplications < LARGE_PRODUCT:
            # Small models are evaluated in less time than it takes to enter a context or two.
            return self._evaluate(theta, order)
        with one_thread, threads_for(self._multiplications):
            return self._evaluate(theta, order)

    def _evaluate(self, theta: FloatArray, order: int) -> Evaluation:
        roots = self.components.roots(theta)
        likelihood = self.likelihood
        try:
            solution = self._solve(roots)
        except np.linalg.LinAlgError:
            return worthless_evaluation(theta, likelihood.n_fixed, self.components)
        fixed = likelihood.least_squares(solution.cross)
        is_lost = np.isinf(fixed.noise_variance)
        some_are_lost = is_lost.any()
        if some_are_lost and is_lost.all():
            # D so large that X'V^-1 X is singular to rounding: no point to stay at.
            return worthless_evaluation(theta, likelihood.n_fixed, self.components)
        objective = likelihood.objective(solution.log_det, fixed)
        largest = reduce(np.maximum, [_largest_square(root) for root in roots])
        lost = np.maximum(np.minimum(largest, self._separation), self._n_differences * largest)
        rounding = likelihood.rounding(objective, fixed, lost)
        if order == 0:
            return Evaluation(theta, objective, _NOTHING, _NOTHING, (), fixed, rounding)
        gradients, curvature = self._derivatives(solution.details, fixed, order)
        directions = self.components.directions(theta)
        gradient = theta_gradient(directions, roots, gradients)
        hessian = _NOTHING
        if curvature is not None:
            second, bends = curvature.objective, self.components.curvatures(theta)
            hessian = theta_hessian(directions, roots, gradients, second, bends)
            if some_are_lost:
                hessian[is_lost] = 0.0
        if some_are_lost:
            gradient[is_lost] = 0.0
        return Evaluation(
            theta, objective, gradient, hessian, gradients, fixed, rounding, curvature
        )

    @property
    def _multiplications(self) -> float:
        """Multiplications of an evaluation in products of large matrices, about."""
        return 0.0

    @property
    def _n_differences(self) -> float:
        """In how many rows a large D loses digits, in units of those of one sum over levels."""
        return 0.0

    @abstractmethod
    def _moments_of(self, coef: FloatArray) -> tuple[FloatArray, ...]:
        """The D_k by the method of moments, from the residuals at some beta, shapes (q_k, q_k)."""

    @abstractmethod
    def _solve(self, roots: tuple[FloatArray, ...]) -> Solution:
        """Solve the engine's equations; LinAlgError if they are singular to rounding."""

    @abstractmethod
    def _derivatives(
        self, details: Any, fixed: FixedEffects, order: int
    ) -> tuple[tuple[FloatArray, ...], Curvature | None]:
        """Derivatives by the D_k, shapes (..., q_k, q_k), and at order 2 the second ones."""


def _largest_square(matrices: FloatArray) -> Any:
    """The largest square of an entry of every matrix, shape (...) for (..., q, q)."""
    return np.square(matrices).max(axis=(-2, -1), initial=0.0)
