"""However rows are split into partitions, by tasks that this process runs."""

from unittest import mock

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask import delayed
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.same_fit import assert_same_fit
from mixedlearn import MixedLinearRegressor
from mixedlearn.dask import DaskMixedLinearRegressor
from mixedlearn.formula import category_rows

N_ROWS = 120


class Here:
    """A client that computes at once."""

    def compute(self, task):
        return mock.Mock(result=lambda: task.compute(scheduler="synchronous"))


@pytest.fixture(autouse=True, scope="module")
def here():
    with mock.patch.object(DaskMixedLinearRegressor, "client_", Here()):
        yield


@st.composite
def splits(draw):
    """Ends of partitions, some of which may be empty."""
    ends = draw(st.lists(st.integers(0, N_ROWS), max_size=8))
    return np.split(np.arange(N_ROWS), sorted(ends))


def made_up(seed):
    rng = np.random.default_rng(seed)
    # Sorted: most partitions have few levels and one kind.
    a, kind = np.sort(rng.integers(0, 9, N_ROWS)), np.sort(rng.integers(0, 4, N_ROWS))
    x = rng.normal(size=N_ROWS) + np.linspace(0.0, 50.0, N_ROWS)
    y = x + kind**2 + 2.0 * rng.normal(size=9)[a] + rng.normal(size=N_ROWS)
    weights = rng.choice([0.0, 0.5, 2.0], N_ROWS) * (x > np.quantile(x, rng.uniform(0.0, 0.3)))
    return pd.DataFrame(
        {"x": x, "a": a, "kind": np.array(["d", "b", "a", "c"])[kind], "y": y, "w": weights}
    )


def in_partitions(frame, split):
    parts = [delayed(frame.iloc[rows]) for rows in split]
    return dd.from_delayed(parts, meta=frame.iloc[:0], verify_meta=False)


TYPES = {
    "text": str,
    "object": object,
    "known": pd.CategoricalDtype(["c", "never", "b", "a", "d"]),
    "category": "category",
}


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    split=splits(),
    types=st.sampled_from(sorted(TYPES)),
    formula=st.sampled_from(
        ["kind * x + (1 | a)", "C(a) + x + (1 | kind)", "np.exp(y / 99) ~ x + (1 | a)", None]
    ),
    weighted=st.booleans(),
)
@pytest.mark.filterwarnings("ignore::mixedlearn.exceptions.DegenerateModelWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_equals_fit(seed, split, types, formula, weighted):
    frame = made_up(seed).astype({"kind": TYPES[types]})
    parameters = {"groups": ["a", "kind"]} if formula is None else {"formula": formula}
    rows = in_partitions(frame, split)
    if types == "category":
        # Each partition has those of its rows.
        rows = rows.map_partitions(lambda own: own.astype({"kind": str}).astype({"kind": types}))
    local = rows.compute(scheduler="synchronous")
    columns = ["x", "a", "kind"]
    model = DaskMixedLinearRegressor(**parameters)
    model.fit(rows[columns], rows["y"], sample_weight=rows["w"] if weighted else None)
    whole = MixedLinearRegressor(**parameters)
    whole.fit(local[columns], local["y"], sample_weight=local["w"] if weighted else None)
    assert_same_fit(model, whole)
    ours, theirs = model.__mixedlearn_fitted__(), whole.__mixedlearn_fitted__()
    assert ours.specification.column_names == theirs.specification.column_names


def test_rows_of_categories():
    frame = pd.DataFrame({"a": [*"xxyxz"], "b": [1, 1, 1, 2, 2], "c": [0.5] * 5})
    assert category_rows("a + c + (1 | b)", frame) == [0, 2, 4]
    assert category_rows("C(b) + (0 + a | b)", frame) == [0, 2, 3, 4]
    assert category_rows("np.log(c) + (1 | a)", frame) == []
