"""Correlations of the rows of a level: what is a parameter, and to which power.

The correlation of two rows is a product of powers of parameters (`monomial`), so that a kind of
correlation is their ranges and the exponents.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.residual.monomial import Range

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]


class Correlation(ABC):
    """A kind of correlation.

    Attributes
    ----------
    needs_time : bool
        Whether the order of the rows is not enough.
    needs_numbers : bool
        Whether times have to be numbers.
    uses_times : bool
        Whether the times between rows count, instead of the occasions.
    has_occasions : bool
        Whether the occasions of two rows say which parameters they have.
    follows_order : bool
        Whether the order of the occasions counts.
    is_stationary : bool
        Whether only differences of times count.
    is_markov : bool
        Whether a row depends on those before through the last of them alone.
    """

    needs_time: ClassVar[bool] = False
    needs_numbers: ClassVar[bool] = False
    uses_times: ClassVar[bool] = False
    has_occasions: ClassVar[bool] = False
    follows_order: ClassVar[bool] = False
    is_stationary: ClassVar[bool] = False
    is_markov: ClassVar[bool] = False

    @abstractmethod
    def ranges(self, n_occasions: int, most_rows: int) -> list[Range]:
        """The ranges of the parameters, for so many occasions and rows of the largest level."""

    @abstractmethod
    def exponents(self, times: FloatArray, occasions: IntArray, n: int) -> FloatArray:
        """Exponents of n parameters, (n, ..., T, T) for rows of shape (..., T)."""

    def names(self, occasions: list[str]) -> list[str]:
        """Names of the parameters, for occasions of these names."""
        return ["correlation"]


class ByTime(Correlation):
    """A power for each unit of time: AR(1)."""

    uses_times = True
    follows_order = True
    is_stationary = True
    is_markov = True

    def ranges(self, n_occasions: int, most_rows: int) -> list[Range]:
        """From minus one to one."""
        return [Range()]

    def exponents(self, times: FloatArray, occasions: IntArray, n: int) -> FloatArray:
        """The times between rows."""
        return np.abs(times[..., :, None] - times[..., None, :])[None]


class ByAnyTime(ByTime):
    """The same for times of any size: a negative number has powers at whole exponents alone."""

    needs_time = True
    needs_numbers = True

    def ranges(self, n_occasions: int, most_rows: int) -> list[Range]:
        """From zero to one."""
        return [Range(0.0, 1.0)]


class Equal(Correlation):
    """The same for all pairs: compound symmetry."""

    is_stationary = True

    def ranges(self, n_occasions: int, most_rows: int) -> list[Range]:
        """As negative as the largest level allows."""
        return [Range(-1.0 / max(most_rows - 1, 1), 1.0)]

    def exponents(self, times: FloatArray, occasions: IntArray, n: int) -> FloatArray:
        """One off the diagonal."""
        t = times.shape[-1]
        return np.broadcast_to(1.0 - np.eye(t), (1, *times.shape, t))


class ByDistance(Correlation):
    """One for every distance in the order of the occasions: Toeplitz."""

    needs_time = True
    has_occasions = True
    follows_order = True

    def ranges(self, n_occasions: int, most_rows: int) -> list[Range]:
        """From minus one to one, for every distance."""
        return [Range()] * (n_occasions - 1)

    def exponents(self, times: FloatArray, occasions: IntArray, n: int) -> FloatArray:
        """One at the distance of the parameter."""
        distance = np.abs(occasions[..., :, None] - occasions[..., None, :])
        return np.array([distance == lag for lag in range(1, n + 1)], dtype=float)

    def names(self, occasions: list[str]) -> list[str]:
        """By distance."""
        return [f"correlation at distance {lag}" for lag in range(1, len(occasions))]


class ByStep(Correlation):
    """One for every step between two occasions, which multiply: antedependence."""

    needs_time = True
    has_occasions = True
    follows_order = True

    def ranges(self, n_occasions: int, most_rows: int) -> list[Range]:
        """From minus one to one, for every step."""
        return [Range()] * (n_occasions - 1)

    def exponents(self, times: FloatArray, occasions: IntArray, n: int) -> FloatArray:
        """One for every step between two occasions."""
        low = np.minimum(occasions[..., :, None], occasions[..., None, :])
        high = np.maximum(occasions[..., :, None], occasions[..., None, :])
        return np.array([(low <= step) & (step < high) for step in range(n)], dtype=float)

    def names(self, occasions: list[str]) -> list[str]:
        """By the two occasions."""
        return [f"correlation of {first} and {second}" for first, second in pairwise(occasions)]


class Free(Correlation):
    """Every pair of occasions its own; no product of powers, see `unrestricted`."""

    needs_time = True

    def ranges(self, n_occasions: int, most_rows: int) -> list[Range]:
        """None."""
        return []

    def exponents(self, times: FloatArray, occasions: IntArray, n: int) -> FloatArray:
        """None."""
        return np.zeros((0, *times.shape, times.shape[-1]))
