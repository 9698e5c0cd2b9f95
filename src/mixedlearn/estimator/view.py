"""What a fitted estimator shows: its model, and how it reads further rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from mixedlearn.data.labels import Labels, shown
from mixedlearn.data.rows import CodedRows, Codes, Rows
from mixedlearn.estimator.callbacks import run_with_progress
from mixedlearn.estimator.validation import (
    check_frame,
    check_response,
    check_weights,
    find_labels,
    formula_frame,
    numeric_columns,
    transformed_response,
)
from mixedlearn.exceptions import PopulationPredictionWarning
from mixedlearn.formula import CompiledFormula
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.known import Known
from mixedlearn.model.prediction import known_mean, predict_std
from mixedlearn.model.serving import FixedPart, separate_fixed_part
from mixedlearn.specification import Specification

FloatArray = NDArray[np.float64]
Result = TypeVar("Result")

NO_RESPONSE = object()

_NOT_KEPT = (
    "This estimator was made by for_serving(): it predicts means and takes further rows, but does "
    "not hold the sums that standard deviations, tests, intervals and pictures need. Use the "
    "estimator that for_serving() was called on, or fit again."
)


@dataclass(frozen=True, slots=True)
class Fitted:
    """All that a prediction reads. It is replaced as a whole, so that none sees half an update.

    Attributes
    ----------
    known : Known
        The fitted model, and what later rows tell of the random effects.
    formula : CompiledFormula or None
        What makes the columns of rows, if the model was given by a formula.
    fixed_part : FixedPart, optional
        The fixed effects, if only what serves predictions was kept: then ``known`` is of the
        residuals.
    """

    known: Known
    formula: CompiledFormula | None
    fixed_part: FixedPart | None = None

    def whole(self) -> Known:
        """What is known if the fixed effects belong to it.

        Raises
        ------
        ValueError
            If their products were not kept.
        """
        if self.fixed_part is not None:
            raise ValueError(_NOT_KEPT)
        return self.known

    @property
    def model(self) -> FittedModel:
        """The model with the random effects given all rows; raises as `whole`."""
        return self.whole().whole


class FittedView:
    """A fitted estimator at one moment, for the methods of the estimator, inference and plot.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Its parameters and the names of its columns.

    Raises
    ------
    NotFittedError
        Before `fit`.
    """

    def __init__(self, estimator: Any):
        check_is_fitted(estimator)
        self._estimator = estimator
        self._fitted: Fitted = estimator._fitted
        self.known = self._fitted.known
        self.formula = self._fitted.formula

    @property
    def model(self) -> FittedModel:
        """The model with the random effects given all rows; raises as `Fitted.whole`."""
        return self._fitted.model

    @property
    def model_of_fit(self) -> FittedModel:
        """The model with the random effects given the rows of the fit; raises as `model`."""
        return self._fitted.whole().fit

    @property
    def specification(self) -> Specification:
        """The model in terms of the columns."""
        part = self._fitted.fixed_part
        return self.known.fit.specification if part is None else part.specification

    def mean(self, rows: CodedRows) -> FloatArray:
        """Predictions of rows with the codes of `codes`, shape (n,)."""
        part = self._fitted.fixed_part
        coef = self.known.fit.coef if part is None else part.coef
        return known_mean(self.specification, coef, self.known, rows)

    def std(self, rows: CodedRows) -> FloatArray:
        """Standard deviations of new observations with the codes of `codes`, shape (n,).

        Raises
        ------
        ValueError
            If what they need was not kept.
        """
        return predict_std(self.model_of_fit, rows, known=self.known)

    def with_rows(self, rows: Rows) -> Fitted:
        """What there is to hold given further rows as well."""
        part = self._fitted.fixed_part
        own = rows if part is None else part.residual_rows(rows)
        return replace(self._fitted, known=self.known.with_rows(own))

    def for_serving(self) -> Fitted:
        """What predictions and further rows need."""
        if self._fitted.fixed_part is not None:
            return self._fitted
        part, known = separate_fixed_part(self.known)
        formula = None if self.formula is None else replace(self.formula, terms=())
        return Fitted(known, formula, part)

    def rows(
        self,
        X: Any,
        groups: Any = None,
        y: Any = NO_RESPONSE,
        sample_weight: Any = None,
        *,
        needs_groups: bool = False,
    ) -> Rows:
        """Read rows, with their labels if any came.

        Raises
        ------
        ValueError
            As `MixedLinearRegressor.predict`; if groups are needed and missing; if responses or
            weights are not finite numbers, one for each row.
        """
        estimator, specification = self._estimator, self.specification
        names = specification.factor_names
        if self.formula is not None:
            frame = formula_frame(X, groups)
            columns = numeric_columns(estimator, self.formula.rows(frame), specification)
            labels = self.formula.labels(frame)
        else:
            has_groups = groups is not None or estimator.n_features_in_ == 0
            frame = check_frame(estimator, X, has_groups=has_groups, reset=False)
            group_columns = [factor.columns for factor in specification.factors if factor.columns]
            labels = find_labels(frame, groups, specification.names, group_columns, names or None)
            columns = numeric_columns(estimator, frame, specification)
        if needs_groups and names and not labels:
            raise ValueError(
                f"No groups were passed, but the model has the grouping factors "
                f"{', '.join(map(repr, names))}: pass groups=... as to fit."
            )
        weights = check_weights(sample_weight, columns)
        response = None if y is NO_RESPONSE else self.response(X, y, weights)
        return Rows(columns, tuple(labels), response, weights)

    def response(self, X: Any, y: Any, weights: FloatArray | None = None) -> FloatArray:
        """The response of rows on the scale of the model, shape (n,).

        The left-hand side of a formula is computed from y, and from X where it has more columns;
        it is zero for rows of weight zero, which are absent.

        Raises
        ------
        ValueError
            If responses are not finite numbers, one for each row.
        """
        formula = self.formula
        if formula is None or formula.response is None:
            return check_response(self._estimator, X, y)
        frame = formula_frame(X, None)
        return transformed_response(self._estimator, formula.response, frame, y, weights)

    def check_column_order(self) -> None:
        """Refuse to give coefficients to scikit-learn's selectors, which take them by position.

        Raises
        ------
        ValueError
            If the coefficients are not those of all columns of X in their order.
        """
        specification = self.specification
        owners = [specification.columns[position] for position in specification.fixed]
        n_columns = self._estimator.n_features_in_
        if self.formula is None and owners == list(range(n_columns)):
            return
        raise ValueError(
            "scikit-learn's selectors (RFE, RFECV, SelectFromModel) take the k-th value of coef_ "
            f"for the k-th column of X, but coef_ has {len(owners)} values and X {n_columns} "
            "columns: group columns have no coefficient, and fixed_effects or a formula may choose "
            "others. "
            "Give the selector only columns with a fixed effect, and pass the labels beside them: "
            "RFE(MixedLinearRegressor()).fit(X, y, groups=labels)."
        )

    def codes(self, labels: Sequence[Labels], wanted: Sequence[str]) -> tuple[Codes | None, ...]:
        """Levels of the rows for every factor, -1 for unknown ones; None for factors left out.

        They are the codes of `known`, which are places in ``model.levels`` only if no rows came
        after the fit.

        Raises
        ------
        ValueError
            If a level is unknown and ``handle_unknown="error"``.
        """
        names = self.specification.factor_names
        codes: list[Codes | None] = [None] * len(names)
        if labels and names:
            for k, own in enumerate(labels):
                if names[k] in wanted:
                    codes[k] = found = self.known.find(k, own)
                    self._check_known(k, own, found)
        return tuple(codes)

    def _check_known(self, k: int, labels: Labels, codes: Codes) -> None:
        if self._estimator.handle_unknown == "error" and (codes < 0).any():
            row = int(np.argmax(codes < 0))
            other = self.known.other_kind(k, labels)
            kinds = ""
            if other is not None:
                kinds = f" Labels are {other.kind} here, and were {other.known_kind} in fit."
            raise ValueError(
                f"The level {shown(labels.at(row))} of {labels.name!r} (row {row}) was not seen in "
                f"fit.{kinds} Set handle_unknown='population' to predict such rows without an "
                f"effect of {labels.name!r}."
            )

    def warn_of_kinds(
        self,
        labels: Sequence[Labels],
        codes: Sequence[Codes | None],
        stacklevel: int,
        *,
        consequence: str = "rows are predicted without an effect of {}",
    ) -> None:
        """Warn if no level of a factor is known because labels are of another kind than in `fit`.

        ``consequence`` is what follows, with a place for the factor.
        """
        for k, (own, found) in enumerate(zip(labels, codes, strict=False)):
            if found is None or (found >= 0).any():
                continue
            if (other := self.known.other_kind(k, own)) is not None:
                warnings.warn(
                    f"All levels of {own.name!r} are new: here they are {other.kind}, like "
                    f"{shown(other.label)}, in fit they were {other.known_kind}, like "
                    f"{shown(other.known_label)}. Labels of another kind are other labels, so that "
                    f"{consequence.format(repr(own.name))}: convert the labels to those of fit, or "
                    "give new levels labels of that kind.",
                    PopulationPredictionWarning,
                    stacklevel=stacklevel + 1,
                )

    def with_model(self, model: FittedModel) -> Any:
        """A copy of the estimator with a refit of the model to the same rows."""
        other = copy(self._estimator)
        other._set_fitted(Fitted(Known(model), self.formula))
        return other

    def with_progress(
        self, name: str, n_tasks: int, work: Callable[[Callable[[int], None]], Result]
    ) -> Result:
        """Do some work of many equal tasks; see `callbacks.run_with_progress`."""
        return run_with_progress(self._estimator, name, n_tasks, work)
