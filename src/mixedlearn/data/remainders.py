"""Sums of all rows but those of a case: what deletion of rows or levels refits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.crossing import Crossing
from mixedlearn.data.rows import CodedRows
from mixedlearn.data.sums import Sums

FloatArray = NDArray[np.float64]

# Share of a column's square that is rounding error once the rest was taken away.
REMAINDER = 1e-13


class Remainders:
    """Sums without each case, from one pass over the rows.

    Parameters
    ----------
    sums : Sums
        Of all rows.
    rows : CodedRows
        The rows of the sums; those of weight zero count as absent.
    cases : ndarray of shape (n,), int
        The case of every row.
    n_cases : int
    basis : ndarray of shape (n, k + 2), optional
        The basis columns of the rows in the metric of the sums; by default that is one of weights.
    """

    def __init__(
        self,
        sums: Sums,
        rows: CodedRows,
        cases: NDArray[np.integer],
        n_cases: int,
        basis: FloatArray | None = None,
    ):
        self._sums, self._rows, self._basis = sums, rows, basis
        present = np.flatnonzero(rows.given_weights > 0.0)
        self._order = present[np.argsort(cases[present], kind="stable")]
        self._bounds = np.append(0, np.cumsum(np.bincount(cases[present], minlength=n_cases)))
        self._n_levels = sums.n_levels
        self._codes = rows.known_codes
        self._sizes = [
            np.bincount(codes[present], minlength=m)
            for codes, m in zip(self._codes, self._n_levels, strict=True)
        ]
        self._keys = {}
        self._pair_sizes = {}
        for pair, crossing in sums.crossings.items():
            keys = self._key(pair, crossing.first, crossing.second)
            found = np.searchsorted(keys, self._row_keys(pair, present))
            self._keys[pair] = keys
            self._pair_sizes[pair] = np.bincount(found, minlength=len(keys))

    def _key(
        self, pair: tuple[int, int], first: NDArray[np.integer], second: NDArray[np.integer]
    ) -> NDArray[np.int64]:
        return first.astype(np.int64) * self._n_levels[pair[1]] + second

    def _row_keys(self, pair: tuple[int, int], rows: NDArray[np.intp]) -> NDArray[np.int64]:
        return self._key(pair, self._codes[pair[0]][rows], self._codes[pair[1]][rows])

    def without(self, case: int) -> Sums:
        """The sums of all rows but those of a case."""
        sums = self._sums
        gone = self._order[self._bounds[case] : self._bounds[case + 1]]
        whole = self._basis
        basis = sums.weighted_rows(self._rows, gone) if whole is None else whole[gone]
        gram = sums.gram - basis.T @ basis
        is_lost = np.diag(gram) < REMAINDER * np.diag(sums.gram)
        gram[is_lost] = 0.0
        gram[:, is_lost] = 0.0
        grouped, levels, numbers = [], [], []
        for k, z in enumerate(sums.z_columns):
            own, stays = self._levels_without(k, z, gone, basis)
            grouped.append(own)
            levels.append(sums.levels[k] if stays.all() else sums.levels[k][stays])
            numbers.append(np.where(stays, np.cumsum(stays) - 1, -1).astype(np.int32))
        return replace(
            sums,
            n_rows=sums.n_rows - len(gone),
            sum_log_weights=sums.sum_log_weights
            - float(np.log(self._rows.given_weights[gone]).sum()),
            levels=tuple(levels),
            gram=gram,
            grouped=tuple(grouped),
            crossings={
                pair: self._crossing_without(pair, gone, basis, numbers) for pair in sums.crossings
            },
            triangles=None,
            sketch=None,
        )

    def _levels_without(
        self, k: int, z: tuple[int, ...], gone: NDArray[np.intp], basis: FloatArray
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Products of the levels of factor k that have rows left, and which levels these are."""
        levels, place = np.unique(self._codes[k][gone], return_inverse=True)
        taken = np.zeros((len(levels), len(z), basis.shape[1]))
        np.add.at(taken, place, basis[:, list(z), None] * basis[:, None, :])
        grouped = self._sums.grouped[k].copy()
        grouped[:, :, levels] -= taken.transpose(1, 2, 0)
        stays = np.ones(grouped.shape[2], bool)
        stays[levels] = self._sizes[k][levels] > np.bincount(place)
        return (grouped if stays.all() else grouped[:, :, stays]), stays

    def _crossing_without(
        self,
        pair: tuple[int, int],
        gone: NDArray[np.intp],
        basis: FloatArray,
        numbers: list[NDArray[np.int32]],
    ) -> Crossing:
        crossing = self._sums.crossings[pair]
        left, right = (list(self._sums.z_columns[k]) for k in pair)
        keys, place = np.unique(self._row_keys(pair, gone), return_inverse=True)
        at = np.searchsorted(self._keys[pair], keys)
        taken = np.zeros((len(at), len(left), len(right)))
        np.add.at(taken, place, basis[:, left, None] * basis[:, None, right])
        products = crossing.products.copy()
        products[:, :, at] -= taken.transpose(1, 2, 0)
        stays = np.ones(products.shape[2], bool)
        stays[at] = self._pair_sizes[pair][at] > np.bincount(place)
        return Crossing(
            numbers[pair[0]][crossing.first[stays]],
            numbers[pair[1]][crossing.second[stays]],
            products[:, :, stays],
        )
