"""The model knows its response: it comes in the units of the data, and is transformed alike."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline

from mixedlearn import MixedLinearRegressor, inference, lmer
from mixedlearn.formula.brackets import FormulaError
from mixedlearn.metrics import GroupsScorer

RANDOM = np.random.default_rng(5)
N_ROWS = 120
DATA = pd.DataFrame(
    {
        "x": RANDOM.normal(size=N_ROWS),
        "w": RANDOM.uniform(1.0, 3.0, N_ROWS),
        "g": np.repeat(np.arange(12), 10),
    }
)
DATA["y"] = np.exp(0.5 * DATA["x"] + RANDOM.normal(size=12)[DATA["g"]] + RANDOM.normal(size=N_ROWS))
Y, W = DATA["y"].to_numpy(), DATA["w"].to_numpy()
STD = np.std(Y, ddof=1)
# What the left-hand side is; those with a state are linear in y, with what they learnt from DATA.
SIDES = {
    "np.log(y)": np.log,
    "log(y)": np.log,
    "I(y**2)": lambda y: np.asarray(y) ** 2,
    "{y - 1}": lambda y: np.asarray(y) - 1,
    "scale(y)": lambda y: (np.asarray(y) - Y.mean()) / STD,
    "center(y)": lambda y: np.asarray(y) - Y.mean(),
    "np.where(center(y) > 0, center(y), 0)": lambda y: np.maximum(np.asarray(y) - Y.mean(), 0),
    "np.log(`y`)": np.log,
    "y": np.asarray,
}
RIGHT = "x + (1 | g)"
sides = st.sampled_from(list(SIDES))


def by_hand(values, data=DATA):
    return MixedLinearRegressor(formula=RIGHT).fit(data[["x", "g"]], values)


@settings(deadline=None, max_examples=25)
@given(
    side=sides,
    chosen=st.sets(st.integers(0, N_ROWS - 1), min_size=2, max_size=9),
    copied=st.sampled_from([lambda model: model, lambda model: pickle.loads(pickle.dumps(model))]),
    passed=st.sampled_from([pd.Series, np.asarray, list, pl.Series]),
)
def test_responses_come_in_the_units_of_the_data(side, chosen, copied, passed):
    model, transform = copied(lmer(f"{side} ~ {RIGHT}", DATA)), SIDES[side]
    expected = by_hand(transform(Y))
    assert model.log_likelihood_ == pytest.approx(expected.log_likelihood_, abs=1e-8)
    some = sorted(chosen)
    rows, y = DATA.iloc[some], passed(Y[some])
    values = transform(Y[some])
    assert_allclose(model.predict(rows), expected.predict(rows))
    assert_allclose(model.transform_response(y), values)
    assert model.score(rows, y) == pytest.approx(r2_score(values, expected.predict(rows)))
    scorer = GroupsScorer("neg_mean_absolute_error")
    assert scorer(model, rows, y) == pytest.approx(scorer(expected, rows, values))
    new = rows.assign(g=99)
    model.update_random_effects(new, y)
    expected.update_random_effects(new, values)
    assert_allclose(model.predict(new), expected.predict(new))


@pytest.mark.parametrize("side", SIDES)
def test_refits_transform_again(side):
    model = lmer(f"{side} ~ {RIGHT}", DATA)
    half = DATA[::2]
    again = clone(model).fit(half, half["y"])
    assert again.log_likelihood_ == pytest.approx(lmer(f"{side} ~ {RIGHT}", half).log_likelihood_)
    found = cross_val_score(model, DATA, DATA["y"], cv=KFold(3))
    for score, (train, test) in zip(found, KFold(3).split(DATA), strict=True):
        fold = lmer(f"{side} ~ {RIGHT}", DATA.iloc[train])
        truth = fold.transform_response(Y[test])
        assert score == pytest.approx(r2_score(truth, fold.predict(DATA.iloc[test])))


def test_inference_takes_the_rows_of_fit_as_they_were():
    model, expected = lmer(f"np.log(y) ~ {RIGHT}", DATA), by_hand(np.log(Y))
    for function in (
        inference.residuals,
        lambda *arguments: inference.influence(*arguments).cooks_distance,
    ):
        assert_allclose(function(model, DATA, DATA["y"]), function(expected, DATA, np.log(Y)))
    with pytest.raises(ValueError, match="not the rows of the fit"):
        inference.residuals(model, DATA, Y + 1.0)


def test_the_response_is_named():
    model = lmer(f"np.log(y) ~ {RIGHT}", DATA)
    assert model.formula_ == "np.log(y) ~ x + (1 | g)"
    assert "np.log(y) ~ x + (1 | g)" in str(model.summary())
    assert clone(model).formula == f"np.log(y) ~ {RIGHT}"
    again = MixedLinearRegressor(formula=model.formula_).fit(DATA, DATA["y"])
    assert again.log_likelihood_ == pytest.approx(model.log_likelihood_)
    assert lmer(f"y ~ {RIGHT}", DATA).formula_ == RIGHT


def test_a_dot_is_no_column_of_the_response():
    data = DATA[["x", "y", "w", "g"]]
    assert lmer("np.log(y / w) ~ . + (1 | g)", data).formula_ == f"np.log(y / w) ~ {RIGHT}"
    model = MixedLinearRegressor(formula="np.log(y) ~ . + (1 | g)").fit(data, data["y"])
    assert model.formula_ == "np.log(y) ~ x + w + (1 | g)"


# Several columns

SEVERAL = {
    "np.log(y / w)": np.log(Y / W),
    "{y - w}": Y - W,
    "I(y / w * y)": Y / W * Y,
    "{scale(y) - center(w)}": (Y - Y.mean()) / STD - (W - W.mean()),
}


@pytest.mark.parametrize("side", SEVERAL)
def test_several_columns(side):
    model, expected = lmer(f"{side} ~ {RIGHT}", DATA), by_hand(SEVERAL[side])
    assert model.log_likelihood_ == pytest.approx(expected.log_likelihood_)
    rows, truth = DATA.tail(30), SEVERAL[side][-30:]
    score = expected.score(rows, truth)
    # By the name of a Series, as the only column that X has not, or all of them.
    for X, y in [
        (rows, rows["y"]),
        (rows, rows["w"]),
        (rows.drop(columns="y"), Y[-30:]),
        (rows.drop(columns="w"), rows["w"].to_numpy()),
        (rows[["x", "g"]], rows[["w", "y"]]),
        (rows[["x", "g"]], pl.DataFrame({"w": W[-30:], "y": Y[-30:]})),
    ]:
        assert model.score(X, y) == pytest.approx(score)
    again = clone(model).fit(DATA, DATA["y"])
    assert again.log_likelihood_ == pytest.approx(expected.log_likelihood_)


def test_several_columns_that_are_not_there():
    model = lmer(f"np.log(y / w) ~ {RIGHT}", DATA)
    with pytest.raises(
        ValueError, match=r"'np.log.y / w.' .* from 'y', 'w', and y does not say which"
    ):
        model.score(DATA, Y)
    with pytest.raises(ValueError, match="column 'w', which neither X nor y has"):
        model.score(DATA[["x", "g"]], DATA["y"])
    with pytest.raises(ValueError, match="does not say which"):
        model.score(DATA[["x", "g"]], Y)
    with pytest.raises(ValueError, match="column 'w', which neither X nor y has"):
        model.transform_response(DATA[["y", "x"]])


# What is refused


def test_responses_that_are_refused():
    model = lmer(f"np.log(y) ~ {RIGHT}", DATA)
    wrong = DATA["y"].copy()
    wrong[5] = np.nan
    with pytest.raises(
        ValueError, match=r"term 'np.log\(y\)' of the formula is NaN, first at row 5"
    ):
        model.score(DATA, wrong)
    with pytest.raises(ValueError, match="was numerical in fit, and is categorical"):
        lmer(f"I(y) ~ {RIGHT}", DATA).score(DATA, DATA["y"].astype(str))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.score(DATA, Y[:5])
    with pytest.raises(ValueError, match="column 'y'"):
        MixedLinearRegressor(formula=f"np.log(y) ~ {RIGHT}").fit(DATA.drop(columns="y"), None)
    with pytest.raises(FormulaError, match="one numeric column"):
        MixedLinearRegressor(formula="C(y) ~ x + (1 | g)").fit(DATA, DATA["g"])
    with (
        np.errstate(divide="ignore"),
        pytest.raises(ValueError, match=r"y contains infinity.* row 5"),
    ):
        model.score(DATA, wrong.fillna(0.0))


def test_nothing_is_learnt_from_responses_of_weight_zero():
    weights = np.where(np.arange(N_ROWS) % 3 == 0, 0.0, 1.0)
    hidden = DATA.assign(y=np.where(weights == 0.0, -1e9, Y))
    present = DATA[weights > 0.0]
    for side in ("scale(y)", "np.log(y)"):
        found = lmer(f"{side} ~ {RIGHT}", hidden, sample_weight=weights)
        expected = lmer(f"{side} ~ {RIGHT}", present)
        assert found.log_likelihood_ == pytest.approx(expected.log_likelihood_)
        new = hidden.assign(g=hidden["g"] + 100)
        found.update_random_effects(new, hidden["y"], sample_weight=weights)
        expected.update_random_effects(present.assign(g=present["g"] + 100), present["y"])
        assert_allclose(found.predict(new), expected.predict(new))


def test_the_last_step_of_a_pipeline_transforms():
    pipeline = make_pipeline(
        "passthrough", MixedLinearRegressor(formula=f"np.log(y) ~ {RIGHT}")
    ).fit(DATA, DATA["y"])
    expected = by_hand(np.log(Y))
    assert pipeline.score(DATA, DATA["y"]) == pytest.approx(expected.score(DATA, np.log(Y)))
    scorer = GroupsScorer("r2")
    assert scorer(pipeline, DATA, Y) == pytest.approx(expected.score(DATA, np.log(Y)))
    with sklearn.config_context(enable_metadata_routing=True):
        scores = cross_val_score(pipeline, DATA, DATA["y"], scoring=scorer, cv=KFold(3))
    assert (scores > -1.0).all()


def test_without_a_left_hand_side_the_response_is_y():
    model = MixedLinearRegressor(groups="g").fit(DATA[["x", "g"]], Y)
    assert_allclose(model.transform_response(Y[:4]), Y[:4])
    with pytest.raises(ValueError, match="row 1"):
        model.transform_response([1.0, np.nan])


@pytest.mark.parametrize(
    ("side", "value"),
    [
        ("a - b", lambda a, b: a - b),
        ("(a-b)", lambda a, b: a - b),
        ("a - b - b", lambda a, b: a - 2 * b),
        ("a + b", lambda a, b: a + b),
        ("a*b", lambda a, b: a * b),
        ("a / b", lambda a, b: a / b),
        ("1/a", lambda a, b: 1 / a),
        ("10 * a", lambda a, b: 10 * a),
        ("a + 1", lambda a, b: a + 1),
        ("-a", lambda a, b: -a),
        ("a^2", lambda a, b: a**2),
        ("a**2", lambda a, b: a**2),
        ("`a` - `b`", lambda a, b: a - b),
        ("{a} - {b}", lambda a, b: a - b),
        ("I(a) - I(b)", lambda a, b: a - b),
        ("log(a) - log(b)", lambda a, b: np.log(a) - np.log(b)),
        ("np.log(a) - b", lambda a, b: np.log(a) - b),
        ("log(a)^2", lambda a, b: np.log(a) ** 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_operators_are_arithmetic(side, value):
    rng = np.random.default_rng(3)
    n = 60
    data = pd.DataFrame({"x": rng.normal(size=n), "g": np.arange(n) % 6})
    data["a"] = np.exp(0.3 * rng.normal(size=n)) + 2.0
    data["b"] = np.exp(0.3 * rng.normal(size=n)) + data["g"] / 5.0
    computed = data.assign(v=value(data["a"], data["b"]))
    expected = lmer("v ~ x + (1 | g)", computed)
    model = lmer(f"{side} ~ x + (1 | g)", data)
    assert model.log_likelihood_ == pytest.approx(expected.log_likelihood_, rel=1e-10)
    assert model.formula_.startswith(side.strip())
    assert model.score(data, data[["a", "b"]]) == pytest.approx(
        expected.score(computed, computed["v"])
    )


@pytest.mark.parametrize(
    ("side", "message"),
    [
        ("a:b", "no arithmetic expression"),
        ("a - a:b", "no arithmetic expression"),
        ("a %in% b", "no arithmetic expression"),
        ("a | b", "cannot be computed"),
        ("a ~ b", "second '~'"),
    ],
)
def test_what_is_no_arithmetic_is_refused(side, message):
    data = pd.DataFrame({"a": [1.0, 2, 3, 5], "b": [2.0, 1, 4, 4], "g": [0, 0, 1, 1]})
    with pytest.raises(ValueError, match=message):
        lmer(f"{side} ~ 1 + (1 | g)", data)
