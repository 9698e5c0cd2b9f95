"""The engines against each other, and all of them against dense matrices from the rows.

Tolerances. The objective is a few hundred; each engine computes it to about 1e-12 at regular points
and loses digits where D is large. Large here is 30 standard deviations of the noise in natural
units, D of about 1e3 beside the noise, whose root loses two digits and whose square four: hence
1e-8 for the objective and 1e-8 of the largest entry for everything else that two engines compute in
different ways, or that is computed from V as a matrix. Central differences of fourth order with a
step of 1e-3 have errors of truncation and rounding near 1e-9 of the derivative's size where no
variance is large: 1e-6.
"""

import functools
from dataclasses import dataclass, field

import numpy as np
import pytest

from mixedlearn.covariance.components import theta_hessian
from mixedlearn.engines import choose
from mixedlearn.engines.bases import fixed_basis
from mixedlearn.engines.elimination import level_pairs
from mixedlearn.engines.elimination.chain import plan_elimination
from mixedlearn.engines.elimination.engine import SeveralFactorsEngine
from mixedlearn.engines.elimination.reduced import reduce_several
from mixedlearn.engines.joint import JointEngine, reduce_jointly
from mixedlearn.engines.levels import separate_levels
from mixedlearn.engines.one_factor import OneFactorEngine
from mixedlearn.engines.problem import make_problem
from mixedlearn.engines.recipe import Recipe
from mixedlearn.specification import make_specification
from reference.dense import Dense, DenseSolution
from reference.numbered import sums_of

OBJECTIVE = 1e-8
CLOSE = 1e-8
DIFFERENCES = 1e-6
STEP = 1e-3
N = 130
CHAIN_MASK = np.array([[True, True, False], [True, True, True], [False, True, True]])


@dataclass(frozen=True)
class Model:
    """A model: codes of every factor from random numbers, and what differs from the default."""

    codes: object
    slopes: dict = field(default_factory=dict)
    covariance: object = "full"
    intercept: object = True
    chain: tuple = ()


def crossed(*sizes):
    return lambda rng: [rng.integers(0, size, N) for size in sizes]


def chain_of(depth, m=28):
    def codes(rng):
        inner = rng.integers(0, m, N)
        return [inner // 3**level for level in range(depth)]

    return codes


def nested_and_crossed(rng):
    inner = rng.integers(0, 24, N)
    return [rng.integers(0, 7, N), inner // 5, inner, rng.integers(0, 3, N)]


def five(rng):
    inner = rng.integers(0, 27, N)
    return [inner // 9, rng.integers(0, 6, N), inner, inner // 3, rng.integers(0, 4, N)]


def disconnected(rng):
    part = np.arange(N) % 2
    return [6 * part + rng.integers(0, 6, N), 4 * part + rng.integers(0, 4, N)]


def equal(rng):
    codes = rng.integers(0, 15, N)
    return [codes, (7 * codes + 3) % 15, rng.integers(0, 5, N)]


def one_row_each(rng):
    return [rng.permutation(N), rng.integers(0, 9, N), rng.integers(0, 4, N)]


def two_chains(rng):
    first, second = rng.integers(0, 20, N), rng.integers(0, 15, N)
    return [first // 4, second, first, second // 5]


# Column 3 is constant within the levels of the first factor.
SEVERAL = {
    "crossed": Model(crossed(14, 8)),
    "two levels": Model(crossed(14, 2), {"g0": [0], "g1": [1]}),
    "three crossed": Model(crossed(12, 7, 4), {"g1": [0]}),
    "crossed, slopes": Model(crossed(12, 8), {"g0": [0], "g1": [1, 0]}),
    "crossed, diagonal": Model(crossed(12, 8), {"g0": [0, 1], "g1": [2]}, "diagonal"),
    "crossed, scalar": Model(crossed(12, 8), {"g0": [0], "g1": [1]}, "scalar"),
    "crossed, scalar and full": Model(
        crossed(12, 8), {"g0": [0], "g1": [1, 2]}, {"g0": "scalar", "g1": "full"}
    ),
    "crossed, mask": Model(
        crossed(12, 8), {"g0": [0, 1], "g1": [1, 2]}, {"g0": "diagonal", "g1": CHAIN_MASK}
    ),
    "mask in front": Model(
        crossed(12, 5), {"g0": [2, 1], "g1": [0]}, {"g0": CHAIN_MASK, "g1": "diagonal"}
    ),
    "slopes alone": Model(
        crossed(12, 8), {"g0": [0], "g1": [1, 2]}, intercept={"g0": False, "g1": False}
    ),
    "tail without intercept": Model(crossed(13, 6), {"g1": [0, 1]}, intercept={"g1": False}),
    "nested": Model(chain_of(2), {"g0": [0]}, chain=(0, 1)),
    "nested, outer slope varies within": Model(chain_of(2), {"g1": [0, 1]}, chain=(0, 1)),
    "nested, outer slope constant within": Model(chain_of(2), {"g0": [0], "g1": [3]}, chain=(0, 1)),
    "nested, all slopes": Model(
        chain_of(2), {"g0": [0, 1], "g1": [1]}, {"g0": CHAIN_MASK, "g1": "diagonal"}, chain=(0, 1)
    ),
    "nested, outer first": Model(lambda rng: chain_of(2)(rng)[::-1], {"g0": [1]}, chain=(1, 0)),
    "chain of three": Model(chain_of(3), {"g1": [0], "g2": [1]}, chain=(0, 1, 2)),
    "chain of four": Model(chain_of(4, 54), {"g0": [0], "g2": [1]}, chain=(0, 1, 2, 3)),
    "chain, slopes alone": Model(
        chain_of(3), {"g0": [0], "g1": [1, 2]}, "diagonal", {"g0": False, "g1": False}
    ),
    "nested and crossed": Model(nested_and_crossed, chain=(2, 1)),
    "nested and crossed, slopes": Model(
        nested_and_crossed, {"g0": [1], "g1": [0], "g2": [0]}, chain=(2, 1)
    ),
    "nested and crossed, scalar": Model(
        nested_and_crossed, {"g0": [1, 0], "g1": [0], "g2": [2]}, "scalar", chain=(2, 1)
    ),
    "five factors": Model(five, {"g1": [0], "g4": [1]}, {"g4": "diagonal"}, chain=(2, 3, 0)),
    "five factors, slopes": Model(five, {"g2": [0], "g0": [1]}, {"g0": "scalar"}),
    # The chain with fewer levels has more effects.
    "two chains": Model(two_chains, {"g0": [0], "g1": [1]}, chain=(1, 3)),
    "disconnected": Model(disconnected, {"g0": [0], "g1": [0]}),
    "equal factors": Model(equal, {"g1": [0]}, chain=(1, 0)),
    "one row each": Model(one_row_each, {"g1": [0]}),
}
ONE = {
    f"{q} {name}": Model(crossed(m), {"g0": list(range(q - 1))}, covariance)
    for m in (25,)
    for q, name, covariance in [
        (1, "full", "full"),
        (1, "scalar", "scalar"),
        (2, "full", "full"),
        (2, "diagonal", "diagonal"),
        (2, "scalar", "scalar"),
        (3, "full", "full"),
        (3, "diagonal", "diagonal"),
        (3, "scalar", "scalar"),
        (3, "mask", CHAIN_MASK),
    ]
}
ONE["slopes alone"] = Model(crossed(25), {"g0": [0, 1]}, intercept=False)
ONE["levels with fewer rows than effects"] = Model(crossed(70), {"g0": [0, 1]})


class Case:
    """The rows of a model, its cross-products and specification, and the engines."""

    def __init__(self, model, *, reml=True, weighted=True):
        rng = np.random.default_rng(17)
        codes = [np.unique(c, return_inverse=True)[1].astype(np.int32) for c in model.codes(rng)]
        self.codes, self.n_levels = codes, [int(code.max()) + 1 for code in codes]
        within = rng.standard_normal(self.n_levels[0])[codes[0]]
        centred = np.column_stack([rng.standard_normal((N, 3)), within])
        self.X = centred + np.array([3.0, 0.0, -1.0, 0.0])
        self.y = 5.0 + self.X @ [1.0, 2.0, 3.0, 0.5] + rng.standard_normal(N)
        for code, m in zip(codes, self.n_levels, strict=True):
            effects = rng.standard_normal((m, 2))[code]
            self.y += effects[:, 0] + 0.5 * effects[:, 1] * self.X[:, 1]
        self.weights = rng.uniform(0.4, 2.5, N) if weighted else None
        names = [f"g{k}" for k in range(len(codes))]
        self.specification = make_specification(
            [f"x{j}" for j in range(4)],
            [(name, ()) for name in names],
            fixed_effects=None,
            random_intercept=model.intercept,
            random_slopes=model.slopes,
            covariance=model.covariance,
            fit_intercept=True,
            reml=reml,
        )
        slopes = [factor.slopes for factor in self.specification.factors]
        self.products = sums_of(self.X, self.y, codes, self.n_levels, slopes, self.weights)
        self.problem = make_problem(self.products, Recipe(self.specification))
        self.components = self.problem.engine.components
        self.all_ones = np.column_stack([np.ones(N), self.X])
        columns = []
        for factor, random in zip(self.specification.factors, self.problem.randoms, strict=True):
            own = [0] if factor.random_intercept else []
            own += [1 + slope for slope in factor.slopes]
            columns.append(self.all_ones[:, own] @ random.to_user)
        self.columns = columns  # of the random effects, as the engines see them
        self.dense = Dense(self.all_ones, self.y, columns, codes, self.n_levels, self.weights, reml)

    def solution(self, theta) -> DenseSolution:
        factors = self.components.roots(theta)
        return self.dense.at([factor @ factor.T for factor in factors])

    def several(self):
        """SeveralFactorsEngine and its fixed basis."""
        first = fixed_basis(
            self.products, self.specification.fixed, self.specification.fit_intercept
        )
        n_effects = [structure.n_effects for structure in self.components.structures]
        plan = plan_elimination(self.products, n_effects)
        fixed, reduced = reduce_several(self.products, plan, first, self.problem.randoms)
        likelihood = self.problem.engine.likelihood
        n_levels = tuple(self.n_levels)
        return Seen(SeveralFactorsEngine(reduced, self.components, n_levels, likelihood), fixed)

    def joint(self):
        first = fixed_basis(
            self.products, self.specification.fixed, self.specification.fit_intercept
        )
        moments = reduce_jointly(self.products, first, self.problem.randoms)
        fixed, moments = separate_levels(first, moments)
        likelihood = self.problem.engine.likelihood
        return Seen(JointEngine(moments, self.components, tuple(self.n_levels), likelihood), fixed)

    def chosen(self):
        return Seen(self.problem.engine, self.problem.fixed)


class Seen:
    """An engine, with its numbers in units that do not depend on its fixed columns."""

    def __init__(self, engine, fixed):
        self.engine, self.fixed = engine, fixed

    def coef(self, found):
        return self.fixed.offset + self.fixed.scale * (self.fixed.to_user @ found.fixed.coef)

    def coef_covariance(self, found):
        root = self.fixed.to_user @ found.fixed.inverse_root
        return root @ root.T

    def noise_variance(self, found):
        return found.fixed.noise_variance * self.fixed.scale**2

    def blups(self, factors, found):
        blups = self.engine.random_effects(factors, found.fixed)
        return [self.fixed.scale * own for own in blups]

    def coef_response(self, posterior):
        back = np.linalg.inv(self.fixed.to_user)
        return [np.einsum("apm,pu->aum", own, back) for own in posterior.coef_response]


def points(components, seed=3):
    """Thetas: regular, large, tiny, with columns or whole factors zero, all zero."""
    rng = np.random.default_rng(seed)
    regular = rng.standard_normal(components.n_parameters)
    yield "regular", regular
    yield "large", 30.0 * rng.standard_normal(components.n_parameters)
    yield "tiny", 1e-5 * regular
    mixed = regular.copy()
    for k, own in enumerate(components.slices):
        mixed[own] *= (30.0, 1e-5)[k % 2]
        zero = regular.copy()
        zero[own] = 0.0
        yield f"factor {k} zero", zero
        structure = components.structures[k]
        if hasattr(structure, "parameter") and structure.n_effects > 1:
            gone = structure.parameter[:, 0]
            column = regular.copy()
            column[own][gone[gone >= 0]] = 0.0
            yield f"column of factor {k} zero", column
    yield "mixed", mixed
    yield "zero", np.zeros(components.n_parameters)


def assert_close(found, expected, share=CLOSE):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    size = max(np.abs(expected).max(initial=0.0), 1e-3)
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=share * size)


def assert_all_close(found, expected, share=CLOSE):
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, share)


def new_rows(case, n=150):
    rng = np.random.default_rng(8)
    columns = [rng.standard_normal((n, z.shape[1])) for z in case.columns]
    codes = [rng.integers(-1, m, n) for m in case.n_levels]
    codes[0][:5] = -1
    for code in codes:
        code[5:8] = -1
    return columns, codes


def assert_same_engine(case, first, second, *, same_hessian):
    columns, codes = new_rows(case)
    assert first.engine.n_levels == second.engine.n_levels == tuple(case.n_levels)
    for name, theta in points(case.components):
        a, b = first.engine.evaluate(theta, 2), second.engine.evaluate(theta, 2)
        assert a.objective == pytest.approx(b.objective, abs=OBJECTIVE), name
        assert_close(a.gradient, b.gradient)
        assert_all_close(a.covariance_gradients, b.covariance_gradients)
        if same_hessian:
            assert_close(a.hessian, b.hessian)
        assert_close(first.coef(a), second.coef(b))
        assert_close(first.coef_covariance(a), second.coef_covariance(b))
        assert first.noise_variance(a) == pytest.approx(second.noise_variance(b), rel=CLOSE)
        factors = case.components.roots(theta)
        assert_all_close(first.blups(factors, a), second.blups(factors, b))
        one, other = first.engine.posterior(factors), second.engine.posterior(factors)
        for k in range(len(factors)):
            assert_close(one.covariance(k), other.covariance(k))
        assert_all_close(first.coef_response(one), second.coef_response(other))
        assert_close(one.variance(columns, codes), other.variance(columns, codes))


# --- one factor ----------------------------------------------------------------------------------
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", ONE)
def test_one_factor(name, reml, weighted):
    case = Case(ONE[name], reml=reml, weighted=weighted)
    assert isinstance(case.problem.engine, OneFactorEngine)
    assert_same_engine(case, case.joint(), case.chosen(), same_hessian=True)
    assert_same_engine(case, case.several(), case.chosen(), same_hessian=False)


# --- several factors -----------------------------------------------------------------------------
@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize(("weighted", "reml"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("name", SEVERAL)
def test_several_factors(name, reml, weighted):
    case = Case(SEVERAL[name], reml=reml, weighted=weighted)
    several, joint = case.several(), case.joint()
    assert_same_engine(case, several, joint, same_hessian=False)
    assert_all_close(several.engine.start(), joint.engine.start())


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("name", SEVERAL)
def test_pairs_of_entries_that_are_not_listed(name, monkeypatch):
    case = Case(SEVERAL[name])
    listed = case.several()
    monkeypatch.setattr(level_pairs, "MOST_LISTED_PAIRS", 0)
    assert_same_engine(case, case.several(), listed, same_hessian=True)


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("name", SEVERAL)
def test_the_problem_chooses_by_the_number_of_effects(name, monkeypatch):
    case = Case(SEVERAL[name])
    n_effects = sum(z.shape[1] * m for z, m in zip(case.columns, case.n_levels, strict=True))
    monkeypatch.setattr(choose, "MOST_JOINT_EFFECTS", n_effects)
    assert isinstance(make_problem(case.products, Recipe(case.specification)).engine, JointEngine)
    monkeypatch.setattr(choose, "MOST_JOINT_EFFECTS", n_effects - 1)
    made = make_problem(case.products, Recipe(case.specification))
    assert isinstance(made.engine, SeveralFactorsEngine)
    assert_same_engine(case, Seen(made.engine, made.fixed), case.several(), same_hessian=True)


@pytest.mark.parametrize("name", [name for name, model in SEVERAL.items() if model.chain])
def test_what_is_eliminated_is_the_chain_with_the_most_effects(name):
    plan = case_of(name).several().engine._reduced.plan
    assert plan.chain == SEVERAL[name].chain
    assert sorted(plan.chain + plan.tail) == list(range(len(plan.shapes)))


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("make", [Case.joint, Case.several], ids=["joint", "several"])
def test_an_engine_holds_no_state_between_calls(make, name):
    case = case_of(name)
    engine = make(case).engine
    (_, first), (_, second), *_ = points(case.components)
    before = engine.evaluate(first, 2)
    other = engine.evaluate(second, 2)
    engine.posterior(case.components.roots(second))
    for order in (0, 1, 2):
        again = engine.evaluate(first, order)
        assert again.objective == before.objective
        np.testing.assert_array_equal(again.theta, first)
        if order:
            np.testing.assert_array_equal(again.gradient, before.gradient)
    np.testing.assert_array_equal(again.hessian, before.hessian)
    assert engine.evaluate(second, 1).objective == other.objective != before.objective


# --- dense matrices from the rows ----------------------------------------------------------------
@functools.cache
def case_of(name, reml=True):
    return Case((SEVERAL | ONE)[name], reml=reml)


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("make", [Case.joint, Case.several], ids=["joint", "several"])
@pytest.mark.parametrize("name", [*SEVERAL, *ONE])
def test_against_dense_matrices(name, make, reml):
    case = case_of(name, reml)
    seen = make(case)
    columns, codes = new_rows(case)
    for point, theta in points(case.components):
        exact, found = case.solution(theta), seen.engine.evaluate(theta, 1)
        assert found.objective == pytest.approx(exact.objective, abs=OBJECTIVE), point
        assert_all_close(found.covariance_gradients, exact.gradients())
        assert_close(seen.coef(found), exact.coef)
        assert_close(seen.coef_covariance(found), exact.coef_covariance)
        assert seen.noise_variance(found) == pytest.approx(exact.s2, rel=CLOSE)
        factors = case.components.roots(theta)
        assert_all_close(seen.blups(factors, found), exact.blups)
        posterior = seen.engine.posterior(factors)
        covariance = exact.effects_covariance()
        start, parts = 0, []
        for k, (q, m) in enumerate(case.dense.shapes):
            own = covariance[start : start + q * m, start : start + q * m].reshape(q, m, q, m)
            assert_close(posterior.covariance(k), np.einsum("aibi->abi", own))
            row = np.zeros((len(codes[k]), q, m))
            known = np.flatnonzero(codes[k] >= 0)
            row[known, :, codes[k][known]] = columns[k][known]
            parts.append(row.reshape(-1, q * m))
            start += q * m
        at = np.hstack(parts)
        expected = np.einsum("ri,ij,rj->r", at, covariance, at)
        assert_close(posterior.variance(columns, codes), expected)
        response = [
            np.einsum("ab,bmu->aum", D, (wide.T @ exact.inverse @ case.all_ones).reshape(q, m, -1))
            for D, wide, (q, m) in zip(
                exact.covariances, case.dense.wide, case.dense.shapes, strict=True
            )
        ]
        assert_all_close(seen.coef_response(posterior), response)


OFFSETS = np.array([-2.0, -1.0, 1.0, 2.0])
DIFFERENCE = np.array([1.0, -8.0, 8.0, -1.0]) / 12.0


def slopes_of(function, at):
    """Derivatives of a function (any shape) by every entry, the last axis."""
    found = []
    for axis in np.eye(len(at)):
        values = [function(at + offset * STEP * axis) for offset in OFFSETS]
        found.append(np.tensordot(DIFFERENCE, values, 1) / STEP)
    return np.stack(found, axis=-1)


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", SEVERAL)
def test_gradient_against_differences(name, reml):
    """Of the dense objective, which knows nothing of the engines' derivatives."""
    case = case_of(name, reml)
    engines = case.joint().engine, case.several().engine
    for point, theta in points(case.components):
        if point == "regular" or point.endswith("zero"):
            expected = slopes_of(lambda at: case.solution(at).objective, theta)
            for engine in engines:
                assert_close(engine.evaluate(theta, 1).gradient, expected, DIFFERENCES)


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", SEVERAL)
def test_hessian_of_the_joint_engine_against_differences(name, reml):
    case = case_of(name, reml)
    engine = case.joint().engine
    for _, theta in points(case.components):
        found = engine.evaluate(theta, 2).hessian
        expected = slopes_of(lambda at: engine.evaluate(at, 1).gradient, theta)
        assert_close(found, expected, DIFFERENCES)


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", [*SEVERAL, *ONE])
def test_average_information_is_the_mean_of_observed_and_expected(name, reml):
    case = case_of(name, reml)
    joint, several = case.joint().engine, case.several().engine
    for _, theta in points(case.components):
        exact = case.solution(theta)
        factors = case.components.roots(theta)
        arguments = (case.components.directions(theta), factors, exact.gradients())
        observed, expected, average = (
            theta_hessian(*arguments, second, case.components.curvatures(theta))
            for second in exact.information()
        )
        assert_close(joint.evaluate(theta, 2).hessian, observed)
        assert_close(several.evaluate(theta, 2).hessian, average)
        assert_close(2.0 * average - observed, expected)
