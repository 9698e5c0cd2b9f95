"""Sums that grow in place are those of all rows, and levels are numbered as they come."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mixedlearn.data import numbering
from mixedlearn.data.growing import GrowingSums, sums_of_batches
from mixedlearn.data.labels import as_labels, interaction
from mixedlearn.data.levels import encode
from mixedlearn.data.numbering import LevelNumbers
from mixedlearn.data.rows import Rows
from mixedlearn.data.sums import Sums

SLOPES = ((0,), (), (1, 2))


def made_up(seed, n=150):
    rng = np.random.default_rng(seed)
    a = as_labels(rng.integers(-30, 30, n), n, ["a"])[0]
    b = as_labels(np.array([f"b{own}" for own in rng.integers(0, 9, n)], object), n, ["b"])[0]
    labels = (a, b, interaction("a:b", [a, b]))
    return Rows(rng.normal(1e3, 1.0, (n, 3)), labels, rng.normal(size=n), rng.uniform(0.1, 9.0, n))


def some(rows, chosen):
    labels = tuple(own.rows(chosen) for own in rows.labels)
    return Rows(rows.X[chosen], labels, rows.response[chosen], rows.weights[chosen])


def assert_same_sums(found, whole):
    plain = [own._with_shift(np.zeros(4), own.taken) for own in (found, whole)]
    assert found.n_rows == whole.n_rows
    assert_allclose(found.sum_log_weights, whole.sum_log_weights)
    assert_allclose(found.response_square, whole.response_square)
    for own, theirs in zip(found.levels, whole.levels, strict=True):
        assert own.equals(theirs)
        assert own.names == theirs.names
    assert_allclose(plain[0].gram, plain[1].gram, rtol=1e-10, atol=1e-6)
    for own, theirs in zip(plain[0].grouped, plain[1].grouped, strict=True):
        assert_allclose(own, theirs, rtol=1e-10, atol=1e-6)
    for pair, theirs in plain[1].crossings.items():
        own = plain[0].crossings[pair]
        assert_array_equal(own.first, theirs.first)
        assert_array_equal(own.second, theirs.second)
        assert_allclose(own.products, theirs.products, rtol=1e-10, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    ends=st.sets(st.integers(0, 150), max_size=12),
    is_sorted=st.booleans(),
    taken=st.sampled_from([None, [1.0, 0.5, 0.0, -2.0]]),
)
def test_equal_those_of_all_rows(seed, ends, is_sorted, taken):
    rows = made_up(seed)
    taken = None if taken is None else np.array(taken)
    order = np.argsort(rows.labels[0].parts[0]) if is_sorted else np.arange(150)
    batches = [some(rows, chosen) for chosen in np.split(order, sorted(ends))]
    found = sums_of_batches(batches, SLOPES, taken)
    assert_same_sums(found, Sums.of(rows, SLOPES, taken=taken))
    assert found.is_reduced == (taken is not None)


def test_no_rows():
    with pytest.raises(ValueError, match="no rows"):
        GrowingSums(SLOPES).total()


KINDS = {
    "int": lambda own: own,
    "unsigned": lambda own: (own + 10**6).astype(np.uint32),
    "far apart": lambda own: own * 10**12,
    "large": lambda own: (own + 1000).astype(np.uint64) + np.uint64(2**63),
    "float": lambda own: own.astype(float),
    "text": lambda own: np.array([f"g{each}" for each in own], dtype=object),
    "date": lambda own: np.datetime64("2020-02-28") + own.astype("timedelta64[D]"),
}


class TestLevelNumbers:
    @settings(max_examples=80, deadline=None)
    @given(
        batches=st.lists(
            st.tuples(
                st.lists(st.integers(-300, 300), max_size=30), st.sampled_from(sorted(KINDS))
            ),
            min_size=1,
            max_size=8,
        ),
        one_kind=st.booleans(),
        few=st.sampled_from([0, 50, 1 << 16]),
    )
    def test_are_a_renumbering_of_the_levels(self, batches, one_kind, few):
        numbers = LevelNumbers()
        all_labels, all_codes = [], []
        before, numbering.FEW_INTEGERS = numbering.FEW_INTEGERS, few
        try:
            for own, kind in batches:
                kind = batches[0][1] if one_kind or kind in ("text", "date") else kind
                array = KINDS[kind](np.array(own, dtype=np.int64))
                labels = as_labels(array, len(array), ["g"])[0]
                codes = numbers.number(labels)
                assert codes.dtype == np.int32
                all_labels += list(labels.parts[0])
                all_codes += list(codes)
                assert len(numbers) == max(all_codes, default=-1) + 1
        finally:
            numbering.FEW_INTEGERS = before
        if not all_labels:
            return
        levels, codes = numbers.in_order(labels)
        assert_array_equal(np.sort(codes), np.arange(len(numbers)))
        assert levels.names == ["g"]
        place = np.empty(len(codes), dtype=int)
        place[codes] = np.arange(len(codes))
        found = [levels[place[code]] for code in all_codes]
        assert found == all_labels
        if one_kind:
            whole = as_labels(
                np.concatenate([KINDS[batches[0][1]](np.array(own, int)) for own, _ in batches]),
                len(all_labels),
                ["g"],
            )[0]
            assert levels.equals(encode(whole)[1])
