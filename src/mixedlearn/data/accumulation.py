"""The pass over the rows: see `sums` for what is added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from mixedlearn.threads import threads_for

FloatArray = NDArray[np.float64]

# Enough for a mean that is near, few enough to cost nothing.
PILOT_ROWS = 1024
# Big enough that Python's share is nil, small enough that a chunk stays in the cache.
CHUNK_ENTRIES = 1 << 18
# With so few rows and levels a dense matrix is made sooner than a sparse one.
DENSE_ENTRIES = 1 << 13
# The basis columns of so many rows are made and multiplied while a core's own cache holds them.
BASIS_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Totals:
    """What one pass adds up.

    Attributes
    ----------
    gram : ndarray of shape (k + 2, k + 2)
    grouped : tuple of ndarray of shape (n_z, k + 2, m)
        One for every factor.
    """

    gram: FloatArray
    grouped: tuple[FloatArray, ...]


def pilot_means(
    X: NDArray[np.floating], y: FloatArray, weights: FloatArray | None = None
) -> FloatArray:
    """Weighted means of the first rows of the columns and of the response, shape (k + 1,).

    Rows of little weight may be far from those that make up the sums.
    """
    if not len(X):
        return np.zeros(X.shape[1] + 1)
    if weights is None:
        means = X[:PILOT_ROWS].mean(axis=0, dtype=float)
        return np.append(means, y[:PILOT_ROWS].mean(dtype=float))
    shares = weights[:PILOT_ROWS] / weights[:PILOT_ROWS].max()
    shares /= shares.sum()
    return np.append(shares @ X[:PILOT_ROWS], shares @ y[:PILOT_ROWS])


def add_up(
    X: NDArray[np.floating],
    y: FloatArray,
    codes: Sequence[NDArray[np.integer]],
    n_levels: Sequence[int],
    z_columns: Sequence[tuple[int, ...]],
    weights: FloatArray | None,
    shift: FloatArray,
    chunk_rows: int | None = None,
) -> Totals:
    """Add up the products of the basis columns, over all rows and by level.

    Parameters
    ----------
    X : ndarray of shape (n, k)
    y : ndarray of shape (n,)
    codes : sequence of ndarray of shape (n,), int
        For every factor, the level of each row, 0 to m - 1.
    n_levels : sequence of int
        For every factor, the number of levels, m.
    z_columns : sequence of tuple of int
        For every factor, the basis columns with random effects.
    weights : ndarray of shape (n,) or None
    shift : ndarray of shape (k + 1,)
    chunk_rows : int, optional
        Rows per chunk; by default what keeps memory low and the cache warm.
    """
    n, k = X.shape
    if chunk_rows is None:
        scattered = [0 if _is_sorted(c) else m for c, m in zip(codes, n_levels, strict=True)]
        chunk_rows = _chunk_rows(n, k + 2, max(scattered, default=0))
    gram = np.zeros((k + 2, k + 2))
    totals = [np.zeros((len(z), m, k + 2)) for z, m in zip(z_columns, n_levels, strict=True)]
    buffer = np.empty((min(chunk_rows, n), k + 2))
    root_weights = None if weights is None else np.sqrt(weights)
    chunks = [slice(start, min(start + chunk_rows, n)) for start in range(0, n, chunk_rows)]
    with threads_for(BASIS_ROWS * (k + 2) ** 2):
        for rows in chunks:
            basis = buffer[: rows.stop - rows.start]
            for part in range(0, len(basis), BASIS_ROWS):
                filled = basis[part : part + BASIS_ROWS]
                own = slice(rows.start + part, rows.start + part + len(filled))
                filled[:, 0] = 1.0
                np.subtract(X[own], shift[:-1], out=filled[:, 1:-1])
                np.subtract(y[own], shift[-1], out=filled[:, -1])
                if root_weights is not None:
                    filled *= root_weights[own, None]
                gram += filled.T @ filled
            for own_codes, own_columns, total in zip(codes, z_columns, totals, strict=True):
                _add_by_level(own_codes[rows], basis, own_columns, total)
    return Totals(gram, tuple(total.transpose(0, 2, 1) for total in totals))


def add_up_basis(
    basis: FloatArray,
    codes: Sequence[NDArray[np.integer]],
    n_levels: Sequence[int],
    z_columns: Sequence[tuple[int, ...]],
) -> Totals:
    """The same of basis columns that are there, shape (n, k + 2)."""
    totals = [
        np.zeros((len(z), m, basis.shape[1])) for z, m in zip(z_columns, n_levels, strict=True)
    ]
    for own_codes, own_columns, total in zip(codes, z_columns, totals, strict=True):
        _add_by_level(own_codes, basis, own_columns, total)
    return Totals(basis.T @ basis, tuple(total.transpose(0, 2, 1) for total in totals))


def _add_by_level(
    codes: NDArray[np.integer], basis: FloatArray, z_columns: Sequence[int], total: FloatArray
) -> None:
    """Add the products of z columns with all basis columns of some rows to those of their levels.

    Parameters
    ----------
    codes : ndarray of shape (n,), int
    basis : ndarray of shape (n, k + 2)
    z_columns : sequence of int
    total : ndarray of shape (n_z, m, k + 2)
        Added to in place.
    """
    # The levels of sorted rows are few in a chunk, and the product touches no others.
    first, last = int(codes.min()), int(codes.max()) + 1
    places, shape = codes - first, (last - first, len(basis))
    pointers = np.arange(len(basis) + 1, dtype=np.int32)
    for part_total, column in zip(total, z_columns, strict=True):
        # One entry per row: the product below is a scatter-add that needs no sort.
        entries = basis[:, column]
        if shape[0] * shape[1] <= DENSE_ENTRIES:
            indicator = np.zeros(shape)
            indicator[places, pointers[:-1]] = entries
            part_total[first:last] += indicator @ basis
        else:
            scatter = csc_array((entries, places, pointers), shape=shape)
            part_total[first:last] += scatter @ basis


def check_squares(gram: FloatArray) -> None:
    """Refuse sums that are not finite.

    Raises
    ------
    ValueError
        If a value is not finite, or its square overflows.
    """
    if np.isfinite(gram).all():
        return
    column = int(np.argmin(np.isfinite(np.diag(gram)))) - 1
    is_response = column == len(gram) - 2
    name = "the response" if is_response else f"the numeric column at position {column}"
    raise ValueError(
        f"The squares of {name} are not finite: they are too large for floating point. Divide "
        "it by a constant."
    )


def _is_sorted(codes: NDArray[np.integer]) -> bool:
    return bool((codes[1:] >= codes[:-1]).all())


def _chunk_rows(n: int, n_columns: int, n_levels: int) -> int:
    """Rows per chunk: cache-sized, but not few beside the levels, all of which a chunk touches.

    An eighth of the rows bounds the copy when there are very many levels.
    """
    cached = max(CHUNK_ENTRIES // n_columns, 1)
    return max(cached, min(n_levels // 2, n // 8))
