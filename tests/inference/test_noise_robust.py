"""Cluster-robust covariances beside residual structures.

Against clubSandwich on gls and lme fits of nlme, whose optimum is known to some six digits, and
against the definitions with V of the fit.
"""

import json

import numpy as np
import pandas as pd
import pytest

from mixedlearn import lmer
from mixedlearn.inference import (
    anova,
    coefficient_covariance,
    coefficient_table,
    compare_means,
    contrast_test,
    influence,
    marginal_means,
    robust_covariance,
)
from mixedlearn.residual import AR1
from reference import FOLDER
from reference.dense_sandwich import DenseSandwich
from reference.noise_models import MODELS, fit, read

REFERENCE = json.loads((FOLDER / "sandwich.json").read_text(encoding="utf-8"))["structured"]
CORRECTIONS = ("CR0", "CR1", "CR1p", "CR1S", "CR2")
SERIES = {name: "Mare" if "ovary" in name else "Subject" for name in MODELS}
RTOL = 3e-5


@pytest.mark.parametrize("entry", REFERENCE, ids=lambda own: f"{own['name']}, {own['cluster']}")
def test_clubSandwich(entry):
    found = fit(entry["name"])
    cluster = found.frame["trio"] if entry["cluster"] == "trio" else SERIES[entry["name"]]
    for correction, expected in entry["types"].items():
        robust = robust_covariance(
            found.model, **found.rows, cluster=cluster, correction=correction
        )
        covariance = np.array(expected["covariance"])
        size = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
        np.testing.assert_allclose(robust.covariance / size, covariance / size, atol=RTOL)
        table = coefficient_table(found.model, covariance=robust)
        np.testing.assert_allclose(table["df"], expected["df"], rtol=RTOL)
        np.testing.assert_allclose(table["std_error"], np.sqrt(np.diag(covariance)), rtol=RTOL)
        if "wald" in expected:
            wald = expected["wald"]
            L = np.eye(len(table))[1 : 1 + wald["q"]]
            test = contrast_test(found.model, L, covariance=robust)
            np.testing.assert_allclose(test.den_df, wald["df"], rtol=10.0 * RTOL)
            np.testing.assert_allclose(test.f_value, wald["f"], rtol=10.0 * RTOL)


def assert_dense(found, cluster, correction):
    labels = found.frame[cluster].to_numpy()
    dense = DenseSandwich(found.X, found.y.to_numpy(float), found.V, labels, correction)
    robust = robust_covariance(
        found.model,
        **found.rows,
        cluster=found.frame[cluster] if cluster == "trio" else cluster,
        correction=correction,
    )
    size = np.sqrt(np.outer(np.diag(dense.covariance), np.diag(dense.covariance)))
    np.testing.assert_allclose(robust.covariance / size, dense.covariance / size, atol=1e-6)
    p = found.X.shape[1]
    test = contrast_test(found.model, np.eye(p), covariance=robust)
    expected = [dense.single_df(own) for own in np.eye(p)]
    np.testing.assert_allclose(test.rows["df"], expected, rtol=1e-6)
    joint = contrast_test(found.model, np.eye(p)[1:3], covariance=robust)
    np.testing.assert_allclose(joint.den_df, dense.hotelling_df(np.eye(p)[1:3]), rtol=1e-6)


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("name", ["ovary_lme", "orthodont_nested", "orthodont_strata"])
def test_dense_with_weights(name, correction):
    frame = read(MODELS[name][0])
    found = fit(name, frame, np.resize([1.0, 2.0, 0.5, 3.0], len(frame)))
    assert_dense(found, "trio" if "orthodont" in name else "Mare", correction)


@pytest.mark.parametrize("correction", ["CR1", "CR2"])
@pytest.mark.parametrize("name", ["ovary_gls", "orthodont_strata"])
def test_dense_with_large_clusters(name, correction, monkeypatch):
    """Rows of equal variances are turned into triangles, correlated ones are not."""
    monkeypatch.setattr("mixedlearn.inference._sandwich.LARGE_CLUSTER", 4)
    assert_dense(fit(name), SERIES[name] if "ovary" in name else "trio", correction)


def test_rows_out_of_order_and_of_weight_zero():
    frame = read("ovary")
    weights = np.resize([1.0, 2.0, 0.0, 0.5], len(frame))
    _, formula, groups, residual = MODELS["ovary_gls"]
    model = lmer(formula, frame, groups=groups, residual=residual, sample_weight=weights)
    mixed = frame.sample(frac=1.0, random_state=0)
    present = mixed[weights[mixed.index] > 0.0]
    rows = [(mixed, weights[mixed.index]), (present, weights[present.index])]
    own, expected = (
        robust_covariance(model, part, part["follicles"], sample_weight=w).covariance
        for part, w in rows
    )
    np.testing.assert_allclose(own, expected, rtol=1e-9)
    found = fit("ovary_gls", present.reset_index(drop=True), weights[present.index])
    assert_dense(found, "Mare", "CR2")


def test_tables_and_means_take_it():
    frame = read("orthodont")
    model = lmer("distance ~ C(age) * Sex", frame, groups="Subject", residual="ar1", time="age")
    y = frame["distance"]
    robust = robust_covariance(model, frame, y)
    assert (robust.by, robust.n_clusters) == ("Subject", 27)
    table = coefficient_table(model, covariance=robust)
    np.testing.assert_allclose(table["std_error"], np.sqrt(np.diag(robust.covariance)))
    own = coefficient_covariance(model, "sandwich", frame, y)
    pd.testing.assert_frame_equal(own, robust.covariance)
    means = marginal_means(model, "Sex", by="age", covariance=robust)
    pairs = compare_means(means, adjust=None)
    # The difference at the first age is a coefficient.
    difference = pairs.table.iloc[0]
    assert abs(difference["estimate"]) == pytest.approx(abs(table.loc["Sex[T.Male]", "estimate"]))
    assert difference["std_error"] == pytest.approx(table.loc["Sex[T.Male]", "std_error"])
    assert difference["df"] == pytest.approx(table.loc["Sex[T.Male]", "df"])
    tests = anova(model, covariance=robust)
    assert np.isfinite(tests[["f_value", "p_value"]].to_numpy(float)).all()


def test_clusters_have_to_hold_whole_series():
    found = fit("ovary_gls")
    with pytest.raises(ValueError, match=r"level 1 of 'Mare' has rows in several clusters"):
        robust_covariance(found.model, **found.rows, cluster=np.arange(len(found.y)) % 2)
    nested = fit("orthodont_nested")
    with pytest.raises(ValueError, match=r"'trio', 'Subject': name the clusters"):
        robust_covariance(nested.model, **nested.rows)
    with pytest.raises(ValueError, match=r"level .* of 'trio' has rows in several clusters"):
        robust_covariance(nested.model, **nested.rows, cluster="Subject")
    assert robust_covariance(nested.model, **nested.rows, cluster="trio").n_clusters == 9
    frame = read("orthodont").assign(trio="one")
    model = lmer("distance ~ age", frame, groups="Subject", residual=AR1(time="age"))
    with pytest.raises(ValueError, match="one cluster only"):
        robust_covariance(model, frame, frame["distance"], cluster=frame["trio"])


def test_series_that_are_an_interaction():
    frame = read("orthodont")
    frame["number"] = frame["Subject"].str[1:].astype(int)
    y, structure = frame["distance"], {"residual": "ar1", "time": "age"}
    model = lmer("distance ~ age", frame, groups=("Sex", "number"), **structure)
    plain = lmer("distance ~ age", frame, groups="Subject", **structure)
    expected = robust_covariance(plain, frame, y).covariance
    for cluster in (None, "Sex:number", ("Sex", "number")):
        robust = robust_covariance(model, frame, y, cluster=cluster)
        assert robust.by == "Sex:number"
        np.testing.assert_allclose(robust.covariance, expected, rtol=1e-10)
    by_child = influence(model, frame, y, by=("Sex", "number"))
    expected = influence(plain, frame, y, by="Subject")
    found = by_child.cooks_distance.loc[("Female", 3)]
    assert found == pytest.approx(expected.cooks_distance.loc["F03"])
    assert "AR1(time='age') within Sex:number" in str(model.summary())
