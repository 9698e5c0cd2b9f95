"""Structures that are a pattern of zeros in D: what full, diagonal and masked ones share.

A pattern of zeros in D survives the Cholesky factorisation if the effects are taken in a perfect
elimination order of the pattern's graph, so a pattern needs no constraint: only its entries of
Lambda exist. Such an order exists exactly when the graph is chordal (Rose 1970). Theta holds these
entries column by column, as in lme4.

Where D has covariances the engines take all q^2 entries of Lambda, row by row, and the optimiser
chooses at every step the order of the rows in which Lambda is triangular (`charts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.algebra import lifted, semidefinite_cholesky, triangular_root
from mixedlearn.covariance.charts import Chart, simplicial, triangular_chart, triangular_charts
from mixedlearn.covariance.structures.base import BasisChanges, Settlement, Structure

FloatArray = NDArray[np.float64]


class Pattern(Structure):
    """A pattern of zeros in D.

    Parameters
    ----------
    mask : ndarray of shape (q, q), bool
        The entries of D that may differ from zero.
    order : ndarray of shape (q,), int
        The order of the effects in which Lambda is lower triangular.

    Attributes
    ----------
    parameter : ndarray of shape (q, q), int
        Index into theta of each entry of Lambda; -1 where the entry is zero.
    order : ndarray of shape (q,), int
    """

    is_linear = True

    def __init__(self, mask: NDArray[np.bool_], order: NDArray[np.int64]):
        super().__init__(len(mask))
        self._mask = mask
        self.order = order
        self.parameter = _parameters_by_column(mask, order)
        self._n_parameters = int(self.parameter.max(initial=-1)) + 1

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The entries of D that may differ from zero, shape (q, q)."""
        return self._mask

    @property
    def n_parameters(self) -> int:
        """Number of entries of theta."""
        return self._n_parameters

    def root(self, theta: FloatArray) -> FloatArray:
        """Lambda, shape (..., q, q)."""
        padded = np.concatenate([theta, np.zeros((*theta.shape[:-1], 1))], axis=-1)
        return padded[..., self.parameter]

    @cached_property
    def _directions(self) -> FloatArray:
        indices = np.arange(self.n_parameters)[:, None, None]
        return (self.parameter == indices).astype(float)

    def directions(self, theta: FloatArray) -> FloatArray:
        """Derivatives of Lambda by each parameter, shape (n_parameters, q, q)."""
        return self._directions

    def theta_of(self, covariance: FloatArray) -> FloatArray:
        """Theta of a positive semi-definite D; a zero pivot gives a zero column of Lambda."""
        ordered = covariance[self.order[:, None], self.order]
        root = np.empty_like(ordered)
        root[self.order[:, None], self.order] = semidefinite_cholesky(ordered)
        return self._theta_of_triangle(root)

    def _theta_of_triangle(self, root: FloatArray) -> FloatArray:
        """Theta of a Lambda of this pattern; its columns are given positive diagonals."""
        signs = np.where(np.diag(root) < 0.0, -1.0, 1.0)
        theta = np.zeros(self.n_parameters)
        free = self.parameter >= 0
        theta[self.parameter[free]] = (root * signs)[free]
        return theta

    def project(self, covariance: FloatArray, floor: float = 0.0) -> FloatArray:
        """A positive semi-definite D with these zeros near a symmetric matrix."""
        covariance = np.where(self.mask, lifted(covariance, floor), 0.0)
        if not self.has_full_blocks and np.linalg.eigvalsh(covariance)[0] < 0.0:
            return np.diag(np.diag(covariance))
        return covariance

    @cached_property
    def has_full_blocks(self) -> bool:
        """Whether D is block-diagonal with full blocks."""
        return bool(np.array_equal(self.mask, (self.mask.astype(int) @ self.mask) > 0))

    def em_update(
        self, covariance: FloatArray, gradient: FloatArray, n_levels: int
    ) -> FloatArray | None:
        """The EM step of every block."""
        if not self.has_full_blocks:
            return None
        return self.project(covariance - covariance @ gradient @ covariance / n_levels)

    def span(self) -> FloatArray:
        """The symmetric matrices of the pattern, one for each free entry of D."""
        pairs = [(i, j) for i in range(self.n_effects) for j in range(i, self.n_effects)]
        pairs = [(i, j) for i, j in pairs if self.mask[i, j]]
        found = np.zeros((len(pairs), self.n_effects, self.n_effects))
        for number, (i, j) in enumerate(pairs):
            found[number, i, j] = found[number, j, i] = 1.0
        return found

    def tangent(self, theta: FloatArray) -> FloatArray:
        """Wherever D is, it may move along every free entry."""
        return self.span()

    @cached_property
    def basis_changes(self) -> BasisChanges:
        """Every change within full blocks; else a scale for each effect and some shifts."""
        absorbs = np.zeros(self.n_effects, bool)
        if self.has_full_blocks:
            return BasisChanges(tuple(self.blocks()), True, absorbs, False)
        # A slope may take up the shift if the intercept has every covariance that it has.
        absorbs[1:] = ~(self.mask & ~self.mask[0]).any(axis=1)[1:]
        return BasisChanges(None, True, absorbs, False)

    def blocks(self) -> list[NDArray[np.intp]]:
        """Sets of effects that have no covariances with each other."""
        if not self.has_full_blocks:
            return super().blocks()
        rows = enumerate(self.mask)
        return [np.flatnonzero(row) for effect, row in rows if not row[:effect].any()]

    def in_engine(self, kept: NDArray[np.intp]) -> Structure:
        """All entries of Lambda, whatever the pattern."""
        if len(kept) == self.n_effects:
            return self._with_all_effects
        return Unrestricted(self.mask[kept[:, None], kept])

    @cached_property
    def _with_all_effects(self) -> Structure:
        return Unrestricted(self.mask)

    def settlements(self, theta: FloatArray) -> list[Settlement]:
        """Every column of Lambda at zero."""
        found = []
        for column in self.parameter.T:
            entries = column[column >= 0]
            size = float(np.linalg.norm(theta[entries]))
            found.append(Settlement(size, entries, np.zeros(len(entries))))
        return found


class Unrestricted(Pattern):
    """A Lambda with all q^2 entries, row by row, whatever the pattern of D.

    Parameters
    ----------
    mask : ndarray of shape (q, q), bool
    """

    def __init__(self, mask: NDArray[np.bool_]):
        Structure.__init__(self, len(mask))
        q = len(mask)
        self._mask = mask
        self.order = np.arange(q)
        self.parameter = np.arange(q**2).reshape(q, q)

    @property
    def n_parameters(self) -> int:
        """Number of entries of theta."""
        return self.n_effects**2

    def root(self, theta: FloatArray) -> FloatArray:
        """Lambda, shape (..., q, q)."""
        return theta.reshape(*theta.shape[:-1], self.n_effects, self.n_effects)

    def theta_of_root(self, root: FloatArray) -> FloatArray:
        """Theta of ``root root'``: the root itself, if it is a square."""
        square = root if root.shape[0] == root.shape[1] else triangular_root(root)
        return square.flatten()

    def chart(self, theta: FloatArray) -> Chart | None:
        """Lambda rotated into a triangle."""
        if self.n_effects == 1:
            return None
        root = self.root(theta)
        rotation, free = triangular_chart(root, self.mask)
        if rotation is not None:
            theta = np.where(free, root @ rotation, 0.0).ravel()
        return Chart(theta, free.ravel())

    def charts(self, theta: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
        """Many Lambdas, each rotated into a triangle of its own."""
        return triangular_charts(self.root(theta)) if self.mask.all() else super().charts(theta)


def elimination_order(mask: NDArray[np.bool_], effects: Sequence[str]) -> NDArray[np.int64]:
    """Order in which each effect's remaining neighbours are all neighbours of each other.

    Raises
    ------
    ValueError
        If there is none; the message names the effects.
    """
    remaining = list(range(len(mask)))
    order = []
    while remaining:
        allowed = simplicial(remaining, mask)
        if not allowed:
            names = ", ".join(repr(effects[i]) for i in remaining)
            raise ValueError(
                f"The zeros of the covariance mask cannot all be kept: the effects {names} form a "
                "cycle of four or more covariances. Free one more covariance across the cycle, or "
                "take one of the cycle out."
            )
        order.append(allowed[0])
        remaining.remove(allowed[0])
    return np.array(order, dtype=np.int64)


def _parameters_by_column(mask: NDArray[np.bool_], order: NDArray[np.int64]) -> NDArray[np.int64]:
    q = len(mask)
    parameter = np.full((q, q), -1)
    count = 0
    for j in range(q):
        for i in range(j, q):
            if mask[order[i], order[j]]:
                parameter[order[i], order[j]] = count
                count += 1
    return parameter
