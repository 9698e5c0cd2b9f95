"""Confounding of random effects with the noise and with the fixed effects.

Where the levels use up all rows, the noise may be one more random effect: if a matrix C satisfies

    U_i C U_i' = I    for every level i,

then ``I + U_i D U_i' = (1 + t) I + U_i (D - t C) U_i'``, and (s2, D) has the same likelihood as
``((1 + t) s2, (D - t C) / (1 + t))`` for every t. One row in each level and a random intercept are
the plainest case. Of all these the one with the most noise is taken, at which D is singular.

Where the set of D is curved, D - t C would leave it. The likelihood may still be the same along a
curve, whose tangent at D is such a C.

Where the fixed effects explain the random effects of every level, as those of ``C(g)`` explain
``(1 | g)``, the restricted likelihood does not depend on their variance, and the likelihood falls
as it grows, whatever the response is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

from mixedlearn.covariance.structures import Structure
from mixedlearn.data.sums import Sums
from mixedlearn.engines.bases import FixedBasis, RandomBasis
from mixedlearn.engines.levels import LevelMoments, factorise
from mixedlearn.specification import Specification

FloatArray = NDArray[np.float64]

# Share of the rows that C may fail to explain, by rounding error.
TOLERANCE = 1e-8
# Members of a curved structure that are looked at.
N_DRAWN = 2
# Share of the square of random columns that the fixed columns leave by rounding error.
EXPLAINED = 1e-9
# So many times the rounding error of the fixed columns' products counts as rounding error, too.
LOST = 10.0
# With more rounding error than this nobody knows whether columns are explained.
MUCH_NOISE = 1e-3
# Sine of the angle between directions that are one but for rounding.
PARALLEL = 1e-8
# Share of the largest part that makes an effect worth its name.
NAMED = 1e-6
# Share of its terms that is left of a sum that is zero.
REMAINS = 1e-13
EPSILON = float(np.finfo(float).eps)
# Levels whose products with all fixed columns are held at a time.
LEVELS_AT_A_TIME = 4096


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


@dataclass(frozen=True, slots=True)
class ExplainedEffects:
    """Random effects of a factor that the fixed effects explain.

    Attributes
    ----------
    directions : ndarray of shape (q*, r)
        An orthonormal basis of them, in the engine's columns.
    effects : ndarray of shape (q,), bool
        The user's effects whose variances nothing is known of.
    coefs : ndarray of shape (p,), bool
        The fixed effects, the intercept first if there is one, that explain them.
    """

    directions: FloatArray
    effects: NDArray[np.bool_]
    coefs: NDArray[np.bool_]


def explained_effects(
    sums: Sums,
    k: int,
    specification: Specification,
    fixed: FixedBasis,
    random: RandomBasis,
    structure: Structure,
    n_spanned: int | None = None,
) -> ExplainedEffects | None:
    """The random effects of factor k that the fixed effects explain; None if there are none.

    With ``n_spanned``, the dimensions that its levels' z columns span, most of the work is saved.

    With M the projection that takes out X, the contrasts of the response that are free of fixed
    effects have the covariance ``M (I + sum_i Z_i D Z_i') M``. It does not depend on what D is in a
    direction v in which the columns ``Z_i v`` of all levels are combinations of the columns of X.
    """
    if not len(random.kept):
        return None
    # In every direction at least so many levels have an effect of their own.
    least = (n_spanned or 0) - (len(random.columns) - 1) * sums.n_levels[k]
    if least > fixed.columns.shape[1] or not _may_be_explained(sums, k, fixed, random):
        return None
    gram = sums.products(fixed.columns)
    metric = np.linalg.inv(gram)
    total = sums.z_products(k)
    left = total.copy()
    for part in _explained_parts(sums, k, fixed):
        left -= np.einsum("apm,pr,brm->ab", part, metric, part)
    sizes = np.sqrt(np.diag(total))
    scales = np.where(sizes > 0.0, sizes, 1.0)
    # Random columns with the products of the identity: what counts of a combination is the share of
    # its own square that the fixed columns leave, however small the combination is.
    squares, vectors = np.linalg.eigh(total / np.outer(scales, scales))
    is_there = squares > REMAINS
    squares, vectors = squares[is_there], vectors[:, is_there]
    roots = np.sqrt(squares)
    unit = vectors / roots
    shares, turn = np.linalg.eigh(unit.T @ (left / np.outer(scales, scales)) @ unit)
    # What nearly collinear fixed columns lack of being orthonormal tells how many digits there are.
    lost = float(np.abs(gram - np.eye(len(gram))).max(initial=EPSILON))
    noise = LOST * lost * (np.square(turn).T @ (1.0 / squares))
    varies = (shares > np.maximum(EXPLAINED, noise)) | (noise > MUCH_NOISE)
    columns = sizes[:, None] * random.columns / np.sqrt(sums.n_levels[k])
    combinations = roots[:, None] * (vectors.T @ columns)
    directions = _null_space(turn[:, varies].T @ combinations, PARALLEL)
    if directions.shape[1] == _null_space(combinations, PARALLEL).shape[1]:
        # Combinations that are zero in all rows need no fixed effects to explain them.
        return None
    moves = _free_moves(structure, directions)
    if not len(moves):
        return None
    user = sums.random_columns(k, specification.factors[k].random_intercept)
    to_user = np.sqrt(np.diag(user.T @ total @ user))[:, None] * random.to_user
    turned = np.abs(to_user @ moves @ to_user.T)
    moved = turned.diagonal(axis1=1, axis2=2).max(axis=0) > NAMED * turned.max()
    coefs = _explaining_coefs(sums, k, specification, fixed, random.columns @ directions)
    return ExplainedEffects(directions, moved, coefs)


def _may_be_explained(sums: Sums, k: int, fixed: FixedBasis, random: RandomBasis) -> bool:
    """Whether the first levels leave it open: p columns explain at most p levels in a direction."""
    p = fixed.columns.shape[1]
    squares = sums.level_squares(k, random.columns, slice(0, 4 * p + 20))
    # At least so many levels have an effect of their own in every direction.
    n_effects = len(squares)
    return factorise(squares) - (n_effects - 1) * squares.shape[2] <= p


def _explained_parts(sums: Sums, k: int, fixed: FixedBasis) -> Iterator[FloatArray]:
    """Products by level of the z columns with X, shape (n_z, p, m), some levels at a time."""
    n_z = len(sums.z_products(k))
    for start in range(0, sums.n_levels[k], LEVELS_AT_A_TIME):
        levels = slice(start, start + LEVELS_AT_A_TIME)
        yield sums.level_rows(k, fixed.columns, levels)[:, n_z:]


def _null_space(matrix: FloatArray, tolerance: float) -> FloatArray:
    """An orthonormal basis of the vectors that a matrix takes to zero, in its columns."""
    _, values, right = np.linalg.svd(matrix)
    return np.asarray(right[int((values > tolerance).sum()) :].T)


def _free_moves(structure: Structure, directions: FloatArray) -> FloatArray:
    """Ways in which D may move that only concern some directions, shape (n, q, q).

    A move E is one if ``Q E Q = 0`` for the projection Q that takes out the directions.
    """
    q, n_directions = directions.shape
    if not n_directions:
        return np.empty((0, q, q))
    others = np.eye(q) - directions @ directions.T
    generator = np.random.default_rng(0)
    least: FloatArray | None = None
    for _ in range(N_DRAWN):
        theta = generator.uniform(0.3, 1.2, structure.n_parameters)
        basis = structure.tangent(theta).reshape(-1, q * q)
        # Tangents may be dependent, and have units.
        _, values, right = np.linalg.svd(basis, full_matrices=False)
        basis = right[values > PARALLEL * values.max(initial=0.0)].reshape(-1, q, q)
        seen = (others @ basis @ others).reshape(len(basis), q * q)
        moves = np.tensordot(_null_space(seen.T, PARALLEL).T, basis, 1)
        if least is None or len(moves) < len(least):
            least = moves
    assert least is not None
    return least


def _explaining_coefs(
    sums: Sums, k: int, specification: Specification, fixed: FixedBasis, directions: FloatArray
) -> NDArray[np.bool_]:
    """Fixed effects with a coefficient in the combinations that are the columns of some levels."""
    user = sums.fixed_columns(specification.fixed, specification.fit_intercept)
    sizes = np.sqrt(np.diag(sums.products(user)))
    solve = fixed.to_user @ np.linalg.inv(sums.products(fixed.columns))
    largest = np.zeros(len(sizes))
    for part in _explained_parts(sums, k, fixed):
        coefs = np.einsum("jp,apm,ar->jrm", solve, part, directions)
        largest = np.maximum(largest, sizes * np.abs(coefs).max(axis=(1, 2), initial=0.0))
    return np.asarray(largest > NAMED * largest.max())


def without_explained(
    root: FloatArray, structure: Structure, random: RandomBasis, explained: ExplainedEffects
) -> FloatArray | None:
    """Lambda of the D with the same restricted likelihood in which explained effects are zero.

    None where no D of the structure has these variances of zero. Of effects that are explained only
    in combination, as many are zero as there are combinations.
    """
    blocks = structure.basis_changes.blocks
    q, n_directions = explained.directions.shape
    if n_directions == q:
        return np.zeros_like(root)
    if blocks is None:
        return None
    kept = np.eye(q)
    others = np.eye(q) - explained.directions @ explained.directions.T
    for block in blocks:
        inside = _null_space(others[:, block], PARALLEL)
        own = np.zeros((q, inside.shape[1]))
        if inside.shape[1]:
            own[block] = inside
            # The user's effects that change most as these directions do.
            turned = random.to_user @ own
            chosen = qr(turned.T / np.abs(random.to_user).max(axis=1), pivoting=True, mode="r")[1]
            rows = chosen[: inside.shape[1]]
            kept -= own @ np.linalg.solve(turned[rows], random.to_user[rows])
    if np.array_equal(kept, np.eye(q)):
        return None
    moved = kept @ root
    moved[np.abs(moved) <= REMAINS * (np.abs(kept) @ np.abs(root))] = 0.0
    return structure.root(structure.theta_of_root(moved))
