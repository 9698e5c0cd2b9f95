"""The largest of several t statistics, against one-dimensional quadratures and scipy."""

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import chi, norm, studentized_range, t

from mixedlearn.inference._simultaneous import max_t
from mixedlearn.inference._simultaneous import studentized_range as differences

SIZES = np.array([1.0, 2.0, 2.5, 3.5])
DF = np.array([3.3, 10.3, 30.7, 1000.0])


def one_factor(size, df, loads):
    """P(max |t_i| > size) where correlations are products of loads, by two quadratures."""
    nodes, weights = np.polynomial.legendre.leggauss(300)
    z, density = 8.5 * nodes, 8.5 * weights * norm.pdf(8.5 * nodes)
    low, high = chi.ppf(1e-16, df), chi.isf(1e-18, df)
    raw = (low + high) / 2.0 + (high - low) / 2.0 * nodes
    scale, share = raw / np.sqrt(df), weights * chi.pdf(raw, df) * (high - low) / 2.0
    inside = 1.0
    for load in loads:
        own = np.sqrt(1.0 - load**2)
        ends = (size * scale[:, None] - load * z) / own, (-size * scale[:, None] - load * z) / own
        inside = inside * (ndtr(ends[0]) - ndtr(ends[1]))
    return 1.0 - inside @ density @ share


@pytest.mark.parametrize(
    ("n_tests", "error"), [(1, 1e-12), (2, 1e-8), (3, 1e-6), (5, 1e-5), (9, 1e-4)]
)
def test_correlations_of_one_factor(n_tests, error):
    rng = np.random.default_rng(n_tests)
    loads = rng.uniform(0.2, 0.9, n_tests)
    units = rng.uniform(1.0, 30.0, (n_tests, 1))
    largest = max_t(units * np.column_stack([loads, np.diag(np.sqrt(1.0 - loads**2))]))
    expected = [one_factor(size, df, loads) for size, df in zip(SIZES, DF, strict=True)]
    np.testing.assert_allclose(largest.p_values(SIZES, DF), expected, rtol=0.0, atol=error)


@pytest.mark.parametrize("n_means", [2, 3, 6, 12])
def test_the_studentized_range_is_that_of_scipy(n_means):
    largest = differences(n_means)
    df = np.append(DF[1:], np.inf)
    expected = studentized_range.sf(np.sqrt(2.0) * SIZES, n_means, df)
    np.testing.assert_allclose(largest.p_values(SIZES, df), expected, rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(
        np.sqrt(2.0) * largest.quantiles(0.9, df),
        studentized_range.ppf(0.9, n_means, df),
        rtol=1e-6,
    )


def test_all_differences_of_independent_means_have_that_range():
    """Their correlations are singular."""
    unit = np.eye(4)
    rows = np.array([unit[j] - unit[k] for j in range(4) for k in range(j + 1, 4)])
    np.testing.assert_allclose(
        max_t(rows).p_values(SIZES, DF), differences(4).p_values(SIZES, DF), rtol=0.0, atol=1e-5
    )


def test_the_same_contrast_twice_counts_once():
    largest = max_t(np.array([[1.0, 2.0], [-3.0, -6.0], [0.5, 1.0]]))
    expected = 2.0 * t.sf(SIZES, DF)
    np.testing.assert_allclose(largest.p_values(SIZES, DF), expected, rtol=1e-9)


@pytest.mark.parametrize("df", [0.4, 1.0, 2.5, 40.0, 1e6, np.inf])
def test_quantiles_invert_probabilities(df):
    rows = np.array([[1.0, 0.0, 0.3], [0.5, 1.0, 0.0], [0.0, 1.0, 1.0]])
    for largest in (max_t(rows), differences(3)):
        quantile = largest.quantiles(0.95, np.array([df]))
        np.testing.assert_allclose(largest.p_values(quantile, np.array([df])), 0.05, rtol=1e-6)


def test_far_out_the_bounds_of_bonferroni_hold():
    largest = differences(5)
    sizes, df = np.array([20.0, 36.0, np.inf]), np.array([200.0, np.inf, 12.0])
    single = 2.0 * t.sf(sizes, df)
    found = largest.p_values(sizes, df)
    np.testing.assert_allclose(found, 10.0 * single, rtol=1e-9)


def test_without_degrees_of_freedom_there_is_no_probability():
    largest, df = differences(3), np.array([np.nan, -1.0])
    assert np.isnan(largest.p_values(np.array([2.0, 2.0]), df)).all()
    assert np.isnan(largest.quantiles(0.95, df)).all()


def test_the_same_family_has_the_same_probabilities():
    rows = np.random.default_rng(0).normal(size=(4, 6))
    np.testing.assert_array_equal(max_t(rows).p_values(SIZES, DF), max_t(rows).p_values(SIZES, DF))
