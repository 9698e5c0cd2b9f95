"""Models with something taken out: a random effect, or a fixed effect held at a value.

All from the cross-products of the larger model; no row is looked at.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mixedlearn.covariance import CovarianceStructure, make_structure
from mixedlearn.cross_products import Crossing, CrossProducts
from mixedlearn.design import Factor, Specification


def without_effect(
    products: CrossProducts, specification: Specification, k: int, effect: int
) -> tuple[CrossProducts, Specification]:
    """Take a random effect out of factor k; the factor as a whole if nothing is left of it.

    Effects with a common variance go together.
    """
    factor = specification.factors[k]
    if len(factor.effects) == 1 or factor.structure.kind == "scalar":
        return without_factor(products, specification, k)
    kept = [own for own in range(len(factor.effects)) if own != effect]
    is_intercept = factor.random_intercept and effect == 0
    slope = effect - factor.random_intercept
    smaller = Factor(
        name=factor.name,
        columns=factor.columns,
        slopes=factor.slopes
        if is_intercept
        else (*factor.slopes[:slope], *factor.slopes[slope + 1 :]),
        effects=tuple(factor.effects[own] for own in kept),
        random_intercept=factor.random_intercept and not is_intercept,
        structure=_part(factor, kept),
    )
    factors = tuple(
        smaller if other == k else own for other, own in enumerate(specification.factors)
    )
    if not is_intercept:
        products = _without_slope(products, k, slope + 1)
    return products, replace(specification, factors=factors)


def without_factor(
    products: CrossProducts, specification: Specification, k: int
) -> tuple[CrossProducts, Specification]:
    """Take a grouping factor out of the model."""
    kept = [other for other in range(len(specification.factors)) if other != k]
    smaller = replace(
        products,
        z_columns=tuple(products.z_columns[other] for other in kept),
        grouped=tuple(products.grouped[other] for other in kept),
        crossings={
            (kept.index(i), kept.index(j)): crossing
            for (i, j), crossing in products.crossings.items()
            if k not in (i, j)
        },
    )
    factors = tuple(specification.factors[other] for other in kept)
    return smaller, replace(specification, factors=factors)


def with_coef_held(
    products: CrossProducts, specification: Specification, coef: int, value: float
) -> tuple[CrossProducts, Specification]:
    """Hold a coefficient at a value: its column, times the value, leaves the response."""
    shift = products.shift.copy()
    if specification.fit_intercept and coef == 0:
        shift[-1] -= value
        held = replace(specification, fit_intercept=False, terms=())
        return replace(products, shift=shift), held
    position = coef - specification.fit_intercept
    column = specification.fixed[position]
    shift[-1] -= value * shift[column]
    turn = np.eye(len(products.gram))
    turn[column + 1, -1] = -value
    fixed = (*specification.fixed[:position], *specification.fixed[position + 1 :])
    moved = replace(
        products,
        shift=shift,
        gram=turn.T @ products.gram @ turn,
        grouped=tuple(
            np.concatenate([own[:, :-1], own[:, -1:] - value * own[:, column + 1, None]], axis=1)
            for own in products.grouped
        ),
    )
    return moved, replace(specification, fixed=fixed, terms=())


def _part(factor: Factor, kept: list[int]) -> CovarianceStructure:
    effects = [factor.effects[own] for own in kept]
    structure = factor.structure
    if structure.kind == "mask":
        return make_structure(structure.mask[np.ix_(kept, kept)], effects)
    return make_structure(structure.kind, effects)


def _without_slope(products: CrossProducts, k: int, position: int) -> CrossProducts:
    """Take the z column at a position out of factor k."""
    grouped, z_columns = list(products.grouped), list(products.z_columns)
    grouped[k] = np.delete(grouped[k], position, axis=0)
    z_columns[k] = (*z_columns[k][:position], *z_columns[k][position + 1 :])
    crossings = {}
    for (i, j), crossing in products.crossings.items():
        own = crossing.products
        if k in (i, j):
            own = np.delete(own, position, axis=0 if k == i else 1)
        crossings[i, j] = Crossing(crossing.first, crossing.second, own)
    return replace(
        products, grouped=tuple(grouped), z_columns=tuple(z_columns), crossings=crossings
    )
