"""The columns of X that the fixed effects of a formula are made of."""

import numpy as np
import pandas as pd
import pytest

from mixedlearn.formula import compile_formula, fixed_variables

RNG = np.random.default_rng(0)
N = 60
X = pd.DataFrame(
    {
        "a": RNG.choice(list("xyz"), N),
        "flag": RNG.random(N) < 0.5,
        "k": RNG.integers(1, 4, N),
        "c": pd.Categorical(RNG.integers(0, 3, N), categories=[2, 1, 0, 7]),
        "u": RNG.exponential(size=N) + 1.0,
        "my x": RNG.normal(size=N),
        "g": np.arange(N) % 6,
    }
)


def found(text):
    return {own.name: own for own in fixed_variables(compile_formula(text + " + (1 | g)", X)[0])}


def test_factors_and_covariates():
    variables = found("a * flag + np.log(u) + C(k, contr.sum) + c + `my x` + poly(`my x`, 2)")
    assert list(variables) == ["a", "flag", "u", "k", "c", "my x"]
    categories = {name: own.categories for name, own in variables.items()}
    assert categories == {
        "a": ("x", "y", "z"),
        "flag": (False, True),
        "u": None,
        "k": (1, 2, 3),
        "c": (2, 1, 0),
        "my x": None,
    }
    assert [name for name, own in variables.items() if own.is_category] == ["a", "flag", "c"]
    assert variables["u"].position is None
    assert variables["u"].expressions == ("np.log(u)",)
    assert variables["my x"].position is not None
    assert variables["my x"].expressions == ("poly(`my x`, 2)",)


@pytest.mark.parametrize("text", ["u", "u + k", "0 + u"])
def test_plain_columns(text):
    variables = found(text)
    assert all(own.categories is None and own.expressions == () for own in variables.values())
    assert [own.position for own in variables.values()] == list(range(len(variables)))


def test_categories_of_an_expression_are_not_those_of_its_columns():
    variables = found("C(k + 1) + C(u > 2)")
    assert {name: own.categories for name, own in variables.items()} == {"k": None, "u": None}


def test_random_effects_are_left_out():
    assert found("1 + (0 + u | g)") == {}
    # But their column is the one whose mean is known.
    assert found("np.log(u) + (0 + u | g)")["u"].position == 1
