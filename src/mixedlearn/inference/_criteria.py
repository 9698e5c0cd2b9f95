"""Information criteria, and the likelihood-ratio statistic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedlearn.model.fitted import FittedModel

# A likelihood-ratio statistic below this is the optimiser's tolerance.
NO_STATISTIC = 1e-7


def n_parameters(model: FittedModel) -> int:
    """Number of parameters: fixed effects that are not aliased, theta, those of the noise."""
    n_theta = sum(factor.structure.n_parameters for factor in model.specification.factors)
    n_noise = 1 if model.noise is None else model.noise.n_parameters
    return len(model.fixed_effects.coef) + n_theta + n_noise


def aic(model: FittedModel) -> float:
    """Akaike's criterion."""
    return float(model.objective + 2.0 * n_parameters(model))


def bic(model: FittedModel) -> float:
    """Schwarz's criterion."""
    return float(model.objective + np.log(model.sums.n_rows) * n_parameters(model))


def likelihood_ratio(smaller: FittedModel, larger: FittedModel) -> float:
    """Twice the difference of the log-likelihoods; what the optimiser leaves near zero is zero.

    NaN where both models fit exactly: both likelihoods are infinite then.
    """
    if np.isinf(smaller.objective):
        return np.nan
    return float(without_tolerance(np.array(smaller.objective - larger.objective)))


def without_tolerance(statistics: NDArray[np.float64]) -> NDArray[np.float64]:
    """Likelihood-ratio statistics, zero where the optimiser has left something near zero."""
    return np.where(statistics > NO_STATISTIC, statistics, 0.0)
