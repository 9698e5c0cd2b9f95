"""Rows that come batch by batch: the model is that of `fit` on all of them."""

import pickle
import signal
import subprocess
import sys
from copy import copy
from unittest import mock

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.multioutput import MultiOutputRegressor
from sklearn.utils.validation import check_is_fitted

from helpers.same_fit import assert_same_fit
from mixedlearn import MixedLinearRegressor
from mixedlearn.data import running
from mixedlearn.datasets import load_penicillin, load_sleepstudy
from mixedlearn.exceptions import DataWarning, DegenerateModelWarning, NoGroupsWarning
from mixedlearn.inference import coefficient_table, likelihood_ratio_test, variance_table
from mixedlearn.model.fit import fit_sums
from mixedlearn.residual import AR1


def letting_go_after(entries):
    """Few numbers wait, as after many rows of a stream."""
    return mock.patch.object(running, "WAITING_ENTRIES", entries)


def take(values, rows):
    if values is None or np.ndim(values) == 0:
        return values
    return values.iloc[rows] if hasattr(values, "iloc") else np.asarray(values)[rows]


def stream(model, X, y, parts, **beside):
    for rows in parts:
        own = {name: take(values, rows) for name, values in beside.items()}
        model.partial_fit(take(X, rows), take(y, rows), **own)
    return model


def made_up(seed, n=90, n_levels=7):
    """Columns that drift, a factor of slopes, and one that crosses it."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"x": np.sort(rng.normal(size=n)) + 3.0, "z": rng.normal(size=n)})
    first, second = rng.integers(0, n_levels, n), rng.integers(0, 5, n)
    effects = rng.normal(size=(n_levels, 2))
    y = X["x"] - X["z"] + effects[first, 0] + effects[first, 1] * X["z"]
    return X, (y + 2.0 * rng.normal(size=5)[second] + rng.normal(size=n)).to_numpy(), first, second


@st.composite
def splits(draw, n=90):
    """Parts of the rows, in any order and of any size."""
    order = draw(st.permutations(range(n))) if draw(st.booleans()) else range(n)
    ends = sorted(draw(st.sets(st.integers(1, n - 1), max_size=6)))
    return np.split(np.asarray(order), ends)


LABELS = {
    "int": lambda codes: codes,
    "int32": lambda codes: codes.astype(np.int32),
    "float": lambda codes: codes.astype(float),
    "text": lambda codes: np.array([f"g{code}" for code in codes], dtype=object),
    "mixed": lambda codes: np.array([code if code % 2 else f"g{code}" for code in codes], object),
    "date": lambda codes: np.datetime64("2020-02-28") + codes.astype("timedelta64[D]"),
    "tuple": lambda codes: pd.Index(
        [(int(code), "a") for code in codes], tupleize_cols=False
    ).to_series(index=range(len(codes))),
    "category": lambda codes: pd.Series(pd.Categorical.from_codes(codes, list("qwertyu"))),
}


class TestEqualsFit:
    @settings(max_examples=40, deadline=None)
    @given(
        seed=st.integers(0, 10**6),
        parts=splits(),
        kind=st.sampled_from(sorted(LABELS)),
        waiting=st.sampled_from([1, 150, 10**6]),
        weighted=st.booleans(),
        shifted=st.booleans(),
    )
    def test_one_factor(self, seed, parts, kind, waiting, weighted, shifted):
        X, y, codes, _ = made_up(seed)
        rng = np.random.default_rng(seed)
        # A fifth of the rows is absent; some batches may be absent as a whole.
        weights = rng.choice([0.0, 0.5, 1.0, 2.0, 4.0], len(y)) if weighted else None
        offset = rng.normal(size=len(y)) if shifted else None
        beside = {"groups": LABELS[kind](codes), "sample_weight": weights, "offset": offset}
        model = MixedLinearRegressor(random_slopes=["z"], covariance="diagonal")
        with letting_go_after(waiting):
            streamed = stream(clone(model), X, y, parts, **beside)
            assert_same_fit(streamed, model.fit(X, y, **beside))

    @settings(max_examples=20, deadline=None)
    @given(
        seed=st.integers(0, 10**6),
        parts=splits(),
        groups=st.sampled_from([["a", "b"], ["b", ("a", "b")], [("a", "b")]]),
        waiting=st.sampled_from([1, 150, 10**6]),
        reml=st.booleans(),
    )
    def test_several_factors(self, seed, parts, groups, waiting, reml):
        X, y, first, second = made_up(seed, n_levels=4)
        X = X.assign(a=first, b=[f"b{code}" for code in second])
        model = MixedLinearRegressor(groups=groups, reml=reml)
        with letting_go_after(waiting):
            streamed = stream(clone(model), X, y, parts)
            assert_same_fit(streamed, model.fit(X, y))

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 10**6), parts=splits(), waiting=st.sampled_from([1, 10**6]))
    def test_formula(self, seed, parts, waiting):
        X, y, first, second = made_up(seed)
        kinds = np.array(["low", "mid", "high"])[second % 3]
        # Declared, though the first batch need not have them all.
        X = X.assign(a=first, kind=pd.Categorical(kinds, categories=["low", "mid", "high"]))
        y = pd.Series(np.exp(y / 10.0), name="y")
        model = MixedLinearRegressor(
            formula="np.log(y) ~ x * kind + bs(z, knots=[0.0], lower_bound=-5.0, upper_bound=5.0)"
            " + offset(z / 7) + (1 | a)"
        )
        with letting_go_after(waiting):
            streamed = stream(clone(model), X, y, parts)
            assert_same_fit(streamed, model.fit(X, y))

    @pytest.mark.parametrize("waiting", [1, 10**6])
    def test_after_every_call(self, waiting):
        X, y = load_sleepstudy(return_X_y=True)
        model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"])
        streamed = clone(model)
        with letting_go_after(waiting):
            for end in range(45, 181, 27):
                rows = slice(max(end - 27, 0) if end > 45 else 0, end)
                streamed.partial_fit(X[rows], y[rows])
                assert_same_fit(streamed, model.fit(X[:end], y[:end]))

    @pytest.mark.parametrize("waiting", [1, 10**6])
    def test_goes_on_after_fit(self, waiting):
        X, y = load_penicillin(return_X_y=True)
        model = MixedLinearRegressor(groups=["plate", "sample"])
        with letting_go_after(waiting):
            streamed = clone(model).fit(X[:80], y[:80])
            stream(streamed, X[80:], y[80:], np.split(np.arange(64), [10, 40]))
            assert_same_fit(streamed, model.fit(X, y))
        # A further fit begins anew.
        assert_same_fit(streamed.fit(X[:80], y[:80]), model.fit(X[:80], y[:80]))

    def test_least_squares(self):
        X, y, _, _ = made_up(0)
        model = MixedLinearRegressor()
        with pytest.warns(NoGroupsWarning, match="received no groups"):
            model.fit(X, y)
        streamed = stream(clone(model), X, y, np.split(np.arange(90), [30]))
        with pytest.warns(NoGroupsWarning, match="received no groups") as caught:
            _ = streamed.coef_
        assert_same_fit(streamed, model)
        assert len(caught) == 1
        assert caught[0].filename == __file__

    def test_columns_far_from_zero_that_drift(self):
        rng = np.random.default_rng(0)
        n, codes = 2000, np.arange(2000) % 40
        drift = np.linspace(0.0, 1e3, n)
        X = np.column_stack([1e6 + drift + rng.normal(size=n), rng.normal(size=n)])
        y = 1e5 + 2.0 * X[:, 1] + drift + rng.normal(size=40)[codes] + rng.normal(size=n)
        model = MixedLinearRegressor()
        with letting_go_after(1):
            streamed = stream(clone(model), X, y, np.split(np.arange(n), 50), groups=codes)
            model.fit(X, y, groups=codes)
            assert_allclose(streamed.coef_, model.coef_, rtol=1e-9)
            assert_same_fit(streamed, model)

    def test_rows_that_the_user_overwrites(self):
        X, y, codes, _ = made_up(1)
        whole = MixedLinearRegressor().fit(X.to_numpy(), y, groups=codes)
        block, response, labels = np.empty((30, 2)), np.empty(30), np.empty(30, dtype=int)
        streamed = MixedLinearRegressor()
        for start in range(0, 90, 30):
            rows = slice(start, start + 30)
            block[:], response[:], labels[:] = X[rows], y[rows], codes[rows]
            streamed.partial_fit(block, response, groups=labels)
        assert_same_fit(streamed, whole)


class TestLabels:
    """What labels are equal, in whatever types batches have them."""

    @pytest.mark.parametrize("waiting", [1, 10**6])
    def test_types_differ_between_batches(self, waiting):
        X, y, codes, _ = made_up(2)
        groups = [
            codes[:20],
            codes[20:40].astype(float),
            pl.Series("group", codes[40:60]),
            pa.chunked_array([codes[60:70], codes[70:90].astype(np.int8)]),
        ]
        streamed = MixedLinearRegressor()
        with letting_go_after(waiting):
            for rows, own in zip(np.split(np.arange(90), [20, 40, 60]), groups, strict=True):
                streamed.partial_fit(X.iloc[rows], y[rows], groups=own)
            assert_same_fit(streamed, MixedLinearRegressor().fit(X, y, groups=codes))

    @pytest.mark.parametrize("waiting", [1, 10**6])
    def test_text_and_categories(self, waiting):
        X, y, codes, _ = made_up(3)
        names = np.array([f"level {code}" for code in codes], dtype=object)
        groups = [
            names[:30],
            pd.Categorical(names[30:60], categories=sorted(set(names), reverse=True)),
            pd.Categorical(names[60:]),
        ]
        streamed = MixedLinearRegressor()
        with letting_go_after(waiting):
            for rows, own in zip(np.split(np.arange(90), 3), groups, strict=True):
                streamed.partial_fit(X.iloc[rows], y[rows], groups=own)
            assert_same_fit(streamed, MixedLinearRegressor().fit(X, y, groups=names))

    @pytest.mark.parametrize("waiting", [1, 10**6])
    def test_numbers_then_text(self, waiting):
        X, y, codes, _ = made_up(4)
        groups = [codes[:45], np.array([f"g{code}" for code in codes[45:]], dtype=object)]
        streamed = MixedLinearRegressor()
        with letting_go_after(waiting):
            for rows, own in zip(np.split(np.arange(90), 2), groups, strict=True):
                streamed.partial_fit(X.iloc[rows], y[rows], groups=own)
            mixed = np.concatenate([groups[0].astype(object), groups[1]])
            assert_same_fit(streamed, MixedLinearRegressor().fit(X, y, groups=mixed))

    def test_no_hash(self):
        X, y, codes, _ = made_up(5)
        model = MixedLinearRegressor().partial_fit(X[:60], y[:60], groups=codes[:60].astype(object))
        bad = pd.Series([{code} for code in codes[60:]])
        with pytest.raises(TypeError, match="batch 2: The groups of factor 'group' hold"):
            model.partial_fit(X[60:], y[60:], groups=bad)
        assert model.n_groups_ == {"group": 7}


class TestBadBatches:
    def bad_batches(self):
        X, y, codes, _ = made_up(6)
        nan, infinite = X.copy(), y.copy()
        nan.loc[4, "z"], infinite[7] = np.nan, np.inf
        yield (nan, y, codes, {}), "NaN in column 'z', the first at row 4"
        yield (X, infinite, codes, {}), "y contains infinity, the first at row 7"
        yield (X, y, None, {}), "No groups were passed"
        yield (X, y, codes[1:], {}), "groups has 89 labels, but X has 90 rows"
        yield (X, y[1:], codes, {}), "inconsistent numbers of samples"
        yield (X[["z", "x"]], y, codes, {}), "feature names should match"
        yield (X.assign(w=1.0), y, codes, {}), "feature names"
        yield (X.assign(z="text"), y, codes, {}), "Column 'z' of X is not numeric"
        yield (X.assign(z=1e200), y, codes, {}), "squares of the numeric column at position 1"
        yield (X[:0], y[:0], codes[:0], {}), "0 sample"
        yield (X, y, codes, {"sample_weight": -np.ones(90)}), "Negative values"
        yield (X, y, codes, {"offset": 1.0}), "offset was passed"
        yield (X, y, [*codes.tolist()[:-1], None], {}), "missing labels"

    def test_leave_the_model_as_it_was(self):
        X, y, codes, _ = made_up(7)
        model = MixedLinearRegressor().partial_fit(X, y, groups=codes)
        whole = MixedLinearRegressor().fit(X, y, groups=codes)
        for (own_X, own_y, groups, beside), message in self.bad_batches():
            with pytest.raises(ValueError, match=rf"batch 2: .*{message}"):
                model.partial_fit(own_X, own_y, groups=groups, **beside)
            assert_same_fit(model, whole)
        model.partial_fit(X, y, groups=codes + 100)
        assert model.n_groups_ == {"group": 14}

    def test_the_first_one_leaves_nothing(self):
        X, y, codes, _ = made_up(8)
        model = MixedLinearRegressor()
        with pytest.raises(ValueError, match="batch 1: Input X contains NaN"):
            model.partial_fit(X.assign(z=np.nan), y, groups=codes)
        assert vars(model) == vars(MixedLinearRegressor())

    def test_groups_that_come_late(self):
        X, y, codes, _ = made_up(9)
        model = MixedLinearRegressor().partial_fit(X, y)
        with pytest.raises(ValueError, match="batch 2: groups were passed, but the first rows"):
            model.partial_fit(X, y, groups=codes)

    def test_too_few_rows_are_no_error_until_somebody_asks(self):
        X, y, codes, _ = made_up(10)
        model = MixedLinearRegressor().partial_fit(X[:2], y[:2], groups=codes[:2])
        with pytest.raises(ValueError, match="Found n_samples=2 rows"):
            _ = model.coef_
        model.partial_fit(X[2:], y[2:], groups=codes[2:])
        assert_same_fit(model, MixedLinearRegressor().fit(X, y, groups=codes))

    def test_no_row_of_positive_weight(self):
        X, y, codes, _ = made_up(11)
        nothing = np.zeros(90)
        model = MixedLinearRegressor().partial_fit(X, y, groups=codes, sample_weight=nothing)
        assert not hasattr(model, "intercept_")
        with pytest.raises(NotFittedError):
            check_is_fitted(model)
        with pytest.raises(NotFittedError, match="no rows of positive weight yet"):
            _ = model.intercept_
        for ask in (lambda: model.coef_, lambda: model.predict(X, groups=codes)):
            with pytest.raises(NotFittedError):
                ask()
        model.partial_fit(X, y, groups=codes)
        assert_same_fit(model, MixedLinearRegressor().fit(X, y, groups=codes))


class TestParameters:
    @pytest.fixture
    def streamed(self):
        X, y, codes, second = made_up(12)
        X = X.assign(a=codes, b=second)
        model = MixedLinearRegressor(groups="a", fixed_effects=["x", "z"], random_slopes=["z"])
        return model.partial_fit(X[:50], y[:50]), X, y

    @pytest.mark.parametrize(
        "changes",
        [
            {"reml": False},
            {"covariance": "diagonal"},
            {"fit_intercept": False},
            {"random_intercept": False},
            {"max_iter": 50, "tol": 1e-7},
        ],
        ids=str,
    )
    def test_that_change_the_solution(self, streamed, changes):
        model, X, y = streamed
        model.set_params(**changes).partial_fit(X[50:], y[50:])
        assert_same_fit(model, clone(model).fit(X, y))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("groups", "b"),
            ("groups", ["a", "b"]),
            ("fixed_effects", ["x"]),
            ("fixed_effects", ["x", "z", "b"]),
            ("random_slopes", ["x", "z"]),
            ("random_slopes", None),
            ("formula", "x + (1 | a)"),
        ],
    )
    def test_that_change_the_sums(self, streamed, name, value):
        model, X, y = streamed
        if name == "fixed_effects" and value == ["x"]:
            # z has random effects, so that the sums have it.
            model.set_params(fixed_effects=value).partial_fit(X[50:], y[50:])
            assert_same_fit(model, clone(model).fit(X, y))
            return
        before = model.get_params()[name]
        model.set_params(**{name: value})
        with pytest.raises(ValueError, match=rf"{name} has changed .* call fit"):
            model.partial_fit(X[50:], y[50:])
        with pytest.raises(ValueError, match=rf"{name} has changed .* call fit"):
            _ = model.coef_
        model.set_params(**{name: before}).partial_fit(X[50:], y[50:])
        assert_same_fit(model, clone(model).fit(X, y))

    def test_residual_structures_are_refused(self, streamed):
        model, X, y = streamed
        with pytest.raises(ValueError, match="residual structure"):
            clone(model).set_params(residual=AR1(), time="b").partial_fit(X, y)
        with pytest.raises(ValueError, match="residual structure"):
            model.set_params(residual=AR1(), time="b").partial_fit(X, y)

    def test_after_a_fit_with_correlated_noise(self):
        X, y = load_sleepstudy(return_X_y=True)
        model = MixedLinearRegressor(groups="Subject", residual="ar1", time="Days").fit(X, y)
        with pytest.raises(ValueError, match="residual structure"):
            model.set_params(residual=None).partial_fit(X, y)

    def test_bad_parameters(self, streamed):
        model, X, y = streamed
        with pytest.raises(ValueError, match="'max_iter' parameter"):
            clone(model).set_params(max_iter=0).partial_fit(X, y)
        model.set_params(tol=-1.0)
        with pytest.raises(ValueError, match="'tol' parameter"):
            _ = model.coef_


class TestLaziness:
    def test_nothing_is_solved_until_somebody_asks(self):
        X, y = load_sleepstudy(return_X_y=True)
        model = MixedLinearRegressor(groups="Subject")
        with mock.patch("mixedlearn.estimator.stream.fit_sums") as solve:
            model.partial_fit(X[:90], y[:90])
            model.partial_fit(X[90:], y[90:])
            pickle.loads(pickle.dumps(model))
            copy(model)
            clone(model)
            repr(model)
            assert model.n_features_in_ == 2
            assert list(model.feature_names_in_) == ["Days", "Subject"]
            assert model.__sklearn_is_fitted__()
            assert not solve.called

    def test_is_solved_once(self):
        X, y = load_sleepstudy(return_X_y=True)
        model = MixedLinearRegressor(groups="Subject").partial_fit(X, y)
        with mock.patch(
            "mixedlearn.estimator.stream.fit_sums", side_effect=AssertionError
        ) as solve:
            with pytest.raises(AssertionError):
                model.predict(X)
            assert solve.call_count == 1
        model.predict(X)
        with mock.patch("mixedlearn.estimator.stream.fit_sums") as solve:
            model.predict(X)
            model.summary()
            assert not solve.called

    def test_warnings_come_with_the_solution(self):
        X, y = load_sleepstudy(return_X_y=True)
        X = X.assign(hours=24 * X["Days"], big=2**60 + np.arange(180) // 2)
        model = MixedLinearRegressor(groups="Subject")
        model.partial_fit(X[:90], y[:90]).partial_fit(X[90:], y[90:])
        with pytest.warns() as caught:
            _ = model.coef_
        kinds = [warning.category for warning in caught]
        assert kinds.count(DegenerateModelWarning) == 1
        assert kinds.count(DataWarning) == 1
        assert {warning.filename for warning in caught} == {__file__}
        model.predict(X)

    def test_a_batch_that_comes_during_the_solution_is_not_lost(self):
        X, y = load_sleepstudy(return_X_y=True)
        model = MixedLinearRegressor(groups="Subject").partial_fit(X[:90], y[:90])
        later = iter([(X[90:], y[90:])])

        def solve(*args, **kwargs):
            for batch in later:
                model.partial_fit(*batch)
            return fit_sums(*args, **kwargs)

        with mock.patch("mixedlearn.estimator.stream.fit_sums", side_effect=solve) as solved:
            assert_same_fit(model, MixedLinearRegressor(groups="Subject").fit(X, y))
        assert solved.call_count == 2

    def test_no_other_attribute_is_made_up(self):
        X, y = load_sleepstudy(return_X_y=True)
        model = MixedLinearRegressor(groups="Subject").partial_fit(X, y)
        assert not hasattr(model, "feature_importances_")
        with pytest.raises(AttributeError, match="belongs to a residual structure"):
            _ = model.residual_parameters_
        assert not hasattr(MixedLinearRegressor(), "theta_")


class TestFurtherUse:
    @pytest.mark.parametrize("waiting", [1, 10**6])
    def test_inference_and_predictions(self, waiting):
        X, y = load_sleepstudy(return_X_y=True)
        model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"])
        with letting_go_after(waiting):
            streamed = stream(clone(model), X, y, np.split(np.arange(180), 4))
            model.fit(X, y)
            for table in (coefficient_table, variance_table):
                assert_allclose(
                    table(streamed).select_dtypes("number"),
                    table(model).select_dtypes("number"),
                    rtol=1e-5,
                )
            ours = streamed.predict(X, return_std=True)
            theirs = model.predict(X, return_std=True)
            assert_allclose(ours, theirs, rtol=1e-6)
            assert_allclose(streamed.score(X, y), model.score(X, y))
            smaller = clone(model).set_params(random_slopes=None)
            small = stream(clone(smaller), X, y, np.split(np.arange(180), 3))
            assert_allclose(
                likelihood_ratio_test(small, streamed).p_value,
                likelihood_ratio_test(smaller.fit(X, y), model).p_value,
                rtol=1e-5,
            )

    def test_updates_are_dropped_with_a_warning(self):
        X, y = load_sleepstudy(return_X_y=True)
        model = MixedLinearRegressor(groups="Subject")
        streamed = clone(model).partial_fit(X[:100], y[:100])
        streamed.update_random_effects(X[100:140], y[100:140])
        with pytest.warns(DataWarning, match="partial_fit drops them") as caught:
            streamed.partial_fit(X[140:], y[140:])
        assert caught[0].filename == __file__
        rows = np.r_[:100, 140:180]
        assert_same_fit(streamed, model.fit(X.iloc[rows], y.iloc[rows]))

    def test_slim_estimators_take_no_further_rows(self):
        X, y = load_sleepstudy(return_X_y=True)
        model = MixedLinearRegressor(groups="Subject").partial_fit(X, y)
        slim = model.for_serving()
        assert len(pickle.dumps(slim)) < len(pickle.dumps(model))
        with pytest.raises(ValueError, match=r"made by for_serving\(\)"):
            slim.partial_fit(X, y)
        assert_allclose(slim.predict(X), model.predict(X))

    def test_copies_go_their_own_ways(self):
        X, y = load_sleepstudy(return_X_y=True)
        model = MixedLinearRegressor(groups="Subject").partial_fit(X[:100], y[:100])
        other = copy(model).partial_fit(X[100:], y[100:])
        whole = MixedLinearRegressor(groups="Subject")
        assert_same_fit(model, clone(whole).fit(X[:100], y[:100]))
        assert_same_fit(other, clone(whole).fit(X, y))

    def test_a_solved_stream_holds_its_sums_once(self):
        rng = np.random.default_rng(0)
        codes = np.arange(20_000) // 2
        y = rng.normal(size=10_000)[codes] + rng.normal(size=20_000)
        X = rng.normal(size=(20_000, 3))
        with letting_go_after(1):
            model = MixedLinearRegressor().partial_fit(X, y, groups=codes)
            whole = MixedLinearRegressor().fit(X, y, groups=codes)
            _ = model.coef_
        assert len(pickle.dumps(model)) < 1.1 * len(pickle.dumps(whole))


class TestDigits:
    @pytest.mark.parametrize("waiting", [1, 10**6])
    def test_noise_that_squares_lose(self, waiting):
        X, y, codes, _ = made_up(13)
        y = X.to_numpy() @ [1e5, -1e5] + 1e-2 * y
        whole = MixedLinearRegressor().fit(X, y, groups=codes)
        with letting_go_after(waiting):
            model = stream(MixedLinearRegressor(), X, y, np.split(np.arange(90), 3), groups=codes)
            if waiting == 1:
                with pytest.warns() as caught:
                    assert not model.converged_
                assert any(
                    "pass rows to fit at which it can look again" in str(own.message)
                    for own in caught
                )
            else:
                # While all rows are there they are looked at again, as in fit.
                assert_same_fit(model, whole)

    def test_after_a_fit_that_looked_at_the_rows_again(self):
        X, y, codes, _ = made_up(13)
        y = X.to_numpy() @ [1e5, -1e5] + 1e-2 * y
        y[45:] += np.random.default_rng(0).normal(size=45)
        model = MixedLinearRegressor()
        streamed = clone(model).fit(X[:45], y[:45], groups=codes[:45])
        streamed.partial_fit(X[45:], y[45:], groups=codes[45:])
        model.fit(X, y, groups=codes)
        # What was taken from the response of the first rows is taken from that of all.
        assert_allclose(streamed.coef_, model.coef_, rtol=1e-12)
        assert_same_fit(streamed, model)

    def test_columns_that_are_nearly_the_same(self):
        X, y, codes, _ = made_up(14)
        X = X.assign(w=X["z"] + 3e-5 * np.random.default_rng(0).normal(size=90))
        whole = MixedLinearRegressor().fit(X, y, groups=codes)
        with letting_go_after(1):
            model = stream(MixedLinearRegressor(), X, y, np.split(np.arange(90), 3), groups=codes)
            with pytest.warns(DegenerateModelWarning, match="fewer digits than the rows have"):
                assert model.converged_
        assert_allclose(model.log_likelihood_, whole.log_likelihood_, atol=1e-4)

    def test_weights_that_differ_too_much(self):
        X, y, codes, _ = made_up(15)
        weights = np.where(np.arange(90) < 45, 1e-10, 1.0)
        with letting_go_after(1):
            model = MixedLinearRegressor()
            stream(model, X, y, np.split(np.arange(90), 2), groups=codes, sample_weight=weights)
            with pytest.warns() as caught:
                assert not model.converged_
        assert any("The weights differ by a factor" in str(own.message) for own in caught)

    def test_weights_of_a_fit_and_of_later_rows(self):
        X, y, codes, _ = made_up(16)
        model = MixedLinearRegressor()
        model.fit(X[:45], y[:45], groups=codes[:45], sample_weight=np.full(45, 1e-10))
        model.partial_fit(X[45:], y[45:], groups=codes[45:])
        with pytest.warns() as caught:
            assert not model.converged_
        assert any("The weights differ by a factor" in str(own.message) for own in caught)


class TestFormulas:
    @pytest.fixture
    def rows(self):
        X, y, first, second = made_up(17)
        return X.assign(a=first, kind=np.array(["u", "v", "w"])[second % 3], flag=second > 2), y

    @pytest.mark.parametrize(
        "term",
        [
            "scale(x)",
            "center(x)",
            "poly(x, 2)",
            "bs(x, df=4)",
            "bs(x, knots=[0.0])",
            "cr(x, df=3)",
            "cr(x, knots=[0.0], lower_bound=-9.0, upper_bound=9.0)",
            "ns(x, df=3)",
            "{x - x.mean()}",
            "I(x - np.mean(x))",
            "lag(x)",
            "offset(scale(x))",
        ],
    )
    def test_what_learns_from_rows_is_refused(self, rows, term):
        X, y = rows
        name = term.removeprefix("offset(").strip("{}").partition("(")[0]
        for formula in (f"z + {term} + (1 | a)", f"z + (1 + {term} | a)"):
            if "offset" in formula and formula.startswith("z + (1 + "):
                continue
            model = MixedLinearRegressor(formula=formula)
            with pytest.raises(ValueError, match="of the formula") as caught:
                model.partial_fit(X[:1], y[:1])
            assert name in str(caught.value)
            assert "column of X" in str(caught.value)

    def test_a_response_that_learns_is_refused(self, rows):
        X, y = rows
        model = MixedLinearRegressor(formula="scale(y) ~ x + (1 | a)")
        with pytest.raises(ValueError, match=r"'scale\(y\)' of the formula learns"):
            model.partial_fit(X, pd.Series(y, name="y"))

    def test_fit_that_learnt_is_refused(self, rows):
        X, y = rows
        model = MixedLinearRegressor(formula="scale(x) + (1 | a)").fit(X, y)
        coef = model.coef_
        with pytest.raises(ValueError, match=r"'scale\(x\)' of the formula learns"):
            model.partial_fit(X, y)
        assert model.coef_ is coef

    @pytest.mark.parametrize(
        "term",
        [
            "np.log(x + 9)",
            "I(x**2)",
            "x:z",
            "poly(x, 2, raw=True)",
            "cr(x, knots=[3.0], lower_bound=-9.0, upper_bound=9.0, constraints=None) - 1",
            "np.where(x > 3, 1.0, 0.0)",
        ],
    )
    def test_what_takes_rows_one_by_one_is_taken(self, rows, term):
        X, y = rows
        model = MixedLinearRegressor(formula=f"{term} + (1 | a)")
        with letting_go_after(1):
            assert_same_fit(stream(clone(model), X, y, np.split(np.arange(90), 3)), model.fit(X, y))

    def test_categories_of_the_first_batch(self, rows):
        X, y = rows
        model = MixedLinearRegressor(formula="x + kind + flag + (1 | a)")
        assert_same_fit(stream(clone(model), X, y, np.split(np.arange(90), 3)), model.fit(X, y))

    def test_a_category_that_comes_late(self, rows):
        X, y = rows
        is_early = X["kind"] != "v"
        model = MixedLinearRegressor(formula="x + kind + (1 | a)")
        model.partial_fit(X[is_early], y[is_early])
        with pytest.raises(
            ValueError, match=r"batch 2: The category 'v' of 'kind' \(row 0\)"
        ) as caught:
            model.partial_fit(X[~is_early], y[~is_early])
        assert "frame['kind'] = pd.Categorical(frame['kind'], categories=[...])" in str(
            caught.value
        )
        assert_same_fit(model, clone(model).fit(X[is_early], y[is_early]))

    @pytest.mark.parametrize(
        ("formula", "expression"),
        [
            ("kind + (1 | a)", "kind"),
            ("x + (kind | a)", "kind"),
            ("x + (1 + kind || a)", "kind"),
            ("x + flag + (1 | a)", "flag"),
            ("C(z > -99.0) + (1 | a)", "C(z > -99.0)"),
        ],
    )
    def test_one_category_in_the_first_batch(self, rows, formula, expression):
        X, y = rows
        model = MixedLinearRegressor(formula=formula)
        first = X.assign(kind="u", flag=True)
        with pytest.raises(
            ValueError, match=r"has the one category .* in the first batch"
        ) as caught:
            model.partial_fit(first, y)
        assert f"batch 1: {expression!r} of the formula" in str(caught.value)
        how = f"frame[{expression!r}] = pd.Categorical(frame[{expression!r}], categories=[...])"
        assert ("C(..., levels=[...])" if "(" in expression else how) in str(caught.value)

    @pytest.mark.parametrize(
        "formula", ["kind + (1 | a)", "x + (x + kind | a)", "C(kind) + (1 | a)"]
    )
    def test_one_category_that_is_declared(self, rows, formula):
        X, y = rows
        only = X.assign(kind=pd.Categorical(["u"] * 90, categories=["u"]))
        model = MixedLinearRegressor(formula=formula)
        assert_same_fit(
            stream(clone(model), only, y, [[0, 1], np.arange(2, 90)]), model.fit(only, y)
        )
        for begun in (clone(model).partial_fit(only, y), model):
            with pytest.raises(
                ValueError, match=r"batch \d: The category 'v' of .*kind.* too late"
            ):
                begun.partial_fit(X.assign(kind="v"), y)

    def test_one_level_of_several_that_are_declared(self, rows):
        X, y = rows
        X = X.sort_values("kind", ignore_index=True)
        model = MixedLinearRegressor(formula="C(kind, levels=['u', 'v', 'w']) + (1 | a)")
        assert set(X["kind"][:2]) == {"u"}
        assert_same_fit(stream(clone(model), X, y, [[0, 1], np.arange(2, 90)]), model.fit(X, y))

    @pytest.mark.parametrize("declare", ["pandas", "polars", "arrow"])
    def test_categories_that_are_declared(self, rows, declare):
        X, y = rows
        X = X.sort_values("kind").reset_index(drop=True)
        kinds = X["kind"].tolist()
        if declare == "polars":
            enum = pl.Series(kinds, dtype=pl.Enum(["u", "v", "w"]))
            frame = pl.from_pandas(X).with_columns(enum.alias("kind"))
            batches = [frame[:20], frame[20:]]
        else:
            frame = X.assign(kind=pd.Categorical(kinds, categories=["u", "v", "w"]))
            batches = [frame[:20], frame[20:]]
            if declare == "arrow":
                batches = [pa.Table.from_pandas(own) for own in batches]
        model = MixedLinearRegressor(formula="x + kind + (1 | a)")
        for own, response in zip(batches, (y[:20], y[20:]), strict=True):
            model.partial_fit(own, response)
        assert_same_fit(model, clone(model).fit(X, y))

    def test_a_declared_category_that_never_comes(self, rows):
        X, y = rows
        declared = X.assign(kind=pd.Categorical(X["kind"], categories=["u", "v", "w", "never"]))
        model = MixedLinearRegressor(formula="x + kind + (1 | a)")
        whole = clone(model).fit(X, y)
        model.partial_fit(declared, y)
        with pytest.warns(DegenerateModelWarning, match=r"'kind\[T.never\]' are aliased"):
            coef = model.coef_
        assert_allclose(coef, [*whole.coef_, 0.0], rtol=1e-6)
        assert_allclose(model.predict(X), whole.predict(X))

    def test_rows_of_weight_zero_are_not_read(self, rows):
        X, y = rows
        X.loc[50, ["x", "kind"]] = [np.nan, "late"]
        weights = np.where(np.arange(90) == 50, 0.0, 1.0)
        model = MixedLinearRegressor(formula="x + kind + (1 | a)")
        parts = [np.arange(50), [50], np.arange(51, 80), np.arange(80, 90)]
        streamed = stream(clone(model), X, y, parts, sample_weight=weights)
        assert_same_fit(streamed, model.fit(X, y, sample_weight=weights))
        X.loc[51, "x"] = np.nan
        with pytest.raises(ValueError, match="'x' of the formula has a missing value"):
            streamed.partial_fit(X[45:60], y[45:60], sample_weight=weights[45:60])

    def test_errors_of_the_formula_have_no_batch(self, rows):
        X, y = rows
        with pytest.raises(ValueError, match=r"^The formula names 'nothing'"):
            MixedLinearRegressor(formula="nothing + (1 | a)").partial_fit(X, y)


KILLED = """
import os, pickle, signal, sys
from mixedlearn import MixedLinearRegressor
from mixedlearn.datasets import load_sleepstudy
X, y = load_sleepstudy(return_X_y=True)
model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"])
for batch, start in enumerate(range(0, 180, 30)):
    model.partial_fit(X[start:start + 30], y[start:start + 30])
    with open(sys.argv[1] + ".new", "wb") as file:
        pickle.dump((start + 30, model), file)
    os.replace(sys.argv[1] + ".new", sys.argv[1])
    if batch == 2:
        model.partial_fit(X[start + 30:start + 60], y[start + 30:start + 60])
        os.kill(os.getpid(), signal.SIGKILL)
"""


class TestInterruptions:
    def test_a_killed_stream_goes_on_from_its_pickle(self, tmp_path):
        saved = tmp_path / "model.pickle"
        done = subprocess.run([sys.executable, "-c", KILLED, str(saved)], check=False)
        assert done.returncode == -signal.SIGKILL
        start, model = pickle.loads(saved.read_bytes())
        X, y = load_sleepstudy(return_X_y=True)
        for first in range(start, 180, 45):
            model.partial_fit(X[first : first + 45], y[first : first + 45])
        whole = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
        assert_same_fit(model, whole)

    @pytest.mark.parametrize(
        "place",
        [
            "mixedlearn.data.running.Sums.of",
            "mixedlearn.data.running.RunningSums._check",
            "mixedlearn.estimator.stream_methods.FittedState._set_stream",
        ],
    )
    def test_of_partial_fit(self, place):
        X, y = load_sleepstudy(return_X_y=True)
        with letting_go_after(1):
            model = MixedLinearRegressor(groups="Subject").partial_fit(X[:90], y[:90])
            before = dict(vars(model))
            with (
                mock.patch(place, side_effect=KeyboardInterrupt),
                pytest.raises(KeyboardInterrupt),
            ):
                model.partial_fit(X[90:], y[90:])
            assert vars(model) == before
            model.partial_fit(X[90:], y[90:])
            assert_same_fit(model, MixedLinearRegressor(groups="Subject").fit(X, y))

    def test_of_the_solution(self):
        X, y = load_sleepstudy(return_X_y=True)
        model = MixedLinearRegressor(groups="Subject").partial_fit(X, y)
        before = dict(vars(model))
        with (
            mock.patch("mixedlearn.model.fit.minimise", side_effect=KeyboardInterrupt),
            pytest.raises(KeyboardInterrupt),
        ):
            model.predict(X)
        assert vars(model) == before
        assert_same_fit(model, MixedLinearRegressor(groups="Subject").fit(X, y))

    @pytest.mark.parametrize("begun", ["not", "fit", "partial_fit"])
    def test_of_fit(self, begun):
        X, y = load_sleepstudy(return_X_y=True)
        model = MixedLinearRegressor(groups="Subject")
        if begun != "not":
            getattr(model, begun)(X[:90], y[:90])
        before = dict(vars(model))
        with (
            mock.patch("mixedlearn.model.fit.minimise", side_effect=KeyboardInterrupt),
            pytest.raises(KeyboardInterrupt),
        ):
            model.fit(X.assign(more=1.0 * X["Days"] ** 2), y)
        assert vars(model) == before
        if begun != "not":
            assert_same_fit(model, MixedLinearRegressor(groups="Subject").fit(X[:90], y[:90]))


class TestRouting:
    def test_groups_go_wherever_metadata_are_routed(self, routing):
        X, y, codes, _ = made_up(18)
        Y = np.column_stack([y, -y])
        several = MultiOutputRegressor(MixedLinearRegressor())
        for rows in np.split(np.arange(90), 3):
            several.partial_fit(X.iloc[rows], Y[rows], groups=codes[rows])
        for own, response in zip(several.estimators_, Y.T, strict=True):
            assert_same_fit(own, MixedLinearRegressor().fit(X, response, groups=codes))

    def test_groups_for_a_splitter_are_not_for_a_model_with_a_group_column(self, routing):
        requests = MixedLinearRegressor(groups="a").get_metadata_routing().partial_fit.requests
        assert requests["groups"] is False
        assert requests["offset"] is True

    def test_groups_by_position_are_refused(self):
        X, y, codes, _ = made_up(19)
        with pytest.raises(TypeError, match=r"write partial_fit\(X, y, groups=...\)"):
            MixedLinearRegressor().partial_fit(X, y, codes)
