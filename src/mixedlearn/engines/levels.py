"""Levels: the data of every level of a factor, reduced to a few rows.

Notation
--------
For level i, with Z_i, X_i and y_i its rows in the engine's columns (see `bases`), an orthonormal
basis Q_i of the r z columns of the level splits its data into the part inside their span,

    U_i = Q_i'Z_i,     R_i = Q_i'[X_i y_i]                 (r, q) and (r, p + 1)

and the part outside, whose cross-products are added up over the levels:

    W = sum_i ([X_i y_i]'[X_i y_i] - R_i'R_i)              (p + 1, p + 1)

For the likelihood the level is then r rows with design U_i and noise I. Arrays have the levels
last, so that loops run over the few effects and never over levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.covariance.algebra import PIVOT_TOLERANCE
from mixedlearn.data.sums import Sums
from mixedlearn.engines.bases import FixedBasis, RandomBasis
from mixedlearn.engines.protocol import FixedEffects

FloatArray = NDArray[np.float64]

# Share of a fixed column's square that, left within levels, is rounding error.
NO_VARIATION = 1e-13
# Fewer numbers than this are passed over faster than they are merged.
WORTH_MERGING = 4096
# If half of so many levels differ, it is not worth looking for equal ones.
SAMPLE_LEVELS = 1000
# Levels are taken in blocks of about this many numbers: work arrays of a few megabytes.
BLOCK_ENTRIES = 1 << 18


@dataclass(frozen=True, slots=True)
class LevelMoments:
    """The data of every level, reduced to r rows each.

    Several responses add their axis, ``...``, to rows and within.

    Attributes
    ----------
    n_effects : int
        q, the number of (engine's) random columns.
    n_spanned : int
        Number of rows that hold data: the dimensions of the levels' spans, added up.
    rows : ndarray of shape (r, ..., q + p + 1, m)
        ``[U_i, R_i]``: random columns, fixed columns, response.
    multiplicity : ndarray of shape (m,)
        How many levels an entry stands for in sums that only involve U_i.
    within : ndarray of shape (..., p + 1, p + 1)
        W, the cross-products outside the levels' random columns.
    """

    n_effects: int
    n_spanned: int
    rows: FloatArray
    multiplicity: FloatArray
    within: FloatArray


@dataclass(frozen=True, slots=True)
class LevelPosterior:
    """Distribution of the engine's random effects given the response, for every level.

    Attributes
    ----------
    covariances : ndarray of shape (q, q, m)
        ``D - D M_i D``, relative to the noise variance, beta taken as known.
    coef_response : tuple of ndarray of shape (q, p, m)
        ``D N_i``: minus the change of the BLUP with beta.
    """

    covariances: FloatArray
    coef_response: tuple[FloatArray, ...]

    def covariance(self, k: int) -> FloatArray:
        """Covariance of every level's effects, shape (q, q, m)."""
        return (self.covariances,)[k]

    def variance(
        self, columns: Sequence[FloatArray], codes: Sequence[NDArray[np.integer]]
    ) -> FloatArray:
        """Variance of ``z'b`` for new rows, zero where the code is -1, shape (n,)."""
        variance = np.zeros(len(columns[0]))
        known = np.flatnonzero(codes[0] >= 0)
        z = columns[0][known]
        covariance = self.covariances[:, :, codes[0][known]]
        variance[known] = np.einsum("ri,ijr,rj->r", z, covariance, z)
        return variance


def reduce_levels(sums: Sums, k: int, fixed: FixedBasis, random: RandomBasis) -> LevelMoments:
    """Turn the sums of factor k into a few rows per level and the within part.

    The levels' spans are factorised in the shifted z columns, where the constant and a covariate
    far from zero are still told apart; Z* may have the shift back.
    """
    columns = np.column_stack([fixed.columns, fixed.response])
    r, q = random.columns.shape
    rows = np.empty((r, q + columns.shape[1], sums.n_levels[k]))
    triangles = sums.level_triangles(k)
    if triangles is None:
        within = sums.products(columns)
    else:
        left = triangles.left @ columns
        within = left.T @ left
    n_spanned = 0
    for block in level_blocks(rows):
        part = sums.level_rows(k, columns, block)
        n_spanned += factorise(part)
        np.matmul(random.columns.T, part[:, :r], out=rows[:, :q, block])
        rows[:, q:, block] = part[:, r:]
        if triangles is not None:
            taken = np.matmul(columns.T, triangles.effects[:, :, block])
            part[:, r:] -= np.einsum("jzm,zcm->jcm", part[:, :r], taken)
        for j in range(r):
            within -= part[j, r:] @ part[j, r:].T
    # What rounding leaves of columns that do not vary within levels would swamp H for a large D.
    constant = np.flatnonzero(np.diag(within)[:-1] < NO_VARIATION)
    within[constant] = 0.0
    within[:, constant] = 0.0
    return LevelMoments(q, n_spanned, rows, np.ones(rows.shape[2]), within)


def level_projections(sums: Sums, k: int) -> FloatArray:
    """Least squares of all basis columns on the z columns of each level, (n_z, k + 2, m)."""
    products = sums.level_rows(k, np.eye(sums.n_basis))
    rows, to_rows = factorise_with_inverse(products)
    return sum_over_rows(to_rows, rows[:, len(products) :])


def no_levels(sums: Sums, fixed: FixedBasis) -> LevelMoments:
    """The moments of a model without random effects: everything is within."""
    columns = np.column_stack([fixed.columns, fixed.response])
    rows = np.zeros((0, columns.shape[1], 0))
    return LevelMoments(0, 0, rows, np.ones(0), sums.products(columns))


def factorise(rows: FloatArray) -> int:
    """Turn ``[Z_i'Z_i, Z_i'X_i, Z_i'y_i]`` into ``[chol(Z_i'Z_i), Q_i'X_i, Q_i'y_i]``, in place.

    Returns the number of pivots that are not zero.
    """
    n_positive = 0
    for j in range(len(rows)):
        original = rows[j, j].copy()
        for k in range(j):
            rows[j, j:] -= rows[k, j] * rows[k, j:]
        pivot = rows[j, j]
        positive = (pivot > PIVOT_TOLERANCE * original) & (pivot > 0.0)
        inverse = np.zeros(len(pivot))
        inverse[positive] = 1.0 / np.sqrt(pivot[positive])
        rows[j, :j] = 0.0
        rows[j, j:] *= inverse
        n_positive += int(np.count_nonzero(positive))
    return n_positive


def factorise_with_inverse(products: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Rows of every level, and what turns products with its columns into such rows.

    Parameters
    ----------
    products : ndarray of shape (r, width, m)
        Products of the level's r columns with themselves, then with others.

    Returns
    -------
    rows : ndarray of shape (r, width, m)
        As `factorise` gives them.
    to_rows : ndarray of shape (r, r, m)
    """
    r, width, n_levels = products.shape
    part = np.zeros((r, width + r, n_levels))
    part[:, :width] = products
    part[np.arange(r), width + np.arange(r)] = 1.0
    factorise(part)
    return part[:, :width], part[:, width:]


def level_blocks(rows: FloatArray) -> Iterator[slice]:
    """Slices of levels, so that work arrays stay small."""
    n_levels = rows.shape[-1]
    size = max(BLOCK_ENTRIES * n_levels // max(rows.size, 1), 1)
    for start in range(0, n_levels, size):
        yield slice(start, start + size)


def separate_levels(fixed: FixedBasis, moments: LevelMoments) -> tuple[FixedBasis, LevelMoments]:
    """Rotate the fixed columns so that those without variation within levels stand alone.

    With a large D, such columns have tiny entries in H, which keep their digits only if no other
    column is mixed with them.
    """
    p = fixed.columns.shape[1]
    values, rotation = np.linalg.eigh(moments.within[:p, :p])
    q = moments.n_effects
    rows = moments.rows
    for row in rows:
        row[q:-1] = rotation.T @ row[q:-1]
    within = np.zeros_like(moments.within)
    varies = values >= NO_VARIATION
    within[np.arange(p), np.arange(p)] = np.where(varies, values, 0.0)
    response = np.where(varies, rotation.T @ moments.within[:p, p], 0.0)
    within[:p, p] = within[p, :p] = response
    within[p, p] = moments.within[p, p]
    rotated = replace(fixed, columns=fixed.columns @ rotation, to_user=fixed.to_user @ rotation)
    return rotated, LevelMoments(q, moments.n_spanned, rows, moments.multiplicity, within)


def within_residual(moments: LevelMoments, n_rows: int) -> tuple[Any, int]:
    """Residual sum of squares within levels, X's part outside the levels taken out, and its df.

    The fixed part of W is to be diagonal (`separate_levels`); several responses give shape (...,).
    """
    within = moments.within
    sizes = within.diagonal(axis1=-2, axis2=-1)[..., :-1]
    usable = sizes > NO_VARIATION
    projections = np.where(usable, within[..., :-1, -1], 0.0) ** 2 / np.where(usable, sizes, 1.0)
    n_usable = int(usable.sum(axis=-1).max(initial=0))
    square = within[..., -1, -1] - projections.sum(axis=-1)
    return square, n_rows - moments.n_spanned - n_usable


def within_variance(moments: LevelMoments, n_rows: int) -> Any:
    """Residual variance within levels, of every response; zero where no rows are left for it."""
    square, df = within_residual(moments, n_rows)
    return square / df if df > 0 else np.zeros_like(square)


def compress(moments: LevelMoments) -> LevelMoments:
    """Merge levels that share U_i into as many rows as their data have dimensions.

    Every sum over levels is quadratic in R_i with weights that depend on U_i alone, so levels with
    the same U_i (the same size, for a random intercept) may be replaced by any rows with the same
    second moments.
    """
    q, rows = moments.n_effects, moments.rows
    n_levels = rows.shape[2]
    if rows.size < WORTH_MERGING or rows.ndim > 3:
        return moments
    dimension = rows[:, q:].size // max(n_levels, 1)
    most = n_levels // (2 * max(dimension, 1))
    if len(pd.unique(rows[0, 0, :SAMPLE_LEVELS])) > min(n_levels, SAMPLE_LEVELS) // 2:
        return moments
    codes = np.zeros(n_levels, dtype=np.int64)
    n_classes = 1
    for i in range(len(rows)):
        for j in range(q):
            if n_classes > most:
                return moments
            entry, values = pd.factorize(rows[i, j])
            codes, classes = pd.factorize(codes * len(values) + entry)
            n_classes = len(classes)
    if n_classes > most:
        return moments
    order = np.argsort(codes, kind="stable")
    bounds = np.append(0, np.cumsum(np.bincount(codes)))
    merged, multiplicity = [], []
    for start, stop in pairwise(bounds):
        members = order[start:stop]
        if len(members) <= dimension:
            merged.append(rows[:, :, members])
            multiplicity.append(np.ones(len(members)))
            continue
        data = rows[:, q:, members].reshape(dimension, -1)
        values, vectors = np.linalg.eigh(data @ data.T)
        root = (vectors * np.sqrt(np.maximum(values, 0.0))).reshape(len(rows), -1, dimension)
        shared = np.repeat(rows[:, :q, members[:1]], dimension, axis=2)
        merged.append(np.concatenate([shared, root], axis=1))
        multiplicity.append(np.where(np.arange(dimension) == 0, float(len(members)), 0.0))
    return replace(
        moments, rows=np.concatenate(merged, axis=2), multiplicity=np.concatenate(multiplicity)
    )


def solve_levels(rows: FloatArray, root: FloatArray) -> tuple[FloatArray, FloatArray]:
    """``L_i^-1 rows_i`` and the diagonals of L_i, for ``L_i L_i' = I + U_i D U_i'``.

    By modified Gram-Schmidt on the rows of ``[U_i Lambda, I]``.

    Parameters
    ----------
    rows : ndarray of shape (r, ..., q + p + 1, m)
        ``[U_i, R_i]``.
    root : ndarray of shape (..., q, q)
        Lambda.

    Returns
    -------
    solved : ndarray of shape (r, ..., q + p + 1, m)
    pivots : ndarray of shape (r, ..., m)
    """
    r, q, n_levels = len(rows), root.shape[-1], rows.shape[-1]
    # Row j of [U_i Lambda, I]: the factorisation of this, and not of its square, keeps the pivots
    # of a D that is huge and nearly singular.
    spread = np.zeros((*rows.shape[:-2], q + r, n_levels))
    np.matmul(root.swapaxes(-1, -2), rows[..., :q, :], out=spread[..., :q, :])
    solved = np.empty_like(rows)
    pivots = np.empty((*rows.shape[:-2], n_levels))
    term = np.empty(rows.shape[1:])
    for j in range(r):
        own = spread[j, ..., : q + j + 1, :]
        own[..., q + j, :] = 1.0
        total = rows[j]
        for k in range(j):
            # Row k is zero beyond these columns.
            other, shared = spread[k, ..., : q + k + 1, :], own[..., : q + k + 1, :]
            entry = np.einsum("...km,...km->...m", shared, other)[..., None, :]
            shared -= entry * other
            np.multiply(entry, solved[k], out=term)
            total = np.subtract(total, term, out=solved[j])
        np.sqrt(np.einsum("...km,...km->...m", own, own), out=pivots[j])
        inverse = 1.0 / pivots[j][..., None, :]
        if j + 1 < r:
            own *= inverse
        np.multiply(total, inverse, out=solved[j])
    return solved, pivots


def sum_over_rows(left: FloatArray, right: FloatArray) -> FloatArray:
    """``left_i' right_i`` for every level.

    Arrays of shapes (r, ..., a, m) and (r, ..., b, m) give one of shape (..., a, b, m).
    """
    if len(left) == 0:
        return np.zeros((*left.shape[1:-1], right.shape[-2], left.shape[-1]))
    total = left[0][..., :, None, :] * right[0][..., None, :, :]
    term = np.empty_like(total)
    for j in range(1, len(left)):
        np.multiply(left[j][..., :, None, :], right[j][..., None, :, :], out=term)
        total += term
    return total


def conditional_means(moments: LevelMoments, root: FloatArray, fixed: FixedEffects) -> FloatArray:
    """BLUPs of the engine's random effects, ``D u_i``, shape (q, m)."""
    q = moments.n_effects
    means = np.empty((q, moments.rows.shape[2]))
    for block in level_blocks(moments.rows):
        rows = moments.rows[:, :, block]
        residual = rows[:, -1:] - np.matmul(fixed.coef, rows[:, q:-1])[:, None]
        solved, _ = solve_levels(np.concatenate([rows[:, :q], residual], axis=1), root)
        u = sum_over_rows(solved[:, :q], solved[:, q:])[:, 0]
        means[:, block] = root @ (root.T @ u)
    return means


def conditional_moments(moments: LevelMoments, root: FloatArray) -> LevelPosterior:
    """Covariance of the engine's random effects given y, and the BLUPs' dependence on beta."""
    q = moments.n_effects
    solved, _ = solve_levels(moments.rows, root)
    covariance = root @ root.T
    spread = np.matmul(covariance, solved[:, :q])  # P_i D
    shrunk = covariance[:, :, None] - sum_over_rows(spread, spread)
    return LevelPosterior(shrunk, (sum_over_rows(spread, solved[:, q:-1]),))


def coef_within(within: FloatArray) -> FloatArray:
    """Beta of the regression within levels, for a W whose fixed part is diagonal."""
    squares = np.diag(within)[:-1]
    varies = squares > 0.0
    return np.where(varies, within[:-1, -1], 0.0) / np.where(varies, squares, 1.0)
