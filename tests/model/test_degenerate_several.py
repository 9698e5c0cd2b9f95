"""Degenerate but legal models of several factors: fitted, flagged, right where that is known.

Tolerances: 1e-8 where the answer is that of ordinary least squares or exact; 1e-4 for estimates of
two fits that stop where the criterion promises no more than 1e-8 (it is quadratic at its minimum).
"""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.exceptions import DegenerateModelWarning
from reference.dense import Dense

CRITERION = 2e-8
ESTIMATES = 1e-4
# Every test here runs with both engines for several factors.
pytestmark = pytest.mark.usefixtures("engine")
# Two factors of 4 and 5 levels, every pair of levels three times: 60 rows, all balanced.
PAIRS = np.array(list(itertools.product(range(4), range(5), range(3))))
A, B = PAIRS[:, 0], PAIRS[:, 1]
N = len(PAIRS)
RNG = np.random.default_rng(0)
X = pd.DataFrame({"x": RNG.normal(size=N), "z": 2.0 + RNG.normal(size=N), "a": A, "b": B})
NOISE = RNG.normal(size=N)
EFFECTS_A = np.array([0.0, 2.0, -1.0, 3.0])
EFFECTS_B = np.array([1.0, -2.0, 0.5, 4.0, 0.0])


def fit(X, y, sample_weight=None, **parameters):
    parameters = {"groups": ["a", "b"], "fixed_effects": ["x"]} | parameters
    return MixedLinearRegressor(**parameters).fit(X, y, sample_weight=sample_weight)


def fit_with_warnings(matches, *args, **parameters):
    """The fit, which must raise a DegenerateModelWarning for each match, and no other warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = fit(*args, **parameters)
    messages = [str(warning.message) for warning in caught]
    assert [warning.category for warning in caught] == [DegenerateModelWarning] * len(matches), (
        messages
    )
    for match, message in zip(matches, messages, strict=True):
        assert match in message
    return model


def without_levels(values, *codes):
    """Take the levels' means out, of one factor after the other, again and again."""
    for code in list(codes) * 50:
        values = values - (np.bincount(code, values) / np.bincount(code))[code]
    return values


def assert_is_ols(model, X, y, *, reml=True):
    columns = np.column_stack([np.ones(len(y)), X[["x"]]])
    coef, square, rank, _ = np.linalg.lstsq(columns, y, rcond=None)
    np.testing.assert_allclose([model.intercept_, *model.coef_], coef, rtol=1e-8, atol=1e-10)
    df = len(y) - rank if reml else len(y)
    np.testing.assert_allclose(model.noise_variance_, square[0] / df, rtol=1e-8)
    for name, covariance in model.covariances_.items():
        np.testing.assert_allclose(covariance, 0.0, atol=1e-12 * model.noise_variance_)
        np.testing.assert_allclose(model.random_effects_[name], 0.0, atol=1e-8)
    assert model.is_singular_
    assert model.converged_
    # The criterion of least squares, for columns as they are.
    value = df * (1.0 + np.log(2.0 * np.pi * square[0] / df))
    value += np.linalg.slogdet(columns.T @ columns)[1] if reml else 0.0
    assert -2.0 * model.log_likelihood_ == pytest.approx(value, abs=1e-8)


# --- variances of zero ---------------------------------------------------------------------------
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("slopes", [None, {"a": ["x"]}, ["x"]], ids=["none", "one", "both"])
def test_all_variances_are_zero(slopes, reml):
    # In every level of a and of b the noise is orthogonal to the constant and to x.
    dummies = [np.eye(4)[A], np.eye(5)[B]]
    x = X["x"].to_numpy()[:, None]
    taken = np.hstack([*dummies, *(x * own for own in dummies)])
    noise = NOISE - taken @ np.linalg.lstsq(taken, NOISE, rcond=None)[0]
    y = 3.0 + 2.0 * x[:, 0] + noise
    assert_is_ols(fit(X, y, random_slopes=slopes, reml=reml), X, y, reml=reml)


@pytest.mark.parametrize("gone", ["a", "b"])
def test_one_variance_is_zero(gone):
    code, other = (A, "b") if gone == "a" else (B, "a")
    effects = EFFECTS_B[B] if gone == "a" else EFFECTS_A[A]
    y = 3.0 + 2.0 * X["x"].to_numpy() + effects + 0.3 * without_levels(NOISE, code)
    model = fit(X, y)
    alone = fit(X, y, groups=other)
    assert -2.0 * model.log_likelihood_ == pytest.approx(
        -2.0 * alone.log_likelihood_, abs=CRITERION
    )
    np.testing.assert_allclose(model.covariances_[gone], 0.0, atol=1e-12)
    np.testing.assert_allclose(model.covariances_[other], alone.covariances_[other], rtol=ESTIMATES)
    np.testing.assert_allclose(model.coef_, alone.coef_, rtol=ESTIMATES)
    np.testing.assert_allclose(model.noise_variance_, alone.noise_variance_, rtol=ESTIMATES)
    found, expected = (own.predict(X, return_std=True) for own in (model, alone))
    np.testing.assert_allclose(found[0], expected[0], rtol=ESTIMATES, atol=ESTIMATES)
    np.testing.assert_allclose(found[1], expected[1], rtol=ESTIMATES)
    assert model.is_singular_
    assert not alone.is_singular_


def test_several_variances_are_zero_and_one_is_not():
    three = X.assign(c=np.arange(N) % 3)
    y = 3.0 + EFFECTS_A[A] + 0.3 * without_levels(NOISE, B, three["c"].to_numpy())
    model = fit(three, y, groups=["c", "a", "b"])
    alone = fit(three, y, groups="a")
    for gone in ("b", "c"):
        np.testing.assert_allclose(model.covariances_[gone], 0.0, atol=1e-12)
    assert -2.0 * model.log_likelihood_ == pytest.approx(
        -2.0 * alone.log_likelihood_, abs=CRITERION
    )
    np.testing.assert_allclose(model.covariances_["a"], alone.covariances_["a"], rtol=ESTIMATES)
    assert model.is_singular_


# --- how many levels -----------------------------------------------------------------------------
@pytest.mark.parametrize("reml", [True, False])
def test_one_row_for_each_level_beside_another_factor(reml):
    y = 3.0 + EFFECTS_A[A] + NOISE
    single = X.assign(row=[f"r{i}" for i in range(N)])
    model = fit_with_warnings(
        ["Every level of 'row' has one row"], single, y, groups=["a", "row"], reml=reml
    )
    alone = fit(X, y, groups="a", reml=reml)
    assert -2.0 * model.log_likelihood_ == pytest.approx(
        -2.0 * alone.log_likelihood_, abs=CRITERION
    )
    np.testing.assert_allclose(model.covariances_["row"], 0.0, atol=1e-12)
    np.testing.assert_allclose(model.random_effects_["row"], 0.0, atol=1e-12)
    np.testing.assert_allclose(model.noise_variance_, alone.noise_variance_, rtol=ESTIMATES)
    np.testing.assert_allclose(model.covariances_["a"], alone.covariances_["a"], rtol=ESTIMATES)
    np.testing.assert_allclose(
        model.random_effects_["a"], alone.random_effects_["a"], rtol=ESTIMATES, atol=ESTIMATES
    )
    np.testing.assert_allclose(model.coef_covariance_, alone.coef_covariance_, rtol=ESTIMATES)
    found, expected = model.predict(single, return_std=True), alone.predict(X, return_std=True)
    np.testing.assert_allclose(found[0], expected[0], rtol=ESTIMATES, atol=ESTIMATES)
    np.testing.assert_allclose(found[1], expected[1], rtol=ESTIMATES)
    assert model.is_singular_


def test_one_row_for_each_level_with_weights_is_told_from_noise():
    y = 3.0 + EFFECTS_A[A] + NOISE
    weights = np.random.default_rng(1).uniform(0.3, 3.0, N)
    model = fit_with_warnings([], X.assign(row=range(N)), y, weights, groups=["a", "row"])
    alone = fit(X, y, weights, groups="a")
    assert -2.0 * model.log_likelihood_ <= -2.0 * alone.log_likelihood_ + CRITERION


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("place", [0, 1])
def test_a_factor_with_one_level(place, reml):
    y = 3.0 + EFFECTS_A[A] + NOISE
    groups = ["a"]
    groups.insert(place, "all")
    model = fit_with_warnings(
        ["The factor 'all' has one level"], X.assign(all="one"), y, groups=groups, reml=reml
    )
    alone = fit(X, y, groups="a", reml=reml)
    assert -2.0 * model.log_likelihood_ == pytest.approx(
        -2.0 * alone.log_likelihood_, abs=CRITERION
    )
    np.testing.assert_allclose(model.covariances_["a"], alone.covariances_["a"], rtol=ESTIMATES)
    assert model.n_groups_["all"] == 1
    np.testing.assert_allclose(model.covariances_["all"], 0.0, atol=1e-12)
    assert model.converged_


def test_every_factor_has_one_level():
    y = 3.0 + 2.0 * X["x"].to_numpy() + NOISE
    one = X.assign(a="only", b="lone")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = fit(one, y)
    messages = [str(warning.message) for warning in caught]
    assert {warning.category for warning in caught} == {DegenerateModelWarning}
    for name in ("a", "b"):
        assert any(f"The factor '{name}' has one level" in message for message in messages)
    assert_is_ols(model, one, y)


# --- responses -----------------------------------------------------------------------------------
@pytest.mark.parametrize("constant", [0.0, 7.0, -1e6])
@pytest.mark.parametrize("slopes", [None, ["x"]])
def test_constant_response(slopes, constant):
    model = fit_with_warnings(
        ["fixed effects reproduce the response exactly"],
        X,
        np.full(N, constant),
        random_slopes=slopes,
    )
    np.testing.assert_allclose(model.intercept_, constant, rtol=1e-14)
    np.testing.assert_allclose(model.coef_, 0.0, atol=1e-9)
    assert model.noise_variance_ == 0.0
    assert model.log_likelihood_ == np.inf
    assert model.is_singular_
    mean, std = model.predict(X, return_std=True)
    np.testing.assert_allclose(mean, constant, rtol=1e-13)
    np.testing.assert_array_equal(std, 0.0)
    for name in ("a", "b"):
        np.testing.assert_array_equal(model.random_effects_[name], 0.0)
        np.testing.assert_array_equal(model.random_effects_covariances_[name], 0.0)


def variances_without_noise(reml):
    """Of the two factors, from the eigenvalues of V that are not noise.

    Three for a, four for b, and the one of the mean, which REML leaves out.
    """
    squares = [np.sum((own - own.mean()) ** 2) for own in (EFFECTS_A, EFFECTS_B)]
    counts = [3, 4]

    def objective(logs):
        variances = np.exp(logs)
        value = np.dot(counts, logs) + np.sum(squares / variances)
        return value if reml else value + np.log(15.0 * variances[0] + 12.0 * variances[1])

    start = np.log(np.divide(squares, counts))
    return np.exp(minimize(objective, start, method="Nelder-Mead", tol=1e-10).x)


@pytest.mark.slow_cases("elimination-True", "elimination-False")
@pytest.mark.parametrize("reml", [True, False])
def test_response_that_two_factors_reproduce_exactly(reml, engine):
    y = 3.0 + EFFECTS_A[A] + EFFECTS_B[B]
    # Elimination cannot tell what is exact from what is so but for its own rounding error.
    degree = "exactly" if engine == "joint" else "but for rounding error"
    model = fit_with_warnings([f"random effects reproduce the response {degree}"], X, y, reml=reml)
    assert 0.0 <= model.noise_variance_ < 1e-7 * y.var()
    assert model.converged_
    # With variances 1e9 times the noise, elimination keeps about half of the digits.
    np.testing.assert_allclose(model.predict(X), y, atol=1e-6 if engine == "joint" else 1e-5)
    np.testing.assert_allclose(model.coef_, 0.0, atol=1e-6)
    expected = variances_without_noise(reml)
    for k, (name, effects) in enumerate([("a", EFFECTS_A), ("b", EFFECTS_B)]):
        blups = model.random_effects_[name]["intercept"]
        np.testing.assert_allclose(blups - blups.mean(), effects - effects.mean(), atol=1e-5)
        # A criterion that is right to 1e-4 leaves a variance of few levels open by 1 %.
        rtol = 1e-3 if engine == "joint" else 1e-2
        np.testing.assert_allclose(model.covariances_[name], expected[k], rtol=rtol)


# --- columns -------------------------------------------------------------------------------------
ALIASED = X.assign(double=2.0 * X["x"], constant=4.0, zero=0.0)


@pytest.mark.slow_cases(every=5)
@pytest.mark.parametrize("slope", ["double", "constant", "zero"])
@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_aliased_slopes_in_one_factor(covariance, slope):
    y = 3.0 + EFFECTS_A[A] + EFFECTS_B[B] * (1.0 + 0.5 * X["x"].to_numpy()) + NOISE
    parameters = {"covariance": covariance}
    model = fit_with_warnings(
        [f"The random effects of 'b' of '{slope}' are aliased"],
        ALIASED,
        y,
        random_slopes={"b": ["x", slope]},
        **parameters,
    )
    expected = fit(ALIASED, y, random_slopes={"b": ["x"]}, **parameters)
    criterion = -2.0 * expected.log_likelihood_
    assert -2.0 * model.log_likelihood_ == pytest.approx(criterion, abs=CRITERION)
    np.testing.assert_array_equal(model.covariances_["b"][slope], 0.0)
    np.testing.assert_array_equal(model.random_effects_["b"][slope], 0.0)
    np.testing.assert_allclose(
        model.predict(ALIASED, return_std=True),
        expected.predict(ALIASED, return_std=True),
        rtol=ESTIMATES,
        atol=ESTIMATES,
    )
    assert model.is_singular_


@pytest.mark.slow_cases("elimination")
def test_a_slope_may_be_aliased_in_one_factor_and_not_in_the_other():
    y = 3.0 + EFFECTS_A[A] + EFFECTS_B[B] + NOISE
    model = fit_with_warnings(
        ["The random effects of 'a' of 'double' are aliased"],
        ALIASED,
        y,
        random_slopes={"a": ["x", "double"], "b": ["double"]},
    )
    assert model.covariances_["a"].loc["double", "double"] == 0.0
    assert model.random_effects_["b"]["double"].abs().max() > 1e-8 or (
        model.covariances_["b"].loc["double", "double"] < 1e-10
    )


@pytest.mark.parametrize("n", [2, 3])
def test_no_more_rows_than_fixed_columns(n):
    few = X.iloc[:n].assign(a=range(n), b=[0, *range(n - 1)])
    with pytest.raises(ValueError, match=f"n_samples={n} rows for"):
        fit(few, NOISE[:n], fixed_effects=["x", "z"])


def test_one_row_more_than_fixed_columns():
    few = X.iloc[[0, 20, 33, 47]].assign(a=[0, 1, 0, 1], b=[0, 0, 1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateModelWarning)
        model = fit(few, NOISE[[0, 20, 33, 47]], fixed_effects=["x", "z"])
    assert np.isfinite(model.log_likelihood_)
    assert np.isfinite(model.predict(few, return_std=True)).all()


@pytest.mark.slow_cases("elimination")
def test_more_effects_than_rows():
    y = 3.0 + EFFECTS_A[A] + EFFECTS_B[B] + NOISE
    many = X.assign(a=np.arange(N) // 2, b=(7 * np.arange(N)) % 29)
    model = fit(many, y, random_slopes=["x"])
    assert model.converged_
    assert model.noise_variance_ > 0.0
    for scale in (0.0, 0.5, 0.9, 1.1, 2.0):
        assert model.log_likelihood(scale * model.theta_) <= model.log_likelihood_ + 1e-8


# --- random effects without columns, digits ------------------------------------------------------
@pytest.mark.parametrize("place", [0, 1, 2])
def test_factor_whose_random_effects_are_all_aliased(place, engine):
    """A random slope on a column of zeros and no intercept: it might as well be left out."""
    rng = np.random.default_rng(5)
    names = ["p", "q"]
    rows = pd.DataFrame({"p": rng.integers(0, 9, 120), "q": rng.integers(0, 7, 120)})
    rows = rows.assign(empty=rng.integers(0, 5, 120), x=rng.standard_normal(120), zero=0.0)
    response = rng.standard_normal(9)[rows.p] + rng.standard_normal(7)[rows.q] + rows.x
    response = response + rng.standard_normal(120)
    without = MixedLinearRegressor(groups=names, fixed_effects=["x"]).fit(rows, response)
    names.insert(place, "empty")
    model = MixedLinearRegressor(
        groups=names,
        fixed_effects=["x"],
        random_intercept={"empty": False},
        random_slopes={"empty": ["zero"]},
    )
    with pytest.warns(DegenerateModelWarning, match=r"of 'empty' of 'zero' are aliased"):
        model.fit(rows, response)
    assert model.log_likelihood_ == pytest.approx(without.log_likelihood_, abs=1e-9)
    assert model.log_likelihood(model.theta_) == pytest.approx(model.log_likelihood_, abs=1e-9)
    assert model.is_singular_
    assert not model.random_effects_["empty"].to_numpy().any()
    assert not model.random_effects_covariances_["empty"].any()
    found, expected = model.predict(rows, return_std=True), without.predict(rows, return_std=True)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_all_random_effects_of_all_factors_are_aliased(engine):
    rows = pd.DataFrame({"p": A % 2, "q": B, "zero": 0.0, "x": X["x"]})
    response = np.random.default_rng(6).standard_normal(len(rows))
    model = MixedLinearRegressor(
        groups=["p", "q"], fixed_effects=["x"], random_intercept=False, random_slopes=["zero"]
    )
    with pytest.warns(DegenerateModelWarning, match="aliased"):
        model.fit(rows, response)
    line = np.polynomial.Polynomial.fit(rows["x"], response, 1).convert().coef
    np.testing.assert_allclose([model.intercept_, *model.coef_], line, atol=1e-9)
    assert model.predict(rows.head(3), return_std=True)[1].shape == (3,)


@pytest.mark.slow_cases("elimination")
def test_log_likelihood_where_the_noise_is_bounded(engine):
    """At its own theta a model has its own likelihood, the noise that was added included."""
    y = 3.0 + EFFECTS_A[A] + EFFECTS_B[B]
    model = fit_with_warnings(["random effects reproduce the response"], X, y)
    found = model.log_likelihood(model.theta_)
    assert found == pytest.approx(model.log_likelihood_, rel=1e-3)


@pytest.mark.slow_cases("elimination")
def test_single_precision_of_a_covariate_far_from_zero(engine):
    """Stored in single precision, a slope's column gives the fit of the same numbers in double."""
    rng = np.random.default_rng(7)
    p, q = rng.integers(0, 9, 200), rng.integers(0, 7, 200)
    x = (1e5 + rng.standard_normal(200)).astype(np.float32)
    y = rng.standard_normal(9)[p] + rng.standard_normal(7)[q] * (x - 1e5)
    y = (y + rng.standard_normal(200)).astype(float)
    groups = pd.DataFrame({"p": p, "q": q})
    single, double = (
        MixedLinearRegressor(random_slopes={"q": [0]}).fit(column, y, groups=groups)
        for column in (x[:, None], x[:, None].astype(float))
    )
    assert single.log_likelihood_ == pytest.approx(double.log_likelihood_, abs=1e-6)
    np.testing.assert_allclose(single.noise_variance_, double.noise_variance_, rtol=1e-6)


@pytest.mark.slow_cases(every=12)
@pytest.mark.parametrize("seed", range(6))
def test_categories_that_levels_do_not_have(seed):
    """The column of such a category and level is zero, but for what rounding leaves."""
    rng = np.random.default_rng(seed)
    n, sizes = 70, (12, 4)
    g, h, a = rng.integers(0, sizes[0], n), rng.integers(0, sizes[1], n), rng.integers(0, 3, n)
    own = (a[:, None] == np.arange(3)).astype(float)
    assert len(np.unique(g * 3 + a)) < 3 * len(np.unique(g))
    y = rng.standard_normal(sizes[0])[g] + rng.standard_normal(sizes[1])[h] + rng.normal(size=n)
    frame = pd.DataFrame({"y": y, "g": g, "h": h, "a": np.array(["p", "q", "r"])[a]})
    model = lmer("y ~ 1 + (0 + a | g) + (1 | h)", frame)
    assert model.converged_
    g, h = np.unique(g, return_inverse=True)[1], np.unique(h, return_inverse=True)[1]
    rows = Dense(np.ones((n, 1)), y, [own, np.ones((n, 1))], [g, h], [g.max() + 1, h.max() + 1])
    theta = np.array([0.8, 0.3, -0.4, 0.6, 0.2, 0.5, 0.7])
    lower = np.zeros((3, 3))
    lower[np.tril_indices(3)] = theta[[0, 1, 3, 2, 4, 5]]
    expected = rows.at([lower @ lower.T, np.array([[theta[-1] ** 2]])]).objective
    np.testing.assert_allclose(-2.0 * model.log_likelihood(theta), expected, rtol=1e-10)
