"""Later rows of one factor, in any parts: what is known of a level is what all its rows tell.

The reference is the model whose BLUPs are computed from the sums of all rows at once; that one is
checked against dense matrices in `test_updating`.
"""

import copy
import pickle
import threading
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixedlearn import MixedLinearRegressor
from mixedlearn.datasets import load_sleepstudy
from mixedlearn.estimator.view import Fitted
from mixedlearn.model.known import Known

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
N_LEVELS = 12

MODELS = {
    "column": {"groups": "g", "random_slopes": ["x0"]},
    "interaction": {"groups": [("g", "h")]},
    "slopes alone": {"groups": "g", "random_slopes": ["x0", "x1"], "random_intercept": False},
    "diagonal": {"groups": "g", "random_slopes": ["x0"], "covariance": "diagonal"},
    "text": {"groups": "t"},
}


def rows(levels, seed):
    rng = np.random.default_rng(seed)
    levels = np.asarray(levels)
    frame = pd.DataFrame(rng.normal([30.0, 0.0], 1.0, (len(levels), 2)), columns=["x0", "x1"])
    frame["g"], frame["h"], frame["t"] = levels, levels % 3, [f"level {own}" for own in levels]
    effects = np.random.default_rng(1).standard_normal((200, 2))[levels]
    y = frame["x0"] + effects[:, 0] + effects[:, 1] * (frame["x0"] - 30.0)
    return frame, (y + rng.standard_normal(len(levels))).to_numpy(), rng.uniform(0.3, 3.0, len(y))


FITTED = rows(np.repeat(np.arange(N_LEVELS), 6), 0)
ESTIMATORS = {
    name: MixedLinearRegressor(fixed_effects=["x0", "x1"], **arguments).fit(
        *FITTED[:2], sample_weight=FITTED[2]
    )
    for name, arguments in MODELS.items()
}


@pytest.mark.parametrize("name", MODELS)
@settings(deadline=None, max_examples=6)
@given(
    batches=st.lists(
        st.lists(st.integers(0, 3 * N_LEVELS), min_size=1, max_size=5), min_size=1, max_size=12
    )
)
def test_rows_in_any_parts(name, batches):
    parts = copy.deepcopy(ESTIMATORS[name])
    added = [rows(batch, seed) for seed, batch in enumerate(batches, start=1)]
    for frame, y, weights in added:
        parts.update_random_effects(frame, y, sample_weight=weights)
    frame, y, weights = (
        pd.concat([own[0] for own in added]),
        *(np.concatenate([own[k] for own in added]) for k in (1, 2)),
    )
    at_once = copy.deepcopy(ESTIMATORS[name]).update_random_effects(frame, y, sample_weight=weights)
    at = rows(np.arange(3 * N_LEVELS + 5), 99)[0]
    whole = parts._fitted.model
    for found, other in zip(
        parts.predict(at, return_std=True), at_once.predict(at, return_std=True), strict=True
    ):
        np.testing.assert_allclose(found, other, **CLOSE)
    (factor,) = whole.specification.factor_names
    # It has all rows in one sum.
    reference = copy.copy(parts)
    reference._set_fitted(Fitted(Known(whole), None))
    for found, other in zip(
        parts.predict(at, return_std=True), reference.predict(at, return_std=True), strict=True
    ):
        np.testing.assert_allclose(found, other, **CLOSE)
    assert parts.n_groups_ == {factor: len(parts.random_effects_[factor])}
    assert set(parts.random_effects_[factor].index) >= set(
        ESTIMATORS[name].random_effects_[factor].index
    )
    again = pickle.loads(pickle.dumps(parts))
    np.testing.assert_array_equal(again.predict(at), parts.predict(at))
    again.update_random_effects(frame, y)
    np.testing.assert_allclose(
        again.predict(at), parts.update_random_effects(frame, y).predict(at), **CLOSE
    )


def large(n_levels):
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(n_levels), 2)
    frame = pd.DataFrame({"x": rng.standard_normal(len(g)), "g": g, "a": g // 100, "b": g % 100})
    return frame, frame["x"] + rng.standard_normal(n_levels)[g] + rng.standard_normal(len(g))


def most_memory(work):
    tracemalloc.start()
    work()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


@pytest.mark.parametrize("groups", ["g", [("a", "b")]])
def test_one_row_does_not_pass_over_the_levels(groups):
    """Neither a prediction nor an update makes an array of all levels, after the first of each."""
    n_levels = 40_000
    frame, y = large(n_levels)
    model = MixedLinearRegressor(groups=groups, fixed_effects=["x"]).fit(frame, y)
    known, new = frame.iloc[[5]], frame.iloc[[5]].assign(g=-1, a=-1)
    model.predict(known, return_std=True)
    model.update_random_effects(known, [1.0])
    for row in (known, new, known):
        assert most_memory(lambda row=row: model.update_random_effects(row, [1.0])) < n_levels
        assert most_memory(lambda row=row: model.predict(row, return_std=True)) < n_levels
        assert most_memory(lambda: model.n_groups_) < n_levels
    assert next(iter(model.n_groups_.values())) == n_levels + 1


@pytest.mark.parametrize("groups", ["g", ["a", "b"]])
def test_a_pickle_grows_by_the_new_rows(groups):
    def growth(n_levels):
        frame, y = large(n_levels)
        model = MixedLinearRegressor(groups=groups, fixed_effects=["x"]).fit(frame, y)
        before = len(pickle.dumps(model))
        for label in range(5):
            row = frame.iloc[[label]].assign(g=-1 - label, a=-1 - label)
            model.update_random_effects(row, [1.0])
        model.predict(frame, return_std=True)
        return len(pickle.dumps(model)) - before

    small, much = growth(300), growth(3000)
    assert 0 < small < 6000
    assert abs(much - small) < 500


def test_many_single_rows_leave_few_layers():
    model = copy.deepcopy(ESTIMATORS["column"])
    for label in range(200):
        model.update_random_effects(*rows([label % 150], label)[:2])
    sizes = [len(layer.blups) for layer in model._fitted.known.layers]
    assert sum(sizes) <= 200
    assert len(sizes) <= 5
    assert model.n_groups_ == {"g": 150}


def test_labels_of_two_kinds_one_after_the_other():
    model = copy.deepcopy(ESTIMATORS["column"])
    frame, y, _ = rows([1, 2, 50], 5)
    with pytest.warns(UserWarning, match="All levels of 'g' are new: here they are text"):
        model.update_random_effects(frame.assign(g=["1", "2", "50"]), y)
    assert model.n_groups_ == {"g": N_LEVELS + 3}
    model.update_random_effects(frame.assign(g=["1", "x", "50"]), y)
    model.update_random_effects(frame.astype({"g": float}), y)
    assert model.n_groups_ == {"g": N_LEVELS + 5}
    mixed = frame.assign(g=np.array([1, "2", 50.0], dtype=object))
    assert (model.predict(mixed) != model.predict(mixed, random_effects="none")).all()


def test_no_rows_of_positive_weight_are_refused_and_change_nothing():
    model = copy.deepcopy(ESTIMATORS["column"])
    frame, y, _ = rows([1, 2], 5)
    before = model.predict(frame)
    with pytest.raises(ValueError, match="weight"):
        model.update_random_effects(frame, y, sample_weight=[0.0, 0.0])
    np.testing.assert_array_equal(model.predict(frame), before)


def test_standard_deviations_while_updating_are_of_a_state_that_existed():
    X, y = load_sleepstudy(return_X_y=True)
    model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    at = X.iloc[::10]
    states, found, failures = [], set(), []
    is_done = threading.Event()

    def state():
        return np.stack(model.predict(at, return_std=True)).tobytes()

    def predict():
        try:
            while not is_done.is_set():
                found.add(state())
        except Exception as error:
            failures.append(error)

    states.append(state())
    threads = [threading.Thread(target=predict) for _ in range(2)]
    for thread in threads:
        thread.start()
    for k in range(40):
        row = X.iloc[[k * 4]] if k % 2 else X.iloc[[k]].assign(Subject=1000 - k)
        model.update_random_effects(row, [y.iloc[k]])
        states.append(state())
    is_done.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert found <= set(states)
