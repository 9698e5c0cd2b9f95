"""Whether rows are those of a fit, which keeps sums and no rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.rows import CodedRows
from mixedlearn.data.sums import Sums, sum_rows

# Sums of the same rows differ by rounding error: by less than this share of their size.
SAME = 1e-8


def is_of(sums: Sums, basis: NDArray[np.float64]) -> bool:
    """Whether the products of basis columns of shape (n, k + 2), in any metric, are the sums.

    Without the last, the response, those of the others.
    """
    n = basis.shape[1]
    known = sums.gram[:n, :n]
    size = np.sqrt(np.diag(known))
    apart = np.abs(basis.T @ basis - known)
    return bool((apart <= SAME * np.outer(size, size)).all())


def difference(
    sums: Sums, rows: CodedRows, columns: Sequence[str], factors: Sequence[str]
) -> str | None:
    """What tells rows from those of a fit, in words; None where they are the same.

    The order of the rows does not matter. A response is compared if there is one.

    Parameters
    ----------
    sums : Sums
        Of the fit.
    rows : CodedRows
        As many, of positive weight and of known levels.
    columns, factors : sequence of str
        Names of the numeric columns and of the grouping factors.
    """
    shift = sums.shift if rows.response is not None else np.append(sums.shift[:-1], 0.0)
    own = sum_rows(
        rows.X,
        rows.given_response,
        rows.known_codes,
        sums.levels,
        [tuple(column - 1 for column in z[1:]) for z in sums.z_columns],
        rows.weights,
        shift=shift,
        taken=None if rows.response is None else np.append(sums.shift[-1], sums.taken),
    )
    n_compared = sums.n_basis - (rows.response is None)
    names = ["the weights", *columns, "y"][:n_compared]
    size = np.sqrt(np.diag(sums.gram))
    bound = SAME * np.outer(size, size)
    wrong = (np.abs(own.gram - sums.gram) > bound)[:n_compared, :n_compared]
    for position, (what, row) in enumerate(zip(names, wrong, strict=True)):
        if row[0] or row[position]:
            plain = {"the weights": "the weights differ", "y": "y differs"}
            return plain.get(what, f"the column {what!r} differs")
    if wrong.any():
        return "the rows of some columns are in another order"
    for name, z, ours, theirs in zip(
        factors, sums.z_columns, own.grouped, sums.grouped, strict=True
    ):
        differs = np.abs(ours - theirs) > bound[list(z)][:, :, None]
        if differs[:, :n_compared].any():
            return f"the labels of {name!r}, or the order of the rows, differ"
    for (i, j), crossing in own.crossings.items():
        other = sums.crossings[i, j]
        same = np.array_equal(crossing.first, other.first)
        if not (same and np.array_equal(crossing.second, other.second)):
            return f"the labels of {factors[i]!r} and {factors[j]!r} do not occur together so"
    return None
