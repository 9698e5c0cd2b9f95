"""What must not matter with several factors: order, names, units, how an interaction is written.

Tolerances. The optimiser promises a criterion within 1e-8 of the minimum, and two fits may stop at
different points of what that leaves: 2e-8. The criterion is quadratic at its minimum, so estimates
may differ by the root of that, 1e-4 of a standard error, and average information gets there by
small steps, so that they do. A shift of 300 standard deviations costs digits of the criterion:
1e-7 there.
A factor that is given twice leaves a ridge of minima, on which the end of the search is arbitrary:
only what is the same on all of it is compared.
"""

import functools
import math
import warnings

import numpy as np
import pandas as pd
import pytest

from mixedlearn import MixedLinearRegressor
from mixedlearn.exceptions import DegenerateModelWarning
from reference.numbered import sums_of

CRITERION = 2e-8
ESTIMATES = 1e-4

MODELS = {
    "crossed": {"groups": ["item", "person"]},
    "crossed, slopes": {
        "groups": ["person", "item"],
        "random_slopes": {"person": ["x"], "item": ["z"]},
        "covariance": {"item": "diagonal"},
    },
    "nested": {"groups": ["school", "class"], "random_slopes": {"school": ["x"]}},
    "chain and crossed": {
        "groups": ["item", "class", "school"],
        "random_slopes": {"school": ["x"]},
        "reml": False,
    },
    "weighted": {"groups": ["person", "item"], "covariance": "scalar", "random_slopes": ["x"]},
}
# Every test here runs with both engines for several factors.
pytestmark = pytest.mark.usefixtures("engine")


@functools.cache
def data():
    rng = np.random.default_rng(31)
    n = 300
    classes = rng.integers(0, 30, n)
    frame = pd.DataFrame(
        {
            "x": 2.0 + rng.standard_normal(n),
            "z": rng.standard_normal(n),
            "person": rng.integers(0, 25, n),
            "item": rng.integers(0, 9, n),
            "class": classes,
            "school": classes // 3,
            "seat": classes % 3,
        }
    )
    y = 1.0 + frame["x"].to_numpy() - 0.5 * frame["z"].to_numpy() + rng.standard_normal(n)
    for name, size in [("person", 1.2), ("item", 0.8), ("class", 0.7), ("school", 1.0)]:
        m = frame[name].max() + 1
        y += size * rng.standard_normal(m)[frame[name]]
        y += 0.5 * size * rng.standard_normal(m)[frame[name]] * (frame["x"] - 2.0)
        y += 0.4 * size * rng.standard_normal(m)[frame[name]] * frame["z"]
    return frame, np.asarray(y), rng.uniform(0.4, 2.5, n)


def weights_of(name):
    return data()[2] if name == "weighted" else None


def fit(X, y, weights=None, **parameters):
    parameters = {"fixed_effects": ["x", "z"]} | parameters
    return MixedLinearRegressor(**parameters).fit(X, y, sample_weight=weights)


@functools.cache
def plain_fit(name, engine):
    X, y, _ = data()
    return fit(X, y, weights_of(name), **MODELS[name])


def criterion(model):
    return -2.0 * model.log_likelihood_


def close(found, expected, tolerance=ESTIMATES):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def assert_same_fit(found, expected, *, labels=None, scale=1.0):
    """``labels`` turns a level of the expected fit into that of the other, by factor's name."""
    close(found.coef_ / scale, expected.coef_)
    close(found.intercept_ / scale, expected.intercept_)
    close(found.noise_variance_ / scale**2, expected.noise_variance_)
    assert found.converged_
    assert expected.converged_
    assert set(found.covariances_) == set(expected.covariances_)
    for name, covariance in expected.covariances_.items():
        close(found.covariances_[name] / scale**2, covariance)
        blups = expected.random_effects_[name]
        other = found.random_effects_[name]
        index = [labels(name, label) if labels else label for label in blups.index]
        assert len(other) == len(index) == found.n_groups_[name]
        place = [list(other.index).index(label) for label in index]
        close(other.to_numpy()[place] / scale, blups.to_numpy())
        close(
            found.random_effects_covariances_[name][place] / scale**2,
            expected.random_effects_covariances_[name],
        )


@pytest.mark.slow_cases("chain and crossed")
@pytest.mark.parametrize("engine", ["elimination"], indirect=True)
@pytest.mark.parametrize("name", MODELS)
def test_the_engines_fit_the_same(name, engine, use_engine):
    X, y, _ = data()
    fits = []
    for used in (engine, "joint"):
        use_engine(used)
        model = fit(X, y, weights_of(name), **MODELS[name])
        fits.append((model, model.predict(X, return_std=True)))
    (one, predicted), (other, expected) = fits
    assert criterion(one) == pytest.approx(criterion(other), abs=CRITERION)
    assert_same_fit(one, other)
    close(predicted, expected)


@pytest.mark.slow_cases(
    "elimination-chain and crossed", "elimination-weighted", "elimination-crossed, slopes"
)
@pytest.mark.parametrize("name", MODELS)
def test_order_of_the_factors(name, engine):
    X, y, _ = data()
    plain, names = plain_fit(name, engine), MODELS[name]["groups"]
    order = [*names[1:], names[0]]
    other = fit(X, y, weights_of(name), **(MODELS[name] | {"groups": order}))
    assert list(other.covariances_) == order
    assert criterion(other) == pytest.approx(criterion(plain), abs=CRITERION)
    assert_same_fit(other, plain)
    close(other.predict(X, return_std=True), plain.predict(X, return_std=True))


@pytest.mark.slow_cases("elimination-chain and crossed", "elimination-weighted")
@pytest.mark.parametrize("name", MODELS)
def test_order_of_the_rows(name, engine):
    X, y, _ = data()
    weights, plain = weights_of(name), plain_fit(name, engine)
    order = np.random.default_rng(0).permutation(len(y))
    moved = None if weights is None else weights[order]
    other = fit(X.iloc[order], y[order], moved, **MODELS[name])
    assert criterion(other) == pytest.approx(criterion(plain), abs=CRITERION)
    assert_same_fit(other, plain)


NAMES = {
    "permuted": lambda column, code: (code * 7) % 31 - 10,
    "text": lambda column, code: f"{column} {97 * code % 101}",
    "the same text in all": lambda column, code: f"level {97 * code % 101}",
    "float": lambda column, code: -1.5 * code,
    "tuple": lambda column, code: (code % 3, code),
    "mixed": lambda column, code: code if code % 2 else str(code),
    "other types in every column": lambda column, code: (
        {"person": str, "item": float, "class": lambda c: pd.Timestamp(2000 + c, 1, 1)}
    ).get(column, int)(code),
}


@pytest.mark.slow_cases(every=5)
@pytest.mark.parametrize("how", NAMES)
@pytest.mark.parametrize("name", ["crossed, slopes", "chain and crossed"])
def test_names_of_the_levels(name, how, engine):
    X, y, _ = data()
    plain = plain_fit(name, engine)
    named = X.copy()
    for column in MODELS[name]["groups"]:
        named[column] = pd.Series([NAMES[how](column, code) for code in X[column]], dtype=object)
    other = fit(named, y, **MODELS[name])
    assert criterion(other) == pytest.approx(criterion(plain), abs=CRITERION)
    assert_same_fit(other, plain, labels=NAMES[how])
    close(other.predict(named, return_std=True), plain.predict(X, return_std=True))


@pytest.mark.slow_cases("elimination-chain and crossed", "elimination-crossed, slopes")
@pytest.mark.parametrize("name", ["crossed, slopes", "nested", "chain and crossed"])
def test_scale_and_shift_of_the_covariates(name, engine):
    X, y, _ = data()
    plain = plain_fit(name, engine)
    for scale, shift in [(1e-3, 5.0), (1e4, -300.0)]:
        moved = X.assign(x=(X["x"] + shift) * scale)
        parameters = MODELS[name]
        if name == "crossed, slopes":  # the factor with x has a full covariance, that with z none
            moved["z"] = X["z"] / scale
        other = fit(moved, y, **parameters)
        determinant = math.log(scale) * (1 - (name == "crossed, slopes"))
        change = 2.0 * determinant if parameters.get("reml", True) else 0.0
        assert criterion(other) - change == pytest.approx(criterion(plain), abs=1e-7)
        assert other.coef_[0] * scale == pytest.approx(plain.coef_[0], rel=ESTIMATES)
        assert other.noise_variance_ == pytest.approx(plain.noise_variance_, rel=ESTIMATES)
        close(other.predict(moved, return_std=True), plain.predict(X, return_std=True))
        for factor, covariance in plain.covariances_.items():
            back = np.eye(len(covariance))
            if "x" in covariance:
                back[:, list(covariance).index("x")] *= scale
                if "intercept" in covariance:
                    back[0, list(covariance).index("x")] = shift * scale
            elif "z" in covariance:
                back[1, 1] /= scale
            found = back @ other.covariances_[factor].to_numpy() @ back.T
            close(found, covariance)
            effects = other.random_effects_[factor].to_numpy() @ back.T
            close(effects, plain.random_effects_[factor])


@pytest.mark.slow_cases(
    "elimination-chain and crossed", "elimination-weighted", "elimination-crossed, slopes"
)
@pytest.mark.parametrize("name", MODELS)
def test_scale_and_shift_of_the_response(name, engine):
    X, y, _ = data()
    plain = plain_fit(name, engine)
    for scale in (-1e-6, 1e5):
        other = fit(X, scale * (y + 50.0), weights_of(name), **MODELS[name])
        other.intercept_ -= 50.0 * scale
        df = len(y) - 3 if MODELS[name].get("reml", True) else len(y)
        change = 2.0 * df * math.log(abs(scale))
        assert criterion(other) - change == pytest.approx(criterion(plain), abs=1e-7)
        assert_same_fit(other, plain, scale=scale)
        close(other.predict(X) / scale - 50.0, plain.predict(X))


# --- interactions --------------------------------------------------------------------------------
@pytest.mark.slow_cases("elimination-person")
@pytest.mark.parametrize("other", ["person", "school"])
def test_an_interaction_or_a_column_of_its_labels(other):
    X, y, _ = data()
    X = X.assign(joined=X[other].astype(str) + "/" + X["seat"].astype(str))
    written = fit(X, y, groups=[(other, "seat"), other], random_slopes={other: ["x"]})
    ready = fit(X, y, groups=["joined", other], random_slopes={other: ["x"]})
    interaction = f"{other}:seat"
    assert written.n_groups_[interaction] == ready.n_groups_["joined"]
    assert criterion(written) == pytest.approx(criterion(ready), abs=CRITERION)
    close(written.coef_, ready.coef_)
    close(written.noise_variance_, ready.noise_variance_)
    for name, column in ((interaction, "joined"), (other, other)):
        close(written.covariances_[name], ready.covariances_[column])
        found, expected = written.random_effects_[name], ready.random_effects_[column]
        if name == interaction:
            expected = expected.loc[[f"{level}/{seat}" for level, seat in found.index]]
        close(found, expected)
    close(written.predict(X, return_std=True), ready.predict(X, return_std=True))
    # Columns in the other order name the same factor.
    turned = fit(X, y, groups=[("seat", other), other], random_slopes={other: ["x"]})
    assert criterion(turned) == pytest.approx(criterion(written), abs=CRITERION)
    close(turned.predict(X), written.predict(X))


def test_labels_that_are_unique_make_nesting_without_being_told():
    X, y, _ = data()
    implicit = fit(X, y, groups=["class", "school"])
    explicit = fit(X, y, groups=[("school", "class"), "school"])
    written = fit(X, y, groups=[("school", "seat"), "school"])
    for other in (explicit, written):
        assert criterion(other) == pytest.approx(criterion(implicit), abs=CRITERION)
        close(other.predict(X, return_std=True), implicit.predict(X, return_std=True))


# --- chunks of the pass over the rows ------------------------------------------------------------
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("chunk_rows", [1, 7, 300, 4000])
def test_chunks_and_the_pairs_of_levels(chunk_rows, weighted):
    """Sums of a few hundred terms of order ten, in another order: 1e-10."""
    X, y, weights = data()
    weights = weights if weighted else None
    columns = X[["x", "z"]].to_numpy()
    names, slopes = ["person", "item", "school"], [(0,), (), (1, 0)]
    codes = [X[name].to_numpy() for name in names]
    n_levels = [code.max() + 1 for code in codes]
    found = sums_of(columns, y, codes, n_levels, slopes, weights, chunk_rows=chunk_rows)
    basis = np.column_stack([np.ones(len(y)), columns - found.shift[:-1], y - found.shift[-1]])
    w = np.ones(len(y)) if weights is None else weights
    np.testing.assert_allclose(found.gram, basis.T @ (w[:, None] * basis), atol=1e-10)
    assert found.z_columns == ((0, 1), (0,), (0, 2, 1))
    for k, code in enumerate(codes):
        own = basis[:, list(found.z_columns[k])]
        for level in range(n_levels[k]):
            rows = code == level
            expected = (w[rows, None] * own[rows]).T @ basis[rows]
            np.testing.assert_allclose(found.grouped[k][:, :, level], expected, atol=1e-10)
    assert set(found.crossings) == {(0, 1), (0, 2), (1, 2)}
    for (i, j), crossing in found.crossings.items():
        pairs = list(zip(crossing.first.tolist(), crossing.second.tolist(), strict=True))
        assert pairs == sorted(set(zip(codes[i].tolist(), codes[j].tolist(), strict=True)))
        left, right = (basis[:, list(found.z_columns[k])] for k in (i, j))
        for number, (first, second) in enumerate(pairs):
            rows = (codes[i] == first) & (codes[j] == second)
            expected = (w[rows, None] * left[rows]).T @ right[rows]
            np.testing.assert_allclose(crossing.products[:, :, number], expected, atol=1e-10)


# --- a factor given twice ------------------------------------------------------------------------
@pytest.mark.slow_cases("elimination-others1-slopes1")
@pytest.mark.parametrize("slopes", [None, ["x"]])
@pytest.mark.parametrize("others", [[], ["item"]])
def test_a_factor_under_two_names(others, slopes):
    X, y, _ = data()
    X = X.assign(twin=[f"p{29 * code % 101}" for code in X["person"]])
    single = fit(X, y, groups=["person", *others], random_slopes=slopes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        double = fit(X, y, groups=["person", "twin", *others], random_slopes=slopes)
    assert [warning.category for warning in caught] == [DegenerateModelWarning]
    assert "'person' and 'twin' divide the rows in the same way" in str(caught[0].message)
    assert criterion(double) == pytest.approx(criterion(single), abs=1e-7)
    total = double.covariances_["person"] + double.covariances_["twin"]
    close(total, single.covariances_["person"])
    close(double.noise_variance_, single.noise_variance_)
    persons = double.random_effects_["person"]
    twins = double.random_effects_["twin"].loc[[f"p{29 * code % 101}" for code in persons.index]]
    close(persons.to_numpy() + twins.to_numpy(), single.random_effects_["person"])
    found, expected = (model.predict(X, return_std=True) for model in (double, single))
    close(found, expected)
    for name in others:
        close(double.covariances_[name], single.covariances_[name])


def test_a_factor_twice_with_other_effects_is_one_with_uncorrelated_effects():
    """An intercept in one and a slope in the other is a diagonal covariance, and no fault."""
    X, y, _ = data()
    X = X.assign(twin=X["person"])
    parameters = {"fixed_effects": ["x", "z"]}
    diagonal = fit(
        X,
        y,
        groups=["person", "item"],
        random_slopes={"person": ["z"]},
        covariance="diagonal",
        **parameters,
    )
    apart = fit(
        X,
        y,
        groups=["person", "item", "twin"],
        random_slopes={"twin": ["z"]},
        random_intercept={"twin": False},
        **parameters,
    )
    assert criterion(apart) == pytest.approx(criterion(diagonal), abs=CRITERION)
    variances = [
        apart.covariances_["person"].loc["intercept", "intercept"],
        apart.covariances_["twin"].loc["z", "z"],
    ]
    close(variances, np.diag(diagonal.covariances_["person"]))
    close(apart.predict(X, return_std=True), diagonal.predict(X, return_std=True))
