"""What is known of the levels: the rows of the fit, and those that came later.

With the fixed effects and the variance components as they were fitted, the BLUPs and their
covariances depend on the rows only through the sums, so rows that come later are added to those of
the fit, level by level. The columns are those of the fit: at known estimates BLUPs are
``D Z'V^-1 (y - X beta)`` whatever the columns' sizes in the new rows.

With one factor the BLUPs of a level depend on its own rows alone. Later rows are kept in *layers*,
each with the BLUPs of its levels given all rows until then, so that an update passes over the
levels of its rows and no others. Layers of similar sizes are merged: there are few, and a row is
merged a few times, however many have come. With several factors all BLUPs change jointly, and with
a residual structure (`continuation`) all rows of a level are looked at; there is one layer, and the
whole is computed at every update.

The codes of `Known` are places among the levels of the fit, then among those of the layers, oldest
first; a level has the code of the newest layer that it is in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, reduce
from itertools import accumulate, pairwise
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.labels import Labels
from mixedlearn.data.levels import LevelTable, OtherKind, labels_of
from mixedlearn.data.rows import Codes, Rows
from mixedlearn.data.sums import Sums
from mixedlearn.engines.levels import (
    LevelMoments,
    conditional_means,
    conditional_moments,
    reduce_levels,
)
from mixedlearn.engines.problem import engine_in_bases
from mixedlearn.engines.protocol import Posterior
from mixedlearn.model.fitted import FittedModel, user_blups, user_effects

FloatArray = NDArray[np.float64]

# A layer takes in the one after it as soon as that has a share of its levels.
MERGED_SHARE = 4


@dataclass(frozen=True)
class Layer:
    """Rows that came after the fit.

    Attributes
    ----------
    sums : Sums
        Of these rows alone, with the shift of the fit.
    blups : ndarray of shape (m, q)
        With one factor the BLUPs of their levels, given all rows until the last of these.
    """

    sums: Sums
    blups: FloatArray

    @cached_property
    def table(self) -> LevelTable:
        """The levels of one factor, prepared for look-ups."""
        return LevelTable(self.sums.levels[0])

    def with_newer(self, newer: Layer) -> Layer:
        """The layer and the one after it together."""
        sums = self.sums + newer.sums
        merged = Layer(sums, np.empty((sums.n_levels[0], self.blups.shape[1])))
        for layer in (self, newer):
            merged.blups[merged.table.find(labels_of(layer.sums.levels[0]))] = layer.blups
        return merged

    def __getstate__(self) -> dict[str, object]:
        """The state to pickle, without the table."""
        return {own.name: getattr(self, own.name) for own in fields(self)}


@dataclass(frozen=True)
class Known:
    """What the rows of the fit and later ones tell of the random effects.

    Attributes
    ----------
    fit : FittedModel
        Given the rows of the fit.
    layers : tuple of Layer
        Later rows, the newest last.
    n_new : int
        With one factor the number of levels that the fit does not have.
    observed_noise : FittedNoise, optional
        With a residual structure the noise of all rows, if these are more than those of the fit.
        The numbers of its rows' levels are places in those of ``whole``.
    """

    fit: FittedModel
    layers: tuple[Layer, ...] = field(default=())
    n_new: int = 0
    observed_noise: Any = None

    @property
    def noise(self) -> Any:
        """The noise of all rows; None without a residual structure."""
        return self.fit.noise if self.observed_noise is None else self.observed_noise

    def with_noise(self, noise: Any) -> Known:
        """The same with the noise of all rows."""
        other = replace(self, observed_noise=noise)
        vars(other)["whole"] = self.whole
        return other

    @cached_property
    def whole(self) -> FittedModel:
        """The model with the BLUPs of all levels given all rows."""
        if not self.layers:
            return self.fit
        later = reduce(add, (layer.sums for layer in reversed(self.layers)))
        fit, observed = self.fit, self.fit.sums + later
        bases = fit.fixed_basis, fit.random_bases
        engine = engine_in_bases(observed, fit.recipe, *bases)
        blups = user_blups(engine, *bases, fit.roots, fit.fixed_effects)
        return fit.observing(observed, blups)

    @property
    def n_levels(self) -> tuple[int, ...]:
        """Number of levels of every factor."""
        if self._is_layered:
            return (len(self.fit.blups[0]) + self.n_new,)
        return tuple(map(len, self.whole.levels))

    @property
    def _is_layered(self) -> bool:
        """Whether the rows of one level say nothing of others, and none of the noise of others."""
        return len(self.fit.random_bases) == 1 and self.fit.noise is None

    @property
    def _has_layers(self) -> bool:
        """Whether levels are to be looked for in layers."""
        return self._is_layered and bool(self.layers)

    @property
    def _starts(self) -> list[int]:
        """The first code of every layer, and the one after the last."""
        sizes = [layer.sums.n_levels[0] for layer in self.layers]
        return list(accumulate(sizes, initial=len(self.fit.blups[0])))

    # Look-ups.

    def find(self, k: int, labels: Labels) -> Codes:
        """Code of each row's level of factor k, -1 for an unknown one."""
        if not self._has_layers:
            return self.whole.tables[k].find(labels)
        found = self.fit.tables[0].find(labels)
        for layer, start in zip(self.layers, self._starts, strict=False):
            own = layer.table.find(labels)
            found = np.where(own < 0, found, own + np.int32(start))
        return found

    def other_kind(self, k: int, labels: Labels) -> OtherKind | None:
        """How the kind of labels differs from that of the levels of factor k; None if not."""
        if not self._has_layers:
            return self.whole.tables[k].other_kind(labels)
        tables = [self.fit.tables[0], *(layer.table for layer in self.layers)]
        others = [table.other_kind(labels) for table in tables]
        return None if None in others else others[0]

    def effects(self, k: int, codes: Codes) -> FloatArray:
        """BLUPs of the levels of some rows, zero where the code is -1: (q, n)."""
        if not self._has_layers:
            return _taken(self.whole.blups[k], codes)
        effects = _taken(self.fit.blups[0], _within(codes, 0, len(self.fit.blups[0])))
        for layer, (start, stop) in zip(self.layers, pairwise(self._starts), strict=True):
            own = np.flatnonzero((codes >= start) & (codes < stop))
            effects[:, own] = layer.blups.T[:, codes[own] - start]
        return effects

    def posteriors(self, codes: Sequence[Codes]) -> list[tuple[Posterior, list[Codes]]]:
        """Distributions of the random effects of some rows, with the codes of the rows there.

        A row has a code that is not -1 in one of them, if its levels are known.
        """
        if not self._has_layers:
            return [(self.whole.posterior, list(codes))]
        (own,), starts = codes, self._starts
        of_fit = _within(own, 0, starts[0])
        found: list[tuple[Posterior, list[Codes]]] = []
        if (of_fit >= 0).any():
            found.append((self.fit.posterior, [of_fit]))
        for j, (start, stop) in enumerate(pairwise(starts)):
            of_layer = _within(own, start, stop)
            touched, places = np.unique(of_layer[of_layer >= 0], return_inverse=True)
            if len(touched):
                of_layer[of_layer >= 0] = places
                moments = self._moments(self.layers[j].sums.of_levels(touched), j)
                found.append((conditional_moments(moments, self.fit.roots[0]), [of_layer]))
        return found

    # Further rows.

    def with_rows(self, rows: Rows) -> Known:
        """The same with further rows.

        Parameters
        ----------
        rows : Rows
            Of positive weight, with labels of every factor.
        """
        # With the shift of the fit, the fitted bases hold for the sums of both.
        return self.with_sums(Sums.of(rows, self.fit.specification.slopes, like=self.fit.sums))

    def with_sums(self, further: Sums) -> Known:
        """The same with the sums of further rows, which have the shift of the fit."""
        if not self._is_layered:
            sums = reduce(add, (layer.sums for layer in self.layers), further)
            known = Known(self.fit, (Layer(sums, np.empty((0, 0))),))
            # Computed here and now, and not in the midst of a prediction.
            _ = known.whole
            return known
        n_new = int(np.count_nonzero(self.find(0, labels_of(further.levels[0])) < 0))
        model = self.fit
        moments = self._moments(further, len(self.layers))
        means = conditional_means(moments, model.roots[0], model.fixed_effects)
        layer = Layer(further, user_effects(model.fixed_basis, model.random_bases[0], means))
        older = list(self.layers)
        while older and MERGED_SHARE * len(layer.blups) >= len(older[-1].blups):
            layer = older.pop().with_newer(layer)
        return Known(self.fit, (*older, layer), self.n_new + n_new)

    def _moments(self, own: Sums, n_older: int) -> LevelMoments:
        """The data of some levels: their sums with those of the fit and of older layers."""
        labels = labels_of(own.levels[0])
        parts = [(self.fit.observed, self.fit.tables[0])]
        parts += [(layer.sums, layer.table) for layer in self.layers[:n_older]]
        for sums, table in parts:
            own = own.with_level_sums(sums, table.find(labels))
        return reduce_levels(own, 0, self.fit.fixed_basis, self.fit.random_bases[0])

    def __getstate__(self) -> dict[str, object]:
        """The state to pickle: the whole can be computed again."""
        return {own.name: getattr(self, own.name) for own in fields(self)}


def _within(codes: Codes, start: int, stop: int) -> Codes:
    """Codes less the first of a range; -1 for those that are not in it."""
    return np.where((codes >= start) & (codes < stop), codes - np.int32(start), np.int32(-1))


def _taken(blups: FloatArray, codes: Codes) -> FloatArray:
    """BLUPs of the levels of some rows, zero where the code is -1: (q, n)."""
    if not len(blups):
        return np.zeros((blups.shape[1], len(codes)))
    # Code -1 finds the last level. Of one column numpy takes entries sooner than rows.
    is_column = blups.shape[1] == 1
    effects = blups[:, 0][codes][:, None] if is_column else blups.take(codes, axis=0, mode="wrap")
    unknown = codes < 0
    if unknown.any():
        effects[unknown] = 0.0
    return effects.T
