"""Terms: what formulaic reads in a part of a formula, checked against the columns there are."""

from __future__ import annotations

import ast
import difflib
import functools
import re
from collections.abc import Mapping, Sequence

import numpy as np
from formulaic import Formula, SimpleFormula
from formulaic.errors import FormulaicError
from formulaic.parser.types import Factor, Term

from mixedlearn.exceptions import did_you_mean
from mixedlearn.formula.brackets import FormulaError
from mixedlearn.formula.expressions import (
    CACHED_TEXTS,
    STRING,
    columns_in,
    in_formula,
    in_python,
    is_function,
)
from mixedlearn.formula.parser import find_name, quoted
from mixedlearn.formula.transforms import FUNCTIONS

# What users of R look for, and where it is.
FROM_R = {
    "factor": "C(x) makes a column categorical",
    "as.factor": "C(x) makes a column categorical",
    "relevel": "C(x, Treatment('first'))",
    "ifelse": "np.where(condition, yes, no)",
    "offset": "a term of its own on the right of '~', ... + offset(x)",
    "diag": "(x || g) for effects without covariances",
    "us": "(x | g), whose covariances are free",
}
_NESTED = re.compile(rf"(?P<text>{STRING})|%\s*in\s*%", re.DOTALL)
# Functions are suggested for names that are at least so similar.
LIKELY_TYPO = 0.8
# Parts of formulas whose terms are kept: formulaic takes longer to read one than a small fit.
CACHED_PARTS = 256
LOOKUP, PYTHON = Factor.EvalMethod.LOOKUP, Factor.EvalMethod.PYTHON


def read_terms(
    part: str, formula: str, names: Sequence[str], others: Sequence[str]
) -> SimpleFormula:
    """The terms of a part of a formula, checked against the columns that there are.

    Parameters
    ----------
    part : str
        The part, at its place in the formula.
    formula : str
        The whole formula, for messages.
    names : sequence of str
        Columns of X.
    others : sequence of str
        What a dot stands for.

    Raises
    ------
    FormulaError
        If it cannot be parsed, or uses what is neither a column nor a function.
    """
    terms = _terms(part, formula, others)
    kinds: dict[str, Factor.EvalMethod] = {}
    for term in terms:
        for factor in term.factors:
            _check_factor(factor, formula, names)
            if kinds.setdefault(factor.expr, factor.eval_method) is not factor.eval_method:
                raise FormulaError(
                    f"The column {factor.expr!r} of X is called like an expression of the "
                    "formula: rename it.",
                    formula,
                    find_name(factor.expr, formula),
                )
    return terms


def _terms(part: str, formula: str, others: Sequence[str] = ()) -> SimpleFormula:
    """The terms of a part of a formula, whatever columns there are."""
    source, columns = _in_python(part, formula)
    by_name = {name: identifier for identifier, name in columns.items()}
    dotted = tuple(by_name.get(name, name) for name in others) if "." in source else ()
    try:
        terms = _parsed(source, dotted, tuple(columns.items()))
    except (FormulaicError, AttributeError, SyntaxError, TypeError, ValueError) as error:
        if of_r := re.search(r"\bas\.\w+(?=\()", part):  # "as" cannot be parsed as Python
            message = f"{of_r[0]!r} is no known function. {_instead(of_r[0])}"
            raise FormulaError(message, formula, of_r.start()) from None
        message, position = message_of(error, source)
        if message.startswith("Missing operator"):
            message += " Names that are no identifiers need backticks."
        message = in_formula(message, columns)
        raise FormulaError(f"The formula cannot be read: {message}", formula, position) from None
    if not isinstance(terms, SimpleFormula):
        raise FormulaError("The formula cannot be read: it has several parts.", formula, 0)
    return terms


@functools.lru_cache(maxsize=CACHED_TEXTS)
def _in_python(part: str, formula: str) -> tuple[str, Mapping[str, str]]:
    """The part as formulaic and Python can read it, and the columns behind new identifiers."""
    try:
        source, columns = in_python(part)
    except FormulaError as error:
        raise FormulaError(error.message, formula, error.position) from None
    # R's a %in% b is a:b; formulaic would add the effects of b.
    return _NESTED.sub(lambda match: match["text"] or ":".center(len(match[0])), source), columns


@functools.lru_cache(maxsize=CACHED_PARTS)
def _parsed(source: str, others: tuple[str, ...], columns: tuple[tuple[str, str], ...]) -> Formula:
    """What formulaic reads in a part. Fits share it, and none changes it."""
    found = Formula(source, _context={"__formulaic_variables_available__": list(others)})
    if not columns or not isinstance(found, SimpleFormula):
        return found
    names = dict(columns)
    return SimpleFormula(
        [Term([_with_names(factor, names) for factor in term.factors]) for term in found]
    )


def _with_names(factor: Factor, names: Mapping[str, str]) -> Factor:
    """A factor with the names of columns in place of identifiers that stand for them."""
    if factor.eval_method is LOOKUP:
        text = names.get(factor.expr) or in_formula(factor.expr, names)
    else:
        text = in_formula(factor.expr, names)
    return Factor(text, eval_method=factor.eval_method, token=factor.token)


def variables_of(terms: SimpleFormula, names: Sequence[str]) -> list[str]:
    """The columns that the terms use, in the order of ``names``."""
    found = {
        name
        for term in terms
        for factor in term.factors
        for name, is_called in names_in(factor)
        if not is_called
    }
    return [name for name in names if name in found]


def read_names(part: str) -> list[tuple[str, bool]]:
    """All names in a part of a formula, columns or not, and whether they are called."""
    terms = _terms(part, part)
    return [name for term in terms for factor in term.factors for name in names_in(factor)]


@functools.lru_cache(maxsize=CACHED_TEXTS)
def is_column(part: str) -> bool:
    """Whether a part of a formula is the name of a column and nothing else."""
    source, columns = _in_python(part, part)
    return source.strip() in columns or bool(re.fullmatch(r"[^\W\d][\w.]*", source.strip()))


def names_in(factor: Factor) -> list[tuple[str, bool]]:
    """Names in a factor, and whether they are called."""
    if factor.eval_method is LOOKUP:
        return [(factor.expr, False)]
    return columns_in(factor.expr) if factor.eval_method is PYTHON else []


def _check_factor(factor: Factor, formula: str, names: Sequence[str]) -> None:
    start = 0 if factor.token is None else factor.token.source_start or 0
    if factor.eval_method is PYTHON:
        try:
            tree = ast.parse(in_python(factor.expr)[0], mode="eval")
        except SyntaxError as error:
            raise FormulaError(
                f"{factor.expr!r} is no valid Python: {error.msg}.", formula, start
            ) from None
        if any(isinstance(node, ast.BitXor) for node in ast.walk(tree)):
            raise FormulaError(
                f"{factor.expr!r} has '^', which is no power in Python: write **.",
                formula,
                formula.find("^", start),
            )
    for name, is_called in names_in(factor):
        if name == "Q" and is_called:
            raise FormulaError(
                "Q() takes the name of a column in quotes, as backticks do: Q('my column').",
                formula,
                find_name(name, formula, start),
            )
        if is_called and not is_function(name):
            message = f"{name!r} is no known function. {_instead(name)}"
            if name in names:
                message = f"{name!r} is a column of X, not a function: is a '+' missing?"
            raise FormulaError(
                message,
                formula,
                find_name(name, formula, start),
            )
        if is_called or name in names:
            continue
        if factor.eval_method is PYTHON and is_function(name):
            continue
        raise unknown_column(name, formula, find_name(name, formula, start), names)


def _instead(name: str) -> str:
    """What to write in place of an unknown function."""
    if name in FROM_R:
        return f"In its place: {FROM_R[name]}."
    if isinstance(getattr(np, name, None), np.ufunc):
        return f"In its place: np.{name}."
    near = difflib.get_close_matches(name, list(FUNCTIONS), n=1, cutoff=LIKELY_TYPO)
    if near:
        return f"In its place: {near[0]}."
    return f"Known are {', '.join(FUNCTIONS)}: put what else is computed into a column of X."


def unknown_column(name: str, formula: str, position: int, names: Sequence[str]) -> FormulaError:
    """The error for a name that is no column, with the nearest one."""
    texts = [str(column) for column in names]
    return FormulaError(
        f"The formula names {name!r}, which X does not have.{did_you_mean(name, texts)} Its "
        "columns are: "
        f"{', '.join(map(repr, texts)) or 'none'}.",
        formula,
        position,
    )


def message_of(error: Exception, part: str) -> tuple[str, int]:
    """The message of an error, and where it points: formulaic marks the place."""
    start = len(part) - len(part.lstrip())
    if isinstance(error, SyntaxError):
        place = part.find((error.text or "").strip() or part, start)
        offset = max((error.offset or 1) - 1, 0) if place >= 0 else 0
        return f"{error.msg}.", min(max(place, start) + offset, len(part) - 1)
    message, _, context = str(error).partition("\n\n")
    marked = re.search("[⧛\x1b]", context)
    position = marked.start() if marked else start
    return re.sub("\x1b\\[[\\d;]*m|[⧛⧚]", "", message), position


def term_text(term: Term) -> str:
    """A term as a formula has it."""
    return ":".join(_factor_text(factor) for factor in term.factors)


def _factor_text(factor: Factor) -> str:
    if factor.eval_method is LOOKUP:
        return quoted(factor.expr)
    if factor.eval_method is PYTHON:
        tree = ast.parse(in_python(factor.expr)[0], mode="eval").body
        return factor.expr if _is_read_without_braces(tree) else f"{{{factor.expr}}}"
    return factor.expr


def _is_read_without_braces(node: ast.expr) -> bool:
    """Whether an expression is a call of, or an index into, what has a name."""
    if isinstance(node, ast.Call):
        return _is_dotted_name(node.func) or _is_read_without_braces(node.func)
    return isinstance(node, ast.Subscript) and (
        _is_dotted_name(node.value) or _is_read_without_braces(node.value)
    )


def _is_dotted_name(node: ast.expr) -> bool:
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)
