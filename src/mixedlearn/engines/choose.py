"""The problem: from cross-products to an engine.

The step between the rows and the optimiser: choose the engine's columns, reduce the cross-products
to them, and choose the engine that is cheapest for the number of factors and levels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.components import VarianceComponents
from mixedlearn.covariance.structures import make_structure
from mixedlearn.data.sums import Sums
from mixedlearn.engines.bases import FixedBasis, RandomBasis, fixed_basis, random_basis
from mixedlearn.engines.elimination.chain import plan_elimination
from mixedlearn.engines.elimination.engine import SeveralFactorsEngine
from mixedlearn.engines.elimination.reduced import reduce_several
from mixedlearn.engines.joint import JointEngine, reduce_jointly
from mixedlearn.engines.levels import (
    LevelMoments,
    no_levels,
    reduce_levels,
    separate_levels,
    within_residual,
)
from mixedlearn.engines.likelihood import ProfiledLikelihood
from mixedlearn.engines.one_factor import OneFactorEngine
from mixedlearn.engines.padded import PaddedEngine
from mixedlearn.engines.plan import check_memory, is_joint
from mixedlearn.engines.protocol import Engine
from mixedlearn.specification import Factor, Specification

FloatArray = NDArray[np.float64]

# Noise variances relative to that of ordinary least squares: below the first it is rounding error,
# and the second stands for it.
NO_NOISE = 1e-13
NOISE_FLOOR = 1e-9


@dataclass(frozen=True, slots=True)
class Problem:
    """A model in the engine's columns.

    Attributes
    ----------
    fixed : FixedBasis
    randoms : tuple of RandomBasis
        One for every factor.
    engine : Engine
        Its objective is in the user's units.
    is_bounded : bool
        Whether noise was added within levels, to bound the likelihood.
    """

    fixed: FixedBasis
    randoms: tuple[RandomBasis, ...]
    engine: Engine
    is_bounded: bool


def make_problem(
    sums: Sums,
    specification: Specification,
    *,
    bound_noise: bool = False,
    randoms: tuple[RandomBasis, ...] | None = None,
) -> Problem:
    """Choose the engine's columns and the engine, and reduce the cross-products to them.

    Where elimination cannot tell beforehand that the random effects reproduce the response, and the
    likelihood is unbounded, ``bound_noise`` says that it was found to be so. ``randoms`` are those
    of a problem with the same random effects, if there is one.
    """
    fixed = fixed_basis(sums, specification.fixed, specification.fit_intercept)
    if randoms is None:
        randoms = tuple(
            random_basis(sums, k, factor.random_intercept, factor.structure)
            for k, factor in enumerate(specification.factors)
        )
    return _problem(sums, specification, fixed, randoms, bound_noise=bound_noise)


def engine_in_bases(
    sums: Sums,
    specification: Specification,
    fixed: FixedBasis,
    randoms: tuple[RandomBasis, ...],
) -> Engine:
    """The engine of any rows in the columns of a fitted model.

    It gives the BLUPs and the posterior of the random effects at the estimates of that model. In
    these rows the columns need not be orthonormal, and its likelihood is not to be asked.
    """
    return _problem(sums, specification, fixed, randoms, rotate=False).engine


def _problem(
    sums: Sums,
    specification: Specification,
    fixed: FixedBasis,
    randoms: tuple[RandomBasis, ...],
    *,
    bound_noise: bool = False,
    rotate: bool = True,
) -> Problem:
    likelihood = _likelihood(sums, specification, fixed)
    structures = tuple(
        factor.structure.in_engine(random.kept)
        for factor, random in zip(specification.factors, randoms, strict=True)
    )
    components = VarianceComponents(structures)
    # A factor whose random effects are all aliased has no columns; one alone needs no detour.
    active = [k for k, random in enumerate(randoms) if len(random.kept) or len(randoms) == 1]
    parts = _Parts(
        sums.of_factors(active),
        tuple(specification.factors[k] for k in active),
        tuple(randoms[k] for k in active),
        VarianceComponents(tuple(structures[k] for k in active)),
        likelihood,
    )
    fixed, engine, is_bounded = _make_engine(parts, fixed, bound_noise, rotate)
    if len(active) < len(randoms):
        engine = PaddedEngine(engine, active, components, sums.n_levels, likelihood.n_fixed)
    return Problem(fixed, randoms, engine, is_bounded)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What an engine is made of, beside the fixed columns."""

    sums: Sums
    factors: tuple[Factor, ...]
    randoms: tuple[RandomBasis, ...]
    components: VarianceComponents
    likelihood: ProfiledLikelihood


def _make_engine(
    parts: _Parts, fixed: FixedBasis, bound_noise: bool, rotate: bool
) -> tuple[FixedBasis, Engine, bool]:
    """The engine, its fixed columns, rotated if they may be, and whether noise was added."""
    sums, randoms, components = parts.sums, parts.randoms, parts.components
    likelihood, n_rows = parts.likelihood, parts.sums.n_rows
    if len(randoms) <= 1:
        if randoms:
            moments = reduce_levels(sums, 0, fixed, randoms[0])
        else:
            moments, components = no_levels(sums, fixed), _NO_COMPONENTS
        fixed, moments, is_bounded = _prepare(fixed, moments, n_rows, rotate)
        return fixed, OneFactorEngine(moments, components.structures[0], likelihood), is_bounded
    n_levels = sums.n_levels
    n_effects = [len(random.kept) for random in randoms]
    if is_joint(n_effects, n_levels):
        moments = reduce_jointly(sums, fixed, randoms)
        fixed, moments, is_bounded = _prepare(fixed, moments, n_rows, rotate)
        return fixed, JointEngine(moments, components, n_levels, likelihood), is_bounded
    plan = plan_elimination(sums, n_effects)
    check_memory(plan, parts.factors)
    fixed, reduced = reduce_several(sums, plan, fixed, randoms, rotate=rotate)
    if bound_noise:
        reduced.data.gram[-1, -1] += NOISE_FLOOR * likelihood.df
    return fixed, SeveralFactorsEngine(reduced, components, n_levels, likelihood), bound_noise


_NO_COMPONENTS = VarianceComponents((make_structure("full", []),))


def _likelihood(sums: Sums, specification: Specification, fixed: FixedBasis) -> ProfiledLikelihood:
    n_fixed = fixed.columns.shape[1]
    df = sums.n_rows - n_fixed if specification.reml else sums.n_rows
    constant = 2.0 * df * np.log(fixed.scale) - sums.sum_log_weights
    if specification.reml:
        constant += fixed.log_det_gram
    return ProfiledLikelihood(sums.n_rows, n_fixed, specification.reml, float(constant))


def _prepare(
    fixed: FixedBasis, moments: LevelMoments, n_rows: int, rotate: bool
) -> tuple[FixedBasis, LevelMoments, bool]:
    """Make the moments fit for a likelihood; without it the columns stay as they are given."""
    if not rotate:
        return fixed, moments, False
    fixed, moments = separate_levels(fixed, moments)
    moments, is_bounded = _bound_noise(moments, n_rows)
    return fixed, moments, is_bounded


def _bound_noise(moments: LevelMoments, n_rows: int) -> tuple[LevelMoments, bool]:
    """Keep the likelihood bounded where the levels reproduce the response exactly.

    Without noise within levels the likelihood grows for ever as the noise variance falls, so a
    little noise is put there. Where the levels use up all rows, what is left within is rounding.
    """
    if moments.n_effects and moments.n_spanned >= n_rows:
        return replace(moments, within=np.zeros_like(moments.within)), False
    residual, df = within_residual(moments, n_rows)
    if moments.n_effects == 0 or df <= 0 or residual > NO_NOISE * df:
        return moments, False
    bounded = moments.within.copy()
    bounded[-1, -1] += NOISE_FLOOR * df
    return replace(moments, within=bounded), True
