"""Marginal means, slopes and their comparisons, against emmeans."""

import functools
import itertools
import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.datasets import load_sleepstudy
from mixedlearn.exceptions import DataWarning, DegenerateModelWarning, NoGroupsWarning
from mixedlearn.inference import (
    coefficient_table,
    compare_means,
    contrast_test,
    marginal_means,
    marginal_slopes,
    robust_covariance,
)

STORED = json.loads((Path(__file__).parents[1] / "reference" / "marginal_means.json").read_text())
CASES = {case["name"]: case for case in STORED["cases"]}
ADJUST = {"none": None}
DDF = ("kenward-roger", "satterthwaite")
pytestmark = pytest.mark.filterwarnings("ignore:The fixed effects of .* are aliased")

FORMULAS = {
    "cake": ("cake", "angle ~ recipe * temperature + (1 | batch)"),
    "factorial": ("factorial", "y ~ a * b + a * x + log(z) + flag + (1 | g)"),
    "weighted": ("factorial", "y ~ a * b + x + C(dose) + (1 | g)"),
    "holed": ("holed", "y ~ a * b + x + (1 | g)"),
    "curved": ("factorial", "y ~ b + poly(x, 2) + ns(z, df=3) + (1 | g)"),
    "nlme": ("factorial", "y ~ a * b + x + (1 | g)"),
}


@functools.cache
def frame_of(name):
    return pd.DataFrame(STORED["frames"][name])


@functools.cache
def fit(name):
    frame, formula = FORMULAS[name]
    data = frame_of(frame)
    return lmer(formula, data, sample_weight=data["w"] if name == "weighted" else None)


# What the cases of the script ask for: the model, the function, its arguments.
ASKED = {
    "cake recipe": ("cake", marginal_means, ["recipe"], {}),
    "cake temperature": ("cake", marginal_means, ["temperature"], {}),
    "cake recipe by temperature": ("cake", marginal_means, ["recipe", "temperature"], {}),
    "factorial a": ("factorial", marginal_means, ["a"], {}),
    "factorial a by b": ("factorial", marginal_means, ["a", "b"], {}),
    "factorial a, b": ("factorial", marginal_means, [["b", "a"]], {}),
    "factorial four": (
        "factorial",
        marginal_means,
        [["b", "a"]],
        {"at": {"a": ["p", "q"], "b": ["low", "mid"]}},
    ),
    "factorial proportional": ("factorial", marginal_means, ["a"], {"weights": "proportional"}),
    "factorial at": (
        "factorial",
        marginal_means,
        ["a", "x"],
        {"at": {"x": [35, 45], "z": 2, "b": ["low", "mid"]}},
    ),
    "factorial slopes": ("factorial", marginal_slopes, ["x", "a"], {}),
    "factorial slopes of a logarithm": (
        "factorial",
        marginal_slopes,
        ["z", "z"],
        {"at": {"z": [1.5, 3]}},
    ),
    "weighted": ("weighted", marginal_means, ["a"], {}),
    "weighted dose": ("weighted", marginal_means, ["dose"], {}),
    "weighted proportional": ("weighted", marginal_means, ["b"], {"weights": "proportional"}),
    "holed a by b": ("holed", marginal_means, ["a", "b"], {}),
    "holed a": ("holed", marginal_means, ["a"], {}),
    "curved b": ("curved", marginal_means, ["b"], {}),
    "curved slopes": ("curved", marginal_slopes, ["x", "x"], {"at": {"x": [30, 40, 47]}}),
    "spline slopes": ("curved", marginal_slopes, ["z", "z"], {"at": {"z": [1.2, 1.7, 3]}}),
    "nlme": ("nlme", marginal_means, ["a", "b"], {}),
}


def asked(case):
    ddf = next((own for own in DDF if case["name"].endswith(own)), "normal")
    name, function, positional, options = ASKED[case["name"].removesuffix(ddf).strip()]
    X = frame_of(FORMULAS[name][0])
    if options.get("weights") == "proportional" and name == "weighted":
        # emmeans weighs the frequencies, but not the means of covariates.
        options = options | {"sample_weight": X["w"], "at": {"x": X["x"].mean()}}
    return function(fit(name), *positional, X=X, ddf=ddf, **options)


def check(table, stored, tolerance, left_out=()):
    for name, values in stored["values"].items():
        if name in left_out:
            continue
        expected = np.array(np.atleast_1d(values), dtype=float)
        found = table[name].to_numpy()
        assert len(found) == len(expected)
        # R's ptukey has five digits after the point.
        absolute = 5e-6 if name == "p_value" else 1e-9
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=absolute, err_msg=name)


@pytest.mark.filterwarnings("ignore:marginal_means cannot estimate")
@pytest.mark.filterwarnings("ignore:compare_means cannot estimate")
@pytest.mark.parametrize("name", CASES)
def test_means_and_comparisons_are_those_of_emmeans(name):
    case = CASES[name]
    # lmerTest takes the derivatives for Satterthwaite's degrees of freedom by differences.
    tolerance = 2e-5 if name.endswith("satterthwaite") else 1e-6
    means = asked(case)
    check(means.table, case["means"], tolerance)
    for stored in case["comparisons"]:
        found = compare_means(
            means, stored["method"], adjust=ADJUST.get(stored["adjust"], stored["adjust"])
        )
        # Of contrasts without an estimate emmeans counts the intervals, but not the tests.
        is_holed = name.startswith("holed") and stored["adjust"] in ("holm", "bonferroni")
        check(found.table, stored, tolerance, ("lower", "upper") if is_holed else ())


# What is said of means without emmeans.


@pytest.fixture(scope="module")
def model():
    return fit("factorial")


def cells(frame, names, **held):
    """A row for every combination of some columns, the others as given."""
    values = [sorted(set(frame[name])) for name in names]
    grid = pd.DataFrame(list(itertools.product(*values)), columns=list(names))
    return grid.assign(**held)


def test_means_are_averages_of_predictions(model):
    frame = frame_of("factorial")
    grid = cells(frame, ["a", "b", "flag"], x=frame["x"].mean(), z=2.0, g="g1")
    grid["mean"] = model.predict(grid, random_effects="none")
    found = marginal_means(model, "a", by="b", at={"z": 2.0}).table["estimate"]
    expected = grid.groupby(["b", "a"])["mean"].mean()
    pd.testing.assert_series_equal(found, expected, check_names=False)
    overall = marginal_means(model, at={"z": 2.0}).table
    assert overall.index.tolist() == ["all"]
    np.testing.assert_allclose(overall["estimate"], grid["mean"].mean())


def test_given_weights(model):
    at = {"z": 2.0}
    by_b = dict(iter(marginal_means(model, "a", by="b", at=at).table["estimate"].groupby("b")))
    shares = {"high": 3.0, "low": 1.0, "mid": 0.0}
    expected = (3.0 * by_b["high"].to_numpy() + by_b["low"].to_numpy()) / 4.0
    for own in (shares, [3.0, 1.0, 0.0], pd.Series(shares)):
        means = marginal_means(model, "a", at=at, weights={"b": own})
        np.testing.assert_allclose(means.table["estimate"], expected)
    assert means.weights == "given"
    at_two = marginal_means(model, "a", at={"z": 2.0, "x": [30.0, 50.0]}, weights={"x": [1, 3]})
    at_one = marginal_means(model, "a", at={"z": 2.0, "x": 45.0})
    np.testing.assert_allclose(at_two.table["estimate"], at_one.table["estimate"])


def test_proportional_weights_are_those_of_the_rows_that_the_grid_has(model):
    frame = frame_of("factorial")
    chosen = frame[frame["b"].isin(["low", "mid"])]
    counts = chosen.groupby(["b", "flag"]).size()
    by_cell = marginal_means(model, ["b", "flag"], by="a", X=frame).table["estimate"]
    expected = {
        a: np.average(own.droplevel("a").loc[counts.index], weights=counts)
        for a, own in by_cell.groupby("a")
    }
    found = marginal_means(
        model, "a", at={"b": ["low", "mid"]}, X=frame, weights="proportional"
    ).table["estimate"]
    np.testing.assert_allclose(found, [expected[a] for a in found.index])


def test_a_covariate_is_at_its_mean_over_the_fit_or_over_x():
    frame = frame_of("factorial")
    plain, weighted = fit("nlme"), fit("weighted")
    assert marginal_means(plain, "a").held_at["x"] == pytest.approx(frame["x"].mean(), rel=1e-12)
    mean = np.average(frame["x"], weights=frame["w"])
    assert marginal_means(weighted, "a").held_at["x"] == pytest.approx(mean, rel=1e-12)
    part = frame.head(20)
    found = marginal_means(weighted, "a", X=part, sample_weight=part["w"])
    mean = np.average(part["x"], weights=part["w"])
    assert found.held_at["x"] == pytest.approx(mean, rel=1e-12)


def test_a_mean_far_from_zero_keeps_its_digits():
    frame = frame_of("factorial").assign(x=lambda own: own["x"] + 1e7)
    held = marginal_means(lmer("y ~ a + x + (1 | g)", frame), "a").held_at["x"]
    assert held == pytest.approx(frame["x"].mean(), rel=1e-14)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (lambda values: values, "C(dose)"),
        (pd.Categorical, "dose"),
        (lambda values: pd.Categorical(values, categories=[9, 5, 2, 1]), "dose"),
        (lambda values: values == 1, "dose"),
        (lambda values: pd.Timestamp("2026-01-01") + pd.to_timedelta(values, "D"), "C(dose)"),
        (lambda values: values.map({1: "one", 2: "two", 5: "five"}), "dose"),
    ],
)
def test_categories_of_any_kind(kind, text):
    frame = frame_of("factorial").assign(dose=lambda own: kind(own["dose"]))
    est = lmer(f"y ~ {text} + x + (1 | g)", frame)
    table = marginal_means(est, "dose").table
    assert set(table.index) == set(frame["dose"])
    grid = pd.DataFrame({"dose": frame["dose"], "x": frame["x"].mean(), "g": "g1"})
    expected = pd.Series(est.predict(grid, random_effects="none")).groupby(frame["dose"].tolist())
    for value, mean in expected.first().items():
        assert table.loc[value, "estimate"] == pytest.approx(mean)


def test_columns_without_a_formula_are_covariates():
    X, y = load_sleepstudy(return_X_y=True)
    est = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    with pytest.raises(ValueError, match="'Days' is a numeric column, and has no categories: say"):
        marginal_means(est, "Days")
    means = marginal_means(est, "Days", at={"Days": [0, 5]})
    test = contrast_test(est, [[1, 0], [1, 5]])
    np.testing.assert_allclose(means.table, test.rows[means.table.columns])
    slope = marginal_slopes(est, "Days").table
    expected = coefficient_table(est).loc[["Days"], slope.columns]
    np.testing.assert_allclose(slope, expected)
    assert marginal_means(est, X=X.head(3)).held_at == {"Days": 1.0}
    arrays = MixedLinearRegressor().fit(X[["Days"]].to_numpy(), y, groups=X["Subject"])
    means = marginal_means(arrays, "x0", at={"x0": [1, 2]})
    assert means.linear_functions.to_numpy().tolist() == [[1.0, 1.0], [1.0, 2.0]]


def test_without_random_effects_and_without_an_intercept():
    frame = frame_of("factorial")
    with pytest.warns(NoGroupsWarning):
        est = MixedLinearRegressor(formula="0 + a + x").fit(frame[["a", "x"]], frame["y"])
    means = marginal_means(est, "a", at={"x": 0.0}).table
    np.testing.assert_allclose(means["estimate"], est.coef_[:3])
    assert (means["df"] == len(frame) - 4).all()


@pytest.mark.filterwarnings("ignore:The formula")
def test_slopes_are_derivatives():
    frame = frame_of("factorial")
    right = "np.log(z) + a:z + poly(x, 3) + np.sqrt(x - 10):a + I(x**2)"
    est = lmer(f"y ~ a + {right} + (1 | g)", frame)
    for name, values in {"x": [20.0, 40.0], "z": [1.1, 4.0]}.items():
        held = {"x": 40.0, "z": 2.0} | {name: values}
        found = marginal_slopes(est, name, ["a", name], at=held).table["estimate"]
        step = 1e-4
        for (a, value), slope in found.items():
            near = [value - step, value + step]
            grid = pd.DataFrame({"a": a, "g": "g1"} | held | {name: near})
            low, high = est.predict(grid, random_effects="none")
            assert slope == pytest.approx((high - low) / (2.0 * step), rel=1e-5, abs=1e-7)


def test_the_slope_of_a_spline_far_from_zero():
    """A year: knots are nearer to each other than a share of the value."""
    years = np.tile(np.arange(2000.0, 2021.0), 8)
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"year": years, "g": np.repeat(list("abcdefgh"), 21)})
    data["y"] = np.sin(years / 3.0) + 0.1 * rng.normal(size=len(data))
    est = lmer("y ~ bs(year, df=7) + (1 | g)", data)
    found = marginal_slopes(est, "year", "year", at={"year": [2003.0, 2011.5]}).table["estimate"]
    for year, slope in found.items():
        grid = pd.DataFrame({"year": [year - 1e-3, year + 1e-3], "g": "a"})
        low, high = est.predict(grid, random_effects="none")
        assert slope == pytest.approx((high - low) / 2e-3, rel=1e-5)


def test_a_slope_at_zero():
    frame = frame_of("factorial").assign(x=lambda own: own["x"] - 40.0)
    est = lmer("y ~ a * (x + I(x**2)) + (1 | g)", frame)
    found = marginal_slopes(est, "x", "a", at={"x": 0.0}).table["estimate"]
    coef = coefficient_table(est)["estimate"]
    np.testing.assert_allclose(found["p"], coef["x"], rtol=1e-9)
    np.testing.assert_allclose(found["q"], coef["x"] + coef["a[T.q]:x"], rtol=1e-9)


def test_what_empty_cells_leave_unknown_is_nan_and_named():
    est = fit("holed")
    with pytest.warns(DegenerateModelWarning, match=r"marginal_means cannot estimate \('low', 'r'"):
        means = marginal_means(est, "a", by="b")
    unknown = means.table["estimate"].isna()
    assert unknown[unknown].index.tolist() == [("low", "r")]
    assert means.table.loc[("low", "r")].isna().all()
    assert means.note.replace("\n", " ").endswith("NaN: cannot be estimated (1).")
    # Without the interaction, or without the empty cell, all can be estimated.
    marginal_means(est, "a", at={"b": ["high", "mid"]})
    marginal_means(lmer("y ~ a + b + x + (1 | g)", frame_of("holed")), "a", by="b")
    # A weight of zero leaves a cell out.
    marginal_means(est, "a", weights={"b": {"high": 1, "low": 0, "mid": 1}})


def test_the_empty_cell_of_the_first_categories_is_unknown_too():
    """Its row has weight on the intercept alone, of which there is an estimate."""
    frame = frame_of("factorial")
    frame = frame[~((frame["a"] == "p") & (frame["b"] == "high"))]
    with pytest.warns(DegenerateModelWarning, match="aliased"):
        est = lmer("y ~ a * b + (1 | g)", frame)
    with pytest.warns(DegenerateModelWarning, match="cannot estimate"):
        means = marginal_means(est, "a", by="b").table["estimate"]
    assert means.index[means.isna()].tolist() == [("high", "p")]
    counted = frame.groupby(["b", "a"]).size()
    assert set(means.dropna().index) == set(counted.index)


@pytest.mark.filterwarnings("ignore:The fixed effects")
@pytest.mark.filterwarnings("ignore:The columns")
def test_dummies_of_all_categories_without_a_formula():
    frame = frame_of("factorial")
    X = pd.get_dummies(frame["a"], dtype=float).assign(g=frame["g"])
    est = MixedLinearRegressor(groups="g").fit(X, frame["y"])
    by_formula = marginal_means(lmer("y ~ a + (1 | g)", frame), "a").table
    found = marginal_means(est, at={"p": 0.0, "q": 1.0, "r": 0.0}).table
    np.testing.assert_allclose(found, by_formula.loc[["q"]], rtol=1e-6)
    with pytest.warns(DegenerateModelWarning, match="cannot estimate all"):
        assert marginal_means(est, at={"p": 1.0, "q": 1.0, "r": 0.0}).table.isna().all(axis=None)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=6, max_size=6),
    seed=st.integers(0, 2**16),
    shares=st.lists(st.floats(0.1, 10.0), min_size=3, max_size=3),
)
def test_neither_contrasts_nor_the_order_of_categories_matter(sizes, seed, shares):
    rng = np.random.default_rng(seed)
    pairs = list(itertools.product("ab", "xyz"))
    rows = [pair for pair, size in zip(pairs, sizes, strict=True) for _ in range(2 * size)]
    frame = pd.DataFrame(rows, columns=["s", "t"])
    frame["g"], frame["y"] = np.arange(len(frame)) % 4, rng.normal(size=len(frame))
    weights = {"t": dict(zip("xyz", shares, strict=True))}
    expected = None
    for text in ("s * t", "C(s, contr.sum) * C(t, contr.helmert)", "s:t", "t + t:s"):
        model = MixedLinearRegressor(formula=text + " + (1 | g)").fit(
            frame[["s", "t", "g"]], frame["y"]
        )
        found = marginal_means(model, "s", weights=weights, ddf="residual").table
        expected = found if expected is None else expected
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_a_transformed_response_is_named():
    est = lmer("np.log(y) ~ a + (1 | g)", frame_of("factorial"))
    means = marginal_means(est, "a")
    assert means.response == "np.log(y)"
    assert str(means).startswith("Marginal means of np.log(y), by a\n")
    assert np.log(frame_of("factorial")["y"]).mean() == pytest.approx(
        means.table["estimate"].mean(), abs=0.5
    )


def test_linear_functions_are_those_that_contrast_test_takes(model):
    means = marginal_means(model, "a", by="b", at={"z": 2.0}, ddf="kenward-roger")
    test = contrast_test(model, means.linear_functions, ddf="kenward-roger")
    np.testing.assert_allclose(means.table, test.rows[means.table.columns])


def test_tables_fit_a_page_and_say_what_they_rest_on(model):
    means = marginal_means(model, ["a", "flag"], by="b", at={"z": 2.0})
    text = str(means)
    assert max(map(len, text.split("\n"))) <= 80
    assert "degrees of freedom: satterthwaite. Held at x = 39.7003, z = 2." in text.replace(
        "\n", " "
    )
    assert means._repr_html_().startswith("<")
    text = str(marginal_means(model, "a", at={"z": 2.0}))
    assert "Averaged over b, flag (equal weights)." in text.replace("\n", " ")
    again = pickle.loads(pickle.dumps(means))
    assert str(again) == str(means)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variables": "A"}, r"'A' is no column with a fixed effect in the model\. Did you mean"),
        ({"variables": "g"}, "'g' has no fixed effect in the model"),
        ({"variables": ["a", "a"]}, "'a' is named twice"),
        ({"variables": "a", "by": "a"}, "'a' is named twice"),
        ({"variables": "x"}, "'x' is a numeric column, and has no categories"),
        ({"variables": "a"}, r"The mean of 'z' is not known: .* only in log\(z\), and"),
        ({"at": {"y": 1}}, "'y' is no column with a fixed effect"),
        ({"at": {"a": "s"}}, "at\\['a'\\] has 's', which is no category of 'a': they are 'p', 'q'"),
        ({"at": {"a": []}}, r"at\['a'\] is empty"),
        ({"at": {"a": ["p", "p"]}}, r"at\['a'\] has a value twice"),
        ({"at": {"z": "much"}}, r"at\['z'\] must hold finite numbers, got 'much'"),
        ({"at": {"z": [1.0, np.nan]}}, r"at\['z'\] must hold finite numbers"),
        ({"at": {"z": 2}, "weights": "cells"}, "weights='cells' is unknown"),
        ({"at": {"z": 2}, "weights": "proportional"}, "needs rows to count"),
        ({"at": {"z": 2}, "variables": "a", "weights": {"a": [1, 1, 1]}}, "is not averaged over"),
        ({"at": {"z": 2}, "weights": {"a": [1, 1]}}, r"weights\['a'\] must hold 3 finite numbers"),
        ({"at": {"z": 2}, "weights": {"a": [1, 1, -1]}}, r"weights\['a'\] must hold 3 finite"),
        ({"at": {"z": 2}, "weights": {"a": {"p": 1, "q": 1}}}, "'r' has none"),
        ({"at": {"z": 2}, "weights": {"a": {"p": 1, "q": 1, "r": 1, "s": 1}}}, "'s' is none"),
        ({"at": {"z": 2}, "weights": {"a": [0, 0, 0]}}, "have a weight of zero"),
        ({"at": {"z": 2}, "sample_weight": [1.0]}, "without the rows that it weighs"),
        ({"at": {"z": 2}, "ddf": "containment"}, "ddf='containment' is not a method"),
        ({"at": {"z": 2}, "level": 95}, "level must be a probability"),
    ],
)
def test_bad_arguments(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        marginal_means(model, **arguments)


def test_bad_rows(model):
    frame = frame_of("factorial")
    with pytest.raises(ValueError, match="X has no column 'z'"):
        marginal_means(model, "a", X=frame.drop(columns="z"))
    with pytest.raises(ValueError, match="'z' of X has a value that is missing or infinite"):
        marginal_means(model, "a", X=frame.assign(z=np.nan))
    with pytest.raises(ValueError, match="'x' holds no numbers"):
        marginal_means(model, "a", X=frame.assign(x="tall"))
    with pytest.raises(ValueError, match="finite number of at least zero for each of the 240 rows"):
        marginal_means(model, "a", X=frame, sample_weight=[1.0, 2.0])
    with pytest.raises(ValueError, match="X has no rows of positive weight"):
        marginal_means(model, "a", X=frame, sample_weight=np.zeros(240))
    with pytest.raises(ValueError, match=r"The value 'new' of 'b' \(row 0 of X\) was not seen"):
        marginal_means(model, "a", X=frame.assign(b="new"), weights="proportional")


def test_expressions_that_depend_on_other_rows_are_refused():
    with pytest.warns(DataWarning, match="depends on the other rows"):
        est = lmer("y ~ a + I(x - np.mean(x)) + (1 | g)", frame_of("factorial"))
    with pytest.raises(ValueError, match=r"'I\(x - np.mean\(x\)\)' of the formula depends on the"):
        marginal_means(est, "a", at={"x": 40.0})


def test_a_slope_needs_a_number(model):
    with pytest.raises(ValueError, match="'a' is categorical, and has no slope"):
        marginal_slopes(model, "a")
    with pytest.raises(ValueError, match="'u' is no column with a fixed effect"):
        marginal_slopes(model, "u")


def test_a_grid_that_is_too_large_is_refused(model, monkeypatch):
    monkeypatch.setattr("mixedlearn.inference._reference_grid.MOST_ENTRIES", 100)
    with pytest.raises(ValueError, match="The reference grid has 18 combinations of categories"):
        marginal_means(model, "a", at={"z": 2.0})


def test_what_is_no_fitted_model_is_refused():
    for function, name in (
        (marginal_means, "a"),
        (marginal_slopes, "a"),
        (compare_means, "pairwise"),
    ):
        with pytest.raises(TypeError, match="Expected a fitted MixedLinearRegressor"):
            function(np.ones(3), name)


def test_what_a_method_needs_is_said():
    frame = frame_of("factorial")
    by_ml = lmer("y ~ a + (1 | g)", frame, reml=False)
    with pytest.raises(ValueError, match="restricted maximum likelihood"):
        marginal_means(by_ml, "a", ddf="kenward-roger")
    with pytest.raises(ValueError, match="was made by for_serving"):
        marginal_means(by_ml.for_serving(), "a")
    within = lmer("y ~ 0 + a + a:x + (1 | g)", frame)
    with pytest.raises(ValueError, match="the formula has it only in interactions, and a fit"):
        marginal_means(within, "a")
    at_mean = marginal_means(within, "a", X=frame).table
    expected = marginal_means(lmer("y ~ a * x + (1 | g)", frame), "a").table
    np.testing.assert_allclose(at_mean, expected, rtol=1e-6)


def test_a_robust_covariance_serves_means_and_comparisons(model):
    frame = frame_of("factorial")
    robust = robust_covariance(model, frame, frame["y"])
    means = marginal_means(model, "a", at={"z": 2.0}, covariance=robust)
    test = contrast_test(model, means.linear_functions, covariance=robust)
    np.testing.assert_allclose(means.table, test.rows[means.table.columns])
    assert means.ddf == test.ddf == "satterthwaite, CR2"
    found = compare_means(means, adjust=None)
    test = contrast_test(model, found.linear_functions, covariance=robust)
    np.testing.assert_allclose(found.table, test.rows[found.table.columns])
    assert (compare_means(means, adjust="mvt").table["p_value"] >= found.table["p_value"]).all()
    slopes = marginal_slopes(model, "x", "a", X=frame, covariance=robust).table
    test = contrast_test(model, {"x": 1.0}, covariance=robust)
    np.testing.assert_allclose(slopes.loc["p"], test.rows[slopes.columns].iloc[0])


def test_an_offset_is_zero_and_said_to_be():
    frame = frame_of("factorial")
    beside = lmer("y ~ a + (1 | g)", frame, offset=frame["x"])
    within = lmer("y ~ a + offset(x) + (1 | g)", frame)
    expected = marginal_means(lmer("y ~ a + (1 | g)", frame.assign(y=frame["y"] - frame["x"])), "a")
    for est in (beside, within):
        means = marginal_means(est, "a")
        np.testing.assert_allclose(means.table, expected.table, rtol=1e-9)
        assert means.note.endswith("Held at (offset) = 0.")
