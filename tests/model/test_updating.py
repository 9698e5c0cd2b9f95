"""Updates of the random effects: exact against dense matrices of all rows at the fit's estimates.

Tolerance: both sides work in double precision at the same estimates; 1e-9 relative to numbers of
order one leaves room for the covariates' offsets.
"""

import datetime

import numpy as np
import pandas as pd
import pytest

from mixedlearn import MixedLinearRegressor, inference
from mixedlearn.datasets import load_pastes, load_sleepstudy
from reference.dense import spread

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
SLOPES = ["x0", "x1"]
OTHER_KIND = pytest.mark.filterwarnings("ignore:All levels of 'group' are new")

MODELS = {
    "one factor": {"groups": "a", "random_slopes": ["x0"]},
    "one factor, diagonal": {"groups": "a", "random_slopes": SLOPES, "covariance": "diagonal"},
    "no fixed intercept": {"groups": "b", "fit_intercept": False},
    "crossed": {"groups": ["a", "b"], "random_slopes": {"b": ["x1"]}},
    "nested": {"groups": ["inner", "outer"], "random_slopes": {"outer": ["x0"]}},
    "nested and crossed": {"groups": ["b", "inner", "outer"]},
    "interaction": {"groups": ["a", ("a", "b")]},
}


def rows(n, seed, *, last=False):
    """Rows; those of the last ones hold new levels and known ones, of other covariates."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.standard_normal((n, 2)) * 2.0 + [30.0, -1.0], columns=SLOPES)
    frame["a"] = rng.integers(8 if last else 0, 20 if last else 14, n)
    frame["b"] = rng.integers(-3 if last else 0, 6, n)
    frame["inner"] = rng.integers(0, 30 if last else 20, n)
    frame["outer"] = frame["inner"] // 4
    y = 2.0 + frame["x0"] - frame["x1"] + rng.standard_normal(n)
    for seed, name in enumerate(("a", "b", "inner", "outer")):
        effects = np.random.default_rng(100 + seed).standard_normal((40, 2))[frame[name] + 3]
        y += effects[:, 0] + effects[:, 1] * (frame["x0"] - 30.0)
    return frame, y.to_numpy(), rng.uniform(0.3, 3.0, n)


class Exact:
    """BLUPs and prediction errors by matrices of all rows, beta a function of the fit's rows."""

    def __init__(self, model, fitted, added, at, weights):
        frames = [fitted[0], added[0]]
        every = pd.concat(frames, ignore_index=True)
        self.names = list(model.random_effects_)
        self.levels = [model.random_effects_[name].index for name in self.names]
        relative = [model.covariances_[name] / model.noise_variance_ for name in self.names]
        X, self.y = self.fixed(model, every), np.append(fitted[1], added[1])
        shapes = [(len(own), len(index)) for own, index in zip(relative, self.levels, strict=True)]
        prior = [np.kron(own, np.eye(m)) for own, (_, m) in zip(relative, shapes, strict=True)]
        wide = [self.wide(model, every, k) for k in range(len(self.names))]
        V = np.diag(1.0 / weights)
        for Z, own in zip(wide, prior, strict=True):
            V += Z @ own @ Z.T
        inverse = np.linalg.inv(V)
        n = len(fitted[0])
        fit_inverse = np.linalg.inv(V[:n, :n])
        H = X[:n].T @ fit_inverse @ X[:n]
        estimator = np.zeros((X.shape[1], len(every)))
        estimator[:, :n] = np.linalg.solve(H, X[:n].T @ fit_inverse)
        predictor = [
            own @ Z.T @ inverse @ (np.eye(len(every)) - X @ estimator)
            for Z, own in zip(wide, prior, strict=True)
        ]
        self.blups = [
            (own @ self.y).reshape(shape).T for own, shape in zip(predictor, shapes, strict=True)
        ]
        self.covariances = []
        for Z, own, (q, m) in zip(wide, prior, shapes, strict=True):
            conditional = own - own @ Z.T @ inverse @ Z @ own
            block = np.einsum("aibi->iab", conditional.reshape(q, m, q, m))
            self.covariances.append(model.noise_variance_ * block)
        there = [self.wide(model, at, k) for k in range(len(self.names))]
        linear = self.fixed(model, at) @ estimator
        for Z, own in zip(there, predictor, strict=True):
            linear += Z @ own
        self.mean = linear @ self.y
        variance = 1.0 + np.einsum("rn,nm,rm->r", linear, V, linear)
        for k, (Z, own) in enumerate(zip(wide, prior, strict=True)):
            variance -= 2.0 * np.einsum("rn,nb,rb->r", linear, Z @ own, there[k])
            variance += np.einsum("rb,bc,rc->r", there[k], own, there[k])
            new = ~np.isin(self.labels(at, k), self.labels_of_levels(k))
            z = self.columns(model, at, k)[new]
            variance[new] += np.einsum("ra,ab,rb->r", z, relative[k], z)
        self.std = np.sqrt(model.noise_variance_ * variance)

    def fixed(self, model, frame):
        columns = frame[SLOPES].to_numpy()
        return np.column_stack([np.ones(len(frame)), columns]) if model.fit_intercept else columns

    def labels(self, frame, k):
        parts = self.names[k].split(":")
        return frame[parts].astype(str).agg("/".join, axis=1).to_numpy()

    def labels_of_levels(self, k):
        levels = self.levels[k]
        tuples = levels if isinstance(levels, pd.MultiIndex) else [(own,) for own in levels]
        return np.array(["/".join(map(str, own)) for own in tuples])

    def columns(self, model, frame, k):
        effects = model.random_effects_[self.names[k]].columns
        return np.column_stack(
            [np.ones(len(frame)) if name == "intercept" else frame[name] for name in effects]
        )

    def wide(self, model, frame, k):
        codes = pd.Index(self.labels_of_levels(k)).get_indexer(self.labels(frame, k))
        return spread(self.columns(model, frame, k), codes, len(self.levels[k]))


def estimates(model):
    """What an update must leave alone."""
    return (
        model.coef_,
        model.intercept_,
        model.noise_variance_,
        model.theta_,
        model.log_likelihood_,
        model.log_likelihood(1.5 * model.theta_),
        model.coef_covariance_.to_numpy(),
    )


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_against_dense_matrices(name, weighted, engine):
    fitted, added = rows(110, 1), rows(40, 2, last=True)
    at, _, _ = rows(60, 3, last=True)
    weights = [own[2] if weighted else np.ones(len(own[1])) for own in (fitted, added)]
    model = MixedLinearRegressor(fixed_effects=SLOPES, **MODELS[name])
    model.fit(*fitted[:2], sample_weight=weights[0])
    before = estimates(model)
    known = {factor: list(own.index) for factor, own in model.random_effects_.items()}
    # In two steps, so that an updated model is updated.
    for part in (slice(0, 25), slice(25, None)):
        X, y = added[0][part], added[1][part]
        assert model.update_random_effects(X, y, sample_weight=weights[1][part]) is model
    after = estimates(model)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    exact = Exact(model, fitted, added, at, np.concatenate(weights))
    for k, (factor, blups) in enumerate(model.random_effects_.items()):
        assert set(known[factor]) < set(blups.index)
        assert blups.index.is_monotonic_increasing
        assert model.n_groups_[factor] == len(blups)
        np.testing.assert_allclose(blups, exact.blups[k], **CLOSE)
        found = model.random_effects_covariances_[factor]
        np.testing.assert_allclose(found, exact.covariances[k], **CLOSE)
    mean, std = model.predict(at, return_std=True)
    np.testing.assert_allclose(mean, exact.mean, **CLOSE)
    np.testing.assert_allclose(std, exact.std, **CLOSE)
    every = pd.concat([fitted[0], added[0]])
    for factor in set(known) & {"a", "b"}:
        assert set(model.random_effects_[factor].index) == set(every[factor])


def test_rows_of_weight_zero_are_absent():
    fitted, added = rows(110, 1), rows(40, 2, last=True)
    models = [MixedLinearRegressor(groups="a", fixed_effects=SLOPES).fit(*fitted[:2]) for _ in "ab"]
    present = np.arange(40) % 3 > 0
    models[0].update_random_effects(*added[:2], sample_weight=present.astype(float))
    models[1].update_random_effects(added[0][present], added[1][present])
    pd.testing.assert_frame_equal(models[0].random_effects_["a"], models[1].random_effects_["a"])


def test_new_rows_far_from_the_others_keep_their_digits():
    """A column that does not vary in the fit's levels may do so in the new rows, widely."""
    fitted, added = rows(110, 1), rows(40, 2, last=True)
    added[0]["x0"] = added[0]["x0"] * 100.0
    model = MixedLinearRegressor(groups="a", random_slopes=["x0"], fixed_effects=SLOPES)
    model.fit(*fitted[:2]).update_random_effects(*added[:2])
    exact = Exact(model, fitted, added, fitted[0], np.ones(150))
    np.testing.assert_allclose(model.random_effects_["a"], exact.blups[0], rtol=1e-7, atol=1e-9)


@pytest.mark.filterwarnings("ignore:Every level of")
def test_where_random_effects_were_counted_as_noise():
    """One row a level in the fit: no variance is left, and more rows do not bring one."""
    X, y, _ = rows(30, 4)
    X["a"] = np.arange(30)
    model = MixedLinearRegressor(groups="a", fixed_effects=SLOPES).fit(X, y)
    model.update_random_effects(X, y)
    assert (model.random_effects_["a"] == 0.0).to_numpy().all()


@pytest.mark.filterwarnings("ignore:The fixed effects reproduce")
def test_where_there_is_no_noise():
    X, _, _ = rows(30, 4)
    model = MixedLinearRegressor(groups="a", fixed_effects=SLOPES).fit(X, 2.0 * X["x0"])
    model.update_random_effects(X, X["x1"])
    assert (model.random_effects_["a"] == 0.0).to_numpy().all()
    assert (model.predict(X, return_std=True)[1] == 0.0).all()


@pytest.mark.filterwarnings("ignore:The random effects of")
def test_an_effect_without_a_column_in_the_fit(engine):
    """Its variance is zero, so rows in which the column varies do not matter to it."""
    X, y, _ = rows(110, 1)
    model = MixedLinearRegressor(
        groups=["a", "b"],
        fixed_effects=["x1"],
        random_slopes={"b": ["x0"]},
        random_intercept={"b": False},
    )
    model.fit(X.assign(x0=0.0), y)
    plain = MixedLinearRegressor(groups="a", fixed_effects=["x1"]).fit(X, y)
    new, y_new, _ = rows(40, 2, last=True)
    model.update_random_effects(new, y_new)
    plain.update_random_effects(new, y_new)
    np.testing.assert_allclose(model.random_effects_["a"], plain.random_effects_["a"], rtol=1e-7)
    assert (model.random_effects_["b"] == 0.0).to_numpy().all()


@pytest.mark.parametrize(
    ("labels", "others"),
    [
        (["u", "v"], ["v", "w"]),
        ([1, 2], [2.0, 7.5]),
        pytest.param([1, 2], ["1", "x"], marks=OTHER_KIND),
        ([(1, 2), (1, 3)], [(1, 3), (0, 0)]),
        ([datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)], [datetime.date(2020, 1, 2), 4]),
        pytest.param(
            pd.Timestamp("2020-01-01") + pd.to_timedelta([0, 1], "D"),
            ["2020-01-01", "x"],
            marks=OTHER_KIND,
        ),
    ],
)
def test_labels_of_any_kind(labels, others):
    rng = np.random.default_rng(0)
    codes = np.arange(40) % 2
    X, y = rng.standard_normal((40, 1)), rng.standard_normal(40) + 3.0 * codes
    groups = [labels[code] for code in codes]
    model = MixedLinearRegressor().fit(X, y, groups=groups)
    new = [others[code] for code in (0, 1, 1)]
    population = model.predict(X[:3], random_effects="none")
    known = model.predict(X[:3], groups=new) != population
    model.update_random_effects(X[:3], np.full(3, 9.0), groups=new)
    size = 2 + len({label for label, is_known in zip(new, known, strict=True) if not is_known})
    assert model.n_groups_ == {"group": size}
    found = model.predict(X[:3], groups=new)
    assert (found != population).all()


def test_what_is_refused():
    X, y = load_sleepstudy(return_X_y=True)
    model = MixedLinearRegressor(groups="Subject").fit(X, y)
    with pytest.raises(ValueError, match="missing labels"):
        model.update_random_effects(X.assign(Subject=np.nan), y)
    with pytest.raises(ValueError, match="180 rows, y has 3"):
        model.update_random_effects(X, y[:3])
    with pytest.raises(ValueError, match="NaN"):
        model.update_random_effects(X, y * np.nan)
    with pytest.raises(ValueError, match="Negative values"):
        model.update_random_effects(X, y, sample_weight=-np.ones(180))
    assert model.n_groups_ == {"Subject": 18}
    by_argument = MixedLinearRegressor().fit(X[["Days"]], y, groups=X["Subject"])
    with pytest.raises(ValueError, match=r"No groups were passed.*'Subject'"):
        by_argument.update_random_effects(X[["Days"]], y)


@pytest.mark.filterwarnings("ignore:fit received no groups")
def test_a_model_without_groups_is_refused():
    X, y = load_sleepstudy(return_X_y=True)
    model = MixedLinearRegressor().fit(X[["Days"]], y)
    with pytest.raises(ValueError, match="fitted without groups"):
        model.update_random_effects(X[["Days"]], y, groups=X["Subject"])


def test_an_update_with_the_rows_of_an_interaction():
    X, y = load_pastes(return_X_y=True)
    model = MixedLinearRegressor(groups=["batch", ("batch", "cask")], fixed_effects=[])
    model.fit(X, y)
    more = X.iloc[:4].assign(cask="z")
    model.update_random_effects(more, y[:4])
    assert (X["batch"].iloc[0], "z") in model.random_effects_["batch:cask"].index
    assert model.n_groups_["batch:cask"] == 30 + more["batch"].nunique()


def test_inference_stays_that_of_the_fit():
    frame, y, _ = rows(150, 8)
    more, response, _ = rows(40, 9, last=True)
    arguments = {"groups": "a", "random_slopes": ["x0"], "fixed_effects": SLOPES}
    untouched = MixedLinearRegressor(**arguments).fit(frame, y)
    updated = MixedLinearRegressor(**arguments).fit(frame, y)
    updated.update_random_effects(more, response)
    assert updated.n_groups_["a"] > untouched.n_groups_["a"]
    for found, expected in (
        (inference.coefficient_table(updated), inference.coefficient_table(untouched)),
        (inference.r2(updated), inference.r2(untouched)),
        (inference.residuals(updated, frame, y), inference.residuals(untouched, frame, y)),
        (
            inference.influence(updated, frame, y, by="a").coef,
            inference.influence(untouched, frame, y, by="a").coef,
        ),
    ):
        np.testing.assert_allclose(found, expected, **CLOSE)
    effects = inference.random_effects_table(updated)
    np.testing.assert_allclose(effects["estimate"], updated.random_effects_["a"].to_numpy().ravel())
    variances = np.einsum("maa->ma", updated.random_effects_covariances_["a"])
    np.testing.assert_allclose(effects["std_error"] ** 2, variances.ravel())
