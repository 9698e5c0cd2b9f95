"""Smaller models: without fixed effects, or without random effects; nesting by names.

A smaller model is fitted to the cross-products of the larger one, of which it needs a part.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

import numpy as np

from mixedlearn.covariance import make_structure
from mixedlearn.cross_products import CrossProducts
from mixedlearn.design import Factor, Specification
from mixedlearn.problem import of_factors


def without_coefs(specification: Specification, coefs: Set[int]) -> Specification:
    """The model without some fixed effects, given by their positions among the coefficients.

    The result has no terms: it is for refits.
    """
    drop_intercept = specification.fit_intercept and 0 in coefs
    fixed = tuple(
        position
        for coef, position in enumerate(specification.fixed, start=int(specification.fit_intercept))
        if coef not in coefs
    )
    return replace(
        specification,
        fixed=fixed,
        fit_intercept=specification.fit_intercept and not drop_intercept,
        terms=(),
    )


def without_effects(
    products: CrossProducts, specification: Specification, k: int, effects: Set[int]
) -> tuple[CrossProducts, Specification]:
    """The model without some random effects of factor k, given by their positions."""
    factor = specification.factors[k]
    rest = [effect for effect in range(len(factor.effects)) if effect not in effects]
    factors = list(specification.factors)
    if not rest:
        del factors[k]
        chosen = [other for other in range(len(products.grouped)) if other != k]
        return of_factors(products, chosen), replace(specification, factors=tuple(factors))
    n_intercept = int(factor.random_intercept)
    slopes = [effect - n_intercept for effect in rest if effect >= n_intercept]
    kind = factor.structure.kind
    mask = factor.structure.mask[np.ix_(rest, rest)]
    names = [factor.effects[effect] for effect in rest]
    factors[k] = replace(
        factor,
        slopes=tuple(factor.slopes[slope] for slope in slopes),
        effects=tuple(names),
        random_intercept=factor.random_intercept and 0 in rest,
        structure=make_structure(mask if kind == "mask" else kind, names),
    )
    # The constant stays among the z columns: it undoes the shift.
    z = [0, *(slope + 1 for slope in slopes)]
    grouped, z_columns = list(products.grouped), list(products.z_columns)
    grouped[k], z_columns[k] = grouped[k][z], tuple(z_columns[k][column] for column in z)
    crossings = dict(products.crossings)
    for (i, j), crossing in products.crossings.items():
        if i == k:
            crossings[i, j] = replace(crossing, products=crossing.products[z])
        elif j == k:
            crossings[i, j] = replace(crossing, products=crossing.products[:, z])
    reduced = replace(
        products, grouped=tuple(grouped), z_columns=tuple(z_columns), crossings=crossings
    )
    return reduced, replace(specification, factors=tuple(factors))


def what_is_missing(smaller: Specification, larger: Specification) -> str:
    """What the smaller model has and the larger one has not, in words; empty where it is nested.

    Columns and factors are compared by their names.
    """
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
