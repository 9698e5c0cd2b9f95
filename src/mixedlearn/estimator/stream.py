"""Rows that come batch by batch: what `partial_fit` keeps between its calls.

A batch is read as the first one was, and added to the sums of those before. Nothing is solved until
an attribute or a method of the fit is asked for: see `FittedState`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mixedlearn.data.frames import as_frame
from mixedlearn.data.running import RunningSums
from mixedlearn.engines.plan import check_search_memory
from mixedlearn.engines.recipe import Recipe
from mixedlearn.estimator.reading import (
    FitInput,
    check_beside_formula,
    read_fit,
    specification_by_parameters,
)
from mixedlearn.estimator.rows import RowReader
from mixedlearn.estimator.validation import formula_frame, notes_of_columns
from mixedlearn.estimator.view import Fitted
from mixedlearn.formula import CompiledFormula, refuse_learning, refuse_single_categories
from mixedlearn.model.digits import RowsAtHand, with_more_digits, without_rows
from mixedlearn.model.fit import fit_sums
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.known import Known
from mixedlearn.specification import (
    INTERCEPT,
    Factor,
    Specification,
    find_group_columns,
)

# What an estimator knows of its columns: by validation, and those that are named beside X.
COLUMN_ATTRIBUTES = ("n_features_in_", "feature_names_in_", "_beside_X")
_NO_RESIDUAL = (
    "partial_fit takes rows batch by batch, and a residual structure (residual=...) needs all of "
    "them at once, since their noise is correlated: call fit, or begin anew with residual=None."
)


@dataclass(frozen=True)
class Stream:
    """The rows so far, as sums, and how further ones are read.

    Another batch makes another object, so that whoever holds this one sees no change. It can be
    pickled.

    Attributes
    ----------
    first : MixedLinearRegressor
        Not fitted: the parameters of the first call, and the names of the columns.
    reader : RowReader
    running : RunningSums
    notes : dict of str to str
        What users should know of how the rows were read, of a column by its name.
    n_batches : int
        Calls so far.
    """

    first: Any
    reader: RowReader
    running: RunningSums
    notes: dict[str, str]
    n_batches: int

    @property
    def formula(self) -> CompiledFormula | None:
        """What makes the columns of rows, if the model is given by a formula."""
        return self.reader.formula

    @property
    def column_attributes(self) -> dict[str, Any]:
        """What an estimator has as the names and the number of its columns."""
        return column_attributes(self.first)

    def with_batch(self, X: Any, y: Any, groups: Any, sample_weight: Any, offset: Any) -> Stream:
        """The same with further rows; raises as `partial_fit`."""
        X = self.reader.features(X)
        rows = self.reader.batch(X, y, groups, sample_weight, offset)
        found = {} if self.formula else notes_of_columns(X, self.reader.specification)
        return replace(
            self,
            running=self.running.with_rows(rows),
            notes={**found, **self.notes},
            n_batches=self.n_batches + 1,
        )

    def solve(self, recipe: Recipe) -> FittedModel:
        """The model of all rows so far, as `fit` has it.

        Parameters
        ----------
        recipe : Recipe
            Its specification has the columns and the factors of the first rows.
        """
        sums, rows = self.running.total(), self.running.rows
        model = fit_sums(sums, recipe)
        if rows is not None:
            return with_more_digits(model, RowsAtHand(rows))
        return without_rows(model, self.running.weights)

    def solved(self, model: FittedModel) -> tuple[Fitted, Stream]:
        """What an estimator holds of a solution, and the stream that shares its sums."""
        fitted = Fitted(
            Known(model),
            self.formula,
            needs_offset=self.reader.needs_offset,
            weights=self.running.weights,
        )
        if self.running.sums is None:
            # All rows wait, and are looked at again after further ones.
            return fitted, self
        summed = RunningSums(self.running.slopes, model.sums, self.running.weights)
        return fitted, replace(self, running=summed)


def column_attributes(estimator: Any) -> dict[str, Any]:
    """What an estimator knows of its columns."""
    own = vars(estimator)
    return {name: own[name] for name in COLUMN_ATTRIBUTES if name in own}


def begin(estimator: Any, X: Any, y: Any, groups: Any, sample_weight: Any, offset: Any) -> Stream:
    """The stream of a first batch, which fixes the columns; raises as `partial_fit`."""
    if estimator.residual is not None:
        raise ValueError(_NO_RESIDUAL)
    read, reader, first = begin_reading(estimator, X, y, groups, sample_weight, offset)
    running = RunningSums(read.specification.slopes).with_rows(read.rows)
    return Stream(first, reader, running, read.notes, 1)


def begin_reading(
    estimator: Any, X: Any, y: Any, groups: Any, sample_weight: Any, offset: Any
) -> tuple[FitInput, RowReader, Any]:
    """Read a first batch, which says how further ones are read.

    Returns
    -------
    read : FitInput
    reader : RowReader
        Of further batches.
    first : MixedLinearRegressor
        Not fitted: the parameters, and the names of the columns.
    """
    first = _unfitted(estimator)
    read = read_fit(first, X, y, groups, sample_weight, offset, is_batch=True)
    if read.formula is not None:
        refuse_single_categories(read.formula.codings, formula_frame(as_frame(X), groups))
    check_search_memory(read.specification)
    reader = RowReader(first, read.specification, read.formula, needs_offset=offset is not None)
    return read, reader, first


def after_fit(estimator: Any, fitted: Fitted) -> Stream:
    """The stream that goes on from the rows of a fit.

    Raises
    ------
    ValueError
        If the sums of the fit do not do for that.
    """
    model = fitted.whole().fit
    if estimator.residual is not None or model.noise is not None:
        raise ValueError(_NO_RESIDUAL)
    formula = fitted.formula
    if formula is not None:
        names = getattr(estimator, "feature_names_in_", ())
        refuse_learning(formula.terms_of_fit(), names)
    first = _unfitted(estimator)
    first.__dict__.update(column_attributes(estimator))
    specification = model.specification
    reader = RowReader(first, specification, formula, needs_offset=fitted.needs_offset)
    running = RunningSums(specification.slopes, model.sums, fitted.weights)
    stream = Stream(first, reader, running, {}, 0)
    specification_of(estimator, stream)
    return stream


def specification_of(estimator: Any, stream: Stream) -> Specification:
    """The model by the parameters as they are now, for the sums of a stream.

    Raises
    ------
    ValueError
        If a parameter has changed and the sums do not have what it needs.
    """
    if estimator.residual is not None:
        raise ValueError(_NO_RESIDUAL)
    known, formula = stream.reader.specification, stream.formula
    if estimator.formula != (None if formula is None else formula.given):
        raise _changed("formula")
    if formula is not None:
        check_beside_formula(estimator)
        return formula.specification(reml=estimator.reml)
    group_columns = find_group_columns(estimator.groups, known.names)
    if group_columns != tuple(own.columns for own in known.factors if own.columns):
        raise _changed("groups")
    found = specification_by_parameters(
        estimator, known.names, [(own.name, own.columns) for own in known.factors]
    )
    if list(map(_slopes, found.factors)) != list(map(_slopes, known.factors)):
        raise _changed("random_slopes")
    if found.columns != known.columns:
        raise _changed("fixed_effects")
    return found


def has_parameters_of(estimator: Any, first: Any) -> bool:
    """Whether an estimator has the very same parameters as another that was not fitted."""
    own, known = vars(estimator), vars(first)
    return all(own.get(name) is known[name] for name in known if name not in COLUMN_ATTRIBUTES)


def _unfitted(estimator: Any) -> Any:
    return type(estimator)(**estimator.get_params(deep=False))


def _slopes(factor: Factor) -> list[str]:
    return [name for name in factor.effects if name != INTERCEPT]


def _changed(parameter: str) -> ValueError:
    return ValueError(
        f"{parameter} has changed since the first call of partial_fit or fit, and the sums of the "
        "rows so far do not have what it needs: call fit with all rows, or set it back."
    )
