"""Methods of the estimator that draw from the fitted model, serve it, or give it further rows."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mixedlearn.data.levels import encode, look_up
from mixedlearn.data.rows import CodedRows, Codes, Rows
from mixedlearn.estimator.by_name import groups_by_name
from mixedlearn.estimator.state import FittedState
from mixedlearn.estimator.view import FittedView
from mixedlearn.inference._models import check_count
from mixedlearn.model.simulation import make_generator, sample_effects, sample_responses

FloatArray = NDArray[np.float64]


class SamplingMethods(FittedState):
    """Simulation, updates of the random effects, and a slim estimator for serving."""

    @groups_by_name
    def sample_y(
        self,
        X: Any,
        n_samples: int = 1,
        random_state: Any = None,
        *,
        groups: Any = None,
        random_effects: str = "new",
        sample_weight: ArrayLike | None = None,
        offset: ArrayLike | None = None,
    ) -> FloatArray:
        """Draw new responses from the fitted model.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_rows, n_features)
            The columns that `fit` had.
        n_samples : int, default=1
            Number of responses for every row.
        random_state : int, RandomState, Generator or None, default=None
            Seed of the random numbers.
        groups : array-like of shape (n_rows,) or (n_rows, n_factors), default=None
            Labels, as for `predict`. Rows with equal labels share their random effects, whether or
            not `fit` saw the label.
        random_effects : {"new", "fitted"}, default="new"
            Whether every level gets new random effects from their normal distribution in every
            sample (lme4's ``simulate``), or known levels keep their BLUPs and only unknown ones get
            new effects (lme4's ``use.u=TRUE``). See the notes for residual structures.
        sample_weight : array-like of shape (n_rows,), default=None
            Precision weights: the noise variance of row i is ``noise_variance_ / w_i``.
        offset : float or array-like of shape (n_rows,), default=None
            As for `predict`.

        Returns
        -------
        y : ndarray of shape (n_rows, n_samples)
            Responses, in units of y or of the left-hand side of a formula. The fixed effects and
            the variance components are taken as known.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            As `predict`, if groups are missing although the random effects have a variance or the
            noise is correlated, if a weight is not positive, or if a parameter is not allowed.
            With a residual structure, if a level has two rows at a time, or if the covariance of
            its rows is not positive definite.

        Warns
        -----
        PopulationPredictionWarning
            If levels are to keep their BLUPs, but none of a factor is known and its labels are of
            another kind than in `fit`.

        Notes
        -----
        With a residual structure the noise of the rows of a level is drawn together, with the
        covariance that the structure says. Without a time column the rows are in the order in which
        they come. With ``random_effects="new"`` the noise is that of new levels. With "fitted" the
        noise of known levels at times that they do not have continues from their residuals: it is
        normal around the forecast of `predict`, with the covariance that the residuals leave. Rows
        at times that a level has are repetitions of the measurement, with new noise that is
        independent of the old. Under compound symmetry all rows continue from the residuals;
        without a time column other structures have new noise. So the mean of the samples of rows of
        weight one is what `predict` says.

        Examples
        --------
        >>> from mixedlearn import MixedLinearRegressor
        >>> from mixedlearn.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True)
        >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
        >>> sampled = model.sample_y(X, n_samples=1000, random_state=0)
        >>> sampled.shape
        (180, 1000)
        >>> bool(abs(sampled.mean() - y.mean()) < 2)
        True
        """
        view = FittedView(self)
        model = view.model
        if random_effects not in ("new", "fitted"):
            raise ValueError(f"random_effects must be 'new' or 'fitted', got {random_effects!r}.")
        check_count(n_samples, "n_samples")
        rows = view.rows(X, groups, sample_weight=sample_weight)
        if rows.weights is not None and not rows.weights.all():
            row = int(np.argmin(rows.weights))
            raise ValueError(
                f"sample_weight is zero at row {row}: the noise of such a row would have an "
                "infinite variance. Leave the row out."
            )
        if not rows.labels and model.has_random_effects:
            names = ", ".join(map(repr, model.specification.factor_names))
            raise ValueError(
                f"sample_y received no groups, but the model has random effects for {names}: a "
                "draw needs to know which rows share them. Pass groups=..."
            )
        generator = make_generator(random_state)
        keeps = random_effects == "fitted"
        known, new = _codes_to_sample(rows, model.levels, keep=keeps)
        view.warn_of_kinds(
            rows.labels,
            known,
            stacklevel=3,
            consequence="rows get new random effects of {}",
        )
        draw = None
        if view.noise is not None:
            columns = view.noise_columns(X, groups, rows.weights, "sample_y")
            if keeps:
                view.warn_of_series(columns, 3, "rows are of new levels of {}")
            draw = view.noise_draw(columns, is_continued=keeps)
        coded = CodedRows(rows.X, known, weights=rows.weights)
        shift = view.offset(X, offset)
        sampled = sample_responses(model, coded, new, n_samples, generator, draw)
        return sampled if shift is None else sampled + shift[:, None]

    def sample_random_effects(
        self, n_samples: int = 1000, random_state: Any = None
    ) -> dict[str, FloatArray]:
        """Draw the random effects of every level from their distribution given the data.

        The distribution is normal around the BLUPs of `random_effects_`. Beside the covariances of
        `random_effects_covariances_` it has what the uncertainty of the fixed effects adds, as in
        merTools' ``REsim``; the variance components are taken as known. Given the fixed effects,
        levels are drawn independently of each other.

        Parameters
        ----------
        n_samples : int, default=1000
            Number of draws.
        random_state : int, RandomState, Generator or None, default=None
            Seed of the random numbers.

        Returns
        -------
        samples : dict of str to ndarray of shape (n_samples, n_levels, q)
            For every factor, its random effects, the levels in the order of `random_effects_`.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If a parameter is not allowed.

        Examples
        --------
        >>> from mixedlearn import MixedLinearRegressor
        >>> from mixedlearn.datasets import load_dyestuff
        >>> X, y = load_dyestuff(return_X_y=True)
        >>> model = MixedLinearRegressor(groups="Batch").fit(X, y)
        >>> samples = model.sample_random_effects(random_state=0)["Batch"]
        >>> samples.shape
        (1000, 6, 1)
        """
        model = FittedView(self).model
        check_count(n_samples, "n_samples")
        sampled = sample_effects(model, n_samples, make_generator(random_state))
        return dict(zip(model.specification.factor_names, sampled, strict=True))

    @groups_by_name
    def update_random_effects(
        self,
        X: Any,
        y: ArrayLike | str,
        *,
        groups: Any = None,
        sample_weight: ArrayLike | None = None,
        offset: ArrayLike | None = None,
    ) -> Self:
        """Take further rows into the random effects, without a refit.

        New levels get BLUPs from their rows; those of known levels become what they are given the
        rows of `fit` and these together. With several factors all BLUPs change jointly. The fixed
        effects, the variance components and the log-likelihood stay those of the fit.
        Other threads may predict meanwhile; of updates at the same time only the last counts.
        With one factor the time depends on the new rows and not on the number of known levels.

        With a residual structure the noise of the new rows continues that of their levels, and
        forecasts use both. Levels in which rows are correlated take rows whether or not they have
        random effects. Without a time column new rows come after those that the level has. The time
        that an update takes depends on all rows.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
            The columns that `fit` had, in rows that the model has not seen.
        y : array-like of shape (n_samples,) or str
            Response, in the units of the data, or the name of its column in X, as for `fit`;
            weights and offset may be names then.
        groups : array-like of shape (n_samples,) or (n_samples, n_factors), default=None
            Labels, as for `predict`.
        sample_weight : array-like of shape (n_samples,), default=None
            Precision weights; a row of weight zero counts as absent.
        offset : float or array-like of shape (n_samples,), default=None
            As for `predict`.

        Returns
        -------
        self : MixedLinearRegressor
            ``random_effects_``, ``random_effects_covariances_``, ``n_groups_`` and predictions with
            their standard deviations hold the new rows.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If the model has no grouping factor, if groups are missing, or as in `fit` for columns,
            labels, responses and weights. With a residual structure, if a level has a row at a time
            already (but under compound symmetry), or if an occasion or stratum was not in `fit`.

        Warns
        -----
        PopulationPredictionWarning
            If no level of a factor is known and its labels are of another kind than in `fit`, text
            and not numbers, say: all rows go to new levels.

        Examples
        --------
        A subject that was not in the fit, after two days of observation:

        >>> from mixedlearn import MixedLinearRegressor
        >>> from mixedlearn.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True)
        >>> new = X["Subject"] == 372
        >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"])
        >>> model = model.fit(X[~new], y[~new])
        >>> print(f"{model.predict(X[new])[-1]:.1f} {y[new].iloc[-1]:.1f}")
        344.3 364.1
        >>> _ = model.update_random_effects(X[new].head(2), y[new].head(2))
        >>> print(f"{model.predict(X[new])[-1]:.1f} {model.n_groups_}")
        356.7 {'Subject': 18}
        """
        view = FittedView(self)
        if not view.specification.factors and (view.noise is None or view.noise.series is None):
            raise ValueError(
                "The model was fitted without groups, so it has no random effects to update."
            )
        rows = view.rows(X, groups, y, sample_weight, offset, needs_groups=True)
        columns = None
        if view.noise is not None:
            columns = view.noise_columns(X, groups, rows.weights, "update_random_effects")
        rows = rows.present()
        consequence = "rows go to new levels of {} and tell nothing of the known ones"
        view.warn_of_kinds(
            rows.labels,
            tuple(view.known.find(k, own) for k, own in enumerate(rows.labels)),
            stacklevel=3,
            consequence=consequence,
        )
        if columns is not None:
            view.warn_of_series(columns, 3, consequence)
        self._fitted = view.with_rows(rows, columns)
        return self

    def for_serving(self) -> Self:
        """A slim estimator that predicts and takes further rows, and nothing else.

        It has a few numbers for each level, however many columns have a fixed effect, so that it is
        quick to load and small in memory. Coefficients, variances, BLUPs and predictions are those
        of this estimator, which stays as it is.

        Returns
        -------
        slim : MixedLinearRegressor
            `predict`, `score`, `transform_response` and `update_random_effects` work, as do the
            attributes but for ``coef_covariance_`` and ``random_effects_covariances_``. Standard
            deviations of predictions, `summary`, samples, `mixedlearn.inference` and
            `mixedlearn.plot` raise a ValueError: they need what was left out. A `fit` makes a whole
            estimator of it again.

        Raises
        ------
        NotFittedError
            Before `fit`.

        Examples
        --------
        >>> import pickle
        >>> from mixedlearn import MixedLinearRegressor
        >>> from mixedlearn.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True)
        >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
        >>> slim = model.for_serving()
        >>> slim.predict(X.head(2)).round(1)
        array([253.7, 273.3])
        >>> len(pickle.dumps(slim)) < len(pickle.dumps(model))
        True
        >>> slim.summary()
        Traceback (most recent call last):
            ...
        ValueError: This estimator was made by for_serving(): it predicts means and takes further
        rows, but does not hold the sums that standard deviations, tests, intervals and pictures
        need. Use the estimator that for_serving() was called on, or fit again.
        """
        slim = copy(self)
        slim._fitted = FittedView(self).for_serving()
        slim.__dict__.pop("_stream", None)
        return slim


def _codes_to_sample(
    rows: Rows, levels: Sequence[pd.Index], *, keep: bool
) -> tuple[tuple[Codes | None, ...], list[Codes]]:
    """Codes of the levels that keep their BLUPs, and of those that get new effects."""
    if not (rows.labels and levels):
        return (None,) * len(levels), []
    known: list[Codes | None] = []
    new = []
    for own, own_levels in zip(rows.labels, levels, strict=True):
        codes, _ = encode(own)
        found = look_up(own, own_levels) if keep else None
        known.append(found)
        new.append(codes if found is None else np.where(found < 0, codes, np.int32(-1)))
    return tuple(known), new
