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
    same = len(at) == len(larger.effects)
    q = len(smaller.effects)
    if larger.structure.kind == "scalar" and len(larger.effects) > 1:
        is_scalar = smaller.structure.kind == "scalar" and same
        return "" if is_scalar else f"a variance for each random effect of {smaller.name!r}"
    extra = smaller.structure.mask & ~larger.structure.mask[np.ix_(at, at)]
    for i in range(q):
        for j in range(i):
            if extra[i, j]:
                pair = f"{smaller.effects[j]!r} and {smaller.effects[i]!r}"
                return f"the covariance of {pair} of {smaller.name!r}"
    return ""
