"""Numbers of levels that come batch by batch, in the order in which they come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.data.labels import Labels
from mixedlearn.data.levels import DENSE, LevelTable, encode, labels_of, merge_levels

Codes = NDArray[np.int32]

# So many integers from the first label to the last need no hashing, however few rows came: a table
# of 64 megabytes.
FEW_INTEGERS = 1 << 24


@dataclass(frozen=True, slots=True)
class _Numbered:
    """Some levels, in the order of `encode`, with the number of each."""

    levels: pd.Index
    codes: Codes
    table: LevelTable

    @classmethod
    def of(cls, levels: pd.Index, codes: Codes) -> _Numbered:
        return cls(levels, codes, LevelTable(levels))

    def merged(self, other: _Numbered) -> _Numbered:
        """These levels and others, none of which are the same."""
        places, other_places, levels = merge_levels(self.levels, other.levels)
        codes = np.empty(len(levels), dtype=np.int32)
        codes[places], codes[other_places] = self.codes, other.codes
        return _Numbered.of(levels, codes)


class LevelNumbers:
    """The levels of a factor so far; a new one gets the next number.

    Integers with few gaps are found in a table of all from the least to the largest. Other labels
    are kept in tables of which each has at least twice the levels of the next, so that a batch
    with new ones does not pass over all that are known.
    """

    def __init__(self) -> None:
        self._n = 0
        self._n_rows = 0
        self._first = 0
        self._direct: Codes | None = None
        self._type: Any = None
        self._tables: list[_Numbered] = []

    def __len__(self) -> int:
        return self._n

    def number(self, labels: Labels) -> Codes:
        """The number of the level of every row, new ones among them.

        Raises
        ------
        TypeError
            If a label is not hashable.
        """
        self._n_rows += len(labels.parts[0])
        if self._reaches(labels):
            return self._find_directly(labels.parts[0].to_numpy())
        self._leave_direct(labels.name)
        return self._find(labels)

    def in_order(self, labels: Labels) -> tuple[pd.Index, Codes]:
        """The levels as `encode` has them, and their numbers.

        ``labels`` are those of any rows, which have the factor's name.
        """
        self._leave_direct(labels.name)
        while len(self._tables) > 1:
            self._merge_last()
        if not self._tables:
            return encode(labels)[1][:0], np.empty(0, dtype=np.int32)
        return self._tables[0].levels, self._tables[0].codes

    def _reaches(self, labels: Labels) -> bool:
        """Whether the table of integers has a place for all labels; it is made larger if need be.

        Once there are others, it is not used again.
        """
        values = labels.parts[0]
        is_integer = isinstance(values.dtype, np.dtype) and values.dtype.kind in "iu"
        if self._tables or len(labels.parts) > 1 or not is_integer or not len(values):
            return False
        array = values.to_numpy()
        low, high = int(array.min()), int(array.max())
        if high > np.iinfo(np.int64).max:
            return False
        if self._direct is None:
            self._first, self._direct, self._type = low, np.empty(0, dtype=np.int32), values.dtype
        elif values.dtype != self._type:
            return False
        return self._make_room(low, high)

    def _make_room(self, low: int, high: int) -> bool:
        """Let the table of integers reach from one to another, if that is not too far."""
        assert self._direct is not None
        first, stop = self._first, self._first + len(self._direct)
        start, end = min(first, low), max(stop, high + 1)
        if (start, end) == (first, stop):
            return True
        most = max(DENSE * self._n_rows, FEW_INTEGERS)
        if end - start > most:
            return False
        # Farther than needed, so that labels in ascending order seldom need another table.
        room = min(len(self._direct), most - (end - start))
        end = min(end + room, np.iinfo(np.int64).max) if end > stop else end
        direct = np.full(end - start, -1, dtype=np.int32)
        direct[first - start : stop - start] = self._direct
        self._first, self._direct = start, direct
        return True

    def _find_directly(self, array: NDArray[np.integer]) -> Codes:
        assert self._direct is not None
        positions = np.subtract(array, self._first, dtype=np.int64)
        codes = self._direct[positions]
        new = codes < 0
        if new.any():
            # Of rows that share a level, the one that is left in the table names it.
            own = positions[new]
            rows = np.arange(len(own), dtype=np.int32)
            self._direct[own] = rows
            own = own[self._direct[own] == rows]
            self._direct[own] = self._next(len(own))
            codes = self._direct[positions]
        return codes

    def _leave_direct(self, name: str) -> None:
        """Keep the levels of the table of integers as others are kept."""
        if self._direct is None:
            return
        occurs = np.flatnonzero(self._direct >= 0)
        if len(occurs):
            levels = pd.Index((occurs + self._first).astype(self._type), name=name)
            self._tables.append(_Numbered.of(levels, self._direct[occurs]))
        self._direct = None

    def _find(self, labels: Labels) -> Codes:
        places, levels = encode(labels)
        codes = np.full(len(levels), -1, dtype=np.int32)
        own = labels_of(levels)
        for known in self._tables:
            missing = np.flatnonzero(codes < 0)
            if not len(missing):
                break
            found = known.table.find(own if len(missing) == len(levels) else own.rows(codes < 0))
            codes[missing] = np.where(found < 0, -1, known.codes[found])
        new = codes < 0
        if new.any():
            codes[new] = self._next(int(new.sum()))
            fresh = levels if new.all() else levels[new]
            if isinstance(fresh, pd.MultiIndex):
                fresh = fresh.remove_unused_levels()
            self._tables.append(_Numbered.of(fresh, codes[new]))
            while len(self._tables) > 1 and len(self._tables[-2].codes) < 2 * len(
                self._tables[-1].codes
            ):
                self._merge_last()
        return codes[places]

    def _merge_last(self) -> None:
        last = self._tables.pop()
        self._tables[-1] = self._tables[-1].merged(last)

    def _next(self, n_new: int) -> Codes:
        self._n += n_new
        return np.arange(self._n - n_new, self._n, dtype=np.int32)
