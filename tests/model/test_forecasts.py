"""Forecasts of known levels: how often their intervals cover what is observed later."""

import numpy as np
import pandas as pd
import pytest

from helpers.chance import normal_bound
from mixedlearn import MixedLinearRegressor
from mixedlearn.residual import (
    AR1,
    Antedependence,
    CompoundSymmetry,
    ContinuousAR1,
    Stratified,
    Toeplitz,
    Unstructured,
)

N_LEVELS, N_TIMES, N_KNOWN = 600, 5, 3
N_SAMPLES = 75
TIMES = np.array([0.0, 1.0, 2.0, 3.0, 5.0])
QUANTILE = 1.959963984540054
GAPS = np.abs(TIMES[:, None] - TIMES)
SIZES = np.array([1.0, 1.5, 0.8, 1.2, 2.0])
UNEQUAL = SIZES[:, None] * SIZES
DISTANCE = np.abs(np.arange(N_TIMES)[:, None] - np.arange(N_TIMES))
STEPS = np.array([0.8, 0.3, -0.5, 0.7])
PRODUCTS = np.array(
    [[np.prod(STEPS[min(i, j) : max(i, j)]) for j in range(N_TIMES)] for i in range(N_TIMES)]
)
FREE = UNEQUAL * (PRODUCTS + 0.9**GAPS) / 2.0
# The structure, whether there is a random intercept beside it, and the true covariance of a level.
CASES = {
    "ar1": (AR1(time="t"), False, (-0.7) ** GAPS),
    "continuous": (ContinuousAR1(time="t"), False, 0.7**GAPS),
    "beside an intercept": (AR1(time="t"), True, 0.5**GAPS + 1.0),
    "heterogeneous": (AR1(time="t", variance="heterogeneous"), False, UNEQUAL * 0.7**GAPS),
    "symmetry": (CompoundSymmetry(), False, np.where(DISTANCE == 0, 1.0, 0.6)),
    "toeplitz": (Toeplitz(time="t"), False, np.array([1.0, 0.6, 0.5, 0.2, 0.1])[DISTANCE]),
    "antedependence": (Antedependence(time="t"), False, PRODUCTS),
    "unstructured": (Unstructured(time="t"), False, FREE),
    "strata": (AR1(time="t", variance=Stratified(by="arm")), False, 0.7**GAPS),
}


def covered(name, rng):
    """The share of later rows whose intervals cover them."""
    residual, has_intercept, covariance = CASES[name]
    root = np.linalg.cholesky(covariance)
    noise = rng.standard_normal((N_LEVELS, N_TIMES)) @ root.T
    level, place = np.divmod(np.arange(N_LEVELS * N_TIMES), N_TIMES)
    arm = level % 4 < 2
    scale = np.where(arm & (name == "strata"), 2.0, 1.0)
    X = pd.DataFrame({"x": rng.standard_normal(len(level)), "t": TIMES[place], "arm": arm})
    y = 1.0 + 0.5 * X["x"] + 0.3 * X["t"] + scale * noise[level, place]
    # Every other level is followed to the end.
    known = (place < N_KNOWN) | (level % 2 == 0)
    model = MixedLinearRegressor(
        fixed_effects=["x", "t"], random_intercept=has_intercept, residual=residual
    ).fit(X[known], y[known], groups=level[known])
    mean, std = model.predict(X[~known], groups=level[~known], return_std=True)
    return np.mean(np.abs(y[~known] - mean) < QUANTILE * std)


@pytest.mark.parametrize(
    "name", [pytest.param(own, marks=() if own == "ar1" else pytest.mark.slow) for own in CASES]
)
def test_intervals_of_forecasts_cover_later_observations(name):
    rng = np.random.default_rng(20260302)
    shares = np.array([covered(name, rng) for _ in range(N_SAMPLES)])
    # Were the coverage 95 % but for a fifth of a percent, which the estimated covariance takes
    # away, the mean over all samples would be outside in less than one of 10,000 cases.
    error = shares.std(ddof=1) / np.sqrt(N_SAMPLES)
    assert 0.002 + normal_bound() * error < 0.01
    assert 0.94 < shares.mean() < 0.96
