"""Objects that are numbers, and integers that floats do not hold."""

import datetime
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mixedlearn.data.numbers import as_floats, inexact_note, kind_of_objects

MISSING = [None, np.nan, pd.NA]


def objects(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


numbers = st.one_of(
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False, width=32),
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-1e6, max_value=1e6),
    st.fractions(-1000, 1000),
    st.integers(-100, 100).map(np.int8),
    st.floats(-10, 10, width=16).map(np.float16),
)


@settings(deadline=None)
@given(st.lists(numbers, min_size=1, max_size=8), st.lists(st.sampled_from(MISSING), max_size=2))
def test_numbers_of_any_type(values, missing):
    column = objects([*missing, *values])
    assert kind_of_objects(column) == "numbers"
    found = as_floats(column)
    assert_array_equal(found[len(missing) :], [float(value) for value in values])
    assert np.isnan(found[: len(missing)]).all()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([datetime.date(2020, 1, 1), None], "dates"),
        ([datetime.datetime(2020, 1, 1), pd.Timestamp(0), pd.NaT], "dates"),
        ([datetime.time(12)], "dates"),
        ([np.datetime64("2020")], "dates"),
        ([datetime.timedelta(1), np.timedelta64(1, "D"), pd.Timedelta(1)], "time differences"),
        ([True, False, None], ""),
        ([True, 2], "numbers"),
        ([1, "1"], ""),
        ([Decimal(1), datetime.date(2020, 1, 1)], ""),
        ([Fraction(1, 2), 1j], ""),
        ([None, np.nan], "numbers"),
        ([None], ""),
        ([], ""),
    ],
)
def test_kinds(values, kind):
    assert kind_of_objects(objects(values)) == kind


@settings(deadline=None)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5),
    st.sampled_from(["int64", "Int64", "object", "int64[pyarrow]"]),
)
def test_integers_are_told_exactly_where_they_change(values, kind):
    note = inexact_note("k", pd.Series(values, dtype=kind))
    changed = [row for row, value in enumerate(values) if int(float(value)) != value]
    assert bool(note) == bool(changed)
    if changed:
        assert f"'k' are too large for floats and lose digits: {values[changed[0]]} at" in note
        assert f"row {changed[0]} becomes" in note


def test_no_note_of_other_types():
    for values in ([2**60 + 0.5], [2**31], ["a"], [2.0**70], [True]):
        assert not inexact_note("k", pd.Series(values))
    assert not inexact_note("k", pd.Series([2**53 + 1]).astype("category"))
