"""Sampling errors in the user's units, of fits whose variances are estimated with random probes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.components import VarianceComponents
from mixedlearn.engines.problem import engine_structures
from mixedlearn.model.fitted import FittedModel, covariance_changes
from mixedlearn.search.sampled import size, standard_error

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MonteCarloErrors:
    """Standard errors over draws of probes.

    Attributes
    ----------
    covariances : tuple of ndarray of shape (q, q)
        Of every factor's covariance matrix.
    noise_variance : float
    objective : float
        Of minus twice the log-likelihood.
    """

    covariances: tuple[FloatArray, ...]
    noise_variance: float
    objective: float


def monte_carlo_errors(model: FittedModel) -> MonteCarloErrors | None:
    """The sampling errors of a model; None where it has none."""
    if model.sampling is None:
        return None
    errors = model.sampling.errors
    components = VarianceComponents(engine_structures(model.specification, model.random_bases))
    changes = covariance_changes(model, components, errors.theta, errors.free, errors.log_noise)
    return MonteCarloErrors(
        tuple(size(errors.moves, own) for own in changes),
        model.noise_variance * float(size(errors.moves, errors.log_noise)),
        model.sampling.objective_error,
    )


def error_of_difference(model: FittedModel, other: FittedModel) -> float:
    """Sampling error of the difference of two objectives.

    Models that differ in their fixed effects have the same probes, and most of the error in common.
    """
    own, theirs = (
        np.zeros(1) if each.sampling is None else each.sampling.objectives
        for each in (model, other)
    )
    is_paired = (
        len(own) == len(theirs)
        and model.recipe.seed == other.recipe.seed
        and model.specification.factor_names == other.specification.factor_names
    )
    if is_paired:
        return standard_error(own - theirs)
    return float(np.hypot(standard_error(own), standard_error(theirs)))
