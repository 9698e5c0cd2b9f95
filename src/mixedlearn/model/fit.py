"""The fit: from sums to a fitted model.

Of the five steps, the specification and the sums (`data.sums`) come before this module; here
are the engine (`engines.choose`), the search (`search.starts`) and the fitted model, put
together by `fit_sums`. Every refit starts from the sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.components import VarianceComponents
from mixedlearn.covariance.structures import Structure
from mixedlearn.data.sums import Sums
from mixedlearn.engines.bases import RandomBasis
from mixedlearn.engines.levels import reduce_levels
from mixedlearn.engines.problem import NOISE_FLOOR, Problem, make_problem
from mixedlearn.engines.protocol import Evaluation, FixedEffects, SampledEngine
from mixedlearn.engines.recipe import Recipe
from mixedlearn.model.confounding import (
    ExplainedEffects,
    explained_effects,
    is_confounded,
    most_noise,
    noise_direction,
    without_explained,
)
from mixedlearn.model.fitted import FittedModel, Sampling, user_blups
from mixedlearn.model.notes import (
    EXACT_FIT,
    UNBOUNDED,
    VANISHING_NOISE,
    aliasing_notes,
    equal_factor_notes,
    explained_notes,
    largest_term,
    level_notes,
    noise_notes,
    rounding_notes,
    sampling_notes,
)
from mixedlearn.search.local_model import evaluate_with_model
from mixedlearn.search.newton import ZERO_LOSS, Optimum
from mixedlearn.search.sampled import (
    descend_sampled,
    minimise_sampled,
    probes_needed,
    sampling_errors,
)
from mixedlearn.search.starts import minimise
from mixedlearn.specification import Specification

FloatArray = NDArray[np.float64]

# With so little noise, rounding error in the derivatives is this much of the objective.
BOUNDED_TOLERANCE = 1e-4
# With less noise than this the likelihood may have no maximum. Where it has one, the derivative of
# the objective by the logarithm of theta is near zero, and where it has none, minus two or less.
HARDLY_ANY_NOISE = 1e-2
RISING = 0.5
FURTHER = 10.0
# Share of the variances that is rounding error once as much as can be is counted as noise.
REMAINDER = 1e-12


def fit_sums(sums: Sums, recipe: Recipe, start: FloatArray | None = None) -> FittedModel:
    """Fit a model to sums.

    Parameters
    ----------
    sums : Sums
    recipe : Recipe
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
    specification = recipe.specification
    problem = make_problem(sums, recipe)
    n_fixed = problem.fixed.columns.shape[1]
    if sums.n_rows <= n_fixed and specification.factors:
        raise ValueError(
            f"Found n_samples={sums.n_rows} rows for {n_fixed} linearly independent "
            "fixed-effect columns (the intercept among them): the variances need more rows than "
            f"columns.{largest_term(specification)} Give more rows, or name fewer columns in "
            "fixed_effects or the formula."
        )
    notes = aliasing_notes(specification, problem)
    if problem.fixed.is_exact:
        return _exact_fit(sums, recipe, problem, notes)
    problem, optimum = _search(problem, sums, recipe, start)
    engine = problem.engine
    is_unbounded = _is_unbounded(problem, optimum.evaluation)
    explained = _explained(sums, specification, problem)
    roots, evaluation, zeroed = _take_zero(problem, optimum.evaluation, specification, explained)
    fixed_effects = evaluation.fixed
    is_certified = optimum.is_certified
    if zeroed and not is_certified:
        # A search may lose itself where the likelihood is flat; at zero it has no need to.
        _, local = evaluate_with_model(engine, evaluation.theta)
        is_certified = bool(local.is_minimum(_tolerance(recipe, problem)))
    confounded = _confounded_factors(sums, problem)
    for k, direction in confounded.items():
        if direction is None:
            continue
        roots, fixed_effects = _count_as_noise(
            engine.components.structures, roots, fixed_effects, k, direction
        )
    return FittedModel(
        recipe=_recipe_of_fit(recipe, problem),
        sums=sums,
        fixed_basis=problem.fixed,
        random_bases=problem.randoms,
        roots=roots,
        fixed_effects=fixed_effects,
        blups=user_blups(engine, problem.fixed, problem.randoms, roots, fixed_effects),
        objective=evaluation.objective,
        n_iterations=optimum.n_iterations,
        is_certified=is_certified and not is_unbounded,
        rounding=evaluation.rounding,
        warnings=(
            *notes,
            *noise_notes(problem),
            *([UNBOUNDED] if is_unbounded else []),
            *rounding_notes(problem, evaluation.rounding),
            *sampling_notes(optimum.errors),
            *level_notes(specification, sums, confounded),
            *([] if confounded or is_unbounded else _vanishing_noise(problem, optimum.evaluation)),
            *explained_notes(specification, explained, zeroed),
            *equal_factor_notes(specification, sums),
        ),
        unknown_variances={k: own.effects for k, own in explained.items()},
        sampling=_sampling(optimum, evaluation),
    )


def _recipe_of_fit(recipe: Recipe, problem: Problem) -> Recipe:
    """What makes a refit the same fit, with what was found on the way."""
    n_probes = problem.engine.n_probes or recipe.n_probes
    return replace(recipe, is_bounded=problem.is_bounded, n_probes=n_probes)


def _sampling(optimum: Optimum, evaluation: Evaluation) -> Sampling | None:
    """The sampling error of an optimum whose objective was evaluated at order 0."""
    if optimum.errors is None:
        return None
    assert evaluation.sampled_objectives is not None
    return Sampling(optimum.errors, evaluation.sampled_objectives)


def _search(
    problem: Problem, sums: Sums, recipe: Recipe, start: FloatArray | None
) -> tuple[Problem, Optimum]:
    """The optimum, and the problem whose it is: with some noise where the search finds none."""
    engine = problem.engine
    if start is not None:
        start = engine_theta(recipe.specification, problem.randoms, engine.components, start)
    if engine.n_probes:
        return _search_sampled(problem, recipe, start)
    optimum = minimise(engine, start, max_iter=recipe.max_iter, tol=_tolerance(recipe, problem))
    noise = optimum.evaluation.fixed.noise_variance
    is_lost = not optimum.is_certified and noise < NOISE_FLOOR
    if is_lost and not (problem.is_bounded or engine.has_exact_hessian):
        problem = make_problem(sums, replace(recipe, is_bounded=True))
        tol = _tolerance(recipe, problem)
        optimum = minimise(problem.engine, None, max_iter=recipe.max_iter, tol=tol)
    return problem, optimum


def _search_sampled(
    problem: Problem, recipe: Recipe, start: FloatArray | None
) -> tuple[Problem, Optimum]:
    """The same where derivatives are estimated: with as many probes as their error asks for."""
    n_fixed = problem.fixed.columns.shape[1] if recipe.specification.reml else 0
    tol, n_iterations = _tolerance(recipe, problem), 0
    search = minimise_sampled
    while True:
        engine = cast(SampledEngine, problem.engine)
        left = recipe.max_iter - n_iterations
        optimum = search(engine, start, max_iter=left, tol=tol)
        search = descend_sampled
        n_iterations += optimum.n_iterations
        errors = sampling_errors(engine.components, optimum, engine.n_rows - n_fixed)
        needed = probes_needed(errors, engine.n_probes, engine.n_levels)
        theta = optimum.evaluation.theta
        is_sure = needed == engine.n_probes
        if is_sure or n_iterations >= recipe.max_iter:
            evaluation, is_certified = engine.evaluate(theta, 0), optimum.is_certified and is_sure
            return problem, Optimum(evaluation, is_certified, n_iterations, errors)
        # What a few probes say may have no optimum, and a search be far away for that.
        start = theta if optimum.is_certified else start
        problem = replace(problem, engine=engine.with_probes(needed))


def _tolerance(recipe: Recipe, problem: Problem) -> float:
    return max(recipe.tol, BOUNDED_TOLERANCE) if problem.is_bounded else recipe.tol


def refit(
    model: FittedModel,
    *,
    sums: Sums | None = None,
    specification: Specification | None = None,
    start: FloatArray | None = None,
) -> FittedModel:
    """Fit a model like a fitted one, to other sums or with another specification.

    As carefully as by default, whatever limits the fit had.

    Parameters
    ----------
    model : FittedModel
        Stays as it is.
    sums : Sums, optional
        By default those of the model. Beside a residual structure those of the same rows as they
        are.
    specification : Specification, optional
        By default that of the model; ``replace(model.specification, reml=False)``, say.
    start : ndarray of shape (n_parameters,), optional
        As for `fit_sums`.
    """
    recipe = model.recipe.afresh(model.specification if specification is None else specification)
    if model.noise is not None:
        kept = [
            k
            for k, factor in enumerate(model.specification.factors)
            if factor.name in recipe.specification.factor_names
        ]
        refitted: FittedModel = model.noise.refit(recipe, sums, kept)
        return refitted
    return fit_sums(model.sums if sums is None else sums, recipe, start)


def objective_at(model: FittedModel, user_theta: FloatArray) -> float:
    """Minus twice the profiled log-likelihood of a model at a theta in the user's units."""
    specification, problem = model.specification, model.problem()
    if problem.fixed.is_exact:
        return -np.inf
    engine = problem.engine
    theta = engine_theta(specification, problem.randoms, engine.components, user_theta)
    return engine.evaluate(theta, 0).objective


def engine_theta(
    specification: Specification,
    randoms: Sequence[RandomBasis],
    components: VarianceComponents,
    user_theta: FloatArray,
) -> FloatArray:
    """Theta in the engine's columns, where the D_k have the engine's structures."""
    user = VarianceComponents(tuple(factor.structure for factor in specification.factors))
    roots = [
        random.from_user @ own for random, own in zip(randoms, user.roots(user_theta), strict=True)
    ]
    return components.theta_of_roots(roots) if roots else np.empty(0)


def _is_unbounded(problem: Problem, evaluation: Evaluation) -> bool:
    """Whether a search has followed a likelihood that rises for ever as the noise falls.

    Then the objective falls by a fixed amount for each order of magnitude by which the random
    effects outgrow the noise, while a quadratic model sees a valley that is too steep to be
    followed.
    """
    if problem.is_bounded or evaluation.fixed.noise_variance > HARDLY_ANY_NOISE:
        return False
    if evaluation.rounding > RISING:
        return False
    engine, theta = problem.engine, evaluation.theta
    if not engine.evaluate(theta, 1).gradient @ theta < -RISING:
        return False
    beyond = engine.evaluate(FURTHER * theta, 0).objective
    # Where it is lost in rounding, nothing stands against what the slope says.
    return bool(beyond < evaluation.objective - RISING or np.isinf(beyond))


def _vanishing_noise(problem: Problem, evaluation: Evaluation) -> tuple[str, ...]:
    """What to say of a noise variance that a smaller one would do as well for."""
    engine = problem.engine
    if problem.is_bounded or evaluation.fixed.noise_variance > HARDLY_ANY_NOISE:
        return ()
    if not all(structure.is_linear for structure in engine.components.structures):
        return ()
    smaller = engine.evaluate(FURTHER * FURTHER * evaluation.theta, 0)
    is_same = smaller.objective <= evaluation.objective + ZERO_LOSS
    return (VANISHING_NOISE,) if is_same else ()


def _exact_fit(
    sums: Sums,
    recipe: Recipe,
    problem: Problem,
    notes: tuple[str, ...],
) -> FittedModel:
    n_fixed = problem.fixed.columns.shape[1]
    return FittedModel(
        recipe=_recipe_of_fit(recipe, problem),
        sums=sums,
        fixed_basis=problem.fixed,
        random_bases=problem.randoms,
        roots=tuple(np.zeros((len(random.kept),) * 2) for random in problem.randoms),
        fixed_effects=FixedEffects(np.zeros(n_fixed), np.eye(n_fixed), 0.0),
        blups=tuple(
            np.zeros((m, factor.structure.n_effects))
            for m, factor in zip(sums.n_levels, recipe.specification.factors, strict=True)
        ),
        objective=-np.inf,
        n_iterations=1,
        is_certified=True,
        rounding=0.0,
        warnings=(*notes, EXACT_FIT),
    )


def _confounded_factors(sums: Sums, problem: Problem) -> dict[int, FloatArray | None]:
    """Directions in which a factor's random effects cannot be told from noise, by factor.

    None where the direction is another at every D.
    """
    found: dict[int, FloatArray | None] = {}
    for k, random in enumerate(problem.randoms):
        if sums.n_levels[k] * len(random.columns) < sums.n_rows:
            continue
        moments = reduce_levels(sums, k, problem.fixed, random)
        structure = problem.engine.components.structures[k]
        direction = noise_direction(moments, structure, sums.n_rows)
        if direction is not None or is_confounded(moments, structure, sums.n_rows):
            found[k] = direction
    return found


def _explained(
    sums: Sums, specification: Specification, problem: Problem
) -> dict[int, ExplainedEffects]:
    """Random effects that the fixed effects explain, by factor.

    A factor of one level has a note of its own.
    """
    found = {}
    for k, random in enumerate(problem.randoms):
        if sums.n_levels[k] > 1:
            structure = problem.engine.components.structures[k]
            own = explained_effects(
                sums, k, specification, problem.fixed, random, structure, problem.n_spanned
            )
            if own is not None:
                found[k] = own
    return found


def _take_zero(
    problem: Problem,
    evaluation: Evaluation,
    specification: Specification,
    explained: dict[int, ExplainedEffects],
) -> tuple[tuple[FloatArray, ...], Evaluation, set[int]]:
    """Of all D with the same restricted likelihood, that in which explained effects are zero.

    Returns
    -------
    roots : tuple of ndarray
    evaluation : Evaluation
        At these roots.
    zeroed : set of int
        The factors of which explained effects are zero.
    """
    engine = problem.engine
    roots = list(engine.components.roots(evaluation.theta)[: len(problem.randoms)])
    if not specification.reml:
        # The likelihood has an optimum, and this is it.
        return tuple(roots), evaluation, set()
    zeroed = set()
    for k, own in explained.items():
        structure = engine.components.structures[k]
        root = without_explained(roots[k], structure, problem.randoms[k], own)
        if root is not None:
            roots[k] = root
            zeroed.add(k)
    if zeroed:
        evaluation = engine.evaluate(engine.components.theta_of_roots(roots), 0)
    return tuple(roots), evaluation, zeroed


def _count_as_noise(
    structures: Sequence[Structure],
    roots: Sequence[FloatArray],
    fixed_effects: FixedEffects,
    k: int,
    direction: FloatArray,
) -> tuple[tuple[FloatArray, ...], FixedEffects]:
    """Move as much of the random effects of factor k as can be into the noise.

    The other factors' covariances are relative to the noise, so they shrink as it grows; see
    `confounding`.
    """
    original = roots[k] @ roots[k].T
    share = most_noise(original, direction)
    values, vectors = np.linalg.eigh(original - share * direction)
    # What the subtraction leaves of a variance that has become noise is rounding error.
    values = np.where(values > REMAINDER * np.trace(original), values, 0.0)
    covariance = (vectors * values) @ vectors.T / (1.0 + share)
    moved = [root / np.sqrt(1.0 + share) for root in roots]
    moved[k] = structures[k].root(structures[k].theta_of(covariance))
    return tuple(moved), replace(
        fixed_effects,
        inverse_root=fixed_effects.inverse_root / np.sqrt(1.0 + share),
        noise_variance=fixed_effects.noise_variance * (1.0 + share),
    )
