"""Autoregression of order one: correlations that fall with the distance in the order of effects.

``R_ij = r^|p_i - p_j|`` with places p, one after another, has the Cholesky root (the effects as a
stationary Markov chain; Box & Jenkins 1970, section 3.2)

    L_i1 = r^(p_i - p_1),    L_ij = (1 - r^(2 g_j))^(1/2) r^(p_i - p_j),    g_j = p_j - p_(j-1)

With ``r = sin(t)`` the root ``(1 - r^(2 g))^(1/2)`` is ``cos(t) (1 + r^2 + ... +
r^(2 g - 2))^(1/2)``, smooth through r = 1 and r = -1. Gaps of more than one are what is left
without some effects.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.structures.base import Notation, Structure
from mixedlearn.covariance.structures.compound_symmetry import CompoundSymmetry
from mixedlearn.covariance.structures.one_correlation import OneCorrelation, OneVariance

FloatArray = NDArray[np.float64]


class AutoregressiveCorrelation(OneCorrelation):
    """The correlation matrix of an autoregression of order one.

    Parameters
    ----------
    places : int or sequence of int
        The number of effects, or their places where some have been left out.
    """

    lower, upper = -1.0, 1.0

    def __init__(self, places: int | Sequence[int]):
        self.places = np.arange(places) if isinstance(places, int) else np.array(places)
        super().__init__(len(self.places))
        self._lags = np.abs(self.places[:, None] - self.places)
        shortest = self._lags[~np.eye(self.n_effects, dtype=bool)].min(initial=1)
        self._shortest = int(shortest)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Neighbours; with gaps between all effects, none has the correlation r itself."""
        return tuple((i, i + 1) for i in range(self.n_effects - 1) if self._lags[i, i + 1] == 1)

    def correlation_roots(self, angle: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """L and its first two derivatives by the angle, shapes (..., q, q)."""
        sine, cosine = np.sin(angle)[..., None, None], np.cos(angle)[..., None, None]
        lags, triangle = self._lags, np.tri(self.n_effects)
        value, slope, bend = (part * triangle for part in _powers(sine, cosine, lags))
        gaps = np.diff(self.places)
        column, by_angle, twice = (
            np.concatenate([np.full_like(sine, own), part], axis=-1)
            for own, part in zip((1.0, 0.0, 0.0), _innovations(sine, cosine, gaps), strict=True)
        )
        first = value * by_angle + slope * column
        second = value * twice + 2.0 * slope * by_angle + bend * column
        return value * column, first, second

    def value(self, angle: float) -> float:
        """The value of r at an angle."""
        return float(np.sin(angle))

    def angle(self, value: float) -> float:
        """An angle at which r has a value."""
        return float(np.arcsin(value))

    def correlation(self, value: float) -> tuple[FloatArray, FloatArray]:
        """R at a value of r, and its derivative by r."""
        less = np.maximum(self._lags - 1, 0)
        return np.power(value, self._lags), self._lags * np.power(value, less)

    def value_of(self, covariance: FloatArray, deviations: FloatArray) -> float:
        """From the nearest effects: covariances over products of standard deviations, in sum."""
        products = np.outer(deviations, deviations)
        lags = self._lags * (products > 0.0)
        shortest = int(lags[lags > 0].min(initial=self._lags.max()))
        is_near = lags == shortest
        share = float(np.clip(covariance[is_near].sum() / products[is_near].sum(), -1.0, 1.0))
        size = abs(share) ** (1.0 / shortest)
        if shortest % 2:
            return float(np.copysign(size, share))
        # Even lags do not tell the sign; the others do.
        off = [
            float(np.square(self.correlation(value)[0] * products - covariance).sum())
            for value in (size, -size)
        ]
        return size if off[0] <= off[1] else -size

    def is_same(self, other: Structure) -> bool:
        """Whether another structure is the same."""
        is_same = super().is_same(other)
        return is_same and np.array_equal(self.places, getattr(other, "places", ()))


class AR1(AutoregressiveCorrelation, OneVariance):
    """One variance, and correlations r^|i - j|; theta is (s, t) with r = sin(t)."""

    name = "ar1"
    notation = Notation("ar1", hom=True)

    def in_engine(self, kept: NDArray[np.intp]) -> Structure:
        """Two effects have compound symmetry, which is linear."""
        return CompoundSymmetry(2) if self.n_effects == 2 else super().in_engine(kept)


def restricted_places(places: NDArray[np.intp], kept: Sequence[int]) -> list[int]:
    """The places of some effects, from zero on."""
    left = places[list(kept)]
    return [int(place) for place in left - left[0]]


def _powers(
    sine: FloatArray, cosine: FloatArray, lags: NDArray[np.intp] | int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """``sin(t)^lag`` and its first two derivatives by t."""
    once = lags * np.power(sine, np.maximum(lags - 1, 0))
    twice = lags * (lags - 1) * np.power(sine, np.maximum(lags - 2, 0))
    return np.power(sine, lags), once * cosine, twice * cosine**2 - once * sine


def _innovations(
    sine: FloatArray, cosine: FloatArray, gaps: NDArray[np.intp]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """``(1 - sin(t)^(2 gap))^(1/2)`` with the sign of the cosine, and its first two derivatives."""
    powers = np.array([_powers(sine, cosine, 2 * k) for k in range(gaps.max(initial=1))])
    # The sum of as many powers as the gap is wide, for every gap, as a last axis.
    sums = powers.cumsum(axis=0)[gaps - 1]
    total, slope, bend = np.moveaxis(sums[..., 0], 0, -1)
    root = np.sqrt(total)
    by_angle = slope / (2.0 * root)
    twice = (bend / 2.0 - by_angle**2) / root
    first = cosine * by_angle - sine * root
    return cosine * root, first, cosine * twice - 2.0 * sine * by_angle - cosine * root
