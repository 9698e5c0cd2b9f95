"""Sums that grow in place, batch by batch: one pass over rows that are never there at once.

Levels have numbers in the order in which they come, and the sums room for more, so that a batch
costs what its rows cost, however many levels are known. `running` has sums that others may hold
while they grow; here nobody sees them before the last batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.accumulation import add_products, basis_chunks, check_squares, pilot_means
from mixedlearn.data.cancellation import less_taken
from mixedlearn.data.crossing import Crossing, cross, merge_crossings
from mixedlearn.data.labels import Labels
from mixedlearn.data.numbering import LevelNumbers
from mixedlearn.data.rows import Rows, range_of_both
from mixedlearn.data.sums import Sums

FloatArray = NDArray[np.float64]


class GrowingSums:
    """Sums of all rows so far.

    Parameters
    ----------
    slopes : sequence of tuple of int
        For every factor, the columns with a random slope.
    taken : ndarray of shape (k + 1,), optional
        Constant and multiples of the columns to take from the response; see `sums.Sums.of`.

    Attributes
    ----------
    n_rows : int
        Number of rows so far.
    weight_range : tuple of float
        The least and the largest weight; infinity and zero before the first row.
    """

    def __init__(self, slopes: Sequence[tuple[int, ...]], taken: FloatArray | None = None):
        self.n_rows = 0
        self.weight_range = (np.inf, 0.0)
        self._slopes = tuple(slopes)
        self._z_columns = tuple((0, *(column + 1 for column in own)) for own in slopes)
        self._taken = taken
        self._numbers = [LevelNumbers() for _ in slopes]
        self._crossings: dict[tuple[int, int], list[Crossing]] = {
            pair: [] for pair in combinations(range(len(slopes)), 2)
        }
        self._sum_log_weights = 0.0
        self._response_square = 0.0
        self._labels: tuple[Labels, ...] = ()
        self._grouped: list[FloatArray] = []

    def add(self, rows: Rows) -> None:
        """Add further rows.

        Parameters
        ----------
        rows : Rows
            With a response and positive weights.

        Raises
        ------
        ValueError
            If a value is not finite, or its square overflows. The sums are of no use then.
        TypeError
            If a label is not hashable.
        """
        if not len(rows.X):
            return
        y, weights = rows.given_response, rows.weights
        if not self.n_rows:
            self._begin(rows)
        self.n_rows += len(y)
        self.weight_range = range_of_both(self.weight_range, rows.weight_range)
        pairs = zip(self._numbers, rows.labels, strict=True)
        codes = [numbers.number(labels) for numbers, labels in pairs]
        self._grouped = [
            _with_room(own, len(numbers))
            for own, numbers in zip(self._grouped, self._numbers, strict=True)
        ]
        with np.errstate(over="ignore", invalid="ignore"):
            response, shift = less_taken(rows.X, y, self._multiples, self._shift)
            for basis, own in basis_chunks(rows.X, response, weights, shift):
                of_chunk = [numbers[own] for numbers in codes]
                add_products(basis, of_chunk, self._z_columns, self._gram, self._grouped)
        check_squares(self._gram)
        self._sum_log_weights += 0.0 if weights is None else float(np.log(weights).sum())
        self._response_square += float(y @ (y if weights is None else weights * y))
        for (i, j), found in self._crossings.items():
            shape = len(self._numbers[i]), len(self._numbers[j])
            own_slopes = self._slopes[i], self._slopes[j]
            own_codes = codes[i], codes[j]
            found.append(cross(rows.X, self._shift, weights, own_codes, shape, own_slopes))
            # Of few pairs each at least twice as many as of the next, so that a batch does not
            # pass over all that are known.
            while len(found) > 1 and len(found[-2].first) < 2 * len(found[-1].first):
                found[-2:] = [_merged(found[-2:], shape)]

    def total(self) -> Sums:
        """The sums of all rows, with the levels in order.

        Raises
        ------
        ValueError
            If there are no rows.
        """
        if not self.n_rows:
            raise ValueError("There are no rows of positive weight.")
        pairs = zip(self._numbers, self._labels, strict=True)
        ordered = [numbers.in_order(labels) for numbers, labels in pairs]
        grouped = tuple(
            own[:, codes].transpose(0, 2, 1)
            for own, (_, codes) in zip(self._grouped, ordered, strict=True)
        )
        places = [np.argsort(codes).astype(np.int32) for _, codes in ordered]
        crossings = {
            (i, j): merge_crossings(
                found, [places[i]] * len(found), [places[j]] * len(found), len(places[j])
            )
            for (i, j), found in self._crossings.items()
        }
        return Sums(
            n_rows=self.n_rows,
            sum_log_weights=self._sum_log_weights,
            levels=tuple(levels for levels, _ in ordered),
            shift=self._shift,
            taken=self._multiples,
            response_square=self._response_square,
            gram=self._gram,
            z_columns=self._z_columns,
            grouped=grouped,
            crossings=crossings,
            is_reduced=self._taken is not None,
        )

    def _begin(self, rows: Rows) -> None:
        n_basis = rows.X.shape[1] + 2
        with np.errstate(over="ignore", invalid="ignore"):
            self._shift = pilot_means(rows.X, rows.given_response, rows.weights)
        self._multiples = np.zeros(n_basis - 2)
        if self._taken is not None:
            self._shift[-1], self._multiples = self._taken[0], self._taken[1:]
        self._gram = np.zeros((n_basis, n_basis))
        self._grouped = [np.zeros((len(z), 0, n_basis)) for z in self._z_columns]
        self._labels = rows.labels


def sums_of_batches(
    batches: Iterable[Rows], slopes: Sequence[tuple[int, ...]], taken: FloatArray | None = None
) -> Sums:
    """Sum up rows that come batch by batch; see `GrowingSums`."""
    sums = GrowingSums(slopes, taken)
    for rows in batches:
        sums.add(rows)
    return sums.total()


def _with_room(grouped: FloatArray, n_levels: int) -> FloatArray:
    """Sums by level, (n_z, m, k + 2), with zeros for further levels, more than there are."""
    n_z, n_before, n_basis = grouped.shape
    if n_levels <= n_before:
        return grouped
    # Pages that no level has come to yet take no memory.
    larger = np.zeros((n_z, max(n_levels, 2 * n_before), n_basis))
    larger[:, :n_before] = grouped
    return larger


def _merged(crossings: Sequence[Crossing], shape: tuple[int, int]) -> Crossing:
    first, second = (np.arange(size, dtype=np.int32) for size in shape)
    n = len(crossings)
    return merge_crossings(crossings, [first] * n, [second] * n, shape[1])
