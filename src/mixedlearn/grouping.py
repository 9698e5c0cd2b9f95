"""Grouping factors: labels of any hashable kind to integer codes and back.

Labels are aligned with the rows by position, never by a pandas index.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_NAME_A_COLUMN = "To name a column of X, use the constructor: MixedLinearRegressor(groups=...)."

_SPECIAL_INDEXES = (pd.DatetimeIndex, pd.TimedeltaIndex, pd.PeriodIndex, pd.IntervalIndex)


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of one grouping factor, one for each row.

    Attributes
    ----------
    name : str
        The factor's name.
    values : pandas.Index
        Labels in the order of the rows.
    """

    name: str
    values: pd.Index


def as_labels(groups: Any, n_rows: int, name: str | None = None) -> Labels:
    """Take groups in any of the forms that `fit` and `predict` accept.

    Parameters
    ----------
    groups : array-like of shape (n_rows,) or (n_rows, 1)
        Labels. A Series or a one-column DataFrame gives its name to the factor.
    n_rows : int
        Number of rows of X.
    name : str, optional
        Name of the factor; by default the one that groups bring, or "group".

    Raises
    ------
    ValueError
        If there are several columns, if the lengths differ, or if a label is missing.
    """
    if isinstance(groups, (str, bytes)) or not hasattr(groups, "__len__"):
        raise ValueError(
            f"groups must hold one label for each row, got {groups!r}. {_NAME_A_COLUMN}"
        )
    if isinstance(groups, (Mapping, Set)):
        raise ValueError(
            f"groups must hold one label for each row in their order, got a "
            f"{type(groups).__name__}: pass a list, an array or a Series."
        )
    own_name = "group"
    if hasattr(groups, "columns"):
        columns = list(groups.columns)
        if len(columns) != 1:
            raise ValueError(_several_factors(columns))
        groups = groups[columns[0]]
        own_name = str(columns[0])
    elif getattr(groups, "name", None) not in (None, ""):
        own_name = str(groups.name)
    name = own_name if name is None else name
    if isinstance(groups, (list, tuple)):
        groups = _from_nested(groups, n_rows)
    if isinstance(groups, np.ndarray) and groups.ndim == 2:
        if groups.shape[1] != 1:
            raise ValueError(_several_factors(list(range(groups.shape[1]))))
        groups = groups[:, 0]
    if isinstance(groups, pd.MultiIndex):
        raise ValueError(_several_factors(list(groups.names)))
    values = _as_index(groups)
    if len(values) != n_rows:
        hint = f" {_NAME_A_COLUMN}" if len(values) == 1 and isinstance(values[0], str) else ""
        raise ValueError(
            f"groups has {len(values)} labels, but X has {n_rows} rows: give one label for each "
            f"row.{hint}"
        )
    _check_complete(values, name)
    return Labels(name, values)


def encode(labels: Labels) -> tuple[NDArray[np.int32], pd.Index]:
    """Code of each row and the levels that occur, in sorted order where they can be sorted."""
    try:
        codes, levels = pd.factorize(labels.values, sort=True)
    except TypeError:
        try:
            codes, levels = pd.factorize(labels.values)
        except TypeError as error:
            _raise_unhashable(labels, error)
    if isinstance(levels, pd.CategoricalIndex):
        levels = pd.Index(levels.categories[levels.codes])
    return codes.astype(np.int32), pd.Index(levels, name=labels.name, tupleize_cols=False)


def look_up(labels: Labels, levels: pd.Index) -> NDArray[np.int32]:
    """Code of each row among known levels; -1 where the level is unknown."""
    values = labels.values
    if isinstance(values, pd.CategoricalIndex):
        known = levels.get_indexer(pd.Index(values.categories))
        return np.append(known, -1)[values.codes].astype(np.int32)
    if isinstance(levels, _SPECIAL_INDEXES) and values.dtype != levels.dtype:
        # pandas would parse text as dates and find a number in an interval.
        levels, values = levels.astype(object), values.astype(object)
    try:
        return levels.get_indexer(values).astype(np.int32)
    except TypeError as error:
        _raise_unhashable(labels, error)


def shown(value: Any) -> str:
    """Show a value in a message without numpy's type around it."""
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return str(value)
    return repr(value.item() if isinstance(value, np.generic) else value)


def _from_nested(groups: list | tuple, n_rows: int) -> Any:
    """A list of rows of one label as those labels; refuse rows or columns of several labels."""
    if groups and all(isinstance(row, list) for row in groups):
        sizes = {len(row) for row in groups}
        if len(groups) == n_rows and sizes == {1}:
            return [row[0] for row in groups]
        if len(groups) == n_rows and len(sizes) == 1:
            raise ValueError(_several_factors(list(range(*sizes))))
    if len(groups) != n_rows and all(
        hasattr(column, "__len__")
        and not isinstance(column, (str, bytes))
        and len(column) == n_rows
        for column in groups
    ):
        raise ValueError(_several_factors(list(range(len(groups)))))
    return groups


def _as_index(groups: Any) -> pd.Index:
    if isinstance(groups, (pd.Series, pd.Index)):
        return pd.Index(groups, tupleize_cols=False, copy=False)
    if isinstance(groups, (list, tuple)):
        return pd.Index(list(groups), tupleize_cols=False)
    if isinstance(groups, pd.api.extensions.ExtensionArray):
        return pd.Index(groups)
    if hasattr(groups, "to_list"):
        return pd.Index(groups.to_list(), tupleize_cols=False)
    array = np.asarray(groups)
    if array.ndim != 1:
        raise ValueError(f"groups must be one-dimensional, got an array of shape {array.shape}.")
    return pd.Index(array, tupleize_cols=False, copy=False)


def _check_complete(values: pd.Index, name: str) -> None:
    missing = values.isna()
    if missing.any():
        raise ValueError(
            f"The groups of factor {name!r} have missing labels (NaN or None), the first at row "
            f"{int(np.argmax(missing))}: drop these rows or give them a level of their own."
        )
    if values.dtype.kind == "f" and np.isinf(values.to_numpy()).any():
        row = int(np.argmax(np.isinf(values.to_numpy())))
        raise ValueError(
            f"The groups of factor {name!r} have an infinite label (inf) at row {row}: drop "
            "this row or give it a level of its own."
        )
    if values.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: the groups of factor {name!r} are complex.")


def _raise_unhashable(labels: Labels, error: TypeError) -> NoReturn:
    for row, label in enumerate(labels.values):
        try:
            hash(label)
        except TypeError:
            raise TypeError(
                f"The groups of factor {labels.name!r} hold {label!r} at row {row}: a groups "
                "argument must be made of hashable labels, such as a string or a number."
            ) from error
    raise error


def _several_factors(names: list[Any]) -> str:
    return (
        f"groups has {len(names)} columns ({', '.join(map(str, names))}), but a model has one "
        "grouping factor: give one column. For a level of each combination, join their labels."
    )
