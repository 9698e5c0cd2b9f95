"""Marginal means or slopes with their intervals, joined by lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._optional_dependencies import check_matplotlib_support

from mixedlearn.inference import MarginalMeans, marginal_means
from mixedlearn.plot._style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    fitting,
    inches,
    name_places,
    single_axes,
    style,
)
from mixedlearn.plot._text import LETTERS_PER_INCH, level_text, plain_text, shortened

FloatArray = NDArray[np.float64]

# Lines differ in colour, marker and dashes.
_COLOURS = (BLUE, ORANGE, INK, GREY)
_MARKERS = ("o", "s", "^", "D", "v")
_DASHES = ("-", "--", "-.")
# How far lines stand beside each other, as a share of the least distance of two places.
_BESIDE = 0.08
# The longest name of a place or a line, in inches.
_LONG_NAME = 1.2


class MarginalMeansDisplay:
    """Marginal means as points with intervals, joined by a line for each group.

    The categories of the first variable, or the values of a covariate, are on the x axis; each
    combination of the other columns has a line.

    Use `from_estimator` to make one, or give it what `mixedlearn.inference.marginal_means` or
    `mixedlearn.inference.marginal_slopes` gave.

    Parameters
    ----------
    means : MarginalMeans
        What is drawn.

    Attributes
    ----------
    means : MarginalMeans
        As above.
    figure_ : matplotlib.figure.Figure
    ax_ : matplotlib.axes.Axes
    lines_ : ndarray of matplotlib.lines.Line2D, shape (n_lines,)
        The points of every group, joined.
    intervals_ : ndarray of matplotlib.collections.LineCollection, shape (n_lines,)
        Their intervals.

    See Also
    --------
    mixedlearn.inference.marginal_means : The numbers.
    mixedlearn.inference.compare_means : Which of them differ.

    Notes
    -----
    Two means whose intervals overlap may differ all the same: the standard error of a difference
    is another one. What cannot be estimated is left out.

    Examples
    --------
    >>> from mixedlearn import lmer
    >>> from mixedlearn.datasets import load_cake
    >>> from mixedlearn.plot import MarginalMeansDisplay
    >>> model = lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", load_cake().frame)
    >>> display = MarginalMeansDisplay.from_estimator(model, "temperature", by="recipe")
    >>> [line.get_label() for line in display.lines_]
    ['A', 'B', 'C']
    """

    figure_: Any
    ax_: Any
    lines_: NDArray[np.object_]
    intervals_: NDArray[np.object_]

    def __init__(self, *, means: MarginalMeans):
        self.means = means

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        variables: str | Sequence[str] = (),
        by: str | Sequence[str] = (),
        *,
        at: Mapping[str, Any] | None = None,
        weights: str | Mapping[str, Any] = "equal",
        X: Any = None,
        sample_weight: ArrayLike | None = None,
        ddf: str = "satterthwaite",
        level: float = 0.95,
        covariance: Any = None,
        ax: Any = None,
        line_kwargs: dict[str, Any] | None = None,
        interval_kwargs: dict[str, Any] | None = None,
    ) -> MarginalMeansDisplay:
        """Compute and draw the marginal means of a fitted model.

        Parameters
        ----------
        estimator : MixedLinearRegressor
            Fitted.
        variables : str or sequence of str, default=()
            The columns whose categories have a mean, the first on the x axis.
        by : str or sequence of str, default=()
            The columns whose categories have a line.
        at : dict, default=None
            Values of columns, by their names; see `mixedlearn.inference.marginal_means`.
        weights : {"equal", "proportional"} or dict, default="equal"
            How categories are averaged; see `mixedlearn.inference.marginal_means`.
        X : array-like or DataFrame of shape (n_samples, n_features), default=None
            Rows that stand for the population; see `mixedlearn.inference.marginal_means`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows of X.
        ddf : {"satterthwaite", "kenward-roger", "residual", "normal"}, default="satterthwaite"
            Degrees of freedom; see `mixedlearn.inference.coefficient_table`.
        level : float, default=0.95
            Level of the confidence intervals.
        covariance : RobustCovariance, default=None
            What to use instead of the model's covariance; see
            `mixedlearn.inference.coefficient_table`.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; None: in a new figure.
        line_kwargs, interval_kwargs : dict, default=None
            Properties of what is drawn; see `plot`.

        Returns
        -------
        display : MarginalMeansDisplay
            The numbers, drawn.

        Raises
        ------
        ValueError
            As `mixedlearn.inference.marginal_means`.
        TypeError
            If the estimator is no `MixedLinearRegressor`, or ``covariance`` no `RobustCovariance`.
        NotFittedError
            Before `fit`.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        means = marginal_means(
            estimator,
            variables,
            by,
            at=at,
            weights=weights,
            X=X,
            sample_weight=sample_weight,
            ddf=ddf,
            level=level,
            covariance=covariance,
        )
        return cls(means=means).plot(ax, line_kwargs=line_kwargs, interval_kwargs=interval_kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        line_kwargs: dict[str, Any] | None = None,
        interval_kwargs: dict[str, Any] | None = None,
    ) -> MarginalMeansDisplay:
        """Draw the means.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Where to draw; None: in a new figure.
        line_kwargs : dict, default=None
            Properties of the points and of the lines that join them
            (`matplotlib.axes.Axes.plot`); ``linestyle="none"`` leaves the lines out.
        interval_kwargs : dict, default=None
            Properties of the intervals (`matplotlib.collections.LineCollection`).

        Returns
        -------
        display : MarginalMeansDisplay
            Itself.
        """
        self.ax_ = single_axes(ax, type(self).__name__)
        self.figure_ = self.ax_.figure
        table, x_name = self.means.table, _on_x_axis(self.means)
        values = list(dict.fromkeys(_values(table.index, x_name)))
        is_number = all(isinstance(own, (int, float, np.number)) for own in values)
        places = np.array(values, dtype=float) if is_number else np.arange(len(values), dtype=float)
        gap = float(np.diff(np.sort(places)).min()) if len(places) > 1 else 1.0
        groups = list(_lines(table, x_name))
        drawn = []
        for k, (name, rows) in enumerate(groups):
            beside = (k - (len(groups) - 1) / 2.0) * _BESIDE * gap
            own = [values.index(value) for value in _values(rows.index, x_name)]
            label = plain_text(shortened(name, _LONG_NAME))
            drawn.append(
                _draw(
                    self.ax_,
                    places[own] + beside,
                    rows,
                    _line_style(k) | {"label": label},
                    line_kwargs,
                    interval_kwargs,
                )
            )
        self.lines_, self.intervals_ = np.array(drawn, dtype=object).T
        self.ax_.autoscale_view()
        if not is_number:
            self.ax_.set_xlim(-0.5, len(values) - 0.5)
            name_places(self.ax_, [shortened(level_text(own), _LONG_NAME) for own in values])
        self._label(x_name, [name for name in table.index.names if name not in (x_name, None)])
        return self

    def _label(self, x_name: Any, others: Sequence[Any]) -> None:
        """Names of the axes, and a legend if there are several lines."""
        if x_name is not None:
            self.ax_.set_xlabel(fitting(str(x_name), self.ax_), parse_math=False)
        means = self.means
        what = "Marginal mean" if means.slope is None else f"Slope in {means.slope}"
        if means.response is not None:
            what += f" of {means.response}"
        interval = f"{100.0 * means.level:g}% interval"
        self.ax_.set_ylabel(f"{shortened(what, 2.0)}, {interval}", parse_math=False)
        if others:
            title = plain_text(shortened(", ".join(map(str, others)), _LONG_NAME))
            letters = sum(len(line.get_label()) + 6 for line in self.lines_)
            n_rows = 1 + int(letters / LETTERS_PER_INCH / inches(self.ax_)[0])
            self.ax_.legend(
                title=title,
                frameon=False,
                loc="lower left",
                bbox_to_anchor=(0.0, 1.0),
                ncols=-(-len(self.lines_) // n_rows),
            )


def _line_style(k: int) -> dict[str, Any]:
    return {
        "color": _COLOURS[k % len(_COLOURS)],
        "marker": _MARKERS[k % len(_MARKERS)],
        "linestyle": _DASHES[k % len(_DASHES)],
        "linewidth": 1.2,
        "markersize": 5.0,
        "zorder": 3,
    }


def _draw(
    ax: Any,
    x: FloatArray,
    rows: pd.DataFrame,
    defaults: dict[str, Any],
    line_kwargs: dict[str, Any] | None,
    interval_kwargs: dict[str, Any] | None,
) -> tuple[Any, Any]:
    """One line of means, and their intervals."""
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    (line,) = ax.plot(x, rows["estimate"], **style(defaults, line_kwargs, Line2D))
    ends = rows[["lower", "upper"]].to_numpy(dtype=float)
    segments = np.stack([np.column_stack([x, x]), ends], axis=-1)
    own = {"color": line.get_color(), "linewidth": 1.5, "zorder": 2}
    intervals = LineCollection(
        list(segments[np.isfinite(ends).all(axis=1)]), **style(own, interval_kwargs, LineCollection)
    )
    return line, ax.add_collection(intervals)


def _on_x_axis(means: MarginalMeans) -> Any:
    """The column on the x axis; None for one mean of all."""
    return next(iter([*means.variables, *means.by]), None)


def _values(index: pd.Index, name: Any) -> list[Any]:
    return index.get_level_values(name if name is not None else 0).tolist()


def _lines(table: pd.DataFrame, x_name: Any) -> Iterator[tuple[str, pd.DataFrame]]:
    """For every combination of the columns that are not on the x axis its name and its rows."""
    others = [place for place, name in enumerate(table.index.names) if name != x_name]
    if not others or x_name is None:
        yield "", table
        return
    keys = list(zip(*(table.index.get_level_values(place) for place in others), strict=True))
    for key in dict.fromkeys(keys):
        is_own = np.array([own == key for own in keys])
        yield ", ".join(map(level_text, key)), table[is_own]
