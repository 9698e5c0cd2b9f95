"""Information criteria: minus twice the log-likelihood plus a penalty for each parameter."""

from __future__ import annotations

import numpy as np

from mixedlearn.fitted import FittedModel


def n_parameters(model: FittedModel) -> int:
    """Number of parameters: fixed effects that are not aliased, theta, the noise variance."""
    n_theta = sum(factor.structure.n_parameters for factor in model.specification.factors)
    return len(model.fixed_effects.coef) + n_theta + 1


def aic(model: FittedModel) -> float:
    """Akaike's criterion."""
    return float(model.objective + 2.0 * n_parameters(model))


def bic(model: FittedModel) -> float:
    """Schwarz's criterion."""
    return float(model.objective + np.log(model.products.n_rows) * n_parameters(model))
