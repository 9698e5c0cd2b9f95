"""Memory and time of an evaluation with crossed factors, by the size T of the dense block.

python benchmarks/dense_block.py                     # T of 1,000, 2,000 and 4,000
python benchmarks/dense_block.py 8000                # other sizes
python benchmarks/dense_block.py --seconds           # time alone: counting memory slows it down
"""

from __future__ import annotations

import argparse
import platform
import time
import tracemalloc
import warnings
from collections.abc import Callable
from importlib.metadata import version
from unittest import mock

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_info

from mixedlearn import MixedLinearRegressor
from mixedlearn.engines.elimination.engine import SeveralFactorsEngine

SEED = 20260101
RATINGS = 30

Model = tuple[MixedLinearRegressor, pd.DataFrame]


def _rows(size: int, n_levels: int, ratings: int = RATINGS) -> dict[str, np.ndarray]:
    """More users than ``size``, and a column of items that all occur."""
    rng = np.random.default_rng(SEED)
    n_users = size + size // 10
    user = np.repeat(np.arange(n_users), ratings)
    n = len(user)
    item = np.concatenate([np.arange(n_levels), rng.integers(0, n_levels, n - n_levels)])
    return {
        "user": rng.permutation(user),
        "item": item,
        "x": rng.standard_normal(n),
        "y": rng.standard_normal(n) + rng.standard_normal(n_levels)[item],
    }


def one_factor(size: int) -> Model:
    """Users and items."""
    return MixedLinearRegressor(groups=["user", "item"], fixed_effects=[]), pd.DataFrame(
        _rows(size, size)
    )


def slope(size: int) -> Model:
    """The same with a random slope for items."""
    model = MixedLinearRegressor(
        groups=["user", "item"], fixed_effects=["x"], random_slopes={"item": ["x"]}
    )
    return model, pd.DataFrame(_rows(size, size // 2))


def two_factors(size: int) -> Model:
    """Two factors in the dense block."""
    rows = _rows(size, size // 2)
    rows["shop"] = np.random.default_rng(SEED + 1).permutation(rows["item"])
    return MixedLinearRegressor(groups=["user", "item", "shop"], fixed_effects=[]), pd.DataFrame(
        rows
    )


def chain(size: int) -> Model:
    """Users in towns in regions, and items."""
    rows = _rows(size, size)
    rows["town"], rows["region"] = rows["user"] // 5, rows["user"] // 50
    return MixedLinearRegressor(
        groups=["user", "town", "region", "item"], fixed_effects=[]
    ), pd.DataFrame(rows)


def power_law(size: int) -> Model:
    """Items whose popularity falls with their rank: many columns are taken as dense."""
    rows = _rows(size, size, 10 * RATINGS)
    ranks = 1.0 / np.arange(1, size + 1)
    rng = np.random.default_rng(SEED + 2)
    popular = rng.choice(size, len(rows["item"]) - size, p=ranks / ranks.sum())
    rows["item"] = np.concatenate([np.arange(size), popular])
    return MixedLinearRegressor(groups=["user", "item"], fixed_effects=[]), pd.DataFrame(rows)


CASES: dict[str, Callable[[int], Model]] = {
    "one factor": one_factor,
    "a slope": slope,
    "two factors": two_factors,
    "a chain of three": chain,
    "power law": power_law,
}


def run(name: str, size: int, *, with_memory: bool) -> None:
    """Print seconds of the evaluations of one step, and the most bytes from the first one on."""
    model, frame = CASES[name](size)
    model.set_params(max_iter=1)
    X, y = frame.drop(columns="y"), frame["y"]
    n_tail = model.describe(X).tail_size
    evaluate = SeveralFactorsEngine.evaluate
    held: list[int] = []
    seconds: dict[int, list[float]] = {}

    def measured(engine: SeveralFactorsEngine, theta: np.ndarray, order: int) -> object:
        if not held:
            held.append(tracemalloc.get_traced_memory()[0])
            tracemalloc.reset_peak()
        start = time.perf_counter()
        found = evaluate(engine, theta, order)
        seconds.setdefault(order, []).append(time.perf_counter() - start)
        return found

    if with_memory:
        tracemalloc.start()
    with mock.patch.object(SeveralFactorsEngine, "evaluate", measured):
        model.fit(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    times = ", ".join(f"order {order}: {max(s):8.3f} s" for order, s in sorted(seconds.items()))
    memory = f"{(peak - held[0]) / n_tail**2:6.1f} bytes x T^2, " if with_memory else ""
    print(f"  {name:<18}T = {n_tail:6,}  {memory}{times}", flush=True)


def main() -> None:
    """Print a line for every case and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[1000, 2000, 4000])
    parser.add_argument("--seconds", action="store_true", help="time alone")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy"))
    threads = {library["num_threads"] for library in threadpool_info()}
    print(f"Python {platform.python_version()}, {packages}, threads of BLAS: {threads}")
    for size in options.sizes:
        for name in CASES:
            run(name, size, with_memory=not options.seconds)


if __name__ == "__main__":
    main()
