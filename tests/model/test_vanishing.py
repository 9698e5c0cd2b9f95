"""Rows that are lost beside others, and noise that the data cannot tell from zero."""

import numpy as np
import pytest

from mixedlearn import MixedLinearRegressor
from mixedlearn.exceptions import DegenerateModelWarning

RNG = np.random.default_rng(0)
N = 40
GROUPS = np.repeat(np.arange(8), 5)
X = RNG.normal(size=(N, 1))
Y = X[:, 0] + RNG.normal(size=8)[GROUPS] + RNG.normal(size=N)


def fitted(weights, **parameters):
    model = MixedLinearRegressor(**parameters)
    return model.fit(X, Y, groups=GROUPS, sample_weight=weights)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("ratio", [1e14, 1e16, 1e20])
@pytest.mark.parametrize("n_heavy", [1, 3])
def test_weights_that_differ_by_too_much_leave_no_certain_digit(n_heavy, ratio, reml):
    weights = np.where(np.arange(N) < n_heavy, ratio, 1.0)
    with pytest.warns(DegenerateModelWarning) as caught:
        model = fitted(weights, reml=reml)
    messages = [str(warning.message) for warning in caught]
    assert any(f"differ by a factor of {ratio:.0e}" in message for message in messages)
    assert not any("exactly" in message for message in messages)
    assert not model.converged_


@pytest.mark.parametrize("reml", [True, False])
def test_weights_that_differ_by_much_keep_their_digits(reml):
    # A heavy row of its own group fixes one value of that group: what it weighs is all the same.
    heavy = np.where(np.arange(N) == 3, 1e9, 1.0)
    heavier = np.where(np.arange(N) == 3, 1e12, 1.0)
    first, second = fitted(heavy, reml=reml), fitted(heavier, reml=reml)
    assert second.converged_
    np.testing.assert_allclose(second.noise_variance_, first.noise_variance_, rtol=1e-7)
    np.testing.assert_allclose(second.covariances_["group"], first.covariances_["group"], rtol=1e-6)


@pytest.mark.parametrize("what", ["a row a level", "as many effects as rows"])
def test_noise_that_a_smaller_one_would_do_for(what):
    rng = np.random.default_rng(1 if what == "a row a level" else 0)
    n_levels = 10
    groups = np.repeat(np.arange(n_levels), 3)
    x = rng.normal(size=30)
    y = rng.normal(size=n_levels)[groups] + rng.normal(size=30)
    weights = np.exp(rng.normal(size=30))
    if what == "a row a level":
        model, columns, labels = MixedLinearRegressor(), x[:, None], np.arange(30)
    else:
        columns = np.column_stack([np.tile([0.0, 1, 0], n_levels), np.tile([0.0, 0, 1], n_levels)])
        model, labels = MixedLinearRegressor(random_slopes=[0, 1]), groups
    with pytest.warns(DegenerateModelWarning, match="noise variance cannot be told from zero"):
        model.fit(columns, y, groups=labels, sample_weight=weights)
    assert model.noise_variance_ < 1e-5


def test_small_noise_of_repeated_rows_is_noise():
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(20), 4)
    y = rng.normal(size=20)[groups] + 1e-6 * rng.normal(size=80)
    model = MixedLinearRegressor().fit(rng.normal(size=(80, 1)), y, groups=groups)
    assert 0.5e-12 < model.noise_variance_ < 2e-12
