"""The likelihood of blocks: derivatives by differences, and neutral values of all structures."""

import dataclasses

import numpy as np
import pytest

from helpers.selection import some_of_every_family
from mixedlearn import MixedLinearRegressor
from mixedlearn.covariance.residual.unrestricted import Unrestricted
from mixedlearn.engines.correlated import likelihood
from mixedlearn.engines.correlated.covariance import Point
from mixedlearn.model.correlated import make_correlated
from mixedlearn.model.fit import fit_sums
from reference.noise_problems import FAMILIES, noise_problem

# Of every family two problems: their shapes, patterns, weights and random effects differ.
N = len(FAMILIES)
SEEDS = some_of_every_family([*range(N), *range(2 * N, 3 * N)], N)


def problem_of(seed, in_blocks=True):
    """The engine's problem, the fitted noise and the recipe."""
    problem = noise_problem(seed)
    model = MixedLinearRegressor(
        formula=problem.formula,
        groups=problem.groups,
        residual=problem.residual,
        reml=problem.reml,
    ).fit(problem.data, problem.data["y"], sample_weight=problem.weights)
    fitted = model._fitted.known.fit
    noise, recipe = fitted.noise, fitted.recipe
    rows = noise.rows, noise.noise_rows
    own = make_correlated(noise.sums, *rows, noise.binding, recipe, in_blocks=in_blocks)
    return own, noise, recipe


def by_differences(function, n, step=1e-3):
    """Gradient and Hessian at zero by central differences of fourth order."""
    offsets, first = np.array([-2, -1, 1, 2]), np.array([1, -8, 8, -1]) / 12.0
    units, centre = step * np.eye(n), function(np.zeros(n))
    gradient, hessian = np.empty(n), np.empty((n, n))
    for i in range(n):
        along = [function(o * units[i]) for o in offsets]
        gradient[i] = first @ along / step
        hessian[i, i] = (np.array([-1, 16, 16, -1]) @ along - 30.0 * centre) / 12.0 / step**2
        for j in range(i):
            both = [[function(a * units[i] + b * units[j]) for b in offsets] for a in offsets]
            hessian[i, j] = hessian[j, i] = first @ both @ first / step**2
    return gradient, hessian


@pytest.mark.slow_cases(every=4)
@pytest.mark.parametrize("path", ["pairs of places", "directions", "chunks", "chains"])
@pytest.mark.parametrize("seed", SEEDS)
def test_gradient_and_hessian_are_those_by_differences(seed, path, monkeypatch):
    if path in ("directions", "chunks"):
        monkeypatch.setattr(likelihood, "_is_dear", lambda *_: True)
    if path == "chunks":
        monkeypatch.setattr(likelihood, "CHUNK_ENTRIES", 1)
    problem, noise, _ = problem_of(seed, in_blocks=path != "chains")
    n = problem.parameters.n_parameters
    # Not at the optimum, where a gradient of zero proves little.
    rng = np.random.default_rng(seed)
    point = problem.moved(noise.point, rng.normal(0.0, 0.2, n))
    found = problem.evaluate(point, 2)
    gradient, hessian = by_differences(
        lambda step: problem.evaluate(problem.moved(point, step), 0).objective, n
    )
    np.testing.assert_allclose(found.gradient, gradient, rtol=1e-7, atol=1e-7)
    size = np.abs(hessian).max()
    np.testing.assert_allclose(found.hessian, hessian, atol=1e-6 * size)
    assert problem.evaluate(point, 0).objective == found.objective


def neutral(part, scale):
    """The point of a part at which the noise is independent and of one variance."""
    if isinstance(part, Unrestricted):
        return scale * np.eye(part.n_occasions)
    # A correlation of zero is infinitely far where the range begins there.
    away = [-700.0 if own.lower == 0.0 else own.coordinate(0.0) for own in part.ranges]
    return np.array([*np.zeros(part.n_deviations), *away])


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("in_blocks", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_neutral_values_give_the_criterion_of_the_independent_fit(seed, in_blocks):
    problem, noise, recipe = problem_of(seed, in_blocks)
    independent = fit_sums(noise.sums, dataclasses.replace(recipe, is_bounded=False))
    scale = np.sqrt(independent.noise_variance) / problem.fixed.scale
    parameters = problem.parameters
    theta = parameters.components.theta_of_roots(independent.roots)
    point = Point(
        np.log(scale) if parameters.is_relative else 0.0,
        tuple(neutral(part, scale) for part in parameters.parts),
        theta if parameters.is_relative else scale * theta,
    )
    found = problem.evaluate(point, 0)
    assert found.objective == pytest.approx(independent.objective, rel=1e-10)
