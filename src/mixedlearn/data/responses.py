"""New responses for the rows of a fit: sums of which only the response changes.

The rows' columns are kept, weighted, in the form in which a response needs them: a dense matrix for
the basis columns, a sparse one for the z columns of all levels. Responses come as columns of a
matrix, many at a time; they count from the shift of the fit's response (`sums`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from mixedlearn.data.rows import CodedRows
from mixedlearn.data.sums import Sums

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ResponseSums:
    """What sums have of n responses.

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

    def products(self, columns: FloatArray) -> FloatArray:
        """Products with columns in basis coordinates that have no part in the response: (c, n)."""
        return columns[:-1].T @ self.columns

    def level_products(self, k: int, to_rows: FloatArray) -> FloatArray:
        """Products by level with ``to_rows`` of shape (r, n_z, m) of the z columns: (r, n, m)."""
        return np.einsum("rzm,zmn->rnm", to_rows, self.grouped[k])


class ResponseColumns:
    """The rows of a fit, ready for new responses.

    Parameters
    ----------
    sums : Sums
        Those of the fit.
    rows : CodedRows
        Of positive weight.
    """

    def __init__(self, sums: Sums, rows: CodedRows):
        self.whole = sums
        self.weights = weights = rows.weights
        basis = sums.basis_rows(rows.X)
        if weights is not None:
            basis *= weights[:, None]
        self._columns = np.ascontiguousarray(basis.T)
        self._levels = [
            _level_sums(sums.z_rows(k, basis), code, sums.n_levels[k])
            for k, code in enumerate(rows.known_codes)
        ]

    def sums(self, responses: FloatArray) -> ResponseSums:
        """Sums of responses of shape (n_rows, n)."""
        squares = np.square(responses)
        if self.weights is not None:
            squares *= self.weights[:, None]
        grouped = [
            (levels @ responses).reshape(len(z), -1, responses.shape[1])
            for z, levels in zip(self.whole.z_columns, self._levels, strict=True)
        ]
        return ResponseSums(self._columns @ responses, squares.sum(axis=0), tuple(grouped))

    def with_response(
        self, sums: ResponseSums, number: int, trend: FloatArray | None = None
    ) -> Sums:
        """The sums of the rows with one of the responses.

        Parameters
        ----------
        sums : ResponseSums
        number : int
            Which response.
        trend : ndarray of shape (k + 2,), optional
            A combination of the constant and the columns, in basis coordinates, that is added to
            the response.
        """
        gram = self.whole.gram.copy()
        add = np.zeros(len(gram) - 1) if trend is None else trend[:-1]
        columns, known = sums.columns[:, number], gram[:-1, :-1]
        gram[:-1, -1] = gram[-1, :-1] = columns + known @ add
        gram[-1, -1] = sums.squares[number] + add @ (2.0 * columns + known @ add)
        grouped = [own.copy() for own in self.whole.grouped]
        for own, new in zip(grouped, sums.grouped, strict=True):
            own[:, -1] = new[:, :, number] + np.einsum("zbm,b->zm", own[:, :-1], add)
        return replace(self.whole, gram=gram, grouped=tuple(grouped), triangles=None, sketch=None)


def _level_sums(z: FloatArray, codes: NDArray[np.integer], n_levels: int) -> csr_array:
    """The matrix that sums rows times z columns by level, shape (n_z m, n)."""
    n, n_z = z.shape
    places = codes[:, None] + n_levels * np.arange(n_z)
    rows = np.repeat(np.arange(n), n_z)
    return csr_array((z.ravel(), (places.ravel(), rows)), shape=(n_z * n_levels, n))
