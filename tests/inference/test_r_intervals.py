"""Profiles, their intervals, and tests of variances against the R of inference.json.

Tolerances. The stored profiles come from searches at every value and agree to ten digits and more,
so they get eight; lme4 itself reads its intervals off a spline, and has four to seven of them. The
estimates are held to six digits. Statistics of tests are differences of criteria that are exact to
1e-9; their p-values are shares of simulations, there and here, of one probability: a false alarm in
one of 10,000 seeds.
"""

import numpy as np
import pytest

from helpers.chance import same_share
from mixedlearn.inference import (
    confidence_intervals,
    exact_lrt,
    exact_restricted_lrt,
    profile_likelihood,
)
from reference.inference import MODELS, WAYS, array, close, entries, fitted

RTOL = 1e-8
ESTIMATES = 1e-6
N_RESAMPLES = 100_000


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("entry", entries("profile_intervals", "level"))
def test_profile_intervals(entry, way):
    reml = MODELS[entry["model"]]["reml"]
    fit = fitted(entry["model"], way)
    table = confidence_intervals(fit, method="profile", level=entry["level"], reml=reml)
    assert sorted(table.index) == sorted(entry["parameters"])
    table = table.loc[entry["parameters"]]
    close(table["estimate"], entry["estimates"], ESTIMATES)
    for side in ("lower", "upper"):
        close(table[side], entry[side], RTOL)
        at_edge = np.array(entry[f"{side}_at_edge"])
        assert (table[side][at_edge] == 0.0).all()
        if entry[f"lme4_{side}"] is not None:
            close(table[side], entry[f"lme4_{side}"], rtol=2e-5)


def test_some_interval_ends_at_the_edge():
    at_edge = {
        (own.values[0]["model"], name)
        for own in entries("profile_intervals")
        for name, is_there in zip(
            own.values[0]["parameters"], own.values[0]["lower_at_edge"], strict=True
        )
        if is_there
    }
    assert at_edge == {
        (f"{stem}-{kind}", name)
        for kind in ("ml", "reml")
        for stem, name in [("pastes", "sd(intercept|batch)"), ("dyestuff2", "sd(intercept|Batch)")]
    }


@pytest.mark.parametrize("fit", ["sleepstudy-slope-ml", "sleepstudy-slope-reml"])
def test_the_intervals_that_lme4_prints(fit):
    # By ML whichever way the model was fitted. lme4's spline leaves four decimals uncertain by one.
    table = confidence_intervals(fitted(fit), method="profile")
    expected = {
        "sd(intercept|Subject)": (14.3814, 37.7160),
        "cor(intercept,Days|Subject)": (-0.4815, 0.6850),
        "sd(Days|Subject)": (3.8012, 8.7534),
        "sd(noise)": (22.8983, 28.8580),
        "intercept": (237.6807, 265.1295),
        "Days": (7.3587, 13.5759),
    }
    assert list(table.index) == list(expected)
    close(table[["lower", "upper"]], list(expected.values()), rtol=0.0, atol=1.5e-4)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("entry", entries("profile_curves", "parameter"))
def test_profile_curves(entry, way):
    profile = profile_likelihood(
        fitted(entry["model"], way),
        entry["parameter"],
        values=entry["values"],
        reml=MODELS[entry["model"]]["reml"],
    )
    close(profile.estimate, entry["estimate"], ESTIMATES)
    close(profile.table["value"], entry["values"], rtol=1e-12)
    close(profile.table["signed_root"], entry["zeta"], RTOL)
    close(profile.table["deviance"], array(entry["zeta"]) ** 2, RTOL)
    if entry["parameter"].startswith("sd"):
        squared = profile_likelihood(
            fitted(entry["model"], way),
            entry["parameter"],
            values=array(entry["values"]) ** 2,
            scale="variance",
            reml=MODELS[entry["model"]]["reml"],
        )
        close(squared.table["signed_root"], entry["zeta"], RTOL)


def variance_of(entry):
    """Factor and effect: what the model has and the formula under the hypothesis has not."""
    if entry["alone_formula"] is None:
        return {}
    term = entry["alone_formula"].split("(")[1].rstrip(")")
    effect, factor = (part.strip() for part in term.split("|"))
    return {"factor": factor, "effect": "intercept" if effect == "1" else effect.split("+ ")[1]}


@pytest.mark.parametrize("entry", entries("simulated_tests", "test", "null_formula"))
def test_simulated_tests(entry):
    fit, arguments = fitted(entry["model"]), {"n_resamples": N_RESAMPLES, "random_state": 0}
    if entry["test"] == "LRT":
        fixed = [
            name
            for name in MODELS[entry["model"]]["fixed_effects"]
            if name not in entry["null_formula"]
        ]
        test = exact_lrt(fit, fixed_effects=fixed, **arguments)
    else:
        test = exact_restricted_lrt(fit, **variance_of(entry), **arguments)
    assert test.statistic == pytest.approx(entry["statistic"], abs=1e-8)
    assert test.is_restricted == (entry["test"] == "RLRT")
    as_large = round(test.p_value * (N_RESAMPLES + 1)) - 1
    n = entry["n_sim"]
    assert same_share(as_large, N_RESAMPLES, round(entry["p"] * n), n)
