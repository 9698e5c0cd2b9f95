"""A residual structure and the rows of `fit`: what it learns of them, and how it reads others."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.covariance.residual.base import ResidualCovariance
from mixedlearn.covariance.residual.correlations import Correlation
from mixedlearn.covariance.residual.monomial import Monomial
from mixedlearn.data.labels import Labels, shown
from mixedlearn.data.levels import look_up, pack_levels, unpack_levels
from mixedlearn.engines.correlated.noise_columns import (
    ColumnNames,
    NoiseColumns,
    check_numbers,
    check_powers,
)
from mixedlearn.engines.correlated.rows import Exponents, NoiseRows
from mixedlearn.residual import Residual, correlation_of

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]


# Attributes that are levels or None.
LEVELS = ("occasions", "by", "series")


@dataclass(frozen=True)
class Binding:
    """A structure with what it has learnt.

    Attributes
    ----------
    residual : Correlated or Variance
    names : ColumnNames
    occasions : Index or None
        What occasions there are, in their order; None where rows are in the order in which they
        come.
    strata : tuple of Index
        The values of every column of strata.
    by : Index or None
        The values with a covariance of their own.
    parts : tuple of ResidualCovariance
        The covariance for every value of ``by``.
    series : Index or None
        The levels in which rows are correlated.
    unit : float
        What times are divided by.
    series_name : str or None
        Of the factor in whose levels rows are correlated; levels of an interaction have none.
    unsigned : tuple of int
        Parts whose correlation has a sign that the rows do not tell; it is taken as positive.
    """

    residual: Residual
    names: ColumnNames
    occasions: pd.Index | None
    strata: tuple[pd.Index, ...]
    by: pd.Index | None
    parts: tuple[ResidualCovariance, ...]
    series: pd.Index | None
    unit: float = 1.0
    series_name: str | None = None
    unsigned: tuple[int, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """The state to save: levels in types that other formats than pickle can hold."""
        state = {own.name: getattr(self, own.name) for own in fields(self)}
        for name in LEVELS:
            state[name] = None if state[name] is None else pack_levels(state[name])
        return {**state, "strata": [pack_levels(own) for own in self.strata]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        restored = {**state, "strata": tuple(unpack_levels(own) for own in state["strata"])}
        for name in LEVELS:
            restored[name] = None if state[name] is None else unpack_levels(state[name])
        for name, value in restored.items():
            object.__setattr__(self, name, value)

    @property
    def correlation(self) -> Correlation | None:
        """The kind of correlation, if rows are correlated."""
        return correlation_of(self.residual)

    @property
    def kind(self) -> str:
        """What the structure is called."""
        return type(self.residual).__name__

    @property
    def uses_times(self) -> bool:
        """Whether the times between rows count."""
        return self.correlation is not None and self.correlation.uses_times

    @property
    def n_correlations(self) -> int:
        """Number of correlation parameters of a part."""
        part = self.parts[0]
        return len(part.ranges) if isinstance(part, Monomial) else 0

    @property
    def deviation_names(self) -> list[str]:
        """Names of what the variances depend on, in the order of `Layout.deviations`."""
        names = self.names
        found = [
            f"variance ratio of {name} {shown(level)}"
            for name, levels in zip(names.strata, self.strata, strict=True)
            for level in levels[1:]
        ]
        if names.is_heterogeneous and self.occasions is not None:
            found += [f"variance ratio of {own}" for own in self.occasions[1:]]
        return found + [f"power of {name}" for name in names.powers]

    def of_part(self, number: int) -> str:
        """What an error says of the part, where there are several."""
        return "" if self.by is None else f" of {self.names.by} {shown(self.by[number])}"

    def unsigned_note(self, fitted: NoiseRows, rows: NoiseRows) -> str | None:
        """What to say of rows whose correlation with those of fit has a sign that is not known."""
        known = np.flatnonzero((rows.series >= 0) & np.isin(rows.part, self.unsigned))
        _, first = np.unique(fitted.series, return_index=True)
        distance = rows.times[known] - fitted.times[first][rows.series[known]]
        if (distance % 2.0 == 0.0).all():
            return None
        row = int(known[np.argmax(distance % 2.0 != 0.0)])
        return (
            f"The sign of the correlation{self.of_part(int(rows.part[row]))} cannot be known: the "
            f"rows of fit of a level of {self.series_name!r} are even numbers of "
            f"{self.names.time!r} apart, where both signs are the same, and row {row} is an odd "
            "number away from them. It is taken as positive; ContinuousAR1 is this model."
        )

    def rows(self, columns: NoiseColumns, series: IntArray) -> NoiseRows:
        """Rows as the likelihood reads them; ``series`` are their levels, by number.

        Raises
        ------
        ValueError
            If a row has an occasion, a stratum or a value of ``by`` that `fit` did not see, or a
            number that its structure cannot do with.
        """
        check_powers(self.names, columns)
        if self.correlation is not None:
            check_numbers(self.correlation, self.names, columns)
        n = len(series)
        occasions: IntArray = np.zeros(n, dtype=np.intp)
        if self.occasions is not None and columns.time is not None:
            has_times = self.uses_times and columns.numbers is not None
            if has_times and not self.names.is_heterogeneous:
                # Any time will do, and occasions are for tables.
                occasions = np.maximum(look_up(columns.time, self.occasions), 0)
            else:
                occasions = _places(columns.time, self.occasions, "occasion")
        if self.names.time is None and self.correlation is not None:
            order = pd.Series(series).groupby(series).cumcount().to_numpy()
            times, occasions = order.astype(float), order
        elif self.uses_times and columns.numbers is not None:
            times = columns.numbers / self.unit
        else:
            times = occasions.astype(float)
        dummies = [
            _indicators(_places(own, levels, "value"), len(levels))
            for own, levels in zip(columns.strata, self.strata, strict=True)
        ]
        if self.names.is_heterogeneous and self.occasions is not None:
            dummies.append(_indicators(occasions, len(self.occasions)))
        logs = [np.log(np.abs(own))[:, None] for own in columns.powers]
        part: IntArray = np.zeros(n, dtype=np.intp)
        if self.by is not None and columns.by is not None:
            part = _places(columns.by, self.by, "value")
        own_scale = [np.ones((n, 1))] if len(self.parts) > 1 else []
        deviations = np.hstack([np.zeros((n, 0)), *dummies, *logs, *own_scale])
        exponents = Exponents(self.correlation, self.n_correlations)
        is_stationary = self.correlation is not None and self.correlation.is_stationary
        is_markov = self.correlation is None or self.correlation.is_markov
        return NoiseRows(
            series, times, occasions, deviations, part, exponents, is_stationary, is_markov
        )


def _indicators(codes: IntArray, n: int) -> FloatArray:
    """Indicators of all values but the first."""
    return np.asarray(codes[:, None] == np.arange(1, n), dtype=float)


def _places(labels: Labels, levels: pd.Index, what: str) -> IntArray:
    found = look_up(labels, levels)
    if (found < 0).any():
        row = int(np.argmax(found < 0))
        raise ValueError(
            f"The {what} {shown(labels.at(row))} of {labels.name!r} (row {row}) was not seen in "
            f"fit, so its noise has no variance or correlations: known are "
            f"{', '.join(shown(own) for own in levels[:10])}."
        )
    return found
