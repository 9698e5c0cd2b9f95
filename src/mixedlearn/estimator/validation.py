"""Validation of rows: from what a user passes to numeric columns and labels.

The estimator's half that talks to scikit-learn's checks. Errors name the column at fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing, check_array
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import column_or_1d, validate_data

from mixedlearn.covariance.structures import REGISTRY
from mixedlearn.data.frames import as_frame, is_frame
from mixedlearn.data.labels import Labels, as_labels, interaction, shown
from mixedlearn.data.numbers import DATES, TIME_DIFFERENCES, inexact_note, kind_of_object
from mixedlearn.formula import (
    CompiledFormula,
    NumberOfRow,
    as_pandas,
    response_columns,
    response_data,
)
from mixedlearn.specification import Specification, factor_name

FLOATS = [np.float64, np.float32]
_NO_NUMBERS = {DATES: "a date", TIME_DIFFERENCES: "a time difference"}


class StructureName(StrOptions):
    """The names of the covariance structures, those that are registered later among them."""

    def __init__(self) -> None:
        super().__init__(set(REGISTRY))

    def is_satisfied_by(self, val: Any) -> bool:
        """Whether a value is such a name."""
        return isinstance(val, str) and val in REGISTRY

    def __str__(self) -> str:
        return str(StrOptions(set(REGISTRY)))


def check_frame(estimator: BaseEstimator, X: Any, *, has_groups: bool, reset: bool) -> Any:
    """Check the shape and the names of X, and leave its columns as they are.

    Parameters
    ----------
    estimator : BaseEstimator
        Gets ``n_features_in_`` and ``feature_names_in_``, or is compared with them.
    X : array-like or DataFrame of shape (n, n_features)
    has_groups : bool
        Whether groups come beside X; X may have no columns then.
    reset : bool
        Whether this is `fit`.

    Returns
    -------
    DataFrame or ndarray
    """
    if is_table(X):
        # A table of numbers: scikit-learn's check would find nothing, and takes a while.
        pass
    elif not is_frame(X := as_frame(X)):
        _check_entries(X, "X")
        # A list of rows that mix numbers and labels would become text.
        mixes = isinstance(X, (list, tuple)) and np.asarray(X).dtype.kind in "US"
        X = check_array(
            X,
            dtype=object if mixes else None,
            ensure_all_finite=False,
            ensure_min_features=0 if has_groups else 1,
            estimator=estimator,
        )
    elif len(set(X.columns)) < len(X.columns):
        twice = next(name for name in X.columns if list(X.columns).count(name) > 1)
        raise ValueError(f"X has the column {twice!r} twice: give unique column names.")
    elif X.shape[0] == 0 or (X.shape[1] == 0 and not has_groups):
        check_array(np.empty(X.shape), estimator=estimator)
    return validate_data(estimator, X, skip_check_array=True, reset=reset)


def is_table(X: Any) -> bool:
    """Whether X is an array of numbers, in which scikit-learn's slow checks find nothing."""
    return type(X) is np.ndarray and X.ndim == 2 and X.size > 0 and X.dtype.kind in "biuf"


def lacks_only_others(estimator: BaseEstimator, X: Any, needed: Sequence[str]) -> bool:
    """Whether X is a data frame without some columns of `fit`, but with all that are needed."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is None or not _is_part(X, len(names)):
        return False
    own = set(X.columns)
    is_of_fit = own < set(names) and len(own) == len(X.columns) and len(X) > 0
    return is_of_fit and own.issuperset(needed)


def _is_part(X: Any, n_columns: int) -> bool:
    """Whether X is a data frame of fewer columns."""
    return is_frame(X) and X.shape[1] < n_columns


def formula_frame(X: Any, groups: Any) -> pd.DataFrame:
    """X as a data frame of which a formula can name columns."""
    if groups is not None:
        raise ValueError(
            "groups were passed, but the model is given by a formula, which names the grouping "
            "factors itself: write (1 | column) in it, and pass X with that column."
        )
    X = as_pandas(X)
    if not X.columns.is_unique:
        twice = X.columns[X.columns.duplicated()][0]
        raise ValueError(f"X has the column {twice!r} twice: give unique column names.")
    if len(X) == 0:
        check_array(np.zeros((0, 1)))
    return X


def column_names(X: Any) -> list[str]:
    """Names of the columns of X; x0, x1, ... where it has none that are text."""
    names = list(X.columns) if is_frame(X) else []
    if names and all(isinstance(name, str) for name in names):
        return names
    return [f"x{j}" for j in range(X.shape[1])]


def find_labels(
    X: Any,
    groups: Any,
    names: Sequence[str],
    group_columns: Sequence[tuple[int, ...]],
    factor_names: Sequence[str] | None = None,
    *,
    may_miss: bool = False,
) -> list[Labels]:
    """The labels of every factor, from the group columns or from the argument.

    Parameters
    ----------
    X : DataFrame or ndarray
    groups : array-like or None
        The argument of `fit` or `predict`.
    names : sequence of str
        Names of the columns of X.
    group_columns : sequence of tuple of int
        Columns of X that hold the labels of each factor.
    factor_names : sequence of str, optional
        The factors of a fitted model.
    may_miss : bool, default=False
        Whether labels may be missing.
    """
    if not group_columns:
        if groups is None:
            return []
        return as_labels(groups, len(X), factor_names, may_miss=may_miss)
    if groups is not None:
        listed = ", ".join(repr(factor_name(columns, names)) for columns in group_columns)
        raise ValueError(
            f"groups were given twice: the constructor names the column"
            f"{'s' if len(group_columns) > 1 else ''} {listed} and labels were passed as well. "
            "Use one of the two."
        )
    found = []
    for columns in group_columns:
        parts = [
            as_labels(_column(X, column, names), len(X), [names[column]], may_miss=may_miss)[0]
            for column in columns
        ]
        name = factor_name(columns, names)
        found.append(parts[0] if len(parts) == 1 else interaction(name, parts))
    return found


def _column(X: Any, column: int, names: Sequence[str]) -> Any:
    """A column by its position in `fit`; by its name in a frame that lacks others."""
    return _safe_indexing(X, names[column] if _is_part(X, len(names)) else column, axis=1)


def some_numeric_columns(
    estimator: BaseEstimator, X: Any, specification: Specification, needed: Sequence[int]
) -> NDArray[np.floating]:
    """The columns with an effect, as floats, of which only some are needed and others are zero.

    Parameters
    ----------
    estimator : BaseEstimator
    X : DataFrame or ndarray
        A frame may lack the others.
    specification : Specification
    needed : sequence of int
        Places among the columns with an effect.
    """
    owners = [specification.columns[place] for place in needed]
    found = np.zeros((len(X), len(specification.columns)))
    if owners:
        is_part = _is_part(X, len(specification.names))
        names = [specification.names[owner] for owner in owners]
        part = _safe_indexing(X, names if is_part else owners, axis=1)
        found[:, list(needed)] = _as_numeric(estimator, part, names)
    return found


def numeric_columns(
    estimator: BaseEstimator, X: Any, specification: Specification, *, check_finite: bool = True
) -> NDArray[np.floating]:
    """The columns with an effect, as floats.

    Without ``check_finite`` the caller sees to NaN and infinity, and saves a pass over the rows.
    """
    columns = list(specification.columns)
    if not columns:
        return np.empty((len(X), 0))
    if columns != list(range(len(specification.names))):
        X = _safe_indexing(X, columns, axis=1)
    if type(X) is np.ndarray and X.dtype in FLOATS and not (check_finite and _may_be_infinite(X)):
        # Its shape is checked where it comes from, and scikit-learn's check would find nothing.
        return X
    names = [specification.names[column] for column in columns]
    return _as_numeric(estimator, X, names, check_finite=check_finite)


def _may_be_infinite(X: NDArray[np.floating]) -> bool:
    """Whether there may be NaN or infinity among numbers, which a sum shows."""
    with np.errstate(over="ignore", invalid="ignore"):
        return not np.isfinite(X.sum())


def _as_numeric(
    estimator: BaseEstimator, X: Any, names: list[str], *, check_finite: bool = True
) -> NDArray[np.floating]:
    """Columns as floats, with errors that name the column at fault."""
    _refuse_text_and_dates(X, names)
    if isinstance(X, pd.DataFrame):
        sparse = {
            name: dtype.subtype
            for name, dtype in X.dtypes.items()
            if isinstance(dtype, pd.SparseDtype)
        }
        X = X.astype(sparse) if sparse else X
    try:
        return check_array(
            X,
            dtype=FLOATS,
            input_name="X",
            estimator=estimator,
            ensure_all_finite=check_finite,
        )
    except (ValueError, TypeError) as error:
        raise _with_column(error, X, names) from None


def check_response(estimator: BaseEstimator, X: Any, y: Any) -> NDArray[np.float64]:
    """The response as floats, one for each row of X."""
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None."
        )
    _check_entries(y, "y")
    if isinstance(y, pd.Series) and isinstance(y.dtype, np.dtype):
        y = y.to_numpy()
    is_vector = type(y) is np.ndarray and y.ndim == 1 and y.dtype.kind in "biuf"
    # Where scikit-learn's check would find nothing, it takes longer than all of ours.
    values = y if is_vector else column_or_1d(y, warn=True)
    _check_lengths(X, values)
    values = _as_floats(values, "y")
    row, kind = _first_not_finite(values)
    if kind:
        raise ValueError(f"Input y contains {kind}, the first at row {row}: drop such rows.")
    return values


def response_frame(text: str, frame: pd.DataFrame, y: Any) -> pd.DataFrame:
    """The columns that the left-hand side of a formula is computed from, in the units of the data.

    Parameters
    ----------
    text : str
        The left-hand side.
    frame : DataFrame of shape (n, n_features)
        X.
    y : array-like of shape (n,), or DataFrame
        What was passed as response.
    """
    if y is None:
        raise ValueError("The formula has a response, but y is None: pass y as in fit(X, y).")
    names = [*frame.columns, *(y.columns if is_frame(y) else [getattr(y, "name", None)])]
    columns = response_columns(text, names)
    if is_frame(y):
        y = as_pandas(y, "y")
        y = y.iloc[:, 0] if y.shape[1] == 1 else y
    elif not isinstance(y, pd.Series):
        y = pd.Series(column_or_1d(y, warn=True), name=getattr(y, "name", None))
    _check_lengths(frame, y)
    return response_data(text, columns, y, frame)


def transformed_response(
    estimator: BaseEstimator,
    response: NumberOfRow,
    frame: pd.DataFrame,
    y: Any,
    weights: Any = None,
) -> NDArray[np.float64]:
    """The left-hand side of a formula as floats; zero for rows of weight zero, which are absent."""
    data = response_frame(response.text, frame, y)
    present = np.ones(len(data), dtype=bool) if weights is None else weights > 0.0
    values = check_response(estimator, frame[present], response.values(data[present]))
    return among_all(values, present)


def notes_of_columns(X: Any, specification: Specification) -> dict[str, str]:
    """What users should know of how columns of X with an effect are taken as numbers, by name."""
    if not isinstance(X, pd.DataFrame):
        return {}
    notes = {}
    dtypes = list(X.dtypes)
    for column in specification.columns:
        if dtypes[column].kind == "f":
            continue
        name, values = specification.names[column], X.iloc[:, column]
        if isinstance(values.dtype, pd.CategoricalDtype):
            notes[name] = (
                f"Column {name!r} of X is a pandas category of numbers, and is taken as one column "
                "of numbers: convert it with astype(float) if that is meant. A formula codes it as "
                "categories."
            )
        elif note := inexact_note(name, values):
            notes[name] = note
    return notes


def among_all(values: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The values of rows that are present among zeros for all others."""
    if present.all():
        return values
    found = np.zeros((len(present), *values.shape[1:]))
    found[present] = values
    return found


def check_weights(
    sample_weight: Any, X: Any, *, may_vanish: bool = False
) -> NDArray[np.float64] | None:
    """Precision weights: finite, not negative, and not all zero unless they may be."""
    if sample_weight is None:
        return None
    _check_entries(sample_weight, "sample_weight")
    values = np.asarray(sample_weight)
    if values.ndim == 0:
        values = np.full(len(X), values[()])
    if values.ndim != 1:
        raise ValueError(f"Sample weights must be 1D array or scalar, got {values.ndim}D array.")
    if len(values) != len(X):
        raise ValueError(
            f"sample_weight has {len(values)} values, but X has {len(X)} rows: give one weight for "
            "each row."
        )
    weights = _as_floats(values, "sample_weight")
    row, kind = _first_not_finite(weights)
    if kind:
        raise ValueError(
            f"Input sample_weight contains {kind}, the first at row {row}: give such rows weight "
            "zero to leave them out."
        )
    if (weights < 0.0).any():
        row = int(np.argmax(weights < 0.0))
        raise ValueError(
            f"Negative values in data passed to `sample_weight`, the first at row {row}: a weight "
            "is the inverse of a variance."
        )
    if not (may_vanish or weights.any()):
        raise ValueError(
            "Sample weights must contain at least one non-zero number: with all of them zero, no "
            "row counts."
        )
    return weights


def find_offset(
    offset: Any, formula: CompiledFormula | None, frame: Any, weights: Any = None
) -> NDArray[np.float64] | None:
    """What is known of the response: the argument ``offset`` plus those of the formula, (n,).

    None if there is neither. What a formula computes is zero for rows of weight zero, which are
    absent.

    Raises
    ------
    ValueError
        If the argument is not a finite number, or one for each row; if a column of the formula is
        missing, or a value is missing or infinite.
    """
    total = _check_offset(offset, frame)
    if formula is None or not formula.offsets:
        return total
    present = np.ones(len(frame), dtype=bool) if weights is None else weights > 0.0
    total = np.zeros(len(frame)) if total is None else total
    for own in formula.offsets:
        total = total + among_all(_offset_values(own, frame, present), present)
    return total


def _check_offset(offset: Any, X: Any) -> NDArray[np.float64] | None:
    if offset is None:
        return None
    _check_entries(offset, "offset")
    values = np.asarray(offset)
    if values.ndim == 0:
        values = np.full(len(X), values[()])
    if values.ndim != 1 or len(values) != len(X):
        raise ValueError(
            f"offset has shape {values.shape}, but X has {len(X)} rows: give one number for each "
            "row, or one for all."
        )
    values = _as_floats(values, "offset")
    row, kind = _first_not_finite(values)
    if kind:
        raise ValueError(f"Input offset contains {kind}, the first at row {row}: drop such rows.")
    return values


def _offset_values(
    offset: NumberOfRow, frame: pd.DataFrame, present: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """An offset of a formula, for the rows that are present."""
    for name in offset.columns:
        if name not in frame.columns:
            raise ValueError(
                f"X has no column {name!r}, which offset({offset.text}) of the formula uses."
            )
    values = offset.values(frame[present])
    row, kind = _first_not_finite(values)
    if kind:
        row = int(np.flatnonzero(present)[row])
        raise ValueError(
            f"offset({offset.text}) of the formula is {kind} at row {row} of X: drop such rows."
        )
    return values


def _check_lengths(X: Any, y: Any) -> None:
    if len(y) != len(X):
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: X has {len(X)} rows, y "
            f"has {len(y)}."
        )


def _check_entries(values: Any, name: str) -> None:
    """Refuse complex arrays, of which scikit-learn's message would print all, and masked entries.

    A conversion would take what is under the mask.
    """
    if getattr(getattr(values, "dtype", None), "kind", "") == "c":
        raise ValueError(f"Complex data not supported: {name} is complex. Pass real numbers.")
    if np.ma.is_masked(values):
        row = int(np.argwhere(np.ma.getmaskarray(values))[0][0])
        raise ValueError(
            f"{name} is a masked array with masked entries, the first at row {row}: drop or impute "
            "such rows."
        )


def _as_floats(values: NDArray, name: str) -> NDArray[np.float64]:
    """Numbers as floats; text is refused even where it spells numbers."""
    row, what = _first_text_or_date(values)
    if what:
        raise ValueError(
            f"{name} is not numeric: {shown(values[row])} at row {row} is {what}. Convert it to "
            "numbers."
        )
    try:
        return values.astype(np.float64, copy=False)
    except (ValueError, TypeError) as error:
        raise _same_kind(error, f"{name} is not numeric: {error}") from None


def _refuse_text_and_dates(X: Any, names: list[str]) -> None:
    """Refuse columns that a conversion to float would guess at: text that spells numbers, dates."""
    if not is_frame(X) and X.dtype.kind in "biuf":
        return
    dtypes = list(X.dtypes) if is_frame(X) else [X.dtype] * len(names)
    for position, (name, dtype) in enumerate(zip(names, dtypes, strict=True)):
        if getattr(dtype, "kind", "O") in "biuf":
            continue
        column = np.asarray(_safe_indexing(X, position, axis=1))
        _check_entries(column, f"column {name!r} of X")
        row, what = _first_text_or_date(column)
        if what:
            raise ValueError(_not_numeric(name, column[row], row, what))


def _first_text_or_date(values: NDArray) -> tuple[int, str]:
    """Row and kind of the first entry that is no number though float() may accept it."""
    if values.dtype.kind in "mM" and len(values):
        return 0, "a date" if values.dtype.kind == "M" else "a time difference"
    if values.dtype.kind in "OSU":
        for row, value in enumerate(values):
            if isinstance(value, (str, bytes)):
                return row, "text"
            if value is not pd.NaT and (what := _NO_NUMBERS.get(kind_of_object(value))):
                return row, what
    return 0, ""


def _first_not_finite(values: NDArray[np.float64]) -> tuple[int, str]:
    """Row and name of the first entry that is NaN or infinite."""
    finite = np.isfinite(values)
    if finite.all():
        return 0, ""
    row = int(np.argmin(finite))
    return row, "NaN" if np.isnan(values[row]) else "infinity"


def _with_column(error: Exception, X: Any, names: list[str]) -> Exception:
    """The same error, naming the column and the row at fault where there is one."""
    for position, name in enumerate(names):
        column = np.asarray(_safe_indexing(X, position, axis=1))
        if column.dtype == object:
            column = np.where(pd.isna(column), np.nan, column)
        try:
            values = column.astype(np.float64)
        except (ValueError, TypeError):
            for row, value in enumerate(column):
                if not _is_number(value):
                    kind = f"of type {type(value).__name__}"
                    message = _not_numeric(name, value, row, kind)
                    return _same_kind(error, f"{message} ({error})")
            return error
        row, kind = _first_not_finite(values)
        if kind:
            return _same_kind(
                error,
                f"Input X contains {kind} in column {name!r}, the first at row {row}: drop or "
                "impute such rows.",
            )
    return error


def _not_numeric(name: str, value: Any, row: int, what: str) -> str:
    return (
        f"Column {name!r} of X is not numeric: {shown(value)} at row {row} is {what}. Convert or "
        "encode it, name it in groups if it holds the levels of a grouping factor, or leave it out "
        "with fixed_effects."
    )


def _same_kind(error: Exception, message: str) -> Exception:
    return TypeError(message) if isinstance(error, TypeError) else ValueError(message)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (ValueError, TypeError):
        return False
    return True
