"""Residuals and leverages of the rows of a fit.

Notation
--------
In rows scaled by the roots of their weights, with P = V^-1 - V^-1 X H^-1 X'V^-1, the conditional
residuals are ``P y`` and the hat matrix of the fitted values, random effects and all, is I - P. So
row r has the leverage

    h_r = var(sum_k z_k'b_k | y, beta) + x~'H^-1 x~,      x~ = (V^-1 X)_r = x - sum_k F_k'z_k

relative to the noise variance, where -F_k is the derivative of the BLUP of b_k by beta, and its
conditional residual the variance ``s2 (1 - h_r)`` given the variance components.

With the noise covariance R of a residual structure, conditional residuals are ``R P y``, their
covariance is ``s2 R P R``, and the hat matrix I - R P. All that is needed of P follows from h_r,
which is a quadratic form q of a row of [Z X]: of the rows of ``L^-1 [Z X]`` with ``L L' = R`` it is
the leverage in the metric of R,

    (R P R)_rr = R_rr - q([Z X]_r),    P_rr = (R^-1)_rr - q((R^-1 [Z X])_r)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.data.rows import CodedRows
from mixedlearn.inference._models import model_of
from mixedlearn.inference._training import training_noise, training_rows
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.prediction import RowSpread, predict_mean, row_spread
from mixedlearn.model.row_noise import RowNoise

FloatArray = NDArray[np.float64]

# Share of the noise variance that, left of a residual's variance, is rounding error.
NO_VARIANCE = 1e-10
KINDS = ("conditional", "marginal", "scaled", "studentized", "normalized")


def row_leverage(
    model: FittedModel, rows: CodedRows, chunk: slice, basis: FloatArray | None = None
) -> RowSpread:
    """Some rows of the fit, scaled by the roots of their weights; the variances are leverages.

    ``basis`` holds basis columns of all rows that are to stand for those of the rows.
    """
    own = model.sums.weighted_rows(rows, chunk) if basis is None else basis[chunk]
    return row_spread(model, own[:, :-1], [codes[chunk] for codes in rows.known_codes])


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
    y : array-like of shape (n_samples,) or str
        Their responses, or the name of their column in X; weights and offset may be names then.
    groups : array-like of shape (n_samples,) or (n_samples, n_factors), default=None
        Their labels, if `fit` had them beside X.
    kind : {"conditional", "marginal", "scaled", "studentized", "normalized"}, default="conditional"
        - "conditional": the response minus fixed effects and BLUPs, in units of y: estimates of the
          noise.
        - "marginal": the response minus the fixed effects, in units of y: random effects and noise.
        - "scaled": conditional residuals over the standard deviation of the row's noise (Pearson
          residuals).
        - "studentized": conditional residuals over their standard errors, which the row's leverage
          makes smaller than the noise.
        - "normalized": scaled residuals without the correlations of a residual structure: the part
          of each that the rows before it in its level do not tell, with variance one if the model
          is right. Without a structure they are the scaled ones.
    sample_weight : array-like of shape (n_samples,), default=None
        Their weights, if `fit` had weights.
    offset : float or array-like of shape (n_samples,), default=None
        Their offset, if `fit` had one beside X.

    Returns
    -------
    residuals : Series of shape (n_samples,)
        Named after the kind and indexed by the positions of the rows. Scaled, studentized and
        normalized residuals are NaN where the noise variance is zero; studentized ones also where
        the row has a weight of zero or leverage one, so that its residual is zero whatever y is.

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

    With a residual structure, R being the covariance of the noise of the rows of a level over
    ``noise_variance_``, ordered by time, and L the lower triangle with ``L L' = R``, normalized
    residuals are ``L^-1 e`` over the standard deviation of the noise, as in nlme [1]_. Other roots
    of R give other residuals that are as good.

    References
    ----------
    .. [1] Pinheiro, J. C. & Bates, D. M. (2000). Mixed-Effects Models in S and S-PLUS, section
       5.3. Springer.

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
    model = model_of(estimator, takes_noise=True)
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, got {kind!r}.")
    rows = training_rows(estimator, model, X, y, groups, sample_weight, offset)
    if kind == "marginal":
        values = rows.given_response - predict_mean(model, rows.of_population())
    elif kind == "conditional":
        values = conditional_residuals(model, rows)
    else:
        noise = training_noise(estimator, model, rows, X, groups)
        values = _standardised(model, rows, noise, kind)
    return pd.Series(values, name=kind)


def standard_residuals(
    estimator: Any, X: Any, y: Any, *, groups: Any, sample_weight: Any, offset: Any
) -> pd.Series:
    """Residuals with variance one that are nearly independent if the model is right, for pictures.

    Studentized ones; with a residual structure normalized ones over their standard errors. NaN as
    `residuals`.
    """
    model = model_of(estimator, takes_noise=True)
    rows = training_rows(estimator, model, X, y, groups, sample_weight, offset)
    noise = training_noise(estimator, model, rows, X, groups)
    if noise is None:
        return pd.Series(_standardised(model, rows, None, "studentized"), name="studentized")
    values = _standardised(model, rows, noise, "normalized")
    left = 1.0 - spread_of(model, rows, noise.whitened(noise.basis))
    left[(left < NO_VARIANCE) | (rows.given_weights == 0.0)] = np.nan
    return pd.Series(values / np.sqrt(left), name="normalized")


def _standardised(
    model: FittedModel, rows: CodedRows, noise: RowNoise | None, kind: str
) -> FloatArray:
    """Conditional residuals over what their kind says, shape (n,)."""
    values = conditional_residuals(model, rows) * np.sqrt(rows.given_weights)
    variance = np.ones(len(values))
    if noise is not None and kind == "normalized":
        values = noise.whitened(values[:, None])[:, 0]
    elif noise is not None:
        variance = noise.variances.copy()
    if kind == "studentized":
        least = NO_VARIANCE * variance
        variance -= spread_of(model, rows, None if noise is None else noise.basis)
        variance[(variance < least) | (rows.given_weights == 0.0)] = 0.0
    variance *= model.noise_variance
    with np.errstate(divide="ignore", invalid="ignore"):
        values = values / np.sqrt(variance)
    values[variance == 0.0] = np.nan
    return values


def spread_of(model: FittedModel, rows: CodedRows, basis: FloatArray | None = None) -> FloatArray:
    """The quadratic form q of all rows, or of what stands for their basis columns, shape (n,)."""
    parts = [row_leverage(model, rows, chunk, basis).variance for chunk in rows.chunks()]
    return np.concatenate(parts)


def leverages(model: FittedModel, rows: CodedRows, noise: RowNoise | None) -> FloatArray:
    """Diagonal of the hat matrix, shape (n,)."""
    if noise is None:
        return spread_of(model, rows)
    # The form of two rows: of [Z X]_r and (R^-1 [Z X])_r.
    basis, solved = noise.basis, noise.solved(noise.basis)
    both = spread_of(model, rows, basis + solved) - spread_of(model, rows, basis - solved)
    return both / 4.0
