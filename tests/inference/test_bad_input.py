"""What the functions of inference refuse: every message names what is at fault, and what to do."""

import inspect
import traceback

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from mixedlearn import MixedLinearRegressor, inference, lmer
from mixedlearn.datasets import load_pastes, load_sleepstudy
from mixedlearn.exceptions import NoGroupsWarning

SLEEP = load_sleepstudy().frame
X, Y = SLEEP[["Days", "Subject"]], SLEEP["Reaction"]
MODELS = {
    "intercepts": lmer("Reaction ~ Days + (1 | Subject)", SLEEP),
    "slopes": lmer("Reaction ~ Days + (Days | Subject)", SLEEP),
    "ml": lmer("Reaction ~ Days + (1 | Subject)", SLEEP, reml=False),
    "two factors": lmer("strength ~ 1 + (1 | batch/cask)", load_pastes().frame),
}
with pytest.warns(NoGroupsWarning):
    MODELS["least squares"] = lmer("Reaction ~ Days", SLEEP)


def refused(call, message, error=ValueError):
    """The call is refused with this message, and with no other error beneath it."""
    with pytest.raises(error, match=message) as caught:
        call()
    text = "".join(traceback.format_exception(caught.value))
    assert "During handling" not in text
    assert "direct cause" not in text


# Of every function, arguments that follow the estimator.
ARGUMENTS = {
    "contrast_test": ([1.0, 0.0],),
    "influence": (X, Y),
    "likelihood_ratio_test": (MODELS["slopes"],),
    "bootstrap_lrt": (MODELS["slopes"], None),
    "model_matrix": (X,),
    "parametric_bootstrap": (X,),
    "prediction_intervals": (X,),
    "marginal_slopes": ("Days",),
    "profile_likelihood": ("Days",),
    "residuals": (X, Y),
    "robust_covariance": (X, Y),
}
FUNCTIONS = [name for name in inference.__all__ if not inspect.isclass(getattr(inference, name))]
PIPELINE = make_pipeline(MixedLinearRegressor(formula="Days + (1 | Subject)"))
NOT_A_MODEL = [
    (PIPELINE.fit(X, Y), TypeError, r"got Pipeline: pass the last step .*pipeline\[-1\]"),
    (GridSearchCV(PIPELINE, {}), TypeError, "got GridSearchCV: .*best_estimator_"),
    (LinearRegression(), TypeError, "Expected a fitted MixedLinearRegressor, got LinearRegression"),
    (MixedLinearRegressor, TypeError, "got the class MixedLinearRegressor"),
    (None, TypeError, "Expected a fitted MixedLinearRegressor, got NoneType"),
    (MixedLinearRegressor(), NotFittedError, "not fitted yet"),
]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("estimator", "error", "message"), NOT_A_MODEL, ids=[str(case[1:]) for case in NOT_A_MODEL]
)
def test_what_is_no_fitted_model(name, estimator, error, message):
    function = getattr(inference, name)
    refused(lambda: function(estimator, *ARGUMENTS.get(name, ())), message, error)


@pytest.mark.parametrize(
    ("estimator", "error", "message"), NOT_A_MODEL, ids=[str(case[1:]) for case in NOT_A_MODEL]
)
def test_the_second_model_of_a_comparison(estimator, error, message):
    test = inference.likelihood_ratio_test
    refused(lambda: test(MODELS["slopes"], estimator), message, error)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_raised_is_documented(name):
    raised = inspect.getdoc(getattr(inference, name)).partition("Raises\n------\n")[2]
    assert {"TypeError", "NotFittedError"} <= set(raised.split("\n\n")[0].split())


LEVEL = "level must be a probability between 0 and 1, got"


@pytest.mark.parametrize("level", [95, 0, 1, -0.5, "0.9", None, np.nan, True])
@pytest.mark.parametrize(
    "call",
    [
        lambda model, level: inference.coefficient_table(model, level=level),
        lambda model, level: inference.contrast_test(model, [1.0, 0.0], level=level),
        lambda model, level: inference.confidence_intervals(model, level=level),
        lambda model, level: inference.random_effects_table(model, level=level),
        lambda model, level: model.summary(level=level),
    ],
)
def test_levels(call, level):
    refused(lambda: call(MODELS["slopes"], level), LEVEL)


@pytest.mark.parametrize("ddf", ["Kenward-Roger", "KR", None, 3])
@pytest.mark.parametrize(
    "call",
    [
        lambda model, ddf: inference.coefficient_table(model, ddf),
        lambda model, ddf: inference.contrast_test(model, [1.0, 0.0], ddf),
        lambda model, ddf: inference.anova(model, ddf=ddf),
        lambda model, ddf: model.summary(ddf=ddf),
    ],
)
def test_methods_for_degrees_of_freedom(call, ddf):
    message = f"ddf={ddf!r} is not a method.*'satterthwaite', 'kenward-roger', 'residual', 'normal'"
    refused(lambda: call(MODELS["slopes"], ddf), message)


# (function, model, positional arguments, keyword arguments, message)
CASES = [
    # contrasts
    ("contrast_test", ([1.0],), {}, r"L has shape \(1,\), but there are 2 coefficients"),
    ("contrast_test", ([1.0, 0.0, 0.0],), {}, r"L has shape \(3,\).*intercept, Days"),
    ("contrast_test", ([[1.0, 0.0], [1.0]],), {}, "L must hold numbers: an array of shape"),
    ("contrast_test", ("Days",), {}, "L must hold numbers: an array of shape.* a dict"),
    ("contrast_test", ({"Days": "one"},), {}, "L must hold numbers"),
    ("contrast_test", ({},), {}, "L names no coefficient: give a weight"),
    ("contrast_test", ({"days": 1.0},), {}, "coefficient 'days'.* Did you mean 'Days'"),
    ("contrast_test", ({"(Intercept)": 1.0},), {}, r"Did you mean 'intercept'\? Its coef"),
    ("contrast_test", ({"zzz": 1.0},), {}, "does not have. Its coefficients are: 'intercept', 'D"),
    ("contrast_test", ([1.0, np.nan],), {}, "L has values that are not finite"),
    ("contrast_test", ([1.0, 0.0],), {"rhs": "zero"}, "rhs must hold numbers"),
    ("contrast_test", ([1.0, 0.0],), {"rhs": [1.0, 2.0]}, r"rhs has shape \(2,\), but L has 1 row"),
    ("contrast_test", ([1.0, 0.0],), {"rhs": np.inf}, "rhs has values that are not finite"),
    ("contrast_test", ([[1, 0], [2, 0]],), {"rhs": [1, 3]}, "contradict each other: leave out"),
    # analysis of variance, tables
    ("anova", (), {"type": 4}, "type=4 is not a type of hypotheses: use 1, 2 or 3"),
    ("anova", (), {"type": "iii"}, "type='iii' is not a type"),
    ("anova", (MODELS["intercepts"],), {}, "anova takes one model: likelihood_ratio_test compares"),
    ("coefficient_covariance", ("kr",), {}, "kind='kr' is unknown: use 'model', "),
    # profiles
    ("profile_likelihood", ("days",), {}, r"no parameter 'days'. Did you mean 'Days'\? Its"),
    ("profile_likelihood", (".sig01",), {}, r"no parameter '.sig01'. Its .*'sd\(intercept\|Sub"),
    ("profile_likelihood", (0,), {}, "no parameter 0. Its parameters are"),
    ("profile_likelihood", (["Days"],), {}, r"no parameter \['Days'\]"),
    ("profile_likelihood", ("sd(noise)",), {"values": [-1.0]}, "cannot be: it lies between 0 and"),
    ("profile_likelihood", ("sd(noise)",), {"values": "a"}, "values must hold numbers"),
    ("profile_likelihood", ("sd(noise)",), {"values": []}, "values must be one-dim.* not empty"),
    ("profile_likelihood", ("sd(noise)",), {"n_points": 0}, "n_points must be a positive integer"),
    ("profile_likelihood", ("sd(noise)",), {"n_points": 2.5}, "n_points must be .*got 2.5"),
    ("profile_likelihood", ("sd(noise)",), {"scale": "var"}, "scale must be 'sd' or 'variance'"),
    ("profile_likelihood", ("Days",), {"scale": "variance"}, "'Days' is none: leave it out"),
    ("profile_likelihood", ("Days",), {"reml": True}, "over the fixed effect 'Days'.*reml=False"),
    # intervals
    ("confidence_intervals", ("days",), {}, "no parameter 'days'. Did you mean 'Days'"),
    ("confidence_intervals", (0.9,), {}, "names must be a name or a list of names, got 0.9"),
    ("confidence_intervals", ([],), {}, "names is empty: name a parameter"),
    ("confidence_intervals", (), {"method": "boot", "X": X}, "method must be .*got 'boot'"),
    ("confidence_intervals", (), {"X": X}, "X: for method='bootstrap' only, not for 'wald'"),
    ("confidence_intervals", (), {"n_resamples": 9}, "n_resamples: for method='bootstrap' only"),
    ("confidence_intervals", (), {"reml": True}, "reml=True is for method='profile'.* leave it"),
    ("confidence_intervals", (), {"method": "bootstrap"}, "needs the rows of the fit: pass X="),
    (
        "confidence_intervals",
        (),
        {"method": "bootstrap", "X": X, "statistic": len},
        "statistic must be left out: use parametric_bootstrap",
    ),
    (
        "confidence_intervals",
        ("Days",),
        {"method": "profile", "reml": True},
        "over the fixed effect 'Days'.*reml=False",
    ),
    # the bootstrap
    ("parametric_bootstrap", (X.head(9),), {}, "X has 9 rows.* fitted to 180: pass the rows"),
    ("parametric_bootstrap", (X,), {"n_resamples": 0}, "n_resamples must be a positive integer"),
    ("parametric_bootstrap", (X,), {"statistic": "coef"}, "must be a function.*got 'coef'"),
    ("parametric_bootstrap", (X,), {"statistic": lambda m: "a"}, "must return a number.*got str"),
    ("parametric_bootstrap", (X,), {"random_state": "a"}, "random_state must be None.*got 'a'"),
    ("parametric_bootstrap", (X,), {"groups": Y}, r"groups were passed.*write \(1 \| column\)"),
    # rows
    ("influence", (X, np.log(Y)), {}, "not the rows of the fit: y differs. Pass the X, y"),
    ("influence", (X.head(9), Y.head(9)), {}, "they are 9 of positive weight, but .* to 180"),
    ("influence", (X.assign(Days=0.0), Y), {}, "the column 'Days' differs"),
    ("influence", (X[["Days"]], Y), {}, "no column 'Subject', which the formula"),
    ("influence", (X, Y), {"by": "obs"}, r"by='obs' is no grouping factor: give 'row' .*'Subject'"),
    ("residuals", (X, Y.head(3)), {}, "X has 180 rows, y has 3"),
    ("residuals", (X, Y), {"kind": "pearson"}, "one of 'conditional', .*got 'pearson'"),
    ("residuals", (X, Y), {"sample_weight": np.full(180, 2.0)}, "the weights differ"),
    ("model_matrix", (X[["Subject"]],), {}, "no column 'Days', which the formula"),
    ("model_matrix", (X.to_numpy(),), {}, "X must be a DataFrame, got ndarray"),
    # exact tests
    ("exact_restricted_lrt", ("Subject", "Days"), {}, 'fit the model with covariance="diagonal"'),
    ("exact_restricted_lrt", ("subject",), {}, "no grouping factor 'subject': .*'Subject'"),
    ("exact_restricted_lrt", ("Subject", "x"), {}, "no random effect 'x': its effects are 'inter"),
    ("exact_restricted_lrt", (), {}, "'intercept', 'Days': one variance is tested at a time"),
    ("exact_restricted_lrt", (), {"n_resamples": 1.5}, "n_resamples must be .*got 1.5"),
    ("exact_restricted_lrt", (), {"random_state": "a"}, "random_state must be None.*got 'a'"),
    ("exact_lrt", (), {"n_resamples": 0}, "n_resamples must be a positive integer, got 0"),
]


@pytest.mark.parametrize(("name", "arguments", "options", "message"), CASES)
def test_arguments(name, arguments, options, message):
    function = getattr(inference, name)
    refused(lambda: function(MODELS["slopes"], *arguments, **options), message)


@pytest.mark.parametrize(
    ("name", "model", "options", "message"),
    [
        ("exact_restricted_lrt", "least squares", {}, "no random effects: there is no variance"),
        ("exact_lrt", "least squares", {}, "no random effects: there is no variance"),
        ("exact_restricted_lrt", "two factors", {}, "'batch', 'batch:cask': one variance"),
        ("exact_lrt", "intercepts", {"fixed_effects": ["x"]}, "'x', but .* 'intercept', 'Days'"),
        ("exact_lrt", "intercepts", {"fixed_effects": "Days"}, "a list of names, got 'Days'"),
        ("coefficient_table", "ml", {"ddf": "kenward-roger"}, "reml=False: fit it with reml=True"),
    ],
)
def test_models_that_a_function_is_not_for(name, model, options, message):
    refused(lambda: getattr(inference, name)(MODELS[model], **options), message)


@pytest.mark.parametrize(
    ("formulas", "options", "message"),
    [
        (("(1 | Subject)", "(1 | Subject)"), {}, "The two models are the same"),
        (("(1 | Subject)", "(0 + Days | Subject)"), {}, "not nested.*'intercept' of 'Subject'"),
        (("Days + (1 | Subject)", "I(Days**2) + (Days | Subject)"), {}, "fixed effect 'Days'"),
        (
            ("(Days | Subject)", "poly(Days, 3) + diag(Days | Subject, hom = TRUE)"),
            {},
            "not nested.*a variance for each random effect of 'Subject'",
        ),
        (
            ("1 + (1 | Subject)", "Days + (1 | Subject)"),
            {"refit": False},
            "different fixed effects cannot be compared; .*lacks 'Days'. Use refit=True",
        ),
    ],
)
def test_comparisons_of_models_that_do_not_compare(formulas, options, message):
    first, second = (lmer(f"Reaction ~ {own}", SLEEP) for own in formulas)
    refused(lambda: inference.likelihood_ratio_test(first, second, **options), message)


@pytest.mark.parametrize(
    ("other", "options", "message"),
    [
        (lambda: MODELS["ml"], {"refit": False}, "One .* by REML, the other by ML.*refit=True"),
        (
            lambda: lmer("Reaction ~ Days + (1 | Subject)", SLEEP.head(90)),
            {},
            "different data: .*to 180 rows, the other to 90|to 90 rows, the other to 180",
        ),
        (
            lambda: lmer("log(Reaction) ~ Days + (1 | Subject)", SLEEP),
            {},
            "different responses .*: fit both to the same y",
        ),
        (
            lambda: lmer(
                "Reaction ~ Days + (1 | Subject)", SLEEP, sample_weight=np.full(len(SLEEP), 2.0)
            ),
            {},
            "different sample weights: fit both with the same",
        ),
    ],
)
def test_comparisons_of_different_fits(other, options, message):
    call = inference.likelihood_ratio_test
    refused(lambda: call(MODELS["slopes"], other(), **options), message)


def test_a_name_twice():
    twice = pd.Series([1.0, 2.0], index=["Days", "Days"])
    refused(lambda: inference.contrast_test(MODELS["slopes"], twice), "'Days' twice: name it once")


def test_rows_of_an_interval_of_a_bootstrap():
    result = inference.parametric_bootstrap(MODELS["intercepts"], X, n_resamples=3, random_state=0)
    refused(lambda: result.confidence_interval(95), LEVEL)
    refused(lambda: result.confidence_interval(kind="bca"), "'percentile', 'basic' or 'normal'")
