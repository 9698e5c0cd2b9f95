"""Residual structures: likelihood, optimum, inference and predictions against dense algebra."""

import numpy as np
import pandas as pd
import pytest
from tests.reference.noise_cases import CASES, dense, fit, make_data

from mixedlearn import MixedLinearRegressor
from mixedlearn.inference import coefficient_covariance, coefficient_table
from mixedlearn.residual import (
    AR1,
    ContinuousAR1,
)


@pytest.mark.slow_cases(every=8)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("reml", [True, False])
def test_the_fit_is_an_optimum_of_the_dense_likelihood(name, reml):
    case = CASES[name]
    model, data = fit(case, reml=reml)
    reference, parameters = dense(case, model, data)
    objective, coef, covariance = reference.solve(parameters)
    assert model.converged_
    np.testing.assert_allclose(-2.0 * model.log_likelihood_, objective, rtol=1e-11)
    np.testing.assert_allclose(np.append(model.intercept_, model.coef_), coef, rtol=1e-9)
    np.testing.assert_allclose(model.coef_covariance_, covariance, rtol=1e-8, atol=1e-12)
    gradient, _ = reference.derivatives(parameters)
    np.testing.assert_allclose(gradient * parameters, 0.0, atol=2e-4)


@pytest.mark.slow_cases(every=6)
@pytest.mark.parametrize("name", [name for name in CASES if name != "unstructured by arm"])
def test_kenward_roger_and_satterthwaite_are_those_of_dense_algebra(name):
    case = CASES[name]
    model, data = fit(case)
    reference, parameters = dense(case, model, data)
    adjusted, df = reference.kenward_roger(parameters)
    table = coefficient_table(model, ddf="kenward-roger")
    np.testing.assert_allclose(
        coefficient_covariance(model, "kenward-roger"), adjusted, rtol=1e-4, atol=1e-7
    )
    np.testing.assert_allclose(table["df"], df, rtol=1e-4)
    np.testing.assert_allclose(coefficient_table(model)["df"], df, rtol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_predictions_condition_on_the_rows_of_the_level(name):
    case = CASES[name]
    model, data = fit(case)
    level = data[data["id"] == "s3"]
    missing = next(own for own in "0123" if f"v{own}" not in set(level["visit"]))
    new = level.head(1).assign(visit=f"v{missing}", t=float(missing) + 0.9 * case.irregular, x=0.7)
    both = pd.concat([data, new], ignore_index=True)
    reference, parameters = dense(case, model, both.assign(y=0.0))
    V = reference.covariance(parameters)
    X, y, n = reference.X, data["y"].to_numpy(), len(data)
    inverse = np.linalg.inv(V[:n, :n])
    C = np.linalg.inv(X[:n].T @ inverse @ X[:n])
    coef = C @ X[:n].T @ inverse @ y
    weights = inverse @ V[:n, n]
    expected = X[n] @ coef + weights @ (y - X[:n] @ coef)
    rest = X[n] - weights @ X[:n]
    variance = V[n, n] - weights @ V[:n, n] + rest @ C @ rest
    mean, std = model.predict(new, return_std=True)
    np.testing.assert_allclose(mean, [expected], rtol=1e-8)
    np.testing.assert_allclose(std, [np.sqrt(variance)], rtol=1e-8)
    population = model.predict(new, random_effects="none")
    np.testing.assert_allclose(population, [X[n] @ coef], rtol=1e-8)


@pytest.mark.parametrize(
    ("kind", "gap"),
    [(AR1, own) for own in (30, 365, 86_400)] + [(ContinuousAR1, own) for own in (1e-3, 30, 1e6)],
)
def test_the_unit_of_time_changes_the_correlation_alone(kind, gap):
    data = make_data(1)
    data["t"] = data["t"].astype(int)
    models = [
        MixedLinearRegressor(formula="x + arm", groups="id", residual=kind(time="t")).fit(
            own, own.y
        )
        for own in (data, data.assign(t=data["t"] * gap))
    ]
    first, second = (own.residual_parameters_["correlation"] for own in models)
    assert models[1].converged_
    np.testing.assert_allclose(models[1].log_likelihood_, models[0].log_likelihood_, rtol=1e-10)
    np.testing.assert_allclose(second, first ** (1.0 / gap), rtol=1e-5)
    new = data.head(3).assign(t=7)
    np.testing.assert_allclose(
        models[1].predict(new.assign(t=7 * gap)), models[0].predict(new), rtol=1e-5
    )


def test_times_that_are_nearly_the_same_do_not_spoil_the_start():
    data = make_data(2, irregular=True)
    rng = np.random.default_rng(0)
    data["y"] = rng.standard_normal(len(data))
    close = data.drop_duplicates("id").head(3)
    data = pd.concat(
        [data, close.assign(t=close["t"] + 0.002, y=0.5 * close["y"])], ignore_index=True
    )
    model = MixedLinearRegressor(formula="x", groups="id", residual=ContinuousAR1(time="t"))
    model.fit(data, data["y"])
    assert model.converged_
