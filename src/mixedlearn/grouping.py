"""Grouping factors: labels of any hashable kind to integer codes and back.

Labels are aligned with the rows by position, never by a pandas index.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


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


def as_labels(groups: Any, n_rows: int, default_name: str = "group") -> Labels:
    """Take groups in any of the forms that `fit` and `predict` accept.

    Parameters
    ----------
    groups : array-like of shape (n_rows,) or (n_rows, 1)
        Labels. A Series or a one-column DataFrame gives its name to the factor.
    n_rows : int
        Number of rows of X.
    default_name : str
        Name of a factor that brings none.

    Raises
    ------
    ValueError
        If there are several columns, if the lengths differ, or if a label is missing.
    """
    if isinstance(groups, (str, bytes)) or not (hasattr(groups, "__len__")):
        raise ValueError(
            f"groups must hold one label for each row, got {groups!r}. To name a column of X, use "
            "the constructor: MixedLinearRegressor(groups=...)."
        )
    name = default_name
    if hasattr(groups, "columns"):
        columns = list(groups.columns)
        if len(columns) != 1:
            raise ValueError(_several_factors(columns))
        groups = groups[columns[0]]
        name = str(columns[0])
    elif getattr(groups, "name", None) is not None:
        name = str(groups.name)
    if isinstance(groups, np.ndarray) and groups.ndim == 2:
        if groups.shape[1] != 1:
            raise ValueError(_several_factors([f"group{k}" for k in range(groups.shape[1])]))
        groups = groups[:, 0]
    values = _as_index(groups)
    if len(values) != n_rows:
        raise ValueError(
            f"groups has {len(values)} labels, but X has {n_rows} rows: give one label for each row."
        )
    _check_complete(values, name)
    return Labels(name, values)


def encode(labels: Labels) -> tuple[NDArray[np.int32], pd.Index]:
    """Code of each row and the levels that occur, in sorted order where they can be sorted."""
    _check_hashable(labels)
    try:
        codes, levels = pd.factorize(labels.values, sort=True)
    except TypeError:
        codes, levels = pd.factorize(labels.values)
    if isinstance(levels, pd.CategoricalIndex):
        levels = pd.Index(levels.categories[levels.codes])
    return codes.astype(np.int32), pd.Index(levels, name=labels.name, tupleize_cols=False)


def look_up(labels: Labels, levels: pd.Index) -> NDArray[np.int32]:
    """Code of each row among known levels; -1 where the level is unknown."""
    values = labels.values
    if isinstance(values, pd.CategoricalIndex):
        known = levels.get_indexer(pd.Index(values.categories))
        return np.append(known, -1)[values.codes].astype(np.int32)
    return levels.get_indexer(values).astype(np.int32)


def _as_index(groups: Any) -> pd.Index:
    if isinstance(groups, (pd.Series, pd.Index)):
        return pd.Index(groups, tupleize_cols=False)
    if hasattr(groups, "to_pandas"):
        return pd.Index(groups.to_pandas(), tupleize_cols=False)
    if isinstance(groups, (list, tuple)) and len(groups) and isinstance(groups[0], list):
        raise ValueError("groups must be one-dimensional: got a list of lists.")
    if isinstance(groups, (list, tuple)):
        return pd.Index(list(groups), tupleize_cols=False)
    if isinstance(groups, pd.api.extensions.ExtensionArray):
        return pd.Index(groups)
    array = np.asarray(groups)
    if array.ndim != 1:
        raise ValueError(f"groups must be one-dimensional, got an array of shape {array.shape}.")
    return pd.Index(array, tupleize_cols=False)


def _check_complete(values: pd.Index, name: str) -> None:
    missing = values.isna()
    if missing.any():
        raise ValueError(
            f"The groups of factor {name!r} have missing labels (NaN or None), the first at row "
            f"{int(np.argmax(missing))}: drop these rows or give them a level of their own."
        )
    if values.dtype.kind == "f" and np.isinf(values.to_numpy()).any():
        row = int(np.argmax(np.isinf(values.to_numpy())))
        raise ValueError(f"The groups of factor {name!r} have an infinite label (inf) at row {row}.")
    if values.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: the groups of factor {name!r} are complex.")


def _check_hashable(labels: Labels) -> None:
    if labels.values.dtype != object:
        return
    for row, label in enumerate(labels.values):
        if not isinstance(label, Hashable):
            raise TypeError(
                f"The groups of factor {labels.name!r} hold {label!r} at row {row}: a groups argument "
                "must be made of hashable labels, such as a string or a number."
            )


def _several_factors(names: list[Any]) -> str:
    return (
        f"groups has {len(names)} columns ({', '.join(map(str, names))}), but a model has one "
        "grouping factor: give one column."
    )
