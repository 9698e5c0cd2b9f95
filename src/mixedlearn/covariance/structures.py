"""Covariance structures: the maps between theta, Lambda and D.

Notation
--------
``D = Lambda Lambda'`` is the (q, q) covariance of the effects of one level, relative to the noise
variance. ``theta`` holds the free entries of ``Lambda``, column by column, as in lme4 (an
unrestricted structure: all q^2 entries, row by row). Because D
depends on Lambda only through the product, the objective is smooth in theta through zero and needs
no bounds (Bates et al. 2015, section 2.2; Pinheiro & Bates 1996).

A structure is a choice of which entries of Lambda are free. Where D has covariances the
engines take all q^2 entries of Lambda, and the optimiser chooses at every step the order of the
rows in which Lambda is triangular (`triangular_chart`). A pattern of zeros in D survives the
Cholesky factorisation if the effects are taken in a perfect elimination order of the pattern's
graph, so a mask needs no constraint: only its entries of Lambda exist. Such an order exists exactly
when the graph is chordal (Rose 1970).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# A pivot below this share of its own diagonal entry is rounding error of a singular matrix.
PIVOT_TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class CovarianceStructure:
    """Which entries of Lambda are free.

    Attributes
    ----------
    kind : str
        "full", "diagonal", "scalar", "mask", or "unrestricted": with a Lambda that need not be
        triangular, whatever the mask.
    parameter : ndarray of shape (q, q), int
        Index into theta of each entry of Lambda; -1 where the entry is zero.
    order : ndarray of shape (q,), int
        The order of the effects in which Lambda is lower triangular.
    mask : ndarray of shape (q, q), bool
        The entries of D that may differ from zero.
    """

    kind: str
    parameter: NDArray[np.int64]
    order: NDArray[np.int64]
    mask: NDArray[np.bool_]

    @property
    def n_effects(self) -> int:
        """Number of effects per level, q."""
        return len(self.order)

    @property
    def n_parameters(self) -> int:
        """Number of entries of theta."""
        return int(self.parameter.max(initial=-1)) + 1

    @property
    def has_full_blocks(self) -> bool:
        """Whether D is block-diagonal with full blocks; the EM update has a closed form then."""
        return bool(np.array_equal(self.mask, (self.mask.astype(int) @ self.mask) > 0))

    def blocks(self) -> list[NDArray[np.intp]]:
        """Blocks of effects with free covariances, where D is block-diagonal with full blocks."""
        found: list[NDArray[np.intp]] = []
        for effect in range(self.n_effects):
            if not any(effect in block for block in found):
                found.append(np.flatnonzero(self.mask[effect]))
        return found

    def directions(self) -> FloatArray:
        """Derivatives of Lambda by each parameter, shape (n_parameters, q, q)."""
        indices = np.arange(self.n_parameters)[:, None, None]
        return (self.parameter == indices).astype(float)

    def lambda_from_theta(self, theta: FloatArray) -> FloatArray:
        """Lambda, shape (..., q, q) for theta of shape (..., n_parameters)."""
        padded = np.zeros((*theta.shape[:-1], theta.shape[-1] + 1))
        padded[..., :-1] = theta
        return padded[..., self.parameter]

    def theta_from_lambda(self, factor: FloatArray) -> FloatArray:
        """Theta of a Lambda that has this structure; columns are given positive diagonals."""
        signs = np.where(np.diag(factor) < 0.0, -1.0, 1.0)
        theta = np.zeros(self.n_parameters)
        free = self.parameter >= 0
        theta[self.parameter[free]] = (factor * signs)[free]
        return theta

    def theta_from_root(self, root: FloatArray) -> FloatArray:
        """Theta of ``root root'`` for any square root of a covariance that has this structure."""
        if self.kind == "full":
            return self.theta_from_lambda(triangular_root(root))
        if self.kind == "mask":
            return self.theta_from_covariance(root @ root.T)
        return self.theta_from_lambda(root)

    def theta_from_covariance(self, covariance: FloatArray) -> FloatArray:
        """Theta of a positive semi-definite D; a zero pivot gives a zero column of Lambda."""
        if self.kind == "scalar":
            return np.array([np.sqrt(max(np.diag(covariance).mean(), 0.0))])
        ordered = covariance[np.ix_(self.order, self.order)]
        factor = np.empty_like(ordered)
        factor[np.ix_(self.order, self.order)] = semidefinite_cholesky(ordered)
        return self.theta_from_lambda(factor)

    def project(self, covariance: FloatArray, floor: float = 0.0) -> FloatArray:
        """A positive semi-definite D with this structure near a symmetric matrix.

        Used for starting values only, so near is enough: negative eigenvalues are lifted to
        ``floor``, then entries outside the structure are dropped.
        """
        values, vectors = np.linalg.eigh((covariance + covariance.T) / 2.0)
        covariance = (vectors * np.maximum(values, floor)) @ vectors.T
        if self.kind == "scalar":
            return np.diag(covariance).mean() * np.eye(self.n_effects)
        covariance = np.where(self.mask, covariance, 0.0)
        if not self.has_full_blocks and np.linalg.eigvalsh(covariance)[0] < 0.0:
            return np.diag(np.diag(covariance))
        return covariance

    def em_update(self, covariance: FloatArray, gradient: FloatArray, n_levels: int) -> FloatArray:
        """One EM step, ``D - D G D / m``; no inverse of D, so a zero variance is no special case.

        Source: Lindstrom & Bates (1988), section 4, written with the gradient G of the objective
        with respect to D.
        """
        updated = covariance - covariance @ gradient @ covariance / n_levels
        return self.project(updated)


def correlations(covariance: FloatArray) -> FloatArray:
    """Correlations of covariances, shapes (..., q, q); NaN with an effect of variance zero."""
    deviations = np.sqrt(np.einsum("...aa->...a", covariance))
    sizes = deviations[..., :, None] * deviations[..., None, :]
    return np.clip(covariance / np.where(sizes > 0.0, sizes, np.nan), -1.0, 1.0)


def triangular_root(root: FloatArray) -> FloatArray:
    """Lower triangular root of ``root root'``."""
    return np.linalg.qr(root.T)[1].T


def semidefinite_cholesky(matrix: FloatArray) -> FloatArray:
    """Lower Cholesky factor of a positive semi-definite matrix; zero pivots give zero columns."""
    size = len(matrix)
    factor = np.zeros((size, size))
    for j in range(size):
        column = matrix[j:, j] - factor[j:, :j] @ factor[j, :j]
        if column[0] > PIVOT_TOLERANCE * matrix[j, j] and column[0] > 0.0:
            factor[j:, j] = column / np.sqrt(column[0])
    return factor


def engine_structure(structure: CovarianceStructure, kept: NDArray[np.intp]) -> CovarianceStructure:
    """The structure as the engines see it: of the effects that are kept, with all of Lambda free.

    Parameters
    ----------
    structure : CovarianceStructure
    kept : ndarray of int
        Effects that have a column in the engine's basis.
    """
    n_effects = len(kept)
    if structure.kind in ("diagonal", "scalar"):
        return make_structure(structure.kind, [str(effect) for effect in kept])
    return CovarianceStructure(
        kind="unrestricted",
        parameter=np.arange(n_effects**2).reshape(n_effects, n_effects),
        order=np.arange(n_effects),
        mask=structure.mask[np.ix_(kept, kept)],
    )


def triangular_chart(
    factor: FloatArray, mask: NDArray[np.bool_]
) -> tuple[FloatArray | None, NDArray[np.bool_]]:
    """Rotation that makes Lambda triangular by rows in the order of a pivoted Cholesky of D.

    With a fixed order of the rows, a small pivot above large entries makes a chart in which valleys
    are curved and a stationary point need not be one in D. Pivoting keeps the entries of a column
    below its pivot, so that a second-order stationary point in the chart satisfies the optimality
    conditions in D, a singular D included. With a mask the largest pivot is taken among the effects
    that a perfect elimination order allows next.

    Parameters
    ----------
    factor : ndarray of shape (q, q)
        Lambda.
    mask : ndarray of shape (q, q), bool
        The entries of D that are free.

    Returns
    -------
    rotation : ndarray of shape (q, q) or None
        Orthogonal; ``factor @ rotation`` is zero outside the free entries. None for the identity.
    free : ndarray of shape (q, q), bool
        The free entries of that triangle.
    """
    q = len(factor)
    covariance = factor @ factor.T
    rest = covariance.tolist()
    remaining = list(range(q))
    order: list[int] = []
    is_full = bool(mask.all())
    while remaining:
        allowed = remaining if is_full else _simplicial(remaining, mask)
        pivot = max(allowed, key=lambda i: rest[i][i])
        order.append(pivot)
        remaining.remove(pivot)
        if rest[pivot][pivot] > 0.0:
            for i in remaining:
                share = rest[i][pivot] / rest[pivot][pivot]
                for j in remaining:
                    rest[i][j] -= share * rest[pivot][j]
    free = np.empty((q, q), bool)
    free[order] = np.tri(q, dtype=bool) & mask[order][:, order]
    if not factor[~free].any():
        return None, free
    if is_full:
        return np.linalg.qr(factor[order].T)[0], free
    triangular = np.empty((q, q))
    triangular[order] = semidefinite_cholesky(covariance[order][:, order])
    left, _, right = np.linalg.svd(factor.T @ triangular)
    return left @ right, free


def make_structure(covariance: object, effects: Sequence[str]) -> CovarianceStructure:
    """Build the structure of one factor.

    Parameters
    ----------
    covariance : {"full", "diagonal", "scalar"} or array-like of bool, shape (q, q)
        The public parameter. In a mask, True marks a free entry of D.
    effects : sequence of str
        Names of the q effects, for messages.

    Returns
    -------
    CovarianceStructure

    Raises
    ------
    ValueError
        If the mask has the wrong shape, is not symmetric, leaves out a variance, or if its zeros
        cannot be kept by any ordering of the effects.
    """
    q = len(effects)
    if isinstance(covariance, str):
        if covariance == "scalar":
            parameter = np.where(np.eye(q, dtype=bool), 0, -1)
            return CovarianceStructure("scalar", parameter, np.arange(q), np.eye(q, dtype=bool))
        mask = np.ones((q, q), bool) if covariance == "full" else np.eye(q, dtype=bool)
        kind = covariance
    else:
        mask = _check_mask(covariance, effects)
        kind = "full" if mask.all() else "mask"
    order = _elimination_order(mask, effects)
    parameter = np.full((q, q), -1)
    count = 0
    for j in range(q):
        for i in range(j, q):
            if mask[order[i], order[j]]:
                parameter[order[i], order[j]] = count
                count += 1
    return CovarianceStructure(kind, parameter, order, mask)


def _check_mask(covariance: object, effects: Sequence[str]) -> NDArray[np.bool_]:
    q = len(effects)
    try:
        mask = np.asarray(covariance)
    except ValueError as error:
        raise ValueError(
            f"The covariance mask is ragged: give a ({q}, {q}) boolean array. ({error})"
        ) from error
    if mask.shape != (q, q):
        raise ValueError(
            f"The covariance mask has shape {mask.shape}, but there are {q} random effects per "
            f"level ({', '.join(effects)}): give a ({q}, {q}) boolean array."
        )
    if mask.dtype != bool:
        raise ValueError(
            f"The covariance mask has dtype {mask.dtype}: give booleans, True where an entry of "
            "the covariance matrix is free and False where it is zero."
        )
    if not mask.diagonal().all():
        name = effects[int(np.argmin(mask.diagonal()))]
        raise ValueError(
            f"The covariance mask fixes the variance of {name!r} at zero: take the effect out of "
            "the random effects instead."
        )
    if not np.array_equal(mask, mask.T):
        i, j = np.argwhere(mask != mask.T)[0]
        raise ValueError(
            f"The covariance mask is not symmetric at {effects[i]!r}, {effects[j]!r}: a covariance "
            "is free in both places or in none."
        )
    return mask


def _elimination_order(mask: NDArray[np.bool_], effects: Sequence[str]) -> NDArray[np.int64]:
    """Order in which each effect's remaining neighbours are all neighbours of each other."""
    remaining = list(range(len(mask)))
    order = []
    while remaining:
        allowed = _simplicial(remaining, mask)
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


def _simplicial(remaining: list[int], mask: NDArray[np.bool_]) -> list[int]:
    """The effects whose remaining neighbours are all neighbours of each other."""
    found = []
    for candidate in remaining:
        neighbours = [i for i in remaining if i != candidate and mask[i, candidate]]
        if mask[np.ix_(neighbours, neighbours)].all():
            found.append(candidate)
    return found
