"""Random effects that the fixed effects explain: found by dense algebra of the rows, and told.

With M the projection that takes out X, effects in a direction v are explained if ``M Z_i v = 0``
for every level.
"""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.datasets import load_sleepstudy
from mixedlearn.exceptions import DegenerateModelWarning

LEFT = {
    "1": ["intercept"],
    "0 + x": ["x"],
    "1 + x": ["intercept", "x"],
    "1 + x ||": ["intercept", "x"],
}
FIXED = {
    "1": [],
    "x": ["x"],
    "g": ["g"],
    "g + x": ["g", "x"],
    "g * x": ["g", "x", "gx"],
    "x + g:x": ["x", "gx"],
    "some g + x": ["some", "x"],
    "arm": ["arm"],
    "arm * x": ["arm", "x", "armx"],
    "of g": ["of"],
}


@st.composite
def designs(draw):
    """Columns of X, a covariate, codes of two factors, weights."""
    m = draw(st.integers(2, 5))
    sizes = draw(st.lists(st.integers(3, 6), min_size=m, max_size=m))
    g = np.repeat(np.arange(m), sizes)
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    x = rng.standard_normal(len(g))
    own = rng.standard_normal(m)
    dummies = np.equal.outer(g, np.arange(1, m)).astype(float)
    columns = {
        "x": x[:, None],
        "g": dummies,
        "gx": dummies * x[:, None],
        "some": dummies[:, 1:],
        "arm": (g[:, None] % 2).astype(float),
        "armx": (g[:, None] % 2) * x[:, None],
        "of": own[g][:, None],
    }
    name = draw(st.sampled_from(sorted(FIXED)))
    fixed = np.hstack([np.empty((len(g), 0)), *(columns[part] for part in FIXED[name])])
    h = rng.integers(0, 3, len(g))
    weights = rng.uniform(0.1, 10.0, len(g)) if draw(st.booleans()) else None
    scales = 10.0 ** np.array(draw(st.lists(st.integers(-6, 6), min_size=12, max_size=12)))
    return fixed * scales[: fixed.shape[1]], x * scales[-1], g, h, weights


def projection(fixed, weights):
    """M and the roots of the weights."""
    roots = np.ones(len(fixed)) if weights is None else np.sqrt(weights)
    X = roots[:, None] * np.column_stack([np.ones(len(fixed)), fixed])
    left, values, _ = np.linalg.svd(X / np.linalg.norm(X, axis=0), full_matrices=False)
    left = left[:, values > 1e-9]
    return np.eye(len(X)) - left @ left.T, roots


def left_over(M, roots, column, g):
    """The largest share of a column of Z that X leaves, over all levels."""
    Z = (roots * column)[:, None] * np.equal.outer(g, np.unique(g))
    return (np.linalg.norm(M @ Z, axis=0) / np.linalg.norm(Z, axis=0)).max()


def fit(fixed, x, g, h, weights, left, *, crossed=False, reml=True):
    """The model, and what is said of explained effects."""
    frame = pd.DataFrame(fixed, columns=[f"f{j}" for j in range(fixed.shape[1])])
    y = 3.0 * np.sin(np.arange(len(g)) * 1.7) + g
    terms = " + ".join(
        ["1", *frame, f"({left.removesuffix(' ||')} {'||' if '||' in left else '|'} g)"]
    )
    if crossed:
        terms += " + (1 | h)"
    frame = frame.assign(x=x, g=g, h=h)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = MixedLinearRegressor(formula=terms, reml=reml).fit(frame, y, sample_weight=weights)
    told = [str(warning.message) for warning in caught if "explain random" in str(warning.message)]
    return model, told


@settings(deadline=None, max_examples=60)
@given(
    design=designs(),
    left=st.sampled_from(sorted(LEFT)),
    crossed=st.booleans(),
    reml=st.booleans(),
)
def test_told_exactly_where_the_rows_say_so(design, left, crossed, reml):
    fixed, x, g, h, weights = design
    M, roots = projection(fixed, weights)
    shares = {
        name: left_over(M, roots, {"intercept": np.ones(len(g)), "x": x}[name], g)
        for name in LEFT[left]
    }
    assume(all(share < 1e-9 or share > 1e-3 for share in shares.values()))
    assume(len(g) > np.trace(np.eye(len(g)) - M) + 1)
    model, told = fit(fixed, x, g, h, weights, left, crossed=crossed, reml=reml)
    explained = [name for name, share in shares.items() if share < 1e-9]
    assert len(told) == (1 if explained else 0)
    if not explained:
        assert "note" not in model.summary().random_effects
        return
    assert "random effects of 'g' completely" in told[0]
    variances = "variance of " if len(explained) == 1 else "variances of "
    assert variances + ", ".join(map(repr, explained)) in told[0]
    table = model.summary().random_effects
    marked = table.index[table["note"] == "not identified"]
    assert list(marked) == [("g", name) for name in explained]
    if reml:
        sizes = pd.Series({"intercept": 1.0, "x": np.square(x).mean()})[explained]
        unknown = np.diag(model.covariances_["g"].loc[explained, explained])
        assert (unknown * sizes).max() <= 1e-15


@pytest.mark.parametrize(("left", "thetas"), [("1", [[0.0], [1.0], [50.0]]), ("1 + x", None)])
def test_the_restricted_likelihood_is_flat_there(left, thetas):
    rng = np.random.default_rng(0)
    g, x = np.repeat(np.arange(5), 6), rng.standard_normal(30)
    dummies = np.equal.outer(g, np.arange(1, 5)).astype(float)
    model, _ = fit(np.column_stack([dummies, x]), x, g, g, None, left)
    if thetas is None:
        slope = np.sqrt(model.covariances_["g"].loc["x", "x"] / model.noise_variance_)
        # The same variance of the slope beside any intercepts.
        thetas = [[a, r * slope, np.sqrt(1.0 - r**2) * slope] for a, r in ((0.0, 0.0), (2.0, 0.6))]
    found = [model.log_likelihood(theta) for theta in thetas]
    np.testing.assert_allclose(found, model.log_likelihood_, rtol=1e-9)


NEAR = {
    "a row of a level in the other arm": lambda arm, rng: np.where(
        np.arange(200) == 3, 1 - arm, arm
    ),
    "a little of a covariate": lambda arm, rng: arm + 1e-3 * rng.standard_normal(200),
    "another arm within levels": lambda arm, rng: (np.arange(200) % 2).astype(float),
}


@pytest.mark.parametrize("near", NEAR)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_nearly_explained_is_not_explained(near, scale):
    rng = np.random.default_rng(0)
    site = np.repeat([0, 1], 100)
    arm = scale * NEAR[near](site.astype(float), rng)
    _, told = fit(arm[:, None], arm, site, site, None, "1")
    assert told == []
    assert fit(scale * site[:, None], arm, site, site, None, "1")[1]


@pytest.mark.parametrize("offset", [1e2, 1e4, 1e5])
def test_slopes_of_a_covariate_far_from_zero(offset):
    """Dummies explain the constant of every level, of the covariate all but its variation."""
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(4), 10)
    x = offset + rng.standard_normal(40)
    dummies = np.equal.outer(g, np.arange(1, 4)).astype(float)
    assert fit(dummies, x, g, g, None, "0 + x")[1] == []
    own = fit(np.column_stack([dummies, x, dummies * x[:, None]]), x, g, g, None, "0 + x")[1]
    assert "variance of 'x'" in own[0]


@pytest.mark.parametrize("structure", ["scalar", "diagonal", "full", "compound_symmetry"])
def test_structures(structure):
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(4), 10)
    frame = pd.DataFrame({"x": rng.standard_normal(40), "g": g})
    for level in range(1, 4):
        frame[f"is{level}"] = (g == level).astype(float)
        frame[f"x{level}"] = frame["x"] * frame[f"is{level}"]
    y = rng.standard_normal(40) + g * frame["x"]
    model = MixedLinearRegressor(groups="g", random_slopes=["x"], covariance=structure)
    names = [name for name in frame if name.startswith("is")]
    with pytest.warns(DegenerateModelWarning, match="variances of 'intercept', 'x' may be: zero"):
        model.fit(frame, y)
    assert not model.covariances_["g"].to_numpy().any()
    model.set_params(fixed_effects=["x", *names])
    if structure == "scalar":
        # The intercepts have the variance of the slopes, which is known.
        model.fit(frame, y)
        return
    said = {
        "diagonal": "variance of 'intercept' may be: zero is taken",
        "full": "variance of 'intercept' may be: zero is taken",
        "compound_symmetry": "many values of the correlations of the random effects",
    }
    with pytest.warns(DegenerateModelWarning, match=said[structure]):
        model.fit(frame, y)


def test_nested_and_crossed_factors():
    rng = np.random.default_rng(3)
    a = np.repeat(np.arange(4), 12)
    frame = pd.DataFrame({"a": a, "b": np.tile(np.repeat(np.arange(3), 4), 4)})
    frame["y"] = a + rng.standard_normal(12)[3 * a + frame["b"]] + rng.standard_normal(48)
    with pytest.warns(
        DegenerateModelWarning, match="'intercept', 'C\\(a\\)' explain .* of 'a' "
    ) as record:
        model = lmer("y ~ C(a) + (1 | a/b)", frame)
    assert len(record) == 1
    assert model.covariances_["a"].loc["intercept", "intercept"] == 0.0
    assert model.covariances_["a:b"].loc["intercept", "intercept"] > 0.0
    # The same standard errors as without what is zero.
    plain = lmer("y ~ C(a) + (1 | a:b)", frame)
    np.testing.assert_allclose(model.coef_covariance_, plain.coef_covariance_, rtol=1e-6)
    with pytest.warns(DegenerateModelWarning, match="explain random effects of '[ab]' ") as record:
        lmer("y ~ C(a) * C(b) + (1 | a) + (1 | b)", frame)
    assert len(record) == 2
    lmer("y ~ C(b) + (1 | a)", frame)


def test_the_message():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"site": np.repeat([0, 1], 20), "age": rng.standard_normal(40)})
    frame["y"] = 3.0 * frame["site"] + rng.standard_normal(40)
    frame["arm"] = frame["site"].astype(float)
    message = (
        "The fixed effects of 'intercept', 'arm' explain random effects of 'site' completely, so "
        "that the restricted likelihood is the same whatever the variance of 'intercept' may be: "
        "zero is taken. The standard errors and tests of these fixed effects hold only if it is so"
    )
    with pytest.warns(DegenerateModelWarning, match=re.escape(message)):
        model = lmer("y ~ arm + age + (1 | site)", frame)
    assert "not identified" in str(model.summary())
    assert "not identified" in model.summary()._repr_html_()
    message = "the likelihood makes the variance of 'intercept' as small as can be, whatever"
    with pytest.warns(DegenerateModelWarning, match=re.escape(message)):
        lmer("y ~ arm + age + (1 | site)", frame, reml=False)


def test_a_variance_that_is_merely_zero_is_not_named():
    X, y = load_sleepstudy(return_X_y=True)
    rng = np.random.default_rng(0)
    model = MixedLinearRegressor(groups="Subject").fit(X, rng.permutation(y))
    assert model.is_singular_
    assert not any("explain" in note for note in model.summary().notes)
