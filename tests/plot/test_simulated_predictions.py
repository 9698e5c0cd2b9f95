"""Predictions of made-up cases in every level, against predict and Henderson's equations."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.stats import norm

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.datasets import (
    load_cake,
    load_dyestuff,
    load_pastes,
    load_sitka,
    load_sleepstudy,
)
from mixedlearn.inference import prediction_intervals
from mixedlearn.plot import SimulatedPredictionsDisplay
from mixedlearn.residual import AR1, Stratified

draw = SimulatedPredictionsDisplay.from_estimator
Z95 = norm.ppf(0.975)


@pytest.fixture(scope="module")
def sleepstudy(sleepstudy):
    """The fit without its rows."""
    return sleepstudy[0]


@pytest.fixture(scope="module")
def days():
    return pd.DataFrame({"Days": [0, 9]})


def in_every_subject(model, days):
    """The cases in all subjects, case by case."""
    subjects = model.random_effects_["Subject"].index
    return pd.DataFrame({"Days": np.repeat(days["Days"], 18), "Subject": np.tile(subjects, 2)})


def make_schools():
    """Pupils in classes in schools, crossed with two kinds of tests."""
    generator = np.random.default_rng(1)
    n = 400
    room = generator.integers(0, 20, n)
    test = generator.integers(0, 5, n)
    X = pd.DataFrame(
        {
            "age": generator.uniform(6, 12, n),
            "school": np.array(list("ABCDE"))[room // 4],
            "room": room,
            "test": np.array([f"t{number}" for number in range(5)])[test],
        }
    )
    y = (
        X["age"]
        + generator.normal(size=5)[room // 4]
        + generator.normal(size=20)[room]
        + generator.normal(size=5)[test]
        + generator.normal(size=n)
    )
    return X, y


@pytest.fixture(scope="module")
def schools():
    X, y = make_schools()
    return MixedLinearRegressor(groups=["school", "room", "test"]).fit(X, y)


class TestNumbers:
    def test_a_new_observation_is_that_of_predict(self, sleepstudy, days):
        table = draw(sleepstudy, days, include_noise=True).predictions
        rows = in_every_subject(sleepstudy, days)
        mean, std = sleepstudy.predict(rows, return_std=True)
        assert list(table["level"]) == list(rows["Subject"])
        np.testing.assert_allclose(table["prediction"], mean)
        np.testing.assert_allclose(table["lower"], mean - Z95 * std)
        np.testing.assert_allclose(table["upper"], mean + Z95 * std)
        np.testing.assert_allclose(
            table["population"], sleepstudy.predict(rows, random_effects="none")
        )

    def test_the_mean_by_henderson(self, sleepstudy, days):
        """The inverse of the mixed model equations is the covariance of beta-hat and b-hat - b."""
        X, _ = load_sleepstudy(return_X_y=True)
        basis = np.column_stack([np.ones(180), X["Days"]])
        which = pd.factorize(X["Subject"], sort=True)[0]
        random = np.zeros((180, 36))
        for effect in range(2):
            random[np.arange(180), 2 * which + effect] = basis[:, effect]
        both = np.hstack([basis, random])
        system = both.T @ both
        system[2:, 2:] += sleepstudy.noise_variance_ * np.kron(
            np.eye(18), np.linalg.inv(sleepstudy.covariances_["Subject"])
        )
        covariance = sleepstudy.noise_variance_ * np.linalg.inv(system)
        expected = []
        for day in days["Days"]:
            for subject in range(18):
                row = np.zeros(38)
                row[:2] = row[2 + 2 * subject : 4 + 2 * subject] = [1, day]
                expected.append(np.sqrt(row @ covariance @ row))
        table = draw(sleepstudy, days, level=0.8).predictions
        half = (table["upper"] - table["lower"]) / 2
        np.testing.assert_allclose(half, norm.ppf(0.9) * np.array(expected))
        np.testing.assert_allclose((table["upper"] + table["lower"]) / 2, table["prediction"])

    def test_the_levels_of_a_balanced_design_are_known_equally_well(self):
        X, y = load_dyestuff(return_X_y=True)
        model = MixedLinearRegressor(groups="Batch").fit(X, y)
        table = draw(model, pd.DataFrame(index=[0])).predictions
        half = (table["upper"] - table["lower"]) / 2
        np.testing.assert_allclose(half, half[0])
        effects = model.random_effects_["Batch"]["intercept"]
        np.testing.assert_allclose(table["prediction"] - table["population"], effects)

    def test_cases_with_labels_are_overwritten(self, sleepstudy, days):
        with_labels = draw(sleepstudy, days.assign(Subject=[999, 308])).predictions
        pd.testing.assert_frame_equal(with_labels, draw(sleepstudy, days).predictions)


class TestSeveralFactors:
    def test_the_factor_has_to_be_chosen(self, schools):
        with pytest.raises(ValueError, match=r"3 grouping factors: .* 'school', 'room', 'test'"):
            draw(schools, [[8.0]])
        with pytest.raises(ValueError, match=r"no grouping factor 'rooms'. Did you mean 'room'\?"):
            draw(schools, [[8.0]], factor="rooms")

    def test_nested_levels_bring_the_outer_ones(self, schools):
        case = pd.DataFrame({"age": [8.0], "test": ["t1"]})
        table = draw(schools, case, factor="room", include_noise=True).predictions
        rooms = np.arange(20)
        rows = pd.DataFrame(
            {"age": 8.0, "school": np.array(list("ABCDE"))[rooms // 4], "room": rooms, "test": "t1"}
        )
        mean, std = schools.predict(rows, return_std=True)
        np.testing.assert_allclose(table["prediction"], mean)
        np.testing.assert_allclose(table["upper"], mean + Z95 * std)
        elsewhere = draw(schools, case.assign(school="E"), factor="room", include_noise=True)
        pd.testing.assert_frame_equal(elsewhere.predictions, table)

    def test_factors_that_the_case_does_not_name(self, schools):
        case = pd.DataFrame({"age": [8.0]})
        rows = pd.DataFrame({"age": 8.0, "school": list("ABCDE"), "room": 99, "test": "unknown"})
        mean, std = schools.predict(rows, return_std=True)
        table = draw(schools, case, factor="school", include_noise=True).predictions
        np.testing.assert_allclose(table["prediction"], mean)
        np.testing.assert_allclose(table["upper"], mean + Z95 * std)
        variance = std**2 - schools.noise_variance_
        variance -= float(schools.covariances_["room"].iloc[0, 0])
        variance -= float(schools.covariances_["test"].iloc[0, 0])
        table = draw(schools, case, factor="school").predictions
        np.testing.assert_allclose(table["upper"], mean + Z95 * np.sqrt(variance))

    def test_a_level_of_several_columns_brings_the_factors_of_its_columns(self):
        X, y = load_pastes(return_X_y=True)
        X = X[["batch", "cask"]]
        model = MixedLinearRegressor(groups=["batch", ("batch", "cask")]).fit(X, y)
        display = draw(model, pd.DataFrame(index=[0]), factor=("batch", "cask"), sort=False)
        levels = model.random_effects_["batch:cask"].index
        rows = levels.to_frame(index=False)
        assert display.predictions["level"].tolist() == levels.tolist()
        np.testing.assert_allclose(display.predictions["prediction"], model.predict(rows))
        texts = [text.get_text() for text in display.axes_[0].get_xticklabels()]
        assert texts[:4] == ["A:a", "A:b", "A:c", "B:a"]

    def test_a_group_column_that_has_a_fixed_effect(self):
        cake = load_cake().frame
        model = lmer("angle ~ recipe + temp + (1 | recipe:replicate)", cake)
        table = draw(model, pd.DataFrame({"temp": [200]})).predictions
        rows = model.random_effects_["recipe:replicate"].index.to_frame(index=False)
        rows["temp"] = 200
        np.testing.assert_allclose(table["prediction"], model.predict(rows))
        np.testing.assert_allclose(table["population"], model.predict(rows, random_effects="none"))
        assert table["population"].nunique() == 3


class TestForms:
    def check(self, table, sleepstudy, days):
        expected = draw(sleepstudy, days).predictions
        for name in ("level", "prediction", "lower", "upper", "population"):
            assert list(table["level"]) == list(expected["level"])
            np.testing.assert_allclose(table[name].astype(float), expected[name].astype(float))

    def test_arrays(self, sleepstudy, days):
        X, y = load_sleepstudy(return_X_y=True)
        rows = X[["Days", "Subject"]].to_numpy()
        model = MixedLinearRegressor(groups=1, random_slopes=[0]).fit(rows, y)
        self.check(draw(model, [[0], [9]]).predictions, sleepstudy, days)
        self.check(draw(model, np.array([[0, 5], [9, 6]])).predictions, sleepstudy, days)
        with pytest.raises(ValueError, match=r"cases has 3 columns, but X had 2: .* the 1 that"):
            draw(model, np.ones((2, 3)))

    def test_groups_beside_x(self, sleepstudy, days):
        X, y = load_sleepstudy(return_X_y=True)
        model = MixedLinearRegressor(random_slopes=["Days"]).fit(
            X[["Days"]], y, groups=X["Subject"]
        )
        display = draw(model, days)
        self.check(display.predictions, sleepstudy, days)
        assert display.factor == "Subject"

    def test_polars_and_formulas(self, sleepstudy, days):
        X, y = load_sleepstudy(return_X_y=True)
        frame = pl.DataFrame({"Subject": X["Subject"].tolist(), "Days": X["Days"].tolist()})
        cases = pl.DataFrame({"Days": [0, 9]})
        model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(frame, y)
        self.check(draw(model, cases).predictions, sleepstudy, days)
        model = MixedLinearRegressor(formula="Days + (1 + Days | Subject)").fit(frame, y)
        self.check(draw(model, cases).predictions, sleepstudy, days)

    def test_columns_without_an_effect_may_be_left_out_or_there(self, sleepstudy, days):
        X, y = load_sleepstudy(return_X_y=True)
        model = MixedLinearRegressor(
            groups="Subject", fixed_effects=["Days"], random_slopes=["Days"]
        ).fit(X.assign(spare=1.0), y)
        self.check(draw(model, days).predictions, sleepstudy, days)
        self.check(draw(model, days.assign(spare=[3, 4], other="a")).predictions, sleepstudy, days)

    def test_levels_with_further_rows(self):
        X, y = load_sleepstudy(return_X_y=True)
        new = X["Subject"] == 372
        model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X[~new], y[~new])
        assert len(draw(model, X[["Days"]].head(1)).predictions) == 17
        model.update_random_effects(X[new], y[new])
        table = draw(model, X[["Days"]].head(1)).predictions
        assert table["level"].iloc[-1] == 372
        np.testing.assert_allclose(table["prediction"].iloc[-1], model.predict(X[new])[0])

    def test_a_singular_fit(self):
        generator = np.random.default_rng(3)
        X = pd.DataFrame({"x": np.tile(np.arange(8.0), 10), "g": np.repeat(np.arange(10), 8)})
        y = X["x"] + generator.normal(size=80)
        y -= y.groupby(X["g"]).transform("mean") - X["x"].mean()
        model = MixedLinearRegressor(groups="g").fit(X, y)
        table = draw(model, [[2.0]]).predictions
        np.testing.assert_allclose(table["prediction"], table["population"])
        error = np.sqrt(np.array([1, 2.0]) @ model.coef_covariance_ @ np.array([1, 2.0]))
        np.testing.assert_allclose(table["upper"] - table["prediction"], Z95 * error)


class TestPicture:
    def test_what_is_drawn(self, sleepstudy, days):
        display = draw(sleepstudy, days)
        table = display.predictions
        first = table["prediction"].to_numpy()[:18]
        order = np.argsort(first)
        for case, bars in enumerate(display.errorbars_):
            points, _, (intervals,) = bars.lines
            own = table.iloc[18 * case : 18 * (case + 1)].iloc[order]
            np.testing.assert_allclose(points.get_ydata(), own["prediction"])
            np.testing.assert_allclose(points.get_xdata(), np.arange(18))
            ends = np.array([segment[:, 1] for segment in intervals.get_segments()])
            np.testing.assert_allclose(ends, own[["lower", "upper"]])
            line = display.population_lines_[case]
            np.testing.assert_allclose(line.get_ydata()[1:-1], own["population"])
            # It goes on to the edges of the outer levels.
            np.testing.assert_allclose(line.get_xdata(), [-0.5, *range(18), 17.5])

    def test_labels(self, sleepstudy, days):
        display = draw(sleepstudy, days, level=0.9)
        assert [axes.get_title() for axes in display.axes_] == ["Days = 0", "Days = 9"]
        assert [axes.get_ylabel() for axes in display.axes_] == ["Prediction", "Prediction"]
        assert display.axes_[1].get_xlabel() == "Subject"
        names = [text.get_text() for text in display.axes_[1].get_xticklabels()]
        first = display.predictions.head(18).sort_values("prediction")
        assert names == list(map(str, first["level"]))
        texts = [text.get_text() for text in display.figure_.legends[0].get_texts()]
        assert texts == ["each Subject, 90% interval", "population"]
        assert len({axes.get_ylim() for axes in display.axes_}) == 1

    def test_unsorted(self, sleepstudy, days):
        display = draw(sleepstudy, days, sort=False)
        names = [text.get_text() for text in display.axes_[1].get_xticklabels()]
        assert names == list(map(str, sleepstudy.random_effects_["Subject"].index))

    @pytest.mark.parametrize(
        ("cases", "names"),
        [
            (pd.DataFrame({"Days": [0, 9]}, index=["rested", "tired"]), ["rested", "tired"]),
            (pd.DataFrame({"Days": [0.123456, 9]}), ["Days = 0.1235", "Days = 9"]),
            (pd.DataFrame({"Days": [3, 3]}), ["case 0", "case 1"]),
            (pd.DataFrame({"Days": [3]}), ["case 0"]),
        ],
    )
    def test_names_of_cases(self, sleepstudy, cases, names):
        display = draw(sleepstudy, cases)
        assert display.predictions["case"].unique().tolist() == names
        titles = [axes.get_title() for axes in display.axes_]
        assert titles == (names if len(names) > 1 else [""])

    def test_a_case_is_named_after_levels_of_other_factors(self, schools):
        cases = pd.DataFrame({"age": [8.0, 8.0], "test": ["t1", "t2"], "room": [3, 4]})
        display = draw(schools, cases, factor="room")
        assert [axes.get_title() for axes in display.axes_] == ["test = t1", "test = t2"]

    def test_long_names_are_numbers(self, sleepstudy):
        cases = pd.DataFrame({"Days": [0, 9]}, index=["a" * 70, "b" * 70])
        assert [axes.get_title() for axes in draw(sleepstudy, cases).axes_] == ["case 0", "case 1"]

    def test_axes_are_reused(self, sleepstudy, days):
        _, (left, right) = plt.subplots(1, 2)
        display = draw(sleepstudy, days.head(1), ax=right)
        assert display.axes_[0] is right
        assert not left.has_data()
        assert len(right.get_legend().get_texts()) == 2
        again = draw(sleepstudy, days, ax=np.array([left, right]))
        assert again.axes_.tolist() == [left, right]
        with pytest.raises(ValueError, match="draws 1 panels, but ax holds 2 axes"):
            draw(sleepstudy, days.head(1), ax=np.array([left, right]))

    def test_styles(self, sleepstudy, days):
        display = draw(
            sleepstudy,
            days,
            errorbar_kwargs={"color": "red", "ms": 9, "label": "people"},
            population_kwargs={"c": "green", "lw": 4},
        )
        points, _, (intervals,) = display.errorbars_[0].lines
        assert (points.get_color(), points.get_markersize()) == ("red", 9)
        np.testing.assert_allclose(intervals.get_color()[0][:3], [1, 0, 0])
        assert display.population_lines_[1].get_color() == "green"
        assert display.population_lines_[1].get_linewidth() == 4
        assert display.figure_.legends[0].get_texts()[0].get_text() == "people"
        display.plot(errorbar_kwargs={"ecolor": "blue"})
        (intervals,) = display.errorbars_[0].lines[2]
        np.testing.assert_allclose(intervals.get_color()[0][:3], [0, 0, 1])

    def test_names_with_dollars_are_no_formulae(self):
        X, y = load_dyestuff(return_X_y=True)
        X = pd.DataFrame({"$b_$": "$" + X["Batch"] + "_$"})
        model = MixedLinearRegressor(groups="$b_$").fit(X, y)
        display = draw(model, pd.DataFrame(index=["$1_$", "$2_$"]))
        display.figure_.draw_without_rendering()  # fails where it finds a formula that is none
        assert [axes.get_title() for axes in display.axes_] == ["$1_$", "$2_$"]

    @pytest.mark.slow
    def test_a_hundred_thousand_levels_are_one_artist(self, many_levels):
        display = draw(many_levels[0], [[0.5]])
        assert len(display.axes_[0].collections) == 1
        assert len(display.axes_[0].lines) == 2
        points, _, (intervals,) = display.errorbars_[0].lines
        assert points.get_rasterized()
        assert intervals.get_rasterized()
        assert len(intervals.get_segments()) == 100_000
        assert len(display.axes_[0].get_xticks()) == 0
        assert display.axes_[0].get_xlabel() == "g (100,000 levels)"


class TestErrors:
    def test_the_cases(self, sleepstudy, days):
        with pytest.raises(ValueError, match="cases has no column 'Days', which has an effect"):
            draw(sleepstudy, days.rename(columns={"Days": "days"}))
        with pytest.raises(ValueError, match="cases has no rows"):
            draw(sleepstudy, days.head(0))
        with pytest.raises(ValueError, match=r"got 1 dimensions: of a frame, X.iloc\[\[0\]\]"):
            draw(sleepstudy, days.iloc[0])
        with pytest.raises(ValueError, match="NaN in column 'Days'"):
            draw(sleepstudy, days.where(days > 0))

    def test_the_level(self, sleepstudy, days):
        with pytest.raises(ValueError, match="level must be a probability between 0 and 1, got 95"):
            draw(sleepstudy, days, level=95)


def from_columns(trees):
    """The same model without a formula: the time is a column like others."""
    X = trees.assign(ozone=1.0 * (trees["treat"] == "ozone"))[["Time", "tree", "ozone"]]
    model = MixedLinearRegressor(groups="tree", residual=AR1(time="Time"))
    return model.fit(X, trees["size"])


@pytest.mark.parametrize("is_formula", [True, False])
@pytest.mark.parametrize("include_noise", [True, False])
def test_beside_a_residual_structure(include_noise, is_formula):
    """An observation is what predict forecasts; a mean has no noise."""
    trees = load_sitka().frame
    structure = AR1(time="Time", variance=Stratified(by="treat"))
    if is_formula:
        model = lmer("size ~ treat + (1 | tree)", trees, residual=structure)
        cases = pd.DataFrame({"treat": ["ozone", "control"], "Time": [260, 300]})
    else:
        model = from_columns(trees)
        cases = pd.DataFrame({"ozone": [1.0, 0.0], "Time": [260, 300]})
    found = draw(model, cases, include_noise=include_noise).predictions
    levels = model.random_effects_["tree"].index
    rows = cases.loc[np.repeat([0, 1], len(levels))].assign(tree=np.tile(levels, 2))
    rows = rows if is_formula else rows[list(model.feature_names_in_)]
    kind = "observation" if include_noise else "mean"
    expected = prediction_intervals(model, rows, kind=kind, ddf="normal")
    for column in ("prediction", "lower", "upper"):
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-10)
    np.testing.assert_allclose(found["population"], model.predict(rows, random_effects="none"))


def test_an_observation_needs_what_its_noise_depends_on():
    trees = load_sitka().frame
    model = lmer("size ~ treat + (1 | tree)", trees, residual=AR1(time="Time"))
    cases = pd.DataFrame({"treat": ["ozone"]})
    assert len(draw(model, cases).predictions) == 79
    with pytest.raises(ValueError, match="no column 'Time', which has an effect in the model or"):
        draw(model, cases, include_noise=True)
