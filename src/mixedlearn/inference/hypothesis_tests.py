"""Tests of hypotheses about the fixed effects: contrasts, and terms by an analysis of variance."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mixedlearn.inference._hypotheses import TYPES, contrast_rows, term_rows
from mixedlearn.inference._models import (
    as_numbers,
    check_level,
    model_of,
    warn_of_few_clusters,
    warn_of_untestable,
)
from mixedlearn.inference._text import (
    ResultTable,
    lines_html,
    p_equation,
    table_html,
    table_text,
)
from mixedlearn.inference._uncertainty import (
    CovarianceEstimate,
    basis_of,
    coef_uncertainty,
    degrees_of_freedom,
    joint_test,
    standard_errors,
)
from mixedlearn.inference.tables import estimate_table

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ContrastTest:
    """A test of contrasts of the fixed effects, from `contrast_test`.

    Attributes
    ----------
    rows : DataFrame
        Every contrast on its own, as in `coefficient_table`; t and p are for its hypothetical
        value.
    f_value : float
        F statistic of all contrasts together.
    num_df : int
        Degrees of freedom of the numerator: the rank of L.
    den_df : float
        Degrees of freedom of the denominator.
    p_value : float
        Of that F test.
    ddf : str
        The method for the degrees of freedom, with the correction of a robust covariance, or the
        information that it rests on beside a residual structure.

    See Also
    --------
    contrast_test : Computes it.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import contrast_test
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> test = contrast_test(model, {"intercept": 1, "Days": 5}, rhs=300.0)
    >>> test.t_value.round(3), round(test.den_df, 1), round(test.p_value, 3)
    (array([0.391]), 17.0, 0.701)
    """

    rows: pd.DataFrame
    f_value: float
    num_df: int
    den_df: float
    p_value: float
    ddf: str

    @property
    def estimate(self) -> FloatArray:
        """Estimates of the contrasts, shape (r,)."""
        return self.rows["estimate"].to_numpy()

    @property
    def std_error(self) -> FloatArray:
        """Their standard errors, shape (r,)."""
        return self.rows["std_error"].to_numpy()

    @property
    def t_value(self) -> FloatArray:
        """Their t statistics, shape (r,)."""
        return self.rows["t_value"].to_numpy()

    def __repr__(self) -> str:
        return f"{table_text(self.rows)}\n{self._conclusion()}"

    def _repr_html_(self) -> str:
        return table_html(self.rows) + lines_html(self._conclusion())

    def _conclusion(self) -> str:
        return (
            f"F({self.num_df}, {self.den_df:.5g}) = {self.f_value:.5g}, "
            f"{p_equation(self.p_value)} ({self.ddf})"
        )


def contrast_test(
    estimator: Any,
    L: Any,
    ddf: str = "satterthwaite",
    rhs: ArrayLike = 0.0,
    level: float = 0.95,
    *,
    covariance: CovarianceEstimate | None = None,
) -> ContrastTest:
    """Test linear combinations of the fixed effects.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted.
    L : array-like of shape (p,) or (r, p), dict, Series or DataFrame
        One combination of the p coefficients, or r that are tested together. A dict or a Series
        gives the weights by the coefficients' names, a DataFrame has a row for every combination
        and a column for every coefficient; what is left out has weight zero. Rows may depend on
        each other.
    ddf : {"satterthwaite", "kenward-roger", "residual", "normal"}, default="satterthwaite"
        Degrees of freedom of the denominator, see `coefficient_table`. With several rows,
        Satterthwaite's are those of Fai & Cornelius [1]_ as in lmerTest, and Kenward & Roger's [2]_
        come with a factor for F.
    rhs : float or array-like of shape (r,), default=0.0
        Hypothetical values of the combinations.
    level : float, default=0.95
        Level of the confidence intervals of single combinations.
    covariance : RobustCovariance, default=None
        What to test with instead of the model's covariance, see `coefficient_table`. With several
        rows, F and its degrees of freedom are those of the approximate Hotelling test [3]_
        (``test="HTZ"`` of R's clubSandwich).

    Returns
    -------
    test : ContrastTest
        Every combination on its own, and the F test of all of them together.

    Raises
    ------
    ValueError
        If L has the wrong length or names an unknown coefficient, if a combination has weight on
        aliased coefficients and cannot be estimated, if rows that depend on each other have
        contradictory values, or for the reasons of `coefficient_table`.
    TypeError
        If the estimator is no `MixedLinearRegressor`, or ``covariance`` no `RobustCovariance`.
    NotFittedError
        Before `fit`.

    Warns
    -----
    DegenerateModelWarning
        If ``covariance`` has too few clusters to test all rows together; F and its p-value are NaN.

    Notes
    -----
    Satterthwaite's degrees of freedom of several rows depend on the principal axes of their
    covariance, and so, somewhat, on the units of the rows; F and Kenward & Roger's do not.

    References
    ----------
    .. [1] Fai, A. H.-T. & Cornelius, P. L. (1996). Approximate F-tests of multiple degree of
       freedom hypotheses in generalized least squares analyses of unbalanced split-plot
       experiments. Journal of Statistical Computation and Simulation 54, 363-378.
    .. [2] Kenward, M. G. & Roger, J. H. (1997). Small sample inference for fixed effects from
       restricted maximum likelihood. Biometrics 53, 983-997.
    .. [3] Pustejovsky, J. E. & Tipton, E. (2018). Small-sample methods for cluster-robust variance
       estimation and hypothesis testing in fixed effects models. Journal of Business & Economic
       Statistics 36, 672-683.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import contrast_test
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)

    The mean reaction time on day 5, is it 300 ms?

    >>> test = contrast_test(model, {"intercept": 1, "Days": 5}, rhs=300.0)
    >>> test.estimate.round(2), test.std_error.round(2), round(test.p_value, 4)
    (array([303.74]), array([9.58]), 0.701)

    Two rows at once:

    >>> test = contrast_test(model, [[1, 0], [0, 1]], ddf="kenward-roger")
    >>> print(round(test.f_value, 2), test.num_df, round(test.den_df, 2))
    705.84 2 16.0
    """
    model = model_of(estimator, takes_noise=True)
    check_level(level)
    rows, labels = contrast_rows(model, L)
    hypothesis = _hypothesis(rhs, len(rows))
    uncertainty = coef_uncertainty(model, ddf, covariance)
    estimates = rows @ model.coef
    test = joint_test(uncertainty, rows, estimates - hypothesis)
    if covariance is not None and test.num_df and np.isnan(test.f_value):
        warn_of_few_clusters("contrast_test", ["L"])
    table = estimate_table(
        pd.Index(labels),
        estimates,
        hypothesis,
        standard_errors(uncertainty, rows),
        degrees_of_freedom(uncertainty, rows),
        level,
    )
    by = basis_of(model, ddf, covariance)
    return ContrastTest(table, test.f_value, test.num_df, test.den_df, test.p_value, by)


def _hypothesis(rhs: ArrayLike, n_rows: int) -> FloatArray:
    values = as_numbers(rhs, "rhs")
    if values.ndim > 1 or (values.ndim == 1 and len(values) != n_rows):
        raise ValueError(
            f"rhs has shape {values.shape}, but L has {n_rows} rows: give a number, or one for "
            "each row."
        )
    if not np.isfinite(values).all():
        raise ValueError("rhs has values that are not finite: give numbers.")
    return np.broadcast_to(values, (n_rows,))


def anova(
    estimator: Any,
    type: int | str = 3,
    ddf: str = "satterthwaite",
    *,
    covariance: CovarianceEstimate | None = None,
) -> pd.DataFrame:
    """Analysis of variance: F tests of the terms of the fixed effects.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted.
    type : {1, 2, 3, "I", "II", "III"}, default=3
        What a term is adjusted for: the terms before it (1); all terms that do not contain it (2);
        all terms, with the hypothesis that its effect is zero on average over the levels of other
        categorical variables (3).
    ddf : {"satterthwaite", "kenward-roger", "residual", "normal"}, default="satterthwaite"
        Degrees of freedom of the denominator; see `contrast_test`.
    covariance : RobustCovariance, default=None
        What to test with instead of the model's covariance; see `contrast_test`.

    Returns
    -------
    DataFrame
        A row for every term: ``sum_sq``, ``mean_sq``, ``num_df``, ``den_df``, ``f_value`` and
        ``p_value``. As in lmerTest, ``mean_sq`` is F times the noise variance (F without Kenward &
        Roger's factor), and ``sum_sq`` is ``mean_sq`` times ``num_df``: they are no sums of
        squares of a decomposition. With a residual structure the noise has no single variance, and
        the table does not have these two columns, as in nlme. A term of which nothing can be
        estimated, because its columns are aliased, has ``num_df`` 0 and NaN, and a warning names
        it.

    Raises
    ------
    ValueError
        If ``type`` or ``ddf`` is not allowed, or for the reasons of `coefficient_table`.
    TypeError
        If the estimator is no `MixedLinearRegressor`, or ``covariance`` no `RobustCovariance`.
    NotFittedError
        Before `fit`.

    Warns
    -----
    DegenerateModelWarning
        If nothing of a term can be tested, or ``covariance`` has too few clusters to test it; it
        names these terms.

    Notes
    -----
    The hypotheses of types 1 and 2 are those of ordinary least squares with the same columns and
    weights [1]_; lmerTest leaves the weights out of them. As in SAS and lmerTest, a term contains
    another if it has all of its variables and more, all of these categorical: of categories a and b
    and a number x, ``a:b`` contains a, and ``a:x`` contains x but not a, whose effect is then the
    one where x is zero. Where cells of categories are empty, a type 3 hypothesis about averages
    over them cannot be estimated; as in SAS and lmerTest, one that can takes its place [2]_: of the
    combinations of the term's effects and of those of terms that contain it, what is orthogonal to
    the hypotheses of these. It depends on which cells are empty. Of columns of X that are
    combinations of others, what can be estimated is tested. The rows of a hypothesis, on which
    Satterthwaite's degrees of freedom depend, are lmerTest's; those of a single term are the same
    for all types.

    F is computed from the variances of the fit, as in lme4 and lmerTest. Those by ML are smaller
    than those by REML, and F is larger. Without random effects the F of R's ``lm``, over the mean
    square of the residuals, is that of a fit by REML.

    References
    ----------
    .. [1] Goodnight, J. H. (1979). A tutorial on the SWEEP operator. The American Statistician 33,
       149-158.
    .. [2] Goodnight, J. H. (1980). Tests of hypotheses in fixed effects linear models.
       Communications in Statistics A 9, 167-180.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import anova
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> anova(model)
         sum_sq mean_sq num_df den_df f_value  p_value
    Days  30031   30031      1  17.00   45.85  < 0.001
    """
    model = model_of(estimator, takes_noise=True)
    if hasattr(type, "fit"):
        raise ValueError(
            "anova takes one model: likelihood_ratio_test compares two, as R's anova(m0, m1) does."
        )
    if type not in TYPES:
        raise ValueError(f"type={type!r} is not a type of hypotheses: use 1, 2 or 3.")
    uncertainty = coef_uncertainty(model, ddf, covariance)
    found = []
    for rows in term_rows(model, TYPES[type]):
        test = joint_test(uncertainty, rows, rows @ model.coef)
        found.append(
            {
                "sum_sq": test.mean_square * test.num_df if test.num_df else np.nan,
                "mean_sq": test.mean_square,
                "num_df": test.num_df,
                "den_df": test.den_df,
                "f_value": test.f_value,
                "p_value": test.p_value,
            }
        )
    names = [term.name for term in model.specification.terms]
    warn_of_untestable(
        "anova", [name for name, row in zip(names, found, strict=True) if not row["num_df"]]
    )
    if covariance is not None:
        without = [row["num_df"] > 0 and np.isnan(row["f_value"]) for row in found]
        warn_of_few_clusters("anova", list(compress(names, without)))
    columns = ["num_df", "den_df", "f_value", "p_value"]
    if model.noise is None:
        columns = ["sum_sq", "mean_sq", *columns]
    return ResultTable(found, index=pd.Index(names, dtype=object), columns=columns)
