"""Chains: rows in the order of time, of which each depends on the one before alone.

The noise covariance R of such rows has a tridiagonal inverse P. With a row's standard deviation s
and the correlation phi with the row before (zero for the first row of a series), ``P = K'K``, and
row t of K is

    (e_t / s_t - phi_t e_{t-1} / s_{t-1}) / sqrt(1 - phi_t^2)

so that ``U'P U`` is a sum over rows and pairs of rows, with weights that depend on the parameters:

    U'P U = sum_t own_t u_t u_t' + before_t u_{t-1} u_{t-1}'
                  + lagged_t (u_t u_{t-1}' + u_{t-1} u_t')
    own = c / s_t^2,  before = phi^2 c / s_{t-1}^2,  lagged = -phi c / (s_t s_{t-1}),
    c = 1 / (1 - phi^2)

Rows with the same weights whatever the parameters are (the same gap, the same stratum) are of one
*kind*, and their products are added up once. Where there are many kinds the rows themselves are
passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solveh_banded

from mixedlearn.covariance.residual.base import ResidualCovariance
from mixedlearn.covariance.residual.monomial import Monomial, power_derivatives
from mixedlearn.engines.correlated.covariance import Point

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of kinds of rows, or of rows, and what they add to ``log|R|``.

    Attributes
    ----------
    own, before, lagged : ndarray of shape (n_kinds,)
    log_det : ndarray of shape (n_kinds,)
    """

    own: FloatArray
    before: FloatArray
    lagged: FloatArray
    log_det: FloatArray

    @property
    def diagonal(self) -> FloatArray:
        """That of P, of the weights of rows."""
        found = self.own.copy()
        found[:-1] += self.before[1:]
        return found

    def times(self, rows: FloatArray) -> FloatArray:
        """P times rows, from the weights of the rows."""
        found = self.diagonal[:, None] * rows
        found[1:] += self.lagged[1:, None] * rows[:-1]
        found[:-1] += self.lagged[1:, None] * rows[1:]
        return found

    def solve(self, rows: FloatArray) -> FloatArray:
        """R times rows, from the weights of the rows."""
        return np.asarray(solveh_banded(np.array([self.lagged, self.diagonal]), rows))

    def put(self, places: IntArray, other: Weights) -> None:
        """Take the weights of others at these places."""
        self.own[places], self.before[places] = other.own, other.before
        self.lagged[places], self.log_det[places] = other.lagged, other.log_det


@dataclass(frozen=True, slots=True)
class Kinds:
    """What the weights of rows depend on.

    Attributes
    ----------
    part : ndarray of shape (n_kinds,), int
        The part of the noise covariance.
    deviations, before : ndarray of shape (n_kinds, n_deviations)
        See `Layout.deviations`; of the row, and of the one before.
    gap : ndarray of shape (n_kinds,)
        Time since the row before; infinite for the first row of a series.
    """

    part: IntArray
    deviations: FloatArray
    before: FloatArray
    gap: FloatArray

    def weights(
        self, parts: Sequence[ResidualCovariance], point: Point, places: Sequence[slice], order: int
    ) -> dict[tuple[int, ...], Weights]:
        """The weights, and their derivatives by the parameters at these places.

        Returns
        -------
        weights : dict of tuple of int to Weights
            ``()`` for the weights, ``(a,)`` and ``(a, b)``, a not above b, for derivatives.
        """
        found: dict[tuple[int, ...], Weights] = {}
        for number, (part, place) in enumerate(zip(parts, places, strict=True)):
            assert isinstance(part, Monomial)
            rows = np.flatnonzero(self.part == number)
            own = self.rows(rows)
            for key, weights in _of_part(part, point.parts[number], own, order).items():
                placed = tuple(place.start + k for k in key)
                if placed not in found:
                    found[placed] = Weights(*np.zeros((4, len(self.part))))
                found[placed].put(rows, weights)
        return found

    def rows(self, chosen: IntArray) -> Kinds:
        """Some of them."""
        return Kinds(
            self.part[chosen], self.deviations[chosen], self.before[chosen], self.gap[chosen]
        )


def _of_part(
    part: Monomial, point: FloatArray, kinds: Kinds, order: int
) -> dict[tuple[int, ...], Weights]:
    """The weights of kinds of one part, with their derivatives by its parameters."""
    n_dev, n = part.n_deviations, part.n_parameters
    here, there = kinds.deviations[:, :n_dev], kinds.before[:, :n_dev]
    s_here, s_there = here @ point[:n_dev], there @ point[:n_dev]
    phi = _correlations(part, point, kinds.gap)
    u = 1.0 / (1.0 - phi[0] ** 2)
    # u, phi u and log(1 - phi^2) with their derivatives by phi.
    shrink = u, 2.0 * phi[0] * u**2, 2.0 * u**2 + 8.0 * phi[0] ** 2 * u**3
    lag = phi[0] * u, u + phi[0] * shrink[1], 2.0 * shrink[1] + phi[0] * shrink[2]
    log = np.log1p(-(phi[0] ** 2)), -2.0 * lag[0], -2.0 * lag[1]
    sizes = np.exp(-2.0 * s_here), np.exp(-2.0 * s_there), np.exp(-s_here - s_there)
    own = [sizes[0] * value for value in shrink]
    # phi^2 u = u - 1.
    before = [sizes[1] * value for value in (shrink[0] - 1.0, *shrink[1:])]
    lagged = [-sizes[2] * value for value in lag]
    found: dict[tuple[int, ...], Weights] = {}
    found[()] = Weights(own[0], before[0], lagged[0], 2.0 * s_here + log[0])
    if order == 0:
        return found
    slopes = [
        (-2.0 * here[:, j], -2.0 * there[:, j], -here[:, j] - there[:, j]) for j in range(n_dev)
    ]
    nothing = np.zeros(len(phi[0]))
    for j in range(n_dev):
        a, b, c = slopes[j]
        found[(j,)] = Weights(a * own[0], b * before[0], c * lagged[0], 2.0 * here[:, j])
        for k in range(j + 1):
            d, e, f = slopes[k]
            found[(k, j)] = Weights(a * d * own[0], b * e * before[0], c * f * lagged[0], nothing)
    if n > n_dev:
        first = [phi[1] * values[1] for values in (own, before, lagged, log)]
        second = [
            phi[1] ** 2 * values[2] + phi[2] * values[1] for values in (own, before, lagged, log)
        ]
        found[(n_dev,)] = Weights(*first)
        found[(n_dev, n_dev)] = Weights(*second)
        for j in range(n_dev):
            a, b, c = slopes[j]
            found[(j, n_dev)] = Weights(a * first[0], b * first[1], c * first[2], nothing)
    return found


def _correlations(
    part: Monomial, point: FloatArray, gap: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Phi with its first and second derivatives by the coordinate of the correlation."""
    if not part.ranges:
        nothing = np.zeros(len(gap))
        return nothing, nothing, nothing
    rho, slope, bend = part.ranges[0].value(point[part.n_deviations])
    is_pair = np.isfinite(gap)
    g = np.where(is_pair, gap, 1.0)
    phi = rho**g
    first, second = (power_derivatives(np.atleast_1d(rho), g[None], order)[0] for order in (1, 2))
    return (
        np.where(is_pair, phi, 0.0),
        np.where(is_pair, slope * first, 0.0),
        np.where(is_pair, slope**2 * second + bend * first, 0.0),
    )
