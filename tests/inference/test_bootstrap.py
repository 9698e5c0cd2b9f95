"""The parametric bootstrap: refits are those of `fit`, draws those of the model.

Tolerance: `fit` stops where less than 1e-8 of the objective is promised and takes one more Newton
step, so two ways to an optimum agree in the objective to 1e-9 and in the parameters to 1e-6 of
their size; what is zero, is zero in both.
"""

import numpy as np
import pandas as pd
import pytest

from helpers.chance import normal_bound, within_chi_squared
from mixedlearn import MixedLinearRegressor
from mixedlearn.data.responses import ResponseColumns
from mixedlearn.datasets import (
    load_dyestuff,
    load_dyestuff2,
    load_penicillin,
    load_sleepstudy,
)
from mixedlearn.estimator.view import FittedView
from mixedlearn.exceptions import DegenerateModelWarning
from mixedlearn.inference import BootstrapResult, confidence_intervals, parametric_bootstrap
from mixedlearn.inference._parameters import parameter_names
from mixedlearn.model import refits
from mixedlearn.model.fit import objective_at
from mixedlearn.model.refits import OneFactorRefitter, Refitter, make_refitter
from mixedlearn.search import batch


def synthetic(n_levels=25, seed=0):
    """Unbalanced levels, two slopes, covariates far from zero."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_levels), rng.integers(1, 9, n_levels))
    X = pd.DataFrame(rng.normal([50.0, -3.0], 1.0, (len(labels), 2)), columns=["u", "v"])
    X["g"] = labels
    effects = rng.standard_normal((n_levels, 3))[labels] * [1.0, 0.8, 0.2]
    y = X["u"] + effects[:, 0] + effects[:, 1] * (X["u"] - 50.0) + effects[:, 2] * (X["v"] + 3.0)
    return X, y + rng.standard_normal(len(X)), rng.uniform(0.3, 3.0, len(X))


def of(load):
    return lambda: (*load(return_X_y=True), None)


SLEEP = {"groups": "Subject", "random_slopes": ["Days"]}
SYNTHETIC = {"groups": "g", "random_slopes": ["u", "v"]}
CHAIN_MASK = [[True, True, True], [True, True, False], [True, False, True]]
# Rows with weights, parameters, number of resamples, whether they are refitted in batches.
MODELS = {
    "sleepstudy": (of(load_sleepstudy), SLEEP, 200, True),
    "likelihood": (of(load_sleepstudy), SLEEP | {"reml": False}, 40, True),
    "diagonal": (of(load_sleepstudy), SLEEP | {"covariance": "diagonal"}, 40, True),
    "scalar": (of(load_sleepstudy), SLEEP | {"covariance": "scalar"}, 40, True),
    "no intercept": (of(load_sleepstudy), SLEEP | {"fit_intercept": False}, 40, True),
    "slope alone": (of(load_sleepstudy), SLEEP | {"random_intercept": False}, 40, True),
    "few levels": (of(load_dyestuff), {"groups": "Batch"}, 60, True),
    "singular": (of(load_dyestuff2), {"groups": "Batch"}, 60, True),
    "weights, three effects": (synthetic, SYNTHETIC, 40, True),
    "masked": (synthetic, SYNTHETIC | {"covariance": CHAIN_MASK}, 10, True),
    "crossed": (of(load_penicillin), {"groups": ["plate", "sample"]}, 30, False),
}


class Simulated:
    """A fitted model, deviations that it generates, and their refits."""

    def __init__(self, name):
        load, self.parameters, n_resamples, self.in_batches = MODELS[name]
        self.X, y, self.weights = load()
        self.model = MixedLinearRegressor(**self.parameters)
        self.model.fit(self.X, y, sample_weight=self.weights)
        self.mean = self.model.predict(self.X, random_effects="none")
        sampled = self.model.sample_y(
            self.X, n_samples=n_resamples, random_state=3, sample_weight=self.weights
        )
        self.deviations = sampled - self.mean[:, None]
        fitted = self.model._fitted.model
        view = FittedView(self.model)
        coded = view.rows(self.X, sample_weight=self.weights).coded(fitted.levels)
        rows = ResponseColumns(fitted.sums, coded)
        self.refitter = make_refitter(fitted, rows)
        self.slow = Refitter(fitted, rows)

    def fit(self, number):
        model = MixedLinearRegressor(**self.parameters)
        y = self.mean + self.deviations[:, number]
        return model.fit(self.X, y, sample_weight=self.weights)


def assert_same_model(found, expected):
    """Two fitted models of the same rows agree."""
    assert found.objective == pytest.approx(expected.objective, abs=1e-8)
    assert found.is_certified == expected.is_certified
    assert found.is_singular == expected.is_singular
    scale = np.sqrt(expected.noise_variance)
    assert found.noise_variance == pytest.approx(expected.noise_variance, rel=1e-6)
    np.testing.assert_allclose(found.coef, expected.coef, rtol=1e-6, atol=1e-6 * scale)
    np.testing.assert_allclose(found.coef_covariance, expected.coef_covariance, rtol=1e-4)
    for k, covariance in enumerate(expected.covariances):
        size = np.sqrt(np.diag(covariance))
        bound = 1e-5 * (np.outer(size, size) + 1e-4 * expected.noise_variance)
        assert (np.abs(found.covariances[k] - covariance) <= bound).all()
        np.testing.assert_allclose(found.blups[k], expected.blups[k], rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.slow_cases("weights, three effects", "few levels", "singular")
@pytest.mark.parametrize("name", MODELS)
def test_refits_are_fits(name):
    simulated = Simulated(name)
    assert isinstance(simulated.refitter, OneFactorRefitter) == simulated.in_batches
    refits = simulated.refitter.refit(simulated.deviations)
    n_singular = 0
    for number in range(simulated.deviations.shape[1]):
        expected = simulated.fit(number)._fitted.model
        found = refits.model(number)
        assert_same_model(found, expected)
        n_singular += expected.is_singular
        # The arrays are those of the models.
        assert refits.is_singular[number] == found.is_singular
        assert refits.is_certified[number] == found.is_certified
        assert refits.noise_variance[number] == pytest.approx(found.noise_variance, rel=1e-9)
        np.testing.assert_allclose(refits.coef[number], found.coef, rtol=1e-9, atol=1e-9)
        for own, covariance in zip(refits.covariances, found.covariances, strict=True):
            np.testing.assert_allclose(own[number], covariance, rtol=1e-9, atol=1e-9)
    if name in ("sleepstudy", "singular", "few levels"):
        assert 0 < n_singular < simulated.deviations.shape[1]


@pytest.mark.parametrize("name", ["sleepstudy", "weights, three effects", "no intercept"])
def test_a_refitted_model_holds_the_cross_products_of_its_response(name):
    simulated = Simulated(name)
    found = simulated.refitter.refit(simulated.deviations[:, :2])
    slow = simulated.slow.refit(simulated.deviations[:, :2])
    for number in range(2):
        own, expected = found.model(number), simulated.fit(number)._fitted.model
        # Their pilot means differ: compare what does not depend on them.
        for share in (0.3, 2.0):
            theta = share * own.user_theta
            assert objective_at(own, theta) == pytest.approx(
                objective_at(expected, theta), abs=1e-7
            )
        assert own.objective == pytest.approx(objective_at(own, own.user_theta), abs=1e-7)
        np.testing.assert_array_equal(own.sums.gram, slow.model(number).sums.gram)
        assert_same_model(own, slow.model(number))


@pytest.mark.parametrize("name", ["sleepstudy", "likelihood", "diagonal", "scalar"])
def test_batched_evaluations_are_those_of_single_engines(name):
    simulated = Simulated(name)
    refitter = simulated.refitter
    sums = refitter._rows.sums(simulated.deviations[:, :5])
    projections = simulated.model._fitted.model.fixed_basis.columns[:-1].T @ sums.columns
    batch = refitter._batch(sums, projections)
    generator = np.random.default_rng(0)
    size = batch.structure.n_parameters
    theta = generator.standard_normal((3, size)) * np.array([1.0, 0.01, 100.0])[:, None]
    chosen = np.array([4, 0, 4])
    found = batch.engine(chosen).evaluate(theta, 2)
    for place, number in enumerate(chosen):
        expected = batch.engine(number).evaluate(theta[place], 2)
        assert found.objective[place] == pytest.approx(expected.objective, rel=1e-12)
        assert found.rounding[place] == pytest.approx(expected.rounding, rel=1e-9)
        scale = np.abs(expected.hessian).max()
        np.testing.assert_allclose(found.gradient[place], expected.gradient, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(
            found.hessian[place], expected.hessian, rtol=1e-9, atol=1e-10 * scale
        )
        fixed = found.fixed.of(place)
        np.testing.assert_allclose(fixed.coef, expected.fixed.coef, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(fixed.inverse_root, expected.fixed.inverse_root, atol=1e-9)
        assert fixed.noise_variance == pytest.approx(expected.fixed.noise_variance, rel=1e-10)


@pytest.mark.parametrize("name", ["sleepstudy", "few levels"])
def test_what_a_batch_does_not_settle_is_settled_all_the_same(name, monkeypatch):
    simulated = Simulated(name)
    expected = simulated.refitter.refit(simulated.deviations[:, :6])
    monkeypatch.setattr(batch, "MAX_STEPS", 1)
    found = simulated.refitter.refit(simulated.deviations[:, :6])
    for number in range(6):
        assert_same_model(found.model(number), expected.model(number))


def test_an_objective_that_cannot_be_computed_is_infinite():
    simulated = Simulated("sleepstudy")
    refitter = simulated.refitter
    sums = refitter._rows.sums(simulated.deviations[:, :2])
    projections = simulated.model._fitted.model.fixed_basis.columns[:-1].T @ sums.columns
    batch = refitter._batch(sums, projections)
    theta = np.array([[1e200, 0.0, 0.0, 1e200], [1.0, 0.0, 0.0, 1.0]])
    with np.errstate(over="ignore", invalid="ignore"):
        found = batch.engine(np.arange(2)).evaluate(theta, 2)
    assert found.objective[0] == np.inf
    assert not found.gradient[0].any()
    assert np.isfinite(found.objective[1])
    assert np.isfinite(found.hessian[1]).all()


# --- the bootstrap -------------------------------------------------------------------------------
def sleepstudy():
    X, y = load_sleepstudy(return_X_y=True)
    return MixedLinearRegressor(**SLEEP).fit(X, y), X, y


def parameters(model):
    """All parameters of a model with one factor of full covariance, from its attributes."""
    ((name, covariance),) = model.covariances_.items()
    effects, values = list(covariance.columns), covariance.to_numpy()
    found = {}
    for j, effect in enumerate(effects):
        found[f"sd({effect}|{name})"] = np.sqrt(values[j, j])
        for i in range(j + 1, len(effects)):
            correlation = values[i, j] / np.sqrt(values[i, i] * values[j, j])
            found[f"cor({effect},{effects[i]}|{name})"] = correlation
    found["sd(noise)"] = np.sqrt(model.noise_variance_)
    coefs = {"intercept": model.intercept_}
    names = [column for column in model.feature_names_in_ if column != name]
    return found | coefs | dict(zip(names, model.coef_, strict=True))


@pytest.mark.parametrize("which", ["sleepstudy", "three effects"])
def test_the_parameters_are_the_default_statistic(which):
    if which == "sleepstudy":
        model, X, _ = sleepstudy()
        weights = None
    else:
        X, y, weights = synthetic()
        model = MixedLinearRegressor(**SYNTHETIC).fit(X, y, sample_weight=weights)
    arguments = {"n_resamples": 30, "random_state": 4, "sample_weight": weights}
    default = parametric_bootstrap(model, X, **arguments)
    chosen = parametric_bootstrap(model, X, statistic=parameters, **arguments)
    assert default.names == chosen.names == list(parameters(model))
    np.testing.assert_allclose(default.estimate, chosen.estimate, rtol=1e-10)
    np.testing.assert_allclose(default.samples, chosen.samples, rtol=1e-8, atol=1e-8)


def test_names_in_the_order_of_lme4():
    model, _, _ = sleepstudy()
    assert parameter_names(model._fitted.model) == [
        "sd(intercept|Subject)",
        "cor(intercept,Days|Subject)",
        "sd(Days|Subject)",
        "sd(noise)",
        "intercept",
        "Days",
    ]


def test_the_distribution_is_that_of_the_estimators():
    """Balanced data: coefficients are normal with known variance, s2 is a multiple of chi squared.

    All bounds together fail in at most one of 10,000 seeds.
    """
    model, X, _ = sleepstudy()
    n, rate = 2000, 2e-5
    result = parametric_bootstrap(model, X, n_resamples=n, random_state=0)
    coefs = ["intercept", "Days"]
    sd = np.sqrt(np.diag(model.coef_covariance_))
    ratios = (result.standard_errors[coefs] / sd) ** 2
    assert within_chi_squared(ratios, n - 1, rate)
    assert (np.abs(result.bias[coefs]) < normal_bound(2, rate) * sd / np.sqrt(n)).all()
    # A standard deviation of samples has an error of its own, which their kurtosis tells.
    kurtosis = result.samples.apply(lambda own: ((own - own.mean()) ** 4).mean() / own.var() ** 2)
    error = np.sqrt((kurtosis - 1.0) / (4.0 * n))
    # lme4 1.1 on R 4.2, bootMer(fm, ..., nsim=2000, seed=1): standard deviations of the samples.
    lme4 = np.array([5.9428, 0.3509, 1.2874, 1.4733, 6.8596, 1.5711])
    bound = normal_bound(len(lme4), rate) * np.sqrt(2.0) * error
    assert (np.abs(np.log(result.standard_errors / lme4)) < bound).all()
    assert (bound < 0.12).all()
    # In regular points the noise variance has 144 degrees of freedom.
    variances = result.samples["sd(noise)"] ** 2
    expected = model.noise_variance_ * np.sqrt(2.0 / 144.0)
    error = np.sqrt((3.0 + 12.0 / 144.0 - 1.0) / (4.0 * n))
    assert variances.std() == pytest.approx(expected, rel=0.02 + normal_bound(1, rate) * error)
    # 2% of the samples are singular, as those of the paper of lme4.
    assert 0 < result.n_singular < 100
    assert result.n_not_converged == 0


@pytest.mark.parametrize(
    ("statistic", "names"),
    [
        (lambda model: model.coef_[0], ["statistic"]),
        (lambda model: model.coef_, ["statistic0"]),
        (lambda model: [1, model.intercept_], ["statistic0", "statistic1"]),
        (lambda model: {"a": model.intercept_, "b": model.coef_[0]}, ["a", "b"]),
        (lambda model: model.random_effects_["Subject"]["Days"].head(3), ["308", "309", "310"]),
        (lambda model: model.predict(load_sleepstudy(return_X_y=True)[0].head(1)), ["statistic0"]),
        (lambda model: model.log_likelihood(model.theta_) - model.log_likelihood_, ["statistic"]),
    ],
)
def test_forms_of_the_statistic(statistic, names):
    model, X, _ = sleepstudy()
    result = parametric_bootstrap(model, X, statistic=statistic, n_resamples=5, random_state=1)
    assert result.names == names
    assert result.samples.shape == (5, len(names))
    expected = statistic(model)
    expected = list(expected.values()) if isinstance(expected, dict) else expected
    np.testing.assert_allclose(result.estimate, np.atleast_1d(expected), atol=1e-7)


def test_the_likelihood_of_a_refit_is_that_of_its_response():
    model, X, _ = sleepstudy()
    result = parametric_bootstrap(
        model,
        X,
        statistic=lambda refit: refit.log_likelihood(refit.theta_) - refit.log_likelihood_,
        n_resamples=20,
        random_state=1,
    )
    assert np.abs(result.samples.to_numpy()).max() < 1e-7


def test_processes_do_not_change_the_samples(monkeypatch):
    monkeypatch.setattr(refits, "MOST_IN_BATCH", 6)
    model, X, _ = sleepstudy()
    first, second = (
        parametric_bootstrap(model, X, n_resamples=20, random_state=0, n_jobs=n_jobs)
        for n_jobs in (1, 2)
    )
    pd.testing.assert_frame_equal(first.samples, second.samples, check_exact=True)
    other = parametric_bootstrap(model, X, n_resamples=20, random_state=1)
    assert (other.samples != first.samples).all(axis=None)
    # More resamples begin with the same ones.
    more = parametric_bootstrap(model, X, n_resamples=21, random_state=0)
    pd.testing.assert_frame_equal(more.samples.head(20), first.samples)


def test_rows_in_any_order_and_labels_beside_them():
    X, y = load_sleepstudy(return_X_y=True)
    model = MixedLinearRegressor().fit(X[["Days"]], y, groups=X["Subject"])
    order = np.random.default_rng(0).permutation(len(X))
    rows = X.iloc[order]
    found = parametric_bootstrap(
        model, rows[["Days"]], groups=rows["Subject"], n_resamples=4, random_state=0
    )
    assert np.isfinite(found.samples).all(axis=None)


def test_an_updated_model_gives_the_samples_of_the_fit():
    model, X, y = sleepstudy()
    arguments = {"n_resamples": 5, "random_state": 0, "statistic": lambda own: own.predict(X)}
    before = parametric_bootstrap(model, X, **arguments)
    model.update_random_effects(X.head(5).assign(Subject=999), y.head(5))
    after = parametric_bootstrap(model, X, **arguments)
    np.testing.assert_allclose(before.samples, after.samples)
    np.testing.assert_allclose(before.estimate, after.estimate)


def test_the_estimator_stays_as_it_is():
    model, X, _ = sleepstudy()
    before = dict(vars(model))
    parametric_bootstrap(model, X, n_resamples=3, statistic=lambda own: own.intercept_)
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is value for name, value in before.items())


@pytest.mark.filterwarnings("ignore:fit received no groups")
def test_a_model_without_random_effects():
    X, y = load_sleepstudy(return_X_y=True)
    model = MixedLinearRegressor().fit(X[["Days"]], y)
    result = parametric_bootstrap(model, X[["Days"]], n_resamples=200, random_state=0)
    assert result.names == ["sd(noise)", "intercept", "Days"]
    ratios = result.standard_errors[["intercept", "Days"]] ** 2 / np.diag(model.coef_covariance_)
    assert within_chi_squared(ratios, 199)  # fails in one of 10,000 seeds


@pytest.mark.filterwarnings("ignore:The fixed effects reproduce")
def test_a_model_without_noise():
    X, _ = load_sleepstudy(return_X_y=True)
    model = MixedLinearRegressor(groups="Subject").fit(X, 1.0 + 3.0 * X["Days"])
    result = parametric_bootstrap(model, X, n_resamples=3, random_state=0)
    np.testing.assert_allclose(result.samples, [[0.0, 0.0, 1.0, 3.0]] * 3, atol=1e-12)


@pytest.mark.filterwarnings("error")
def test_aliased_coefficients_have_no_distribution():
    X, y = load_sleepstudy(return_X_y=True)
    X["again"] = 2.0 * X["Days"]
    with pytest.warns(DegenerateModelWarning, match="again"):
        model = MixedLinearRegressor(groups="Subject").fit(X, y)
    result = parametric_bootstrap(model, X, n_resamples=4, random_state=0)
    divided = ["Days", "again"]
    assert result.estimate[divided].isna().all()
    assert result.samples[divided].isna().all(axis=None)
    assert result.samples.drop(columns=divided).notna().all(axis=None)
    options = {"method": "bootstrap", "X": X, "n_resamples": 4, "random_state": 0}
    with pytest.warns(DegenerateModelWarning, match="'Days', 'again' cannot be estimated"):
        intervals = confidence_intervals(model, **options)
    assert intervals.loc[divided].isna().all(axis=None)
    assert intervals.drop(index=divided).notna().all(axis=None)
    assert str(result).split("\n")[-1].split() == ["again"]


@pytest.mark.filterwarnings("error")
def test_correlations_with_a_variance_of_zero_are_left_out():
    X, _ = load_sleepstudy(return_X_y=True)
    rng = np.random.default_rng(0)
    days, y = X["Days"].to_numpy().reshape(18, 10), rng.standard_normal((18, 10))
    # Subjects have the same slope and the same mean.
    slopes = ((days - 4.5) * y).sum(axis=1) / ((days - 4.5) ** 2).sum(axis=1)
    y -= y.mean(axis=1, keepdims=True) + slopes[:, None] * (days - 4.5)
    model = MixedLinearRegressor(**SLEEP).fit(X, y.ravel())
    result = parametric_bootstrap(model, X, n_resamples=40, random_state=0)
    name = "cor(intercept,Days|Subject)"
    values = result.samples[name]
    assert np.isnan(result.estimate[name])
    # A variance is zero in about half of the samples: in all, or in none, in less than 1e-6.
    assert 0 < values.isna().sum() < 40
    assert result.standard_errors[name] == pytest.approx(values.dropna().std())
    assert result.confidence_interval().loc[name, "lower"] >= -1.0


def test_confidence_intervals():
    samples = np.random.default_rng(0).permutation(np.arange(101.0))
    result = BootstrapResult(
        pd.Series({"b": 40.0, "a": 0.5}), pd.DataFrame({"b": samples, "a": samples / 100}), 2, 0
    )
    percentile = result.confidence_interval(0.9)
    assert list(percentile.index) == ["b", "a"]
    np.testing.assert_allclose(percentile, [[5.0, 95.0], [0.05, 0.95]])
    np.testing.assert_allclose(
        result.confidence_interval(0.9, kind="basic"), [[-15.0, 75.0], [0.05, 0.95]]
    )
    margin = 1.6448536269514722 * np.sqrt(101 * 102 / 12)
    np.testing.assert_allclose(
        result.confidence_interval(0.9, kind="normal").loc["b"], [30.0 - margin, 30.0 + margin]
    )
    assert "2 without a certified optimum" in str(result)
    assert "singular" not in str(result)
    assert "101 resamples" in result._repr_html_()
    with pytest.raises(ValueError, match="'percentile', 'basic' or 'normal'"):
        result.confidence_interval(kind="bca")
    with pytest.raises(ValueError, match="level must be"):
        result.confidence_interval(95)


# --- callbacks -----------------------------------------------------------------------------------
class Counter:
    """Counts the tasks that begin and end."""

    def __init__(self):
        self.events = []

    def setup(self, estimator, context):
        self.events.append(("setup", context.task_name, context.max_subtasks))

    def teardown(self, estimator, context):
        self.events.append(("teardown", context.task_name, context.max_subtasks))

    def on_fit_task_begin(self, estimator, context):
        self.events.append(("begin", context.task_name, context.max_subtasks))

    def on_fit_task_end(self, estimator, context):
        self.events.append(("end", context.task_name, context.max_subtasks))


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_callbacks_see_every_resample(n_jobs, monkeypatch):
    pytest.importorskip("sklearn.callback")
    monkeypatch.setattr(refits, "MOST_IN_BATCH", 3)
    model, X, _ = sleepstudy()
    counter = Counter()
    model.set_callbacks(counter)
    silent = parametric_bootstrap(sleepstudy()[0], X, n_resamples=8, random_state=0)
    result = parametric_bootstrap(model, X, n_resamples=8, random_state=0, n_jobs=n_jobs)
    pd.testing.assert_frame_equal(result.samples, silent.samples)
    root = ("parametric_bootstrap", 8)
    tasks = [("begin", "resample", 0), ("end", "resample", 0)] * 8
    assert counter.events == [
        ("setup", *root),
        ("begin", *root),
        *tasks,
        ("end", *root),
        ("teardown", *root),
    ]
    assert not hasattr(model, "_callback_fit_ctx")


def test_callbacks_are_torn_down_after_an_error():
    pytest.importorskip("sklearn.callback")
    model, X, _ = sleepstudy()
    counter = Counter()
    model.set_callbacks(counter)
    calls = []

    def statistic(own):
        calls.append(own)
        if len(calls) > 2:
            raise RuntimeError("of the statistic")
        return 1.0

    with pytest.raises(RuntimeError, match="of the statistic"):
        parametric_bootstrap(model, X, statistic=statistic, n_resamples=4)
    assert counter.events[-1][0] == "teardown"


def test_the_progress_bar(capsys):
    callback = pytest.importorskip("sklearn.callback")
    pytest.importorskip("rich")
    model, X, _ = sleepstudy()
    model.set_callbacks(callback.ProgressBar())
    parametric_bootstrap(model, X, n_resamples=5, random_state=0)
    assert "parametric_bootstrap" in capsys.readouterr().out


# --- what is refused -----------------------------------------------------------------------------
def test_other_rows_than_those_of_the_fit_are_refused():
    model, X, y = sleepstudy()
    with pytest.raises(ValueError, match=r"X has 179 rows .* fitted to 180"):
        parametric_bootstrap(model, X.iloc[1:])
    with pytest.raises(ValueError, match="not those of the fit"):
        parametric_bootstrap(model, X.assign(Days=X["Days"] + 1e-3))
    with pytest.raises(ValueError, match="not those of the fit"):
        parametric_bootstrap(model, X, sample_weight=np.full(180, 2.0))
    swapped = X["Subject"].to_numpy().copy()
    swapped[[0, 11]] = swapped[[11, 0]]
    with pytest.raises(ValueError, match="not those of the fit"):
        parametric_bootstrap(model, X.assign(Subject=swapped))
    with pytest.raises(ValueError, match="The level 'new' of 'Subject' was not seen in fit"):
        parametric_bootstrap(model, X.assign(Subject="new"))
    by_argument = MixedLinearRegressor().fit(X[["Days"]], y, groups=X["Subject"])
    with pytest.raises(ValueError, match="No groups were passed"):
        parametric_bootstrap(by_argument, X[["Days"]])


def test_pairs_of_levels_that_changed_partners_are_refused():
    X, y = load_penicillin(return_X_y=True)
    model = MixedLinearRegressor(groups=["plate", "sample"]).fit(X, y)
    # Each factor has its levels as often as before, but not the same pairs of them.
    samples = X["sample"].to_numpy().copy()
    samples[[0, 7]] = samples[[7, 0]]
    with pytest.raises(ValueError, match="not those of the fit"):
        parametric_bootstrap(model, X.assign(sample=samples))


@pytest.mark.parametrize(
    "statistic", [lambda own: None, lambda own: "x", lambda own: np.ones((2, 2)), lambda own: []]
)
def test_a_statistic_that_is_no_vector_is_refused(statistic):
    model, X, _ = sleepstudy()
    with pytest.raises(ValueError, match="statistic must return a number"):
        parametric_bootstrap(model, X, statistic=statistic)


def test_a_statistic_that_changes_its_shape_is_refused():
    model, X, _ = sleepstudy()
    estimates = {model.intercept_}

    def statistic(own):
        return np.ones(2 if own.intercept_ in estimates else 3)

    with pytest.raises(ValueError, match="must return the same parts"):
        parametric_bootstrap(model, X, statistic=statistic, n_resamples=2)


def test_parameters_that_are_refused():
    model, X, _ = sleepstudy()
    with pytest.raises(ValueError, match="n_resamples must be a positive integer"):
        parametric_bootstrap(model, X, n_resamples=0)
    with pytest.raises(ValueError, match="random_state must be"):
        parametric_bootstrap(model, X, random_state="x")
    with pytest.raises(TypeError, match="Expected a fitted MixedLinearRegressor"):
        parametric_bootstrap(object(), X)
