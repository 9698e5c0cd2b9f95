"""The estimator is one of scikit-learn's: its checks, its inputs, its copies and its callbacks."""

import pickle
import warnings
from collections import Counter
from io import BytesIO

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone, is_regressor
from sklearn.linear_model import LinearRegression
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

from helpers.versions import names_polars
from mixedlearn import MixedLinearRegressor
from mixedlearn.datasets import load_sleepstudy
from mixedlearn.exceptions import (
    DegenerateModelWarning,
    NoGroupsWarning,
    PopulationPredictionWarning,
)

CHECKED = {
    "default": MixedLinearRegressor(),
    "ml": MixedLinearRegressor(reml=False),
    "diagonal": MixedLinearRegressor(covariance="diagonal"),
    "group column": MixedLinearRegressor(groups=0),
    "two factors": MixedLinearRegressor(groups=[0, 1]),
    "interaction": MixedLinearRegressor(groups=[0, (0, 1)]),
}
# scikit-learn 1.6 and 1.9 both have 59 for this estimator.
FEWEST_CHECKS = 50
# Weights are precisions: two rows of a level share its random effect but hold two noises.
WEIGHTS_ARE_REPETITION = "check_sample_weight_equivalence_on_dense_data"
# Its first column holds labels here.
NAN_IS_REFUSED = "check_estimators_nan_inf"
SKIPPED_BY_SKLEARN = {"check_array_api_input"}
N_ROWS = 997


def expected_failures(estimator):
    if estimator.groups is None:
        return {}
    return {
        WEIGHTS_ARE_REPETITION: "precision weights are not repetition with random effects",
        NAN_IS_REFUSED: "the check's NaN is a label, and predict takes it as an unknown level",
    }


def every_check():
    """What parametrize_with_checks gives; that of scikit-learn 1.6 makes pytest 9 warn."""
    for configuration, estimator in CHECKED.items():
        expected = expected_failures(estimator)
        for instance, check in estimator_checks_generator(estimator):
            name = check.func.__name__
            marks = [pytest.mark.xfail(reason=expected[name])] if name in expected else []
            settings = "".join(f"-{key}={value}" for key, value in check.keywords.items())
            yield pytest.param(instance, check, marks=marks, id=f"{configuration}-{name}{settings}")


# The checks pass no groups, put every row into a level of its own and have y among the columns of
# X; the estimator says so, and nothing else.
@pytest.mark.slow_cases("interaction")
@pytest.mark.filterwarnings("ignore::mixedlearn.exceptions.NoGroupsWarning")
@pytest.mark.filterwarnings("ignore::mixedlearn.exceptions.DegenerateModelWarning")
@pytest.mark.parametrize(("estimator", "check"), list(every_check()))
def test_every_check_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.slow_cases("two factors", "interaction")
@pytest.mark.filterwarnings("ignore::mixedlearn.exceptions.NoGroupsWarning")
@pytest.mark.filterwarnings("ignore::mixedlearn.exceptions.DegenerateModelWarning")
@pytest.mark.parametrize("name", CHECKED)
def test_number_of_checks(name):
    estimator = CHECKED[name]
    expected = expected_failures(estimator)
    n_generated = len(list(estimator_checks_generator(estimator)))
    results = check_estimator(
        estimator, expected_failed_checks=expected, on_skip=None, on_fail=None
    )
    status = {
        kind: {result["check_name"] for result in results if result["status"] == kind}
        for kind in ("failed", "xfail", "skipped")
    }
    assert len(results) == n_generated >= FEWEST_CHECKS
    assert status["failed"] == set()
    assert status["xfail"] == set(expected)
    assert status["skipped"] <= SKIPPED_BY_SKLEARN
    assert Counter(result["status"] for result in results)["passed"] >= FEWEST_CHECKS


@pytest.fixture(scope="module")
def study():
    return load_sleepstudy()


@pytest.fixture(scope="module")
def model(study):
    """The textbook fit, the groups beside X."""
    return growth().fit(study.data[["Days"]], study.target, groups=study.groups)


def growth(**parameters):
    return MixedLinearRegressor(random_slopes=["Days"], **parameters)


def grouped_data(n_rows, n_groups=20, seed=0):
    """Random intercepts and slopes over the first of two columns."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_rows, 2))
    groups = np.arange(n_rows) % n_groups
    effects = rng.standard_normal((n_groups, 2))
    y = 1.0 + X @ [2.0, -1.0] + effects[groups, 0] + effects[groups, 1] * X[:, 0]
    return X, y + rng.standard_normal(n_rows), groups


def assert_same_fit(one, other, rtol=1e-7):
    """Equal estimates, up to the order of the rows' sums."""
    np.testing.assert_allclose(one.coef_, other.coef_, rtol=rtol)
    np.testing.assert_allclose(one.intercept_, other.intercept_, rtol=rtol)
    np.testing.assert_allclose(one.noise_variance_, other.noise_variance_, rtol=rtol)
    np.testing.assert_allclose(one.theta_, other.theta_, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(one.log_likelihood_, other.log_likelihood_, rtol=rtol)
    (effects,), (expected,) = one.random_effects_.values(), other.random_effects_.values()
    assert set(effects.index) == set(expected.index)
    # BLUPs near zero: absolute, relative to the largest.
    np.testing.assert_allclose(
        effects.loc[expected.index].to_numpy(),
        expected.to_numpy(),
        atol=rtol * np.abs(expected.to_numpy()).max(),
    )


class TestIdentity:
    def test_is_regressor(self):
        assert is_regressor(MixedLinearRegressor())

    def test_clone_copies_parameters_and_nothing_else(self, model):
        copy = clone(model)
        assert copy.get_params() == model.get_params()
        assert not [name for name in vars(copy) if name.endswith("_") or name == "_model"]

    def test_clone_of_array_and_dict_parameters(self):
        mask = np.array([[True, False], [False, True]])
        estimator = growth(covariance=mask, random_intercept={"group": True})
        copy = clone(estimator)
        np.testing.assert_array_equal(copy.covariance, mask)
        assert copy.random_intercept == {"group": True}
        assert copy.random_intercept is not estimator.random_intercept

    def test_set_params_changes_the_fit(self, study):
        X, y, groups = study.data[["Days"]], study.target, study.groups
        estimator = MixedLinearRegressor().fit(X, y, groups=groups)
        before = estimator.log_likelihood_
        estimator.set_params(random_slopes=["Days"]).fit(X, y, groups=groups)
        assert estimator.log_likelihood_ > before + 20
        assert list(estimator.random_effects_["Subject"].columns) == ["intercept", "Days"]

    def test_unknown_parameter_value_is_refused(self, study):
        with pytest.raises(ValueError, match="covariance"):
            growth(covariance="banded").fit(study.data[["Days"]], study.target, groups=study.groups)

    def test_html_repr(self, model):
        for estimator in (growth(), model):
            html = estimator._repr_html_()
            assert "MixedLinearRegressor" in html
            assert "random_slopes" in html
        assert repr(growth()) == "MixedLinearRegressor(random_slopes=['Days'])"

    def test_refit_forgets_the_last_data(self, study, model):
        X, y, groups = grouped_data(200)
        estimator = MixedLinearRegressor(random_slopes=[0])
        estimator.fit(study.data[["Days"]], study.target, groups=study.groups)
        estimator.fit(X, y, groups=groups)
        assert estimator.n_features_in_ == 2
        assert not hasattr(estimator, "feature_names_in_")
        assert estimator.n_groups_ == {"group": 20}
        assert_same_fit(estimator, clone(estimator).fit(X, y, groups=groups), rtol=0)


class TestFeatureNames:
    def test_names_of_columns(self, study):
        estimator = growth(groups="Subject").fit(study.data, study.target)
        assert list(estimator.feature_names_in_) == ["Days", "Subject"]
        assert estimator.n_features_in_ == 2
        assert list(estimator.coef_covariance_.columns) == ["intercept", "Days"]
        assert list(estimator.covariances_) == ["Subject"]

    def test_columns_without_names_are_numbered(self):
        X, y, groups = grouped_data(100)
        estimator = MixedLinearRegressor(random_slopes=[0]).fit(X, y, groups=groups)
        assert list(estimator.coef_covariance_.columns) == ["intercept", "x0", "x1"]
        assert list(estimator.random_effects_["group"].columns) == ["intercept", "x0"]

    def test_columns_in_another_order_are_refused(self, study):
        estimator = growth(groups="Subject").fit(study.data, study.target)
        with pytest.raises(ValueError, match="order"):
            estimator.predict(study.data[["Subject", "Days"]])

    def test_missing_names_are_noticed(self, study, model):
        with pytest.warns(UserWarning, match="valid feature names"):
            model.predict(study.data[["Days"]].to_numpy(), groups=study.groups)

    def test_other_number_of_columns_is_refused(self):
        X, y, groups = grouped_data(100)
        estimator = MixedLinearRegressor().fit(X, y, groups=groups)
        with pytest.raises(ValueError, match="feature"):
            estimator.predict(np.ones((3, 3)), groups=[0, 1, 2])


class TestContainers:
    """The same rows in any container give the same fit and the same predictions."""

    @pytest.mark.parametrize(
        "container",
        ["pandas", pytest.param("polars", marks=names_polars), "numpy", "list", "object array"],
    )
    def test_groups_beside_columns(self, study, model, container):
        days = study.data[["Days"]]
        X = {
            "pandas": days,
            "polars": pl.DataFrame({"Days": days["Days"].tolist()}),
            "numpy": days.to_numpy(),
            "list": days.to_numpy().tolist(),
            "object array": days.to_numpy().astype(object),
        }[container]
        has_names = container in ("pandas", "polars")
        estimator = MixedLinearRegressor(random_slopes=["Days" if has_names else 0])
        estimator.fit(X, study.target.to_numpy(), groups=study.groups)
        assert hasattr(estimator, "feature_names_in_") == has_names
        assert_same_fit(estimator, model)
        np.testing.assert_allclose(
            estimator.predict(X, groups=study.groups),
            model.predict(days, groups=study.groups),
            rtol=1e-9,
        )

    @pytest.mark.parametrize(
        ("container", "labels"),
        [
            ("pandas", "numbers"),
            ("pandas", "text"),
            pytest.param("polars", "numbers", marks=names_polars),
            pytest.param("polars", "text", marks=names_polars),
            ("numpy", "numbers"),
            ("object array", "numbers"),
            ("object array", "text"),
        ],
    )
    def test_group_column(self, study, model, container, labels):
        X = study.data[["Days", "Subject"]]
        if labels == "text":
            X = X.assign(Subject=[f"s{subject}" for subject in X["Subject"]])
        X = {
            "pandas": lambda: X,
            "polars": lambda: pl.DataFrame({name: X[name].tolist() for name in X}),
            "numpy": X.to_numpy,
            "object array": lambda: X.to_numpy().astype(object),
        }[container]()
        has_names = container in ("pandas", "polars")
        estimator = MixedLinearRegressor(
            groups="Subject" if has_names else 1, random_slopes=["Days" if has_names else 0]
        ).fit(X, study.target.to_numpy())
        assert estimator.n_groups_ == {"Subject" if has_names else "x1": 18}
        np.testing.assert_allclose(estimator.theta_, model.theta_, rtol=1e-7)
        np.testing.assert_allclose(
            estimator.predict(X),
            model.predict(study.data[["Days"]], groups=study.groups),
            rtol=1e-9,
        )

    @names_polars
    def test_polars_and_pandas_may_be_mixed(self, study, model):
        X = pl.DataFrame({"Days": study.data["Days"].tolist()})
        np.testing.assert_allclose(
            model.predict(X, groups=pl.Series(study.groups.tolist())),
            model.predict(study.data[["Days"]], groups=study.groups),
            rtol=1e-12,
        )

    def test_rows_are_aligned_by_position(self, study, model):
        """A shuffled index, and another for y and for groups, changes nothing."""
        rng = np.random.default_rng(0)
        n = len(study.target)
        X, y, groups = (
            part.set_axis(rng.permutation(n), axis=0)
            for part in (study.data[["Days"]], study.target, study.groups)
        )
        estimator = growth().fit(X, y, groups=groups)
        assert_same_fit(estimator, model, rtol=0)
        np.testing.assert_array_equal(
            estimator.predict(X, groups=groups.set_axis(rng.permutation(n))),
            model.predict(study.data[["Days"]], groups=study.groups),
        )

    def test_float32(self):
        X, y, groups = grouped_data(400)
        X32, y32 = X.astype(np.float32), y.astype(np.float32)
        single = MixedLinearRegressor(random_slopes=[0]).fit(X32, y32, groups=groups)
        # The same numbers in double precision: sums are double in both cases.
        double = MixedLinearRegressor(random_slopes=[0]).fit(
            X32.astype(float), y32.astype(float), groups=groups
        )
        assert single.coef_.dtype == np.float64
        assert_same_fit(single, double, rtol=1e-6)
        predicted = single.predict(X32, groups=groups)
        np.testing.assert_allclose(
            predicted, double.predict(X32.astype(float), groups=groups), rtol=1e-5, atol=1e-5
        )

    def test_integers(self, study, model):
        days = study.data[["Days"]].astype(np.int16)
        assert_same_fit(growth().fit(days, study.target, groups=study.groups), model, rtol=1e-12)


SUBJECTS = load_sleepstudy().groups
LABELS = {
    "list": (SUBJECTS.tolist(), "group"),
    "tuple": (tuple(SUBJECTS.tolist()), "group"),
    "array": (SUBJECTS.to_numpy(), "group"),
    "array of one column": (SUBJECTS.to_numpy()[:, None], "group"),
    "object array": (SUBJECTS.to_numpy().astype(object), "group"),
    "series": (SUBJECTS, "Subject"),
    "series without a name": (SUBJECTS.rename(None), "group"),
    "data frame": (SUBJECTS.to_frame("person"), "person"),
    "index": (pd.Index(SUBJECTS), "Subject"),
    "polars series": (pl.Series("person", SUBJECTS.tolist()), "person"),
    "polars series without a name": (pl.Series(SUBJECTS.tolist()), "group"),
    "polars data frame": (pl.DataFrame({"person": SUBJECTS.tolist()}), "person"),
    "categorical": (pd.Categorical(SUBJECTS, categories=[*range(500, 200, -1)]), "group"),
    "series of categories": (
        pd.Series(pd.Categorical(SUBJECTS, categories=[*range(200, 500)]), name="person"),
        "person",
    ),
}


class TestLabels:
    """Any form of the labels gives the same fit."""

    @pytest.mark.parametrize("form", LABELS)
    def test_form(self, study, model, form):
        groups, name = LABELS[form]
        estimator = growth().fit(study.data[["Days"]], study.target, groups=groups)
        assert list(estimator.random_effects_) == [name]
        assert estimator.n_groups_ == {name: 18}
        assert_same_fit(estimator, model, rtol=1e-9)
        np.testing.assert_allclose(
            estimator.predict(study.data[["Days"]], groups=groups),
            model.predict(study.data[["Days"]], groups=study.groups),
            rtol=1e-9,
        )

    @pytest.mark.parametrize("form", LABELS)
    def test_form_in_predict(self, study, model, form):
        groups, _ = LABELS[form]
        np.testing.assert_array_equal(
            model.predict(study.data[["Days"]], groups=groups),
            model.predict(study.data[["Days"]], groups=study.groups),
        )

    @pytest.mark.parametrize(
        "convert",
        [
            lambda text: pd.Series(text, name="Subject"),
            lambda text: pd.Series(text, name="Subject", dtype="category"),
            lambda text: np.array(text),
            lambda text: np.array(text, dtype=object),
            lambda text: pl.Series(text),
            lambda text: pl.Series(text, dtype=pl.Categorical),
        ],
        ids=["series", "categories", "array", "objects", "polars", "polars categories"],
    )
    def test_text(self, study, model, convert):
        groups = convert([f"s{subject}" for subject in study.groups])
        estimator = growth().fit(study.data[["Days"]], study.target, groups=groups)
        (effects,) = estimator.random_effects_.values()
        assert effects.index.tolist() == [f"s{level}" for level in sorted(set(study.groups))]
        np.testing.assert_allclose(
            estimator.predict(study.data[["Days"]], groups=groups),
            model.predict(study.data[["Days"]], groups=study.groups),
            rtol=1e-9,
        )

    def test_other_lengths_are_refused(self, study):
        with pytest.raises(ValueError, match=r"179 labels.*180 rows"):
            growth().fit(study.data[["Days"]], study.target, groups=study.groups[1:])


class TestMissingGroups:
    """Where groups are missing, the user hears of it."""

    def test_fit(self, study):
        X, y = study.data[["Days"]], study.target
        with pytest.warns(NoGroupsWarning, match="received no groups") as record:
            estimator = MixedLinearRegressor().fit(X, y)
        assert [warning.category for warning in record] == [NoGroupsWarning]
        least_squares = LinearRegression().fit(X, y)
        np.testing.assert_allclose(estimator.coef_, least_squares.coef_)
        np.testing.assert_allclose(estimator.intercept_, least_squares.intercept_)
        assert estimator.random_effects_ == {}
        np.testing.assert_allclose(estimator.predict(X), least_squares.predict(X))

    def test_predict(self, study, model):
        X, groups = study.data[["Days"]], study.groups
        with pytest.warns(PopulationPredictionWarning, match="Subject") as record:
            population = model.predict(X)
        assert len(record) == 1
        np.testing.assert_allclose(population, model.intercept_ + X["Days"] * model.coef_[0])
        np.testing.assert_array_equal(population, model.predict(X, random_effects="none"))
        assert np.abs(population - model.predict(X, groups=groups)).max() > 30
        np.testing.assert_array_equal(population, model.predict(X, groups=groups + 1000))

    def test_score(self, study, model):
        X, y, groups = study.data[["Days"]], study.target, study.groups
        with pytest.warns(PopulationPredictionWarning):
            population = model.score(X, y)
        assert model.score(X, y, groups=groups) > population + 0.4

    @pytest.mark.parametrize(
        "category", [NoGroupsWarning, DegenerateModelWarning, PopulationPredictionWarning]
    )
    def test_warnings_point_at_the_caller(self, study, model, category):
        """So that Python names the user's line, and shows each line once."""
        X, y, groups = study.data[["Days"]], study.target, study.groups
        call = {
            NoGroupsWarning: lambda: MixedLinearRegressor().fit(X, y),
            DegenerateModelWarning: lambda: MixedLinearRegressor().fit(
                X.assign(more=X["Days"]), y, groups=groups
            ),
            PopulationPredictionWarning: lambda: (model.predict(X), model.score(X, y)),
        }[category]
        with pytest.warns(category) as record:
            call()
        assert {warning.filename for warning in record} == {__file__}

    def test_no_warning_without_random_effects(self):
        """Balanced noise: the variance is zero, so the population is all there is."""
        groups = np.repeat(np.arange(5), 4)
        y = np.tile([1.0, -1.0, 2.0, -2.0], 5)
        X = np.tile([[0.0], [0.0], [1.0], [1.0]], (5, 1))
        estimator = MixedLinearRegressor().fit(X, y, groups=groups)
        assert estimator.is_singular_
        np.testing.assert_array_equal(estimator.predict(X), estimator.predict(X, groups=groups))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("reml", [True, False])
def test_one_row_per_level_is_least_squares(seed, reml):
    """The likelihood is flat in the variance; nothing overflows and the optimum is certified."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((16, 2))
    y = X.sum(axis=1) + rng.standard_normal(16)
    with pytest.warns(DegenerateModelWarning, match="one row"):
        estimator = MixedLinearRegressor(reml=reml).fit(X, y, groups=np.arange(16))
    assert estimator.converged_
    least_squares = LinearRegression().fit(X, y)
    np.testing.assert_allclose(estimator.coef_, least_squares.coef_)
    residual = ((y - least_squares.predict(X)) ** 2).sum() / (13 if reml else 16)
    (covariance,) = estimator.covariances_.values()
    np.testing.assert_allclose(estimator.noise_variance_ + covariance.iloc[0, 0], residual)


def test_weights_are_precisions():
    """Repetition is not weight with random effects, and is without them."""
    X, y, groups = grouped_data(60, n_groups=6)
    weights = np.random.default_rng(1).integers(1, 4, 60)
    twice = [np.repeat(part, weights, axis=0) for part in (X, y, groups)]
    weighted = MixedLinearRegressor().fit(X, y, groups=groups, sample_weight=weights)
    repeated = MixedLinearRegressor().fit(twice[0], twice[1], groups=twice[2])
    # Both are unbiased, but repetition doubles the rows and shrinks the noise by their number.
    assert repeated.noise_variance_ < 0.8 * weighted.noise_variance_
    with pytest.warns(NoGroupsWarning):
        weighted = MixedLinearRegressor().fit(X, y, sample_weight=weights)
    with pytest.warns(NoGroupsWarning):
        repeated = MixedLinearRegressor().fit(*twice[:2])
    np.testing.assert_allclose(weighted.coef_, repeated.coef_)


def test_rows_of_weight_zero_are_absent():
    X, y, groups = grouped_data(120)
    weights = np.ones(120)
    weights[groups == 3] = 0.0
    weights[::7] = 0.0
    kept = weights > 0
    estimator = MixedLinearRegressor(random_slopes=[0]).fit(
        X, np.where(kept, y, 1e6), groups=groups, sample_weight=weights
    )
    expected = MixedLinearRegressor(random_slopes=[0]).fit(X[kept], y[kept], groups=groups[kept])
    assert_same_fit(estimator, expected)
    assert 3 not in estimator.random_effects_["group"].index


class TestWarmStart:
    def test_second_fit_starts_at_the_optimum(self):
        X, y, groups = grouped_data(2000, n_groups=100)
        estimator = MixedLinearRegressor(random_slopes=[0, 1], warm_start=True)
        estimator.fit(X, y, groups=groups)
        cold = clone(estimator).fit(X, y, groups=groups)
        estimator.fit(X, y, groups=groups)
        assert estimator.n_iter_ <= cold.n_iter_
        assert estimator.converged_
        assert_same_fit(estimator, cold, rtol=1e-5)

    def test_does_not_bias_other_data(self):
        X, y, groups = grouped_data(2000, n_groups=100)
        estimator = MixedLinearRegressor(random_slopes=[0], warm_start=True)
        estimator.fit(X, 1e3 * y, groups=groups)
        other = grouped_data(1500, n_groups=80, seed=5)
        estimator.fit(other[0], other[1], groups=other[2])
        cold = MixedLinearRegressor(random_slopes=[0]).fit(other[0], other[1], groups=other[2])
        assert_same_fit(estimator, cold, rtol=1e-5)

    def test_other_structure_starts_afresh(self):
        X, y, groups = grouped_data(400)
        estimator = MixedLinearRegressor(warm_start=True).fit(X, y, groups=groups)
        estimator.set_params(random_slopes=[0]).fit(X, y, groups=groups)
        cold = MixedLinearRegressor(random_slopes=[0]).fit(X, y, groups=groups)
        assert_same_fit(estimator, cold, rtol=0)

    def test_other_structure_with_as_many_parameters_starts_afresh(self):
        X, y, groups = grouped_data(400)
        estimator = MixedLinearRegressor(warm_start=True, random_slopes=[0])
        estimator.fit(X, y, groups=groups)
        other = {"random_slopes": [0, 1], "covariance": "diagonal"}
        assert len(estimator.theta_) == 3
        estimator.set_params(**other).fit(X, y, groups=groups)
        cold = MixedLinearRegressor(**other).fit(X, y, groups=groups)
        assert_same_fit(estimator, cold, rtol=0)


def arrays_within(thing, path="model", seen=None):
    """Every array that can be reached from an object, with the way to it.

    A view keeps the array alive that it looks at, so that one is reached as well.
    """
    seen = {} if seen is None else seen
    if id(thing) in seen or isinstance(thing, (str, bytes, int, float, type(None), type)):
        return
    seen[id(thing)] = thing
    if isinstance(thing, np.ndarray):
        yield path, thing
        yield from arrays_within(thing.base, f"{path}.base", seen)
        if thing.dtype == object:
            for element in thing.ravel():
                yield from arrays_within(element, f"{path}[...]", seen)
    elif isinstance(thing, pd.Index):
        yield from arrays_within(thing.to_numpy(), f"{path}.to_numpy()", seen)
    elif isinstance(thing, (pd.Series, pd.DataFrame)):
        yield from arrays_within(thing.index, f"{path}.index", seen)
        yield from arrays_within(thing.to_numpy(), f"{path}.to_numpy()", seen)
    elif isinstance(thing, dict):
        for key, value in thing.items():
            yield from arrays_within(value, f"{path}[{key!r}]", seen)
    elif isinstance(thing, (list, tuple, set, frozenset)):
        if len(thing) >= N_ROWS:
            yield path, np.empty(len(thing))
        for position, value in enumerate(thing):
            yield from arrays_within(value, f"{path}[{position}]", seen)
    else:
        names = list(getattr(thing, "__dict__", {}))
        for kind in type(thing).__mro__:
            slots = getattr(kind, "__slots__", ())
            names += [slots] if isinstance(slots, str) else slots
        for name in names:
            yield from arrays_within(getattr(thing, name, None), f"{path}.{name}", seen)


def rows_within(thing):
    return [
        path for path, array in arrays_within(thing) if any(size >= N_ROWS for size in array.shape)
    ]


class TestCopies:
    def test_walk_finds_rows(self):
        """The walk below would notice."""
        model = MixedLinearRegressor()
        rows = np.zeros((N_ROWS, 2))
        for hidden in (rows, rows[:2], {"a": [rows]}, pd.Series(rows[:, 0]), [0.0] * N_ROWS):
            model.hidden = (hidden,)
            assert rows_within(model)
        del model.hidden
        assert not rows_within(model)

    @pytest.mark.parametrize("form", ["array", "frame", "group column", "weights", "text"])
    def test_no_rows(self, form):
        X, y, groups = grouped_data(N_ROWS)
        estimator = MixedLinearRegressor(random_slopes=[0])
        if form == "array":
            estimator.fit(X, y, groups=groups)
        elif form == "frame":
            estimator.fit(pd.DataFrame(X, columns=["a", "b"]), pd.Series(y), groups=list(groups))
        elif form == "group column":
            frame = pd.DataFrame(X, columns=["a", "b"]).assign(g=groups)
            estimator.set_params(groups="g").fit(frame, y)
        elif form == "weights":
            estimator.fit(X, y, groups=groups, sample_weight=np.linspace(1, 2, N_ROWS))
        else:
            estimator.fit(X, y, groups=pd.Categorical([f"g{group}" for group in groups]))
        found = list(arrays_within(estimator))
        assert any(array.shape[-1] == 20 for _, array in found)  # it holds the levels,
        assert rows_within(estimator) == []  # and no row.

    def test_size_depends_on_groups_and_not_on_rows(self):
        def size(n_rows, n_groups):
            X, y, groups = grouped_data(n_rows, n_groups)
            estimator = MixedLinearRegressor(random_slopes=[0]).fit(X, y, groups=groups)
            return len(pickle.dumps(estimator))

        small, large = size(400, 20), size(40_000, 20)
        assert abs(large - small) < 200  # the path of the optimiser has a number per iteration
        assert size(4000, 400) > small + 380 * 8 * 5

    @pytest.mark.parametrize("module", [pickle, joblib])
    @pytest.mark.parametrize("labels", ["numbers", "text", "categories", "tuples"])
    def test_round_trip(self, module, labels):
        X, y, groups = grouped_data(200)
        if labels == "text":
            groups = [f"g{group}" for group in groups]
        elif labels == "categories":
            groups = pd.Series(groups, name="plot", dtype="category")
        elif labels == "tuples":
            groups = [(int(group), "a") for group in groups]
        estimator = MixedLinearRegressor(random_slopes=[0]).fit(X, y, groups=groups)
        stream = BytesIO()
        module.dump(estimator, stream)
        stream.seek(0)
        copy = module.load(stream)
        for one, other in zip(
            copy.predict(X, groups=groups, return_std=True),
            estimator.predict(X, groups=groups, return_std=True),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)
        assert_same_fit(copy, estimator, rtol=0)
        assert copy.log_likelihood(copy.theta_) == estimator.log_likelihood(estimator.theta_)


class TestCallbacks:
    @pytest.fixture
    def recorder(self):
        pytest.importorskip("sklearn.callback")

        class Recorder:
            def __init__(self):
                self.calls = []

            def setup(self, estimator, context):
                self.calls.append(("setup", {}))

            def on_fit_task_begin(
                self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None
            ):
                given = {"X": X, "y": y, "metadata": metadata, "task": context.task_name}
                self.calls.append(("begin", given))

            def on_fit_task_end(
                self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None
            ):
                given = {"X": X, "y": y, "metadata": metadata, "fitted": fitted_estimator}
                self.calls.append(("end", given | {"task": context.task_name}))

            def teardown(self, estimator, context):
                self.calls.append(("teardown", {}))

        return Recorder()

    def test_fit(self, study, model, recorder):
        X, y, groups = study.data[["Days"]], study.target, study.groups
        estimator = growth().set_callbacks(recorder).fit(X, y, groups=groups)
        assert recorder.calls[0][0] == "setup"
        assert recorder.calls[-1][0] == "teardown"
        tasks = [(name, given["task"]) for name, given in recorder.calls[1:-1]]
        search = [("begin", "search"), ("end", "search")]
        iterations = (tasks.count(("begin", "iteration"))) * [
            ("begin", "iteration"),
            ("end", "iteration"),
        ]
        assert iterations
        assert tasks == [("begin", "fit"), search[0], *iterations, search[1], ("end", "fit")]
        begin, end = recorder.calls[1][1], recorder.calls[-2][1]
        for given in (begin, end):
            assert given["X"] is X
            assert given["y"] is y
            assert given["metadata"]["groups"] is groups
        np.testing.assert_array_equal(
            end["fitted"].predict(X, groups=groups), estimator.predict(X, groups=groups)
        )
        assert_same_fit(estimator, model, rtol=0)

    def test_refused_data(self, study, recorder):
        with pytest.raises(ValueError, match="labels"):
            growth().set_callbacks(recorder).fit(study.data[["Days"]], study.target, groups=[1, 2])
        names = Counter(name for name, _ in recorder.calls)
        assert names["setup"] == names["teardown"]
        assert names["begin"] == names["end"] == 0

    def test_model_holds_no_rows(self, recorder):
        X, y, groups = grouped_data(N_ROWS)
        estimator = MixedLinearRegressor().set_callbacks(recorder).fit(X, y, groups=groups)
        recorder.calls.clear()
        assert rows_within(estimator) == []

    def test_without_callbacks(self, study, model):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            estimator = growth().fit(study.data[["Days"]], study.target, groups=study.groups)
        assert_same_fit(estimator, model, rtol=0)
