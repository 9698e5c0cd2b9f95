"""Whether one model is nested in another: by the columns, the levels and the covariances they have.

A model is nested in another if its fixed columns are combinations of the other's, if each of its
factors divides the rows as one of the other's does, and if of each factor the random columns are
combinations of the other's, ``Z_0 = Z_1 T``, such that the other's structure has ``T D T'`` for
every D. Names play no part, see `_spans`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixedlearn.inference._spans import (
    OUTSIDE,
    UNKNOWN,
    Embedding,
    Shared,
    embed,
    fixed_columns,
    has_same_order,
    random_columns,
    same_levels,
)
from mixedlearn.model.fitted import FittedModel
from mixedlearn.specification import Factor


@dataclass(frozen=True, slots=True)
class Nesting:
    """What a model has of another.

    Attributes
    ----------
    missing : str
        What the smaller model has and the larger one has not, in words; empty where it is nested.
    is_known : bool
        Whether what is missing is known to be missing; else nothing can be told of it.
    is_aligned : bool
        Whether the rows of both fits are in the same order.
    fixed : Embedding
        The smaller model's fixed columns among the larger's.
    factors : tuple of (int, Embedding)
        For every factor of the smaller model that of the larger, and its random columns.
    """

    missing: str
    is_known: bool
    is_aligned: bool
    fixed: Embedding
    factors: tuple[tuple[int, Embedding], ...]

    @property
    def is_nested(self) -> bool:
        """Whether the smaller model is nested in the larger one."""
        return not self.missing


def nesting(smaller: FittedModel, larger: FittedModel) -> Nesting:
    """What a model has of another that was fitted to the same rows."""
    is_aligned = has_same_order(smaller.sums_of_rows, larger.sums_of_rows)
    shared = _shared(smaller, larger, is_aligned=is_aligned)
    fixed = embed(
        fixed_columns(smaller.sums_of_rows, smaller.specification, shared[0]),
        fixed_columns(larger.sums_of_rows, larger.specification, shared[1]),
        is_aligned=is_aligned,
    )
    found: list[tuple[int, Embedding]] = []
    missing, is_known = _of_columns(fixed, smaller.specification.coef_names, "the fixed effect {}")
    for k in range(smaller.sums_of_rows.n_factors):
        if missing:
            break
        taken = {place for place, _ in found}
        missing, is_known, embedding = _of_factor(smaller, k, larger, taken, shared)
        if embedding is not None:
            found.append(embedding)
    return Nesting(missing, is_known, is_aligned, fixed, tuple(found))


def _shared(
    smaller: FittedModel, larger: FittedModel, *, is_aligned: bool
) -> tuple[Shared, Shared]:
    """What the two fits share, from the side of each."""
    both = [
        (k, place)
        for k in range(smaller.sums_of_rows.n_factors)
        for place in range(larger.sums_of_rows.n_factors)
        if smaller.sums_of_rows.has_same_levels(k, larger.sums_of_rows, place)
        and _divides_alike(smaller, k, larger, place, is_aligned=is_aligned)
    ]
    return (
        Shared(is_aligned, tuple(k for k, _ in both)),
        Shared(is_aligned, tuple(place for _, place in both)),
    )


def _divides_alike(
    smaller: FittedModel, k: int, larger: FittedModel, place: int, *, is_aligned: bool
) -> bool:
    one = smaller.sums_of_rows, k, smaller.specification.factor_names[k]
    other = larger.sums_of_rows, place, larger.specification.factor_names[place]
    return same_levels(one, other, is_aligned=is_aligned)


def _of_columns(embedding: Embedding, names: tuple[str, ...], words: str) -> tuple[str, bool]:
    """What is missing of some columns, and whether that is known."""
    for verdict in (OUTSIDE, UNKNOWN):
        if verdict in embedding.verdicts:
            name = names[embedding.verdicts.index(verdict)]
            return words.format(repr(name)), verdict == OUTSIDE
    return "", True


def _of_factor(
    smaller: FittedModel,
    k: int,
    larger: FittedModel,
    taken: set[int],
    shared: tuple[Shared, Shared],
) -> tuple[str, bool, tuple[int, Embedding] | None]:
    """What is missing of factor k, whether that is known, and what the larger model has of it."""
    own, is_aligned = smaller.specification.factors[k], shared[0].is_aligned
    others = [
        (place, other)
        for place, other in enumerate(larger.specification.factors)
        if place not in taken and _divides_alike(smaller, k, larger, place, is_aligned=is_aligned)
    ]
    # Of several factors that divide the rows alike, that of the same name first.
    others.sort(key=lambda entry: entry[1].name != own.name)
    first: tuple[str, bool] | None = None
    for place, other in others:
        embedding = embed(
            random_columns(smaller.sums_of_rows, k, own, shared[0]),
            random_columns(larger.sums_of_rows, place, other, shared[1]),
            is_aligned=is_aligned,
        )
        words = f"the random effect {{}} of {own.name!r}"
        missing, is_known = _of_columns(embedding, own.effects, words)
        missing = missing or _of_structure(own, other, embedding)
        if not missing:
            return "", True, (place, embedding)
        first = first or (missing, is_known)
    return *(first or (f"the grouping factor {own.name!r}", is_aligned)), None


def _of_structure(smaller: Factor, larger: Factor, embedding: Embedding) -> str:
    """Which covariances of the smaller model's effects the larger one cannot have, in words."""
    if larger.structure.contains(smaller.structure, embedding.matrix):
        return ""
    at = embedding.places
    whole = f"the covariance structure ({smaller.structure.name}) of {smaller.name!r}"
    if at is None:
        return whole
    if not _has_own_deviations(smaller, larger, at):
        return f"a variance for each random effect of {smaller.name!r}"
    extra = smaller.structure.mask & ~larger.structure.mask[np.ix_(at, at)]
    for i, j in zip(*np.nonzero(np.tril(extra)), strict=True):
        pair = f"{smaller.effects[j]!r} and {smaller.effects[i]!r}"
        return f"the covariance of {pair} of {smaller.name!r}"
    return whole


def _has_own_deviations(smaller: Factor, larger: Factor, at: list[int]) -> bool:
    """Whether effects that share a standard deviation in the larger model do so in the smaller."""
    place = {position: own for own, position in enumerate(at)}
    for group in larger.structure.deviations:
        if len(group) > 1:
            shared = {place.get(effect, -1) for effect in group}
            if not any(shared == set(own) for own in smaller.structure.deviations):
                return False
    return True


def is_one_variance(smaller: FittedModel, larger: FittedModel, found: Nesting) -> bool:
    """Whether the larger model has exactly one variance more, maybe with covariances.

    The fixed effects of both are taken to be the same.
    """
    n_more = 0
    matched = {place: own for own, (place, _) in enumerate(found.factors)}
    for k, factor in enumerate(larger.specification.factors):
        if k not in matched:
            if not factor.structure.has_free_covariances:
                return False
            n_more += len(factor.structure.deviations)
            continue
        other = smaller.specification.factors[matched[k]]
        if not _has_same_covariances(other, factor, found.factors[matched[k]][1]):
            return False
        n_more += len(factor.effects) - len(other.effects)
    return n_more == 1


def _has_same_covariances(smaller: Factor, larger: Factor, embedding: Embedding) -> bool:
    """Whether the effects that both have share their structure."""
    own, other, at = smaller.structure, larger.structure, embedding.places
    if at is None:
        # In other columns, all covariances stay all covariances.
        return bool(own.mask.all() and other.mask.all()) and all(
            each.n_parameters == each.n_effects * (each.n_effects + 1) // 2 for each in (own, other)
        )
    if not (own.has_free_covariances and other.has_free_covariances):
        return at == list(range(len(larger.effects))) and own.is_same(other)
    is_shared = [len(each.deviations) < each.n_effects for each in (own, other)]
    return np.array_equal(own.mask, other.mask[np.ix_(at, at)]) and is_shared[0] == is_shared[1]
