"""What all pictures share: axes to draw on and a style that survives grey printing.

The two colours are from the palette of Okabe and Ito, which people with any of the common colour
vision deficiencies can tell apart. They differ in lightness too, and nothing is told by colour
alone: lines differ in dashes or width, points in shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils._optional_dependencies import check_matplotlib_support

from mixedlearn.plot._text import LETTERS_PER_INCH, shortened

BLUE = "#0072B2"
ORANGE = "#E69F00"
INK = "black"
GREY = "0.45"

# More points than this are one image in a vector file.
_VECTOR_POINTS = 2_000

# Width and height, in inches, of one of several panels.
PANEL_SIZE = (3.2, 2.6)
# Axes and the labels beside them, relative to the axes.
_PLACE = 1.25
# What of a thin line or a small point can be seen in a legend.
_LEGEND_WIDTH, _LEGEND_SIZE = 1.2, 14.0


def single_axes(ax: Any, caller: str) -> Any:
    """The axes to draw on: those given, or new ones in a new figure."""
    check_matplotlib_support(caller)
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    return ax


def panel_axes(
    ax: Any,
    n_panels: int,
    caller: str,
    *,
    n_columns: int = 3,
    panel_size: tuple[float, float] = PANEL_SIZE,
    **subplots: Any,
) -> NDArray[np.object_]:
    """One-dimensional array of the axes of ``n_panels`` panels.

    They are taken from ``ax``, if it is an array of as many axes; fill the place of ``ax``, if it
    is one axes; or are in a new figure. ``subplots`` are what `matplotlib.figure.Figure.subplots`
    takes.
    """
    check_matplotlib_support(caller)
    import matplotlib.pyplot as plt

    if ax is not None and not hasattr(ax, "plot"):
        axes = np.asarray(ax, dtype=object).ravel()
        if len(axes) != n_panels:
            raise ValueError(f"{caller} draws {n_panels} panels, but ax holds {len(axes)} axes.")
        return axes
    if ax is not None and n_panels == 1:
        return np.array([ax], dtype=object)
    n_columns = min(n_columns, n_panels)
    n_rows = -(-n_panels // n_columns)
    if ax is None:
        size = (max(panel_size[0] * n_columns, 4.8), max(panel_size[1] * n_rows, 3.4))
        grid = plt.figure(figsize=size, layout="constrained").subplots(
            n_rows, n_columns, squeeze=False, **subplots
        )
    else:
        place = _place_of(ax, n_panels, caller).subgridspec(n_rows, n_columns)
        grid = place.subplots(squeeze=False, **subplots)
    axes = grid.ravel()
    for spare in axes[n_panels:]:
        spare.remove()
    return np.asarray(axes[:n_panels])


def _place_of(ax: Any, n_panels: int, caller: str) -> Any:
    """The cell of a grid that an axes fills, which is emptied for panels."""
    place = ax.get_subplotspec()
    if place is None:
        raise ValueError(
            f"{caller} draws {n_panels} panels, and ax is one axes that is not in a grid: pass an "
            f"array of {n_panels} axes, or one that plt.subplots made."
        )
    ax.set_axis_off()
    return place


def style(defaults: dict[str, Any], given: dict[str, Any] | None, artist: Any) -> dict[str, Any]:
    """Properties of a matplotlib artist class: the defaults, overridden by those given."""
    from matplotlib.cbook import normalize_kwargs

    return {**defaults, **normalize_kwargs(given or {}, artist)}


def name_places(axes: Any, names: Sequence[str], **text: Any) -> None:
    """Name the places 0, 1, ... of the x axis, upright where the names would overlap.

    ``text`` are properties of `matplotlib.text.Text`.
    """
    is_tight = sum(len(name) + 1 for name in names) > LETTERS_PER_INCH * inches(axes)[0]
    turn = 90 if is_tight else 0
    axes.set_xticks(range(len(names)), names, rotation=turn, parse_math=False, **text)


def inches(axes: Any) -> tuple[float, float]:
    """Width and height of axes."""
    extent, dpi = axes.get_window_extent(), axes.figure.dpi
    return extent.width / dpi, extent.height / dpi


def fitting(name: str, axes: Any, what: str = "") -> str:
    """A name, shortened if need be, and what it is, no wider than the place of axes."""
    room = _PLACE * inches(axes)[0] - len(what) / LETTERS_PER_INCH
    return shortened(name, room) + what


def set_title(axes: Any, name: str, what: str = "") -> None:
    """A title of a name and what is shown of it, below each other if need be."""
    title = name + what
    if fitting(title, axes) != title:
        title = fitting(name, axes) + what.replace(": ", ":\n")
    axes.set_title(title, fontsize="medium", parse_math=False)


def object_array(items: Sequence[Any]) -> NDArray[np.object_]:
    """One-dimensional array of artists, even of those that are tuples."""
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def legend_above(figure: Any, handles: Sequence[Any], labels: Sequence[str] | None = None) -> Any:
    """A legend of one row above the panels of a figure."""
    labels = [handle.get_label() for handle in handles] if labels is None else labels
    legend = figure.legend(
        handles, labels, loc="outside upper right", ncols=len(labels), frameon=False
    )
    make_legible(legend)
    return legend


def make_legible(legend: Any) -> None:
    """Show thin, small or transparent artists in a legend as they would be alone."""
    from matplotlib.collections import LineCollection, PathCollection

    for points in legend.findobj(PathCollection):
        points.set(alpha=1.0, sizes=np.maximum(points.get_sizes(), _LEGEND_SIZE))
    for lines in legend.findobj(LineCollection):
        lines.set(alpha=1.0, linewidth=np.maximum(lines.get_linewidth(), _LEGEND_WIDTH))
    for line in legend.get_lines():
        line.set(
            alpha=1.0,
            linewidth=max(line.get_linewidth(), _LEGEND_WIDTH),
            markersize=max(line.get_markersize(), _LEGEND_SIZE**0.5),
        )


def label_edges(axes: NDArray[np.object_], x: str, y: str) -> None:
    """Label panels of one kind: below the lowest of a grid, and left of the first."""
    for own in axes:
        place = own.get_subplotspec()
        if place is None or place.is_last_row():
            own.set_xlabel(x, parse_math=False)
        if place is None or place.is_first_col():
            own.set_ylabel(y, parse_math=False)


def population_line(linewidth: float, *, on_top: bool) -> dict[str, Any]:
    """Properties of the line of the population: dashed; on top of others it has a white edge."""
    from matplotlib.patheffects import withStroke

    edge = {"path_effects": [withStroke(linewidth=1.8 * linewidth, foreground="white")]}
    return {
        "color": INK,
        "linewidth": linewidth,
        "linestyle": "--",
        "label": "population",
        "zorder": 3,
        **(edge if on_top else {}),
    }


def grid_axes(
    ax: Any,
    places: list[tuple[int, int]],
    caller: str,
    *,
    figsize: tuple[float, float],
    **ratios: Any,
) -> NDArray[np.object_]:
    """One-dimensional array of the axes of panels at (row, column) of a grid of unequal cells.

    ``ax`` is as for `panel_axes`, ``figsize`` the size of a new figure in inches, ``ratios`` are
    ``width_ratios`` and ``height_ratios`` of the grid.
    """
    if ax is not None and (len(places) == 1 or not hasattr(ax, "plot")):
        return panel_axes(ax, len(places), caller)
    check_matplotlib_support(caller)
    import matplotlib.pyplot as plt

    shape = (1 + max(row for row, _ in places), 1 + max(column for _, column in places))
    if ax is None:
        figure = plt.figure(figsize=figsize, layout="constrained")
        grid = figure.add_gridspec(*shape, **ratios)
    else:
        figure = ax.figure
        grid = _place_of(ax, len(places), caller).subgridspec(*shape, **ratios)
    return np.array([figure.add_subplot(grid[place]) for place in places], dtype=object)


def points_style(
    n_points: int, sizes: tuple[float, float], given: dict[str, Any] | None, **defaults: Any
) -> dict[str, Any]:
    """Properties for `matplotlib.axes.Axes.scatter`.

    ``sizes`` are those of few and of many points; many are one image in a vector file.
    """
    from matplotlib.collections import PathCollection

    is_many = n_points > _VECTOR_POINTS
    defaults |= {"s": sizes[is_many], "linewidth": 0, "rasterized": is_many}
    if "c" not in (given or {}):
        defaults["color"] = BLUE
    return style(defaults, given, PathCollection)
