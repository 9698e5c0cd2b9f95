"""Curves of profile likelihoods: they pass through the profile and end where its intervals do."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.datasets import (
    load_dyestuff2,
    load_penicillin,
    load_sitka,
    load_sleepstudy,
)
from mixedlearn.inference import ProfileLikelihood, confidence_intervals, profile_likelihood
from mixedlearn.plot import ProfileLikelihoodDisplay

draw = ProfileLikelihoodDisplay.from_estimator

KINDS = ["log_likelihood", "deviance", "signed_root"]
LEVELS = [0.5, 0.8, 0.9, 0.95, 0.99]
SIX = [
    "sd(intercept|Subject)",
    "cor(intercept,Days|Subject)",
    "sd(Days|Subject)",
    "sd(noise)",
    "intercept",
    "Days",
]


@pytest.fixture(scope="module")
def dyestuff2():
    return lmer("Yield ~ 1 + (1 | Batch)", load_dyestuff2().frame)


@pytest.fixture(scope="module")
def sitka():
    return lmer("size ~ Time + (1 + Time | tree)", load_sitka().frame)


def height(kind, root):
    return {"log_likelihood": -(root**2) / 2.0, "deviance": root**2, "signed_root": root}[kind]


def at(line, places):
    """Height of a drawn curve at some places, which have to be among its points."""
    curve = pd.Series(line.get_ydata(), index=line.get_xdata())
    return curve.loc[places].to_numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_the_curve_passes_through_the_profile(study, kind):
    display = draw(study, SIX, kind=kind, n_points=12)
    for name, line, profile in zip(SIX, display.lines_, display.profiles, strict=True):
        table = profile_likelihood(study, name, n_points=12).table
        pd.testing.assert_frame_equal(profile.table, table)
        expected = height(kind, table["signed_root"].to_numpy())
        # Back from standard deviations, for which a value is a power of one, within rounding.
        np.testing.assert_allclose(at(line, table["value"].to_numpy()), expected, atol=1e-12)


@pytest.mark.parametrize("name", SIX)
def test_the_curve_is_the_profile_between_its_values_too(study, name):
    display = draw(study, name, kind="signed_root")
    x, y = display.lines_[0].get_data()
    assert len(x) > 200
    some = np.linspace(7, len(x) - 8, 9).astype(int)
    exact = profile_likelihood(study, name, values=x[some]).table["signed_root"]
    np.testing.assert_allclose(y[some], exact, atol=1e-3)
    assert (np.diff(y) > 0.0).all()


def test_the_estimate_is_on_the_curve(study):
    for kind in KINDS:
        display = draw(study, SIX, kind=kind, n_points=4)
        for line, estimate, profile in zip(
            display.lines_, display.estimates_, display.profiles, strict=True
        ):
            assert estimate.get_xydata().tolist() == [[profile.estimate, 0.0]]
            assert at(line, [profile.estimate]) == 0.0


def test_the_curve_has_no_kink_at_the_estimate(study):
    # The middle of this interval is the estimate, but for rounding.
    display = draw(study, "intercept", kind="signed_root")
    x, y = display.lines_[0].get_data()
    slopes = np.diff(y) / np.diff(x)
    middle = np.abs(x[:-1] - display.profiles[0].estimate) < 3.0
    np.testing.assert_allclose(slopes[middle], slopes[middle].mean(), rtol=0.02)


@pytest.mark.parametrize("kind", ["log_likelihood", "deviance"])
def test_cutoffs_run_between_the_ends_of_the_intervals(study, kind):
    display = draw(study, SIX, kind=kind)
    for panel, name in enumerate(SIX):
        across = display.cutoffs_[panel].get_segments()
        drops = display.drops_[panel].get_segments()
        assert (len(across), len(drops)) == (5, 10)
        for position, level in enumerate(LEVELS):
            intervals = confidence_intervals(study, name, method="profile", level=level)
            ends = intervals.loc[name, ["lower", "upper"]].to_numpy(dtype=float)
            width = ends[1] - ends[0]
            np.testing.assert_allclose(across[position][:, 0], ends, atol=2e-4 * width)
            expected = height(kind, np.sqrt(chi2.ppf(level, 1)))
            np.testing.assert_allclose(across[position][:, 1], expected)
            for side in (0, 1):
                drop = drops[2 * position + side]
                np.testing.assert_allclose(drop[:, 0], ends[side], atol=2e-4 * width)
                assert drop[1, 1] == across[position][0, 1]
            np.testing.assert_array_equal(
                display.intervals[panel].loc[level], across[position][:, 0]
            )
        floor = display.axes_[panel].get_ylim()[0] if kind == "log_likelihood" else 0.0
        assert {drop[0, 1] for drop in drops} == {floor}


def test_cutoffs_of_the_signed_root_are_on_both_sides(study):
    display = draw(study, "sd(Days|Subject)", kind="signed_root", levels=[0.95, 0.8])
    roots = np.sqrt(chi2.ppf([0.8, 0.95], 1))
    across = np.array(display.cutoffs_[0].get_segments())
    np.testing.assert_allclose(across[:, 0, 1], [-roots[0], roots[0], -roots[1], roots[1]])
    drops = np.array(display.drops_[0].get_segments())
    np.testing.assert_array_equal(drops[:, 0, 1], 0.0)
    np.testing.assert_allclose(drops[:, 1, 1], across[:, 0, 1])
    np.testing.assert_array_equal(drops[:, 0, 0], display.intervals[0].to_numpy().ravel())


def test_cutoffs_are_labelled_in_percent(study):
    display = draw(study, "Days", levels=[0.995, 0.5])
    texts = display.axes_[0].texts
    assert [text.get_text() for text in texts] == ["50%", "99.5%"]
    np.testing.assert_allclose(
        [text.xy[1] for text in texts],
        [segment[0, 1] for segment in display.cutoffs_[0].get_segments()],
    )


def test_a_level_above_the_usual_range_widens_it(study):
    display = draw(study, "sd(noise)", levels=0.999, scale="variance")
    ends = confidence_intervals(study, "sd(noise)", method="profile", level=0.999)
    expected = ends[["lower", "upper"]].to_numpy() ** 2
    np.testing.assert_allclose(display.intervals[0], expected, rtol=1e-6)
    np.testing.assert_allclose(display.lines_[0].get_xdata()[[0, -1]], expected[0])


def test_without_levels_only_the_curve(study):
    display = draw(study, "Days", levels=())
    assert not display.cutoffs_[0].get_segments()
    assert not display.axes_[0].texts
    assert display.intervals[0].empty


def test_a_standard_deviation_of_zero_has_one_sided_intervals(dyestuff2):
    name = "sd(intercept|Batch)"
    for kind in KINDS:
        display = draw(dyestuff2, [name, "sd(noise)"], kind=kind)
        intervals = display.intervals[0]
        assert intervals["lower"].isna().all()
        upper = [
            confidence_intervals(dyestuff2, name, method="profile", level=level)["upper"].iloc[0]
            for level in LEVELS
        ]
        np.testing.assert_allclose(intervals["upper"], upper, rtol=1e-4)
        assert len(display.drops_[0].get_segments()) == 5
        x, y = display.lines_[0].get_data()
        assert (x[0], y[0]) == (0.0, 0.0)
        # Cut-offs go to the bound.
        assert [segment[0, 0] for segment in display.cutoffs_[0].get_segments()] == [0.0] * 5
        assert display.intervals[1].notna().all(axis=None)


@pytest.mark.parametrize("name", ["sd(intercept|tree)", "sd(Time|tree)"])
def test_variances_by_reml(sitka, name):
    display = draw(sitka, name, scale="variance", reml=True)
    x, y = display.lines_[0].get_data()
    deviations = draw(sitka, name, reml=True)
    np.testing.assert_allclose(display.intervals[0], deviations.intervals[0] ** 2, rtol=1e-9)
    np.testing.assert_allclose(y, deviations.lines_[0].get_ydata(), atol=1e-6)
    np.testing.assert_allclose(x, deviations.lines_[0].get_xdata() ** 2, rtol=1e-9)
    ax = display.axes_[0]
    assert ax.get_xlabel() == name.replace("sd", "var")
    assert ax.get_ylabel() == "Relative log-likelihood\n(REML)"


def test_the_curve_by_reml_peaks_at_the_estimates_by_reml(sitka):
    display = draw(
        sitka, ["sd(intercept|tree)", "sd(Time|tree)"], scale="variance", reml=True, n_points=3
    )
    np.testing.assert_allclose(
        [estimate.get_xdata()[0] for estimate in display.estimates_],
        np.diag(sitka.covariances_["tree"]),
        rtol=1e-9,
    )


def test_labels(study):
    labels = ["Relative log-likelihood", "Profile deviance", "Signed root of deviance"]
    for kind, label in zip(KINDS, labels, strict=True):
        display = draw(study, ["Days", "sd(noise)"], kind=kind, n_points=3)
        assert [ax.get_xlabel() for ax in display.axes_] == ["Days", "sd(noise)"]
        assert [ax.get_ylabel() for ax in display.axes_] == [label, label]


def test_values_of_ones_own(study):
    display = draw(study, "sd(Days|Subject)", values=[9.0, 4.5, 7.0, 4.5])
    x, _ = display.lines_[0].get_data()
    assert (x[0], x[-1]) == (4.5, 9.0)
    intervals = display.intervals[0]
    exact = confidence_intervals(study, "sd(Days|Subject)", method="profile", level=0.5)
    np.testing.assert_allclose(intervals["upper"].loc[0.5], exact["upper"].iloc[0], rtol=1e-2)
    # The curve begins inside all but the narrowest interval, and ends inside the widest.
    assert intervals["lower"].notna().tolist() == [True, False, False, False, False]
    assert intervals["upper"].notna().tolist() == [True, True, True, True, False]
    assert len(display.drops_[0].get_segments()) == 5
    across = display.cutoffs_[0].get_segments()
    assert (across[4][0, 0], across[4][1, 0]) == (4.5, 9.0)


def test_values_on_one_side_of_the_estimate(study):
    display = draw(study, "sd(Days|Subject)", values=[7.0, 8.0, 9.0])
    x, _ = display.lines_[0].get_data()
    assert (x[0], x[-1]) == (7.0, 9.0)
    assert display.intervals[0]["lower"].isna().all()


def test_a_value_of_infinite_deviance_is_left_out(study):
    display = draw(study, "sd(noise)", values=[0.0, 20.0, 25.0, 30.0])
    x, y = display.lines_[0].get_data()
    assert x[0] == 20.0
    assert np.isfinite(y).all()


def test_profiles_that_were_computed_before(study):
    profiles = [profile_likelihood(study, name, n_points=9) for name in ("Days", "sd(noise)")]
    display = ProfileLikelihoodDisplay(profiles=profiles, kind="deviance", levels=[0.9])
    display.plot()
    expected = draw(study, ["Days", "sd(noise)"], kind="deviance", levels=[0.9], n_points=9)
    for line, other in zip(display.lines_, expected.lines_, strict=True):
        np.testing.assert_array_equal(line.get_xydata(), other.get_xydata())
    alone = ProfileLikelihoodDisplay(profiles=profiles[0]).plot()
    assert len(alone.axes_) == 1
    assert isinstance(alone.profiles[0], ProfileLikelihood)


def test_weights_groups_and_parameters_of_the_constructor(study):
    X, y = load_sleepstudy(return_X_y=True)
    beside = MixedLinearRegressor(random_slopes=["Days"]).fit(X[["Days"]], y, groups=X["Subject"])
    found = draw(beside, "sd(Days|Subject)").intervals[0]
    pd.testing.assert_frame_equal(found, draw(study, "sd(Days|Subject)").intervals[0], atol=1e-4)
    weights = np.linspace(0.5, 2.0, 180)
    weighted = MixedLinearRegressor(groups="Subject").fit(X, y, sample_weight=weights)
    found = draw(weighted, "sd(intercept|Subject)", levels=[0.95]).intervals[0]
    expected = confidence_intervals(weighted, "sd(intercept|Subject)", method="profile")
    np.testing.assert_allclose(found, expected[["lower", "upper"]], rtol=1e-4)


def test_crossed_factors():
    X, y = load_penicillin(return_X_y=True)
    model = MixedLinearRegressor(groups=["plate", "sample"]).fit(X, y)
    name = "sd(intercept|sample)"
    display = draw(model, name, levels=[0.95])
    expected = confidence_intervals(model, name, method="profile")[["lower", "upper"]]
    np.testing.assert_allclose(display.intervals[0], expected, rtol=2e-3)


def test_drawing_on_given_axes_and_again(study):
    figure, axes = plt.subplots(2, 1)
    display = draw(study, ["Days", "sd(noise)"], n_points=5, ax=axes)
    assert list(display.axes_) == list(axes)
    assert display.figure_ is figure
    first = [line.get_xydata() for line in display.lines_]
    display.kind = "deviance"
    assert display.plot() is display
    assert display.figure_ is not figure
    for line, before in zip(display.lines_, first, strict=True):
        np.testing.assert_allclose(line.get_ydata(), -2.0 * before[:, 1])
    ax = plt.figure().subplots()
    assert draw(study, "Days", n_points=5, ax=ax).axes_[0] is ax


def test_styles(study):
    display = draw(
        study,
        "Days",
        n_points=5,
        line_kwargs={"lw": 5, "c": "red"},
        cutoff_kwargs={"lw": 3, "color": "green"},
    )
    assert display.lines_[0].get_linewidth() == 5
    assert display.lines_[0].get_color() == "red"
    for collection in (display.cutoffs_[0], display.drops_[0]):
        assert collection.get_linewidth() == [3]


@pytest.mark.parametrize(
    ("parameters", "arguments", "message"),
    [
        ("sd(days|Subject)", {}, "no parameter 'sd\\(days\\|Subject\\)'.*did you mean"),
        ([], {}, "parameters is empty"),
        ("Days", {"kind": "zeta"}, "kind must be one of .*'zeta'"),
        ("Days", {"levels": [0.5, 95]}, "level must be a probability"),
        ("Days", {"reml": True}, "Set reml=False"),
        ("Days", {"scale": "variance"}, "scale='variance' is for standard deviations"),
        ("Days", {"n_points": 0, "levels": 0.999}, "n_points must be a positive integer"),
        ("Days", {"n_points": 1}, "'Days' has fewer than two values"),
    ],
)
def test_arguments_that_are_refused(study, parameters, arguments, message):
    with pytest.raises(ValueError, match=f"(?i){message}"):
        draw(study, parameters, **arguments)


def test_what_else_is_refused(study, dyestuff2):
    with pytest.raises(ValueError, match="profiles is empty"):
        ProfileLikelihoodDisplay(profiles=[])
    profile = profile_likelihood(dyestuff2, "sd(noise)", n_points=5)
    with pytest.raises(ValueError, match="kind must be one of"):
        ProfileLikelihoodDisplay(profiles=profile, kind="cubic").plot()
