"""Models whose estimates can be written down: no optimiser, no matrices.

Tolerance. A closed form is exact; the estimator's optimum is polished to about eight digits of a
variance (see test_reference_values.py for why not more), and 1e-7 leaves room for that.
"""

import math
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mixedlearn import MixedLinearRegressor

CLOSE = {"rtol": 1e-7, "atol": 1e-9}


def one_way(m, size, between, seed):
    """Balanced one-way layout of m levels: codes and response with noise variance four."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(m), size)
    y = 10.0 + between * rng.standard_normal(m)[codes]
    return codes, y + 2.0 * rng.standard_normal(m * size)


def one_way_anova(codes, y, reml):
    """Variance between levels, noise variance and criterion of a balanced layout.

    From the mean squares between (A) and within (W): s2 = W, and the variance of a level's mean is
    estimated by A (REML) or by A (m - 1) / m (ML). If that is less than W, the variance between
    levels is zero and both sums of squares are noise.
    """
    m, n = codes.max() + 1, len(y)
    size = n // m
    means = np.bincount(codes, y) / size
    between = size * ((means - y.mean()) ** 2).sum()
    within = ((y - means[codes]) ** 2).sum()
    df = n - 1 if reml else n
    noise = within / (n - m)
    of_means = between / (m - 1 if reml else m)  # estimates noise + size * variance
    if of_means <= noise:
        variance, noise = 0.0, (between + within) / df
    else:
        variance = (of_means - noise) / size
    ratio = 1.0 + size * variance / noise
    criterion = m * math.log(ratio) + df * (1.0 + math.log(2.0 * math.pi * noise))
    if reml:
        criterion += math.log(n / ratio)
    return variance, noise, criterion


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    ("m", "size", "between"),
    [(2, 2, 3.0), (6, 5, 1.5), (30, 2, 1.0), (8, 40, 0.3), (5, 4, 50.0), (12, 3, 0.0), (40, 6, 0)],
)
@pytest.mark.parametrize("seed", range(3))
def test_one_way_layout(m, size, between, reml, seed):
    codes, y = one_way(m, size, between, seed)
    variance, noise, criterion = one_way_anova(codes, y, reml)
    fit = MixedLinearRegressor(reml=reml).fit(np.empty((len(y), 0)), y, groups=codes)
    assert -2.0 * fit.log_likelihood_ == pytest.approx(criterion, abs=1e-8)
    assert fit.noise_variance_ == pytest.approx(noise, rel=1e-7)
    assert fit.is_singular_ == (variance == 0.0)
    found = fit.covariances_["group"].to_numpy()
    if variance == 0.0:
        assert found.tolist() == [[0.0]]  # not merely small
    np.testing.assert_allclose(found, [[variance]], rtol=1e-6)
    # The mean of a balanced layout, with the variance of a mean of m independent level means.
    assert fit.intercept_ == pytest.approx(y.mean(), rel=1e-10)
    of_mean = variance / m + noise / len(y)
    np.testing.assert_allclose(fit.coef_covariance_, [[of_mean]], **CLOSE)
    # BLUPs are the levels' deviations shrunk by the reliability of a mean.
    reliability = variance / (variance + noise / size)
    deviation = np.bincount(codes, y) / size - y.mean()
    blups = fit.random_effects_["group"].to_numpy()[:, 0]
    np.testing.assert_allclose(blups, reliability * deviation, rtol=1e-6, atol=1e-9)
    spread = fit.random_effects_covariances_["group"]
    expected = np.full((m, 1, 1), variance * (1.0 - reliability))
    np.testing.assert_allclose(spread, expected, rtol=1e-6)


def test_the_cases_above_meet_both_a_zero_and_a_positive_variance():
    found = {
        one_way_anova(*one_way(m, 4, between, seed), reml)[0] > 0.0
        for m, between in ((5, 50.0), (12, 0.0))
        for seed in range(3)
        for reml in (True, False)
    }
    assert found == {True, False}


@pytest.mark.parametrize("reml", [True, False])
def test_no_variation_between_levels_at_all(reml):
    codes, y = one_way(7, 4, 0.0, seed=0)
    y -= (np.bincount(codes, y) / 4)[codes]
    fit = MixedLinearRegressor(reml=reml).fit(np.empty((28, 0)), y, groups=codes)
    assert fit.theta_.tolist() == [0.0]
    assert fit.noise_variance_ == pytest.approx(y @ y / (27 if reml else 28), rel=1e-12)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("reml", [True, False])
def test_random_intercepts_of_unbalanced_data(reml, weighted):
    """At the estimated variances, level by level: means are shrunk by their reliability."""
    rng = np.random.default_rng(5)
    sizes = np.array([1, 2, 3, 5, 8, 13, 21, 1, 1, 4])
    codes = np.repeat(np.arange(10), sizes)
    y = 3.0 + 2.0 * rng.standard_normal(10)[codes] + rng.standard_normal(len(codes))
    weights = rng.uniform(0.3, 3.0, len(y)) if weighted else None
    fit = MixedLinearRegressor(reml=reml)
    fit.fit(np.empty((len(y), 0)), y, groups=codes, sample_weight=weights)
    variance = fit.covariances_["group"].to_numpy()[0, 0]
    assert variance > 0.1
    w = np.ones(len(y)) if weights is None else weights
    total = np.bincount(codes, w)
    means = np.bincount(codes, w * y) / total
    of_means = variance + fit.noise_variance_ / total  # variance of each level's mean
    mean = (means / of_means).sum() / (1.0 / of_means).sum()
    assert fit.intercept_ == pytest.approx(mean, rel=1e-10)
    np.testing.assert_allclose(fit.coef_covariance_, [[1.0 / (1.0 / of_means).sum()]], **CLOSE)
    blups = fit.random_effects_["group"].to_numpy()[:, 0]
    np.testing.assert_allclose(blups, variance / of_means * (means - mean), **CLOSE)
    spread = fit.random_effects_covariances_["group"][:, 0, 0]
    np.testing.assert_allclose(spread, variance * (1.0 - variance / of_means), **CLOSE)
    np.testing.assert_allclose(
        fit.predict(np.empty((10, 0)), groups=np.arange(10)),
        mean + variance / of_means * (means - mean),
        **CLOSE,
    )


def least_squares(X, y, weights):
    """Coefficients, unscaled covariance and residual sum of squares, by QR of the rows."""
    root = np.sqrt(weights)
    Q, R = np.linalg.qr(root[:, None] * X)
    coef = np.linalg.solve(R, Q.T @ (root * y))
    inverse = np.linalg.inv(R)
    return coef, inverse @ inverse.T, (weights * (y - X @ coef) ** 2).sum()


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("groups", ["none", "without variation"])
def test_least_squares_where_there_is_no_random_effect(groups, weighted, reml):
    rng = np.random.default_rng(8)
    X = rng.standard_normal((60, 3))
    design = np.column_stack([np.ones(60), X])
    codes = np.repeat(np.arange(15), 4)
    weights = rng.uniform(0.3, 3.0, 60) if weighted else np.ones(60)
    noise = rng.standard_normal(60)
    # No variation between levels beyond the fixed effects: the residuals of the means are zero.
    noise -= (np.bincount(codes, weights * noise) / np.bincount(codes, weights))[codes]
    y = design @ [5.0, 1.0, -2.0, 0.5] + noise
    coef, inverse, square = least_squares(design, y, weights)
    df = 56 if reml else 60
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if groups == "none" else "error")
        fit = MixedLinearRegressor(reml=reml).fit(
            X, y, groups=None if groups == "none" else codes, sample_weight=weights
        )
    if groups != "none":
        assert fit.theta_.tolist() == [0.0]
        assert fit.is_singular_
        assert not fit.random_effects_["group"].to_numpy().any()
    np.testing.assert_allclose([fit.intercept_, *fit.coef_], coef, rtol=1e-11)
    assert fit.noise_variance_ == pytest.approx(square / df, rel=1e-11)
    np.testing.assert_allclose(fit.coef_covariance_, inverse * square / df, rtol=1e-10, atol=1e-14)
    criterion = df * (1.0 + math.log(2.0 * math.pi * square / df)) - np.log(weights).sum()
    if reml:
        criterion -= np.linalg.slogdet(inverse)[1]
    assert -2.0 * fit.log_likelihood_ == pytest.approx(criterion, abs=1e-9)
    at = rng.standard_normal((5, 3))
    mean, std = fit.predict(at, groups=None if groups == "none" else np.arange(5), return_std=True)
    rows = np.column_stack([np.ones(5), at])
    np.testing.assert_allclose(mean, rows @ coef, rtol=1e-10)
    variance = (1.0 + np.einsum("ri,ij,rj->r", rows, inverse, rows)) * square / df
    np.testing.assert_allclose(std, np.sqrt(variance), rtol=1e-10)


def growth_curve(m, times, reml, y):
    """Estimates of a balanced growth curve, from the levels' own regressions.

    With the same times T for every level, the coefficients b_i of each level are independent with
    covariance s2 (D + (T'T)^-1), independent of the residuals: s2 is the pooled residual variance
    and the fixed effects are the means of the b_i. Returns None if D is not positive definite.
    """
    T = np.column_stack([np.ones(len(times)), times])
    inverse = np.linalg.inv(T.T @ T)
    coefs = y @ T @ inverse
    noise = ((y - coefs @ T.T) ** 2).sum() / (m * (len(times) - 2))
    deviations = coefs - coefs.mean(axis=0)
    spread = deviations.T @ deviations / (m - 1 if reml else m)
    covariance = spread - noise * inverse
    if np.linalg.eigvalsh(covariance)[0] <= 0.0:
        return None
    criterion = m * np.linalg.slogdet(spread)[1] + m * (len(times) - 2) * math.log(noise)
    criterion -= m * np.linalg.slogdet(inverse)[1]
    df = y.size - 2 if reml else y.size
    criterion += df * (1.0 + math.log(2.0 * math.pi))
    if reml:
        # log|X'V^-1 X / s2| of m levels, each with information spread^-1 (s2 profiled out above)
        criterion += 2.0 * math.log(m) - np.linalg.slogdet(spread)[1]
    shrink = covariance @ np.linalg.inv(spread)
    return coefs.mean(axis=0), spread / m, covariance, noise, criterion, deviations @ shrink.T


@settings(deadline=None, max_examples=30)
@given(
    m=st.integers(4, 40),
    times=st.lists(st.integers(-20, 20), min_size=3, max_size=9, unique=True),
    correlation=st.floats(-0.8, 0.8),
    reml=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_balanced_growth_curve(m, times, correlation, reml, seed):
    times = np.array(times, dtype=float)
    rng = np.random.default_rng(seed)
    effects = rng.standard_normal((m, 2)) @ [[3.0, 3.0 * correlation], [0.0, 3.0]]
    y = (np.array([50.0, 2.0]) + effects) @ [np.ones(len(times)), times]
    y += rng.standard_normal(y.shape)
    expected = growth_curve(m, times, reml, y)
    assume(expected is not None)
    coef, coef_covariance, covariance, noise, criterion, blups = expected
    fit = MixedLinearRegressor(random_slopes=[0], reml=reml)
    fit.fit(np.tile(times, m)[:, None], y.ravel(), groups=np.repeat(np.arange(m), len(times)))
    assert -2.0 * fit.log_likelihood_ == pytest.approx(criterion, abs=1e-7)
    np.testing.assert_allclose([fit.intercept_, *fit.coef_], coef, rtol=1e-8, atol=1e-8)
    sizes = np.sqrt(np.diag(covariance))
    unit = np.outer(sizes, sizes)
    np.testing.assert_allclose(fit.coef_covariance_ / unit, coef_covariance / unit, atol=1e-6)
    np.testing.assert_allclose(fit.covariances_["group"] / unit, covariance / unit, atol=1e-5)
    assert fit.noise_variance_ == pytest.approx(noise, rel=1e-6)
    np.testing.assert_allclose(fit.random_effects_["group"] / sizes, blups / sizes, atol=1e-5)


@pytest.mark.parametrize("slopes", [None, [0]])
@pytest.mark.parametrize("spread", [1e3, 1e2, 1e1])
def test_effects_within_and_between_levels_that_disagree(spread, slopes):
    # Sessions of a thousandth of their distance in time: within them y rises, between them not.
    # There are two optima; the one in which the noise is that within levels is far higher.
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(50), 20)
    start = rng.uniform(0.0, 3.15e7, 50)[groups]
    time = start + spread * rng.normal(size=1000)
    y = 2.0 * (time - start) / spread + 3.0 * rng.normal(size=50)[groups] + rng.normal(size=1000)
    model = MixedLinearRegressor(random_slopes=slopes).fit(time[:, None], y, groups=groups)
    indicators = np.eye(50)[groups]
    within = np.linalg.lstsq(np.column_stack([(time - start) / spread, indicators]), y, rcond=None)
    assert model.converged_
    assert model.coef_[0] * spread == pytest.approx(within[0][0], abs=0.05)
    assert model.noise_variance_ == pytest.approx(within[1][0] / (1000 - 51), rel=0.03)


@pytest.mark.parametrize("sd", [1e-3, 1e-4, 1e-5, 1e-6])
def test_noise_that_is_small_is_not_zero(sd):
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 20, 300)
    X, effects, noise = rng.normal(size=(300, 2)), rng.normal(size=20), rng.normal(size=300)
    model = MixedLinearRegressor().fit(
        X, X.sum(axis=1) + effects[groups] + sd * noise, groups=groups
    )
    design = np.column_stack([X, np.eye(20)[groups]])
    square = np.linalg.lstsq(design, noise, rcond=None)[1][0]
    assert model.noise_variance_ == pytest.approx(sd**2 * square / (300 - 22), rel=1e-2)
    assert model.converged_
