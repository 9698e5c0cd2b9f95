"""The covariance of blocks of rows: noise and random effects.

    V = s2 (R + sum_k Z_k D_k Z_k')

The parameters are log s, where R is relative, the local coordinates of R (of each of its parts,
where several values of a column have a covariance of their own), and those of the D_k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.components import VarianceComponents, theta_hessian
from mixedlearn.covariance.residual.base import Layout, ResidualCovariance

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Point:
    """Where a search is.

    Attributes
    ----------
    log_scale : float
        The logarithm of s; zero where R is absolute.
    parts : tuple of ndarray
        The points of the parts of R.
    theta : ndarray of shape (n_theta,)
        Of the D_k.
    """

    log_scale: float
    parts: tuple[FloatArray, ...]
    theta: FloatArray


@dataclass(frozen=True, slots=True)
class Parameters:
    """The order of all parameters.

    Attributes
    ----------
    parts : tuple of ResidualCovariance
    components : VarianceComponents
    is_linear : bool
        Whether those of the random effects are the directions in which the D_k may move, instead of
        theta: then V is linear in them, and a D_k that is singular is like any other. No search
        goes this way.
    """

    parts: tuple[ResidualCovariance, ...]
    components: VarianceComponents
    is_linear: bool = False

    @property
    def is_relative(self) -> bool:
        """Whether there is a parameter for the scale."""
        return self.parts[0].is_relative

    @property
    def slices(self) -> list[slice]:
        """Where the parts have their parameters."""
        found, start = [], int(self.is_relative)
        for part in self.parts:
            found.append(slice(start, start + part.n_parameters))
            start = found[-1].stop
        return found

    @property
    def of_theta(self) -> slice:
        """Where the random effects have theirs."""
        return slice(self.slices[-1].stop, self.n_parameters)

    @property
    def of_factors(self) -> list[NDArray[np.intp]]:
        """Where the random effects of every factor have theirs."""
        bounds = np.cumsum(self._n_directions)[:-1]
        start = self.slices[-1].stop
        return np.split(np.arange(start, self.n_parameters), bounds)

    @property
    def n_parameters(self) -> int:
        """Number of all parameters."""
        return self.slices[-1].stop + sum(self._n_directions)

    @property
    def _n_directions(self) -> list[int]:
        structures = self.components.structures
        if not self.is_linear:
            return [own.n_parameters for own in structures]
        generator = np.random.default_rng(0)
        return [
            len(own.tangent(generator.uniform(0.3, 1.2, own.n_parameters))) for own in structures
        ]

    def moves(self, theta: FloatArray) -> list[FloatArray]:
        """The derivatives of every D_k, shapes (n_k, q_k, q_k)."""
        components = self.components
        if self.is_linear:
            return [
                structure.tangent(theta[own])
                for structure, own in zip(components.structures, components.slices, strict=True)
            ]
        found = []
        for root, own in zip(components.roots(theta), components.directions(theta), strict=True):
            one_sided = own @ root.T
            found.append(one_sided + one_sided.swapaxes(-1, -2))
        return found

    def moved(self, point: Point, step: FloatArray) -> Point:
        """The point after a step in the local coordinates."""
        return Point(
            point.log_scale + (step[0] if self.is_relative else 0.0),
            tuple(
                part.moved(own, step[place])
                for part, own, place in zip(self.parts, point.parts, self.slices, strict=True)
            ),
            point.theta + step[self.of_theta],
        )

    def scaled(self, point: Point, ratio: float) -> Point:
        """The point of ``ratio^2 V``."""
        if self.is_relative:
            return replace(point, log_scale=point.log_scale + float(np.log(ratio)))
        roots = [ratio * root for root in self.components.roots(point.theta)]
        theta = self.components.theta_of_roots(roots) if roots else point.theta
        return replace(point, parts=tuple(ratio * own for own in point.parts), theta=theta)

    def charted(self, point: Point) -> tuple[Point, NDArray[np.intp]]:
        """The point in the charts of the D_k, and the parameters that are free there."""
        theta, free = self.components.charted(point.theta)
        start = self.of_theta.start
        return replace(point, theta=theta), np.append(np.arange(start), start + free)


@dataclass(frozen=True, slots=True)
class RandomRows:
    """The random columns of one factor in blocks.

    Attributes
    ----------
    columns : ndarray of shape (..., T, q)
        Z in the engine's columns.
    shares_level : ndarray of shape (..., T, T) or None
        Which rows are of one level; None: all of a block.
    """

    columns: FloatArray
    shares_level: NDArray[np.bool_] | None


class BlockCovariance:
    """V of one set of patterns.

    Parameters
    ----------
    parameters : Parameters
    part : int
        Which part of R it has.
    layout : Layout
    randoms : sequence of RandomRows
        One for every factor.
    """

    def __init__(
        self, parameters: Parameters, part: int, layout: Layout, randoms: Sequence[RandomRows]
    ):
        self.parameters = parameters
        self.n_parameters = parameters.n_parameters
        self._part, self._own = parameters.parts[part], parameters.slices[part]
        self._number = part
        self._layout = layout
        self._randoms = list(randoms)

    def with_parameters(self, parameters: Parameters) -> BlockCovariance:
        """The same rows with other parameters."""
        return BlockCovariance(parameters, self._number, self._layout, self._randoms)

    def covariance(self, point: Point) -> FloatArray:
        """V, shape (T, T) or (n_patterns, T, T)."""
        relative = self._part.covariance(point.parts[self._number], self._layout)
        for random, root in zip(
            self._randoms, self.parameters.components.roots(point.theta), strict=True
        ):
            relative = relative + _products(random, root @ root.T)
        return np.exp(2.0 * point.log_scale) * relative

    def directions(self, point: Point) -> FloatArray:
        """Its derivatives by all parameters."""
        whole = self.covariance(point)
        found = np.zeros((self.n_parameters, *whole.shape))
        scale = np.exp(2.0 * point.log_scale)
        if self.parameters.is_relative:
            found[0] = 2.0 * whole
        found[self._own] = scale * self._part.directions(point.parts[self._number], self._layout)
        place = self.parameters.of_theta.start
        for random, own in zip(self._randoms, self.parameters.moves(point.theta), strict=True):
            for move in own:
                found[place] = scale * _products(random, move)
                place += 1
        return found

    def second(self, point: Point, weights: FloatArray) -> FloatArray:
        """``sum <V_ab, weights>``."""
        n = self.n_parameters
        scale = np.exp(2.0 * point.log_scale)
        result = np.zeros((n, n))
        own = self._part.second(point.parts[self._number], self._layout, weights)
        result[self._own, self._own] = scale * own
        if self._randoms and not self.parameters.is_linear:
            components, place = self.parameters.components, self.parameters.of_theta
            sums = [_sum_by_effects(random, weights) for random in self._randoms]
            n_entries = sum(len(own) ** 2 for own in sums)
            result[place, place] = scale * theta_hessian(
                components.directions(point.theta),
                components.roots(point.theta),
                sums,
                np.zeros((n_entries, n_entries)),
                components.curvatures(point.theta),
            )
        if self.parameters.is_relative:
            first = self.directions(point).reshape(n, -1) @ weights.ravel()
            result[0] = result[:, 0] = 2.0 * first
        return result


def _products(random: RandomRows, matrix: FloatArray) -> FloatArray:
    """``Z M Z'`` of rows of one level."""
    found = random.columns @ matrix @ random.columns.swapaxes(-1, -2)
    return found if random.shares_level is None else np.where(random.shares_level, found, 0.0)


def _sum_by_effects(random: RandomRows, weights: FloatArray) -> FloatArray:
    """``sum Z'weights Z`` over rows of one level, shape (q, q)."""
    if random.shares_level is not None:
        weights = np.where(random.shares_level, weights, 0.0)
    found = random.columns.swapaxes(-1, -2) @ weights @ random.columns
    return np.asarray(found.reshape(-1, *found.shape[-2:]).sum(axis=0))
