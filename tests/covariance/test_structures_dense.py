"""Fits with structures of one correlation against dense likelihoods, from many starts.

The models are drawn with true covariances of every kind: with correlations of both signs, at the
ends of the structure, without any variance, and of another structure altogether. The dense side
shares nothing with the package: V is n x n, and the parameters are others. Each model is fitted
densely from starts that cover the correlations and several sizes, so its lowest end is the optimum
but for bad luck; a fit may be lower, and never higher by more than 1e-6.
"""

import numpy as np
import pytest
from scipy.optimize import minimize

from mixedlearn import MixedLinearRegressor
from reference.dense import Dense

WORSE = 1e-6
N_MODELS = 100
N_QUICK = 12
NAMES = [
    "compound_symmetry",
    "heterogeneous_compound_symmetry",
    "ar1",
    "heterogeneous_ar1",
]


def correlation_matrix(name, q, r):
    if name.endswith("ar1"):
        return np.power(r, np.abs(np.subtract.outer(range(q), range(q))))
    return (1.0 - r) * np.eye(q) + r


def lowest_correlation(name, q):
    return -1.0 if name.endswith("ar1") else -1.0 / (q - 1)


def covariance_at(name, q, parameters):
    """D at standard deviations that are squares, and a correlation from the sine of the last."""
    low = lowest_correlation(name, q)
    r = low + (1.0 - low) * (1.0 + np.sin(parameters[-1])) / 2.0
    sd = np.square(parameters[:-1]) * np.ones(q)
    return np.outer(sd, sd) * correlation_matrix(name, q, r)


class Model:
    """Rows of a model with one factor, drawn by its number."""

    def __init__(self, seed):
        rng = np.random.default_rng([seed, 7])
        self.name = NAMES[seed % 4]
        self.q = q = int(rng.integers(2, 6))
        self.m = m = int(rng.integers(4, 13))
        sizes = rng.integers(2, 2 * q + 2, m)
        self.codes = np.repeat(np.arange(m), sizes)
        n = len(self.codes)
        if rng.uniform() < 0.6:  # occasions
            self.Z = np.eye(q)[rng.integers(0, q, n)]
        else:
            self.Z = np.column_stack([np.ones(n), rng.standard_normal((n, q - 1))])
        self.x = rng.standard_normal(n)
        self.reml = bool(rng.uniform() < 0.5)
        self.y = 1.0 + 0.5 * self.x + rng.standard_normal(n)
        self.y += (self.Z * (rng.standard_normal((m, q)) @ self._true_root(rng).T)[self.codes]).sum(
            1
        )

    def _true_root(self, rng):
        q, kind = self.q, rng.integers(0, 6)
        low = lowest_correlation(self.name, q)
        r = (rng.uniform(low, 1.0), 1.0, low, 0.0, rng.uniform(low, 1.0), 0.5)[kind]
        sd = 10.0 ** rng.uniform(-1.0, 0.7) * rng.uniform(0.3, 1.5, q)
        if kind == 3:
            sd[:] = 0.0
        if kind == 4:
            sd[rng.integers(0, q)] = 0.0
        if kind == 5:
            return np.diag(sd) @ rng.standard_normal((q, q))
        values, vectors = np.linalg.eigh(correlation_matrix(self.name, q, r))
        return sd[:, None] * vectors * np.sqrt(np.maximum(values, 0.0))

    def fit(self):
        columns = np.column_stack([self.x, self.Z])
        estimator = MixedLinearRegressor(
            fixed_effects=[0],
            random_slopes=list(range(1, self.q + 1)),
            random_intercept=False,
            covariance=self.name,
            reml=self.reml,
        )
        return estimator.fit(columns, self.y, groups=self.codes)

    def dense(self):
        X = np.column_stack([np.ones(len(self.x)), self.x])
        return Dense(X, self.y, [self.Z], [self.codes], [self.m], reml=self.reml)

    def dense_optimum(self):
        rows, q = self.dense(), self.q
        n_deviations = q if self.name.startswith("heterogeneous") else 1

        def function(parameters):
            covariance = covariance_at(self.name, q, parameters)
            try:
                solution = rows.at([covariance])
            except np.linalg.LinAlgError:
                # A step so long that V is singular to rounding: no lower place.
                return 1e10, np.zeros(len(parameters))
            slopes = [
                covariance_at(self.name, q, parameters + step)
                - covariance_at(self.name, q, parameters - step)
                for step in 1e-6 * np.eye(len(parameters))
            ]
            (gradient,) = solution.gradients()
            return solution.objective, np.einsum("aij,ij->a", slopes, gradient) / 2e-6

        found = []
        for angle in (-1.2, -0.4, 0.4, 1.2):
            for size in (0.3, 1.2):
                start = np.append(np.full(n_deviations, size), angle)
                end = minimize(function, start, jac=True, method="L-BFGS-B")
                found.append(end.fun)
        return min(found)


@pytest.mark.filterwarnings("ignore::mixedlearn.exceptions.DegenerateModelWarning")
@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= N_QUICK)) for seed in range(N_MODELS)],
)
def test_no_dense_start_finds_a_lower_objective(seed):
    model = Model(seed)
    estimator = model.fit()
    relative = estimator.covariances_["group"].to_numpy() / estimator.noise_variance_
    own = model.dense().at([relative])
    assert -2.0 * estimator.log_likelihood_ == pytest.approx(own.objective, abs=1e-7)
    assert estimator.converged_
    assert own.objective <= model.dense_optimum() + WORSE
