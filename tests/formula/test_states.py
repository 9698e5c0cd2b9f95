"""What a formula learns in fit holds in predict: a row's values depend on no other row.

Columns may have any name: what they are called changes nothing.
"""

import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.exceptions import DataWarning
from mixedlearn.formula import compile_formula
from mixedlearn.formula.brackets import FormulaError

RANDOM = np.random.default_rng(3)
N_ROWS = 40
DATA = pd.DataFrame(
    {
        "x": RANDOM.normal(3.0, 2.0, N_ROWS),
        "z": RANDOM.gamma(2.0, 2.0, N_ROWS) + 0.5,
        "f": RANDOM.choice(list("pqr"), N_ROWS),
        "h": RANDOM.integers(1, 4, N_ROWS),
        "g": np.arange(N_ROWS) // 5,
    }
)
INNER = ["{}", "center({})", "scale({})", "np.log({} + 9)", "{} ** 2", "np.abs({})"]
OUTER = [
    "center({})",
    "scale({})",
    "scale({}, center=False)",
    "standardize({})",
    "poly({}, 3)",
    "poly({}, 2, raw=True)",
    "bs({}, df=5)",
    "bs({}, df=4, include_intercept=True)",
    "cr({}, df=4)",
    "cr({}, df=4, constraints=None)",
    "cs({}, df=4)",
    "cc({}, df=3)",
    "ns({}, df=3)",
    "ns({}, df=1)",
    "I({})",
]
COMBINED = [
    "np.where(center({x}) > 0, center({x}), 0)",
    "np.where(scale({x}) > center({z}), scale({x}), scale({z}))",
    "{{center({x}) * center({x}) + scale({x})}}",
    "sum([center(v) for v in [{x}, {z}]])",
    "{{(lambda v: center(v) * center(v + 1))({x})}}",
    "scale({x}) + scale({z})",
    "poly({x}, 2) * poly({z}, 2)",
    "{f} * center({x})",
    "C({f}, contr.sum):bs({x}, df=4)",
    "C({h}) + C({h}, contr.helmert):{z}",
    "C({h}, contr.poly)",
    "hashed({f}, 3)",
    "center({x}):scale({x}):{f}",
    "bs({x}, knots=[1.0, 2.0], degree=2)",
    "ns({x}, knots=[1.0, 2.0])",
]
WORDS = """
q+ q- my_x my-x a:b 1a x.1 µ ﬁ x² ñ 名 一 一_ # %in% ~ | . 0 class lambda None in True
np C I Q log scale center contr poly sum abs n e p v __x df knots
_column_0_ _real_ _learning_0_
"""
NAMES = [*WORDS.split(), "my x", "\n", " ", "(", "'", '"', "\\", "a\\", "np.log(x)", "{b}"]
names = st.lists(
    st.one_of(st.sampled_from(NAMES), st.text(min_size=1, max_size=4)),
    min_size=4,
    max_size=4,
    unique=True,
).filter(lambda own: not any("`" in name for name in own) and not {"g", "intercept", "1"} & {*own})


@st.composite
def terms(draw):
    """A term with places for the columns x, z, f and h."""
    if draw(st.booleans()):
        return draw(st.sampled_from(COMBINED))
    inner = draw(st.sampled_from(INNER)).format("{" + draw(st.sampled_from("xz")) + "}")
    return draw(st.sampled_from(OUTER)).replace("{}", inner)


def with_names(term, own):
    return term.format(**own)


PLAIN = {name: name for name in "xzfh"}


@settings(deadline=None, max_examples=60)
@given(terms(), st.sets(st.integers(0, N_ROWS - 1), min_size=1, max_size=5))
def test_a_row_depends_on_no_other_row(term, chosen):
    compiled, rows = compile_formula(with_names(term, PLAIN), DATA)
    assert not compiled.notes
    compiled = pickle.loads(pickle.dumps(compiled))
    assert_allclose(compiled.rows(DATA), rows, rtol=1e-9, atol=1e-9)
    some = sorted(chosen)
    assert_allclose(compiled.rows(DATA.iloc[some]), rows[some], rtol=1e-9, atol=1e-9)
    for row in some:
        assert_allclose(compiled.rows(DATA.iloc[[row]]), rows[[row]], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@settings(deadline=None, max_examples=80)
@given(terms(), names)
def test_names_change_nothing(term, drawn):
    new = dict(zip("xzfh", drawn, strict=True))
    in_ticks = {name: f"`{own}`" for name, own in new.items()}
    renamed = DATA.rename(columns=new)
    expected, rows = compile_formula(f"{with_names(term, PLAIN)} + (1 + x | g)", DATA)
    text = f"{with_names(term, in_ticks)} + (1 + {in_ticks['x']} | g)"
    compiled, found = compile_formula(text, renamed)
    assert_allclose(found, rows, rtol=1e-12, atol=1e-12)
    assert_allclose(compiled.rows(renamed.head(3)), rows[:3], rtol=1e-9, atol=1e-9)
    # The text that the model writes is the same model.
    again, found = compile_formula(compiled.text, renamed)
    assert again.text == compiled.text
    assert again.names == compiled.names
    assert_allclose(found, rows, rtol=1e-12, atol=1e-12)
    assert len(expected.names) == len(compiled.names)


@pytest.mark.parametrize(
    "formula",
    [
        "np.log(np + 9)",
        "C(C)",
        "I(I**2)",
        "log(log + 9)",
        "scale(scale)",
        "np + C + I + log",
        "Q('np')",
    ],
)
def test_columns_called_like_functions(formula):
    x = DATA["x"]
    X = DATA.assign(np=x, I=x, log=x, scale=x, C=DATA["h"])
    expected = formula.replace("np + C + I + log", "x + h").replace("Q('np')", "x")
    for name, other in [
        ("(np ", "(x "),
        ("C(C)", "C(h)"),
        ("(I*", "(x*"),
        ("(log ", "(x "),
        ("(scale)", "(x)"),
    ]:
        expected = expected.replace(name, other)
    _, found = compile_formula(formula, X)
    _, rows = compile_formula(expected, DATA)
    assert_allclose(found if found.shape == rows.shape else found[:, :2], rows)


def test_two_ways_to_write_a_name_are_one_term():
    X = DATA.rename(columns={"z": "µ"})
    for formula in [
        "x + `x`",
        "`x` + x - x + `x`",
        "log(`x` + 9) + log(x + 9)",
        "µ + `µ`",
        "log(µ) + log(`µ`)",
    ]:
        assert len(compile_formula(formula, X)[0].names) == 1


def test_a_column_called_like_an_expression_of_the_formula():
    X = DATA.rename(columns={"z": "np.log(x)"})
    with pytest.raises(
        FormulaError, match=r"column 'np.log\(x\)' of X is called like an expression"
    ):
        compile_formula("np.log(x) + `np.log(x)`", X)
    assert compile_formula("`np.log(x)`", X)[0].names == ("np.log(x)",)
    with pytest.raises(FormulaError, match="column '1' of X is called like an expression"):
        compile_formula("`1`", DATA.rename(columns={"x": "1"}))


def test_names_side_by_side_need_an_operator():
    for formula in ["`x``z`", "a`x`", "`x`2"]:
        with pytest.raises(FormulaError, match="Missing operator beside `x`"):
            compile_formula(formula, DATA)


def test_beyond_the_rows_of_fit_splines_go_on():
    x = np.linspace(0.0, 1.0, 30)
    X = pd.DataFrame({"x": x, "g": 1})
    new = pd.DataFrame({"x": [-0.5, 1.5], "g": 1})
    for term, degree in [("bs(x, df=3)", 3), ("bs(x, degree=1)", 1), ("ns(x, df=1)", 1)]:
        compiled, rows = compile_formula(term, X)
        for column, values in zip(rows.T, compiled.rows(new).T, strict=True):
            assert_allclose(values, np.polyval(np.polyfit(x, column, degree), new["x"]), atol=1e-8)
    # Natural splines go on as straight lines.
    compiled, _ = compile_formula("ns(x, df=4) + cr(x, df=4)", X)
    values = compiled.rows(pd.DataFrame({"x": [1.0, 2.0, 3.0], "g": 1}))
    assert_allclose(values[1] - values[0], values[2] - values[1])


def test_in_is_an_interaction_as_in_r():
    for formula, same in [
        ("x %in% f", "x:f"),
        ("f + x %in% f", "f + x:f"),
        ("(x + z) %in% f", "(x + z):f"),
    ]:
        assert compile_formula(formula, DATA)[0].names == compile_formula(same, DATA)[0].names
    text = DATA.assign(f=np.where(DATA["x"] > 3, "%in%", "other"))
    assert len(compile_formula("C(f, levels=['other', '%in%'])", text)[0].names) == 1


# Expressions that take other rows into account

DEPENDS = [
    "{x - x.mean()}",
    "I(x - x.mean())",
    "I(x - np.mean(x))",
    "np.cumsum(z)",
    "x.rank()",
    "{x / x.sum()}",
    "{x > x.quantile(0.9)}",
    "{x == x.max()}",
    "C(x > x.median())",
    "np.random.normal(size=len(x))",
    "{x.diff().fillna(0)}",
    "center(x.rank())",
    "np.sort(x)",
    "np.digitize(x, np.quantile(x, [0.3, 0.6]))",
    "f.map(f.value_counts())",
    "{x.groupby(f).transform('mean')}",
    "{center(x) - x.min()}",
]
ALONE = [
    "x.clip(0, 2)",
    "f.str.upper()",
    "f.map({'p': 1.0, 'q': 2.0, 'r': 0.0})",
    "np.polyval([1, 2, 3], x)",
    "x.astype(int)",
    "np.array([2.0, 3.0, 5.0, 7.0])[h]",
    "{[v for v in [x, z]][1]}",
    "np.interp(x, [0, 3], [1, 2])",
    "C(f.str.upper())",
    "scale(x, center=x.mean())",
]


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("formula", DEPENDS)
def test_expressions_that_depend_on_other_rows_are_told(formula, repeated):
    # In repeated rows the halves have the mean of the whole.
    data = pd.concat([DATA, DATA], ignore_index=True) if repeated else DATA
    (note,) = compile_formula(f"{formula} + (1 | g)", data)[0].notes
    assert "depends on the other rows" in note
    assert repr(formula.strip("{}"))[1:-1] in note or formula[:8] in note
    assert "center(" in note


@pytest.mark.parametrize("formula", ALONE)
def test_expressions_that_take_a_row_by_itself_are_not_told(formula):
    assert compile_formula(f"{formula} + (1 | g)", DATA)[0].notes == ()


def test_an_expression_without_columns():
    (note,) = compile_formula("x + {np.arange(40.0)}", DATA)[0].notes
    assert "'np.arange(40.0)' of the formula depends on the other rows" in note


def test_fit_warns_of_other_rows_and_says_what_to_write():
    y = DATA["x"] + RANDOM.normal(size=N_ROWS)
    with pytest.warns(DataWarning, match=r"'\{x - x.mean\(\)\}' .*Write center\(x\)") as caught:
        MixedLinearRegressor(formula="{x - x.mean()} + (1 | g)").fit(DATA, y)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.warns(DataWarning, match=r"'\{y - y.mean\(\)\}' .*Write center\(y\)"):
        lmer("{y - y.mean()} ~ x + (1 | g)", DATA.assign(y=y))
    renamed = DATA.rename(columns={"x": "my x"})
    with pytest.warns(DataWarning, match=r"Write center\(`my x`\)"):
        MixedLinearRegressor(formula="I(`my x` - `my x`.mean()) + (1 | g)").fit(renamed, y)


@pytest.mark.parametrize("formula", ["f", "0 + f", "C(f)", "C(f, contr.sum)", "(0 + f | g)"])
@pytest.mark.parametrize(
    ("categories", "message"),
    [(["__a", "b"], "'__a' of '.*f.*' starts with '__'"), ([1, "1"], "1 and '1' of .* same text")],
)
def test_categories_do_not_vanish(formula, categories, message):
    values = pd.Series([*categories, "c"] * N_ROWS, dtype=object)[:N_ROWS]
    with pytest.raises(ValueError, match=message):
        compile_formula(formula, DATA.assign(f=values))


def test_a_spline_that_spans_the_intercept_is_a_term():
    compiled, rows = compile_formula("0 + bs(x, df=5, include_intercept=True)", DATA)
    assert_allclose(rows.sum(axis=1), 1.0)
    assert [term.coefs for term in compiled.terms] == [(0, 1, 2, 3, 4)]
