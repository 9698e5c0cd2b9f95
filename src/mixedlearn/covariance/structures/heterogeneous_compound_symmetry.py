"""Compound symmetry with a variance for each effect: one correlation for every pair.

``R = (1 - r) I + r J`` has the eigenvalues ``1 + (q - 1) r`` and ``1 - r``. With ``P = J / q``,
``Q = I - P`` and

    r = cos(t)^2 - sin(t)^2 / (Q - 1)

where r may be as low as -1 / (Q - 1) for the Q effects of the structure, of which q are left,

    L = (q cos(t)^2 + (Q - q) / (Q - 1) sin(t)^2)^(1/2) P + (Q / (Q - 1))^(1/2) sin(t) Q

is smooth in t; with q = Q the first is ``q^(1/2) cos(t)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.structures.base import Notation, Structure
from mixedlearn.covariance.structures.full import Full
from mixedlearn.covariance.structures.one_correlation import OwnVariances

FloatArray = NDArray[np.float64]


class HeterogeneousCompoundSymmetry(OwnVariances):
    """A variance for each effect and one correlation.

    Parameters
    ----------
    n_effects : int
        Number of effects.
    n_all : int, optional
        Number of effects of which these are a part; it bounds the correlation from below.
    """

    name = "heterogeneous_compound_symmetry"
    notation = Notation("cs", hom=False)
    upper = 1.0

    def __init__(self, n_effects: int, n_all: int | None = None):
        super().__init__(n_effects)
        self.n_all = n_effects if n_all is None else n_all
        self.lower = -1.0 / (self.n_all - 1)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """All pairs."""
        q = self.n_effects
        return tuple((i, j) for i in range(q) for j in range(i + 1, q))

    def correlation_roots(self, angle: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """L and its first two derivatives by the angle, shapes (..., q, q)."""
        q, n_all = self.n_effects, self.n_all
        mean = np.full((q, q), 1.0 / q)
        rest = np.eye(q) - mean
        cosine, sine = np.cos(angle)[..., None, None], np.sin(angle)[..., None, None]
        size = np.sqrt(n_all / (n_all - 1.0))
        if q == n_all:
            first = np.sqrt(q) * cosine, -np.sqrt(q) * sine, -np.sqrt(q) * cosine
        else:
            least = (n_all - q) / (n_all - 1.0)
            value = np.sqrt(q * cosine**2 + least * sine**2)
            slope = (least - q) * sine * cosine / value
            bend = ((least - q) * (cosine**2 - sine**2) - slope**2) / value
            first = value, slope, bend
        second = size * sine, size * cosine, -size * sine
        a, b, c = (one * mean + other * rest for one, other in zip(first, second, strict=True))
        return a, b, c

    def value(self, angle: float) -> float:
        """The value of r at an angle."""
        return float(np.cos(angle) ** 2 + self.lower * np.sin(angle) ** 2)

    def angle(self, value: float) -> float:
        """An angle at which r has a value."""
        share = (1.0 - value) / (1.0 - self.lower)
        return float(np.arcsin(np.sqrt(np.clip(share, 0.0, 1.0))))

    def correlation(self, value: float) -> tuple[FloatArray, FloatArray]:
        """R at a value of r, and its derivative by r."""
        identity = np.eye(self.n_effects)
        return (1.0 - value) * identity + value, np.ones_like(identity) - identity

    def value_of(self, covariance: FloatArray, deviations: FloatArray) -> float:
        """Covariances over products of standard deviations, in sum over all pairs."""
        is_pair = ~np.eye(self.n_effects, dtype=bool)
        products = np.outer(deviations, deviations)
        return float(covariance[is_pair].sum() / products[is_pair].sum())

    def restricted(self, kept: Sequence[int]) -> Structure:
        """The same of fewer effects; the correlation keeps its range."""
        if len(kept) < 2:
            return Full(len(kept))
        return HeterogeneousCompoundSymmetry(len(kept), self.n_all)

    def is_same(self, other: Structure) -> bool:
        """Whether another structure is the same."""
        is_same = super().is_same(other)
        return is_same and isinstance(other, type(self)) and self.n_all == other.n_all
