"""Compound symmetry: one variance, and one correlation for every pair of effects.

``D = s^2 ((1 - r) I + r J)`` has the eigenvalue ``s^2 (1 + (q - 1) r)`` for the mean of the effects
and ``s^2 (1 - r)`` for all differences (Searle 1982, section 12.3). With ``P = J / q`` and
``Q = I - P``, the projections onto the two,

    Lambda = a P + b Q,     D = a^2 P + b^2 Q

is linear in theta = (a, b) and smooth through every end: r = -1 / (q - 1) at a = 0, r = 1 at b = 0.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.structures.base import Correlation, Notation, Settlement, Structure

FloatArray = NDArray[np.float64]


class CompoundSymmetry(Structure):
    """One variance and one correlation; theta is (a, b)."""

    name = "compound_symmetry"
    notation = Notation("cs", hom=True, is_default=False)
    least_effects = 2
    is_linear = True
    n_parameters = 2

    @property
    def deviations(self) -> tuple[tuple[int, ...], ...]:
        """One, of all effects."""
        return (tuple(range(self.n_effects)),)

    @property
    def correlations(self) -> tuple[Correlation, ...]:
        """One, of all pairs; without any variance it means nothing."""
        q = self.n_effects
        pairs = tuple((i, j) for i in range(q) for j in range(i + 1, q))
        every = tuple(range(q))
        return (Correlation(pairs, every, -1.0 / (q - 1), 1.0, (frozenset(every),)),)

    @cached_property
    def _directions(self) -> FloatArray:
        mean = np.full((self.n_effects, self.n_effects), 1.0 / self.n_effects)
        return np.array([mean, np.eye(self.n_effects) - mean])

    def root(self, theta: FloatArray) -> FloatArray:
        """Lambda, shape (..., q, q)."""
        return np.einsum("...a,aij->...ij", theta, self._directions)

    def directions(self, theta: FloatArray) -> FloatArray:
        """The projections P and Q, shape (2, q, q)."""
        return self._directions

    def theta_of(self, covariance: FloatArray) -> FloatArray:
        """Roots of the mean eigenvalues on P and on Q."""
        mean = float(covariance.sum()) / self.n_effects
        rest = (float(np.trace(covariance)) - mean) / (self.n_effects - 1)
        return np.sqrt(np.maximum([mean, rest], 0.0))

    def theta_of_root(self, root: FloatArray) -> FloatArray:
        """The same from sums of squares, which lose no digits where one of the two is small."""
        mean = root.mean(axis=0)
        squares = self.n_effects * np.square(mean).sum(), np.square(root - mean).sum()
        return np.sqrt(np.array(squares) / [1.0, self.n_effects - 1.0])

    def em_update(
        self, covariance: FloatArray, gradient: FloatArray, n_levels: int
    ) -> FloatArray | None:
        """The EM step, averaged within the structure."""
        return self.project(covariance - covariance @ gradient @ covariance / n_levels)

    def span(self) -> FloatArray:
        """P and Q."""
        return self._directions

    def tangent(self, theta: FloatArray) -> FloatArray:
        """P and Q, wherever D is."""
        return self._directions

    def settlements(self, theta: FloatArray) -> list[Settlement]:
        """No variance of the mean, or of the differences."""
        return [
            Settlement(abs(float(entry)), np.array([k]), np.zeros(1))
            for k, entry in enumerate(theta)
        ]

    def trials(self) -> list[FloatArray]:
        """Without a correlation, near both ends, and between."""
        q = self.n_effects
        values = (0.0, -0.7 / (q - 1), 0.5, 0.9)
        return [(1.0 - r) * np.eye(q) + r * np.ones((q, q)) for r in values]
