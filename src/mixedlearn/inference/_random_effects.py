"""The table of the random effects: BLUPs with the intervals of their normal distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mixedlearn.inference._models import normal_quantile, view_of
from mixedlearn.inference._text import ResultTable


def random_effects_table(estimator: Any, *, level: float = 0.95) -> pd.DataFrame:
    """BLUPs of all levels with standard errors and intervals, as a caterpillar plot needs them.

    Given the data, the fixed effects and the variance components, a random effect is normal around
    its BLUP: the interval holds ``level`` of that distribution.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted.
    level : float, default=0.95
        Probability of the intervals.

    Returns
    -------
    table : DataFrame
        A row for every effect of every level, with the columns "factor", "level" (a tuple for an
        interaction), "effect", "estimate", "std_error", "lower" and "upper". The levels come in the
        order of ``random_effects_``.

    Raises
    ------
    ValueError
        If ``level`` is not between zero and one.
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_dyestuff
    >>> from mixedlearn.inference import random_effects_table
    >>> X, y = load_dyestuff(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Batch").fit(X, y)
    >>> random_effects_table(model).round(1).head(2)
      factor level     effect  estimate  std_error  lower  upper
    0  Batch     A  intercept     -17.6       19.6  -56.0   20.8
    1  Batch     B  intercept       0.4       19.6  -38.0   38.8
    """
    # With further rows, if the random effects were updated.
    model = view_of(estimator, takes_noise=True).model
    quantile = normal_quantile(level)
    parts = []
    for k, blups in enumerate(estimator.random_effects_.values()):
        factor = model.specification.factors[k]
        q = len(factor.effects)
        covariances = model.conditional_covariances(k)
        # A variance that is zero may come out a rounding error below it.
        variances = np.maximum(np.einsum("maa->ma", covariances), 0.0)
        parts.append(
            pd.DataFrame(
                {
                    "factor": factor.name,
                    "level": blups.index.to_flat_index().repeat(q),
                    "effect": np.tile(np.array(factor.effects, dtype=object), len(blups)),
                    "estimate": blups.to_numpy().ravel(),
                    "std_error": np.sqrt(variances).ravel(),
                }
            )
        )
    columns = ["factor", "level", "effect", "estimate", "std_error"]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    margin = quantile * table["std_error"]
    return ResultTable(
        table.assign(lower=table["estimate"] - margin, upper=table["estimate"] + margin)
    )
