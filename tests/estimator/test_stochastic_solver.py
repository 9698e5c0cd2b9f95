"""The stochastic solver: its promises, and what it does not promise.

Estimates are compared with those of the exact solver. Monte Carlo errors are a standard error over
draws of random signs, itself estimated from at least 8 of them: a deviation over such an error has
Student's distribution with 7 degrees of freedom or more, but for the second order.
"""

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning

from helpers.chance import student_bound, within_chi_squared
from mixedlearn import MixedLinearRegressor
from mixedlearn.engines import choose
from mixedlearn.engines.problem import make_problem
from mixedlearn.engines.recipe import N_PROBES
from mixedlearn.engines.stochastic import conjugate_gradients, posterior, products
from mixedlearn.exceptions import DegenerateModelWarning, SamplingWarning
from mixedlearn.inference import (
    _models,
    coefficient_table,
    confidence_intervals,
    exact_restricted_lrt,
    likelihood_ratio_test,
    ranova,
)
from mixedlearn.model import fit, notes
from mixedlearn.search import sampled
from mixedlearn.search.sampled import (
    SamplingErrors,
    descend_sampled,
    minimise_sampled,
    probes_needed,
)

N = 2500
N_USERS, N_ITEMS = 130, 90


def ratings(seed=0, item_sd=0.6):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "user": rng.integers(0, N_USERS, N),
            "item": (N_ITEMS * rng.random(N) ** 2).astype(int),
            "x": rng.standard_normal(N),
        }
    )
    X["day"] = rng.integers(0, 5, N)
    y = 3.0 + 0.5 * X["x"] + rng.standard_normal(N)
    y += 0.7 * rng.standard_normal(N_USERS)[X["user"]]
    y += item_sd * rng.standard_normal(N_ITEMS)[X["item"]]
    y += 0.4 * rng.standard_normal(N_USERS)[X["user"]] * X["x"]
    return X, y


MODELS = {
    "two": {"groups": ["user", "item"]},
    "by ML": {"groups": ["item", "user"], "reml": False},
    "three": {"groups": ["user", "item", "day"]},
    "slope of the chain": {"groups": ["user", "item"], "random_slopes": {"user": ["x"]}},
    "slopes": {"groups": ["user", "item"], "random_slopes": ["x"], "covariance": "diagonal"},
}


def both(parameters, *, seed=0, weights=None):
    X, y = ratings()
    fixed = {"fixed_effects": ["x"], **parameters}
    exact = MixedLinearRegressor(**fixed, solver="exact").fit(X, y, sample_weight=weights)
    found = MixedLinearRegressor(**fixed, solver="stochastic", random_state=seed)
    return exact, found.fit(X, y, sample_weight=weights)


def variances(model):
    parts = [own.to_numpy().ravel() for own in model.covariances_.values()]
    return np.concatenate([*parts, [model.noise_variance_]])


def errors_of(model):
    errors = model.monte_carlo_errors_
    parts = [own.to_numpy().ravel() for own in errors["covariances"].values()]
    return np.concatenate([*parts, [errors["noise_variance"]]])


def standard_errors(model):
    return model.summary(std_error=True).random_effects["std_error"].to_numpy()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_estimates_are_near_the_exact_ones(name, weighted):
    weights = np.random.default_rng(5).uniform(0.0, 2.0, N).round(1) if weighted else None
    exact, found = both(MODELS[name], weights=weights)
    assert (exact.solver_, found.solver_) == ("exact", "stochastic")
    assert found.converged_
    table = found.summary().random_effects
    change = np.abs(table["variance"] - exact.summary().random_effects["variance"])
    assert (change / standard_errors(exact)).max() < 0.05
    errors = np.sqrt(np.diag(exact.coef_covariance_))
    coef = np.append(exact.intercept_, exact.coef_)
    assert (np.abs(np.append(found.intercept_, found.coef_) - coef) / errors).max() < 0.01
    for factor, blups in exact.random_effects_.items():
        covariances = exact.random_effects_covariances_[factor]
        deviations = np.sqrt(np.einsum("maa->ma", covariances))
        assert (np.abs(found.random_effects_[factor] - blups) <= 0.01 * deviations).all(axis=None)


def test_monte_carlo_errors_are_those_over_seeds(monkeypatch):
    # All random effects are probed.
    monkeypatch.setattr(products, "MOST_SMALL_EFFECTS", 0)
    n_seeds = 40
    exact, _ = both(MODELS["two"])
    found = [both(MODELS["two"], seed=seed)[1] for seed in range(n_seeds)]
    moved = np.array([variances(model) - variances(exact) for model in found])
    errors = np.array([errors_of(model) for model in found])
    ratios = np.square(moved).sum(axis=0) / np.square(errors).sum(axis=0)
    assert within_chi_squared(ratios, n_seeds - 1, rate=0.5e-4)
    likelihoods = np.array([model.log_likelihood_ - exact.log_likelihood_ for model in found])
    own = np.array([model.monte_carlo_errors_["log_likelihood"] for model in found])
    # The estimates are no optimum of the exact likelihood, but near enough not to show.
    assert np.abs(likelihoods / own).max() < student_bound(7, n_seeds, rate=0.5e-4)


def test_the_same_state_gives_the_same_estimates():
    (_, first), (_, again), (_, other) = (both(MODELS["two"], seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.theta_, again.theta_)
    assert first.log_likelihood_ == again.log_likelihood_
    assert (first.theta_ != other.theta_).any()


@pytest.mark.parametrize("factor", ["user", "item"])
def test_a_variance_of_zero_is_found_and_certified(factor):
    rng = np.random.default_rng(3)
    X, _ = ratings()
    other = {"user": "item", "item": "user"}[factor]
    # Levels of the factor have the same mean: there is less between them than noise would leave.
    y = pd.Series(rng.standard_normal(N) + rng.standard_normal(N_USERS)[X[other]])
    y -= y.groupby(X[factor]).transform("mean")
    parameters = {"groups": ["user", "item"], "fixed_effects": []}
    exact = MixedLinearRegressor(**parameters, solver="exact").fit(X, y)
    found = MixedLinearRegressor(**parameters, solver="stochastic", random_state=0).fit(X, y)
    assert exact.covariances_[factor].iloc[0, 0] == 0.0
    assert found.covariances_[factor].iloc[0, 0] == 0.0
    assert found.converged_
    assert found.is_singular_
    assert found.monte_carlo_errors_["covariances"][factor].iloc[0, 0] == 0.0


def test_predictions_follow_from_the_variances():
    exact, found = both(MODELS["three"])
    X, _ = ratings(seed=1)
    X.loc[:5, "user"] = 1000
    mean, deviation = found.predict(X.head(60), return_std=True)
    known, known_deviation = exact.predict(X.head(60), return_std=True)
    np.testing.assert_allclose(mean, known, atol=0.005)
    np.testing.assert_allclose(deviation, known_deviation, rtol=1e-3)


def test_the_coefficients_are_the_exact_ones_at_the_same_variances(monkeypatch):
    """What is estimated beside the variances has no Monte Carlo error: it agrees to 1e-8."""
    monkeypatch.setattr(products, "MOST_SMALL_EFFECTS", 0)
    _, found = both(MODELS["three"])
    model = found._fitted.model
    own = model.problem().engine
    other = make_problem(model.sums, replace(model.recipe, solver="exact"))
    theta = own.components.theta_of_roots(model.roots)
    fixed = other.engine.evaluate(theta, 0).fixed
    beta = other.fixed.offset + other.fixed.scale * (other.fixed.to_user @ fixed.coef)
    np.testing.assert_allclose(model.coef, beta, rtol=1e-8)
    blups = other.engine.random_effects(model.roots, fixed)
    for random, found_blups, known in zip(model.random_bases, model.blups, blups, strict=True):
        expected = other.fixed.scale * (random.to_user @ known).T
        np.testing.assert_allclose(found_blups, expected, atol=1e-8 * np.abs(expected).max())


def test_further_rows_and_pickles():
    _, found = both(MODELS["two"])
    X, y = ratings(seed=2)
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.predict(X), found.predict(X))
    exact, _ = both(MODELS["two"])
    for model in (again, exact):
        model.update_random_effects(X.head(40), y.head(40))
    np.testing.assert_allclose(again.predict(X), exact.predict(X), atol=0.005)


def test_batches_give_what_all_rows_give():
    _, found = both(MODELS["two"])
    X, y = ratings()
    stream = MixedLinearRegressor(**found.get_params())
    for part in np.array_split(np.arange(N), 4):
        stream.partial_fit(X.iloc[part], y.iloc[part])
    assert stream.solver_ == "stochastic"
    np.testing.assert_allclose(variances(stream), variances(found), rtol=1e-6)


def test_auto_takes_the_exact_solver_where_it_is_cheap(monkeypatch):
    # More than are one dense block for all factors.
    monkeypatch.setattr(choose, "MOST_JOINT_EFFECTS", 10)
    X, y = ratings()
    model = MixedLinearRegressor(groups=["user", "item"], random_state=0)
    assert model.fit(X, y).solver_ == "exact"
    assert "dense block" in repr(model.describe(X))
    monkeypatch.setattr(choose, "MOST_MULTIPLICATIONS", N_ITEMS**3 - 1)
    assert model.fit(X, y).solver_ == "stochastic"
    text = repr(model.describe(X))
    assert "equations solved by iteration: 90 x 90" in text
    assert "Monte Carlo" in text
    nested = X.assign(item=X["user"] // 3)
    assert model.set_params(solver="stochastic").fit(nested, y).solver_ == "exact"


def test_few_random_effects_beside_a_chain_are_exact():
    X, y = ratings()
    model = MixedLinearRegressor(groups=["user", "day"], solver="stochastic").fit(X, y)
    assert model.solver_ == "exact"


def test_the_iterations_are_those_of_all_rounds(monkeypatch):
    monkeypatch.setattr(products, "MOST_SMALL_EFFECTS", 0)
    rounds = []

    def recorded(search):
        def recorder(*args, **kwargs):
            rounds.append(search(*args, **kwargs))
            return rounds[-1]

        return recorder

    for search in (minimise_sampled, descend_sampled):
        monkeypatch.setattr(fit, search.__name__, recorded(search))
    _, found = both(MODELS["two"])
    assert len(rounds) > 1
    assert found.n_iter_ == sum(optimum.n_iterations for optimum in rounds)
    # Estimates of too few probes are no optimum.
    X, y = ratings()
    most = rounds[0].n_iterations
    with pytest.warns(ConvergenceWarning, match="Raise max_iter"):
        found.set_params(max_iter=most).fit(X, y)
    assert found.n_iter_ == most
    assert not found.converged_


@pytest.mark.parametrize("slopes", [False, True])
def test_of_several_optima_it_finds_the_lowest(slopes, monkeypatch):
    # Columns that say more between levels than within.
    monkeypatch.setattr(products, "MOST_SMALL_EFFECTS", 0)
    rng = np.random.default_rng(0)
    n, n_users, n_items = 240, 30, 20
    user, item = rng.integers(0, n_users, n), rng.integers(0, n_items, n)
    of_user, of_item = rng.standard_normal(n_users)[user], rng.standard_normal(n_items)[item]
    near = 0.1 * rng.standard_normal((2, n))
    X = pd.DataFrame({"user": user, "item": item, "x": of_user + near[0], "z": of_item + near[1]})
    y = 3.0 * of_user - 3.0 * of_item + 0.1 * rng.standard_normal(n)
    parameters = {"groups": ["user", "item"], "fixed_effects": ["x", "z"]}
    if slopes:
        parameters["random_slopes"] = {"user": ["x"]}
        y = y - 2.0 * X["x"] * rng.standard_normal(n_users)[user]
    exact = MixedLinearRegressor(**parameters, solver="exact").fit(X, y)
    found = MixedLinearRegressor(**parameters, solver="stochastic", random_state=0).fit(X, y)
    assert found.solver_ == "stochastic"
    np.testing.assert_allclose(found.noise_variance_, exact.noise_variance_, rtol=0.01)
    assert found.log_likelihood_ == pytest.approx(exact.log_likelihood_, abs=0.5)


def test_equations_that_iterations_do_not_solve_are_an_error(monkeypatch):
    monkeypatch.setattr(conjugate_gradients, "MOST_ITERATIONS", 2)
    with pytest.raises(np.linalg.LinAlgError, match="Use solver='exact'"):
        both(MODELS["two"])


def test_probes_are_added_in_steps_that_make_factors_exact():
    errors = SamplingErrors(np.zeros(1), np.zeros(1, int), np.zeros((24, 1)), np.zeros(1), 0.0225)
    assert probes_needed(errors, 24, (10, 1000)) == 78
    assert probes_needed(errors, 24, (50, 70, 1000)) == 51
    # A round has at most four times the probes of the last.
    assert probes_needed(replace(errors, share=0.1), 24, (10, 1000)) == 96
    assert probes_needed(replace(errors, share=0.0), 24, (100, 200)) == 24


def test_an_exact_fit_has_no_monte_carlo_errors():
    exact, _ = both(MODELS["two"])
    with pytest.raises(AttributeError, match="this fit was exact"):
        _ = exact.monte_carlo_errors_


def test_the_summary_tells_the_solver_and_its_errors():
    _, found = both(MODELS["three"])
    table = found.summary().random_effects
    own = found.monte_carlo_errors_["covariances"]["user"].iloc[0, 0]
    assert table.loc[("user", "intercept"), "monte_carlo_error"] == own
    text = repr(found.summary())
    assert f"stochastic, {found._fitted.model.recipe.n_probes} draws of random signs" in text
    assert "Monte Carlo error" in text


def test_tests_of_coefficients_and_wald_intervals_have_no_such_error():
    exact, found = both(MODELS["slope of the chain"])
    one, other = coefficient_table(exact), coefficient_table(found)
    np.testing.assert_allclose(other["std_error"], one["std_error"], rtol=1e-3)
    np.testing.assert_allclose(other["df"], one["df"], rtol=0.02)
    one, other = (confidence_intervals(own, method="wald") for own in (exact, found))
    np.testing.assert_allclose(other, one, rtol=0.02, atol=0.01)


def test_a_likelihood_ratio_tells_its_error(monkeypatch):
    monkeypatch.setattr(products, "MOST_SMALL_EFFECTS", 0)
    monkeypatch.setattr(_models, "MUCH_SAMPLING", 1e-6)
    X, y = ratings()
    model = MixedLinearRegressor(
        groups=["user", "item"], fixed_effects=["x"], solver="stochastic", random_state=0
    ).fit(X, y)
    smaller = MixedLinearRegressor(groups=["user"], fixed_effects=["x"]).fit(X, y)
    with pytest.warns(SamplingWarning, match=r"likelihood_ratio_test .* Monte Carlo error of"):
        likelihood_ratio_test(smaller, model)
    with pytest.warns(SamplingWarning, match="ranova"):
        ranova(model)
    # Models of the same factors share their signs, and most of the error.
    fewer = MixedLinearRegressor(
        groups=["user", "item"], fixed_effects=[], solver="stochastic", random_state=0
    ).fit(X, y)
    monkeypatch.setattr(_models, "MUCH_SAMPLING", 0.05)
    likelihood_ratio_test(fewer, model)


def test_what_needs_an_exact_likelihood_says_so(monkeypatch):
    _, found = both(MODELS["two"])
    with pytest.raises(ValueError, match="solver='exact'"):
        exact_restricted_lrt(found, factor="user")
    monkeypatch.setattr(posterior, "MOST_LEVELS", 50)
    with pytest.raises(ValueError, match=r"130 levels.*return_std"):
        _ = found.random_effects_covariances_


def test_more_signs_are_drawn_until_the_error_is_small(monkeypatch):
    monkeypatch.setattr(products, "MOST_SMALL_EFFECTS", 0)
    X, y = ratings()
    y += 0.5 * X["day"]
    parameters = {"groups": ["user", "day"], "solver": "stochastic", "random_state": 0}
    found = MixedLinearRegressor(**parameters).fit(X, y)
    sampling = found._fitted.model.sampling
    assert found._fitted.model.recipe.n_probes > N_PROBES
    assert sampling.errors.share <= sampled.GOAL
    monkeypatch.setattr(sampled, "MOST_PROBES", N_PROBES)
    monkeypatch.setattr(notes, "MUCH_SAMPLING", sampled.GOAL)
    with pytest.warns(DegenerateModelWarning, match="Monte Carlo error of a variance"):
        few = MixedLinearRegressor(**parameters).fit(X, y)
    assert few._fitted.model.recipe.n_probes == N_PROBES
