"""Chains: the same likelihood, derivatives and inference as dense covariances of blocks."""

import warnings

import numpy as np
import pandas as pd
import pytest

from helpers.same_likelihood import assert_same, assert_same_rows, both
from mixedlearn import lmer
from mixedlearn.inference import coefficient_table
from mixedlearn.residual import AR1, ContinuousAR1, Power, Stratified


def make_data(n_series: int, n_times: int, seed: int = 0, *, irregular: bool = False):
    rng = np.random.default_rng(seed)
    shape = n_series, n_times
    times = np.tile(np.arange(n_times, dtype=float), (n_series, 1))
    if irregular:
        times += rng.uniform(0.0, 0.8, shape)
    noise = rng.standard_normal(shape)
    for k in range(1, n_times):
        phi = 0.6 ** (times[:, k] - times[:, k - 1])
        noise[:, k] = phi * noise[:, k - 1] + np.sqrt(1.0 - phi**2) * noise[:, k]
    x = rng.standard_normal(shape)
    series = np.repeat(np.arange(n_series), n_times)
    slope = 0.3 * rng.standard_normal((n_series, 1))
    data = pd.DataFrame(
        {
            "id": series,
            "site": series // 2,
            "arm": np.where(series % 2, "a", "b"),
            "t": times.ravel(),
            "x": x.ravel(),
            "size": rng.uniform(0.5, 2.0, shape).ravel(),
            "y": (0.3 * x + slope * x + rng.standard_normal((n_series, 1)) + noise).ravel(),
        }
    )
    return data.sample(frac=0.9, random_state=seed).reset_index(drop=True)


MODELS = {
    "without effects": ("y ~ x", "id", AR1(time="t"), False),
    "an intercept": ("y ~ x + (1 | id)", None, AR1(time="t"), False),
    "a slope": ("y ~ x + (x | id)", None, AR1(time="t"), False),
    "two terms of one factor": ("y ~ x + (1 | id) + (0 + x | id)", None, AR1(time="t"), False),
    "series within levels": ("y ~ x + (x | site)", "id", AR1(time="t", within="id"), False),
    "any times": ("y ~ x + (1 | id)", None, ContinuousAR1(time="t"), True),
    "strata": ("y ~ x + (1 | id)", None, AR1(time="t", variance=Stratified(by="arm")), False),
    "a power": (
        "y ~ x + (1 | id)",
        None,
        ContinuousAR1(time="t", variance=Power(of="size")),
        True,
    ),
    "by arm": ("y ~ x + (1 | id)", None, AR1(time="t", by="arm"), False),
    "strata alone": ("y ~ x + (x | id)", None, Stratified(by="arm"), False),
}


def fitted(name: str, data: pd.DataFrame, **parameters):
    formula, groups, residual, _ = MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lmer(formula, data, groups=groups, residual=residual, **parameters)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("n_series", [8, 60])
@pytest.mark.parametrize("name", MODELS)
def test_as_dense_blocks(name, n_series, reml):
    data = make_data(n_series, 6, irregular=MODELS[name][3])
    chains, blocks, point = both(fitted(name, data, reml=reml))
    rng = np.random.default_rng(1)
    point = chains.moved(point, 0.3 * rng.standard_normal(chains.parameters.n_parameters))
    assert_same(chains, blocks, point)


@pytest.mark.parametrize("name", ["an intercept", "a power", "by arm"])
def test_rows_in_the_metric_of_the_noise(name):
    data = make_data(8, 6, irregular=MODELS[name][3])
    chains, blocks, point = both(fitted(name, data))
    assert_same_rows(chains, blocks, point)


def test_series_of_any_length():
    # Dense covariances of 40,000 rows would take 13 GB each.
    data = make_data(2, 40_000)
    model = lmer("y ~ x * C(id)", data, groups="id", residual="ar1", time="t")
    assert model.converged_
    assert model.residual_parameters_["correlation"] == pytest.approx(0.6, abs=0.02)
    table = coefficient_table(model, ddf="kenward-roger")
    assert table.loc["x", "df"] > 1e4
    later = pd.DataFrame({"id": [0, 1], "t": [50_000.0, 50_000.0], "x": [0.0, 0.0]})
    np.testing.assert_allclose(
        model.predict(later), model.predict(later, random_effects="none"), atol=1e-10
    )


def test_forecasts_rest_on_the_rows_next_in_time():
    data = make_data(6, 12, irregular=True)
    model = lmer("y ~ x + (1 | id)", data, residual=ContinuousAR1(time="t"))
    rng = np.random.default_rng(0)
    new = pd.DataFrame({"id": rng.integers(0, 6, 200), "t": rng.uniform(-2.0, 14.0, 200), "x": 0.5})
    mean, deviation = model.predict(new, return_std=True)
    rho = model.residual_parameters_["correlation"]
    noise, effect = model.noise_variance_, model.covariances_["id"].to_numpy()[0, 0]
    X = np.column_stack([np.ones(len(data)), data["x"]])

    def covariance(one, other):
        same = np.equal.outer(one["id"].to_numpy(), other["id"].to_numpy())
        gaps = np.abs(np.subtract.outer(one["t"].to_numpy(), other["t"].to_numpy()))
        return np.where(same, effect + noise * rho**gaps, 0.0)

    inverse = np.linalg.inv(covariance(data, data))
    gram = X.T @ inverse @ X
    coef = np.linalg.solve(gram, X.T @ inverse @ data["y"])
    across = covariance(new, data) @ inverse
    x_new = np.column_stack([np.ones(len(new)), new["x"]])
    np.testing.assert_allclose(mean, x_new @ coef + across @ (data["y"] - X @ coef), rtol=1e-7)
    left = x_new - across @ X
    variance = noise + effect - np.einsum("ij,ij->i", across, covariance(new, data))
    variance += np.einsum("ij,jk,ik->i", left, np.linalg.inv(gram), left)
    np.testing.assert_allclose(deviation, np.sqrt(variance), rtol=1e-6)


def test_digits_that_products_lose_are_kept():
    data = make_data(20, 8)
    small = data.assign(y=1e6 * (data["id"] % 7) + data["y"])
    model = lmer("y ~ x + (1 | id)", small, residual=AR1(time="t"))
    assert model.converged_
    within = lmer("y ~ x + C(id)", data, groups="id", residual=AR1(time="t"))
    assert model.noise_variance_ == pytest.approx(within.noise_variance_, rel=1e-5)


@pytest.mark.parametrize("formula", ["y ~ x + (1 | id)", "y ~ x + t + (t | id)"])
def test_levels_that_look_alike_are_pooled(formula):
    data = make_data(1_000, 5)
    data = data.groupby("id").head(4).sort_values(["id", "t"])
    data["t"] = data.groupby("id").cumcount()
    model = lmer(formula, data, residual=AR1(time="t"))
    chains, blocks, point = both(model)
    assert len(chains.likelihood.side.pooled().multiplicity) < data["id"].nunique() / 2
    point = chains.moved(point, np.full(chains.parameters.n_parameters, 0.1))
    assert_same(chains, blocks, point)
