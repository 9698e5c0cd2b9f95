"""The caterpillar plot: BLUPs of all levels with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils._optional_dependencies import check_matplotlib_support

from mixedlearn.exceptions import did_you_mean
from mixedlearn.inference import random_effects_table
from mixedlearn.inference._models import model_of
from mixedlearn.plot._choices import chosen_effects, chosen_factors
from mixedlearn.plot._style import (
    BLUE,
    INK,
    grid_axes,
    inches,
    legend_above,
    object_array,
    set_title,
    style,
)
from mixedlearn.plot._text import LETTERS_PER_INCH, level_text, shortened

# Up to so many levels have a row and a label of their own; more share an axis of ranks.
MOST_LABELS = 60
# With more levels, points and lines are one image in a vector file.
MOST_VECTORS = 1_000
# The same effect of every factor is in one column, up to so many side by side.
MOST_COLUMNS = 6

# In inches: the row of a level, the least height of all rows, that of an axis of ranks, of the
# title and the ticks of a panel.
_ROW, _LEAST_ROWS, _RANKS, _FRAME = 0.17, 0.5, 2.6, 0.75
# Widths of a panel: of up to three side by side, and of more.
_WIDTH, _NARROW = 2.6, 1.9
# Size of the levels' labels in points, and the least that can be read; in inches, the longest.
_FONT, _LEAST_FONT = 9.0, 5.0
_LONG_NAME = 3.0
# Lines of intervals that hold zero.
_PALE = "0.7"


class RandomEffectsDisplay:
    """Caterpillar plot: the BLUP of every level with its interval.

    A panel for every grouping factor and random effect: factors below each other, the effects of a
    factor side by side. Panels of the same effect share their scale, so that the factors can be
    compared. Where the interval of a level excludes zero, its point is filled and its line dark;
    where it holds zero, the point is hollow and the line pale.

    Use `from_estimator` to make one.

    Parameters
    ----------
    table : DataFrame
        What `mixedlearn.inference.random_effects_table` gives, or some of its rows.
    level : float
        Probability of the intervals in the table.

    Attributes
    ----------
    table : DataFrame
        As above: a row for every effect of every level that is drawn.
    level : float
    figure_ : matplotlib.figure.Figure
    axes_ : ndarray of matplotlib.axes.Axes, shape (n_panels,)
        Factor by factor, with the effects in the order of the model.
    lines_ : ndarray of matplotlib.collections.LineCollection, shape (n_panels, 2)
        The intervals of every panel: those that exclude zero, and those that hold it.
    scatter_ : ndarray of matplotlib.collections.PathCollection, shape (n_panels, 2)
        The BLUPs, likewise.
    zero_lines_ : ndarray of matplotlib.lines.Line2D, shape (n_panels,)

    See Also
    --------
    mixedlearn.inference.random_effects_table : The numbers.

    Notes
    -----
    BLUPs and intervals are in units of the response; those of a slope, per unit of its column. The
    intervals are those of the distribution of the random effects given the data, with the
    coefficients and the variances taken as known. Each says where the effect of one level is; two
    levels whose intervals overlap may differ all the same.

    Up to 60 levels have a row and a label each, and the figure grows with them. More levels share
    an axis of ranks, with the points in a curve.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.plot import RandomEffectsDisplay
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> display = RandomEffectsDisplay.from_estimator(model)
    >>> [ax.get_title() for ax in display.axes_]
    ['intercept', 'Days']
    >>> display.table.round(1).head(2)
        factor  level     effect  estimate  std_error  lower  upper
    0  Subject    308  intercept       2.3       12.1  -21.4   25.9
    1  Subject    308       Days       9.2        2.3    4.7   13.7
    """

    figure_: Any
    axes_: NDArray[np.object_]
    lines_: NDArray[np.object_]
    scatter_: NDArray[np.object_]
    zero_lines_: NDArray[np.object_]

    def __init__(self, *, table: pd.DataFrame, level: float):
        self.table = table
        self.level = level

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        factor: str | Iterable[str] | None = None,
        effect: str | Iterable[str] | None = None,
        level: float = 0.95,
        sort: bool | str = True,
        ax: Any = None,
        scatter_kwargs: dict[str, Any] | None = None,
        line_kwargs: dict[str, Any] | None = None,
    ) -> RandomEffectsDisplay:
        """Compute and draw the BLUPs of a fitted model.

        Parameters
        ----------
        estimator : MixedLinearRegressor
            Fitted. The levels that `update_random_effects` added are drawn too.
        factor : str, tuple of str, or list of these, default=None
            Grouping factors to draw, an interaction by its name or the tuple of its columns; None:
            all.
        effect : str or list of str, default=None
            Random effects to draw, "intercept" or names of slopes; None: all.
        level : float, default=0.95
            Probability of the intervals.
        sort : bool or str, default=True
            Order of the levels; see `plot`.
        ax : matplotlib.axes.Axes or array of these, default=None
            Where to draw; see `plot`.
        scatter_kwargs, line_kwargs : dict, default=None
            Properties of what is drawn; see `plot`.

        Returns
        -------
        display : RandomEffectsDisplay
            The numbers, drawn.

        Raises
        ------
        ValueError
            If the model has no random effects, has no such factor or effect, ``level`` is not
            between zero and one, or ``ax`` holds too few or too many axes.
        TypeError
            If the estimator is no `MixedLinearRegressor`.
        NotFittedError
            Before `fit`.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        specification = model_of(estimator, takes_noise=True).specification
        effects = chosen_effects(specification, chosen_factors(specification, factor), effect)
        table = random_effects_table(estimator, level=level)
        names = [name for own in effects.values() for name in own]
        is_drawn = table["factor"].isin(effects) & table["effect"].isin(names)
        table = table[is_drawn].reset_index(drop=True)
        return cls(table=table, level=level).plot(
            sort=sort, ax=ax, scatter_kwargs=scatter_kwargs, line_kwargs=line_kwargs
        )

    def plot(
        self,
        ax: Any = None,
        *,
        sort: bool | str = True,
        scatter_kwargs: dict[str, Any] | None = None,
        line_kwargs: dict[str, Any] | None = None,
    ) -> RandomEffectsDisplay:
        """Draw the table.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or array of these, default=None
            An array with one axes for each panel, or one axes whose place the panels fill; None:
            those of a new figure.
        sort : bool or str, default=True
            Order of the levels, the smallest estimate at the bottom. True: by the first effect
            that is drawn, in all panels of a factor alike, so that a level can be followed from
            panel to panel; a factor with more levels than can be labelled as by "panel". The name
            of an effect: by that effect, for the factors that have it. "panel": every panel by its
            own estimates. False: in the order of ``random_effects_``, the first level on top.
        scatter_kwargs : dict, default=None
            Properties of the points (`matplotlib.axes.Axes.scatter`).
        line_kwargs : dict, default=None
            Properties of the intervals (`matplotlib.collections.LineCollection`).

        Returns
        -------
        display : RandomEffectsDisplay
            Itself.

        Raises
        ------
        ValueError
            If ``sort`` names no effect that is drawn, or ``ax`` holds too few or too many axes.
        """
        effects = list(dict.fromkeys(self.table["effect"]))
        _check_sort(sort, effects)
        panels = list(_panels(self.table, effects, sort))
        heights: dict[int, float] = {}
        for panel in panels:
            heights[panel.place[0]] = _panel_height(len(panel.rows))
        n_columns = 1 + max(panel.place[1] for panel in panels)
        width = _WIDTH if n_columns <= 3 else _NARROW
        is_new = ax is None
        self.axes_ = grid_axes(
            ax,
            [panel.place for panel in panels],
            type(self).__name__,
            figsize=(
                _labels_width(panels) + max(width * n_columns, 3.8),
                sum(heights.values()) + 0.5,
            ),
            height_ratios=list(heights.values()),
        )
        self.figure_ = self.axes_[0].figure
        is_own_grid = is_new or (len(panels) > 1 and hasattr(ax, "plot"))
        if is_own_grid:
            _share_scales(self.axes_, panels)
        from matplotlib.collections import LineCollection, PathCollection

        line_style = style({"zorder": 1.5}, line_kwargs, LineCollection)
        point_style = style({"zorder": 2.0}, scatter_kwargs, PathCollection)
        artists, zero_lines = [], []
        for own, panel in zip(self.axes_, panels, strict=True):
            zero_lines.append(own.axvline(0.0, color=INK, linewidth=0.8, linestyle="--"))
            artists.append(_draw(own, panel, line_style, point_style))
            set_title(own, panel.effect)
            own.set_xlabel(f"BLUP, {100.0 * self.level:g}% interval")
            own.set_ylim(0.3, len(panel.rows) + 0.7)
            _label_levels(own, panel, _FONT if is_new else _font_that_fits(own, len(panel.rows)))
            if not panel.rows[["estimate", "std_error"]].to_numpy().any():
                _say_zero(own)
        if is_own_grid:
            _label_once(self.axes_, panels)
        self.zero_lines_ = object_array(zero_lines)
        self.lines_, self.scatter_ = np.moveaxis(np.array(artists, dtype=object), -1, 0)
        if is_new:
            legend_above(
                self.figure_,
                list(zip(self.lines_[0], self.scatter_[0], strict=True)),
                ["interval excludes zero", "interval holds zero"],
            )
        return self


@dataclass(frozen=True, slots=True)
class _Panel:
    """What one axes shows.

    Attributes
    ----------
    factor, effect : str
    rows : DataFrame
        Of the table.
    positions : ndarray of int, shape (n_levels,)
        Where each level is; 1 is the bottom row.
    names : list of str or None
        Labels of the levels, if there are not too many.
    has_own_order : bool
        Whether the levels need not be where they are in the factor's other panels.
    place : (int, int)
        Row and column of the grid.
    """

    factor: str
    effect: str
    rows: pd.DataFrame
    positions: NDArray[np.intp]
    names: list[str] | None
    has_own_order: bool
    place: tuple[int, int]


def _panels(table: pd.DataFrame, effects: list[str], sort: bool | str) -> Iterator[_Panel]:
    """The panels factor by factor, each effect in a column of its own as long as they fit."""
    top = 0
    for factor, own in table.groupby("factor", sort=False):
        parts = {str(effect): rows for effect, rows in own.groupby("effect", sort=False)}
        columns = [effects.index(effect) for effect in parts]
        lines = sorted({column // MOST_COLUMNS for column in columns})
        n_levels = len(own) // len(parts)
        # Levels without labels cannot be followed from panel to panel.
        has_own_order = sort == "panel" or (sort is True and n_levels > MOST_LABELS)
        levels = next(iter(parts.values()))["level"]
        names = None
        if n_levels <= MOST_LABELS:
            names = [shortened(level_text(level), _LONG_NAME) for level in levels]
        for (effect, rows), column in zip(parts.items(), columns, strict=True):
            by = effect if has_own_order else sort if sort in parts else next(iter(parts))
            positions = np.arange(n_levels, 0, -1)
            if sort is not False:
                order = np.argsort(parts[by]["estimate"].to_numpy(), kind="stable")
                positions[order] = np.arange(1, n_levels + 1)
            place = (top + lines.index(column // MOST_COLUMNS), column % MOST_COLUMNS)
            yield _Panel(str(factor), effect, rows, positions, names, has_own_order, place)
        top += len(lines)


def _say_zero(ax: Any) -> None:
    """Say that the variance is zero, in front of the points."""
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    text = "The variance is zero."
    ax.text(0.97, 0.05, text, ha="right", transform=ax.transAxes, bbox=box, zorder=4)


def _check_sort(sort: bool | str, effects: list[str]) -> None:
    if isinstance(sort, bool) or sort == "panel" or sort in effects:
        return
    raise ValueError(
        f"sort={sort!r} is no order: use True, False, 'panel' or an effect that is drawn, one of "
        f"{', '.join(map(repr, effects))}.{did_you_mean(sort, effects)}"
    )


def _labels_width(panels: list[_Panel]) -> float:
    """What the labels left of the first panel take of the figure, in inches."""
    longest = max((len(name) for panel in panels for name in panel.names or ()), default=6)
    return 0.7 + longest / LETTERS_PER_INCH


def _panel_height(n_levels: int) -> float:
    return _FRAME + (_RANKS if n_levels > MOST_LABELS else max(_ROW * n_levels, _LEAST_ROWS))


def _draw(
    ax: Any, panel: _Panel, line_style: dict[str, Any], point_style: dict[str, Any]
) -> list[tuple[Any, Any]]:
    """Intervals and points: of the levels whose interval excludes zero, then of the others."""
    from matplotlib.collections import LineCollection

    rows = panel.rows
    is_rank = panel.names is None
    is_raster = len(rows) > MOST_VECTORS
    excludes = ((rows["lower"] > 0.0) | (rows["upper"] < 0.0)).to_numpy()
    drawn = []
    for is_out, wanted in ((True, excludes), (False, ~excludes)):
        own, positions = rows[wanted], panel.positions[wanted]
        segments = np.empty((len(own), 2, 2))
        segments[:, :, 0] = own[["lower", "upper"]]
        segments[:, :, 1] = positions[:, None]
        lines = {
            "color": BLUE if is_out else _PALE,
            "linewidth": 0.4 if is_rank else 2.0 if is_out else 1.2,
            "rasterized": is_raster,
            **line_style,
        }
        points = {
            "color": INK if is_rank else BLUE,
            "s": 1.0 if is_rank else 24.0,
            "linewidth": 0.0 if is_rank else 1.2,
            "rasterized": is_raster,
            **point_style,
        }
        line = ax.add_collection(LineCollection(list(segments), **lines))
        point = ax.scatter(own["estimate"], positions, **points)
        if not is_out and not is_rank:
            point.set_facecolor("white")
        drawn.append((line, point))
    return drawn


def _font_that_fits(ax: Any, n_levels: int) -> float:
    """Size of labels, in points, that leaves room for all of them."""
    return min(_FONT, 0.8 * 72.0 * inches(ax)[1] / n_levels)


def _label_levels(ax: Any, panel: _Panel, font_size: float) -> None:
    """Labels of the levels if they can be read, else ranks."""
    factor = shortened(panel.factor, max(inches(ax)[1], 1.0))
    if panel.names is None or font_size < _LEAST_FONT:
        ax.set_ylabel(f"{factor} ({len(panel.rows):,} levels)", parse_math=False)
        ax.yaxis.set_major_formatter("{x:,.0f}")
        return
    ax.set_yticks(panel.positions, panel.names, parse_math=False, fontsize=font_size)
    ax.set_ylabel(factor, parse_math=False)


def _share_scales(axes: NDArray[np.object_], panels: list[_Panel]) -> None:
    """Give the panels of an effect one scale."""
    first: dict[str, Any] = {}
    for ax, panel in zip(axes, panels, strict=True):
        if first.setdefault(panel.effect, ax) is not ax:
            ax.sharex(first[panel.effect])


def _label_once(axes: NDArray[np.object_], panels: list[_Panel]) -> None:
    """Keep the labels of a factor's levels at the left end of each row alone."""
    leftmost: dict[int, int] = {}
    for panel in panels:
        leftmost.setdefault(*panel.place)
    for ax, panel in zip(axes, panels, strict=True):
        if panel.place[1] > leftmost[panel.place[0]]:
            ax.set_ylabel("")
            ax.tick_params(labelleft=panel.has_own_order)
