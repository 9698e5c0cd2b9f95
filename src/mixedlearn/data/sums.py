"""Sums over rows: the one pass that every fit needs.

Notation
--------
The *basis columns* of a row are ``b = (1, x - c_x, y - c_y)``, where c is the *shift*, a mean of
the rows or of the first of them: shifting first keeps the digits that a column like 1e8 + noise
would lose in its squares. With precision weights w the sums are

    gram     = sum_r w_r b_r b_r'                     (k + 2, k + 2)
    grouped  = sum_{r in level i} w_r z_r b_r'        (n_z, k + 2, m)        for every factor
    crossing = sum_{r in levels i, j} w_r z_r z_r'    (n_z, n_z, n_pairs)    for every two factors

where z are the basis columns that have random effects, the constant always among them (it undoes
the shift). Everything after this module is algebra on these sums; no later step sees a row.

Where the columns explain the response almost completely, its squares have no digits left for the
rest. Multiples of the columns, ``taken``, may leave it before the sums are formed, so that the
response among the basis columns is ``y - c_y - taken'x``. Where squares do not do at all, the sums
have `triangles` as well: see there.

No module outside this package knows how the sums are stored. Others speak of columns in two
coordinate systems: *basis coordinates*, shape (k + 2, c), of any column that the rows determine,
and *z coordinates* of factor k, shape (n_z, q), of columns with random effects.

Sums of parts are added: a shift is exchanged for another by ``b T``, where T adds multiples of the
constant, and levels are aligned by their labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.data.accumulation import add_up, add_up_basis, check_squares, pilot_means
from mixedlearn.data.cancellation import less_columns, less_taken
from mixedlearn.data.crossing import Crossing, cross, cross_basis, merge_crossings
from mixedlearn.data.levels import encode, merge_levels, pack_levels, unpack_levels
from mixedlearn.data.rows import CodedRows, Rows
from mixedlearn.data.sketch import (
    SKETCHED_ROWS,
    Sketch,
    combinations_of,
    make_sketch,
    sketched_rows,
)
from mixedlearn.data.triangles import (
    BasisChunks,
    JointTriangles,
    LevelTriangles,
    joint_triangles,
    level_triangles,
)

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over rows that determine the likelihood, with the levels of every factor.

    ``a + b`` are the sums of the rows of both, whatever levels each has seen and in whatever order
    they are added. `n_rows`, `sum_log_weights`, `levels`, `response_square` and `is_reduced` may be
    read by anyone; all other fields are for this package alone, others call the methods.

    Attributes
    ----------
    n_rows : int
        Number of rows (of positive weight).
    sum_log_weights : float
        Sum of the logarithms of the weights.
    levels : tuple of pandas.Index
        For every factor, its levels in the order of the arrays below.
    shift : ndarray of shape (k + 1,)
        The constants that were taken from the k columns and from the response.
    taken : ndarray of shape (k,)
        The multiples of the k columns, as they were before the shift, that were taken from the
        response.
    response_square : float
        Sum of squares of the response before anything was taken, with weights.
    gram : ndarray of shape (k + 2, k + 2)
        Products of all basis columns: constant, k columns, response.
    z_columns : tuple of tuple of int
        For every factor, the basis columns in ``grouped``: 0, the constant, then the columns with
        a random slope.
    grouped : tuple of ndarray of shape (n_z, k + 2, m)
        For every factor, products of its z columns with the basis columns, by level.
    crossings : dict of (int, int) to Crossing
        For every pair of factors, the first before the second.
    is_reduced : bool
        Whether the response was reduced to what a fit left of it.
    triangles : LevelTriangles or JointTriangles, optional
        For digits that squares lose.
    sketch : Sketch, optional
        Random combinations of the rows, which sums that were added up from others do not have.
    """

    n_rows: int
    sum_log_weights: float
    levels: tuple[pd.Index, ...]
    shift: FloatArray
    taken: FloatArray
    response_square: float
    gram: FloatArray
    z_columns: tuple[tuple[int, ...], ...]
    grouped: tuple[FloatArray, ...]
    crossings: dict[tuple[int, int], Crossing]
    is_reduced: bool = False
    triangles: LevelTriangles | JointTriangles | None = None
    sketch: Sketch | None = None

    def __getstate__(self) -> dict[str, Any]:
        """The state to save: by names, in types that other formats than pickle can hold."""
        state = {own.name: getattr(self, own.name) for own in fields(self)}
        state["levels"] = [pack_levels(own) for own in self.levels]
        state["crossings"] = list(self.crossings.items())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        levels = tuple(unpack_levels(own) for own in state["levels"])
        for name, value in {**state, "levels": levels}.items():
            object.__setattr__(self, name, dict(value) if name == "crossings" else value)

    @classmethod
    def of(
        cls,
        rows: Rows,
        slopes: Sequence[tuple[int, ...]],
        *,
        like: Sums | None = None,
        shift: FloatArray | None = None,
        taken: FloatArray | None = None,
    ) -> Sums:
        """Sum up rows in one pass.

        Parameters
        ----------
        rows : Rows
            With a response and positive weights.
        slopes : sequence of tuple of int
            For every factor, the columns with a random slope.
        like : Sums, optional
            Take what these took from the columns and the response.
        shift : ndarray of shape (k + 1,), optional
            The constants to take from the columns and the response; by default pilot means.
        taken : ndarray of shape (k + 1,), optional
            Constant and multiples of the columns to take from the response.

        Raises
        ------
        ValueError
            If a value is not finite, or its square overflows.
        """
        encoded = [encode(own) for own in rows.labels]
        if like is not None:
            shift, taken = like.shift, np.append(like.shift[-1], like.taken)
        codes = [own for own, _ in encoded]
        sums = sum_rows(
            rows.X,
            rows.given_response,
            codes,
            [levels for _, levels in encoded],
            slopes,
            rows.weights,
            shift=shift,
            taken=taken,
        )
        if like is not None:
            # Sums that are to be added need none.
            return sums
        chosen = sketched_rows(sums.n_rows)
        coded = CodedRows(rows.X, tuple(codes), rows.response)
        basis = sums.rows_in_basis(coded, chosen)
        return replace(sums, sketch=make_sketch(basis, [own[chosen] for own in codes]))

    def basis_chunks(self, rows: Rows) -> Iterator[tuple[FloatArray, list[NDArray[np.integer]]]]:
        """Basis columns of the rows, times the roots of weights, beside their levels."""
        coded = rows.coded(self.levels)
        codes = coded.known_codes
        for chunk in coded.chunks():
            yield self.weighted_rows(coded, chunk), [own[chunk] for own in codes]

    def with_level_triangles(self, chunks: BasisChunks, k: int, effects: FloatArray) -> Sums:
        """The same with triangles beside the levels of factor k; see `triangles`.

        Parameters
        ----------
        chunks : iterable
            The rows of the sums; see `triangles.level_triangles`.
        k : int
        effects : ndarray of shape (n_z, k + 2, m)
            What the levels explain of the basis columns.
        """
        return replace(self, triangles=level_triangles(self, chunks, k, effects))

    def with_joint_triangles(
        self, chunks: BasisChunks, factors: tuple[int, ...], has_intercept: Sequence[bool]
    ) -> Sums:
        """The same with the triangle of the random columns of several factors; see `triangles`.

        Parameters
        ----------
        chunks : iterable
            The rows of the sums; see `triangles.level_triangles`.
        factors : tuple of int
        has_intercept : sequence of bool
            For each of them, whether it has a random intercept.
        """
        columns = tuple(
            self.random_columns(*own) for own in zip(factors, has_intercept, strict=True)
        )
        return replace(self, triangles=joint_triangles(self, chunks, factors, columns))

    def in_metric(
        self, basis: FloatArray, codes: Sequence[NDArray[np.integer]], log_det: float
    ) -> Sums:
        """The sums of the same rows in the metric of a noise covariance R.

        Parameters
        ----------
        basis : ndarray of shape (n, k + 2)
            Their basis columns times a root of ``R^-1``, row for row of the same levels.
        codes : sequence of ndarray of shape (n,), int
            Their levels, for every factor.
        log_det : float
            log|R|: as roots of weights do, the root stands for variances that are not equal.
        """
        sizes, z_columns = self.n_levels, self.z_columns
        totals = add_up_basis(basis, codes, sizes, z_columns)
        crossings = {
            (i, j): cross_basis(
                basis, (codes[i], codes[j]), (sizes[i], sizes[j]), (z_columns[i], z_columns[j])
            )
            for i, j in self.crossings
        }
        return replace(
            self,
            sum_log_weights=self.sum_log_weights - log_det,
            gram=totals.gram,
            grouped=totals.grouped,
            crossings=crossings,
            triangles=None,
        )

    def joining_triangles(self, other: Sums) -> Sums:
        """The same sums with the triangles of both, each of which has those of other rows."""
        mine, theirs = self.triangles, other.triangles
        if isinstance(mine, LevelTriangles) and isinstance(theirs, LevelTriangles):
            return replace(self, triangles=mine + theirs)
        if isinstance(mine, JointTriangles) and isinstance(theirs, JointTriangles):
            return replace(self, triangles=mine + theirs)
        raise ValueError("Triangles of different kinds, or none, cannot be joined.")

    @property
    def has_triangles(self) -> bool:
        """Whether there are triangles for digits that squares lose."""
        return self.triangles is not None

    @property
    def n_factors(self) -> int:
        """Number of grouping factors."""
        return len(self.grouped)

    @property
    def n_levels(self) -> tuple[int, ...]:
        """Number of levels of every factor."""
        return tuple(grouped.shape[2] for grouped in self.grouped)

    @property
    def n_basis(self) -> int:
        """Number of basis columns, k + 2."""
        return len(self.gram)

    def shift_for(self, rows: Rows) -> FloatArray | None:
        """The shift of these sums, if it is near the rows too; then both are added without a turn.

        Near is what is not farther than a standard deviation, of which squares lose no digits.
        """
        apart = pilot_means(rows.X, rows.given_response, rows.weights) - self.shift
        if (apart**2 * self.total_weight <= np.diag(self.gram)[1:]).all():
            return self.shift
        return None

    @property
    def n_numbers(self) -> int:
        """How many numbers there are by level and by pair of levels."""
        pairs = (own.products.size for own in self.crossings.values())
        return sum(own.size for own in self.grouped) + sum(pairs)

    @property
    def total_weight(self) -> float:
        """Sum of the weights."""
        return float(self.gram[0, 0])

    # Columns.

    def fixed_columns(self, columns: Sequence[int], fit_intercept: bool) -> FloatArray:
        """Columns of X in basis coordinates, the constant first if it is fixed: (k + 2, p).

        With an intercept they keep the shift of the basis columns, which changes the intercept
        alone; `unshifted` undoes it.
        """
        positions = np.array(columns, dtype=int) + 1
        user = np.zeros((self.n_basis, len(positions) + fit_intercept))
        user[positions, np.arange(len(positions)) + fit_intercept] = 1.0
        if fit_intercept:
            user[0, 0] = 1.0
        else:
            user[0] = self.shift[positions - 1]
        return user

    def response(self, columns: Sequence[int], fit_intercept: bool) -> FloatArray:
        """The response in basis coordinates, less what `with_taken` gives back: (k + 2,).

        Parameters
        ----------
        columns : sequence of int
            Columns of X with a fixed effect.
        fit_intercept : bool
        """
        response = np.zeros(self.n_basis)
        response[-1] = 1.0
        response[1:-1] = self._taken_beside(columns)
        if not fit_intercept:
            response[0] = self._response_constant(columns)
        return response

    def with_taken(
        self, coef: FloatArray, columns: Sequence[int], fit_intercept: bool
    ) -> FloatArray:
        """Coefficients of the response as it was, from those of `response`; see there."""
        whole = coef.copy()
        whole[int(fit_intercept) :] += self.taken[list(columns)]
        if fit_intercept:
            whole[0] += self._response_constant(columns)
        return whole

    def _taken_beside(self, columns: Sequence[int]) -> FloatArray:
        """What was taken of columns that are not these."""
        beside = self.taken.copy()
        beside[list(columns)] = 0.0
        return beside

    def _response_constant(self, columns: Sequence[int]) -> float:
        return float(self.shift[-1] + self._taken_beside(columns) @ self.shift[:-1])

    def unshifted(self, coef: FloatArray, columns: Sequence[int]) -> FloatArray:
        """Coefficients of the user's columns from those of `fixed_columns` with an intercept.

        Parameters
        ----------
        coef : ndarray of shape (1 + len(columns), ...)
            The intercept first.
        columns : sequence of int
        """
        moved = coef.copy()
        moved[0] -= self.shift[list(columns)] @ moved[1:]
        return moved

    def shifted(self, coef: FloatArray, columns: Sequence[int], fit_intercept: bool) -> FloatArray:
        """``X beta`` less what was taken from the response, in basis coordinates: (k + 2,)."""
        combination = np.zeros(self.n_basis)
        combination[[column + 1 for column in columns]] = coef[1:] if fit_intercept else coef
        combination[1:-1] -= self.taken
        intercept = coef[0] if fit_intercept else 0.0
        combination[0] = intercept + self.shift[:-1] @ combination[1:-1] - self.shift[-1]
        return combination

    def shift_squares(self, columns: Sequence[int], fit_intercept: bool) -> FloatArray:
        """Squares of what the shift took from the `fixed_columns`, shape (p,)."""
        squares = self.total_weight * self.shift[:-1][list(columns)] ** 2
        return np.append(0.0, squares) if fit_intercept else squares

    def basis_rows(self, X: NDArray[np.floating]) -> FloatArray:
        """Basis columns of any rows but for the response, unweighted: (n, k + 1)."""
        return np.column_stack([np.ones(len(X)), X - self.shift[:-1]])

    def random_columns(self, k: int, random_intercept: bool) -> FloatArray:
        """The user's random columns of factor k in z coordinates, shape (n_z, q)."""
        user = np.eye(len(self.z_columns[k]))
        user[0, 1:] = self.slope_shifts(k)
        return user[:, int(not random_intercept) :]

    def slope_shifts(self, k: int) -> FloatArray:
        """What the shift took from the random slopes of factor k."""
        return self.shift[np.array(self.z_columns[k][1:], dtype=int) - 1]

    def rows_in_basis(self, rows: CodedRows, chosen: Any) -> FloatArray:
        """Basis columns of some rows, unweighted: (n, k + 2)."""
        X = rows.X[chosen]
        basis = np.empty((len(X), self.n_basis))
        basis[:, 0] = 1.0
        basis[:, 1:-1] = X - self.shift[:-1]
        basis[:, -1] = less_columns(rows.given_response[chosen], X, self.taken, self.shift[-1])
        return basis

    def weighted_rows(self, rows: CodedRows, chosen: Any) -> FloatArray:
        """Basis columns of some rows, times the roots of their weights: (n, k + 2)."""
        basis = self.rows_in_basis(rows, chosen)
        if rows.weights is not None:
            basis *= np.sqrt(rows.weights[chosen])[:, None]
        return basis

    def z_values(self, k: int, X: NDArray[np.floating]) -> FloatArray:
        """The z columns of factor k of any rows, unweighted: (n, n_z)."""
        slopes = [column - 1 for column in self.z_columns[k][1:]]
        return np.column_stack([np.ones(len(X)), X[:, slopes] - self.shift[slopes]])

    def z_rows(self, k: int, basis: FloatArray) -> FloatArray:
        """The z columns of factor k among basis columns of shape (n, ...)."""
        return basis[:, list(self.z_columns[k])]

    # Products.

    def triangle(self, columns: FloatArray) -> FloatArray | None:
        """An upper triangle R with ``R'R = products(columns)``, if the sums have triangles."""
        if self.triangles is None:
            return None
        return np.asarray(np.linalg.qr(self.triangles.whole @ columns, mode="r"))

    def products(self, left: FloatArray, right: FloatArray | None = None) -> FloatArray:
        """Products over all rows of columns in basis coordinates."""
        if self.triangles is not None:
            whole = self.triangles.whole
            turned = whole @ left
            return turned.T @ (turned if right is None else whole @ right)
        return left.T @ (self.gram @ (left if right is None else right))

    def z_products(self, k: int) -> FloatArray:
        """Products over all rows of the z columns of factor k, shape (n_z, n_z)."""
        z = list(self.z_columns[k])
        return self.gram[np.ix_(z, z)]

    def z_level_products(self, k: int, levels: slice = slice(None)) -> FloatArray:
        """Products by level of the z columns of factor k with each other, (n_z, n_z, m)."""
        return self.grouped[k][:, list(self.z_columns[k]), levels]

    def level_rows(self, k: int, columns: FloatArray, levels: slice = slice(None)) -> FloatArray:
        """Products of the z columns of factor k with themselves and with others, by level.

        Parameters
        ----------
        k : int
        columns : ndarray of shape (k + 2, c)
            In basis coordinates.
        levels : slice
            Some of the levels.

        Returns
        -------
        products : ndarray of shape (n_z, n_z + c, m)
        """
        grouped = self.grouped[k][:, :, levels]
        n_z = len(grouped)
        rows = np.empty((n_z, n_z + columns.shape[1], grouped.shape[2]))
        rows[:, :n_z] = grouped[:, list(self.z_columns[k])]
        np.matmul(columns.T, grouped, out=rows[:, n_z:])
        return rows

    def level_products(self, k: int, left: FloatArray, right: FloatArray) -> FloatArray:
        """Products by level of columns in z and in basis coordinates, shape (q, c, m)."""
        return np.matmul(right.T, np.tensordot(left.T, self.grouped[k], 1))

    def level_squares(self, k: int, columns: FloatArray, levels: slice = slice(None)) -> FloatArray:
        """Products of columns in z coordinates with each other, by level or some: (q, q, m)."""
        turned = np.tensordot(columns.T, self.z_level_products(k, levels), 1)
        return np.matmul(columns.T, turned)

    def level_magnitudes(self, k: int, columns: FloatArray) -> FloatArray:
        """Sizes of the terms that the squares of columns in z coordinates are made of: (q, m)."""
        sizes = np.abs(columns)
        return np.einsum("za,zwm,wa->am", sizes, np.abs(self.z_level_products(k)), sizes)

    def level_triangles(self, k: int) -> LevelTriangles | None:
        """Triangles beside the levels of factor k, if there are any."""
        own = self.triangles
        return own if isinstance(own, LevelTriangles) and own.factor == k else None

    def joint_triangles(self) -> JointTriangles | None:
        """The triangle of the random columns of all factors, if there is one."""
        own = self.triangles
        all_factors = tuple(range(self.n_factors))
        return own if isinstance(own, JointTriangles) and own.factors == all_factors else None

    def of_levels(self, chosen: NDArray[np.integer]) -> Sums:
        """The level sums of some levels, of one factor; what is summed over all rows stays."""
        (levels,), (grouped,) = self.levels, self.grouped
        return replace(
            self, levels=(levels.take(chosen),), grouped=(grouped[:, :, chosen],), triangles=None
        )

    def with_level_sums(self, other: Sums, places: NDArray[np.integer]) -> Sums:
        """The same with what other sums have of the levels, of one factor.

        Parameters
        ----------
        other : Sums
            With the same shift.
        places : ndarray of shape (m,), int
            The place of every level there, -1 for one that they do not have.
        """
        ((grouped,), (others,)), shared = (self.grouped, other.grouped), places >= 0
        total = grouped.copy()
        total[:, :, shared] += others[:, :, places[shared]]
        return replace(self, grouped=(total,))

    # Pairs of factors.

    def pairs(self, k: int, other: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Levels of factor k and of another in the pairs that occur together."""
        if k < other:
            crossing = self.crossings[k, other]
            return crossing.first, crossing.second
        crossing = self.crossings[other, k]
        return crossing.second, crossing.first

    def crossed(self, k: int, other: int, left: FloatArray, right: FloatArray) -> FloatArray:
        """Products by pair of columns in z coordinates of two factors: (q_k, q_other, n_pairs)."""
        if k < other:
            return self.crossings[k, other].turned(left, right)
        return self.crossings[other, k].turned(right, left).transpose(1, 0, 2)

    def is_nested(self, inner: int, outer: int) -> bool:
        """Whether every level of one factor occurs with one level of the other."""
        return len(self.pairs(inner, outer)[0]) == self.n_levels[inner]

    def containing_level(self, inner: int, outer: int) -> NDArray[np.int32]:
        """For every level of a nested factor the level of the other that it occurs with."""
        own, theirs = self.pairs(inner, outer)
        containing = np.empty(len(own), dtype=np.int32)
        containing[own] = theirs
        return containing

    # Variances between rows.

    def variance_between_rows(self, columns: FloatArray) -> FloatArray:
        """Variances of columns in basis coordinates, with n - 1 below, shape (c,) or ()."""
        mean = self.gram[0] @ columns / self.total_weight
        centred = columns.copy()
        centred[0] -= mean
        square = np.einsum("b...,bc,c...->...", centred, self.gram, centred)
        return square / self.total_weight * self.n_rows / max(self.n_rows - 1, 1)

    def response_moments(self) -> tuple[float, float]:
        """Mean of the response and sum of squares about it."""
        response = self.raw_response()
        total, square = self.gram[0] @ response, self.products(response)
        mean = total / self.total_weight
        return float(mean), max(float(square - mean * total), 0.0)

    # Comparison with sums of the same rows.

    def random_in_basis(self, k: int, random_intercept: bool) -> FloatArray:
        """The user's random columns of factor k in basis coordinates, shape (k + 2, q)."""
        columns = self.random_columns(k, random_intercept)
        basis = np.zeros((self.n_basis, columns.shape[1]))
        basis[list(self.z_columns[k])] = columns
        return basis

    def centred(self, columns: FloatArray) -> FloatArray:
        """Columns in basis coordinates less their means."""
        moved = columns.copy()
        moved[0] -= self.gram[0] @ columns / self.total_weight
        return moved

    def raw_response(self) -> FloatArray:
        """The response as it was, in basis coordinates."""
        return self.response((), fit_intercept=False)

    def sketched(self, columns: FloatArray) -> FloatArray | None:
        """Random combinations of the rows of columns in basis coordinates, if they were kept.

        About as long as the columns.
        """
        if self.sketch is None:
            return None
        share = self.total_weight / min(max(self.n_rows, 1), SKETCHED_ROWS)
        return np.sqrt(share) * (self.sketch.columns @ columns)

    def level_combinations(self, k: int, columns: FloatArray) -> FloatArray:
        """Random combinations of the levels of factor k of columns in basis coordinates.

        Not longer than the columns, but for chance.
        """
        totals = self.grouped[k][0].T @ columns
        return np.sqrt(len(totals) / self.total_weight) * combinations_of(totals)

    def level_totals(self, k: int) -> FloatArray:
        """Weights and totals of the response by level of factor k, shape (2, m)."""
        return np.array([self.grouped[k][0, 0], self.raw_response() @ self.grouped[k][0]])

    def has_same_levels(self, k: int, other: Sums, place: int) -> bool:
        """Whether a factor has the levels that a factor of other sums has, in the same order."""
        return bool(self.levels[k].equals(other.levels[place]))

    def partition(self, k: int) -> float:
        """A fingerprint of how factor k divides the rows, NaN if none was kept; see `sketch`."""
        return np.nan if self.sketch is None else self.sketch.partitions[k]

    # Sums of other models for the same rows.

    def of_factors(self, chosen: Sequence[int]) -> Sums:
        """The sums of some of the factors."""
        if len(chosen) == self.n_factors:
            return self
        pairs = combinations(range(len(chosen)), 2)
        return replace(
            self,
            levels=tuple(self.levels[k] for k in chosen),
            z_columns=tuple(self.z_columns[k] for k in chosen),
            grouped=tuple(self.grouped[k] for k in chosen),
            crossings={(i, j): self.crossings[chosen[i], chosen[j]] for i, j in pairs},
            triangles=None if self.triangles is None else self.triangles.among(list(chosen)),
            sketch=None if self.sketch is None else self.sketch.of_factors(chosen),
        )

    def with_slopes(self, k: int, slopes: Sequence[int]) -> Sums:
        """The sums of a model in which factor k has some of its random slopes."""
        # The constant stays among the z columns: it undoes the shift.
        z = [0, *(slope + 1 for slope in slopes)]
        grouped, z_columns = list(self.grouped), list(self.z_columns)
        grouped[k], z_columns[k] = grouped[k][z], tuple(z_columns[k][column] for column in z)
        crossings = dict(self.crossings)
        for (i, j), crossing in self.crossings.items():
            if i == k:
                crossings[i, j] = crossing.restricted(z, slice(None))
            elif j == k:
                crossings[i, j] = crossing.restricted(slice(None), z)
        return replace(
            self,
            grouped=tuple(grouped),
            z_columns=tuple(z_columns),
            crossings=crossings,
            triangles=None,
        )

    def less_constant(self, value: float) -> Sums:
        """The sums for the response less a constant."""
        shift = self.shift.copy()
        shift[-1] -= value
        return replace(self, shift=shift)

    def less_column(self, column: int, value: float) -> Sums:
        """The sums for the response less a multiple of a column of X."""
        taken = self.taken.copy()
        taken[column] -= value
        return replace(self, taken=taken)

    def of_residuals(self, coef: FloatArray, columns: Sequence[int], kept: Sequence[int]) -> Sums:
        """The sums for the response less ``X beta`` and some columns of X.

        Nothing is taken from the residuals: they are the last of the basis columns.

        Parameters
        ----------
        coef : ndarray of shape (1 + len(columns),)
            The intercept first.
        columns : sequence of int
            The columns that the other coefficients belong to.
        kept : sequence of int
            All columns with random slopes, in their order.
        """
        taken = np.zeros(self.n_basis - 2)
        taken[list(columns)] = coef[1:]
        moved = self._with_shift(np.append(self.shift[:-1], coef[0]), taken)
        basis = [0, *(column + 1 for column in kept), self.n_basis - 1]
        number = {column: place for place, column in enumerate(basis)}
        return replace(
            moved,
            shift=np.append(self.shift[list(kept)], 0.0),
            taken=np.zeros(len(kept)),
            gram=moved.gram[np.ix_(basis, basis)],
            z_columns=tuple(tuple(number[column] for column in z) for z in self.z_columns),
            grouped=tuple(np.ascontiguousarray(own[:, basis]) for own in moved.grouped),
            triangles=None,
            sketch=None,
        )

    # Addition.

    def __add__(self, other: Sums) -> Sums:
        """The sums of the rows of both; levels are sorted, categories too, where they can be.

        Raises
        ------
        ValueError
            If they are not sums of the same columns.
        """
        if (self.z_columns, self.n_basis) != (other.z_columns, other.n_basis):
            raise ValueError(
                f"Sums of {self.n_basis - 2} columns with random effects {self.z_columns} cannot "
                f"be added to sums of {other.n_basis - 2} columns with {other.z_columns}."
            )
        taken = self.taken if self.n_rows else other.taken
        shift = self._common_shift(other)
        first, second = self._with_shift(shift, taken), other._with_shift(shift, taken)
        merged = [merge_levels(*own) for own in zip(self.levels, other.levels, strict=True)]
        places = [(own, theirs) for own, theirs, _ in merged]
        levels = tuple(both for _, _, both in merged)
        grouped = []
        for own, theirs, both, place in zip(
            first.grouped, second.grouped, levels, places, strict=True
        ):
            # What belongs to a level lies side by side, as in `add_up`.
            total = np.zeros((len(own), len(both), own.shape[1]))
            total[:, place[0]] = own.transpose(0, 2, 1)
            total[:, place[1]] += theirs.transpose(0, 2, 1)
            grouped.append(total.transpose(0, 2, 1))
        return replace(
            first,
            n_rows=self.n_rows + other.n_rows,
            sum_log_weights=self.sum_log_weights + other.sum_log_weights,
            response_square=self.response_square + other.response_square,
            levels=levels,
            gram=first.gram + second.gram,
            grouped=tuple(grouped),
            crossings={
                (i, j): merge_crossings(
                    (crossing, second.crossings[i, j]), places[i], places[j], len(levels[j])
                )
                for (i, j), crossing in first.crossings.items()
            },
            triangles=None,
            sketch=None,
        )

    def _common_shift(self, other: Sums) -> FloatArray:
        """The shift of both where they have one; else the mean of all rows, which keeps most."""
        if np.array_equal(self.shift, other.shift) or not other.n_rows:
            return self.shift
        if not self.n_rows:
            return other.shift
        if self.is_reduced or other.is_reduced:
            return self.shift
        weight = self.total_weight + other.total_weight
        means = (
            own.shift * (own.total_weight / weight) + own.gram[0, 1:] / weight
            for own in (self, other)
        )
        return sum(means, start=np.zeros(len(self.shift)))

    def _with_shift(self, shift: FloatArray, taken: FloatArray) -> Sums:
        """The same sums with other things taken: ``b T`` for b.

        T adds multiples of the constant, to the response those of the columns as well.
        """
        if np.array_equal(shift, self.shift) and np.array_equal(taken, self.taken):
            return self
        turn = np.eye(self.n_basis)
        turn[0, 1:] = self.shift - shift
        turn[1:-1, -1] = self.taken - taken
        turn[0, -1] += self.shift[:-1] @ turn[1:-1, -1]
        z_turns = [turn[np.ix_(z, z)] for z in self.z_columns]
        return replace(
            self,
            shift=shift,
            taken=taken,
            gram=self.products(turn),
            grouped=tuple(
                np.matmul(turn.T, np.einsum("za,zbm->abm", z_turn, own))
                for z_turn, own in zip(z_turns, self.grouped, strict=True)
            ),
            crossings={
                (i, j): replace(crossing, products=crossing.turned(z_turns[i], z_turns[j]))
                for (i, j), crossing in self.crossings.items()
            },
            triangles=None,
        )


def sum_rows(
    X: NDArray[np.floating],
    y: FloatArray,
    codes: Sequence[NDArray[np.integer]],
    levels: Sequence[pd.Index],
    slopes: Sequence[tuple[int, ...]],
    weights: FloatArray | None = None,
    *,
    chunk_rows: int | None = None,
    shift: FloatArray | None = None,
    taken: FloatArray | None = None,
) -> Sums:
    """Sum up rows whose levels are known by number.

    Parameters
    ----------
    X : ndarray of shape (n, k)
        Numeric columns, fixed or random.
    y : ndarray of shape (n,)
        Response.
    codes : sequence of ndarray of shape (n,), int
        For every factor, the level of each row, 0 to m - 1.
    levels : sequence of pandas.Index of length m
        For every factor, its levels.
    slopes : sequence of tuple of int
        For every factor, the columns of X with a random slope.
    weights : ndarray of shape (n,), optional
        Positive precision weights.
    chunk_rows : int, optional
        Rows per chunk; by default what keeps memory low and the cache warm.
    shift : ndarray of shape (k + 1,), optional
        What to take from the columns and the response; by default pilot means.
    taken : ndarray of shape (k + 1,), optional
        Constant and multiples of the columns to take from the response, whatever ``shift`` says of
        it.

    Raises
    ------
    ValueError
        If a value is not finite, or its square overflows.
    """
    z_columns = tuple((0, *(column + 1 for column in columns)) for columns in slopes)
    n_levels = [len(own) for own in levels]
    # Values that are not finite are told from the sums, once and for all.
    with np.errstate(over="ignore", invalid="ignore"):
        if shift is None:
            shift = pilot_means(X, y, weights)
        multiples = np.zeros(X.shape[1])
        if taken is not None:
            multiples = taken[1:]
            shift = np.append(shift[:-1], taken[0])
        response, own_shift = less_taken(X, y, multiples, shift)
        totals = add_up(X, response, codes, n_levels, z_columns, weights, own_shift, chunk_rows)
        check_squares(totals.gram)
        crossings = {
            (i, j): cross(
                X,
                shift,
                weights,
                (codes[i], codes[j]),
                (n_levels[i], n_levels[j]),
                (slopes[i], slopes[j]),
            )
            for i, j in combinations(range(len(codes)), 2)
        }
    return Sums(
        n_rows=len(X),
        sum_log_weights=0.0 if weights is None else float(np.log(weights).sum()),
        levels=tuple(levels),
        shift=shift,
        taken=multiples,
        response_square=float(y @ (y if weights is None else weights * y)),
        gram=totals.gram,
        z_columns=z_columns,
        grouped=totals.grouped,
        crossings=crossings,
        is_reduced=taken is not None,
    )
