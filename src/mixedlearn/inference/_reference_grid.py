"""The reference grid: the combinations of values for which a model's means are taken.

Notation
--------
A grid has an axis for every column of X with a fixed effect. Those that were asked for are *kept*,
over the others means are *averaged* with weights that sum to one; a covariate that is held at one
value has an axis of length one. A marginal mean is a row l of weights of the coefficients, the
average of rows of the model matrix (Searle, Speed & Milliken 1980).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.data.labels import shown
from mixedlearn.exceptions import did_you_mean
from mixedlearn.formula import Variable, fixed_variables
from mixedlearn.inference._population import Population

FloatArray = NDArray[np.float64]

# Entries of the model matrix of a grid: 400 megabytes.
MOST_ENTRIES = 50_000_000


@dataclass(frozen=True, slots=True)
class Axis:
    """A column of X on the grid.

    Attributes
    ----------
    variable : Variable
    values : tuple
    is_given : bool
        Whether the values were given; else they are the categories, or the mean.
    """

    variable: Variable
    values: tuple[Any, ...]
    is_given: bool

    @property
    def name(self) -> str:
        """Name of the column."""
        return self.variable.name

    @property
    def is_factor(self) -> bool:
        """Whether the column is a categorical variable."""
        return self.variable.categories is not None

    def column(self, places: NDArray[np.intp]) -> Any:
        """The column of a data frame that has these of the values."""
        categories = self.variable.categories
        if categories is None:
            return np.array(self.values, dtype=float)[places]
        values = [self.values[place] for place in places]
        # Numbers and dates are categories only if their column says so; texts and booleans are.
        is_plain = all(isinstance(own, (str, bool, np.bool_)) for own in categories)
        return (
            pd.Categorical(values, list(categories))
            if self.variable.is_category and not is_plain
            else pd.Series(values)
        )


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceGrid:
    """Combinations of values, and the weights of those that are averaged.

    Attributes
    ----------
    view : FittedView
    kept : tuple of Axis
        The first varies slowest.
    averaged : tuple of Axis
    shares : ndarray of shape (n_averaged,)
        Weights of the combinations that are averaged; their sum is one.
    """

    view: Any
    kept: tuple[Axis, ...]
    averaged: tuple[Axis, ...]
    shares: FloatArray

    @property
    def index(self) -> pd.Index:
        """The combinations of the axes that are kept."""
        if not self.kept:
            return pd.Index(["all"], dtype=object)
        if len(self.kept) == 1:
            return pd.Index(list(self.kept[0].values), name=self.kept[0].name, tupleize_cols=False)
        values = [pd.Index(list(axis.values), tupleize_cols=False) for axis in self.kept]
        return pd.MultiIndex.from_product(values, names=[axis.name for axis in self.kept])

    @property
    def axes(self) -> tuple[Axis, ...]:
        """All axes."""
        return (*self.kept, *self.averaged)

    def frame(self) -> pd.DataFrame:
        """All combinations, those that are averaged varying fastest."""
        shape = tuple(len(axis.values) for axis in self.axes)
        places = np.unravel_index(np.arange(int(np.prod(shape, dtype=int))), shape)
        pairs = zip(self.axes, places, strict=True)
        columns = {axis.name: axis.column(own) for axis, own in pairs}
        return pd.DataFrame(columns, index=pd.RangeIndex(len(places[0]) if places else 1))

    def matrix(self, frame: pd.DataFrame) -> FloatArray:
        """The model matrix of combinations, shape (n, p)."""
        specification = self.view.specification
        if self.view.formula is None:
            fixed = frame[[axis.name for axis in _in_model_order(self)]].to_numpy(dtype=float)
        else:
            compiled = self.view.formula
            columns = compiled.rows(frame, compiled.fixed, ())
            fixed = columns[:, list(specification.fixed)]
        constant = np.ones((len(frame), int(specification.fit_intercept)))
        return np.hstack([constant, fixed])

    def average(self, matrix: FloatArray) -> FloatArray:
        """Rows of all combinations averaged, shape (n_kept, p)."""
        parts = matrix.reshape(-1, len(self.shares), matrix.shape[1])
        return np.asarray(np.einsum("kap,a->kp", parts, self.shares))


def _in_model_order(grid: ReferenceGrid) -> list[Axis]:
    by_name = {axis.name: axis for axis in grid.axes}
    return [by_name[own.name] for own in _variables(grid.view)]


def reference_grid(
    view: Any,
    kept: Sequence[str],
    *,
    at: Mapping[str, Any] | None = None,
    weights: Any = "equal",
    X: Any = None,
    sample_weight: Any = None,
    slope: str | None = None,
) -> ReferenceGrid:
    """The grid for means of some columns.

    Parameters
    ----------
    view : FittedView
    kept : sequence of str
    at : dict, optional
        Values of columns.
    weights : {"equal", "proportional"} or dict
    X, sample_weight : optional
        Rows of which the covariates' means and the weights are taken.
    slope : str, optional
        A covariate whose slopes are wanted.

    Raises
    ------
    ValueError
        If a name, value or weight is not one of the model's, or a mean is not known.
    """
    variables = _variables(view)
    at = {} if at is None else at
    _check_names(view, [own.name for own in variables], kept, at)
    if slope is not None:
        _check_names(view, [own.name for own in variables], [slope], {})
    for own in variables:
        if own.name == slope and own.categories is not None:
            raise ValueError(f"{slope!r} is categorical, and has no slope: name a numeric column.")
    _check_rows_alone(view)
    population = None if X is None else Population(view, X, sample_weight)
    if X is None and sample_weight is not None:
        raise ValueError("sample_weight was passed without the rows that it weighs: pass X too.")
    axes = {
        own.name: _axis(
            view,
            own,
            at,
            population,
            is_kept=own.name in kept,
            is_free=own.name == slope and not own.expressions,
        )
        for own in variables
    }
    own_axes = tuple(axes[name] for name in kept)
    others = tuple(axis for name, axis in axes.items() if name not in kept)
    n_cells = int(np.prod([float(len(axis.values)) for axis in axes.values()]))
    if n_cells * len(view.specification.coef_names) > MOST_ENTRIES:
        raise ValueError(
            f"The reference grid has {n_cells:,} combinations of categories, too many to hold: "
            "choose some values of the columns that means are averaged over, by at={...}."
        )
    return ReferenceGrid(view, own_axes, others, _shares(own_axes, others, weights, population))


def _variables(view: Any) -> list[Variable]:
    """The columns of X with a fixed effect; without a formula all are covariates."""
    if view.formula is not None:
        return fixed_variables(view.formula)
    specification = view.specification
    return [
        Variable(specification.column_names[position], None, False, position, ())
        for position in specification.fixed
    ]


def _check_names(
    view: Any, known: Sequence[str], kept: Sequence[str], at: Mapping[str, Any]
) -> None:
    if len(set(kept)) < len(kept):
        twice = next(name for name in kept if list(kept).count(name) > 1)
        raise ValueError(f"The column {twice!r} is named twice: name it once.")
    grouping = {name for own in view.specification.factors for name in own.name.split(":")}
    for name in [*kept, *at]:
        if name in known:
            continue
        reason = "has no fixed effect" if name in grouping else "is no column with a fixed effect"
        raise ValueError(
            f"{name!r} {reason} in the model.{did_you_mean(str(name), known)} Those with a fixed "
            f"effect are: {', '.join(map(repr, known)) or 'none'}."
        )


def _check_rows_alone(view: Any) -> None:
    """Refuse expressions that have no value for a row by itself."""
    codings = [] if view.formula is None else view.formula.fixed_codings()
    for expression in (text for coding in codings for text in coding.across_rows):
        raise ValueError(
            f"{expression!r} of the formula depends on the other rows, so that it has no value for "
            "a row of the reference grid: use a function that keeps what fit learns, such as "
            "center(x) or scale(x), or put the values into a column of X."
        )


def _axis(
    view: Any,
    variable: Variable,
    at: Mapping[str, Any],
    population: Population | None,
    *,
    is_kept: bool,
    is_free: bool,
) -> Axis:
    name, categories = variable.name, variable.categories
    if name in at:
        return Axis(variable, _given_values(variable, at[name]), True)
    if categories is not None:
        return Axis(variable, categories, False)
    if is_kept:
        raise ValueError(
            f"{name!r} is a numeric column, and has no categories: say for which of its values the "
            f"means are wanted, as in at={{{name!r}: [1.0, 2.0]}}."
        )
    mean = _mean(view, variable) if population is None else population.mean(name)
    if mean is None and is_free:
        mean = 0.0
    if mean is None:
        raise ValueError(
            f"The mean of {name!r} is not known: the formula has it only in "
            f"{', '.join(variable.expressions) or 'interactions'}, and a fit keeps no rows. Say "
            f"what its value is, as in at={{{name!r}: 1.0}}, or pass X, the rows of which means "
            "are taken."
        )
    return Axis(variable, (mean,), False)


def _given_values(variable: Variable, given: Any) -> tuple[Any, ...]:
    name, categories = variable.name, variable.categories
    is_one = isinstance(given, (str, bytes)) or not isinstance(given, Iterable)
    values = [given] if is_one else list(given)
    if not values:
        raise ValueError(f"at[{name!r}] is empty: give one value or more.")
    if categories is None:
        try:
            numbers = np.array(values, dtype=float)
        except (TypeError, ValueError):
            numbers = np.array([np.nan])
        if not np.isfinite(numbers).all() or numbers.ndim != 1:
            raise ValueError(f"at[{name!r}] must hold finite numbers, got {given!r}.")
        found: list[Any] = numbers.tolist()
    else:
        for value in values:
            if value not in categories:
                known = ", ".join(shown(own) for own in categories[:10])
                raise ValueError(
                    f"at[{name!r}] has {value!r}, which is no category of {name!r}: they are "
                    f"{known}{', ...' if len(categories) > 10 else ''}."
                )
        found = [categories[categories.index(value)] for value in values]
    if len(set(found)) < len(found):
        raise ValueError(f"at[{name!r}] has a value twice: give each once.")
    return tuple(found)


def _mean(view: Any, variable: Variable) -> float | None:
    """The weighted mean of a numeric column over the rows of the fit, from their sums."""
    if variable.position is None:
        return None
    sums = view.model_of_fit.sums
    constant, column = (sums.fixed_columns(own, True)[:, -1:] for own in ((), [variable.position]))
    centred = float(sums.products(constant, column)[0, 0]) / sums.total_weight
    whole = sums.fixed_columns([variable.position], False)
    return float(centred + whole[0, 0])


def _shares(
    kept: tuple[Axis, ...],
    averaged: tuple[Axis, ...],
    weights: Any,
    population: Population | None,
) -> FloatArray:
    """Weights of the combinations that are averaged."""
    shape = tuple(len(axis.values) for axis in averaged)
    found = np.ones(shape)
    if isinstance(weights, Mapping):
        names = [axis.name for axis in averaged]
        for name, own in weights.items():
            if name not in names:
                raise ValueError(
                    f"weights names {name!r}, which is not averaged over."
                    f"{did_you_mean(str(name), names)} Those that are: "
                    f"{', '.join(map(repr, names)) or 'none'}."
                )
            place = names.index(name)
            sizes = [1] * len(shape)
            sizes[place] = -1
            found = found * _given_weights(averaged[place], own).reshape(sizes)
    elif weights == "proportional":
        if population is None:
            raise ValueError(
                "weights='proportional' needs rows to count, and a fitted model holds none: pass "
                "X=..., those of the fit or of another population."
            )
        factors = [axis for axis in (*kept, *averaged) if axis.is_factor]
        n_kept = sum(axis.is_factor for axis in kept)
        chosen = {axis.name: (axis.variable.categories or (), axis.values) for axis in factors}
        counts = population.frequencies(chosen).sum(axis=tuple(range(n_kept)))
        sizes = [len(axis.values) if axis.is_factor else 1 for axis in averaged]
        found = found * counts.reshape(sizes) if any(own.is_factor for own in averaged) else found
    elif weights != "equal":
        raise ValueError(
            f"weights={weights!r} is unknown: use 'equal', 'proportional', or a dict with the "
            "weights of the categories of each column that is averaged over."
        )
    if not found.sum() > 0.0:
        raise ValueError("All combinations that means are averaged over have a weight of zero.")
    return (found / found.sum()).ravel()


def _given_weights(axis: Axis, given: Any) -> FloatArray:
    values = list(axis.values)
    if isinstance(given, pd.Series):
        given = given.to_dict()
    if isinstance(given, Mapping):
        unknown = [value for value in given if value not in values]
        missing = [value for value in values if value not in given]
        if unknown or missing:
            raise ValueError(
                f"weights[{axis.name!r}] must have a weight for each of "
                f"{', '.join(map(shown, values))}, and for no other: "
                + (f"{shown(unknown[0])} is none." if unknown else f"{shown(missing[0])} has none.")
            )
        given = [given[value] for value in values]
    try:
        numbers = np.array(given, dtype=float)
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    if (
        numbers.shape != (len(values),)
        or not (numbers >= 0).all()
        or not np.isfinite(numbers).all()
    ):
        raise ValueError(
            f"weights[{axis.name!r}] must hold {len(values)} finite numbers of at least zero, for "
            f"{', '.join(map(shown, values))}."
        )
    return numbers
