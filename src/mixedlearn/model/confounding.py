"""Confounding of random effects with the noise.

Where the levels use up all rows, the noise may be one more random effect: if a matrix C satisfies

    U_i C U_i' = I    for every level i,

then ``I + U_i D U_i' = (1 + t) I + U_i (D - t C) U_i'``, and (s2, D) has the same likelihood as
``((1 + t) s2, (D - t C) / (1 + t))`` for every t. One row in each level and a random intercept are
the plainest case. Of all these the one with the most noise is taken, at which D is singular.

Where the set of D is curved, D - t C would leave it. The likelihood may still be the same along a
curve, whose tangent at D is such a C.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.structures import Structure
from mixedlearn.engines.levels import LevelMoments

FloatArray = NDArray[np.float64]

# Share of the rows that C may fail to explain, by rounding error.
TOLERANCE = 1e-8
# Members of a curved structure that are looked at.
N_DRAWN = 2


def noise_direction(moments: LevelMoments, structure: Structure, n_rows: int) -> FloatArray | None:
    """The matrix C of the module's head, shape (q, q), or None where there is none.

    Parameters
    ----------
    moments : LevelMoments
    structure : Structure
        C has the structure of D. Where the set of its D is curved there is no such C: D - t C would
        leave it.
    n_rows : int
    """
    basis = structure.span()
    return None if basis is None else _unit(moments, basis, n_rows)


def is_confounded(moments: LevelMoments, structure: Structure, n_rows: int) -> bool:
    """Whether there is such a matrix at every D, in the directions in which it may move."""
    generator = np.random.default_rng(0)
    thetas = generator.uniform(0.3, 1.2, (N_DRAWN, structure.n_parameters))
    return all(_unit(moments, structure.tangent(own), n_rows) is not None for own in thetas)


def _unit(moments: LevelMoments, basis: FloatArray, n_rows: int) -> FloatArray | None:
    """The C among the combinations of some matrices (a, q, q)."""
    q = moments.n_effects
    if q == 0 or moments.n_spanned < n_rows:
        return None
    columns = moments.rows[:, :q]
    square = np.einsum("kim,kjm->ijm", columns, columns)
    turned = np.einsum("abm,nbc->nacm", square, basis)
    system = np.einsum("nacm,lcam->nl", turned, turned)
    target = np.einsum("naam->n", turned)
    solution = np.linalg.lstsq(system, target, rcond=1e-10)[0]
    if n_rows - target @ solution > TOLERANCE * n_rows:
        return None
    return np.tensordot(solution, basis, 1)


def most_noise(covariance: FloatArray, direction: FloatArray) -> float:
    """The largest t for which ``D - t C`` is positive semi-definite."""
    values, vectors = np.linalg.eigh(covariance)
    positive = values > 1e-12 * max(values[-1], 1e-300)
    root = vectors[:, positive] / np.sqrt(values[positive])
    outside = direction - vectors[:, positive] @ (vectors[:, positive].T @ direction)
    if not positive.any() or np.abs(outside).max() > 1e-8 * np.abs(direction).max():
        return 0.0
    return 1.0 / max(float(np.linalg.eigvalsh(root.T @ direction @ root)[-1]), 1e-300)
