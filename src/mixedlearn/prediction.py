"""Predictions of new rows, and their standard deviations.

For a row x, z of level i with BLUP b_i, prediction error variance of a new observation is, relative
to the noise variance (Henderson 1975; Bates et al. 2015, section 4),

    1 + z'(D - D M_i D) z + (x - F_i'z)'H^-1(x - F_i'z),      F_i = D N_i

the noise, the BLUP given beta, and beta with its covariance with the BLUP. A level without data has
M_i = 0 and N_i = 0, which leaves ``1 + z'D z + x'H^-1 x``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedlearn.design import Design
from mixedlearn.fitted import FittedModel

FloatArray = NDArray[np.float64]

# Rows per chunk of the standard deviations, which need q (p + q) numbers for each row.
CHUNK_ROWS = 1 << 15


def predict_mean(model: FittedModel, design: Design) -> FloatArray:
    """Fixed effects plus the BLUPs of known levels, shape (n,)."""
    specification = model.specification
    coef = model.coef
    intercept = float(coef[0]) if specification.fit_intercept else 0.0
    slopes = coef[1:] if specification.fit_intercept else coef
    if specification.fixed == tuple(range(design.X.shape[1])):
        mean = design.X @ slopes
    else:
        mean = design.X[:, list(specification.fixed)] @ slopes
    if design.codes is None or not model.has_random_effects:
        mean += intercept
        return mean
    # Code -1, an unknown level, finds the zeros at the end.
    effects = np.vstack([model.blups, np.zeros(model.blups.shape[1])]).T
    for position, column in enumerate(specification.slopes):
        position += specification.random_intercept
        mean += effects[position][design.codes] * design.X[:, column]
    if specification.random_intercept:
        mean += (effects[0] + intercept)[design.codes]
    else:
        mean += intercept
    return mean


def predict_std(model: FittedModel, design: Design) -> FloatArray:
    """Standard deviation of a new observation (of weight one) given the training data, shape (n,).

    Without codes every row counts as one of a new level.
    """
    specification = model.specification
    fixed, random = model.fixed_basis, model.random_basis
    shift = model.products.shift[:-1]
    factor, inverse_root = model.factor, model.fixed_effects.inverse_root
    conditional = None if design.codes is None else model.conditional_moments()
    std = np.empty(len(design.X))
    for start in range(0, len(std), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        basis = np.column_stack([np.ones(len(design.X[rows])), design.X[rows] - shift])
        x = basis @ fixed.columns[:-1]
        variance = np.ones(len(basis))
        z = np.zeros((len(basis), len(factor)))
        if specification.factor is not None:
            z = basis[:, model.products.z_columns] @ random.columns
            spread = z @ factor
            variance += np.einsum("rj,rj->r", spread, spread)
        if design.codes is not None and conditional is not None:
            known = np.flatnonzero(design.codes[rows] >= 0)
            codes = design.codes[rows][known]
            spread = z[known]
            covariance = conditional.covariance[:, :, codes]
            variance[known] = 1.0 + np.einsum("ri,ijr,rj->r", spread, covariance, spread)
            x[known] -= np.einsum("ri,ipr->rp", spread, conditional.coef_response[:, :, codes])
        leverage = x @ inverse_root
        variance += np.einsum("rj,rj->r", leverage, leverage)
        std[rows] = np.sqrt(variance * model.noise_variance)
    return std
