"""The random effects of several factors given the response.

Given the tail's effects b_R, the effects of a level of the chain are its own remainder e_i plus
multiples of those that contain it and of b_R (`links`). So for a row with coordinates z_k at known
levels, pushing the coordinates up the chain, stage by stage, gives

    var(sum_k z_k'b_k) = sum over levels of c'var(e) c + h'B h,     h = z_R - sum_k F_k'z_k

with c what has arrived at a level; coordinates of the row that meet at a level are added first. B
is the covariance of the tail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from mixedlearn.engines.elimination.chain import EliminationPlan
from mixedlearn.engines.elimination.level_pairs import CHUNK_ENTRIES
from mixedlearn.engines.elimination.links import Link
from mixedlearn.engines.elimination.reduced import Stage

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SeveralFactorsPosterior:
    """Distribution of the engine's random effects given the response, relative to the noise.

    Attributes
    ----------
    plan : EliminationPlan
    stages : tuple of Stage
    covariances : list of ndarray of shape (q, q)
        D of every factor.
    links : list of Link
    tail_covariance : ndarray of shape (T, T)
        B.
    coef_response : tuple of ndarray of shape (q, p, m)
        For every factor, minus the change of the BLUPs with beta.
    """

    plan: EliminationPlan
    stages: tuple[Stage, ...]
    covariances: list[FloatArray]
    links: list[Link]
    tail_covariance: FloatArray
    coef_response: tuple[FloatArray, ...]

    def covariance(self, k: int) -> FloatArray:
        """Covariance of the effects of every level of factor k, beta known: (q, q, m)."""
        q, m = self.plan.shapes[k]
        if k in self.plan.tail:
            start = self._start(k)
            block = self.tail_covariance[start : start + q * m, start : start + q * m]
            return np.einsum("aibi->abi", block.reshape(q, m, q, m))
        result = np.empty((q, q, m))
        level = np.arange(m)
        for a in range(q):
            result[a, a] = self._variance_at(k, level, [a])
            for b in range(a):
                both = self._variance_at(k, level, [a, b])
                result[a, b] = result[b, a] = (both - result[a, a] - result[b, b]) / 2.0
        return result

    def _variance_at(self, k: int, level: NDArray[np.intp], effects: list[int]) -> FloatArray:
        """Variance of the sum of some effects of every level of factor k."""
        columns, codes = [], []
        for other, (q, _) in enumerate(self.plan.shapes):
            z = np.zeros((len(level), q))
            if other == k:
                z[:, effects] = 1.0
            columns.append(z)
            codes.append(level if other == k else np.full(len(level), -1))
        return self.variance(columns, codes)

    def _start(self, k: int) -> int:
        """First column of a factor of the tail."""
        before = self.plan.tail[: self.plan.tail.index(k)]
        return sum(q * m for q, m in (self.plan.shapes[other] for other in before))

    def variance(
        self, columns: Sequence[FloatArray], codes: Sequence[NDArray[np.integer]]
    ) -> FloatArray:
        """Variance of ``sum_k z_k'b_k`` for new rows, shape (n,)."""
        chain = self.plan.chain
        known = [np.where((codes[k] >= 0)[:, None], columns[k], 0.0) for k in chain]
        level = [np.maximum(codes[k], 0) for k in chain]
        variance = self._own_variance(known, level)
        if self.tail_covariance.size:
            variance += self._tail_variance(columns, codes, known, level)
        return variance

    def _own_variance(
        self, known: Sequence[FloatArray], level: Sequence[NDArray[np.integer]]
    ) -> FloatArray:
        """The part of the remainders e_i: coordinates are pushed up the chain."""
        stages = self.stages
        variance = np.zeros(len(known[0]))
        # What each stage of origin has sent to each later stage, and to which level.
        sent: list[list[tuple[FloatArray, NDArray[np.integer]]]] = [[] for _ in stages]
        for s, (stage, link) in enumerate(zip(stages, self.links, strict=True)):
            arrived = [(known[s], level[s]), *sent[s]]
            for i, (z, own) in enumerate(arrived):
                covariance = link.own[:, :, own]
                spread = np.einsum("ra,abr->rb", z, covariance)
                for j in range(i + 1):
                    other_z, other = arrived[j]
                    share = np.where(own == other, 1.0 if i == j else 2.0, 0.0)
                    variance += share * np.einsum("rb,rb->r", spread, other_z)
                for later, (offset, ancestor) in enumerate(
                    zip(stage.offsets, stage.ancestors, strict=True)
                ):
                    passed = -self._passed(s, z, own, offset)
                    sent[s + 1 + later].append((passed, ancestor[own]))
        return variance

    def _passed(
        self, s: int, z: FloatArray, level: NDArray[np.integer], offset: slice
    ) -> FloatArray:
        """Coordinates at a later stage that equal coordinates at stage s: ``N_A'D z``."""
        turned = z @ self.covariances[self.stages[s].factor]
        return np.einsum("ra,abr->rb", turned, self.links[s].above[:, offset][:, :, level])

    def _tail_variance(
        self,
        columns: Sequence[FloatArray],
        codes: Sequence[NDArray[np.integer]],
        known: Sequence[FloatArray],
        level: Sequence[NDArray[np.integer]],
    ) -> FloatArray:
        """``h'B h``, in chunks of rows."""
        positions, weights = [], []
        for k in self.plan.tail:
            q, m = self.plan.shapes[k]
            for a in range(q):
                positions.append(self._start(k) + a * m + np.maximum(codes[k], 0))
                weights.append(np.where(codes[k] >= 0, columns[k][:, a], 0.0))
        n = len(known[0])
        variance = np.zeros(n)
        # Rows with the same levels of the chain share the dense product, so they stand together.
        order = np.lexsort(level)
        size = max(CHUNK_ENTRIES // len(self.tail_covariance), 1)
        for start in range(0, n, size):
            rows = order[start : start + size]
            variance[rows] = self._tail_part(
                [own[rows] for own in known],
                [own[rows] for own in level],
                [own[rows] for own in positions],
                [own[rows] for own in weights],
            )
        return variance

    def _tail_part(
        self,
        known: Sequence[FloatArray],
        level: Sequence[NDArray[np.integer]],
        positions: Sequence[NDArray[np.integer]],
        weights: Sequence[FloatArray],
    ) -> FloatArray:
        """``h'B h`` of some rows; ``positions`` and ``weights`` hold their z_R."""
        form = self.tail_covariance
        variance = np.zeros(len(known[0]))
        for i, (position, weight) in enumerate(zip(positions, weights, strict=True)):
            for j in range(i + 1):
                share = 1.0 if i == j else 2.0
                variance += share * weight * weights[j] * form[position, positions[j]]
        rows = []
        for s, (z, own) in enumerate(zip(known, level, strict=True)):
            distinct, place = np.unique(own, return_inverse=True)
            stage = self.stages[s]
            for a in range(stage.n_effects):
                through = self.links[s].through[a * stage.n_levels + distinct]
                rows.append(_RowsThrough(z[:, a], place, through, through @ form))
        for i, row in enumerate(rows):
            for position, weight in zip(positions, weights, strict=True):
                variance -= 2.0 * row.weight * weight * row.dense[row.place, position]
            for j in range(i + 1):
                share = 1.0 if i == j else 2.0
                variance += share * row.weight * rows[j].weight * _products(row, rows[j])
        return variance


@dataclass(frozen=True, slots=True)
class _RowsThrough:
    """One effect of the chain for some rows: coordinate, and the row of F of its level."""

    weight: FloatArray
    place: NDArray[np.intp]
    sparse: csr_array
    dense: FloatArray


def _products(row: _RowsThrough, other: _RowsThrough) -> FloatArray:
    """``F_i B F_j'`` for each row."""
    if row.place is other.place:
        by_level: FloatArray = np.asarray(other.sparse.multiply(row.dense).sum(axis=1), dtype=float)
        return by_level[row.place]
    chosen = other.sparse[other.place]
    number = np.repeat(np.arange(chosen.shape[0]), np.diff(chosen.indptr))
    terms: FloatArray = chosen.data * row.dense[row.place[number], chosen.indices]
    sums: FloatArray = np.bincount(number, weights=terms, minlength=chosen.shape[0]).astype(float)
    return sums
