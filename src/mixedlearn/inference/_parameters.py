"""The parameters of a model by name: standard deviations, correlations, noise, fixed effects.

The order is that of R's ``confint`` for lme4 models: factor by factor the lower triangle of the
covariance by columns (the standard deviation on the diagonal, then the correlations below it), the
noise, its residual structure, then the fixed effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.algebra import correlations
from mixedlearn.covariance.structures import Correlation
from mixedlearn.exceptions import did_you_mean
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.residual_parameters import (
    NoiseParameter,
    noise_parameters,
    residual_parameters,
)
from mixedlearn.specification import Factor

FloatArray = NDArray[np.float64]

# Name of the standard deviation of the noise.
NOISE_SD = "sd(noise)"
# What more effects than this share is named after the first and the last.
MOST_NAMES = 3
# A correlation that is closer to an end of its range is there, but for rounding.
AT_END = 1e-14


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a model.

    Attributes
    ----------
    name : str
        ``sd(Days|Subject)``, ``cor(intercept,Days|Subject)``, ``sd(noise)``, or the name of a fixed
        effect.
    kind : {"sd", "correlation", "noise", "residual", "coef"}
    factor : int
        Position of the grouping factor; -1 where there is none.
    effect, other : int
        Positions of the random effects, the second for a correlation; of the coefficient.
    effects : tuple of int
        The random effects that share a standard deviation.
    correlation : Correlation or None
        Where it is one, what the structure says of it.
    residual : NoiseParameter or None
        Where it is one of the residual structure.
    """

    name: str
    kind: Literal["sd", "correlation", "noise", "residual", "coef"]
    factor: int = -1
    effect: int = -1
    other: int = -1
    effects: tuple[int, ...] = ()
    correlation: Correlation | None = None
    residual: NoiseParameter | None = None

    @property
    def is_variance(self) -> bool:
        """Whether it is a standard deviation."""
        return self.kind in ("sd", "noise")


def parameters(model: FittedModel) -> list[Parameter]:
    """All parameters in their order; effects with a common variance share one."""
    specification, residual = model.specification, residual_of(model)
    found: list[Parameter] = []
    for k, factor in enumerate(specification.factors):
        for j in range(len(factor.effects)):
            group = factor.structure.group_of(j)
            if group[0] == j:
                name = f"sd({_names(factor, group)}|{factor.name})"
                found.append(Parameter(name, "sd", k, j, effects=group))
            for own in factor.structure.correlations:
                first, second = own.pairs[0]
                if first == j:
                    name = f"cor({_names(factor, own.effects)}|{factor.name})"
                    found.append(Parameter(name, "correlation", k, j, second, correlation=own))
    if not any(own.kind == "variance" for own in residual):
        # Else the first occasion has it.
        found.append(Parameter(NOISE_SD, "noise"))
    found += [Parameter(own.name, "residual", residual=own) for own in residual]
    found += [Parameter(name, "coef", effect=j) for j, name in enumerate(specification.coef_names)]
    return found


def residual_of(model: FittedModel) -> list[NoiseParameter]:
    """The parameters of the residual structure; none where the noise is independent."""
    return [] if model.noise is None else noise_parameters(model.noise)


def _names(factor: Factor, effects: Sequence[int]) -> str:
    """Names of effects with commas between; of many, the first and the last."""
    names = [factor.effects[effect] for effect in effects]
    return ",".join(names if len(names) <= MOST_NAMES else [names[0], "...", names[-1]])


def find_parameter(model: FittedModel, name: str) -> Parameter:
    """The parameter of that name.

    Raises
    ------
    ValueError
        If there is none; the message lists the names.
    """
    known = parameters(model)
    for parameter in known:
        if parameter.name == name:
            return parameter
    names = [parameter.name for parameter in known]
    raise ValueError(
        f"The model has no parameter {name!r}.{did_you_mean(name, names)} Its parameters are: "
        f"{', '.join(map(repr, names))}."
    )


def parameter_names(model: FittedModel) -> list[str]:
    """Names of all parameters."""
    return [parameter.name for parameter in parameters(model)]


def parameter_values(
    model: FittedModel,
    covariances: Sequence[FloatArray],
    noise_variance: FloatArray,
    coef: FloatArray,
    residual: FloatArray,
) -> FloatArray:
    """All parameters of n sets of estimates, shape (n, n_parameters).

    Parameters
    ----------
    model : FittedModel
        That says what parameters there are.
    covariances : sequence of ndarray of shape (n, q, q)
        For every factor.
    noise_variance : ndarray of shape (n,)
    coef : ndarray of shape (n, p)
    residual : ndarray of shape (n, n_residual)
        The parameters of the residual structure.

    Returns
    -------
    values : ndarray of shape (n, n_parameters)
        A correlation with an effect of variance zero is NaN.
    """
    columns = []
    n_residual = 0
    ratios = [correlations(own) for own in covariances]
    for parameter in parameters(model):
        i = parameter.effect
        if parameter.kind == "noise":
            columns.append(np.sqrt(noise_variance))
        elif parameter.kind == "coef":
            columns.append(coef[:, i])
        elif parameter.kind == "residual":
            columns.append(residual[:, n_residual])
            n_residual += 1
        elif parameter.kind == "sd":
            columns.append(np.sqrt(covariances[parameter.factor][:, i, i]))
        elif parameter.correlation is not None:
            own = covariances[parameter.factor]
            columns.append(_correlation(own, ratios[parameter.factor], parameter.correlation))
    return np.column_stack(columns)


def _correlation(
    covariances: FloatArray, ratios: FloatArray, correlation: Correlation
) -> FloatArray:
    """A correlation of several pairs as those of largest variance have it, shape (n,)."""
    first, second = (list(own) for own in zip(*correlation.pairs, strict=True))
    sizes = covariances[:, first, first] * covariances[:, second, second]
    largest = sizes.argmax(axis=1)
    found = ratios[:, first, second][np.arange(len(ratios)), largest]
    for end in (correlation.lower, correlation.upper):
        found = np.where(np.abs(found - end) < AT_END, end, found)
    return np.asarray(np.clip(found, correlation.lower, correlation.upper))


def correlation_of(parameter: Parameter) -> Correlation:
    """What the structure says of a correlation."""
    if parameter.correlation is None:
        raise TypeError(f"{parameter.name} is no correlation.")
    return parameter.correlation


def largest_pair(covariance: FloatArray, correlation: Correlation) -> tuple[int, int]:
    """Of the pairs of effects with a correlation, that of the largest variances."""
    return max(
        correlation.pairs,
        key=lambda pair: covariance[pair[0], pair[0]] * covariance[pair[1], pair[1]],
    )


def estimates(model: FittedModel) -> FloatArray:
    """The estimates of all parameters, shape (n_parameters,); aliased fixed effects are NaN."""
    covariances = [covariance[None] for covariance in model.covariances]
    coef = np.where(model.fixed_basis.undetermined, np.nan, model.coef)
    noise = np.array([model.noise_variance])
    residual = np.empty((1, 0))
    if model.noise is not None:
        residual = np.array([list(residual_parameters(model).values())])
    return parameter_values(model, covariances, noise, coef[None], residual)[0]


def parameter_value(model: FittedModel, parameter: Parameter) -> float:
    """The estimate of one parameter."""
    return float(estimates(model)[parameters(model).index(parameter)])
