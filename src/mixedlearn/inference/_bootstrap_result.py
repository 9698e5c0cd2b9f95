"""The result of a bootstrap: a distribution, its summaries and its intervals."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from mixedlearn.inference._models import check_level, normal_quantile
from mixedlearn.inference._text import ResultTable, in_lines, lines_html, table_html, table_text

KINDS = ("percentile", "basic", "normal")


@dataclass(frozen=True, slots=True)
class BootstrapResult:
    """A bootstrap distribution; prints as a table.

    Attributes
    ----------
    estimate : Series of shape (k,)
        The statistic at the fit.
    samples : DataFrame of shape (n_resamples, k)
        The statistic of every resample. A correlation with a random effect whose variance is zero
        is NaN, as is a resample whose residual covariance is not identified: summaries leave them
        out. Aliased fixed effects are NaN in all.
    n_not_converged : int
        Number of resamples whose refit carries no certificate, those that are not identified among
        them.
    n_singular : int
        Number of resamples whose refit has a singular covariance of random effects.

    See Also
    --------
    parametric_bootstrap : Makes it.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import parametric_bootstrap
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> result = parametric_bootstrap(model, X, n_resamples=50, random_state=0)
    >>> result.n_resamples, result.n_not_converged
    (50, 0)
    >>> result.standard_errors[["intercept", "Days"]].round(1)
    intercept    7.2
    Days         1.4
    dtype: float64
    """

    estimate: pd.Series
    samples: pd.DataFrame
    n_not_converged: int
    n_singular: int

    @property
    def names(self) -> list[str]:
        """Names of the parts of the statistic."""
        return list(self.samples.columns)

    @property
    def n_resamples(self) -> int:
        """Number of resamples."""
        return len(self.samples)

    @property
    def bias(self) -> pd.Series:
        """Mean of the samples less the estimate."""
        return self.samples.mean() - self.estimate

    @property
    def standard_errors(self) -> pd.Series:
        """Standard deviation of the samples."""
        return self.samples.std()

    def confidence_interval(self, level: float = 0.95, kind: str = "percentile") -> pd.DataFrame:
        """Confidence intervals (Davison & Hinkley 1997, sections 5.2 and 5.3).

        Parameters
        ----------
        level : float, default=0.95
            Probability that an interval holds the true value.
        kind : {"percentile", "basic", "normal"}, default="percentile"
            The quantiles of the samples; these mirrored in the estimate; or the estimate, less its
            bias, with normal quantiles of the standard error.

        Returns
        -------
        intervals : DataFrame of shape (k, 2)
            Columns "lower" and "upper", a row for each part of the statistic.

        Raises
        ------
        ValueError
            If ``level`` is no probability or ``kind`` is none of the three.

        Examples
        --------
        >>> from mixedlearn import MixedLinearRegressor
        >>> from mixedlearn.datasets import load_sleepstudy
        >>> from mixedlearn.inference import parametric_bootstrap
        >>> X, y = load_sleepstudy(return_X_y=True)
        >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
        >>> result = parametric_bootstrap(model, X, n_resamples=50, random_state=0)
        >>> result.confidence_interval(level=0.8, kind="basic").loc[["Days"]].round(1)
              lower  upper
        Days    8.8   12.1
        """
        tail = (1.0 - check_level(level)) / 2.0
        if kind not in KINDS:
            raise ValueError(f"kind must be 'percentile', 'basic' or 'normal', got {kind!r}.")
        if kind == "normal":
            middle = self.estimate - self.bias
            margin = normal_quantile(level) * self.standard_errors
            lower, upper = middle - margin, middle + margin
        else:
            # Of a DataFrame, quantiles leave NaN out.
            lower, upper = self.samples.quantile(tail), self.samples.quantile(1.0 - tail)
            if kind == "basic":
                lower, upper = 2.0 * self.estimate - upper, 2.0 * self.estimate - lower
        return ResultTable(pd.DataFrame({"lower": lower, "upper": upper}).reindex(self.names))

    def summary(self) -> pd.DataFrame:
        """Estimates, bias, standard errors and 95% percentile intervals.

        Returns
        -------
        table : DataFrame of shape (k, 5)
            Columns "estimate", "bias", "std_error", "lower" and "upper", a row for each part of the
            statistic.

        Examples
        --------
        >>> from mixedlearn import MixedLinearRegressor
        >>> from mixedlearn.datasets import load_sleepstudy
        >>> from mixedlearn.inference import parametric_bootstrap
        >>> X, y = load_sleepstudy(return_X_y=True)
        >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
        >>> result = parametric_bootstrap(model, X, n_resamples=50, random_state=0)
        >>> result.summary().loc[["sd(noise)", "Days"]].round(1)
                   estimate  bias  std_error  lower  upper
        sd(noise)      25.6  -0.3        1.6   22.4   28.4
        Days           10.5   0.1        1.4    8.4   13.5
        """
        table = pd.DataFrame(
            {"estimate": self.estimate, "bias": self.bias, "std_error": self.standard_errors}
        )
        return ResultTable(table.join(self.confidence_interval()))

    def _title(self) -> str:
        notes = [f"{self.n_resamples} resamples"]
        if self.n_singular:
            notes.append(f"{self.n_singular} with a singular covariance")
        if self.n_not_converged:
            notes.append(f"{self.n_not_converged} without a certified optimum")
        return in_lines(f"Parametric bootstrap, {', '.join(notes)}")

    def __repr__(self) -> str:
        return f"{self._title()}\n{table_text(self._labelled())}"

    def _repr_html_(self) -> str:
        return lines_html(self._title()) + table_html(self._labelled())

    def _labelled(self) -> pd.DataFrame:
        return self.summary().rename(columns={"lower": "lower 95%", "upper": "upper 95%"})
