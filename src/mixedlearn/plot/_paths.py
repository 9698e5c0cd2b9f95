"""Lines of predictions along a covariate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.data.labels import as_labels
from mixedlearn.data.levels import encode
from mixedlearn.data.rows import CodedRows
from mixedlearn.plot._inputs import (
    Covariate,
    constant_codes,
    design_columns,
    is_number,
    typical_rows,
)

FloatArray = NDArray[np.float64]

# Points of a curve: enough to look smooth, fewer where very many levels share the picture.
_CURVE_POINTS, _FEWEST_POINTS, _ALL_POINTS = 100, 20, 200_000


class Paths:
    """Lines along a feature, for the rows of a frame.

    Parameters
    ----------
    view : FittedView
        Of the estimator.
    frame : DataFrame
        As `covariate_frame` gives it.
    known : list of Covariate
    along : Covariate
        The feature.
    """

    def __init__(
        self, view: Any, frame: pd.DataFrame, known: Sequence[Covariate], along: Covariate
    ):
        self.view = view
        self.frame = frame
        self.others = [column for column in known if column.name != along.name]
        self.along = along
        self.values = frame[along.name].to_numpy()
        self.has_places = not is_number(frame[along.name])
        if self.has_places or along.is_categorical:
            self.value_codes, self.categories = encode(
                as_labels(frame[along.name], len(frame), [along.name])[0]
            )

    def of_levels(
        self,
        codes: NDArray[np.int32],
        n_levels: int,
        level_codes: Sequence[NDArray[np.int32] | None],
    ) -> tuple[NDArray[np.intp], NDArray, FloatArray]:
        """Lines of levels, one after the other.

        Parameters
        ----------
        codes : ndarray of shape (n,), int
            Level of each row, -1 for rows that take no part.
        n_levels : int
        level_codes : sequence of ndarray of shape (n,), int, or None
            For every factor of the model, its level of each row; None for no effects of it.

        Returns
        -------
        row : ndarray of int
            The level of each point.
        grid : ndarray
            The feature's value.
        prediction : ndarray of float
        """
        present = np.flatnonzero(codes >= 0)
        own = codes[present]
        row, grid = self._grid(present, own, n_levels)
        rows = typical_rows(self.frame, self.others, codes, n_levels).iloc[row]
        columns = design_columns(
            self.view, rows.reset_index(drop=True).assign(**{self.along.name: grid})
        )
        of_others = tuple(
            None if other is None else constant_codes(own, other[present], n_levels)[row]
            for other in level_codes
        )
        return row, grid, self.view.mean(CodedRows(columns, of_others))

    def _grid(
        self, present: NDArray[np.intp], codes: NDArray[np.int32], n_levels: int
    ) -> tuple[NDArray[np.intp], NDArray]:
        """The level and the feature's value of every point."""
        if self.has_places or self.along.is_categorical:
            occurs = np.zeros((n_levels, len(self.categories)), dtype=bool)
            occurs[codes, self.value_codes[present]] = True
            occurs[occurs.sum(axis=1) == 1] = True
            row, place = np.nonzero(occurs)
            return row, self.categories.to_numpy()[place]
        numbers = self.values.astype(np.float64, copy=False)
        low, high = np.full(n_levels, np.inf), np.full(n_levels, -np.inf)
        np.minimum.at(low, codes, numbers[present])
        np.maximum.at(high, codes, numbers[present])
        is_one = low == high
        low[is_one], high[is_one] = numbers.min(), numbers.max()
        n = 2 if self.along.is_straight else _n_points(n_levels)
        share = np.linspace(0.0, 1.0, n)
        grid = low[:, None] * (1.0 - share) + high[:, None] * share
        return np.repeat(np.arange(n_levels), n), grid.ravel()

    def shown(self, values: NDArray) -> Any:
        """Values of the feature as a column of the display: numbers, or categories in order."""
        return pd.Categorical(values, categories=self.categories) if self.has_places else values


def _n_points(n_levels: int) -> int:
    """Points of a curve."""
    return int(np.clip(_ALL_POINTS // n_levels, _FEWEST_POINTS, _CURVE_POINTS))
