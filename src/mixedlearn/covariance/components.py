"""Variance components: the covariance structures of all factors, and one theta for them all.

Theta of a model is that of its factors in turn. With ``D_k = Lambda_k Lambda_k'`` the objective is
a function of the D_k alone, so its derivatives by theta follow from those by D:

    df/dtheta_a = tr(G_k dD_k/dtheta_a),    dD = E Lambda' + Lambda E',    E = dLambda/dtheta_a

and the second derivatives have the second-order term ``2 tr(G_k E_a E_b')`` besides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.structures import CovarianceStructure

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class VarianceComponents:
    """The structures of the factors of a model, in their order.

    Attributes
    ----------
    structures : tuple of CovarianceStructure
    slices : tuple of slice
        Where theta holds the entries of each factor.
    """

    structures: tuple[CovarianceStructure, ...]
    slices: tuple[slice, ...] = field(init=False)

    def __post_init__(self) -> None:
        sizes = (structure.n_parameters for structure in self.structures)
        slices = tuple(slice(*pair) for pair in pairwise(accumulate(sizes, initial=0)))
        object.__setattr__(self, "slices", slices)

    @property
    def n_parameters(self) -> int:
        """Number of entries of theta."""
        return self.slices[-1].stop if self.slices else 0

    @property
    def has_full_blocks(self) -> bool:
        """Whether the EM update of every factor has a closed form."""
        return all(structure.has_full_blocks for structure in self.structures)

    def factors_from_theta(self, theta: FloatArray) -> tuple[FloatArray, ...]:
        """Lambda of every factor, shapes (..., q_k, q_k) for theta of shape (..., n_parameters)."""
        return tuple(
            structure.lambda_from_theta(theta[..., own])
            for structure, own in zip(self.structures, self.slices, strict=True)
        )

    def theta_from_factors(self, factors: Iterable[FloatArray]) -> FloatArray:
        """Theta of Lambdas that have their structures."""
        return self._joined(
            structure.theta_from_lambda(factor)
            for structure, factor in zip(self.structures, factors, strict=True)
        )

    def theta_from_covariances(self, covariances: Iterable[FloatArray]) -> FloatArray:
        """Theta of positive semi-definite D."""
        return self._joined(
            structure.theta_from_covariance(covariance)
            for structure, covariance in zip(self.structures, covariances, strict=True)
        )

    def _joined(self, parts: Iterable[FloatArray]) -> FloatArray:
        return np.concatenate([np.empty(0), *parts])

    def directions(self) -> list[FloatArray]:
        """Derivatives of every Lambda by its own parameters, shapes (n_k, q_k, q_k)."""
        return [structure.directions() for structure in self.structures]


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
) -> FloatArray:
    """Second derivative of the objective by theta, shape (..., n_parameters, n_parameters).

    Parameters
    ----------
    directions, roots, gradients
        As for `theta_gradient`.
    second : ndarray of shape (..., sum q_k^2, sum q_k^2)
        Second derivative by the entries of the D_k, row by row; only symmetric directions count.
    """
    changes, curvatures = [], []
    for direction, root, gradient in zip(directions, roots, gradients, strict=True):
        one_sided = direction @ root.swapaxes(-1, -2)[..., None, :, :]
        changes.append(_rows(one_sided + one_sided.swapaxes(-1, -2)))
        turned = _rows(gradient[..., None, :, :] @ direction)
        curvatures.append(2.0 * turned @ _rows(direction).T)
    change = _block_diagonal(changes)
    hessian = change @ second @ change.swapaxes(-1, -2) + _block_diagonal(curvatures)
    return (hessian + hessian.swapaxes(-1, -2)) / 2.0


def _rows(matrices: FloatArray) -> FloatArray:
    """Matrices of shape (..., q, q) row by row, shape (..., q q)."""
    return matrices.reshape(*matrices.shape[:-2], matrices.shape[-1] ** 2)


def _block_diagonal(blocks: Sequence[FloatArray]) -> FloatArray:
    """Blocks of shape (..., a_k, b_k) as one matrix, shape (..., sum a_k, sum b_k)."""
    if len(blocks) == 1:
        return blocks[0]
    n_rows, n_columns = (sum(block.shape[axis] for block in blocks) for axis in (-2, -1))
    result = np.zeros((*blocks[0].shape[:-2], n_rows, n_columns))
    row = column = 0
    for block in blocks:
        rows, columns = slice(row, row + block.shape[-2]), slice(column, column + block.shape[-1])
        result[..., rows, columns] = block
        row, column = rows.stop, columns.stop
    return result
