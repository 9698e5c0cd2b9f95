"""The rows that a model was fitted to, which have to be passed again."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixedlearn.data.rows import CodedRows
from mixedlearn.data.same_rows import difference, is_of
from mixedlearn.inference._models import view_of
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.row_noise import RowNoise, row_noise

_PASS_THEM = "Pass the X, y, groups, sample_weight and offset that fit had."


def training_rows(
    estimator: Any,
    model: FittedModel,
    X: Any,
    y: Any,
    groups: Any,
    sample_weight: Any,
    offset: Any,
) -> CodedRows:
    """Take rows that are said to be those of `fit`, and check them against the sums.

    Their response is less its offset.

    Raises
    ------
    ValueError
        If they are not.
    """
    view = view_of(estimator, takes_noise=True)
    rows = view.rows(X, groups, y, sample_weight, offset, needs_groups=True)
    coded = rows.coded(model.sums.levels)
    specification, weights = model.specification, coded.given_weights
    n_present = int(np.count_nonzero(weights))
    if n_present != model.sums.n_rows:
        raise ValueError(
            f"These are not the rows of the fit: they are {n_present} of positive weight, but the "
            f"model was fitted to {model.sums.n_rows}. {_PASS_THEM}"
        )
    for name, codes in zip(specification.factor_names, coded.known_codes, strict=True):
        unseen = (codes < 0) & (weights > 0.0)
        if unseen.any():
            raise ValueError(
                f"These are not the rows of the fit: the level of {name!r} in row "
                f"{int(np.argmax(unseen))} was not seen in fit. {_PASS_THEM}"
            )
    what = difference(
        model.sums_of_rows, coded.present(), specification.column_names, specification.factor_names
    )
    if what is not None:
        raise ValueError(f"These are not the rows of the fit: {what}. {_PASS_THEM}")
    return coded


def training_noise(
    estimator: Any, model: FittedModel, rows: CodedRows, X: Any, groups: Any
) -> RowNoise | None:
    """The covariance of the noise of the rows of `fit`; None if there is no residual structure.

    Parameters
    ----------
    estimator : MixedLinearRegressor
    model : FittedModel
    rows : CodedRows
        What `training_rows` made of X and groups.
    X, groups : array-like

    Raises
    ------
    ValueError
        If what the noise depends on is not that of the rows of `fit`.
    """
    if model.noise is None:
        return None
    view = view_of(estimator, takes_noise=True)
    found = row_noise(model, rows, view.noise_rows(X, groups, rows.given_weights > 0.0))
    if not is_of(model.sums, found.whitened(found.basis)):
        raise ValueError(
            f"These are not the rows of the fit: the columns that {model.noise.description} uses, "
            f"or without times the order of the rows, differ. {_PASS_THEM}"
        )
    return found
