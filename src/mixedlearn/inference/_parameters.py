"""All parameters of a model as one vector: the variance components, then the fixed effects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedlearn.design import Specification
from mixedlearn.inference._models import NOISE_SD, correlation_name, sd_name

FloatArray = NDArray[np.float64]


def parameter_names(specification: Specification) -> list[str]:
    """Names of all parameters, in the order of lme4's ``confint``.

    For every factor, effect by effect, its standard deviation and its free correlations with later
    effects; the standard deviation of the noise; the coefficients.
    """
    names = []
    for factor in specification.factors:
        for j, effect in enumerate(factor.effects):
            names.append(sd_name(effect, factor.name))
            later = [i for i in range(j + 1, len(factor.effects)) if factor.structure.mask[i, j]]
            names += [correlation_name(effect, factor.effects[i], factor.name) for i in later]
    return [*names, NOISE_SD, *specification.coef_names]


def parameter_values(
    specification: Specification,
    covariances: Sequence[FloatArray],
    noise_variance: FloatArray,
    coef: FloatArray,
) -> FloatArray:
    """The parameters of n sets of estimates, shape (n, n_parameters).

    Parameters
    ----------
    specification : Specification
    covariances : sequence of ndarray of shape (n, q, q)
        For every factor.
    noise_variance : ndarray of shape (n,)
    coef : ndarray of shape (n, p)

    Returns
    -------
    values : ndarray of shape (n, n_parameters)
        A correlation with an effect of variance zero is NaN.
    """
    columns = []
    for factor, own in zip(specification.factors, covariances, strict=True):
        sd = np.sqrt(np.einsum("naa->na", own))
        for j in range(len(factor.effects)):
            columns.append(sd[:, j])
            for i in range(j + 1, len(factor.effects)):
                if factor.structure.mask[i, j]:
                    scale = sd[:, i] * sd[:, j]
                    is_defined = scale > 0.0
                    ratio = own[:, i, j] / np.where(is_defined, scale, 1.0)
                    columns.append(np.where(is_defined, np.clip(ratio, -1.0, 1.0), np.nan))
    return np.column_stack([*columns, np.sqrt(noise_variance), coef])
