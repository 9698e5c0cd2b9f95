"""A response less almost all of itself, without rounding error on the way.

``y - c - X t`` of a response that the columns explain to many digits is a small difference of large
numbers. In plain arithmetic it would hold the rounding error of each product; here products and
sums carry their errors along (Dekker 1971, Ogita, Rump & Oishi 2005), so that only the small
difference is rounded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# Splits a double into two halves of 26 bits (Dekker 1971).
SPLITTER = float(2**27 + 1)


def less_columns(
    y: FloatArray, X: NDArray[np.floating], multiples: FloatArray, constant: float
) -> FloatArray:
    """``y - constant - X @ multiples``, as if in twice the precision.

    Parameters
    ----------
    y : ndarray of shape (n,)
    X : ndarray of shape (n, k)
    multiples : ndarray of shape (k,) or (k, n)
        Of a column the same for all rows, or one for each.
    constant : float

    Returns
    -------
    rest : ndarray of shape (n,)
    """
    if not multiples.any():
        return y - constant
    rest, error = _sum(y, np.full(len(y), -constant))
    for column, own in enumerate(-multiples):
        if not own.any():
            continue
        product, lost = _product(X[:, column].astype(float), own)
        rest, more = _sum(rest, product)
        error += more + lost
    return rest + error


def less_taken(
    X: NDArray[np.floating], y: FloatArray, multiples: FloatArray, shift: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The response less multiples of the columns, and the shift that is still to be taken.

    Parameters
    ----------
    X : ndarray of shape (n, k)
    y : ndarray of shape (n,)
    multiples : ndarray of shape (k,)
    shift : ndarray of shape (k + 1,)
        Of the columns and of the response, as in `sums`.
    """
    if not multiples.any():
        return y, shift
    return less_columns(y, X, multiples, shift[-1]), np.append(shift[:-1], 0.0)


def _sum(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The rounded sum, and what rounding took from it."""
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)


def _product(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The rounded product, and what rounding took from it."""
    product = a * b
    a_high, a_low = _halves(a)
    b_high, b_low = _halves(b)
    rest = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, rest


def _halves(a: FloatArray) -> tuple[FloatArray, FloatArray]:
    spread = SPLITTER * a
    high = spread - (spread - a)
    return high, a - high
