"""New responses for the rows of a fit: cross-products of which only the response changes.

The rows' columns are kept, weighted, in the form in which a response needs them: a dense matrix for
the basis columns, a sparse one for the z columns of all levels. Responses come as columns of a
matrix, many at a time; they count from the pilot mean of the fit's response (`cross_products`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from mixedlearn.data.sums import CrossProducts, accumulate
from mixedlearn.specification import Specification

FloatArray = NDArray[np.float64]

# Cross-products of the same rows differ by rounding error: by less than this share.
SAME = 1e-8


@dataclass(frozen=True, slots=True)
class ResponseSums:
    """What cross-products have of n responses.

    Attributes
    ----------
    columns : ndarray of shape (k + 1, n)
        Products with the constant and the columns.
    squares : ndarray of shape (n,)
        Squares of the responses.
    grouped : tuple of ndarray of shape (n_z, m, n)
        For every factor, products with the z columns, by level.
    """

    columns: FloatArray
    squares: FloatArray
    grouped: tuple[FloatArray, ...]


class ResponseColumns:
    """The rows of a fit, ready for new responses.

    Parameters
    ----------
    products : CrossProducts
        Those of the fit.
    X : ndarray of shape (n, k)
        Numeric columns.
    codes : sequence of ndarray of shape (n,), int
        For every factor, the level of each row.
    weights : ndarray of shape (n,), optional
        Positive precision weights.
    """

    def __init__(
        self,
        products: CrossProducts,
        X: NDArray[np.floating],
        codes: Sequence[NDArray[np.integer]],
        weights: FloatArray | None,
    ):
        self.products = products
        self.weights = weights
        basis = np.column_stack([np.ones(len(X)), X - products.shift[:-1]])
        if weights is not None:
            basis *= weights[:, None]
        self._columns = np.ascontiguousarray(basis.T)
        self._levels = [
            _level_sums(basis[:, list(z)], code, grouped.shape[2])
            for z, code, grouped in zip(products.z_columns, codes, products.grouped, strict=True)
        ]

    def sums(self, responses: FloatArray) -> ResponseSums:
        """Sums of responses of shape (n_rows, n)."""
        squares = np.square(responses)
        if self.weights is not None:
            squares *= self.weights[:, None]
        grouped = [
            (levels @ responses).reshape(len(z), -1, responses.shape[1])
            for z, levels in zip(self.products.z_columns, self._levels, strict=True)
        ]
        return ResponseSums(self._columns @ responses, squares.sum(axis=0), tuple(grouped))

    def products_of(
        self, sums: ResponseSums, number: int, trend: FloatArray | None = None
    ) -> CrossProducts:
        """The cross-products of the rows with one of the responses.

        Parameters
        ----------
        sums : ResponseSums
        number : int
            Which response.
        trend : ndarray of shape (k + 1,), optional
            A combination of the constant and the columns that is added to the response.
        """
        gram = self.products.gram.copy()
        add = np.zeros(len(gram) - 1) if trend is None else trend
        columns, known = sums.columns[:, number], gram[:-1, :-1]
        gram[:-1, -1] = gram[-1, :-1] = columns + known @ add
        gram[-1, -1] = sums.squares[number] + add @ (2.0 * columns + known @ add)
        grouped = [own.copy() for own in self.products.grouped]
        for own, new in zip(grouped, sums.grouped, strict=True):
            own[:, -1] = new[:, :, number] + np.einsum("zbm,b->zm", own[:, :-1], add)
        return replace(self.products, gram=gram, grouped=tuple(grouped))


def _level_sums(z: FloatArray, codes: NDArray[np.integer], n_levels: int) -> csr_array:
    """The matrix that sums rows times z columns by level, shape (n_z m, n)."""
    n, n_z = z.shape
    places = codes[:, None] + n_levels * np.arange(n_z)
    rows = np.repeat(np.arange(n), n_z)
    return csr_array((z.ravel(), (places.ravel(), rows)), shape=(n_z * n_levels, n))


def check_same_rows(
    products: CrossProducts,
    specification: Specification,
    X: NDArray[np.floating],
    codes: Sequence[NDArray[np.integer]],
    weights: FloatArray | None,
) -> None:
    """Refuse rows that are not those of a fit; their order does not matter.

    Raises
    ------
    ValueError
        If their number or their cross-products differ.
    """
    if len(X) != products.n_rows:
        raise ValueError(
            f"X has {len(X)} rows (of positive weight), but the model was fitted to "
            f"{products.n_rows}: pass the rows of the fit."
        )
    own = accumulate(
        X,
        np.zeros(len(X)),
        codes,
        [grouped.shape[2] for grouped in products.grouped],
        [factor.slopes for factor in specification.factors],
        weights,
        shift=np.append(products.shift[:-1], 0.0),
    )
    sizes = np.sqrt(np.diag(products.gram))[:-1]
    differs = np.abs(own.gram - products.gram)[:-1, :-1] > SAME * np.outer(sizes, sizes)
    is_same = not differs.any()
    for z, ours, theirs in zip(own.z_columns, own.grouped, products.grouped, strict=True):
        bound = SAME * np.outer(sizes[list(z)], sizes)[:, :, None]
        is_same = is_same and not (np.abs(ours - theirs)[:, :-1] > bound).any()
    for pair, crossing in own.crossings.items():
        other = products.crossings[pair]
        is_same = is_same and np.array_equal(crossing.first, other.first)
        is_same = is_same and np.array_equal(crossing.second, other.second)
    if not is_same:
        raise ValueError(
            "X, groups and sample_weight are not those of the fit: their cross-products differ. "
            "Pass the rows that the model was fitted to, in any order."
        )
