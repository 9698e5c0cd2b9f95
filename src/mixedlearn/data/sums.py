"""Cross-products: the one pass over the rows.

Notation
--------
The *basis columns* of a row are ``b = (1, x - c_x, y - c_y)``, where c is a pilot mean of the first
rows: shifting first keeps the digits that a column like 1e8 + noise would lose in its squares. With
precision weights w the sums below are

    gram     = sum_r w_r b_r b_r'                     (k + 2, k + 2)
    grouped  = sum_{r in level i} w_r z_r b_r'        (n_z, k + 2, m)        for every factor
    crossing = sum_{r in levels i, j} w_r z_r z_r'    (n_z, n_z, n_pairs)    for every two factors

where z are the basis columns that have random effects, the constant always among them (it undoes
the shift). Everything after this module is algebra on these sums; no later step sees a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csc_array

FloatArray = NDArray[np.float64]

# Enough for a mean that is near, few enough to cost nothing.
PILOT_ROWS = 1024
# Big enough that Python's share is nil, small enough that a chunk stays in the cache.
CHUNK_ENTRIES = 1 << 18
# The basis columns of so many rows are made and multiplied while a core's own cache holds them.
BASIS_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Crossing:
    """Products of the random columns of two factors, for the pairs of levels that occur together.

    Attributes
    ----------
    first, second : ndarray of shape (n_pairs,), int
        Levels of the first and of the second factor, in this order of sorting.
    products : ndarray of shape (n_z first, n_z second, n_pairs)
        Products of the z columns.
    """

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    products: FloatArray

    def turned(self, left: FloatArray, right: FloatArray) -> FloatArray:
        """Products of other columns ``z left`` and ``z right``: (q first, q second, n_pairs)."""
        return np.einsum("za,zwm,wb->abm", left, self.products, right, optimize=True)


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
    z_columns : tuple of tuple of int
        For every factor, the basis columns in ``grouped``: 0, the constant, then the columns with
        a random slope.
    grouped : tuple of ndarray of shape (n_z, k + 2, m)
        For every factor, products of its z columns with the basis columns, by level.
    crossings : dict of (int, int) to Crossing
        For every pair of factors, the first before the second.
    """

    n_rows: int
    sum_log_weights: float
    shift: FloatArray
    gram: FloatArray
    z_columns: tuple[tuple[int, ...], ...]
    grouped: tuple[FloatArray, ...]
    crossings: dict[tuple[int, int], Crossing]


def accumulate(
    X: NDArray[np.floating],
    y: FloatArray,
    codes: Sequence[NDArray[np.integer]],
    n_levels: Sequence[int],
    slope_columns: Sequence[tuple[int, ...]],
    weights: FloatArray | None = None,
    chunk_rows: int | None = None,
    shift: FloatArray | None = None,
) -> CrossProducts:
    """Form the cross-products in one pass over the rows.

    Parameters
    ----------
    X : ndarray of shape (n, k)
        Numeric columns, fixed or random.
    y : ndarray of shape (n,)
        Response.
    codes : sequence of ndarray of shape (n,), int
        For every factor, the level of each row, 0 to m - 1.
    n_levels : sequence of int
        For every factor, the number of levels, m.
    slope_columns : sequence of tuple of int
        For every factor, the columns of X with a random slope.
    weights : ndarray of shape (n,), optional
        Positive precision weights.
    chunk_rows : int, optional
        Rows per chunk; by default what keeps memory low and the cache warm.
    shift : ndarray of shape (k + 1,), optional
        That of other cross-products, to which these are to be added; by default pilot means.

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
        return _accumulate(X, y, codes, n_levels, slope_columns, weights, chunk_rows, shift)


def _accumulate(
    X: NDArray[np.floating],
    y: FloatArray,
    codes: Sequence[NDArray[np.integer]],
    n_levels: Sequence[int],
    slope_columns: Sequence[tuple[int, ...]],
    weights: FloatArray | None,
    chunk_rows: int | None,
    shift: FloatArray | None,
) -> CrossProducts:
    n, k = X.shape
    if shift is None:
        means = X[:PILOT_ROWS].mean(axis=0, dtype=float)
        shift = np.append(means, y[:PILOT_ROWS].mean(dtype=float))
    z_columns = tuple((0, *(column + 1 for column in columns)) for columns in slope_columns)
    if chunk_rows is None:
        scattered = [0 if _is_sorted(c) else m for c, m in zip(codes, n_levels, strict=True)]
        chunk_rows = _chunk_rows(n, k + 2, max(scattered, default=0))
    gram = np.zeros((k + 2, k + 2))
    totals = [np.zeros((len(z), m, k + 2)) for z, m in zip(z_columns, n_levels, strict=True)]
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
        for own_codes, own_columns, total in zip(codes, z_columns, totals, strict=True):
            # The levels of sorted rows are few in a chunk, and the product touches no others.
            first, last = own_codes[rows].min(), own_codes[rows].max() + 1
            for part_total, column in zip(total, own_columns, strict=True):
                # One entry per row: the product below is a scatter-add that needs no sort.
                indicator = csc_array(
                    (basis[:, column], own_codes[rows] - first, row_pointers[: len(basis) + 1]),
                    shape=(last - first, len(basis)),
                )
                part_total[first:last] += indicator @ basis
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
        grouped=tuple(total.transpose(0, 2, 1) for total in totals),
        crossings={
            pair: _cross(X, shift, weights, codes, n_levels, slope_columns, pair)
            for pair in combinations(range(len(codes)), 2)
        },
    )


def _cross(
    X: NDArray[np.floating],
    shift: FloatArray,
    weights: FloatArray | None,
    codes: Sequence[NDArray[np.integer]],
    n_levels: Sequence[int],
    slope_columns: Sequence[tuple[int, ...]],
    pair: tuple[int, int],
) -> Crossing:
    """Sum the products of two factors' z columns over the rows of each pair of levels."""
    i, j = pair
    weight = np.ones(len(X)) if weights is None else weights
    left, right = (
        [
            None,
            *(
                np.subtract(X[:, column], shift[column], dtype=np.float64)
                for column in slope_columns[factor]
            ),
        ]
        for factor in pair
    )
    products = []
    for z in left:
        weighted = weight if z is None else weight * z
        for w in right:
            values = weighted if w is None else weighted * w
            # The conversion adds up entries of the same pair, in linear time.
            table = coo_array((values, (codes[i], codes[j])), shape=(n_levels[i], n_levels[j]))
            compressed = table.tocsr()
            compressed.sum_duplicates()
            products.append(compressed.data)
    first = np.repeat(np.arange(n_levels[i], dtype=np.int32), np.diff(compressed.indptr))
    shape = (len(left), len(right), len(first))
    return Crossing(first, compressed.indices, np.reshape(products, shape))


def merge(
    first: CrossProducts,
    second: CrossProducts,
    places: Sequence[tuple[NDArray[np.integer], NDArray[np.integer]]],
    n_levels: Sequence[int],
) -> CrossProducts:
    """The cross-products of the rows of both, of the same columns and with the same shift.

    Parameters
    ----------
    first, second : CrossProducts
    places : sequence of (ndarray, ndarray) of int
        For every factor, the level that each level of the first, and of the second, becomes.
    n_levels : sequence of int
        For every factor, the number of levels of both together.
    """
    grouped = []
    for own, other, (own_places, other_places), m in zip(
        first.grouped, second.grouped, places, n_levels, strict=True
    ):
        total = np.zeros((*own.shape[:2], m))
        total[:, :, own_places] = own
        total[:, :, other_places] += other
        grouped.append(total)
    return CrossProducts(
        n_rows=first.n_rows + second.n_rows,
        sum_log_weights=first.sum_log_weights + second.sum_log_weights,
        shift=first.shift,
        gram=first.gram + second.gram,
        z_columns=first.z_columns,
        grouped=tuple(grouped),
        crossings={
            (i, j): _merge_crossings(
                (crossing, second.crossings[i, j]), places[i], places[j], n_levels[j]
            )
            for (i, j), crossing in first.crossings.items()
        },
    )


def _merge_crossings(
    crossings: tuple[Crossing, Crossing],
    first_places: tuple[NDArray[np.integer], NDArray[np.integer]],
    second_places: tuple[NDArray[np.integer], NDArray[np.integer]],
    n_second: int,
) -> Crossing:
    keys = [
        i[crossing.first].astype(np.int64) * n_second + j[crossing.second]
        for crossing, i, j in zip(crossings, first_places, second_places, strict=True)
    ]
    pairs, where = np.unique(np.concatenate(keys), return_inverse=True)
    products = np.zeros((*crossings[0].products.shape[:2], len(pairs)))
    bounds = np.split(where.ravel(), [len(keys[0])])
    for crossing, own in zip(crossings, bounds, strict=True):
        products[:, :, own] += crossing.products
    first, second = np.divmod(pairs, n_second)
    return Crossing(first.astype(np.int32), second.astype(np.int32), products)


def _is_sorted(codes: NDArray[np.integer]) -> bool:
    return bool((codes[1:] >= codes[:-1]).all())


def _chunk_rows(n: int, n_columns: int, n_levels: int) -> int:
    """Rows per chunk: cache-sized, but not few beside the levels, all of which a chunk touches.

    An eighth of the rows bounds the copy when there are very many levels.
    """
    cached = max(CHUNK_ENTRIES // n_columns, 1)
    return max(cached, min(n_levels // 2, n // 8))
