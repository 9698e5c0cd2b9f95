"""Tests and profiles with structures of one correlation, against dense algebra in other parameters.

The dense side takes the standard deviations and the correlation themselves as parameters, and n x n
matrices: Kenward and Roger's formulas as they wrote them (1997, section 2), Satterthwaite's degrees
of freedom from a Hessian by differences, a profile by optimising over the other parameters.
"""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import chi2

from mixedlearn import MixedLinearRegressor
from mixedlearn.inference import coefficient_table, confidence_intervals, variance_table
from reference.dense import Dense

NAMES = ["compound_symmetry", "heterogeneous_compound_symmetry", "ar1", "heterogeneous_ar1"]
M, Q = 9, 3


def rows():
    rng = np.random.default_rng(5)
    codes, visit = np.repeat(np.arange(M), 2 * Q), np.tile(np.repeat(np.arange(Q), 2), M)
    kept = rng.uniform(size=len(codes)) < 0.85
    codes, visit = codes[kept], visit[kept]
    root = np.linalg.cholesky(0.5 ** np.abs(np.subtract.outer(range(Q), range(Q))))
    effects = 1.3 * rng.standard_normal((M, Q)) @ root.T
    x = rng.standard_normal(len(codes))
    y = 1.0 + 0.3 * x + effects[codes, visit] + 0.8 * rng.standard_normal(len(codes))
    return x, np.eye(Q)[visit], y, codes


def fitted(name, *, reml):
    x, Z, y, codes = rows()
    model = MixedLinearRegressor(
        fixed_effects=[0],
        random_slopes=[1, 2, 3],
        random_intercept=False,
        covariance=name,
        reml=reml,
    )
    return model.fit(np.column_stack([x, Z]), y, groups=codes)


def covariance_at(name, parameters):
    """D at standard deviations and a correlation."""
    sd, r = parameters[:-1] * np.ones(Q), parameters[-1]
    is_ar1 = name.endswith("ar1")
    lags = np.abs(np.subtract.outer(range(Q), range(Q)))
    return np.outer(sd, sd) * (np.power(r, lags) if is_ar1 else (1 - r) * np.eye(Q) + r)


def parameters_of(name, covariance):
    sd = np.sqrt(np.diag(covariance))
    r = covariance[0, 1] / (sd[0] * sd[1])
    return np.append(sd if name.startswith("heterogeneous") else sd[:1], r)


def sigma_at(name, parameters):
    """Covariance of the rows; the last parameter is the noise's standard deviation."""
    _, Z, _, codes = rows()
    turned = Z @ covariance_at(name, parameters[:-1]) @ Z.T
    same = codes[:, None] == codes
    return np.where(same, turned, 0.0) + parameters[-1] ** 2 * np.eye(len(codes))


def slopes(function, at, step=1e-5):
    steps = step * np.eye(len(at))
    return [(function(at + s) - function(at - s)) / (2.0 * step) for s in steps]


def deviance(name, parameters):
    """Minus twice the restricted likelihood, the noise not profiled out, but for a constant."""
    x, _, y, _ = rows()
    X = np.column_stack([np.ones(len(x)), x])
    inverse = np.linalg.inv(sigma_at(name, parameters))
    H = X.T @ inverse @ X
    residual = y - X @ np.linalg.solve(H, X.T @ inverse @ y)
    return residual @ inverse @ residual - np.linalg.slogdet(inverse)[1] + np.linalg.slogdet(H)[1]


@pytest.mark.parametrize("name", NAMES)
def test_kenward_roger_is_that_of_the_parameters_themselves(name):
    model = fitted(name, reml=True)
    D = model.covariances_["group"].to_numpy()
    at = np.append(parameters_of(name, D), np.sqrt(model.noise_variance_))
    x, *_ = rows()
    X = np.column_stack([np.ones(len(x)), x])
    inverse = np.linalg.inv(sigma_at(name, at))
    changes = slopes(lambda own: sigma_at(name, own), at)
    Phi = np.linalg.inv(X.T @ inverse @ X)
    turned = [inverse @ own @ inverse for own in changes]
    P = [-X.T @ own @ X for own in turned]
    Qs = [[X.T @ a @ b @ inverse @ X for b in changes] for a in turned]
    information = np.array(
        [
            [
                np.trace(turned[i] @ changes[j])
                - 2.0 * np.trace(Phi @ Qs[i][j])
                + np.trace(Phi @ P[i] @ Phi @ P[j])
                for j in range(len(at))
            ]
            for i in range(len(at))
        ]
    )
    W = 2.0 * np.linalg.inv(information)
    excess = sum(
        W[i, j] * (Qs[i][j] - P[i] @ Phi @ P[j]) for i in range(len(at)) for j in range(len(at))
    )
    adjusted = Phi + 2.0 * Phi @ excess @ Phi
    table = coefficient_table(model, ddf="kenward-roger")
    np.testing.assert_allclose(table["std_error"] ** 2, np.diag(adjusted), rtol=1e-6)
    for k, row in enumerate(np.eye(2)):
        gradient = np.array([row @ Phi @ own @ Phi @ row for own in P])
        df = 2.0 * Phi[k, k] ** 2 / (gradient @ W @ gradient)
        assert table["df"].iloc[k] == pytest.approx(df, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_satterthwaite_and_errors_of_variances_are_those_of_the_parameters_themselves(name):
    model = fitted(name, reml=True)
    D = model.covariances_["group"].to_numpy()
    at = np.append(parameters_of(name, D), np.sqrt(model.noise_variance_))
    step = 1e-3

    def gradient(own):
        return np.array(slopes(lambda to: deviance(name, to), own, 1e-4))

    np.testing.assert_allclose(gradient(at), 0.0, atol=1e-4)
    hessian = np.array(slopes(gradient, at, step))
    W = 2.0 * np.linalg.inv((hessian + hessian.T) / 2.0)
    x, *_ = rows()
    X = np.column_stack([np.ones(len(x)), x])

    def coef_variances(own):
        return np.diag(np.linalg.inv(X.T @ np.linalg.inv(sigma_at(name, own)) @ X))

    changes = np.array(slopes(coef_variances, at))
    df = 2.0 * coef_variances(at) ** 2 / np.einsum("ak,ab,bk->k", changes, W, changes)
    np.testing.assert_allclose(coefficient_table(model)["df"], df, rtol=1e-4)
    by_entry = np.array(slopes(lambda own: covariance_at(name, own[:-1]), at))
    errors = np.sqrt(np.einsum("aij,ab,bij->ij", by_entry, W, by_entry))
    table = variance_table(model)
    expected = [*np.diag(errors), errors[0, 1], errors[0, 2], errors[1, 2]]
    np.testing.assert_allclose(table["std_error"].iloc[:-1], expected, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_interval_of_the_correlation_ends_where_a_dense_profile_does(name):
    model = fitted(name, reml=False)
    x, Z, y, codes = rows()
    dense = Dense(np.column_stack([np.ones(len(x)), x]), y, [Z], [codes], [M], reml=False)
    D = model.covariances_["group"].to_numpy() / model.noise_variance_
    start = np.log(parameters_of(name, D)[:-1])
    (label,) = [own for own in confidence_intervals(model).index if own.startswith("cor")]
    assert label == "cor(x1,x2,x3|group)"
    interval = confidence_intervals(model, names=[label], method="profile").loc[label]
    rise = chi2.ppf(0.95, 1)
    for end in (interval["lower"], interval["upper"]):

        def objective(logs, r=end):
            return dense.at([covariance_at(name, np.append(np.exp(logs), r))]).objective

        found = min(minimize(objective, start + shift, tol=1e-12).fun for shift in (-0.3, 0.0, 0.3))
        is_bound = np.isclose(end, -0.5 if "compound" in name else -1.0) or np.isclose(end, 1.0)
        excess = found + 2.0 * model.log_likelihood_ - rise
        assert excess < 1e-3 if is_bound else abs(excess) < 1e-3
