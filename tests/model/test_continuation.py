"""Draws of correlated noise, and rows that come after the fit, against dense algebra.

The bounds of moments are those of `assert_moments`: a false alarm in one of 10,000 seeds.
"""

import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reference.noise_cases import (
    CASES,
    covariance_of_new,
    design,
    fit,
    fit_to,
    make_data,
    noise_covariance,
    parameters_of,
    split,
    whole_covariance,
)

from helpers.chance import RATE, assert_moments, normal_bound, within_chi_squared
from mixedlearn import MixedLinearRegressor, inference
from mixedlearn.residual import AR1, CompoundSymmetry, Toeplitz

N_SAMPLES = 20_000
# Each arm keeps too few rows for an unstructured covariance; variances alone have no levels.
UPDATED = [name for name in CASES if name not in ("power", "strata", "unstructured by arm")]


def test_rows_with_another_value_of_by_than_their_level_are_refused():
    model, data = fit(CASES["ar1 by arm"])
    rows = data.loc[[0, 0]].assign(t=[17, 18], arm=[data["arm"][0], "ba"[data["arm"][0] == "b"]])
    message = r"Row 1 has '.' in the column 'arm', .* its level .* of 'id' have '.'"
    for ask in (
        lambda: model.predict(rows),
        lambda: model.predict(rows, return_std=True),
        lambda: inference.prediction_intervals(model, rows),
    ):
        with pytest.raises(ValueError, match=message):
            ask()
    with pytest.raises(ValueError, match="Row 0 has"):
        model.sample_y(rows.tail(1), random_effects="fitted")
    population = model.predict(rows, random_effects="none", return_std=True)[1]
    assert population[0] != population[1]


@pytest.mark.parametrize("name", UPDATED)
def test_later_rows_are_conditioned_on(name):
    case = CASES[name]
    seen, later, unseen = split(case)
    model = fit_to(case, seen)
    coef = np.append(model.intercept_, model.coef_)
    before = model.log_likelihood_, model.coef_covariance_.to_numpy()
    first, second = later[::2], later[1::2]
    for own in (first, second) if case.residual.get_params().get("time") else (later,):
        model.update_random_effects(own, own["y"])
    model = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(coef, np.append(model.intercept_, model.coef_))
    assert before[0] == model.log_likelihood_
    rows = pd.concat([seen, later, unseen], ignore_index=True)
    n = len(seen) + len(later)
    V, X = whole_covariance(case, model, rows), design(rows)
    weights = np.linalg.solve(V[:n, :n], V[:n, n:])
    residuals = rows["y"].to_numpy()[:n] - X[:n] @ coef
    expected = X[n:] @ coef + weights.T @ residuals
    mean, std = model.predict(unseen, return_std=True)
    np.testing.assert_allclose(mean, expected, rtol=1e-8)
    rest = X[n:] - weights.T @ X[:n]
    variance = np.diag(V[n:, n:] - weights.T @ V[:n, n:] + rest @ before[1] @ rest.T)
    np.testing.assert_allclose(std, np.sqrt(variance), rtol=1e-8)
    own = parameters_of(case, model)
    turned = np.linalg.solve(V[:n, :n], residuals)
    for factor in case.random:
        blups = model.random_effects_[factor]["intercept"]
        labels = rows[factor].to_numpy()[:n]
        assert set(labels) == set(blups.index)
        assert list(model.n_groups_.values())[case.random.index(factor)] == len(blups)
        spread = model.random_effects_covariances_[factor][:, 0, 0]
        for (level, blup), variance in zip(blups.items(), spread, strict=True):
            z = 1.0 * (labels == level)
            left = own[factor] - own[factor] ** 2 * z @ np.linalg.solve(V[:n, :n], z)
            assert variance == pytest.approx(left, rel=1e-7)
            assert blup == pytest.approx(own[factor] * turned[labels == level].sum(), abs=1e-9)


def test_weights_and_labels_beside_the_rows():
    case = CASES["ar1"]
    seen, later, unseen = split(case)
    rng = np.random.default_rng(0)
    weights = [rng.uniform(0.3, 3.0, len(own)) for own in (seen, later)]
    weights[1][0] = 0.0
    columns = ["x", "arm", "t"]
    seen, later, unseen = (
        own.assign(arm=1.0 * (own["arm"] == "b")) for own in (seen, later, unseen)
    )
    model = MixedLinearRegressor(
        fixed_effects=["x", "arm"], random_intercept=False, residual=AR1(time="t", within="id")
    )
    model.fit(seen[columns], seen["y"], groups=seen[["id"]], sample_weight=weights[0])
    model.update_random_effects(
        later[columns], later["y"], groups=later[["id"]], sample_weight=weights[1]
    )
    rows = pd.concat([seen, later[1:], unseen], ignore_index=True)
    all_weights = np.concatenate([weights[0], weights[1][1:], np.ones(len(unseen))])
    n, root = len(rows) - len(unseen), np.sqrt(all_weights)
    R = noise_covariance(case, model, rows, parameters_of(case, model)) / np.outer(root, root)
    coef = np.append(model.intercept_, model.coef_)
    X = np.column_stack([np.ones(len(rows)), rows[["x", "arm"]]])
    residuals = rows["y"].to_numpy() - X @ coef
    expected = X[n:] @ coef + R[n:, :n] @ np.linalg.solve(R[:n, :n], residuals[:n])
    found = model.predict(unseen[columns], groups=unseen[["id"]])
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_without_a_time_column_later_rows_come_after_the_others():
    data = make_data(0).sort_values(["id", "t"], ignore_index=True)
    last = ~data["id"].duplicated(keep="last")
    seen, later = data[~last], data[last]
    by_order = MixedLinearRegressor(formula="x + (1 | id)", residual=AR1()).fit(seen, seen["y"])
    numbered = data.assign(t=data.groupby("id").cumcount())
    by_time = MixedLinearRegressor(formula="x + (1 | id)", residual=AR1(time="t"))
    by_time.fit(numbered[~last], seen["y"])
    assert by_order.log_likelihood_ == pytest.approx(by_time.log_likelihood_, rel=1e-12)
    by_order.update_random_effects(later, later["y"])
    by_time.update_random_effects(numbered[last], later["y"])
    np.testing.assert_allclose(
        by_order.random_effects_["id"], by_time.random_effects_["id"], rtol=1e-9
    )


def test_rows_that_the_model_knows_are_refused():
    model, data = fit(CASES["ar1"])
    own = data.head(1)
    with pytest.raises(ValueError, match=r"has a row that the model knows at t .* Leave the row"):
        model.update_random_effects(own, own["y"])
    twice = pd.concat([own, own]).assign(t=17)
    with pytest.raises(ValueError, match=r"has two rows at t 17 \(row 1\)"):
        model.update_random_effects(twice, twice["y"])
    model.update_random_effects(twice.head(1), twice["y"].head(1))
    with pytest.raises(ValueError, match="has a row that the model knows at t 17"):
        model.update_random_effects(twice.head(1), twice["y"].head(1))
    with pytest.raises(ValueError, match=r"missing \(NaN or None\) in row 0, so that nobody"):
        model.update_random_effects(own.assign(id=None), own["y"])
    with pytest.raises(ValueError, match="groups names the column 'id', which X does not"):
        model.update_random_effects(own.drop(columns="id"), own["y"])
    by_arm, data = fit(CASES["ar1 by arm"])
    other = data.head(1).assign(t=17, arm="a" if data["arm"][0] == "b" else "b")
    with pytest.raises(ValueError, match="has several values of 'arm', by which"):
        by_arm.update_random_effects(other, other["y"])
    unstructured, data = fit(CASES["unstructured"])
    with pytest.raises(ValueError, match=r"The occasion 'v9' of 'visit' .* was not seen in fit"):
        unstructured.update_random_effects(data.head(1).assign(visit="v9"), data["y"].head(1))


@pytest.mark.parametrize("name", CASES)
def test_new_draws_have_the_covariance_of_the_model(name):
    case = CASES[name]
    model, data = fit(case)
    rows = data[data["id"].isin(["s1", "s6"])].copy()
    rows.loc[rows["id"] == "s6", "id"] = "nobody"
    weights = np.random.default_rng(1).uniform(0.4, 2.0, len(rows))
    found = model.sample_y(rows, N_SAMPLES, random_state=0, sample_weight=weights)
    V = covariance_of_new(case, model, data, rows)
    R = covariance_of_new(case, model, data, rows, of_noise=True)
    V += R / np.sqrt(np.outer(weights, weights)) - R
    assert_moments(found, model.predict(rows, random_effects="none"), V)


@pytest.mark.parametrize("name", [*UPDATED, "power"])
def test_draws_of_fitted_levels_continue_from_their_residuals(name):
    """Rows at times that the level has are repetitions, with noise of their own."""
    case = CASES[name]
    model, data = fit(case)
    known = data[data["id"].isin(["s3", "s4"])]
    level = known[known["id"] == "s3"]
    missing = next(own for own in "0123" if f"v{own}" not in set(level["visit"]))
    new = level.head(1).assign(visit=f"v{missing}", t=float(missing) + 0.9 * case.irregular, x=0.7)
    fresh = known[known["id"] == "s4"].assign(id="nobody")
    rows = pd.concat([new, known, fresh], ignore_index=True)
    if case.by_visit is False and case.correlation == "ar1":
        further = level.head(1).assign(t=6.0, x=-0.2)
        rows = pd.concat([rows, further], ignore_index=True)
    is_new = np.isin(np.arange(len(rows)), [0, *range(1 + len(known) + len(fresh), len(rows))])
    continues = is_new | ((case.correlation == "cs") & (rows["id"] != "nobody").to_numpy())
    own = covariance_of_new(case, model, data, rows, of_noise=True)
    own[np.ix_(continues, ~continues)] = own[np.ix_(~continues, continues)] = 0.0
    n = len(data)
    R = whole_covariance(
        case, model, pd.concat([data, rows[continues]], ignore_index=True), of_noise=True
    )
    carried = R[:n, n:]
    own[np.ix_(continues, continues)] -= carried.T @ np.linalg.solve(R[:n, :n], carried)
    if "id" in case.random:
        own[np.ix_(rows["id"] == "nobody", rows["id"] == "nobody")] += parameters_of(case, model)[
            "id"
        ]
    found = model.sample_y(rows, N_SAMPLES, random_state=1, random_effects="fitted")
    assert_moments(found, model.predict(rows), own)


def test_draws_of_fitted_levels_with_weights():
    model, data = fit(CASES["ar1"])
    rows = data.drop_duplicates("id").head(2).assign(t=5.0)
    rows = pd.concat([rows, rows.assign(t=7.0)], ignore_index=True)
    weights = np.array([0.5, 1.0, 3.0, 2.0])
    found = model.sample_y(
        rows, N_SAMPLES, random_state=4, random_effects="fitted", sample_weight=weights
    )
    both = pd.concat([data, rows], ignore_index=True)
    R, n = whole_covariance(CASES["ar1"], model, both, of_noise=True), len(data)
    carried, root = R[:n, n:], np.sqrt(weights)
    covariance = R[n:, n:] - carried.T @ np.linalg.solve(R[:n, :n], carried)
    population = model.predict(rows, random_effects="none")
    mean = population + (model.predict(rows) - population) / root
    assert_moments(found, mean, covariance / np.outer(root, root))


def test_draws_of_updated_levels_continue_from_their_later_rows():
    case = CASES["ar1 beside an intercept"]
    seen, later, unseen = split(case)
    model = fit_to(case, seen).update_random_effects(later, later["y"])
    rows = pd.concat([seen, later, unseen], ignore_index=True)
    n = len(rows) - len(unseen)
    R = whole_covariance(case, model, rows, of_noise=True)
    covariance = R[n:, n:] - R[n:, :n] @ np.linalg.solve(R[:n, :n], R[:n, n:])
    found = model.sample_y(unseen, N_SAMPLES, random_state=2, random_effects="fitted")
    assert_moments(found, model.predict(unseen), covariance)


def test_rows_without_a_time_column_are_drawn_in_the_order_in_which_they_come():
    data = make_data(0)
    model = MixedLinearRegressor(formula="x + arm", groups="id", residual=AR1()).fit(
        data, data["y"]
    )
    rows = data.head(1).loc[[0, 0, 0]].assign(x=[0.1, 0.2, 0.3])
    rho = model.residual_parameters_["correlation"]
    gaps = np.abs(np.subtract.outer(np.arange(3), np.arange(3)))
    for effects in ("new", "fitted"):
        found = model.sample_y(rows, N_SAMPLES, random_state=3, random_effects=effects)
        assert_moments(found, model.predict(rows), model.noise_variance_ * rho**gaps)


def test_draws_that_are_refused():
    model, data = fit(CASES["ar1"])
    twice = data.head(1).loc[[0, 0]]
    with pytest.raises(ValueError, match="has two rows at t"):
        model.sample_y(twice)
    with pytest.raises(ValueError, match=r"label of 'id' is missing \(NaN or None\) in row 0"):
        model.sample_y(data.head(1).assign(id=None))
    with pytest.warns(match="rows are of new levels of 'id'"):
        model.sample_y(data.head(2).assign(id=[1, 2]), random_effects="fitted")
    equal = MixedLinearRegressor(formula="x", groups="id", residual=CompoundSymmetry())
    assert equal.fit(data, data["y"]).sample_y(twice, random_state=0).shape == (2, 1)
    toeplitz, _ = fit(CASES["toeplitz"])
    with pytest.raises(ValueError, match=r"occasion 'v7' of 'visit' .* was not seen in fit"):
        toeplitz.sample_y(data.head(1).assign(visit="v7"))
    by_labels = MixedLinearRegressor(random_intercept=False, residual=AR1(within="id"))
    by_labels.fit(data[["x"]], data["y"], groups=data[["id"]])
    with pytest.raises(ValueError, match="sample_y received no groups, but the noise of the rows"):
        by_labels.sample_y(data[["x"]])


def test_correlations_that_contradict_each_other_are_said():
    """Two rows of a level may have any correlation, four may not."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal(60)
    y = np.column_stack([shared, -shared]) + 0.3 * rng.standard_normal((60, 2))
    data = pd.DataFrame({"id": np.repeat(np.arange(60), 2), "y": y.ravel()})
    model = MixedLinearRegressor(formula="1", groups="id", residual=CompoundSymmetry())
    model.fit(data, data["y"])
    assert model.residual_parameters_["correlation"] < -1.0 / 3.0
    with pytest.raises(ValueError, match="not positive definite under CompoundSymmetry"):
        model.sample_y(data.head(1).loc[[0] * 4])


def test_a_toeplitz_matrix_is_a_covariance_of_all_occasions():
    """Levels of two occasions bound no covariance of four, but there is no other."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal(60)
    y = np.column_stack([shared, shared, -shared, -shared]) + 0.3 * rng.standard_normal((60, 4))
    rows = [
        {"id": level, "visit": f"v{visit}", "y": y[level, visit]}
        for level in range(60)
        for visit in ((0, 1), (1, 2), (2, 3), (0, 2), (1, 3), (0, 3))[level % 6]
    ]
    data = pd.DataFrame(rows)
    model = MixedLinearRegressor(formula="1", groups="id", residual=Toeplitz(time="visit"))
    with pytest.raises(ValueError, match=r"the partial correlation at distance . tends to -1"):
        model.fit(data, data["y"])


LABELS = {
    "integers": lambda own: own.str[1:].astype(int),
    "text": lambda own: own,
    "dates": lambda own: pd.Timestamp("2020-01-01") + pd.to_timedelta(own.str[1:].astype(int), "D"),
    "category": lambda own: own.astype("category"),
    "unsortable": lambda own: own.where(own != "s5", 5).where(own != "s28", 28.5),
}


@settings(max_examples=25, deadline=None)
@given(
    order=st.permutations(range(12)),
    cuts=st.sets(st.integers(1, 11), max_size=4),
    labels=st.sampled_from(sorted(LABELS)),
    name=st.sampled_from(["ar1", "ar1 beside an intercept", "compound symmetry", "unstructured"]),
)
def test_rows_may_come_in_any_order_and_in_any_number_of_updates(order, cuts, labels, name):
    case = CASES[name]
    seen, later, unseen = (own.assign(id=LABELS[labels](own["id"])) for own in split(case))
    known, later = fit_to(case, seen), later.iloc[-12:]
    at_once, by_parts = (pickle.loads(pickle.dumps(known)) for _ in range(2))
    at_once.update_random_effects(later, later["y"])
    for part in np.split(np.array(order), sorted(cuts)):
        own = later.iloc[part]
        by_parts.update_random_effects(own, own["y"])
    rows = pd.concat([unseen, later.assign(t=9.0) if case.correlation == "ar1" else later])
    for found, expected in zip(
        by_parts.predict(rows, return_std=True),
        at_once.predict(rows, return_std=True),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    for factor in case.random:
        one, other = by_parts.random_effects_[factor], at_once.random_effects_[factor]
        np.testing.assert_allclose(one.loc[other.index], other, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("is_effect", [True, False])
def test_interactions_as_series(is_effect):
    data = make_data(2).assign(t=lambda own: own["t"].astype(int))
    data["pair"] = data["site"] + ":" + data["rater"]
    data["t"] = data.groupby("pair").cumcount()
    term = "(1 | site:rater)" if is_effect else "1"
    single = "(1 | pair)" if is_effect else "1"
    groups = [None, None] if is_effect else [[("site", "rater")], "pair"]
    models = [
        MixedLinearRegressor(formula=f"x + {own}", groups=group, residual=AR1(time="t"))
        for own, group in zip((term, single), groups, strict=True)
    ]
    seen, later = data[data["t"] < 3], data[data["t"] == 3]
    unseen = later.assign(t=5)
    found = []
    for model in models:
        model.fit(seen, seen["y"]).update_random_effects(later, later["y"])
        found.append(
            (*model.predict(unseen, return_std=True), model.sample_y(unseen, random_state=0))
        )
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8)
    assert "AR1(time='t') within site:rater" in str(models[0].summary())


def test_series_of_any_length():
    """Of AR(1) what is left of a row after the one before is independent of all others."""
    n = 8_000
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"id": np.repeat(["a", "b"], n), "t": np.tile(np.arange(n), 2)})
    shocks = rng.standard_normal((2, n))
    for k in range(1, n):
        shocks[:, k] += 0.7 * shocks[:, k - 1]
    data["y"] = shocks.ravel()
    seen = data[data["t"] < n - 100]
    model = MixedLinearRegressor(formula="1", groups="id", residual=AR1(time="t"))
    model.fit(seen, seen["y"])
    rho, mean = model.residual_parameters_["correlation"], model.intercept_
    for effects in ("new", "fitted"):
        drawn = model.sample_y(
            data.assign(t=data["t"] + n), 1, random_state=5, random_effects=effects
        )
        left = drawn.reshape(2, n) - mean
        fresh = (left[:, 1:] - rho * left[:, :-1]) / np.sqrt(model.noise_variance_ * (1 - rho**2))
        assert within_chi_squared(fresh.var(), fresh.size - 1, RATE / 8)
        products = fresh[:, 1:] * fresh[:, :-1]
        assert abs(products.mean()) * np.sqrt(products.size) < normal_bound(rate=RATE / 8)
        kept = left[:, :-1] * fresh
        size = np.sqrt(model.noise_variance_ * kept.size)
        assert abs(kept.sum()) / size < normal_bound(rate=RATE / 8)
    later = data[data["t"] >= n - 100]
    model.update_random_effects(later, later["y"])
    residuals = later.groupby("id")["y"].last().to_numpy() - mean
    new = pd.DataFrame({"id": ["a", "b"], "t": [n + 1, n + 1]})
    np.testing.assert_allclose(model.predict(new), mean + rho**2 * residuals, rtol=1e-9)
