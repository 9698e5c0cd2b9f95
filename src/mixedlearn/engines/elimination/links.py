"""Links: the random effects of the chain given those of later stages and of the tail.

Notation
--------
At stage s, with D, P_i and K_i as in `engine`, the effects of a level given the response
and all later effects are

    b_i = D P_i'(...) - D N_A b_A - D N_R b_R + e_i,     var e_i = D - D P_i'P_i D
    N_A = P_i'K_A,    N_R = P_i'K_R

where A are the levels that contain the level and R the tail. Substituting the b_A stage by stage
leaves ``b_i = ... - F_i b_R``, with F sparse, and the covariance of the effects of a level and
those that contain it, given the tail: its *path covariance*, a small matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from mixedlearn.engines.elimination.dense import row_blocks
from mixedlearn.engines.elimination.level_pairs import CHUNK_ENTRIES, RowsOf, TailPattern
from mixedlearn.engines.elimination.reduced import ReducedProducts
from mixedlearn.engines.levels import sum_over_rows

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Link:
    """A stage's effects given later ones.

    Attributes
    ----------
    above : ndarray of shape (q, n_above, m)
        N_A.
    covariance_above : ndarray of shape (n_above, n_above, m)
        Path covariance of the levels that contain each level.
    tails : ndarray of shape (q, n_entries)
        N_R; empty for a first stage where nothing asks for it.
    own : ndarray of shape (q, q, m)
        ``D - D P_i'P_i D``; empty for a first stage where nothing asks for it.
    through : csr_array of shape (q m, T)
        F, effect by effect; empty for a first stage where nothing asks for it.
    """

    above: FloatArray
    covariance_above: FloatArray
    tails: FloatArray
    own: FloatArray
    through: csr_array


def link_stages(
    reduced: ReducedProducts,
    projected: Sequence[FloatArray],
    solved_above: Sequence[FloatArray],
    solved_tails: Sequence[FloatArray],
    covariances: Sequence[FloatArray],
    *,
    with_first: bool,
) -> list[Link]:
    """The links of all stages.

    Parameters
    ----------
    reduced : ReducedProducts
    projected, solved_above, solved_tails : sequence of ndarray
        P_i, K_A and K_R of every stage.
    covariances : sequence of ndarray of shape (q, q)
        D of every factor of the model.
    with_first : bool
        Whether the remainder and F of the first stage are wanted.
    """
    links: list[Link] = []
    path = np.empty((0, 0, 0))
    for s in reversed(range(len(reduced.stages))):
        stage = reduced.stages[s]
        covariance = covariances[stage.factor]
        above = sum_over_rows(projected[s], solved_above[s])
        empty = (0, 0, stage.n_levels)
        above_path = path[:, :, stage.ancestors[0]] if stage.ancestors else np.empty(empty)
        own, tails = np.empty(empty), np.empty((0, 0))
        through = csr_array((0, reduced.plan.n_tail))
        if s > 0 or stage.n_above or with_first:
            tails = stage.pattern.spread(projected[s].transpose(1, 0, 2), solved_tails[s])
        if s > 0 or with_first:
            spread = np.matmul(covariance, projected[s])
            own = covariance[:, :, None] - sum_over_rows(spread, spread)
            turned = np.einsum("ab,bcm->acm", covariance, above)
            through = rows_over_tail(stage.pattern, covariance @ tails)
            if links:
                links_above = vstack([link.through for link in reversed(links)], format="csr")
                through = through - vstack(rows_above(reduced, s, turned)) @ links_above
            path = _path_covariance(turned, above_path, own)
        links.append(Link(above, above_path, tails, own, csr_array(through)))
    return links[::-1]


def _path_covariance(turned: FloatArray, above_path: FloatArray, own: FloatArray) -> FloatArray:
    """Covariance of a level's effects and those that contain it, given the tail.

    ``turned`` is ``D N_A``, shape (q, n_above, m).
    """
    q, n_above, m = turned.shape
    path = np.empty((q + n_above, q + n_above, m))
    mixed = sum_over_rows(turned.transpose(1, 0, 2), above_path)
    path[:q, :q] = own + sum_over_rows(mixed.transpose(1, 0, 2), turned.transpose(1, 0, 2))
    path[:q, q:] = -mixed
    path[q:, :q] = -mixed.transpose(1, 0, 2)
    path[q:, q:] = above_path
    return path


def rows_over_tail(pattern: TailPattern, values: FloatArray) -> csr_array:
    """Rows over the tail, effect by effect: (q, n_entries) gives a matrix of shape (q m, T)."""
    return csr_array(vstack([pattern.matrix(row) for row in values], format="csr"))


def rows_above(reduced: ReducedProducts, s: int, values: FloatArray) -> list[csr_array]:
    """Rows over the effects of all later stages: (q, n_above, m) gives q matrices of m rows.

    Columns are stage by stage, within a stage effect by effect.
    """
    stage = reduced.stages[s]
    indices, start = [], 0
    for later, ancestor in enumerate(stage.ancestors):
        outer = reduced.stages[s + 1 + later]
        indices += [start + effect * outer.n_levels + ancestor for effect in range(outer.n_effects)]
        start += outer.n_effects * outer.n_levels
    columns = np.stack(indices, axis=1).ravel()
    pointers = np.arange(stage.n_levels + 1) * len(indices)
    shape = (stage.n_levels, start)
    return [
        csr_array((np.ascontiguousarray(row.T).ravel(), columns, pointers), shape=shape)
        for row in values
    ]


def forms_through_chain(
    reduced: ReducedProducts, links: Sequence[Link], s: int, form: RowsOf
) -> FloatArray:
    """What the way through later stages adds to ``sum_i N_R B N_R'``, shape (q, q).

    The rows over the tail are really ``N_R - N_A F``, with F of the later stages. Their products
    are taken with the sums over the levels that share their containing levels, so that F is
    multiplied by B once.
    """
    link, stage = links[s], reduced.stages[s]
    q = stage.n_effects
    result = np.zeros((q, q))
    if not stage.n_above:
        return result
    through = csr_array(vstack([other.through for other in links[s + 1 :]], format="csr"))
    rows = rows_above(reduced, s, link.above)
    tails = [stage.pattern.matrix(row) for row in link.tails]
    sums = {}
    for a in range(q):
        for b in range(a, q):
            product = (rows[a].T @ rows[b]) @ through
            sums[a, b] = csr_array(product - rows[a].T @ tails[b] - rows[b].T @ tails[a])
    for own in row_blocks(reduced.plan.n_tail):
        columns = np.ascontiguousarray(form(own).T)
        size = max(CHUNK_ENTRIES // columns.shape[1], 1)
        for start in range(0, through.shape[0], size):
            part = through[start : start + size] @ columns
            for (a, b), total in sums.items():
                result[a, b] += total[start : start + size, own].multiply(part).sum()
    return result + np.triu(result, 1).T
