"""Intervals of predictions: closed forms of balanced data, coverage, and what `predict` says."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.datasets import load_dyestuff, load_sleepstudy
from mixedlearn.inference import contrast_test, prediction_intervals

STUDY = load_sleepstudy().frame
SLOPES = lmer("Reaction ~ Days + (1 + Days | Subject)", STUDY)


def balanced():
    """Dyestuff: a batches of n rows, and the mean squares between and within them."""
    X, y = load_dyestuff(return_X_y=True)
    by_batch = y.groupby(X["Batch"].to_numpy())
    a, n = by_batch.ngroups, int(by_batch.size().iloc[0])
    between = n * by_batch.mean().var()
    within = (y - by_batch.transform("mean")).pow(2).sum() / (a * (n - 1))
    model = MixedLinearRegressor(groups="Batch").fit(X, y)
    return model, X, a, n, between, within


def test_a_new_observation_of_a_new_level():
    """Satterthwaite (1946): a sum of multiples of independent mean squares."""
    model, X, a, n, between, within = balanced()
    row = prediction_intervals(model, X.head(1), random_effects="none").iloc[0]
    parts = np.array([(1 + 1 / a) / n * between, (1 - 1 / n) * within])
    variance = parts.sum()
    df = variance**2 / (parts**2 / [a - 1, a * (n - 1)]).sum()
    np.testing.assert_allclose(row["std_error"], np.sqrt(variance), rtol=1e-6)
    np.testing.assert_allclose(row["df"], df, rtol=1e-5)
    margin = t.ppf(0.975, df) * np.sqrt(variance)
    np.testing.assert_allclose(row["upper"] - row["prediction"], margin, rtol=1e-5)
    np.testing.assert_allclose(row["prediction"] - row["lower"], margin, rtol=1e-5)


def test_the_mean_of_the_population_has_the_degrees_of_freedom_of_the_levels():
    model, X, a, n, between, _ = balanced()
    row = prediction_intervals(model, X.head(1), kind="mean", random_effects="none").iloc[0]
    np.testing.assert_allclose(row["std_error"], np.sqrt(between / (a * n)), rtol=1e-6)
    np.testing.assert_allclose(row["df"], a - 1, rtol=1e-5)


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger", "residual", "normal"])
def test_means_of_the_population_are_contrasts_of_coefficients(ddf):
    rows = pd.DataFrame({"Days": [0.0, 4.5, 12.0]}, index=["a", "b", "c"])
    table = prediction_intervals(SLOPES, rows, kind="mean", random_effects="none", ddf=ddf)
    contrasts = np.column_stack([np.ones(3), rows["Days"]])
    expected = contrast_test(SLOPES, contrasts, ddf=ddf).rows
    assert list(table.index) == ["a", "b", "c"]
    np.testing.assert_allclose(table["prediction"], expected["estimate"])
    for name in ("std_error", "df", "lower", "upper"):
        np.testing.assert_allclose(table[name], expected[name], rtol=1e-10)


@pytest.mark.parametrize("effects", ["all", "none"])
def test_standard_errors_are_those_of_predict(effects):
    rows = STUDY.head(4).assign(Subject=[308, 309, 999, None])
    mean, std = SLOPES.predict(rows, random_effects=effects, return_std=True)
    table = prediction_intervals(SLOPES, rows, random_effects=effects)
    np.testing.assert_allclose(table["prediction"], mean)
    np.testing.assert_allclose(table["std_error"], std)
    assert (table["df"] > 15).all()
    assert (table["df"] < len(STUDY)).all()


def test_a_mean_is_less_uncertain_than_an_observation():
    table = prediction_intervals(SLOPES, STUDY.head(5), kind="mean")
    observation = prediction_intervals(SLOPES, STUDY.head(5))
    np.testing.assert_allclose(
        observation["std_error"] ** 2 - table["std_error"] ** 2, SLOPES.noise_variance_
    )
    np.testing.assert_array_equal(observation["prediction"], table["prediction"])


def test_rows_that_came_later_count():
    known = STUDY[STUDY["Subject"] != 372]
    model = lmer("Reaction ~ Days + (1 + Days | Subject)", known)
    new = STUDY[STUDY["Subject"] == 372]
    before = prediction_intervals(model, new.tail(1))
    model.update_random_effects(new.head(8), new["Reaction"].head(8))
    after = prediction_intervals(model, new.tail(1))
    mean, std = model.predict(new.tail(1), return_std=True)
    np.testing.assert_allclose(after[["prediction", "std_error"]], [[mean[0], std[0]]])
    assert after["std_error"].iloc[0] < 0.9 * before["std_error"].iloc[0]


def test_several_factors_and_labels_beside_x():
    rng = np.random.default_rng(0)
    n = 120
    groups = pd.DataFrame({"g": np.arange(n) % 10, "h": rng.integers(0, 6, n)})
    X = rng.normal(size=(n, 1))
    y = X[:, 0] + rng.normal(size=10)[groups["g"]] + rng.normal(size=6)[groups["h"]]
    model = MixedLinearRegressor().fit(X, y + rng.normal(size=n), groups=groups)
    table = prediction_intervals(model, X[:3], groups=groups.head(3))
    _, std = model.predict(X[:3], groups=groups.head(3), return_std=True)
    np.testing.assert_allclose(table["std_error"], std)
    assert (table["df"] > 40).all()


@pytest.mark.filterwarnings("ignore::mixedlearn.exceptions.NoGroupsWarning")
def test_without_random_effects_the_residual_degrees_of_freedom():
    X, y = STUDY[["Days"]], STUDY["Reaction"]
    model = MixedLinearRegressor().fit(X, y)
    table = prediction_intervals(model, X.head(2))
    assert (table["df"] == 178).all()
    design = np.column_stack([np.ones(180), X])
    leverage = np.diag(design @ np.linalg.inv(design.T @ design) @ design.T)[:2]
    np.testing.assert_allclose(
        table["std_error"], np.sqrt(model.noise_variance_ * (1 + leverage)), rtol=1e-10
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::mixedlearn.exceptions.DegenerateModelWarning")
def test_intervals_of_few_levels_cover_as_often_as_they_say():
    rng = np.random.default_rng(1)
    covered = {"satterthwaite": 0, "normal": 0}
    n_samples, groups = 300, np.repeat(np.arange(5), 4)
    row = pd.DataFrame({"x": [0.0], "g": [99]})
    for _ in range(n_samples):
        x = rng.normal(size=20)
        effects, new = 2.0 * rng.normal(size=5), 2.0 * rng.normal()
        X = pd.DataFrame({"x": x, "g": groups})
        model = MixedLinearRegressor(groups="g").fit(X, effects[groups] + rng.normal(size=20))
        truth = new + rng.normal()
        for ddf in covered:
            found = prediction_intervals(model, row, ddf=ddf).iloc[0]
            covered[ddf] += found["lower"] <= truth <= found["upper"]
    assert 0.93 < covered["satterthwaite"] / n_samples < 0.975
    assert covered["normal"] / n_samples < 0.93


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "confidence"}, "kind must be 'observation' or 'mean', got 'confidence'"),
        ({"random_effects": "Subject"}, "random_effects must be 'all' or 'none'"),
        ({"level": 95}, "level must be a probability"),
        ({"ddf": "between"}, "ddf='between' is not a method"),
        ({"ddf": "kenward-roger"}, "is for means of the population: pass kind='mean'"),
    ],
    ids=str,
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        prediction_intervals(SLOPES, STUDY.head(2), **arguments)
