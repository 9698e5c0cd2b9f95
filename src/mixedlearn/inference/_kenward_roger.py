r"""Kenward and Roger's covariance of the coefficients, without a matrix over the rows.

Notation
--------
``Sigma = s2 V`` is linear in the entries of the D_k and the noise variance. Its directions are
``G_E = Z_k (E x I) Z_k'`` for the symmetric E in which the structure lets D_k move, and for the
noise V itself instead of I: another basis of the same space, in which nothing needs V^-2. Where the
set of the D_k is curved (correlations r^|i-j|) they are the tangents at the estimate: the linear
form of the method, that does not depend on the choice of the parameters. With P_i
and K_i of `engines.one_factor` (or P, K of `engines.joint`: one level that holds all effects), K
times a root of H^-1,

    C_E = P E P',    T_E = sum_i K_i'C_E,i K_i,    Q_EF = sum_i K_i'C_E,i C_F,i K_i

T_E is minus Kenward and Roger's P_E, and Q_EF their Q_EF, in columns where H is the identity; for
the noise they are I, T_E and T_F. The expected information (times two, Kenward & Roger 1997,
equation 5 and appendix) and the adjusted covariance of the coefficients are

    I_EF = sum_i tr(C_E,i C_F,i) - 2 tr(Q_EF) + tr(T_E T_F)
    I_EV = sum_i tr(C_E,i) - tr(T_E),      I_VV = n - p
    W = 2 I^-1,      s2 root (I + 2 sum_EF W_EF (Q_EF - T_E T_F)) root'

to which the noise's direction adds nothing of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.algebra import pseudo_inverse
from mixedlearn.engines.joint import reduce_jointly, whitening
from mixedlearn.engines.levels import compress, level_blocks, reduce_levels, solve_levels
from mixedlearn.engines.problem import engine_structures
from mixedlearn.model.fitted import FittedModel, once_per_fit

FloatArray = NDArray[np.float64]

# Random effects of several factors in one dense matrix: seconds, and a few hundred megabytes.
MOST_EFFECTS = 4000


@dataclass(frozen=True, slots=True)
class KenwardRoger:
    """What the adjusted covariance and the degrees of freedom are made of.

    All in columns where the covariance of the coefficients is ``s2 I``.

    Attributes
    ----------
    parameter_covariance : ndarray of shape (a, a)
        W.
    changes : ndarray of shape (a, p, p)
        T of every direction, that of the noise last.
    adjusted : ndarray of shape (p, p)
        The adjusted covariance of the coefficients, relative to s2.
    """

    parameter_covariance: FloatArray
    changes: FloatArray
    adjusted: FloatArray


@dataclass(frozen=True, slots=True)
class _Block:
    """Some levels: C_E of shape (a, m, r, r), K of shape (m, r, p), multiplicity of shape (m,)."""

    spreads: FloatArray
    data: FloatArray
    multiplicity: FloatArray


@once_per_fit
def kenward_roger(model: FittedModel) -> KenwardRoger:
    """Adjust the covariance of the coefficients of a REML fit with random effects and noise.

    The information is that of all directions, as if a variance of zero were in the interior; where
    it is singular, its pseudo-inverse stands for the inverse.

    Raises
    ------
    ValueError
        If the model was fitted by maximum likelihood, or several factors have too many effects.
    """
    if (obstacle := why_not(model)) is not None:
        raise ValueError(obstacle)
    n_fixed = len(model.fixed_effects.coef)
    structures = engine_structures(model.specification, model.random_bases)
    directions = [
        structure.tangent(structure.theta_of_root(root))
        for structure, root in zip(structures, model.roots, strict=True)
    ]
    n = sum(len(own) for own in directions)
    first, second = np.zeros(n), np.zeros((n, n))
    changes, squares = np.zeros((n, n_fixed, n_fixed)), np.zeros((n * n_fixed,) * 2)
    for block in _blocks(model, directions):
        n_levels, r, _ = block.data.shape
        first += np.einsum("amrr,m->a", block.spreads, block.multiplicity)
        weighted = block.spreads * block.multiplicity[:, None, None]
        second += weighted.reshape(n, -1) @ block.spreads.reshape(n, -1).T
        turned = np.matmul(block.spreads, block.data)
        changes += block.data.reshape(n_levels * r, -1).T @ turned.reshape(n, n_levels * r, -1)
        flat = turned.transpose(1, 2, 0, 3).reshape(n_levels * r, n * n_fixed)
        squares += flat.T @ flat
    # Q_EF - T_E T_F, with E and F first.
    both = squares.reshape(n, n_fixed, n, n_fixed).transpose(0, 2, 1, 3)
    products = np.einsum("aij,bjk->abik", changes, changes)
    information = np.empty((n + 1, n + 1))
    information[:-1, :-1] = second - 2.0 * np.einsum("abii->ab", both)
    information[:-1, :-1] += np.einsum("abii->ab", products)
    information[:-1, -1] = information[-1, :-1] = first - np.einsum("aii->a", changes)
    information[-1, -1] = model.sums.n_rows - n_fixed
    sizes = np.sqrt(np.append(np.diag(second), model.sums.n_rows))
    covariance = 2.0 * pseudo_inverse(information, sizes)
    excess = np.einsum("ab,abij->ij", covariance[:-1, :-1], both - products)
    identity = np.eye(n_fixed)
    return KenwardRoger(
        covariance,
        np.concatenate([changes, identity[None]]),
        identity + excess + excess.T,
    )


def why_not(model: FittedModel) -> str | None:
    """What is in the way of the method for a model, and what to do; None if nothing is."""
    if not model.specification.reml:
        return (
            "Kenward and Roger's method is for restricted maximum likelihood, and this model was "
            'fitted with reml=False: fit it with reml=True, or use ddf="satterthwaite".'
        )
    n_effects = sum(q * m for q, m in _shapes(model))
    if model.noise is None and len(model.roots) > 1 and n_effects > MOST_EFFECTS:
        return (
            f"Kenward and Roger's method for several factors takes dense matrices over all random "
            f"effects, and this model has {n_effects:,} of them (up to {MOST_EFFECTS:,} are "
            'allowed): use ddf="satterthwaite".'
        )
    return None


def _shapes(model: FittedModel) -> list[tuple[int, int]]:
    """Effects per level and levels of every factor that has effects."""
    return [
        (len(random.kept), m)
        for random, m in zip(model.random_bases, model.sums.n_levels, strict=True)
        if len(random.kept)
    ]


def _blocks(model: FittedModel, directions: Sequence[FloatArray]) -> Iterator[_Block]:
    if len(model.roots) == 1:
        yield from _level_blocks(model, directions[0])
        return
    active = [k for k, random in enumerate(model.random_bases) if len(random.kept)]
    sums = model.sums.of_factors(active)
    randoms = [model.random_bases[k] for k in active]
    shapes = _shapes(model)
    n_effects = sum(q * m for q, m in shapes)
    moments = reduce_jointly(sums, model.fixed_basis, randoms)
    columns = moments.rows[:, :n_effects, 0]
    inverse, _ = whitening(columns, shapes, [model.roots[k] for k in active])
    projected = inverse @ columns
    spreads: list[FloatArray] = []
    start = 0
    for k, (q, m) in zip(active, shapes, strict=True):
        own = projected[:, start : start + q * m]
        parts = own.reshape(-1, q, m)
        spreads += [
            np.einsum("rqm,qs->rsm", parts, direction).reshape(-1, q * m) @ own.T
            for direction in directions[k]
        ]
        start += q * m
    data = inverse @ (moments.rows[:, n_effects:-1, 0] @ model.fixed_effects.inverse_root)
    yield _Block(np.array(spreads)[:, None], data[None], np.ones(1))


def _level_blocks(model: FittedModel, directions: FloatArray) -> Iterator[_Block]:
    moments = compress(reduce_levels(model.sums, 0, model.fixed_basis, model.random_bases[0]))
    q = moments.n_effects
    for levels in level_blocks(moments.rows):
        solved, _ = solve_levels(moments.rows[:, :, levels], model.roots[0])
        solved = solved.transpose(2, 0, 1)
        projected = solved[:, :, :q]
        spreads = np.matmul(np.matmul(projected, directions[:, None]), projected.transpose(0, 2, 1))
        data = np.matmul(solved[:, :, q:-1], model.fixed_effects.inverse_root)
        yield _Block(spreads, data, moments.multiplicity[levels])
