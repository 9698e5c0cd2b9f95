"""Integer labels with few gaps are encoded by a table: as pandas would encode them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.testing import assert_array_equal

from mixedlearn.data.labels import as_labels, interaction
from mixedlearn.data.levels import encode

DTYPES = st.sampled_from(["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])


def check_encoding(values):
    codes, levels = encode(as_labels(values, len(values))[0])
    expected_codes, expected_levels = pd.factorize(values, sort=True)
    assert_array_equal(codes, expected_codes)
    assert codes.dtype == np.int32
    pd.testing.assert_index_equal(levels, pd.Index(expected_levels, name="group"), exact=True)


@given(npst.arrays(DTYPES, st.integers(1, 40)))
def test_any_integers(values):
    check_encoding(values)


@given(data=st.data(), dtype=DTYPES, end=st.sampled_from(["least", "greatest", "zero"]))
def test_integers_near_the_ends_of_their_type(data, dtype, end):
    limits = np.iinfo(dtype)
    start = {"least": limits.min, "greatest": limits.max - 30, "zero": 0}[end]
    offsets = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=40))
    check_encoding(np.array([start + offset for offset in offsets], dtype=dtype))


@pytest.mark.parametrize("n_rows", [1, 2, 1000])
@pytest.mark.parametrize("step", [1, 3, 4, 5, 1 << 40])
def test_on_both_sides_of_what_is_dense(n_rows, step):
    check_encoding(np.random.default_rng(n_rows).permutation(n_rows) * step - n_rows)


def test_levels_of_interactions():
    X = pd.DataFrame({"a": [3, 1, 3, 1], "b": np.array([9, 9, 7, 9], dtype=np.int8)})
    first, second = as_labels(X, len(X))
    codes, levels = encode(interaction("a:b", [first, second]))
    assert_array_equal(codes, [2, 0, 1, 0])
    assert list(levels) == [(1, 9), (3, 7), (3, 9)]
