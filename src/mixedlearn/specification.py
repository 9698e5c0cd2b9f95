"""Specification: from parameters and the columns of X to the parts of the model.

A `Specification` is what the parameters say once the columns of X are known; it does not depend on
the rows, so the same object serves `fit` and `predict`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.structures import REGISTRY, Structure, make_structure
from mixedlearn.exceptions import did_you_mean

INTERCEPT = "intercept"


@dataclass(frozen=True, slots=True)
class Factor:
    """A grouping factor and its random effects.

    Attributes
    ----------
    name : str
        Name of the factor; of an interaction, those of its columns with colons between them.
    columns : tuple of int
        Columns of X that hold the labels; several for an interaction, none where labels come beside
        X.
    slopes : tuple of int
        Numeric columns with a random slope.
    effects : tuple of str
        Names of the random effects of a level.
    random_intercept : bool
        Whether each level has an intercept of its own.
    structure : Structure
        Structure of the covariance of a level's effects.
    """

    name: str
    columns: tuple[int, ...]
    slopes: tuple[int, ...]
    effects: tuple[str, ...]
    random_intercept: bool
    structure: Structure


@dataclass(frozen=True, slots=True, eq=False)
class ColumnFunction:
    """A column of a formula: a product of numeric columns and of functions of categories.

    Attributes
    ----------
    numeric : frozenset of str
        The numeric columns in the product.
    categorical : dict of str to ndarray of shape (n_categories,)
        The function of every categorical variable in it.
    scale : float
    """

    numeric: frozenset[str]
    categorical: dict[str, NDArray[np.float64]]
    scale: float


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """Fixed effects that belong together: a covariate, a categorical variable, an interaction.

    Attributes
    ----------
    name : str
        Name of the term.
    coefs : tuple of int
        Positions of its coefficients among all.
    variables : frozenset of str
        The variables whose interaction it is; a term contains another whose variables are among
        its own.
    numeric : frozenset of str
        Those that are not categorical.
    marginal : ndarray of shape (df, p)
        Combinations of the coefficients that are zero under its marginal (type III) hypothesis:
        they span what its coefficients are if all categorical variables have contrasts that sum to
        zero.
    columns : tuple of ColumnFunction
        What its columns are, if a variable of the formula is categorical.
    treatment : tuple of ColumnFunction
        What they would be with treatment contrasts.
    """

    name: str
    coefs: tuple[int, ...]
    variables: frozenset[str]
    numeric: frozenset[str]
    marginal: NDArray[np.float64]
    columns: tuple[ColumnFunction, ...] = ()
    treatment: tuple[ColumnFunction, ...] = ()


@dataclass(frozen=True, slots=True)
class EffectTerm:
    """Random effects that belong together, as the fixed effects of a `Term` do.

    Attributes
    ----------
    name : str
        Name of the term.
    effects : tuple of str
        Names of its effects.
    variables : frozenset of str
        The variables whose interaction it is.
    has_constant : bool
        Whether its columns sum to a constant, as those of all categories do.
    """

    name: str
    effects: tuple[str, ...]
    variables: frozenset[str]
    has_constant: bool = False


@dataclass(frozen=True, slots=True)
class Specification:
    """The model in terms of the columns of X.

    Attributes
    ----------
    names : tuple of str
        Names of all columns of X.
    columns : tuple of int
        Columns of X with a fixed or random effect: the numeric columns of `Rows`.
    factors : tuple of Factor
        Grouping factors; empty for a model without random effects.
    fixed : tuple of int
        Numeric columns with a fixed effect.
    fit_intercept : bool
        Whether there is a fixed intercept.
    reml : bool
        Restricted likelihood or likelihood.
    terms : tuple of Term
        The fixed effects but for the intercept, by terms.
    drops_aliased : bool
        Whether a fixed column that is a combination of earlier ones is left out, as R does with
        those of a formula, instead of sharing its effect with them.
    """

    names: tuple[str, ...]
    columns: tuple[int, ...]
    factors: tuple[Factor, ...]
    fixed: tuple[int, ...]
    fit_intercept: bool
    reml: bool
    terms: tuple[Term, ...]
    drops_aliased: bool

    @property
    def coef_names(self) -> tuple[str, ...]:
        """Names of the coefficients, the intercept first if there is one."""
        names = tuple(self.names[self.columns[position]] for position in self.fixed)
        return ((INTERCEPT,) if self.fit_intercept else ()) + names

    @property
    def slopes(self) -> tuple[tuple[int, ...], ...]:
        """For every factor, the numeric columns with a random slope."""
        return tuple(factor.slopes for factor in self.factors)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the numeric columns."""
        return tuple(self.names[column] for column in self.columns)

    @property
    def factor_names(self) -> tuple[str, ...]:
        """Names of the grouping factors."""
        return tuple(factor.name for factor in self.factors)


def find_group_columns(groups: Any, names: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Positions of the columns that the constructor's ``groups`` names, for every factor.

    Raises
    ------
    ValueError
        If a column does not exist, a factor is named twice, or a list or an interaction is empty.
    """
    if groups is None:
        return ()
    if isinstance(groups, list) and not groups:
        raise ValueError("groups=[] names no column: name one, or leave groups=None.")
    found: list[tuple[int, ...]] = []
    for entry in groups if isinstance(groups, list) else [groups]:
        _refuse_other_interactions(entry, names)
        if isinstance(entry, tuple) and len(entry) < 2:
            advice = f"give the column itself, {entry[0]!r}" if entry else "name its columns"
            raise ValueError(
                f"groups has the tuple {entry!r}, but an interaction has two columns or more: "
                f"{advice}."
            )
        parts = entry if isinstance(entry, tuple) else (entry,)
        columns = tuple(find_column(part, names, "groups") for part in parts)
        if len(set(columns)) < len(columns):
            raise ValueError(f"groups has the interaction {entry!r}, which names a column twice.")
        if any(set(columns) == set(other) for other in found):
            raise ValueError(
                f"groups names the factor {factor_name(columns, names)!r} twice, in whatever order "
                "its columns are: name it once."
            )
        found.append(columns)
    return tuple(found)


def _refuse_other_interactions(entry: Any, names: Sequence[str]) -> None:
    """Refuse what looks like an interaction but is no tuple."""
    parts = entry.split(":") if isinstance(entry, str) and entry not in names else entry
    if isinstance(parts, list) and len(parts) > 1 and all(part in names for part in parts):
        raise ValueError(f"groups has the entry {entry!r}: an interaction is a tuple, {(*parts,)}.")


def factor_name(columns: Sequence[int], names: Sequence[str]) -> str:
    """Name of the factor that columns of X make: their names with colons between them."""
    return ":".join(names[column] for column in columns)


def plain_name(factor: Any) -> Any:
    """The name of a factor, of an interaction that is given as the tuple of its columns too."""
    return ":".join(map(str, factor)) if isinstance(factor, tuple) else factor


def make_specification(
    names: Sequence[str],
    factors: Sequence[tuple[str, tuple[int, ...]]],
    *,
    fixed_effects: Any,
    random_intercept: Any,
    random_slopes: Any,
    covariance: Any,
    fit_intercept: bool,
    reml: bool,
    terms: Sequence[Term] | None = None,
    may_lack_effects: bool = False,
) -> Specification:
    """Resolve the constructor's parameters; see `MixedLinearRegressor` for their meaning.

    Parameters
    ----------
    names : sequence of str
        Names of the columns of X.
    factors : sequence of (str, tuple of int)
        Name of every grouping factor, and the columns of X that hold its labels; empty where no
        groups were given.
    terms : sequence of Term, optional
        The terms of the fixed effects of a formula; by default every column is one.
    may_lack_effects : bool, default=False
        Whether a factor may be without random effects. It is none of the model then, and its
        columns have no fixed effect.
    """
    factor_names = [name for name, _ in factors]
    twice = next((name for name in factor_names if factor_names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"Two grouping factors are called {twice!r}: rename one of them.")
    taken = frozenset(column for _, columns in factors for column in columns)
    if fixed_effects is None:
        fixed = tuple(column for column in range(len(names)) if column not in taken)
    else:
        fixed = _columns(fixed_effects, names, taken, "fixed_effects")
    intercepts = _by_factor(random_intercept, factor_names, "random_intercept", True)
    by_name = isinstance(random_slopes, Mapping)
    slopes = [
        _columns(own, names, taken, f"random_slopes[{name!r}]" if by_name else "random_slopes")
        for name, own in zip(
            factor_names, _by_factor(random_slopes, factor_names, "random_slopes", ()), strict=True
        )
    ]
    covariances = _by_factor(covariance, factor_names, "covariance", "full")
    columns = tuple(sorted({*fixed, *(column for own in slopes for column in own)}))
    position = {column: index for index, column in enumerate(columns)}
    if INTERCEPT in {names[column] for column in columns} and (fit_intercept or any(intercepts)):
        raise ValueError(
            f"X has a column called {INTERCEPT!r}, the name of the constant: rename it, or set "
            "fit_intercept=False and random_intercept=False."
        )
    resolved = tuple(
        _factor(own, intercept, own_slopes, own_covariance, names, position)
        for own, intercept, own_slopes, own_covariance in zip(
            factors, intercepts, slopes, covariances, strict=True
        )
        if intercept or own_slopes or not may_lack_effects
    )
    fixed_names = [names[column] for column in fixed]
    return Specification(
        names=tuple(names),
        columns=columns,
        factors=resolved,
        fixed=tuple(position[column] for column in fixed),
        fit_intercept=fit_intercept,
        reml=reml,
        terms=column_terms(fixed_names, fit_intercept) if terms is None else tuple(terms),
        drops_aliased=terms is not None,
    )


def _factor(
    own: tuple[str, tuple[int, ...]],
    intercept: Any,
    slopes: tuple[int, ...],
    covariance: Any,
    names: Sequence[str],
    position: Mapping[int, int],
) -> Factor:
    """A factor by its name and group columns, with its slopes among the numeric columns."""
    name, columns = own
    _check_factor(name, intercept, slopes, covariance)
    slope_names = tuple(names[column] for column in slopes)
    effects = (INTERCEPT, *slope_names) if intercept else slope_names
    return Factor(
        name=name,
        columns=columns,
        slopes=tuple(position[column] for column in slopes),
        effects=effects,
        random_intercept=bool(intercept),
        structure=_structure(name, covariance, effects),
    )


def column_terms(names: Sequence[str], fit_intercept: bool) -> tuple[Term, ...]:
    """Every column a term of its own."""
    rows = np.eye(len(names) + fit_intercept)[int(fit_intercept) :]
    return tuple(
        Term(name, (position + fit_intercept,), frozenset([name]), frozenset([name]), row[None])
        for position, (name, row) in enumerate(zip(names, rows, strict=True))
    )


def _check_factor(name: str, intercept: Any, slopes: tuple[int, ...], covariance: Any) -> None:
    if not isinstance(intercept, (bool, np.bool_)):
        raise ValueError(
            f"random_intercept has the entry {intercept!r} for {name!r}: give True or False."
        )
    if isinstance(covariance, str) and covariance not in REGISTRY:
        names = ", ".join(map(repr, REGISTRY))
        raise ValueError(
            f"covariance has the entry {covariance!r} for {name!r}: give {names} or a mask of "
            f"booleans.{did_you_mean(covariance, list(REGISTRY))}"
        )
    if not (intercept or slopes):
        raise ValueError(
            f"The factor {name!r} has no random effect: random_intercept is False and "
            "random_slopes is empty. Set one of them, or leave the factor out of groups."
        )


def _structure(name: str, covariance: Any, effects: tuple[str, ...]) -> Structure:
    try:
        return make_structure(covariance, effects)
    except ValueError as error:
        raise ValueError(f"Factor {name!r}: {error}") from error


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
        raise ValueError(
            f"{parameter} names the column {column!r}, which X does not have."
            f"{did_you_mean(column, names)} Its columns are: {', '.join(map(repr, names))}."
            f"{_lost_names(names)}"
        )
    raise ValueError(
        f"{parameter} must name columns of X by name (str) or position (int), got {column!r}."
    )


def _lost_names(names: Sequence[str]) -> str:
    """A hint for columns that are called as those of an array are, for the end of a message."""
    if list(names) != [f"x{k}" for k in range(len(names))]:
        return ""
    return (
        " An array has no other names: give a position, or have the transformers of a Pipeline "
        "keep the names by set_output(transform='pandas'). Bagging, AdaBoost, RFE, "
        "SequentialFeatureSelector and RegressorChain make arrays of all that they are given: "
        "there, pass the labels beside X if they take groups."
    )


def _columns(
    columns: Any, names: Sequence[str], taken: Set[int], parameter: str
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
        if column in taken:
            raise ValueError(
                f"{parameter} names {names[column]!r}, which is a group column: it has no "
                "numeric effect. Copy it to a column of its own if you need one."
            )
        if found.count(column) > 1:
            raise ValueError(f"{parameter} names the column {names[column]!r} twice.")
    return found


def _by_factor(value: Any, factor_names: Sequence[str], parameter: str, default: Any) -> list[Any]:
    """A parameter for every factor: the same for all, or given by factor in a dict."""
    if not isinstance(value, Mapping):
        return [value] * len(factor_names)
    if not factor_names:
        return []
    given: dict[Any, Any] = {}
    for own_key, entry in value.items():
        key = plain_name(own_key)
        if key in given:
            raise ValueError(f"{parameter} has two entries for {key!r}: give one.")
        given[key] = entry
    for key in given:
        if key not in factor_names:
            known = ", ".join(map(repr, factor_names))
            is_one = len(factor_names) == 1
            raise ValueError(
                f"{parameter} has an entry for {key!r}, but the grouping factor"
                f"{' is' if is_one else 's are'} called {known}: use "
                f"{'that name' if is_one else 'one of these names'}, or give the value itself."
            )
    return [given.get(name, default) for name in factor_names]
