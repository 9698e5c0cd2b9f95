"""Series within levels: the same likelihood, derivatives and inference as dense blocks."""

import warnings

import numpy as np
import pandas as pd
import pytest

from helpers.same_likelihood import assert_same, assert_same_rows, both
from mixedlearn import lmer
from mixedlearn.engines.correlated.series import SeriesSide
from mixedlearn.inference import coefficient_table
from mixedlearn.residual import (
    AR1,
    Antedependence,
    CompoundSymmetry,
    ContinuousAR1,
    Power,
    Stratified,
    Toeplitz,
    Unstructured,
)


def make_data(seed: int = 0) -> pd.DataFrame:
    """Sites of several patients with four visits, of which some are missed."""
    rng = np.random.default_rng(seed)
    n_sites, n_patients, n_visits = 6, 8, 4
    n = n_sites * n_patients * n_visits
    row = np.arange(n)
    site, patient, visit = row // (n_patients * n_visits), row // n_visits, row % n_visits
    noise = rng.standard_normal((n // n_visits, n_visits)).cumsum(axis=1).ravel()
    data = pd.DataFrame(
        {
            "site": site,
            "patient": patient,
            "visit": visit,
            "t": visit + rng.uniform(0.0, 0.6, n),
            "x": rng.standard_normal(n),
            "size": rng.uniform(0.5, 2.0, n),
            "arm": np.where(patient % 2, "a", "b"),
            "y": noise + rng.standard_normal(n_sites)[site] + rng.standard_normal(n // 4)[patient],
        }
    )
    return data.sample(frac=0.85, random_state=seed).reset_index(drop=True)


WITHIN = {"within": "patient"}
MODELS = {
    "unstructured": ("(1 | site)", Unstructured(time="visit", **WITHIN)),
    "a slope": ("(x | site)", CompoundSymmetry(**WITHIN)),
    "heterogeneous": ("(1 | site)", Toeplitz(time="visit", variance="heterogeneous", **WITHIN)),
    "antedependence": ("(1 | site) + (0 + x | site)", Antedependence(time="visit", **WITHIN)),
    "three levels": ("(1 | site) + (1 | patient)", AR1(time="visit", **WITHIN)),
    "slopes at both": ("(x | site) + (x | patient)", AR1(time="visit", **WITHIN)),
    "any times": (
        "(1 | site) + (1 | patient)",
        ContinuousAR1(time="t", variance=[Stratified(by="arm"), Power(of="size")], **WITHIN),
    ),
}


def fitted(name: str, **parameters):
    effects, residual = MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        formula, data = f"y ~ x + arm + {effects}", make_data()
        return lmer(formula, data, groups="patient", residual=residual, **parameters)


@pytest.mark.slow_cases(every=4)
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_as_dense_blocks(name, reml):
    series, blocks, point = both(fitted(name, reml=reml))
    assert isinstance(series.likelihood.side, SeriesSide)
    rng = np.random.default_rng(1)
    point = series.moved(point, 0.2 * rng.standard_normal(series.parameters.n_parameters))
    assert_same(series, blocks, point)


@pytest.mark.parametrize("name", ["unstructured", "three levels"])
def test_rows_in_the_metric_of_the_noise(name):
    series, blocks, point = both(fitted(name))
    assert_same_rows(series, blocks, point)


def test_a_covariance_for_every_arm_within_sites():
    data = make_data()
    residual = Unstructured(time="visit", by="arm", within="patient")
    model = lmer("y ~ x + (1 | site)", data, groups="patient", residual=residual, reml=False)
    same_site = np.equal.outer(data["site"].to_numpy(), data["site"].to_numpy())
    same = np.equal.outer(data["patient"].to_numpy(), data["patient"].to_numpy())
    V = model.covariances_["site"].to_numpy()[0, 0] * same_site
    for arm, own in model.residual_covariance_.items():
        rows = np.flatnonzero(data["arm"] == arm)
        visits, places = data["visit"].to_numpy()[rows], np.ix_(rows, rows)
        V[places] += np.where(same[places], own.to_numpy()[np.ix_(visits, visits)], 0.0)
    X = np.column_stack([np.ones(len(data)), data["x"]])
    inverse = np.linalg.inv(V)
    coef = np.linalg.solve(X.T @ inverse @ X, X.T @ inverse @ data["y"])
    left = data["y"].to_numpy() - X @ coef
    deviance = np.linalg.slogdet(V)[1] + left @ inverse @ left + len(data) * np.log(2.0 * np.pi)
    assert -2.0 * model.log_likelihood_ == pytest.approx(deviance, rel=1e-10)
    np.testing.assert_allclose(np.append(model.intercept_, model.coef_), coef, rtol=1e-6)


def test_effects_that_join_parts_of_the_covariance_across_factors_are_refused():
    data = make_data().assign(ward=lambda own: own["patient"] // 4)
    residual = Unstructured(time="visit", by="arm", within="patient")
    with pytest.raises(ValueError, match=r"\(by=\) .* those of .* join series"):
        lmer("y ~ x + (1 | site / ward)", data, groups="patient", residual=residual)


def test_many_patients_of_few_sites():
    # Dense blocks of a site would have 4,000 rows.
    rng = np.random.default_rng(0)
    n = 12_000
    data = pd.DataFrame({"patient": np.arange(n) // 4, "visit": np.arange(n) % 4})
    data["site"] = data["patient"] % 3
    data["y"] = rng.standard_normal(n) + rng.standard_normal(n // 4)[data["patient"]]
    data["y"] += np.array([-3.0, 0.0, 3.0])[data["site"]]
    residual = Unstructured(time="visit", within="patient")
    model = lmer("y ~ C(visit) + (1 | site)", data, groups="patient", residual=residual)
    assert model.converged_
    between = model.residual_covariance_.to_numpy()
    np.testing.assert_allclose(between, np.ones((4, 4)) + np.eye(4), atol=0.15)
    table = coefficient_table(model, ddf="kenward-roger")
    assert table.loc["intercept", "df"] == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("variance", [None, Stratified(by="arm")])
def test_patients_of_one_visit(variance):
    # Their rows do not depend on the correlation, and without strata on no parameter at all.
    data = make_data()
    alone = data["patient"].isin(data["patient"].unique()[:5])
    data = data[~alone | ~data["patient"].duplicated()]
    residual = CompoundSymmetry(time="visit", within="patient", variance=variance)
    model = lmer("y ~ x + (1 | site)", data, groups="patient", residual=residual)
    series, blocks, point = both(model)
    assert isinstance(series.likelihood.side, SeriesSide)
    assert_same(series, blocks, point)
