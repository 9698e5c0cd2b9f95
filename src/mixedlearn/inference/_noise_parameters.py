"""Parameters of a model with a residual structure, as functions of the coordinates of its search.

Every parameter has a *scale* without bounds on which the likelihood is nearly quadratic: the
logarithm of a standard deviation, variance or ratio of these, a logit between the ends of a
correlation (Pinheiro & Bates 2000, section 5.3), or itself. All of them are functions of few
entries of the covariance matrices of noise and random effects, or of one coordinate, and so are
their derivatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.components import theta_gradient, theta_hessian
from mixedlearn.covariance.jets import Jet
from mixedlearn.covariance.residual.base import Layout
from mixedlearn.covariance.residual.monomial import Monomial
from mixedlearn.engines.correlated.covariance import Point
from mixedlearn.engines.correlated.problem import CorrelatedProblem
from mixedlearn.inference._parameters import (
    Parameter,
    correlation_of,
    largest_pair,
    parameter_value,
    parameters,
)
from mixedlearn.inference._variance_parameters import FLAT_SHARE, inverse_information
from mixedlearn.model.correlated import FittedNoise
from mixedlearn.model.fitted import FittedModel, once_per_fit
from mixedlearn.model.residual_parameters import NoiseParameter

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scale:
    """The scale of a parameter between two bounds, without bounds itself.

    Attributes
    ----------
    lower, upper : float
    """

    lower: float
    upper: float

    def of(self, value: float) -> float:
        """A value on the scale."""
        if np.isinf(self.lower):
            return value
        with np.errstate(divide="ignore"):
            above = float(np.log(value - self.lower))
            return above if np.isinf(self.upper) else above - float(np.log(self.upper - value))

    def value(self, at: float) -> float:
        """The value at a place on the scale."""
        if np.isinf(self.lower):
            return at
        if np.isinf(self.upper):
            return self.lower + float(np.exp(at))
        return self.lower + (self.upper - self.lower) / (1.0 + float(np.exp(-at)))

    def slope(self, value: float) -> float:
        """The derivative of the value by its place on the scale."""
        if np.isinf(self.lower):
            return 1.0
        above = value - self.lower
        if np.isinf(self.upper):
            return above
        return above * (self.upper - value) / (self.upper - self.lower)

    def jet(self, value: Jet) -> Jet:
        """A value with its derivatives on the scale."""
        if np.isinf(self.lower):
            return value
        above = value.plus(-self.lower).log()
        if np.isinf(self.upper):
            return above
        return above + value.times(-1.0).plus(self.upper).log().times(-1.0)


POSITIVE = Scale(0.0, np.inf)
CORRELATION = Scale(-1.0, 1.0)
UNBOUNDED = Scale(-np.inf, np.inf)


class NoiseCoordinates:
    """The coordinates of the search at the fit, and what parameters are as functions of them.

    Attributes
    ----------
    problem : CorrelatedProblem
    point : Point
        The fit, in the charts of its random effects.
    free : ndarray of int
        The coordinates that are free there.
    """

    def __init__(self, model: FittedModel):
        noise: FittedNoise = model.noise
        self._model = model
        self._noise = noise
        self.problem: CorrelatedProblem = noise.problem
        self.point, self.free = self.problem.charted(noise.point)

    @cached_property
    def information(self) -> tuple[FloatArray, FloatArray]:
        """Covariance of the coordinates by the observed information, and flat directions."""
        n = self.problem.parameters.n_parameters
        hessian = self.problem.evaluate(self.point, 2).hessian[np.ix_(self.free, self.free)]
        lengths = self.problem.lengths(self.point)[self.free]
        own, own_flat = inverse_information(hessian, lengths)
        covariance, flat = np.zeros((n, n)), np.zeros((n, own_flat.shape[1]))
        covariance[np.ix_(self.free, self.free)] = own
        flat[self.free] = own_flat
        return covariance, flat

    def error(self, jet: Jet) -> float:
        """Standard error of a function of the coordinates; NaN where the likelihood is flat."""
        covariance, flat = self.information
        if (np.abs(jet.first @ flat) > FLAT_SHARE * np.abs(jet.first).max()).any():
            return np.nan
        return float(np.sqrt(jet.first @ covariance @ jet.first))

    def scale(self, parameter: Parameter) -> Scale:
        """The scale of a parameter that is no fixed effect."""
        if parameter.kind in ("sd", "noise"):
            return POSITIVE
        if parameter.kind == "correlation":
            return CORRELATION
        own = parameter.residual
        assert own is not None
        if own.kind in ("variance", "ratio"):
            return POSITIVE
        if own.kind == "power":
            return UNBOUNDED
        part = self.problem.parameters.parts[own.part]
        if isinstance(part, Monomial):
            ends = part.ranges[own.first - part.n_deviations]
            return Scale(ends.lower, ends.upper)
        return CORRELATION

    def on_scale(self, parameter: Parameter, point: Point) -> Jet:
        """A parameter that is no fixed effect on its scale, with its derivatives."""
        if parameter.kind == "sd":
            i = parameter.effect
            return self.effect_covariance(parameter.factor, i, i, point).log().times(0.5)
        if parameter.kind == "correlation":
            i, j = largest_pair(
                self._model.covariances[parameter.factor], correlation_of(parameter)
            )
            k, pairs = parameter.factor, ((i, j), (i, i), (j, j))
            entries = (self.effect_covariance(k, *pair, point) for pair in pairs)
            return CORRELATION.jet(_ratio(*entries))
        if parameter.kind == "noise":
            return self.noise_variance(point).log().times(0.5)
        assert parameter.residual is not None
        return self._residual(parameter, parameter.residual, point)

    def noise_variance(self, point: Point) -> Jet:
        """The variance of the noise of a row of reference."""
        parameters = self.problem.parameters
        if parameters.is_relative:
            return self._square_of_scale(point)
        return self._occasion_covariance(0, 0, 0, point)

    def effect_covariance(self, factor: int, first: int, second: int, point: Point) -> Jet:
        """A covariance of two random effects of a level, in the user's units."""
        parameters = self.problem.parameters
        components = parameters.components
        to_user = self.problem.randoms[factor].to_user
        both = np.outer(to_user[first], to_user[second])
        roots, directions = components.roots(point.theta), components.directions(point.theta)
        weights = [np.zeros((len(own), len(own))) for own in roots]
        weights[factor] = (both + both.T) / 2.0
        n, place = parameters.n_parameters, parameters.of_theta
        n_entries = sum(own.size for own in weights)
        gradient, hessian = np.zeros(n), np.zeros((n, n))
        gradient[place] = theta_gradient(directions, roots, weights)
        hessian[place, place] = theta_hessian(
            directions,
            roots,
            weights,
            np.zeros((n_entries, n_entries)),
            components.curvatures(point.theta),
        )
        root = roots[factor]
        value = float(to_user[first] @ root @ (to_user[second] @ root))
        return Jet(value, gradient, hessian) * self._square_of_scale(point)

    def _square_of_scale(self, point: Point) -> Jet:
        """What R and the D_k are multiplied with, in the user's units."""
        n = self.problem.parameters.n_parameters
        constant = 2.0 * float(np.log(self.problem.fixed.scale))
        if not self.problem.parameters.is_relative:
            return Jet(float(np.exp(constant)), np.zeros(n), np.zeros((n, n)))
        return Jet.coordinate(point.log_scale, 0, n).times(2.0).plus(constant).exp()

    def _occasion_covariance(self, part: int, first: int, second: int, point: Point) -> Jet:
        """A covariance of the noise at two occasions."""
        parameters = self.problem.parameters
        n, place = parameters.n_parameters, parameters.slices[part]
        own, at = parameters.parts[part], point.parts[part]
        t = len(at)
        layout = Layout(np.zeros((t, 0)), np.zeros((0, t, t)), np.arange(t))
        weights = np.zeros((t, t))
        weights[first, second] += 0.5
        weights[second, first] += 0.5
        gradient, hessian = np.zeros(n), np.zeros((n, n))
        gradient[place] = own.directions(at, layout)[:, first, second]
        hessian[place, place] = own.second(at, layout, weights)
        value = float(own.covariance(at, layout)[first, second])
        return Jet(value, gradient, hessian) * self._square_of_scale(point)

    def _residual(self, parameter: Parameter, own: NoiseParameter, point: Point) -> Jet:
        if own.kind in ("variance", "covariance"):
            i, j = own.first, own.second
            if own.kind == "variance":
                return self._occasion_covariance(own.part, i, i, point).log()
            pairs = ((i, j), (i, i), (j, j))
            entries = (self._occasion_covariance(own.part, *pair, point) for pair in pairs)
            return CORRELATION.jet(_ratio(*entries))
        parameters = self.problem.parameters
        place = parameters.slices[own.part].start + own.first
        value = float(point.parts[own.part][own.first])
        coordinate = Jet.coordinate(value, place, parameters.n_parameters)
        if own.kind == "power":
            return coordinate
        if own.kind == "ratio":
            return coordinate.times(2.0)
        part = parameters.parts[own.part]
        assert isinstance(part, Monomial)
        # Correlations by distance are functions of several coordinates.
        curves = part.curves(point.parts[own.part])
        values, first, second = (curve[own.first - part.n_deviations] for curve in curves)
        n, stop = parameters.n_parameters, parameters.slices[own.part].stop
        whole = slice(stop - len(first), stop)
        gradient, hessian = np.zeros(n), np.zeros((n, n))
        gradient[whole], hessian[whole, whole] = first, second
        rho = Jet(float(values), gradient, hessian)
        unit = self._noise.binding.unit
        in_units = rho if unit == 1.0 else rho.log().times(1.0 / unit).exp()
        return self.scale(parameter).jet(in_units)


def _ratio(both: Jet, first: Jet, second: Jet) -> Jet:
    """A correlation of a covariance and two variances."""
    return both * (first.log() + second.log()).times(-0.5).exp()


def noise_errors(model: FittedModel) -> list[FloatArray]:
    """Standard errors of every factor's covariance matrix, (q, q), and of the noise variance."""
    coordinates = noise_coordinates(model)
    found = []
    for k, covariance in enumerate(model.covariances):
        errors = np.empty(covariance.shape)
        for i, j in np.ndindex(covariance.shape):
            jet = coordinates.effect_covariance(k, i, j, coordinates.point)
            errors[i, j] = coordinates.error(jet)
        found.append(errors)
    return [*found, np.array(coordinates.error(coordinates.noise_variance(coordinates.point)))]


def residual_errors(model: FittedModel) -> FloatArray:
    """Standard errors of the parameters of the residual structure."""
    coordinates = noise_coordinates(model)
    return np.array(
        [
            coordinates.error(coordinates.on_scale(own, coordinates.point))
            * coordinates.scale(own).slope(parameter_value(model, own))
            for own in parameters(model)
            if own.kind == "residual"
        ]
    )


@once_per_fit
def noise_coordinates(model: FittedModel) -> NoiseCoordinates:
    """The coordinates of a model with a residual structure."""
    return NoiseCoordinates(model)
