"""Intervals of predictions: of new observations, and of expected values.

The variance v of a prediction rests on the estimated variance parameters. Its degrees of freedom
match the variance of the estimate of v to that of a chi-squared variable, as Satterthwaite's method
does for coefficients (`_uncertainty`): with g the derivatives of v by the variance parameters and A
their covariance,

    2 v^2 / (g'A g)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.data.rows import CodedRows
from mixedlearn.engines.protocol import Engine
from mixedlearn.inference._models import check_level, view_of
from mixedlearn.inference._noise_predictions import of_correlated_rows
from mixedlearn.inference._text import ResultTable
from mixedlearn.inference._uncertainty import (
    check_method,
    coef_uncertainty,
    degrees_of_freedom,
    known_df,
    rests_on_variances,
    standard_errors,
    t_quantile,
)
from mixedlearn.inference._variance_parameters import variance_parameters
from mixedlearn.model.continuation import condition
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.prediction import predict_mean, predict_std

FloatArray = NDArray[np.float64]

# Step of the differences, in natural lengths of theta.
STEP = 1e-3


def prediction_intervals(
    estimator: Any,
    X: Any,
    *,
    groups: Any = None,
    offset: Any = None,
    kind: Literal["observation", "mean"] = "observation",
    random_effects: Literal["all", "none"] = "all",
    level: float = 0.95,
    ddf: str = "satterthwaite",
) -> pd.DataFrame:
    """Predictions with standard errors, degrees of freedom and intervals.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted.
    X : array-like or DataFrame of shape (n_samples, n_features)
        Rows, as for `predict`.
    groups : array-like of shape (n_samples,) or (n_samples, n_factors), default=None
        Labels, as for `predict`.
    offset : float or array-like of shape (n_samples,), default=None
        As for `predict`.
    kind : {"observation", "mean"}, default="observation"
        Whether the interval is to hold a new observation of weight one, with its noise and the
        whole variance of the random effects of levels that are not known (R's
        ``interval = "prediction"``), or the expected value: the fixed effects and the random
        effects of known levels (``interval = "confidence"``). With a residual structure an
        observation has the forecast of `predict`, and a mean is without any noise.
    random_effects : {"all", "none"}, default="all"
        Whether the levels of the rows are taken into account; with "none" the mean is that of the
        population, and an observation is one of new levels.
    level : float, default=0.95
        Probability of the intervals.
    ddf : {"satterthwaite", "kenward-roger", "residual", "normal"}, default="satterthwaite"
        Degrees of freedom of the t distribution, as in `coefficient_table`. "kenward-roger", which
        adjusts the standard errors too, is for means of the population.

    Returns
    -------
    table : DataFrame
        A row for each row of X, with its index if it is a DataFrame: prediction, std_error, df,
        lower and upper, on the scale of the left-hand side of a formula.

    Raises
    ------
    ValueError
        As `predict`; if a parameter is not allowed.
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    References
    ----------
    Giesbrecht, F. G. & Burns, J. C. (1985). Two-stage analysis based on a mixed model: large-sample
    asymptotic theory and small-sample simulation results. Biometrics 41, 477-486.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import prediction_intervals
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> prediction_intervals(model, X.head(2))
      prediction std_error      df  lower  upper
    0      253.7     28.37  160.79  197.6  309.7
    1      273.3     27.68  158.54  218.7  328.0
    >>> prediction_intervals(model, X.head(2), kind="mean", random_effects="none")
       prediction std_error    df  lower  upper
    0       251.4     6.825 17.00  237.0  265.8
    1       261.9     6.787 17.00  247.6  276.2
    """
    _check_choices(kind, random_effects, ddf)
    check_level(level)
    view = view_of(estimator, takes_noise=True)
    model: FittedModel = view.model
    names = model.specification.factor_names if random_effects == "all" else ()
    rows = view.rows_to_predict(X, groups, names, return_std=True, stacklevel=2)
    if rows.labels:
        # Refuses unknown levels where the estimator does.
        view.codes(rows.labels, names)
    codes = rows.coded(model.levels).codes if rows.labels else (None,) * len(model.levels)
    coded = CodedRows(rows.X, codes)
    prediction, known = predict_mean(model, coded), view.offset(X, offset)
    prediction = prediction if known is None else prediction + known
    if kind == "mean" and not any((own >= 0).any() for own in coded.known_codes):
        errors, df = _of_population(model, coded, ddf)
    elif model.noise is None:
        errors, df = _of_rows(model, coded, ddf, of_mean=kind == "mean")
    else:
        noise_rows = None
        if kind == "observation":
            noise_rows = view.forecast_rows(X, groups, 3, is_wanted=random_effects == "all")
            prediction = prediction + condition(view.known, noise_rows).mean
        errors, df = of_correlated_rows(view.known, coded, noise_rows, ddf)
    margin = t_quantile((1.0 + level) / 2.0, df) * errors
    return ResultTable(
        {
            "prediction": prediction,
            "std_error": errors,
            "df": df,
            "lower": prediction - margin,
            "upper": prediction + margin,
        },
        index=X.index if isinstance(X, pd.DataFrame) else None,
    )


def _check_choices(kind: Any, random_effects: Any, ddf: Any) -> None:
    if kind not in ("observation", "mean"):
        raise ValueError(f"kind must be 'observation' or 'mean', got {kind!r}.")
    if random_effects not in ("all", "none"):
        raise ValueError(f"random_effects must be 'all' or 'none', got {random_effects!r}.")
    check_method(ddf)
    if ddf == "kenward-roger" and (kind, random_effects) != ("mean", "none"):
        raise ValueError(
            "ddf='kenward-roger' is for means of the population: pass kind='mean' and "
            "random_effects='none', or choose another method."
        )


def _of_population(model: FittedModel, rows: CodedRows, ddf: str) -> tuple[FloatArray, FloatArray]:
    """Standard errors and degrees of freedom of ``x'beta``."""
    specification = model.specification
    contrasts = rows.X[:, list(specification.fixed)].astype(np.float64)
    if specification.fit_intercept:
        contrasts = np.column_stack([np.ones(len(contrasts)), contrasts])
    uncertainty = coef_uncertainty(model, ddf)
    return standard_errors(uncertainty, contrasts), degrees_of_freedom(uncertainty, contrasts)


def _of_rows(
    model: FittedModel, rows: CodedRows, ddf: str, *, of_mean: bool
) -> tuple[FloatArray, FloatArray]:
    """Standard errors and degrees of freedom of predictions that rest on random effects."""
    errors = predict_std(model, rows, of_mean=of_mean)
    if ddf != "satterthwaite" or not rests_on_variances(model):
        return errors, np.full(len(errors), known_df(model, ddf))
    parameters, engine = variance_parameters(model), model.problem().engine
    gradient = np.empty((len(errors), len(parameters.covariance)))
    gradient[:, -1] = np.square(errors)
    for a, (entry, length) in enumerate(zip(parameters.entries, parameters.lengths, strict=True)):
        sides = []
        for step in (-STEP * length, STEP * length):
            theta = parameters.theta.copy()
            theta[entry] += step
            there = _at(model, engine, theta)
            sides.append(np.square(predict_std(there, rows, of_mean=of_mean)))
        gradient[:, a] = (sides[1] - sides[0]) / (2.0 * STEP * length)
    spread = np.einsum("ra,ab,rb->r", gradient, parameters.covariance, gradient)
    with np.errstate(divide="ignore", invalid="ignore"):
        return errors, np.asarray(2.0 * errors**4 / spread)


def _at(model: FittedModel, engine: Engine, theta: FloatArray) -> FittedModel:
    """The model with other variance components."""
    return replace(
        model,
        roots=tuple(engine.components.roots(theta)[: len(model.roots)]),
        fixed_effects=engine.evaluate(theta, 0).fixed,
    )
