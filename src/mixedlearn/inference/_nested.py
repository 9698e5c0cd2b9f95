"""Whether one model is nested in another: columns, factors and effects by their names."""

from __future__ import annotations

import numpy as np

from mixedlearn.specification import Factor, Specification


def what_is_missing(smaller: Specification, larger: Specification) -> str:
    """What the smaller model has and the larger one has not, in words; empty where it is nested."""
    for name in smaller.coef_names:
        if name not in larger.coef_names:
            return f"the fixed effect {name!r}"
    for factor in smaller.factors:
        if factor.name not in larger.factor_names:
            return f"the grouping factor {factor.name!r}"
        other = larger.factors[larger.factor_names.index(factor.name)]
        missing = _missing_of_factor(factor, other)
        if missing:
            return missing
    return ""


def _missing_of_factor(smaller: Factor, larger: Factor) -> str:
    for effect in smaller.effects:
        if effect not in larger.effects:
            return f"the random effect {effect!r} of {smaller.name!r}"
    at = [larger.effects.index(effect) for effect in smaller.effects]
    if larger.structure.contains(smaller.structure, at):
        return ""
    if not _has_own_deviations(smaller, larger, at):
        return f"a variance for each random effect of {smaller.name!r}"
    extra = smaller.structure.mask & ~larger.structure.mask[np.ix_(at, at)]
    for i, j in zip(*np.nonzero(np.tril(extra)), strict=True):
        pair = f"{smaller.effects[j]!r} and {smaller.effects[i]!r}"
        return f"the covariance of {pair} of {smaller.name!r}"
    return f"the covariance structure ({smaller.structure.name}) of {smaller.name!r}"


def _has_own_deviations(smaller: Factor, larger: Factor, at: list[int]) -> bool:
    """Whether effects that share a standard deviation in the larger model do so in the smaller."""
    place = {effect: own for own, effect in enumerate(at)}
    for group in larger.structure.deviations:
        if len(group) > 1:
            shared = {place.get(effect, -1) for effect in group}
            if not any(shared == set(own) for own in smaller.structure.deviations):
                return False
    return True
