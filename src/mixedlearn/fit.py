"""The fit: from cross-products to a fitted model.

The five steps are design (`design`), cross-products (`cross_products.accumulate`), engine
(`make_engine`), optimisation (`optimize.minimise`) and the fitted model (`fit_products`). Every refit
starts from the cross-products.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.bases import FixedBasis, RandomBasis, fixed_basis, random_basis
from mixedlearn.covariance import CovarianceStructure, engine_structure
from mixedlearn.cross_products import CrossProducts
from mixedlearn.design import Specification
from mixedlearn.engines.one_factor import (
    LevelMoments,
    OneFactorEngine,
    conditional_means,
    reduce_levels,
    separate_levels,
    within_residual,
)
from mixedlearn.engines.protocol import FixedEffects
from mixedlearn.fitted import FittedModel
from mixedlearn.optimize import minimise

FloatArray = NDArray[np.float64]

# Noise variance, relative to that of ordinary least squares, that stands for zero.
NOISE_FLOOR = 1e-10


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
    fixed = fixed_basis(products, specification.fixed, specification.fit_intercept)
    n_fixed = fixed.columns.shape[1]
    if products.n_rows <= n_fixed and specification.factor is not None:
        raise ValueError(
            f"Found n_samples={products.n_rows} rows for {n_fixed} linearly independent "
            "fixed-effect columns (the intercept among them): the variances need more rows than "
            "columns. Give more rows or name fewer columns in fixed_effects."
        )
    random = _random_basis(products, specification)
    structure = engine_structure(specification.structure, random.kept)
    fixed, moments = separate_levels(fixed, reduce_levels(products, fixed, random))
    notes = _aliasing_notes(specification, fixed, random)
    if fixed.is_exact:
        return _exact_fit(products, specification, fixed, random, moments, notes)
    moments, saturation = _bound_noise(moments, products.n_rows)
    engine = OneFactorEngine(
        moments,
        structure,
        reml=specification.reml,
        n_rows=products.n_rows,
        constant=_objective_constant(products, fixed, specification.reml),
    )
    if start is not None:
        start = _engine_theta(specification, structure, random, start)
    optimum = minimise(engine, start, max_iter=max_iter, tol=tol)
    factor = structure.lambda_from_theta(optimum.evaluation.theta)
    effects = optimum.evaluation.fixed
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
        is_certified=optimum.is_certified,
        warnings=(*notes, *saturation, *_confounding_notes(specification, products)),
    )


def objective_at(
    products: CrossProducts, specification: Specification, theta: FloatArray
) -> float:
    """Minus twice the profiled log-likelihood at a theta in the user's units."""
    fixed = fixed_basis(products, specification.fixed, specification.fit_intercept)
    random = _random_basis(products, specification)
    structure = engine_structure(specification.structure, random.kept)
    fixed, moments = separate_levels(fixed, reduce_levels(products, fixed, random))
    engine = OneFactorEngine(
        moments,
        structure,
        reml=specification.reml,
        n_rows=products.n_rows,
        constant=_objective_constant(products, fixed, specification.reml),
    )
    return engine.evaluate(_engine_theta(specification, structure, random, theta), 0).objective


def _random_basis(products: CrossProducts, specification: Specification) -> RandomBasis:
    if specification.factor is None:
        return RandomBasis(*(np.zeros((0, 0)) for _ in range(3)), np.arange(0))
    return random_basis(products, specification.random_intercept, specification.structure)


def _engine_theta(
    specification: Specification,
    structure: CovarianceStructure,
    random: RandomBasis,
    theta: FloatArray,
) -> FloatArray:
    root = random.from_user @ specification.structure.lambda_from_theta(theta)
    if structure.kind == "unrestricted":
        root = np.linalg.qr(root.T, mode="r").T
    return structure.theta_from_lambda(root[:, random.kept] if structure.kind == "diagonal" else root)


def _objective_constant(products: CrossProducts, fixed: FixedBasis, reml: bool) -> float:
    n_fixed = fixed.columns.shape[1]
    df = products.n_rows - n_fixed if reml else products.n_rows
    constant = 2.0 * df * np.log(fixed.scale) - products.sum_log_weights
    return float(constant + (fixed.log_det_gram if reml else 0.0))


def _bound_noise(
    moments: LevelMoments, n_rows: int
) -> tuple[LevelMoments, tuple[str, ...]]:
    """Keep the likelihood bounded where the levels reproduce the response exactly.

    Without noise within levels the likelihood grows for ever as the noise variance falls, so a
    little noise is put there.
    """
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
    fixed: FixedBasis,
    random: RandomBasis,
    moments: LevelMoments,
    notes: tuple[str, ...],
) -> FittedModel:
    n_fixed, q = fixed.columns.shape[1], moments.n_effects
    note = (
        "The fixed effects reproduce the response exactly: the noise variance and the variances of "
        "the random effects are zero."
    )
    return FittedModel(
        specification=specification,
        products=products,
        fixed_basis=fixed,
        random_basis=random,
        factor=np.zeros((q, q)),
        fixed_effects=FixedEffects(np.zeros(n_fixed), np.eye(n_fixed), 0.0),
        blups=np.zeros((products.grouped.shape[2], random.to_user.shape[0])),
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
            "constant or linear combinations of earlier columns. Their coefficients are set to zero."
        )
    names = [
        name for effect, name in enumerate(specification.effects) if effect not in random.kept
    ]
    if names:
        notes.append(
            f"The random effects of {', '.join(map(repr, names))} are aliased: these columns are "
            "constant or linear combinations of earlier ones. Their variances are set to zero."
        )
    return tuple(notes)


def _confounding_notes(
    specification: Specification, products: CrossProducts
) -> tuple[str, ...]:
    n_levels = products.grouped.shape[2]
    if not specification.random_intercept or n_levels < products.n_rows:
        return ()
    return (
        f"Every level of {specification.factor!r} has one row: the variance of its intercept cannot "
        "be told from the noise variance.",
    )
