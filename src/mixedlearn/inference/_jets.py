"""Numbers with their first and second derivatives.

What is estimated is a smooth function of few entries of covariance matrices, whose derivatives are
known: sums, products and logarithms of them carry the derivatives along.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Jet:
    """A number that depends on a parameters.

    Attributes
    ----------
    value : float
    gradient : ndarray of shape (a,)
    hessian : ndarray of shape (a, a)
    """

    value: float
    gradient: FloatArray
    hessian: FloatArray

    @classmethod
    def coordinate(cls, value: float, place: int, n: int) -> Jet:
        """One of n parameters."""
        return cls(value, np.eye(n)[place], np.zeros((n, n)))

    def through(self, value: float, first: float, second: float) -> Jet:
        """A function of the number, by its value and derivatives there."""
        curvature = first * self.hessian + second * np.outer(self.gradient, self.gradient)
        return Jet(value, first * self.gradient, curvature)

    def __add__(self, other: Jet) -> Jet:
        return Jet(
            self.value + other.value,
            self.gradient + other.gradient,
            self.hessian + other.hessian,
        )

    def times(self, factor: float) -> Jet:
        """The number times a constant."""
        return self.through(factor * self.value, factor, 0.0)

    def plus(self, constant: float) -> Jet:
        """The number and a constant."""
        return self.through(self.value + constant, 1.0, 0.0)

    def __mul__(self, other: Jet) -> Jet:
        mixed = np.outer(self.gradient, other.gradient)
        return Jet(
            self.value * other.value,
            self.value * other.gradient + other.value * self.gradient,
            self.value * other.hessian + other.value * self.hessian + mixed + mixed.T,
        )

    def log(self) -> Jet:
        """The logarithm."""
        return self.through(float(np.log(self.value)), 1.0 / self.value, -1.0 / self.value**2)

    def exp(self) -> Jet:
        """The exponential function."""
        value = float(np.exp(self.value))
        return self.through(value, value, value)
