"""Influence beside residual structures: against generalised least squares of the other rows."""

import numpy as np
import pytest

from mixedlearn import lmer
from mixedlearn.inference import influence
from mixedlearn.residual import AR1
from reference.noise_models import MODELS, NoiseFit, fit, read


def without(found: NoiseFit, gone: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and their covariance from the rest of the rows and of V."""
    X, y, V = found.X[~gone], found.y[~gone], found.V[np.ix_(~gone, ~gone)]
    turned = np.linalg.solve(V, X)
    covariance = np.linalg.inv(X.T @ turned)
    return covariance @ (turned.T @ y), covariance


def check(found: NoiseFit, by: str, cases: list[np.ndarray]) -> None:
    result = influence(found.model, **found.rows, by=by)
    none = np.zeros(len(found.y), bool)
    whole, whole_covariance = without(found, none)
    leverage = np.diag(np.eye(len(found.y)) - found.R @ found.P)
    P, inverse = found.P, np.linalg.inv(found.R)
    for place, gone in enumerate(cases):
        coef, covariance = without(found, gone)
        change = coef - whole
        size = np.sqrt(np.diag(whole_covariance))
        np.testing.assert_allclose(result.coef.iloc[place] / size, coef / size, atol=1e-6)
        np.testing.assert_allclose(
            result.dfbetas.iloc[place], change / np.sqrt(np.diag(covariance)), atol=1e-6
        )
        np.testing.assert_allclose(result.leverage.iloc[place], leverage[gone].sum(), rtol=1e-6)
        distance = change @ np.linalg.solve(whole_covariance, change) / len(change)
        if by == "row":
            (row,) = np.flatnonzero(gone)
            shift = (P @ found.y)[row] / P[row, row]
            fitted = shift**2 * (inverse - P)[row, row] / len(change)
            if not found.model.covariances_:
                np.testing.assert_allclose(fitted, distance, rtol=1e-6)
            distance = fitted
        np.testing.assert_allclose(result.cooks_distance.iloc[place], distance, rtol=1e-5)


@pytest.mark.slow_cases(every=2)
@pytest.mark.parametrize("name", MODELS)
def test_rows_left_out_of_V(name):
    found = fit(name)
    check(found, "row", list(np.eye(len(found.y), dtype=bool)))


BY = [(name, {"ovary": "Mare"}.get(name.split("_")[0], "Subject")) for name in MODELS]


@pytest.mark.parametrize(("name", "by"), [*BY, ("orthodont_nested", "trio")])
def test_levels_left_out_of_V(name, by):
    """Of the series, with or without random effects of its own, and of a factor above."""
    found = fit(name)
    levels = influence(found.model, **found.rows, by=by).leverage.index
    assert list(levels) == sorted(set(found.frame[by]))
    check(found, by, [(found.frame[by] == level).to_numpy() for level in levels])


@pytest.mark.parametrize("name", ["ovary_lme", "orthodont_symmetric", "dialyzer_power"])
def test_weights(name):
    frame = read(MODELS[name][0])
    found = fit(name, frame, np.resize([1.0, 2.0, 0.5, 3.0], len(frame)))
    check(found, "row", list(np.eye(len(found.y), dtype=bool)))
    by = "Mare" if "ovary" in name else "Subject"
    check(found, by, [(frame[by] == level).to_numpy() for level in sorted(set(frame[by]))])


def test_gaps_single_rows_and_rows_out_of_order():
    frame = read("ovary")
    rng = np.random.default_rng(3)
    frame = frame[(rng.random(len(frame)) < 0.4) | (frame["Mare"] == 1)]
    frame = frame[(frame["Mare"] != 2) | (frame["Day"] == frame["Day"][frame["Mare"] == 2].min())]
    frame = frame.sample(frac=1.0, random_state=0).reset_index(drop=True)
    found = fit("ovary_lme", frame)
    assert (frame["Mare"] == 2).sum() == 1
    check(found, "row", list(np.eye(len(found.y), dtype=bool)))
    check(found, "Mare", [(frame["Mare"] == level).to_numpy() for level in range(1, 12)])


def test_a_row_that_alone_determines_a_coefficient():
    frame = read("ovary").assign(alone=lambda own: (own.index == 30).astype(float))
    model = lmer("follicles ~ Time + alone", frame, groups="Mare", residual=AR1(time="Day"))
    result = influence(model, frame, frame["follicles"])
    gone = result.coef.isna().any(axis=1)
    assert list(gone[gone].index) == [30]
    assert np.isnan(result.cooks_distance[30])
    by_mare = influence(model, frame, frame["follicles"], by="Mare")
    assert by_mare.coef.loc[frame["Mare"][30]].isna().all()
    assert by_mare.coef.drop(index=frame["Mare"][30]).notna().all(axis=None)


def test_what_is_refused():
    found = fit("ovary_gls")
    with pytest.raises(ValueError, match=r"refit=True is not available .* residual structure"):
        influence(found.model, **found.rows, refit=True)
    with pytest.raises(ValueError, match=r"by='Time' is no grouping factor: .*\('Mare'\)"):
        influence(found.model, **found.rows, by="Time")
    nested = fit("orthodont_nested")
    with pytest.raises(ValueError, match=r"\('trio', 'Subject'\)"):
        influence(nested.model, **nested.rows, by="age")
    assert "11 levels of 'Mare'" in repr(influence(found.model, **found.rows, by="Mare"))
