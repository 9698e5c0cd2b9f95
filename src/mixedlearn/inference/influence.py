"""Influence: what the estimates would be without single rows or levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.data.remainders import Remainders
from mixedlearn.data.rows import CodedRows
from mixedlearn.inference._deletion import (
    Deletion,
    RowDeletion,
    delete_cases,
    delete_levels,
    delete_rows,
    is_determined,
    refit_cases,
)
from mixedlearn.inference._models import model_of
from mixedlearn.inference._parameters import estimates, parameter_names
from mixedlearn.inference._text import ResultTable, in_lines, lines_html, table_html, table_text
from mixedlearn.inference._training import training_noise, training_rows
from mixedlearn.inference.residuals import leverages
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.row_noise import RowNoise
from mixedlearn.specification import plain_name

FloatArray = NDArray[np.float64]

# Cases that are printed.
N_SHOWN = 5


@dataclass(frozen=True, slots=True, eq=False)
class Influence:
    """Influence of every case; prints the most influential ones.

    Series and tables have a row for every case, in the order of the rows or of the levels. The
    entries of a case are NaN where the rows without it do not determine the fixed effects.

    Attributes
    ----------
    by : str
        "row", or the factor whose levels are the cases.
    leverage : Series
        Diagonal of the hat matrix of the fitted values, random effects included; for a level the
        sum over its rows.
    cooks_distance : Series
        Cook's distance. Of rows, if nothing was refitted, that of the fitted values,
        ``r^2 h / ((1 - h)^2 p)`` with the scaled residual r and the leverage h; beside a residual
        structure see Notes of `influence`. Else that of the fixed effects,
        ``(b - b(i))'C^-1 (b - b(i)) / p`` with their covariance matrix C in the whole fit.
    coef : DataFrame
        Fixed effects without the case.
    coef_change : DataFrame
        Fixed effects without the case minus those with it (dfbeta).
    dfbetas : DataFrame
        That over the standard errors without the case.
    variance_components : DataFrame or None
        Standard deviations and correlations of the random effects, and the standard deviation of
        the noise, without the case; only if models were refitted.

    See Also
    --------
    influence : Computes it.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import influence
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> by_subject = influence(model, X, y, by="Subject")
    >>> by_subject.cooks_distance.nlargest(2).round(3)
    Subject
    309    0.149
    335    0.129
    Name: cooks_distance, dtype: float64
    """

    by: str
    leverage: pd.Series
    cooks_distance: pd.Series
    coef: pd.DataFrame
    coef_change: pd.DataFrame
    dfbetas: pd.DataFrame
    variance_components: pd.DataFrame | None

    def _most(self) -> pd.DataFrame:
        """The cases with the largest distances."""
        top = self.cooks_distance.nlargest(N_SHOWN).index
        return pd.concat(
            [self.cooks_distance[top], self.leverage[top], self.coef_change.loc[top]], axis=1
        )

    def __repr__(self) -> str:
        return f"{self._title()}\n{table_text(self._most())}"

    def _repr_html_(self) -> str:
        return lines_html(self._title()) + table_html(self._most())

    def _title(self) -> str:
        how = "refitted without each case" if self.variance_components is not None else "of the fit"
        cases = "rows" if self.by == "row" else f"levels of {self.by!r}"
        title = f"Influence of {len(self.leverage)} {cases}, variance components {how}"
        return (
            f"{in_lines(title)}\n"
            "Largest distances, and the changes of the fixed effects without these cases:"
        )


def influence(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    groups: Any = None,
    by: str | tuple[str, ...] = "row",
    sample_weight: Any = None,
    offset: Any = None,
    refit: bool = False,
) -> Influence:
    """Leave out each row, or each level of a grouping factor, and see what changes.

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
    by : str or tuple of str, default="row"
        "row" (whatever factors are called), or the name of a grouping factor, of an interaction
        also the tuple of its columns, or of the levels in which a residual structure holds: the
        levels are left out with all their rows.
    sample_weight : array-like of shape (n_samples,), default=None
        Their weights, if `fit` had weights.
    offset : float or array-like of shape (n_samples,), default=None
        Their offset, if `fit` had one beside X.
    refit : bool, default=False
        Whether to estimate the variance components again without each case. Otherwise they stay
        those of the fit, which takes one pass and no refits. Not for a model with a residual
        structure.

    Returns
    -------
    result : Influence
        Distances, leverages and changes, a row for every case.

    Raises
    ------
    ValueError
        If the rows are not those of the fit, ``by`` names no grouping factor, or ``refit`` is asked
        for beside a residual structure.
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    Notes
    -----
    Without refits the formulas are closed for rows, and for levels if there is one factor [1]_;
    with several factors, generalised least squares is evaluated once for each level. Refits start
    from the sums less those of the case and from the parameters of the fit.

    With a residual structure, a row is taken out of the covariance V of all rows: the noise of the
    others stays what it is, and so do the times between them. With the covariance R of the noise,
    relative as V, and ``P = V^-1 - V^-1 X (X'V^-1 X)^-1 X'V^-1``, the leverages are the diagonal of
    ``I - R P``, which need not lie between zero and one, and the distance of row i is
    ``((P y)_i / P_ii)^2 (R^-1 - P)_ii / (p s^2)``; without random effects that of the fixed
    effects.

    A row of weight zero has no influence. lme4's ``influence`` refits; its Cook's distances are
    ``(n - p) / n`` times these, with n the number of cases. ``dfbetas`` are NaN for aliased
    columns, and where the noise variance is zero.

    References
    ----------
    .. [1] Christensen, R., Pearson, L. M. & Johnson, W. (1992). Case-deletion diagnostics for mixed
       models. Technometrics 34, 38-45.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import influence
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> print(influence(model, X, y, by="Subject"))
    Influence of 18 levels of 'Subject', variance components of the fit
    Largest distances, and the changes of the fixed effects without these cases:
        cooks_distance leverage intercept     Days
    309        0.14852    1.612    2.7265   0.4827
    335        0.12948    1.612   -0.6841   0.7852
    337        0.12600    1.612   -2.2764  -0.5035
    310        0.11052    1.612    2.8189   0.2560
    308        0.09242    1.612    0.4243  -0.6646
    """
    model = model_of(estimator, takes_noise=True)
    by = str(plain_name(by))
    _check_by(model, by)
    if refit and model.noise is not None:
        raise ValueError(
            "refit=True is not available for a model with a residual structure: leave "
            "refit=False, which keeps the variance components and the structure's parameters, or "
            "fit again without the rows."
        )
    rows = training_rows(estimator, model, X, y, groups, sample_weight, offset)
    noise = training_noise(estimator, model, rows, X, groups)
    cases, index = _cases(model, rows, noise, by)
    components: pd.DataFrame | None = None
    deletion: Deletion
    if by == "row" and not refit:
        deletion = delete_rows(model, rows, noise)
        leverage = deletion.spread if noise is None else leverages(model, rows, noise)
    else:
        leverage = leverages(model, rows, noise)
        deletion, components = _delete(model, rows, noise, cases, index, refit=refit)
    change = deletion.coef - model.coef
    distance = _distance_of_coef(model, change)
    if by != "row":
        leverage = np.bincount(cases.clip(0), weights=leverage, minlength=len(index)).astype(float)
    elif isinstance(deletion, RowDeletion):
        distance = _distance_of_fit(model, deletion)
    coef_names = list(model.specification.coef_names)
    # Where nothing is uncertain, changes are rounding error.
    is_known = (deletion.std > 0.0) & ~model.fixed_basis.undetermined
    dfbetas = change / np.where(is_known, deletion.std, np.nan)
    return Influence(
        by=by,
        leverage=pd.Series(leverage, index, name="leverage"),
        cooks_distance=pd.Series(distance, index, name="cooks_distance"),
        coef=ResultTable(deletion.coef, index, coef_names),
        coef_change=ResultTable(change, index, coef_names),
        dfbetas=ResultTable(dfbetas, index, coef_names),
        variance_components=None if components is None else ResultTable(components),
    )


def _check_by(model: FittedModel, by: str) -> None:
    """Refuse what names no levels."""
    known = list(model.specification.factor_names)
    series = None if model.noise is None else model.noise.binding.series_name
    if series is not None and series not in known:
        known.append(series)
    if by != "row" and by not in known:
        listed = ", ".join(map(repr, known)) or "none"
        raise ValueError(
            f"by={by!r} is no grouping factor: give 'row' or a factor of the model ({listed})."
        )


def _cases(
    model: FittedModel, rows: CodedRows, noise: RowNoise | None, by: str
) -> tuple[NDArray[np.integer], pd.Index]:
    """The case of every row, and what the cases are called."""
    names = model.specification.factor_names
    if by == "row":
        return np.arange(len(rows.X)), pd.RangeIndex(len(rows.X))
    if by in names:
        k = names.index(by)
        return rows.known_codes[k], model.sums.levels[k]
    assert noise is not None
    return noise.series, model.noise.binding.series


def _delete(
    model: FittedModel,
    rows: CodedRows,
    noise: RowNoise | None,
    cases: NDArray[np.integer],
    index: pd.Index,
    *,
    refit: bool,
) -> tuple[Deletion, pd.DataFrame | None]:
    """Estimates without each case, and the variance components if they are refitted."""
    metric = None if noise is None else noise.whitened(noise.basis)
    remaining = is_determined(model, rows, cases, len(index), metric, to_spare=refit)
    is_only = not model.roots or (len(model.roots) == 1 and index is model.sums.levels[0])
    if not refit and is_only:
        return delete_levels(model, rows, cases, remaining, metric), None
    remainders = Remainders(model.sums, rows, cases, len(index), metric)
    if not refit:
        return delete_cases(model, remainders, remaining), None
    coef = np.full((len(index), len(model.coef)), np.nan)
    std = np.full_like(coef, np.nan)
    n_components = len(parameter_names(model)) - len(model.coef)
    names = parameter_names(model)[:n_components]
    table = pd.DataFrame(np.nan, index, names)
    for case, without in enumerate(refit_cases(model, remainders, remaining)):
        if without is not None:
            coef[case] = without.coef
            std[case] = np.sqrt(np.diag(without.coef_covariance))
            table.iloc[case] = estimates(without)[:n_components]
    return Deletion(coef, std), table


def _distance_of_fit(model: FittedModel, deletion: RowDeletion) -> FloatArray:
    """Cook's distance of the fitted values, by row."""
    p = len(model.fixed_effects.coef)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = deletion.shift**2 * deletion.spread / np.float64(p * model.noise_variance)
    return np.where(np.isfinite(distance), distance, np.nan)


def _distance_of_coef(model: FittedModel, change: FloatArray) -> FloatArray:
    """Cook's distance of the fixed effects, by case."""
    basis = model.fixed_basis
    kept = ~basis.aliased
    root = basis.to_user[kept] @ model.fixed_effects.inverse_root
    turned = np.linalg.solve(root, change[:, kept].T)
    p = len(root)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.square(turned).sum(axis=0) / np.float64(p * model.noise_variance)
    return np.where(np.isfinite(distance), distance, np.nan)
