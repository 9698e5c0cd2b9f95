"""Predictions as Dask collections, which are computed later."""

from __future__ import annotations

from functools import partial
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
from dask import delayed
from dask.dataframe.dask_expr._expr import are_co_aligned

from mixedlearn.dask.predictions import predict_in_frame, predict_partition
from mixedlearn.dask.rows import check_partitions, one_row, partitions_of
from mixedlearn.estimator import MixedLinearRegressor
from mixedlearn.estimator.partitions import Partition
from mixedlearn.estimator.regressor import wanted_factors
from mixedlearn.estimator.view import FittedView

PREDICTION, STD = "prediction", "prediction_std"


def predictions(
    model: MixedLinearRegressor, given: Partition, random_effects: Any, *, return_std: bool
) -> Any:
    """Predictions, and standard deviations if asked for: Series beside a DataFrame, else Arrays.

    Parameters
    ----------
    model : MixedLinearRegressor
        Fitted.
    given : Partition
        Dask collections.
    random_effects : str or list
        As for `MixedLinearRegressor.predict`.
    return_std : bool
    """
    check_partitions(given)
    if isinstance(given.X, dd.DataFrame):
        view = FittedView(model)
        wanted = wanted_factors(random_effects, view.specification.factor_names)
        view.check_columns(one_row(given.X), given.groups, wanted, return_std=return_std)
    names = [PREDICTION, STD] if return_std else [PREDICTION]
    sent = delayed(model if return_std else model.for_serving(), traverse=False)
    options = {"random_effects": random_effects, "names": names}
    columns = _columns(sent, given, options)
    keys = names if isinstance(given.X, dd.DataFrame) else [(slice(None), k) for k in range(2)]
    return tuple(columns[key] for key in keys) if return_std else columns[keys[0]]


def _columns(sent: Any, given: Partition, options: dict[str, Any]) -> Any:
    """A collection with a column for each name."""
    X, names = given.X, options["names"]
    meta = pd.DataFrame(columns=names, dtype=np.float64)
    if _is_of_one_frame(given):
        # Made from X, so that Dask knows that the rows are those of X and of its own frame.
        return X.map_partitions(
            partial(predict_in_frame, **options),
            given.groups,
            given.offset,
            sent,
            meta=meta,
            enforce_metadata=False,
            align_dataframes=False,
        )
    parts = [
        delayed(predict_partition)(sent, number, own, **options)
        for number, own in enumerate(partitions_of(given))
    ]
    if isinstance(X, dd.DataFrame):
        divisions = X.divisions if X.known_divisions else None
        return dd.from_delayed(parts, meta=meta, divisions=divisions)
    blocks = [
        da.from_delayed(own, shape=(n_rows, len(names)), dtype=np.float64)
        for own, n_rows in zip(parts, X.chunks[0], strict=True)
    ]
    return da.concatenate(blocks, allow_unknown_chunksizes=True)


def _is_of_one_frame(given: Partition) -> bool:
    """Whether all collections are made of one frame, row by row.

    Others must not meet in one expression: Dask may join partitions of one and not of the other.
    """
    collections = [own for own in given if np.ndim(own) > 0]
    return all(isinstance(own, (dd.DataFrame, dd.Series)) for own in collections) and (
        are_co_aligned(*(own.expr for own in collections))
    )
