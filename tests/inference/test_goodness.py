"""Conditional AIC, R squared, intraclass correlation and effect sizes against their definitions."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from mixedlearn import MixedLinearRegressor
from mixedlearn.datasets import load_dyestuff
from mixedlearn.exceptions import DegenerateModelWarning
from mixedlearn.inference import conditional_aic, effect_sizes, intraclass_correlation, r2
from reference.two_factors import FIXED, MODELS, dense_at, draw, fit

COLUMNS = [*FIXED, "g", "h"]
pytestmark = pytest.mark.filterwarnings("ignore::mixedlearn.exceptions.NoGroupsWarning")


@pytest.mark.slow_cases(every=5)
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("model", MODELS)
def test_conditional_aic_is_that_of_the_dense_hat_matrix(model, reml):
    rows = draw()
    est = fit(rows, model, reml=reml)
    found = conditional_aic(est)
    df = len(rows) - (np.diag(dense_at(est, rows, reml=reml).P) / rows["w"]).sum()
    assert found.effective_df == pytest.approx(df, rel=1e-7)
    X = rows[COLUMNS]
    mean = est.predict(X) if est.n_groups_ else est.predict(X, random_effects="none")
    sd = np.sqrt(est.noise_variance_ / rows["w"])
    log_likelihood = norm.logpdf(rows["y"], mean, sd).sum()
    assert found.log_likelihood == pytest.approx(log_likelihood, rel=1e-8)
    assert found.value == pytest.approx(-2.0 * log_likelihood + 2.0 * (df + 1.0), rel=1e-7)
    assert found.n_parameters == found.effective_df + 1.0


def test_effective_degrees_of_freedom_of_balanced_rows():
    # One-way, balanced: b_i shrinks the level's mean by n d / (1 + n d), in all but one direction.
    X, y = load_dyestuff(return_X_y=True)
    est = MixedLinearRegressor(groups="Batch").fit(X, y)
    ratio = est.covariances_["Batch"].iloc[0, 0] / est.noise_variance_
    shrink = 5.0 * ratio / (1.0 + 5.0 * ratio)
    assert conditional_aic(est).effective_df == pytest.approx(1.0 + 5.0 * shrink, rel=1e-8)


def test_conditional_aic_where_nothing_is_shrunk():
    rows = draw(1)
    noise = np.random.default_rng(0).standard_normal(len(rows))
    rows["y"] = noise / np.sqrt(rows["w"])
    est = fit(rows, "intercept")
    assert est.is_singular_
    assert conditional_aic(est).effective_df == pytest.approx(3.0)
    rows["y"] = 1e4 * pd.factorize(rows["g"])[0] ** 2 + noise
    assert conditional_aic(fit(rows, "intercept")).effective_df == pytest.approx(10.0, abs=1e-3)


def test_conditional_aic_of_an_exact_fit():
    rows = draw(2)
    rows["y"] = rows["x1"]
    with pytest.warns(UserWarning, match="reproduce the response exactly"):
        est = fit(rows, "intercept")
    assert conditional_aic(est).value == -np.inf
    assert est.aic() == est.bic() == -np.inf
    np.testing.assert_allclose(r2(est), 1.0)


def test_conditional_aic_does_not_depend_on_units_but_for_those_of_the_response():
    rows = draw(3)
    moved = rows.assign(x1=1e4 * rows["x1"] - 1e7, y=5.0 * rows["y"] + 100.0)
    first, second = (conditional_aic(fit(own, "crossed")) for own in (rows, moved))
    assert second.effective_df == pytest.approx(first.effective_df, rel=1e-4)
    shift = 2.0 * len(rows) * np.log(5.0)
    assert second.value == pytest.approx(first.value + shift, rel=1e-5)


def by_rows(est, rows):
    """Variances of an average row, from the rows: fixed, random by factor, noise."""
    weights = rows["w"] / rows["w"].mean()
    fixed = np.append(est.intercept_, est.coef_) @ np.vstack([np.ones(len(rows)), rows[FIXED].T])
    random = {}
    for name, covariance in est.covariances_.items():
        z = rows.assign(intercept=1.0)[list(covariance.columns)].to_numpy()
        random[name] = np.average(np.einsum("ra,ab,rb->r", z, covariance, z), weights=weights)
    noise = np.average(est.noise_variance_ / rows["w"], weights=weights)
    return weighted_variance(fixed, weights), random, noise


def weighted_variance(values, weights):
    centred = values - np.average(values, weights=weights)
    return np.sum(weights * centred**2) / (len(values) - 1)


@pytest.mark.parametrize("model", MODELS)
def test_shares_of_variance_follow_their_definitions(model):
    rows = draw(4)
    est = fit(rows, model)
    fixed, random, noise = by_rows(est, rows)
    everything = fixed + sum(random.values()) + noise
    shares = r2(est)
    assert shares["marginal"] == pytest.approx(fixed / everything)
    assert shares["conditional"] == pytest.approx(1.0 - noise / everything)
    correlations = intraclass_correlation(est)
    assert list(correlations.index) == list(random)
    for name, own in random.items():
        assert correlations.loc[name, "adjusted"] == pytest.approx(own / (everything - fixed))
        assert correlations.loc[name, "unadjusted"] == pytest.approx(own / everything)


@pytest.mark.parametrize("model", MODELS)
def test_effect_sizes_follow_their_definitions(model):
    rows = draw(5)
    est = fit(rows, model)
    _, random, noise = by_rows(est, rows)
    sizes = effect_sizes(est)
    coef = np.append(est.intercept_, est.coef_)
    np.testing.assert_allclose(sizes["coef"], coef)
    np.testing.assert_allclose(sizes["per_noise_sd"], coef / np.sqrt(noise))
    total = np.sqrt(noise + sum(random.values()))
    np.testing.assert_allclose(sizes["per_total_sd"], coef / total)
    weights = rows["w"] / rows["w"].mean()
    sd = {name: np.sqrt(weighted_variance(rows[name], weights)) for name in [*FIXED, "y"]}
    for name, value in zip(FIXED, est.coef_, strict=True):
        assert sizes.loc[name, "standardised"] == pytest.approx(value * sd[name] / sd["y"])
    assert np.isnan(sizes.loc["intercept", "standardised"])


def test_standardised_coefficients_are_those_of_standardised_columns():
    rows = draw(6).assign(w=1.0)
    standard = rows.copy()
    for name in [*FIXED, "y"]:
        standard[name] = (rows[name] - rows[name].mean()) / rows[name].std()
    sizes = effect_sizes(fit(rows, "intercept"))
    np.testing.assert_allclose(
        sizes["standardised"].iloc[1:], fit(standard, "intercept").coef_, rtol=1e-6
    )


def test_shares_do_not_depend_on_the_scale_of_the_weights_or_of_the_columns():
    rows = draw(7)
    moved = rows.assign(w=7.0 * rows["w"], x1=10.0 * rows["x1"] + 500.0, y=3.0 * rows["y"] + 1.0)
    first, second = fit(rows, "slope"), fit(moved, "slope")
    np.testing.assert_allclose(r2(first), r2(second), rtol=1e-5)
    np.testing.assert_allclose(
        intraclass_correlation(first), intraclass_correlation(second), rtol=1e-5
    )
    columns = ["per_noise_sd", "per_total_sd", "standardised"]
    np.testing.assert_allclose(
        effect_sizes(first).loc["x2", columns], effect_sizes(second).loc["x2", columns], rtol=1e-5
    )


def test_a_response_without_variance():
    rows = draw(8).assign(y=3.0)
    with pytest.warns(UserWarning, match="reproduce the response exactly"):
        est = fit(rows, {"groups": "g", "fixed_effects": []})
    assert r2(est).isna().all()
    assert intraclass_correlation(est).isna().all(axis=None)
    assert effect_sizes(est).loc["intercept", "per_noise_sd"] == np.inf


def test_models_without_intercept_or_without_fixed_effects():
    rows = draw(9)
    est = MixedLinearRegressor(groups="g", fixed_effects=["x1"], fit_intercept=False)
    est.fit(rows[["x1", "g"]], rows["y"])
    noise, random = est.noise_variance_, est.covariances_["g"].iloc[0, 0]
    fixed = np.var(est.coef_[0] * rows["x1"], ddof=1)
    assert r2(est)["marginal"] == pytest.approx(fixed / (fixed + noise + random))
    sd = rows["x1"].std() / rows["y"].std()
    assert effect_sizes(est).loc["x1", "standardised"] == pytest.approx(est.coef_[0] * sd)
    none = MixedLinearRegressor(groups="g", fixed_effects=[], fit_intercept=False)
    none.fit(rows[["g"]], rows["y"])
    assert r2(none)["marginal"] == 0.0
    assert effect_sizes(none).shape == (0, 4)
    assert np.isfinite(conditional_aic(none).value)


def test_it_prints():
    X, y = load_dyestuff(return_X_y=True)
    criterion = conditional_aic(MixedLinearRegressor(groups="Batch").fit(X, y))
    assert f"{criterion.value:.2f}" in str(criterion)
    assert f"{criterion.effective_df:.2f}" in criterion._repr_html_()


def test_aliased_columns_have_no_effect_size():
    X, y = load_dyestuff(return_X_y=True)
    X["order"] = np.arange(len(X))
    X["again"] = 2.0 * X["order"]
    with pytest.warns(DegenerateModelWarning, match="'again' are aliased"):
        model = MixedLinearRegressor(groups="Batch").fit(X, y)
    with pytest.warns(DegenerateModelWarning, match="'order', 'again' cannot be estimated"):
        sizes = effect_sizes(model)
    assert sizes.loc[["order", "again"]].isna().all(axis=None)
    expected = effect_sizes(MixedLinearRegressor(groups="Batch").fit(X.drop(columns="again"), y))
    pd.testing.assert_frame_equal(sizes.loc[["intercept"]], expected.loc[["intercept"]], rtol=1e-8)
