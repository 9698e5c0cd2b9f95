"""What `fit` reads: the model that the parameters describe, and its rows.

Every check of what a user passes to `fit` is made on this way, once; further rows are read by
`view.FittedView.rows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone

from mixedlearn.data.frames import is_frame
from mixedlearn.data.labels import Labels, shown
from mixedlearn.data.rows import Rows
from mixedlearn.engines.correlated.noise_columns import NoiseColumns
from mixedlearn.estimator.noise import NoiseSource, find_noise, has_noise, read_noise
from mixedlearn.estimator.positions import check_positions
from mixedlearn.estimator.validation import (
    among_all,
    check_frame,
    check_response,
    check_weights,
    column_names,
    find_labels,
    find_offset,
    formula_frame,
    notes_of_columns,
    numeric_columns,
    response_frame,
)
from mixedlearn.formula import (
    CompiledFormula,
    compile_formula,
    learn_response,
    parse,
    refuse_learning,
    terms_of,
)
from mixedlearn.specification import (
    Specification,
    factor_name,
    find_group_columns,
    make_specification,
)

# The parameters that a formula stands for, and their defaults.
_BESIDE_A_FORMULA = {
    "groups": None,
    "fixed_effects": None,
    "random_intercept": True,
    "random_slopes": None,
    "covariance": "full",
    "fit_intercept": True,
}


@dataclass(frozen=True, slots=True)
class FitInput:
    """What `fit` has read.

    Attributes
    ----------
    specification : Specification
    formula : CompiledFormula or None
    source : DataFrame or ndarray
        Where the numeric columns come from.
    rows : Rows
        Of positive weight, their response less its offset. NaN and infinity in their columns are
        not looked for, unless a weight of zero hides them: they show in the sums.
    notes : dict of str to str
        What users should know of how the rows were read, of a column by its name.
    noise : tuple of (NoiseSource, NoiseColumns), or None
        What the residual structure says of the rows, if there is one.
    """

    specification: Specification
    formula: CompiledFormula | None
    source: Any
    rows: Rows
    notes: dict[str, str]
    noise: tuple[NoiseSource, NoiseColumns] | None


def read_fit(
    estimator: Any,
    X: Any,
    y: Any,
    groups: Any,
    sample_weight: Any,
    offset: Any,
    *,
    is_batch: bool = False,
) -> FitInput:
    """Read the arguments of `fit`; the estimator gets the names of its columns.

    ``is_batch``: whether further rows will come, which a `RowReader` reads.

    Raises
    ------
    ValueError, TypeError
        As `MixedLinearRegressor.fit`, or `partial_fit`.
    """
    frame = _check_columns(estimator, estimator, X, groups)
    formula: CompiledFormula | None = None
    if estimator.formula is None:
        specification, labels = _by_parameters(estimator, frame, groups)
        source, all_labels = frame, labels
        labels = [own for own in labels if own.name in specification.factor_names]
    else:
        # Nothing is learnt from rows of weight zero.
        weights = check_weights(sample_weight, frame)
        present_frame = frame if weights is None else frame[weights > 0.0]
        if is_batch:
            names = list(frame.columns)
            refuse_learning(terms_of(estimator.formula, names), names)
        formula, source = compile_formula(
            estimator.formula, present_frame, keeps_categories=is_batch
        )
        specification, labels = formula.specification(reml=estimator.reml), formula.labels(frame)
        all_labels = [*labels, *_series_beside_formula(estimator, frame)]
    columns = numeric_columns(
        estimator, source, specification, check_finite=is_batch or sample_weight is not None
    )
    weights = check_weights(sample_weight, frame, may_vanish=is_batch)
    left = "" if formula is None else parse(estimator.formula).response
    if formula is not None and left:
        formula, response = _learn_response(estimator, formula, left, frame, y, weights)
    else:
        response = check_response(estimator, frame, y)
    known = find_offset(offset, formula, frame, weights)
    response = response if known is None else response - known
    if len(columns) == len(response):
        rows = Rows(columns, tuple(labels), response, weights).present()
    else:
        # The columns of the formula are those of rows that are present.
        nothing = np.empty((len(response), 0))
        rows = replace(Rows(nothing, tuple(labels), response, weights).present(), X=columns)
    if formula is None:
        notes = notes_of_columns(frame, specification)
    else:
        notes = {note: note for note in formula.notes}
    noise = None
    if estimator.residual is not None:
        factors = _columns_of_factors(estimator, frame, formula, all_labels)
        found = find_noise(estimator, frame, factors)
        read = read_noise(found, frame, all_labels)
        noise = found, read if weights is None else read.rows(weights > 0.0)
    return FitInput(specification, formula, source, rows, notes, noise)


def _columns_of_factors(
    estimator: Any, frame: Any, formula: CompiledFormula | None, labels: list[Labels]
) -> dict[str, tuple[str, ...]]:
    """The columns of X that hold the labels of every factor; none where they came beside X."""
    names = column_names(frame)
    found: dict[str, tuple[str, ...]] = {own.name: () for own in labels}
    for columns in find_group_columns(estimator.groups, names):
        found[factor_name(columns, names)] = tuple(names[column] for column in columns)
    if formula is not None:
        found.update({factor.name: factor.columns for factor in formula.factors})
    return found


def _series_beside_formula(estimator: Any, frame: Any) -> list[Labels]:
    """The labels of levels in which rows are correlated and that no term of a formula names."""
    if estimator.groups is None:
        return []
    names = column_names(frame)
    return find_labels(frame, None, names, find_group_columns(estimator.groups, names))


def _learn_response(
    estimator: Any, formula: CompiledFormula, text: str, frame: Any, y: Any, weights: Any
) -> tuple[CompiledFormula, NDArray[np.float64]]:
    """The formula with its left-hand side, and the response of the rows; see `learn_response`."""
    data = response_frame(text, frame, y)
    present = np.ones(len(data), dtype=bool) if weights is None else weights > 0.0
    response, values = learn_response(text, data[present])
    values = check_response(estimator, data[present], values)
    return formula.with_response(response), among_all(values, present)


def read_factors(estimator: Any, X: Any, groups: Any) -> tuple[Specification, Rows]:
    """The model, and rows of which only the labels are read."""
    frame = _check_columns(estimator, clone(estimator), X, groups)
    if estimator.formula is None:
        specification, labels = _by_parameters(estimator, frame, groups)
    else:
        compiled, _ = compile_formula(estimator.formula, frame)
        specification, labels = compiled.specification(reml=estimator.reml), compiled.labels(frame)
    return specification, Rows(np.empty((len(frame), 0)), tuple(labels))


def _check_columns(estimator: Any, target: Any, X: Any, groups: Any) -> Any:
    """Check X for `fit`; the target gets the names of its columns."""
    if estimator.formula is None:
        return check_frame(target, X, has_groups=groups is not None, reset=True)
    check_beside_formula(estimator)
    return check_frame(target, formula_frame(X, groups), has_groups=True, reset=True)


def check_beside_formula(estimator: Any) -> None:
    """Refuse parameters that a formula stands for."""
    for name, default in _BESIDE_A_FORMULA.items():
        if name == "groups" and has_noise(estimator):
            # They may be those in which rows are correlated.
            continue
        value = getattr(estimator, name)
        if not (value is default or (isinstance(value, (str, np.bool_)) and value == default)):
            raise ValueError(
                f"formula and {name} are both given: the formula says all that {name} would. "
                f"Leave {name}={default!r}."
            )


def _check_names(estimator: Any, X: Any) -> None:
    """Refuse names of columns where the columns of a frame are not called by text."""
    if not is_frame(X) or all(isinstance(name, str) for name in X.columns):
        return
    for parameter in ("groups", "fixed_effects", "random_slopes"):
        if _has_text(getattr(estimator, parameter)):
            raise ValueError(
                f"{parameter} names columns, but the names of the columns of X are not all text, "
                f"{shown(X.columns[0])} for example. Give positions, or rename the columns: "
                "X.columns = ['_'.join(map(str, name)) for name in X.columns] makes text of a "
                "MultiIndex, X.columns.astype(str) of numbers."
            )


def _has_text(value: Any) -> bool:
    """Whether a parameter is text, or a container of some."""
    if isinstance(value, dict):
        return any(map(_has_text, value.values()))
    if isinstance(value, (list, tuple, np.ndarray, pd.Index)):
        return any(map(_has_text, value))
    return isinstance(value, str)


def _by_parameters(estimator: Any, X: Any, groups: Any) -> tuple[Specification, list[Labels]]:
    """What the parameters say about these columns, and the labels of every factor."""
    names = column_names(X)
    _check_names(estimator, X)
    check_positions(estimator.groups, X)
    group_columns = find_group_columns(estimator.groups, names)
    labels = find_labels(X, groups, names, group_columns)
    factors = [
        (own.name, group_columns[k] if group_columns else ()) for k, own in enumerate(labels)
    ]
    return specification_by_parameters(estimator, names, factors), labels


def specification_by_parameters(
    estimator: Any, names: Sequence[str], factors: Sequence[tuple[str, tuple[int, ...]]]
) -> Specification:
    """The model that the parameters describe, without a formula; see `make_specification`."""
    return make_specification(
        names,
        factors,
        fixed_effects=estimator.fixed_effects,
        random_intercept=estimator.random_intercept,
        random_slopes=estimator.random_slopes,
        covariance=estimator.covariance,
        fit_intercept=estimator.fit_intercept,
        reml=estimator.reml,
        may_lack_effects=has_noise(estimator),
    )
