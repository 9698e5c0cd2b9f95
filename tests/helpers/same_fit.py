"""Whether two fits are the same but for rounding error, with levels in any order."""

from numpy.testing import assert_allclose

CLOSE = 1e-6


def by_label(table):
    return {label: row.to_numpy() for label, row in table.iterrows()}


def assert_same_fit(streamed, whole):
    assert_allclose(streamed.log_likelihood_, whole.log_likelihood_, rtol=1e-9, atol=1e-7)
    assert_allclose(streamed.intercept_, whole.intercept_, rtol=CLOSE, atol=CLOSE)
    assert_allclose(streamed.coef_, whole.coef_, rtol=CLOSE, atol=CLOSE)
    assert_allclose(streamed.coef_covariance_, whole.coef_covariance_, rtol=1e-5, atol=CLOSE)
    assert_allclose(streamed.noise_variance_, whole.noise_variance_, rtol=CLOSE)
    assert streamed.n_groups_ == whole.n_groups_
    assert streamed.formula_ == whole.formula_
    assert streamed.converged_ == whole.converged_
    for name, covariance in whole.covariances_.items():
        assert_allclose(streamed.covariances_[name], covariance, rtol=1e-4, atol=1e-5)
        ours = by_label(streamed.random_effects_[name])
        theirs = by_label(whole.random_effects_[name])
        assert ours.keys() == theirs.keys()
        for label, effects in theirs.items():
            assert_allclose(ours[label], effects, rtol=1e-4, atol=1e-5)
