"""Predictions of made-up cases in every level of a grouping factor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils._optional_dependencies import check_matplotlib_support

from mixedlearn.data.frames import is_frame
from mixedlearn.data.levels import labels_of
from mixedlearn.data.rows import CodedRows
from mixedlearn.formula import as_pandas
from mixedlearn.inference._models import normal_quantile, view_of
from mixedlearn.model.continuation import Condition
from mixedlearn.model.prediction import predict_mean, predict_std
from mixedlearn.plot._choices import only_factor
from mixedlearn.plot._inputs import (
    covariates,
    group_columns,
    level_categories,
    parent_codes,
)
from mixedlearn.plot._style import (
    BLUE,
    label_edges,
    legend_above,
    make_legible,
    name_places,
    object_array,
    panel_axes,
    population_line,
    set_title,
    style,
)
from mixedlearn.plot._text import level_text, plain_text, shortened

FloatArray = NDArray[np.float64]

# A panel as wide as the page; beyond so many levels their names are left out.
_PANEL = (6.4, 2.6)
MAX_NAMES = 40
# Letters of a case's name that fit above its panel.
_LONGEST_NAME = 60
# The longest name of a level, or in the legend, in inches.
_LONG_NAME = 2.0
_RASTERIZED = 5_000


class SimulatedPredictionsDisplay:
    """Predictions of made-up cases in every level of a grouping factor, with intervals.

    What would these pupils score in every school? Every case is put into every level, whether or
    not it was ever there. Make the display by `from_estimator`.

    Parameters
    ----------
    predictions : DataFrame of shape (n_cases * n_levels, 6)
        A row for every level of every case, case by case: "case" (its name), "level" (a tuple for
        an interaction), "prediction", "lower" and "upper", the ends of the interval, and
        "population", the prediction without random effects.
    factor : str
        Name of the grouping factor.
    level : float
        Probability of the intervals.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
    axes_ : ndarray of matplotlib.axes.Axes, shape (n_cases,)
    errorbars_ : ndarray of matplotlib.container.ErrorbarContainer, shape (n_cases,)
        Predictions and intervals, the levels in the order of the x axis.
    population_lines_ : ndarray of matplotlib.lines.Line2D, shape (n_cases,)
        The predictions without random effects.

    See Also
    --------
    GroupLinesDisplay : Data and the line of every level.
    mixedlearn.MixedLinearRegressor.sample_random_effects : Draws of the random effects.

    Notes
    -----
    Such pictures are usually made by simulation: draw fixed and random effects given the data,
    predict, take quantiles. The variance components being taken as known, the draws are normal. So
    the intervals here are quantiles of that normal distribution, to which those of a simulation
    tend as the draws become many; nothing is random. The variance is that of ``predict(...,
    return_std=True)``: that of the fixed effects and of the BLUPs of all factors, with their
    covariances. merTools [1]_ draws fixed and random effects independently of each other, which
    leaves out their covariance, and the noise variance as well; its intervals are usually wider.

    Of several factors, the others have the levels that the case names. A factor in which the levels
    are nested, as classes in schools, has the level that goes with them, whatever the case names.
    Without a name, the prediction has no effect of that factor, and an interval with the noise has
    the whole variance of its effects.

    References
    ----------
    .. [1] Knowles, J. E. & Frederick, C. (2020). merTools: Tools for Analyzing Mixed Effect
       Regression Models. R package, version 0.5.2: ``predictInterval``.

    Examples
    --------
    >>> import pandas as pd
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.plot import SimulatedPredictionsDisplay
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> cases = pd.DataFrame({"Days": [0, 9]})
    >>> display = SimulatedPredictionsDisplay.from_estimator(model, cases)
    >>> display.predictions.head(2).round(1)
           case level  prediction  lower  upper  population
    0  Days = 0   308       253.7  229.6  277.7       251.4
    1  Days = 0   309       211.0  187.0  235.0       251.4
    """

    def __init__(self, *, predictions: pd.DataFrame, factor: str, level: float):
        self.predictions = predictions
        self.factor = factor
        self.level = level

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        cases: Any,
        *,
        offset: Any = None,
        factor: Any = None,
        level: float = 0.95,
        include_noise: bool = False,
        sort: bool = True,
        ax: Any = None,
        errorbar_kwargs: dict[str, Any] | None = None,
        population_kwargs: dict[str, Any] | None = None,
    ) -> SimulatedPredictionsDisplay:
        """Put every case into every level, predict and draw.

        Parameters
        ----------
        estimator : MixedLinearRegressor
            Fitted.
        cases : array-like or DataFrame of shape (n_cases, n_features)
            A few rows as `predict` takes them. The labels of the factor are overwritten; group
            columns may be left out, and of a DataFrame all columns without an effect. A panel is
            named after the index of a DataFrame, if that is text, or after the values in which the
            cases differ.
        offset : float or array-like of shape (n_cases,), default=None
            Their offset, if `fit` had one beside X; it is part of the predictions. That of a
            formula is computed from the cases.
        factor : str or tuple of str, default=None
            The grouping factor; by default the only one.
        level : float, default=0.95
            Probability of the intervals.
        include_noise : bool, default=False
            Whether the intervals are for a new observation of weight one, or for its mean in that
            level. With a residual structure an observation has the forecast of `predict`, for which
            ``cases`` has the columns that the structure uses; a mean is without noise.
        sort : bool, default=True
            Whether the levels are in the order of their predictions for the first case, or in that
            of ``random_effects_``.
        ax : matplotlib.axes.Axes or array of these, default=None
            An array with one axes for each case, or one axes whose place the panels fill; None:
            those of a new figure.
        errorbar_kwargs, population_kwargs : dict, default=None
            Properties of the predictions (`matplotlib.axes.Axes.errorbar`) and of the population's
            line (`matplotlib.axes.Axes.plot`); ``label`` is the text in the legend.

        Returns
        -------
        display : SimulatedPredictionsDisplay
            The numbers, drawn.

        Raises
        ------
        ValueError
            If the model has no grouping factor, or several and none is chosen; if there is no such
            factor; if ``cases`` has no rows, lacks a column, or holds what `predict` refuses; if
            ``level`` is no probability; or if there are not as many axes as cases.
        TypeError
            If the estimator is no `MixedLinearRegressor`.
        NotFittedError
            Before `fit`.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        view = view_of(estimator, takes_noise=True)
        model = view.model
        k = only_factor(model.specification, factor)
        quantile = normal_quantile(level)
        levels = model.levels[k]
        has_noise = include_noise and view.noise is not None
        frame, given = _case_frame(estimator, cases, k, view.noise.columns if has_noise else ())
        columns = group_columns(view)
        n_cases, n_levels = len(frame), len(levels)
        rows = frame.iloc[np.repeat(np.arange(n_cases), n_levels)].reset_index(drop=True)
        own = np.tile(np.arange(n_levels, dtype=np.int32), n_cases)
        for part, name in enumerate(columns[k]):
            rows[name] = levels.get_level_values(part).take(own).array
        coded = _coded(estimator, rows, k, own, {*given, *columns[k]})
        known = view.offset(cases, offset)
        shift = 0.0 if known is None else known.repeat(n_levels)
        condition = _condition(view, rows, k, own, {*given, *columns[k]}) if has_noise else None
        mean = predict_mean(model, coded) + shift
        mean = mean if condition is None else mean + condition.mean
        population = predict_mean(model, coded.of_population()) + shift
        margin = quantile * predict_std(
            model, coded, of_mean=not include_noise, condition=condition
        )
        names = np.array(_case_names(cases, frame[given]), dtype=object)
        display = cls(
            predictions=pd.DataFrame(
                {
                    "case": names.repeat(n_levels),
                    "level": pd.Categorical.from_codes(own, level_categories(levels)),
                    "prediction": mean,
                    "lower": mean - margin,
                    "upper": mean + margin,
                    "population": population,
                }
            ),
            factor=model.specification.factor_names[k],
            level=level,
        )
        return display.plot(
            sort=sort, ax=ax, errorbar_kwargs=errorbar_kwargs, population_kwargs=population_kwargs
        )

    def plot(
        self,
        ax: Any = None,
        *,
        sort: bool = True,
        errorbar_kwargs: dict[str, Any] | None = None,
        population_kwargs: dict[str, Any] | None = None,
    ) -> SimulatedPredictionsDisplay:
        """Draw the predictions.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or array of these, default=None
            As for `from_estimator`.
        sort : bool, default=True
            As for `from_estimator`.
        errorbar_kwargs, population_kwargs : dict, default=None
            As for `from_estimator`.

        Returns
        -------
        display : SimulatedPredictionsDisplay
            Itself.
        """
        levels = self.predictions["level"].cat.categories
        n_levels = len(levels)
        n_cases = len(self.predictions) // n_levels
        self.axes_ = panel_axes(
            ax,
            n_cases,
            type(self).__name__,
            n_columns=1,
            panel_size=_PANEL,
            sharex=True,
            sharey=True,
        )
        self.figure_ = self.axes_[0].figure

        from matplotlib.lines import Line2D

        values = {
            name: self.predictions[name].to_numpy().reshape(n_cases, n_levels)
            for name in ("prediction", "lower", "upper", "population")
        }
        order = np.argsort(values["prediction"][0], kind="stable") if sort else np.arange(n_levels)
        bar_style = style(self._bar_style(n_levels), errorbar_kwargs, Line2D)
        bar_style.setdefault(
            "ecolor", (bar_style["color"], float(np.clip(500 / n_levels, 0.01, 0.6)))
        )
        # Few points stand before the line, many would hide it.
        is_legible = n_levels <= MAX_NAMES
        population_style = style(
            population_line(1.2, on_top=not is_legible) | ({"zorder": 1} if is_legible else {}),
            population_kwargs,
            Line2D,
        )
        bars, populations = [], []
        for case, axes in enumerate(self.axes_):
            own = {name: values[name][case, order] for name in values}
            bars.append(_draw_bars(axes, own, bar_style))
            populations.append(_draw_population(axes, own["population"], population_style))
            if n_cases > 1:
                set_title(axes, self.predictions["case"].iloc[case * n_levels])
        self.errorbars_ = object_array(bars)
        self.population_lines_ = object_array(populations)
        names = [shortened(level_text(level), _LONG_NAME) for level in levels[order]]
        for axes in self.axes_:
            if is_legible:
                name_places(axes, names, fontsize="small")
            else:
                axes.set_xticks([])
        note = "" if is_legible else f" ({n_levels:,} levels)"
        label_edges(self.axes_, self.factor + note, "Prediction")
        self._add_legend(ax is None, "upper left" if sort else "best")
        return self

    def _bar_style(self, n_levels: int) -> dict[str, Any]:
        """The more levels, the smaller and the lighter their bars."""
        factor = plain_text(shortened(self.factor, _LONG_NAME))
        return {
            "color": BLUE,
            "linestyle": "none",
            "marker": "o",
            "markersize": float(np.clip(150 / n_levels, 0.8, 4.5)),
            "elinewidth": float(np.clip(100 / n_levels, 0.3, 1.5)),
            "rasterized": n_levels > _RASTERIZED,
            "label": f"each {factor}, {100.0 * self.level:g}% interval",
        }

    def _add_legend(self, has_own_figure: bool, place: str) -> None:
        """A legend above the panels, or at a place of the first; predictions rise to the right."""
        handles = [self.errorbars_[0], self.population_lines_[0]]
        if has_own_figure:
            legend_above(self.figure_, handles)
        else:
            make_legible(self.axes_[0].legend(handles=handles, loc=place, edgecolor="none"))


def _draw_bars(axes: Any, values: dict[str, FloatArray], bar_style: dict[str, Any]) -> Any:
    mean, lower, upper = (values[name] for name in ("prediction", "lower", "upper"))
    return axes.errorbar(np.arange(len(mean)), mean, [mean - lower, upper - mean], **bar_style)


def _draw_population(axes: Any, values: FloatArray, line_style: dict[str, Any]) -> Any:
    """The line of the population, to the edges of the outer levels."""
    n_levels = len(values)
    edged = np.clip(np.arange(-1, n_levels + 1), 0, n_levels - 1)
    steps = np.concatenate([[-0.5], np.arange(n_levels), [n_levels - 0.5]])
    return axes.plot(steps, values[edged], drawstyle="steps-mid", **line_style)[0]


def _case_frame(
    estimator: Any, cases: Any, k: int, of_noise: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """The cases with all columns that `predict` wants, and the names of those that tell something.

    These came with the cases, take part in the model, and are not overwritten by the levels of
    factor k. Group columns that did not come hold some level.

    Raises
    ------
    ValueError
        If a column with an effect is missing, or there is no case.
    """
    view = view_of(estimator, takes_noise=True)
    by_factor = group_columns(view)
    group_names = [name for columns in by_factor for name in columns]
    used = [*(column.name for column in covariates(view)), *of_noise]
    needed = [name for name in dict.fromkeys(used) if name not in by_factor[k]]
    all_names = list(view.model.specification.names)
    if view.formula is not None:
        all_names = list(dict.fromkeys([*needed, *group_names]))
    if np.ndim(cases) != 2:
        raise ValueError(
            "cases must have a row for every case and a column for every column of X, got "
            f"{np.ndim(cases)} dimensions: of a frame, X.iloc[[0]] is one row."
        )
    if is_frame(cases) and hasattr(estimator, "feature_names_in_"):
        frame = as_pandas(cases, "cases").reset_index(drop=True)
    else:
        frame = _named(cases, all_names, group_names)
    if not len(frame):
        raise ValueError("cases has no rows: give a row for every case.")
    given = [name for name in all_names if name in frame.columns]
    for name in needed:
        if name not in given:
            raise ValueError(
                f"cases has no column {name!r}, which has an effect in the model"
                f"{' or on its noise' if of_noise else ''}: it needs "
                f"{', '.join(map(repr, needed))}."
            )
    filled = frame[given].infer_objects()
    for columns, levels in zip(by_factor, view.model.levels, strict=True):
        for part, name in enumerate(columns):
            if name not in given:
                filled[name] = [levels.get_level_values(part)[0]] * len(frame)
    for name in all_names:
        if name not in filled.columns:
            filled[name] = np.nan
    tell = {*needed, *group_names}.difference(by_factor[k])
    return filled[all_names], [name for name in given if name in tell]


def _named(cases: Any, all_names: list[str], group_names: list[str]) -> pd.DataFrame:
    """Cases whose columns go by position, with or without the group columns."""
    frame = pd.DataFrame(cases).reset_index(drop=True)
    without = [name for name in all_names if name not in group_names]
    for names in (all_names, without):
        if frame.shape[1] == len(names):
            return frame.set_axis(names, axis=1)
    raise ValueError(
        f"cases has {frame.shape[1]} columns, but X had {len(all_names)}: give these, or the "
        f"{len(without)} that are no group columns."
    )


def _case_names(cases: Any, frame: pd.DataFrame) -> list[str]:
    """Text that tells the cases apart: their index if it is text, else the values that differ."""
    index, n_cases = getattr(cases, "index", None), len(frame)
    names = [""] * n_cases
    if isinstance(index, pd.Index) and all(isinstance(name, str) for name in index):
        names = index.tolist()
    else:
        values = {name: list(map(_short, frame[name])) for name in frame}
        differing = [name for name, own in values.items() if len(set(own)) > 1]
        names = [
            ", ".join(f"{name} = {values[name][case]}" for name in differing)
            for case in range(n_cases)
        ]
    if "" in names or len(set(names)) < n_cases or max(map(len, names)) > _LONGEST_NAME:
        return [f"case {case}" for case in range(n_cases)]
    return names


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)


def _coded(
    estimator: Any, rows: pd.DataFrame, k: int, own: NDArray[np.int32], given: set[str]
) -> CodedRows:
    """The rows, with the levels of the other factors as far as they are known."""
    view = view_of(estimator, takes_noise=True)
    model = view.model
    if not hasattr(estimator, "feature_names_in_"):
        rows = rows.set_axis(range(rows.shape[1]), axis=1)
    found_rows = view.rows(rows)
    labels = found_rows.labels
    names = model.specification.factor_names
    by_factor = group_columns(view)
    told = [
        name for j, name in enumerate(names) if j != k and labels and given.issuperset(by_factor[j])
    ]
    codes = []
    for j, found in enumerate(view.codes(labels, told)):
        if j == k:
            codes.append(own)
            continue
        found = np.full(len(own), -1, dtype=np.int32) if found is None else found
        parents = parent_codes(model, k, j)
        codes.append(found if parents is None else parents[own])
    return CodedRows(found_rows.X, tuple(codes))


def _condition(
    view: Any, rows: pd.DataFrame, k: int, own: NDArray[np.int32], given: set[str]
) -> Condition:
    """What the residuals of their levels say of the noise of the rows; see `_coded`."""
    source, table = view.noise, view.known.noise.table
    series = np.full(len(rows), -1)
    if source.series == view.model.specification.factor_names[k]:
        series = table.find(labels_of(view.model.levels[k]))[own]
    elif source.series_columns and given.issuperset(source.series_columns):
        series = table.find(source.labels(rows, None)[0])
    found: Condition = view.condition_in(rows, series)
    return found
