"""Numbers with their first and second derivatives.

What is estimated is a smooth function of few entries of covariance matrices, and correlations are
one of other parameters: sums, products and logarithms carry the derivatives along.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Jet:
    """Numbers that depend on n parameters.

    Attributes
    ----------
    values : ndarray of shape (...)
        A number, or several.
    first : ndarray of shape (..., n)
    second : ndarray of shape (..., n, n)
    """

    values: Any
    first: FloatArray
    second: FloatArray

    @classmethod
    def coordinate(cls, value: float, place: int, n: int) -> Jet:
        """One of n parameters."""
        return cls(value, np.eye(n)[place], np.zeros((n, n)))

    def through(self, values: Any, first: Any, second: Any) -> Jet:
        """Functions of the numbers, by their values and derivatives there."""
        slope, bend = np.asarray(first), np.asarray(second)
        outer = self.first[..., :, None] * self.first[..., None, :]
        curvature = slope[..., None, None] * self.second + bend[..., None, None] * outer
        return Jet(values, slope[..., None] * self.first, curvature)

    def __add__(self, other: Jet) -> Jet:
        return Jet(self.values + other.values, self.first + other.first, self.second + other.second)

    def __mul__(self, other: Jet) -> Jet:
        a, b = np.asarray(self.values)[..., None], np.asarray(other.values)[..., None]
        mixed = self.first[..., :, None] * other.first[..., None, :]
        second = mixed + mixed.swapaxes(-1, -2) + a[..., None] * other.second
        return Jet(
            self.values * other.values,
            a * other.first + b * self.first,
            second + b[..., None] * self.second,
        )

    def __neg__(self) -> Jet:
        return self.times(-1.0)

    def __getitem__(self, chosen: slice) -> Jet:
        return Jet(self.values[chosen], self.first[chosen], self.second[chosen])

    def times(self, factor: float) -> Jet:
        """The numbers times a constant."""
        return Jet(factor * self.values, factor * self.first, factor * self.second)

    def plus(self, constant: float) -> Jet:
        """The numbers and a constant."""
        return Jet(self.values + constant, self.first, self.second)

    def log(self) -> Jet:
        """The logarithm."""
        return self.through(np.log(self.values), 1.0 / self.values, -1.0 / self.values**2)

    def exp(self) -> Jet:
        """The exponential function."""
        values = np.exp(self.values)
        return self.through(values, values, values)

    def sum(self) -> Jet:
        """The sum of several, as one of several."""
        return Jet(
            self.values.sum(keepdims=True),
            self.first.sum(axis=0, keepdims=True),
            self.second.sum(axis=0, keepdims=True),
        )

    def followed_by(self, other: Jet) -> Jet:
        """Several and others."""
        return Jet(
            np.append(self.values, other.values),
            np.concatenate([self.first, other.first]),
            np.concatenate([self.second, other.second]),
        )
