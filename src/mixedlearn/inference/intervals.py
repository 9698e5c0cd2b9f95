"""Confidence intervals of all parameters: Wald, profile and bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from mixedlearn.inference._bootstrap import parametric_bootstrap
from mixedlearn.inference._models import (
    check_level,
    model_of,
    normal_quantile,
    view_of,
    warn_of_undetermined,
    with_criterion,
)
from mixedlearn.inference._noise_parameters import noise_coordinates
from mixedlearn.inference._parameters import (
    Parameter,
    correlation_of,
    find_parameter,
    largest_pair,
    parameter_value,
    parameters,
)
from mixedlearn.inference._profile_curve import make_profilers, profile_interval
from mixedlearn.inference._text import ResultTable
from mixedlearn.inference._variance_parameters import VarianceParameters, variance_parameters
from mixedlearn.inference.tables import variance_errors
from mixedlearn.model.fitted import FittedModel

Interval = tuple[float, float]

METHODS = ("wald", "profile", "bootstrap")


def confidence_intervals(
    estimator: Any,
    names: str | Sequence[str] | None = None,
    *,
    method: Literal["wald", "profile", "bootstrap"] = "wald",
    level: float = 0.95,
    reml: bool = False,
    X: Any = None,
    groups: Any = None,
    **bootstrap: Any,
) -> pd.DataFrame:
    """Confidence intervals of fixed effects, standard deviations, correlations and noise.

    The parameters of a residual structure are among them, by their names in
    ``residual_parameters_``.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted; stays as it is.
    names : str or list of str, default=None
        Parameters by their names; None: all of them.
    method : {"wald", "profile", "bootstrap"}, default="wald"
        Estimates and standard errors with normal quantiles, on the scale of the logarithm for a
        standard deviation and of Fisher's z for a correlation (of a logit, if its ends are not -1
        and 1); where twice the decrease of the
        profile log-likelihood reaches the quantile of chi-squared with one degree of freedom; or
        percentiles of a parametric bootstrap.
    level : float, default=0.95
        Level of the intervals.
    reml : bool, default=False
        With ``method="profile"``: whether to profile the restricted likelihood, which knows no
        intervals of fixed effects. The default refits a model that was fitted by REML by ML, as
        lme4's ``confint`` does.
    X : array-like or DataFrame of shape (n_samples, n_features), default=None
        With ``method="bootstrap"``: the rows of the fit.
    groups : array-like, default=None
        With ``method="bootstrap"``: their labels, if they came beside X.
    **bootstrap
        With ``method="bootstrap"``: other arguments of `parametric_bootstrap` but ``statistic``.

    Returns
    -------
    intervals : DataFrame of shape (n_parameters, 3)
        ``estimate``, ``lower`` and ``upper`` of every parameter: standard deviations and
        correlations factor by factor, the noise, its residual structure, the fixed effects. If
        each occasion has a variance of its own, there is no row for the noise: it has the variance
        of the first occasion. The estimates are those of the criterion that the intervals belong
        to.

    Raises
    ------
    ValueError
        If a parameter is unknown; if ``method`` or ``level`` is not allowed; if ``reml`` and a
        fixed effect is asked for by name; or if arguments are given that are not for the method.
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    Notes
    -----
    Intervals by profile are right at the boundary: a standard deviation whose profile at zero stays
    below the quantile has zero as its lower end, a correlation may reach one. Where the profile
    never rises, as for the variance of a factor with one level by REML, the end is infinite. Wald
    intervals do not exist there, and are NaN; so is any interval of what cannot be estimated, and
    a warning names the coefficients.

    References
    ----------
    Bates, D., Maechler, M., Bolker, B. & Walker, S. (2015). Fitting linear mixed-effects models
    using lme4. Journal of Statistical Software 67(1), section 5.1.

    Pinheiro, J. C. & Bates, D. M. (2000). Mixed-effects models in S and S-PLUS. Springer, section
    2.4.3 (Wald intervals of variance components).

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import confidence_intervals
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"], reml=False)
    >>> confidence_intervals(model.fit(X, y), method="profile").round(4)
                                 estimate     lower     upper
    sd(intercept|Subject)         23.7806   14.3814   37.7161
    cor(intercept,Days|Subject)    0.0813   -0.4815    0.6850
    sd(Days|Subject)               5.7168    3.8012    8.7534
    sd(noise)                     25.5918   22.8983   28.8580
    intercept                    251.4051  237.6807  265.1295
    Days                          10.4673    7.3587   13.5759
    """
    model = model_of(estimator, takes_noise=True)
    check_level(level)
    wanted = _wanted(model, names)
    if method not in METHODS:
        raise ValueError(f"method must be 'wald', 'profile' or 'bootstrap', got {method!r}.")
    if method != "bootstrap" and (bootstrap or X is not None or groups is not None):
        given = ", ".join(
            [name for name, value in (("X", X), ("groups", groups)) if value is not None]
            + list(bootstrap)
        )
        raise ValueError(f"{given}: for method='bootstrap' only, not for {method!r}. Leave it out.")
    if method != "profile" and reml:
        raise ValueError(f"reml=True is for method='profile', not {method!r}: leave it out.")
    if method == "wald":
        intervals = _wald(model, wanted, level)
    elif method == "profile":
        model = with_criterion(model, reml=reml)
        if reml and names is None:
            wanted = [parameter for parameter in wanted if parameter.kind != "coef"]
        intervals = _profiles(estimator, model, wanted, level)
    else:
        if X is None:
            raise ValueError("method='bootstrap' needs the rows of the fit: pass X=...")
        if bootstrap.get("statistic") is not None:
            raise ValueError(
                "The intervals are those of the parameters, so statistic must be left out: use "
                "parametric_bootstrap(...).confidence_interval() for a statistic of your own."
            )
        sampled = parametric_bootstrap(estimator, X, groups=groups, **bootstrap)
        found = sampled.confidence_interval(level)
        rows = found.loc[[parameter.name for parameter in wanted], ["lower", "upper"]]
        intervals = list(rows.itertuples(index=False, name=None))
    warn_of_undetermined(model, [own.name for own in wanted if own.kind == "coef"])
    lower, upper = zip(*intervals, strict=True)
    return ResultTable(
        {
            "estimate": [parameter_value(model, parameter) for parameter in wanted],
            "lower": lower,
            "upper": upper,
        },
        index=pd.Index([parameter.name for parameter in wanted], dtype=object),
        dtype=float,
    )


def _wanted(model: FittedModel, names: str | Sequence[str] | None) -> list[Parameter]:
    if names is None:
        return parameters(model)
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, (Sequence, np.ndarray, pd.Index)):
        raise ValueError(f"names must be a name or a list of names, got {names!r}.")
    if not len(names):
        raise ValueError("names is empty: name a parameter, or leave it out for all of them.")
    return [find_parameter(model, name) for name in names]


def _profiles(
    estimator: Any, model: FittedModel, wanted: list[Parameter], level: float
) -> list[Interval]:
    """The intervals by profile; callbacks of the estimator see a task for each."""
    make = make_profilers(model)

    def run(advance: Callable[[int], None]) -> list[Interval]:
        found = []
        for parameter in wanted:
            profiler = make(parameter)
            interval = (np.nan, np.nan) if profiler is None else profile_interval(profiler, level)
            found.append(interval)
            advance(1)
        return found

    view = view_of(estimator, takes_noise=True)
    intervals: list[Interval] = view.with_progress("profile", len(wanted), run, task="parameter")
    return intervals


def _wald(model: FittedModel, wanted: list[Parameter], level: float) -> list[Interval]:
    quantile = normal_quantile(level)
    is_independent = model.noise is None
    needs_variances = is_independent and any(
        parameter.kind in ("sd", "correlation") for parameter in wanted
    )
    local = None
    if needs_variances and not model.fixed_basis.is_exact and model.has_random_effects:
        local = variance_parameters(model)
    errors = variance_errors(model) if any(own.kind != "coef" for own in wanted) else []
    found = []
    for parameter in wanted:
        value = parameter_value(model, parameter)
        if parameter.kind == "coef":
            margin = quantile * np.sqrt(model.coef_covariance[parameter.effect, parameter.effect])
            found.append((value - margin, value + margin))
        elif not is_independent:
            found.append(_wald_of_noise(model, parameter, errors, quantile))
        elif parameter.kind == "noise":
            share = float(errors[-1]) / (2.0 * model.noise_variance) if value > 0.0 else np.nan
            found.append(_by_logarithm(value, quantile * share))
        elif local is None or np.isnan(errors[parameter.factor][_entry(model, parameter)]):
            found.append((np.nan, np.nan))
        elif parameter.kind == "sd":
            slope = _log_deviation_changes(model, local, parameter.factor, parameter.effect)
            found.append(_by_logarithm(value, quantile * _deviation(slope, local)))
        else:
            slope = _fisher_changes(model, local, parameter, value)
            margin = quantile * _deviation(slope, local)
            ends = np.tanh(np.arctanh(value) + np.array([-margin, margin]))
            own = correlation_of(parameter)
            lower, upper = np.clip(ends, own.lower, own.upper).tolist()
            found.append((lower, upper))
    return found


def _wald_of_noise(
    model: FittedModel, parameter: Parameter, errors: Sequence[np.ndarray], quantile: float
) -> Interval:
    """The interval of a parameter beside a residual structure, on its scale."""
    is_effect = parameter.kind in ("sd", "correlation")
    if is_effect and np.isnan(errors[parameter.factor][_entry(model, parameter)]):
        return np.nan, np.nan
    coordinates = noise_coordinates(model)
    own, scale = coordinates.on_scale(parameter, coordinates.point), coordinates.scale(parameter)
    margin = quantile * coordinates.error(own)
    lower, upper = scale.value(own.values - margin), scale.value(own.values + margin)
    if parameter.kind == "correlation":
        ends = correlation_of(parameter)
        lower, upper = np.clip([lower, upper], ends.lower, ends.upper).tolist()
    return lower, upper


def _entry(model: FittedModel, parameter: Parameter) -> tuple[int, int]:
    """The entry of D that says most about a parameter."""
    if parameter.kind == "sd":
        return parameter.effect, parameter.effect
    return largest_pair(model.covariances[parameter.factor], correlation_of(parameter))


def _by_logarithm(value: float, margin: float) -> Interval:
    return value * float(np.exp(-margin)), value * float(np.exp(margin))


def _deviation(changes: np.ndarray, local: VarianceParameters) -> float:
    """Standard error of what changes so with the variance parameters."""
    return float(np.sqrt(changes @ local.covariance @ changes))


def _log_deviation_changes(
    model: FittedModel, local: VarianceParameters, k: int, effect: int
) -> np.ndarray:
    changes = local.covariance_changes[k][:, effect, effect]
    return np.asarray(changes / (2.0 * model.covariances[k][effect, effect]))


def _fisher_changes(
    model: FittedModel, local: VarianceParameters, parameter: Parameter, value: float
) -> np.ndarray:
    """Derivatives of Fisher's z of a correlation."""
    k = parameter.factor
    i, j = _entry(model, parameter)
    covariance = model.covariances[k]
    size = np.sqrt(covariance[i, i] * covariance[j, j])
    sizes = sum(_log_deviation_changes(model, local, k, effect) for effect in (i, j))
    changes = local.covariance_changes[k][:, i, j] / size - value * sizes
    return np.asarray(changes / (1.0 - value**2))
