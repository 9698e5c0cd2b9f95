"""Levels: the distinct labels of a factor, and the number of each row's level among them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from numbers import Number
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.data.labels import Labels, in_numpy_type, missing_labels
from mixedlearn.data.numbers import EXACT_INTEGERS

# Integer labels are dense if they span no more than so many numbers for each row.
DENSE = 4

# What labels of a type are called, beside numbers, times and periods.
_KIND_NAMES: dict[type, str] = {
    str: "text",
    bytes: "bytes",
    timedelta: "time differences",
    pd.Interval: "intervals",
    tuple: "tuples",
}


def encode(labels: Labels) -> tuple[NDArray[np.int32], pd.Index]:
    """Code of each row and the levels that occur, in sorted order where they can be sorted.

    The levels of an interaction are a MultiIndex.
    """
    encoded = [_encode_part(part, labels.name) for part in labels.parts]
    if len(encoded) == 1:
        codes, levels = encoded[0]
        levels.name = labels.name
        return codes, levels
    keys = np.zeros(len(labels.parts[0]), dtype=np.int64)
    for codes, own_levels in encoded:
        # Renumbered at every part, the combinations stay below n^2.
        keys, _ = pd.factorize(keys * len(own_levels) + codes, sort=True)
    first = np.flatnonzero(~pd.Index(keys).duplicated())
    first = first[np.argsort(keys[first])]
    levels = pd.MultiIndex(
        levels=[own_levels for _, own_levels in encoded],  # type: ignore[misc]
        codes=[codes[first] for codes, _ in encoded],  # type: ignore[misc]
        names=list(labels.part_names),
    )
    return keys.astype(np.int32), levels


def _encode_part(values: pd.Index, name: str) -> tuple[NDArray[np.int32], pd.Index]:
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "iu" and len(values):
        labels = values.to_numpy()
        first, last = int(labels.min()), int(labels.max())
        if last - first < DENSE * len(labels) and last <= np.iinfo(np.int64).max:
            return _encode_dense(labels, first, last)
    try:
        codes, levels = pd.factorize(values, sort=True)
    except TypeError:
        try:
            codes, levels = pd.factorize(values)
        except TypeError as error:
            _raise_unhashable(values, name, error)
    if isinstance(levels, pd.CategoricalIndex):
        levels = pd.Index(levels.categories[levels.codes])
    if levels.dtype == object and not (plain := _plain_index(levels)).is_unique:
        # A date and its midnight in one column, say.
        codes, levels = pd.factorize(plain)[0][codes], levels[~plain.duplicated()]
    return codes.astype(np.int32), levels


def _encode_dense(
    labels: NDArray[np.integer], first: int, last: int
) -> tuple[NDArray[np.int32], pd.Index]:
    """Integers with few gaps: a table of all between first and last needs no hashing or sorting."""
    positions = np.subtract(labels, first, dtype=np.int64)
    occurs = np.zeros(last - first + 1, dtype=bool)
    occurs[positions] = True
    levels = np.flatnonzero(occurs)
    code_of = np.empty(len(occurs), dtype=np.int32)
    code_of[levels] = np.arange(len(levels), dtype=np.int32)
    return code_of[positions], pd.Index((levels + first).astype(labels.dtype))


def merge_levels(
    known: pd.Index, others: pd.Index
) -> tuple[NDArray[np.int32], NDArray[np.int32], pd.Index]:
    """Levels of a factor and further ones together, in the order of `encode`.

    Returns
    -------
    places : ndarray of int
        The place of every known level among all.
    other_places : ndarray of int
        The place of every other level.
    levels : pandas.Index
        All levels.
    """
    names = tuple(map(str, known.names))
    if not isinstance(known, pd.MultiIndex) and known.is_monotonic_increasing:
        places = _look_up_part(others, known, names[0])
        if (places >= 0).all():
            return np.arange(len(known), dtype=np.int32), places, known
    pairs = (
        [(known, others)]
        if not isinstance(known, pd.MultiIndex)
        else [
            (known.get_level_values(part), others.get_level_values(part))
            for part in range(known.nlevels)
        ]
    )
    joined = tuple(_join(own, other, name) for (own, other), name in zip(pairs, names, strict=True))
    codes, levels = encode(Labels(":".join(names), joined, names))
    return codes[: len(known)], codes[len(known) :], levels


def _join(known: pd.Index, others: pd.Index, name: str) -> pd.Index:
    """Known labels and others, which are the known ones where they are equal."""
    own = known if known.is_unique else known.unique()
    places = _look_up_part(others, own, name)
    fresh = np.flatnonzero(places < 0)
    places[fresh] = len(own) + np.arange(len(fresh))
    both = _append(own, others[fresh]) if len(fresh) else own
    return both.take(np.concatenate([own.get_indexer(known), places]))


def _append(first: pd.Index, second: pd.Index) -> pd.Index:
    if first.dtype == object or second.dtype == object:
        # Labels may be tuples, which pandas would take apart.
        return pd.Index([*first, *second], dtype=object, tupleize_cols=False)
    if _would_round(first, second):
        exact = pd.Index([*first, *second], dtype=object)
        # Among integers pandas finds a type that has them all, or none.
        return exact if "f" in (first.dtype.kind, second.dtype.kind) else exact.infer_objects()
    return first.append(second)


def _would_round(first: pd.Index, second: pd.Index) -> bool:
    """Whether pandas would take integers for floating-point numbers that are not the same.

    It does so beside floating-point numbers, and with signed integers beside unsigned ones.
    """
    kinds = {first.dtype.kind, second.dtype.kind}
    if len(kinds) == 1 or not kinds <= set("iuf"):
        return False
    return any(
        own.dtype.kind in "iu"
        and len(own)
        and (own.max() > EXACT_INTEGERS or own.min() < -EXACT_INTEGERS)
        for own in (first, second)
    )


def look_up(labels: Labels, levels: pd.Index) -> NDArray[np.int32]:
    """Code of each row among known levels; -1 where the level is unknown."""
    if not isinstance(levels, pd.MultiIndex):
        return _look_up_part(labels.parts[0], levels, labels.name)
    known = np.zeros(len(levels), dtype=np.int64)
    found = np.zeros(len(labels.parts[0]), dtype=np.int64)
    for part, part_levels, part_codes in zip(
        labels.parts, levels.levels, levels.codes, strict=True
    ):
        codes = _look_up_part(part, part_levels, labels.name)
        is_known = (found >= 0) & (codes >= 0)
        known, distinct = pd.factorize(known * len(part_levels) + part_codes, sort=True)
        keys = found * len(part_levels) + codes
        found = np.where(is_known, pd.Index(distinct).get_indexer(keys), -1)
    # The levels are sorted by their parts' codes, so that a key is a position.
    return found.astype(np.int32)


@dataclass(frozen=True, slots=True)
class OtherKind:
    """Labels of another kind than all known ones.

    Attributes
    ----------
    kind, known_kind : str
        What the labels are, and what the known ones are.
    label, known_label : object
        One of each.
    """

    kind: str
    known_kind: str
    label: Any
    known_label: Any


def other_kind(labels: Labels, levels: pd.Index) -> OtherKind | None:
    """How the kind of labels differs from that of the levels of a factor; None if it does not.

    Of an interaction the first part is told in which they differ.
    """
    known = levels.levels if isinstance(levels, pd.MultiIndex) else [levels]
    for own_part, part_levels in zip(labels.parts, known, strict=True):
        own = own_part.unique().dropna()
        if not len(own) or not len(part_levels):
            continue
        kinds, known_kinds = _kinds(own), _kinds(part_levels)
        if not kinds & known_kinds:
            return OtherKind(_listed(kinds), _listed(known_kinds), own[0], part_levels[0])
    return None


def _kinds(values: pd.Index) -> set[str]:
    """What labels are, where labels that differ in this are never equal."""
    if isinstance(values, pd.CategoricalIndex):
        values = values.categories[values.codes]
    if values.dtype != object:
        return {_kind(values[0])}
    if values.inferred_type == "string":
        return {"text"}
    return {_kind(label) for label in values}


def _kind(label: Any) -> str:
    label = _plain(label)
    if isinstance(label, (Number, np.number)):
        return "numbers"
    if isinstance(label, datetime):
        return f"dates or times with{'out' if label.tzinfo is None else ''} a time zone"
    if isinstance(label, pd.Period):
        return f"periods of frequency {label.freqstr}"
    for own_type, name in _KIND_NAMES.items():
        if isinstance(label, own_type):
            return name
    return f"of type {type(label).__name__}"


def _listed(kinds: set[str]) -> str:
    return " and ".join(sorted(kinds))


def _look_up_part(values: pd.Index, levels: pd.Index, name: str) -> NDArray[np.int32]:
    """Place of each label among the levels; -1 where it is unknown, or missing."""
    if (missing := missing_labels(values)) is not None:
        places = np.full(len(values), -1, dtype=np.int32)
        places[~missing] = _look_up_part(in_numpy_type(values[~missing], name), levels, name)
        return places
    if isinstance(values, pd.CategoricalIndex):
        known = _look_up_part(values.categories, levels, name)
        return np.append(known, np.int32(-1))[values.codes]
    if values.dtype != levels.dtype or values.dtype == object:
        values, levels = _comparable(values, levels)
    try:
        return levels.get_indexer(values).astype(np.int32)
    except TypeError as error:
        _raise_unhashable(values, name, error)


def _comparable(values: pd.Index, levels: pd.Index) -> tuple[pd.Index, pd.Index]:
    """Labels and levels in types in which those are equal that a user would call equal.

    These are numbers of the same value, whatever holds them, true and false being one and zero; the
    same moments of time, whatever their unit, and a date and its midnight; the same text. pandas
    would parse text as dates, find a number in an interval, and tell true from one.
    """
    values, levels = _plain_index(values), _plain_index(levels)
    if values.dtype == levels.dtype:
        return values, levels
    kinds = {values.dtype.kind, levels.dtype.kind}
    if kinds == {"f"}:
        return _of_one_width(values, levels)
    if kinds <= set("iuf") and not _would_round(values, levels):
        return values, levels
    if values.inferred_type == levels.inferred_type == "string":
        # The levels stay as they are, with the table that pandas keeps of them.
        return pd.Index(values, dtype=levels.dtype), levels
    return values.astype(object), levels.astype(object)


def _plain_index(values: pd.Index) -> pd.Index:
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.dtype != object or values.inferred_type in ("string", "bytes"):
        return values
    plain = pd.Index([_plain(label) for label in values], dtype=object, tupleize_cols=False)
    # Whole numbers beside others would be rounded.
    return plain if plain.inferred_type == "mixed-integer-float" else plain.infer_objects()


def _plain(label: Any) -> Any:
    """The label itself, or one of a plainer type that equals all that a user would call equal."""
    if isinstance(label, (bool, np.bool_)):
        return int(label)
    if isinstance(label, Decimal):
        # A decimal fraction is no floating-point number, but it may be what one prints.
        return float(label) if Decimal(repr(float(label))) == label else label
    if isinstance(label, np.datetime64) or (
        isinstance(label, date) and not isinstance(label, datetime)
    ):
        return pd.Timestamp(label)
    if isinstance(label, np.timedelta64):
        return pd.Timedelta(label)
    if isinstance(label, tuple):
        return tuple(map(_plain, label))
    return label


def _of_one_width(values: pd.Index, levels: pd.Index) -> tuple[pd.Index, pd.Index]:
    """Floating-point numbers as those of the less exact type, if they are as many there."""
    dtype = min(values.to_numpy().dtype, levels.to_numpy().dtype, key=lambda own: own.itemsize)
    with np.errstate(over="ignore"):
        narrow = values.astype(dtype), levels.astype(dtype)
    is_one_to_one = narrow[1].is_unique and narrow[0].nunique() == values.nunique()
    return narrow if is_one_to_one else (values, levels)


def _raise_unhashable(values: pd.Index, name: str, error: TypeError) -> NoReturn:
    for row, label in enumerate(values):
        try:
            hash(label)
        except TypeError:
            raise TypeError(
                f"The groups of factor {name!r} hold {label!r} at row {row}: a groups argument "
                "must be made of hashable labels, such as a string or a number."
            ) from error
    raise error
