"""Dask collections as partitions, and what workers make of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import add
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
from dask import delayed
from distributed import Client
from numpy.typing import NDArray

from mixedlearn.data.sums import Sums
from mixedlearn.estimator import MixedLinearRegressor
from mixedlearn.estimator.partitions import (
    FirstLook,
    PartialSums,
    Partition,
    check_columns,
    first_look,
    join,
    learn_reader,
    scale_of,
    sum_partition,
    triangles_of,
    with_categories,
)
from mixedlearn.estimator.rows import RowReader
from mixedlearn.formula import parse, response_columns
from mixedlearn.model.fitted import FittedModel

FloatArray = NDArray[np.float64]

# So many sums are added up by a task: few of them are in memory at once, and few tasks are needed.
ADDED_AT_ONCE = 4


@dataclass(frozen=True)
class RowsOnWorkers:
    """The rows of a fit, where they are; `with_more_digits` looks at them again.

    Attributes
    ----------
    client : Client
    partitions : list of Partition
        Delayed.
    reader : RowReader
    scale : Delayed
        See `scale_of`.
    found : PartialSums
        Of all rows.
    """

    client: Client
    partitions: list[Partition]
    reader: RowReader
    scale: Any
    found: PartialSums

    @property
    def weight_range(self) -> tuple[float, float]:
        """The least and the largest weight."""
        return self.found.weights

    def sums(self, model: FittedModel, taken: FloatArray) -> Sums:
        """The sums for the response less what was taken."""
        return _total(self.client, self.partitions, self.reader, self.scale, taken).sums

    def with_triangles(self, sums: Sums, model: FittedModel) -> Sums:
        """The sums with the triangles that the engine of a model can use."""
        reader, known, fitted = (delayed(own, traverse=False) for own in (self.reader, sums, model))
        parts = [
            delayed(triangles_of)(reader, number, own, known, fitted)
            for number, own in enumerate(self.partitions)
        ]
        return self.client.compute(in_tree(Sums.joining_triangles, parts)).result()


def read_rows(client: Client, estimator: MixedLinearRegressor, given: Partition) -> RowsOnWorkers:
    """Read all partitions of the arguments of `fit`.

    Parameters
    ----------
    client : Client
    estimator : MixedLinearRegressor
        Not fitted; it gets the names of the columns.
    given : Partition
        Dask collections.
    """
    X = given.X
    if given.y is None:
        raise ValueError("DaskMixedLinearRegressor requires y to be passed, but y is None.")
    check_partitions(given)
    columns = one_row(X) if isinstance(X, dd.DataFrame) else X
    used = check_columns(estimator, columns, given.groups)
    if estimator.formula is not None:
        given = given._replace(X=X[used])
    partitions = partitions_of(given)
    number, look = _first_look(client, estimator, partitions)
    rows = look.rows
    if look.has_categories:
        rows = _rows_of_categories(client, estimator, partitions).rows
    columns = rows.X if isinstance(X, da.Array) else columns
    reader, notes = learn_reader(estimator, rows, columns, needs_offset=given.offset is not None)
    scale = delayed(scale_of)(delayed(reader, traverse=False), number, partitions[number])
    found = _total(client, partitions, reader, scale)
    found = PartialSums(found.sums, found.weights, {**found.notes, **notes})
    return RowsOnWorkers(client, partitions, reader, scale, found)


def one_row(X: Any) -> pd.DataFrame:
    """A made-up row with the columns of a frame, for checks that look at columns alone."""
    return pd.DataFrame([np.zeros(len(X.columns))], columns=X.columns)


def response_of_formula(formula: str | None, X: Any) -> list[str]:
    """The columns of X in the left-hand side of a formula; none if there is no such side."""
    if formula is None or not isinstance(X, dd.DataFrame):
        return []
    left = parse(formula).response
    return response_columns(left, list(X.columns)) if left else []


def check_partitions(given: Partition) -> None:
    """Refuse arguments that are not split alike.

    Raises
    ------
    TypeError
        If an argument is no Dask collection, nor a number for all rows.
    ValueError
        If collections have not the same number of partitions.
    """
    n_partitions = _n_partitions("X", given.X)
    for name, own in given._asdict().items():
        n_own = _n_partitions(name, own)
        if n_own is not None and n_own != n_partitions:
            raise ValueError(
                f"{name} has {n_own} partitions, but X has {n_partitions}: give all arguments "
                "the same, whose rows belong together. repartition(...) and rechunk(...) do that."
            )


def _n_partitions(name: str, values: Any) -> int | None:
    """Of a collection; None for a number, or nothing, that holds for all rows."""
    if isinstance(values, da.Array) and values.ndim > 0:
        return values.numblocks[0]
    if isinstance(values, (dd.DataFrame, dd.Series)):
        return values.npartitions
    if values is None and name != "X":
        return None
    if isinstance(values, str):
        raise TypeError(
            f"{name} is the name {values!r}: fit takes names as y, and as sample_weight and offset "
            f"if y is one or None. Pass the column itself, frame[{values!r}]."
        )
    if name in ("sample_weight", "offset") and np.ndim(values) == 0:
        return None
    raise TypeError(
        f"{name} must be a Dask DataFrame, Series or Array, got {type(values).__name__}: "
        "MixedLinearRegressor takes rows in memory, and to_local() makes one of a fit."
    )


def partitions_of(given: Partition) -> list[Partition]:
    """The partitions of collections, delayed; see `check_partitions` for what is refused."""
    check_partitions(given)
    blocks = [_blocks(own) for own in given]
    return [
        Partition(
            *(own if parts is None else parts[k] for own, parts in zip(given, blocks, strict=True))
        )
        for k in range(len(blocks[0] or ()))
    ]


def _blocks(values: Any) -> list[Any] | None:
    """The partitions of a collection; None for what holds for all rows."""
    if isinstance(values, da.Array) and values.ndim > 0:
        whole = values.rechunk({1: -1}) if values.ndim > 1 else values
        return list(whole.to_delayed().ravel())
    if isinstance(values, (dd.DataFrame, dd.Series)):
        return _as_the_user_sees(values).to_delayed(optimize_graph=False)
    return None


def _as_the_user_sees(values: Any) -> Any:
    """A frame that reads the columns it needs alone, with all its partitions.

    Dask's ``optimize`` joins partitions of Parquet of which few columns are read, so that those of
    X and y would no longer belong together.
    """
    return type(values)(values.expr.simplify().lower_completely().fuse())


def in_tree(combine: Callable[[Any, Any], Any], parts: Sequence[Any]) -> Any:
    """The parts, delayed, added up on the workers, few at a time and in their order."""
    while len(parts) > 1:
        parts = [
            delayed(join)(combine, parts[first : first + ADDED_AT_ONCE])
            for first in range(0, len(parts), ADDED_AT_ONCE)
        ]
    return parts[0]


def _first_look(
    client: Client, estimator: MixedLinearRegressor, partitions: list[Partition]
) -> tuple[int, FirstLook]:
    """The first partition that has rows, and what it says of their reading."""
    for number, own in enumerate(partitions):
        look = client.compute(delayed(first_look)(estimator, number, own)).result()
        if look is not None:
            return number, look
    raise ValueError("No partition has a row of positive weight: there is nothing to fit.")


def _rows_of_categories(
    client: Client, estimator: MixedLinearRegressor, partitions: list[Partition]
) -> FirstLook:
    """Rows that have all categories of the formula."""
    looks = [delayed(first_look)(estimator, number, own) for number, own in enumerate(partitions)]
    return client.compute(in_tree(partial(_joined_looks, estimator), looks)).result()


def _joined_looks(estimator: MixedLinearRegressor, one: FirstLook, other: FirstLook) -> FirstLook:
    return with_categories(estimator, one.rows.joined(other.rows))


def _total(
    client: Client,
    partitions: list[Partition],
    reader: RowReader,
    scale: Any,
    taken: FloatArray | None = None,
) -> PartialSums:
    """The sums of all partitions, added up on the workers."""
    sent = delayed(reader, traverse=False)
    parts = [
        delayed(sum_partition)(sent, number, own, scale, taken)
        for number, own in enumerate(partitions)
    ]
    return client.compute(in_tree(add, parts)).result()
