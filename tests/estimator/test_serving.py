"""Estimators that are saved: slim ones, the version that saved them, and formats beside pickle."""

import copy
import io
import pickle
import warnings
from contextlib import nullcontext

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import mixedlearn
from mixedlearn import MixedLinearRegressor, inference, lmer, plot
from mixedlearn.datasets import load_sleepstudy
from mixedlearn.exceptions import InconsistentVersionWarning
from mixedlearn.residual import AR1, Stratified

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
RNG = np.random.default_rng(0)
N = 240


def frame_of(n, seed, most):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal([50.0, 0.0, 3.0, 0.0], 1.0, (n, 4)), columns=list("vwxz"))
    frame["g"], frame["h"] = rng.integers(0, most, n), rng.integers(0, 5, n)
    frame["t"] = [f"level {own}" for own in frame["g"]]
    effects = np.random.default_rng(7).standard_normal((60, 2))[frame["g"]]
    frame["y"] = 1e3 + frame["v"] - frame["w"] + 2.0 * frame["x"] + effects[:, 0]
    frame["y"] += effects[:, 1] * frame["x"] + rng.standard_normal(n)
    return frame


FITTED, LATER = frame_of(N, 0, 20), frame_of(40, 1, 30)
SPECIFIED = {
    "intercepts": {"groups": "g", "fixed_effects": ["v", "w", "x", "z"]},
    "slopes": {"groups": "t", "fixed_effects": ["v", "x"], "random_slopes": ["x", "w"]},
    "no fixed intercept": {"groups": "g", "fixed_effects": ["w"], "fit_intercept": False},
    "interaction": {"groups": [("g", "h")], "fixed_effects": ["v"], "random_slopes": ["v"]},
    "two factors": {"groups": ["g", "h"], "fixed_effects": ["v", "x"], "random_slopes": {"h": "z"}},
}
FORMULAS = {
    "formula": "y ~ v + w + (x | g)",
    "response": "np.log(y) ~ poly(v, 2) + C(h) + (1 | g) + (0 + center(x) | t)",
}
MODELS = [*SPECIFIED, *FORMULAS]
READS_A_FORMULA = {name: FORMULAS[name].startswith("np") for name in FORMULAS}


def fitted(name):
    if name in FORMULAS:
        return lmer(FORMULAS[name], FITTED)
    return MixedLinearRegressor(**SPECIFIED[name]).fit(FITTED.drop(columns="y"), FITTED["y"])


def columns(name, frame):
    return frame if name in FORMULAS else frame.drop(columns="y")


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:The factors")
def test_a_slim_estimator_predicts_and_updates_alike(name, weighted):
    model = fitted(name)
    slim = model.for_serving()
    weights = RNG.uniform(0.5, 2.0, len(LATER)) if weighted else None
    at = columns(name, pd.concat([FITTED.head(30), LATER]))
    for stage in range(3):
        np.testing.assert_allclose(slim.predict(at), model.predict(at), **CLOSE)
        none = {"random_effects": "none"}
        np.testing.assert_allclose(slim.predict(at, **none), model.predict(at, **none), **CLOSE)
        assert slim.score(at, pd.concat([FITTED.head(30), LATER])["y"]) == pytest.approx(
            model.score(at, pd.concat([FITTED.head(30), LATER])["y"])
        )
        assert slim.n_groups_ == model.n_groups_
        for factor, effects in model.random_effects_.items():
            pd.testing.assert_index_equal(slim.random_effects_[factor].index, effects.index)
            np.testing.assert_allclose(slim.random_effects_[factor], effects, **CLOSE)
        for updated in (model, slim):
            part = slice(0, 25) if stage == 0 else slice(25, None)
            updated.update_random_effects(
                columns(name, LATER)[part],
                LATER["y"][part],
                sample_weight=None if weights is None else weights[part],
            )
    # A slim one of the updated estimator is the updated slim one.
    np.testing.assert_allclose(model.for_serving().predict(at), slim.predict(at), **CLOSE)


@pytest.mark.parametrize("name", MODELS)
def test_what_a_slim_estimator_shows(name):
    model = fitted(name)
    slim = model.for_serving()
    assert slim.formula_ == model.formula_
    for attribute in ("coef_", "theta_"):
        np.testing.assert_array_equal(getattr(slim, attribute), getattr(model, attribute))
    for attribute in ("intercept_", "noise_variance_", "log_likelihood_", "converged_"):
        assert getattr(slim, attribute) == getattr(model, attribute)
    for factor, covariance in model.covariances_.items():
        pd.testing.assert_frame_equal(slim.covariances_[factor], covariance)
    # Still an estimator of scikit-learn's, and the other one as it was.
    assert repr(slim) == repr(model)
    assert slim.get_params() == model.get_params()
    assert not hasattr(clone(slim), "n_groups_")
    assert slim.for_serving().predict(columns(name, LATER)).shape == (len(LATER),)
    model.summary()
    again = slim.fit(columns(name, FITTED), FITTED["y"])
    assert str(again.summary()) == str(model.summary())


def test_what_a_slim_estimator_refuses():
    X, y = load_sleepstudy(return_X_y=True)
    slim = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y).for_serving()
    asked = [
        slim.summary,
        slim.aic,
        slim.bic,
        lambda: slim.log_likelihood(slim.theta_),
        lambda: slim.predict(X, return_std=True),
        lambda: slim.sample_y(X),
        slim.sample_random_effects,
        lambda: slim.coef_covariance_,
        lambda: slim.random_effects_covariances_,
        lambda: inference.coefficient_table(slim),
        lambda: inference.coefficient_covariance(slim),
        lambda: inference.variance_table(slim),
        lambda: inference.random_effects_table(slim),
        lambda: inference.confidence_intervals(slim),
        lambda: inference.residuals(slim, X, y),
        lambda: inference.influence(slim, X, y),
        lambda: inference.parametric_bootstrap(slim, X),
        lambda: plot.RandomEffectsDisplay.from_estimator(slim),
        lambda: plot.ResidualsDisplay.from_estimator(slim, X, y),
        lambda: plot.GroupLinesDisplay.from_estimator(slim, X, y),
        lambda: plot.CovarianceDisplay.from_estimator(slim),
    ]
    for ask in asked:
        with pytest.raises(ValueError, match=r"made by for_serving\(\).*Use the estimator that"):
            ask()
    with pytest.raises(ValueError, match="missing labels"):
        slim.update_random_effects(X.assign(Subject=np.nan), y)
    strict = copy.copy(slim).set_params(handle_unknown="error")
    with pytest.raises(ValueError, match="The level 1 of 'Subject'"):
        strict.predict(X.assign(Subject=1))


def test_a_slim_estimator_in_a_pipeline():
    X, y = load_sleepstudy(return_X_y=True)
    pipeline = make_pipeline(
        FunctionTransformer(lambda frame: frame.assign(Days=frame["Days"] / 7.0)),
        MixedLinearRegressor(groups="Subject", random_slopes=["Days"]),
    ).fit(X, y)
    before = pipeline.predict(X)
    pipeline.steps[-1] = (pipeline.steps[-1][0], pipeline[-1].for_serving())
    np.testing.assert_allclose(pipeline.predict(X), before, **CLOSE)
    with pytest.raises(ValueError, match="for_serving"):
        pipeline[-1].summary()


@pytest.mark.filterwarnings("ignore:fit received no groups")
def test_a_slim_estimator_without_random_effects():
    X, y = load_sleepstudy(return_X_y=True)
    model = MixedLinearRegressor().fit(X[["Days"]], y)
    np.testing.assert_allclose(model.for_serving().predict(X[["Days"]]), model.predict(X[["Days"]]))
    assert model.for_serving().n_groups_ == {}


@pytest.mark.filterwarnings("ignore:The fixed effects reproduce", "ignore:Every level of")
def test_slim_estimators_of_degenerate_fits():
    X = FITTED[["v", "g"]]
    exact = MixedLinearRegressor(groups="g").fit(X, 2.0 * X["v"])
    noise = MixedLinearRegressor(groups="own").fit(X[["v"]].assign(own=range(N)), FITTED["y"])
    for model, rows in ((exact, X), (noise, X[["v"]].assign(own=range(N)))):
        slim = model.for_serving()
        for own in (model, slim):
            own.update_random_effects(rows.head(5), FITTED["y"].head(5))
        np.testing.assert_allclose(slim.predict(rows), model.predict(rows), **CLOSE)


def test_a_slim_estimator_does_not_grow_with_the_fixed_effects():
    def sizes(n_columns):
        rng = np.random.default_rng(0)
        g = np.repeat(np.arange(400), 4)
        X = rng.standard_normal((1600, n_columns))
        y = X[:, 0] + rng.standard_normal(400)[g] + rng.standard_normal(1600)
        model = MixedLinearRegressor().fit(X, y, groups=g)
        return len(pickle.dumps(model)), len(pickle.dumps(model.for_serving()))

    (few_full, few_slim), (many_full, many_slim) = sizes(3), sizes(40)
    assert many_full > few_full + 400 * 37 * 8
    # A coefficient and its name; no number for each level.
    assert many_slim < few_slim + 40 * 100
    assert few_slim < few_full


def saved_by(model, version):
    """A pickle of the model as a version would have written it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixedlearn, "__version__", version)
        return pickle.dumps(model)


def test_another_version_is_named():
    X, y = load_sleepstudy(return_X_y=True)
    model = MixedLinearRegressor(groups="Subject").fit(X, y)
    old = saved_by(model, "0.0.7")
    now = mixedlearn.__version__
    message = rf"MixedLinearRegressor was saved by version 0\.0\.7 .* loaded by version {now}"
    with pytest.warns(InconsistentVersionWarning, match=message) as record:
        loaded = pickle.loads(old)
    assert record[0].filename == __file__
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    # It is this version's now: no word of the old one is left.
    pickle.loads(pickle.dumps(loaded))
    with pytest.warns(InconsistentVersionWarning, match=r"0\.0\.7"):
        pickle.loads(saved_by(model.for_serving(), "0.0.7"))
    with pytest.warns(InconsistentVersionWarning, match=r"0\.0\.7"):
        pickle.loads(saved_by(make_pipeline(model), "0.0.7"))


def test_a_state_without_a_version_is_an_earlier_one():
    model = MixedLinearRegressor()
    state = {
        name: value for name, value in model.__getstate__().items() if "mixedlearn" not in name
    }
    with pytest.warns(
        InconsistentVersionWarning, match="saved by an earlier version of mixedlearn"
    ):
        MixedLinearRegressor.__new__(MixedLinearRegressor).__setstate__(state)


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("serving", [False, True])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("package", ["pickle", "joblib", "cloudpickle", "deepcopy"])
def test_saved_and_loaded(package, name, serving):
    model = fitted(name)
    model.update_random_effects(columns(name, LATER.head(7)), LATER["y"].head(7))
    model = model.for_serving() if serving else model
    if package == "deepcopy":
        loaded = copy.deepcopy(model)
    else:
        module = {"pickle": pickle, "joblib": joblib, "cloudpickle": cloudpickle}[package]
        stream = io.BytesIO()
        module.dump(model, stream)
        stream.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = module.load(stream)
    at = columns(name, LATER)
    np.testing.assert_array_equal(loaded.predict(at), model.predict(at))
    for own in (loaded, model):
        own.update_random_effects(at, LATER["y"])
    np.testing.assert_allclose(loaded.predict(at), model.predict(at), **CLOSE)
    assert not any("version" in name for name in vars(loaded))


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("serving", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_skops(name, serving):
    skops = pytest.importorskip("skops.io")
    model = fitted(name)
    model.update_random_effects(columns(name, LATER.head(7)), LATER["y"].head(7))
    model = model.for_serving() if serving else model
    refused = READS_A_FORMULA.get(name, False)
    with pytest.raises(TypeError) if refused else nullcontext():
        data = skops.dumps(model)
    if refused:
        return
    found = skops.get_untrusted_types(data=data)
    assert {own for own in found if not own.startswith("mixedlearn.")} <= {"builtins.frozenset"}
    loaded = skops.loads(data, trusted=found)
    at = columns(name, LATER)
    np.testing.assert_allclose(loaded.predict(at), model.predict(at), **CLOSE)
    if not serving:
        assert str(loaded.summary()) == str(model.summary())
    for own in (loaded, model):
        own.update_random_effects(at, LATER["y"])
    np.testing.assert_allclose(loaded.predict(at), model.predict(at), **CLOSE)


@pytest.mark.parametrize("occasion", [np.float64, lambda day: pd.Categorical(day.astype(str))])
def test_skops_of_a_residual_structure(occasion):
    skops = pytest.importorskip("skops.io")
    study = load_sleepstudy().frame
    study = study.assign(
        occasion=occasion(study["Days"]), half=study["Subject"].isin([308, 309, 310])
    )
    residual = AR1(time="occasion", variance=Stratified(by="half"), within="Subject")
    model = MixedLinearRegressor(fixed_effects=["Days"], groups="Subject", residual=residual)
    X = study[["Days", "Subject", "occasion", "half"]]
    model.fit(X.head(175), study["Reaction"].head(175))
    data = skops.dumps(model)
    found = skops.get_untrusted_types(data=data)
    assert {own for own in found if not own.startswith("mixedlearn.")} <= {"builtins.frozenset"}
    loaded = skops.loads(data, trusted=found)
    later = X.tail(5)
    np.testing.assert_allclose(loaded.predict(later), model.predict(later), **CLOSE)
    assert not np.allclose(loaded.predict(later), model.predict(later, random_effects="none"))
    assert str(loaded.summary(std_error=True)) == str(model.summary(std_error=True))
    for own in (loaded, model):
        own.update_random_effects(later.head(2), study["Reaction"].iloc[175:177])
    np.testing.assert_allclose(loaded.predict(later), model.predict(later), **CLOSE)
