"""The problem: from sums to an engine.

The step between the rows and the search: choose the engine's columns and the engine, and reduce the
sums to what an evaluation needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.components import VarianceComponents
from mixedlearn.covariance.structures import Structure, make_structure
from mixedlearn.data.sums import Sums
from mixedlearn.data.triangles import BasisChunks
from mixedlearn.engines.bases import (
    DATA_ROUNDING,
    FixedBasis,
    RandomBasis,
    fixed_basis,
    random_basis,
)
from mixedlearn.engines.choose import choose
from mixedlearn.engines.elimination.engine import SeveralFactorsEngine
from mixedlearn.engines.elimination.reduced import reduce_several
from mixedlearn.engines.joint import JointEngine, reduce_jointly
from mixedlearn.engines.levels import (
    LevelMoments,
    level_projections,
    no_levels,
    reduce_levels,
    separate_levels,
    within_residual,
    within_variance,
)
from mixedlearn.engines.likelihood import ProfiledLikelihood
from mixedlearn.engines.one_factor import OneFactorEngine
from mixedlearn.engines.padded import PaddedEngine
from mixedlearn.engines.plan import Plan
from mixedlearn.engines.protocol import Engine
from mixedlearn.engines.recipe import Recipe
from mixedlearn.engines.stochastic.engine import StochasticEngine
from mixedlearn.engines.stochastic.products import Products
from mixedlearn.specification import Specification
from mixedlearn.threads import threads_for

FloatArray = NDArray[np.float64]

# Noise variances relative to that of ordinary least squares: below the first it is rounding error,
# and the second stands for it.
NO_NOISE = 1e-13
NOISE_FLOOR = 1e-9
# Triangles add rounding error of their own to that of the data: so many times its square.
TRIANGLES_ROUNDING = 16.0


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
    plan : Plan
        What the engine follows, for the factors that have columns.
    is_bounded : bool
        Whether noise was added within levels, to bound the likelihood.
    n_spanned : int or None
        Of one factor, the dimensions that the z columns of the levels span, added up.
    """

    fixed: FixedBasis
    randoms: tuple[RandomBasis, ...]
    engine: Engine
    plan: Plan
    is_bounded: bool
    n_spanned: int | None


def make_problem(
    sums: Sums, recipe: Recipe, *, randoms: tuple[RandomBasis, ...] | None = None
) -> Problem:
    """Choose the engine's columns and the engine, and reduce the sums to them.

    ``randoms`` are those of a problem with the same random effects, if there is one.
    """
    specification = recipe.specification
    fixed = fixed_basis_of(sums, specification)
    if randoms is None:
        randoms = random_bases_of(sums, specification)
    return _problem(sums, recipe, fixed, randoms, rotate=True)


def fixed_basis_of(sums: Sums, specification: Specification) -> FixedBasis:
    """The fixed columns of a model, orthonormal over the rows of the sums."""
    return fixed_basis(
        sums, specification.fixed, specification.fit_intercept, specification.drops_aliased
    )


def random_bases_of(sums: Sums, specification: Specification) -> tuple[RandomBasis, ...]:
    """The random columns of every factor of a model, scaled over the rows of the sums."""
    return tuple(
        random_basis(sums, k, factor.random_intercept, factor.structure)
        for k, factor in enumerate(specification.factors)
    )


def engine_structures(
    specification: Specification, randoms: Sequence[RandomBasis]
) -> tuple[Structure, ...]:
    """The structures of the D_k in the engine's columns."""
    return tuple(
        factor.structure.in_engine(random.kept)
        for factor, random in zip(specification.factors, randoms, strict=True)
    )


def engine_in_bases(
    sums: Sums, recipe: Recipe, fixed: FixedBasis, randoms: tuple[RandomBasis, ...]
) -> Engine:
    """The engine of any rows in the columns of a fitted model.

    It gives the BLUPs and the posterior of the random effects at the estimates of that model. In
    these rows the columns need not be orthonormal, and its likelihood is not to be asked.
    """
    unbounded = replace(recipe, is_bounded=False)
    return _problem(sums, unbounded, fixed, randoms, rotate=False).engine


def with_triangles(
    sums: Sums, chunks: BasisChunks, specification: Specification, problem: Problem
) -> Sums:
    """The sums with the triangles that the engine of a problem can use, from their rows."""
    active = _active_factors(problem.randoms)
    if problem.plan.engine == "joint":
        has_intercept = [specification.factors[k].random_intercept for k in active]
        return sums.with_joint_triangles(chunks, tuple(active), has_intercept)
    elimination = problem.plan.elimination
    first = active[0 if elimination is None else elimination.chain[0]]
    return sums.with_level_triangles(chunks, first, level_projections(sums, first))


def _active_factors(randoms: tuple[RandomBasis, ...]) -> list[int]:
    """Factors that have columns: one whose effects are all aliased has none, unless it is alone."""
    return [k for k, random in enumerate(randoms) if len(random.kept) or len(randoms) == 1]


def _problem(
    sums: Sums,
    recipe: Recipe,
    fixed: FixedBasis,
    randoms: tuple[RandomBasis, ...],
    *,
    rotate: bool,
) -> Problem:
    """The problem in these bases; the fixed columns are rotated if they may be."""
    specification = recipe.specification
    likelihood = likelihood_of(sums, specification, fixed)
    structures = engine_structures(specification, randoms)
    active = _active_factors(randoms)
    parts = _Parts(
        sums.of_factors(active),
        tuple(randoms[k] for k in active),
        VarianceComponents(tuple(structures[k] for k in active)),
        likelihood,
        rotate,
    )
    plan = choose(parts.sums, [len(random.kept) for random in parts.randoms], recipe.solver)
    plan.check_memory([specification.factor_names[k] for k in active])
    with threads_for(plan.multiplications):
        made = MAKERS[plan.engine](parts, fixed, plan, recipe)
    engine = made.engine
    if len(active) < len(randoms):
        components = VarianceComponents(structures)
        engine = PaddedEngine(engine, active, components, sums.n_levels, likelihood.n_fixed)
    return Problem(made.fixed, randoms, engine, plan, made.is_bounded, made.n_spanned)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What an engine is made of, beside the fixed columns; ``rotate``: whether these may move."""

    sums: Sums
    randoms: tuple[RandomBasis, ...]
    components: VarianceComponents
    likelihood: ProfiledLikelihood
    rotate: bool


@dataclass(frozen=True, slots=True)
class _Made:
    """An engine, its fixed columns, and what `Problem` says of it."""

    engine: Engine
    fixed: FixedBasis
    is_bounded: bool
    n_spanned: int | None = None


def _one_factor(parts: _Parts, fixed: FixedBasis, plan: Plan, recipe: Recipe) -> _Made:
    if parts.randoms:
        moments = reduce_levels(parts.sums, 0, fixed, parts.randoms[0])
        (structure,) = parts.components.structures
    else:
        moments, structure = no_levels(parts.sums, fixed), _NO_STRUCTURE
    fixed, moments, was_bounded = _prepare(fixed, moments, parts)
    likelihood = _with_squares(parts, moments)
    engine = OneFactorEngine(moments, structure, likelihood)
    return _Made(engine, fixed, was_bounded, moments.n_spanned)


def _joint(parts: _Parts, fixed: FixedBasis, plan: Plan, recipe: Recipe) -> _Made:
    moments = reduce_jointly(parts.sums, fixed, parts.randoms)
    fixed, moments, was_bounded = _prepare(fixed, moments, parts)
    likelihood = _with_squares(parts, moments)
    engine = JointEngine(moments, parts.components, parts.sums.n_levels, likelihood)
    return _Made(engine, fixed, was_bounded)


def _elimination(parts: _Parts, fixed: FixedBasis, plan: Plan, recipe: Recipe) -> _Made:
    assert plan.elimination is not None
    fixed, reduced = reduce_several(
        parts.sums, plan.elimination, fixed, parts.randoms, rotate=parts.rotate
    )
    if recipe.is_bounded:
        reduced.data.gram[-1, -1] += NOISE_FLOOR * parts.likelihood.df
    n_levels = parts.sums.n_levels
    engine = SeveralFactorsEngine(reduced, parts.components, n_levels, parts.likelihood)
    return _Made(engine, fixed, recipe.is_bounded)


def _stochastic(parts: _Parts, fixed: FixedBasis, plan: Plan, recipe: Recipe) -> _Made:
    assert plan.elimination is not None
    first = plan.elimination.chain[0]
    moments = reduce_levels(parts.sums, first, fixed, parts.randoms[first])
    products = Products(parts.sums, plan.elimination, fixed, parts.randoms)
    if recipe.is_bounded:
        products.gram[-1, -1] += NOISE_FLOOR * parts.likelihood.df
    engine = StochasticEngine(
        products,
        parts.components,
        parts.likelihood,
        moments.within,
        within_variance(moments, parts.sums.n_rows),
        recipe.n_probes,
        recipe.seed,
    )
    return _Made(engine, fixed, recipe.is_bounded)


# How the engine of every plan is made.
MAKERS = {
    "one_factor": _one_factor,
    "joint": _joint,
    "elimination": _elimination,
    "stochastic": _stochastic,
}
_NO_STRUCTURE = make_structure("full", [])


def likelihood_of(
    sums: Sums, specification: Specification, fixed: FixedBasis
) -> ProfiledLikelihood:
    """The likelihood in a fixed basis, with its constant in the user's units."""
    n_fixed = fixed.columns.shape[1]
    df = sums.n_rows - n_fixed if specification.reml else sums.n_rows
    constant = 2.0 * df * np.log(fixed.scale) - sums.sum_log_weights
    if specification.reml:
        constant += fixed.log_det_gram
    squares = float(sums.n_rows - n_fixed)
    return ProfiledLikelihood(sums.n_rows, n_fixed, specification.reml, float(constant), squares)


def _prepare(
    fixed: FixedBasis, moments: LevelMoments, parts: _Parts
) -> tuple[FixedBasis, LevelMoments, bool]:
    """Make the moments fit for a likelihood; without it the columns stay as they are given."""
    if not parts.rotate:
        return fixed, moments, False
    fixed, moments = separate_levels(fixed, moments)
    least = _least_noise(parts.sums, fixed)
    moments, is_bounded = _bound_noise(moments, parts.sums.n_rows, least)
    return fixed, moments, is_bounded


def _with_squares(parts: _Parts, moments: LevelMoments) -> ProfiledLikelihood:
    """The likelihood, with the squares that its residuals are a difference of."""
    is_split = parts.sums.has_triangles and moments.n_spanned < parts.sums.n_rows
    squares = float(moments.within[-1, -1]) if is_split else 0.0
    return replace(parts.likelihood, squares=squares) if squares > 0.0 else parts.likelihood


def _least_noise(sums: Sums, fixed: FixedBasis) -> float:
    """The noise variance that is rounding error, of the data or of the sums."""
    data = DATA_ROUNDING**2 * sums.response_square / sums.total_weight / fixed.scale**2
    return TRIANGLES_ROUNDING * data if sums.has_triangles else max(data, NO_NOISE)


def _bound_noise(moments: LevelMoments, n_rows: int, least: float) -> tuple[LevelMoments, bool]:
    """Keep the likelihood bounded where the levels reproduce the response exactly.

    Without noise within levels the likelihood grows for ever as the noise variance falls, so a
    little noise is put there. Where the levels use up all rows, what is left within is rounding.
    """
    if moments.n_effects and moments.n_spanned >= n_rows:
        return replace(moments, within=np.zeros_like(moments.within)), False
    residual, df = within_residual(moments, n_rows)
    if moments.n_effects == 0 or df <= 0 or residual > least * df:
        return moments, False
    bounded = moments.within.copy()
    bounded[-1, -1] += NOISE_FLOOR * df
    return replace(moments, within=bounded), True
