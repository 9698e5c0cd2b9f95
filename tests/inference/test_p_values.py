"""P-values of tests of a variance under a simulated null: which are uniform, and which are not.

Tests of fixed effects are in `test_degrees_of_freedom`. Of N data sets the share of p-values below
a level a has the standard deviation sqrt(a (1 - a) / N); four of them are beyond chance.
"""

import numpy as np
import pandas as pd
import pytest

from mixedlearn import MixedLinearRegressor
from mixedlearn.exceptions import NoGroupsWarning
from mixedlearn.inference import exact_restricted_lrt, likelihood_ratio_test

N_DATA_SETS = 400
LEVELS = np.array([0.05, 0.1, 0.2])


@pytest.fixture(scope="module")
def p_values():
    """P-values of the three tests for data without a variance between 8 groups."""
    rng = np.random.default_rng(5)
    X = pd.DataFrame({"x": rng.standard_normal(80), "g": np.repeat(np.arange(8), 10)})
    found = []
    for _ in range(N_DATA_SETS):
        y = rng.standard_normal(80)
        larger = MixedLinearRegressor(groups="g").fit(X, y)
        with pytest.warns(NoGroupsWarning):
            smaller = MixedLinearRegressor().fit(X[["x"]], y)
        test = likelihood_ratio_test(smaller, larger)
        exact = exact_restricted_lrt(larger, n_resamples=400, random_state=rng)
        found.append((test.p_value, test.p_value_mixture, exact.p_value))
    return np.array(found).T


def shares(values):
    return (values[:, None] < LEVELS).mean(axis=0)


def test_the_chi_squared_distribution_is_conservative_for_a_variance(p_values):
    """Half of its mass is at zero: the statistic exceeds a quantile half as often as it should."""
    plain, _, _ = p_values
    margin = 4.0 * np.sqrt(LEVELS * (1.0 - LEVELS) / N_DATA_SETS)
    assert (shares(plain) < LEVELS - 0.3 * LEVELS).all()
    assert (shares(plain) < LEVELS / 2.0 + margin).all()
    assert (plain == 1.0).mean() > 0.5


def test_the_mixture_is_less_so(p_values):
    plain, mixture, _ = p_values
    assert (mixture <= plain).all()
    assert (shares(mixture) > shares(plain)).all()
    assert (shares(mixture) < LEVELS + 4.0 * np.sqrt(LEVELS * (1.0 - LEVELS) / N_DATA_SETS)).all()


def test_the_exact_test_is_uniform_below_its_atom(p_values):
    _, _, exact = p_values
    margin = 4.0 * np.sqrt(LEVELS * (1.0 - LEVELS) / N_DATA_SETS)
    assert (np.abs(shares(exact) - LEVELS) < margin).all()
