"""Degrees of freedom, adjusted covariances and standard errors of variances.

Tolerances. The formulas are exact at any variances, and agree to ten digits or so; what differs is
that the estimator's optimum has about eight digits, and that Satterthwaite's method takes
differences of derivatives (nine digits, of which the inverse of an information loses a few).
"""

import copy
import pickle
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from scipy.stats import f as f_distribution
from scipy.stats import kstest

from helpers.chance import within_binomial
from mixedlearn import MixedLinearRegressor
from mixedlearn.datasets import load_dyestuff2
from mixedlearn.engines.profiled import ProfiledEngine
from mixedlearn.exceptions import DegenerateModelWarning
from mixedlearn.inference import (
    anova,
    coefficient_covariance,
    coefficient_table,
    confidence_intervals,
    contrast_test,
    variance_table,
)
from reference.dense import Dense
from reference.dense_inference import (
    DenseInference,
    free_entries,
    satterthwaite_by_differences,
)

CLOSE = {"rtol": 2e-6}


# --- against dense algebra -----------------------------------------------------------------------
@dataclass
class Problem:
    """Rows, and the estimator's parameters."""

    X: pd.DataFrame
    y: np.ndarray
    groups: np.ndarray
    slopes: dict
    covariance: dict
    weights: np.ndarray | None


CHAIN = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], bool)
BLOCKS = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], bool)
# Slopes and covariance structure of every factor.
MODELS = {
    "intercepts": [([], "full")],
    "slope": [(["x"], "full")],
    "diagonal": [(["x"], "diagonal")],
    "scalar": [(["x", "z"], "scalar")],
    "chain": [(["x", "z"], CHAIN)],
    "blocks": [(["x", "z"], BLOCKS)],
    "crossed": [([], "full"), ([], "full")],
    "crossed slopes": [(["x"], "full"), (["z"], "diagonal")],
    "three": [([], "full"), (["x"], "scalar"), ([], "full")],
    "crossed chain": [(["x", "z"], CHAIN), ([], "full")],
}
N_LEVELS = (9, 11, 7)


def draw(name, *, weighted, seed=1):
    rng = np.random.default_rng([sorted(MODELS).index(name), seed])
    n = 180
    X = pd.DataFrame(rng.standard_normal((n, 3)), columns=["x", "z", "w"])
    X["x"] = 2.0 * X["x"] + 1.0
    parts, slopes, covariance = [], {}, {}
    weights = rng.uniform(0.3, 3.0, n) if weighted else None
    y = (
        2.0
        + 0.3 * X["w"].to_numpy()
        + rng.standard_normal(n) / np.sqrt(1.0 if weights is None else weights)
    )
    for k, (own_slopes, own_covariance) in enumerate(MODELS[name]):
        codes = rng.integers(0, N_LEVELS[k], n) ** 2 // N_LEVELS[k]
        codes = np.unique(codes, return_inverse=True)[1]
        z = np.column_stack([np.ones(n), *(X[column] for column in own_slopes)])
        effects = 1.5 * rng.standard_normal((codes.max() + 1, z.shape[1]))
        y += (effects[codes] * z).sum(axis=1)
        parts.append(codes)
        slopes[f"group{k}"], covariance[f"group{k}"] = own_slopes, own_covariance
    if len(parts) == 1:
        slopes, covariance = {"group": slopes["group0"]}, {"group": covariance["group0"]}
    return Problem(X, y, np.column_stack(parts).squeeze(), slopes, covariance, weights)


def fit(problem, **parameters):
    model = MixedLinearRegressor(
        random_slopes=problem.slopes, covariance=problem.covariance, **parameters
    )
    return model.fit(problem.X, problem.y, groups=problem.groups, sample_weight=problem.weights)


def densely(problem, model, reml=True):
    groups = problem.groups.reshape(len(problem.y), -1).T
    n = len(problem.y)
    columns = [
        np.column_stack([np.ones(n), *(problem.X[column] for column in own)])
        for own in problem.slopes.values()
    ]
    directions = []
    for z, structure in zip(columns, problem.covariance.values(), strict=True):
        q = z.shape[1]
        if isinstance(structure, str) and structure == "scalar":
            directions.append([np.eye(q)])
        elif isinstance(structure, str):
            directions.append(
                free_entries(np.eye(q) if structure == "diagonal" else np.ones((q, q)))
            )
        else:
            directions.append(free_entries(structure))
    rows = Dense(
        np.column_stack([np.ones(n), problem.X]),
        problem.y,
        columns,
        list(groups),
        [codes.max() + 1 for codes in groups],
        problem.weights,
        reml,
    )
    covariances = [covariance.to_numpy() for covariance in model.covariances_.values()]
    return DenseInference(rows, directions, covariances, model.noise_variance_)


L = np.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.5, 1.0, -1.0]])


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_satterthwaite_by_dense_algebra(name, weighted):
    problem = draw(name, weighted=weighted)
    model = fit(problem)
    assert not model.is_singular_
    dense = densely(problem, model)
    expected = [dense.satterthwaite(row) for row in np.eye(4)]
    np.testing.assert_allclose(coefficient_table(model)["df"], expected, **CLOSE)
    test = contrast_test(model, L)
    np.testing.assert_allclose((test.f_value, test.den_df), dense.satterthwaite_joint(L), **CLOSE)


@pytest.mark.parametrize("name", ["slope", "chain", "crossed slopes"])
def test_satterthwaite_by_maximum_likelihood(name):
    problem = draw(name, weighted=True)
    model = fit(problem, reml=False)
    assert not model.is_singular_
    dense = densely(problem, model, reml=False)
    expected = [dense.satterthwaite(row) for row in np.eye(4)]
    np.testing.assert_allclose(coefficient_table(model)["df"], expected, **CLOSE)


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_kenward_roger_by_dense_algebra(name, weighted):
    problem = draw(name, weighted=weighted)
    model = fit(problem)
    dense = densely(problem, model)
    covariance = coefficient_covariance(model, "kenward-roger")
    np.testing.assert_allclose(covariance, dense.adjusted_covariance(), rtol=1e-7, atol=1e-10)
    table = coefficient_table(model, "kenward-roger")
    single = np.array([dense.kenward_roger(row[None]) for row in np.eye(4)])
    np.testing.assert_allclose(table["t_value"] ** 2, single[:, 0], rtol=1e-6)
    np.testing.assert_allclose(table["df"], single[:, 1], rtol=1e-6)
    test = contrast_test(model, L, ddf="kenward-roger")
    np.testing.assert_allclose((test.f_value, test.den_df), dense.kenward_roger(L), rtol=1e-6)
    np.testing.assert_allclose(
        test.p_value, f_distribution.sf(test.f_value, 2, test.den_df), rtol=1e-9
    )


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_standard_errors_of_variances_by_dense_algebra(name, reml):
    problem = draw(name, weighted=True)
    model = fit(problem, reml=reml)
    dense = densely(problem, model, reml)
    noise, *others = np.sqrt(np.diag(dense.parameter_covariance(observed=True)))
    expected, start = [], 0
    for structure, slopes in zip(problem.covariance.values(), problem.slopes.values(), strict=True):
        if isinstance(structure, str) and structure == "scalar":
            expected += [others[start]] * (1 + len(slopes))
            start += 1
        else:
            q = 1 + len(slopes)
            n_free = (
                {"full": q * (q + 1) // 2, "diagonal": q}.get(structure)
                if isinstance(structure, str)
                else int(np.tril(structure).sum())
            )
            expected += others[start : start + n_free]
            start += n_free
    table = variance_table(model)
    np.testing.assert_allclose(table["std_error"], [*expected, noise], rtol=1e-5)


@pytest.mark.slow_cases("crossed chain", "crossed slopes", "three")
@pytest.mark.parametrize("name", ["crossed", "crossed slopes", "three", "crossed chain"])
def test_elimination_gives_the_same_degrees_of_freedom(name, use_engine):
    problem = draw(name, weighted=True)
    joint = fit(problem)
    expected = coefficient_table(joint), variance_table(joint)
    use_engine("elimination")
    model = fit(problem)
    np.testing.assert_allclose(coefficient_table(model), expected[0], rtol=1e-5)
    np.testing.assert_allclose(
        variance_table(model)["std_error"], expected[1]["std_error"], rtol=1e-5
    )


@pytest.mark.parametrize("name", ["slope", "crossed slopes"])
@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_units_and_origins_change_nothing(name, ddf):
    problem = draw(name, weighted=False)
    before = coefficient_table(fit(problem), ddf)
    problem.X = problem.X * [1e3, 1e-4, 1.0] + [50.0, 0.0, -4e4]
    problem.y = 1e-3 * problem.y + 7.0
    after = coefficient_table(fit(problem), ddf)
    columns = ["df", "t_value", "p_value"]
    np.testing.assert_allclose(after.loc["x":, columns], before.loc["x":, columns], rtol=1e-5)
    np.testing.assert_allclose(after["df"], after["df"].abs())


# --- closed forms --------------------------------------------------------------------------------
METHODS = ["satterthwaite", "kenward-roger"]


@pytest.mark.parametrize("ddf", METHODS)
@pytest.mark.parametrize(("m", "size"), [(6, 5), (14, 3), (4, 20)])
def test_balanced_one_way_layout(m, size, ddf):
    rng = np.random.default_rng(m)
    codes = np.repeat(np.arange(m), size)
    between = (np.arange(m) % 2.0)[codes]
    within = np.tile(np.arange(size) - (size - 1) / 2.0, m)
    y = 5.0 + 2.0 * rng.standard_normal(m)[codes] + rng.standard_normal(m * size)
    X = pd.DataFrame({"between": between, "within": within})
    model = MixedLinearRegressor().fit(X, y, groups=codes)
    table = coefficient_table(model, ddf)
    np.testing.assert_allclose(table["df"], [m - 2, m - 2, m * size - m - 1], rtol=1e-6)
    # A balanced treatment of levels is tested with their means alone.
    means = np.bincount(codes, y - table.loc["within", "estimate"] * within) / size
    first, second = means[::2], means[1::2]
    pooled = (first.var() * len(first) + second.var() * len(second)) / (m - 2)
    error = np.sqrt(pooled * (1.0 / len(first) + 1.0 / len(second)))
    t_value = (second.mean() - first.mean()) / error
    np.testing.assert_allclose(table.loc["between", "t_value"], t_value, rtol=1e-6)


def test_standard_errors_of_variances_of_a_balanced_layout():
    m, size = 8, 5
    rng = np.random.default_rng(3)
    codes = np.repeat(np.arange(m), size)
    y = 2.0 * rng.standard_normal(m)[codes] + rng.standard_normal(m * size)
    model = MixedLinearRegressor().fit(np.zeros((m * size, 0)), y, groups=codes)
    means = np.bincount(codes, y) / size
    A = size * means.var(ddof=1)
    W = ((y - means[codes]) ** 2).sum() / (m * size - m)
    noise = 2.0 * W**2 / (m * size - m)
    between = (2.0 * A**2 / (m - 1) + noise) / size**2
    np.testing.assert_allclose(
        variance_table(model)["std_error"], np.sqrt([between, noise]), rtol=1e-6
    )


def dummies(codes):
    """Treatment contrasts: a column for every value but the first."""
    return (codes[:, None] == np.arange(1, codes.max() + 1)).astype(float)


def split_plot(a=3, b=4, r=6, seed=1):
    rng = np.random.default_rng(seed)
    A, B, block = (own.ravel() for own in np.meshgrid(range(a), range(b), range(r), indexing="ij"))
    plot = block * a + A
    y = rng.standard_normal(len(A)) + 2.0 * rng.standard_normal(a * r)[plot]
    y += 3.0 * rng.standard_normal(r)[block] + 0.5 * A + 0.2 * A * B
    return A, B, block, plot, y


def mean_square(y, terms):
    """Mean square of the last term after the others, and its degrees of freedom."""

    def fitted(columns):
        X = np.column_stack([np.ones(len(y)), *columns])
        rest = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
        return rest @ rest, np.linalg.matrix_rank(X)

    (before, rank), (after, full_rank) = fitted(terms[:-1]), fitted(terms)
    return (before - after) / (full_rank - rank), full_rank - rank


@pytest.mark.parametrize("ddf", METHODS)
def test_balanced_split_plot(ddf):
    A, B, block, plot, y = split_plot()
    A_columns, B_columns = dummies(A), dummies(B)
    # Contrasts that sum to zero, so that a term's coefficients are its hypothesis.
    A_columns[A == 0], B_columns[B == 0] = -1.0, -1.0
    both = np.einsum("ri,rj->rij", A_columns, B_columns).reshape(len(y), -1)
    X = np.column_stack([A_columns, B_columns, both])
    model = MixedLinearRegressor().fit(X, y, groups=np.column_stack([block, plot]))
    assert not model.is_singular_
    blocks, plots = dummies(block), dummies(plot)
    squares = {
        "A": mean_square(y, [A_columns]),
        "B": mean_square(y, [B_columns]),
        "AB": mean_square(y, [A_columns, B_columns, both]),
        "plots": mean_square(y, [A_columns, blocks, plots]),
        "noise": mean_square(y, [plots, B_columns, both, np.eye(len(y))]),
    }
    rows = np.split(np.eye(12)[1:], [2, 5])
    for name, own, error in zip(["A", "B", "AB"], rows, ["plots", "noise", "noise"], strict=True):
        test = contrast_test(model, own, ddf)
        (square, num_df), (error_square, den_df) = squares[name], squares[error]
        assert test.num_df == num_df
        np.testing.assert_allclose(
            (test.f_value, test.den_df), (square / error_square, den_df), rtol=1e-6
        )


@pytest.mark.parametrize("ddf", METHODS)
def test_randomised_blocks(ddf):
    rng = np.random.default_rng(5)
    treatment, block = np.tile(np.arange(4), 7), np.repeat(np.arange(7), 4)
    y = rng.standard_normal(28) + 2.0 * rng.standard_normal(7)[block] + 0.3 * treatment
    model = MixedLinearRegressor().fit(dummies(treatment), y, groups=block)
    test = contrast_test(model, np.eye(4)[1:], ddf)
    square, _ = mean_square(y, [dummies(treatment)])
    error, den_df = mean_square(y, [dummies(block), dummies(treatment), np.eye(28)])
    np.testing.assert_allclose((test.f_value, test.den_df), (square / error, 18), rtol=1e-6)
    assert den_df == 18


@pytest.mark.parametrize("ddf", [*METHODS, "residual"])
@pytest.mark.parametrize("reml", [True, False])
def test_without_random_effects_the_degrees_of_freedom_are_exact(ddf, reml):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30, 2)), rng.standard_normal(30)
    with pytest.warns(match="no groups"):
        model = MixedLinearRegressor(reml=reml).fit(X, y)
    assert coefficient_table(model, ddf)["df"].tolist() == pytest.approx([27.0] * 3, rel=1e-14)
    test = contrast_test(model, np.eye(3)[1:], ddf)
    assert test.den_df == pytest.approx(27.0, rel=1e-14)
    total = ((y - y.mean()) ** 2).sum()
    rest = ((y - model.predict(X)) ** 2).sum()
    scale = 1.0 if reml else 30.0 / 27.0
    assert test.f_value == pytest.approx(scale * (total - rest) / 2.0 / (rest / 27.0), rel=1e-9)


def test_no_variance_between_levels():
    """Satterthwaite: nothing but the noise is uncertain. KR: as if in the interior."""
    X, y = load_dyestuff2(return_X_y=True)
    model = MixedLinearRegressor(groups="Batch").fit(X, y)
    assert model.is_singular_
    assert coefficient_table(model).loc["intercept", "df"] == pytest.approx(29.0, rel=1e-7)
    assert coefficient_table(model, "kenward-roger").loc["intercept", "df"] == pytest.approx(5.0)
    errors = variance_table(model)["std_error"]
    assert np.isnan(errors[0])
    assert errors[1] == pytest.approx(model.noise_variance_ * np.sqrt(2.0 / 29.0), rel=1e-7)


def test_a_zero_variance_is_as_if_left_out():
    rng = np.random.default_rng(12)
    codes = rng.integers(0, 10, 80)
    X = pd.DataFrame(rng.standard_normal((80, 2)), columns=["x", "z"])
    # Within levels the response has no slope: its slopes vary less than noise makes them.
    y = 2.0 * rng.standard_normal(10)[codes] + rng.standard_normal(80)
    for column in (X["x"], X["z"]):
        for i in range(10):
            own = codes == i
            centred = column[own] - column[own].mean()
            y[own] -= centred * (centred @ y[own]) / (centred @ centred)
    model = MixedLinearRegressor(random_slopes=["x"], covariance="diagonal").fit(X, y, groups=codes)
    assert model.covariances_["group"].loc["x", "x"] == 0.0
    without = MixedLinearRegressor().fit(X, y, groups=codes)
    columns = ["std_error", "df", "t_value", "p_value"]
    np.testing.assert_allclose(
        coefficient_table(model)[columns], coefficient_table(without)[columns], rtol=1e-6
    )
    errors = variance_table(model)["std_error"]
    assert errors.isna().tolist() == [False, True, False]
    np.testing.assert_allclose(errors.dropna(), variance_table(without)["std_error"], rtol=1e-6)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_perfectly_correlated_effects(sign):
    rng = np.random.default_rng(13)
    codes = np.repeat(np.arange(8), 9)
    x = rng.standard_normal(72)
    effects = rng.standard_normal(8)
    y = effects[codes] * (2.0 + sign * x) + rng.standard_normal(72)
    model = MixedLinearRegressor(random_slopes=["x"]).fit(pd.DataFrame({"x": x}), y, groups=codes)
    assert model.is_singular_
    table = variance_table(model)
    assert table["correlation"].iloc[2] == pytest.approx(sign)
    assert table["std_error"].isna().tolist() == [True, True, True, False]
    columns = np.column_stack([np.ones(72), x])
    rows = Dense(columns, y, [columns], [codes], [8])
    lower = np.zeros((2, 2))
    lower[np.tril_indices(2)] = model.theta_[[0, 1, 2]]
    sigma = np.sqrt(model.noise_variance_)
    expected = [satterthwaite_by_differences(rows, lower, sigma, row) for row in np.eye(2)]
    np.testing.assert_allclose(coefficient_table(model)["df"], expected, rtol=1e-4)


@pytest.mark.slow
def test_p_values_are_uniform_under_the_null():
    """Eight groups of unequal sizes, treatments of groups and within groups.

    Of nine bounds each fails with a probability of 1e-5, for any seed.
    """
    n_data_sets, rate = 800, 1e-5
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(8), [2, 3, 4, 5, 6, 7, 3, 4])
    n = len(codes)
    X = pd.DataFrame({"between": codes % 2.0, "within": rng.standard_normal(n)})
    found = {ddf: [] for ddf in (*METHODS, "normal")}
    for _ in range(n_data_sets):
        y = 2.0 * rng.standard_normal(8)[codes] + rng.standard_normal(n)
        model = MixedLinearRegressor().fit(X, y, groups=codes)
        for ddf, own in found.items():
            own.append(coefficient_table(model, ddf)["p_value"].to_numpy()[1:])
    for ddf in METHODS:
        for own in np.transpose(found[ddf]):
            assert kstest(own, "uniform").pvalue > rate
            assert within_binomial((own < 0.05).sum(), n_data_sets, 0.05, rate)
    # With six degrees of freedom |t| > 1.96 in 0.098.
    rejected = (np.array(found["normal"])[:, 0] < 0.05).sum()
    assert not within_binomial(rejected, n_data_sets, 0.05, rate)


# --- degenerate models ---------------------------------------------------------------------------
def quietly(model, X, y, groups):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(X, y, groups=groups)


def test_aliased_columns_are_as_if_left_out():
    rng = np.random.default_rng(4)
    codes = rng.integers(0, 8, 60)
    X = pd.DataFrame(rng.standard_normal((60, 2)), columns=["x", "w"])
    y = rng.standard_normal(60) + rng.standard_normal(8)[codes]
    model = MixedLinearRegressor().fit(X, y, groups=codes)
    X.insert(1, "twice", 2.0 * X["x"] + 1.0)
    aliased = quietly(MixedLinearRegressor(), X, y, codes)
    divided = ["intercept", "x", "twice"]
    for ddf in METHODS:
        with pytest.warns(DegenerateModelWarning, match="of 'intercept', 'x', 'twice' cannot be"):
            table = coefficient_table(aliased, ddf)
        assert table.loc[divided].drop(columns="estimate").isna().all(axis=None)
        np.testing.assert_allclose(table["estimate"].iloc[1:], aliased.coef_)
        pd.testing.assert_frame_equal(table.loc[["w"]], coefficient_table(model, ddf).loc[["w"]])
    for kind in (1, 2, 3):
        # The second of two columns adds nothing, and none of them adds anything to the other.
        lost = ["twice"] if kind == 1 else ["x", "twice"]
        with pytest.warns(DegenerateModelWarning, match=f"cannot test {str(lost)[1:-1]}:"):
            table = anova(aliased, kind)
        assert (table.loc[lost, "num_df"] == 0).all()
        pd.testing.assert_frame_equal(table.drop(lost), anova(model, kind).drop(lost[:-1]))
    # The sum of both columns' effects along x is what the other model calls the effect of x.
    test = contrast_test(aliased, {"x": 1.0, "twice": 2.0})
    assert test.estimate[0] == pytest.approx(model.coef_[0])
    with pytest.raises(ValueError, match=r"cannot be estimated.*'twice'"):
        contrast_test(aliased, {"twice": 1.0})


def test_an_exact_fit_has_infinite_t():
    X = pd.DataFrame({"x": np.arange(12.0), "w": np.tile([1.0, 0.0, 5.0], 4)})
    model = quietly(MixedLinearRegressor(), X, 1.0 + X["x"], np.repeat(np.arange(4), 3))
    for ddf in METHODS:
        table = coefficient_table(model, ddf)
        assert table["df"].tolist() == [9.0] * 3
        assert np.isinf(table.loc["x", "t_value"])
        assert table.loc["x", "p_value"] == 0.0
        assert anova(model, ddf=ddf).loc["x", "p_value"] == 0.0
    assert variance_table(model)["std_error"].isna().all()


def test_as_many_rows_as_columns_leave_no_degrees_of_freedom():
    with pytest.warns():
        model = MixedLinearRegressor().fit(np.array([[0.0], [1.0]]), [1.0, 3.0])
    assert coefficient_table(model)["df"].tolist() == [0.0, 0.0]
    assert coefficient_table(model)["p_value"].isna().all()


@pytest.mark.parametrize("slopes", [None, [0]])
def test_one_level_and_own_levels(slopes):
    """Nothing but noise: what cannot be told from it is counted as noise."""
    rng = np.random.default_rng(6)
    X, y = rng.standard_normal((20, 1)), rng.standard_normal(20)
    for codes in (np.zeros(20), np.arange(20)):
        model = quietly(MixedLinearRegressor(random_slopes=slopes), X, y, codes)
        if not model.theta_.any():
            assert coefficient_table(model)["df"].tolist() == pytest.approx([18.0, 18.0])
        assert np.isfinite(coefficient_table(model, "kenward-roger")).to_numpy().all()


def test_random_effects_that_reproduce_the_response():
    codes = np.repeat(np.arange(6), 5)
    x = np.random.default_rng(7).standard_normal(30)
    model = quietly(MixedLinearRegressor(), x[:, None], x + codes**2.0, codes)
    for ddf in METHODS:
        df = coefficient_table(model, ddf)["df"]
        assert df.iloc[0] == pytest.approx(5.0, rel=1e-3)
        assert df.iloc[1] == pytest.approx(23.0, rel=1e-3)


def test_a_flat_likelihood_has_no_standard_errors():
    rng = np.random.default_rng(8)
    codes = np.repeat(np.arange(8), 5)
    y = rng.standard_normal(40) + 2.0 * rng.standard_normal(8)[codes]
    model = quietly(MixedLinearRegressor(), np.zeros((40, 0)), y, np.column_stack([codes, codes]))
    alone = MixedLinearRegressor().fit(np.zeros((40, 0)), y, groups=codes)
    table = variance_table(model)
    assert table["std_error"].isna().tolist() == [True, True, False]
    for ddf in METHODS:
        np.testing.assert_allclose(
            coefficient_table(model, ddf), coefficient_table(alone, ddf), rtol=1e-5
        )


def test_factors_without_columns():
    problem = draw("crossed", weighted=False)
    problem.X["constant"] = 0.0
    expected = coefficient_table(
        MixedLinearRegressor(fixed_effects=["x", "z", "w"]).fit(
            problem.X, problem.y, groups=problem.groups[:, 0]
        ),
        "kenward-roger",
    )
    model = quietly(
        MixedLinearRegressor(
            fixed_effects=["x", "z", "w"],
            random_intercept={"group1": False},
            random_slopes={"group1": ["constant"]},
        ),
        problem.X,
        problem.y,
        problem.groups,
    )
    np.testing.assert_allclose(coefficient_table(model, "kenward-roger"), expected, rtol=1e-6)
    assert variance_table(model)["std_error"].isna().tolist() == [False, True, False]


# --- refusals ------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def fitted():
    return fit(draw("crossed", weighted=False))


def test_unknown_methods_and_levels_are_refused(fitted):
    with pytest.raises(ValueError, match=r"ddf='kr'.*'kenward-roger'"):
        coefficient_table(fitted, "kr")
    with pytest.raises(ValueError, match="level must be a probability between 0 and 1, got 95"):
        coefficient_table(fitted, level=95)
    with pytest.raises(ValueError, match="kind='robust'"):
        coefficient_covariance(fitted, "robust")


def test_kenward_roger_needs_reml():
    model = fit(draw("slope", weighted=False), reml=False)
    with pytest.raises(ValueError, match="reml=True"):
        coefficient_table(model, "kenward-roger")


def test_kenward_roger_refuses_many_effects_of_several_factors(fitted, monkeypatch):
    monkeypatch.setattr("mixedlearn.inference._kenward_roger.MOST_EFFECTS", 10)
    with pytest.raises(ValueError, match="satterthwaite"):
        coefficient_table(fitted, "kenward-roger")


def test_residual_and_normal(fitted):
    residual, normal = coefficient_table(fitted, "residual"), coefficient_table(fitted, "normal")
    assert (residual["df"] == 176).all()
    assert np.isinf(normal["df"]).all()
    margin = (normal["upper"] - normal["lower"]) / 2.0 / normal["std_error"]
    np.testing.assert_allclose(margin, 1.959963984540054)
    assert (residual["p_value"] > normal["p_value"]).all()
    narrow = coefficient_table(fitted, "normal", level=0.5)
    np.testing.assert_allclose(
        (narrow["upper"] - narrow["estimate"]) / narrow["std_error"], 0.67449, rtol=1e-4
    )


def test_variances_without_standard_errors(fitted):
    table = variance_table(fitted)
    pd.testing.assert_frame_equal(
        variance_table(fitted, std_error=False), table.drop(columns="std_error")
    )


# --- once per fit --------------------------------------------------------------------------------
@pytest.fixture
def evaluations(monkeypatch):
    """The thetas at which likelihoods are evaluated from here on."""
    found = []
    evaluate = ProfiledEngine.evaluate

    def counted(self, theta, order):
        found.append(theta)
        return evaluate(self, theta, order)

    monkeypatch.setattr(ProfiledEngine, "evaluate", counted)
    return found


def crossed(seed=0):
    generator = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "x": generator.normal(size=400),
            "a": generator.integers(0, 30, 400),
            "b": generator.integers(0, 20, 400),
        }
    )
    effects = generator.normal(size=30)[X["a"]] + generator.normal(size=20)[X["b"]]
    y = X["x"] + effects + generator.normal(size=400)
    return MixedLinearRegressor(groups=["a", "b"]), X, y


TABLES = [
    coefficient_table,
    anova,
    variance_table,
    confidence_intervals,
    lambda model: contrast_test(model, np.eye(2)),
    lambda model: model.summary(std_error=True),
    lambda model: coefficient_table(model, "kenward-roger"),
    lambda model: coefficient_covariance(model, "kenward-roger"),
]


def test_tables_share_what_they_rest_on(evaluations, monkeypatch):
    model, X, y = crossed()
    model.fit(X, y)
    del evaluations[:]
    coefficient_table(model)
    assert evaluations
    coefficient_table(model, "kenward-roger")
    del evaluations[:]
    monkeypatch.setattr("mixedlearn.inference._kenward_roger._blocks", None)
    for table in TABLES:
        table(model)
    assert not evaluations


def test_another_fit_shares_nothing(evaluations):
    model, X, y = crossed()
    before = coefficient_table(model.fit(X, y))
    expected = coefficient_table(crossed(1)[0].fit(*crossed(1)[1:]))
    again = coefficient_table(model.fit(*crossed(1)[1:]))
    pd.testing.assert_frame_equal(again, expected)
    assert (again["df"] != before["df"]).all()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_hold_no_tables(evaluations, copied):
    model, X, y = crossed()
    fresh = len(pickle.dumps(model.fit(X, y)))
    table = coefficient_table(model)
    assert len(pickle.dumps(model)) == fresh
    other = copied(model)
    del evaluations[:]
    pd.testing.assert_frame_equal(coefficient_table(other), table, rtol=1e-9)
    assert evaluations


def test_further_rows_for_the_random_effects_change_no_tables(evaluations):
    model, X, y = crossed()
    table = coefficient_table(model.fit(X, y))
    model.update_random_effects(X.assign(a=99).head(20), y.head(20))
    del evaluations[:]
    pd.testing.assert_frame_equal(coefficient_table(model), table)
    assert not evaluations


@pytest.mark.parametrize("slopes", [None, ["x"]])
def test_dear_evaluations_are_few(evaluations, monkeypatch, slopes):
    model, X, y = crossed()
    model.set_params(random_slopes=slopes and {"a": slopes}).fit(X, y)
    expected = coefficient_table(model), variance_table(model)
    monkeypatch.setattr("mixedlearn.inference._variance_parameters.DEAR", 0.0)
    model.fit(X, y)
    del evaluations[:]
    found = coefficient_table(model), variance_table(model)
    assert len(evaluations) == 1 + len(model.theta_)
    for own, other in zip(found, expected, strict=True):
        pd.testing.assert_frame_equal(own, other, rtol=1e-4)
    assert (found[0]["df"] != expected[0]["df"]).any()


def test_where_rounding_is_felt_differences_stay_central(evaluations, monkeypatch):
    model, X, y = crossed()
    monkeypatch.setattr("mixedlearn.inference._variance_parameters.DEAR", 0.0)
    monkeypatch.setattr("mixedlearn.inference._variance_parameters.ROUNDING", 0.0)
    model.fit(X, y)
    del evaluations[:]
    coefficient_table(model)
    assert len(evaluations) == 1 + 4 * len(model.theta_)
