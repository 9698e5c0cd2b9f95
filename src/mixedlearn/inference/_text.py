"""Results as text and as HTML: one way to print numbers, p-values and tables."""

from __future__ import annotations

import textwrap
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# Digits after the point of the columns that have a scale of their own, whatever the units.
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
# Significant digits of a column: of its smallest entry, if that is not small beside the others; of
# any entry; and of its largest one, before each entry has digits of its own.
SIGNIFICANT = 4
LEAST_SIGNIFICANT = 3
MOST_SIGNIFICANT = 7
# Entries below this share of the largest one are small beside it.
SMALL_SHARE = 1e-2
# Share of its standard error below which an estimate is near zero by chance.
ERROR_SHARE = 0.1
# Powers of ten that are written out.
LEAST_POWER, MOST_POWER = -4, 6
# Smaller p-values are all the same to a reader.
SMALL_P = 1e-3
# Letters in a line, where pandas has no other width.
LINE_WIDTH = 80


class ResultTable(pd.DataFrame):
    """A DataFrame that prints with readable digits, and with all of its columns.

    Lines have up to ``display.width`` letters, an option of pandas, and go on below. What is
    computed from the table (a part of it, rounded numbers) is a plain DataFrame.
    """

    def __repr__(self) -> str:
        if self.empty:
            return repr(pd.DataFrame(self))
        shown = _without_the_middle(self)
        n_rows, n_columns = self.shape
        is_whole = len(shown) == n_rows
        return _as_text(shown) + ("" if is_whole else f"\n\n[{n_rows} rows x {n_columns} columns]")

    def _repr_html_(self) -> str:
        return _without_the_middle(self).to_html()


def p_text(p_value: float) -> str:
    """A p-value: four digits after the point, or that it is small."""
    if np.isnan(p_value):
        return "nan"
    return f"{p_value:.4f}" if p_value >= SMALL_P else f"< {SMALL_P:g}"


def p_equation(p_value: float) -> str:
    """The same as an equation, or an inequality where it is small."""
    text = p_text(p_value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def table_text(table: pd.DataFrame) -> str:
    """All rows and columns of the table as text, without the names of its index."""
    return _as_text(_formatted(table))


def table_html(table: pd.DataFrame) -> str:
    """The table as HTML, without the names of its index."""
    return _formatted(table).to_html()


def lines_html(text: str) -> str:
    """A paragraph of HTML, with the lines of a text."""
    return "<p>" + escape(text).replace("\n", "<br>") + "</p>"


def in_lines(text: str, indent: str = "") -> str:
    """A text in lines of the usual width, those after the first indented."""
    return textwrap.fill(
        text,
        _line_width(),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _line_width() -> int:
    return pd.get_option("display.width") or LINE_WIDTH


def _without_the_middle(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text, with the first and last rows of one that pandas would shorten."""
    most = pd.get_option("display.max_rows") or len(table)
    half = max((pd.get_option("display.min_rows") or most) // 2, 1)
    if len(table) <= max(most, 2 * half + 1):
        return _formatted(table)
    ends = _formatted(pd.concat([table.iloc[:half], table.iloc[-half:]]))
    dots = ("...",) * ends.index.nlevels
    middle = pd.DataFrame(
        "...",
        index=pd.MultiIndex.from_tuples([dots]) if len(dots) > 1 else pd.Index(dots, dtype=object),
        columns=ends.columns,
    )
    return pd.concat([ends.iloc[:half], middle, ends.iloc[half:]])


def _as_text(shown: pd.DataFrame) -> str:
    """A table of texts, in blocks of columns that fit a line each."""
    left = _index_lines(shown.index)
    columns = []
    for place, name in enumerate(map(str, shown)):
        cells = shown.iloc[:, place].tolist()
        width = max(len(name), *(1 + len(cell) for cell in cells), 0)
        columns.append([text.rjust(width) for text in (name, *cells)])
    lines = left
    blocks = []
    for column in columns:
        wider = [f"{line} {text}" for line, text in zip(lines, column, strict=True)]
        if len(wider[0]) > _line_width() and lines is not left:
            blocks += lines
            wider = [f"{line} {text}" for line, text in zip(left, column, strict=True)]
        lines = wider
    return "\n".join(line.rstrip() for line in [*blocks, *lines])


def _index_lines(index: pd.Index) -> list[str]:
    """The names of the rows below an empty line, all of the same width."""
    lines = pd.DataFrame({"": [""] * len(index)}, index=index).to_string().split("\n")
    lines = [line.rstrip() for line in lines] if len(index) else [""]
    width = max(map(len, lines))
    return [line.ljust(width) for line in lines]


def _formatted(table: pd.DataFrame) -> pd.DataFrame:
    """The table as texts."""
    least = _least_sizes(table)
    columns, of_intervals, sizes = {}, {}, []
    for place, name in enumerate(map(str, table)):
        values = table.iloc[:, place]
        if name == "estimate" or name.startswith(("lower", "upper")):
            numbers = values.to_numpy(dtype=float)
            of_intervals[place] = numbers
            sizes.append(np.fmax(np.abs(numbers), least))
        else:
            columns[place] = _texts(name, values)
    if of_intervals:
        # Estimates and the ends of their intervals are read together.
        texts = _number_texts(np.concatenate([*of_intervals.values()]), np.concatenate(sizes))
        for number, place in enumerate(of_intervals):
            columns[place] = texts[number * len(table) : (number + 1) * len(table)]
    shown = pd.DataFrame(columns, index=table.index, columns=range(table.shape[1]), dtype=object)
    # The names of the index would take a line of their own.
    return shown.set_axis(table.columns, axis=1).set_axis(
        table.index.set_names([None] * table.index.nlevels), axis=0
    )


def _least_sizes(table: pd.DataFrame) -> FloatArray | float:
    """Sizes whose digits are enough for the estimates and the ends of their intervals, by row.

    An estimate that is near zero by chance needs no more digits than its standard error has, an
    end near zero no more than its estimate.
    """
    if "estimate" not in table:
        return 0.0
    sizes = table["estimate"].abs().to_numpy(dtype=float)
    if "std_error" not in table:
        return sizes
    return np.fmax(sizes, ERROR_SHARE * table["std_error"].to_numpy(dtype=float))


def _texts(name: str, values: pd.Series) -> list[str]:
    """The numbers, or the texts, of a column."""
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return [str(value) for value in values]
    if pd.api.types.is_integer_dtype(values):
        return ["" if pd.isna(value) else f"{value}" for value in values]
    numbers = values.to_numpy(dtype=float, na_value=np.nan)
    if name == "p_value":
        return ["" if np.isnan(value) else p_text(value) for value in numbers]
    if name.startswith("corr") or name in DIGITS:
        digits = DIGITS.get(name, CORRELATION_DIGITS)
        return [_fixed(value, digits) for value in numbers]
    return _number_texts(numbers, np.abs(numbers))


def _number_texts(values: FloatArray, sizes: FloatArray) -> list[str]:
    """Numbers with significant digits of their sizes: alike for all, or for each its own."""
    digits = _common_digits(sizes)
    if digits is not None:
        return [_fixed(value, digits) for value in values]
    return [_by_itself(*pair) for pair in zip(values.tolist(), sizes.tolist(), strict=True)]


def _common_digits(sizes: FloatArray) -> int | None:
    """Digits after the point that show all of these sizes; None if the largest had too many."""
    present = sizes[np.isfinite(sizes) & (sizes > 0.0)]
    if not len(present):
        return SIGNIFICANT - 1
    smallest, largest = float(present.min()), float(present.max())
    digits = max(
        SIGNIFICANT - 1 - _power(max(smallest, SMALL_SHARE * largest)),
        LEAST_SIGNIFICANT - 1 - _power(smallest),
        0,
    )
    n_significant = digits + 1 + max(_power(largest), -1)
    return digits if n_significant <= MOST_SIGNIFICANT else None


def _by_itself(value: float, size: float) -> str:
    """A number with significant digits of its size."""
    if value == 0.0 or not np.isfinite(value):
        return "0" if value == 0.0 else _fixed(value, 0)
    power = _power(size)
    if LEAST_POWER <= power <= MOST_POWER:
        return _fixed(value, max(SIGNIFICANT - 1 - power, 0))
    return f"{value:.{SIGNIFICANT - 1}e}"


def _power(size: float) -> int:
    return int(np.floor(np.log10(size)))


def _fixed(value: Any, digits: int) -> str:
    # Adding zero takes the sign from what is rounded to zero.
    return "" if np.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}"
