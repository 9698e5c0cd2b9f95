"""Residuals, influence, simulations and goodness of fit against the R of inference.json.

Tolerances. Everything is held to six digits; changes without a case, which are differences of two
optima, also to 1e-8 of a standard error. What R simulated in 20,000 draws is stored and gets some
four standard errors: of a mean 4 / sqrt(20,000) standard deviations, of a standard deviation 2 %,
of the half width of an interval between two quantiles 3 %. What is drawn here gets bounds that fail
in one of 10,000 seeds.
"""

import numpy as np
import pandas as pd
import pytest

from helpers.chance import normal_bound, within_chi_squared
from mixedlearn import lmer
from mixedlearn.inference import (
    conditional_aic,
    influence,
    intraclass_correlation,
    r2,
    residuals,
)
from reference.dense import Dense
from reference.inference import (
    MODELS,
    WAYS,
    array,
    close,
    entries,
    fitted,
    rows,
    training,
    unfitted,
)

CRITERION = 1e-8
RTOL = 1e-6
Z_95 = 1.959963984540054


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("entry", entries("diagnostics"))
def test_diagnostics(entry, way):
    fit, arguments = fitted(entry["model"], way), training(entry["model"])
    result = influence(fit, **arguments)
    close(result.leverage, entry["hat_values"], RTOL)
    close(result.cooks_distance, entry["cooks_distance"], RTOL)
    close(fit.predict(arguments["X"]), entry["fitted"], RTOL)
    scaled = residuals(fit, **arguments, kind="scaled")
    studentized = residuals(fit, **arguments, kind="studentized")
    close(residuals(fit, **arguments), entry["response_residuals"], RTOL)
    close(scaled, entry["scaled_pearson_residuals"], RTOL)
    close(scaled * np.sqrt(fit.noise_variance_), entry["pearson_residuals"], RTOL)
    leverage = array(entry["hat_values"])
    close(studentized * np.sqrt(1.0 - leverage), entry["scaled_pearson_residuals"], RTOL)


@pytest.mark.slow_cases("penicillin-reml-None")
@pytest.mark.parametrize("entry", entries("deletions", "factor"))
def test_deletions(entry):
    fit = fitted(entry["model"])
    by = entry["factor"] or "row"
    result = influence(fit, **training(entry["model"]), by=by, refit=True)
    if entry["factor"] is None:
        cases = entry["rows"]
    else:
        cases = [list(result.coef.index.astype(str)).index(level) for level in entry["levels"]]
        assert len(cases) == len(result.coef)
    errors = np.sqrt(np.diag(fit.coef_covariance_))
    close(result.coef.iloc[cases], entry["coef"], RTOL)
    close(result.coef_change.iloc[cases] / errors, entry["dfbeta"] / errors, RTOL, 1e-8)
    close(result.dfbetas.iloc[cases], entry["dfbetas"], RTOL, 1e-8)
    distance = result.cooks_distance.iloc[cases]
    close(distance, entry["cooks_distance"], RTOL)
    n, p = len(cases), len(errors)
    close(distance * (n - p) / n, entry["lme4_cooks_distance"], RTOL)
    components = result.variance_components.iloc[cases]
    close(components["sd(noise)"] ** 2, entry["noise_variance"], RTOL)
    for k, factor in enumerate(entry["blocks"]):
        expected = array([covariances[k] for covariances in entry["random_covariances"]])
        effects = list(fit.covariances_[factor].columns)
        for i, effect in enumerate(effects):
            close(components[f"sd({effect}|{factor})"] ** 2, expected[:, i, i], RTOL)
        if len(effects) == 2:
            sizes = np.sqrt(expected[:, 0, 0] * expected[:, 1, 1])
            found = components[f"cor({','.join(effects)}|{factor})"]
            close(found, expected[:, 0, 1] / sizes, RTOL, RTOL)


def fixed_columns(model_id):
    X = training(model_id)["X"].assign(intercept=1.0)
    return X[["intercept", *MODELS[model_id]["fixed_effects"]]].to_numpy(dtype=float)


def random_columns(fit, X, name):
    """Columns of a factor's effects, and the level of every row."""
    effects = fit.covariances_[name].columns
    codes = fit.random_effects_[name].index.get_indexer(X[name])
    return X.assign(intercept=1.0)[list(effects)].to_numpy(dtype=float), codes


def prediction_error_sd(model_id, transpose):
    """Standard deviations of ``T (u - E[u | y])`` by factor, (levels, effects).

    The relative covariance of a level's effects is L L', and u = L^-1 b. T is L, or L' if asked
    for.
    """
    fit, arguments = fitted(model_id), training(model_id)
    names = list(fit.covariances_)
    columns, codes = zip(
        *(random_columns(fit, arguments["X"], name) for name in names), strict=True
    )
    dense = Dense(
        fixed_columns(model_id),
        arguments["y"].to_numpy(dtype=float),
        list(columns),
        list(codes),
        list(fit.n_groups_.values()),
    )
    relative = [fit.covariances_[name].to_numpy() / fit.noise_variance_ for name in names]
    P = dense.at(relative).P
    found = {}
    for name, z, code, covariance in zip(names, columns, codes, relative, strict=True):
        root = np.linalg.cholesky(covariance)
        variances = []
        for level in range(fit.n_groups_[name]):
            own = np.where((code == level)[:, None], z, 0.0) @ root
            spread = np.eye(len(root)) - own.T @ P @ own
            turn = root.T if transpose else root
            variances.append(fit.noise_variance_ * np.diag(turn @ spread @ turn.T))
        found[name] = np.sqrt(variances)
    return found


def simulated(table, fit, key):
    """A column of the simulated effects, by factor, in the order of the fit."""
    frame = pd.DataFrame(table)
    found = {}
    for name, blups in fit.random_effects_.items():
        own = frame[frame["factor"] == name].set_index(["level", "effect"])[key]
        labels = [(str(level), effect) for level in blups.index for effect in blups.columns]
        found[name] = own.loc[labels].to_numpy().reshape(blups.shape)
    return found


@pytest.mark.parametrize("entry", entries("simulations"))
def test_simulated_effects(entry):
    # arm draws the noise variance from its posterior, whose mean is df / (df - 2) of the estimate.
    # It multiplies u by the transposed root where the root belongs, which shows where effects
    # covary; merTools has its draws from there.
    fit, n = fitted(entry["model"]), entry["n_sims"]
    df = len(training(entry["model"])["y"]) - len(fit.coef_covariance_)
    inflation = np.sqrt(df / (df - 2.0))
    transposed = prediction_error_sd(entry["model"], transpose=True)
    for name, sd in simulated(entry["random_effects"], fit, "sd").items():
        close(transposed[name] * inflation, sd, rtol=4.0 / np.sqrt(2.0 * n))
    exact = prediction_error_sd(entry["model"], transpose=False)
    means = simulated(entry["random_effects"], fit, "mean")
    for name, blups in fit.random_effects_.items():
        close((blups - means[name]) / exact[name], np.zeros(blups.shape), 0.0, 4.0 / np.sqrt(n))
        given_coef = np.diagonal(fit.random_effects_covariances_[name], axis1=1, axis2=2)
        assert (np.sqrt(given_coef) < exact[name]).all()
    samples = fit.sample_random_effects(n, random_state=0)
    rate = 1e-4 / (2 * len(samples))
    for name, own in samples.items():
        assert within_chi_squared((own.std(axis=0, ddof=1) / exact[name]) ** 2, n - 1, rate)
        error = (own.mean(axis=0) - means[name]) / exact[name]
        assert np.abs(error).max() < normal_bound(error.size, rate) * np.sqrt(2.0 / n)
    fixed = entry["fixed_effects"]
    assert fixed["effect"] == list(fit.coef_covariance_.index)
    errors = np.sqrt(np.diag(fit.coef_covariance_))
    coef = np.append(fit.intercept_, fit.coef_)
    close((coef - fixed["mean"]) / errors, np.zeros(len(coef)), 0.0, 4.0 / np.sqrt(n))
    close(errors * inflation, fixed["sd"], rtol=4.0 / np.sqrt(2.0 * n))


@pytest.mark.parametrize("entry", entries("simulations"))
def test_simulated_predictions(entry):
    # merTools draws coefficients and BLUPs as if their errors were independent. They are not: what
    # the coefficients have too much, the BLUPs of these levels have too little. So its intervals
    # follow from the parts, and the standard deviation of `predict` is smaller.
    fit, n = fitted(entry["model"]), entry["n_sims"]
    X = training(entry["model"])["X"].head(len(entry["predictions"]["with_noise"]["fit"]))
    x = fixed_columns(entry["model"])
    df = len(x) - x.shape[1]
    x = x[: len(X)]
    of_coef = np.einsum("ri,ij,rj->r", x, fit.coef_covariance_, x)
    of_blups, whole = np.zeros(len(X)), np.zeros(len(X))
    for name, covariances in fit.random_effects_covariances_.items():
        z, codes = random_columns(fit, X, name)
        of_blups += np.einsum("ri,rij,rj->r", z, covariances[codes], z)
        whole += np.einsum("ri,ij,rj->r", z, fit.covariances_[name], z)
    noise = fit.noise_variance_
    drawn = noise * df / (df - 2.0)
    mean, sd = fit.predict(X, return_std=True)
    population, population_sd = fit.predict(X, random_effects="none", return_std=True)
    for kind, centre, variance in [
        ("with_noise", mean, of_coef + of_blups + drawn),
        ("without_noise", mean, of_coef + of_blups),
        ("population", population, of_coef + drawn),
    ]:
        expected = {key: array(own) for key, own in entry["predictions"][kind].items()}
        error = (centre - expected["fit"]) / np.sqrt(variance)
        close(error, np.zeros(len(X)), 0.0, 4.0 / np.sqrt(n))
        half = (expected["upper"] - expected["lower"]) / 2.0
        close(Z_95 * np.sqrt(variance), half, rtol=0.03)
    assert (sd**2 < of_coef + of_blups + noise).all()
    close(population_sd**2, of_coef + whole + noise, RTOL)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("entry", entries("variance_shares"))
def test_variance_shares(entry, way):
    fit = fitted(entry["model"], way)
    shares = r2(fit)
    close(shares["marginal"], entry["r2_marginal"], RTOL)
    close(shares["conditional"], entry["r2_conditional"], RTOL)
    correlations = intraclass_correlation(fit).sum()
    close(correlations["adjusted"], entry["adjusted_icc"], RTOL)
    close(correlations["unadjusted"], entry["icc"], RTOL)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("entry", entries("conditional_aic"))
def test_conditional_aic(entry, way):
    found = conditional_aic(fitted(entry["model"], way))
    close(found.log_likelihood, entry["conditional_log_likelihood"], RTOL)
    close(found.effective_df, entry["effective_parameters"], RTOL)
    close(found.n_parameters, entry["effective_parameters"] + 1.0, RTOL)
    close(found.value, entry["conditional_aic"], RTOL)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("entry", entries("other_responses"))
def test_other_responses(entry, way):
    model, arguments = MODELS[entry["model"]], training(entry["model"])
    if way == "columns":
        fit = unfitted(entry["model"]).fit(**arguments | {"y": np.log(arguments["y"])})
    else:
        formula = f"{entry['response']} ~{model['formula'].split('~')[1]}"
        fit = lmer(formula, rows(entry["model"]), reml=model["reml"])
    assert -2.0 * fit.log_likelihood_ == pytest.approx(entry["criterion"], abs=CRITERION)
    close(np.append(fit.intercept_, fit.coef_), entry["coef"], RTOL)
    close(fit.coef_covariance_, entry["coef_covariance"], RTOL)
    for name, covariance in zip(fit.covariances_, entry["random_covariances"], strict=True):
        close(fit.covariances_[name], covariance, RTOL)
    close(fit.noise_variance_, entry["noise_variance"], RTOL)
