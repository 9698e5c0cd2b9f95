"""What rows have to be like for a residual structure to be estimated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.residual.correlations import Equal, Free
from mixedlearn.data.labels import shown
from mixedlearn.engines.correlated.binding import Binding
from mixedlearn.engines.correlated.noise_columns import NoiseColumns
from mixedlearn.engines.correlated.rows import NoiseRows

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]

# Columns of length one whose products have a smaller eigenvalue depend on each other.
REDUNDANT = 1e-12


def check_rows(binding: Binding, columns: NoiseColumns, rows: NoiseRows) -> None:
    """Refuse rows that share a time, values of ``by`` that differ in a level, pairs of nobody."""
    correlation = binding.correlation
    _check_variances(binding, rows)
    if correlation is None or columns.series is None:
        return
    check_times(binding, columns, rows)
    check_parts(binding, columns, rows)
    _check_sizes(binding, rows)
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


def _check_sizes(binding: Binding, rows: NoiseRows) -> None:
    """Every correlation needs a level with two rows."""
    counts = np.bincount(rows.series)[rows.series]
    for part in range(len(binding.parts)):
        if not (counts[rows.part == part] > 1).any():
            raise ValueError(
                f"No level of {binding.series_name!r}{binding.of_part(part)} has two rows: the "
                f"correlations of {binding.kind} cannot be estimated there. Leave out these rows, "
                "or choose a structure without correlations, such as Stratified."
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
        has = "only one level has" if both[first, second] else "no level has"
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
