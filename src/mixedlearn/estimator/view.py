"""What a fitted estimator shows: its model, and how it reads further rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from mixedlearn.data.labels import Labels, missing_labels, shown
from mixedlearn.data.levels import OtherKind, encode
from mixedlearn.data.rows import CodedRows, Codes, Rows
from mixedlearn.engines.correlated.noise_columns import NoiseColumns
from mixedlearn.engines.correlated.row_checks import check_parts, check_times
from mixedlearn.engines.correlated.rows import NoiseRows
from mixedlearn.estimator.callbacks import run_with_progress
from mixedlearn.estimator.noise import NoiseSource, read_noise
from mixedlearn.estimator.rows import RowReader
from mixedlearn.exceptions import DegenerateModelWarning, PopulationPredictionWarning
from mixedlearn.formula import CompiledFormula
from mixedlearn.model.continuation import (
    Condition,
    NoiseDraw,
    condition,
    noise_draw,
    with_correlated_rows,
)
from mixedlearn.model.correlated import refuse_noise
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.known import Known
from mixedlearn.model.prediction import known_mean, predict_std
from mixedlearn.model.serving import FixedPart, separate_fixed_part

FloatArray = NDArray[np.float64]
Result = TypeVar("Result")

_NO_CONDITION = "rows are predicted without the residuals of their level of {}"

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
    noise : NoiseSource, optional
        Where the noise of rows is read from, if there is a residual structure.
    needs_offset : bool
        Whether `fit` got an offset beside X, so that predictions need one.
    weights : tuple of float
        The least and the largest weight of the rows of the fit.
    """

    known: Known
    formula: CompiledFormula | None
    fixed_part: FixedPart | None = None
    noise: NoiseSource | None = None
    needs_offset: bool = False
    weights: tuple[float, float] = (1.0, 1.0)

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


class FittedView(RowReader):
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
        self._fitted = fitted = estimator._fitted
        self.known: Known = fitted.known
        self.noise: Any = fitted.noise
        part = fitted.fixed_part
        specification = self.known.fit.specification if part is None else part.specification
        super().__init__(estimator, specification, fitted.formula, needs_offset=fitted.needs_offset)

    @property
    def model(self) -> FittedModel:
        """The model with the random effects given all rows; raises as `Fitted.whole`."""
        return self._fitted.model

    @property
    def model_of_fit(self) -> FittedModel:
        """The model with the random effects given the rows of the fit; raises as `model`."""
        return self._fitted.whole().fit

    def mean(self, rows: CodedRows) -> FloatArray:
        """Predictions of rows with the codes of `codes`, shape (n,)."""
        part = self._fitted.fixed_part
        coef = self.known.fit.coef if part is None else part.coef
        return known_mean(self.specification, coef, self.known, rows)

    def condition(self, X: Any, groups: Any, stacklevel: int, *, is_wanted: bool) -> Condition:
        """What the residuals of their levels say of the noise of rows; see `forecast_rows`."""
        rows = self.forecast_rows(X, groups, stacklevel + 1, is_wanted=is_wanted)
        return condition(self.known, rows)

    def forecast_rows(self, X: Any, groups: Any, stacklevel: int, *, is_wanted: bool) -> NoiseRows:
        """What the noise of rows that are predicted depends on.

        ``is_wanted``: whether levels count; if not, rows are as if of new levels.

        Raises
        ------
        ValueError
            If a level is unknown and ``handle_unknown="error"``.
        """
        X = self.features(X)
        source = self.noise
        assert source is not None
        binding = self.known.noise.binding
        series = np.full(len(X), -1, dtype=np.intp)
        labels = [] if source.series is None or not is_wanted else source.labels(X, groups)
        is_alone = source.series not in (None, *self.specification.factor_names)
        if labels:
            own, table = labels[0], self.known.noise.table
            found = table.find(own)
            self._check_known(own, found, partial(table.other_kind, own))
            series = found.astype(np.intp)
            # Of a factor with random effects there is a warning already.
            if (series < 0).all() and is_alone:
                _warn_of_kind(own, table.other_kind(own), _NO_CONDITION, stacklevel)
        elif is_wanted and is_alone:
            warnings.warn(
                "predict received no groups, but the noise of the rows of a level of "
                f"{source.series!r} is correlated: this is the prediction for new levels. Pass "
                "groups=..., or random_effects='none' if that is what you want.",
                PopulationPredictionWarning,
                stacklevel=stacklevel,
            )
        noise = self.known.noise
        rows: NoiseRows = binding.rows(read_noise(source, X, labels), series)
        note = binding.unsigned_note(noise.noise_rows, rows) if binding.unsigned else None
        if note is not None:
            warnings.warn(note, DegenerateModelWarning, stacklevel=stacklevel)
        return rows

    def condition_in(self, X: Any, series: NDArray[np.integer]) -> Condition:
        """What the residuals of their levels say of the noise of rows, by numbers of the levels."""
        assert self.noise is not None
        columns = read_noise(self.noise, self.features(X), [])
        return condition(self.known, self.known.noise.binding.rows(columns, series))

    def noise_rows(self, X: Any, groups: Any, present: NDArray[np.bool_]) -> NoiseRows:
        """What the noise of some rows depends on, if there is a residual structure.

        Raises
        ------
        ValueError
            If a level of the series was not seen in fit, or as `read_noise` and `Binding.rows`.
        """
        X = self.features(X)
        noise, source = self.model_of_fit.noise, self.noise
        assert source is not None
        columns = read_noise(source, X, [])
        series: NDArray[np.intp] = np.arange(len(X))
        if source.series is not None:
            labels = source.labels(X, groups)
            if not labels:
                raise ValueError(
                    f"No groups were passed, but the noise of the rows of a level of "
                    f"{source.series!r} is correlated: pass groups=... as to fit."
                )
            series = noise.table.find(labels[0]).astype(np.intp)
            unseen = (series < 0) & present
            if unseen.any():
                row = int(np.argmax(unseen))
                raise ValueError(
                    f"The level {shown(labels[0].at(row))} of {source.series!r} (row {row}) was "
                    "not seen in fit."
                )
        found: NoiseRows = noise.binding.rows(columns.rows(present), series[present])
        return found

    def std(self, rows: CodedRows, found: Condition | None = None) -> FloatArray:
        """Standard deviations of new observations with the codes of `codes`, shape (n,).

        Raises
        ------
        ValueError
            If what they need was not kept.
        """
        return predict_std(self.model_of_fit, rows, known=self.known, condition=found)

    def noise_columns(
        self, X: Any, groups: Any, weights: FloatArray | None, function: str
    ) -> NoiseColumns:
        """The columns that the noise depends on, of rows of positive weight with known series.

        Raises
        ------
        ValueError
            If a column or a label is not there; the message names who asks.
        """
        X, source = self.features(X), self.noise
        assert source is not None
        labels = [] if source.series is None else source.labels(X, groups)
        if source.series is not None and not labels:
            raise ValueError(
                f"{function} received no groups, but the noise of the rows of a level of "
                f"{source.series!r} is correlated: pass groups=..."
            )
        for own in labels:
            for part in own.parts:
                missing = missing_labels(part)
                if missing is not None:
                    raise ValueError(
                        f"The label of {own.name!r} is missing (NaN or None) in row "
                        f"{int(np.argmax(missing))}, so that nobody knows with which rows its "
                        "noise is correlated: fill it in, or leave the row out."
                    )
        found = read_noise(source, X, labels)
        return found if weights is None else found.rows(weights > 0.0)

    def noise_draw(self, columns: NoiseColumns, *, is_continued: bool) -> NoiseDraw:
        """What the noise of rows is drawn from; see `continuation.noise_draw`.

        Raises
        ------
        ValueError
            If rows of a level cannot be told apart, or cannot be drawn together.
        """
        noise = self.known.noise
        series: NDArray[np.intp] = np.arange(columns.n_rows)
        if columns.series is not None:
            series = encode(columns.series)[0].astype(np.intp)
            if is_continued:
                found = noise.table.find(columns.series)
                series = np.where(found < 0, noise.n_levels + series, found)
        rows = noise.binding.rows(columns, series)
        check_times(noise.binding, columns, rows)
        check_parts(noise.binding, columns, rows)
        return noise_draw(self.known, rows, is_continued=is_continued)

    def warn_of_series(self, columns: NoiseColumns, stacklevel: int, consequence: str) -> None:
        """The same as `warn_of_kinds` for a series that no random effect belongs to."""
        own = columns.series
        if own is None or own.name in self.specification.factor_names:
            return
        table = self.known.noise.table
        if (table.find(own) < 0).all():
            _warn_of_kind(own, table.other_kind(own), consequence, stacklevel + 1)

    def with_rows(self, rows: Rows, columns: NoiseColumns | None) -> Fitted:
        """What there is to hold given further rows as well.

        ``columns`` are those of their noise, if there is a residual structure.
        """
        if columns is not None:
            known = with_correlated_rows(self.known, rows, columns)
            return replace(self._fitted, known=known)
        part = self._fitted.fixed_part
        own = rows if part is None else part.residual_rows(rows)
        return replace(self._fitted, known=self.known.with_rows(own))

    def for_serving(self) -> Fitted:
        """What predictions and further rows need."""
        if self._fitted.fixed_part is not None:
            return self._fitted
        refuse_noise(self.known.fit)
        part, known = separate_fixed_part(self.known)
        formula = None if self.formula is None else replace(self.formula, terms=())
        return replace(self._fitted, known=known, formula=formula, fixed_part=part)

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
        by_name = {own.name: own for own in labels}
        names = self.specification.factor_names
        codes: list[Codes | None] = [None] * len(names)
        for k, name in enumerate(names):
            if name in wanted and name in by_name:
                own = by_name[name]
                codes[k] = found = self.known.find(k, own)
                self._check_known(own, found, partial(self.known.other_kind, k, own))
        return tuple(codes)

    def _check_known(
        self, labels: Labels, codes: Codes, other_kind: Callable[[], OtherKind | None]
    ) -> None:
        if self._estimator.handle_unknown == "error" and (codes < 0).any():
            row = int(np.argmax(codes < 0))
            if labels.is_missing(row):
                raise ValueError(
                    f"The label of {labels.name!r} is missing (NaN or None) in row {row}. Set "
                    "handle_unknown='population' to predict such rows without an effect of "
                    f"{labels.name!r}."
                )
            other = other_kind()
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
        by_name = {own.name: own for own in labels}
        for k, (name, found) in enumerate(zip(self.specification.factor_names, codes, strict=True)):
            if found is None or (found >= 0).any():
                continue
            other = self.known.other_kind(k, by_name[name])
            _warn_of_kind(by_name[name], other, consequence, stacklevel + 1)

    def with_model(self, model: FittedModel) -> Any:
        """A copy of the estimator with a refit of the model to the same rows."""
        other = copy(self._estimator)
        other._set_fitted(replace(self._fitted, known=Known(model)))
        return other

    def with_progress(
        self,
        name: str,
        n_tasks: int,
        work: Callable[[Callable[[int], None]], Result],
        task: str = "resample",
    ) -> Result:
        """Do some work of many equal tasks; see `callbacks.run_with_progress`."""
        return run_with_progress(self._estimator, name, n_tasks, work, task)


def _warn_of_kind(
    labels: Labels, other: OtherKind | None, consequence: str, stacklevel: int
) -> None:
    if other is None:
        return
    warnings.warn(
        f"All levels of {labels.name!r} are new: here they are {other.kind}, like "
        f"{shown(other.label)}, in fit they were {other.known_kind}, like "
        f"{shown(other.known_label)}. Labels of another kind are other labels, so that "
        f"{consequence.format(repr(labels.name))}: convert the labels to those of fit, or give "
        "new levels labels of that kind.",
        PopulationPredictionWarning,
        stacklevel=stacklevel + 1,
    )
