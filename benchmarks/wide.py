"""Hundreds of fixed effects: fit and summary, beside LinearRegression and lme4.

python benchmarks/wide.py            # about three minutes
python benchmarks/wide.py --quick    # without lme4
"""

from __future__ import annotations

import argparse
import platform
import time
from importlib.metadata import version

import numpy as np
import pandas as pd
from _lme4 import fit_by_lme4
from _timing import time_in_turn
from sklearn.linear_model import LinearRegression

from mixedlearn import MixedLinearRegressor

SEED = 20260101
N_ROWS, N_LEVELS = 10_000, 500
WIDTHS = (50, 100, 200, 400, 600, 800, 1200)
# lme4 takes longer than all the rest beyond.
MOST_OF_LME4 = 600
REPEATS = 5


def simulate(n_columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standard normal columns, labels and a response with random intercepts."""
    rng = np.random.default_rng(SEED)
    X = rng.standard_normal((N_ROWS, n_columns))
    groups = rng.integers(0, N_LEVELS, N_ROWS)
    y = X[:, :5].sum(axis=1) + rng.standard_normal(N_LEVELS)[groups] + rng.standard_normal(N_ROWS)
    return X, y, groups


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    print(platform.platform(), platform.python_version())
    packages = ("mixedlearn", "scikit-learn", "numpy", "scipy")
    print(", ".join(f"{name} {version(name)}" for name in packages))
    print(f"{N_ROWS:,} rows, {N_LEVELS} levels, random intercepts; milliseconds")
    print(f"{'columns':>8}{'OLS':>10}{'fit':>10}{'fit / OLS':>11}{'summary':>10}{'lme4':>12}")
    for n_columns in WIDTHS:
        X, y, groups = simulate(n_columns)
        model = MixedLinearRegressor()
        seconds = time_in_turn(
            {
                "ols": lambda X=X, y=y: LinearRegression().fit(X, y),
                "fit": lambda m=model, X=X, y=y, g=groups: m.fit(X, y, groups=g),
            },
            {"ols": REPEATS, "fit": REPEATS},
        )
        start = time.perf_counter()
        model.summary()
        summary = time.perf_counter() - start
        lme4 = ""
        if not quick and n_columns <= MOST_OF_LME4:
            found = fit_by_lme4(pd.DataFrame({"y": y, "g": groups}), "y ~ X + (1 | g)", 1, X)
            lme4 = "no lme4" if found is None else f"{1e3 * found[0, 0]:.0f}"
        print(
            f"{n_columns:>8}{1e3 * seconds['ols']:>10.0f}{1e3 * seconds['fit']:>10.0f}"
            f"{seconds['fit'] / seconds['ols']:>11.2f}{1e3 * summary:>10.0f}{lme4:>12}"
        )


if __name__ == "__main__":
    main()
