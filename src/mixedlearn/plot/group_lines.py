"""Data and the fitted line of every level of a grouping factor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils._optional_dependencies import check_matplotlib_support

from mixedlearn.data.labels import Labels, shown
from mixedlearn.data.levels import encode
from mixedlearn.exceptions import did_you_mean
from mixedlearn.inference._models import view_of
from mixedlearn.plot._choices import only_factor
from mixedlearn.plot._inputs import (
    covariate_frame,
    covariates,
    level_categories,
    only_covariate,
)
from mixedlearn.plot._paths import Paths
from mixedlearn.plot._style import (
    BLUE,
    GREY,
    PANEL_SIZE,
    label_edges,
    legend_above,
    make_legible,
    name_places,
    object_array,
    panel_axes,
    population_line,
    set_title,
    single_axes,
    style,
)
from mixedlearn.plot._text import level_text, plain_text, shortened

FloatArray = NDArray[np.float64]

# So many levels get a panel each; more are drawn in one axes.
MAX_PANELS = 20
# Of many panels, each is smaller.
_MANY_PANELS, _SMALL_PANEL = 6, (1.6, 1.9)
_MOST_COLUMNS = 6
# Beyond so many artists' parts, a vector file holds them as an image.
_RASTERIZED = 5_000
# The longest name in a legend, in inches.
_LONG_NAME = 2.0


class GroupLinesDisplay:
    """Data, and the fitted line of every level of a grouping factor, against one covariate.

    Make it by `from_estimator`.

    Parameters
    ----------
    points : DataFrame of shape (n_samples, 3)
        The data that are drawn, with the columns "level", "feature" and "response".
    lines : DataFrame of shape (n_line_points, 3)
        Points of the lines, level by level: "level", "feature" and "prediction". The categories of
        "level" are the levels in the order of their panels; a level of an interaction is a tuple.
    population : DataFrame of shape (n_population_points, 2)
        Points of the population's line: "feature" and "prediction".
    factor, feature, response : str
        Names of the grouping factor, the covariate and the response.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
    axes_ : ndarray of matplotlib.axes.Axes, shape (n_panels,)
        Those of all levels, or the one that they share.
    lines_ : ndarray of matplotlib.collections.LineCollection, shape (n_panels,)
        The lines of the levels in every axes.
    scatter_ : ndarray of matplotlib.collections.PathCollection, shape (n_panels,)
        The data.
    population_lines_ : ndarray of matplotlib.lines.Line2D, shape (n_panels,)
        The line of the population.

    See Also
    --------
    SimulatedPredictionsDisplay : Predictions of a few cases in every level, with intervals.

    Notes
    -----
    Covariates other than the feature are held at typical values: the mean of a number, the most
    frequent value of a category. These are the level's own for the line of a level, those of all
    rows for the line of the population. A column that was computed from the feature is another
    covariate to the model and is held as well; in a formula, ``poly(x, 2)`` or ``np.log(x)`` makes
    the curve that it should. (``{x - x.mean()}``, which is computed anew from any rows, does not.)

    A level's line has the BLUPs of that level, and those of other factors if all rows of the level
    have the same level of them: the line of a class has the effect of its school, the line of a
    school that of none of its classes. The line of a level that `fit` did not see is the
    population's, at the level's own typical values.

    A level's line covers the range of its rows; where they have all the same value of the feature,
    the range of the data. The line of the population covers the range of the data.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.plot import GroupLinesDisplay
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> display = GroupLinesDisplay.from_estimator(model, X, y)
    >>> display.axes_.shape
    (18,)
    >>> display.lines.head(2).round(1)
      level  feature  prediction
    0   308      0.0       253.7
    1   308      9.0       430.7
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
        *,
        groups: Any = None,
        offset: Any = None,
        feature: str | int | None = None,
        factor: Any = None,
        levels: Sequence[Any] | None = None,
        facets: bool | str = "auto",
        ax: Any = None,
        scatter_kwargs: dict[str, Any] | None = None,
        line_kwargs: dict[str, Any] | None = None,
        population_kwargs: dict[str, Any] | None = None,
    ) -> GroupLinesDisplay:
        """Compute the lines and draw them.

        Parameters
        ----------
        estimator : MixedLinearRegressor
            Fitted.
        X : array-like or DataFrame of shape (n_samples, n_features)
            Rows to draw, as `predict` takes them: those of `fit`, or others.
        y : array-like of shape (n_samples,)
            Their response. The y axis is named after a Series, else "y".
        groups : array-like of shape (n_samples,) or (n_samples, n_factors), default=None
            Labels, if they came beside X in `fit`.
        offset : float or array-like of shape (n_samples,), default=None
            Their offset, if `fit` had one beside X. Points and lines are those of the response less
            its offset, of a formula too, and the y axis says so.
        feature : str or int, default=None
            The column of X on the x axis, by name or position; with a formula, a column that it
            uses. Categories stand side by side. By default the only column that has a random slope
            for the factor, or else the only number that has any effect, or else the only column.
        factor : str or tuple of str, default=None
            The grouping factor whose levels have lines; by default the only one.
        levels : list, default=None
            The levels to draw, in this order, those of an interaction as tuples; by default all
            that X has.
        facets : bool or "auto", default="auto"
            Whether every level gets a panel. By default up to 20 levels do, unless ``ax`` is one
            axes.
        ax : matplotlib.axes.Axes or array of these, default=None
            An array with one axes for each panel, or one axes whose place the panels fill; None:
            those of a new figure. Panels on axes that are given have no legend:
            `matplotlib.figure.Figure.legend` takes the artists of the display as ``handles``.
        scatter_kwargs, line_kwargs, population_kwargs : dict, default=None
            Properties of the data (`matplotlib.axes.Axes.scatter`), of the levels' lines (a
            `matplotlib.collections.LineCollection`) and of the population's line
            (`matplotlib.axes.Axes.plot`); ``label`` is the text in the legend.

        Returns
        -------
        display : GroupLinesDisplay
            The numbers, drawn.

        Raises
        ------
        ValueError
            If the model has no grouping factor or no covariate; if there are several and none is
            chosen; if ``factor``, ``feature`` or ``levels`` names what there is not; if groups are
            missing; if the rows are not as `predict` wants them; or if there are not as many axes
            as panels.
        TypeError
            If the estimator is no `MixedLinearRegressor`.
        NotFittedError
            Before `fit`.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        view = view_of(estimator, takes_noise=True)
        specification = view.model.specification
        k = only_factor(specification, factor)
        rows = view.rows(X, groups, y, offset=offset, needs_groups=True)
        labels, name = rows.labels, specification.factor_names[k]
        codes, chosen_levels = _drawn_levels(labels[k], levels, name)
        known = covariates(view)
        along = only_covariate(estimator, known, feature, k)
        paths = Paths(view, covariate_frame(view, X, rows.X), known, along)
        level_codes = view.codes(labels, specification.factor_names)
        view.warn_of_kinds(labels, level_codes, stacklevel=2)
        row, grid, prediction = paths.of_levels(codes, len(chosen_levels), level_codes)
        categories, drawn = level_categories(chosen_levels), codes >= 0
        display = cls(
            points=pd.DataFrame(
                {
                    "level": pd.Categorical.from_codes(codes[drawn], categories),
                    "feature": paths.shown(paths.values[drawn]),
                    "response": rows.given_response[drawn],
                }
            ),
            lines=pd.DataFrame(
                {
                    "level": pd.Categorical.from_codes(row, categories),
                    "feature": paths.shown(grid),
                    "prediction": prediction,
                }
            ),
            population=_population(paths, len(codes), len(labels)),
            factor=name,
            feature=along.name,
            response=_name_of(y) + (" less offset" if view.has_offset else ""),
        )
        return display.plot(
            facets=facets,
            ax=ax,
            scatter_kwargs=scatter_kwargs,
            line_kwargs=line_kwargs,
            population_kwargs=population_kwargs,
        )

    def plot(
        self,
        ax: Any = None,
        *,
        facets: bool | str = "auto",
        scatter_kwargs: dict[str, Any] | None = None,
        line_kwargs: dict[str, Any] | None = None,
        population_kwargs: dict[str, Any] | None = None,
    ) -> GroupLinesDisplay:
        """Draw the lines.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or array of these, default=None
            As for `from_estimator`.
        facets : bool or "auto", default="auto"
            As for `from_estimator`.
        scatter_kwargs, line_kwargs, population_kwargs : dict, default=None
            As for `from_estimator`.

        Returns
        -------
        display : GroupLinesDisplay
            Itself.
        """
        levels = self.lines["level"].cat.categories
        is_faceted = _are_facets(facets, ax, len(levels))
        caller = type(self).__name__
        if is_faceted:
            self.axes_ = _facets(ax, len(levels), caller)
        else:
            self.axes_ = panel_axes(single_axes(ax, caller), 1, caller)
        self.figure_ = self.axes_[0].figure

        from matplotlib.collections import LineCollection, PathCollection
        from matplotlib.lines import Line2D

        categories = self._categories()
        segments = _by_level(self.lines, "prediction", categories)
        if is_faceted:
            data = _by_level(self.points, "response", categories)
        else:
            data = [_places(self.points, "response", categories)]
        n_lines = 1 if is_faceted else len(segments)
        line_style = style(_line_style(n_lines, self.factor), line_kwargs, LineCollection)
        points = _point_style(len(self.points), is_faceted)
        point_style = style(points, scatter_kwargs, PathCollection)
        above = population_line(1.2 if n_lines == 1 else 2.2, on_top=n_lines > 1)
        population_style = style(above, population_kwargs, Line2D)
        population = _places(self.population, "prediction", categories)
        lines, scatters, populations = [], [], []
        for panel, axes in enumerate(self.axes_):
            own = segments[panel : panel + 1] if is_faceted else segments
            scatters.append(axes.scatter(*data[panel].T, **point_style))
            lines.append(axes.add_collection(LineCollection(own, **line_style)))
            populations.append(axes.plot(*population.T, **population_style)[0])
            axes.autoscale_view()
            if categories is not None:
                name_places(axes, list(map(str, categories)))
            if is_faceted:
                set_title(axes, level_text(levels[panel]))
        self.lines_ = object_array(lines)
        self.scatter_ = object_array(scatters)
        self.population_lines_ = object_array(populations)
        self._add_labels(ax, is_faceted)
        # Facets on given axes leave no room for a legend.
        if ax is None or not is_faceted:
            self._add_legend(ax)
        return self

    def _add_labels(self, ax: Any, is_faceted: bool) -> None:
        """The names of the axes: of the whole figure, of the outer panels, or of the only one."""
        if is_faceted and ax is None:
            self.figure_.supxlabel(self.feature, fontsize="medium", parse_math=False)
            self.figure_.supylabel(self.response, fontsize="medium", parse_math=False)
        elif is_faceted:
            label_edges(self.axes_, self.feature, self.response)
        else:
            self.axes_[0].set_xlabel(self.feature, parse_math=False)
            self.axes_[0].set_ylabel(self.response, parse_math=False)

    def _categories(self) -> pd.Index | None:
        """The feature's categories, at the places 0, 1, ... of the x axis; None for numbers."""
        feature = self.population["feature"]
        return feature.cat.categories if isinstance(feature.dtype, pd.CategoricalDtype) else None

    def _add_legend(self, ax: Any) -> None:
        """A legend above a figure of the display's own, or in the emptiest corner of one axes."""
        handles = [self.scatter_[0], self.lines_[0], self.population_lines_[0]]
        if ax is None:
            legend_above(self.figure_, handles)
            return
        is_quick = len(self.points) <= _RASTERIZED
        place = "best" if is_quick else "upper left"
        make_legible(self.axes_[0].legend(handles=handles, loc=place, edgecolor="none"))


def _population(paths: Paths, n_rows: int, n_factors: int) -> pd.DataFrame:
    """The line of the population, as that of one level without effects."""
    everyone = np.zeros(n_rows, dtype=np.int32)
    _, grid, prediction = paths.of_levels(everyone, 1, [None] * n_factors)
    return pd.DataFrame({"feature": paths.shown(grid), "prediction": prediction})


def _drawn_levels(labels: Labels, levels: Any, name: str) -> tuple[NDArray[np.int32], pd.Index]:
    """The chosen levels, and which of them each row has; -1 for none."""
    own_codes, own_levels = encode(labels)
    chosen = _choose_levels(own_levels, levels, name)
    place = np.full(len(own_levels), -1, dtype=np.int32)
    place[chosen] = np.arange(len(chosen))
    return place[own_codes], own_levels[chosen]


def _line_style(n_lines: int, factor: str) -> dict[str, Any]:
    """The more lines share an axes, the thinner and the more transparent they are."""
    return {
        "color": BLUE,
        "linewidth": 1.6 if n_lines == 1 else float(np.clip(65 / n_lines, 0.4, 1.2)),
        "alpha": 1.0 if n_lines == 1 else float(np.clip(3.5 / n_lines**0.5, 0.02, 0.7)),
        "rasterized": n_lines > _RASTERIZED,
        "label": f"each {plain_text(shortened(factor, _LONG_NAME))}",
        "zorder": 2,
    }


def _point_style(n_points: int, is_faceted: bool) -> dict[str, Any]:
    return {
        "color": GREY,
        "s": 14.0 if is_faceted else float(np.clip(7_000 / max(n_points, 1), 2.0, 14.0)),
        "alpha": float(np.clip(10_000 / max(n_points, 1), 0.1, 1.0)),
        "linewidth": 0,
        "rasterized": n_points > _RASTERIZED,
        "label": "data",
        "zorder": 1,
    }


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
    if ax is None or hasattr(ax, "plot"):
        # A panel above an empty place is the last of its column.
        for last in axes[-n_columns:]:
            last.tick_params(labelbottom=True)
    return axes


def _by_level(table: pd.DataFrame, y: str, categories: pd.Index | None) -> list[FloatArray]:
    """Points (x, y) of every level."""
    codes = table["level"].cat.codes.to_numpy()
    points = _places(table, y, categories)[np.argsort(codes, kind="stable")]
    ends = np.cumsum(np.bincount(codes, minlength=len(table["level"].cat.categories)))
    return np.split(points, ends[:-1])


def _places(table: pd.DataFrame, y: str, categories: pd.Index | None) -> FloatArray:
    """Points (x, y), shape (n, 2)."""
    x = table["feature"] if categories is None else table["feature"].cat.codes
    return np.column_stack([x.to_numpy(dtype=np.float64), table[y].to_numpy()])


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


def _name_of(y: Any) -> str:
    """The name of the response."""
    name = getattr(y, "name", None)
    return "y" if name in (None, "") else str(name)
