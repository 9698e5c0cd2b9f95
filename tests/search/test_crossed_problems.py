"""The crossed problems: the best optimum known is found and certified, and what it says is true.

The certificate is not taken on trust: the criterion, the fixed and random effects and the
predictions are computed from the rows by brute force at the fitted covariances.
"""

import functools
import json
import warnings

import numpy as np
import pandas as pd
import pytest

from helpers.selection import some_of_every_family
from mixedlearn import MixedLinearRegressor
from mixedlearn.exceptions import DegenerateModelWarning
from reference import FOLDER
from reference.brute_force_several import criterion, gradient, solve
from reference.crossed_problems import FAMILIES, crossed_problem

STORED = json.loads((FOLDER / "crossed_problems.json").read_text())["problems"]
SEEDS = range(len(STORED))


def some(seeds):
    return some_of_every_family(seeds, len(FAMILIES))


# What a criterion may exceed the best known one by, and be off from the one of the rows.
WORSE = 1e-6
# Two computations of the same fit.
SAME = 1e-8


def frames(problem):
    """The covariates and the group columns."""
    names = [f"x{j}" for j in range(problem.X.shape[1])]
    return pd.DataFrame(problem.X, columns=names), pd.DataFrame(problem.groups)


def fit(problem, *, beside=False):
    """Group columns in X or, with ``beside``, beside it."""
    covariates, groups = frames(problem)
    names = list(covariates.columns)
    model = MixedLinearRegressor(
        groups=None if beside else list(groups.columns),
        fixed_effects=[names[j] for j in problem.fixed_effects],
        random_intercept=problem.random_intercept,
        random_slopes={
            name: [names[j] for j in slopes] for name, slopes in problem.slopes.items() if slopes
        },
        covariance=problem.covariance,
        fit_intercept=problem.fit_intercept,
        reml=problem.reml,
    )
    X = covariates if beside else pd.concat([groups, covariates], axis=1)
    passed = {"groups": groups} if beside else {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if not problem.is_identified:  # it may be said, in so many words
            warnings.simplefilter("ignore", DegenerateModelWarning)
        model.fit(X, problem.y, sample_weight=problem.sample_weight, **passed)
    return model


@functools.cache
def fitted(seed):
    problem = crossed_problem(seed)
    return problem, fit(problem)


def relative_covariances(problem, model):
    """D of every factor."""
    return [model.covariances_[name].to_numpy() / model.noise_variance_ for name in problem.groups]


def rounding(Ds, data):
    """What the rounding of the entries of D does to the criterion, to first order.

    D is in the units of the data, where a covariate far from zero makes the variance of the
    intercept huge and the digits of what is left of it, at the covariate's mean, few.
    """
    slopes = gradient(Ds, *data)
    change = sum(np.sum(np.abs(G * D)) for G, D in zip(slopes, Ds, strict=True))
    return 8.0 * np.finfo(float).eps * float(change)


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("seed", some(SEEDS))
def test_the_best_optimum_is_found_and_certified(seed):
    entry = STORED[seed]
    assert entry["seed"] == seed
    problem, model = fitted(seed)
    assert problem.fingerprint() == entry["sha256"]
    assert model.converged_
    found = -2.0 * model.log_likelihood_
    assert found <= entry["criterion"] + WORSE
    if found < entry["criterion"] - WORSE:
        exact = criterion(relative_covariances(problem, model), *problem.data())
        if exact < entry["criterion"] - WORSE:
            pytest.fail(
                f"The fit beats the reference by {entry['criterion'] - exact:.3g}, which brute "
                "force confirms: improve the search in brute_force_several.best_fit and run "
                "make_crossed_references.py again."
            )
        pytest.fail(f"The criterion {found} is below the {exact} of the rows.")


@pytest.mark.parametrize("seed", some(SEEDS))
def test_the_criterion_is_that_of_the_rows(seed):
    problem, model = fitted(seed)
    Ds = relative_covariances(problem, model)
    for name, D in zip(problem.groups, Ds, strict=True):
        assert np.linalg.eigvalsh(D)[0] >= -1e-12 * np.abs(D).max()
        if problem.covariance[name] != "full":
            np.testing.assert_array_equal(D, np.diag(np.diag(D)))
        if problem.covariance[name] == "scalar":
            assert np.ptp(np.diag(D)) <= 1e-12 * D[0, 0]
    exact = criterion(Ds, *problem.data())
    found = -2.0 * model.log_likelihood_
    assert found == pytest.approx(exact, abs=WORSE + rounding(Ds, problem.data()))
    # Computed twice, along two roundings of theta.
    assert -2.0 * model.log_likelihood(model.theta_) == pytest.approx(found, abs=WORSE)


def close(found, expected, relative, scale=None):
    """Equal up to a share of the largest entry."""
    scale = np.abs(expected).max(initial=0.0) if scale is None else scale
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=relative * max(scale, 1e-300))


def is_tame(entry):
    """D in the units of the data keeps its digits, and says everything about the fit."""
    kind = entry["kind"]
    return not any(word in kind for word in ("not identified", "scaled", "offset"))


TAME = [entry["seed"] for entry in STORED if is_tame(entry)]


@pytest.mark.parametrize("seed", some(TAME))
def test_effects_are_those_of_the_rows(seed):
    problem, model = fitted(seed)
    expected = solve(relative_covariances(problem, model), *problem.data())
    assert model.noise_variance_ == pytest.approx(expected.s2, rel=1e-6)
    spread = problem.y.std()
    beta = np.append(model.intercept_ if problem.fit_intercept else [], model.coef_)
    close(beta, expected.beta, 1e-6, max(spread, np.abs(expected.beta).max(initial=0.0)))
    close(model.coef_covariance_.to_numpy(), expected.beta_covariance, 1e-6)
    for k, (name, labels) in enumerate(problem.groups.items()):
        blups = model.random_effects_[name]
        levels = np.unique(labels)  # the order of the codes of brute force
        place = blups.index.get_indexer(levels)
        assert sorted(place) == list(range(len(levels)))
        close(blups.to_numpy()[place], expected.blups[k], 1e-6, spread)
        covariances = np.asarray(model.random_effects_covariances_[name])[place]
        variances = model.covariances_[name].to_numpy()
        for level in range(len(levels)):
            at = expected.at(k, level)
            conditional = expected.conditional_covariance[np.ix_(at, at)]
            close(covariances[level], conditional, 1e-6, np.abs(variances).max())


@pytest.mark.parametrize("seed", some(TAME[::3]))
def test_predictions_are_those_of_the_rows(seed):
    """Of rows with all levels known, with one unknown, with all unknown; levels newly combined."""
    problem, model = fitted(seed)
    expected = solve(relative_covariances(problem, model), *problem.data())
    X, Zs, codes = problem.matrices()
    covariates, groups = frames(problem)
    n_new = 6
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(problem.y), size=n_new)
    new, levels = {}, []
    for k, (name, labels) in enumerate(problem.groups.items()):
        drawn = rng.integers(len(labels), size=n_new)
        known = (np.arange(n_new) < 3) | ((np.arange(n_new) < 5) & (k != seed % len(Zs)))
        unknown = np.array("elsewhere" if labels.dtype.kind == "U" else -1, dtype=object)
        new[name] = np.where(known, labels[drawn].astype(object), unknown)
        new[name] = pd.Series(new[name].tolist(), dtype=groups[name].dtype)
        chosen = zip(codes[k][drawn], known, strict=True)
        levels.append([int(code) if there else None for code, there in chosen])
    columns = covariates.iloc[rows].reset_index(drop=True)
    frame = pd.concat([pd.DataFrame(new), columns], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean, std = model.predict(frame, return_std=True)
    for i, row in enumerate(rows):
        known = [level[i] for level in levels]
        centre, variance = expected.predict(X[row], [Z[row] for Z in Zs], known)
        assert mean[i] == pytest.approx(centre, abs=1e-6 * (abs(centre) + problem.y.std()))
        assert std[i] == pytest.approx(np.sqrt(variance), rel=1e-6)


@pytest.mark.parametrize(
    "seed", some([seed for seed in SEEDS if crossed_problem(seed).X.size][::9])
)
def test_groups_beside_the_columns_are_the_same_model(seed):
    problem, model = fitted(seed)
    again = fit(problem, beside=True)
    assert again.converged_
    assert again.log_likelihood_ == pytest.approx(model.log_likelihood_, abs=SAME)
    assert list(again.covariances_) == list(problem.groups)
