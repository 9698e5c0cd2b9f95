"""What a fit has to say: parts of a model that cannot be estimated, in words.

Every note names the factor, the columns or the effects at fault, and what to do.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.sums import Sums
from mixedlearn.engines.bases import FixedBasis
from mixedlearn.engines.problem import Problem
from mixedlearn.model.confounding import ExplainedEffects
from mixedlearn.search.sampled import SamplingErrors
from mixedlearn.specification import Specification

FloatArray = NDArray[np.float64]

# An objective that is less certain than this is worth a word.
MUCH_ROUNDING = 1e-4
# A sampling error beyond this share of a standard error, too.
MUCH_SAMPLING = 0.05
# Coefficients of a combination that differ by no more are equal.
SAME_COEFFICIENT = 1e-7
# So many fixed effects are named in a note.
MOST_NAMES = 6
EXACT_FIT = (
    "The fixed effects reproduce the response exactly: the noise variance and the variances of the "
    "random effects are zero."
)
VANISHING_NOISE = (
    "The noise variance cannot be told from zero: the likelihood is the same for any smaller one. "
    "The random effects can follow the response exactly. Name fewer random effects, or give more "
    "rows."
)
UNBOUNDED = (
    "The likelihood rises for ever as the noise variance falls: the fixed and random effects can "
    "follow the response exactly, and the model is not identified by these rows. The estimates are "
    "no optimum. Name fewer columns as fixed or random effects, or give more rows."
)
_MORE_DIGITS = (
    "Columns that differ by little beside their size, or a response that they explain almost "
    "completely, take their digits: center and scale such columns, leave one of a pair out, or "
    "pass rows to fit at which it can look again, in memory or in Parquet files."
)
FEWER_DIGITS = (
    "The sums of rows that were read batch by batch keep fewer digits than the rows have, and "
    "these are not there any more: the last digits of the estimates are uncertain. "
    f"{_MORE_DIGITS}"
)
LOST_DIGITS = (
    "The sums of rows that were read batch by batch keep hardly a digit of the noise, and the rows "
    f"are not there any more: no digit of the estimates is certain. {_MORE_DIGITS}"
)


def largest_term(specification: Specification) -> str:
    """A sentence about the term of most columns, which may be text that was meant otherwise."""
    largest = max(specification.terms, key=lambda term: len(term.coefs), default=None)
    if largest is None or len(largest.coefs) < 2:
        return ""
    return f" The term {largest.name!r} alone has {len(largest.coefs)}."


def aliasing_notes(specification: Specification, problem: Problem) -> tuple[str, ...]:
    """Columns that are combinations of others."""
    notes = []
    basis = problem.fixed
    left_out = np.flatnonzero(basis.aliased)
    if len(left_out) and not specification.drops_aliased:
        left_out = left_out[~_completes_constant(specification, basis)]
    if len(left_out):
        names = [specification.coef_names[coef] for coef in left_out]
        outcome = (
            "Their coefficients are set to zero."
            if specification.drops_aliased
            else "Of all coefficients that predict the same, coef_ holds the shortest, as "
            "LinearRegression does."
        )
        notes.append(
            f"The fixed effects of {', '.join(map(repr, names))} are aliased: these columns are "
            f"constant or linear combinations of earlier ones. {outcome}"
        )
    for factor, random in zip(specification.factors, problem.randoms, strict=True):
        names = [
            name for name, aliased in zip(factor.effects, random.aliased, strict=True) if aliased
        ]
        if names:
            of_factor = f" of {factor.name!r}" if len(specification.factors) > 1 else ""
            notes.append(
                f"The random effects{of_factor} of {', '.join(map(repr, names))} are aliased: "
                "these columns are constant or linear combinations of earlier ones. Their "
                "variances are set to zero."
            )
    return tuple(notes)


def _completes_constant(specification: Specification, basis: FixedBasis) -> NDArray[np.bool_]:
    """Which aliased columns add up to one with others, as all dummies of a category do.

    So do the columns of a spline basis. With an intercept beside them one is too many, whatever the
    data are.
    """
    if not specification.fit_intercept:
        return np.zeros(basis.null.shape[1], bool)
    slopes = basis.null[1:]
    is_part = np.abs(slopes - 1.0) <= SAME_COEFFICIENT
    has_no_other = (is_part | (slopes == 0.0)).all(axis=0)
    is_one = np.abs(basis.null[0] + 1.0) <= SAME_COEFFICIENT
    return np.asarray(has_no_other & is_one & (is_part.sum(axis=0) > 1))


def lost_weights_note(ratio: float) -> str:
    """What too different weights do."""
    return (
        f"The weights differ by a factor of {ratio:.0e}: what the rows of little weight say is "
        "lost in rounding error, and no digit of the estimates is certain. Give rows of so little "
        "weight the weight zero, or make the largest weights smaller."
    )


def noise_notes(problem: Problem) -> tuple[str, ...]:
    """The random effects reproduce the response."""
    if not problem.is_bounded or problem.fixed.is_exact:
        return ()
    # Elimination finds noise that is lost in its own rounding error, which is more than the data's.
    degree = "exactly" if problem.engine.has_exact_hessian else "but for rounding error"
    return (
        f"The random effects reproduce the response {degree}: the noise variance cannot be told "
        "from zero, and the likelihood has no maximum. The estimates are those of a very small "
        "noise.",
    )


def rounding_notes(problem: Problem, rounding: float) -> tuple[str, ...]:
    """What elimination loses; the other engines keep more digits than they promise."""
    if problem.is_bounded or problem.engine.has_exact_hessian or rounding <= MUCH_ROUNDING:
        return ()
    return (
        "The noise is so small beside the random effects that rounding error leaves the "
        f"log-likelihood uncertain by about {rounding:.0e}: the variances have few right digits.",
    )


def level_notes(
    specification: Specification, sums: Sums, confounded: dict[int, FloatArray | None]
) -> tuple[str, ...]:
    """Factors of one level, and those whose levels cannot be told from noise."""
    notes = []
    for k, (factor, n_levels) in enumerate(zip(specification.factors, sums.n_levels, strict=True)):
        if k in confounded:
            rows = "one row" if n_levels == sums.n_rows else "too few rows"
            share = "" if confounded[k] is None else ", and as much as can be is counted as noise"
            notes.append(
                f"Every level of {factor.name!r} has {rows}: the variances of its random effects "
                f"cannot be told from the noise variance{share}."
            )
        elif n_levels == 1:
            notes.append(
                f"The factor {factor.name!r} has one level: the variances of its random effects "
                "cannot be estimated from a single draw."
            )
    return tuple(notes)


def explained_notes(
    specification: Specification, explained: dict[int, ExplainedEffects], zeroed: set[int]
) -> tuple[str, ...]:
    """Random effects that the fixed effects explain."""
    notes = []
    for k, own in explained.items():
        factor = specification.factors[k]
        effects = ", ".join(
            repr(name) for name, is_one in zip(factor.effects, own.effects, strict=True) if is_one
        )
        variances = f"the variance{'s' if own.effects.sum() > 1 else ''} of {effects}"
        if not own.effects.any():
            variances = "the correlations of the random effects"
        if not specification.reml:
            fact = f"the likelihood makes {variances} as small as can be, whatever the response is"
        elif k in zeroed:
            fact = (
                f"the restricted likelihood is the same whatever {variances} may be: zero is taken"
            )
        else:
            fact = f"the restricted likelihood is the same for many values of {variances}"
        notes.append(
            f"The fixed effects of {_explaining_names(specification, own.coefs)} explain random "
            f"effects of {factor.name!r} completely, so that {fact}. The standard errors and tests "
            "of these fixed effects hold only if it is so, and are too small if the levels of "
            f"{factor.name!r} differ by more. Leave out these fixed effects or the random effects, "
            f"or observe more levels of {factor.name!r}."
        )
    return tuple(notes)


def _explaining_names(specification: Specification, coefs: NDArray[np.bool_]) -> str:
    """Fixed effects by name, those of a term by the name of the term."""
    names = []
    in_terms: set[int] = set()
    for term in specification.terms:
        own = set(np.flatnonzero(coefs).tolist()).intersection(term.coefs)
        in_terms |= own
        names += [term.name] * bool(own)
    rest = [
        name
        for position, name in enumerate(specification.coef_names)
        if coefs[position] and position not in in_terms
    ]
    names = rest + names
    shown = ", ".join(map(repr, names[:MOST_NAMES]))
    return shown if len(names) <= MOST_NAMES else f"{shown} and {len(names) - MOST_NAMES} others"


def equal_factor_notes(specification: Specification, sums: Sums) -> tuple[str, ...]:
    """Factors that divide the rows alike: random effects that both have share one variance."""
    notes = []
    for k, other in combinations(range(len(specification.factors)), 2):
        first, second = specification.factors[k], specification.factors[other]
        shared = [name for name in first.effects if name in second.effects]
        if shared and sums.is_nested(k, other) and sums.is_nested(other, k):
            notes.append(
                f"The factors {first.name!r} and {second.name!r} divide the rows in the same way: "
                f"the variances of {', '.join(map(repr, shared))} of the two cannot be told apart, "
                "only their sum. Leave one of the factors out."
            )
    return tuple(notes)


def sampling_notes(errors: SamplingErrors | None) -> list[str]:
    """What to say of variances whose sampling error is not what it should be."""
    if errors is None or errors.share <= MUCH_SAMPLING:
        return []
    return [
        f"The Monte Carlo error of a variance is {errors.share:.2g} of its standard error, and the "
        "stochastic solver may draw no more random signs or take no more iterations: see "
        "monte_carlo_errors_. Raise max_iter if the optimiser has stopped there, or use "
        "solver='exact' if the dense block fits into memory."
    ]
