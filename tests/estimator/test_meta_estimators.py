"""scikit-learn's meta-estimators: every row of the user guide's table works, or says what to do."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import AdaBoostRegressor, BaggingRegressor, StackingRegressor
from sklearn.feature_selection import RFE, RFECV, SelectFromModel, SequentialFeatureSelector
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.multioutput import MultiOutputRegressor, RegressorChain

from mixedlearn import MixedLinearRegressor
from mixedlearn.exceptions import PopulationPredictionWarning

RNG = np.random.default_rng(0)
N = 240
FEATURES = pd.DataFrame(RNG.normal(size=(N, 3)), columns=["weak", "none", "strong"])
GROUPS = RNG.integers(0, 12, N)
Y = 0.8 * FEATURES["weak"] - 2.0 * FEATURES["strong"] + RNG.normal(size=N)
Y = (Y + 3.0 * RNG.normal(size=12)[GROUPS]).to_numpy()
BOTH = np.column_stack([Y, Y + RNG.normal(size=N)])
FIRST = pd.DataFrame({"g": GROUPS}).join(FEATURES)
LAST = FEATURES.assign(g=GROUPS)
BY_NAME = MixedLinearRegressor(groups="g")
AT_START, AT_END = MixedLinearRegressor(groups=0), MixedLinearRegressor(groups=-1)
BESIDE = MixedLinearRegressor()

PREDICTING = {
    "bagging": lambda model: BaggingRegressor(model, n_estimators=5, random_state=0),
    "adaboost": lambda model: AdaBoostRegressor(model, n_estimators=3, random_state=0),
    "chain": RegressorChain,
    "several responses": MultiOutputRegressor,
    "target": TransformedTargetRegressor,
    "stacking": lambda model: StackingRegressor([("m", model)], LinearRegression(), cv=3),
}
LOSE_NAMES = ["bagging", "adaboost", "chain"]


def subsets(model):
    return BaggingRegressor(model, n_estimators=5, max_features=2, random_state=0)


def elimination(model):
    return RFE(model, n_features_to_select=2)


def elimination_by_folds(model):
    return RFECV(model, min_features_to_select=2, cv=3)


def from_model(model):
    return SelectFromModel(model, threshold=-np.inf, max_features=2)


def forward(model):
    return SequentialFeatureSelector(model, n_features_to_select=2, cv=3)


def response_of(name):
    return BOTH if name in ("chain", "several responses") else Y


def knows_the_groups(fitted, X, y):
    """The population alone explains less than half."""
    return r2_score(y, fitted.predict(X)) > 0.75


@pytest.mark.parametrize("name", PREDICTING)
def test_a_group_column_by_name(name):
    y = response_of(name)
    if name in LOSE_NAMES:
        with pytest.raises(ValueError, match=r"'g', which X does not have.*the labels beside X"):
            PREDICTING[name](BY_NAME).fit(LAST, y)
    else:
        assert knows_the_groups(PREDICTING[name](BY_NAME).fit(LAST, y), LAST, y)


@pytest.mark.parametrize("name", PREDICTING)
def test_a_group_column_by_position(name):
    X, y = FIRST.to_numpy(), response_of(name)
    assert knows_the_groups(PREDICTING[name](AT_START).fit(X, y), X, y)


def test_a_position_from_the_end_in_a_chain():
    with pytest.raises(ValueError, match=r"given 4 columns and hands on 5.*from the first column"):
        RegressorChain(AT_END).fit(LAST.to_numpy(), BOTH)


@pytest.mark.parametrize("model", [AT_START, AT_END], ids=["start", "end"])
def test_a_position_beside_predictions(model):
    stacking = StackingRegressor(
        [("m", LinearRegression())], final_estimator=model, passthrough=True, cv=3
    )
    with pytest.raises(ValueError, match=r"given 4 columns and hands on 5.*Pass the labels"):
        stacking.fit(FIRST.to_numpy(), Y)


@pytest.mark.parametrize(("model", "X"), [(AT_START, FIRST), (AT_END, LAST)])
def test_bagging_of_columns_says_that_it_loses_the_group_column(model, X):
    with pytest.raises(ValueError, match=r"Bagging.* 4 columns and hands on 2.*groups=labels"):
        subsets(model).fit(X.to_numpy(), Y)
    with pytest.raises(ValueError, match="'g', which X does not have"):
        subsets(BY_NAME).fit(X, Y)


@pytest.mark.parametrize("select", [elimination, elimination_by_folds, from_model])
@pytest.mark.parametrize(
    ("model", "X"),
    [
        (AT_START, FIRST.to_numpy()),
        (AT_END, LAST.to_numpy()),
        (MixedLinearRegressor(fixed_effects=[2, 0], groups=3), LAST.to_numpy()),
    ],
)
def test_selectors_by_coefficient_refuse_a_group_column(select, model, X):
    with pytest.raises(ValueError, match=r"the k-th column of X.*groups=labels\)"):
        select(model).fit(X, Y).get_support()


def test_selection_from_a_model_by_name_or_formula_is_refused():
    for model in (BY_NAME, MixedLinearRegressor(formula="strong + weak + none + (1 | g)")):
        with pytest.raises(ValueError, match=r"coef_ has 3 values and X 4 columns"):
            from_model(model).fit(LAST, Y).get_support()


@pytest.mark.parametrize("select", [elimination, from_model])
def test_selectors_by_coefficient_with_labels_beside_the_columns(select):
    fitted = select(BESIDE).fit(FEATURES, Y, groups=GROUPS)
    assert fitted.get_support().tolist() == [True, False, True]
    assert fitted.estimator_.n_groups_ == {"group": 12}
    with sklearn.config_context(enable_metadata_routing=True):
        fitted = select(BESIDE).fit(FEATURES, Y, groups=GROUPS)
    assert fitted.get_support().tolist() == [True, False, True]


@pytest.mark.filterwarnings("ignore::mixedlearn.exceptions.PopulationPredictionWarning")
def test_selectors_by_folds_with_routing():
    with sklearn.config_context(enable_metadata_routing=True):
        for select in (elimination_by_folds, forward):
            fitted = select(BESIDE).fit(FEATURES, Y, groups=GROUPS)
            assert fitted.get_support().tolist() == [True, False, True]


def test_forward_selection_refuses_what_is_no_label():
    for model, X in ((AT_START, FIRST), (AT_END, LAST)):
        with pytest.raises(ValueError, match="4 columns and hands on 1"):
            forward(model).fit(X.to_numpy(), Y)


@pytest.mark.filterwarnings("default::mixedlearn.exceptions.PopulationPredictionWarning")
@pytest.mark.parametrize("name", PREDICTING)
def test_labels_beside_the_columns_reach_fit_alone(name):
    y = response_of(name)
    with sklearn.config_context(enable_metadata_routing=True):
        meta = PREDICTING[name](BESIDE)
        if name in ("adaboost", "stacking"):
            with pytest.raises(TypeError, match="groups"):
                meta.fit(FEATURES, y, groups=GROUPS)
            return
        fitted = meta.fit(FEATURES, y, groups=GROUPS)
        with pytest.warns(PopulationPredictionWarning):
            fitted.predict(FEATURES)


def test_a_column_is_read_as_ever_by_everybody_else():
    model = BY_NAME.fit(LAST, Y)
    assert hasattr(model, "coef_")
    assert not hasattr(MixedLinearRegressor(), "coef_")
    np.testing.assert_allclose(
        model.predict(LAST, random_effects="none"),
        FEATURES.to_numpy() @ model.coef_ + model.intercept_,
    )
