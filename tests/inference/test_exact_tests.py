"""Exact tests: their null distributions against fits of simulated data and against closed forms."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import f as f_distribution
from scipy.stats import ks_2samp

from helpers.chance import same_share, within_binomial
from mixedlearn import MixedLinearRegressor
from mixedlearn.datasets import load_dyestuff, load_dyestuff2
from mixedlearn.inference import exact_lrt, exact_restricted_lrt
from mixedlearn.inference._exact_null import NullDistribution, projected_spectrum, spectrum
from mixedlearn.inference._models import model_of
from reference.two_factors import FIXED, draw, fit, fit_levels_of_one_row

DIAGONAL = {"groups": "g", "random_slopes": ["x1"], "covariance": "diagonal"}


def root_weighted(rows, z):
    """X and Z of factor g, rows scaled by the roots of their weights."""
    root = np.sqrt(rows["w"].to_numpy())[:, None]
    X = np.column_stack([np.ones(len(rows)), rows[FIXED]]) * root
    codes, levels = pd.factorize(rows["g"], sort=True)
    Z = np.zeros((len(rows), len(levels)))
    Z[np.arange(len(rows)), codes] = z
    return X, Z * root


@pytest.mark.parametrize("effect", ["intercept", "x1"])
@pytest.mark.parametrize("weighted", [False, True])
def test_eigenvalues_are_those_of_the_projected_columns(effect, weighted):
    rows = draw() if weighted else draw().assign(w=1.0)
    est = fit(rows, DIAGONAL)
    mu, counts, xi = spectrum(model_of(est), 0, [("intercept", "x1").index(effect)])
    X, Z = root_weighted(rows, rows.assign(intercept=1.0)[effect])
    projected = Z - X @ np.linalg.lstsq(X, Z, rcond=None)[0]
    expected = np.linalg.svd(projected, compute_uv=False) ** 2
    expected = expected[expected > 1e-8 * expected[0]]
    np.testing.assert_allclose(np.sort(np.repeat(mu, counts.astype(int))), np.sort(expected))
    np.testing.assert_allclose(np.sort(xi), np.sort(np.diag(Z.T @ Z)))


def test_eigenvalues_of_one_variance_for_several_effects():
    rows = draw(1)
    est = fit(rows, {**DIAGONAL, "covariance": "scalar"})
    mu, counts, xi = spectrum(model_of(est), 0, [0, 1])
    X, ones = root_weighted(rows, 1.0)
    Z = np.hstack([ones, root_weighted(rows, rows["x1"])[1]])
    projected = Z - X @ np.linalg.lstsq(X, Z, rcond=None)[0]
    expected = np.linalg.svd(projected, compute_uv=False) ** 2
    expected = np.sort(expected[expected > 1e-8 * expected[0]])
    np.testing.assert_allclose(np.sort(np.repeat(mu, counts.astype(int))), expected, rtol=1e-6)
    np.testing.assert_allclose(np.sort(xi), np.linalg.eigvalsh(Z.T @ Z), rtol=1e-8)


def test_levels_of_equal_size_are_merged_without_loss():
    rng = np.random.default_rng(0)
    sizes = np.repeat([2.0, 5.0, 7.0], [40, 30, 1])
    cross = rng.standard_normal((71, 3)) / 10.0
    mu, counts = projected_spectrum(sizes, cross)
    assert len(mu) < 15
    expected = np.linalg.eigvalsh(np.diag(sizes) - cross @ cross.T)
    np.testing.assert_allclose(np.sort(np.repeat(mu, counts.astype(int))), expected)


def test_draws_are_suprema_over_lambda():
    """The same draws, maximised one by one over a very fine grid."""
    mu, counts = np.array([0.7, 4.0, 9.0]), np.array([1.0, 3.0, 2.0])
    null = NullDistribution(
        n=20, df=20, mu=mu, mu_counts=counts, xi=mu, xi_counts=counts, n_fixed=0
    )
    found = null.statistics(200, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    squares = rng.chisquare(counts, size=(200, 3))
    rest = rng.chisquare(14, size=200)
    grid = np.append(0.0, np.logspace(-7, 7, 40_001))
    shrink = 1.0 / (1.0 + np.outer(mu, grid))
    for own, left, statistic in zip(squares, rest, found, strict=True):
        value = 20 * np.log((own.sum() + left) / (left + own @ shrink))
        value -= counts @ np.log1p(np.outer(mu, grid))
        assert statistic == pytest.approx(value.max(), abs=1e-4)


def simulated(rows, model, null, reml, n_draws, drop=()):
    """Statistics of fits of simulated responses without the tested effects."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(n_draws):
        y = rng.standard_normal(len(rows)) / np.sqrt(rows["w"])
        own = rows.assign(y=y)
        smaller = fit(own, null, reml=reml, fixed_effects=[x for x in FIXED if x not in drop])
        larger = fit(own, model, reml=reml)
        found.append(2.0 * (larger.log_likelihood_ - smaller.log_likelihood_))
    return np.maximum(found, 0.0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::mixedlearn.exceptions.NoGroupsWarning")
@pytest.mark.parametrize(
    ("reml", "drop"), [(True, ()), (False, ()), (False, ("x2",))], ids=["RLRT", "LRT", "with x2"]
)
def test_null_distribution_is_that_of_fits_of_simulated_data(reml, drop):
    """Both bounds together fail in one of 10,000 seeds."""
    rows = draw(2, n=24, sizes=(6, 3))
    model = {"groups": "g"}
    expected = simulated(rows, model, {}, reml, 300, drop)
    est = model_of(fit(rows, model, reml=reml))
    mu, counts, xi = spectrum(est, 0, [0])
    if reml:
        null = NullDistribution(21, 21, mu, counts, mu, counts, 0)
    else:
        null = NullDistribution(24, 21, mu, counts, xi, np.ones(len(xi)), len(drop))
    found = null.statistics(20_000, np.random.default_rng(1))
    found, expected = (np.where(own < 1e-6, 0.0, own) for own in (found, expected))
    zeros = (expected == 0.0).sum(), len(expected), (found == 0.0).sum(), len(found)
    assert same_share(*zeros, rate=5e-5)
    assert ks_2samp(found, expected).pvalue > 5e-5


def test_balanced_one_way_is_the_f_test():
    """Balanced, one variance: the statistic grows with the F ratio wherever it is not zero.

    What is counted in the draws has known probabilities; a false alarm in one of 10,000 seeds.
    """
    X, y = load_dyestuff(return_X_y=True)
    est = MixedLinearRegressor(groups="Batch").fit(X, y)
    means = y.groupby(X["Batch"]).transform("mean")
    ratio = (np.sum((means - y.mean()) ** 2) / 5) / (np.sum((y - means) ** 2) / 24)
    n = 100_000
    exact = exact_restricted_lrt(est, n_resamples=n, random_state=0)
    assert exact.is_restricted
    # By ML the variance is zero up to F = 6 / 5.
    by_ml = exact_lrt(est, n_resamples=n, random_state=0)
    for test, edge in [(exact, 1.0), (by_ml, 1.2)]:
        as_large = round(test.p_value * (n + 1)) - 1
        zeros = round(test.zero_share * n)
        expected = [f_distribution.sf(ratio, 5, 24), f_distribution.cdf(edge, 5, 24)]
        assert within_binomial([as_large, zeros], n, expected, rate=5e-5)


def test_statistics_are_those_of_separate_fits():
    rows = draw(3)
    model = {"groups": ["g", "h"], "random_slopes": {"g": ["x1"]}, "covariance": "diagonal"}
    est = fit(rows, model)
    nulls = {
        ("g", "x1"): {"groups": ["g", "h"]},
        ("g", "intercept"): {**model, "random_intercept": {"g": False}},
        ("h", None): {**model, "groups": "g", "random_slopes": ["x1"]},
    }
    for (factor, effect), null in nulls.items():
        expected = 2.0 * (est.log_likelihood_ - fit(rows, null).log_likelihood_)
        test = exact_restricted_lrt(est, factor, effect, n_resamples=100, random_state=0)
        assert test.statistic == pytest.approx(expected, abs=1e-6)
    by_ml = exact_restricted_lrt(fit(rows, model, reml=False), "h", n_resamples=10)
    expected = 2.0 * (est.log_likelihood_ - fit(rows, nulls["h", None]).log_likelihood_)
    assert by_ml.statistic == pytest.approx(expected, abs=1e-5)


def test_an_effect_of_three_with_a_mask():
    rows = draw(4)
    mask = [[True, True, False], [True, True, False], [False, False, True]]
    est = fit(rows, {"groups": "g", "random_slopes": ["x1", "x2"], "covariance": mask})
    null = fit(rows, "slope")
    test = exact_restricted_lrt(est, effect="x2", n_resamples=100, random_state=0)
    expected = max(2.0 * (est.log_likelihood_ - null.log_likelihood_), 0.0)
    assert test.statistic == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="'x1' of 'g' has a covariance with 'intercept'"):
        exact_restricted_lrt(est, effect="x1")


@pytest.mark.filterwarnings("ignore::mixedlearn.exceptions.NoGroupsWarning")
def test_fixed_effects_under_the_hypothesis():
    rows = draw(5)
    est = fit(rows, "intercept")
    test = exact_lrt(est, fixed_effects=["x1", "intercept"], n_resamples=2000, random_state=0)
    null = fit(rows, {"fixed_effects": ["x2"], "fit_intercept": False}, reml=False)
    whole = fit(rows, "intercept", reml=False)
    expected = 2.0 * (whole.log_likelihood_ - null.log_likelihood_)
    assert test.statistic == pytest.approx(expected)
    assert test.hypothesis == "var(intercept|g) = 0, x1 = 0, intercept = 0"
    assert test.zero_share == 0.0
    assert not test.is_restricted


def test_a_variance_of_zero_is_no_evidence():
    X, y = load_dyestuff2(return_X_y=True)
    est = MixedLinearRegressor(groups="Batch").fit(X, y)
    assert est.is_singular_
    for test in (exact_restricted_lrt(est, random_state=1), exact_lrt(est, random_state=1)):
        assert test.statistic == 0.0
        assert test.p_value == 1.0


def test_levels_of_one_row_each_are_no_evidence():
    est, _ = fit_levels_of_one_row(6)
    test = exact_restricted_lrt(est, n_resamples=200, random_state=0)
    assert test.p_value == 1.0
    assert test.zero_share == 1.0


def test_random_state_and_number_of_draws():
    X, y = load_dyestuff(return_X_y=True)
    est = MixedLinearRegressor(groups="Batch").fit(X, y)
    first, again, *others = (
        exact_restricted_lrt(est, n_resamples=500, random_state=seed)
        for seed in (1, np.random.default_rng(1), 2, 3, 4)
    )
    assert first == again
    # Two shares of 500 draws agree with a probability of 3%: all three do in 3 of 100,000 seeds.
    assert any(first.zero_share != other.zero_share for other in others)
    assert first.n_resamples == 500
    assert first.p_value >= 1.0 / 501.0
    with pytest.raises(ValueError, match="n_resamples must be a positive integer"):
        exact_lrt(est, n_resamples=0)


def test_units_do_not_matter():
    rows = draw(7)
    moved = rows.assign(x1=1e3 * rows["x1"], y=1e-3 * rows["y"] + 1e2, w=5.0 * rows["w"])
    tests = [
        exact_restricted_lrt(fit(own, DIAGONAL), effect="x1", n_resamples=5000, random_state=3)
        for own in (rows, moved)
    ]
    assert tests[0].statistic == pytest.approx(tests[1].statistic, abs=1e-4)
    assert tests[0].p_value == pytest.approx(tests[1].p_value, abs=0.02)


def test_an_exact_fit_has_no_statistic():
    rows = draw(8).assign(y=lambda own: own["x1"])
    with pytest.warns(UserWarning, match="reproduce the response exactly"):
        est = fit(rows, "intercept")
    for test in (exact_restricted_lrt(est, n_resamples=10), exact_lrt(est, n_resamples=10)):
        assert np.isnan(test.statistic)
        assert np.isnan(test.p_value)


def test_what_is_not_tested_is_refused():
    rows = draw(9)
    crossed, slope = fit(rows, "crossed"), fit(rows, "slope")
    scalar = fit(rows, {**DIAGONAL, "covariance": "scalar"})
    for est, arguments, message in [
        (crossed, {}, "grouping factors 'g', 'h'"),
        (crossed, {"factor": "i"}, "no grouping factor 'i'"),
        (slope, {}, "random effects 'intercept', 'x1'"),
        (slope, {"effect": "x2"}, "no random effect 'x2'"),
        (slope, {"effect": "x1"}, "has a covariance with 'intercept'"),
        (scalar, {"effect": "x1"}, "share one variance"),
    ]:
        with pytest.raises(ValueError, match=message):
            exact_restricted_lrt(est, **arguments)
    for est, message in [(crossed, "one variance"), (slope, "one variance")]:
        with pytest.raises(ValueError, match=message):
            exact_lrt(est)
    with pytest.raises(ValueError, match="names 'x3'"):
        exact_lrt(fit(rows, "intercept"), fixed_effects=["x3"])
    with pytest.raises(ValueError, match="list of names"):
        exact_lrt(fit(rows, "intercept"), fixed_effects="x1")


def test_a_model_without_random_effects_is_refused():
    with pytest.warns(UserWarning, match="no groups"):
        est = fit(draw(10), "nothing")
    with pytest.raises(ValueError, match="no random effects"):
        exact_restricted_lrt(est)


def test_it_prints():
    X, y = load_dyestuff(return_X_y=True)
    test = exact_restricted_lrt(MixedLinearRegressor(groups="Batch").fit(X, y), random_state=0)
    assert "var(intercept|Batch) = 0" in str(test)
    assert f"{test.statistic:.4g}" in str(test)
    assert f"p-value: {test.p_value:.4f}" in test._repr_html_()
