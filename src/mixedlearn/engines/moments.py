"""Starting values by the method of moments (Henderson 1953, method 1).

For a group g of random columns (one effect of one factor), with e the residuals at some beta and
``v = Z_g'e``, ``n_i`` the square of column i,

    E sum_i v_i^2 / n_i = s2 m_g + sum_h d_h sum_ij (Z_g'Z_h)_ij^2 / n_i
    E e'e               = s2 df  + sum_h d_h tr(Z_h'Z_h)

but for the estimation of beta: linear in the variances d_h of all groups and s2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# Bounds of the variances to start from: relative to the noise, and of the noise to the total.
SMALLEST_START = 0.01
LEAST_NOISE = 1e-4


def start_from_moments(
    squares: FloatArray,
    counts: FloatArray,
    sizes: FloatArray,
    overlaps: FloatArray,
    total: float,
    df: int,
    n_effects: Sequence[int],
) -> tuple[FloatArray, ...]:
    """Variances of all groups, relative to the noise variance: diagonal D_k, shapes (q_k, q_k).

    Parameters
    ----------
    squares : ndarray of shape (n_groups,)
        ``sum_i v_i^2 / n_i``.
    counts : ndarray of shape (n_groups,)
        m_g, the number of columns that are not zero.
    sizes : ndarray of shape (n_groups,)
        ``tr(Z_g'Z_g)``.
    overlaps : ndarray of shape (n_groups, n_groups)
        ``sum_ij (Z_g'Z_h)_ij^2 / n_i``.
    total : float
        ``e'e``.
    df : int
        Its degrees of freedom.
    n_effects : sequence of int
        q_k of every factor: the groups are the effects of each in turn.
    """
    system = np.block([[overlaps, counts[:, None]], [sizes[None, :], np.array([[float(df)]])]])
    # One unit for each equation, so that none is lost beside another.
    system_scale = np.append(np.maximum(counts, 1.0), df)
    target = np.append(squares, total) / system_scale
    solution = np.linalg.lstsq(system / system_scale[:, None], target, rcond=1e-10)[0]
    noise = max(solution[-1], LEAST_NOISE * total / df)
    variances = np.maximum(solution[:-1] / noise, SMALLEST_START)
    return tuple(np.diag(own) for own in np.split(variances, np.cumsum(n_effects)[:-1]))
