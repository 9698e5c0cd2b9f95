"""A residual structure learns from the rows of `fit`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.covariance.residual.base import ResidualCovariance
from mixedlearn.covariance.residual.correlations import ByTime, Correlation, Free
from mixedlearn.covariance.residual.monomial import Monomial, Range
from mixedlearn.covariance.residual.unrestricted import Unrestricted
from mixedlearn.data.labels import Labels, shown
from mixedlearn.data.levels import encode
from mixedlearn.engines.correlated.binding import Binding
from mixedlearn.engines.correlated.noise_columns import ColumnNames, NoiseColumns
from mixedlearn.engines.correlated.row_checks import check_rows
from mixedlearn.engines.correlated.rows import NoiseRows, gaps_within
from mixedlearn.residual import Residual, correlation_of

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]


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
    check_rows(binding, columns, rows)
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
    gaps, _ = gaps_within(series, times)
    gaps = gaps[gaps > 0.0]
    return float(np.median(gaps)) if len(gaps) else 1.0


def _in_order(labels: Labels) -> pd.Index:
    """The values that occur, categories in their order."""
    (part,) = labels.parts
    if isinstance(part, pd.CategoricalIndex):
        used = set(part)
        return pd.Index([own for own in part.categories if own in used], name=labels.name)
    return encode(labels)[1]


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
