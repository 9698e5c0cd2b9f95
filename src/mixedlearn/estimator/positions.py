"""Positions of group columns where scikit-learn leaves columns of X out, or adds some.

A meta-estimator that does so hands on arrays without a word about their columns. Only its own call
of `fit` knows what it was given.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

# Bagging of columns; forward and backward selection; chains of responses, which append columns;
# stacking with passthrough, which puts predictions before them.
CHANGE_COLUMNS = {
    "sklearn.ensemble._bagging",
    "sklearn.ensemble._stacking",
    "sklearn.feature_selection._sequential",
    "sklearn.multioutput",
}
PUTS_BEFORE = {"sklearn.ensemble._stacking"}


def check_positions(groups: Any, X: Any) -> None:
    """Refuse a position that means another column than in the X of a meta-estimator.

    Raises
    ------
    ValueError
        If a group column is named by its position, and this `fit` is called by a meta-estimator
        with fewer columns than it was given, or with more where positions count from the end.
    """
    positions = _positions(groups) if type(X) is np.ndarray else []
    frame = sys._getframe(1) if positions else None
    while frame is not None:
        caller = frame.f_globals.get("__name__")
        if caller in CHANGE_COLUMNS:
            n_given = np.shape(frame.f_locals.get("X", ()))[1:]
            n_columns = X.shape[1:]
            is_more = n_given and n_given < n_columns
            if n_given > n_columns or (is_more and (min(positions) < 0 or caller in PUTS_BEFORE)):
                raise ValueError(
                    f"groups names column {positions[0]} by its position, but BaggingRegressor, "
                    "SequentialFeatureSelector, StackingRegressor or RegressorChain was given "
                    f"{n_given[0]} columns and hands on {n_columns[0]}: the position means another "
                    "column. Pass the labels beside X, fit(X, y, groups=labels), with metadata "
                    "routing enabled; in a chain, count the position from the first column."
                )
        frame = frame.f_back


def _positions(groups: Any) -> list[int]:
    """All positions in a column, an interaction of columns, or a list of these."""
    if isinstance(groups, (list, tuple)):
        return [position for entry in groups for position in _positions(entry)]
    return [int(groups)] if isinstance(groups, (int, np.integer)) else []
