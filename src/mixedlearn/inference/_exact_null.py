"""The exact null distribution of likelihood-ratio tests of a variance of zero.

Notation
--------
In ``y = X beta + Z b + e`` with ``var(b) = s2 lambda I`` let mu_s be the eigenvalues of
``Z'P_0 Z``, where P_0 projects on what is orthogonal to X, xi_s those of ``Z'Z`` (rows scaled by
the roots of their weights), and let w_s^2 be independent chi-squared variables with one degree of
freedom, s = 1 ... n - p. If lambda = 0, the restricted likelihood-ratio statistic is distributed as

    sup_lambda { (n - p) log(S / D(lambda)) - sum_s log(1 + lambda mu_s) },
    S = sum_s w_s^2,     D(lambda) = sum_s w_s^2 / (1 + lambda mu_s)

in samples of any size (Crainiceanu & Ruppert 2004, theorem 1). The likelihood-ratio statistic has n
and xi_s in the places of n - p and of mu_s in the sum of logarithms; where q fixed effects are zero
under the hypothesis as well, ``n log(1 + sum_{s <= q} u_s^2 / S)`` is added, with u_s^2 chi-squared
too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedlearn.model.fitted import FittedModel

FloatArray = NDArray[np.float64]

# Eigenvalues that differ by less than this share of the largest are one; those below it are zero.
SAME_EIGENVALUE = 1e-10
# Steps of log(lambda) in which the supremum is searched before it is refined.
GRID_STEP = 0.2
# The search runs until lambda times every eigenvalue is so far from one.
GRID_MARGIN = 1e4
# Entries of a work array of the simulation.
CHUNK_ENTRIES = 1 << 22


def spectrum(
    model: FittedModel, k: int, effects: Sequence[int]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Positive eigenvalues of ``Z'P_0 Z``, their multiplicities, and all eigenvalues of ``Z'Z``."""
    sums, factor = model.sums, model.specification.factors[k]
    user = sums.random_columns(k, factor.random_intercept)[:, effects]
    square = sums.level_squares(k, user).transpose(2, 0, 1)
    # Rotating the columns of a level changes nothing, and makes Z'Z diagonal.
    xi, rotation = np.linalg.eigh(square)
    turned = sums.level_products(k, user, model.fixed_basis.columns).transpose(2, 0, 1)
    cross = rotation.transpose(0, 2, 1) @ turned
    sizes = np.maximum(xi.ravel(), 0.0)
    mu, multiplicity = projected_spectrum(sizes, cross.reshape(len(sizes), -1))
    return mu, multiplicity, sizes


def projected_spectrum(sizes: FloatArray, cross: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Positive eigenvalues of ``diag(sizes) - cross cross'``, and how often each occurs.

    Within columns of equal size a rotation leaves at most p with a product that is not zero; the
    rest have that size as their eigenvalue.

    Parameters
    ----------
    sizes : ndarray of shape (M,)
    cross : ndarray of shape (M, p)
    """
    largest = sizes.max(initial=0.0)
    p = cross.shape[1]
    order = np.argsort(sizes)
    steps = np.diff(sizes[order]) > SAME_EIGENVALUE * largest
    repeated: list[float] = []
    times: list[int] = []
    rows, diagonal = [], []
    for members in np.split(order, np.flatnonzero(steps) + 1):
        size, own = sizes[members].mean(), cross[members]
        if len(members) > p:
            own = np.asarray(np.linalg.qr(own, mode="r"))
            repeated.append(size)
            times.append(len(members) - p)
        rows.append(own)
        diagonal += [size] * len(own)
    left = np.concatenate(rows)
    found = np.linalg.eigvalsh(np.diag(diagonal) - left @ left.T)
    values, counts = np.append(repeated, found), np.append(times, np.ones(len(found)))
    is_positive = values > SAME_EIGENVALUE * largest
    return values[is_positive], counts[is_positive]


@dataclass(frozen=True, slots=True)
class NullDistribution:
    """The null distribution of a statistic; see the module's head.

    Attributes
    ----------
    n : int
        Factor of the logarithm of the residual sum of squares: n - p for REML, n for ML.
    df : int
        n - p.
    mu, mu_counts : ndarray of shape (K,)
        Positive eigenvalues of ``Z'P_0 Z`` and how often each occurs.
    xi, xi_counts : ndarray
        Eigenvalues in the sum of logarithms.
    n_fixed : int
        Number of fixed effects that are tested.
    """

    n: int
    df: int
    mu: FloatArray
    mu_counts: FloatArray
    xi: FloatArray
    xi_counts: FloatArray
    n_fixed: int

    def statistics(self, n_draws: int, rng: np.random.Generator) -> FloatArray:
        """Draws of the statistic, shape (n_draws,)."""
        grid = self._grid()
        shrink = 1.0 / (1.0 + np.multiply.outer(self.mu, grid))
        penalty = self._penalty(grid)
        size = max(CHUNK_ENTRIES // max(len(self.mu), len(grid)), 1)
        parts = [
            self._chunk(min(size, n_draws - start), grid, shrink, penalty, rng)
            for start in range(0, n_draws, size)
        ]
        return np.concatenate(parts)

    def _grid(self) -> FloatArray:
        """Log-spaced lambda, the first of them zero."""
        positive = self.mu if len(self.mu) else np.ones(1)
        low = np.log(1.0 / (GRID_MARGIN * positive.max()))
        high = np.log(GRID_MARGIN / positive.min())
        return np.append(0.0, np.exp(np.arange(low, high + GRID_STEP, GRID_STEP)))

    def _penalty(self, values: FloatArray) -> FloatArray:
        """Sum of the logarithms at every lambda."""
        penalty = np.zeros(len(values))
        for xi, count in zip(self.xi, self.xi_counts, strict=True):
            penalty += count * np.log1p(xi * values)
        return penalty

    def _chunk(
        self,
        n_draws: int,
        grid: FloatArray,
        shrink: FloatArray,
        penalty: FloatArray,
        rng: np.random.Generator,
    ) -> FloatArray:
        squares = rng.chisquare(self.mu_counts, size=(n_draws, len(self.mu)))
        df_rest = self.df - int(self.mu_counts.sum())
        rest = rng.chisquare(df_rest, size=n_draws) if df_rest > 0 else np.zeros(n_draws)
        total = rest + squares.sum(axis=1)
        value = self.n * np.log(total[:, None] / (rest[:, None] + squares @ shrink)) - penalty
        best = np.argmax(value, axis=1)
        # The vertex of the parabola through the best point and its neighbours, in log(lambda).
        inner = np.flatnonzero((best > 1) & (best < len(grid) - 1))
        at = best[inner]
        left, top, right = (value[inner, at + step] for step in (-1, 0, 1))
        curvature = left - 2.0 * top + right
        step = np.where(curvature < 0.0, (left - right) / np.minimum(2.0 * curvature, -1e-300), 0.0)
        chosen = grid[at] * np.exp(GRID_STEP * np.clip(step, -1.0, 1.0))
        reduced = rest[inner] + (squares[inner] / (1.0 + np.multiply.outer(chosen, self.mu))).sum(
            axis=1
        )
        refined = self.n * np.log(total[inner] / reduced) - self._penalty(chosen)
        supremum = value[np.arange(n_draws), best]
        supremum[inner] = np.maximum(supremum[inner], refined)
        if self.n_fixed:
            tested = rng.chisquare(self.n_fixed, size=n_draws)
            supremum += self.n * np.log1p(tested / total)
        return supremum
