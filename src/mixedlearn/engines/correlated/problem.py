"""From rows whose noise is correlated to their likelihood, and to sums at a noise covariance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.components import VarianceComponents
from mixedlearn.covariance.residual.base import Layout, ResidualCovariance
from mixedlearn.covariance.residual.monomial import Monomial
from mixedlearn.covariance.residual.unrestricted import Unrestricted
from mixedlearn.data.blocks import BlockSet, find_blocks, make_sets, pooled
from mixedlearn.data.rows import CodedRows
from mixedlearn.data.sums import Sums
from mixedlearn.engines.bases import FixedBasis, RandomBasis, with_response
from mixedlearn.engines.correlated.covariance import (
    BlockCovariance,
    Parameters,
    Point,
    RandomRows,
)
from mixedlearn.engines.correlated.likelihood import BlockEvaluation, BlockLikelihood, Patterns
from mixedlearn.engines.plan import check_block_memory
from mixedlearn.engines.problem import engine_structures, likelihood_of
from mixedlearn.specification import Specification

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class NoiseRows:
    """What the noise of rows depends on.

    Attributes
    ----------
    series : ndarray of shape (n,), int
        The level of every row in the series factor: the noise of rows of one level is correlated.
    times : ndarray of shape (n,)
        Their order within a level, and the times between them.
    occasions : ndarray of shape (n,), int
        The number of the occasion.
    deviations : ndarray of shape (n, n_deviations)
        See `Layout`.
    part : ndarray of shape (n,), int
        Which part of the noise covariance holds for the row.
    exponents : callable
        From times of shape (..., T) and occasions to `Layout.exponents`.
    is_stationary : bool
        Whether only differences of times count.
    """

    series: IntArray
    times: FloatArray
    occasions: IntArray
    deviations: FloatArray
    part: IntArray
    exponents: Callable[[FloatArray, IntArray], FloatArray]
    is_stationary: bool

    def layout(self, own: BlockSet) -> Layout:
        """The layout of blocks."""
        rows = own.example
        same = None
        if not own.is_shared:
            series = self.series[rows]
            same = series[..., :, None] == series[..., None, :]
        return self.layout_of(rows, None if same is None or same.all() else same)

    def layout_of(self, rows: IntArray, same: NDArray[np.bool_] | None = None) -> Layout:
        """The layout of rows of one series, shape (..., T), or of those that are the same."""
        return Layout(
            self.deviations[rows],
            self.exponents(self.times[rows], self.occasions[rows]),
            self.occasions[rows],
            same,
        )

    def joined(self, other: NoiseRows) -> NoiseRows:
        """These rows and others, with the same levels of the series."""
        return replace(
            self,
            series=np.append(self.series, other.series),
            times=np.append(self.times, other.times),
            occasions=np.append(self.occasions, other.occasions),
            deviations=np.vstack([self.deviations, other.deviations]),
            part=np.append(self.part, other.part),
        )


class CorrelatedProblem:
    """The likelihood of rows with correlated noise, as `search.moving` asks for it.

    Parameters
    ----------
    sums : Sums
        Of the rows as if their noise was independent.
    rows : CodedRows
    noise : NoiseRows
    parts : sequence of ResidualCovariance
    specification : Specification
    fixed : FixedBasis
    randoms : sequence of RandomBasis
        Of the sums.
    like : CorrelatedProblem, optional
        A problem of the same rows, maybe with another response, whose blocks are taken.
    """

    def __init__(
        self,
        sums: Sums,
        rows: CodedRows,
        noise: NoiseRows,
        parts: Sequence[ResidualCovariance],
        specification: Specification,
        fixed: FixedBasis,
        randoms: Sequence[RandomBasis],
        like: CorrelatedProblem | None = None,
    ):
        self.sums, self._noise, self._specification = sums, noise, specification
        self.basis = sums.weighted_rows(rows, slice(None))
        self._codes = rows.known_codes
        structures = engine_structures(specification, randoms)
        self.parameters = Parameters(tuple(parts), VarianceComponents(structures))
        self._z = [sums.z_rows(k, self.basis) @ random.columns for k, random in enumerate(randoms)]
        self.fixed, self.randoms = fixed, tuple(randoms)
        if like is None:
            self.block_sets = self._make_sets()
            shapes = [own.is_there.shape for own in self.block_sets]
            check_block_memory(shapes, self.parameters.n_parameters)
            models = [
                BlockCovariance(
                    self.parameters,
                    int(noise.part[own.example.flat[0]]),
                    noise.layout(own),
                    [self._random_rows(k, own) for k in range(len(randoms))],
                )
                for own in self.block_sets
            ]
        else:
            self.block_sets = like.block_sets
            models = [model for _, model in like.likelihood.sets]
        columns = np.column_stack([fixed.columns, fixed.response])
        patterns = [_patterns(own, self.basis, columns) for own in self.block_sets]
        likelihood = likelihood_of(sums, specification, fixed)
        self.likelihood: BlockLikelihood = BlockLikelihood(
            list(zip(patterns, models, strict=True)),
            likelihood.n_rows,
            likelihood.reml,
            likelihood.constant,
        )

    def with_response(self, rows: CodedRows) -> CorrelatedProblem:
        """The problem of the same rows with another response; the blocks stay."""
        own = self._specification
        basis = self.sums.weighted_rows(rows, slice(None))
        sums = replace(self.sums.in_metric(basis, self._codes, 0.0), sketch=None)
        fixed = with_response(self.fixed, sums, own.fixed, own.fit_intercept)
        parts = self.parameters.parts
        return CorrelatedProblem(
            sums, rows, self._noise, parts, own, fixed, self.randoms, like=self
        )

    def _make_sets(self) -> list[BlockSet]:
        noise = self._noise
        blocks = find_blocks([noise.series, *self._codes])
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

    def _random_rows(self, k: int, own: BlockSet) -> RandomRows:
        codes = self._codes[k][own.example]
        same = codes[..., :, None] == codes[..., None, :]
        is_whole = own.is_shared or same.all()
        return RandomRows(self._z[k][own.example], None if is_whole else same)

    # What the search asks for.

    def evaluate(self, point: Point, order: int) -> BlockEvaluation:
        """See `BlockLikelihood.evaluate`."""
        return self.likelihood.evaluate(point, order)

    def moved(self, point: Point, step: FloatArray) -> Point:
        """The point after a step in local coordinates."""
        return self.parameters.moved(point, step)

    def charted(self, point: Point) -> tuple[Point, NDArray[np.intp]]:
        """The point in the charts of the D_k, and the parameters that are free there."""
        return self.parameters.charted(point)

    def lengths(self, point: Point) -> FloatArray:
        """Natural lengths of the local coordinates."""
        lengths = np.ones(self.parameters.n_parameters)
        lengths[self.parameters.of_theta] = np.maximum(1.0, np.abs(point.theta))
        return lengths

    # What the model needs.

    def for_inference(self) -> BlockLikelihood:
        """The likelihood in parameters of which V is linear in those of the random effects."""
        linear = replace(self.parameters, is_linear=True)
        sets = [
            (patterns, model.with_parameters(linear)) for patterns, model in self.likelihood.sets
        ]
        own = self.likelihood
        return BlockLikelihood(sets, own.n_rows, own.reml, own.constant)

    def residuals(self) -> FloatArray:
        """Residuals of ordinary least squares in the engine's units, times roots of weights."""
        return np.asarray(self.basis @ self.fixed.response)

    def starts(self, residuals: FloatArray, theta: FloatArray) -> list[Point]:
        """Points to search from.

        Parameters
        ----------
        residuals : ndarray of shape (n,)
            Of a fit with independent noise, times the roots of the weights.
        theta : ndarray of shape (n_theta,)
            That of the fit.
        """
        scale = np.log(np.sqrt(np.mean(residuals**2))) if self.parameters.is_relative else 0.0
        by_part = [
            part.starts(residual_moments(number, part, self._noise, self.block_sets, residuals))
            for number, part in enumerate(self.parameters.parts)
        ]
        n_starts = max(map(len, by_part))
        return [
            Point(scale, tuple(own[number % len(own)] for own in by_part), theta)
            for number in range(n_starts)
        ]

    def sums_at(self, point: Point) -> Sums:
        """The sums in the metric of the noise: those of the rows times a root of ``R^-1``."""
        basis = np.empty_like(self.basis)
        log_det = 0.0
        reference = reference_variance(self.parameters.parts, point)
        for own in self.block_sets:
            part = int(self._noise.part[own.example.flat[0]])
            covariance = self.parameters.parts[part].covariance(
                point.parts[part], self._noise.layout(own)
            )
            for pattern, (there, rows) in enumerate(zip(own.is_there, own.members, strict=True)):
                whole = covariance if own.is_shared else covariance[pattern]
                root = np.linalg.cholesky(whole[np.ix_(there, there)] / reference)
                log_det += 2.0 * len(rows) * float(np.log(root.diagonal()).sum())
                basis[rows] = np.linalg.solve(root, self.basis[rows])
        return self.sums.in_metric(basis, self._codes, log_det)


def reference_variance(parts: Sequence[ResidualCovariance], point: Point) -> float:
    """What R is divided by, so that it is relative to the variance of a row of reference."""
    return 1.0 if parts[0].is_relative else float(point.parts[0][0, 0] ** 2)


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


def residual_moments(
    number: int,
    part: ResidualCovariance,
    noise: NoiseRows,
    sets: Sequence[BlockSet],
    residuals: FloatArray,
) -> FloatArray:
    """What a part starts from: covariances of occasions, or deviations and correlations.

    Pairs of rows of a level tell a correlation where its exponent is the least that there is and
    that of all others is zero.
    """
    if isinstance(part, Unrestricted):
        return _occasion_moments(number, part.n_occasions, noise, residuals)
    assert isinstance(part, Monomial)
    own = noise.part == number
    columns = noise.deviations[:, : part.n_deviations]
    deviations = _log_deviations(columns[own], residuals[own])
    scaled = residuals / np.exp(columns @ deviations)
    variance = max(float(np.mean(scaled[own] ** 2)), SMALLEST)
    n = len(part.ranges)
    sums, counts, exponents = np.zeros(n), np.zeros(n), np.full(n, np.inf)
    for block_set in sets:
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
                alone = (own_exponents[k] > 0.0) & (own_exponents.sum(axis=0) == own_exponents[k])
                least = own_exponents[k][alone].min(initial=np.inf)
                if least < exponents[k]:
                    sums[k], counts[k], exponents[k] = 0.0, 0.0, least
                chosen = alone & (own_exponents[k] == exponents[k])
                sums[k] += products[chosen].sum()
                counts[k] += len(rows) * chosen.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(counts > 0.0, sums / (counts * variance), 0.0)
    # At distances of many units any correlation but one very close to one leaves nothing: what a
    # search starts from must not be extreme there, nor at a distance of one.
    exponents = np.where(np.isfinite(exponents), exponents, 1.0)
    distance = np.maximum(exponents, 1.0)
    mean = np.sign(mean) * np.minimum(np.abs(mean), 1.0) ** (distance / exponents)
    mean = np.array([own.inner(value) for own, value in zip(part.ranges, mean, strict=True)])
    rho = np.sign(mean) * np.abs(mean) ** (1.0 / distance)
    return np.append(deviations, rho)


SMALLEST = float(np.finfo(float).tiny)


def _log_deviations(columns: FloatArray, residuals: FloatArray) -> FloatArray:
    """Regression of the logarithms of squared residuals, halved."""
    if not columns.shape[1]:
        return np.zeros(0)
    floor = 1e-8 * max(float(np.mean(residuals**2)), SMALLEST)
    logs = 0.5 * np.log(residuals**2 + floor)
    design = np.column_stack([np.ones(len(columns)), columns])
    return np.asarray(np.linalg.lstsq(design, logs, rcond=None)[0][1:])


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
