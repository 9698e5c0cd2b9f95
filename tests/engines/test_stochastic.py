"""The stochastic engine against the exact one, on the models of `test_engines_agree`.

The columns of a Hadamard matrix are signs whose mean of ``e e'`` is the identity: with these as
probes the engine has no Monte Carlo error, and what it estimates are the exact traces. What is left
are the tolerances of the iterative solutions, the squares of which a trace is off by: 1e-8, and
1e-4 of average information.
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
from mixedlearn.engines.stochastic.engine import StochasticEngine
from mixedlearn.engines.stochastic.products import Products
from mixedlearn.engines.stochastic.traces import Probes

# Of squares of residuals of 1e-4, with digits that a large D loses.
TRACES = 1e-6
INFORMATION = 1e-5
# Steps of Lanczos' process end where the quadrature changes by less than 1e-7 for each effect.
QUADRATURE = 1e-4
SOLUTIONS = 1e-7


def signs_without_error(products):
    sizes = [m for _, m in products.plan.shapes]
    order = 2 ** int(np.ceil(np.log2(max([*sizes, products.tail.size]))))
    rows = hadamard(order).astype(float)
    return Probes([rows[:m] for m in sizes], rows[: products.tail.size])


def stochastic(case, *, probes=signs_without_error):
    fixed = fixed_basis(case.products, case.specification.fixed, case.specification.fit_intercept)
    n_effects = [structure.n_effects for structure in case.components.structures]
    plan = plan_elimination(case.products, n_effects)
    products = Products(case.products, plan, fixed, case.problem.randoms)
    likelihood = case.problem.engine.likelihood
    engine = StochasticEngine(products, case.components, likelihood, 1.0, n_probes=4, seed=0)
    engine._probes = probes(products)
    return Seen(engine, fixed)


def with_a_tail():
    for name, model in SEVERAL.items():
        n_factors = len(Case(model).codes)
        if len(model.chain or (0,)) < n_factors:
            yield name


WITH_A_TAIL = list(with_a_tail())


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize(("weighted", "reml"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("name", WITH_A_TAIL)
def test_without_monte_carlo_error_it_is_the_exact_engine(name, reml, weighted):
    case = Case(SEVERAL[name], reml=reml, weighted=weighted)
    exact, found = case.several(), stochastic(case)
    columns, codes = new_rows(case)
    assert_all_close(found.engine.start(), exact.engine.start())
    for point, theta in points(case.components):
        a, b = exact.engine.evaluate(theta, 2), found.engine.evaluate(theta, 2)
        objective = found.engine.evaluate(theta, 0).objective
        assert objective == pytest.approx(a.objective, abs=QUADRATURE), point
        assert_all_close(b.covariance_gradients, a.covariance_gradients, TRACES)
        assert_close(b.gradient, a.gradient, TRACES)
        assert_close(b.hessian, a.hessian, INFORMATION)
        assert_close(found.coef(b), exact.coef(a), SOLUTIONS)
        assert_close(found.coef_covariance(b), exact.coef_covariance(a), SOLUTIONS)
        assert found.noise_variance(b) == pytest.approx(exact.noise_variance(a), rel=SOLUTIONS)
        roots = case.components.roots(theta)
        assert_all_close(found.blups(roots, b), exact.blups(roots, a), SOLUTIONS)
        one, other = found.engine.posterior(roots), exact.engine.posterior(roots)
        for k in range(len(roots)):
            assert_close(one.covariance(k), other.covariance(k), SOLUTIONS)
        assert_all_close(found.coef_response(one), exact.coef_response(other), SOLUTIONS)
        assert_close(one.variance(columns, codes), other.variance(columns, codes), SOLUTIONS)
