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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.rows import CodedRows, Codes
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.known import Known
from mixedlearn.specification import Specification

FloatArray = NDArray[np.float64]


def predict_mean(model: FittedModel, rows: CodedRows) -> FloatArray:
    """Fixed effects plus the BLUPs of the model's levels, shape (n,)."""
    return known_mean(model.specification, model.coef, Known(model), rows)


def known_mean(
    specification: Specification, coef: FloatArray, known: Known, rows: CodedRows
) -> FloatArray:
    """Fixed effects plus the BLUPs of known levels, shape (n,).

    Parameters
    ----------
    specification : Specification
    coef : ndarray of shape (p,)
        The intercept first if there is one.
    known : Known
        What the codes of the rows belong to.
    rows : CodedRows
    """
    mean = fixed_mean(specification, coef, rows.X)
    for k, (factor, codes) in enumerate(zip(specification.factors, rows.codes, strict=True)):
        if codes is None or not known.fit.roots[k].any():
            continue
        effects = known.effects(k, codes)
        for effect, column in zip(effects[factor.random_intercept :], factor.slopes, strict=True):
            mean += effect * rows.X[:, column]
        if factor.random_intercept:
            mean += effects[0]
    return mean


def fixed_mean(
    specification: Specification, coef: FloatArray, X: NDArray[np.floating]
) -> FloatArray:
    """``X beta``, shape (n,)."""
    intercept = float(coef[0]) if specification.fit_intercept else 0.0
    slopes = coef[1:] if specification.fit_intercept else coef
    if specification.fixed != tuple(range(X.shape[1])):
        X = X[:, list(specification.fixed)]
    mean = X @ slopes
    mean += intercept
    return mean


@dataclass(frozen=True, slots=True)
class RowSpread:
    """What the data leave open about the mean of some rows, in the engine's columns.

    Attributes
    ----------
    fixed : ndarray of shape (n, p)
        x, orthonormal over all rows of the fit.
    turned : ndarray of shape (n, p)
        ``R'x~`` with ``x~ = x - sum_k F_k'z_k`` and ``R R' = H^-1``.
    random : list of ndarray of shape (n, q_k)
        z_k of every factor.
    variance : ndarray of shape (n,)
        Variance of ``x'beta + sum_k z_k'b_k`` over the known levels, relative to the noise.
    """

    fixed: FloatArray
    turned: FloatArray
    random: list[FloatArray]
    variance: FloatArray


def row_spread(
    model: FittedModel, basis: FloatArray, codes: Sequence[Codes], known: Known | None = None
) -> RowSpread:
    """The spread of rows; for rows of the fit times the roots of their weights, the leverages.

    Parameters
    ----------
    model : FittedModel
    basis : ndarray of shape (n, k + 1)
        Basis columns without the response.
    codes : sequence of ndarray of shape (n,), int
        For every factor, the level of each row, -1 for an unknown one.
    known : Known, optional
        What the codes belong to; by default the levels of the model.
    """
    fixed = basis @ model.fixed_basis.columns[:-1]
    inner, variance = fixed.copy(), np.zeros(len(basis))
    z = [
        model.sums.z_rows(k, basis) @ random.columns for k, random in enumerate(model.random_bases)
    ]
    if any((own >= 0).any() for own in codes):
        for posterior, places in (known or Known(model)).posteriors(codes):
            for own_z, own, response in zip(z, places, posterior.coef_response, strict=True):
                there = own >= 0
                inner[there] -= np.einsum("ri,ipr->rp", own_z[there], response[:, :, own[there]])
            variance += posterior.variance(z, places)
    turned = inner @ model.fixed_effects.inverse_root
    variance += np.einsum("rj,rj->r", turned, turned)
    return RowSpread(fixed, turned, z, variance)


def predict_std(
    model: FittedModel,
    rows: CodedRows,
    *,
    of_mean: bool = False,
    known: Known | None = None,
    condition: Any = None,
) -> FloatArray:
    """Standard deviation of a new observation (of weight one) given the training data, shape (n,).

    A factor without codes counts as one of new levels. ``of_mean`` leaves out the noise and the
    effects of new levels. ``known`` is what the codes belong to, by default the model's levels.
    ``condition`` is what is known of the noise; see `correlated.Condition`.
    """
    codes = rows.known_codes
    std = np.empty(len(rows.X))
    for chunk in rows.chunks():
        own_codes = [own[chunk] for own in codes]
        basis = model.sums.basis_rows(rows.X[chunk])
        if condition is not None:
            basis -= condition.basis[chunk]
        spread = row_spread(model, basis, own_codes, known)
        variance = spread.variance
        if not of_mean:
            variance += 1.0 if condition is None else condition.rest[chunk]
            for own, z, root in zip(own_codes, spread.random, model.roots, strict=True):
                new = own < 0
                effects = z[new] @ root
                variance[new] += np.einsum("rj,rj->r", effects, effects)
        std[chunk] = np.sqrt(variance * model.noise_variance)
    return std
