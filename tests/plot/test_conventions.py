"""What all displays have in common: scikit-learn's conventions, axes, refusals and names."""

import inspect
import pickle
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.artist import Artist
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from mixedlearn import MixedLinearRegressor, plot
from mixedlearn.exceptions import NoGroupsWarning
from mixedlearn.inference import coefficient_table
from mixedlearn.plot._style import legend_above, name_places
from mixedlearn.plot._text import shortened, three_digits

DISPLAYS = [getattr(plot, name) for name in plot.__all__]
# Of random effects or of levels: without groups there is nothing to draw.
NEEDS_GROUPS = [
    plot.CovarianceDisplay,
    plot.GroupLinesDisplay,
    plot.QQDisplay,
    plot.RandomEffectsDisplay,
    plot.SimulatedPredictionsDisplay,
]

every_display = pytest.mark.parametrize("display_class", DISPLAYS, ids=plot.__all__)


def draw(display_class, model, X, y, **options):
    rest = {
        plot.GroupLinesDisplay: (X, y),
        plot.ResidualsDisplay: (X, y),
        plot.SimulatedPredictionsDisplay: (X.head(2),),
        plot.ProfileLikelihoodDisplay: ("sd(noise)",),
    }
    if display_class is plot.MarginalMeansDisplay and isinstance(X, pd.DataFrame):
        covariate = X.columns[0]
        return display_class.from_estimator(model, covariate, at={covariate: [0, 9]}, **options)
    return display_class.from_estimator(model, *rest.get(display_class, ()), **options)


def axes_of(display):
    return [display.ax_] if hasattr(display, "ax_") else list(display.axes_)


def artists_of(display):
    """The attributes that hold artists, with the number of artists in each."""
    return {
        name: np.shape(value) if isinstance(value, np.ndarray) else type(value)
        for name, value in vars(display).items()
        if name.endswith("_") and isinstance(value, (np.ndarray, Artist))
    }


def all_texts(figure):
    return [text.get_text() for text in figure.findobj(plt.Text)]


@every_display
def test_signatures(display_class):
    made = list(inspect.signature(display_class).parameters.values())
    assert {parameter.kind for parameter in made} == {inspect.Parameter.KEYWORD_ONLY}
    parameters = list(inspect.signature(display_class.plot).parameters.values())[1:]
    assert parameters[0].name == "ax"
    assert parameters[0].default is None
    assert {own.kind for own in parameters[1:]} == {inspect.Parameter.KEYWORD_ONLY}
    from_estimator = list(inspect.signature(display_class.from_estimator).parameters)
    assert from_estimator[0] == "estimator"
    # What plot takes can be given at once, the styles last.
    names = [own.name for own in parameters]
    styles = [name for name in names if name.endswith("_kwargs")]
    assert from_estimator[-len(styles) - 1 :] == ["ax", *styles]
    assert set(names) <= set(from_estimator)


@every_display
def test_what_it_was_made_of_is_in_attributes(display_class, sleepstudy):
    display = draw(display_class, *sleepstudy)
    given = {name: getattr(display, name) for name in inspect.signature(display_class).parameters}
    again = display_class(**given)
    assert not any(name.endswith("_") for name in vars(again))
    assert again.plot() is again
    assert all_texts(again.figure_) == all_texts(display.figure_)
    assert artists_of(again) == artists_of(display)


@every_display
def test_a_display_survives_pickling(display_class, sleepstudy):
    display = draw(display_class, *sleepstudy)
    again = pickle.loads(pickle.dumps(display)).plot()
    assert all_texts(again.figure_) == all_texts(display.figure_)


@every_display
def test_all_panels_fit_in_the_place_of_one_axes(display_class, sleepstudy):
    left, right = plt.figure(layout="constrained").subfigures(1, 2)
    other = left.subplots()
    place = right.subplots()
    display = draw(display_class, *sleepstudy, ax=place)
    assert display.figure_ is right
    # No empty axes are left behind the panels.
    assert place.axison == (place in axes_of(display))
    assert not other.has_data()
    assert all(own.figure is right for own in axes_of(display))
    assert display.plot(other) is display
    assert display.figure_ is left


@pytest.mark.slow_cases(every=3)
@every_display
def test_names_with_dollars_are_no_formulae(display_class, sleepstudy):
    _, X, y = sleepstudy
    X = X.rename(columns={"Days": "$x_1$ \\frac{", "Subject": "$g^$_{"})
    X["$g^$_{"] = [f"$l_{{{level}}}$" for level in X["$g^$_{"]]
    model = MixedLinearRegressor(groups="$g^$_{", random_slopes=["$x_1$ \\frac{"]).fit(X, y)
    if display_class is plot.ProfileLikelihoodDisplay:
        display = display_class.from_estimator(model, ["sd(intercept|$g^$_{)", "$x_1$ \\frac{"])
    else:
        display = draw(display_class, model, X, y.rename("$y_"))
    display.figure_.canvas.draw()
    for text in display.figure_.findobj(plt.Text):
        is_plain = "$" not in text.get_text().replace(r"\$", "")
        assert is_plain or not text.get_parse_math(), text.get_text()


@pytest.mark.slow_cases(every=3)
@every_display
def test_long_names_leave_room_for_the_panels(display_class, sleepstudy):
    _, X, y = sleepstudy
    long = "a name that is much longer than any name should ever be, and yet it occurs"
    X = X.rename(columns={"Days": f"{long} x", "Subject": long})
    X[long] = [f"{long} {level}" for level in X[long]]
    model = MixedLinearRegressor(groups=long, random_slopes=[f"{long} x"]).fit(X, y)
    display = draw(display_class, model, X, y)
    # Where panels vanish, the layout warns, and warnings are errors.
    display.figure_.canvas.draw()
    for own in axes_of(display):
        extent = own.get_window_extent()
        assert min(extent.width, extent.height) > 0.5 * display.figure_.dpi


@every_display
def test_what_is_no_fitted_model_is_refused(display_class, sleepstudy):
    model, X, y = sleepstudy
    pipeline = make_pipeline(FunctionTransformer(), model)
    with pytest.raises(TypeError) as by_inference:
        coefficient_table(pipeline)
    with pytest.raises(TypeError) as by_display:
        draw(display_class, pipeline, X, y)
    assert str(by_display.value) == str(by_inference.value)
    with pytest.raises(TypeError, match="got the class MixedLinearRegressor"):
        draw(display_class, MixedLinearRegressor, X, y)
    with pytest.raises(NotFittedError):
        draw(display_class, MixedLinearRegressor(), X, y)


@pytest.mark.parametrize("display_class", NEEDS_GROUPS)
def test_no_groups_no_picture(display_class, sleepstudy):
    _, X, y = sleepstudy
    X = X[["Days"]]
    with pytest.warns(NoGroupsWarning):
        model = MixedLinearRegressor().fit(X, y)
    with pytest.raises(ValueError, match="fitted without groups, so it has no random effects"):
        draw(display_class, model, X, y)


@pytest.mark.parametrize("display_class", NEEDS_GROUPS)
def test_a_factor_that_there_is_not(display_class, sleepstudy):
    message = r"no grouping factor 'subject'\. Did you mean 'Subject'\? Choose from: 'Subject'\."
    with pytest.raises(ValueError, match=message):
        draw(display_class, *sleepstudy, factor="subject")


@pytest.mark.parametrize(
    "display_class",
    [plot.GroupLinesDisplay, plot.RandomEffectsDisplay, plot.SimulatedPredictionsDisplay],
)
def test_labels_that_are_days(display_class, sleepstudy):
    _, X, y = sleepstudy
    X = X.assign(Subject=pd.Timestamp("2026-01-01") + pd.to_timedelta(X["Subject"], "D"))
    model = MixedLinearRegressor(groups="Subject").fit(X, y)
    texts = all_texts(draw(display_class, model, X, y).figure_)
    assert "2026-11-05" in texts
    assert not any("00:00" in text for text in texts)


def test_three_digits():
    sizes = [0.0, 0.13999, 0.9996, 1.0, 12.345, 123_456.0, 2.5e6, 3.0e-5]
    texts = ["0", "0.140", "1.00", "1.00", "12.3", "123000", "2.50e+06", "3.00e-05"]
    assert list(map(three_digits, sizes)) == texts


def test_names_are_shortened_in_the_middle():
    assert shortened("intercept", 1.0) == "intercept"
    assert shortened("abcdefghijklmnopqrstuvwxyz", 1.0) == "abcdefg\u2026xyz"
    assert shortened("abcdef", 0.0) == "ab\u2026f"


def test_names_of_places_turn_where_they_would_overlap():
    short, long = plt.figure().subplots(1, 2)
    name_places(short, ["a", "b", "c"])
    name_places(long, ["a long name", "another one", "a third", "and a fourth"])
    for ax, rotation in ((short, 0.0), (long, 90.0)):
        assert {label.get_rotation() for label in ax.get_xticklabels()} == {rotation}


def test_small_and_pale_points_can_be_seen_in_a_legend():
    figure = plt.figure(layout="constrained")
    points = figure.subplots().scatter([0.0], [0.0], s=1.0, alpha=0.1, label="data")
    (handle,) = legend_above(figure, [points]).legend_handles
    assert handle.get_sizes()[0] == 14.0
    assert handle.get_alpha() == 1.0


@every_display
def test_without_matplotlib_it_is_said_what_to_install(display_class, sleepstudy, monkeypatch):
    display = draw(display_class, *sleepstudy)
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    name = display_class.__name__
    with pytest.raises(
        ImportError, match=rf"^{name}\.from_estimator requires matplotlib"
    ) as raised:
        draw(display_class, *sleepstudy)
    assert "pip install matplotlib" in str(raised.value)
    with pytest.raises(ImportError, match=rf"^{name} requires matplotlib"):
        display.plot()
