"""Sums without squares: triangles ``T`` with ``T'T`` the products of all rows.

A sum of squares loses twice as many digits as what is squared has to spare: columns that differ by
a millionth of their size, or rows whose weights differ by a factor of a trillion, are told apart by
its last digits or not at all. A triangle, from orthogonal factorisations of the rows themselves, is
as exact as the rows are. It takes a second pass over the rows, and longer than sums do.

What the random columns leave of all others is a triangle of its own, so that it need not be the
small difference of two large sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.cancellation import less_columns

if TYPE_CHECKING:
    from mixedlearn.data.sums import Sums

FloatArray = NDArray[np.float64]
BasisChunks = Iterable[tuple[FloatArray, Sequence[NDArray[np.integer]]]]


@dataclass(frozen=True, slots=True)
class LevelTriangles:
    """Triangles beside the levels of one factor.

    Attributes
    ----------
    whole : ndarray of shape (r, k + 2)
        Of the basis columns.
    left : ndarray of shape (r, k + 2)
        Of what random columns leave, ``b_r - A_i'z_r`` for every row r, with i its level.
    factor : int
    effects : ndarray of shape (n_z, k + 2, m)
        A: any coefficients that make it small.
    """

    whole: FloatArray
    left: FloatArray
    factor: int
    effects: FloatArray

    def __add__(self, other: LevelTriangles) -> LevelTriangles:
        """The triangles of the rows of both, which are beside the same effects."""
        whole, left = _triangle(self.whole, other.whole), _triangle(self.left, other.left)
        return replace(self, whole=whole, left=left)

    def among(self, chosen: list[int]) -> LevelTriangles | None:
        """The same where only these factors are left."""
        if self.factor not in chosen:
            return None
        return replace(self, factor=chosen.index(self.factor))


@dataclass(frozen=True, slots=True)
class JointTriangles:
    """The triangle of the random columns of several factors together, and of all others beside.

    Attributes
    ----------
    whole : ndarray of shape (r, k + 2)
        Of the basis columns.
    left : ndarray of shape (r, k + 2)
        Of what lies outside the span of the random columns.
    factors : tuple of int
    spanned : ndarray of shape (r, sum of q m)
        The random columns, factor by factor, effect by effect, level by level.
    inside : ndarray of shape (r, k + 2)
        The basis columns in the same rows.
    """

    whole: FloatArray
    left: FloatArray
    factors: tuple[int, ...]
    spanned: FloatArray
    inside: FloatArray

    @classmethod
    def of(cls, both: FloatArray, n_basis: int, factors: tuple[int, ...]) -> JointTriangles:
        """The parts of a triangle of all random columns and, at its end, the basis columns."""
        n_effects = both.shape[1] - n_basis
        beside = both[:, n_effects:]
        return cls(
            whole=np.asarray(np.linalg.qr(beside, mode="r")),
            left=beside[n_effects:],
            factors=factors,
            spanned=both[:n_effects, :n_effects],
            inside=beside[:n_effects],
        )

    def __add__(self, other: JointTriangles) -> JointTriangles:
        """The triangle of the rows of both."""
        both = _triangle(self._both(), other._both())
        return JointTriangles.of(both, self.whole.shape[1], self.factors)

    def _both(self) -> FloatArray:
        left = np.pad(self.left, ((0, 0), (self.spanned.shape[1], 0)))
        return np.vstack([np.hstack([self.spanned, self.inside]), left])

    def among(self, chosen: list[int]) -> JointTriangles | None:
        """The same where only these factors are left."""
        if not set(self.factors) <= set(chosen):
            return None
        return replace(self, factors=tuple(chosen.index(k) for k in self.factors))


def level_triangles(sums: Sums, chunks: BasisChunks, k: int, effects: FloatArray) -> LevelTriangles:
    """Triangles of rows beside the levels of factor k, from one pass.

    Parameters
    ----------
    sums : Sums
        Of these rows.
    chunks : iterable of (ndarray of shape (n, k + 2), sequence of ndarray of shape (n,), int)
        The rows: basis columns times the roots of weights, and the levels of every factor.
    k : int
    effects : ndarray of shape (n_z, k + 2, m)
    """
    whole = left = np.empty((0, sums.n_basis))
    for basis, codes in chunks:
        z = sums.z_rows(k, basis)
        own = effects[:, :, codes[k]]
        rest = basis - np.einsum("nz,zbn->nb", z, own)
        rest[:, -1] = less_columns(basis[:, -1], z, own[:, -1], 0.0)
        whole = _triangle(whole, basis)
        left = _triangle(left, rest)
    return LevelTriangles(whole, left, k, effects)


def joint_triangles(
    sums: Sums, chunks: BasisChunks, factors: tuple[int, ...], columns: tuple[FloatArray, ...]
) -> JointTriangles:
    """The triangle of rows with the random columns of several factors, from one pass.

    Parameters
    ----------
    sums : Sums
        Of these rows.
    chunks : iterable
        The rows; see `level_triangles`.
    factors : tuple of int
    columns : tuple of ndarray of shape (n_z, q)
        Their random columns in z coordinates.
    """
    shapes = [(own.shape[1], sums.n_levels[k]) for k, own in zip(factors, columns, strict=True)]
    n_effects = sum(q * m for q, m in shapes)
    both = np.empty((0, n_effects + sums.n_basis))
    for basis, codes in chunks:
        wide = np.zeros((len(basis), both.shape[1]))
        wide[:, n_effects:] = basis
        start, number = 0, np.arange(len(basis))
        for k, own, (q, m) in zip(factors, columns, shapes, strict=True):
            values = sums.z_rows(k, basis) @ own
            for effect in range(q):
                wide[number, start + effect * m + codes[k]] = values[:, effect]
            start += q * m
        both = _triangle(both, wide)
    return JointTriangles.of(both, sums.n_basis, factors)


def _triangle(triangle: FloatArray, rows: FloatArray) -> FloatArray:
    """The triangle of what another stands for and of further rows."""
    return np.asarray(np.linalg.qr(np.vstack([triangle, rows]), mode="r"))
