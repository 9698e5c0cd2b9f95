"""Coding: columns of a data frame to the numeric columns of formula terms, by formulaic.

What formulaic learns in `fit` (categories, knots, the basis of a polynomial) is kept in its model
specification, which holds no rows. Beyond formulaic, booleans are categories, and what it would
drop, guess or turn into a missing value is refused with the column and the row.
"""

from __future__ import annotations

import ast
import builtins
import difflib
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula, ModelSpec, SimpleFormula
from formulaic.errors import DataMismatchWarning, FormulaicError
from formulaic.materializers import PandasMaterializer
from formulaic.materializers.types import EvaluatedFactor
from formulaic.parser.types import Factor, Term
from formulaic.transforms import TRANSFORMS
from formulaic.utils.null_handling import find_nulls
from interface_meta import override
from numpy.typing import NDArray

from mixedlearn.formula.parser import FormulaError, find_name, quoted
from mixedlearn.grouping import shown

FloatArray = NDArray[np.float64]

# What users of R look for, and where it is.
FROM_R = {
    "factor": "C(x) makes a column categorical",
    "as.factor": "C(x) makes a column categorical",
    "ns": "cr(x, df=...) is a natural cubic spline",
    "sqrt": "np.sqrt(x)",
    "abs": "np.abs(x)",
}
LOOKUP, PYTHON = Factor.EvalMethod.LOOKUP, Factor.EvalMethod.PYTHON


@dataclass(frozen=True, slots=True, eq=False)
class Coding:
    """The numeric columns of some terms, with what was learnt from the rows of `fit`.

    Attributes
    ----------
    spec : ModelSpec
        formulaic's terms, categories and states of transformations.
    names : tuple of str
        Names of the columns, the intercept not among them.
    variables : tuple of str
        The columns of X that are used.
    has_intercept : bool
        Whether the terms have an intercept.
    factor_names : dict of (str, bool) to tuple of str
        For every expression, coded fully (False) or by contrasts (True), the names of its columns.
    spans_intercept : dict of str to bool
        For every expression whether it is categorical, so that its columns sum to a constant.
    """

    spec: ModelSpec
    names: tuple[str, ...]
    variables: tuple[str, ...]
    has_intercept: bool
    factor_names: dict[tuple[str, bool], tuple[str, ...]]
    spans_intercept: dict[str, bool]

    @property
    def terms(self) -> list[Term]:
        """The terms of the formula but for the intercept."""
        return [term for term in self.spec.formula if term.degree]

    def columns(self, X: pd.DataFrame) -> FloatArray:
        """The columns for these rows, shape (n, len(names))."""
        materialiser = _Materialiser(_plain(X, self.variables))
        return self.without_intercept(_materialise(materialiser, self.spec))

    def without_intercept(self, matrix: FloatArray) -> FloatArray:
        """The columns of a model matrix but for the intercept."""
        start = 0
        for term, _, columns in self.spec.structure or []:
            if not term.degree:
                return np.delete(matrix, slice(start, start + len(columns)), axis=1)
            start += len(columns)
        return matrix


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
        terms = Formula(part, _context={"__formulaic_variables_available__": list(others)})
    except (FormulaicError, AttributeError, SyntaxError, TypeError, ValueError) as error:
        message, position = _of_formulaic(error, part)
        raise FormulaError(f"The formula cannot be read: {message}", formula, position) from error
    if not isinstance(terms, SimpleFormula):
        raise FormulaError("The formula cannot be read: it has several parts.", formula, 0)
    for term in terms:
        for factor in term.factors:
            _check_factor(factor, formula, names)
    return terms


def learn_coding(terms: SimpleFormula, X: pd.DataFrame, formula: str) -> tuple[Coding, FloatArray]:
    """Code the rows of `fit`; the second value is the columns."""
    variables = variables_of(terms, list(X.columns))
    materialiser = _Materialiser(_plain(X, variables))
    spec = ModelSpec(formula=terms, na_action="raise", output="numpy")
    matrix = _materialise(materialiser, spec, formula)
    learnt = materialiser.learnt
    names = [name for term, _, columns in learnt.structure if term.degree for name in columns]
    coding = Coding(
        spec=learnt,
        names=tuple(names),
        variables=tuple(variables),
        has_intercept=len(names) < matrix.shape[1],
        factor_names=materialiser.factor_names,
        spans_intercept={
            expression: factor.metadata.spans_intercept
            for expression, factor in materialiser.factor_cache.items()
        },
    )
    return coding, coding.without_intercept(matrix)


class _Materialiser(PandasMaterializer):
    """formulaic's materialiser, with booleans as categories and errors instead of guesses."""

    @override
    def _init(self) -> None:
        super()._init()
        self.factor_names: dict[tuple[str, bool], tuple[str, ...]] = {}

    @override
    def _is_categorical(self, values: Any) -> bool:
        is_bool = isinstance(values, pd.Series) and values.dtype == bool
        return is_bool or super()._is_categorical(values)

    @override
    def _check_for_nulls(self, name: str, values: Any, na_action: Any, drop_rows: Any) -> None:
        rows = find_nulls(values)
        if rows:
            column = "column" if name in self.data.columns else "term"
            raise _Refused(
                f"The {column} {name!r} of the formula has a missing value (NaN or None), the "
                f"first at row {min(rows)}: drop or impute such rows."
            )

    @override
    def _evaluate_factor(self, factor: Factor, spec: ModelSpec, drop_rows: Any) -> EvaluatedFactor:
        found = super()._evaluate_factor(factor, spec, drop_rows)
        self._check_rows(factor, found)
        dtype = getattr(found.values, "dtype", np.dtype(float))
        if found.metadata.kind is Factor.Kind.NUMERICAL and dtype.kind not in "biuf":
            what = {"M": "dates", "m": "time differences", "c": "complex numbers"}.get(
                dtype.kind, f"values of type {dtype}"
            )
            raise _Refused(
                f"{factor.expr!r} of the formula is not numeric: it holds {what}. Convert it to "
                "numbers, or write C(...) for categories."
            )
        return found

    def _check_rows(self, factor: Factor, found: EvaluatedFactor) -> None:
        """Refuse an expression that has not a value for each row, in their order."""
        values = found.values.__wrapped__
        if found.metadata.kind is Factor.Kind.CONSTANT or isinstance(values, dict):
            return
        is_aligned = not isinstance(values, pd.Series) or values.index.equals(self.data.index)
        if np.ndim(values) == 0 or len(values) != self.nrows or not is_aligned:
            raise _Refused(
                f"{factor.expr!r} of the formula has not one value for each row of X in their "
                "order: put it into a column of X."
            )

    @override
    def _encode_evaled_factor(
        self, factor: EvaluatedFactor, spec: ModelSpec, drop_rows: Any, reduced_rank: bool = False
    ) -> dict[str, Any]:
        kind, state = spec.encoder_state.get(factor.expr, (None, {}))
        if kind is Factor.Kind.CATEGORICAL and "categories" in state:
            values = pd.Series(np.asarray(factor.values))
            is_known = values.isin(state["categories"])
            if not is_known.all():
                row = int(np.argmin(is_known))
                known = ", ".join(shown(level) for level in state["categories"][:10])
                more = ", ..." if len(state["categories"]) > 10 else ""
                raise _Refused(
                    f"The category {shown(values[row])} of {factor.expr!r} (row {row}) was not "
                    f"seen in fit, so it has no fixed effect: the categories are {known}{more}."
                )
        encoded = super()._encode_evaled_factor(factor, spec, drop_rows, reduced_rank=reduced_rank)
        self.factor_names[factor.expr, reduced_rank] = tuple(encoded)
        return encoded


class _Refused(ValueError):
    """An error of ours, among those of formulaic."""


def _materialise(
    materialiser: _Materialiser, spec: ModelSpec, formula: str | None = None
) -> FloatArray:
    """The model matrix; ``materialiser.learnt`` is then what it was made with."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DataMismatchWarning)
            matrix = materialiser.get_model_matrix(spec)
        materialiser.learnt = matrix.model_spec
        return np.asarray(matrix, dtype=np.float64)
    except _Refused as error:
        raise ValueError(str(error)) from error.__cause__
    except DataMismatchWarning as error:
        message = str(error).partition(": ")[2].partition(". They")[0]
        raise ValueError(
            f"C(..., levels=...) of the formula leaves out categories that X has: {message}."
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        # An expression is Python, and may raise anything.
        message, _ = _of_formulaic(error, "")
        for term in spec.formula:
            for factor in term.factors:
                token = factor.token
                if formula is not None and f"`{factor}`" in message and token is not None:
                    message = re.sub(
                        r"^Unable to evaluate factor `.*?`\. \[(.*)\]$", r"\1", message
                    )
                    raise FormulaError(
                        f"{factor.expr!r} cannot be computed from X: {message}.",
                        formula,
                        token.source_start or 0,
                    ) from error
        raise ValueError(f"The formula cannot be computed from X: {message}") from error


def _plain(X: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Some columns, in the types of numpy and as categories that occur."""
    columns = {}
    for name in names:
        values = X[name].reset_index(drop=True).infer_objects()
        if isinstance(values.dtype, pd.CategoricalDtype):
            values = values.cat.remove_unused_categories()
        elif pd.api.types.is_bool_dtype(values.dtype) and not values.isna().any():
            values = values.astype(bool)
        elif pd.api.types.is_string_dtype(values.dtype):
            values = values.astype(object)
        elif pd.api.types.is_extension_array_dtype(values.dtype) and values.dtype.kind in "iuf":
            values = pd.Series(values.to_numpy(dtype=np.float64, na_value=np.nan))
        columns[name] = values
    return pd.DataFrame(columns, index=pd.RangeIndex(len(X)))


def variables_of(terms: SimpleFormula, names: Sequence[str]) -> list[str]:
    """The columns that the terms use, in the order of ``names``."""
    found = {
        name
        for term in terms
        for factor in term.factors
        for name, is_called in _names(factor)
        if not is_called
    }
    return [name for name in names if name in found]


def _names(factor: Factor) -> Iterator[tuple[str, bool]]:
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
            ) from error
        if any(isinstance(node, ast.BitXor) for node in ast.walk(tree)):
            raise FormulaError(
                f"{factor.expr!r} has '^', which is no power in Python: write **.",
                formula,
                formula.find("^", start),
            )
    for name, is_called in _names(factor):
        if is_called and name not in TRANSFORMS and not hasattr(builtins, name):
            hint = FROM_R.get(name) or _nearest(name, list(TRANSFORMS))
            message = f"{name!r} is no known function.{f' In its place: {hint}.' if hint else ''}"
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


def unknown_column(name: str, formula: str, position: int, names: Sequence[str]) -> FormulaError:
    """The error for a name that is no column, with the nearest one."""
    texts = [str(column) for column in names]
    nearest = _nearest(name, texts)
    hint = f" Did you mean {nearest!r}?" if nearest else ""
    return FormulaError(
        f"The formula names {name!r}, which X does not have.{hint} Its columns are: "
        f"{', '.join(map(repr, texts)) or 'none'}.",
        formula,
        position,
    )


def _nearest(name: str, others: Sequence[str]) -> str | None:
    near = difflib.get_close_matches(name, others, n=1, cutoff=0.5)
    return near[0] if near else None


def _of_formulaic(error: Exception, part: str) -> tuple[str, int]:
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
