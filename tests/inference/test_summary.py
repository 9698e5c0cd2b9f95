"""The summary of a fit, as text and as HTML: its numbers are those of the tables."""

import re
from contextlib import nullcontext
from dataclasses import replace
from html import unescape

import numpy as np
import pandas as pd
import pytest

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.datasets import load_cake, load_penicillin, load_sleepstudy
from mixedlearn.exceptions import DegenerateModelWarning, NoGroupsWarning
from mixedlearn.inference import coefficient_table, information_criteria, variance_table
from mixedlearn.model.known import Known

DDF = {
    "satterthwaite": "Satterthwaite's degrees of freedom",
    "kenward-roger": "Kenward and Roger's standard errors and degrees of freedom",
    "residual": "residual degrees of freedom",
    "normal": "the normal distribution",
}
SLEEP = load_sleepstudy().frame


def slopes(**options):
    return lmer("Reaction ~ Days + (1 + Days | Subject)", SLEEP, **options)


def crossed():
    return lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", load_penicillin().frame)


def no_groups():
    with pytest.warns(NoGroupsWarning):
        return lmer("Reaction ~ Days", SLEEP)


def noise_within_groups(m=10):
    """Rows of m groups of six that differ by a covariate alone."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"x": rng.normal(size=6 * m), "g": np.repeat(np.arange(m), 6)})
    noise = rng.normal(size=6 * m)
    noise -= pd.Series(noise).groupby(X["g"]).transform("mean")
    return X, X["x"] + noise


def singular():
    model = MixedLinearRegressor(formula="x + (1 | g)").fit(*noise_within_groups())
    assert model.is_singular_
    return model


def aliased():
    with pytest.warns(DegenerateModelWarning, match="again"):
        return lmer("Reaction ~ Days + again + (1 | Subject)", SLEEP.assign(again=SLEEP["Days"]))


MODELS = [slopes, crossed, no_groups, singular, aliased]


def part(text, heading):
    """The lines of a table, cut at their blanks."""
    lines = text.split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith(heading)) + 1
    end = next((i for i in range(start, len(lines)) if not lines[i]), len(lines))
    return lines[start:end]


def html_words(summary, number):
    """The words of a table of the HTML."""
    table = summary._repr_html_().split("<table")[number + 1].split("</table>")[0]
    return unescape(re.sub("<[^>]*>", " ", f"<table{table}")).split()


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("ddf", DDF)
def test_the_fixed_effects_are_those_of_the_table(make, ddf):
    model = make()
    summary = model.summary(ddf=ddf)
    with pytest.warns() if make is aliased else nullcontext():
        table = coefficient_table(model, ddf=ddf)
    pd.testing.assert_frame_equal(
        table, summary.fixed_effects.set_axis(table.columns, axis=1), check_exact=True
    )
    assert f"Fixed effects, with {DDF[ddf]}" in str(summary)
    header, *rows = part(str(summary), "Fixed effects")
    assert header.split() == [
        *("estimate", "std_error", "df", "t_value", "p_value"),
        *("lower", "95%", "upper", "95%"),
    ]
    for line, (name, expected) in zip(rows, table.iterrows(), strict=True):
        own, *shown = line.replace("< ", "<").split()
        assert own == name
        if expected.isna().all():
            assert not shown
            continue
        # Four significant digits where a column is of one size, and p-values by two.
        assert np.array(shown[:4], dtype=float) == pytest.approx(expected[:4], rel=5e-3, abs=5e-4)
        if shown[4] == "<0.001":
            assert expected["p_value"] < 0.001
        else:
            assert float(shown[4]) == pytest.approx(expected["p_value"], abs=5e-5)
        assert np.array(shown[5:], dtype=float) == pytest.approx(expected[5:], rel=5e-3, abs=1e-2)


@pytest.mark.parametrize("make", MODELS)
def test_the_random_effects_are_those_of_the_table(make):
    model = make()
    found = model.summary(std_error=True).random_effects
    table = variance_table(model)
    for _, row in table.iterrows():
        names = row["effects"].split(",")
        own = found.loc[(row["factor"], names[-1])]
        if len(names) == 1:
            assert own["variance"] == row["variance"]
            assert own["sd"] == row["sd"]
            np.testing.assert_array_equal(own["std_error"], row["std_error"])
        else:
            assert own["corr_1"] == pytest.approx(row["correlation"])
    assert len(found) == sum("," not in effects for effects in table["effects"])


def test_standard_errors_of_variances_are_shown_on_request_only():
    assert "std_error" not in slopes().summary().random_effects
    with_errors, without = slopes().summary(std_error=True), slopes().summary()
    assert "std_error" in part(str(with_errors), "Random effects")[0]
    assert "std_error" not in part(str(without), "Random effects")[0]
    assert part(str(with_errors), "Random effects")[1].split()[2:] == [
        *("612.09", "288.78", "24.740"),  # lme4: 612.100, 24.7407
    ]


@pytest.mark.parametrize("reml", [True, False])
def test_the_facts(reml):
    model = slopes(reml=reml)
    text = str(model.summary())
    criteria = information_criteria(model)
    assert text.startswith(f"Linear mixed model fitted by {'REML' if reml else 'ML'}\n")
    kind = "restricted likelihood" if reml else "likelihood"
    assert f"-2 log {kind} {criteria['deviance']:.4f}" in text
    assert f"{criteria['aic']:.4f}, {criteria['bic']:.4f}" in text
    assert "Formula:   Days + (1 + Days | Subject)" in text
    assert "Rows:      180" in text
    assert "Levels:    Subject 18" in text


def test_several_factors():
    text = str(crossed().summary())
    assert "Levels:    plate 24, sample 6" in text
    header, *rows = part(text, "Random effects")
    assert [line.split()[0] for line in rows] == ["plate", "sample", "noise"]
    assert header.split() == ["variance", "sd"]  # no effects that could be correlated


def test_a_model_without_groups():
    text = str(no_groups().summary())
    assert text.startswith("Linear model without random effects fitted by REML")
    assert "Levels:    no grouping factor" in text
    assert [line.split()[0] for line in part(text, "Random effects")[1:]] == ["noise"]


def test_a_singular_fit_says_so():
    text = str(singular().summary(std_error=True))
    assert "Singular fit: a variance is zero" in text
    assert "Singular" not in str(slopes().summary())
    row = part(text, "Random effects")[1].split()
    assert float(row[2]) == float(row[3]) == 0.0
    assert len(row) == 4  # the standard error of a variance of zero means nothing


HINT = "With few levels Satterthwaite's tests reject too often here"


def test_a_singular_fit_names_the_tests_that_are_not_liberal():
    model = singular()
    text = " ".join(str(model.summary()).split())
    assert text.endswith(f'{HINT}, Kenward and Roger\'s do not: summary(ddf="kenward-roger").')
    assert HINT in model.summary()._repr_html_().replace("&#x27;", "'")
    for ddf in ("kenward-roger", "residual", "normal"):
        assert HINT not in str(model.summary(ddf=ddf))
    assert HINT not in str(slopes().summary())


def test_by_maximum_likelihood_the_other_tests_want_another_fit():
    X, y = noise_within_groups()
    model = MixedLinearRegressor(formula="x + (1 | g)", reml=False).fit(X, y)
    assert "Fit with reml=True for these." in str(model.summary())


def test_many_levels_of_several_factors_have_no_other_tests():
    X, y = noise_within_groups(m=4000)
    X["h"] = np.arange(len(X)) % 6
    model = MixedLinearRegressor(groups=["g", "h"]).fit(X, y)
    text = str(model.summary())
    assert "Singular fit" in text
    assert HINT not in text


def test_long_formulas_and_notes_go_on_in_the_next_line():
    names = [f"a_rather_long_name_{k}" for k in range(6)]
    frame = SLEEP.join(pd.DataFrame(np.random.default_rng(0).normal(size=(180, 6)), columns=names))
    model = lmer(f"Reaction ~ {' + '.join(names)} + (1 | Subject)", frame)
    lines = str(model.summary()).split("\n")
    assert max(map(len, lines)) <= 80
    assert lines[3].startswith("           ")
    assert model.formula_ in " ".join(str(model.summary()).split())


def test_an_aliased_column_has_an_empty_row_and_a_note():
    summary = aliased().summary()
    assert part(str(summary), "Fixed effects")[-1] == "again"
    assert "effects of 'again' are aliased" in str(summary)
    assert "effects of &#x27;again&#x27; are aliased" in summary._repr_html_()


def test_a_full_set_of_dummies_is_no_fault_but_has_a_note():
    X = SLEEP[["Subject"]].join(pd.get_dummies(SLEEP["Days"] % 3, prefix="d", dtype=float))
    model = MixedLinearRegressor(groups="Subject").fit(X, SLEEP["Reaction"])
    summary = model.summary()
    table = summary.fixed_effects
    assert table["estimate"].tolist() == [model.intercept_, *model.coef_]
    assert table.drop(columns="estimate").isna().all(axis=None)
    words = " ".join(str(summary).split())
    assert "'intercept', 'd_0', 'd_1', 'd_2' cannot be estimated one by one" in words
    assert "DegenerateModelWarning" not in str(summary)


def test_an_optimum_without_a_certificate():
    model = slopes()
    assert "certified" not in str(model.summary())
    model._fitted = replace(
        model._fitted, known=Known(replace(model._fitted.model, is_certified=False))
    )
    assert "stopped without a certified optimum" in str(model.summary())


def test_the_level_is_shown():
    summary = slopes().summary(level=0.9)
    assert list(summary.fixed_effects.columns[-2:]) == ["lower 90%", "upper 90%"]
    assert "lower 90%" in str(summary)
    assert "upper 90%" in summary._repr_html_()
    expected = coefficient_table(slopes(), level=0.9)
    assert (summary.fixed_effects["upper 90%"] == expected["upper"]).all()
    assert "lower 99.5%" in str(slopes().summary(level=0.995))


@pytest.mark.parametrize("make", MODELS)
def test_html_has_the_cells_of_the_text(make):
    summary = make().summary(std_error=True)
    text, html = str(summary), summary._repr_html_()
    assert html.count("<table") == html.count("</table>") == 3
    for heading, number in (("Random effects", 1), ("Fixed effects", 2)):
        words = " ".join(part(text, heading)).split()
        assert set(words) <= set(html_words(summary, number))


def test_names_are_escaped_in_html():
    frame = SLEEP.assign(**{"<b>": SLEEP["Days"]})
    html = lmer("Reaction ~ `<b>` + (1 | Subject)", frame).summary()._repr_html_()
    assert "<b>" not in html
    assert html.count("&lt;b&gt;") == 2  # the formula and the table


def test_a_wide_model_is_printed_whole():
    cake = load_cake().frame
    model = lmer("angle ~ recipe*temperature + (1 | recipe:replicate)", cake)
    text = str(model.summary())
    # The interval is below, with the names again.
    assert len(part(text, "Fixed effects")) == 2 * 19
    assert max(map(len, text.split("\n"))) <= 80
    assert "..." not in text
    assert not any(line != line.rstrip() for line in text.split("\n"))


def test_a_summary_shows_itself():
    summary = slopes().summary()
    assert repr(summary) == str(summary)
