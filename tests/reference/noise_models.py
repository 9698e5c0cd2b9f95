"""Models with residual structures of R's nlme, and V of their rows by its definition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mixedlearn import datasets, lmer
from mixedlearn.residual import AR1, CompoundSymmetry, Power, Stratified, Unstructured

WAVES = "follicles ~ np.sin(2 * np.pi * Time) + np.cos(2 * np.pi * Time)"
GROWTH = "distance ~ age * C(Sex, Treatment('Male'))"
FLOW = "rate ~ (pressure + I(pressure**2) + I(pressure**3)) * C(QB)"


def read(name: str) -> pd.DataFrame:
    """A data set of nlme, with the column that the scripts add."""
    frame = getattr(datasets, f"load_{name}")().frame
    if name == "orthodont":
        # Three children each.
        frame["trio"] = np.arange(len(frame)) // 12
    return frame


# The data, the formula, the series if no term names it, and the structure.
MODELS: dict[str, tuple[str, str, str | None, Any]] = {
    "ovary_gls": ("ovary", WAVES, "Mare", AR1(time="Day")),
    "ovary_lme": ("ovary", f"{WAVES} + (1 | Mare)", None, AR1(time="Day")),
    "orthodont_symmetric": ("orthodont", GROWTH, "Subject", Unstructured(time="age")),
    "orthodont_compound": ("orthodont", GROWTH, "Subject", CompoundSymmetry()),
    "orthodont_strata": ("orthodont", f"{GROWTH} + (1 | Subject)", None, Stratified(by="Sex")),
    "orthodont_nested": (
        "orthodont",
        f"{GROWTH} + (1 | trio)",
        "Subject",
        AR1(time="occasion", within="Subject"),
    ),
    "dialyzer_power": ("dialyzer", FLOW, "Subject", AR1(time="index", variance=Power("pressure"))),
}


@dataclass
class NoiseFit:
    """A fit, its rows and what dense algebra makes of its estimates.

    Attributes
    ----------
    model : MixedLinearRegressor
    frame : DataFrame
    y : Series
    weights : ndarray of shape (n,) or None
    X : ndarray of shape (n, p)
    R, V : ndarray of shape (n, n)
        Covariance of the noise and of the response.
    """

    model: Any
    frame: pd.DataFrame
    y: pd.Series
    weights: np.ndarray | None
    X: np.ndarray
    R: np.ndarray
    V: np.ndarray

    @property
    def rows(self) -> dict[str, Any]:
        """Arguments of the functions that take the rows of the fit."""
        return {"X": self.frame, "y": self.y, "sample_weight": self.weights}

    @property
    def P(self) -> np.ndarray:
        """``V^-1 - V^-1 X (X'V^-1 X)^-1 X'V^-1``."""
        turned = np.linalg.solve(self.V, self.X)
        inverse = np.linalg.inv(self.V)
        return inverse - turned @ np.linalg.solve(self.X.T @ turned, turned.T)


def fit(name: str, frame: pd.DataFrame | None = None, weights: Any = None) -> NoiseFit:
    """Fit a model, to other rows of its data if these are given."""
    data, formula, groups, residual = MODELS[name]
    frame = read(data) if frame is None else frame
    if data == "orthodont":
        frame = frame.assign(occasion=(frame["age"] - 8) // 2)
    model = lmer(formula, frame, groups=groups, residual=residual, sample_weight=weights)
    y = frame[formula.split(" ~ ")[0]]
    R = noise_covariance(name, model, frame)
    if weights is not None:
        R = R / np.sqrt(np.outer(weights, weights))
    V = R.copy()
    for factor, covariance in model.covariances_.items():
        V += covariance.to_numpy()[0, 0] * _same(frame[factor])
    return NoiseFit(model, frame, y, weights, design(name, frame), R, V)


def _same(column: pd.Series) -> np.ndarray:
    return column.to_numpy()[:, None] == column.to_numpy()


def design(name: str, frame: pd.DataFrame) -> np.ndarray:
    """The columns of the fixed effects, in the order of the coefficients."""
    data = MODELS[name][0]
    ones = np.ones(len(frame))
    if data == "ovary":
        turn = 2.0 * np.pi * frame["Time"]
        return np.column_stack([ones, np.sin(turn), np.cos(turn)])
    if data == "orthodont":
        is_female = (frame["Sex"] == "Female").to_numpy(float)
        age = frame["age"].to_numpy(float)
        return np.column_stack([ones, age, is_female, age * is_female])
    is_fast = (frame["QB"] == 300).to_numpy(float)
    powers = [frame["pressure"].to_numpy() ** k for k in (1, 2, 3)]
    return np.column_stack([ones, *powers, is_fast, *(own * is_fast for own in powers)])


def noise_covariance(name: str, model: Any, frame: pd.DataFrame) -> np.ndarray:
    """The covariance of the noise of rows of weight one, from the attributes of a fit."""
    data, _, _, residual = MODELS[name]
    series = {"ovary": "Mare", "orthodont": "Subject", "dialyzer": "Subject"}[data]
    own, n = model.residual_parameters_, len(frame)
    if name == "orthodont_symmetric":
        place = ((frame["age"] - 8) // 2).to_numpy()
        whole = model.residual_covariance_.to_numpy()
        return whole[np.ix_(place, place)] * _same(frame[series])
    deviations = np.full(n, np.sqrt(model.noise_variance_))
    if name == "orthodont_strata":
        (ratio,) = own.values()
        return np.diag(model.noise_variance_ * np.where(frame["Sex"] == "Female", 1.0, ratio))
    if name == "dialyzer_power":
        deviations *= frame["pressure"] ** own["power of pressure"]
    if name == "orthodont_compound":
        correlations = np.where(np.eye(n) == 1.0, 1.0, own["correlation"])
    else:
        times = frame[residual.time].to_numpy(float)
        correlations = own["correlation"] ** np.abs(times[:, None] - times)
    return np.outer(deviations, deviations) * correlations * _same(frame[series])
