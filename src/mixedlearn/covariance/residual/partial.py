"""Correlations by distance, through partial correlations.

A Toeplitz matrix of correlations is positive definite exactly where the partial correlations pi_k
of rows at distance k, given those between them, lie between minus one and one
(Barndorff-Nielsen & Schou 1973). The Durbin-Levinson recursion leads from one to the other:

    rho_k = sum_j phi_kj rho_(k - j) + pi_k d_k,       d_(k + 1) = d_k (1 - pi_k^2)
    phi_(k + 1) = (phi_k - pi_k reversed(phi_k), pi_k)

So a search over the pi_k leaves no matrix out and meets none that is no covariance, however few
levels have all distances and whatever random effects are beside.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.jets import Jet
from mixedlearn.covariance.residual.monomial import Monomial, Range

FloatArray = NDArray[np.float64]


class PartialCorrelations(Monomial):
    """Variances that multiply, and a correlation for every distance."""

    def __init__(self, n_deviations: int, ranges: Sequence[Range]):
        super().__init__(n_deviations, ranges)
        # All derivatives at a point ask for the same curves.
        self._latest: tuple[bytes, tuple[FloatArray, FloatArray, FloatArray]] | None = None

    def correlations(self, point: FloatArray) -> FloatArray:
        """The correlation at every distance."""
        partials = self.bounded(point)[0]
        rho, phi, rest = np.empty(len(partials)), np.empty(0), 1.0
        for k, partial in enumerate(partials):
            rho[k] = phi @ rho[:k][::-1] + partial * rest
            phi = np.append(phi - partial * phi[::-1], partial)
            rest *= 1.0 - partial**2
        return rho

    def curves(self, point: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The correlations with their derivatives by the coordinates."""
        key = point.tobytes()
        latest = self._latest
        if latest is None or latest[0] != key:
            latest = self._latest = key, self._curves(point)
        return latest[1]

    def _curves(self, point: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        partials = Jet(*super().curves(point))
        n = len(self.ranges)
        one = Jet(np.ones(1), np.zeros((1, n)), np.zeros((1, n, n)))
        rho = phi = one[:0]
        rest = one
        for k in range(n):
            partial = partials[k : k + 1]
            rho = rho.followed_by((phi * rho[::-1]).sum() + partial * rest)
            phi = (phi + -(phi[::-1] * partial)).followed_by(partial)
            rest = rest * (one + -(partial * partial))
        return rho.values, rho.first, rho.second

    def _coordinates(self, rho: FloatArray) -> FloatArray:
        """The coordinates of the nearest correlations that are possible, distance by distance."""
        partials: list[float] = []
        phi, rest, near = np.empty(0), 1.0, np.empty(0)
        for own, value in zip(self.ranges, rho, strict=True):
            partial = own.inner(float((value - phi @ near[::-1]) / rest))
            near = np.append(near, phi @ near[::-1] + partial * rest)
            phi = np.append(phi - partial * phi[::-1], partial)
            rest *= 1.0 - partial**2
            partials.append(partial)
        return super()._coordinates(np.array(partials))
