"""Running sums are those of all rows, and no batch passes over all levels."""

import pickle
from unittest import mock

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mixedlearn.data import running
from mixedlearn.data.labels import as_labels
from mixedlearn.data.rows import Rows
from mixedlearn.data.running import RunningSums
from mixedlearn.data.sums import Sums

SLOPES = ((0,), ())


def made_up(n, n_levels, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal([1e3, 0.0], 1.0, (n, 2))
    labels = rng.integers(0, n_levels, n), rng.integers(0, 3, n)
    return X, rng.normal(size=n), labels, rng.choice([0.0, 1.0, 3.0], n)


def rows_of(data, chosen, dtype=np.int64):
    X, y, labels, weights = data
    named = [as_labels(own[chosen].astype(dtype), len(y[chosen]), ["g"])[0] for own in labels]
    return Rows(X[chosen], tuple(named), y[chosen], weights[chosen])


def level_products(sums):
    """The products by level, in the units of the columns as they were."""
    plain = sums._with_shift(np.zeros(sums.n_basis - 1), np.zeros(sums.n_basis - 2))
    return [*plain.grouped, *(own.products for own in plain.crossings.values()), plain.gram]


@pytest.mark.parametrize("waiting", [1, 300, 10**6])
@pytest.mark.parametrize("types", [("int64",), ("int64", "int8", "float64")])
def test_equal_the_sums_of_all_rows(waiting, types):
    data = made_up(200, 20)
    whole = Sums.of(rows_of(data, slice(None)).present(), SLOPES)
    order = np.random.default_rng(1).permutation(200)
    found = RunningSums(SLOPES)
    with mock.patch.object(running, "WAITING_ENTRIES", waiting):
        for number, chosen in enumerate(np.array_split(order, 17)):
            found = found.with_rows(rows_of(data, chosen, types[number % len(types)]))
            found = pickle.loads(pickle.dumps(found))
        total = found.total()
    assert total.n_rows == whole.n_rows
    assert found.weights == (1.0, 3.0)
    for own, theirs in zip(total.levels, whole.levels, strict=True):
        assert_array_equal(own, theirs)
    for own, theirs in zip(level_products(total), level_products(whole), strict=True):
        assert_allclose(own, theirs, rtol=1e-10, atol=1e-8)


def test_rows_that_wait_are_there():
    data = made_up(30, 5)
    some, more = rows_of(data, slice(0, 20)), rows_of(data, slice(20, 30))
    found = RunningSums(SLOPES).with_rows(some).with_rows(more)
    assert_array_equal(found.rows.X, rows_of(data, slice(None)).present().X)
    whole = Sums.of(rows_of(data, slice(None)).present(), SLOPES)
    assert_array_equal(found.total().gram, whole.gram)
    assert found.summed_up().rows is None
    assert RunningSums(SLOPES).rows is None


def test_holds_no_array_of_the_user():
    data = made_up(30, 5)
    rows = rows_of(data, slice(None)).present()
    found = RunningSums(SLOPES).with_rows(rows)
    gram = found.total().gram
    for array in (rows.X, rows.response, rows.weights):
        array[:] = 7.0
    assert_array_equal(found.total().gram, gram)


def test_a_batch_does_not_pass_over_all_levels():
    n, n_levels = 20_000, 2_000
    data = made_up(n, n_levels)
    found, n_additions = RunningSums(SLOPES), 0
    with (
        mock.patch.object(running, "WAITING_ENTRIES", 1),
        mock.patch.object(Sums, "__add__", autospec=True, side_effect=Sums.__add__) as add,
    ):
        for start in range(0, n, 20):
            found = found.with_rows(rows_of(data, slice(start, start + 20)))
        n_additions = add.call_count
        total = found.total()
    # A thousand batches. As soon as most levels are there, as many numbers wait as they have.
    assert n_additions < 60
    assert total.n_rows == np.count_nonzero(data[-1])


def test_refuses_now_what_no_sum_could_have_later():
    data, everything = made_up(30, 5), np.arange(30)
    good = RunningSums(SLOPES).with_rows(rows_of(data, everything))
    for value in (np.nan, np.inf, 1e200):
        rows = rows_of(data, everything)
        rows.X[3, 1] = value
        with pytest.raises(ValueError, match="position 1"):
            good.with_rows(rows)
    rows = rows_of(data, everything)
    rows.response[4] = 1e200
    with pytest.raises(ValueError, match="The squares of the response"):
        good.with_rows(rows)


def test_large_values_whose_deviations_are_not():
    data = made_up(30, 5)
    rows = rows_of(data, slice(None)).present()
    rows.X[:, 1] = 1e160
    assert RunningSums(SLOPES).with_rows(rows).total().n_rows == len(rows.X)


def test_no_rows():
    nothing = RunningSums(SLOPES).with_rows(rows_of(made_up(5, 2), slice(0, 0)))
    assert nothing == RunningSums(SLOPES)
    with pytest.raises(ValueError, match="no rows of positive weight yet"):
        nothing.total()
