"""Sparse rows over the dense tail, and the products of them that an evaluation needs.

Notation
--------
A level i of an eliminated factor occurs together with few columns t of the tail (the levels, effect
by effect, of the factors that are not eliminated). Its r rows over these columns are R_i, stored as
one pattern of entries (i, t) with r values each. For coefficients ``C_i`` (s, r) by level,

    gram    sum_i R_i'C_i'C_i R_i           (T, T)
    forms   sum_i C_i R_i B R_i'C_i'        (s, s)      for a symmetric B (T, T)

Both are done by blocks of rows, so that neither needs a second matrix of shape (T, T), and are sums
over the pairs of entries of a level. The products of the pairs can be listed once,
and each sum is then a sparse matrix times a vector. With power-law data the columns that occur most
often make most of the pairs: they are taken as dense columns instead, for which BLAS is faster than
any list, and only the pairs of the others are listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from mixedlearn.engines.elimination.dense import row_blocks

FloatArray = NDArray[np.float64]
# Some rows of a symmetric matrix from the diagonal on: which ones, and (b, T) zero before it.
UpperRows = tuple[slice, FloatArray]
# Gives some rows of a symmetric matrix in full, shape (b, T).
RowsOf = Callable[[slice], FloatArray]

# Up to so many pairs are listed, at 12 bytes each (and r (r + 1) / 2 lists).
MOST_LISTED_PAIRS = 12_000_000
# Nanoseconds for a pair of the list (its making shared among a few uses), an entry times a dense
# column, a row times two dense columns, and a cell of (T, T) that is moved where there are any.
LISTED_COST, MIXED_COST, DENSE_COST, MOVED_COST = 8.0, 1.0, 0.012, 5.0
# Entries from which the numbers of pairs are estimated.
SAMPLE_ENTRIES = 200_000
# Numbers of a chunk of dense rows.
CHUNK_ENTRIES = 1 << 22


@dataclass(frozen=True, slots=True)
class TailPattern:
    """Which columns of the tail each level occurs with.

    Attributes
    ----------
    pointers : ndarray of shape (m + 1,), int
        Where the entries of each level begin.
    columns : ndarray of shape (n_entries,), int
        Column of the tail of each entry, ascending within a level.
    levels : ndarray of shape (n_entries,), int
        Level of each entry.
    n_columns : int
        T, the number of columns of the tail.
    """

    pointers: NDArray[np.int32]
    columns: NDArray[np.int32]
    levels: NDArray[np.int32]
    n_columns: int

    def matrix(self, values: FloatArray) -> csr_array:
        """The rows with these values, one for each entry: sparse, of shape (m, T)."""
        shape = (len(self.pointers) - 1, self.n_columns)
        return csr_array((values, self.columns, self.pointers), shape=shape)

    def spread(self, coefficients: FloatArray, rows: FloatArray) -> FloatArray:
        """``C_i R_i``: (s, r, m) and (r, n_entries) give (s, n_entries)."""
        result = np.zeros((len(coefficients), len(self.columns)))
        for own, row in zip(result, coefficients, strict=True):
            for coefficient, values in zip(row, rows, strict=True):
                own += coefficient[self.levels] * values
        return result


def gram_of_rows(pattern: TailPattern, rows: FloatArray) -> Iterator[UpperRows]:
    """``sum_i R_i'R_i`` for rows of shape (r, n_entries)."""
    matrices = [pattern.matrix(values) for values in rows]
    transposed = [csr_array(matrix.T) for matrix in matrices]
    for own in row_blocks(pattern.n_columns):
        total = np.zeros((own.stop - own.start, pattern.n_columns))
        for left, right in zip(transposed, matrices, strict=True):
            total += (left[own] @ right).toarray()
        yield own, np.triu(total, own.start)


def forms_of_rows(pattern: TailPattern, rows: FloatArray, form: RowsOf) -> FloatArray:
    """``sum_i R_i B R_i'``, shape (r, r), for a symmetric B."""
    matrices = [pattern.matrix(values) for values in rows]
    transposed = [csr_array(matrix.T) for matrix in matrices]
    result = np.zeros((len(rows), len(rows)))
    for own in row_blocks(pattern.n_columns):
        part = form(own)
        for a, left in enumerate(transposed):
            for b, right in enumerate(matrices[: a + 1]):
                result[a, b] += (left[own] @ right).multiply(part).sum()
    return result + np.tril(result, -1).T


class TailRows:
    """The rows of the levels that are eliminated first: they do not depend on theta.

    Parameters
    ----------
    pattern : TailPattern
    rows : ndarray of shape (r, n_entries)
    """

    def __init__(self, pattern: TailPattern, rows: FloatArray):
        self.pattern = pattern
        self.rows = rows
        n_lists = len(rows) * (len(rows) + 1) // 2
        is_dense = dense_columns(pattern, MOST_LISTED_PAIRS // max(n_lists, 1))
        self._dense = self._part(np.flatnonzero(is_dense))
        self._listed = self._part(np.flatnonzero(~is_dense))
        self._blocks = [self._block(own) for own in row_blocks(pattern.n_columns)]

    @property
    def n_dense(self) -> int:
        """Number of columns that are taken as dense."""
        return len(self._dense.columns)

    def _part(self, columns: NDArray[np.intp]) -> _Part:
        """The entries in some columns."""
        pattern = self.pattern
        place = np.full(pattern.n_columns, -1, dtype=np.int32)
        place[columns] = np.arange(len(columns))
        places = place[pattern.columns]
        entries = np.flatnonzero(places >= 0)
        levels = pattern.levels[entries]
        sizes = np.bincount(levels, minlength=len(pattern.pointers) - 1)
        pointers = np.append(0, np.cumsum(sizes)).astype(np.int32)
        own = TailPattern(pointers, places[entries], levels, len(columns))
        return _Part(columns, own, self.rows[:, entries])

    def _block(self, own: slice) -> _Block:
        dense, listed = self._dense.within(own), self._listed.within(own)
        return _Block(own, dense, listed, _list_pairs(self._listed, own, self.pattern.n_columns))

    def gram(self, coefficients: FloatArray) -> Iterator[UpperRows]:
        """``sum_i R_i'C_i'C_i R_i`` for coefficients of shape (s, r, m)."""
        dense, listed = self._dense.columns, self._listed.columns
        squares, mixed = self._dense_products(
            coefficients, [(s, s) for s in range(len(coefficients))]
        )
        for block, square in zip(self._blocks, squares, strict=True):
            start, stop = block.own.start, block.own.stop
            rows = np.zeros((stop - start, self.pattern.n_columns))
            for (a, b), pairs in block.lists.items():
                weights = np.einsum("sm,sm->m", coefficients[:, a], coefficients[:, b])
                rows += (pairs @ weights).reshape(rows.shape)
            if self.n_dense:
                own = dense[block.dense] - start
                rows[np.ix_(own, dense[block.dense.start :])] = square
                rows[np.ix_(own, listed)] = mixed[:, block.dense].T
                rows[np.ix_(listed[block.listed] - start, dense)] = mixed[block.listed]
                rows = np.triu(rows, start)
            yield block.own, rows

    def forms(self, coefficients: FloatArray, form: RowsOf) -> FloatArray:
        """``sum_i C_i R_i B R_i'C_i'`` for coefficients of shape (s, r, m) and a symmetric B."""
        n_forms = len(coefficients)
        result = self._listed_forms(coefficients, form)
        if self.n_dense:
            for a in range(n_forms):
                for b in range(a + 1):
                    result[a, b] += self._dense_form(coefficients[[a, b]], a == b, form)
                    result[b, a] = result[a, b]
        return result

    def _listed_forms(self, coefficients: FloatArray, form: RowsOf) -> FloatArray:
        """The part of the listed columns with each other."""
        by_level = {
            key: np.zeros(coefficients.shape[2]) for block in self._blocks for key in block.lists
        }
        for block in self._blocks:
            if not block.lists:
                continue
            # The lists hold a pair once, in the upper triangle.
            doubled = 2.0 * form(block.own)
            doubled[:, block.own].flat[:: len(doubled) + 1] *= 0.5
            for key, pairs in block.lists.items():
                by_level[key] += doubled.ravel() @ pairs
        result = np.zeros((len(coefficients),) * 2)
        for (a, b), values in by_level.items():
            part = (coefficients[:, a] * values) @ coefficients[:, b].T
            result += (part + part.T) / 2.0
        return result

    def _dense_form(self, coefficients: FloatArray, is_square: bool, form: RowsOf) -> float:
        """The part of the dense columns with all columns, for two coefficients, shape (2, r, m)."""
        dense, listed = self._dense.columns, self._listed.columns
        if is_square:
            squares, mixed = self._dense_products(coefficients[:1], [(0, 0)])
        else:
            squares, mixed = self._dense_products(coefficients, [(0, 1), (1, 0)])
        total = 0.0
        for block, square in zip(self._blocks, squares, strict=True):
            n_own = len(square)
            if not n_own:
                continue
            rows = form(block.own)[dense[block.dense] - block.own.start]
            inner = rows[:, dense[block.dense.start :]]
            total += 2.0 * np.vdot(square, inner) - np.vdot(square[:, :n_own], inner[:, :n_own])
            total += 2.0 * np.vdot(mixed[:, block.dense].T, rows[:, listed])
        return total if is_square else total / 2.0

    def _dense_products(
        self, coefficients: FloatArray, pairs: Sequence[tuple[int, int]]
    ) -> tuple[list[FloatArray], FloatArray]:
        """``sum_i R_i'C_a'C_b R_i`` over some pairs (a, b), symmetric in sum, of the dense columns.

        Returns the products of the dense columns of every block with those from its first one on,
        and of the listed columns with the dense ones.
        """
        n_dense = self.n_dense
        later = [slice(block.dense.start, n_dense) for block in self._blocks]
        squares = [
            np.zeros((block.dense.stop - block.dense.start, n_dense - block.dense.start))
            for block in self._blocks
        ]
        mixed = np.zeros((len(self._listed.columns), n_dense))
        if not n_dense:
            return squares, mixed
        for dense, sparse in self._chunks(coefficients):
            for a, b in pairs:
                for block, rest, square in zip(self._blocks, later, squares, strict=True):
                    square += dense[a][:, block.dense].T @ dense[b][:, rest]
                    mixed[:, block.dense] += sparse[a].T @ dense[b][:, block.dense]
        return squares, mixed

    def _chunks(
        self, coefficients: FloatArray
    ) -> Iterator[tuple[list[FloatArray], list[csr_array]]]:
        """``C_i R_i`` for chunks of levels, split into dense and listed columns."""
        dense, listed = (
            [part.pattern.matrix(row) for row in part.pattern.spread(coefficients, part.rows)]
            for part in (self._dense, self._listed)
        )
        n_levels = len(self.pattern.pointers) - 1
        size = max(CHUNK_ENTRIES // self.n_dense, 1)
        for start in range(0, n_levels, size):
            own = slice(start, start + size)
            yield [matrix[own].toarray() for matrix in dense], [matrix[own] for matrix in listed]


@dataclass(frozen=True, slots=True)
class _Part:
    """Some columns of the tail's rows: which ones, ascending, and their pattern and rows."""

    columns: NDArray[np.intp]
    pattern: TailPattern
    rows: FloatArray

    def within(self, own: slice) -> slice:
        """Which of these columns stand among those of a block."""
        return slice(*np.searchsorted(self.columns, [own.start, own.stop]).tolist())


@dataclass(frozen=True, slots=True)
class _Block:
    """A block of the tail's columns: the dense and the listed ones in it, and their lists."""

    own: slice
    dense: slice
    listed: slice
    lists: dict[tuple[int, int], csc_array]


def dense_columns(pattern: TailPattern, most_pairs: int) -> NDArray[np.bool_]:
    """Which columns to take as dense, shape (T,): the most frequent ones, so many as pay.

    Parameters
    ----------
    pattern : TailPattern
    most_pairs : int
        Most pairs of entries of the other columns.
    """
    n, m = pattern.n_columns, len(pattern.pointers) - 1
    frequency = np.bincount(pattern.columns, minlength=n)
    order = np.argsort(-frequency, kind="stable")
    rank = np.empty(n, dtype=np.intp)
    rank[order] = np.arange(n)
    step = len(pattern.columns) // SAMPLE_ENTRIES + 1
    sampled = pattern.levels % step == 0
    levels, ranks = pattern.levels[sampled], rank[pattern.columns[sampled]]
    costs = {}
    for n_dense in {0, *np.geomspace(1, max(n, 1), 24).astype(int).tolist(), n}:
        n_entries, n_pairs = _count(levels[ranks >= n_dense], m)
        cost = LISTED_COST * step * n_pairs + MIXED_COST * step * n_entries * n_dense
        cost += DENSE_COST * m * n_dense**2 + (MOVED_COST * n**2 if n_dense else 0.0)
        costs[n_dense] = cost
    for n_dense in sorted(costs, key=lambda number: (costs[number], number)):
        # The limit is kept by all entries, not by the sample.
        if _count(pattern.levels[rank[pattern.columns] >= n_dense], m)[1] <= most_pairs:
            break
    return rank < n_dense


def _count(levels: NDArray[np.int32], n_levels: int) -> tuple[int, int]:
    """Number of entries and of pairs of entries in the same level."""
    sizes = np.bincount(levels, minlength=n_levels).astype(np.int64)
    return len(levels), int((sizes * (sizes + 1) // 2).sum())


def _list_pairs(part: _Part, own: slice, n: int) -> dict[tuple[int, int], csc_array]:
    """Products of the pairs of every level whose first column is in a block, by cell of its rows.

    A column for each level. The list (a, b) holds what multiplies ``C_a C_b`` in both places where
    a and b differ. There are no lists where no pair is in the block.
    """
    pattern, rows, within = part.pattern, part.rows, part.within(own)
    is_within = (pattern.columns >= within.start) & (pattern.columns < within.stop)
    entry = np.flatnonzero(is_within).astype(np.int32)
    if not len(entry):
        return {}
    partners = pattern.pointers[1:][pattern.levels[entry]] - entry
    stops = np.append(0, np.cumsum(partners))
    first = np.repeat(entry, partners)
    second = np.repeat((entry - stops[:-1]).astype(np.int32), partners)
    second += np.arange(len(first), dtype=np.int32)
    columns = part.columns.astype(np.int32)
    cells = columns[pattern.columns[first]] - own.start
    cells *= n
    cells += columns[pattern.columns[second]]
    ends = stops[np.searchsorted(entry, pattern.pointers)].astype(np.int32)
    shape = ((own.stop - own.start) * n, len(pattern.pointers) - 1)
    lists = {}
    for a in range(len(rows)):
        for b in range(a, len(rows)):
            values = rows[a][first] * rows[b][second]
            if b > a:
                values += rows[b][first] * rows[a][second]
            lists[a, b] = csc_array((values, cells, ends), shape=shape)
    return lists
