"""Families of noise covariances: derivatives by differences, moves, starts."""

import numpy as np
import pytest

from mixedlearn.covariance.residual.base import Layout
from mixedlearn.covariance.residual.correlations import (
    ByAnyTime,
    ByDistance,
    ByStep,
    ByTime,
    Equal,
)
from mixedlearn.covariance.residual.monomial import Range
from mixedlearn.covariance.residual.unrestricted import Unrestricted

T, STEP = 4, 1e-4
KINDS = {
    "by time": ByTime(),
    "by any time": ByAnyTime(),
    "equal": Equal(),
    "by distance": ByDistance(),
    "by step": ByStep(),
}


def make_layout(kind, n, lead=()):
    rng = np.random.default_rng(0)
    occasions = np.broadcast_to(np.arange(T), (*lead, T))
    times = occasions.astype(float)
    exponents = kind.exponents(times, occasions, n)
    return Layout(rng.normal(size=(*lead, T, 2)), exponents, occasions)


def families():
    for name, kind in KINDS.items():
        ranges = kind.ranges(T, T)
        for lead in ((), (3,)):
            part = kind.family(2, ranges)
            point = np.random.default_rng(1).normal(0.0, 0.4, part.n_parameters)
            # A correlation of zero has powers without a slope.
            point[-1] = 0.0
            yield pytest.param(
                part, point, make_layout(kind, len(ranges), lead), id=f"{name} {lead}"
            )
    root = np.linalg.cholesky(np.cov(np.random.default_rng(2).normal(size=(T, 12))))
    for occasions in (np.arange(T), np.array([0, 2, 3])):
        size = len(occasions)
        layout = Layout(np.zeros((size, 0)), np.zeros((0, size, size)), occasions)
        yield pytest.param(Unrestricted(T), root, layout, id=f"unrestricted {size}")


@pytest.mark.parametrize(("part", "point", "layout"), list(families()))
def test_derivatives_are_those_by_differences(part, point, layout):
    units = STEP * np.eye(part.n_parameters)

    def covariance(step):
        return part.covariance(part.moved(point, step), layout)

    first = [(covariance(unit) - covariance(-unit)) / (2.0 * STEP) for unit in units]
    np.testing.assert_allclose(part.directions(point, layout), first, atol=1e-6)
    weights = np.random.default_rng(3).normal(size=covariance(units[0]).shape)
    weights = weights + weights.swapaxes(-1, -2)
    second = [
        [
            np.sum(
                weights
                * (
                    covariance(one + other)
                    - covariance(one - other)
                    - covariance(other - one)
                    + covariance(-one - other)
                )
            )
            / (4.0 * STEP**2)
            for one in units
        ]
        for other in units
    ]
    np.testing.assert_allclose(part.second(point, layout, weights), second, atol=2e-5)


@pytest.mark.parametrize("bounds", [Range(), Range(0.0, 1.0), Range(-0.25, 1.0)])
def test_coordinates_of_correlations_have_no_bounds(bounds):
    for rho in np.linspace(bounds.lower, bounds.upper, 9)[1:-1]:
        coordinate = bounds.coordinate(float(rho))
        np.testing.assert_allclose(bounds.value(np.float64(coordinate))[0], rho, atol=1e-12)
    ends = np.array([bounds.value(np.float64(x))[0] for x in (-30.0, 30.0)])
    assert (ends >= bounds.lower).all()
    assert (ends <= bounds.upper).all()


def test_an_unrestricted_covariance_starts_from_moments_that_are_none():
    moments = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    part = Unrestricted(3)
    layout = Layout(np.zeros((3, 0)), np.zeros((0, 3, 3)), np.arange(3))
    (start,) = part.starts(moments)
    covariance = part.covariance(start, layout)
    np.testing.assert_allclose(np.diag(covariance), 1.0)
    assert np.linalg.eigvalsh(covariance).min() > 0.0
