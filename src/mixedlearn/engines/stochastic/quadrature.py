"""log|C| by stochastic Lanczos quadrature.

Notation
--------
With T a root of the inverse of C's diagonal blocks, ``C_1 = T C T'`` is the identity but for blocks
off the diagonal, and ``log|C| = tr log(C_1) - 2 log|T|``. For signs e, Lanczos' process gives Gauss
quadrature of ``e'log(C_1) e`` (Ubaru, Chen & Saad 2017). Its mean over signs is the trace. The
linear part of the logarithm, ``e'(C_1 - I) e``, is zero on average: it is left out, and with it
most of the variance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedlearn.engines.stochastic.system import System

FloatArray = NDArray[np.float64]

# Change of the quadrature, for each column of C, at which to stop; most steps.
TOLERANCE = 1e-7
MOST_STEPS = 200
SMALLEST = 1e-12


def log_det_samples(
    system: System, signs: NDArray[np.int8] | FloatArray
) -> tuple[FloatArray, float]:
    """log|C| as each vector of signs has it.

    Parameters
    ----------
    system : System
    signs : ndarray of shape (T, n_probes)
        Or other vectors whose squares add up to T.

    Returns
    -------
    samples : ndarray of shape (n_probes,)
    unsettled : float
        By how much the last step has changed the mean, if there were not enough steps.
    """
    n, n_probes = signs.shape
    if not n:
        return np.zeros(n_probes), 0.0
    basis, before = signs / np.sqrt(n), np.zeros(signs.shape)
    diagonals: list[FloatArray] = []
    borders: list[FloatArray] = []
    border = np.zeros(n_probes)
    last, change = np.full(n_probes, np.inf), np.full(n_probes, np.inf)
    for _ in range(MOST_STEPS):
        product = system.whiten(basis)
        product -= border * before
        diagonal = np.einsum("nc,nc->c", product, basis)
        product -= diagonal * basis
        border = np.sqrt(np.einsum("nc,nc->c", product, product))
        diagonals.append(diagonal)
        values = _quadrature(np.array(diagonals), np.array(borders))
        change = np.abs(values - last)
        if (change <= TOLERANCE).all():
            break
        last = values
        borders.append(border)
        before, basis = basis, product / np.maximum(border, SMALLEST)
    values = values - (diagonals[0] - 1.0)
    is_settled = bool((change <= TOLERANCE).all())
    return system.log_det_blocks + n * values, 0.0 if is_settled else float(n * change.mean())


def _quadrature(diagonals: FloatArray, borders: FloatArray) -> FloatArray:
    """``e_1'log(T_j) e_1`` of the tridiagonal matrix of every probe, shape (n_probes,)."""
    n_steps, n_probes = diagonals.shape
    matrices = np.zeros((n_probes, n_steps, n_steps))
    step = np.arange(n_steps)
    matrices[:, step, step] = diagonals.T
    if n_steps > 1:
        matrices[:, step[1:], step[:-1]] = borders.T
    values, vectors = np.linalg.eigh(matrices)
    weights = np.square(vectors[:, 0])
    return np.asarray((weights * np.log(np.maximum(values, SMALLEST))).sum(axis=1))
