"""Bases: orthonormal fixed and random columns, built from the sums.

The engines work in columns of unit size that are orthogonal over all rows, so that a fit does not
depend on the units or the origin of a covariate. Notation, with b the basis columns of
`sums` and m the number of levels:

    user's columns    X = b F,        y = b f_y,        Z = b_z S
    engine's columns  X* = X R^-1,    y* = (y - X b_ols) / scale,    Z* = Z T
    where             X*'X* = I,      y*'y* = n - p,    Z*'Z* = m I (in a block of free covariances)

    beta = b_ols + scale R^-1 beta*,    D = T D* T'

A fixed column that is a linear combination of earlier ones is aliased: X* needs no column for it.
With ``X N = 0``, a column of N for each aliased one, beta is determined but for ``N a``. The
coefficients of a formula are those without the aliased columns, as in R's ``lm``; those of columns
of X are the shortest, as in scikit-learn's ``LinearRegression``: the beta that is orthogonal to N,
where the intercept does not count.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.algebra import cholesky, inverse_of_lower
from mixedlearn.covariance.structures import BasisChanges, Structure
from mixedlearn.data.sums import Sums
from mixedlearn.threads import threads_for

FloatArray = NDArray[np.float64]

# A column whose residual on the earlier ones keeps less than this share of its square is aliased.
ALIAS_TOLERANCE = 1e-11
# An entry of N that is smaller than this share of its column is rounding error.
NULL_TOLERANCE = 1e-8
# Two columns whose squared correlation is one but for this are multiples of each other.
ROUNDING_TOLERANCE = 1e-14
# Columns that are looked at one by one before their share is taken from the others.
BLOCK = 64
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
        Coefficients of ordinary least squares, intercept first if there is one.
    to_user : ndarray of shape (p_user, p)
        ``beta = offset + scale * to_user @ beta*``.
    aliased : ndarray of shape (p_user,), bool
        Columns that are combinations of earlier ones.
    null : ndarray of shape (p_user, n_aliased)
        N: a column for every aliased one, of which it has 1. Zeros are exact.
    undetermined : ndarray of shape (p_user,), bool
        Coefficients that the rows do not determine: the aliased ones where these are left out, else
        all that have a share in N.
    log_det_gram : float
        log|X'X| of the user's columns that are kept.
    is_exact : bool
        Whether the fixed columns reproduce the response but for rounding.
    unexplained : float
        Share of the response's square, as it is in the sums, that the fixed columns leave.
    independence : float
        The smallest share of the square of a column that is kept and that earlier ones leave.
    """

    columns: FloatArray
    response: FloatArray
    scale: float
    offset: FloatArray
    to_user: FloatArray
    aliased: NDArray[np.bool_]
    null: FloatArray
    undetermined: NDArray[np.bool_]
    log_det_gram: float
    is_exact: bool
    unexplained: float
    independence: float


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


def fixed_basis(
    sums: Sums, columns: tuple[int, ...], fit_intercept: bool, drops_aliased: bool = False
) -> FixedBasis:
    """Orthonormalise the fixed columns and take ordinary least squares out of the response.

    Parameters
    ----------
    sums : Sums
    columns : tuple of int
        Columns of X with a fixed effect.
    fit_intercept : bool
        Whether the constant is a fixed column; without it the shift of the columns is undone.
    drops_aliased : bool, default=False
        Whether the coefficients of aliased columns are zero, instead of all the shortest.
    """
    with threads_for(float(len(columns)) ** 3):
        return _fixed_basis(sums, columns, fit_intercept, drops_aliased)


def _fixed_basis(
    sums: Sums, columns: tuple[int, ...], fit_intercept: bool, drops_aliased: bool
) -> FixedBasis:
    user = sums.fixed_columns(columns, fit_intercept)
    response = sums.response(columns, fit_intercept)
    negligible = CONSTANT_TOLERANCE**2 * sums.shift_squares(columns, fit_intercept)
    gram, triangle = sums.products(user), sums.triangle(user)
    kept, root = independent_columns(gram, negligible, triangle)
    inverse_root = inverse_of_lower(root.T).T
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
    aliased = np.ones(user.shape[1], bool)
    aliased[kept] = False
    null = np.empty((len(aliased), 0))
    if aliased.any():
        null = _null_combinations(sums, user, aliased, to_user, orthonormal, negligible)
        if not drops_aliased:
            to_user = _shortest(to_user, null, fit_intercept)
            orthonormal = user @ to_user
    offset = to_user @ projection
    if fit_intercept:
        to_user = sums.unshifted(to_user, columns)
        offset = sums.unshifted(offset, columns)
        if null.size:
            null = _unshifted_null(sums, null, columns)
    offset = sums.with_taken(offset, columns, fit_intercept)
    return FixedBasis(
        columns=orthonormal,
        response=residual / scale,
        scale=scale,
        offset=offset,
        to_user=to_user,
        aliased=aliased,
        null=null,
        undetermined=aliased if drops_aliased else np.any(null != 0.0, axis=1),
        log_det_gram=2.0 * float(np.log(np.diag(root)).sum()),
        is_exact=bool(is_exact),
        unexplained=residual_square / square if square > 0.0 else 1.0,
        independence=float((np.diag(root) ** 2 / np.diag(gram)[kept]).min(initial=1.0)),
    )


def _null_combinations(
    sums: Sums,
    user: FloatArray,
    aliased: NDArray[np.bool_],
    to_user: FloatArray,
    orthonormal: FloatArray,
    negligible: FloatArray,
) -> FloatArray:
    """N in terms of the columns ``user``; entries that are rounding error are zero."""
    left_out = np.flatnonzero(aliased)
    null = -to_user @ sums.products(orthonormal, user[:, left_out])
    squares = np.diag(sums.products(user))
    noise = np.sqrt(np.maximum(NULL_TOLERANCE**2 * squares, negligible))
    sizes = np.sqrt(np.maximum(squares, 0.0))
    null[np.abs(null) * sizes[:, None] <= noise[left_out]] = 0.0
    null[left_out, np.arange(len(left_out))] = 1.0
    return null


def _shortest(to_user: FloatArray, null: FloatArray, fit_intercept: bool) -> FloatArray:
    """The combinations with the same values in all rows whose coefficients are shortest."""
    turned, root = np.linalg.qr(null[int(fit_intercept) :])
    share = turned.T @ to_user[int(fit_intercept) :]
    return to_user - null @ np.linalg.solve(root, share)


def _unshifted_null(sums: Sums, null: FloatArray, columns: tuple[int, ...]) -> FloatArray:
    """N in terms of the user's columns; a constant that is rounding error is zero."""
    moved = sums.unshifted(null, columns)
    shift = np.sqrt(sums.shift_squares(columns, True) / sums.total_weight)
    terms = np.abs(null[0]) + shift @ np.abs(null)
    moved[0, np.abs(moved[0]) <= NULL_TOLERANCE * terms] = 0.0
    return moved


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
        kept, root = independent_columns(start.T @ gram @ start, negligible[block])
        inverse_root = inverse_of_lower(root.T).T
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


def independent_columns(
    gram: FloatArray, negligible: FloatArray, triangle: FloatArray | None = None
) -> tuple[NDArray[np.intp], FloatArray]:
    """Columns that are no combination of earlier ones, and the upper Cholesky root of their Gram.

    A column whose residual square falls below ``negligible`` counts as dependent as well: it
    differs from a constant by rounding error only. With a triangle of the columns the root is exact
    to more digits, where all are independent.
    """
    least = np.maximum(ALIAS_TOLERANCE * gram.diagonal(), negligible)
    if triangle is not None and len(triangle) == len(gram):
        pivots = np.diag(triangle)
        if (np.square(pivots) > least).all():
            return np.arange(len(gram)), np.sign(pivots)[:, None] * triangle
    try:
        root = cholesky(gram).T
        if (np.square(root.diagonal()) > least).all():
            return np.arange(len(gram)), np.asarray(root)
    except np.linalg.LinAlgError:
        pass
    # Not all are independent: one after the other, in blocks that leave the rest to one product.
    rest = gram.copy()
    kept: list[int] = []
    root = np.zeros(gram.shape)
    for start in range(0, len(gram), BLOCK):
        end, first = min(start + BLOCK, len(gram)), len(kept)
        for j in range(start, end):
            done = root[first : len(kept)]
            row = rest[j, j:] - done[:, j] @ done[:, j:]
            if row[0] > least[j]:
                root[len(kept), j:] = row / np.sqrt(row[0])
                kept.append(j)
        done = root[first : len(kept), end:]
        rest[end:, end:] -= done.T @ done
    return np.array(kept, dtype=np.intp), np.asarray(root[: len(kept), kept], dtype=np.float64)
