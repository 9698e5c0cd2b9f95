"""Goodness of fit: conditional AIC, R squared, intraclass correlations, effect sizes.

Notation
--------
Sums over rows are weighted by the precision weights w, scaled to add up to n. With P = V^-1 - V^-1
X H^-1 X'V^-1 in rows scaled by the roots of their weights, the fitted values X beta + sum_k Z_k b_k
are ``(I - P) y``. So the trace of the hat matrix is

    rho = n - tr(P) = p + sum_k tr(D_k sum_i Z_ki'P Z_ki)

and the conditional residual sum of squares is ``y'P^2 y = y'P y - sum_k sum_i u_ki'D_k u_ki``. With
G_k, the derivative of the restricted objective by D_k (`engines.one_factor`), and its noise
variance s2 = y'P y / (n - p) this gives

    n - rho = y'P^2 y / s2 - sum_k tr(D_k G_k)

whose last term is zero where the restricted likelihood has its maximum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.fitted import FittedModel
from mixedlearn.inference._models import model_of
from mixedlearn.problem import make_problem

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ConditionalAIC:
    """Conditional AIC; prints its parts.

    Attributes
    ----------
    value : float
        Minus twice the conditional log-likelihood plus twice the number of parameters.
    log_likelihood : float
        Log-likelihood of the response given the random effects, at the estimates and BLUPs.
    effective_df : float
        Trace of the hat matrix: effective number of fixed and random effects.
    n_parameters : float
        That and one for the noise variance.
    """

    value: float
    log_likelihood: float
    effective_df: float
    n_parameters: float

    def __str__(self) -> str:
        return (
            f"Conditional AIC: {self.value:.2f}\n"
            f"conditional log-likelihood: {self.log_likelihood:.2f}\n"
            f"effective degrees of freedom: {self.effective_df:.2f} + 1 for the noise"
        )

    def _repr_html_(self) -> str:
        return "<p>" + str(self).replace("\n", "<br>") + "</p>"


def conditional_aic(est: Any) -> ConditionalAIC:
    """Conditional AIC: of predictions for the levels that were seen.

    `MixedLinearRegressor.aic` judges predictions for new levels. Where the levels themselves are of
    interest, the likelihood is that given the random effects, and these count by the trace of the
    hat matrix [1]_, between none and all of them.

    Parameters
    ----------
    est : MixedLinearRegressor
        Fitted by REML or ML.

    Returns
    -------
    criterion : ConditionalAIC
        Its value is minus infinity where the fixed effects reproduce the response exactly.

    Raises
    ------
    TypeError
        If the estimator is no `MixedLinearRegressor`.

    Notes
    -----
    The variance components count as known but for that of the noise; a correction for their
    estimation [2]_ is not made, so the criterion leans towards more random effects.

    References
    ----------
    .. [1] Vaida, F. & Blanchard, S. (2005). Conditional Akaike information for mixed-effects
       models. Biometrika 92, 351-370.
    .. [2] Greven, S. & Kneib, T. (2010). On the behaviour of marginal and conditional AIC in linear
       mixed models. Biometrika 97, 773-789.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import conditional_aic
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> print(conditional_aic(model))
    Conditional AIC: 1709.06
    conditional log-likelihood: -824.51
    effective degrees of freedom: 29.02 + 1 for the noise
    """
    model = model_of(est)
    n, noise = model.products.n_rows, model.noise_variance
    p = len(model.fixed_effects.coef)
    if model.fixed_basis.is_exact:
        return ConditionalAIC(-np.inf, np.inf, float(p), p + 1.0)
    residual = conditional_residual_square(model)
    df = effective_df(model, residual)
    log_likelihood = -0.5 * (
        n * np.log(2.0 * np.pi * noise) - model.products.sum_log_weights + residual / noise
    )
    return ConditionalAIC(
        value=float(2.0 * (df + 1.0 - log_likelihood)),
        log_likelihood=float(log_likelihood),
        effective_df=df,
        n_parameters=df + 1.0,
    )


def conditional_residual_square(model: FittedModel) -> float:
    """Weighted sum of squares of the conditional residuals, from the cross-products."""
    products, specification = model.products, model.specification
    residual = _response_without_fixed(model)
    square = float(residual @ products.gram @ residual)
    # The BLUPs of every level, as coefficients of the z columns, whose shift they take up.
    effects = []
    for factor, z, blups in zip(
        specification.factors, products.z_columns, model.blups, strict=True
    ):
        own = np.zeros((len(z), len(blups)))
        own[int(not factor.random_intercept) :] = blups.T
        own[0] += products.shift[np.array(z[1:], dtype=int) - 1] @ own[1:]
        effects.append(own)
    for k, own in enumerate(effects):
        grouped, own_z = products.grouped[k], list(products.z_columns[k])
        square -= 2.0 * float(np.einsum("zm,zbm,b->", own, grouped, residual, optimize=True))
        square += float(np.einsum("zm,zwm,wm->", own, grouped[:, own_z], own, optimize=True))
        for other in range(k + 1, len(effects)):
            crossing = products.crossings[k, other]
            left, right = own[:, crossing.first], effects[other][:, crossing.second]
            square += 2.0 * float(
                np.einsum("zm,zwm,wm->", left, crossing.products, right, optimize=True)
            )
    return square


def _response_without_fixed(model: FittedModel) -> FloatArray:
    """``y - X beta`` in terms of the basis columns, shape (k + 2,)."""
    basis = model.fixed_basis
    return basis.scale * (basis.response - basis.columns @ model.fixed_effects.coef)


def effective_df(model: FittedModel, residual_square: float) -> float:
    """Trace of the hat matrix, from the conditional residual sum of squares."""
    n, p = model.products.n_rows, len(model.fixed_effects.coef)
    if not model.has_random_effects:
        return float(p)
    problem = make_problem(
        model.products,
        replace(model.specification, reml=True),
        bound_noise=model.is_bounded,
    )
    engine = problem.engine
    evaluation = engine.evaluate(engine.components.theta_from_factors(model.factors), 1)
    slack = sum(
        float(np.einsum("ij,ik,jk->", gradient, factor, factor))
        for gradient, factor in zip(evaluation.covariance_gradients, model.factors, strict=True)
    )
    noise = evaluation.fixed.noise_variance * problem.fixed.scale**2
    return float(n - residual_square / noise + slack)


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
    products = model.products
    gram = products.gram
    response = np.zeros(len(gram))
    response[-1] = 1.0
    random = []
    for factor, z, covariance in zip(
        model.specification.factors, products.z_columns, model.covariances, strict=True
    ):
        user = np.eye(len(z))
        user[0, 1:] = products.shift[np.array(z[1:], dtype=int) - 1]
        user = user[:, int(not factor.random_intercept) :]
        square = user.T @ gram[np.ix_(z, z)] @ user
        random.append(float(np.einsum("ab,ab->", square, covariance)) / gram[0, 0])
    return _Variances(
        fixed=float(
            _between_rows(gram, response - _response_without_fixed(model), products.n_rows)
        ),
        random=np.array(random),
        noise=model.noise_variance * products.n_rows / gram[0, 0],
    )


def _between_rows(gram: FloatArray, columns: FloatArray, n_rows: int) -> FloatArray:
    """Variances of combinations of the basis columns between rows, with n - 1 below."""
    weight = gram[0, 0]
    mean = gram[0] @ columns / weight
    centred = columns.copy()
    centred[0] -= mean
    square = np.einsum("b...,bc,c...->...", centred, gram, centred)
    return square / weight * n_rows / max(n_rows - 1, 1)


def r2(est: Any) -> pd.Series:
    """Marginal and conditional R squared: shares of the variance that the model explains.

    Parameters
    ----------
    est : MixedLinearRegressor

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

    Notes
    -----
    With weights, means and variances over the rows are weighted, and the noise variance is that of
    an average row, ``noise_variance_`` over the mean weight: the scale of the weights does not
    matter.

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
    parts = _variances(model_of(est))
    explained = np.array([parts.fixed, parts.fixed + parts.random.sum()])
    shares = _shares(explained, parts.fixed + parts.total)
    return pd.Series(shares, index=["marginal", "conditional"], name="r2")


def intraclass_correlation(est: Any) -> pd.DataFrame:
    """Intraclass correlation: each factor's share of the variance.

    Parameters
    ----------
    est : MixedLinearRegressor

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

    Notes
    -----
    Weights count as in `r2`.

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
    model = model_of(est)
    parts = _variances(model)
    return pd.DataFrame(
        {
            "adjusted": _shares(parts.random, parts.total),
            "unadjusted": _shares(parts.random, parts.fixed + parts.total),
        },
        index=list(model.specification.factor_names),
    )


def effect_sizes(est: Any) -> pd.DataFrame:
    """Standardised fixed effects.

    Parameters
    ----------
    est : MixedLinearRegressor

    Returns
    -------
    sizes : DataFrame
        A row for each fixed effect, with columns

        - ``coef``: the coefficient;
        - ``per_noise_sd``: over the standard deviation of the noise: a difference within levels;
        - ``per_total_sd``: over the root of the variances of noise and random effects together [1]_
          (with random slopes their mean over the rows): Cohen's d for a column of zeros and ones;
        - ``standardised``: times the standard deviation of its column over that of the response;
          NaN for the intercept and where the response is constant.

    Raises
    ------
    TypeError
        If the estimator is no `MixedLinearRegressor`.

    Notes
    -----
    Weights count as in `r2`.

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
    model = model_of(est)
    products, specification, coef = model.products, model.specification, model.coef
    parts = _variances(model)
    sd = np.sqrt(_between_rows(products.gram, np.eye(len(products.gram)), products.n_rows))
    columns = sd[1:-1][list(specification.fixed)]
    if specification.fit_intercept:
        columns = np.append(np.nan, columns)
    return pd.DataFrame(
        {
            "coef": coef,
            "per_noise_sd": _shares(coef, np.sqrt(parts.noise)),
            "per_total_sd": _shares(coef, np.sqrt(parts.total)),
            "standardised": _shares(coef * columns, sd[-1]),
        },
        index=list(specification.coef_names),
    )


def _shares(parts: FloatArray, whole: float) -> FloatArray:
    """Parts over the whole; NaN for nothing over nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(parts) / np.float64(whole)
