"""Normal quantile-quantile plots of the noise and of the random effects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, norm
from sklearn.utils._optional_dependencies import check_matplotlib_support

from mixedlearn.inference._models import check_level, model_of
from mixedlearn.inference.residuals import standard_residuals
from mixedlearn.model.fitted import FittedModel
from mixedlearn.plot._choices import chosen_effects, chosen_factors
from mixedlearn.plot._style import INK, object_array, panel_axes, points_style, set_title, style

FloatArray = NDArray[np.float64]

# Below this share of an effect's variance, the variance of a BLUP is rounding error.
NO_VARIANCE = 1e-10
# The band is drawn at so many order statistics at most.
BAND_POINTS = 400


class QQDisplay:
    """Normal quantile-quantile plot of the noise or of the random effects.

    Use `from_estimator` to make one. Values are standardised to a variance of one, so that under
    the model they lie around the line through the origin with slope one.

    Parameters
    ----------
    values : dict of {str: Series or array-like of shape (n_values,)}
        Standardised values of each panel by its title. NaN are left out; a panel without values
        says that the variance is zero. `from_estimator` makes Series indexed by the levels of the
        factor, or for the noise by the positions of the rows.
    kind : {"noise", "random_effects"}, default="noise"
        What the values are of.
    level : float, default=0.95
        Probability of the band.
    is_normalized : bool, default=False
        Whether the noise is that of a residual structure, without its correlations.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
    axes_ : ndarray of matplotlib.axes.Axes, shape (n_panels,)
    scatter_ : ndarray of matplotlib.collections.PathCollection or None, shape (n_panels,)
        The points; None where the variance is zero.
    lines_ : ndarray of matplotlib.lines.Line2D or None, shape (n_panels,)
        The line through the origin with slope one.
    bands_ : ndarray of matplotlib.collections.PolyCollection or None, shape (n_panels,)
        The confidence bands.

    See Also
    --------
    ResidualsDisplay : Residuals against fitted values.
    RandomEffectsDisplay : Random effects with their intervals, in their units.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.plot import QQDisplay
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> noise = QQDisplay.from_estimator(model, X, y)
    >>> effects = QQDisplay.from_estimator(model)
    >>> list(effects.values)
    ['intercept | Subject', 'Days | Subject']
    """

    def __init__(
        self,
        *,
        values: Mapping[str, pd.Series | ArrayLike],
        kind: Literal["noise", "random_effects"] = "noise",
        level: float = 0.95,
        is_normalized: bool = False,
    ):
        self.values = {name: pd.Series(own, dtype=float) for name, own in values.items()}
        if not self.values:
            raise ValueError("values is empty: pass the values of a panel.")
        self.kind = kind
        self.level = level
        self.is_normalized = is_normalized

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        y: Any = None,
        *,
        groups: Any = None,
        sample_weight: Any = None,
        offset: Any = None,
        factor: str | Iterable[str] | None = None,
        effect: str | Iterable[str] | None = None,
        level: float = 0.95,
        ax: Any = None,
        scatter_kwargs: dict[str, Any] | None = None,
        line_kwargs: dict[str, Any] | None = None,
        band_kwargs: dict[str, Any] | None = None,
    ) -> QQDisplay:
        """Compute standardised values and draw them.

        Parameters
        ----------
        estimator : MixedLinearRegressor
            Fitted.
        X : array-like or DataFrame of shape (n_samples, n_features), default=None
            The rows of the fit: the plot is that of the noise. Without them it is that of the
            random effects, a panel for each factor and effect.
        y : array-like of shape (n_samples,), default=None
            Their responses.
        groups : array-like of shape (n_samples,) or (n_samples, n_factors), default=None
            Their labels, if `fit` had them beside X.
        sample_weight : array-like of shape (n_samples,), default=None
            Their weights, if `fit` had weights.
        offset : float or array-like of shape (n_samples,), default=None
            Their offset, if `fit` had one beside X.
        factor : str, tuple of str, or list of these, default=None
            Grouping factors to draw, an interaction by its name or the tuple of its columns; None:
            all.
        effect : str or list of str, default=None
            Random effects to draw, "intercept" or names of slopes; None: all.
        level : float, default=0.95
            Probability with which the band holds each point.
        ax : matplotlib.axes.Axes or array of these, default=None
            An array with one axes for each panel, or one axes whose place the panels fill; None:
            those of a new figure.
        scatter_kwargs, line_kwargs, band_kwargs : dict, default=None
            Properties of the points, of the line, and of the band.

        Returns
        -------
        display : QQDisplay
            The numbers, drawn.

        Raises
        ------
        ValueError
            If rows are passed that are not those of the fit; if there is no such factor or effect,
            or no random effects at all; if one is named for a plot of the noise; or if ``level`` is
            not between zero and one.
        TypeError
            If the estimator is no `MixedLinearRegressor`.
        NotFittedError
            Before `fit`.

        Notes
        -----
        *Noise.* Conditional residuals over their standard errors (``kind="studentized"`` of
        `mixedlearn.inference.residuals`). With a residual structure these would be correlated: its
        plot shows ``kind="normalized"`` over their standard errors.

        *Random effects.* BLUPs vary less than the random effects, and less in levels with few
        rows. Each is divided by its own standard deviation, the root of

            var(BLUP) = var(random effect) - var(BLUP - random effect)

        where the prediction error on the right counts the estimation of the fixed effects (Lange &
        Ryan 1989). Given the variance components, under the model all are then standard normal,
        whatever the numbers of rows. Where a level has few rows, its BLUP is mostly a mean of noise
        and looks normal whatever the distribution of the random effects: the plot finds outliers,
        but is weak evidence for normality (Verbeke & Lesaffre 1996).

        *Positions.* The i-th smallest of n values is drawn at the normal quantile of
        ``(i - 3/8) / (n + 1/4)`` (Blom 1958). The band is pointwise: the i-th smallest of n
        independent uniform numbers has the beta distribution with parameters i and n + 1 - i. It
        takes the values as independent, which is nearly true where there are many more levels or
        rows than fixed effects.

        References
        ----------
        Blom, G. (1958). Statistical Estimates and Transformed Beta-Variables. Wiley.

        Lange, N. & Ryan, L. (1989). Assessing normality in random effects models. Annals of
        Statistics 17(2), 624-642.

        Verbeke, G. & Lesaffre, E. (1996). A linear mixed-effects model with heterogeneity in the
        random-effects population. Journal of the American Statistical Association 91(433),
        217-221.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        model = model_of(estimator, takes_noise=True)
        check_level(level)
        kind: Literal["noise", "random_effects"] = "noise"
        if all(own is None for own in (X, y, groups, sample_weight, offset)):
            kind = "random_effects"
            values = _standardised(model, factor, effect)
        else:
            if X is None or y is None:
                raise ValueError(
                    "The plot of the noise needs X and y, and groups and sample_weight if fit had "
                    "them: pass the rows of the fit, or nothing for the plot of the random effects."
                )
            if factor is not None or effect is not None:
                raise ValueError(
                    "factor and effect are for the plot of the random effects, but X and y ask for "
                    "that of the noise: leave one or the other out."
                )
            noise = standard_residuals(
                estimator, X, y, groups=groups, sample_weight=sample_weight, offset=offset
            )
            values = {"noise": noise}
        display = cls(values=values, kind=kind, level=level, is_normalized=model.noise is not None)
        return display.plot(
            ax=ax, scatter_kwargs=scatter_kwargs, line_kwargs=line_kwargs, band_kwargs=band_kwargs
        )

    def plot(
        self,
        ax: Any = None,
        *,
        scatter_kwargs: dict[str, Any] | None = None,
        line_kwargs: dict[str, Any] | None = None,
        band_kwargs: dict[str, Any] | None = None,
    ) -> QQDisplay:
        """Draw the values.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or array of these, default=None
            An array with one axes for each panel, or one axes whose place the panels fill; None:
            those of a new figure.
        scatter_kwargs, line_kwargs, band_kwargs : dict, default=None
            Properties of the points, of the line, and of the band.

        Returns
        -------
        display : QQDisplay
            Itself.

        Raises
        ------
        ValueError
            If ``level`` is not between zero and one.
        """
        check_level(self.level)
        axes = panel_axes(ax, len(self.values), type(self).__name__)
        from matplotlib.collections import PolyCollection
        from matplotlib.lines import Line2D

        drawn: list[tuple[Any, Any, Any]] = []
        what = "Standardised BLUP"
        if self.kind == "noise":
            what = "Normalized residual" if self.is_normalized else "Studentized residual"
        for own_ax, (name, panel) in zip(axes, self.values.items(), strict=True):
            set_title(own_ax, name)
            ordered = np.sort(panel.dropna().to_numpy())
            if not len(ordered):
                own_ax.set(xticks=[], yticks=[])
                middle = {"ha": "center", "va": "center", "transform": own_ax.transAxes}
                own_ax.text(0.5, 0.5, "The variance is zero.", **middle)
                drawn.append((None, None, None))
                continue
            quantiles = plotting_positions(len(ordered))
            ranks, lower, upper = _band(len(ordered), self.level)
            properties = style({"color": "0.85", "linewidth": 0}, band_kwargs, PolyCollection)
            band = own_ax.fill_between(quantiles[ranks - 1], lower, upper, **properties)
            reach = quantiles[[0, -1]] + [-0.2, 0.2]
            properties = style({"color": INK, "linewidth": 1.0}, line_kwargs, Line2D)
            (line,) = own_ax.plot(reach, reach, **properties)
            above = line.get_zorder() + 1
            properties = points_style(len(ordered), (14.0, 5.0), scatter_kwargs, zorder=above)
            drawn.append((own_ax.scatter(quantiles, ordered, **properties), line, band))
            own_ax.set(xlabel="Standard normal quantile", ylabel=what)
        self.scatter_, self.lines_, self.bands_ = map(object_array, zip(*drawn, strict=True))
        self.axes_, self.figure_ = axes, axes[0].figure
        return self


def plotting_positions(n: int) -> FloatArray:
    """Standard normal quantiles at which n ordered values are drawn, shape (n,)."""
    return np.asarray(norm.ppf((np.arange(1, n + 1) - 0.375) / (n + 0.25)))


def _band(n: int, level: float) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
    """Some ranks from 1 to n, and the bounds of the order statistics of a normal sample there."""
    positions = plotting_positions(n)
    spread = norm.cdf(np.linspace(positions[0], positions[-1], BAND_POINTS))
    ranks = np.unique(np.clip(np.round(n * spread + 0.5), 1, n).astype(int))
    tail = (1.0 - level) / 2.0
    lower, upper = (
        np.asarray(norm.ppf(beta.ppf(share, ranks, n + 1 - ranks))) for share in (tail, 1.0 - tail)
    )
    return ranks, lower, upper


def _standardised(model: FittedModel, factor: Any, effect: Any) -> dict[str, pd.Series]:
    """Standardised BLUPs of the effects that are wanted, by the titles of their panels.

    Raises
    ------
    ValueError
        If there are none.
    """
    specification = model.specification
    factors = chosen_factors(
        specification, factor, instead="pass X and y for the plot of the noise"
    )
    values: dict[str, pd.Series] = {}
    for name, effects in chosen_effects(specification, factors, effect).items():
        k = specification.factor_names.index(name)
        table = pd.DataFrame(
            standardised_blups(model, k),
            index=model.sums.levels[k],
            columns=list(specification.factors[k].effects),
        )
        values |= {f"{own} | {name}": table[own] for own in effects}
    return values


def standardised_blups(model: FittedModel, k: int) -> FloatArray:
    """BLUPs of factor k over their standard deviations, shape (m, q); NaN where these are zero."""
    covariance = np.diag(model.covariances[k])
    conditional = np.einsum("maa->ma", model.conditional_covariances(k))
    # The BLUP moves with the estimated coefficients.
    response = np.einsum(
        "ai,ipm,pj->maj",
        model.random_bases[k].to_user,
        model.posterior.coef_response[k],
        model.fixed_effects.inverse_root,
        optimize=True,
    )
    by_coef = model.noise_variance * np.einsum("maj,maj->ma", response, response)
    variance = covariance - conditional - by_coef
    has_variance = variance > NO_VARIANCE * covariance
    deviation = np.sqrt(np.where(has_variance, variance, np.nan))
    return model.blups[k] / deviation
