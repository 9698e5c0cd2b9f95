"""Predictions with several factors and their standard deviations: exact, and calibrated.

Tolerance: at the estimated covariances every number is determined; double precision from the rows
and the cross-products agree to ten digits or so, and 1e-8 leaves room for the covariates' offsets.
"""

import functools
import math

import numpy as np
import pandas as pd
import pytest

from helpers.chance import student_bound
from mixedlearn import MixedLinearRegressor
from mixedlearn.engines.elimination.engine import SeveralFactorsEngine
from mixedlearn.engines.joint import JointEngine
from reference.dense import Dense

CLOSE = {"rtol": 1e-8, "atol": 1e-8}
ENGINES = {"joint": JointEngine, "elimination": SeveralFactorsEngine}
NAMES = ("x0", "x1", "x2")
CHAIN_MASK = [[True, True, False], [True, True, True], [False, True, True]]

MODELS = {
    "crossed": {"groups": ["a", "b"]},
    "crossed, slopes": {
        "groups": ["a", "b"],
        "random_slopes": {"a": ["x0"], "b": ["x1", "x0"]},
        "covariance": {"b": CHAIN_MASK},
    },
    "crossed, scalar": {"groups": ["b", "a"], "random_slopes": ["x2"], "covariance": "scalar"},
    "nested": {"groups": ["inner", "outer"], "random_slopes": {"outer": ["x0"]}},
    "nested, slopes": {
        "groups": ["outer", "inner"],
        "random_slopes": {"outer": ["x0"], "inner": ["x1"]},
        "covariance": {"inner": "diagonal"},
    },
    "chain of three": {"groups": ["inner", "outer", "top"], "fit_intercept": False},
    "chain and crossed": {
        "groups": ["b", "inner", "outer", "few"],
        "random_slopes": {"outer": ["x1"], "b": ["x0"]},
        "random_intercept": {"few": True},
    },
    "slopes alone": {
        "groups": ["a", "inner", "outer"],
        "random_intercept": {"a": False, "inner": False},
        "random_slopes": {"a": ["x0"], "inner": ["x1"]},
        "fixed_effects": ["x2"],
    },
}


@functools.cache
def training():
    rng = np.random.default_rng(5)
    n = 140
    inner = rng.integers(0, 18, n)
    frame = pd.DataFrame(rng.standard_normal((n, 3)) + np.array([0.0, 4.0, -2.0]), columns=NAMES)
    frame["a"] = rng.integers(0, 14, n)
    frame["b"] = rng.integers(0, 7, n)
    frame["inner"] = inner
    frame["outer"] = inner // 3
    frame["top"] = inner // 9
    frame["few"] = rng.integers(0, 3, n)
    # Some pairs of levels do not occur together.
    frame.loc[(frame["a"] % 3 == 0) & (frame["b"] < 3), "b"] = 5
    y = 3.0 + frame[list(NAMES)].to_numpy() @ [1.0, -1.0, 0.5] + rng.standard_normal(n)
    for name in ("a", "b", "inner", "outer", "top", "few"):
        effects = rng.standard_normal((frame[name].max() + 1, 4))[frame[name]]
        columns = frame[list(NAMES)].to_numpy() - [0.0, 4.0, -2.0]
        y += 1.5 * effects[:, 0] + (effects[:, 1:] * columns).sum(axis=1)
    return frame, np.asarray(y), rng.uniform(0.3, 3.0, n)


@functools.cache
def new_rows(n=120):
    """Known and unknown levels in any combination, whether or not they occurred together."""
    rng = np.random.default_rng(6)
    frame = pd.DataFrame(2.0 * rng.standard_normal((n, 3)), columns=NAMES)
    for name in ("a", "b", "inner", "outer", "top", "few"):
        m = training()[0][name].max() + 1
        frame[name] = rng.integers(-m // 2, m, n)  # below zero: not in the data
    frame.loc[0, ["a", "b"]] = 3, 0  # never together
    frame.loc[1, ["inner", "outer", "top"]] = 0, 5, 1  # an inner level elsewhere than in training
    frame.loc[2, ["inner", "outer", "top"]] = -1, 2, 0
    frame.loc[3, ["inner", "outer", "top"]] = 4, -1, 0
    frame.loc[4:5, "a":] = [[-1] * 6, [0] * 6]
    return frame


class Fit:
    """A fitted model and the same by dense matrices at its covariances."""

    def __init__(self, name, engine, *, weighted=True, reml=True, y=None):
        X, response, weights = training()
        weights = weights if weighted else None
        self.parameters = {"fixed_effects": list(NAMES)} | MODELS[name]
        self.y = response if y is None else y
        self.model = MixedLinearRegressor(reml=reml, **self.parameters)
        self.model.fit(X, self.y, sample_weight=weights)
        made = self.model._fitted.model.problem()
        assert type(made.engine) is ENGINES[engine]
        self.names = self.parameters["groups"]
        n_levels = [X[factor].max() + 1 for factor in self.names]
        codes = [X[factor].to_numpy() for factor in self.names]
        dense = Dense(self.fixed(X), self.y, self.random(X), codes, n_levels, weights, reml)
        self.relative = [
            self.model.covariances_[factor].to_numpy() / self.model.noise_variance_
            for factor in self.names
        ]
        self.exact = dense.at(self.relative)

    def fixed(self, X):
        columns = X[self.parameters["fixed_effects"]].to_numpy()
        if self.parameters.get("fit_intercept", True):
            columns = np.column_stack([np.ones(len(X)), columns])
        return columns

    def random(self, X):
        found = []
        for factor in self.names:
            slopes = self.parameters.get("random_slopes", {})
            slopes = slopes.get(factor, []) if isinstance(slopes, dict) else slopes
            columns = X[slopes].to_numpy()
            if self.parameters.get("random_intercept", {}).get(factor, True):
                columns = np.column_stack([np.ones(len(X)), columns])
            found.append(columns)
        return found

    def expected(self, X, wanted=None):
        """Means and standard deviations of new observations."""
        codes = [
            np.maximum(X[factor].to_numpy(), -1)
            if wanted is None or factor in wanted
            else np.full(len(X), -1)
            for factor in self.names
        ]
        mean, variance = self.exact.predict(self.fixed(X), self.random(X), codes)
        return mean, np.sqrt(variance)


@pytest.mark.slow_cases("elimination-chain and crossed", every=3)
@pytest.mark.parametrize(("weighted", "reml"), [(True, True), (False, False)])
@pytest.mark.parametrize("name", MODELS)
def test_against_dense_matrices(name, weighted, reml, engine):
    fit = Fit(name, engine, weighted=weighted, reml=reml)
    model, exact = fit.model, fit.exact
    assert not all(not covariance.any() for covariance in fit.relative)
    assert -2.0 * model.log_likelihood_ == pytest.approx(exact.objective, abs=1e-8)
    assert model.noise_variance_ == pytest.approx(exact.s2, rel=1e-8)
    coef = np.append([model.intercept_] if model.fit_intercept else [], model.coef_)
    np.testing.assert_allclose(coef, exact.coef, **CLOSE)
    np.testing.assert_allclose(model.coef_covariance_, exact.s2 * exact.coef_covariance, **CLOSE)
    conditional = exact.s2 * exact.effects_covariance()
    start = 0
    for k, (factor, (q, m)) in enumerate(zip(fit.names, exact.rows.shapes, strict=True)):
        np.testing.assert_allclose(model.random_effects_[factor], exact.blups[k].T, **CLOSE)
        own = conditional[start : start + q * m, start : start + q * m].reshape(q, m, q, m)
        found = model.random_effects_covariances_[factor]
        np.testing.assert_allclose(found, np.einsum("aibi->iab", own), **CLOSE)
        start += q * m
    at = new_rows()
    mean, std = model.predict(at, return_std=True)
    expected = fit.expected(at)
    np.testing.assert_allclose(mean, expected[0], **CLOSE)
    np.testing.assert_allclose(std, expected[1], **CLOSE)
    np.testing.assert_array_equal(model.predict(at), mean)
    for wanted in ([], fit.names[:1], fit.names[1:]):
        found = model.predict(at, random_effects=wanted, return_std=True)
        np.testing.assert_allclose(found, fit.expected(at, wanted), **CLOSE)


def test_the_new_rows_are_of_every_kind():
    at, X = new_rows(), training()[0]
    for first, second in (("a", "b"), ("inner", "outer")):
        known = np.column_stack([at[first] >= 0, at[second] >= 0])
        assert len(np.unique(known, axis=0)) == 4
        together = set(zip(X[first], X[second], strict=True))
        pairs = set(zip(at[first], at[second], strict=True))
        both = {pair for pair in pairs if min(pair) >= 0}
        assert both - together
        assert both & together


@pytest.mark.slow_cases("elimination-chain and crossed")
@pytest.mark.parametrize("name", ["crossed, slopes", "chain and crossed"])
def test_the_standard_deviation_needs_the_covariance_between_factors(name, engine):
    """Adding up factors as if they were independent would be off by far more than rounding."""
    fit = Fit(name, engine)
    at = training()[0]
    codes = [at[factor].to_numpy() for factor in fit.names]
    made = fit.model._fitted.model.problem()
    posterior = made.engine.posterior(fit.model._fitted.model.roots)
    columns = [z @ basis.to_user for z, basis in zip(fit.random(at), made.randoms, strict=True)]
    together = posterior.variance(columns, codes)
    nowhere = np.full(len(at), -1)
    alone = [
        posterior.variance(columns, [c if j == k else nowhere for j, c in enumerate(codes)])
        for k in range(len(codes))
    ]
    assert (np.abs(together - np.sum(alone, axis=0)) > 0.01 * together).mean() > 0.9
    assert (together >= 0.0).all()


# --- variances of zero ---------------------------------------------------------------------------
@pytest.mark.parametrize("gone", ["a", "b"])
def test_of_a_variance_of_zero(gone, engine):
    X, y, _ = training()
    other = {"a": "b", "b": "a"}[gone]
    noise = np.random.default_rng(2).standard_normal(len(y))
    noise -= 0.9 * (np.bincount(X[gone], noise) / np.bincount(X[gone]))[X[gone]]
    fit = Fit("crossed", engine, y=noise + 2.0 * np.cos(3.0 * X[other].to_numpy()))
    assert fit.model.covariances_[gone].to_numpy()[0, 0] < 1e-12
    assert fit.model.covariances_[other].to_numpy()[0, 0] > 0.5
    assert fit.model.is_singular_
    found = fit.model.predict(new_rows(), return_std=True)
    np.testing.assert_allclose(found, fit.expected(new_rows()), **CLOSE)
    assert np.abs(fit.model.random_effects_covariances_[gone]).max() < 1e-12


@pytest.mark.parametrize("scale", [1e-6, 1e3])
def test_of_variances_large_and_small_beside_the_noise(scale, engine):
    """All but the noise, or nothing but it."""
    X, y, _ = training()
    rng = np.random.default_rng(3)
    effects = np.zeros(len(y))
    for name in ("a", "b"):
        effects += rng.standard_normal(X[name].max() + 1)[X[name]]
    fit = Fit("crossed", engine, y=scale * effects + rng.standard_normal(len(y)))
    found = fit.model.predict(new_rows(), return_std=True)
    # A variance of 1e6 beside the noise loses digits in V.
    np.testing.assert_allclose(found, fit.expected(new_rows()), rtol=1e-6, atol=1e-6)


# --- many rows -----------------------------------------------------------------------------------
@pytest.mark.slow_cases("elimination-chain and crossed")
@pytest.mark.parametrize("name", ["crossed, slopes", "chain and crossed"])
def test_many_rows_are_as_one_by_one(name, engine):
    """Rows are sorted and cut into chunks on the way: none is mixed up."""
    fit = Fit(name, engine)
    n = 40_000
    rng = np.random.default_rng(1)
    at = pd.DataFrame(rng.standard_normal((n, 3)), columns=NAMES)
    for factor in ("a", "b", "inner", "outer", "top", "few"):
        m = training()[0][factor].max() + 1
        at[factor] = rng.integers(-2, m, n)
    mean, std = fit.model.predict(at, return_std=True)
    for row in [0, 1, 32_767, 32_768, n - 1, *rng.integers(0, n, 40).tolist()]:
        found = fit.model.predict(at.iloc[[row]], return_std=True)
        np.testing.assert_allclose(found, [[mean[row]], [std[row]]], rtol=1e-12)
    sample = rng.integers(0, n, 500)
    expected = fit.expected(at.iloc[sample])
    np.testing.assert_allclose([mean[sample], std[sample]], expected, **CLOSE)


# --- calibration ---------------------------------------------------------------------------------
N_DATA_SETS = 150
N_NEW = 400


def standardised_errors(nested, seed):
    """Mean square of the standardised errors of new rows: (data sets, kinds of rows).

    Kinds: known and unknown levels of the first factor, by those of the second. There are so many
    levels of every factor that the variances are all but known.
    """
    rng = np.random.default_rng(seed)
    m, k, groups = 70, 60, 35
    names = ["a", "b", "outer"] if nested else ["a", "b"]
    n = 900
    codes = {"a": rng.integers(0, m, n), "b": rng.integers(0, k, n)}
    squares = np.empty((N_DATA_SETS, 4))
    for replicate in range(N_DATA_SETS):
        effects = {"a": 1.2 * rng.standard_normal(2 * m), "b": 0.9 * rng.standard_normal(2 * k)}
        slopes = 0.7 * rng.standard_normal(2 * k)
        outer = 0.8 * rng.standard_normal(2 * groups) * nested

        def draw(a, b, effects=effects, slopes=slopes, outer=outer):
            x = 1.0 + rng.standard_normal(len(a))
            y = 2.0 + 0.7 * x + effects["a"][a] + effects["b"][b] + slopes[b] * x + outer[a // 2]
            frame = pd.DataFrame({"x": x, "a": a, "b": b, "outer": a // 2})
            return frame, y + rng.standard_normal(len(a))

        X, y = draw(codes["a"], codes["b"])
        model = MixedLinearRegressor(
            groups=names,
            fixed_effects=["x"],
            random_slopes={"b": ["x"]},
            covariance="diagonal",
        ).fit(X, y)
        at, new = draw(rng.integers(0, 2 * m, N_NEW), rng.integers(0, 2 * k, N_NEW))
        mean, std = model.predict(at, return_std=True)
        kind = 2 * (~at["a"].isin(codes["a"])).to_numpy() + ~at["b"].isin(codes["b"]).to_numpy()
        error = np.square((new - mean) / std)
        squares[replicate] = np.bincount(kind, error, 4) / np.bincount(kind, minlength=4)
    return squares


@pytest.mark.slow
@pytest.mark.parametrize("nested", [False, True], ids=["crossed", "nested and crossed"])
def test_standardised_errors_have_variance_one(nested):
    """For known x known, known x unknown, unknown x known and unknown x unknown levels.

    The variances are estimated, with relative errors near 0.2 for those between levels; the
    expected square of the standardised error exceeds one by a share of their relative variance,
    1 to 3 percent: that, and what chance does to the means of independent data sets, a false alarm
    in at most one of 10,000 seeds.
    """
    squares = standardised_errors(nested, seed=99)
    error = squares.std(axis=0, ddof=1) / math.sqrt(N_DATA_SETS)
    assert (error < 0.025).all(), error
    mean = squares.mean(axis=0)
    # The noise alone, or the whole variance everywhere, would be far off.
    bound = 0.03 + student_bound(N_DATA_SETS - 1, 4) * error
    assert (bound < 0.15).all()
    assert (np.abs(mean - 1.0) < bound).all(), (mean, error)
