"""Intervals and profiles of parameters of residual structures: nlme, and dense algebra."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.stats import chi2

from mixedlearn import lmer
from mixedlearn.datasets import load_bodyweight, load_orthodont, load_ovary
from mixedlearn.inference import confidence_intervals, profile_likelihood, variance_table
from mixedlearn.residual import (
    AR1,
    CompoundSymmetry,
    ContinuousAR1,
    Power,
    Stratified,
    Unstructured,
)

FOLDER = Path(__file__).parent.parent / "reference"
REFERENCE = json.loads((FOLDER / "noise_intervals.json").read_text(encoding="utf-8"))
WAVES = "follicles ~ np.sin(2 * np.pi * Time) + np.cos(2 * np.pi * Time)"
GROWTH = "distance ~ age * Sex"
CUT = chi2.ppf(0.95, 1)


def ovary(reml: bool):
    return lmer(f"{WAVES} + (1 | Mare)", load_ovary().frame, residual=AR1(time="Day"), reml=reml)


def ends(table: pd.DataFrame, name: str, power: float = 1.0) -> np.ndarray:
    return table.loc[name, ["lower", "upper"]].to_numpy(float) ** power


def expected(part: dict, number: int = 0) -> np.ndarray:
    found = [part[side] for side in ("lower", "upper")]
    return np.array([list(own.values() if isinstance(own, dict) else own)[number] for own in found])


def test_wald_of_ar1_beside_an_intercept():
    table, own = confidence_intervals(ovary(reml=False)), REFERENCE["ovary_lme"]
    # nlme takes second derivatives by differences, of about four digits.
    close = {"rtol": 2e-4}
    np.testing.assert_allclose(ends(table, "correlation"), expected(own["correlation"]), **close)
    np.testing.assert_allclose(
        ends(table, "sd(intercept|Mare)"), expected(own["deviation"]), **close
    )
    np.testing.assert_allclose(ends(table, "sd(noise)"), np.array(own["sigma"])[[0, 2]], **close)


def test_wald_of_ar1_by_reml():
    model = lmer(WAVES, load_ovary().frame, residual=AR1(time="Day"), groups="Mare")
    table, own = confidence_intervals(model), REFERENCE["ovary_gls"]
    np.testing.assert_allclose(ends(table, "correlation"), expected(own["correlation"]), rtol=2e-4)


def test_wald_of_strata():
    data = load_orthodont().frame
    model = lmer(f"{GROWTH} + (1 | Subject)", data, residual=Stratified(by="Sex"))
    table, own = confidence_intervals(model), REFERENCE["orthodont_strata"]
    # The reference here is the first value in the order of the alphabet, in R boys.
    ratio = np.sort(1.0 / ends(table, "variance ratio of Sex 'Male'", 0.5))
    np.testing.assert_allclose(ratio, expected(own["variance"]), rtol=1e-3)
    np.testing.assert_allclose(
        ends(table, "sd(intercept|Subject)"), expected(own["deviation"]), rtol=1e-3
    )


def test_wald_of_an_unrestricted_covariance():
    model = lmer(
        GROWTH, load_orthodont().frame, groups="Subject", residual=Unstructured(time="age")
    )
    table, own = confidence_intervals(model), REFERENCE["orthodont_symmetric"]
    assert "sd(noise)" not in table.index
    np.testing.assert_allclose(
        ends(table, "variance of 8", 0.5), np.array(own["sigma"])[[0, 2]], rtol=1e-3
    )
    pairs = ["8 and 10", "8 and 12", "8 and 14", "10 and 12", "10 and 14", "12 and 14"]
    for number, pair in enumerate(pairs):
        np.testing.assert_allclose(
            ends(table, f"correlation of {pair}"), expected(own["correlation"], number), atol=5e-4
        )


def test_wald_of_a_power():
    residual = CompoundSymmetry(variance=Power(of="age"))
    model = lmer(GROWTH, load_orthodont().frame, groups="Subject", residual=residual, reml=False)
    table, own = confidence_intervals(model), REFERENCE["orthodont_power"]
    np.testing.assert_allclose(ends(table, "power of age"), own, atol=2e-4)


def test_wald_of_a_correlation_in_other_units():
    residual = ContinuousAR1(time="Time")
    data = load_bodyweight().frame
    model = lmer("weight ~ Time * Diet", data, groups="Rat", residual=residual, reml=False)
    np.testing.assert_allclose(
        1.0 - ends(confidence_intervals(model), "correlation"),
        1.0 - expected(REFERENCE["bodyweight_continuous"]["correlation"]),
        rtol=5e-3,
    )


def test_profile_is_that_of_correlations_held():
    own = REFERENCE["ovary_profile"]
    profile = profile_likelihood(ovary(reml=True), "correlation", values=own["value"])
    np.testing.assert_allclose(-2.0 * profile.table["log_likelihood"], own["criterion"], atol=2e-6)


def small_data() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n, t = 14, 4
    root = np.linalg.cholesky(0.6 ** np.abs(np.subtract.outer(np.arange(t), np.arange(t))))
    noise = rng.standard_normal((n, t)) @ root.T * np.array([1.0, 1.3, 0.8, 1.1])
    x = rng.standard_normal((n, t))
    y = 2.0 + 0.5 * x + rng.standard_normal((n, 1)) + noise
    table = pd.DataFrame({"id": np.repeat(np.arange(n), t), "t": np.tile(np.arange(t), n)})
    return table.assign(x=x.ravel(), y=y.ravel()).sample(frac=0.9, random_state=1)


def lowest(data, covariance, start, held, value):
    """The lowest deviance where one parameter has a value; the last two are the coefficients.

    From parameters of any kind to covariances of every level, among them their own constraints.
    """
    levels = [own for _, own in data.groupby("id")]
    rows = [np.column_stack([np.ones(len(own)), own["x"]]) for own in levels]
    responses = [own["y"].to_numpy() for own in levels]
    times = [own["t"].to_numpy() for own in levels]
    free = [k for k in range(len(start)) if k != held]

    def deviance(found):
        parameters = np.array(start, dtype=float)
        parameters[free] = found
        parameters[held] = value
        total = 0.0
        for X, y, t in zip(rows, responses, times, strict=True):
            V = covariance(parameters[:-2])[np.ix_(t, t)]
            try:
                root = np.linalg.cholesky(V)
            except np.linalg.LinAlgError:
                return 1e10
            left = np.linalg.solve(root, y - X @ parameters[-2:])
            total += 2.0 * np.log(np.diag(root)).sum() + left @ left + len(y) * np.log(2 * np.pi)
        return total

    found = np.array(start, dtype=float)[free]
    for _ in range(2):
        found = minimize(deviance, found, method="Nelder-Mead", options={"maxiter": 4000}).x
        found = minimize(deviance, found, method="BFGS").x
    return deviance(found)


TIMES = np.arange(4)
DISTANCES = np.abs(np.subtract.outer(TIMES, TIMES))


def ar1_beside_an_intercept(parameters):
    return parameters[0] ** 2 + parameters[1] ** 2 * np.clip(parameters[2], -1, 1) ** DISTANCES


def heterogeneous_ar1(parameters):
    sizes = parameters[0] * np.sqrt(np.abs(np.append(1.0, parameters[1:4])))
    return np.outer(sizes, sizes) * np.clip(parameters[4], -1, 1) ** DISTANCES


@pytest.mark.slow
@pytest.mark.parametrize(
    ("formula", "residual", "covariance"),
    [
        ("y ~ x + (1 | id)", AR1(time="t"), ar1_beside_an_intercept),
        ("y ~ x", AR1(time="t", variance="heterogeneous"), heterogeneous_ar1),
    ],
    ids=["ar1 beside an intercept", "heterogeneous ar1"],
)
def test_ends_of_profiles_by_dense_algebra(formula, residual, covariance):
    data = small_data()
    groups = None if "|" in formula else "id"
    model = lmer(formula, data, residual=residual, reml=False, groups=groups)
    table = confidence_intervals(model, method="profile")
    best = -2.0 * model.log_likelihood_
    start = table["estimate"].to_numpy()
    for held, name in enumerate(table.index):
        for side in ("lower", "upper"):
            value = table.loc[name, side]
            if np.isfinite(value) and value not in (0.0, 1.0, -1.0):
                rise = lowest(data, covariance, start, held, value) - best
                np.testing.assert_allclose(rise, CUT, atol=2e-3, err_msg=f"{name} {side}")


@pytest.mark.slow
def test_ends_of_profiles_of_an_unrestricted_covariance():
    data = small_data()
    model = lmer("y ~ x", data, residual=Unstructured(time="t"), groups="id", reml=False)
    names = ["variance of 1", "correlation of 1 and 2", "x"]
    table = confidence_intervals(model, names, method="profile")
    best = -2.0 * model.log_likelihood_
    first, second = np.tril_indices(4, -1)

    def covariance(parameters):
        R = np.eye(4)
        R[first, second] = R[second, first] = parameters[4:]
        sizes = np.sqrt(np.abs(parameters[:4]))
        return np.outer(sizes, sizes) * R

    start = confidence_intervals(model)["estimate"]
    for name in names:
        for side in ("lower", "upper"):
            held = list(start.index).index(name)
            rise = lowest(data, covariance, start.to_numpy(), held, table.loc[name, side]) - best
            np.testing.assert_allclose(rise, CUT, atol=5e-3, err_msg=f"{name} {side}")


def test_profile_with_a_variance_of_zero():
    data = load_ovary().frame
    # An AR(1) takes most of what an intercept adds to levels of few rows.
    few = data[data["Day"] <= 4]
    model = lmer("follicles ~ 1 + (1 | Mare)", few, residual=AR1(time="Day"), reml=False)
    table = confidence_intervals(model, ["sd(intercept|Mare)"], method="profile")
    assert table.loc["sd(intercept|Mare)", "lower"] == 0.0


def test_standard_errors_agree_with_wald_intervals():
    model = ovary(reml=True)
    table = variance_table(model)
    wald = confidence_intervals(model)
    # Of a logarithm of a deviation: half that of the variance, as a share of it.
    margins = wald.loc[["sd(intercept|Mare)", "sd(noise)"], ["lower", "upper"]]
    margins = np.log(margins["upper"] / margins["lower"]).to_numpy()
    share = table["std_error"].to_numpy() / (2.0 * table["variance"].to_numpy())
    np.testing.assert_allclose(share, margins / (2.0 * 1.959963984540054), rtol=1e-6)
    assert "std_error" in str(model.summary(std_error=True)).split("Residual structure")[1]
