"""Conjugate gradients for several right-hand sides, each with coefficients of its own.

A right-hand side takes part until its residual, in the metric of the preconditioner, is a share
``tol`` of itself. What a form ``x'r`` of solutions is off by is the square of that.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Operator = Callable[[FloatArray], FloatArray]

# More iterations than this are not to be expected; see `NotSolved`.
MOST_ITERATIONS = 1000
# So many right-hand sides at once: a row of them is a line of the cache.
BLOCK_COLUMNS = 8


class NotSolved(np.linalg.LinAlgError):
    """The equations are too near singular for conjugate gradients."""

    def __init__(self) -> None:
        super().__init__(
            "solver='stochastic' cannot solve the equations of this model: its random effects are "
            "too large beside the noise, or nearly collinear. Use solver='exact', or name fewer "
            "random effects."
        )


def solve(
    times: Operator,
    precondition: Operator,
    right: FloatArray,
    tol: float,
    start: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Solutions of ``C x = r`` and their residuals ``r - C x``, shapes (n, c).

    Parameters
    ----------
    times, precondition : callable
        C, and a symmetric approximation of its inverse, times vectors of shape (n, c).
    right : ndarray of shape (n, c)
    tol : float
    start : ndarray of shape (n, c), optional
        Approximate solutions.

    Raises
    ------
    NotSolved
        If the residuals do not become small.
    """
    solutions, residuals = np.empty_like(right), np.empty_like(right)
    for first in range(0, right.shape[1], BLOCK_COLUMNS):
        own = slice(first, first + BLOCK_COLUMNS)
        begun = None if start is None else start[:, own]
        solutions[:, own], residuals[:, own] = _solve_block(
            times, precondition, np.ascontiguousarray(right[:, own]), tol, begun
        )
    return solutions, residuals


def _solve_block(
    times: Operator,
    precondition: Operator,
    right: FloatArray,
    tol: float,
    start: FloatArray | None,
) -> tuple[FloatArray, FloatArray]:
    goal = tol**2 * _products(right, precondition(right))
    solution = np.zeros_like(right)
    residual = right.copy()
    if start is not None:
        solution += start
        residual -= times(solution)
    result, rest = solution.copy(), residual.copy()
    active = np.arange(right.shape[1])
    direction, last = np.zeros_like(right), np.ones(right.shape[1])
    for _ in range(MOST_ITERATIONS):
        turned = precondition(residual)
        size = _products(residual, turned)
        if not np.isfinite(size).all():
            break
        going = size > goal[active]
        if not going.all():
            done = active[~going]
            result[:, done], rest[:, done] = solution[:, ~going], residual[:, ~going]
            if not going.any():
                return result, rest
            active, size, last = active[going], size[going], last[going]
            solution, residual, turned, direction = (
                np.ascontiguousarray(part[:, going])
                for part in (solution, residual, turned, direction)
            )
        direction *= size / last
        direction += turned
        product = times(direction)
        length = size / _products(direction, product)
        solution += length * direction
        residual -= length * product
        last = size
    raise NotSolved


def _products(left: FloatArray, right: FloatArray) -> FloatArray:
    return np.einsum("nc,nc->c", left, right)
