"""The noise of rows given that of other rows of their levels.

Of rows e_1 that are known and rows e_2 that are not, with the lower triangular root L of their
covariance,

    e_2 = L_21 L_11^-1 e_1 + L_22 u

where u is independent of e_1 and has the covariance I: the forecast, and the root of what it leaves
open (`Dense`). Where a row depends on those before through the last of them alone, the precision P
of all rows is tridiagonal in the order of time (`engines.correlated.chains`), and with P_22 = U'U

    e_2 = -P_22^-1 P_21 e_1 + U^-1 u

takes a time that is proportional to the number of rows (`Chained`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve_banded, cholesky_banded, solve_banded

from mixedlearn.engines.correlated.chain_rows import ChainRows
from mixedlearn.engines.correlated.rows import NoiseRows
from mixedlearn.model.correlated import FittedNoise

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer]
# Known rows of a level, and others of it.
Pair = tuple[IntArray, IntArray]

# Entries of the covariances that are made at a time.
MOST_ENTRIES = 1 << 22


class Given(Protocol):
    """The noise of n rows given that of m others, relative to the noise variance."""

    @property
    def log_det(self) -> float:
        """Logarithm of the determinant of the covariance that is left."""
        ...

    def forecast(self, known: FloatArray) -> FloatArray:
        """The mean, shape (n, k), for known rows of shape (m, k)."""
        ...

    def drawn(self, normal: FloatArray) -> FloatArray:
        """What independent normal numbers of shape (n, k) add to the forecast."""
        ...

    def whitened(self, left: FloatArray) -> FloatArray:
        """Independent numbers from what the forecast leaves, shape (n, k); undoes `drawn`."""
        ...


def given_noise(noise: FittedNoise, joined: NoiseRows, m: int, pairs: Sequence[Pair]) -> Given:
    """The noise of rows given that of others.

    Parameters
    ----------
    noise : FittedNoise
    joined : NoiseRows
        The m known rows, and then the n others.
    m : int
    pairs : sequence of (ndarray of int, ndarray of int)
        For every level the places of rows among the m, and those among the n; together these are
        all of the n.

    Raises
    ------
    ValueError
        If the covariance of the rows of a level is not positive definite.
    """
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            if joined.is_markov:
                return _chained(noise, joined, m, pairs)
            return _dense(noise, joined, m, pairs)
    except np.linalg.LinAlgError:
        raise ValueError(
            f"The noise covariance of the rows of a level is not positive definite under "
            f"{noise.binding.kind}: the correlations of occasions that no level of fit had "
            "together contradict each other, or times are too close to each other. Use a structure "
            "with fewer parameters, or leave out rows."
        ) from None


@dataclass(frozen=True, slots=True)
class Dense:
    """By dense covariances of levels that are alike.

    Attributes
    ----------
    batches : list of tuple
        Places of known rows (g, m) and of others (g, n), ``L_21 L_11^-1`` and ``L_22``.
    log_det : float
        Logarithm of the determinant of the covariance that is left.
    """

    batches: list[tuple[IntArray, IntArray, FloatArray, FloatArray]]
    log_det: float

    @property
    def _n(self) -> int:
        return sum(new.size for _, new, _, _ in self.batches)

    def forecast(self, known: FloatArray) -> FloatArray:
        """See `Given`."""
        found = np.empty((self._n, known.shape[1]))
        for old, new, carry, _ in self.batches:
            found[new] = carry @ known[old]
        return found

    def drawn(self, normal: FloatArray) -> FloatArray:
        """See `Given`."""
        found = np.empty_like(normal)
        for _, new, _, root in self.batches:
            found[new] = root @ normal[new]
        return found

    def whitened(self, left: FloatArray) -> FloatArray:
        """See `Given`."""
        found = np.empty_like(left)
        for _, new, _, root in self.batches:
            found[new] = np.linalg.solve(root, left[new])
        return found


def alike(rows: NoiseRows, pairs: Sequence[Pair]) -> Iterator[Pair]:
    """Levels with as many rows and the same part of the covariance: shapes (g, m) and (g, n).

    ``rows`` are those of the second of a pair.
    """
    found: dict[tuple[int, int, int], list[Pair]] = {}
    for old, new in pairs:
        key = int(rows.part[new[0]]), len(old), len(new)
        found.setdefault(key, []).append((old, new))
    for (_, m, n), own in found.items():
        step = max(MOST_ENTRIES // ((m + n) ** 2 * max(rows.exponents.n, 1)), 1)
        for start in range(0, len(own), step):
            olds, news = zip(*own[start : start + step], strict=True)
            yield np.stack(olds), np.stack(news)


def _dense(noise: FittedNoise, joined: NoiseRows, m: int, pairs: Sequence[Pair]) -> Dense:
    log_det, batches = 0.0, []
    for old, own in alike(joined, [(old, m + new) for old, new in pairs]):
        root = np.linalg.cholesky(noise.covariance(joined, np.concatenate([old, own], axis=1)))
        k = old.shape[1]
        inner, across = root[:, :k, :k].swapaxes(1, 2), root[:, k:, :k].swapaxes(1, 2)
        left = np.asarray(root[:, k:, k:])
        log_det += 2.0 * float(np.log(left.diagonal(axis1=1, axis2=2)).sum())
        carry = np.asarray(np.linalg.solve(inner, across).swapaxes(1, 2))
        batches.append((old, own - m, carry, left))
    return Dense(batches, log_det)


@dataclass(frozen=True, slots=True)
class Chained:
    """By the tridiagonal precision of rows in the order of time.

    Attributes
    ----------
    places : ndarray of shape (n,), int
        The rows in the order of time, level by level.
    factor : ndarray of shape (2, n)
        U, as `scipy.linalg.cholesky_banded` has it.
    before, after : tuple of (ndarray of int, ndarray of int, ndarray)
        Which of ``places`` follow a known row, or come before one, which rows these are, and the
        entries of P.
    """

    places: IntArray
    factor: FloatArray
    before: tuple[IntArray, IntArray, FloatArray]
    after: tuple[IntArray, IntArray, FloatArray]

    @property
    def log_det(self) -> float:
        """Logarithm of the determinant of the covariance that is left."""
        return -2.0 * float(np.log(self.factor[1]).sum())

    def forecast(self, known: FloatArray) -> FloatArray:
        """See `Given`."""
        pulled = np.zeros((len(self.places), known.shape[1]))
        for at, rows, entries in (self.before, self.after):
            pulled[at] -= entries[:, None] * known[rows]
        found = np.empty_like(pulled)
        found[self.places] = cho_solve_banded((self.factor, False), pulled)
        return found

    def drawn(self, normal: FloatArray) -> FloatArray:
        """See `Given`."""
        found = np.empty_like(normal)
        found[self.places] = solve_banded((0, 1), self.factor, normal[self.places])
        return found

    def whitened(self, left: FloatArray) -> FloatArray:
        """See `Given`."""
        ordered = left[self.places]
        turned = self.factor[1][:, None] * ordered
        turned[:-1] += self.factor[0, 1:, None] * ordered[1:]
        found = np.empty_like(left)
        found[self.places] = turned
        return found


def _chained(noise: FittedNoise, joined: NoiseRows, m: int, pairs: Sequence[Pair]) -> Chained:
    nothing = np.zeros(0, dtype=np.intp)
    chosen = np.concatenate([nothing, *(own for old, new in pairs for own in (old, m + new))])
    # Repetitions of a level have nothing to do with its other rows.
    series = np.repeat(np.arange(len(pairs)), [len(old) + len(new) for old, new in pairs])
    chain = ChainRows(replace(joined.of(chosen), series=series), [], [])
    order, diagonal, beside = chain.precision(noise.binding.parts, noise.point)
    rows = chosen[order]
    at = np.flatnonzero(rows >= m)
    if not np.isfinite(diagonal).all():
        raise np.linalg.LinAlgError
    band = np.zeros((2, len(at)))
    band[1] = diagonal[at]
    follows = np.diff(at) == 1
    band[0, 1:][follows] = beside[at[:-1]][follows]
    has_before = np.flatnonzero((at > 0) & (rows[at - 1] < m))
    last = len(rows) - 1
    has_after = np.flatnonzero((at < last) & (rows[np.minimum(at + 1, last)] < m))
    before, after = at[has_before] - 1, at[has_after] + 1
    return Chained(
        rows[at] - m,
        cholesky_banded(band) if len(at) else band,
        (has_before, rows[before], beside[before]),
        (has_after, rows[after], beside[after - 1]),
    )
