"""From rows whose noise is correlated to their likelihood, and to sums at a noise covariance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.components import VarianceComponents
from mixedlearn.covariance.residual.base import ResidualCovariance
from mixedlearn.covariance.residual.monomial import Monomial
from mixedlearn.data.rows import CodedRows
from mixedlearn.data.sums import Sums
from mixedlearn.engines.bases import FixedBasis, RandomBasis, with_response
from mixedlearn.engines.correlated.blocks import BlockRows
from mixedlearn.engines.correlated.chain_rows import ChainRows, are_chains
from mixedlearn.engines.correlated.covariance import Parameters, Point
from mixedlearn.engines.correlated.likelihood import BlockEvaluation
from mixedlearn.engines.correlated.rows import NoiseRows
from mixedlearn.engines.correlated.series_rows import SeriesRows, factors_above
from mixedlearn.engines.correlated.starts import hides_sign
from mixedlearn.engines.problem import engine_structures, likelihood_of
from mixedlearn.specification import Specification

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]

# A search that starts from a correlation that strong starts from random effects that weak.
STRONG, WEAK = 0.8, 0.1
# A correlation that cannot be negative may be best at zero, where no start leads from above.
NEARLY_NONE = 1e-4


class NoiseLikelihood(Protocol):
    """A likelihood of rows with correlated noise: `BlockLikelihood`, `EffectsLikelihood`."""

    def evaluate(self, point: Point, order: int) -> BlockEvaluation:
        """Objective, gradient and Hessian; orders 0 and 2."""
        ...

    def kenward_roger(self, point: Point) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """What Kenward and Roger's method needs."""
        ...

    def turned(self, turn: FloatArray) -> NoiseLikelihood:
        """The likelihood with other columns of X and y."""
        ...

    def with_parameters(self, parameters: Parameters) -> NoiseLikelihood:
        """The same rows with other parameters."""
        ...


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
    in_blocks : bool, default=False
        Whether to take dense covariances where chains would do.
    like : CorrelatedProblem, optional
        A problem of the same rows, maybe with another response, whose layout is taken.
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
        *,
        in_blocks: bool = False,
        like: CorrelatedProblem | None = None,
    ):
        self.sums, self.noise, self._specification = sums, noise, specification
        self.basis = sums.weighted_rows(rows, slice(None))
        self._codes = rows.known_codes
        structures = engine_structures(specification, randoms)
        self.parameters = Parameters(tuple(parts), VarianceComponents(structures))
        z = [sums.z_rows(k, self.basis) @ random.columns for k, random in enumerate(randoms)]
        self.fixed, self.randoms = fixed, tuple(randoms)
        self.layout: BlockRows | ChainRows | SeriesRows
        if like is not None:
            self.layout = like.layout
        elif not in_blocks and are_chains(noise, self._codes, parts):
            self.layout = ChainRows(noise, self._codes, z)
        elif not in_blocks and (above := factors_above(noise, self._codes)):
            self.layout = SeriesRows(noise, self._codes, z, above)
        else:
            self.layout = BlockRows(noise, self._codes, z)
            if self.layout.joins_parts:
                names = ", ".join(map(repr, specification.factor_names))
                raise ValueError(
                    "A residual covariance of its own for each value of a column (by=) does not go "
                    f"with these random effects: those of {names} join series of several values. "
                    "Leave out by=, or keep one factor that joins series."
                )
        columns = np.column_stack([fixed.columns, fixed.response])
        base = likelihood_of(sums, specification, fixed)
        self.likelihood: NoiseLikelihood = self.layout.likelihood(
            self.parameters, self.basis, columns, base
        )

    def with_response(self, rows: CodedRows) -> CorrelatedProblem:
        """The problem of the same rows with another response; the layout stays."""
        own, noise = self._specification, self.noise
        basis = self.sums.weighted_rows(rows, slice(None))
        sums = replace(self.sums.in_metric(basis, self._codes, 0.0), sketch=None)
        fixed = with_response(self.fixed, sums, own.fixed, own.fit_intercept)
        parts = self.parameters.parts
        return CorrelatedProblem(sums, rows, noise, parts, own, fixed, self.randoms, like=self)

    # What the search asks for.

    def evaluate(self, point: Point, order: int) -> BlockEvaluation:
        """See `NoiseLikelihood`."""
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

    def for_inference(self) -> NoiseLikelihood:
        """The likelihood in parameters of which V is linear in those of the random effects."""
        return self.likelihood.with_parameters(replace(self.parameters, is_linear=True))

    @property
    def n_fixed(self) -> int:
        """Number of fixed columns."""
        return int(self.fixed.columns.shape[1])

    @property
    def has_effects(self) -> bool:
        """Whether there are random effects."""
        return len(self.randoms) > 0

    def design(self, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """Fixed and random columns of some rows, times the roots of their weights.

        Returns
        -------
        X : ndarray of shape (m, p)
            Orthonormal over all rows.
        Z : ndarray of shape (m, ...)
            A column for every effect of every level that the rows have.
        """
        blocks = [np.zeros((len(rows), 0))]
        basis = self.basis[rows]
        for k, (random, codes) in enumerate(zip(self.randoms, self._codes, strict=True)):
            z = self.sums.z_rows(k, basis) @ random.columns
            levels, place = np.unique(codes[rows], return_inverse=True)
            block = np.zeros((len(rows), len(levels), z.shape[1]))
            block[np.arange(len(rows)), place] = z
            blocks.append(block.reshape(len(rows), -1))
        return basis @ self.fixed.columns, np.hstack(blocks)

    def residuals(self) -> FloatArray:
        """Residuals of ordinary least squares in the engine's units, times roots of weights."""
        return np.asarray(self.basis @ self.fixed.response)

    def starts(self, residuals: FloatArray, theta: FloatArray, log_scale: float) -> list[Point]:
        """Points to search from.

        Parameters
        ----------
        residuals : ndarray of shape (n,)
            Of least squares, times the roots of the weights.
        theta : ndarray of shape (n_theta,)
            Of a fit with independent noise.
        log_scale : float
            Of the same fit: see `Point`.
        """
        scale = np.log(np.sqrt(np.mean(residuals**2))) if self.parameters.is_relative else 0.0
        by_part: list[list[FloatArray]] = []
        strong: list[FloatArray] = []
        levelled: list[FloatArray] = []
        uncorrelated: list[FloatArray] = []
        gaps, _ = self.noise.gaps
        is_hidden = hides_sign(gaps)
        distance = max(float(np.median(gaps)), 1.0) if self.noise.is_markov and len(gaps) else 1.0
        for number, part in enumerate(self.parameters.parts):
            own = part.starts(self.layout.moments(number, part, residuals))
            by_part.append(own)
            if not isinstance(part, Monomial):
                continue
            if is_hidden:
                own += part.mirrored(own[0])
            if len(part.ranges) == 1:
                strong.append(part.with_correlation(own[0], STRONG ** (1.0 / distance)))
                if part.ranges[0].lower == 0.0:
                    nearly = NEARLY_NONE ** (1.0 / distance)
                    uncorrelated.append(part.with_correlation(own[0], nearly))
            if part.n_deviations:
                levelled.append(part.levelled(own[0]))
        found = [
            Point(scale, tuple(own[number % len(own)] for own in by_part), theta)
            for number in range(max(map(len, by_part)))
        ]
        if not self.has_effects:
            return found
        # What the residuals say of the noise may be what the effects do, and the other way round.
        beside = (
            Point(scale, tuple(strong), WEAK * theta),
            Point(log_scale, tuple(levelled), theta),
            Point(log_scale, tuple(uncorrelated), theta),
        )
        return found + [own for own in beside if len(own.parts) == len(by_part)]

    def sums_at(self, point: Point) -> tuple[Sums, FloatArray]:
        """The sums in the metric of the noise, and their rows: times a root of ``R^-1``."""
        parts = self.parameters.parts
        basis, log_det = self.layout.whitened(parts, point, self.basis)
        reference = reference_variance(parts, point)
        basis = np.sqrt(reference) * basis
        log_det -= len(basis) * float(np.log(reference))
        return self.sums.in_metric(basis, self._codes, log_det), basis


def reference_variance(parts: Sequence[ResidualCovariance], point: Point) -> float:
    """What R is divided by, so that it is relative to the variance of a row of reference."""
    return 1.0 if parts[0].is_relative else float(point.parts[0][0, 0] ** 2)
