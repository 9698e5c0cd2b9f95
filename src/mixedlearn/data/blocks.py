"""Blocks: rows whose noise is correlated, level by level, and levels that look alike.

Rows of one level of the *series* factor have correlated noise. A *block* holds the rows that share
anything, noise or random effects. Where the series and all random effects have the same levels, a
block is a level, and many blocks have the same *pattern*: the same occasions, with the same
covariance whatever the parameters are. Such blocks need not be kept one by one: any rows with the
same sums of products do (`pooled`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]

# Sets of occasions that are larger are not laid out as one table.
MOST_PLACES = 64


@dataclass(frozen=True, slots=True)
class BlockSet:
    """Blocks in one table of places.

    Attributes
    ----------
    is_there : ndarray of shape (n_patterns, T), bool
        The places that a pattern has.
    members : tuple of ndarray of shape (n_blocks of the pattern, places of the pattern), int
        The rows of the blocks of every pattern, in the order of the places.
    example : ndarray of shape (T,) or (n_patterns, T), int
        A row for each place: what the covariance depends on is the same for all rows of a place.
        One for all patterns, or one for each, which then has one block.
    """

    is_there: NDArray[np.bool_]
    members: tuple[IntArray, ...]
    example: IntArray

    @property
    def is_shared(self) -> bool:
        """Whether all patterns share the places."""
        return self.example.ndim == 1

    @property
    def counts(self) -> FloatArray:
        """How many blocks have the pattern, shape (n_patterns,)."""
        return np.array([len(own) for own in self.members], dtype=float)


def find_blocks(codes: Sequence[IntArray]) -> IntArray:
    """The block of every row: rows that share a level of any factor are in one.

    Parameters
    ----------
    codes : sequence of ndarray of shape (n,), int
        The levels of the rows, for every factor.
    """
    blocks = np.asarray(codes[0])
    for own in codes[1:]:
        shape = (int(blocks.max()) + 1, int(own.max()) + 1)
        _, found = connected_components(_table(blocks, own, shape), directed=False)
        blocks = found[blocks]
    return blocks


def numbered(columns: NDArray[Any]) -> IntArray:
    """The number of every row among the distinct ones, in their order."""
    numbers = np.zeros(len(columns), dtype=np.int64)
    for column in columns.T:
        # Renumbered at every column, the combinations stay below n^2.
        codes, values = pd.factorize(column, sort=True)
        numbers, _ = pd.factorize(numbers * len(values) + codes, sort=True)
    return numbers


def _table(left: IntArray, right: IntArray, shape: tuple[int, int]) -> coo_array:
    n = shape[0] + shape[1]
    return coo_array((np.ones(len(left)), (left, shape[0] + right)), shape=(n, n))


def make_sets(blocks: IntArray, order: IntArray, cells: FloatArray | None) -> list[BlockSet]:
    """Sort blocks into tables.

    Parameters
    ----------
    blocks : ndarray of shape (n,), int
        The block of every row.
    order : ndarray of shape (n,), int
        The rows in the order in which a block is to hold them, block by block.
    cells : ndarray of shape (n, c) or None
        What the covariance of a row with others of its block depends on; None where that is
        nowhere the same.
    """
    sorted_blocks = blocks[order]
    starts = np.flatnonzero(np.append(True, sorted_blocks[1:] != sorted_blocks[:-1]))
    sizes = np.diff(np.append(starts, len(order)))
    alone = np.ones(len(starts), bool)
    found: list[BlockSet] = []
    if cells is not None:
        cell = numbered(cells)[order]
        number = np.repeat(np.arange(len(starts)), sizes)
        shape = (len(starts), int(cell.max()) + 1)
        _, components = connected_components(_table(number, cell, shape), directed=False)
        for component in range(int(components.max()) + 1):
            own = np.flatnonzero(components[: len(starts)] == component)
            places = np.flatnonzero(components[len(starts) :] == component)
            if len(own) > 1 and len(places) <= MOST_PLACES:
                shared = _shared_set(order, starts[own], sizes[own], cell, places)
                if shared is not None:
                    found.append(shared)
                    alone[own] = False
    for size in np.unique(sizes[alone]):
        rows = order[starts[alone & (sizes == size)][:, None] + np.arange(size)]
        there = np.ones(rows.shape, bool)
        found.append(BlockSet(there, tuple(row[None] for row in rows), rows))
    return found


def _shared_set(
    order: IntArray, starts: IntArray, sizes: IntArray, cell: IntArray, places: IntArray
) -> BlockSet | None:
    """Blocks in one table of places; None if a block has two rows in a place."""
    place_of = np.full(int(places.max()) + 1, -1)
    place_of[places] = np.arange(len(places))
    there = np.zeros((len(starts), len(places)), bool)
    rows = np.full((len(starts), len(places)), -1, dtype=np.intp)
    for size in np.unique(sizes):
        own = np.flatnonzero(sizes == size)
        position = starts[own][:, None] + np.arange(size)
        column = place_of[cell[position]]
        if (np.diff(np.sort(column, axis=1), axis=1) == 0).any():
            return None
        there[own[:, None], column] = True
        rows[own[:, None], column] = order[position]
    # Eight places in a byte, and eight bytes in a number.
    packed = np.packbits(there, axis=1)
    packed = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8))).view(np.int64)
    number = numbered(packed)
    patterns = there[np.unique(number, return_index=True)[1]]
    members = tuple(rows[number == pattern][:, mask] for pattern, mask in enumerate(patterns))
    return BlockSet(patterns, members, rows.max(axis=0))


def pooled(blocks: FloatArray) -> FloatArray:
    """Few blocks with the same sum of products of their entries as many.

    Columns that are equal in all blocks, as indicators of the occasion and covariates of the level
    are, count once. No square is taken.

    Parameters
    ----------
    blocks : ndarray of shape (n, m, b)
        The m rows of n blocks.

    Returns
    -------
    pooled : ndarray of shape (n_pooled, m, b)
    """
    n, m, b = blocks.shape
    if n <= m:
        # Every place has columns of its own.
        return blocks
    flat = blocks.reshape(n, m * b)
    marks = np.random.default_rng(0).standard_normal((2, n)) @ flat
    _, first, found = np.unique(marks[0], return_index=True, return_inverse=True)
    which = np.asarray(found).ravel()
    if not np.array_equal(marks[1], marks[1][first][which]):
        first, which = np.arange(m * b), np.arange(m * b)
    distinct = flat[:, first]
    if n <= len(first) or not np.array_equal(distinct[:, which], flat):
        return blocks
    triangle = np.asarray(np.linalg.qr(distinct, mode="r"))
    return triangle[:, which].reshape(-1, m, b)
