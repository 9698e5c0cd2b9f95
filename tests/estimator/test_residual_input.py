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


REDUNDANT = {
    "power of a constant": (Power(of="two"), "power of two cannot"),
    "one stratum": (Stratified(by="same"), r"Stratified\(by='same'\).* has only 'a': leave"),
    "strata twice": (
        AR1(time="t", variance=[Stratified(by="arm"), Stratified(by="arm")]),
        "variance ratio of arm 'b' cannot",
    ),
    "strata that are the occasions": (
        AR1(time="t", variance=[Stratified(by="visit"), "heterogeneous"]),
        "variance ratio of 1 cannot",
    ),
    "strata that are the parts": (
        AR1(time="t", by="arm", variance=Stratified(by="arm")),
        "variance ratio of arm 'b' of arm 'a' cannot",
    ),
    "the same power twice": (
        AR1(time="t", variance=[Power(of="size"), Power(of="size")]),
        "power of size cannot",
    ),
}


@pytest.mark.parametrize("name", REDUNDANT)
def test_variances_that_cannot_be_told_apart(data, name):
    residual, message = REDUNDANT[name]
    with pytest.raises(ValueError, match=message):
        fit(data.assign(two=2.0, same="a"), residual)


@pytest.mark.parametrize(
    ("residual", "message"),
    [
        (Toeplitz(time="t"), "correlation at distance 3 of 't' cannot be estimated"),
        (Antedependence(time="t"), None),
    ],
)
def test_distances_that_nobody_has(data, residual, message):
    is_odd = data["arm"] == "b"
    rows = data[np.where(is_odd, data["t"] < 3, data["t"] > 0)]
    if message is None:
        assert fit(rows, residual).converged_
    else:
        with pytest.raises(ValueError, match=message):
            fit(rows, residual)


def test_steps_between_occasions_that_nobody_takes(data):
    is_odd = data["arm"] == "b"
    rows = data[np.where(is_odd, data["t"] < 2, data["t"] > 1)]
    with pytest.raises(ValueError, match="correlation of 1 and 2 of 't' cannot be estimated"):
        fit(rows, Antedependence(time="t"))
