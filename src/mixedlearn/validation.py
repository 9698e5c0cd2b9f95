"""Validation of rows: from what a user passes to numeric columns and labels.

The estimator's half that talks to scikit-learn's checks. Errors name the column at fault.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing, check_array
from sklearn.utils.validation import _check_sample_weight, column_or_1d, validate_data

from mixedlearn.design import Specification, find_group_column
from mixedlearn.grouping import Labels, as_labels

FLOATS = [np.float64, np.float32]


def is_frame(X: Any) -> bool:
    """Whether X is a data frame (pandas, polars), which has columns of different types."""
    return hasattr(X, "columns") and hasattr(X, "__getitem__")


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
    if not is_frame(X):
        X = check_array(
            X,
            dtype=None,
            ensure_all_finite=False,
            ensure_min_features=0 if has_groups else 1,
            estimator=estimator,
        )
    elif X.shape[0] == 0 or (X.shape[1] == 0 and not has_groups):
        check_array(np.empty(X.shape), estimator=estimator)
    return validate_data(estimator, X, skip_check_array=True, reset=reset)


def column_names(estimator: Any) -> list[str]:
    """Names of the columns of X; x0, x1, ... where X had none."""
    names = getattr(estimator, "feature_names_in_", None)
    return [f"x{j}" for j in range(estimator.n_features_in_)] if names is None else list(names)


def find_labels(
    estimator: Any, X: Any, groups: Any, names: list[str]
) -> tuple[Labels | None, int | None]:
    """The labels, from the group column or from the argument, and the position of the column."""
    column = find_group_column(estimator.groups, names)
    if column is not None:
        if groups is not None:
            raise ValueError(
                f"groups were given twice: the constructor names the column {names[column]!r} and "
                "labels were passed as well. Use one of the two."
            )
        return as_labels(_safe_indexing(X, column, axis=1), len(X), names[column]), column
    return (None if groups is None else as_labels(groups, len(X))), None


def numeric_columns(
    estimator: BaseEstimator, X: Any, specification: Specification
) -> NDArray[np.floating]:
    """The columns with an effect, as floats."""
    columns = list(specification.columns)
    if not columns:
        return np.empty((len(X), 0))
    if columns != list(range(len(specification.names))):
        X = _safe_indexing(X, columns, axis=1)
    names = [specification.names[column] for column in columns]
    try:
        return check_array(X, dtype=FLOATS, input_name="X", estimator=estimator)
    except (ValueError, TypeError) as error:
        raise _with_column(error, X, names) from error


def check_response(estimator: BaseEstimator, X: Any, y: Any) -> NDArray[np.float64]:
    """The response as floats, one for each row of X."""
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None."
        )
    values = column_or_1d(y, warn=True)
    if len(values) != len(X):
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: X has {len(X)} rows, y "
            f"has {len(values)}."
        )
    if values.dtype.kind == "c":
        raise ValueError("Complex data not supported: y is complex.")
    try:
        values = values.astype(np.float64, copy=False)
    except (ValueError, TypeError) as error:
        raise type(error)(f"y is not numeric: {error}") from error
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        kind = "NaN" if np.isnan(values[row]) else "infinity"
        raise ValueError(f"Input y contains {kind}, the first at row {row}: drop such rows.")
    return values


def check_weights(sample_weight: Any, X: Any) -> NDArray[np.float64] | None:
    """Precision weights: finite, not negative, not all zero."""
    if sample_weight is None:
        return None
    weights = _check_sample_weight(sample_weight, X, dtype=np.float64)
    if (weights < 0.0).any():
        row = int(np.argmax(weights < 0.0))
        raise ValueError(
            f"Negative values in data passed to `sample_weight`, the first at row {row}: a weight is "
            "the inverse of a variance."
        )
    if not (weights > 0.0).any():
        raise ValueError("All values of `sample_weight` are zero: no row counts.")
    return weights


def _with_column(error: Exception, X: Any, names: list[str]) -> Exception:
    """The same error, naming the column and the row at fault where there is one."""
    for position, name in enumerate(names):
        column = np.asarray(_safe_indexing(X, position, axis=1))
        try:
            values = column.astype(np.float64)
        except (ValueError, TypeError):
            row = next(r for r, value in enumerate(column) if not _is_number(value))
            return type(error)(
                f"Column {name!r} of X is not numeric ({column[row]!r} at row {row}): encode it, name "
                "it in groups if it holds the levels of a grouping factor, or leave it out with "
                f"fixed_effects. ({error})"
            )
        if not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values)))
            kind = "NaN" if np.isnan(values[row]) else "infinity"
            return type(error)(
                f"Input X contains {kind} in column {name!r}, the first at row {row}: drop or impute "
                f"such rows. ({error})"
            )
    return error


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (ValueError, TypeError):
        return False
    return True
