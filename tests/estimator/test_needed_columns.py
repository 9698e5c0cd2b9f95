"""`predict` needs the columns that the prediction uses, and no others."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from mixedlearn import MixedLinearRegressor

RNG = np.random.default_rng(1)
N = 120
FRAME = pd.DataFrame(
    {
        "x": RNG.normal(size=N),
        "slope": RNG.normal(size=N),
        "kind": RNG.choice(list("abc"), N),
        "g": np.arange(N) % 8,
        "h": np.arange(N) % 5,
    }
)
Y = FRAME["x"] + RNG.normal(size=8)[FRAME["g"]] * (1 + FRAME["slope"]) + RNG.normal(size=N)
MODELS = {
    "parameters": MixedLinearRegressor(
        groups=["g", "h"], fixed_effects=["x"], random_slopes={"g": ["slope"]}
    ).fit(FRAME, Y),
    "formula": MixedLinearRegressor(formula="x + (1 + slope | g) + (1 | h)").fit(FRAME, Y),
}
NEW = FRAME.tail(6)


@pytest.mark.parametrize("to", [lambda X: X, pl.from_pandas], ids=["pandas", "polars"])
@pytest.mark.parametrize(
    ("effects", "columns"),
    [
        ("none", ["x"]),
        ("h", ["x", "h"]),
        ("h", ["h", "x"]),
        ("g", ["x", "slope", "g"]),
        (["g", "h"], ["x", "slope", "g", "h"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", MODELS)
def test_columns_that_are_used_are_enough(name, effects, columns, to):
    model = MODELS[name]
    expected = model.predict(to(NEW), random_effects=effects)
    np.testing.assert_array_equal(model.predict(to(NEW[columns]), random_effects=effects), expected)


@pytest.mark.parametrize("name", MODELS)
def test_a_standard_deviation_uses_the_random_columns_of_all_factors(name):
    model = MODELS[name]
    mean, std = model.predict(NEW[["x", "slope", "h"]], random_effects="h", return_std=True)
    whole_mean, whole_std = model.predict(NEW, random_effects="h", return_std=True)
    np.testing.assert_array_equal(mean, whole_mean)
    np.testing.assert_array_equal(std, whole_std)
    with pytest.raises(ValueError, match="slope"):
        model.predict(NEW[["x", "h"]], random_effects="h", return_std=True)


@pytest.mark.parametrize(
    ("effects", "missing"), [("all", "g"), ("g", "slope"), ("none", "x"), (["h"], "h")], ids=str
)
@pytest.mark.parametrize("name", MODELS)
def test_a_column_that_is_used_is_missed(name, effects, missing):
    with pytest.raises(ValueError, match=missing):
        MODELS[name].predict(NEW.drop(columns=missing), random_effects=effects)


@pytest.mark.parametrize("name", MODELS)
def test_columns_that_are_not_used_may_hold_anything(name):
    rows = NEW.assign(slope=np.nan, g=[[1]] * len(NEW))
    expected = MODELS[name].predict(NEW, random_effects="h")
    np.testing.assert_array_equal(MODELS[name].predict(rows, random_effects="h"), expected)


def test_a_category_that_only_random_effects_use():
    model = MixedLinearRegressor(formula="x + (1 + kind | g)").fit(FRAME, Y)
    rows = NEW.assign(kind="z")
    with pytest.raises(ValueError, match=r"'z' of 'kind' \(row 0\).*no random effect.*'none'"):
        model.predict(rows)
    np.testing.assert_array_equal(
        model.predict(rows, random_effects="none"), model.predict(NEW, random_effects="none")
    )


def test_a_column_with_fixed_and_random_effects_is_computed_once():
    model = MixedLinearRegressor(formula="kind + x + (1 + x + kind | g)").fit(FRAME, Y)
    mean = model.predict(NEW[["kind", "x"]], random_effects="none")
    np.testing.assert_allclose(mean, model.predict(NEW, random_effects="none"), rtol=1e-12)
