"""The parameters of the noise of a fitted model by name, and the covariance that they make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.covariance.residual.base import Layout
from mixedlearn.covariance.residual.monomial import Monomial
from mixedlearn.covariance.residual.unrestricted import Unrestricted
from mixedlearn.data.labels import shown
from mixedlearn.engines.plan import check_block_memory
from mixedlearn.model.correlated import FittedNoise
from mixedlearn.model.fitted import FittedModel

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NoiseParameter:
    """A parameter of the noise, beside the variance of the row of reference.

    Attributes
    ----------
    name : str
    part : int
        Which part of the noise covariance it belongs to.
    kind : {"variance", "covariance", "ratio", "power", "correlation"}
        The variance of an occasion, the correlation of two occasions; or what a coordinate of a
        `Monomial` says: a ratio of variances, a power, a correlation.
    first, second : int
        The occasions, or the position of the coordinate.
    """

    name: str
    part: int
    kind: Literal["variance", "covariance", "ratio", "power", "correlation"]
    first: int
    second: int = -1


def noise_parameters(noise: FittedNoise) -> list[NoiseParameter]:
    """The parameters of the noise in their order."""
    return [own for number in range(len(noise.binding.parts)) for own in _of_part(noise, number)]


def _of_part(noise: FittedNoise, number: int) -> Iterator[NoiseParameter]:
    binding, occasions = noise.binding, noise.occasion_names
    part = binding.parts[number]
    where = ""
    if binding.by is not None:
        where = f"{binding.names.by} {shown(binding.by[number])}: "
    if isinstance(part, Unrestricted):
        for k, name in enumerate(occasions):
            yield NoiseParameter(f"{where}variance of {name}", number, "variance", k)
        for j, second in enumerate(occasions):
            for k, first in enumerate(occasions[:j]):
                name = f"{where}correlation of {first} and {second}"
                yield NoiseParameter(name, number, "covariance", k, j)
        return
    assert isinstance(part, Monomial)
    names = binding.deviation_names
    for k, name in enumerate([*names, "variance ratio"][: part.n_deviations]):
        kind: Literal["power", "ratio"] = "power" if name.startswith("power of") else "ratio"
        yield NoiseParameter(where + name, number, kind, k)
    if binding.correlation is not None:
        for k, name in enumerate(binding.correlation.names(occasions)[: len(part.ranges)]):
            yield NoiseParameter(where + name, number, "correlation", part.n_deviations + k)


def residual_parameters(model: FittedModel) -> dict[str, float]:
    """The parameters of the noise by name; see `MixedLinearRegressor.residual_parameters_`."""
    noise: FittedNoise = model.noise
    return {own.name: _value(model, own) for own in noise_parameters(noise)}


def _value(model: FittedModel, parameter: NoiseParameter) -> float:
    noise: FittedNoise = model.noise
    point, part = noise.point.parts[parameter.part], noise.binding.parts[parameter.part]
    first, second = parameter.first, parameter.second
    if parameter.kind == "power":
        return float(point[first])
    if parameter.kind == "ratio":
        return float(np.exp(2.0 * point[first]))
    if isinstance(part, Monomial):
        rho = part.correlations(point)[first - part.n_deviations]
        return float(rho ** (1.0 / noise.binding.unit))
    rows = point[first], point[first if parameter.kind == "variance" else second]
    product = float(rows[0] @ rows[1])
    if parameter.kind == "variance":
        return model.noise_variance * product / noise.reference
    return product / float(np.linalg.norm(rows[0]) * np.linalg.norm(rows[1]))


def residual_covariances(model: FittedModel) -> list[pd.DataFrame]:
    """Covariance of the noise of the occasions of a level, for every part.

    Of rows of the first strata, and with covariates of one where the variance is a power.

    Raises
    ------
    MemoryError
        If the table does not fit into memory.
    """
    noise: FittedNoise = model.noise
    times, occasions = noise.occasion_times
    check_block_memory([(len(noise.binding.parts), len(times))], 1)
    names = noise.occasion_names
    found = []
    for number, part in enumerate(noise.binding.parts):
        deviations = np.zeros((len(times), noise.noise_rows.deviations.shape[1]))
        if noise.binding.names.is_heterogeneous:
            start = sum(len(own) - 1 for own in noise.binding.strata)
            deviations[1:, start : start + len(times) - 1] = np.eye(len(times) - 1)
        if len(noise.binding.parts) > 1:
            deviations[:, -1] = 1.0
        layout = Layout(deviations, noise.noise_rows.exponents(times, occasions), occasions)
        covariance = part.covariance(noise.point.parts[number], layout) / noise.reference
        own = model.noise_variance * covariance
        found.append(pd.DataFrame(own, index=names, columns=names))
    return found
