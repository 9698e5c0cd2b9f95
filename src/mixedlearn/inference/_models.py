"""What the functions of this package share: the fitted model behind an estimator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from mixedlearn.model.fit import refit
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.updating import of_the_fit


def model_of(estimator: Any) -> FittedModel:
    """The fitted model of an estimator, with the random effects of the rows of the fit alone.

    Raises
    ------
    TypeError
        If it is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.
    """
    return of_the_fit(view_of(estimator).model)


def view_of(estimator: Any) -> Any:
    """What an estimator shows of its fit: a `mixedlearn.estimator.view.FittedView`.

    Raises
    ------
    TypeError, NotFittedError
        As `model_of`.
    """
    is_class = isinstance(estimator, type)
    if is_class or not hasattr(estimator, "__mixedlearn_fitted__"):
        got = f"the class {estimator.__name__}" if is_class else type(estimator).__name__
        raise TypeError(
            f"Expected a fitted MixedLinearRegressor, got {got}: pass the last step of a Pipeline "
            "(pipeline[-1]) or the best_estimator_ of a search."
        )
    return estimator.__mixedlearn_fitted__()


def with_criterion(model: FittedModel, *, reml: bool) -> FittedModel:
    """The model itself if it was fitted by that criterion, else the same model refitted by it."""
    if model.specification.reml == reml:
        return model
    return refit(
        model, specification=replace(model.specification, reml=reml), start=model.user_theta
    )


def by_maximum_likelihood(model: FittedModel) -> FittedModel:
    """The model fitted by maximum likelihood."""
    return with_criterion(model, reml=False)


def check_count(value: Any, name: str) -> None:
    """Refuse what is no positive integer."""
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not (is_integer and value >= 1):
        raise ValueError(f"{name} must be a positive integer, got {value!r}.")


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


def normal_quantile(level: float) -> float:
    """Half the width of the interval of that level of the standard normal distribution."""
    return float(norm.ppf(0.5 + check_level(level) / 2.0))


def as_numbers(values: Any, name: str) -> NDArray[np.float64]:
    """An array of numbers.

    Raises
    ------
    ValueError
        If they are none.
    """
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers: {error}.") from None
