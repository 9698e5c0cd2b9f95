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

import numpy as np
import pytest

from helpers.several_models import (
    CLOSE,
    ONE,
    SEVERAL,
    Case,
    Seen,
    assert_all_close,
    assert_close,
    new_rows,
    points,
)
from mixedlearn.covariance.components import theta_hessian
from mixedlearn.engines import choose
from mixedlearn.engines.elimination import level_pairs
from mixedlearn.engines.elimination.engine import SeveralFactorsEngine
from mixedlearn.engines.joint import JointEngine
from mixedlearn.engines.one_factor import OneFactorEngine
from mixedlearn.engines.problem import make_problem
from mixedlearn.engines.recipe import Recipe

OBJECTIVE = 1e-8
DIFFERENCES = 1e-6
STEP = 1e-3


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
