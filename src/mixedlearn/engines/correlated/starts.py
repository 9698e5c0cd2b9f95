"""What the parameters of a `Monomial` start from: residuals of ordinary least squares."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.residual.monomial import Monomial
from mixedlearn.engines.correlated.rows import NoiseRows

FloatArray = NDArray[np.float64]

SMALLEST = float(np.finfo(float).tiny)


def hides_sign(gaps: FloatArray) -> bool:
    """Whether a search does not find the sign of a correlation from one side.

    Even powers are the same for both signs, and those of a distance above two are flat at zero.
    """
    return len(gaps) > 0 and bool(np.mean(gaps % 2.0 == 0.0) > 0.5 or gaps.min() > 2.0)


def start_deviations(
    number: int, part: Monomial, noise: NoiseRows, residuals: FloatArray
) -> tuple[FloatArray, FloatArray, float]:
    """Logarithms of the deviations of a part, residuals over these, and their variance."""
    own = noise.part == number
    columns = noise.deviations[:, : part.n_deviations]
    deviations = _log_deviations(columns[own], residuals[own])
    scaled = residuals / np.exp(columns @ deviations)
    return deviations, scaled, max(float(np.mean(scaled[own] ** 2)), SMALLEST)


def start_correlations(part: Monomial, mean: FloatArray, exponents: FloatArray) -> FloatArray:
    """Correlation parameters from mean products of rows at these exponents, infinite if none."""
    # At distances of many units any correlation but one very close to one leaves nothing: what a
    # search starts from must not be extreme there, nor at a distance of one.
    exponents = np.where(np.isfinite(exponents), exponents, 1.0)
    distance = np.maximum(exponents, 1.0)
    mean = np.sign(mean) * np.minimum(np.abs(mean), 1.0) ** (distance / exponents)
    mean = np.array([own.inner(value) for own, value in zip(part.ranges, mean, strict=True)])
    rho = np.sign(mean) * np.abs(mean) ** (1.0 / distance)
    return np.asarray(rho)


def _log_deviations(columns: FloatArray, residuals: FloatArray) -> FloatArray:
    """Regression of the logarithms of squared residuals, halved."""
    if not columns.shape[1]:
        return np.zeros(0)
    floor = 1e-8 * max(float(np.mean(residuals**2)), SMALLEST)
    logs = 0.5 * np.log(residuals**2 + floor)
    design = np.column_stack([np.ones(len(columns)), columns])
    return np.asarray(np.linalg.lstsq(design, logs, rcond=None)[0][1:])
