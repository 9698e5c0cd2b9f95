"""p-values and intervals that allow for the number of comparisons in a family."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedlearn.inference._simultaneous import MaxT, max_t, studentized_range
from mixedlearn.inference._uncertainty import t_quantile

FloatArray = NDArray[np.float64]

ADJUSTMENTS = ("tukey", "dunnett", "mvt", "holm", "bonferroni")
# What a method is adjusted by if nothing else is said; given contrasts are not.
DEFAULTS = {"pairwise": "tukey", "control": "dunnett", "consecutive": "mvt"}
# The methods that an adjustment is made for.
MADE_FOR = {"tukey": "pairwise", "dunnett": "control"}


def chosen_adjustment(adjust: str | None, method: Any) -> str | None:
    """The adjustment for a method, if it is made for it.

    Raises
    ------
    ValueError
        If there is none of that name, or it is for another method.
    """
    name = method if isinstance(method, str) else "given contrasts"
    if adjust == "auto":
        return DEFAULTS.get(name)
    if adjust is not None and adjust not in ADJUSTMENTS:
        raise ValueError(
            f"adjust={adjust!r} is unknown: use {', '.join(map(repr, ADJUSTMENTS))}, 'auto' or "
            "None."
        )
    if MADE_FOR.get(adjust or "", name) != name:
        raise ValueError(
            f"adjust={adjust!r} is made for method={MADE_FOR[str(adjust)]!r}, not for {name}: "
            "adjust='mvt' is exact for any contrasts."
        )
    return adjust


def adjusted(
    adjust: str | None,
    t_value: FloatArray,
    p_value: FloatArray,
    df: FloatArray,
    root: FloatArray,
    n_means: int,
    level: float,
) -> tuple[FloatArray, FloatArray]:
    """Adjusted p-values of a family, and its critical values of t.

    Parameters
    ----------
    adjust : str or None
    t_value, p_value, df : ndarray of shape (r,)
        Of contrasts that can be estimated.
    root : ndarray of shape (r, p)
        The contrasts have the covariance ``root root'``, but for its unit.
    n_means : int
        Number of means that are compared.
    level : float
        That all intervals hold together.
    """
    n_tests = len(t_value)
    # Tukey's family are all means, whichever differences can be estimated.
    if adjust is None or (n_tests < 2 and adjust != "tukey"):
        return p_value, t_quantile(0.5 + 0.5 * level, df)
    if adjust in ("holm", "bonferroni"):
        critical = t_quantile(1.0 - 0.5 * (1.0 - level) / n_tests, df)
        found = _holm(p_value) if adjust == "holm" else n_tests * p_value
        return np.minimum(found, 1.0), critical
    largest = _distribution(adjust, root, n_means)
    return largest.p_values(t_value, df), largest.quantiles(level, df)


def _distribution(adjust: str, root: FloatArray, n_means: int) -> MaxT:
    return studentized_range(n_means) if adjust == "tukey" else max_t(root)


def _holm(p_value: FloatArray) -> FloatArray:
    """Holm's step-down p-values (1979), not yet cut at one."""
    order = np.argsort(p_value)
    steps = np.arange(len(p_value), 0, -1)
    found = np.empty_like(p_value)
    found[order] = np.maximum.accumulate(p_value[order] * steps)
    return found
