"""Sums of rows that come batch by batch.

Small batches wait, and are summed up together: a pass over few rows costs more than the rows do.
What was summed up is kept in parts, which are joined as their numbers of levels grow, so that a
batch does not pass over all levels that there are.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add

import numpy as np

from mixedlearn.data.accumulation import check_squares
from mixedlearn.data.labels import Labels
from mixedlearn.data.layers import with_newest
from mixedlearn.data.levels import encode
from mixedlearn.data.rows import Rows, join_rows
from mixedlearn.data.sums import Sums

# Numbers in the rows that wait: 8 megabytes of them.
WAITING_ENTRIES = 1 << 20


@dataclass(frozen=True)
class RunningSums:
    """Sums of all rows so far.

    Further rows make another object, so that whoever holds this one sees no change.

    Attributes
    ----------
    slopes : tuple of tuple of int
        For every factor, the columns with a random slope.
    parts : tuple of Sums
        Of rows that were summed up, the oldest first.
    waiting : tuple of Rows
        Those that were not, with labels of the same types.
    weights : tuple of float
        The least and the largest weight; infinity and zero before the first row.
    """

    slopes: tuple[tuple[int, ...], ...]
    parts: tuple[Sums, ...] = field(default=())
    waiting: tuple[Rows, ...] = field(default=())
    weights: tuple[float, float] = (np.inf, 0.0)

    @property
    def rows(self) -> Rows | None:
        """All rows, if there are some and none was summed up."""
        return join_rows(self.waiting) if self.waiting and not self.parts else None

    def with_rows(self, rows: Rows) -> RunningSums:
        """The same with further rows, of which copies are kept.

        Parameters
        ----------
        rows : Rows
            With a response; those of weight zero count as absent.

        Raises
        ------
        ValueError
            If a value is not finite, or its square overflows.
        TypeError
            If a label is not hashable.
        """
        rows = rows.present()
        if not len(rows.X):
            return self
        self._check(rows)
        least, most = rows.weight_range
        weights = min(self.weights[0], least), max(self.weights[1], most)
        running = replace(self, weights=weights)
        if self.waiting and not _have_same_types(self.waiting[-1].labels, rows.labels):
            running = running.summed_up()
        n_waiting = sum(len(own.X) for own in running.waiting) + len(rows.X)
        if n_waiting * (rows.X.shape[1] + 2) < WAITING_ENTRIES:
            return replace(running, waiting=(*running.waiting, rows.copied()))
        return replace(running, waiting=(*running.waiting, rows)).summed_up()

    def with_sums(self, sums: Sums) -> RunningSums:
        """The same with the sums of further rows."""
        return replace(self, parts=with_newest(self.parts, sums, _size, add))

    def summed_up(self) -> RunningSums:
        """The same without rows that wait."""
        if not self.waiting:
            return self
        sums = Sums.of(join_rows(self.waiting), self.slopes)
        return replace(self, waiting=()).with_sums(sums)

    def total(self) -> Sums:
        """The sums of all rows.

        Raises
        ------
        ValueError
            If there are no rows, or a sum of squares overflows.
        """
        parts = self.summed_up().parts
        if not parts:
            raise ValueError("There are no rows of positive weight yet.")
        # The newest are the smallest.
        total = reduce(add, reversed(parts))
        check_squares(total.gram)
        return total

    def of_total(self, total: Sums) -> RunningSums:
        """The same with all rows in one part, which is the total."""
        return replace(self, parts=(total,), waiting=())

    def _check(self, rows: Rows) -> None:
        """Refuse now what no sum could have later."""
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.vdot(rows.X, rows.X) + rows.given_response @ rows.given_response
            squares *= 1.0 if rows.weights is None else rows.weights.max()
        if not np.isfinite(squares):
            Sums.of(rows, self.slopes)
        for own in rows.labels:
            if any(part.dtype == object and part.inferred_type != "string" for part in own.parts):
                encode(own)


def _size(sums: Sums) -> int:
    return max(sums.n_levels, default=1)


def _have_same_types(some: tuple[Labels, ...], others: tuple[Labels, ...]) -> bool:
    return all(own.has_types_of(other) for own, other in zip(some, others, strict=True))
