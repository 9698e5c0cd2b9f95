"""Rows in blocks: any structure, with a dense covariance for every pattern of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.residual.base import ResidualCovariance
from mixedlearn.covariance.residual.monomial import Monomial
from mixedlearn.covariance.residual.unrestricted import Unrestricted
from mixedlearn.data.blocks import BlockSet, find_blocks, make_sets, pooled
from mixedlearn.engines.correlated.covariance import (
    BlockCovariance,
    Parameters,
    Point,
    RandomRows,
)
from mixedlearn.engines.correlated.likelihood import BlockLikelihood, Patterns
from mixedlearn.engines.correlated.rows import NoiseRows
from mixedlearn.engines.correlated.starts import start_correlations, start_deviations
from mixedlearn.engines.plan import check_block_memory
from mixedlearn.engines.profiled import ProfiledLikelihood

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]


class BlockRows:
    """Rows sorted into blocks that are independent of each other.

    Parameters
    ----------
    noise : NoiseRows
    codes : sequence of ndarray of shape (n,), int
        The levels of every factor.
    z : sequence of ndarray of shape (n, q)
        The random columns of every factor.

    Attributes
    ----------
    sets : list of BlockSet
    """

    def __init__(self, noise: NoiseRows, codes: Sequence[IntArray], z: Sequence[FloatArray]):
        self._noise, self._codes, self._z = noise, codes, z
        self._blocks = find_blocks([noise.series, *codes])
        self.sets = self._make_sets()

    @property
    def joins_parts(self) -> bool:
        """Whether a block has rows of several parts of the noise covariance, which it must not."""
        if not self._noise.part.any():
            return False
        pairs = np.unique(np.column_stack([self._blocks, self._noise.part]), axis=0)
        return len(pairs) > len(np.unique(self._blocks))

    def _make_sets(self) -> list[BlockSet]:
        noise, blocks = self._noise, self._blocks
        order = np.lexsort((noise.times, noise.series, blocks))
        times = noise.times
        if noise.is_stationary:
            first = np.full(int(noise.series.max()) + 1, np.inf)
            np.minimum.at(first, noise.series, times)
            times = times - first[noise.series]
        is_shared = len(np.unique(noise.series)) == len(np.unique(blocks))
        is_shared &= all(len(np.unique(own)) == len(np.unique(blocks)) for own in self._codes)
        cells = None
        if is_shared:
            columns = [noise.part, noise.occasions, times, *noise.deviations.T]
            cells = np.column_stack([*columns, *(column for z in self._z for column in z.T)])
        found = []
        for part in np.unique(noise.part):
            own = noise.part[order] == part
            found += make_sets(blocks, order[own], cells)
        return found

    def random_rows(self, k: int, own: BlockSet) -> RandomRows:
        """The random columns of a factor in blocks."""
        codes = self._codes[k][own.example]
        same = codes[..., :, None] == codes[..., None, :]
        is_whole = own.is_shared or same.all()
        return RandomRows(self._z[k][own.example], None if is_whole else same)

    def likelihood(
        self,
        parameters: Parameters,
        basis: FloatArray,
        columns: FloatArray,
        base: ProfiledLikelihood,
    ) -> BlockLikelihood:
        """The likelihood of the rows.

        Parameters
        ----------
        parameters : Parameters
        basis : ndarray of shape (n, k)
            Basis columns of the rows.
        columns : ndarray of shape (k, p + 1)
            Fixed columns and response in terms of these.
        base : ProfiledLikelihood
            That of independent noise.
        """
        shapes = [own.is_there.shape for own in self.sets]
        check_block_memory(shapes, parameters.n_parameters)
        sets = [
            (
                _patterns(own, basis, columns),
                BlockCovariance(
                    parameters,
                    int(self._noise.part[own.example.flat[0]]),
                    self._noise.layout(own),
                    [self.random_rows(k, own) for k in range(len(self._z))],
                ),
            )
            for own in self.sets
        ]
        return BlockLikelihood(sets, base.n_rows, base.reml, base.constant)

    def whitened(
        self, parts: Sequence[ResidualCovariance], point: Point, basis: FloatArray
    ) -> tuple[FloatArray, float]:
        """Rows times a root of ``R^-1``, and ``log|R|``."""
        found = np.empty_like(basis)
        log_det = 0.0
        for own in self.sets:
            part = int(self._noise.part[own.example.flat[0]])
            covariance = parts[part].covariance(point.parts[part], self._noise.layout(own))
            for pattern, (there, rows) in enumerate(zip(own.is_there, own.members, strict=True)):
                whole = covariance if own.is_shared else covariance[pattern]
                root = np.linalg.cholesky(whole[np.ix_(there, there)])
                log_det += 2.0 * len(rows) * float(np.log(root.diagonal()).sum())
                found[rows] = np.linalg.solve(root, basis[rows])
        return found, log_det

    def moments(self, number: int, part: ResidualCovariance, residuals: FloatArray) -> FloatArray:
        """What a part starts from: covariances of occasions, or deviations and correlations.

        Pairs of rows of a level tell a correlation where its exponent is the least that there is
        and that of all others is zero.
        """
        noise = self._noise
        if isinstance(part, Unrestricted):
            return _occasion_moments(number, part.n_occasions, noise, residuals)
        assert isinstance(part, Monomial)
        deviations, scaled, variance = start_deviations(number, part, noise, residuals)
        n = len(part.ranges)
        sums, counts, exponents = np.zeros(n), np.zeros(n), np.full(n, np.inf)
        for block_set in self.sets:
            if not n or noise.part[block_set.example.flat[0]] != number:
                continue
            layout = noise.layout(block_set)
            for pattern, (there, rows) in enumerate(
                zip(block_set.is_there, block_set.members, strict=True)
            ):
                places = np.ix_(there, there)
                own_exponents = (
                    layout.exponents if block_set.is_shared else layout.exponents[:, pattern]
                )
                own_exponents = np.array([power[places] for power in own_exponents])
                products = scaled[rows].T @ scaled[rows]
                if layout.is_correlated is not None:
                    products = products * layout.is_correlated[pattern][places]
                for k in range(n):
                    alone = (own_exponents[k] > 0.0) & (
                        own_exponents.sum(axis=0) == own_exponents[k]
                    )
                    least = own_exponents[k][alone].min(initial=np.inf)
                    if least < exponents[k]:
                        sums[k], counts[k], exponents[k] = 0.0, 0.0, least
                    chosen = alone & (own_exponents[k] == exponents[k])
                    sums[k] += products[chosen].sum()
                    counts[k] += len(rows) * chosen.sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.where(counts > 0.0, sums / (counts * variance), 0.0)
        return np.append(deviations, start_correlations(part, mean, exponents))


def _patterns(own: BlockSet, basis: FloatArray, columns: FloatArray) -> Patterns:
    """The rows of a set in the engine's columns, pooled."""
    rows, pattern = [], []
    for number, (there, members) in enumerate(zip(own.is_there, own.members, strict=True)):
        few = pooled(basis[members]) @ columns
        whole = np.zeros((len(few), len(there), columns.shape[1]))
        whole[:, there] = few
        rows.append(whole)
        pattern.append(np.full(len(few), number))
    return Patterns(own.is_there, own.counts, np.concatenate(rows), np.concatenate(pattern))


def _occasion_moments(
    number: int, n_occasions: int, noise: NoiseRows, residuals: FloatArray
) -> FloatArray:
    """Mean products of residuals for every two occasions."""
    own = noise.part == number
    shape = (int(noise.series.max()) + 1, n_occasions)
    table, there = np.zeros(shape), np.zeros(shape)
    table[noise.series[own], noise.occasions[own]] = residuals[own]
    there[noise.series[own], noise.occasions[own]] = 1.0
    return table.T @ table / np.maximum(there.T @ there, 1.0)
