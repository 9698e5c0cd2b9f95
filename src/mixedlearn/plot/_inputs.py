"""What predictions of made-up rows need: factors, covariates and their typical values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic.parser.types import Factor as FormulaFactor
from numpy.typing import NDArray

from mixedlearn.data.numbers import NUMBERS, kind_of_objects
from mixedlearn.formula import as_pandas
from mixedlearn.formula.terms import names_in
from mixedlearn.inference._models import view_of
from mixedlearn.model.fitted import FittedModel
from mixedlearn.specification import find_column

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Covariate:
    """A column of X with an effect.

    Attributes
    ----------
    name : str
    is_categorical : bool
        Whether the model takes its values as categories, so that it knows no others.
    is_straight : bool
        Whether predictions are linear in it, the other columns being fixed.
    """

    name: str
    is_categorical: bool
    is_straight: bool


def covariates(view: Any) -> list[Covariate]:
    """The columns of X that have a fixed or random effect."""
    specification, compiled = view.model.specification, view.formula
    if compiled is None:
        return [
            Covariate(specification.names[column], False, True) for column in specification.columns
        ]
    found: dict[str, Covariate] = {}
    for coding in compiled.codings:
        for term in coding.terms:
            for factor in term.factors:
                kind, _ = coding.spec.encoder_state[factor.expr]
                is_categorical = kind is FormulaFactor.Kind.CATEGORICAL
                is_straight = factor.eval_method is FormulaFactor.EvalMethod.LOOKUP
                for name, _ in names_in(factor):
                    if name in coding.variables:
                        known = found.get(name, Covariate(name, False, True))
                        found[name] = Covariate(
                            name,
                            known.is_categorical or is_categorical,
                            known.is_straight and is_straight,
                        )
    return list(found.values())


def slope_covariates(view: Any, k: int) -> list[str]:
    """The columns of X that the random slopes of factor k are made of."""
    specification, compiled = view.model.specification, view.formula
    slopes = {
        specification.names[specification.columns[slope]]
        for slope in specification.factors[k].slopes
    }
    if compiled is None:
        return sorted(slopes, key=specification.names.index)
    found = [
        name
        for coding in compiled.codings
        if slopes >= {*coding.names}
        for name in coding.variables
    ]
    return list(dict.fromkeys(found))


def only_covariate(estimator: Any, known: Sequence[Covariate], feature: Any, k: int) -> Covariate:
    """The covariate that is named; else the only random slope of factor k, else the only number.

    Raises
    ------
    ValueError
        If there is no such column, it has no effect, or there is no only one.
    """
    by_name = {column.name: column for column in known}
    if not by_name:
        raise ValueError(
            "The model has no covariates, only intercepts, so its lines are flat: there is no "
            "feature to draw them against."
        )
    if feature is None:
        numbers = [column.name for column in known if not column.is_categorical]
        slopes = [
            name
            for name in slope_covariates(view_of(estimator, takes_noise=True), k)
            if name in numbers
        ]
        for only in (slopes, numbers, list(by_name)):
            if len(only) == 1:
                return by_name[only[0]]
        raise ValueError(
            "The model has several covariates: choose the one for the x axis by feature=..., from "
            f"{', '.join(map(repr, by_name))}."
        )
    names = list(getattr(estimator, "feature_names_in_", []))
    names = names or [f"x{column}" for column in range(estimator.n_features_in_)]
    name = names[find_column(feature, names, "feature")]
    if name not in by_name:
        raise ValueError(
            f"feature names the column {name!r}, which has no effect in the model: choose from "
            f"{', '.join(map(repr, by_name))}."
        )
    return by_name[name]


def covariate_frame(view: Any, X: Any, columns: NDArray[np.floating]) -> pd.DataFrame:
    """The columns of X that `design_columns` needs.

    Parameters
    ----------
    view : FittedView
    X : array-like or DataFrame of shape (n, n_features)
    columns : ndarray of shape (n, k)
        The numeric columns of X, as the view's `rows` have them.
    """
    compiled = view.formula
    if compiled is None:
        return pd.DataFrame(columns, columns=list(view.model.specification.column_names))
    used = [name for coding in compiled.codings for name in coding.variables]
    used += [name for factor in compiled.factors for name in factor.columns]
    return as_pandas(X)[list(dict.fromkeys(used))].reset_index(drop=True)


def design_columns(view: Any, frame: pd.DataFrame) -> NDArray[np.floating]:
    """The numeric columns of rows, from the columns of `covariate_frame`."""
    if view.formula is None:
        return frame.to_numpy(dtype=np.float64)
    return view.formula.rows(frame)


def typical_rows(
    frame: pd.DataFrame, columns: Sequence[Covariate], codes: NDArray[np.integer], n_levels: int
) -> pd.DataFrame:
    """A row for every level: means of numbers, the most frequent of categories.

    Parameters
    ----------
    frame : DataFrame of shape (n, n_columns)
    columns : sequence of Covariate
        The columns that get typical values. Others have those of the level's first row.
    codes : ndarray of shape (n,), int
        Level of each row, -1 for none; every level has rows.
    n_levels : int
    """
    present = np.flatnonzero(codes >= 0)
    own = codes[present]
    counts = np.bincount(own, minlength=n_levels)
    rows = frame.iloc[present[first_rows(own, n_levels)]].reset_index(drop=True)
    for column in columns:
        values = frame[column.name].iloc[present]
        if column.is_categorical or not is_number(values):
            rows[column.name] = values.iloc[_most_frequent(values, own)].array
        else:
            weights = values.to_numpy(dtype=np.float64)
            rows[column.name] = np.bincount(own, weights, n_levels) / counts
    return rows


def first_rows(codes: NDArray[np.integer], n_levels: int) -> NDArray[np.intp]:
    """The first row of every level."""
    first = np.empty(n_levels, dtype=np.intp)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return first


def is_number(values: pd.Series) -> bool:
    """Whether a column holds numbers that have a mean."""
    if values.dtype == object:
        return kind_of_objects(values) == NUMBERS
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def _most_frequent(values: pd.Series, codes: NDArray[np.integer]) -> NDArray[np.intp]:
    """For every level a row with its most frequent value, the earlier one of ties."""
    distinct, categories = pd.factorize(values)
    pairs, first, counts = np.unique(
        codes.astype(np.int64) * len(categories) + distinct, return_index=True, return_counts=True
    )
    levels = pairs // len(categories)
    order = np.lexsort((first, -counts, levels))
    starts = np.flatnonzero(np.diff(levels[order], prepend=-1))
    return first[order[starts]]


def constant_codes(
    codes: NDArray[np.integer], others: NDArray[np.integer], n_levels: int
) -> NDArray[np.int32]:
    """For every level the one level of another factor that its rows have; -1 where they differ."""
    found = others[first_rows(codes, n_levels)].astype(np.int32)
    found[codes[others != found[codes]]] = -1
    return found


def level_categories(levels: pd.Index) -> pd.Index:
    """Levels as the categories of a column; those of an interaction are tuples."""
    return pd.Index(levels.tolist(), tupleize_cols=False) if levels.nlevels > 1 else levels


def group_columns(view: Any) -> list[tuple[str, ...]]:
    """For every factor the columns of X that hold its labels; none where they come beside X."""
    specification, compiled = view.model.specification, view.formula
    if compiled is not None:
        return [factor.columns for factor in compiled.factors]
    return [
        tuple(specification.names[column] for column in factor.columns)
        for factor in specification.factors
    ]


def parent_codes(model: FittedModel, k: int, j: int) -> NDArray[np.int32] | None:
    """For every level of factor k the level of factor j that it is nested in; None if it is not."""
    sums = model.observed
    return sums.containing_level(k, j) if sums.is_nested(k, j) else None
