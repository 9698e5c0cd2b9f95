"""The problem: from cross-products to an engine.

The step between the rows and the optimiser: choose the engine's columns, reduce the cross-products
to them, and choose the engine that is cheapest for the number of factors and levels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.bases import FixedBasis, RandomBasis, fixed_basis, random_basis
from mixedlearn.components import VarianceComponents
from mixedlearn.covariance import engine_structure, make_structure
from mixedlearn.cross_products import CrossProducts
from mixedlearn.description import check_memory, is_joint
from mixedlearn.design import Specification
from mixedlearn.engines.elimination import plan_elimination
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
from mixedlearn.engines.protocol import Engine
from mixedlearn.engines.reduced import reduce_several
from mixedlearn.engines.several_factors import SeveralFactorsEngine

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
    products: CrossProducts, specification: Specification, *, bound_noise: bool = False
) -> Problem:
    """Choose the engine's columns and the engine, and reduce the cross-products to them.

    Where elimination cannot tell beforehand that the random effects reproduce the response, and the
    likelihood is unbounded, ``bound_noise`` says that it was found to be so.
    """
    fixed = fixed_basis(products, specification.fixed, specification.fit_intercept)
    randoms = tuple(
        random_basis(products, k, factor.random_intercept, factor.structure)
        for k, factor in enumerate(specification.factors)
    )
    likelihood = _likelihood(products, specification, fixed)
    structures = tuple(
        engine_structure(factor.structure, random.kept)
        for factor, random in zip(specification.factors, randoms, strict=True)
    )
    components = VarianceComponents(structures)
    if len(randoms) <= 1:
        if randoms:
            moments = reduce_levels(products, 0, fixed, randoms[0])
        else:
            moments, components = no_levels(products, fixed), _NO_COMPONENTS
        fixed, moments = separate_levels(fixed, moments)
        moments, is_bounded = _bound_noise(moments, products.n_rows)
        engine: Engine = OneFactorEngine(moments, components.structures[0], likelihood)
        return Problem(fixed, randoms, engine, is_bounded)
    n_levels = tuple(grouped.shape[2] for grouped in products.grouped)
    n_effects = [len(random.kept) for random in randoms]
    if is_joint(n_effects, n_levels):
        fixed, moments = separate_levels(fixed, reduce_jointly(products, fixed, randoms))
        moments, is_bounded = _bound_noise(moments, products.n_rows)
        engine = JointEngine(moments, components, n_levels, likelihood)
        return Problem(fixed, randoms, engine, is_bounded)
    plan = plan_elimination(products, n_effects)
    check_memory(plan, specification.factors)
    fixed, reduced = reduce_several(products, plan, fixed, randoms)
    if bound_noise:
        reduced.data.gram[-1, -1] += NOISE_FLOOR * likelihood.df
    engine = SeveralFactorsEngine(reduced, components, n_levels, likelihood)
    return Problem(fixed, randoms, engine, is_bounded=bound_noise)


_NO_COMPONENTS = VarianceComponents((make_structure("full", []),))


def _likelihood(
    products: CrossProducts, specification: Specification, fixed: FixedBasis
) -> ProfiledLikelihood:
    n_fixed = fixed.columns.shape[1]
    df = products.n_rows - n_fixed if specification.reml else products.n_rows
    constant = 2.0 * df * np.log(fixed.scale) - products.sum_log_weights
    if specification.reml:
        constant += fixed.log_det_gram
    return ProfiledLikelihood(products.n_rows, n_fixed, specification.reml, float(constant))


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
