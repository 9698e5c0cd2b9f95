"""Offsets: the model is fitted to the response less its offset, and predictions add it."""

import copy
import json
import pickle

import matplotlib as mpl
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers.versions import asks_for_score
from mixedlearn import MixedLinearRegressor, inference, lmer
from mixedlearn.datasets import load_sleepstudy
from mixedlearn.exceptions import DataWarning, NoGroupsWarning
from mixedlearn.formula.brackets import FormulaError
from mixedlearn.metrics import GroupsScorer
from mixedlearn.plot import (
    GroupLinesDisplay,
    QQDisplay,
    ResidualsDisplay,
    SimulatedPredictionsDisplay,
)
from reference import FOLDER

STUDY = load_sleepstudy().frame.assign(t=np.resize([1.0, 2, 5, 3, 1.5, 4, 2.5], 180))
X, Y = STUDY[["Days", "Subject", "t"]], STUDY["Reaction"]
T = STUDY["t"].to_numpy()
OFFSET = 20.0 * np.log(T)
RIGHT = "Days + (1 + Days | Subject)"
FORMULA = "Days + offset(20 * np.log(t)) + (1 + Days | Subject)"
WEIGHTS = np.resize([1.0, 2.0, 0.5], 180)


def by_argument(**fit):
    return MixedLinearRegressor(formula=RIGHT).fit(X, Y, offset=OFFSET, **fit)


def by_formula(**fit):
    return MixedLinearRegressor(formula=FORMULA).fit(X, Y, **fit)


def by_hand(**fit):
    return MixedLinearRegressor(formula=RIGHT).fit(X, Y - OFFSET, **fit)


# How the model gets its offset, and what its methods take with the rows.
WAYS = {
    "argument": (by_argument, lambda own: {"offset": own}),
    "formula": (by_formula, lambda own: {}),
}
ways = pytest.mark.parametrize("way", WAYS)


def models(way, **fit):
    """A model with an offset, that of the response less its offset, and what methods take."""
    fitted, arguments = WAYS[way]
    return fitted(**fit), by_hand(**fit), arguments


@pytest.mark.parametrize("name", ["formula", "argument"])
def test_lme4(name):
    expected = json.loads((FOLDER / "offset.json").read_text(encoding="utf-8"))[name]
    if name == "formula":
        formula = "Reaction ~ Days + offset(20 * log(t)) + offset(Days) + (Days | Subject)"
        model, known = lmer(formula, STUDY), {}
    else:
        known = {"offset": OFFSET}
        model = lmer(f"Reaction ~ {RIGHT}", STUDY, reml=False, sample_weight=T, **known)
    assert -2.0 * model.log_likelihood_ == pytest.approx(expected["criterion"], abs=1e-8)
    assert_allclose([model.intercept_, *model.coef_], expected["coef"], rtol=1e-6)
    assert_allclose(model.coef_covariance_, expected["coef_covariance"], rtol=1e-5)
    assert_allclose(model.covariances_["Subject"], expected["random_covariance"], rtol=1e-4)
    assert model.noise_variance_ == pytest.approx(expected["noise_variance"], rel=1e-6)
    fitted = model.predict(STUDY, **known)[:10]
    assert_allclose(fitted, expected["fitted"], rtol=1e-6)
    assert_allclose(Y[:10] - fitted, expected["residuals"], atol=1e-4)
    if name == "formula":
        new = STUDY.iloc[[0, 29, 94]].assign(t=[2.0, 7.0, 0.5])
        assert_allclose(model.predict(new), expected["predictions"], rtol=1e-6)
        population = model.predict(new, random_effects="none")
        assert_allclose(population, expected["population"], rtol=1e-6)


@ways
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighted"])
def test_the_fit_is_that_of_the_response_less_its_offset(way, weights):
    model, expected, _ = models(way, sample_weight=weights)
    assert model.log_likelihood_ == expected.log_likelihood_
    assert_array_equal(model.coef_, expected.coef_)
    assert_array_equal(model.theta_, expected.theta_)
    assert_array_equal(model.random_effects_["Subject"], expected.random_effects_["Subject"])
    for table in (
        inference.coefficient_table,
        inference.variance_table,
        inference.anova,
        inference.r2,
        inference.information_criteria,
    ):
        pd.testing.assert_frame_equal(*map(pd.DataFrame, (table(model), table(expected))))


@ways
@pytest.mark.parametrize("random_effects", ["all", "none"])
def test_predictions_add_the_offset(way, random_effects):
    model, expected, arguments = models(way)
    new = X.iloc[[3, 77, 150]].assign(t=[0.5, 9.0, 1.0], Subject=[308, 0, 372])
    own = 20.0 * np.log([0.5, 9.0, 1.0])
    known = {**arguments(own), "random_effects": random_effects}
    mean, std = model.predict(new, return_std=True, **known)
    expected_mean, expected_std = expected.predict(
        new, return_std=True, random_effects=random_effects
    )
    assert_allclose(mean, expected_mean + own, rtol=1e-14)
    assert_array_equal(std, expected_std)
    assert_allclose(model.predict(pl.from_pandas(new), **known), mean)
    table = inference.prediction_intervals(model, new, **known)
    without = inference.prediction_intervals(expected, new, random_effects=random_effects)
    for name in ("prediction", "lower", "upper"):
        assert_allclose(table[name], without[name] + own)
    assert_array_equal(table[["std_error", "df"]], without[["std_error", "df"]])


@ways
def test_methods_that_take_responses(way):
    model, expected, arguments = models(way)
    known = arguments(OFFSET)
    assert model.score(X, Y, **known) == pytest.approx(
        r2_score(Y, expected.predict(X) + OFFSET), rel=1e-12
    )
    scorer = GroupsScorer("neg_mean_absolute_error")
    found = -np.abs(Y - expected.predict(X) - OFFSET).mean()
    assert scorer(model, X, Y, **known) == pytest.approx(found, rel=1e-12)
    assert_array_equal(model.transform_response(Y, X), Y)
    draws = model.sample_y(X, n_samples=3, random_state=0, **known)
    without = expected.sample_y(X, n_samples=3, random_state=0)
    assert_allclose(draws, without + OFFSET[:, None], rtol=1e-13)


@ways
@pytest.mark.parametrize("serve", [False, True], ids=["whole", "serving"])
def test_updates_copies_and_serving(way, serve):
    model, expected, arguments = models(way)
    model = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    model = model.for_serving() if serve else model
    known = arguments(OFFSET)
    assert_allclose(model.predict(X, **known), expected.predict(X) + OFFSET, rtol=1e-12)
    new = X[:10].assign(Subject=999)
    model.update_random_effects(new, Y[:10], **arguments(OFFSET[:10]))
    expected.update_random_effects(new, Y[:10] - OFFSET[:10])
    assert_allclose(
        model.random_effects_["Subject"], expected.random_effects_["Subject"], rtol=1e-9
    )
    if way == "argument":
        with pytest.raises(ValueError, match="was fitted with an offset"):
            model.update_random_effects(new, Y[:10])


@ways
def test_inference_that_takes_the_rows_of_fit(way):
    model, expected, arguments = models(way, sample_weight=WEIGHTS)
    rows = {"sample_weight": WEIGHTS}
    known = {**rows, **arguments(OFFSET)}
    for kind in ("conditional", "marginal", "scaled", "studentized"):
        assert_allclose(
            inference.residuals(model, X, Y, kind=kind, **known),
            inference.residuals(expected, X, Y - OFFSET, kind=kind, **rows),
            rtol=1e-9,
        )
    for by in ("row", "Subject"):
        assert_allclose(
            inference.influence(model, X, Y, by=by, **known).cooks_distance,
            inference.influence(expected, X, Y - OFFSET, by=by, **rows).cooks_distance,
        )
    assert_allclose(
        inference.robust_covariance(model, X, Y, **known).covariance,
        inference.robust_covariance(expected, X, Y - OFFSET, **rows).covariance,
    )
    assert_allclose(
        inference.coefficient_covariance(model, "sandwich", X, Y, **known),
        inference.coefficient_covariance(expected, "sandwich", X, Y - OFFSET, **rows),
    )
    with pytest.raises(ValueError, match="not the rows of the fit: y differs"):
        inference.residuals(model, X, Y + 1.0, **known)


@ways
def test_inference_that_takes_columns_alone(way):
    """Neither the bootstrap nor the model matrix has a response, so that they ask for no offset."""
    model, expected, _ = models(way)
    pd.testing.assert_frame_equal(
        inference.model_matrix(model, X), inference.model_matrix(expected, X)
    )
    bootstraps = [
        inference.parametric_bootstrap(own, X, n_resamples=5, random_state=0)
        for own in (model, expected)
    ]
    assert_array_equal(bootstraps[0].samples, bootstraps[1].samples)


@ways
def test_a_statistic_of_the_bootstrap_predicts_with_the_offset(way):
    model, expected, arguments = models(way)
    known = arguments(OFFSET[:2])
    found = inference.parametric_bootstrap(
        model, X, statistic=lambda own: own.predict(X[:2], **known), n_resamples=3, random_state=0
    )
    without = inference.parametric_bootstrap(
        expected, X, statistic=lambda own: own.predict(X[:2]), n_resamples=3, random_state=0
    )
    assert_allclose(found.samples, without.samples + OFFSET[:2])


@ways
def test_pictures(way):
    mpl.use("Agg")
    model, expected, arguments = models(way)
    known = arguments(OFFSET)
    for kind in ("residuals", "scale_location"):
        display = ResidualsDisplay.from_estimator(model, X, Y, kind=kind, **known)
        without = ResidualsDisplay.from_estimator(expected, X, Y - OFFSET, kind=kind)
        assert_allclose(display.fitted_values, without.fitted_values + OFFSET)
        assert_allclose(display.residuals, without.residuals, atol=1e-9)
    noise = QQDisplay.from_estimator(model, X, Y, **known).values["noise"]
    assert_allclose(noise, QQDisplay.from_estimator(expected, X, Y - OFFSET).values["noise"])
    display = GroupLinesDisplay.from_estimator(model, X, Y, **known)
    without = GroupLinesDisplay.from_estimator(expected, X, Y - OFFSET)
    assert display.response == "Reaction less offset"
    assert_allclose(display.points["response"], without.points["response"])
    assert_allclose(display.lines["prediction"], without.lines["prediction"])
    cases = X[:2].assign(t=[2.0, 3.0])
    own = 20.0 * np.log([2.0, 3.0])
    display = SimulatedPredictionsDisplay.from_estimator(model, cases, **arguments(own))
    without = SimulatedPredictionsDisplay.from_estimator(expected, cases)
    for name in ("prediction", "lower", "upper", "population"):
        found = display.predictions[name].to_numpy().reshape(2, -1)
        assert_allclose(found, without.predictions[name].to_numpy().reshape(2, -1) + own[:, None])
    mpl.pyplot.close("all")


def as_objects(values):
    return values.astype(object)


@settings(deadline=None, max_examples=30)
@given(
    scale=st.sampled_from([0.0, 1e-6, 1.0, 1e3, 1e8]),
    weighted=st.booleans(),
    container=st.sampled_from(
        [np.asarray, list, pd.Series, pl.Series, lambda own: own.astype(object)]
    ),
    seed=st.integers(0, 2**16),
)
def test_any_offset(scale, weighted, container, seed):
    rng = np.random.default_rng(seed)
    columns, groups = rng.standard_normal((40, 2)), rng.integers(0, 6, 40)
    offset = scale * rng.standard_normal(40)
    y = columns[:, 0] + rng.standard_normal(6)[groups] + rng.standard_normal(40) + offset
    weights = rng.uniform(0.5, 2.0, 40) if weighted else None
    model = MixedLinearRegressor().fit(
        columns, y, groups=groups, sample_weight=weights, offset=container(offset)
    )
    expected = MixedLinearRegressor().fit(columns, y - offset, groups=groups, sample_weight=weights)
    assert_array_equal(model.coef_, expected.coef_)
    assert model.log_likelihood_ == expected.log_likelihood_
    mean = expected.predict(columns, groups=groups) + offset
    assert_allclose(model.predict(columns, groups=groups, offset=offset), mean, rtol=1e-14)


def test_a_number_is_for_all_rows():
    model = MixedLinearRegressor(formula=RIGHT).fit(X, Y, offset=100.0)
    plain = MixedLinearRegressor(formula=RIGHT).fit(X, Y)
    assert model.intercept_ == pytest.approx(plain.intercept_ - 100.0)
    assert_allclose(model.predict(X, offset=100.0), plain.predict(X))
    assert_allclose(model.predict(X, offset=0), plain.predict(X) - 100.0)


def test_offsets_of_the_formula_and_beside_it_are_added():
    model = MixedLinearRegressor(formula=FORMULA).fit(X, Y, offset=T)
    expected = MixedLinearRegressor(formula=RIGHT).fit(X, Y - T - OFFSET)
    assert_allclose(model.coef_, expected.coef_, rtol=1e-12)
    assert_allclose(model.predict(X, offset=T), expected.predict(X) + T + OFFSET)


def test_predictions_without_the_offset_are_refused():
    model = by_argument()
    for call in (
        lambda: model.predict(X),
        lambda: model.score(X, Y),
        lambda: model.sample_y(X),
        lambda: inference.prediction_intervals(model, X),
        lambda: inference.residuals(model, X, Y),
        lambda: inference.influence(model, X, Y),
        lambda: ResidualsDisplay.from_estimator(model, X, Y),
        lambda: GroupLinesDisplay.from_estimator(model, X, Y),
        lambda: model.for_serving().predict(X),
    ):
        with pytest.raises(ValueError, match=r"fitted with an offset.* offset=0 leaves it out"):
            call()
    with pytest.raises(ValueError, match="model was fitted without one"):
        by_hand().predict(X, offset=OFFSET)
    with pytest.raises(ValueError, match="computed from X"):
        by_formula().predict(X, offset=OFFSET)


def test_the_summary_says_that_there_is_an_offset():
    assert "Offset:    passed to fit beside X" in str(by_argument().summary())
    assert "Offset:" not in str(by_formula().summary())
    assert "Offset:" not in str(by_hand().summary())


def test_a_refit_forgets_the_offset():
    model = by_argument().fit(X, Y)
    assert_allclose(model.predict(X), MixedLinearRegressor(formula=RIGHT).fit(X, Y).predict(X))


@pytest.mark.parametrize(
    ("offset", "message"),
    [
        (OFFSET[:5], r"offset has shape \(5,\), but X has 180 rows"),
        (OFFSET[:, None], r"offset has shape \(180, 1\)"),
        (np.where(T == 5.0, np.nan, OFFSET), "offset contains NaN, the first at row 2"),
        (np.where(T == 5.0, -np.inf, OFFSET), "offset contains infinity, the first at row 2"),
        (OFFSET.astype(str), "offset is not numeric: .* at row 0 is text"),
        (OFFSET + 1j, "offset is complex"),
        (np.ma.masked_where(T == 5.0, OFFSET), "offset is a masked array"),
        (pd.date_range("2020", periods=180), "offset is not numeric: .* is a date"),
        (pd.Series(OFFSET).where(T < 5.0, None).astype("Float64"), "NaN|not numeric"),
    ],
    ids=range(9),
)
def test_bad_offsets(offset, message):
    with pytest.raises((ValueError, TypeError), match=message):
        MixedLinearRegressor(formula=RIGHT).fit(X, Y, offset=offset)
    with pytest.raises((ValueError, TypeError), match=message):
        by_argument().predict(X, offset=offset)


class TestFormula:
    def test_the_formula_names_its_offset(self):
        model = by_formula()
        assert model.formula_ == FORMULA
        assert FORMULA in str(model.summary())
        again = MixedLinearRegressor(formula=model.formula_).fit(X, Y)
        assert again.log_likelihood_ == model.log_likelihood_

    @pytest.mark.parametrize(
        ("right", "offset", "others"),
        [
            ("offset(t) + Days + (1 | Subject)", T, "Days + (1 | Subject)"),
            ("Days + (1 | Subject) + offset(`t`)", T, "Days + (1 | Subject)"),
            ("offset ( t - 1 ) + (1 | Subject)", T - 1, "1 + (1 | Subject)"),
            ("0 + Days + offset(t^2) - 1 + (1 | Subject)", T**2, "0 + Days + (1 | Subject)"),
            (
                "Days + offset(t) + (1 | Subject) + offset(Days)",
                T + STUDY["Days"],
                "Days + (1 | Subject)",
            ),
            ("Days + offset(center(t)) + (1 | Subject)", T - T.mean(), "Days + (1 | Subject)"),
        ],
    )
    def test_forms(self, right, offset, others):
        model, expected = (
            lmer(f"Reaction ~ {right}", STUDY),
            lmer(f"y ~ {others}", STUDY.assign(y=Y - offset)),
        )
        assert_allclose(model.coef_, expected.coef_, rtol=1e-10)
        assert model.log_likelihood_ == pytest.approx(expected.log_likelihood_, abs=1e-9)
        some = STUDY.iloc[[5, 9]]
        own = np.asarray(offset)[[5, 9]]
        assert_allclose(model.predict(some), expected.predict(some) + own, rtol=1e-10)

    def test_the_response_may_be_an_expression(self):
        model = lmer("np.log(Reaction) ~ Days + offset(np.log(t)) + (1 | Subject)", STUDY)
        expected = lmer("np.log(Reaction / t) ~ Days + (1 | Subject)", STUDY)
        assert_allclose(model.coef_, expected.coef_, rtol=1e-9)
        assert_allclose(model.predict(STUDY), expected.predict(STUDY) + np.log(T), rtol=1e-12)
        assert_allclose(model.transform_response(Y, STUDY), np.log(Y))
        assert model.formula_ == "np.log(Reaction) ~ Days + offset(np.log(t)) + (1 | Subject)"

    def test_a_dot_counts_the_columns_of_an_offset_as_in_R(self):
        model = lmer("Reaction ~ . + offset(t) + (1 | Subject)", STUDY)
        assert model.formula_ == "Days + t + offset(t) + (1 | Subject)"

    def test_columns_called_offset_and_functions_of_other_names(self):
        frame = STUDY.assign(offset=T)
        assert lmer("Reaction ~ offset + (1 | Subject)", frame).formula_ == "offset + (1 | Subject)"
        model = lmer("Reaction ~ Days + offset(`offset`) + (1 | Subject)", frame)
        assert_allclose(
            model.predict(frame),
            lmer("Reaction ~ Days + offset(t) + (1 | Subject)", STUDY).predict(STUDY),
        )
        with pytest.raises(FormulaError, match="'my_offset' is no known function"):
            lmer("Reaction ~ my_offset(t) + (1 | Subject)", frame)

    @pytest.mark.parametrize(
        ("right", "message"),
        [
            ("Days:offset(t) + (1 | Subject)", "term of its own"),
            ("Days - offset(t) + (1 | Subject)", "term of its own"),
            ("(Days + offset(t)) + (1 | Subject)", "term of its own"),
            ("log(offset(t)) + (1 | Subject)", "term of its own"),
            ("Days + (offset(t) | Subject)", "term of its own"),
            ("Days + offset(t) * Days + (1 | Subject)", "term of its own"),
            ("Days + offset() + (1 | Subject)", "offset is empty"),
            (
                "Days + offset(nothing) + (1 | Subject)",
                r"names 'nothing', which X does not have.*\n *offset\(nothing\)\n {11}\^$",
            ),
            ("Days + offset(C(t)) + (1 | Subject)", "An offset must be one numeric column"),
            ("Days + offset(t + ) + (1 | Subject)", "no arithmetic expression"),
        ],
    )
    def test_bad_formulas(self, right, message):
        for fit in (
            lambda: lmer(f"Reaction ~ {right}", STUDY),
            lambda: MixedLinearRegressor(formula=right).fit(X, Y),
        ):
            with pytest.raises(FormulaError, match=message):
                fit()

    def test_an_offset_of_the_response_is_refused(self):
        with pytest.raises(FormulaError, match="a term of its own on the right of '~'"):
            lmer("offset(Reaction) ~ Days + (1 | Subject)", STUDY)

    def test_new_rows_need_the_column(self):
        with pytest.raises(ValueError, match=r"X has no column 't', which offset\(20 \* np.log\(t"):
            by_formula().predict(X[["Days", "Subject"]])

    @pytest.mark.filterwarnings("ignore:divide by zero")
    def test_values_that_are_not_finite(self):
        with pytest.raises(ValueError, match=r"infinity at row 1 of X"):
            MixedLinearRegressor(formula=FORMULA).fit(X.assign(t=[1.0, 0.0] * 90), Y)
        with pytest.raises(ValueError, match=r"'20 \* np.log\(t\)' of .* NaN, first at row 1"):
            by_formula().predict(X[:2].assign(t=[1.0, np.nan]))

    @pytest.mark.filterwarnings("ignore:divide by zero")
    def test_rows_of_weight_zero_need_none(self):
        weights = np.ones(180)
        weights[[1, 7]] = 0.0
        frame = X.assign(t=np.where(weights == 0.0, 0.0, T))
        model = MixedLinearRegressor(formula=FORMULA).fit(frame, Y, sample_weight=weights)
        kept = weights > 0.0
        expected = MixedLinearRegressor(formula=FORMULA).fit(X[kept], Y[kept])
        assert_allclose(model.coef_, expected.coef_, rtol=1e-10)
        found = inference.residuals(model, frame, Y, kind="scaled", sample_weight=weights)
        assert_allclose(found[kept], inference.residuals(expected, X[kept], Y[kept], kind="scaled"))

    def test_an_offset_that_depends_on_other_rows_warns(self):
        with pytest.warns(DataWarning, match="depends on the other rows"):
            lmer("Reaction ~ Days + offset(t - t.mean()) + (1 | Subject)", STUDY)


class TestLmer:
    def test_missing_offsets(self):
        offset = np.where(T == 5.0, np.nan, OFFSET)
        formula, kept = f"Reaction ~ {RIGHT}", T != 5.0
        with pytest.raises(ValueError, match="offset contains NaN"):
            lmer(formula, STUDY, offset=offset)
        with pytest.warns(DataWarning, match="26 in 'offset'"):
            model = lmer(formula, STUDY, offset=offset, missing="drop")
        expected = lmer(formula, STUDY[kept], offset=offset[kept])
        assert model.log_likelihood_ == expected.log_likelihood_
        with pytest.raises(ValueError, match=r"offset has shape \(3,\)"):
            lmer(formula, STUDY, offset=offset[:3], missing="drop")
        frame = STUDY.assign(t=STUDY["t"].where(T != 5.0))
        with pytest.warns(DataWarning, match="26 in 't'"):
            model = lmer(f"Reaction ~ {FORMULA}", frame, missing="drop")
        assert model.log_likelihood_ == pytest.approx(expected.log_likelihood_, abs=1e-9)
        number = lmer(formula, STUDY, offset=3.0, missing="drop")
        assert number.intercept_ == pytest.approx(lmer(formula, STUDY).intercept_ - 3.0)

    def test_the_name_of_a_column(self):
        by_name = lmer(f"Reaction ~ {RIGHT}", STUDY, offset="t")
        by_values = lmer(f"Reaction ~ {RIGHT}", STUDY, offset=T)
        assert by_name.log_likelihood_ == by_values.log_likelihood_
        with pytest.raises(ValueError, match="offset='t' is the name of a column, and y is not"):
            MixedLinearRegressor(formula=RIGHT).fit(X, Y, offset="t")


FOLDS = KFold(4, shuffle=True, random_state=0)


def folds_by_hand(score=r2_score):
    """Scores of folds whose predictions have the offset."""
    scores = []
    for train, test in FOLDS.split(X):
        model = MixedLinearRegressor(formula=RIGHT)
        model.fit(X.iloc[train], Y.iloc[train] - OFFSET[train])
        scores.append(score(Y.iloc[test], model.predict(X.iloc[test]) + OFFSET[test]))
    return scores


class TestRouting:
    @pytest.mark.usefixtures("routing")
    @pytest.mark.parametrize(
        "scoring", [pytest.param(None, marks=asks_for_score), GroupsScorer("r2")], ids=str
    )
    def test_cross_validation(self, scoring):
        model = MixedLinearRegressor(formula=RIGHT)
        scores = cross_val_score(
            model, X, Y, params={"offset": OFFSET}, cv=FOLDS, scoring=scoring, error_score="raise"
        )
        assert_allclose(scores, folds_by_hand(), rtol=1e-9)

    @pytest.mark.usefixtures("routing")
    def test_a_scorer_by_name_loses_the_offset_and_says_so(self):
        model = MixedLinearRegressor(formula=RIGHT)
        with pytest.raises(ValueError, match="fitted with an offset"):
            cross_val_score(
                model, X, Y, params={"offset": OFFSET}, cv=FOLDS, scoring="r2", error_score="raise"
            )

    @asks_for_score
    @pytest.mark.usefixtures("routing")
    def test_requests(self):
        model = MixedLinearRegressor(formula=RIGHT)
        assert model.get_metadata_routing().fit.requests["offset"] is True
        silent = clone(model).set_fit_request(offset=False).set_score_request(offset=False)
        search = GridSearchCV(silent, {"reml": [True]}, cv=FOLDS)
        with pytest.raises(TypeError, match="offset"):
            search.fit(X, Y, offset=OFFSET)
        search = GridSearchCV(model, {"reml": [True]}, cv=FOLDS).fit(X, Y, offset=OFFSET)
        assert search.best_score_ == pytest.approx(np.mean(folds_by_hand()))
        assert search.score(X, Y, offset=OFFSET) == pytest.approx(
            by_argument().score(X, Y, offset=OFFSET)
        )

    def test_formulas_need_no_routing(self):
        scores = cross_val_score(
            MixedLinearRegressor(formula=FORMULA), X, Y, cv=FOLDS, scoring="r2"
        )
        assert_allclose(scores, folds_by_hand(), rtol=1e-9)

    def test_pipelines(self):
        step = "mixedlinearregressor"
        pipeline = make_pipeline(StandardScaler(), MixedLinearRegressor())
        columns, groups = STUDY[["Days", "t"]], STUDY["Subject"]
        pipeline.fit(columns, Y, **{f"{step}__groups": groups, f"{step}__offset": OFFSET})
        expected = make_pipeline(StandardScaler(), MixedLinearRegressor())
        expected.fit(columns, Y - OFFSET, **{f"{step}__groups": groups})
        assert_allclose(
            pipeline.predict(columns, groups=groups, offset=OFFSET),
            expected.predict(columns, groups=groups) + OFFSET,
        )
        with pytest.raises(ValueError, match="fitted with an offset"):
            pipeline.predict(columns, groups=groups)


def test_least_squares():
    with pytest.warns(NoGroupsWarning):
        model = lmer("Reaction ~ Days + offset(t)", STUDY)
    A = np.column_stack([np.ones(180), STUDY["Days"]])
    coef = np.linalg.lstsq(A, Y - T, rcond=None)[0]
    assert_allclose([model.intercept_, *model.coef_], coef, rtol=1e-10)
    assert_allclose(model.predict(STUDY), A @ coef + T, rtol=1e-10)
