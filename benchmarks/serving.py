"""Serving: time of one row and size of a pickle, by the number of known levels.

python benchmarks/serving.py            # all; about three minutes
python benchmarks/serving.py --quick    # up to 1e5 levels
"""

from __future__ import annotations

import argparse
import itertools
import pickle
import platform
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import pandas as pd
from _timing import time_in_turn
from sklearn.linear_model import LinearRegression

from mixedlearn import MixedLinearRegressor

SEED = 20260101
N_COLUMNS = 5
ROWS_PER_LEVEL = 3
REPEATS = 200
WAYS = {
    "numbers": {"groups": "user"},
    "text": {"groups": "name"},
    "interaction": {"groups": [("shop", "item")]},
}


def simulate(n_levels: int, n_columns: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Standard normal columns and random intercepts; every level has its rows."""
    rng = np.random.default_rng(SEED)
    codes = rng.permutation(np.repeat(np.arange(n_levels), ROWS_PER_LEVEL))
    columns = rng.standard_normal((len(codes), n_columns))
    frame = pd.DataFrame(columns, columns=[f"x{k}" for k in range(n_columns)])
    frame["user"] = codes
    frame["name"] = np.array([f"user {own}" for own in range(n_levels)])[codes]
    frame["shop"], frame["item"] = codes // 100, codes % 100
    y = columns.sum(axis=1) + rng.standard_normal(n_levels)[codes]
    return frame, y + rng.standard_normal(len(codes))


def milliseconds(program: Callable[[], object]) -> float:
    """One call."""
    start = time.perf_counter()
    program()
    return 1e3 * (time.perf_counter() - start)


def measure(n_levels: int) -> dict[str, float]:
    """Milliseconds of one row, and megabytes of pickles."""
    frame, y = simulate(n_levels, N_COLUMNS)
    names = [f"x{k}" for k in range(N_COLUMNS)]
    models = {
        name: MixedLinearRegressor(fixed_effects=names, **way).fit(frame, y)
        for name, way in WAYS.items()
    }
    row, response = frame.iloc[[5]], y[5:6]
    new = itertools.count(-1, -1)
    plain = LinearRegression().fit(frame[names], y)
    one, model = row[names], models["numbers"]
    found = {
        "first prediction after loading": milliseconds(
            lambda: pickle.loads(pickle.dumps(model)).predict(row)
        )
    }
    found["pickle, MB"] = len(pickle.dumps(model)) / 1e6
    found["pickle of for_serving(), MB"] = len(pickle.dumps(model.for_serving())) / 1e6
    programs = {
        "LinearRegression().predict": lambda: plain.predict(one),
        "predict, numbers": lambda: model.predict(row),
        "predict, text": lambda: models["text"].predict(row),
        "predict, interaction": lambda: models["interaction"].predict(row),
        "predict, with its std": lambda: model.predict(row, return_std=True),
        "update, known level": lambda: model.update_random_effects(row, response),
        "update, new level": lambda: model.update_random_effects(
            row.assign(user=next(new)), response
        ),
    }
    seconds = time_in_turn(programs, dict.fromkeys(programs, REPEATS))
    found |= {name: 1e3 * value for name, value in seconds.items()}
    updates = [
        milliseconds(lambda k=k: model.update_random_effects(frame.iloc[[k]], y[k : k + 1]))
        for k in range(len(frame))[:1000]
    ]
    found["update, slowest of 1,000 others"] = max(updates)
    found["pickle after these updates, MB"] = len(pickle.dumps(model)) / 1e6
    return found


def print_table(columns: dict[str, dict[str, float]]) -> None:
    """A row for each figure, a column for each number of levels."""
    print(f"\n{'levels':<34}" + "".join(f"{name:>12}" for name in columns))
    for name in next(iter(columns.values())):
        values = "".join(f"{own[name]:>12.3g}" for own in columns.values())
        print(f"{name:<34}{values}")


def wide() -> None:
    """20,000 levels beside 200 fixed effects."""
    frame, y = simulate(20_000, 200)
    model = MixedLinearRegressor(fixed_effects=[f"x{k}" for k in range(200)], groups="user")
    model.fit(frame, y)
    sizes = [len(pickle.dumps(own)) / 1e6 for own in (model, model.for_serving())]
    print(
        f"\n20,000 levels, 200 columns: pickle {sizes[0]:.1f} MB, for_serving() {sizes[1]:.1f} MB"
    )


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    packages = ("mixedlearn", "scikit-learn", "pandas", "numpy")
    print(platform.platform(), platform.python_version())
    print(", ".join(f"{name} {version(name)}" for name in packages))
    print("one row of a data frame, milliseconds; megabytes of pickles")
    sizes = (100, 10_000, 100_000) if quick else (100, 10_000, 100_000, 1_000_000)
    print_table({f"{n:,}": measure(n) for n in sizes})
    wide()


if __name__ == "__main__":
    main()
