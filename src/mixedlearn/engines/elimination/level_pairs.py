"""Sparse rows over the dense tail, and the products of them that an evaluation needs.

Notation
--------
A level i of an eliminated factor occurs together with few columns t of the tail (the levels, effect
by effect, of the factors that are not eliminated). Its r rows over these columns are R_i, stored as
one pattern of entries (i, t) with r values each. For coefficients ``C_i`` (s, r) by level,

    gram    sum_i R_i'C_i'C_i R_i           (T, T)
    forms   sum_i C_i R_i B R_i'C_i'        (s, s)      for a symmetric B (T, T)

Both are sums over the pairs of entries of a level. The products of the pairs can be listed once,
and each sum is then a sparse matrix times a vector. With power-law data the columns that occur most
often make most of the pairs: they are taken as dense columns instead, for which BLAS is faster than
any list, and only the pairs of the others are listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from mixedlearn.engines.elimination.dense import mirror_upper

FloatArray = NDArray[np.float64]

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


def gram_of_rows(pattern: TailPattern, rows: FloatArray) -> FloatArray:
    """``sum_i R_i'R_i``, shape (T, T), for rows of shape (r, n_entries)."""
    total = np.zeros((pattern.n_columns, pattern.n_columns))
    for values in rows:
        matrix = pattern.matrix(values)
        total += (matrix.T @ matrix).toarray()
    return total


def forms_of_rows(pattern: TailPattern, rows: FloatArray, form: FloatArray) -> FloatArray:
    """``sum_i R_i B R_i'``, shape (r, r), for a symmetric B."""
    matrices = [pattern.matrix(values) for values in rows]
    result = np.empty((len(rows), len(rows)))
    for a, left in enumerate(matrices):
        for b, right in enumerate(matrices[: a + 1]):
            result[a, b] = result[b, a] = (left.T @ right).multiply(form).sum()
    return result


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
        dense = dense_columns(pattern, MOST_LISTED_PAIRS // max(n_lists, 1))
        # The dense columns first, each part in its old order.
        self._order = np.argsort(~dense, kind="stable")
        self._place = np.argsort(self._order)
        self.n_dense = int(dense.sum())
        is_dense = dense[pattern.columns]
        self._dense = self._part(np.flatnonzero(is_dense), 0, self.n_dense)
        self._listed = self._part(np.flatnonzero(~is_dense), self.n_dense, pattern.n_columns)
        self._lists = _list_pairs(self._listed.pattern, self._listed.rows)

    def _part(self, entries: NDArray[np.intp], first: int, last: int) -> _Part:
        """The entries of the columns first to last of the new order."""
        levels = self.pattern.levels[entries]
        sizes = np.bincount(levels, minlength=len(self.pattern.pointers) - 1)
        columns = (self._place[self.pattern.columns[entries]] - first).astype(np.int32)
        pointers = np.append(0, np.cumsum(sizes)).astype(np.int32)
        return _Part(TailPattern(pointers, columns, levels, last - first), self.rows[:, entries])

    def gram(self, coefficients: FloatArray) -> FloatArray:
        """``sum_i R_i'C_i'C_i R_i`` for coefficients of shape (s, r, m)."""
        d, n = self.n_dense, self.pattern.n_columns
        cells = np.zeros((n - d) ** 2)
        for (a, b), pairs in self._lists.items():
            cells += pairs @ np.einsum("sm,sm->m", coefficients[:, a], coefficients[:, b])
        listed = cells.reshape(n - d, n - d)
        mirror_upper(listed)
        if not d:
            return listed
        result = np.zeros((n, n))
        result[d:, d:] = listed
        for own in coefficients:
            for dense, sparse in self._chunks(own[None]):
                result[:d, :d] += dense[0].T @ dense[0]
                result[d:, :d] += sparse[0].T @ dense[0]
        result[:d, d:] = result[d:, :d].T
        return result[np.ix_(self._place, self._place)]

    def forms(self, coefficients: FloatArray, form: FloatArray) -> FloatArray:
        """``sum_i C_i R_i B R_i'C_i'`` for coefficients of shape (s, r, m)."""
        d = self.n_dense
        result = np.zeros((len(coefficients),) * 2)
        if d:
            form = form[np.ix_(self._order, self._order)]
        # The lists hold a pair once, in the upper triangle.
        doubled = 2.0 * form[d:, d:].ravel()
        doubled[:: len(form) - d + 1] *= 0.5
        for (a, b), pairs in self._lists.items():
            part = (coefficients[:, a] * (doubled @ pairs)) @ coefficients[:, b].T
            result += (part + part.T) / 2.0
        if not d:
            return result
        for dense, sparse in self._chunks(coefficients):
            for a in range(len(coefficients)):
                for b in range(a, len(coefficients)):
                    both = np.vdot(dense[a].T @ dense[b], form[:d, :d])
                    mixed = sparse[a].T @ dense[b]
                    mixed += mixed if a == b else sparse[b].T @ dense[a]
                    both += np.vdot(mixed, form[d:, :d])
                    result[a, b] += both
                    result[b, a] = result[a, b]
        return result

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
    """Some columns of the tail's rows."""

    pattern: TailPattern
    rows: FloatArray


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


def _list_pairs(pattern: TailPattern, rows: FloatArray) -> dict[tuple[int, int], csc_array]:
    """Products of the pairs of every level, by cell of the (T, T) matrix: a column per level.

    The list (a, b) holds what multiplies ``C_a C_b`` in both places where a and b differ.
    """
    n_entries, n = len(pattern.columns), pattern.n_columns
    entry = np.arange(n_entries, dtype=np.int32)
    partners = pattern.pointers[1:][pattern.levels] - entry
    stops = np.append(0, np.cumsum(partners, dtype=np.int64))
    first = np.repeat(entry, partners)
    second = np.repeat((entry - stops[:-1]).astype(np.int32), partners)
    second += np.arange(len(first), dtype=np.int32)
    cells = pattern.columns[first]
    ends = stops[pattern.pointers]
    if n * n < np.iinfo(np.int32).max:
        ends = ends.astype(np.int32)
    else:
        cells = cells.astype(np.int64)
    cells *= n
    cells += pattern.columns[second]
    shape = (n * n, len(pattern.pointers) - 1)
    lists = {}
    for a in range(len(rows)):
        for b in range(a, len(rows)):
            values = rows[a][first] * rows[b][second]
            if b > a:
                values += rows[b][first] * rows[a][second]
            lists[a, b] = csc_array((values, cells, ends), shape=shape)
    return lists
