"""Quantile-quantile plots: points, line and band against closed forms and simulation."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta, kstest, norm

from helpers.chance import within_binomial
from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.datasets import (
    load_dyestuff,
    load_dyestuff2,
    load_pastes,
    load_penicillin,
    load_sleepstudy,
)
from mixedlearn.exceptions import NoGroupsWarning
from mixedlearn.inference import residuals
from mixedlearn.inference.residuals import standard_residuals
from mixedlearn.plot import QQDisplay

draw = QQDisplay.from_estimator


def points(display, panel=0):
    return np.asarray(display.scatter_[panel].get_offsets()).T


def band(display, panel=0):
    """Places of the band, with its lower and upper bounds there."""
    outline = pd.DataFrame(display.bands_[panel].get_paths()[0].vertices, columns=["x", "y"])
    return outline.groupby("x")["y"].agg(["min", "max"])


def test_points_of_the_noise_are_ordered_studentized_residuals(sleepstudy):
    display = draw(*sleepstudy)
    studentized = residuals(*sleepstudy, kind="studentized")
    pd.testing.assert_series_equal(display.values["noise"], studentized)
    x, heights = points(display)
    np.testing.assert_allclose(heights, np.sort(studentized))
    np.testing.assert_allclose(norm.cdf(x), (np.arange(180) + 0.625) / 180.25)
    assert [ax.get_title() for ax in display.axes_] == ["noise"]
    assert display.axes_[0].get_ylabel() == "Studentized residual"
    assert display.axes_[0].get_xlabel() == "Standard normal quantile"


def test_the_line_goes_through_the_origin_with_slope_one(sleepstudy):
    display = draw(*sleepstudy)
    x, y = display.lines_[0].get_data()
    np.testing.assert_array_equal(x, y)
    drawn = points(display)[0]
    assert x[0] < drawn[0] < drawn[-1] < x[-1]


def test_a_panel_for_each_effect_of_each_factor(sleepstudy):
    model = sleepstudy[0]
    display = draw(model)
    assert list(display.values) == ["intercept | Subject", "Days | Subject"]
    assert [ax.get_title() for ax in display.axes_] == list(display.values)
    for panel, values in enumerate(display.values.values()):
        assert values.index.equals(model.random_effects_["Subject"].index)
        np.testing.assert_array_equal(points(display, panel)[1], np.sort(values))
    assert display.axes_[0].get_ylabel() == "Standardised BLUP"
    X, y = load_penicillin(return_X_y=True)
    crossed = MixedLinearRegressor(groups=["plate", "sample"]).fit(X, y)
    assert list(draw(crossed).values) == ["intercept | plate", "intercept | sample"]
    assert list(draw(crossed, factor="sample").values) == ["intercept | sample"]
    assert list(draw(crossed, factor=["sample", "plate"]).values) == list(draw(crossed).values)
    assert list(draw(model, effect="Days").values) == ["Days | Subject"]
    assert list(draw(model, effect=["Days", "intercept"]).values) == list(display.values)


def test_an_interaction_by_its_columns():
    X, y = load_pastes(return_X_y=True)
    model = MixedLinearRegressor(groups=["batch", ("batch", "cask")], fixed_effects=[]).fit(X, y)
    by_tuple = draw(model, factor=("batch", "cask"))
    by_name = draw(model, factor="batch:cask")
    assert list(by_tuple.values) == list(by_name.values) == ["intercept | batch:cask"]
    assert len(by_tuple.values["intercept | batch:cask"]) == 30


def test_a_balanced_design_standardises_the_means_of_the_levels():
    X, y = load_dyestuff(return_X_y=True)
    model = MixedLinearRegressor(groups="Batch").fit(X, y)
    means = y.groupby(X["Batch"].to_numpy()).mean()
    # Mean of 6 batches of 5 rows: a batch's mean has (1 - 1/6) of its variance around it.
    variance = model.covariances_["Batch"].iloc[0, 0] + model.noise_variance_ / 5.0
    expected = (means - means.mean()) / np.sqrt(variance * (1.0 - 1.0 / 6.0))
    found = draw(model).values["intercept | Batch"]
    np.testing.assert_allclose(found, expected[found.index], rtol=1e-6)


def unbalanced(seed):
    """Two crossed factors, one with a random slope; weights."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {"x": rng.uniform(0.0, 3.0, 90), "g": rng.integers(0, 12, 90), "h": rng.integers(0, 5, 90)}
    )
    y = X["x"] + rng.standard_normal((12, 5))[X["g"], X["h"]] + rng.standard_normal(90)
    y += 2.0 * rng.standard_normal(12)[X["g"]] + rng.standard_normal(12)[X["g"]] * X["x"]
    y += rng.standard_normal(5)[X["h"]]
    return X, y, rng.uniform(0.5, 2.0, 90)


@pytest.mark.parametrize("reml", [True, False])
def test_blups_over_their_standard_deviations_by_dense_matrices(reml):
    X, y, weights = unbalanced(5)
    model = MixedLinearRegressor(groups=["g", "h"], random_slopes={"g": ["x"]}, reml=reml)
    model.fit(X, y, sample_weight=weights)
    columns = {
        name: (X[factor].to_numpy()[:, None] == levels.index.to_numpy()) * z[:, None]
        for factor, levels in model.random_effects_.items()
        for name, z in [
            (f"intercept | {factor}", np.ones(90)),
            *([("x | g", X["x"].to_numpy())] if factor == "g" else []),
        ]
    }
    a, b = columns["intercept | g"], columns["x | g"]
    own = model.covariances_["g"].to_numpy()
    other = model.covariances_["h"].to_numpy()[0, 0]
    # Covariances of the response with each effect of each level.
    with_response = {
        "intercept | g": own[0, 0] * a + own[0, 1] * b,
        "x | g": own[0, 1] * a + own[1, 1] * b,
        "intercept | h": other * columns["intercept | h"],
    }
    V = with_response["intercept | g"] @ a.T + with_response["x | g"] @ b.T
    V += with_response["intercept | h"] @ columns["intercept | h"].T
    V += np.diag(model.noise_variance_ / weights)
    fixed = np.column_stack([np.ones(90), X["x"]])
    solved = np.linalg.solve(V, fixed)
    P = np.linalg.inv(V) - solved @ np.linalg.solve(fixed.T @ solved, solved.T)
    display = draw(model)
    assert list(display.values) == ["intercept | g", "x | g", "intercept | h"]
    for name, values in display.values.items():
        C = with_response[name]
        expected = (C.T @ P @ y) / np.sqrt(np.einsum("rm,rs,sm->m", C, P, C))
        np.testing.assert_allclose(values, expected, rtol=1e-5, err_msg=name)


def test_blups_of_unequal_groups_become_standard_normal():
    """Either bound fails in less than one of 20,000 seeds."""
    rng = np.random.default_rng(11)
    sizes = rng.geometric(0.2, 5_000)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    effects = 1.5 * rng.standard_normal(len(sizes))
    y = effects[codes] + 2.0 * rng.standard_normal(len(codes))
    model = MixedLinearRegressor(groups="g").fit(pd.DataFrame({"g": codes}), y)
    values = draw(model).values["intercept | g"]
    assert kstest(values, "norm").pvalue > 5e-5
    # The BLUPs themselves, over the standard deviation of the random effects, are not.
    blups = model.random_effects_["g"]["intercept"]
    assert kstest(blups / np.sqrt(model.covariances_["g"].iloc[0, 0]), "norm").pvalue < 5e-5


def test_the_band_holds_each_point_with_its_probability():
    n, level = 30, 0.9
    rng = np.random.default_rng(0)
    samples = np.sort(rng.standard_normal((4_000, n)), axis=1)
    bounds = band(QQDisplay(values={"noise": samples[0]}, level=level).plot())
    assert len(bounds) == n
    inside = (samples >= bounds["min"].to_numpy()) & (samples <= bounds["max"].to_numpy())
    assert within_binomial(inside.sum(axis=0), 4_000, level)  # fails in one of 10,000 seeds


def test_the_band_of_many_points_is_drawn_at_some_of_them():
    n = 100_000
    values = norm.ppf(np.random.default_rng(0).permutation(np.arange(n) + 0.5) / n)
    display = QQDisplay(values={"noise": values}).plot()
    x, heights = points(display)
    bounds = band(display)
    assert 300 <= len(bounds) <= 400
    assert np.isin(bounds.index, x).all()
    assert bounds.index[0] == x[0]
    assert bounds.index[-1] == x[-1]
    # An order statistic of uniform numbers has a beta distribution.
    ranks = np.searchsorted(x, bounds.index)
    for side, share in [("min", 0.025), ("max", 0.975)]:
        expected = norm.ppf(beta.ppf(share, ranks + 1, n - ranks))
        np.testing.assert_allclose(bounds[side], expected)
    at = heights[ranks]
    assert ((at >= bounds["min"]) & (at <= bounds["max"])).all()
    assert display.scatter_[0].get_rasterized()


def test_a_wider_level_has_a_wider_band(sleepstudy):
    narrow, wide = (band(draw(*sleepstudy, level=level)) for level in (0.5, 0.99))
    assert (wide["max"] > narrow["max"]).all()
    assert (wide["min"] < narrow["min"]).all()


def test_a_variance_of_zero_is_said_in_words():
    X, y = load_dyestuff2(return_X_y=True)
    model = MixedLinearRegressor(groups="Batch").fit(X, y)
    display = draw(model)
    assert display.scatter_ == display.lines_ == display.bands_ == [None]
    assert [text.get_text() for text in display.axes_[0].texts] == ["The variance is zero."]
    assert display.values["intercept | Batch"].isna().all()
    # The noise has one.
    assert len(points(draw(model, X, y))[0]) == 30


def test_zero_beside_a_variance(sleepstudy):
    _, X, y = sleepstudy
    X = X.assign(other=np.random.default_rng(2).permutation(np.repeat(np.arange(6), 30)))
    model = MixedLinearRegressor(groups=["Subject", "other"]).fit(X, y)
    assert model.covariances_["other"].iloc[0, 0] == 0.0
    display = draw(model)
    assert display.scatter_[0] is not None
    assert display.scatter_[1] is None


def test_levels_that_say_nothing_of_a_slope_are_left_out():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"x": rng.standard_normal(80), "g": np.repeat(np.arange(10), 8)})
    X.loc[X["g"] == 3, "x"] = 0.0
    y = rng.standard_normal(10)[X["g"]] * X["x"] + 0.1 * rng.standard_normal(80)
    model = MixedLinearRegressor(groups="g", random_intercept=False, random_slopes=["x"])
    display = draw(model.fit(X, y))
    values = display.values["x | g"]
    assert values.index[values.isna()].to_list() == [3]
    assert len(points(display)[0]) == 9


def test_a_fit_without_noise_is_said_in_words(without_noise):
    model, X, y = without_noise
    for display in (draw(model), draw(model, X, y)):
        assert [text.get_text() for text in display.axes_[0].texts] == ["The variance is zero."]


def test_weights_groups_and_formulas(sleepstudy):
    model, X, y = sleepstudy
    formula = lmer("Reaction ~ Days + (1 + Days | Subject)", load_sleepstudy().frame)
    beside = MixedLinearRegressor(random_slopes=["Days"]).fit(X[["Days"]], y, groups=X["Subject"])
    for other in (draw(formula), draw(beside)):
        for name, values in draw(model).values.items():
            np.testing.assert_allclose(other.values[name], values, atol=1e-5)
    noise = draw(model, X, y).values["noise"]
    np.testing.assert_allclose(draw(formula, X, y).values["noise"], noise, atol=1e-5)
    display = draw(beside, X[["Days"]], y, groups=X["Subject"])
    np.testing.assert_allclose(display.values["noise"], noise, atol=1e-5)
    weights = np.linspace(0.5, 2.0, 180)
    weights[5] = 0.0
    weighted = MixedLinearRegressor(groups="Subject").fit(X, y, sample_weight=weights)
    display = draw(weighted, X, y, sample_weight=weights)
    expected = residuals(weighted, X, y, sample_weight=weights, kind="studentized")
    pd.testing.assert_series_equal(
        display.values["noise"], expected.rename(None), check_names=False
    )
    assert len(points(display)[0]) == 179


def test_further_rows_change_nothing(sleepstudy):
    model, X, y = sleepstudy
    before = draw(model).values
    updated = model.update_random_effects(X.head(5).assign(Subject=999), y.head(5))
    for name, values in draw(updated).values.items():
        pd.testing.assert_series_equal(values, before[name])


def test_drawing_on_given_axes_and_again(sleepstudy):
    model = sleepstudy[0]
    figure, axes = plt.subplots(1, 2)
    display = draw(model, ax=axes)
    assert list(display.axes_) == list(axes)
    assert display.figure_ is figure
    figure, ax = plt.subplots()
    assert display.plot(ax=ax) is display
    assert display.figure_ is figure
    assert len(display.axes_) == 2
    ax = plt.figure().subplots()
    assert draw(model, effect="Days", ax=ax).axes_[0] is ax
    with pytest.raises(ValueError, match="2 panels, but ax holds 3"):
        draw(model, ax=plt.figure().subplots(1, 3))


def test_styles(sleepstudy):
    display = draw(
        sleepstudy[0],
        scatter_kwargs={"s": 3},
        line_kwargs={"ls": ":"},
        band_kwargs={"fc": "none", "hatch": "//", "lw": 2},
    )
    for scatter, line, drawn in zip(display.scatter_, display.lines_, display.bands_, strict=True):
        np.testing.assert_array_equal(scatter.get_sizes(), [3])
        assert line.get_linestyle() == ":"
        assert drawn.get_hatch() == "//"
        assert drawn.get_linewidth()[0] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": "subject"}, "no grouping factor 'subject'. Did you mean 'Subject'"),
        (
            {"effect": "days"},
            "no random effect 'days'. Did you mean 'Days'[?] Choose from: 'intercept', 'Days'",
        ),
        ({"factor": "Subject", "effect": 1}, "'Subject' has no random effect 1"),
        ({"level": 1.5}, "level must be a probability"),
        ({"y": [1.0]}, "needs X and y"),
        ({"groups": ["a"]}, "needs X and y"),
        ({"X": [[1.0]]}, "needs X and y"),
    ],
)
def test_arguments_that_are_refused(sleepstudy, arguments, message):
    with pytest.raises(ValueError, match=message):
        draw(sleepstudy[0], **arguments)


def test_models_that_are_refused(sleepstudy):
    model, X, y = sleepstudy
    with pytest.raises(ValueError, match="factor and effect are for the plot of the random"):
        draw(model, X, y, effect="Days")
    with pytest.raises(ValueError, match="not the rows of the fit"):
        draw(model, X.head(9), y.head(9))
    with pytest.warns(NoGroupsWarning):
        plain = MixedLinearRegressor().fit(X[["Days"]], y)
    with pytest.raises(ValueError, match="fitted without groups"):
        draw(plain)
    assert len(points(draw(plain, X[["Days"]], y))[0]) == 180
    with pytest.raises(ValueError, match="values is empty"):
        QQDisplay(values={})


def test_noise_of_a_residual_structure_is_normalized(mares):
    model, frame, y = mares
    display = draw(model, frame, y)
    expected = standard_residuals(model, frame, y, groups=None, sample_weight=None, offset=None)
    np.testing.assert_allclose(points(display)[1], np.sort(expected))
    assert display.axes_[0].get_ylabel() == "Normalized residual"
    assert list(draw(model).values) == ["intercept | Mare"]


def test_values_of_a_residual_structure_have_variance_one():
    """Of 3,000 values, a variance is known to 2.6%; the bounds are at four standard errors."""
    rng = np.random.default_rng(0)
    m, T, rho = 600, 5, 0.6
    noise = rng.standard_normal((m, T))
    for t in range(1, T):
        noise[:, t] = rho * noise[:, t - 1] + np.sqrt(1.0 - rho**2) * noise[:, t]
    frame = pd.DataFrame({"t": np.tile(np.arange(T), m), "g": np.repeat(np.arange(m), T)})
    frame["y"] = 2.0 * rng.standard_normal(m)[frame["g"]] + noise.ravel()
    model = lmer("y ~ t + (1 | g)", frame, residual="ar1", time="t")
    values = draw(model, frame, frame["y"]).values["noise"]
    assert values.var() == pytest.approx(1.0, abs=4.0 * np.sqrt(2.0 / len(values)))
    # The BLUPs take a part of the noise: without the standard errors it would be less.
    assert residuals(model, frame, frame["y"], kind="normalized").var() < 0.9
