"""The profiled likelihood: what every engine does once it has log|V| and ``[X y]'V^-1[X y]``.

With ``H = X'V^-1 X`` and ``r2 = (y - X beta)'V^-1 (y - X beta)``, df = n - p for REML and n for ML,

    f = log|V| + [log|H| if REML] + df (1 + log(2 pi s2)),      s2 = r2 / df
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedlearn.engines.protocol import FixedEffects

FloatArray = NDArray[np.float64]

# A residual sum of squares below this share of that of ordinary least squares is rounding error.
NO_RESIDUAL = 1e-13
# The objective is a sum of many terms, of which rounding error leaves this much undetermined.
ROUNDING = 1e-14


@dataclass(frozen=True, slots=True)
class ProfiledLikelihood:
    """Generalised least squares and the objective.

    Attributes
    ----------
    n_rows, n_fixed : int
        Numbers of rows and of fixed columns.
    reml : bool
        Restricted likelihood or likelihood.
    constant : float
        What the objective in the user's units has more than in the engine's columns.
    """

    n_rows: int
    n_fixed: int
    reml: bool
    constant: float

    @property
    def df(self) -> int:
        """Degrees of freedom of the residual sum of squares."""
        return self.n_rows - self.n_fixed if self.reml else self.n_rows

    @property
    def total(self) -> int:
        """Sum of squares of the response: a unit for each degree of freedom."""
        return self.n_rows - self.n_fixed

    def least_squares(self, cross: FloatArray) -> FixedEffects:
        """Generalised least squares from ``[X y]'V^-1[X y]``.

        Raises
        ------
        numpy.linalg.LinAlgError
            If H is singular to rounding, or nothing is left of the residuals.
        """
        p = self.n_fixed
        root = np.linalg.cholesky(cross[:p, :p])
        inverse_root = np.linalg.inv(root).T
        projection = inverse_root.T @ cross[:p, p]
        residual = float(cross[p, p] - projection @ projection)
        if not residual > NO_RESIDUAL * self.total:
            raise np.linalg.LinAlgError("the residual sum of squares is lost in rounding")
        return FixedEffects(inverse_root @ projection, inverse_root, residual / self.df)

    def objective(self, log_det: float, fixed: FixedEffects) -> float:
        """The objective from log|V|."""
        value = self.constant + log_det
        value += self.df * (1.0 + np.log(2.0 * np.pi * fixed.noise_variance))
        if self.reml:
            value -= 2.0 * np.log(np.diag(fixed.inverse_root)).sum()
        return float(value)

    def rounding(self, objective: float, fixed: FixedEffects, largest: float) -> float:
        """How far rounding error may have moved the objective.

        The residual sum of squares is a difference of sums that are as large as the total, and a
        large D separates columns by as many digits as it has itself: ``largest`` is the largest
        square of an entry of Lambda.
        """
        share = ROUNDING * (abs(objective) + self.total / fixed.noise_variance)
        return float(share + 4.0 * np.finfo(float).eps * largest)
