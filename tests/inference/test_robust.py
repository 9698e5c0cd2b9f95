"""Cluster-robust covariances, against R's clubSandwich and against dense algebra.

clubSandwich takes the variances that lme4 and nlme found, whose optimum is known to about seven
digits: everything is held to six. The dense covariances use the variances of the fit, and agree to
nine.
"""

import json
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest

from mixedlearn import MixedLinearRegressor, datasets, lmer
from mixedlearn.exceptions import DegenerateModelWarning, NoGroupsWarning
from mixedlearn.inference import (
    anova,
    coefficient_covariance,
    coefficient_table,
    contrast_test,
    robust_covariance,
)
from reference import FOLDER
from reference.dense_sandwich import DenseSandwich

REFERENCE = json.loads((FOLDER / "sandwich.json").read_text(encoding="utf-8"))["models"]
RTOL = 1e-6


def frame_of(name):
    """The data of a model, with the columns that make_sandwich.R adds."""
    study = datasets.load_sleepstudy().frame
    study = study.assign(
        Subject=study["Subject"].astype(str),
        z=np.resize([0.0, 1, 3, -2, 1, 0, 2], 180),
        w=np.resize([1.0, 2, 0.5, 3, 1.5], 180),
        alone=(study["Subject"].astype(str) == "308").astype(float),
        half=np.repeat(["a", "b"], 90),
    )
    if name == "sleepstudy":
        return study
    if name == "uneven":
        subjects = list(dict.fromkeys(study["Subject"]))
        most = dict(zip(subjects, np.resize([1, 2, 10, 5, 7], 18), strict=True))
        return study[study["Days"] < study["Subject"].map(most)].reset_index(drop=True)
    if name == "cake":
        return datasets.load_cake().frame
    if name == "dyestuff2":
        return datasets.load_dyestuff2().frame
    pastes = datasets.load_pastes().frame
    return pastes.assign(z=np.resize([0.0, 1, 3, -2, 1, 0, 2], 60))


def clusters_of(model, frame):
    """The argument ``cluster`` for a model of the file."""
    if model["cluster"] == "paste(recipe, replicate)":
        return ("recipe", "replicate")
    is_factor = model["cluster"] in ("Subject", "Batch", "batch")
    return model["cluster"] if is_factor else frame[model["cluster"]]


def fitted(model):
    """The model of an entry, and the arguments that it was fitted to."""
    frame = frame_of(model["data"])
    weights = frame["w"] if model["fitted_by"] == "lme" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateModelWarning)
        estimator = lmer(model["formula"], frame, sample_weight=weights)
    response = model["formula"].split(" ~ ")[0]
    return estimator, {"X": frame, "y": frame[response], "sample_weight": weights}


@pytest.mark.parametrize(
    "model", REFERENCE, ids=lambda own: f"{own['fitted_by']}: {own['formula']}, {own['cluster']}"
)
@pytest.mark.filterwarnings("ignore:A single cluster")
def test_clubSandwich(model):
    estimator, rows = fitted(model)
    cluster = clusters_of(model, rows["X"])
    for correction, expected in model["types"].items():
        robust = robust_covariance(estimator, **rows, cluster=cluster, correction=correction)
        covariance = np.array(expected["covariance"])
        size = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
        np.testing.assert_allclose(robust.covariance / size, covariance / size, atol=RTOL)
        table = coefficient_table(estimator, covariance=robust)
        np.testing.assert_allclose(table["df"], expected["df"], rtol=RTOL)
        np.testing.assert_allclose(table["std_error"], np.sqrt(np.diag(covariance)), rtol=RTOL)
        if "wald" in expected:
            wald = expected["wald"]
            L = np.eye(len(table))[1 : 1 + wald["q"]]
            test = contrast_test(estimator, L, covariance=robust)
            np.testing.assert_allclose(test.den_df, wald["df"], rtol=RTOL)
            np.testing.assert_allclose(test.f_value, wald["f"], rtol=RTOL)


CORRECTIONS = ("CR0", "CR1", "CR1p", "CR1S", "CR2")


def made(seed, sizes, *, weights=None, inner=1, n_columns=2):
    """Rows in clusters of some sizes, each of several inner groups, with effects of both."""
    rng = np.random.default_rng(seed)
    outer = np.repeat(np.arange(len(sizes)), sizes)
    group = outer * inner + rng.integers(0, inner, len(outer))
    X = rng.standard_normal((len(outer), n_columns)) + 0.5 * outer[:, None] % 3
    y = X @ np.arange(1.0, n_columns + 1) + 2.0 * rng.standard_normal(len(sizes))[outer]
    y += rng.standard_normal(group.max() + 1)[group] + rng.standard_normal(len(outer))
    y += X[:, 0] * rng.standard_normal(len(sizes))[outer]
    names = [f"x{j}" for j in range(n_columns)]
    frame = pd.DataFrame(X, columns=names).assign(outer=outer, group=group)
    if weights == "few":
        return frame, y, rng.choice([0.5, 1.0, 4.0], len(outer))
    return frame, y, None if weights is None else rng.uniform(0.2, 3.0, len(outer))


def dense_covariance(model, frame, weights):
    """Sigma of the rows, from the variances of the fit."""
    noise = model.noise_variance_ / (np.ones(len(frame)) if weights is None else weights)
    Sigma = np.diag(noise)
    for name, covariance in model.covariances_.items():
        Z = np.column_stack(
            [
                np.ones(len(frame)) if effect == "intercept" else frame[effect]
                for effect in covariance.index
            ]
        )
        same = frame[name].to_numpy()[:, None] == frame[name].to_numpy()
        Sigma += (Z @ covariance.to_numpy() @ Z.T) * same
    return Sigma


def assert_dense(model, frame, y, weights, cluster, clusters, correction, rtol=1e-8):
    """Covariance, degrees of freedom and joint tests against the definitions."""
    robust = robust_covariance(
        model, frame, y, cluster=cluster, correction=correction, sample_weight=weights
    )
    names = list(robust.covariance.index)
    X = np.column_stack([np.ones(len(frame)), frame[names[1:]]])
    Sigma = dense_covariance(model, frame, weights)
    dense = DenseSandwich(X, y, Sigma, np.asarray(clusters), correction)
    size = np.sqrt(np.outer(np.diag(dense.covariance), np.diag(dense.covariance)))
    np.testing.assert_allclose(robust.covariance / size, dense.covariance / size, atol=rtol)
    L = np.vstack([np.eye(len(names)), np.arange(1.0, len(names) + 1)])
    test = contrast_test(model, L, covariance=robust)
    expected = [dense.single_df(own) for own in L]
    np.testing.assert_allclose(test.rows["df"], expected, rtol=rtol)
    joint = contrast_test(model, np.eye(len(names))[1:], covariance=robust)
    np.testing.assert_allclose(joint.den_df, dense.hotelling_df(np.eye(len(names))[1:]), rtol=rtol)
    q, coef = joint.num_df, model.coef_
    own = np.linalg.solve(dense.covariance[1:, 1:], coef) @ coef / q
    expected = joint.den_df / (joint.den_df + q - 1) * own
    np.testing.assert_allclose(joint.f_value, expected, rtol=1e-7)


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize(
    ("weights", "sizes"),
    [
        (None, [3, 1, 8, 5, 2, 1, 7, 4, 9]),
        ("any", [3, 1, 8, 5, 2, 1, 7, 4, 9]),
        (None, [90, 3, 70, 65, 40, 2]),
        ("few", [90, 3, 120, 65, 40, 2]),
        ("any", [90, 3, 70, 65, 40, 2]),
    ],
)
@pytest.mark.filterwarnings("ignore:The covariance")
def test_dense_with_slopes_and_weights(correction, weights, sizes):
    frame, y, w = made(0, sizes, weights=weights)
    X = frame[["x0", "x1", "outer"]]
    model = MixedLinearRegressor(groups="outer", random_slopes=["x0"]).fit(X, y, sample_weight=w)
    assert_dense(model, X, y, w, None, frame["outer"], correction, 1e-7)


@pytest.mark.parametrize("correction", ["CR1", "CR2"])
@pytest.mark.parametrize("sizes", [[8, 5, 12, 7, 9, 10], [100, 80, 90, 12, 9, 10]])
def test_dense_with_nested_factors(correction, sizes):
    frame, y, w = made(1, sizes, weights="few", inner=3)
    model = MixedLinearRegressor(groups=["group", "outer"]).fit(frame, y, sample_weight=w)
    assert_dense(model, frame, y, w, "outer", frame["outer"], correction)


@pytest.mark.parametrize("seed", range(20))
def test_dense_whatever_the_data(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, rng.integers(5, 14))
    frame, y, w = made(seed, sizes, weights=rng.choice([None, "few", "any"]), inner=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateModelWarning)
        X = frame[["x0", "x1", "group"]]
        model = MixedLinearRegressor(groups="group", reml=bool(seed % 2))
        model.fit(X, y, sample_weight=w)
        assert_dense(model, X, y, w, frame["outer"], frame["outer"], "CR2", 1e-7)


def test_model_without_random_effects():
    frame, y, _ = made(2, [4, 6, 3, 5, 8])
    with pytest.warns(NoGroupsWarning):
        model = MixedLinearRegressor().fit(frame[["x0", "x1"]], y)
    X = frame[["x0", "x1"]]
    assert_dense(model, X, y, None, frame["outer"].to_numpy(), frame["outer"], "CR2")
    with pytest.raises(ValueError, match=r"has no groups: name the clusters"):
        robust_covariance(model, X, y)


def test_labels_beside_X():
    frame, y, _ = made(3, [4, 6, 3, 5, 8])
    inside = MixedLinearRegressor(groups="outer").fit(frame[["x0", "outer"]], y)
    beside = MixedLinearRegressor().fit(frame[["x0"]], y, groups=frame["outer"])
    expected = robust_covariance(inside, frame[["x0", "outer"]], y)
    found = robust_covariance(beside, frame[["x0"]], y, groups=frame["outer"])
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-12)
    assert (found.by, found.n_clusters) == ("outer", 5)


def test_rows_of_weight_zero_are_absent():
    frame, y, w = made(4, [4, 6, 3, 5, 8], weights="any")
    w[[0, 9]] = 0.0
    w[frame["outer"] == 3] = 0.0
    present = w > 0.0
    X = frame[["x0", "outer"]]
    model = MixedLinearRegressor(groups="outer").fit(X, y, sample_weight=w)
    labels = frame["outer"].to_numpy()
    found = robust_covariance(model, X, y, cluster=labels, sample_weight=w)
    expected = robust_covariance(model, X[present], y[present], sample_weight=w[present])
    assert found.n_clusters == 4
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-10)


def test_order_of_the_rows_does_not_matter():
    frame, y, w = made(5, [4, 6, 3, 90, 8], weights="few", inner=2)
    model = MixedLinearRegressor(groups=["outer", "group"]).fit(frame, y, sample_weight=w)
    mixed = np.random.default_rng(0).permutation(len(y))
    found = robust_covariance(
        model, frame.iloc[mixed], y[mixed], cluster="outer", sample_weight=w[mixed]
    )
    expected = robust_covariance(model, frame, y, cluster="outer", sample_weight=w)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-9)


def test_aliased_columns_of_a_formula():
    frame, y, _ = made(6, [4, 6, 3, 5, 8, 7])
    frame = frame.assign(y=y, twice=2.0 * frame["x0"])
    with pytest.warns(DegenerateModelWarning):
        model = lmer("y ~ x0 + twice + x1 + (1 | outer)", frame)
    without = lmer("y ~ x0 + x1 + (1 | outer)", frame)
    robust = robust_covariance(model, frame, y)
    expected = robust_covariance(without, frame, y).covariance
    kept = ["intercept", "x0", "x1"]
    np.testing.assert_allclose(robust.covariance.loc[kept, kept], expected, rtol=1e-9)
    assert (robust.covariance["twice"] == 0.0).all()
    with pytest.warns(DegenerateModelWarning, match="twice"):
        table = coefficient_table(model, covariance=robust)
    assert table.loc["twice"].isna().all()
    np.testing.assert_allclose(table.loc["x1", "std_error"], np.sqrt(expected.loc["x1", "x1"]))


def test_aliased_columns_of_a_matrix():
    """All dummies beside an intercept: differences are what they are without one of them."""
    frame, y, _ = made(7, [4, 6, 3, 5, 8, 7])
    dummies = pd.DataFrame(np.eye(3)[np.arange(len(y)) % 3], columns=["a", "b", "c"])
    X = dummies.assign(outer=frame["outer"])
    model = MixedLinearRegressor(groups="outer").fit(X, y)
    test = contrast_test(model, {"b": 1, "a": -1}, covariance=robust_covariance(model, X, y))
    less = X.drop(columns="a")
    reduced = MixedLinearRegressor(groups="outer").fit(less, y)
    robust = robust_covariance(reduced, less, y)
    expected = coefficient_table(reduced, covariance=robust).loc["b"]
    np.testing.assert_allclose(test.rows.iloc[0], expected, rtol=1e-8)


def test_CR2_has_no_bias_if_the_model_is_right():
    """The mean of the sandwich over responses of the model is the model's covariance."""
    frame, y, _ = made(8, [4, 6, 3, 5, 8, 7])
    X = frame[["x0", "x1", "outer"]]
    model = MixedLinearRegressor(groups="outer").fit(X, y)
    columns = np.column_stack([np.ones(len(X)), X[["x0", "x1"]]])
    Sigma = dense_covariance(model, X, None)
    dense = DenseSandwich(columns, y, Sigma, frame["outer"].to_numpy(), "CR2")
    mean = np.einsum("iqir->qr", dense.spread(np.eye(3)))
    np.testing.assert_allclose(mean, model.coef_covariance_, rtol=1e-8)
    assert_dense(model, X, y, None, None, frame["outer"], "CR2")


@pytest.mark.parametrize("noise", [1e-2, 1e-4, 1e-6])
def test_digits_where_random_effects_are_large(noise):
    """The mean of the covariance is that of the model, whatever the ratio of the variances.

    At noise of 1e-6 it is 1e12, and V has four digits.
    """
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(12), rng.integers(2, 12, 12))
    X = rng.standard_normal((len(group), 2))
    y = X.sum(axis=1) + rng.standard_normal(12)[group] + noise * rng.standard_normal(len(group))
    model = MixedLinearRegressor().fit(X, y, groups=group)
    sums = robust_covariance(model, X, y, groups=group).sums
    mean = (sums.spreads - sums.shares @ sums.shares.transpose(0, 2, 1)).sum(axis=0)
    np.testing.assert_allclose(mean, np.eye(3), atol=max(1e-9, 1e-15 / noise**2))


def test_a_cluster_that_determines_a_coefficient_alone_is_named():
    frame, y, _ = made(9, [4, 6, 3, 5, 8, 7])
    X = frame[["x0", "outer"]].assign(treated=(frame["outer"] == 2).astype(float))
    model = MixedLinearRegressor(groups="outer").fit(X, y)
    with pytest.warns(DegenerateModelWarning, match=r"'outer' determines .* 'treated' alone"):
        robust = robust_covariance(model, X, y)
    assert np.isfinite(robust.covariance.to_numpy()).all()
    # By the model, what is uncertain about the treated cluster is the larger part.
    assert robust.covariance.loc["treated", "treated"] < model.coef_covariance_.iloc[2, 2] / 2


def test_too_few_clusters_for_a_joint_test():
    frame, y, _ = made(10, [20, 30, 25], n_columns=4)
    model = MixedLinearRegressor(groups="outer").fit(frame.drop(columns="group"), y)
    robust = robust_covariance(model, frame.drop(columns="group"), y)
    with pytest.warns(DegenerateModelWarning, match="too few clusters"):
        test = contrast_test(model, np.eye(5)[1:], covariance=robust)
    assert test.num_df == 4
    assert np.isnan([test.f_value, test.p_value]).all()
    assert np.isfinite(test.rows.to_numpy()).all()


def test_anova_of_a_term_with_too_few_clusters_names_it():
    rng = np.random.default_rng(11)
    frame = pd.DataFrame(
        {"kind": np.resize(list("abcdef"), 72), "g": np.repeat([0, 1, 2], 24), "x": rng.random(72)}
    )
    frame["y"] = rng.standard_normal(3)[frame["g"]] + rng.standard_normal(72)
    model = lmer("y ~ kind + x + (1 | g)", frame)
    robust = robust_covariance(model, frame, frame["y"])
    with pytest.warns(DegenerateModelWarning, match="anova cannot test kind with"):
        table = anova(model, covariance=robust)
    assert np.isnan(table.loc["kind", "f_value"])
    assert np.isfinite(table.loc["x"].to_numpy(dtype=float)).all()


def test_normal_degrees_of_freedom():
    frame, y, _ = made(12, [4, 6, 3, 5, 8])
    X = frame[["x0", "outer"]]
    model = MixedLinearRegressor(groups="outer").fit(X, y)
    robust = robust_covariance(model, X, y)
    table = coefficient_table(model, ddf="normal", covariance=robust)
    assert np.isinf(table["df"]).all()
    np.testing.assert_allclose(table["std_error"], np.sqrt(np.diag(robust.covariance)), rtol=1e-12)
    for ddf in ("residual", "kenward-roger"):
        with pytest.raises(ValueError, match="not a method for a robust covariance"):
            coefficient_table(model, ddf=ddf, covariance=robust)


def test_fixed_effects_that_reproduce_the_response():
    frame, _, _ = made(13, [4, 6, 3, 5, 8])
    X = frame[["x0", "outer"]]
    with pytest.warns(DegenerateModelWarning):
        model = MixedLinearRegressor(groups="outer").fit(X, 2.0 * X["x0"])
    robust = robust_covariance(model, X, 2.0 * X["x0"])
    assert (robust.covariance == 0.0).all(axis=None)
    assert (coefficient_table(model, covariance=robust)["std_error"] == 0.0).all()


def test_coefficient_covariance_is_the_same():
    frame, y, w = made(14, [4, 6, 3, 5, 8], weights="any")
    X = frame[["x0", "outer"]]
    model = MixedLinearRegressor(groups="outer").fit(X, y, sample_weight=w)
    expected = robust_covariance(model, X, y, correction="CR1", sample_weight=w).covariance
    found = coefficient_covariance(model, "sandwich", X, y, correction="CR1", sample_weight=w)
    pd.testing.assert_frame_equal(found, expected)
    with pytest.raises(ValueError, match="needs the rows of the fit"):
        coefficient_covariance(model, "sandwich", X)
    with pytest.raises(ValueError, match="takes no rows"):
        coefficient_covariance(model, "model", X, y)


def test_pickles():
    frame, y, _ = made(15, [4, 6, 3, 5, 8])
    X = frame[["x0", "outer"]]
    model = MixedLinearRegressor(groups="outer").fit(X, y)
    robust = robust_covariance(model, X, y)
    again, restored = pickle.loads(pickle.dumps((model, robust)))
    pd.testing.assert_frame_equal(
        coefficient_table(again, covariance=restored), coefficient_table(model, covariance=robust)
    )
    assert "CR2 covariance" in repr(restored)
    assert "<table" in restored._repr_html_()


def test_errors():
    frame, y, _ = made(16, [4, 6, 3, 5, 8], inner=2)
    X = frame[["x0", "outer"]]
    model = MixedLinearRegressor(groups="outer").fit(X, y)
    robust = robust_covariance(model, X, y)
    other = MixedLinearRegressor(groups="outer").fit(X, y + X["x0"])
    with pytest.raises(ValueError, match="another fit"):
        coefficient_table(other, covariance=robust)
    with pytest.raises(ValueError, match="not the rows of the fit"):
        robust_covariance(model, X, y + 1.0)
    with pytest.raises(ValueError, match="correction='HC3' is unknown"):
        robust_covariance(model, X, y, correction="HC3")
    with pytest.raises(ValueError, match="'school' is no grouping factor"):
        robust_covariance(model, X, y, cluster="school")
    with pytest.raises(ValueError, match="one cluster only"):
        robust_covariance(model, X, y, cluster=np.zeros(len(y)))
    with pytest.raises(ValueError, match=r"level 0 of 'outer' has rows in several clusters"):
        robust_covariance(model, X, y, cluster=np.arange(len(y)))
    with pytest.raises(ValueError, match="has 2 columns: give one label for each row"):
        robust_covariance(model, X, y, cluster=frame[["outer", "group"]])
    for labels, n in ((frame["outer"][:9], 9), (0, 0)):
        with pytest.raises(ValueError, match=f"cluster has {n} labels, but X has 26 rows"):
            robust_covariance(model, X, y, cluster=labels)
    with pytest.raises(ValueError, match=r"label of the cluster is missing .* in row 4"):
        robust_covariance(model, X, y, cluster=frame["outer"].where(frame["outer"] != 1))
    for wrong in ("CR2", robust.covariance):
        with pytest.raises(TypeError, match=r"takes the result of robust_covariance\("):
            coefficient_table(model, covariance=wrong)
    labels = frame["outer"].to_numpy() > 2
    with pytest.raises(ValueError, match="needs more clusters than coefficients"):
        robust_covariance(model, X, y, cluster=labels, correction="CR1p")
    nested = MixedLinearRegressor(groups=["outer", "group"]).fit(frame, y)
    with pytest.raises(ValueError, match="'outer', 'group': name the clusters"):
        robust_covariance(nested, frame, y)
    with pytest.raises(ValueError, match="outermost of nested factors"):
        robust_covariance(nested, frame, y, cluster="group")


def test_crossed_factors_are_refused():
    penicillin = datasets.load_penicillin()
    X, y = penicillin.data, penicillin.target
    model = MixedLinearRegressor(groups=["plate", "sample"]).fit(X, y)
    with pytest.raises(ValueError, match="With crossed factors there may be none"):
        robust_covariance(model, X, y, cluster="plate")
