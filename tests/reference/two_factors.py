"""Unbalanced rows of two crossed factors with weights, and dense algebra at a fit's estimates."""

import numpy as np
import pandas as pd
import pytest

from mixedlearn import MixedLinearRegressor
from reference.dense import Dense

FIXED = ["x1", "x2"]
# Keyword arguments of models of the rows of `draw`.
MODELS = {
    "intercept": {"groups": "g"},
    "slope": {"groups": "g", "random_slopes": ["x1"]},
    "no intercept": {"groups": "g", "random_intercept": False, "random_slopes": ["x1", "x2"]},
    "crossed": {"groups": ["g", "h"], "random_slopes": {"g": ["x1"]}},
    "scalar": {"groups": ["g", "h"], "random_slopes": {"h": ["x2"]}, "covariance": "scalar"},
    "nothing": {},
}


def draw(seed=0, n=70, sizes=(8, 5), shift=3.0):
    """Columns x1, x2, g, h, y and w."""
    rng = np.random.default_rng(seed)
    g, h = (rng.permutation(np.arange(n) % m) for m in sizes)
    few = rng.random(n) < 0.3
    g[few] = 0
    rows = pd.DataFrame(
        {
            "x1": rng.standard_normal(n) + shift,
            "x2": rng.standard_normal(n),
            "g": np.array([f"g{code:03d}" for code in g]),
            "h": np.array([f"h{code:03d}" for code in h]),
            "w": rng.uniform(0.3, 3.0, n),
        }
    )
    intercepts, slopes = rng.standard_normal((2, sizes[0]))
    rows["y"] = 1.0 + 0.5 * rows["x1"] - 0.3 * rows["x2"] + intercepts[g]
    rows["y"] += 0.5 * slopes[g] * rows["x1"] + rng.standard_normal(sizes[1])[h]
    rows["y"] += rng.standard_normal(n) / np.sqrt(rows["w"])
    return rows


def fit(rows, model, **parameters):
    """Fit one of the models above, or one of the same form."""
    arguments = {"fixed_effects": FIXED, **(MODELS[model] if isinstance(model, str) else model)}
    estimator = MixedLinearRegressor(**{**arguments, **parameters})
    return estimator.fit(rows[[*FIXED, "g", "h"]], rows["y"], sample_weight=rows["w"])


def fit_levels_of_one_row(seed):
    """A fit in which every row is a level of g, and its 30 rows."""
    rows = draw(seed, n=30).assign(g=[f"g{row:02d}" for row in range(30)], w=1.0)
    with pytest.warns(UserWarning, match="one row"):
        return fit(rows, "intercept"), rows


def dense_at(estimator, rows, **parameters):
    """The rows, densely, at the variance components of a fit."""
    columns, codes, n_levels, covariances = [], [], [], []
    for name, covariance in estimator.covariances_.items():
        constant = rows.assign(intercept=1.0)
        columns.append(constant[list(covariance.columns)].to_numpy())
        code, levels = pd.factorize(rows[name], sort=True)
        codes.append(code)
        n_levels.append(len(levels))
        covariances.append(covariance.to_numpy() / estimator.noise_variance_)
    X = np.column_stack([np.ones(len(rows)), rows[FIXED].to_numpy()])
    dense = Dense(
        X, rows["y"].to_numpy(), columns, codes, n_levels, rows["w"].to_numpy(), **parameters
    )
    return dense.at(covariances)
