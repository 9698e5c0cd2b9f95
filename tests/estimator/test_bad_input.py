"""Bad input: the type of the error, and that its message names what is at fault."""

import pickle
import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
from sklearn.exceptions import NotFittedError

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.exceptions import PopulationPredictionWarning

N = 24
RNG = np.random.default_rng(0)
SITES = np.repeat(["a", "b", "c", "d"], 6)
ARRAY = RNG.normal(size=(N, 2))
Y = 2.0 * ARRAY[:, 0] + np.repeat([0.0, 1.0, 3.0, 2.0], 6) + RNG.normal(size=N)
FRAME = pd.DataFrame({"length": ARRAY[:, 0], "width": ARRAY[:, 1], "site": SITES})
UNCONVERTED = ValueError, TypeError


def with_entry(values, row, value, dtype=None):
    changed = np.array(values, dtype=dtype)
    changed[row] = value
    return changed


def frame_with(column, values):
    return FRAME.assign(**{column: values})


def fit_frame(X=FRAME, y=Y, **parameters):
    return MixedLinearRegressor(**{"groups": "site", **parameters}).fit(X, y)


def fit_array(X=ARRAY, y=Y, groups=SITES, sample_weight=None, **parameters):
    return MixedLinearRegressor(**parameters).fit(X, y, groups=groups, sample_weight=sample_weight)


@pytest.fixture(scope="module")
def frame_model():
    return fit_frame()


@pytest.fixture(scope="module")
def array_model():
    return fit_array()


# Columns of X


@pytest.mark.parametrize(
    ("values", "kind", "row"),
    [
        (with_entry(ARRAY[:, 1], 5, np.nan), "NaN", 5),
        (with_entry(ARRAY[:, 1], 5, np.inf), "infinity", 5),
        (with_entry(ARRAY[:, 1], 0, -np.inf), "infinity", 0),
        (with_entry(ARRAY[:, 1], 7, None, object), "NaN", 7),
        (pd.array([1.0] * 3 + [pd.NA] * 21, dtype="Float64"), "NaN", 3),
        (pd.array([1] * 3 + [pd.NA] * 21, dtype="Int64"), "NaN", 3),
        (pd.array([True] * 3 + [pd.NA] * 21, dtype="boolean"), "NaN", 3),
    ],
    ids=["nan", "inf", "-inf", "None", "Float64", "Int64", "boolean"],
)
def test_x_not_finite(frame_model, values, kind, row):
    message = f"X contains {kind} in column 'width', the first at row {row}: drop or impute"
    X = frame_with("width", values)
    with pytest.raises(ValueError, match=message):
        fit_frame(X)
    with pytest.raises(ValueError, match=message):
        frame_model.predict(X)
    with pytest.raises(ValueError, match=message):
        frame_model.score(X, Y)


@pytest.mark.parametrize("make", [np.asarray, np.ndarray.tolist, np.asfortranarray])
def test_x_not_finite_in_an_array_names_the_position(array_model, make):
    X = ARRAY.copy()
    X[4, 1] = np.nan
    message = "NaN in column 'x1', the first at row 4"
    with pytest.raises(ValueError, match=message):
        fit_array(make(X))
    with pytest.raises(ValueError, match=message):
        array_model.predict(make(X), groups=SITES)


@pytest.mark.parametrize(
    ("values", "shown", "row", "what"),
    [
        (["low", "high"] * 12, "'low'", 0, "text"),
        ([str(i) for i in range(N)], "'0'", 0, "text"),
        (with_entry(ARRAY[:, 1], 7, "7", object), "'7'", 7, "text"),
        (with_entry(ARRAY[:, 1], 7, b"7", object), "b'7'", 7, "text"),
        (pd.Categorical(["x", "y"] * 12), "'x'", 0, "text"),
        (pd.date_range("2020-01-01", periods=N), "2020-01-01", 0, "a date"),
        (pd.to_timedelta(range(N), unit="D"), "0 ", 0, "a time difference"),
    ],
    ids=["words", "digits", "one digit", "bytes", "category", "dates", "durations"],
)
def test_column_that_is_not_numeric(frame_model, values, shown, row, what):
    message = (
        rf"Column 'width' of X is not numeric: {shown}.* at row {row} is {what}.*"
        "encode it.*name it in groups.*leave it out with fixed_effects"
    )
    X = frame_with("width", values)
    with pytest.raises(ValueError, match=message):
        fit_frame(X)
    with pytest.raises(ValueError, match=message):
        frame_model.predict(X)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (with_entry(ARRAY, (3, 1), "low", object), "Column 'x1' .*'low' at row 3 is text"),
        (with_entry(ARRAY, (3, 1), "1", object), "Column 'x1' .*'1' at row 3 is text"),
        (ARRAY.astype(str), "Column 'x0' .* at row 0 is text"),
        ([[0.5, "1"]] * N, "Column 'x1' .*'1' at row 0 is text"),
        (with_entry(ARRAY, (3, 1), pd.Timestamp(0), object), "'x1' .*row 3 is a date"),
        (
            pl.DataFrame({"length": ARRAY[:, 0], "width": ["a"] * N}),
            "Column 'width' .*'a' at row 0 is text",
        ),
    ],
    ids=["word", "digit", "text array", "lists", "timestamp", "polars"],
)
def test_text_in_other_containers(X, message):
    with pytest.raises(UNCONVERTED, match=message):
        fit_array(X)


def test_rows_of_numbers_and_labels_are_no_text():
    rows = [[*map(float, x), site] for x, site in zip(ARRAY, SITES, strict=True)]
    model = fit_frame(rows, groups=2)
    np.testing.assert_allclose(model.coef_, fit_frame().coef_)
    np.testing.assert_allclose(model.predict(rows), fit_frame().predict(FRAME))


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (ARRAY + 0j, ValueError, "^Complex data not supported: X is complex"),
        (scipy.sparse.csr_matrix(ARRAY), TypeError, r"dense data is required.*toarray\(\)"),
        (scipy.sparse.csr_array(ARRAY), TypeError, r"dense data is required.*toarray\(\)"),
        (ARRAY[:, 0], ValueError, "Expected 2D array, got 1D array"),
        (ARRAY[None], ValueError, "Found array with dim 3"),
        (FRAME["width"], ValueError, "2-dimensional container but got .*Series"),
        (3.0, ValueError, "Expected 2D array, got scalar"),
        ("width", ValueError, "X is the path 'width', where there is no file and no folder"),
        (pd.DataFrame(ARRAY, columns=["a", "a"]), ValueError, "the column 'a' twice"),
        (pd.DataFrame(ARRAY, columns=["a", 1]), TypeError, r"\['int', 'str'\] as feature name"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, (str, type)) else "",
)
def test_x_of_the_wrong_kind(X, error, message):
    with pytest.raises(error, match=message):
        fit_array(X)


def test_complex_column():
    with pytest.raises(ValueError, match="Complex data not supported: column 'width' of X"):
        fit_frame(frame_with("width", 1j))


# Response


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (with_entry(Y, 3, np.nan), "y contains NaN, the first at row 3: drop"),
        (with_entry(Y, 0, -np.inf), "y contains infinity, the first at row 0: drop"),
        (with_entry(Y, 3, None, object), "y contains NaN, the first at row 3"),
        (pd.Series(with_entry(Y, 3, np.nan)).astype("Float64"), "y contains NaN, .* row 3"),
        (with_entry(Y, 3, "low", object), "y is not numeric: 'low' at row 3 is text. Convert"),
        (Y.astype(str), r"y is not numeric: '[-\d.]+' at row 0 is text. Convert"),
        (pd.date_range("2020-01-01", periods=N), "y is not numeric: 2020-01-01.* is a date"),
        (with_entry(Y, 3, {}, object), "y is not numeric: .*dict"),
        (Y + 0j, "^Complex data not supported: y is complex"),
        (None, "requires y to be passed, but the target y is None"),
        (np.c_[Y, Y], r"y should be a 1d array, got an array of shape \(24, 2\)"),
        (Y[:-1], "inconsistent numbers of samples: X has 24 rows, y has 23"),
    ],
    ids=lambda value: "" if not isinstance(value, str) else value[:20],
)
def test_bad_response(y, message):
    with pytest.raises(UNCONVERTED, match=message):
        fit_array(y=y)


# Weights


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (with_entry(np.ones(N), 2, -1.0), "Negative values .*`sample_weight`, .*row 2.*inverse"),
        (with_entry(np.ones(N), 1, np.nan), "sample_weight contains NaN, the first at row 1"),
        (with_entry(np.ones(N), 1, np.inf), "sample_weight contains infinity, the first at row 1"),
        (np.zeros(N), "at least one non-zero number.*no row counts"),
        (np.ones(N - 1), "sample_weight has 23 values, but X has 24 rows"),
        (np.ones((N, 1)), "1D array or scalar, got 2D"),
        (["1"] * N, "sample_weight is not numeric: '1' at row 0 is text"),
        ("width", "sample_weight='width' is the name of a column, and y is not one"),
        (np.ones(N) + 0j, "^Complex data not supported: sample_weight is complex"),
    ],
    ids=["negative", "nan", "inf", "zero", "short", "2d", "text", "name", "complex"],
)
def test_bad_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        fit_array(sample_weight=weights)


@pytest.mark.parametrize(
    ("y", "weights", "message"),
    [
        (Y[:-1], None, r"inconsistent numbers of samples"),
        (Y, np.ones(N - 1), r"inconsistent numbers of samples|sample_weight has 23 values"),
        (with_entry(Y, 3, np.nan), None, "contains NaN"),
        pytest.param(Y, with_entry(np.ones(N), 2, -1.0), "Negative values"),
        pytest.param(with_entry(Y, 3, np.nan), None, "y contains NaN, the first at row 3"),
    ],
    ids=["short y", "short weights", "nan y", "negative weights", "row of y"],
)
def test_bad_response_or_weights_in_score(array_model, y, weights, message):
    with pytest.raises(ValueError, match=message):
        array_model.score(ARRAY, y, groups=SITES, sample_weight=weights)


# Groups


@pytest.mark.parametrize("missing", [None, np.nan, pd.NaT, pd.NA], ids=repr)
@pytest.mark.parametrize(
    "make", [lambda v: v, list, lambda v: pd.Series(v, name="group"), pd.Categorical]
)
def test_missing_labels(array_model, missing, make):
    groups = make(with_entry(SITES, 7, missing, object))
    message = "groups of factor 'group' have missing labels.*first at row 7.*level of their own"
    with pytest.raises(ValueError, match=message):
        fit_array(groups=groups)
    with pytest.raises(ValueError, match=message):
        array_model.update_random_effects(ARRAY, Y, groups=groups)
    with pytest.raises(ValueError, match=message):
        array_model.sample_y(ARRAY, groups=groups)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NaT, pd.NA], ids=repr)
def test_missing_labels_in_the_group_column(frame_model, missing):
    X = frame_with("site", with_entry(SITES, 7, missing, object))
    for action in (fit_frame, frame_model.sample_y):
        with pytest.raises(ValueError, match=r"factor 'site' have missing labels.*row 7"):
            action(X)


@pytest.mark.parametrize(
    "groups",
    [
        np.r_[np.nan, np.arange(N - 1) // 6],
        pd.array([pd.NA] + [1, 2, 3] * 7 + [1, 2], dtype="Int64"),
        pd.DatetimeIndex([pd.NaT, *pd.date_range("2020-01-01", periods=N - 1)]),
        pl.Series("group", [None, *SITES[1:]]),
    ],
    ids=["float", "Int64", "datetime", "polars"],
)
def test_missing_labels_of_a_dtype(groups):
    with pytest.raises(ValueError, match=r"factor 'group' have missing labels.*row 0"):
        fit_array(groups=groups)


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        (SITES[:-1], ValueError, "groups has 23 labels, but X has 24 rows"),
        ("site", ValueError, r"one label for each row, got 'site'.*MixedLinearRegressor\(groups="),
        (2, ValueError, r"one label for each row, got 2.*MixedLinearRegressor\(groups="),
        (["site"], ValueError, r"groups has 1 labels, but X has 24.*MixedLinearRegressor\(groups="),
        ({"site": SITES}, ValueError, "got a dict: pass a list, an array, a Series or a DataFrame"),
        (set(SITES), ValueError, "got a set: pass a list"),
        (SITES[:, None, None], ValueError, r"one or two dimensions, got .*shape \(24, 1, 1\)"),
        (np.array("a"), ValueError, r"one or two dimensions, got .*shape \(\)"),
        (np.arange(N) // 6 + 0j, ValueError, "Complex data .*factor 'group' are complex"),
        (np.r_[np.inf, np.arange(N - 1)], ValueError, r"infinite label \(inf\) at row 0"),
        ([{1}, *[{2}] * (N - 1)], TypeError, r"'group' hold \{1\} at row 0.*hashable"),
        ([[1], *[[2, 3]] * (N - 1)], ValueError, "row 0 has 1 label, row 1 has 2: give .*as many"),
        ([], ValueError, "groups has 0 labels, but X has 24 rows"),
        ([(1, 2), *[(1, [2])] * (N - 1)], TypeError, r"hold \(1, \[2\]\) at row 1.*hashable"),
        (pd.Series([{}] * N, name="site"), TypeError, r"'site' hold \{\} at row 0.*hashable"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_bad_groups(array_model, groups, error, message):
    with pytest.raises(error, match=message):
        fit_array(groups=groups)
    with pytest.raises(error, match=message.replace("'site' hold", "'.*' hold")):
        array_model.predict(ARRAY, groups=groups)


@pytest.mark.parametrize(
    "groups",
    [
        np.c_[SITES, SITES],
        np.c_[SITES, SITES].tolist(),
        FRAME[["site", "width"]],
        pl.DataFrame({"p": list(SITES), "q": list(SITES)}),
        pd.MultiIndex.from_arrays([SITES, SITES], names=["p", "q"]),
    ],
    ids=["array", "rows", "DataFrame", "polars", "MultiIndex"],
)
def test_several_columns_for_a_model_of_one_factor(array_model, groups):
    message = r"groups has 2 columns \(.*\), but the model has 1 grouping factor \(group\)"
    with pytest.raises(ValueError, match=message):
        array_model.predict(ARRAY, groups=groups)
    with pytest.raises(ValueError, match=message):
        array_model.score(ARRAY, Y, groups=groups)


def test_groups_given_twice(frame_model):
    message = "groups were given twice: the constructor names the column 'site'.*Use one"
    with pytest.raises(ValueError, match=message):
        MixedLinearRegressor(groups="site").fit(FRAME, Y, groups=SITES)
    with pytest.raises(ValueError, match=message):
        frame_model.predict(FRAME, groups=SITES)
    with pytest.raises(ValueError, match=message):
        frame_model.score(FRAME, Y, groups=SITES)


@pytest.mark.parametrize("length", [0, N - 1, N + 1])
def test_groups_of_another_length_in_predict_and_score(array_model, length):
    message = f"groups has {length} labels, but X has 24 rows"
    groups = np.resize(SITES, length)
    with pytest.raises(ValueError, match=message):
        array_model.predict(ARRAY, groups=groups)
    with pytest.raises(ValueError, match=message):
        array_model.score(ARRAY, Y, groups=groups)


# Parameters that name columns or factors


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"groups": "sight"}, "groups names the column 'sight', .*Did you mean 'site'"),
        ({"groups": ["sit"]}, "groups names the column 'sit', .*Did you mean 'site'"),
        ({"groups": "qqq"}, r"does not have\. Its columns are: 'length', 'width', 'site'"),
        ({"groups": 3}, r"groups names column 3, but X has 3 feature"),
        ({"groups": -4}, r"groups names column -4, but X has 3 feature"),
        ({"groups": True}, "groups must name columns .* got True"),
        ({"groups": []}, r"groups=\[\] names no column: name one, or leave groups=None"),
        ({"groups": ("site",)}, r"the tuple \('site',\), but an interaction .* itself, 'site'"),
        ({"fixed_effects": ["lenght"]}, "fixed_effects names .*'lenght'.*Did you mean 'length'"),
        ({"fixed_effects": "Width"}, "fixed_effects names .*'Width'.*Did you mean 'width'"),
        ({"fixed_effects": [9]}, "fixed_effects names column 9, but X has 3"),
        ({"fixed_effects": ["site"]}, "fixed_effects names 'site', which is a group column"),
        ({"fixed_effects": ["width", 1]}, "fixed_effects names the column 'width' twice"),
        ({"fixed_effects": [True, False]}, "fixed_effects must name columns .* got True"),
        ({"fixed_effects": [None]}, r"by name \(str\) or position \(int\), got None"),
        ({"fixed_effects": {"width": 1}}, r"fixed_effects must be a list .* got \{'width': 1\}"),
        ({"fixed_effects": {"width"}}, r"fixed_effects must be a list .* got \{'width'\}.*order"),
        ({"random_slopes": ["widht"]}, "random_slopes names .*'widht'.*Did you mean 'width'"),
        ({"random_slopes": {"site": ["widht"]}}, "'widht'.*Did you mean 'width'"),
        ({"random_slopes": ["site"]}, "random_slopes names 'site', which is a group column"),
        ({"random_slopes": ["width", "width"]}, "random_slopes names the column 'width' twice"),
        ({"random_slopes": ["width", -2]}, "random_slopes names the column 'width' twice"),
        ({"random_slopes": [1.0]}, r"random_slopes must name .* got 1\.0"),
        ({"random_slopes": {"site": 3.5}}, r"random_slopes\['site'\] must be a list .* got 3\.5"),
        ({"random_slopes": {"sight": ["width"]}}, "entry for 'sight', .*called 'site': use that"),
        ({"random_intercept": {"sight": False}}, "entry for 'sight', .*called 'site': use that"),
        ({"random_intercept": {"site": "no"}}, "entry 'no' for 'site': give True or False"),
        ({"random_intercept": {"site": None}}, "entry None for 'site': give True or False"),
        ({"covariance": {"sight": "full"}}, "entry for 'sight', .*called 'site': use that"),
        ({"covariance": {"site": "ful"}}, "entry 'ful' for 'site': give 'full', 'diagonal'"),
        ({"covariance": {"site": None}}, r"mask has shape \(\), but there are 1 random effects"),
        ({"random_intercept": False}, "'site' has no random effect: .*Set one.*out of groups"),
        ({"random_intercept": {"site": False}, "random_slopes": []}, "'site' has no random effect"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_parameter_that_names_what_is_not_there(parameters, message):
    with pytest.raises(ValueError, match=message):
        fit_frame(**parameters)


@pytest.mark.parametrize(
    "labels", [SITES, FRAME["site"], FRAME[["site"]], pl.Series(SITES)], ids=lambda x: str(type(x))
)
def test_labels_in_the_constructor(labels):
    with pytest.raises(ValueError, match=r"given labels: pass these to fit\(X, y, groups"):
        fit_frame(groups=labels)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (ARRAY, r"'x0', 'x1'\. An array has no other names: .*set_output"),
        (FRAME.rename(columns={"site": "remainder__site"}), "Did you mean 'remainder__site'"),
    ],
    ids=["array", "prefix"],
)
def test_names_that_a_transformer_lost(X, message):
    with pytest.raises(ValueError, match=f"names the column 'site', .*{message}"):
        fit_frame(X)


def test_names_of_a_frame_are_not_taken_for_lost():
    with pytest.raises(ValueError, match=r"Its columns are: 'x0', 'width', 'site'\.$"):
        fit_frame(FRAME.rename(columns={"length": "x0"}), groups="plot")


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("groups", 1.5),
        ("groups", {"site"}),
        ("fixed_effects", 1.5),
        ("random_intercept", "yes"),
        ("random_intercept", None),
        ("random_intercept", 1),
        ("random_slopes", 1.5),
        ("covariance", "banana"),
        ("covariance", None),
        ("covariance", 1),
        ("fit_intercept", "yes"),
        ("fit_intercept", None),
        ("reml", "REML"),
        ("reml", 1),
        ("handle_unknown", "ignore"),
        ("handle_unknown", None),
        ("max_iter", 0),
        ("max_iter", 1.5),
        ("max_iter", "100"),
        ("tol", 0.0),
        ("tol", -1.0),
        ("tol", np.nan),
        ("tol", np.inf),
        ("tol", "1e-8"),
        ("warm_start", "yes"),
        ("warm_start", None),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_parameter_of_the_wrong_kind(parameter, value):
    message = (
        f"'{parameter}' parameter of MixedLinearRegressor must be.*Got {re.escape(repr(value))}"
    )
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        fit_frame(**{parameter: value})


ALL = np.ones((3, 3), bool)
CYCLE = ~np.array([[0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]], dtype=bool)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[True]], r"mask has shape \(1, 1\), but .* 3 random effects .*intercept, length, width"),
        (np.ones((3, 2), bool), r"mask has shape \(3, 2\).*give a \(3, 3\)"),
        (np.eye(3), "mask has dtype float64: give booleans, True where"),
        (np.eye(3, dtype=int).tolist(), "mask has dtype int64: give booleans"),
        (ALL & ~np.eye(3, k=1, dtype=bool), "not symmetric at 'intercept', 'length'"),
        (ALL & (np.arange(9).reshape(3, 3) != 4), "the variance of 'length' at zero: take"),
        ({"site": [[True]]}, r"mask has shape \(1, 1\)"),
        pytest.param([[True], [True, False]], "covariance mask"),
    ],
    ids=["shape", "wide", "float", "int", "asymmetric", "diagonal", "dict", "ragged"],
)
def test_bad_mask(mask, message):
    with pytest.raises(ValueError, match=message):
        fit_frame(random_slopes=["length", "width"], covariance=mask)


def test_mask_with_a_chordless_cycle():
    X = frame_with("height", RNG.normal(size=N))
    slopes = ["length", "width", "height"]
    message = "'intercept', 'length', 'width', 'height' form a cycle of four.*Free one more"
    with pytest.raises(ValueError, match=message):
        fit_frame(X, random_slopes=slopes, covariance=CYCLE)
    chord = CYCLE.copy()
    chord[0, 2] = chord[2, 0] = True
    D = fit_frame(X, random_slopes=slopes, covariance=chord).covariances_["site"]
    assert D.loc["length", "height"] == 0.0


@pytest.mark.parametrize(("known", "other"), [(int, str), (str, int)])
def test_numbers_as_text_are_other_labels_and_that_is_said(known, other):
    numbers = np.repeat([10, 20, 30, 40], 6)
    model = fit_frame(frame_with("site", numbers.astype(known)))
    X = frame_with("site", numbers.astype(other))
    kinds = {int: "numbers", str: "text"}
    message = (
        f"All levels of 'site' are new: here they are {kinds[other]}, like {other(10)!r}, in fit "
        f"they were {kinds[known]}, like {known(10)!r}\\."
    )
    for predict in (model.predict, lambda X: model.score(X, Y)):
        with pytest.warns(PopulationPredictionWarning, match=message) as record:
            predict(X)
        assert {warning.filename for warning in record} == {__file__}
    with pytest.warns(PopulationPredictionWarning, match=f"'site' are new: .* {kinds[other]}"):
        model.predict(frame_with("site", other(99)))
    # Neither new levels of the same kind are reason to warn, nor a prediction without levels.
    model.predict(frame_with("site", known(99)))
    model.predict(X, random_effects="none")


def test_numbers_as_text_in_one_part_of_an_interaction():
    site, part = np.repeat([10, 20], 12), np.tile(np.repeat(["a", "b"], 6), 2)
    X = FRAME.assign(site=site, part=part)
    model = fit_frame(X, groups=[("site", "part")])
    with pytest.warns(PopulationPredictionWarning, match="'site:part' are new: .* '10', .* 10\\."):
        model.predict(X.astype({"site": str}))


# Rows


@pytest.mark.parametrize(
    ("X", "y", "groups", "message"),
    [
        (ARRAY[:0], Y[:0], SITES[:0], r"0 sample\(s\) \(shape=\(0, 2\)\)"),
        (FRAME[["length"]][:0], Y[:0], SITES[:0], r"0 sample\(s\) \(shape=\(0, 1\)\)"),
        (ARRAY[:, :0], Y, None, r"0 feature\(s\) \(shape=\(24, 0\)\)"),
        (FRAME[[]], Y, None, r"0 feature\(s\) \(shape=\(24, 0\)\)"),
        (ARRAY[:3], Y[:3], ["a", "a", "b"], "n_samples=3 rows for 3 linearly independent"),
        (ARRAY[:2], Y[:2], ["a", "a"], "n_samples=2 rows for 2 linearly.*fixed_effects"),
    ],
    ids=["no rows", "no rows in a frame", "no columns", "no columns in a frame", "p=n", "p>n"],
)
def test_too_little(X, y, groups, message):
    with pytest.raises(ValueError, match=message):
        fit_array(X, y, groups)


def test_text_with_as_many_categories_as_rows():
    frame = FRAME.assign(y=Y, day=[f"day {i}" for i in range(N)])
    with pytest.raises(ValueError, match=r"The term 'day' alone has 23\. .* or the formula"):
        lmer("y ~ width + day + (1 | site)", frame)


def test_rows_of_weight_zero_do_not_count_against_the_columns():
    weights = (np.arange(N) < 3).astype(float)
    with pytest.raises(ValueError, match="n_samples=3 rows for 3 linearly independent"):
        fit_array(sample_weight=weights)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (FRAME[["length", "site"]], "seen at fit time, yet now missing:\n- width"),
        (FRAME.rename(columns={"width": "Width"}), "unseen at fit time:\n- Width\n.*\n- width"),
        (FRAME[["site", "width", "length"]], "must be in the same order"),
        (FRAME.assign(height=1.0), "unseen at fit time:\n- height"),
        (FRAME[:0], r"0 sample\(s\)"),
    ],
    ids=["fewer", "renamed", "reordered", "more", "empty"],
)
def test_predict_with_other_columns(frame_model, X, message):
    with pytest.raises(ValueError, match=message):
        frame_model.predict(X)
    with pytest.raises(ValueError, match=message):
        frame_model.score(X, Y[: len(X)])


@pytest.mark.parametrize(
    ("X", "groups", "message"),
    [
        (ARRAY[:, :1], SITES, "X has 1 features, but .* expecting 2"),
        (np.c_[ARRAY, ARRAY], SITES, "X has 4 features, but .* expecting 2"),
        (ARRAY[0], SITES[:1], "Expected 2D array, got 1D"),
        (ARRAY[:0], SITES[:0], r"0 sample\(s\)"),
        (ARRAY + 0j, SITES, "^Complex data not supported: X"),
    ],
    ids=["fewer", "more", "1d", "empty", "complex"],
)
def test_predict_with_another_array(array_model, X, groups, message):
    with pytest.raises(ValueError, match=message):
        array_model.predict(X, groups=groups)


def test_predict_with_names_lost_or_gained(frame_model, array_model):
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        frame_model.predict(FRAME.to_numpy())
    with pytest.warns(UserWarning, match="X has feature names, but .* without feature names"):
        array_model.predict(FRAME[["length", "width"]], groups=SITES)


# Levels


def test_unseen_level():
    model = fit_frame(handle_unknown="error")
    X = frame_with("site", with_entry(SITES, 5, "z"))
    with pytest.raises(ValueError, match=r"level 'z' of 'site' \(row 5\).*handle_unknown='pop"):
        model.predict(X)
    with pytest.raises(ValueError, match=r"level 'z' of 'site' \(row 5\)"):
        model.score(X, Y)
    # Nothing is looked up for a prediction of the population.
    population = model.intercept_ + ARRAY @ model.coef_
    np.testing.assert_allclose(model.predict(X, random_effects="none"), population)


@pytest.mark.parametrize(
    ("known", "others"),
    [
        (list(range(4)), ["0", 0.5, "a"]),
        (["0", "1", "2", "3"], [0, 0.0]),
        (list(pd.date_range("2020-01-01", periods=4)), ["2020-01-01", 0]),
        (list(pd.interval_range(0, 4)), [0.5, "(0, 1]"]),
        ([("a", 1), ("b", 1), ("c", 1), ("d", 1)], ["a", ("a",), "('a', 1)"]),
    ],
    ids=["int", "str", "dates", "intervals", "tuples"],
)
def test_a_level_of_another_type_is_unknown(known, others):
    groups = [known[i] for i in np.repeat(range(4), 6)]
    model = fit_array(groups=groups, handle_unknown="error")
    model.predict(ARRAY, groups=groups)
    for other in others:
        with pytest.raises(ValueError, match=f"level .*{re.escape(str(other))}.* was not seen"):
            model.predict(ARRAY, groups=[other] * N)


# Other arguments


@pytest.mark.parametrize(
    ("random_effects", "message"),
    [
        (["sight"], "names the factor 'sight', but .* grouping factors are 'site'.*'all'"),
        (["site", "sight"], "names the factor 'sight'"),
        ("sight", "names the factor 'sight'"),
        *(pytest.param(value, f"random_effects.*{value}") for value in (None, 3, True)),
    ],
)
def test_unknown_factor_in_predict(frame_model, random_effects, message):
    with pytest.raises(ValueError, match=message):
        frame_model.predict(FRAME, random_effects=random_effects)


@pytest.mark.parametrize("theta", [[], [1.0, 2.0], [[1.0]], 1.0], ids=str)
def test_theta_of_the_wrong_length(frame_model, theta):
    shape = re.escape(str(np.shape(theta)))
    with pytest.raises(ValueError, match=rf"shape {shape}, but .* 1 parameters: give shape \(1,\)"):
        frame_model.log_likelihood(theta)


def test_theta_not_finite(frame_model):
    with pytest.raises(ValueError, match=r"theta .*NaN"):
        frame_model.log_likelihood([np.nan])


@pytest.mark.parametrize(
    "use",
    [
        lambda model: model.predict(FRAME),
        lambda model: model.score(FRAME, Y),
        lambda model: model.log_likelihood(),
        lambda model: model.log_likelihood([1.0]),
        lambda model: model.coef_covariance_,
        lambda model: model.covariances_,
        lambda model: model.random_effects_,
        lambda model: model.random_effects_covariances_,
    ],
)
def test_use_before_fit(use):
    with pytest.raises(NotFittedError, match="MixedLinearRegressor instance is not fitted yet"):
        use(MixedLinearRegressor(groups="site"))


def test_a_refused_fit_leaves_the_model_unfitted():
    model = MixedLinearRegressor(groups="site")
    with pytest.raises(ValueError, match="y contains NaN"):
        model.fit(FRAME, with_entry(Y, 3, np.nan))
    with pytest.raises(NotFittedError):
        model.predict(FRAME)


def test_a_column_with_the_name_of_the_constant():
    named = FRAME.rename(columns={"width": "intercept"})
    with pytest.raises(ValueError, match=r"column called 'intercept'.* rename it"):
        fit_frame(named)
    model = fit_frame(named, fit_intercept=False, random_intercept=False, random_slopes=["length"])
    assert list(model.coef_covariance_.index) == ["length", "intercept"]


def test_a_group_column_is_called_as_the_columns_are():
    frame = pd.DataFrame({0: ARRAY[:, 0], 1: SITES})
    model = MixedLinearRegressor(groups=1).fit(frame, Y)
    assert model.n_groups_ == {"x1": len(set(SITES))}


@pytest.mark.parametrize(
    ("scale", "which"), [((1e160, 1.0), "column at position 0"), ((1.0, 1e160), "response")]
)
def test_squares_that_overflow(scale, which):
    with pytest.raises(ValueError, match=rf"squares of the .*{which} are not finite.*Divide it"):
        MixedLinearRegressor().fit(ARRAY[:, :1] * scale[0], Y * scale[1], groups=SITES)


def test_theta_beyond_what_can_be_computed():
    # With no rows to spare within levels, the noise falls with the square of theta.
    rng = np.random.default_rng(28)
    groups = [*range(20), 20, 20, 21, 21]
    model = MixedLinearRegressor().fit(rng.normal(size=(24, 2)), rng.normal(size=24), groups=groups)
    assert np.isfinite(model.log_likelihood([1e3]))
    with pytest.raises(ValueError, match="theta is so large"):
        model.log_likelihood([1e12])


def test_predict_keeps_to_the_group_column_of_the_fit(frame_model):
    expected = frame_model.predict(FRAME)
    changed = pickle.loads(pickle.dumps(frame_model)).set_params(groups="length")
    np.testing.assert_array_equal(changed.predict(FRAME), expected)
