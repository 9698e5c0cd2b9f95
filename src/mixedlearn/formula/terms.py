"""Terms: what formulaic reads in a part of a formula, checked against the columns there are."""

from __future__ import annotations

import ast
import builtins
import difflib
import functools
import re
from collections.abc import Iterator, Sequence

import numpy as np
from formulaic import Formula, SimpleFormula
from formulaic.errors import FormulaicError
from formulaic.parser.types import Factor, Term
from formulaic.transforms import TRANSFORMS

from mixedlearn.exceptions import did_you_mean
from mixedlearn.formula.brackets import FormulaError
from mixedlearn.formula.parser import find_name, quoted

# What users of R look for, and where it is.
FROM_R = {
    "factor": "C(x) makes a column categorical",
    "as.factor": "C(x) makes a column categorical",
    "ns": "cr(x, df=...) is a natural cubic spline",
    "relevel": "C(x, Treatment('first'))",
    "ifelse": "np.where(condition, yes, no)",
    "diag": "(x || g) for effects without covariances",
    "us": "(x | g), whose covariances are free",
}
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
    try:
        terms = _parsed(part, tuple(others) if "." in part else ())
    except (FormulaicError, AttributeError, SyntaxError, TypeError, ValueError) as error:
        if of_r := re.search(r"\bas\.\w+(?=\()", part):  # "as" cannot be parsed as Python
            message = f"{of_r[0]!r} is no known function. {_instead(of_r[0])}"
            raise FormulaError(message, formula, of_r.start()) from None
        message, position = message_of(error, part)
        if message.startswith("Missing operator"):
            message += " Names that are no identifiers need backticks."
        raise FormulaError(f"The formula cannot be read: {message}", formula, position) from None
    if not isinstance(terms, SimpleFormula):
        raise FormulaError("The formula cannot be read: it has several parts.", formula, 0)
    for term in terms:
        for factor in term.factors:
            _check_factor(factor, formula, names)
    return terms


@functools.lru_cache(maxsize=CACHED_PARTS)
def _parsed(part: str, others: tuple[str, ...]) -> Formula:
    """What formulaic reads in a part. Fits share it, and none changes it."""
    return Formula(part, _context={"__formulaic_variables_available__": list(others)})


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


def names_in(factor: Factor) -> Iterator[tuple[str, bool]]:
    """Names in a factor, and whether they are called."""
    if factor.eval_method is LOOKUP:
        yield factor.expr, False
    elif factor.eval_method is PYTHON:
        in_backticks: dict[str, str] = {}

        def replaced(match: re.Match[str]) -> str:
            return in_backticks.setdefault(match[1], f"_backticks_{len(in_backticks)}")

        tree = ast.parse(re.sub(r"`([^`]+)`", replaced, factor.expr), mode="eval")
        original = {short: name for name, short in in_backticks.items()}
        called = set()
        bound = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                called.add(node.func)
                if node.func.id == "Q" and node.args and isinstance(node.args[0], ast.Constant):
                    yield str(node.args[0].value), False
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                bound.add(node.id)
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id not in bound:
                yield original.get(node.id, node.id), node in called


def _check_factor(factor: Factor, formula: str, names: Sequence[str]) -> None:
    start = 0 if factor.token is None else factor.token.source_start or 0
    if factor.eval_method is PYTHON:
        try:
            tree = ast.parse(re.sub(r"`[^`]+`", "_", factor.expr), mode="eval")
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
        if is_called and name not in TRANSFORMS and not hasattr(builtins, name):
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
        if factor.eval_method is PYTHON and (name in TRANSFORMS or hasattr(builtins, name)):
            continue
        raise unknown_column(name, formula, find_name(name, formula, start), names)


def _instead(name: str) -> str:
    """What to write in place of an unknown function."""
    if name in FROM_R:
        return f"In its place: {FROM_R[name]}."
    if isinstance(getattr(np, name, None), np.ufunc):
        return f"In its place: np.{name}."
    near = difflib.get_close_matches(name, list(TRANSFORMS), n=1, cutoff=LIKELY_TYPO)
    if near:
        return f"In its place: {near[0]}."
    return f"Known are {', '.join(TRANSFORMS)}: put what else is computed into a column of X."


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
        tree = ast.parse(re.sub(r"`[^`]+`", "_", factor.expr), mode="eval").body
        return factor.expr if isinstance(tree, (ast.Call, ast.Subscript)) else f"{{{factor.expr}}}"
    return factor.expr
