"""Bad input with several grouping factors: the message names the factor, the row and what to do."""

import re

import numpy as np
import pandas as pd
import polars as pl
import pytest

from mixedlearn import MixedLinearRegressor

N = 24
RNG = np.random.default_rng(0)
SITES = np.repeat(["a", "b", "c", "d"], 6)
TEAMS = np.tile(["u", "v", "w"], 8)
ARRAY = RNG.normal(size=(N, 2))
Y = 2.0 * ARRAY[:, 0] + np.repeat([0.0, 1.0, 3.0, 2.0], 6) + np.tile([0.0, 2.0, 1.0], 8)
Y += RNG.normal(size=N)
GROUPS = pd.DataFrame({"site": SITES, "team": TEAMS})
FRAME = pd.DataFrame({"length": ARRAY[:, 0], "width": ARRAY[:, 1]}).join(GROUPS)
NESTED = ["site", ("site", "team")]


def with_entry(values, row, value):
    changed = np.array(values, dtype=object)
    changed[row] = value
    return changed


def fit_frame(X=FRAME, **parameters):
    return MixedLinearRegressor(**{"groups": NESTED, **parameters}).fit(X, Y)


def fit_array(groups=GROUPS, sample_weight=None, **parameters):
    estimator = MixedLinearRegressor(**parameters)
    return estimator.fit(ARRAY, Y, groups=groups, sample_weight=sample_weight)


@pytest.fixture(scope="module")
def frame_model():
    return fit_frame()


@pytest.fixture(scope="module")
def named_model():
    return fit_array()


@pytest.fixture(scope="module")
def array_model():
    return fit_array(GROUPS.to_numpy())


# The constructor's groups


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            ["site", "taem"],
            "groups names the column 'taem', .*Did you mean 'team'.*'width', 'site'",
        ),
        (["site", ("site", "taem")], "groups names the column 'taem', .*Did you mean 'team'"),
        (("sight", "team"), "groups names the column 'sight', .*Did you mean 'site'"),
        (["site", 4], "groups names column 4, but X has 4 feature.*from 0 to 3"),
        ([("site", -5)], "groups names column -5, but X has 4 feature"),
        ([()], r"the tuple \(\), but an interaction has two columns or more: name its columns"),
        ((), r"the tuple \(\), but an interaction has two columns or more: name its columns"),
        (["site", ("team",)], r"\('team',\), but .* two columns or more: .* itself, 'team'"),
        ([], r"groups=\[\] names no column: name one, or leave groups=None"),
        (["site", "site"], "groups names the factor 'site' twice"),
        (["site", 2], "groups names the factor 'site' twice"),
        ([3, -1], "groups names the factor 'team' twice"),
        ([("site", "team"), ("site", "team")], "groups names the factor 'site:team' twice"),
        ([("site", "team"), ("team", "site")], "groups names the factor 'team:site' twice"),
        ([("site", "team"), (2, 3)], "groups names the factor 'site:team' twice"),
        ([("site", "site")], r"the interaction \('site', 'site'\), which names a column twice"),
        ([("site", "team", 2)], r"\('site', 'team', 2\), which names a column twice"),
        (["site", "site:team"], r"'site:team': an interaction is a tuple, \('site', 'team'\)"),
        ([["site", "team"]], r"\['site', 'team'\]: an interaction is a tuple, \('site', 'team'\)"),
        ([["site"]], r"groups must name columns .* got \['site'\]"),
        (("site", ("team", "width")), r"groups must name columns .* got \('team', 'width'\)"),
        (["site", None], "groups must name columns .* got None"),
        (["site", True], "groups must name columns .* got True"),
        ([("site", 1.5)], r"groups must name columns .* got 1\.5"),
        (["length", "site"], "Column 'team' of X is not numeric: 'u' at row 0.*name it in groups"),
    ],
    ids=str,
)
def test_groups_that_name_what_is_not_there(groups, message):
    with pytest.raises(ValueError, match=message):
        fit_frame(groups=groups)


def test_two_factors_of_one_name():
    X = FRAME.assign(**{"site:team": RNG.integers(3, size=N)})
    message = "Two grouping factors are called 'site:team': rename one of them"
    with pytest.raises(ValueError, match=message):
        fit_frame(X, groups=["site:team", ("site", "team")])
    X = X.drop(columns="team")
    # A column of that name is no interaction.
    assert fit_frame(X, groups=["site:team", "site"]).n_groups_ == {"site:team": 3, "site": 4}


# Parameters by factor


@pytest.mark.parametrize("parameter", ["random_intercept", "random_slopes", "covariance"])
@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("sight", "'sight'"),
        ("team", "'team'"),
        ("team:site", "'team:site'"),
        (("team", "site"), "'team:site'"),
        (2, "2"),
        (None, "None"),
    ],
)
def test_parameter_for_an_unknown_factor(parameter, key, shown):
    message = (
        f"{parameter} has an entry for {shown}, but the grouping factors are called 'site', "
        "'site:team': use one of these names"
    )
    with pytest.raises(ValueError, match=message):
        fit_frame(**{parameter: {"site": True, key: True}})


@pytest.mark.parametrize("parameter", ["random_intercept", "random_slopes", "covariance"])
def test_parameter_twice_for_a_factor(parameter):
    message = f"{parameter} has two entries for 'site:team': give one"
    with pytest.raises(ValueError, match=message):
        fit_frame(**{parameter: {"site:team": True, ("site", "team"): False}})


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"random_slopes": {"site:team": ["lenght"]}},
            r"random_slopes\['site:team'\] names the column 'lenght', .*Did you mean 'length'",
        ),
        (
            {"random_slopes": {"site": ["length"], ("site", "team"): ["width", 1]}},
            r"random_slopes\['site:team'\] names the column 'width' twice",
        ),
        (
            {"random_slopes": {"site": ["team"]}},
            r"random_slopes\['site'\] names 'team', which is a group column.*Copy it",
        ),
        (
            {"random_slopes": {("site", "team"): {"length"}}},
            r"random_slopes\['site:team'\] must be a list of columns of X, got \{'length'\}",
        ),
        ({"random_slopes": ["team"]}, "random_slopes names 'team', which is a group column"),
        ({"fixed_effects": ["length", "team"]}, "fixed_effects names 'team', which is a group col"),
        ({"fixed_effects": [2]}, "fixed_effects names 'site', which is a group column"),
        ({"random_intercept": {"site:team": "no"}}, "entry 'no' for 'site:team': give True or"),
        ({"random_intercept": {("site", "team"): 1}}, "entry 1 for 'site:team': give True or"),
        ({"random_intercept": {"site": False}}, "The factor 'site' has no random effect.*leave"),
        (
            {"random_intercept": False, "random_slopes": {"site": ["length"]}},
            "The factor 'site:team' has no random effect.*Set one of them, or leave",
        ),
        ({"covariance": {"site:team": "ful"}}, "entry 'ful' for 'site:team': give 'full', 'diag"),
        (
            {"covariance": {("site", "team"): np.ones((2, 2), bool)}},
            r"'site:team': The covariance mask has shape \(2, 2\).* 1 .*\(intercept\): give a \(1,",
        ),
        (
            {"covariance": np.ones((2, 2), bool), "random_slopes": {"site": ["length"]}},
            r"Factor 'site:team': The covariance mask has shape \(2, 2\).* give a \(1, 1\)",
        ),
        (
            {"covariance": {"site": [[1]]}},
            "Factor 'site': The covariance mask has dtype int64: give booleans",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_parameter_for_one_factor(parameters, message):
    with pytest.raises(ValueError, match=message):
        fit_frame(**parameters)


# Labels

LABELS = {
    "DataFrame": lambda second: GROUPS.assign(team=second),
    "categories": lambda second: GROUPS.assign(team=pd.Categorical(second)),
    "array": lambda second: np.column_stack([with_entry(SITES, 0, "a"), second]),
    "rows": lambda second: [list(row) for row in zip(SITES, second, strict=True)],
    "polars": lambda second: pl.DataFrame(
        {"site": list(SITES), "team": [None if label is np.nan else label for label in second]}
    ),
    "MultiIndex": lambda second: pd.MultiIndex.from_arrays([SITES, second], names=["site", "team"]),
}


@pytest.mark.parametrize("missing", [None, np.nan], ids=str)
@pytest.mark.parametrize("form", LABELS)
def test_missing_label_of_the_second_factor(named_model, missing, form):
    groups = LABELS[form](with_entry(TEAMS, 7, missing))
    name = "group1" if form in ("array", "rows") else "team"
    message = "groups of factor '{}' have missing labels .*, the first at row 7: drop these rows"
    with pytest.raises(ValueError, match=message.format(name)):
        fit_array(groups)
    with pytest.raises(ValueError, match=message.format("team")):
        named_model.update_random_effects(ARRAY, Y, groups=groups)
    with pytest.raises(ValueError, match=message.format("team")):
        named_model.sample_y(ARRAY, groups=groups)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA], ids=repr)
def test_missing_label_in_a_column_of_an_interaction(frame_model, missing):
    X = FRAME.assign(team=with_entry(TEAMS, 7, missing))
    for action in (fit_frame, frame_model.sample_y):
        with pytest.raises(ValueError, match=r"factor 'team' have missing labels.*row 7"):
            action(X)


@pytest.mark.parametrize(
    ("second", "error", "message"),
    [
        ([[1]] * N, TypeError, r"factor 'team' hold \[1\] at row 0: .*hashable"),
        (with_entry(TEAMS, 5, {}), TypeError, r"factor 'team' hold \{\} at row 5: .*hashable"),
        (np.r_[np.arange(N - 1), np.inf], ValueError, r"'team' have an infinite label .*row 23"),
        (np.arange(N) % 3 + 0j, ValueError, "Complex data .*factor 'team' are complex"),
    ],
    ids=["list", "dict", "infinite", "complex"],
)
def test_bad_labels_of_the_second_factor(named_model, frame_model, second, error, message):
    groups = GROUPS.assign(team=second)
    with pytest.raises(error, match=message):
        fit_array(groups)
    with pytest.raises(error, match=message):
        named_model.predict(ARRAY, groups=groups)
    message = message.replace("'team'", "'(site:)?team'")
    with pytest.raises(error, match=message):
        fit_frame(FRAME.assign(team=second))
    with pytest.raises(error, match=message):
        frame_model.predict(FRAME.assign(team=second))


# The shape of groups


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (GROUPS[:-1], "groups has 23 labels, but X has 24 rows: give one label for each row"),
        (GROUPS.to_numpy()[:-1], "groups has 23 labels, but X has 24 rows"),
        (GROUPS.to_numpy().tolist() * 2, "groups has 48 labels, but X has 24 rows"),
        ((SITES, TEAMS), r"a list of 2 columns of 24 labels: give an array of shape \(24, 2\) or"),
        ([list(SITES), list(TEAMS)], r"a list of 2 columns of 24 labels: .* \(24, 2\)"),
        ([GROUPS["site"], GROUPS["team"]], r"a list of 2 columns of 24 labels: .* \(24, 2\)"),
        ([list(SITES)], r"a list of 1 column of 24 labels: .* \(24, 1\)"),
        (GROUPS.to_numpy().T, r"an array of 2 columns of 24 labels: .* \(24, 2\) or a DataFrame"),
        (
            np.zeros((N, 2, 2)),
            r"one or two dimensions, got .*shape \(24, 2, 2\): .*a row of labels",
        ),
        (
            [*GROUPS.to_numpy().tolist()[:-1], ["d"]],
            "different lengths: row 0 has 2 labels, row 23 has 1: give every row as many",
        ),
        (np.empty((N, 0)), "groups has no columns: give one for each grouping factor"),
        (GROUPS[[]], "groups has no columns: give one for each grouping factor"),
        (pl.DataFrame(), "groups has no columns: give one for each grouping factor"),
        ([[]] * N, "groups has no columns: give one for each grouping factor"),
        (dict(GROUPS), "one label for each row in their order, got a dict"),
        (["site", "team"], r"groups has 2 labels, but X has 24 rows: .*To name a column of X"),
        (GROUPS[["team", "team"]], "groups has the column 'team' twice: give unique column names"),
        (GROUPS.set_axis([1, "1"], axis=1), "groups has the column '1' twice"),
    ],
)
def test_groups_of_another_shape(named_model, groups, message):
    with pytest.raises(ValueError, match=message):
        fit_array(groups)
    with pytest.raises(ValueError, match=message):
        named_model.predict(ARRAY, groups=groups)


def test_columns_are_taken_by_name(named_model, array_model):
    expected = named_model.predict(ARRAY, groups=GROUPS)
    swapped = GROUPS[["team", "site"]]
    for groups in (
        swapped,
        pl.DataFrame({name: list(swapped[name]) for name in swapped}),
        pd.MultiIndex.from_frame(swapped),
    ):
        np.testing.assert_array_equal(named_model.predict(ARRAY, groups=groups), expected)
    # Without names they are taken by position.
    for model in (named_model, array_model):
        array = GROUPS.to_numpy()
        for groups in (array, array.tolist(), pd.MultiIndex.from_arrays(array.T)):
            np.testing.assert_array_equal(model.predict(ARRAY, groups=groups), expected)
        population = model.predict(ARRAY, random_effects="none")
        np.testing.assert_array_equal(model.predict(ARRAY, groups=swapped.to_numpy()), population)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (GROUPS[["site"]], r"groups has 1 column \(site\), .* 2 grouping factors \(site, team\)"),
        (GROUPS["team"], r"groups has 1 column \(team\), but the model has 2 grouping factors"),
        (SITES, r"groups has 1 column \(group\), but .* 2 grouping factors .*give a column for"),
        (list(SITES), r"groups has 1 column \(group\), but the model has 2 grouping factors"),
        (GROUPS.assign(day=1), r"groups has 3 columns \(site, team, day\), but .* 2 grouping"),
        (np.c_[SITES, TEAMS, TEAMS], "groups has 3 columns .*, but the model has 2 grouping"),
        (
            GROUPS.rename(columns={"team": "Team"}),
            "no column for the factor 'team': its columns are 'site', 'Team', the model's factors "
            "'site', 'team'",
        ),
        (GROUPS.set_axis([0, 1], axis=1), "no column for the factor 'site': .* are '0', '1'"),
        (
            pd.MultiIndex.from_frame(GROUPS, names=["team", "day"]),
            "no column for the factor 'site': its columns are 'team', 'day'",
        ),
    ],
)
def test_other_columns_in_predict(named_model, groups, message):
    with pytest.raises(ValueError, match=message):
        named_model.predict(ARRAY, groups=groups)
    with pytest.raises(ValueError, match=message):
        named_model.score(ARRAY, Y, groups=groups)
    # Whatever effects are wanted.
    with pytest.raises(ValueError, match=message):
        named_model.predict(ARRAY, groups=groups, random_effects=["site"])


def test_names_that_the_model_does_not_know(array_model):
    message = "no column for the factor 'group0': .* 'site', 'team', the model's factors 'group0'"
    with pytest.raises(ValueError, match=message):
        array_model.predict(ARRAY, groups=GROUPS)


@pytest.mark.parametrize(
    ("groups", "listed"),
    [(NESTED, "columns 'site', 'site:team'"), (("site", "team"), "column 'site:team'")],
    ids=str,
)
def test_groups_given_twice(groups, listed):
    message = f"groups were given twice: the constructor names the {listed} and .*Use one"
    model = fit_frame(groups=groups)
    for labels in (GROUPS, SITES):
        with pytest.raises(ValueError, match=message):
            MixedLinearRegressor(groups=groups).fit(FRAME, Y, groups=labels)
        with pytest.raises(ValueError, match=message):
            model.predict(FRAME, groups=labels)
        with pytest.raises(ValueError, match=message):
            model.score(FRAME, Y, groups=labels)


# Levels


@pytest.mark.parametrize("form", LABELS)
def test_unseen_level_of_the_second_factor(form):
    model = fit_array(handle_unknown="error")
    groups = LABELS[form](with_entry(TEAMS, 5, "z"))
    message = r"level 'z' of 'team' \(row 5\) was not seen in fit.*without an effect of 'team'"
    with pytest.raises(ValueError, match=message):
        model.predict(ARRAY, groups=groups)
    with pytest.raises(ValueError, match=message):
        model.predict(ARRAY, groups=groups, random_effects="team")
    with pytest.raises(ValueError, match=message):
        model.score(ARRAY, Y, groups=groups)
    # Teams are not looked up where their effects are not wanted.
    np.testing.assert_array_equal(
        model.predict(ARRAY, groups=groups, random_effects=["site"]),
        model.predict(ARRAY, groups=GROUPS, random_effects=["site"]),
    )


@pytest.mark.parametrize(
    ("team", "shown"),
    [
        (TEAMS, r"\('a', 'w'\)"),
        (np.tile([1, 2, 3], 8), r"\('a', 3\)"),
        (pd.Series(np.tile([1.5, 2.5, 3.5], 8), dtype="category"), r"\('a', 3\.5\)"),
        (
            pd.to_datetime(np.tile(["2020-01-01", "2020-02-01", "2020-03-01"], 8)),
            r"\('a', Timestamp\('2020-03-01.*\)\)",
        ),
    ],
    ids=["text", "numbers", "categories", "dates"],
)
def test_unseen_combination_of_seen_levels(team, shown):
    X = FRAME.assign(team=team)
    seen = (SITES != "a") | (TEAMS != "w")
    model = MixedLinearRegressor(groups=NESTED, handle_unknown="error").fit(X[seen], Y[seen])
    message = rf"level {shown} of 'site:team' \(row 2\) was not seen in fit"
    with pytest.raises(ValueError, match=message):
        model.predict(X)
    model.predict(X[seen])
    model.predict(X, random_effects="site")
    with pytest.raises(ValueError, match=r"level \('z', .*\) of 'site:team' \(row 0\)"):
        model.predict(X.assign(site="z"), random_effects=[("site", "team")])


# Other arguments


@pytest.mark.parametrize(
    ("random_effects", "message"),
    [
        ("team", "names the factor 'team', but .* factors are 'site', 'site:team'. Give 'all'"),
        (["site", "sight"], "names the factor 'sight', but .* are 'site', 'site:team'"),
        ([("team", "site")], "names the factor 'team:site', but"),
        (("team", "site"), "names the factor 'team:site', but .* are 'site', 'site:team'"),
        (["all"], "names the factor 'all', but"),
        ([["site"]], r"names the factor \['site'\], but"),
        ([0], "names the factor 0, but"),
        (None, "must be 'all', 'none' or a list of factors, got None"),
        ({"site"}, r"must be 'all', 'none' or a list of factors, got \{'site'\}"),
    ],
    ids=str,
)
def test_unknown_factor_in_predict(frame_model, random_effects, message):
    with pytest.raises(ValueError, match=re.compile(f"random_effects {message}")):
        frame_model.predict(FRAME, random_effects=random_effects)


def test_theta_of_the_wrong_length(frame_model):
    message = r"theta has shape \(1,\), but the model has 2 parameters: give shape \(2,\)"
    with pytest.raises(ValueError, match=message):
        frame_model.log_likelihood([1.0])


def test_rows_of_weight_zero_are_checked_as_well():
    weights = np.ones(N)
    weights[7] = 0.0
    with pytest.raises(ValueError, match=r"factor 'team' have missing labels.*row 7"):
        fit_array(GROUPS.assign(team=with_entry(TEAMS, 7, None)), sample_weight=weights)
