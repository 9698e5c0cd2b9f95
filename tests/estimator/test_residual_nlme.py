"""Models with residual structures against nlme, by REML and by ML."""

import json
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from mixedlearn import MixedLinearRegressor, datasets, lmer
from mixedlearn.inference import coefficient_table
from mixedlearn.residual import (
    AR1,
    CompoundSymmetry,
    ContinuousAR1,
    Power,
    Stratified,
    Unstructured,
)

PATH = Path(__file__).parent.parent / "reference" / "residual_structures.json"
REFERENCE = json.loads(PATH.read_text(encoding="utf-8"))


class Model(NamedTuple):
    """What ``make_residual_structures.R`` fits under the same name."""

    formula: str
    data: str
    residual: object
    groups: str | None = None


WAVES = "follicles ~ np.sin(2 * np.pi * Time) + np.cos(2 * np.pi * Time)"
GROWTH = "distance ~ age * C(Sex, Treatment('Male'))"
CUBIC = "rate ~ (pressure + I(pressure**2) + I(pressure**3)) * C(QB)"
QUARTIC = "rate ~ (pressure + I(pressure**2) + I(pressure**3) + I(pressure**4)) * C(QB)"
WEIGHT = "weight ~ Time * Diet"
PROTEIN = "protein ~ Diet + Time"
SIZE = "size ~ Time * treat"
VISITS = "size ~ C(Time) * treat"
LOG_SIZE = "logSize ~ C(days)"
REACTION = "Reaction ~ Days"

by_day = AR1(time="Days")
by_time = ContinuousAR1(time="Time")
by_power = AR1(time="index", variance=Power(of="pressure"))
MODELS = {
    "ovary_gls": Model(WAVES, "ovary", AR1(time="Day"), "Mare"),
    "ovary_lme": Model(f"{WAVES} + (1 | Mare)", "ovary", AR1(time="Day")),
    "orthodont_symmetric": Model(GROWTH, "orthodont", Unstructured(time="age"), "Subject"),
    "orthodont_compound": Model(GROWTH, "orthodont", CompoundSymmetry(), "Subject"),
    "orthodont_compound_strata": Model(
        GROWTH, "orthodont", CompoundSymmetry(variance=Stratified(by="Sex")), "Subject"
    ),
    "orthodont_ar1": Model(
        GROWTH, "orthodont", AR1(time="visit", variance="heterogeneous"), "Subject"
    ),
    "orthodont_strata": Model(f"{GROWTH} + (1 | Subject)", "orthodont", Stratified(by="Sex")),
    "orthodont_power": Model(GROWTH, "orthodont", Power(of="age")),
    "bodyweight_continuous": Model(WEIGHT, "bodyweight", by_time, "Rat"),
    "bodyweight_lme": Model(f"{WEIGHT} + (Time | Rat)", "bodyweight", by_time),
    "bodyweight_lme_power": Model(
        f"{WEIGHT} + (1 | Rat)", "bodyweight", ContinuousAR1(time="Time", variance=Power("Time"))
    ),
    "dialyzer_power": Model(CUBIC, "dialyzer", by_power, "Subject"),
    "dialyzer_lme": Model(f"{CUBIC} + (1 | Subject)", "dialyzer", by_power),
    "dialyzer_lme_power": Model(
        f"{QUARTIC} + (pressure + I(pressure**2) | Subject)", "dialyzer", Power(of="pressure")
    ),
    "milk_gls": Model(PROTEIN, "milk", AR1(time="Time"), "Cow"),
    "milk_lme": Model(f"{PROTEIN} + (1 | Cow)", "milk", AR1(time="Time")),
    "sitka_gls": Model(SIZE, "sitka", by_time, "tree"),
    "sitka_symmetric": Model(VISITS, "sitka", Unstructured(time="Time"), "tree"),
    "sitka_dropout": Model(VISITS, "dropout", Unstructured(time="Time"), "tree"),
    "sitka_compound": Model(
        VISITS, "sitka", CompoundSymmetry(time="Time", variance="heterogeneous"), "tree"
    ),
    "sitka_lme": Model(f"{SIZE} + (1 | tree)", "sitka", by_time),
    "spruce_gls": Model(LOG_SIZE, "spruce", ContinuousAR1(time="days"), "Tree"),
    "spruce_lme": Model(f"{LOG_SIZE} + (1 | Tree)", "spruce", ContinuousAR1(time="days")),
    "sleepstudy_gls": Model(REACTION, "sleepstudy", by_day, "Subject"),
    "sleepstudy_lme": Model(f"{REACTION} + (Days | Subject)", "sleepstudy", by_day),
    "gaps_gls": Model(REACTION, "gaps", by_day, "Subject"),
    "gaps_lme": Model(f"{REACTION} + (Days | Subject)", "gaps", by_day),
    "one_row_gls": Model(REACTION, "one_row", by_day, "Subject"),
    "one_row_lme": Model(f"{REACTION} + (1 | Subject)", "one_row", by_day),
    "dyestuff2_compound": Model("Yield ~ 1", "dyestuff2", CompoundSymmetry(), "Batch"),
}
# The optimum has a correlation of one between the random effects, which nlme cannot reach.
STOPPED_EARLY = {"sleepstudy_lme"}


def frame(name: str) -> pd.DataFrame:
    if name == "dropout":
        trees = frame("sitka")
        stay = trees["tree"] % 4 != 0
        return trees[stay | (trees["visit"] <= 1 + trees["tree"] % 3)]
    if name == "gaps":
        people = frame("sleepstudy")
        return people[~np.isin(np.arange(len(people)) % 7, [2, 3])]
    if name == "one_row":
        people = frame("sleepstudy")
        return people[~people["Subject"].isin([308, 309, 310]) | (people["Days"] == 0)]
    data = getattr(datasets, f"load_{name}")().frame
    if name == "sitka":
        data["visit"] = data["Time"].rank(method="dense").astype(int)
    if name == "orthodont":
        data["visit"] = data["age"] // 2
    return data


def fitted(name: str, reml: bool = True) -> MixedLinearRegressor:
    formula, data, residual, groups = MODELS[name]
    return lmer(formula, frame(data), reml=reml, groups=groups, residual=residual)


def correlations(model: MixedLinearRegressor) -> list[float]:
    """In nlme's order: pair by pair, by the first of the two."""
    own = model.residual_parameters_
    if not isinstance(model.residual, Unstructured):
        return [value for name, value in own.items() if "correlation" in name]
    occasions = model.residual_covariance_.index
    return [own[f"correlation of {a} and {b}"] for a, b in combinations(occasions, 2)]


def variances(model: MixedLinearRegressor) -> list[float]:
    """As nlme has them: powers, and ratios of standard deviations to the first."""
    own = model.residual_parameters_
    powers = [value for name, value in own.items() if name.startswith("power")]
    ratios = [value for name, value in own.items() if name.startswith("variance ratio")]
    free = np.array([value for name, value in own.items() if name.startswith("variance of")])
    return [*powers, *np.sqrt(ratios), *np.sqrt(free[1:] / free[:1])]


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize("name", MODELS)
def test_nlme(name, method):
    expected = REFERENCE[name][method]
    model = fitted(name, reml=method == "REML")
    assert model.converged_
    criterion = -2.0 * model.log_likelihood_
    assert criterion <= expected["criterion"] + 1e-8
    atol = 1e-4 if name in STOPPED_EARLY else 1e-5
    np.testing.assert_allclose(criterion, expected["criterion"], rtol=0.0, atol=atol)
    table = coefficient_table(model)
    np.testing.assert_allclose(table["std_error"], expected["std_error"], rtol=1e-5)
    deviation = (table["estimate"] - expected["coef"]) / expected["std_error"]
    np.testing.assert_allclose(deviation, 0.0, atol=1e-5)
    np.testing.assert_allclose(correlations(model), expected["correlation"], rtol=1e-5)
    np.testing.assert_allclose(variances(model), expected["variance"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.sqrt(model.noise_variance_), expected["sigma"], rtol=1e-5)


MIXED = [name for name, found in REFERENCE.items() if "random_covariance" in found.get("ML", ())]


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize("name", MIXED)
def test_random_effects_of_nlme(name, method):
    expected = np.array(REFERENCE[name][method]["random_covariance"])
    (own,) = fitted(name, reml=method == "REML").covariances_.values()
    unit = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
    # A likelihood is flat at its top: nlme's criterion is right to ten digits, not its variances.
    atol = 2e-3 if name in STOPPED_EARLY else 2e-5
    np.testing.assert_allclose(own / unit, expected / unit, rtol=0.0, atol=atol)


def test_the_optimum_that_nlme_cannot_reach_is_singular():
    assert fitted("sleepstudy_lme").is_singular_


def test_all_references_are_read():
    assert set(REFERENCE) - {"versions"} == set(MODELS)


def test_the_covariance_of_the_occasions_has_their_names_and_variances():
    model = fitted("orthodont_symmetric")
    own = model.residual_parameters_
    ages = ["8", "10", "12", "14"]
    covariance = model.residual_covariance_
    np.testing.assert_allclose(np.diag(covariance), [own[f"variance of {age}"] for age in ages])
    assert list(covariance.index) == ages


def test_a_correlation_of_compound_symmetry_may_be_negative():
    """Five rows of a batch allow no correlation below -1/4; a random intercept has none below 0."""
    model = fitted("dyestuff2_compound")
    assert -0.25 < model.residual_parameters_["correlation"] < 0.0
    beside = lmer("Yield ~ 1 + (1 | Batch)", frame("dyestuff2"))
    assert model.log_likelihood_ > beside.log_likelihood_ + 0.1
