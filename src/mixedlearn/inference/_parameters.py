"""The parameters of a model by name: standard deviations, correlations, noise, fixed effects.

The order is that of R's ``confint`` for lme4 models: factor by factor the lower triangle of the
covariance by columns (the standard deviation on the diagonal, then the correlations below it), the
noise, then the fixed effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.structures import correlations
from mixedlearn.exceptions import did_you_mean
from mixedlearn.model.fitted import FittedModel
from mixedlearn.specification import Specification

FloatArray = NDArray[np.float64]

# Name of the standard deviation of the noise.
NOISE_SD = "sd(noise)"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a model.

    Attributes
    ----------
    name : str
        ``sd(Days|Subject)``, ``cor(intercept,Days|Subject)``, ``sd(noise)``, or the name of a fixed
        effect.
    kind : {"sd", "correlation", "noise", "coef"}
    factor : int
        Position of the grouping factor; -1 where there is none.
    effect, other : int
        Positions of the random effects, the second for a correlation; of the coefficient.
    """

    name: str
    kind: Literal["sd", "correlation", "noise", "coef"]
    factor: int = -1
    effect: int = -1
    other: int = -1

    @property
    def is_variance(self) -> bool:
        """Whether it is a standard deviation."""
        return self.kind in ("sd", "noise")


def parameters(specification: Specification) -> list[Parameter]:
    """All parameters in their order; effects with a common variance share one."""
    found = []
    for k, factor in enumerate(specification.factors):
        if factor.structure.kind == "scalar":
            names = ",".join(factor.effects)
            found.append(Parameter(f"sd({names}|{factor.name})", "sd", k, 0))
            continue
        for j, effect in enumerate(factor.effects):
            found.append(Parameter(f"sd({effect}|{factor.name})", "sd", k, j))
            for i in range(j + 1, len(factor.effects)):
                if factor.structure.mask[i, j]:
                    name = f"cor({effect},{factor.effects[i]}|{factor.name})"
                    found.append(Parameter(name, "correlation", k, j, i))
    found.append(Parameter(NOISE_SD, "noise"))
    found += [Parameter(name, "coef", effect=j) for j, name in enumerate(specification.coef_names)]
    return found


def find_parameter(specification: Specification, name: str) -> Parameter:
    """The parameter of that name.

    Raises
    ------
    ValueError
        If there is none; the message lists the names.
    """
    known = parameters(specification)
    for parameter in known:
        if parameter.name == name:
            return parameter
    names = [parameter.name for parameter in known]
    raise ValueError(
        f"The model has no parameter {name!r}.{did_you_mean(name, names)} Its parameters are: "
        f"{', '.join(map(repr, names))}."
    )


def parameter_names(specification: Specification) -> list[str]:
    """Names of all parameters."""
    return [parameter.name for parameter in parameters(specification)]


def parameter_values(
    specification: Specification,
    covariances: Sequence[FloatArray],
    noise_variance: FloatArray,
    coef: FloatArray,
) -> FloatArray:
    """All parameters of n sets of estimates, shape (n, n_parameters).

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
    ratios = [correlations(own) for own in covariances]
    for parameter in parameters(specification):
        i, j = parameter.effect, parameter.other
        if parameter.kind == "noise":
            columns.append(np.sqrt(noise_variance))
        elif parameter.kind == "coef":
            columns.append(coef[:, i])
        elif parameter.kind == "sd":
            columns.append(np.sqrt(covariances[parameter.factor][:, i, i]))
        else:
            columns.append(ratios[parameter.factor][:, i, j])
    return np.column_stack(columns)


def estimates(model: FittedModel) -> FloatArray:
    """The estimates of all parameters, shape (n_parameters,); aliased fixed effects are NaN."""
    covariances = [covariance[None] for covariance in model.covariances]
    coef = np.where(model.fixed_basis.aliased, np.nan, model.coef)
    noise = np.array([model.noise_variance])
    return parameter_values(model.specification, covariances, noise, coef[None])[0]


def parameter_value(model: FittedModel, parameter: Parameter) -> float:
    """The estimate of one parameter."""
    return float(estimates(model)[parameters(model.specification).index(parameter)])
