"""A structure that the package does not have: written here, registered here, and used throughout.

Effects at equally spaced occasions whose neighbours are correlated, and no others: a Toeplitz
matrix of two bands, ``D = s^2 (I + r B)``, B with ones beside the diagonal. Its eigenvalues are
``s^2 (1 + 2 r cos(pi k / (q + 1)))``, its eigenvectors V those of B, so that

    Lambda = s V diag(1 + b sin(t) c_k)^(1/2),    c_k = cos(pi k / (q + 1)) / cos(pi / (q + 1))

with ``r = b sin(t) / (2 cos(pi / (q + 1)))``. For b just below one it stays away from its ends,
where the root would have a corner.
"""

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize

from mixedlearn import MixedLinearRegressor
from mixedlearn.covariance.structures import REGISTRY, Correlation, Structure
from mixedlearn.inference import (
    anova,
    coefficient_table,
    confidence_intervals,
    likelihood_ratio_test,
    parametric_bootstrap,
    profile_likelihood,
    variance_table,
)
from reference.dense import Dense


class Neighbours(Structure):
    name = "neighbours"
    least_effects = 2
    n_parameters = 2

    def __init__(self, n_effects):
        super().__init__(n_effects)
        self.beside = np.eye(n_effects, k=1) + np.eye(n_effects, k=-1)
        values, self.vectors = np.linalg.eigh(self.beside)
        self.shares = 0.999 * values / values[-1]
        self.most = 0.999 / values[-1]

    mask = property(lambda self: np.eye(self.n_effects) + self.beside > 0.0)
    deviations = property(lambda self: (tuple(range(self.n_effects)),))

    @property
    def correlations(self):
        every = tuple(range(self.n_effects))
        pairs = tuple(pairwise(every))
        return (Correlation(pairs, every, -self.most, self.most, (frozenset(every),)),)

    def sizes(self, theta):
        s, t, c = theta[..., :1], theta[..., 1:], self.shares
        root = np.sqrt(1.0 + c * np.sin(t))
        slope = c * np.cos(t) / (2.0 * root)
        bend = -(c * np.sin(t) / 2.0 + slope**2) / root
        return np.stack([s * root, root, s * slope, 0.0 * root, slope, s * bend])

    def root(self, theta):
        return self.vectors * self.sizes(theta)[0][..., None, :]

    def directions(self, theta):
        return self.vectors * self.sizes(theta)[1:3, None]

    def curvature(self, theta):
        return self.vectors * self.sizes(theta)[[[3, 4], [4, 5]], None]

    def theta_of(self, covariance):
        variance = max(np.diag(covariance).mean(), 0.0)
        r = np.diag(covariance, 1).mean() / max(variance, 1e-300)
        return np.array([np.sqrt(variance), np.arcsin(np.clip(r / self.most, -1.0, 1.0))])

    def trials(self):
        return [np.eye(self.n_effects) + r * self.most * self.beside for r in (0.0, -0.7, 0.7)]


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(REGISTRY, Neighbours.name, Neighbours)


def rows(seed=3, m=30, q=4, n_each=2):
    rng = np.random.default_rng(seed)
    codes, visit = np.repeat(np.arange(m), q * n_each), np.tile(np.repeat(np.arange(q), n_each), m)
    covariance = np.eye(q) + 0.5 * (np.eye(q, k=1) + np.eye(q, k=-1))
    effects = rng.standard_normal((m, q)) @ np.linalg.cholesky(covariance).T
    x = rng.standard_normal(len(codes))
    y = 1.0 + 0.3 * x + effects[codes, visit] + 0.7 * rng.standard_normal(len(codes))
    return np.column_stack([x, np.eye(q)[visit]]), y, codes


def fitted(covariance="neighbours", m=30, **parameters):
    X, y, codes = rows(m=m)
    model = MixedLinearRegressor(
        fixed_effects=[0],
        random_slopes=[1, 2, 3, 4],
        random_intercept=False,
        covariance=covariance,
        **parameters,
    )
    return model.fit(X, y, groups=codes)


@pytest.mark.parametrize("reml", [True, False])
def test_it_fits_as_dense_algebra_does(reml):
    model = fitted(reml=reml, m=10)
    X, y, codes = rows(m=10)
    fixed = np.column_stack([np.ones(len(y)), X[:, 0]])
    dense = Dense(fixed, y, [X[:, 1:]], [codes], [10], reml=reml)
    beside = np.eye(4, k=1) + np.eye(4, k=-1)

    def objective(parameters):
        variance, r = np.exp(parameters[0]), 0.617 * np.tanh(parameters[1])
        return dense.at([variance * (np.eye(4) + r * beside)]).objective

    found = min(minimize(objective, [0.0, r], tol=1e-12).fun for r in (-1.0, 0.0, 1.0))
    assert model.converged_
    assert -2.0 * model.log_likelihood_ == pytest.approx(found, abs=1e-6)


def test_it_prints():
    model = fitted()
    assert model.formula_ == "x0 + (0 + x1 + x2 + x3 + x4 | group; neighbours)"
    text = repr(model.summary())
    assert "group x1" in text
    assert "neighbours" in text
    table = variance_table(model)
    assert len(table) == 4 + 3 + 1
    assert table["std_error"].notna().all()


def test_it_profiles():
    model = fitted(reml=False)
    names = ["sd(x1,...,x4|group)", "cor(x1,...,x4|group)"]
    wald = confidence_intervals(model, names=names)
    profile = confidence_intervals(model, names=names, method="profile")
    assert (profile["lower"] < profile["estimate"]).all()
    assert (profile["estimate"] < profile["upper"]).all()
    np.testing.assert_allclose(profile, wald, atol=0.1)
    curve = profile_likelihood(model, names[1])
    assert np.ptp(curve.table["deviance"]) > 1.0


def test_it_gets_p_values():
    model = fitted()
    tables = [coefficient_table(model, ddf=ddf) for ddf in ("satterthwaite", "kenward-roger")]
    for table in tables:
        assert (table["p_value"].between(0.0, 1.0)).all()
        assert (table["df"] > 20.0).all()
    np.testing.assert_allclose(tables[0]["df"], tables[1]["df"], rtol=0.1)
    assert anova(model).loc["x0", "p_value"] < 1e-4


def test_models_nest():
    scalar, own, full = (fitted(name, reml=False) for name in ("scalar", "neighbours", "full"))
    assert likelihood_ratio_test(scalar, own).df == 1
    assert likelihood_ratio_test(own, full).df == 8
    with pytest.raises(ValueError, match="not nested"):
        likelihood_ratio_test(own, fitted("ar1", reml=False))


def test_it_is_refitted_to_its_own_responses():
    X, _, codes = rows()
    found = parametric_bootstrap(fitted(), X, groups=codes, n_resamples=5, random_state=0)
    assert found.confidence_interval(0.5).loc["cor(x1,...,x4|group)"].notna().all()


def test_other_names_are_refused_with_those_there_are():
    X, y, codes = rows()
    with pytest.raises(ValueError, match=r"'neighbours'.*Did you mean 'neighbours'\?"):
        MixedLinearRegressor(covariance={"group": "neighbors"}).fit(X, y, groups=codes)
