"""Several structures side by side: blocks of effects without covariances between them.

What a formula with several terms of one grouping factor means, ``(1 | id) + ar1(0 + visit | id)``.
Theta, Lambda and D are those of the parts, each in its place; every question is passed on to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.charts import Chart
from mixedlearn.covariance.structures.base import (
    BasisChanges,
    Correlation,
    Settlement,
    Structure,
)

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Parts:
    """Which structures are side by side.

    Attributes
    ----------
    structures : tuple of str
        Their names.
    effects : tuple of tuple of int
        The effects of each, in its order.
    """

    structures: tuple[str, ...]
    effects: tuple[tuple[int, ...], ...]


class SideBySide(Structure):
    """Structures of disjoint sets of effects.

    Parameters
    ----------
    structures : sequence of Structure
    effects : sequence of sequence of int
        The effects of each, in its order; together all effects.
    """

    name = "parts"

    def __init__(self, structures: Sequence[Structure], effects: Sequence[Sequence[int]]):
        super().__init__(sum(len(own) for own in effects))
        self.parts = tuple(structures)
        self.effects = tuple(np.array(own, dtype=np.intp) for own in effects)
        stops = np.cumsum([0, *(part.n_parameters for part in structures)]).tolist()
        self._slices = [slice(*pair) for pair in pairwise(stops)]
        # Those of linear parts are the same everywhere.
        self._directions: FloatArray | None = None
        self.is_linear = all(part.is_linear for part in structures)  # type: ignore[misc]

    @property
    def n_parameters(self) -> int:
        """Number of entries of theta."""
        return self._slices[-1].stop

    def _own(self, theta: FloatArray) -> list[FloatArray]:
        """Theta of every part."""
        return [theta[..., own] for own in self._slices]

    def _placed(self, matrices: Sequence[FloatArray], shape: tuple[int, ...]) -> FloatArray:
        """Matrices of the parts, (..., q_k, q_k), in their places."""
        found = np.zeros((*shape, self.n_effects, self.n_effects))
        for own, matrix in zip(self.effects, matrices, strict=True):
            found[..., own[:, None], own] = matrix
        return found

    def _spread(self, parts: Sequence[FloatArray]) -> FloatArray:
        """Matrices of the parts, each (a_k, q_k, q_k), one after the other, (sum a_k, q, q)."""
        found = np.zeros((sum(map(len, parts)), self.n_effects, self.n_effects))
        row = 0
        for own, part in zip(self.effects, parts, strict=True):
            found[row : row + len(part), own[:, None], own] = part
            row += len(part)
        return found

    def root(self, theta: FloatArray) -> FloatArray:
        """Lambda, shape (..., q, q)."""
        roots = [part.root(own) for part, own in zip(self.parts, self._own(theta), strict=True)]
        return self._placed(roots, theta.shape[:-1])

    def directions(self, theta: FloatArray) -> FloatArray:
        """Derivatives of Lambda by each parameter, shape (n_parameters, q, q)."""
        if self._directions is not None:
            return self._directions
        own = zip(self.parts, self._own(theta), strict=True)
        found = self._spread([part.directions(each) for part, each in own])
        if self.is_linear:
            self._directions = found
        return found

    def curvature(self, theta: FloatArray) -> FloatArray | None:
        """Second derivatives of Lambda, (n_parameters, n_parameters, q, q)."""
        if self.is_linear:
            return None
        n = self.n_parameters
        found = np.zeros((n, n, self.n_effects, self.n_effects))
        for part, own, effects in zip(self.parts, self._slices, self.effects, strict=True):
            second = part.curvature(theta[own])
            if second is not None:
                block = np.zeros((*second.shape[:2], self.n_effects, self.n_effects))
                block[..., effects[:, None], effects] = second
                found[own, own] = block
        return found

    def theta_of(self, covariance: FloatArray) -> FloatArray:
        """Theta of every part of D."""
        return np.concatenate(
            [
                part.theta_of(covariance[np.ix_(own, own)])
                for part, own in zip(self.parts, self.effects, strict=True)
            ]
        )

    def theta_of_root(self, root: FloatArray) -> FloatArray:
        """Theta of every part of ``root root'``."""
        return np.concatenate(
            [
                part.theta_of_root(root[own])
                for part, own in zip(self.parts, self.effects, strict=True)
            ]
        )

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The entries of D that may differ from zero, shape (q, q)."""
        return self._placed([part.mask.astype(float) for part in self.parts], ()) > 0.0

    @property
    def deviations(self) -> tuple[tuple[int, ...], ...]:
        """Those of the parts."""
        return tuple(
            tuple(own[list(group)].tolist())
            for part, own in zip(self.parts, self.effects, strict=True)
            for group in part.deviations
        )

    @property
    def correlations(self) -> tuple[Correlation, ...]:
        """Those of the parts."""
        return tuple(
            _placed_correlation(own, effects.tolist())
            for part, effects in zip(self.parts, self.effects, strict=True)
            for own in part.correlations
        )

    @property
    def has_free_covariances(self) -> bool:
        """Whether those of every part are free."""
        return all(part.has_free_covariances for part in self.parts)

    def span(self) -> FloatArray | None:
        """Matrices that may be added to every part."""
        spans = [part.span() for part in self.parts]
        known = [own for own in spans if own is not None]
        return self._spread(known) if len(known) == len(spans) else None

    def tangent(self, theta: FloatArray) -> FloatArray:
        """The directions of every part."""
        own = zip(self.parts, self._own(theta), strict=True)
        return self._spread([part.tangent(each) for part, each in own])

    def is_same(self, other: Structure) -> bool:
        """Whether another has the same parts in the same places."""
        return (
            isinstance(other, SideBySide)
            and len(self.parts) == len(other.parts)
            and all(map(np.array_equal, self.effects, other.effects))
            and all(
                one.is_same(another) for one, another in zip(self.parts, other.parts, strict=True)
            )
        )

    @property
    def basis_changes(self) -> BasisChanges:
        """A scale for each effect, if every part allows it."""
        has_own_scales = all(part.basis_changes.has_own_scales for part in self.parts)
        return BasisChanges(None, has_own_scales, np.zeros(self.n_effects, bool), True)

    def restricted(self, kept: Sequence[int]) -> Structure:
        """The parts of some effects."""
        parts, effects = [], []
        for part, own in zip(self.parts, self.effects, strict=True):
            left = [k for k, effect in enumerate(own.tolist()) if effect in kept]
            if left:
                parts.append(part if len(left) == len(own) else part.restricted(left))
                effects.append([list(kept).index(int(own[k])) for k in left])
        return SideBySide(parts, effects)

    def in_engine(self, kept: NDArray[np.intp]) -> Structure:
        """The parts as the engines see them."""
        own = self if len(kept) == self.n_effects else self.restricted(kept.tolist())
        assert isinstance(own, SideBySide)
        parts = [part.in_engine(np.arange(part.n_effects)) for part in own.parts]
        return SideBySide(parts, own.effects)  # type: ignore[arg-type]

    def em_update(
        self, covariance: FloatArray, gradient: FloatArray, n_levels: int
    ) -> FloatArray | None:
        """The EM step of every part, or None where one has none."""
        found = []
        for part, own in zip(self.parts, self.effects, strict=True):
            at = np.ix_(own, own)
            updated = part.em_update(covariance[at], gradient[at], n_levels)
            if updated is None:
                return None
            found.append(updated)
        return self._placed(found, ())

    def project(self, covariance: FloatArray, floor: float = 0.0) -> FloatArray:
        """Every part projected by itself."""
        found = [
            part.project(covariance[np.ix_(own, own)], floor)
            for part, own in zip(self.parts, self.effects, strict=True)
        ]
        return self._placed(found, ())

    def chart(self, theta: FloatArray) -> Chart | None:
        """The charts of the parts."""
        charts = [part.chart(own) for part, own in zip(self.parts, self._own(theta), strict=True)]
        moved, free = theta.copy(), np.ones(len(theta), bool)
        for own, chart in zip(self._slices, charts, strict=True):
            if chart is not None:
                moved[own], free[own] = chart.theta, chart.free
        return Chart(moved, free)

    def settlements(self, theta: FloatArray) -> list[Settlement]:
        """The ends of every part."""
        return [
            replace(end, entries=end.entries + own.start)
            for part, own in zip(self.parts, self._slices, strict=True)
            for end in part.settlements(theta[own])
        ]

    def ways_out(self, theta: FloatArray, gradient: FloatArray, size: float) -> list[FloatArray]:
        """Those of every part."""
        found = []
        for part, own, effects in zip(self.parts, self._slices, self.effects, strict=True):
            for moved in part.ways_out(theta[own], gradient[np.ix_(effects, effects)], size):
                whole = theta.copy()
                whole[own] = moved
                found.append(whole)
        return found

    def trials(self) -> list[FloatArray]:
        """Those of the parts, side by side."""
        trials = [part.trials() for part in self.parts]
        most = max(map(len, trials))
        return [self._placed([own[k % len(own)] for own in trials], ()) for k in range(most)]


def side_by_side(parts: Parts, make: Callable[[str, int], Structure]) -> Structure:
    """The structure of parts, each made from its name and its number of effects."""
    made = [make(name, len(own)) for name, own in zip(parts.structures, parts.effects, strict=True)]
    return SideBySide(made, parts.effects)


def _placed_correlation(own: Correlation, place: Sequence[int]) -> Correlation:
    """A correlation of a part, by the places of its effects among all."""
    return replace(
        own,
        pairs=tuple((place[i], place[j]) for i, j in own.pairs),
        effects=tuple(place[effect] for effect in own.effects),
        freed_by=tuple(frozenset(place[effect] for effect in each) for each in own.freed_by),
    )
