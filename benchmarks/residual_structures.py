"""Models with residual structures: CPU time and criteria beside nlme, one thread.

python benchmarks/residual_structures.py            # about four minutes, of which nlme takes most
python benchmarks/residual_structures.py --quick    # without nlme
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


def make_trial(n_patients: int, n_visits: int) -> pd.DataFrame:
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
    is_there = (visit < last) & (rng.random(len(y)) > 0.03)
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
    problem = own.noise.problem(own.recipe)
    return least(lambda: problem.evaluate(own.noise.point, 2))[0]


def nlme(data: dict[str, pd.DataFrame]) -> dict[str, tuple[float, float]]:
    """CPU seconds and criteria of nlme; nothing where it is not installed."""
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
    return {name: (float(seconds), float(value)) for name, seconds, value in lines}


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
    peers = {} if quick else nlme(data)
    print("CPU seconds of one thread; -2 log restricted likelihood less nlme's")
    print(f"{'':34} {'rows':>7} {'fit':>7} {'+ table':>8} {'nlme':>8} {'ratio':>6} {'less':>9}")
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
            line = f"{name:34} {len(frame):7,} {fit_seconds:7.4f} {both:8.4f}"
            if name in peers:
                seconds, criterion = peers[name]
                line += f" {seconds:8.2f} {seconds / fit_seconds:6.0f}"
                line += f" {-2.0 * model.log_likelihood_ - criterion:9.1e}"
            print(line)
        print("An evaluation with its Hessian, milliseconds, by rows")
        for n_patients in (4_000, 16_000, 64_000):
            frame = make_trial(n_patients, 10)
            milliseconds = 1e3 * seconds_per_evaluation(fit_trial(frame))
            print(f"  trial, {len(frame):8,} rows: {milliseconds:6.1f}")


if __name__ == "__main__":
    main()
