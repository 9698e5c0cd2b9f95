"""Variance components: the covariance structures of all factors, and one theta for them all.

Theta of a model is that of its factors in turn. With ``D_k = Lambda_k Lambda_k'`` the objective is
a function of the D_k alone, so its derivatives by theta follow from those by D:

    df/dtheta_a = tr(G_k dD_k/dtheta_a),    dD = E Lambda' + Lambda E',    E = dLambda/dtheta_a

and the second derivatives have the terms ``2 tr(G_k E_a E_b')`` and, where Lambda is not linear in
theta, ``2 tr(G_k Lambda_ab Lambda')`` besides, with ``Lambda_ab`` its second derivatives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.structures import Structure

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class VarianceComponents:
    """The structures of the factors of a model, in their order.

    Attributes
    ----------
    structures : tuple of Structure
    slices : tuple of slice
        Where theta holds the entries of each factor.
    """

    structures: tuple[Structure, ...]
    slices: tuple[slice, ...] = field(init=False)

    def __post_init__(self) -> None:
        sizes = (structure.n_parameters for structure in self.structures)
        slices = tuple(slice(*pair) for pair in pairwise(accumulate(sizes, initial=0)))
        object.__setattr__(self, "slices", slices)

    @property
    def n_parameters(self) -> int:
        """Number of entries of theta."""
        return self.slices[-1].stop if self.slices else 0

    def roots(self, theta: FloatArray) -> tuple[FloatArray, ...]:
        """Lambda of every factor, shapes (..., q_k, q_k) for theta of shape (..., n_parameters)."""
        return tuple(
            structure.root(theta[..., own])
            for structure, own in zip(self.structures, self.slices, strict=True)
        )

    def theta_of_roots(self, roots: Iterable[FloatArray]) -> FloatArray:
        """Theta of roots of D_k that have these structures."""
        return self._joined(
            structure.theta_of_root(root)
            for structure, root in zip(self.structures, roots, strict=True)
        )

    def theta_of(self, covariances: Iterable[FloatArray]) -> FloatArray:
        """Theta of positive semi-definite D_k."""
        return self._joined(
            structure.theta_of(covariance)
            for structure, covariance in zip(self.structures, covariances, strict=True)
        )

    def _joined(self, parts: Iterable[FloatArray]) -> FloatArray:
        return np.concatenate([np.empty(0), *parts])

    def charted(self, theta: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
        """Theta in the charts of its structures, and the entries that are free there.

        Of several thetas, (n, n_parameters), each has a chart of its own, and there is one factor.
        """
        if theta.ndim > 1:
            (structure,) = self.structures
            return structure.charts(theta)
        free = None
        for structure, own in zip(self.structures, self.slices, strict=True):
            chart = structure.chart(theta[own])
            if chart is not None:
                if free is None:
                    theta, free = theta.copy(), np.ones(len(theta), bool)
                theta[own], free[own] = chart.theta, chart.free
        return theta, np.arange(len(theta)) if free is None else np.flatnonzero(free)

    def directions(self, theta: FloatArray) -> list[FloatArray]:
        """Derivatives of every Lambda by its own parameters, shapes (n_k, q_k, q_k)."""
        return [
            structure.directions(theta[..., own])
            for structure, own in zip(self.structures, self.slices, strict=True)
        ]

    def curvatures(self, theta: FloatArray) -> list[FloatArray | None]:
        """Second derivatives of every Lambda, (n_k, n_k, q_k, q_k); None where it is linear."""
        return [
            structure.curvature(theta[..., own])
            for structure, own in zip(self.structures, self.slices, strict=True)
        ]


def covariance_directions(components: VarianceComponents, theta: FloatArray) -> list[FloatArray]:
    """Derivatives of every D by all entries of theta, shapes (n_parameters, q_k, q_k)."""
    found = []
    for root, direction, own in zip(
        components.roots(theta), components.directions(theta), components.slices, strict=True
    ):
        change = np.zeros((len(theta), *root.shape))
        one_sided = direction @ root.T
        change[own] = one_sided + one_sided.transpose(0, 2, 1)
        found.append(change)
    return found


def theta_gradient(
    directions: Sequence[FloatArray],
    roots: Sequence[FloatArray],
    gradients: Sequence[FloatArray],
) -> FloatArray:
    """Derivative of the objective by theta, shape (..., n_parameters).

    Parameters
    ----------
    directions : sequence of ndarray of shape (n_k, q_k, q_k)
        See `VarianceComponents.directions`.
    roots : sequence of ndarray of shape (..., q_k, q_k)
        Lambda of every factor.
    gradients : sequence of ndarray of shape (..., q_k, q_k)
        G, the derivative by D, of every factor.
    """
    parts = [
        _rows(2.0 * gradient @ root) @ _rows(direction).T
        for direction, root, gradient in zip(directions, roots, gradients, strict=True)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def theta_hessian(
    directions: Sequence[FloatArray],
    roots: Sequence[FloatArray],
    gradients: Sequence[FloatArray],
    second: FloatArray,
    curvatures: Sequence[FloatArray | None],
) -> FloatArray:
    """Second derivative of the objective by theta, shape (..., n_parameters, n_parameters).

    Parameters
    ----------
    directions, roots, gradients
        As for `theta_gradient`.
    second : ndarray of shape (..., sum q_k^2, sum q_k^2)
        Second derivative by the entries of the D_k, row by row; only symmetric directions count.
    curvatures : sequence of ndarray of shape (n_k, n_k, q_k, q_k), or None
        See `VarianceComponents.curvatures`.
    """
    changes, added = [], []
    for direction, root, gradient, curvature in zip(
        directions, roots, gradients, curvatures, strict=True
    ):
        one_sided = direction @ root.swapaxes(-1, -2)[..., None, :, :]
        changes.append(_rows(one_sided + one_sided.swapaxes(-1, -2)))
        turned = _rows(gradient[..., None, :, :] @ direction)
        term = 2.0 * turned @ _rows(direction).T
        if curvature is not None:
            term += np.einsum("abij,...ij->...ab", curvature, 2.0 * gradient @ root)
        added.append(term)
    change = _block_diagonal(changes)
    hessian = change @ second @ change.swapaxes(-1, -2) + _block_diagonal(added)
    return (hessian + hessian.swapaxes(-1, -2)) / 2.0


def _rows(matrices: FloatArray) -> FloatArray:
    """Matrices of shape (..., q, q) row by row, shape (..., q q)."""
    return matrices.reshape(*matrices.shape[:-2], matrices.shape[-1] ** 2)


def _block_diagonal(blocks: Sequence[FloatArray]) -> FloatArray:
    """Blocks of shape (..., a_k, b_k) as one matrix, shape (..., sum a_k, sum b_k)."""
    if len(blocks) == 1:
        return blocks[0]
    n_rows = sum([block.shape[-2] for block in blocks])
    n_columns = sum([block.shape[-1] for block in blocks])
    result = np.zeros((*blocks[0].shape[:-2], n_rows, n_columns))
    row = column = 0
    for block in blocks:
        rows, columns = slice(row, row + block.shape[-2]), slice(column, column + block.shape[-1])
        result[..., rows, columns] = block
        row, column = rows.stop, columns.stop
    return result
