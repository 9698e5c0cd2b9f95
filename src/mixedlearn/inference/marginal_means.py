"""Marginal means and slopes: what a model says of categories, the other columns being averaged."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mixedlearn.exceptions import DegenerateModelWarning
from mixedlearn.inference._linear_functions import CoefEstimates, coef_estimates
from mixedlearn.inference._models import check_level, view_of
from mixedlearn.inference._reference_grid import Axis, ReferenceGrid, reference_grid
from mixedlearn.inference._slopes import derivative
from mixedlearn.inference._text import (
    ResultTable,
    in_lines,
    lines_html,
    table_html,
    table_text,
)
from mixedlearn.inference._uncertainty import CovarianceEstimate, basis_of

MEAN_COLUMNS = ["estimate", "std_error", "df", "lower", "upper"]
# What the offset is called among the columns that are held, as lme4 calls it.
OFFSET = "(offset)"
# So many names of rows or values are told one by one.
MOST_TOLD = 6


@dataclass(frozen=True, slots=True, eq=False)
class MarginalMeans:
    """Marginal means from `marginal_means`, or marginal slopes from `marginal_slopes`.

    Attributes
    ----------
    table : DataFrame
        A row for every combination of the categories of ``by`` and ``variables``: ``estimate``,
        ``std_error``, ``df``, ``lower`` and ``upper``; of slopes also ``t_value`` and ``p_value``
        of the hypothesis that the slope is zero. What cannot be estimated is NaN.
    variables : tuple of str
        The columns whose categories are compared by `compare_means`.
    by : tuple of str
        The columns within whose categories they are compared.
    slope : str or None
        The covariate whose slopes these are; None for means.
    response : str or None
        A transformed response, ``log(y)`` say, in whose units the means are; None if there is none.
    averaged_over : dict of str to tuple
        The columns that are averaged over, with their values.
    weights : str
        How they are averaged: "equal", "proportional" or "given".
    held_at : dict of str to object
        The columns that are held at one value, with that value; "(offset)" is zero if there is one.
    level : float
        Level of the intervals.
    ddf : str
        The method for the degrees of freedom, with the correction of a robust covariance, or the
        information that it rests on beside a residual structure.
    linear_functions : DataFrame of shape (n_rows, p)
        Every row of the table as weights of the coefficients, such as `contrast_test` takes.
    coefs : object
        The coefficients and their uncertainty, for `compare_means`.

    See Also
    --------
    marginal_means, marginal_slopes : Compute it.
    compare_means : Compares its rows.

    Examples
    --------
    >>> from mixedlearn import lmer
    >>> from mixedlearn.datasets import load_cake
    >>> from mixedlearn.inference import marginal_means
    >>> model = lmer("angle ~ recipe + temperature + (1 | recipe:replicate)", load_cake().frame)
    >>> means = marginal_means(model, "recipe")
    >>> means.averaged_over["temperature"], means.weights
    (('175', '185', '195', '205', '215', '225'), 'equal')
    >>> means.table["estimate"].round(2).to_dict()
    {'A': 33.12, 'B': 31.64, 'C': 31.6}
    """

    table: pd.DataFrame
    variables: tuple[str, ...]
    by: tuple[str, ...]
    slope: str | None
    response: str | None
    averaged_over: dict[str, tuple[Any, ...]]
    weights: str
    held_at: dict[str, Any]
    level: float
    ddf: str
    linear_functions: pd.DataFrame
    coefs: CoefEstimates

    def __repr__(self) -> str:
        return f"{in_lines(self.heading)}\n{table_text(self.table)}\n{self.note}"

    def _repr_html_(self) -> str:
        return lines_html(self.heading) + table_html(self.table) + lines_html(self.note)

    @property
    def heading(self) -> str:
        """What the table has."""
        what = "means" if self.slope is None else f"slopes in {self.slope}"
        of_what = "" if self.response is None else f" of {self.response}"
        names = [*self.by, *self.variables]
        return f"Marginal {what}{of_what}" + (f", by {' and '.join(names)}" if names else "")

    @property
    def note(self) -> str:
        """What the table rests on, in lines."""
        n_unknown = int(self.table["estimate"].isna().sum())
        return in_lines(f"{100.0 * self.level:g}% intervals; {basis_text(self, n_unknown)}")


def marginal_means(
    estimator: Any,
    variables: str | Sequence[str] = (),
    by: str | Sequence[str] = (),
    *,
    at: Mapping[str, Any] | None = None,
    weights: str | Mapping[str, Any] = "equal",
    X: Any = None,
    sample_weight: ArrayLike | None = None,
    ddf: str = "satterthwaite",
    level: float = 0.95,
    covariance: CovarianceEstimate | None = None,
) -> MarginalMeans:
    """Means for the categories of some columns, the other columns being averaged or held.

    Marginal means (least-squares means, R's ``emmeans``) are predictions of the fixed effects on a
    reference grid: all combinations of the categories of the model, with each covariate at its
    mean. They are averaged over the columns that are not asked for [1]_. In an unbalanced design
    that is a fairer comparison than the means of the rows are.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted.
    variables : str or sequence of str, default=()
        The columns of X whose categories have a mean; () for one mean of all.
    by : str or sequence of str, default=()
        Further columns: there is a mean for every combination, and `compare_means` compares within
        the categories of ``by``.
    at : dict, default=None
        Values of columns, by their names: those of a categorical variable that are in the grid, and
        the values of a covariate instead of its mean. A covariate in ``variables`` or ``by`` needs
        them; over the values of any other the means are averaged.
    weights : {"equal", "proportional"} or dict, default="equal"
        How categories are averaged: with equal weights; in proportion to how often their
        combinations occur in X; or with the weights of a dict that has, by the name of a column, a
        weight for each of its values, as a sequence or as a dict. Columns that the dict leaves out
        have equal weights, as have several values of a covariate unless a dict says otherwise.
    X : array-like or DataFrame of shape (n_samples, n_features), default=None
        Rows that stand for the population: covariates are held at their means over these rows, and
        proportional weights are counted there. They may be those of the fit. Without X, covariates
        are held at their means over the fit, weighted as the fit was; then the formula must have
        the covariate as it stands, not only a ``log(x)``, say.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows of X.
    ddf : {"satterthwaite", "kenward-roger", "residual", "normal"}, default="satterthwaite"
        Degrees of freedom and covariance of the coefficients; see `coefficient_table`.
    level : float, default=0.95
        Level of the confidence intervals.
    covariance : RobustCovariance, default=None
        What to use instead of the model's covariance; see `coefficient_table`.

    Returns
    -------
    means : MarginalMeans
        With a table of the means, in units of the response of the formula (those of ``log(y)``, if
        that is the left-hand side).

    Raises
    ------
    ValueError
        If a column has no fixed effect, a value is no category, a covariate has no known mean, a
        weight is not allowed, the grid is too large, or for the reasons of `coefficient_table`.
    TypeError
        If the estimator is no `MixedLinearRegressor`, or ``covariance`` no `RobustCovariance`.
    NotFittedError
        Before `fit`.

    Warns
    -----
    DegenerateModelWarning
        If some means cannot be estimated, because no rows have such combinations and the model has
        their interaction. They are NaN.

    Notes
    -----
    Of a formula, a column of text, of booleans or of pandas' categories is categorical, and so is
    one in ``C(x)``. A column of numbers is a covariate, however few values it has: emmeans averages
    over the values of one that has two, as ``at={"x": [0, 1]}`` does here. Without a formula all
    columns of X are covariates.

    Random effects are zero, and so is an offset: the means are those of the population. They allow
    for the estimation of the variances as far as ``ddf`` does.

    References
    ----------
    .. [1] Searle, S. R., Speed, F. M. & Milliken, G. A. (1980). Population marginal means in the
       linear model: an alternative to least squares means. The American Statistician 34, 216-221.

    Examples
    --------
    >>> from mixedlearn import lmer
    >>> from mixedlearn.datasets import load_cake
    >>> from mixedlearn.inference import marginal_means
    >>> model = lmer("angle ~ recipe + temp + (1 | recipe:replicate)", load_cake().frame)
    >>> marginal_means(model, "recipe")
    Marginal means, by recipe
      estimate std_error    df lower upper
    A    33.12     1.737 42.00 29.62 36.63
    B    31.64     1.737 42.00 28.14 35.15
    C    31.60     1.737 42.00 28.09 35.11
    95% intervals; degrees of freedom: satterthwaite. Held at temp = 200.

    At other temperatures:

    >>> means = marginal_means(model, "recipe", by="temp", at={"temp": [175, 225]})
    >>> means.table["estimate"].round(2).to_dict()[225.0, "A"]
    37.07
    """
    view = view_of(estimator, takes_noise=True)
    names, groups = as_names(variables), as_names(by)
    grid = reference_grid(
        view, [*groups, *names], at=at, weights=weights, X=X, sample_weight=sample_weight
    )
    functions = grid.average(grid.matrix(grid.frame()))
    means = _result(view, grid, functions, names, groups, None, weights, ddf, level, covariance)
    warn_of_unknown(means.table, "marginal_means")
    return means


def marginal_slopes(
    estimator: Any,
    slope: str,
    by: str | Sequence[str] = (),
    *,
    at: Mapping[str, Any] | None = None,
    weights: str | Mapping[str, Any] = "equal",
    X: Any = None,
    sample_weight: ArrayLike | None = None,
    ddf: str = "satterthwaite",
    level: float = 0.95,
    covariance: CovarianceEstimate | None = None,
) -> MarginalMeans:
    """Slopes of a covariate for the categories of other columns, R's ``emtrends``.

    A slope is the derivative of a marginal mean by the covariate, at its mean or where ``at`` says.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted.
    slope : str
        The covariate: a numeric column of X. Of ``log(x)``, a polynomial or a spline in x the slope
        is that of x.
    by : str or sequence of str, default=()
        The columns for whose categories there is a slope; it may be the covariate itself, with
        values in ``at``.
    at : dict, default=None
        Values of columns, by their names; see `marginal_means`.
    weights : {"equal", "proportional"} or dict, default="equal"
        How categories are averaged; see `marginal_means`.
    X : array-like or DataFrame of shape (n_samples, n_features), default=None
        Rows that stand for the population; see `marginal_means`.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows of X.
    ddf : {"satterthwaite", "kenward-roger", "residual", "normal"}, default="satterthwaite"
        Degrees of freedom; see `coefficient_table`.
    level : float, default=0.95
        Level of the confidence intervals.
    covariance : RobustCovariance, default=None
        What to use instead of the model's covariance; see `coefficient_table`.

    Returns
    -------
    slopes : MarginalMeans
        With a table of the slopes, in units of the response per unit of the covariate, with t tests
        of the hypothesis that they are zero. `compare_means` compares them between the categories
        of ``by``.

    Raises
    ------
    ValueError
        If ``slope`` is not numeric, or as `marginal_means`.
    TypeError
        If the estimator is no `MixedLinearRegressor`, or ``covariance`` no `RobustCovariance`.
    NotFittedError
        Before `fit`.

    Warns
    -----
    DegenerateModelWarning
        If some slopes cannot be estimated. They are NaN.

    Examples
    --------
    >>> from mixedlearn import lmer
    >>> from mixedlearn.datasets import load_cake
    >>> from mixedlearn.inference import marginal_slopes
    >>> model = lmer("angle ~ recipe * temp + (1 | recipe:replicate)", load_cake().frame)
    >>> marginal_slopes(model, "temp", by="recipe")
    Marginal slopes in temp, by recipe
      estimate std_error      df t_value  p_value   lower   upper
    A   0.1537   0.02821  222.00   5.449  < 0.001  0.0981  0.2093
    B   0.1646   0.02821  222.00   5.834  < 0.001  0.1090  0.2202
    C   0.1558   0.02821  222.00   5.524  < 0.001  0.1002  0.2114
    95% intervals; degrees of freedom: satterthwaite. Held at temp = 200.
    """
    view = view_of(estimator, takes_noise=True)
    names = as_names(by)
    grid = reference_grid(
        view, names, at=at, weights=weights, X=X, sample_weight=sample_weight, slope=slope
    )
    functions = grid.average(derivative(grid, slope))
    slopes = _result(view, grid, functions, names, (), slope, weights, ddf, level, covariance)
    warn_of_unknown(slopes.table, "marginal_slopes")
    return slopes


def as_names(given: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several as a tuple."""
    return (given,) if isinstance(given, str) else tuple(given)


def _result(
    view: Any,
    grid: ReferenceGrid,
    functions: Any,
    variables: tuple[str, ...],
    by: tuple[str, ...],
    slope: str | None,
    weights: str | Mapping[str, Any],
    ddf: str,
    level: float,
    covariance: CovarianceEstimate | None,
) -> MarginalMeans:
    check_level(level)
    coefs = coef_estimates(view.model_of_fit, ddf, covariance)
    table = coefs.table(functions, grid.index, level)
    response = None if view.formula is None else view.formula.response
    averaged, held = _averaged_and_held(grid.averaged)
    if view.has_offset:
        held[OFFSET] = 0.0
    names = list(view.specification.coef_names)
    return MarginalMeans(
        table=ResultTable(table[MEAN_COLUMNS]) if slope is None else table,
        variables=variables,
        by=by,
        slope=slope,
        response=None if response is None else response.text,
        averaged_over=averaged,
        weights=weights if isinstance(weights, str) else "given",
        held_at=held,
        level=level,
        ddf=basis_of(view.model_of_fit, ddf, covariance),
        linear_functions=pd.DataFrame(functions, index=grid.index, columns=names),
        coefs=coefs,
    )


def _averaged_and_held(
    axes: Sequence[Axis],
) -> tuple[dict[str, tuple[Any, ...]], dict[str, Any]]:
    averaged = {axis.name: axis.values for axis in axes if len(axis.values) > 1}
    held = {axis.name: axis.values[0] for axis in axes if len(axis.values) == 1}
    return averaged, held


def basis_text(means: MarginalMeans, n_unknown: int) -> str:
    """What a table of means, or of their comparisons, rests on."""
    parts = [f"degrees of freedom: {means.ddf}."]
    if means.averaged_over:
        parts.append(f"Averaged over {', '.join(means.averaged_over)} ({means.weights} weights).")
    if means.held_at:
        held = ", ".join(f"{name} = {value_text(own)}" for name, own in means.held_at.items())
        parts.append(f"Held at {held}.")
    if n_unknown:
        parts.append(f"NaN: cannot be estimated ({n_unknown}).")
    return " ".join(parts)


def value_text(value: Any) -> str:
    """A value of a column as text, a number with six digits."""
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}"
    return str(value)


def warn_of_unknown(table: pd.DataFrame, function: str) -> None:
    """Tell the caller of a public function which rows of its table cannot be estimated."""
    unknown = table.index[table["estimate"].isna()]
    if not len(unknown):
        return
    told = ", ".join(map(str, unknown[:MOST_TOLD])) + ", ..." * (len(unknown) > MOST_TOLD)
    warnings.warn(
        f"{function} cannot estimate {told}: no rows determine them, as where a combination of "
        "categories does not occur and the model has their interaction. They are NaN: choose other "
        "values by at=..., or leave the interaction out of the formula.",
        DegenerateModelWarning,
        stacklevel=3,
    )
