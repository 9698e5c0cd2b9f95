"""Levels: the distinct labels of a factor, and the number of each row's level among them."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.data.labels import Labels

# Integer labels are dense if they span no more than so many numbers for each row.
DENSE = 4

# The largest integer up to which floating point has them all.
EXACT = 2**53

_SPECIAL_INDEXES = (pd.DatetimeIndex, pd.TimedeltaIndex, pd.PeriodIndex, pd.IntervalIndex)


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
    pairs = (
        [(known, others)]
        if not isinstance(known, pd.MultiIndex)
        else [
            (known.get_level_values(part), others.get_level_values(part))
            for part in range(known.nlevels)
        ]
    )
    joined = tuple(_join(own, other) for own, other in pairs)
    codes, levels = encode(Labels(":".join(names), joined, names))
    return codes[: len(known)], codes[len(known) :], levels


def _join(first: pd.Index, second: pd.Index) -> pd.Index:
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
        own.dtype.kind in "iu" and len(own) and (own.max() > EXACT or own.min() < -EXACT)
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


def same_as_text(labels: Labels, levels: pd.Index) -> tuple[Any, Any] | None:
    """A label and a level that are the same but for one being text; None if there are none.

    Numbers that were read as text here and as numbers there are two sets of labels, and nobody
    means that.
    """
    known = levels.levels if isinstance(levels, pd.MultiIndex) else [levels]
    for own_part, part_levels in zip(labels.parts, known, strict=True):
        own = own_part.unique()
        if len(own) == 0 or isinstance(own[0], str) == isinstance(part_levels[0], str):
            continue
        as_text = {str(level): level for level in part_levels}
        for label in own:
            if str(label) in as_text:
                return label, as_text[str(label)]
    return None


def _look_up_part(values: pd.Index, levels: pd.Index, name: str) -> NDArray[np.int32]:
    if isinstance(values, pd.CategoricalIndex):
        known = levels.get_indexer(pd.Index(values.categories))
        return np.append(known, -1)[values.codes].astype(np.int32)
    if isinstance(levels, _SPECIAL_INDEXES) and values.dtype != levels.dtype:
        # pandas would parse text as dates and find a number in an interval.
        levels, values = levels.astype(object), values.astype(object)
    if _would_round(levels, values):
        levels, values = levels.astype(object), values.astype(object)
    try:
        return levels.get_indexer(values).astype(np.int32)
    except TypeError as error:
        _raise_unhashable(values, name, error)


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
