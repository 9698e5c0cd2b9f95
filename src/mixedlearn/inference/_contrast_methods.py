"""Contrasts between means: which weights a method gives the means of a family, and their names."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import gcd, lcm
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.exceptions import did_you_mean

FloatArray = NDArray[np.float64]

METHODS = ("pairwise", "control", "consecutive", "polynomial")
# Names of polynomial contrasts, and the highest degree.
DEGREES = ("linear", "quadratic", "cubic", "quartic", "degree 5", "degree 6")


def check_method(method: Any) -> None:
    """Refuse the name of no method."""
    if isinstance(method, str) and method not in METHODS:
        raise ValueError(
            f"method={method!r} is unknown: use {', '.join(map(repr, METHODS))}, or give the "
            f"weights of the means.{did_you_mean(method, METHODS)} The columns of a model whose "
            "categories are compared are named by variables=...."
        )


def contrast_weights(
    method: Any, labels: Sequence[str], reference: int
) -> tuple[FloatArray, list[str]]:
    """Weights of the means of a family, shape (n_contrasts, n_means), and names.

    Parameters
    ----------
    method : str, dict, DataFrame or array-like
    labels : sequence of str
        Names of the means.
    reference : int
        The mean that others are compared with by "control".

    Raises
    ------
    ValueError
        If there is one mean, or given weights are not numbers, one for each mean.
    """
    if not isinstance(method, str):
        return _given(method, labels)
    n_means = len(labels)
    if n_means < 2:
        raise ValueError(
            "There is nothing to compare: there is one mean in each family. Give the column whose "
            "categories are compared as variables, not as by."
        )
    if method == "polynomial":
        return _polynomials(n_means), list(DEGREES[: n_means - 1])
    pairs = {
        "pairwise": list(itertools.combinations(range(n_means), 2)),
        "control": [(k, reference) for k in range(n_means) if k != reference],
        "consecutive": [(k + 1, k) for k in range(n_means - 1)],
    }[method]
    unit = np.eye(n_means)
    weights = np.array([unit[k] - unit[j] for k, j in pairs])
    texts = [f"({text})" if " - " in text else text for text in labels]
    return weights, [f"{texts[k]} - {texts[j]}" for k, j in pairs]


def _polynomials(n_means: int) -> FloatArray:
    """Orthogonal polynomials on equal steps, in the smallest integers."""
    found: list[list[Fraction]] = []
    for degree in range(min(n_means, len(DEGREES) + 1)):
        values = [Fraction(k) ** degree for k in range(n_means)]
        for other in found:
            share = _product(values, other) / _product(other, other)
            values = [value - share * own for value, own in zip(values, other, strict=True)]
        found.append(values)
    rows = []
    for values in found[1:]:
        scale = lcm(*(value.denominator for value in values))
        integers = [int(value * scale) for value in values]
        rows.append([value // gcd(*integers) for value in integers])
    return np.array(rows, dtype=float)


def _product(left: Sequence[Fraction], right: Sequence[Fraction]) -> Fraction:
    return sum((a * b for a, b in zip(left, right, strict=True)), Fraction(0))


def _given(method: Any, labels: Sequence[str]) -> tuple[FloatArray, list[str]]:
    named: dict[Any, Any]
    if isinstance(method, pd.DataFrame):
        rows = (dict(zip(method.columns, row, strict=True)) for row in method.to_numpy())
        named = dict(zip(method.index, rows, strict=True))
    elif isinstance(method, Mapping):
        named = dict(method)
    else:
        given = np.atleast_2d(np.asarray(method, dtype=object))
        named = {f"contrast {k}": row for k, row in enumerate(given, start=1)}
    if not named:
        raise ValueError("method names no contrast: give one at least.")
    return np.array([_row(name, row, labels) for name, row in named.items()]), [
        str(name) for name in named
    ]


def _row(name: Any, given: Any, labels: Sequence[str]) -> FloatArray:
    if isinstance(given, Mapping):
        texts = {str(label): weight for label, weight in given.items()}
        for text in texts:
            if text not in labels:
                raise ValueError(
                    f"The contrast {name!r} names {text!r}, which is no mean."
                    f"{did_you_mean(text, labels)} The means are: {', '.join(map(repr, labels))}."
                )
        given = [texts.get(label, 0.0) for label in labels]
    try:
        weights = np.array(given, dtype=float)
    except (TypeError, ValueError):
        weights = np.array([np.nan])
    if weights.shape != (len(labels),) or not np.isfinite(weights).all():
        raise ValueError(
            f"The contrast {name!r} must have {len(labels)} finite weights, one for each of "
            f"{', '.join(map(repr, labels))}, got {given!r}."
        )
    return weights
