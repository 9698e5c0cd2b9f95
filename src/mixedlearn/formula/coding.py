"""Coding: columns of a data frame to the numeric columns of formula terms, by formulaic.

What formulaic learns in `fit` (categories, knots, the basis of a polynomial) is kept in its model
specification, which holds no rows. Beyond formulaic, booleans are categories, and what it would
drop, guess or turn into a missing value is refused with the column and the row.

Terms that are columns of numbers as they stand are taken without formulaic, which would take
longer than the fit: there is nothing to learn of them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from formulaic import ModelSpec, SimpleFormula
from formulaic.errors import DataMismatchWarning
from formulaic.materializers import PandasMaterializer
from formulaic.materializers.types import EvaluatedFactor, FactorValues
from formulaic.parser.types import Factor, Term
from formulaic.utils.null_handling import find_nulls
from formulaic.utils.variables import Variable
from interface_meta import override
from numpy.typing import NDArray

from mixedlearn.data.frames import dense
from mixedlearn.data.labels import Labels, check_numbers, in_numpy_type, shown
from mixedlearn.data.levels import look_up
from mixedlearn.data.numbers import (
    DATES,
    NUMBERS,
    TIME_DIFFERENCES,
    inexact_note,
    kind_of_objects,
    numbers_of_objects,
)
from mixedlearn.formula.brackets import FormulaError
from mixedlearn.formula.expressions import compiled, real
from mixedlearn.formula.other_rows import depends_on_other_rows
from mixedlearn.formula.parser import quoted
from mixedlearn.formula.terms import message_of, names_in, term_text, variables_of

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Coding:
    """The numeric columns of some terms, with what was learnt from the rows of `fit`.

    Attributes
    ----------
    formula : SimpleFormula
        The terms, the intercept among them.
    learnt : ModelSpec or None
        formulaic's terms, categories and states of transformations; None if every term is a column
        of numbers as it stands.
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
    notes : tuple of str
        What users should know of how the rows of `fit` were read.
    across_rows : tuple of str
        Expressions whose value for a row depends on the other rows.
    """

    formula: SimpleFormula
    learnt: ModelSpec | None
    names: tuple[str, ...]
    variables: tuple[str, ...]
    has_intercept: bool
    factor_names: dict[tuple[str, bool], tuple[str, ...]]
    spans_intercept: dict[str, bool]
    notes: tuple[str, ...] = ()
    across_rows: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """The state to save; terms that are plain columns as text, for formats beside pickle."""
        state = {own.name: getattr(self, own.name) for own in fields(self)}
        if self.is_plain:
            state["formula"] = [
                [(factor.expr, factor.eval_method.value) for factor in term.factors]
                for term in self.formula
            ]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        for name, value in state.items():
            object.__setattr__(self, name, value)
        if self.is_plain:
            terms = [
                Term([Factor(text, eval_method=method) for text, method in term])
                for term in state["formula"]
            ]
            object.__setattr__(self, "formula", SimpleFormula(terms))

    @property
    def is_plain(self) -> bool:
        """Whether every term is a column of numbers as it stands."""
        return self.learnt is None

    @property
    def spec(self) -> ModelSpec:
        """The specification of formulaic; that of plain columns is the same for any rows."""
        if self.learnt is not None:
            return self.learnt
        zeros = pd.DataFrame(dict.fromkeys(self.variables, np.zeros(1)))
        return _learn(self.formula, zeros, None)[0].learnt

    @property
    def categories(self) -> dict[str, list[Any]]:
        """The categories of every expression that has some."""
        states = {} if self.learnt is None else self.learnt.encoder_state
        return {
            expression: list(state["categories"])
            for expression, (_, state) in states.items()
            if "categories" in state
        }

    @property
    def has_single(self) -> bool:
        """Whether an expression has a single category, and so perhaps no column."""
        return any(len(own) == 1 for own in self.categories.values())

    @property
    def terms(self) -> list[Term]:
        """The terms of the formula but for the intercept."""
        return [term for term in self.formula if term.degree]

    def columns(
        self,
        X: pd.DataFrame,
        *,
        is_random: bool = False,
        is_batch: bool = False,
        unknown: dict[str, Any] | None = None,
    ) -> list[FloatArray]:
        """The columns for these rows, each of shape (n,), in the order of ``names``.

        ``is_random`` says that they have random effects alone, and ``is_batch`` that they are
        further rows of the fit, which a message tells. Categories that `fit` did not see are
        refused, or are the average of those that it saw if there is a dict for ``unknown``, which
        gets the first of each expression.
        """
        plain = plain_columns(X, self.names) if self.is_plain else None
        if plain is not None:
            return plain
        spec = self.spec
        materialiser = _Materialiser(_plain(X, self.variables))
        materialiser.is_random = is_random
        materialiser.is_batch = is_batch
        materialiser.unknown = unknown
        matrix = _materialise(materialiser, spec)
        return _without_intercept(matrix, spec)


def learn_coding(
    terms: SimpleFormula, X: pd.DataFrame, formula: str, *, keeps_categories: bool = False
) -> tuple[Coding, list[FloatArray]]:
    """Code the rows of `fit`; the second value is the columns, as `Coding.columns`.

    With ``keeps_categories`` those count that a column declares and no row has.
    """
    variables = tuple(variables_of(terms, list(X.columns)))
    names = _plain_names(terms)
    series = None if names is None else _plain_series(X, names)
    plain = None if series is None else _floats(series)
    if names is not None and series is not None and plain is not None:
        has_intercept = len(names) < len(terms)
        notes = _inexact_notes(dict(zip(names, series, strict=True)))
        return Coding(terms, None, names, variables, has_intercept, {}, {}, notes), plain
    plain_rows = _plain(X, variables, keeps_categories=keeps_categories)
    materialiser, matrix = _learn(terms, plain_rows, formula)
    learnt = materialiser.learnt
    read = materialiser.data
    # What was no integer of numpy's may have been one before it became a float.
    integers = {
        name: read[name] if read[name].dtype.kind in "iu" else X[name]
        for name in materialiser.as_numbers
    }
    across_rows = _row_notes(terms, materialiser)
    notes = (*_inexact_notes(integers), *across_rows.values())
    names = tuple(name for term, _, columns in learnt.structure if term.degree for name in columns)
    coding = Coding(
        formula=terms,
        learnt=learnt,
        names=names,
        variables=variables,
        has_intercept=len(names) < matrix.shape[1],
        factor_names=materialiser.factor_names,
        spans_intercept={
            expression: bool(
                factor.metadata.spans_intercept
                # A spline may span it as well.
                and factor.metadata.kind is Factor.Kind.CATEGORICAL
            )
            for expression, factor in materialiser.factor_cache.items()
        },
        notes=notes,
        across_rows=tuple(across_rows),
    )
    return coding, _without_intercept(matrix, learnt)


def how_to_declare(expression: str, X: pd.DataFrame) -> str:
    """What users write to declare the categories of an expression of columns of X."""
    if expression not in X.columns:
        return "C(..., levels=[...])"
    return f"frame[{expression!r}] = pd.Categorical(frame[{expression!r}], categories=[...])"


def rows_of_categories(terms: SimpleFormula, X: pd.DataFrame, formula: str) -> set[int]:
    """Places of rows that have every category of the terms' expressions, the first of each."""
    names = _plain_names(terms)
    if names is not None and _plain_series(X, names) is not None:
        return set()
    materialiser, _ = _learn(terms, _plain(X, variables_of(terms, list(X.columns))), formula)
    found: set[int] = set()
    for factor in materialiser.factor_cache.values():
        if factor.metadata.kind is Factor.Kind.CATEGORICAL:
            (categories,) = _category_labels(factor).parts
            found.update(np.flatnonzero(~categories.duplicated()).tolist())
    return found


def _plain_names(terms: SimpleFormula) -> tuple[str, ...] | None:
    """The columns that terms are, if each but the intercept is one; else None."""
    names = []
    for term in terms:
        if len(term.factors) > 1:
            return None
        factor = term.factors[0]
        if factor.eval_method is Factor.EvalMethod.LOOKUP:
            names.append(factor.expr)
        elif term.degree:
            return None
    return tuple(names)


def plain_columns(X: pd.DataFrame, names: Sequence[str]) -> list[FloatArray] | None:
    """Columns of X, without a copy where they are floats; None if formulaic is to look at one.

    That is one of another type, which may be categories, or with a missing value.
    """
    series = _plain_series(X, names)
    return None if series is None else _floats(series)


def _plain_series(X: pd.DataFrame, names: Sequence[str]) -> list[pd.Series] | None:
    """Columns of X that are numbers of numpy's; None if one is not."""
    found = []
    for name in names:
        column = X[name]
        dtype = getattr(column, "dtype", None)  # several columns of one name have none
        if not isinstance(dtype, np.dtype) or dtype.kind not in "iuf":
            return None
        found.append(column)
    return found


def _floats(series: Sequence[pd.Series]) -> list[FloatArray] | None:
    """Columns of numbers as floats; None if a value is missing."""
    found = []
    for column in series:
        values = column.to_numpy(dtype=np.float64)
        if column.dtype.kind == "f" and np.isnan(values).any():
            return None
        found.append(values)
    return found


def _without_intercept(matrix: FloatArray, spec: ModelSpec) -> list[FloatArray]:
    """The columns of a model matrix but for the intercept."""
    found: list[FloatArray] = []
    start = 0
    for term, _, columns in spec.structure or []:
        if term.degree:
            found.extend(matrix.T[start : start + len(columns)])
        start += len(columns)
    return found


def _learn(
    terms: SimpleFormula, X: pd.DataFrame, formula: str | None
) -> tuple[_Materialiser, FloatArray]:
    """The materialiser that has learnt the terms from some rows, and their model matrix."""
    materialiser = _Materialiser(X)
    spec = ModelSpec(formula=terms, na_action="raise", output="numpy")
    return materialiser, _materialise(materialiser, spec, formula)


class _Materialiser(PandasMaterializer):
    """formulaic's materialiser, with booleans as categories and errors instead of guesses."""

    @override
    def _init(self) -> None:
        super()._init()
        self.factor_names: dict[tuple[str, bool], tuple[str, ...]] = {}
        self.is_random = False
        self.is_batch = False
        self.unknown: dict[str, Any] | None = None
        # The columns that are taken as numbers.
        self.as_numbers: list[str] = []

    @override
    def _lookup(self, name: str) -> tuple[Any, set[Variable]]:
        found, variables = super()._lookup(name)
        found = numbers_of_objects(found)
        if found.dtype.kind in "iuf":
            self.as_numbers.append(name)
        return _real_numbers(found), variables

    @override
    def _evaluate(self, expr: str, metadata: Any, spec: ModelSpec) -> tuple[Any, set[Variable]]:
        """The value of an expression, in real numbers, with a state for each of its functions."""
        expression = compiled(expr, tuple(self.data.columns))
        self.as_numbers += [
            name
            for name, is_real in expression.columns.values()
            if is_real and self.data[name].dtype.kind in "iuf"
        ]
        value = expression.value(self.data, spec.transform_state.setdefault(expr, {}))
        plain = value.__wrapped__ if isinstance(value, FactorValues) else value
        if isinstance(plain, np.ndarray) and plain.dtype.kind in "OUS" and plain.ndim == 1:
            plain = pd.Series(plain, dtype=object)
            metadata = getattr(value, "__formulaic_metadata__", None)
            value = plain if metadata is None else FactorValues(plain, metadata=metadata)
        return _real_numbers(value), set()

    @override
    def _is_categorical(self, values: Any) -> bool:
        is_bool = isinstance(values, pd.Series) and values.dtype == bool
        return is_bool or super()._is_categorical(values)

    @override
    def _check_for_nulls(self, name: str, values: Any, na_action: Any, drop_rows: Any) -> None:
        rows = find_nulls(values)
        if rows:
            row = min(rows)
            if name in self.data.columns:
                raise _Refused(
                    f"The column {name!r} of the formula has a missing value (NaN or None), the "
                    f"first at row {row}: drop or impute such rows."
                )
            raise _Refused(
                f"The term {name!r} of the formula is NaN, first at row {row}: a column that it "
                "uses has a missing value there (drop or impute such rows), or there is no such "
                "number, as the logarithm of a negative one."
            )

    @override
    def _evaluate_factor(self, factor: Factor, spec: ModelSpec, drop_rows: Any) -> EvaluatedFactor:
        found = super()._evaluate_factor(factor, spec, drop_rows)
        self._check_rows(factor, found)
        if what := _no_number(found):
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
        kind, state = spec.encoder_state.get(factor.expr, (factor.metadata.kind, {}))
        if kind is not factor.metadata.kind:
            raise _Refused(
                f"{factor.expr!r} of the formula was {kind.value} in fit, and is "
                f"{factor.metadata.kind.value} now: convert it as it was."
            )
        is_unknown, categories = None, pd.Index([])
        if kind is Factor.Kind.CATEGORICAL and "categories" in state:
            categories = pd.Index(state["categories"], tupleize_cols=False)
            places = self._places(factor, categories)
            is_unknown = places < 0
            # Those of fit, where others are equal: 1 and True, a date and its midnight.
            known_values = pd.Series(
                pd.Categorical.from_codes(np.maximum(places, 0), categories), index=self.data.index
            )
            factor = factor.replace(values=FactorValues(known_values, metadata=factor.metadata))
        elif kind is Factor.Kind.CATEGORICAL:
            _check_categories(factor)
        is_new = "categories" not in state
        encoded = super()._encode_evaled_factor(factor, spec, drop_rows, reduced_rank=reduced_rank)
        if is_new:
            _, state = spec.encoder_state.get(factor.expr, (kind, {}))
            _refuse_lost_categories(factor.expr, state.get("categories", ()))
        self.factor_names[factor.expr, reduced_rank] = tuple(encoded)
        if is_unknown is None or not is_unknown.any():
            return encoded
        average = self._average(factor, categories, spec, reduced_rank)
        return {
            name: pd.Series(
                np.where(is_unknown, average[name], np.asarray(column, dtype=np.float64)),
                index=self.data.index,
            )
            for name, column in encoded.items()
        }

    def _places(self, factor: EvaluatedFactor, categories: pd.Index) -> NDArray[np.integer]:
        """The rows' places among the categories of `fit`, -1 for others, which may be refused."""
        values = _category_labels(factor)
        places = look_up(values, categories)
        if (places >= 0).all():
            return places
        row = int(np.argmax(places < 0))
        if self.unknown is not None:
            self.unknown.setdefault(factor.expr, values.at(row))
            return places
        known = ", ".join(shown(level) for level in categories[:10])
        more = ", ..." if len(categories) > 10 else ""
        if self.is_batch:
            raise _Refused(
                f"The category {shown(values.at(row))} of {factor.expr!r} (row {row}) comes too "
                f"late: the first batch had or declared {known}{more}, and fixed the columns of "
                "the model. Begin anew, and declare all categories in the first batch: "
                f"{how_to_declare(factor.expr, self.data)}."
            )
        hint = " predict with handle_unknown='average' takes their average."
        if self.is_random:
            hint = " predict(..., random_effects='none') needs none."
        raise _Refused(
            f"The category {shown(values.at(row))} of {factor.expr!r} (row {row}) was not "
            f"seen in fit, so it has no {'random' if self.is_random else 'fixed'} effect: "
            f"the categories are {known}{more}.{hint}"
        )

    def _average(
        self, factor: EvaluatedFactor, categories: pd.Index, spec: ModelSpec, reduced_rank: bool
    ) -> dict[str, float]:
        """The columns of a categorical expression, averaged over its categories."""
        every = pd.Series(pd.Categorical.from_codes(np.arange(len(categories)), categories))
        one_each = factor.replace(values=FactorValues(every, metadata=factor.metadata))
        # What is encoded is kept by expression, and these are other rows.
        kept = self.encoded_cache
        self.encoded_cache: dict[Any, Any] = {}
        columns = super()._encode_evaled_factor(one_each, spec, (), reduced_rank=reduced_rank)
        self.encoded_cache = kept
        return {
            name: float(np.mean(np.asarray(column, dtype=np.float64)))
            for name, column in columns.items()
        }


def _check_categories(factor: EvaluatedFactor) -> None:
    try:
        check_numbers(_category_labels(factor).parts[0], f"The categories of {factor.expr!r}")
    except ValueError as error:
        raise _Refused(str(error)) from error


def _category_labels(factor: EvaluatedFactor) -> Labels:
    values = pd.Index(np.asarray(factor.values), tupleize_cols=False)
    return Labels(factor.expr, (in_numpy_type(values, factor.expr),), (factor.expr,))


def _refuse_lost_categories(expression: str, categories: Sequence[Any]) -> None:
    """Refuse categories whose columns formulaic would drop or put in place of each other."""
    texts: dict[str, Any] = {}
    for category in categories:
        text = str(category)
        if isinstance(category, str) and text.startswith("__"):
            raise _Refused(
                f"The category {text!r} of {expression!r} starts with '__', of which the formula "
                "makes no column: rename it."
            )
        if text in texts:
            raise _Refused(
                f"The categories {shown(texts[text])} and {shown(category)} of {expression!r} have "
                "the same text: rename one of them."
            )
        texts[text] = category


def _real_numbers(value: Any) -> Any:
    """Numbers of any type as floats; booleans of a column stay what they are, categories."""
    is_bool = isinstance(value, pd.Series) and value.dtype.kind == "b"
    return value if is_bool else real(value)


def _no_number(found: EvaluatedFactor) -> str:
    """What the values of a factor are that are neither numbers nor categories; else empty."""
    values = found.values.__wrapped__
    dtype = getattr(values, "dtype", np.dtype(float))
    if found.metadata.kind is Factor.Kind.NUMERICAL and dtype.kind not in "biuf":
        names = {"M": DATES, "m": TIME_DIFFERENCES, "c": "complex numbers"}
        return names.get(dtype.kind, f"values of type {dtype}")
    # C() makes categories of anything, by an encoder of its own.
    if dtype.kind == "O" and found.metadata.encoder is None and isinstance(values, pd.Series):
        kind = kind_of_objects(values)
        return "" if kind == NUMBERS else kind
    return ""


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
        message, _ = message_of(error, "")
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


def _inexact_notes(columns: Mapping[str, pd.Series]) -> tuple[str, ...]:
    """A note for every column of integers that floats do not hold."""
    notes = (inexact_note(name, column) for name, column in columns.items())
    return tuple(note for note in notes if note)


def _row_notes(terms: SimpleFormula, materialiser: _Materialiser) -> dict[str, str]:
    """A note for every expression whose value for a row depends on the other rows."""
    data = materialiser.data
    notes = {}
    for factor in dict.fromkeys(factor for term in terms for factor in term.factors):
        if factor.eval_method is not Factor.EvalMethod.PYTHON:
            continue
        expression = compiled(factor.expr, tuple(data.columns))
        values = materialiser.factor_cache[factor.expr].values
        states = materialiser.learnt.transform_state[factor.expr]
        if not expression.is_row_wise and depends_on_other_rows(expression, values, data, states):
            columns = [quoted(name) for name, _ in names_in(factor) if name in data.columns]
            notes[factor.expr] = (
                f"{term_text(Term([factor]))!r} of the formula depends on the other rows: "
                "predict computes it anew, so the prediction for a row changes with the rows that "
                f"come with it. Write center({(columns or ['x'])[0]}) or another function that "
                "keeps what fit learns, or put the values into a column of X."
            )
    return notes


def _plain(
    X: pd.DataFrame, names: Sequence[str], *, keeps_categories: bool = False
) -> pd.DataFrame:
    """Some columns, in the types of numpy and as categories that occur, or that are declared."""
    columns = {}
    for name in names:
        values = X[name].reset_index(drop=True).infer_objects()
        is_category = isinstance(values.dtype, pd.CategoricalDtype)
        floats = numbers_of_objects(values)
        if floats is not values:
            # As categories they stay what they are, if floats cannot tell them apart.
            values = floats if floats.nunique() == values.nunique() else values
        values = dense(values)
        if values.dtype == np.float16:  # of which pandas makes no categories
            values = values.astype(np.float64)
        if is_category:
            values = values if keeps_categories else values.cat.remove_unused_categories()
        elif pd.api.types.is_bool_dtype(values.dtype) and not values.isna().any():
            values = values.astype(bool)
        elif pd.api.types.is_string_dtype(values.dtype):
            values = values.astype(object)
        elif pd.api.types.is_extension_array_dtype(values.dtype) and values.dtype.kind in "iuf":
            is_whole = values.dtype.kind in "iu" and not values.isna().any()
            dtype = getattr(values.dtype, "numpy_dtype", np.float64) if is_whole else np.float64
            values = pd.Series(values.to_numpy(dtype=dtype, na_value=np.nan))
        elif isinstance(values.dtype, pd.ArrowDtype) and values.dtype.kind not in "mM":
            values = values.astype(object)
        columns[name] = values
    return pd.DataFrame(columns, index=pd.RangeIndex(len(X)))
