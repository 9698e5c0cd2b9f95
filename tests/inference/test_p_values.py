"""P-values of tests of a variance under a simulated null: which are uniform, and which are not.

Tests of fixed effects are in `test_degrees_of_freedom`. The groups are balanced and the covariate
is the same in each, so every statistic is a function of one F ratio, and how often a p-value is
below a level is known. Every test counts that in simulated data, with a false alarm in at most one
of 10,000 seeds.
"""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.stats import chi2, f

from helpers.chance import within_binomial
from mixedlearn import MixedLinearRegressor
from mixedlearn.exceptions import NoGroupsWarning
from mixedlearn.inference import exact_restricted_lrt, likelihood_ratio_test

pytestmark = pytest.mark.slow

N_DATA_SETS = 400
LEVELS = np.array([0.05, 0.1, 0.2])
M, SIZE = 8, 10  # groups, and rows of each
N = M * SIZE
DF = M - 1, N - M - 1  # of the F ratio


@pytest.fixture(scope="module")
def p_values():
    """P-values of the three tests for data without a variance between the groups."""
    rng = np.random.default_rng(5)
    x = np.tile(rng.standard_normal(SIZE), M)
    X = pd.DataFrame({"x": x, "g": np.repeat(np.arange(M), SIZE)})
    found = []
    for _ in range(N_DATA_SETS):
        y = rng.standard_normal(N)
        larger = MixedLinearRegressor(groups="g").fit(X, y)
        with pytest.warns(NoGroupsWarning):
            smaller = MixedLinearRegressor().fit(X[["x"]], y)
        test = likelihood_ratio_test(smaller, larger)
        # Of 399 draws: a p-value of at most 5% has a probability of 5% exactly.
        exact = exact_restricted_lrt(larger, n_resamples=399, random_state=rng)
        found.append((test.p_value, test.p_value_mixture, exact.p_value))
    return np.array(found).T


def exceeds(quantile):
    """The probability that the statistic by ML exceeds a positive number under the null."""

    def statistic(ratio):  # of the two variances by ML, above one
        return N * np.log((M * ratio + N - M) / N) - M * np.log(ratio)

    ratio = brentq(lambda own: statistic(own) - quantile, 1.0, 1e3)
    return f.sf(ratio * M / DF[0] * DF[1] / (N - M), *DF)


def counts(values):
    return (values[:, None] <= LEVELS).sum(axis=0)


def test_the_chi_squared_distribution_is_conservative_for_a_variance(p_values):
    """More than half of its mass is at zero: large statistics are rarer than half as frequent."""
    plain, _, _ = p_values
    expected = np.array([exceeds(chi2.isf(level, 1)) for level in LEVELS])
    assert (expected < LEVELS / 2.0).all()
    assert within_binomial(counts(plain), N_DATA_SETS, expected, rate=5e-5)
    at_zero = 1.0 - exceeds(0.0)
    assert at_zero > 0.5
    assert within_binomial((plain == 1.0).sum(), N_DATA_SETS, at_zero, rate=5e-5)


def test_the_mixture_is_less_so(p_values):
    plain, mixture, _ = p_values
    assert (mixture <= plain).all()
    expected = np.array([exceeds(chi2.isf(2.0 * level, 1)) for level in LEVELS])
    assert (expected < LEVELS).all()
    assert within_binomial(counts(mixture), N_DATA_SETS, expected)


def test_the_exact_test_is_uniform_below_its_atom(p_values):
    _, _, exact = p_values
    assert within_binomial(counts(exact), N_DATA_SETS, LEVELS)
