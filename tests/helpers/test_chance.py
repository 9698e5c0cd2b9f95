"""The bounds of chance: they hold what they promise, and they catch a fault."""

import numpy as np
import pytest
from scipy.stats import binom, chi2, norm, t

from helpers.chance import (
    assert_moments,
    normal_bound,
    same_share,
    student_bound,
    within_binomial,
    within_chi_squared,
)


def test_the_bound_of_normal_numbers():
    assert 2 * norm.sf(normal_bound()) == pytest.approx(1e-4)
    assert 30 * 2 * norm.sf(normal_bound(30, rate=0.01)) == pytest.approx(0.01)
    assert 5 * 2 * t.sf(student_bound(7, 5), 7) == pytest.approx(1e-4)


@pytest.mark.parametrize("p", [0.0, 0.003, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("rate", [1e-4, 0.05])
def test_counts_within_their_bounds_have_all_but_the_rate_of_the_probability(p, rate):
    counts = np.arange(401)
    refused = np.array([not within_binomial(count, 400, p, rate) for count in counts])
    probability = binom.pmf(counts, 400, p)
    assert probability[refused].sum() <= rate
    # One count more on either side would be too many.
    last = np.flatnonzero(~refused)[[0, -1]]
    for side in (counts <= last[0], counts >= last[1]):
        assert probability[side].sum() >= rate / 2


def test_several_counts_share_the_rate():
    assert not within_binomial(8, 400, 0.05, rate=0.01)
    assert within_binomial([8] * 100, 400, 0.05, rate=0.01)


def test_shares_of_two_samples():
    assert same_share(50, 1000, 60, 1000)
    assert same_share(0, 1000, 0, 1000)
    assert not same_share(50, 1000, 110, 1000)


def test_variances_of_normal_samples():
    low, high = chi2.ppf([0.005, 0.995], 50) / 50
    assert within_chi_squared(low + 1e-9, 50, rate=0.01)
    assert within_chi_squared(high - 1e-9, 50, rate=0.01)
    assert not within_chi_squared(low - 1e-9, 50, rate=0.01)
    assert not within_chi_squared([1.0, high * 1.1], 50, rate=0.01)


def test_moments():
    rng = np.random.default_rng(0)
    covariance = np.array([[4.0, 1.0, 0.0], [1.0, 1.0, 0.2], [0.0, 0.2, 0.5]])
    mean = np.array([1.0, -2.0, 0.0])
    sampled = rng.multivariate_normal(mean, covariance, 20_000).T
    assert_moments(sampled, mean, covariance)
    other = covariance.copy()
    other[0, 2] = other[2, 0] = 0.15
    shifted = mean + np.array([0.0, 0.0, 0.05])
    for wrong in [(shifted, covariance), (mean, 1.1 * covariance), (mean, other)]:
        with pytest.raises(AssertionError):
            assert_moments(sampled, *wrong)
