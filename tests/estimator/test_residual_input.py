"""Bad and odd input of residual structures: what is at fault is named, nothing is guessed."""

import datetime
import decimal
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.exceptions import ConvergenceWarning

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.exceptions import DegenerateModelWarning, PopulationPredictionWarning
from mixedlearn.residual import (
    AR1,
    Antedependence,
    CompoundSymmetry,
    ContinuousAR1,
    Power,
    Stratified,
    Toeplitz,
    Unstructured,
)

N_LEVELS, N_OCCASIONS = 12, 4


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    n = N_LEVELS * N_OCCASIONS
    level, occasion = np.divmod(np.arange(n), N_OCCASIONS)
    return pd.DataFrame(
        {
            "id": [f"p{own}" for own in level],
            "t": occasion,
            "visit": [f"v{own}" for own in occasion],
            "x": rng.standard_normal(n),
            "arm": np.where(level % 2, "b", "a"),
            "size": rng.uniform(0.5, 2.0, n),
            "y": rng.standard_normal(n) + np.repeat(rng.standard_normal(N_LEVELS), N_OCCASIONS),
        }
    )


def fit(data, residual, formula="y ~ x", groups="id", **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return lmer(formula, data, residual=residual, groups=groups, **parameters)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_powers_of_what_has_no_logarithm(data, value):
    bad = data.assign(size=data["size"].where(data.index != 3, value))
    message = f"Power needs numbers other than zero, but row 3 of 'size' has {value}"
    with pytest.raises(ValueError, match=message):
        fit(bad, Power(of="size"))
    model = fit(data, Power(of="size"))
    with pytest.raises(ValueError, match=message):
        model.predict(bad, return_std=True)


def test_times_of_new_rows_are_whole_numbers_too(data):
    model = fit(data, AR1(time="t"))
    with pytest.raises(ValueError, match=r"row 3 of 't' has .*2.5.*: use ContinuousAR1"):
        model.predict(data.assign(t=data["t"].where(data.index != 3, 2.5)))


REDUNDANT = {
    "power of a constant": (Power(of="two"), "power of two cannot"),
    "one stratum": (Stratified(by="same"), r"Stratified\(by='same'\).* has only 'a': leave"),
    "strata twice": (
        AR1(time="t", variance=[Stratified(by="arm"), Stratified(by="arm")]),
        "variance ratio of arm 'b' cannot",
    ),
    "strata that are the occasions": (
        AR1(time="t", variance=[Stratified(by="visit"), "heterogeneous"]),
        "variance ratio of 1 cannot",
    ),
    "strata that are the parts": (
        AR1(time="t", by="arm", variance=Stratified(by="arm")),
        "variance ratio of arm 'b' of arm 'a' cannot",
    ),
    "the same power twice": (
        AR1(time="t", variance=[Power(of="size"), Power(of="size")]),
        "power of size cannot",
    ),
}


@pytest.mark.parametrize("name", REDUNDANT)
def test_variances_that_cannot_be_told_apart(data, name):
    residual, message = REDUNDANT[name]
    with pytest.raises(ValueError, match=message):
        fit(data.assign(two=2.0, same="a"), residual)


@pytest.mark.parametrize(
    ("residual", "message"),
    [
        (Toeplitz(time="t"), "correlation at distance 3 of 't' cannot be estimated"),
        (Antedependence(time="t"), None),
    ],
)
def test_distances_that_nobody_has(data, residual, message):
    is_odd = data["arm"] == "b"
    rows = data[np.where(is_odd, data["t"] < 3, data["t"] > 0)]
    if message is None:
        assert fit(rows, residual).converged_
    else:
        with pytest.raises(ValueError, match=message):
            fit(rows, residual)


def test_steps_between_occasions_that_nobody_takes(data):
    is_odd = data["arm"] == "b"
    rows = data[np.where(is_odd, data["t"] < 2, data["t"] > 1)]
    with pytest.raises(ValueError, match="correlation of 1 and 2 of 't' cannot be estimated"):
        fit(rows, Antedependence(time="t"))


@pytest.mark.parametrize(
    "convert",
    [
        lambda t: t.astype(object),
        lambda t: t.astype("Int64"),
        lambda t: t.astype("float32"),
        lambda t: pd.Series([decimal.Decimal(int(own)) for own in t]),
    ],
    ids=["object", "Int64", "float32", "Decimal"],
)
@pytest.mark.parametrize("kind", [AR1, ContinuousAR1])
def test_gaps_count_whatever_the_type_of_the_numbers(data, convert, kind):
    gaps = data["t"].map({0: 0, 1: 1, 2: 4, 3: 6})
    expected = fit(data.assign(t=gaps), kind(time="t"))
    found = fit(data.assign(t=convert(gaps)), kind(time="t"))
    assert found.log_likelihood_ == expected.log_likelihood_


DAY = datetime.date(2020, 1, 1)


@pytest.mark.parametrize(
    "convert",
    [
        lambda t: pd.Timestamp(DAY) + pd.to_timedelta(t, unit="D"),
        lambda t: pd.to_timedelta(t, unit="D"),
        lambda t: [DAY + datetime.timedelta(days=int(own)) for own in t],
    ],
    ids=["datetime64", "timedelta64", "date"],
)
@pytest.mark.parametrize("kind", [AR1, ContinuousAR1])
def test_dates_are_occasions_but_no_times(data, convert, kind):
    dated = data.assign(t=convert(data["t"]))
    with pytest.raises(ValueError, match=r"'t', are not numbers but .*: count them"):
        fit(dated, kind(time="t"))
    found, expected = (fit(own, Unstructured(time="t")) for own in (dated, data))
    assert found.log_likelihood_ == expected.log_likelihood_


@pytest.mark.parametrize(
    ("column", "residual"),
    [
        ("t", AR1(time="t")),
        ("visit", Unstructured(time="visit")),
        ("arm", Stratified(by="arm")),
        ("arm", CompoundSymmetry(by="arm")),
    ],
)
def test_missing_values_of_columns_of_the_structure(data, column, residual):
    bad = data.assign(**{column: data[column].where(data.index != 5)})
    message = f"column '{column}', which the residual structure uses, misses a value .* in row 5"
    with pytest.raises(ValueError, match=message):
        fit(bad, residual)
    model = fit(data, residual)
    with pytest.raises(ValueError, match=message):
        model.predict(bad, return_std=True)


def test_the_object_may_be_changed_after_the_fit(data):
    residual = AR1(time="t")
    model = fit(data, residual)
    before = str(model.summary())
    residual.set_params(time="x", variance="heterogeneous")
    assert str(model.summary()) == before


@pytest.mark.parametrize("has_effect", [False, True])
@pytest.mark.parametrize("return_std", [False, True])
def test_levels_that_are_not_passed_to_predict(data, has_effect, return_std):
    X = data[["t", "x"]]
    model = MixedLinearRegressor(residual="ar1", time="t", random_intercept=has_effect)
    model.fit(X, data["y"], groups=data["id"])
    with pytest.warns(PopulationPredictionWarning, match="received no groups") as caught:
        model.predict(X, return_std=return_std)
    assert [own.filename for own in caught] == [__file__]
    model.predict(X, random_effects="none", return_std=return_std)


@pytest.mark.parametrize("has_effect", [False, True])
def test_levels_that_fit_did_not_see(data, has_effect):
    numbered = data.assign(id=data["id"].str[1:].astype(int))
    formula = "y ~ x + (1 | id)" if has_effect else "y ~ x"
    groups = None if has_effect else "id"
    model = fit(numbered, AR1(time="t"), formula, groups)
    with pytest.warns(PopulationPredictionWarning, match="All levels of 'id' are new") as caught:
        model.predict(data)
    assert [own.filename for own in caught] == [__file__]
    strict = fit(numbered, AR1(time="t"), formula, groups, handle_unknown="error")
    with pytest.raises(ValueError, match=r"level 99 of 'id' \(row 0\) was not seen"):
        strict.predict(numbered.assign(id=99))


RUNS_AWAY = {
    "ar1": AR1(time="t"),
    "antedependence": Antedependence(time="t"),
    "unstructured": Unstructured(time="t"),
    "toeplitz": Toeplitz(time="t"),
    "heterogeneous": AR1(time="t", variance="heterogeneous"),
}


@pytest.mark.parametrize("name", RUNS_AWAY)
def test_a_response_that_is_constant_in_each_level(data, name):
    constant = data.assign(y=data["id"].str[1:].astype(float))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        outcome = _fit_or_refusal(constant, RUNS_AWAY[name])
    assert outcome is False or "is not identified by these rows" in str(outcome)


def _fit_or_refusal(data, residual):
    """The message of the refusal, or whether the fit has converged."""
    try:
        return lmer("y ~ x", data, residual=residual, groups="id").converged_
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("reml", [True, False])
def test_a_stratum_without_noise(data, reml):
    exact = data.assign(y=data["y"].where(data["arm"] == "a", 1.0 + 2.0 * data["x"]))
    with pytest.raises(ValueError, match="reproduce the response of some rows exactly"):
        fit(exact, Stratified(by="arm"), "y ~ x * arm", reml=reml)


def test_too_few_iterations_are_no_fault_of_the_rows(data):
    with pytest.warns(ConvergenceWarning, match="Raise max_iter"):
        lmer("y ~ x", data, residual=Unstructured(time="t"), groups="id", max_iter=1)


def test_toeplitz_beside_a_random_intercept(data):
    with pytest.raises(ValueError, match="Toeplitz within 'id' and the random effects of 'id'"):
        fit(data, Toeplitz(time="t"), "y ~ x + (1 | id)", None)


@pytest.mark.parametrize("kind", [AR1, Toeplitz, Antedependence])
def test_text_that_the_alphabet_does_not_put_in_order(data, kind):
    weeks = data.assign(t=data["t"].map({0: "week 2", 1: "week 9", 2: "week 10", 3: "week 11"}))
    with pytest.raises(ValueError, match=r"'t' are text.* with 'week 10' before 'week 2': make"):
        fit(weeks, kind(time="t"))
    ordered = weeks.assign(t=pd.Categorical(weeks["t"], categories=weeks["t"].unique()))
    found, expected = (fit(own, kind(time="t")) for own in (ordered, data))
    np.testing.assert_allclose(found.log_likelihood_, expected.log_likelihood_, rtol=1e-12)
    assert fit(weeks, Unstructured(time="t")).converged_


def test_within_an_interaction(data):
    nested = data.assign(site=data["arm"])
    models = [
        fit(nested, AR1(time="t", within=within), "y ~ x + (1 | site/id)", None)
        for within in ("site:id", ("site", "id"))
    ]
    assert models[0].log_likelihood_ == models[1].log_likelihood_


EVEN = "rows of fit of a level of 'id' are even numbers of 't' apart, .* and row 1 is an odd"


def test_even_gaps_do_not_tell_the_sign_of_a_correlation(data):
    even = data.assign(t=2 * data["t"])
    model = fit(even, AR1(time="t"))
    same = fit(even, ContinuousAR1(time="t"))
    np.testing.assert_allclose(model.log_likelihood_, same.log_likelihood_, rtol=1e-12)
    np.testing.assert_allclose(
        model.residual_parameters_["correlation"],
        same.residual_parameters_["correlation"],
        rtol=1e-4,
    )
    later = even.head(2).assign(t=[8, 9])
    model.predict(later.head(1))
    with pytest.warns(DegenerateModelWarning, match=EVEN) as caught:
        forecast = model.predict(later)
    assert [own.filename for own in caught] == [__file__]
    np.testing.assert_allclose(forecast, same.predict(later), rtol=1e-4)
    model.predict(later, random_effects="none")


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_one_odd_gap_tells_the_sign_of_a_correlation(data, sign):
    rng = np.random.default_rng(5)
    noise = np.repeat(rng.standard_normal(N_LEVELS), N_OCCASIONS) + 0.5 * data["y"]
    noise -= noise.mean()
    noise[:4] = 2.0, 2.2, 1.9, sign * 2.0
    rows = data.assign(t=2.0 * data["t"].where(data.index != 3, 3.5), y=noise)
    model = fit(rows, AR1(time="t"), "y ~ 1")
    assert np.sign(model.residual_parameters_["correlation"]) == sign


def test_even_gaps_of_a_part(data):
    gaps = data.assign(t=np.where(data["arm"] == "a", 2, 1) * data["t"])
    model = fit(gaps, AR1(time="t", by="arm"))
    model.predict(gaps[gaps["arm"] == "b"].assign(t=9))
    with pytest.warns(DegenerateModelWarning, match="correlation of arm 'a' cannot be known"):
        model.predict(gaps[gaps["arm"] == "a"].assign(t=9))
    assert model.residual_parameters_["arm 'a': correlation"] >= 0.0


EXACT = {
    "a stratum": (Stratified(by="arm"), "y ~ x", None, "arm 'b'"),
    "beside effects": (Stratified(by="arm"), "y ~ x + (1 | id)", None, "arm 'b'"),
    "an occasion": (AR1(time="t", variance="heterogeneous"), "y ~ x", "id", "t 3"),
    "unstructured": (Unstructured(time="t"), "y ~ x", "id", "t 3"),
    "a part": (CompoundSymmetry(by="arm"), "y ~ x", "id", "arm 'b'"),
}


def few_rows(data):
    """Two rows of an arm, and of an occasion."""
    few = data[(data["t"] < 3) | data["id"].isin(["p0", "p1"])]
    last = few["id"] == "p11"
    few = few.assign(arm=np.where(last, "b", "a"))
    return few[~last | (few["t"] < 2)]


@pytest.mark.parametrize("name", EXACT)
def test_rows_that_the_fixed_effects_can_follow_exactly(data, name):
    residual, formula, groups, stratum = EXACT[name]
    few = few_rows(data)
    who = "fixed and random effects" if "|" in formula else "fixed effects"
    message = f"variance of the noise of {stratum} cannot be estimated: the {who} can follow its 2"
    with pytest.raises(ValueError, match=message):
        fit(few, residual, formula, groups, reml=False)
    if name not in ("unstructured", "a part"):
        assert fit(few, residual, formula, groups).converged_


@pytest.mark.parametrize("reml", [True, False])
def test_rows_that_fixed_effects_of_their_own_follow(data, reml):
    few = few_rows(data)
    message = "variance of the noise of arm 'b' cannot be estimated: the fixed effects follow its 2"
    with pytest.raises(ValueError, match=message):
        fit(few, Stratified(by="arm"), "y ~ x * arm", None, reml=reml)


def test_a_variance_beside_an_effect_of_every_row_has_a_maximum(data):
    """The variance of the effects keeps the likelihood from rising as that of the noise falls."""
    few = data[~data["id"].isin(["p10", "p11"]) | (data["t"] < 1)]
    few = few.assign(arm=np.where(few["id"].isin(["p10", "p11"]), "b", "a"))
    few["y"] += np.where(few["arm"] == "b", few["x"] * 3.0, 0.0)
    assert fit(few, Stratified(by="arm"), "y ~ x + (1 | id)", None, reml=False).converged_
    with pytest.raises(ValueError, match="arm 'b' cannot be estimated: the fixed effects can"):
        fit(few, Stratified(by="arm"), "y ~ x", None, reml=False)


@pytest.mark.parametrize("by_id", [True, False])
def test_a_likelihood_that_is_refused_has_no_maximum(data, by_id):
    """By dense algebra: every further fall of the variance gives as much likelihood as the last."""
    few = few_rows(data).reset_index(drop=True)
    own = (few["arm"] == "b").to_numpy()
    X = np.column_stack([np.ones(len(few)), few["x"]])
    y = few["y"].to_numpy()
    levels = few["id"].to_numpy()

    def deviance(log_ratio):
        V = np.diag(np.where(own, np.exp(log_ratio), 1.0))
        V = V + 0.5 * by_id * (levels[:, None] == levels)
        root = np.linalg.cholesky(V)
        white = np.linalg.solve(root, np.column_stack([X, y]))
        rest = np.linalg.lstsq(white[:, :2], white[:, 2], rcond=None)[1][0]
        return 2.0 * np.log(root.diagonal()).sum() + len(y) * np.log(rest)

    falls = -np.diff([deviance(own) for own in (-16.0, -20.0, -24.0)]) / 4.0
    np.testing.assert_allclose(falls, 1.0 if by_id else 2.0, atol=1e-3)


ORDER = ["v0", "v2", "v1", "v3"]


def in_polars(data):
    return pl.from_pandas(data.astype({"visit": str})).with_columns(
        pl.col("visit").cast(pl.Enum(ORDER))
    )


@pytest.mark.parametrize("frame", [in_polars, pa.Table.from_pandas], ids=["polars", "arrow"])
@pytest.mark.parametrize("by_formula", [True, False])
def test_frames_of_other_libraries(data, frame, by_formula):
    """Times are numbers and categories keep their order, in the fit and in all rows after it."""
    own = data[["id", "x"]].assign(
        t=data["t"].map({0: 0, 1: 1, 2: 4, 3: 6}),
        visit=pd.Categorical(data["visit"], categories=ORDER),
    )
    for structure in (AR1(time="t"), Antedependence(time="visit")):
        parameters = {"residual": structure, "groups": "id"}
        parameters |= {"formula": "x"} if by_formula else {"fixed_effects": ["x"]}
        parameters |= {} if by_formula else {"random_intercept": False}
        expected = MixedLinearRegressor(**parameters).fit(own, data["y"])
        found = MixedLinearRegressor(**parameters).fit(frame(own), data["y"])
        assert found.residual_parameters_ == expected.residual_parameters_
        later = own.assign(t=own["t"] + 2).iloc[3::4] if structure.time == "t" else own.iloc[:3]
        seen = frame(later.reset_index(drop=True))
        np.testing.assert_array_equal(found.predict(seen), expected.predict(later))
        draws = [
            model.sample_y(rows, random_state=0)
            for model, rows in ((found, seen), (expected, later))
        ]
        np.testing.assert_array_equal(*draws)
        if structure.time == "t":
            found.update_random_effects(seen, data["y"].iloc[3::4])
            expected.update_random_effects(later, data["y"].iloc[3::4])
            after = later.assign(t=11)
            np.testing.assert_array_equal(found.predict(after), expected.predict(after))
