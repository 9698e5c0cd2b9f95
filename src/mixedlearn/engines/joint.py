"""All factors at once: the likelihood of a few hundred random effects, with its exact Hessian.

Notation
--------
The columns Z = (Z_1 ... Z_K) of all levels of all factors span r dimensions. With an orthonormal
basis Q of their span the data are r rows, as if there were one level (`levels`):

    U = Q'Z  (r, M),    R = Q'[X y],    W = [X y]'(I - Q Q')[X y]

and with ``L L' = I + sum_k U_k D_k U_k'`` everything is as in `one_factor`:

    P = L^-1 U,   K = L^-1 R,   [X y]'V^-1[X y] = W + K'K,   u = P'(K_y - K_X beta)
    Pi = Z'V^-1 Z - [Z'V^-1 X H^-1 X'V^-1 Z  for REML]                            (M, M)

The derivative of the objective by D_k is the sum of the levels' diagonal blocks of
``Pi - u u'/s2``; the second derivative in directions E of D_k and F of D_l is

    (2/s2) w_E' P_X w_F - sum_ij tr(E Pi_ij F Pi_ji) - g_E g_F / df,       w_E = Z_k E u_k

where i runs over the levels of k, j over those of l, P_X = V^-1 - V^-1 X H^-1 X'V^-1, and
``g_E = sum_i u_i'E u_i / s2`` (Harville 1977; Lindstrom & Bates 1988).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.algebra import PIVOT_TOLERANCE, cholesky, inverse_of_lower
from mixedlearn.covariance.components import VarianceComponents
from mixedlearn.data.sums import Sums
from mixedlearn.data.triangles import JointTriangles
from mixedlearn.engines.bases import FixedBasis, RandomBasis
from mixedlearn.engines.levels import LevelMoments, within_variance
from mixedlearn.engines.likelihood import ProfiledLikelihood
from mixedlearn.engines.moments import start_from_moments
from mixedlearn.engines.plan import Block, Plan
from mixedlearn.engines.profiled import ProfiledEngine, Solution
from mixedlearn.engines.protocol import Curvature, FixedEffects

FloatArray = NDArray[np.float64]

# Dimensions of the columns' span that hold less than this share of the largest are rounding error.
RANK_TOLERANCE = 1e-12
# Entries of D, in natural units, up to which the square of Lambda costs no digits that count.
LARGE_VARIANCE = 1e3


def plan_jointly(shapes: Sequence[tuple[int, int]]) -> Plan:
    """The plan for factors of so many effects and levels: all of them are one dense block."""
    blocks = tuple(Block(k, m, q, is_dense=True) for k, (q, m) in enumerate(shapes))
    return Plan("joint", blocks, is_exact=JointEngine.has_exact_hessian)


def reduce_jointly(sums: Sums, fixed: FixedBasis, randoms: Sequence[RandomBasis]) -> LevelMoments:
    """Turn sums into r rows: the moments of one level that holds all effects.

    The effects come factor by factor, within a factor effect by effect, then level by level.
    """
    columns = np.column_stack([fixed.columns, fixed.response])
    triangles = sums.joint_triangles()
    if triangles is None:
        spanned, inside = _from_squares(sums, randoms, columns)
        within = sums.products(columns) - inside.T @ inside
    else:
        spanned, inside, left = _from_triangles(triangles, randoms, sums.n_levels, columns)
        within = left.T @ left
    rows = np.concatenate([spanned, inside], axis=1)
    return LevelMoments(spanned.shape[1], len(rows), rows[:, :, None], np.ones(1), within)


def _from_triangles(
    triangles: JointTriangles,
    randoms: Sequence[RandomBasis],
    n_levels: Sequence[int],
    columns: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """U and R of the rows that span the random columns, and the columns in all other rows."""
    parts, start = [], 0
    for random, m in zip(randoms, n_levels, strict=True):
        q, q_engine = random.to_user.shape
        own = triangles.spanned[:, start : start + q * m].reshape(-1, q, m)
        turned = np.einsum("rqm,qe->rem", own, random.to_user)
        # A column that a level does not have, of a category say, is zero but for rounding.
        lengths = np.sqrt(np.square(turned).sum(axis=0))
        turned[:, lengths <= RANK_TOLERANCE * lengths.max(axis=1, keepdims=True, initial=0.0)] = 0.0
        parts.append(turned.reshape(-1, q_engine * m))
        start += q * m
    spanned, inside = np.concatenate(parts, axis=1), triangles.inside @ columns
    sizes = np.sqrt(np.square(spanned).sum(axis=0))
    sizes = np.where(sizes > 0.0, sizes, 1.0)
    turn, values, _ = np.linalg.svd(spanned / sizes, full_matrices=True)
    rank = int((values > RANK_TOLERANCE * values.max(initial=1.0)).sum())
    inside = turn.T @ inside
    left = np.vstack([inside[rank:], triangles.left @ columns])
    return turn[:, :rank].T @ spanned, inside[:rank], left


def _from_squares(
    sums: Sums, randoms: Sequence[RandomBasis], columns: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """U and R of the rows that span the random columns."""
    shapes = [
        (random.columns.shape[1], m) for random, m in zip(randoms, sums.n_levels, strict=True)
    ]
    bounds = np.cumsum([0, *(q * m for q, m in shapes)])
    n_effects = int(bounds[-1])
    gram = np.zeros((n_effects, n_effects))
    response = np.empty((n_effects, columns.shape[1]))
    magnitudes = np.empty(n_effects)
    for k, random in enumerate(randoms):
        own = slice(bounds[k], bounds[k + 1])
        q, m = shapes[k]
        turned = sums.level_products(k, random.columns, columns)
        response[own] = turned.transpose(0, 2, 1).reshape(q * m, -1)
        block = np.zeros((q, m, q, m))
        square = sums.level_squares(k, random.columns)
        magnitudes[own] = sums.level_magnitudes(k, random.columns).ravel()
        block[:, np.arange(m), :, np.arange(m)] = square.transpose(2, 0, 1)
        gram[own, own] = block.reshape(q * m, q * m)
        for other in range(k + 1, len(randoms)):
            values = sums.crossed(k, other, random.columns, randoms[other].columns)
            first, second = sums.pairs(k, other)
            block = np.zeros((q, m, *shapes[other]))
            block[:, first, :, second] = values.transpose(2, 0, 1)
            there = slice(bounds[other], bounds[other + 1])
            gram[own, there] = block.reshape(q * m, -1)
            gram[there, own] = gram[own, there].T
    # A column that a level does not have, of a category say, is zero but for rounding.
    is_absent = np.diag(gram) <= PIVOT_TOLERANCE * magnitudes
    gram[is_absent] = gram[:, is_absent] = 0.0
    response[is_absent] = 0.0
    sizes = np.where(is_absent, 1.0, np.sqrt(np.diag(gram)))
    values, vectors = np.linalg.eigh(gram / np.outer(sizes, sizes))
    is_spanned = values > RANK_TOLERANCE * max(values[-1], 1.0)
    roots, vectors = np.sqrt(values[is_spanned]), vectors[:, is_spanned]
    spanned = (vectors * sizes[:, None] * roots).T
    return spanned, (vectors / sizes[:, None] / roots).T @ response


def whitening(
    columns: FloatArray, shapes: Sequence[tuple[int, int]], roots: Sequence[FloatArray]
) -> tuple[FloatArray, float]:
    """``L^-1``, shape (r, r), and log|V|.

    With a large D, L is the factor of ``[U Lambda, I]``, for the digits that its square loses.

    Parameters
    ----------
    columns : ndarray of shape (r, sum q_k m_k)
        U.
    shapes : sequence of (int, int)
        q_k and m_k.
    roots : sequence of ndarray of shape (q_k, q_k)
        The Lambda_k.
    """
    spread = _times_roots(columns, shapes, roots)
    r = len(spread)
    if max([np.square(root).max(initial=0.0) for root in roots]) > LARGE_VARIANCE:
        lower = np.asarray(np.linalg.qr(np.vstack([spread.T, np.eye(r)]), mode="r")).T
    else:
        gram = spread @ spread.T
        gram.flat[:: r + 1] += 1.0
        lower = cholesky(gram)
    log_det = 2.0 * float(np.log(np.abs(lower.diagonal())).sum())
    return inverse_of_lower(lower), log_det


def _times_roots(
    columns: FloatArray, shapes: Sequence[tuple[int, int]], roots: Sequence[FloatArray]
) -> FloatArray:
    """Columns of all effects times Lambda, level by level."""
    result = np.empty_like(columns)
    start = 0
    for root, (q, m) in zip(roots, shapes, strict=True):
        own = slice(start, start + q * m)
        part = columns[:, own].reshape(len(columns), q, m)
        result[:, own] = np.matmul(root.T, part).reshape(len(columns), -1)
        start = own.stop
    return result


class JointEngine(ProfiledEngine):
    """The likelihood of several factors with few levels, all in one dense block.

    Parameters
    ----------
    moments : LevelMoments
        Of one level that holds the effects of all factors, from `reduce_jointly`.
    components : VarianceComponents
        Structures of the D_k in the engine's columns.
    n_levels : tuple of int
        Number of levels of every factor.
    likelihood : ProfiledLikelihood
    """

    def __init__(
        self,
        moments: LevelMoments,
        components: VarianceComponents,
        n_levels: tuple[int, ...],
        likelihood: ProfiledLikelihood,
    ):
        rows, n_effects = moments.rows[:, :, 0], moments.n_effects
        self._columns, self._data = rows[:, :n_effects], rows[:, n_effects:]
        super().__init__(
            components,
            n_levels,
            likelihood,
            moments.within,
            within_variance(moments, likelihood.n_rows),
            self._columns.size,
        )
        self._shapes = [
            (structure.n_effects, m)
            for structure, m in zip(components.structures, n_levels, strict=True)
        ]
        bounds = np.cumsum([0, *(q * m for q, m in self._shapes)]).tolist()
        self._slices = [slice(*pair) for pair in pairwise(bounds)]
        bounds = np.cumsum([0, *(q * q for q, _ in self._shapes)]).tolist()
        self._entries = [slice(*pair) for pair in pairwise(bounds)]

    def _moments_of(self, coef: FloatArray) -> tuple[FloatArray, ...]:
        contrast = np.append(-coef, 1.0)
        data = self._data @ contrast
        gram = self._columns.T @ self._columns
        moments = self._columns.T @ data
        parts = [
            slice(own.start + a * m, own.start + (a + 1) * m)
            for (q, m), own in zip(self._shapes, self._slices, strict=True)
            for a in range(q)
        ]
        sizes = np.diag(gram)
        inverse = np.where(sizes > 0.0, 1.0 / np.where(sizes > 0.0, sizes, 1.0), 0.0)
        weighted = inverse[:, None] * np.square(gram)
        total = float(contrast @ self._within @ contrast + data @ data)
        return start_from_moments(
            squares=np.array([np.square(moments[part]) @ inverse[part] for part in parts]),
            counts=np.array([np.count_nonzero(sizes[part]) for part in parts]),
            sizes=np.array([sizes[part].sum() for part in parts]),
            overlaps=np.array([[weighted[g, h].sum() for h in parts] for g in parts]),
            total=total,
            df=self.likelihood.total,
            n_effects=[q for q, _ in self._shapes],
        )

    def _solve(self, roots: tuple[FloatArray, ...]) -> Solution:
        """The details are ``L^-1`` and K."""
        inverse, log_det = whitening(self._columns, self._shapes, roots)
        data = inverse @ self._data
        return Solution(log_det, self._within + data.T @ data, (inverse, data))

    def _derivatives(
        self, details: tuple[FloatArray, FloatArray], fixed: FixedEffects, order: int
    ) -> tuple[tuple[FloatArray, ...], Curvature | None]:
        inverse, data = details
        likelihood, s2 = self.likelihood, fixed.noise_variance
        projected = inverse @ self._columns  # P
        u = projected.T @ (data[:, -1] - data[:, :-1] @ fixed.coef)
        mixed = projected.T @ (data[:, :-1] @ fixed.inverse_root)
        whole = projected.T @ projected
        leverage = mixed @ mixed.T
        information = whole - leverage if likelihood.reml else whole
        effects = [u[own].reshape(s) for own, s in zip(self._slices, self._shapes, strict=True)]
        scores = [effect @ effect.T / s2 for effect in effects]
        gradients = tuple(
            np.einsum("aibi->ab", self._block(information, k, k)) - score
            for k, score in enumerate(scores)
        )
        if order < 2:
            return gradients, None
        turned = self._turned(effects)
        residual = (2.0 / s2) * (turned.T @ (whole - leverage) @ turned)
        g = np.concatenate([score.ravel() for score in scores])
        second = residual - np.outer(g, g) / likelihood.df
        for k, own in enumerate(self._entries):
            for other, there in enumerate(self._entries[: k + 1]):
                traces = _traces(self._block(information, k, other))
                second[own, there] -= traces
                if other < k:
                    second[there, own] -= traces.T
        return gradients, Curvature(second, tuple(-score for score in scores), residual)

    def _block(self, matrix: FloatArray, k: int, other: int) -> FloatArray:
        """Of a matrix over all effects those of two factors, shape (q_k, m_k, q_l, m_l)."""
        part = matrix[self._slices[k], self._slices[other]]
        return part.reshape(*self._shapes[k], *self._shapes[other])

    def _turned(self, effects: Sequence[FloatArray]) -> FloatArray:
        """Coordinates of ``Z_k e_a e_b' u_k`` in Z, a column for each k, a and b."""
        turned = np.zeros((self._columns.shape[1], self._entries[-1].stop))
        column = 0
        for effect, (q, m), own in zip(effects, self._shapes, self._slices, strict=True):
            for a in range(q):
                rows = slice(own.start + a * m, own.start + (a + 1) * m)
                turned[rows, column : column + q] = effect.T
                column += q
        return turned

    def random_effects(
        self, roots: Sequence[FloatArray], fixed: FixedEffects
    ) -> tuple[FloatArray, ...]:
        """BLUPs of the engine's random effects, ``D_k u_k``."""
        inverse, _ = whitening(self._columns, self._shapes, roots)
        data = inverse @ (self._data[:, -1] - self._data[:, :-1] @ fixed.coef)
        u = (inverse @ self._columns).T @ data
        return tuple(
            root @ (root.T @ u[own].reshape(shape))
            for root, own, shape in zip(roots, self._slices, self._shapes, strict=True)
        )

    def posterior(self, roots: Sequence[FloatArray]) -> JointPosterior:
        """Distribution of the random effects given the response."""
        inverse, _ = whitening(self._columns, self._shapes, roots)
        projected = inverse @ self._columns
        mixed = projected.T @ (inverse @ self._data[:, :-1])
        response = []
        for root, own, (q, m) in zip(roots, self._slices, self._shapes, strict=True):
            part = mixed[own].reshape(q, m, -1).transpose(0, 2, 1)
            response.append(np.einsum("ab,bpm->apm", root @ root.T, part))
        spread = _times_roots(self._columns, self._shapes, roots)
        outer = np.linalg.inv(np.eye(spread.shape[1]) + spread.T @ spread).astype(float, copy=False)
        transposed = [root.T for root in roots]
        half = _times_roots(outer, self._shapes, transposed)
        covariance = _times_roots(np.ascontiguousarray(half.T), self._shapes, transposed)
        return JointPosterior(covariance, tuple(self._shapes), tuple(response))


@dataclass(frozen=True, slots=True)
class JointPosterior:
    """Distribution of the engine's random effects given the response.

    Attributes
    ----------
    covariances : ndarray of shape (M, M)
        Covariance of all effects, relative to the noise variance, beta taken as known.
    shapes : tuple of (int, int)
        q_k and m_k.
    coef_response : tuple of ndarray of shape (q_k, p, m_k)
        Minus the change of the BLUPs with beta.
    """

    covariances: FloatArray
    shapes: tuple[tuple[int, int], ...]
    coef_response: tuple[FloatArray, ...]

    def covariance(self, k: int) -> FloatArray:
        """Covariance of the effects of every level of factor k, shape (q_k, q_k, m_k)."""
        q, m = self.shapes[k]
        start = sum(q_other * m_other for q_other, m_other in self.shapes[:k])
        block = self.covariances[start : start + q * m, start : start + q * m]
        return np.einsum("aibi->abi", block.reshape(q, m, q, m))

    def variance(
        self, columns: Sequence[FloatArray], codes: Sequence[NDArray[np.integer]]
    ) -> FloatArray:
        """Variance of ``sum_k z_k'b_k`` for new rows, shape (n,)."""
        positions, weights, start = [], [], 0
        for (q, m), z, code in zip(self.shapes, columns, codes, strict=True):
            for a in range(q):
                positions.append(start + a * m + np.maximum(code, 0))
                weights.append(np.where(code >= 0, z[:, a], 0.0))
            start += q * m
        variance = np.zeros(len(columns[0]))
        for first, (row, weight) in enumerate(zip(positions, weights, strict=True)):
            for second in range(first + 1):
                share = 1.0 if second == first else 2.0
                entry = self.covariances[row, positions[second]]
                variance += share * weight * weights[second] * entry
        return variance


def _traces(block: FloatArray) -> FloatArray:
    """``sum_ij tr(E Pi_ij F Pi_ji)`` as a form in E and F, shape (q_k q_k, q_l q_l)."""
    q, m, q_other, m_other = block.shape
    flat = block.transpose(0, 2, 1, 3).reshape(q * q_other, m * m_other)
    products = (flat @ flat.T).reshape(q, q_other, q, q_other)
    return products.transpose(2, 0, 1, 3).reshape(q * q, q_other * q_other)
