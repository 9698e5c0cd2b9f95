"""Numbers: what in a column of Python objects is a number, and which integers are no floats."""

from __future__ import annotations

import datetime
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.data.frames import dense

# Integers beyond this are no longer next to each other among the floats.
EXACT_INTEGERS = 2**53

NUMBERS, DATES, TIME_DIFFERENCES = "numbers", "dates", "time differences"
_TYPES: dict[str, tuple[type, ...]] = {
    NUMBERS: (Real, Decimal, np.bool_),
    DATES: (datetime.date, datetime.time, np.datetime64),
    TIME_DIFFERENCES: (datetime.timedelta, np.timedelta64),
}


def kind_of_object(value: Any) -> str:
    """Whether a Python object is a number, a date or a time difference; empty if none of these."""
    # Some of numpy's time differences are integers to Python.
    for kind in (TIME_DIFFERENCES, DATES, NUMBERS):
        if isinstance(value, _TYPES[kind]):
            return kind
    return ""


def kind_of_objects(values: Any) -> str:
    """What all objects of an array are, missing ones left out; empty if they are of several kinds.

    Booleans alone are no numbers.
    """
    objects = np.asarray(values, dtype=object)
    kind = ""
    only_booleans = True
    for value in objects:
        if value is None or value is pd.NA or value is pd.NaT:
            continue
        own = kind_of_object(value)
        if not own or (kind and own != kind):
            return ""
        kind = own
        only_booleans = only_booleans and isinstance(value, (bool, np.bool_))
    return "" if only_booleans else kind


def as_floats(values: Any) -> NDArray[np.float64]:
    """Objects that are numbers, or missing, as floats."""
    return np.array(
        [np.nan if value is None or value is pd.NA else float(value) for value in values],
        dtype=np.float64,
    )


def numbers_of_objects(column: pd.Series) -> pd.Series:
    """A column of objects that are all numbers as floats; any other as it is."""
    is_object = isinstance(column.dtype, np.dtype) and column.dtype.kind == "O"
    if is_object and kind_of_objects(column) == NUMBERS:
        return pd.Series(as_floats(column), index=column.index)
    return column


def inexact_note(name: str, column: pd.Series) -> str:
    """What to say of a column of integers that floats do not hold; empty if they do."""
    row = _inexact_row(column)
    if row < 0:
        return ""
    value = int(column.iloc[row])
    return (
        f"The integers of the column {name!r} are too large for floats and lose digits: {value} at "
        f"row {row} becomes {float(value):.0f}. Subtract a constant from the column, or divide it, "
        "before the fit."
    )


def _inexact_row(column: pd.Series) -> int:
    """The first row whose integer is no float, so that it loses digits; -1 if there is none."""
    column = dense(column)
    dtype: Any = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        column = column.infer_objects()
        dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        return next((row for row, value in enumerate(column) if _is_inexact(value)), -1)
    if dtype.kind not in "iu" or dtype.itemsize < 8 or not len(column):
        return -1
    if isinstance(dtype, np.dtype):
        values = column.to_numpy()
    else:
        values = column.to_numpy(dtype=dtype.numpy_dtype, na_value=0)
    if values.max() <= EXACT_INTEGERS and values.min() >= -EXACT_INTEGERS:
        return -1
    floats = values.astype(np.float64)
    # The largest integer of the type is no float, and the next float is no integer of the type.
    differs = floats >= float(np.iinfo(values.dtype).max)
    differs[~differs] = floats[~differs].astype(values.dtype) != values[~differs]
    return int(np.argmax(differs)) if differs.any() else -1


def _is_inexact(value: Any) -> bool:
    is_large = isinstance(value, (int, np.integer)) and abs(int(value)) > EXACT_INTEGERS
    return is_large and float(value) != int(value)
