"""Small crossed models with slopes that have several optima: CPU time and criteria beside lme4.

python benchmarks/hard_models.py            # 300 models, about three minutes
python benchmarks/hard_models.py --quick    # without lme4
"""

from __future__ import annotations

import argparse
import platform
import time
import warnings
from importlib.metadata import version

import numpy as np
import pandas as pd
from _lme4 import fit_by_lme4

from mixedlearn import lmer

SEED = 20260101
N_MODELS, N_ROWS = 300, 100
FORMULA = "y ~ x + (1 + x | g1) + (1 | g2)"
# Criteria that differ by more are not the same optimum.
SAME = 1e-4


def simulate(rng: np.random.Generator) -> pd.DataFrame:
    """Few levels, variances of mixed sizes, zero among them, and a correlation of any size."""
    m1, m2 = rng.integers(4, 13, 2)
    g1, g2 = rng.integers(0, m1, N_ROWS), rng.integers(0, m2, N_ROWS)
    x = 10.0 ** rng.integers(-2, 3) * (rng.standard_normal(N_ROWS) + rng.integers(0, 3))
    sizes = rng.choice([0.0, 0.1, 1.0, 10.0], 3)
    correlation = rng.uniform(-1.0, 1.0)
    first, second = rng.standard_normal((2, m1))
    second = correlation * first + np.sqrt(1.0 - correlation**2) * second
    y = sizes[0] * first[g1] + sizes[1] * second[g1] * x / x.std()
    y = y + sizes[2] * rng.standard_normal(m2)[g2] + rng.standard_normal(N_ROWS)
    return pd.DataFrame({"y": y, "x": x, "g1": g1, "g2": g2})


def main() -> None:
    """Print times and how the criteria compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    print(platform.platform(), platform.python_version(), f"mixedlearn {version('mixedlearn')}")
    rng = np.random.default_rng(SEED)
    models = [simulate(rng) for _ in range(N_MODELS)]
    seconds, criteria = [], []
    for data in models:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start = time.process_time()
            model = lmer(FORMULA, data)
            seconds.append(time.process_time() - start)
        criteria.append(-2.0 * model.log_likelihood_)
    print(f"{N_MODELS} models of {N_ROWS} rows, {FORMULA}; CPU seconds")
    print(f"  mixedlearn   median {np.median(seconds):.3f}, worst {max(seconds):.3f}")
    if quick:
        return
    every = pd.concat([data.assign(model=number) for number, data in enumerate(models)])
    found = fit_by_lme4(every, FORMULA, "each")
    if found is None:
        print("  lme4: not installed")
        return
    print(
        f"  lme4         median {np.nanmedian(found[:, 0]):.3f}, worst {np.nanmax(found[:, 0]):.3f}"
    )
    gain = found[:, 1] - np.array(criteria)
    print(f"  lme4 has a criterion that is lower by more than {SAME:g}: {np.sum(gain < -SAME)}")
    print(f"  mixedlearn has: {np.sum(gain > SAME)}, by up to {np.nanmax(gain):.3g}")
    print(f"  lme4 gave an error: {np.isnan(gain).sum()}")


if __name__ == "__main__":
    main()
