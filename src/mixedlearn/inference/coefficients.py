"""The model matrix, the coefficients of every level, and the figures that compare models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mixedlearn.inference._criteria import aic, bic, n_parameters
from mixedlearn.inference._models import model_of, view_of
from mixedlearn.inference._text import ResultTable


def model_matrix(estimator: Any, X: Any, *, groups: Any = None) -> pd.DataFrame:
    """Model matrix of the fixed effects, R's ``model.matrix``.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted.
    X : array-like or DataFrame of shape (n_samples, n_features)
        The columns that `fit` had, of any rows.
    groups : array-like, default=None
        Labels, if X has no columns and they came beside it in `fit`.

    Returns
    -------
    matrix : DataFrame of shape (n_samples, p)
        A column for every coefficient, the intercept first if there is one; of a formula the dummy
        variables, polynomials and splines as they were fitted.

    Raises
    ------
    ValueError
        If the columns are not those of `fit`, not numeric or not finite.
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    Examples
    --------
    >>> from mixedlearn import lmer
    >>> from mixedlearn.datasets import load_cake
    >>> from mixedlearn.inference import model_matrix
    >>> cake = load_cake().frame
    >>> model = lmer("angle ~ recipe + temp + (1 | recipe:replicate)", cake)
    >>> model_matrix(model, cake.head(2))
       intercept  recipe[T.B]  recipe[T.C]   temp
    0        1.0          0.0          0.0  175.0
    1        1.0          0.0          0.0  185.0
    """
    specification = model_of(estimator, takes_noise=True).specification
    columns = view_of(estimator, takes_noise=True).rows(X, groups).X
    fixed = columns[:, list(specification.fixed)]
    if specification.fit_intercept:
        fixed = np.column_stack([np.ones(len(columns)), fixed])
    index = X.index if isinstance(X, pd.DataFrame) else None
    return pd.DataFrame(fixed, index=index, columns=list(specification.coef_names), dtype=float)


def level_coefficients(estimator: Any) -> dict[str, pd.DataFrame]:
    """Coefficients of every level: fixed effects plus the level's BLUPs, R's ``coef``.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted.

    Returns
    -------
    coefficients : dict of str to DataFrame of shape (n_levels, p)
        For every factor, the coefficients of its levels, those of other factors' random effects
        left out. A random effect without a fixed one has a column of its own at the end.

    Raises
    ------
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    Examples
    --------
    >>> from mixedlearn import lmer
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import level_coefficients
    >>> model = lmer("Reaction ~ Days + (1 + Days | Subject)", load_sleepstudy().frame)
    >>> level_coefficients(model)["Subject"].round(3).head(2)
             intercept    Days
    Subject
    308        253.664  19.666
    309        211.007   1.848
    """
    model = model_of(estimator, takes_noise=True)
    fixed = pd.Series(model.coef, index=list(model.specification.coef_names))
    found: dict[str, pd.DataFrame] = {}
    for name, effects in estimator.random_effects_.items():
        columns = [*fixed.index, *effects.columns.difference(fixed.index, sort=False)]
        found[name] = ResultTable(
            effects.reindex(columns=columns, fill_value=0.0).add(
                fixed.reindex(columns, fill_value=0.0)
            )
        )
    return found


def information_criteria(estimator: Any) -> pd.Series:
    """Log-likelihood, numbers of rows and parameters, AIC and BIC.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted.

    Returns
    -------
    criteria : Series
        ``log_likelihood``, the restricted one if ``reml``; ``deviance``, minus twice that;
        ``n_rows`` of positive weight; ``n_parameters``: fixed effects that are not aliased, theta
        and the noise; ``df_residual``, rows less parameters; ``aic`` and ``bic``.

    Raises
    ------
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    Examples
    --------
    >>> from mixedlearn import lmer
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import information_criteria
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> information_criteria(lmer(formula, load_sleepstudy().frame)).round(4)
    log_likelihood    -871.8141
    deviance          1743.6283
    n_rows             180.0000
    n_parameters         6.0000
    df_residual        174.0000
    aic               1755.6283
    bic               1774.7860
    dtype: float64
    """
    model = model_of(estimator, takes_noise=True)
    n_rows, n_estimated = model.sums.n_rows, n_parameters(model)
    return pd.Series(
        {
            "log_likelihood": -0.5 * model.objective,
            "deviance": model.objective,
            "n_rows": n_rows,
            "n_parameters": n_estimated,
            "df_residual": n_rows - n_estimated,
            "aic": aic(model),
            "bic": bic(model),
        },
        dtype=float,
    )
