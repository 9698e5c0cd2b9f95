"""Products of the random columns of two factors as sparse matrices, in panels of rows.

A panel is short enough for its vectors to stay in the cache between one product and the next. Two
groups of panels are what threads share out: sums over them are the same however many threads there
are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from mixedlearn.threads import one_thread

FloatArray = NDArray[np.float64]

# Rows of a panel, the most panels, and rows from which on there are two.
PANEL_ROWS, MOST_PANELS, FEW_ROWS = 1 << 16, 32, 4096
N_GROUPS = 2


def panels_of(n_rows: int) -> list[slice]:
    """Panels of so many rows, of the same size."""
    n_panels = min(-(-n_rows // PANEL_ROWS), MOST_PANELS)
    n_panels = max(n_panels, N_GROUPS if n_rows >= FEW_ROWS else 1)
    bounds = np.arange(n_panels + 1) * n_rows // n_panels
    return [slice(*pair) for pair in pairwise(bounds.tolist())]


class Pair:
    """``Z_k'Z_l`` of two factors.

    Parameters
    ----------
    first, second : ndarray of shape (n_pairs,), int
        Levels in the pairs that occur together, sorted by the first.
    values : ndarray of shape (q_k, q_l, n_pairs)
    shape : tuple of int
        m_k and m_l.

    Attributes
    ----------
    panels : list of slice
        Levels of the first factor, panel by panel.
    """

    def __init__(
        self,
        first: NDArray[np.int32],
        second: NDArray[np.int32],
        values: FloatArray,
        shape: tuple[int, int],
    ):
        self.first, self.second, self.values = first, second, values
        self.shape = shape
        self.panels = panels_of(shape[0])
        pointers = pointers_of(first, shape[0])
        self._matrices = [self._matrices_of(pointers, rows) for rows in self.panels]

    def _matrices_of(self, pointers: NDArray[np.int64], rows: slice) -> list[list[csr_array]]:
        """Matrices of a panel, for every pair of effects; they share their indices."""
        start, stop = int(pointers[rows.start]), int(pointers[rows.stop])
        own = (pointers[rows.start : rows.stop + 1] - start).astype(np.int32)
        columns, shape = self.second[start:stop], (rows.stop - rows.start, self.shape[1])
        return [
            [csr_array((part[start:stop], columns, own), shape=shape) for part in row]
            for row in self.values
        ]

    def panel_times(self, panel: int, vectors: FloatArray) -> FloatArray:
        """Products of a panel with vectors of the second factor: (q_l, m_l, c) to (q_k, n, c)."""
        return np.array(
            [
                sum(matrix @ own for matrix, own in zip(row, vectors, strict=True))
                for row in self._matrices[panel]
            ]
        )

    def add_transposed(self, panel: int, vectors: FloatArray, total: FloatArray) -> None:
        """Add products of a panel with vectors of the first factor: (q_k, n, c), (q_l, m_l, c)."""
        for row, own in zip(self._matrices[panel], vectors, strict=True):
            for matrix, part in zip(row, total, strict=True):
                part += matrix.T @ own

    def times(self, vectors: FloatArray) -> FloatArray:
        """Products with vectors of the second factor: (q_l, m_l, c) gives (q_k, m_k, c)."""
        result = np.empty((len(self.values), self.shape[0], vectors.shape[2]))

        def work(panels: Sequence[int]) -> None:
            for panel in panels:
                result[:, self.panels[panel]] = self.panel_times(panel, vectors)

        in_threads(work, groups_of(self.panels))
        return result

    def times_transposed(self, vectors: FloatArray) -> FloatArray:
        """Products with vectors of the first factor: (q_k, m_k, c) gives (q_l, m_l, c)."""

        def work(panels: Sequence[int]) -> FloatArray:
            total = np.zeros((self.values.shape[1], self.shape[1], vectors.shape[2]))
            for panel in panels:
                self.add_transposed(panel, vectors[:, self.panels[panel]], total)
            return total

        return in_sum(in_threads(work, groups_of(self.panels)))

    def turned(self) -> Pair:
        """The same with the second factor first."""
        q, q_other, _ = self.values.shape
        pointers = pointers_of(self.first, self.shape[0])
        if len(self.first) <= np.iinfo(np.int32).max:
            # The type of the columns, which are not copied then.
            pointers = pointers.astype(np.int32)
        values = np.empty((q_other, q, len(self.first)))
        for a in range(q):
            for b in range(q_other):
                parts = (self.values[a, b], self.second, pointers)
                table = csr_array(parts, shape=self.shape).tocsc()
                values[b, a] = table.data
        own = np.repeat(np.arange(self.shape[1], dtype=np.int32), np.diff(table.indptr))
        return Pair(own, table.indices.astype(np.int32, copy=False), values, self.shape[::-1])


def pointers_of(first: NDArray[np.int32], n_rows: int) -> NDArray[np.int64]:
    """Where the pairs of every row begin, and where the last end."""
    pointers = np.zeros(n_rows + 1, dtype=np.int64)
    np.cumsum(np.bincount(first, minlength=n_rows), out=pointers[1:])
    return pointers


def through(
    pairs: Sequence[Pair], middle: FloatArray, parts: Sequence[FloatArray]
) -> list[FloatArray]:
    """``A'M A v`` for pairs with the same first factor, panel by panel.

    Parameters
    ----------
    pairs : sequence of Pair
        Those of A, one for each factor that is second.
    middle : ndarray of shape (q, q, m)
        A block of M for each level of the first factor.
    parts : sequence of ndarray of shape (q_l, m_l, c)
        v by factor.
    """

    def work(panels: Sequence[int]) -> list[FloatArray]:
        totals = [np.zeros(part.shape) for part in parts]
        for panel in panels:
            spread = in_sum(
                [pair.panel_times(panel, part) for pair, part in zip(pairs, parts, strict=True)]
            )
            turned = times_blocks(middle[:, :, pairs[0].panels[panel]], spread)
            for pair, total in zip(pairs, totals, strict=True):
                pair.add_transposed(panel, turned, total)
        return totals

    found = in_threads(work, groups_of(pairs[0].panels))
    return [in_sum(list(own)) for own in zip(*found, strict=True)]


def times_blocks(blocks: FloatArray, vectors: FloatArray) -> FloatArray:
    """A block for each level times vectors: (q, r, m) and (r, m, c) give (q, m, c)."""
    if blocks.shape[:2] == (1, 1):
        return blocks[0, 0][:, None] * vectors
    return np.einsum("abm,bmc->amc", blocks, vectors)


def groups_of(panels: Sequence[slice]) -> list[range]:
    """Groups of panels, by number."""
    return [range(first, len(panels), N_GROUPS) for first in range(min(N_GROUPS, len(panels)))]


def in_sum(parts: list[FloatArray]) -> FloatArray:
    """The sum of one array or several; the first is overwritten."""
    first, *others = parts
    for other in others:
        first += other
    return first


def in_threads(work: Callable[[Any], Any], parts: Iterable[Any]) -> list[Any]:
    """Results of some work for each part, in as many threads as are allowed."""
    listed = list(parts)
    n_threads = min(one_thread.n_allowed, len(listed))
    if n_threads <= 1:
        return [work(part) for part in listed]
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(work, listed))
