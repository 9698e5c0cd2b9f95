"""The sketch of the rows: combinations, of which no row can be read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixedlearn.data.labels import as_labels
from mixedlearn.data.rows import Rows
from mixedlearn.data.sketch import COMBINATIONS, SKETCHED_ROWS
from mixedlearn.data.sums import Sums


def make_sums(X, labels, y=None):
    y = np.arange(len(X)) % 5.0 if y is None else y
    return Sums.of(Rows(X, tuple(as_labels(labels, len(X))), y), [()])


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 40, 300, 3000, 30_000]))
def test_combinations_go_with_the_columns(seed, n):
    generator = np.random.default_rng(seed)
    X = generator.standard_normal((n, 3)) + 10.0 ** generator.integers(0, 5, 3)
    turn = generator.standard_normal((3, 2))
    labels = generator.integers(0, 5, n)
    sums, turned = make_sums(X, labels), make_sums(X @ turn, labels)
    ours = sums.sketched(sums.centred(sums.fixed_columns((0, 1, 2), False))) @ turn
    theirs = turned.sketched(turned.centred(turned.fixed_columns((0, 1), False)))
    np.testing.assert_allclose(ours, theirs, atol=1e-9 * np.abs(X).max() * np.sqrt(n))
    assert len(ours) == min(n // 2, COMBINATIONS)
    if n > 8:
        X[:, 0] = generator.permutation(X[:, 0])
        other = make_sums(X, labels)
        found = other.sketched(other.fixed_columns((0,), False))
        assert not np.allclose(found, sums.sketched(sums.fixed_columns((0,), False)), rtol=1e-6)


@pytest.mark.parametrize("n", [50, 5 * SKETCHED_ROWS])
def test_partitions_tell_factors_apart_whatever_their_levels_are_called(n):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 9, n)
    X = np.empty((n, 0))
    names = generator.permutation(9)[labels]
    first = make_sums(X, labels)
    np.testing.assert_allclose(first.partition(0), make_sums(X, names).partition(0))
    moved = generator.permutation(labels)
    assert abs(make_sums(X, moved).partition(0) / first.partition(0) - 1.0) > 1e-6


def test_no_row_is_kept():
    generator = np.random.default_rng(0)
    X = generator.standard_normal((8, 2))
    sums = make_sums(X, np.arange(8) % 2)
    # Of eight rows there are four combinations of two.
    combinations = sums.sketched(sums.fixed_columns((0, 1), False))
    assert combinations.shape == (4, 2)
    for row in X:
        ratios = combinations / row
        assert (np.abs(ratios[:, 0] / ratios[:, 1] - 1.0) > 1e-3).all()


def test_sums_that_are_added_have_none():
    X, labels = np.ones((6, 1)), [0, 0, 1, 1, 2, 2]
    sums = make_sums(X, labels)
    both = sums + sums
    assert both.sketched(both.raw_response()) is None
    assert np.isnan(both.partition(0))
