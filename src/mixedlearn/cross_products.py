"""Cross-products: the one pass over the rows.

Notation
--------
The *basis columns* of a row are ``b = (1, x - c_x, y - c_y)``, where c is a pilot mean of the first
rows: shifting first keeps the digits that a column like 1e8 + noise would lose in its squares. With
precision weights w the sums below are

    gram     = sum_r w_r b_r b_r'                     (k + 2, k + 2)
    grouped  = sum_{r in level i} w_r z_r b_r'        (n_z, k + 2, m)

where z are the basis columns that have random effects, the constant always among them (it undoes
the shift). Everything after this module is algebra on these sums; no later step sees a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

FloatArray = NDArray[np.float64]

# Enough for a mean that is near, few enough to cost nothing.
PILOT_ROWS = 1024
# Big enough that Python's share is nil, small enough that a chunk stays in the cache.
CHUNK_ENTRIES = 1 << 18
# The basis columns of so many rows are made and multiplied while a core's own cache holds them.
BASIS_ROWS = 4096


@dataclass(frozen=True, slots=True)
class CrossProducts:
    """Sums over rows that determine the likelihood.

    Attributes
    ----------
    n_rows : int
        Number of rows (of positive weight).
    sum_log_weights : float
        Sum of the logarithms of the weights.
    shift : ndarray of shape (k + 1,)
        Pilot means of the k columns and of the response.
    gram : ndarray of shape (k + 2, k + 2)
        Products of all basis columns: constant, k columns, response.
    z_columns : tuple of int
        Basis columns in ``grouped``: 0, the constant, then the columns with a random slope. Empty
        without a factor.
    grouped : ndarray of shape (len(z_columns), k + 2, m)
        Products of the z columns with the basis columns, by level.
    """

    n_rows: int
    sum_log_weights: float
    shift: FloatArray
    gram: FloatArray
    z_columns: tuple[int, ...]
    grouped: FloatArray


def accumulate(
    X: NDArray[np.floating],
    y: FloatArray,
    codes: NDArray[np.integer] | None,
    n_levels: int,
    slope_columns: tuple[int, ...],
    weights: FloatArray | None = None,
    chunk_rows: int | None = None,
) -> CrossProducts:
    """Form the cross-products in one pass over the rows.

    Parameters
    ----------
    X : ndarray of shape (n, k)
        Numeric columns, fixed or random.
    y : ndarray of shape (n,)
        Response.
    codes : ndarray of shape (n,), int, or None
        Level of each row, 0 to ``n_levels - 1``; None without a grouping factor.
    n_levels : int
        Number of levels, m.
    slope_columns : tuple of int
        Columns of X with a random slope.
    weights : ndarray of shape (n,), optional
        Positive precision weights.
    chunk_rows : int, optional
        Rows per chunk; by default what keeps memory low and the cache warm.

    Returns
    -------
    CrossProducts

    Raises
    ------
    ValueError
        If a value is not finite, or its square overflows.
    """
    # Values that are not finite are told from the sums, once and for all.
    with np.errstate(over="ignore", invalid="ignore"):
        return _accumulate(X, y, codes, n_levels, slope_columns, weights, chunk_rows)


def _accumulate(
    X: NDArray[np.floating],
    y: FloatArray,
    codes: NDArray[np.integer] | None,
    n_levels: int,
    slope_columns: tuple[int, ...],
    weights: FloatArray | None,
    chunk_rows: int | None,
) -> CrossProducts:
    n, k = X.shape
    shift = np.append(X[:PILOT_ROWS].mean(axis=0, dtype=float), y[:PILOT_ROWS].mean(dtype=float))
    z_columns = () if codes is None else (0, *(column + 1 for column in slope_columns))
    if chunk_rows is None:
        chunk_rows = _chunk_rows(n, k + 2, 0 if _is_sorted(codes) else n_levels)
    gram = np.zeros((k + 2, k + 2))
    totals = np.zeros((len(z_columns), n_levels, k + 2))
    buffer = np.empty((min(chunk_rows, n), k + 2))
    row_pointers = np.arange(len(buffer) + 1, dtype=np.int32)
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
            gram += filled.T @ filled
        if codes is None:
            continue
        # The levels of sorted rows are few in a chunk, and the product touches no others.
        first, last = codes[rows].min(), codes[rows].max() + 1
        for total, column in zip(totals, z_columns, strict=True):
            # One entry per row: the product below is a scatter-add that needs no sort.
            indicator = csc_array(
                (basis[:, column], codes[rows] - first, row_pointers[: len(basis) + 1]),
                shape=(last - first, len(basis)),
            )
            total[first:last] += indicator @ basis
    if not np.isfinite(gram).all():
        column = int(np.argmin(np.isfinite(np.diag(gram)))) - 1
        name = "the response" if column == k else f"the numeric column at position {column}"
        raise ValueError(
            f"The squares of {name} are not finite: they are too large for floating point. Divide "
            "it by a constant."
        )
    return CrossProducts(
        n_rows=n,
        sum_log_weights=0.0 if weights is None else float(np.log(weights).sum()),
        shift=shift,
        gram=gram,
        z_columns=z_columns,
        grouped=totals.transpose(0, 2, 1),
    )


def _is_sorted(codes: NDArray[np.integer] | None) -> bool:
    return codes is None or bool((codes[1:] >= codes[:-1]).all())


def _chunk_rows(n: int, n_columns: int, n_levels: int) -> int:
    """Rows per chunk: cache-sized, but not few beside the levels, all of which a chunk touches.

    An eighth of the rows bounds the copy when there are very many levels.
    """
    cached = max(CHUNK_ENTRIES // n_columns, 1)
    return max(cached, min(n_levels // 2, n // 8))
