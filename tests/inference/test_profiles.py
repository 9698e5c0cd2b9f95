"""Profile likelihoods: closed forms, a brute-force likelihood, bounds, invariance."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq, minimize
from scipy.stats import chi2

from mixedlearn import MixedLinearRegressor
from mixedlearn.datasets import (
    load_dyestuff,
    load_dyestuff2,
    load_pastes,
    load_penicillin,
    load_sitka,
    load_sleepstudy,
)
from mixedlearn.exceptions import NoGroupsWarning
from mixedlearn.inference import confidence_intervals, profile_likelihood
from mixedlearn.inference._parameters import parameters
from mixedlearn.inference._profile_curve import interval_end
from mixedlearn.inference._profilers import SMALLEST_ANGLE, make_profiler

ROOT = np.sqrt(chi2.ppf(0.95, 1))


def sleepstudy(**changes):
    X, y = load_sleepstudy(return_X_y=True)
    arguments = {"groups": "Subject", "random_slopes": ["Days"], "reml": False, **changes}
    return MixedLinearRegressor(**arguments).fit(X, y)


def pastes(**changes):
    X, y = load_pastes(return_X_y=True)
    model = MixedLinearRegressor(
        groups=["batch", ("batch", "cask")], fixed_effects=[], reml=False, **changes
    )
    return model.fit(X, y)


def penicillin(**changes):
    X, y = load_penicillin(return_X_y=True)
    return MixedLinearRegressor(groups=["plate", "sample"], reml=False, **changes).fit(X, y)


def ends(model, name):
    (parameter,) = [own for own in parameters(model._fitted.model) if own.name == name]
    profiler = make_profiler(model._fitted.model, parameter, model._fitted.model.problem())
    return interval_end(profiler, -ROOT), interval_end(profiler, ROOT)


def names_of(model):
    return [parameter.name for parameter in parameters(model._fitted.model)]


def deviance(model, name, values, **how):
    return profile_likelihood(model, name, values=values, **how).table["deviance"].to_numpy()


def test_a_model_without_groups_has_the_profile_of_least_squares():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.standard_normal(30), "b": rng.standard_normal(30)})
    y = 1.0 + X["a"] + 2.0 * rng.standard_normal(30)
    with pytest.warns(NoGroupsWarning):
        model = MixedLinearRegressor(reml=False).fit(X, y)
    columns = np.column_stack([np.ones(30), X])
    coef, (square,), *_ = np.linalg.lstsq(columns, y, rcond=None)
    unscaled = np.linalg.inv(columns.T @ columns)[1, 1]
    values = coef[1] + np.array([-0.8, 0.1, 1.5])
    expected = 30 * np.log1p((values - coef[1]) ** 2 / (unscaled * square))
    np.testing.assert_allclose(deviance(model, "a", values), expected, rtol=1e-9)
    variance = square / 30
    values = np.sqrt(variance) * np.array([0.8, 1.3])
    ratio = variance / values**2
    expected = 30 * (ratio - 1.0 - np.log(ratio))
    np.testing.assert_allclose(deviance(model, "sd(noise)", values), expected, rtol=1e-9)


def small_problem(seed=9):
    """Unbalanced groups with a random slope, weights, rows in no order."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 9, 60)
    X = pd.DataFrame({"x": rng.uniform(2.0, 5.0, 60), "g": codes})
    slopes, levels = rng.standard_normal(9), 2.0 * rng.standard_normal(9)
    y = levels[codes] + slopes[codes] * X["x"].to_numpy() + rng.standard_normal(60)
    return X, y, rng.uniform(0.5, 2.0, 60)


def dense_deviance(X, y, weights, reml, coef, root, noise):
    """Minus twice the log-likelihood from the n x n covariance, nothing profiled out."""
    z = np.column_stack([np.ones(len(X)), X["x"]])
    same = X["g"].to_numpy()[:, None] == X["g"].to_numpy()
    covariance = (z @ root @ root.T @ z.T) * same + np.diag(noise**2 / weights)
    residual = y - z @ coef
    value = np.linalg.slogdet(2.0 * np.pi * covariance)[1]
    value += residual @ np.linalg.solve(covariance, residual)
    if reml:
        information = z.T @ np.linalg.solve(covariance, z)
        value += np.linalg.slogdet(information / (2.0 * np.pi))[1]
    return value


def held(name, value, free):
    """Coefficients, root of the covariance and noise with one parameter at a value."""
    a, b, s, t, angle, e = free
    s, t, e, correlation = np.exp(s), np.exp(t), np.exp(e), np.tanh(angle)
    if name == "x":
        b = value
    if name == "sd(intercept|g)":
        s = value
    if name == "sd(x|g)":
        t = value
    if name == "cor(intercept,x|g)":
        correlation = value
    if name == "sd(noise)":
        e = value
    root = np.array([[s, 0.0], [t * correlation, t * np.sqrt(1.0 - correlation**2)]])
    return np.array([a, b]), root, e


# Estimates are multiplied by these factors; correlations take them as they are.
HELD_AT = {
    "x": (0.5, 1.7),
    "sd(intercept|g)": (0.3, 1.6),
    "sd(x|g)": (0.5, 2.0),
    "cor(intercept,x|g)": (-0.9, 0.5),
    "sd(noise)": (0.8, 1.3),
}


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize(
    ("name", "reml"),
    [*((name, False) for name in HELD_AT), *((name, True) for name in [*HELD_AT][1:])],
)
def test_profiles_are_those_of_the_dense_likelihood(name, reml):
    factors = HELD_AT[name]
    X, y, weights = small_problem()
    model = MixedLinearRegressor(groups="g", random_slopes=["x"], reml=reml)
    model.fit(X, y, sample_weight=weights)
    covariance = model.covariances_["g"].to_numpy()
    deviations = np.sqrt(np.diag(covariance))
    correlation = covariance[0, 1] / deviations.prod()
    start = [model.intercept_, model.coef_[0], *np.log(deviations), np.arctanh(correlation)]
    start.append(0.5 * np.log(model.noise_variance_))
    estimates = [start[1], *deviations, correlation, np.sqrt(model.noise_variance_)]
    order = ["x", "sd(intercept|g)", "sd(x|g)", "cor(intercept,x|g)", "sd(noise)"]
    estimate = estimates[order.index(name)]
    values = np.array(factors) if name.startswith("cor") else estimate * np.array(factors)
    expected = []
    for value in values:
        objective = partial(_dense_at, X, y, weights, reml, name, value)
        found = minimize(objective, start, method="Nelder-Mead", options={"maxiter": 1500})
        for _ in range(3):
            found = minimize(objective, found.x, method="BFGS", options={"gtol": 1e-7})
        expected.append(found.fun + 2.0 * model.log_likelihood_)
    np.testing.assert_allclose(deviance(model, name, values, reml=reml), expected, atol=2e-6)


def _dense_at(X, y, weights, reml, name, value, free):
    return dense_deviance(X, y, weights, reml, *held(name, value, free))


MODELS = {
    "sleepstudy": sleepstudy,
    "diagonal": partial(sleepstudy, covariance="diagonal"),
    "scalar": partial(sleepstudy, covariance="scalar"),
    "penicillin": penicillin,
    "pastes": pastes,
}


@pytest.mark.slow_cases("penicillin", "pastes")
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_profile_is_zero_at_the_estimate_and_grows_on_each_side(make):
    model = make()
    for name in names_of(model):
        profile = profile_likelihood(model, name)
        assert deviance(model, name, [profile.estimate]) == pytest.approx(0.0, abs=1e-9)
        table = profile.table
        assert (np.diff(table["signed_root"]) > 0.0).all()
        distance = table["value"] - profile.estimate
        away = distance.abs() > 1e-9 * max(abs(profile.estimate), 1.0)
        np.testing.assert_array_less(0.0, (np.sign(distance) * table["signed_root"])[away])
        np.testing.assert_allclose(table["signed_root"] ** 2, table["deviance"], rtol=1e-12)
        np.testing.assert_allclose(
            table["deviance"], 2.0 * (model.log_likelihood_ - table["log_likelihood"]), atol=1e-7
        )


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_ends_of_intervals_are_where_the_profile_reaches_the_quantile(make):
    model = make()
    for name in names_of(model):
        lower, upper = ends(model, name)
        inner = [end for end in (lower, upper) if end != 0.0]
        np.testing.assert_allclose(deviance(model, name, inner), ROOT**2, rtol=1e-7)
        assert len(inner) == (1 if name == "sd(intercept|batch)" else 2)


@pytest.mark.slow
@pytest.mark.parametrize("make", [penicillin, pastes], ids=["penicillin", "pastes"])
def test_elimination_gives_the_same_profiles(make, use_engine):
    joint = make()
    expected = [ends(joint, name) for name in names_of(joint)]
    use_engine("elimination")
    eliminated = make()
    found = [ends(eliminated, name) for name in names_of(eliminated)]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_a_change_of_units_changes_nothing_else():
    X, y, _ = small_problem(3)
    arguments = {"groups": "g", "random_slopes": ["x"], "reml": False}
    model = MixedLinearRegressor(**arguments).fit(X, y)
    scaled = MixedLinearRegressor(**arguments).fit(X.assign(x=1e4 * X["x"]), 1e-3 * y)
    units = {"intercept": 1e-3, "x": 1e-7, "sd(intercept|g)": 1e-3, "sd(x|g)": 1e-7}
    units |= {"sd(noise)": 1e-3, "cor(intercept,x|g)": 1.0}
    for name in names_of(model):
        expected = np.multiply(ends(model, name), units[name])
        np.testing.assert_allclose(ends(scaled, name), expected, rtol=1e-6)


def test_on_the_scale_of_variances_the_values_are_squares():
    model = sleepstudy()
    values = np.array([4.0, 7.0])
    by_variance = profile_likelihood(model, "sd(Days|Subject)", values=values**2, scale="variance")
    np.testing.assert_allclose(
        by_variance.table["deviance"], deviance(model, "sd(Days|Subject)", values), rtol=1e-9
    )
    assert by_variance.estimate == pytest.approx(model.covariances_["Subject"].loc["Days", "Days"])
    np.testing.assert_array_equal(by_variance.table["value"], values**2)


def test_at_zero_the_profile_is_that_of_the_model_without_the_effect():
    model = sleepstudy()
    smaller = sleepstudy(random_slopes=None)
    expected = 2.0 * (model.log_likelihood_ - smaller.log_likelihood_)
    np.testing.assert_allclose(deviance(model, "sd(Days|Subject)", [0.0]), expected, rtol=1e-9)
    np.testing.assert_allclose(deviance(model, "sd(Days|Subject)", [1e-4]), expected, rtol=1e-4)
    without_intercepts = sleepstudy(random_intercept=False)
    expected = 2.0 * (model.log_likelihood_ - without_intercepts.log_likelihood_)
    np.testing.assert_allclose(deviance(model, "sd(intercept|Subject)", [0.0]), expected, rtol=1e-9)


def test_of_several_factors_one_goes_at_zero():
    model = pastes()
    X, y = load_pastes(return_X_y=True)
    smaller = MixedLinearRegressor(groups=[("batch", "cask")], fixed_effects=[], reml=False)
    expected = 2.0 * (model.log_likelihood_ - smaller.fit(X, y).log_likelihood_)
    np.testing.assert_allclose(deviance(model, "sd(intercept|batch)", [0.0]), expected, rtol=1e-9)
    lower, upper = ends(model, "sd(intercept|batch)")
    assert lower == 0.0 < upper


def test_a_variance_of_zero_has_a_one_sided_interval():
    X, y = load_dyestuff2(return_X_y=True)
    model = MixedLinearRegressor(groups="Batch", reml=False).fit(X, y)
    lower, upper = ends(model, "sd(intercept|Batch)")
    assert lower == 0.0
    # Balanced one-way data: minus twice the log-likelihood in closed form, given both variances.
    means = y.groupby(X["Batch"].to_numpy()).mean()
    between = 5.0 * ((means - means.mean()) ** 2).sum()
    within = ((y - y.mean()) ** 2).sum() - between

    def f(between_variance, noise):
        total = noise + 5.0 * between_variance
        return 24.0 * np.log(noise) + 6.0 * np.log(total) + within / noise + between / total

    def profile(deviation):
        found = minimize(lambda e: f(deviation**2, np.exp(e[0])), [2.6], options={"gtol": 1e-10})
        return found.fun - f(0.0, (within + between) / 30.0)

    assert upper == pytest.approx(brentq(lambda v: profile(v) - ROOT**2, 0.5, 5.0), rel=1e-6)


def perfectly_correlated(seed=3):
    """Slopes that are multiples of the intercepts."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(12), 6)
    X = pd.DataFrame({"x": np.tile(np.arange(6.0), 12), "g": codes})
    levels = 3.0 * rng.standard_normal(12)
    y = levels[codes] * (1.0 + 0.5 * X["x"]) + 3.0 * rng.standard_normal(72)
    return MixedLinearRegressor(groups="g", random_slopes=["x"], reml=False).fit(X, y)


def test_a_correlation_of_one_has_a_one_sided_interval():
    model = perfectly_correlated()
    assert model.is_singular_
    lower, upper = ends(model, "cor(intercept,x|g)")
    assert upper == 1.0
    assert 0.5 < lower < 1.0
    np.testing.assert_allclose(deviance(model, "cor(intercept,x|g)", [lower]), ROOT**2, rtol=1e-6)
    np.testing.assert_allclose(deviance(model, "cor(intercept,x|g)", [1.0]), 0.0, atol=1e-6)
    for name in names_of(model):
        lower, upper = ends(model, name)
        assert lower < profile_likelihood(model, name, values=[0.5]).estimate <= upper


@pytest.mark.slow
def test_at_an_end_a_correlation_has_the_profile_of_the_least_angle():
    # Three effects of which two would do: next to the end the profile falls with the angle.
    random = np.random.default_rng(0)
    X, groups = random.normal(size=(60, 2)), np.repeat(np.arange(12), 5)
    own, slopes = random.normal(size=(2, 12))
    y = 2.0 * X[:, 0] + own[groups] + slopes[groups] * X[:, 0] + random.normal(size=60)
    model = MixedLinearRegressor(random_slopes=[0, 1], reml=False).fit(X, y, groups=groups)
    least = np.cos(SMALLEST_ANGLE)
    for name in ("cor(intercept,x0|group)", "cor(x0,x1|group)"):
        profile = profile_likelihood(model, name, values=[-1.0, -least, least, 1.0])
        first, second, third, last = profile.table["deviance"]
        assert first == pytest.approx(second, abs=1e-8)
        assert last == pytest.approx(third, abs=1e-8)


def test_a_profile_of_a_model_fitted_by_reml_is_that_of_its_fit_by_ml():
    restricted, likelihood = sleepstudy(reml=True), sleepstudy()
    before = restricted.log_likelihood_
    for name in ("sd(Days|Subject)", "Days"):
        found = profile_likelihood(restricted, name, n_points=5)
        assert found.criterion == "ML"
        expected = profile_likelihood(likelihood, name, n_points=5).table
        # The root of a rounding error at the estimate is not small.
        pd.testing.assert_frame_equal(found.table, expected, rtol=1e-6, atol=2e-6)
    assert restricted.log_likelihood_ == before == restricted.log_likelihood()


def few_levels(seed, slopes):
    """Five to twelve levels, and effects that are nearly multiples of each other or vanish."""
    rng = np.random.default_rng(seed)
    m, n = int(rng.choice([5, 7, 12])), int(rng.choice([40, 70, 120]))
    codes, others, x = rng.integers(0, m, n), rng.integers(0, 5, n), rng.normal(size=n)
    x += rng.choice([0.0, 2.0])
    z, sizes = rng.normal(size=n), rng.choice([0.0, 0.1, 0.5, 1.5], 3)
    correlation = rng.choice([0.0, 0.95, -0.95])
    effects = rng.normal(size=(m, 3))
    rest = np.sqrt(1.0 - correlation**2) * effects[:, 1]
    effects[:, 1] = correlation * effects[:, 0] + rest
    own = (effects * sizes)[codes]
    y = 1.0 + 0.5 * x + own[:, 0] + own[:, 1] * x + own[:, 2] * z * ("z" in slopes)
    y += rng.choice([0.0, 0.6]) * rng.normal(size=5)[others] + rng.normal(size=n)
    X = pd.DataFrame({"x": x, "z": z, "g": codes})
    model = MixedLinearRegressor(groups="g", fixed_effects=["x"], random_slopes=slopes, reml=False)
    return model.fit(X, y)


@pytest.mark.parametrize(
    ("seed", "slopes", "name", "side"),
    [(30, ["x"], "sd(intercept|g)", "upper"), (13, ["x", "z"], "cor(x,z|g)", "lower")],
)
def test_an_end_is_one_of_the_lowest_optimum_of_the_others(seed, slopes, name, side):
    """With correlations of one the others have several optima; a path of small steps finds it."""
    model = few_levels(seed, slopes)
    row = confidence_intervals(model, method="profile", names=name).loc[name]
    path = np.linspace(row["estimate"], row[side], 15)
    assert deviance(model, name, path)[-1] == pytest.approx(chi2.ppf(0.95, 1), abs=1e-3)
    # Asked for alone, without a path, the value is the same.
    assert deviance(model, name, path[-1:])[0] == pytest.approx(chi2.ppf(0.95, 1), abs=1e-3)


def test_an_aliased_coefficient_leaves_the_profiles_of_others_as_they_are():
    X, y = load_sleepstudy(return_X_y=True)
    arguments = {"groups": "Subject", "random_slopes": ["Days"], "reml": False}
    X["order"] = np.arange(len(X)) % 7
    plain = MixedLinearRegressor(**arguments).fit(X, y)
    with pytest.warns(UserWarning, match="aliased"):
        model = MixedLinearRegressor(**arguments).fit(X.assign(again=2.0 * X["Days"] + 1.0), y)
    np.testing.assert_allclose(ends(model, "order"), ends(plain, "order"), rtol=1e-7)
    for name in ("Days", "again"):
        with pytest.raises(ValueError, match=rf"'{name}' cannot be estimated .*aliased"):
            profile_likelihood(model, name)


def test_sitka_curves_of_the_restricted_likelihood():
    X, y = load_sitka(return_X_y=True)
    arguments = {"groups": "tree", "fixed_effects": ["Time"], "random_slopes": ["Time"]}
    model = MixedLinearRegressor(**arguments).fit(X, y)
    profile = profile_likelihood(
        model, "sd(intercept|tree)", values=np.linspace(0.3, 1.5, 9), scale="variance", reml=True
    )
    assert profile.criterion == "REML"
    assert profile.estimate == pytest.approx(0.646457, abs=1e-6)
    lowest = profile.table["deviance"].idxmin()
    assert profile.table["value"][lowest] == pytest.approx(0.6)
    assert (np.diff(profile.table["deviance"][: lowest + 1]) < 0.0).all()
    assert (np.diff(profile.table["deviance"][lowest:]) > 0.0).all()


def test_the_profile_prints():
    X, y = load_dyestuff(return_X_y=True)
    model = MixedLinearRegressor(groups="Batch").fit(X, y)
    profile = profile_likelihood(model, "sd(noise)", values=[50.0], scale="variance")
    assert str(profile).startswith("Profile ML likelihood of the variance of sd(noise)")
    assert "<table" in profile._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parameter": "sd(days|Subject)"}, r"no parameter.*Did you mean 'sd\(Days\|Subject\)'"),
        ({"parameter": "Days", "reml": True}, "no profile over the fixed effect 'Days'"),
        ({"parameter": "Days", "scale": "variance"}, "'Days' is none"),
        ({"parameter": "Days", "scale": "log"}, "scale must be 'sd' or 'variance', got 'log'"),
        ({"parameter": "sd(noise)", "values": [-1.0]}, "lies between 0 and inf"),
        ({"parameter": "sd(noise)", "values": []}, "not empty"),
        ({"parameter": "cor(intercept,Days|Subject)", "values": [1.2]}, "between -1 and 1"),
    ],
)
def test_what_cannot_be_profiled_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        profile_likelihood(sleepstudy(), **arguments)


def test_other_objects_are_refused():
    with pytest.raises(TypeError, match=r"Expected a fitted MixedLinearRegressor, got str"):
        profile_likelihood("model", "Days")
