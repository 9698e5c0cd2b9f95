"""Fixed columns that depend on each other: the shortest coefficients, in any order of columns."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, SplineTransformer

from mixedlearn import MixedLinearRegressor
from mixedlearn.engines.bases import independent_columns
from mixedlearn.exceptions import DegenerateModelWarning, NoGroupsWarning
from mixedlearn.inference import coefficient_table, contrast_test

N = 90


@st.composite
def designs(draw):
    """Columns of which some are dummies, constant, zero or combinations of others; in any order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    columns = [rng.normal(size=(N, draw(st.integers(1, 3)))) + 5.0]
    n_sets = draw(st.integers(0, 2))
    columns += [np.eye(4)[rng.permutation(np.arange(N) % 4)] for _ in range(n_sets)]
    if draw(st.booleans()):
        columns.append(np.full((N, 1), 3.0))
    if draw(st.booleans()):
        columns.append(np.zeros((N, 1)))
    basis = np.hstack(columns)
    for _ in range(draw(st.integers(0, 2))):
        weights = rng.integers(-2, 3, basis.shape[1])
        columns.append((basis @ weights + float(rng.integers(-1, 2)))[:, None])
    X = np.hstack(columns)
    X = X[:, rng.permutation(X.shape[1])] * 10.0 ** rng.integers(-3, 4, X.shape[1])
    weights = rng.uniform(0.2, 3.0, N) if draw(st.booleans()) else None
    if weights is not None:
        weights[::17] = 0.0
    groups = rng.integers(0, 9, N)
    y = 2.0 + rng.normal(size=9)[groups] + rng.normal(size=N) + X @ (rng.normal(size=X.shape[1]))
    return X, y / np.abs(y).max(), groups, weights, draw(st.booleans())


def quietly(X, y, groups, weights, fit_intercept):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateModelWarning)
        warnings.simplefilter("ignore", NoGroupsWarning)
        model = MixedLinearRegressor(fit_intercept=fit_intercept)
        return model.fit(X, y, groups=groups, sample_weight=weights)


def close(found, expected, X):
    """Coefficients, by what they add to a prediction."""
    sizes = np.abs(X).max(axis=0)
    scale = np.abs(expected * sizes).max(initial=1e-3)
    np.testing.assert_allclose(found * sizes, expected * sizes, rtol=1e-6, atol=1e-7 * scale)


@settings(deadline=None, max_examples=60)
@given(designs())
def test_without_groups_the_coefficients_are_those_of_linear_regression(design):
    X, y, _, weights, fit_intercept = design
    model = quietly(X, y, None, weights, fit_intercept)
    ols = LinearRegression(fit_intercept=fit_intercept, tol=1e-9).fit(X, y, sample_weight=weights)
    # What an unknown category or an outlying row gets is decided by the coefficients.
    close(model.coef_, ols.coef_, X)
    np.testing.assert_allclose(model.predict(X), ols.predict(X), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(model.intercept_, ols.intercept_, rtol=1e-6, atol=1e-7)


@settings(deadline=None, max_examples=15)
@given(designs(), st.randoms(use_true_random=False))
def test_the_order_of_columns_does_not_matter(design, random):
    X, y, groups, weights, fit_intercept = design
    order = random.sample(range(X.shape[1]), X.shape[1])
    model = quietly(X, y, groups, weights, fit_intercept)
    other = quietly(X[:, order], y, groups, weights, fit_intercept)
    close(other.coef_, model.coef_[order], X[:, order])
    found = other.predict(X[:, order], groups=groups, return_std=True)
    np.testing.assert_allclose(found, model.predict(X, groups=groups, return_std=True), rtol=1e-5)
    # Rows that no combination of the rows of the fit gives.
    new = 1.5 * np.random.default_rng(0).permuted(X, axis=0)
    found = other.predict(new[:, order], groups=groups, return_std=True)
    expected = model.predict(new, groups=groups, return_std=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@settings(deadline=None, max_examples=15)
@given(designs())
def test_rows_of_the_fit_are_predicted_as_without_the_aliased_columns(design):
    X, y, groups, weights, fit_intercept = design
    model = quietly(X, y, groups, weights, fit_intercept)
    kept = ~model._fitted.model.fixed_basis.aliased[int(fit_intercept) :]
    fewer = quietly(X[:, kept], y, groups, weights, fit_intercept)
    found = model.predict(X, groups=groups, return_std=True)
    expected = fewer.predict(X[:, kept], groups=groups, return_std=True)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    assert model.log_likelihood_ == pytest.approx(fewer.log_likelihood_, rel=1e-9)


def categories():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"c": rng.choice(list("pqrs"), N), "d": rng.choice(list("uvw"), N)})
    frame["x"], groups = rng.normal(size=N), rng.integers(0, 8, N)
    y = rng.normal(size=N) + rng.normal(size=8)[groups] + (frame["c"] == "q") + frame["x"]
    return frame, y, groups


def dummies(frame, **how):
    return pd.get_dummies(frame, dtype=float, **how)


def test_full_sets_of_dummies_need_no_word_and_differ_as_reduced_ones_do():
    frame, y, groups = categories()
    full = MixedLinearRegressor().fit(dummies(frame), y, groups=groups)
    reduced = MixedLinearRegressor().fit(dummies(frame, drop_first=True), y, groups=groups)
    for ddf in ("satterthwaite", "kenward-roger"):
        found = contrast_test(full, {"c_r": 1.0, "c_p": -1.0}, ddf)
        table = coefficient_table(reduced, ddf)
        expected = table.loc["c_r"]
        np.testing.assert_allclose(found.rows.iloc[0], expected, rtol=1e-6)
        with pytest.warns(DegenerateModelWarning, match="'intercept', 'c_p', .*'d_w' cannot be"):
            own = coefficient_table(full, ddf)
        np.testing.assert_allclose(own.loc["x"], table.loc["x"], rtol=1e-6)
        assert own.drop(index="x").drop(columns="estimate").isna().all(axis=None)
    together = pd.DataFrame(
        {"c_q": [1.0, 0, 0], "c_r": [0, 1.0, 0], "c_s": [0, 0, 1.0], "c_p": [-1.0, -1.0, -1.0]}
    )
    found = contrast_test(full, together)
    expected = contrast_test(reduced, np.eye(7)[2:5])
    assert found.f_value == pytest.approx(expected.f_value, rel=1e-7)
    for name in ("c_p", "intercept", "d_w"):
        with pytest.raises(ValueError, match=r"cannot be estimated: .*\(aliased\)"):
            contrast_test(full, {name: 1.0})


def test_an_unknown_category_is_predicted_between_the_known_ones():
    frame, y, groups = categories()
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    X = encoder.fit_transform(frame[["c"]])
    model = MixedLinearRegressor().fit(X, y, groups=groups)
    unknown = encoder.transform(frame[["c"]].assign(c="z"))[:1]
    known = model.predict(np.eye(4), groups=[-1] * 4)
    mean, std = model.predict(unknown, groups=[-1], return_std=True)
    assert mean[0] == pytest.approx(known.mean())
    # The mean of four means is known better than any of them.
    _, std_of_known = model.predict(np.eye(4), groups=[-1] * 4, return_std=True)
    assert std[0] < std_of_known.min()


@pytest.mark.parametrize(
    "transformer",
    [
        OneHotEncoder(sparse_output=False),
        KBinsDiscretizer(4, encode="onehot-dense", quantile_method="averaged_inverted_cdf"),
        SplineTransformer(n_knots=5),
        SplineTransformer(n_knots=4, degree=2, extrapolation="linear"),
    ],
    ids=str,
)
def test_columns_that_add_up_to_one_need_no_word(transformer):
    frame, y, groups = categories()
    values = (
        np.round(frame[["x"]] * 2.0) if isinstance(transformer, OneHotEncoder) else frame[["x"]]
    )
    X = np.hstack([transformer.fit_transform(values), dummies(frame[["d"]])])
    model = MixedLinearRegressor().fit(X, y, groups=groups)
    assert not model._fitted.model.warnings
    with pytest.warns(DegenerateModelWarning, match=f"'x{X.shape[1]}' are aliased.*the shortest"):
        MixedLinearRegressor().fit(np.c_[X, X[:, 0] - X[:, 1]], y, groups=groups)


def test_other_columns_of_a_constant_sum_are_worth_a_word():
    frame, y, groups = categories()
    X = np.c_[frame["x"], 10.0 - frame["x"]]
    with pytest.warns(DegenerateModelWarning, match="'x1' are aliased"):
        model = MixedLinearRegressor().fit(X, y, groups=groups)
    assert model.coef_[0] == pytest.approx(-model.coef_[1])


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_independent_columns_are_found_from_the_left(p, seed):
    rng = np.random.default_rng(seed)
    n_free = rng.integers(1, p + 1)
    columns, source = np.empty((260, p)), rng.normal(size=(260, n_free))
    expected: list[int] = []
    for j in range(p):
        if len(expected) < n_free and rng.random() < 0.6:
            columns[:, j] = source[:, len(expected)]
            expected.append(j)
        else:
            weights = rng.normal(size=len(expected)) / np.sqrt(max(len(expected), 1))
            columns[:, j] = source[:, : len(expected)] @ weights
    kept, root = independent_columns(columns.T @ columns, np.zeros(p))
    assert kept.tolist() == expected
    gram = columns[:, kept].T @ columns[:, kept]
    np.testing.assert_allclose(root.T @ root, gram, atol=1e-9 * np.abs(gram).max(initial=1.0))
    np.testing.assert_array_equal(root, np.triu(root))
