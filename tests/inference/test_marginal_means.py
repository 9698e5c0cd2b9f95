"""Marginal means, slopes and their comparisons, against emmeans."""

import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mixedlearn import lmer
from mixedlearn.inference import compare_means, marginal_means, marginal_slopes

STORED = json.loads((Path(__file__).parents[1] / "reference" / "marginal_means.json").read_text())
CASES = {case["name"]: case for case in STORED["cases"]}
ADJUST = {"none": None}
DDF = ("kenward-roger", "satterthwaite")
pytestmark = pytest.mark.filterwarnings("ignore:The fixed effects of .* are aliased")

FORMULAS = {
    "cake": ("cake", "angle ~ recipe * temperature + (1 | batch)"),
    "factorial": ("factorial", "y ~ a * b + a * x + log(z) + flag + (1 | g)"),
    "weighted": ("factorial", "y ~ a * b + x + C(dose) + (1 | g)"),
    "holed": ("holed", "y ~ a * b + x + (1 | g)"),
    "curved": ("factorial", "y ~ b + poly(x, 2) + ns(z, df=3) + (1 | g)"),
    "nlme": ("factorial", "y ~ a * b + x + (1 | g)"),
}


@functools.cache
def frame_of(name):
    return pd.DataFrame(STORED["frames"][name])


@functools.cache
def fit(name):
    frame, formula = FORMULAS[name]
    data = frame_of(frame)
    return lmer(formula, data, sample_weight=data["w"] if name == "weighted" else None)


def factorial_options(name):
    """Means of covariates over the rows, as emmeans has them, weighted or not."""
    return {"X": frame_of(FORMULAS[name][0])}


# What the cases of the script ask for: the model, the function, its arguments.
ASKED = {
    "cake recipe": ("cake", marginal_means, ["recipe"], {}),
    "cake temperature": ("cake", marginal_means, ["temperature"], {}),
    "cake recipe by temperature": ("cake", marginal_means, ["recipe", "temperature"], {}),
    "factorial a": ("factorial", marginal_means, ["a"], {}),
    "factorial a by b": ("factorial", marginal_means, ["a", "b"], {}),
    "factorial a, b": ("factorial", marginal_means, [["b", "a"]], {}),
    "factorial four": (
        "factorial",
        marginal_means,
        [["b", "a"]],
        {"at": {"a": ["p", "q"], "b": ["low", "mid"]}},
    ),
    "factorial proportional": ("factorial", marginal_means, ["a"], {"weights": "proportional"}),
    "factorial at": (
        "factorial",
        marginal_means,
        ["a", "x"],
        {"at": {"x": [35, 45], "z": 2, "b": ["low", "mid"]}},
    ),
    "factorial slopes": ("factorial", marginal_slopes, ["x", "a"], {}),
    "factorial slopes of a logarithm": (
        "factorial",
        marginal_slopes,
        ["z", "z"],
        {"at": {"z": [1.5, 3]}},
    ),
    "weighted": ("weighted", marginal_means, ["a"], {}),
    "weighted dose": ("weighted", marginal_means, ["dose"], {}),
    "weighted proportional": ("weighted", marginal_means, ["b"], {"weights": "proportional"}),
    "holed a by b": ("holed", marginal_means, ["a", "b"], {}),
    "holed a": ("holed", marginal_means, ["a"], {}),
    "curved b": ("curved", marginal_means, ["b"], {}),
    "curved slopes": ("curved", marginal_slopes, ["x", "x"], {"at": {"x": [30, 40, 47]}}),
    "spline slopes": ("curved", marginal_slopes, ["z", "z"], {"at": {"z": [1.2, 1.7, 3]}}),
    "nlme": ("nlme", marginal_means, ["a", "b"], {}),
}


def asked(case):
    ddf = next((own for own in DDF if case["name"].endswith(own)), "normal")
    name, function, positional, options = ASKED[case["name"].removesuffix(ddf).strip()]
    X = frame_of(FORMULAS[name][0])
    if options.get("weights") == "proportional" and name == "weighted":
        # emmeans weighs the frequencies, but not the means of covariates.
        options = options | {"sample_weight": X["w"], "at": {"x": X["x"].mean()}}
    return function(fit(name), *positional, X=X, ddf=ddf, **options)


def check(table, stored, tolerance, left_out=()):
    for name, values in stored["values"].items():
        if name in left_out:
            continue
        expected = np.array(np.atleast_1d(values), dtype=float)
        found = table[name].to_numpy()
        assert len(found) == len(expected)
        # R's ptukey has five digits after the point.
        absolute = 5e-6 if name == "p_value" else 1e-9
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=absolute, err_msg=name)


@pytest.mark.filterwarnings("ignore:marginal_means cannot estimate")
@pytest.mark.filterwarnings("ignore:compare_means cannot estimate")
@pytest.mark.parametrize("name", CASES)
def test_means_and_comparisons_are_those_of_emmeans(name):
    case = CASES[name]
    # lmerTest takes the derivatives for Satterthwaite's degrees of freedom by differences.
    tolerance = 2e-5 if name.endswith("satterthwaite") else 1e-6
    means = asked(case)
    check(means.table, case["means"], tolerance)
    for stored in case["comparisons"]:
        found = compare_means(
            means, stored["method"], adjust=ADJUST.get(stored["adjust"], stored["adjust"])
        )
        # Of contrasts without an estimate emmeans counts the intervals, but not the tests.
        is_holed = name.startswith("holed") and stored["adjust"] in ("holm", "bonferroni")
        check(found.table, stored, tolerance, ("lower", "upper") if is_holed else ())
