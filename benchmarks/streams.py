"""`partial_fit` of a million rows in calls of several sizes, beside one `fit` of all, in one run.

python benchmarks/streams.py    # about half a minute
"""

from __future__ import annotations

import platform
from importlib.metadata import version

import numpy as np
from _timing import extra_memory, print_table, time_in_turn

from mixedlearn import MixedLinearRegressor

ONE_FIT = "one fit"
N_ROWS, N_COLUMNS = 1_000_000, 10
CALLS = (1_000, 10_000, 100_000)


def stream(
    estimator: MixedLinearRegressor, X: np.ndarray, y: np.ndarray, groups: np.ndarray, size: int
) -> float:
    """The log-likelihood after calls of so many rows."""
    for first in range(0, len(y), size):
        rows = slice(first, first + size)
        estimator.partial_fit(X[rows], y[rows], groups=groups[rows])
    return estimator.log_likelihood_


def compare(n_levels: int, *, slope: bool) -> None:
    """Rows of random levels, with a random intercept, and a slope as well."""
    rng = np.random.default_rng(20260101)
    X, groups = rng.standard_normal((N_ROWS, N_COLUMNS)), rng.integers(0, n_levels, N_ROWS)
    y = X.sum(axis=1) + rng.standard_normal(n_levels)[groups] + rng.standard_normal(N_ROWS)
    parameters = {"random_slopes": [0] if slope else None}

    def whole() -> float:
        return MixedLinearRegressor(**parameters).fit(X, y, groups=groups).log_likelihood_

    programs = {ONE_FIT: whole} | {
        f"calls of {size:,} rows": lambda size=size: stream(
            MixedLinearRegressor(**parameters), X, y, groups, size
        )
        for size in CALLS
    }
    title = f"{n_levels:,} levels, random {'slope' if slope else 'intercept'}"
    print_table(title, ONE_FIT, time_in_turn(programs, dict.fromkeys(programs, 5)))
    found = {name: program() for name, program in programs.items()}
    apart = max(abs(value - found[ONE_FIT]) for value in found.values())
    memory = {name: extra_memory(program) / 1e6 for name, program in programs.items()}
    print(f"  log-likelihoods differ by {apart:.0e}")
    print("  MB beyond the data:", ", ".join(f"{name} {own:.0f}" for name, own in memory.items()))


def main() -> None:
    """Run all cases and print the tables."""
    packages = ("mixedlearn", "scikit-learn", "numpy")
    print(f"Python {platform.python_version()},", ", ".join(f"{p} {version(p)}" for p in packages))
    for n_levels in (1_000, 100_000):
        for slope in (False, True):
            compare(n_levels, slope=slope)


if __name__ == "__main__":
    main()
