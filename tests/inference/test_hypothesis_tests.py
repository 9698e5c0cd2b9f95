"""Tests of terms and contrasts: which hypothesis is tested, and what is refused.

Without random effects an F test compares the residual sums of squares of two regressions, so the
hypotheses of all types can be checked without any matrix of contrasts. The hypotheses do not depend
on the random effects.
"""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import f as f_distribution

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.datasets import load_cake, load_sleepstudy
from mixedlearn.inference import anova, coefficient_table, contrast_test
from mixedlearn.model.known import Known
from mixedlearn.specification import Term

NO_GROUPS = "ignore::mixedlearn.exceptions.NoGroupsWarning"


# --- two categorical variables, their interaction, a covariate -----------------------------------
def layout(cells=(4, 7, 2, 6, 3, 8), seed=0):
    """A (two values) and B (three), cells of unequal sizes."""
    rng = np.random.default_rng(seed)
    A = np.repeat([0, 0, 0, 1, 1, 1], cells)
    B = np.repeat([0, 1, 2, 0, 1, 2], cells)
    n = len(A)
    x = rng.standard_normal(n) + 0.5 * A + 10.0
    y = 1.0 + 0.5 * A + 0.3 * B + 0.4 * A * B + 0.2 * x + rng.standard_normal(n)
    return A, B, x, y, rng.integers(0, 6, n), rng.uniform(0.3, 3.0, n)


def treatment(A, B, x):
    a = (A == 1).astype(float)
    b = np.column_stack([B == 1, B == 2]).astype(float)
    return pd.DataFrame(
        np.column_stack([a, b, x, a[:, None] * b]), columns=["A1", "B1", "B2", "x", "A1B1", "A1B2"]
    )


def sum_to_zero(A, B):
    a = np.where(A == 0, 1.0, -1.0)[:, None]
    b = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])[B]
    return a, b, a * b


def terms():
    rows = np.eye(7)
    interaction = rows[5:]
    return (
        Term("A", (1,), frozenset("A"), frozenset(), rows[[1]] + interaction.sum(axis=0) / 3.0),
        Term("B", (2, 3), frozenset("B"), frozenset(), rows[2:4] + interaction / 2.0),
        Term("x", (4,), frozenset("x"), frozenset("x"), rows[[4]]),
        Term("A:B", (5, 6), frozenset("AB"), frozenset(), interaction),
    )


def by_terms(model):
    """The fitted model with columns that belong together."""
    fitted = model._fitted.model
    recipe = fitted.recipe.of(replace(fitted.specification, terms=terms()))
    model._fitted = replace(model._fitted, known=Known(replace(fitted, recipe=recipe)))
    return model


def residual_square(y, columns, weights):
    root = np.sqrt(weights)
    X = root[:, None] * np.column_stack([np.ones(len(y)), *columns])
    rest = root * y - X @ np.linalg.lstsq(X, root * y, rcond=None)[0]
    return rest @ rest


def comparisons(A, B, x):
    """For every type and term, the columns of the smaller and of the larger model."""
    a, b, ab = sum_to_zero(A, B)
    return {
        (1, "A"): ([], [a]),
        (1, "B"): ([a], [a, b]),
        (1, "x"): ([a, b], [a, b, x]),
        (1, "A:B"): ([a, b, x], [a, b, x, ab]),
        (2, "A"): ([b, x], [a, b, x]),
        (2, "B"): ([a, x], [a, b, x]),
        (2, "x"): ([a, b, ab], [a, b, ab, x]),
        (2, "A:B"): ([a, b, x], [a, b, x, ab]),
        (3, "A"): ([b, ab, x], [a, b, ab, x]),
        (3, "B"): ([a, ab, x], [a, b, ab, x]),
        (3, "x"): ([a, b, ab], [a, b, ab, x]),
        (3, "A:B"): ([a, b, x], [a, b, x, ab]),
    }


@pytest.mark.filterwarnings(NO_GROUPS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [1, 2, 3])
def test_types_compare_regressions(kind, weighted):
    A, B, x, y, _, weights = layout()
    X = treatment(A, B, x)
    weights = weights if weighted else np.ones(len(y))
    model = by_terms(MixedLinearRegressor().fit(X, y, sample_weight=weights))
    table = anova(model, kind)
    assert list(table.index) == ["A", "B", "x", "A:B"]
    assert table["num_df"].tolist() == [1, 2, 1, 2]
    df = len(y) - 7
    noise = residual_square(y, [X], weights) / df
    for name, row in table.iterrows():
        small, large = comparisons(A, B, x)[kind, name]
        square = residual_square(y, small, weights) - residual_square(y, large, weights)
        expected = square / row["num_df"] / noise
        np.testing.assert_allclose(row["f_value"], expected, rtol=1e-7)
        np.testing.assert_allclose(row["sum_sq"], square, rtol=1e-7)
        np.testing.assert_allclose(row["mean_sq"] * row["num_df"], square, rtol=1e-7)
        tail = f_distribution.sf(expected, row["num_df"], df)
        np.testing.assert_allclose(row["p_value"], tail, rtol=1e-6)
    pd.testing.assert_frame_equal(table, anova(model, "I" * kind))


@pytest.mark.filterwarnings(NO_GROUPS)
@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("A", ["x", "z", "B", "A:x", "x:z"]),  # not A:B, but its slopes
        ("x", ["A", "z", "B", "A:B", "x:z"]),  # not A:x, but the product with z
        ("z", ["A", "x", "B", "A:B", "A:x", "x:z"]),
        ("A:x", ["A", "x", "z", "B", "A:B", "x:z"]),
    ],
)
def test_type_two_with_covariates(name, others):
    """SAS's rule: a term contains those with the same covariates and fewer categorical variables.

    Everything else is adjusted for, the slopes within the levels of A before A itself.
    """
    A, B, x, y, *_ = layout(cells=(5, 7, 3, 6, 4, 8))
    z = np.random.default_rng(5).standard_normal(len(y)) + 1.0
    y = y + 0.3 * A * x + 0.2 * x * z
    frame = pd.DataFrame({"y": y, "x": x, "z": z, "A": A.astype(str), "B": B.astype(str)})
    table = anova(lmer("y ~ A*B + A*x + x*z", frame), 2)
    a, b, ab = sum_to_zero(A, B)
    # In these columns A without its interaction with x is the difference at x = 0.
    columns = {"A": a, "B": b, "A:B": ab, "x": x, "z": z, "A:x": a[:, 0] * x, "x:z": x * z}
    ones = np.ones(len(y))
    small = residual_square(y, [columns[other] for other in others], ones)
    large = residual_square(y, [columns[other] for other in [*others, name]], ones)
    np.testing.assert_allclose(table.loc[name, "sum_sq"], small - large, rtol=1e-7)


@pytest.mark.filterwarnings(NO_GROUPS)
def test_without_an_intercept_the_first_term_is_not_adjusted():
    A, B, x, y, *_ = layout()
    X = treatment(A, B, x)[["x", "A1"]] + [1e4, 0.0]
    model = MixedLinearRegressor(fit_intercept=False).fit(X, y)
    columns = X.to_numpy()
    noise = np.linalg.lstsq(columns, y, rcond=None)[1][0]
    first = np.linalg.lstsq(columns[:, :1], y, rcond=None)[1][0]
    expected = np.array([y @ y - first, first - noise]) / (noise / (len(y) - 2))
    np.testing.assert_allclose(anova(model, 1)["f_value"], expected, rtol=1e-7)


@pytest.mark.filterwarnings(NO_GROUPS)
@pytest.mark.filterwarnings("ignore::mixedlearn.exceptions.DegenerateModelWarning")
def test_an_empty_cell():
    """The interaction keeps one of two degrees of freedom; hypotheses do not depend on the rest."""
    A, B, x, y, _, weights = layout(cells=(4, 7, 2, 6, 3, 0))
    weights = np.ones(len(y))
    model = by_terms(MixedLinearRegressor().fit(treatment(A, B, x), y))
    a, b, ab = sum_to_zero(A, B)
    noise = residual_square(y, [a, b, ab, x], weights) / (len(y) - 6)
    for kind in (1, 2, 3):
        row = anova(model, kind).loc["A:B"]
        square = residual_square(y, [a, b, x], weights) - residual_square(y, [a, b, x, ab], weights)
        assert row["num_df"] == 1
        np.testing.assert_allclose(row["f_value"], square / noise, rtol=1e-7)
        assert row["den_df"] == len(y) - 6
    # The average effect of A over B cannot be estimated without the empty cell; that of B over A
    # can, between its first two values.
    table = anova(model, 3)
    assert table["num_df"].tolist() == [0, 1, 1, 1]
    assert table.loc["A", ["sum_sq", "den_df", "f_value", "p_value"]].isna().all()
    test = contrast_test(model, {"B1": 1.0, "A1B1": 0.5})
    np.testing.assert_allclose(table.loc["B", "f_value"], test.f_value, rtol=1e-9)
    with pytest.raises(ValueError, match="'A1B2'"):
        contrast_test(model, {"A1B2": 1.0})


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_types_agree_for_orthogonal_terms(ddf):
    A, B, x, y, groups, _ = layout(cells=(12,) * 6)
    x = np.tile(np.arange(12) - 5.5, 6)  # the same in every cell
    y = y + np.random.default_rng(1).standard_normal(12)[np.tile(np.arange(12), 6)]
    groups = np.tile(np.arange(12), 6)
    model = by_terms(MixedLinearRegressor().fit(treatment(A, B, x), y, groups=groups))
    first = anova(model, 1, ddf)
    for kind in (2, 3):
        np.testing.assert_allclose(anova(model, kind, ddf), first, rtol=1e-6)
    np.testing.assert_allclose(first.loc[["A", "B", "A:B"], "den_df"], 55.0, rtol=1e-6)
    np.testing.assert_allclose(first.loc["x", "den_df"], 10.0, rtol=1e-6)


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger", "residual", "normal"])
def test_terms_of_a_mixed_model_are_contrasts(ddf):
    """Of types 2 and 3, by hand; of type 1, the last term."""
    A, B, x, y, groups, weights = layout()
    y = y + 2.0 * np.random.default_rng(3).standard_normal(6)[groups]
    model = by_terms(
        MixedLinearRegressor().fit(treatment(A, B, x), y, groups=groups, sample_weight=weights)
    )
    interaction = contrast_test(model, pd.DataFrame({"A1B1": [1.0, 0.0], "A1B2": [0.0, 1.0]}), ddf)
    for kind in (1, 2, 3):
        row = anova(model, kind, ddf).loc["A:B"]
        found = row[["f_value", "num_df", "den_df", "p_value"]]
        wanted = interaction.f_value, interaction.num_df, interaction.den_df, interaction.p_value
        # Of type 1 the rows are others for the same hypothesis, which Satterthwaite's method feels.
        tolerance = 1e-3 if kind == 1 and ddf == "satterthwaite" else 1e-6
        np.testing.assert_allclose(found.astype(float), wanted, rtol=tolerance)
    average = contrast_test(model, {"A1": 1.0, "A1B1": 1 / 3, "A1B2": 1 / 3}, ddf)
    np.testing.assert_allclose(anova(model, 3, ddf).loc["A", "f_value"], average.f_value)
    assert average.f_value == pytest.approx(average.t_value[0] ** 2)
    table = coefficient_table(model, ddf)
    for kind in (2, 3):
        row = anova(model, kind, ddf).loc["x"]
        assert row["f_value"] == pytest.approx(table.loc["x", "t_value"] ** 2)
        assert row["den_df"] == pytest.approx(table.loc["x", "df"])
        assert row["p_value"] == pytest.approx(table.loc["x", "p_value"], rel=1e-8)
        if ddf != "kenward-roger":
            noise = model.noise_variance_
            assert row["mean_sq"] == pytest.approx(row["f_value"] * noise)


def by_formula(formula):
    """Two factors and a covariate in unbalanced cells, with random slopes of the covariate."""
    A, B, x, y, groups, _ = layout(cells=(5, 7, 3, 6, 4, 8), seed=4)
    effects = np.random.default_rng(5).standard_normal((6, 2))[groups]
    y = y + effects[:, 0] + effects[:, 1] * (x - 10.0)
    columns = {"y": y, "x": x, "A": A.astype(str), "B": B.astype(str), "g": groups}
    return lmer(formula, pd.DataFrame(columns))


def test_rows_of_type_three_have_one_own_coefficient_each():
    """Which rows say the hypothesis matters to Satterthwaite's method: these are lmerTest's."""
    model = by_formula("y ~ A*B + x + (1 + x | g)")
    names = list(model.coef_covariance_.index)
    interaction = "A[T.1]:B[T.1]", "A[T.1]:B[T.2]"
    half = dict.fromkeys(names, 0.0)
    B = pd.DataFrame(
        [half | {f"B[T.{b}]": 1.0, f"A[T.1]:B[T.{b}]": 0.5} for b in (1, 2)], columns=names
    )
    AB = pd.DataFrame([half | {name: 1.0} for name in interaction], columns=names)
    table = anova(model, 3)
    for name, rows in (("B", B), ("A:B", AB)):
        test = contrast_test(model, rows)
        found = table.loc[name, ["f_value", "den_df"]].astype(float)
        np.testing.assert_allclose(found, (test.f_value, test.den_df), rtol=1e-9)


def test_a_single_term_is_tested_alike_by_all_types():
    model = by_formula("y ~ B + (1 + x | g)")
    first = anova(model, 1)
    for kind in (2, 3):
        pd.testing.assert_frame_equal(anova(model, kind), first)


def test_types_have_names(fitted):
    for kind in (0, 4, "IV", "2", None):
        with pytest.raises(ValueError, match="is not a type of hypotheses"):
            anova(fitted, kind)


# --- contrasts -----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(5)
    codes = rng.integers(0, 9, 70)
    X = pd.DataFrame(rng.standard_normal((70, 3)), columns=["u", "v", "w"])
    y = X["u"] + rng.standard_normal(70) + rng.standard_normal(9)[codes] * (1.0 + X["v"])
    return MixedLinearRegressor(random_slopes=["v"]).fit(X, y, groups=codes)


def test_a_coefficient_is_a_contrast(fitted):
    for ddf in ("satterthwaite", "kenward-roger", "residual", "normal"):
        table = coefficient_table(fitted, ddf)
        test = contrast_test(fitted, {"v": 1}, ddf)
        np.testing.assert_allclose(test.rows.iloc[0], table.loc["v"])
        assert test.num_df == 1
        assert test.f_value == pytest.approx(table.loc["v", "t_value"] ** 2)
        assert test.p_value == pytest.approx(table.loc["v", "p_value"])
        assert test.den_df == pytest.approx(table.loc["v", "df"])


def test_contrasts_may_be_given_in_many_ways(fitted):
    expected = contrast_test(fitted, [0.0, 1.0, -1.0, 0.0])
    for same in (
        np.array([[0, 1, -1, 0]]),
        {"u": 1, "v": -1},
        pd.Series({"v": -1.0, "u": 1.0}),
        pd.DataFrame({"u": [1], "v": [-1]}, index=["difference"]),
    ):
        test = contrast_test(fitted, same)
        assert test.f_value == expected.f_value
        np.testing.assert_array_equal(test.rows, expected.rows)
    assert test.rows.index.tolist() == ["difference"]
    estimate = fitted.coef_[0] - fitted.coef_[1]
    np.testing.assert_allclose(test.estimate, [estimate])
    covariance = fitted.coef_covariance_.to_numpy()[1:3, 1:3]
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2.0 * covariance[0, 1])
    np.testing.assert_allclose(test.std_error, [error])
    np.testing.assert_allclose(test.t_value, [estimate / error])


def test_hypothetical_values(fitted):
    table = coefficient_table(fitted)
    test = contrast_test(fitted, {"u": 2.0}, rhs=1.5)
    t_value = (2.0 * table.loc["u", "estimate"] - 1.5) / (2.0 * table.loc["u", "std_error"])
    np.testing.assert_allclose(test.t_value, [t_value])
    assert test.f_value == pytest.approx(t_value**2)
    # At the estimates themselves nothing speaks against them.
    test = contrast_test(fitted, np.eye(4), rhs=table["estimate"].to_numpy())
    assert test.f_value == pytest.approx(0.0, abs=1e-20)
    assert test.p_value == pytest.approx(1.0)
    # The interval holds the values that are not rejected.
    lower = contrast_test(fitted, {"u": 1.0}).rows["lower"].iloc[0]
    assert contrast_test(fitted, {"u": 1.0}, rhs=lower).p_value == pytest.approx(0.05)


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger", "residual", "normal"])
def test_rows_that_depend_on_each_other(fitted, ddf):
    rows = np.eye(4)[1:3]
    expected = contrast_test(fitted, rows, ddf, rhs=[0.5, 0.2])
    more = np.vstack([rows, 1e3 * (rows[0] + rows[1]), np.zeros(4)])
    test = contrast_test(fitted, more, ddf, rhs=[0.5, 0.2, 700.0, 0.0])
    assert test.num_df == 2
    assert test.f_value == pytest.approx(expected.f_value)
    if ddf != "satterthwaite":  # whose degrees of freedom depend on the rows
        assert test.den_df == pytest.approx(expected.den_df)
        assert test.p_value == pytest.approx(expected.p_value)
    assert test.rows.iloc[-1][["t_value", "p_value"]].isna().all()
    with pytest.raises(ValueError, match="contradict"):
        contrast_test(fitted, more, ddf, rhs=[0.5, 0.2, 600.0, 0.0])
    nothing = contrast_test(fitted, np.zeros(4), ddf)
    assert nothing.num_df == 0
    assert np.isnan(nothing.p_value)


@pytest.mark.parametrize("ddf", ["kenward-roger", "residual", "normal"])
def test_the_same_hypothesis_in_other_words(fitted, ddf):
    rows = np.eye(4)[1:]
    expected = contrast_test(fitted, rows, ddf)
    turned = np.array([[1.0, 2.0, 0.0], [1e5, -1e5, 3e5], [0.0, 1e-4, 1e-4]]) @ rows
    test = contrast_test(fitted, turned, ddf)
    assert test.num_df == 3
    for name in ("f_value", "den_df", "p_value"):
        assert getattr(test, name) == pytest.approx(getattr(expected, name), rel=1e-7)


@pytest.mark.parametrize(
    ("contrast", "message"),
    [
        ([1.0, 0.0], r"shape \(2,\), but there are 4 coefficients \(intercept, u, v, w\)"),
        (np.zeros((0, 4)), "shape"),
        (np.zeros((1, 1, 4)), "shape"),
        ({"x": 1.0}, "'x', which the model does not have.*'intercept', 'u'"),
        (pd.DataFrame([[1.0, 2.0]], columns=["u", "u"]), "'u' twice"),
        ([0.0, np.nan, 0.0, 0.0], "not finite"),
        (["a", "b", "c", "d"], "must hold numbers"),
        ([[1.0], [1.0, 2.0]], "must hold numbers"),
    ],
)
def test_contrasts_that_make_no_sense_are_refused(fitted, contrast, message):
    with pytest.raises(ValueError, match=message):
        contrast_test(fitted, contrast)


def test_hypothetical_values_that_make_no_sense_are_refused(fitted):
    with pytest.raises(ValueError, match="rhs has shape"):
        contrast_test(fitted, np.eye(4), rhs=[1.0, 2.0])
    with pytest.raises(ValueError, match="not finite"):
        contrast_test(fitted, np.eye(4), rhs=np.nan)
    with pytest.raises(ValueError, match="level"):
        contrast_test(fitted, {"u": 1.0}, level=1.0)


def test_a_test_prints(fitted):
    test = contrast_test(fitted, {"u": 1, "v": -1}, "kenward-roger")
    text = str(test)
    assert f"{test.estimate[0]:.3f}" in text
    assert f"F(1, {test.den_df:.5g}) = {test.f_value:.5g}" in text
    assert "<table" in test._repr_html_()


def test_the_model_is_left_as_it_is(fitted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = fitted.theta_.copy(), fitted.coef_covariance_
        anova(fitted)
        coefficient_table(fitted, "kenward-roger")
    np.testing.assert_array_equal(fitted.theta_, before[0])
    pd.testing.assert_frame_equal(fitted.coef_covariance_, before[1])


# --- fits by maximum likelihood -----------------------------------------------------------------
def test_a_fit_by_ml_is_tested_with_its_own_variances():
    """lmerTest 3.1.3 under lme4 1.1.31, REML=FALSE, sums to zero; lme4 prints the same F."""
    cakes = load_cake().frame
    model = lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", cakes, reml=False)
    table = anova(model)
    np.testing.assert_allclose(table["f_value"], [0.2666, 21.9856, 1.0781], atol=6e-5)
    np.testing.assert_allclose(table["den_df"], [45.0, 225.0, 225.0], rtol=1e-6)
    np.testing.assert_allclose(anova(model, ddf="residual")["f_value"], table["f_value"])


@pytest.mark.filterwarnings(NO_GROUPS)
def test_least_squares_by_reml_have_the_f_of_rs_lm():
    """By ML the variance of the noise is that over all rows."""
    sleepstudy = load_sleepstudy().frame
    by_reml, by_ml = (lmer("Reaction ~ Days", sleepstudy, reml=reml) for reml in (True, False))
    row = anova(by_reml, ddf="residual").loc["Days"]
    assert row["f_value"] == pytest.approx(71.464, abs=6e-4)
    assert row["p_value"] == pytest.approx(9.894e-15, rel=1e-3)
    ratio = anova(by_ml, ddf="residual").loc["Days", "f_value"] / row["f_value"]
    assert ratio == pytest.approx(180 / 178)
