"""Fits alone, and beside a busy process on each core, with the threads that BLAS has by default.

python benchmarks/beside_other_work.py            # about ten minutes
python benchmarks/beside_other_work.py --quick    # without lme4
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version

import numpy as np
import pandas as pd
from _lme4 import fit_by_lme4
from sklearn.linear_model import LinearRegression

from mixedlearn import MixedLinearRegressor
from mixedlearn.datasets import load_insteval, load_sleepstudy

SEED = 20260101
REPEATS = 20
N_CORES = os.cpu_count() or 1
# A fit of lme4 takes long on these.
LME4_REPEATS = {"InstEval": 2, "sleepstudy": REPEATS, "1e6 rows": 2}


def cases() -> Iterator[tuple[str, pd.DataFrame, list[str], dict[str, object], str]]:
    """Name, data with the response y, fixed columns, our parameters, lme4's formula."""
    X, y = load_insteval(return_X_y=True)
    data = pd.DataFrame({"y": y, "x": X["service"], "g1": X["s"], "g2": X["d"], "g3": X["dept"]})
    formula = "y ~ x + (1 | g1) + (1 | g2) + (1 | g3)"
    yield "InstEval", data, ["x"], {"groups": ["g1", "g2", "g3"]}, formula
    X, y = load_sleepstudy(return_X_y=True)
    data = pd.DataFrame({"y": y, "x": X["Days"], "g": X["Subject"]})
    slopes = {"groups": "g", "random_slopes": ["x"]}
    yield "sleepstudy", data, ["x"], slopes, "y ~ x + (1 + x | g)"
    rng = np.random.default_rng(SEED)
    n, names = 1_000_000, [f"x{k}" for k in range(10)]
    data = pd.DataFrame(rng.standard_normal((n, 10)), columns=names)
    data["g"] = rng.integers(0, 100_000, n)
    data["y"] = data["x0"] + rng.standard_normal(100_000)[data["g"]] + rng.standard_normal(n)
    yield "1e6 rows", data, names, {"groups": "g"}, f"y ~ {' + '.join(names)} + (1 | g)"


def _count(stop: multiprocessing.Event) -> None:
    while not stop.is_set():
        sum(range(10_000))


@contextmanager
def busy_cores() -> Iterator[None]:
    """A process that computes on each core."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    workers = [context.Process(target=_count, args=(stop,)) for _ in range(N_CORES)]
    for worker in workers:
        worker.start()
    time.sleep(1.0)
    try:
        yield
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def seconds_of(program: Callable[[], object], repeats: int) -> list[float]:
    """Elapsed seconds of every call, after one that is not counted."""
    program()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        program()
        found.append(time.perf_counter() - start)
    return found


def report(name: str, alone: list[float], beside: list[float]) -> None:
    """Print a line."""
    median = statistics.median(alone)
    print(
        f"  {name:<18}{1e3 * median:10.1f}{1e3 * statistics.median(beside):10.1f}"
        f"{1e3 * max(beside):10.1f}{max(beside) / median:10.2f}"
    )


def main() -> None:
    """Print a table for every case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    print(platform.platform(), platform.python_version(), f"{N_CORES} cores")
    packages = ("mixedlearn", "scikit-learn", "numpy", "scipy")
    print(", ".join(f"{name} {version(name)}" for name in packages))
    print(f"milliseconds of a fit; worst of {REPEATS} beside {N_CORES} busy processes")
    for name, data, fixed, parameters, formula in cases():
        print(f"\n{name:<20}{'alone':>10}{'beside':>10}{'worst':>10}{'worst / alone':>16}")
        X, y = data.drop(columns="y"), data["y"]
        columns = X[fixed].to_numpy()
        ours = MixedLinearRegressor(fixed_effects=fixed, **parameters)
        programs = {
            "mixedlearn": lambda m=ours, X=X, y=y: m.fit(X, y),
            "LinearRegression": lambda c=columns, y=y: LinearRegression().fit(c, y),
        }
        alone = {own: seconds_of(program, REPEATS) for own, program in programs.items()}
        with busy_cores():
            beside = {own: seconds_of(program, REPEATS) for own, program in programs.items()}
        for own in programs:
            report(own, alone[own], beside[own])
        if quick:
            continue
        lme4_alone = fit_by_lme4(data, formula, LME4_REPEATS[name])
        if lme4_alone is None:
            print("  lme4: not installed")
            continue
        with busy_cores():
            lme4_beside = fit_by_lme4(data, formula, LME4_REPEATS[name])
        report("lme4", list(lme4_alone[:, 0]), list(lme4_beside[:, 0]))


if __name__ == "__main__":
    main()
