"""Pages of the gallery about series of measurements, against nlme's numbers for the same data.

The references are in ``gallery_series.json``. What the text of a page says is held to its tables.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mixedlearn import inference

PATH = Path(__file__).parents[1] / "reference" / "gallery_series.json"
R = json.loads(PATH.read_text(encoding="utf-8"))
MARES = R["mares"]
TRIAL = R["clinical_trial"]


@pytest.fixture
def mares(gallery):
    return gallery("mares")


@pytest.fixture
def trial(gallery):
    return gallery("clinical_trial")


@pytest.fixture
def forecasts(gallery):
    return gallery("forecasts")


@pytest.mark.parametrize("name", MARES)
def test_mares_models_are_those_of_nlme(mares, name):
    model, expected = mares["models"][name], MARES[name]
    assert_allclose(model.log_likelihood_, expected["log_likelihood"], atol=1e-7, rtol=0.0)
    assert_allclose(model.aic(), expected["aic"], atol=1e-6, rtol=0.0)
    errors = np.sqrt(np.diag(model.coef_covariance_))
    assert_allclose(errors, expected["std_error"], rtol=1e-5)
    if model.residual:
        own = [model.residual_parameters_["correlation"]]
        assert_allclose(own, expected["correlation"], rtol=1e-5)


def test_mares_comparisons_are_those_of_the_book(mares):
    """Pinheiro and Bates (2000), section 5.3: AIC 1638.1 and 1563.4, a ratio of 76.63."""
    models = mares["models"]
    assert f"{models['random intercept and sine'].aic():.1f}" == "1638.1"
    assert f"{mares['slopes'].aic():.1f}" == "1563.4"
    assert f"{mares['test'].statistic:.2f}" == "76.63"
    assert f"{mares['slopes'].residual_parameters_['correlation']:.4f}" == "0.5722"


def test_mares_text_says_what_the_tables_say(mares):
    assert_allclose(mares["by_lag"].iloc[:2], [0.40, 0.19], atol=0.005)
    assert (mares["by_lag"].iloc[-3:] < 0.0).all()
    assert mares["structures"]["AIC"].idxmin() == "AR(1), random intercept"
    assert mares["level"].p_value < 0.001
    assert mares["sine"].p_value > 0.1
    p_values = [table["p_value"]["cosine"] for table in mares["tables"].values()]
    assert_allclose(p_values, [0.0017, 0.0943], atol=5e-5)
    simple, correlated = (table["std_error"].iloc[1:] for table in mares["tables"].values())
    assert (correlated / simple).between(1.7, 2.0).all()
    r = mares["chosen"].residual_parameters_["correlation"]
    assert 1.25 < np.log(0.5) / np.log(r) < 1.75


def test_mares_correlations_fall_to_the_share_of_the_mares(mares):
    """Of AR(1) beside an intercept, written out for two days of a mare."""
    chosen, implied = mares["chosen"], mares["implied"]
    between = chosen.covariances_["Mare"].iloc[0, 0]
    share = between / (between + chosen.noise_variance_)
    assert_allclose(implied(chosen)[-1], share, atol=1e-4)
    intercept = mares["models"]["random intercept"]
    assert np.ptp(implied(intercept)) == 0.0
    assert implied(mares["models"]["AR(1)"])[-1] < 0.005


def test_trial_is_the_one_that_r_saw(trial):
    rows, expected = trial["trial"], TRIAL["data"]
    assert len(rows) == expected["n_rows"]
    assert_allclose(rows["change"].mean(), expected["change"], rtol=1e-12)


@pytest.mark.parametrize("name", TRIAL["criteria"])
def test_trial_criteria_are_those_of_nlme(trial, name):
    found = -2.0 * trial["fits"][name].log_likelihood_
    assert_allclose(found, TRIAL["criteria"][name], atol=1e-6, rtol=0.0)


def test_trial_covariance_and_means_are_those_of_nlme(trial):
    assert_allclose(trial["correlations"], TRIAL["correlation"], atol=1e-6)
    errors = np.sqrt(np.diag(trial["mmrm"].coef_covariance_))
    assert_allclose(np.sort(errors)[-1], max(TRIAL["std_error"]), rtol=1e-5)
    expected = [own["estimate"] for own in TRIAL["means"]]
    assert_allclose(trial["means"].table["estimate"], expected, rtol=1e-5)
    plain = inference.marginal_means(
        trial["mmrm"], "arm", by="week", at=trial["at"], ddf="normal"
    ).table["std_error"]
    assert_allclose(plain, [own["std_error"] for own in TRIAL["means"]], rtol=1e-5)
    # Kenward and Roger's standard errors are larger, but for the first visit, where all are seen.
    adjusted = trial["means"].table["std_error"]
    assert_allclose(adjusted.iloc[:2], plain.iloc[:2], rtol=1e-7)
    assert (adjusted.iloc[2:] > plain.iloc[2:]).all()


def test_trial_first_visit_is_an_analysis_of_covariance(trial):
    first = trial["differences"].table.iloc[0]
    expected = TRIAL["ancova"]
    assert_allclose(first["estimate"], expected["estimate"], rtol=1e-6)
    assert_allclose(first["std_error"], expected["std_error"], rtol=1e-6)
    assert_allclose(first["df"], expected["df"], rtol=1e-5)


def test_trial_text_says_what_the_tables_say(trial):
    last = trial["differences"].table.iloc[-1]
    assert_allclose(
        last[["estimate", "lower", "upper"]].astype(float), [-4.1, -6.2, -2.1], atol=0.05
    )
    assert last["lower"] < trial["TRUE_DIFFERENCE"][-1] < last["upper"]
    stay = trial["wide"]["week_12"].notna()
    assert 0.2 < 1.0 - stay.mean() < 0.25
    by_arm = stay.groupby(trial["wide"]["arm"]).sum()
    assert by_arm["drug"] > by_arm["placebo"]
    fits = trial["fits"]
    aic = {name: model.aic() for name, model in fits.items()}
    assert abs(aic["unstructured"] - aic["heterogeneous_toeplitz"]) < 1.0
    assert 150.0 < aic["compound_symmetry"] - aic["unstructured"] < 250.0
    errors = {name: trial["last_visit"](model)["std_error"] for name, model in fits.items()}
    assert errors["compound_symmetry"] < 0.8 * errors["unstructured"]
    assert trial["structures"].p_value > 0.05
    assert trial["arms"].p_value > 0.5


def test_trial_dropout_biases_all_but_the_mmrm(trial):
    distance = (trial["estimates"] - trial["estimates"].iloc[0]).abs().iloc[1:]
    assert distance.idxmin() == "MMRM"
    mean, error = trial["errors"].mean(), trial["errors"].sem()
    assert abs(mean["MMRM"]) < 2.0 * error["MMRM"]
    others = ["completers", "last score carried forward"]
    assert (mean[others] > 3.5 * error[others]).all()
    assert_allclose(mean[others], 0.2, atol=0.06)


def test_trial_picture_has_two_arms(trial):
    assert len(trial["display"].lines_) == 2


def test_forecasts_of_a_cow_are_those_of_nlme(forecasts):
    """nlme's estimates, and the conditional normal distribution written out in R."""
    expected = R["forecasts"]
    assert_allclose(forecasts["r"], expected["correlation"], rtol=1e-5)
    table = forecasts["by_hand"]
    assert_allclose(table["forecast"], expected["mean"], rtol=1e-5)
    assert_allclose(table["std"], expected["std"], rtol=1e-5)
    assert_allclose(table.iloc[:, 0] + table.iloc[:, 1], table["forecast"], rtol=1e-10)


def test_forecasts_hold_out_four_weeks_of_every_cow_once(forecasts):
    later = np.concatenate([test for _, test in forecasts["splits"]])
    assert len(later) == len(set(later)) == 4 * 79
    milk = forecasts["milk"]
    for known, test in forecasts["splits"]:
        assert len(known) + len(test) == len(milk)
        last_known = milk.iloc[known].groupby("Cow")["Time"].max()
        assert (milk.iloc[test]["Time"] > milk.iloc[test]["Cow"].map(last_known)).all()


def test_forecasts_text_says_what_the_tables_say(forecasts):
    quality = {name: forecasts["quality"](found) for name, found in forecasts["results"].items()}
    rmse = {name: own["RMSE"] for name, own in quality.items()}
    assert min(rmse, key=rmse.get) == "AR(1)"
    assert max(rmse, key=rmse.get) == "random line"
    coverage = {name: own["coverage of 95 %"] for name, own in quality.items()}
    assert 0.93 < coverage["AR(1)"] < 0.97
    assert max(coverage["random intercept"], coverage["random line"]) < 0.9
    steps = forecasts["steps"]
    others = [steps.loc[name, "RMSE"] for name in ("random intercept", "random line")]
    assert all((steps.loc["AR(1)", "RMSE"] < other).all() for other in others)
    assert (steps.loc["AR(1)", "mean std"].diff().dropna() > 0.0).all()
    unknown = np.sqrt(forecasts["models"]["AR(1)"].noise_variance_)
    assert_allclose(steps.loc["AR(1)", "mean std"].iloc[-1], unknown, rtol=0.05)
    assert np.ptp(steps.loc["random intercept", "mean std"]) < 0.001
    aic = {name: model.aic() for name, model in forecasts["candidates"].items()}
    assert min(aic, key=aic.get) == "AR(1) and random intercept"
    assert aic["random line"] - aic["AR(1)"] > 100.0
    scores = -forecasts["search"].cv_results_["mean_test_score"]
    assert_allclose(scores[1], scores[2], rtol=1e-5)
    assert scores[1] < scores[0]
