"""Predictions of made-up cases in every level of a grouping factor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.design import Design
from mixedlearn.fitted import FittedModel
from mixedlearn.formula import as_pandas
from mixedlearn.inference._models import normal_quantile
from mixedlearn.plot._inputs import (
    Covariate,
    choose_factor,
    covariates,
    fitted_model,
    group_columns,
    level_categories,
    level_text,
    parent_codes,
)
from mixedlearn.plot._style import BLUE, INK, panel_axes, style
from mixedlearn.prediction import predict_mean, predict_std
from mixedlearn.validation import is_frame

FloatArray = NDArray[np.float64]

# A panel as wide as the page; beyond so many levels their names are left out.
_PANEL = (6.4, 2.6)
MAX_NAMES = 40
_RASTERIZED = 5_000


class SimulatedPredictionsDisplay:
    """Predictions of made-up cases in every level of a grouping factor, with intervals.

    Make it by `from_estimator`.

    Parameters
    ----------
    predictions : DataFrame of shape (n_cases * n_levels, 6)
        A row for every level of every case: "case", "level", "prediction", "lower", "upper" and
        "population", the prediction without random effects.
    factor : str
        Name of the grouping factor.
    level : float
        Probability of the intervals.

    Attributes
    ----------
    axes_ : ndarray of Axes of shape (n_cases,)
    figure_ : Figure
    errorbars_ : ndarray of ErrorbarContainer of shape (n_cases,)
        Predictions and intervals.
    population_lines_ : ndarray of Line2D of shape (n_cases,)
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
        factor: Any = None,
        level: float = 0.95,
        include_noise: bool = False,
        sort: bool = True,
        ax: Any = None,
        errorbar_kwargs: dict[str, Any] | None = None,
        population_kwargs: dict[str, Any] | None = None,
    ) -> SimulatedPredictionsDisplay:
        """Put every case into every level, predict and draw."""
        model = fitted_model(estimator)
        k = choose_factor(model.specification, factor)
        quantile = normal_quantile(level)
        levels = estimator._levels[k]
        frame, given = _case_frame(estimator, cases, k)
        columns = group_columns(estimator)
        n_cases, n_levels = len(frame), len(levels)
        rows = frame.iloc[np.repeat(np.arange(n_cases), n_levels)].reset_index(drop=True)
        own = np.tile(np.arange(n_levels, dtype=np.int32), n_cases)
        for part, name in enumerate(columns[k]):
            rows[name] = levels.get_level_values(part).take(own).array
        design = _design(estimator, rows, k, own, {*given, *columns[k]})
        mean, population = predict_mean(model, design), _population(model, design)
        margin = quantile * _standard_deviation(model, design, include_noise=include_noise)
        names = np.array(_case_names(cases, frame, covariates(estimator)), dtype=object)
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
        *,
        sort: bool = True,
        ax: Any = None,
        errorbar_kwargs: dict[str, Any] | None = None,
        population_kwargs: dict[str, Any] | None = None,
    ) -> SimulatedPredictionsDisplay:
        """Draw the predictions."""
        levels = self.predictions["level"].cat.categories
        n_levels = len(levels)
        n_cases = len(self.predictions) // n_levels
        caller = f"{type(self).__name__}.plot"
        self.axes_ = panel_axes(
            ax, n_cases, caller, n_columns=1, panel_size=_PANEL, sharex=True, sharey=True
        )
        self.figure_ = self.axes_[0].figure

        from matplotlib.lines import Line2D

        values = {
            name: self.predictions[name].to_numpy().reshape(n_cases, n_levels)
            for name in ("prediction", "lower", "upper", "population")
        }
        order = np.argsort(values["prediction"][0], kind="stable") if sort else np.arange(n_levels)
        point_style = style(
            {
                "color": BLUE,
                "linestyle": "none",
                "marker": "o",
                "markersize": float(np.clip(150 / n_levels, 0.8, 4.5)),
                "elinewidth": float(np.clip(100 / n_levels, 0.3, 1.5)),
                "ecolor": (BLUE, 0.6),
                "rasterized": n_levels > _RASTERIZED,
                "label": f"{self.factor}, with {self.level:.3g} interval",
            },
            errorbar_kwargs,
            Line2D,
        )
        population_style = style(
            {"color": INK, "linewidth": 1.2, "linestyle": "--", "label": "population", "zorder": 3},
            population_kwargs,
            Line2D,
        )
        bars, populations = [], []
        place = np.arange(n_levels)
        for case, axes in enumerate(self.axes_):
            mean, lower, upper = (
                values[name][case, order] for name in ("prediction", "lower", "upper")
            )
            bars.append(axes.errorbar(place, mean, [mean - lower, upper - mean], **point_style))
            populations.append(
                axes.plot(
                    place,
                    values["population"][case, order],
                    drawstyle="steps-mid",
                    **population_style,
                )[0]
            )
            axes.set(ylabel="prediction", title=self.predictions["case"].iloc[case * n_levels])
        self.errorbars_ = np.empty(n_cases, dtype=object)
        self.errorbars_[:] = bars
        self.population_lines_ = np.array(populations, dtype=object)
        self._annotate([level_text(level) for level in levels[order]], ax is None)
        return self

    def _annotate(self, names: list[str], has_own_figure: bool) -> None:
        """Names of the levels, as far as they can be read, and a legend."""
        last = self.axes_[-1]
        if len(names) <= MAX_NAMES:
            last.set_xlabel(self.factor)
            is_long = sum(map(len, names)) > MAX_NAMES
            for axes in self.axes_:
                axes.set_xticks(
                    range(len(names)), names, rotation=90 if is_long else 0, fontsize="small"
                )
        else:
            last.set_xlabel(f"{self.factor}: {len(names)} levels")
            for axes in self.axes_:
                axes.set_xticks([])
        if len(self.axes_) > 1:
            for axes in self.axes_:
                axes.label_outer()
        handles = [self.errorbars_[0], self.population_lines_[0]]
        if has_own_figure:
            self.figure_.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)
        else:
            self.axes_[0].legend(handles=handles, frameon=False)


def _case_frame(estimator: Any, cases: Any, k: int) -> tuple[pd.DataFrame, list[str]]:
    """The cases with all columns that `predict` wants, and the names of those that came.

    Group columns that did not come hold some level.

    Raises
    ------
    ValueError
        If a column with an effect is missing, or there is no case.
    """
    by_factor = group_columns(estimator)
    group_names = [name for columns in by_factor for name in columns]
    needed = [column.name for column in covariates(estimator) if column.name not in by_factor[k]]
    all_names = list(estimator._fitted_model().specification.names)
    if estimator._formula is not None:
        all_names = list(dict.fromkeys([*needed, *group_names]))
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
                f"cases has no column {name!r}, which has an effect in the model: it needs "
                f"{', '.join(map(repr, needed))}."
            )
    filled = frame[given].infer_objects()
    for columns, levels in zip(by_factor, estimator._levels, strict=True):
        for part, name in enumerate(columns):
            if name not in given:
                filled[name] = [levels.get_level_values(part)[0]] * len(frame)
    for name in all_names:
        if name not in filled.columns:
            filled[name] = np.nan
    return filled[all_names], given


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


def _case_names(cases: Any, frame: pd.DataFrame, columns: list[Covariate]) -> list[str]:
    """Text that tells the cases apart: their index if it is text, else the values that differ."""
    index = getattr(cases, "index", None)
    if isinstance(index, pd.Index) and all(isinstance(name, str) for name in index):
        names = list(index)
    else:
        differing = [
            column.name
            for column in columns
            if column.name in frame.columns and frame[column.name].nunique() > 1
        ]
        names = [
            ", ".join(f"{name} = {_short(frame[name].iloc[case])}" for name in differing)
            for case in range(len(frame))
        ]
    if len(names) > 1 and len(set(names)) < len(names):
        return [f"case {case}" for case in range(len(frame))]
    return names


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)


def _design(
    estimator: Any, rows: pd.DataFrame, k: int, own: NDArray[np.int32], given: set[str]
) -> Design:
    """The rows, with the levels of the other factors as far as they are known."""
    model = estimator._fitted_model()
    if not hasattr(estimator, "feature_names_in_"):
        rows = rows.set_axis(range(rows.shape[1]), axis=1)
    columns, labels = estimator._rows(rows, None)
    names = model.specification.factor_names
    by_factor = group_columns(estimator)
    told = [
        name for j, name in enumerate(names) if j != k and labels and given.issuperset(by_factor[j])
    ]
    codes = []
    for j, found in enumerate(estimator._codes(labels, told)):
        if j == k:
            codes.append(own)
            continue
        found = np.full(len(own), -1, dtype=np.int32) if found is None else found
        parents = parent_codes(model, k, j)
        codes.append(found if parents is None else parents[own])
    return Design(columns, tuple(codes))


def _population(model: FittedModel, design: Design) -> FloatArray:
    return predict_mean(model, Design(design.X, (None,) * len(design.codes)))


def _standard_deviation(model: FittedModel, design: Design, *, include_noise: bool) -> FloatArray:
    """Of a new observation, or of its mean: without the noise and effects of untold levels."""
    std = predict_std(model, design)
    if include_noise:
        return std
    variance = std**2 - model.noise_variance
    for factor, covariance, codes in zip(
        model.specification.factors, model.covariances, design.codes, strict=True
    ):
        untold = np.flatnonzero(codes < 0)
        z = design.X[np.ix_(untold, factor.slopes)]
        if factor.random_intercept:
            z = np.column_stack([np.ones(len(z)), z])
        variance[untold] -= np.einsum("ra,ab,rb->r", z, covariance, z)
    # A variance that is zero may come out a rounding error below it.
    return np.sqrt(np.maximum(variance, 0.0))
