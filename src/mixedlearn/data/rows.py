"""Rows: one batch of numeric columns, responses, labels and weights.

Every way into the model leads through here: what a user passes becomes `Rows`, in which each row
has labels, and those become `Sums`, or, beside levels that are known, `CodedRows`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.data.labels import Labels, join_labels
from mixedlearn.data.levels import look_up

FloatArray = NDArray[np.float64]
Codes = NDArray[np.int32]

# Rows per chunk of what needs several numbers for each row.
CHUNK_ROWS = 1 << 15


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows with labels.

    Attributes
    ----------
    X : ndarray of shape (n, k)
        The specification's numeric columns.
    labels : tuple of Labels
        One for every factor; empty where no labels came.
    response : ndarray of shape (n,) or None
    weights : ndarray of shape (n,) or None
        Precision weights; None: one for each row.
    """

    X: NDArray[np.floating]
    labels: tuple[Labels, ...]
    response: FloatArray | None = None
    weights: FloatArray | None = None

    @property
    def given_response(self) -> FloatArray:
        """The response; zeros where there is none."""
        return np.zeros(len(self.X)) if self.response is None else self.response

    def present(self) -> Rows:
        """The rows of positive weight: a row of weight zero counts as absent."""
        if self.weights is None or self.weights.all():
            return self
        chosen = self.weights > 0.0
        return Rows(
            self.X[chosen],
            tuple(own.rows(chosen) for own in self.labels),
            None if self.response is None else self.response[chosen],
            self.weights[chosen],
        )

    @property
    def given_weights(self) -> FloatArray:
        """The weights; ones where there are none."""
        return np.ones(len(self.X)) if self.weights is None else self.weights

    @property
    def weight_range(self) -> tuple[float, float]:
        """The least and the largest weight."""
        if self.weights is None:
            return 1.0, 1.0
        return float(self.weights.min()), float(self.weights.max())

    def copied(self) -> Rows:
        """The same rows, of which no array is the user's."""
        return Rows(
            self.X.copy(),
            tuple(own.copied() for own in self.labels),
            None if self.response is None else self.response.copy(),
            None if self.weights is None else self.weights.copy(),
        )

    def coded(self, levels: Sequence[pd.Index]) -> CodedRows:
        """The rows beside known levels, -1 for a level that is not among them."""
        codes = tuple(look_up(*own) for own in zip(self.labels, levels, strict=False))
        return CodedRows(self.X, codes, self.response, self.weights)


def join_rows(batches: Sequence[Rows]) -> Rows:
    """The rows of several batches with responses, whose labels have the same types."""
    if len(batches) == 1:
        return batches[0]
    has_weights = any(own.weights is not None for own in batches)
    return Rows(
        np.concatenate([own.X for own in batches]),
        tuple(map(join_labels, zip(*(own.labels for own in batches), strict=True))),
        np.concatenate([own.given_response for own in batches]),
        np.concatenate([own.given_weights for own in batches]) if has_weights else None,
    )


@dataclass(frozen=True, slots=True)
class CodedRows:
    """Rows whose labels are numbers of known levels.

    Attributes
    ----------
    X : ndarray of shape (n, k)
        The specification's numeric columns.
    codes : tuple of ndarray of shape (n,), int, or None
        For every factor, the level of each row, -1 for a level unknown to the model; None for a
        factor that takes no part.
    response : ndarray of shape (n,) or None
    weights : ndarray of shape (n,) or None
        Precision weights; None: one for each row.
    """

    X: NDArray[np.floating]
    codes: tuple[Codes | None, ...]
    response: FloatArray | None = None
    weights: FloatArray | None = None

    @property
    def given_response(self) -> FloatArray:
        """The response; zeros where there is none."""
        return np.zeros(len(self.X)) if self.response is None else self.response

    @property
    def given_weights(self) -> FloatArray:
        """The weights; ones where there are none."""
        return np.ones(len(self.X)) if self.weights is None else self.weights

    @property
    def known_codes(self) -> list[Codes]:
        """Level of every row, for every factor, -1 where a factor takes no part."""
        unknown = np.full(len(self.X), -1, dtype=np.int32)
        return [unknown if own is None else own for own in self.codes]

    def present(self) -> CodedRows:
        """The rows of positive weight."""
        if self.weights is None or self.weights.all():
            return self
        return self.of(np.flatnonzero(self.weights))

    def of(self, chosen: NDArray[np.integer]) -> CodedRows:
        """Some of the rows."""
        return CodedRows(
            self.X[chosen],
            tuple(None if own is None else own[chosen] for own in self.codes),
            None if self.response is None else self.response[chosen],
            None if self.weights is None else self.weights[chosen],
        )

    def joined(self, other: CodedRows) -> CodedRows:
        """These rows and others with the same levels."""
        has_weights = self.weights is not None or other.weights is not None
        return CodedRows(
            np.vstack([self.X, other.X]),
            tuple(map(np.append, self.known_codes, other.known_codes)),
            np.append(self.given_response, other.given_response),
            np.append(self.given_weights, other.given_weights) if has_weights else None,
        )

    def of_population(self) -> CodedRows:
        """The same rows without levels."""
        return replace(self, codes=(None,) * len(self.codes))

    def chunks(self) -> Iterator[slice]:
        """Slices of the rows, so that work arrays stay small."""
        for start in range(0, len(self.X), CHUNK_ROWS):
            yield slice(start, start + CHUNK_ROWS)


def range_of_both(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """The least and the largest weight of rows and others."""
    return min(one[0], other[0]), max(one[1], other[1])
