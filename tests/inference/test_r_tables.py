"""Tables and tests of fixed effects, variances and comparisons against the R of inference.json.

Tolerances. Everything is held to six digits, and most of it agrees to nine and more: the fits here
and there are at the same optimum. What R knows less well itself:

- Satterthwaite's degrees of freedom, where lmerTest takes derivatives numerically: seven digits;
- p-values, which magnify the errors of F and of its degrees of freedom by the logarithm of p;
- contrasts of type III, which lmerTest rounds to about eight digits.

So p-values get five digits. A covariance that is zero but for rounding is measured in the standard
errors of its two coefficients.
"""

import numpy as np
import pytest

from mixedlearn import lmer
from mixedlearn.exceptions import DegenerateModelWarning
from mixedlearn.inference import (
    anova,
    coefficient_covariance,
    coefficient_table,
    confidence_intervals,
    contrast_test,
    drop1,
    information_criteria,
    likelihood_ratio_test,
    variance_table,
)
from mixedlearn.inference._models import model_of
from mixedlearn.inference._variance_parameters import variance_parameters
from reference.inference import (
    DDF,
    MODELS,
    REFERENCE,
    WAYS,
    close,
    entries,
    fitted,
    names_in_r,
    rows,
    training,
    unfitted,
)

CRITERION = 1e-8
RTOL = 1e-6
P_RTOL = 1e-5
F_FIELDS = ("sum_sq", "mean_sq", "num_df", "den_df", "f", "p")


def in_r(table):
    """Columns of a table of F tests by R's names."""
    return table.rename(columns={"f_value": "f", "p_value": "p"})


def assert_same_f_tests(table, expected):
    """A table of F tests against one of the file, row by row."""
    for field in F_FIELDS:
        close(in_r(table)[field], expected[field], P_RTOL if field == "p" else RTOL)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model_id", MODELS)
def test_columns_and_formula_are_the_model_that_lme4_fitted(model_id, way):
    model, fit = MODELS[model_id], fitted(model_id, way)
    assert -2.0 * fit.log_likelihood_ == pytest.approx(model["criterion"], abs=CRITERION)
    assert -2.0 * fit.log_likelihood_ < model["lme4_default_criterion"] + CRITERION
    assert names_in_r(fit.coef_covariance_.index) == model["coef_names"]
    close(np.append(fit.intercept_, fit.coef_), model["coef"], RTOL)
    assert_same_covariance(fit.coef_covariance_, model["coef_covariance"])
    assert list(fit.covariances_) == list(model["random_covariances"])
    for name, covariance in model["random_covariances"].items():
        close(fit.covariances_[name], covariance, RTOL)
    close(fit.noise_variance_, model["noise_variance"], RTOL)


def assert_same_covariance(found, expected):
    errors = np.sqrt(np.diag(expected))
    close(found / np.outer(errors, errors), expected / np.outer(errors, errors), RTOL, RTOL)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("entry", entries("coefficient_tables", "ddf"))
def test_coefficient_tables(entry, way):
    fit = fitted(entry["model"], way)
    table = coefficient_table(fit, ddf=DDF[entry["ddf"]])
    assert names_in_r(table.index) == entry["coef_names"]
    for ours, theirs in [("estimate",) * 2, ("std_error",) * 2, ("df",) * 2, ("t_value", "t")]:
        close(table[ours], entry[theirs], RTOL)
    close(table["p_value"], entry["p"], P_RTOL)
    if entry["ddf"] == "Kenward-Roger":
        found = coefficient_covariance(fit, "kenward-roger")
        assert_same_covariance(found, entry["coef_covariance"])
    elif entry["df_precise"][0] is not None:
        close(table["df"], entry["df_precise"], 1e-7)


@pytest.mark.parametrize("entry", entries("anova", "type", "ddf"))
def test_anova(entry):
    table = anova(fitted(entry["model"], "formula"), type=entry["type"], ddf=DDF[entry["ddf"]])
    assert list(table.index) == entry["terms"]
    assert_same_f_tests(table, entry)


@pytest.mark.parametrize("entry", entries("anova", "type", "ddf"))
def test_hypotheses_of_anova_given_as_contrasts(entry):
    fit = fitted(entry["model"])
    for i, rows_of_term in enumerate(entry["contrasts"]):
        test = contrast_test(fit, rows_of_term, ddf=DDF[entry["ddf"]])
        close(test.f_value, entry["f"][i], RTOL)
        assert test.num_df == entry["num_df"][i]
        close(test.den_df, entry["den_df"][i], RTOL)
        close(test.p_value, entry["p"][i], P_RTOL)


@pytest.mark.parametrize(
    "entry", entries("anova", "type", "ddf", where=lambda own: own["model"] == "crossed-reml")
)
def test_terms_of_a_model_by_columns_are_its_columns(entry):
    # The model of the list whose terms have a column each.
    table = anova(fitted(entry["model"]), type=entry["type"], ddf=DDF[entry["ddf"]])
    assert list(table.index) == entry["terms"]
    assert_same_f_tests(table, entry)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("entry", entries("contrasts", "ddf"))
def test_contrasts(entry, way):
    test = contrast_test(
        fitted(entry["model"], way), entry["contrasts"], ddf=DDF[entry["ddf"]], rhs=entry["rhs"]
    )
    together, alone = entry["f_test"], entry["t_tests"]
    assert test.num_df == together["num_df"]
    close(test.den_df, together["den_df"], RTOL)
    close(test.f_value, together["f"], RTOL)
    close(test.p_value, together["p"], P_RTOL)
    for field in ("estimate", "std_error", "df", "lower", "upper"):
        close(test.rows[field], alone[field], RTOL)
    close(test.rows["t_value"], alone["t"], RTOL)
    close(test.rows["p_value"], alone["p"], P_RTOL)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("entry", entries("wald_intervals"))
def test_wald_intervals(entry, way):
    fit = fitted(entry["model"], way)
    names = list(fit.coef_covariance_.index)
    table = confidence_intervals(fit, names, level=entry["level"])
    assert names_in_r(table.index) == entry["coef_names"]
    close(table["lower"], entry["lower"], RTOL)
    close(table["upper"], entry["upper"], RTOL)


def names_of_component(component):
    """Factor and effects as `variance_table` has them."""
    effect, other = component["effect"], component["other"]
    if effect is None:
        return "noise", ""
    return component["factor"], effect if effect == other else f"{other},{effect}"


@pytest.mark.parametrize("entry", entries("variance_components"))
def test_variance_components(entry):
    table = variance_table(fitted(entry["model"])).set_index(["factor", "effects"])
    names = [names_of_component(component) for component in entry["components"]]
    assert set(table.index) == set(names)
    close(table.loc[names, "variance"], entry["estimates"], RTOL)
    close(table.loc[names, "std_error"], entry["std_errors"], RTOL)


@pytest.mark.parametrize("entry", entries("variance_components"))
def test_covariances_of_the_variance_components(entry):
    model = model_of(fitted(entry["model"]))
    local = variance_parameters(model)
    factors = model.specification.factors
    changes = []
    for component in entry["components"]:
        if component["effect"] is None:
            changes.append(local.noise_changes)
            continue
        k = model.specification.factor_names.index(component["factor"])
        i, j = (factors[k].effects.index(component[key]) for key in ("effect", "other"))
        changes.append(local.covariance_changes[k][:, i, j])
    found = np.array(changes) @ local.covariance @ np.array(changes).T
    assert_same_covariance(found, entry["covariance"])


def test_the_standard_error_of_a_variance_that_sas_prints():
    table = variance_table(fitted("sleepstudy-slope-reml")).set_index("effects")
    assert round(table.loc["intercept", "std_error"], 1) == 288.8


@pytest.mark.parametrize("entry", entries("criteria"))
def test_criteria(entry):
    fit = fitted(entry["model"])
    found = information_criteria(fit)
    for ours, theirs in [
        ("log_likelihood", "log_likelihood"),
        ("n_parameters", "npar"),
        ("aic", "aic"),
        ("bic", "bic"),
        ("n_rows", "n_rows"),
        ("df_residual", "df_residual"),
    ]:
        assert found[ours] == pytest.approx(entry[theirs], abs=CRITERION)
    assert [fit.aic(), fit.bic()] == pytest.approx([entry["aic"], entry["bic"]], abs=CRITERION)


@pytest.mark.parametrize("entry", entries("criteria"))
def test_the_other_criterion_at_the_estimates(entry):
    stem = entry["model"].rsplit("-", 1)[0]
    theta = fitted(entry["model"]).theta_
    for reml, key in [("ml", "ml_deviance"), ("reml", "reml_criterion")]:
        found = -2.0 * fitted(f"{stem}-{reml}").log_likelihood(theta)
        assert found == pytest.approx(entry[f"{key}_at_estimates"], abs=CRITERION)
    by_ml = information_criteria(fitted(f"{stem}-ml"))[["n_parameters", "aic"]]
    assert list(by_ml) == pytest.approx(entry["extract_aic"], abs=CRITERION)


# Two models each; of models that are not nested by the names of their columns below.
COMPARED = [
    pytest.param(entry, i, id=f"{entry['models'][i - 1]}-{entry['models'][i]}")
    for entry in REFERENCE["comparisons"]
    for i in range(1, len(entry["models"]))
    if entry["models"][i - 1 : i + 1] != ["cake-plus-temp-ml", "cake-plus-temperature-ml"]
]


def assert_same_comparison(test, entry, i):
    here = slice(i - 1, i + 1)
    assert test.df == entry["df"][i]
    assert test.statistic == pytest.approx(entry["chisq"][i], abs=CRITERION)
    close(test.p_value, entry["p"][i], RTOL)
    table = test.table.rename(columns={"n_parameters": "npar"})
    for field in ("npar", "aic", "bic", "log_likelihood", "deviance"):
        close(table[field], entry[field][here], rtol=0.0, atol=CRITERION)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("entry", "i"), COMPARED)
def test_comparisons(entry, i, way):
    models = [fitted(name, way) for name in entry["models"][i - 1 : i + 1]]
    test = likelihood_ratio_test(*models, refit=False)
    assert not test.is_refitted
    assert_same_comparison(test, entry, i)


@pytest.mark.parametrize(
    ("entry", "i"), [own for own in COMPARED if own.values[0]["models"][0].endswith("-ml")]
)
def test_models_by_reml_are_compared_by_ml(entry, i):
    models = [
        unfitted(name).set_params(reml=True).fit(**training(name))
        for name in entry["models"][i - 1 : i + 1]
    ]
    test = likelihood_ratio_test(*models)
    assert test.is_refitted
    assert_same_comparison(test, entry, i)


def test_comparison_with_a_covariate_that_categories_span():
    # A line through the temperatures is nested in a mean for each; beside the means it is a column
    # too many.
    entry = next(
        own for own in REFERENCE["comparisons"] if "cake-plus-temperature-ml" in own["models"]
    )
    smaller, larger = (fitted(name, "formula") for name in entry["models"][:2])
    assert_same_comparison(likelihood_ratio_test(smaller, larger, refit=False), entry, 1)
    formula = "angle ~ recipe + temp + temperature + (1 | recipe:replicate)"
    with pytest.warns(DegenerateModelWarning, match=r"temperature\[T.225\]"):
        both = lmer(formula, rows(entry["models"][0]), reml=False)
    assert_same_comparison(likelihood_ratio_test(smaller, both, refit=False), entry, 1)


@pytest.mark.parametrize("key", ["model", "f_model"])
@pytest.mark.parametrize("entry", entries("dropped_terms"))
def test_dropped_terms(entry, key):
    # By ML, whether the model was fitted by ML or REML.
    table = drop1(fitted(entry[key], "formula"))
    assert list(table.index) == ["<none>", *entry["terms"]]
    close(table["df"].astype(float), entry["npar"], rtol=0.0)
    close(table["aic"], entry["aic"], rtol=0.0, atol=CRITERION)
    close(table["lrt"], entry["lrt"], rtol=0.0, atol=CRITERION)
    close(table["p_value"], entry["p"], RTOL)


@pytest.mark.parametrize("kind", [2, 3])
@pytest.mark.parametrize("ddf", DDF)
@pytest.mark.parametrize("entry", entries("dropped_terms"))
def test_f_tests_of_dropped_terms(entry, ddf, kind):
    # Of a term that no other contains, the types II and III test the same.
    table = anova(fitted(entry["f_model"], "formula"), type=kind, ddf=DDF[ddf])
    assert_same_f_tests(table.loc[entry["terms"]], entry["f_tests"][ddf])
