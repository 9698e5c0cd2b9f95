"""Smaller models: without fixed or random effects, or with a fixed effect held at a value.

A smaller model is fitted to the sums of the larger one, of which it needs a part; no row
is looked at.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from mixedlearn.covariance.structures import make_structure
from mixedlearn.data.sums import Sums
from mixedlearn.specification import INTERCEPT, Specification


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
    sums: Sums, specification: Specification, k: int, effects: Set[int]
) -> tuple[Sums, Specification]:
    """The model without some random effects of factor k, given by their positions.

    Without all of them, the factor goes as a whole.
    """
    factor = specification.factors[k]
    rest = [effect for effect in range(len(factor.effects)) if effect not in effects]
    factors = list(specification.factors)
    if not rest:
        del factors[k]
        chosen = [other for other in range(sums.n_factors) if other != k]
        return sums.of_factors(chosen), replace(specification, factors=tuple(factors))
    n_intercept = int(factor.random_intercept)
    slopes = [effect - n_intercept for effect in rest if effect >= n_intercept]
    factors[k] = replace(
        factor,
        slopes=tuple(factor.slopes[slope] for slope in slopes),
        effects=tuple(factor.effects[effect] for effect in rest),
        random_intercept=factor.random_intercept and 0 in rest,
        structure=factor.structure.restricted(rest),
    )
    return sums.with_slopes(k, slopes), replace(specification, factors=tuple(factors))


def with_intercept_alone(
    sums: Sums, specification: Specification, k: int
) -> tuple[Sums, Specification]:
    """The model with a random intercept in place of all random effects of factor k."""
    factors = list(specification.factors)
    factors[k] = replace(
        factors[k],
        slopes=(),
        effects=(INTERCEPT,),
        random_intercept=True,
        structure=make_structure("full", (INTERCEPT,)),
    )
    return sums.with_slopes(k, ()), replace(specification, factors=tuple(factors))


def with_coef_held(
    sums: Sums, specification: Specification, coef: int, value: float
) -> tuple[Sums, Specification]:
    """Hold a coefficient at a value: its column, times the value, leaves the response."""
    held = without_coefs(specification, {coef})
    if specification.fit_intercept and coef == 0:
        return sums.less_constant(value), held
    column = specification.fixed[coef - specification.fit_intercept]
    return sums.less_column(column, value), held
