"""The profiled likelihood: what every engine does once it has log|V| and ``[X y]'V^-1[X y]``.

With ``H = X'V^-1 X`` and ``r2 = (y - X beta)'V^-1 (y - X beta)``, df = n - p for REML and n for ML,

    f = log|V| + [log|H| if REML] + df (1 + log(2 pi s2)),      s2 = r2 / df

Arrays may have leading axes, ``...``: one entry for each of several responses, and none for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.algebra import cholesky, inverse_of_lower
from mixedlearn.engines.protocol import FixedEffects

FloatArray = NDArray[np.float64]

# A residual sum of squares below this share of that of ordinary least squares is rounding error.
NO_RESIDUAL = 1e-13
# The objective is a sum of many terms, of which rounding error leaves this much undetermined.
ROUNDING = 1e-14
EPSILON = float(np.finfo(float).eps)


@dataclass(frozen=True, slots=True)
class ProfiledLikelihood:
    """Generalised least squares and the objective.

    Attributes
    ----------
    n_rows, n_fixed : int
        Numbers of rows and of fixed columns.
    reml : bool
        Restricted likelihood or likelihood.
    constant : float or ndarray of shape (...)
        What the objective in the user's units has more than in the engine's columns.
    squares : float
        Sum of squares of the response in the sums, whose rounding error the residuals have.
    """

    n_rows: int
    n_fixed: int
    reml: bool
    constant: Any
    squares: float

    @property
    def df(self) -> int:
        """Degrees of freedom of the residual sum of squares."""
        return self.n_rows - self.n_fixed if self.reml else self.n_rows

    @property
    def total(self) -> int:
        """Sum of squares of the response: a unit for each degree of freedom."""
        return self.n_rows - self.n_fixed

    def least_squares(self, cross: FloatArray) -> FixedEffects:
        """Generalised least squares from ``[X y]'V^-1[X y]``, shape (..., p + 1, p + 1).

        Where H is singular to rounding, or nothing is left of the residuals, the noise variance is
        infinite.
        """
        p = self.n_fixed
        inverse_root, is_singular = _inverse_root(cross[..., :p, :p])
        projection = (cross[..., None, p, :p] @ inverse_root)[..., 0, :]
        residual = cross[..., p, p] - (projection * projection).sum(axis=-1)
        has_residual = residual > NO_RESIDUAL * self.squares
        if is_singular is not False or not has_residual.all():
            residual = np.where(has_residual & np.logical_not(is_singular), residual, np.inf)
        coef = (inverse_root @ projection[..., None])[..., 0]
        return FixedEffects(coef, inverse_root, as_value(residual / self.df))

    def objective(self, log_det: Any, fixed: FixedEffects) -> Any:
        """The objective from log|V|, shape (...)."""
        value = (
            self.constant + log_det + self.df * (1.0 + np.log(2.0 * np.pi * fixed.noise_variance))
        )
        if self.reml:
            diagonal = fixed.inverse_root.diagonal(axis1=-2, axis2=-1)
            value = value - 2.0 * np.log(diagonal).sum(axis=-1)
        return as_value(value)

    def rounding(self, objective: Any, fixed: FixedEffects, lost: Any) -> Any:
        """How far rounding error may have moved the objective, shape (...).

        The residual sum of squares is a difference of sums that are as large as `squares`, and
        other sums are differences of ``lost`` times what they come to.
        """
        share = ROUNDING * (abs(objective) + self.squares / fixed.noise_variance)
        return as_value(share + 4.0 * EPSILON * lost)


def as_value(values: Any) -> Any:
    """An array as it is, a number as a float: numpy's own are slow, and warn of infinite ones."""
    return values if isinstance(values, np.ndarray) and values.ndim else float(values)


def _inverse_root(squares: FloatArray) -> tuple[FloatArray, NDArray[np.bool_] | bool]:
    """Upper triangular roots of the inverses of matrices, and where a matrix is singular.

    The root of a singular matrix is the identity.
    """
    try:
        if squares.ndim == 2:
            return inverse_of_lower(cholesky(squares)).T, False
        return np.linalg.inv(np.linalg.cholesky(squares)).swapaxes(-1, -2), False
    except np.linalg.LinAlgError:
        shape = squares.shape[:-2]
        roots, is_singular = np.empty_like(squares), np.zeros(shape, bool)
        for place in np.ndindex(shape):
            try:
                roots[place] = np.linalg.inv(np.linalg.cholesky(squares[place])).T
            except np.linalg.LinAlgError:
                roots[place], is_singular[place] = np.eye(squares.shape[-1]), True
        return roots, is_singular
