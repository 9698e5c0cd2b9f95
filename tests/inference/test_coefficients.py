"""Model matrix, coefficients of levels and information criteria against closed forms."""

import numpy as np
import pandas as pd
import pytest

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.datasets import load_cake, load_sleepstudy
from mixedlearn.exceptions import DegenerateModelWarning, NoGroupsWarning
from mixedlearn.inference import information_criteria, level_coefficients, model_matrix

SLEEP = load_sleepstudy().frame
CAKE = load_cake().frame


def made_up(n=120):
    rng = np.random.default_rng(3)
    X = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "z": rng.uniform(1.0, 2.0, size=n),
            "c": rng.choice(["p", "q", "r"], size=n),
            "g": rng.integers(0, 12, size=n),
            "h": rng.choice(list("ABCDE"), size=n),
        },
        index=np.arange(n) + 1000,
    )
    slopes = rng.normal(size=12)
    y = 1.0 + 2.0 * X["x"] + slopes[X["g"]] * X["z"] + rng.normal(size=n)
    return X, y + X["h"].map(dict(zip("ABCDE", rng.normal(size=5), strict=True)))


def fit(formula, **options):
    X, y = made_up()
    return MixedLinearRegressor(formula=formula, **options).fit(X, y), X, y


# The model matrix


FORMULAS = [
    "x + (1 | g)",
    "0 + x + (1 | g)",
    "c*x + (1 | g)",
    "0 + c + x:z + (z | g)",
    "poly(x, 2) + np.log(z) + (1 | g)",
    "bs(x, df=4) + (1 | g) + (1 | h)",
    "x + (0 + z | g)",
]


@pytest.mark.parametrize("formula", FORMULAS)
def test_the_model_matrix_times_the_coefficients_is_the_population(formula):
    model, X, _ = fit(formula)
    matrix = model_matrix(model, X)
    coef = model.coef_ if formula.startswith("0") else np.append(model.intercept_, model.coef_)
    expected = model.predict(X, random_effects="none")
    np.testing.assert_allclose(matrix @ coef, expected, rtol=1e-12)
    assert matrix.columns.tolist() == model.coef_covariance_.index.tolist()
    assert matrix.index.equals(X.index)
    assert (matrix.dtypes == np.float64).all()


def test_dummies_and_interactions():
    model, X, _ = fit("c*x + (1 | g)")
    is_q, is_r = (X["c"] == "q").astype(float), (X["c"] == "r").astype(float)
    expected = pd.DataFrame(
        {
            "intercept": 1.0,
            "c[T.q]": is_q,
            "c[T.r]": is_r,
            "x": X["x"],
            "c[T.q]:x": is_q * X["x"],
            "c[T.r]:x": is_r * X["x"],
        }
    )
    pd.testing.assert_frame_equal(model_matrix(model, X), expected)


@pytest.mark.parametrize("formula", ["poly(x, 2) + (1 | g)", "bs(x, df=4) + (1 | g)"])
def test_what_was_learnt_in_fit_holds_for_other_rows(formula):
    model, X, _ = fit(formula)
    few = X.iloc[[7, 3, 50]]
    expected = model_matrix(model, X).loc[few.index]
    pd.testing.assert_frame_equal(model_matrix(model, few), expected)


def test_polynomials_are_orthonormal_in_the_rows_of_the_fit():
    model, X, _ = fit("poly(x, 2) + (1 | g)")
    polynomials = model_matrix(model, X).to_numpy()[:, 1:]
    np.testing.assert_allclose(polynomials.T @ polynomials, np.eye(2), atol=1e-12)


def test_aliased_columns_are_in_the_model_matrix():
    X, y = made_up()
    X["again"] = 2.0 * X["x"]
    with pytest.warns(DegenerateModelWarning, match="again"):
        model = MixedLinearRegressor(formula="x + again + (1 | g)").fit(X, y)
    assert model_matrix(model, X)["again"].equals(X["again"])


def test_arrays_and_groups_beside_them():
    X, y = made_up()
    columns = X[["x", "z"]].to_numpy()
    model = MixedLinearRegressor(fixed_effects=[1]).fit(columns, y, groups=X["g"])
    matrix = model_matrix(model, columns)
    np.testing.assert_array_equal(matrix, np.column_stack([np.ones(len(X)), columns[:, 1]]))
    assert matrix.columns.tolist() == ["intercept", "x1"]
    assert matrix.index.equals(pd.RangeIndex(len(X)))
    constant = MixedLinearRegressor().fit(np.empty((len(X), 0)), y, groups=X["g"])
    assert (model_matrix(constant, np.empty((3, 0)), groups=[0, 1, 2]) == 1.0).all(axis=None)


@pytest.mark.parametrize("formula", ["c*x + (1 | g)", None])
def test_a_frame_of_polars(formula):
    polars = pytest.importorskip("polars")
    X, y = made_up()
    if formula is None:
        X = X[["x", "z", "g"]]
        model = MixedLinearRegressor(groups="g").fit(X, y)
    else:
        model = MixedLinearRegressor(formula=formula).fit(X, y)
    expected = model_matrix(model, X).reset_index(drop=True)
    found = model_matrix(model, polars.DataFrame(X.to_dict(orient="list")))
    pd.testing.assert_frame_equal(found, expected)


# Coefficients of the levels


def test_coefficients_of_levels_are_sums():
    model = lmer("Reaction ~ Days + (1 + Days | Subject)", SLEEP)
    found = level_coefficients(model)
    assert list(found) == ["Subject"]
    expected = model.random_effects_["Subject"] + [model.intercept_, model.coef_[0]]
    pd.testing.assert_frame_equal(found["Subject"], expected)


def test_they_are_what_predictions_are_made_of():
    model, X, _ = fit("c*x + (1 + x | g)")
    own = level_coefficients(model)["g"].loc[X["g"]].to_numpy()
    expected = (model_matrix(model, X).to_numpy() * own).sum(axis=1)
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-10)


def test_every_factor_has_its_own():
    model, X, _ = fit("x + (1 | g) + (1 + x | h)")
    found = level_coefficients(model)
    assert {name: table.shape for name, table in found.items()} == {"g": (12, 2), "h": (5, 2)}
    for name, table in found.items():
        own = table.loc[X[name]].to_numpy()
        expected = (model_matrix(model, X).to_numpy() * own).sum(axis=1)
        alone = model.predict(X, random_effects=[name])
        np.testing.assert_allclose(alone, expected, rtol=1e-10)
    # Without a random slope the coefficient is that of the population for all levels.
    assert (found["g"]["x"] == model.coef_[0]).all()


def test_a_random_slope_without_a_fixed_effect():
    model, _, _ = fit("x + (1 + z | g)")
    found = level_coefficients(model)["g"]
    assert found.columns.tolist() == ["intercept", "x", "z"]
    pd.testing.assert_series_equal(found["z"], model.random_effects_["g"]["z"])
    assert (found["x"] == model.coef_[0]).all()


def test_a_random_intercept_without_a_fixed_one():
    model, _, _ = fit("0 + x + (1 | g)")
    found = level_coefficients(model)["g"]
    assert found.columns.tolist() == ["x", "intercept"]
    pd.testing.assert_series_equal(found["intercept"], model.random_effects_["g"]["intercept"])


def test_levels_of_an_interaction():
    model = lmer("angle ~ recipe + temp + (1 | recipe:replicate)", CAKE)
    found = level_coefficients(model)["recipe:replicate"]
    assert found.index.names == ["recipe", "replicate"]
    expected = model.intercept_ + model.random_effects_["recipe:replicate"]["intercept"]
    pd.testing.assert_series_equal(found["intercept"], expected)


def test_levels_that_came_later_have_coefficients():
    X, y = made_up()
    early = X["g"] < 9
    model = MixedLinearRegressor(formula="x + (1 | g)").fit(X[early], y[early])
    model.update_random_effects(X[~early], y[~early])
    found = level_coefficients(model)["g"]
    assert sorted(found.index) == list(range(12))
    assert (found["x"] == model.coef_[0]).all()


def test_nothing_varies_without_groups():
    with pytest.warns(NoGroupsWarning):
        model = lmer("Reaction ~ Days", SLEEP)
    assert level_coefficients(model) == {}


# Information criteria


def test_criteria_of_least_squares_are_closed_forms():
    with pytest.warns(NoGroupsWarning):
        model = lmer("Reaction ~ Days", SLEEP, reml=False)
    n = len(SLEEP)
    residual = SLEEP["Reaction"] - np.polyval(
        np.polyfit(SLEEP["Days"], SLEEP["Reaction"], 1), SLEEP["Days"]
    )
    deviance = n * (np.log(2.0 * np.pi * np.mean(residual**2)) + 1.0)
    expected = {
        "log_likelihood": -deviance / 2.0,
        "deviance": deviance,
        "n_rows": n,
        "n_parameters": 3,
        "df_residual": n - 3,
        "aic": deviance + 2.0 * 3,
        "bic": deviance + np.log(n) * 3,
    }
    found = information_criteria(model)
    assert list(found.index) == list(expected)
    assert found.to_dict() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("formula", "n_parameters"),
    [
        ("x + (1 | g)", 2 + 1 + 1),
        ("0 + x + (1 | g)", 1 + 1 + 1),
        ("c*x + (1 + x | g)", 6 + 3 + 1),
        ("x + (1 + x || g)", 2 + 2 + 1),
        ("poly(x, 2) + (1 | g) + (1 + x + z | h)", 3 + 1 + 6 + 1),
    ],
)
@pytest.mark.parametrize("reml", [True, False])
def test_parameters_are_counted(formula, n_parameters, reml):
    model, X, _ = fit(formula, reml=reml)
    found = information_criteria(model)
    assert found["n_parameters"] == n_parameters
    assert found["df_residual"] == len(X) - n_parameters
    assert found["log_likelihood"] == model.log_likelihood_
    assert found["aic"] == pytest.approx(2.0 * (n_parameters - model.log_likelihood_), rel=1e-12)
    assert found["aic"] == model.aic()
    assert found["bic"] == model.bic()
    assert found["bic"] - found["aic"] == pytest.approx((np.log(len(X)) - 2.0) * n_parameters)


def test_what_is_aliased_or_of_weight_zero_does_not_count():
    X, y = made_up()
    weights = np.where(np.arange(len(X)) % 5 == 0, 0.0, 1.0)
    X["again"] = 2.0 * X["x"]
    with pytest.warns(DegenerateModelWarning, match="again"):
        model = MixedLinearRegressor(formula="x + again + (1 | g)").fit(X, y, sample_weight=weights)
    found = information_criteria(model)
    assert found["n_rows"] == weights.sum()
    assert found["n_parameters"] == 4
    present = weights > 0.0
    same = MixedLinearRegressor(formula="x + (1 | g)").fit(X[present], y[present])
    assert found.to_dict() == pytest.approx(information_criteria(same).to_dict(), rel=1e-8)


def test_one_variance_of_several_effects_counts_once():
    X, y = made_up()
    model = MixedLinearRegressor(
        groups="g", fixed_effects=["x"], random_slopes=["z"], covariance="scalar"
    ).fit(X[["x", "z", "g"]], y)
    assert information_criteria(model)["n_parameters"] == 2 + 1 + 1
