"""Residuals and leverages of the rows of a fit.

Notation
--------
In rows scaled by the roots of their weights, with P = V^-1 - V^-1 X H^-1 X'V^-1, the conditional
residuals are ``P y`` and the hat matrix of the fitted values, random effects and all, is I - P. So
row r has the leverage

    h_r = var(sum_k z_k'b_k | y, beta) + x~'H^-1 x~,      x~ = (V^-1 X)_r = x - sum_k F_k'z_k

relative to the noise variance, where -F_k is the derivative of the BLUP of b_k by beta, and its
conditional residual the variance ``s2 (1 - h_r)`` given the variance components.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.data.rows import CodedRows
from mixedlearn.inference._models import model_of
from mixedlearn.inference._training import training_rows
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.prediction import RowSpread, predict_mean, row_spread

FloatArray = NDArray[np.float64]

# Share of the noise variance that, left of a residual's variance, is rounding error.
NO_VARIANCE = 1e-10
KINDS = ("conditional", "marginal", "scaled", "studentized")


def row_leverage(model: FittedModel, rows: CodedRows, chunk: slice) -> RowSpread:
    """Some rows of the fit, scaled by the roots of their weights; the variances are leverages."""
    basis = model.sums.weighted_rows(rows, chunk)[:, :-1]
    return row_spread(model, basis, [own[chunk] for own in rows.known_codes])


def conditional_residuals(model: FittedModel, rows: CodedRows) -> FloatArray:
    """Response minus fixed effects and BLUPs, shape (n,)."""
    return rows.given_response - predict_mean(model, rows)


def residuals(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    groups: Any = None,
    kind: str = "conditional",
    sample_weight: Any = None,
    offset: Any = None,
) -> pd.Series:
    """Residuals of the rows of the fit.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted.
    X : array-like or DataFrame of shape (n_samples, n_features)
        The rows that `fit` had; the fit does not keep them.
    y : array-like of shape (n_samples,)
        Their responses.
    groups : array-like of shape (n_samples,) or (n_samples, n_factors), default=None
        Their labels, if `fit` had them beside X.
    kind : {"conditional", "marginal", "scaled", "studentized"}, default="conditional"
        - "conditional": the response minus fixed effects and BLUPs, in units of y: estimates of the
          noise.
        - "marginal": the response minus the fixed effects, in units of y: random effects and noise.
        - "scaled": conditional residuals times the root of the weight over the standard deviation
          of the noise.
        - "studentized": conditional residuals over their standard errors, which the row's leverage
          makes smaller than the noise.
    sample_weight : array-like of shape (n_samples,), default=None
        Their weights, if `fit` had weights.
    offset : float or array-like of shape (n_samples,), default=None
        Their offset, if `fit` had one beside X.

    Returns
    -------
    residuals : Series of shape (n_samples,)
        Named after the kind and indexed by the positions of the rows. Scaled and studentized
        residuals are NaN where the noise variance is zero; studentized ones also where the row has
        a weight of zero or leverage one, so that its residual is zero whatever y is.

    Raises
    ------
    ValueError
        If the rows are not those of the fit, or there is no such kind.
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    Notes
    -----
    For other rows, conditional residuals are ``y - estimator.predict(X)``. An offset is part of
    the prediction.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import residuals
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> residuals(model, X, y, kind="scaled").head(3).round(3)
    0   -0.160
    1   -0.571
    2   -1.649
    Name: scaled, dtype: float64
    """
    model = model_of(estimator)
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, got {kind!r}.")
    rows = training_rows(estimator, model, X, y, groups, sample_weight, offset)
    if kind == "marginal":
        values = rows.given_response - predict_mean(model, rows.of_population())
    else:
        values = conditional_residuals(model, rows)
    if kind in ("scaled", "studentized"):
        variance = np.full(len(values), model.noise_variance)
        if kind == "studentized":
            variance *= 1.0 - leverages(model, rows)
            variance[variance < NO_VARIANCE * model.noise_variance] = 0.0
            variance[rows.given_weights == 0.0] = 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            values = values * np.sqrt(rows.given_weights / variance)
        values[variance == 0.0] = np.nan
    return pd.Series(values, name=kind)


def leverages(model: FittedModel, rows: CodedRows) -> FloatArray:
    """Diagonal of the hat matrix, shape (n,)."""
    parts = [row_leverage(model, rows, chunk).variance for chunk in rows.chunks()]
    return np.concatenate(parts)
