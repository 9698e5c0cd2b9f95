"""Tables of estimates: coefficients and variances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.covariance.algebra import correlations
from mixedlearn.inference._models import check_level, model_of, warn_of_undetermined
from mixedlearn.inference._noise_parameters import noise_errors
from mixedlearn.inference._text import ResultTable
from mixedlearn.inference._uncertainty import (
    CovarianceEstimate,
    coef_uncertainty,
    degrees_of_freedom,
    standard_errors,
    t_quantile,
    two_sided_p,
)
from mixedlearn.inference._variance_parameters import FLAT_SHARE, variance_parameters
from mixedlearn.inference.robust import estimate_robustly
from mixedlearn.model.fitted import FittedModel

FloatArray = NDArray[np.float64]

# A covariance matrix whose smallest eigenvalue is below this share of its size is singular.
SINGULAR = 1e-12


def coefficient_table(
    estimator: Any,
    ddf: str = "satterthwaite",
    level: float = 0.95,
    *,
    covariance: CovarianceEstimate | None = None,
) -> pd.DataFrame:
    """Estimates of the fixed effects with standard errors, t tests and confidence intervals.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted.
    ddf : {"satterthwaite", "kenward-roger", "residual", "normal"}, default="satterthwaite"
        Degrees of freedom: by the observed information of the variances [1]_ [2]_; by the expected
        information, with standard errors that allow for the estimation of the variances [3]_ (REML
        only); rows less fixed effects; or infinite, the normal distribution.
    level : float, default=0.95
        Level of the confidence intervals.
    covariance : RobustCovariance, default=None
        Standard errors are those of this covariance instead of the model's, and ``ddf`` is
        "satterthwaite", by the variance of that covariance if the model is right, or "normal". See
        `robust_covariance`.

    Returns
    -------
    DataFrame of shape (p, 7)
        A row for every coefficient, in units of y per unit of its column: ``estimate``,
        ``std_error``, ``df``, ``t_value`` and ``p_value`` of the hypothesis that it is zero
        (two-sided), ``lower`` and ``upper``. Of a coefficient that cannot be estimated by itself,
        because columns are aliased, there is only the estimate, that of ``coef_``; the row of a
        column that a formula leaves out is NaN.

    Raises
    ------
    ValueError
        If ``ddf`` or ``level`` is not allowed, the model was fitted by maximum likelihood and
        ``ddf="kenward-roger"``, there are too many random effects for that method, or
        ``covariance`` is that of another fit.
    TypeError
        If the estimator is no `MixedLinearRegressor`, or ``covariance`` no `RobustCovariance`.
    NotFittedError
        Before `fit`.

    Warns
    -----
    DegenerateModelWarning
        If some coefficients cannot be estimated by themselves; it names them.

    Notes
    -----
    Where a variance is zero, Satterthwaite's method leaves it out: the standard errors do not
    change with it to first order. So it does with directions in which the likelihood is flat.
    Kenward and Roger's method takes a variance of zero like any other, as pbkrtest does. Without
    random effects the degrees of freedom are the residual ones; where the fixed effects reproduce
    the response, t is infinite.

    The derivatives that Satterthwaite's method takes are computed once for a fit, and serve all
    tables. They cost about as much as the fit. With five hundred and more random effects of crossed
    factors they are one-sided differences, and degrees of freedom have five digits.

    References
    ----------
    .. [1] Giesbrecht, F. G. & Burns, J. C. (1985). Two-stage analysis based on a mixed model:
       large-sample asymptotic theory and small-sample simulation results. Biometrics 41, 477-486.
    .. [2] Kuznetsova, A., Brockhoff, P. B. & Christensen, R. H. B. (2017). lmerTest package: tests
       in linear mixed effects models. Journal of Statistical Software 82(13).
    .. [3] Kenward, M. G. & Roger, J. H. (1997). Small sample inference for fixed effects from
       restricted maximum likelihood. Biometrics 53, 983-997.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import coefficient_table
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> coefficient_table(model)
              estimate std_error     df t_value  p_value   lower   upper
    intercept   251.41     6.825  17.00  36.838  < 0.001  237.01  265.80
    Days         10.47     1.546  17.00   6.771  < 0.001    7.21   13.73
    """
    model = model_of(estimator, takes_noise=True)
    table = coefficient_estimates(model, ddf, level, covariance)
    warn_of_undetermined(model)
    return table


def coefficient_estimates(
    model: FittedModel, ddf: str, level: float, covariance: CovarianceEstimate | None = None
) -> pd.DataFrame:
    """The table of `coefficient_table`, without a word about what cannot be estimated."""
    check_level(level)
    uncertainty = coef_uncertainty(model, ddf, covariance)
    rows = np.eye(len(model.coef))
    basis = model.fixed_basis
    is_left_out = basis.aliased & model.specification.drops_aliased
    estimates = np.where(is_left_out, np.nan, model.coef)
    errors = np.where(basis.undetermined, np.nan, standard_errors(uncertainty, rows))
    df = np.where(basis.undetermined, np.nan, degrees_of_freedom(uncertainty, rows))
    names = model.specification.coef_names
    return estimate_table(pd.Index(names, dtype=object), estimates, 0.0, errors, df, level)


def estimate_table(
    index: pd.Index,
    estimates: FloatArray,
    hypothesis: FloatArray | float,
    errors: FloatArray,
    df: FloatArray,
    level: float,
) -> pd.DataFrame:
    """Estimates with t tests of hypothetical values and confidence intervals."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t_value = (estimates - hypothesis) / errors
    margin = t_quantile((1.0 + level) / 2.0, df) * errors
    return ResultTable(
        {
            "estimate": estimates,
            "std_error": errors,
            "df": df,
            "t_value": t_value,
            "p_value": two_sided_p(t_value, df),
            "lower": estimates - margin,
            "upper": estimates + margin,
        },
        index=index,
    )


def coefficient_covariance(
    estimator: Any,
    kind: str = "model",
    X: Any = None,
    y: Any = None,
    *,
    groups: Any = None,
    cluster: Any = None,
    correction: str = "CR2",
    sample_weight: Any = None,
    offset: Any = None,
) -> pd.DataFrame:
    """Covariance matrix of the fixed effects.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted.
    kind : {"model", "kenward-roger", "sandwich"}, default="model"
        That of the model, the variances taken as known (``coef_covariance_``); the one that
        Kenward & Roger adjust for their estimation, which is larger [1]_; or a cluster-robust one,
        which needs the rows.
    X : array-like or DataFrame of shape (n_samples, n_features), default=None
        The rows that `fit` had; this and all that follows is for ``kind="sandwich"`` alone.
    y : array-like of shape (n_samples,), default=None
        Their responses.
    groups : array-like of shape (n_samples,) or (n_samples, n_factors), default=None
        Their labels, if `fit` had them beside X.
    cluster : str, tuple of str, or array-like of shape (n_samples,), default=None
        The clusters, see `robust_covariance`; None: the levels of the only grouping factor.
    correction : {"CR0", "CR1", "CR1p", "CR1S", "CR2"}, default="CR2"
        Small-sample correction, see `robust_covariance`.
    sample_weight : array-like of shape (n_samples,), default=None
        Their weights, if `fit` had weights.
    offset : float or array-like of shape (n_samples,), default=None
        Their offset, if `fit` had one beside X.

    Returns
    -------
    DataFrame of shape (p, p)
        That of ``coef_``: of aliased columns, of the shortest coefficients; zero for the columns
        that a formula leaves out.

    Raises
    ------
    ValueError
        If the kind is unknown, or cannot be had for this model (see `coefficient_table`); if
        the kind is "sandwich" and X or y is missing, or as for `robust_covariance`; or if X or y
        is given to another kind.
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    Warns
    -----
    DegenerateModelWarning
        As `robust_covariance`.

    See Also
    --------
    robust_covariance : The cluster-robust one, for tables and tests.

    References
    ----------
    .. [1] Kenward, M. G. & Roger, J. H. (1997). Small sample inference for fixed effects from
       restricted maximum likelihood. Biometrics 53, 983-997.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import coefficient_covariance
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject").fit(X, y)
    >>> coefficient_covariance(model, "kenward-roger").round(3)
               intercept   Days
    intercept     94.998 -2.910
    Days          -2.910  0.647
    >>> coefficient_covariance(model, "sandwich", X, y).round(3)
               intercept   Days
    intercept     46.575 -1.451
    Days          -1.451  2.389
    """
    model = model_of(estimator, takes_noise=True)
    if kind not in ("model", "kenward-roger", "sandwich"):
        raise ValueError(f"kind={kind!r} is unknown: use 'model', 'kenward-roger' or 'sandwich'.")
    has_rows = [rows is not None for rows in (X, y)]
    if kind == "sandwich":
        if not all(has_rows):
            raise ValueError(
                "kind='sandwich' needs the rows of the fit, which the model does not keep: pass "
                "X and y, with groups, sample_weight and offset if fit had them."
            )
        return estimate_robustly(
            estimator, X, y, groups, cluster, correction, sample_weight, offset, stacklevel=3
        ).covariance
    if any(has_rows):
        raise ValueError(f"kind={kind!r} takes no rows: leave X and y out, or use 'sandwich'.")
    is_adjusted = kind == "kenward-roger"
    covariance = coef_uncertainty(model, kind).covariance if is_adjusted else model.coef_covariance
    names = list(model.specification.coef_names)
    return ResultTable(covariance, index=names, columns=names)


def variance_table(estimator: Any, std_error: bool = True) -> pd.DataFrame:
    """Variances and covariances of the random effects, and the noise variance.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted.
    std_error : bool, default=True
        Whether to compute standard errors, which takes four evaluations of the likelihood for every
        variance parameter.

    Returns
    -------
    DataFrame
        A row for every variance and every covariance that the model leaves free, factor by factor,
        and one for the noise: ``factor``; ``effects``, a name for a variance and two for a
        covariance; ``variance``, which holds the covariance there; ``sd``, of variances;
        ``correlation``, of covariances; ``std_error`` of the variance or covariance.

    Raises
    ------
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    Notes
    -----
    Standard errors come from the observed information of the criterion that was fitted, the
    restricted likelihood or the likelihood, and the delta method. Variances are far from normally
    distributed, so they are no basis of tests and intervals. They are NaN where they mean
    nothing: where the covariance matrix of the effects that covary is singular (a variance is zero
    or a correlation is one) and where the likelihood is flat.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import variance_table
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> variance_table(model)
        factor         effects variance      sd correlation std_error
    0  Subject       intercept  612.090  24.740                288.78
    1  Subject            Days   35.072   5.922                 14.78
    2  Subject  intercept,Days    9.604               0.066     46.68
    3    noise                  654.941  25.592                 77.19
    """
    model = model_of(estimator, takes_noise=True)
    errors = variance_errors(model) if std_error else None
    found = []
    for k, (factor, covariance) in enumerate(
        zip(model.specification.factors, model.covariances, strict=True)
    ):
        deviations, ratios = np.sqrt(np.diag(covariance)), correlations(covariance)
        for i, j in _free_entries(factor.structure.mask):
            is_variance = i == j
            names = factor.effects[i] if is_variance else f"{factor.effects[i]},{factor.effects[j]}"
            found.append(
                {
                    "factor": factor.name,
                    "effects": names,
                    "variance": covariance[i, j],
                    "sd": deviations[i] if is_variance else np.nan,
                    "correlation": np.nan if is_variance else ratios[i, j],
                    "std_error": np.nan if errors is None else errors[k][i, j],
                }
            )
    found.append(
        {
            "factor": "noise",
            "effects": "",
            "variance": model.noise_variance,
            "sd": np.sqrt(model.noise_variance),
            "correlation": np.nan,
            "std_error": np.nan if errors is None else float(errors[-1]),
        }
    )
    table = pd.DataFrame(found)
    return ResultTable(table if std_error else table.drop(columns="std_error"))


def _free_entries(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Variances, then covariances."""
    pairs = [(i, j) for i in range(len(mask)) for j in range(i + 1, len(mask)) if mask[i, j]]
    return [(i, i) for i in range(len(mask))] + pairs


def variance_errors(model: FittedModel) -> list[FloatArray]:
    """Standard errors of every factor's covariance matrix, (q, q), and of the noise variance."""
    noise = model.noise_variance
    if model.fixed_basis.is_exact:
        return [np.full(own.shape, np.nan) for own in model.covariances] + [np.array(np.nan)]
    if model.noise is not None:
        found = noise_errors(model)
    elif not any(len(random.kept) for random in model.random_bases):
        nothing = [np.full(own.shape, np.nan) for own in model.covariances]
        return [*nothing, np.array(noise * np.sqrt(2.0 / model.likelihood_df))]
    else:
        found = _errors_of_independent(model)
    for factor, random, covariance, errors in zip(
        model.specification.factors, model.random_bases, model.covariances, found, strict=False
    ):
        for block in factor.structure.blocks():
            # An aliased effect has no variance of its own, and leaves the others as they are.
            kept = block[~random.aliased[block]]
            part = errors[np.ix_(kept, kept)]
            errors[np.ix_(block, block)] = np.nan
            if not _is_singular(covariance[np.ix_(kept, kept)]):
                errors[np.ix_(kept, kept)] = part
    return found


def _errors_of_independent(model: FittedModel) -> list[FloatArray]:
    parameters = variance_parameters(model)
    found = []
    for changes in (*parameters.covariance_changes, parameters.noise_changes):
        square = np.einsum("a...,ab,b...->...", changes, parameters.covariance, changes)
        flat = np.einsum("a...,ad->...d", changes, parameters.undetermined)
        size = np.abs(changes).max(axis=0)[..., None]
        is_flat = (np.abs(flat) > FLAT_SHARE * size).any(axis=-1)
        found.append(np.where(is_flat, np.nan, np.sqrt(np.maximum(square, 0.0))))
    return found


def _is_singular(covariance: FloatArray) -> bool:
    sizes = np.sqrt(np.diag(covariance))
    if not sizes.all():
        return True
    values = np.linalg.eigvalsh(covariance / np.outer(sizes, sizes))
    return bool((values < SINGULAR).any())
