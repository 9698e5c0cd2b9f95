"""The columns that a residual structure names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing

from mixedlearn.data.frames import pandas_column
from mixedlearn.data.labels import Labels, as_labels, missing_labels, shown
from mixedlearn.engines.correlated.noise_columns import ColumnNames, NoiseColumns, variances_of
from mixedlearn.estimator.validation import column_names, find_labels
from mixedlearn.residual import (
    HETEROGENEOUS,
    Correlated,
    Power,
    Residual,
    Stratified,
    correlation_of,
    resolve,
)
from mixedlearn.specification import find_column, plain_name

FloatArray = NDArray[np.float64]

# What pandas calls numbers.
NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal")


@dataclass(frozen=True, slots=True)
class NoiseSource:
    """Where the noise of rows is read from.

    Attributes
    ----------
    residual : Correlated or Variance
    names : ColumnNames
    series : str or None
        Name of the factor in whose levels rows are correlated.
    series_columns : tuple of str
        The columns of X that hold its labels; empty where these come beside X.
    """

    residual: Residual
    names: ColumnNames
    series: str | None
    series_columns: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of X that the noise of a row depends on, but for its series."""
        names = self.names
        return tuple(own for own in (names.time, *names.strata, *names.powers, names.by) if own)

    def labels(self, X: Any, groups: Any) -> list[Labels]:
        """The labels of the series; none where they are not given."""
        if self.series_columns:
            names = column_names(X)
            columns = tuple(find_column(own, names, "groups") for own in self.series_columns)
            found = find_labels(X, None, names, [columns], may_miss=True)
            return [replace(own, name=str(self.series)) for own in found]
        if groups is None:
            return []
        found = as_labels(groups, len(X), None, may_miss=True)
        own = [label for label in found if label.name == self.series] or found
        return own[:1] if len(found) == 1 or own is not found else []


def columns_named(residual: Any, time: Any, groups: Any, columns: Sequence[str]) -> list[Any]:
    """All columns that the parameters ``residual``, ``time`` and ``groups`` name.

    Raises
    ------
    ValueError
        If one is not among those of the data.
    """
    found = [(time, "time")]
    for entry in groups if isinstance(groups, list) else [groups]:
        found += [(own, "groups") for own in (entry if isinstance(entry, tuple) else [entry])]
    if residual is not None:
        own = resolve(residual, time)
        for variance in variances_of(own):
            found.append((getattr(variance, "by", None), "Stratified(by=...)"))
            found.append((getattr(variance, "of", None), "Power(of=...)"))
        if isinstance(own, Correlated):
            found += [(own.time, "time"), (own.by, f"{type(own).__name__}(by=...)")]
    for name, parameter in found:
        if isinstance(name, str):
            find_column(name, columns, parameter)
    return [name for name, _ in found if name is not None]


def has_noise(estimator: Any) -> bool:
    """Whether the parameters are those of a residual structure, which may be None in a search."""
    return estimator.residual is not None or estimator.time is not None


def find_noise(estimator: Any, X: Any, factors: Mapping[str, tuple[str, ...]]) -> NoiseSource:
    """What the parameters ``residual`` and ``time`` say of these columns.

    Parameters
    ----------
    estimator : MixedLinearRegressor
    X : DataFrame or ndarray
    factors : dict of str to tuple of str
        The grouping factors, those without random effects among them, and the columns that hold
        their labels.

    Raises
    ------
    ValueError
        If they name what is not there.
    """
    residual = resolve(estimator.residual, estimator.time)
    columns = column_names(X)

    def named(column: Any, parameter: str) -> str:
        return columns[find_column(column, columns, parameter)]

    kind = type(residual).__name__
    entries = variances_of(residual)
    strata, powers = [], []
    for entry in entries:
        if isinstance(entry, Stratified):
            strata.append(named(entry.by, "Stratified(by=...)"))
        elif isinstance(entry, Power):
            powers.append(named(entry.of, "Power(of=...)"))
    time = by = None
    if isinstance(residual, Correlated):
        time = residual.time if residual.time is not None else estimator.time
        time = None if time is None else named(time, "time")
        by = None if residual.by is None else named(residual.by, f"{kind}(by=...)")
    names = ColumnNames(time, by, tuple(strata), tuple(powers), HETEROGENEOUS in entries)
    series = _series(residual, list(factors))
    return NoiseSource(residual, names, series, factors.get(series or "", ()))


def _series(residual: Residual, factor_names: Sequence[str]) -> str | None:
    if not isinstance(residual, Correlated):
        return None
    listed = ", ".join(map(repr, factor_names))
    kind = type(residual).__name__
    if residual.within is not None:
        name = plain_name(residual.within)
        if name not in factor_names:
            raise ValueError(
                f"{kind}(within={residual.within!r}) names no grouping factor: the factors are "
                f"{listed or 'none'}."
            )
        return name
    if len(factor_names) == 1:
        return factor_names[0]
    if not factor_names:
        raise ValueError(
            f"residual={kind}(...) is the correlation of the rows of a level, and there is no "
            "grouping factor: name the column of the levels, groups=... (with "
            "random_intercept=False, if they have no random effect)."
        )
    raise ValueError(
        f"The model has the grouping factors {listed}: say in whose levels rows are correlated, "
        f"{kind}(within={factor_names[-1]!r})."
    )


def read_noise(source: NoiseSource, X: Any, labels: Sequence[Labels]) -> NoiseColumns:
    """The columns of rows that their noise depends on.

    Parameters
    ----------
    source : NoiseSource
    X : DataFrame or ndarray
    labels : sequence of Labels
        Those of all grouping factors.

    Raises
    ------
    ValueError
        If a column is not there, or misses a value.
    """
    columns, names = column_names(X), source.names
    n = len(X)

    def values(name: str) -> Any:
        if name not in columns:
            raise ValueError(
                f"X has no column {name!r}, which the residual structure uses: its columns are "
                f"{', '.join(map(repr, columns)) or 'none'}."
            )
        return pandas_column(_safe_indexing(X, columns.index(name), axis=1))

    def own_labels(name: str) -> Labels:
        _refuse_infinite(values(name), name)
        found = as_labels(values(name), n, [name], may_miss=True)[0]
        missing = missing_labels(found.parts[0])
        if missing is not None:
            raise ValueError(
                f"The column {name!r}, which the residual structure uses, misses a value (NaN or "
                f"None) in row {int(np.argmax(missing))}: fill it in, or leave the row out."
            )
        return found

    series = next((own for own in labels if own.name == source.series), None)
    time = None if names.time is None else own_labels(names.time)
    numbers = None
    if names.time is not None and not _is_category(values(names.time)):
        numbers = _times(values(names.time), names.time, source.residual)
    return NoiseColumns(
        n,
        series,
        time,
        numbers,
        tuple(map(own_labels, names.strata)),
        tuple(_numbers(values(name), name) for name in names.powers),
        None if names.by is None else own_labels(names.by),
    )


def _refuse_infinite(values: Any, name: str) -> None:
    found = np.asarray(values)
    is_infinite = np.isinf(found) if found.dtype.kind == "f" else np.zeros(0, dtype=bool)
    if is_infinite.any():
        raise ValueError(
            f"The column {name!r}, which the residual structure uses, is infinite in row "
            f"{int(np.argmax(is_infinite))}: correct it, or leave the row out."
        )


def _is_category(values: Any) -> bool:
    return isinstance(getattr(values, "dtype", None), pd.CategoricalDtype)


def _times(values: Any, name: str, residual: Residual) -> FloatArray | None:
    """Times that are numbers of any type; None of others."""
    kind = _kind(values)
    correlation = correlation_of(residual)
    uses_times = correlation is not None and correlation.uses_times
    if uses_times and kind.startswith(("date", "time", "period", "interval")):
        raise ValueError(
            f"The times of {type(residual).__name__}, the column {name!r}, are not numbers but "
            f"{kind}: count them in a unit, as in (day - day.min()).dt.days."
        )
    if kind not in NUMBERS:
        return None
    return np.asarray(values, dtype=np.float64)


def _numbers(values: Any, name: str) -> FloatArray:
    if _kind(values) not in NUMBERS:
        found = next((own for own in values if not isinstance(own, (int, float))), None)
        raise ValueError(
            f"Power(of={name!r}) needs a column of numbers, and this one holds {shown(found)}: "
            "convert the column, or name another."
        )
    return np.asarray(values, dtype=np.float64)


def _kind(values: Any) -> str:
    """What pandas says that values are."""
    # pandas tells no types of a column of polars.
    own = values if isinstance(values, pd.Series) else np.asarray(values)
    return str(pd.api.types.infer_dtype(own, skipna=False))
