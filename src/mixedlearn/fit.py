"""The fit: from cross-products to a fitted model.

Of the five steps, design (`design`) and cross-products (`cross_products.accumulate`) come before
this module; here are the engine (`make_problem`, `make_engine`), the optimisation
(`optimize.minimise`) and the fitted model, put together by `fit_products`. Every refit starts from
the cross-products.
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

# Noise variances relative to that of ordinary least squares: below the first it is rounding error,
# and the second stands for it.
NO_NOISE = 1e-13
NOISE_FLOOR = 1e-9
# With so little noise, rounding error in the derivatives is this much of the objective.
BOUNDED_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Problem:
    """The cross-products in the engine's columns.

    Attributes
    ----------
    fixed : FixedBasis
    random : RandomBasis
    moments : LevelMoments
    is_bounded : bool
        Whether noise was added within levels, to bound the likelihood.
    """

    fixed: FixedBasis
    random: RandomBasis
    moments: LevelMoments
    is_bounded: bool = False


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

    Returns
    -------
    FittedModel

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
    engine = make_engine(products, specification, problem)
    if start is not None:
        start = _engine_theta(specification, problem.random, engine.structure, start)
    if problem.is_bounded:
        tol = max(tol, BOUNDED_TOLERANCE)
    optimum = minimise(engine, start, max_iter=max_iter, tol=tol)
    structure, fixed_effects = engine.structure, optimum.evaluation.fixed
    factor = structure.lambda_from_theta(optimum.evaluation.theta)
    direction = noise_direction(problem.moments, structure, products.n_rows)
    if direction is not None:
        factor, fixed_effects = _count_as_noise(structure, factor, fixed_effects, direction)
    blups = conditional_means(problem.moments, factor, fixed_effects)
    return FittedModel(
        specification=specification,
        products=products,
        fixed_basis=fixed,
        random_basis=random,
        factor=factor,
        fixed_effects=fixed_effects,
        blups=fixed.scale * (random.to_user @ blups).T,
        objective=optimum.evaluation.objective,
        n_iterations=optimum.n_iterations,
        is_certified=optimum.is_certified,
        warnings=(
            *notes,
            *_noise_notes(problem),
            *_level_notes(specification, products, is_confounded=direction is not None),
        ),
    )


def objective_at(products: CrossProducts, specification: Specification, theta: FloatArray) -> float:
    """Minus twice the profiled log-likelihood at a theta in the user's units."""
    problem = make_problem(products, specification)
    if problem.fixed.is_exact:
        return -np.inf
    engine = make_engine(products, specification, problem)
    engine_theta = _engine_theta(specification, problem.random, engine.structure, theta)
    return engine.evaluate(engine_theta, 0).objective


def make_problem(products: CrossProducts, specification: Specification) -> Problem:
    """Choose the engine's columns and reduce the cross-products to them."""
    fixed = fixed_basis(products, specification.fixed, specification.fit_intercept)
    random = _random_basis(products, specification)
    fixed, moments = separate_levels(fixed, reduce_levels(products, fixed, random))
    return _bound_noise(Problem(fixed, random, moments), products.n_rows)


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


def _engine_theta(
    specification: Specification,
    random: RandomBasis,
    structure: CovarianceStructure,
    theta: FloatArray,
) -> FloatArray:
    """Theta in the engine's columns, where D has the engine's structure."""
    root = random.from_user @ specification.structure.lambda_from_theta(theta)
    if structure.kind == "unrestricted":
        return structure.theta_from_lambda(triangular_root(root))
    return structure.theta_from_lambda(root[:, random.kept])


def _bound_noise(problem: Problem, n_rows: int) -> Problem:
    """Keep the likelihood bounded where the levels reproduce the response exactly.

    Without noise within levels the likelihood grows for ever as the noise variance falls, so a
    little noise is put there. Where the levels use up all rows, what is left within is rounding.
    """
    moments = problem.moments
    if moments.n_effects and moments.n_spanned >= n_rows:
        return replace(problem, moments=replace(moments, within=np.zeros_like(moments.within)))
    residual, df = within_residual(moments, n_rows)
    if moments.n_effects == 0 or df <= 0 or residual > NO_NOISE * df:
        return problem
    bounded = moments.within.copy()
    bounded[-1, -1] += NOISE_FLOOR * df
    return replace(problem, moments=replace(moments, within=bounded), is_bounded=True)


def _noise_notes(problem: Problem) -> tuple[str, ...]:
    if not problem.is_bounded or problem.fixed.is_exact:
        return ()
    return (
        "The random effects reproduce the response exactly: the noise variance cannot be told from "
        "zero, and the likelihood has no maximum. The estimates are those of a very small noise.",
    )


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
        n_iterations=1,
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
    structure: CovarianceStructure,
    factor: FloatArray,
    fixed_effects: FixedEffects,
    direction: FloatArray,
) -> tuple[FloatArray, FixedEffects]:
    """Move as much of the random effects as can be into the noise; see `confounding`."""
    covariance = factor @ factor.T
    share = most_noise(covariance, direction)
    covariance = (covariance - share * direction) / (1.0 + share)
    moved = structure.lambda_from_theta(structure.theta_from_covariance(covariance))
    return moved, replace(
        fixed_effects,
        inverse_root=fixed_effects.inverse_root / np.sqrt(1.0 + share),
        noise_variance=fixed_effects.noise_variance * (1.0 + share),
    )
