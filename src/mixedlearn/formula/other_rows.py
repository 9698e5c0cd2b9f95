"""Expressions whose value for a row depends on the other rows: found by computing some rows alone.

What such an expression takes from the rows of `fit`, a mean say, it takes anew from the rows of a
prediction.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.formula.expressions import Expression, States

# So many rows together show a mean, a rank or a sum of those before.
TRIED_ROWS = 64
# Beyond rounding error, which may differ with the number of rows.
TOLERANCE = 1e-9


def depends_on_other_rows(
    expression: Expression, values: Any, data: pd.DataFrame, states: States
) -> bool:
    """Whether some rows by themselves have other values than among all rows.

    Parameters
    ----------
    expression : Expression
    values : array-like, Series or dict of these
        Its values for all rows.
    data : DataFrame of shape (n, n_columns)
        The rows.
    states : dict
        What its functions have learnt from them.
    """
    table = _table(values)
    for rows in _trials(table):
        try:
            found = _table(expression.value(data.iloc[rows].reset_index(drop=True), states))
        except Exception:  # an expression is Python, and may raise anything
            return True
        if not _is_same(found, table, rows):
            return True
    return False


def _table(values: Any) -> NDArray[Any]:
    """Values as an array of shape (n, n_columns)."""
    values = getattr(values, "__wrapped__", values)
    if isinstance(values, dict):
        return np.column_stack([np.asarray(own) for own in values.values()])
    array = np.asarray(values)
    return array.reshape(len(array), -1)


def _trials(table: NDArray[Any]) -> Iterator[NDArray[np.intp]]:
    """Some rows together, and a few alone: the first, the last, and those with extreme values."""
    n_rows = len(table)
    some = np.random.default_rng(0).permutation(n_rows)[: min((n_rows + 1) // 2, TRIED_ROWS)]
    yield np.sort(some)
    alone = {0, n_rows - 1}
    for column in table.T:
        if column.dtype.kind in "biuf":
            alone |= {int(np.argmin(column)), int(np.argmax(column))}
        else:
            alone.add(int(np.argmax(column != column[0])))
    for row in sorted(alone):
        yield np.array([row])


def _is_same(found: NDArray[Any], table: NDArray[Any], rows: NDArray[np.intp]) -> bool:
    expected = table[rows]
    if found.shape != expected.shape:
        return False
    if table.dtype.kind not in "biuf" or found.dtype.kind not in "biuf":
        return bool(((found == expected) | (pd.isna(found) & pd.isna(expected))).all())
    size = TOLERANCE * np.abs(table).max(axis=0)
    return bool((np.abs(found - expected.astype(np.float64)) <= size).all())
