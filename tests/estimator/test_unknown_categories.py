"""Categories of a formula that fit did not see: refused, or the average of those that it saw."""

import numpy as np
import pandas as pd
import pytest

from mixedlearn import lmer
from mixedlearn.exceptions import PopulationPredictionWarning
from mixedlearn.inference import prediction_intervals

RNG = np.random.default_rng(0)
N = 120
DATA = pd.DataFrame(
    {
        "a": RNG.choice(list("xyz"), N),
        "b": RNG.choice(["u", "v"], N),
        "t": RNG.normal(size=N),
        "g": RNG.integers(0, 12, N),
    }
)
DATA["y"] = DATA["a"].map({"x": 0.0, "y": 2.0, "z": 7.0}) * (1.0 + DATA["t"]) + RNG.normal(size=N)
FORMULAS = [
    "y ~ a + (1 | g)",
    "y ~ a * t * b + (1 | g)",
    "y ~ 0 + a:t + b + (1 | g)",
    "y ~ C(a, contr.sum) * t + (1 | g)",
    "y ~ C(a, contr.helmert) * b + (1 | g)",
]


def make(formula, **parameters):
    return lmer(formula, DATA, **parameters)


@pytest.mark.parametrize("formula", FORMULAS)
def test_an_unknown_category_is_predicted_at_the_average_of_all(formula):
    model = make(formula, handle_unknown="average")
    rows = DATA.head(6)
    new = rows.assign(a=["q", *rows["a"][1:]])
    with pytest.warns(PopulationPredictionWarning, match="did not see all categories .* 'q'"):
        found = model.predict(new)
    expected = np.mean([model.predict(rows.assign(a=own)) for own in "xyz"], axis=0)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-10)
    np.testing.assert_allclose(found[1:], model.predict(rows)[1:])


def test_two_unknown_categories_are_averaged_over_all_pairs():
    model = make("y ~ a * b * t + (1 | g)", handle_unknown="average")
    rows = DATA.head(3)
    with pytest.warns(PopulationPredictionWarning) as caught:
        found = model.predict(rows.assign(a="q", b="r"))
    assert len(caught) == 2
    expected = np.mean(
        [model.predict(rows.assign(a=own, b=other)) for own in "xyz" for other in "uv"], axis=0
    )
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_known_categories_give_no_warning():
    averaging, refusing = make(FORMULAS[0], handle_unknown="average"), make(FORMULAS[0])
    np.testing.assert_array_equal(averaging.predict(DATA), refusing.predict(DATA))


@pytest.mark.parametrize("handle_unknown", ["population", "error"])
def test_other_models_refuse_and_name_the_way(handle_unknown):
    model = make(FORMULAS[0], handle_unknown=handle_unknown)
    with pytest.raises(ValueError, match=r"'q' of 'a' .* handle_unknown='average'"):
        model.predict(DATA.head(2).assign(a="q"))


def test_unknown_levels_have_no_effect_either_way():
    averaging, usual = make(FORMULAS[0], handle_unknown="average"), make(FORMULAS[0])
    new = DATA.head(2).assign(g=99)
    np.testing.assert_array_equal(averaging.predict(new), usual.predict(new))


def test_prediction_intervals_refuse_unknown_levels_where_the_estimator_does():
    model = make(FORMULAS[0], handle_unknown="error")
    with pytest.raises(ValueError, match="level 99 of 'g'"):
        prediction_intervals(model, DATA.head(2).assign(g=99))
    assert len(prediction_intervals(make(FORMULAS[0]), DATA.head(2).assign(g=99))) == 2
