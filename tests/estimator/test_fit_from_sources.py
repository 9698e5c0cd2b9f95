"""Rows from disk or from a stream: the model is that of `fit` on the same rows in memory."""

import warnings
from unittest import mock

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.data import sources
from mixedlearn.exceptions import DegenerateModelWarning

N_ROWS = 120


def made_up(seed, n=N_ROWS):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 9, n), rng.integers(0, 4, n)
    frame = pd.DataFrame(
        {
            "x": np.sort(rng.normal(size=n)) + 3.0,
            "w": rng.choice([0.0, 0.5, 1.0, 4.0], n),
            "z": rng.integers(-4, 5, n).astype("int16"),
            "a": np.sort(a) * 7 - 20,
            "b": [f"b{code}" for code in b],
            "known": rng.normal(size=n).astype("float32"),
            "kind": np.array(["low", "mid", "high"])[rng.integers(0, 3, n)],
            "unused": [None] * n,
        }
    )
    effects = 1.5 * rng.normal(size=(9, 2))
    price = frame["x"] - 0.3 * frame["z"] + effects[a, 0] + effects[a, 1] * frame["z"]
    frame["price"] = price + rng.normal(size=4)[b] + (frame["kind"] == "mid") + rng.normal(size=n)
    return frame.assign(level=np.exp(frame["price"] / 20.0))


def assert_same_fit(found, whole):
    assert_allclose(found.log_likelihood_, whole.log_likelihood_, rtol=1e-9, atol=1e-7)
    assert_allclose(found.intercept_, whole.intercept_, rtol=1e-6, atol=1e-6)
    assert_allclose(found.coef_, whole.coef_, rtol=1e-6, atol=1e-6)
    assert_allclose(found.coef_covariance_, whole.coef_covariance_, rtol=1e-5, atol=1e-6)
    assert_allclose(found.noise_variance_, whole.noise_variance_, rtol=1e-6)
    assert_array_equal(found.feature_names_in_, whole.feature_names_in_)
    assert found.n_features_in_ == whole.n_features_in_
    assert found.n_groups_ == whole.n_groups_
    assert found.formula_ == whole.formula_
    assert found.converged_ == whole.converged_
    assert found.is_singular_ == whole.is_singular_
    for name, effects in whole.random_effects_.items():
        assert found.random_effects_[name].index.equals(effects.index)
        assert_allclose(found.random_effects_[name], effects, rtol=1e-4, atol=1e-5)


def parts_of(frame, ends):
    return [frame.iloc[rows] for rows in np.split(np.arange(len(frame)), sorted(ends))]


def parquet(frame, ends, folder):
    for number, part in enumerate(parts_of(frame, ends)):
        table = pa.Table.from_pandas(part, preserve_index=False)
        pq.write_table(table, folder / f"part-{number:03}.parquet", row_group_size=17)
    return folder


def reader(frame, ends, folder):
    schema = pa.Schema.from_pandas(frame, preserve_index=False)
    batches = [
        pa.RecordBatch.from_pandas(part, schema=schema, preserve_index=False)
        for part in parts_of(frame, ends)
    ]
    return pa.RecordBatchReader.from_batches(schema, batches)


SOURCES = {
    "folder": parquet,
    "text of a path": lambda *args: str(parquet(*args)),
    "dataset": lambda *args: ds.dataset(parquet(*args)),
    "dataset in memory": lambda frame, ends, folder: ds.dataset(
        pa.Table.from_pandas(frame, preserve_index=False)
    ),
    "reader": reader,
    "lazy frame": lambda *args: pl.scan_parquet(parquet(*args)),
    "lazy frame in memory": lambda frame, ends, folder: pl.from_pandas(frame).lazy(),
    "pandas frames": lambda frame, ends, folder: iter(parts_of(frame, ends)),
    "polars frames": lambda frame, ends, folder: map(pl.from_pandas, parts_of(frame, ends)),
    "tables": lambda frame, ends, folder: (
        pa.Table.from_pandas(part, preserve_index=False) for part in parts_of(frame, ends)
    ),
}
READABLE_AGAIN = [name for name in SOURCES if "folder" in name or "lazy" in name or "data" in name]

MODELS = {
    "slope": {"groups": "a", "fixed_effects": ["x", "z"], "random_slopes": ["z"]},
    "crossed": {"groups": ["a", "b"], "fixed_effects": ["z", "x"]},
    "interaction": {"groups": ["b", ("a", "b")], "fixed_effects": ["x"], "reml": False},
    "no groups' columns": {"groups": "b", "fixed_effects": []},
}
FORMULAS = {
    "plain": "x + z + (1 + z || a)",
    "categories": "x * kind + (1 | a) + (1 | b)",
    "response": "np.log(level) ~ x + kind + (1 | a)",
    "offset": "x + offset(known) + (1 | a:b)",
    "slopes of categories": "x + (0 + kind | a)",
}


@pytest.fixture
def folder(tmp_path_factory):
    return lambda: tmp_path_factory.mktemp("rows")


def in_batches_of(entries):
    return mock.patch.object(sources, "BATCH_ENTRIES", entries)


def fit_quietly(estimator, *args, **kwargs):
    """Of some made-up data a variance is zero, and a covariance singular."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateModelWarning)
        return clone(estimator).fit(*args, **kwargs)


class TestEqualsFitInMemory:
    @settings(
        max_examples=60, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        seed=st.integers(0, 10**6),
        ends=st.sets(st.integers(0, N_ROWS), max_size=6),
        kind=st.sampled_from(sorted(SOURCES)),
        model=st.sampled_from(sorted(MODELS)),
        entries=st.sampled_from([1, 100, 10**6]),
        weight=st.sampled_from([None, "w"]),
        offset=st.sampled_from([None, "known"]),
    )
    def test_by_parameters(self, folder, seed, ends, kind, model, entries, weight, offset):
        frame = made_up(seed)
        source = SOURCES[kind](frame, ends, folder())
        estimator = MixedLinearRegressor(**MODELS[model])
        named = [name for name in ("price", weight, offset) if name]
        whole = fit_quietly(
            estimator,
            frame.drop(columns=named),
            frame["price"],
            sample_weight=weight and frame[weight],
            offset=offset and frame[offset],
        )
        with in_batches_of(entries):
            found = fit_quietly(estimator, source, "price", sample_weight=weight, offset=offset)
        assert_same_fit(found, whole)

    @settings(
        max_examples=40, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        seed=st.integers(0, 10**6),
        ends=st.sets(st.integers(0, N_ROWS), max_size=6),
        kind=st.sampled_from(READABLE_AGAIN),
        model=st.sampled_from(sorted(FORMULAS)),
        entries=st.sampled_from([1, 100, 10**6]),
        declares=st.booleans(),
        weight=st.sampled_from([None, "w"]),
    )
    def test_by_formula(self, folder, seed, ends, kind, model, entries, declares, weight):
        frame = made_up(seed).sort_values("kind", ignore_index=True)
        if declares and "lazy" not in kind:  # polars has its own order of categories
            # In an order of their own, and one that does not occur.
            order = ["mid", "never", "low", "high"]
            frame["kind"] = pd.Categorical(frame["kind"], categories=order)
        source = SOURCES[kind](frame, ends, folder())
        text = FORMULAS[model]
        estimator = MixedLinearRegressor(formula=text)
        y, response = (None, frame[["level"]]) if "~" in text else ("price", frame["price"])
        used = [name for name in frame.columns if name in text and name not in ("level", "w")]
        weights = weight and frame[weight]
        whole = fit_quietly(estimator, frame[used], response, sample_weight=weights)
        with in_batches_of(entries):
            found = fit_quietly(estimator, source, y, sample_weight=weight)
        assert_same_fit(found, whole)
        assert_allclose(found.predict(frame), whole.predict(frame), rtol=1e-6)

    @pytest.mark.parametrize("kind", sorted(SOURCES))
    @pytest.mark.parametrize("text", ["price ~ x + (1 | a)", "np.log(level) ~ x + (1 | a)"])
    def test_lmer(self, folder, kind, text):
        frame = made_up(0)
        found = lmer(text, SOURCES[kind](frame, {30, 60}, folder()))
        assert_same_fit(found, lmer(text, frame))
