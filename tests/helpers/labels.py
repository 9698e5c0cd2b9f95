"""Representations of the same labels, by kind: those of one kind are equal, those of two never.

A representation takes a list of labels and gives what a user may pass; None where its type does not
hold them.
"""

import datetime
import decimal

import numpy as np
import pandas as pd

try:
    import pyarrow as pa
except ImportError:
    pa = None
try:
    import polars as pl
except ImportError:
    pl = None

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOATS = {"float16": 2**11, "float32": 2**24, "float64": 2**53}


def _integer(dtype):
    limits = np.iinfo(dtype)

    def held(ids):
        return limits.min <= min(ids) and max(ids) <= limits.max

    return lambda ids: np.array(ids, dtype=dtype) if held(ids) else None


def _floating(dtype):
    return lambda ids: np.array(ids, dtype=dtype) if max(map(abs, ids)) < FLOATS[dtype] else None


def _then(first, make):
    """What is made of another representation, where there is one."""

    def represent(labels):
        found = first(labels)
        return None if found is None else make(found)

    return represent


def _objects(labels):
    found = np.empty(len(labels), dtype=object)
    found[:] = labels
    return found


def _category(values):
    return pd.Series(values, dtype="category")


INT64 = _integer("int64")
TEXT = {
    "list": list,
    "numpy": lambda labels: np.array(labels),
    "numpy scalars": lambda labels: list(map(np.str_, labels)),
    "object": _objects,
    "series": pd.Series,
    "string": lambda labels: pd.Series(labels, dtype="string"),
    "category": _category,
    "category of objects": lambda labels: _category(pd.Series(labels, dtype=object)),
}
NUMBERS = {
    **{dtype: _integer(dtype) for dtype in INTEGERS},
    **{dtype: _floating(dtype) for dtype in FLOATS},
    "list": list,
    "object": _objects,
    "numpy scalars": _then(INT64, lambda ids: _objects(list(ids))),
    "bool": lambda ids: np.array(ids, dtype=bool) if set(ids) <= {0, 1} else None,
    "boolean": lambda ids: pd.array(ids, dtype="boolean") if set(ids) <= {0, 1} else None,
    "Decimal": lambda ids: list(map(decimal.Decimal, ids)),
    "Int64": _then(INT64, lambda ids: pd.Series(ids, dtype="Int64")),
    "UInt64": _then(_integer("uint64"), lambda ids: pd.Series(ids, dtype="UInt64")),
    "Float32": _then(_floating("float32"), lambda ids: pd.Series(ids, dtype="Float32")),
    "Float64": _then(_floating("float64"), lambda ids: pd.Series(ids, dtype="Float64")),
    "category": _then(INT64, _category),
    "category of floats": _then(_floating("float64"), _category),
    "category of Int64": _then(INT64, lambda ids: _category(pd.Series(ids, dtype="Int64"))),
}
BYTES = {
    "list": lambda labels: [label.encode() for label in labels],
    "numpy": lambda labels: np.array([label.encode() for label in labels]),
}
DAYS = {
    "list of dates": list,
    "objects": _objects,
    "timestamps": lambda days: [pd.Timestamp(day) for day in days],
    "datetimes": lambda days: [datetime.datetime(day.year, day.month, day.day) for day in days],
    "datetime64[D]": lambda days: np.array(days, dtype="datetime64[D]"),
    "objects of datetime64": lambda days: _objects(list(np.array(days, dtype="datetime64[D]"))),
    **{
        unit: lambda days, unit=unit: pd.Series(np.array(days, dtype=f"datetime64[{unit}]"))
        for unit in ("s", "ms", "us", "ns")
    },
    "category": lambda days: _category(pd.to_datetime(pd.Series(days))),
    "category of dates": lambda days: _category(pd.Series(days, dtype=object)),
}
IN_ZONE = {
    zone: lambda days, zone=zone: (
        pd.to_datetime(pd.Series(days)).dt.tz_localize("UTC").dt.tz_convert(zone)
    )
    for zone in ("UTC", "Asia/Tokyo")
}

if pa is not None:
    NUMBERS["pyarrow"] = _then(INT64, pa.array)
    NUMBERS["chunked"] = _then(INT64, lambda ids: pa.chunked_array([ids]))
    NUMBERS["halffloat"] = _then(_floating("float16"), pa.array)
    NUMBERS["int64[pyarrow]"] = _then(
        INT64, lambda ids: pd.Series(ids, dtype=pd.ArrowDtype(pa.int64()))
    )
    NUMBERS["float[pyarrow]"] = _then(
        _floating("float32"), lambda ids: pd.Series(ids, dtype=pd.ArrowDtype(pa.float32()))
    )
    TEXT["pyarrow"] = pa.array
    TEXT["dictionary"] = lambda labels: pa.array(labels).dictionary_encode()
    TEXT["string[pyarrow]"] = lambda labels: pd.Series(labels, dtype=pd.ArrowDtype(pa.string()))
    BYTES["pyarrow"] = lambda labels: pa.array(labels, pa.binary())
    DAYS["date[pyarrow]"] = lambda days: pd.Series(days, dtype=pd.ArrowDtype(pa.date32()))
    DAYS["timestamp[pyarrow]"] = lambda days: pd.Series(
        pd.to_datetime(pd.Series(days)), dtype=pd.ArrowDtype(pa.timestamp("us"))
    )
    IN_ZONE["pyarrow"] = lambda days: pa.array(IN_ZONE["UTC"](days))
    IN_ZONE["timestamp[pyarrow]"] = lambda days: IN_ZONE["Asia/Tokyo"](days).astype(
        pd.ArrowDtype(pa.timestamp("us", "Asia/Tokyo"))
    )
if pl is not None:
    NUMBERS["polars"] = _then(INT64, pl.Series)
    NUMBERS["polars UInt64"] = _then(_integer("uint64"), pl.Series)
    NUMBERS["polars Float32"] = _then(_floating("float32"), pl.Series)
    TEXT["polars"] = pl.Series
    TEXT["polars category"] = lambda labels: pl.Series(labels).cast(pl.Categorical)
    BYTES["polars"] = lambda labels: pl.Series([label.encode() for label in labels])
    DAYS["polars"] = pl.Series
    DAYS["polars datetimes"] = lambda days: pl.Series(DAYS["datetimes"](days))
    IN_ZONE["polars"] = lambda days: pl.Series(DAYS["datetimes"](days)).dt.replace_time_zone("UTC")
