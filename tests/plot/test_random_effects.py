"""Caterpillar plots: what is drawn are the numbers of the table, level by level."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.datasets import (
    load_dyestuff2,
    load_pastes,
    load_sleepstudy,
)
from mixedlearn.exceptions import DegenerateModelWarning, NoGroupsWarning
from mixedlearn.inference import random_effects_table
from mixedlearn.plot import RandomEffectsDisplay

SLEEP = load_sleepstudy().frame
WHITE = to_rgba("white")


def drawn(display, panel):
    """Positions, ends of intervals and points of a panel, from the bottom, and which are filled."""
    rows = []
    for is_filled in (0, 1):
        segments = display.lines_[panel, is_filled].get_segments()
        points = display.scatter_[panel, is_filled]
        offsets = points.get_offsets()
        assert len(segments) == len(offsets)
        face = points.get_facecolor()
        assert len(face) == 1
        for segment, (x, y) in zip(segments, offsets, strict=True):
            assert segment[0, 1] == segment[1, 1] == y
            rows.append((y, segment[0, 0], x, segment[1, 0], tuple(face[0]) != WHITE))
    return pd.DataFrame(
        sorted(rows), columns=["position", "lower", "estimate", "upper", "is_filled"]
    )


def labels(ax):
    """Labels of the levels by their positions, from the bottom."""
    pairs = zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)
    return [label.get_text() for _, label in sorted(pairs, key=lambda pair: pair[0])]


def assert_shows(display, panel, table):
    """The panel shows the rows of the table, from the bottom."""
    shown = drawn(display, panel)
    np.testing.assert_array_equal(shown["position"], np.arange(1, len(table) + 1))
    for column in ("lower", "estimate", "upper"):
        np.testing.assert_allclose(shown[column], table[column])
    is_out = (table["lower"] > 0.0) | (table["upper"] < 0.0)
    np.testing.assert_array_equal(shown["is_filled"], is_out)


def rows_of(model, factor, effect, level=0.95):
    table = random_effects_table(model, level=level)
    return table[(table["factor"] == factor) & (table["effect"] == effect)]


def test_points_are_blups_and_lines_their_intervals(study):
    display = RandomEffectsDisplay.from_estimator(study, effect="intercept", level=0.8)
    table = rows_of(study, "Subject", "intercept", level=0.8).sort_values("estimate")
    assert_shows(display, 0, table)
    assert labels(display.axes_[0]) == [str(level) for level in table["level"]]
    assert len(display.axes_) == 1
    assert display.axes_[0].get_xlabel() == "BLUP, 80% interval"
    assert display.axes_[0].get_ylabel() == "Subject"
    np.testing.assert_array_equal(display.zero_lines_[0].get_xdata(), [0.0, 0.0])


def test_the_levels_of_a_factor_are_in_one_order_by_the_first_effect(study):
    display = RandomEffectsDisplay.from_estimator(study)
    assert [ax.get_title() for ax in display.axes_] == ["intercept", "Days"]
    order = rows_of(study, "Subject", "intercept").sort_values("estimate")["level"]
    for panel, effect in enumerate(["intercept", "Days"]):
        by_level = rows_of(study, "Subject", effect).set_index("level")
        assert_shows(display, panel, by_level.loc[order])
    left, right = display.axes_
    assert labels(left) == [str(level) for level in order]
    # The labels stand at the left end alone.
    display.figure_.canvas.draw()
    assert all(label.get_visible() for label in left.get_yticklabels())
    assert not any(tick.label1.get_visible() for tick in right.yaxis.get_major_ticks())
    assert right.get_ylabel() == ""


def test_sorting_by_a_named_effect(study):
    display = RandomEffectsDisplay.from_estimator(study, sort="Days")
    order = rows_of(study, "Subject", "Days").sort_values("estimate")["level"]
    by_level = rows_of(study, "Subject", "intercept").set_index("level")
    assert_shows(display, 0, by_level.loc[order])
    assert labels(display.axes_[0]) == [str(level) for level in order]


def test_sorting_every_panel_by_itself(study):
    display = RandomEffectsDisplay.from_estimator(study, sort="panel")
    for panel, effect in enumerate(["intercept", "Days"]):
        table = rows_of(study, "Subject", effect).sort_values("estimate")
        assert_shows(display, panel, table)
        ax = display.axes_[panel]
        assert labels(ax) == [str(level) for level in table["level"]]
        assert all(tick.label1.get_visible() for tick in ax.yaxis.get_major_ticks())


def test_without_sorting_the_first_level_is_on_top(study):
    display = RandomEffectsDisplay.from_estimator(study, sort=False)
    levels = [str(level) for level in study.random_effects_["Subject"].index]
    assert labels(display.axes_[0]) == levels[::-1]
    assert_shows(display, 1, rows_of(study, "Subject", "Days").iloc[::-1])


def test_a_factor_without_the_named_effect_is_sorted_by_its_first():
    model = lmer("Reaction ~ Days + (1 + Days | Subject) + (1 | Week)", with_weeks())
    display = RandomEffectsDisplay.from_estimator(model, sort="Days")
    assert_shows(display, 2, rows_of(model, "Week", "intercept").sort_values("estimate"))


def with_weeks():
    week = pd.Series("even", index=SLEEP.index).where(SLEEP["Days"] % 2 == 0, "odd")
    bump = week.map({"even": 20.0, "odd": -20.0})
    return SLEEP.assign(Week=week, Reaction=SLEEP["Reaction"] + bump)


def test_factors_are_below_each_other_and_an_effect_has_one_scale(crossed):
    display = RandomEffectsDisplay.from_estimator(crossed)
    plate, sample = display.axes_
    assert [ax.get_ylabel() for ax in display.axes_] == ["plate", "sample"]
    for panel, factor in enumerate(["plate", "sample"]):
        assert_shows(display, panel, rows_of(crossed, factor, "intercept").sort_values("estimate"))
    assert plate.get_xlim() == sample.get_xlim()
    ends = random_effects_table(crossed)
    assert plate.get_xlim()[0] < ends["lower"].min()
    assert plate.get_xlim()[1] > ends["upper"].max()
    display.figure_.canvas.draw()
    heights = [ax.get_position().height for ax in display.axes_]
    assert heights[0] > 2.0 * heights[1]  # 24 levels and 6
    assert plate.get_position().y0 > sample.get_position().y1


@pytest.mark.parametrize("factor", ["sample", ["sample"], ("sample",), pd.Index(["sample"])])
def test_some_factors(crossed, factor):
    display = RandomEffectsDisplay.from_estimator(crossed, factor=factor)
    assert [ax.get_ylabel() for ax in display.axes_] == ["sample"]
    assert display.table["factor"].unique().tolist() == ["sample"]


def test_a_factor_that_has_none_of_the_effects_is_left_out():
    model = lmer("Reaction ~ Days + (1 + Days | Subject) + (1 | Week)", with_weeks())
    display = RandomEffectsDisplay.from_estimator(model, effect="Days")
    assert [(ax.get_ylabel(), ax.get_title()) for ax in display.axes_] == [("Subject", "Days")]


@pytest.mark.parametrize("factor", ["batch:cask", ("batch", "cask")])
def test_levels_of_an_interaction(factor):
    model = lmer("strength ~ 1 + (1 | batch/cask)", load_pastes().frame)
    display = RandomEffectsDisplay.from_estimator(model, factor=factor)
    table = rows_of(model, "batch:cask", "intercept").sort_values("estimate")
    assert_shows(display, 0, table)
    assert labels(display.axes_[0]) == [f"{batch}:{cask}" for batch, cask in table["level"]]
    assert display.axes_[0].get_ylabel() == "batch:cask"


def test_many_effects_go_on_in_a_further_row():
    effects = ["intercept", *"abcdefgh"]
    one = pd.concat([table_of(5).assign(effect=effect) for effect in effects])
    two = table_of(4).assign(factor="two", effect="h")
    display = RandomEffectsDisplay(table=pd.concat([one, two]), level=0.95).plot()
    display.figure_.canvas.draw()
    boxes = [ax.get_position() for ax in display.axes_]
    assert [ax.get_title() for ax in display.axes_] == [*effects, "h"]
    assert len({round(box.y0, 6) for box in boxes}) == 3
    assert boxes[0].y0 > boxes[6].y1 > boxes[6].y0 > boxes[9].y1
    # The column of "h" is the same for both factors.
    assert boxes[8].x0 == pytest.approx(boxes[9].x0)
    assert display.axes_[8].get_xlim() == display.axes_[9].get_xlim()


def test_random_effects_that_were_updated(study):
    updated = lmer("Reaction ~ Days + (1 + Days | Subject)", SLEEP)
    new = SLEEP[SLEEP["Subject"] == 308].assign(Subject=999).head(3)
    updated.update_random_effects(new, new["Reaction"])
    display = RandomEffectsDisplay.from_estimator(updated, effect="Days")
    assert "999" in labels(display.axes_[0])
    assert_shows(display, 0, rows_of(updated, "Subject", "Days").sort_values("estimate"))


def test_a_variance_of_zero():
    model = lmer("Yield ~ 1 + (1 | Batch)", load_dyestuff2().frame)
    display = RandomEffectsDisplay.from_estimator(model)
    shown = drawn(display, 0)
    assert not shown[["lower", "estimate", "upper", "is_filled"]].to_numpy().any()
    assert labels(display.axes_[0]) == list("ABCDEF")
    assert [text.get_text() for text in display.axes_[0].texts] == ["The variance is zero."]


def test_only_a_variance_of_zero_is_remarked_on(study):
    display = RandomEffectsDisplay.from_estimator(study)
    assert not any(ax.texts for ax in display.axes_)


def test_a_factor_with_one_level():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"site": "only", "g": np.repeat(list("abcdef"), 5)})
    y = rng.normal(size=6).repeat(5) + rng.normal(size=30)
    with pytest.warns(DegenerateModelWarning, match="'site' has one level"):
        model = MixedLinearRegressor(groups=["site", "g"]).fit(X, y)
    display = RandomEffectsDisplay.from_estimator(model, factor="site")
    assert labels(display.axes_[0]) == ["only"]
    assert_shows(display, 0, rows_of(model, "site", "intercept"))


def test_labels_are_no_mathematics():
    frame = SLEEP.assign(Subject="$" + SLEEP["Subject"].astype(str) + "^2$")
    model = lmer("Reaction ~ Days + (1 | Subject)", frame)
    display = RandomEffectsDisplay.from_estimator(model)
    assert not any(label.get_parse_math() for label in display.axes_[0].get_yticklabels())
    assert "$308^2$" in labels(display.axes_[0])


@pytest.mark.parametrize(("n_levels", "has_labels"), [(60, True), (61, False)])
def test_up_to_sixty_levels_have_labels(n_levels, has_labels):
    display = RandomEffectsDisplay(table=table_of(n_levels), level=0.95).plot()
    ax = display.axes_[0]
    texts = labels(ax)
    assert ("level 7" in texts) == has_labels
    assert ax.get_ylabel() == ("g" if has_labels else "g (61 levels)")
    display.figure_.canvas.draw()
    if has_labels:
        boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
        bottom_up = sorted(boxes, key=lambda box: box.y0)
        gaps = [above.y0 - below.y1 for below, above in pairwise(bottom_up)]
        assert min(gaps) > -1.0  # pixels


def table_of(n_levels):
    estimates = np.linspace(-1.0, 1.0, n_levels)
    return pd.DataFrame(
        {
            "factor": "g",
            "level": [f"level {i}" for i in range(n_levels)],
            "effect": "intercept",
            "estimate": estimates,
            "std_error": 0.1,
            "lower": estimates - 0.2,
            "upper": estimates + 0.2,
        }
    )


def test_the_figure_grows_with_the_levels_up_to_a_limit():
    heights = [
        RandomEffectsDisplay(table=table_of(n), level=0.95).plot().figure_.get_size_inches()[1]
        for n in (6, 30, 60, 61, 5_000)
    ]
    assert heights[0] < heights[1] < heights[2] < 12.0
    assert heights[3] == heights[4] < 6.0


def test_labels_that_do_not_fit_the_axes_given_are_left_out():
    _, (high, low) = plt.subplots(2, figsize=(5, 12), height_ratios=[10, 1])
    table = table_of(40)
    display = RandomEffectsDisplay(table=table, level=0.95)
    display.plot(ax=high)
    assert "level 7" in labels(high)
    display.plot(ax=low)
    assert "level 7" not in labels(low)
    assert low.get_ylabel() == "g (40 levels)"


def test_a_hundred_thousand_levels_are_a_few_artists():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(100_000), rng.integers(1, 5, 100_000))
    X = pd.DataFrame({"g": labels})
    y = rng.normal(size=100_000)[labels] + 0.5 * rng.normal(size=len(labels))
    model = MixedLinearRegressor(groups="g").fit(X, y)
    display = RandomEffectsDisplay.from_estimator(model)
    (ax,) = display.axes_
    table = rows_of(model, "g", "intercept").sort_values("estimate", kind="stable")
    offsets = np.vstack([points.get_offsets() for points in display.scatter_[0]])
    offsets = offsets[np.argsort(offsets[:, 1])]
    np.testing.assert_array_equal(offsets[:, 1], np.arange(1, 100_001))
    np.testing.assert_allclose(offsets[:, 0], table["estimate"])
    is_out = (table["lower"] > 0.0) | (table["upper"] < 0.0)
    assert len(display.lines_[0, 0].get_paths()) == is_out.sum() > 0
    assert len(display.lines_[0, 1].get_paths()) == (~is_out).sum() > 0
    few = RandomEffectsDisplay(table=table_of(61), level=0.95).plot()
    assert len(ax.get_children()) == len(few.axes_[0].get_children())
    artists = [*display.lines_[0], *display.scatter_[0]]
    assert all(artist.get_rasterized() for artist in artists)
    assert not any(artist.get_rasterized() for artist in [*few.lines_[0], *few.scatter_[0]])
    assert ax.get_ylabel() == "g (100,000 levels)"


@pytest.mark.parametrize(("n_levels", "is_alike"), [(60, True), (61, False)])
def test_levels_without_labels_are_sorted_panel_by_panel(n_levels, is_alike):
    rng = np.random.default_rng(0)
    slopes = table_of(n_levels).assign(effect="x")
    slopes[["lower", "estimate", "upper"]] += rng.normal(size=(n_levels, 1))
    table = pd.concat([table_of(n_levels), slopes])
    display = RandomEffectsDisplay(table=table, level=0.95).plot()
    shown = drawn(display, 1)
    expected = slopes if is_alike else slopes.sort_values("estimate")
    np.testing.assert_array_equal(shown["estimate"], expected["estimate"])


def lightness(artist):
    """Relative luminance of an artist's colour."""
    return np.array(artist.get_color()[0][:3]) @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("n_levels", [20, 200])
def test_intervals_that_exclude_zero_are_darker(n_levels):
    display = RandomEffectsDisplay(table=table_of(n_levels), level=0.95).plot()
    excluding, holding = display.lines_[0]
    assert lightness(holding) - lightness(excluding) > 0.25


def test_one_axes_for_one_panel(study):
    figure, ax = plt.subplots()
    display = RandomEffectsDisplay.from_estimator(study, effect="Days", ax=ax)
    assert display.axes_.tolist() == [ax]
    assert display.figure_ is figure
    assert not figure.legends


def test_an_axes_for_every_panel(study):
    figure, axes = plt.subplots(2, 1)
    display = RandomEffectsDisplay.from_estimator(study, ax=axes)
    assert display.axes_.tolist() == axes.tolist()
    # Nothing is known of where they are: both are labelled.
    assert [ax.get_ylabel() for ax in axes] == ["Subject", "Subject"]
    assert labels(axes[0]) == labels(axes[1])
    assert plt.get_fignums() == [figure.number]


def test_all_panels_in_the_place_of_one_axes(crossed):
    figure, (left, right) = plt.subplots(1, 2)
    display = RandomEffectsDisplay.from_estimator(crossed, ax=left)
    assert len(display.axes_) == 2
    assert all(ax.figure is figure for ax in display.axes_)
    figure.canvas.draw()
    assert max(ax.get_position().x1 for ax in display.axes_) < right.get_position().x0


def test_drawing_again(study):
    display = RandomEffectsDisplay.from_estimator(study)
    first = display.figure_
    assert display.plot(sort="panel") is display
    assert display.figure_ is not first
    assert_shows(display, 1, rows_of(study, "Subject", "Days").sort_values("estimate"))


def test_styles(study):
    display = RandomEffectsDisplay.from_estimator(
        study, line_kwargs={"lw": 5.0, "color": "red"}, scatter_kwargs={"s": 7.0, "color": "green"}
    )
    for lines in display.lines_.ravel():
        np.testing.assert_array_equal(lines.get_linewidth(), [5.0])
        np.testing.assert_array_equal(lines.get_color(), [to_rgba("red")])
    for filled, hollow in display.scatter_:
        for points in (filled, hollow):
            np.testing.assert_array_equal(points.get_sizes(), [7.0])
            np.testing.assert_array_equal(points.get_edgecolor(), [to_rgba("green")])
        np.testing.assert_array_equal(filled.get_facecolor(), [to_rgba("green")])
        np.testing.assert_array_equal(hollow.get_facecolor(), [WHITE])


def test_the_legend_tells_filled_points_from_hollow_ones(study):
    display = RandomEffectsDisplay.from_estimator(study)
    (legend,) = display.figure_.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "interval excludes zero",
        "interval holds zero",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": "plates"}, "no grouping factor 'plates'. Did you mean 'plate'"),
        ({"factor": ["plate", 3]}, "no grouping factor 3.* Choose from: 'plate', 'sample'"),
        ({"factor": []}, "factor is empty"),
        ({"effect": "Days"}, "'plate', 'sample' has no random effect 'Days'.*'intercept'"),
        ({"effect": "Days", "factor": "plate"}, "'plate' has no random effect 'Days'"),
        ({"sort": "estimate"}, "sort='estimate' is no order.* one of 'intercept'"),
        ({"sort": 1}, "sort=1 is no order"),
        ({"level": 95}, "level must be a probability"),
    ],
)
def test_bad_options(crossed, options, message):
    with pytest.raises(ValueError, match=message):
        RandomEffectsDisplay.from_estimator(crossed, **options)


def test_too_few_axes(crossed):
    _, axes = plt.subplots(1, 3)
    with pytest.raises(ValueError, match="draws 2 panels, but ax holds 3 axes"):
        RandomEffectsDisplay.from_estimator(crossed, ax=axes)


def test_an_axes_outside_a_grid(crossed):
    ax = plt.figure().add_axes((0.1, 0.1, 0.8, 0.8))
    with pytest.raises(ValueError, match="pass an array of 2 axes"):
        RandomEffectsDisplay.from_estimator(crossed, ax=ax)


def test_no_random_effects():
    with pytest.warns(NoGroupsWarning):
        model = lmer("Reaction ~ Days", SLEEP)
    with pytest.raises(ValueError, match="no random effects to draw"):
        RandomEffectsDisplay.from_estimator(model)


def test_long_labels_leave_room_for_the_panel():
    table = table_of(8)
    short = RandomEffectsDisplay(table=table, level=0.95).plot()
    names = [f"a school with a name of forty letters, {i}" for i in range(8)]
    long = RandomEffectsDisplay(table=table.assign(level=names), level=0.95).plot()
    widths = []
    for display in (short, long):
        display.figure_.canvas.draw()
        widths.append(display.axes_[0].get_window_extent().width)
    assert widths[1] > 0.85 * widths[0]


def test_random_effects_beside_a_residual_structure(mares):
    model = mares[0]
    display = RandomEffectsDisplay.from_estimator(model)
    pd.testing.assert_frame_equal(
        pd.DataFrame(display.table), pd.DataFrame(random_effects_table(model))
    )
