"""The parametric bootstrap: refits to responses that the fitted model generates.

A response is drawn with new random effects of every level, as lme4's ``bootMer(use.u=FALSE)`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.inference._bootstrap_result import BootstrapResult
from mixedlearn.inference._models import check_count, model_of, view_of, warn_of_lost_refits
from mixedlearn.inference._parameters import estimates, parameter_names, parameter_values
from mixedlearn.inference._resampling import Draws, draw_in_batches, rows_of_fit
from mixedlearn.model.correlated_refits import CorrelatedRefitter
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.refits import Refits, Refitter

FloatArray = NDArray[np.float64]
Statistic = Callable[[Any], Any]


def parametric_bootstrap(
    estimator: Any,
    X: Any,
    *,
    groups: Any = None,
    statistic: Statistic | None = None,
    n_resamples: int = 1000,
    sample_weight: Any = None,
    random_state: Any = None,
    n_jobs: int | None = None,
) -> BootstrapResult:
    """Bootstrap distribution of the parameters, or of any statistic of a refitted model.

    Every resample draws a response for the rows of the fit from the fitted model, with new random
    effects of all levels and new noise, and refits the model to it, as carefully as `fit` does.
    With a residual structure the noise has its covariance, and a refit starts from the estimates.
    A resample whose residual covariance is not identified has NaN in all its parts, and counts
    among those without a certified optimum.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted. If it has callbacks (``set_callbacks(ProgressBar())``), they see a task for every
        resample.
    X : array-like or DataFrame of shape (n_samples, n_features)
        The rows that the model was fitted to, in any order; with a residual structure without a
        time column in that of the fit.
    groups : array-like of shape (n_samples,) or (n_samples, n_factors), default=None
        Labels, if they came beside X in `fit`.
    statistic : callable, default=None
        Takes a fitted estimator and returns a number, a 1-d array, a Series or a dict of numbers:
        ``lambda model: model.predict(new_rows)``. None: all parameters, in the order of lme4's
        ``confint``: standard deviations and correlations of the random effects, the noise's
        standard deviation, ``residual_parameters_`` if there is a residual structure, the
        coefficients.
    n_resamples : int, default=1000
        Number of resamples.
    sample_weight : array-like of shape (n_samples,), default=None
        The precision weights of the fit.
    random_state : int, RandomState, Generator or None, default=None
        Seed of the random numbers. The samples do not depend on ``n_jobs``.
    n_jobs : int, default=None
        Number of processes, as in joblib. A small model with the default statistic is refitted
        faster than processes start.

    Returns
    -------
    result : BootstrapResult
        The statistic of the fit and those of the resamples.

    Raises
    ------
    ValueError
        If X, groups and sample_weight are not those of the fit, if the statistic returns something
        else, or if a parameter is not allowed.
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    Warns
    -----
    DegenerateModelWarning
        If resamples do not identify a residual structure, which are left out.

    Notes
    -----
    A response of one's own is refitted by ``clone(estimator).fit(X, y)``.

    References
    ----------
    .. [1] Davison, A. C. & Hinkley, D. V. (1997). Bootstrap Methods and their Application.
       Cambridge University Press.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import parametric_bootstrap
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> result = parametric_bootstrap(model, X, n_resamples=200, random_state=0)
    >>> result.confidence_interval().loc[["sd(noise)", "Days"]].round(1)
               lower  upper
    sd(noise)   22.3   28.4
    Days         7.6   13.2
    >>> def last_day(model):
    ...     return model.intercept_ + 9 * model.coef_[0]
    >>> result = parametric_bootstrap(
    ...     model, X, statistic=last_day, n_resamples=50, random_state=0
    ... )
    >>> result.standard_errors.round(0)
    statistic    14.0
    dtype: float64
    """
    model = model_of(estimator, takes_noise=True)
    check_count(n_resamples, "n_resamples")
    if statistic is not None and not callable(statistic):
        raise ValueError(
            "statistic must be a function that takes a fitted estimator, or None for all "
            f"parameters, got {statistic!r}."
        )
    rows = rows_of_fit(estimator, model, X, groups, sample_weight)
    refitter = rows.refitter(model)
    worker = _Worker(estimator, model, refitter, Draws.of(model, rows), statistic)
    names, values = _named(worker.estimate())
    done = draw_in_batches(
        estimator,
        "parametric_bootstrap",
        partial(worker.batch, names),
        n_resamples,
        refitter.batch_size(len(rows.coded.X)),
        random_state,
        n_jobs,
    )
    samples = np.concatenate([batch.samples for batch in done])
    if model.noise is not None:
        n_lost = int(np.isnan(samples).all(axis=1).sum())
        warn_of_lost_refits("parametric_bootstrap", n_lost, n_resamples)
    return BootstrapResult(
        estimate=pd.Series(values, index=names),
        samples=pd.DataFrame(samples, columns=names),
        n_not_converged=n_resamples - sum(batch.n_certified for batch in done),
        n_singular=sum(batch.n_singular for batch in done),
    )


@dataclass(frozen=True, slots=True)
class _Batch:
    """The statistics of some resamples, and counts of their refits."""

    samples: FloatArray
    n_certified: int
    n_singular: int


@dataclass(frozen=True, slots=True)
class _Worker:
    """What a process needs to make resamples.

    Attributes
    ----------
    estimator : MixedLinearRegressor
    model : FittedModel
    refitter : Refitter or CorrelatedRefitter
    draws : Draws
    statistic : callable or None
    """

    estimator: Any
    model: FittedModel
    refitter: Refitter | CorrelatedRefitter
    draws: Draws
    statistic: Statistic | None

    def estimate(self) -> Any:
        """The statistic at the fit."""
        model = self.model
        if self.statistic is not None:
            return self.statistic(self._with_model(model))
        return dict(zip(parameter_names(model), estimates(model), strict=True))

    def _with_model(self, model: FittedModel) -> Any:
        return view_of(self.estimator, takes_noise=True).with_model(model)

    def batch(self, names: list[str], seeds: list[np.random.SeedSequence]) -> _Batch:
        """Draw a response for each seed, and refit to all of them."""
        refits = self.refitter.refit(self.draws.deviations(seeds))
        return _Batch(
            self._samples(refits, len(seeds), names),
            int(np.count_nonzero(refits.is_certified)),
            int(np.count_nonzero(refits.is_singular)),
        )

    def _samples(self, refits: Refits, n: int, names: list[str]) -> FloatArray:
        if self.statistic is None:
            coef = np.where(self.model.fixed_basis.undetermined, np.nan, refits.coef)
            return parameter_values(
                self.model, refits.covariances, refits.noise_variance, coef, refits.residual
            )
        samples = np.full((n, len(names)), np.nan)
        for number in np.flatnonzero(~np.isnan(refits.objective)):
            refitted = self._with_model(refits.model(int(number)))
            own_names, samples_of_one = _named(self.statistic(refitted))
            if own_names != names:
                raise ValueError(
                    f"statistic returned {own_names} for a resample, but {names} for the fit: it "
                    "must return the same parts for every model."
                )
            samples[number] = samples_of_one
        return samples


def _named(value: Any) -> tuple[list[str], FloatArray]:
    """Names and numbers of what a statistic returned.

    Raises
    ------
    ValueError
        If it is neither a number, nor a 1-d array, a Series or a dict of numbers.
    """
    names = None
    if isinstance(value, (Mapping, pd.Series)):
        names = [str(name) for name, _ in value.items()]
        value = [own for _, own in value.items()]
    try:
        values = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        values = np.empty((0, 0))
    if value is None or values.ndim > 1 or values.size == 0:
        raise ValueError(
            "statistic must return a number, a 1-d array, a Series or a dict of numbers, got "
            f"{type(value).__name__}."
        )
    if names is None:
        names = [f"statistic{j}" for j in range(values.size)] if values.ndim else ["statistic"]
    return names, np.atleast_1d(values)
