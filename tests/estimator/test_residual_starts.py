"""Fits that start on the wrong side of a correlation, or far from the optimum."""

import numpy as np
import pandas as pd
import pytest

from mixedlearn import lmer
from mixedlearn.residual import AR1


@pytest.mark.parametrize("seed", [24, 89])
def test_a_correlation_at_odd_distances_crosses_zero(seed):
    rng = np.random.default_rng(seed)
    n_levels, n_times = int(rng.integers(8, 16)), int(rng.integers(3, 6))
    n = n_levels * n_times
    data = pd.DataFrame({"g": np.arange(n) // n_times, "t": np.arange(n) % n_times})
    data["y"] = rng.standard_normal(n) + 0.5 * rng.standard_normal(n_levels)[data["g"]]
    data["x"] = rng.standard_normal(n)
    data = data.sample(frac=0.8, random_state=seed)
    model, other = (
        lmer("y ~ x", data.assign(t=unit * data["t"]), groups="g", residual=AR1(time="t"))
        for unit in (1, 3)
    )
    assert other.log_likelihood_ == pytest.approx(model.log_likelihood_, abs=1e-7)
    correlation = model.residual_parameters_["correlation"]
    assert other.residual_parameters_["correlation"] ** 3 == pytest.approx(correlation, abs=1e-5)
