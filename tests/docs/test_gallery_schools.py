"""The gallery's pages on pupils: their numbers against R, and what they say in words.

Tolerances. Least squares agree to rounding. The fits of lme4 end a little before the optimum:
estimates are held to three digits, since the likelihood is flat there. Data and folds are those of
the pages' own seeds, and what a page says of them is held to. What this package draws at random
gets bounds that fail in one of 10,000 seeds.
"""

import json

import numpy as np
import pandas as pd
import pytest

from helpers.chance import normal_bound, within_chi_squared
from mixedlearn.inference import coefficient_table, likelihood_ratio_test, variance_table
from reference import FOLDER

REFERENCE = json.loads((FOLDER / "gallery_schools.json").read_text(encoding="utf-8"))
SCHOOLS = REFERENCE["extroversion"]
CLASSROOMS = REFERENCE["pupils_in_classrooms"]
METHODS = [(effect, method) for effect, methods in CLASSROOMS.items() for method in methods]
NAMES = {"(Intercept)": "intercept"}


@pytest.fixture
def extroversion(gallery):
    return gallery("extroversion")


@pytest.fixture
def classrooms(gallery):
    return gallery("pupils_in_classrooms")


def in_r(values):
    """A dict of R's numbers as a Series by the names used here."""
    return pd.Series({NAMES.get(name, name): value for name, value in values.items()})


# -- Extroversion ----------------------------------------------------------------------------------


def test_pupils_are_those_that_r_saw(extroversion):
    means = extroversion["pupils"][list(SCHOOLS["data"])].mean()
    np.testing.assert_allclose(means, list(SCHOOLS["data"].values()), rtol=1e-12)


def test_least_squares(extroversion):
    found = [model.aic() for model in extroversion["by_least_squares"].values()]
    np.testing.assert_allclose(found, SCHOOLS["least_squares_aic"], rtol=1e-10)


def test_f_test_of_schools(extroversion):
    row, expected = extroversion["f_tests"].loc["school"], SCHOOLS["school_f_test"]
    assert row["f_value"] == pytest.approx(expected["f"], rel=1e-9)
    assert (row["num_df"], row["den_df"]) == (expected["num_df"], expected["den_df"])


@pytest.mark.parametrize("name", SCHOOLS["models"])
def test_mixed_models(extroversion, name):
    model, expected = extroversion[name], SCHOOLS["models"][name]
    assert model.log_likelihood_ == pytest.approx(expected["log_likelihood"], abs=1e-5)
    assert model.aic() == pytest.approx(expected["aic"], abs=2e-5)
    found = [np.diag(own) ** 0.5 for own in model.covariances_.values()]
    found = [*np.concatenate(found), model.noise_variance_**0.5]
    np.testing.assert_allclose(sorted(found), sorted(expected["sd"].values()), rtol=1e-3)
    table = coefficient_table(model)
    for coef, values in expected["coefficients"].items():
        row = table.loc[NAMES.get(coef, coef)]
        expected_row = [values[key] for key in ("estimate", "std_error", "t")]
        np.testing.assert_allclose(
            row[["estimate", "std_error", "t_value"]], expected_row, rtol=1e-3
        )


def test_comparison(extroversion):
    test = likelihood_ratio_test(extroversion["by_school"], extroversion["nested"])
    assert test.statistic == pytest.approx(SCHOOLS["comparison"]["chi2"], rel=1e-6)
    assert test.df == SCHOOLS["comparison"]["df"]


def test_profile_intervals(extroversion):
    expected = pd.DataFrame(SCHOOLS["profile_99"]).rename(columns=NAMES).T
    found = extroversion["intervals"].loc[expected.index, ["lower", "upper"]]
    # lme4 interpolates the profile: three digits where it bends.
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_random_effects(extroversion):
    model, expected = extroversion["by_school"], in_r(SCHOOLS["random_effects"])
    blups = model.random_effects_["school"]["intercept"].loc[expected.index]
    np.testing.assert_allclose(blups, expected, rtol=1e-6)
    variances = model.random_effects_covariances_["school"].ravel()
    np.testing.assert_allclose(variances, SCHOOLS["conditional_variance"], rtol=1e-6)


def test_draws_of_random_effects(extroversion):
    expected = in_r(SCHOOLS["simulated_sd"])
    found = extroversion["simulated"]["sd"].loc[expected.index]
    # 1,000 draws here, 5,000 there.
    spread = np.sqrt(1 / 2_000 + 1 / 10_000)
    bound = normal_bound(len(found), rate=5e-5) * spread
    assert np.abs(np.log(found / expected)).max() < bound
    conditional = np.sqrt(SCHOOLS["conditional_variance"])
    assert (found > 20 * conditional).all()
    ratio = extroversion["difference"].var() / (2.0 * conditional**2)
    assert within_chi_squared(ratio, 999, rate=5e-5)


def test_effect_sizes(extroversion):
    expected = in_r(SCHOOLS["effect_sizes"])
    found = extroversion["sizes"].loc[expected.index, "per_noise_sd"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("exact_ml", "exact_lrt"),
        ("exact_reml", "exact_restricted_lrt"),
        ("exact_school", "exact_school"),
        ("exact_slope", "exact_slope"),
    ],
)
def test_exact_tests(extroversion, name, field):
    test, expected = extroversion[name], SCHOOLS[field]
    assert test.statistic == pytest.approx(expected["statistic"], rel=1e-5)
    # No simulated statistic was as large, here or there.
    assert test.p_value == 1 / (test.n_resamples + 1)
    assert expected["p_value"] == 0


def test_predictions_in_every_school(extroversion):
    expected = pd.DataFrame(SCHOOLS["predict_interval"])
    found = extroversion["predicted"].iloc[: len(expected)]
    np.testing.assert_allclose(found["fit"], expected["fit"], atol=0.15)
    width = found["upr"] - found["lwr"]
    in_r = (expected["upper"] - expected["lower"]).to_numpy()
    assert np.all((in_r / width > 1.8) & (in_r / width < 2.2))
    corrected = pd.DataFrame(SCHOOLS["predict_interval_corrected"])
    in_r = (corrected["upper"] - corrected["lower"]).to_numpy()
    assert np.all((in_r / width > 1.0) & (in_r / width < 1.2))
    assert extroversion["inside"].mean() == pytest.approx(0.95, abs=0.03)


def test_cases_are_predicted_in_every_school(extroversion):
    predictions, cases = extroversion["in_every_school"].predictions, extroversion["cases"]
    first = predictions[predictions["case"] == cases.index[0]]
    rows = cases.head(1).merge(pd.DataFrame({"school": first["level"].astype(str)}), how="cross")
    mean, std = extroversion["by_school"].predict(rows, return_std=True)
    np.testing.assert_allclose(first["prediction"], mean, rtol=1e-12)
    np.testing.assert_allclose(first["upper"] - first["prediction"], 1.96 * std, rtol=1e-3)
    assert len(predictions) == 72


def test_what_the_page_says_of_slopes(extroversion):
    assert extroversion["by_openness"].is_singular_
    assert not extroversion["by_engagement"].is_singular_
    table = coefficient_table(extroversion["by_engagement"])
    assert (table.loc[["open", "social_z"], "p_value"] < 0.001).all()
    assert table.loc["agree", "p_value"] > 0.05
    row = coefficient_table(extroversion["by_school"]).loc["open"]
    assert row["std_error"] > 0.5 * 0.02
    assert row["estimate"] == pytest.approx(2 * 0.02, rel=0.1)
    nested = coefficient_table(extroversion["nested"]).loc["open"]
    assert nested["std_error"] < 0.5 * row["std_error"]
    assert abs(nested["estimate"] - 0.02) < 0.5 * abs(row["estimate"] - 0.02)
    intervals = extroversion["intervals"]
    assert (intervals.loc[["open", "social"], "lower"] > 0).all()
    assert intervals.loc["agree", "lower"] < 0 < intervals.loc["agree", "upper"]
    drop = extroversion["by_openness"].log_likelihood_ - extroversion["nested"].log_likelihood_
    assert 2 * drop < 2
    correlations = variance_table(extroversion["by_openness"])["correlation"].dropna()
    np.testing.assert_allclose(correlations.iloc[-1], -1.0)


def test_a_new_school_is_learnt_from_ten_pupils(extroversion):
    new = extroversion["updated"].random_effects_["school"].loc["VII", "intercept"]
    source = extroversion["by_school"].random_effects_["school"].loc["III", "intercept"]
    assert abs(new - source) < 4
    assert extroversion["lower"] < extroversion["mean"][0] < extroversion["upper"]
    before = extroversion["predicted"].loc["VII"]
    assert extroversion["upper"] - extroversion["lower"] < 0.3 * (before["upr"] - before["lwr"])


# -- Pupils in classrooms --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("effect", "method"), METHODS)
def test_one_table(classrooms, effect, method):
    found, expected = classrooms["results"][effect, method], CLASSROOMS[effect][method]
    pairs = {"RMSE": "rmse", "coef": "estimate", "std_error": "std_error", "stat": "t", "df": "df"}
    rtol = 1e-4 if method.startswith("mixed") else 1e-9
    np.testing.assert_allclose(
        [found[ours] for ours in pairs], [expected[theirs] for theirs in pairs.values()], rtol=rtol
    )
    assert np.log(found["p_value"]) == pytest.approx(np.log(expected["p"]), rel=1e-3)


@pytest.mark.slow
def test_every_method_is_in_the_table(classrooms):
    assert list(classrooms["table"].index) == METHODS


@pytest.mark.slow
def test_what_the_table_shows(classrooms):
    """Who is far from the truth, and whose standard error is too small, as the page says."""
    truth = classrooms["SLOPE"]
    edu = classrooms["table"].loc["edu"]
    off = (edu["coef"] - truth).abs()
    too_small = edu["std_error"]
    assert off["aggregation: classroom means"] > off["pooled regression"]
    assert off["aggregation: classroom means"] < too_small["aggregation: classroom means"]
    assert off["pooled regression"] > 3 * edu.loc["pooled regression", "std_error"]
    assert off["two stages: mean of slopes"] == off.min() < 0.01
    assert off["mixed: slope and classroom mean"] < off["mixed: random intercept and slope"]
    honest = too_small["two stages: mean of slopes"]
    for name in ("pooled regression", "ANCOVA: classroom dummies", "mixed: random intercept"):
        assert too_small[name] < 0.75 * honest
    club = classrooms["table"].loc["edu:club"]
    assert club["stat"].abs().idxmax() == "ANCOVA: classroom dummies"


@pytest.mark.slow
def test_errors_of_prediction(classrooms):
    errors = classrooms["errors"]
    known = errors["known classrooms"]
    assert known.nsmallest(3).index.str.startswith("mixed").all()
    assert known["ANCOVA: classroom dummies"] < known.min() + 0.05
    assert known["two stages: own line, or mean line"] > known.min() + 0.1
    assert errors["new classrooms"].idxmin() == "mixed: slope and classroom mean"
    assert np.isnan(errors.loc["ANCOVA: classroom dummies", "new classrooms"])
    best = errors.loc["pooled regression", "new classrooms"]
    assert errors.loc["mixed: random intercept", "new classrooms"] > best - 0.01


@pytest.mark.slow
def test_simulation(classrooms):
    shape = (len(classrooms["scenarios"]), len(classrooms["METHODS"]))
    covered = pd.DataFrame(
        classrooms["covered"].reshape(shape),
        index=list(classrooms["scenarios"]),
        columns=list(classrooms["METHODS"]),
    )
    assert (covered["mixed: slope, mean of edu"] >= 0.9).all()
    assert (covered["mean of slopes"] > 0.9).all()
    confounded = covered.loc["levels follow the mean of edu"]
    assert (confounded[["pooled regression", "classroom means"]] < 0.3).all()
    assert (covered.loc["slopes differ", ["pooled regression", "ANCOVA: dummies"]] < 0.85).all()
    spread = pd.DataFrame(classrooms["coef"].std(axis=1), covered.index, covered.columns)
    small = spread.loc["slopes differ, small classrooms"]
    assert small["mean of slopes"] > 1.15 * small["mixed: slope, mean of edu"]
