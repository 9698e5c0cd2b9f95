"""Data frames, of whatever library."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd


def is_frame(X: Any) -> bool:
    """Whether X is a data frame (pandas, polars), which has columns of different types."""
    return hasattr(X, "columns") and hasattr(X, "__getitem__")


_IN_DASK = (
    "Rows came in a Dask {kind}, and have to be in memory here: pass rows.compute() if memory "
    "holds them. fit, predict and score of mixedlearn.dask.DaskMixedLinearRegressor take Dask "
    "collections; to_local() makes a MixedLinearRegressor of its fit."
)
# The names under which pandas writes an index that has none.
_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")


def as_frame(X: Any) -> Any:
    """The data frame that a table of Arrow or a lazy frame of polars stands for; else X itself.

    An index that pandas wrote is a column if it has a name, and left out if not.

    Raises
    ------
    TypeError
        If X is a frame or a column of Dask.
    """
    # pandas takes long to say that it has no such attribute.
    if isinstance(X, (np.ndarray, pd.DataFrame)):
        return X
    if type(X).__module__.startswith("dask.dataframe"):
        raise TypeError(_IN_DASK.format(kind=type(X).__name__))
    if hasattr(X, "column_names") and hasattr(X, "to_pandas"):
        # Columns of numbers without nulls stay where they are.
        return _without_index(X).to_pandas(integer_object_nulls=True, split_blocks=True)
    X = X.collect() if hasattr(X, "collect_schema") and hasattr(X, "collect") else X
    if is_frame(X) and len(names := without_index(X.columns)) < len(X.columns):
        return X[list(names)]
    return X


def without_index(names: Iterable[Any]) -> tuple[Any, ...]:
    """Names of columns but those of an index without a name."""
    return tuple(
        name for name in names if not (isinstance(name, str) and _UNNAMED_INDEX.fullmatch(name))
    )


def _without_index(table: Any) -> Any:
    """A table of Arrow from which pandas makes columns alone."""
    table = table.select(list(without_index(table.column_names)))
    written = table.schema.pandas_metadata
    if not written:
        return table
    plain = json.dumps({**written, "index_columns": []}).encode()
    return table.replace_schema_metadata({**table.schema.metadata, b"pandas": plain})


def pandas_column(values: Any) -> Any:
    """A column of polars as one of pandas, with the order of its categories; any other as it is."""
    if isinstance(values, (np.ndarray, pd.Series)) or not hasattr(values, "to_pandas"):
        return values
    try:
        return values.to_pandas()
    except ImportError:  # without pyarrow
        return pd.Series(values.to_list())


def dense(column: pd.Series) -> pd.Series:
    """A sparse column as an ordinary one; any other as it is."""
    return pd.Series(np.asarray(column)) if isinstance(column.dtype, pd.SparseDtype) else column
