"""The parameters ``residual`` and ``time``: in formulas and searches, and what is refused."""

import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold

from mixedlearn import MixedLinearRegressor, inference, lmer
from mixedlearn.datasets import load_orthodont, load_ovary
from mixedlearn.residual import (
    AR1,
    Antedependence,
    CompoundSymmetry,
    ContinuousAR1,
    Power,
    Stratified,
    Toeplitz,
    Unstructured,
)

# Children were measured every other year, and forecasts are for years between as well.
pytestmark = pytest.mark.filterwarnings("ignore:The sign of the correlation")
ORTHODONT = load_orthodont().frame


@pytest.mark.parametrize(
    ("residual", "name"),
    [
        (AR1(time="age"), "ar1"),
        (AR1(time="age", variance="heterogeneous"), "heterogeneous_ar1"),
        (ContinuousAR1(time="age"), "continuous_ar1"),
        (CompoundSymmetry(time="age"), "compound_symmetry"),
        (Toeplitz(time="age"), "toeplitz"),
        (Antedependence(time="age"), "antedependence"),
        (Unstructured(time="age"), "unstructured"),
    ],
)
def test_names_stand_for_objects(residual, name):
    formula = "distance ~ age"
    by_object = lmer(formula, ORTHODONT, groups="Subject", residual=residual)
    by_name = lmer(formula, ORTHODONT, groups="Subject", residual=name, time="age")
    assert by_name.log_likelihood_ == by_object.log_likelihood_
    assert by_name.residual_parameters_ == by_object.residual_parameters_


def test_parameters_and_a_formula_give_the_same_model():
    X, y = ORTHODONT[["age", "Subject"]], ORTHODONT["distance"]
    by_columns = MixedLinearRegressor(
        groups="Subject", random_intercept=False, residual="ar1", time="age"
    ).fit(X, y)
    by_labels = MixedLinearRegressor(random_intercept=False, residual="ar1", time="age").fit(
        X[["age"]], y, groups=X["Subject"]
    )
    by_position = MixedLinearRegressor(random_intercept=False, residual="ar1", time=0).fit(
        X[["age"]].to_numpy(float), y, groups=X["Subject"]
    )
    by_formula = lmer("distance ~ age", ORTHODONT, groups="Subject", residual="ar1", time="age")
    for model in (by_columns, by_labels, by_position):
        assert model.log_likelihood_ == pytest.approx(by_formula.log_likelihood_, rel=1e-12)
    new = X.head(2).assign(age=[9, 15])
    expected = by_formula.predict(new)
    np.testing.assert_allclose(by_columns.predict(new), expected)
    np.testing.assert_allclose(by_labels.predict(new[["age"]], groups=new["Subject"]), expected)
    assert not np.allclose(by_formula.predict(new, random_effects="none"), expected)


def test_the_order_of_the_rows_does_not_count():
    shuffled = ORTHODONT.sample(frac=1.0, random_state=1)
    one = lmer("distance ~ age", ORTHODONT, groups="Subject", residual="ar1", time="age")
    other = lmer("distance ~ age", shuffled, groups="Subject", residual="ar1", time="age")
    assert other.log_likelihood_ == pytest.approx(one.log_likelihood_, rel=1e-12)


def test_observed_rows_are_fitted_and_later_rows_are_forecast():
    model = lmer("distance ~ age", ORTHODONT, groups="Subject", residual="ar1", time="age")
    observed = model.predict(ORTHODONT)
    np.testing.assert_allclose(observed, model.predict(ORTHODONT, random_effects="none"))
    # The noise of a row that is one unit later than the last is its correlation times the last's.
    last = ORTHODONT[ORTHODONT["age"] == 14]
    later = last.assign(age=15)
    residuals = last["distance"].to_numpy() - model.predict(last)
    rho = model.residual_parameters_["correlation"]
    forecast = model.predict(later) - model.predict(later, random_effects="none")
    np.testing.assert_allclose(forecast, rho * residuals, rtol=1e-10)


def test_neutral_values_give_the_independent_fit():
    independent = lmer("distance ~ age + (1 | Subject)", ORTHODONT)
    problem = lmer("distance ~ age + (1 | Subject)", ORTHODONT, residual=AR1())._fitted.known.fit
    noise = problem.noise
    point = noise.point
    at_zero = noise.problem
    value = min(
        at_zero.evaluate(type(point)(scale, (np.zeros(1),), theta * independent_theta), 0).objective
        for scale, theta, independent_theta in [
            (
                0.5 * np.log(independent.noise_variance_ / at_zero.fixed.scale**2),
                1.0,
                _engine_theta(at_zero, independent),
            )
        ]
    )
    assert value == pytest.approx(-2.0 * independent.log_likelihood_, rel=1e-12)


def _engine_theta(problem, model):
    own = model._fitted.known.fit
    return problem.parameters.components.theta_of_roots(own.roots)


def test_rows_of_polars_have_the_times_of_those_of_pandas():
    model = lmer("distance ~ age", ORTHODONT, groups="Subject", residual="ar1", time="age")
    later = ORTHODONT.assign(age=ORTHODONT["age"] + 1)
    np.testing.assert_allclose(model.predict(pl.DataFrame(later)), model.predict(later))


def test_searches_reach_into_structures():
    X, y = ORTHODONT[["age", "Subject"]], ORTHODONT["distance"]
    estimator = MixedLinearRegressor(groups="Subject", random_intercept=False, time="age")
    names = [None, "ar1", "compound_symmetry", "unstructured"]
    search = GridSearchCV(
        estimator, {"residual": names}, cv=GroupKFold(3), error_score="raise"
    ).fit(X, y, groups=X["Subject"])
    assert len(search.cv_results_["params"]) == len(names)
    by_object = clone(estimator).set_params(residual=AR1(), residual__variance="heterogeneous")
    assert by_object.get_params()["residual__variance"] == "heterogeneous"
    by_object.fit(X, y)
    assert len(by_object.residual_parameters_) == 4


def test_a_model_is_pickled_with_its_noise():
    model = lmer("distance ~ age", ORTHODONT, groups="Subject", residual="ar1", time="age")
    again = pickle.loads(pickle.dumps(model))
    new = ORTHODONT.head(3).assign(age=[9, 11, 20])
    np.testing.assert_array_equal(again.predict(new), model.predict(new))


def test_the_summary_names_the_structure_and_its_parameters():
    waves = "follicles ~ np.sin(2 * np.pi * Time) + np.cos(2 * np.pi * Time) + (1 | Mare)"
    model = lmer(waves, load_ovary().frame, residual=AR1(time="Day"))
    text = str(model.summary())
    assert "AR1(time='Day') within Mare" in text
    assert "correlation   0.6074" in text
    # Fixed effects, the variance of the intercepts, the correlation and the noise.
    assert model.aic() == pytest.approx(-2.0 * model.log_likelihood_ + 2.0 * 6.0)


def fit_with(data=ORTHODONT, formula="distance ~ age", groups="Subject", **parameters):
    return lmer(formula, data, groups=groups, **parameters)


TWICE = pd.concat([ORTHODONT, ORTHODONT.head(1)], ignore_index=True)
ONE_ROW = ORTHODONT[ORTHODONT["age"] == 8]
ONE_ROW_OF_GIRLS = ORTHODONT[(ORTHODONT["age"] == 8) | (ORTHODONT["Sex"] == "Male")]
FEW = ORTHODONT[(ORTHODONT["age"] == 8) | (ORTHODONT["Subject"] == "M01")]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"residual": "unstructred", "time": "age"}, "Did you mean 'unstructured'"),
        ({"residual": "unstructured"}, "needs the occasions of the rows: name their column"),
        ({"residual": "heterogeneous_ar1"}, "needs the occasions of the rows"),
        ({"residual": "ar1", "time": "Age"}, "time names the column 'Age'.* Did you mean 'age'"),
        ({"residual": "ar1", "time": "Age", "missing": "drop"}, "time names the column 'Age'"),
        ({"residual": AR1(within="School")}, "names no grouping factor: the factors are 'Subject'"),
        ({"residual": AR1(variance="equal")}, "variance='equal' of AR1 is no variance"),
        ({"residual": Stratified(by="sex")}, r"Stratified\(by=...\) names the column 'sex'"),
        ({"residual": "ar1", "groups": None}, "there is no grouping factor"),
        (
            {"residual": CompoundSymmetry(), "groups": None, "formula": "distance ~ (1 | Subject)"},
            "cannot be told apart",
        ),
        (
            {"residual": "unstructured", "time": "age", "formula": "distance ~ (1 | Subject)"},
            "cannot be told apart|named twice|called 'Subject'",
        ),
        ({"residual": "ar1", "time": "age", "data": TWICE}, "'M01' of 'Subject' has two rows at"),
        (
            {"residual": "ar1", "time": "age", "data": ORTHODONT.assign(age=ORTHODONT.age + 0.5)},
            "have to be whole numbers, but row 0 of 'age' has 8.5",
        ),
        (
            {"residual": "continuous_ar1", "time": "Sex", "data": ORTHODONT},
            "the column 'Sex', have to be numbers",
        ),
        (
            {"residual": "ar1", "time": "age", "data": ORTHODONT.replace({"age": {10: np.inf}})},
            "The column 'age', .* is infinite in row 1",
        ),
        ({"residual": "ar1", "time": "age", "data": ONE_ROW}, "No level of 'Subject' has two rows"),
        (
            {"residual": AR1(time="age", by="Sex"), "data": ONE_ROW_OF_GIRLS},
            "No level of 'Subject' of Sex 'Female' has two rows",
        ),
        (
            {"residual": CompoundSymmetry(by="Sex"), "data": ONE_ROW_OF_GIRLS},
            "No level of 'Subject' of Sex 'Female' has two rows",
        ),
        (
            {"residual": "unstructured", "time": "age", "data": FEW},
            "not identified by these rows: only one level has both occasions",
        ),
        (
            {"residual": "ar1", "time": "age", "data": ORTHODONT.assign(age=np.inf)},
            "The column 'age', .* is infinite in row 0",
        ),
        ({"residual": AR1(time="age", by="age")}, "several values of 'age', by which"),
        ({"residual": Power(of="Sex")}, "needs a column of numbers"),
        (
            {
                "residual": Power(of="age"),
                "data": ORTHODONT.assign(age=ORTHODONT["age"].astype(str)),
            },
            "needs a column of numbers, and this one holds '8'",
        ),
    ],
)
def test_what_is_refused(parameters, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=message):
            fit_with(**parameters)


def test_series_whose_covariance_does_not_fit_into_memory_are_refused(monkeypatch):
    monkeypatch.setattr("mixedlearn.engines.plan._memory", lambda: 1_000_000_000)
    n = 8_000
    data = pd.DataFrame({"y": np.sin(np.arange(n)), "t": np.arange(n), "g": np.arange(n) % 2})
    with pytest.raises(MemoryError, match="of up to 4,000 rows, and all of them need 3 GB"):
        lmer("y ~ 1", data, groups="g", residual="compound_symmetry")


def test_a_covariance_of_many_occasions_is_refused_but_not_the_fit(monkeypatch):
    monkeypatch.setattr("mixedlearn.engines.plan._memory", lambda: 1_000_000_000)
    n = 8_000
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"y": rng.standard_normal(n), "t": np.arange(n), "g": 0})
    model = lmer("y ~ 1", data, groups="g", residual="ar1", time="t")
    assert set(model.residual_parameters_) == {"correlation"}
    with pytest.raises(MemoryError, match="of up to 8,000 rows"):
        _ = model.residual_covariance_


def test_an_occasion_that_fit_did_not_see_has_no_variance():
    model = fit_with(residual="unstructured", time="age")
    with pytest.raises(ValueError, match=r"occasion 9 of 'age' .* was not seen"):
        model.predict(ORTHODONT.head(2).assign(age=9))


@pytest.mark.parametrize(
    ("structure", "unseen"),
    [
        (Unstructured(time="age"), {"age": 9}),
        (AR1(time="age", variance="heterogeneous"), {"age": 9}),
        (AR1(time="age"), {"age": 9.5}),
        (Stratified(by="Sex"), {"Sex": "other"}),
        (Power(of="age"), {"age": 0}),
    ],
)
def test_the_mean_of_the_population_needs_no_noise(structure, unseen):
    groups = None if isinstance(structure, (Stratified, Power)) else "Subject"
    model = lmer("distance ~ age", ORTHODONT, groups=groups, residual=structure)
    new = ORTHODONT.head(2).assign(**unseen)
    expected = model.intercept_ + model.coef_[0] * new["age"]
    mean = model.predict(new, random_effects="none")
    np.testing.assert_allclose(mean, expected, rtol=1e-12)
    np.testing.assert_array_equal(model.predict(new[["age"]], random_effects="none"), mean)
    if groups is None:
        # Rows that are not correlated say nothing of each other.
        np.testing.assert_array_equal(model.predict(new), mean)
    with pytest.raises(ValueError, match=r"was not seen in fit|whole numbers|other than zero"):
        model.predict(new, random_effects="none", return_std=True)


def test_the_table_of_terms_has_no_mean_squares():
    terms = inference.anova(fit_with(residual="unstructured", time="age"), ddf="kenward-roger")
    assert list(terms.columns) == ["num_df", "den_df", "f_value", "p_value"]
    independent = inference.anova(lmer("distance ~ age + (1 | Subject)", ORTHODONT))
    assert list(independent.columns) == ["sum_sq", "mean_sq", *terms.columns]


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.for_serving(),
        lambda model: model.log_likelihood(model.theta_),
        lambda model: inference.conditional_aic(model),
        lambda model: inference.exact_restricted_lrt(model),
    ],
)
def test_what_takes_noise_for_independent_is_refused(call):
    model = lmer("distance ~ age + (1 | Subject)", ORTHODONT, residual=AR1(time="age"))
    with pytest.raises(ValueError, match="not available for a model with a residual structure"):
        call(model)
