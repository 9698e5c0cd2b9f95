"""The estimator against lme4: every model of one_factor.json and several_factors.json.

Tolerances. The stored criteria are exact to rounding: 1e-11 for the small models and 1e-9 for
insteval, where minus twice the log-likelihood is a quarter of a million. The estimator promises to
be within 1e-8 of the minimum. The criterion is quadratic there: an estimate that is off by ``d`` of
its standard errors costs about ``d^2``, so 1e-8 stands for ``d`` of 1e-4. The last Newton step ends
far closer than that. With one factor, estimates are held to 1e-6 (errors seen are below 3e-10) and
criteria to 1e-7; with several, to 1e-5 and 1e-6, as far as the usual printouts go; those of
insteval, where rounding hides a ``d`` of 3e-5 from lme4 as well, to 1e-4 and 1e-5. Every error is
in the unit that makes it mean something: the standard deviation of the random effect, the standard
error of the coefficient, or the size of the predictions.
"""

import functools
import json
import warnings

import numpy as np
import pandas as pd
import pytest

from mixedlearn import MixedLinearRegressor, datasets
from reference import FOLDER

ONE_FACTOR = json.loads((FOLDER / "one_factor.json").read_text(encoding="utf-8"))
SEVERAL_FACTORS = json.loads((FOLDER / "several_factors.json").read_text(encoding="utf-8"))
SINGULAR = ("crossed-zero-variance", "crossed-perfect-correlation", "crossed-slopes-rank-two")
PARAMETERS = (
    "groups",
    "fixed_effects",
    "random_intercept",
    "random_slopes",
    "covariance",
    "fit_intercept",
    "reml",
)


def columns_of(model):
    """The columns of every factor, by its name; a tuple where it is an interaction."""
    groups = [tuple(group) if isinstance(group, list) else group for group in model["groups"]]
    return {":".join(group) if isinstance(group, tuple) else group: group for group in groups}


def by_factor(model):
    """A model of one factor in the form of those of several: by the name of the factor."""
    name = model["groups"]
    own = {key: {name: model[key]} for key in ("n_levels", "levels", "effect_names", "covariance")}
    for key in ("random_effects", "random_effects_covariances"):
        own[key] = {name: model[key]}
    own["random_covariances"] = {name: model["random_covariance"]}
    return model | own | {"groups": [name]}


# Every model in the form of several_factors.json, and the parameters as its own file has them.
ONE = {
    model["id"]: by_factor(model) | {"parameters": {name: model[name] for name in PARAMETERS}}
    for model in ONE_FACTOR["models"]
}
SEVERAL = {
    model["id"]: model
    | {
        "parameters": {name: model[name] for name in PARAMETERS}
        | {"groups": list(columns_of(model).values())}
    }
    for model in SEVERAL_FACTORS["models"]
}
MODELS = ONE | SEVERAL


def tolerances(model):
    """Of the criterion (absolute), the estimates (in their unit), the predictions (relative)."""
    if model["id"] in ONE:
        return 1e-7, 1e-6, 1e-7
    return (1e-5, 1e-4, 1e-5) if model["data_set"] == "insteval" else (1e-6, 1e-5, 1e-6)


def rows(model):
    """The columns of X, the group columns among them, and the response."""
    if model["data_set"] is not None:
        frame = getattr(datasets, f"load_{model['data_set']}")().frame.copy()
    else:
        frame = pd.DataFrame(SEVERAL_FACTORS["data"][model["data"]])
    for name, expression in (model["derived_columns"] or {}).items():
        frame[name] = frame.eval(expression)
    return frame.drop(columns=model["target"]), frame[model["target"]]


def weights_of(model, X):
    """None, the name of a column, or a weight for every row."""
    weights = model["weights"]
    return X[weights].to_numpy() if isinstance(weights, str) else weights


def regressor(model, **changes):
    return MixedLinearRegressor(**(model["parameters"] | changes))


def fit_without_warnings(estimator, model, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return estimator.fit(X, y, sample_weight=weights_of(model, X))


@functools.cache
def fitted(name):
    model = MODELS[name]
    return fit_without_warnings(regressor(model), model, *rows(model))


def deviations(covariance):
    """Standard deviations to measure errors in; one where they are zero."""
    sizes = np.sqrt(np.diag(covariance))
    return np.where(sizes > 0.0, sizes, 1.0)


def renamed(names):
    return ["intercept" if name == "(Intercept)" else name for name in names]


def as_text(label):
    """A label as the file has it: text, or a tuple of texts for an interaction."""
    return tuple(map(str, label)) if isinstance(label, (list, tuple)) else str(label)


def positions_of_levels(model, name, index):
    """Where the stored levels stand in the index of the BLUPs."""
    position = {as_text(label): i for i, label in enumerate(index)}
    assert len(position) == len(index) == model["n_levels"][name]
    return [position[as_text(label)] for label in model["levels"][name]]


def assert_same_fit(found, expected, model, names=None):
    """The same model fitted in another way; ``names`` maps the factors of one to the other's."""
    absolute, relative, _ = tolerances(model)
    names = names or {name: name for name in expected.covariances_}
    assert found.log_likelihood_ == pytest.approx(expected.log_likelihood_, abs=absolute)
    assert found.noise_variance_ == pytest.approx(expected.noise_variance_, rel=relative)
    errors = deviations(expected.coef_covariance_)
    coefficients = [np.append(fit.intercept_, fit.coef_) for fit in (found, expected)]
    np.testing.assert_allclose(*(coef / errors for coef in coefficients), atol=relative)
    assert set(found.covariances_) == set(names.values())
    for name, other in names.items():
        matrix = expected.covariances_[name]
        sizes = deviations(matrix)
        error = (found.covariances_[other] - matrix) / np.outer(sizes, sizes)
        np.testing.assert_allclose(error, 0.0, atol=relative)
        error = found.random_effects_[other].to_numpy() - expected.random_effects_[name].to_numpy()
        np.testing.assert_allclose(error / sizes, 0.0, atol=relative)


def test_the_files_hold_every_model():
    assert len(ONE) == 36
    assert len(SEVERAL) == 30
    assert {model["reml"] for model in SEVERAL.values()} == {True, False}


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.slow if name.startswith("insteval") else ())
        for name in MODELS
    ]
)
def model(request):
    return MODELS[request.param]


@pytest.fixture
def fit(model):
    return fitted(model["id"])


def test_criterion(model, fit):
    tolerance, _, _ = tolerances(model)
    assert fit.log_likelihood_ == pytest.approx(model["log_likelihood"], abs=tolerance / 2.0)
    assert -2.0 * fit.log_likelihood_ == pytest.approx(model["criterion"], abs=tolerance)
    assert -2.0 * fit.log_likelihood_ <= model["lme4_default_criterion"] + tolerance
    assert fit.converged_
    assert 1 <= fit.n_iter_ <= fit.max_iter


@pytest.mark.parametrize("model", ONE.values(), ids=ONE)
def test_criterion_at_their_theta(model):
    tolerance, estimates, _ = tolerances(model)
    fit = fitted(model["id"])
    found = -2.0 * fit.log_likelihood(model["theta"])
    assert found == pytest.approx(model["criterion"], abs=tolerance)
    np.testing.assert_allclose(fit.theta_, model["theta"], rtol=estimates, atol=estimates)


def test_variance_components(model, fit):
    _, tolerance, _ = tolerances(model)
    assert fit.noise_variance_ == pytest.approx(model["noise_variance"], rel=tolerance)
    assert set(fit.covariances_) == set(columns_of(model)) == set(model["random_covariances"])
    for name, expected in model["random_covariances"].items():
        expected = np.array(expected)
        found = fit.covariances_[name]
        names = renamed(model["effect_names"][name])
        assert list(found.index) == list(found.columns) == names
        sizes = np.outer(deviations(expected), deviations(expected))
        np.testing.assert_allclose((found - expected) / sizes, 0.0, atol=tolerance)
        if model["covariance"][name] == "diagonal":
            assert np.array_equal(found, np.diag(np.diag(found)))


def test_only_the_singular_models_are_singular(model, fit):
    if model["id"] in SEVERAL:
        assert fit.is_singular_ == model["id"].startswith(SINGULAR)
    else:
        (expected,) = map(np.array, model["random_covariances"].values())
        scaled = expected / np.outer(deviations(expected), deviations(expected))
        assert fit.is_singular_ == (np.linalg.matrix_rank(scaled, tol=1e-6) < len(expected))


def test_coefficients(model, fit):
    _, tolerance, _ = tolerances(model)
    covariance = np.array(model["coef_covariance"])
    errors = deviations(covariance)
    coef = np.append([fit.intercept_] if model["fit_intercept"] else [], fit.coef_)
    np.testing.assert_allclose(coef / errors, np.array(model["coef"]) / errors, atol=tolerance)
    if not model["fit_intercept"]:
        assert fit.intercept_ == 0.0
    found = fit.coef_covariance_
    np.testing.assert_allclose(np.sqrt(np.diag(found)), errors, rtol=tolerance)
    scaled = (found.to_numpy() - covariance) / np.outer(errors, errors)
    np.testing.assert_allclose(scaled, 0.0, atol=tolerance)
    assert list(found.index) == list(found.columns) == renamed(model["coef_names"])


def test_random_effects(model, fit):
    _, tolerance, _ = tolerances(model)
    assert fit.n_groups_ == model["n_levels"]
    assert set(fit.random_effects_) == set(fit.random_effects_covariances_) == set(fit.n_groups_)
    for name, n_levels in model["n_levels"].items():
        blups = fit.random_effects_[name]
        covariances = fit.random_effects_covariances_[name]
        n_effects = len(model["effect_names"][name])
        assert list(blups.columns) == renamed(model["effect_names"][name])
        assert blups.shape == (n_levels, n_effects)
        assert covariances.shape == (n_levels, n_effects, n_effects)
        if len(model["levels"][name]) == n_levels:
            assert [as_text(label) for label in blups.index] == [
                as_text(label) for label in model["levels"][name]
            ]
        shown = positions_of_levels(model, name, blups.index)
        sizes = deviations(np.array(model["random_covariances"][name]))
        error = blups.to_numpy()[shown] - np.array(model["random_effects"][name])
        np.testing.assert_allclose(error / sizes, 0.0, atol=tolerance)
        error = covariances[shown] - np.array(model["random_effects_covariances"][name])
        np.testing.assert_allclose(error / np.outer(sizes, sizes), 0.0, atol=tolerance)


def test_levels_are_the_labels_of_the_columns(model, fit):
    X, _ = rows(model)
    for name, columns in columns_of(model).items():
        index = fit.random_effects_[name].index
        if isinstance(columns, tuple):
            assert list(index.names) == list(columns)
            labels = set(X[list(columns)].itertuples(index=False, name=None))
        else:
            assert not isinstance(index, pd.MultiIndex)
            labels = set(X[columns])
        assert set(index) == labels


def test_predictions(model, fit):
    _, _, tolerance = tolerances(model)
    X, _ = rows(model)
    found = fit.predict(X.head(5))
    np.testing.assert_allclose(found, model["conditional_predictions"], rtol=tolerance)
    found = fit.predict(X.head(5), random_effects="none")
    np.testing.assert_allclose(found, model["population_predictions"], rtol=tolerance)


@pytest.mark.parametrize("model", ONE.values(), ids=ONE)
def test_groups_beside_X_give_the_same_fit(model):
    fit = fitted(model["id"])
    X, y = rows(model)
    (name,) = columns_of(model)
    labels = X.pop(name)
    beside = regressor(model, groups=None)
    beside.fit(X, y, groups=labels, sample_weight=model["weights"])
    assert beside.log_likelihood_ == fit.log_likelihood_
    np.testing.assert_array_equal(beside.theta_, fit.theta_)
    np.testing.assert_array_equal(beside.coef_, fit.coef_)
    assert beside.random_effects_[name].equals(fit.random_effects_[name])


# Of insteval one fit is enough, a large one.
@pytest.mark.slow_cases("insteval")
@pytest.mark.parametrize(
    "name",
    [
        name
        for name, model in SEVERAL.items()
        if len(model["groups"]) > 1 and (model["data_set"] != "insteval" or model["reml"])
    ],
)
def test_the_order_of_the_factors_does_not_matter(name):
    model, fit = MODELS[name], fitted(name)
    backwards = list(reversed(columns_of(model).values()))
    found = fit_without_warnings(regressor(model, groups=backwards), model, *rows(model))
    assert found.converged_
    assert found.is_singular_ == fit.is_singular_
    assert_same_fit(found, fit, model)


@pytest.mark.parametrize(
    "name", [name for name in ONE if ONE[name]["parameters"]["covariance"] == "diagonal"]
)
def test_a_mask_of_the_diagonal_is_the_diagonal(name):
    model = MODELS[name]
    criterion, estimates, _ = tolerances(model)
    X, y = rows(model)
    (group,) = columns_of(model)
    masked = regressor(model, covariance=[[True, False], [False, True]]).fit(X, y)
    assert -2.0 * masked.log_likelihood_ == pytest.approx(model["criterion"], abs=criterion)
    np.testing.assert_allclose(masked.theta_, model["theta"], rtol=estimates)
    np.testing.assert_allclose(
        masked.covariances_[group],
        fitted(name).covariances_[group],
        rtol=estimates,
    )


@pytest.mark.parametrize("name", ["pastes-reml", "pastes-ml"])
@pytest.mark.parametrize("groups", [["batch", "sample"], ["sample", "batch"]])
def test_a_column_of_unique_labels_is_the_interaction(name, groups):
    # The cask's label is used again in every batch; the column sample has joined it to the batch's.
    model = MODELS[name]
    X, y = rows(model)
    joined = MixedLinearRegressor(groups=groups, fixed_effects=[], reml=model["reml"])
    fit_without_warnings(joined, model, X, y)
    criterion, _, _ = tolerances(model)
    assert -2.0 * joined.log_likelihood_ == pytest.approx(model["criterion"], abs=criterion)
    assert_same_fit(joined, fitted(name), model, names={"batch": "batch", "batch:cask": "sample"})
    labels = [f"{batch}:{cask}" for batch, cask in fitted(name).random_effects_["batch:cask"].index]
    assert list(joined.random_effects_["sample"].index) == labels
    np.testing.assert_allclose(joined.predict(X), fitted(name).predict(X), rtol=1e-6)


def test_what_is_not_given_by_factor_is_the_default():
    # The dicts of the file name every factor; here only those that differ from the default do.
    model = MODELS["crossed-weighted-reml"]
    assert model["random_intercept"] == {"a": True, "b": False}
    sparse = regressor(model, random_intercept={"b": False}, covariance="full")
    assert_same_fit(fit_without_warnings(sparse, model, *rows(model)), fitted(model["id"]), model)
    model = MODELS["crossed-zero-variance-reml"]
    assert model["random_slopes"] == {"a": ["x"], "b": []}
    sparse = regressor(model, random_intercept=True, random_slopes={"a": ["x"]}, covariance={})
    assert_same_fit(fit_without_warnings(sparse, model, *rows(model)), fitted(model["id"]), model)


@pytest.mark.parametrize("name", ["crossed-zero-variance-reml", "crossed-zero-variance-ml"])
def test_a_variance_of_zero_is_exactly_zero(name):
    fit = fitted(name)
    assert MODELS[name]["random_covariances"]["b"] == [[0.0]]
    assert fit.covariances_["b"].to_numpy().tolist() == [[0.0]]
    assert not fit.random_effects_["b"].to_numpy().any()
    assert not fit.random_effects_covariances_["b"].any()
    # The other factor keeps its own.
    assert np.linalg.eigvalsh(fit.covariances_["a"])[0] > 0.1
    X, _ = rows(MODELS[name])
    found = fit.predict(X, random_effects=["a"])
    np.testing.assert_allclose(found, fit.predict(X), rtol=1e-12)


def test_the_only_variance_is_exactly_zero():
    fit = fitted("dyestuff2-reml")
    assert fit.is_singular_
    assert fit.theta_.tolist() == [0.0]
    assert fit.covariances_["Batch"].to_numpy().tolist() == [[0.0]]
    assert not fit.random_effects_["Batch"].to_numpy().any()
    assert not fit.random_effects_covariances_["Batch"].any()


# What lme4 and other programs print for the same models: the criterion, and, by REML, variances
# and covariance of the random effects (lower triangle by columns) and the noise variance; as many
# digits as are printed here.
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
    ("penicillin-reml", 330.86059, None, None),
    ("pastes-reml", 246.99075, None, None),
    ("cake-reml", 1633.24618, None, None),
    ("insteval-reml", 237733.834128, None, None),
    ("insteval-ml", 237721.768776, None, None),
]


def half_a_digit(text):
    """Half a unit of the last printed digit, with room for its rounding."""
    mantissa, _, exponent = text.partition("e")
    places = len(mantissa.partition(".")[2]) - int(exponent or 0)
    return 0.5000001 * 10.0**-places


@pytest.mark.slow_cases("insteval")
@pytest.mark.parametrize(("name", "criterion", "covariance", "noise"), PRINTED)
def test_printed_values(name, criterion, covariance, noise):
    fit = fitted(name)
    assert -2.0 * fit.log_likelihood_ == pytest.approx(criterion, abs=1e-5)
    if covariance is None:
        return
    (matrix,) = (own.to_numpy() for own in fit.covariances_.values())
    found = matrix.T[np.triu_indices(len(matrix))]
    for value, text in zip([*found, fit.noise_variance_], [*covariance, noise], strict=True):
        if text == "0":
            assert value == 0.0
        else:
            assert value == pytest.approx(float(text), abs=half_a_digit(text))


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
