"""The pages on ratings and on wages, crossed factors of thousands of levels, print what they say.

The data and the random signs of the solver are those of the pages' own seeds.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import coo_array, hstack
from scipy.sparse.linalg import spsolve

pytestmark = pytest.mark.slow

TRUE_VARIANCES = [0.25, 0.04, 0.09]


@pytest.fixture
def ratings(gallery):
    return gallery("ratings")


@pytest.fixture
def workers(gallery):
    return gallery("workers")


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def _variances_with_errors(model):
    table = model.summary(std_error=True).random_effects
    assert (table["monte_carlo_error"] < 0.01 * table["std_error"]).all()
    return table["variance"], table["std_error"]


def test_ratings_are_skewed(ratings):
    assert ratings["model"].solver_ == "stochastic"
    assert 490_000 < len(ratings["X"]) < 530_000
    assert not ratings["X"].duplicated().any()
    counts = ratings["items"]["count"]
    assert counts.min() == 1
    assert counts.max() > 1_000
    assert counts.mean() > 4.0 * counts.median()
    held_out, is_new = ratings["is_held_out"], ratings["is_new"]
    known = ratings["X_train"]["user"]
    assert not ratings["X"].loc[is_new, "user"].isin(known).any()
    assert ratings["X"].loc[held_out, "user"].isin(known).mean() > 0.98


def test_ratings_monte_carlo_error_does_not_matter(ratings):
    _variances_with_errors(ratings["model"])


def test_ratings_of_a_thousand_users_are_the_same_by_both_solvers(ratings):
    fits = ratings["by_solver"]
    assert {name: fitted.solver_ for name, fitted in fits.items()} == {
        "exact": "exact",
        "stochastic": "stochastic",
    }
    solvers = ratings["solvers"]
    apart = (solvers["stochastic"] - solvers["exact"]).abs()
    assert (apart < 0.02 * solvers["std_error"]).all()
    assert ratings["apart"] < 1e-3


def test_ratings_best_by_raw_mean_are_chance(ratings):
    top = ratings["top"]
    assert (top["by raw mean", "mean"] == 5.0).all()
    assert top["by raw mean", "count"].max() <= 2
    assert top["by BLUP", "count"].min() > 12
    lists = ratings["quality_of_lists"]
    assert lists.loc["BLUP", "true quality"] > lists.loc["mean", "true quality"] + 0.5
    assert lists.loc["BLUP", "among the best"] > 3 * lists.loc["mean", "among the best"]


def test_ratings_blups_solve_hendersons_equations(ratings):
    """Those of the items, given the users: shrunk means of residuals, the five ratings included."""
    model, variances = ratings["model"], ratings["variances"]
    rows = pd.concat([ratings["X_train"], ratings["first"]])
    effects = {name: own["intercept"] for name, own in model.random_effects_.items()}
    residuals = ratings["y"][rows.index] - model.intercept_ - rows["user"].map(effects["user"])
    by_item = residuals.groupby(rows["item"]).agg(["sum", "count"])
    expected = by_item["sum"] / (by_item["count"] + model.noise_variance_ / variances["item"])
    assert_allclose(effects["item"], expected.reindex(effects["item"].index), atol=1e-5)


def test_ratings_fixed_means_solve_the_normal_equations(ratings):
    residuals = ratings["y_train"] - ratings["mean"]
    residuals -= ratings["design"] @ ratings["coefs"]
    assert_allclose(ratings["design"].T @ residuals, 0.0, atol=0.05)


def test_ratings_held_out(ratings):
    errors = ratings["errors"]
    assert (errors.idxmin() == "mixed model").all()
    assert (errors.idxmax() == "global mean").all()
    known = errors["known users"]
    assert known.sort_values().index.to_list() == [
        "mixed model",
        "user and item means",
        "item mean",
        "global mean",
    ]
    noise = ratings["model"].noise_variance_ ** 0.5
    assert 1.0 < known["mixed model"] / noise < 1.03
    without_global = errors["new users"].drop("global mean")
    assert np.ptp(without_global) < 0.005


def test_ratings_gain_is_where_data_are_thin(ratings):
    by_size = ratings["by_size"]
    gain = by_size["user and item means"] - by_size["mixed model"]
    assert gain.is_monotonic_decreasing
    assert gain.iloc[0] > 0.1
    assert abs(gain.iloc[-1]) < 0.002
    few = by_size.loc["0-2"]
    assert few["user and item means"] > few["item mean"] > few["mixed model"]


def test_ratings_standard_deviations_grow_with_what_is_unknown(ratings):
    std = ratings["certainty"]["std"]
    assert std.is_monotonic_increasing
    model, variances = ratings["model"], ratings["variances"]
    assert_allclose(
        std["both new"] ** 2, sum(variances.values()) + model.noise_variance_, rtol=1e-3
    )
    assert_allclose(std["both well known"] ** 2, model.noise_variance_, rtol=0.01)
    assert 3.0 < ratings["half"] < 3.5


def test_ratings_of_new_users_help(ratings):
    assert ratings["after"] < ratings["before"] - 0.02
    assert (ratings["first"].groupby("user").size() == 5).all()
    assert not ratings["first"].index.intersection(ratings["later"].index).size


def test_wages_mixed_model_finds_the_truth(workers):
    model = workers["model"]
    assert model.solver_ == "stochastic"
    found, std_error = _variances_with_errors(model)
    assert (np.abs(found - TRUE_VARIANCES) < 2.0 * std_error).all()
    again, std_error = _variances_with_errors(workers["fewer_model"])
    assert (np.abs(again - TRUE_VARIANCES) < 2.0 * std_error).all()


def test_wages_dummies_are_least_squares(workers):
    """The normal equations of the firms without the workers, solved directly."""
    data = workers["data"]
    n = len(data)

    def dummies(name):
        codes = data[name].factorize()[0]
        return coo_array((np.ones(n), (np.arange(n), codes))).tocsr()

    worker, firm = dummies("worker"), dummies("firm")
    fixed = hstack([firm[:, 1:], coo_array(data[["year"]].to_numpy(dtype=float))]).tocsr()

    def within(columns):
        counts = worker.sum(axis=0)[:, None]
        return columns - worker @ ((worker.T @ columns) / counts)

    wage = within(data[["wage"]].to_numpy())
    crossed = worker.T @ fixed
    counts = coo_array(crossed).multiply(1.0 / worker.sum(axis=0)[:, None])
    coefs = spsolve((fixed.T @ fixed - crossed.T @ counts).tocsc(), fixed.T @ wage[:, 0])
    expected = firm[:, 1:] @ coefs[:-1]
    assert_allclose(workers["dummies"]["firm"], expected - expected.mean(), atol=1e-3)


def test_wages_plug_in_is_biased_by_limited_mobility(workers):
    for table in (workers["shares"], workers["fewer_shares"]):
        firm, correlation = table["firm variance"], table["correlation"]
        assert firm["dummies"] > 1.25 * firm["truth"]
        assert firm["BLUPs"] < firm["truth"]
        assert abs(firm["mixed model"] / firm["truth"] - 1.0) < 0.1
        assert correlation["dummies"] < -0.1
        assert abs(correlation["truth"]) < 0.01
        assert abs(correlation["BLUPs"]) < 0.06
    bias = [
        workers[name].loc["dummies"] - workers[name].loc["truth"]
        for name in ("fewer_shares", "shares")
    ]
    assert bias[0]["firm variance"] > 1.5 * bias[1]["firm variance"]
    assert bias[0]["correlation"] < 1.5 * bias[1]["correlation"]
    assert workers["shares"]["firm variance"]["truth"] > TRUE_VARIANCES[1]


def test_wages_effects_of_firms(workers):
    errors = workers["firm_errors"]
    assert (errors["BLUP"] < 0.7 * errors["dummies"]).all()
    assert (errors.loc["at most five workers"] > errors.loc["more workers"]).all()
    assert workers["is_small"].mean() > 0.4


def test_wages_sorting_breaks_the_assumption_and_the_check_tells(workers):
    table = workers["sorted_shares"]
    firm, worker = table["firm variance"], table["worker variance"]
    assert firm["mixed model"] > 1.6 * firm["truth"]
    assert firm["mixed model"] > firm["dummies"] > firm["truth"]
    assert worker["mixed model"] < 0.9 * worker["truth"]
    correlation = table["correlation"]
    assert 0.2 < correlation["truth"] < 0.3
    assert abs(correlation["BLUPs"] - correlation["truth"]) < 0.05
    assert not workers["sorted_model"].summary().notes
    assert_allclose(workers["slopes"]["at random"], 1.0, atol=0.05)
    assert 0.6 < workers["slopes"]["with sorting"] < 0.7
    assert len(workers["changes"]["at random"]) > 3_000
