"""Goodness of fit: R squared, intraclass correlations, effect sizes.

All of them compare variances of an average row: of the fixed effects between rows, of each factor's
random effects (mean over the rows of ``z'D z``), and of the noise. Means and variances over rows
are weighted by the precision weights, and come from the sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.inference._models import model_of, warn_of_undetermined
from mixedlearn.inference._text import ResultTable
from mixedlearn.inference.conditional import response_without_fixed
from mixedlearn.model.fitted import FittedModel

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Variances:
    """Variances of the parts of an average row.

    Attributes
    ----------
    fixed : float
        Variance of X beta between rows.
    random : ndarray of shape (n_factors,)
        Mean variance of ``z'b`` over the rows, of every factor.
    noise : float
    """

    fixed: float
    random: FloatArray
    noise: float

    @property
    def total(self) -> float:
        """Variance of everything but the fixed effects."""
        return float(self.random.sum() + self.noise)


def _variances(model: FittedModel) -> _Variances:
    sums = model.sums_of_rows
    response = sums.response((), fit_intercept=False)
    random = [
        np.einsum("ab,ab->", square, covariance)
        for square, covariance in zip(column_products(model), model.covariances, strict=True)
    ]
    return _Variances(
        fixed=float(sums.variance_between_rows(response - response_without_fixed(model))),
        random=np.array(random, dtype=float),
        noise=average_noise(model),
    )


def column_products(model: FittedModel) -> list[FloatArray]:
    """Means over the rows of the products of every factor's columns, shapes (q, q)."""
    sums = model.sums_of_rows
    found = []
    for k, factor in enumerate(model.specification.factors):
        user = sums.random_columns(k, factor.random_intercept)
        found.append(user.T @ sums.z_products(k) @ user / sums.total_weight)
    return found


def average_noise(model: FittedModel) -> float:
    """Noise variance of a row of average weight; the mean over the rows where it differs."""
    sums = model.sums_of_rows
    variances = sums.n_rows if model.noise is None else model.noise.variances.sum()
    return float(model.noise_variance * variances / sums.total_weight)


def r2(estimator: Any) -> pd.Series:
    """Marginal and conditional R squared: shares of the variance that the model explains.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted.

    Returns
    -------
    shares : Series
        "marginal": of the fixed effects; "conditional": of fixed and random effects [1]_. With
        random slopes, the variance of the random effects is the mean over the rows [2]_. NaN where
        the model has no variance at all.

    Raises
    ------
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    Notes
    -----
    With weights, means and variances over the rows are weighted, and the noise variance is that of
    an average row, ``noise_variance_`` over the mean weight: the scale of the weights does not
    matter. With a residual structure it is the mean over the rows, each with its variance;
    correlations do not count.

    References
    ----------
    .. [1] Nakagawa, S. & Schielzeth, H. (2013). A general and simple method for obtaining R2 from
       generalized linear mixed-effects models. Methods in Ecology and Evolution 4, 133-142.
    .. [2] Johnson, P. C. D. (2014). Extension of Nakagawa & Schielzeth's R2GLMM to random slopes
       models. Methods in Ecology and Evolution 5, 944-946.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import r2
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> r2(model).round(3)
    marginal       0.279
    conditional    0.799
    Name: r2, dtype: float64
    """
    parts = _variances(model_of(estimator, takes_noise=True))
    explained = np.array([parts.fixed, parts.fixed + parts.random.sum()])
    shares = _shares(explained, parts.fixed + parts.total)
    return pd.Series(shares, index=["marginal", "conditional"], name="r2")


def intraclass_correlation(estimator: Any) -> pd.DataFrame:
    """Intraclass correlation: each factor's share of the variance.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted.

    Returns
    -------
    shares : DataFrame
        A row for each factor. "adjusted": the variance of its random effects over that of all
        random effects and the noise, the correlation of two rows that share only this factor's
        level once the fixed effects are allowed for; "unadjusted": with the variance of the fixed
        effects in the denominator [1]_. With random slopes, the variance of the random effects is
        its mean over the rows [2]_. NaN where the model has no variance at all.

    Raises
    ------
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    Notes
    -----
    Weights and residual structures count as in `r2`. Rows of one level whose noise is correlated
    have more in common than this says.

    References
    ----------
    .. [1] Nakagawa, S., Johnson, P. C. D. & Schielzeth, H. (2017). The coefficient of determination
       R2 and intra-class correlation coefficient from generalized linear mixed-effects models
       revisited and expanded. Journal of the Royal Society Interface 14, 20170213.
    .. [2] Johnson, P. C. D. (2014). Extension of Nakagawa & Schielzeth's R2GLMM to random slopes
       models. Methods in Ecology and Evolution 5, 944-946.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_penicillin
    >>> from mixedlearn.inference import intraclass_correlation
    >>> X, y = load_penicillin(return_X_y=True)
    >>> model = MixedLinearRegressor(groups=["plate", "sample"]).fit(X, y)
    >>> intraclass_correlation(model).round(3)
            adjusted  unadjusted
    plate      0.151       0.151
    sample     0.785       0.785
    """
    model = model_of(estimator, takes_noise=True)
    parts = _variances(model)
    return ResultTable(
        {
            "adjusted": _shares(parts.random, parts.total),
            "unadjusted": _shares(parts.random, parts.fixed + parts.total),
        },
        index=list(model.specification.factor_names),
    )


def effect_sizes(estimator: Any) -> pd.DataFrame:
    """Standardised fixed effects.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted.

    Returns
    -------
    sizes : DataFrame
        A row for each fixed effect, with columns

        - ``coef``: the coefficient; the row of one that cannot be estimated by itself is NaN;
        - ``per_noise_sd``: over the standard deviation of the noise: a difference within levels;
        - ``per_total_sd``: over the root of the variances of noise and random effects together [1]_
          (with random slopes their mean over the rows): Cohen's d for a column of zeros and ones;
        - ``standardised``: times the standard deviation of its column over that of the response;
          NaN for the intercept and where the response is constant.

    Raises
    ------
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    Notes
    -----
    Weights and residual structures count as in `r2`.

    References
    ----------
    .. [1] Westfall, J., Kenny, D. A. & Judd, C. M. (2014). Statistical power and optimal design in
       experiments in which samples of participants respond to samples of stimuli. Journal of
       Experimental Psychology: General 143, 2020-2045.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import effect_sizes
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> effect_sizes(model).round(2)
                 coef  per_noise_sd  per_total_sd  standardised
    intercept  251.41          9.82          5.18           NaN
    Days        10.47          0.41          0.22          0.54
    """
    model = model_of(estimator, takes_noise=True)
    specification = model.specification
    warn_of_undetermined(model)
    coef = np.where(model.fixed_basis.undetermined, np.nan, model.coef)
    parts = _variances(model)
    sums = model.sums_of_rows
    columns = np.sqrt(sums.variance_between_rows(np.eye(sums.n_basis)))
    columns = columns[1:-1][list(specification.fixed)]
    response = np.sqrt(sums.variance_between_rows(sums.response((), fit_intercept=False)))
    if specification.fit_intercept:
        columns = np.append(np.nan, columns)
    return ResultTable(
        {
            "coef": coef,
            "per_noise_sd": _shares(coef, np.sqrt(parts.noise)),
            "per_total_sd": _shares(coef, np.sqrt(parts.total)),
            "standardised": _shares(coef * columns, float(response)),
        },
        index=list(specification.coef_names),
    )


def _shares(parts: FloatArray, whole: float) -> FloatArray:
    """Parts over the whole; NaN for nothing over nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(parts) / np.float64(whole)
