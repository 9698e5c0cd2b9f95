"""What the functions of this package share: the fitted model behind an estimator."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from mixedlearn.exceptions import DegenerateModelWarning, SamplingWarning
from mixedlearn.model.correlated import refuse_noise
from mixedlearn.model.fit import refit
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.sampling import error_of_difference

# A Monte Carlo error beyond this share of a statistic, or of one, is worth a warning.
MUCH_SAMPLING = 0.05


def model_of(estimator: Any, *, takes_noise: bool = False) -> FittedModel:
    """The fitted model of an estimator, with the random effects of the rows of the fit alone.

    ``takes_noise`` says that who asks knows what to do with a residual structure.

    Raises
    ------
    TypeError
        If it is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.
    ValueError
        If the model has a residual structure that is not known what to do with.
    """
    model: FittedModel = view_of(estimator, takes_noise=takes_noise).model_of_fit
    return model


def view_of(estimator: Any, *, takes_noise: bool = False) -> Any:
    """What an estimator shows of its fit: a `mixedlearn.estimator.view.FittedView`.

    Raises
    ------
    TypeError, NotFittedError, ValueError
        As `model_of`.
    """
    is_class = isinstance(estimator, type)
    if is_class or not hasattr(estimator, "__mixedlearn_fitted__"):
        got = f"the class {estimator.__name__}" if is_class else type(estimator).__name__
        raise TypeError(
            f"Expected a fitted MixedLinearRegressor, got {got}: pass the last step of a Pipeline "
            "(pipeline[-1]) or the best_estimator_ of a search."
        )
    view = estimator.__mixedlearn_fitted__()
    if not takes_noise:
        refuse_noise(view.known.fit)
    return view


def undetermined_coefs(model: FittedModel) -> list[str]:
    """Names of the coefficients that cannot be estimated one by one."""
    names = model.specification.coef_names
    return [name for name, own in zip(names, model.fixed_basis.undetermined, strict=True) if own]


def about_undetermined(model: FittedModel, names: Sequence[str]) -> str:
    """What a table says of these coefficients, and what can be done."""
    named = ", ".join(map(repr, names))
    if model.specification.drops_aliased:
        return (
            f"The coefficients of {named} cannot be estimated: their columns are combinations of "
            "earlier ones (aliased), and the model is that without them."
        )
    return (
        f"The coefficients of {named} cannot be estimated one by one: some of their columns are "
        "combinations of others (aliased), as all dummies of a category are with the intercept. "
        "coef_ holds the shortest coefficients; contrast_test tests what can be estimated, such as "
        "the difference of two categories."
    )


def warn_of_undetermined(model: FittedModel, names: Sequence[str] | None = None) -> None:
    """Tell the caller of a public function which of its rows cannot be estimated, and why."""
    own = undetermined_coefs(model)
    if names is not None:
        own = [name for name in own if name in names]
    if own:
        warnings.warn(about_undetermined(model, own), DegenerateModelWarning, stacklevel=3)


def warn_of_untestable(function: str, names: Sequence[str]) -> None:
    """Tell the caller of a public function of which terms nothing can be tested."""
    if names:
        warnings.warn(
            f"{function} cannot test {', '.join(map(repr, names))}: beside the other columns, "
            "those of such a term say nothing of their own (aliased), so that no hypothesis about "
            "it can be estimated.",
            DegenerateModelWarning,
            stacklevel=3,
        )


def warn_of_few_clusters(function: str, names: Sequence[str]) -> None:
    """Tell the caller of a public function what a robust covariance has too few clusters for."""
    if names:
        warnings.warn(
            f"{function} cannot test {', '.join(names)} with this robust covariance: there are too "
            "few clusters to test so many contrasts together. Test fewer, or use the model's "
            "covariance.",
            DegenerateModelWarning,
            stacklevel=3,
        )


def warn_of_lost_refits(function: str, n_lost: int, n: int) -> None:
    """Tell the caller of a public function how many refits were not identified."""
    if n_lost:
        warnings.warn(
            f"{function} leaves out {n_lost:,} of {n:,} resamples, whose rows do not identify the "
            "residual covariance: the results hold for data that do. A structure with fewer "
            "parameters loses fewer.",
            DegenerateModelWarning,
            stacklevel=3,
        )


def warn_of_sampling(
    function: str, models: Sequence[FittedModel], others: Sequence[FittedModel]
) -> None:
    """Tell the caller of a public function that probes say too little of a likelihood ratio.

    The first of such pairs is named.
    """
    for model, other in zip(models, others, strict=True):
        # Of the smaller model less the larger.
        error, statistic = error_of_difference(model, other), model.objective - other.objective
        if error > MUCH_SAMPLING * max(abs(statistic), 1.0):
            warnings.warn(
                f"{function} compares likelihoods that solver='stochastic' has estimated: the "
                f"statistic {statistic:.3g} has a Monte Carlo error of {error:.2g}. Fit the models "
                "with solver='exact' if they are small enough; coefficient_table, anova and "
                "contrast_test test coefficients without such an error.",
                SamplingWarning,
                stacklevel=3,
            )
            return


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
