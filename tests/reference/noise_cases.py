"""Models with residual structures, their fits, and V of all their rows in the tests' own words."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from tests.reference.dense_noise import DenseModel

from mixedlearn import MixedLinearRegressor
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

N_LEVELS, N_OCCASIONS = 30, 4


def make_data(seed: int, irregular: bool = False) -> pd.DataFrame:
    """Levels without some occasions, correlated noise of unequal variance, level effects."""
    rng = np.random.default_rng(seed)
    rows = []
    for level in range(N_LEVELS):
        occasions = np.arange(N_OCCASIONS)
        if level % 3 == 0:
            occasions = np.sort(rng.choice(N_OCCASIONS, N_OCCASIONS - 1, replace=False))
        times = occasions + (0.8 * rng.random(len(occasions)) if irregular else 0.0)
        noise = np.empty(len(occasions))
        for k in range(len(occasions)):
            fresh = rng.standard_normal()
            noise[k] = fresh if k == 0 else 0.5 * noise[k - 1] + np.sqrt(0.75) * fresh
        effect = rng.standard_normal()
        for k, occasion in enumerate(occasions):
            rows.append(
                {
                    "id": f"s{level}",
                    "t": times[k],
                    "visit": f"v{occasion}",
                    "x": rng.standard_normal(),
                    "arm": "ab"[level % 2],
                    "size": rng.uniform(0.5, 2.0),
                    "site": f"c{level % 5}",
                    "rater": f"r{(level // 5) % 6}",
                    "y": effect
                    + noise[k] * (1.0 + 0.3 * occasion)
                    + 0.2 * occasion
                    + [-1.5, 1.2, 0.0, 0.7, -0.8][level % 5]
                    + [1.0, -1.0, 0.3, 0.9, -0.2, 1.4][(level // 5) % 6],
                }
            )
    return pd.DataFrame(rows).sample(frac=1.0, random_state=seed).reset_index(drop=True)


@dataclass(frozen=True)
class Case:
    """A structure, and how V depends on the residual parameters in the test's own words."""

    residual: Any
    correlation: str | None
    by_visit: bool = False
    stratum: str | None = None
    power: str | None = None
    random: tuple[str, ...] = ()
    irregular: bool = False
    part: str | None = None


CASES = {
    "ar1": Case(AR1(time="t"), "ar1"),
    "ar1 beside an intercept": Case(AR1(time="t"), "ar1", random=("id",)),
    "ar1 by category": Case(AR1(time="visit", variance="heterogeneous"), "ar1", by_visit=True),
    "continuous": Case(ContinuousAR1(time="t"), "ar1", irregular=True),
    "continuous beside an intercept": Case(
        ContinuousAR1(time="t"), "ar1", irregular=True, random=("id",)
    ),
    "compound symmetry": Case(CompoundSymmetry(), "cs"),
    "toeplitz": Case(Toeplitz(time="visit"), "toeplitz"),
    "heterogeneous toeplitz beside another factor": Case(
        Toeplitz(time="visit", within="id", variance="heterogeneous"),
        "toeplitz",
        by_visit=True,
        random=("site",),
    ),
    "antedependence": Case(Antedependence(time="visit"), "ad"),
    "unstructured": Case(Unstructured(time="visit"), "un"),
    "unstructured by arm": Case(Unstructured(time="visit", by="arm"), "un", part="arm"),
    "ar1 by arm": Case(AR1(time="t", by="arm"), "ar1", part="arm"),
    "strata": Case(Stratified(by="arm"), None, stratum="arm"),
    "strata beside an intercept": Case(Stratified(by="arm"), None, stratum="arm", random=("id",)),
    "power": Case(Power(of="size"), None, power="size"),
    "ar1 within levels of a factor": Case(AR1(time="t", within="id"), "ar1", random=("site",)),
    "ar1 and nested factors": Case(AR1(time="t", within="id"), "ar1", random=("site", "id")),
    "ar1 and crossed factors": Case(AR1(time="t", within="id"), "ar1", random=("site", "rater")),
    "ar1, strata and power": Case(
        AR1(time="t", variance=[Stratified(by="arm"), Power(of="size")]),
        "ar1",
        stratum="arm",
        power="size",
    ),
    "ar1 and power, irregular, beside an intercept": Case(
        ContinuousAR1(time="t", variance=Power(of="size")),
        "ar1",
        power="size",
        irregular=True,
        random=("id",),
    ),
}


def fit(case: Case, seed: int = 0, **parameters: Any) -> tuple[Any, pd.DataFrame]:
    data = make_data(seed, case.irregular)
    formula = " + ".join(["x + arm", *(f"(1 | {factor})" for factor in case.random)])
    groups = None if "id" in case.random or case.correlation is None else "id"
    model = MixedLinearRegressor(formula=formula, groups=groups, residual=case.residual)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.set_params(**parameters).fit(data, data["y"])
    return model, data


def noise_covariance(case: Case, model: Any, data: pd.DataFrame, own: dict[str, float]):
    """R of all rows in squared units of y, from parameters by name, row by row."""
    n = len(data)
    ids, visits = data["id"].to_numpy(), data["visit"].to_numpy()
    times = data["t"].to_numpy() if case.residual.get_params().get("time") == "t" else None
    order = sorted(set(visits))
    number = np.array([order.index(visit) for visit in visits])
    R = np.zeros((n, n))
    for i in range(n):
        prefix = "" if case.part is None else f"{case.part} {data[case.part][i]!r}: "
        for j in range(n):
            if ids[i] != ids[j] or (case.correlation is None and i != j):
                continue
            low, high = sorted((number[i], number[j]))
            if case.correlation == "un":
                sd = [np.sqrt(own[f"{prefix}variance of {visits[k]}"]) for k in (i, j)]
                rho = 1.0
                if i != j:
                    rho = own[f"{prefix}correlation of {order[low]} and {order[high]}"]
                R[i, j] = sd[0] * sd[1] * rho
                continue
            rho = 1.0
            if i != j:
                if case.correlation == "ar1":
                    gap = high - low if times is None else abs(times[i] - times[j])
                    rho = own[f"{prefix}correlation"] ** gap
                elif case.correlation == "cs":
                    rho = own["correlation"]
                elif case.correlation == "toeplitz":
                    rho = own[f"correlation at distance {high - low}"]
                elif case.correlation == "ad":
                    steps = range(low, high)
                    names = [f"correlation of {order[k]} and {order[k + 1]}" for k in steps]
                    rho = np.prod([own[name] for name in names])
            R[i, j] = own["noise"] * rho
            for k in (i, j):
                R[i, j] *= np.sqrt(own.get(f"{prefix}variance ratio", 1.0))
                if case.by_visit:
                    R[i, j] *= np.sqrt(own.get(f"variance ratio of {visits[k]}", 1.0))
                if case.stratum:
                    name = f"variance ratio of {case.stratum} {data[case.stratum][k]!r}"
                    R[i, j] *= np.sqrt(own.get(name, 1.0))
                if case.power:
                    R[i, j] *= data[case.power][k] ** own[f"power of {case.power}"]
    return R


def dense(case: Case, model: Any, data: pd.DataFrame) -> tuple[DenseModel, np.ndarray]:
    """The dense model, and its parameters at the fit."""
    names = list(model.residual_parameters_)
    values = list(model.residual_parameters_.values())
    if case.correlation != "un":
        names, values = [*names, "noise"], [*values, model.noise_variance_]
    for factor in case.random:
        names.append(factor)
        values.append(float(model.covariances_[factor].iloc[0, 0]))

    def covariance(parameters: np.ndarray) -> np.ndarray:
        own = dict(zip(names, parameters, strict=True))
        V = noise_covariance(case, model, data, own)
        for factor in case.random:
            levels = data[factor].to_numpy()
            V = V + own[factor] * (levels[:, None] == levels)
        return V

    X = np.column_stack([np.ones(len(data)), data["x"], data["arm"] == "b"])
    return DenseModel(X, data["y"].to_numpy(), covariance, model.reml), np.array(values)


def parameters_of(case, model):
    own = {**model.residual_parameters_, "noise": model.noise_variance_}
    for factor in case.random:
        own[factor] = float(model.covariances_[factor].iloc[0, 0])
    return own


def whole_covariance(case, model, data, *, of_noise=False):
    """V of rows by the estimates, or R."""
    own = parameters_of(case, model)
    found = noise_covariance(case, model, data, own)
    if of_noise:
        return found
    for factor in case.random:
        levels = data[factor].to_numpy()
        found = found + own[factor] * (levels[:, None] == levels)
    return found


def covariance_of_new(case, model, data, rows, *, of_noise=False):
    """V of rows of other levels than those of the data, or R."""
    others = rows.assign(**{own: "new " + rows[own] for own in ("id", "site", "rater")})
    both = pd.concat([data, others], ignore_index=True)
    n = len(data)
    return whole_covariance(case, model, both, of_noise=of_noise)[n:, n:]


def design(data):
    return np.column_stack([np.ones(len(data)), data["x"], data["arm"] == "b"])


def split(case, seed=3):
    """Rows to fit, rows that come later, and rows that nobody sees.

    Of known levels the last occasions come later, and levels 27 to 29 with all they have.
    """
    data = make_data(seed, case.irregular)
    number = data["id"].str[1:].astype(int)
    chosen = number % 4 < 2
    unseen = (data["visit"] == "v3") & chosen
    later = (number >= 27) | ((data["visit"] == "v2") & chosen)
    return tuple(
        data[own].reset_index(drop=True) for own in (~unseen & ~later, later & ~unseen, unseen)
    )


def fit_to(case, data, **parameters):
    formula = " + ".join(["x + arm", *(f"(1 | {factor})" for factor in case.random)])
    groups = None if "id" in case.random or case.correlation is None else "id"
    model = MixedLinearRegressor(formula=formula, groups=groups, residual=case.residual)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return model.set_params(**parameters).fit(data, data["y"])
