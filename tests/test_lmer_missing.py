"""`lmer(..., missing="drop")` leaves out incomplete rows and says how many they are."""

import numpy as np
import pandas as pd
import pytest

from mixedlearn import lmer
from mixedlearn.datasets import load_sleepstudy
from mixedlearn.exceptions import DataWarning

STUDY = load_sleepstudy().frame
GAPS = STUDY.assign(
    Reaction=STUDY["Reaction"].where(STUDY.index % 17 != 3),
    Days=STUDY["Days"].astype(float).where(STUDY.index % 31 != 5),
    Subject=STUDY["Subject"].astype(object).where(STUDY.index != 100, None),
    other=np.nan,
)
COMPLETE = GAPS[["Reaction", "Days", "Subject"]].notna().all(axis=1)
COUNTS = "18 of 180 rows .*: 6 in 'Days', 1 in 'Subject', 11 in 'Reaction'"


@pytest.mark.parametrize(
    "formula",
    [
        "Reaction ~ Days + (1 + Days | Subject)",
        "np.log(Reaction) ~ poly(Days, 2) + (1 | Subject)",
    ],
)
def test_the_complete_rows_are_fitted(formula):
    with pytest.warns(DataWarning, match=COUNTS) as caught:
        model = lmer(formula, GAPS, missing="drop")
    assert [warning.filename for warning in caught] == [__file__]
    expected = lmer(formula, GAPS[COMPLETE])
    assert model.log_likelihood_ == expected.log_likelihood_
    np.testing.assert_array_equal(model.predict(STUDY), expected.predict(STUDY))


def test_weights_go_with_their_rows():
    weights = pd.Series(1.0 + STUDY.index % 3).where(STUDY.index != 7)
    formula = "Reaction ~ Days + (1 | Subject)"
    with pytest.warns(DataWarning, match="1 in 'sample_weight'"):
        model = lmer(formula, GAPS, missing="drop", sample_weight=weights)
    kept = COMPLETE & weights.notna()
    expected = lmer(formula, GAPS[kept], sample_weight=weights[kept])
    assert model.log_likelihood_ == expected.log_likelihood_


def test_complete_rows_stay_without_a_word():
    formula = "Reaction ~ Days + (1 | Subject)"
    model = lmer(formula, STUDY.assign(other=np.nan), missing="drop")
    assert model.log_likelihood_ == lmer(formula, STUDY).log_likelihood_


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "missing value"),
        ({"missing": "omit"}, "missing must be 'error' or 'drop', got 'omit'"),
        ({"missing": "drop", "sample_weight": [1.0, 2.0]}, r"shape \(2,\), but data has 180 rows"),
    ],
    ids=str,
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        lmer("Reaction ~ Days + (1 | Subject)", GAPS, **arguments)


def test_a_column_that_is_missing_altogether():
    with pytest.raises(ValueError, match=r"Every row misses a value: .*180 in 'other'"):
        lmer("Reaction ~ other + (1 | Subject)", GAPS, missing="drop")
