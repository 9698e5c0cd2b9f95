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
