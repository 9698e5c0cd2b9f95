"""How results print: tables whole, p-values alike, the same in a session as by print."""

import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixedlearn import inference, lmer
from mixedlearn.datasets import load_cake, load_sleepstudy
from mixedlearn.inference._text import ResultTable, p_equation, p_text, table_html, table_text

SLEEP = load_sleepstudy().frame
X, Y = SLEEP[["Days", "Subject"]], SLEEP["Reaction"]


def models():
    return (
        lmer("Reaction ~ Days + (1 | Subject)", SLEEP),
        lmer("Reaction ~ Days + (1 + Days | Subject)", SLEEP),
    )


RESULTS = {
    "Summary": lambda m0, m1: m1.summary(),
    "ContrastTest": lambda m0, m1: inference.contrast_test(m1, np.eye(2)),
    "MarginalMeans": lambda m0, m1: inference.marginal_means(m1, "Days", at={"Days": [0, 9]}),
    "MeanComparisons": lambda m0, m1: inference.compare_means(
        m1, variables="Days", at={"Days": [0, 9]}
    ),
    "LikelihoodRatioTest": lambda m0, m1: inference.likelihood_ratio_test(m0, m1),
    "ExactTest": lambda m0, m1: inference.exact_restricted_lrt(m0, n_resamples=9),
    "ConditionalAIC": lambda m0, m1: inference.conditional_aic(m1),
    "Influence": lambda m0, m1: inference.influence(m1, X, Y, by="Subject"),
    "BootstrapResult": lambda m0, m1: inference.parametric_bootstrap(
        m1, X, n_resamples=3, random_state=0
    ),
    "ProfileLikelihood": lambda m0, m1: inference.profile_likelihood(m1, "Days", n_points=3),
    "ModelDescription": lambda m0, m1: m1.describe(X),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_show_themselves(name):
    result = RESULTS[name](*models())
    assert type(result).__name__ == name
    text = str(result)
    assert repr(result) == text
    assert not any(line != line.rstrip() for line in text.split("\n"))
    assert "..." not in text
    if name != "ModelDescription":
        assert result._repr_html_().startswith("<")


def test_wide_results_are_whole():
    cake = load_cake().frame
    model = lmer("angle ~ recipe*temperature + (1 | recipe:replicate)", cake)
    names = model.coef_covariance_.index
    result = inference.influence(model, cake, cake["angle"], by="recipe:replicate")
    for text in (str(result), result._repr_html_()):
        assert all(name in text for name in names)
    rows = str(inference.contrast_test(model, np.eye(len(names)))).split("\n")
    assert len(rows) == 1 + len(names) + 1


@pytest.mark.parametrize(
    ("p_value", "text"),
    [
        (1.0, "1.0000"),
        (0.04999, "0.0500"),
        (1e-3, "0.0010"),
        (9.99e-4, "< 0.001"),
        (6.6128e-74, "< 0.001"),
        (0.0, "< 0.001"),
        (np.nan, "nan"),
    ],
)
def test_p_values(p_value, text):
    assert p_text(p_value) == text


def test_a_p_value_in_a_sentence():
    assert p_equation(0.25) == "p = 0.2500"
    assert p_equation(0.0) == "p < 0.001"


def test_a_p_value_is_the_same_everywhere():
    m0, m1 = models()
    test = inference.contrast_test(m1, {"Days": 1.0})
    assert "p < 0.001 (" in str(test)
    assert " < 0.001 " in str(test).split("\n")[1]
    assert " < 0.001 " in str(m1.summary()).split("\n")[-1]
    assert " < 0.001" in str(inference.anova(m1))
    ratio = inference.likelihood_ratio_test(m0, m1)
    assert "gives p < 0.001." in str(ratio)
    assert "&lt; 0.001" in ratio._repr_html_()
    near = inference.contrast_test(m1, {"Days": 1.0}, rhs=10.0)
    assert f"p = {p_text(near.p_value)} (" in str(near)
    assert p_text(near.p_value) in str(near).split("\n")[1].split()


def test_digits_of_a_column():
    table = pd.DataFrame(
        {
            "estimate": [251.40510, 10.46728],
            "std_error": [6.824597, 1.545790],
            "mixed": [1234.5, 1e-9],  # sizes that differ this much have digits of their own
            "small": [1.211e-4, 3e-5],
            "smaller": [6.12e-10, 3.507e-11],
            "huge": [6.12e20, -1e19],
            "zero": [0.0, np.nan],
            "df": [17.0, np.inf],
            "lower": [237.00678, 1e-3],  # as the estimates
            "count": [3, 12],
        },
        index=["a", "b"],
    )
    with pd.option_context("display.width", 120):
        lines = [line.split() for line in table_text(table).split("\n")]
    assert lines[1] == [
        *("a", "251.41", "6.825", "1234", "0.0001211", "6.120e-10", "6.120e+20", "0.000"),
        *("17.00", "237.01", "3"),
    ]
    assert lines[2] == [
        *("b", "10.47", "1.546", "1.000e-09", "3.000e-05", "3.507e-11", "-1.000e+19"),
        *("inf", "0.00", "12"),
    ]


def test_rounding_leaves_no_sign_on_zero():
    # Beside its standard error the first estimate is zero.
    table = pd.DataFrame({"estimate": [-1e-14, 2.0], "std_error": [0.1, 0.1]})
    assert "-" not in table_text(table)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.floats(-1e300, 1e300).filter(lambda value: value == 0.0 or abs(value) > 1e-300),
        min_size=1,
        max_size=5,
    )
)
def test_every_number_has_significant_digits(values):
    shown = [line.split()[1] for line in table_text(pd.DataFrame({"x": values})).split("\n")[1:]]
    np.testing.assert_allclose([float(text) for text in shown], values, rtol=6e-3)
    assert max(map(len, shown)) <= 11


@settings(deadline=None, max_examples=50)
@given(
    st.integers(1, 30),
    st.integers(1, 4),
    st.integers(1, 60),
    st.integers(-12, 12),
    st.integers(0, 2**32 - 1),
)
def test_tables_fit_their_lines_and_are_whole(n_columns, n_rows, length, power, seed):
    names = [f"{'n' * (length % 17)}{k}" for k in range(n_columns)]
    index = [f"{'i' * length}{k}" for k in range(n_rows)]
    numbers = np.random.default_rng(seed).normal(size=(n_rows, n_columns)) * 10.0**power
    lines = repr(ResultTable(numbers, index, names)).split("\n")
    assert max(map(len, lines)) <= 80
    assert [name for line in lines for name in line.split() if name in names] == names
    # Every block repeats the names of the rows.
    n_blocks = len(lines) // (n_rows + 1)
    assert [line.split()[0] for line in lines if line[0] != " "] == index * n_blocks
    assert sum(len(line.split()) for line in lines) == (
        n_columns + n_rows * n_blocks + n_rows * n_columns
    )


TABLES = {
    "coefficient_table": lambda m1: inference.coefficient_table(m1),
    "variance_table": lambda m1: inference.variance_table(m1),
    "coefficient_covariance": lambda m1: inference.coefficient_covariance(m1),
    "anova": lambda m1: inference.anova(m1),
    "drop1": lambda m1: inference.drop1(m1),
    "confidence_intervals": lambda m1: inference.confidence_intervals(m1),
    "effect_sizes": lambda m1: inference.effect_sizes(m1),
    "intraclass_correlation": lambda m1: inference.intraclass_correlation(m1),
    "random_effects_table": lambda m1: inference.random_effects_table(m1),
    "level_coefficients": lambda m1: inference.level_coefficients(m1)["Subject"],
    "contrast_test": lambda m1: inference.contrast_test(m1, np.eye(2)).rows,
    "summary": lambda m1: m1.summary(std_error=True).random_effects,
}


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("name", TABLES)
def test_tables_print_whole_in_80_columns_in_any_unit(name, unit):
    model = lmer("y ~ Days + (1 + Days | Subject)", SLEEP.assign(y=SLEEP["Reaction"] * unit))
    table = TABLES[name](model)
    with pd.option_context("display.max_columns", 4, "display.precision", 2):
        text = str(table)
    lines = text.split("\n")
    assert max(map(len, lines)) <= 80
    assert "..." not in text
    assert all(column in text for column in table.columns)
    assert repr(table) == text
    # Digits of sizes: in any unit no estimate of theirs is printed as zero.
    for column in {"estimate", "std_error", "variance", "sd", "coef"} & set(table):
        part = table_text(table[[column]].dropna()).split("\n")[1:]
        assert all(float(line.split()[-1]) != 0.0 for line in part)


def test_a_result_is_a_data_frame():
    table = inference.coefficient_table(models()[1])
    assert isinstance(table, pd.DataFrame)
    assert table["estimate"].index.tolist() == ["intercept", "Days"]
    again = pickle.loads(pickle.dumps(table))
    assert repr(again) == repr(table)
    pd.testing.assert_frame_equal(again, table)
    # What is computed from it prints as pandas prints.
    rounded = table.round(3)
    assert repr(rounded) == repr(pd.DataFrame(rounded.to_dict()))
    assert type(rounded) is type(table.loc[["Days"]]) is pd.DataFrame


def test_long_tables_show_their_ends():
    n = 1000
    table = ResultTable({"level": np.arange(n), "estimate": np.linspace(1.0, 2.0, n)})
    lines = repr(table).split("\n")
    assert len(lines) == 1 + 5 + 1 + 5 + 2
    assert lines[1].split() == ["0", "0", "1.000"]
    assert lines[6].split() == ["...", "...", "..."]
    assert lines[-3].split() == ["999", "999", "2.000"]
    assert lines[-1] == "[1000 rows x 2 columns]"
    assert table._repr_html_().count("<tr") == 12
    with pd.option_context("display.max_rows", None):
        assert len(repr(table).split("\n")) == 1 + n
    pairs = table.set_index(pd.MultiIndex.from_product([["a", "b"], range(n // 2)]))
    assert repr(pairs) != repr(ResultTable(pairs))
    assert repr(ResultTable(pairs)).split("\n")[6].split() == ["...", "...", "...", "..."]


def test_a_wider_line_is_an_option_of_pandas():
    cake = load_cake().frame
    model = lmer("angle ~ recipe*temperature + (1 | recipe:replicate)", cake)
    assert str(model.summary()).count("recipe[T.B]:temperature[T.225]") == 2
    with pd.option_context("display.width", 120):
        assert str(model.summary()).count("recipe[T.B]:temperature[T.225]") == 1


def test_an_empty_table():
    assert "estimate" in repr(ResultTable(columns=["estimate"]))


def test_html_is_escaped():
    table = pd.DataFrame({"estimate": [1.0]}, index=["<i>"])
    assert "<i>" not in table_html(table)
    frame = SLEEP.rename(columns={"Subject": "<i>"})
    model = lmer("Reaction ~ Days + (1 | `<i>`)", frame)
    for result in (
        inference.exact_restricted_lrt(model, n_resamples=9),
        inference.profile_likelihood(model, "sd(intercept|<i>)", n_points=2),
        inference.influence(model, frame, Y, by="<i>"),
    ):
        assert "<i>" in str(result)
        assert "<i>" not in result._repr_html_()


def test_printing_leaves_tables_as_they_are():
    result = models()[1].summary()
    before = result.random_effects.copy()
    str(result), result._repr_html_()
    pd.testing.assert_frame_equal(result.random_effects, before)
    assert result.random_effects.index.names == ["factor", "effect"]
    assert "<th>factor</th>" not in table_html(before)
