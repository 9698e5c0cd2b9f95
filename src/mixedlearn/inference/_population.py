"""Rows that stand for a population: means of covariates and frequencies of categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.data.numbers import numbers_of_objects
from mixedlearn.formula import as_pandas

FloatArray = NDArray[np.float64]


class Population:
    """The rows of which means and frequencies are taken.

    Parameters
    ----------
    view : FittedView
    X : array-like or DataFrame of shape (n, n_features)
    sample_weight : array-like of shape (n,) or None

    Raises
    ------
    ValueError
        If there is not a weight for each row, or no row has any.
    """

    def __init__(self, view: Any, X: Any, sample_weight: Any):
        if view.formula is None:
            names = view.specification.column_names
            self.frame = pd.DataFrame(view.rows(X).X, columns=list(names))
        else:
            self.frame = as_pandas(X).reset_index(drop=True)
        n_rows = len(self.frame)
        weights = np.ones(n_rows) if sample_weight is None else np.asarray(sample_weight, float)
        if weights.shape != (n_rows,) or not np.isfinite(weights).all() or (weights < 0).any():
            raise ValueError(
                f"sample_weight must hold a finite number of at least zero for each of the "
                f"{n_rows} rows of X."
            )
        if not weights.any():
            raise ValueError("X has no rows of positive weight.")
        self.weights = weights

    def _column(self, name: str) -> pd.Series:
        if name not in self.frame.columns:
            raise ValueError(f"X has no column {name!r}, which has a fixed effect in the model.")
        return self.frame[name]

    def mean(self, name: str) -> float:
        """The weighted mean of a numeric column."""
        column = numbers_of_objects(self._column(name))
        if not pd.api.types.is_numeric_dtype(column):
            raise ValueError(
                f"The column {name!r} holds no numbers, so that it has no mean: say which of its "
                f"values are meant, as in at={{{name!r}: [...]}}."
            )
        values = column.to_numpy(dtype=float, na_value=np.nan)
        mean = float(np.average(values[self.weights > 0], weights=self.weights[self.weights > 0]))
        if not np.isfinite(mean):
            raise ValueError(f"The column {name!r} of X has a value that is missing or infinite.")
        return mean

    def frequencies(self, chosen: Mapping[str, tuple[Sequence[Any], Sequence[Any]]]) -> FloatArray:
        """Weights of the rows that have each combination of values, an axis for each column.

        ``chosen`` has for every column the categories that are known, and those that are counted.
        """
        codes = [self._codes(name, *own) for name, own in chosen.items()]
        found = np.zeros(tuple(len(values) for _, values in chosen.values()))
        if codes:
            is_in = np.all([own >= 0 for own in codes], axis=0)
            np.add.at(found, tuple(own[is_in] for own in codes), self.weights[is_in])
        return found

    def _codes(
        self, name: str, known_values: Sequence[Any], counted: Sequence[Any]
    ) -> NDArray[np.intp]:
        values = self._column(name)
        categories = pd.Index(list(known_values), tupleize_cols=False)
        known = categories.get_indexer(pd.Index(np.asarray(values), tupleize_cols=False))
        if (known < 0).any():
            row = int(np.argmin(known))
            raise ValueError(
                f"The value {values.iloc[row]!r} of {name!r} (row {row} of X) was not seen in "
                "fit, so that it has no mean."
            )
        return pd.Index(list(counted), tupleize_cols=False).get_indexer(categories)[known]
