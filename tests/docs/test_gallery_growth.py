"""Pages of the gallery about growth curves, trees, sleep and dyestuff, against printed numbers.

A printed number is a text, so that it says to how many decimals it was printed. The sources are
the statsmodels notebook ``mixed_lm_example.ipynb``, which shows the output of lme4 under R 3.5.1;
the vignette of lme4 1.1.31, which is the paper of Bates et al. (2015); chapter 1 of Bates' book
on lme4; the tests of MixedModels.jl; and, where it says so, lme4 1.1.31 under R 4.2.2 and
statsmodels 0.15.0.

Data and folds are those of the pages' own seeds. What this package draws at random gets bounds that
fail in at most one of 10,000 seeds.
"""

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from helpers.chance import same_share, within_binomial
from mixedlearn import inference


def assert_prints(values, printed):
    """Every value, rounded like the printed one, is the printed one."""
    texts = printed.split()
    values = np.ravel(values)
    assert len(values) == len(texts)
    for value, text in zip(values, texts, strict=True):
        assert f"{value:.{len(text.partition('.')[2])}f}" == text


@pytest.fixture
def pigs(gallery):
    return gallery("growth_curves")


@pytest.fixture
def sitka(gallery):
    return gallery("sitka")


@pytest.fixture
def sleepstudy(gallery):
    return gallery("sleepstudy")


@pytest.fixture
def dyestuff(gallery):
    return gallery("dyestuff")


def test_pigs_random_intercept_is_that_of_lme4(pigs):
    model = pigs["models"]["random intercept"]
    covariance = model.coef_covariance_.to_numpy()
    std_error = np.sqrt(covariance.diagonal())
    found = [
        -2.0 * model.log_likelihood_,
        *(model.intercept_, std_error[0]),
        *(model.coef_[0], std_error[1]),
        covariance[0, 1] / std_error.prod(),
    ]
    assert_prints(found, "4809.6 15.72352 0.78805 6.94251 0.03339 -0.275")
    variances = [model.covariances_["Pig"].iloc[0, 0], model.noise_variance_]
    assert_prints(variances, "40.39 11.37")
    assert_prints(np.sqrt(variances), "6.356 3.371")
    assert_prints([variances[1], model.log_likelihood_], "11.3669 -2404.7753")  # statsmodels


def test_pigs_random_slope_is_that_of_lme4(pigs):
    model = pigs["models"]["intercept and slope"]
    found = [-2.0 * model.log_likelihood_, model.intercept_, model.coef_[0]]
    assert_prints(found, "4434.1 15.73865 6.93901")
    assert_prints(np.sqrt(model.covariances_["Pig"].to_numpy().diagonal()), "4.415 0.645")
    assert_prints(model.covariances_["Pig"].to_numpy().ravel()[[0, 3]], "19.493 0.416")
    assert_prints([model.noise_variance_**0.5, model.log_likelihood_], "2.457 -2217.0475")


def test_pigs_uncorrelated_is_that_of_lme4(pigs):
    model = pigs["models"]["uncorrelated"]
    found = [-2.0 * model.log_likelihood_, model.intercept_, model.coef_[0]]
    assert_prints(found, "4434.7 15.73875 6.93899")
    assert_prints(np.sqrt(model.covariances_["Pig"].to_numpy().diagonal()), "4.4543 0.6507")
    assert_prints(model.coef_covariance_.iloc[1, 1] ** 0.5, "0.08045")
    assert_prints([model.noise_variance_, model.log_likelihood_], "6.0282 -2217.3481")


def test_pigs_page_tells_every_number_that_lme4_prints_otherwise(pigs):
    differs = pigs["differs"]["lme4"]
    assert differs.index[differs].to_list() == [
        ("intercept and slope", "its standard error"),
        ("intercept and slope", "standard error of Time"),
        ("intercept and slope", "noise variance"),
        ("uncorrelated", "its standard error"),
        ("uncorrelated", "variance of intercepts"),
    ]
    others = pigs["beside"][differs]
    assert_allclose(others["lme4"].astype(float), others["mixedlearn"], rtol=1e-3)


def test_pigs_of_statsmodels_differ_in_the_fourth_digit_at_most(pigs):
    beside = pigs["beside"]
    beside = beside[beside["statsmodels"] != ""]
    printed = beside["statsmodels"].astype(float)
    half_digit = [0.5 * 10.0 ** -len(text.partition(".")[2]) for text in beside["statsmodels"]]
    excess = (printed - beside["mixedlearn"]).abs() - half_digit
    assert (excess <= 1e-3 * printed.abs()).all()


def test_pigs_correlation_is_tested_as_by_r(pigs):
    """The notebook's argument: a drop of 0.3, twice that is 0.6. The rest is R's anova."""
    assert_prints(pigs["by_reml"].statistic / 2.0, "0.3")
    assert_prints([pigs["by_reml"].statistic, pigs["by_reml"].p_value], "0.60121 0.4381")
    assert_prints([pigs["by_ml"].statistic, pigs["by_ml"].p_value], "0.62548 0.4290")
    assert_prints(pigs["slopes"].statistic, "374.8545")


def test_pigs_scaled_residuals_are_those_of_lme4(pigs):
    quantiles = pigs["scaled"].quantile([0.0, 0.25, 0.5, 0.75, 1.0])
    assert_prints(quantiles, "-6.4281 -0.5527 -0.0405 0.4840 3.5661")
    assert pigs["worst"]["Pig"].item() == 4858
    frame = pigs["dietox"].frame.query("Pig == 4858").set_index("Time")["Weight"]
    assert_prints(frame.diff().loc[[10, 11]], "-12 26")
    by_week = pigs["scaled"].groupby(pigs["X"]["Time"]).mean()
    assert (by_week.loc[[1, 2, 10, 11, 12]] > 0).all()
    assert (by_week.loc[3:9] < 0).all()
    assert pigs["curved"].coef_[1] > 0


def test_pigs_cross_validation_tells_known_from_new(pigs):
    errors = pigs["errors"]
    assert errors.loc["random intercept", "known pigs"] > 3.0
    assert (errors["known pigs"].iloc[1:] < 3.0).all()
    assert np.ptp(errors["new pigs"]) < 0.01
    assert (errors["new pigs"] > 7.0).all()
    assert pigs["search"].best_params_["random_slopes"] == ["Time"]


def test_pigs_picture_has_every_pig_and_is_saved(pigs):
    display = pigs["display"]
    assert sum(len(collection.get_segments()) for collection in display.lines_) == 72
    height, width, _ = matplotlib.image.imread(pigs["path"]).shape
    assert min(height, width) > 400


def test_sitka_random_intercept_is_that_of_lme4(sitka):
    model = sitka["intercept"]
    std_error = np.sqrt(model.coef_covariance_.to_numpy().diagonal())
    found = [
        *(-2.0 * model.log_likelihood_, model.covariances_["tree"].iloc[0, 0]),
        *(model.noise_variance_, model.intercept_, std_error[0], model.coef_[0], std_error[1]),
    ]
    assert_prints(found, "164.8 0.37451 0.03921 2.2732443 0.0878955 0.0126855 0.0002654")


def test_sitka_optimum_is_that_of_three_programs(sitka):
    """lme4 1.1.31 with bobyqa, and statsmodels 0.15.0."""
    numbers = sitka["numbers"](sitka["slope"])
    assert_allclose(numbers["REML criterion"], 124.966889124, atol=1e-8)
    assert_allclose(numbers["REML criterion"], sitka["STATSMODELS"]["REML criterion"], atol=1e-8)
    assert_allclose(numbers, sitka["LME4_BOBYQA"], rtol=2e-4)
    assert_allclose(numbers, sitka["STATSMODELS"], rtol=2e-3)


def test_sitka_notebook_stops_on_the_way_down(sitka):
    """At lme4's parameters the criterion is the one that the notebook prints."""
    way = np.array(sitka["way"])
    assert_prints(way[0], "153.4")
    assert_prints(way[0], "153.3653")
    assert np.all(np.diff(way[: np.argmin(way) + 1]) < 0.0)
    assert sitka["steps"][np.argmin(way)] == pytest.approx(1.0)
    sd = np.sqrt(sitka["slope"].covariances_["tree"].iloc[0, 0])
    assert sd / sitka["LME4_DEFAULT"]["sd of intercepts"] > 1.7


def test_sitka_criterion_does_not_depend_on_the_unit_of_time(sitka):
    assert_allclose(sitka["per_day"], -2.0 * sitka["slope"].log_likelihood_, atol=1e-8)
    assert_prints(np.sqrt(sitka["yearly"].covariances_["tree"].iloc[1, 1]), "0.9880")


def test_sitka_profile_is_never_below_that_of_a_fixed_ratio(sitka):
    for name, points in sitka["PROFILE_RE"].items():
        fixed_ratio = np.array(points)[:, 1]
        ours = sitka["ours"][name].to_numpy()
        assert_allclose(ours[5], fixed_ratio[5], atol=1e-6)
        away = np.arange(len(ours)) != 5
        assert np.all(ours[away] > fixed_ratio[away])


def test_sitka_profiles_have_crosses_at_the_points_of_statsmodels(sitka):
    for ax, points in zip(sitka["display"].axes_, sitka["PROFILE_RE"].values(), strict=True):
        (crosses,) = (line for line in ax.get_lines() if line.get_marker() == "x")
        assert_allclose(crosses.get_xdata(), np.array(points)[:, 0])
        assert crosses.get_ydata().max() == pytest.approx(0.0, abs=1e-6)


def test_sitka_ozone_is_that_of_r(sitka):
    """lme4 1.1.31 with bobyqa, and pbkrtest."""
    table = inference.coefficient_table(sitka["ozone"], ddf="kenward-roger")
    assert_allclose(
        table["estimate"], [2.1217179129, 0.2216774853, 0.0141472435, -0.0021385105], rtol=1e-6
    )
    assert_allclose(
        table["std_error"], [0.17944764, 0.21704732, 0.00063870302, 0.00077253050], rtol=1e-5
    )


def test_sleepstudy_is_that_of_the_paper(sleepstudy):
    model = sleepstudy["model"]
    covariance = model.coef_covariance_.to_numpy()
    std_error = np.sqrt(covariance.diagonal())
    found = [
        *(-2.0 * model.log_likelihood_, model.intercept_, model.coef_[0], *std_error),
        *(model.intercept_ / std_error[0], model.coef_[0] / std_error[1]),
        covariance[0, 1] / std_error.prod(),
    ]
    assert_prints(found, "1743.6 251.41 10.47 6.82 1.55 36.84 6.77 -0.138")
    assert_prints(sleepstudy["table"]["variance"].iloc[[0, 1, 3]], "612.1 35.1 654.9")
    assert_prints(sleepstudy["table"]["sd"].iloc[[0, 1, 3]], "24.74 5.92 25.59")
    assert_prints(sleepstudy["table"]["correlation"].iloc[2], "0.07")
    quantiles = sleepstudy["scaled"].quantile([0.0, 0.25, 0.5, 0.75, 1.0])
    assert_prints(quantiles, "-3.954 -0.463 0.023 0.463 5.179")


def test_sleepstudy_variances_of_the_paper_are_short_of_the_optimum(sleepstudy):
    """At the paper's variances the criterion is higher, by next to nothing."""
    assert 0.0 < sleepstudy["loss"] < 1e-8
    found = sleepstudy["table"][["variance", "sd"]]
    paper = sleepstudy["PAPER"].set_axis(found.columns, axis=1)
    assert_allclose(found, paper, rtol=3e-5)
    assert (found["variance"] - paper["variance"]).abs().max() > 0.01


def test_sleepstudy_profile_intervals_are_those_of_lme4(sleepstudy):
    r = {
        "sd(intercept|Subject)": (14.38147323, 37.71599172),
        "cor(intercept,Days|Subject)": (-0.48150076, 0.68498625),
        "sd(Days|Subject)": (3.80116427, 8.75338506),
        "sd(noise)": (22.89826688, 28.85799651),
        "intercept": (237.68069551, 265.12951468),
        "Days": (7.35865328, 13.57591875),
    }
    intervals = sleepstudy["intervals"][["lower", "upper"]]
    expected = pd.DataFrame(r, index=["lower", "upper"]).T
    assert_allclose(intervals, expected.loc[intervals.index], atol=2e-4, rtol=0.0)
    assert_prints(intervals["lower"].iloc[1], "-0.48")  # the paper
    assert_allclose(intervals["upper"].iloc[1], 0.68, atol=0.0051)


def test_sleepstudy_bootstrap_interval_of_the_correlation_is_as_wide_as_the_papers(sleepstudy):
    """The paper prints -0.54 to 0.97, of a bootstrap whose seed it does not tell.

    In 2,000 resamples the lower end has a standard deviation of 0.01 around -0.50, the upper end of
    0.03 around 0.92. (The profile ends at 0.68.)
    """
    lower, upper = sleepstudy["bootstrap"].loc["cor(intercept,Days|Subject)", ["lower", "upper"]]
    assert -0.6 < lower < -0.42
    assert upper > 0.75
    resamples = sleepstudy["resamples"]
    assert within_binomial(resamples.n_singular, resamples.n_resamples, 0.02)  # two in a hundred


def test_sleepstudy_tests_are_those_of_the_paper(sleepstudy):
    slopes, correlation = sleepstudy["slopes"], sleepstudy["correlation"]
    assert_prints([slopes.statistic, correlation.statistic], "42.08 0.06")
    assert f"{slopes.p_value:.1e}" == "8.8e-11"
    assert_prints(correlation.p_value, "0.8")
    assert_prints(slopes.table["aic"], "1802 1762")
    assert_prints(slopes.table["bic"], "1815 1778")
    assert_prints(correlation.table["deviance"], "1752 1752")
    assert_prints(correlation.table["aic"].iloc[1], "1764")


def test_sleepstudy_f_values_are_those_of_lme4_and_of_lmertest(sleepstudy):
    assert_prints(sleepstudy["f_lme4"][1:], "46.08 0.66")
    table = inference.anova(sleepstudy["quadratic"], type=1)
    assert_allclose(table["f_value"], [45.8545, 0.65672], rtol=1e-4)  # lmerTest 3.1.3


def test_sleepstudy_shrinkage_is_that_of_lme4(sleepstudy):
    """R's lmList and coef, subjects 308, 330 and 337."""
    subjects = [308, 330, 337]
    assert_allclose(
        sleepstudy["within"].loc[subjects],
        [[244.1927, 21.764702], [289.6851, 3.008073], [290.1041, 19.025974]],
        atol=6e-5,
    )
    assert_allclose(
        sleepstudy["mixed"].loc[subjects],
        [[253.6637, 19.6662617], [275.0957, 5.6529356], [286.2956, 19.0955511]],
        atol=3e-4,
    )


def test_sleepstudy_pictures_show_all_subjects(sleepstudy):
    assert len(sleepstudy["lines"].axes_) == 18
    assert len(sleepstudy["caterpillar"].axes_) == 2
    assert len(sleepstudy["zeta"].axes_) == 6
    assert len(sleepstudy["effects"].axes_) == 2


def test_sleepstudy_spread_is_reproduced_as_in_the_paper(sleepstudy):
    """The paper's share of 1,000 simulated data sets is 0.78; the page simulates 10,000."""
    assert same_share(round(10_000 * sleepstudy["share"]), 10_000, 780, 1_000)


def test_sleepstudy_measurements_narrow_the_predictions_of_a_new_subject(sleepstudy):
    model = sleepstudy["model"]
    assert_allclose(sleepstudy["before"], model.intercept_ + model.coef_[0] * np.arange(10))
    assert (sleepstudy["after_std"] < sleepstudy["before_std"]).all()
    assert (sleepstudy["after"] < sleepstudy["before"]).all()


def test_sleepstudy_from_the_baseline_is_that_of_lme4(sleepstudy):
    table = inference.coefficient_table(sleepstudy["from_baseline"])
    assert_allclose(table["estimate"], [245.096562, 11.435429], rtol=1e-7)
    assert_allclose(table["std_error"], [9.2599562, 1.8452424], rtol=1e-4)


def test_dyestuff_is_that_of_the_book(dyestuff):
    reml, ml = dyestuff["reml"], dyestuff["ml"]
    deviations = [
        *(reml.covariances_["Batch"].iloc[0, 0] ** 0.5, reml.noise_variance_**0.5),
        *(ml.covariances_["Batch"].iloc[0, 0] ** 0.5, ml.noise_variance_**0.5),
    ]
    assert_prints(deviations, "42.00 49.51 37.26 49.51")
    assert_prints(-2.0 * reml.log_likelihood_, "319.6543")
    found = [ml.aic(), ml.bic(), ml.log_likelihood_, -2.0 * ml.log_likelihood_]
    assert_prints(found, "333.3271 337.5307 -163.6635 327.3271")
    assert_allclose(-2.0 * reml.log_likelihood_, 319.65427684225216, rtol=1e-12)  # MixedModels.jl


def test_dyestuff_estimates_are_those_of_the_analysis_of_variance(dyestuff):
    fitted, by_hand = dyestuff["fitted"], dyestuff["squares"]
    assert_allclose(fitted, by_hand[fitted.index], rtol=1e-9)
    assert_prints(by_hand["variance between, REML"], "1764.05")
    blups = dyestuff["reml"].random_effects_["Batch"]["intercept"]
    assert_allclose(blups, dyestuff["factor"] * dyestuff["distance"], rtol=1e-7)
    # R's ranef
    assert_prints(blups, "-17.60685 0.39126 28.56223 -23.08454 56.73319 -44.99529")


def test_dyestuff_exact_test_is_the_f_test(dyestuff):
    test = dyestuff["test"]
    assert_prints(test.statistic, "6.369")  # RLRsim, which simulates a p-value of 0.004
    assert_prints(dyestuff["p_value"], "0.004")
    n = test.n_resamples
    counts = [round(test.p_value * (n + 1)) - 1, round(test.zero_share * n)]
    assert within_binomial(counts, n, [dyestuff["p_value"], dyestuff["p_zero"]])


def test_dyestuff2_is_that_of_mixedmodels_jl(dyestuff):
    ml = dyestuff["singular_ml"]
    assert ml.is_singular_
    assert ml.converged_
    assert ml.covariances_["Batch"].iloc[0, 0] == 0.0
    found = [
        *(-2.0 * ml.log_likelihood_, ml.noise_variance_**0.5, ml.intercept_),
        ml.coef_covariance_.iloc[0, 0] ** 0.5,
    ]
    expected = [162.87303665382575, 3.653231351374652, 5.6656, 0.6669857396443261]
    assert_allclose(found, expected, rtol=1e-12)


def test_dyestuff2_is_the_linear_model(dyestuff):
    """The numbers of R's lm, and those of least squares on the page."""
    singular, least_squares = dyestuff["singular"], dyestuff["ols"]
    assert_prints(-2.0 * singular.log_likelihood_, "161.8")
    assert_prints(dyestuff["singular_ml"].log_likelihood_, "-81.43651833")
    assert_prints(singular.log_likelihood_, "-80.91413891")
    assert_prints([singular.intercept_, singular.noise_variance_**0.5], "5.6656 3.716")
    table = inference.coefficient_table(singular)
    assert_prints(table[["std_error", "t_value", "df"]].iloc[0], "0.6784 8.352 29")
    assert_allclose(singular.intercept_, least_squares.coef_[0], rtol=1e-13)
    assert_allclose(singular.log_likelihood_, dyestuff["restricted"], rtol=1e-12)
    assert_allclose(dyestuff["singular_ml"].log_likelihood_, dyestuff["log_likelihood"], rtol=1e-12)
    assert_allclose(dyestuff["mean"], least_squares.predict(np.ones((3, 1))), rtol=1e-13)
    assert_allclose(dyestuff["std"], np.sqrt(dyestuff["noise"] * 31.0 / 30.0), rtol=1e-12)


def test_dyestuff2_intervals_are_those_of_the_closed_form(dyestuff):
    intervals = dyestuff["intervals"][["lower", "upper"]]
    assert_allclose(intervals.loc["intercept"], dyestuff["by_formula"], rtol=1e-7)
    assert intervals.loc["sd(intercept|Batch)", "lower"] == 0.0
    assert_prints(intervals.loc["sd(intercept|Batch)", "upper"], "2.0840")  # lme4 1.1.31


def test_dyestuff2_exact_test_counts_the_zeros(dyestuff):
    assert dyestuff["test2"].statistic == 0.0
    assert dyestuff["test2"].p_value == 1.0
