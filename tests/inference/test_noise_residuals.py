"""Residuals of models with residual structures, against nlme and against dense algebra."""

import json

import numpy as np
import pandas as pd
import pytest

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.inference import residuals
from mixedlearn.inference.residuals import standard_residuals
from mixedlearn.residual import AR1, Stratified
from reference import FOLDER
from reference.noise_models import MODELS, fit, read

REFERENCE = json.loads((FOLDER / "noise_residuals.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MODELS)
def test_nlme(name):
    """nlme's optimum is known to some six digits."""
    found = fit(name)
    expected = REFERENCE[name]
    for kind in ("conditional", "marginal", "scaled", "normalized"):
        if kind not in expected:
            continue
        own = residuals(found.model, **found.rows, kind=kind)
        values = np.array(expected[kind])
        if name == "orthodont_compound" and kind == "normalized":
            # nlme takes another root of R, by which the squares of a level have the same sum.
            by_level = found.frame["Subject"]
            own, values = ((pd.Series(part) ** 2).groupby(by_level).sum() for part in (own, values))
        np.testing.assert_allclose(own, values, atol=1e-4 * np.abs(values).max(), err_msg=kind)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_dense(name, weighted):
    frame = read(MODELS[name][0])
    weights = np.resize([1.0, 2.0, 0.5, 3.0], len(frame)) if weighted else None
    found = fit(name, frame, weights)
    conditional = found.R @ found.P @ found.y
    covariance = found.R @ found.P @ found.R
    # Rows of a level follow each other in order of their times, in these data.
    root = np.linalg.cholesky(found.R)
    normalized = np.linalg.solve(root, conditional)
    shares = np.diag(np.linalg.solve(root, np.linalg.solve(root, covariance).T))
    for kind, expected in [
        ("conditional", conditional),
        ("scaled", conditional / np.sqrt(np.diag(found.R))),
        ("studentized", conditional / np.sqrt(np.diag(covariance))),
        ("normalized", normalized),
    ]:
        own = residuals(found.model, **found.rows, kind=kind)
        np.testing.assert_allclose(own, expected, rtol=1e-6, atol=1e-7, err_msg=kind)
        assert own.name == kind
    own = standard_residuals(found.model, **found.rows, groups=None, offset=None)
    np.testing.assert_allclose(own, normalized / np.sqrt(shares), rtol=1e-6, atol=1e-7)


def test_normalized_residuals_have_no_correlation_and_variance_one():
    """Of 400 series of 10 rows, with two coefficients; the bounds are at four standard errors."""
    rng = np.random.default_rng(0)
    m, T, rho = 400, 10, 0.7
    noise = rng.standard_normal((m, T))
    for t in range(1, T):
        noise[:, t] = rho * noise[:, t - 1] + np.sqrt(1.0 - rho**2) * noise[:, t]
    noise *= np.arange(1, T + 1) ** 0.5
    frame = pd.DataFrame({"t": np.tile(np.arange(T), m), "g": np.repeat(np.arange(m), T)})
    frame["y"] = 3.0 + frame["t"] + noise.ravel()
    structure = AR1(time="t", variance="heterogeneous")
    model = lmer("y ~ t", frame, groups="g", residual=structure)
    table = residuals(model, frame, frame["y"], kind="normalized").to_numpy().reshape(m, T)
    products = table.T @ table / m
    np.testing.assert_allclose(np.diag(products), 1.0, atol=4.5 * np.sqrt(2.0 / m))
    off = products[~np.eye(T, dtype=bool)]
    np.testing.assert_allclose(off, 0.0, atol=4.5 / np.sqrt(m))
    scaled = residuals(model, frame, frame["y"], kind="scaled").to_numpy().reshape(m, T)
    assert np.mean(scaled[:, 1:] * scaled[:, :-1]) > 0.6


def test_the_order_of_the_rows_does_not_count():
    found = fit("ovary_lme")
    mixed = found.frame.sample(frac=1.0, random_state=0)
    for kind in ("scaled", "studentized", "normalized"):
        expected = residuals(found.model, **found.rows, kind=kind)[mixed.index]
        own = residuals(found.model, mixed, mixed["follicles"], kind=kind)
        np.testing.assert_allclose(own, expected, rtol=1e-7, atol=1e-9)


def test_rows_of_weight_zero_are_absent():
    frame = read("ovary")
    weights = np.resize([1.0, 2.0, 0.0, 0.5], len(frame))
    present = frame[weights > 0.0].reset_index(drop=True)
    part = fit("ovary_lme", present, weights[weights > 0.0])
    _, formula, _, residual = MODELS["ovary_lme"]
    whole = lmer(formula, frame, residual=residual, sample_weight=weights)
    rows = {"X": frame, "y": frame["follicles"], "sample_weight": weights}
    for kind in ("conditional", "scaled", "studentized", "normalized"):
        own = residuals(whole, **rows, kind=kind)
        expected = residuals(part.model, **part.rows, kind=kind)
        np.testing.assert_allclose(own[weights > 0.0], expected, rtol=1e-6, atol=1e-7)
    assert (residuals(whole, **rows, kind="normalized")[weights == 0.0] == 0.0).all()
    assert residuals(whole, **rows, kind="studentized")[weights == 0.0].isna().all()


def test_labels_beside_X():
    frame = read("ovary")
    X = frame[["Time", "Day"]].assign(Day=frame["Day"].astype(float))
    inside = lmer("follicles ~ Time", frame, groups="Mare", residual="ar1", time="Day")
    beside = MixedLinearRegressor(
        fixed_effects=["Time"], random_intercept=False, residual="ar1", time="Day"
    ).fit(X, frame["follicles"], groups=frame["Mare"])
    own = residuals(beside, X, frame["follicles"], groups=frame["Mare"], kind="normalized")
    expected = residuals(inside, frame, frame["follicles"], kind="normalized")
    np.testing.assert_allclose(own, expected, rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match=r"No groups were passed, but the noise .* 'Mare'"):
        residuals(beside, X, frame["follicles"], kind="normalized")


def test_a_covariance_for_each_value_of_a_column():
    frame = read("orthodont")
    model = lmer("distance ~ age", frame, groups="Subject", residual=AR1(time="age", by="Sex"))
    own = residuals(model, frame, frame["distance"], kind="normalized")
    conditional = residuals(model, frame, frame["distance"])
    parameters = model.residual_parameters_
    first = sorted(set(frame["Sex"]))[0]
    for sex in set(frame["Sex"]):
        here = frame["Sex"] == sex
        rho = parameters[f"Sex {sex!r}: correlation"]
        ratio = 1.0 if sex == first else parameters[f"Sex {sex!r}: variance ratio"]
        table = conditional[here].to_numpy().reshape(-1, 4)
        expected = table.copy()
        # The correlation is that of one year, and measurements are two years apart.
        expected[:, 1:] = (table[:, 1:] - rho**2 * table[:, :-1]) / np.sqrt(1.0 - rho**4)
        expected /= np.sqrt(ratio * model.noise_variance_)
        np.testing.assert_allclose(own[here], expected.ravel(), rtol=1e-7, atol=1e-9)


def test_other_rows_are_refused():
    frame = read("ovary")
    model = lmer("follicles ~ Time", frame, groups="Mare", residual="ar1", time="Day")
    y = frame["follicles"]
    assert len(residuals(model, frame, y)) == len(frame)
    # Two times of the first mare change places.
    swapped = frame.assign(Day=[2, 1, *frame["Day"][2:]])
    with pytest.raises(ValueError, match=r"not the rows of the fit: the columns that .*'Day'"):
        residuals(model, swapped, y, kind="normalized")
    with pytest.raises(ValueError, match=r"level 99 of 'Mare' \(row 0\) was not seen"):
        residuals(model, frame.assign(Mare=[99, *frame["Mare"][1:]]), y, kind="normalized")
    by_order = lmer("follicles ~ Time", frame, groups="Mare", residual="ar1")
    upside_down = frame[::-1]
    mixed = frame.sample(frac=1.0, random_state=0)
    with pytest.raises(ValueError, match="without times the order of the rows, differ"):
        residuals(by_order, mixed, mixed["follicles"], kind="normalized")
    # AR(1) is the same forwards and backwards.
    assert len(residuals(by_order, upside_down, upside_down["follicles"], kind="normalized"))


def test_variances_alone_leave_normalized_residuals_scaled():
    frame = read("orthodont")
    model = lmer("distance ~ age + (1 | Subject)", frame, residual=Stratified(by="Sex"))
    scaled = residuals(model, frame, frame["distance"], kind="scaled")
    normalized = residuals(model, frame, frame["distance"], kind="normalized")
    np.testing.assert_allclose(normalized, scaled, rtol=1e-12)
