"""The response of a formula and its offsets, which may be expressions.

The model is one of the left-hand side: of ``np.log(y)``, not of ``y``. What comes as a response is
always in the units of the data, and is transformed as it was in `fit`. An offset is computed from
X.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic import SimpleFormula
from numpy.typing import NDArray

from mixedlearn.formula.brackets import FormulaError
from mixedlearn.formula.coding import Coding, learn_coding
from mixedlearn.formula.expressions import CACHED_TEXTS, STRING, in_python, is_function
from mixedlearn.formula.terms import is_column, read_names, read_terms

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class NumberOfRow:
    """A number for each row, by an expression with what it learnt from the rows of `fit`.

    Attributes
    ----------
    text : str
    columns : tuple of str
        The columns that it is computed from.
    coding : Coding
    """

    text: str
    columns: tuple[str, ...]
    coding: Coding

    def values(self, data: pd.DataFrame) -> FloatArray:
        """The numbers of rows that have its columns, shape (n,)."""
        return self.coding.columns(data)[0]


def response_terms(text: str, names: Sequence[str]) -> SimpleFormula:
    """The left-hand side as a term, checked against the columns that there are."""
    return _terms(text, names, text)


def offset_terms(text: str, names: Sequence[str]) -> SimpleFormula:
    """An offset as a term, checked against the columns that there are."""
    return _terms(text, names, f"offset({text})")


def _terms(text: str, names: Sequence[str], shown: str) -> SimpleFormula:
    """The terms of an expression; messages show it within a larger text."""
    return read_terms(" " * shown.index(text) + _arithmetic(text), shown, names, ())


def learn_response(text: str, data: pd.DataFrame) -> tuple[NumberOfRow, FloatArray]:
    """The response of the rows of `fit`, and its values, shape (n,).

    Raises
    ------
    FormulaError
        If it is not one numeric term, such as ``y`` or ``log(y)``.
    ValueError
        If a value is missing.
    """
    return _learn_number(text, response_terms(text, list(data.columns)), data, "The response")


def learn_offset(text: str, data: pd.DataFrame) -> NumberOfRow:
    """An offset of the rows of `fit`; raises as `learn_response`."""
    return _learn_number(text, offset_terms(text, list(data.columns)), data, "An offset")[0]


def _learn_number(
    text: str, terms: SimpleFormula, data: pd.DataFrame, what: str
) -> tuple[NumberOfRow, FloatArray]:
    coding, columns = learn_coding(terms, data, text)
    if len(coding.terms) != 1 or len(columns) != 1 or any(coding.spans_intercept.values()):
        raise FormulaError(
            f"{what} must be one numeric column, or an expression such as log(y).", text, 0
        )
    return NumberOfRow(text.strip(), coding.variables, coding), columns[0]


@functools.lru_cache(maxsize=CACHED_TEXTS)
def _arithmetic(text: str) -> str:
    """The left-hand side with its operators as arithmetic, as in R: ``a - b`` is a difference.

    On the right-hand side they add and remove terms.
    """
    if is_column(text):
        return text
    source, _ = in_python(text)
    source = source.replace("{", "(").replace("}", ")").strip()
    try:
        tree = ast.parse(source, mode="eval").body
    except SyntaxError as error:
        raise FormulaError(
            f"The response is no arithmetic expression: {error.msg}.", text, 0
        ) from None
    if isinstance(tree, (ast.Name, ast.Call)):
        return text
    plain = "".join(
        part if is_string else part.replace("^", "**").replace("{", "(").replace("}", ")")
        for is_string, part in _split_at_strings(text)
    )
    return f"{{{plain}}}"


def _split_at_strings(text: str) -> Iterator[tuple[bool, str]]:
    """The pieces of a text, and whether they are strings or names in backticks."""
    for position, part in enumerate(re.split(rf"({STRING}|`[^`]*`)", text)):
        yield position % 2 == 1, part


def is_transformed(text: str) -> bool:
    """Whether a response is more than a column."""
    return not is_column(text)


def response_columns(text: str, names: Any) -> list[str]:
    """The columns that a response is computed from, whether or not they are among the names."""
    found = [
        name
        for name, is_called in read_names(_arithmetic(text))
        if not is_called and (name in names or not is_function(name))
    ]
    return list(dict.fromkeys(found))


def response_data(text: str, columns: list[str], y: Any, X: pd.DataFrame) -> pd.DataFrame:
    """The columns that a response is computed from: those that y has or is, the others from X.

    Parameters
    ----------
    text : str
    columns : list of str
    y : Series, DataFrame or ndarray of shape (n,)
        A vector stands for the only column; of several, for the one of its name, else for the only
        one that X does not have.
    X : DataFrame of shape (n, n_columns)

    Raises
    ------
    ValueError
        If a column is in neither of them, or it is not clear which one y is.
    """
    if isinstance(y, pd.DataFrame):
        given = {name: y[name] for name in columns if name in y.columns}
    else:
        given = {_stands_for(text, columns, getattr(y, "name", None), X): y}
    for name in columns:
        if name not in given and name not in X.columns:
            raise ValueError(
                f"The response {text!r} of the formula is computed from the column {name!r}, which "
                "neither X nor y has: pass X with that column, or a DataFrame with it as y."
            )
    return pd.DataFrame(
        {name: pd.Series(given.get(name, X.get(name))).array for name in columns},
        index=pd.RangeIndex(len(X)),
    )


def _stands_for(text: str, columns: list[str], name: Any, X: pd.DataFrame) -> str:
    if len(columns) == 1:
        return columns[0]
    if name in columns:
        return str(name)
    lacking = [column for column in columns if column not in X.columns]
    if len(lacking) == 1:
        return lacking[0]
    listed = ", ".join(map(repr, columns))
    raise ValueError(
        f"The response {text!r} of the formula is computed from {listed}, and y does not say which "
        "of them it is: pass a Series of that name and X with the others, or a DataFrame with all "
        "of them as y."
    )
