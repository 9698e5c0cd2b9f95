"""Whether columns of one fit are combinations of those of another fit to the same rows.

Names do not tell: ``x:z`` and ``z:x`` are one column, and x is a combination of the polynomials of
x. What fits keep does, see `mixedlearn.data.sketch`: random combinations of the rows give the
combination of the columns, or prove that there is none, and products over all rows confirm it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.sums import Sums
from mixedlearn.specification import Factor, Specification

FloatArray = NDArray[np.float64]

# Columns that differ by less than this share of their size are the same.
SAME = 1e-8
# Singular values below this share of the largest are rounding error, and so are coefficients.
RANK = 1e-11
# Rounding error of a sum, as a share of the sizes of its terms.
ROUNDING = 1e-12

INSIDE, OUTSIDE, UNKNOWN = "inside", "outside", "unknown"


@dataclass(frozen=True, slots=True)
class Columns:
    """What a fit knows of some of its columns.

    Attributes
    ----------
    names : tuple of str
    combinations : ndarray of shape (r, p)
        Combinations of the rows, the same for both fits.
    products : ndarray of shape (p, p)
        With each other, over all rows.
    beside : ndarray of shape (2, p)
        Products with the constant and with the response.
    bounds : ndarray of shape (2,)
        Lengths of the constant and of the response.
    to_user : ndarray of shape (p, p)
        What makes the user's columns of these.
    """

    names: tuple[str, ...]
    combinations: FloatArray
    products: FloatArray
    beside: FloatArray
    bounds: FloatArray
    to_user: FloatArray

    @property
    def sizes(self) -> FloatArray:
        """Lengths of the columns; one where a column is zero."""
        squares = np.diag(self.products)
        return np.sqrt(np.where(squares > 0.0, squares, 1.0))


@dataclass(frozen=True, slots=True)
class Embedding:
    """Columns as combinations of others.

    Attributes
    ----------
    matrix : ndarray of shape (p of the others, p)
        The combinations; those of a column that is none are zero.
    verdicts : tuple of str
        For every column INSIDE, OUTSIDE or UNKNOWN.
    """

    matrix: FloatArray
    verdicts: tuple[str, ...]

    @property
    def is_inside(self) -> bool:
        """Whether all columns are combinations of the others."""
        return all(verdict == INSIDE for verdict in self.verdicts)

    @property
    def places(self) -> list[int] | None:
        """Where the columns are among the others, if each is one of them."""
        is_one = (np.count_nonzero(self.matrix, axis=0) == 1).all() and (
            np.abs(self.matrix).max(axis=0, initial=1.0) == 1.0
        ).all()
        places = np.abs(self.matrix).argmax(axis=0) if self.matrix.size else np.empty(0, int)
        is_unit = is_one and bool((self.matrix[places, np.arange(len(places))] == 1.0).all())
        return [int(place) for place in places] if is_unit else None


@dataclass(frozen=True, slots=True)
class Shared:
    """What a fit shares with another.

    Attributes
    ----------
    is_aligned : bool
        Whether both had the rows in the same order.
    factors : tuple of int
        Its factors that have the same levels of the same rows as one of the other.
    """

    is_aligned: bool
    factors: tuple[int, ...]


def fixed_columns(sums: Sums, specification: Specification, shared: Shared) -> Columns:
    """The fixed columns of a fit."""
    has_intercept = specification.fit_intercept
    columns = sums.fixed_columns(specification.fixed, has_intercept)
    return _columns(sums, specification.coef_names, columns, has_intercept, shared)


def random_columns(sums: Sums, k: int, factor: Factor, shared: Shared) -> Columns:
    """The random columns of factor k of a fit."""
    columns = sums.random_in_basis(k, factor.random_intercept)
    return _columns(sums, factor.effects, columns, factor.random_intercept, shared)


def has_same_order(first: Sums, second: Sums) -> bool:
    """Whether two fits to the same rows had them in the same order."""
    ours, theirs = (own.sketched(own.raw_response()) for own in (first, second))
    if ours is None or theirs is None:
        return False
    return bool(np.abs(ours - theirs).max(initial=0.0) <= SAME * np.abs(ours).max(initial=0.0))


def same_levels(
    first: tuple[Sums, int, str], second: tuple[Sums, int, str], *, is_aligned: bool
) -> bool:
    """Whether two factors divide the rows alike, whatever they and their levels are called.

    Parameters
    ----------
    first, second : (Sums, int, str)
        Sums, the position of the factor, its name.
    is_aligned : bool
        Whether both fits had the rows in the same order; if not, names must be the same.
    """
    (sums, k, name), (other_sums, other, other_name) = first, second
    if sums.n_levels[k] != other_sums.n_levels[other]:
        return False
    if not is_aligned and name != other_name:
        return False
    own_print, other_print = sums.partition(k), other_sums.partition(other)
    if is_aligned and not np.isclose(own_print, other_print, rtol=SAME, atol=0.0):
        return False
    totals = [np.sort(sums.level_totals(k)), np.sort(other_sums.level_totals(other))]
    bounds = SAME * np.abs(totals[0]).max(axis=1, keepdims=True)
    return bool((np.abs(totals[0] - totals[1]) <= bounds).all())


def embed(own: Columns, other: Columns, *, is_aligned: bool) -> Embedding:
    """Write columns as combinations of others.

    Parameters
    ----------
    own, other : Columns
        Of two fits to the same rows.
    is_aligned : bool
        Whether both fits had the rows in the same order; if not, names decide.
    """
    same = _same_columns(own, other, is_aligned=is_aligned)
    matrix = np.zeros(same.shape)
    found = same.any(axis=0)
    for column in np.flatnonzero(found):
        matrix[same[:, column].argmax(), column] = 1.0
    verdicts = np.where(found, INSIDE, UNKNOWN).astype(object)
    rest = np.flatnonzero(~found)
    if is_aligned and len(rest):
        _solve(own, other, rest, matrix, verdicts)
    inside = verdicts == INSIDE
    wrong = inside & ~_is_confirmed(own, other, matrix, inside)
    verdicts[wrong] = UNKNOWN
    matrix[:, verdicts != INSIDE] = 0.0
    back = np.linalg.inv(other.to_user)
    whole = back @ matrix @ own.to_user
    # What is left of a shift that cancels is no part of a column.
    rounding = ROUNDING * (np.abs(back) @ np.abs(matrix) @ np.abs(own.to_user))
    rounding += RANK * own.sizes / other.sizes[:, None]
    return Embedding(np.where(np.abs(whole) > rounding, whole, 0.0), tuple(verdicts))


def _columns(
    sums: Sums, names: tuple[str, ...], columns: FloatArray, has_constant: bool, shared: Shared
) -> Columns:
    """Columns of a fit, beside a constant less their means."""
    to_user = np.eye(len(names))
    if has_constant:
        centred = sums.centred(columns[:, 1:])
        to_user[0, 1:] = columns[0, 1:] - centred[0]
        columns = np.column_stack([columns[:, :1], centred])
    constant = np.zeros(len(columns))
    constant[0] = 1.0
    others = np.column_stack([constant, sums.raw_response()])
    beside = sums.products(others, columns)
    # Combinations of all rows see what few rows have, a rare category.
    bounds = np.sqrt(np.maximum(np.diag(sums.products(others)), 0.0))
    parts = [beside / np.where(bounds > 0.0, bounds, 1.0)[:, None]]
    parts += [sums.level_combinations(k, columns) for k in shared.factors]
    sketched = sums.sketched(columns)
    if shared.is_aligned and sketched is not None:
        parts.append(sketched)
    return Columns(
        names=names,
        combinations=np.concatenate(parts),
        products=sums.products(columns),
        beside=beside,
        bounds=bounds,
        to_user=to_user,
    )


def _same_columns(own: Columns, other: Columns, *, is_aligned: bool) -> NDArray[np.bool_]:
    """Which columns of the other fit equal those of this: (p of the others, p)."""
    squares, other_squares = np.diag(own.products), np.diag(other.products)
    same = np.abs(other_squares[:, None] - squares) <= SAME * squares
    for ours, theirs, bound in zip(own.beside, other.beside, own.bounds, strict=True):
        same &= np.abs(theirs[:, None] - ours) <= SAME * bound * own.sizes
    for place, column in zip(*np.nonzero(same), strict=True):
        ours, theirs = own.combinations[:, column], other.combinations[:, place]
        bound = SAME * np.abs(ours).max(initial=0.0)
        same[place, column] = np.abs(ours - theirs).max(initial=0.0) <= bound
    if not is_aligned:
        same &= np.array(other.names)[:, None] == np.array(own.names)
    return same


def _solve(
    own: Columns,
    other: Columns,
    rest: NDArray[np.intp],
    matrix: FloatArray,
    verdicts: NDArray[np.object_],
) -> None:
    """Find the combinations of the rest of the columns, or that there are none."""
    left = other.combinations / other.sizes
    right = own.combinations[:, rest] / own.sizes[rest]
    coefficients, _, rank, _ = np.linalg.lstsq(left, right, rcond=RANK)
    differs = np.linalg.norm(right - left @ coefficients, axis=0)
    is_outside = differs > SAME * np.linalg.norm(right, axis=0)
    # With as many combinations as there are columns, everything is in their span.
    is_known = rank < len(left)
    verdicts[rest] = np.where(is_outside, OUTSIDE, INSIDE) if is_known else UNKNOWN
    matrix[:, rest] = coefficients / other.sizes[:, None] * own.sizes[rest]


def _is_confirmed(
    own: Columns, other: Columns, matrix: FloatArray, inside: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Whether products over all rows are those of the combinations."""
    sizes, magnitudes = own.sizes, np.abs(matrix)
    products = matrix.T @ other.products @ matrix
    rounding = ROUNDING * (magnitudes.T @ np.abs(other.products) @ magnitudes)
    bound = SAME * np.outer(sizes, sizes) + rounding
    wrong = (np.abs(products - own.products) > bound)[:, inside].any(axis=1)
    beside = np.abs(other.beside @ matrix - own.beside)
    rounding = ROUNDING * (np.abs(other.beside) @ magnitudes)
    wrong |= (beside > SAME * np.outer(own.bounds, sizes) + rounding).any(axis=0)
    return np.asarray(~wrong)
