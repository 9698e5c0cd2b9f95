"""Families of noise covariances: derivatives by differences, moves, starts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixedlearn.covariance.residual.base import Layout
from mixedlearn.covariance.residual.correlations import (
    ByAnyTime,
    ByDistance,
    ByStep,
    ByTime,
    Equal,
)
from mixedlearn.covariance.residual.monomial import Range
from mixedlearn.covariance.residual.partial import PartialCorrelations
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


partials = st.lists(st.floats(-0.99, 0.99), min_size=1, max_size=6)


@given(partials)
def test_partial_correlations_make_covariances(values):
    n = len(values)
    part = PartialCorrelations(0, [Range()] * n)
    point = np.array([own.coordinate(x) for own, x in zip(part.ranges, values, strict=True)])
    occasions = np.arange(n + 1)
    exponents = ByDistance().exponents(occasions.astype(float), occasions, n)
    layout = Layout(np.zeros((n + 1, 0)), exponents, occasions)
    R = part.covariance(point, layout)
    assert np.linalg.eigvalsh(R)[0] > 0.0
    # |R| = prod (1 - pi_k^2)^(T - k)
    logs = (n - np.arange(n)) * np.log1p(-np.square(values))
    np.testing.assert_allclose(np.linalg.slogdet(R)[1], logs.sum(), rtol=1e-6, atol=1e-8)
    # A partial correlation is that of the ends, given what lies between them.
    precision = np.linalg.inv(R)
    partial = -precision[0, n] / np.sqrt(precision[0, 0] * precision[n, n])
    np.testing.assert_allclose(partial, values[-1], rtol=1e-5, atol=1e-7)


@given(st.lists(st.floats(-0.85, 0.85), min_size=1, max_size=4))
def test_a_search_starts_from_correlations_by_distance(values):
    n = len(values)
    part = PartialCorrelations(0, [Range()] * n)
    point = np.array([own.coordinate(x) for own, x in zip(part.ranges, values, strict=True)])
    rho = part.correlations(point)
    np.testing.assert_allclose(part.starts(rho)[0], point, rtol=1e-6, atol=1e-8)


def test_correlations_by_distance_that_are_none_are_drawn_in():
    """0.9, -0.9: rows at distance two cannot be so far apart."""
    part = PartialCorrelations(0, [Range()] * 2)
    for start in part.starts(np.array([0.9, -0.9])):
        partial = part.bounded(start)[0]
        assert (np.abs(partial) < 0.96).all()
    assert part.correlations(part.starts(np.array([0.9, -0.9]))[0])[0] == pytest.approx(0.9)
