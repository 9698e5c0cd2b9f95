"""Small data sets with residual structures, one for every seed, and their dense likelihood.

The data are drawn as those of `hard_problems` are: integers, standard normals and uniforms of PCG64
and elementwise arithmetic, so a seed gives the same numbers on every platform. `fingerprint` guards
that. The true noise is not of the structure that is fitted, so that likelihoods are not all smooth
bowls.

`relative_covariance` is a second way from parameters to V, which shares nothing with the package:
other charts, no blocks, no patterns, V of all rows at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

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
from reference.hard_problems import _chance, _magnitude

KINDS = {
    "ar1": AR1,
    "continuous": ContinuousAR1,
    "symmetry": CompoundSymmetry,
    "toeplitz": Toeplitz,
    "antedependence": Antedependence,
    "unstructured": Unstructured,
}
# A correlation matrix whose smallest eigenvalue is below this is singular, to a search by
# differences; standard deviations of such a ratio have run away.
SINGULAR, MOST_RATIO = 1e-4, 1e4
FAMILIES = (
    "ar1",
    "continuous",
    "symmetry",
    "toeplitz",
    "antedependence",
    "unstructured",
    "heterogeneous ar1",
    "heterogeneous continuous",
    "heterogeneous symmetry",
    "heterogeneous toeplitz",
    "heterogeneous antedependence",
    "strata",
    "power",
    "by",
    "product",
    "beside an intercept",
    "beside a slope",
    "beside two factors",
    "heterogeneous beside an intercept",
    "irregular beside an intercept",
)
"""Seed ``s`` belongs to family ``s % 20``; gaps, dropout, weights and ML are mixed in at random."""


@dataclass(frozen=True, eq=False)
class NoiseProblem:
    """Data and model.

    ``correlation`` is a key of `KINDS` or None; ``randoms`` has a grouping column and whether there
    is a slope in ``t`` beside the intercept, for every factor.
    """

    seed: int
    kind: str
    data: pd.DataFrame
    correlation: str | None
    is_heterogeneous: bool
    has_strata: bool
    has_power: bool
    has_parts: bool
    randoms: tuple[tuple[str, bool], ...]
    is_weighted: bool
    reml: bool

    @property
    def residual(self) -> Any:
        """The structure as the package takes it."""
        variance: list[Any] = ["heterogeneous"] * self.is_heterogeneous
        variance += [Stratified(by="arm")] * self.has_strata
        variance += [Power(of="size")] * self.has_power
        if self.correlation is None:
            return variance[0]
        kind = KINDS[self.correlation]
        time = "t" if self.correlation in ("ar1", "continuous") else "visit"
        if self.is_heterogeneous and self.correlation == "continuous":
            # Every occasion has one time there.
            time = "t"
        own: dict[str, Any] = {"time": time, "within": "id"}
        if self.has_parts:
            own["by"] = "arm"
        if variance:
            own["variance"] = variance
        return kind(**own)

    @property
    def formula(self) -> str:
        """The right-hand side."""
        terms = [f"({'t' if slope else '1'} | {factor})" for factor, slope in self.randoms]
        return " + ".join(["x + arm + t", *terms])

    @property
    def groups(self) -> str | None:
        """The factor of the series, where no term names it."""
        is_named = "id" in [factor for factor, _ in self.randoms]
        return None if is_named or self.correlation is None else "id"

    @property
    def weights(self) -> np.ndarray | None:
        return self.data["weight"].to_numpy() if self.is_weighted else None

    def fingerprint(self) -> str:
        """sha256 over the data, rounded to ten significant digits, and the model."""
        parts = [self.kind, repr(self.residual), self.formula, repr(self.reml)]
        for name, column in self.data.items():
            is_text = column.dtype == object or isinstance(column.dtype, pd.StringDtype)
            parts += [str(name), *(str(v) if is_text else f"{v:.9e}" for v in column)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _occasions(rng: np.random.Generator, n: int, least: int, style: str) -> np.ndarray:
    """The occasions of a level, at least so many."""
    if style == "dropout":
        return np.arange(int(rng.integers(least, n + 1)))
    if style == "gaps" and _chance(rng, 0.6):
        kept = np.array([_chance(rng, 0.7) for _ in range(n)])
        return np.flatnonzero(kept) if kept.sum() >= least else np.arange(n)
    return np.arange(n)


def noise_problem(seed: int) -> NoiseProblem:
    """The problem of this seed."""
    rng = np.random.Generator(np.random.PCG64([20260201, seed]))
    family = FAMILIES[seed % len(FAMILIES)]
    names = list(KINDS)
    correlation = family.split()[-1] if family.split()[-1] in KINDS else None
    is_heterogeneous = family.startswith("heterogeneous")
    has_strata, has_power = family == "strata", family == "power"
    randoms: tuple[tuple[str, bool], ...] = ()
    if family == "by":
        correlation = names[int(rng.integers(len(names)))]
        is_heterogeneous = correlation != "unstructured" and _chance(rng, 0.3)
    elif family == "product":
        correlation = names[int(rng.integers(5))]
        has_strata, has_power = [(True, False), (False, True), (True, True)][int(rng.integers(3))]
        is_heterogeneous = _chance(rng, 0.3)
    elif family in ("strata", "power"):
        if _chance(rng, 0.5):
            randoms = (("id", _chance(rng, 0.3)),)
    elif family == "beside an intercept":
        correlation = ("ar1", "continuous", "antedependence")[int(rng.integers(3))]
        randoms = (("id", False),)
    elif family == "beside a slope":
        correlation = ("ar1", "continuous")[int(rng.integers(2))]
        randoms = (("id", True),)
    elif family == "beside two factors":
        correlation = ("ar1", "continuous", "antedependence")[int(rng.integers(3))]
        randoms = (("site", False), ("id", False))
    elif family == "heterogeneous beside an intercept":
        correlation = ("ar1", "continuous", "antedependence")[int(rng.integers(3))]
        is_heterogeneous, randoms = True, (("id", False),)
    elif family == "irregular beside an intercept":
        correlation, randoms = "continuous", (("id", False),)
        has_power = _chance(rng, 0.5)
    elif correlation is not None and _chance(rng, 0.3):
        randoms = (("site", False),)

    n_occasions = int(rng.integers(3, 6))
    n_levels = int(rng.integers(12, 25))
    if correlation == "unstructured" or (family == "by" and is_heterogeneous):
        n_occasions, n_levels = int(rng.integers(3, 5)), int(rng.integers(24, 37))
    if len(randoms) and randoms[-1] == ("id", True):
        n_occasions = 5
    style = ("complete", "dropout", "gaps")[int(rng.integers(3))]
    is_irregular = family == "irregular beside an intercept" or (
        correlation == "continuous" and not is_heterogeneous and _chance(rng, 0.5)
    )
    phi = float(rng.uniform(-0.6, 0.9))
    level_sd = (0.0, 0.5, 2.0)[int(rng.integers(3))]
    slope_sd = (0.0, 0.3)[int(rng.integers(2))]
    growth = float(rng.uniform(-0.3, 0.5))
    is_weighted, reml = _chance(rng, 0.25), _chance(rng, 0.6)
    rows = []
    for level in range(n_levels):
        occasions = _occasions(rng, n_occasions, 2, style)
        effect = level_sd * float(rng.standard_normal())
        slope = slope_sd * float(rng.standard_normal())
        arm, noise = level % 2, 0.0
        for number, occasion in enumerate(occasions):
            fresh = float(rng.standard_normal())
            noise = fresh if number == 0 else phi * noise + fresh * (1.0 - abs(phi))
            size = float(rng.uniform(0.5, 2.0))
            time = float(occasion) + (0.7 * float(rng.uniform()) if is_irregular else 0.0)
            own = noise * (1.0 + growth * occasion) * (1.0 + 0.5 * arm)
            rows.append(
                {
                    "id": f"p{level:02d}",
                    "site": f"s{level % 4}",
                    "arm": "ab"[arm],
                    "visit": f"v{occasion}",
                    "t": time,
                    "x": float(rng.standard_normal()),
                    "size": size,
                    "weight": _magnitude(rng, -2, 1),
                    "y": own
                    + effect
                    + slope * time
                    + 0.3 * time
                    + (0.5, -1.0, 0.0, 1.0)[level % 4],
                }
            )
    data = pd.DataFrame(rows)
    shuffled = rng.permutation(len(data))
    data = data.iloc[shuffled].reset_index(drop=True)
    kind = [family, str(correlation), style, "REML" if reml else "ML", f"T={n_occasions}"]
    kind += [f"n={len(data)}"] + ["irregular"] * is_irregular + ["weighted"] * is_weighted
    return NoiseProblem(
        seed,
        ", ".join(kind),
        data,
        correlation,
        is_heterogeneous,
        has_strata,
        has_power,
        family == "by",
        randoms,
        is_weighted,
        reml,
    )


def _toeplitz(partials: np.ndarray) -> np.ndarray:
    """Correlations by lag, from partial correlations, by their definition."""
    found = [1.0]
    for k, partial in enumerate(partials):
        inner = np.array([[found[abs(i - j)] for j in range(k)] for i in range(k)]).reshape(k, k)
        near = np.array(found[1 : k + 1])
        weights = np.linalg.solve(inner, near) if k else near
        rest = 1.0 - weights @ near
        found.append(float(weights @ near[::-1] + partial * rest))
    return np.array(found)


class RelativeCovariance:
    """V of all rows, up to its scale, from parameters without bounds.

    Parameters
    ----------
    problem : NoiseProblem
    """

    def __init__(self, problem: NoiseProblem):
        data = problem.data
        self.problem = problem
        ids = data["id"].to_numpy()
        self.same_level = ids[:, None] == ids
        self.visit = np.array([int(own[1:]) for own in data["visit"]])
        self.n_visits = int(self.visit.max()) + 1
        times = data["t"].to_numpy()
        self.gaps = np.abs(times[:, None] - times)
        self.lag = np.abs(self.visit[:, None] - self.visit)
        self.arm = (data["arm"] == "b").to_numpy().astype(int)
        self.log_size = np.log(data["size"].to_numpy())
        self.most_rows = int(data.groupby("id").size().max())
        ones = np.ones(len(data))
        self.z = []
        for factor, slope in problem.randoms:
            levels = data[factor].to_numpy()
            columns = np.column_stack([ones, times] if slope else [ones])
            self.z.append((levels[:, None] == levels, columns))
        self.root_weights = ones if problem.weights is None else np.sqrt(problem.weights)

    def __call__(self, parameters: np.ndarray) -> np.ndarray:
        """V for parameters of any size, that give one number after the other."""
        return self.from_numbers(iter(parameters))

    @property
    def n_parameters(self) -> int:
        """How many parameters are asked for."""
        asked = []

        def zeros() -> Iterator[float]:
            while True:
                asked.append(0.0)
                yield 0.0

        self.from_numbers(zeros())
        return len(asked)

    def noise(self, numbers: Iterator[float]) -> np.ndarray:
        """R of all rows as if of weight one."""
        n_parts = 2 if self.problem.has_parts else 1
        parts = [self._noise(numbers, part > 0) for part in range(n_parts)]
        second = self.arm.astype(bool)
        return np.where(second[:, None], parts[-1], parts[0]) * self.same_level

    def from_numbers(self, numbers: Iterator[float]) -> np.ndarray:
        V = self.noise(numbers) / np.outer(self.root_weights, self.root_weights)
        for same, columns in self.z:
            q = columns.shape[1]
            root = np.zeros((q, q))
            for i in range(q):
                for j in range(i + 1):
                    root[i, j] = next(numbers) + (i == j)
            turned = columns @ root
            V = V + same * (turned @ turned.T)
        return V

    def _noise(self, numbers: Iterator[float], is_later: bool) -> np.ndarray:
        problem, t = self.problem, self.n_visits
        if problem.correlation == "unstructured":
            root = np.zeros((t, t))
            for i in range(t):
                for j in range(i):
                    root[i, j] = next(numbers)
                root[i, i] = np.exp(next(numbers)) if i or is_later else 1.0
            return (root @ root.T)[self.visit[:, None], self.visit]
        logs = np.zeros(len(self.visit))
        if is_later:
            logs = logs + next(numbers)
        if problem.is_heterogeneous:
            logs = logs + np.array([0.0, *(next(numbers) for _ in range(t - 1))])[self.visit]
        if problem.has_strata:
            logs = logs + next(numbers) * self.arm
        if problem.has_power:
            logs = logs + next(numbers) * self.log_size
        return self._correlation(numbers) * np.exp(logs[:, None] + logs)

    def _correlation(self, numbers: Iterator[float]) -> np.ndarray:
        kind, t = self.problem.correlation, self.n_visits
        if kind is None:
            return np.eye(len(self.visit))
        if kind == "ar1":
            return np.tanh(next(numbers)) ** np.round(self.gaps)
        if kind == "continuous":
            return np.exp(-np.exp(next(numbers)) * self.gaps)
        if kind == "symmetry":
            low = -1.0 / (self.most_rows - 1)
            rho = low + (1.0 - low) / (1.0 + np.exp(-next(numbers)))
            return np.where(np.eye(len(self.visit), dtype=bool), 1.0, rho)
        steps = np.tanh([next(numbers) for _ in range(t - 1)])
        if kind == "toeplitz":
            return _toeplitz(steps)[self.lag]
        table = np.eye(t)
        for i in range(t):
            for j in range(i):
                table[i, j] = table[j, i] = np.prod(steps[j:i])
        return table[self.visit[:, None], self.visit]


def is_at_edge(problem: NoiseProblem, parameters: np.ndarray) -> bool:
    """Whether the noise of a level that has all occasions is singular, or has no common size."""
    own = RelativeCovariance(problem)
    visits = np.arange(own.n_visits)
    whole = pd.concat(
        [
            problem.data,
            *(
                problem.data.iloc[[0] * own.n_visits].assign(
                    id=f"all {arm}", arm=arm, visit=[f"v{k}" for k in visits], t=visits, size=1.0
                )
                for arm in "ab"
            ),
        ],
        ignore_index=True,
    )
    larger = RelativeCovariance(replace(problem, data=whole))
    larger.most_rows = own.most_rows
    R = larger.noise(iter(parameters))
    sizes = np.sqrt(np.diag(R))
    smallest = np.linalg.eigvalsh(R / np.outer(sizes, sizes))[0]
    return bool(smallest < SINGULAR or np.ptp(np.log(sizes)) > np.log(MOST_RATIO))


def criterion_of(problem: NoiseProblem) -> tuple[int, Callable[[np.ndarray], float]]:
    """Number of parameters, and minus twice the log-likelihood over all scales of V."""
    covariance = RelativeCovariance(problem)
    data = problem.data
    X = np.column_stack([np.ones(len(data)), data["x"], data["arm"] == "b", data["t"]])
    y = data["y"].to_numpy()
    n, p = X.shape
    df = n - p if problem.reml else n

    def criterion(parameters: np.ndarray) -> float:
        with np.errstate(all="ignore"):
            try:
                V = covariance(parameters)
                if not np.isfinite(V).all():
                    return np.inf
                root = np.linalg.cholesky(V)
                white = np.linalg.solve(root, np.column_stack([X, y]))
            except np.linalg.LinAlgError:
                return np.inf
            gram = white[:, :p].T @ white[:, :p]
            coef = np.linalg.lstsq(white[:, :p], white[:, p], rcond=None)[0]
            rest = white[:, p] - white[:, :p] @ coef
            value = 2.0 * np.log(np.diag(root)).sum() + df * np.log(2.0 * np.pi * rest @ rest / df)
            if problem.reml:
                value += np.linalg.slogdet(gram)[1]
        return float(value + df)

    return covariance.n_parameters, criterion
