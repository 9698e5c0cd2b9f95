"""Bases: orthonormal fixed and random columns, built from the sums.

The engines work in columns of unit size that are orthogonal over all rows, so that a fit does not
depend on the units or the origin of a covariate. Notation, with b the basis columns of
`sums` and m the number of levels:

    user's columns    X = b F,        y = b f_y,        Z = b_z S
    engine's columns  X* = X R^-1,    y* = (y - X b_ols) / scale,    Z* = Z T
    where             X*'X* = I,      y*'y* = n - p,    Z*'Z* = m I (in a block of free covariances)

    beta = b_ols + scale R^-1 beta*,    D = T D* T'

A fixed column that is a linear combination of earlier ones is aliased: it is left out of X* and its
coefficient is zero, as in R's ``lm``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.structures import BasisChanges, Structure
from mixedlearn.data.sums import Sums

FloatArray = NDArray[np.float64]

# A column whose residual on the earlier ones keeps less than this share of its square is aliased.
ALIAS_TOLERANCE = 1e-11
# Two columns whose squared correlation is one but for this are multiples of each other.
ROUNDING_TOLERANCE = 1e-14
# Values that differ by less than this share of their mean are one value, as far as doubles tell.
CONSTANT_TOLERANCE = 1e-13
# Below this share of y's square, a residual sum of squares is rounding error of the sums.
EXACT_FIT_TOLERANCE = 1e-14
# Residuals of this share of the responses are rounding error of the data themselves.
DATA_ROUNDING = 4.0 * float(np.finfo(float).eps)


@dataclass(frozen=True, slots=True)
class FixedBasis:
    """Orthonormal fixed columns and the residual response.

    Attributes
    ----------
    columns : ndarray of shape (k + 2, p)
        X* in terms of the basis columns.
    response : ndarray of shape (k + 2,)
        y* in terms of the basis columns.
    scale : float
        Residual standard deviation of ordinary least squares; y* has residual variance one.
    offset : ndarray of shape (p_user,)
        Coefficients of ordinary least squares, intercept first if there is one; aliased ones zero.
    to_user : ndarray of shape (p_user, p)
        ``beta = offset + scale * to_user @ beta*``.
    aliased : ndarray of shape (p_user,), bool
        Columns left out.
    log_det_gram : float
        log|X'X| of the user's columns that are kept.
    is_exact : bool
        Whether the fixed columns reproduce the response but for rounding.
    unexplained : float
        Share of the response's square, as it is in the sums, that the fixed columns leave.
    """

    columns: FloatArray
    response: FloatArray
    scale: float
    offset: FloatArray
    to_user: FloatArray
    aliased: NDArray[np.bool_]
    log_det_gram: float
    is_exact: bool
    unexplained: float


@dataclass(frozen=True, slots=True)
class RandomBasis:
    """Well-scaled columns of the random effects.

    Attributes
    ----------
    columns : ndarray of shape (n_z, q*)
        Z* in terms of the z columns of the sums.
    to_user : ndarray of shape (q, q*)
        T: ``D = T D* T'`` and ``b = T b*``.
    from_user : ndarray of shape (q*, q)
        ``D* = from_user D from_user'`` gives the same model.
    kept : ndarray of shape (q*,), int
        The effects that have a column. That of any other is a combination of earlier ones; its
        variance is zero.
    """

    columns: FloatArray
    to_user: FloatArray
    from_user: FloatArray
    kept: NDArray[np.intp]

    @property
    def aliased(self) -> NDArray[np.bool_]:
        """The effects whose variance is zero because of their columns, shape (q,)."""
        return np.asarray(~self.to_user.any(axis=1))


def fixed_basis(sums: Sums, columns: tuple[int, ...], fit_intercept: bool) -> FixedBasis:
    """Orthonormalise the fixed columns and take ordinary least squares out of the response.

    Parameters
    ----------
    sums : Sums
    columns : tuple of int
        Columns of X with a fixed effect.
    fit_intercept : bool
        Whether the constant is a fixed column; without it the shift of the columns is undone.
    """
    user = sums.fixed_columns(columns, fit_intercept)
    response = sums.response(columns, fit_intercept)
    negligible = CONSTANT_TOLERANCE**2 * sums.shift_squares(columns, fit_intercept)
    kept, root = _independent_columns(sums.products(user), negligible)
    inverse_root = np.linalg.inv(root)
    orthonormal = user[:, kept] @ inverse_root

    projection = sums.products(orthonormal, response)
    residual = response - orthonormal @ projection
    square, residual_square = float(sums.products(response)), float(sums.products(residual))
    n_residual = sums.n_rows - len(kept)
    no_residual = max(EXACT_FIT_TOLERANCE * square, DATA_ROUNDING**2 * sums.response_square)
    is_exact = n_residual <= 0 or residual_square <= no_residual
    scale = 1.0 if is_exact else float(np.sqrt(residual_square / n_residual))
    if sums.is_reduced:
        # What a fit has left already; to take more would move the digits that it has won.
        projection, residual = np.zeros_like(projection), response

    to_user = np.zeros((user.shape[1], len(kept)))
    to_user[kept] = inverse_root
    offset = to_user @ projection
    if fit_intercept:
        to_user = sums.unshifted(to_user, columns)
        offset = sums.unshifted(offset, columns)
    offset = sums.with_taken(offset, columns, fit_intercept)
    aliased = np.ones(user.shape[1], bool)
    aliased[kept] = False
    return FixedBasis(
        columns=orthonormal,
        response=residual / scale,
        scale=scale,
        offset=offset,
        to_user=to_user,
        aliased=aliased,
        log_det_gram=2.0 * float(np.log(np.diag(root)).sum()),
        is_exact=bool(is_exact),
        unexplained=residual_square / square if square > 0.0 else 1.0,
    )


def with_response(
    basis: FixedBasis, sums: Sums, columns: tuple[int, ...], fit_intercept: bool
) -> FixedBasis:
    """The basis for another response to the same fixed columns, less the ``offset`` it had."""
    response = sums.response(columns, fit_intercept)
    projection = sums.products(basis.columns, response)
    residual = response - basis.columns @ projection
    n_residual = sums.n_rows - len(projection)
    scale = float(np.sqrt(sums.products(residual) / n_residual))
    # The columns of the basis have their shift back already.
    offset = sums.with_taken(basis.to_user @ projection, columns, fit_intercept)
    return replace(basis, response=residual / scale, scale=scale, offset=offset)


def random_basis(sums: Sums, k: int, random_intercept: bool, structure: Structure) -> RandomBasis:
    """Scale the random columns of factor k and orthogonalise those of free covariances.

    A change of basis leaves the model as it is only within a block of effects whose covariances are
    all free: the whole of a full covariance, single effects of a diagonal one. Other structures
    allow a common scale, or a scale for each effect, and some shifts; see `BasisChanges`.
    """
    gram = sums.z_products(k) / sums.n_levels[k]
    shift = sums.slope_shifts(k)
    # The user's columns in terms of the z columns: slopes get their shift back.
    user = sums.random_columns(k, random_intercept)
    negligible = CONSTANT_TOLERANCE**2 * gram[0, 0] * shift**2
    if random_intercept:
        negligible = np.append(0.0, negligible)
    n_z, q = user.shape
    changes = structure.basis_changes
    if changes.blocks is None:
        return _scaled_basis(user, gram, shift if random_intercept else None, changes)
    columns, to_user, from_user = np.zeros((n_z, q)), np.zeros((q, q)), np.zeros((q, q))
    is_kept = np.zeros(q, bool)
    for block in changes.blocks:
        start, unshift = user[:, block], np.eye(len(block))
        if random_intercept and block[0] == 0:
            # With the intercept in the block, the shift is a change of basis like any other.
            start, unshift[0, 1:] = np.eye(n_z)[:, block], -shift[block[1:] - 1]
        kept, root = _independent_columns(start.T @ gram @ start, negligible[block])
        inverse_root = np.linalg.inv(root)
        own = block[kept]
        is_kept[own] = True
        columns[:, own] = start[:, kept] @ inverse_root
        to_user[block[:, None], own] = unshift[:, kept] @ inverse_root
        from_user[own[:, None], block] = columns[:, own].T @ gram @ user[:, block]
    if 1 < q == len(changes.blocks):
        is_kept &= ~_proportional_columns(user.T @ gram @ user)
    kept = np.flatnonzero(is_kept)
    return RandomBasis(columns[:, kept], to_user[:, kept], from_user[kept], kept)


def _scaled_basis(
    user: FloatArray, gram: FloatArray, shift: FloatArray | None, changes: BasisChanges
) -> RandomBasis:
    """Scale the columns, and let the intercept, if there is one, take up the shifts that it may."""
    q = user.shape[1]
    unshift = np.eye(q)
    if shift is not None:
        unshift[0, changes.absorbs] = -shift[changes.absorbs[1:]]
    columns = user @ unshift
    sizes = np.sqrt(np.diag(columns.T @ gram @ columns))
    if not changes.has_own_scales:
        sizes[:] = np.sqrt(np.mean(sizes**2))
    from_user = sizes[:, None] * np.linalg.inv(unshift)
    kept = np.arange(q) if changes.keeps_all else np.flatnonzero(sizes)
    scales = np.where(sizes > 0.0, sizes, 1.0)
    to_user = unshift / scales
    # An effect that only keeps its place has no variance.
    to_user[sizes == 0.0] = 0.0
    return RandomBasis((columns / scales)[:, kept], to_user[:, kept], from_user[kept], kept)


def _proportional_columns(gram: FloatArray) -> NDArray[np.bool_]:
    """Columns that are a multiple of an earlier one, but for rounding."""
    squares = np.diag(gram)
    products = np.outer(squares, squares)
    proportional = (products > 0.0) & (products - gram**2 <= ROUNDING_TOLERANCE * products)
    return np.asarray(np.tril(proportional, -1).any(axis=1))


def _independent_columns(
    gram: FloatArray, negligible: FloatArray
) -> tuple[NDArray[np.intp], FloatArray]:
    """Columns that are no combination of earlier ones, and the upper Cholesky root of their Gram.

    A column whose residual square falls below ``negligible`` counts as dependent as well: it
    differs from a constant by rounding error only.
    """
    least = np.maximum(ALIAS_TOLERANCE * np.diag(gram), negligible)
    try:
        root = np.linalg.cholesky(gram).T
        if (np.square(np.diag(root)) > least).all():
            return np.arange(len(gram)), np.asarray(root)
    except np.linalg.LinAlgError:
        pass
    # Not all are independent: one after the other.
    kept: list[int] = []
    root = np.zeros((len(gram), len(gram)))
    for j in range(len(gram)):
        rank = len(kept)
        column = np.linalg.solve(root[:rank, :rank].T, gram[kept, j])
        pivot = gram[j, j] - np.dot(column, column)
        if pivot > least[j]:
            root[:rank, rank] = column
            root[rank, rank] = np.sqrt(pivot)
            kept.append(j)
    rank = len(kept)
    return np.array(kept, dtype=np.intp), root[:rank, :rank]
