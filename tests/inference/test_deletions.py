"""Single deletions of random effects against lmerTest's ranova and separate fits."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from inference.test_nesting import FRAMES
from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.exceptions import NoGroupsWarning
from mixedlearn.inference import ranova
from reference import FOLDER

STORED = json.loads((FOLDER / "nested.json").read_text(encoding="utf-8"))


def case(entry):
    return f"{entry['formula']}, {'REML' if entry['reml'] else 'ML'}"


@pytest.mark.parametrize("entry", STORED["deletions"], ids=case)
def test_tests_are_those_of_lmertest(entry):
    table = ranova(lmer(entry["formula"], FRAMES["sleepstudy"], reml=entry["reml"]))
    # lmerTest writes "Days in (Days | Subject)", and "Days in (0 + Days | Subject)" of one slope.
    own = [name.split(" in ")[0] for name in table.index]
    own = [re.sub(r"\(0 \+ (\w+) \|.*", r"\1", name) for name in own]
    assert own == [name.split(" in ")[0] for name in entry["terms"]]
    for ours, stored, rtol in (("aic", "aic", 1e-7), ("lrt", "lrt", 1e-4), ("p_value", "p", 1e-3)):
        expected = np.array(entry[stored], dtype=float)
        np.testing.assert_allclose(table[ours], expected, rtol=rtol, atol=3e-5)
    assert list(table["df"].iloc[1:]) == entry["df"][1:]


def without(model, **parameters):
    return {**model, **parameters}


SLOPES = {"groups": "Subject", "random_slopes": ["Days", "z"]}


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    ("model", "smaller"),
    [
        (
            SLOPES,
            {
                "Days in (1 + Days + z | Subject)": without(SLOPES, random_slopes=["z"]),
                "z in (1 + Days + z | Subject)": without(SLOPES, random_slopes=["Days"]),
            },
        ),
        (
            without(SLOPES, covariance="diagonal"),
            {
                "(1 | Subject)": without(SLOPES, covariance="diagonal", random_intercept=False),
                "(0 + Days | Subject)": without(SLOPES, covariance="diagonal", random_slopes="z"),
                "(0 + z | Subject)": without(SLOPES, covariance="diagonal", random_slopes="Days"),
            },
        ),
        (without(SLOPES, covariance="scalar"), {"(1 + Days + z | Subject)": None}),
        (
            without(SLOPES, random_intercept=False),
            {
                "Days in (0 + Days + z | Subject)": without(
                    SLOPES, random_intercept=False, random_slopes=["z"]
                ),
                "z in (0 + Days + z | Subject)": without(
                    SLOPES, random_intercept=False, random_slopes=["Days"]
                ),
            },
        ),
    ],
)
def test_parameters_instead_of_a_formula(model, smaller, reml):
    frame = FRAMES["sleepstudy"]
    columns = frame[["Days", "z", "Subject"]]

    def fit(**parameters):
        return MixedLinearRegressor(reml=reml, fixed_effects=["Days"], **parameters).fit(
            columns, frame["Reaction"]
        )

    whole = fit(**model)
    table = ranova(whole)
    assert list(table.index) == ["<none>", *smaller]
    assert table.loc["<none>", "aic"] == pytest.approx(whole.aic())
    for name, parameters in smaller.items():
        if parameters is None:
            with pytest.warns(UserWarning, match="no groups"):
                other = MixedLinearRegressor(reml=reml, fixed_effects=["Days"]).fit(
                    columns[["Days"]], frame["Reaction"]
                )
        else:
            other = fit(**parameters)
        statistic = 2.0 * (whole.log_likelihood_ - other.log_likelihood_)
        assert table.loc[name, "lrt"] == pytest.approx(statistic, abs=1e-5)
        assert table.loc[name, "aic"] == pytest.approx(other.aic())


@pytest.mark.parametrize(
    ("random", "names"),
    [
        ("cs(0 + half | Subject)", ["half in (0 + half | Subject)"]),
        ("diag(0 + half | Subject)", ["(0 + half | Subject)"]),
        (
            "(0 + half | Subject) + (0 + Days | Subject)",
            ["(0 + half | Subject)", "(0 + Days | Subject)"],
        ),
        ("(half * z | Subject)", ["half:z in (1 + half + z + half:z | Subject)"]),
    ],
)
def test_terms_of_categories(random, names):
    est = lmer(f"Reaction ~ Days + {random}", FRAMES["sleepstudy"])
    table = ranova(est)
    assert list(table.index) == ["<none>", *names]
    assert (table["df"].iloc[1:] > 0).all()
    assert (table["lrt"].iloc[1:] >= 0.0).all()


def test_refusals():
    frame = FRAMES["sleepstudy"]
    with pytest.warns(NoGroupsWarning):
        none = lmer("Reaction ~ Days", frame)
    with pytest.raises(ValueError, match="no random effects"):
        ranova(none)
    with pytest.raises(TypeError, match="got str"):
        ranova("model")
    with pytest.raises(NotFittedError):
        ranova(MixedLinearRegressor())


def test_an_exact_fit_has_no_ratio():
    frame = pd.DataFrame({"x": np.arange(20.0), "g": np.arange(20) % 4})
    with pytest.warns(UserWarning, match="reproduce the response exactly"):
        est = MixedLinearRegressor(groups="g").fit(frame, frame["x"])
    assert np.isnan(ranova(est).loc["(1 | g)", "lrt"])
