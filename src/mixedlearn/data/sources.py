"""Sources: rows that come batch by batch, from disk or from wherever a user takes them.

A batch is a data frame of pandas or polars. Neither pyarrow nor polars is needed but for sources of
their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd

from mixedlearn.data.frames import as_frame, is_frame, without_index

# Numbers in a batch: enough that what a batch costs besides its rows is nil, few enough that the
# rows take little memory beside the sums.
BATCH_ENTRIES = 1 << 20


_ACCEPTED = (
    "Rows that are not in memory come from the path of a Parquet file or folder, a pyarrow Dataset "
    "or RecordBatchReader, a LazyFrame of polars, or an iterator of data frames"
)
_IN_PARTS = (
    "read it batch by batch and pass each batch, for example batch in "
    "pyarrow.dataset.dataset(path).to_batches(), or all rows by pandas.read_parquet(path)."
)


@dataclass(frozen=True)
class Source:
    """Rows that come batch by batch.

    Attributes
    ----------
    names : tuple of str
        Names of the columns; an index without a name that pandas wrote is none.
    is_readable_again : bool
        Whether every call of `frames` begins anew; else there may be one.
    frames : callable
        Takes the names of the columns that are needed, None for all, and gives an iterator of
        frames that have them, in the order of the rows. Frames may have others too.
    """

    names: tuple[str, ...]
    is_readable_again: bool
    frames: Callable[[Sequence[str] | None], Iterator[Any]]


def as_source(X: Any, what: str = "X") -> Source | None:
    """The source that X is; None if X is rows in memory.

    Parameters
    ----------
    X : str, Path, pyarrow Dataset or RecordBatchReader, polars LazyFrame, or iterator of frames
        A path is that of a Parquet file, or of a folder of them.
    what : str, default="X"
        The argument that X is, for messages.

    Raises
    ------
    ImportError
        If pyarrow is needed to read X and is not installed.
    ValueError
        If there is no such file, or X is a list of paths or frames.
    """
    if isinstance(X, Source):
        return X
    if isinstance(X, (np.ndarray, pd.DataFrame)):
        return None
    _refuse_what_holds_sources(X)
    if isinstance(X, (str, PathLike)):
        return _of_dataset(_parquet(X, what))
    if hasattr(X, "scanner") and hasattr(X, "schema"):
        return _of_dataset(X)
    if hasattr(X, "read_next_batch") and hasattr(X, "schema"):
        names = without_index(X.schema.names)
        return Source(names, False, lambda needed: _arrow_frames(X, needed or names))
    if is_lazy(X):
        return _of_lazy_frame(X, what)
    if hasattr(X, "__next__"):
        return _of_iterator(X, what)
    return None


def refuse_source(X: Any, instead: str = _IN_PARTS) -> None:
    """Refuse a source where rows have to be in memory, or a frame that polars can collect.

    ``instead`` says what to do.

    Raises
    ------
    ValueError
        If X is one; an iterator keeps its items.
    """
    if isinstance(X, (np.ndarray, pd.DataFrame)):
        return
    is_path = isinstance(X, (str, PathLike))
    if is_path or any(hasattr(X, name) for name in ("scanner", "read_next_batch", "__next__")):
        kind = f"the path {str(X)!r}" if is_path else f"an object of type {type(X).__name__}"
        raise ValueError(f"X is {kind}, and not rows that are in memory: {instead}")


def _refuse_what_holds_sources(X: Any) -> None:
    """Say what to pass in place of what looks like a source."""
    if isinstance(X, (list, tuple)) and X:
        if isinstance(X[0], (str, PathLike)):
            raise ValueError(
                f"X is a {type(X).__name__} of paths: pass pyarrow.dataset.dataset(X). {_ACCEPTED}."
            )
        if is_frame(as_frame(X[0])):
            raise ValueError(
                f"X is a {type(X).__name__} of data frames: pass iter(X). {_ACCEPTED}."
            )
    if hasattr(X, "iter_batches") and hasattr(X, "schema_arrow"):
        raise ValueError(f"X is a {type(X).__name__}: pass X.iter_batches(). {_ACCEPTED}.")
    if hasattr(X, "dataset_schema") and hasattr(X, "to_reader"):
        raise ValueError(f"X is a {type(X).__name__}: pass X.to_reader(). {_ACCEPTED}.")


def is_lazy(X: Any) -> bool:
    """Whether X is a lazy frame of polars."""
    return hasattr(X, "collect_schema") and hasattr(X, "collect")


def _parquet(path: Any, what: str) -> Any:
    try:
        from pyarrow import dataset
    except ImportError as error:
        raise ImportError(
            f"{what} is a path, and reading Parquet needs pyarrow: pip install pyarrow, or pass "
            "rows that are in memory."
        ) from error
    try:
        found = dataset.dataset(path, format="parquet", partitioning="hive")
    except FileNotFoundError as error:
        pattern = any(sign in str(path) for sign in "*?[")
        hint = " Of a pattern pass pyarrow.dataset.dataset(glob.glob(pattern))." if pattern else ""
        raise ValueError(
            f"{what} is the path {str(path)!r}, where there is no file and no folder.{hint} "
            f"{_ACCEPTED}."
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{what} is the path {str(path)!r}, and Parquet files cannot be read from there. Of "
            "other files pass pyarrow.dataset.dataset(path, format='csv'), or batches, such as "
            f"those of pandas.read_csv(path, chunksize=100_000): {error}"
        ) from error
    if not found.files:
        raise ValueError(f"{what} is the path {str(path)!r}, a folder without Parquet files.")
    return found


def _of_dataset(dataset: Any) -> Source:
    names = without_index(dataset.schema.names)

    def frames(needed: Sequence[str] | None) -> Iterator[Any]:
        own = names if needed is None else needed
        return _arrow_frames(_scanned(dataset, own), own)

    return Source(names, True, frames)


def _scanned(dataset: Any, names: Sequence[str]) -> Iterator[Any]:
    """Record batches of a dataset, in order, with few of them in memory at a time."""
    from pyarrow.dataset import ParquetFragmentScanOptions

    options: dict[str, Any] = {}
    if getattr(getattr(dataset, "format", None), "default_extname", "") == "parquet":
        # By default a whole file is read ahead.
        options["fragment_scan_options"] = ParquetFragmentScanOptions(pre_buffer=False)
    return dataset.scanner(
        columns=list(names),
        batch_size=_batch_rows(len(names)),
        batch_readahead=2,
        fragment_readahead=1,
        **options,
    ).to_batches()


def _arrow_frames(batches: Iterable[Any], needed: Sequence[str]) -> Iterator[Any]:
    """Columns of record batches as frames of about as many rows each."""
    import pyarrow as pa

    rows, waiting, n_waiting = _batch_rows(len(needed)), [], 0
    for batch in batches:
        waiting.append(batch.select(list(needed)))
        n_waiting += len(batch)
        if n_waiting >= rows:
            yield from _sliced(pa.Table.from_batches(waiting), rows)
            waiting, n_waiting = [], 0
    if n_waiting:
        yield from _sliced(pa.Table.from_batches(waiting), rows)


def _sliced(table: Any, rows: int) -> Iterator[Any]:
    # A last slice of few rows would cost as much as a large one.
    n_slices = max(len(table) // rows, 1)
    for k in range(n_slices):
        first, last = len(table) * k // n_slices, len(table) * (k + 1) // n_slices
        yield as_frame(table.slice(first, last - first))


def _of_lazy_frame(frame: Any, what: str) -> Source:
    names = without_index(frame.collect_schema().names())

    def frames(needed: Sequence[str] | None) -> Iterator[Any]:
        own = list(names if needed is None else needed)
        batches = frame.select(own).collect_batches
        return batches(chunk_size=_batch_rows(len(own)), maintain_order=True)

    if not hasattr(frame, "collect_batches"):
        raise ValueError(
            f"{what} is a lazy frame of a version of polars that does not give its rows batch by "
            "batch: install polars 1.34 or later, or pass its collect()."
        )
    return Source(names, True, frames)


def _of_iterator(items: Iterator[Any], what: str) -> Source:
    frames = (_checked_frame(number, item, what) for number, item in enumerate(items, 1))
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{what} is an iterator of batches, and gives none.")
    names = tuple(first.columns)

    def complete(needed: Sequence[str] | None) -> Iterator[Any]:
        for number, frame in enumerate(chain([first], frames), 1):
            missing = set(needed or names) - set(frame.columns)
            if missing:
                listed = ", ".join(map(repr, sorted(missing)))
                raise ValueError(
                    f"batch {number}: the columns {listed} of the first batch are missing."
                )
            yield frame

    return Source(names, False, complete)


def _checked_frame(number: int, item: Any, what: str) -> Any:
    frame = as_frame(item)
    if not is_frame(frame):
        raise TypeError(
            f"batch {number}: {what} is an iterator, which must give data frames of pandas, polars "
            f"or Arrow with y among their columns, got an object of type {type(item).__name__}. "
            "partial_fit takes arrays."
        )
    return frame


def _batch_rows(n_columns: int) -> int:
    return max(BATCH_ENTRIES // max(n_columns, 1), 1)
