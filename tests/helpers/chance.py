"""What chance may do: bounds for tests of random numbers.

A right program exceeds a bound in at most one of 10,000 seeds (`RATE`). That is the rate of false
alarms of all the numbers together that a function is given: each of k numbers gets a k-th of it. A
test with several calls gives each its part of the rate.
"""

import numpy as np
from scipy.stats import binom, chi2, fisher_exact, norm, t

RATE = 1e-4


def normal_bound(n_numbers=1, rate=RATE):
    """What none of so many standard normal numbers exceeds in size."""
    return norm.isf(rate / (2 * n_numbers))


def student_bound(df, n_numbers=1, rate=RATE):
    """The same for means over their estimated standard errors."""
    return t.isf(rate / (2 * n_numbers), df)


def within_binomial(counts, n, p, rate=RATE):
    """Whether events of probability p can have happened so often in n trials, or so rarely."""
    counts, p = np.broadcast_arrays(counts, p)
    tail = rate / (2 * counts.size)
    low, high = binom.ppf(tail, n, p), binom.isf(tail, n, p)
    return bool(((low <= counts) & (counts <= high)).all())


def same_share(count, n, other, n_other, rate=RATE):
    """Whether one probability can be behind both counts (Fisher's exact test)."""
    return fisher_exact([[count, n - count], [other, n_other - other]]).pvalue > rate


def within_chi_squared(ratios, df, rate=RATE):
    """Whether variances of normal samples can be so many times what is expected."""
    tail = rate / (2 * np.size(ratios))
    low, high = chi2.ppf(tail, df) / df, chi2.isf(tail, df) / df
    return bool(((low <= np.asarray(ratios)) & (np.asarray(ratios) <= high)).all())


def assert_moments(sampled, mean, covariance, rate=RATE):
    """Normal samples, the columns, have this mean and covariance.

    In the basis in which they should be independent, with variance one, all means and variances are
    looked at, and the variances of all sums and differences of two, which say what covaries.
    """
    n_numbers, n_samples = sampled.shape
    root = np.linalg.cholesky(covariance)
    white = np.linalg.solve(root, sampled - np.asarray(mean)[:, None])
    largest = np.abs(white.mean(axis=1)).max() * np.sqrt(n_samples)
    assert largest < normal_bound(n_numbers, rate / 2)
    own = np.cov(white)
    one, two = np.triu_indices(n_numbers, 1)
    sums = (own[one, one] + own[two, two]) / 2.0
    ratios = np.concatenate([np.diag(own), sums + own[one, two], sums - own[one, two]])
    assert within_chi_squared(ratios, n_samples - 1, rate / 2)
