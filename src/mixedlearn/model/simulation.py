"""Simulation from a fitted model: responses, and random effects given the data.

A new response is ``X beta + sum_k Z_k b_k + e`` with ``b_k ~ N(0, s2 D_k)`` for every level and
``e ~ N(0, s2 / w)``; `continuation` has the e of a residual structure. Given the data and the fixed
effects, the random effects of a level are normal around their BLUPs, with the conditional
covariance of `FittedModel.conditional_covariances`; the BLUPs move with the fixed effects, which
are normal around their estimates.
Random effects are drawn in the engine's columns, where no digit is lost to the covariates' origins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from mixedlearn.data.rows import CodedRows
from mixedlearn.model.continuation import NoiseDraw
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.prediction import predict_mean

FloatArray = NDArray[np.float64]


def make_generator(random_state: Any) -> np.random.Generator:
    """A generator of random numbers from what a user passes as ``random_state``.

    Raises
    ------
    ValueError
        If it is nothing that seeds one.
    """
    if isinstance(random_state, np.random.RandomState):
        random_state = random_state.randint(2**32, size=4, dtype=np.uint32)
    try:
        return np.random.default_rng(random_state)
    except (TypeError, ValueError):
        raise ValueError(
            f"random_state must be None, a non-negative integer or a numpy generator, got "
            f"{random_state!r}."
        ) from None


def random_design(
    model: FittedModel, X: NDArray[np.floating], codes: NDArray[np.integer], k: int, n_levels: int
) -> csr_array:
    """The columns ``Z_k Lambda_k`` of all levels of factor k: shape (n, q* m), effect by effect.

    Rows with code -1 take no part.
    """
    z = model.sums.z_values(k, X) @ (model.random_bases[k].columns @ model.roots[k])
    rows = np.flatnonzero(codes >= 0)
    q = z.shape[1]
    places = codes[rows, None] + n_levels * np.arange(q)
    pointers = np.append(0, np.cumsum(np.where(codes >= 0, q, 0)))
    return csr_array((z[rows].ravel(), places.ravel(), pointers), shape=(len(X), q * n_levels))


def sample_responses(
    model: FittedModel,
    rows: CodedRows,
    new_codes: Sequence[NDArray[np.integer]],
    n_samples: int,
    generator: np.random.Generator,
    noise_draw: NoiseDraw | None = None,
) -> FloatArray:
    """New responses, shape (n, n_samples).

    Parameters
    ----------
    model : FittedModel
    rows : CodedRows
        Their codes tell the levels that keep their BLUPs, their weights are positive.
    new_codes : sequence of ndarray of shape (n,), int
        For every factor, the levels that get new random effects, 0 to their number less one; -1
        elsewhere. Empty for a model without random effects.
    n_samples : int
    generator : numpy.random.Generator
    noise_draw : NoiseDraw, optional
        Of a model with a residual structure.
    """
    noise = np.sqrt(model.noise_variance)
    sampled = np.repeat(predict_mean(model, rows)[:, None], n_samples, axis=1)
    for k, codes in enumerate(new_codes):
        n_levels = int(codes.max(initial=-1)) + 1
        columns = random_design(model, rows.X, codes, k, n_levels)
        sampled += noise * (columns @ generator.standard_normal((columns.shape[1], n_samples)))
    noises = generator.standard_normal(sampled.shape)
    if noise_draw is not None:
        noises = noise_draw.given.drawn(noises)
        noises += noise_draw.mean[:, None] / noise
    if rows.weights is not None:
        noises /= np.sqrt(rows.weights)[:, None]
    sampled += noise * noises
    return sampled


def sample_effects(
    model: FittedModel, n_samples: int, generator: np.random.Generator
) -> list[FloatArray]:
    """Draws of every factor's random effects given the data: shapes (n_samples, m, q).

    One draw of the fixed effects is shared by all levels of all factors.
    """
    drawn = []
    root = model.fixed_effects.inverse_root
    coef_errors = generator.standard_normal((n_samples, len(root))) @ root.T
    for k, (blups, random) in enumerate(zip(model.blups, model.random_bases, strict=True)):
        values, vectors = np.linalg.eigh(model.posterior.covariance(k).transpose(2, 0, 1))
        # A variance that is zero may come out a rounding error below it.
        roots = random.to_user @ (vectors * np.sqrt(np.maximum(values, 0.0))[:, None])
        scores = generator.standard_normal((n_samples, len(blups), roots.shape[2]))
        deviations = np.einsum("mab,smb->sma", roots, scores)
        response = np.einsum("ai,ipm->map", random.to_user, model.posterior.coef_response[k])
        deviations -= np.einsum("map,sp->sma", response, coef_errors)
        drawn.append(blups + np.sqrt(model.noise_variance) * deviations)
    return drawn
