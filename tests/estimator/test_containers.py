"""Tables, lazy frames, masked and sparse arrays: taken for what they are, or refused in words."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn

from mixedlearn import MixedLinearRegressor, lmer

RNG = np.random.default_rng(0)
N = 80
FRAME = pd.DataFrame({"x": RNG.normal(size=N), "z": RNG.normal(size=N), "g": np.arange(N) % 10})
Y = FRAME["x"] + RNG.normal(size=10)[FRAME["g"]] + RNG.normal(size=N)
TABLE = pa.Table.from_pandas(FRAME)
BY_COLUMN = MixedLinearRegressor(groups="g")
BESIDE = MixedLinearRegressor()
BY_FORMULA = MixedLinearRegressor(formula="x + z + (1 | g)")
FITTED = BY_COLUMN.fit(FRAME, Y)
SPARSE = FRAME.astype({"x": pd.SparseDtype(float, 0.0), "g": pd.SparseDtype(int, 0)})


@pytest.mark.parametrize("estimator", [BY_COLUMN, BY_FORMULA], ids=["parameters", "formula"])
@pytest.mark.parametrize(
    "X",
    [TABLE, TABLE.to_batches()[0], pl.from_pandas(FRAME).lazy(), SPARSE],
    ids=["table", "record batch", "lazy frame", "sparse columns"],
)
def test_frames_of_any_kind(estimator, X):
    model = sklearn.clone(estimator).fit(X, Y)
    assert model.log_likelihood_ == pytest.approx(FITTED.log_likelihood_, rel=1e-12)
    np.testing.assert_allclose(model.predict(X), FITTED.predict(FRAME), rtol=1e-10)
    assert model.score(X, Y) == pytest.approx(FITTED.score(FRAME, Y), rel=1e-12)


@pytest.mark.parametrize(
    "groups",
    [
        TABLE.select(["g"]),
        TABLE["g"],
        TABLE["g"].combine_chunks(),
        pl.from_pandas(FRAME[["g"]]).lazy(),
        np.ma.masked_array(FRAME["g"].to_numpy(), mask=False),
        SPARSE["g"],
    ],
    ids=["table", "chunked", "array", "lazy frame", "masked", "sparse"],
)
def test_groups_of_any_kind(groups):
    model = sklearn.clone(BESIDE).fit(FRAME[["x", "z"]], Y, groups=groups)
    assert model.log_likelihood_ == pytest.approx(FITTED.log_likelihood_, rel=1e-12)
    predicted = model.predict(FRAME[["x", "z"]], groups=groups)
    np.testing.assert_allclose(predicted, FITTED.predict(FRAME), rtol=1e-10)


def test_responses_and_weights_of_arrow():
    model = sklearn.clone(BY_COLUMN).fit(
        TABLE, pa.chunked_array([pa.array(Y)]), sample_weight=pa.array(np.ones(N))
    )
    assert model.log_likelihood_ == pytest.approx(FITTED.log_likelihood_, rel=1e-12)


def test_lmer_takes_a_table():
    model = lmer("y ~ x + z + (1 | g)", TABLE.append_column("y", pa.array(Y)))
    assert model.log_likelihood_ == pytest.approx(FITTED.log_likelihood_, rel=1e-12)


def test_dummies_in_sparse_columns_of_integers():
    kinds = pd.Series(np.array(list("abc"))[np.arange(N) % 3])
    dense = pd.get_dummies(kinds, dtype="int8", drop_first=True).assign(g=FRAME["g"])
    sparse = pd.get_dummies(kinds, dtype="int8", drop_first=True, sparse=True).assign(g=FRAME["g"])
    expected = sklearn.clone(BY_COLUMN).fit(dense, Y).coef_
    np.testing.assert_allclose(sklearn.clone(BY_COLUMN).fit(sparse, Y).coef_, expected)
    formula = MixedLinearRegressor(formula="b + c + (1 | g)")
    np.testing.assert_allclose(formula.fit(sparse, Y).coef_, expected)


MASK = np.arange(N) == 3


@pytest.mark.parametrize("what", ["X", "y", "sample_weight"])
def test_masked_entries_are_refused(what):
    X, weights = FRAME[["x", "z"]].to_numpy(), np.ones(N)
    if what == "X":
        X = np.ma.masked_array(X, mask=np.column_stack([MASK, MASK]))
    y = np.ma.masked_array(Y, mask=MASK) if what == "y" else Y
    if what == "sample_weight":
        weights = np.ma.masked_array(weights, mask=MASK)
    message = f"{what} is a masked array with masked entries, the first at row 3"
    with pytest.raises(ValueError, match=message):
        BESIDE.fit(X, y, groups=FRAME["g"], sample_weight=weights)


@pytest.mark.parametrize("shape", ["vector", "matrix"])
def test_masked_groups_are_missing(shape):
    labels = np.ma.masked_array(FRAME["g"].to_numpy(), mask=MASK)
    if shape == "matrix":
        second = np.ma.masked_array(np.arange(N) % 4, mask=False)
        labels = np.ma.column_stack([labels, second])
    with pytest.raises(ValueError, match=r"missing labels \(NaN or None\), the first at row 3"):
        BESIDE.fit(FRAME[["x", "z"]], Y, groups=labels)


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"groups": "g"}, "groups"),
        ({"groups": ["g"]}, "groups"),
        ({"groups": 2, "fixed_effects": ["x"]}, "fixed_effects"),
        ({"groups": 2, "random_slopes": {"g": ["x"]}}, "random_slopes"),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (pd.MultiIndex.from_product([["a"], FRAME.columns]), r"\('a', 'x'\)"),
        (pd.Index([0, 1, 2]), "0"),
    ],
    ids=["MultiIndex", "integers"],
)
def test_names_where_columns_are_not_called_by_text(columns, shown, parameters, name):
    X = FRAME.set_axis(columns, axis=1)
    message = f"{name} names columns, but .* not all text, {shown} for example.*X.columns = "
    with pytest.raises(ValueError, match=message):
        MixedLinearRegressor(**parameters).fit(X, Y)
    by_position = MixedLinearRegressor(groups=2).fit(X, Y)
    assert by_position.log_likelihood_ == pytest.approx(FITTED.log_likelihood_, rel=1e-12)


def test_nan_is_found_where_scikit_learn_is_told_to_assume_none():
    X = FRAME.assign(x=FRAME["x"].where(FRAME.index != 3))
    with (
        sklearn.config_context(assume_finite=True),
        pytest.raises(ValueError, match="contains NaN in column 'x', the first at row 3"),
    ):
        sklearn.clone(BY_COLUMN).fit(X, Y)
