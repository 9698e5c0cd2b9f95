"""Pictures of variance components: bars, cells and numbers are those of the model."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.datasets import load_dyestuff2, load_pastes, load_sleepstudy
from mixedlearn.exceptions import NoGroupsWarning
from mixedlearn.inference import r2, variance_table
from mixedlearn.plot import CovarianceDisplay
from reference.noise_models import fit

SLEEP = load_sleepstudy().frame
MASK = np.array([[True, True, False], [True, True, False], [False, False, True]])


def slopes(covariance, q=3):
    """A model with a random intercept and q - 1 random slopes for two factors."""
    rng = np.random.default_rng(1)
    names = [f"x{i}" for i in range(1, q)]
    X = pd.DataFrame(rng.normal(size=(400, q - 1)), columns=names)
    X["g"], X["h"] = rng.integers(0, 30, 400), rng.integers(0, 20, 400)
    effects = rng.normal(size=(30, q)) @ (np.eye(q) - 0.6 * np.eye(q, k=1))
    columns = np.column_stack([np.ones(400), X[names]])
    y = (columns * effects[X["g"]]).sum(axis=1) + rng.normal(size=20)[X["h"]]
    return MixedLinearRegressor(
        groups=["g", "h"],
        fixed_effects=names,
        random_slopes={"g": names},
        covariance={"g": covariance},
    ).fit(X, y + 0.5 * rng.normal(size=400))


@pytest.fixture(scope="module")
def masked():
    return slopes(MASK)


def texts(display, panel):
    return [text.get_text() for text in display.texts_[panel]]


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_bars_are_standard_deviations_with_the_noise_last(study):
    display = CovarianceDisplay.from_estimator(study)
    table = variance_table(study, std_error=False).dropna(subset="sd")
    np.testing.assert_allclose([bar.get_width() for bar in display.bars_], table["sd"])
    assert all(bar.get_x() == 0.0 for bar in display.bars_)
    ax = display.axes_[0]
    assert tick_labels(ax.yaxis) == ["intercept", "Days", "noise"]
    assert texts(display, 0) == ["24.7", "5.92", "25.6"]
    assert ax.get_title() == "Subject: standard deviations"
    assert ax.get_xlabel() == "Response units\n(slopes: per unit of column)"
    assert ax.get_xlim()[0] == 0.0
    # The first effect is on top.
    assert ax.yaxis_inverted()
    np.testing.assert_allclose(display.standard_deviations["Subject"], table["sd"].iloc[:2])
    assert display.noise_standard_deviation == pytest.approx(study.noise_variance_**0.5)


def test_the_noise_is_told_by_its_hatching(study):
    *effects, noise = CovarianceDisplay.from_estimator(study).bars_
    assert noise.get_hatch()
    assert not any(bar.get_hatch() for bar in effects)


def test_numbers_stand_at_the_ends_of_the_bars(study):
    display = CovarianceDisplay.from_estimator(study)
    for bar, text in zip(display.bars_, display.texts_[0], strict=True):
        assert text.xy == (bar.get_width(), bar.get_y() + bar.get_height() / 2.0)


def test_contributions_are_the_parts_of_r2():
    # Without covariances, the variance of an average row is the sum of the contributions' squares.
    model = lmer("Reaction ~ Days + (1 + Days || Subject)", SLEEP)
    display = CovarianceDisplay.from_estimator(model, scale="contribution")
    widths = np.array([bar.get_width() for bar in display.bars_])
    square = (SLEEP["Days"] ** 2).mean()
    days = np.sqrt(model.covariances_["Subject"].loc["Days", "Days"] * square)
    assert widths[1] == pytest.approx(days)
    shares = r2(model)
    random = (widths[:2] ** 2).sum()
    total = random / (shares["conditional"] - shares["marginal"])
    assert total * (1.0 - shares["conditional"]) == pytest.approx(widths[2] ** 2)
    assert display.axes_[0].get_title() == "Subject: contributions"
    assert display.axes_[0].get_xlabel() == "Response units, in an average row"
    # The numbers are those of the bars.
    assert texts(display, 0)[1] == f"{days:.1f}"


def test_contributions_do_not_depend_on_the_unit_of_the_column_or_the_scale_of_weights(study):
    frame = SLEEP.assign(Days=SLEEP["Days"] * 24.0)
    weights = np.full(len(SLEEP), 5.0)
    hours = lmer("Reaction ~ Days + (1 + Days | Subject)", frame, sample_weight=weights)
    ours, theirs = (CovarianceDisplay.from_estimator(model) for model in (study, hours))
    np.testing.assert_allclose(
        ours.contributions["Subject"], theirs.contributions["Subject"], rtol=1e-5
    )
    assert ours.noise_contribution == pytest.approx(theirs.noise_contribution, rel=1e-5)
    assert ours.standard_deviations["Subject"]["Days"] == pytest.approx(
        24.0 * theirs.standard_deviations["Subject"]["Days"], rel=1e-5
    )


def test_cells_are_correlations():
    model = slopes("full")
    display = CovarianceDisplay.from_estimator(model)
    covariance = model.covariances_["g"].to_numpy()
    sd = np.sqrt(np.diag(covariance))
    expected = covariance / np.outer(sd, sd)
    (image,) = display.images_
    shown = image.get_array()
    np.testing.assert_array_equal(shown.mask, np.eye(3, dtype=bool))
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(shown.data[off], expected[off])
    assert expected[off].min() < -0.2  # a sign that can be lost
    assert image.get_clim() == (-1.0, 1.0)
    numbers = ["1" if i == j else f"{expected[i, j]:.2f}" for i in range(3) for j in range(3)]
    assert texts(display, 1) == numbers
    positions = [text.get_position() for text in display.texts_[1]]
    assert positions == [(j, i) for i in range(3) for j in range(3)]
    ax = display.axes_[1]
    assert tick_labels(ax.xaxis) == tick_labels(ax.yaxis) == ["intercept", "x1", "x2"]
    assert ax.yaxis_inverted()
    assert ax.get_title() == "g: correlations"
    assert ax.get_xlabel() == ""
    np.testing.assert_allclose(display.correlations["g"], expected)


def test_a_bar_for_every_factor_and_a_matrix_where_there_are_slopes(masked):
    display = CovarianceDisplay.from_estimator(masked)
    assert tick_labels(display.axes_[0].yaxis) == [
        "intercept | g",
        "x1 | g",
        "x2 | g",
        "intercept | h",
        "noise",
    ]
    assert [ax.get_title() for ax in display.axes_] == ["Standard deviations", "g: correlations"]
    assert list(display.correlations) == ["g", "h"]


def test_covariances_that_the_model_fixes_at_zero_are_hatched(masked):
    display = CovarianceDisplay.from_estimator(masked)
    np.testing.assert_array_equal(display.free["g"], MASK)
    assert (display.correlations["g"].to_numpy()[~MASK] == 0.0).all()
    (image,) = display.images_
    np.testing.assert_array_equal(image.get_array().mask, ~MASK | np.eye(3, dtype=bool))
    ax = display.axes_[1]
    (hatched,) = [artist for artist in ax.collections if artist.get_hatch()]
    centres = [tuple(path.vertices[:4].mean(axis=0)) for path in hatched.get_paths()]
    assert sorted(centres) == sorted((j, i) for i, j in np.argwhere(~MASK))
    numbers = np.array(texts(display, 1)).reshape(3, 3)
    assert (numbers[~MASK] == "0").all()
    assert ax.get_xlabel() == "Hatched: fixed at zero"


@pytest.mark.parametrize("covariance", ["diagonal", "scalar"])
def test_without_covariances_all_cells_are_hatched(covariance):
    display = CovarianceDisplay.from_estimator(slopes(covariance), factor="g")
    assert display.images_[0].get_array().mask.all()
    assert texts(display, 1) == ["1", "0", "0", "0", "1", "0", "0", "0", "1"]


def without_variance(covariance):
    """Noise that is orthogonal to the columns of every level leaves nothing to random effects."""
    rng = np.random.default_rng(0)
    x = np.arange(6.0)
    columns = np.column_stack([np.ones(6), x])
    noise = rng.normal(size=(6, 10))
    noise -= columns @ np.linalg.lstsq(columns, noise, rcond=None)[0]
    X = pd.DataFrame({"x": np.tile(x, 10), "g": np.repeat(np.arange(10), 6)})
    model = MixedLinearRegressor(groups="g", random_slopes=["x"], covariance=covariance)
    return model.fit(X, X["x"] + noise.T.ravel())


def test_correlations_without_variance_are_undefined():
    display = CovarianceDisplay.from_estimator(without_variance("full"))
    assert not display.standard_deviations["g"].any()
    assert display.correlations["g"].isna().all(axis=None)
    assert texts(display, 1) == ["\u2013"] * 4
    assert display.images_[0].get_array().mask.all()
    assert display.axes_[1].get_xlabel() == "\u2013: zero variance"


def test_covariances_that_are_fixed_at_zero_are_so_without_variance_too():
    display = CovarianceDisplay.from_estimator(without_variance("diagonal"))
    assert texts(display, 1) == ["\u2013", "0", "0", "\u2013"]
    notes = "Hatched: fixed at zero\n\u2013: zero variance"
    assert display.axes_[1].get_xlabel() == notes


def test_a_variance_of_zero():
    model = lmer("Yield ~ 1 + (1 | Batch)", load_dyestuff2().frame)
    display = CovarianceDisplay.from_estimator(model)
    intercept, noise = display.bars_
    assert intercept.get_width() == 0.0
    assert noise.get_width() == pytest.approx(model.noise_variance_**0.5)
    assert texts(display, 0) == ["0", "3.72"]
    assert len(display.images_) == 0
    assert np.isnan(display.correlations["Batch"].to_numpy()).all()


def test_nested_factors():
    model = lmer("strength ~ 1 + (1 | batch/cask)", load_pastes().frame)
    display = CovarianceDisplay.from_estimator(model)
    assert texts(display, 0) == ["1.29", "2.90", "0.823"]
    only = CovarianceDisplay.from_estimator(model, factor=("batch", "cask"))
    assert texts(only, 0) == ["2.90", "0.823"]
    assert only.axes_[0].get_title() == "batch:cask: standard deviations"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0.0, "0"),
        (3.0, "3.00"),
        (123.4, "123"),
        (123456.0, "123000"),
        (1.2345e7, "1.23e+07"),
        (0.0012345, "0.00123"),
        (1.2345e-7, "1.23e-07"),
    ],
)
def test_numbers_have_three_significant_digits(size, text):
    display = CovarianceDisplay(
        standard_deviations={"g": pd.Series([size], index=["intercept"])},
        correlations={"g": pd.DataFrame([[1.0]])},
        free={"g": pd.DataFrame([[True]])},
        contributions={"g": pd.Series([size], index=["intercept"])},
        noise_standard_deviation=0.0,
        noise_contribution=0.0,
    ).plot()
    assert texts(display, 0) == [text, "0"]


def matrix_of(q, seed=0):
    """A display of a factor with q effects."""
    rng = np.random.default_rng(seed)
    names = ["intercept", *(f"column_{i}" for i in range(1, q))]
    correlations = np.corrcoef(rng.normal(size=(q, q + 3)))
    sd = pd.Series(rng.uniform(0.5, 2.0, q), index=names)
    return CovarianceDisplay(
        standard_deviations={"g": sd},
        correlations={"g": pd.DataFrame(correlations, names, names)},
        free={"g": pd.DataFrame(np.ones((q, q), dtype=bool), names, names)},
        contributions={"g": sd},
        noise_standard_deviation=1.0,
        noise_contribution=1.0,
    )


@pytest.mark.parametrize("q", [2, 5, 20])
def test_numbers_fit_their_cells(q):
    display = matrix_of(q).plot()
    display.figure_.canvas.draw()
    cell = display.axes_[1].get_window_extent().width / q
    assert max(text.get_window_extent().width for text in display.texts_[1]) < cell
    bars = display.axes_[0].get_window_extent()
    assert all(text.get_window_extent().x1 < bars.x1 for text in display.texts_[0])
    assert all(text.get_fontsize() >= 9 for text in display.texts_[1])


def luminance(color):
    linear = np.array(color[:3])
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_numbers_stand_out_from_their_cells():
    display = matrix_of(9).plot()
    values = np.linspace(-1.0, 1.0, 81).reshape(9, 9)
    display.correlations["g"].iloc[:, :] = values
    display.plot()
    (image,) = display.images_
    for text, value in zip(display.texts_[1], values.ravel(), strict=True):
        if text.get_text() == "1":
            continue
        pair = [luminance(to_rgba(text.get_color())), luminance(image.cmap(image.norm(value)))]
        # The contrast that the Web Content Accessibility Guidelines ask of large text is 3.
        assert (max(pair) + 0.05) / (min(pair) + 0.05) > 4.0


def test_signs_differ_in_grey():
    image = matrix_of(3).plot().images_[0]
    for size in (0.5, 1.0):
        positive, negative = (luminance(image.cmap(image.norm(r))) for r in (size, -size))
        assert negative > positive + 0.1


def test_four_matrices_go_on_in_a_further_row():
    one = matrix_of(2)
    names = list("abcd")
    display = CovarianceDisplay(
        standard_deviations=dict.fromkeys(names, one.standard_deviations["g"]),
        correlations=dict.fromkeys(names, one.correlations["g"]),
        free=dict.fromkeys(names, one.free["g"]),
        contributions=dict.fromkeys(names, one.contributions["g"]),
        noise_standard_deviation=1.0,
        noise_contribution=1.0,
    ).plot()
    display.figure_.canvas.draw()
    boxes = [ax.get_window_extent() for ax in display.axes_]
    assert len(boxes) == 5
    assert boxes[0].x1 < boxes[1].x0 < boxes[1].x1 < boxes[2].x0
    assert max(boxes[3].y1, boxes[4].y1) < min(box.y0 for box in boxes[:3])


def test_axes_given(study):
    figure, axes = plt.subplots(1, 2)
    display = CovarianceDisplay.from_estimator(study, ax=axes)
    assert display.axes_.tolist() == axes.tolist()
    assert display.figure_ is figure
    _, ax = plt.subplots()
    dyestuff = lmer("Yield ~ 1 + (1 | Batch)", load_dyestuff2().frame)
    assert CovarianceDisplay.from_estimator(dyestuff, ax=ax).axes_.tolist() == [ax]
    figure, (left, right) = plt.subplots(1, 2)
    display = CovarianceDisplay.from_estimator(study, ax=left)
    figure.canvas.draw()
    assert len(display.axes_) == 2
    assert max(own.get_position().x1 for own in display.axes_) < right.get_position().x0


def test_styles(study):
    display = CovarianceDisplay.from_estimator(
        study,
        bar_kwargs={"height": 0.3, "color": "red"},
        image_kwargs={"cmap": "RdBu"},
        text_kwargs={"size": 6.0},
    )
    assert [bar.get_height() for bar in display.bars_] == pytest.approx([0.3] * 3)
    assert display.bars_[0].get_facecolor() == to_rgba("red")
    assert display.images_[0].cmap.name == "RdBu"
    assert {text.get_fontsize() for panel in display.texts_ for text in panel} == {6.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": "plates"}, "no grouping factor 'plates'. Did you mean 'plate'"),
        ({"factor": []}, "factor is empty"),
        ({"scale": "variance"}, "scale='variance' is unknown: use 'sd' or 'contribution'"),
        ({"ax": []}, "draws 1 panels, but ax holds 0 axes"),
    ],
)
def test_bad_options(crossed, options, message):
    with pytest.raises(ValueError, match=message):
        CovarianceDisplay.from_estimator(crossed, **options)


def test_no_random_effects():
    with pytest.warns(NoGroupsWarning):
        model = lmer("Reaction ~ Days", SLEEP)
    with pytest.raises(ValueError, match="no random effects to draw"):
        CovarianceDisplay.from_estimator(model)


def test_noise_of_a_residual_structure():
    found = fit("orthodont_strata")
    display = CovarianceDisplay.from_estimator(found.model)
    assert display.noise_standard_deviation == pytest.approx(np.sqrt(found.model.noise_variance_))
    expected = np.sqrt(np.diag(found.R).mean())
    assert display.noise_contribution == pytest.approx(expected)
    variance = found.model.covariances_["Subject"].iloc[0, 0]
    assert display.contributions["Subject"]["intercept"] == pytest.approx(np.sqrt(variance))
