"""Noise that rows do not tell from what else is in the model is refused, wherever it looks good."""

import numpy as np
import pandas as pd
import pytest

from mixedlearn import lmer
from mixedlearn.residual import AR1, Antedependence, CompoundSymmetry, ContinuousAR1


def make_data(n_times: int) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"g": np.arange(24 * n_times) // n_times, "x": 0.0})
    data["t"] = np.arange(len(data)) % n_times
    data["x"] = rng.standard_normal(len(data))
    data["y"] = data["x"] + rng.standard_normal((24, n_times)).cumsum(axis=1).ravel()
    data["arm"] = np.where(data["g"] == 0, "alone", "rest")
    return data


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    "residual",
    [
        AR1(time="t"),
        ContinuousAR1(time="t"),
        Antedependence(time="t"),
        AR1(time="t", variance="heterogeneous"),
    ],
)
def test_one_covariance_is_not_two_parameters(residual, reml):
    # Two rows of a level have one covariance, for the correlation and the random intercept.
    with pytest.raises(ValueError, match="is not identified by these rows: other values of it"):
        lmer("y ~ x + (1 | g)", make_data(2), residual=residual, reml=reml)


def test_effects_of_every_level_take_the_correlation():
    with pytest.raises(ValueError, match="The correlation is not identified by these rows"):
        lmer("y ~ x + C(g)", make_data(4), groups="g", residual=CompoundSymmetry())


def test_one_level_of_a_value_of_by():
    residual = CompoundSymmetry(by="arm")
    with pytest.raises(
        ValueError, match="The correlation of arm 'alone' is not identified by these rows"
    ):
        lmer("y ~ x + arm", make_data(4), groups="g", residual=residual)


def test_what_rows_tell_a_little_is_fitted():
    data = make_data(3)
    data = data[(data["g"] < 4) | (data["t"] < 2)]
    model = lmer("y ~ x + (1 | g)", data, residual=AR1(time="t"))
    assert model.converged_
