"""Information criteria and likelihood-ratio tests against separate fits; refusals."""

import numpy as np
import pytest
from scipy.stats import chi2
from sklearn.exceptions import NotFittedError

from mixedlearn import MixedLinearRegressor
from mixedlearn.datasets import load_dyestuff, load_sleepstudy
from mixedlearn.inference import drop1, likelihood_ratio_test
from mixedlearn.inference.deletions import droppable
from mixedlearn.specification import Term
from reference.two_factors import MODELS, dense_at, draw, fit

SLOPE = {"groups": "g", "random_slopes": ["x1"]}


def without(model, **parameters):
    return {**model, **parameters}


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    ("model", "n_parameters"), [("intercept", 5), ("slope", 7), ("crossed", 8), ("scalar", 6)]
)
def test_criteria_of_the_dense_likelihood(model, n_parameters, reml):
    rows = draw()
    est = fit(rows, model, reml=reml)
    deviance = dense_at(est, rows, reml=reml).objective
    assert est.aic() == pytest.approx(deviance + 2 * n_parameters)
    assert est.bic() == pytest.approx(deviance + np.log(len(rows)) * n_parameters)


def test_aliased_columns_are_no_parameters():
    X, y = load_sleepstudy(return_X_y=True)
    plain = MixedLinearRegressor(groups="Subject").fit(X, y)
    with pytest.warns(UserWarning, match="aliased"):
        aliased = MixedLinearRegressor(groups="Subject").fit(X.assign(twice=2 * X["Days"]), y)
    assert aliased.bic() == pytest.approx(plain.bic())
    with pytest.raises(NotFittedError):
        MixedLinearRegressor().aic()


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("smaller", "larger", "df"),
    [
        ({"groups": "g", "fixed_effects": ["x1"]}, {"groups": "g"}, 1),
        ({"groups": "g"}, SLOPE, 2),
        (without(SLOPE, covariance="diagonal"), SLOPE, 1),
        ({"groups": "g"}, without(SLOPE, covariance="diagonal"), 1),
        (without(SLOPE, covariance="scalar"), without(SLOPE, covariance="diagonal"), 1),
        ({"groups": "h", "fixed_effects": ["x2"]}, "crossed", 4),
        ({"groups": "h"}, {"groups": ["g", "h"]}, 1),
    ],
)
def test_statistic_and_table_are_those_of_fits_by_maximum_likelihood(smaller, larger, df, swapped):
    rows = draw(1)
    fits = [fit(rows, model) for model in (smaller, larger)]
    by_ml = [fit(rows, model, reml=False) for model in (smaller, larger)]
    test = likelihood_ratio_test(*(fits[::-1] if swapped else fits))
    statistic = 2.0 * (by_ml[1].log_likelihood_ - by_ml[0].log_likelihood_)
    assert test.statistic == pytest.approx(statistic, abs=1e-6)
    assert test.df == df
    assert test.p_value == pytest.approx(chi2.sf(statistic, df), rel=1e-5)
    assert test.is_refitted
    assert test.is_converged
    assert test.likelihood == "ML"
    for row, est in zip(["smaller", "larger"], by_ml, strict=True):
        assert test.table.loc[row, "aic"] == pytest.approx(est.aic())
        assert test.table.loc[row, "bic"] == pytest.approx(est.bic())
        assert test.table.loc[row, "log_likelihood"] == pytest.approx(est.log_likelihood_)
        assert test.table.loc[row, "deviance"] == pytest.approx(-2.0 * est.log_likelihood_)
    assert test.table["n_parameters"].diff().iloc[1] == test.table.loc["larger", "df"] == df
    already = likelihood_ratio_test(*by_ml)
    assert already.statistic == pytest.approx(statistic)
    assert not already.is_refitted


@pytest.mark.parametrize(
    ("smaller", "larger", "covariances"),
    [
        ({"groups": "g"}, SLOPE, 1),
        ({"groups": "g"}, without(SLOPE, covariance="diagonal"), 0),
        ({"groups": "h"}, {"groups": ["g", "h"]}, 0),
        ({"groups": "h"}, {"groups": ["g", "h"], "random_slopes": {"g": ["x1"]}}, None),
        (without(SLOPE, covariance="diagonal"), SLOPE, None),
        (without(SLOPE, covariance="scalar"), without(SLOPE, covariance="diagonal"), None),
        ({"groups": "g", "fixed_effects": ["x1"]}, SLOPE, None),
        ({}, {"groups": "g", "random_slopes": ["x1"], "covariance": "scalar"}, 0),
    ],
)
@pytest.mark.filterwarnings("ignore::mixedlearn.exceptions.NoGroupsWarning")
def test_mixture_is_given_where_one_variance_is_tested(smaller, larger, covariances):
    rows = draw(2)
    rows["y"] -= 0.8 * (rows["y"] - rows["x1"])  # less variance of the random effects
    test = likelihood_ratio_test(*(fit(rows, model) for model in (smaller, larger)))
    if covariances is None:
        assert np.isnan(test.p_value_mixture)
        return
    below = chi2.sf(test.statistic, covariances) if covariances else float(test.statistic <= 0)
    above = chi2.sf(test.statistic, covariances + 1)
    assert test.p_value_mixture == pytest.approx((below + above) / 2.0)
    assert "mixture" in str(test)


def test_restricted_likelihoods_of_the_same_fixed_effects():
    rows = draw(3)
    smaller, larger = fit(rows, "intercept"), fit(rows, "slope")
    test = likelihood_ratio_test(smaller, larger, refit=False)
    assert test.likelihood == "REML"
    assert not test.is_refitted
    expected = 2.0 * (larger.log_likelihood_ - smaller.log_likelihood_)
    assert test.statistic == pytest.approx(expected)
    assert "restricted" in str(test)
    with pytest.raises(ValueError, match=r"different fixed effects.*lacks 'x2'"):
        likelihood_ratio_test(fit(rows, without(SLOPE, fixed_effects=["x1"])), larger, refit=False)
    with pytest.raises(ValueError, match="One model was fitted by REML, the other by ML"):
        likelihood_ratio_test(fit(rows, "intercept", reml=False), larger, refit=False)


def test_a_variance_of_zero_has_a_statistic_of_zero():
    X, y = load_dyestuff(return_X_y=True)
    half = y.to_numpy() - y.groupby(X["Batch"]).transform("mean").to_numpy()
    est = MixedLinearRegressor(groups="Batch").fit(X, half)
    with pytest.warns(UserWarning, match="no groups"):
        none = MixedLinearRegressor(fixed_effects=[]).fit(X, half)
    test = likelihood_ratio_test(none, est)
    assert test.statistic == 0.0
    assert test.p_value == test.p_value_mixture == 1.0


def test_different_data_are_refused():
    rows = draw(4)
    est = fit(rows, "slope")
    other = {
        "one to 69 rows, the other to 70": rows[1:],
        "different sample weights": rows.assign(w=2.0 * rows["w"]),
        "different responses": rows.assign(y=rows["y"] + 1e-3),
    }
    for message, data in other.items():
        with pytest.raises(ValueError, match=message):
            likelihood_ratio_test(fit(data, "intercept"), est)
    shuffled = rows.sample(frac=1.0, random_state=0)
    assert likelihood_ratio_test(fit(shuffled, "intercept"), est).df == 2


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ({"groups": "g", "fixed_effects": ["x1"]}, without(SLOPE, fixed_effects=["x2"]), "'x1'"),
        ({"groups": "h"}, SLOPE, "the grouping factor 'h'"),
        (
            without(SLOPE, random_intercept=False),
            {"groups": "g", "fixed_effects": []},
            "effect 'inter",
        ),
        (
            {"groups": "g", "random_slopes": ["x2"], "fixed_effects": []},
            SLOPE,
            "the random effect 'x2' of 'g'",
        ),
        (
            without(SLOPE, fixed_effects=["x1"]),
            without(SLOPE, covariance="diagonal"),
            "covariance of 'intercept' and 'x1' of 'g'|'x2'",
        ),
        ({"groups": "g", "fixed_effects": []}, without(SLOPE, covariance="scalar"), "a variance"),
    ],
)
def test_models_that_are_not_nested_are_refused(one, other, message):
    rows = draw(5)
    first, second = fit(rows, one), fit(rows, other)
    with pytest.raises(ValueError, match=f"not nested.*({message})"):
        likelihood_ratio_test(first, second)
    with pytest.raises(ValueError, match=f"not nested.*({message})"):
        likelihood_ratio_test(second, first)


def test_the_same_model_is_refused():
    rows = draw(6)
    with pytest.raises(ValueError, match="the same"):
        likelihood_ratio_test(fit(rows, "slope"), fit(rows, "slope", reml=False))
    with pytest.raises(TypeError, match="got str"):
        likelihood_ratio_test("model", fit(rows, "slope"))


def test_aliased_columns_leave_nothing_to_test():
    rows = draw(7).assign(x2=lambda own: 2.0 * own["x1"])
    smaller = fit(rows, {"groups": "g", "fixed_effects": ["x1"]})
    with pytest.warns(UserWarning, match="aliased"):
        larger = fit(rows, "intercept")
    with pytest.warns(UserWarning, match="likelihood_ratio_test cannot test 'x2'"):
        test = likelihood_ratio_test(smaller, larger)
    assert test.df == 0
    assert np.isnan(test.p_value)
    with pytest.warns(UserWarning, match="drop1 cannot test .*'x2'"):
        table = drop1(larger)
    assert table.loc["x2", "df"] == 0
    assert np.isnan(table.loc["x2", "p_value"])


@pytest.mark.slow_cases("elimination")
@pytest.mark.filterwarnings("ignore::mixedlearn.exceptions.NoGroupsWarning")
@pytest.mark.parametrize(
    ("model", "used"), [*((name, "joint") for name in MODELS), ("scalar", "elimination")]
)
def test_drop1_against_fits_without_the_column(model, used, use_engine):
    use_engine(used)
    rows = draw(8)
    est = fit(rows, model)
    table = drop1(est)
    assert list(table.index) == ["<none>", "x1", "x2"]
    whole = fit(rows, model, reml=False)
    assert table.loc["<none>", "aic"] == pytest.approx(whole.aic())
    for dropped, kept in (("x1", "x2"), ("x2", "x1")):
        other = fit(rows, model, reml=False, fixed_effects=[kept])
        statistic = 2.0 * (whole.log_likelihood_ - other.log_likelihood_)
        assert table.loc[dropped, "lrt"] == pytest.approx(statistic, abs=1e-6)
        assert table.loc[dropped, "aic"] == pytest.approx(other.aic())
        assert table.loc[dropped, "p_value"] == pytest.approx(chi2.sf(statistic, 1), rel=1e-4)
        assert table.loc[dropped, "df"] == 1


def test_drop1_without_terms_or_intercept():
    rows = draw(9)
    assert list(drop1(fit(rows, {"groups": "g", "fixed_effects": []})).index) == ["<none>"]
    est = fit(rows, {"groups": "g", "fixed_effects": ["x1"], "fit_intercept": False})
    table = drop1(est)
    none = fit(rows, {"groups": "g", "fixed_effects": [], "fit_intercept": False}, reml=False)
    assert table.loc["x1", "aic"] == pytest.approx(none.aic())


def test_terms_that_others_contain_are_not_dropped():
    def term(*variables):
        return Term(":".join(variables), (0,), frozenset(variables), frozenset(), np.eye(1))

    terms = (term("a"), term("b"), term("c"), term("a", "b"))
    assert [own.name for own in droppable(terms)] == ["c", "a:b"]


def test_an_exact_fit_has_no_ratio():
    rows = draw(10).assign(y=lambda own: own["x1"])
    with pytest.warns(UserWarning, match="reproduce the response exactly"):
        smaller, larger = fit(rows, "intercept"), fit(rows, "slope")
    with pytest.warns(UserWarning, match="reproduce the response exactly"):
        other = fit(rows, "slope")
    test = likelihood_ratio_test(smaller, other)
    assert np.isnan(test.statistic)
    assert np.isnan(test.p_value)
    assert str(test)
    assert np.isnan(drop1(larger).loc["x2", "lrt"])


def test_it_prints_as_a_table():
    rows = draw(11)
    test = likelihood_ratio_test(fit(rows, "intercept"), fit(rows, "slope"))
    text = str(test)
    assert "refitted by ML" in text
    assert "larger" in text
    assert "nan" not in text.lower()
    assert "<table" in test._repr_html_()
    assert "refitted by ML" in test._repr_html_()
