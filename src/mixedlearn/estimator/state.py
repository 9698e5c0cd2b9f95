"""What a fitted estimator holds, and its attributes that are tables."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

import mixedlearn
from mixedlearn.estimator.stream import Stream
from mixedlearn.estimator.view import Fitted, FittedView
from mixedlearn.exceptions import InconsistentVersionWarning
from mixedlearn.formula import formula_of
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.residual_parameters import residual_covariances, residual_parameters
from mixedlearn.model.sampling import monte_carlo_errors

FloatArray = NDArray[np.float64]

# Where a saved estimator keeps the version that saved it.
VERSION_KEY = "_mixedlearn_version"
# Where RFE, RFECV and SelectFromModel read the coefficients of an estimator.
SELECTORS = "sklearn.feature_selection._base"
# What a solution has. Where rows came by `partial_fit` and nobody has asked, it is not there yet.
SOLUTION = frozenset(
    {
        "_fitted",
        "_coef",
        "intercept_",
        "noise_variance_",
        "theta_",
        "log_likelihood_",
        "n_iter_",
        "converged_",
        "is_singular_",
    }
)
# A thread that asks for a solution does not put back the rows that it saw before further ones came.
_exchange = Lock()


class FittedState(BaseEstimator):
    """The fitted model behind an estimator, and its attributes that are tables."""

    log_likelihood_: float
    theta_: FloatArray
    _fitted: Fitted
    _coef: FloatArray
    # Names of the columns that the fit took for response, weights and offset, by argument; if any.
    _beside_X: dict[str, str]
    # The rows of `partial_fit`, if some came since the last `fit`.
    _stream: Stream

    def __mixedlearn_fitted__(self) -> FittedView:
        """What `mixedlearn.inference` and `mixedlearn.plot` read."""
        return FittedView(self)

    def __getstate__(self) -> dict[str, Any]:
        """The state to save, with the version that saves it."""
        return {**super().__getstate__(), VERSION_KEY: mixedlearn.__version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a saved state, and warn if another version saved it."""
        state = dict(state)
        saved_by, loaded_by = state.pop(VERSION_KEY, None), mixedlearn.__version__
        if saved_by != loaded_by:
            version = "an earlier version" if saved_by is None else f"version {saved_by}"
            warnings.warn(
                f"This {type(self).__name__} was saved by {version} of mixedlearn and is loaded by "
                f"version {loaded_by}: it may fail or give other results. Load it with the version "
                "that saved it, or fit it anew.",
                InconsistentVersionWarning,
                stacklevel=2,
            )
        super().__setstate__(state)

    def __sklearn_is_fitted__(self) -> bool:
        own = vars(self)
        return "_fitted" in own or ("_stream" in own and not own["_stream"].running.is_empty)

    def __getattr__(self, name: str) -> Any:
        """An attribute of the fit whose rows came by `partial_fit`: solve for it."""
        while name in SOLUTION and "_stream" in vars(self):
            if not self.__sklearn_is_fitted__():
                raise NotFittedError(
                    f"There is no {name}: partial_fit got no rows of positive weight yet."
                )
            self._solve()
            state = vars(self)
            if name in state:
                return state[name]
        # Says what is wrong: that there is none, or what a property has against it.
        return object.__getattribute__(self, name)

    def _solve(self) -> None:
        """Fit the model to the rows of `partial_fit`."""
        raise NotImplementedError

    def _set_stream(self, stream: Stream) -> None:
        """Hold the rows of `partial_fit`, of which nothing is solved; in one assignment."""
        with _exchange:
            kept = {name: value for name, value in vars(self).items() if name not in SOLUTION}
            self.__dict__ = {**kept, **stream.column_attributes, "_stream": stream}

    def _set_solution(self, of: Stream, fitted: Fitted, stream: Stream) -> None:
        """Hold the solution of a stream unless there are other rows by now; see `_set_fitted`."""
        with _exchange:
            if vars(self).get("_stream") is of:
                self._set_fitted(fitted, stream)

    def _set_fitted(self, fitted: Fitted, stream: Stream | None = None) -> None:
        """Hold a solution, and the stream whose it is; without one, that of `fit`."""
        model = fitted.model
        coef = model.coef
        has_intercept = model.specification.fit_intercept
        state = {name: value for name, value in vars(self).items() if name != "_stream"}
        if stream is not None:
            state["_stream"] = stream
        self.__dict__ = {
            **state,
            "_fitted": fitted,
            "intercept_": float(coef[0]) if has_intercept else 0.0,
            "_coef": coef[1:] if has_intercept else coef,
            "noise_variance_": model.noise_variance,
            "theta_": model.user_theta,
            "log_likelihood_": -0.5 * model.objective,
            "n_iter_": model.n_iterations,
            "converged_": model.is_certified,
            "is_singular_": model.is_singular,
        }

    @contextmanager
    def _as_it_was(self) -> Iterator[None]:
        """Give the estimator its state back where something fails or is interrupted."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            self.__dict__ = before
            raise

    @property
    def formula_(self) -> str:
        """The model in lme4's notation."""
        view = FittedView(self)
        return view.formula.text if view.formula else formula_of(view.specification)

    @property
    def n_groups_(self) -> dict[str, int]:
        """Number of levels of every factor."""
        view = FittedView(self)
        return dict(zip(view.specification.factor_names, view.known.n_levels, strict=True))

    @property
    def coef_(self) -> FloatArray:
        """Fixed effects of the columns; refused to who would take them for those of others."""
        view = FittedView(self)
        if sys._getframe(1).f_globals.get("__name__") == SELECTORS:
            view.check_column_order()
        return self._coef

    @property
    def coef_covariance_(self) -> pd.DataFrame:
        """Covariance matrix of the fixed effects."""
        model = FittedView(self).model_of_fit
        names = list(model.specification.coef_names)
        return pd.DataFrame(model.coef_covariance, index=names, columns=names)

    @property
    def residual_parameters_(self) -> dict[str, float]:
        """Parameters of the residual structure, by name."""
        return residual_parameters(self._model_with_noise("residual_parameters_"))

    @property
    def residual_covariance_(self) -> pd.DataFrame | dict[Any, pd.DataFrame]:
        """Covariance of the noise of the occasions of a level."""
        model = self._model_with_noise("residual_covariance_")
        found, by = residual_covariances(model), model.noise.binding.by
        return found[0] if by is None else dict(zip(by, found, strict=True))

    def _model_with_noise(self, attribute: str) -> FittedModel:
        model = FittedView(self).known.fit
        if model.noise is None:
            raise AttributeError(
                f"{attribute} belongs to a residual structure, and this model has residual=None."
            )
        return model

    @property
    def solver_(self) -> str:
        """The solver that was used."""
        return "exact" if FittedView(self).known.fit.sampling is None else "stochastic"

    @property
    def monte_carlo_errors_(self) -> dict[str, Any]:
        """Standard errors over draws of the stochastic solver's random signs."""
        model = FittedView(self).known.fit
        errors = monte_carlo_errors(model)
        if errors is None:
            raise AttributeError(
                "monte_carlo_errors_ belongs to the stochastic solver, and this fit was exact, as "
                "all are where factors are not crossed or have few levels."
            )
        return {
            "covariances": {
                factor.name: pd.DataFrame(
                    own, index=list(factor.effects), columns=list(factor.effects)
                )
                for factor, own in zip(model.specification.factors, errors.covariances, strict=True)
            },
            "noise_variance": errors.noise_variance,
            "log_likelihood": errors.objective / 2.0,
        }

    @property
    def covariances_(self) -> dict[str, pd.DataFrame]:
        """Variances and covariances of the random effects, by factor."""
        model = FittedView(self).known.fit
        return {
            factor.name: pd.DataFrame(
                covariance, index=list(factor.effects), columns=list(factor.effects)
            )
            for factor, covariance in zip(
                model.specification.factors, model.covariances, strict=True
            )
        }

    @property
    def random_effects_(self) -> dict[str, pd.DataFrame]:
        """BLUPs of every level, by factor."""
        model = FittedView(self).known.whole
        return {
            factor.name: pd.DataFrame(blups, index=levels, columns=list(factor.effects))
            for factor, blups, levels in zip(
                model.specification.factors, model.blups, model.levels, strict=True
            )
        }

    @property
    def random_effects_covariances_(self) -> dict[str, FloatArray]:
        """Conditional covariance of every level's effects, by factor."""
        model = FittedView(self).model
        return {
            factor.name: model.conditional_covariances(k)
            for k, factor in enumerate(model.specification.factors)
        }
