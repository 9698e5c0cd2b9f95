"""Covariances of very many parameters: counted by `describe`, refused by `fit`."""

import numpy as np
import pandas as pd
import pytest

from mixedlearn import MixedLinearRegressor, lmer

RNG = np.random.default_rng(7)
N = 2000
FRAME = pd.DataFrame(
    {"A": RNG.integers(0, 300, N).astype(str), "B": RNG.integers(0, 50, N), "x": RNG.normal(size=N)}
)
FRAME["y"] = FRAME["x"] + RNG.normal(size=N)
N_PARAMETERS = 300 * 301 // 2


def test_describe_counts_parameters():
    description = MixedLinearRegressor(formula="x + (A | B)").describe(FRAME)
    assert description.n_parameters == N_PARAMETERS
    assert f"covariances: {N_PARAMETERS:,} parameters" in str(description)
    the_right_way = MixedLinearRegressor(formula="x + (1 | A)").describe(FRAME)
    assert the_right_way.n_parameters == 1
    assert "parameters" not in str(the_right_way)


@pytest.mark.parametrize("formula", ["y ~ x + (A | B)", "y ~ x + (1 | A) + (0 + A || B)"])
def test_fit_refuses_before_any_work(formula):
    message = r"'B' has 300 random effects.*45,150 parameters.*GB.*\(1 \| column\)"
    with pytest.raises(MemoryError, match=message):
        lmer(formula, FRAME)


def test_structures_of_few_parameters_take_little():
    columns = RNG.normal(size=(N, 300))
    slopes = MixedLinearRegressor(random_slopes=list(range(300)), covariance="scalar")
    description = slopes.describe(columns, groups=FRAME["B"])
    assert description.n_parameters == 1
    assert description.search_gigabytes < 1e-6
