"""Standard deviations and correlations of random effects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils._optional_dependencies import check_matplotlib_support

from mixedlearn.covariance.algebra import correlations
from mixedlearn.inference._models import model_of
from mixedlearn.inference.goodness import average_noise, column_products
from mixedlearn.plot._choices import chosen_factors
from mixedlearn.plot._style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    grid_axes,
    name_places,
    object_array,
    set_title,
    style,
)
from mixedlearn.plot._text import LETTERS_PER_INCH, shortened, three_digits

SCALES = ("sd", "contribution")
# Cells of larger correlations are so dark that white numbers are read better than black ones.
_DARK = 0.9
# In inches: the height of a bar and the width of their panel, a cell of a correlation matrix, the
# least side of a matrix, the labels around a panel.
_BAR, _WIDTH, _CELL, _LEAST, _FRAME = 0.32, 3.6, 0.45, 1.5, 1.1
# So many panels are side by side.
_COLUMNS = 3
# Names longer than the first of these, in inches, widen their panel, up to the second.
_SHORT_NAME, _LONG_NAME = 1.0, 3.0


class CovarianceDisplay:
    """Standard deviations and correlations of the random effects.

    The first panel has a bar for the standard deviation of every random effect, and one of the
    noise to compare them with. Every factor with two or more effects has a panel with their
    correlations besides.

    Use `from_estimator` to make one.

    Parameters
    ----------
    standard_deviations : dict of str to Series of shape (q,)
        By factor and effect.
    correlations : dict of str to DataFrame of shape (q, q)
        By factor. NaN where an effect has no variance; zero where ``free`` is False.
    free : dict of str to DataFrame of shape (q, q), bool
        Whether the model leaves a covariance free. Those that it does not are zero.
    contributions : dict of str to Series of shape (q,)
        Standard deviations of the effects times the root mean square of their columns over the
        rows of the fit, in units of the response.
    noise_standard_deviation : float
        Of a row of weight one; with a residual structure, the root of ``noise_variance_``.
    noise_contribution : float
        Of a row of average weight; with a residual structure, the root of the mean variance of the
        rows' noise.

    Attributes
    ----------
    standard_deviations, correlations, free, contributions
        As above.
    noise_standard_deviation, noise_contribution : float
    figure_ : matplotlib.figure.Figure
    axes_ : ndarray of matplotlib.axes.Axes, shape (n_panels,)
        Standard deviations first, then the correlations of each factor with two or more effects.
    bars_ : matplotlib.container.BarContainer
        From top to bottom, the noise last.
    images_ : ndarray of matplotlib.image.AxesImage
        The correlations, one for each panel of them; the diagonal, what is undefined and what the
        model fixes at zero are masked.
    texts_ : list of list of matplotlib.text.Text
        The numbers in every panel; of correlations, row by row.

    See Also
    --------
    mixedlearn.inference.variance_table : The numbers.

    Notes
    -----
    The standard deviation of a slope is in units of the response per unit of its column, so its
    bar can be compared with that of an intercept, or of the noise, only if one unit of the column
    is a natural step: the one from zero to one of an indicator, a standard deviation, a day.
    ``scale="contribution"`` brings all bars to units of the response: the standard deviation of
    ``z b`` in an average row, which is that of b times the root mean square of its column z.
    These are the parts that `mixedlearn.inference.r2` adds up [1]_, but for the covariances between
    effects of a level. Both depend on where the zero of the column is.

    Positive correlations are blue and negative ones orange, which is the lighter in print; the
    numbers tell them apart without any colour.

    References
    ----------
    .. [1] Johnson, P. C. D. (2014). Extension of Nakagawa & Schielzeth's R2GLMM to random slopes
       models. Methods in Ecology and Evolution 5, 944-946.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.plot import CovarianceDisplay
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> display = CovarianceDisplay.from_estimator(model)
    >>> display.standard_deviations["Subject"].round(2)
    intercept    24.74
    Days          5.92
    Name: Subject, dtype: float64
    >>> display.correlations["Subject"].round(2)
               intercept  Days
    intercept       1.00  0.07
    Days            0.07  1.00
    """

    figure_: Any
    axes_: NDArray[np.object_]
    bars_: Any
    images_: NDArray[np.object_]
    texts_: list[list[Any]]

    def __init__(
        self,
        *,
        standard_deviations: dict[str, pd.Series],
        correlations: dict[str, pd.DataFrame],
        free: dict[str, pd.DataFrame],
        contributions: dict[str, pd.Series],
        noise_standard_deviation: float,
        noise_contribution: float,
    ):
        self.standard_deviations = standard_deviations
        self.correlations = correlations
        self.free = free
        self.contributions = contributions
        self.noise_standard_deviation = noise_standard_deviation
        self.noise_contribution = noise_contribution

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        factor: str | Iterable[str] | None = None,
        scale: str = "sd",
        ax: Any = None,
        bar_kwargs: dict[str, Any] | None = None,
        image_kwargs: dict[str, Any] | None = None,
        text_kwargs: dict[str, Any] | None = None,
    ) -> CovarianceDisplay:
        """Compute and draw the standard deviations and correlations of a fitted model.

        Parameters
        ----------
        estimator : MixedLinearRegressor
            Fitted.
        factor : str, tuple of str, or list of these, default=None
            Grouping factors to draw, an interaction by its name or the tuple of its columns; None:
            all.
        scale : {"sd", "contribution"}, default="sd"
            What the bars are; see `plot`.
        ax : matplotlib Axes or array of Axes, default=None
            Where to draw; see `plot`.
        bar_kwargs, image_kwargs, text_kwargs : dict, default=None
            Properties of what is drawn; see `plot`.

        Returns
        -------
        display : CovarianceDisplay
            The numbers, drawn.

        Raises
        ------
        ValueError
            If the model has no random effects or no such factor, ``scale`` is unknown, or ``ax``
            holds too few or too many axes.
        TypeError
            If the estimator is no `MixedLinearRegressor`.
        NotFittedError
            Before `fit`.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        model = model_of(estimator, takes_noise=True)
        factors = model.specification.factors
        wanted = chosen_factors(model.specification, factor)
        deviations, ratios, free, contributions = {}, {}, {}, {}
        for own, covariance, products in zip(
            factors, model.covariances, column_products(model), strict=True
        ):
            if own.name not in wanted:
                continue
            effects = list(own.effects)
            sd = np.sqrt(np.diag(covariance))
            ratio = np.where(own.structure.mask, correlations(covariance), 0.0)
            deviations[own.name] = pd.Series(sd, index=effects, name=own.name)
            ratios[own.name] = pd.DataFrame(ratio, index=effects, columns=effects)
            free[own.name] = pd.DataFrame(own.structure.mask, index=effects, columns=effects)
            contributions[own.name] = pd.Series(
                sd * np.sqrt(np.diag(products)), index=effects, name=own.name
            )
        display = cls(
            standard_deviations=deviations,
            correlations=ratios,
            free=free,
            contributions=contributions,
            noise_standard_deviation=float(np.sqrt(model.noise_variance)),
            noise_contribution=float(np.sqrt(average_noise(model))),
        )
        return display.plot(
            scale=scale,
            ax=ax,
            bar_kwargs=bar_kwargs,
            image_kwargs=image_kwargs,
            text_kwargs=text_kwargs,
        )

    def plot(
        self,
        ax: Any = None,
        *,
        scale: str = "sd",
        bar_kwargs: dict[str, Any] | None = None,
        image_kwargs: dict[str, Any] | None = None,
        text_kwargs: dict[str, Any] | None = None,
    ) -> CovarianceDisplay:
        """Draw the attributes.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or array of these, default=None
            An array with one axes for each panel, or one axes whose place the panels fill; None:
            those of a new figure.
        scale : {"sd", "contribution"}, default="sd"
            Bars for the standard deviations of the effects, each in its own unit, or for their
            contributions to an average row, all in units of the response. See Notes.
        bar_kwargs : dict, default=None
            Properties of the bars (`matplotlib.axes.Axes.barh`).
        image_kwargs : dict, default=None
            Properties of the correlations (`matplotlib.axes.Axes.imshow`), such as ``cmap``.
        text_kwargs : dict, default=None
            Properties of the numbers (`matplotlib.text.Text`).

        Returns
        -------
        display : CovarianceDisplay
            Itself.

        Raises
        ------
        ValueError
            If ``scale`` is unknown, or ``ax`` holds too few or too many axes.
        """
        if scale not in SCALES:
            raise ValueError(f"scale={scale!r} is unknown: use 'sd' or 'contribution'.")
        matrices = {name: own for name, own in self.correlations.items() if len(own) > 1}
        n_bars = 1 + sum(map(len, self.standard_deviations.values()))
        places = [divmod(i, _COLUMNS) for i in range(1 + len(matrices))]
        sides = [
            max(_CELL * len(own), _LEAST) + _FRAME + _widening(own.index)
            for own in matrices.values()
        ]
        heights = [max(_BAR * n_bars, 1.0) + _FRAME, *sides]
        widths = [_WIDTH + _widening(self._bar_names()), *sides]
        row_heights = [max(heights[i : i + _COLUMNS]) for i in range(0, len(places), _COLUMNS)]
        column_widths = [max(widths[i::_COLUMNS]) for i in range(min(len(places), _COLUMNS))]
        self.axes_ = grid_axes(
            ax,
            places,
            type(self).__name__,
            figsize=(max(sum(column_widths), 4.8), sum(row_heights)),
            width_ratios=column_widths,
            height_ratios=row_heights,
        )
        self.figure_ = self.axes_[0].figure
        self.bars_, numbers = self._draw_bars(self.axes_[0], scale, bar_kwargs, text_kwargs)
        images, self.texts_ = [], [numbers]
        for own, (name, matrix) in zip(self.axes_[1:], matrices.items(), strict=True):
            image, numbers = _draw_matrix(own, matrix, self.free[name], image_kwargs, text_kwargs)
            set_title(own, name, ": correlations")
            images.append(image)
            self.texts_.append(numbers)
        self.images_ = object_array(images)
        return self

    def _bar_names(self) -> list[str]:
        """The effects of all bars but the noise, with their factor if there are several."""
        is_one = len(self.standard_deviations) == 1
        return [
            effect if is_one else f"{effect} | {factor}"
            for factor, own in self.standard_deviations.items()
            for effect in own.index
        ]

    def _draw_bars(
        self,
        ax: Any,
        scale: str,
        bar_kwargs: dict[str, Any] | None,
        text_kwargs: dict[str, Any] | None,
    ) -> tuple[Any, list[Any]]:
        """Standard deviations of all effects, and of the noise at the bottom."""
        from matplotlib.patches import Rectangle
        from matplotlib.text import Text

        is_sd = scale == "sd"
        series = self.standard_deviations if is_sd else self.contributions
        noise = self.noise_standard_deviation if is_sd else self.noise_contribution
        names = [shortened(name, _LONG_NAME) for name in self._bar_names()]
        sizes = np.append(np.concatenate(list(series.values())), noise)
        places = np.arange(len(sizes))
        given = style({"height": 0.6, "color": BLUE}, bar_kwargs, Rectangle)
        bars = ax.barh(places, sizes, **given)
        bars[-1].set(facecolor="white", edgecolor=GREY, hatch="////")
        ax.set_yticks(places, [*names, "noise"], parse_math=False)
        ax.set_ylim(len(sizes) - 0.4, -0.6)
        ax.set_xlim(0.0, 1.4 * sizes.max() or 1.0)
        text_style = style({"fontsize": 9, "va": "center"}, text_kwargs, Text)
        numbers = [
            ax.annotate(
                three_digits(size), (size, place), (4, 0), textcoords="offset points", **text_style
            )
            for size, place in zip(sizes, places, strict=True)
        ]
        what = "standard deviations" if is_sd else "contributions"
        if len(series) == 1:
            set_title(ax, next(iter(series)), f": {what}")
        else:
            set_title(ax, what.capitalize())
        has_slopes = any(set(own.index) != {"intercept"} for own in series.values())
        note = "\n(slopes: per unit of column)" if is_sd else ", in an average row"
        ax.set_xlabel("Response units" + (note if has_slopes else ""))
        return bars, numbers


def _draw_matrix(
    ax: Any,
    matrix: pd.DataFrame,
    free: pd.DataFrame,
    image_kwargs: dict[str, Any] | None,
    text_kwargs: dict[str, Any] | None,
) -> tuple[Any, list[Any]]:
    """A correlation matrix as an image with its numbers."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.text import Text

    values, is_free = matrix.to_numpy(), free.to_numpy()
    q = len(values)
    is_hidden = np.isnan(values) | ~is_free | np.eye(q, dtype=bool)
    colors = LinearSegmentedColormap.from_list("correlation", [ORANGE, "white", BLUE])
    defaults = {"cmap": colors, "vmin": -1.0, "vmax": 1.0}
    image = ax.imshow(np.ma.masked_array(values, is_hidden), **{**defaults, **(image_kwargs or {})})
    edges = np.arange(q + 1) - 0.5
    if not is_free.all():
        fixed = np.ma.masked_array(np.zeros((q, q)), is_free)
        ax.pcolor(edges, edges, fixed, hatch="////", facecolor="none", edgecolor="0.8", linewidth=0)
    text_style = style({"fontsize": 9, "ha": "center", "va": "center"}, text_kwargs, Text)
    numbers = []
    for i, j in np.ndindex(q, q):
        color = "white" if not is_hidden[i, j] and values[i, j] > _DARK else INK
        text = _correlation(float(values[i, j]), is_diagonal=i == j, is_free=bool(is_free[i, j]))
        numbers.append(ax.text(j, i, text, **{"color": color, **text_style}))
    names = [shortened(name, _LONG_NAME) for name in matrix.index]
    name_places(ax, names)
    ax.set_yticks(range(q), names, parse_math=False)
    ax.tick_params(length=0)
    notes = []
    if not is_free.all():
        notes.append("Hatched: fixed at zero")
    if np.isnan(values).any():
        notes.append("\u2013: zero variance")
    ax.set_xlabel("\n".join(notes))
    return image, numbers


def _correlation(value: float, *, is_diagonal: bool, is_free: bool) -> str:
    if np.isnan(value):
        return "\u2013"
    if is_diagonal:
        return "1"
    # Adding zero takes the sign from what is rounded to zero.
    return f"{round(value, 2) + 0.0:.2f}" if is_free else "0"


def _widening(names: Iterable[str]) -> float:
    """What long names take more of a panel, in inches."""
    longest = max(map(len, names)) / LETTERS_PER_INCH
    return float(np.clip(longest, _SHORT_NAME, _LONG_NAME)) - _SHORT_NAME
