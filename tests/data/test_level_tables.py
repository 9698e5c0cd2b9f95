"""Levels that are prepared once are found as if they were looked up anew."""

import pickle
import threading
import tracemalloc
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from helpers.labels import BYTES, DAYS, IN_ZONE, NUMBERS, TEXT
from mixedlearn.data.labels import as_labels, interaction
from mixedlearn.data.levels import LevelTable, encode, pack_levels, unpack_levels
from mixedlearn.data.sums import sum_rows

N = 20_000
KINDS = {"numbers": NUMBERS, "text": TEXT, "bytes": BYTES, "days": DAYS, "in a zone": IN_ZONE}
DAY = np.datetime64("2000-01-01")


def read(values):
    return as_labels(values, len(values))[0]


def values_of(numbers, kind):
    """Labels of a kind that stand for small integers."""
    if kind in ("days", "in a zone"):
        return [(DAY + number).item() for number in numbers]
    return list(numbers) if kind == "numbers" else [str(number) for number in numbers]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=15)
@given(data=st.data(), numbers=st.lists(st.integers(0, 30), min_size=1, max_size=12))
def test_one_table_answers_in_every_type(kind, data, numbers):
    forms = KINDS[kind]
    first = forms[data.draw(st.sampled_from(sorted(forms)))](values_of(numbers, kind))
    assume(first is not None)
    codes, levels = encode(read(first))
    table = LevelTable(levels)
    code_of = dict(zip(numbers, codes.tolist(), strict=True))
    for form in data.draw(st.lists(st.sampled_from(sorted(forms)), min_size=1, max_size=5)):
        asked = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=6))
        own = forms[form](values_of(asked, kind))
        if own is not None:
            assert_array_equal(table.find(read(own)), [code_of.get(number, -1) for number in asked])


def test_numbers_that_only_objects_tell_apart_do_not_disturb_later_look_ups():
    ids = [2**62 + 1, 2**62 + 3, 5]
    table = LevelTable(encode(read(ids))[1])
    for asked, expected in (
        (np.array([5.0]), [0]),
        (np.array([2**62 + 3], dtype=np.uint64), [2]),
        (np.array([5], dtype=np.int32), [0]),
        ([Decimal(5), Decimal(2**62 + 1)], [0, 1]),
        (np.array([2.0**40]), [-1]),
    ):
        assert_array_equal(table.find(read(asked)), expected)


def test_only_the_categories_of_the_rows_are_looked_at():
    """Whatever others there are, of whatever kind."""
    labels = pd.Categorical.from_codes([2, 0, 2], categories=["a", "b", "c", "d"])
    table = LevelTable(encode(read(["c", "a"]))[1])
    assert_array_equal(table.find(read(labels)), [1, 0, 1])
    assert_array_equal(table.find(read(labels[:1])), [1])
    assert_array_equal(table.find(read(labels.add_categories(range(90)))), [1, 0, 1])


LARGE = {
    "integers": np.arange(N) * 7,
    "text": np.array([f"u{i}" for i in range(N)], dtype=object),
    "category": pd.Categorical([f"u{i}" for i in range(N)]),
    "datetime": pd.Timestamp("1990-01-01") + pd.to_timedelta(np.arange(N), "h"),
    "decimals": np.array([Decimal(i) / 4 for i in range(N)], dtype=object),
    "long decimals": np.array([i + Decimal("1e-30") for i in range(N)], dtype=object),
    "tuples": pd.Series([(i, "a") for i in range(N)], dtype=object),
    "several kinds": np.array([i if i % 2 else str(i) for i in range(N)], dtype=object),
}
OTHER_TYPES = {
    "floats": ("integers", np.array([14.0])),
    "small integers": ("integers", np.array([14], dtype=np.int16)),
    "unsigned integers": ("integers", np.array([14], dtype=np.uint64)),
    "decimal": ("integers", [Decimal(14)]),
    "text among numbers": ("integers", ["14"]),
    "a new tuple": ("tuples", pd.Series([(-1, "a")], dtype=object)),
    "another unit": (
        "datetime",
        np.array(["1990-01-01T02"], dtype="datetime64[ns]"),
    ),
    "a new category": ("category", pd.Categorical(["new"], categories=["new", *LARGE["category"]])),
}


@pytest.mark.parametrize("name", [*LARGE, *OTHER_TYPES])
def test_a_later_look_up_does_not_pass_over_the_levels(name):
    known, row = OTHER_TYPES.get(name, (name, LARGE.get(name, [None])[5:6]))
    table = LevelTable(encode(read(LARGE[known]))[1])
    beside = interaction("a:b", [read(LARGE[known]), read(np.arange(N) % 7)])
    pairs = LevelTable(encode(beside)[1])

    def ask():
        own = read(row)
        found = table.find(own), pairs.find(interaction("a:b", [own, read([5])]))
        table.other_kind(own)
        pairs.other_kind(interaction("a:b", [own, read([5])]))
        return found

    first = ask()
    tracemalloc.start()
    for found, expected in zip(ask(), first, strict=True):
        assert_array_equal(found, expected)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < N


def test_threads_share_the_first_look_up():
    labels = np.random.default_rng(0).permutation(N)
    codes, levels = encode(read(labels))
    for others in (labels, labels.astype(float), labels.astype(object)):
        table, failures = LevelTable(levels), []
        start = threading.Barrier(4)

        def ask(table=table, start=start, failures=failures, others=others):
            start.wait()
            failures.append((table.find(read(others)) != codes).sum())

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == [0, 0, 0, 0]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=10)
@given(data=st.data(), numbers=st.lists(st.integers(-30, 30), min_size=1, max_size=9))
def test_packed_levels_are_restored(kind, data, numbers):
    forms = KINDS[kind]
    values = forms[data.draw(st.sampled_from(sorted(forms)))](values_of(numbers, kind))
    assume(values is not None)
    own = read(values)
    for labels in (own, interaction("a:b", [own, read(np.arange(len(numbers)) % 2)])):
        levels = encode(labels)[1]
        again = unpack_levels(pickle.loads(pickle.dumps(pack_levels(levels))))
        pd.testing.assert_index_equal(again, levels, exact=True)


def test_saved_sums_are_restored():
    rng = np.random.default_rng(0)
    labels = [read(["b", "a", "c", "a"]), read([(1, 2), (1, 2), (3, 4), (0, 0)])]
    codes, levels = zip(*map(encode, labels), strict=True)
    sums = sum_rows(rng.standard_normal((4, 2)), rng.standard_normal(4), codes, levels, [(0,), ()])
    again = pickle.loads(pickle.dumps(sums))
    for one, other in zip(again.levels, sums.levels, strict=True):
        pd.testing.assert_index_equal(one, other, exact=True)
    whole, restored = sums + sums, again + sums
    assert_array_equal(restored.gram, whole.gram)
    assert_array_equal(restored.crossings[0, 1].products, whole.crossings[0, 1].products)
