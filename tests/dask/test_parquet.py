"""Folders of Parquet: unknown divisions, and few columns of several files read as one partition."""

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from helpers.same_fit import assert_same_fit
from mixedlearn import MixedLinearRegressor
from mixedlearn.dask import DaskMixedLinearRegressor

COLUMNS = ["age", "kind", "site"]


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    n = 800
    site, kind = rng.integers(0, 9, n), rng.integers(0, 3, n)
    columns = {
        "age": rng.normal(size=n),
        "kind": np.array(["new", "old", "used"])[kind],
        "site": np.array([f"s{code}" for code in site]),
        "w": rng.choice([0.5, 1.0, 2.0], n),
        "t": rng.normal(size=n),
    }
    y = columns["age"] + kind + columns["t"] + rng.normal(size=9)[site] + rng.normal(size=n)
    return pd.DataFrame({**columns, "y": y, **{f"other{k}": np.arange(n) for k in range(12)}})


@pytest.fixture(scope="module")
def rows(frame, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows")
    for number, own in enumerate(np.array_split(np.arange(len(frame)), 4)):
        frame.iloc[own].to_parquet(path / f"part{number}.parquet")
    rows = dd.read_parquet(path)
    assert not rows.known_divisions
    assert rows["y"].optimize().npartitions < rows[COLUMNS].npartitions == 4
    return rows


PARAMETERS = [
    {"groups": "site", "fixed_effects": ["age"]},
    {"formula": "age + kind + (1 | site)"},
]


@pytest.mark.parametrize("parameters", PARAMETERS, ids=["parameters", "formula"])
def test_fit_and_score(client, frame, rows, parameters):
    y, beside = rows["y"], {"sample_weight": rows["w"], "offset": rows["t"]}
    model = DaskMixedLinearRegressor(client=client, **parameters).fit(rows[COLUMNS], y, **beside)
    own = {name: frame[column.name] for name, column in beside.items()}
    whole = MixedLinearRegressor(**parameters).fit(frame[COLUMNS], frame["y"], **own)
    assert_same_fit(model, whole)
    expected = whole.score(frame[COLUMNS], frame["y"], **own)
    assert_allclose(model.score(rows[COLUMNS], y, **beside), expected, rtol=1e-6)


@pytest.mark.parametrize("parameters", PARAMETERS, ids=["parameters", "formula"])
def test_names_of_columns(client, frame, rows, parameters):
    columns = [*COLUMNS, "y", "w", "t"]
    model = DaskMixedLinearRegressor(client=client, **parameters)
    model.fit(rows[columns], "y", sample_weight="w", offset="t")
    whole = MixedLinearRegressor(**parameters)
    whole.fit(frame[columns], "y", sample_weight="w", offset="t")
    assert_same_fit(model, whole)
    assert list(model.feature_names_in_) == list(whole.feature_names_in_)


def test_left_hand_side(client, frame, rows):
    formula = "np.exp(y / 9 + t) ~ age + t + (1 | site)"
    model = DaskMixedLinearRegressor(formula=formula, client=client)
    model.fit(rows, sample_weight="w")
    whole = MixedLinearRegressor(formula=formula)
    whole.fit(frame[["age", "t", "site"]], frame[["y", "t"]], sample_weight=frame["w"])
    assert_same_fit(model, whole)


def test_names_that_are_not_there(client, rows):
    model = DaskMixedLinearRegressor(groups="site", client=client)
    with pytest.raises(ValueError, match="y names the column 'why', which X does not have"):
        model.fit(rows, "why")
    with pytest.raises(ValueError, match=r"sample_weight names the column 'W'.*mean 'w'"):
        model.fit(rows, "y", sample_weight="W")
    with pytest.raises(ValueError, match="y names the column 'y', but X has no names"):
        model.fit(rows[["age"]].values, "y")
    with pytest.raises(ValueError, match="DaskMixedLinearRegressor requires y"):
        model.fit(rows)
    model = DaskMixedLinearRegressor(formula="log(z) ~ age + (1 | site)", client=client)
    with pytest.raises(ValueError, match="left-hand side of the formula names the column 'z'"):
        model.fit(rows)


def test_names_beside_values(client, rows):
    model = DaskMixedLinearRegressor(groups="site", fixed_effects="age", client=client)
    with pytest.raises(TypeError, match=r"sample_weight is the name 'w'.*frame\['w'\]"):
        model.fit(rows[COLUMNS], rows["y"], sample_weight="w")
    with pytest.raises(TypeError, match=r"groups is the name 'site'"):
        model.fit(rows[COLUMNS], rows["y"], groups="site")


class TestPredict:
    """Predictions go back into a frame whose divisions are not known."""

    @pytest.fixture(scope="class", params=PARAMETERS, ids=["parameters", "formula"])
    @classmethod
    def fitted(cls, request, client, rows):
        model = DaskMixedLinearRegressor(client=client, **request.param)
        return model.fit(rows[COLUMNS], rows["y"], offset=rows["t"])

    def test_columns_of_the_frame(self, fitted, frame, rows):
        mean, std = fitted.predict(rows[COLUMNS], offset=rows["t"], return_std=True)
        assert (mean.name, std.name) == ("prediction", "prediction_std")
        found = rows.assign(mean=mean, std=std, left=rows["y"] - mean)[["mean", "std", "left"]]
        expected = fitted.to_local().predict(frame[COLUMNS], offset=frame["t"], return_std=True)
        made = {"mean": expected[0], "std": expected[1], "left": frame["y"] - expected[0]}
        pd.testing.assert_frame_equal(found.compute(), pd.DataFrame(made), rtol=1e-9)

    def test_alone(self, fitted, frame, rows):
        mean = fitted.predict(rows[COLUMNS], offset=0.0)
        assert mean.optimize().npartitions < rows.npartitions
        expected = fitted.to_local().predict(frame[COLUMNS], offset=0.0)
        assert_allclose(mean.compute(), expected, rtol=1e-9)
        assert_allclose((rows["y"] - mean).compute(), frame["y"] - expected, rtol=1e-9)

    def test_offset_of_another_frame(self, fitted, frame, rows):
        shift = dd.from_pandas(frame["t"], npartitions=4)
        mean = fitted.predict(rows[COLUMNS], offset=shift)
        expected = fitted.to_local().predict(frame[COLUMNS], offset=frame["t"])
        assert_allclose(mean.compute(), expected, rtol=1e-9)


def test_groups_beside_x(client, frame, rows):
    X, y, groups = rows[["age"]], rows["y"], rows["site"]
    model = DaskMixedLinearRegressor(client=client).fit(X, y, groups=groups)
    expected = model.to_local().predict(frame[["age"]], groups=frame["site"])
    found = rows.assign(mean=model.predict(X, groups=groups))["mean"].compute()
    assert_allclose(found, expected, rtol=1e-9)
