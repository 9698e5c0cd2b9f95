"""The rows that a model was fitted to, which have to be passed again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedlearn.model.fitted import FittedModel
from mixedlearn.specification import Design

FloatArray = NDArray[np.float64]

# Rows per chunk of what needs several numbers for each row.
CHUNK_ROWS = 1 << 15
# Cross-products of the same rows differ by less than this share of their size.
SAME_ROWS = 1e-8


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """The rows of a fit.

    Attributes
    ----------
    design : Design
        Numeric columns, and the level of every row (-1 only in rows of weight zero).
    response : ndarray of shape (n,)
    weights : ndarray of shape (n,)
        Precision weights, one where none were given.
    shift : ndarray of shape (k + 1,)
        That of the cross-products.
    """

    design: Design
    response: FloatArray
    weights: FloatArray
    shift: FloatArray

    @property
    def codes(self) -> list[NDArray[np.int32]]:
        """Level of every row, for every factor."""
        return [own for own in self.design.codes if own is not None]

    def basis(self, rows: Any) -> FloatArray:
        """Basis columns of some rows, times the roots of their weights: (n_rows, k + 2)."""
        X = self.design.X[rows]
        basis = np.empty((len(X), X.shape[1] + 2))
        basis[:, 0] = 1.0
        basis[:, 1:-1] = X - self.shift[:-1]
        basis[:, -1] = self.response[rows] - self.shift[-1]
        basis *= np.sqrt(self.weights[rows])[:, None]
        return basis

    def chunks(self) -> Iterator[slice]:
        """Slices of the rows."""
        for start in range(0, len(self.response), CHUNK_ROWS):
            yield slice(start, start + CHUNK_ROWS)


def training_rows(
    estimator: Any, model: FittedModel, X: Any, y: Any, groups: Any, sample_weight: Any
) -> TrainingRows:
    """Take rows that are said to be those of `fit`, and check them against the cross-products.

    Raises
    ------
    ValueError
        If they are not.
    """
    design, response, weights = estimator._training_rows(X, y, groups, sample_weight)
    weights = np.ones(len(response)) if weights is None else weights
    products, names = model.products, model.specification.factor_names
    n_present = int(np.count_nonzero(weights))
    if n_present != products.n_rows:
        raise ValueError(
            f"These are not the rows of the fit: they are {n_present} of positive weight, but the "
            f"model was fitted to {products.n_rows}. Pass the X, y, groups and sample_weight that "
            "fit had."
        )
    for name, codes in zip(names, design.codes, strict=True):
        if (codes[weights > 0.0] < 0).any():
            row = int(np.argmax((codes < 0) & (weights > 0.0)))
            raise ValueError(
                f"These are not the rows of the fit: the level of {name!r} in row {row} was not "
                "seen in fit. Pass the X, y, groups and sample_weight that fit had."
            )
    rows = TrainingRows(design, response, weights, products.shift)
    _check_sums(rows, model)
    return rows


def _check_sums(rows: TrainingRows, model: FittedModel) -> None:
    """Compare the cross-products of the rows with those of the fit."""
    products, specification = model.products, model.specification
    gram = np.zeros_like(products.gram)
    sums = [np.zeros(grouped.shape[1:]) for grouped in products.grouped]
    for chunk in rows.chunks():
        basis = rows.basis(chunk)
        gram += basis.T @ basis
        weighted = basis * basis[:, :1]
        for codes, total in zip(rows.codes, sums, strict=True):
            for column, own in zip(weighted.T, total, strict=True):
                own += np.bincount(codes[chunk].clip(0), weights=column, minlength=len(own))
    size = np.sqrt(np.diag(products.gram))
    names = ["the weights", *(specification.names[column] for column in specification.columns), "y"]
    wrong = np.abs(gram - products.gram) > SAME_ROWS * np.outer(size, size)
    for what, row in zip(names, wrong, strict=True):
        if row[0] or row[names.index(what)]:
            plain = {"the weights": "the weights differ", "y": "y differs"}
            _refuse(plain.get(what, f"the column {what!r} differs"))
    if wrong.any():
        _refuse("the rows of some columns are in another order")
    for name, total, grouped in zip(
        specification.factor_names, sums, products.grouped, strict=True
    ):
        if (np.abs(total - grouped[0]) > SAME_ROWS * size[0] * size[:, None]).any():
            _refuse(f"the labels of {name!r}, or the order of the rows, differ")


def _refuse(what: str) -> None:
    raise ValueError(
        f"These are not the rows of the fit: {what}. Pass the X, y, groups and "
        "sample_weight that fit had."
    )
