"""Many objectives at once take the steps of each: the quadratic model with and without an axis.

A stack and its rows go through the same arithmetic but for the order of sums, so they agree to
1e-12 of the numbers' sizes; eigenvectors agree but for their signs.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixedlearn.engines.protocol import Evaluation, FixedEffects
from mixedlearn.search.local_model import judge, local_model, trust_region_step
from mixedlearn.search.newton import Optimum
from mixedlearn.search.starts import better_of, from_its_end


def evaluation_of(objective, gradient, hessian, theta):
    fixed = FixedEffects(np.zeros(0), np.zeros((0, 0)), 1.0)
    return Evaluation(theta, objective, gradient, hessian, (), fixed, 1e-9 + 0.0 * objective)


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 5), size=st.integers(1, 5), seed=st.integers(0, 2**32 - 1))
def test_a_stack_takes_the_steps_of_its_rows(n, size, seed):
    rng = np.random.default_rng(seed)
    theta = 3.0 * rng.standard_normal((n, size))
    gradient = rng.standard_normal((n, size)) * 10.0 ** rng.uniform(-6, 1, (n, 1))
    root = rng.standard_normal((n, size, size))
    hessian = root + root.transpose(0, 2, 1)
    objective = rng.standard_normal(n)
    n_free = rng.integers(1, size + 1)
    free = np.array([rng.permutation(size)[:n_free] for _ in range(n)])
    radius = 10.0 ** rng.uniform(-2, 1, n)
    together = local_model(evaluation_of(objective, gradient, hessian, theta), free)
    steps = trust_region_step(together.slope, together.curvature, radius)
    ends, promised = together.moved(steps), together.promised_by(steps)
    gained = promised * rng.uniform(-1.0, 1.5, n)
    lengths = np.linalg.norm(steps, axis=1)
    accepted, next_radius = judge(gained, promised, together.rounding, lengths, radius)
    for i in range(n):
        alone = local_model(
            evaluation_of(float(objective[i]), gradient[i], hessian[i], theta[i]), free[i]
        )
        assert alone.promised_decrease == pytest.approx(together.promised_decrease[i], rel=1e-9)
        assert bool(alone.is_minimum(1e-8)) == together.is_minimum(1e-8)[i]
        step = trust_region_step(alone.slope, alone.curvature, radius[i])
        np.testing.assert_allclose(alone.moved(step), ends[i], rtol=1e-7, atol=1e-7)
        others = np.setdiff1d(np.arange(size), free[i])
        np.testing.assert_array_equal(ends[i, others], theta[i, others])
        assert alone.promised_by(step) == pytest.approx(promised[i], rel=1e-9)
        own = judge(gained[i], promised[i], alone.rounding, lengths[i], radius[i])
        assert own[0] == accepted[i]
        assert own[1] == pytest.approx(next_radius[i], rel=1e-12)


@settings(deadline=None, max_examples=60)
@given(slope=st.floats(-10.0, 10.0), curvature=st.floats(-10.0, 10.0))
def test_the_promise_is_the_most_that_a_step_of_natural_length_gains(slope, curvature):
    evaluation = evaluation_of(0.0, np.array([slope]), np.array([[curvature]]), np.array([0.5]))
    model = local_model(evaluation, np.array([0]))
    steps = np.linspace(-1.0, 1.0, 2001)
    most = (-slope * steps - curvature * steps**2 / 2.0).max()
    assert model.promised_decrease == pytest.approx(most, abs=1e-5)


def optimum(objective, certified):
    nothing = np.zeros(0)
    return Optimum(evaluation_of(objective, nothing, nothing, nothing), certified, 1)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((5.0, True), (4.0, False), 1),  # lower
        ((5.0, True), (5.0, True), 0),  # equal: the first
        ((5.0, False), (5.0, True), 1),  # equal: the one with a certificate
        ((5.0, False), (5.1, True), 0),
        ((5.0, True), (float("inf"), False), 0),
    ],
)
def test_the_better_of_two_ends(first, second, expected):
    ends = optimum(*first), optimum(*second)
    assert better_of(*ends) is ends[expected]


def test_an_end_without_a_certificate_is_one_more_start():
    lost, found, worse = optimum(5.0, False), optimum(4.0, True), optimum(6.0, True)
    assert from_its_end(lost, lambda theta: found) is found
    assert from_its_end(lost, lambda theta: worse) is lost
    assert from_its_end(found, lambda theta: worse) is found
