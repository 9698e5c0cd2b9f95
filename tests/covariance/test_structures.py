"""The contract of a covariance structure, over the whole registry.

Every structure that the registry has is asked the same questions, with some more that it does not
have by name: masks, structures side by side, and what is left of structures without some effects.
"""

import warnings

import numpy as np
import pytest

from mixedlearn import MixedLinearRegressor
from mixedlearn.covariance.structures import (
    REGISTRY,
    Parts,
    make_structure,
    structure_of_notation,
)
from mixedlearn.covariance.structures.heterogeneous_ar1 import HeterogeneousAR1
from mixedlearn.covariance.structures.heterogeneous_compound_symmetry import (
    HeterogeneousCompoundSymmetry,
)
from mixedlearn.exceptions import DegenerateModelWarning
from mixedlearn.inference._models import model_of
from mixedlearn.search.newton import minimise_from

CHAIN = np.abs(np.subtract.outer(range(4), range(4))) < 2
STEP = 1e-5
# Central differences of second order: the square of the step, and rounding over the step.
DIFFERENCES = 1e-8
# What comes back from D comes through a square root.
ROUND_TRIP = 1e-9


def structures():
    for name in REGISTRY:
        for q in (2, 3, 5):
            yield f"{name} {q}", make_structure(name, [f"z{k}" for k in range(q)])
    yield "chain", make_structure(CHAIN, list("abcd"))
    parts = Parts(("full", "heterogeneous_ar1"), ((0, 3), (1, 4, 2)))
    yield "side by side", make_structure(parts, list("abcde"))
    yield "ar1 with gaps", HeterogeneousAR1([0, 2, 3, 7])
    yield "ar1 with even gaps", HeterogeneousAR1([0, 2, 6])
    yield "part of a compound symmetry", HeterogeneousCompoundSymmetry(3, 5)


EVERY = [pytest.param(structure, id=name) for name, structure in structures()]


def thetas(structure, seed=0):
    """Thetas of the inside, and of every end: each entry zero, and all of them."""
    rng = np.random.default_rng(seed)
    regular = rng.standard_normal(structure.n_parameters)
    yield regular
    yield 3.0 * rng.standard_normal(structure.n_parameters)
    for entry in range(structure.n_parameters):
        theta = regular.copy()
        theta[entry] = 0.0
        yield theta
        theta[entry] = np.pi / 2.0
        yield theta
    yield np.zeros(structure.n_parameters)


def covariance_of(structure, theta):
    root = structure.root(theta)
    return root @ root.T


def differences(function, theta):
    steps = STEP * np.eye(len(theta))
    return np.array([(function(theta + s) - function(theta - s)) / (2.0 * STEP) for s in steps])


@pytest.mark.parametrize("structure", EVERY)
def test_derivatives_are_those_of_differences(structure):
    q, n = structure.n_effects, structure.n_parameters
    for theta in thetas(structure):
        found = structure.directions(theta)
        assert found.shape == (n, q, q)
        np.testing.assert_allclose(found, differences(structure.root, theta), atol=DIFFERENCES)
        second = differences(structure.directions, theta)
        curvature = structure.curvature(theta)
        assert structure.is_linear == (curvature is None)
        expected = np.zeros_like(second) if curvature is None else curvature
        np.testing.assert_allclose(expected, second, atol=10.0 * DIFFERENCES)


@pytest.mark.parametrize("structure", EVERY)
def test_a_stack_of_thetas_has_a_stack_of_roots(structure):
    stack = np.array(list(thetas(structure)))
    expected = [structure.root(theta) for theta in stack]
    np.testing.assert_allclose(structure.root(stack), expected, atol=1e-14)


@pytest.mark.parametrize("structure", EVERY)
def test_theta_comes_back_from_the_covariance_and_from_any_root(structure):
    rng = np.random.default_rng(1)
    for theta in thetas(structure):
        covariance = covariance_of(structure, theta)
        size = max(1.0, np.trace(covariance))
        again = covariance_of(structure, structure.theta_of(covariance))
        np.testing.assert_allclose(again, covariance, atol=ROUND_TRIP * size)
        turn = np.linalg.qr(rng.standard_normal((structure.n_effects,) * 2))[0]
        root = structure.root(theta) @ turn
        again = covariance_of(structure, structure.theta_of_root(root))
        np.testing.assert_allclose(again, covariance, atol=ROUND_TRIP * size)


@pytest.mark.parametrize("structure", EVERY)
def test_a_projection_has_the_structure(structure):
    rng = np.random.default_rng(2)
    for _ in range(5):
        matrix = rng.standard_normal((structure.n_effects,) * 2)
        found = structure.project(matrix + matrix.T, floor=0.01)
        assert np.linalg.eigvalsh(found)[0] > -1e-12
        np.testing.assert_allclose(
            covariance_of(structure, structure.theta_of(found)), found, atol=1e-8
        )
        np.testing.assert_allclose(structure.project(found), found, atol=1e-8)
    for trial in structure.trials():
        again = covariance_of(structure, structure.theta_of(trial))
        np.testing.assert_allclose(again, trial, atol=1e-8)


@pytest.mark.parametrize("structure", EVERY)
def test_deviations_and_correlations_describe_the_covariance(structure):
    """Inside, the parameters in words are as many as theta has, and D follows from them."""
    effects = sorted(effect for group in structure.deviations for effect in group)
    assert effects == list(range(structure.n_effects))
    n_words = len(structure.deviations) + len(structure.correlations)
    without_pairs = any(not own.pairs for own in structure.correlations)
    assert n_words == structure.n_parameters or without_pairs
    theta = next(thetas(structure))
    covariance = covariance_of(structure, theta)
    assert not covariance[~structure.mask].any()
    sd = np.sqrt(np.diag(covariance))
    for group in structure.deviations:
        np.testing.assert_allclose(sd[list(group)], sd[group[0]])
    for own in structure.correlations:
        values = [covariance[i, j] / (sd[i] * sd[j]) for i, j in own.pairs]
        np.testing.assert_allclose(values, values[:1] * len(values))
        assert all(own.lower <= value <= own.upper for value in values)
        for gone in own.freed_by:
            left = [effect for effect in range(structure.n_effects) if effect not in gone]
            assert all(i not in left or j not in left for i, j in own.pairs)


@pytest.mark.parametrize("structure", EVERY)
def test_the_tangent_is_where_d_can_move(structure):
    theta = next(thetas(structure))
    moves = differences(lambda at: covariance_of(structure, at), theta)
    tangent = structure.tangent(theta)
    np.testing.assert_allclose(tangent, tangent.transpose(0, 2, 1), atol=1e-12)
    flat = tangent.reshape(len(tangent), -1)
    change = moves.reshape(len(moves), -1)
    rest = change - np.linalg.lstsq(flat.T, change.T, rcond=None)[0].T @ flat
    np.testing.assert_allclose(rest, 0.0, atol=1e-7)
    assert np.linalg.matrix_rank(flat) == np.linalg.matrix_rank(change, tol=1e-6)
    span = structure.span()
    if span is not None:
        shifted = covariance_of(structure, theta) + 1e-3 * span.sum(axis=0)
        again = covariance_of(structure, structure.theta_of(shifted))
        np.testing.assert_allclose(again, shifted, atol=1e-9)


@pytest.mark.parametrize("structure", EVERY)
def test_allowed_changes_of_basis_stay_within_the_structure(structure):
    rng = np.random.default_rng(3)
    changes, q = structure.basis_changes, structure.n_effects
    covariance = covariance_of(structure, next(thetas(structure)))
    if changes.blocks is not None:
        turn = np.zeros((q, q))
        for block in changes.blocks:
            turn[np.ix_(block, block)] = rng.standard_normal((len(block),) * 2)
    elif changes.has_own_scales:
        turn = np.diag(rng.uniform(0.5, 2.0, q))
        turn[0, changes.absorbs] = rng.standard_normal(int(changes.absorbs.sum()))
    else:
        turn = 1.7 * np.eye(q)
    turned = turn @ covariance @ turn.T
    again = covariance_of(structure, structure.theta_of(turned))
    np.testing.assert_allclose(again, turned, atol=1e-8 * np.trace(turned))


@pytest.mark.parametrize("structure", EVERY)
def test_restriction_is_the_covariance_of_fewer_effects(structure):
    """Of those that are kept; with the others zero it is a member of the whole."""
    q = structure.n_effects
    if len(structure.deviations) == 1:
        if structure.name != "scalar":
            with pytest.raises(ValueError, match="go together"):
                structure.restricted([0])
        return
    for kept in ([0], [q - 1], [0, q - 1], list(range(1, q))):
        smaller = structure.restricted(kept)
        assert smaller.n_effects == len(kept)
        for theta in thetas(structure):
            covariance = covariance_of(structure, theta)[np.ix_(kept, kept)]
            again = covariance_of(smaller, smaller.theta_of(covariance))
            size = max(1.0, np.trace(covariance))
            np.testing.assert_allclose(again, covariance, atol=1e-8 * size)
        assert structure.contains(smaller, np.eye(q)[:, kept])


@pytest.mark.parametrize("structure", EVERY)
def test_ends_are_in_the_structure_and_singular(structure):
    if getattr(structure, "n_all", structure.n_effects) > structure.n_effects:
        pytest.skip("the correlation of a part does not reach the part's own end")
    for theta in thetas(structure):
        for end in structure.settlements(theta):
            moved = theta.copy()
            moved[end.entries] = end.values
            assert np.linalg.eigvalsh(covariance_of(structure, moved))[0] < 1e-12


def test_what_contains_what():
    def contains(larger, smaller, q=4):
        effects = list("abcd")[:q]
        return make_structure(larger, effects).contains(make_structure(smaller, effects), np.eye(q))

    order = {
        "scalar": set(REGISTRY),
        "diagonal": {
            "diagonal",
            "heterogeneous_compound_symmetry",
            "heterogeneous_ar1",
            "full",
        },
        "compound_symmetry": {"compound_symmetry", "heterogeneous_compound_symmetry", "full"},
        "ar1": {"ar1", "heterogeneous_ar1", "full"},
        "heterogeneous_compound_symmetry": {"heterogeneous_compound_symmetry", "full"},
        "heterogeneous_ar1": {"heterogeneous_ar1", "full"},
        "full": {"full"},
    }
    for smaller, larger in order.items():
        assert {name for name in order if contains(name, smaller)} == larger & set(order)
    # Of two effects there is one correlation, whatever it is called.
    assert contains("ar1", "compound_symmetry", q=2)
    assert contains("heterogeneous_ar1", "full", q=2)


def test_functions_of_formulas_mean_what_they_mean_in_lme4():
    meanings = {
        ("us", None): "full",
        ("us", True): None,
        ("diag", None): "diagonal",
        ("diag", False): "diagonal",
        ("diag", True): "scalar",
        ("cs", None): "heterogeneous_compound_symmetry",
        ("cs", True): "compound_symmetry",
        ("ar1", None): "ar1",
        ("ar1", False): "heterogeneous_ar1",
        ("toep", None): None,
    }
    assert {key: structure_of_notation(*key) for key in meanings} == meanings


def occasions(seed=0, m=25, q=4, n_each=2):
    """Rows of m levels at q occasions, and their indicators."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(m), q * n_each)
    visit = np.tile(np.repeat(np.arange(q), n_each), m)
    kept = rng.uniform(size=len(codes)) < 0.85
    codes, visit = codes[kept], visit[kept]
    root = np.linalg.cholesky(0.6 ** np.abs(np.subtract.outer(range(q), range(q))))
    effects = rng.standard_normal((m, q)) @ root.T * np.linspace(0.7, 1.6, q)
    y = 3.0 + effects[codes, visit] + 0.6 * rng.standard_normal(len(codes))
    return np.eye(q)[visit], y, codes


def fitted(covariance, rows=None, **parameters):
    X, y, codes = occasions() if rows is None else rows
    model = MixedLinearRegressor(
        fixed_effects=[1, 2, 3],
        random_slopes=[0, 1, 2, 3],
        random_intercept=False,
        covariance=covariance,
        **parameters,
    )
    return model.fit(X, y, groups=codes)


@pytest.mark.parametrize("name", REGISTRY)
def test_em_steps_never_increase_the_objective(name):
    model = model_of(fitted(name))
    engine = model.problem().engine
    (structure,) = engine.components.structures
    for theta in thetas(structure):
        evaluation = engine.evaluate(theta, 2)
        covariance = covariance_of(structure, theta)
        (gradient,) = evaluation.covariance_gradients
        updated = structure.em_update(covariance, gradient, engine.n_levels[0])
        if updated is None:
            return
        after = engine.evaluate(structure.theta_of(updated), 0).objective
        assert after <= evaluation.objective + 1e-9


@pytest.mark.parametrize("name", REGISTRY)
def test_a_structure_at_its_neutral_value_has_the_likelihood_of_a_simpler_one(name):
    """With equal variances and no correlation all are scalar."""
    model = fitted(name)
    scalar = fitted("scalar")
    relative = scalar.theta_[0] ** 2 * np.eye(4)
    theta = model_of(model).specification.factors[0].structure.theta_of(relative)
    assert model.log_likelihood(theta) == pytest.approx(scalar.log_likelihood_, abs=1e-9)
    assert model.log_likelihood_ >= scalar.log_likelihood_ - 1e-9


@pytest.mark.parametrize("name", REGISTRY)
def test_starting_from_the_fit_ends_there(name):
    model = fitted(name, warm_start=True)
    assert model.converged_
    before = model.log_likelihood_
    X, y, codes = occasions()
    assert model.fit(X, y, groups=codes).log_likelihood_ == pytest.approx(before, abs=1e-8)
    assert model.log_likelihood(model.theta_) == pytest.approx(before, abs=1e-8)


@pytest.mark.parametrize("name", REGISTRY)
def test_units_and_signs_of_the_response_do_not_matter(name):
    X, y, codes = occasions()
    plain = fitted(name)
    scaled = fitted(name, rows=(X, -1e3 * y, codes))
    np.testing.assert_allclose(
        scaled.covariances_["group"], 1e6 * plain.covariances_["group"], rtol=1e-5, atol=1.0
    )


@pytest.mark.parametrize("name", ["heterogeneous_compound_symmetry", "heterogeneous_ar1"])
def test_an_occasion_without_rows_keeps_its_place(name):
    X, y, codes = occasions()
    kept = X[:, 2] == 0.0
    with pytest.warns(match="random effects of 'x2'"), pytest.warns(match="fixed effects of 'x2'"):
        model = fitted(name, rows=(X[kept], y[kept], codes[kept]))
    covariance = model.covariances_["group"].to_numpy()
    assert not covariance[2].any()
    assert model.is_singular_
    ratios = covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)).clip(1e-300))
    expected = ratios[0, 1] ** 2 if name == "heterogeneous_ar1" else ratios[0, 1]
    assert ratios[1, 3] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["compound_symmetry", "ar1"])
def test_a_variance_that_is_shared_needs_no_rows_of_every_occasion(name):
    X, y, codes = occasions()
    kept = X[:, 2] == 0.0
    with pytest.warns(match="fixed effects of 'x2'") as caught:
        covariance = fitted(name, rows=(X[kept], y[kept], codes[kept])).covariances_["group"]
    assert len(caught) == 1
    assert np.ptp(np.diag(covariance)) < 1e-12
    assert covariance.iloc[2, 2] > 0.1


@pytest.mark.parametrize("name", REGISTRY)
def test_one_effect_is_one_variance(name):
    X, y, codes = occasions()
    model = MixedLinearRegressor(covariance=name).fit(X[:, 1:], y, groups=codes)
    full = MixedLinearRegressor().fit(X[:, 1:], y, groups=codes)
    assert model.log_likelihood_ == pytest.approx(full.log_likelihood_, abs=1e-10)
    assert model.formula_ == full.formula_
    assert len(model.theta_) == 1


@pytest.mark.parametrize("name", ["ar1", "heterogeneous_ar1"])
def test_what_no_derivative_shows_at_zero_is_found(name):
    """Effects that alternate, each too small to be seen alone.

    At zero the objective rises with the variance of effects without a correlation, and falls with
    that of effects whose neighbours are opposite: theta = 0 is a minimum as far as its first two
    derivatives tell.
    """
    m, q, n_each = 20, 3, 4
    codes, visit = np.repeat(np.arange(m), q * n_each), np.tile(np.repeat(np.arange(q), n_each), m)
    noise = np.tile([1.0, -1.0, 1.0, -1.0], m * q)
    y = 0.4 * (-1.0) ** codes * (-1.0) ** visit + noise
    model = MixedLinearRegressor(
        fixed_effects=[],
        random_slopes=[0, 1, 2],
        random_intercept=False,
        covariance=name,
    ).fit(np.eye(q)[visit], y, groups=codes)
    engine = model_of(model).problem().engine
    nothing = np.zeros(engine.components.n_parameters)
    at_zero = engine.evaluate(nothing, 2)
    assert np.linalg.eigvalsh(at_zero.hessian)[0] > -1e-12
    found = minimise_from(engine, nothing, 100, 1e-8)
    assert found.is_certified
    assert found.evaluation.objective < at_zero.objective - 1.0
    assert found.evaluation.objective == pytest.approx(-2.0 * model.log_likelihood_, abs=1e-6)
    covariance = model.covariances_["group"].to_numpy()
    assert covariance[0, 1] == pytest.approx(-np.sqrt(covariance[0, 0] * covariance[1, 1]))


def test_one_effect_with_variance_leaves_the_sign_of_the_correlation_open():
    """The chart sees the others rise with the correlation as it is, not with the opposite one."""
    for structure in (HeterogeneousAR1(3), HeterogeneousCompoundSymmetry(3)):
        gradient = np.zeros((3, 3))
        gradient[0, 1] = gradient[1, 0] = 1.0
        theta = np.array([1.0, 0.0, 0.0, structure.angle(0.3)])
        (moved,) = structure.ways_out(theta, gradient, 0.1)
        covariance = covariance_of(structure, moved)
        assert covariance[0, 0] == pytest.approx(1.0)
        assert covariance[0, 1] < 0.0
        assert covariance[2, 2] == 0.0
        # With a second variance there is nothing that the chart does not see.
        assert not structure.ways_out(np.array([1.0, 0.5, 0.0, 0.3]), gradient, 0.1)


@pytest.mark.parametrize("name", ["ar1", "heterogeneous_ar1", "heterogeneous_compound_symmetry"])
def test_one_row_in_each_level_is_told(name):
    rng = np.random.default_rng(4)
    occasion = np.tile(np.arange(4), 15)
    estimator = MixedLinearRegressor(
        fixed_effects=[], random_slopes=[0, 1, 2, 3], random_intercept=False, covariance=name
    )
    with pytest.warns(DegenerateModelWarning, match="one row.*cannot be told from the noise"):
        estimator.fit(np.eye(4)[occasion], rng.standard_normal(60), groups=np.arange(60))


@pytest.mark.parametrize("name", ["ar1", "heterogeneous_ar1", "heterogeneous_compound_symmetry"])
def test_one_row_for_each_occasion_tells_the_noise_by_the_correlations(name):
    rng = np.random.default_rng(4)
    level, occasion = np.repeat(np.arange(15), 4), np.tile(np.arange(4), 15)
    y = rng.standard_normal(15)[level] + rng.standard_normal(60)
    estimator = MixedLinearRegressor(
        fixed_effects=[], random_slopes=[0, 1, 2, 3], random_intercept=False, covariance=name
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", DegenerateModelWarning)
        estimator.fit(np.eye(4)[occasion], y, groups=level)


@pytest.mark.parametrize("name", ["heterogeneous_ar1", "heterogeneous_compound_symmetry"])
def test_an_effect_of_next_to_no_variance_beside_another_has_a_theta(name):
    structure = make_structure(name, ["a", "b", "c"])
    deviations = np.array([1.0, 1e-20, 0.0])
    covariance = np.outer(deviations, deviations) * structure.correlation(0.5)[0]
    root = structure.root(structure.theta_of(covariance))
    np.testing.assert_allclose(root @ root.T, covariance, rtol=1e-9)
