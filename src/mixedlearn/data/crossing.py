"""Products of the random columns of two factors, for the pairs of levels that occur together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

FloatArray = NDArray[np.float64]
Places = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Crossing:
    """Products of two factors' z columns (see `sums`).

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

    def restricted(self, left: list[int] | slice, right: list[int] | slice) -> Crossing:
        """The products of some of the z columns."""
        return replace(self, products=self.products[left][:, right])


def cross(
    X: NDArray[np.floating],
    shift: FloatArray,
    weights: FloatArray | None,
    codes: tuple[Places, Places],
    shape: tuple[int, int],
    slopes: tuple[Sequence[int], Sequence[int]],
) -> Crossing:
    """Sum the products of two factors' z columns over the rows of each pair of levels.

    Parameters
    ----------
    X : ndarray of shape (n, k)
    shift : ndarray of shape (k + 1,)
    weights : ndarray of shape (n,) or None
    codes : tuple of ndarray of shape (n,), int
        Levels of the rows in both factors.
    shape : tuple of int
        Numbers of levels.
    slopes : tuple of sequence of int
        Columns of X with a random slope.
    """
    weight = np.ones(len(X)) if weights is None else weights
    left, right = (
        [
            None,
            *(np.subtract(X[:, column], shift[column], dtype=np.float64) for column in columns),
        ]
        for columns in slopes
    )
    weighted = [weight if z is None else weight * z for z in left]
    return _sum_pairs(weighted, right, codes, shape)


def cross_basis(
    basis: FloatArray,
    codes: tuple[Places, Places],
    shape: tuple[int, int],
    z_columns: tuple[Sequence[int], Sequence[int]],
) -> Crossing:
    """The same of basis columns that are there, shape (n, k + 2)."""
    left, right = ([basis[:, column] for column in columns] for columns in z_columns)
    return _sum_pairs(left, right, codes, shape)


def _sum_pairs(
    left: Sequence[FloatArray],
    right: Sequence[FloatArray | None],
    codes: tuple[Places, Places],
    shape: tuple[int, int],
) -> Crossing:
    """Sum the products of columns, None being the constant, over the rows of each pair."""
    products = []
    for z in left:
        for w in right:
            values = z if w is None else z * w
            # The conversion adds up entries of the same pair, in linear time.
            compressed = coo_array((values, codes), shape=shape).tocsr()
            compressed.sum_duplicates()
            products.append(compressed.data)
    first = np.repeat(np.arange(shape[0], dtype=np.int32), np.diff(compressed.indptr))
    return Crossing(
        first, compressed.indices, np.reshape(products, (len(left), len(right), len(first)))
    )


def merge_crossings(
    crossings: Sequence[Crossing],
    first_places: Sequence[Places],
    second_places: Sequence[Places],
    n_second: int,
) -> Crossing:
    """The sum of crossings whose levels become others.

    Parameters
    ----------
    crossings : sequence of Crossing
        At least one.
    first_places, second_places : sequence of ndarray of int
        What the levels of the first, and of the second, factor become in each crossing.
    n_second : int
        Number of levels of the second factor.
    """
    keys = [
        i[crossing.first].astype(np.int64) * n_second + j[crossing.second]
        for crossing, i, j in zip(crossings, first_places, second_places, strict=True)
    ]
    pairs, where = np.unique(np.concatenate(keys), return_inverse=True)
    products = np.zeros((*crossings[0].products.shape[:2], len(pairs)))
    ends = np.cumsum([len(own) for own in keys])
    for crossing, own in zip(crossings, np.split(where.ravel(), ends[:-1]), strict=True):
        products[:, :, own] += crossing.products
    first, second = np.divmod(pairs, n_second)
    return Crossing(first.astype(np.int32), second.astype(np.int32), products)
