"""The data sets are complete, documented, and the same from every side they are looked at."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.utils import Bunch

from mixedlearn import datasets
from mixedlearn.datasets._loaders import DATA_SETS

# name: rows, columns in the order of the file, target, {factor: levels}, who is cited
EXPECTED = {
    "dietox": (861, "Pig Litter Start Weight Feed Time Evit Cu", "Weight", {"Pig": 72},
               ("Lauridsen", "geepack")),
    "sitka": (395, "size Time tree treat", "size", {"tree": 79}, ("Diggle", "MASS")),
    "sleepstudy": (180, "Reaction Days Subject", "Reaction", {"Subject": 18},
                   ("Belenky", "lme4")),
    "dyestuff": (30, "Batch Yield", "Yield", {"Batch": 6}, ("Davies and P. L. Goldsmith", "lme4")),
    "dyestuff2": (30, "Batch Yield", "Yield", {"Batch": 6}, ("Box and G. C. Tiao", "lme4")),
    "penicillin": (144, "diameter plate sample", "diameter", {"plate": 24, "sample": 6},
                   ("Davies and P. L. Goldsmith", "lme4")),
    "pastes": (60, "strength batch cask sample", "strength", {"batch": 10, "sample": 30},
               ("Davies and P. L. Goldsmith", "lme4")),
    "cake": (270, "replicate recipe temperature angle temp", "angle", {"replicate": 15},
             ("Cook", "lme4")),
    "insteval": (73421, "s d studage lectage service dept y", "y",
                 {"s": 2972, "d": 1128, "dept": 14}, ("Bates", "lme4")),
    "ovary": (308, "Mare Time follicles Day", "follicles", {"Mare": 11}, ("Pierson", "nlme")),
    "orthodont": (108, "distance age Subject Sex", "distance", {"Subject": 27},
                  ("Potthoff", "nlme")),
    "bodyweight": (176, "weight Time Rat Diet", "weight", {"Rat": 16}, ("Crowder", "nlme")),
    "dialyzer": (140, "Subject QB pressure rate index", "rate", {"Subject": 20},
                 ("Vonesh", "nlme")),
    "milk": (1337, "protein Time Cow Diet", "protein", {"Cow": 79}, ("Diggle", "nlme")),
    "spruce": (1027, "Tree days logSize plot", "logSize", {"Tree": 79}, ("Diggle", "nlme")),
}  # fmt: skip

# name, row, column, value as printed in the source
KNOWN_VALUES = [
    ("dietox", 0, "Pig", 4601),
    ("dietox", 0, "Weight", 26.5),
    ("dietox", 0, "Evit", "Evit000"),
    ("sitka", 0, "size", 4.51),
    ("sitka", 4, "Time", 258),
    ("sitka", 0, "treat", "ozone"),
    ("sleepstudy", 0, "Reaction", 249.56),
    ("sleepstudy", 9, "Reaction", 466.3535),
    ("sleepstudy", 179, "Subject", 372),
    ("dyestuff", 0, "Yield", 1545),
    ("dyestuff2", 0, "Yield", 7.298),
    ("penicillin", 0, "diameter", 27),
    ("penicillin", 143, "plate", "x"),
    ("pastes", 0, "strength", 62.8),
    ("pastes", 59, "sample", "J:c"),
    ("cake", 0, "angle", 42),
    ("cake", 5, "temperature", "225"),
    ("cake", 5, "temp", 225),
    ("insteval", 0, "d", 1002),
    ("insteval", 0, "y", 5),
    ("ovary", 0, "follicles", 20),
    ("ovary", 307, "Day", 27),
    ("orthodont", 0, "distance", 26),
    ("orthodont", 107, "Subject", "F11"),
    ("bodyweight", 0, "weight", 240),
    ("bodyweight", 175, "Diet", "3"),
    ("dialyzer", 0, "rate", 0.645),
    ("dialyzer", 139, "QB", 300),
    ("milk", 0, "protein", 3.63),
    ("milk", 1336, "Diet", "lupins"),
    ("spruce", 0, "logSize", 4.51),
    ("spruce", 1026, "days", 674),
]

every_data_set = pytest.mark.parametrize("name", sorted(EXPECTED))


def load(name, **kwargs):
    return getattr(datasets, f"load_{name}")(**kwargs)


def test_every_data_set_has_a_public_loader_and_an_expectation():
    names = {loader.removeprefix("load_") for loader in datasets.__all__}
    assert names == set(DATA_SETS) == set(EXPECTED)


@every_data_set
def test_no_row_or_column_is_lost(name):
    n_rows, columns, target, _, _ = EXPECTED[name]
    bunch = load(name)
    assert isinstance(bunch, Bunch)
    assert bunch.frame.shape == (n_rows, len(columns.split()))
    assert bunch.frame.columns.tolist() == columns.split()
    assert bunch.frame.index.equals(pd.RangeIndex(n_rows))
    assert bunch.target_name == target


@every_data_set
def test_data_and_target_are_the_frame_taken_apart(name):
    bunch = load(name)
    assert bunch.feature_names == bunch.data.columns.tolist()
    assert bunch.target_name not in bunch.feature_names
    assert bunch.target.name == bunch.target_name
    rejoined = bunch.data.assign(**{bunch.target_name: bunch.target})[bunch.frame.columns]
    pd.testing.assert_frame_equal(rejoined, bunch.frame)


@every_data_set
def test_groups_are_columns_of_the_data(name):
    levels = EXPECTED[name][3]
    bunch = load(name)
    assert bunch.group_names == list(levels)
    assert isinstance(bunch.groups, pd.Series if len(levels) == 1 else pd.DataFrame)
    groups = pd.DataFrame(bunch.groups)
    pd.testing.assert_frame_equal(groups, bunch.data[bunch.group_names])
    assert groups.nunique().to_dict() == levels


@every_data_set
def test_return_X_y_gives_data_and_target(name):
    bunch = load(name)
    X, y = load(name, return_X_y=True)
    pd.testing.assert_frame_equal(X, bunch.data)
    pd.testing.assert_series_equal(y, bunch.target)


@every_data_set
def test_description_names_columns_model_and_sources(name):
    n_rows, columns, target, _, cited = EXPECTED[name]
    spec = DATA_SETS[name]
    text = load(name).DESCR
    flat = re.sub(r"\s+", " ", text)
    assert list(spec.columns) == columns.split()
    for part in (spec.title, f"{n_rows} rows", f"Target: {target}", spec.model, *spec.sources):
        assert part in flat
    for column in spec.columns:
        assert f"- {column}: " in text
    for author_or_package in cited:
        assert author_or_package in flat
    assert re.search(r"\((19|20)\d\d\)", flat), "a source needs its year"
    assert max(map(len, text.splitlines())) < 80


@every_data_set
def test_only_the_feed_of_the_first_week_is_missing(name):
    frame = load(name).frame
    missing = frame.isna().sum()
    if name == "dietox":
        assert missing.pop("Feed") == 72
        assert (frame["Time"][frame["Feed"].isna()] == 1).all()
    assert (missing == 0).all()


@every_data_set
def test_two_loads_share_no_memory(name):
    first, second = load(name), load(name)
    first.frame[first.target_name] = 0
    pd.testing.assert_frame_equal(load(name).frame, second.frame)


@pytest.mark.parametrize(("name", "row", "column", "value"), KNOWN_VALUES)
def test_known_values(name, row, column, value):
    assert load(name).frame.loc[row, column] == value


@pytest.mark.parametrize(
    ("name", "column"),
    [("dietox", "Pig"), ("sitka", "tree"), ("sleepstudy", "Subject"), ("cake", "replicate"),
     ("insteval", "s"), ("insteval", "d"), ("insteval", "dept"), ("ovary", "Mare"),
     ("bodyweight", "Rat"), ("dialyzer", "Subject"), ("spruce", "plot")],
)  # fmt: skip
def test_numbered_levels_are_integers(name, column):
    assert pd.api.types.is_integer_dtype(load(name).frame[column])


@pytest.mark.parametrize(
    ("name", "column"),
    [("dietox", "Evit"), ("sitka", "treat"), ("dyestuff", "Batch"), ("penicillin", "plate"),
     ("pastes", "sample"), ("cake", "recipe"), ("cake", "temperature"), ("orthodont", "Subject"),
     ("bodyweight", "Diet"), ("milk", "Cow"), ("spruce", "Tree")],
)  # fmt: skip
def test_named_levels_are_text(name, column):
    values = load(name).frame[column]
    assert not pd.api.types.is_numeric_dtype(values)
    assert all(isinstance(value, str) for value in values)


def test_balanced_anova_of_dyestuff_by_hand():
    """The components printed by Davies & Goldsmith follow from two mean squares."""
    dyestuff = load("dyestuff")
    by_batch = dyestuff.target.groupby(dyestuff.groups)
    within = by_batch.var().mean()
    between = 5 * by_batch.mean().var()
    np.testing.assert_allclose([within, (between - within) / 5], [2451.25, 1764.05])


def test_dyestuff2_varies_less_between_than_within_batches():
    simulated = load("dyestuff2")
    by_batch = simulated.target.groupby(simulated.groups)
    assert 5 * by_batch.mean().var() < by_batch.var().mean()


def test_sample_of_pastes_is_the_interaction_of_batch_and_cask():
    pastes = load("pastes").frame
    assert (pastes["sample"] == pastes["batch"] + ":" + pastes["cask"]).all()


def test_temperature_of_cake_is_temp_as_text():
    cake = load("cake").frame
    assert (cake["temperature"].astype(int) == cake["temp"]).all()


def test_day_of_ovary_is_the_order_of_time_without_gaps():
    for _, mare in load("ovary").frame.groupby("Mare"):
        assert mare["Day"].tolist() == list(range(1, len(mare) + 1))
        steps = mare["Time"].diff().dropna()
        assert np.ptp(steps) < 1e-5
        # The day of the ovulation, and those before and after.
        np.testing.assert_allclose(mare["Time"].iloc[[3, -4]], [0.0, 1.0], atol=1e-5)


def test_first_summer_of_spruce_is_sitka():
    spruce, sitka = load("spruce").frame, load("sitka").frame
    first = spruce[spruce["days"] < 300]
    assert first["days"].tolist() == sitka["Time"].tolist()
    np.testing.assert_array_equal(first["logSize"], sitka["size"])
    ozone = first["Tree"].str.startswith("O")
    assert (ozone.to_numpy() == (sitka["treat"] == "ozone").to_numpy()).all()
    assert (ozone == first["plot"].isin([1, 2])).all()


def test_bodyweight_has_a_day_between_weeks():
    days = load("bodyweight").frame["Time"].unique()
    assert days.tolist() == sorted([*range(1, 65, 7), 44])


def test_weeks_of_eight_cows_have_gaps():
    weeks = load("milk").frame.groupby("Cow")["Time"]
    assert (weeks.max() - weeks.min() + 1 > weeks.size()).sum() == 8
