"""Labels are equal where a user would call them equal, whatever types hold them."""

import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from helpers.labels import BYTES, DAYS, FLOATS, IN_ZONE, NUMBERS, TEXT
from mixedlearn.data.labels import as_labels, interaction
from mixedlearn.data.levels import LevelTable, encode, look_up, merge_levels

# Around the ends of what types hold.
EDGES = [0, 2**7, 2**8, 2**11, 2**24, 2**31, 2**53, 2**62, 2**63, -(2**11), -(2**24), -(2**53)]
NEAR_EDGES = st.builds(int.__add__, st.sampled_from(EDGES), st.integers(-3, 3))
IDS = st.one_of(
    st.lists(st.integers(0, 1), min_size=1, max_size=5),
    st.lists(st.integers(-9, 60), min_size=1, max_size=9),
    st.lists(NEAR_EDGES, min_size=1, max_size=9),
)
WORDS = st.lists(st.sampled_from(["a", "b", "1", "1.0", "ü", "2024-01-01"]), min_size=1, max_size=9)
DATES = st.lists(
    st.dates(datetime.date(1900, 1, 1), datetime.date(2200, 1, 1)), min_size=1, max_size=9
)
OF_ONE_KIND = st.one_of(
    st.tuples(IDS, st.just(NUMBERS)),
    st.tuples(WORDS, st.sampled_from([TEXT, BYTES])),
    st.tuples(DATES, st.sampled_from([DAYS, IN_ZONE])),
)
KINDS = {
    "numbers": (NUMBERS, [3, 1, 3]),
    "text": (TEXT, ["3", "1", "3"]),
    "bytes": (BYTES, ["3", "1", "3"]),
    "without a time zone": (DAYS, [datetime.date(2024, 1, day) for day in (3, 1, 3)]),
    "with a time zone": (IN_ZONE, [datetime.date(2024, 1, day) for day in (3, 1, 3)]),
}


def read(values):
    return as_labels(values, len(values))[0]


def represent(data, labels, kind):
    """The labels in a representation that holds them."""
    values = kind[data.draw(st.sampled_from(sorted(kind)))](labels)
    assume(values is not None)
    return read(values)


def partition(labels):
    return [labels.index(label) for label in labels]


@settings(deadline=None, max_examples=80)
@given(data=st.data(), drawn=OF_ONE_KIND)
def test_labels_are_found_whatever_holds_them(data, drawn):
    labels, kind = drawn
    codes, levels = encode(represent(data, labels, kind))
    assert len(levels) == len(set(labels))
    assert partition(codes.tolist()) == partition(labels)
    # Others beside them change nothing, and are not found.
    chosen = data.draw(st.lists(st.sampled_from(labels), min_size=1))
    assert_array_equal(
        look_up(represent(data, chosen, kind), levels),
        [codes[labels.index(label)] for label in chosen],
    )
    others = levels[np.arange(len(levels)) != codes[0]]
    found = look_up(represent(data, labels, kind), others)
    assert_array_equal(found < 0, [label == labels[0] for label in labels])


@settings(deadline=None, max_examples=80)
@given(data=st.data(), drawn=OF_ONE_KIND, n_known=st.integers(1, 8))
def test_levels_that_come_later_are_known_or_new(data, drawn, n_known):
    labels, kind = drawn
    known, later = labels[:n_known], labels[n_known:] or labels
    parts = []
    for own in (known, later):
        codes, levels = encode(represent(data, own, kind))
        parts.append((codes, levels))
    places, other_places, levels = merge_levels(parts[0][1], parts[1][1])
    assert len(levels) == len(set(known + later))
    all_places = [*places[parts[0][0]], *other_places[parts[1][0]]]
    assert partition(all_places) == partition(known + later)
    # Further rows find them in any representation.
    assert_array_equal(look_up(represent(data, later, kind), levels), other_places[parts[1][0]])


@settings(deadline=None, max_examples=40)
@given(data=st.data(), drawn=OF_ONE_KIND)
def test_parts_of_interactions(data, drawn):
    labels, kind = drawn
    second = ["x", "y", "y"] * 3
    second = second[: len(labels)]

    def both():
        return interaction("a:b", [represent(data, labels, kind), represent(data, second, TEXT)])

    codes, levels = encode(both())
    assert_array_equal(look_up(both(), levels), codes)
    places, other_places, merged = merge_levels(levels, encode(both())[1])
    assert len(merged) == len(levels) == len(set(zip(labels, second, strict=True)))
    assert_array_equal(places, other_places)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), drawn=OF_ONE_KIND)
def test_one_kind_is_never_told_from_itself(data, drawn):
    labels, kind = drawn
    _, levels = encode(represent(data, labels, kind))
    assert LevelTable(levels).other_kind(represent(data, labels, kind)) is None


@pytest.mark.parametrize("known", KINDS)
@pytest.mark.parametrize("own", KINDS)
@settings(deadline=None, max_examples=4)
@given(data=st.data())
def test_kinds_are_told_apart(data, known, own):
    if known == own:
        return
    _, levels = encode(represent(data, KINDS[known][1], KINDS[known][0]))
    labels = represent(data, KINDS[own][1], KINDS[own][0])
    assert_array_equal(look_up(labels, levels), [-1, -1, -1])
    found = LevelTable(levels).other_kind(labels)
    assert own in found.kind
    assert known in found.known_kind
    assert (found.label, found.known_label) == (labels.at(0), levels[0])


@settings(deadline=None, max_examples=80)
@given(
    ids=st.lists(NEAR_EDGES, min_size=2, max_size=9, unique=True),
    dtype=st.sampled_from(sorted(FLOATS)),
    form=st.sampled_from(
        ["array", "series", "list", "objects", "category", "nullable", "matrix", "tuples"]
    ),
)
@example(ids=[2**53, 2**53 + 1], dtype="float64", form="array")
@example(ids=[2**24, 2**24 + 1], dtype="float32", form="list")
@example(ids=[-(2**11) - 1, -(2**11)], dtype="float16", form="objects")
def test_ids_that_became_floats_never_merge(ids, dtype, form):
    with np.errstate(over="ignore"):
        values = np.array(ids, dtype=np.float64).astype(dtype)
    held = max(map(abs, ids)) < FLOATS[dtype]
    if form in ("category", "nullable") and dtype == "float16":
        return
    make = {
        "array": lambda: values,
        "series": lambda: pd.Series(values),
        "list": lambda: list(values),
        "objects": lambda: np.array(list(values), dtype=object),
        "category": lambda: pd.Series(values).astype("category"),
        "nullable": lambda: pd.Series(values).astype(dtype.capitalize()),
        "matrix": lambda: values[:, None],
        "tuples": lambda: [(value, "a") for value in values],
    }[form]
    if form == "tuples" and not np.isfinite(values).all():
        return
    if held:
        assert len(encode(read(make()))[1]) == len(ids)
    else:
        with pytest.raises(ValueError, match=r"'group\w*' have .* (whole number|infinite label)"):
            read(make())


@settings(deadline=None, max_examples=50)
@given(values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=9))
@example(values=[0.1, 0.30000001192092896])
def test_fractions_of_either_width(values):
    """What is a level in one width is that level in the other, if the narrow one has as many."""
    wide = np.array([float(str(np.float32(value))) for value in values])
    narrow = wide.astype(np.float32)
    assume(len(set(wide)) == len(set(narrow)))
    for known, own in ((wide, narrow), (narrow, wide)):
        codes, levels = encode(read(known))
        assert_array_equal(look_up(read(own), levels), codes)


def test_fractions_that_only_one_width_tells_apart():
    wide = np.array([0.1, 0.1 + 1e-12])
    _, levels = encode(read(wide))
    assert_array_equal(look_up(read(np.float32([0.1])), levels), [-1])
    _, levels = encode(read(np.float32([0.1, 0.25])))
    assert_array_equal(look_up(read(wide), levels), [-1, -1])


def test_decimal_fractions_are_what_floats_print():
    _, levels = encode(read([Decimal("2.1"), Decimal("3")]))
    labels = read([2.1, 3.0, 2.10000001])
    assert_array_equal(look_up(labels, levels), [0, 1, -1])
    longer = read([Decimal("2.1"), Decimal("2.100000000000000000001")])
    assert_array_equal(look_up(longer, encode(read([2.1]))[1]), [0, -1])


def test_equal_labels_of_several_types_in_one_column():
    day = datetime.date(2024, 1, 2)
    midnight = datetime.datetime(2024, 1, 2)
    labels = read(np.array([day, midnight, np.datetime64(day), day.replace(day=1)], dtype=object))
    codes, levels = encode(labels)
    assert len(levels) == 2
    assert partition(codes.tolist()) == [0, 0, 0, 3]
    assert_array_equal(look_up(labels, levels), codes)
    numbers = read(np.array([1, True, 1.0, Decimal(1), np.float32(1.0), 2], dtype=object))
    assert partition(encode(numbers)[0].tolist()) == [0, 0, 0, 0, 0, 5]


def test_periods_of_other_frequencies_and_time_differences():
    months = read(pd.period_range("2024-01", periods=2, freq="M"))
    days = read(pd.period_range("2024-01-01", periods=2, freq="D"))
    _, levels = encode(months)
    assert_array_equal(look_up(days, levels), [-1, -1])
    assert LevelTable(levels).other_kind(days).kind == "periods of frequency D"
    hours = np.array([24, 48], dtype="timedelta64[h]")
    _, levels = encode(read(hours.astype("timedelta64[ns]")))
    for values in (hours.astype("timedelta64[s]"), np.array(list(hours), dtype=object)):
        assert_array_equal(look_up(read(values), levels), [0, 1])
    found = LevelTable(levels).other_kind(read([24, 48]))
    assert (found.kind, found.known_kind) == ("numbers", "time differences")


def test_numbers_are_not_found_in_intervals_nor_text_in_dates():
    _, levels = encode(read(pd.arrays.IntervalArray.from_breaks([0.0, 1.0, 2.0])))
    assert_array_equal(look_up(read([0.5, 1.5]), levels), [-1, -1])
    assert LevelTable(levels).other_kind(read([0.5])).known_kind == "intervals"


def test_what_is_of_several_kinds():
    _, levels = encode(read([1, "a", 2]))
    assert_array_equal(look_up(read(["1", "a"]), levels) >= 0, [False, True])
    assert LevelTable(levels).other_kind(read(["1"])) is None
    found = LevelTable(levels).other_kind(read([datetime.date(2024, 1, 1)]))
    assert found.known_kind == "numbers and text"
