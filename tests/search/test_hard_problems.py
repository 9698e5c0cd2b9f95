"""The hard problems: the best optimum known is found, certified, and an optimum indeed.

The certificate is not taken on trust. At the fitted parameters the criterion is computed from the
rows by brute force, once to see that it is what the estimator says, and then around the fit: no
step within the model may lower it.
"""

import dataclasses
import functools
import json
import warnings

import numpy as np
import pytest

from helpers.selection import some_of_every_family
from mixedlearn import MixedLinearRegressor
from reference import FOLDER
from reference.brute_force import criterion, criterion_by_levels, perfect_elimination_ordering
from reference.hard_problems import FAMILIES, hard_problem

STORED = json.loads((FOLDER / "hard_problems.json").read_text())["problems"]
SEEDS = some_of_every_family(range(len(STORED)), len(FAMILIES))
# What a criterion may exceed the best known one by. It is also what a criterion may be off from the
# one of the rows: cross-products keep about half the digits of a covariate whose offset is
# thousands of standard deviations, next to a variance that is huge. The largest seen is 7e-7 (seed
# 271); 306 of the problems agree to 1e-9.
WORSE = 1e-6
# What a step away from the optimum may gain: the fit stops with 1e-8 still promised.
GAIN = 1e-7


def fit(problem):
    model = MixedLinearRegressor(
        fixed_effects=list(problem.fixed_effects),
        random_intercept=problem.random_intercept,
        random_slopes=list(problem.slopes),
        covariance=problem.covariance,
        fit_intercept=problem.fit_intercept,
        reml=problem.reml,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Of two levels, a covariate of the level explains the difference.
        warnings.filterwarnings("ignore", message="The fixed effects of .* explain random effects")
        model.fit(problem.X, problem.y, groups=problem.groups, sample_weight=problem.sample_weight)
    return model


@functools.cache
def fitted(seed):
    problem = hard_problem(seed)
    return problem, fit(problem)


def data_of(problem):
    X, Z, codes = problem.matrices()
    return X, problem.y, Z, codes, problem.sample_weight, problem.reml


def factor_of(problem, theta):
    """Lambda from theta, written down again: by columns, in an order that keeps the zeros."""
    q = problem.n_effects
    if isinstance(problem.covariance, str) and problem.covariance != "full":
        return np.diag(np.broadcast_to(theta, q))
    full = isinstance(problem.covariance, str)
    mask = np.ones((q, q), bool) if full else problem.covariance
    order = perfect_elimination_ordering(mask)
    factor = np.zeros((q, q))
    entries = iter(theta)
    for position, j in enumerate(order):
        for i in order[position:]:
            if mask[i, j]:
                factor[i, j] = next(entries)
    assert next(entries, None) is None
    return factor


@pytest.mark.parametrize("seed", SEEDS)
def test_the_best_optimum_is_found_and_certified(seed):
    entry = STORED[seed]
    assert entry["seed"] == seed
    problem, model = fitted(seed)
    assert problem.fingerprint() == entry["sha256"]
    assert model.converged_
    assert -2.0 * model.log_likelihood_ <= entry["criterion"] + WORSE


@pytest.mark.parametrize("seed", SEEDS)
def test_the_criterion_is_that_of_the_rows(seed):
    problem, model = fitted(seed)
    found = -2.0 * model.log_likelihood_
    factor = factor_of(problem, model.theta_)
    assert criterion(None, *data_of(problem), factor=factor) == pytest.approx(found, abs=WORSE)
    relative = model.covariances_["group"].to_numpy() / model.noise_variance_
    scale = np.sqrt(np.diag(relative))
    scale[scale == 0.0] = 1.0
    error = (factor @ factor.T - relative) / np.outer(scale, scale)
    # Pivots below 1e-12 of their variance are taken as zero in theta.
    np.testing.assert_allclose(error, 0.0, atol=1e-11)
    # Computed twice, along two roundings of theta.
    assert -2.0 * model.log_likelihood(model.theta_) == pytest.approx(found, abs=WORSE)
    if not isinstance(problem.covariance, str):
        zero = model.covariances_["group"].to_numpy()[~problem.covariance]
        assert np.abs(zero).max() == 0.0


@pytest.mark.slow_cases(every=5)
@pytest.mark.parametrize("order", range(6))
@pytest.mark.parametrize("seed", [37, 77, 107, 147, 197, 271])
def test_the_criterion_is_that_of_the_rows_in_any_order(seed, order):
    """The problems that lose most digits: what rounding leaves of nothing has either sign."""
    problem = hard_problem(seed)
    place = np.random.default_rng(order).permutation(len(problem.y))
    weights = problem.sample_weight
    moved = dataclasses.replace(
        problem,
        X=problem.X[place],
        y=problem.y[place],
        groups=problem.groups[place],
        sample_weight=None if weights is None else weights[place],
    )
    model = fit(moved)
    found = -2.0 * model.log_likelihood_
    exact = criterion(None, *data_of(moved), factor=factor_of(moved, model.theta_))
    assert found == pytest.approx(exact, abs=WORSE)
    assert exact <= STORED[seed]["criterion"] + WORSE


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize("offset", [0.0, 1e2, 1e3, 1e4])
@pytest.mark.parametrize("size", [3.0, 300.0])
def test_a_covariate_far_from_zero_keeps_the_digits_of_the_criterion(size, offset, covariance):
    """Without a free covariance the effects cannot be moved to the covariate's mean."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(20), 8)
    x = rng.standard_normal(160)
    effects = size * rng.standard_normal((20, 2))
    y = x + effects[codes, 0] + effects[codes, 1] * x + rng.standard_normal(160)
    Z = np.column_stack([np.ones(160), x + offset])
    model = MixedLinearRegressor(random_slopes=[0], covariance=covariance, reml=False)
    model.fit(Z[:, 1:], y, groups=codes)
    theta = model.theta_
    diagonal = covariance == "diagonal"
    factor = np.diag(theta) if diagonal else np.array([[theta[0], 0.0], [theta[1], theta[2]]])
    exact = criterion(None, Z, y, Z, codes, None, False, factor=factor)
    assert -2.0 * model.log_likelihood_ == pytest.approx(exact, abs=WORSE)


def neighbours(problem, factor, rng):
    """Factors of covariances near ``factor factor'`` that have the model's structure."""
    Z = problem.matrices()[1]
    q = problem.n_effects
    # A variance of natural size: one over the mean square of the column, centred if its covariance
    # with the intercept is free, since the intercept then takes up its mean.
    free = isinstance(problem.covariance, str) and problem.covariance == "full"
    centred = Z - Z.mean(axis=0) * (free and problem.random_intercept)
    if free and problem.random_intercept:
        centred[:, 0] = 1.0
    unit = 1.0 / np.sqrt(np.mean(centred**2, axis=0))
    back = np.eye(q)
    if free and problem.random_intercept:
        back[0, 1:] = -Z.mean(axis=0)[1:]
    for size in (1e-3, 1e-2, 1e-1, 1.0):
        for j in range(q):
            if isinstance(problem.covariance, str) and problem.covariance == "scalar":
                common = size / np.sqrt(np.mean(Z**2))
                yield np.eye(q) * np.hypot(factor[0, 0], common)
                break
            # One variance grows: in full, of a random combination as well.
            for direction in (np.eye(q)[j], rng.standard_normal(q) if free else np.eye(q)[j]):
                yield np.column_stack([factor, back @ (size * unit * direction)])
        # All that is there grows or shrinks.
        yield factor * (1.0 + size)
        yield factor / (1.0 + size)
        if isinstance(problem.covariance, str) and problem.covariance == "scalar":
            continue
        for _ in range(3):
            # Rows of Lambda are stretched one by one, which keeps every zero of D.
            yield np.exp(size * rng.standard_normal(q))[:, None] * factor
            if free:
                inner = np.linalg.solve(back, factor) / unit[:, None]
                turned = (np.eye(q) + size * rng.standard_normal((q, q))) @ inner
                yield back @ (unit[:, None] * turned)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_step_lowers_the_criterion(seed):
    """Holds at a singular optimum too: a variance of zero would not gain by growing."""
    problem, model = fitted(seed)
    rng = np.random.default_rng(seed)
    factor = factor_of(problem, model.theta_)
    data = data_of(problem)
    here = criterion_by_levels(None, *data, factor=factor)
    there = [
        criterion_by_levels(None, *data, factor=nearby)
        for nearby in neighbours(problem, factor, rng)
    ]
    # From several optima of which the lowest was found, long steps cannot lead lower either.
    assert min(there) >= here - GAIN


def derivatives(function, at, steps):
    """Gradient and Hessian by central differences of fourth order."""
    offsets, first = np.array([-2, -1, 1, 2]), np.array([1, -8, 8, -1]) / 12.0
    k = len(at)
    gradient, hessian = np.empty(k), np.empty((k, k))
    centre = function(at)
    for i in range(k):
        along = [function(at + o * steps * np.eye(k)[i]) for o in offsets]
        gradient[i] = first @ along / steps[i]
        second = np.array([-1, 16, 16, -1]) @ along - 30.0 * centre
        hessian[i, i] = second / 12.0 / steps[i] ** 2
        for j in range(i):
            both = [
                [function(at + steps * (a * np.eye(k)[i] + b * np.eye(k)[j])) for b in offsets]
                for a in offsets
            ]
            hessian[i, j] = hessian[j, i] = first @ both @ first / steps[i] / steps[j]
    return gradient, hessian


def is_regular(entry):
    """Few parameters of a full covariance, in units in which differences keep their digits."""
    full = entry["kind"].endswith("full") and len(entry["factor"]) <= 2
    return full and "scaled" not in entry["kind"] and "offset" not in entry["kind"]


REGULAR = [entry["seed"] for entry in STORED if is_regular(entry)]


@pytest.mark.parametrize("seed", some_of_every_family(REGULAR, len(FAMILIES)))
def test_a_regular_optimum_has_no_slope_and_positive_curvature(seed):
    problem, model = fitted(seed)
    if model.is_singular_:
        assert min(np.abs(np.diag(factor_of(problem, model.theta_)))) < 1e-6
        return
    # The objective changes with the logarithm of a large entry: steps in proportion.
    steps = 1e-3 * np.maximum(np.abs(model.theta_), 0.1)
    gradient, hessian = derivatives(
        lambda theta: -2.0 * model.log_likelihood(theta), model.theta_, steps
    )
    values, vectors = np.linalg.eigh(hessian)
    # Few levels leave valleys without curvature; they must have no slope either.
    flat = 1e-6 * values[-1]
    assert values[0] > -flat
    # Half the squared Newton decrement: what the criterion could still be lowered by.
    assert ((vectors.T @ gradient) ** 2 / np.maximum(values, flat)).sum() / 2.0 < GAIN
