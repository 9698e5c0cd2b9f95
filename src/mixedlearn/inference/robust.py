"""Cluster-robust standard errors of the fixed effects."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.data.labels import Labels, as_labels, missing_labels, shown
from mixedlearn.data.levels import encode
from mixedlearn.data.rows import CodedRows, Codes
from mixedlearn.exceptions import DegenerateModelWarning
from mixedlearn.inference._models import model_of
from mixedlearn.inference._sandwich import Sandwich, SandwichUncertainty, sandwich
from mixedlearn.inference._text import ResultTable, lines_html, table_html, table_text
from mixedlearn.inference._training import training_noise, training_rows
from mixedlearn.inference._uncertainty import KnownDf, Uncertainty, coef_root, known_df
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.row_noise import RowNoise
from mixedlearn.specification import plain_name

FloatArray = NDArray[np.float64]

CORRECTIONS = ("CR0", "CR1", "CR1p", "CR1S", "CR2")
# Share of a coefficient's root in a direction that is rounding error.
NOTHING = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class RobustCovariance:
    """A cluster-robust covariance of the fixed effects, from `robust_covariance`.

    Pass it as ``covariance=`` to `coefficient_table`, `contrast_test` and `anova`.

    Attributes
    ----------
    covariance : DataFrame of shape (p, p)
        In the order and the units of ``coef_covariance_``.
    correction : str
        The small-sample correction.
    by : str
        The name of the clusters.
    n_clusters : int
        Their number.
    coef : ndarray of shape (p,)
        The coefficients of the fit, to tell it from others.
    sums : Sandwich or None
        Sums over clusters, from which degrees of freedom follow; None where the fixed effects
        reproduce the response.

    See Also
    --------
    robust_covariance : Computes it.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import robust_covariance
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject").fit(X, y)
    >>> robust_covariance(model, X, y)
    CR2 covariance of the fixed effects, 18 clusters by 'Subject'
              intercept    Days
    intercept    46.575  -1.451
    Days         -1.451   2.389
    """

    covariance: pd.DataFrame
    correction: str
    by: str
    n_clusters: int
    coef: FloatArray
    sums: Sandwich | None

    def __mixedlearn_uncertainty__(self, model: FittedModel, ddf: str) -> Uncertainty:
        """What tests and intervals of the fixed effects read."""
        if not np.array_equal(model.coef, self.coef):
            raise ValueError(
                "covariance is that of another fit: its coefficients are not those of this model. "
                "Pass robust_covariance of the same estimator."
            )
        if ddf not in ("satterthwaite", "normal"):
            raise ValueError(
                f"ddf={ddf!r} is not a method for a robust covariance: use 'satterthwaite' or "
                "'normal'."
            )
        root, noise, sums = coef_root(model), model.noise_variance, self.sums
        if sums is None:
            return KnownDf(root, noise, np.eye(root.shape[1]), known_df(model, ddf))
        middle = sums.middle / noise
        if ddf == "normal":
            return KnownDf(root, noise, middle, np.inf)
        return SandwichUncertainty(root, noise, middle, sums.spreads, sums.shares)

    def _title(self) -> str:
        return (
            f"{self.correction} covariance of the fixed effects, {self.n_clusters} clusters by "
            f"{self.by!r}"
        )

    def __repr__(self) -> str:
        return f"{self._title()}\n{table_text(self.covariance)}"

    def _repr_html_(self) -> str:
        return lines_html(self._title()) + table_html(self.covariance)


def robust_covariance(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    groups: Any = None,
    cluster: Any = None,
    correction: str = "CR2",
    sample_weight: Any = None,
    offset: Any = None,
) -> RobustCovariance:
    """Cluster-robust (sandwich) covariance of the fixed effects.

    The standard errors of a mixed model are right if its covariance structure is. These are
    valid, with many clusters, whatever the covariances and variances within a cluster are: the
    residuals of each cluster take the place of the model's covariance.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted.
    X : array-like or DataFrame of shape (n_samples, n_features)
        The rows that `fit` had; the fit does not keep them.
    y : array-like of shape (n_samples,)
        Their responses.
    groups : array-like of shape (n_samples,) or (n_samples, n_factors), default=None
        Their labels, if `fit` had them beside X.
    cluster : str, tuple of str, or array-like of shape (n_samples,), default=None
        The name of a grouping factor, of an interaction also the tuple of its columns; or a label
        for each row. Rows of different clusters are independent. Every level of every grouping
        factor, and of that in which a residual structure holds, lies in one cluster: with nested
        factors, give the outermost. None: the only grouping factor.
    correction : {"CR0", "CR1", "CR1p", "CR1S", "CR2"}, default="CR2"
        Small-sample correction. Of m clusters, n rows and p coefficients:

        - "CR0": none;
        - "CR1": m / (m - 1);
        - "CR1p": m / (m - p);
        - "CR1S": m (n - 1) / ((m - 1) (n - p)), as in Stata;
        - "CR2": residuals are adjusted so that the covariance has no bias if the model is right
          [1]_ [2]_.
    sample_weight : array-like of shape (n_samples,), default=None
        Their weights, if `fit` had weights.
    offset : float or array-like of shape (n_samples,), default=None
        Their offset, if `fit` had one beside X.

    Returns
    -------
    robust : RobustCovariance
        Pass it as ``covariance=`` to `coefficient_table`, `contrast_test` and `anova`.

    Raises
    ------
    ValueError
        If the rows are not those of the fit; if ``cluster`` is missing and the model has not one
        grouping factor, names none, or has not one label for each row; if a level of a factor has
        rows in several clusters, as crossed factors have; if there is one cluster only, or no more
        clusters than coefficients and ``correction="CR1p"``; or if the correction is unknown.
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    Warns
    -----
    DegenerateModelWarning
        If a single cluster determines some coefficients alone; it names them. What that cluster
        would add to their variance cannot be seen from its residuals, and is missing.

    Notes
    -----
    These are the numbers of R's clubSandwich [3]_, the fitted model as its working model, with
    precision weights too. With r fixed effects and clusters of n_i rows the cost is that of the
    decomposition of matrices of n_i rows; of clusters of more than 64 rows, of as many rows as
    there are fixed effects and random effects in the cluster, for each different weight. Beside a
    residual structure with correlations the matrices have n_i rows in any case. The result holds
    two p x p matrices for each cluster.

    A covariance of m clusters has rank m - 1 at most, so that fewer than m contrasts can be tested
    together.

    References
    ----------
    .. [1] Bell, R. M. & McCaffrey, D. F. (2002). Bias reduction in standard errors for linear
       regression with multi-stage samples. Survey Methodology 28, 169-181.
    .. [2] Pustejovsky, J. E. & Tipton, E. (2018). Small-sample methods for cluster-robust variance
       estimation and hypothesis testing in fixed effects models. Journal of Business & Economic
       Statistics 36, 672-683.
    .. [3] Pustejovsky, J. E. (2022). clubSandwich: cluster-robust (sandwich) variance estimators
       with small-sample corrections. R package.

    Examples
    --------
    A random intercept is not all by which subjects differ. The standard error of the slope, 0.80 by
    the model, is nearly that of a model with random slopes:

    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import coefficient_table, robust_covariance
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject").fit(X, y)
    >>> robust = robust_covariance(model, X, y)
    >>> coefficient_table(model, covariance=robust)
              estimate std_error     df t_value  p_value   lower   upper
    intercept   251.41     6.825  17.00  36.838  < 0.001  237.01  265.80
    Days         10.47     1.546  17.00   6.771  < 0.001    7.21   13.73
    """
    return estimate_robustly(
        estimator, X, y, groups, cluster, correction, sample_weight, offset, stacklevel=3
    )


def estimate_robustly(
    estimator: Any,
    X: Any,
    y: Any,
    groups: Any,
    cluster: Any,
    correction: str,
    sample_weight: Any,
    offset: Any,
    *,
    stacklevel: int,
) -> RobustCovariance:
    """The same as `robust_covariance`, for any public function."""
    model = model_of(estimator, takes_noise=True)
    if correction not in CORRECTIONS:
        raise ValueError(
            f"correction={correction!r} is unknown: use one of {', '.join(map(repr, CORRECTIONS))}."
        )
    rows = training_rows(estimator, model, X, y, groups, sample_weight, offset)
    noise = training_noise(estimator, model, rows, X, groups)
    noise = None if noise is None else noise.of_present()
    codes, n_clusters, name = _clusters(model, rows, noise, cluster)
    rows = rows.present()
    _check_clusters(model, rows, noise, codes, n_clusters, name)
    factor = _factor(correction, n_clusters, model)
    names = list(model.specification.coef_names)
    sums: Sandwich | None = None
    covariance = np.zeros((len(names), len(names)))
    if not model.fixed_basis.is_exact:
        sums = sandwich(model, rows, codes, n_clusters, factor, noise)
        root = coef_root(model)
        covariance = root @ sums.middle @ root.T
        alone = _of_single_clusters(model, root, sums)
        if alone:
            warnings.warn(
                f"A single cluster of {name!r} determines the coefficients of "
                f"{', '.join(map(repr, alone))} alone, or a part of them: its residuals do not "
                "show how uncertain that part is, so that robust standard errors are too small. "
                "Use those of the model, or larger clusters.",
                DegenerateModelWarning,
                stacklevel=stacklevel,
            )
    table = ResultTable(covariance, index=names, columns=names)
    return RobustCovariance(table, correction, name, n_clusters, model.coef, sums)


def _factors(
    model: FittedModel, rows: CodedRows, noise: RowNoise | None
) -> dict[str, tuple[Codes, pd.Index]]:
    """The level of every row, of positive weight, and the levels: of all factors and the series."""
    present = rows.given_weights > 0.0
    found = {
        name: (codes[present], levels)
        for name, codes, levels in zip(
            model.specification.factor_names, rows.known_codes, model.sums.levels, strict=True
        )
    }
    if noise is not None and model.noise.binding.series is not None:
        binding = model.noise.binding
        found.setdefault(binding.series_name, (noise.series.astype(np.int32), binding.series))
    return found


def _clusters(
    model: FittedModel, rows: CodedRows, noise: RowNoise | None, cluster: Any
) -> tuple[Codes, int, str]:
    """The cluster of every row of positive weight, their number, and what they are called."""
    factors = _factors(model, rows, noise)
    names = list(factors)
    if cluster is None:
        if len(names) != 1:
            known = f"the grouping factors {', '.join(map(repr, names))}" if names else "no groups"
            raise ValueError(
                f"The model has {known}: name the clusters, cluster='factor', or give a label for "
                "each row."
            )
        cluster = names[0]
    if isinstance(cluster, (str, tuple)):
        name = str(plain_name(cluster))
        if name not in names:
            known = ", ".join(map(repr, names)) or "none"
            raise ValueError(
                f"cluster={cluster!r} is no grouping factor of the model ({known}): give one of "
                f"these, or the labels, cluster=X[{cluster!r}]."
            )
        codes, levels = factors[name]
        return codes, len(levels), name
    codes, levels = encode(_labels(cluster, rows.given_weights > 0.0))
    own_name = getattr(cluster, "name", None)
    return codes, len(levels), "cluster" if own_name is None else str(own_name)


def _labels(cluster: Any, present: NDArray[np.bool_]) -> Labels:
    """The labels of the clusters, of rows of positive weight."""
    n_labels = len(cluster) if hasattr(cluster, "__len__") else 0
    if n_labels != len(present):
        raise ValueError(
            f"cluster has {n_labels} labels, but X has {len(present)} rows: name a grouping "
            "factor, or give one label for each row."
        )
    labels = as_labels(cluster, len(present), may_miss=True)
    if len(labels) != 1:
        raise ValueError(f"cluster has {len(labels)} columns: give one label for each row.")
    own = labels[0].rows(present)
    missing = missing_labels(own.parts[0])
    if missing is not None:
        row = int(np.flatnonzero(present)[np.argmax(missing)])
        raise ValueError(
            f"The label of the cluster is missing (NaN or None) in row {row}: give it one."
        )
    return own


def _check_clusters(
    model: FittedModel,
    rows: CodedRows,
    noise: RowNoise | None,
    clusters: Codes,
    n_clusters: int,
    name: str,
) -> None:
    """Refuse a single cluster, and levels with rows in several."""
    if n_clusters < 2:
        raise ValueError(
            "There is one cluster only: residuals of one say nothing of the differences between "
            "clusters. Give clusters of fewer rows."
        )
    for factor, (codes, levels) in _factors(model, rows, noise).items():
        lowest = np.full(len(levels), n_clusters, dtype=clusters.dtype)
        np.minimum.at(lowest, codes, clusters)
        apart = clusters != lowest[codes]
        if apart.any():
            level = levels[codes[int(np.argmax(apart))]]
            raise ValueError(
                f"The level {shown(level)} of {factor!r} has rows in several clusters of {name!r}, "
                "so that clusters are not independent. Every level of every grouping factor must "
                "lie in one cluster: give the outermost of nested factors, or labels of larger "
                "clusters. With crossed factors there may be none."
            )


def _factor(correction: str, m: int, model: FittedModel) -> float | None:
    """What residuals are multiplied by; None if each cluster's are adjusted by themselves."""
    n, p = model.sums.n_rows, len(model.fixed_effects.coef)
    if correction == "CR1p" and m <= p:
        raise ValueError(
            f"correction='CR1p' needs more clusters than coefficients, and there are {m} and {p}: "
            "use 'CR2'."
        )
    if correction == "CR2":
        return None
    squares = {
        "CR0": lambda: 1.0,
        "CR1": lambda: m / (m - 1),
        "CR1p": lambda: m / (m - p),
        "CR1S": lambda: m * (n - 1) / ((m - 1) * (n - p)),
    }
    return float(np.sqrt(squares[correction]()))


def _of_single_clusters(model: FittedModel, root: FloatArray, sums: Sandwich) -> list[str]:
    """The coefficients that a single cluster determines, or a part of them."""
    part = np.linalg.norm(root @ sums.alone, axis=1)
    is_alone = (part > NOTHING * np.linalg.norm(root, axis=1)) & ~model.fixed_basis.undetermined
    names = model.specification.coef_names
    return [name for name, own in zip(names, is_alone, strict=True) if own]
