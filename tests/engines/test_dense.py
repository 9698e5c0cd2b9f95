"""Half-stored symmetric matrices against numpy's full ones, and the memory of an evaluation."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from mixedlearn import MixedLinearRegressor
from mixedlearn.engines.elimination import dense
from mixedlearn.engines.elimination.dense import (
    factorise_in_place,
    invert_root_in_place,
    row_blocks,
    solve_by_root,
    two_matrices,
)
from mixedlearn.engines.elimination.engine import SeveralFactorsEngine

SIZES = [1, 2, 7, 64, 65, 300, 601]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks of rows even in a small matrix."""
    monkeypatch.setattr(dense, "BLOCK_ENTRIES", 20_000)


def definite(n, spread=1.0):
    rng = np.random.default_rng(n)
    root = rng.standard_normal((n, n + 5)) / np.sqrt(n)
    scale = 10.0 ** rng.uniform(-spread, spread, n)
    return (root @ root.T + np.eye(n)) * np.outer(scale, scale)


def stored(full):
    """The matrix and minus the matrix, in one array."""
    first, second = two_matrices(len(full))
    for own in row_blocks(len(full)):
        first.set_rows(own, full[own])
        second.set_rows(own, -full[own])
    return first, second


def in_full(matrix):
    return np.concatenate([matrix.rows(own) for own in row_blocks(len(matrix))])


@pytest.mark.parametrize("n", SIZES)
def test_rows_are_those_that_were_stored(n):
    full = definite(n)
    first, second = stored(full)
    np.testing.assert_array_equal(in_full(first), full)
    np.testing.assert_array_equal(in_full(second), -full)
    assert first.lower.base is second.lower.base
    assert first.lower.base.size == n * (n + 1)


@pytest.mark.parametrize("n", SIZES)
def test_upper_rows_are_added_to_one_matrix_alone(n):
    full, other = definite(n), definite(n + 1)[:n, :n]
    for chosen in (0, 1):
        both = stored(full)
        for own in row_blocks(n):
            both[chosen].add_upper_rows(own, np.triu(other[own], own.start))
        signs = (1.0, -1.0)
        added, kept = both[chosen], both[1 - chosen]
        np.testing.assert_array_equal(in_full(added), signs[chosen] * full + other)
        np.testing.assert_array_equal(in_full(kept), signs[1 - chosen] * full)


@pytest.mark.parametrize("n", SIZES)
def test_products_with_columns(n):
    full = definite(n)
    for columns in (np.ones((n, 0)), np.random.default_rng(0).standard_normal((n, 3))):
        first, second = stored(full)
        expected = full @ columns
        np.testing.assert_allclose(first.times(columns), expected, rtol=0, atol=1e-10)
        np.testing.assert_allclose(second.times(columns), -expected, rtol=0, atol=1e-10)


def test_diagonals_of_the_blocks_of_a_diagonal_block():
    full = definite(40)
    found = stored(full)[0].diagonals(slice(10, 34), 3)
    expected = np.einsum("aibi->abi", full[10:34, 10:34].reshape(3, 8, 3, 8))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("spread", [0.0, 6.0])
@pytest.mark.parametrize("n", SIZES)
def test_root_solutions_and_inverse(n, spread):
    full = definite(n, spread)
    first, second = stored(full)
    # In the units in which the diagonal of the matrix is one.
    scale = np.sqrt(full.diagonal())
    scaled = full / np.outer(scale, scale)
    expected = np.linalg.inv(scaled)
    log_det = np.linalg.slogdet(scaled)[1] + 2.0 * np.log(scale).sum()
    assert factorise_in_place(first) == pytest.approx(log_det, abs=1e-9)
    columns = np.random.default_rng(1).standard_normal((n, 4))
    solution = solve_by_root(first, columns * scale[:, None]) * scale[:, None]
    np.testing.assert_allclose(solution, expected @ columns, rtol=0, atol=1e-11)
    invert_root_in_place(first)
    np.testing.assert_allclose(
        in_full(first) * np.outer(scale, scale), expected, rtol=0, atol=1e-11
    )
    np.testing.assert_array_equal(in_full(second), -full)


def test_empty_matrices():
    first, second = two_matrices(0)
    assert factorise_in_place(first) == 0.0
    invert_root_in_place(first)
    assert second.times(np.empty((0, 2))).shape == (0, 2)
    assert row_blocks(0) == []


@pytest.mark.parametrize("place", [0, 299])
@pytest.mark.parametrize("entry", [-1.0, 0.0, np.nan])
def test_a_matrix_that_is_not_positive_definite(place, entry):
    full = np.eye(300)
    full[place, place] = entry
    with pytest.raises(np.linalg.LinAlgError, match="diagonal"):
        factorise_in_place(stored(full)[0])
    full = np.ones((300, 300))
    full[place, place] = 2.0
    with pytest.raises(np.linalg.LinAlgError):
        factorise_in_place(stored(full)[0])


def crossed(size, *, slopes=False, popular=False):
    """Rows of more users than items; T is the number of effects of the items."""
    rng = np.random.default_rng(0)
    m = size // 2 if slopes else size
    user = np.repeat(np.arange(size + 100), 120 if popular else 6)
    weights = 1.0 / np.arange(1, m + 1) if popular else np.ones(m)
    item = rng.choice(m, len(user), p=weights / weights.sum())
    item[:m] = np.arange(m)
    rows = {"user": rng.permutation(user), "item": item, "x": rng.standard_normal(len(user))}
    return pd.DataFrame(rows), rng.standard_normal(len(user)) + 0.3 * (item % 7)


@pytest.mark.parametrize(
    ("slopes", "popular"), [(False, False), (True, False), (False, True)], ids=str
)
def test_an_evaluation_takes_two_matrices_of_the_dense_block(slopes, popular, monkeypatch):
    size = 1500
    monkeypatch.setattr(dense, "BLOCK_ENTRIES", 1 << 17)
    X, y = crossed(size, slopes=slopes, popular=popular)
    slope_columns = {"item": ["x"]} if slopes else None
    model = MixedLinearRegressor(
        groups=["user", "item"], fixed_effects=["x"], random_slopes=slope_columns
    )
    peaks, reduced = [], []
    evaluate = SeveralFactorsEngine.evaluate

    def traced(engine, theta, order):
        engine._last = None
        reduced.append(engine._reduced)
        tracemalloc.start()
        found = evaluate(engine, theta, order)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        return found

    monkeypatch.setattr(SeveralFactorsEngine, "evaluate", traced)
    model.fit(X, y)
    n = reduced[0].plan.n_tail
    assert n == size
    assert (reduced[0].tail_rows.n_dense > 0) == popular
    rows = 8 * (reduced[0].tail_rows.rows.size + len(y))
    assert max(peaks) < 16 * n**2 + 10 * rows
