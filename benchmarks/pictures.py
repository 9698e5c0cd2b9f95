"""Pictures of a large model: seconds to make each display, and to save it as a PNG file.

pip install -e ".[plot]"
python benchmarks/pictures.py            # 1e6 rows, 1e5 levels; about a quarter of a minute
"""

from __future__ import annotations

import io
import platform
import time
from collections.abc import Callable

import matplotlib as mpl
import numpy as np
import pandas as pd

from mixedlearn import MixedLinearRegressor
from mixedlearn import plot as displays

mpl.use("Agg")

N_ROWS, N_LEVELS = 1_000_000, 100_000


def generate() -> tuple[pd.DataFrame, pd.Series]:
    """Rows of levels that differ in intercept and slope."""
    rng = np.random.default_rng(0)
    level = rng.integers(N_LEVELS, size=N_ROWS)
    x = rng.standard_normal(N_ROWS)
    intercept, slope = rng.standard_normal((2, N_LEVELS))
    y = intercept[level] + (1.0 + 0.5 * slope[level]) * x + rng.standard_normal(N_ROWS)
    return pd.DataFrame({"level": level, "x": x}), pd.Series(y, name="y")


def save(display: object) -> None:
    """Draw and save the figure of a display."""
    display.figure_.savefig(io.BytesIO(), format="png")  # type: ignore[attr-defined]


def seconds_of(make: Callable[[], object]) -> tuple[float, float]:
    """Seconds to make a display, and to save it."""
    start = time.perf_counter()
    display = make()
    middle = time.perf_counter()
    save(display)
    return middle - start, time.perf_counter() - middle


def main() -> None:
    """Time every display once, after a small one that loads matplotlib."""
    X, y = generate()
    small = MixedLinearRegressor(groups="level", random_slopes=["x"]).fit(X.head(500), y.head(500))
    save(displays.GroupLinesDisplay.from_estimator(small, X.head(500), y.head(500)))
    model = MixedLinearRegressor(groups="level", random_slopes=["x"]).fit(X, y)
    makers: dict[str, Callable[[], object]] = {
        "GroupLinesDisplay": lambda: displays.GroupLinesDisplay.from_estimator(model, X, y),
        "RandomEffectsDisplay": lambda: displays.RandomEffectsDisplay.from_estimator(model),
        "CovarianceDisplay": lambda: displays.CovarianceDisplay.from_estimator(model),
        "ResidualsDisplay": lambda: displays.ResidualsDisplay.from_estimator(model, X, y),
        "QQDisplay, noise": lambda: displays.QQDisplay.from_estimator(model, X, y),
        "QQDisplay, random effects": lambda: displays.QQDisplay.from_estimator(model),
        "ProfileLikelihoodDisplay, one": lambda: displays.ProfileLikelihoodDisplay.from_estimator(
            model, "sd(x|level)"
        ),
        "SimulatedPredictionsDisplay, two cases": (
            lambda: displays.SimulatedPredictionsDisplay.from_estimator(
                model, pd.DataFrame({"x": [0.0, 1.0]})
            )
        ),
    }
    print(f"{N_ROWS:,} rows, {N_LEVELS:,} levels, random slope")
    print(f"Python {platform.python_version()}, matplotlib {mpl.__version__}")
    print(f"{'':40s}{'make':>10s}{'save':>10s}  seconds")
    for name, make in makers.items():
        made, saved = seconds_of(make)
        print(f"{name:40s}{made:10.2f}{saved:10.2f}")


if __name__ == "__main__":
    main()
