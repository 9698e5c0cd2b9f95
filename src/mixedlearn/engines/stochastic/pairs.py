"""Products of the random columns of two factors as sparse matrices, in blocks of rows.

The blocks are what threads share out. Their number does not depend on the number of threads, so
that sums over them are the same whatever it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from mixedlearn.threads import one_thread

FloatArray = NDArray[np.float64]

# Blocks of rows of a large matrix, and entries from which on it is large.
N_BLOCKS = 2
LARGE_ENTRIES = 200_000


class Pair:
    """``Z_k'Z_l`` of two factors.

    Parameters
    ----------
    first, second : ndarray of shape (n_pairs,), int
        Levels in the pairs that occur together, sorted by the first.
    values : ndarray of shape (q_k, q_l, n_pairs)
    shape : tuple of int
        m_k and m_l.
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
        self.n_effects = values.shape[:2]
        pointers = np.zeros(shape[0] + 1, dtype=np.int64)
        np.cumsum(np.bincount(first, minlength=shape[0]), out=pointers[1:])
        n_blocks = N_BLOCKS if len(first) >= LARGE_ENTRIES else 1
        shares = len(first) * np.arange(1, n_blocks) // n_blocks
        bounds = [0, *np.searchsorted(pointers, shares).tolist(), shape[0]]
        self._rows = [slice(*pair) for pair in pairwise(bounds)]
        self._blocks = [self._block(pointers, rows) for rows in self._rows]

    def _block(self, pointers: NDArray[np.int64], rows: slice) -> list[list[csr_array]]:
        """Matrices of some rows, for every pair of effects; they share their indices."""
        start, stop = int(pointers[rows.start]), int(pointers[rows.stop])
        own = (pointers[rows.start : rows.stop + 1] - start).astype(np.int32)
        columns, shape = self.second[start:stop], (rows.stop - rows.start, self.shape[1])
        return [
            [csr_array((part[start:stop], columns, own), shape=shape) for part in row]
            for row in self.values
        ]

    def times(self, vectors: FloatArray) -> FloatArray:
        """Products with vectors of the second factor: (q_l, m_l, c) gives (q_k, m_k, c)."""
        result = np.empty((self.n_effects[0], self.shape[0], vectors.shape[2]))

        def work(part: tuple[slice, list[list[csr_array]]]) -> None:
            rows, block = part
            for a, matrices in enumerate(block):
                result[a, rows] = sum(
                    matrix @ own for matrix, own in zip(matrices, vectors, strict=True)
                )

        in_threads(work, zip(self._rows, self._blocks, strict=True))
        return result

    def times_transposed(self, vectors: FloatArray) -> FloatArray:
        """Products with vectors of the first factor: (q_k, m_k, c) gives (q_l, m_l, c)."""

        def work(part: tuple[slice, list[list[csr_array]]]) -> FloatArray:
            rows, block = part
            columns = zip(*block, strict=True)
            return np.array(
                [
                    sum(matrix.T @ own[rows] for matrix, own in zip(matrices, vectors, strict=True))
                    for matrices in columns
                ]
            )

        first, *others = in_threads(work, zip(self._rows, self._blocks, strict=True))
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
