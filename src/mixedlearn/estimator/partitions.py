"""Rows in partitions, which other processes read: what each does, and what is sent between them.

A first look learns how rows are read. For a formula with categories that takes rows of all
partitions in which some category comes first: so many as there are categories. Then every partition
becomes sums, which are added up. Nothing here knows who runs these functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import union_categoricals
from sklearn.base import clone
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import validate_data

from mixedlearn.data.rows import range_of_both
from mixedlearn.data.sums import Sums
from mixedlearn.engines.plan import check_search_memory
from mixedlearn.estimator.reading import check_beside_formula, read_fit
from mixedlearn.estimator.rows import RowReader, in_part
from mixedlearn.estimator.validation import (
    check_weights,
    column_names,
    formula_frame,
    notes_of_columns,
)
from mixedlearn.formula import (
    category_rows,
    columns_used,
    parse,
    refuse_learning,
    response_columns,
    terms_of,
)
from mixedlearn.model.digits import RowsAtHand
from mixedlearn.model.fitted import FittedModel
from mixedlearn.threads import one_thread

FloatArray = NDArray[np.float64]


class Partition(NamedTuple):
    """The arguments of `fit`, of some rows; a number stands for one for each row."""

    X: Any
    y: Any
    groups: Any = None
    sample_weight: Any = None
    offset: Any = None

    def joined(self, other: Partition) -> Partition:
        """The rows of both, in arrays or columns of pandas."""
        return Partition(*(_joined(*own) for own in zip(self, other, strict=True)))

    def present(self) -> Partition:
        """The rows of positive weight."""
        weights = check_weights(self.sample_weight, self.X, may_vanish=True)
        if weights is None or weights.all():
            return self
        return self.rows(np.flatnonzero(weights))

    def rows(self, chosen: Any) -> Partition:
        """Some of the rows."""
        return Partition(
            *(
                own if np.ndim(own) == 0 else _safe_indexing(own, list(chosen), axis=0)
                for own in self
            )
        )


@dataclass(frozen=True, slots=True)
class FirstLook:
    """Rows of a partition from which the reading of all may be learnt.

    Attributes
    ----------
    rows : Partition
        Of positive weight.
    has_categories : bool
        Whether the formula has categories, of which other partitions may have more.
    """

    rows: Partition
    has_categories: bool


@dataclass(frozen=True, slots=True)
class PartialSums:
    """The sums of the rows of some partitions.

    Attributes
    ----------
    sums : Sums
    weights : tuple of float
        The least and the largest weight.
    notes : dict of str to str
        What users should know of how columns are read, by column.
    """

    sums: Sums
    weights: tuple[float, float]
    notes: dict[str, str]

    def __add__(self, other: PartialSums) -> PartialSums:
        weights = range_of_both(self.weights, other.weights)
        return PartialSums(self.sums + other.sums, weights, {**other.notes, **self.notes})


def check_columns(estimator: Any, X: Any, groups: Any) -> list[str]:
    """Refuse what the columns alone show to be wrong, and say which of them a formula uses.

    Parameters
    ----------
    estimator : MixedLinearRegressor
    X : DataFrame or ndarray
        With the columns of all partitions; its rows are not looked at.
    groups : object
        Whether groups come is all that counts.

    Returns
    -------
    used : list of str
        The columns of X that are looked at, in their order.
    """
    if estimator.formula is None:
        return column_names(X)
    check_beside_formula(estimator)
    names = list(formula_frame(X, groups).columns)
    refuse_learning(terms_of(estimator.formula, names), names)
    left = parse(estimator.formula).response
    used = set(columns_used(estimator.formula, X))
    used.update(response_columns(left, names) if left else ())
    return [name for name in names if name in used]


def first_look(estimator: Any, number: int, partition: Partition) -> FirstLook | None:
    """Rows of a partition from which the reading is learnt; None if none counts.

    All rows are checked, so that errors count those of the partition.
    """
    X, y, _, sample_weight, _ = partition
    with in_part("partition", number):
        weights = check_weights(sample_weight, X, may_vanish=True)
        if not len(X) or not (weights is None or weights.any()):
            return None
        read = read_fit(clone(estimator), *partition, is_batch=True)
        present = np.arange(len(y)) if weights is None else np.flatnonzero(weights)
        has_categories = read.formula is not None and any(
            any(coding.spans_intercept.values()) for coding in read.formula.codings
        )
        if not has_categories:
            return FirstLook(partition.rows(present[:1]), has_categories)
        return with_categories(estimator, partition.rows(present))


def with_categories(estimator: Any, rows: Partition) -> FirstLook:
    """Those rows that have all categories of the formula."""
    frame = formula_frame(rows.X, None)
    return FirstLook(rows.rows(category_rows(estimator.formula, frame)), has_categories=True)


def learn_reader(
    estimator: Any, rows: Partition, X: Any, *, needs_offset: bool
) -> tuple[RowReader, dict[str, str]]:
    """What reads the rows of any partition, and what users should know of the formula.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Not fitted; it gets the names of the columns.
    rows : Partition
        See `first_look`.
    X : DataFrame or ndarray
        With all columns.
    needs_offset : bool
        Whether an offset comes beside X.
    """
    read = read_fit(estimator, *rows)
    validate_data(estimator, X, skip_check_array=True, reset=True)
    check_search_memory(read.specification)
    reader = RowReader(estimator, read.specification, read.formula, needs_offset=needs_offset)
    return reader, {} if read.formula is None else read.notes


def scale_of(reader: RowReader, number: int, partition: Partition) -> Sums:
    """Sums of a partition without levels: what they took from the columns, others take as well."""
    with in_part("partition", number), one_thread:
        return Sums.of(replace(reader.batch(*partition), labels=()), ())


def sum_partition(
    reader: RowReader,
    number: int,
    partition: Partition,
    scale: Sums,
    taken: FloatArray | None = None,
) -> PartialSums | None:
    """The sums of a partition; None if no row of it counts.

    ``taken`` is what is taken from the response; see `Sums.of`.
    """
    if not len(partition.X):
        return None
    with in_part("partition", number), one_thread:
        rows = reader.batch(*partition)
        if not len(rows.X):
            return None
        sums = Sums.of(rows, reader.specification.slopes, shift=scale.shift_for(rows), taken=taken)
        formula, specification = reader.formula, reader.specification
        notes = notes_of_columns(partition.X, specification) if formula is None else {}
        return PartialSums(sums, rows.weight_range, notes)


def triangles_of(
    reader: RowReader, number: int, partition: Partition, sums: Sums, model: FittedModel
) -> Sums | None:
    """The sums of all partitions with the triangles of one; None if no row of it counts."""
    if not len(partition.X):
        return None
    with in_part("partition", number), one_thread:
        rows = reader.batch(*partition)
        return RowsAtHand(rows).with_triangles(sums, model) if len(rows.X) else None


def _joined(one: Any, other: Any) -> Any:
    """The rows of both; categories that differ are those of either, in the order of declaration."""
    if np.ndim(one) == 0:
        return one
    if isinstance(one, np.ndarray):
        return np.concatenate([one, other])
    if isinstance(one, pd.DataFrame):
        return pd.DataFrame({name: _joined(one[name], other[name]) for name in one.columns})
    both = [one, other]
    if all(isinstance(own.dtype, pd.CategoricalDtype) for own in both):
        every = union_categoricals([one, other], ignore_order=True).categories
        both = [own.cat.set_categories(every, ordered=False) for own in both]
    return pd.concat(both, ignore_index=True)


def join(add: Callable[[Any, Any], Any], parts: Sequence[Any]) -> Any:
    """All parts that are not None, added up; None if there is none."""
    found = [own for own in parts if own is not None]
    with one_thread:
        return reduce(add, found) if found else None
