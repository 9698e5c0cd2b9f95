"""Formulas, and data for them, that are refused: the message says what is wrong and where."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.formula.brackets import FormulaError


def made_up(n=60):
    random = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "Time": random.normal(size=n),
            "dose": random.normal(size=n),
            "a": np.array(["p", "q", "r"])[np.arange(n) % 3],
            "Pig": np.arange(n) // 6,
            "pen": np.arange(n) % 5,
        }
    )
    return X, random.normal(size=n)


def assert_points_at(error, formula, position):
    """The last two lines are the formula and a caret."""
    *_, line, caret = str(error).split("\n")
    assert line == f"    {formula}"
    assert caret == f"    {' ' * position}^"


# A caret in front of the place that the message points at.
WRONG = [
    ("⌃", "is empty"),
    ("⌃~ ", "nothing on the right of '~'"),
    ("y ~ Time ⌃~ dose", "a second '~'"),
    # Brackets and quotes
    ("Time + ⌃(1 | Pig", r"'\(' is not closed"),
    ("Time + (1 | Pig)⌃)", r"'\)' closes nothing"),
    ("np.log⌃(Time", r"'\(' is not closed"),
    ("Time + ⌃`Pig", "quote is not closed"),
    ("Time⌃]", r"'\]' closes nothing"),
    # Bars
    ("Time + 1 ⌃| Pig", "outside of parentheses"),
    ("Time + 1 ⌃|| Pig", "outside of parentheses"),
    ("Time + (1 | Pig ⌃| pen)", "two bars"),
    ("Time + (1 || Pig ⌃| pen)", "two bars"),
    ("Time + (⌃| Pig)", "nothing on the left of the bar"),
    ("Time + (1 ⌃| )", "nothing on the right of the bar"),
    ("(⌃(1 | Pig) | pen)", "within another"),
    # How random terms are joined
    ("Time ⌃* (1 | Pig)", r"joined by '\*'"),
    ("Time⌃:(1 | Pig)", "joined by ':'"),
    ("(1 | Pig)⌃*Time", r"joined by '\*'"),
    ("(1 | Pig) ⌃: (1 | pen)", "joined by ':'"),
    ("Time ⌃- (1 | Pig)", "cannot be subtracted"),
    ("dose ⌃* (Time + (1 | Pig))", r"joined by '\*'"),
    ("Tim⌃e (1 | Pig)", "joined by 'e'"),
    ("⌃Time(1 | Pig)", "column of X, not a function: is a '\\+' missing"),
    # The right of the bar
    ("(1 | Pig ⌃+ pen)", "must name columns.*write a term for each"),
    ("(1 | Pig⌃*pen)", r"must name columns.*a\*b is"),
    ("(1 | factor⌃(Pig))", "must name columns.*put what is computed"),
    ("(1 | ⌃1)", "must name columns"),
    ("(1 | Pig⌃:)", "must name columns"),
    ("(1 | Pig ⌃pen)", "must name columns"),
    ("(1 | Pig:⌃Pig)", "names the column 'Pig' twice"),
    ("(1 | ⌃pig)", "names 'pig', which X does not have. Did you mean 'Pig'"),
    ("(1 | pen:⌃pig)", "names 'pig', which X does not have. Did you mean 'Pig'"),
    ("(1 | Pig) + (1 | ⌃pig)", "names 'pig', which X does not have"),
    # The left of the bar
    ("Time + ⌃(0 | Pig)", "no effect: 0 leaves out"),
    ("Time + (⌃. | Pig)", "name those with a random slope"),
    ("(1 | Pig) + ⌃(Time | Pig)", "'intercept' of the factor 'Pig' is there twice.*starts with 0"),
    ("(Time | Pig) + ⌃(0 + Time | Pig)", "'Time' of the factor 'Pig' is there twice"),
    ("(1 | Pig:pen) + ⌃(1 | pen:Pig)", "of the factor 'Pig:pen' is there twice"),
    ("(1 | Pig/pen) + ⌃(1 | Pig)", "of the factor 'Pig' is there twice"),
    ("Time + (1 + ⌃Tme | Pig)", "Did you mean 'Time'"),
    # Names
    ("⌃Tme + (1 | Pig)", "names 'Tme', which X does not have. Did you mean 'Time'"),
    ("Time + I(⌃Tme**2) + (1 | Pig)", "Did you mean 'Time'"),
    ("Time + ⌃`a b` + (1 | Pig)", "names 'a b'"),
    ("⌃factor(a) + (1 | Pig)", r"'factor' is no known function.*C\(x\)"),
    ("⌃pol(Time, 2)", "no known function. In its place: poly"),
    ("dose + ⌃as.factor(a) + (1 | Pig)", r"'as.factor' is no known function.*C\(x\)"),
    ("⌃sqrt(Time) + (1 | Pig)", r"no known function. In its place: np\.sqrt\."),
    ("Time + ⌃s(dose)", "no known function. Known are .*poly.*into a column of X"),
    ("(⌃diag(Time) | Pig)", r"no known function. In its place: \(x \|\| g\)"),
    ("⌃body weight + (1 | Pig)", "Missing operator.*need backticks"),
    ("Time:dose + ⌃dos", "Did you mean 'dose'"),
    ("⌃Q(Time) + (1 | Pig)", r"Q\(\) takes the name of a column in quotes"),
    # Habits of R
    ("I(Time⌃^2) + (1 | Pig)", r"no power in Python: write \*\*"),
    ("dose + Time⌃^2 + (1 | Pig)", r"write I\(Time\*\*2\)"),
    ("Time⌃**2", r"write I\(Time\*\*2\)"),
    ("Time:⌃offset(dose) + (1 | Pig)", "term of its own"),
    ("Time - ⌃offset(dose)", "term of its own"),
    ("Time + offset⌃() + (1 | Pig)", "offset is empty"),
    # What formulaic refuses
    ("Time ⌃+", "cannot be read: Operator `\\+`"),
    ("Time ⌃$ dose", "cannot be read: Unknown operator"),
    ("Time ⌃= dose", "cannot be read"),
    ("⌃2 + Time", "cannot be read: Numeric literals"),
    ("Time + I(dose +⌃) + (1 | Pig)", "cannot be read: invalid syntax"),
    # Python that fails
    ("Time + ⌃np.foo(dose) + (1 | Pig)", "'np.foo\\(dose\\)' cannot be computed.*no attribute"),
    ("⌃dose.foo() + (1 | Pig)", "cannot be computed"),
]


@pytest.mark.parametrize(("marked", "message"), WRONG)
def test_a_wrong_formula(marked, message):
    X, y = made_up()
    formula, position = marked.replace("⌃", ""), marked.index("⌃")
    with pytest.raises(ValueError, match=message) as caught:
        MixedLinearRegressor(formula=formula).fit(X, y)
    assert_points_at(caught.value, formula, position)


def test_a_formula_of_several_lines():
    X, y = made_up()
    with pytest.raises(ValueError, match="Tme") as caught:
        MixedLinearRegressor(formula="dose\n  + Tme\n  + (1 | Pig)").fit(X, y)
    assert_points_at(caught.value, "  + Tme", 4)


def test_the_columns_are_listed():
    X, y = made_up()
    with pytest.raises(ValueError, match="Its columns are: 'Time', 'dose', 'a', 'Pig', 'pen'"):
        MixedLinearRegressor(formula="nothing").fit(X, y)


def test_the_error_can_be_pickled():
    error = FormulaError("Wrong", "a + b", 4)
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "Wrong\n    a + b\n        ^"


def test_no_error_of_the_parser_comes_along():
    X, y = made_up()
    for formula in ["Time +", "Time $ dose", "I(dose +)", "as.factor(a)"]:
        with pytest.raises(FormulaError) as caught:
            MixedLinearRegressor(formula=formula).fit(X, y)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


# lmer


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("REML", "lmer has no parameter 'REML'. Did you mean 'reml'"),
        ("weights", "lmer has no parameter 'weights'. Did you mean 'sample_weight'"),
        ("control", "lmer has no parameter 'control'"),
        ("contrasts", r"'contrasts'\. Name them in the formula: C\(x, contr\.sum\)"),
        ("subset", r"'subset'\. Pass those rows of the data"),
    ],
)
def test_a_parameter_of_r(name, message):
    X, y = made_up()
    with pytest.raises(TypeError, match=message):
        lmer("y ~ Time + (1 | Pig)", X.assign(y=y), **{name: None})


def test_weights_in_a_column_that_the_formula_uses():
    X, y = made_up()
    with pytest.raises(FormulaError, match="names 'Time', which X does not have"):
        lmer("y ~ Time + (1 | Pig)", X.assign(y=y), sample_weight="Time")


def test_data_before_the_formula():
    X, y = made_up()
    with pytest.raises(TypeError, match=r"the formula, a string .*: got DataFrame for the formula"):
        lmer(X.assign(y=y), "y ~ Time + (1 | Pig)")


@pytest.mark.parametrize(
    ("marked", "message"),
    [
        ("Time + (1 | Pig⌃)", "has no '~'"),
        ("⌃~ Time", "no response"),
        ("y ~ Time ⌃~ dose", "a second '~'"),
        ("y ~ Time + ⌃", "cannot be read"),
    ],
)
def test_a_wrong_formula_with_a_response(marked, message):
    X, y = made_up()
    with pytest.raises(ValueError, match=message) as caught:
        lmer(marked.replace("⌃", ""), X.assign(y=y))
    if "read" not in message:
        assert_points_at(caught.value, marked.replace("⌃", ""), marked.index("⌃"))


def test_an_unknown_response():
    X, y = made_up()
    with pytest.raises(ValueError, match=r"names 'Y'.* Did you mean 'y'"):
        lmer("log(Y) ~ Time", X.assign(y=y))


@pytest.mark.parametrize("response", ["a", "poly(y, 2)", "1", "C(pen)"])
def test_a_response_that_is_not_one_numeric_column(response):
    X, y = made_up()
    with pytest.raises(ValueError, match="response must be one numeric column"):
        lmer(f"{response} ~ Time + (1 | Pig)", X.assign(y=y))


def test_a_response_with_a_missing_value():
    X, y = made_up()
    y[3] = np.nan
    with pytest.raises(ValueError, match=r"column 'y' of the formula has a missing.* row 3"):
        lmer("y ~ Time + (1 | Pig)", X.assign(y=y))


def test_data_without_names():
    X, y = made_up()
    with pytest.raises(ValueError, match="data must be a DataFrame, got ndarray"):
        lmer("y ~ Time", X.assign(y=y).to_numpy())
    with pytest.raises(ValueError, match="X must be a DataFrame, got ndarray"):
        MixedLinearRegressor(formula="Time").fit(X.to_numpy(), y)
    with pytest.raises(ValueError, match=r"names 'Time'.*Its columns are: '0', '1'"):
        MixedLinearRegressor(formula="Time").fit(pd.DataFrame(np.zeros((60, 2))), y)


# Parameters and groups beside a formula


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("groups", "Pig"),
        ("groups", ["Pig"]),
        ("fixed_effects", ["Time"]),
        ("fixed_effects", []),
        ("random_intercept", False),
        ("random_intercept", {"Pig": True}),
        ("random_slopes", ["Time"]),
        ("covariance", "diagonal"),
        ("covariance", np.eye(2, dtype=bool)),
        ("fit_intercept", False),
    ],
)
def test_parameters_beside_a_formula(name, value):
    X, y = made_up()
    model = MixedLinearRegressor(formula="Time + (1 | Pig)", **{name: value})
    for call in (lambda: model.fit(X, y), lambda: model.describe(X)):
        with pytest.raises(ValueError, match=f"formula and {name} are both given"):
            call()


def test_the_defaults_may_be_given_beside_a_formula():
    X, y = made_up()
    MixedLinearRegressor(
        formula="Time + (1 | Pig)",
        covariance="".join(["fu", "ll"]),
        random_intercept=np.bool_(True),
    ).fit(X, y)


@pytest.mark.parametrize("formula", ["Time + (1 | Pig)", "Time"])
def test_groups_beside_a_formula(formula):
    X, y = made_up()
    model = MixedLinearRegressor(formula=formula)
    with pytest.raises(ValueError, match="names the grouping factors itself"):
        model.fit(X, y, groups=X["Pig"])
    model = MixedLinearRegressor(formula="Time + (1 | Pig)").fit(X, y)
    with pytest.raises(ValueError, match="names the grouping factors itself"):
        model.predict(X, groups=X["Pig"])


def test_a_formula_that_is_no_text():
    X, y = made_up()
    with pytest.raises(ValueError, match="'formula' parameter"):
        MixedLinearRegressor(formula=["Time"]).fit(X, y)


# Data


def refused(formula, X, y, message):
    with pytest.raises(ValueError, match=message):
        MixedLinearRegressor(formula=formula).fit(X, y)


@pytest.mark.parametrize("missing", [np.nan, None, pd.NA])
@pytest.mark.parametrize("column", ["Time", "a", "flag"])
@pytest.mark.parametrize("formula", ["{} + (1 | Pig)", "dose + ({} | Pig)"])
def test_missing_values(missing, column, formula):
    X, y = made_up()
    X["flag"] = X["Time"] > 0
    if column == "flag" or missing is pd.NA:
        X[column] = X[column].astype(object)
    X.loc[7, column] = missing
    message = f"column '{column}' of the formula has a missing value .* row 7"
    refused(formula.format(column), X, y, message)
    model = MixedLinearRegressor(formula=formula.format(column)).fit(
        X.drop(index=7), np.delete(y, 7)
    )
    with pytest.raises(ValueError, match=message):
        model.predict(X)


def test_missing_labels():
    X, y = made_up()
    X["Pig"] = X["Pig"].astype(float)
    X.loc[7, "Pig"] = np.nan
    refused("Time + (1 | Pig)", X, y, "factor 'Pig' have missing labels.* row 7")
    refused("Time + (1 | Pig:pen)", X, y, "factor 'Pig' have missing labels.* row 7")


def test_expressions_that_are_not_finite():
    X, y = made_up()
    X["zero"] = np.arange(60.0)
    with np.errstate(all="ignore"):
        refused("np.log(zero) + (1 | Pig)", X, y, r"infinity in column 'np.log\(zero\)'.* row 0")
        refused("np.sqrt(zero - 2) + (1 | Pig)", X, y, "is NaN, first at row 0")


def test_columns_that_are_not_numeric():
    X, y = made_up()
    X["when"] = pd.date_range("2020", periods=60)
    X["span"] = X["when"] - X["when"][0]
    refused("when + (1 | Pig)", X, y, "'when' of the formula is not numeric: it holds dates")
    refused("(span | Pig)", X, y, "'span' of the formula is not numeric: it holds time diff")
    refused("I(Time * 1j)", X, y, "holds complex numbers")


@pytest.mark.parametrize(
    "expression", ["np.mean(Time)", "Time.head(3)", "Time[0]", "Time.sort_values()"]
)
def test_expressions_without_a_value_for_each_row(expression):
    X, y = made_up()
    refused(f"{expression} + (1 | Pig)", X, y, "not one value for each row of X")


def test_levels_that_leave_out_categories():
    X, y = made_up()
    refused("C(a, levels=['p', 'q'])", X, y, r"leaves out categories that X has: \{'r'\}")


@pytest.mark.parametrize("formula", ["a", "a*Time", "C(a)", "C(a, contr.sum)", "(a | pen)"])
def test_categories_that_were_not_seen(formula):
    X, y = made_up()
    model = MixedLinearRegressor(formula=f"{formula} + (1 | Pig)").fit(X, y)
    X.loc[[5, 9], "a"] = "new"
    with pytest.raises(ValueError, match=r"category 'new' of '.*a.*' \(row 5\).*'p', 'q', 'r'"):
        model.predict(X)


def test_new_rows_of_another_kind():
    X, y = made_up()
    model = MixedLinearRegressor(formula="Time + a + (1 | Pig)").fit(X, y)
    with pytest.raises(
        ValueError, match="'a' of the formula was categorical in fit, and is numerical now"
    ):
        model.predict(X.assign(a=1.0))
    with pytest.raises(
        ValueError, match="'Time' of the formula was numerical in fit, and is categorical"
    ):
        model.predict(X.assign(Time="late"))


def test_new_rows_without_a_column():
    X, y = made_up()
    model = MixedLinearRegressor(formula="Time + I(dose**2) + (1 | Pig:pen)").fit(X, y)
    for name in ("Time", "dose", "pen"):
        with pytest.raises(ValueError, match=f"X has no column '{name}', which the formula"):
            model.predict(X.drop(columns=name))
    with pytest.raises(ValueError, match="X must be a DataFrame"):
        model.predict(X.to_numpy())


def test_new_rows_beyond_the_knots_are_refused_if_wanted():
    X, y = made_up()
    formula = "bs(Time, df=4, extrapolation='raise') + (1 | Pig)"
    model = MixedLinearRegressor(formula=formula).fit(X, y)
    with pytest.raises(ValueError, match=re.escape("cannot be computed from X")):
        model.predict(X.assign(Time=X["Time"] + 100))


def test_unknown_levels_are_refused_if_wanted():
    X, y = made_up()
    model = MixedLinearRegressor(formula="Time + (1 | Pig)", handle_unknown="error").fit(X, y)
    with pytest.raises(ValueError, match=r"level 99 of 'Pig' \(row 0\)"):
        model.predict(X.assign(Pig=99))


def test_frames_that_cannot_be_used():
    X, y = made_up()
    twice = X[["Time", "Time", "Pig"]]
    refused("Time + (1 | Pig)", twice, y, "column 'Time' twice")
    refused("Time + (1 | Pig)", X.head(0), y[:0], "0 sample")
    model = MixedLinearRegressor(formula="Time + (1 | Pig)").fit(X, y)
    with pytest.raises(ValueError, match="column 'Time' twice"):
        model.predict(twice)
    with pytest.raises(ValueError, match="0 sample"):
        model.predict(X.head(0))


def test_a_column_called_intercept():
    X, y = made_up()
    X["intercept"] = X["dose"]
    refused("intercept + (1 | Pig)", X, y, "column called 'intercept', the name of the constant")
    MixedLinearRegressor(formula="dose + (1 | Pig)").fit(X, y)


def test_two_columns_of_one_name():
    X, y = made_up()
    X["a[T.q]"] = X["dose"]
    refused("a + (0 + `a[T.q]` | Pig)", X, y, r"Two different columns.*'a\[T.q\]'")


def test_factors_of_one_name():
    X, y = made_up()
    X["Pig:pen"] = X["Pig"]
    refused("(1 | Pig:pen) + (1 | `Pig:pen`)", X, y, "Two grouping factors are called 'Pig:pen'")
