"""Crossed factors of any size: the stochastic solver, beside the exact one where that can be had.

python benchmarks/crossed.py                # all cases; about ten minutes
python benchmarks/crossed.py --quick        # without those of more than a million rows
python benchmarks/crossed.py --seeds        # thirty seeds beside the exact solver; ten minutes
python benchmarks/crossed.py movielens      # one case

Degrees are as skewed as those of the real data: log-normal with their means and medians, no level
above the share of the largest one, no pair twice.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from _timing import time_and_memory

from mixedlearn import MixedLinearRegressor
from mixedlearn.datasets import load_insteval

GIB = 1 << 30
N_SEEDS = 30


@dataclass(frozen=True)
class Case:
    """Data and a model.

    Attributes
    ----------
    make : callable
        Gives X and y.
    parameters : dict
        Of the estimator.
    has_exact : bool
        Whether the exact solver is timed beside it.
    """

    make: Callable[[], tuple[pd.DataFrame, np.ndarray]]
    parameters: dict = field(default_factory=dict)
    has_exact: bool = False


def _labels(rng: np.random.Generator, n: int, m: int, sigma: float, largest: float) -> np.ndarray:
    """Levels of n rows, with log-normal shares of which none is above the largest."""
    shares = rng.lognormal(sigma=sigma, size=m)
    for _ in range(20):
        shares = np.minimum(shares / shares.sum(), largest)
    bounds = np.cumsum(shares / shares.sum())
    return np.minimum(np.searchsorted(bounds, rng.random(n)), m - 1).astype(np.int32)


def ratings(n: int, users: tuple, items: tuple) -> tuple[pd.DataFrame, np.ndarray]:
    """Ratings of items by users; of both number, sigma and largest share."""
    rng = np.random.default_rng(20260101)
    drawn = int(1.35 * n)
    keys = _labels(rng, drawn, *users).astype(np.int64)
    keys *= items[0]
    keys += _labels(rng, drawn, *items)
    keys.sort()
    keys = keys[np.append(True, np.diff(keys) > 0)]
    keys = keys[np.sort(rng.choice(len(keys), n, replace=False))]
    user, item = (part.astype(np.int32) for part in np.divmod(keys, items[0]))
    del keys
    y = 3.5 + 0.85 * rng.standard_normal(n)
    y += 0.4 * rng.standard_normal(users[0])[user]
    y += 0.5 * rng.standard_normal(items[0])[item]
    return pd.DataFrame({"user": user, "item": item}), y


def workers(n: int, n_persons: int, n_firms: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Wages of persons in firms, a quarter of whom move once."""
    rng = np.random.default_rng(20260102)
    person = rng.integers(0, n_persons, n).astype(np.int32)
    home, second = (_labels(rng, n_persons, n_firms, 1.6, 0.01) for _ in range(2))
    is_after = (rng.random(n_persons) < 0.25)[person] & (rng.random(n) < 0.5)
    firm = np.where(is_after, second[person], home[person])
    y = 3.0 + 0.3 * rng.standard_normal(n)
    y += 0.5 * rng.standard_normal(n_persons)[person]
    y += 0.2 * rng.standard_normal(n_firms)[firm]
    return pd.DataFrame({"person": person, "firm": firm}), y


def insteval() -> tuple[pd.DataFrame, np.ndarray]:
    """University lecture evaluations by students."""
    X, y = load_insteval(return_X_y=True)
    return X, np.asarray(y, dtype=float)


def subjects_in_areas() -> tuple[pd.DataFrame, np.ndarray]:
    """1e7 rows of 1e6 subjects in 1e3 areas."""
    rng = np.random.default_rng(20260103)
    subject = rng.integers(0, 1_000_000, 10_000_000).astype(np.int32)
    area = rng.integers(0, 1_000, 1_000_000).astype(np.int32)[subject]
    x = rng.standard_normal(len(subject))
    y = 1.0 + 0.5 * x + rng.standard_normal(len(subject))
    y += 0.7 * rng.standard_normal(1_000_000)[subject] + 0.3 * rng.standard_normal(1_000)[area]
    return pd.DataFrame({"x": x, "subject": subject, "area": area}), y


def slopes_of_groups() -> tuple[pd.DataFrame, np.ndarray]:
    """2e7 rows in 1e6 groups, whose slopes differ."""
    rng = np.random.default_rng(20260104)
    group = rng.integers(0, 1_000_000, 20_000_000).astype(np.int32)
    x = rng.standard_normal(len(group))
    effects = rng.standard_normal((1_000_000, 2))
    y = 1.0 + 0.5 * x + effects[group, 0] + 0.3 * effects[group, 1] * x
    y += rng.standard_normal(len(group))
    return pd.DataFrame({"x": x, "group": group}), y


def many_groups() -> tuple[pd.DataFrame, np.ndarray]:
    """500,000 rows in 125,066 groups."""
    rng = np.random.default_rng(20260105)
    group = rng.integers(0, 125_066, 500_000).astype(np.int32)
    x = rng.standard_normal((len(group), 3))
    y = x.sum(axis=1) + rng.standard_normal(125_066)[group] + rng.standard_normal(len(group))
    return pd.DataFrame(x, columns=["a", "b", "c"]).assign(group=group), y


def _movielens() -> tuple[pd.DataFrame, np.ndarray]:
    return ratings(32_000_000, (200_948, 1.39, 1e-3), (84_432, 2.6, 3.2e-3))


def _netflix() -> tuple[pd.DataFrame, np.ndarray]:
    return ratings(100_000_000, (480_189, 1.25, 2e-4), (17_770, 2.15, 2.3e-3))


def _ratings_1e5() -> tuple[pd.DataFrame, np.ndarray]:
    return ratings(100_000, (2_000, 1.2, 0.01), (1_000, 1.6, 0.01))


def _ratings_1e6() -> tuple[pd.DataFrame, np.ndarray]:
    return ratings(1_000_000, (6_040, 1.1, 0.003), (3_706, 1.6, 0.0035))


def _workers() -> tuple[pd.DataFrame, np.ndarray]:
    return workers(10_000_000, 1_400_000, 100_000)


RATINGS = {"groups": ["user", "item"]}
INSTEVAL = {"groups": ["s", "d", "dept"], "fixed_effects": ["service"]}
CASES = {
    "ratings, 1e5": Case(_ratings_1e5, RATINGS, has_exact=True),
    "ratings, 1e6": Case(_ratings_1e6, RATINGS, has_exact=True),
    "insteval": Case(insteval, INSTEVAL, has_exact=True),
    "insteval, slope": Case(insteval, INSTEVAL | {"random_slopes": {"d": ["service"]}}, True),
    "movielens": Case(_movielens, RATINGS),
    "netflix": Case(_netflix, RATINGS),
    "workers": Case(_workers, {"groups": ["person", "firm"]}),
    "subjects in areas": Case(subjects_in_areas, {"groups": ["subject", "area"]}),
    "slopes of groups": Case(slopes_of_groups, {"groups": "group", "random_slopes": ["x"]}),
    "many groups": Case(many_groups, {"groups": "group"}),
}
BIG = ("movielens", "netflix", "workers", "subjects in areas", "slopes of groups")
BESIDE_EXACT = ("ratings, 1e5", "ratings, 1e6", "insteval", "insteval, slope")


def _prepare(name: str, solver: str) -> Callable[[], dict]:
    case = CASES[name]
    X, y = case.make()
    model = MixedLinearRegressor(**case.parameters, solver=solver, random_state=0)

    def fit() -> dict:
        model.fit(X, y)
        share = 0.0
        if model.solver_ == "stochastic":
            share = model.__mixedlearn_fitted__().known.fit.sampling.errors.share
        return {
            "solver": model.solver_,
            "rows": len(y),
            "levels": " x ".join(f"{m:,}" for m in model.n_groups_.values()),
            "share": share,
            "converged": model.converged_,
            "deviance": -2.0 * model.log_likelihood_,
        }

    return fit


def time_cases(names: list[str]) -> None:
    """Print a table of the cases."""
    rows = []
    for name in names:
        for solver in ("stochastic", "exact") if CASES[name].has_exact else ("auto",):
            seconds, growth, found = time_and_memory(_prepare, name, solver)
            rows.append(
                [
                    name,
                    f"{found['rows']:,}",
                    found["levels"],
                    found["solver"],
                    f"{seconds:.1f} s",
                    f"{growth / GIB:.2f} GiB",
                    f"{found['share']:.4f}",
                    str(found["converged"]),
                ]
            )
            print("measured:", name, flush=True)
    head = ["data", "rows", "levels", "solver", "time", "memory", "error / se", "certified"]
    print(pd.DataFrame(rows, columns=head).to_string(index=False))


def compare_seeds(names: list[str]) -> None:
    """Print how far estimates of thirty seeds are from the exact ones, in standard errors."""
    rows = []
    for name in names:
        X, y = CASES[name].make()
        parameters = CASES[name].parameters
        exact = MixedLinearRegressor(**parameters, solver="exact").fit(X, y)
        errors = _standard_errors(exact)
        worst = {"variances": 0.0, "coefficients": 0.0, "BLUPs": 0.0}
        for seed in range(N_SEEDS):
            model = MixedLinearRegressor(**parameters, solver="stochastic", random_state=seed)
            model.fit(X, y)
            for what, found in _differences(exact, model, errors).items():
                worst[what] = max(worst[what], found)
        rows.append([name, *(f"{value:.4f}" for value in worst.values())])
        print("measured:", name, flush=True)
    head = [f"data, {N_SEEDS} seeds", *(f"{what} / se" for what in worst)]
    print(pd.DataFrame(rows, columns=head).to_string(index=False))


def _standard_errors(model: MixedLinearRegressor) -> dict:
    table = model.summary(std_error=True).random_effects
    return {
        "variances": table["std_error"].to_numpy(),
        "coefficients": np.sqrt(np.diag(model.coef_covariance_)),
        "BLUPs": {
            name: np.sqrt(np.einsum("maa->ma", own))
            for name, own in model.random_effects_covariances_.items()
        },
    }


def _variances(model: MixedLinearRegressor) -> np.ndarray:
    parts = [np.diag(own) for own in model.covariances_.values()]
    return np.concatenate([*parts, [model.noise_variance_]])


def _differences(exact: MixedLinearRegressor, model: MixedLinearRegressor, errors: dict) -> dict:
    coefficients = np.append(model.intercept_, model.coef_)
    known = np.append(exact.intercept_, exact.coef_)
    variances = np.abs(_variances(model) - _variances(exact)) / errors["variances"]
    return {
        "variances": np.nanmax(variances),
        "coefficients": (np.abs(coefficients - known) / errors["coefficients"]).max(),
        "BLUPs": max(
            (np.abs(model.random_effects_[name] - own).to_numpy() / errors["BLUPs"][name]).max()
            for name, own in exact.random_effects_.items()
        ),
    }


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="without the big cases")
    parser.add_argument("--seeds", action="store_true", help="thirty seeds beside the exact solver")
    chosen = parser.parse_args()
    print(platform.platform(), "python", platform.python_version(), "numpy", np.__version__)
    if chosen.seeds:
        compare_seeds(chosen.cases or list(BESIDE_EXACT))
        return
    names = chosen.cases or [name for name in CASES if not (chosen.quick and name in BIG)]
    time_cases(names)


if __name__ == "__main__":
    main()
