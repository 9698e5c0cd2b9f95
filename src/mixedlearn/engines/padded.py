"""Factors without columns: another engine's answers, with empty ones for such factors.

A factor whose random effects are all aliased, a random slope on a column of zeros say, adds nothing
to the likelihood. The engine is made for the other factors; what it says is put in their places.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.components import VarianceComponents
from mixedlearn.engines.protocol import (
    Engine,
    Evaluation,
    FixedEffects,
    Posterior,
    SampledEngine,
)

FloatArray = NDArray[np.float64]


class PaddedEngine:
    """An engine of a model in which some factors have no columns.

    Parameters
    ----------
    engine : Engine
        The engine of the other factors.
    active : sequence of int
        The factors that it knows.
    components : VarianceComponents
        Structures of all factors.
    n_levels : tuple of int
        Number of levels of all factors.
    n_fixed : int
        Number of fixed columns.
    """

    def __init__(
        self,
        engine: Engine,
        active: Sequence[int],
        components: VarianceComponents,
        n_levels: tuple[int, ...],
        n_fixed: int,
    ):
        self.components = components
        self.n_levels = n_levels
        self.size = engine.size
        self.n_rows = engine.n_rows
        self.within_variance = engine.within_variance
        self.has_exact_hessian = engine.has_exact_hessian
        self.n_probes = engine.n_probes
        self._engine = engine
        self._active = active
        self._n_fixed = n_fixed

    def with_probes(self, n_probes: int) -> PaddedEngine:
        """The same with another number of probes of the engine inside."""
        inner = cast(SampledEngine, self._engine).with_probes(n_probes)
        return PaddedEngine(inner, self._active, self.components, self.n_levels, self._n_fixed)

    def fixed_effects(self, theta: FloatArray) -> FixedEffects | None:
        """Generalised least squares of the engine inside; see `SampledEngine`."""
        return cast(SampledEngine, self._engine).fixed_effects(theta)

    def start(self) -> tuple[FloatArray, ...]:
        """Starting values of the D_k."""
        return self._padded(self._engine.start())

    def start_from_within(self) -> tuple[FloatArray, ...]:
        """Other starting values."""
        return self._padded(self._engine.start_from_within())

    def evaluate(self, theta: FloatArray, order: int) -> Evaluation:
        """Objective and derivatives: factors without columns have no entries in theta."""
        evaluation = self._engine.evaluate(theta, order)
        gradients = self._padded(evaluation.covariance_gradients) if order else ()
        curvature = evaluation.curvature
        if curvature is not None:
            residual = self._padded(curvature.residual_gradients)
            curvature = replace(curvature, residual_gradients=residual)
        sampled = evaluation.sampled_gradients
        if sampled is not None:
            sampled = self._padded(sampled, lead=(self.n_probes,))
        return replace(
            evaluation,
            covariance_gradients=gradients,
            curvature=curvature,
            sampled_gradients=sampled,
        )

    def random_effects(
        self, roots: Sequence[FloatArray], fixed: FixedEffects
    ) -> tuple[FloatArray, ...]:
        """BLUPs, shapes (q_k, m_k)."""
        empty = [np.zeros((0, m)) for m in self.n_levels]
        if self._active:
            known = self._engine.random_effects([roots[k] for k in self._active], fixed)
            for k, own in zip(self._active, known, strict=True):
                empty[k] = own
        return tuple(empty)

    def posterior(self, roots: Sequence[FloatArray]) -> PaddedPosterior:
        """Distribution of the random effects given the response."""
        response = [np.zeros((0, self._n_fixed, m)) for m in self.n_levels]
        inner = None
        if self._active:
            inner = self._engine.posterior([roots[k] for k in self._active])
            for k, own in zip(self._active, inner.coef_response, strict=True):
                response[k] = own
        return PaddedPosterior(inner, tuple(self._active), self.n_levels, tuple(response))

    def _padded(
        self, matrices: Iterable[FloatArray], lead: tuple[int, ...] = ()
    ) -> tuple[FloatArray, ...]:
        empty = [np.zeros((*lead, 0, 0)) for _ in self.n_levels]
        for k, own in zip(self._active, matrices, strict=False):
            empty[k] = own
        return tuple(empty)


@dataclass(frozen=True, slots=True)
class PaddedPosterior:
    """Distribution of the random effects where some factors have no columns.

    Attributes
    ----------
    inner : Posterior or None
        That of the other factors, if there are any.
    active : tuple of int
        The factors that it knows.
    n_levels : tuple of int
        Number of levels of all factors.
    coef_response : tuple of ndarray of shape (q, p, m)
        For every factor, minus the change of the BLUPs with beta.
    """

    inner: Posterior | None
    active: tuple[int, ...]
    n_levels: tuple[int, ...]
    coef_response: tuple[FloatArray, ...]

    def covariance(self, k: int) -> FloatArray:
        """Covariance of the effects of every level of factor k, shape (q, q, m)."""
        if self.inner is None or k not in self.active:
            return np.zeros((0, 0, self.n_levels[k]))
        return self.inner.covariance(self.active.index(k))

    def variance(
        self, columns: Sequence[FloatArray], codes: Sequence[NDArray[np.integer]]
    ) -> FloatArray:
        """Variance of ``sum_k z_k'b_k`` for new rows, shape (n,)."""
        if self.inner is None:
            return np.zeros(len(columns[0]))
        return self.inner.variance(
            [columns[k] for k in self.active], [codes[k] for k in self.active]
        )
