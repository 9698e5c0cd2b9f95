"""Formulas: the models of lme4 and of the parameters, their terms, and their life in scikit-learn.

Tolerances. Criteria of formula.json come from an optimiser that was run three times over, and agree
to 1e-6. The criterion is quadratic at its minimum, so estimates are off by at most 1e-3 of their
standard errors there; F statistics are held to 1e-5 of their value, as far as lmerTest's two ways
to compute them agree.
"""

import json
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from formulaic import Formula
from hypothesis import event, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._testing import assert_allclose

from mixedlearn import MixedLinearRegressor, datasets, lmer
from mixedlearn.exceptions import NoGroupsWarning
from mixedlearn.formula import compile_formula
from mixedlearn.formula.brackets import FormulaError
from mixedlearn.formula.parser import parse, quoted
from reference import FOLDER

REFERENCE = json.loads((FOLDER / "formula.json").read_text(encoding="utf-8"))
MACHINES = pd.DataFrame(REFERENCE["data"])
BY_FORMULA = {model["formula"]: model for model in REFERENCE["models"]}
STORED = {
    model["id"]: model
    for name in ("one_factor", "several_factors")
    for model in json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["models"]
}
MADE_UP = json.loads((FOLDER / "several_factors.json").read_text(encoding="utf-8"))["data"]
IN_PYTHON = {"Time2": "I(Time**2)"}


def stored_data(model):
    if model["data_set"] is not None:
        return getattr(datasets, f"load_{model['data_set']}")().frame
    return pd.DataFrame(MADE_UP[model["data"]])


def made_up(n=120, seed=0):
    random = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "x": random.normal(size=n),
            "z": random.normal(size=n),
            "a": np.array(["p", "q", "r"])[random.integers(3, size=n)],
            "b": np.array(["u", "v"])[random.integers(2, size=n)],
            "g": random.integers(12, size=n),
            "h": random.integers(5, size=n),
        }
    )
    means = (
        random.normal(size=12)[X["g"]]
        + 2.0 * random.normal(size=(5, 3))[X["h"], X["a"].map({"p": 0, "q": 1, "r": 2})]
    )
    return X, means + X["x"] + random.normal(size=n)


def fitted(formula, **parameters):
    X, y = made_up()
    return MixedLinearRegressor(formula=formula, **parameters).fit(X, y)


def blocks(factor):
    """The effects that are correlated, block by block."""
    return [[factor.effects[i] for i in block] for block in factor.structure.blocks()]


def structure(formula):
    """For every factor its blocks of random effects."""
    compiled, _ = compile_formula(formula, made_up()[0])
    specification = compiled.specification(reml=True)
    return {factor.name: blocks(factor) for factor in specification.factors}


# lme4 and lmerTest


@pytest.mark.parametrize("name", [name for name in STORED if not name.startswith("insteval")])
def test_the_formulas_of_lme4(name):
    model = STORED[name]
    data = stored_data(model)
    formula = model["formula"].replace("Time2", IN_PYTHON["Time2"])
    weights = model["weights"]
    found = lmer(
        formula,
        data,
        reml=model["reml"],
        sample_weight=data[weights] if isinstance(weights, str) else weights,
    )
    assert -2.0 * found.log_likelihood_ == pytest.approx(model["criterion"], abs=1e-6)
    # The columns of the cakes are stored in another order.
    coef = [found.intercept_, *found.coef_][-len(model["coef"]) :]
    assert_allclose(np.sort(coef), np.sort(model["coef"]), rtol=1e-4, atol=1e-6)


def test_three_crossed_factors():
    data = datasets.load_insteval().frame
    data = data[data["d"].astype(int) % 20 == 0]
    by_formula = lmer("y ~ service + (1 | s) + (1 | d) + (1 | dept)", data)
    by_parameters = MixedLinearRegressor(groups=["s", "d", "dept"], fixed_effects=["service"])
    by_parameters.fit(data, data["y"])
    assert by_formula.log_likelihood_ == pytest.approx(by_parameters.log_likelihood_, abs=1e-8)
    assert sum(by_formula.n_groups_.values()) > 400
    assert_allclose(by_formula.predict(data), by_parameters.predict(data), rtol=1e-6)


@pytest.mark.parametrize("formula", BY_FORMULA)
def test_categorical_formulas_of_lme4(formula):
    model = BY_FORMULA[formula]
    found = lmer(formula, MACHINES)
    assert -2.0 * found.log_likelihood_ == pytest.approx(model["criterion"], abs=1e-6)
    assert found.noise_variance_ == pytest.approx(model["noise_variance"], rel=1e-4)
    coef = np.append(found.intercept_, found.coef_)[0 if "0 +" not in formula[:8] else 1 :]
    assert_allclose(coef, model["coef"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("formula", BY_FORMULA)
def test_marginal_hypotheses_of_lmertest(formula):
    model = BY_FORMULA[formula]
    found = lmer(formula, MACHINES)._fitted.model
    assert len(found.specification.terms) == len(model["terms"])
    for term, expected in zip(found.specification.terms, model["terms"].values(), strict=True):
        value = term.marginal @ found.coef
        covariance = term.marginal @ found.coef_covariance @ term.marginal.T
        F = value @ np.linalg.solve(covariance, value) / len(value)
        assert len(value) == expected["df"]
        assert pytest.approx(expected["F"], rel=1e-5, abs=1e-7) == F, term.name


# Terms


@pytest.mark.parametrize(
    "formula",
    [
        "a + b + x",
        "a*b",
        "a*b*x",
        "0 + a + b",
        "0 + a*b",
        "0 + x + a",
        "a:b",
        "a + a:b",
        "a:x",
        "x + a:x",
        "a*poly(x, 2)",
        "0 + bs(x, df=4):a + b",
        "a*x*z + b",
        "C(a, contr.helmert)*b",
        "2:x + a:x",
        "a/b/x",
    ],
)
def test_a_marginal_hypothesis_is_the_one_of_contrasts_that_sum_to_zero(formula):
    """A model with such contrasts spans the same columns: its coefficients are combinations."""
    X, _ = made_up()
    compiled, rows = compile_formula(formula, X)
    columns = np.column_stack([np.ones((len(X), int(compiled.fit_intercept))), rows])
    in_sums = formula.replace("C(a, contr.helmert)", "a")
    in_sums = in_sums.replace(
        "a",
        "C(a, contr.sum)",
    ).replace("b", "C(b, contr.sum)")
    in_sums = in_sums.replace("C(b, contr.sum)s(", "bs(")
    matrix = Formula(in_sums).get_model_matrix(X)
    map_to_sums, *_ = np.linalg.lstsq(matrix.to_numpy(float), columns, rcond=None)
    assert_allclose(matrix.to_numpy(float) @ map_to_sums, columns, atol=1e-10)
    own = [indices for term, indices in matrix.model_spec.term_indices.items() if str(term) != "1"]
    assert len(own) == len(compiled.terms)
    n_coefs = columns.shape[1]
    assert sorted(c for term in compiled.terms for c in term.coefs) == list(
        range(compiled.fit_intercept, n_coefs)
    )
    for term, indices in zip(compiled.terms, own, strict=True):
        expected = map_to_sums[indices]
        assert term.marginal.shape == (len(indices), n_coefs)
        # The same hypothesis: the same row space.
        assert_allclose(_projection(term.marginal), _projection(expected), atol=1e-8)


def _projection(rows):
    return np.linalg.pinv(rows) @ rows


def test_contrasts_that_do_not_span_all_categories():
    X, _ = made_up()
    compiled, _ = compile_formula("C(a, [[-1], [0], [1]]) + b", X)
    first = compiled.terms[0]
    assert first.coefs == (1,)
    assert_allclose(np.abs(first.marginal / first.marginal[0, 1]), [[0.0, 1.0, 0.0]], atol=1e-12)


def test_names_of_terms():
    data = datasets.load_cake().frame
    terms = lmer(
        "angle ~ recipe*temperature + (1 | recipe:replicate)", data
    )._fitted.model.specification.terms
    assert [term.name for term in terms] == ["recipe", "temperature", "recipe:temperature"]
    assert [len(term.coefs) for term in terms] == [2, 5, 10]
    assert terms[2].variables == {"recipe", "temperature"}
    assert terms[0].variables < terms[2].variables
    names = lmer("angle ~ recipe + I(temp**2) + (1 | replicate)", data).coef_covariance_.columns
    assert list(names) == ["intercept", "recipe[T.B]", "recipe[T.C]", "I(temp ** 2)"]


def test_a_categorical_of_one_category_is_no_term():
    X, y = made_up()
    model = MixedLinearRegressor(formula="x + a + (1 | g)").fit(X.assign(a="p"), y)
    assert [term.name for term in model._fitted.model.specification.terms] == ["x"]


# Random terms


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("(1|g)", {"g": [["intercept"]]}),
        ("(x|g)", {"g": [["intercept", "x"]]}),
        ("(1 + x|g)", {"g": [["intercept", "x"]]}),
        ("(0+x|g)", {"g": [["x"]]}),
        ("(x-1|g)", {"g": [["x"]]}),
        ("(-1 + x|g)", {"g": [["x"]]}),
        ("(x||g)", {"g": [["intercept"], ["x"]]}),
        ("(x + z||g)", {"g": [["intercept"], ["x"], ["z"]]}),
        ("(0 + x + z||g)", {"g": [["x"], ["z"]]}),
        ("(1|g/h)", {"g": [["intercept"]], "g:h": [["intercept"]]}),
        ("(x|g/h)", {"g": [["intercept", "x"]], "g:h": [["intercept", "x"]]}),
        ("(1|a/g/h)", {"a": [["intercept"]], "a:g": [["intercept"]], "a:g:h": [["intercept"]]}),
        ("(1|a:g/h)", {"a:g": [["intercept"]], "a:g:h": [["intercept"]]}),
        ("(1|g) + (0+x|g)", {"g": [["intercept"], ["x"]]}),
        ("(0+x|g) + (1|g)", {"g": [["intercept"], ["x"]]}),
        ("(1|g:h) + (0+x|h:g)", {"g:h": [["intercept"], ["x"]]}),
        ("(1+x|g) + (0+z|g)", {"g": [["intercept", "x"], ["z"]]}),
        ("(0+z+x|g) + (1|g)", {"g": [["intercept"], ["z", "x"]]}),
        ("(a|g)", {"g": [["intercept", "a[T.q]", "a[T.r]"]]}),
        ("(0+a|g)", {"g": [["a[p]", "a[q]", "a[r]"]]}),
        ("(b||g)", {"g": [["intercept"], ["b[u]", "b[v]"]]}),
        ("(1 + I(x**2)|g)", {"g": [["intercept", "I(x ** 2)"]]}),
        ("(poly(x,2)|g)", {"g": [["intercept", "poly(x, 2)[1]", "poly(x, 2)[2]"]]}),
        ("(1|g) + (1|h)", {"g": [["intercept"]], "h": [["intercept"]]}),
        ("x + ((1|g) + (1|h)) - 1", {"g": [["intercept"]], "h": [["intercept"]]}),
        ("(1|a) + a", {"a": [["intercept"]]}),
    ],
)
def test_random_terms(formula, expected):
    assert structure(formula) == expected


@pytest.mark.parametrize(
    ("formula", "parameters"),
    [
        ("x + (1 + x | g)", {"groups": "g", "fixed_effects": ["x"], "random_slopes": ["x"]}),
        (
            "x + z + (1 + x | g) + (0 + z | g)",
            {
                "groups": "g",
                "fixed_effects": ["x", "z"],
                "random_slopes": ["x", "z"],
                "covariance": np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=bool),
            },
        ),
        (
            "0 + x + (0 + z || g:h) + (1 | h)",
            {
                "groups": [("g", "h"), "h"],
                "fixed_effects": ["x"],
                "fit_intercept": False,
                "random_intercept": {"g:h": False},
                "random_slopes": {"g:h": ["z"]},
            },
        ),
        (
            "(x || g) + (z | h)",
            {
                "groups": ["g", "h"],
                "fixed_effects": [],
                "random_slopes": {"g": ["x"], "h": ["z"]},
                "covariance": {"g": "diagonal"},
            },
        ),
    ],
)
def test_a_formula_is_the_model_of_its_parameters(formula, parameters):
    X, y = made_up()
    by_formula = MixedLinearRegressor(formula=formula).fit(X, y)
    by_parameters = MixedLinearRegressor(**parameters).fit(X, y)
    assert by_formula.log_likelihood_ == pytest.approx(by_parameters.log_likelihood_, abs=1e-9)
    assert_allclose(by_formula.coef_, by_parameters.coef_, rtol=1e-6)
    assert by_formula.n_groups_ == by_parameters.n_groups_
    new = X.assign(g=X["g"] + 6)
    for with_std in (
        by_formula.predict(new, return_std=True),
        by_formula.predict(X, return_std=True),
    ):
        assert len(with_std) == 2
    for found, expected in zip(
        by_formula.predict(new, return_std=True),
        by_parameters.predict(new, return_std=True),
        strict=True,
    ):
        assert_allclose(found, expected, rtol=1e-5)
    for name, effects in by_parameters.random_effects_.items():
        pd.testing.assert_frame_equal(
            by_formula.random_effects_[name][effects.columns], effects, rtol=1e-4, atol=1e-6
        )
    # And back again: the text that either gives is the same model.
    for text in (by_formula.formula_, by_parameters.formula_):
        again = MixedLinearRegressor(formula=text).fit(X, y)
        assert again.log_likelihood_ == pytest.approx(by_formula.log_likelihood_, abs=1e-9)
        assert again.n_groups_ == by_formula.n_groups_
        assert again.coef_covariance_.shape == by_formula.coef_covariance_.shape


def test_a_column_may_be_a_covariate_and_a_grouping_factor():
    X, y = made_up()
    model = MixedLinearRegressor(formula="h + (1 | h)").fit(X, y)
    assert model.coef_.shape == (1,)
    assert model.n_groups_ == {"h": 5}


def test_a_numeric_column_is_there_once():
    compiled, rows = compile_formula("x + (x | g) + (x | h) + (0 + z | a)", made_up()[0])
    assert compiled.names == ("x", "z")
    assert rows.shape == (120, 2)


# The text of a model


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("1", "1"),
        ("0+x", "0 + x"),
        ("~ x", "x"),
        ("x*z-x:z+(x|g)", "x + z + (1 + x | g)"),
        ("(1|g)+(0+x|g)", "1 + (1 + x || g)"),
        ("(1+x|g)+(0+z|g)", "1 + (1 + x | g) + (0 + z | g)"),
        ("(0+x||g)", "1 + (0 + x | g)"),
        ("0+(1|g/h)", "0 + (1 | g) + (1 | g:h)"),
        ("a:x + {x+1} + (a||g)", "{x + 1} + a:x + (1 + a || g)"),
        ("(x+z)^2", "x + z + x:z"),
        ("I( x**2 )", "I(x ** 2)"),
    ],
)
def test_the_normal_form(formula, expected):
    compiled, _ = compile_formula(formula, made_up()[0])
    assert compiled.text == expected
    again, _ = compile_formula(expected, made_up()[0])
    assert again.text == expected
    assert again.names == compiled.names


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, "Days + (1 | Subject)"),
        ({"random_slopes": ["Days"]}, "Days + (1 + Days | Subject)"),
        ({"random_slopes": ["Days"], "covariance": "diagonal"}, "Days + (1 + Days || Subject)"),
        (
            {"random_slopes": ["Days"], "covariance": "scalar"},
            "Days + diag(1 + Days | Subject, hom = TRUE)",
        ),
        ({"random_slopes": ["Days"], "random_intercept": False}, "Days + (0 + Days | Subject)"),
        ({"covariance": "scalar"}, "Days + (1 | Subject)"),
        ({"fixed_effects": []}, "1 + (1 | Subject)"),
        ({"fixed_effects": [], "fit_intercept": False}, "0 + (1 | Subject)"),
    ],
)
def test_the_text_of_parameters(parameters, expected):
    X, y = datasets.load_sleepstudy(return_X_y=True)
    model = MixedLinearRegressor(groups="Subject", **parameters).fit(X, y)
    assert model.formula_ == expected


def test_the_text_of_a_mask_without_blocks():
    X, y = made_up()
    mask = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 1]], dtype=bool)
    X = X.rename(columns={"z": "a z"})
    model = MixedLinearRegressor(
        groups="g", fixed_effects=["a z"], random_slopes=["x", "a z"], covariance=mask
    ).fit(X, y)
    assert model.formula_ == "`a z` + (1 + x + `a z` | g; no covariance of x and `a z`)"


def test_the_text_of_labels_beside_the_columns():
    X, y = made_up()
    model = MixedLinearRegressor().fit(X[["x"]].to_numpy(), y, groups=X["g"].to_numpy())
    assert model.formula_ == "x0 + (1 | group)"
    with pytest.warns(NoGroupsWarning):
        assert MixedLinearRegressor().fit(X[["x"]], y).formula_ == "x"


def test_names_that_are_no_identifiers():
    X, y = made_up()
    X = X.rename(columns={"x": "dose (mg)", "g": "a:b", "z": "z.1"})
    model = MixedLinearRegressor(formula="`dose (mg)` + `z.1` + (1 + `dose (mg)` | `a:b`)").fit(
        X, y
    )
    assert model.n_groups_ == {"a:b": 12}
    assert list(model.coef_covariance_.columns) == ["intercept", "dose (mg)", "z.1"]
    assert model.formula_ == "`dose (mg)` + `z.1` + (1 + `dose (mg)` | `a:b`)"
    inside = MixedLinearRegressor(formula="I(`dose (mg)` * 2.0) + (1 | `a:b`)").fit(X, y)
    plain = MixedLinearRegressor(formula="`dose (mg)` + (1 | `a:b`)").fit(X, y)
    assert_allclose(2.0 * inside.coef_, plain.coef_, rtol=1e-6)


EFFECTS = st.lists(st.sampled_from(["x", "z", "a", "I(x ** 2)"]), max_size=2, unique=True)


@st.composite
def formulas(draw):
    """A formula, and its random terms as they should be found."""
    random = {}
    chosen = draw(st.permutations(["g", "h", "g:h", "a/g"]))[: draw(st.integers(0, 3))]
    for grouping in chosen:
        effects = " + ".join([draw(st.sampled_from("01")), *draw(EFFECTS)])
        bar = draw(st.sampled_from(["|", "||"]))
        blank = draw(st.sampled_from(["", " ", "\n "]))
        columns = [("a",), ("a", "g")] if grouping == "a/g" else [tuple(grouping.split(":"))]
        random[f"({effects}{blank}{bar}{blank}{grouping})"] = (effects, bar == "||", columns)
    fixed = draw(st.lists(st.sampled_from(["x", "z", "a*b", "`a|b`", "I((x|z)>0)"]), max_size=3))
    order = draw(st.permutations([*random, *fixed]))
    return " + ".join(order), [random[part] for part in order if part in random], fixed


@settings(deadline=None)
@given(formulas())
def test_random_terms_are_found_wherever_they_stand(drawn):
    text, expected, fixed = drawn
    if not text:
        return
    parsed = parse(text)
    assert [
        (term.effects.strip(), term.is_separate, [grouping.columns for grouping in term.groupings])
        for term in parsed.random
    ] == expected
    assert len(parsed.fixed) == len(text)
    assert sorted(part for part in parsed.fixed.replace("+", " ").split() if part) == sorted(
        part for own in fixed for part in own.split()
    )
    # Every part is at its place in the whole.
    for part in (parsed.fixed, *(term.effects for term in parsed.random)):
        assert all(own in (" ", there) for own, there in zip(part, text, strict=False))


@settings(deadline=None)
@given(st.text(alphabet="x+|()~g:/ 1`'[]*-.", max_size=14))
def test_any_text_is_parsed_or_refused(text):
    try:
        parsed = parse(text)
    except FormulaError as error:
        message = str(error)
        event("refused")
    else:
        assert len(parsed.fixed) == len(text)
        return
    assert message.endswith("^")


@pytest.mark.parametrize("quoted_text", [r"'\')|('", r"'\\'", r'"|\"|"', "'`|(`'"])
def test_bars_in_quotes_are_no_bars(quoted_text):
    parsed = parse(f"C(a, levels=[{quoted_text}]) + (1 | g)")
    assert len(parsed.random) == 1
    assert parsed.fixed.strip() == f"C(a, levels=[{quoted_text}])"


@pytest.mark.slow
@settings(deadline=None)
@given(st.text(min_size=1, max_size=5).filter(lambda name: "`" not in name))
def test_a_name_in_backticks_is_a_name(name):
    assert parse(f"(1 | {quoted(name)})").random[0].groupings[0].columns == (name,)


# Columns


def as_categorical(values):
    return pd.Categorical(values, categories=["r", "unused", "q", "p"])


@pytest.mark.parametrize(
    "kind",
    [
        lambda values: values.astype(object),
        lambda values: values.astype("category"),
        lambda values: values.astype("string"),
        as_categorical,
        lambda values: pd.Categorical(values, ordered=True),
    ],
)
def test_kinds_of_categories(kind):
    X, y = made_up()
    plain = MixedLinearRegressor(formula="a*x + (a | g)").fit(X, y)
    other = X.assign(a=kind(X["a"]))
    found = MixedLinearRegressor(formula="a*x + (a | g)").fit(other, y)
    assert found.log_likelihood_ == pytest.approx(plain.log_likelihood_, abs=1e-8)
    assert_allclose(found.predict(other), plain.predict(X), rtol=1e-5)
    assert_allclose(found.predict(other.iloc[[5]]), plain.predict(X)[[5]], rtol=1e-5)


@pytest.mark.parametrize("dtype", [bool, "boolean", object])
def test_booleans_are_categories(dtype):
    X, y = made_up()
    X["c"] = (X["x"] > 0.3).astype(dtype)
    X["number"] = (X["x"] > 0.3).astype(float)
    model = MixedLinearRegressor(formula="c + (c | g)").fit(X, y)
    assert list(model.covariances_["g"].columns) == ["intercept", "c[T.True]"]
    by_numbers = MixedLinearRegressor(formula="number + (number | g)").fit(X, y)
    assert model.log_likelihood_ == pytest.approx(by_numbers.log_likelihood_, abs=1e-9)
    without = MixedLinearRegressor(formula="0 + c + (1 | g)").fit(X, y)
    assert list(without.coef_covariance_.columns) == ["c[False]", "c[True]"]
    assert without.intercept_ == 0.0


@pytest.mark.parametrize("dtype", ["Float64", object, "float32"])
def test_kinds_of_numbers(dtype):
    X, y = made_up()
    plain = MixedLinearRegressor(formula="x + (1 | g)").fit(X, y)
    found = MixedLinearRegressor(formula="x + (1 | g)").fit(X.assign(x=X["x"].astype(dtype)), y)
    assert_allclose(found.coef_, plain.coef_, rtol=1e-5)


def test_integers_are_numbers_and_C_makes_them_categories():
    assert fitted("h + (1 | g)").coef_.shape == (1,)
    assert fitted("C(h) + (1 | g)").coef_.shape == (4,)


def test_a_dot_is_all_other_columns():
    X, y = made_up()
    model = MixedLinearRegressor(formula=". + (1 | g/h)").fit(X, y)
    assert model.formula_ == "x + z + a + b + (1 | g) + (1 | g:h)"
    assert MixedLinearRegressor(formula=". - z - a + (1 | g/h)").fit(X, y).formula_ == (
        "x + b + (1 | g) + (1 | g:h)"
    )
    data = X.assign(y=y)
    model = lmer("np.log(y + 100) ~ . + (1 | g)", data)
    assert model.formula_ == "np.log(y + 100) ~ x + z + a + b + h + (1 | g)"


@pytest.mark.parametrize("formula", ["poly(x, 3)", "bs(x, df=5)", "center(x)*a", "scale(x) + a"])
def test_transformations_are_those_of_fit(formula):
    X, y = made_up()
    model = MixedLinearRegressor(formula=f"{formula} + (1 | g)").fit(X, y)
    assert_allclose(
        model.predict(X)[:7], [model.predict(X.iloc[[row]])[0] for row in range(7)], rtol=1e-10
    )


def test_columns_that_are_not_used_do_no_harm():
    X, y = made_up()
    wild = X.assign(when=pd.Timestamp("2020"), none=None, text="t", log=1.0, I="i")
    wild[5] = np.nan
    wild.columns = [str(name) for name in wild.columns]
    model = MixedLinearRegressor(formula="I(x**2) + log(x + 9) + (1 | g)").fit(wild, y)
    plain = MixedLinearRegressor(formula="I(x**2) + log(x + 9) + (1 | g)").fit(X, y)
    assert_allclose(model.coef_, plain.coef_)
    assert model.n_features_in_ == wild.shape[1]
    assert list(model.feature_names_in_) == list(wild.columns)
    # New rows need the columns that are used, in any order.
    assert_allclose(model.predict(X[["g", "x"]]), model.predict(wild))


def test_the_index_of_the_rows_does_not_matter():
    X, y = made_up()
    shuffled = X.set_index(pd.Index(np.arange(120) % 7))
    formula = "C(a) + bs(x, df=4) + b + (0 + a | g)"
    plain = MixedLinearRegressor(formula=formula).fit(X, y)
    found = MixedLinearRegressor(formula=formula).fit(shuffled, pd.Series(y))
    assert_allclose(found.predict(shuffled), plain.predict(X))


def test_a_frame_of_polars():
    X, y = made_up()
    model = MixedLinearRegressor(formula="a*x + (a | g)").fit(X, y)
    other = MixedLinearRegressor(formula="a*x + (a | g)").fit(pl.DataFrame(X.to_dict("list")), y)
    assert_allclose(other.predict(pl.DataFrame(X.to_dict("list"))), model.predict(X))
    assert list(other.feature_names_in_) == list(X.columns)


def test_rows_of_weight_zero_are_absent():
    X, y = made_up()
    weights = np.where(np.arange(120) % 4 == 0, 0.0, 1.5)
    hidden = X.copy()
    hidden.loc[weights == 0.0, "x"] = 1e6
    hidden.loc[weights == 0.0, "a"] = "only here"
    formula = "poly(x, 2) + a + (1 | g)"
    present = weights > 0.0
    found = MixedLinearRegressor(formula=formula).fit(hidden, y, sample_weight=weights)
    expected = MixedLinearRegressor(formula=formula).fit(
        X[present], y[present], sample_weight=weights[present]
    )
    assert_allclose(found.coef_, expected.coef_)
    assert_allclose(found.predict(X), expected.predict(X))


# lmer


def test_predicting_with_and_without_the_response():
    data = datasets.load_dietox().frame
    model = lmer("Weight ~ Time + (1 + Time | Pig)", data)
    assert model.formula == "Time + (1 + Time | Pig)"
    assert list(model.feature_names_in_) == ["Pig", "Time"]
    assert_allclose(model.predict(data), model.predict(data[["Time", "Pig"]]))
    assert model.score(data, data["Weight"]) > 0.9


@pytest.mark.parametrize(
    ("response", "values"), [("np.log(y)", np.log), ("I(y*2)", lambda y: 2.0 * y), ("`y`", np.copy)]
)
def test_a_response_may_be_an_expression(response, values):
    found = lmer(f"{response} ~ x + (1 | worker)", MACHINES, reml=False, max_iter=50)
    expected = MixedLinearRegressor(formula="x + (1 | worker)", reml=False)
    expected.fit(MACHINES, values(MACHINES["y"]))
    assert_allclose(found.coef_, expected.coef_)
    assert found.log_likelihood_ == pytest.approx(expected.log_likelihood_)
    assert found.max_iter == 50


def test_a_response_on_both_sides():
    data, y = made_up()
    model = lmer("y ~ I(y**2) + (1 | g)", data.assign(y=y))
    assert list(model.feature_names_in_) == ["g", "y"]


# Without random terms


def test_without_random_terms_it_is_least_squares():
    X, y = made_up()
    with pytest.warns(NoGroupsWarning, match="The formula has no random terms"):
        model = MixedLinearRegressor(formula="a + x").fit(X, y)
    matrix = np.column_stack([np.ones(120), X["a"] == "q", X["a"] == "r", X["x"]]).astype(float)
    expected = np.linalg.lstsq(matrix, y, rcond=None)[0]
    assert_allclose([model.intercept_, *model.coef_], expected)
    assert_allclose(model.predict(X), matrix @ expected)
    assert model.formula_ == "a + x"


# Within scikit-learn


def test_a_fitted_model_can_be_pickled_and_holds_no_rows():
    def size(n):
        X, y = made_up(n)
        X["code"] = np.arange(n) % 2
        formula = "a*poly(x, 2) + bs(z, df=4) + C(code, contr.sum) + scale(h) + (a || g) + (x | h)"
        model = MixedLinearRegressor(formula=formula).fit(X, y)
        again = pickle.loads(pickle.dumps(model))
        assert_allclose(again.predict(X), model.predict(X))
        assert again.formula_ == model.formula_
        return len(pickle.dumps(model._fitted.formula)), len(pickle.dumps(model))

    few, many = size(500), size(5000)
    assert abs(many[0] - few[0]) < 200
    assert many[1] - few[1] < 4500  # half a byte for each number of one column


def test_cloning_keeps_the_formula():
    model = MixedLinearRegressor(formula="x + (1 | g)")
    assert clone(model.fit(*made_up())).get_params()["formula"] == "x + (1 | g)"


def test_fitting_again_without_a_formula():
    X, y = made_up()
    model = MixedLinearRegressor(formula="a + (1 | g)").fit(X, y)
    model.set_params(formula=None, groups="g").fit(X[["g", "x"]], y)
    assert model.formula_ == "x + (1 | g)"
    assert model.predict(X[["g", "x"]]).shape == (120,)


def test_a_warm_start():
    X, y = made_up()
    model = MixedLinearRegressor(formula="x + (1 + x | g)", warm_start=True).fit(X, y)
    first = model.log_likelihood_
    assert model.fit(X, y).log_likelihood_ == pytest.approx(first, abs=1e-8)
    assert model.n_iter_ <= 2


def test_in_a_pipeline():
    X, y = made_up()
    scaler = ColumnTransformer(
        [("x", StandardScaler(), ["x"])], remainder="passthrough", verbose_feature_names_out=False
    ).set_output(transform="pandas")
    pipeline = make_pipeline(scaler, MixedLinearRegressor(formula="x + a + (1 | g)")).fit(X, y)
    alone = MixedLinearRegressor(formula="scale(x) + a + (1 | g)").fit(X, y)
    assert_allclose(pipeline.predict(X), alone.predict(X), rtol=1e-6)


def test_cross_validation_for_new_groups():
    X, y = made_up()
    model = MixedLinearRegressor(formula="x + a + (a | h) + (1 | g)")
    scores = cross_val_score(model, X, y, groups=X["g"], cv=GroupKFold(4))
    assert np.isfinite(scores).all()


def test_a_search_over_formulas():
    X, y = made_up(400)
    grid = {"formula": ["x + (1 | g)", "x + a + (1 | g) + (0 + a | h)"], "reml": [True, False]}
    search = GridSearchCV(MixedLinearRegressor(), grid, cv=4).fit(X, y)
    assert search.best_params_["formula"] == grid["formula"][1]
    assert search.predict(X.head()).shape == (5,)


def test_no_groups_are_requested_beside_a_formula():
    X, y = made_up()
    model = MixedLinearRegressor(formula="x + (1 | h)")
    for method in ("fit", "predict", "score"):
        requests = getattr(model.get_metadata_routing(), method).requests
        assert requests["groups"] is False
    # Before scikit-learn 1.8 a scorer passes them on all the same.
    with sklearn.config_context(enable_metadata_routing=True):
        scores = cross_val_score(
            model, X, y, params={"groups": X["g"]}, cv=GroupKFold(3), scoring="r2"
        )
    assert np.isfinite(scores).all()


def test_description():
    X, _ = made_up()
    model = MixedLinearRegressor(formula="a*x + (a | g) + (1 | h)")
    before = set(vars(model))
    found = model.describe(X)
    assert dict(zip(found.factors, found.n_effects, strict=True)) == {"g": 3, "h": 1}
    assert found.n_fixed == 6
    assert set(vars(model)) == before


def test_predictions_by_factor():
    X, y = made_up()
    model = MixedLinearRegressor(formula="x + (1 | g:h) + (1 | h)").fit(X, y)
    population = model.predict(X, random_effects="none")
    assert_allclose(population, model.intercept_ + model.coef_[0] * X["x"])
    assert_allclose(
        model.predict(X) - population,
        (model.predict(X, random_effects=[("g", "h")]) - population)
        + (model.predict(X, random_effects="h") - population),
        atol=1e-10,
    )
