"""Labels of grouping factors, in whatever form a user passes them.

Labels are aligned with the rows by position, never by a pandas index.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.data.frames import as_frame

# What pandas calls columns of objects that may hold floating-point numbers.
_MAY_HAVE_FLOATS = ("floating", "mixed-integer-float", "mixed-integer", "mixed")

_NAME_A_COLUMN = "To name a column of X, use the constructor: MixedLinearRegressor(groups=...)."


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of one grouping factor, one for each row.

    Attributes
    ----------
    name : str
        The factor's name.
    parts : tuple of pandas.Index
        Labels in the order of the rows; for an interaction, those of each of its columns.
    part_names : tuple of str
        Names of these columns.
    """

    name: str
    parts: tuple[pd.Index, ...]
    part_names: tuple[str, ...]

    def at(self, row: int) -> Any:
        """The label of a row; for an interaction a tuple."""
        label = tuple(part[row] for part in self.parts)
        return label if len(label) > 1 else label[0]

    def is_missing(self, row: int) -> bool:
        """Whether the label of a row is missing, or a part of it."""
        return any(bool(part[row : row + 1].isna()[0]) for part in self.parts)

    def rows(self, chosen: NDArray[np.bool_]) -> Labels:
        """The labels of some rows."""
        return replace(self, parts=tuple(part[chosen] for part in self.parts))

    def copied(self) -> Labels:
        """The same labels, of which no array is the user's."""
        return Labels(self.name, tuple(map(_copied, self.parts)), self.part_names)

    def has_types_of(self, other: Labels) -> bool:
        """Whether these labels and others are kept in the same types."""
        pairs = zip(self.parts, other.parts, strict=True)
        return all(own.dtype == theirs.dtype for own, theirs in pairs)


def as_labels(
    groups: Any,
    n_rows: int,
    names: Sequence[str] | None = None,
    *,
    may_miss: bool = False,
) -> list[Labels]:
    """Take groups in any of the forms that `fit` and `predict` accept, one `Labels` per factor.

    Parameters
    ----------
    groups : array-like of shape (n_rows,) or (n_rows, n_factors)
        Labels. A Series or a DataFrame gives its names to the factors.
    n_rows : int
        Number of rows of X.
    names : sequence of str, optional
        Names of the factors that are known already. The columns of a DataFrame are then taken by
        name, others by position. By default the names that groups bring, or "group", or "group0",
        "group1" and so on.
    may_miss : bool, default=False
        Whether labels may be missing.

    Raises
    ------
    ValueError
        If there are other factors than the known ones, if the lengths differ, if a label is
        missing and may not, or if numbers are so large that their type does not hold every whole
        number.
    """
    groups = as_frame(groups)
    if isinstance(groups, (str, bytes)) or not hasattr(groups, "__len__"):
        raise ValueError(
            f"groups must hold one label for each row, got {groups!r}. {_NAME_A_COLUMN}"
        )
    if isinstance(groups, (Mapping, Set)):
        raise ValueError(
            f"groups must hold one label for each row in their order, got a "
            f"{type(groups).__name__}: pass a list, an array, a Series or "
            "a DataFrame with a column for each factor."
        )
    own_names, columns = _split(groups, n_rows)
    if not columns:
        raise ValueError("groups has no columns: give one for each grouping factor.")
    if own_names is None:
        own_names = ["group"] if len(columns) == 1 else [f"group{j}" for j in range(len(columns))]
        if names is not None and len(names) == len(columns):
            own_names = list(names)
    elif len(set(own_names)) < len(own_names):
        twice = next(name for name in own_names if own_names.count(name) > 1)
        raise ValueError(f"groups has the column {twice!r} twice: give unique column names.")
    labels = [
        _of_length(column, n_rows, name) for name, column in zip(own_names, columns, strict=True)
    ]
    if names is not None:
        own_names, labels = _aligned(own_names, labels, names)
    return [
        Labels(name, (_checked(values, name, may_miss=may_miss),), (name,))
        for name, values in zip(own_names, labels, strict=True)
    ]


def join_labels(labels: Sequence[Labels]) -> Labels:
    """The labels of several batches of rows, which have the same types."""
    first, *others = labels
    parts = tuple(
        pd.Index(
            # pandas takes tuples apart.
            [label for own in labels for label in own.parts[k]],
            dtype=object,
            tupleize_cols=False,
        )
        if part.dtype == object
        else part.append([own.parts[k] for own in others])
        for k, part in enumerate(first.parts)
    )
    return replace(first, parts=parts)


def _copied(labels: pd.Index) -> pd.Index:
    if isinstance(labels.dtype, np.dtype):
        return pd.Index(labels.to_numpy().copy(), tupleize_cols=False)
    return labels.copy(deep=True)


def interaction(name: str, parts: Sequence[Labels]) -> Labels:
    """The factor whose levels are the combinations of others."""
    return Labels(name, tuple(part.parts[0] for part in parts), tuple(part.name for part in parts))


def _split(groups: Any, n_rows: int) -> tuple[list[str] | None, list[Any]]:
    """Names of the columns, where they have names, and the columns."""
    if hasattr(groups, "columns"):
        names = list(groups.columns)
        if len(set(names)) < len(names):
            return [str(name) for name in names], [None] * len(names)
        return [str(name) for name in names], [groups[name] for name in names]
    if isinstance(groups, pd.MultiIndex):
        named = all(name is not None for name in groups.names)
        columns = [groups.get_level_values(j) for j in range(groups.nlevels)]
        return (list(map(str, groups.names)) if named else None), columns
    name = getattr(groups, "name", None)
    if name not in (None, ""):
        return [str(name)], [groups]
    if isinstance(groups, (list, tuple)):
        return None, _from_nested(groups, n_rows)
    if isinstance(groups, np.ndarray) and groups.ndim == 2:
        if len(groups) != n_rows == groups.shape[1]:
            _raise_transposed("an array", len(groups), n_rows)
        return None, list(groups.T)
    return None, [groups]


def _from_nested(groups: list | tuple, n_rows: int) -> list[Any]:
    """Columns of a list of rows; the list itself if its entries are labels."""
    if 0 < len(groups) != n_rows and all(
        hasattr(column, "__len__")
        and not isinstance(column, (str, bytes))
        and len(column) == n_rows
        for column in groups
    ):
        _raise_transposed("a list", len(groups), n_rows)
    if groups and all(isinstance(row, list) for row in groups):
        sizes = [len(row) for row in groups]
        if len(set(sizes)) > 1:
            row = next(row for row, size in enumerate(sizes) if size != sizes[0])
            raise ValueError(
                "groups is a list of rows of different lengths: row 0 has "
                f"{_number(sizes[0], 'label')}, row {row} has {sizes[row]}: give every row as many."
            )
        return [list(column) for column in zip(*groups, strict=True)]
    return [groups]


def _raise_transposed(kind: str, n_columns: int, n_rows: int) -> NoReturn:
    raise ValueError(
        f"groups is {kind} of {_number(n_columns, 'column')} of {_number(n_rows, 'label')}: give "
        f"an array of shape ({n_rows}, {n_columns}) or a DataFrame, with a row for each row of X."
    )


def _number(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def _aligned(
    own_names: list[str], columns: list[pd.Index], names: Sequence[str]
) -> tuple[list[str], list[pd.Index]]:
    """Columns in the order of the known factors; a single one needs no name."""
    if len(columns) != len(names):
        raise ValueError(
            f"groups has {_number(len(columns), 'column')} ({', '.join(own_names)}), but the model "
            f"has {_number(len(names), 'grouping factor')} ({', '.join(names)}): give a column for "
            "each."
        )
    if len(names) == 1:
        return list(names), columns
    missing = [name for name in names if name not in own_names]
    if missing:
        raise ValueError(
            f"groups has no column for the factor {missing[0]!r}: its columns are "
            f"{', '.join(map(repr, own_names))}, the model's factors {', '.join(map(repr, names))}."
        )
    return list(names), [columns[own_names.index(name)] for name in names]


def _of_length(column: Any, n_rows: int, name: str) -> pd.Index:
    values = _as_index(column, name)
    if len(values) != n_rows:
        may_be_names = (
            0 < len(values) < n_rows
            and all(isinstance(label, str) for label in values)
            and values.is_unique
        )
        hint = f" {_NAME_A_COLUMN}" if may_be_names else ""
        raise ValueError(
            f"groups has {len(values)} labels, but X has {n_rows} rows: give one label for each "
            f"row.{hint}"
        )
    return values


def shown(value: Any) -> str:
    """Show a value in a message without numpy's type around it."""
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return str(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))}{',' if len(value) == 1 else ''})"
    return repr(value.item() if isinstance(value, np.generic) else value)


def _as_index(groups: Any, name: str) -> pd.Index:
    if isinstance(groups, np.ma.MaskedArray):
        # numpy would show what is under the mask.
        masked, groups = np.ma.getmaskarray(groups), groups.data
        if masked.any():
            groups = groups.astype(object)
            groups[masked] = None
    if isinstance(groups, (pd.Series, pd.Index)):
        if groups.dtype == np.float16:
            return _of_array(groups.to_numpy(), name)
        return pd.Index(groups, tupleize_cols=False, copy=False)
    if isinstance(groups, (list, tuple)):
        labels = list(groups)
        if labels and all(isinstance(label, np.float16) for label in labels):
            return _of_array(np.asarray(labels), name)
        return pd.Index(labels, tupleize_cols=False)
    if isinstance(groups, pd.api.extensions.ExtensionArray):
        return pd.Index(groups)
    to_list = getattr(groups, "to_list", getattr(groups, "to_pylist", None))
    if to_list is not None:
        # Numbers keep their width; all others are read one by one, time zones among them.
        array = np.asarray(groups)
        if array.dtype.kind in "iuf":
            return _of_array(array, name)
        return pd.Index(to_list(), tupleize_cols=False)
    array = np.asarray(groups)
    if array.ndim != 1:
        raise ValueError(
            f"groups must have one or two dimensions, got an array of shape {array.shape}: give "
            "one label for each row, or a row of labels for each."
        )
    return _of_array(array, name)


def _of_array(array: NDArray, name: str) -> pd.Index:
    if array.dtype == np.float16:
        # pandas has no index of such numbers.
        _check_exact(array, _groups_of(name))
        array = array.astype(np.float32)
    return pd.Index(array, tupleize_cols=False, copy=False)


def _checked(values: pd.Index, name: str, *, may_miss: bool) -> pd.Index:
    """Labels of which none may be another, numbers in the types of numpy if none is missing."""
    missing = missing_labels(values)
    if missing is not None and may_miss:
        _checked(values[~missing], name, may_miss=False)
        return values
    if missing is not None:
        raise ValueError(
            f"The groups of factor {name!r} have missing labels (NaN or None), the first at row "
            f"{int(np.argmax(missing))}: drop these rows or give them a level of their own."
        )
    values = in_numpy_type(values, name)
    check_numbers(values, _groups_of(name))
    return values


def in_numpy_type(values: pd.Index, name: str) -> pd.Index:
    """The same labels without the types in which pandas keeps numbers and Arrow's arrays."""
    dtype = values.dtype
    if isinstance(dtype, np.dtype):
        return values
    if isinstance(values, pd.CategoricalIndex):
        categories = values.categories
        own: Any = in_numpy_type(categories, name)
        return values if own is categories else values.rename_categories(own)
    if dtype.kind in "biuf":
        return _of_array(values.to_numpy(dtype=getattr(dtype, "numpy_dtype", None)), name)
    if isinstance(dtype, pd.ArrowDtype) and dtype.kind != "U":
        return _of_array(values.to_numpy(), name)
    return values


def missing_labels(values: pd.Index) -> NDArray[np.bool_] | None:
    """Which labels are missing, shape (n,); None if none is."""
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "biu":
        return None
    if values.dtype == object and values.inferred_type == "string":
        return None
    missing = np.asarray(values.isna())
    return missing if missing.any() else None


def _groups_of(name: str) -> str:
    return f"The groups of factor {name!r}"


def check_numbers(values: pd.Index, what: str) -> None:
    """Refuse numbers of which nobody knows whether they are the same.

    ``what`` they are starts the message: "The groups of factor 'g'".
    """
    if isinstance(values, pd.CategoricalIndex):
        if values.categories.dtype.kind in "fcO":
            used = values.unique()
            check_numbers(used.categories[used.codes], what)
    elif values.dtype.kind == "f":
        array = values.to_numpy()
        if np.isinf(array).any():
            raise ValueError(
                f"{what} have an infinite label (inf) at row "
                f"{int(np.argmax(np.isinf(array)))}: drop this row or give it a level of its own."
            )
        _check_exact(array, what)
    elif values.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {what[0].lower()}{what[1:]} are complex.")
    elif values.dtype == object and values.inferred_type in _MAY_HAVE_FLOATS:
        _check_each_exact(values, what)


def _check_exact(array: NDArray[np.floating], what: str) -> None:
    """Refuse floating-point numbers so large that they are whole numbers, but not all of them."""
    first_gap = _first_gap(array.dtype)
    # Comparisons with NaN are false.
    if len(array) and not max(array.max(), -array.min()) < first_gap:
        far = np.isfinite(array) & (np.abs(array) >= first_gap)
        if far.any():
            _raise_inexact(array[int(np.argmax(far))], what)


def _check_each_exact(labels: Iterable[Any], what: str) -> None:
    for label in labels:
        if isinstance(label, tuple):
            _check_each_exact(label, what)
        elif isinstance(label, (float, np.floating)) and abs(float(label)) >= _first_gap(
            type(label)
        ):
            _raise_inexact(label, what)


def _first_gap(dtype: Any) -> float:
    """The number after which a floating-point type lacks a whole number."""
    return float(2.0 ** (np.finfo(dtype).nmant + 1))


def _raise_inexact(label: Any, what: str) -> NoReturn:
    dtype = np.dtype(type(label))
    raise ValueError(
        f"{what} have the label {shown(label)}, a number of type {dtype}, "
        f"which from {_first_gap(dtype):.0f} on does not hold every whole number: different labels "
        "may have become one. Pass such labels as integers or as text."
    )
