"""Predictions and their standard deviations: against brute force, and by their coverage.

Tolerance: at the estimated covariance every number is determined; the rows in extended precision
and the cross-products agree to ten digits or so, and 1e-8 leaves room for the covariates' offsets.
"""

import math

import numpy as np
import pytest

from helpers.chance import student_bound
from mixedlearn import MixedLinearRegressor
from reference.brute_force import solve

CLOSE = {"rtol": 1e-8, "atol": 1e-8}

MODELS = {
    "intercept": {},
    "slope": {"random_slopes": [0]},
    "two slopes": {"random_slopes": [1, 0]},
    "uncorrelated": {"random_slopes": [0, 1], "covariance": "diagonal"},
    "one variance": {"random_slopes": [0], "covariance": "scalar"},
    "mask": {
        "random_slopes": [0, 1],
        "covariance": [[True, False, True], [False, True, True], [True, True, True]],
    },
    "no random intercept": {"random_slopes": [0], "random_intercept": False},
    "no fixed intercept": {"random_slopes": [0], "fit_intercept": False},
    "neither intercept": {
        "random_slopes": [1],
        "random_intercept": False,
        "fit_intercept": False,
    },
    "slope without fixed effect": {"random_slopes": [0], "fixed_effects": [1, 2]},
    "no fixed slopes": {"random_slopes": [2], "fixed_effects": []},
    "fixed effects in another order": {"random_slopes": [2, 0], "fixed_effects": [2, 0, 1]},
}


class Rows:
    """Unbalanced data, a model fitted to them, and the same by brute force at its covariance."""

    def __init__(self, parameters, *, weighted, reml, zero=False):
        rng = np.random.default_rng(12)
        m = 12
        self.codes = rng.permutation(np.repeat(np.arange(m), rng.integers(1, 9, m)))
        n = len(self.codes)
        centre = np.array([0.0, 4.0, -2.0])
        self.X = centre + rng.standard_normal((n, 3))
        effects = rng.standard_normal((m, 4)) * (0.0 if zero else [2.0, 3.0, 2.0, 2.0])
        self.y = 3.0 + self.X @ [1.0, -1.0, 0.5] + effects[self.codes, 0]
        self.y += (effects[self.codes, 1:] * (self.X - centre)).sum(axis=1)
        self.y += rng.standard_normal(n)
        if zero:  # the levels' means vary less than noise would make them
            self.y -= 0.9 * (np.bincount(self.codes, self.y) / np.bincount(self.codes))[self.codes]
        self.weights = rng.uniform(0.3, 3.0, n) if weighted else None
        self.parameters = parameters
        self.model = MixedLinearRegressor(reml=reml, **parameters)
        self.model.fit(self.X, self.y, groups=self.codes, sample_weight=self.weights)
        relative = self.model.covariances_["group"].to_numpy() / self.model.noise_variance_
        self.exact = solve(
            relative,
            self.fixed(self.X),
            self.y,
            self.random(self.X),
            self.codes,
            self.weights,
            reml,
        )
        self.at = 2.0 * rng.standard_normal((40, 3))
        self.levels = rng.integers(-3, m, 40)  # below zero: not in the data
        self.levels[:2] = -1, 0

    def _columns(self, X, intercept, columns):
        return np.column_stack([np.ones((len(X), int(intercept))), X[:, columns]])

    def fixed(self, X):
        intercept = self.parameters.get("fit_intercept", True)
        return self._columns(X, intercept, self.parameters.get("fixed_effects", [0, 1, 2]))

    def random(self, X):
        intercept = self.parameters.get("random_intercept", True)
        return self._columns(X, intercept, self.parameters.get("random_slopes", []))

    def expected(self, levels):
        """Means and standard deviations of the new rows."""
        found = [
            self.exact.predict(x, z, None if level < 0 else int(level))
            for x, z, level in zip(self.fixed(self.at), self.random(self.at), levels, strict=True)
        ]
        means, variances = np.transpose(found)
        return means, np.sqrt(variances)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_against_brute_force(name, weighted, reml):
    rows = Rows(MODELS[name], weighted=weighted, reml=reml)
    model, exact = rows.model, rows.exact
    assert model.noise_variance_ == pytest.approx(exact.s2, rel=1e-8)
    coef = np.append([model.intercept_] if model.fit_intercept else [], model.coef_)
    np.testing.assert_allclose(coef, exact.beta, **CLOSE)
    np.testing.assert_allclose(model.coef_covariance_, exact.beta_covariance, **CLOSE)
    np.testing.assert_allclose(model.random_effects_["group"], exact.blups, **CLOSE)
    found = model.random_effects_covariances_["group"]
    np.testing.assert_allclose(found, exact.conditional_covariances, **CLOSE)

    mean, std = model.predict(rows.at, groups=rows.levels, return_std=True)
    expected = rows.expected(rows.levels)
    np.testing.assert_allclose(mean, expected[0], **CLOSE)
    np.testing.assert_allclose(std, expected[1], **CLOSE)
    np.testing.assert_array_equal(model.predict(rows.at, groups=rows.levels), mean)

    # Without random effects every level is a new one: its whole variance counts.
    unknown = rows.expected(np.full(40, -1))
    mean, std = model.predict(rows.at, groups=rows.levels, random_effects="none", return_std=True)
    np.testing.assert_allclose(mean, unknown[0], **CLOSE)
    np.testing.assert_allclose(std, unknown[1], **CLOSE)


@pytest.mark.parametrize("name", ["slope", "no random intercept"])
def test_which_random_effects_are_added(name):
    rows = Rows(MODELS[name], weighted=True, reml=True)

    def predict(**options):
        return rows.model.predict(rows.at, groups=rows.levels, return_std=True, **options)

    default, none = predict(), predict(random_effects="none")
    known = rows.levels >= 0
    assert (np.abs(default[0] - none[0])[known] > 1e-6).all()
    assert (default[1] != none[1])[known].all()
    assert default[1][known].mean() < none[1][known].mean()  # a level's own rows say something
    np.testing.assert_array_equal(default[0][~known], none[0][~known])
    for same in ("all", ["group"], ("group",), "group"):
        np.testing.assert_array_equal(predict(random_effects=same), default)
    np.testing.assert_array_equal(predict(random_effects=[]), none)
    # Without labels the population's prediction is the same, and asked for: no warning.
    population = rows.model.predict(rows.at, random_effects="none", return_std=True)
    np.testing.assert_array_equal(population, none)


@pytest.mark.parametrize("slopes", [[], [0]])
def test_of_a_variance_of_zero(slopes):
    rows = Rows({"random_slopes": slopes}, weighted=False, reml=True, zero=True)
    assert rows.model.is_singular_
    mean, std = rows.model.predict(rows.at, groups=rows.levels, return_std=True)
    expected = rows.expected(rows.levels)
    np.testing.assert_allclose(mean, expected[0], **CLOSE)
    np.testing.assert_allclose(std, expected[1], **CLOSE)


def test_many_rows_are_as_one_by_one():
    """Standard deviations are computed in chunks: rows around the seams are not mixed up."""
    rows = Rows(MODELS["slope"], weighted=False, reml=True)
    n = 70_001
    at, levels = np.resize(rows.at, (n, 3)), np.resize(rows.levels, n)
    found = rows.model.predict(at, groups=levels, return_std=True)
    few = rows.model.predict(rows.at, groups=rows.levels, return_std=True)
    for many, once in zip(found, few, strict=True):
        np.testing.assert_allclose(many, np.resize(once, n), rtol=1e-12)


@pytest.mark.parametrize("name", ["slope", "two slopes", "uncorrelated"])
def test_predictions_of_the_training_rows_are_fixed_effects_plus_blups(name):
    rows = Rows(MODELS[name], weighted=True, reml=False)
    blups = rows.model.random_effects_["group"].to_numpy()[rows.codes]
    expected = rows.model.intercept_ + rows.X @ rows.model.coef_
    expected = expected + (blups * rows.random(rows.X)).sum(axis=1)
    np.testing.assert_allclose(rows.model.predict(rows.X, groups=rows.codes), expected, **CLOSE)


# --- calibration ---------------------------------------------------------------------------------
N_DATA_SETS = 1000
N_NEW = 12  # new observations of each level
SIZES = np.repeat([2, 40], 30)
# The variances are estimated from 60 levels, which takes at most so much from the coverage.
TAKEN = 0.005
NORMAL_95 = 1.959963984540054


def shares_covered(random_slopes, seed):
    """Share of new observations inside their 95% interval, by data set: (data sets, 3 kinds).

    Kinds: known levels with two rows, known levels with forty, new levels.
    """
    rng = np.random.default_rng(seed)
    m = len(SIZES)
    codes = np.repeat(np.arange(m), SIZES)
    levels = np.repeat(np.arange(2 * m), N_NEW)  # the upper half is new
    kinds = np.repeat([0, 1, 2], [30 * N_NEW, 30 * N_NEW, m * N_NEW])
    shares = np.empty((N_DATA_SETS, 3))
    for replicate in range(N_DATA_SETS):
        effects = rng.standard_normal((2 * m, 2)) @ [[1.2, 0.4], [0.0, 0.8 * bool(random_slopes)]]
        effects[:, 1] *= bool(random_slopes)

        def draw(levels, effects=effects):
            x = 1.0 + rng.standard_normal(len(levels))
            y = 2.0 + 0.7 * x + effects[levels, 0] + effects[levels, 1] * x
            return x[:, None], y + rng.standard_normal(len(levels))

        model = MixedLinearRegressor(random_slopes=random_slopes)
        X, y = draw(codes)
        model.fit(X, y, groups=codes)
        at, new = draw(levels)
        mean, std = model.predict(at, groups=levels, return_std=True)
        covered = np.abs(new - mean) <= NORMAL_95 * std
        shares[replicate] = np.bincount(kinds, covered) / np.bincount(kinds)
    return shares


@pytest.mark.slow
@pytest.mark.parametrize("random_slopes", [[], [0]], ids=["intercepts", "slopes"])
def test_intervals_cover_what_they_promise(random_slopes):
    """Separately for known levels with few rows, known levels with many, and new levels.

    A false alarm in at most one of 10,000 seeds.
    """
    shares = shares_covered(random_slopes, seed=2024)
    # Data sets are independent, the observations of one are not: the error comes from the former.
    error = shares.std(axis=0, ddof=1) / math.sqrt(N_DATA_SETS)
    assert (error < 0.001).all()
    coverage, chance = shares.mean(axis=0), student_bound(N_DATA_SETS - 1, 3) * error
    assert (coverage > 0.95 - TAKEN - chance).all(), coverage
    assert (coverage < 0.95 + chance).all(), coverage
