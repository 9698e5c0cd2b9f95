"""The parameters of a model by name: standard deviations, correlations, noise, fixed effects.

The order is that of R's ``confint`` for lme4 models: factor by factor the lower triangle of the
covariance by columns (the standard deviation on the diagonal, then the correlations below it), the
noise, then the fixed effects.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from mixedlearn.design import Specification
from mixedlearn.fitted import FittedModel

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
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"The model has no parameter {name!r}.{hint} Its parameters are: "
        f"{', '.join(map(repr, names))}."
    )


def parameter_value(model: FittedModel, parameter: Parameter) -> float:
    """The estimate; NaN for an aliased fixed effect and where a correlation has no meaning."""
    if parameter.kind == "noise":
        return float(np.sqrt(model.noise_variance))
    if parameter.kind == "coef":
        is_aliased = bool(model.fixed_basis.aliased[parameter.effect])
        return np.nan if is_aliased else float(model.coef[parameter.effect])
    covariance = model.covariances[parameter.factor]
    i, j = parameter.effect, parameter.other
    if parameter.kind == "sd":
        return float(np.sqrt(covariance[i, i]))
    product = float(covariance[i, i] * covariance[j, j])
    if not product > 0.0:
        return np.nan
    return float(np.clip(covariance[i, j] / np.sqrt(product), -1.0, 1.0))


def parameter_values(model: FittedModel) -> pd.Series:
    """The estimates of all parameters, by name."""
    return pd.Series(
        {
            parameter.name: parameter_value(model, parameter)
            for parameter in parameters(model.specification)
        },
        name="estimate",
        dtype=float,
    )
