"""Normal quantile-quantile plots of the noise and of the random effects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, norm

from mixedlearn.fitted import FittedModel
from mixedlearn.design import plain_name
from mixedlearn.inference import residuals
from mixedlearn.inference._models import check_level, model_of
from mixedlearn.plot._style import BLUE, INK, panel_axes, style

FloatArray = NDArray[np.float64]

# Below this share of an effect's variance, the variance of a BLUP is rounding error.
NO_VARIANCE = 1e-10
# The band is drawn at so many order statistics at most.
BAND_POINTS = 400
# More points than this are one image in a vector file.
VECTOR_POINTS = 2_000


class QQDisplay:
    """Normal quantile-quantile plot of the noise or of the random effects.

    Use `from_estimator` to make one. Values are standardised to a variance of one, so that under
    the model they lie around the line through the origin with slope one.

    Parameters
    ----------
    values : dict of {str: array-like of shape (n_values,)}
        Standardised values of each panel by its title. NaN are left out; a panel without values
        says that the variance is zero.
    kind : {"noise", "random_effects"}, default="noise"
        What the values are of.
    level : float, default=0.95
        Probability of the band.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes
        One for each panel.
    scatter_ : list of matplotlib PathCollection or None
        The points of each panel; None where the variance is zero.
    lines_ : list of matplotlib Line2D or None
        The line through the origin with slope one.
    bands_ : list of matplotlib FillBetweenPolyCollection or None
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
        values: Mapping[str, ArrayLike],
        kind: Literal["noise", "random_effects"] = "noise",
        level: float = 0.95,
    ):
        self.values = {name: np.asarray(own, dtype=float) for name, own in values.items()}
        self.kind = kind
        self.level = level

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        y: Any = None,
        groups: Any = None,
        *,
        sample_weight: Any = None,
        factor: Any = None,
        effect: str | None = None,
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
        X, y, groups, sample_weight
            The rows of the fit: the plot is that of the noise. Without them it is that of the
            random effects, a panel for each factor and effect.
        factor : str or tuple of str, default=None
            Draw this grouping factor only.
        effect : str, default=None
            Draw this random effect only, ``"intercept"`` for the intercept.
        level : float, default=0.95
            Probability with which the band holds each point.
        ax : matplotlib Axes or array of these, default=None
            Axes to draw on: an array with one for each panel, or one whose place the panels fill;
            None: those of a new figure.
        scatter_kwargs, line_kwargs, band_kwargs : dict, default=None
            Properties of the points, of the line, and of the band.

        Returns
        -------
        display : QQDisplay

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
        `mixedlearn.inference.residuals`).

        *Random effects.* BLUPs vary less than the random effects, and less in levels with few
        rows. Each is divided by its own standard deviation, the root of

            var(BLUP) = var(random effect) - var(BLUP - random effect)

        where the prediction error on the right counts the estimation of the fixed effects (Lange &
        Ryan 1989). Given the variance components, under the model all are then standard normal,
        whatever the numbers of rows. With few rows in a level its BLUP is mostly a mean of noise and
        looks normal whatever the distribution of the random effects: the plot finds outliers, but
        is weak evidence for normality (Verbeke & Lesaffre 1996).

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
        model = model_of(estimator)
        check_level(level)
        values: dict[str, ArrayLike]
        if X is None and y is None:
            values = {
                f"{name} | {model.specification.factors[k].name}": standardised_blups(model, k)[:, j]
                for k, j, name in _wanted(model, factor, effect)
            }
        else:
            if factor is not None or effect is not None:
                raise ValueError(
                    "factor and effect are for the plot of the random effects, but X and y ask for "
                    "that of the noise: leave one or the other out."
                )
            noise = residuals(
                estimator, X, y, groups, kind="studentized", sample_weight=sample_weight
            )
            values = {"noise": noise.to_numpy()}
        display = cls(
            values=values, kind="noise" if "noise" in values else "random_effects", level=level
        )
        return display.plot(
            ax=ax, scatter_kwargs=scatter_kwargs, line_kwargs=line_kwargs, band_kwargs=band_kwargs
        )

    def plot(
        self,
        *,
        ax: Any = None,
        scatter_kwargs: dict[str, Any] | None = None,
        line_kwargs: dict[str, Any] | None = None,
        band_kwargs: dict[str, Any] | None = None,
    ) -> QQDisplay:
        """Draw the values.

        Parameters
        ----------
        ax : matplotlib Axes or array of these, default=None
            Axes to draw on: an array with one for each panel, or one whose place the panels fill;
            None: those of a new figure.
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
        axes = panel_axes(ax, len(self.values), f"{type(self).__name__}.plot")
        from matplotlib.collections import PathCollection, PolyCollection
        from matplotlib.lines import Line2D

        self.scatter_: list[Any] = []
        self.lines_: list[Any] = []
        self.bands_: list[Any] = []
        what = "Studentized residual" if self.kind == "noise" else "Standardised BLUP"
        for own_ax, (name, own) in zip(axes, self.values.items(), strict=True):
            if self.kind == "random_effects":
                own_ax.set_title(name)
            own = np.sort(own[np.isfinite(own)])
            if not len(own):
                _say_zero(own_ax, name)
                self.scatter_.append(None)
                self.lines_.append(None)
                self.bands_.append(None)
                continue
            quantiles = plotting_positions(len(own))
            ranks, lower, upper = _band(len(own), self.level)
            defaults = {"color": "0.85", "linewidth": 0, "zorder": 0}
            self.bands_.append(
                own_ax.fill_between(
                    quantiles[ranks - 1],
                    lower,
                    upper,
                    **style(defaults, band_kwargs, PolyCollection),
                )
            )
            defaults = {"color": INK, "linewidth": 1.0, "zorder": 1}
            reach = quantiles[[0, -1]] + [-0.2, 0.2]
            self.lines_ += own_ax.plot(reach, reach, **style(defaults, line_kwargs, Line2D))
            defaults = {"s": 14, "color": BLUE, "linewidths": 0, "zorder": 2}
            defaults["rasterized"] = len(own) > VECTOR_POINTS
            self.scatter_.append(
                own_ax.scatter(quantiles, own, **style(defaults, scatter_kwargs, PathCollection))
            )
            own_ax.set(xlabel="Standard normal quantile", ylabel=what)
        self.axes_, self.figure_ = axes, axes[0].figure
        return self


def plotting_positions(n: int) -> FloatArray:
    """Standard normal quantiles at which n ordered values are drawn, shape (n,)."""
    return norm.ppf((np.arange(1, n + 1) - 0.375) / (n + 0.25))


def _band(n: int, level: float) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
    """Some ranks from 1 to n, and the bounds of the order statistics of a normal sample there."""
    ends = plotting_positions(n)[[0, -1]]
    ranks = np.round(n * norm.cdf(np.linspace(*ends, BAND_POINTS)) + 0.5).astype(int)
    ranks = np.unique(np.clip(ranks, 1, n))
    tail = (1.0 - level) / 2.0
    lower, upper = (
        norm.ppf(beta.ppf(share, ranks, n + 1 - ranks)) for share in (tail, 1.0 - tail)
    )
    return ranks, lower, upper


def _say_zero(ax: Any, name: str) -> None:
    """Text in the place of points."""
    ax.set(xticks=[], yticks=[])
    text = f"The variance of {name}\nis zero."
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)


def _wanted(model: FittedModel, factor: Any, effect: Any) -> list[tuple[int, int, str]]:
    """Position of the factor and of the effect, and the effect's name, of each panel.

    Raises
    ------
    ValueError
        If there are none.
    """
    factors = model.specification.factors
    if not factors:
        raise ValueError(
            "The model was fitted without groups, so it has no random effects: pass X and y for "
            "the plot of the noise."
        )
    names = [own.name for own in factors]
    name = None if factor is None else plain_name(factor)
    if name is not None and name not in names:
        raise ValueError(
            f"The model has no grouping factor {name!r}: they are {', '.join(map(repr, names))}."
        )
    found = [
        (k, j, own_effect)
        for k, own in enumerate(factors)
        for j, own_effect in enumerate(own.effects)
        if name in (None, own.name) and effect in (None, own_effect)
    ]
    if not found:
        known = dict.fromkeys(e for own in factors if name in (None, own.name) for e in own.effects)
        of_factor = "The model" if name is None else f"The factor {name!r}"
        raise ValueError(
            f"{of_factor} has no random effect {effect!r}: they are "
            f"{', '.join(map(repr, known))}."
        )
    return found


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
