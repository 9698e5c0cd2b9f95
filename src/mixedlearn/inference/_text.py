"""Results as text and as HTML: one way to print numbers, p-values and tables."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np
import pandas as pd

# Digits after the point of the columns that are no estimates.
DIGITS = {
    "df": 2,
    "t_value": 3,
    "aic": 2,
    "bic": 2,
    "log_likelihood": 2,
    "deviance": 2,
    "chi2": 3,
}
CORRELATION_DIGITS = 3
SIGNIFICANT = 4
# Entries below this share of the largest one do not lengthen their column.
SMALL_SHARE = 1e-2
# Below this a p-value is shown by its size.
SMALL_P = 1e-4
# Below this it is lost in underflow.
LEAST_P = 1e-300


def p_text(p_value: float) -> str:
    """A p-value: four digits after the point, or two significant ones where it is small."""
    if np.isnan(p_value):
        return "nan"
    if p_value < LEAST_P:
        return f"<{LEAST_P:.0e}"
    return f"{p_value:.4f}" if p_value >= SMALL_P else f"{p_value:.1e}"


def p_equation(p_value: float) -> str:
    """The same as an equation, or an inequality where it is lost in underflow."""
    text = p_text(p_value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def table_text(table: pd.DataFrame) -> str:
    """The table as text, column by column, without the names of its index."""
    shown = _formatted(table)
    return "\n".join(line.rstrip() for line in shown.to_string().split("\n"))


def table_html(table: pd.DataFrame) -> str:
    """The table as HTML, without the names of its index."""
    return _formatted(table).to_html()


def lines_html(text: str) -> str:
    """A paragraph of HTML, with the lines of a text."""
    return "<p>" + escape(text).replace("\n", "<br>") + "</p>"


def _formatted(table: pd.DataFrame) -> pd.DataFrame:
    columns = {}
    for name in table:
        # The ends of an interval have the digits of its estimate.
        is_end = str(name).startswith(("lower", "upper")) and "estimate" in table
        formatter = _formatter(str(name), table["estimate" if is_end else name])
        columns[name] = table[name].map(formatter)
    # The names of the index would take a line of their own.
    return pd.DataFrame(columns, index=table.index).set_axis(
        table.index.set_names([None] * table.index.nlevels), axis=0
    )


def _formatter(name: str, values: pd.Series) -> Callable[[Any], str]:
    """How to show the numbers, or the text, of a column that holds these values."""
    if pd.api.types.is_string_dtype(values):
        return str
    if name == "p_value":
        return lambda value: "" if np.isnan(value) else p_text(value)
    if pd.api.types.is_integer_dtype(values.dtype):
        return lambda value: "" if pd.isna(value) else f"{value}"
    if name.startswith("corr"):
        return _fixed(CORRELATION_DIGITS)
    return _fixed(DIGITS[name] if name in DIGITS else _digits(values))


def _fixed(digits: int) -> Callable[[float], str]:
    # Adding zero takes the sign from what is rounded to zero.
    return lambda value: "" if np.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}"


def _digits(values: pd.Series) -> int:
    """As many digits after the point as show the smallest entry with some significant ones."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0.0)])
    if not len(sizes):
        return SIGNIFICANT - 1
    smallest = max(float(sizes.min()), SMALL_SHARE * float(sizes.max()))
    return int(np.clip(SIGNIFICANT - 1 - np.floor(np.log10(smallest)), 0, 8))
