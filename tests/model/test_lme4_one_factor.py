"""The estimator against lme4: every model of reference/one_factor.json, and the printed table.

Tolerances. The stored optima have gradients below 3e-8, so their criteria are exact to rounding and
their estimates to nine digits or so. The criterion is quadratic at the optimum: an estimate that is
off by ``d`` of its standard errors costs about ``d^2``, so that a criterion within 1e-7 alone would
only say that the estimates have three to four digits. They are held to six, each in the unit that
makes an error mean something: the standard deviation of the random effect, the standard error of
the coefficient, or the size of the predictions. Observed errors are below 3e-10.
"""

import functools
import json
import warnings

import numpy as np
import pandas as pd
import pytest

from mixedlearn import MixedLinearRegressor, datasets
from reference import FOLDER

CRITERION = 1e-7  # minus twice the log-likelihood, absolute
ESTIMATES = 1e-6  # theta, variances, coefficients, BLUPs: in their natural unit
PREDICTIONS = 1e-7  # relative: means are better determined than what they are made of

MODELS = {
    model["id"]: model for model in json.loads((FOLDER / "one_factor.json").read_text())["models"]
}


def rows(model):
    """The columns of X, the group column among them, and the response."""
    frame = getattr(datasets, f"load_{model['data_set']}")().frame.copy()
    for name, expression in (model["derived_columns"] or {}).items():
        frame[name] = frame.eval(expression)
    return frame.drop(columns=model["target"]), frame[model["target"]]


def regressor(model, **changes):
    parameters = {
        name: model[name]
        for name in (
            "groups",
            "fixed_effects",
            "random_intercept",
            "random_slopes",
            "covariance",
            "fit_intercept",
            "reml",
        )
    }
    return MixedLinearRegressor(**(parameters | changes))


@functools.cache
def fitted(name):
    model = MODELS[name]
    X, y = rows(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return regressor(model).fit(X, y, sample_weight=model["weights"])


def deviations(covariance):
    """Standard deviations to measure errors in; one where they are zero."""
    sizes = np.sqrt(np.diag(covariance))
    return np.where(sizes > 0.0, sizes, 1.0)


def test_the_file_holds_every_model():
    assert len(MODELS) == 36


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]


@pytest.fixture
def fit(model):
    return fitted(model["id"])


def test_criterion(model, fit):
    assert -2.0 * fit.log_likelihood_ == pytest.approx(model["criterion"], abs=CRITERION)
    assert -2.0 * fit.log_likelihood_ <= model["lme4_default_criterion"] + CRITERION
    assert fit.converged_
    assert 1 <= fit.n_iter_ <= fit.max_iter


def test_criterion_at_their_theta(model, fit):
    found = -2.0 * fit.log_likelihood(model["theta"])
    assert found == pytest.approx(model["criterion"], abs=CRITERION)


def test_variance_components(model, fit):
    np.testing.assert_allclose(fit.theta_, model["theta"], rtol=ESTIMATES, atol=ESTIMATES)
    assert fit.noise_variance_ == pytest.approx(model["noise_variance"], rel=ESTIMATES)
    expected = np.array(model["random_covariance"])
    (name,) = fit.covariances_
    assert name == model["groups"]
    sizes = np.outer(deviations(expected), deviations(expected))
    error = (fit.covariances_[name].to_numpy() - expected) / sizes
    np.testing.assert_allclose(error, 0.0, atol=ESTIMATES)
    zero = np.linalg.matrix_rank(expected / sizes, tol=1e-6) < len(expected)
    assert fit.is_singular_ == zero


def test_coefficients(model, fit):
    covariance = np.array(model["coef_covariance"])
    errors = deviations(covariance)
    coef = np.append([fit.intercept_] if model["fit_intercept"] else [], fit.coef_)
    np.testing.assert_allclose(coef / errors, np.array(model["coef"]) / errors, atol=ESTIMATES)
    if not model["fit_intercept"]:
        assert fit.intercept_ == 0.0
    found = fit.coef_covariance_
    np.testing.assert_allclose(np.sqrt(np.diag(found)), errors, rtol=ESTIMATES)
    scaled = (found.to_numpy() - covariance) / np.outer(errors, errors)
    np.testing.assert_allclose(scaled, 0.0, atol=ESTIMATES)
    names = ["intercept" if name == "(Intercept)" else name for name in model["coef_names"]]
    assert list(found.index) == list(found.columns) == names


def test_random_effects(model, fit):
    name = model["groups"]
    blups = fit.random_effects_[name]
    assert [str(level) for level in blups.index] == model["levels"]
    assert fit.n_groups_ == {name: model["n_levels"]}
    names = ["intercept" if name == "(Intercept)" else name for name in model["effect_names"]]
    assert list(blups.columns) == names
    sizes = deviations(np.array(model["random_covariance"]))
    error = (blups.to_numpy() - np.array(model["random_effects"])) / sizes
    np.testing.assert_allclose(error, 0.0, atol=ESTIMATES)
    expected = np.array(model["random_effects_covariances"])
    error = (fit.random_effects_covariances_[name] - expected) / np.outer(sizes, sizes)
    np.testing.assert_allclose(error, 0.0, atol=ESTIMATES)


def test_predictions(model, fit):
    X, _ = rows(model)
    found = fit.predict(X.head(5))
    np.testing.assert_allclose(found, model["conditional_predictions"], rtol=PREDICTIONS)
    found = fit.predict(X.head(5), random_effects="none")
    np.testing.assert_allclose(found, model["population_predictions"], rtol=PREDICTIONS)


def test_groups_beside_X_give_the_same_fit(model, fit):
    X, y = rows(model)
    labels = X.pop(model["groups"])
    beside = regressor(model, groups=None)
    beside.fit(X, y, groups=labels, sample_weight=model["weights"])
    assert beside.log_likelihood_ == fit.log_likelihood_
    np.testing.assert_array_equal(beside.theta_, fit.theta_)
    np.testing.assert_array_equal(beside.coef_, fit.coef_)
    assert beside.random_effects_[model["groups"]].equals(fit.random_effects_[model["groups"]])


@pytest.mark.parametrize(
    "name", [name for name, model in MODELS.items() if model["covariance"] == "diagonal"]
)
def test_a_mask_of_the_diagonal_is_the_diagonal(name):
    model = MODELS[name]
    X, y = rows(model)
    masked = regressor(model, covariance=[[True, False], [False, True]]).fit(X, y)
    assert -2.0 * masked.log_likelihood_ == pytest.approx(model["criterion"], abs=CRITERION)
    np.testing.assert_allclose(masked.theta_, model["theta"], rtol=ESTIMATES)
    np.testing.assert_allclose(
        masked.covariances_[model["groups"]],
        fitted(name).covariances_[model["groups"]],
        rtol=ESTIMATES,
    )


# What the programs print for the same models, by REML: criterion, variances and covariance of the
# random effects (lower triangle by columns), noise variance; as many digits as are printed here.
PRINTED = [
    ("dietox-intercept-reml", 4809.55067, ["40.39"], "11.37"),
    ("dietox-slope-reml", 4434.09492, ["19.49345", ".29383", ".416062"], "6.037450"),
    ("dietox-slope-diagonal-reml", 4434.69613, ["19.84087", "0", ".423383"], "6.028198"),
    ("sitka-intercept-reml", 164.77681, [".37451"], ".03921"),
    ("sitka-slope-reml", 124.96688912, [".646457", "-.00140594", "7.31667e-6"], ".0264416"),
    ("dyestuff-reml", 319.65428, ["1764.05"], "2451.25"),
    ("dyestuff2-reml", 161.82828, ["0"], "13.81"),
    ("sleepstudy-slope-reml", 1743.62827, ["612.0899", "9.6043", "35.0717"], "654.941"),
    ("sleepstudy-slope-diagonal-reml", 1743.66929, None, None),
]


def half_a_digit(text):
    """Half a unit of the last printed digit, with room for its rounding."""
    mantissa, _, exponent = text.partition("e")
    places = len(mantissa.partition(".")[2]) - int(exponent or 0)
    return 0.5000001 * 10.0**-places


@pytest.mark.parametrize(("name", "criterion", "covariance", "noise"), PRINTED)
def test_printed_values(name, criterion, covariance, noise):
    fit = fitted(name)
    assert -2.0 * fit.log_likelihood_ == pytest.approx(criterion, abs=1e-5)
    if covariance is None:
        return
    matrix = fit.covariances_[MODELS[name]["groups"]].to_numpy()
    found = matrix.T[np.triu_indices(len(matrix))]
    for value, text in zip([*found, fit.noise_variance_], [*covariance, noise], strict=True):
        if text == "0":
            assert value == 0.0
        else:
            assert value == pytest.approx(float(text), abs=half_a_digit(text))


def test_a_variance_of_zero_is_exactly_zero():
    fit = fitted("dyestuff2-reml")
    assert fit.is_singular_
    assert fit.theta_.tolist() == [0.0]
    assert fit.covariances_["Batch"].to_numpy().tolist() == [[0.0]]
    assert not fit.random_effects_["Batch"].to_numpy().any()
    assert not fit.random_effects_covariances_["Batch"].any()


def test_cake_with_treatment_coding():
    # angle ~ recipe * temperature + (1 | recipe:replicate): the label of a batch is a column.
    cake = datasets.load_cake().frame
    X = pd.get_dummies(cake[["recipe", "temperature"]].astype(str), drop_first=True, dtype=float)
    recipes = [name for name in X if name.startswith("recipe")]
    temperatures = [name for name in X if name.startswith("temperature")]
    for recipe in recipes:
        for temperature in temperatures:
            X[f"{recipe}:{temperature}"] = X[recipe] * X[temperature]
    batch = cake["recipe"].astype(str) + ":" + cake["replicate"].astype(str)
    model = MixedLinearRegressor().fit(X, cake["angle"], groups=batch.rename("batch"))
    assert -2.0 * model.log_likelihood_ == pytest.approx(1633.24618, abs=1e-5)
    assert model.n_groups_ == {"batch": 45}
    assert model.converged_
