"""Arithmetic in formulas is that of real numbers, whatever the types of the columns."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.exceptions import DataWarning
from mixedlearn.formula import as_pandas, compile_formula, learn_response

N_ROWS = 24
TYPES = [
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "Int8",
    "UInt64",
    "Float32",
    "object",
]
TERMS = [
    "x*z",
    "x:z",
    "a:x:z",
    "I(x**3)",
    "I(x**9)",
    "{x - z}",
    "{-x}",
    "{x*z - z*x*x}",
    "np.power(x, 9)",
    "np.sqrt(x)",
    "np.square(x)",
    "np.multiply(x, x)",
    "log(x)",
    "exp(x / 50)",
    "exp10(x / 50)",
    "np.where(x > z, x - z, z - x)",
    "np.prod([x, x, z], axis=0)",
    "sum([x, z, x])",
    "x.pow(9)",
    "x.mul(z)",
    "pow(x, 9)",
    "{x.astype('int8') * x.astype('int8')}",
    "{x // 7 - x % 7}",
    "poly(x, 3, raw=True)",
    "poly(x - z, 2)",
    "scale(x - z)",
    "center(x * z)",
    "standardize(x)",
    "bs(x - z, df=4)",
    "cr(x * x, df=3)",
    "ns(x, df=2)",
    "I(x * z) + (0 + x:z | g)",
    "x + (I(x - z) || g)",
]
FOR_BOOLEANS = [
    "I(x + z)",
    "I(x + z + x)",
    "{x - z}",
    "{-x}",
    "{x * z}",
    "{x / 2}",
    "{x ** 2 + z}",
    "np.add(x, z)",
    "np.exp(x)",
    "np.maximum(x, z)",
    "log(x + 1)",
    "sum([x, z])",
    "{x.add(z)}",
    "scale(x)",
    "poly(x + z, 2, raw=True)",
    "u:I(x + z)",
    "1 + (I(x + z) | g)",
]


def frame(x, z):
    n_rows = len(x)
    return pd.DataFrame(
        {
            "x": x,
            "z": z,
            "u": np.linspace(0.0, 1.0, n_rows),
            "a": np.array(["p", "q", "r"])[np.arange(n_rows) % 3],
            "g": np.arange(n_rows) // 4,
        }
    )


def as_type(values, kind):
    if kind == "object":
        kinds = [int, float, Decimal, Fraction, np.int8]
        mixed = [kinds[row % len(kinds)](int(value)) for row, value in enumerate(values)]
        return pd.Series(mixed, dtype=object)
    return pd.Series(values).astype(kind)


def assert_same(formula, found, expected):
    (compiled, rows), (other, exact) = (compile_formula(formula, X) for X in (found, expected))
    assert compiled.names == other.names
    assert rows.dtype == np.float64
    assert_allclose(rows, exact, rtol=1e-13, atol=1e-13)


# Every type holds them; there are enough of them for the knots of splines.
numbers = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).permutation(np.arange(1, 100))[: 2 * N_ROWS]
)


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(st.sampled_from(TERMS), numbers, st.sampled_from(TYPES), st.sampled_from(TYPES))
def test_the_type_of_a_number_does_not_matter(formula, drawn, kind, other):
    x, z = drawn[:N_ROWS], drawn[N_ROWS:]
    assert_same(
        formula,
        frame(as_type(x, kind), as_type(z, other)),
        frame(x.astype(float), z.astype(float)),
    )


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(FOR_BOOLEANS),
    st.lists(st.booleans(), min_size=N_ROWS, max_size=N_ROWS),
    st.sampled_from(["bool", "boolean", "bool[pyarrow]", "object"]),
)
def test_booleans_in_arithmetic_are_zeros_and_ones(formula, drawn, kind):
    x = np.array(drawn)
    x[:4] = True, True, False, False
    z = np.roll(x, 1)
    booleans = frame(pd.Series(x).astype(kind), pd.Series(z).astype(kind))
    assert_same(formula, booleans, frame(x.astype(float), z.astype(float)))


@pytest.mark.parametrize("formula", ["x", "C(x)", "I(x)", "{x & z}", "{~x}", "{x | (u > 0.5)}"])
def test_booleans_by_themselves_are_categories(formula):
    x = np.arange(N_ROWS) % 4 < 2
    compiled, _ = compile_formula(formula, frame(x, np.roll(x, 1)))
    assert len(compiled.names) == 1
    assert compiled.names[0].endswith("[T.True]")


def test_numbers_that_stand_for_something_else_stay_as_they_are():
    X = frame(np.arange(N_ROWS) % 3, np.arange(N_ROWS, dtype=np.int8))
    assert compile_formula("C(x)", X)[0].names == ("C(x)[T.1]", "C(x)[T.2]")
    assert compile_formula("C(x, contr.sum)", X)[0].names[0] == "C(x, contr.sum)[S.0]"
    for formula, values in [
        ("{z & 1}", X["z"] & 1),
        ("np.array([3, 5, 7])[x]", np.array([3, 5, 7])[X["x"]]),
        ("x.map({0: 1.5, 1: 2.5, 2: 9.0})", X["x"].map({0: 1.5, 1: 2.5, 2: 9.0})),
    ]:
        assert_allclose(compile_formula(formula, X)[1][:, 0], values)


@pytest.mark.parametrize("response", ["x - z", "I(z - x)", "I(x**9)", "x * z", "np.log(x)"])
@pytest.mark.parametrize("kind", ["uint8", "int8", "UInt8", "float16"])
def test_responses_are_real_numbers(response, kind):
    x, z = np.arange(1, N_ROWS + 1), np.arange(N_ROWS + 1, 1, -1)
    found = frame(as_type(x, kind), as_type(z, kind))
    text = response if response.startswith(("I", "np")) else f"{{{response}}}"
    assert_allclose(
        learn_response(text, found)[1],
        learn_response(text, found.astype({"x": float, "z": float}))[1],
    )


def test_a_frame_of_polars():
    values = {"x": np.arange(100, 124, dtype=np.uint8), "z": np.arange(24, dtype=np.int8)}
    X = frame(values["x"].astype(float), values["z"].astype(float))
    found = as_pandas(pl.DataFrame({**{name: X[name].to_numpy() for name in X}, **values}))
    assert_same("x*z + I(z - x) + (I(x**2) | g)", found, X)


def test_small_integers_give_the_fit_of_large_ones():
    random = np.random.default_rng(0)
    g = np.repeat(np.arange(40), 10)
    data = frame(random.integers(20, 80, 400), random.integers(1, 100, 400)).assign(g=g)
    data["y"] = 0.01 * data["x"] * data["z"] + random.normal(size=40)[g] + random.normal(size=400)
    small = data.astype({"x": "int8", "z": "int8"})
    formula = "y ~ x*z + (1 + x:z | g)"
    wide, narrow = lmer(formula, data), lmer(formula, small)
    assert narrow.log_likelihood_ == pytest.approx(wide.log_likelihood_, abs=1e-8)
    assert_allclose(narrow.predict(small.tail(3)), wide.predict(data.tail(3)))


@pytest.mark.parametrize("kind", ["int64", "Int64", "uint64", "int64[pyarrow]", "object"])
@pytest.mark.parametrize("formula", ["x", "x:u", "I(x - 1)", "(0 + x | g)"])
def test_integers_that_lose_digits_are_told(formula, kind):
    x = pd.Series(2**53 + np.arange(N_ROWS)).astype(kind)
    (note,) = compile_formula(f"{formula} + (1 | a)", frame(x, x))[0].notes
    assert f"column 'x' are too large for floats and lose digits: {2**53 + 1} at row 1" in note


def test_fit_warns_of_lost_digits():
    x = 2**53 + 2**40 * np.arange(N_ROWS) + 1
    y = np.random.default_rng(0).normal(size=N_ROWS)
    with pytest.warns(DataWarning, match="column 'x' are too large"):
        MixedLinearRegressor(formula="x + (1 | a)").fit(frame(x, y), y)
    with pytest.warns(DataWarning, match="column 'x' are too large"):
        MixedLinearRegressor(groups="a", fixed_effects=["x"]).fit(frame(x, y), y)
    for response in ("x", "{x - 1}"):
        with pytest.warns(DataWarning, match="column 'x' are too large"):
            lmer(f"{response} ~ z + (1 | a)", frame(x, y))


@pytest.mark.parametrize("formula", ["C(x)", "z + (1 | x)", "x"])
def test_integers_that_lose_no_digits_are_not_told(formula):
    scale = 1 if formula != "x" else 2
    x = 2**53 + scale * np.arange(N_ROWS)
    assert compile_formula(formula, frame(x, x % 7))[0].notes == ()
