"""Expressions: the Python in a formula, whatever its columns are called.

Names in backticks may be any text, so that Python reads identifiers of the same length in their
place. A name that is called is a function, and ``np`` before a point is numpy; any other name of
a column is the column, and in backticks it always is.

Arithmetic is that of real numbers: columns of numbers come as floats, and operands that are
booleans are zeros and ones. Where numbers stand for something else (categories, places in an
array, bits), they come as they are.
"""

from __future__ import annotations

import ast
import builtins
import functools
import keyword
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import CodeType, MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from mixedlearn.data.numbers import numbers_of_objects
from mixedlearn.formula.brackets import FormulaError
from mixedlearn.formula.transforms import (
    DEPENDS_ON_ROWS,
    FUNCTIONS,
    NAMESPACES,
    ROW_WISE_BUILTINS,
    is_stateful,
)

# What functions of an expression have learnt: for each of them and each of its calls.
States = dict[tuple[str, int], dict[str, Any]]

STRING = r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\""
# Strings, names in backticks, and words.
_TOKENS = re.compile(rf"{STRING}|`(?P<quoted>[^`]*)`|(?P<word>[^\W\d]\w*)", re.DOTALL)
_BINDS = re.compile(r"\b(?:lambda|for)\b|:=")
# Letters that Python takes and changes not, and few columns have in their names.
_MARKERS = range(0x4E00, 0x9F00)
_ARITHMETIC = (
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.Div,
    ast.FloorDiv,
    ast.Mod,
    ast.Pow,
    ast.MatMult,
)
_ARITHMETIC_METHODS = frozenset(
    side + name
    for name in ("add", "sub", "mul", "div", "truediv", "floordiv", "mod", "pow")
    for side in ("", "r")
) | {"subtract", "multiply", "divide", "prod", "product", "cumprod", "cumsum", "sum", "dot"}
# Functions of numpy that are no ufuncs and take a row by itself.
_ROW_WISE_OF_NUMPY = frozenset({"where", "round", "around", "nan_to_num", "select", "isin", "clip"})
_ROW_WISE_NODES = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.Call,
    ast.Name,
    ast.Constant,
    ast.keyword,
    ast.List,
    ast.Tuple,
    ast.Dict,
    ast.operator,
    ast.unaryop,
    ast.cmpop,
    ast.expr_context,
)
REAL = "_real_"
# Texts that are kept as they were read: a fit reads the same few again and again.
CACHED_TEXTS = 512


def is_plain_name(name: str) -> bool:
    """Whether Python takes a name as it is."""
    return (
        name.isidentifier()
        and not keyword.iskeyword(name)
        and unicodedata.normalize("NFKC", name) == name
    )


@functools.lru_cache(maxsize=CACHED_TEXTS)
def in_python(text: str) -> tuple[str, Mapping[str, str]]:
    """Names in backticks, and those that Python would change, as identifiers of the same length.

    Returns
    -------
    text : str
        Positions in it are those in the original.
    names : mapping of str to str
        For every identifier that was put in, the name of the column.

    Raises
    ------
    FormulaError
        If there is no operator before or after a name in backticks.
    """
    markers = (chr(code) for code in _MARKERS if chr(code) not in text)
    found: dict[str, str] = {}
    names: dict[str, str] = {}
    binds = _BINDS.search(text) is not None

    def replaced(match: re.Match[str]) -> str:
        quoted, word = match["quoted"], match["word"]
        name = word if quoted is None else quoted
        if name is None or (word is not None and _stays(word)):
            return match[0]
        before, after = text[: match.start()][-1:], text[match.end() :]
        if quoted is not None:
            for neighbour in (before, after[:1]):
                if re.fullmatch(r"[\w`]", neighbour):
                    raise FormulaError(
                        f"Missing operator beside {match[0]}: is a '+' missing?",
                        text,
                        match.start(),
                    )
            # What is called or has attributes could be a function.
            is_used = after.lstrip()[:1] in tuple("([.")
            if is_plain_name(name) and not is_used and not binds:
                return f" {name} "
        marker = found.setdefault(name, "") or next(markers)
        found[name] = marker
        identifier = marker + "_" * (len(match[0]) - 1)
        names[identifier] = name
        return identifier

    return _TOKENS.sub(replaced, text), MappingProxyType(names)


def _stays(word: str) -> bool:
    return keyword.iskeyword(word) or is_plain_name(word)


def in_formula(text: str, names: Mapping[str, str]) -> str:
    """The identifiers that were put in as names in backticks again."""
    for identifier in sorted(names, key=len, reverse=True):
        text = text.replace(identifier, f"`{names[identifier]}`")
    return text


def columns_in(expression: str) -> list[tuple[str, bool]]:
    """The names that an expression uses, and whether they are called.

    Functions are among them, but for ``Q("...")``, which is the name of a column.
    """
    source, names = in_python(expression)
    tree = ast.parse(source, mode="eval")
    bound = _bound_names(tree)
    found = []
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    quoting = {
        id(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _name_by_Q(node) is not None
    }
    for node in ast.walk(tree):
        if (name := _name_by_Q(node)) is not None:
            found.append((name, False))
        elif id(node) in quoting:
            continue
        elif isinstance(node, ast.Name) and node.id not in bound:
            found.append((names.get(node.id, node.id), id(node) in called))
    return found


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that can be computed.

    Attributes
    ----------
    code : CodeType
    columns : dict of str to (str, bool)
        For every identifier of the code that is a column, its name and whether it comes as floats.
    learning : dict of str to str
        For every identifier that is a function with a state, the function's name.
    is_row_wise : bool
        Whether it is made of operations whose value for a row depends on no other row.
    """

    code: CodeType
    columns: dict[str, tuple[str, bool]]
    learning: dict[str, str]
    is_row_wise: bool

    def value(self, data: pd.DataFrame, states: States) -> Any:
        """The value for some rows; what functions learn is kept in ``states``."""
        context: dict[str, Any] = {**FUNCTIONS, REAL: real}
        for identifier, (name, is_real) in self.columns.items():
            column = numbers_of_objects(data[name]) if is_real else data[name]
            is_number = is_real and column.dtype.kind in "iuf"
            context[identifier] = column.astype(np.float64) if is_number else column
        for identifier, name in self.learning.items():
            context[identifier] = _with_states(FUNCTIONS[name], identifier, states)
        # As globals, which nested functions and comprehensions see.
        return eval(self.code, context)


def _with_states(
    function: Callable[..., Any], identifier: str, states: States
) -> Callable[..., Any]:
    """A function with a state for each of its calls, in their order."""
    n_calls = 0

    def learning(*args: Any, **kwargs: Any) -> Any:
        nonlocal n_calls
        state = states.setdefault((identifier, n_calls), {})
        n_calls += 1
        return function(*args, _state=state, **kwargs)

    return learning


def real(value: Any) -> Any:
    """Booleans and numbers of any type as floats; anything else as it is."""
    # What a function like C() returns says itself what it is.
    if hasattr(value, "__formulaic_metadata__") or not isinstance(value, (pd.Series, np.ndarray)):
        return value
    dtype = value.dtype
    if dtype == np.float64 or dtype.kind not in "biuf":
        return value
    if isinstance(value, pd.Series):
        return pd.Series(value.to_numpy(dtype=np.float64, na_value=np.nan), index=value.index)
    return value.astype(np.float64)


@functools.lru_cache(maxsize=CACHED_TEXTS)
def compiled(expression: str, columns: tuple[str, ...]) -> Expression:
    """The expression, in which the names of these columns are columns."""
    source, names = in_python(expression)
    tree = ast.parse(source, mode="eval")
    resolver = _Resolver(names, columns, _bound_names(tree))
    resolved = ast.fix_missing_locations(resolver.visit(tree))
    return Expression(
        compile(resolved, "<formula>", "eval"),
        resolver.columns,
        resolver.learning,
        resolver.is_row_wise,
    )


class _Resolver(ast.NodeTransformer):
    """Says of every name what it is, and makes arithmetic real."""

    def __init__(self, names: Mapping[str, str], columns: tuple[str, ...], bound: set[str]):
        self.names = names
        self.known = columns
        self.bound = bound
        self.columns: dict[str, tuple[str, bool]] = {}
        self.learning: dict[str, str] = {}
        self.is_row_wise = True

    def visit(self, node: ast.AST) -> Any:
        if not isinstance(node, _ROW_WISE_NODES):
            self.is_row_wise = False
        return super().visit(node)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        name = self._column(node)
        if name is not None:
            return self._of_column(name, is_real=True)
        if node.id not in FUNCTIONS:
            self.is_row_wise = False
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        if isinstance(node.op, _ARITHMETIC):
            node.left, node.right = self._real(node.left), self._real(node.right)
        else:
            node.left, node.right = self._as_is(node.left), self._as_is(node.right)
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        is_sign = isinstance(node.op, (ast.USub, ast.UAdd))
        node.operand = self._real(node.operand) if is_sign else self._as_is(node.operand)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        self.is_row_wise = False
        node.value, node.slice = self.visit(node.value), self._as_is(node.slice)
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if (name := _name_by_Q(node)) is not None:
            return self._of_column(name, is_real=True)
        take = self._argument(node)
        node.args = [take(argument) for argument in node.args]
        for own in node.keywords:
            own.value = self.visit(own.value)
        return node

    def _argument(self, node: ast.Call) -> Callable[[ast.expr], ast.expr]:
        """Resolve the function of a call; how its arguments are to be taken."""
        function = node.func
        if isinstance(function, ast.Name):
            name = function.id
            self.is_row_wise &= (
                name in FUNCTIONS and name not in DEPENDS_ON_ROWS
            ) or name in ROW_WISE_BUILTINS
            if is_stateful(name):
                identifier = f"_learning_{len(self.learning)}_"
                self.learning[identifier] = name
                node.func = ast.Name(identifier, ast.Load())
                return self._real
            if name in ("C", "hashed"):
                return self._as_is
            return self._real if _is_arithmetic(FUNCTIONS.get(name)) else self.visit
        if isinstance(function, ast.Attribute) and self._is_namespace(function.value):
            own = getattr(FUNCTIONS[function.value.id], function.attr, None)  # type: ignore[attr-defined]
            is_numpy = function.value.id == "np"  # type: ignore[attr-defined]
            self.is_row_wise &= (
                not is_numpy or isinstance(own, np.ufunc) or function.attr in _ROW_WISE_OF_NUMPY
            )
            if isinstance(own, np.ufunc):
                return self._real if _is_arithmetic(own) else self._as_is
            return self.visit
        node.func = self.visit(function)
        if isinstance(function, ast.Attribute) and function.attr in _ARITHMETIC_METHODS:
            return self._real
        return self.visit

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if self._is_namespace(node.value):
            return node
        self.is_row_wise = False
        if node.attr in _ARITHMETIC_METHODS:
            node.value = self._real(node.value)
        elif node.attr == "astype":
            node.value = self._as_is(node.value)
        else:
            node.value = self.visit(node.value)
        return node

    def _is_namespace(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id in NAMESPACES and node.id not in self.bound

    def _column(self, node: ast.expr) -> str | None:
        """The column that a name is, if it is one."""
        if not isinstance(node, ast.Name) or node.id in self.bound:
            return None
        if node.id in self.names:
            return self.names[node.id]
        return node.id if node.id in self.known else None

    def _of_column(self, name: str, *, is_real: bool) -> ast.Name:
        for identifier, use in self.columns.items():
            if use == (name, is_real):
                return ast.Name(identifier, ast.Load())
        identifier = f"_column_{len(self.columns)}_"
        self.columns[identifier] = (name, is_real)
        return ast.Name(identifier, ast.Load())

    def _as_is(self, node: ast.expr) -> ast.expr:
        """A column as it is; what is computed is computed in real numbers all the same."""
        name = self._column(node)
        if name is None:
            name = _name_by_Q(node)
        return self.visit(node) if name is None else self._of_column(name, is_real=False)

    def _real(self, node: ast.expr) -> ast.expr:
        if isinstance(node, (ast.Constant, ast.Starred)):
            return self.visit(node)
        return ast.Call(ast.Name(REAL, ast.Load()), [self.visit(node)], [])


def _is_arithmetic(function: Any) -> bool:
    """Whether a function of numpy has numbers for values, so that it computes with booleans."""
    return isinstance(function, np.ufunc) and any(own.endswith("->d") for own in function.types)


def _name_by_Q(node: ast.AST) -> str | None:
    """The column in ``Q("name")``."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Q":
        arguments = node.args
        if len(arguments) == 1 and isinstance(arguments[0], ast.Constant):
            return str(arguments[0].value)
    return None


def _bound_names(tree: ast.AST) -> set[str]:
    """Names that lambdas and comprehensions bind."""
    bound = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return bound | {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def is_function(name: str) -> bool:
    """Whether a formula may call a function of this name."""
    return name in FUNCTIONS or hasattr(builtins, name)
