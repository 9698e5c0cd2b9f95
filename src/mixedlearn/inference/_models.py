"""What the functions of this package share: the fitted model behind an estimator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mixedlearn.fit import refit
from mixedlearn.fitted import FittedModel
from mixedlearn.updating import of_the_fit


def model_of(estimator: Any) -> FittedModel:
    """The fitted model of an estimator, with the random effects of the rows of the fit alone.

    Raises
    ------
    TypeError
        If it is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.
    """
    if not hasattr(estimator, "_fitted_model"):
        raise TypeError(
            f"Expected a fitted MixedLinearRegressor, got {type(estimator).__name__}: pass the "
            "last step of a Pipeline (pipeline[-1]) or the best_estimator_ of a search."
        )
    return of_the_fit(estimator._fitted_model())


def with_criterion(model: FittedModel, *, reml: bool) -> FittedModel:
    """The model itself if it was fitted by that criterion, else the same model refitted by it."""
    if model.specification.reml == reml:
        return model
    return refit(model, specification=replace(model.specification, reml=reml), start=model.theta)


def by_maximum_likelihood(model: FittedModel) -> FittedModel:
    """The model fitted by maximum likelihood."""
    return with_criterion(model, reml=False)


def check_level(level: Any) -> float:
    """The probability of an interval.

    Raises
    ------
    ValueError
        If it is not a number between zero and one.
    """
    if isinstance(level, (int, float, np.floating)) and 0.0 < level < 1.0:
        return float(level)
    raise ValueError(f"level must be a probability between 0 and 1, got {level!r}.")
