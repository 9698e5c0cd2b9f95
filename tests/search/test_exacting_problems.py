"""Problems that cost digits: the criterion is that of the rows, and the best that is known.

At the fitted parameters the criterion is computed from the rows in eighty digits.
"""

import json
import warnings

import pandas as pd
import pytest

from mixedlearn import MixedLinearRegressor
from reference import FOLDER
from reference.exacting_problems import exacting_problem

STORED = json.loads((FOLDER / "exacting_problems.json").read_text())["problems"]
# What a criterion may be off from that of the rows, and may exceed the best that is known.
WRONG, WORSE = 1e-4, 1e-5


def fit(problem):
    X = pd.DataFrame(problem.X, columns=[f"x{j}" for j in range(problem.X.shape[1])])
    fixed = list(X)
    for name, codes in zip(problem.names, problem.codes, strict=True):
        X[name] = codes
    slopes = {
        name: [f"x{j}" for j in own]
        for name, own in zip(problem.names, problem.slopes, strict=True)
        if own
    }
    model = MixedLinearRegressor(
        groups=problem.names,
        fixed_effects=fixed,
        random_slopes=slopes or None,
        covariance=dict(zip(problem.names, problem.covariance, strict=True)),
        reml=problem.reml,
    )
    return model.fit(X, problem.y, sample_weight=problem.sample_weight)


def roots_of(problem, theta):
    """Lambda of every factor from theta: by columns, a variance for each effect, or one for all."""
    entries, roots = iter(theta.tolist()), []
    for own, covariance in zip(problem.slopes, problem.covariance, strict=True):
        q = len(own) + 1
        root = [[0.0] * q for _ in range(q)]
        if covariance == "scalar":
            value = next(entries)
            for j in range(q):
                root[j][j] = value
        else:
            for j in range(q):
                for i in range(j, q if covariance == "full" else j + 1):
                    root[i][j] = next(entries)
        roots.append(root)
    assert next(entries, None) is None
    return roots


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(entry["seed"], marks=[pytest.mark.slow] * (entry["seed"] % 12 > 2))
        for entry in STORED
    ],
)
def test_the_criterion_is_that_of_the_rows_and_the_best_known(seed):
    problem, entry = exacting_problem(seed), STORED[seed]
    assert problem.fingerprint() == entry["sha256"]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = fit(problem)
    exact, _ = problem.rows().criterion(roots_of(problem, model.theta_))
    assert not said
    assert model.converged_
    assert -2.0 * model.log_likelihood_ == pytest.approx(float(exact), abs=WRONG)
    assert exact <= entry["criterion"] + WORSE
