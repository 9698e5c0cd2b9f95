"""Tests of a small trial with repeated measurements: their p-values where nothing is the matter.

Two arms of 12 patients, four visits; four patients of each arm leave early. Without an effect of
the treatment a p-value is uniform.
"""

import functools
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, kstest

from helpers.chance import RATE
from mixedlearn import MixedLinearRegressor
from mixedlearn.inference import contrast_test
from mixedlearn.residual import AR1, Unstructured

N_PATIENTS, N_VISITS, LEVEL = 24, 4, 0.05
N_TRIALS = 2_000
LEAVES_AFTER = np.tile([2, 2, 3, 3] + [4] * 8, 2)
PATIENT, VISIT = np.nonzero(np.arange(N_VISITS) < LEAVES_AFTER[:, None])
UNEQUAL = np.array(
    [[1.0, 0.6, 0.5, 0.3], [0.6, 1.5, 0.9, 0.7], [0.5, 0.9, 2.0, 1.4], [0.3, 0.7, 1.4, 3.0]]
)
VISITS = np.arange(N_VISITS)
STRUCTURES = {
    "unstructured": (Unstructured(time="visit"), UNEQUAL),
    "ar1 beside an intercept": (
        AR1(time="visit"),
        1.0 + 0.5 ** np.abs(VISITS[:, None] - VISITS),
    ),
}
# The arm, the visits and their interaction.
DESIGN = pd.DataFrame({"arm": (PATIENT >= N_PATIENTS // 2).astype(float)})
for visit in VISITS[1:]:
    DESIGN[f"visit {visit}"] = (visit == VISIT).astype(float)
    DESIGN[f"arm at {visit}"] = DESIGN["arm"] * DESIGN[f"visit {visit}"]
EFFECTS = list(DESIGN.columns)
INTERACTION = [{f"arm at {visit}": 1.0} for visit in VISITS[1:]]
QUESTIONS = {
    "interaction": pd.DataFrame(INTERACTION).fillna(0.0),
    "last visit": {"arm": 1.0, "arm at 3": 1.0},
}
METHODS = ("kenward-roger", "satterthwaite", "normal")


@functools.cache
def p_values(name):
    """The p-values of every question and method, a row for every trial."""
    residual, covariance = STRUCTURES[name]
    rng = np.random.default_rng(20260301)
    root = np.linalg.cholesky(covariance)
    X = DESIGN.assign(visit=VISIT)
    model = MixedLinearRegressor(
        fixed_effects=EFFECTS, random_intercept=name != "unstructured", residual=residual
    )
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(N_TRIALS):
            y = (rng.standard_normal((N_PATIENTS, N_VISITS)) @ root.T)[PATIENT, VISIT]
            model.fit(X, y, groups=PATIENT)
            found.append(
                {
                    (question, method): contrast_test(model, L, ddf=method).p_value
                    for question, L in QUESTIONS.items()
                    for method in METHODS
                }
            )
    return pd.DataFrame(found)


def most_rejections(share):
    """What a test that rejects so often exceeds in one of 10,000 cases."""
    return binom.isf(RATE / 2, N_TRIALS, share)


@pytest.mark.slow
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("name", STRUCTURES)
def test_p_values_by_kenward_and_roger_are_uniform(name, question):
    """But for a fifth of the level, the most that the approximation may be off here."""
    p_value = p_values(name)[question, "kenward-roger"]
    n_rejections = (p_value < LEVEL).sum()
    assert binom.ppf(RATE / 2, N_TRIALS, 0.8 * LEVEL) <= n_rejections
    assert n_rejections <= most_rejections(1.2 * LEVEL)
    assert kstest(p_value, "uniform").pvalue > RATE / 2


LIBERAL = [("interaction", "normal"), ("last visit", "normal"), ("interaction", "satterthwaite")]


@pytest.mark.slow
@pytest.mark.parametrize(("question", "method"), LIBERAL)
def test_other_p_values_of_an_unstructured_covariance_are_too_small(question, method):
    p_value = p_values("unstructured")[question, method]
    assert (p_value < LEVEL).sum() > most_rejections(1.2 * LEVEL)


@pytest.mark.slow
@pytest.mark.parametrize("name", STRUCTURES)
def test_no_method_has_larger_p_values_than_kenward_and_roger(name):
    found = p_values(name)
    for question in QUESTIONS:
        largest = found[question, "kenward-roger"]
        assert (found[question, "normal"] <= largest + 1e-12).all()
    assert (found["last visit", "satterthwaite"] <= found["last visit", "kenward-roger"]).all()
