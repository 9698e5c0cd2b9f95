"""What the functions of this package share: the fitted model behind an estimator, and names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mixedlearn.fit import refit
from mixedlearn.fitted import FittedModel

# Name of the standard deviation of the noise.
NOISE_SD = "sd(noise)"


def model_of(estimator: Any) -> FittedModel:
    """The fitted model of an estimator.

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
    return estimator._fitted_model()


def by_maximum_likelihood(model: FittedModel) -> FittedModel:
    """The model itself if it maximises the likelihood, else the same model refitted to do so."""
    if not model.specification.reml:
        return model
    return refit(model, specification=replace(model.specification, reml=False), start=model.theta)


def sd_name(effect: str, factor: str) -> str:
    """Name of the standard deviation of a random effect, ``sd(Days|Subject)``."""
    return f"sd({effect}|{factor})"


def correlation_name(effect: str, other: str, factor: str) -> str:
    """Name of the correlation of two random effects, ``cor(intercept,Days|Subject)``."""
    return f"cor({effect},{other}|{factor})"


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
