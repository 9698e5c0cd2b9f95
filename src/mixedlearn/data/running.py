"""Sums of rows that come batch by batch.

A pass over few rows costs more than the rows do, and sums of few rows are not added to those of
many levels in less than a pass over these. So batches wait until they take as much memory as the
sums do, and are summed up together: the time is in proportion to the rows, however many levels
there are.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from mixedlearn.data.accumulation import check_squares
from mixedlearn.data.labels import Labels
from mixedlearn.data.levels import encode
from mixedlearn.data.rows import Rows, join_rows, range_of_both
from mixedlearn.data.sums import Sums
from mixedlearn.threads import one_thread

# Numbers in rows that may wait whatever the sums are: 16 megabytes of them.
WAITING_ENTRIES = 1 << 21


@dataclass(frozen=True)
class RunningSums:
    """Sums of all rows so far.

    Further rows make another object, so that whoever holds this one sees no change. It can be
    pickled.

    Attributes
    ----------
    slopes : tuple of tuple of int
        For every factor, the columns with a random slope.
    sums : Sums or None
        Of the rows that were summed up.
    weights : tuple of float
        The least and the largest weight of all rows; infinity and zero before the first.
    waiting : tuple of Rows
        The rows that were not, with labels of the same types.
    n_waiting : int
        Their number.
    """

    slopes: tuple[tuple[int, ...], ...]
    sums: Sums | None = None
    weights: tuple[float, float] = (np.inf, 0.0)
    waiting: tuple[Rows, ...] = field(default=())
    n_waiting: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there was no row of positive weight."""
        return self.sums is None and not self.waiting

    @property
    def rows(self) -> Rows | None:
        """All rows, if there are some and none was summed up."""
        return join_rows(self.waiting) if self.waiting and self.sums is None else None

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
        before = self
        if self.waiting and not _have_same_types(self.waiting[-1].labels, rows.labels):
            before = self.summed_up()
        n_waiting = before.n_waiting + len(rows.X)
        may_wait = max(WAITING_ENTRIES, 0 if before.sums is None else before.sums.n_numbers)
        waits = n_waiting * (rows.X.shape[1] + 2) < may_wait
        running = RunningSums(
            self.slopes,
            before.sums,
            range_of_both(self.weights, rows.weight_range),
            (*before.waiting, rows.copied() if waits else rows),
            n_waiting,
        )
        return running if waits else running.summed_up()

    def summed_up(self) -> RunningSums:
        """The same without rows that wait."""
        if not self.waiting:
            return self
        with one_thread:
            sums = self._with_sums_of(join_rows(self.waiting))
        return replace(self, sums=sums, waiting=(), n_waiting=0)

    def total(self) -> Sums:
        """The sums of all rows.

        Raises
        ------
        ValueError
            If there are no rows, or a sum of squares overflows.
        """
        total = self.summed_up().sums
        if total is None:
            raise ValueError("There are no rows of positive weight yet.")
        return total

    def _with_sums_of(self, rows: Rows) -> Sums:
        known = self.sums
        if known is None:
            return Sums.of(rows, self.slopes)
        if known.is_reduced:
            # The fit that they are of took from the response what squares have no digits for.
            further = Sums.of(rows, self.slopes, like=known)
        else:
            further = Sums.of(rows, self.slopes, shift=known.shift_for(rows))
        total = known + further
        check_squares(total.gram)
        return total

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


def _have_same_types(some: tuple[Labels, ...], others: tuple[Labels, ...]) -> bool:
    return all(own.has_types_of(other) for own, other in zip(some, others, strict=True))
