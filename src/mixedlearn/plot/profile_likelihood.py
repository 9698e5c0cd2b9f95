"""Curves of profile likelihoods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator
from sklearn.utils._optional_dependencies import check_matplotlib_support

from mixedlearn.inference import ProfileLikelihood, confidence_intervals, profile_likelihood
from mixedlearn.inference._models import check_count, check_level, model_of, normal_quantile
from mixedlearn.inference.profiles import DEFAULT_LEVEL
from mixedlearn.plot._style import BLUE, GREY, INK, fitting, object_array, panel_axes, style

FloatArray = NDArray[np.float64]

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
KINDS = ("log_likelihood", "deviance", "signed_root")
# Points of a curve.
CURVE_POINTS = 201
# So near to the estimate, as a share of their range, values of the profile are passed over.
NEXT = 1e-3
# A curve that ends so near below a cut-off ends on it.
REACHED = 1e-6


class ProfileLikelihoodDisplay:
    """Curves of profile likelihoods with the confidence intervals read from them.

    Use `from_estimator` to make one, or pass what `mixedlearn.inference.profile_likelihood` gave.

    Parameters
    ----------
    profiles : ProfileLikelihood or list of these
        A panel each.
    kind : {"log_likelihood", "deviance", "signed_root"}, default="log_likelihood"
        The height of the curve: the log-likelihood less its maximum; minus twice that; or the root
        of the latter with the sign of value minus estimate, which is a straight line where the
        interval is that of Wald.
    levels : float or sequence of float, default=(0.5, 0.8, 0.9, 0.95, 0.99)
        Levels of the intervals.

    Attributes
    ----------
    intervals : list of DataFrame of shape (n_levels, 2)
        ``lower`` and ``upper`` end by level for each profile, interpolated in the scale of its
        values; NaN where the curve does not reach the cut-off, at a bound of the parameter or
        because it has too few values.
    figure_ : matplotlib.figure.Figure
    axes_ : ndarray of matplotlib.axes.Axes, shape (n_panels,)
        One for each profile.
    lines_ : ndarray of matplotlib.lines.Line2D, shape (n_panels,)
        The curves.
    estimates_ : ndarray of matplotlib.lines.Line2D, shape (n_panels,)
        The points of the estimates.
    cutoffs_ : ndarray of matplotlib.collections.LineCollection, shape (n_panels,)
        Horizontal segments at the cut-offs of the levels.
    drops_ : ndarray of matplotlib.collections.LineCollection, shape (n_panels,)
        Vertical segments at the ends of the intervals.

    See Also
    --------
    mixedlearn.inference.profile_likelihood : The numbers of a curve.
    mixedlearn.inference.confidence_intervals : Intervals of all parameters, by
        ``method="profile"``.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_dyestuff
    >>> from mixedlearn.plot import ProfileLikelihoodDisplay
    >>> X, y = load_dyestuff(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Batch").fit(X, y)
    >>> display = ProfileLikelihoodDisplay.from_estimator(model, "sd(intercept|Batch)")
    >>> display.intervals[0].loc[[0.5, 0.95]].round(1)
           lower  upper
    level
    0.50    28.3   48.6
    0.95    12.2   84.1
    """

    def __init__(
        self,
        *,
        profiles: ProfileLikelihood | Sequence[ProfileLikelihood],
        kind: Literal["log_likelihood", "deviance", "signed_root"] = "log_likelihood",
        levels: ArrayLike = LEVELS,
    ):
        self.profiles = [profiles] if isinstance(profiles, ProfileLikelihood) else list(profiles)
        if not self.profiles:
            raise ValueError("profiles is empty: pass a profile.")
        self.kind = kind
        self.levels = _check_levels(levels)
        self.intervals = [_intervals(profile, self.levels) for profile in self.profiles]

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        parameters: str | Sequence[str],
        *,
        kind: Literal["log_likelihood", "deviance", "signed_root"] = "log_likelihood",
        levels: ArrayLike = LEVELS,
        scale: Literal["sd", "variance"] = "sd",
        reml: bool = False,
        values: ArrayLike | None = None,
        n_points: int = 21,
        ax: Any = None,
        line_kwargs: dict[str, Any] | None = None,
        cutoff_kwargs: dict[str, Any] | None = None,
    ) -> ProfileLikelihoodDisplay:
        """Compute profiles and draw them.

        Parameters
        ----------
        estimator : MixedLinearRegressor
            Fitted.
        parameters : str or list of str
            Names of parameters, a panel each: ``"sd(Days|Subject)"``, the standard deviation of a
            random effect; ``"cor(intercept,Days|Subject)"``, a correlation; ``"sd(noise)"``; a
            name in ``residual_parameters_``; or the name of a fixed effect. The rows of
            `mixedlearn.inference.confidence_intervals` list them.
        kind : {"log_likelihood", "deviance", "signed_root"}, default="log_likelihood"
            The height of the curve: the log-likelihood less its maximum; minus twice that; or the
            root of the latter with the sign of value minus estimate.
        levels : float or sequence of float, default=(0.5, 0.8, 0.9, 0.95, 0.99)
            Levels of the intervals.
        scale : {"sd", "variance"}, default="sd"
            Whether the values of a standard deviation are standard deviations or variances.
        reml : bool, default=False
            Whether to profile the restricted likelihood, which has no profiles of fixed effects.
        values : array-like of shape (n_values,), default=None
            Where to evaluate the profiles, in the scale asked for; None: over the interval of level
            0.99, or of the highest of ``levels`` if that is wider.
        n_points : int, default=21
            Number of equally spaced values if ``values`` is None. The curve between them is
            interpolated.
        ax : matplotlib.axes.Axes or array of these, default=None
            An array with one axes for each panel, or one axes whose place the panels fill; None:
            those of a new figure.
        line_kwargs, cutoff_kwargs : dict, default=None
            Properties of the curves, and of the segments at cut-offs and ends.

        Returns
        -------
        display : ProfileLikelihoodDisplay
            The numbers, drawn.

        Raises
        ------
        ValueError
            If there is no such parameter, or it cannot be estimated; if there is no such kind; if a
            level is not between zero and one; or for what `mixedlearn.inference.profile_likelihood`
            refuses.
        TypeError
            If the estimator is no `MixedLinearRegressor`.
        NotFittedError
            Before `fit`.

        Notes
        -----
        Each interval holds the values whose deviance is below the quantile of chi-squared with one
        degree of freedom. Where the curve ends at a bound of the parameter before it gets there,
        as for a standard deviation that may be zero, the interval goes to the bound.

        References
        ----------
        Bates, D., Maechler, M., Bolker, B. & Walker, S. (2015). Fitting linear mixed-effects models
        using lme4. Journal of Statistical Software 67(1), section 5.1.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        model_of(estimator, takes_noise=True)
        _check_kind(kind)
        check_count(n_points, "n_points")
        highest = max(_check_levels(levels), default=0.0)
        names = [parameters] if isinstance(parameters, str) else list(parameters)
        if not names:
            raise ValueError("parameters is empty: name a parameter.")
        profiles = []
        for name in names:
            own = values
            if values is None and highest > DEFAULT_LEVEL:
                own = _wide_range(estimator, name, highest, n_points, scale, reml)
            profiles.append(
                profile_likelihood(
                    estimator, name, values=own, n_points=n_points, scale=scale, reml=reml
                )
            )
        display = cls(profiles=profiles, kind=kind, levels=levels)
        return display.plot(ax=ax, line_kwargs=line_kwargs, cutoff_kwargs=cutoff_kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        line_kwargs: dict[str, Any] | None = None,
        cutoff_kwargs: dict[str, Any] | None = None,
    ) -> ProfileLikelihoodDisplay:
        """Draw the profiles.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or array of these, default=None
            An array with one axes for each panel, or one axes whose place the panels fill; None:
            those of a new figure.
        line_kwargs, cutoff_kwargs : dict, default=None
            Properties of the curves, and of the segments at cut-offs and ends.

        Returns
        -------
        display : ProfileLikelihoodDisplay
            Itself.

        Raises
        ------
        ValueError
            If there is no such kind.
        """
        _check_kind(self.kind)
        axes = panel_axes(ax, len(self.profiles), type(self).__name__)
        drawn = [
            self._draw(own_ax, profile, intervals, line_kwargs, cutoff_kwargs)
            for own_ax, profile, intervals in zip(axes, self.profiles, self.intervals, strict=True)
        ]
        self.lines_, self.estimates_, self.cutoffs_, self.drops_ = map(
            object_array, zip(*drawn, strict=True)
        )
        self.axes_, self.figure_ = axes, axes[0].figure
        return self

    def _draw(
        self,
        ax: Any,
        profile: ProfileLikelihood,
        intervals: pd.DataFrame,
        line_kwargs: dict[str, Any] | None,
        cutoff_kwargs: dict[str, Any] | None,
    ) -> tuple[Any, Any, Any, Any]:
        """Draw one panel: curve, estimate, cut-offs and ends."""
        from matplotlib.collections import LineCollection
        from matplotlib.lines import Line2D

        places, roots = _curve(profile)
        is_signed = self.kind == "signed_root"
        defaults = {"color": BLUE, "linewidth": 1.8, "zorder": 3}
        (line,) = ax.plot(places, self._height(roots), **style(defaults, line_kwargs, Line2D))
        (estimate,) = ax.plot(profile.estimate, 0.0, "o", color=INK, markersize=5, zorder=4)
        cutoffs = [normal_quantile(level) for level in self.levels]
        floor = 0.0
        if self.kind == "log_likelihood":
            floor = 1.05 * self._height(max([*cutoffs, *np.abs(roots)]))
            ax.set_ylim(floor, -0.05 * floor)
        if is_signed:
            ax.axhline(0.0, color=INK, linewidth=0.8)
        across, drops = [], []
        for level, root, (lower, upper) in zip(
            self.levels, cutoffs, intervals.to_numpy(), strict=True
        ):
            sides = ((-root, lower), (root, upper))
            reached = [(side, end) for side, end in sides if np.isfinite(end)]
            drops += [[(end, floor), (end, self._height(side))] for side, end in reached]
            heights = [self._height(root)]
            first = places[0] if np.isnan(lower) else lower
            last = places[-1] if np.isnan(upper) else upper
            if is_signed:
                heights = [side for side, _ in reached]
                first, last = places[0], places[-1]
            for height in heights:
                across.append([(first, height), (last, height)])
                _write_level(ax, level, height)
        defaults = {"color": GREY, "linewidth": 0.8}
        properties = style(defaults, cutoff_kwargs, LineCollection)
        cutoff_lines = ax.add_collection(LineCollection(across, **properties))
        drop_lines = ax.add_collection(LineCollection(drops, **properties))
        ax.set_xlabel(fitting(_name(profile), ax), parse_math=False)
        ax.set_ylabel(_what(self.kind, profile.criterion))
        return line, estimate, cutoff_lines, drop_lines

    def _height(self, root: Any) -> Any:
        """Height of the curve where the signed root of the deviance is ``root``."""
        if self.kind == "signed_root":
            return root
        return root**2 if self.kind == "deviance" else -0.5 * root**2


def _write_level(ax: Any, level: float, height: float) -> None:
    """A level in percent, to the right of the axes."""
    ax.annotate(
        f"{100.0 * level:g}%",
        (1.0, height),
        xycoords=ax.get_yaxis_transform(),
        xytext=(3.0, 0.0),
        textcoords="offset points",
        va="center",
        fontsize="x-small",
        annotation_clip=False,
    )


def _check_levels(levels: Any) -> list[float]:
    """Levels in ascending order."""
    return sorted(check_level(level) for level in np.atleast_1d(levels))


def _check_kind(kind: Any) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, got {kind!r}.")


def _wide_range(
    estimator: Any, parameter: str, level: float, n_points: int, scale: str, reml: bool
) -> FloatArray | None:
    """Values over the interval of that level; None if it is infinite."""
    table = confidence_intervals(estimator, parameter, method="profile", level=level, reml=reml)
    lower, upper = float(table["lower"].iloc[0]), float(table["upper"].iloc[0])
    if not np.isfinite([lower, upper]).all():
        return None
    return np.linspace(lower, upper, n_points) ** (2.0 if scale == "variance" else 1.0)


def _interpolator(profile: ProfileLikelihood) -> tuple[PchipInterpolator, float]:
    """The signed root between the values, and the power that makes its argument a value.

    In standard deviations it is smooth at zero, in variances it is not.
    """
    power = 2.0 if profile.scale == "variance" else 1.0
    known = profile.table.loc[np.isfinite(profile.table["signed_root"])]
    values, first = np.unique(known["value"].to_numpy(), return_index=True)
    if len(values) < 2:
        raise ValueError(
            f"The profile of {profile.parameter!r} has fewer than two values of finite likelihood: "
            "a curve needs more."
        )
    roots = known["signed_root"].to_numpy()[first]
    estimate = profile.estimate
    if values[0] < estimate < values[-1]:
        # The root is known there, and next to it lost in rounding.
        far = np.abs(values - estimate) > NEXT * (values[-1] - values[0])
        place = np.searchsorted(values[far], estimate)
        values = np.insert(values[far], place, estimate)
        roots = np.insert(roots[far], place, 0.0)
    return PchipInterpolator(values ** (1.0 / power), roots), power


def _curve(profile: ProfileLikelihood) -> tuple[FloatArray, FloatArray]:
    """Values and signed roots of a smooth curve through the profile."""
    root, power = _interpolator(profile)
    between = np.linspace(root.x[0], root.x[-1], CURVE_POINTS)
    places = np.union1d(between, root.x)
    return places**power, root(places)


def _intervals(profile: ProfileLikelihood, levels: Sequence[float]) -> pd.DataFrame:
    """Ends of the intervals of all levels; NaN where the curve does not reach them."""
    root, power = _interpolator(profile)
    centre = profile.estimate ** (1.0 / power)
    rows = []
    for level in levels:
        cutoff = normal_quantile(level) - REACHED
        row = []
        for side in (-1.0, 1.0):
            crossings = root.solve(side * cutoff, extrapolate=False)
            outward = side * (crossings[np.isfinite(crossings)] - centre)
            outward = outward[outward > 0.0]
            row.append((centre + side * outward.min()) ** power if len(outward) else np.nan)
        rows.append(row)
    index = pd.Index(levels, name="level", dtype=float)
    return pd.DataFrame(rows, index=index, columns=["lower", "upper"], dtype=float)


def _name(profile: ProfileLikelihood) -> str:
    is_variance = profile.scale == "variance"
    return profile.parameter.replace("sd(", "var(", 1) if is_variance else profile.parameter


def _what(kind: str, criterion: str) -> str:
    what = {
        "log_likelihood": "Relative log-likelihood",
        "deviance": "Profile deviance",
        "signed_root": "Signed root of deviance",
    }[kind]
    return f"{what}\n(REML)" if criterion == "REML" else what
