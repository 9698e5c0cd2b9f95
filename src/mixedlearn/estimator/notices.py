"""Warnings of a fit, whoever asks for it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from mixedlearn.estimator.view import FittedView
from mixedlearn.exceptions import (
    DataWarning,
    DegenerateModelWarning,
    NoGroupsWarning,
    PopulationPredictionWarning,
)
from mixedlearn.formula import CompiledFormula
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.notes import UNBOUNDED

_NO_GROUPS = (
    "fit received no groups, so the model has no random effects: it is ordinary least squares. "
    "Name the group column in the constructor (groups=...), or pass "
    "fit(X, y, groups=...): as stepname__groups=... to a Pipeline, as params={'groups': ...} to a "
    "cross-validation."
)
_NO_RANDOM_TERMS = (
    "The formula has no random terms, so the model has no random effects: it is ordinary least "
    "squares. Write a term such as (1 | column) for an intercept of every level of that column."
)
# What lies between a user and the solution of a stream.
_OURS = frozenset({"mixedlearn", "sklearn", "contextlib"})


def warn_of_rows(
    formula: CompiledFormula | None, notes: Iterable[str], stacklevel: int, *, has_groups: bool
) -> None:
    """Warn of how rows were read, and if they have no groups.

    ``stacklevel`` is that of whoever calls this.
    """
    if not has_groups:
        warnings.warn(
            _NO_GROUPS if formula is None else _NO_RANDOM_TERMS,
            NoGroupsWarning,
            stacklevel=stacklevel + 1,
        )
    for note in notes:
        warnings.warn(note, DataWarning, stacklevel=stacklevel + 1)


def warn_of_missing_groups(view: FittedView, stacklevel: int) -> None:
    """Warn if predictions lack effects because no groups came.

    ``stacklevel`` is that of whoever calls this.
    """
    if view.known.fit.has_random_effects:
        names = ", ".join(map(repr, view.specification.factor_names))
        warnings.warn(
            f"predict received no groups, but the model has random effects for {names}: this is "
            "the prediction for the population. Pass groups=..., or random_effects='none' if that "
            "is what you want.",
            PopulationPredictionWarning,
            stacklevel=stacklevel + 1,
        )


def warn_of_fit(model: FittedModel, max_iter: int, stacklevel: int) -> None:
    """Warn of what could not be estimated, and of an optimum without a certificate.

    ``stacklevel`` is that of whoever calls this.
    """
    for message in model.warnings:
        warnings.warn(message, DegenerateModelWarning, stacklevel=stacklevel + 1)
    if model.is_certified:
        return
    if UNBOUNDED in model.warnings:
        advice = "There is none, as the other warning says."
    elif np.isinf(model.rounding):
        advice = "No digit of it is certain, as the other warning says."
    elif model.n_iterations >= max_iter:
        advice = "Raise max_iter."
    else:
        advice = (
            "No further progress is possible: simplify the covariance structure, or look for "
            "columns that are nearly collinear."
        )
    warnings.warn(
        f"The optimiser stopped after {model.n_iterations} iterations without a certified "
        f"optimum. {advice}",
        ConvergenceWarning,
        stacklevel=stacklevel + 1,
    )


def level_of_user() -> int:
    """The stacklevel, for whoever calls this, of the code outside this package that led there."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        frame, level = frame.f_back, level + 1
    return level
