"""What a formula learns from rows: the same from some of them as from all, or not.

A model that gets its rows batch by batch, or in partitions, makes the columns of all by what its
formula has learnt from some. So nothing may be learnt that further rows would change, but for
categories: batches are refused where they come too late, partitions are searched for them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd
from formulaic import SimpleFormula
from formulaic.parser.types import Factor

from mixedlearn.data.labels import shown
from mixedlearn.formula.coding import Coding, how_to_declare
from mixedlearn.formula.expressions import (
    columns_in,
    compiled,
    in_formula,
    in_python,
    is_function,
)
from mixedlearn.formula.transforms import is_stateful

_SPLINE = "give its knots and its bounds, {}(x, knots=..., lower_bound=..., upper_bound=...{})"
_ADVICE = {
    "bs": _SPLINE.format("bs", ""),
    **{name: _SPLINE.format(name, ", constraints=None") for name in ("cr", "cs", "cc")},
    "ns": "give the knots and the bounds of another spline, bs(x, knots=..., lower_bound=..., "
    "upper_bound=...)",
    "poly": "write poly(x, 2, raw=True), or I(x**2)",
    **dict.fromkeys(
        ("center", "scale", "standardize"),
        "use numbers that you know, {(x - 3.5) / 1.7} for example",
    ),
}
# The arguments with which a function learns nothing; those without a value have any.
_GIVEN: dict[str, dict[str, Any]] = {
    "bs": {"knots": ..., "lower_bound": ..., "upper_bound": ...},
    **{
        name: {"knots": ..., "lower_bound": ..., "upper_bound": ..., "constraints": None}
        for name in ("cr", "cs", "cc")
    },
    "poly": {"raw": True},
}


def refuse_learning(terms: Iterable[SimpleFormula], names: Sequence[str]) -> None:
    """Refuse terms that would learn something else from more rows.

    Parameters
    ----------
    terms : iterable of SimpleFormula
        See `CompiledFormula.terms_of_fit` and `terms_of`.
    names : sequence of str
        The columns of X; that of the response need not be among them.

    Raises
    ------
    ValueError
        The message names the term.
    """
    for own in terms:
        for factor in dict.fromkeys(factor for term in own for factor in term.factors):
            if factor.eval_method is not Factor.EvalMethod.PYTHON:
                continue
            text = factor.expr
            for name in _learning_functions(text):
                raise ValueError(
                    f"{text!r} of the formula learns from all rows, which no batch and no "
                    f"partition has: {_ADVICE[name]}, or put the values into a column of X."
                )
            columns = tuple(dict.fromkeys((*names, *_columns_in(text))))
            if not compiled(text, columns).is_row_wise:
                raise ValueError(
                    f"{text!r} of the formula may depend on other rows, which come in other "
                    "batches or partitions: put the values into a column of X."
                )


def refuse_single_categories(codings: Iterable[Coding], X: pd.DataFrame) -> None:
    """Refuse a first batch that has one category of an expression and declares none.

    Such an expression has hardly a column, and any further category would come too late.

    Raises
    ------
    ValueError
        The message names the expression and its category.
    """
    for coding in codings:
        for expression, categories in coding.categories.items():
            if len(categories) == 1 and not _is_declared(expression, X):
                raise ValueError(
                    f"{expression!r} of the formula has the one category {shown(categories[0])} in "
                    "the first batch, which fixes the columns of the model: declare all "
                    f"categories, {how_to_declare(expression, X)}."
                )


def _is_declared(expression: str, X: pd.DataFrame) -> bool:
    """Whether the columns of an expression, or its levels, say which categories it has."""
    used = [expression]
    if expression not in X.columns:
        calls = ast.walk(ast.parse(in_python(expression)[0], mode="eval"))
        if any(isinstance(node, ast.keyword) and node.arg == "levels" for node in calls):
            return True
        used = [name for name in _columns_in(expression) if name in X.columns]
    return all(isinstance(X[name].dtype, pd.CategoricalDtype) for name in used)


def _columns_in(text: str) -> Iterator[str]:
    for name, is_called in columns_in(text):
        if not (is_called or is_function(name)):
            yield name


def _learning_functions(text: str) -> Iterator[str]:
    """The functions of an expression that learn from rows, with these arguments."""
    source, names = in_python(text)
    for node in ast.walk(ast.parse(source, mode="eval")):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            name = in_formula(node.func.id, names)
            if name in _ADVICE and is_stateful(name) and not _is_given(name, node):
                yield name


def _is_given(name: str, call: ast.Call) -> bool:
    """Whether a call says all that its function would learn."""
    needed = _GIVEN.get(name)
    given = {own.arg: own.value for own in call.keywords}
    if needed is None or "df" in given or not needed.keys() <= given.keys():
        return False
    return all(
        value is ... or (isinstance(own := given[key], ast.Constant) and own.value is value)
        for key, value in needed.items()
    )
