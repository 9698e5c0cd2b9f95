"""Design: from parameters and the columns of X to the parts of the model.

A `Specification` is what the parameters say once the columns of X are known; it does not depend on
the rows, so the same object serves `fit` and `predict`. A `Design` is the new rows of a prediction:
numeric columns and a level for each row.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance import CovarianceStructure, make_structure

INTERCEPT = "intercept"


@dataclass(frozen=True, slots=True)
class Specification:
    """The model in terms of the columns of X.

    Attributes
    ----------
    names : tuple of str
        Names of all columns of X.
    group_column : int or None
        Column of X that holds the grouping factor, if one does.
    columns : tuple of int
        Columns of X with a fixed or random effect: the numeric columns of a `Design`.
    factor : str or None
        Name of the grouping factor; None for a model without random effects.
    fixed : tuple of int
        Numeric columns with a fixed effect.
    slopes : tuple of int
        Numeric columns with a random slope.
    effects : tuple of str
        Names of the random effects of a level.
    fit_intercept, random_intercept : bool
        Whether the constant has a fixed, a random effect.
    structure : CovarianceStructure
        Structure of the covariance of a level's effects.
    reml : bool
        Restricted likelihood or likelihood.
    """

    names: tuple[str, ...]
    group_column: int | None
    columns: tuple[int, ...]
    factor: str | None
    fixed: tuple[int, ...]
    slopes: tuple[int, ...]
    effects: tuple[str, ...]
    fit_intercept: bool
    random_intercept: bool
    structure: CovarianceStructure
    reml: bool

    @property
    def coef_names(self) -> tuple[str, ...]:
        """Names of the coefficients, the intercept first if there is one."""
        names = tuple(self.names[self.columns[position]] for position in self.fixed)
        return ((INTERCEPT,) if self.fit_intercept else ()) + names


@dataclass(frozen=True, slots=True)
class Design:
    """The rows of a model.

    Attributes
    ----------
    X : ndarray of shape (n, k)
        The specification's numeric columns.
    codes : ndarray of shape (n,), int, or None
        Level of each row; -1 for a level unknown to the model; None without groups.
    """

    X: NDArray[np.floating]
    codes: NDArray[np.int32] | None


def find_group_column(groups: Any, names: Sequence[str]) -> int | None:
    """Position of the column that the constructor's ``groups`` names."""
    if groups is None:
        return None
    if isinstance(groups, (list, tuple)) and len(groups) != 1:
        raise ValueError(
            f"groups={groups!r} names {len(groups)} columns, but a model has one grouping factor: "
            "name one column."
        )
    if isinstance(groups, tuple):
        raise ValueError(f"groups={groups!r} is a tuple: give the column itself, {groups[0]!r}.")
    return find_column(groups[0] if isinstance(groups, list) else groups, names, "groups")


def make_specification(
    names: Sequence[str],
    group_column: int | None,
    factor: str | None,
    *,
    fixed_effects: Any,
    random_intercept: Any,
    random_slopes: Any,
    covariance: Any,
    fit_intercept: bool,
    reml: bool,
) -> Specification:
    """Resolve the constructor's parameters; see `MixedLinearRegressor` for their meaning.

    Parameters
    ----------
    names : sequence of str
        Names of the columns of X.
    group_column : int or None
        The column of X that holds the grouping factor.
    factor : str or None
        Name of the grouping factor; None where no groups were given.
    """
    if fixed_effects is None:
        fixed = tuple(column for column in range(len(names)) if column != group_column)
    else:
        fixed = _columns(fixed_effects, names, group_column, "fixed_effects")
    intercept = _of_factor(random_intercept, factor, "random_intercept", True)
    if not isinstance(intercept, (bool, np.bool_)):
        raise ValueError(
            f"random_intercept has the entry {intercept!r} for {factor!r}: give True or False."
        )
    intercept = bool(intercept)
    slopes = _columns(
        _of_factor(random_slopes, factor, "random_slopes", ()), names, group_column, "random_slopes"
    )
    covariance = _of_factor(covariance, factor, "covariance", "full")
    if isinstance(covariance, str) and covariance not in ("full", "diagonal", "scalar"):
        raise ValueError(
            f"covariance has the entry {covariance!r} for {factor!r}: give 'full', 'diagonal', "
            "'scalar' or a mask of booleans."
        )
    if factor is None:
        intercept, slopes, covariance = False, (), "full"
    elif not (intercept or slopes):
        raise ValueError(
            f"The factor {factor!r} has no random effect: random_intercept is False and "
            "random_slopes is empty. Set one of them, or fit without groups."
        )
    used = {names[column] for column in (*fixed, *slopes)}
    if INTERCEPT in used and (fit_intercept or intercept):
        raise ValueError(
            f"X has a column called {INTERCEPT!r}, the name of the constant: rename it, or set "
            "fit_intercept=False and random_intercept=False."
        )
    effects = ((INTERCEPT,) if intercept else ()) + tuple(names[column] for column in slopes)
    columns = tuple(sorted({*fixed, *slopes}))
    position = {column: index for index, column in enumerate(columns)}
    return Specification(
        names=tuple(names),
        group_column=group_column,
        columns=columns,
        factor=factor,
        fixed=tuple(position[column] for column in fixed),
        slopes=tuple(position[column] for column in slopes),
        effects=effects,
        fit_intercept=fit_intercept,
        random_intercept=intercept,
        structure=make_structure(covariance, effects),
        reml=reml,
    )


def find_column(column: Any, names: Sequence[str], parameter: str) -> int:
    """Position of a column given by name or position.

    Raises
    ------
    ValueError
        If there is no such column; the message suggests the nearest name.
    """
    if isinstance(column, (int, np.integer)) and not isinstance(column, (bool, np.bool_)):
        if -len(names) <= column < len(names):
            return int(column) % len(names)
        raise ValueError(
            # scikit-learn's checks look for "feature(s)".
            f"{parameter} names column {column}, but X has {len(names)} feature(s): give a "
            f"position from 0 to {len(names) - 1} or a name."
        )
    if isinstance(column, str):
        if column in names:
            return list(names).index(column)
        near = difflib.get_close_matches(column, names, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"{parameter} names the column {column!r}, which X does not have.{hint} "
            f"Its columns are: {', '.join(map(repr, names))}."
        )
    raise ValueError(
        f"{parameter} must name columns of X by name (str) or position (int), got {column!r}."
    )


def _columns(
    columns: Any, names: Sequence[str], group_column: int | None, parameter: str
) -> tuple[int, ...]:
    if columns is None:
        return ()
    if isinstance(columns, (str, int, np.integer)):
        columns = [columns]
    if isinstance(columns, (Mapping, Set)) or not isinstance(columns, Iterable):
        raise ValueError(
            f"{parameter} must be a list of columns of X, got {columns!r}: give their names or "
            "positions in order."
        )
    found = tuple(find_column(column, names, parameter) for column in columns)
    for column in found:
        if column == group_column:
            raise ValueError(
                f"{parameter} names {names[column]!r}, which is the group column: it has no "
                "numeric effect. Copy it to a column of its own if you need one."
            )
        if found.count(column) > 1:
            raise ValueError(f"{parameter} names the column {names[column]!r} twice.")
    return found


def _of_factor(value: Any, factor: str | None, parameter: str, default: Any) -> Any:
    """The part of a parameter that belongs to the factor, where it is given by factor."""
    if not isinstance(value, Mapping):
        return value
    if factor is None:
        return default
    unknown = [name for name in value if name != factor]
    if unknown:
        raise ValueError(
            f"{parameter} has an entry for {unknown[0]!r}, but the grouping factor is called "
            f"{factor!r}: use that name, or give the value itself."
        )
    return value.get(factor, default)
