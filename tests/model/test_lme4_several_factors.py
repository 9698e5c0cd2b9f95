"""The estimator against lme4, several grouping factors: every model of several_factors.json.

Tolerances. The stored criteria are exact to rounding: 1e-11 for the small models and 1e-9 for
insteval, where minus twice the log-likelihood is a quarter of a million. The estimator promises to
be within 1e-8 of the minimum. The criterion is quadratic there: an estimate that is off by ``d`` of
its standard errors costs about ``d^2``, so 1e-8 stands for ``d`` of 1e-4. The last Newton step ends
far closer than that, hence estimates are held to 1e-5, those of insteval, where rounding hides a
``d`` of 3e-5 from lme4 as well, to 1e-4; each in the unit that makes an error mean something: the
standard deviation of the random effect, the standard error of the coefficient, or the size of the
predictions. Criteria get 1e-6 and 1e-5, as far as the usual printouts go.
"""

import functools
import json
import warnings

import numpy as np
import pandas as pd
import pytest

from mixedlearn import MixedLinearRegressor, datasets
from reference import FOLDER

REFERENCE = json.loads((FOLDER / "several_factors.json").read_text(encoding="utf-8"))
MODELS = {model["id"]: model for model in REFERENCE["models"]}
SINGULAR = ("crossed-zero-variance", "crossed-perfect-correlation", "crossed-slopes-rank-two")


def tolerances(model):
    """Of the criterion (absolute), the estimates (in their unit), the predictions (relative)."""
    return (1e-5, 1e-4, 1e-5) if model["data_set"] == "insteval" else (1e-6, 1e-5, 1e-6)


def rows(model):
    """The columns of X, the group columns among them, and the response."""
    if model["data_set"] is not None:
        frame = getattr(datasets, f"load_{model['data_set']}")().frame.copy()
    else:
        frame = pd.DataFrame(REFERENCE["data"][model["data"]])
    for name, expression in (model["derived_columns"] or {}).items():
        frame[name] = frame.eval(expression)
    return frame.drop(columns=model["target"]), frame[model["target"]]


def weights_of(model, X):
    return None if model["weights"] is None else X[model["weights"]].to_numpy()


def columns_of(model):
    """The columns of every factor, by its name; a tuple where it is an interaction."""
    groups = [tuple(group) if isinstance(group, list) else group for group in model["groups"]]
    return {":".join(group) if isinstance(group, tuple) else group: group for group in groups}


def regressor(model, **changes):
    parameters = {
        name: model[name]
        for name in (
            "fixed_effects",
            "random_intercept",
            "random_slopes",
            "covariance",
            "fit_intercept",
            "reml",
        )
    }
    parameters["groups"] = list(columns_of(model).values())
    return MixedLinearRegressor(**(parameters | changes))


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


def test_the_file_holds_every_model():
    assert len(MODELS) == 30
    assert {model["reml"] for model in MODELS.values()} == {True, False}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]


@pytest.fixture
def fit(model):
    return fitted(model["id"])


def test_criterion(model, fit):
    tolerance, _, _ = tolerances(model)
    assert fit.log_likelihood_ == pytest.approx(model["log_likelihood"], abs=tolerance / 2.0)
    assert -2.0 * fit.log_likelihood_ <= model["lme4_default_criterion"] + tolerance
    assert fit.converged_


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
    assert fit.is_singular_ == model["id"].startswith(SINGULAR)


def test_coefficients(model, fit):
    _, tolerance, _ = tolerances(model)
    covariance = np.array(model["coef_covariance"])
    errors = deviations(covariance)
    coef = np.append(fit.intercept_, fit.coef_)
    np.testing.assert_allclose(coef / errors, np.array(model["coef"]) / errors, atol=tolerance)
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


def test_the_order_of_the_factors_does_not_matter(model, fit):
    backwards = list(reversed(columns_of(model).values()))
    if len(backwards) == 1 or (model["data_set"] == "insteval" and not model["reml"]):
        pytest.skip("one factor, or a large fit whose twin is enough")
    found = fit_without_warnings(regressor(model, groups=backwards), model, *rows(model))
    assert found.converged_
    assert found.is_singular_ == fit.is_singular_
    assert_same_fit(found, fit, model)


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


# What lme4 and other programs print for the same models.
PRINTED = [
    ("penicillin-reml", 330.86059),
    ("pastes-reml", 246.99075),
    ("cake-reml", 1633.24618),
    ("insteval-reml", 237733.834128),
    ("insteval-ml", 237721.768776),
]


@pytest.mark.parametrize(("name", "criterion"), PRINTED)
def test_printed_values(name, criterion):
    assert -2.0 * fitted(name).log_likelihood_ == pytest.approx(criterion, abs=1e-5)
