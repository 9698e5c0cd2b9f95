r"""The largest of several correlated t statistics: adjusted p-values and intervals.

Notation
--------
The t statistics of a family of contrasts are normal variables Z_i of unit variance, over the same
standard deviation estimate s of nu degrees of freedom. With ``G(c) = P(max |Z_i| > c)``,

    P(max |t_i| > t) = E G(t s),        nu s^2 ~ chi^2_nu.

G is computed once for a family at the nodes of a Chebyshev interpolant; the mean over s is then a
quadrature that takes microseconds for any t and nu.

For all differences of k independent means of equal variance, max |Z_i| is their range over the
square root of two (Tukey). For any other family, G is an integral over a box of the multivariate
normal distribution with the contrasts' correlations: the variables of Genz (1992), also where
correlations are singular (Genz & Kwong 2000), at quasi-random points that are always the same, and
so are the p-values.

References
----------
Genz, A. (1992). Numerical computation of multivariate normal probabilities. Journal of
Computational and Graphical Statistics 1, 141-149.

Genz, A. & Kwong, K.-S. (2000). Numerical evaluation of singular multivariate normal distributions.
Journal of Statistical Computation and Simulation 68, 1-21.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import Chebyshev
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammaincinv, gammaln, ndtr, ndtri
from scipy.stats.qmc import Sobol

from mixedlearn.inference._uncertainty import t_quantile, two_sided_p

FloatArray = NDArray[np.float64]

# Beyond this size a normal variable has no probability that doubles tell from zero.
LARGEST = 8.5
# Smaller probabilities are rounding error of the interpolant: the bound of Bonferroni is near them.
LEAST = 1e-10
# Nodes of the interpolant of G, and of the quadratures.
N_NODES = 48
N_QUADRATURE = 160
# Quasi-random points: errors of some 1e-6 for up to ten contrasts.
N_POINTS = 8192
# What is left out of the distribution of s at either end.
TAIL = 1e-14
# Rows of unit length that depend on each other but for this are dependent.
DEPENDENT = 1e-7


@dataclass(frozen=True, slots=True)
class MaxT:
    """The distribution of the largest of several t statistics.

    Attributes
    ----------
    excess : Chebyshev
        G on [0, LARGEST].
    n_tests : int
        Number of t statistics.
    """

    excess: Chebyshev
    n_tests: int

    def p_values(self, t_value: FloatArray, df: FloatArray) -> FloatArray:
        """Probabilities that the largest is beyond these sizes, with these degrees of freedom."""
        single = two_sided_p(t_value, df)
        pairs = zip(np.abs(t_value), df, strict=True)
        beyond = np.array([self._beyond(size, own) for size, own in pairs])
        bonferroni = np.minimum(self.n_tests * single, 1.0)
        return np.clip(np.where(beyond < LEAST, bonferroni, beyond), single, bonferroni)

    def quantiles(self, level: float, df: FloatArray) -> FloatArray:
        """Sizes beyond which the largest is with probability ``1 - level``."""
        return np.array([self._quantile(level, own) for own in df])

    def _quantile(self, level: float, df: float) -> float:
        if np.isnan(df) or df <= 0.0:
            return np.nan
        alpha, own = 1.0 - level, np.array([df])
        single = float(t_quantile(1.0 - alpha / 2.0, own)[0])
        bonferroni = float(t_quantile(1.0 - alpha / (2.0 * self.n_tests), own)[0])

        def missing(size: float) -> float:
            return self._beyond(size, df) - alpha

        if missing(single) <= 0.0 or missing(bonferroni) >= 0.0:
            return single if missing(single) <= 0.0 else bonferroni
        return float(brentq(missing, single, bonferroni, xtol=1e-10))

    def _beyond(self, size: float, df: float) -> float:
        if np.isnan(size) or np.isnan(df) or df <= 0.0:
            return np.nan
        if np.isinf(df):
            return float(self._at(np.array([size]))[0])
        scales, weights = _scales(df)
        return float(self._at(size * scales) @ weights)

    def _at(self, sizes: FloatArray) -> FloatArray:
        return np.where(sizes < LARGEST, self.excess(np.minimum(sizes, LARGEST)), 0.0)


def studentized_range(n_means: int) -> MaxT:
    """That of all differences of independent means of equal variance."""
    z, weights = _nodes(-LARGEST, LARGEST)
    density = n_means * weights * np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)

    def excess(sizes: FloatArray) -> FloatArray:
        below = ndtr(z) - ndtr(z - np.sqrt(2.0) * sizes[:, None])
        return 1.0 - below ** (n_means - 1) @ density

    return MaxT(_interpolant(excess), n_means * (n_means - 1) // 2)


def max_t(root: FloatArray) -> MaxT:
    """That of contrasts of any correlations.

    Parameters
    ----------
    root : ndarray of shape (r, p)
        The contrasts have the covariances ``root root'``, but for their units.
    """
    triangle = _triangle(root / np.linalg.norm(root, axis=1, keepdims=True))
    last = np.array([np.flatnonzero(np.abs(row) > DEPENDENT)[-1] for row in triangle])
    points = _points(triangle.shape[1] - 1)

    def excess(sizes: FloatArray) -> FloatArray:
        return 1.0 - _box_probability(sizes, triangle, last, points)

    return MaxT(_interpolant(excess), len(root))


def _box_probability(
    sizes: FloatArray, triangle: FloatArray, last: NDArray[np.intp], points: FloatArray
) -> FloatArray:
    """Probability that no entry of ``triangle Y`` is beyond a size, for each of the sizes."""
    chosen: list[FloatArray] = []
    probability = np.ones((len(points), len(sizes)))
    for j in range(triangle.shape[1]):
        lower, upper = np.full_like(probability, -np.inf), np.full_like(probability, np.inf)
        for row in triangle[last == j]:
            middle = -sum((share * y for share, y in zip(row, chosen, strict=False)), 0.0) / row[j]
            lower = np.maximum(lower, middle - sizes / abs(row[j]))
            upper = np.minimum(upper, middle + sizes / abs(row[j]))
        start = ndtr(lower)
        width = np.maximum(ndtr(upper) - start, 0.0)
        probability *= width
        if j < points.shape[1]:
            inner = np.clip(start + points[:, j, None] * width, TAIL**2, 1.0 - TAIL)
            chosen.append(ndtri(inner))
    return probability.mean(axis=0)


def _triangle(rows: FloatArray) -> FloatArray:
    """Rows of unit length in an orthonormal basis to which each adds one direction at most."""
    basis = np.empty((0, rows.shape[1]))
    for row in rows:
        rest = row - basis.T @ (basis @ row)
        rest -= basis.T @ (basis @ rest)
        size = np.linalg.norm(rest)
        if size > DEPENDENT:
            basis = np.vstack([basis, rest / size])
    return rows @ basis.T


def _points(n_dimensions: int) -> FloatArray:
    """Scrambled points of Sobol in the unit cube, always the same: (n, n_dimensions)."""
    if n_dimensions == 0:
        return np.empty((1, 0))
    return Sobol(n_dimensions, seed=np.random.default_rng(0)).random(N_POINTS)


def _interpolant(excess: Callable[[FloatArray], FloatArray]) -> Chebyshev:
    return Chebyshev.interpolate(excess, N_NODES - 1, domain=[0.0, LARGEST])


def _scales(df: float) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights for a mean over s, in its logarithm."""
    half = 0.5 * df
    ends = 0.5 * np.log(gammaincinv(half, [TAIL, 1.0 - TAIL]) / half)
    logs, weights = _nodes(*ends)
    log_density = 2.0 * half * logs - half * np.exp(2.0 * logs)
    constant = np.log(2.0) + half * np.log(half) - gammaln(half)
    return np.exp(logs), weights * np.exp(log_density + constant)


def _nodes(start: float, end: float) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights of Gauss and Legendre's quadrature."""
    nodes, weights = _legendre()
    half = 0.5 * (end - start)
    return start + half * (nodes + 1.0), half * weights


@functools.cache
def _legendre() -> tuple[FloatArray, FloatArray]:
    return np.polynomial.legendre.leggauss(N_QUADRATURE)
