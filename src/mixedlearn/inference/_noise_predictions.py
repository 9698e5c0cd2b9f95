"""Standard errors and degrees of freedom of predictions beside a residual structure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.rows import CodedRows
from mixedlearn.engines.correlated.covariance import Point
from mixedlearn.engines.correlated.problem import CorrelatedProblem, reference_variance
from mixedlearn.engines.correlated.rows import NoiseRows
from mixedlearn.engines.problem import make_problem
from mixedlearn.inference._noise_parameters import noise_coordinates
from mixedlearn.inference._uncertainty import known_df
from mixedlearn.model.continuation import condition, sums_in_metric
from mixedlearn.model.known import Known
from mixedlearn.model.prediction import predict_std

FloatArray = NDArray[np.float64]

# Step of the differences, in natural lengths of the parameters.
STEP = 1e-3


def of_correlated_rows(
    known: Known, rows: CodedRows, noise_rows: NoiseRows | None, ddf: str
) -> tuple[FloatArray, FloatArray]:
    """Standard errors and degrees of freedom of predictions; see `predictions`.

    Parameters
    ----------
    known : Known
    rows : CodedRows
        Their codes are places in the levels of the whole model.
    noise_rows : NoiseRows or None
        What the noise of an observation depends on; None for means.
    ddf : str
        A method for degrees of freedom.
    """
    fit = known.fit
    here = Known(known.whole, observed_noise=known.observed_noise)
    errors = _errors(here, rows, noise_rows)
    if ddf != "satterthwaite":
        return errors, np.full(len(errors), known_df(fit, ddf))
    coordinates = noise_coordinates(fit)
    problem, point = coordinates.problem, coordinates.point
    lengths = problem.lengths(point)
    covariance, _ = coordinates.information
    gradient = np.zeros((len(errors), len(lengths)))
    for entry in coordinates.free:
        sides = []
        for size in (-STEP * lengths[entry], STEP * lengths[entry]):
            step = np.zeros(len(lengths))
            step[entry] = size
            there = _known_at(known, problem, problem.moved(point, step))
            sides.append(np.square(_errors(there, rows, noise_rows)))
        gradient[:, entry] = (sides[1] - sides[0]) / (2.0 * STEP * lengths[entry])
    spread = np.einsum("ra,ab,rb->r", gradient, covariance, gradient)
    with np.errstate(divide="ignore", invalid="ignore"):
        return errors, np.asarray(2.0 * errors**4 / spread)


def _errors(known: Known, rows: CodedRows, noise_rows: NoiseRows | None) -> FloatArray:
    if noise_rows is None:
        return predict_std(known.fit, rows, of_mean=True)
    return predict_std(known.fit, rows, condition=condition(known, noise_rows))


def _known_at(known: Known, problem: CorrelatedProblem, point: Point) -> Known:
    """What would be known with other variance parameters, as one model."""
    fit, whole = known.fit, known.whole
    sums, _ = problem.sums_at(point)
    own = make_problem(sums, fit.recipe)
    components, reference = (
        own.engine.components,
        reference_variance(fit.noise.binding.parts, point),
    )
    relative = problem.parameters.components.roots(point.theta)
    roots = [
        there.from_user @ here.to_user @ root / np.sqrt(reference)
        for there, here, root in zip(own.randoms, problem.randoms, relative, strict=True)
    ]
    theta = components.theta_of_roots(roots) if roots else np.empty(0)
    variance = np.exp(2.0 * point.log_scale) * reference * problem.fixed.scale**2
    fixed_effects = own.engine.evaluate(theta, 0).fixed
    moved = replace(
        fit,
        sums=sums,
        fixed_basis=own.fixed,
        random_bases=own.randoms,
        roots=tuple(components.roots(theta)[: len(roots)]),
        fixed_effects=replace(fixed_effects, noise_variance=variance / own.fixed.scale**2),
        noise=replace(fit.noise, point=point),
    )
    if known.observed_noise is None:
        return Known(moved)
    noise = replace(known.observed_noise, point=point)
    observed = sums_in_metric(noise, whole.observed)
    return Known(moved.observing(observed, whole.blups), observed_noise=noise)
