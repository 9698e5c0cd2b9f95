r"""Uncertainty of the coefficients: covariance, degrees of freedom, t and F statistics.

Notation
--------
The covariance of the coefficients is ``s2 root root'``. A contrast ``l'beta`` has in the root's
columns the row ``x = root'l`` and the variance ``v = s2 x'x``. The derivative of v by the a-th
variance parameter is ``s2 x'C_a x``; with A the covariance of these parameters, its degrees of
freedom match the variance of the estimate of v to that of a chi-squared variable (Giesbrecht &
Burns 1985):

    2 (x'x)^2 / (g'A g),      g_a = x'C_a x

Satterthwaite takes A from the observed information of the likelihood, Kenward and Roger from the
expected information of the restricted likelihood, and the covariance that they adjust for the
t and F statistics.

Several contrasts at once have q orthonormal rows x_m in the directions of the principal axes of
their covariance. Satterthwaite: F is the mean of q squared t statistics of nu_m degrees of freedom,
and its own are those of an F variable with the same mean (Fai & Cornelius 1996):

    E = sum_m nu_m / (nu_m - 2),      2 E / (E - q)

Kenward & Roger (1997, section 3) match mean and variance of F, times a factor; with
``B_a = x'C_a x`` a matrix of shape (q, q) here,

    A1 = sum_ab A_ab tr(B_a) tr(B_b),      A2 = sum_ab A_ab tr(B_a B_b)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, fdtrc, ndtr, ndtri, stdtr, stdtrit

from mixedlearn.inference._kenward_roger import kenward_roger, why_not
from mixedlearn.inference._variance_parameters import variance_parameters
from mixedlearn.model.correlated import correlated_information
from mixedlearn.model.fitted import FittedModel

FloatArray = NDArray[np.float64]

METHODS = ("satterthwaite", "kenward-roger", "residual", "normal")
# Rows that depend on each other but for this share of their size are dependent.
RANK_TOLERANCE = 1e-8
# Eigenvalues of a covariance of contrasts below this share of the largest are zero.
SINGULAR_MIDDLE = 1e-10
# Degrees of freedom that differ by less are equal (as in lmerTest).
EQUAL_DF = 1e-8
# pbkrtest's guards: what is zero among Kenward and Roger's terms, and how near two the degrees of
# freedom may come before F has no mean and stays as it is.
ZERO_TERM = 1e-10
NEAR_TWO = 1e-2


@dataclass(frozen=True, slots=True)
class Uncertainty(ABC):
    """The coefficients' covariance and how uncertain it is.

    This is what tests and intervals of the fixed effects read, by `standard_errors`,
    `degrees_of_freedom` and `joint_test`.

    Attributes
    ----------
    root : ndarray of shape (p_user, p)
        The model's covariance of the coefficients is ``noise_variance root root'``.
    noise_variance : float
    adjusted : ndarray of shape (p, p)
        What stands between the roots for standard errors and statistics; the identity for the
        model's covariance.
    """

    root: FloatArray
    noise_variance: float
    adjusted: FloatArray

    @property
    def covariance(self) -> FloatArray:
        """Covariance of the coefficients, shape (p_user, p_user)."""
        return self.noise_variance * (self.root @ self.adjusted @ self.root.T)

    @abstractmethod
    def single_df(self, turned: FloatArray) -> FloatArray:
        """Degrees of freedom of contrasts, rows in the root's columns; NaN for a row of zeros."""

    @abstractmethod
    def joint_df(self, axes: FloatArray) -> tuple[float, float]:
        """Degrees of freedom of the denominator of orthonormal rows together; F's factor."""


@dataclass(frozen=True, slots=True)
class KnownDf(Uncertainty):
    """Degrees of freedom that are the same for all contrasts.

    Attributes
    ----------
    df : float
    """

    df: float

    def single_df(self, turned: FloatArray) -> FloatArray:
        """Degrees of freedom of contrasts; see `Uncertainty`."""
        return np.where(turned.any(axis=1), self.df, np.nan)

    def joint_df(self, axes: FloatArray) -> tuple[float, float]:
        """Degrees of freedom of the denominator and factor of F; see `Uncertainty`."""
        return self.df, 1.0


@dataclass(frozen=True, slots=True)
class VarianceUncertainty(Uncertainty):
    """Degrees of freedom by the uncertainty of the variance parameters.

    Attributes
    ----------
    is_scaled : bool
        Whether F has Kenward and Roger's factor.
    changes : ndarray of shape (a, p, p)
        C, the derivatives of what stands between the roots by the variance parameters.
    parameter_covariance : ndarray of shape (a, a)
        A.
    """

    is_scaled: bool
    changes: FloatArray
    parameter_covariance: FloatArray

    def single_df(self, turned: FloatArray) -> FloatArray:
        """Degrees of freedom of contrasts; see `Uncertainty`."""
        gradient = np.empty((len(turned), len(self.changes)))
        for a, change in enumerate(self.changes):
            gradient[:, a] = np.einsum("ri,ri->r", turned @ change, turned)
        spread = np.einsum("ra,ab,rb->r", gradient, self.parameter_covariance, gradient)
        square = np.einsum("ri,ri->r", turned, turned)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(2.0 * square**2 / spread)

    def joint_df(self, axes: FloatArray) -> tuple[float, float]:
        """Degrees of freedom of the denominator and factor of F; see `Uncertainty`."""
        if len(axes) == 1 or not self.is_scaled:
            return _fai_cornelius(self.single_df(axes)), 1.0
        forms = np.einsum("qi,aij,rj->aqr", axes, self.changes, axes)
        weights = self.parameter_covariance
        traces = np.einsum("aqq->a", forms)
        a1 = float(traces @ weights @ traces)
        a2 = float(np.einsum("ab,aqr,brq->", weights, forms, forms))
        return _kenward_roger_df(a1, a2, len(axes))


class CovarianceEstimate(Protocol):
    """A covariance of the coefficients that was estimated beside the model.

    Attributes
    ----------
    correction : str
        What to call it.
    """

    @property
    def correction(self) -> str: ...

    def __mixedlearn_uncertainty__(self, model: FittedModel, ddf: str) -> Uncertainty:
        """The uncertainty of a model's coefficients, which are those it was estimated for."""


@dataclass(frozen=True, slots=True)
class FTest:
    """An F test; ``mean_square`` is F, without Kenward and Roger's factor, times the noise."""

    f_value: float
    mean_square: float
    num_df: int
    den_df: float
    p_value: float


def coef_uncertainty(
    model: FittedModel, method: str, covariance: CovarianceEstimate | None = None
) -> Uncertainty:
    """The uncertainty of a model's coefficients by one of the methods.

    Without random effects, or where the fixed effects fit exactly, the residual degrees of freedom
    are exact, and all methods but "normal" give them.

    Parameters
    ----------
    model : FittedModel
    method : str
    covariance : CovarianceEstimate, optional
        What stands for the model's covariance; then the method is for its degrees of freedom.

    Raises
    ------
    ValueError
        If the method is unknown, or cannot be used for this model.
    TypeError
        If the covariance is none.
    """
    check_method(method)
    if covariance is not None:
        if not hasattr(covariance, "__mixedlearn_uncertainty__"):
            raise TypeError(
                "covariance takes the result of robust_covariance(estimator, X, y), got "
                f"{type(covariance).__name__}."
            )
        return covariance.__mixedlearn_uncertainty__(model, method)
    if model.noise is not None and method in ("satterthwaite", "kenward-roger"):
        return _correlated_uncertainty(model, method)
    root = coef_root(model)
    noise, identity = model.noise_variance, np.eye(root.shape[1])
    if method in ("residual", "normal") or not rests_on_variances(model):
        return KnownDf(root, noise, identity, known_df(model, method))
    if method == "kenward-roger":
        adjustment = kenward_roger(model)
        return VarianceUncertainty(
            root,
            noise,
            adjustment.adjusted,
            True,
            adjustment.changes,
            adjustment.parameter_covariance,
        )
    parameters = variance_parameters(model)
    return VarianceUncertainty(
        root, noise, identity, False, parameters.coef_changes, parameters.covariance
    )


def _correlated_uncertainty(model: FittedModel, method: str) -> Uncertainty:
    """The uncertainty with a residual structure, by the observed information.

    Kenward and Roger's in its linear form, without second derivatives of the covariance of the
    response, so that it does not depend on the parameters chosen.
    """
    if method == "kenward-roger" and (obstacle := why_not(model)) is not None:
        raise ValueError(obstacle)
    found = correlated_information(model)
    root = found.to_user @ found.inverse_root / np.sqrt(model.noise_variance)
    identity = np.eye(root.shape[1])
    is_adjusted = method == "kenward-roger"
    adjusted = identity + 2.0 * found.excess if is_adjusted else identity
    return VarianceUncertainty(
        root, model.noise_variance, adjusted, is_adjusted, found.changes, found.covariance
    )


def basis_of(model: FittedModel, method: str, covariance: CovarianceEstimate | None = None) -> str:
    """What tests rest on: the method, and what it is of a robust covariance or correlated noise."""
    if covariance is not None:
        return f"{method}, {covariance.correction}"
    if model.noise is None or method not in ("satterthwaite", "kenward-roger"):
        return method
    form = ", linear" if method == "kenward-roger" else ""
    return f"{method}{form}, observed information"


def known_df(model: FittedModel, method: str) -> float:
    """Degrees of freedom that do not rest on variances: infinite if "normal", else residual."""
    n_fixed = len(model.fixed_effects.coef)
    return np.inf if method == "normal" else float(model.sums.n_rows - n_fixed)


def coef_root(model: FittedModel) -> FloatArray:
    """The root of the model's covariance of the coefficients, relative to the noise variance."""
    return model.fixed_basis.to_user @ model.fixed_effects.inverse_root


def check_method(method: str) -> None:
    """Refuse what is no method for degrees of freedom."""
    if method not in METHODS:
        raise ValueError(
            f"ddf={method!r} is not a method for degrees of freedom: use one of "
            f"{', '.join(map(repr, METHODS))}."
        )


def rests_on_variances(model: FittedModel) -> bool:
    """Whether the coefficients' uncertainty is that of estimated variances of random effects."""
    has_parameters = model.noise is not None or any(len(own.kept) for own in model.random_bases)
    return has_parameters and not model.fixed_basis.is_exact


def standard_errors(uncertainty: Uncertainty, rows: FloatArray) -> FloatArray:
    """Standard errors of contrasts, rows of shape (r, p_user)."""
    turned = rows @ uncertainty.root
    squares = np.einsum("ri,ri->r", turned @ uncertainty.adjusted, turned)
    return np.sqrt(uncertainty.noise_variance * squares)


def degrees_of_freedom(uncertainty: Uncertainty, rows: FloatArray) -> FloatArray:
    """Degrees of freedom of contrasts, each on its own; NaN for a row of zeros."""
    return uncertainty.single_df(rows @ uncertainty.root)


def two_sided_p(t_value: FloatArray, df: FloatArray) -> FloatArray:
    """Two-sided p-values of t statistics."""
    size = np.abs(t_value)
    return np.asarray(2.0 * np.where(np.isinf(df), ndtr(-size), stdtr(df, -size)))


def t_quantile(probability: float, df: FloatArray) -> FloatArray:
    """Quantiles of t distributions."""
    return np.asarray(np.where(np.isinf(df), ndtri(probability), stdtrit(df, probability)))


def joint_test(uncertainty: Uncertainty, rows: FloatArray, excess: FloatArray) -> FTest:
    """Test whether all contrasts are zero.

    Parameters
    ----------
    uncertainty : Uncertainty
    rows : ndarray of shape (r, p_user)
        L; may be of deficient rank.
    excess : ndarray of shape (r,)
        The estimates less their hypothetical values.

    Returns
    -------
    test : FTest
        F is NaN where the covariance of the contrasts is singular.

    Raises
    ------
    ValueError
        If rows that depend on each other have values that contradict each other.
    """
    turned = rows @ uncertainty.root
    rank = _rank(rows, turned, uncertainty.root)
    if rank == 0:
        return FTest(np.nan, np.nan, 0, np.nan, np.nan)
    left, sizes, axes = np.linalg.svd(turned, full_matrices=False)
    scores = left.T @ excess
    if rank < len(rows):
        rest = excess - left[:, :rank] @ scores[:rank]
        if np.abs(rest).max() > RANK_TOLERANCE * np.abs(excess).max():
            raise ValueError(
                "The rows of L depend on each other, and their hypothetical values contradict each "
                "other: leave out the rows that follow from the others, or change rhs."
            )
    axes, scores = axes[:rank], scores[:rank] / sizes[:rank]
    den_df, scale = uncertainty.joint_df(axes)
    middle = axes @ uncertainty.adjusted @ axes.T
    values = np.linalg.eigvalsh(middle)
    if values[0] <= SINGULAR_MIDDLE * values[-1]:
        return FTest(np.nan, np.nan, rank, den_df, np.nan)
    mean_square = float(scores @ np.linalg.solve(middle, scores)) / rank
    with np.errstate(divide="ignore", invalid="ignore"):
        f_value = float(np.divide(scale * mean_square, uncertainty.noise_variance))
    if np.isinf(den_df):
        p_value = float(chdtrc(rank, rank * f_value))
    else:
        p_value = float(fdtrc(rank, den_df, f_value)) if den_df > 0.0 else np.nan
    return FTest(f_value, mean_square, rank, den_df, p_value)


def _rank(rows: FloatArray, turned: FloatArray, root: FloatArray) -> int:
    """Rank of L, whatever the units of the coefficients and the size of the rows."""
    scaled = rows * np.sqrt(np.einsum("ij,ij->i", root, root))
    sizes = np.linalg.norm(scaled, axis=1)
    present = (sizes > 0.0) & turned.any(axis=1)
    if not present.any():
        return 0
    values = np.linalg.svd(scaled[present] / sizes[present, None], compute_uv=False)
    return int((values > RANK_TOLERANCE * values[0]).sum())


def _fai_cornelius(df: FloatArray) -> float:
    """Degrees of freedom of a mean of squared t statistics."""
    if (df == df[0]).all() or (np.abs(np.diff(df)) < EQUAL_DF).all():
        return float(df.mean())
    if (df <= 2.0).any():
        return 2.0
    share = 1.0 / (1.0 - 2.0 / df)
    total = float(share.sum())
    return 2.0 * total / (total - len(df))


def _kenward_roger_df(a1: float, a2: float, q: int) -> tuple[float, float]:
    """Degrees of freedom and factor of F from A1 and A2 (Kenward & Roger 1997, section 3)."""
    if a2 <= 0.0:
        return np.inf, 1.0
    b = (a1 + 6.0 * a2) / (2.0 * q)
    g = ((q + 1.0) * a1 - (q + 4.0) * a2) / ((q + 2.0) * a2)
    below = 3.0 * q + 2.0 * (1.0 - g)
    v0 = 1.0 + g / below * b
    v1 = 1.0 - (q - g) / below * b
    v2 = 1.0 - (q + 2.0 - g) / below * b
    if abs(v0) < ZERO_TERM:
        v0 = 0.0
    mean = 1.0 - a2 / q
    with np.errstate(divide="ignore", invalid="ignore"):
        is_limit = max(abs(mean), abs(v1)) < ZERO_TERM
        ratio = 1.0 if is_limit else float(np.divide(mean, v1))
        rho = ratio**2 * float(np.divide(v0, v2)) / q
        den_df = float(4.0 + np.divide(q + 2.0, q * rho - 1.0))
    scale = 1.0 if abs(den_df - 2.0) < NEAR_TWO else den_df * mean / (den_df - 2.0)
    return den_df, scale
