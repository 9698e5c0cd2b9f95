"""Predictions of new rows, and their standard deviations.

For a row x with columns z_k of known levels, whose effects b_k have the BLUPs ``b_k(beta)``, the
prediction error variance of a new observation is, relative to the noise variance (Henderson 1975;
Bates et al. 2015, section 4),

    1 + var(sum_k z_k'b_k | y, beta) + (x - sum_k F_k'z_k)'H^-1(x - sum_k F_k'z_k)

where -F_k is the derivative of the BLUP of b_k by beta: the noise, the random effects given beta
with the covariances between those of different factors, and beta with its covariance with the
BLUPs. An unknown level adds ``z_k'D_k z_k`` and has F_k = 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.rows import CodedRows
from mixedlearn.model.fitted import FittedModel

FloatArray = NDArray[np.float64]


def predict_mean(model: FittedModel, rows: CodedRows) -> FloatArray:
    """Fixed effects plus the BLUPs of known levels, shape (n,)."""
    specification = model.specification
    coef = model.coef
    intercept = float(coef[0]) if specification.fit_intercept else 0.0
    slopes = coef[1:] if specification.fit_intercept else coef
    if specification.fixed == tuple(range(rows.X.shape[1])):
        mean = rows.X @ slopes
    else:
        mean = rows.X[:, list(specification.fixed)] @ slopes
    mean += intercept
    for factor, blups, codes in zip(specification.factors, model.blups, rows.codes, strict=True):
        if codes is None or not blups.any():
            continue
        # Code -1, an unknown level, finds the zeros at the end.
        effects = np.vstack([blups, np.zeros(blups.shape[1])]).T
        for effect, column in zip(effects[factor.random_intercept :], factor.slopes, strict=True):
            mean += effect[codes] * rows.X[:, column]
        if factor.random_intercept:
            mean += effects[0][codes]
    return mean


def predict_std(model: FittedModel, rows: CodedRows, *, of_mean: bool = False) -> FloatArray:
    """Standard deviation of a new observation (of weight one) given the training data, shape (n,).

    A factor without codes counts as one of new levels. ``of_mean`` leaves out the noise and the
    effects of new levels.
    """
    fixed, sums = model.fixed_basis, model.sums
    inverse_root = model.fixed_effects.inverse_root
    codes = rows.known_codes
    posterior = model.posterior if any((own >= 0).any() for own in codes) else None
    std = np.empty(len(rows.X))
    for chunk in rows.chunks():
        basis = sums.basis_rows(rows.X[chunk])
        x = basis @ fixed.columns[:-1]
        variance = np.full(len(basis), 0.0 if of_mean else 1.0)
        z = [sums.z_rows(k, basis) @ random.columns for k, random in enumerate(model.random_bases)]
        own_codes = [own[chunk] for own in codes]
        for k, own in enumerate(own_codes):
            new = own < 0
            if not of_mean:
                spread = z[k][new] @ model.roots[k]
                variance[new] += np.einsum("rj,rj->r", spread, spread)
            if posterior is not None:
                known = ~new
                response = posterior.coef_response[k][:, :, own[known]]
                x[known] -= np.einsum("ri,ipr->rp", z[k][known], response)
        if posterior is not None:
            variance += posterior.variance(z, own_codes)
        leverage = x @ inverse_root
        variance += np.einsum("rj,rj->r", leverage, leverage)
        std[chunk] = np.sqrt(variance * model.noise_variance)
    return std
