"""A sketch of the rows: random combinations that tell whether columns of two fits span each other.

Products within each of two fits say nothing of the columns of one beside those of the other. But
if two models were fitted to the same rows in the same order, the same combinations ``S`` of the
rows can be taken of both: from ``X_0 = X_1 B`` follows ``S X_0 = S X_1 B``. With coefficients from
a normal distribution and more combinations than columns, the latter almost surely means the former
for the rows that take part. A fit keeps combinations of at least two rows, no row, and no number
for each row.

The same coefficients, summed up by level and squared, are a fingerprint of how a factor divides
the rows, whatever its levels are called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# So many rows take part, all where there are no more.
SKETCHED_ROWS = 2048
# The most combinations: models with more columns are compared by names.
COMBINATIONS = 128


@dataclass(frozen=True, slots=True)
class Sketch:
    """Combinations of rows.

    Attributes
    ----------
    columns : ndarray of shape (r, k + 2)
        Those of the basis columns.
    partitions : tuple of float
        For every factor, the fingerprint of its levels.
    """

    columns: FloatArray
    partitions: tuple[float, ...]

    def of_factors(self, chosen: Sequence[int]) -> Sketch:
        """The sketch of some of the factors."""
        return replace(self, partitions=tuple(self.partitions[k] for k in chosen))


def sketched_rows(n_rows: int) -> slice | NDArray[np.intp]:
    """The rows that take part: the same of any fit to so many rows."""
    if n_rows <= SKETCHED_ROWS:
        return slice(None)
    _, places = _draws()
    return np.asarray(n_rows * places, dtype=np.intp)


def make_sketch(basis: FloatArray, codes: Sequence[NDArray[np.integer]]) -> Sketch:
    """The sketch of rows that take part.

    Parameters
    ----------
    basis : ndarray of shape (n, k + 2)
        Their basis columns; overwritten.
    codes : sequence of ndarray of shape (n,), int
        Their levels, for every factor.
    """
    coefficients = _draws()[0][: len(basis)]
    partitions = (np.bincount(own, weights=coefficients) for own in codes)
    return Sketch(combinations_of(basis), tuple(float(own @ own) for own in partitions))


def combinations_of(rows: FloatArray) -> FloatArray:
    """Random combinations of rows of shape (n, c), which are overwritten, of two rows or more."""
    if len(rows) < 2:
        return rows[:0]
    coefficients, starts = _combinations(len(rows))
    rows *= coefficients
    return np.add.reduceat(rows, starts, axis=0)


@lru_cache(maxsize=16)
def _combinations(n: int) -> tuple[FloatArray, NDArray[np.intp]]:
    """The coefficients of n rows, shape (n, 1), and the first rows of their combinations."""
    n_combinations = min(n // 2, COMBINATIONS)
    coefficients = np.resize(_draws()[0], n)[:, None]
    return coefficients, np.arange(n_combinations) * n // n_combinations


@cache
def _draws() -> tuple[FloatArray, FloatArray]:
    """Coefficients of the rows that take part, and their places between zero and one, sorted."""
    generator = np.random.default_rng(0)
    coefficients = generator.standard_normal(SKETCHED_ROWS)
    return coefficients, np.sort(generator.random(SKETCHED_ROWS))
