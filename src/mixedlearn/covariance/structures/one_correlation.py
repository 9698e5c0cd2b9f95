"""Standard deviations and a correlation matrix of one parameter, as an angle.

A correlation matrix R(r) has a root L(t), r a function of the angle t, that is smooth through the
ends of r: there the angle passes and r turns back, so that t needs no bounds. Then

    Lambda = s L(t)               theta = (s, t)                 one variance
    Lambda = diag(x^2) L(t)       theta = (x_1, ..., x_q, t)     a variance for each effect

The standard deviations of the second are squares: with negative ones ``D_ij = sd_i sd_j r_ij``
would leave the structure. The objective is stationary at ``x_i = 0``, and its second derivative
there is positive exactly if it rises with the standard deviation from zero (the condition at the
boundary), as long as r is determined by the other effects. Where less than two have any variance,
r is not, and `ways_out` looks at all of its values.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.structures.base import BasisChanges, Correlation, Settlement, Structure
from mixedlearn.covariance.structures.full import Full

FloatArray = NDArray[np.float64]

# Values of r at which `ways_out` looks, and the variance that counts as none there.
N_VALUES = 101
NO_VARIANCE = 1e-16
# An end of r, but for rounding error of its angle.
SAME_END = 1e-12


class OneCorrelation(Structure):
    """Standard deviations and one correlation parameter r.

    Subclasses say what the correlation matrix is; `OneVariance` and `OwnVariances` what the
    standard deviations are.
    """

    least_effects = 2
    lower: float
    upper: float

    @abstractmethod
    def correlation_roots(self, angle: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """L and its first two derivatives by the angle, shapes (..., q, q)."""

    @abstractmethod
    def value(self, angle: float) -> float:
        """The value of r at an angle."""

    @abstractmethod
    def angle(self, value: float) -> float:
        """An angle at which r has a value."""

    @abstractmethod
    def correlation(self, value: float) -> tuple[FloatArray, FloatArray]:
        """R at a value of r, and its derivative by r."""

    @abstractmethod
    def value_of(self, covariance: FloatArray, deviations: FloatArray) -> float:
        """The value of r in a D with these standard deviations."""

    @property
    @abstractmethod
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Pairs of effects whose correlation is r."""

    @property
    def free_sets(self) -> tuple[frozenset[int], ...]:
        """Sets of effects without which nothing depends on r."""
        every = frozenset(range(self.n_effects))
        return tuple(every - {effect} for effect in range(self.n_effects))

    @property
    def correlations(self) -> tuple[Correlation, ...]:
        """One."""
        every = tuple(range(self.n_effects))
        return (Correlation(self.pairs, every, self.lower, self.upper, self.free_sets),)

    def angle_of(self, covariance: FloatArray, deviations: FloatArray) -> float:
        """The angle of a D with these standard deviations."""
        if np.count_nonzero(deviations) < 2:
            return self.angle(0.0)
        value = self.value_of(covariance, deviations)
        return self.angle(float(np.clip(value, self.lower, self.upper)))

    def ends_of_angle(self, angle: float, entry: int) -> list[Settlement]:
        """The ends of r, as far as the angle is from where it has them."""
        quarter = np.pi / 2.0
        nearest = quarter * round(angle / quarter)
        is_end = min(abs(self.value(nearest) - end) for end in (self.lower, self.upper)) < SAME_END
        if not is_end:
            return []
        return [
            Settlement(abs(float(np.sin(angle - nearest))), np.array([entry]), np.array([nearest]))
        ]

    def trials(self) -> list[FloatArray]:
        """Without a correlation, near both ends, and between."""
        values = (0.0, 0.5, 0.9, 0.5 * self.lower, 0.9 * self.lower)
        return [self.correlation(value)[0] for value in values]

    def grid(self) -> FloatArray:
        """Values of r, the ends among them."""
        return np.linspace(self.lower, self.upper, N_VALUES)


class OneVariance(OneCorrelation):
    """One variance for all effects: ``Lambda = s L(t)``."""

    n_parameters = 2

    @property
    def deviations(self) -> tuple[tuple[int, ...], ...]:
        """One, of all effects."""
        return (tuple(range(self.n_effects)),)

    @property
    def free_sets(self) -> tuple[frozenset[int], ...]:
        """All effects: they have their variance together."""
        return (frozenset(range(self.n_effects)),)

    def root(self, theta: FloatArray) -> FloatArray:
        """Lambda, shape (..., q, q)."""
        return theta[..., 0, None, None] * self.correlation_roots(theta[..., 1])[0]

    def directions(self, theta: FloatArray) -> FloatArray:
        """Derivatives of Lambda by s and t, shape (..., 2, q, q)."""
        root, first, _ = self.correlation_roots(theta[..., 1])
        return np.stack([root, theta[..., 0, None, None] * first], axis=-3)

    def curvature(self, theta: FloatArray) -> FloatArray:
        """Second derivatives of Lambda, shape (..., 2, 2, q, q)."""
        _, first, second = self.correlation_roots(theta[..., 1])
        second = theta[..., 0, None, None] * second
        rows = [np.stack(row, axis=-3) for row in ((0.0 * first, first), (first, second))]
        return np.stack(rows, axis=-4)

    def theta_of(self, covariance: FloatArray) -> FloatArray:
        """The root of the mean variance, and the angle."""
        deviation = np.sqrt(max(float(np.diag(covariance).mean()), 0.0))
        angle = self.angle_of(covariance, np.full(self.n_effects, deviation))
        return np.array([deviation, angle])

    def tangent(self, theta: FloatArray) -> FloatArray:
        """Derivatives of D by the variance and by r, shape (2, q, q)."""
        matrix, change = self.correlation(self.value(float(theta[1])))
        return np.array([matrix, theta[0] ** 2 * change])

    def settlements(self, theta: FloatArray) -> list[Settlement]:
        """No variance, or r at its ends."""
        none = Settlement(abs(float(theta[0])), np.array([0]), np.zeros(1))
        return [none, *self.ends_of_angle(float(theta[1]), 1)]

    def ways_out(self, theta: FloatArray, gradient: FloatArray, size: float) -> list[FloatArray]:
        """Without any variance, the r along which the objective falls most."""
        if theta[0] ** 2 > NO_VARIANCE:
            return []
        slopes = [(float((gradient * self.correlation(r)[0]).sum()), r) for r in self.grid()]
        slope, value = min(slopes)
        return [np.array([size, self.angle(value)])] if slope < 0.0 else []


class OwnVariances(OneCorrelation):
    """A variance for each effect: ``Lambda = diag(x^2) L(t)``."""

    @property
    def n_parameters(self) -> int:
        """Number of entries of theta."""
        return self.n_effects + 1

    @property
    def basis_changes(self) -> BasisChanges:
        """A scale for each effect."""
        return BasisChanges(None, True, np.zeros(self.n_effects, bool), True)

    def root(self, theta: FloatArray) -> FloatArray:
        """Lambda, shape (..., q, q)."""
        root, _, _ = self.correlation_roots(theta[..., -1])
        return np.square(theta[..., :-1, None]) * root

    def directions(self, theta: FloatArray) -> FloatArray:
        """Derivatives of Lambda by x and t, shape (..., q + 1, q, q)."""
        root, first, _ = self.correlation_roots(theta[..., -1])
        x = theta[..., :-1]
        found = np.zeros((*x.shape[:-1], self.n_effects + 1, *root.shape[-2:]))
        for i in range(self.n_effects):
            found[..., i, i, :] = 2.0 * x[..., i, None] * root[..., i, :]
        found[..., -1, :, :] = np.square(x[..., None]) * first
        return found

    def curvature(self, theta: FloatArray) -> FloatArray:
        """Second derivatives of Lambda, shape (..., q + 1, q + 1, q, q)."""
        root, first, second = self.correlation_roots(theta[..., -1])
        x, n = theta[..., :-1], self.n_effects + 1
        found = np.zeros((*x.shape[:-1], n, n, *root.shape[-2:]))
        for i in range(self.n_effects):
            found[..., i, i, i, :] = 2.0 * root[..., i, :]
            mixed = 2.0 * x[..., i, None] * first[..., i, :]
            found[..., i, -1, i, :] = found[..., -1, i, i, :] = mixed
        found[..., -1, -1, :, :] = np.square(x[..., None]) * second
        return found

    def theta_of(self, covariance: FloatArray) -> FloatArray:
        """Roots of the standard deviations, and the angle."""
        deviations = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        return np.append(np.sqrt(deviations), self.angle_of(covariance, deviations))

    def tangent(self, theta: FloatArray) -> FloatArray:
        """Derivatives of D by the standard deviations and by r, shape (q + 1, q, q).

        An effect without variance that is correlated with no other moves by its variance.
        """
        matrix, change = self.correlation(self.value(float(theta[-1])))
        deviations = np.square(theta[:-1])
        found = np.zeros((self.n_effects + 1, self.n_effects, self.n_effects))
        for i, row in enumerate(matrix * deviations):
            found[i, i] += row
            found[i, :, i] += row
            if not row.any():
                found[i, i, i] = 1.0
        found[-1] = np.outer(deviations, deviations) * change
        return found

    def in_engine(self, kept: NDArray[np.intp]) -> Structure:
        """Two effects have a full covariance, which the engines know better."""
        own = super().in_engine(kept)
        if own.n_effects == 2 and isinstance(own, OneCorrelation) and own.lower == -own.upper:
            return Full(2).in_engine(np.arange(2))
        return own

    def settlements(self, theta: FloatArray) -> list[Settlement]:
        """An effect without variance, or r at its ends."""
        found = [
            Settlement(float(entry) ** 2, np.array([i]), np.zeros(1))
            for i, entry in enumerate(theta[:-1])
        ]
        return [*found, *self.ends_of_angle(float(theta[-1]), self.n_effects)]

    def ways_out(self, theta: FloatArray, gradient: FloatArray, size: float) -> list[FloatArray]:
        """Where less than two effects have variance, that of one more, with the best r.

        Without any variance, that of all effects: along the lowest ``v'(G o R(r)) v`` found among
        v of no negative entry, of which the negative parts of eigenvectors are left out.
        """
        deviations = np.square(theta[:-1])
        present = np.flatnonzero(deviations**2 > NO_VARIANCE)
        if len(present) > 1:
            return []
        found = []
        for value in self.grid():
            form = gradient * self.correlation(value)[0]
            if len(present):
                form[present[0], present[0]] = 0.0
                slopes = form[present[0]] * deviations[present[0]]
                steps = np.where(np.arange(self.n_effects) == present[0], 0.0, slopes)
                added = np.eye(self.n_effects)[np.argmin(steps)]
                found.append((float(steps.min()), value, added))
                continue
            vectors = np.linalg.eigh((form + form.T) / 2.0)[1].T
            for vector in (*np.eye(self.n_effects), *vectors, *-vectors):
                kept = np.maximum(vector, 0.0)
                kept /= max(float(np.linalg.norm(kept)), NO_VARIANCE)
                found.append((float(kept @ form @ kept), value, kept))
        slope, value, added = min(found, key=lambda entry: entry[0])
        if slope >= 0.0:
            return []
        return [np.append(np.sqrt(deviations + size * added), self.angle(value))]
