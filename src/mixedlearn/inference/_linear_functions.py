"""Linear functions of the coefficients, some of which cannot be estimated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.inference._hypotheses import is_determined
from mixedlearn.inference._uncertainty import (
    CovarianceEstimate,
    Uncertainty,
    coef_uncertainty,
    degrees_of_freedom,
    standard_errors,
)
from mixedlearn.inference.tables import estimate_table
from mixedlearn.model.fitted import FittedModel

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class CoefEstimates:
    """The coefficients, their uncertainty, and what the rows say nothing of.

    Attributes
    ----------
    coef : ndarray of shape (p,)
    null : ndarray of shape (p, n_aliased)
        A basis of the combinations of columns that are zero in all rows.
    uncertainty : Uncertainty
    """

    coef: FloatArray
    null: FloatArray
    uncertainty: Uncertainty

    def table(self, rows: FloatArray, index: pd.Index, level: float) -> pd.DataFrame:
        """The table of `estimate_table` for rows of shape (r, p); NaN where there is no estimate.

        A function has one if it does not depend on how effects are divided between columns that
        make each other up (Searle 1971, Linear Models, section 5.4).
        """
        is_known = is_determined(rows, self.null)
        return estimate_table(
            index,
            np.where(is_known, rows @ self.coef, np.nan),
            0.0,
            np.where(is_known, standard_errors(self.uncertainty, rows), np.nan),
            np.where(is_known, degrees_of_freedom(self.uncertainty, rows), np.nan),
            level,
        )

    def root(self, rows: FloatArray) -> FloatArray:
        """M such that the functions have the covariance ``M M'``, but for its unit."""
        sizes, axes = np.linalg.eigh(self.uncertainty.adjusted)
        return np.asarray(rows @ self.uncertainty.root @ (axes * np.sqrt(np.maximum(sizes, 0.0))))


def coef_estimates(
    model: FittedModel, ddf: str, covariance: CovarianceEstimate | None
) -> CoefEstimates:
    """The coefficients of a model; raises as `coef_uncertainty`."""
    uncertainty = coef_uncertainty(model, ddf, covariance)
    return CoefEstimates(model.coef, model.fixed_basis.null, uncertainty)
