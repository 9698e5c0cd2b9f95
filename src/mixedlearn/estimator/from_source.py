"""`fit` to rows that are not in memory: they are read batch by batch, and summed up.

The first batch says how all are read, as that of `partial_fit` does. A source that can be read
again is looked at before for the categories of a formula, and after where squares lose digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone

from mixedlearn.data.frames import as_frame, is_frame, pandas_column
from mixedlearn.data.growing import GrowingSums, sums_of_batches
from mixedlearn.data.rows import Rows
from mixedlearn.data.sources import Source, as_source, is_lazy
from mixedlearn.data.sums import Sums
from mixedlearn.engines.problem import with_triangles
from mixedlearn.estimator.callbacks import FitTask
from mixedlearn.estimator.columns_by_name import NamedColumns, columns_of_frame, names_given
from mixedlearn.estimator.noise import has_noise
from mixedlearn.estimator.partitions import Partition, learn_reader
from mixedlearn.estimator.reading import (
    check_beside_formula,
    read_fit,
    specification_by_parameters,
)
from mixedlearn.estimator.recipes import recipe_of
from mixedlearn.estimator.rows import RowReader, in_part
from mixedlearn.estimator.stream import begin_reading
from mixedlearn.estimator.validation import check_weights, notes_of_columns
from mixedlearn.estimator.warm import warm_theta
from mixedlearn.formula import (
    as_pandas,
    category_rows,
    columns_used,
    parse,
    refuse_learning,
    response_columns,
    terms_of,
)
from mixedlearn.model.digits import with_more_digits, without_rows
from mixedlearn.model.fit import fit_sums
from mixedlearn.model.fitted import FittedModel
from mixedlearn.specification import factor_name, find_group_columns

_NO_RESIDUAL = (
    "The rows of X are read batch by batch, and a residual structure (residual=...) needs all of "
    "them at once, since their noise is correlated: pass rows that are in memory, or set "
    "residual=None."
)
_NO_GROUPS = (
    "The rows of X are read batch by batch, and groups were passed beside them: name their columns "
    "in the constructor, MixedLinearRegressor(groups='column')."
)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a source a model reads.

    Attributes
    ----------
    named : NamedColumns
        Those of the response, the weights and the offset.
    X : tuple of str
        The columns of X.
    read : tuple of str
        Those of X that the model looks at; all others are zeros to it.
    """

    named: NamedColumns
    X: tuple[str, ...]
    read: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """All that is read, each once."""
        return tuple(dict.fromkeys((*self.read, *self.named.all)))

    def features(self, frame: Any) -> Any:
        """X of the rows of a frame."""
        if self.read == self.X:
            return frame[list(self.X)]
        # Numbers without memory stand for columns that nobody looks at.
        unread = np.broadcast_to(0.0, len(frame))
        known = set(self.read)
        return pd.DataFrame(
            {name: pandas_column(frame[name]) if name in known else unread for name in self.X},
            copy=False,
        )


def find_source(X: Any, y: Any) -> Source | None:
    """The source that X is; None if its rows are in memory, or have to be."""
    if is_lazy(X) and not (y is None or isinstance(y, str)):
        # The response is there as a whole.
        return None
    return as_source(X)


def find_columns(
    estimator: Any, names: tuple[str, ...], y: Any, sample_weight: Any, offset: Any
) -> Columns:
    """Find the columns that a model needs among those of a source.

    Raises
    ------
    ValueError
        If one is missing, or there is no response.
    """
    if estimator.formula is None:
        named = NamedColumns.of(names, "", y, sample_weight, offset)
        X = tuple(name for name in names if name not in named.beside_X)
        group_columns = find_group_columns(estimator.groups, X)
        specification = specification_by_parameters(
            estimator, X, [(factor_name(columns, X), columns) for columns in group_columns]
        )
        read = {*specification.columns, *(column for own in group_columns for column in own)}
        return Columns(named, X, tuple(X[column] for column in sorted(read)))
    left = parse(estimator.formula).response
    named = NamedColumns.of(names, left, y, sample_weight, offset)
    others = [name for name in names if name not in named.beside_X]
    used = set(columns_used(estimator.formula, pd.DataFrame(columns=others), left))
    if left and named.y is not None:
        used.update(response_columns(left, names))
    X = tuple(name for name in others if name in used)
    return Columns(named, X, X)


def columns_of_model(
    estimator: Any, X: Any, y: Any, sample_weight: Any, offset: Any
) -> tuple[Any, Any, Any, Any]:
    """X, response, weights and offset of rows in memory, of which columns of X may be names.

    As `columns_of_frame`; without y the left-hand side of the formula says which columns it has.

    Raises
    ------
    ValueError
        If a column is missing, or X has no names.
    """
    frame = as_frame(X)
    has_response = estimator.formula is not None and bool(parse(estimator.formula).response)
    if y is not None or not has_response or not is_frame(frame):
        return columns_of_frame(X, y, sample_weight, offset)
    named = names_given(None, sample_weight, offset)
    columns = find_columns(
        estimator, tuple(frame.columns), None, named.get("sample_weight"), named.get("offset")
    )
    y, weights, known = columns.named.values(frame)
    return (
        columns.features(frame),
        y,
        sample_weight if weights is None else weights,
        offset if known is None else known,
    )


class SourceReader:
    """Reads the rows of a source for an estimator.

    Attributes
    ----------
    first : MixedLinearRegressor
        Not fitted; it has the names of the columns once the first batch is read.
    rows : RowReader
        Of all batches, once the first is read.
    notes : dict of str to str
        What users should know of how the rows were read, of a column by its name.
    """

    def __init__(self, estimator: Any, source: Source, columns: Columns):
        self._estimator = estimator
        self._source = source
        self._columns = columns
        self.first: Any = None
        self.rows: RowReader | None = None
        self.notes: dict[str, str] = {}

    def batches(self) -> Iterator[tuple[int, Rows]]:
        """The rows of all batches that have some, of positive weight, and the batches' numbers.

        Raises
        ------
        ValueError, TypeError
            As `partial_fit`.
        """
        for number, frame in enumerate(self._source.frames(self._columns.all), 1):
            if not len(frame):
                continue
            with in_part("batch", number):
                rows = self._read(frame)
            if rows is not None:
                yield number, rows

    @property
    def begun(self) -> RowReader:
        """What reads the rows, once the first batch is read."""
        assert self.rows is not None
        return self.rows

    def again(self) -> Iterator[Rows]:
        """The rows once more."""
        return (rows for _, rows in self.batches())

    def _read(self, frame: Any) -> Rows | None:
        X = self._columns.features(frame)
        y, weights, offset = self._columns.named.values(frame)
        if self.rows is None:
            known = check_weights(weights, X, may_vanish=True)
            if known is not None and not known.any():
                # Nothing can be learnt from rows that are absent.
                return None
            read, self.rows, self.first = begin_reading(
                self._estimator, X, y, None, weights, offset
            )
            self.notes = read.notes
            return read.rows
        rows = self.rows.batch(X, y, None, weights, offset)
        if self.rows.formula is None:
            self.notes = {**notes_of_columns(X, self.rows.specification), **self.notes}
        return rows

    def look_for_categories(self) -> None:
        """Learn how rows are read from those in which a category of the formula comes first.

        They are found in a pass of its own; if the formula has no categories, the first batch does.
        """
        estimator = self._estimator
        if estimator.formula is None or not self._source.is_readable_again:
            return
        check_beside_formula(estimator)
        refuse_learning(terms_of(estimator.formula, self._columns.X), self._columns.X)
        found: Partition | None = None
        for number, batch in self._partitions():
            with in_part("batch", number):
                present = batch.present()
                rows = present.rows(category_rows(estimator.formula, present.X))
                if not len(rows.X):
                    return
                if found is not None:
                    both = found.joined(rows)
                    rows = both.rows(category_rows(estimator.formula, both.X))
                found = rows
        if found is None:
            return
        self.first, needs_offset = clone(estimator), found.offset is not None
        try:
            self.rows, self.notes = learn_reader(
                self.first, found, found.X, needs_offset=needs_offset
            )
        except (ValueError, TypeError):
            self._refuse_bad_batch()
            raise

    def _partitions(self) -> Iterator[tuple[int, Partition]]:
        """All batches with rows of positive weight as arguments of `fit`, and their numbers."""
        for number, frame in enumerate(self._source.frames(self._columns.all), 1):
            y, weights, offset = map(pandas_column, self._columns.named.values(frame))
            y = as_pandas(y, "y") if is_frame(y) else y
            X = as_pandas(self._columns.features(frame))
            if len(frame) and (weights is None or (weights != 0.0).any()):
                yield number, Partition(X, y, None, weights, offset)

    def _refuse_bad_batch(self) -> None:
        """Read all batches as first ones, so that an error says which batch and row is at fault."""
        for number, batch in self._partitions():
            with in_part("batch", number):
                read_fit(clone(self._estimator), *batch, is_batch=True)


@dataclass(frozen=True, slots=True)
class _RowsAgain:
    """The rows of a source as `with_more_digits` looks at them: a pass for each look."""

    reader: SourceReader
    weight_range: tuple[float, float]

    def sums(self, model: FittedModel, taken: NDArray[np.float64]) -> Sums:
        """The sums for the response less what was taken."""
        return sums_of_batches(self.reader.again(), model.specification.slopes, taken)

    def with_triangles(self, sums: Sums, model: FittedModel) -> Sums:
        """The sums with triangles of these rows."""
        chunks = (chunk for rows in self.reader.again() for chunk in sums.basis_chunks(rows))
        return with_triangles(sums, chunks, model.specification, model.problem())


@dataclass(frozen=True, slots=True)
class SourceFit:
    """A model of the rows of a source.

    Attributes
    ----------
    model : FittedModel
    reader : RowReader
        How the rows were read.
    first : MixedLinearRegressor
        Has the names of the columns.
    notes : dict of str to str
        What users should know of how the rows were read, of a column by its name.
    weights : tuple of float
        The least and the largest weight.
    """

    model: FittedModel
    reader: RowReader
    first: Any
    notes: dict[str, str]
    weights: tuple[float, float]


def fit_source(
    estimator: Any,
    source: Source,
    y: Any,
    groups: Any,
    sample_weight: Any,
    offset: Any,
    task: FitTask,
) -> SourceFit:
    """Fit the model to the rows of a source; the estimator stays as it is.

    Raises
    ------
    ValueError, TypeError
        As `MixedLinearRegressor.fit`.
    """
    if has_noise(estimator):
        raise ValueError(_NO_RESIDUAL)
    if groups is not None:
        raise ValueError(_NO_GROUPS)
    reader = SourceReader(
        estimator, source, find_columns(estimator, source.names, y, sample_weight, offset)
    )
    reader.look_for_categories()
    sums = _sum_up(reader, task.counted(reader.batches(), "read rows", "batch"))
    specification = reader.begun.specification
    start = warm_theta(estimator, specification)
    with task.searching():
        model = fit_sums(sums.total(), recipe_of(estimator, specification), start=start)
    if source.is_readable_again:
        model = with_more_digits(model, _RowsAgain(reader, sums.weight_range))
    else:
        model = without_rows(model, sums.weight_range)
    return SourceFit(model, reader.begun, reader.first, reader.notes, sums.weight_range)


def _sum_up(reader: SourceReader, batches: Iterator[tuple[int, Rows]]) -> GrowingSums:
    """Sum up all batches; one is added by another thread while the next is read."""
    sums: GrowingSums | None = None
    number = 0
    adding: Future[None] | None = None
    with ThreadPoolExecutor(1) as pool:
        try:
            for next_number, rows in batches:
                if sums is None:
                    sums = GrowingSums(reader.begun.specification.slopes)
                before, adding = adding, None
                _finish(before, number)
                number, adding = next_number, pool.submit(sums.add, rows)
        finally:
            # What is wrong with a batch is said before what is wrong with the next.
            _finish(adding, number)
    if sums is None:
        raise ValueError("X has no rows, or none of positive weight.")
    return sums


def _finish(adding: Future[None] | None, number: int) -> None:
    if adding is not None:
        with in_part("batch", number):
            adding.result()
