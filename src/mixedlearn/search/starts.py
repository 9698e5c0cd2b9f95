"""Starts: where to search from, the signs of several optima, and the best of the ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.algebra import smallest_deviation
from mixedlearn.covariance.components import VarianceComponents
from mixedlearn.covariance.structures import Structure
from mixedlearn.engines.protocol import Engine, Evaluation
from mixedlearn.search.newton import FEW_DATA, SMALL_DEVIATION, ZERO_LOSS, Optimum, minimise_from

FloatArray = NDArray[np.float64]

# Signs of several optima: so long a path, so few levels, or so many times the noise within levels.
MANY_ITERATIONS = 10
FEW_LEVELS = 10
MUCH_NOISE = 1.05
N_MIXED_STARTS = 4
# So many ends in a row at the same optimum are enough where several optima are rare.
ENOUGH_AGREEING = 4
# Where several factors have slopes, the first so many ends have to be the same, and the rows many:
# with fewer rows to a random effect, one that is far away may follow the response.
ENOUGH_ALIKE = 9
ROWS_OF_AN_EFFECT = 2
# With several factors and slopes, effects of one factor may stand in for those of another.
N_MIXED_STARTS_SEVERAL = 16


def minimise(engine: Engine, start: FloatArray | None, *, max_iter: int, tol: float) -> Optimum:
    """Minimise the engine's objective.

    Where there may be several optima, further starts are tried and the lowest end counts. Some
    structures have several whatever the data are like; see `correlated_starts`. Of all others a
    singular D, a missing certificate, a long path, few levels, or more noise than there is within
    levels are the signs. Where the data are many only the noise is asked, and only one more start
    is made.

    Parameters
    ----------
    engine : Engine
    start : ndarray of shape (n_parameters,) or None
        Theta to start from; None for the engine's own start, from moments.
    max_iter : int
        Most iterations from each start, EM steps included.
    tol : float
        Promised decrease of the objective at which to stop.
    """
    components = engine.components
    if components.n_parameters == 0:
        return Optimum(engine.evaluate(np.empty(0), 0), True, 1)
    if start is None:
        start = components.theta_of(engine.start())
    best = minimise_from(engine, start, max_iter, tol)
    is_open = may_be_local(engine, best.evaluation, best.is_certified, best.n_iterations)
    starts = further_starts(engine) if is_open else correlated_starts(engine)
    n_agreeing = 0
    for n_tried, covariances in enumerate(starts, 1):
        theta = components.theta_of(covariances)
        optimum = minimise_from(engine, theta, max_iter, tol)
        gain = best.evaluation.objective - optimum.evaluation.objective
        least = ZERO_LOSS + optimum.evaluation.rounding
        agrees = optimum.is_certified and best.is_certified and abs(gain) <= least
        n_agreeing = n_agreeing + 1 if agrees else 0
        best = better_of(best, optimum)
        if n_agreeing == ENOUGH_AGREEING and _has_intercepts_only(components):
            break
        if n_agreeing == n_tried == ENOUGH_ALIKE and _has_many_rows(engine):
            break
    return from_its_end(best, partial(minimise_from, engine, max_iter=max_iter, tol=tol))


def better_of(best: Optimum, other: Optimum) -> Optimum:
    """The lower of two ends; of equals the first, unless the other alone is certified."""
    gain = best.evaluation.objective - other.evaluation.objective
    least = ZERO_LOSS + other.evaluation.rounding
    is_better = gain > least or (other.is_certified and not best.is_certified and gain > -least)
    return other if is_better else best


def from_its_end(best: Optimum, search: Callable[[FloatArray], Optimum]) -> Optimum:
    """The lowest end; without a certificate it may be on its way, and is one more start."""
    if best.is_certified:
        return best
    again = search(best.evaluation.theta)
    return again if again.evaluation.objective <= best.evaluation.objective else best


def _has_intercepts_only(components: VarianceComponents) -> bool:
    """Whether several factors have one effect each: a second optimum is rare then."""
    structures = components.structures
    return len(structures) > 1 and all(structure.n_effects == 1 for structure in structures)


def _has_many_rows(engine: Engine) -> bool:
    """Whether several factors have many rows to each effect, and no structure several optima."""
    n_effects = sum(
        m * structure.n_effects
        for m, structure in zip(engine.n_levels, engine.components.structures, strict=True)
    )
    return (
        len(engine.n_levels) > 1
        and _is_linear(engine.components)
        and engine.n_rows >= ROWS_OF_AN_EFFECT * n_effects
    )


def _is_linear(components: VarianceComponents) -> bool:
    """Whether no structure has optima of its own, whatever the data are like."""
    return all(structure.is_linear for structure in components.structures)


def may_be_local(
    engine: Engine, evaluation: Evaluation, is_certified: Any, n_iterations: Any
) -> Any:
    """Whether there is a sign of several optima; see `minimise`.

    Parameters
    ----------
    engine : Engine
        Of one response, or of several.
    evaluation : Evaluation
        The end of a search.
    is_certified : bool, or ndarray of shape (...)
    n_iterations : int, or ndarray of shape (...)
        As in `Optimum`.
    """
    has_much_noise = evaluation.fixed.noise_variance > MUCH_NOISE * engine.within_variance
    if engine.size > FEW_DATA:
        return has_much_noise
    roots = engine.components.roots(evaluation.theta)
    smallest = reduce(np.minimum, [smallest_deviation(root) for root in roots])
    return (
        has_much_noise
        | np.logical_not(is_certified)
        | (n_iterations > MANY_ITERATIONS)
        | (smallest < SMALL_DEVIATION)
        | (min(engine.n_levels) <= FEW_LEVELS)
    )


def further_starts(engine: Engine) -> Iterator[tuple[FloatArray, ...]]:
    """Beta from within levels; variances of all sizes; effects of mixed sizes and correlations."""
    structures = engine.components.structures
    identities = [np.eye(structure.n_effects) for structure in structures]
    yield engine.start_from_within()
    if engine.size > FEW_DATA:
        return
    yield tuple(identities)
    # The sooner a start leads to another optimum, the fewer are made: of slopes most of the optima
    # that there are come from mixed sizes, of intercepts alone from one size for all.
    mixed_first = not _has_intercepts_only(engine.components)
    if mixed_first:
        yield from _mixed_starts(engine)
    for size in (1e2, 1e4, 1e6, 1e10):
        yield tuple(size * identity for identity in identities)
    yield from correlated_starts(engine)
    if len(structures) > 1:
        for large in range(len(structures)):
            sizes = [1e2 if k == large else 1e-2 for k in range(len(structures))]
            yield tuple(size * identity for size, identity in zip(sizes, identities, strict=True))
    if not mixed_first:
        yield from _mixed_starts(engine)


def _mixed_starts(engine: Engine) -> Iterator[tuple[FloatArray, ...]]:
    """Effects of mixed sizes and correlations."""
    structures = engine.components.structures
    if engine.components.n_parameters > 1:
        generator = np.random.default_rng(0)
        trade = len(structures) > 1 and engine.size <= FEW_DATA // 4
        for _ in range(N_MIXED_STARTS_SEVERAL if trade else N_MIXED_STARTS):
            yield tuple(_mixed_start(structure, generator) for structure in structures)


def correlated_starts(engine: Engine) -> Iterator[tuple[FloatArray, ...]]:
    """Correlations of both signs, for structures that tie them to each other.

    Such a structure may have an optimum for each sign, whatever the data are like.
    """
    structures = engine.components.structures
    if engine.size > FEW_DATA or _is_linear(engine.components):
        return
    trials = [structure.trials() for structure in structures]
    for number in range(1, max(map(len, trials))):
        yield tuple(own[number % len(own)] for own in trials)


def _mixed_start(structure: Structure, generator: np.random.Generator) -> FloatArray:
    q = structure.n_effects
    root = generator.standard_normal((q, q)) * 10.0 ** generator.uniform(-2, 3, (q, 1))
    return structure.project(root @ root.T)
