"""Data frames, of whatever library."""

from __future__ import annotations

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


def as_frame(X: Any) -> Any:
    """The data frame that a table of Arrow or a lazy frame of polars stands for; else X itself.

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
        return X.to_pandas(integer_object_nulls=True, split_blocks=True)
    return X.collect() if hasattr(X, "collect_schema") and hasattr(X, "collect") else X


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
