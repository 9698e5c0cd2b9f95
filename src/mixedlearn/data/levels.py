"""Levels: the distinct labels of a factor, and the number of each row's level among them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from numbers import Number
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.data.labels import Labels, in_numpy_type, missing_labels
from mixedlearn.data.numbers import EXACT_INTEGERS

# Integer labels are dense if they span no more than so many numbers for each row.
DENSE = 4

# Types of text that keep their names from one version of pandas to the next.
_TEXT_TYPES = ("str", "string")

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
        places = _PartTable(known).find(others, names[0])
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
    places = _PartTable(own).find(others, name)
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
    return _has_large(first) or _has_large(second)


def _has_large(values: pd.Index) -> bool:
    """Whether there are integers that a floating-point number may not hold."""
    return bool(
        values.dtype.kind in "iu"
        and len(values)
        and (values.max() > EXACT_INTEGERS or values.min() < -EXACT_INTEGERS)
    )


def look_up(labels: Labels, levels: pd.Index) -> NDArray[np.int32]:
    """Code of each row among known levels; -1 where the level is unknown."""
    return LevelTable(levels).find(labels)


def labels_of(levels: pd.Index) -> Labels:
    """The levels of a factor as labels, one for each."""
    names = tuple(map(str, levels.names))
    if not isinstance(levels, pd.MultiIndex):
        return Labels(names[0], (levels,), names)
    parts = tuple(levels.get_level_values(part) for part in range(levels.nlevels))
    return Labels(":".join(names), parts, names)


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


def pack_levels(levels: pd.Index) -> dict[str, Any]:
    """The levels as arrays and text, which every version of pandas and other formats can read.

    Those of other types of pandas stay as they are.
    """
    if isinstance(levels, pd.MultiIndex):
        parts = [pack_levels(own.rename(None)) for own in levels.levels]
        codes = [np.asarray(own) for own in levels.codes]
        return {"names": list(levels.names), "parts": parts, "codes": codes}
    if levels.dtype == object:
        values: Any = levels.to_list()
    elif isinstance(levels.dtype, np.dtype):
        values = np.asarray(levels)
    elif str(levels.dtype) in _TEXT_TYPES:
        values = np.asarray(levels, dtype=object).tolist()
    else:
        return {"index": levels}
    return {"name": levels.name, "values": values, "type": str(levels.dtype)}


def unpack_levels(packed: dict[str, Any]) -> pd.Index:
    """The levels that `pack_levels` has packed."""
    if "index" in packed:
        return packed["index"]
    if "parts" in packed:
        return pd.MultiIndex(
            levels=[unpack_levels(own) for own in packed["parts"]],  # type: ignore[misc]
            codes=packed["codes"],
            names=packed["names"],
        )
    values, dtype, name = packed["values"], packed["type"], packed["name"]
    return pd.Index(values, dtype=dtype, name=name, tupleize_cols=False)


class LevelTable:
    """The levels of a factor, prepared for look-ups.

    Passing over all levels is done once, at the first look-up that needs it, so that further ones
    take a time that does not depend on their number. Threads may share a table.

    Parameters
    ----------
    levels : pandas.Index
        As `encode` gives them.
    """

    def __init__(self, levels: pd.Index):
        self._levels = levels
        parts = levels.levels if isinstance(levels, pd.MultiIndex) else [levels]
        self._parts = [_PartTable(part) for part in parts]

    def find(self, labels: Labels) -> NDArray[np.int32]:
        """Code of each row; -1 where the level is unknown."""
        found = self._parts[0].find(labels.parts[0], labels.name)
        if len(self._parts) == 1:
            return found
        found = found.astype(np.int64)
        beside = zip(self._parts[1:], labels.parts[1:], self._combinations, strict=True)
        for table, part, combinations in beside:
            codes = table.find(part, labels.name)
            is_known = (found >= 0) & (codes >= 0)
            keys = found * len(table) + codes
            found = np.where(is_known, combinations.get_indexer(pd.Index(keys)), -1)
        # The levels are sorted by their parts' codes, so that a key is a position.
        return found.astype(np.int32)

    @cached_property
    def _combinations(self) -> list[pd.Index]:
        """For every part but the first, the keys of its combinations with those before it."""
        assert isinstance(self._levels, pd.MultiIndex)
        tables: list[pd.Index] = []
        known = self._levels.codes[0].astype(np.int64)
        for table, codes in zip(self._parts[1:], self._levels.codes[1:], strict=True):
            known, distinct = pd.factorize(known * len(table) + codes, sort=True)
            tables.append(_prepared(pd.Index(distinct)))
        return tables

    def other_kind(self, labels: Labels) -> OtherKind | None:
        """How the kind of labels differs from that of the levels; None if it does not.

        Of an interaction the first part is told in which they differ.
        """
        for own_part, table in zip(labels.parts, self._parts, strict=True):
            own = own_part.unique().dropna()
            if not len(own) or not len(table):
                continue
            kinds = _kinds(own)
            if not kinds & table.kinds:
                return OtherKind(_listed(kinds), _listed(table.kinds), own[0], table.first)
        return None


class _PartTable:
    """Distinct labels of one column, prepared for look-ups of labels in any type."""

    def __init__(self, levels: pd.Index):
        self._levels = levels
        self._in_types: dict[Any, pd.Index] = {}

    def __len__(self) -> int:
        return len(self._levels)

    @property
    def first(self) -> Any:
        """One of the labels."""
        return self._levels[0]

    @cached_property
    def kinds(self) -> set[str]:
        """What the labels are."""
        return _kinds(self._levels)

    @cached_property
    def _plain(self) -> pd.Index:
        return _plain_index(self._levels)

    @cached_property
    def _has_large(self) -> bool:
        return _has_large(self._plain)

    def find(self, values: pd.Index, name: str) -> NDArray[np.int32]:
        """Place of each label; -1 where it is unknown, or missing."""
        if (missing := missing_labels(values)) is not None:
            places = np.full(len(values), -1, dtype=np.int32)
            places[~missing] = self.find(in_numpy_type(values[~missing], name), name)
            return places
        if isinstance(values, pd.CategoricalIndex):
            categories, codes = values.categories, values.codes
            if len(codes) < len(categories):
                # One row may come with the categories of a million.
                used = np.unique(codes[codes >= 0])
                categories = categories[used]
                codes = np.where(codes < 0, -1, np.searchsorted(used, codes))
            return np.append(self.find(categories, name), np.int32(-1))[codes]
        if values.dtype == self._levels.dtype and values.dtype != object:
            levels = self._in_type(values.dtype, self._levels)
        else:
            values, levels = self._comparable(values)
        try:
            return levels.get_indexer(values).astype(np.int32)
        except TypeError as error:
            _raise_unhashable(values, name, error)

    def _comparable(self, values: pd.Index) -> tuple[pd.Index, pd.Index]:
        """Labels and levels in one type, in which those are equal that a user would call equal.

        These are numbers of the same value, whatever holds them, true and false being one and zero;
        the same moments of time, whatever their unit, and a date and its midnight; the same text.
        pandas would parse text as dates, find a number in an interval, and tell true from one.
        """
        values, levels = _plain_index(values), self._plain
        if values.dtype == levels.dtype:
            return values, self._in_type(levels.dtype)
        kinds = {values.dtype.kind, levels.dtype.kind}
        common: Any
        if kinds <= set("iuf"):
            if kinds == {"f"}:
                common = self._common_width(values)
            elif len(kinds) > 1 and (self._has_large or _has_large(values)):
                common = np.dtype(object)
            else:
                common = np.promote_types(values.to_numpy().dtype, levels.to_numpy().dtype)
        elif values.inferred_type == levels.inferred_type == "string":
            # The levels stay as they are.
            common = levels.dtype
        else:
            common = np.dtype(object)
        with np.errstate(over="ignore"):
            return pd.Index(values, dtype=common, tupleize_cols=False), self._in_type(common)

    def _common_width(self, values: pd.Index) -> np.dtype:
        """The less exact type of floating-point numbers, if they are as many there."""
        types = values.to_numpy().dtype, self._plain.to_numpy().dtype
        narrow, wide = sorted(types, key=lambda own: own.itemsize)
        with np.errstate(over="ignore"):
            n_distinct = values.astype(narrow).nunique()
            is_one_to_one = self._in_type(narrow).is_unique and n_distinct == values.nunique()
        return narrow if is_one_to_one else wide

    def _in_type(self, dtype: Any, levels: pd.Index | None = None) -> pd.Index:
        """The levels in a type, with the table that pandas keeps of them.

        ``levels`` are those to convert, by default the plain ones.
        """
        if dtype not in self._in_types:
            converted = pd.Index(self._plain if levels is None else levels, dtype=dtype)
            self._in_types[dtype] = _prepared(converted)
        return self._in_types[dtype]


def _prepared(index: pd.Index) -> pd.Index:
    """The same labels with a table of their own, which is complete.

    pandas makes the table at the first look-up and lets other threads see it half-made.
    """
    own = pd.Index(index, tupleize_cols=False)
    if own.is_unique:
        own.get_indexer(own[:1])
    return own


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
    if isinstance(label, np.float16):  # of which pandas has no index
        return float(label)
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
