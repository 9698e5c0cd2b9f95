"""A residual structure and the rows of `fit`: what it learns of them, and how it reads others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.covariance.residual.base import ResidualCovariance
from mixedlearn.covariance.residual.correlations import ByTime, Correlation, Equal, Free
from mixedlearn.covariance.residual.monomial import Monomial, Range
from mixedlearn.covariance.residual.unrestricted import Unrestricted
from mixedlearn.data.labels import Labels, shown
from mixedlearn.data.levels import encode, look_up
from mixedlearn.engines.correlated.rows import NoiseRows
from mixedlearn.residual import HETEROGENEOUS, Power, Residual, Stratified, correlation_of

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]

# Columns of length one whose products have a smaller eigenvalue depend on each other.
REDUNDANT = 1e-12


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


@dataclass(frozen=True, slots=True)
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
        _check_powers(self.names, columns)
        if self.correlation is not None:
            _check_times(self.correlation, self.names, columns)
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
        exponents = partial(_exponents, self.correlation, self.n_correlations)
        is_stationary = self.correlation is not None and self.correlation.is_stationary
        is_markov = self.correlation is None or self.correlation.is_markov
        return NoiseRows(
            series, times, occasions, deviations, part, exponents, is_stationary, is_markov
        )


def _exponents(
    correlation: Correlation | None, n: int, times: FloatArray, occasions: IntArray
) -> FloatArray:
    if correlation is None or n == 0:
        return np.zeros((0, *times.shape, times.shape[-1]))
    return correlation.exponents(times, occasions, n)


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


def bind(
    residual: Residual, names: ColumnNames, columns: NoiseColumns
) -> tuple[Binding, NoiseRows]:
    """Learn a structure from the rows of `fit`.

    Raises
    ------
    ValueError
        If the rows are not such that it can be estimated; the message names what is at fault.
    """
    correlation = correlation_of(residual)
    series: IntArray = np.arange(columns.n_rows)
    levels = None
    if columns.series is not None:
        series, levels = encode(columns.series)
    occasions = None if columns.time is None else _in_order(columns.time)
    strata = tuple(_in_order(own) for own in columns.strata)
    by = None if columns.by is None else _in_order(columns.by)
    if correlation is not None:
        _check(type(residual).__name__, correlation, names, columns, series)
        if occasions is not None and correlation.follows_order:
            _check_order(occasions, columns)
    counts = np.bincount(series)
    n_occasions = int(counts.max()) if occasions is None else len(occasions)
    n_deviations = sum(len(own) - 1 for own in strata) + len(columns.powers)
    if names.is_heterogeneous:
        n_deviations += n_occasions - 1
    n_parts = 1 if by is None else len(by)
    if isinstance(correlation, Free):
        parts: Sequence[ResidualCovariance] = [Unrestricted(n_occasions) for _ in range(n_parts)]
    else:
        ranges = [] if correlation is None else correlation.ranges(n_occasions, int(counts.max()))
        family = Monomial if correlation is None else correlation.family
        # All parts but the first have a variance of their own beside that of the reference.
        parts = [family(n_deviations + (k > 0), ranges) for k in range(n_parts)]
    unit = 1.0
    if correlation is not None and correlation.needs_numbers and columns.numbers is not None:
        unit = _usual_gap(series, columns.numbers)
    name = None if columns.series is None else columns.series.name
    binding = Binding(residual, names, occasions, strata, by, tuple(parts), levels, unit, name)
    rows = binding.rows(columns, series)
    _check_rows(binding, columns, rows)
    if isinstance(correlation, ByTime) and not correlation.needs_numbers:
        binding = _with_signs(binding, rows)
    return binding, rows


def _with_signs(binding: Binding, rows: NoiseRows) -> Binding:
    """The binding, with positive correlations in parts whose rows do not tell the sign."""
    gaps, part_of = rows.gaps
    parts, unsigned = list(binding.parts), []
    for number, part in enumerate(binding.parts):
        if (gaps[part_of == number] % 2.0 != 0.0).any():
            continue
        assert isinstance(part, Monomial)
        parts[number] = type(part)(part.n_deviations, [Range(0.0, 1.0)])
        unsigned.append(number)
    return replace(binding, parts=tuple(parts), unsigned=tuple(unsigned))


def _usual_gap(series: IntArray, times: FloatArray) -> float:
    """The median time between rows that follow each other in a level.

    In units that are much larger or smaller, the search for the correlation at a distance of one
    would have no digits.
    """
    order = np.lexsort((times, series))
    gaps = np.diff(times[order])[np.diff(series[order]) == 0]
    gaps = gaps[gaps > 0.0]
    return float(np.median(gaps)) if len(gaps) else 1.0


def _in_order(labels: Labels) -> pd.Index:
    """The values that occur, categories in their order."""
    (part,) = labels.parts
    if isinstance(part, pd.CategoricalIndex):
        used = set(part)
        return pd.Index([own for own in part.categories if own in used], name=labels.name)
    return encode(labels)[1]


def _check_powers(names: ColumnNames, columns: NoiseColumns) -> None:
    for own, name in zip(columns.powers, names.powers, strict=True):
        if not (np.isfinite(own) & (own != 0.0)).all():
            row = int(np.argmin(np.isfinite(own) & (own != 0.0)))
            raise ValueError(
                f"Power needs numbers other than zero, but row {row} of {name!r} has {own[row]}."
            )


def _check_times(correlation: Correlation, names: ColumnNames, columns: NoiseColumns) -> None:
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


def _check_order(occasions: pd.Index, columns: NoiseColumns) -> None:
    """Refuse text whose alphabetical order is not that of the numbers in it."""
    assert columns.time is not None
    (part,) = columns.time.parts
    if isinstance(part, pd.CategoricalIndex) or not all(isinstance(own, str) for own in occasions):
        return
    natural = sorted(occasions, key=_with_numbers)
    for own, other in zip(occasions, natural, strict=True):
        if own != other:
            raise ValueError(
                f"The occasions {columns.time.name!r} are text, whose order is that of the "
                f"alphabet, with {shown(own)} before {shown(other)}: make them numbers, or a "
                "category with its values in their order, "
                f"pd.Categorical(..., categories=[{', '.join(map(shown, natural))}])."
            )


def _with_numbers(text: str) -> list[tuple[int, float, str]]:
    """A key that sorts the digits in text as numbers."""
    parts = re.split(r"(\d+)", text)
    return [(0, float(own), "") if own.isdecimal() else (1, 0.0, own) for own in parts if own]


def _check(
    kind: str,
    correlation: Correlation,
    names: ColumnNames,
    columns: NoiseColumns,
    series: IntArray,
) -> None:
    if names.time is None and (correlation.needs_time or names.is_heterogeneous):
        raise ValueError(
            f"residual={kind}(...) needs the occasions of the rows: name their column, time=..."
        )
    if correlation.needs_numbers and columns.numbers is None:
        raise ValueError(
            f"The times of {kind}, the column {names.time!r}, have to be numbers: convert them, or "
            "use AR1 for occasions that are one unit apart."
        )
    if np.bincount(series).max() < 2:
        assert columns.series is not None
        raise ValueError(
            f"No level of {columns.series.name!r} has two rows: the correlations of {kind} cannot "
            "be estimated."
        )


def _check_rows(binding: Binding, columns: NoiseColumns, rows: NoiseRows) -> None:
    """Refuse rows that share a time, values of ``by`` that differ in a level, pairs of nobody."""
    correlation = binding.correlation
    _check_variances(binding, rows)
    if correlation is None or columns.series is None:
        return
    check_times(binding, columns, rows)
    check_parts(binding, columns, rows)
    if isinstance(correlation, Free):
        _check_pairs(binding, rows)
    elif correlation.has_occasions:
        _check_correlations(binding, rows)


def check_times(binding: Binding, columns: NoiseColumns, rows: NoiseRows, n_known: int = 0) -> None:
    """Refuse rows of a level that share a time, where the structure has no place for them.

    ``columns`` are those of the rows after the first ``n_known``, which have none that do.
    """
    if binding.correlation is None or isinstance(binding.correlation, Equal):
        return
    order = np.lexsort((rows.times, rows.series))
    series, times = rows.series[order], rows.times[order]
    same = (series[1:] == series[:-1]) & (times[1:] == times[:-1])
    if same.any():
        place = int(np.argmax(same))
        row = int(order[place + 1]) - n_known
        assert columns.time is not None
        assert columns.series is not None
        has, way_on = "two rows", "Average them, or name the column that tells them apart."
        if order[place] < n_known:
            has, way_on = "a row that the model knows", "Leave the row out."
        raise ValueError(
            f"The level {shown(columns.series.at(row))} of {columns.series.name!r} has {has} at "
            f"{binding.names.time} {shown(columns.time.at(row))} (row {row}): {binding.kind} needs "
            f"one row for each time. {way_on}"
        )


def check_parts(binding: Binding, columns: NoiseColumns, rows: NoiseRows, n_known: int = 0) -> None:
    """Refuse levels with several values of ``by``; see `check_times`."""
    if binding.correlation is None:
        return
    order = np.argsort(rows.series, kind="stable")
    series, part = rows.series[order], rows.part[order]
    differs = (series[1:] == series[:-1]) & (part[1:] != part[:-1])
    if differs.any():
        row = int(order[int(np.argmax(differs)) + 1]) - n_known
        assert columns.series is not None
        raise ValueError(
            f"The level {shown(columns.series.at(row))} of {columns.series.name!r} has several "
            f"values of {binding.names.by!r}, by which the covariance differs: all rows of a level "
            "must share one."
        )


def _check_variances(binding: Binding, rows: NoiseRows) -> None:
    """Every variance parameter has to change what the others do not."""
    for name, levels in zip(binding.names.strata, binding.strata, strict=True):
        if len(levels) < 2:
            raise ValueError(
                f"Stratified(by={name!r}) compares the values of a column, and this one has only "
                f"{shown(levels[0])}: leave it out."
            )
    names = binding.deviation_names
    for number in range(len(binding.parts)):
        own = rows.deviations[rows.part == number, : len(names)]
        design = np.column_stack([np.ones(len(own)), own])
        redundant = _first_redundant(design.T @ design)
        if redundant is not None:
            raise ValueError(
                f"The {names[redundant - 1]}{binding.of_part(number)} cannot be estimated: in "
                "these rows it is constant, or the other variance parameters say the same. Leave "
                "it out."
            )


def _first_redundant(gram: FloatArray) -> int | None:
    """The first column that depends on those before it; None if there is none."""
    sizes = np.sqrt(np.diag(gram))
    sizes[sizes == 0.0] = 1.0
    scaled = gram / np.outer(sizes, sizes)
    if np.linalg.eigvalsh(scaled)[0] > REDUNDANT:
        return None
    for k in range(len(gram)):
        if np.linalg.eigvalsh(scaled[: k + 1, : k + 1])[0] <= REDUNDANT:
            return k
    return None


def _together(binding: Binding, rows: NoiseRows, part: int) -> FloatArray:
    """How many levels of a part have two occasions, shape (n_occasions, n_occasions)."""
    assert binding.occasions is not None
    own = rows.part == part
    there = np.zeros((int(rows.series.max()) + 1, len(binding.occasions)))
    there[rows.series[own], rows.occasions[own]] = 1.0
    return there.T @ there


def _check_correlations(binding: Binding, rows: NoiseRows) -> None:
    """Pairs of rows have to tell every correlation from the others."""
    assert binding.occasions is not None
    assert binding.correlation is not None
    names = binding.correlation.names([str(own) for own in binding.occasions])
    for part in range(len(binding.parts)):
        first, second = np.nonzero(np.triu(_together(binding, rows, part), 1))
        pairs = np.column_stack([first, second])
        exponents = rows.exponents(pairs.astype(float), pairs)[:, :, 0, 1]
        redundant = _first_redundant(exponents @ exponents.T)
        if redundant is not None:
            raise ValueError(
                f"The {names[redundant]} of {binding.names.time!r}{binding.of_part(part)} cannot "
                "be estimated: no pair of rows of a level tells it from the others. Use a "
                "structure with fewer parameters, such as 'ar1'."
            )


def _check_pairs(binding: Binding, rows: NoiseRows) -> None:
    """Every two occasions need a level that has both."""
    assert binding.occasions is not None
    for part in range(len(binding.parts)):
        both = _together(binding, rows, part)
        if (both > 1.0).all():
            continue
        first, second = np.argwhere(both <= 1.0)[0]
        labels = [shown(binding.occasions[k]) for k in (first, second)]
        has = "one level has" if both[first, second] else "no level has"
        what = (
            f"the occasion {labels[0]}"
            if first == second
            else f"both occasions {labels[0]} and {labels[1]}"
        )
        raise ValueError(
            f"The unstructured covariance is not identified by these rows: {has} {what} of "
            f"{binding.names.time!r}. Use a structure with fewer parameters, such as "
            "'heterogeneous_ar1', or leave out the occasion."
        )
