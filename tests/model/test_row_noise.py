"""The noise covariance of rows, whatever their order, gaps and weights, against dense R."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixedlearn import lmer
from mixedlearn.inference import influence, residuals, robust_covariance
from mixedlearn.model.row_noise import row_noise
from reference.noise_models import MODELS, fit, noise_covariance


@cache
def fitted(name):
    return fit(name)


def noise_of(name, places, weights):
    """R of some rows of a fit, and the same densely, of the rows of positive weight."""
    found = fitted(name)
    frame = found.frame.iloc[places]
    view = found.model.__mixedlearn_fitted__()
    model = view.model_of_fit
    rows = view.rows(frame, None, found.y.iloc[places], weights).coded(model.sums.levels)
    noise = row_noise(model, rows, view.noise_rows(frame, None, weights > 0.0))
    return noise, noise_covariance(name, found.model, frame) / found.model.noise_variance_


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_rows(name, data):
    n = len(fitted(name).y)
    places = data.draw(
        st.lists(st.integers(0, n - 1), min_size=1, max_size=40, unique=True).map(np.array)
    )
    weights = np.array(
        data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=40, max_size=40))
    )[: len(places)]
    weights[0] = 1.0
    noise, dense = noise_of(name, places, weights)
    here = weights > 0.0
    R = np.eye(len(places))
    R[np.ix_(here, here)] = dense[np.ix_(here, here)]
    np.testing.assert_allclose(noise.variances, np.diag(R), rtol=1e-10)
    np.testing.assert_allclose(noise.precisions, np.diag(np.linalg.inv(R)), rtol=1e-8)
    values = np.random.default_rng(0).standard_normal((len(places), 2))
    solved = np.linalg.solve(R, values)
    np.testing.assert_allclose(noise.solved(values), solved, rtol=1e-7, atol=1e-9)
    whitened = noise.whitened(values)
    np.testing.assert_allclose(whitened.T @ whitened, values.T @ solved, rtol=1e-8, atol=1e-9)
    np.testing.assert_array_equal(whitened[~here], values[~here])
    part = noise.of_present()
    own = part.covariance(np.arange(here.sum())[None])[0]
    np.testing.assert_allclose(own, R[np.ix_(here, here)], rtol=1e-9, atol=1e-12)
    assert (part.series >= 0).all()
    assert (noise.series[~here] == -1).all()


def test_sets_of_rows_hold_their_levels():
    found = fitted("ovary_gls")
    noise, R = noise_of("ovary_gls", np.arange(len(found.y)), np.ones(len(found.y)))
    mares = found.frame["Mare"].to_numpy()
    # Two sets of two levels each and of as many rows, the one backwards.
    first, second, third, fourth = (np.flatnonzero(mares == mare) for mare in (1, 2, 4, 7))
    places = np.stack([np.append(first, second)[::-1], np.append(third, fourth)])
    for own, block in zip(places, noise.covariance(places), strict=True):
        np.testing.assert_allclose(block, R[np.ix_(own, own)], rtol=1e-10)


def test_normalized_rows_follow_their_times():
    """The first row of a level in time is itself, whatever its place."""
    found = fitted("ovary_gls")
    backwards = np.arange(len(found.y))[::-1]
    noise, _ = noise_of("ovary_gls", backwards, np.ones(len(backwards)))
    values = np.random.default_rng(0).standard_normal((len(backwards), 1))
    first = found.frame.iloc[backwards]["Day"].to_numpy() == 1
    np.testing.assert_allclose(noise.whitened(values)[first], values[first], rtol=1e-12)
    assert not np.allclose(noise.whitened(values)[~first], values[~first])


def test_a_long_series_needs_no_dense_covariance():
    """50,000 rows of one level: each is whitened by the one before."""
    n, rng = 50_000, np.random.default_rng(0)
    noise = rng.standard_normal(n)
    for t in range(1, n):
        noise[t] = 0.8 * noise[t - 1] + 0.6 * noise[t]
    frame = pd.DataFrame({"t": np.arange(n), "g": 0, "y": noise})
    model = lmer("y ~ 1", frame, groups="g", residual="ar1", time="t")
    rho = model.residual_parameters_["correlation"]
    conditional = residuals(model, frame, frame["y"]).to_numpy()
    expected = conditional.copy()
    expected[1:] = (conditional[1:] - rho * conditional[:-1]) / np.sqrt(1.0 - rho**2)
    expected /= np.sqrt(model.noise_variance_)
    own = residuals(model, frame, frame["y"], kind="normalized")
    np.testing.assert_allclose(own, expected, rtol=1e-7, atol=1e-10)
    result = influence(model, frame, frame["y"])
    assert result.leverage.sum() == pytest.approx(1.0)


def test_clusters_that_do_not_fit_into_memory_are_refused(monkeypatch):
    monkeypatch.setattr("mixedlearn.engines.plan._memory", lambda: 1_000_000)
    monkeypatch.setattr("mixedlearn.engines.plan.MUCH_MEMORY", 1_000)
    frame = pd.DataFrame({"t": np.tile(np.arange(200), 3), "g": np.repeat([0, 1, 2], 200)})
    frame["y"] = np.sin(frame["t"] + frame["g"])
    model = lmer("y ~ 1", frame, groups="g", residual="ar1", time="t")
    with pytest.raises(MemoryError, match="of up to 200 rows"):
        robust_covariance(model, frame, frame["y"])
