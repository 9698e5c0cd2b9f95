"""How results print: tables whole, p-values alike, the same in a session as by print."""

import numpy as np
import pandas as pd
import pytest

from mixedlearn import inference, lmer
from mixedlearn.datasets import load_cake, load_sleepstudy
from mixedlearn.inference._text import p_equation, p_text, table_html, table_text

SLEEP = load_sleepstudy().frame
X, Y = SLEEP[["Days", "Subject"]], SLEEP["Reaction"]


def models():
    return (
        lmer("Reaction ~ Days + (1 | Subject)", SLEEP),
        lmer("Reaction ~ Days + (1 + Days | Subject)", SLEEP),
    )


RESULTS = {
    "Summary": lambda m0, m1: m1.summary(),
    "ContrastTest": lambda m0, m1: inference.contrast_test(m1, np.eye(2)),
    "LikelihoodRatioTest": lambda m0, m1: inference.likelihood_ratio_test(m0, m1),
    "ExactTest": lambda m0, m1: inference.exact_restricted_lrt(m0, n_resamples=9),
    "ConditionalAIC": lambda m0, m1: inference.conditional_aic(m1),
    "Influence": lambda m0, m1: inference.influence(m1, X, Y, by="Subject"),
    "BootstrapResult": lambda m0, m1: inference.parametric_bootstrap(
        m1, X, n_resamples=3, random_state=0
    ),
    "ProfileLikelihood": lambda m0, m1: inference.profile_likelihood(m1, "Days", n_points=3),
    "ModelDescription": lambda m0, m1: m1.describe(X),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_show_themselves(name):
    result = RESULTS[name](*models())
    assert type(result).__name__ == name
    text = str(result)
    assert repr(result) == text
    assert not any(line != line.rstrip() for line in text.split("\n"))
    assert "..." not in text
    if name != "ModelDescription":
        assert result._repr_html_().startswith("<")


def test_wide_results_are_whole():
    cake = load_cake().frame
    model = lmer("angle ~ recipe*temperature + (1 | recipe:replicate)", cake)
    names = model.coef_covariance_.index
    result = inference.influence(model, cake, cake["angle"], by="recipe:replicate")
    for text in (str(result), result._repr_html_()):
        assert all(name in text for name in names)
    rows = str(inference.contrast_test(model, np.eye(len(names)))).split("\n")
    assert len(rows) == 1 + len(names) + 1


@pytest.mark.parametrize(
    ("p_value", "text"),
    [
        (1.0, "1.0000"),
        (0.04999, "0.0500"),
        (1e-4, "0.0001"),
        (9.99e-5, "1.0e-04"),
        (6.6128e-74, "6.6e-74"),
        (0.0, "<1e-300"),
        (np.nan, "nan"),
    ],
)
def test_p_values(p_value, text):
    assert p_text(p_value) == text


def test_a_p_value_in_a_sentence():
    assert p_equation(0.25) == "p = 0.2500"
    assert p_equation(0.0) == "p <1e-300"


def test_a_p_value_is_the_same_everywhere():
    m0, m1 = models()
    test = inference.contrast_test(m1, {"Days": 1.0})
    shown = p_text(test.p_value)
    assert f"p = {shown} (" in str(test)
    assert shown in str(test).split("\n")[1].split()
    assert shown in str(m1.summary()).split("\n")[-1].split()
    ratio = inference.likelihood_ratio_test(m0, m1)
    assert f"p = {p_text(ratio.p_value_mixture)}." in str(ratio)
    assert p_text(ratio.p_value) in ratio._repr_html_()


def test_digits_of_a_column():
    table = pd.DataFrame(
        {
            "estimate": [251.40510, 10.46728],
            "std_error": [6.824597, 1.545790],
            "mixed": [1234.5, 1e-9],  # what is small beside the rest does not lengthen the column
            "zero": [0.0, np.nan],
            "df": [17.0, np.inf],
            "lower": [237.00678, -7.205956],  # as the estimates
            "count": [3, 12],
        },
        index=["a", "b"],
    )
    lines = [line.split() for line in table_text(table).split("\n")]
    assert lines[1] == ["a", "251.41", "6.825", "1234.50", "0.000", "17.00", "237.01", "3"]
    assert lines[2] == ["b", "10.47", "1.546", "0.00", "inf", "-7.21", "12"]


def test_rounding_leaves_no_sign_on_zero():
    table = pd.DataFrame({"estimate": [-1e-14, 2.0]})
    assert "-" not in table_text(table)


def test_html_is_escaped():
    table = pd.DataFrame({"estimate": [1.0]}, index=["<i>"])
    assert "<i>" not in table_html(table)
    frame = SLEEP.rename(columns={"Subject": "<i>"})
    model = lmer("Reaction ~ Days + (1 | `<i>`)", frame)
    for result in (
        inference.exact_restricted_lrt(model, n_resamples=9),
        inference.profile_likelihood(model, "sd(intercept|<i>)", n_points=2),
        inference.influence(model, frame, Y, by="<i>"),
    ):
        assert "<i>" in str(result)
        assert "<i>" not in result._repr_html_()


def test_printing_leaves_tables_as_they_are():
    result = models()[1].summary()
    before = result.random_effects.copy()
    str(result), result._repr_html_()
    pd.testing.assert_frame_equal(result.random_effects, before)
    assert result.random_effects.index.names == ["factor", "effect"]
    assert "<th>factor</th>" not in table_html(before)
