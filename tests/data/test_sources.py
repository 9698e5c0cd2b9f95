"""Sources give the rows in order, in batches of some size, and again if they can."""

from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from mixedlearn.data import sources
from mixedlearn.data.sources import as_source

FRAME = pd.DataFrame({"x": np.arange(100.0), "g": np.repeat(np.arange(20), 5), "t": "text"})


def write(folder, n_files=3):
    for number, rows in enumerate(np.array_split(np.arange(len(FRAME)), n_files)):
        table = pa.Table.from_pandas(FRAME.iloc[rows], preserve_index=False)
        pq.write_table(table, folder / f"{number:03}.parquet", row_group_size=7)
    return folder


def joined(frames):
    return pd.concat(map(pd.DataFrame, map(as_pandas, frames)), ignore_index=True)


def as_pandas(frame):
    return frame.to_pandas() if isinstance(frame, pl.DataFrame) else frame


@pytest.mark.parametrize("entries", [1, 30, 10**6])
@pytest.mark.parametrize(
    "make",
    [
        lambda folder: str(folder),
        lambda folder: folder,
        lambda folder: ds.dataset(folder),
        lambda folder: pl.scan_parquet(folder),
    ],
)
def test_what_can_be_read_again(tmp_path, entries, make):
    source = as_source(make(write(tmp_path)))
    assert source.is_readable_again
    assert source.names == ("x", "g", "t")
    for _ in range(2):
        with mock.patch.object(sources, "BATCH_ENTRIES", entries):
            found = joined(source.frames(["g", "x"]))
        pd.testing.assert_frame_equal(found, FRAME[["g", "x"]])


def test_files_in_the_order_of_their_paths(tmp_path):
    for name in ("b/2", "a/9", "a/10", "c"):
        path = tmp_path / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        pd.DataFrame({"name": [name]}).to_parquet(path)
    found = joined(as_source(tmp_path).frames(["name"]))
    assert list(found["name"]) == ["a/10", "a/9", "b/2", "c"]


def test_columns_of_the_names_of_folders(tmp_path):
    for kind in "ba":
        (tmp_path / f"kind={kind}").mkdir()
        FRAME.head(2).to_parquet(tmp_path / f"kind={kind}" / "rows.parquet")
    source = as_source(tmp_path)
    assert source.names == ("x", "g", "t", "kind")
    assert list(joined(source.frames(["kind"]))["kind"].astype(str)) == ["a", "a", "b", "b"]


INDEXED = {
    "path": lambda path: path,
    "dataset": ds.dataset,
    "reader": lambda path: pq.read_table(path).to_reader(),
    "lazy frame": pl.scan_parquet,
    "tables": lambda path: iter([pq.read_table(path)]),
    "polars frames": lambda path: iter([pl.read_parquet(path)]),
}


@pytest.mark.parametrize("kind", sorted(INDEXED))
def test_an_index_of_pandas_is_a_column_if_it_has_a_name(tmp_path, kind):
    frame = FRAME.sample(frac=1.0, random_state=0)
    plain = frame.reset_index(drop=True)
    path = tmp_path / "rows.parquet"
    for written, expected in (
        (frame, plain),
        (frame.set_index("g"), plain[["x", "t", "g"]]),
        (frame.set_index(["g", frame.index.rename(None)]), plain[["x", "t", "g"]]),
    ):
        written.to_parquet(path)
        source = as_source(INDEXED[kind](path))
        assert source.names == tuple(expected.columns)
        found = joined(source.frames(source.names))
        pd.testing.assert_frame_equal(found[list(expected)], expected, check_dtype=False)


@pytest.mark.parametrize("entries", [1, 30, 10**6])
def test_a_reader_of_batches(entries):
    table = pa.Table.from_pandas(FRAME, preserve_index=False)
    source = as_source(pa.RecordBatchReader.from_batches(table.schema, table.to_batches(9)))
    assert not source.is_readable_again
    with mock.patch.object(sources, "BATCH_ENTRIES", entries):
        pd.testing.assert_frame_equal(joined(source.frames(["x"])), FRAME[["x"]])


def test_an_iterator_gives_its_own_batches():
    parts = [FRAME[:10], pl.from_pandas(FRAME[10:11]), pa.Table.from_pandas(FRAME[11:])]
    source = as_source(iter(parts))
    assert source.names == ("x", "g", "t")
    frames = list(source.frames(["x"]))
    assert [len(frame) for frame in frames] == [10, 1, 89]
    assert frames[0] is parts[0]


def test_small_batches_are_joined_and_large_ones_split(tmp_path):
    source = as_source(write(tmp_path))
    with mock.patch.object(sources, "BATCH_ENTRIES", 20):
        sizes = [len(frame) for frame in source.frames(["x"])]
    assert sum(sizes) == 100
    # Row groups have seven rows.
    assert min(sizes) >= 20 or sizes[-1] == min(sizes)
    assert max(sizes) < 40
    table = pa.Table.from_pandas(FRAME)
    source = as_source(pa.RecordBatchReader.from_batches(table.schema, table.to_batches()))
    with mock.patch.object(sources, "BATCH_ENTRIES", 45):
        assert [len(frame) for frame in source.frames(["x"])] == [50, 50]


@pytest.mark.parametrize(
    "X",
    [
        FRAME,
        FRAME.to_numpy(),
        pl.from_pandas(FRAME),
        pa.Table.from_pandas(FRAME),
        [[1.0, 2.0]],
        None,
    ],
)
def test_rows_in_memory_are_no_source(X):
    assert as_source(X) is None


def test_without_pyarrow(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        as_source(Path("rows"))


def test_polars_without_batches():
    class Lazy:
        def collect_schema(self):
            return pl.Schema({"x": pl.Float64})

        def collect(self):
            """Be told from a frame."""

    with pytest.raises(ValueError, match=r"polars 1\.34"):
        as_source(Lazy())
