"""Conditional AIC.

Notation
--------
With P = V^-1 - V^-1 X H^-1 X'V^-1 in rows scaled by the roots of their weights, the fitted values
X beta + sum_k Z_k b_k are ``(I - P) y``. So the trace of the hat matrix is

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
from numpy.typing import NDArray

from mixedlearn.engines.problem import make_problem
from mixedlearn.inference._models import model_of
from mixedlearn.inference._text import lines_html
from mixedlearn.model.fitted import FittedModel

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

    See Also
    --------
    conditional_aic : Computes it.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import conditional_aic
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> criterion = conditional_aic(model)
    >>> round(criterion.effective_df, 2), round(criterion.value, 2)
    (29.02, 1709.06)
    """

    value: float
    log_likelihood: float
    effective_df: float
    n_parameters: float

    def __repr__(self) -> str:
        return (
            f"Conditional AIC: {self.value:.2f}\n"
            f"conditional log-likelihood: {self.log_likelihood:.2f}\n"
            f"effective degrees of freedom: {self.effective_df:.2f} + 1 for the noise"
        )

    def _repr_html_(self) -> str:
        return lines_html(str(self))


def conditional_aic(estimator: Any) -> ConditionalAIC:
    """Conditional AIC: of predictions for the levels that were seen.

    `MixedLinearRegressor.aic` judges predictions for new levels. Where the levels themselves are of
    interest, the likelihood is that given the random effects, and these count by the trace of the
    hat matrix [1]_, between none and all of them.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted by REML or ML.

    Returns
    -------
    criterion : ConditionalAIC
        Its value is minus infinity where the fixed effects reproduce the response exactly.

    Raises
    ------
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

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
    model = model_of(estimator)
    n, noise = model.sums.n_rows, model.noise_variance
    p = len(model.fixed_effects.coef)
    if model.fixed_basis.is_exact:
        return ConditionalAIC(-np.inf, np.inf, float(p), p + 1.0)
    residual = conditional_residual_square(model)
    df = effective_df(model, residual)
    log_likelihood = -0.5 * (
        n * np.log(2.0 * np.pi * noise) - model.sums.sum_log_weights + residual / noise
    )
    return ConditionalAIC(
        value=float(2.0 * (df + 1.0 - log_likelihood)),
        log_likelihood=float(log_likelihood),
        effective_df=df,
        n_parameters=df + 1.0,
    )


def conditional_residual_square(model: FittedModel) -> float:
    """Weighted sum of squares of the conditional residuals, from the sums."""
    sums, residual = model.sums, response_without_fixed(model)
    square = float(sums.products(residual))
    # The BLUPs of every level, as coefficients of the z columns, whose shift they take up.
    effects = [
        sums.random_columns(k, factor.random_intercept) @ blups.T
        for k, (factor, blups) in enumerate(
            zip(model.specification.factors, model.blups, strict=True)
        )
    ]
    units = [np.eye(len(own)) for own in effects]
    for k, own in enumerate(effects):
        mixed = sums.level_products(k, units[k], residual[:, None])[:, 0]
        square -= 2.0 * float(np.vdot(own, mixed))
        products = sums.z_level_products(k)
        square += float(np.einsum("zm,zwm,wm->", own, products, own, optimize=True))
        for other in range(k + 1, len(effects)):
            first, second = sums.pairs(k, other)
            products = sums.crossed(k, other, units[k], units[other])
            left, right = own[:, first], effects[other][:, second]
            square += 2.0 * float(np.einsum("zm,zwm,wm->", left, products, right, optimize=True))
    return square


def response_without_fixed(model: FittedModel) -> FloatArray:
    """``y - X beta`` in terms of the basis columns, shape (k + 2,)."""
    basis = model.fixed_basis
    return basis.scale * (basis.response - basis.columns @ model.fixed_effects.coef)


def effective_df(model: FittedModel, residual_square: float) -> float:
    """Trace of the hat matrix, from the conditional residual sum of squares."""
    n, p = model.sums.n_rows, len(model.fixed_effects.coef)
    if not model.has_random_effects:
        return float(p)
    restricted = model.recipe.of(replace(model.specification, reml=True))
    problem = make_problem(model.sums, restricted)
    engine = problem.engine
    evaluation = engine.evaluate(engine.components.theta_of_roots(model.roots), 1)
    slack = sum(
        float(np.einsum("ij,ik,jk->", gradient, root, root))
        for gradient, root in zip(evaluation.covariance_gradients, model.roots, strict=True)
    )
    noise = evaluation.fixed.noise_variance * problem.fixed.scale**2
    return float(n - residual_square / noise + slack)
