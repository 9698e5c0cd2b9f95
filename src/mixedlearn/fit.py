"""The fit: from cross-products to a fitted model.

The five steps are design (`design`), cross-products (`cross_products.accumulate`), engine
(`make_engine`), optimisation (`optimize.minimise`) and the fitted model (`fit_products`). Every
refit starts from the cross-products.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.bases import FixedBasis, RandomBasis, fixed_basis, random_basis
from mixedlearn.confounding import most_noise, noise_direction
from mixedlearn.covariance import CovarianceStructure, engine_structure, triangular_root
from mixedlearn.cross_products import CrossProducts
from mixedlearn.design import Specification
from mixedlearn.engines.levels import (
    LevelMoments,
    conditional_means,
    reduce_levels,
    separate_levels,
    within_residual,
)
from mixedlearn.engines.one_factor import OneFactorEngine
from mixedlearn.engines.protocol import FixedEffects
from mixedlearn.fitted import FittedModel
from mixedlearn.optimize import minimise

FloatArray = NDArray[np.float64]

# Noise variance, relative to that of ordinary least squares, that stands for zero.
NOISE_FLOOR = 1e-8


@dataclass(frozen=True, slots=True)
class Problem:
    """The cross-products in the engine's columns.

    Attributes
    ----------
    fixed : FixedBasis
    random : RandomBasis
    moments : LevelMoments
    """

    fixed: FixedBasis
    random: RandomBasis
    moments: LevelMoments


def fit_products(
    products: CrossProducts,
    specification: Specification,
    *,
    max_iter: int,
    tol: float,
    start: FloatArray | None = None,
) -> FittedModel:
    """Fit a model to cross-products.

    Parameters
    ----------
    products : CrossProducts
    specification : Specification
    max_iter : int
        Most iterations of the optimiser from one start.
    tol : float
        Decrease of the objective that may remain promised at the optimum.
    start : ndarray of shape (n_parameters,), optional
        Theta, in the user's units, to start from; by default moments.

    Raises
    ------
    ValueError
        If a model with random effects has no more rows than fixed-effect columns.
    """
    problem = make_problem(products, specification)
    fixed, random = problem.fixed, problem.random
    n_fixed = fixed.columns.shape[1]
    if products.n_rows <= n_fixed and specification.factor is not None:
        raise ValueError(
            f"Found n_samples={products.n_rows} rows for {n_fixed} linearly independent "
            "fixed-effect columns (the intercept among them): the variances need more rows than "
            "columns. Give more rows or name fewer columns in fixed_effects."
        )
    notes = _aliasing_notes(specification, fixed, random)
    if fixed.is_exact:
        return _exact_fit(products, specification, problem, notes)
    moments, saturation = _bound_noise(problem.moments, products.n_rows)
    engine = make_engine(products, specification, replace(problem, moments=moments))
    if start is not None:
        start = _engine_theta(specification, problem, start)
    optimum = minimise(engine, start, max_iter=max_iter, tol=tol)
    structure, effects = engine.structure, optimum.evaluation.fixed
    factor = structure.lambda_from_theta(optimum.evaluation.theta)
    direction = noise_direction(moments, structure, products.n_rows)
    if direction is not None:
        factor, effects = _count_as_noise(structure, factor, effects, direction)
    blups = conditional_means(moments, factor, effects)
    return FittedModel(
        specification=specification,
        products=products,
        fixed_basis=fixed,
        random_basis=random,
        factor=factor,
        fixed_effects=effects,
        blups=fixed.scale * (random.to_user @ blups).T,
        objective=optimum.evaluation.objective,
        path=optimum.path,
        # The bound on the noise is where the likelihood of a saturated model is at its highest.
        is_certified=optimum.is_certified or bool(saturation),
        warnings=(
            *notes,
            *saturation,
            *_level_notes(specification, products, is_confounded=direction is not None),
        ),
    )


def objective_at(products: CrossProducts, specification: Specification, theta: FloatArray) -> float:
    """Minus twice the profiled log-likelihood at a theta in the user's units."""
    problem = make_problem(products, specification)
    if problem.fixed.is_exact:
        return -np.inf
    moments, _ = _bound_noise(problem.moments, products.n_rows)
    problem = replace(problem, moments=moments)
    engine = make_engine(products, specification, problem)
    return engine.evaluate(_engine_theta(specification, problem, theta), 0).objective


def make_problem(products: CrossProducts, specification: Specification) -> Problem:
    """Choose the engine's columns and reduce the cross-products to them."""
    fixed = fixed_basis(products, specification.fixed, specification.fit_intercept)
    random = _random_basis(products, specification)
    fixed, moments = separate_levels(fixed, reduce_levels(products, fixed, random))
    return Problem(fixed, random, moments)


def make_engine(
    products: CrossProducts, specification: Specification, problem: Problem
) -> OneFactorEngine:
    """The engine whose objective is in the user's units."""
    n_fixed = problem.fixed.columns.shape[1]
    df = products.n_rows - n_fixed if specification.reml else products.n_rows
    constant = 2.0 * df * np.log(problem.fixed.scale) - products.sum_log_weights
    if specification.reml:
        constant += problem.fixed.log_det_gram
    return OneFactorEngine(
        problem.moments,
        engine_structure(specification.structure, problem.random.kept),
        reml=specification.reml,
        n_rows=products.n_rows,
        constant=float(constant),
    )


def _random_basis(products: CrossProducts, specification: Specification) -> RandomBasis:
    if specification.factor is None:
        return RandomBasis(np.zeros((0, 0)), np.zeros((0, 0)), np.zeros((0, 0)), np.arange(0))
    return random_basis(products, specification.random_intercept, specification.structure)


def _engine_theta(specification: Specification, problem: Problem, theta: FloatArray) -> FloatArray:
    """Theta in the engine's columns."""
    structure = engine_structure(specification.structure, problem.random.kept)
    root = problem.random.from_user @ specification.structure.lambda_from_theta(theta)
    if structure.kind == "unrestricted":
        return structure.theta_from_lambda(triangular_root(root))
    return structure.theta_from_lambda(root[:, problem.random.kept])


def _bound_noise(moments: LevelMoments, n_rows: int) -> tuple[LevelMoments, tuple[str, ...]]:
    """Keep the likelihood bounded where the levels reproduce the response exactly.

    Without noise within levels the likelihood grows for ever as the noise variance falls, so a
    little noise is put there. Where the levels use up all rows, what is left within is rounding.
    """
    if moments.n_effects and moments.n_spanned >= n_rows:
        return replace(moments, within=np.zeros_like(moments.within)), ()
    residual, df = within_residual(moments, n_rows)
    if moments.n_effects == 0 or df <= 0 or residual > NOISE_FLOOR * df:
        return moments, ()
    bounded = moments.within.copy()
    bounded[-1, -1] += NOISE_FLOOR * df
    note = (
        "The random effects reproduce the response exactly: the noise variance cannot be told from "
        "zero, and the likelihood has no maximum. The estimates are those of a very small noise."
    )
    return replace(moments, within=bounded), (note,)


def _exact_fit(
    products: CrossProducts,
    specification: Specification,
    problem: Problem,
    notes: tuple[str, ...],
) -> FittedModel:
    n_fixed, q = problem.fixed.columns.shape[1], problem.moments.n_effects
    note = (
        "The fixed effects reproduce the response exactly: the noise variance and the variances of "
        "the random effects are zero."
    )
    return FittedModel(
        specification=specification,
        products=products,
        fixed_basis=problem.fixed,
        random_basis=problem.random,
        factor=np.zeros((q, q)),
        fixed_effects=FixedEffects(np.zeros(n_fixed), np.eye(n_fixed), 0.0),
        blups=np.zeros((products.grouped.shape[2], specification.structure.n_effects)),
        objective=-np.inf,
        path=(-np.inf,),
        is_certified=True,
        warnings=(*notes, note),
    )


def _aliasing_notes(
    specification: Specification, fixed: FixedBasis, random: RandomBasis
) -> tuple[str, ...]:
    notes = []
    names = [
        name
        for name, aliased in zip(specification.coef_names, fixed.aliased, strict=True)
        if aliased
    ]
    if names:
        notes.append(
            f"The fixed effects of {', '.join(map(repr, names))} are aliased: these columns are "
            "constant or linear combinations of earlier ones. Their coefficients are set to zero."
        )
    names = [name for effect, name in enumerate(specification.effects) if effect not in random.kept]
    if names:
        notes.append(
            f"The random effects of {', '.join(map(repr, names))} are aliased: these columns are "
            "constant or linear combinations of earlier ones. Their variances are set to zero."
        )
    return tuple(notes)


def _level_notes(
    specification: Specification, products: CrossProducts, *, is_confounded: bool
) -> tuple[str, ...]:
    factor, n_levels = specification.factor, products.grouped.shape[2]
    if is_confounded:
        rows = "one row" if n_levels == products.n_rows else "too few rows"
        return (
            f"Every level of {factor!r} has {rows}: the variances of its random effects cannot be "
            "told from the noise variance, and as much as can be is counted as noise.",
        )
    if n_levels == 1:
        return (
            f"The factor {factor!r} has one level: the variances of its random effects cannot be "
            "estimated from a single draw.",
        )
    return ()


def _count_as_noise(
    structure: CovarianceStructure, factor: FloatArray, effects: FixedEffects, direction: FloatArray
) -> tuple[FloatArray, FixedEffects]:
    """Move as much of the random effects as can be into the noise; see `confounding`."""
    covariance = factor @ factor.T
    share = most_noise(covariance, direction)
    covariance = (covariance - share * direction) / (1.0 + share)
    moved = structure.lambda_from_theta(structure.theta_from_covariance(covariance))
    return moved, replace(
        effects,
        inverse_root=effects.inverse_root / np.sqrt(1.0 + share),
        noise_variance=effects.noise_variance * (1.0 + share),
    )
