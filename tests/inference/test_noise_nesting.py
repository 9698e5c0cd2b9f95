"""Likelihood-ratio tests of models with residual structures, and which are nested."""

import json
from pathlib import Path

import pytest

from mixedlearn import lmer
from mixedlearn.datasets import load_orthodont
from mixedlearn.inference import likelihood_ratio_test
from mixedlearn.residual import (
    AR1,
    Antedependence,
    CompoundSymmetry,
    ContinuousAR1,
    Power,
    Stratified,
    Toeplitz,
    Unstructured,
)

FOLDER = Path(__file__).parent.parent / "reference"
REFERENCE = json.loads((FOLDER / "residual_structures.json").read_text(encoding="utf-8"))
DATA = load_orthodont().frame.assign(visit=lambda own: own["age"] // 2 - 4)
STRUCTURES = {
    "none": None,
    "ar1": AR1(time="visit"),
    "years": ContinuousAR1(time="age"),
    "cs": CompoundSymmetry(),
    "heterogeneous cs": CompoundSymmetry(time="visit", variance="heterogeneous"),
    "heterogeneous ar1": AR1(time="visit", variance="heterogeneous"),
    "toeplitz": Toeplitz(time="visit"),
    "antedependence": Antedependence(time="visit"),
    "unstructured": Unstructured(time="visit"),
    "unstructured by sex": Unstructured(time="visit", by="Sex"),
    "strata": Stratified(by="Sex"),
    "power": Power(of="age"),
    "ar1 by sex": AR1(time="visit", by="Sex"),
}
NESTED = [
    *(("none", name, df) for name, df in [("ar1", 1), ("strata", 1), ("unstructured", 9)]),
    ("ar1", "heterogeneous ar1", 3),
    ("ar1", "toeplitz", 2),
    ("ar1", "antedependence", 2),
    ("ar1", "ar1 by sex", 2),
    ("years", "toeplitz", 2),
    ("cs", "heterogeneous cs", 3),
    ("cs", "toeplitz", 2),
    ("toeplitz", "unstructured", 6),
    ("antedependence", "unstructured", 6),
    ("heterogeneous ar1", "unstructured", 5),
    ("unstructured", "unstructured by sex", 10),
    ("strata", "ar1 by sex", 2),
    # Its variances are some that depend on the visit.
    ("power", "heterogeneous ar1", 3),
    ("power", "unstructured", 8),
]
NOT_NESTED = [
    ("ar1", "cs"),
    ("ar1", "strata"),
    ("cs", "antedependence"),
    ("cs", "heterogeneous ar1"),
    ("heterogeneous ar1", "toeplitz"),
    ("strata", "unstructured"),
    ("ar1 by sex", "unstructured"),
    ("strata", "power"),
]


@pytest.fixture(scope="module")
def models():
    found = {}
    for name, residual in STRUCTURES.items():
        has_series = residual is not None and not isinstance(residual, (Stratified, Power))
        groups = "Subject" if has_series else None
        formula = "distance ~ age * Sex"
        if residual is None:
            # As the others, without random effects and without groups.
            with pytest.warns(UserWarning, match="no random terms"):
                found[name] = lmer(formula, DATA, reml=False)
            continue
        found[name] = lmer(formula, DATA, groups=groups, residual=residual, reml=False)
    return found


@pytest.mark.parametrize(("smaller", "larger", "df"), NESTED)
def test_special_cases_are_nested(models, smaller, larger, df):
    test = likelihood_ratio_test(models[larger], models[smaller])
    gain = 2.0 * (models[larger].log_likelihood_ - models[smaller].log_likelihood_)
    assert test.df == df
    assert test.statistic == pytest.approx(gain)


@pytest.mark.parametrize(("one", "other"), NOT_NESTED)
def test_others_are_not(models, one, other):
    with pytest.raises(ValueError, match="not nested: the residual structure"):
        likelihood_ratio_test(models[one], models[other])


def test_the_same_structure_by_another_name_is_the_same_model(models):
    with pytest.raises(ValueError, match="are the same"):
        likelihood_ratio_test(models["ar1"], models["years"])


def test_the_statistic_is_the_difference_of_the_criteria_of_nlme():
    fits = [
        lmer("distance ~ age * Sex", DATA, groups="Subject", residual=STRUCTURES[name])
        for name in ("cs", "unstructured")
    ]
    test = likelihood_ratio_test(*fits)
    smaller, larger = (
        REFERENCE[name]["ML"]["criterion"] for name in ("orthodont_compound", "orthodont_symmetric")
    )
    assert test.is_refitted
    assert test.statistic == pytest.approx(smaller - larger, abs=1e-5)


def test_fixed_effects_are_tested_beside_the_same_structure(models):
    smaller = lmer(
        "distance ~ age + Sex", DATA, groups="Subject", residual=AR1(time="visit"), reml=False
    )
    test = likelihood_ratio_test(smaller, models["ar1"])
    assert test.df == 1
    assert test.statistic > 0.0


def test_a_random_intercept_is_tested_beside_a_structure():
    smaller = lmer("distance ~ age", DATA, groups="Subject", residual=AR1(time="visit"))
    larger = lmer("distance ~ age + (1 | Subject)", DATA, residual=AR1(time="visit"))
    test = likelihood_ratio_test(smaller, larger)
    assert test.df == 1
    assert test.p_value_mixture == pytest.approx(test.p_value / 2.0)


def test_rows_in_another_order_are_refused(models):
    shuffled = lmer(
        "distance ~ age * Sex",
        DATA.sample(frac=1.0, random_state=0),
        groups="Subject",
        residual=Toeplitz(time="visit"),
        reml=False,
    )
    with pytest.raises(ValueError, match="rows are in different orders"):
        likelihood_ratio_test(models["ar1"], shuffled)
