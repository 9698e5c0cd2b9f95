"""The same labels in other types, along every way into the model: the same numbers, or a word."""

import copy
import pickle
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from helpers.labels import BYTES, DAYS, IN_ZONE, INT64, NUMBERS, TEXT
from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.exceptions import PopulationPredictionWarning
from mixedlearn.inference import residuals

N_LEVELS = 4
CODES = np.tile(np.arange(N_LEVELS), 6)
GENERATOR = np.random.default_rng(0)
X = GENERATOR.standard_normal((len(CODES), 1))
Y = X[:, 0] + 5.0 * GENERATOR.standard_normal(N_LEVELS)[CODES] + GENERATOR.standard_normal(24)
DAY = np.datetime64("2024-02-28")
LABELS = {
    "small": (NUMBERS, [3, 1, 0, 2]),
    "negative": (NUMBERS, [-3, 1, 0, 2]),
    "beyond float32": (NUMBERS, [2**24 + k for k in range(4)]),
    "beyond float64": (NUMBERS, [2**53 + k for k in range(4)]),
    "beyond int64": (NUMBERS, [2**63 + k for k in range(4)]),
    "text": (TEXT, ["b", "a", "1", "1.0"]),
    "bytes": (BYTES, ["b", "a", "1", "1.0"]),
    "days": (DAYS, [(DAY + k).item() for k in (2, 0, 3, 1)]),
    "in a zone": (IN_ZONE, [(DAY + k).item() for k in (2, 0, 3, 1)]),
}
BESIDE = {"beside X": {}, "interaction": {"groups": [("g", "h")]}, "column": {"groups": "g"}}


def with_labels(values, way):
    """X and groups, with labels on their way."""
    if way == "beside X":
        return {"X": X, "groups": values}
    is_plain = not isinstance(values, (np.ndarray, list, pd.Series))
    g = (
        pd.Series(values.to_pandas() if hasattr(values, "to_pandas") else values)
        if is_plain
        else values
    )
    return {"X": pd.DataFrame({"x0": X[:, 0], "g": g, "h": CODES // 2})}


def make(way):
    if way == "formula":
        return MixedLinearRegressor(formula="x0 + (1 | g)")
    return MixedLinearRegressor(
        **BESIDE[way], **({} if way == "beside X" else {"fixed_effects": ["x0"]})
    )


def draw(data, labels, kind):
    values = kind[data.draw(st.sampled_from(sorted(kind)))](labels)
    assume(values is not None)
    return values


@pytest.mark.parametrize("way", [*BESIDE, "formula"])
@settings(deadline=None, max_examples=8)
@given(data=st.data(), name=st.sampled_from(sorted(LABELS)))
def test_other_types_of_one_kind_give_the_same_numbers(way, data, name):
    kind, labels = LABELS[name]
    rows = [labels[code] for code in CODES]
    model = make(way).fit(**with_labels(draw(data, rows, kind), way), y=Y)
    assert list(model.n_groups_.values()) == [N_LEVELS if way != "interaction" else 4]
    own = model.predict(**with_labels(draw(data, rows, kind), way))
    reference = make(way).fit(**with_labels(CODES, way), y=Y)
    np.testing.assert_allclose(own, reference.predict(**with_labels(CODES, way)), rtol=1e-9)
    reloaded = pickle.loads(pickle.dumps(model))
    other = with_labels(draw(data, rows, kind), way)
    np.testing.assert_array_equal(reloaded.predict(**other), own)
    assert reloaded.score(y=Y, **other) == pytest.approx(
        reference.score(y=Y, **with_labels(CODES, way))
    )
    assert len(residuals(model, y=Y, **other)) == len(Y)
    # Rows of known levels go to these.
    updated = copy.deepcopy(model).update_random_effects(y=Y + 1.0, **other)
    expected = copy.deepcopy(reference).update_random_effects(y=Y + 1.0, **with_labels(CODES, way))
    assert updated.n_groups_ == model.n_groups_
    last = with_labels(draw(data, rows, kind), way)
    np.testing.assert_allclose(
        updated.predict(**last), expected.predict(**with_labels(CODES, way)), rtol=1e-9
    )
    drawn = [
        own.sample_y(random_state=0, random_effects="fitted", **with_labels(rows, way))
        for own, rows in ((updated, draw(data, rows, kind)), (expected, CODES))
    ]
    np.testing.assert_allclose(*drawn, rtol=1e-9)


PAIRS = [
    ("small", "text"),
    ("text", "small"),
    ("text", "bytes"),
    ("days", "text"),
    ("text", "days"),
    ("days", "in a zone"),
    ("in a zone", "small"),
]


@pytest.mark.parametrize(("known", "other"), PAIRS)
@settings(deadline=None, max_examples=3)
@given(data=st.data(), way=st.sampled_from([*BESIDE, "formula"]))
def test_another_kind_is_told(known, other, data, way):
    rows, others = (
        draw(data, [labels[code] for code in CODES], kind)
        for kind, labels in (LABELS[known], LABELS[other])
    )
    model = make(way).fit(**with_labels(rows, way), y=Y)
    factor = next(iter(model.n_groups_))
    given_rows = with_labels(others, way)
    message = f"All levels of {factor!r} are new: here they are .*, in fit they were .*convert"
    with pytest.warns(PopulationPredictionWarning, match=message) as record:
        mean = model.predict(**given_rows)
    assert len(record) == 1
    np.testing.assert_array_equal(
        mean, model.predict(given_rows["X"], groups=given_rows.get("groups"), random_effects="none")
    )
    for told in (
        lambda: model.score(y=Y, **given_rows),
        lambda: model.sample_y(random_effects="fitted", **given_rows),
        lambda: copy.deepcopy(model).update_random_effects(y=Y, **given_rows),
    ):
        with pytest.warns(PopulationPredictionWarning, match=message) as record:
            told()
        assert {warning.filename for warning in record} == {__file__}
    with pytest.raises(ValueError, match="not the rows of the fit"):
        residuals(model, y=Y, **given_rows)


def test_the_message_of_an_update():
    model = MixedLinearRegressor().fit(X, Y, groups=CODES)
    message = (
        "All levels of 'group' are new: here they are text, like '0', in fit they were numbers, "
        "like 0. Labels of another kind are other labels, so that rows go to new levels of "
        "'group' and tell nothing of the known ones: convert the labels to those of fit"
    )
    with pytest.warns(PopulationPredictionWarning, match=re.escape(message)):
        model.update_random_effects(X, Y, groups=CODES.astype(str))
    # Now both kinds are known.
    model.predict(X, groups=["new"] * len(X))


def test_new_levels_of_the_same_kind_are_no_reason_for_a_word():
    model = MixedLinearRegressor().fit(X, Y, groups=CODES)
    for new in (CODES + 99.0, pd.array(CODES + 99, dtype="Int64")):
        population = model.predict(X, random_effects="none")
        np.testing.assert_array_equal(model.predict(X, groups=new), population)
    # Nor are some that are known.
    model.predict(X[:2], groups=[1, "new"])


@pytest.mark.parametrize("way", [*BESIDE, "formula"])
def test_ids_that_became_floats(way):
    ids = (2.0**53 + 2.0 * CODES) if way != "beside X" else np.float32(2**24 + 2 * CODES)
    message = r"groups of factor '\w+' have the label .*e?\+?.* does not hold every whole number"
    with pytest.raises(ValueError, match=message):
        make(way).fit(**with_labels(ids, way), y=Y)
    exact = INT64([2**53 + 2 * int(code) for code in CODES])
    model = make(way).fit(**with_labels(exact, way), y=Y)
    with pytest.raises(ValueError, match=message):
        model.predict(**with_labels(ids, way))
    with pytest.raises(ValueError, match=message):
        model.update_random_effects(y=Y, **with_labels(ids, way))


def test_ids_in_a_table_of_floats():
    table = np.column_stack([X, 2.0**60 + CODES])
    with pytest.raises(
        ValueError, match=re.escape("'x1' have the label 1.152921504606847e+18, a num")
    ):
        MixedLinearRegressor(groups=1).fit(table, Y)
    # A number of more digits is no label, and no reason for a word.
    MixedLinearRegressor(fixed_effects=[0]).fit(table, Y, groups=CODES)


def test_labels_of_a_formula_in_a_frame_of_polars():
    polars = pytest.importorskip("polars")
    ids = [2**62 + int(code) for code in CODES]
    frame = {"y": Y, "x0": X[:, 0], "g": ids}
    model = lmer("y ~ x0 + (1 | g)", pd.DataFrame(frame))
    other = polars.DataFrame(frame)
    np.testing.assert_array_equal(model.predict(other), model.predict(pd.DataFrame(frame)))
    assert model.update_random_effects(other, Y).n_groups_ == {"g": N_LEVELS}
