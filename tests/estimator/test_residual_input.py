"""Bad and odd input of residual structures: what is at fault is named, nothing is guessed."""

import datetime
import decimal
import warnings

import numpy as np
import pandas as pd
import pytest

from mixedlearn import lmer
from mixedlearn.residual import (
    AR1,
    Antedependence,
    CompoundSymmetry,
    ContinuousAR1,
    Power,
    Stratified,
    Toeplitz,
    Unstructured,
)

N_LEVELS, N_OCCASIONS = 12, 4


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    n = N_LEVELS * N_OCCASIONS
    level, occasion = np.divmod(np.arange(n), N_OCCASIONS)
    return pd.DataFrame(
        {
            "id": [f"p{own}" for own in level],
            "t": occasion,
            "visit": [f"v{own}" for own in occasion],
            "x": rng.standard_normal(n),
            "arm": np.where(level % 2, "b", "a"),
            "size": rng.uniform(0.5, 2.0, n),
            "y": rng.standard_normal(n) + np.repeat(rng.standard_normal(N_LEVELS), N_OCCASIONS),
        }
    )


def fit(data, residual, formula="y ~ x", groups="id", **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return lmer(formula, data, residual=residual, groups=groups, **parameters)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_powers_of_what_has_no_logarithm(data, value):
    bad = data.assign(size=data["size"].where(data.index != 3, value))
    message = f"Power needs numbers other than zero, but row 3 of 'size' has {value}"
    with pytest.raises(ValueError, match=message):
        fit(bad, Power(of="size"))
    model = fit(data, Power(of="size"))
    with pytest.raises(ValueError, match=message):
        model.predict(bad, return_std=True)


def test_times_of_new_rows_are_whole_numbers_too(data):
    model = fit(data, AR1(time="t"))
    with pytest.raises(ValueError, match=r"row 3 of 't' has .*2.5.*: use ContinuousAR1"):
        model.predict(data.assign(t=data["t"].where(data.index != 3, 2.5)))
