"""What a worker does with a partition and a fitted model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mixedlearn.estimator import MixedLinearRegressor
from mixedlearn.estimator.partitions import Partition
from mixedlearn.estimator.rows import in_part
from mixedlearn.estimator.validation import check_weights
from mixedlearn.estimator.view import FittedView


def predict_partition(
    model: MixedLinearRegressor,
    number: int,
    rows: Partition,
    *,
    random_effects: Any,
    names: list[str],
) -> Any:
    """A column of predictions, and one of standard deviations if there are two names.

    A DataFrame with the index of X if that is one, else an array of shape (n, len(names)).
    """
    X = rows.X
    columns = np.empty((0, len(names)))
    if len(X):
        options = {"random_effects": random_effects, "return_std": len(names) > 1}
        with in_part("partition", number):
            found = model.predict(X, groups=rows.groups, offset=rows.offset, **options)
        columns = np.atleast_2d(found).T
    return pd.DataFrame(columns, X.index, names) if isinstance(X, pd.DataFrame) else columns


def predict_in_frame(
    X: pd.DataFrame,
    groups: Any,
    offset: Any,
    model: MixedLinearRegressor,
    partition_info: dict[str, Any],
    **options: Any,
) -> pd.DataFrame:
    """The same, as Dask's ``map_partitions`` calls it."""
    rows = Partition(X, None, groups, None, offset)
    return predict_partition(model, partition_info["number"], rows, **options)


@dataclass(frozen=True, slots=True)
class Squares:
    """Weighted squares of responses about their mean, and of what predictions leave of them.

    Attributes
    ----------
    weight : float
    mean : float
    about_mean : float
    left : float
    """

    weight: float
    mean: float
    about_mean: float
    left: float

    def __add__(self, other: Squares) -> Squares:
        weight, apart = self.weight + other.weight, other.mean - self.mean
        return Squares(
            weight,
            self.mean + apart * other.weight / weight,
            self.about_mean + other.about_mean + apart**2 * self.weight * other.weight / weight,
            self.left + other.left,
        )

    @property
    def r2(self) -> float:
        """Coefficient of determination, as `sklearn.metrics.r2_score` has it."""
        if self.about_mean == 0.0:
            return float(self.left == 0.0)
        return 1.0 - self.left / self.about_mean


def score_partition(
    model: MixedLinearRegressor, number: int, rows: Partition, options: dict[str, Any]
) -> Squares | None:
    """The squares of a partition; None if no row of it counts."""
    X = rows.X
    if not len(X):
        return None
    with in_part("partition", number):
        given = check_weights(rows.sample_weight, X, may_vanish=True)
        weights = np.ones(len(X)) if given is None else given
        if not weights.any():
            return None
        mean = model.predict(X, groups=rows.groups, offset=rows.offset, **options)
        truth = FittedView(model).response(X, rows.y)
    center = float(np.average(truth, weights=weights))
    return Squares(
        float(weights.sum()),
        center,
        float(weights @ (truth - center) ** 2),
        float(weights @ (truth - mean) ** 2),
    )
