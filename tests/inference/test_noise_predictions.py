"""Intervals of predictions beside residual structures, against dense algebra."""

import numpy as np
import pandas as pd
import pytest
from tests.reference.noise_cases import CASES, Case, dense, fit, fit_to, split

from mixedlearn import MixedLinearRegressor
from mixedlearn.inference import coefficient_table, prediction_intervals
from mixedlearn.residual import AR1, Unstructured

NAMES = [
    "ar1",
    "ar1 beside an intercept",
    "ar1 by arm",
    "compound symmetry",
    "unstructured",
    "strata beside an intercept",
    "ar1 and crossed factors",
    "ar1 and power, irregular, beside an intercept",
]


BESIDE = Case(Unstructured(time="visit", within="id"), "un", random=("site",))


def satterthwaite(variance, reference, parameters):
    """Degrees of freedom of variances that are functions of the parameters."""
    W = 2.0 * np.linalg.inv(reference.derivatives(parameters)[1])
    steps = 1e-4 * np.eye(len(parameters)) * np.maximum(np.abs(parameters), 0.1)
    gradient = np.array(
        [(variance(parameters + s) - variance(parameters - s)) / (2.0 * s.sum()) for s in steps]
    )
    here = variance(parameters)
    return 2.0 * here**2 / np.einsum("ar,ab,br->r", gradient, W, gradient)


def variance_of(both, n_fit, n_known, parameters):
    """Variances of the rows after the known ones, of which the first were those of the fit."""
    V, X = both.covariance(parameters), both.X
    n, m = n_known, n_fit
    C = np.linalg.inv(X[:m].T @ np.linalg.solve(V[:m, :m], X[:m]))
    weights = np.linalg.solve(V[:n, :n], V[:n, n:])
    rest = X[n:] - weights.T @ X[:n]
    return np.diag(V[n:, n:] - V[n:, :n] @ weights + rest @ C @ rest.T)


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("name", [*NAMES, "unstructured beside sites"])
def test_observations_have_the_degrees_of_freedom_of_their_variances(name):
    case = CASES.get(name, BESIDE)
    model, data = fit(case)
    level = data[data["id"] == "s3"]
    missing = next(own for own in "0123" if f"v{own}" not in set(level["visit"]))
    new = level.head(1).assign(visit=f"v{missing}", t=float(missing) + 0.9 * case.irregular, x=0.7)
    rows = pd.concat([new, new.assign(id="nobody", x=-0.4)], ignore_index=True)
    found = prediction_intervals(model, rows)
    mean, std = model.predict(rows, return_std=True)
    np.testing.assert_allclose(found["prediction"], mean, rtol=1e-12)
    np.testing.assert_allclose(found["std_error"], std, rtol=1e-12)
    reference, parameters = dense(case, model, data)
    both, _ = dense(case, model, pd.concat([data, rows], ignore_index=True).assign(y=0.0))
    n = len(data)
    expected = satterthwaite(lambda own: variance_of(both, n, n, own), reference, parameters)
    np.testing.assert_allclose(found["df"], expected, rtol=2e-4)
    if set(case.random) <= {"id"}:
        alone = prediction_intervals(model, rows, random_effects="none")
        np.testing.assert_allclose(alone["df"][1], expected[1], rtol=2e-4)


def test_rows_that_came_later_count():
    case = CASES["ar1 beside an intercept"]
    seen, later, unseen = split(case)
    model = fit_to(case, seen)
    reference, parameters = dense(case, model, seen)
    model.update_random_effects(later, later["y"])
    found = prediction_intervals(model, unseen)
    np.testing.assert_allclose(found["prediction"], model.predict(unseen), rtol=1e-12)
    n = len(seen) + len(later)
    both, _ = dense(case, model, pd.concat([seen, later, unseen], ignore_index=True))
    expected = satterthwaite(
        lambda own: variance_of(both, len(seen), n, own), reference, parameters
    )
    np.testing.assert_allclose(found["df"], expected, rtol=2e-4)


def test_means_of_known_levels_are_without_noise():
    case = CASES["ar1 beside an intercept"]
    model, data = fit(case)
    rows = data.head(2)
    found = prediction_intervals(model, rows, kind="mean")
    reference, parameters = dense(case, model, data)
    same = data["id"].to_numpy()[:, None] == rows["id"].to_numpy()
    both = rows["id"].to_numpy()[:, None] == rows["id"].to_numpy()

    def variance(own):
        (_, _, effect), V, X = own, reference.covariance(own), reference.X
        carried = effect * same
        weights = np.linalg.solve(V, carried)
        rest = X[:2] - weights.T @ X
        C = np.linalg.inv(X.T @ np.linalg.solve(V, X))
        return np.diag(effect * both - carried.T @ weights + rest @ C @ rest.T)

    np.testing.assert_allclose(found["std_error"], np.sqrt(variance(parameters)), rtol=1e-8)
    np.testing.assert_allclose(
        found["df"], satterthwaite(variance, reference, parameters), rtol=2e-4
    )


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger", "residual", "normal"])
def test_means_of_the_population_are_combinations_of_coefficients(ddf):
    model, data = fit(CASES["unstructured"])
    rows = data.head(1).assign(arm="a", x=0.0)
    found = prediction_intervals(model, rows, kind="mean", random_effects="none", ddf=ddf).iloc[0]
    own = coefficient_table(model, ddf=ddf).loc["intercept"]
    for column, other in (("std_error", "std_error"), ("df", "df"), ("prediction", "estimate")):
        assert found[column] == pytest.approx(own[other], rel=1e-9)


def test_labels_and_unknown_levels():
    _, data = fit(CASES["ar1"])
    model = MixedLinearRegressor(random_intercept=False, residual=AR1(time="t", within="id"))
    model.fit(data[["x", "t"]], data["y"], groups=data[["id"]])
    new = data[["x", "t"]].head(2).assign(t=9)
    with pytest.warns(match="predict received no groups, but the noise"):
        without = prediction_intervals(model, new)
    found = prediction_intervals(model, new, groups=data[["id"]].head(2))
    assert (found["prediction"] != without["prediction"]).all()
    strict = model.set_params(handle_unknown="error")
    with pytest.raises(ValueError, match="The level 'nobody' of 'id'"):
        prediction_intervals(strict, new, groups=pd.DataFrame({"id": ["nobody"] * 2}))
