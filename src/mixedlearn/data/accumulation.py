"""The pass over the rows: see `sums` for what is added up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import _sparsetools

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
    """Sum the products of the basis columns, over all rows and by level.

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
    k = X.shape[1]
    gram = np.zeros((k + 2, k + 2))
    grouped = [np.zeros((len(z), m, k + 2)) for z, m in zip(z_columns, n_levels, strict=True)]
    for basis, rows in basis_chunks(X, y, weights, shift, chunk_rows):
        add_products(basis, [own[rows] for own in codes], z_columns, gram, grouped)
    return Totals(gram, tuple(total.transpose(0, 2, 1) for total in grouped))


def basis_chunks(
    X: NDArray[np.floating],
    y: FloatArray,
    weights: FloatArray | None,
    shift: FloatArray,
    chunk_rows: int | None = None,
) -> Iterator[tuple[FloatArray, slice]]:
    """Basis columns of the rows, times the roots of weights, and the rows that they belong to.

    A chunk holds until the next one.
    """
    n, k = X.shape
    if chunk_rows is None:
        chunk_rows = max(CHUNK_ENTRIES // (k + 2), 1)
    buffer = np.empty((min(chunk_rows, n), k + 2))
    root_weights = None if weights is None else np.sqrt(weights)
    for start in range(0, n, chunk_rows):
        rows = slice(start, min(start + chunk_rows, n))
        basis = buffer[: rows.stop - start]
        for part in range(0, len(basis), BASIS_ROWS):
            filled = basis[part : part + BASIS_ROWS]
            own = slice(start + part, start + part + len(filled))
            filled[:, 0] = 1.0
            np.subtract(X[own], shift[:-1], out=filled[:, 1:-1])
            np.subtract(y[own], shift[-1], out=filled[:, -1])
            if root_weights is not None:
                filled *= root_weights[own, None]
        yield basis, rows


def add_products(
    basis: FloatArray,
    codes: Sequence[NDArray[np.integer]],
    z_columns: Sequence[tuple[int, ...]],
    gram: FloatArray,
    grouped: Sequence[FloatArray],
) -> None:
    """Add the products of basis columns to those of other rows, in place.

    Parameters
    ----------
    basis : ndarray of shape (n, k + 2)
    codes : sequence of ndarray of shape (n,), int
    z_columns : sequence of tuple of int
    gram : ndarray of shape (k + 2, k + 2)
    grouped : sequence of ndarray of shape (n_z, m, k + 2)
    """
    with threads_for(BASIS_ROWS * basis.shape[1] ** 2):
        for part in range(0, len(basis), BASIS_ROWS):
            own = basis[part : part + BASIS_ROWS]
            gram += own.T @ own
        for own_codes, own_columns, total in zip(codes, z_columns, grouped, strict=True):
            _add_by_level(own_codes, basis, own_columns, total)


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
    first, last = int(codes.min()), int(codes.max()) + 1
    if (last - first) * len(basis) <= DENSE_ENTRIES:
        for part_total, column in zip(total, z_columns, strict=True):
            indicator = np.zeros((last - first, len(basis)))
            indicator[codes - first, np.arange(len(basis))] = basis[:, column]
            part_total[first:last] += indicator @ basis
        return
    # A sparse product whose left side has one entry per row, added to what is there. The public
    # one would make a matrix of all levels first.
    places = codes.astype(np.int32, copy=False)
    pointers = np.arange(len(basis) + 1, dtype=np.int32)
    for part_total, column in zip(total, z_columns, strict=True):
        # Of an array that is not contiguous the product would be added to a copy.
        assert part_total.flags.c_contiguous
        _sparsetools.csc_matvecs(
            len(part_total),
            len(basis),
            basis.shape[1],
            pointers,
            places,
            np.ascontiguousarray(basis[:, column]),
            basis.reshape(-1),
            part_total.reshape(-1),
        )


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
