"""The columns that a residual structure names, and what may be wrong with their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.residual.correlations import Correlation
from mixedlearn.data.labels import Labels
from mixedlearn.residual import HETEROGENEOUS, Power, Residual, Stratified

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class NoiseColumns:
    """The columns of some rows that their noise depends on.

    Attributes
    ----------
    n_rows : int
    series : Labels or None
        Of the factor in whose levels rows are correlated; None: rows are not correlated.
    time : Labels or None
        Occasions, or times as text or numbers.
    numbers : ndarray of shape (n,) or None
        The times, if they are numbers.
    strata : tuple of Labels
        Of the columns that `Stratified` names.
    powers : tuple of ndarray of shape (n,)
        The columns that `Power` names.
    by : Labels or None
    """

    n_rows: int
    series: Labels | None
    time: Labels | None
    numbers: FloatArray | None
    strata: tuple[Labels, ...]
    powers: tuple[FloatArray, ...]
    by: Labels | None

    def rows(self, chosen: NDArray[np.bool_]) -> NoiseColumns:
        """Those of some rows."""
        return NoiseColumns(
            int(chosen.sum()),
            None if self.series is None else self.series.rows(chosen),
            None if self.time is None else self.time.rows(chosen),
            None if self.numbers is None else self.numbers[chosen],
            tuple(own.rows(chosen) for own in self.strata),
            tuple(own[chosen] for own in self.powers),
            None if self.by is None else self.by.rows(chosen),
        )


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """What a structure names, resolved.

    Attributes
    ----------
    time, by : str or None
    strata, powers : tuple of str
    is_heterogeneous : bool
        Whether every occasion has a variance.
    """

    time: str | None
    by: str | None
    strata: tuple[str, ...]
    powers: tuple[str, ...]
    is_heterogeneous: bool


def variances_of(residual: Residual) -> list[Any]:
    """What the variance depends on, one entry for each that multiplies.

    Raises
    ------
    ValueError
        If an entry is none of those that there are.
    """
    if isinstance(residual, (Stratified, Power)):
        return [residual]
    own = residual.variance
    if own is None:
        return []
    entries = own if isinstance(own, list) else [own]
    for entry in entries:
        if entry != HETEROGENEOUS and not isinstance(entry, (Stratified, Power)):
            raise ValueError(
                f"variance={own!r} of {type(residual).__name__} is no variance: use None, "
                "'heterogeneous', Stratified(by=...), Power(of=...), or a list of these."
            )
    return entries


def check_powers(names: ColumnNames, columns: NoiseColumns) -> None:
    """Refuse what has no power.

    Raises
    ------
    ValueError
    """
    for own, name in zip(columns.powers, names.powers, strict=True):
        if not (np.isfinite(own) & (own != 0.0)).all():
            row = int(np.argmin(np.isfinite(own) & (own != 0.0)))
            raise ValueError(
                f"Power needs numbers other than zero, but row {row} of {name!r} has {own[row]}."
            )


def check_numbers(correlation: Correlation, names: ColumnNames, columns: NoiseColumns) -> None:
    """Refuse times that are missing, or no whole numbers where they have to be.

    Raises
    ------
    ValueError
    """
    if columns.numbers is not None and correlation.uses_times:
        if not np.isfinite(columns.numbers).all():
            row = int(np.argmin(np.isfinite(columns.numbers)))
            raise ValueError(f"The time in the column {names.time!r} is missing in row {row}.")
        whole = columns.numbers == np.round(columns.numbers)
        if not correlation.needs_numbers and not whole.all():
            row = int(np.argmin(whole))
            raise ValueError(
                f"The times of AR1 have to be whole numbers, but row {row} of {names.time!r} has "
                f"{columns.numbers[row]:g}: use ContinuousAR1, whose correlation is positive, or "
                "count the occasions."
            )
