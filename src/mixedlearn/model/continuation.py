"""How the noise of a level continues: forecasts, draws, and rows that come after the fit.

Rows that come after the fit are those of a model with independent noise once their forecast has
been taken from them and what it leaves is whitened (`given_noise`), as the rows of the fit are
after ``L^-1``: their sums are added to those of the fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.covariance.residual.correlations import Equal
from mixedlearn.data.labels import shown
from mixedlearn.data.levels import LevelTable, encode, labels_of, merge_levels
from mixedlearn.data.rows import CodedRows, Rows
from mixedlearn.data.sums import Sums
from mixedlearn.engines.correlated.noise_columns import NoiseColumns
from mixedlearn.engines.correlated.row_checks import check_parts, check_times
from mixedlearn.engines.correlated.rows import NoiseRows
from mixedlearn.model.correlated import FittedNoise
from mixedlearn.model.given_noise import Given, Pair, alike, given_noise
from mixedlearn.model.known import Known
from mixedlearn.model.prediction import known_mean

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]

# New rows of a level that are conditioned on its neighbours at once.
MOST_NEW = 64


@dataclass(frozen=True, slots=True)
class Condition:
    """What the observed rows of a level say of the noise of other rows of it.

    The noise of a row is ``k'e`` of the observed ones, and rest that is independent of them.

    Attributes
    ----------
    mean : ndarray of shape (n,)
        ``k'e`` at the residuals.
    basis : ndarray of shape (n, k + 1)
        ``k'`` times the basis columns of the observed rows.
    rest : ndarray of shape (n,)
        Variance of the rest, relative to the noise variance.
    """

    mean: FloatArray
    basis: FloatArray
    rest: FloatArray


def condition(known: Known, noise_rows: NoiseRows) -> Condition:
    """Condition the noise of rows on that of the observed rows of their levels.

    A row at a time that its level has is the observed row: nothing is said of it but what the
    effects say. Rows without times are conditioned on under compound symmetry alone, where their
    order does not count.

    Parameters
    ----------
    known : Known
    noise_rows : NoiseRows
        Their series are numbers of the levels of its noise, -1 for others.
    """
    noise: FittedNoise = known.noise
    n, k = len(noise_rows.series), noise.rows.X.shape[1]
    joined = noise.noise_rows.joined(noise_rows)
    n_old = len(noise.noise_rows.series)
    found = Condition(np.zeros(n), np.zeros((n, k + 1)), noise.variances_of(noise_rows))
    pairs = _continued(noise, noise_rows)
    residuals, basis = _residuals(known, pairs), noise.basis
    own_pairs = _by_neighbours(noise, noise_rows, pairs) if noise_rows.is_markov else pairs
    for old, new in alike(noise_rows, own_pairs):
        # Rows may be forecast twice, so that they have no root.
        whole = noise.covariance(joined, np.concatenate([old, n_old + new], axis=1))
        m = old.shape[1]
        weights = np.linalg.solve(whole[:, :m, :m], whole[:, :m, m:])
        found.mean[new] = np.einsum("gon,go->gn", weights, residuals[old])
        found.basis[new] = np.einsum("gon,gok->gnk", weights, basis[old, :-1])
        found.rest[new] -= np.einsum("gon,gon->gn", weights, whole[:, :m, m:])
    return found


def _by_neighbours(noise: FittedNoise, noise_rows: NoiseRows, pairs: Sequence[Pair]) -> list[Pair]:
    """Of long series few rows at a time, with the observed rows just before and after them.

    These say all that there is to say of them.
    """
    times, found = noise.noise_rows.times, []
    for old, new in pairs:
        if len(old) <= MOST_NEW and len(new) <= MOST_NEW:
            found.append((old, new))
            continue
        order = old[np.argsort(times[old], kind="stable")]
        for own in np.split(new, range(MOST_NEW, len(new), MOST_NEW)):
            place = np.searchsorted(times[order], noise_rows.times[own])
            beside = np.append(place - 1, place)
            found.append((order[np.unique(beside[(beside >= 0) & (beside < len(order))])], own))
    return found


def _continued(noise: FittedNoise, noise_rows: NoiseRows) -> list[Pair]:
    """The observed rows of every known level, and the rows that these say something of."""
    correlation = noise.binding.correlation
    is_free_of_order = isinstance(correlation, Equal)
    if correlation is None or (noise.binding.names.time is None and not is_free_of_order):
        return []
    series = noise_rows.series
    levels = _by_level(series, np.flatnonzero((series >= 0) & (series < noise.n_levels)))
    pairs = [(noise.rows_of_level(int(series[new[0]])), new) for new in levels]
    _check_parts(noise, noise_rows, pairs)
    if not is_free_of_order:
        is_seen = _is_seen(noise, noise_rows, pairs)
        pairs = [(old, new[~is_seen[new]]) for old, new in pairs]
    return [(old, new) for old, new in pairs if len(new)]


def _check_parts(noise: FittedNoise, noise_rows: NoiseRows, pairs: Sequence[Pair]) -> None:
    """Refuse rows with another value of ``by`` than the observed rows of their level.

    Raises
    ------
    ValueError
    """
    binding = noise.binding
    if binding.by is None:
        return
    for old, new in pairs:
        differs = noise_rows.part[new] != noise.noise_rows.part[old[0]]
        if differs.any():
            assert binding.series is not None
            row = int(new[np.argmax(differs)])
            value, other = (
                shown(binding.by[own.part[at]])
                for own, at in ((noise_rows, row), (noise.noise_rows, old[0]))
            )
            level = shown(binding.series[noise_rows.series[row]])
            raise ValueError(
                f"Row {row} has {value} in the column {binding.names.by!r}, by which the "
                f"covariance differs, and the observed rows of its level {level} of "
                f"{binding.series_name!r} have {other}: all rows of a level must share one value."
            )


def _is_seen(noise: FittedNoise, noise_rows: NoiseRows, pairs: Sequence[Pair]) -> NDArray[np.bool_]:
    """Which rows are at a time that their level has."""
    found = np.zeros(len(noise_rows.series), dtype=bool)
    if not pairs:
        return found
    old, new = (np.concatenate(own) for own in zip(*pairs, strict=True))
    rows = noise.noise_rows.of(old).joined(noise_rows.of(new))
    times, code = np.unique(rows.times, return_inverse=True)
    keys = rows.series.astype(np.int64) * len(times) + code
    found[new] = np.isin(keys[len(old) :], keys[: len(old)])
    return found


def _residuals(known: Known, pairs: Sequence[Pair]) -> FloatArray:
    """What fixed and random effects leave of observed rows, times the roots of their weights."""
    noise: FittedNoise = known.noise
    found = np.zeros(len(noise.rows.X))
    places = np.concatenate([np.zeros(0, dtype=np.intp), *(old for old, _ in pairs)])
    if len(places):
        own = noise.rows.of(places)
        left = own.given_response - known_mean(known.fit.specification, known.fit.coef, known, own)
        found[places] = left * np.sqrt(own.given_weights)
    return found


@dataclass(frozen=True, slots=True)
class NoiseDraw:
    """What the noise of rows of weight one is drawn from.

    Attributes
    ----------
    mean : ndarray of shape (n,)
        In units of the response.
    given : Given
        What is drawn.
    """

    mean: FloatArray
    given: Given


def noise_draw(known: Known, noise_rows: NoiseRows, *, is_continued: bool) -> NoiseDraw:
    """What the noise of rows is drawn from; rows of one level are drawn together.

    Parameters
    ----------
    known : Known
    noise_rows : NoiseRows
        Their series are numbers of levels: if ``is_continued``, of those of the noise, and larger
        ones for others.
    is_continued : bool
        Whether the noise of a known level continues from its residuals, as far as `condition` says
        something of it; a row at a time that its level has is a repetition, whose noise is new.

    Raises
    ------
    ValueError
        If the covariance of the rows of a level is not positive definite.
    """
    noise: FittedNoise = known.noise
    n, n_old = len(noise_rows.series), len(noise.noise_rows.series)
    pairs = _continued(noise, noise_rows) if is_continued else []
    is_new = np.ones(n, dtype=bool)
    for _, new in pairs:
        is_new[new] = False
    pairs += [(own[:0], own) for own in _by_level(noise_rows.series, np.flatnonzero(is_new))]
    given = given_noise(noise, noise.noise_rows.joined(noise_rows), n_old, pairs)
    return NoiseDraw(given.forecast(_residuals(known, pairs)[:, None])[:, 0], given)


def _by_level(series: NDArray[np.integer], rows: IntArray) -> list[IntArray]:
    """Some rows, level by level."""
    order = rows[np.argsort(series[rows], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(series[order])) + 1) if len(order) else []


def with_correlated_rows(known: Known, rows: Rows, columns: NoiseColumns) -> Known:
    """What is known with further rows, whose noise continues that of their levels.

    Parameters
    ----------
    known : Known
    rows : Rows
        Of positive weight, with labels of every factor.
    columns : NoiseColumns
        Of the same rows.

    Raises
    ------
    ValueError
        As `Binding.rows`; if a level has a row at the time of one of these already, where the
        structure allows one alone; if a level would have several values of ``by``.
    """
    noise: FittedNoise = known.noise
    old_series, series, levels = _merged_series(noise, columns)
    before = replace(noise.noise_rows, series=old_series)
    fresh = _in_order(noise, noise.binding.rows(columns, series), old_series)
    joined = before.joined(fresh)
    n_old = len(old_series)
    check_times(noise.binding, columns, joined, n_old)
    check_parts(noise.binding, columns, joined, n_old)
    sums = Sums.of(rows, known.fit.specification.slopes, like=known.fit.sums)
    coded = rows.coded(sums.levels)
    basis = sums.weighted_rows(coded, slice(None))
    of_level = {int(old_series[own[0]]): own for own in _by_level(old_series, np.arange(n_old))}
    pairs = [
        (of_level.get(int(series[new[0]]), new[:0]), new)
        for new in _by_level(series, np.arange(len(series)))
    ]
    given = given_noise(noise, joined, n_old, pairs)
    basis = given.whitened(basis - given.forecast(noise.basis))
    later = known.with_sums(sums.in_metric(basis, coded.known_codes, given.log_det))
    tables = later.whole.tables
    own_rows = _recoded(noise.rows, known.whole.levels, tables)
    return later.with_noise(
        replace(
            noise,
            binding=replace(noise.binding, series=levels),
            rows=own_rows.joined(_recoded(coded, sums.levels, tables)),
            noise_rows=joined,
        )
    )


def sums_in_metric(noise: FittedNoise, sums: Sums) -> Sums:
    """The sums of the rows of a noise in the metric of its covariance.

    ``sums`` are of the same rows in any metric, with the levels that the rows have.
    """
    series = noise.noise_rows.series
    levels = [(own[:0], own) for own in _by_level(series, np.arange(len(series)))]
    given = given_noise(noise, noise.noise_rows, 0, levels)
    return sums.in_metric(given.whitened(noise.basis), noise.rows.known_codes, given.log_det)


def _merged_series(
    noise: FittedNoise, columns: NoiseColumns
) -> tuple[IntArray, IntArray, pd.Index | None]:
    """Numbers of the levels of the series, of the rows so far and of new ones, and all levels."""
    own, known = noise.noise_rows.series, noise.binding.series
    if known is None or columns.series is None:
        # Every row is alone.
        return own, len(own) + np.arange(columns.n_rows), None
    codes, others = encode(columns.series)
    places, other_places, levels = merge_levels(known, others)
    return places[own], other_places[codes], levels


def _in_order(noise: FittedNoise, rows: NoiseRows, old_series: IntArray) -> NoiseRows:
    """New rows, which come after the old ones of their levels where the order is their time."""
    if noise.binding.names.time is not None or noise.binding.correlation is None:
        return rows
    n_levels = 1 + max(old_series.max(initial=-1), rows.series.max(initial=-1))
    before = np.bincount(old_series, minlength=n_levels)[rows.series]
    return replace(rows, times=rows.times + before, occasions=rows.occasions + before)


def _recoded(
    rows: CodedRows, levels: Sequence[pd.Index], tables: Sequence[LevelTable]
) -> CodedRows:
    """Rows with the numbers of their levels among others."""
    codes = [
        table.find(labels_of(own))[code]
        for code, own, table in zip(rows.known_codes, levels, tables, strict=True)
    ]
    return replace(rows, codes=tuple(codes))
