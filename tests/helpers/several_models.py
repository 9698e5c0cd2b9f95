"""Small models with one and several factors, their engines, and points to compare these at."""

from dataclasses import dataclass, field

import numpy as np

from mixedlearn.engines.bases import fixed_basis
from mixedlearn.engines.elimination.chain import plan_elimination
from mixedlearn.engines.elimination.engine import SeveralFactorsEngine
from mixedlearn.engines.elimination.reduced import reduce_several
from mixedlearn.engines.joint import JointEngine, reduce_jointly
from mixedlearn.engines.levels import separate_levels
from mixedlearn.engines.problem import make_problem
from mixedlearn.engines.recipe import Recipe
from mixedlearn.specification import make_specification
from reference.dense import Dense, DenseSolution
from reference.numbered import sums_of

# Two engines compute the same to so many digits; see `engines/test_engines_agree`.
CLOSE = 1e-8
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
