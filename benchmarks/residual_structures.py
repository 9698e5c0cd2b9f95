"""Models with residual structures: CPU time and criteria beside nlme and glmmTMB, one thread.

python benchmarks/residual_structures.py            # about five minutes, of which R takes most
python benchmarks/residual_structures.py --quick    # without R
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.inference import coefficient_table

SEED = 20260101
REPEATS = 5
FORMULA = "y ~ base + arm * visit"


def make_trial(n_patients: int, n_visits: int, missing: float = 0.03) -> pd.DataFrame:
    """Patients of two arms who drop out, and miss a visit now and then."""
    rng = np.random.default_rng(SEED)
    visits = np.arange(n_visits)
    sizes = 1.0 + 0.1 * visits
    covariance = 0.6 ** np.abs(np.subtract.outer(visits, visits)) * np.outer(sizes, sizes)
    noise = rng.standard_normal((n_patients, n_visits)) @ np.linalg.cholesky(covariance).T
    patient, visit = np.divmod(np.arange(n_patients * n_visits), n_visits)
    arm, base = rng.integers(0, 2, n_patients)[patient], rng.normal(size=n_patients)[patient]
    y = noise.ravel() + 0.3 * base + 0.1 * arm * visit
    last = rng.integers(n_visits // 2, 2 * n_visits, n_patients)[patient]
    is_there = (visit < last) & (rng.random(len(y)) > missing)
    frame = pd.DataFrame(
        {"patient": patient, "visit": visit, "arm": np.where(arm, "b", "a"), "base": base, "y": y}
    )
    return frame[is_there].reset_index(drop=True)


def make_series(n_rows: int, n_levels: int) -> pd.DataFrame:
    """Levels with an intercept and an AR(1) noise."""
    rng = np.random.default_rng(SEED)
    level = np.sort(rng.integers(0, n_levels, n_rows))
    time_of_row = np.arange(n_rows) - np.searchsorted(level, level)
    X, noise = rng.normal(size=(n_rows, 3)), rng.normal(size=n_rows)
    for row in np.flatnonzero(time_of_row):
        noise[row] = 0.5 * noise[row - 1] + np.sqrt(0.75) * noise[row]
    y = X.sum(axis=1) + rng.normal(size=n_levels)[level] + noise
    frame = pd.DataFrame(X, columns=list("abc"))
    return frame.assign(g=level, t=time_of_row, y=y)


def fit_trial(data: pd.DataFrame) -> MixedLinearRegressor:
    """A covariance of its own for every two visits."""
    own = data.assign(visit=data["visit"].astype("category"))
    return lmer(FORMULA, own, groups="patient", residual="unstructured", time="visit")


def fit_series(data: pd.DataFrame) -> MixedLinearRegressor:
    """AR(1) beside a random intercept."""
    estimator = MixedLinearRegressor(
        groups="g", fixed_effects=list("abc"), residual="ar1", time="t"
    )
    return estimator.fit(data.drop(columns="y"), data["y"])


def as_arrays(data: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """A trial as numbers: patient, visit, and the fixed columns."""
    visit, arm = data["visit"].to_numpy(), (data["arm"] == "b").to_numpy()
    visits = [visit == own for own in range(1, visit.max() + 1)]
    columns = [data["patient"], visit, data["base"], arm, *visits, *(arm & own for own in visits)]
    return np.column_stack(columns).astype(float), data["y"].to_numpy()


def fit_arrays(X: np.ndarray, y: np.ndarray) -> MixedLinearRegressor:
    """A covariance of its own for every two visits, without names or formulas."""
    estimator = MixedLinearRegressor(
        groups=0,
        fixed_effects=list(range(2, X.shape[1])),
        random_intercept=False,
        residual="unstructured",
        time=1,
    )
    return estimator.fit(X, y)


def least(program: Callable[[], object]) -> tuple[float, object]:
    """Least CPU seconds of a program, and what it returns."""
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        result = program()
        seconds.append(time.process_time() - start)
    return min(seconds), result


def seconds_per_evaluation(model: MixedLinearRegressor) -> float:
    """CPU seconds of an evaluation of the likelihood with its Hessian."""
    own = model.__mixedlearn_fitted__().model_of_fit
    return least(lambda: own.noise.problem.evaluate(own.noise.point, 2))[0]


def in_r(data: dict[str, pd.DataFrame]) -> dict[tuple[str, str], tuple[float, float]]:
    """CPU seconds and criteria of R's packages; nothing where it is not installed."""
    script = Path(__file__).with_name("residual_structures.R")
    with tempfile.TemporaryDirectory() as folder:
        for name, frame in data.items():
            frame.to_csv(Path(folder) / f"{name}.csv", index=False)
        try:
            done = subprocess.run(
                ["Rscript", str(script), folder],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        except FileNotFoundError:
            return {}
    if done.returncode:
        print(done.stderr)
    lines = [line.split() for line in done.stdout.splitlines()]
    return {(name, peer): (float(seconds), float(value)) for name, peer, seconds, value in lines}


def main() -> None:
    """Print times and how the criteria compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    print(platform.platform(), platform.python_version(), f"mixedlearn {version('mixedlearn')}")
    data = {
        "small_trial": make_trial(200, 4),
        "series": make_series(100_000, 5_000),
        "trial": make_trial(1_000, 10),
    }
    peers = {} if quick else in_r(data)
    print("CPU seconds of one thread; -2 log restricted likelihood less the peer's")
    print(f"{'':12} {'rows':>7} {'fit':>7} {'+ table':>8} {'peer':>8} {'s':>7} ratio {'less':>9}")
    with threadpool_limits(1):
        for name, fit in (
            ("small_trial", fit_trial),
            ("trial", fit_trial),
            ("series", fit_series),
        ):
            frame = data[name]
            fit_seconds, model = least(lambda fit=fit, frame=frame: fit(frame))
            both, _ = least(
                lambda fit=fit, frame=frame: coefficient_table(fit(frame), ddf="kenward-roger")
            )
            line = f"{name:12} {len(frame):7,} {fit_seconds:7.4f} {both:8.4f}"
            print(line)
            for (of, peer), (seconds, criterion) in peers.items():
                if of == name:
                    line = f"{'':37} {peer:>8} {seconds:7.2f} {seconds / fit_seconds:6.0f}"
                    print(f"{line} {-2.0 * model.log_likelihood_ - criterion:9.1e}")
        arrays = as_arrays(data["small_trial"])
        seconds, _ = least(lambda: fit_arrays(*arrays))
        both, _ = least(lambda: coefficient_table(fit_arrays(*arrays), ddf="kenward-roger"))
        print(f"{'from arrays':12} {len(arrays[1]):7,} {seconds:7.4f} {both:8.4f}")
        print("An evaluation with its Hessian, milliseconds, by rows")
        for n_patients in (4_700, 18_800, 75_000):
            for missing in (0.0, 0.03):
                frame = make_trial(n_patients, 10, missing)
                milliseconds = 1e3 * seconds_per_evaluation(fit_trial(frame))
                what = "dropout" if missing == 0.0 else "dropout and visits missed"
                print(f"  trial, {what:26} {len(frame):8,} rows: {milliseconds:6.1f}")
        for n_rows in (40_000, 160_000, 640_000):
            for n_levels in (20, n_rows // 20):
                frame = make_series(n_rows, n_levels)
                start = time.process_time()
                model = fit_series(frame)
                seconds = time.process_time() - start
                milliseconds = 1e3 * seconds_per_evaluation(model)
                print(
                    f"  series, {n_levels:6,} levels, {n_rows:8,} rows: {milliseconds:6.1f}"
                    f" (fit {seconds:.2f} s)"
                )


if __name__ == "__main__":
    main()
