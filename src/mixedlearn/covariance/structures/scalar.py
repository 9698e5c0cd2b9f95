"""No covariances, one variance for all effects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.structures.base import Notation, Settlement, Structure

FloatArray = NDArray[np.float64]


class Scalar(Structure):
    """A multiple of the identity; theta is the standard deviation."""

    name = "scalar"
    notation = Notation("diag", hom=True, is_default=False)
    is_linear = True
    n_parameters = 1

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The entries of D that may differ from zero, shape (q, q)."""
        return np.eye(self.n_effects, dtype=bool)

    @property
    def deviations(self) -> tuple[tuple[int, ...], ...]:
        """One, of all effects."""
        return (tuple(range(self.n_effects)),)

    def root(self, theta: FloatArray) -> FloatArray:
        """Lambda, shape (..., q, q)."""
        return theta[..., None] * self._directions[0]

    @cached_property
    def _directions(self) -> FloatArray:
        return np.eye(self.n_effects)[None]

    def directions(self, theta: FloatArray) -> FloatArray:
        """Derivative of Lambda by the standard deviation, shape (1, q, q)."""
        return self._directions

    def theta_of(self, covariance: FloatArray) -> FloatArray:
        """The root of the mean variance."""
        return np.array([np.sqrt(max(np.diag(covariance).mean(), 0.0))])

    def em_update(
        self, covariance: FloatArray, gradient: FloatArray, n_levels: int
    ) -> FloatArray | None:
        """The mean of the EM steps of all effects."""
        return self.project(covariance - covariance @ gradient @ covariance / n_levels)

    def span(self) -> FloatArray:
        """The identity."""
        return self._directions

    def tangent(self, theta: FloatArray) -> FloatArray:
        """The identity, wherever D is."""
        return self._directions

    def restricted(self, kept: Sequence[int]) -> Structure:
        """The same of fewer effects."""
        return Scalar(len(kept))

    def settlements(self, theta: FloatArray) -> list[Settlement]:
        """No variance."""
        return [Settlement(abs(float(theta[0])), np.zeros(1, dtype=np.intp), np.zeros(1))]
