"""What a fitted estimator holds, and how it reads further rows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from mixedlearn.data.labels import Labels, look_up, same_as_text, shown
from mixedlearn.estimator.validation import (
    check_frame,
    check_response,
    check_weights,
    find_labels,
    numeric_columns,
)
from mixedlearn.exceptions import PopulationPredictionWarning
from mixedlearn.formula import CompiledFormula, as_pandas, formula_of
from mixedlearn.model.fitted import FittedModel
from mixedlearn.specification import Design

FloatArray = NDArray[np.float64]


class FittedState(BaseEstimator):
    """The fitted model behind an estimator, its attributes that are tables, and rows for it."""

    groups: Any
    handle_unknown: str
    n_features_in_: int
    log_likelihood_: float
    theta_: FloatArray
    _model: FittedModel
    _levels: list[pd.Index]
    _fit_levels: list[pd.Index]
    _formula: CompiledFormula | None

    def _fitted_model(self) -> FittedModel:
        """The model, or scikit-learn's error before `fit`."""
        check_is_fitted(self)
        return self._model

    def _rows(self, X: Any, groups: Any) -> tuple[NDArray[np.floating], list[Labels]]:
        """Numeric columns of new rows, and their labels if any came."""
        specification = self._fitted_model().specification
        if self._formula is not None:
            X = self._formula_frame(X, groups)
            rows = self._formula.rows(X)
            return numeric_columns(self, rows, specification), self._formula.labels(X)
        X = check_frame(
            self, X, has_groups=groups is not None or self.n_features_in_ == 0, reset=False
        )
        group_columns = [factor.columns for factor in specification.factors if factor.columns]
        names = specification.factor_names
        labels = find_labels(X, groups, specification.names, group_columns, names or None)
        return numeric_columns(self, X, specification), labels

    def _labelled_rows(self, X: Any, groups: Any) -> tuple[NDArray[np.floating], list[Labels]]:
        """Numeric columns and labels of rows whose groups have to be known."""
        columns, labels = self._rows(X, groups)
        names = self._model.specification.factor_names
        if names and not labels:
            raise ValueError(
                f"No groups were passed, but the model has the grouping factors "
                f"{', '.join(map(repr, names))}: pass groups=... as to fit."
            )
        return columns, labels

    def _training_rows(
        self, X: Any, y: Any, groups: Any, sample_weight: Any
    ) -> tuple[Design, FloatArray, FloatArray | None]:
        """Rows that are said to be those of `fit`: design, response and weights."""
        columns, labels = self._labelled_rows(X, groups)
        response = check_response(self, columns, y)
        weights = check_weights(sample_weight, columns)
        pairs = zip(labels, self._fit_levels, strict=False)
        codes = tuple(look_up(own, known) for own, known in pairs)
        return Design(columns, codes), response, weights

    def _codes(
        self, labels: list[Labels], wanted: Sequence[str]
    ) -> tuple[NDArray[np.int32] | None, ...]:
        """Levels of the rows for every factor, -1 for unknown ones; None for factors left out."""
        names = self._model.specification.factor_names
        codes: list[NDArray[np.int32] | None] = [None] * len(names)
        if labels and names:
            for k, (own, known) in enumerate(zip(labels, self._levels, strict=True)):
                if names[k] in wanted:
                    codes[k] = found = look_up(own, known)
                    self._check_known(names[k], own, found)
        return tuple(codes)

    def _check_known(self, name: str, labels: Labels, codes: NDArray[np.int32]) -> None:
        if self.handle_unknown == "error" and (codes < 0).any():
            row = int(np.argmax(codes < 0))
            raise ValueError(
                f"The level {shown(labels.at(row))} of {name!r} (row {row}) was not seen in fit. "
                "Set handle_unknown='population' to predict such rows without an effect of "
                f"{name!r}."
            )

    def _warn_of_text(
        self,
        labels: list[Labels],
        codes: Sequence[NDArray[np.int32] | None],
        stacklevel: int,
    ) -> None:
        """Warn if no level of a factor is known because labels are text here and not in `fit`."""
        for own, known, found in zip(labels, self._levels, codes, strict=False):
            if found is None or (found >= 0).any():
                continue
            if (pair := same_as_text(own, known)) is not None:
                label, level = map(shown, pair)
                warnings.warn(
                    f"All levels of {own.name!r} are new: here they are like {label}, in fit they "
                    f"were like {level}. Labels of another type are other labels, so that rows are "
                    f"predicted without an effect of {own.name!r}: convert the labels.",
                    PopulationPredictionWarning,
                    stacklevel=stacklevel + 1,
                )

    @staticmethod
    def _formula_frame(X: Any, groups: Any) -> pd.DataFrame:
        """X as a data frame of which a formula can name columns."""
        if groups is not None:
            raise ValueError(
                "groups were passed, but the model is given by a formula, which names the grouping "
                "factors itself: write (1 | column) in it, and pass X with that column."
            )
        X = as_pandas(X)
        if not X.columns.is_unique:
            twice = X.columns[X.columns.duplicated()][0]
            raise ValueError(f"X has the column {twice!r} twice: give unique column names.")
        if len(X) == 0:
            check_array(np.zeros((0, 1)))
        return X

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_model")

    @property
    def formula_(self) -> str:
        """The model in lme4's notation."""
        check_is_fitted(self)
        return self._formula.text if self._formula else formula_of(self._model.specification)

    @property
    def coef_covariance_(self) -> pd.DataFrame:
        """Covariance matrix of the fixed effects."""
        check_is_fitted(self)
        names = list(self._model.specification.coef_names)
        return pd.DataFrame(self._model.coef_covariance, index=names, columns=names)

    @property
    def covariances_(self) -> dict[str, pd.DataFrame]:
        """Variances and covariances of the random effects, by factor."""
        check_is_fitted(self)
        return {
            factor.name: pd.DataFrame(
                covariance, index=list(factor.effects), columns=list(factor.effects)
            )
            for factor, covariance in zip(
                self._model.specification.factors, self._model.covariances, strict=True
            )
        }

    @property
    def random_effects_(self) -> dict[str, pd.DataFrame]:
        """BLUPs of every level, by factor."""
        check_is_fitted(self)
        return {
            factor.name: pd.DataFrame(blups, index=levels, columns=list(factor.effects))
            for factor, blups, levels in zip(
                self._model.specification.factors, self._model.blups, self._levels, strict=True
            )
        }

    @property
    def random_effects_covariances_(self) -> dict[str, FloatArray]:
        """Conditional covariance of every level's effects, by factor."""
        check_is_fitted(self)
        return {
            factor.name: self._model.conditional_covariances(k)
            for k, factor in enumerate(self._model.specification.factors)
        }
