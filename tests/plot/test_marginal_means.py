"""The picture of marginal means."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mixedlearn import lmer
from mixedlearn.datasets import load_cake
from mixedlearn.exceptions import DegenerateModelWarning
from mixedlearn.inference import marginal_means, marginal_slopes
from mixedlearn.plot import MarginalMeansDisplay

CAKE = load_cake().frame


@pytest.fixture(scope="module")
def cakes():
    return lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", CAKE)


def texts(axes):
    return [text.get_text() for text in axes.get_xticklabels()]


def test_points_and_intervals_are_those_of_the_table(cakes):
    display = MarginalMeansDisplay.from_estimator(
        cakes, "temperature", by="recipe", ddf="kenward-roger", level=0.8
    )
    table = marginal_means(cakes, "temperature", by="recipe", ddf="kenward-roger", level=0.8).table
    assert [line.get_label() for line in display.lines_] == ["A", "B", "C"]
    for recipe, line, intervals in zip("ABC", display.lines_, display.intervals_, strict=True):
        own = table.loc[recipe]
        np.testing.assert_array_equal(line.get_ydata(), own["estimate"])
        ends = np.array([segment[:, 1] for segment in intervals.get_segments()])
        np.testing.assert_array_equal(ends, own[["lower", "upper"]])
        np.testing.assert_allclose(line.get_xdata(), np.arange(6), atol=0.2)
    assert texts(display.ax_) == ["175", "185", "195", "205", "215", "225"]
    assert display.ax_.get_xlabel() == "temperature"
    assert display.ax_.get_ylabel() == "Marginal mean, 80% interval"
    assert display.ax_.get_legend().get_title().get_text() == "recipe"


def test_lines_differ_in_more_than_colour(cakes):
    display = MarginalMeansDisplay.from_estimator(cakes, "recipe", by="temperature")
    looks = {(line.get_marker(), line.get_linestyle()) for line in display.lines_}
    assert len(looks) == 6
    # And stand beside each other.
    assert len({line.get_xdata()[0] for line in display.lines_}) == 6


def test_values_of_a_covariate_are_numbers(cakes):
    est = lmer("angle ~ recipe * temp + (1 | recipe:replicate)", CAKE)
    at = {"temp": [180, 200, 230]}
    display = MarginalMeansDisplay.from_estimator(est, "temp", at=at)
    np.testing.assert_array_equal(display.lines_[0].get_xdata(), [180.0, 200.0, 230.0])
    assert display.ax_.get_legend() is None
    slopes = marginal_slopes(est, "temp", by="recipe")
    display = MarginalMeansDisplay(means=slopes).plot()
    assert display.ax_.get_ylabel() == "Slope in temp, 95% interval"
    np.testing.assert_array_equal(display.lines_[0].get_ydata(), slopes.table["estimate"])


def test_one_mean_of_all(cakes):
    display = MarginalMeansDisplay.from_estimator(cakes)
    assert texts(display.ax_) == ["all"]
    assert display.ax_.get_xlabel() == ""


@pytest.mark.filterwarnings("ignore:The fixed effects of .* are aliased")
def test_what_cannot_be_estimated_is_left_out():
    frame = CAKE[(CAKE["recipe"] != "C") | (CAKE["temperature"] != "225")]
    est = lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", frame)
    with pytest.warns(DegenerateModelWarning, match="cannot estimate"):
        display = MarginalMeansDisplay.from_estimator(est, "temperature", by="recipe")
    assert [len(own.get_segments()) for own in display.intervals_] == [6, 6, 5]
    assert np.isnan(display.lines_[2].get_ydata()[-1])
    display.figure_.canvas.draw()


def test_styles_go_to_the_artists(cakes):
    _, ax = plt.subplots()
    display = MarginalMeansDisplay.from_estimator(
        cakes,
        "recipe",
        ax=ax,
        line_kwargs={"ls": "none", "color": "red"},
        interval_kwargs={"lw": 4.0},
    )
    assert display.ax_ is ax
    assert display.lines_[0].get_linestyle() == "None"
    assert display.lines_[0].get_color() == "red"
    assert display.intervals_[0].get_linewidth() == [4.0]
