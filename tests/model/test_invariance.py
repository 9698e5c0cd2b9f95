"""What must not matter: units, origins, order, chunks, names, memory layout.

Tolerances. Where only the order of floating-point operations differs the optimum moves by rounding
alone; estimates then agree to about eight digits, the criterion to 1e-8 (it is a sum of terms of
the size of a few hundred). A covariate shifted by 1e4 of its standard deviations keeps 16 - 4 = 12
digits in the data themselves, its square in the cross-products as many; what the model makes of
them is held to 1e-6 and its criterion to 1e-7.
"""

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixedlearn import MixedLinearRegressor
from reference.numbered import sums_of

CRITERION = 1e-8
ESTIMATES = 1e-7
SHIFTED_CRITERION = 1e-7
SHIFTED = 1e-6

few = settings(deadline=None, max_examples=15)


def draw(seed=0, m=20, k=2, weighted=False):
    """Unbalanced data with random intercepts and slopes of both columns."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(m), rng.integers(2, 12, m)))
    X = rng.standard_normal((len(codes), k))
    effects = rng.standard_normal((m, k + 1)) * [1.5, *np.full(k, 0.8)]
    y = 4.0 + X @ np.arange(1.0, k + 1.0) + effects[codes, 0] + (effects[codes, 1:] * X).sum(axis=1)
    y += rng.standard_normal(len(codes))
    weights = rng.uniform(0.2, 4.0, len(codes)) if weighted else None
    return X, y, codes, weights


def fit(X, y, codes, weights=None, **parameters):
    parameters = {"random_slopes": [0]} | parameters
    return MixedLinearRegressor(**parameters).fit(X, y, groups=codes, sample_weight=weights)


def criterion(model):
    return -2.0 * model.log_likelihood_


def assert_same_fit(found, expected, rtol=ESTIMATES, atol=CRITERION):
    assert criterion(found) == pytest.approx(criterion(expected), abs=atol)
    np.testing.assert_allclose(found.theta_, expected.theta_, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=rtol, atol=rtol)
    assert found.intercept_ == pytest.approx(expected.intercept_, rel=rtol, abs=rtol)
    assert found.noise_variance_ == pytest.approx(expected.noise_variance_, rel=rtol)
    np.testing.assert_allclose(
        found.covariances_["group"], expected.covariances_["group"], rtol=rtol, atol=rtol
    )


# --- units and origins ---------------------------------------------------------------------------
@few
@given(
    exponents=st.tuples(st.integers(-6, 6), st.integers(-6, 6)),
    shifts=st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
    reml=st.booleans(),
    weighted=st.booleans(),
    seed=st.integers(0, 5),
)
def test_scale_and_shift_of_the_columns(exponents, shifts, reml, weighted, seed):
    X, y, codes, weights = draw(seed, weighted=weighted)
    scales, shifts = 10.0 ** np.array(exponents), np.array(shifts)
    moved = (X + shifts) * scales
    slopes = {"random_slopes": [0, 1], "reml": reml}
    plain, other = fit(X, y, codes, weights, **slopes), fit(moved, y, codes, weights, **slopes)
    # X'X is multiplied by the squared determinant of the change of basis; shifts leave it at one.
    change = 2.0 * math.log(scales.prod()) if reml else 0.0
    assert criterion(other) - change == pytest.approx(criterion(plain), abs=SHIFTED_CRITERION)
    assert other.noise_variance_ == pytest.approx(plain.noise_variance_, rel=SHIFTED)
    np.testing.assert_allclose(other.coef_ * scales, plain.coef_, atol=SHIFTED)
    size = y.std()
    rng = np.random.default_rng(1)
    at, levels = rng.standard_normal((30, 2)), rng.integers(-2, 20, 30)  # negative: unknown
    at_moved = (at + shifts) * scales
    for which in ("all", "none"):
        found = other.predict(at_moved, groups=levels, random_effects=which, return_std=True)
        expected = plain.predict(at, groups=levels, random_effects=which, return_std=True)
        np.testing.assert_allclose(found[0] / size, expected[0] / size, atol=SHIFTED)
        np.testing.assert_allclose(found[1], expected[1], rtol=SHIFTED)
    # The covariance in the units of the moved columns is the same covariance.
    back = np.eye(3)
    back[0, 1:] = shifts * scales
    back[1:, 1:] = np.diag(scales)
    found = back @ other.covariances_["group"].to_numpy() @ back.T
    np.testing.assert_allclose(found, plain.covariances_["group"], atol=1e-4)


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("covariance", ["full", "diagonal", "scalar"])
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_a_common_scale_of_slopes_without_an_intercept(scale, covariance, reml):
    """Every structure is closed under a common scale of all its columns."""
    X, y, codes, weights = draw(3, weighted=True)
    parameters = {
        "random_intercept": False,
        "random_slopes": [0, 1],
        "covariance": covariance,
        "reml": reml,
    }
    plain = fit(X, y, codes, weights, **parameters)
    other = fit(X * scale, y, codes, weights, **parameters)
    change = 4.0 * math.log(scale) if reml else 0.0
    assert criterion(other) - change == pytest.approx(criterion(plain), abs=CRITERION)
    np.testing.assert_allclose(other.theta_ * scale, plain.theta_, rtol=ESTIMATES)
    np.testing.assert_allclose(
        other.random_effects_["group"] * scale, plain.random_effects_["group"], atol=ESTIMATES
    )


@pytest.mark.parametrize("scales", [(1e6, 1e-6), (1e-3, 1e5)])
@pytest.mark.parametrize("masked", [True, False])
def test_scales_of_uncorrelated_effects(scales, masked):
    X, y, codes, _ = draw(4)
    covariance = [[True, False, True], [False, True, False], [True, False, True]]
    parameters = {
        "random_slopes": [0, 1],
        "covariance": covariance if masked else "diagonal",
        "reml": False,
    }
    plain, other = fit(X, y, codes, **parameters), fit(X * scales, y, codes, **parameters)
    assert criterion(other) == pytest.approx(criterion(plain), abs=CRITERION)
    back = np.diag([1.0, *scales])
    np.testing.assert_allclose(
        back @ other.covariances_["group"] @ back, plain.covariances_["group"], atol=SHIFTED
    )


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("between", [0.0, 1.0])
def test_a_response_far_from_zero_is_fitted_as_its_noise(between, reml):
    """At 1e8 a double keeps 8 digits after the point: the data below are multiples of 2^-20."""
    rng = np.random.default_rng(9)
    codes = np.repeat(np.arange(15), 6)
    x = rng.standard_normal((90, 1))
    noise = x[:, 0] + between * rng.standard_normal(15)[codes] + rng.standard_normal(90)
    noise = np.round(noise * 2.0**20) / 2.0**20
    assert np.array_equal((1e8 + noise) - 1e8, noise)
    plain, other = fit(x, noise, codes, reml=reml), fit(x, 1e8 + noise, codes, reml=reml)
    assert criterion(other) == pytest.approx(criterion(plain), abs=CRITERION)
    np.testing.assert_allclose(other.theta_, plain.theta_, atol=ESTIMATES)
    np.testing.assert_allclose(other.coef_, plain.coef_, rtol=ESTIMATES)
    assert other.noise_variance_ == pytest.approx(plain.noise_variance_, rel=ESTIMATES)
    assert other.intercept_ - 1e8 == pytest.approx(plain.intercept_, abs=1e-6)
    np.testing.assert_allclose(
        other.random_effects_["group"], plain.random_effects_["group"], atol=ESTIMATES
    )
    found = other.predict(x, groups=codes) - 1e8
    np.testing.assert_allclose(found, plain.predict(x, groups=codes), atol=1e-6)


@few
@given(exponent=st.integers(-12, 12), reml=st.booleans(), seed=st.integers(0, 5))
def test_scale_of_the_response(exponent, reml, seed):
    X, y, codes, weights = draw(seed, weighted=True)
    factor = -(10.0**exponent)
    plain = fit(X, y, codes, weights, reml=reml)
    other = fit(X, factor * y, codes, weights, reml=reml)
    df = len(y) - 3 if reml else len(y)
    change = 2.0 * df * math.log(abs(factor))
    assert criterion(other) - change == pytest.approx(criterion(plain), abs=CRITERION)
    np.testing.assert_allclose(other.theta_, plain.theta_, rtol=ESTIMATES, atol=ESTIMATES)
    np.testing.assert_allclose(other.coef_ / factor, plain.coef_, rtol=ESTIMATES)
    noise = other.noise_variance_ / factor**2
    assert noise == pytest.approx(plain.noise_variance_, rel=ESTIMATES)
    np.testing.assert_allclose(
        other.random_effects_["group"] / factor, plain.random_effects_["group"], atol=ESTIMATES
    )


@few
@given(factor=st.floats(1e-6, 1e6), reml=st.booleans(), seed=st.integers(0, 5))
def test_a_common_factor_of_the_weights_is_one_of_the_noise(factor, reml, seed):
    X, y, codes, weights = draw(seed, weighted=True)
    plain = fit(X, y, codes, weights, reml=reml)
    other = fit(X, y, codes, weights * factor, reml=reml)
    assert criterion(other) == pytest.approx(criterion(plain), abs=CRITERION)
    assert other.noise_variance_ / factor == pytest.approx(plain.noise_variance_, rel=ESTIMATES)
    for name in ("covariances_", "random_effects_"):
        np.testing.assert_allclose(
            getattr(other, name)["group"], getattr(plain, name)["group"], atol=ESTIMATES
        )
    np.testing.assert_allclose(other.coef_covariance_, plain.coef_covariance_, rtol=ESTIMATES)


@pytest.mark.slow
# --- rows ----------------------------------------------------------------------------------------
@few
@given(order=st.randoms(use_true_random=False), weighted=st.booleans())
def test_order_of_the_rows(order, weighted):
    X, y, codes, weights = draw(weighted=weighted)
    shuffled = np.array(order.sample(range(len(y)), len(y)))
    moved = None if weights is None else weights[shuffled]
    other = fit(X[shuffled], y[shuffled], codes[shuffled], moved)
    assert_same_fit(other, fit(X, y, codes, weights))


@pytest.mark.parametrize("weighted", [True, False])
def test_rows_of_weight_zero_are_absent(weighted):
    X, y, codes, weights = draw(2, weighted=weighted)
    plain = fit(X, y, codes, weights)
    rng = np.random.default_rng(0)
    n, extra = len(y), 40
    place = rng.permutation(n + extra)
    more = np.vstack([X, 100.0 + 50.0 * rng.standard_normal((extra, 2))])[place]
    response = np.append(y, 1e6 * rng.standard_normal(extra))[place]
    # Some belong to a level that has no other rows: it is no level of the model.
    labels = np.append(codes, rng.integers(0, 25, extra))[place]
    w = np.append(np.ones(n) if weights is None else weights, np.zeros(extra))[place]
    other = fit(more, response, labels, w)
    assert other.n_groups_ == {"group": 20}
    assert_same_fit(other, plain)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("chunk_rows", [1, 7, "n", "more"])
def test_chunks_of_the_pass_over_the_rows(chunk_rows, weighted):
    X, y, codes, weights = draw(1, k=3, weighted=weighted)
    n = len(y)
    chunk_rows = {"n": n, "more": 10 * n}.get(chunk_rows, chunk_rows)
    found = sums_of(X, y, [codes], [20], [(0, 2)], weights, chunk_rows=chunk_rows)
    # The sums again, from the rows at once. Sums of a few hundred terms of order one: 1e-11.
    basis = np.column_stack([np.ones(n), X - found.shift[:-1], y - found.shift[-1]])
    w = np.ones(n) if weights is None else weights
    np.testing.assert_allclose(found.gram, basis.T @ (w[:, None] * basis), atol=1e-11)
    assert found.z_columns == ((0, 1, 3),)
    assert found.n_rows == n
    assert found.sum_log_weights == pytest.approx(np.log(w).sum(), abs=1e-11)
    for position, column in enumerate(found.z_columns[0]):
        for level in range(20):
            rows = codes == level
            expected = (w[rows] * basis[rows, column]) @ basis[rows]
            np.testing.assert_allclose(found.grouped[0][position, :, level], expected, atol=1e-11)


def test_chunks_without_groups():
    X, y, _, _ = draw(1)
    whole, small = sums_of(X, y, [], [], []), sums_of(X, y, [], [], [], chunk_rows=5)
    assert whole.grouped == small.grouped == ()
    np.testing.assert_allclose(small.gram, whole.gram, atol=1e-11)


# --- names and order of the groups ---------------------------------------------------------------
@functools.cache
def plain_fit():
    return fit(*draw())


@pytest.mark.parametrize(
    "name",
    [
        lambda code: f"level {97 * code % 101}",
        lambda code: (code * 7) % 20 - 10,
        lambda code: -1.5 * code,
        lambda code: (code % 3, code),
        lambda code: code if code % 2 else str(code),
    ],
    ids=["text", "permuted", "float", "tuple", "mixed"],
)
def test_names_of_the_groups(name):
    X, y, codes, _ = draw()
    names = [name(code) for code in range(20)]
    labels = [names[code] for code in codes]
    other = fit(X, y, labels)
    assert_same_fit(other, plain_fit())
    found = other.random_effects_["group"]
    assert set(found.index) == set(names)
    place = [list(found.index).index(name) for name in names]
    np.testing.assert_allclose(
        found.to_numpy()[place], plain_fit().random_effects_["group"], atol=ESTIMATES
    )
    np.testing.assert_allclose(
        other.random_effects_covariances_["group"][place],
        plain_fit().random_effects_covariances_["group"],
        atol=ESTIMATES,
    )
    np.testing.assert_allclose(
        other.predict(X, groups=labels), plain_fit().predict(X, groups=codes), rtol=ESTIMATES
    )


# --- memory --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "layout",
    [
        np.asfortranarray,
        lambda X: np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3],
        lambda X: X[::-1].copy()[::-1],
        lambda X: X.tolist(),
    ],
    ids=["Fortran", "strided", "reversed", "list"],
)
def test_layout_in_memory(layout):
    X, y, codes, _ = draw()
    before = X.copy()
    assert_same_fit(fit(layout(X), y, codes), plain_fit())
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_single_precision_of_the_same_values(shift):
    X, y, codes, _ = draw()
    X, y = (X + shift).astype(np.float32), y.astype(np.float32)
    single = fit(X, y, codes)
    double = fit(X.astype(np.float64), y.astype(np.float64), codes)
    # The same numbers: nothing may be computed in single precision on the way.
    assert_same_fit(single, double)
    assert single.predict(X, groups=codes).dtype == np.float64
    np.testing.assert_allclose(
        single.predict(X, groups=codes),
        double.predict(X.astype(np.float64), groups=codes),
        rtol=1e-7,
    )


def test_integers_are_numbers():
    X, y, codes, _ = draw()
    whole = np.round(10.0 * X)
    assert_same_fit(fit(whole.astype(np.int16), y, codes), fit(whole, y, codes))
