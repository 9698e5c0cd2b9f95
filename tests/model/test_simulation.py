"""Simulated responses and random effects have the moments of the model.

The bounds of moments are those of `assert_moments`: a false alarm in one of 10,000 seeds.
"""

import numpy as np
import pandas as pd
import pytest

from helpers.chance import assert_moments
from mixedlearn import MixedLinearRegressor
from mixedlearn.datasets import load_penicillin, load_sleepstudy
from mixedlearn.inference import random_effects_table

N_SAMPLES = 20_000


def sleepstudy():
    X, y = load_sleepstudy(return_X_y=True)
    return MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y), X, y


def test_new_levels_have_the_covariance_of_the_model():
    model, X, _ = sleepstudy()
    rows = X.iloc[[0, 4, 9, 10, 13]]
    weights = np.array([1.0, 2.0, 0.5, 4.0, 1.0])
    found = model.sample_y(rows, n_samples=N_SAMPLES, random_state=0, sample_weight=weights)
    assert found.shape == (5, N_SAMPLES)
    z = np.column_stack([np.ones(5), rows["Days"]])
    same = rows["Subject"].to_numpy()[:, None] == rows["Subject"].to_numpy()
    covariance = same * (z @ model.covariances_["Subject"].to_numpy() @ z.T)
    covariance += np.diag(model.noise_variance_ / weights)
    assert_moments(found, model.predict(rows, random_effects="none"), covariance)


def test_fitted_levels_keep_their_effects_and_unknown_ones_get_new_ones():
    model, X, _ = sleepstudy()
    rows = X.iloc[[0, 9, 10, 13, 20]].assign(Subject=[308, 308, "new", "new", "other"])
    found = model.sample_y(rows, n_samples=N_SAMPLES, random_state=1, random_effects="fitted")
    z = np.column_stack([np.ones(5), rows["Days"]])
    own = z @ model.covariances_["Subject"].to_numpy() @ z.T
    shared = np.zeros((5, 5))
    shared[2:4, 2:4] = 1.0
    shared[4, 4] = 1.0
    covariance = shared * own + model.noise_variance_ * np.eye(5)
    assert_moments(found, model.predict(rows), covariance)


def test_of_two_crossed_factors():
    X, y = load_penicillin(return_X_y=True)
    model = MixedLinearRegressor(groups=["plate", "sample"]).fit(X, y)
    rows = X.iloc[[0, 1, 6, 7, 20]]
    covariance = model.noise_variance_ * np.eye(5)
    for name, own in model.covariances_.items():
        labels = rows[name].to_numpy()
        covariance += own.to_numpy()[0, 0] * (labels[:, None] == labels)
    found = model.sample_y(rows, n_samples=N_SAMPLES, random_state=2)
    assert_moments(found, np.full(5, model.intercept_), covariance)


def test_labels_beside_the_rows():
    X, y = load_sleepstudy(return_X_y=True)
    model = MixedLinearRegressor().fit(X[["Days"]], y, groups=X["Subject"])
    rows = X[["Days"]].head(2)
    found = model.sample_y(rows, groups=[1, 1], n_samples=N_SAMPLES, random_state=3)
    variance = float(model.covariances_["Subject"].to_numpy()[0, 0])
    covariance = variance + model.noise_variance_ * np.eye(2)
    assert_moments(found, model.predict(rows, groups=[1, 1]), covariance)


def test_a_covariate_far_from_zero_costs_no_digits():
    X, y = load_sleepstudy(return_X_y=True)
    model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"])
    found = model.fit(X, y).sample_y(X, random_state=0)
    far = X.assign(Days=X["Days"] + 1e8)
    moved = model.fit(far, y).sample_y(far, random_state=0)
    np.testing.assert_allclose(moved, found, rtol=1e-4)


def test_random_states():
    model, X, _ = sleepstudy()
    first = model.sample_y(X, n_samples=2, random_state=5)
    np.testing.assert_array_equal(first, model.sample_y(X, n_samples=2, random_state=5))
    generator = np.random.default_rng(5)
    np.testing.assert_array_equal(first, model.sample_y(X, n_samples=2, random_state=generator))
    assert (first != model.sample_y(X, n_samples=2, random_state=generator)).all()
    old = [model.sample_y(X, random_state=np.random.RandomState(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(old[0], old[1])
    assert (old[0] != old[2]).all()
    assert (model.sample_y(X) != model.sample_y(X)).all()


def test_a_model_without_random_effects_needs_no_groups():
    X, y = load_sleepstudy(return_X_y=True)
    with pytest.warns(match="no groups"):
        model = MixedLinearRegressor().fit(X[["Days"]], y)
    found = model.sample_y(X[["Days"]].head(3), n_samples=N_SAMPLES, random_state=0)
    assert_moments(found, model.predict(X[["Days"]].head(3)), model.noise_variance_ * np.eye(3))
    assert model.sample_random_effects(10) == {}
    assert len(random_effects_table(model)) == 0


@pytest.mark.filterwarnings("ignore:The fixed effects reproduce")
def test_a_model_without_noise_repeats_itself():
    X, _ = load_sleepstudy(return_X_y=True)
    model = MixedLinearRegressor(groups="Subject").fit(X, 3.0 * X["Days"])
    found = model.sample_y(X, random_state=0)[:, 0]
    np.testing.assert_allclose(found, 3.0 * X["Days"], atol=1e-12)


def test_what_is_refused():
    model, X, y = sleepstudy()
    by_argument = MixedLinearRegressor().fit(X[["Days"]], y, groups=X["Subject"])
    with pytest.raises(ValueError, match="received no groups, but the model has random effects"):
        by_argument.sample_y(X[["Days"]])
    with pytest.raises(ValueError, match="'new' or 'fitted'"):
        model.sample_y(X, random_effects="old")
    for n_samples in (0, 1.5, True, "3"):
        with pytest.raises(ValueError, match="n_samples must be a positive integer"):
            model.sample_y(X, n_samples=n_samples)
        with pytest.raises(ValueError, match="n_samples must be a positive integer"):
            model.sample_random_effects(n_samples)
    with pytest.raises(ValueError, match="zero at row 1"):
        model.sample_y(X.head(2), sample_weight=[1.0, 0.0])
    with pytest.raises(ValueError, match="random_state must be"):
        model.sample_y(X, random_state="seed")
    with pytest.raises(ValueError, match="random_state must be"):
        model.sample_y(X, random_state=-1)


# --- random effects given the data ---------------------------------------------------------------
def test_sampled_random_effects_have_the_covariance_of_prediction_errors():
    """Henderson's mixed model equations, with the fixed effects among the unknowns."""
    model, X, _ = sleepstudy()
    found = model.sample_random_effects(N_SAMPLES, random_state=0)["Subject"]
    assert found.shape == (N_SAMPLES, 18, 2)
    codes = X["Subject"].map(pd.Series(range(18), model.random_effects_["Subject"].index))
    fixed = np.column_stack([np.ones(180), X["Days"]])
    wide = (np.eye(18)[codes][:, :, None] * fixed[:, None]).reshape(180, 36)
    both = np.column_stack([fixed, wide])
    equations = both.T @ both
    relative = model.covariances_["Subject"].to_numpy() / model.noise_variance_
    equations[2:, 2:] += np.kron(np.eye(18), np.linalg.inv(relative))
    covariance = model.noise_variance_ * np.linalg.inv(equations)[2:, 2:]
    means = model.random_effects_["Subject"].to_numpy().ravel()
    chosen = [0, 1, 14, 15]  # of the first level and the eighth, with the covariances between them
    assert_moments(
        found.reshape(N_SAMPLES, 36)[:, chosen].T,
        means[chosen],
        covariance[np.ix_(chosen, chosen)],
    )


def test_the_table_of_random_effects():
    X, y = load_penicillin(return_X_y=True)
    model = MixedLinearRegressor(groups=["plate", "sample"]).fit(X, y)
    table = random_effects_table(model, level=0.9)
    assert list(table.columns) == [
        "factor",
        "level",
        "effect",
        "estimate",
        "std_error",
        "lower",
        "upper",
    ]
    assert len(table) == 24 + 6
    own = table[table["factor"] == "sample"]
    assert list(own["level"]) == list("ABCDEF")
    assert set(own["effect"]) == {"intercept"}
    np.testing.assert_allclose(own["estimate"], model.random_effects_["sample"]["intercept"])
    sd = np.sqrt(model.random_effects_covariances_["sample"][:, 0, 0])
    np.testing.assert_allclose(own["std_error"], sd)
    np.testing.assert_allclose(own["upper"] - own["estimate"], 1.6448536269514722 * sd)
    np.testing.assert_allclose(own["estimate"] - own["lower"], 1.6448536269514722 * sd)


def test_the_table_goes_level_by_level():
    model, _, _ = sleepstudy()
    table = random_effects_table(model)
    assert list(table["level"].head(4)) == [308, 308, 309, 309]
    assert list(table["effect"].head(4)) == ["intercept", "Days", "intercept", "Days"]
    found = table.pivot_table(index="level", columns="effect", values="estimate")
    pd.testing.assert_series_equal(
        found["Days"], model.random_effects_["Subject"]["Days"], check_names=False
    )


@pytest.mark.parametrize("level", [0.0, 1.0, 95, "0.95"])
def test_a_level_that_is_no_probability_is_refused(level):
    model, _, _ = sleepstudy()
    with pytest.raises(ValueError, match="level must be"):
        random_effects_table(model, level=level)
