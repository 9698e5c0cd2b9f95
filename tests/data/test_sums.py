"""Sums of parts equal the sums of the whole, whatever the parts are."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixedlearn.data.labels import as_labels
from mixedlearn.data.rows import Rows
from mixedlearn.data.sums import Sums
from mixedlearn.engines.problem import make_problem
from mixedlearn.engines.recipe import Recipe
from mixedlearn.specification import make_specification

COLUMNS = ["x", "z"]


def specification_of(names, slopes):
    return make_specification(
        COLUMNS,
        [(name, ()) for name in names],
        fixed_effects=None,
        random_intercept=True,
        random_slopes=dict(zip(names, slopes, strict=True)),
        covariance="full",
        fit_intercept=True,
        reml=True,
    )


LABELS = {
    "int": lambda codes: codes * 7 - 3,
    "large int": lambda codes: codes.astype(np.int64) + 2**60,
    "float": lambda codes: codes / 4.0,
    "text": lambda codes: np.array([f"level {9 - code}" for code in codes], dtype=object),
    "mixed": lambda codes: np.array(
        [(int(code) if code % 2 else f"g{code}") for code in codes], dtype=object
    ),
    "date": lambda codes: np.datetime64("2020-01-01") + codes.astype("timedelta64[D]"),
    "category": lambda codes: pd.Categorical.from_codes(codes, list("qwertyuiop"), ordered=True),
    "bool": lambda codes: codes % 2 == 0,
}


@st.composite
def made_up(draw):
    """Rows, how they are split, and the order and the tree in which the parts are added."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(30, 80))
    kinds = draw(st.lists(st.sampled_from(sorted(LABELS)), min_size=1, max_size=3))
    dtype = draw(st.sampled_from([np.float64, np.float32]))
    origin = draw(st.sampled_from([0.0, 1.0, 1e3]))
    X = (rng.standard_normal((n, 2)) * [1.0, 3.0] + origin).astype(dtype)
    # Rows in order of time: parts have means of their own.
    X[:, 0] = np.sort(X[:, 0])
    y = X.astype(float) @ [0.5, -1.0] + rng.standard_normal(n) + origin
    labels = []
    for k, kind in enumerate(kinds):
        codes = rng.integers(0, draw(st.integers(2, 9)), n)
        y += rng.standard_normal(10)[codes]
        labels.append(as_labels(LABELS[kind](codes), n, [f"g{k}"])[0])
    weights = rng.uniform(0.2, 5.0, n) if draw(st.booleans()) else None
    slopes = [draw(st.sampled_from([(), (0,), (1, 0)])) for _ in kinds]
    part = rng.integers(0, draw(st.integers(2, 5)), n)
    if draw(st.booleans()):
        part = np.sort(part)
    order = rng.permutation(np.unique(part))
    return Rows(X, tuple(labels), y, weights), slopes, part, order, rng


def some(rows, chosen):
    return Rows(
        rows.X[chosen],
        tuple(own.rows(chosen) for own in rows.labels),
        rows.response[chosen],
        None if rows.weights is None else rows.weights[chosen],
    )


def added_in_some_tree(parts, rng):
    """The sum of all parts; which two are added next is chosen at random."""
    parts = list(parts)
    while len(parts) > 1:
        left = parts.pop(rng.integers(len(parts)))
        right = parts.pop(rng.integers(len(parts)))
        parts.append(left + right)
    return parts[0]


def criterion(sums, specification, seed):
    """The likelihood at some Lambda, in the units of the user."""
    problem = make_problem(sums, Recipe(specification))
    factors = [
        random.from_user
        @ np.random.default_rng([seed, k]).standard_normal((len(factor.effects),) * 2)
        for k, (random, factor) in enumerate(
            zip(problem.randoms, specification.factors, strict=True)
        )
    ]
    theta = problem.engine.components.theta_of([own @ own.T for own in factors])
    return problem.engine.evaluate(theta, 0).objective


@pytest.mark.slow
@given(made_up())
@settings(max_examples=150, deadline=None)
def test_sums_of_parts_are_those_of_the_whole(drawn):
    rows, slopes, part, order, rng = drawn
    whole = Sums.of(rows, slopes)
    parts = [Sums.of(some(rows, part == number), slopes) for number in order]
    added = added_in_some_tree(parts, rng)
    assert added.n_rows == whole.n_rows
    assert added.sum_log_weights == pytest.approx(whole.sum_log_weights, abs=1e-12 * len(rows.X))
    # Levels are sorted; only the order of categories is not known to their sums.
    is_sorted = [not isinstance(own.parts[0], pd.CategoricalIndex) for own in rows.labels]
    for own, other, same_order in zip(added.levels, whole.levels, is_sorted, strict=True):
        assert list(own) == (list(other) if same_order else sorted(other))
        assert own.name == other.name
    for i in np.flatnonzero(is_sorted):
        for j in np.flatnonzero(is_sorted):
            if i != j:
                np.testing.assert_array_equal(added.pairs(i, j), whole.pairs(i, j))
    names = [own.name for own in rows.labels]
    specification = specification_of(names, slopes)
    for seed in range(3):
        expected = criterion(whole, specification, seed)
        assert criterion(added, specification, seed) == pytest.approx(
            expected, abs=1e-9 * max(1, abs(expected))
        )


@given(made_up())
@settings(max_examples=50, deadline=None)
def test_the_order_of_addition_leaves_no_trace(drawn):
    rows, slopes, part, order, _ = drawn
    parts = [Sums.of(some(rows, part == number), slopes) for number in order]
    first = parts[0]
    for own in parts[1:]:
        first = first + own
    last = parts[-1]
    for own in reversed(parts[:-1]):
        last = own + last
    size = np.sqrt(np.outer(np.diag(first.gram), np.diag(first.gram)))
    np.testing.assert_allclose(first.shift, last.shift, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(first.gram / size, last.gram / size, atol=1e-12)
    for own, other in zip(first.grouped, last.grouped, strict=True):
        np.testing.assert_allclose(own, other, atol=1e-12 * size.max())
    for pair, own in first.crossings.items():
        other = last.crossings[pair]
        np.testing.assert_array_equal([own.first, own.second], [other.first, other.second])
        np.testing.assert_allclose(own.products, other.products, atol=1e-12 * size.max())


def test_parts_far_from_each_other_keep_their_digits():
    """Each part knows its own mean; the mean of all is not that of its first rows."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.standard_normal((500, 1)), 1e6 + rng.standard_normal((500, 1))])
    y = np.concatenate([rng.standard_normal(500), 1e8 + rng.standard_normal(500)])
    halves = [Sums.of(Rows(X[own], (), y[own]), []) for own in (slice(500), slice(500, None))]
    both = halves[0] + halves[1]
    np.testing.assert_allclose(both.shift, [X.mean(), y.mean()], rtol=1e-15)
    centred = np.column_stack([np.ones(1000), X - both.shift[:-1], y - both.shift[-1]])
    np.testing.assert_allclose(both.gram, centred.T @ centred, rtol=1e-12, atol=1e-3)


@pytest.mark.parametrize("others", [np.uint64, np.float64])
def test_large_integers_of_other_types_stay_apart(others):
    """pandas joins signed with unsigned integers, and integers with floats, as floats."""
    X, y = np.arange(4.0)[:, None], np.arange(4.0)
    labels = [np.array([2**62 + 1, 2**62 + 2, 2, 2]), np.array([3, 2, 2, 3], dtype=others)]
    first, second = (Sums.of(Rows(X, tuple(as_labels(own, 4, ["g"])), y), [()]) for own in labels)
    for both in (first + second, second + first):
        assert list(both.levels[0]) == [2, 3, 2**62 + 1, 2**62 + 2]
        assert both.grouped[0][0, 0].tolist() == [4.0, 2.0, 1.0, 1.0]


def test_no_rows_add_nothing():
    rng = np.random.default_rng(0)
    X, y = 5.0 + rng.standard_normal((20, 2)), rng.standard_normal(20)
    labels = as_labels(rng.integers(0, 4, 20), 20, ["g"])
    whole = Sums.of(Rows(X, tuple(labels), y), [(0,)])
    nothing = Sums.of(
        Rows(X[:0], tuple(own.rows(np.zeros(20, bool)) for own in labels), y[:0]), [(0,)]
    )
    for both in (whole + nothing, nothing + whole):
        np.testing.assert_array_equal(both.gram, whole.gram)
        np.testing.assert_array_equal(both.grouped[0], whole.grouped[0])
        assert list(both.levels[0]) == list(whole.levels[0])


def test_sums_of_other_columns_are_refused():
    X, y = np.arange(12.0).reshape(6, 2), np.arange(6.0)
    labels = tuple(as_labels([0, 0, 1, 1, 2, 2], 6, ["g"]))
    with pytest.raises(ValueError, match="cannot be added"):
        Sums.of(Rows(X, labels, y), [(0,)]) + Sums.of(Rows(X, labels, y), [(1,)])
    with pytest.raises(ValueError, match="cannot be added"):
        Sums.of(Rows(X, (), y), []) + Sums.of(Rows(X[:, :1], (), y), [])
