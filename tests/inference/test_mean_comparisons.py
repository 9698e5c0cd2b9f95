"""Comparisons of marginal means: methods, adjustments, families; emmeans' are in another file."""

import pickle

import numpy as np
import pandas as pd
import pytest

from mixedlearn import lmer
from mixedlearn.datasets import load_cake
from mixedlearn.exceptions import DegenerateModelWarning
from mixedlearn.inference import compare_means, contrast_test, marginal_means, marginal_slopes
from mixedlearn.inference._contrast_methods import contrast_weights

CAKE = load_cake().frame
COLUMNS = ["estimate", "std_error", "df", "t_value", "p_value", "lower", "upper"]


@pytest.fixture(scope="module")
def model():
    return lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", CAKE)


@pytest.fixture(scope="module")
def means(model):
    return marginal_means(model, "recipe")


@pytest.fixture(scope="module")
def within(model):
    return marginal_means(model, "recipe", by="temperature", at={"temperature": ["175", "225"]})


def test_names_and_defaults(means):
    expected = {
        "pairwise": (["A - B", "A - C", "B - C"], "tukey"),
        "control": (["B - A", "C - A"], "dunnett"),
        "consecutive": (["B - A", "C - B"], "mvt"),
        "polynomial": (["linear", "quadratic"], None),
    }
    for method, (names, adjust) in expected.items():
        found = compare_means(means, method)
        assert found.table.index.tolist() == names
        assert (found.method, found.adjust) == (method, adjust)
        assert list(found.table.columns) == COLUMNS


def test_without_adjustment_it_is_a_contrast(model, within):
    found = compare_means(within, adjust=None)
    test = contrast_test(model, found.linear_functions)
    np.testing.assert_allclose(found.table, test.rows[COLUMNS])


def test_polynomials_are_integers_and_orthogonal():
    weights, names = contrast_weights("polynomial", list("abcde"), 0)
    assert weights.tolist() == [
        [-2, -1, 0, 1, 2],
        [2, -1, -2, -1, 2],
        [-1, 2, 0, -2, 1],
        [1, -4, 6, -4, 1],
    ]
    assert names == ["linear", "quadratic", "cubic", "quartic"]
    weights, names = contrast_weights("polynomial", list("abcdefghijkl"), 0)
    assert weights.shape == (6, 12)
    np.testing.assert_array_equal(weights @ weights.T, np.diag((weights**2).sum(axis=1)))
    assert names[-1] == "degree 6"


def test_given_contrasts(means):
    row = [1.0, -0.5, -0.5]
    expected = compare_means(means, [row]).table
    assert expected.index.tolist() == ["contrast 1"]
    frame = pd.DataFrame([row], index=["new"], columns=list("ABC"))
    for given in ({"new": row}, {"new": {"A": 1, "B": -0.5, "C": -0.5}}, frame):
        found = compare_means(means, given)
        assert found.table.index.tolist() == ["new"]
        assert (found.method, found.adjust) == ("given", None)
        np.testing.assert_array_equal(found.table, expected)
    np.testing.assert_array_equal(compare_means(means, row).table, expected)


def test_columns_of_a_data_frame_of_contrasts_go_by_name(means):
    frame = pd.DataFrame({"C": [-1.0], "A": [1.0]}, index=["A - C"])
    expected = compare_means(means, adjust=None).table.loc[["A - C"]]
    np.testing.assert_allclose(compare_means(means, frame).table, expected)


def test_families_are_those_of_by(within):
    found = compare_means(within, adjust="bonferroni").table
    plain = compare_means(within, adjust=None).table
    np.testing.assert_allclose(found["p_value"], np.minimum(3.0 * plain["p_value"], 1.0))
    together = compare_means(within, by=(), adjust="bonferroni").table
    assert together.index[:2].tolist() == ["175 A - 175 B", "175 A - 175 C"]
    assert len(together) == 15
    other = compare_means(within, by="recipe").table
    assert other.index.tolist() == [(recipe, "175 - 225") for recipe in "ABC"]


@pytest.mark.parametrize("adjust", ["tukey", "mvt", "holm", "bonferroni"])
def test_adjusted_values_and_intervals_agree(model, adjust):
    """An interval has zero at its end at the level of the p-value."""
    means = marginal_means(model, "temperature", at={"temperature": ["175", "195", "205"]})
    plain, table = (compare_means(means, adjust=own).table for own in (None, adjust))
    assert (table["p_value"] >= plain["p_value"]).all()
    assert (table["p_value"] <= 3.0 * plain["p_value"] + 1e-12).all()
    if adjust == "holm":
        return
    row = "175 - 195"
    level = 1.0 - float(table.loc[row, "p_value"])
    ends = compare_means(means, adjust=adjust, level=level).table.loc[row, ["lower", "upper"]].abs()
    assert ends.min() < 1e-4 * ends.max()


def test_one_comparison_needs_no_adjustment(model):
    means = marginal_means(model, "recipe", at={"recipe": ["A", "B"]})
    plain = compare_means(means, adjust=None).table
    for adjust in ("tukey", "mvt", "holm", "bonferroni"):
        np.testing.assert_allclose(compare_means(means, adjust=adjust).table, plain, rtol=1e-9)


def test_a_model_is_compared_at_once(model, means):
    found = compare_means(model, "control", variables="recipe", reference="B", ddf="normal")
    assert found.table.index.tolist() == ["A - B", "C - B"]
    assert found.means.ddf == "normal"
    found = compare_means(model, variables="recipe", by="temperature")
    assert found.by == ("temperature",)
    assert len(found.table) == 18
    with pytest.raises(TypeError, match="ddf is for a fitted model, but marginal means"):
        compare_means(means, ddf="normal")
    with pytest.raises(TypeError, match="variables is for a fitted model"):
        compare_means(means, variables="recipe")


def test_numbers_have_the_name_of_their_column():
    est = lmer("angle ~ recipe * temp + (1 | recipe:replicate)", CAKE)
    means = marginal_means(est, "temp", by="recipe", at={"temp": [175, 187.5]})
    assert set(compare_means(means).table.index.get_level_values(1)) == {"temp175 - temp187.5"}
    found = compare_means(means, "control", by=(), reference=("B", 187.5)).table
    assert found.index[0] == "A temp175 - B temp187.5"
    slopes = marginal_slopes(est, "temp", by="recipe")
    found = compare_means(slopes)
    assert found.table.index.tolist() == ["A - B", "A - C", "B - C"]
    assert found.heading == "Marginal slopes in temp, by recipe: pairwise contrasts"
    np.testing.assert_allclose(found.table.loc["A - B", "estimate"], -est.coef_[3])


def test_a_category_with_a_minus_is_in_parentheses():
    frame = CAKE.assign(recipe=CAKE["recipe"].replace("A", "A - old"))
    est = lmer("angle ~ recipe + (1 | recipe:replicate)", frame)
    found = compare_means(est, "consecutive", variables="recipe").table
    assert found.index.tolist() == ["B - (A - old)", "C - B"]


@pytest.mark.filterwarnings("ignore:The fixed effects of .* are aliased")
def test_what_can_be_estimated_of_a_family_with_an_empty_cell():
    frame = CAKE[(CAKE["recipe"] != "C") | (CAKE["temperature"] != "225")]
    est = lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", frame)
    with pytest.warns(DegenerateModelWarning, match="marginal_means cannot estimate"):
        means = marginal_means(est, "recipe", by="temperature", at={"temperature": ["175", "225"]})
    with pytest.warns(DegenerateModelWarning, match=r"compare_means cannot .* \('225', 'A - C'\)"):
        found = compare_means(means, adjust="bonferroni")
    unknown = found.table["estimate"].isna()
    assert unknown[unknown].index.tolist() == [("225", "A - C"), ("225", "B - C")]
    with pytest.warns(DegenerateModelWarning):
        plain = compare_means(means, adjust=None).table
    # The one that is left is alone.
    assert found.table.loc[("225", "A - B"), "p_value"] == plain.loc[("225", "A - B"), "p_value"]
    assert found.note.endswith("estimated (2).")


def test_tables_fit_a_page_and_say_how_they_are_adjusted(within):
    found = compare_means(within)
    assert max(map(len, str(found).split("\n"))) <= 80
    assert found.note.startswith("p-values and 95% intervals adjusted (tukey);")
    assert compare_means(within, adjust=None).note.startswith("p-values and 95% intervals not")
    assert found._repr_html_().startswith("<")
    assert str(pickle.loads(pickle.dumps(found))) == str(found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "pairs"}, "method='pairs' is unknown: use 'pairwise'"),
        ({"method": {}}, "method names no contrast"),
        ({"method": {"a": [1, 2]}}, "The contrast 'a' must have 3 finite weights"),
        ({"method": [[1, np.nan, 0]]}, "must have 3 finite weights"),
        ({"method": {"a": "much"}}, "must have 3 finite weights"),
        ({"method": {"a": {"D": 1}}}, "The contrast 'a' names 'D', which is no mean"),
        ({"adjust": "sidak"}, "adjust='sidak' is unknown"),
        ({"method": "control", "adjust": "tukey"}, "'tukey' is made for method='pairwise'"),
        ({"adjust": "dunnett"}, "'dunnett' is made for method='control', not for pairwise"),
        ({"method": "control", "reference": "D"}, "reference='D' is none of the means"),
        ({"by": "temperature"}, "by names 'temperature', which the means are not by"),
        ({"by": "recipe"}, "There is nothing to compare"),
        ({"level": 1.0}, "level must be a probability"),
    ],
)
def test_bad_arguments(means, arguments, message):
    with pytest.raises(ValueError, match=message):
        compare_means(means, **arguments)
