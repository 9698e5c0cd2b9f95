"""Smaller models: without fixed or random effects, or with a fixed effect held at a value.

A smaller model is fitted to the cross-products of the larger one, of which it needs a part; no row
is looked at.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

import numpy as np

from mixedlearn.data.sums import CrossProducts
from mixedlearn.engines.choose import of_factors
from mixedlearn.specification import Specification


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
    """The model without some random effects of factor k, given by their positions.

    Without all of them, the factor goes as a whole.
    """
    factor = specification.factors[k]
    rest = [effect for effect in range(len(factor.effects)) if effect not in effects]
    factors = list(specification.factors)
    if not rest:
        del factors[k]
        chosen = [other for other in range(len(products.grouped)) if other != k]
        return of_factors(products, chosen), replace(specification, factors=tuple(factors))
    n_intercept = int(factor.random_intercept)
    slopes = [effect - n_intercept for effect in rest if effect >= n_intercept]
    factors[k] = replace(
        factor,
        slopes=tuple(factor.slopes[slope] for slope in slopes),
        effects=tuple(factor.effects[effect] for effect in rest),
        random_intercept=factor.random_intercept and 0 in rest,
        structure=factor.structure.restricted(rest),
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


def with_coef_held(
    products: CrossProducts, specification: Specification, coef: int, value: float
) -> tuple[CrossProducts, Specification]:
    """Hold a coefficient at a value: its column, times the value, leaves the response."""
    held = without_coefs(specification, {coef})
    shift = products.shift.copy()
    if specification.fit_intercept and coef == 0:
        shift[-1] -= value
        return replace(products, shift=shift), held
    column = specification.fixed[coef - specification.fit_intercept]
    shift[-1] -= value * shift[column]
    turn = np.eye(len(products.gram))
    turn[column + 1, -1] = -value
    moved = replace(
        products,
        shift=shift,
        gram=turn.T @ products.gram @ turn,
        grouped=tuple(
            np.concatenate([own[:, :-1], own[:, -1:] - value * own[:, column + 1, None]], axis=1)
            for own in products.grouped
        ),
    )
    return moved, held
