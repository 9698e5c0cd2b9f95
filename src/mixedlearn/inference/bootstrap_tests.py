"""The parametric-bootstrap test of nested models.

Responses are drawn from the smaller model, both models are refitted to each by maximum likelihood,
and the observed likelihood-ratio statistic is compared with those of the draws (Halekoh & Hojsgaard
2014, section 4). The statistic depends on a response only by its deviations from the smaller
model's ``X beta``, which both models can fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import chi2, gamma

from mixedlearn.inference._criteria import likelihood_ratio, n_parameters, without_tolerance
from mixedlearn.inference._models import (
    check_count,
    model_of,
    view_of,
    warn_of_lost_refits,
    warn_of_sampling,
    warn_of_untestable,
)
from mixedlearn.inference._pairs import compare_models
from mixedlearn.inference._resampling import Draws, FitRows, draw_in_batches, rows_of_fit
from mixedlearn.inference._text import ResultTable, lines_html, table_html, table_text
from mixedlearn.model.correlated_refits import CorrelatedRefitter
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.refits import Refitter

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BootstrapTest:
    """A parametric-bootstrap test of two nested models; prints as a table.

    Attributes
    ----------
    statistic : float
        Twice the difference of the log-likelihoods of the fits by ML.
    df : int
        How many parameters more the larger model has.
    p_value : float
        Share of simulated statistics at or above the observed one, which counts as one of them:
        (k + 1) / (n + 1) for n statistics.
    simulated : ndarray of shape (n_resamples,)
        The simulated statistics; fewer where the residual covariance of a refit is not identified.
    table : DataFrame of shape (4, 3)
        Columns statistic, df, p_value; rows "chi-squared", the likelihood-ratio test; "bootstrap",
        ``p_value``; "Bartlett", the statistic divided by the mean of the simulated ones over df,
        by the chi-squared distribution; "gamma", by the gamma distribution with the mean and
        variance of the simulated ones. The last two need fewer resamples, and suit tests of fixed
        effects: where a variance is tested, many simulated statistics are zero.
    n_not_converged : int
        Number of resamples in which a refit carries no certificate.

    See Also
    --------
    bootstrap_lrt : Computes it.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import bootstrap_lrt
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = {"groups": "Subject", "random_slopes": ["Days"]}
    >>> flat = MixedLinearRegressor(fixed_effects=[], **model).fit(X, y)
    >>> rising = MixedLinearRegressor(**model).fit(X, y)
    >>> test = bootstrap_lrt(flat, rising, X, random_state=0)
    >>> round(test.statistic, 2), test.df, test.p_value < 0.01, len(test.simulated)
    (23.54, 1, True, 1000)
    """

    statistic: float
    df: int
    p_value: float
    simulated: FloatArray
    table: pd.DataFrame
    n_not_converged: int

    def __repr__(self) -> str:
        return f"{self._title()}\n{table_text(self.table)}"

    def _repr_html_(self) -> str:
        return lines_html(self._title()) + table_html(self.table)

    def _title(self) -> str:
        title = (
            f"Parametric-bootstrap test of nested models (ML, {len(self.simulated):,} resamples)"
        )
        if self.n_not_converged:
            title += f"\n{self.n_not_converged:,} resamples without a certified optimum"
        return title


def bootstrap_lrt(
    est0: Any,
    est1: Any,
    X: Any,
    *,
    groups: Any = None,
    n_resamples: int = 1000,
    sample_weight: Any = None,
    random_state: Any = None,
    n_jobs: int | None = None,
) -> BootstrapTest:
    """Compare two nested models by a likelihood-ratio statistic whose distribution is simulated.

    Every resample draws a response for the rows of the fits from the smaller model, with new random
    effects and new noise, and refits both models to it by ML.

    Parameters
    ----------
    est0, est1 : MixedLinearRegressor
        Fitted to the same rows, in either order. One must be nested in the other, as for
        `likelihood_ratio_test`; models fitted by REML are refitted by ML, from their sums. If est1
        has callbacks (``set_callbacks(ProgressBar())``), they see a task for every resample.
    X : array-like or DataFrame of shape (n_samples, n_features)
        The rows that the models were fitted to, in any order, with the columns of both: of a
        DataFrame each model takes its own.
    groups : array-like of shape (n_samples,) or (n_samples, n_factors), default=None
        Labels, if they came beside X in `fit`; of a DataFrame each model takes its own columns.
    n_resamples : int, default=1000
        Number of resamples.
    sample_weight : array-like of shape (n_samples,), default=None
        The precision weights of the fits.
    random_state : int, RandomState, Generator or None, default=None
        Seed of the random numbers. The statistics do not depend on ``n_jobs``.
    n_jobs : int, default=None
        Number of processes, as in joblib. Small models are refitted faster than processes start.

    Returns
    -------
    test : BootstrapTest
        Its statistic is NaN where the models reproduce the response exactly, and its ``p_value`` is
        NaN then or where aliased columns leave no parameter to test.

    Raises
    ------
    ValueError
        If the models cannot be compared (`likelihood_ratio_test`), if X, groups and sample_weight
        are not those of the fits, or if a parameter is not allowed.
    TypeError
        If an estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    Warns
    -----
    DegenerateModelWarning
        If resamples do not identify a residual structure, which are left out.

    See Also
    --------
    likelihood_ratio_test : By the chi-squared distribution.
    exact_restricted_lrt : Of one variance, by its exact distribution.

    Notes
    -----
    It is the "PBtest" of pbkrtest's ``PBmodcomp`` [1]_, but for statistics of zero: they count
    here, while pbkrtest leaves them out. They are rare if fixed effects are tested, and common if a
    variance is.

    References
    ----------
    .. [1] Halekoh, U. & Hojsgaard, S. (2014). A Kenward-Roger approximation and parametric
       bootstrap methods for tests in linear mixed models: the R package pbkrtest. Journal of
       Statistical Software 59(9).

    Examples
    --------
    >>> from mixedlearn import lmer
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import bootstrap_lrt
    >>> data = load_sleepstudy().frame
    >>> line = lmer("Reaction ~ Days + (Days | Subject)", data)
    >>> curve = lmer("Reaction ~ poly(Days, 2) + (Days | Subject)", data)
    >>> print(bootstrap_lrt(line, curve, data, random_state=0))
    Parametric-bootstrap test of nested models (ML, 1,000 resamples)
                statistic df p_value
    chi-squared     1.658  1  0.1979
    bootstrap       1.658     0.1878
    Bartlett        1.713  1  0.1906
    gamma           1.658     0.1908
    """
    check_count(n_resamples, "n_resamples")
    estimators = est0, est1
    comparison = compare_models([model_of(own, takes_noise=True) for own in estimators], refit=True)
    smaller, larger, _ = comparison.pair(0)
    warn_of_sampling("bootstrap_lrt", [smaller], [larger])
    rows = [
        _own_rows(estimators[place], model, X, groups, sample_weight)
        for place, model in zip(comparison.places, comparison.models, strict=True)
    ]
    df, statistic = n_parameters(larger) - n_parameters(smaller), likelihood_ratio(smaller, larger)
    if df <= 0 or np.isnan(statistic):
        if df <= 0:
            known = smaller.specification.coef_names
            added = [name for name in larger.specification.coef_names if name not in known]
            warn_of_untestable("bootstrap_lrt", added)
        return _result(statistic, df, np.empty(0), 0)
    refitters = [own.refitter(model) for model, own in zip(comparison.models, rows, strict=True)]
    draws = Draws.of(smaller, rows[0])
    done = draw_in_batches(
        est1,
        "bootstrap_lrt",
        partial(_batch, draws, refitters),
        n_resamples,
        min(refitter.batch_size(draws.n_rows) for refitter in refitters),
        random_state,
        n_jobs,
    )
    simulated = np.concatenate([statistics for statistics, _ in done])
    warn_of_lost_refits("bootstrap_lrt", n_resamples - len(simulated), n_resamples)
    return _result(statistic, df, simulated, n_resamples - sum(count for _, count in done))


def _batch(
    draws: Draws,
    refitters: list[Refitter | CorrelatedRefitter],
    seeds: list[np.random.SeedSequence],
) -> tuple[FloatArray, int]:
    """The statistics of responses with these seeds, and how many optima are certified.

    Where a model is not identified there is no statistic.
    """
    deviations = draws.deviations(seeds)
    smaller, larger = (refitter.refit(deviations) for refitter in refitters)
    is_certified = smaller.is_certified & larger.is_certified
    statistics = without_tolerance(smaller.objective - larger.objective)
    is_identified = ~np.isnan(smaller.objective + larger.objective)
    return statistics[is_identified], int(np.count_nonzero(is_certified))


def _own_rows(
    estimator: Any, model: FittedModel, X: Any, groups: Any, sample_weight: Any
) -> FitRows:
    """The rows of the fit of a model among the columns that both models use."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None:
        X = _chosen(X, list(names))
    factors = list(model.specification.factor_names)
    source = view_of(estimator, takes_noise=True).noise
    if source is not None and source.series is not None:
        factors = list(dict.fromkeys([*factors, source.series]))
    groups = _chosen(groups, factors) if factors else None
    return rows_of_fit(estimator, model, X, groups, sample_weight)


def _chosen(frame: Any, names: list[str]) -> Any:
    """Some columns of a data frame that has them all; anything else as it is."""
    columns = getattr(frame, "columns", None)
    return frame[names] if columns is not None and set(names) <= set(columns) else frame


def _result(
    statistic: float, df: int, simulated: FloatArray, n_not_converged: int
) -> BootstrapTest:
    n_resamples = len(simulated)
    p_value = corrected = by_bartlett = by_gamma = np.nan
    if n_resamples:
        p_value = float((simulated >= statistic).sum() + 1) / (n_resamples + 1)
    mean, variance = (simulated.mean(), simulated.var(ddof=1)) if n_resamples > 1 else (0.0, 0.0)
    if mean > 0.0 and variance > 0.0:
        corrected = df * statistic / mean
        by_bartlett = chi2.sf(corrected, df)
        by_gamma = gamma.sf(statistic, mean**2 / variance, scale=variance / mean)
    table = ResultTable(
        {
            "statistic": [statistic, statistic, corrected, statistic],
            "df": pd.array([df, None, df, None], dtype="Int64"),
            "p_value": [
                chi2.sf(statistic, df) if df > 0 else np.nan,
                p_value,
                by_bartlett,
                by_gamma,
            ],
        },
        index=["chi-squared", "bootstrap", "Bartlett", "gamma"],
    )
    return BootstrapTest(statistic, df, p_value, simulated, table, n_not_converged)
