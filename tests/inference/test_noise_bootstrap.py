"""The parametric bootstrap of models with residual structures.

The bounds of moments are those of `assert_moments`: a false alarm in one of 10,000 seeds.
"""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from tests.reference.noise_cases import CASES, Case, fit, whole_covariance

from helpers.chance import assert_moments
from mixedlearn import MixedLinearRegressor
from mixedlearn.exceptions import DegenerateModelWarning
from mixedlearn.inference import (
    bootstrap_lrt,
    confidence_intervals,
    likelihood_ratio_test,
    parametric_bootstrap,
)
from mixedlearn.inference._models import by_maximum_likelihood
from mixedlearn.inference._resampling import Draws, rows_of_fit
from mixedlearn.residual import AR1, Stratified, Unstructured

N_SAMPLES = 20_000
# Differences of scale and of several parts, of a variance and of an unstructured covariance.
REFITTED = [
    "ar1 beside an intercept",
    "ar1 by arm",
    "continuous",
    "toeplitz",
    "unstructured",
    "strata beside an intercept",
    "ar1 and crossed factors",
    "ar1, strata and power",
    "unstructured beside sites",
]
BESIDE = {
    "unstructured beside sites": Case(
        Unstructured(time="visit", within="id"), "un", random=("site",)
    )
}


def weights_of(data):
    return np.random.default_rng(7).uniform(0.5, 2.0, len(data))


@pytest.mark.parametrize("name", ["ar1 beside an intercept", "unstructured by arm", "power"])
def test_responses_have_the_covariance_of_the_model(name):
    case = CASES[name]
    model, data = fit(case)
    rows = rows_of_fit(model, model._fitted.model, data, None, None)
    seeds = np.random.SeedSequence(0).spawn(N_SAMPLES)
    found = Draws.of(model._fitted.model, rows).deviations(seeds)
    few = np.flatnonzero(data["id"].isin(["s1", "s6", "s11"]))
    V = whole_covariance(case, model, data)[np.ix_(few, few)]
    assert_moments(found[few], np.zeros(len(few)), V)


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", REFITTED)
def test_refits_are_fits(name, reml):
    model, data = fit((CASES | BESIDE)[name], reml=reml)
    weights = weights_of(data)
    model.fit(data, data["y"], sample_weight=weights)
    fitted = model._fitted.model
    shuffled = np.random.default_rng(0).permutation(len(data))
    rows = rows_of_fit(model, fitted, data.iloc[shuffled], None, weights[shuffled])
    deviations = Draws.of(fitted, rows).deviations(np.random.SeedSequence(1).spawn(3))
    refits = rows.refitter(fitted).refit(deviations)
    for number in range(3):
        y = model.predict(data, random_effects="none")
        y[shuffled] += deviations[:, number]
        expected = clone(model).fit(data, y, sample_weight=weights)._fitted.model
        found = refits.model(number)
        assert found.objective == pytest.approx(expected.objective, abs=1e-7)
        assert refits.is_certified[number] == expected.is_certified
        assert found.is_singular == expected.is_singular
        assert refits.noise_variance[number] == pytest.approx(expected.noise_variance, rel=1e-5)
        np.testing.assert_allclose(refits.coef[number], expected.coef, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            found.coef_covariance, expected.coef_covariance, rtol=1e-4, atol=1e-9
        )
        again = model.__mixedlearn_fitted__().with_model(found)
        own = clone(model).fit(data, y, sample_weight=weights)
        assert again.residual_parameters_ == pytest.approx(own.residual_parameters_, rel=1e-3)
        np.testing.assert_allclose(
            refits.residual[number], list(again.residual_parameters_.values())
        )
        # Forecasts, and what rests on the information of the variance parameters, are the refit's.
        later = data.head(4).assign(t=[5, 6, 7, 8], visit="v3")
        np.testing.assert_allclose(again.predict(later), own.predict(later), rtol=1e-4, atol=1e-5)


def test_residual_parameters_are_among_the_parameters():
    model, data = fit(CASES["ar1, strata and power"])
    result = parametric_bootstrap(model, data, n_resamples=12, random_state=0)
    known = model.residual_parameters_
    assert set(known) <= set(result.names)
    assert result.estimate[list(known)].to_dict() == pytest.approx(known)
    assert result.estimate["sd(noise)"] == pytest.approx(np.sqrt(model.noise_variance_))
    by_hand = parametric_bootstrap(
        model,
        data,
        statistic=lambda own: own.residual_parameters_,
        n_resamples=12,
        random_state=0,
    )
    pd.testing.assert_frame_equal(by_hand.samples, result.samples[list(known)])
    parallel = parametric_bootstrap(model, data, n_resamples=12, random_state=0, n_jobs=2)
    pd.testing.assert_frame_equal(parallel.samples, result.samples)


def test_bootstrap_intervals_have_all_parameters():
    model, data = fit(CASES["ar1 by arm"])
    arguments = {"n_resamples": 30, "random_state": 0}
    found = confidence_intervals(model, method="bootstrap", X=data, **arguments)
    assert set(model.residual_parameters_) < set(found.index)
    expected = parametric_bootstrap(model, data, **arguments).confidence_interval()
    np.testing.assert_array_equal(found[["lower", "upper"]], expected.loc[found.index])
    one = confidence_intervals(
        model, "arm 'a': correlation", method="bootstrap", X=data, **arguments
    )
    np.testing.assert_array_equal(one.iloc[0], found.loc["arm 'a': correlation"])


@pytest.mark.slow
def test_resamples_that_are_not_identified_are_counted():
    """Eight levels, four of which miss one of four occasions, hardly identify the covariance."""
    rng = np.random.default_rng(3)
    rows = []
    for level in range(8):
        noise = rng.standard_normal(4).cumsum()
        rows += [(f"s{level}", f"v{t}", noise[t]) for t in range(4) if level != t]
    data = pd.DataFrame(rows, columns=["id", "visit", "y"])
    model = MixedLinearRegressor(formula="visit", groups="id", residual=Unstructured(time="visit"))
    model.fit(data, data["y"])
    with pytest.warns(DegenerateModelWarning, match="leaves out .* of 20 resamples"):
        result = parametric_bootstrap(model, data, n_resamples=20, random_state=0)
    is_lost = result.samples.isna().any(axis=1)
    assert 0 < is_lost.sum() < 20
    assert result.n_not_converged >= is_lost.sum()
    assert result.samples[is_lost].isna().all(axis=None)
    assert result.confidence_interval().notna().all(axis=None)
    assert f"20 resamples, {result.n_not_converged} without a certified optimum" in repr(result)
    arguments = {"n_resamples": 20, "random_state": 0}
    with pytest.warns(DegenerateModelWarning, match="leaves out"):
        own = parametric_bootstrap(model, data, statistic=lambda own: own.coef_, **arguments)
    np.testing.assert_array_equal(own.samples.isna().all(axis=1), is_lost)
    smaller = clone(model).set_params(residual=AR1(time="visit")).fit(data, data["y"])
    with pytest.warns(DegenerateModelWarning, match="leaves out"):
        test = bootstrap_lrt(smaller, model, data, **arguments)
    n_left = len(test.simulated)
    assert 0 < n_left < 20
    assert test.n_not_converged >= 20 - n_left
    count = (test.simulated >= test.statistic).sum()
    assert test.p_value == pytest.approx((count + 1) / (n_left + 1))


@pytest.mark.parametrize("kind", ["structure", "fixed effect", "none against some"])
def test_simulated_statistics_are_those_of_refits(kind):
    _, data = fit(CASES["ar1"])
    formula, ar1 = "x + arm", AR1(time="t")
    smaller, larger = {
        "structure": ((formula, ar1), (formula, AR1(time="t", variance=Stratified(by="arm")))),
        "fixed effect": (("x", ar1), (formula, ar1)),
        "none against some": ((formula, None), (formula, ar1)),
    }[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = [
            MixedLinearRegressor(formula=own, groups=None if how is None else "id", residual=how)
            .set_params(reml=kind == "structure")
            .fit(data, data["y"])
            for own, how in (smaller, larger)
        ]
    test = bootstrap_lrt(*models, data, n_resamples=5, random_state=0)
    assert test.statistic == pytest.approx(likelihood_ratio_test(*models).statistic, abs=1e-7)
    fitted = by_maximum_likelihood(models[0]._fitted.model)
    rows = rows_of_fit(models[0], fitted, data, None, None)
    entropy = np.random.default_rng(0).integers(2**32, size=4).tolist()
    deviations = Draws.of(fitted, rows).deviations(np.random.SeedSequence(entropy).spawn(5))
    for number, found in enumerate(test.simulated):
        mean = models[0].__mixedlearn_fitted__().with_model(fitted)
        y = mean.predict(data, random_effects="none") + deviations[:, number]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            refits = [
                clone(own).set_params(reml=False).fit(data, y).log_likelihood_ for own in models
            ]
        assert found == pytest.approx(max(2.0 * (refits[1] - refits[0]), 0.0), abs=1e-6)


def test_labels_beside_the_rows():
    _, data = fit(CASES["ar1"])
    model = MixedLinearRegressor(random_intercept=False, residual=AR1(time="t", within="id"))
    X = data[["x", "t"]]
    model.fit(X, data["y"], groups=data[["id"]])
    result = parametric_bootstrap(model, X, groups=data[["id"]], n_resamples=3, random_state=0)
    assert result.samples.notna().all(axis=None)
    with pytest.raises(ValueError, match="No groups were passed, but the noise"):
        parametric_bootstrap(model, X, n_resamples=3)
    without = clone(model).set_params(fixed_effects=[]).fit(X, data["y"], groups=data[["id"]])
    test = bootstrap_lrt(without, model, X, groups=data[["id"]], n_resamples=3, random_state=0)
    assert len(test.simulated) == 3


def test_other_rows_than_those_of_the_fit_are_refused():
    model, data = fit(CASES["ar1"])
    with pytest.raises(ValueError, match=r"what AR1\(time='t'\) within id takes from them differs"):
        parametric_bootstrap(model, data.assign(t=2 * data["t"]), n_resamples=2)
    with pytest.raises(ValueError, match=r"The level 'x' of 'id' .* was not seen in fit"):
        parametric_bootstrap(model, data.assign(id="x"), n_resamples=2)
    with pytest.raises(ValueError, match="cross-products differ"):
        parametric_bootstrap(model, data.assign(x=2.0), n_resamples=2)
    by_order = MixedLinearRegressor(formula="x", groups="id", residual=AR1())
    by_order.fit(data, data["y"])
    parametric_bootstrap(by_order, data, n_resamples=2)
    with pytest.raises(ValueError, match="without a time column in the same order"):
        parametric_bootstrap(by_order, data.sample(frac=1.0, random_state=0), n_resamples=2)
