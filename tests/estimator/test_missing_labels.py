"""Rows of which nobody knows the level: `predict` takes them as rows of an unknown one."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mixedlearn import MixedLinearRegressor, lmer

RNG = np.random.default_rng(0)
N = 60
LABELS = {
    "integers": np.arange(N) % 6,
    "text": np.array(list("abcdef"))[np.arange(N) % 6],
    "floats": np.arange(N) % 6 + 0.5,
    "dates": pd.date_range("2020-01-01", periods=6).to_numpy()[np.arange(N) % 6],
}
# From labels and which are missing.
FORMS = {
    "object": lambda own, gone: np.where(gone, None, own.astype(object)),
    "Series": lambda own, gone: pd.Series(own).where(~gone),
    "category": lambda own, gone: pd.Series(own).where(~gone).astype("category"),
    "nullable": lambda own, gone: pd.Series(own).where(~gone).convert_dtypes(),
    "polars": lambda own, gone: pl.from_pandas(pd.Series(own).where(~gone).convert_dtypes()),
    "arrow": lambda own, gone: pa.chunked_array([pa.array(own, mask=gone)]),
    "masked": lambda own, gone: np.ma.masked_array(own, mask=gone),
}
X = RNG.normal(size=(N, 2))
MEANS = 2.0 * RNG.normal(size=6)
Y = X[:, 0] + MEANS[np.arange(N) % 6] + RNG.normal(size=N)
GONE = np.arange(N) % 7 == 3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", LABELS)
def test_a_missing_label_is_an_unknown_level(kind, form):
    labels = LABELS[kind]
    model = MixedLinearRegressor().fit(X, Y, groups=labels)
    groups = FORMS[form](labels, GONE)
    mean, std = model.predict(X, groups=groups, return_std=True)
    known, known_std = model.predict(X, groups=labels, return_std=True)
    population, new_std = model.predict(X, random_effects="none", return_std=True)
    np.testing.assert_allclose(mean, np.where(GONE, population, known), rtol=1e-12)
    np.testing.assert_allclose(std, np.where(GONE, new_std, known_std), rtol=1e-10)
    assert model.score(X, mean, groups=groups) == 1.0


@pytest.mark.parametrize("form", FORMS)
def test_all_labels_missing(form):
    model = MixedLinearRegressor().fit(X, Y, groups=LABELS["integers"])
    groups = FORMS[form](LABELS["integers"], np.ones(N, dtype=bool))
    np.testing.assert_allclose(
        model.predict(X, groups=groups), model.predict(X, random_effects="none")
    )


def test_a_missing_part_of_an_interaction():
    frame = pd.DataFrame(X, columns=["x", "z"]).assign(a=np.arange(N) % 3, b=np.arange(N) % 2)
    model = MixedLinearRegressor(groups=[("a", "b")]).fit(frame, Y)
    by_formula = MixedLinearRegressor(formula="x + z + (1 | a:b)").fit(frame, Y)
    rows = frame.assign(b=frame["b"].where(~GONE))
    expected = np.where(GONE, model.predict(frame, random_effects="none"), model.predict(frame))
    np.testing.assert_allclose(model.predict(rows), expected)
    np.testing.assert_allclose(by_formula.predict(rows), expected)


def test_refused_where_unknown_levels_are():
    frame = pd.DataFrame(X, columns=["x", "z"]).assign(g=LABELS["text"])
    model = lmer("y ~ x + z + (1 | g)", frame.assign(y=Y), handle_unknown="error")
    rows = frame.assign(g=frame["g"].where(~GONE))
    message = r"label of 'g' is missing \(NaN or None\) in row 3\. Set handle_unknown='population'"
    with pytest.raises(ValueError, match=message):
        model.predict(rows)
    np.testing.assert_allclose(
        model.predict(rows, random_effects="none"), model.predict(frame, random_effects="none")
    )
