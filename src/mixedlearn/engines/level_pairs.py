"""Sparse rows over the dense tail, and the products of them that an evaluation needs.

Notation
--------
A level i of an eliminated factor occurs together with few columns t of the tail (the levels, effect
by effect, of the factors that are not eliminated). Its r rows over these columns are R_i, stored as
one pattern of entries (i, t) with r values each. For coefficients ``C_i`` (s, r) by level,

    gram    sum_i R_i'C_i'C_i R_i           (T, T)
    forms   sum_i C_i R_i B R_i'C_i'        (s, s)      for a symmetric B (T, T)

Both are sums over the pairs of entries of a level. Where the pairs are few, their products are
listed once, and each is a sparse matrix times a vector; where they are many, the rows are
multiplied anew every time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

FloatArray = NDArray[np.float64]

# Up to so many pairs are listed, at 12 bytes each (and r (r + 1) / 2 lists).
MOST_LISTED_PAIRS = 10_000_000


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

    @property
    def n_pairs(self) -> int:
        """Number of pairs of entries of a level, an entry with itself among them."""
        sizes = np.diff(self.pointers).astype(np.int64)
        return int((sizes * (sizes + 1) // 2).sum())

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
    """``sum_i R_i B R_i'``, shape (r, r)."""
    r = len(rows)
    result = np.empty((r, r))
    for a in range(r):
        result[a, a] = np.vdot(gram_of_rows(pattern, rows[a : a + 1]), form)
    for a in range(r):
        for b in range(a):
            both = np.vdot(gram_of_rows(pattern, (rows[a] + rows[b])[None]), form)
            result[a, b] = result[b, a] = (both - result[a, a] - result[b, b]) / 2.0
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
        self.is_listed = pattern.n_pairs * n_lists <= MOST_LISTED_PAIRS
        self._lists = _list_pairs(pattern, rows) if self.is_listed else {}

    def gram(self, coefficients: FloatArray) -> FloatArray:
        """``sum_i R_i'C_i'C_i R_i`` for coefficients of shape (s, r, m)."""
        n = self.pattern.n_columns
        if not self.is_listed:
            return gram_of_rows(self.pattern, self.pattern.spread(coefficients, self.rows))
        total = np.zeros(n * n)
        for (a, b), pairs in self._lists.items():
            total += pairs @ np.einsum("sm,sm->m", coefficients[:, a], coefficients[:, b])
        upper = total.reshape(n, n)
        return upper + np.triu(upper, 1).T

    def forms(self, coefficients: FloatArray, form: FloatArray) -> FloatArray:
        """``sum_i C_i R_i B R_i'C_i'`` for coefficients of shape (s, r, m)."""
        if not self.is_listed:
            return forms_of_rows(self.pattern, self.pattern.spread(coefficients, self.rows), form)
        result = np.zeros((len(coefficients),) * 2)
        # The lists hold a pair once, in the upper triangle.
        doubled = (2.0 * form - np.diag(np.diag(form))).ravel()
        for (a, b), pairs in self._lists.items():
            by_level = doubled @ pairs
            part = (coefficients[:, a] * by_level) @ coefficients[:, b].T
            result += (part + part.T) / 2.0
        return result


def _list_pairs(pattern: TailPattern, rows: FloatArray) -> dict[tuple[int, int], csc_array]:
    """Products of the pairs of every level, by cell of the (T, T) matrix: a column per level.

    The list (a, b) holds what multiplies ``C_a C_b`` in both places where a and b differ.
    """
    n_entries, n = len(pattern.columns), pattern.n_columns
    partners = pattern.pointers[1:][pattern.levels] - np.arange(n_entries)
    first = np.repeat(np.arange(n_entries), partners)
    starts = np.repeat(np.cumsum(partners) - partners, partners)
    second = first + (np.arange(len(first)) - starts)
    cells = pattern.columns[first].astype(np.int64) * n + pattern.columns[second]
    if n * n < np.iinfo(np.int32).max:
        cells = cells.astype(np.int32)
    ends = np.append(0, np.cumsum(partners))[pattern.pointers]
    shape = (n * n, len(pattern.pointers) - 1)
    lists = {}
    for a in range(len(rows)):
        for b in range(a, len(rows)):
            values = rows[a][first] * rows[b][second]
            if b > a:
                values += rows[b][first] * rows[a][second]
            lists[a, b] = csc_array((values, cells, ends.astype(cells.dtype)), shape=shape)
    return lists
