"""Confidence intervals: definitions, the delta method, agreement of the three methods, refusals."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, norm

from helpers.chance import normal_bound
from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.datasets import load_dyestuff, load_dyestuff2, load_penicillin, load_sleepstudy
from mixedlearn.exceptions import NoGroupsWarning
from mixedlearn.inference import (
    confidence_intervals,
    parametric_bootstrap,
    profile_likelihood,
    variance_table,
)

FORMULA = "Reaction ~ Days + (1 + Days | Subject)"


@pytest.fixture(scope="module")
def sleepstudy():
    return lmer(FORMULA, load_sleepstudy().frame)


def test_wald_intervals_of_fixed_effects_are_normal(sleepstudy):
    found = confidence_intervals(sleepstudy, ["Days", "intercept"], level=0.8)
    errors = np.sqrt(np.diag(sleepstudy.coef_covariance_))[::-1]
    estimates = np.array([sleepstudy.coef_[0], sleepstudy.intercept_])
    assert found.index.tolist() == ["Days", "intercept"]
    np.testing.assert_allclose(found["estimate"], estimates)
    np.testing.assert_allclose(found["upper"] - estimates, norm.ppf(0.9) * errors)
    np.testing.assert_allclose(estimates - found["lower"], norm.ppf(0.9) * errors)


def test_wald_intervals_of_deviations_are_symmetric_in_the_logarithm(sleepstudy):
    names = ["sd(intercept|Subject)", "sd(Days|Subject)", "sd(noise)"]
    found = confidence_intervals(sleepstudy, names)
    variances = variance_table(sleepstudy).set_index("effects").loc[["intercept", "Days", ""]]
    share = variances["std_error"] / (2.0 * variances["variance"])
    np.testing.assert_allclose(found["estimate"], variances["sd"])
    width = np.log(found["upper"] / found["estimate"])
    np.testing.assert_allclose(width, norm.ppf(0.975) * share, rtol=1e-8)
    np.testing.assert_allclose(np.log(found["estimate"] / found["lower"]), width)


def test_the_wald_interval_of_a_correlation_uses_the_curvature_of_its_profile():
    """In Fisher's z the profile deviance of many levels is nearly a parabola."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(3000), 6)
    X = pd.DataFrame({"x": np.tile(np.linspace(-1.0, 1.0, 6), 3000), "g": codes})
    effects = rng.standard_normal((3000, 2)) @ np.array([[1.0, 0.5], [0.0, 1.0]])
    y = (effects[codes] * np.column_stack([np.ones(len(X)), X["x"]])).sum(axis=1)
    y = y + 0.5 * rng.standard_normal(len(X))
    model = MixedLinearRegressor(groups="g", random_slopes=["x"], reml=False).fit(X, y)
    wald = confidence_intervals(model, method="wald")
    profile = confidence_intervals(model, method="profile")
    width = profile["upper"] - profile["lower"]
    for side in ("lower", "upper"):
        np.testing.assert_allclose(wald[side], profile[side], atol=0.02 * width.max())
    difference = (wald[["lower", "upper"]] - profile[["lower", "upper"]]).abs().max(axis=1)
    assert (difference < 0.02 * width).all()


def test_bootstrap_agrees_with_profile_on_a_large_sample():
    """With 400 levels both are normal but for terms of order one over the number of levels.

    An end of a percentile interval has the standard deviation of that percentile of 2,000 normal
    numbers, 3 % of the interval's half-width. Beside what chance does to the ends, a false alarm in
    one of 10,000 seeds, the two methods may differ by 3 % of the half-width.
    """
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(400), 5)
    X = pd.DataFrame({"x": rng.standard_normal(2000), "g": codes})
    y = 1.0 + X["x"] + 0.8 * rng.standard_normal(400)[codes] + rng.standard_normal(2000)
    model = MixedLinearRegressor(groups="g", reml=False).fit(X, y)
    profile = confidence_intervals(model, method="profile")
    bootstrap = confidence_intervals(
        model, method="bootstrap", X=X, n_resamples=2000, random_state=0
    )
    assert bootstrap.index.equals(profile.index)
    half = (profile["upper"] - profile["lower"]) / 2.0
    normal = norm.ppf(0.975)
    spread = np.sqrt(0.025 * 0.975 / 2000) / norm.pdf(normal) / normal
    bound = 0.03 + normal_bound(2 * len(half)) * spread
    for side in ("lower", "upper"):
        assert ((bootstrap[side] - profile[side]).abs() < bound * half).all()


def test_bootstrap_intervals_are_those_of_the_bootstrap(sleepstudy):
    frame = load_sleepstudy().frame
    found = confidence_intervals(
        sleepstudy, "Days", method="bootstrap", X=frame, n_resamples=60, random_state=3, level=0.9
    )
    bootstrap = parametric_bootstrap(sleepstudy, frame, n_resamples=60, random_state=3)
    expected = bootstrap.samples["Days"].quantile([0.05, 0.95])
    np.testing.assert_allclose(found.loc["Days", ["lower", "upper"]].astype(float), expected)


def test_profile_intervals_of_the_restricted_likelihood():
    X, y = load_dyestuff(return_X_y=True)
    model = MixedLinearRegressor(groups="Batch").fit(X, y)
    found = confidence_intervals(model, method="profile", reml=True)
    assert found.index.tolist() == ["sd(intercept|Batch)", "sd(noise)"]
    np.testing.assert_allclose(found["estimate"] ** 2, [1764.05, 2451.25], rtol=1e-9)
    for name in found.index:
        ends = found.loc[name, ["lower", "upper"]].to_numpy(float)
        deviance = profile_likelihood(model, name, values=ends, reml=True).table["deviance"]
        np.testing.assert_allclose(deviance, chi2.ppf(0.95, 1), rtol=1e-7)


def test_intervals_by_ml_are_those_of_the_model_refitted():
    X, y = load_penicillin(return_X_y=True)
    arguments = {"groups": ["plate", "sample"]}
    by_reml = confidence_intervals(MixedLinearRegressor(**arguments).fit(X, y), method="profile")
    by_ml = MixedLinearRegressor(**arguments, reml=False).fit(X, y)
    pd.testing.assert_frame_equal(
        by_reml, confidence_intervals(by_ml, method="profile"), rtol=1e-6, check_exact=False
    )


def test_at_the_boundary_profiles_have_ends_and_wald_has_none():
    model = lmer("Yield ~ 1 + (1 | Batch)", load_dyestuff2().frame)
    wald = confidence_intervals(model)
    assert wald.loc["sd(intercept|Batch)", ["lower", "upper"]].isna().all()
    assert wald.loc[["sd(noise)", "intercept"]].notna().all(axis=None)
    profile = confidence_intervals(model, method="profile")
    assert profile.loc["sd(intercept|Batch)", "lower"] == 0.0
    assert profile.notna().all(axis=None)


def test_models_without_random_effects_have_intervals():
    rng = np.random.default_rng(2)
    X = pd.DataFrame({"x": rng.standard_normal(40)})
    y = X["x"] + rng.standard_normal(40)
    with pytest.warns(NoGroupsWarning):
        model = MixedLinearRegressor(reml=False).fit(X, y)
    for method in ("wald", "profile"):
        found = confidence_intervals(model, method=method)
        assert found.index.tolist() == ["sd(noise)", "intercept", "x"]
        assert (found["lower"] < found["estimate"]).all()
        assert (found["estimate"] < found["upper"]).all()


def test_what_cannot_be_estimated_has_no_interval():
    frame = load_sleepstudy().frame
    frame["again"] = 2.0 * frame["Days"]
    with pytest.warns(UserWarning, match="aliased"):
        model = lmer("Reaction ~ Days + again + (1 | Subject)", frame)
    rows = {"X": frame, "n_resamples": 20, "random_state": 0}
    for method in ("wald", "profile", "bootstrap"):
        with pytest.warns(UserWarning, match="'again' cannot be estimated"):
            found = confidence_intervals(
                model, method=method, **(rows if method == "bootstrap" else {})
            )
        assert found.loc["again"].isna().all()
        assert found.drop(index="again").notna().all(axis=None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": "days"}, "no parameter 'days'.*Did you mean 'Days'"),
        ({"names": []}, "names is empty"),
        ({"method": "exact"}, "method must be 'wald', 'profile' or 'bootstrap', got 'exact'"),
        ({"level": 95}, "level must be a probability between 0 and 1, got 95"),
        ({"method": "bootstrap"}, "needs the rows of the fit: pass X="),
        ({"method": "profile", "X": [[1.0]]}, "X: for method='bootstrap' only, not for 'profile'"),
        ({"n_resamples": 10}, "n_resamples: for method='bootstrap' only, not for 'wald'"),
        ({"reml": True}, "reml=True is for method='profile'"),
        (
            {"method": "profile", "reml": True, "names": "Days"},
            "no profile over the fixed effect 'Days'",
        ),
    ],
)
def test_what_is_refused(sleepstudy, arguments, message):
    with pytest.raises(ValueError, match=message):
        confidence_intervals(sleepstudy, **arguments)
