"""The engine's numbers against brute force and against differences of themselves.

Tolerances. The objective is a few hundred and computed to about 1e-12. Central differences of
fourth order with a step of 1e-3 have a truncation error near 1e-9 of the derivative's size here,
and rounding errors near 1e-9 (first derivatives) and 1e-5 (second); differences of the gradient
again 1e-9. Hence 1e-6 of the largest entry for the gradient, and for the Hessian from gradients;
1e-4 for the Hessian from objectives.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixedlearn import MixedLinearRegressor
from mixedlearn.covariance.charts import triangular_chart
from mixedlearn.covariance.structures import make_structure
from mixedlearn.covariance.structures.pattern import Pattern, Unrestricted
from mixedlearn.engines import levels, one_factor
from mixedlearn.engines.bases import RandomBasis, fixed_basis, random_basis
from mixedlearn.engines.levels import no_levels, reduce_levels
from mixedlearn.engines.likelihood import ProfiledLikelihood
from mixedlearn.engines.one_factor import OneFactorEngine
from mixedlearn.search.local_model import trust_region_step
from reference.brute_force import criterion
from reference.numbered import sums_of

OBJECTIVE = 1e-9
FIRST = 1e-6
SECOND = 1e-4
STEP = 1e-3


def mask_of(q, *pairs):
    mask = np.eye(q, dtype=bool)
    for i, j in pairs:
        mask[i, j] = mask[j, i] = True
    return mask


MASKS = {
    "two blocks": mask_of(3, (0, 2)),
    "chain": mask_of(3, (0, 1), (1, 2)),
    "chain through the first": mask_of(3, (0, 1), (0, 2)),
    "star": mask_of(4, (2, 0), (2, 1), (2, 3)),
    "cycle with a chord": mask_of(4, (0, 1), (1, 2), (2, 3), (3, 0), (0, 2)),
}
STRUCTURES = [(q, kind) for q in range(1, 5) for kind in ("full", "diagonal", "scalar")]
STRUCTURES += [(len(mask), name) for name, mask in MASKS.items()]


def structure_of(q, kind):
    return make_structure(MASKS.get(kind, kind), [f"z{j}" for j in range(q)])


class Case:
    """Rows, and the engine that has their cross-products."""

    def __init__(self, q, kind, *, reml, weighted, balanced=False, m=8, seed=0):
        rng = np.random.default_rng([seed, q])
        sizes = np.full(m, 6) if balanced else rng.integers(1, 9, m)
        self.codes = np.repeat(np.arange(m), sizes)
        n = len(self.codes)
        within = np.concatenate([np.arange(size) for size in sizes])
        # The first columns have slopes; in the balanced case all levels share their values.
        columns = rng.standard_normal((6, 3))[within] if balanced else rng.standard_normal((n, 3))
        self.columns = np.column_stack([2.0 + columns, rng.standard_normal(n)])
        self.weights = rng.uniform(0.3, 3.0, n) if weighted else None
        effects = rng.standard_normal((m, 3))[self.codes]
        self.y = 5.0 + self.columns @ [1.0, -1.0, 0.5, 2.0] + (effects * columns).sum(axis=1)
        self.y += rng.standard_normal(m)[self.codes] + rng.standard_normal(n)
        self.reml = reml
        self.X = np.column_stack([np.ones(n), self.columns])
        self.Z = self.X[:, :q]
        self.user = structure_of(q, kind)
        if q:
            slopes = tuple(range(q - 1))
            products = sums_of(self.columns, self.y, [self.codes], [m], [slopes], self.weights)
            self.random = random_basis(products, 0, True, self.user)
        else:
            products = sums_of(self.columns, self.y, [], [], [], self.weights)
            nothing = np.zeros((0, 0))
            self.random = RandomBasis(nothing, nothing, nothing, np.arange(0))
        fixed = fixed_basis(products, (0, 1, 2, 3), True)
        self.moments = (
            reduce_levels(products, 0, fixed, self.random) if q else no_levels(products, fixed)
        )
        df = n - 5 if reml else n
        self.constant = 2.0 * df * math.log(fixed.scale) - products.sum_log_weights
        self.constant += fixed.log_det_gram if reml else 0.0
        self.n_rows = n

    def engine(self, structure):
        likelihood = ProfiledLikelihood(self.n_rows, 5, self.reml, self.constant, self.n_rows - 5.0)
        return OneFactorEngine(self.moments, structure, likelihood)

    def criterion(self, factor):
        """From the rows, for Lambda in the engine's columns."""
        data = (self.X, self.y, self.Z, self.codes, self.weights, self.reml)
        return criterion(None, *data, factor=self.random.to_user @ factor)

    def least_squares_criterion(self):
        w = np.ones(self.n_rows) if self.weights is None else self.weights
        root = np.sqrt(w)[:, None]
        Q, R = np.linalg.qr(root * self.X)
        residual = root[:, 0] * self.y
        residual = residual - Q @ (Q.T @ residual)
        df = self.n_rows - 5 if self.reml else self.n_rows
        value = df * (1.0 + math.log(2.0 * math.pi * (residual @ residual) / df)) - np.log(w).sum()
        return value + (2.0 * np.log(np.abs(np.diag(R))).sum() if self.reml else 0.0)


def points(structure, seed=0):
    """Thetas: regular, large, and singular in every way; the last is zero."""
    rng = np.random.default_rng(seed)
    k = structure.n_parameters
    regular = rng.standard_normal(k)
    yield regular
    yield 30.0 * rng.standard_normal(k)
    zero_column = structure.root(rng.standard_normal(k))
    if isinstance(structure, Pattern) and structure.n_effects > 1:
        for column in range(structure.n_effects):
            gone = structure.parameter[:, column]
            theta = regular.copy()
            theta[gone[gone >= 0]] = 0.0
            yield theta
        if isinstance(structure, Unrestricted):
            yield np.outer(zero_column[:, 0], zero_column[0]).ravel()  # rank one, no column zero
    yield np.zeros(k)


OFFSETS = np.array([-2.0, -1.0, 1.0, 2.0])
WEIGHTS = np.array([1.0, -8.0, 8.0, -1.0]) / 12.0


def slope(function, at, direction):
    """Derivative of a function (any shape) along a direction."""
    values = [function(at + offset * STEP * direction) for offset in OFFSETS]
    return np.tensordot(WEIGHTS, values, 1) / STEP


def bend(function, at, direction):
    """Second derivative of a scalar function along a direction."""
    values = [function(at + offset * STEP * direction) for offset in OFFSETS]
    return (np.dot([-1, 16, 16, -1], values) - 30.0 * function(at)) / 12.0 / STEP**2


def assert_close(found, expected, share):
    size = max(1.0, np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=share * size)


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("free", ["chart", "all entries"])
@pytest.mark.parametrize(("q", "kind"), STRUCTURES)
def test_objective_gradient_and_hessian(q, kind, free, reml, weighted):
    case = Case(q, kind, reml=reml, weighted=weighted)
    structure = case.user if free == "chart" else case.user.in_engine(np.arange(q))
    engine = case.engine(structure)
    for theta in points(structure):
        factor = structure.root(theta)
        found = engine.evaluate(theta, 2)
        np.testing.assert_array_equal(found.theta, theta)
        assert found.objective == pytest.approx(case.criterion(factor), abs=OBJECTIVE)

        def objective(at):
            return engine.evaluate(at, 0).objective

        def gradient(at):
            return engine.evaluate(at, 1).gradient

        axes = np.eye(len(theta))
        assert_close(found.gradient, [slope(objective, theta, axis) for axis in axes], FIRST)
        numerical = np.array([slope(gradient, theta, axis) for axis in axes])
        assert_close(found.hessian, numerical, FIRST)
        direction = np.random.default_rng(1).standard_normal(len(theta))
        direction /= np.linalg.norm(direction)
        expected = bend(objective, theta, direction)
        tolerance = SECOND * max(1.0, np.abs(found.hessian).max())
        assert direction @ found.hessian @ direction == pytest.approx(expected, abs=tolerance)
        # Less is computed below order 2, but nothing else.
        lower = engine.evaluate(theta, 1)
        assert_close(lower.gradient, found.gradient, 1e-12)
        assert_close(lower.covariance_gradients[0], found.covariance_gradients[0], 1e-12)
        assert engine.evaluate(theta, 0).objective == found.objective == lower.objective


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("reml", [True, False])
def test_without_random_effects_the_objective_is_that_of_least_squares(reml, weighted):
    case = Case(0, "full", reml=reml, weighted=weighted)
    found = case.engine(case.user).evaluate(np.empty(0), 2)
    expected = case.least_squares_criterion()
    assert found.objective == pytest.approx(expected, abs=OBJECTIVE)
    assert found.gradient.shape == (0,)
    assert found.hessian.shape == (0, 0)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("q", [1, 2, 3])
def test_gradient_by_D(q, reml):
    """Against brute force at D + t E; at D = 0, where only t > 0 exists, by extrapolation."""
    case = Case(q, "full", reml=reml, weighted=True)
    structure = case.user.in_engine(np.arange(q))
    engine = case.engine(structure)
    rng = np.random.default_rng(0)
    root = rng.standard_normal((q, q)) + 2.0 * np.eye(q)
    direction = rng.standard_normal((q, q))
    direction = direction + direction.T

    def along(t):
        return case.criterion(np.linalg.cholesky(root @ root.T + t * direction))

    G = engine.evaluate(root.ravel(), 1).covariance_gradients[0]
    np.testing.assert_allclose(G, G.T, atol=1e-10)
    expected = np.dot(WEIGHTS, [along(t) for t in OFFSETS * STEP]) / STEP
    assert (G * direction).sum() == pytest.approx(expected, rel=FIRST, abs=FIRST)

    G = engine.evaluate(np.zeros(q * q), 1).covariance_gradients[0]
    v = rng.standard_normal(q)
    start = case.criterion(np.zeros((q, 1)))
    h = 1e-4
    rises = [(case.criterion(math.sqrt(t) * v[:, None]) - start) / t for t in (h, h / 2, h / 4)]
    first = [2.0 * rises[1] - rises[0], 2.0 * rises[2] - rises[1]]
    assert v @ G @ v == pytest.approx((4.0 * first[1] - first[0]) / 3.0, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(("q", "kind"), [(1, "full"), (2, "full"), (2, "diagonal"), (3, "chain")])
def test_levels_with_the_same_rows_are_merged_without_a_trace(q, kind, reml, monkeypatch):
    case = Case(q, kind, reml=reml, weighted=False, balanced=True, m=60)
    structure = case.user.in_engine(np.arange(q))
    monkeypatch.setattr(levels, "WORTH_MERGING", 0)
    merged = case.engine(structure)
    monkeypatch.setattr(one_factor, "compress", lambda moments: moments)
    separate = case.engine(structure)
    assert merged.size < separate.size
    for theta in points(structure):
        a, b = merged.evaluate(theta, 2), separate.evaluate(theta, 2)
        assert a.objective == pytest.approx(b.objective, abs=OBJECTIVE)
        factor = structure.root(theta)
        assert a.objective == pytest.approx(case.criterion(factor), abs=OBJECTIVE)
        assert_close(a.gradient, b.gradient, 1e-10)
        assert_close(a.hessian, b.hessian, 1e-10)
        assert_close(a.covariance_gradients[0], b.covariance_gradients[0], 1e-10)
        np.testing.assert_allclose(a.fixed.coef, b.fixed.coef, atol=1e-10)
        assert a.fixed.noise_variance == pytest.approx(b.fixed.noise_variance, rel=1e-11)
    np.testing.assert_allclose(merged.start(), separate.start(), atol=1e-9)
    assert merged.n_levels == separate.n_levels == (60,)


@pytest.mark.parametrize("sizes", [[3, 5], [1, 2, 9], [4]])
def test_random_intercepts_are_merged_by_the_size_of_the_level(sizes, monkeypatch):
    rng = np.random.default_rng(0)
    repeated = rng.permutation(np.repeat(sizes, 40))
    codes = np.repeat(np.arange(len(repeated)), repeated)
    x = rng.standard_normal((len(codes), 1))
    y = rng.standard_normal(len(repeated))[codes] + rng.standard_normal(len(codes))
    products = sums_of(x, y, [codes], [len(repeated)], [()])
    structure = structure_of(1, "full")
    moments = reduce_levels(
        products, 0, fixed_basis(products, (0,), True), random_basis(products, 0, True, structure)
    )
    likelihood = ProfiledLikelihood(len(y), 2, reml=True, constant=0.0, squares=len(y) - 2.0)
    monkeypatch.setattr(levels, "WORTH_MERGING", 0)
    merged = OneFactorEngine(moments, structure, likelihood)
    monkeypatch.setattr(one_factor, "compress", lambda moments: moments)
    separate = OneFactorEngine(moments, structure, likelihood)
    assert merged.size <= 4 * 3 * len(sizes)
    for theta in (0.0, 0.3, 1.0, 100.0):
        a, b = (engine.evaluate(np.array([theta]), 2) for engine in (merged, separate))
        assert a.objective == pytest.approx(b.objective, abs=OBJECTIVE)
        assert_close(a.gradient, b.gradient, 1e-10)
        assert_close(a.hessian, b.hessian, 1e-10)


# --- charts and structures -----------------------------------------------------------------------
@settings(deadline=None, max_examples=60)
@given(
    which=st.sampled_from([entry for entry in STRUCTURES if entry[1] != "scalar"]),
    rank=st.integers(0, 4),
    spread=st.floats(0.0, 4.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_triangular_chart(which, rank, spread, seed):
    q, kind = which
    structure = structure_of(q, kind)
    rng = np.random.default_rng(seed)
    factor = structure.root(rng.standard_normal(structure.n_parameters))
    factor = 10.0 ** rng.uniform(-spread, spread, (q, 1)) * factor
    factor[:, structure.order[rank:]] = 0.0
    turn = np.linalg.qr(rng.standard_normal((q, q)))[0]
    rotation, free = triangular_chart(factor @ turn, structure.mask)
    size = np.abs(factor).max()
    # As many free entries as theta has: a triangle of the mask, in some order of the effects.
    assert free.sum() == structure.n_parameters
    if rotation is None:
        assert not (factor @ turn)[~free].any()
        return
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(q), atol=1e-13)
    moved = factor @ turn @ rotation
    # A masked chart goes through the covariance: half the digits where that is singular.
    tolerance = 1e-13 if structure.mask.all() else 1e-7
    np.testing.assert_allclose(moved[~free], 0.0, atol=tolerance * size)
    if structure.mask.all():
        pivots = np.abs(np.where(free, moved, 0.0)).max(axis=0)
        order = np.argsort(free.sum(axis=1))
        np.testing.assert_allclose(np.abs(moved[order].diagonal()), pivots, atol=1e-12 * size)


def test_a_triangular_factor_needs_no_rotation():
    rotation, free = triangular_chart(np.array([[2.0, 0.0], [1.0, 0.5]]), np.ones((2, 2), bool))
    assert rotation is None
    assert free.tolist() == [[True, False], [True, True]]
    # The larger variance comes first, even if another order would need no rotation.
    rotation, free = triangular_chart(np.array([[0.5, 0.0], [3.0, 1.0]]), np.ones((2, 2), bool))
    assert free.tolist() == [[True, True], [True, False]]
    assert rotation is not None


def positive_theta(structure, rng):
    """A theta whose Lambda has positive diagonals."""
    theta = rng.standard_normal(structure.n_parameters)
    diagonal = structure.parameter.diagonal() if isinstance(structure, Pattern) else [0]
    theta[diagonal] = np.abs(theta[diagonal]) + 0.1
    return theta


@settings(deadline=None, max_examples=60)
@given(which=st.sampled_from(STRUCTURES), seed=st.integers(0, 2**32 - 1))
def test_theta_lambda_covariance_and_back(which, seed):
    q, kind = which
    structure = structure_of(q, kind)
    rng = np.random.default_rng(seed)
    theta = positive_theta(structure, rng)
    factor = structure.root(theta)
    covariance = factor @ factor.T
    assert factor.shape == (q, q)
    assert not covariance[~structure.mask].any()
    options = {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(structure.theta_of_root(factor), theta, **options)
    np.testing.assert_allclose(structure.theta_of(covariance), theta, **options)
    root = factor
    if kind not in ("diagonal", "scalar"):
        root = factor @ np.linalg.qr(rng.standard_normal((q, q)))[0]
    np.testing.assert_allclose(structure.theta_of_root(root), theta, **options)
    signs = np.where(rng.uniform(size=q) < 0.5, -1.0, 1.0)
    if kind != "scalar":
        np.testing.assert_allclose(structure.theta_of_root(factor * signs), theta, **options)
    expected = {"full": q * (q + 1) // 2, "diagonal": q, "scalar": 1}
    free = int(np.tril(structure.mask).sum())
    assert structure.n_parameters == expected.get(kind, free)


@settings(deadline=None, max_examples=60)
@given(
    which=st.sampled_from([entry for entry in STRUCTURES if entry[0] > 1 and entry[1] != "scalar"]),
    zeros=st.lists(st.integers(0, 3), max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_singular_covariance_comes_back(which, zeros, seed):
    q, kind = which
    structure = structure_of(q, kind)
    factor = structure.root(positive_theta(structure, np.random.default_rng(seed)))
    factor[:, [j for j in zeros if j < q]] = 0.0
    covariance = factor @ factor.T
    theta = structure.theta_of(covariance)
    again = structure.root(theta)
    np.testing.assert_allclose(again @ again.T, covariance, atol=1e-9)
    assert not (again @ again.T)[~structure.mask].any()


def test_theta_is_the_lower_triangle_by_columns():
    factor = structure_of(3, "full").root(np.arange(1.0, 7.0))
    assert factor.tolist() == [[1.0, 0.0, 0.0], [2.0, 4.0, 0.0], [3.0, 5.0, 6.0]]


def test_a_cycle_of_covariances_is_refused():
    cycle = mask_of(4, (0, 1), (1, 2), (2, 3), (3, 0))
    with pytest.raises(ValueError, match="cycle"):
        make_structure(cycle, list("abcd"))


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", MASKS)
def test_fitted_covariances_are_zero_where_the_mask_is(name, reml):
    """In data whose effects are correlated throughout, with covariates far from zero."""
    mask = MASKS[name]
    q = len(mask)
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(25), 8)
    X = 3.0 + rng.standard_normal((200, q - 1))
    mix = 0.5 * np.eye(q) + 0.5
    effects = rng.standard_normal((25, q)) @ mix
    y = X.sum(axis=1) + effects[codes, 0] + (effects[codes, 1:] * X).sum(axis=1)
    y += rng.standard_normal(200)
    fit = MixedLinearRegressor(random_slopes=list(range(q - 1)), covariance=mask, reml=reml)
    fit.fit(X, y, groups=codes)
    covariance = fit.covariances_["group"].to_numpy()
    assert (covariance[~mask] == 0.0).all()
    assert (np.abs(covariance[mask]) > 1e-3).all()
    assert fit.converged_
    assert len(fit.theta_) == np.tril(mask).sum()
    Z = np.column_stack([np.ones(200), X])
    relative = covariance / fit.noise_variance_
    expected = criterion(relative, Z, y, Z, codes, None, reml)
    assert -2.0 * fit.log_likelihood_ == pytest.approx(expected, abs=1e-8)


# --- trust region --------------------------------------------------------------------------------
def model_value(slope, curvature, step):
    return slope @ step + 0.5 * (curvature * step) @ step


def trust_region_problem(rng, size, case):
    curvature = np.sort(rng.standard_normal(size) * 10.0 ** rng.uniform(-2, 3))
    slope = rng.standard_normal(size) * 10.0 ** rng.uniform(-3, 2)
    if case == "convex":
        curvature = np.sort(np.abs(curvature)) + 1e-3
    elif case == "hard":
        curvature[0] = -abs(curvature[0]) - 0.1
        slope[0] = 0.0
        slope *= 1e-2
    elif case == "saddle":  # nothing but curvature leads away
        curvature[0] = -abs(curvature[0]) - 0.1
        slope[:] = 0.0
    elif case == "repeated":
        curvature[:] = -abs(curvature[0]) - 0.1
    return slope, curvature, 10.0 ** rng.uniform(-2, 1)


@settings(deadline=None, max_examples=150)
@given(
    size=st.integers(1, 6),
    case=st.sampled_from(["any", "convex", "hard", "saddle", "repeated"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_trust_region_step(size, case, seed):
    rng = np.random.default_rng(seed)
    slope, curvature, radius = trust_region_problem(rng, size, case)
    step = trust_region_step(slope, curvature, radius)
    length = np.linalg.norm(step)
    assert length <= radius * (1.0 + 1e-5)
    found = model_value(slope, curvature, step)
    # The exact minimum is known from above and from below. Above: points of the ball, the best of
    # them improved by projected gradient steps.
    trials = rng.standard_normal((2000, size))
    trials /= np.linalg.norm(trials, axis=1)[:, None]
    trials *= radius * np.append(np.ones(1000), rng.uniform(size=1000))[:, None]
    values = trials @ slope + 0.5 * trials**2 @ curvature
    best = trials[np.argmin(values)]
    rate = 1.0 / np.abs(curvature).max()
    for _ in range(300):
        best = best - rate * (slope + curvature * best)
        best *= min(1.0, radius / np.linalg.norm(best))
    scale = radius * np.linalg.norm(slope) + radius**2 * np.abs(curvature).max()
    assert found <= min(values.min(), model_value(slope, curvature, best)) + 1e-5 * scale
    # Below: Lagrange's bound at every multiplier that makes the problem convex.
    lowest = max(0.0, -curvature[0])
    multipliers = lowest + 10.0 ** np.linspace(-12, 8, 4001)
    bounds = -0.5 * (slope**2 / (curvature + multipliers[:, None])).sum(axis=1)
    bounds -= 0.5 * multipliers * radius**2
    assert found >= bounds.max() - 1e-4 * scale
