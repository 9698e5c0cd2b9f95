"""Data and the fitted line of every level of a grouping factor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.design import Design, find_column
from mixedlearn.exceptions import did_you_mean
from mixedlearn.grouping import encode, look_up, shown
from mixedlearn.plot._inputs import (
    Covariate,
    choose_factor,
    constant_codes,
    covariate_frame,
    covariates,
    design_columns,
    fitted_model,
    is_number,
    level_categories,
    level_text,
    slope_covariates,
    typical_rows,
)
from mixedlearn.plot._style import BLUE, GREY, INK, PANEL_SIZE, panel_axes, single_axes, style
from mixedlearn.prediction import predict_mean
from mixedlearn.validation import check_response

FloatArray = NDArray[np.float64]

# So many levels get a panel each; more are drawn in one axes.
MAX_PANELS = 20
# Of many panels, each is smaller.
_MANY_PANELS, _SMALL_PANEL = 6, (1.6, 1.9)
_MOST_COLUMNS = 6
# Points of a curve: enough to look smooth, fewer where very many levels share the picture.
_CURVE_POINTS, _FEWEST_POINTS, _ALL_POINTS = 100, 20, 200_000
# Beyond so many artists' parts, a vector file holds them as an image.
_RASTERIZED = 5_000


class GroupLinesDisplay:
    """Data, and the fitted line of every level of a grouping factor, against one covariate.

    Make it by `from_estimator`.

    Parameters
    ----------
    points : DataFrame of shape (n_samples, 3)
        The data that are drawn: "level", "feature" and "response".
    lines : DataFrame
        Points of the lines, level by level: "level", "feature" and "prediction".
    population : DataFrame
        Points of the population's line: "feature" and "prediction".
    factor, feature, response : str
        Names of the grouping factor, of the covariate and of the response.

    Attributes
    ----------
    axes_ : ndarray of Axes
        One, or one for every level.
    ax_ : Axes
        The axes, if there are no facets.
    figure_ : Figure
    lines_ : ndarray of LineCollection
        For every axes the lines of its levels.
    scatter_ : ndarray of PathCollection
        For every axes its data.
    population_lines_ : ndarray of Line2D
        For every axes the line of the population.
    """

    def __init__(
        self,
        *,
        points: pd.DataFrame,
        lines: pd.DataFrame,
        population: pd.DataFrame,
        factor: str,
        feature: str,
        response: str,
    ):
        self.points = points
        self.lines = lines
        self.population = population
        self.factor = factor
        self.feature = feature
        self.response = response

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        groups: Any = None,
        *,
        feature: str | int | None = None,
        factor: Any = None,
        levels: Sequence[Any] | None = None,
        facets: bool | str = "auto",
        ax: Any = None,
        line_kwargs: dict[str, Any] | None = None,
        scatter_kwargs: dict[str, Any] | None = None,
        population_kwargs: dict[str, Any] | None = None,
    ) -> GroupLinesDisplay:
        """Compute the lines and draw them."""
        model = fitted_model(estimator)
        specification = model.specification
        k = choose_factor(specification, factor)
        columns, labels = estimator._rows(X, groups)
        if not labels:
            raise ValueError(
                "The model has the grouping factors "
                f"{', '.join(map(repr, specification.factor_names))}, but no groups were passed: "
                "pass groups=... as to fit."
            )
        response = check_response(estimator, columns, y)
        all_codes = estimator._codes(labels, specification.factor_names)
        own_codes, own_levels = encode(labels[k])
        chosen = _choose_levels(own_levels, levels, specification.factor_names[k])
        place = np.full(len(own_levels), -1)
        place[chosen] = np.arange(len(chosen))
        codes = place[own_codes]
        drawn = np.flatnonzero(codes >= 0)

        known = covariates(estimator)
        along = _choose_feature(estimator, known, feature, k)
        frame = covariate_frame(estimator, X, columns)
        values = frame[along.name]
        codes = codes[drawn]
        row, grid = _grid(values, along, drawn, codes, len(chosen))
        others = [column for column in known if column.name != along.name]
        rows = typical_rows(frame, others, place[own_codes], len(chosen)).iloc[row]
        design = Design(
            design_columns(estimator, _with(rows, along.name, grid)),
            tuple(constant_codes(codes, other[drawn], len(chosen))[row] for other in all_codes),
        )
        lines = pd.DataFrame(
            {
                "level": pd.Categorical.from_codes(row, level_categories(own_levels[chosen])),
                "feature": grid,
                "prediction": predict_mean(model, design),
            }
        )
        everyone = np.zeros(len(frame), dtype=np.intp)
        row, grid = _grid(values, along, np.arange(len(frame)), everyone, 1)
        rows = typical_rows(frame, others, everyone, 1).iloc[row]
        design = Design(
            design_columns(estimator, _with(rows, along.name, grid)), (None,) * len(all_codes)
        )
        display = cls(
            points=pd.DataFrame(
                {
                    "level": pd.Categorical.from_codes(codes, lines["level"].cat.categories),
                    "feature": values.iloc[drawn].array,
                    "response": response[drawn],
                }
            ),
            lines=lines,
            population=pd.DataFrame({"feature": grid, "prediction": predict_mean(model, design)}),
            factor=specification.factor_names[k],
            feature=along.name,
            response=_name_of(y),
        )
        return display.plot(
            facets=facets,
            ax=ax,
            line_kwargs=line_kwargs,
            scatter_kwargs=scatter_kwargs,
            population_kwargs=population_kwargs,
        )

    def plot(
        self,
        *,
        facets: bool | str = "auto",
        ax: Any = None,
        line_kwargs: dict[str, Any] | None = None,
        scatter_kwargs: dict[str, Any] | None = None,
        population_kwargs: dict[str, Any] | None = None,
    ) -> GroupLinesDisplay:
        """Draw the lines."""
        levels = self.lines["level"].cat.categories
        is_faceted = _are_facets(facets, ax, len(levels))
        caller = f"{type(self).__name__}.plot"
        if is_faceted:
            self.axes_ = _facets(ax, len(levels), caller)
        else:
            self.axes_ = np.array([single_axes(ax, caller)], dtype=object)
            self.ax_ = self.axes_[0]
        self.figure_ = self.axes_[0].figure

        from matplotlib.collections import LineCollection, PathCollection
        from matplotlib.lines import Line2D

        categories = self._categories()
        segments = _by_level(self.lines, "prediction", categories)
        data = _by_level(self.points, "response", categories)
        if not is_faceted:
            data = [np.column_stack([_positions(self.points, categories), self.points["response"]])]
        n_points, n_lines = len(self.points), len(segments)
        in_one = n_lines if not is_faceted else 1
        line_style = style(
            {
                "colors": BLUE,
                "linewidths": 1.6 if in_one == 1 else max(0.4, 1.1 - in_one / 200),
                "alpha": 1.0 if in_one == 1 else float(np.clip(30 / in_one, 0.08, 0.6)),
                "rasterized": in_one > _RASTERIZED,
                "label": f"each {self.factor}",
                "zorder": 2,
            },
            line_kwargs,
            LineCollection,
        )
        point_style = style(
            {
                "s": 14 if is_faceted else float(np.clip(8_000 / max(n_points, 1), 1, 14)),
                "color": GREY,
                "linewidths": 0,
                "rasterized": n_points > _RASTERIZED,
                "label": "data",
                "zorder": 1,
            },
            scatter_kwargs,
            PathCollection,
        )
        population_style = style(
            {
                "color": INK,
                "linewidth": 1.2 if is_faceted else 2.2,
                "linestyle": "--",
                "label": "population",
                "zorder": 3,
            },
            population_kwargs,
            Line2D,
        )
        x, y = _positions(self.population, categories), self.population["prediction"].to_numpy()
        lines, scatters, populations = [], [], []
        for panel, axes in enumerate(self.axes_):
            own = segments[panel : panel + 1] if is_faceted else segments
            scatters.append(axes.scatter(*data[panel].T, **point_style))
            lines.append(axes.add_collection(LineCollection(own, **line_style)))
            populations.append(axes.plot(x, y, **population_style)[0])
            axes.autoscale_view()
            if categories is not None:
                axes.set_xticks(range(len(categories)), list(map(str, categories)))
            if is_faceted:
                axes.set_title(level_text(levels[panel]), fontsize="medium")
        self.lines_ = np.array(lines, dtype=object)
        self.scatter_ = np.array(scatters, dtype=object)
        self.population_lines_ = np.array(populations, dtype=object)
        self._annotate(is_faceted and ax is None)
        return self

    def _categories(self) -> pd.Index | None:
        """The feature's categories, at the places 0, 1, ... of the x axis; None for numbers."""
        if isinstance(self.population["feature"].dtype, pd.CategoricalDtype):
            return self.population["feature"].cat.categories
        return None

    def _annotate(self, has_own_figure: bool) -> None:
        """Labels of the axes and a legend."""
        handles = [self.scatter_[0], self.lines_[0], self.population_lines_[0]]
        if has_own_figure:
            self.figure_.supxlabel(self.feature)
            self.figure_.supylabel(self.response)
            self.figure_.legend(handles=handles, loc="outside upper right", ncols=3, frameon=False)
            return
        for axes in self.axes_:
            axes.set(xlabel=self.feature, ylabel=self.response)
            if len(self.axes_) > 1:
                axes.label_outer()
        legend = self.axes_[0].legend(handles=handles, frameon=False)
        for handle in legend.legend_handles:
            handle.set_alpha(1.0)


def _are_facets(facets: Any, ax: Any, n_levels: int) -> bool:
    """Whether every level gets a panel.

    Raises
    ------
    ValueError
        If ``facets`` is not allowed.
    """
    if isinstance(facets, (bool, np.bool_)):
        return bool(facets)
    if not (isinstance(facets, str) and facets == "auto"):
        raise ValueError(f"facets must be True, False or 'auto', got {facets!r}.")
    if ax is None:
        return n_levels <= MAX_PANELS
    return not hasattr(ax, "plot")


def _facets(ax: Any, n_levels: int, caller: str) -> NDArray[np.object_]:
    """Axes of the panels: about twice as many columns as rows."""
    n_rows = max(round((n_levels / 1.6) ** 0.5), 1)
    n_columns = min(-(-n_levels // n_rows), _MOST_COLUMNS)
    axes = panel_axes(
        ax,
        n_levels,
        caller,
        n_columns=n_columns,
        panel_size=PANEL_SIZE if n_levels <= _MANY_PANELS else _SMALL_PANEL,
        sharex=True,
        sharey=True,
    )
    if ax is None:
        # A panel above an empty place is the last of its column.
        for last in axes[-n_columns:]:
            last.tick_params(labelbottom=True)
    return axes


def _by_level(table: pd.DataFrame, y: str, categories: pd.Index | None) -> list[FloatArray]:
    """Points (x, y) of every level."""
    codes = table["level"].cat.codes.to_numpy()
    order = np.argsort(codes, kind="stable")
    points = np.column_stack([_positions(table, categories), table[y]])[order]
    ends = np.cumsum(np.bincount(codes, minlength=len(table["level"].cat.categories)))
    return np.split(points, ends[:-1])


def _positions(table: pd.DataFrame, categories: pd.Index | None) -> FloatArray:
    """Places on the x axis."""
    if categories is None:
        return table["feature"].to_numpy(dtype=np.float64)
    return table["feature"].cat.codes.to_numpy(dtype=np.float64)


def _choose_levels(known: pd.Index, wanted: Any, factor: str) -> NDArray[np.intp]:
    """Positions of the levels to be drawn.

    Raises
    ------
    ValueError
        If one of them does not occur, or none is named.
    """
    if wanted is None:
        return np.arange(len(known))
    if isinstance(wanted, str) or not hasattr(wanted, "__len__") or len(wanted) == 0:
        raise ValueError(f"levels must be a list of levels of {factor!r}, got {wanted!r}.")
    place = {level: position for position, level in enumerate(known.tolist())}
    found = []
    for level in dict.fromkeys(wanted):
        if level not in place:
            hint = did_you_mean(level_text(level), list(map(level_text, place)))
            raise ValueError(
                f"levels names {shown(level)}, but no row of X has this level of {factor!r}.{hint}"
            )
        found.append(place[level])
    return np.array(found, dtype=np.intp)


def _choose_feature(estimator: Any, known: Sequence[Covariate], feature: Any, k: int) -> Covariate:
    """The covariate that is named; else the only random slope, else the only number.

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
        slopes = [name for name in slope_covariates(estimator, k) if name in numbers]
        for only in (slopes, numbers):
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


def _grid(
    values: pd.Series,
    along: Covariate,
    rows: NDArray[np.intp],
    codes: NDArray[np.integer],
    n_levels: int,
) -> tuple[NDArray[np.intp], Any]:
    """The level and the feature's value of every point of the lines, level by level.

    A level's line covers the range of its rows, or all categories in them; that of a level whose
    rows have all the same value covers the range of the data.
    """
    if along.is_categorical or not is_number(values):
        distinct, categories = pd.factorize(values, sort=True)
        n = len(categories)
        pairs = np.zeros((n_levels, n), dtype=bool)
        pairs[codes, distinct[rows]] = True
        pairs[pairs.sum(axis=1) == 1] = True
        level, place = np.nonzero(pairs)
        return level, pd.Series(categories).array.take(place)
    numbers = values.to_numpy(dtype=np.float64)
    own = numbers[rows]
    low, high = np.full(n_levels, np.inf), np.full(n_levels, -np.inf)
    np.minimum.at(low, codes, own)
    np.maximum.at(high, codes, own)
    is_one = low == high
    low[is_one], high[is_one] = numbers.min(), numbers.max()
    n = 2 if along.is_straight else _n_points(n_levels)
    share = np.linspace(0.0, 1.0, n)
    grid = low[:, None] * (1.0 - share) + high[:, None] * share
    return np.repeat(np.arange(n_levels), n), grid.ravel()


def _n_points(n_levels: int) -> int:
    return int(np.clip(_ALL_POINTS // n_levels, _FEWEST_POINTS, _CURVE_POINTS))


def _with(rows: pd.DataFrame, name: str, values: Any) -> pd.DataFrame:
    """The rows with other values of one column."""
    return rows.reset_index(drop=True).assign(**{name: values})


def _name_of(y: Any) -> str:
    """The name of the response."""
    name = getattr(y, "name", None)
    return "y" if name in (None, "") else str(name)
