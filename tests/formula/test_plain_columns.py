"""Columns of numbers that a formula takes as they stand: all is as if formulaic had made them."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.datasets import load_sleepstudy
from mixedlearn.formula import coding, compile_formula, learn_response, model
from mixedlearn.formula.brackets import FormulaError

N_ROWS = 12
FORMULAS = [
    "1",
    "a",
    "a + b",
    "b + a",
    "a + a",
    "0 + a + b",
    "a - 1",
    ".",
    ". - b",
    "a * b",
    "a + a:b",
    "2:a",
    "2 + a",
    "0 + 2 + a",
    "`a:b` + (0 + a:b | g)",
    "a:b + (0 + `a:b` | g)",
    "a + {b + 1}",
    "a + I(b**2)",
    "C(a) + b",
    "`odd name` + a",
    "a + Q('odd name')",
    "a + missing",
    "a + (1 | g)",
    "a + b + (1 + a | g)",
    "a + (b | g)",
    "a + (0 + b | g)",
    "a + (a + b || g)",
    "b + (a | g) + (0 + b | g)",
    "b + (I(a + 1) | g)",
    "`odd name` + (`odd name` | g)",
    "b + ({a} | g) + (0 + a | g)",
]
RANDOM = np.random.default_rng(0)
NUMBERS = RANDOM.integers(1, 5, size=N_ROWS)
WITH_A_HOLE = np.where(np.arange(N_ROWS) == 7, np.nan, NUMBERS)
COLUMNS = {
    "float64": NUMBERS / 3.0,
    "float32": (NUMBERS / 3.0).astype(np.float32),
    "float16": (NUMBERS / 3.0).astype(np.float16),
    "int64": NUMBERS,
    "int8": NUMBERS.astype(np.int8),
    "uint16": NUMBERS.astype(np.uint16),
    "bool": NUMBERS > 2,
    "Int64": pd.array(NUMBERS, dtype="Int64"),
    "Float64": pd.array(NUMBERS / 3.0, dtype="Float64"),
    "boolean": pd.array(NUMBERS > 2, dtype="boolean"),
    "category": pd.Categorical(NUMBERS),
    "category of text": pd.Categorical([f"level {number}" for number in NUMBERS]),
    "object of numbers": np.array(list(map(float, NUMBERS)), dtype=object),
    "object of bool": np.array(list(map(bool, NUMBERS > 2)), dtype=object),
    "object of both": np.array([1, "one"] * (N_ROWS // 2), dtype=object),
    "text": [f"level {number}" for number in NUMBERS],
    "sparse": pd.arrays.SparseArray(NUMBERS / 3.0),
    "dates": pd.date_range("2026-01-01", periods=N_ROWS),
    "time differences": pd.to_timedelta(NUMBERS, unit="D"),
    "complex": NUMBERS * 1j,
    "NaN": WITH_A_HOLE,
    "NaN in float32": WITH_A_HOLE.astype(np.float32),
    "NA": pd.array(WITH_A_HOLE, dtype="Int64"),
    "None": np.array([None, *NUMBERS[1:]], dtype=object),
    "infinity": np.where(np.arange(N_ROWS) == 7, np.inf, NUMBERS),
    "extreme": np.where(np.arange(N_ROWS) == 7, 1e300, -1e300),
}


def frame_of(kinds, odd="dates"):
    """Columns a, b and so on of these kinds, a factor, and two columns of odd names."""
    columns = dict(zip("abcdef", map(COLUMNS.get, kinds), strict=False))
    columns["g"] = np.repeat([3, 1, 2], N_ROWS // 3)
    return pd.DataFrame({**columns, "odd name": COLUMNS[odd], "a:b": NUMBERS + 1.0})


def by_formulaic():
    """In this context no term is plain."""
    return mock.patch.object(coding, "_plain_names", return_value=None)


def outcome(function):
    """What a function returns or raises."""
    try:
        return function()
    except Exception as error:
        return type(error), str(error)


def parts(compiled, rows):
    """What makes up a compiled formula."""
    return {
        "text": compiled.text,
        "names": compiled.names,
        "fixed": compiled.fixed,
        "intercept": compiled.fit_intercept,
        "factors": [(own.name, own.blocks) for own in compiled.factors],
        "variables": [own.variables for own in compiled.codings],
        "coded": [(own.names, own.has_intercept) for own in compiled.codings],
        "terms": [
            (own.name, own.coefs, own.variables, own.numeric, own.marginal.tolist())
            for own in compiled.terms
        ],
        "dtype": rows.dtype,
        "rows": rows.tolist(),
    }


kinds = st.sampled_from(list(COLUMNS))
numeric = st.sampled_from(["float64", "float32", "float16", "int64", "int8", "uint16", "infinity"])


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    formula=st.sampled_from(FORMULAS),
    own=st.lists(st.one_of(numeric, kinds), min_size=2, max_size=4),
    odd=st.one_of(numeric, kinds),
    copied=st.sampled_from([0, model.COPIED_ENTRIES]),
)
def test_what_is_compiled_is_what_formulaic_makes(formula, own, odd, copied):
    X = frame_of(own, odd)
    with mock.patch.object(model, "COPIED_ENTRIES", copied):
        found = outcome(lambda: parts(*compile_formula(formula, X)))
    with by_formulaic():
        expected = outcome(lambda: parts(*compile_formula(formula, X)))
    assert found == expected


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    formula=st.sampled_from(["a + b", "0 + b + (1 + a | g)", "a + (a + b || g)", "b + I(a + 1)"]),
    learnt=st.lists(numeric, min_size=2, max_size=2),
    own=st.lists(st.one_of(numeric, kinds), min_size=2, max_size=3),
    copied=st.sampled_from([0, model.COPIED_ENTRIES]),
)
def test_further_rows_are_what_formulaic_makes(formula, learnt, own, copied):
    X, new = frame_of(learnt), frame_of(own)
    compiled, _ = compile_formula(formula, X)
    with mock.patch.object(model, "COPIED_ENTRIES", copied):
        found = outcome(lambda: compiled.rows(new).tolist())
    with by_formulaic():
        expected = outcome(lambda: compile_formula(formula, X)[0].rows(new).tolist())
    assert found == expected


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("formula", ["a ", "log(a) ", "0 + a ", "a + b ", "1 "])
def test_the_response_is_what_formulaic_makes(formula, kind):
    X = frame_of([kind, "float64"])
    with np.errstate(all="ignore"):
        found = outcome(lambda: learn_response(formula, X)[1].tolist())
        with by_formulaic():
            expected = outcome(lambda: learn_response(formula, X)[1].tolist())
    assert found == expected


@pytest.mark.parametrize("kind", ["float64", "float32", "int8"])
def test_plain_columns_need_no_formulaic(kind):
    X = frame_of([kind] * 3, odd=kind)
    with mock.patch.object(coding, "_materialise", side_effect=AssertionError):
        compiled, _ = compile_formula("c + a + `odd name` + (1 + b | g) + (0 + a || g)", X)
        compiled.rows(X)
        learn_response("a", X)
    assert compiled.names == ("c", "a", "odd name", "b")
    assert all(own.is_plain for own in compiled.codings)


@pytest.mark.parametrize("formula", ["a + b", "a + I(b)"])
@pytest.mark.parametrize("kind", ["infinity", "extreme"])
def test_infinity_is_refused_alike(formula, kind):
    X, y = frame_of(["float64", kind]), np.arange(N_ROWS)

    def fit():
        MixedLinearRegressor(formula=f"{formula} + (1 | g)").fit(X, y)

    found = outcome(fit)
    with by_formulaic():
        assert outcome(fit) == found
    assert found[0] is ValueError


def test_a_missing_value_is_told_by_column_and_row():
    study = load_sleepstudy().frame.astype({"Days": float})
    formula = "Reaction ~ Days + (1 + Days | Subject)"
    for name in ("Days", "Reaction"):
        data = study.copy()
        data.loc[5, name] = np.nan
        with pytest.raises(ValueError, match=f"'{name}' of the formula has a missing .* row 5"):
            lmer(formula, data)
    present = np.arange(len(study)) != 5
    data = study.copy()
    data.loc[5, "Days"] = np.nan
    with pytest.raises(ValueError, match=r"'Days' of the formula has a missing .* row 5"):
        lmer("Reaction ~ Days + (1 + Days | Subject)", study).predict(data)
    # A row of weight zero is absent, and nothing is learnt from it.
    found = lmer(formula, data, sample_weight=present.astype(float))
    expected = lmer(formula, study[present])
    assert found.log_likelihood_ == pytest.approx(expected.log_likelihood_, abs=1e-8)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int16", "Int64", "Float64"])
def test_fits_of_all_numeric_types_are_those_by_parameters(dtype):
    study = load_sleepstudy()
    X = study.data.astype({"Days": dtype})
    found = MixedLinearRegressor(formula="Days + (1 + Days | Subject)").fit(X, study.target)
    expected = MixedLinearRegressor(groups="Subject", random_slopes=["Days"])
    expected.fit(study.data, study.target)
    assert found.log_likelihood_ == pytest.approx(expected.log_likelihood_, abs=1e-8)
    assert_allclose(found.predict(X), expected.predict(study.data), rtol=1e-7)
    assert_allclose(found.predict(study.data), found.predict(X), rtol=1e-12)


def test_frames_of_polars():
    study = load_sleepstudy().frame
    formula = "Reaction ~ Days + (1 + Days | Subject)"
    data = pl.DataFrame({name: study[name].to_numpy() for name in study})
    found, expected = lmer(formula, data), lmer(formula, study)
    assert_allclose(found.coef_, expected.coef_, rtol=1e-12)
    assert_allclose(found.predict(data), expected.predict(study), rtol=1e-12)


def test_columns_side_by_side_are_not_copied():
    n_rows = model.COPIED_ENTRIES
    X = pd.DataFrame(RANDOM.normal(size=(n_rows, 4)), columns=list("abcd")).assign(g=1)
    block = X["a"].to_numpy()
    for formula in ("a + b + c + d + (1 + a | g)", "b + c", "d + c"):
        compiled, rows = compile_formula(formula, X)
        assert_array_equal(rows, X[list(compiled.names)])
        assert np.shares_memory(rows, X[["a", "b", "c", "d"]].to_numpy())
        assert np.shares_memory(compiled.rows(X), rows)
    _, rows = compile_formula("a + d + (b | g)", X)
    assert not np.shares_memory(rows, block)
    assert_array_equal(rows, X[["a", "d", "b"]])


def test_the_rows_of_a_fit_are_not_written_to():
    study = load_sleepstudy().frame.astype({"Days": float})
    before = study.copy()
    lmer("Reaction ~ Days + (1 + Days | Subject)", study, sample_weight=np.full(len(study), 2.0))
    pd.testing.assert_frame_equal(study, before)


def test_a_formula_that_was_read_before_is_read_for_the_columns_there_are():
    X = frame_of(["float64", "int8", "float32"], odd="float64")
    compiled, _ = compile_formula(". + (1 | g)", X)
    assert compiled.names == ("a", "b", "c", "odd name", "a:b")
    compiled, _ = compile_formula(". + (1 | g)", X.drop(columns="b"))
    assert compiled.names == ("a", "c", "odd name", "a:b")
    compiled, _ = compile_formula("a + b", X)
    with pytest.raises(FormulaError, match="names 'b', which X does not have"):
        compile_formula("a + b", X.drop(columns="b"))
    # What was numeric in one fit may be categories in the next.
    assert len(compile_formula("a + b", frame_of(["text", "int8"]))[0].names) > 2


@pytest.mark.parametrize("formula", ["a + ", "a + (1 | ", "a ~ b ~ c", "a + zzz", ""])
def test_errors_are_raised_each_time(formula):
    X = frame_of(["float64", "float64"])
    first, second = (outcome(lambda: compile_formula(formula, X)) for _ in range(2))
    assert first == second
    assert first[0] is FormulaError


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_fits_can_be_copied(copied):
    study = load_sleepstudy()
    fit = MixedLinearRegressor(formula="Days + (1 + Days | Subject)").fit(study.data, study.target)
    expected = fit.predict(study.data)
    other = copied(fit)
    assert_array_equal(other.predict(study.data), expected)
    as_text = study.data.astype({"Days": str})
    with pytest.raises(ValueError, match=r"'Days'.* expects factor|'Days' of the formula was num"):
        other.predict(as_text)
    again = clone(other).fit(study.data, study.target)
    assert_array_equal(again.predict(study.data), expected)


def test_fits_in_threads_are_those_one_after_another():
    study = load_sleepstudy()
    formulas = ["Days + (1 | Subject)", "Days + (1 + Days | Subject)", "(Days || Subject)"] * 4

    def fit(formula):
        return MixedLinearRegressor(formula=formula).fit(study.data, study.target).log_likelihood_

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fit, formulas)) == list(map(fit, formulas))
