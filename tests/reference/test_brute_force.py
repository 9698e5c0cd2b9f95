"""The references must themselves be right: closed forms, plain n x n algebra, exact rationals."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest

from reference import FOLDER
from reference.brute_force import (
    best_fit,
    criterion,
    criterion_by_levels,
    perfect_elimination_ordering,
    solve,
)
from reference.hard_problems import FAMILIES, hard_problem, is_estimable

STORED = FOLDER / "hard_problems.json"

YIELD = [1545, 1440, 1440, 1520, 1580, 1540, 1555, 1490, 1560, 1495, 1595, 1550, 1605, 1510, 1560]
YIELD += [1445, 1440, 1595, 1465, 1545, 1595, 1630, 1515, 1635, 1625, 1520, 1455, 1450, 1480, 1445]


def draw(seed=0, sizes=(4, 1, 6, 3, 5, 2), weighted=True):
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    n = len(codes)
    x = rng.standard_normal((n, 2))
    X = np.column_stack([np.ones(n), x])
    Z = X[:, :2]
    y = X @ [1.0, 2.0, -1.0] + (rng.standard_normal((len(sizes), 2))[codes] * Z).sum(axis=1)
    y += rng.standard_normal(n)
    weights = rng.uniform(0.2, 5.0, n) if weighted else None
    return X, y, Z, codes, weights


def expand(Z, codes):
    """(n, levels * q) matrix of the random effects."""
    n, q = Z.shape
    wide = np.zeros((n, (codes.max() + 1) * q))
    for i in range(n):
        wide[i, codes[i] * q : (codes[i] + 1) * q] = Z[i]
    return wide


def relative_covariance(D, Z, codes, weights):
    wide = expand(Z, codes)
    noise = np.eye(len(Z)) if weights is None else np.diag(1 / weights)
    return wide @ np.kron(np.eye(codes.max() + 1), D) @ wide.T + noise


def textbook_criterion(D, X, y, Z, codes, weights, reml):
    n, p = X.shape
    V = relative_covariance(D, Z, codes, weights)
    H = X.T @ np.linalg.solve(V, X)
    beta = np.linalg.solve(H, X.T @ np.linalg.solve(V, y))
    r2 = (y - X @ beta) @ np.linalg.solve(V, y - X @ beta)
    df = n - p if reml else n
    value = np.linalg.slogdet(V)[1] + df * (1 + np.log(2 * np.pi * r2 / df))
    return value + (np.linalg.slogdet(H)[1] if reml else 0.0)


D_PLAIN = np.array([[1.5, 0.4], [0.4, 0.7]])


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("D", [D_PLAIN, 0 * D_PLAIN, np.ones((2, 2)), 1e3 * D_PLAIN])
def test_criterion_is_the_textbook_one(D, weighted, reml):
    X, y, Z, codes, weights = draw(weighted=weighted)
    expected = textbook_criterion(D, X, y, Z, codes, weights, reml)
    assert criterion(D, X, y, Z, codes, weights, reml) == pytest.approx(expected, abs=1e-9)
    by_levels = criterion_by_levels(D, X, y, Z, codes, weights, reml)
    assert by_levels == pytest.approx(expected, abs=1e-9)


def test_a_row_of_weight_zero_is_absent():
    X, y, Z, codes, weights = draw()
    weights[[0, 5]] = 0.0
    kept = weights > 0
    expected = criterion(D_PLAIN, X[kept], y[kept], Z[kept], codes[kept], weights[kept])
    assert criterion(D_PLAIN, X, y, Z, codes, weights) == pytest.approx(expected, abs=1e-11)


def exact_criterion(factor, X, y, Z, codes, reml):
    """In rational arithmetic, rounded only by the logarithms."""

    def rational(array):
        return [[Fraction(float(v)) for v in row] for row in np.atleast_2d(array)]

    def product(A, B):
        return [[sum(a * b for a, b in zip(r, c, strict=True)) for c in zip(*B, strict=True)]
                for r in A]  # fmt: skip

    def eliminate(A, size):
        """Determinant of the leading block; A becomes its Schur complement."""
        determinant = Fraction(1)
        for _ in range(size):
            head = A[0]
            determinant *= head[0]
            A = [[v - row[0] / head[0] * h for v, h in zip(row[1:], head[1:], strict=True)]
                 for row in A[1:]]  # fmt: skip
        return determinant, A

    def log(value):
        shift = value.numerator.bit_length() - value.denominator.bit_length()
        return math.log(value / Fraction(2) ** shift) + shift * math.log(2)

    n, p = X.shape
    effects = product(rational(Z), rational(factor))
    same = codes[:, None] == codes[None, :]
    columns = rational(np.column_stack([X, y]))
    bordered = [[Fraction(0)] * (n + p + 1) for _ in range(n + p + 1)]
    for i in range(n):
        for j in range(n):
            inner = sum(a * b for a, b in zip(effects[i], effects[j], strict=True))
            bordered[i][j] = (inner if same[i, j] else Fraction(0)) + (i == j)
        for j in range(p + 1):
            bordered[i][n + j] = bordered[n + j][i] = columns[i][j]
    det_v, rest = eliminate(bordered, n)
    det_h, rest = eliminate([[-v for v in row] for row in rest], p)
    df = n - p if reml else n
    value = log(det_v) + df * (1 + math.log(2 * math.pi / df) + log(rest[0][0]))
    return value + (log(det_h) if reml else 0.0)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e6, 1e4), (1e-6, -1e4)])
def test_criterion_against_rational_arithmetic(size, scale, shift, reml):
    rng = np.random.default_rng(3)
    codes = np.repeat(np.arange(4), [5, 1, 3, 3])
    x = (rng.standard_normal(12) + shift) * scale
    X = np.column_stack([np.ones(12), x])
    y = 1e5 + rng.standard_normal(12)
    standard = size * np.array([[1.0, 0.0], [0.3, 0.5]])  # on the standardised covariate
    factor = np.array([standard[0] - shift * standard[1], standard[1] / scale])
    expected = exact_criterion(factor, X, y, X, codes, reml)
    found = criterion(None, X, y, X, codes, None, reml, factor=factor)
    extended = np.finfo(np.longdouble).eps < 1e-17  # not on every platform
    assert found == pytest.approx(expected, abs=1e-9 if extended else 2e-8)
    by_levels = criterion_by_levels(None, X, y, X, codes, None, reml, factor=factor)
    assert by_levels == pytest.approx(expected, abs=2e-8)


@pytest.mark.parametrize("between", [3.0, 0.0])
def test_best_fit_of_a_balanced_one_way_layout_is_the_closed_form(between):
    rng = np.random.default_rng(11)
    m, size = 8, 5
    codes = np.repeat(np.arange(m), size)
    y = between * rng.standard_normal(m)[codes] + rng.standard_normal(m * size)
    if not between:
        y -= np.bincount(codes, y)[codes] / size  # no variation between levels at all
    one = np.ones((m * size, 1))
    means = np.bincount(codes, y) / size
    within = ((y - means[codes]) ** 2).sum() / (m * (size - 1))
    among = size * means.var(ddof=1)
    n = m * size
    if among > within:
        D, s2 = (among - within) / size / within, within
    else:
        D, s2 = 0.0, y.var(ddof=1)
    expected = m * math.log(1 + size * D) + math.log(n / (1 + size * D))
    expected += (n - 1) * (1 + math.log(2 * math.pi * s2))
    fit = best_fit(one, y, one, codes, n_starts=5)
    assert fit.criterion == pytest.approx(expected, abs=1e-9)
    assert fit.D[0, 0] == pytest.approx(D, rel=1e-5, abs=1e-7)
    assert fit.s2 == pytest.approx(s2, rel=1e-6)


def test_dyestuff():
    one = np.ones((30, 1))
    fit = best_fit(one, np.array(YIELD, dtype=float), one, np.repeat(np.arange(6), 5))
    assert fit.criterion == pytest.approx(319.65428, abs=5e-6)
    assert fit.D[0, 0] * fit.s2 == pytest.approx(1764.05, abs=5e-3)
    assert fit.s2 == pytest.approx(2451.25, abs=5e-3)


@pytest.mark.parametrize("reml", [True, False])
def test_scale_and_shift_of_a_covariate_change_nothing_but_the_determinant(reml):
    X, y, Z, codes, weights = draw(seed=5, sizes=(6, 4, 5, 1, 7, 3, 2, 8))
    plain = best_fit(X, y, Z, codes, weights, reml)
    for scale, shift in ((1e6, 8e3), (1e-6, -5e3)):
        moved = X.copy()
        moved[:, 1] = (X[:, 1] + shift) * scale
        fit = best_fit(moved, 1e5 + y, moved[:, :2], codes, weights, reml)
        change = 2 * math.log(scale) if reml else 0.0
        assert fit.criterion - change == pytest.approx(plain.criterion, abs=1e-7)
        assert fit.s2 == pytest.approx(plain.s2, rel=1e-5)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shift", [0.0, 50.0])
def test_solve_is_generalised_least_squares_and_henderson(weighted, shift):
    X, y, Z, codes, weights = draw(seed=2, weighted=weighted)
    X = X + np.array([0.0, shift, 0.0])
    Z = X[:, :2]
    D = D_PLAIN
    found = solve(D, X, y, Z, codes, weights)
    n, p = X.shape
    V_inv = np.linalg.inv(relative_covariance(D, Z, codes, weights))
    H_inv = np.linalg.inv(X.T @ V_inv @ X)
    beta = H_inv @ X.T @ V_inv @ y
    s2 = (y - X @ beta) @ V_inv @ (y - X @ beta) / (n - p)
    np.testing.assert_allclose(found.beta, beta, rtol=1e-6)
    np.testing.assert_allclose(found.beta_covariance, s2 * H_inv, rtol=1e-6)
    assert found.s2 == pytest.approx(s2, rel=1e-8)
    wide, m = expand(Z, codes), codes.max() + 1
    prior = np.kron(np.eye(m), D)
    blups = (prior @ wide.T @ V_inv @ (y - X @ beta)).reshape(m, 2)
    np.testing.assert_allclose(found.blups, blups, rtol=1e-6, atol=1e-9)
    conditional = s2 * (prior - prior @ wide.T @ V_inv @ wide @ prior)
    W = np.ones(n) if weights is None else weights
    both = np.hstack([wide, X])
    left = both.T @ (W[:, None] * both)
    left[: 2 * m, : 2 * m] += np.linalg.inv(prior)
    C = s2 * np.linalg.inv(left)
    np.testing.assert_allclose(np.linalg.solve(left, both.T @ (W * y))[2 * m :], beta, rtol=1e-6)
    for i in range(m):
        at = slice(2 * i, 2 * i + 2)
        options = {"rtol": 1e-6, "atol": 1e-8 * np.abs(C[at, at]).max()}
        np.testing.assert_allclose(found.conditional_covariances[i], conditional[at, at], **options)
        np.testing.assert_allclose(found.prediction_error_covariances[i], C[at, at], **options)

    x = np.array([1.0, shift + 0.5, -1.0])
    mean, variance = found.predict(x, x[:2], level=3, weight=2.0)
    row = np.concatenate([np.zeros(2 * m), x])
    row[6:8] = x[:2]
    assert mean == pytest.approx(x @ beta + x[:2] @ blups[3], rel=1e-6)
    assert variance == pytest.approx(row @ C @ row + s2 / 2, rel=1e-6)
    mean, variance = found.predict(x, x[:2])
    assert mean == pytest.approx(x @ beta, rel=1e-6)
    assert variance == pytest.approx(s2 * (x @ H_inv @ x + x[:2] @ D @ x[:2] + 1), rel=1e-6)


@pytest.mark.slow
def test_structures_are_nested():
    problem = hard_problem(FAMILIES.index("mask"))
    X, Z, codes = problem.matrices()
    q = Z.shape[1]
    band = np.abs(np.subtract.outer(np.arange(q), np.arange(q))) <= 1
    values = []
    for structure in ("full", band, "diagonal", "scalar"):
        fit = best_fit(X, problem.y, Z, codes, problem.sample_weight, problem.reml, structure)
        values.append(fit.criterion)
        if structure is band:
            assert np.abs(fit.D[~band]).max() == 0
    assert values == sorted(values)


def test_a_start_that_is_handed_in_is_used():
    X, y, Z, codes, weights = draw()
    best = best_fit(X, y, Z, codes, weights)
    again = best_fit(X, y, Z, codes, weights, n_starts=1, start=best.factor)
    assert again.criterion == pytest.approx(best.criterion, abs=1e-9)


def test_elimination_orderings():
    cycle = np.eye(4, dtype=bool)
    for i in range(4):
        cycle[i, (i + 1) % 4] = cycle[(i + 1) % 4, i] = True
    assert perfect_elimination_ordering(cycle) is None
    cycle[0, 2] = cycle[2, 0] = True
    assert sorted(perfect_elimination_ordering(cycle)) == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(40))
def test_hard_problems_are_estimable(seed):
    problem = hard_problem(seed)
    X, Z, codes = problem.matrices()
    assert is_estimable(problem)
    assert problem.kind.startswith(FAMILIES[seed % len(FAMILIES)])
    assert 2 <= codes.max() + 1 <= 40
    centre = np.zeros(Z.shape[1]) if not problem.random_intercept else Z.mean(axis=0)
    centre[0] = 0.0
    columns = np.hstack([X, expand((Z - centre) / np.abs(Z - centre).max(axis=0), codes)])
    columns = columns / np.sqrt((columns**2).sum(axis=0)).clip(1e-300)
    assert np.linalg.matrix_rank(columns, tol=1e-9) <= len(problem.y) - 3


def test_stored_references():
    stored = json.loads(STORED.read_text())["problems"]
    assert [entry["seed"] for entry in stored] == list(range(320))
    for entry in stored:
        problem = hard_problem(entry["seed"])
        assert problem.fingerprint() == entry["sha256"]
        assert entry["agreement"] < 1e-9  # two searches from different random starts
        assert not entry["at_bound"]
        X, Z, codes = problem.matrices()
        data = (X, problem.y, Z, codes, problem.sample_weight, problem.reml)
        factor = np.array(entry["factor"])
        by_levels = criterion_by_levels(None, *data, factor=factor)
        assert by_levels == pytest.approx(entry["criterion"], abs=1e-6, rel=1e-9)
        if entry["seed"] % 20 == 0:
            dense = criterion(None, *data, factor=factor)
            assert dense == pytest.approx(entry["criterion"], abs=1e-8)
