"""Degenerate but legal models: fitted, flagged, and right where the answer is known."""

import dataclasses
import datetime
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.exceptions import ConvergenceWarning

from mixedlearn import MixedLinearRegressor
from mixedlearn.exceptions import DegenerateModelWarning

N = 24
RNG = np.random.default_rng(0)
CODES = np.repeat(np.arange(4), 6)
SITES = np.array(list("abcd"))[CODES]
X = RNG.normal(size=(N, 2))
CONSTANT_WITHIN = np.array([0.0, 1.0, 3.0, 2.0])[CODES]
Y = 1.0 + 2.0 * X[:, 0] + CONSTANT_WITHIN + RNG.normal(size=N)
FRAME = pd.DataFrame({"length": X[:, 0], "width": X[:, 1], "site": SITES})
ZEROS = np.zeros(N)


def fit(X=X, y=Y, groups=SITES, sample_weight=None, **parameters):
    return MixedLinearRegressor(**parameters).fit(X, y, groups=groups, sample_weight=sample_weight)


def fit_frame(X=FRAME, y=Y, sample_weight=None, **parameters):
    parameters = {"groups": "site", **parameters}
    return MixedLinearRegressor(**parameters).fit(X, y, sample_weight=sample_weight)


def fit_with_one_warning(match, *args, **parameters):
    """The fit, which must raise one warning, a DegenerateModelWarning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = fit(*args, **parameters)
    assert [warning.category for warning in caught] == [DegenerateModelWarning], [
        str(warning.message) for warning in caught
    ]
    with pytest.warns(DegenerateModelWarning, match=match):
        warnings.warn_explicit(caught[0].message, None, caught[0].filename, caught[0].lineno)
    return model


def ols(X, y, *, fit_intercept=True):
    """Coefficients, the intercept first, residual sum of squares and rank."""
    columns = np.column_stack([np.ones(len(y)), X]) if fit_intercept else X
    coef, _, rank, _ = np.linalg.lstsq(columns, y, rcond=None)
    return coef, np.sum((y - columns @ coef) ** 2), rank


def assert_is_ols(model, X=X, y=Y, *, reml=True):
    """Without variance between levels the fit is ordinary least squares."""
    coef, square, rank = ols(X, y)
    np.testing.assert_allclose([model.intercept_, *model.coef_], coef, rtol=1e-8, atol=1e-10)
    df = len(y) - rank if reml else len(y)
    np.testing.assert_allclose(model.noise_variance_, square / df, rtol=1e-8)
    for covariance in model.covariances_.values():
        np.testing.assert_array_equal(covariance, 0.0)
    assert model.is_singular_
    assert model.converged_


def assert_same_fit(model, expected, rtol=1e-7):
    for name in ("intercept_", "coef_", "noise_variance_", "theta_", "log_likelihood_"):
        np.testing.assert_allclose(
            getattr(model, name), getattr(expected, name), rtol=rtol, atol=rtol, err_msg=name
        )


# Levels: how many and how large


@pytest.mark.parametrize("slopes", [None, [0], [0, 1]])
@pytest.mark.parametrize("reml", [True, False])
def test_one_group(reml, slopes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateModelWarning)
        model = fit(groups=["a"] * N, reml=reml, random_slopes=slopes)
    assert_is_ols(model, reml=reml)
    np.testing.assert_array_equal(model.random_effects_["group"], 0.0)
    assert model.n_groups_ == {"group": 1}


def test_one_group_warns():
    fit_with_one_warning("'group' has one level", groups=["a"] * N)


def simulate(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, 2))
    return X, 1.0 + 2.0 * X[:, 0] + CONSTANT_WITHIN + rng.normal(size=N)


@pytest.mark.parametrize("reml", [True, False])
def test_as_many_levels_as_rows(reml):
    for seed in range(10):
        X, y = simulate(seed)
        model = fit_with_one_warning(
            "Every level of 'group' has one row", X, y, range(N), reml=reml
        )
        assert_is_ols(model, X, y, reml=reml)
        assert model.n_groups_ == {"group": N}


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_as_many_levels_as_rows_with_a_slope(covariance):
    for seed in range(10):
        # A row's variance is x'Dx + noise: as much of it as can be is noise.
        X, y = simulate(seed)
        model = fit_with_one_warning(
            "Every level of 'group' has one row",
            X,
            y,
            range(N),
            random_slopes=[0],
            covariance=covariance,
        )
        assert model.converged_
        assert model.is_singular_


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_what_is_counted_as_noise_leaves_the_likelihood(covariance):
    X, y = simulate(3)
    model = fit_with_one_warning(
        "as much as can be is counted as noise",
        X,
        y,
        range(N),
        random_slopes=[0],
        covariance=covariance,
    )
    np.testing.assert_allclose(model.log_likelihood(model.theta_), model.log_likelihood_, rtol=1e-9)
    intercept, slope = np.diag(model.covariances_["group"])
    more = np.array([[0.5, 0.0], [0.0, 0.0]])
    wider = model.covariances_["group"].to_numpy() + more * model.noise_variance_
    theta = np.linalg.cholesky(wider / (0.5 * model.noise_variance_) + 1e-12 * np.eye(2))
    free = [0, 1, 2] if covariance == "full" else [0, 2]
    np.testing.assert_allclose(
        model.log_likelihood(theta.T[np.triu_indices(2)][free]), model.log_likelihood_, rtol=1e-6
    )
    assert intercept >= 0.0
    assert slope >= 0.0


@pytest.mark.filterwarnings("ignore:The noise variance cannot be told from zero")
@pytest.mark.parametrize("parameters", [{}, {"random_slopes": [0], "covariance": "scalar"}])
def test_as_many_levels_as_rows_that_differ_in_variance(parameters):
    # Unequal weights, or one variance for intercept and slope, tell noise and effects apart, but
    # the noise may come out as zero.
    for seed in range(10):
        X, y = simulate(seed)
        weights = np.random.default_rng(seed).uniform(0.5, 2.0, N)
        model = fit(X, y, range(N), weights, **parameters)
        assert model.converged_
        assert np.isfinite(model.predict(X, groups=range(N), return_std=True)).all()


def test_levels_of_one_row_among_larger_ones():
    groups = SITES.astype(object)
    groups[-3:] = ["x", "y", "z"]
    model = fit(groups=groups)
    assert model.converged_
    assert not model.is_singular_
    ratio = model.theta_[0] ** 2
    residuals = Y - model.predict(X, random_effects="none")
    for level in np.unique(groups):
        rows = groups == level
        expected = ratio * residuals[rows].sum() / (1.0 + ratio * rows.sum())
        effect = model.random_effects_["group"].loc[level, "intercept"]
        np.testing.assert_allclose(effect, expected, rtol=1e-8)


@pytest.mark.parametrize("covariance", ["full", "diagonal", "scalar"])
@pytest.mark.parametrize("slopes", [[0], [0, 1]])
def test_no_more_rows_per_level_than_effects(slopes, covariance):
    groups = np.repeat(np.arange(12), 2)
    model = fit(groups=groups, random_slopes=slopes, covariance=covariance)
    assert model.converged_
    assert np.isfinite(model.log_likelihood_)
    assert model.noise_variance_ > 0.0
    assert model.random_effects_["group"].shape == (12, 1 + len(slopes))
    # Nothing on the way to zero variances, or beyond, does better.
    for scale in (0.0, 0.5, 0.9, 1.1, 2.0):
        assert model.log_likelihood(scale * model.theta_) <= model.log_likelihood_ + 1e-8


def test_two_rows_per_level_at_the_same_two_places():
    # Z is one invertible 2 x 2 matrix, so D + c (Z'Z)^-1 takes up any part of the noise.
    x = np.tile([0.0, 1.0], 12)[:, None]
    fit_with_one_warning("noise", x, Y, np.repeat(np.arange(12), 2), random_slopes=[0])


# Response


@pytest.mark.parametrize("slopes", [None, [0]])
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("constant", [0.0, 7.0, 0.1, -1e6])
def test_constant_response(constant, reml, slopes):
    model = fit_with_one_warning(
        "fixed effects reproduce the response exactly",
        y=np.full(N, constant),
        reml=reml,
        random_slopes=slopes,
    )
    np.testing.assert_allclose(model.intercept_, constant, rtol=1e-15)
    np.testing.assert_allclose(model.coef_, 0.0, atol=1e-15)
    assert model.noise_variance_ == 0.0
    assert model.is_singular_
    assert model.converged_
    mean, std = model.predict(X, groups=SITES, return_std=True)
    np.testing.assert_allclose(mean, constant, rtol=1e-14)
    np.testing.assert_array_equal(std, 0.0)
    np.testing.assert_array_equal(model.random_effects_["group"], 0.0)
    np.testing.assert_array_equal(model.coef_covariance_, 0.0)
    assert model.log_likelihood_ == np.inf


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("covariance", ["full", "diagonal", "scalar"])
def test_response_linear_in_x(covariance, fit_intercept):
    intercept = 3.0 if fit_intercept else 0.0
    y = intercept + X @ [2.0, -1.0]
    model = fit_with_one_warning(
        "fixed effects reproduce the response exactly: the noise variance and",
        y=y,
        random_slopes=[0],
        covariance=covariance,
        fit_intercept=fit_intercept,
    )
    np.testing.assert_allclose(model.coef_, [2.0, -1.0], rtol=1e-12)
    np.testing.assert_allclose(model.intercept_, intercept, rtol=1e-12)
    assert model.noise_variance_ == 0.0
    np.testing.assert_array_equal(model.covariances_["group"], 0.0)
    np.testing.assert_allclose(model.predict(X, groups=SITES), y, rtol=1e-12, atol=1e-12)
    assert model.score(X, y, groups=SITES) == pytest.approx(1.0, abs=1e-12)


def test_likelihood_of_an_exact_fit_is_infinite_wherever_it_is_asked():
    model = fit_with_one_warning("exactly", y=np.full(N, 7.0))
    assert model.log_likelihood(model.theta_) == model.log_likelihood()


@pytest.mark.parametrize("parameters", [{}, {"reml": False}, {"random_slopes": [0]}], ids=str)
def test_response_constant_within_levels(parameters):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = fit(y=CONSTANT_WITHIN, **parameters)
    assert "random effects reproduce the response exactly" in str(caught[0].message)
    assert caught[0].category is DegenerateModelWarning
    assert 0.0 <= model.noise_variance_ < 1e-8 * Y.var()
    np.testing.assert_allclose(model.coef_, 0.0, atol=1e-8)
    np.testing.assert_allclose(model.intercept_, 1.5, rtol=1e-8)
    np.testing.assert_allclose(model.predict(X, groups=SITES), CONSTANT_WITHIN, atol=1e-8)
    effects = model.random_effects_["group"]["intercept"]
    np.testing.assert_allclose(effects, [-1.5, -0.5, 1.5, 0.5], atol=1e-8)
    ddof = 1 if parameters.get("reml", True) else 0
    variance = model.covariances_["group"].loc["intercept", "intercept"]
    np.testing.assert_allclose(variance, np.var([0, 1, 2, 3], ddof=ddof), rtol=1e-3)


@pytest.mark.slow_cases("random_slopes")
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"reml": False},
        {"random_slopes": [0]},
        {"random_slopes": [0], "covariance": "diagonal"},
        {"random_slopes": [0], "covariance": "scalar"},
    ],
    ids=str,
)
def test_response_constant_within_levels_gives_one_warning(parameters):
    for seed in range(10):
        X, _ = simulate(seed)
        model = fit_with_one_warning(
            "noise variance cannot be told from zero", X, CONSTANT_WITHIN, **parameters
        )
        assert model.converged_


# Columns


# Columns: 2 = 0 + 1, 3 constant, 4 zero, 5 = 0.
ALIASED = np.column_stack([X, X.sum(axis=1), np.full(N, 4.0), ZEROS, X[:, 0]])


@pytest.mark.parametrize(
    ("columns", "fit_intercept", "aliased"),
    [
        ([0, 1, 2], True, [2]),
        ([0, 3, 1], True, [3]),
        ([4, 0, 1], True, [4]),
        ([0, 5, 1], True, [5]),
        ([0, 1, 2, 3, 4, 5], True, [2, 3, 4, 5]),
        ([2, 0, 1], True, [1]),
        ([0, 1, 2, 4], False, [2, 4]),
    ],
)
def test_aliased_fixed_columns(columns, fit_intercept, aliased):
    names = ", ".join(f"'x{column}'" for column in aliased)
    parameters = {"fit_intercept": fit_intercept}
    model = fit_with_one_warning(
        f"The fixed effects of {names} are aliased", ALIASED, fixed_effects=columns, **parameters
    )
    kept = [column for column in columns if column not in aliased]
    expected = fit(ALIASED, fixed_effects=kept, **parameters)
    rows = ALIASED[:, columns]
    predicted = ALIASED[:, kept] @ expected.coef_
    if fit_intercept:
        rows, predicted = rows - rows.mean(axis=0), predicted - predicted.mean()
    shortest = np.linalg.lstsq(rows, predicted, rcond=1e-10)[0]
    np.testing.assert_allclose(model.coef_, shortest, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(model.noise_variance_, expected.noise_variance_, rtol=1e-8)
    np.testing.assert_allclose(model.log_likelihood_, expected.log_likelihood_, rtol=1e-10)
    np.testing.assert_allclose(
        model.predict(ALIASED, groups=SITES), expected.predict(ALIASED, groups=SITES), rtol=1e-8
    )


def test_constant_column_takes_the_place_of_the_intercept():
    model = fit(ALIASED, fixed_effects=[0, 1, 3], fit_intercept=False)
    expected = fit()
    assert model.intercept_ == 0.0
    np.testing.assert_allclose(model.coef_[:2], expected.coef_, rtol=1e-8)
    np.testing.assert_allclose(4.0 * model.coef_[2], expected.intercept_, rtol=1e-8)


def test_aliased_columns_do_not_count_as_columns():
    few = slice(0, N, 6)
    with pytest.warns(DegenerateModelWarning, match=r"fixed effects of 'x1', 'x2'"):
        model = fit(np.c_[X[few, 0], X[few, 0], ZEROS[few], ZEROS[few]], Y[few], list("aabb"))
    assert np.isfinite(model.log_likelihood_)


@pytest.mark.parametrize("slope", [3, 4, 5], ids=["constant", "zero", "repeated"])
def test_aliased_random_slopes(slope):
    slopes = [0, slope]
    model = fit_with_one_warning(
        f"The random effects of 'x{slope}' are aliased.*Their variances are set to zero",
        ALIASED,
        fixed_effects=[0, 1],
        random_slopes=slopes,
    )
    expected = fit(ALIASED, fixed_effects=[0, 1], random_slopes=[0])
    name = f"x{slope}"
    np.testing.assert_allclose(model.log_likelihood_, expected.log_likelihood_, rtol=1e-10)
    np.testing.assert_array_equal(model.covariances_["group"][name], 0.0)
    np.testing.assert_array_equal(model.random_effects_["group"][name], 0.0)
    assert model.is_singular_
    np.testing.assert_allclose(
        model.predict(ALIASED, groups=SITES), expected.predict(ALIASED, groups=SITES), rtol=1e-6
    )


@pytest.mark.parametrize("covariance", ["full", "diagonal", "scalar"])
def test_zero_slope_column_leaves_the_intercept(covariance):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateModelWarning)
        model = fit(ALIASED, fixed_effects=[0, 1], random_slopes=[4], covariance=covariance)
    expected = fit()
    np.testing.assert_allclose(model.theta_[0], expected.theta_[0], rtol=1e-6)
    np.testing.assert_allclose(model.log_likelihood_, expected.log_likelihood_, rtol=1e-10)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-6)
    np.testing.assert_array_equal(model.random_effects_["group"]["x4"], 0.0)
    assert model.converged_
    if covariance != "scalar":
        assert model.covariances_["group"].loc["x4", "x4"] == 0.0
        assert model.is_singular_


MASK = np.array([[True, True, False], [True, True, False], [False, False, True]])


@pytest.mark.parametrize(
    ("slopes", "covariance"),
    [([4], "diagonal"), ([3], "diagonal"), ([0, 5], "diagonal"), ([0, 4], MASK)],
    ids=["zero", "constant", "repeated", "zero, masked"],
)
def test_aliased_random_slopes_without_covariances_warn(slopes, covariance):
    fit_with_one_warning(
        f"The random effects of 'x{slopes[-1]}' are aliased",
        ALIASED,
        fixed_effects=[0, 1],
        random_slopes=slopes,
        covariance=covariance,
    )


@pytest.mark.parametrize(
    "covariance",
    [
        pytest.param("full"),
        "diagonal",
        "scalar",
    ],
)
def test_zero_slope_column_as_the_only_random_effect(covariance):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateModelWarning)
        model = fit(
            ALIASED,
            fixed_effects=[0, 1],
            random_slopes=[4],
            random_intercept=False,
            covariance=covariance,
        )
    assert_is_ols(model)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_single_predictor_of_zeros(fit_intercept):
    model = fit_with_one_warning(
        "fixed effects of 'x0' are aliased", ZEROS[:, None], fit_intercept=fit_intercept
    )
    expected = fit(np.empty((N, 0)), fit_intercept=fit_intercept)
    np.testing.assert_array_equal(model.coef_, [0.0])
    np.testing.assert_allclose(model.intercept_, expected.intercept_, rtol=1e-10)
    np.testing.assert_allclose(model.theta_, expected.theta_, rtol=1e-6)


def test_random_slope_without_a_fixed_effect():
    model = MixedLinearRegressor(
        groups="site", fixed_effects=["length"], random_slopes=["width"], covariance="diagonal"
    ).fit(FRAME, Y)
    assert model.coef_.shape == (1,)
    assert list(model.covariances_["site"]) == ["intercept", "width"]
    effects = model.random_effects_["site"].to_numpy()[CODES]
    expected = model.intercept_ + X[:, 0] * model.coef_[0] + effects[:, 0] + effects[:, 1] * X[:, 1]
    np.testing.assert_allclose(model.predict(FRAME), expected, rtol=1e-12)


def balanced_one_way(y=Y):
    """REML of the balanced one-way layout in closed form: mean, variance between, noise."""
    by_level = y.reshape(4, 6)
    within = by_level.var(axis=1, ddof=1).mean()
    between = (6 * by_level.mean(axis=1).var(ddof=1) - within) / 6
    return y.mean(), between, within


@pytest.mark.parametrize(
    ("X", "parameters", "labels"),
    [
        (FRAME[["site"]], {"groups": "site"}, None),
        (FRAME, {"groups": "site", "fixed_effects": []}, None),
        (X, {"fixed_effects": []}, SITES),
        (X[:, :0], {}, SITES),
        (FRAME[[]], {}, SITES),
        (pl.DataFrame({"site": SITES.tolist()}), {"groups": 0}, None),
        (FRAME.assign(length="text", width=np.nan), {"groups": -1, "fixed_effects": []}, None),
    ],
    ids=["group column", "no fixed", "array", "no columns", "empty frame", "polars", "unused"],
)
def test_intercept_only(X, parameters, labels):
    model = MixedLinearRegressor(**parameters).fit(X, Y, groups=labels)
    mean, between, within = balanced_one_way()
    (covariance,) = model.covariances_.values()
    np.testing.assert_allclose(model.intercept_, mean, rtol=1e-10)
    np.testing.assert_allclose(covariance, [[between]], rtol=1e-7)
    np.testing.assert_allclose(model.noise_variance_, within, rtol=1e-7)
    assert model.coef_.shape == (0,)
    (effects,) = model.random_effects_.values()
    predicted = model.predict(X, groups=labels)
    np.testing.assert_allclose(predicted, model.intercept_ + effects["intercept"].to_numpy()[CODES])


def test_no_fixed_effects_at_all():
    model = fit(fixed_effects=[], fit_intercept=False)
    assert model.intercept_ == 0.0
    assert model.coef_covariance_.shape == (0, 0)
    effects = model.random_effects_["group"]["intercept"].to_numpy()
    np.testing.assert_allclose(model.predict(X, groups=SITES), effects[CODES])


def test_columns_of_text_that_are_not_used():
    unused = FRAME.assign(note="text", day=pd.Timestamp(0), hole=np.nan)
    model = fit_frame(unused, fixed_effects=["length", "width"])
    assert_same_fit(model, fit())
    np.testing.assert_allclose(model.predict(unused), fit().predict(X, groups=SITES), rtol=1e-10)


# Weights of zero


@pytest.mark.parametrize("slopes", [None, ["length"]])
def test_rows_of_weight_zero_are_absent(slopes):
    weights = RNG.uniform(0.5, 2.0, N)
    weights[:6] = weights[9] = weights[-1] = 0.0
    present = weights > 0.0
    model = fit_frame(sample_weight=weights, random_slopes=slopes)
    expected = fit_frame(FRAME[present], Y[present], weights[present], random_slopes=slopes)
    assert_same_fit(model, expected, rtol=1e-12)
    assert model.n_groups_ == {"site": 3}
    assert list(model.random_effects_["site"].index) == ["b", "c", "d"]
    # Level "a" has no row that counts, so it is a level that fit did not see.
    mean = model.predict(FRAME)
    np.testing.assert_allclose(mean[:6], model.predict(FRAME, random_effects="none")[:6])
    model.set_params(handle_unknown="error")
    with pytest.raises(ValueError, match="level 'a' of 'site'"):
        model.predict(FRAME)


# Labels


@dataclasses.dataclass(frozen=True)
class Plot:
    """A label without an order."""

    row: int
    column: int


LABELS = {
    "str": ["a", "b", "c", "d"],
    "unsorted str": ["d", "b", "a", "c"],
    "int": [5, -1, 3, 10],
    "bool": [False, True, False, True],
    "float": [0.5, -1.5, 0.0, 2.0],
    "tuple": [("a", 1), ("b", 2), ("a", 3), ("c", 0)],
    "nested tuple": [("a", (1, 2)), ("b", (1,)), ("c", ()), ("d", (3,))],
    "str and int": ["a", 1, "1", 2],
    "timestamp": list(pd.date_range("2020-01-01", periods=4)),
    "timestamp with zone": list(pd.date_range("2020-01-01", periods=4, tz="UTC")),
    "date": [datetime.date(2020, 1, day) for day in (3, 1, 2, 4)],
    "period": list(pd.period_range("2020-01", periods=4, freq="M")),
    "interval": list(pd.interval_range(0, 4)),
    "dataclass": [Plot(1, 2), Plot(0, 1), Plot(5, 5), Plot(2, 2)],
    "frozenset": [frozenset({i}) for i in range(4)],
    "bytes": [b"a", b"b", b"c", b"d"],
    "type": [int, str, Plot, float],
}


def as_object_array(labels):
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    return array


CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "array of objects": as_object_array,
    "Series": lambda labels: pd.Series(labels, name="group"),
    "one column": lambda labels: pd.DataFrame({"group": pd.Series(labels)}),
    "Series with another index": lambda labels: pd.Series(
        labels, name="group", index=np.arange(N)[::-1]
    ),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_kind(kind):
    distinct = LABELS[kind]
    labels = [distinct[code] for code in CODES]
    codes = [list(dict.fromkeys(labels)).index(label) for label in labels]
    expected = fit(groups=codes)
    model = fit(groups=labels, handle_unknown="error")
    assert_same_fit(model, expected, rtol=1e-6)
    effects = model.random_effects_["group"]
    assert set(effects.index) == set(labels)
    assert len(effects.index) == len(set(labels))
    by_level = dict(zip(effects.index, effects["intercept"], strict=True))
    added = np.array([by_level[label] for label in labels])
    mean = model.intercept_ + X @ model.coef_ + added
    for container in CONTAINERS.values():
        np.testing.assert_allclose(model.predict(X, groups=container(labels)), mean, rtol=1e-12)
    np.testing.assert_allclose(
        model.predict(X[::-1][:5], groups=labels[::-1][:5]), mean[::-1][:5], rtol=1e-12
    )


@pytest.mark.parametrize("container", CONTAINERS)
def test_labels_in_any_container(container):
    groups = CONTAINERS[container](list(SITES))
    model = fit(groups=groups)
    assert_same_fit(model, fit(), rtol=1e-10)
    assert list(model.random_effects_["group"].index) == list("abcd")


@pytest.mark.parametrize(
    "groups",
    [SITES[:, None], [[site] for site in SITES], pl.Series("group", SITES.tolist())],
    ids=["column", "rows of one", "polars"],
)
def test_labels_as_a_column(groups):
    assert_same_fit(fit(groups=groups), fit(), rtol=1e-10)


@pytest.mark.parametrize("distinct", [list("abcd"), LABELS["tuple"], LABELS["interval"]])
def test_categories_with_unused_levels(distinct):
    labels = [distinct[code] for code in CODES]
    extra = [*distinct[::-1], *LABELS["dataclass"][:2]] if distinct[0] == "a" else distinct[::-1]
    groups = pd.Categorical.from_codes(3 - CODES, categories=extra)
    in_column = fit_frame(FRAME.assign(site=groups), handle_unknown="error")
    beside = fit(groups=groups, handle_unknown="error")
    for model, factor in ((in_column, "site"), (beside, "group")):
        assert_same_fit(model, fit(), rtol=1e-7)
        assert model.n_groups_ == {factor: 4}
        assert set(model.random_effects_[factor].index) == set(distinct)
    mean = fit().predict(X, groups=SITES)
    np.testing.assert_allclose(in_column.predict(FRAME.assign(site=groups)), mean, rtol=1e-7)
    np.testing.assert_allclose(beside.predict(X, groups=labels), mean, rtol=1e-7)
    reordered = pd.Categorical.from_codes(CODES, categories=list(distinct))
    np.testing.assert_allclose(beside.predict(X, groups=reordered), mean, rtol=1e-7)


def test_equal_labels_are_one_level():
    groups = [[1, True, 0, False][code] for code in CODES]
    model = fit(groups=groups)
    assert model.n_groups_ == {"group": 2}
    mean = model.predict(X, groups=groups)
    np.testing.assert_allclose(mean, model.predict(X, groups=[int(label) for label in groups]))


# Types and memory of the numbers


ROUNDED = FRAME.assign(length=np.tile([0, 1, 1], 8), width=np.round(3.0 * X[:, 1]))


@pytest.mark.parametrize(
    "dtypes",
    [
        {"length": "bool"},
        {"length": "boolean"},
        {"length": "Int64"},
        {"length": "uint8", "width": "int16"},
        {"length": "Int64", "width": "Float64"},
        {"length": "Float32", "width": "float32"},
        {"length": "bool", "width": "Float64"},
        {"length": "object", "width": "object"},
    ],
    ids=str,
)
def test_dtypes_of_columns(dtypes):
    frame = ROUNDED.astype(dtypes)
    expected = fit_frame(ROUNDED, random_slopes=["length"], covariance="diagonal")
    model = fit_frame(frame, random_slopes=["length"], covariance="diagonal")
    assert_same_fit(model, expected, rtol=1e-6)
    np.testing.assert_allclose(model.predict(frame), expected.predict(ROUNDED), rtol=1e-6)
    assert model.coef_.dtype == model.predict(frame).dtype == np.float64


@pytest.mark.parametrize("dtype", ["bool", "boolean"])
def test_columns_all_of_bool(dtype):
    columns = ROUNDED[["length"]].astype(dtype)
    expected = fit(ROUNDED[["length"]])
    model = fit(columns)
    assert_same_fit(model, expected, rtol=1e-10)
    np.testing.assert_allclose(
        model.predict(columns, groups=SITES), expected.predict(ROUNDED[["length"]], groups=SITES)
    )


@pytest.mark.parametrize("dtype", ["bool", "boolean", "int64", "Int64", "Float64", "object"])
def test_dtypes_of_the_response(dtype):
    y = pd.Series((Y > 1.0).astype(float))
    assert_same_fit(fit(y=y.astype(dtype)), fit(y=y), rtol=1e-10)


def test_single_precision():
    model = fit(X.astype(np.float32), Y.astype(np.float32), random_slopes=[0])
    expected = fit(X.astype(np.float32).astype(float), Y.astype(np.float32), random_slopes=[0])
    assert_same_fit(model, expected, rtol=1e-6)
    assert_same_fit(model, fit(random_slopes=[0]), rtol=1e-4)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def every_other(array):
    spread = np.full([2 * size for size in array.shape], np.nan)
    spread[(slice(None, None, 2),) * array.ndim] = array
    return spread[(slice(None, None, 2),) * array.ndim]


@pytest.mark.parametrize(
    "arrange",
    [read_only, np.asfortranarray, every_other, lambda array: array[::-1].copy()[::-1]],
    ids=["read-only", "Fortran", "every other", "reversed"],
)
def test_memory_layout(arrange):
    weights = RNG.uniform(0.5, 2.0, N)
    values = [arrange(array) for array in (X, Y, CODES.astype(float), weights)]
    before = [array.copy() for array in values]
    model = fit(*values, random_slopes=[0])
    expected = fit(X, Y, CODES, weights, random_slopes=[0])
    assert_same_fit(model, expected, rtol=1e-6)
    np.testing.assert_allclose(
        model.predict(values[0], groups=values[2]), expected.predict(X, groups=CODES), rtol=1e-6
    )
    for array, copy in zip(values, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_weight_given_as_a_scalar():
    model, expected = fit(sample_weight=2.0), fit()
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-8)
    np.testing.assert_allclose(model.noise_variance_, 2.0 * expected.noise_variance_, rtol=1e-8)


def test_a_fit_that_was_cut_short_says_so_even_where_the_noise_vanishes():
    groups = np.repeat(np.arange(12), 6)
    certified = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        y = rng.normal(size=12)[groups]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = fit(rng.normal(size=(72, 3)), y, groups, random_slopes=[0, 1, 2], max_iter=1)
        categories = [DegenerateModelWarning] + [ConvergenceWarning] * (not model.converged_)
        assert [w.category for w in caught] == categories
        assert model.converged_ or "Raise max_iter" in str(caught[1].message)
        assert model.n_iter_ == 1
        certified.append(model.converged_)
    assert not all(certified)
