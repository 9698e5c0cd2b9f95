"""Fits that explain almost all of the response keep their digits, or say how many there are.

The truth is the likelihood in eighty digits, of the doubles that the estimator got.
"""

import warnings
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from data.test_sums import added_in_some_tree, some, specification_of
from mixedlearn import MixedLinearRegressor, inference
from mixedlearn.data.cancellation import less_columns
from mixedlearn.data.labels import as_labels
from mixedlearn.data.rows import Rows
from mixedlearn.data.sums import Sums
from mixedlearn.engines.recipe import Recipe
from mixedlearn.exceptions import DegenerateModelWarning
from mixedlearn.model.digits import RowsAtHand, with_more_digits
from mixedlearn.model.fit import fit_sums
from reference import extended

SIGNALS = (1.0, 1e3, 1e5, 1e7, 1e8, 1e9)
NOISES = (1.0, 1e-2, 1e-4, 1e-6, 1e-7, 1e-8)
# Variances and criterion that are right.
RIGHT, RIGHT_CRITERION = 1e-6, 1e-4


def layout(kind, is_balanced, rng):
    if kind == "one factor":
        codes = [np.repeat(np.arange(6), 5)]
    elif kind == "nested":
        codes = [np.repeat(np.arange(4), 8), np.repeat(np.arange(16), 2)]
    else:
        codes = [np.repeat(np.arange(5), 6), np.tile(np.repeat(np.arange(3), 2), 5)]
    n = len(codes[0])
    kept = np.arange(n) if is_balanced else rng.permutation(n)[: n - 5]
    return [np.unique(own[kept], return_inverse=True)[1] for own in codes]


def draw(kind, is_balanced, signal, noise, seed=3, fit_intercept=True):
    """Columns x, f0, ... and y = signal x + b + noise e."""
    rng = np.random.default_rng(seed)
    codes = layout(kind, is_balanced, rng)
    n = len(codes[0])
    x = rng.standard_normal(n) + (not fit_intercept)
    y = signal * x + noise * rng.standard_normal(n)
    y = y + sum(rng.standard_normal(own.max() + 1)[own] for own in codes)
    return pd.DataFrame({"x": x, **{f"f{k}": own for k, own in enumerate(codes)}, "y": y})


def fit(rows, **parameters):
    """The model, and what it says."""
    factors = [name for name in rows if name.startswith("f")]
    fixed = [name for name in rows if name == "x"]
    model = MixedLinearRegressor(groups=factors, fixed_effects=fixed, **parameters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(rows.drop(columns="y"), rows["y"])
    return model, [str(own.message) for own in caught]


def truth(rows, model):
    """Criterion, noise variance and variances of the optimum near a fit, in eighty digits."""
    n = len(rows)
    x = rows[[name for name in rows if name == "x"]].to_numpy()
    X = np.column_stack([np.ones(n), x]) if model.fit_intercept else x
    factors = [(np.ones((n, 1)), rows[name]) for name in rows if name.startswith("f")]
    exact = extended.Rows(X, rows["y"], factors, reml=model.reml)
    return exact.optimum(model.theta_.tolist())


def is_rounding(rows, noise):
    """Whether noise of this size is rounding error of the response."""
    return noise < 8.0 * np.finfo(float).eps * np.abs(rows["y"]).max()


def check(rows, noise, **parameters):
    model, said = fit(rows, **parameters)
    if any("exactly" in own for own in said):
        assert is_rounding(rows, noise)
        return
    assert not said
    assert model.converged_
    criterion, noise_variance, variances = truth(rows, model)
    assert -2.0 * model.log_likelihood_ == pytest.approx(float(criterion), abs=RIGHT_CRITERION)
    assert model.noise_variance_ == pytest.approx(float(noise_variance), rel=RIGHT)
    own = [float(covariance.iloc[0, 0]) for covariance in model.covariances_.values()]
    largest = max(own)
    np.testing.assert_allclose(own, [float(v) for v in variances], rtol=RIGHT, atol=1e-12 * largest)


CASES = [
    pytest.param(
        *case, marks=[pytest.mark.slow] * (number % 19 > 0), id="-".join(str(own) for own in case)
    )
    for number, case in enumerate(
        (kind, is_balanced, fit_intercept, signal, noise)
        for kind in ("one factor", "nested", "crossed")
        for is_balanced in (True, False)
        for fit_intercept in (True, False)
        for signal in SIGNALS
        for noise in NOISES
    )
]


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize(("kind", "is_balanced", "fit_intercept", "signal", "noise"), CASES)
def test_a_large_signal_and_little_noise_keep_their_digits(
    kind, is_balanced, fit_intercept, signal, noise
):
    rows = draw(kind, is_balanced, signal, noise, fit_intercept=fit_intercept)
    check(rows, noise, fit_intercept=fit_intercept)


@pytest.mark.parametrize("noise", [1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("kind", ["one factor", "nested", "crossed"])
def test_little_noise_about_a_mean(kind, noise):
    check(draw(kind, False, 0.0, noise).drop(columns="x"), noise)


@pytest.mark.parametrize("kind", ["one factor", "nested", "crossed"])
def test_a_mean_far_from_zero_without_an_intercept(kind):
    rows = draw(kind, True, 0.0, 1.0)
    rows["x"] = 1.0
    check(rows.assign(y=rows["y"] + 1e7), 1.0, fit_intercept=False)


def test_a_large_signal_of_two_columns_and_slopes():
    """Nothing but the coefficient changes when a multiple of a column joins the response."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(15), 8)
    X = pd.DataFrame(rng.standard_normal((120, 2)), columns=["a", "b"])
    effects = rng.standard_normal((15, 2))
    # Halves and quarters, so that the signal joins without rounding.
    X = np.round(4.0 * X) / 4.0
    y = np.round(64.0 * (effects[codes, 0] + effects[codes, 1] * X["a"] + rng.standard_normal(120)))
    y /= 64.0
    model = MixedLinearRegressor(random_slopes=["a"])
    plain = model.fit(X, y, groups=codes)
    covariance, noise = plain.covariances_["group"], plain.noise_variance_
    coef, predictions = plain.coef_, plain.predict(X, groups=codes)
    signal = 2.0**30 * X["a"] - 2.0**28 * X["b"]
    moved = model.fit(X, y + signal, groups=codes)
    assert moved.noise_variance_ == pytest.approx(noise, rel=1e-8)
    np.testing.assert_allclose(moved.covariances_["group"], covariance, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(moved.coef_ - [2.0**30, -(2.0**28)], coef, atol=1e-6)
    np.testing.assert_allclose(moved.predict(X, groups=codes), predictions + signal, atol=1e-6)


def test_slopes_of_a_category_that_some_levels_lack():
    """Dummies of crossed factors: columns that are zero in a level take no part there."""
    rng = np.random.default_rng(4)
    a, b = np.repeat(np.arange(5), 8), np.tile(np.arange(4), 10)
    dummy = ((b == 1) & (a < 3)).astype(float)
    effects = rng.standard_normal((5, 2))
    e = rng.standard_normal(40)
    fits = []
    for noise in (1e-2, 1e-5):
        y = effects[a, 0] + effects[a, 1] * dummy + noise * e
        X = pd.DataFrame({"d": dummy, "a": a, "b": b})
        model = MixedLinearRegressor(
            groups=["a", "b"], random_slopes={"a": ["d"]}, covariance={"a": "diagonal"}
        )
        fits.append(model.fit(X, y))
    large, small = (own.noise_variance_ for own in fits)
    assert small == pytest.approx(large * 1e-6, rel=1e-3)


def test_exactly_is_said_of_what_is_exact_to_rounding():
    rng = np.random.default_rng(1)
    rows = draw("one factor", True, 0.0, 1.0)
    for y, word in (
        (0.1 * rows["x"] + 0.3, "fixed effects reproduce the response exactly"),
        (1e9 * rows["x"], "fixed effects reproduce the response exactly"),
        (0.1 * rows["x"] + rng.standard_normal(6)[rows["f0"]], "random effects reproduce"),
    ):
        _, said = fit(rows.assign(y=y))
        assert any(word in own for own in said)


@pytest.mark.parametrize("noise", [1e-4, 1e-6, 1e-8])
def test_inference_keeps_the_digits_of_the_fit(noise):
    """Refits of smaller models, profiles and deletions start from the sums of the fit."""
    rows = draw("one factor", False, 0.0, noise, seed=5)
    large, _ = fit(rows.assign(y=rows["y"] / noise))
    small, _ = fit(rows)
    for function in (inference.coefficient_table, inference.variance_table):
        own, other = function(small), function(large)
        np.testing.assert_allclose(own.get("df", 0), other.get("df", 0), rtol=1e-5)
    unit = noise**2
    np.testing.assert_allclose(
        small.coef_covariance_, unit * large.coef_covariance_, rtol=1e-6, atol=0.0
    )
    intervals = [inference.confidence_intervals(own, method="profile") for own in (small, large)]
    np.testing.assert_allclose(
        intervals[0].iloc[:, -2:], noise * intervals[1].iloc[:, -2:], rtol=1e-4
    )


def test_a_response_less_almost_all_of_itself():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 3)) * [1.0, 1e6, 1e-6]
    multiples = np.array([1e9, -3.3e5, 7.7e12])
    y = X @ multiples + rng.standard_normal(50)
    rest = less_columns(y, X, multiples, 0.1)
    for own, x, value in zip(rest, X, y, strict=True):
        exact = Fraction(value) - Fraction(0.1)
        exact -= sum(Fraction(a) * Fraction(b) for a, b in zip(x, multiples, strict=True))
        assert own == float(exact)


def test_rows_of_little_weight_take_no_digits_from_the_others():
    rng = np.random.default_rng(0)
    weights = 10.0 ** rng.uniform(-8.0, 8.0, 120)
    X, codes = rng.standard_normal((120, 2)), rng.integers(0, 8, 120)
    y = X[:, 0] + rng.standard_normal(8)[codes] + rng.standard_normal(120) / np.sqrt(weights)
    rows = Rows(X, tuple(as_labels(codes, 120, ["g"])), y, weights)
    specification = specification_of(["g"], [(0,)])
    part = rng.integers(0, 4, 120)
    parts = [Sums.of(some(rows, part == number), [(0,)]) for number in range(4)]
    by_sums = [
        fit_sums(sums, Recipe(specification))
        for sums in (Sums.of(rows, [(0,)]), added_in_some_tree(parts, rng))
    ]
    model = with_more_digits(by_sums[0], RowsAtHand(rows))
    one, theta = np.ones((120, 1)), model.user_theta
    Z = np.hstack([one, X[:, :1]])
    exact = extended.Rows(np.hstack([one, X]), y, [(Z, codes)], weights, specification.reml)
    criterion, _ = exact.criterion([[[theta[0], 0.0], [theta[1], theta[2]]]])
    assert model.objective == pytest.approx(float(criterion), abs=1e-9)
    for own in by_sums:
        assert own.objective == pytest.approx(model.objective, abs=RIGHT_CRITERION)


@pytest.mark.parametrize("reml", [True, False])
def test_a_likelihood_without_a_maximum_is_named(reml):
    """Two levels, as many coefficients as leave two rows for the random effects to follow."""
    rng = np.random.default_rng(35)
    codes = np.repeat([0, 1], 4)
    X = rng.standard_normal((8, 5))
    y = rng.standard_normal(2)[codes] + rng.standard_normal(8)
    model = MixedLinearRegressor(random_slopes=[0], reml=reml)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, y, groups=codes)
    assert not model.converged_
    (own,) = [own for own in caught if own.category is DegenerateModelWarning]
    assert "rises for ever as the noise variance falls" in str(own.message)
