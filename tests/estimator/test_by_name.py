"""Groups and weights are passed by name: a third argument is weights to scikit-learn."""

import inspect

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from mixedlearn import MixedLinearRegressor
from mixedlearn.datasets import load_sleepstudy
from mixedlearn.inference import influence, residuals
from mixedlearn.metrics import GroupsScorer

X, Y = load_sleepstudy(return_X_y=True)
DAYS, PEOPLE = X[["Days"]], X["Subject"]
MODEL = MixedLinearRegressor().fit(DAYS, Y, groups=PEOPLE)
COUNTS = np.random.default_rng(0).integers(1, 4, len(Y))


@pytest.mark.parametrize("method", ["fit", "score", "update_random_effects"])
def test_counts_do_not_become_groups(method):
    LinearRegression().fit(DAYS, Y, COUNTS)
    wanted = (
        f"{method} takes X, y by position and groups and sample_weight by name, but got 3 "
        rf"positional arguments: write {method}\(X, y, groups=...\) or "
        rf"{method}\(X, y, sample_weight=...\)"
    )
    with pytest.raises(TypeError, match=wanted):
        getattr(MODEL, method)(DAYS, Y, COUNTS)


@pytest.mark.parametrize("method", ["predict", "describe"])
def test_methods_without_weights_name_groups_alone(method):
    with pytest.raises(TypeError, match=rf"takes X by position and groups by name.*{method}\(X, g"):
        getattr(MODEL, method)(DAYS, PEOPLE)


def test_samples_take_their_number_by_position_as_in_scikit_learn():
    assert MODEL.sample_y(DAYS, 3, 0, groups=PEOPLE).shape == (len(Y), 3)
    with pytest.raises(TypeError, match="sample_y takes X, n_samples, random_state by position"):
        MODEL.sample_y(DAYS, 3, 0, PEOPLE)


@pytest.mark.parametrize(
    "call",
    [
        lambda: residuals(MODEL, DAYS, Y, PEOPLE),
        lambda: influence(MODEL, DAYS, Y, PEOPLE),
        lambda: GroupsScorer()(MODEL, DAYS, Y, PEOPLE),
    ],
)
def test_functions_take_them_by_name_too(call):
    with pytest.raises(TypeError, match="positional argument"):
        call()


def test_signatures_show_it():
    for method in ("fit", "predict", "score", "update_random_effects", "describe"):
        parameters = inspect.signature(getattr(MixedLinearRegressor, method)).parameters
        for name in {"groups", "sample_weight"} & set(parameters):
            assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
