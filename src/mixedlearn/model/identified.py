"""Whether rows identify a residual structure: beside random effects, and at the end of a search."""

from __future__ import annotations

from itertools import compress

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.residual.correlations import ByDistance, Equal, Free
from mixedlearn.covariance.residual.monomial import Monomial
from mixedlearn.covariance.residual.partial import PartialCorrelations
from mixedlearn.covariance.residual.unrestricted import Unrestricted
from mixedlearn.data.rows import CodedRows
from mixedlearn.engines.correlated.binding import Binding
from mixedlearn.engines.correlated.problem import CorrelatedProblem
from mixedlearn.engines.correlated.rows import NoiseRows
from mixedlearn.search.moving import Arrival
from mixedlearn.specification import Specification

FloatArray = NDArray[np.float64]

# A correlation matrix whose smallest eigenvalue is below this is singular.
SINGULAR_CORRELATION = 1e-7
# How close to an end a correlation is that a search without a certified optimum was following.
RUNNING_AWAY = 1e-5
# A curvature of the objective by a logarithm or the coordinate of a correlation that is less than
# this is none: it is about the number of rows that tell the parameter.
FLAT = 1e-4
# An eigenvalue of the Hessian, scaled to a diagonal of ones, that is less than this is zero: those
# of parameters that rows tell, even of a few, are above 1e-3, and rounding error is about 1e-7. Its
# direction is one of the noise if that much of its length is in a parameter of it: it may be a
# rotation of a singular covariance of random effects.
NO_CURVATURE, OF_NOISE = 1e-5, 0.01
# Standard deviations of the noise of rows differ by no more than this factor; the same of a search
# without a certified optimum.
MOST_LOG_RATIO, RUNNING_LOG_RATIO = float(np.log(1e7)), float(np.log(1e5))


class NotIdentifiedError(ValueError):
    """The likelihood has no maximum in the parameters of the noise."""


def check_effects(
    specification: Specification, rows: CodedRows, noise: NoiseRows, binding: Binding
) -> None:
    """Refuse random effects that differ within a series, or that its noise holds already.

    Raises
    ------
    ValueError
    """
    correlation = binding.correlation
    if correlation is None:
        return
    kind, series, name = binding.kind, binding.series, binding.series_name
    assert series is not None
    for factor, codes in zip(specification.factors, rows.known_codes, strict=True):
        level = np.full(len(series), -1)
        level[noise.series] = codes
        if (level[noise.series] != codes).any():
            raise ValueError(
                f"Rows of one level of {name!r} are of several levels of {factor.name!r}: a "
                f"residual structure within {name!r} goes with random effects of factors "
                f"that are constant there. Leave out the random effects of {factor.name!r}."
            )
        is_same = len(np.unique(codes)) == len(series)
        holds = isinstance(correlation, Free) or (
            isinstance(correlation, (Equal, ByDistance))
            and not noise.deviations.shape[1]
            and factor.random_intercept
        )
        if is_same and holds:
            raise ValueError(
                f"{kind} within {name!r} and the random effects of {factor.name!r} cannot "
                "be told apart: the residual covariance holds what the effects would add. Leave "
                "out one of them (random_intercept=False, or no term with a bar)."
            )


def check_identified(
    problem: CorrelatedProblem,
    arrival: Arrival,
    binding: Binding,
    noise_rows: NoiseRows,
    max_iter: int,
) -> None:
    """Refuse a noise covariance that has run away.

    Raises
    ------
    ValueError
        If it is singular, so that the likelihood has no maximum.
    """
    if not np.isfinite(arrival.evaluation.objective):
        raise not_identified()
    margin, most = SINGULAR_CORRELATION, MOST_LOG_RATIO
    if not arrival.is_certified:
        margin, most = RUNNING_AWAY, RUNNING_LOG_RATIO
    n_ratios = len(binding.deviation_names)
    for number, (part, point) in enumerate(
        zip(problem.parameters.parts, arrival.point.parts, strict=True)
    ):
        if isinstance(part, Unrestricted):
            covariance = point @ point.T
            sizes = np.sqrt(np.diag(covariance))
            smallest = np.linalg.eigvalsh(covariance / np.outer(sizes, sizes))[0]
            limit = None
            if smallest < SINGULAR_CORRELATION or (
                not arrival.is_certified and arrival.n_iterations < max_iter
            ):
                limit = ""
        else:
            assert isinstance(part, Monomial)
            own = noise_rows.part == number
            place = problem.parameters.slices[number]
            is_flat = np.abs(arrival.evaluation.hessian.diagonal()[place]) < FLAT
            logs = noise_rows.deviations[own, :n_ratios] @ point[:n_ratios]
            if np.ptp(logs) > most:
                is_flat[np.argmax(np.abs(point[:n_ratios]))] = True
            limit = _limit(part, point, binding, margin, is_flat)
        if limit is not None:
            raise not_identified(binding.of_part(number), limit)
    if arrival.is_certified:
        _check_ridge(problem, arrival.evaluation.hessian, binding)


def _check_ridge(problem: CorrelatedProblem, hessian: FloatArray, binding: Binding) -> None:
    """Refuse optima from which a direction of noise parameters leads to others as good."""
    diagonal = hessian.diagonal()
    # A correlation at the end of its range that is zero is flat by itself.
    kept = np.flatnonzero(diagonal >= FLAT)
    sizes = np.sqrt(diagonal[kept])
    values, vectors = np.linalg.eigh(hessian[np.ix_(kept, kept)] / np.outer(sizes, sizes))
    share = np.zeros(len(diagonal))
    share[kept] = np.abs(vectors[:, values < NO_CURVATURE]).max(axis=1, initial=0.0)
    found: list[str] = []
    for number, (part, place) in enumerate(
        zip(binding.parts, problem.parameters.slices, strict=True)
    ):
        is_flat = share[place] > OF_NOISE
        names = ["residual covariance"] * len(is_flat)
        if isinstance(part, Monomial):
            names = _parameter_names(part, binding)
        found += [f"{name}{binding.of_part(number)}" for name in compress(names, is_flat)]
    if not found:
        return
    # Ratios of variances follow from a correlation.
    name = next((own for own in found if own.startswith(("correlation", "partial"))), found[0])
    raise NotIdentifiedError(
        f"The {name} is not identified by these rows: other values of it, with other variances of "
        "the noise or of random effects, have the same likelihood. Use a structure with fewer "
        "parameters, or leave out effects that are constant within "
        f"{binding.series_name or 'the rows of a stratum'}."
    )


def _parameter_names(part: Monomial, binding: Binding) -> list[str]:
    """What the parameters of a part are called."""
    occasions = [] if binding.occasions is None else list(map(str, binding.occasions))
    names = [*binding.deviation_names, "variance ratio"][: part.n_deviations]
    if binding.correlation is None:
        return names
    kind = "partial " if isinstance(part, PartialCorrelations) else ""
    return names + [kind + own for own in binding.correlation.names(occasions)]


def _limit(
    part: Monomial,
    point: FloatArray,
    binding: Binding,
    margin: float,
    is_flat: NDArray[np.bool_],
) -> str | None:
    """What has run away to where the covariance is singular, in words; None if nothing has."""
    names = _parameter_names(part, binding)
    for name in compress(names[: part.n_deviations], is_flat):
        return f": the {name} runs away"
    for k, (rho, own) in enumerate(zip(part.bounded(point)[0], part.ranges, strict=True)):
        is_upper = own.upper - rho < rho - own.lower
        distance = min(own.upper - rho, rho - own.lower)
        # A correlation of zero is an end of its range, and as good as any.
        is_end = is_upper or own.lower < 0.0
        if is_end and (distance < margin or is_flat[part.n_deviations + k]):
            end = own.upper if is_upper else own.lower
            return f": the {names[part.n_deviations + k]} tends to {end:.3g}"
    return None


def not_identified(where: str = "", limit: str = "") -> NotIdentifiedError:
    """The error of a likelihood without a maximum."""
    return NotIdentifiedError(
        f"The residual covariance{where} is not identified by these rows: the likelihood rises "
        f"until it is singular{limit}. Too few levels have all occasions, the effects reproduce "
        "the response of some rows exactly, or the structure cannot be told from the random "
        "effects. Use a structure with fewer parameters, or fewer effects."
    )
