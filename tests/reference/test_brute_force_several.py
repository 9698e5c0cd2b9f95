"""The references for several factors must themselves be right: dense algebra, closed forms."""

import json
import math

import numpy as np
import pytest

from mixedlearn.datasets import load_pastes, load_penicillin
from reference import FOLDER, brute_force
from reference.brute_force_several import (
    _by_rows,
    _inner_factors,
    _rows,
    _SearchSeveral,
    _value_and_gradients,
    best_fit,
    criterion,
    criterion_in_doubles,
    gradient,
    solve,
)
from reference.crossed_problems import (
    FAMILIES,
    FEW_ROWS,
    MOST_EFFECTS,
    MOST_ROWS,
    N_PROBLEMS,
    N_REGULAR,
    crossed_problem,
    is_estimable,
    is_identified,
)

STORED = FOLDER / "crossed_problems.json"

# Three factors: two effects, one, two without an intercept.
DS = [
    np.array([[1.5, 0.4], [0.4, 0.7]]),
    np.array([[0.8]]),
    np.array([[0.5, -0.3], [-0.3, 0.9]]),
]
SINGULAR = [np.ones((2, 2)), np.zeros((1, 1)), np.diag([0.0, 2.0])]
LARGE = [1e3 * DS[0], 1e-3 * DS[1], DS[2]]


def draw(seed=0, n=40, weighted=True, shift=0.0):
    rng = np.random.default_rng(seed)
    codes = [rng.integers(0, m, size=n) for m in (5, 7, 4)]
    for code, m in zip(codes, (5, 7, 4), strict=True):
        code[:m] = np.arange(m)
    X = np.column_stack([np.ones(n), rng.standard_normal((n, 2)) + shift])
    Zs = [X[:, :2], X[:, :1], X[:, 1:]]
    y = X @ [1.0, 2.0, -1.0] + rng.standard_normal(n)
    for Z, code in zip(Zs, codes, strict=True):
        effects = rng.standard_normal((code.max() + 1, Z.shape[1]))
        y += (effects[code] * Z).sum(axis=1)
    return X, y, Zs, codes, rng.uniform(0.2, 5.0, n) if weighted else None


def expand(Zs, codes):
    """(n, effects of all levels of all factors) matrix of the random effects."""
    wide = []
    for Z, code in zip(Zs, codes, strict=True):
        n, q = Z.shape
        block = np.zeros((n, (code.max() + 1) * q))
        for i in range(n):
            block[i, code[i] * q : (code[i] + 1) * q] = Z[i]
        wide.append(block)
    return np.hstack(wide)


def prior_covariance(Ds, codes):
    size = sum((code.max() + 1) * len(D) for D, code in zip(Ds, codes, strict=True))
    prior, start = np.zeros((size, size)), 0
    for D, code in zip(Ds, codes, strict=True):
        for _ in range(code.max() + 1):
            prior[start : start + len(D), start : start + len(D)] = D
            start += len(D)
    return prior


def relative_covariance(Ds, Zs, codes, weights):
    wide = expand(Zs, codes)
    noise = np.eye(len(wide)) if weights is None else np.diag(1 / weights)
    return wide @ prior_covariance(Ds, codes) @ wide.T + noise


def textbook_criterion(Ds, X, y, Zs, codes, weights, reml):
    n, p = X.shape
    V = relative_covariance(Ds, Zs, codes, weights)
    H = X.T @ np.linalg.solve(V, X)
    beta = np.linalg.solve(H, X.T @ np.linalg.solve(V, y)) if p else np.zeros(0)
    r2 = (y - X @ beta) @ np.linalg.solve(V, y - X @ beta)
    df = n - p if reml else n
    value = np.linalg.slogdet(V)[1] + df * (1 + np.log(2 * np.pi * r2 / df))
    return value + (np.linalg.slogdet(H)[1] if reml else 0.0)


# The criterion


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("Ds", [DS, SINGULAR, LARGE, [0 * D for D in DS]])
def test_criterion_is_the_textbook_one(Ds, weighted, reml):
    data = (*draw(weighted=weighted), reml)
    expected = textbook_criterion(Ds, *data)
    assert criterion(Ds, *data) == pytest.approx(expected, abs=1e-8)
    assert criterion_in_doubles(Ds, *data) == pytest.approx(expected, abs=1e-8)
    rows = _rows(*data)
    by_rows = _by_rows(rows, _inner_factors(rows, Ds, None))[0] + float(rows.first.offset)
    assert by_rows == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("reml", [True, False])
def test_no_fixed_columns(reml):
    X, *data = draw()
    data = (X[:, :0], *data, reml)
    assert criterion(DS, *data) == pytest.approx(textbook_criterion(DS, *data), abs=1e-9)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_one_factor_is_the_criterion_of_one_factor(shift, size, reml):
    X, y, Zs, codes, weights = draw(seed=4, shift=shift)
    factor = size * np.array([[1.0 - 0.3 * shift, -0.5 * shift], [0.3, 0.5]])
    expected = brute_force.criterion(None, X, y, Zs[0], codes[0], weights, reml, factor=factor)
    for function in (criterion, criterion_in_doubles):
        found = function(None, X, y, Zs[:1], codes[:1], weights, reml, factors=[factor])
        assert found == pytest.approx(expected, abs=1e-10 if function is criterion else 1e-8)


@pytest.mark.parametrize("reml", [True, False])
def test_the_same_partition_twice_adds_up(reml):
    X, y, Zs, codes, weights = draw(seed=6)
    other = np.random.default_rng(0).permutation(5)[codes[0]]  # other labels
    expected = brute_force.criterion(3.0 * DS[0], X, y, Zs[0], codes[0], weights, reml)
    data = (X, y, [Zs[0]] * 2, [codes[0], other], weights, reml)
    assert criterion([DS[0], 2.0 * DS[0]], *data) == pytest.approx(expected, abs=1e-10)


def test_a_row_of_weight_zero_is_absent():
    X, y, Zs, codes, weights = draw()
    weights[[10, 25]] = 0.0
    kept = weights > 0
    inside = [Z[kept] for Z in Zs], [code[kept] for code in codes], weights[kept]
    expected = criterion(DS, X[kept], y[kept], *inside)
    assert criterion(DS, X, y, Zs, codes, weights) == pytest.approx(expected, abs=1e-11)


# Its gradient


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_gradient_against_differences(shift, weighted, reml):
    data = (*draw(seed=1, weighted=weighted, shift=shift), reml)
    found = gradient(DS, *data)
    for k, D in enumerate(DS):
        for a in range(len(D)):
            for b in range(a + 1):
                step = np.zeros_like(D)
                step[a, b] = step[b, a] = 1e-4
                moved = [
                    criterion([E + t * step if j == k else E for j, E in enumerate(DS)], *data)
                    for t in (-2, -1, 1, 2)
                ]
                slope = np.dot([1, -8, 8, -1], moved) / 12e-4
                assert np.sum(found[k] * step) / 1e-4 == pytest.approx(slope, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("Ds", [DS, LARGE, [0.0 * D for D in DS]])
def test_the_two_gradients_agree(Ds, reml):
    """In the entries of the factors, by the rows' covariance and by the augmented problem."""
    rng = np.random.default_rng(2)
    data = _rows(*draw(seed=3, shift=20.0), reml)
    inner = [np.asarray(F, dtype=float) for F in _inner_factors(data, Ds, None)]
    inner = [F @ np.linalg.qr(rng.standard_normal(F.shape))[0] for F in inner]
    by_rows = _by_rows(data, inner)[1]
    by_columns = _value_and_gradients(data, inner)[1]
    for F, matrix, found in zip(inner, by_rows, by_columns, strict=True):
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-9 * np.abs(matrix).max())
        np.testing.assert_allclose(found, 2 * matrix @ F, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("structures", [["full"] * 3, ["diagonal"] * 3, ["scalar"] * 3])
def test_the_search_gradient_against_differences(structures):
    rng = np.random.default_rng(9)
    *data, weights = draw(seed=7)
    search = _SearchSeveral(_rows(*data, weights, True, structures), structures)
    theta = search.theta([rng.standard_normal((one.q, one.q)) for one in search.each])
    assert len(theta) == {"full": 9, "diagonal": 5, "scalar": 3}[structures[0]]
    slopes = [
        np.dot([1, -8, 8, -1], [search.value(theta + t * step) for t in (-2, -1, 1, 2)]) / 12e-4
        for step in 1e-4 * np.eye(len(theta))
    ]
    np.testing.assert_allclose(search(theta)[1], slopes, rtol=1e-7, atol=1e-7)


# The solution at given covariances


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shift", [0.0, 50.0])
def test_solve_is_generalised_least_squares_and_henderson(shift, weighted, reml):
    X, y, Zs, codes, weights = draw(seed=2, weighted=weighted, shift=shift)
    found = solve(DS, X, y, Zs, codes, weights, reml)
    (n, p), wide, prior = X.shape, expand(Zs, codes), prior_covariance(DS, codes)
    size = wide.shape[1]
    V_inv = np.linalg.inv(relative_covariance(DS, Zs, codes, weights))
    H_inv = np.linalg.inv(X.T @ V_inv @ X)
    beta = H_inv @ X.T @ V_inv @ y
    s2 = (y - X @ beta) @ V_inv @ (y - X @ beta) / (n - p if reml else n)
    assert found.criterion == pytest.approx(
        criterion(DS, X, y, Zs, codes, weights, reml), abs=1e-12
    )
    np.testing.assert_allclose(found.beta, beta, rtol=1e-6)
    np.testing.assert_allclose(found.beta_covariance, s2 * H_inv, rtol=1e-6)
    assert found.s2 == pytest.approx(s2, rel=1e-8)
    blups = prior @ wide.T @ V_inv @ (y - X @ beta)
    stacked = np.concatenate([blup.ravel() for blup in found.blups])
    np.testing.assert_allclose(stacked, blups, rtol=1e-6, atol=1e-8)
    conditional = s2 * (prior - prior @ wide.T @ V_inv @ wide @ prior)
    options = {"rtol": 1e-6, "atol": 1e-8 * np.abs(conditional).max()}
    np.testing.assert_allclose(found.conditional_covariance, conditional, **options)
    W = np.ones(n) if weights is None else weights
    both = np.hstack([wide, X])
    left = both.T @ (W[:, None] * both)
    left[:size, :size] += np.linalg.inv(prior)
    C = s2 * np.linalg.inv(left)
    options["atol"] = 1e-8 * np.abs(C).max()
    np.testing.assert_allclose(found.error_covariance, C, **options)
    assert found.at(0, 3).tolist() == [6, 7]
    assert found.at(1, 2).tolist() == [12]
    assert found.at(2, 0).tolist() == [17, 18]


@pytest.mark.parametrize("levels", [(3, 2, 0), (3, None, 0), (None, 2, None), (None, None, None)])
def test_predictive_variance_is_that_of_the_best_linear_unbiased_predictor(levels):
    """From the joint covariance of the new observation and the rows (universal kriging)."""
    X, y, Zs, codes, weights = draw(seed=8)
    found = solve(DS, X, y, Zs, codes, weights)
    x = np.array([1.0, 0.5, -1.0])
    zs = [x[:2], x[:1], x[1:]]
    V = relative_covariance(DS, Zs, codes, weights)
    cross, own = np.zeros(len(y)), 1 / 2.0
    for D, Z, code, z, level in zip(DS, Zs, codes, zs, levels, strict=True):
        own += z @ D @ z
        if level is not None:
            cross += (code == level) * (Z @ D @ z)
    H = X.T @ np.linalg.solve(V, X)
    beta = np.linalg.solve(H, X.T @ np.linalg.solve(V, y))
    kriged = np.linalg.solve(V, cross)
    lacking = x - X.T @ kriged
    mean, variance = found.predict(x, zs, levels, weight=2.0)
    assert mean == pytest.approx(x @ beta + kriged @ (y - X @ beta), rel=1e-9)
    relative = own - cross @ kriged + lacking @ np.linalg.solve(H, lacking)
    assert variance == pytest.approx(found.s2 * relative, rel=1e-9)


@pytest.mark.parametrize("D", [DS[0], np.ones((2, 2)), np.zeros((2, 2))])
def test_solve_with_one_factor_is_that_of_one_factor(D):
    X, y, Zs, codes, weights = draw(seed=5)
    expected = brute_force.solve(D, X, y, Zs[0], codes[0], weights)
    found = solve([D], X, y, Zs[:1], codes[:1], weights)
    options = {"rtol": 1e-10, "atol": 1e-12}
    np.testing.assert_allclose(found.beta, expected.beta, **options)
    np.testing.assert_allclose(found.beta_covariance, expected.beta_covariance, **options)
    np.testing.assert_allclose(found.blups[0], expected.blups, **options)
    for i in range(5):
        at = np.ix_(found.at(0, i), found.at(0, i))
        for mine, theirs in (
            (found.conditional_covariance, expected.conditional_covariances),
            (found.error_covariance, expected.prediction_error_covariances),
        ):
            np.testing.assert_allclose(mine[at], theirs[i], **options)
    x = np.array([1.0, 0.3, 2.0])
    for level in (2, None):
        np.testing.assert_allclose(
            found.predict(x, [x[:2]], [level]), expected.predict(x, x[:2], level), **options
        )


# The search


@pytest.mark.parametrize("sizes", [(3.0, 2.0), (3.0, 0.0), (0.0, 0.0)])
def test_best_fit_of_a_balanced_two_way_layout_is_the_closed_form(sizes):
    """Without replication: the variances are differences of mean squares, or zero."""
    rng = np.random.default_rng(11)
    rows, columns = 7, 6
    table = rng.standard_normal((rows, columns))
    table -= table.mean(axis=0)  # no variation between columns, then between rows
    table -= table.mean(axis=1)[:, None]
    a, b = (size * rng.standard_normal(m) for size, m in zip(sizes, table.shape, strict=True))
    table += a[:, None] + b
    one = np.ones((table.size, 1))
    codes = [code.ravel() for code in np.indices(table.shape)]
    fit = best_fit(one, table.ravel(), [one, one], codes, n_starts=8)
    n = table.size
    rest, degrees = ((table - table.mean()) ** 2).sum(), n - 1
    for size, effects in zip(sizes, (a, b), strict=True):
        if size:
            rest -= n * effects.var()
            degrees -= len(effects) - 1
    s2 = rest / degrees
    relative = [
        (n / len(effects) * effects.var(ddof=1) / s2 - 1) / (n / len(effects)) if size else 0.0
        for size, effects in zip(sizes, (a, b), strict=True)
    ]
    assert all(D > 0 for D, size in zip(relative, sizes, strict=True) if size)
    expected = (rows - 1) * math.log(1 + columns * relative[0])
    expected += (columns - 1) * math.log(1 + rows * relative[1])
    expected += math.log(n) + (n - 1) * (1 + math.log(2 * math.pi * s2))
    assert fit.criterion == pytest.approx(expected, abs=1e-9)
    assert fit.s2 == pytest.approx(s2, rel=1e-6)
    for D, value in zip(fit.Ds, relative, strict=True):
        assert D[0, 0] == pytest.approx(value, rel=1e-5, abs=1e-7)
    assert fit.slope < 1e-6


@pytest.mark.parametrize(
    ("load", "factors", "expected"),
    [
        (load_penicillin, ["plate", "sample"], 330.86058899),
        (load_pastes, ["batch", "sample"], 246.99074585),
    ],
)
def test_the_data_sets_of_lme4(load, factors, expected):
    """What lme4 1.1.31 prints after bobyqa with rhoend=1e-10."""
    X, y = load(return_X_y=True)
    one = np.ones((len(y), 1))
    codes = [np.unique(X[name].astype(str), return_inverse=True)[1] for name in factors]
    fit = best_fit(one, np.asarray(y, dtype=float), [one, one], codes, n_starts=8)
    assert fit.criterion == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("structure", ["full", "diagonal", "scalar"])
@pytest.mark.parametrize("reml", [True, False])
def test_best_fit_with_one_factor_is_that_of_one_factor(structure, reml):
    X, y, Zs, codes, weights = draw(seed=12)
    data = (X, y, Zs[0], codes[0], weights, reml)
    expected = brute_force.best_fit(*data, structure, n_starts=6)
    fit = best_fit(X, y, Zs[:1], codes[:1], weights, reml, [structure], n_starts=6)
    assert fit.criterion == pytest.approx(expected.criterion, abs=1e-9)
    np.testing.assert_allclose(fit.Ds[0], expected.D, rtol=1e-4, atol=1e-5)


def test_structures_are_nested_and_a_start_that_is_handed_in_is_used():
    data = (*draw(seed=13), True)
    values = []
    for structure in ("full", "diagonal", "scalar"):
        fit = best_fit(*data, [structure] * 3, n_starts=6)
        values.append(fit.criterion)
        if structure == "full":
            again = best_fit(*data, n_starts=0, starts=[fit.factors])
            assert again.criterion == pytest.approx(fit.criterion, abs=1e-9)
        else:
            for D in fit.Ds:
                np.testing.assert_array_equal(D, np.diag(np.diag(D)))
    assert values == sorted(values)


# The problems


@pytest.mark.parametrize("family", [*FAMILIES, FEW_ROWS])
def test_crossed_problems_are_estimable(family):
    if family == FEW_ROWS:
        seeds = range(N_REGULAR, N_PROBLEMS)
    else:
        seeds = [FAMILIES.index(family), FAMILIES.index(family) + len(FAMILIES)]
    for seed in seeds:
        problem = crossed_problem(seed)
        assert problem.kind.startswith(family)
        assert is_estimable(problem)
        assert problem.is_identified == is_identified(problem)
        X, Zs, codes = problem.matrices()
        n = len(problem.y)
        assert 15 <= n <= MOST_ROWS
        assert 2 <= len(Zs) <= 4
        assert X.shape[1] <= 4
        plain = [k for k, code in enumerate(codes) if code.max() + 1 < n]
        wide = expand([Zs[k] for k in plain], [codes[k] for k in plain])
        assert wide.shape[1] <= MOST_EFFECTS
        columns = np.hstack([X / np.abs(X).max(axis=0), wide / np.abs(wide).max(axis=0)])
        assert np.linalg.matrix_rank(columns, tol=1e-9) < n


def test_what_is_not_identified():
    """Noise as one more factor, a factor twice, a factor within the fixed effects."""
    families = {"the same partition twice", "one row in each level"}
    for seed in range(N_REGULAR):
        if FAMILIES[seed % len(FAMILIES)] in families:
            assert not crossed_problem(seed).is_identified


def stored():
    return json.loads(STORED.read_text())["problems"]


def test_every_problem_has_a_reference():
    assert [entry["seed"] for entry in stored()] == list(range(N_PROBLEMS))


@pytest.mark.parametrize("family", range(len(FAMILIES)))
def test_stored_references(family):
    for entry in stored()[family :: len(FAMILIES)]:
        problem = crossed_problem(entry["seed"])
        assert problem.fingerprint() == entry["sha256"]
        assert entry["kind"] == problem.kind
        assert entry["n_starts"] >= 30
        assert entry["n_reached"] >= 1
        assert entry["agreement"] < 1e-8  # two searches from different random starts
        if problem.is_identified:
            assert not entry["at_bound"]
            assert entry["slope"] < 1e-5
        factors = [np.array(factor) for factor in entry["factors"]]
        found = criterion_in_doubles(None, *problem.data(), factors=factors)
        assert found == pytest.approx(entry["criterion"], abs=1e-7)
        if entry["seed"] < len(FAMILIES):
            exact = criterion(None, *problem.data(), factors=factors)
            assert exact == pytest.approx(entry["criterion"], abs=1e-9)
        if entry["seed"] >= N_REGULAR:
            assert len(entry["local_optima"]) > 1
