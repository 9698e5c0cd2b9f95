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

from mixedlearn.data.frames import as_frame
from mixedlearn.data.labels import Labels, missing_labels, shown
from mixedlearn.data.levels import OtherKind, encode
from mixedlearn.data.rows import CodedRows, Codes, Rows
from mixedlearn.engines.correlated.noise_columns import NoiseColumns
from mixedlearn.engines.correlated.row_checks import check_parts, check_times
from mixedlearn.engines.correlated.rows import NoiseRows
from mixedlearn.estimator.callbacks import run_with_progress
from mixedlearn.estimator.noise import NoiseSource, read_noise
from mixedlearn.estimator.validation import (
    check_frame,
    check_response,
    check_weights,
    find_labels,
    find_offset,
    formula_frame,
    lacks_only_others,
    numeric_columns,
    some_numeric_columns,
    transformed_response,
)
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
from mixedlearn.specification import Specification

FloatArray = NDArray[np.float64]
Result = TypeVar("Result")

NO_RESPONSE = object()

_NO_OFFSET = (
    "The model was fitted with an offset, which predictions and residuals need for these rows too: "
    "pass offset=..., a number for each row. offset=0 leaves it out. scikit-learn's searches and "
    "cross-validations pass it on with metadata routing; an offset in a formula needs no passing."
)
_NO_OFFSET_OF_FIT = (
    "offset was passed, but the model was fitted without one: pass it to fit(..., offset=...) too. "
    "The offset of a formula is computed from X."
)

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
    """

    known: Known
    formula: CompiledFormula | None
    fixed_part: FixedPart | None = None
    noise: NoiseSource | None = None
    needs_offset: bool = False

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
        self.noise = self._fitted.noise

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
        X = as_frame(X)
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
        columns = read_noise(self.noise, as_frame(X), [])
        return condition(self.known, self.known.noise.binding.rows(columns, series))

    def noise_rows(self, X: Any, groups: Any, present: NDArray[np.bool_]) -> NoiseRows:
        """What the noise of some rows depends on, if there is a residual structure.

        Raises
        ------
        ValueError
            If a level of the series was not seen in fit, or as `read_noise` and `Binding.rows`.
        """
        X = as_frame(X)
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
        X, source = as_frame(X), self.noise
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

    def rows(
        self,
        X: Any,
        groups: Any = None,
        y: Any = NO_RESPONSE,
        sample_weight: Any = None,
        offset: Any = None,
        *,
        needs_groups: bool = False,
    ) -> Rows:
        """Read rows, with their labels if any came; a response is less its offset.

        Raises
        ------
        ValueError
            As `MixedLinearRegressor.predict`; if groups are needed and missing; if responses or
            weights are not finite numbers, one for each row.
        """
        names = self.specification.factor_names
        X = as_frame(X)
        columns, labels = self._read(X, groups, names, all_columns=True, may_miss=False)
        if needs_groups and names and not labels:
            raise ValueError(
                f"No groups were passed, but the model has the grouping factors "
                f"{', '.join(map(repr, names))}: pass groups=... as to fit."
            )
        weights = check_weights(sample_weight, columns)
        if y is NO_RESPONSE:
            return Rows(columns, tuple(labels), None, weights)
        response, known = self.response(X, y, weights), self.offset(X, offset, weights)
        response = response if known is None else response - known
        return Rows(columns, tuple(labels), response, weights)

    def rows_to_predict(
        self,
        X: Any,
        groups: Any,
        wanted: Sequence[str],
        *,
        return_std: bool,
        stacklevel: int = 1,
    ) -> Rows:
        """Read rows for `predict`: what the prediction does not use may be missing.

        These are the labels of factors that are not wanted, and the columns that only their random
        effects have, which are zero then. A standard deviation uses all columns. Labels that are
        wanted may be missing too; such rows have an unknown level.

        Returns
        -------
        rows : Rows
            With the labels of the wanted factors, in the order of the model.

        Raises
        ------
        ValueError
            As `MixedLinearRegressor.predict`.
        """
        X = as_frame(X)
        unknown: dict[str, Any] | None = {} if self._estimator.handle_unknown == "average" else None
        columns, labels = self._read(
            X, groups, wanted, all_columns=return_std, may_miss=True, unknown=unknown
        )
        for expression, label in (unknown or {}).items():
            warnings.warn(
                f"fit did not see all categories of {expression!r}, {shown(label)} for example: "
                "rows of unknown ones are predicted at the average of the categories of fit.",
                PopulationPredictionWarning,
                stacklevel=stacklevel + 1,
            )
        return Rows(columns, tuple(labels))

    def _read(
        self,
        X: Any,
        groups: Any,
        wanted: Sequence[str],
        *,
        all_columns: bool,
        may_miss: bool,
        unknown: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.floating], list[Labels]]:
        """The numeric columns and the labels; see `rows_to_predict`.

        Without ``may_miss`` X has all columns that `fit` had. ``unknown`` is for categories of a
        formula that `fit` did not see; see `Coding.columns`.
        """
        estimator, specification = self._estimator, self.specification
        needed = set(range(len(specification.columns)) if all_columns else specification.fixed)
        for factor in specification.factors:
            if factor.name in wanted:
                needed.update(factor.slopes)
        places = sorted(needed)
        if self.formula is not None:
            frame = formula_frame(X, groups)
            names = [self.formula.names[place] for place in places]
            made = self.formula.rows(frame, names, wanted, unknown=unknown)
            labels = self.formula.labels(frame, wanted, may_miss=may_miss)
            return numeric_columns(estimator, made, specification), labels
        used = [specification.columns[place] for place in places]
        for factor in specification.factors:
            if factor.name in wanted:
                used.extend(factor.columns)
        names = [specification.names[column] for column in used]
        is_part = may_miss and lacks_only_others(estimator, X, names)
        frame = X if is_part else self._checked(X, groups)
        labels = self._labels(frame, groups, wanted, may_miss=may_miss)
        if is_part or len(places) < len(specification.columns):
            return some_numeric_columns(estimator, frame, specification, places), labels
        return numeric_columns(estimator, frame, specification), labels

    def _checked(self, X: Any, groups: Any) -> Any:
        """X, with the columns that `fit` had."""
        estimator = self._estimator
        has_groups = groups is not None or estimator.n_features_in_ == 0
        return check_frame(estimator, X, has_groups=has_groups, reset=False)

    def _labels(
        self,
        X: Any,
        groups: Any,
        wanted: Sequence[str],
        *,
        may_miss: bool,
    ) -> list[Labels]:
        """The labels of some factors, by the parameters of the constructor."""
        specification = self.specification
        names = specification.factor_names
        of_columns = [factor for factor in specification.factors if factor.columns]
        if groups is None:
            of_columns = [factor for factor in of_columns if factor.name in wanted]
        group_columns = [factor.columns for factor in of_columns]
        labels = find_labels(
            X, groups, specification.names, group_columns, names or None, may_miss=may_miss
        )
        return [own for own in labels if own.name in wanted]

    def response(self, X: Any, y: Any, weights: FloatArray | None = None) -> FloatArray:
        """The response of rows on the scale of the model, shape (n,).

        The left-hand side of a formula is computed from y, and from X where it has more columns;
        it is zero for rows of weight zero, which are absent.

        Raises
        ------
        ValueError
            If responses are not finite numbers, one for each row.
        """
        X, formula = as_frame(X), self.formula
        if formula is None or formula.response is None:
            return check_response(self._estimator, X, y)
        frame = formula_frame(X, None)
        return transformed_response(self._estimator, formula.response, frame, y, weights)

    def offset(self, X: Any, offset: Any, weights: FloatArray | None = None) -> FloatArray | None:
        """What is known of the response of rows, shape (n,); None if the model has no offset.

        Raises
        ------
        ValueError
            If `fit` got an offset and these rows have none, or the other way around; if it is not
            a finite number for each row; or if a column of the formula's offset is missing.
        """
        if self.needs_offset != (offset is not None):
            raise ValueError(_NO_OFFSET if offset is None else _NO_OFFSET_OF_FIT)
        if not self.has_offset:
            return None
        X = as_frame(X) if self.formula is None else formula_frame(X, None)
        return find_offset(offset, self.formula, X, weights)

    @property
    def needs_offset(self) -> bool:
        """Whether rows need an offset beside X, as those of `fit` had."""
        return self._fitted.needs_offset

    @property
    def has_offset(self) -> bool:
        """Whether the model has an offset, of its formula or beside X."""
        return self.needs_offset or bool(self.formula and self.formula.offsets)

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
