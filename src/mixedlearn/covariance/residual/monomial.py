"""Variances that multiply, and correlations that are products of powers.

    R_st = exp(a_s + a_t) prod_k rho_k ^ E_k[s, t],      a = B alpha

with known B and E is nearly every structure in use: E is one off the diagonal for compound
symmetry, ``|t - s|`` for AR(1), one at lag k for Toeplitz, one for k between s and t for
antedependence (Zimmerman & Nunez-Anton 2010); B holds indicators of occasions or strata, or the
logarithm of a covariate for its power.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.residual.base import Layout, ResidualCovariance

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Range:
    """The open interval in which a correlation parameter lies.

    Its coordinate x has no bounds: the parameter follows the logistic function of x, which comes
    as near to an end as a search may want to in few steps of length one.

    Attributes
    ----------
    lower, upper : float
    """

    lower: float = -1.0
    upper: float = 1.0

    def value(self, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The value of rho, with its first and second derivatives by x."""
        width = self.upper - self.lower
        share = 1.0 / (1.0 + np.exp(-x))
        slope = share * (1.0 - share)
        return self.lower + width * share, width * slope, width * slope * (1.0 - 2.0 * share)

    def inner(self, rho: float) -> float:
        """The nearest value that is not close to an end."""
        margin = 0.05 * (self.upper - self.lower)
        return float(np.clip(rho, self.lower + margin, self.upper - margin))

    def coordinate(self, rho: float) -> float:
        """The x of a rho in the interval."""
        share = (rho - self.lower) / (self.upper - self.lower)
        return float(np.log(share / (1.0 - share)))


class Monomial(ResidualCovariance):
    """Variances that multiply, and correlations that are products of powers.

    Parameters
    ----------
    n_deviations : int
        Number of columns of B.
    ranges : sequence of Range
        Of the correlation parameters.
    """

    is_relative = True

    def __init__(self, n_deviations: int, ranges: Sequence[Range]):
        self.n_deviations = n_deviations
        self.ranges = tuple(ranges)

    @property
    def n_parameters(self) -> int:
        """Number of entries of alpha and rho."""
        return self.n_deviations + len(self.ranges)

    def bounded(self, point: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """What lies in the ranges, with first and second derivatives by its own coordinate."""
        found = [
            own.value(x) for own, x in zip(self.ranges, point[self.n_deviations :], strict=True)
        ]
        if not found:
            return np.empty(0), np.empty(0), np.empty(0)
        first, second, third = (np.array(part) for part in zip(*found, strict=True))
        return first, second, third

    def correlations(self, point: FloatArray) -> FloatArray:
        """The correlation parameters."""
        return self.bounded(point)[0]

    def curves(self, point: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The correlations with first and second derivatives, shapes (k,), (k, k) and (k, k, k).

        The derivatives are by the coordinates in the axes after the first.
        """
        rho, slope, bend = self.bounded(point)
        unit = np.eye(len(rho))
        return rho, slope[:, None] * unit, bend[:, None, None] * unit[:, :, None] * unit[:, None]

    def _coordinates(self, rho: FloatArray) -> FloatArray:
        """The coordinates of correlations within their ranges."""
        found = [own.coordinate(float(x)) for own, x in zip(self.ranges, rho, strict=True)]
        return np.array(found)

    def covariance(self, point: FloatArray, layout: Layout) -> FloatArray:
        """R, shape (..., T, T)."""
        sizes = self._sizes(point, layout)
        correlations = self.correlations(point)
        if not len(correlations):
            # Each row with itself alone.
            return sizes * np.eye(sizes.shape[-1])
        return sizes * np.prod(_powers(correlations, layout.exponents), axis=0)

    def _columns(self, layout: Layout) -> FloatArray:
        """B; of several parts the first has fewer columns."""
        return layout.deviations[..., : self.n_deviations]

    def _sizes(self, point: FloatArray, layout: Layout) -> FloatArray:
        deviations = np.exp(self._columns(layout) @ point[: self.n_deviations])
        sizes = np.asarray(deviations[..., :, None] * deviations[..., None, :])
        return sizes if layout.is_correlated is None else sizes * layout.is_correlated

    def directions(self, point: FloatArray, layout: Layout) -> FloatArray:
        """Its derivatives by the local coordinates, shape (n_parameters, ..., T, T)."""
        covariance = self.covariance(point, layout)
        found = covariance * _sums(self._columns(layout))
        if self.ranges:
            rho, slopes, _ = self.curves(point)
            powers = _powers(rho, layout.exponents)
            by_rho = self._sizes(point, layout) * _by_correlation(rho, powers, layout)
            found = np.concatenate([found, np.tensordot(slopes.T, by_rho, 1)])
        return np.asarray(found)

    def second(self, point: FloatArray, layout: Layout, weights: FloatArray) -> FloatArray:
        """``sum(R_ab * weights)`` of the second derivatives."""
        n, n_dev = self.n_parameters, self.n_deviations
        result = np.zeros((n, n))
        directions = self.directions(point, layout)
        sums = _sums(self._columns(layout))
        flat = (directions * weights).reshape(n, -1)
        result[:, :n_dev] = flat @ sums.reshape(n_dev, flat.shape[1]).T
        result[:n_dev] = result[:, :n_dev].T
        if not self.ranges:
            return result
        rho, slopes, bends = self.curves(point)
        weighted = self._sizes(point, layout) * weights
        powers = _powers(rho, layout.exponents)
        first, second = (power_derivatives(rho, layout.exponents, order) for order in (1, 2))
        by_rho = np.zeros((len(rho), len(rho)))
        for k in range(len(rho)):
            by_rho[k, k] = np.sum(weighted * second[k] * _without(powers, k))
            for j in range(k):
                value = np.sum(weighted * first[j] * first[k] * _without(powers, j, k))
                by_rho[k, j] = by_rho[j, k] = value
        gradient = (weighted * _by_correlation(rho, powers, layout)).reshape(len(rho), -1).sum(1)
        result[n_dev:, n_dev:] = slopes.T @ by_rho @ slopes + np.tensordot(gradient, bends, 1)
        return result

    def moved(self, point: FloatArray, step: FloatArray) -> FloatArray:
        """The local coordinates are the parameters."""
        return point + step

    def starts(self, moments: FloatArray) -> list[FloatArray]:
        """Points to search from.

        Parameters
        ----------
        moments : ndarray of shape (n_parameters,)
            The logarithms of the deviations, and correlations within their ranges.
        """
        n_dev = self.n_deviations
        point = np.array(moments, dtype=float)
        point[n_dev:] = self._coordinates(point[n_dev:])
        if len(self.ranges) < 2:
            return [point]
        # Products of correlations have several optima, of different signs.
        starts = [point]
        for signs in (-1.0, (-1.0) ** np.arange(len(self.ranges)), 0.0):
            other = point.copy()
            other[n_dev:] *= signs
            starts.append(other)
        return starts

    def levelled(self, point: FloatArray) -> FloatArray:
        """The point with one variance for all rows."""
        return np.append(np.zeros(self.n_deviations), point[self.n_deviations :])

    def with_correlation(self, point: FloatArray, rho: float) -> FloatArray:
        """The point with another value of a single correlation."""
        return np.append(point[: self.n_deviations], self.ranges[0].coordinate(rho))

    def mirrored(self, point: FloatArray) -> list[FloatArray]:
        """The point with the other sign of a single correlation, where its range has both."""
        if len(self.ranges) != 1 or self.ranges[0].lower != -self.ranges[0].upper:
            return []
        other = point.copy()
        other[-1] *= -1.0
        return [other]


def _sums(deviations: FloatArray) -> FloatArray:
    """``B_s + B_t``, shape (n_deviations, ..., T, T)."""
    columns = np.moveaxis(deviations, -1, 0)
    return np.asarray(columns[..., :, None] + columns[..., None, :])


def _powers(rho: FloatArray, exponents: FloatArray) -> FloatArray:
    return np.asarray(rho.reshape(-1, *(1,) * (exponents.ndim - 1)) ** exponents)


def power_derivatives(rho: FloatArray, exponents: FloatArray, order: int) -> FloatArray:
    """First or second derivatives of ``rho ** exponents``, whose base may be zero.

    Parameters
    ----------
    rho : ndarray of shape (n,)
    exponents : ndarray of shape (n, ...)
    order : {1, 2}
    """
    factor = exponents if order == 1 else exponents * (exponents - 1.0)
    base = rho.reshape(-1, *(1,) * (exponents.ndim - 1))
    power = base ** np.where(factor == 0.0, 0.0, exponents - order)
    return np.where(factor == 0.0, 0.0, factor * power)


def _by_correlation(rho: FloatArray, powers: FloatArray, layout: Layout) -> FloatArray:
    """Derivatives of the correlations of rows by the parameters, shape (n_rho, ..., T, T)."""
    first = power_derivatives(rho, layout.exponents, 1)
    return np.array([first[k] * _without(powers, k) for k in range(len(rho))])


def _without(powers: FloatArray, *left_out: int) -> FloatArray:
    """The product of all powers but some."""
    kept = [k for k in range(len(powers)) if k not in left_out]
    return np.asarray(np.prod(powers[kept], axis=0))
