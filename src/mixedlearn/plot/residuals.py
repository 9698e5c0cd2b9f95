"""Residuals against fitted values."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gamma
from sklearn.utils._optional_dependencies import check_matplotlib_support

from mixedlearn.inference._models import check_count, model_of, view_of
from mixedlearn.inference.residuals import residuals as residuals_of_the_fit
from mixedlearn.inference.residuals import standard_residuals
from mixedlearn.plot._style import BLUE, GREY, INK, legend_above, points_style, single_axes, style

FloatArray = NDArray[np.float64]

# The mean of the root of |z|, z standard normal.
EXPECTED_ROOT = 2.0**0.25 * gamma(0.75) / np.sqrt(np.pi)
# The trend at a place is a line fitted to this share of the rows, at so many places; of many rows,
# to the means of so many bins.
SPAN = 2.0 / 3.0
N_PLACES = 50
# Through fewer rows, a local line goes from point to point.
FEWEST_ROWS = 10
MOST_BINS = 2_000
# Values that differ by less, relative to the largest, are the same.
ROUNDING = 1e-10


class ResidualsDisplay:
    """Residuals against fitted values, with their trend.

    Use `from_estimator` to make one.

    Parameters
    ----------
    fitted_values : array-like of shape (n_rows,)
        Predictions, in units of y.
    residuals : array-like of shape (n_rows,)
        In units of y, or studentized for ``kind="scale_location"``; with a residual structure
        normalized.
    kind : {"residuals", "scale_location"}, default="residuals"
        What is drawn: the residuals, or the roots of their absolute values.
    against : {"fitted", "population"}, default="fitted"
        Whether the fitted values hold the random effects.
    is_weighted : bool, default=False
        Whether the residuals were multiplied by the roots of the rows' weights.
    is_normalized : bool, default=False
        Whether the residuals are those of a residual structure, without its correlations.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
    ax_ : matplotlib.axes.Axes
    scatter_ : matplotlib.collections.PathCollection or None
        The rows; None where they are drawn as a density.
    hexbin_ : matplotlib.collections.PolyCollection or None
        Their density.
    line_ : matplotlib.lines.Line2D
        What is expected: zero, or 0.82 on the scale-location plot.
    trend_ : matplotlib.lines.Line2D or None
        None where all fitted values are the same, or there are fewer than ten rows.

    See Also
    --------
    mixedlearn.inference.residuals : The residuals themselves.
    QQDisplay : Are they normal?

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.plot import ResidualsDisplay
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> display = ResidualsDisplay.from_estimator(model, X, y)
    >>> display.residuals[:3].round(1)
    array([ -4.1, -14.6, -42.2])
    """

    def __init__(
        self,
        *,
        fitted_values: ArrayLike,
        residuals: ArrayLike,
        kind: Literal["residuals", "scale_location"] = "residuals",
        against: Literal["fitted", "population"] = "fitted",
        is_weighted: bool = False,
        is_normalized: bool = False,
    ):
        self.fitted_values = np.asarray(fitted_values, dtype=float)
        self.residuals = np.asarray(residuals, dtype=float)
        self.kind = kind
        self.against = against
        self.is_weighted = is_weighted
        self.is_normalized = is_normalized

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        groups: Any = None,
        sample_weight: Any = None,
        offset: Any = None,
        kind: Literal["residuals", "scale_location"] = "residuals",
        against: Literal["fitted", "population"] = "fitted",
        max_points: int = 20_000,
        ax: Any = None,
        scatter_kwargs: dict[str, Any] | None = None,
        hexbin_kwargs: dict[str, Any] | None = None,
        line_kwargs: dict[str, Any] | None = None,
        trend_kwargs: dict[str, Any] | None = None,
    ) -> ResidualsDisplay:
        """Compute residuals and draw them.

        Parameters
        ----------
        estimator : MixedLinearRegressor
            Fitted.
        X : array-like or DataFrame of shape (n_samples, n_features)
            Rows. For ``kind="scale_location"``, and if the model has a residual structure, they
            have to be the rows of the fit, whose leverages or covariances are needed; otherwise any
            rows will do.
        y : array-like of shape (n_samples,)
            Their responses.
        groups : array-like of shape (n_samples,) or (n_samples, n_factors), default=None
            Their labels, if `fit` had them beside X.
        sample_weight : array-like of shape (n_samples,), default=None
            Precision weights of the rows. Residuals are multiplied by their roots, so that all
            have the variance of the noise; rows of weight zero are left out.
        offset : float or array-like of shape (n_samples,), default=None
            Their offset, if `fit` had one beside X; it is part of the predictions.
        kind : {"residuals", "scale_location"}, default="residuals"
            - "residuals": response minus prediction with random effects, around zero. A curved
              trend says that the fixed effects miss something. With a residual structure,
              ``kind="normalized"`` of `mixedlearn.inference.residuals`.
            - "scale_location": the root of the absolute studentized residual; with a residual
              structure, of the normalized residual over its standard error. A trend up or down
              says that the noise depends on the fitted value. If the noise is normal with constant
              variance, the mean is 0.82 everywhere.
        against : {"fitted", "population"}, default="fitted"
            What the residuals are drawn against: predictions with random effects, or those for the
            population (see Notes).
        max_points : int, default=20_000
            More rows than this are drawn as hexagons, shaded by the number of rows in each. No row
            is left out either way.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on; None: those of a new figure.
        scatter_kwargs, hexbin_kwargs, line_kwargs, trend_kwargs : dict, default=None
            Properties of the points, of the hexagons, of the line of what is expected, and of the
            trend.

        Returns
        -------
        display : ResidualsDisplay
            The numbers, drawn.

        Raises
        ------
        ValueError
            If ``kind`` or ``against`` is not allowed; if the rows are not valid, or not those of
            the fit where they have to be; if no row has a studentized residual; or if
            ``max_points`` is no positive integer.
        TypeError
            If the estimator is no `MixedLinearRegressor`.
        NotFittedError
            Before `fit`.

        Warns
        -----
        PopulationPredictionWarning
            If groups are missing: the residuals then hold the random effects too.

        Notes
        -----
        BLUPs are shrunk towards zero, and what they leave of the random effects is in the
        residuals. So residuals rise with the fitted values even if the model is right, the more so
        the fewer rows the levels have. With the predictions for the population the residuals of the
        fit have no correlation (with weights, no weighted one): there a trend is a curve.

        The trend is a local regression (Cleveland 1979, without the iterations that lessen the
        weight of outliers): at each of 50 quantiles of the fitted values a line is fitted to the
        nearest two thirds of the rows.

        References
        ----------
        Cleveland, W. S. (1979). Robust locally weighted regression and smoothing scatterplots.
        Journal of the American Statistical Association 74(368), 829-836.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        _check(kind, against, max_points)
        is_normalized = model_of(estimator, takes_noise=True).noise is not None
        own = {"groups": groups, "offset": offset, "sample_weight": sample_weight}
        fitted_values, values, keep = _values(estimator, X, y, own, kind, against)
        display = cls(
            fitted_values=fitted_values[keep],
            residuals=values[keep],
            kind=kind,
            against=against,
            is_weighted=sample_weight is not None and not is_normalized,
            is_normalized=is_normalized,
        )
        return display.plot(
            ax=ax,
            max_points=max_points,
            scatter_kwargs=scatter_kwargs,
            hexbin_kwargs=hexbin_kwargs,
            line_kwargs=line_kwargs,
            trend_kwargs=trend_kwargs,
        )

    def plot(
        self,
        ax: Any = None,
        *,
        max_points: int = 20_000,
        scatter_kwargs: dict[str, Any] | None = None,
        hexbin_kwargs: dict[str, Any] | None = None,
        line_kwargs: dict[str, Any] | None = None,
        trend_kwargs: dict[str, Any] | None = None,
    ) -> ResidualsDisplay:
        """Draw the residuals.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to draw on; None: those of a new figure.
        max_points : int, default=20_000
            More rows than this are drawn as hexagons, shaded by the number of rows in each.
        scatter_kwargs, hexbin_kwargs, line_kwargs, trend_kwargs : dict, default=None
            Properties of the points, of the hexagons, of the line of what is expected, and of the
            trend.

        Returns
        -------
        display : ResidualsDisplay
            Itself.

        Raises
        ------
        ValueError
            If ``kind`` or ``against`` is not allowed, or ``max_points`` is no positive integer.
        """
        _check(self.kind, self.against, max_points)
        has_own_figure = ax is None
        ax = single_axes(ax, type(self).__name__)
        from matplotlib.collections import PolyCollection
        from matplotlib.lines import Line2D
        from matplotlib.patheffects import withStroke

        is_located = self.kind == "scale_location"
        heights = np.sqrt(np.abs(self.residuals)) if is_located else self.residuals
        n_rows = len(heights)
        self.scatter_, self.hexbin_ = None, None
        if n_rows > max_points:
            defaults = {"gridsize": 60, "bins": "log", "mincnt": 1, "cmap": _shades()}
            self.hexbin_ = ax.hexbin(
                self.fitted_values, heights, **style(defaults, hexbin_kwargs, PolyCollection)
            )
            ax.figure.colorbar(self.hexbin_, ax=ax, label="Rows in a hexagon")
        else:
            properties = points_style(n_rows, (14.0, 8.0), scatter_kwargs, alpha=0.6)
            self.scatter_ = ax.scatter(self.fitted_values, heights, **properties)
        expected = EXPECTED_ROOT if is_located else 0.0
        defaults = {"color": GREY, "linestyle": "--", "linewidth": 1.2, "label": "expected"}
        self.line_ = ax.axhline(expected, **style(defaults, line_kwargs, Line2D))
        self.trend_ = None
        places, trend = _local_regression(self.fitted_values, heights)
        if len(places) > 1 and n_rows >= FEWEST_ROWS:
            outline = [withStroke(linewidth=3.2, foreground="white")]
            defaults = {"color": INK, "linewidth": 1.8, "path_effects": outline, "label": "trend"}
            (self.trend_,) = ax.plot(places, trend, **style(defaults, trend_kwargs, Line2D))
        is_fitted = self.against == "fitted"
        ax.set_xlabel("Fitted value" if is_fitted else "Prediction for the population")
        ax.set_ylabel(self._what())
        self.ax_, self.figure_ = ax, ax.figure
        if has_own_figure:
            legend_above(self.figure_, [own for own in (self.trend_, self.line_) if own])
        return self

    def _what(self) -> str:
        if self.kind == "scale_location":
            return f"Root of |{'normalized' if self.is_normalized else 'studentized'} residual|"
        if self.is_normalized:
            return "Normalized residual"
        return "Residual times root of weight" if self.is_weighted else "Residual"


def _values(
    estimator: Any, X: Any, y: Any, own: dict[str, Any], kind: str, against: str
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Fitted values, residuals, and which rows are drawn."""
    view = view_of(estimator, takes_noise=True)
    of_rows = {"groups": own["groups"], "offset": own["offset"]}
    weights = view.rows(X, own["groups"], sample_weight=own["sample_weight"]).weights
    response = view.response(X, y, weights)
    is_normalized = view.noise is not None
    if is_normalized:
        # Without what `predict` adds of the noise of a level.
        fitted_values = response - residuals_of_the_fit(estimator, X, y, **own).to_numpy()
    else:
        fitted_values = estimator.predict(X, **of_rows)
    drawn = fitted_values
    if against == "population":
        drawn = estimator.predict(X, **of_rows, random_effects="none")
    if kind == "scale_location":
        values = standard_residuals(estimator, X, y, **own).to_numpy()
        keep = np.isfinite(values)
        if not keep.any():
            raise ValueError(
                "No residual has a variance: the noise variance is zero, or every row has "
                "leverage one. Use kind='residuals'."
            )
        return drawn, values, keep
    keep = np.ones(len(drawn), dtype=bool) if weights is None else weights > 0.0
    if is_normalized:
        values = residuals_of_the_fit(estimator, X, y, kind="normalized", **own).to_numpy()
    else:
        values = response - fitted_values
        values = values if weights is None else values * np.sqrt(weights)
    return drawn, values, keep


def _check(kind: Any, against: Any, max_points: Any) -> None:
    if kind not in ("residuals", "scale_location"):
        raise ValueError(f"kind must be 'residuals' or 'scale_location', got {kind!r}.")
    if against not in ("fitted", "population"):
        raise ValueError(f"against must be 'fitted' or 'population', got {against!r}.")
    check_count(max_points, "max_points")


def _shades() -> Any:
    """Colours from light to dark, the lightest of them visible on white."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("rows", ["#a9cbe3", BLUE, "#001a2b"])


def _local_regression(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Places among the x, and the height there of a line fitted to the rows near by.

    The weights of the rows are Cleveland's tricube of their distance.
    """
    order = np.argsort(x)
    n_bins = min(len(x), MOST_BINS)
    edges = np.linspace(0, len(x), n_bins + 1).astype(int)
    x, y = (np.add.reduceat(own[order], edges[:-1]) / np.diff(edges) for own in (x, y))
    n_near = int(np.ceil(SPAN * n_bins))
    rounding = ROUNDING * np.abs(x).max()
    places = np.quantile(x, np.linspace(0.0, 1.0, N_PLACES))
    places = places[np.diff(places, prepend=-np.inf) > rounding]
    heights = np.empty(len(places))
    for i, place in enumerate(places):
        # The nearest are neighbours in x.
        reach = np.maximum(place - x[: n_bins - n_near + 1], x[n_near - 1 :] - place)
        near = slice(reach.argmin(), reach.argmin() + n_near)
        width = reach.min()
        weights = np.ones(n_near)
        if width > rounding:
            weights = (1.0 - (np.abs(x[near] - place) / width) ** 3) ** 3
        weights /= weights.sum()
        centre, mean = weights @ x[near], weights @ y[near]
        spread = weights @ (x[near] - centre) ** 2
        slope = weights @ ((x[near] - centre) * y[near]) / spread if spread > rounding**2 else 0.0
        heights[i] = mean + slope * (place - centre)
    return places, heights
