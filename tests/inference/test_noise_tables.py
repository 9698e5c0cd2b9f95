"""R squared, single deletions and level coefficients beside residual structures."""

import json

import numpy as np
import pandas as pd
import pytest

from mixedlearn import lmer
from mixedlearn.inference import (
    drop1,
    effect_sizes,
    information_criteria,
    intraclass_correlation,
    level_coefficients,
    likelihood_ratio_test,
    r2,
    ranova,
)
from mixedlearn.residual import AR1, Antedependence
from reference import FOLDER
from reference.noise_models import MODELS, fit, read

NLME = json.loads((FOLDER / "residual_structures.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_shares_of_the_variance(name, weighted):
    frame = read(MODELS[name][0])
    weights = np.resize([1.0, 2.0, 0.5, 3.0], len(frame)) if weighted else np.ones(len(frame))
    found = fit(name, frame, weights if weighted else None)
    coef = np.append(found.model.intercept_, found.model.coef_)
    mean = found.X @ coef
    n = len(mean)

    def variance(values):
        centred = values - np.average(values, weights=weights)
        return np.average(centred**2, weights=weights) * n / (n - 1)

    fixed, noise = variance(mean), np.average(np.diag(found.R), weights=weights)
    random = sum(own.to_numpy()[0, 0] for own in found.model.covariances_.values())
    total = fixed + random + noise
    expected = [fixed / total, (fixed + random) / total]
    np.testing.assert_allclose(r2(found.model), expected, rtol=1e-8)
    sizes = effect_sizes(found.model)
    np.testing.assert_allclose(sizes["per_noise_sd"], coef / np.sqrt(noise), rtol=1e-8)
    np.testing.assert_allclose(sizes["per_total_sd"], coef / np.sqrt(noise + random), rtol=1e-8)
    deviations = [np.sqrt(variance(column) / variance(found.y)) for column in found.X.T]
    np.testing.assert_allclose(sizes["standardised"].iloc[1:], (coef * deviations)[1:], rtol=1e-8)
    shares = intraclass_correlation(found.model)
    assert len(shares) == len(found.model.covariances_)
    if len(shares):
        np.testing.assert_allclose(shares["adjusted"], random / (random + noise), rtol=1e-8)
        np.testing.assert_allclose(shares["unadjusted"], random / total, rtol=1e-8)


def test_random_slopes_count_with_their_mean_over_the_rows():
    frame = read("bodyweight")
    model = lmer("weight ~ Time + (Time | Rat)", frame, residual=AR1())
    Z = np.column_stack([np.ones(len(frame)), frame["Time"]])
    random = np.einsum("ra,ab,rb->r", Z, model.covariances_["Rat"].to_numpy(), Z).mean()
    expected = random / (random + model.noise_variance_)
    assert intraclass_correlation(model).loc["Rat", "adjusted"] == pytest.approx(expected)


def test_ranova_is_the_test_of_nlme():
    table = ranova(fit("ovary_lme").model)
    with_it, without = (NLME[name]["REML"]["criterion"] for name in ("ovary_lme", "ovary_gls"))
    assert table.loc["(1 | Mare)", "lrt"] == pytest.approx(without - with_it, abs=1e-5)
    assert table.loc["<none>", "aic"] == pytest.approx(with_it + 2.0 * 6.0, abs=1e-5)


def test_ranova_of_slopes_and_of_one_of_two_factors():
    frame = read("orthodont")
    slopes = lmer("distance ~ age + (age | Subject)", frame, residual=AR1(time="age"))
    less = lmer("distance ~ age + (1 | Subject)", frame, residual=AR1(time="age"))
    table = ranova(slopes)
    test = likelihood_ratio_test(less, slopes, refit=False)
    assert table.loc["age in (1 + age | Subject)", "lrt"] == pytest.approx(test.statistic, abs=1e-6)
    assert table.loc["age in (1 + age | Subject)", "df"] == 2
    structure = AR1(time="age", within="Subject")
    both = lmer("distance ~ age + (1 | trio) + (1 | Subject)", frame, residual=structure)
    table = ranova(both)
    for kept, gone in (("Subject", "trio"), ("trio", "Subject")):
        other = lmer(f"distance ~ age + (1 | {kept})", frame, groups="Subject", residual=structure)
        expected = max(other.log_likelihood_ * -2.0 + both.log_likelihood_ * 2.0, 0.0)
        assert table.loc[f"(1 | {gone})", "lrt"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("reml", [True, False])
def test_drop1_refits_with_the_structure(reml):
    frame = read("orthodont")
    structure = Antedependence(time="age", variance="heterogeneous")
    arguments = {"groups": "Subject", "residual": structure}
    model = lmer("distance ~ age * Sex", frame, reml=reml, **arguments)
    table = drop1(model)
    whole = lmer("distance ~ age * Sex", frame, reml=False, **arguments)
    less = lmer("distance ~ age + Sex", frame, reml=False, **arguments)
    assert list(table.index) == ["<none>", "age:Sex"]
    expected = 2.0 * (whole.log_likelihood_ - less.log_likelihood_)
    assert table.loc["age:Sex", "lrt"] == pytest.approx(expected, abs=1e-6)
    assert table.loc["age:Sex", "aic"] == pytest.approx(less.aic(), abs=1e-6)


def test_level_coefficients_and_criteria():
    model = fit("ovary_lme").model
    table = level_coefficients(model)["Mare"]
    blups = model.random_effects_["Mare"]["intercept"]
    np.testing.assert_allclose(table["intercept"], model.intercept_ + blups)
    np.testing.assert_allclose(table.iloc[:, 1:], np.tile(model.coef_, (len(table), 1)))
    criteria = information_criteria(model)
    expected = pd.Series({"n_parameters": 6.0, "aic": model.aic(), "bic": model.bic()})
    pd.testing.assert_series_equal(criteria[expected.index], expected)
