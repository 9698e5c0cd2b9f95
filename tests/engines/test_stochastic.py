"""The stochastic engine against the exact one, on models of one chain and several.

The columns of a Hadamard matrix are signs whose mean of ``e e'`` is the identity: with these as
probes the engine has no Monte Carlo error, and what it estimates are the exact traces. With small
residuals of the iterative solutions what is left is rounding: a large D costs it four digits more
than the exact engine, which adds up squares.
"""

import numpy as np
import pytest
from scipy.linalg import hadamard

from helpers.several_models import (
    SEVERAL,
    Case,
    Seen,
    assert_all_close,
    assert_close,
    new_rows,
    points,
)
from mixedlearn.engines.bases import fixed_basis
from mixedlearn.engines.elimination.chain import plan_elimination
from mixedlearn.engines.levels import reduce_levels
from mixedlearn.engines.stochastic import engine, products, traces
from mixedlearn.engines.stochastic.engine import StochasticEngine
from mixedlearn.engines.stochastic.plan import eliminate_one
from mixedlearn.engines.stochastic.products import Products
from mixedlearn.engines.stochastic.traces import Probes

RESIDUALS = 1e-11
CLOSE = 1e-7
# Steps of Lanczos' process end where the quadrature changes by less than 1e-7 for each effect.
QUADRATURE = 1e-4


def signs_without_error(own):
    sizes = [m for _, m in own.plan.shapes]
    order = 2 ** int(np.ceil(np.log2(max([*sizes, own.tail.size]))))
    rows = hadamard(order).astype(float)
    return Probes([rows[:m] for m in sizes], rows[: own.tail.size], order)


def stochastic(case):
    fixed = fixed_basis(case.products, case.specification.fixed, case.specification.fit_intercept)
    n_effects = [structure.n_effects for structure in case.components.structures]
    plan = eliminate_one(plan_elimination(case.products, n_effects))
    own = Products(case.products, plan, fixed, case.problem.randoms)
    likelihood = case.problem.engine.likelihood
    within = reduce_levels(
        case.products, plan.chain[0], fixed, case.problem.randoms[plan.chain[0]]
    ).within
    made = StochasticEngine(own, case.components, likelihood, within, 1.0, n_probes=4, seed=0)
    made._probes = signs_without_error(own)
    made.n_probes = made._probes.n_probes
    return Seen(made, fixed)


def with_unit_vectors(found):
    found.engine = found.engine.with_probes(1 + max(found.engine.n_levels))
    return found


def with_a_tail():
    for name, model in SEVERAL.items():
        case = Case(model)
        n_effects = [structure.n_effects for structure in case.components.structures]
        if plan_elimination(case.products, n_effects).tail:
            yield name


WITH_A_TAIL = list(with_a_tail())


@pytest.mark.slow_cases("five", "two chains", every=10)
@pytest.mark.parametrize(
    ("n_small", "reml", "weighted"),
    [(0, True, True), (6, False, False)],
)
@pytest.mark.parametrize("name", WITH_A_TAIL)
def test_without_monte_carlo_error_it_is_the_exact_engine(
    name, reml, weighted, n_small, monkeypatch
):
    monkeypatch.setattr(traces, "TOLERANCE", RESIDUALS)
    monkeypatch.setattr(products, "MOST_SMALL_EFFECTS", n_small)
    monkeypatch.setattr(engine, "INFORMATION_TOLERANCE", RESIDUALS)
    case = Case(SEVERAL[name], reml=reml, weighted=weighted)
    exact, found = case.several(), stochastic(case)
    columns, codes = new_rows(case)
    assert_all_close(found.engine.start(), exact.engine.start())
    assert_all_close(found.engine.start_from_within(), exact.engine.start_from_within())
    for point, theta in points(case.components):
        a, b = exact.engine.evaluate(theta, 2), found.engine.evaluate(theta, 2)
        objective = found.engine.evaluate(theta, 0).objective
        assert objective == pytest.approx(a.objective, abs=QUADRATURE), point
        assert_all_close(b.covariance_gradients, a.covariance_gradients, CLOSE)
        assert_close(b.gradient, a.gradient, CLOSE)
        assert_close(b.hessian, a.hessian, CLOSE)
        assert_close(found.coef(b), exact.coef(a), CLOSE)
        assert_close(found.coef_covariance(b), exact.coef_covariance(a), CLOSE)
        assert found.noise_variance(b) == pytest.approx(exact.noise_variance(a), rel=CLOSE)
        roots = case.components.roots(theta)
        assert_all_close(found.blups(roots, b), exact.blups(roots, a), CLOSE)
        if point not in {"regular", "mixed"}:
            # A solution for each level takes a while.
            continue
        one, other = found.engine.posterior(roots), exact.engine.posterior(roots)
        for k in range(len(roots)):
            assert_close(one.covariance(k), other.covariance(k), CLOSE)
        assert_all_close(found.coef_response(one), exact.coef_response(other), CLOSE)
        assert_close(one.variance(columns, codes), other.variance(columns, codes), CLOSE)


@pytest.mark.slow_cases(every=10)
@pytest.mark.parametrize("name", WITH_A_TAIL)
def test_more_probes_than_levels_leave_no_monte_carlo_error(name, monkeypatch):
    monkeypatch.setattr(traces, "TOLERANCE", RESIDUALS)
    monkeypatch.setattr(products, "MOST_SMALL_EFFECTS", 0)
    case = Case(SEVERAL[name], reml=True, weighted=True)
    exact, found = case.several(), with_unit_vectors(stochastic(case))
    for _, theta in points(case.components):
        a, b = exact.engine.evaluate(theta, 2), found.engine.evaluate(theta, 2)
        assert_all_close(b.covariance_gradients, a.covariance_gradients, CLOSE)
        for samples, own in zip(b.sampled_gradients, a.covariance_gradients, strict=True):
            assert np.abs(samples).max() < RESIDUALS * max(1.0, np.abs(own).max())
