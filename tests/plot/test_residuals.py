"""Residuals against fitted values: what is drawn is what the model says."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.datasets import load_dyestuff2, load_sleepstudy
from mixedlearn.exceptions import PopulationPredictionWarning
from mixedlearn.inference import residuals
from mixedlearn.inference.residuals import standard_residuals
from mixedlearn.plot import ResidualsDisplay
from reference.noise_models import read

draw = ResidualsDisplay.from_estimator


def points(display):
    return np.asarray(display.scatter_.get_offsets()).T


def test_the_points_are_fitted_values_and_residuals(sleepstudy):
    model, X, y = sleepstudy
    display = draw(model, X, y)
    x, heights = points(display)
    np.testing.assert_allclose(x, model.predict(X))
    np.testing.assert_allclose(heights, residuals(model, X, y))
    np.testing.assert_array_equal(display.fitted_values, x)
    np.testing.assert_array_equal(display.residuals, heights)
    np.testing.assert_array_equal(display.line_.get_ydata(), 0.0)
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("Fitted value", "Residual")
    assert display.hexbin_ is None
    assert list(display.ax_.collections) == [display.scatter_]


def test_other_rows_will_do(sleepstudy):
    model, X, y = sleepstudy
    new = X.head(3).assign(Subject=[308, 309, 999])
    x, heights = points(draw(model, new, y.head(3)))
    np.testing.assert_allclose(x, model.predict(new))
    np.testing.assert_allclose(heights, y.head(3) - model.predict(new))


def test_scale_location_is_the_root_of_studentized_residuals(sleepstudy):
    model, X, y = sleepstudy
    display = draw(model, X, y, kind="scale_location")
    studentized = residuals(model, X, y, kind="studentized")
    np.testing.assert_allclose(display.residuals, studentized)
    np.testing.assert_allclose(points(display)[1], np.sqrt(np.abs(studentized)))
    assert "studentized" in display.ax_.get_ylabel()


def test_scale_location_expects_the_mean_root_of_normal_noise(sleepstudy):
    display = draw(*sleepstudy, kind="scale_location")
    normal = np.random.default_rng(0).standard_normal(1_000_000)
    expected = np.sqrt(np.abs(normal)).mean()
    np.testing.assert_allclose(display.line_.get_ydata(), expected, atol=2e-3)


def test_scale_location_needs_the_rows_of_the_fit(sleepstudy):
    model, X, y = sleepstudy
    with pytest.raises(ValueError, match="not the rows of the fit"):
        draw(model, X.head(20), y.head(20), kind="scale_location")


def test_against_the_population(sleepstudy):
    model, X, y = sleepstudy
    display = draw(model, X, y, against="population")
    x, heights = points(display)
    np.testing.assert_allclose(x, model.predict(X, random_effects="none"))
    np.testing.assert_allclose(heights, residuals(model, X, y))
    assert display.ax_.get_xlabel() == "Prediction for the population"
    # As the Notes say: without correlation by construction.
    assert abs(np.corrcoef(x, heights)[0, 1]) < 1e-9
    fitted = points(draw(model, X, y))[0]
    assert np.corrcoef(fitted, heights)[0, 1] > 0.02


def test_weights_scale_residuals_and_zeros_leave_out_rows(sleepstudy):
    _, X, y = sleepstudy
    weights = np.linspace(0.5, 2.0, len(y))
    weights[[3, 7]] = 0.0
    model = MixedLinearRegressor(groups="Subject").fit(X, y, sample_weight=weights)
    kept = weights > 0.0
    display = draw(model, X, y, sample_weight=weights)
    plain = residuals(model, X, y, sample_weight=weights).to_numpy()
    np.testing.assert_allclose(points(display)[1], (np.sqrt(weights) * plain)[kept])
    np.testing.assert_allclose(points(display)[0], model.predict(X)[kept])
    assert "weight" in display.ax_.get_ylabel()
    display = draw(model, X, y, sample_weight=weights, kind="scale_location")
    studentized = residuals(model, X, y, sample_weight=weights, kind="studentized")
    np.testing.assert_allclose(display.residuals, studentized.to_numpy()[kept])


def test_groups_beside_X_and_formulas(sleepstudy):
    model, X, y = sleepstudy
    expected = points(draw(model, X, y))
    beside = MixedLinearRegressor(random_slopes=["Days"]).fit(X[["Days"]], y, groups=X["Subject"])
    np.testing.assert_allclose(
        points(draw(beside, X[["Days"]], y, groups=X["Subject"])), expected, atol=1e-6
    )
    with pytest.warns(PopulationPredictionWarning):
        display = draw(beside, X[["Days"]], y)
    population = model.predict(X, random_effects="none")
    np.testing.assert_allclose(display.residuals, y - population, atol=1e-6)
    formula = lmer("Reaction ~ Days + (1 + Days | Subject)", load_sleepstudy().frame)
    np.testing.assert_allclose(points(draw(formula, X, y)), expected, atol=1e-6)


def test_many_rows_are_a_density_that_leaves_none_out(sleepstudy):
    model, X, y = sleepstudy
    display = draw(model, X, y, max_points=179)
    assert display.scatter_ is None
    assert display.hexbin_.get_array().sum() == 180
    assert len(display.figure_.axes) == 2
    assert display.figure_.axes[1].get_ylabel() == "Rows in a hexagon"
    assert draw(model, X, y, max_points=180).hexbin_ is None


def test_a_scatter_of_many_rows_is_one_image():
    values = np.random.default_rng(0).standard_normal((2, 3_000))
    display = ResidualsDisplay(fitted_values=values[0], residuals=values[1]).plot()
    assert display.scatter_.get_rasterized()
    display = ResidualsDisplay(fitted_values=values[0, :50], residuals=values[1, :50]).plot()
    assert not display.scatter_.get_rasterized()


@pytest.mark.parametrize("n_rows", [30, 30_000])
def test_the_trend_of_a_line_is_the_line(n_rows):
    x = np.random.default_rng(0).exponential(size=n_rows)
    trend = ResidualsDisplay(fitted_values=x, residuals=3.0 - 2.0 * x).plot().trend_
    places, heights = trend.get_data()
    assert len(places) >= 30
    np.testing.assert_allclose(heights, 3.0 - 2.0 * places, atol=1e-9)


def test_the_trend_follows_a_curve_and_averages_noise():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.0, 1.0, 40_000)
    display = ResidualsDisplay(fitted_values=x, residuals=x**2 + rng.standard_normal(len(x)))
    places, heights = display.plot().trend_.get_data()
    # A line in a window that holds two thirds of the rows is off by 0.16 at the ends. Noise moves
    # it by a standard deviation of 0.02 there: 0.25 is exceeded in less than one of 10,000 seeds.
    assert np.abs(heights - places**2).max() < 0.25
    assert heights[0] > 0.5 > 0.3 > heights[len(heights) // 2]


def test_the_trend_is_cleveland_s():
    rng = np.random.default_rng(3)
    x = rng.uniform(size=91)
    y = np.sin(5.0 * x) + rng.standard_normal(len(x))
    places, heights = ResidualsDisplay(fitted_values=x, residuals=y).plot().trend_.get_data()
    expected = []
    for place in places:
        nearest = np.argsort(np.abs(x - place))[:61]
        distance = np.abs(x[nearest] - place)
        weights = (1.0 - (distance / distance.max()) ** 3) ** 3
        line = np.polyfit(x[nearest], y[nearest], 1, w=np.sqrt(weights))
        expected.append(np.polyval(line, place))
    np.testing.assert_allclose(heights, expected, atol=1e-8)


def test_few_distinct_fitted_values():
    x = np.repeat([1.0, 2.0], 50) + 1e-14 * np.arange(100)
    y = np.repeat([-1.0, 1.0], 50)
    places, heights = ResidualsDisplay(fitted_values=x, residuals=y).plot().trend_.get_data()
    np.testing.assert_allclose(places, [1.0, 2.0])
    assert np.abs(heights).max() <= 1.0


@pytest.mark.parametrize("max_points", [20_000, 5])
def test_a_model_that_predicts_a_constant_has_no_trend(max_points):
    X, y = load_dyestuff2(return_X_y=True)
    model = MixedLinearRegressor(groups="Batch").fit(X, y)
    display = draw(model, X, y, max_points=max_points)
    assert display.trend_ is None
    np.testing.assert_allclose(display.residuals, y - y.mean())
    display.figure_.canvas.draw()


def test_one_row_can_be_drawn(sleepstudy):
    model, X, y = sleepstudy
    display = draw(model, X.head(1), y.head(1))
    assert display.trend_ is None
    assert len(points(display)[0]) == 1


def test_drawing_on_given_axes_and_again(sleepstudy):
    figure, axes = plt.subplots(1, 2)
    display = draw(*sleepstudy, ax=axes[0])
    assert display.ax_ is axes[0]
    assert display.figure_ is figure
    first = points(display)
    assert display.plot(ax=axes[1]) is display
    assert display.ax_ is axes[1]
    np.testing.assert_array_equal(points(display), first)


def test_styles(sleepstudy):
    model, X, y = sleepstudy
    display = draw(
        model,
        X,
        y,
        scatter_kwargs={"marker": "x", "s": 3, "linewidths": 1},
        line_kwargs={"ls": ":"},
        trend_kwargs={"lw": 7},
    )
    np.testing.assert_array_equal(display.scatter_.get_sizes(), [3])
    assert display.line_.get_linestyle() == ":"
    assert display.trend_.get_linewidth() == 7
    display = draw(model, X, y, scatter_kwargs={"c": X["Days"], "cmap": "Greys"})
    np.testing.assert_array_equal(display.scatter_.get_array(), X["Days"])
    display = draw(model, X, y, max_points=10, hexbin_kwargs={"cmap": "Greys"})
    assert display.hexbin_.get_cmap().name == "Greys"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "pearson"}, "kind must be .*'pearson'"),
        ({"against": "x"}, "against must be .*'x'"),
        ({"max_points": 0}, "max_points must be a positive integer"),
    ],
)
def test_arguments_that_are_refused(sleepstudy, arguments, message):
    with pytest.raises(ValueError, match=message):
        draw(*sleepstudy, **arguments)


def test_a_legend_tells_the_lines_in_a_figure_of_its_own(sleepstudy):
    display = draw(*sleepstudy)
    (legend,) = display.figure_.legends
    assert [text.get_text() for text in legend.get_texts()] == ["trend", "expected"]
    figure, ax = plt.subplots()
    assert display.plot(ax).ax_ is ax
    assert not figure.legends


def test_few_rows_have_no_trend():
    values = np.arange(10.0)
    assert ResidualsDisplay(fitted_values=values, residuals=values).plot().trend_ is not None
    few = ResidualsDisplay(fitted_values=values[:9], residuals=values[:9]).plot()
    assert few.trend_ is None


def test_rows_that_are_refused(sleepstudy):
    model, X, y = sleepstudy
    with pytest.raises(ValueError, match="X has 180 rows, y has 179"):
        draw(model, X, y.head(179))
    with pytest.raises(ValueError, match="sample_weight has 2 values"):
        draw(model, X, y, sample_weight=[1.0, 2.0])


def test_a_fit_without_noise_has_no_studentized_residuals(without_noise):
    model, X, y = without_noise
    np.testing.assert_allclose(draw(model, X, y).residuals, 0.0, atol=1e-9)
    with pytest.raises(ValueError, match="noise variance is zero"):
        draw(model, X, y, kind="scale_location")


def test_residuals_of_a_residual_structure_are_normalized(mares):
    model, frame, y = mares
    display = draw(model, frame, y)
    x, heights = points(display)
    np.testing.assert_allclose(heights, residuals(model, frame, y, kind="normalized"))
    np.testing.assert_allclose(x, y - residuals(model, frame, y))
    assert display.ax_.get_ylabel() == "Normalized residual"
    against = draw(model, frame, y, against="population")
    np.testing.assert_allclose(points(against)[0], model.predict(frame, random_effects="none"))
    np.testing.assert_array_equal(points(against)[1], heights)
    located = draw(model, frame, y, kind="scale_location")
    expected = standard_residuals(model, frame, y, groups=None, sample_weight=None, offset=None)
    np.testing.assert_allclose(points(located)[1], np.sqrt(np.abs(expected)))
    assert located.ax_.get_ylabel() == "Root of |normalized residual|"
    with pytest.raises(ValueError, match="not the rows of the fit"):
        draw(model, frame.head(20), y.head(20))


def test_fitted_values_of_a_residual_structure_are_those_of_the_effects():
    """Under compound symmetry without times, `predict` adds what a level says of its noise."""
    frame = read("orthodont")
    weights = np.resize([1.0, 0.0, 2.0], len(frame))
    structure = {"groups": "Subject", "residual": "compound_symmetry"}
    model = lmer("distance ~ age", frame, sample_weight=weights, **structure)
    display = draw(model, frame, frame["distance"], sample_weight=weights)
    x, heights = points(display)
    expected = model.predict(frame, random_effects="none")[weights > 0.0]
    np.testing.assert_allclose(x, expected)
    assert not np.allclose(x, model.predict(frame)[weights > 0.0])
    rows = {"X": frame, "y": frame["distance"], "sample_weight": weights}
    normalized = residuals(model, **rows, kind="normalized")[weights > 0.0]
    np.testing.assert_allclose(heights, normalized)
    assert display.ax_.get_ylabel() == "Normalized residual"
