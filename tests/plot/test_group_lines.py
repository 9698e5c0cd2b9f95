"""Lines of every level: what is drawn is what the model predicts, and the data."""

import copy

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
from matplotlib.collections import LineCollection, PathCollection

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.datasets import (
    load_cake,
    load_dietox,
    load_dyestuff,
    load_insteval,
    load_pastes,
)
from mixedlearn.exceptions import DegenerateModelWarning
from mixedlearn.plot import GroupLinesDisplay

draw = GroupLinesDisplay.from_estimator


@pytest.fixture(scope="module")
def dietox():
    pigs = load_dietox()
    X, y = pigs.data[["Pig", "Time"]], pigs.target
    return MixedLinearRegressor(groups="Pig", random_slopes=["Time"]).fit(X, y), X, y


@pytest.fixture(scope="module")
def pupils():
    """Pupils in classes in schools, with a covariate of each kind."""
    generator = np.random.default_rng(0)
    n = 600
    room = generator.integers(0, 24, n)
    effects = generator.normal(size=(24, 2))
    X = pd.DataFrame(
        {
            "age": generator.uniform(6, 12, n),
            "hours": generator.uniform(0, 5, n),
            "sex": generator.choice(["boy", "girl"], n),
            "school": np.array(list("ABCDEF"))[room // 4],
            "room": [f"r{number:02d}" for number in room],
        }
    )
    y = X["age"] + effects[room, 0] + 0.3 * effects[room, 1] * X["age"] + generator.normal(size=n)
    return X, y.rename("score")


def segments_of(collection):
    return [np.asarray(segment) for segment in collection.get_segments()]


def held_at(X, chosen, **values):
    """Rows with the typical values of the chosen ones."""
    own = X[chosen]
    row = {
        name: column.mean() if column.dtype.kind in "if" else column.mode()[0]
        for name, column in own.items()
    }
    n = len(next(iter(values.values())))
    return pd.DataFrame({name: [value] * n for name, value in row.items()}).assign(**values)


class TestPanels:
    def test_a_panel_for_every_level(self, sleepstudy):
        model, X, y = sleepstudy
        display = draw(model, X, y)
        subjects = sorted(X["Subject"].unique())
        assert [axes.get_title() for axes in display.axes_] == list(map(str, subjects))
        assert not hasattr(display, "ax_")
        assert display.figure_ is display.axes_[0].figure
        for axes, line, scatter, subject in zip(
            display.axes_, display.lines_, display.scatter_, subjects, strict=True
        ):
            own = X["Subject"] == subject
            (segment,) = segments_of(line)
            assert line in axes.collections
            np.testing.assert_allclose(segment[:, 0], [0, 9])
            np.testing.assert_allclose(segment[:, 1], model.predict(X[own])[[0, -1]])
            np.testing.assert_allclose(
                scatter.get_offsets(), np.column_stack([X.loc[own, "Days"], y[own]])
            )

    def test_every_panel_has_the_population(self, sleepstudy):
        model, X, y = sleepstudy
        display = draw(model, X, y)
        expected = model.predict(X.head(10), random_effects="none")[[0, -1]]
        for line in display.population_lines_:
            np.testing.assert_allclose(line.get_ydata(), expected)
            assert line.get_linestyle() == "--"

    def test_labels(self, sleepstudy):
        model, X, y = sleepstudy
        display = draw(model, X, y)
        assert display.figure_.get_supxlabel() == "Days"
        assert display.figure_.get_supylabel() == "Reaction"
        (legend,) = display.figure_.legends
        assert [text.get_text() for text in legend.get_texts()] == [
            "data",
            "each Subject",
            "population",
        ]

    def test_axes_are_shared(self, sleepstudy):
        model, X, y = sleepstudy
        display = draw(model, X, y)
        assert len({axes.get_xlim() for axes in display.axes_}) == 1
        assert len({axes.get_ylim() for axes in display.axes_}) == 1

    def test_the_last_panel_of_every_column_has_tick_labels(self, sleepstudy):
        model, X, y = sleepstudy
        display = draw(model, X, y, levels=[308, 309, 310, 330, 331])
        shown = [axes.xaxis.get_major_ticks()[0].label1.get_visible() for axes in display.axes_]
        assert shown == [False, False, True, True, True]

    def test_levels_in_the_order_given(self, sleepstudy):
        model, X, y = sleepstudy
        display = draw(model, X, y, levels=[335, 308, 335])
        assert [axes.get_title() for axes in display.axes_] == ["335", "308"]
        own = X["Subject"] == 335
        np.testing.assert_allclose(
            segments_of(display.lines_[0])[0][:, 1], model.predict(X[own])[[0, -1]]
        )
        assert len(display.points) == 20

    def test_facets_can_be_forced_and_refused(self, sleepstudy, dietox):
        model, X, y = sleepstudy
        display = draw(model, X, y, facets=False)
        assert display.axes_.shape == (1,)
        assert len(segments_of(display.lines_[0])) == 18
        pigs, X, y = dietox
        levels = X["Pig"].unique()[:21].tolist()
        assert len(draw(pigs, X, y, levels=levels).axes_) == 1
        assert len(draw(pigs, X, y, levels=levels, facets=True).axes_) == 21
        with pytest.raises(ValueError, match=r"facets must be True, False or 'auto', got 'yes'"):
            draw(pigs, X, y, facets="yes")

    def test_labels_of_an_interaction(self):
        X, y = load_pastes(return_X_y=True)
        X = X[["batch", "cask"]].assign(day=np.arange(60) % 7)
        model = MixedLinearRegressor(groups=["batch", ("batch", "cask")]).fit(X, y)
        display = draw(model, X, y, factor=("batch", "cask"), levels=[("B", "a"), ("A", "c")])
        assert [axes.get_title() for axes in display.axes_] == ["B:a", "A:c"]
        own = (X["batch"] == "B") & (X["cask"] == "a")
        segment = segments_of(display.lines_[0])[0]
        expected = model.predict(X[own].assign(day=X.loc[own, "day"].min()))[0]
        np.testing.assert_allclose(segment[0], [X.loc[own, "day"].min(), expected])


class TestOneAxes:
    def test_many_levels_share_the_axes(self, dietox):
        model, X, y = dietox
        display = draw(model, X, y)
        assert display.axes_.tolist() == [display.axes_[0]]
        assert [type(artist) for artist in display.axes_[0].collections] == [
            PathCollection,
            LineCollection,
        ]
        segments = segments_of(display.lines_[0])
        for segment, (_, own) in zip(segments, X.groupby("Pig"), strict=True):
            expected = model.predict(own.sort_values("Time"))[[0, -1]]
            np.testing.assert_allclose(segment[:, 1], expected)
            np.testing.assert_allclose(segment[:, 0], [own["Time"].min(), own["Time"].max()])
        np.testing.assert_allclose(
            display.scatter_[0].get_offsets(), np.column_stack([X["Time"], y])
        )
        assert (display.axes_[0].get_xlabel(), display.axes_[0].get_ylabel()) == ("Time", "Weight")

    def test_axes_are_reused(self, sleepstudy):
        model, X, y = sleepstudy
        _, (left, right) = plt.subplots(1, 2)
        display = draw(model, X, y, ax=right)
        assert display.axes_[0] is right
        assert not left.has_data()
        assert len(segments_of(display.lines_[0])) == 18
        texts = [text.get_text() for text in right.get_legend().get_texts()]
        assert texts == ["data", "each Subject", "population"]

    def test_drawn_again(self, sleepstudy):
        model, X, y = sleepstudy
        display = draw(model, X, y)
        _, ax = plt.subplots()
        again = display.plot(ax=ax, line_kwargs={"color": "red", "lw": 3})
        assert again is display
        assert display.axes_[0] is ax
        assert display.lines_[0].get_linewidth() == [3]
        np.testing.assert_allclose(display.lines_[0].get_color()[0][:3], [1, 0, 0])
        assert len(display.plot(facets=True).axes_) == 18
        assert not hasattr(display, "ax_")

    def test_styles(self, sleepstudy):
        model, X, y = sleepstudy
        display = draw(
            model,
            X,
            y,
            facets=False,
            line_kwargs={"linewidths": 2, "label": "each person"},
            scatter_kwargs={"marker": "x", "s": 7, "label": "tests"},
            population_kwargs={"ls": ":", "c": "green", "label": "everyone"},
        )
        assert display.lines_[0].get_linewidth() == [2]
        assert display.scatter_[0].get_sizes().tolist() == [7]
        assert display.population_lines_[0].get_linestyle() == ":"
        assert display.population_lines_[0].get_color() == "green"
        texts = [text.get_text() for text in display.figure_.legends[0].get_texts()]
        assert texts == ["tests", "each person", "everyone"]

    def test_arrays_of_axes(self, sleepstudy):
        model, X, y = sleepstudy
        _, grid = plt.subplots(3, 6)
        display = draw(model, X, y, ax=grid)
        assert display.axes_.tolist() == grid.ravel().tolist()
        assert [axes.get_xlabel() for axes in grid[:, 0]] == ["", "", "Days"]
        assert [axes.get_ylabel() for axes in grid[1]] == ["Reaction", "", "", "", "", ""]
        assert [axes.get_legend() for axes in display.axes_] == [None] * 18
        with pytest.raises(ValueError, match="draws 2 panels, but ax holds 18 axes"):
            draw(model, X, y, levels=[308, 309], ax=grid)
        with pytest.raises(ValueError, match="draws 1 panels, but ax holds 18 axes"):
            draw(model, X, y, facets=False, ax=grid)

    def test_panels_in_the_room_of_one_axes(self, sleepstudy):
        model, X, y = sleepstudy
        _, (left, right) = plt.subplots(1, 2)
        display = draw(model, X, y, facets=True, ax=right)
        assert len(display.axes_) == 18
        box = right.get_position()
        assert all(axes.get_position().x0 >= box.x0 - 1e-9 for axes in display.axes_)
        assert not left.has_data()

    def test_a_hundred_thousand_levels_are_one_artist(self, many_levels):
        model, X, y = many_levels
        display = draw(model, X, y)
        assert len(display.axes_[0].collections) == 2
        assert len(display.axes_[0].lines) == 1
        segments = segments_of(display.lines_[0])
        assert len(segments) == 100_000
        own = X[X["g"] == 99_999].sort_values("x")
        np.testing.assert_allclose(segments[-1], np.column_stack([own["x"], model.predict(own)]))
        assert display.lines_[0].get_rasterized()
        assert display.scatter_[0].get_rasterized()


class TestOtherColumns:
    def test_typical_values(self, pupils):
        X, y = pupils
        model = lmer("score ~ age + hours + sex + (1 + age | room)", X.assign(score=y))
        display = draw(model, X, y, feature="age")
        own = X["room"] == "r07"
        ages = np.array([X.loc[own, "age"].min(), X.loc[own, "age"].max()])
        expected = model.predict(held_at(X, own, age=ages))
        line = display.lines[display.lines["level"] == "r07"]
        np.testing.assert_allclose(line["feature"], ages)
        np.testing.assert_allclose(line["prediction"], expected)
        ages = np.array([X["age"].min(), X["age"].max()])
        everyone = held_at(X, slice(None), age=ages)
        np.testing.assert_allclose(
            display.population["prediction"], model.predict(everyone, random_effects="none")
        )

    def test_a_nested_factor_has_the_effect_of_the_outer_one(self, pupils):
        X, y = pupils
        X = X[["age", "school", "room"]]
        model = MixedLinearRegressor(groups=["school", "room"]).fit(X, y)
        display = draw(model, X, y, factor="room")
        own = X[X["room"] == "r07"]
        line = display.lines[display.lines["level"] == "r07"]
        expected = model.predict(own.head(2).assign(age=line["feature"].to_numpy()))
        np.testing.assert_allclose(line["prediction"], expected)

    def test_an_outer_factor_has_no_effect_of_inner_ones(self, pupils):
        X, y = pupils
        X = X[["age", "school", "room"]]
        model = MixedLinearRegressor(groups=["school", "room"]).fit(X, y)
        display = draw(model, X, y, factor="school")
        assert len(display.axes_) == 6
        own = X[X["school"] == "B"].head(2)
        line = display.lines[display.lines["level"] == "B"]
        rows = own.assign(age=line["feature"].to_numpy())
        expected = model.predict(rows, random_effects=["school"])
        np.testing.assert_allclose(line["prediction"], expected)
        assert np.abs(expected - model.predict(rows)).min() > 1e-3

    def test_crossed_factors(self):
        ratings = load_insteval()
        X, y = ratings.data[["s", "d", "dept", "lectage"]], ratings.target
        model = MixedLinearRegressor(groups=["s", "d", "dept"]).fit(X, y)
        display = draw(model, X, y, factor="dept")
        line = display.lines[display.lines["level"] == 3]
        rows = X[X["dept"] == 3].head(2).assign(lectage=line["feature"].to_numpy())
        np.testing.assert_allclose(line["prediction"], model.predict(rows, random_effects=["dept"]))


class TestFormulas:
    def test_a_curve(self, sleepstudy):
        _, X, y = sleepstudy
        model = MixedLinearRegressor(formula="poly(Days, 2) + (1 + Days | Subject)").fit(X, y)
        display = draw(model, X, y)
        segment = segments_of(display.lines_[3])[0]
        assert len(segment) == 100
        expected = model.predict(pd.DataFrame({"Subject": 330, "Days": segment[:, 0]}))
        np.testing.assert_allclose(segment[:, 1], expected)
        bend = np.diff(segment[:, 1], 2)
        assert np.abs(bend).max() > 1e-6
        assert len(display.population) == 100

    def test_a_transformed_random_slope(self, sleepstudy):
        _, X, y = sleepstudy
        model = MixedLinearRegressor(formula="log(Days + 1) + (log(Days + 1) | Subject)").fit(X, y)
        display = draw(model, X, y)
        assert display.feature == "Days"
        assert display.figure_.get_supxlabel() == "Days"

    def test_what_is_linear_in_a_formula_is_drawn_by_two_points(self, pupils):
        X, y = pupils
        model = lmer("score ~ age * sex + (1 + age | room)", X.assign(score=y))
        assert len(draw(model, X, y).population) == 2

    def test_the_only_number_among_categories(self, pupils):
        X, y = pupils
        model = lmer("score ~ hours + sex + (1 | room)", X.assign(score=y))
        assert draw(model, X, y).feature == "hours"

    def test_a_factor_of_two_columns_and_a_category_on_the_axis(self):
        cake = load_cake().frame
        model = lmer("angle ~ recipe*temperature + (1 | recipe:replicate)", cake)
        display = draw(model, cake, cake["angle"], feature="temperature")
        ticks = [text.get_text() for text in display.axes_[0].get_xticklabels()]
        assert ticks == ["175", "185", "195", "205", "215", "225"]
        segments = segments_of(display.lines_[0])
        assert len(segments) == 45
        own = cake[(cake["recipe"] == "B") & (cake["replicate"] == 4)].sort_values("temperature")
        place = display.lines["level"].cat.categories.get_loc(("B", 4))
        np.testing.assert_allclose(
            segments[place], np.column_stack([np.arange(6), model.predict(own)])
        )

    def test_numbers_taken_as_categories(self, sleepstudy):
        _, X, y = sleepstudy
        X = X.assign(Days=2 * X["Days"])
        model = MixedLinearRegressor(formula="C(Days) + (1 | Subject)").fit(X, y)
        display = draw(model, X, y)
        own = X["Subject"] == 309
        np.testing.assert_allclose(
            segments_of(display.lines_[1])[0],
            np.column_stack([X.loc[own, "Days"], model.predict(X[own])]),
        )

    def test_booleans_and_pandas_categories(self, pupils):
        X, y = pupils
        kinds = pd.CategoricalDtype(["old", "young"], ordered=True)
        X = X.assign(
            is_late=X["hours"] > 2,
            kind=np.where(X["age"] > 9, "old", "young"),
        ).astype({"kind": kinds})
        model = lmer("score ~ is_late + kind + (1 | room)", X.assign(score=y))
        display = draw(model, X, y, feature="is_late")
        assert [text.get_text() for text in display.axes_[0].get_xticklabels()] == ["False", "True"]
        display = draw(model, X, y, feature="kind")
        assert [text.get_text() for text in display.axes_[0].get_xticklabels()] == ["old", "young"]
        own = X["room"] == "r03"
        rows = held_at(X, own, kind=pd.Categorical(["old", "young"], dtype=kinds))
        line = display.lines[display.lines["level"] == "r03"]
        np.testing.assert_allclose(line["prediction"], model.predict(rows))

    def test_columns_that_the_formula_does_not_use_need_not_be_there(self, pupils):
        X, y = pupils
        model = lmer("score ~ age + (1 | room)", X.assign(score=y))
        display = draw(model, X[["room", "age"]], y)
        assert display.response == "score"


class TestForms:
    """The same picture, whichever way the data come."""

    def check(self, display, sleepstudy, feature="Days", response="Reaction"):
        expected = draw(*sleepstudy)
        for own, other in zip(display.lines_, expected.lines_, strict=True):
            np.testing.assert_allclose(segments_of(own), segments_of(other))
        for own, other in zip(display.scatter_, expected.scatter_, strict=True):
            np.testing.assert_allclose(own.get_offsets(), other.get_offsets())
        assert display.feature == feature
        assert display.response == response

    def test_groups_beside_a_frame(self, sleepstudy):
        _, X, y = sleepstudy
        model = MixedLinearRegressor(random_slopes=["Days"]).fit(
            X[["Days"]], y, groups=X["Subject"]
        )
        display = draw(model, X[["Days"]], y, groups=X["Subject"])
        self.check(display, sleepstudy)
        assert display.factor == "Subject"
        with pytest.raises(ValueError, match=r"No groups were passed.*'Subject'"):
            draw(model, X[["Days"]], y)

    def test_arrays(self, sleepstudy):
        _, X, y = sleepstudy
        rows, labels = X[["Days"]].to_numpy(), X["Subject"].to_numpy()
        model = MixedLinearRegressor(random_slopes=[0]).fit(rows, y.to_numpy(), groups=labels)
        display = draw(model, rows, y.to_numpy(), groups=labels, feature=0)
        self.check(display, sleepstudy, "x0", "y")
        assert display.factor == "group"
        display = draw(model, rows.tolist(), list(y), groups=list(labels))
        self.check(display, sleepstudy, "x0", "y")

    def test_a_group_column_of_an_array(self, sleepstudy):
        _, X, y = sleepstudy
        rows = X[["Days", "Subject"]].to_numpy()
        model = MixedLinearRegressor(groups=1, random_slopes=[0]).fit(rows, y)
        self.check(draw(model, rows, y), sleepstudy, "x0")
        with pytest.raises(ValueError, match=r"'x1', which has no effect in the model"):
            draw(model, rows, y, feature=1)

    def test_polars(self, sleepstudy):
        _, X, y = sleepstudy
        frame = pl.DataFrame({"Subject": X["Subject"].tolist(), "Days": X["Days"].tolist()})
        response = pl.Series("Reaction", y.tolist())
        model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(frame, response)
        self.check(draw(model, frame, response), sleepstudy)
        model = MixedLinearRegressor(formula="Days + (1 + Days | Subject)").fit(frame, response)
        self.check(draw(model, frame, response), sleepstudy)

    def test_a_formula(self, sleepstudy):
        _, X, y = sleepstudy
        frame = X.assign(Reaction=y)
        model = lmer("Reaction ~ Days + (1 + Days | Subject)", frame)
        self.check(draw(model, frame, y), sleepstudy)

    def test_an_index_means_nothing(self, sleepstudy):
        model, X, y = sleepstudy
        other = X.set_axis(range(1000, 1180))
        self.check(draw(model, other, y.set_axis(range(180))), sleepstudy)


class TestUnusualData:
    def test_unseen_levels_have_the_line_of_the_population(self, sleepstudy):
        model, X, y = sleepstudy
        rows = pd.concat([X.head(10), X.head(10).assign(Subject=999)])
        display = draw(model, rows, pd.concat([y.head(10), y.head(10)]))
        assert [axes.get_title() for axes in display.axes_] == ["308", "999"]
        np.testing.assert_allclose(
            segments_of(display.lines_[1])[0][:, 1], model.predict(X, random_effects="none")[[0, 9]]
        )
        strict = MixedLinearRegressor(groups="Subject", handle_unknown="error").fit(X, y)
        with pytest.raises(ValueError, match="level 999 of 'Subject'"):
            draw(strict, rows, pd.concat([y.head(10), y.head(10)]))

    def test_one_row_for_a_level_has_a_line_over_the_range_of_the_data(self, sleepstudy):
        model, X, y = sleepstudy
        rows = np.r_[0:10, 13]
        display = draw(model, X.iloc[rows], y.iloc[rows])
        segment = segments_of(display.lines_[1])[0]
        np.testing.assert_allclose(segment[:, 0], [0, 9])
        np.testing.assert_allclose(segment[:, 1], model.predict(X.iloc[10:20])[[0, 9]])
        assert display.scatter_[1].get_offsets().shape == (1, 2)

    def test_one_row_for_every_level(self):
        generator = np.random.default_rng(0)
        X = pd.DataFrame({"x": generator.uniform(size=30), "g": np.arange(30)})
        with pytest.warns(DegenerateModelWarning):
            model = MixedLinearRegressor(groups="g").fit(X, X["x"] + generator.normal(size=30))
        display = draw(model, X, X["x"])
        segments = np.array(segments_of(display.lines_[0]))
        np.testing.assert_allclose(np.ptp(segments[:, :, 0], axis=1), np.ptp(X["x"]))

    def test_a_singular_fit(self):
        generator = np.random.default_rng(3)
        X = pd.DataFrame({"x": np.tile(np.arange(8.0), 10), "g": np.repeat(np.arange(10), 8)})
        y = X["x"] + generator.normal(size=80)
        y -= y.groupby(X["g"]).transform("mean") - X["x"].mean()
        model = MixedLinearRegressor(groups="g").fit(X, y)
        assert model.is_singular_
        display = draw(model, X, y)
        for line, population in zip(display.lines_, display.population_lines_, strict=True):
            np.testing.assert_allclose(segments_of(line)[0], population.get_xydata())

    def test_levels_with_further_rows(self, sleepstudy):
        _, X, y = sleepstudy
        new = X["Subject"] == 372
        model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X[~new], y[~new])
        model.update_random_effects(X[new], y[new])
        display = draw(model, X, y, levels=[372])
        np.testing.assert_allclose(
            segments_of(display.lines_[0])[0][:, 1], model.predict(X[new])[[0, 9]]
        )


class TestErrors:
    def test_no_covariates(self):
        X, y = load_dyestuff(return_X_y=True)
        model = MixedLinearRegressor(groups="Batch").fit(X, y)
        with pytest.raises(ValueError, match="no covariates, only intercepts"):
            draw(model, X, y)

    def test_the_factor(self, pupils):
        X, y = pupils
        X = X[["age", "school", "room"]]
        model = MixedLinearRegressor(groups=["school", "room"]).fit(X, y)
        with pytest.raises(ValueError, match=r"2 grouping factors: .* 'school', 'room'"):
            draw(model, X, y)
        with pytest.raises(ValueError, match=r"no grouping factor 'rom'. Did you mean 'room'\?"):
            draw(model, X, y, factor="rom")

    def test_the_feature(self, pupils):
        X, y = pupils
        frame = X.assign(score=y)
        model = lmer("score ~ age + hours + sex + (1 | room)", frame)
        with pytest.raises(ValueError, match=r"feature=..., from 'age', 'hours', 'sex'"):
            draw(model, frame, y)
        with pytest.raises(ValueError, match=r"feature names the column 'agee', .* 'age'\?"):
            draw(model, frame, y, feature="agee")
        with pytest.raises(ValueError, match=r"'room', which has no effect in the model"):
            draw(model, frame, y, feature="room")

    def test_a_random_slope_decides(self, pupils):
        X, y = pupils
        X = X[["age", "hours", "room"]]
        model = MixedLinearRegressor(groups="room", random_slopes=["hours"]).fit(X, y)
        assert draw(model, X, y).feature == "hours"
        assert draw(model, X, y, feature="age").feature == "age"

    def test_the_levels(self, sleepstudy):
        model, X, y = sleepstudy
        with pytest.raises(ValueError, match=r"levels names '308', but no row .* 'Subject'"):
            draw(model, X, y, levels=["308"])
        for levels in ("308", [], 308):
            with pytest.raises(ValueError, match="levels must be a list of levels of 'Subject'"):
                draw(model, X, y, levels=levels)

    def test_the_rows(self, sleepstudy):
        model, X, y = sleepstudy
        with pytest.raises(ValueError, match="y has 179"):
            draw(model, X, y.head(179))
        with pytest.raises(ValueError, match=r"NaN in column 'Days', the first at row 3"):
            draw(model, X.assign(Days=X["Days"].where(X.index != 3)), y)


def test_names_with_dollars_are_no_formulae():
    generator = np.random.default_rng(0)
    levels = np.tile(["$a$", "$b_$", "c"], 20)
    X = pd.DataFrame({"$x_$": generator.uniform(size=60), "$g_$": levels})
    y = pd.Series(X["$x_$"] + generator.normal(size=60) + 3.0 * (levels == "c"), name="$y_$")
    model = MixedLinearRegressor(groups="$g_$").fit(X, y)
    for display in (draw(model, X, y), draw(model, X, y, facets=False)):
        display.figure_.draw_without_rendering()  # fails where it finds a formula that is none
        assert display.figure_.legends[0].get_texts()[1].get_text() == r"each \$g_\$"


def test_lines_of_an_updated_model(sleepstudy):
    """New levels sort before the known ones, which have other rows by now."""
    fitted, X, y = sleepstudy
    model = copy.deepcopy(fitted)
    new = X[X["Subject"] == X["Subject"].iloc[-1]]
    model.update_random_effects(new.assign(Subject=1), y[new.index] + 100.0)
    model.update_random_effects(X.iloc[:5], y.iloc[:5] + 300.0)
    every = pd.concat([X, new.assign(Subject=1)])
    lines = GroupLinesDisplay.from_estimator(model, every, model.predict(every)).lines
    points = pd.DataFrame({"Days": lines["feature"], "Subject": lines["level"].astype(int)})
    assert lines["level"].nunique() == 19
    np.testing.assert_allclose(lines["prediction"], model.predict(points))


def test_lines_of_a_residual_structure_are_those_of_the_effects(mares):
    model, frame, y = mares
    display = GroupLinesDisplay.from_estimator(model, frame, y, feature="Time")
    line = display.lines[display.lines["level"] == 3]
    grid = pd.DataFrame({"Time": line["feature"]})
    fixed = np.column_stack(
        [np.sin(2.0 * np.pi * grid["Time"]), np.cos(2.0 * np.pi * grid["Time"])]
    )
    expected = model.intercept_ + fixed @ model.coef_ + model.random_effects_["Mare"].loc[3].item()
    np.testing.assert_allclose(line["prediction"], expected)
    np.testing.assert_array_equal(display.points["response"], y.to_numpy())
