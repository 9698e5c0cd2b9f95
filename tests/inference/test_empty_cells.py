"""Analysis of variance where combinations of categories do not occur, against lmerTest."""

import functools
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mixedlearn import lmer
from mixedlearn.exceptions import DegenerateModelWarning
from mixedlearn.inference import anova, contrast_test

STORED = json.loads((Path(__file__).parents[1] / "reference" / "empty_cells.json").read_text())
pytestmark = pytest.mark.filterwarnings("ignore:The fixed effects of .* are aliased")


@functools.cache
def fit(design, coding, right):
    if coding == "sum":
        right = re.sub(r"(?<![\w(])([abc])(?!\w)", r"C(\1, contr.sum)", right)
    return lmer(f"y ~ {right}", pd.DataFrame(STORED["frames"][design]))


def as_list(value):
    return value if isinstance(value, list) else [value]


def case(model):
    return f"{model['right']}, {model['coding']}, {model['design']}"


@pytest.mark.filterwarnings("ignore:anova cannot test")
@pytest.mark.parametrize("model", STORED["models"], ids=case)
def test_all_types_are_those_of_lmertest(model):
    est = fit(model["design"], model["coding"], model["right"])
    for stored in model["tables"]:
        table = anova(est, stored["type"], stored["ddf"])
        table.index = [re.sub(r"C\((\w), contr.sum\)", r"\1", name) for name in table.index]
        columns = ("term", "num_df", "f_value", "den_df", "p_value")
        rows = zip(*(as_list(stored[column]) for column in columns), strict=True)
        expected = {name: own for name, *own in rows if own[0]}
        found = table[table["num_df"] > 0]
        assert set(found.index) == set(expected)
        for name, (num_df, f_value, den_df, p_value) in expected.items():
            row = found.loc[name]
            assert row["num_df"] == num_df
            assert row["f_value"] == pytest.approx(f_value, rel=1e-4)
            if stored["ddf"] == "satterthwaite" and model["right"].startswith("a : b"):
                # The rows that span this hypothesis are others than lmerTest's.
                continue
            # lmerTest takes its derivatives by differences.
            assert row["den_df"] == pytest.approx(den_df, rel=1e-3)
            assert row["p_value"] == pytest.approx(p_value, rel=1e-2, abs=1e-12)


DESIGN = "three by two, last"


def test_what_cannot_be_tested_is_named():
    """Two by two without a cell: no interaction is left."""
    est = fit("two by two", "treatment", "a * b + (1 | g)")
    for kind in (1, 2, 3):
        with pytest.warns(DegenerateModelWarning, match="anova cannot test 'a:b'"):
            table = anova(est, kind)
        assert table["num_df"].tolist() == [1, 1, 0]
        assert table.loc["a:b", ["f_value", "den_df", "p_value"]].isna().all()


def test_the_hypothesis_about_a_margin_is_that_of_the_cells_that_are_left():
    """The last of three rows lacks its second column: columns are compared within the others."""
    est = fit(DESIGN, "treatment", "a * b + (1 | g)")
    within = {"b[T.l2]": 1.0, "a[T.l2]:b[T.l2]": 0.5}
    row, test = anova(est, 3).loc["b"], contrast_test(est, within)
    np.testing.assert_allclose(row["f_value"], test.f_value, rtol=1e-9)
    np.testing.assert_allclose(row["den_df"], test.den_df, rtol=1e-9)


@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize("right", ["a * b + x + (1 | g)", "a * b + (1 | g)"])
def test_neither_coding_nor_units_matter(right, kind):
    """F of every term: to names of categories, contrasts, and the units and origin of numbers."""
    frame = pd.DataFrame(STORED["frames"][DESIGN])
    expected = anova(fit(DESIGN, "treatment", right), kind)["f_value"]
    moved = lmer(f"y ~ {right}", frame.assign(x=1e3 + 1e-3 * frame["x"]))
    np.testing.assert_allclose(anova(moved, kind)["f_value"], expected, rtol=1e-5)
    by_sum = anova(fit(DESIGN, "sum", right), kind)["f_value"]
    np.testing.assert_allclose(by_sum, expected, rtol=1e-6)
    renamed = frame.replace({"a": {"l1": "l3", "l3": "l1"}})
    other = anova(lmer(f"y ~ {right}", renamed), kind)["f_value"]
    np.testing.assert_allclose(other, expected, rtol=1e-6)
