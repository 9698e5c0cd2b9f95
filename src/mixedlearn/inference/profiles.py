"""Profile likelihood of one parameter over a range of values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mixedlearn.inference._models import as_numbers, check_count, model_of, with_criterion
from mixedlearn.inference._parameters import find_parameter
from mixedlearn.inference._profile_curve import (
    make_profilers,
    profile_curve,
    profile_interval,
    signed_root,
)
from mixedlearn.inference._profilers import Profiler
from mixedlearn.inference._text import ResultTable, in_lines, lines_html

FloatArray = NDArray[np.float64]

# Without a range, the curve covers the interval of this level.
DEFAULT_LEVEL = 0.99
# In the parameter's scale: how far the curve goes where the interval has no end, and how near to a
# noise of zero, which is no model.
FLAT_RANGE = 5.0
NEAREST = 1e-3


@dataclass(frozen=True)
class ProfileLikelihood:
    """The profile of a parameter.

    Attributes
    ----------
    parameter : str
        Its name.
    estimate : float
        The estimate, in the scale asked for.
    scale : {"sd", "variance"}
        What the values of a standard deviation are.
    criterion : {"ML", "REML"}
        Whether the likelihood or the restricted likelihood is profiled.
    table : DataFrame
        A row for each value: ``value``; ``deviance``, twice the decrease of the log-likelihood from
        its maximum; ``signed_root``, its square root with the sign of value minus estimate;
        ``log_likelihood``.

    See Also
    --------
    profile_likelihood : Computes it.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import profile_likelihood
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> profile = profile_likelihood(model, "sd(Days|Subject)", values=[3, 6, 9])
    >>> profile.criterion, round(profile.estimate, 3)
    ('ML', 5.717)
    >>> profile.table["signed_root"].round(3).tolist()
    [-2.99, 0.232, 2.08]
    """

    parameter: str
    estimate: float
    scale: Literal["sd", "variance"]
    criterion: Literal["ML", "REML"]
    table: pd.DataFrame

    def __repr__(self) -> str:
        return f"{self._title()}\n{self.table.to_string(index=False)}"

    def _repr_html_(self) -> str:
        return lines_html(self._title()) + self.table.to_html(index=False)

    def _title(self) -> str:
        what = f"the variance of {self.parameter}" if self.scale == "variance" else self.parameter
        return in_lines(
            f"Profile {self.criterion} likelihood of {what}, estimate {self.estimate:.6g}"
        )


def profile_likelihood(
    estimator: Any,
    parameter: str,
    *,
    values: ArrayLike | None = None,
    n_points: int = 21,
    scale: Literal["sd", "variance"] = "sd",
    reml: bool = False,
) -> ProfileLikelihood:
    """Profile likelihood of a parameter.

    The parameter is held at each value in turn, and the likelihood maximised over all others.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted; stays as it is.
    parameter : str
        Name of the parameter: ``"sd(Days|Subject)"``, the standard deviation of a random effect;
        ``"cor(intercept,Days|Subject)"``, a correlation; ``"sd(noise)"``; a name in
        ``residual_parameters_``; or the name of a fixed effect, ``"intercept"`` for the intercept.
        The rows of `confidence_intervals` list them.
    values : array-like of shape (n_values,), default=None
        Where to evaluate the profile, in the scale asked for; None: over the interval of level
        0.99, or some of it if the profile is flat and the interval infinite.
    n_points : int, default=21
        Number of equally spaced values if ``values`` is None.
    scale : {"sd", "variance"}, default="sd"
        Whether the values of a standard deviation are standard deviations or variances.
    reml : bool, default=False
        Whether to profile the restricted likelihood. The likelihood has no such choice to make for
        fixed effects: restricted likelihoods with different fixed effects do not compare. A model
        fitted by REML is refitted by ML for the likelihood's profile, and the other way round, as
        lme4's ``profile`` does.

    Returns
    -------
    profile : ProfileLikelihood
        With the values and the profile in its ``table``.

    Raises
    ------
    ValueError
        If there is no such parameter; if it cannot be estimated; if a value is outside its bounds
        (a negative standard deviation, a correlation beyond one); if ``reml`` with a fixed effect;
        if ``scale="variance"`` with a parameter that is no standard deviation; or if ``n_points``
        is no positive integer.
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    Notes
    -----
    At a bound (a standard deviation of zero, a correlation of one) the profile is that of the model
    without the random effect, and a finite number.

    References
    ----------
    Bates, D., Maechler, M., Bolker, B. & Walker, S. (2015). Fitting linear mixed-effects models
    using lme4. Journal of Statistical Software 67(1), section 5.1.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import profile_likelihood
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> print(profile_likelihood(model, "sd(Days|Subject)", values=[3, 6, 9]))
    Profile ML likelihood of sd(Days|Subject), estimate 5.71683
     value  deviance  signed_root  log_likelihood
       3.0  8.937424    -2.989552     -880.438384
       6.0  0.053846     0.232048     -875.996595
       9.0  4.324468     2.079536     -878.131906
    """
    model = with_criterion(model_of(estimator, takes_noise=True), reml=reml)
    found = find_parameter(model, parameter)
    if scale not in ("sd", "variance"):
        raise ValueError(f"scale must be 'sd' or 'variance', got {scale!r}.")
    if scale == "variance" and not found.is_variance:
        raise ValueError(
            f"scale='variance' is for standard deviations, and {parameter!r} is none: leave it out."
        )
    check_count(n_points, "n_points")
    profiler = make_profilers(model)(found)
    if profiler is None:
        raise ValueError(
            f"{parameter!r} cannot be estimated (its column is aliased, a variance that it needs "
            "is zero, or the fixed effects reproduce the response), so it has no profile."
        )
    power = 2.0 if scale == "variance" else 1.0
    if values is None:
        places = np.linspace(*_default_range(profiler), n_points)
    else:
        places = _checked_values(values, profiler, parameter, power)
    objectives = profile_curve(profiler, places)
    roots = [signed_root(profiler, *pair) for pair in zip(places, objectives, strict=True)]
    table = ResultTable(
        {
            "value": places**power,
            "deviance": np.maximum(objectives - profiler.origin.objective, 0.0),
            "signed_root": roots,
            "log_likelihood": -0.5 * objectives,
        }
    )
    criterion: Literal["ML", "REML"] = "REML" if reml else "ML"
    return ProfileLikelihood(parameter, profiler.origin.value**power, scale, criterion, table)


def _default_range(profiler: Profiler) -> tuple[float, float]:
    lower, upper = profile_interval(profiler, DEFAULT_LEVEL)
    if np.isinf(upper):
        upper = profiler.origin.value + FLAT_RANGE * profiler.scale
    if lower == profiler.lower == 0.0 and np.isinf(profiler.objective_at_bound(lower)):
        lower = NEAREST * profiler.scale
    return lower, upper


def _checked_values(
    values: ArrayLike, profiler: Profiler, parameter: str, power: float
) -> FloatArray:
    places = np.atleast_1d(as_numbers(values, "values"))
    if places.ndim != 1 or not places.size:
        raise ValueError(f"values must be one-dimensional and not empty, got shape {places.shape}.")
    outside = ~np.isfinite(places) | (places < profiler.lower) | (places > profiler.upper)
    if outside.any():
        raise ValueError(
            f"values has {places[outside][0]:g}, which {parameter!r} cannot be: it lies between "
            f"{profiler.lower:g} and {profiler.upper:g}."
        )
    return np.asarray(places ** (1.0 / power))
