"""Derivatives of the model matrix of a reference grid by one covariate.

A column that has the covariate as it stands is linear in it, and so its derivative is exact. What a
formula computes from it (a logarithm, a polynomial, a spline) is differentiated by Ridders' method:
central differences of steps that are halved, extrapolated to a step of zero; of all the
extrapolations an entry takes the one that agrees best with its neighbours.

References
----------
Ridders, C. J. F. (1982). Accurate computation of F'(x) and F'(x)F''(x). Advances in Engineering
Software 4, 75-76.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedlearn.inference._reference_grid import ReferenceGrid

FloatArray = NDArray[np.float64]

# The first step as a share of the size of a value, and how often it is halved.
FIRST_SHARE = 1.0 / 32.0
N_STEPS = 10


def derivative(grid: ReferenceGrid, name: str) -> FloatArray:
    """The derivatives of the model matrix of all combinations, shape (n, p)."""
    frame = grid.frame()
    (variable,) = (axis.variable for axis in grid.axes if axis.name == name)

    def matrix(values: FloatArray) -> FloatArray:
        return grid.matrix(frame.assign(**{name: values}))

    if not variable.expressions:
        zeros = np.zeros(len(frame))
        return matrix(zeros + 1.0) - matrix(zeros)
    values = frame[name].to_numpy(dtype=float)
    size = np.where(values == 0.0, 1.0, np.abs(values))
    # A power of two is added without rounding error.
    first = 2.0 ** np.floor(np.log2(FIRST_SHARE * size))
    best: FloatArray | None = None
    error = np.empty(0)
    before: list[FloatArray] = []
    for halvings in range(N_STEPS):
        step = first / 2.0**halvings
        row = [(matrix(values + step) - matrix(values - step)) / (2.0 * step[:, None])]
        for order, other in enumerate(before, start=1):
            row.append(row[-1] + (row[-1] - other) / (4.0**order - 1.0))
            spread = np.maximum(np.abs(row[-1] - row[-2]), np.abs(row[-1] - other))
            if best is None:
                best, error = row[-1], spread
            is_better = spread < error
            best, error = np.where(is_better, row[-1], best), np.minimum(spread, error)
        before = row
    assert best is not None
    return best
