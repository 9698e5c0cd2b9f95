"""The fit of models whose noise is correlated or has several variances.

At a given noise covariance R the model is an ordinary one for the rows times a root of ``R^-1``:
its sums are those in the metric of R, and everything that is known of mixed models holds for them.
What is new is the search for R, and what R says of other rows of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.residual.correlations import ByDistance, Equal, Free
from mixedlearn.covariance.residual.monomial import Monomial
from mixedlearn.covariance.residual.partial import PartialCorrelations
from mixedlearn.covariance.residual.unrestricted import Unrestricted
from mixedlearn.data.levels import LevelTable
from mixedlearn.data.rows import CodedRows
from mixedlearn.data.sums import Sums
from mixedlearn.engines.correlated.binding import Binding
from mixedlearn.engines.correlated.covariance import Point
from mixedlearn.engines.correlated.problem import (
    CorrelatedProblem,
    reference_variance,
)
from mixedlearn.engines.correlated.rows import NoiseRows
from mixedlearn.engines.correlated.starts import SMALLEST
from mixedlearn.engines.problem import fixed_basis_of, random_bases_of, with_triangles
from mixedlearn.engines.recipe import Recipe
from mixedlearn.model.digits import keeps_digits
from mixedlearn.model.exact_strata import refuse_exact_strata
from mixedlearn.model.fit import fit_sums
from mixedlearn.model.fitted import FittedModel, once_per_fit
from mixedlearn.search.moving import Arrival, descend_from

FloatArray = NDArray[np.float64]

# A correlation matrix whose smallest eigenvalue is below this is singular.
SINGULAR_CORRELATION = 1e-7
# How close to an end a correlation is that a search without a certified optimum was following.
RUNNING_AWAY = 1e-5
# A curvature of the objective by a logarithm or the coordinate of a correlation that is less than
# this is none: it is about the number of rows that tell the parameter.
FLAT = 1e-4
# By how much less an objective without a certificate has to be.
MUCH_BETTER = 1e-4
# Standard deviations of the noise of rows differ by no more than this factor; the same of a search
# without a certified optimum.
MOST_LOG_RATIO, RUNNING_LOG_RATIO = float(np.log(1e7)), float(np.log(1e5))
# The covariance of the random effects that a search starts from is at least this, relative to the
# noise: from zero no derivative shows the way.
LEAST_VARIANCE = 0.1


class NotIdentifiedError(ValueError):
    """The likelihood has no maximum in the parameters of the noise."""


@dataclass(frozen=True)
class FittedNoise:
    """The noise of a fitted model.

    Attributes
    ----------
    recipe : Recipe
        How the model was fitted.
    binding : Binding
    sums : Sums
        Of the rows, as if the noise was independent.
    rows : CodedRows
    noise_rows : NoiseRows
        What the noise of the rows depends on.
    point : Point
        The parameters, in the engine's columns.
    """

    recipe: Recipe
    binding: Binding
    sums: Sums
    rows: CodedRows
    noise_rows: NoiseRows
    point: Point = field(repr=False)

    @cached_property
    def problem(self) -> CorrelatedProblem:
        """The likelihood of the rows."""
        return make_correlated(self.sums, self.rows, self.noise_rows, self.binding, self.recipe)

    def refit(self, recipe: Recipe, sums: Sums | None, kept: Sequence[int]) -> FittedModel:
        """The model of the same rows by another recipe.

        ``sums`` are those of the rows as they are, of the factors that are kept.
        """
        independent = fit_sums(self.sums if sums is None else sums, recipe)
        rows = replace(self.rows, codes=tuple(self.rows.codes[k] for k in kept))
        return fit_correlated(independent, rows, self.noise_rows, self.binding)

    @property
    def description(self) -> str:
        """The structure, and in whose levels it holds."""
        text = repr(self.binding.residual)
        series = self.binding.series_name
        return text if series is None else f"{text} within {series}"

    @property
    def n_parameters(self) -> int:
        """Number of parameters of the noise, its variance among them."""
        parts = self.binding.parts
        return sum(part.n_parameters for part in parts) + parts[0].is_relative

    @property
    def reference(self) -> float:
        """The variance of the row of reference, to which R is relative."""
        return reference_variance(self.binding.parts, self.point)

    @cached_property
    def basis(self) -> FloatArray:
        """Basis columns of the rows, times the roots of their weights."""
        return self.sums.weighted_rows(self.rows, slice(None))

    @cached_property
    def variances(self) -> FloatArray:
        """Variances of the noise of the rows, were their weights one, relative to `reference`."""
        return self.variances_of(self.noise_rows)

    @cached_property
    def table(self) -> LevelTable:
        """The levels of the series, prepared for look-ups."""
        assert self.binding.series is not None
        return LevelTable(self.binding.series)

    @property
    def n_levels(self) -> int:
        """Number of levels of the series."""
        return len(self.rows_by_level[1]) - 1

    def rows_of_level(self, level: int) -> NDArray[np.intp]:
        """The rows of a level of the series."""
        order, bounds = self.rows_by_level
        return order[bounds[level] : bounds[level + 1]]

    @cached_property
    def rows_by_level(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The rows level by level of the series, and where every level begins; last the end."""
        series = self.noise_rows.series
        order = np.argsort(series, kind="stable")
        return order, np.searchsorted(series[order], np.arange(int(series.max()) + 2))

    @cached_property
    def occasion_times(self) -> tuple[FloatArray, NDArray[np.integer]]:
        """Times and numbers of all occasions, in their order."""
        rows = self.noise_rows
        _, first = np.unique(rows.occasions, return_index=True)
        return rows.times[first], rows.occasions[first]

    def __getstate__(self) -> dict[str, object]:
        """The state to pickle: what can be computed again is left out, and may be large."""
        return {own.name: getattr(self, own.name) for own in fields(self)}

    @property
    def occasion_names(self) -> list[str]:
        """What the occasions are called."""
        binding = self.binding
        if binding.occasions is not None:
            return [str(own) for own in binding.occasions]
        return [str(own + 1) for own in self.occasion_times[1]]

    def covariance(self, rows: NoiseRows, chosen: NDArray[np.integer]) -> FloatArray:
        """R of rows of one level of the series, or of several alike: shape (..., m, m)."""
        number = int(rows.part[chosen.flat[0]])
        layout = rows.layout_of(chosen)
        part = self.binding.parts[number]
        return part.covariance(self.point.parts[number], layout) / self.reference

    def variances_of(self, rows: NoiseRows) -> FloatArray:
        """Variances of the noise of rows of weight one, relative to the noise variance."""
        found = np.ones(len(rows.series))
        for number in np.unique(rows.part):
            own = np.flatnonzero(rows.part == number)
            found[own] = self.covariance(rows, own[:, None])[..., 0, 0]
        return found


def make_correlated(
    sums: Sums,
    rows: CodedRows,
    noise: NoiseRows,
    binding: Binding,
    recipe: Recipe,
    *,
    in_blocks: bool = False,
) -> CorrelatedProblem:
    """The likelihood of rows with correlated noise."""
    specification = recipe.specification
    fixed = fixed_basis_of(sums, specification)
    randoms = random_bases_of(sums, specification)
    return CorrelatedProblem(
        sums, rows, noise, binding.parts, specification, fixed, randoms, in_blocks=in_blocks
    )


def fit_correlated(
    independent: FittedModel, rows: CodedRows, noise: NoiseRows, binding: Binding
) -> FittedModel:
    """Fit the model again with a residual structure.

    Parameters
    ----------
    independent : FittedModel
        The model of the same rows with independent noise.
    rows : CodedRows
        Beside the levels of its sums.
    noise : NoiseRows
        What the noise of the rows depends on.
    binding : Binding

    Raises
    ------
    ValueError
        If the rows do not identify the noise covariance.
    """
    if independent.fixed_basis.is_exact:
        raise ValueError(
            "The fixed effects reproduce the response exactly: there is no noise whose covariance "
            "could be estimated. Leave residual=None."
        )
    sums, recipe = independent.sums, replace(independent.recipe, is_bounded=False)
    _check_effects(independent, rows, noise, binding)
    problem = make_correlated(sums, rows, noise, binding, recipe)
    refuse_exact_strata(problem, binding, noise, recipe.specification.reml)
    best = _search(problem, independent, recipe)
    fitted = FittedNoise(recipe, binding, sums, rows, noise, best.point)
    return _model_at(problem, best, fitted)


def refit_response(noise: FittedNoise, problem: CorrelatedProblem) -> FittedModel:
    """Fit a model again to another response of its rows.

    Parameters
    ----------
    noise : FittedNoise
        That of the model, with the rows of the new response; its point is where the search starts.
    problem : CorrelatedProblem
        That of the new response.

    Raises
    ------
    NotIdentifiedError
        If the rows do not identify the noise covariance.
    """
    recipe = noise.recipe
    best = descend_from(problem, noise.point, max_iter=recipe.max_iter, tol=recipe.tol)
    if not best.is_certified:
        others = _descents(problem, noise.point.theta, noise.point.log_scale, recipe)
        best = _best([best, *others])
    own = replace(noise, sums=problem.sums, point=best.point)
    return _model_at(problem, best, own)


def _model_at(problem: CorrelatedProblem, best: Arrival, noise: FittedNoise) -> FittedModel:
    """The model where a search has ended."""
    recipe, rows = noise.recipe, noise.rows
    _check_identified(problem, best, noise.binding, noise.noise_rows, recipe.max_iter)
    try:
        own_sums, basis = problem.sums_at(best.point)
    except np.linalg.LinAlgError:
        raise _not_identified() from None
    model = fit_sums(own_sums, recipe)
    if model.roots and not keeps_digits(model):
        chunks = [(basis, rows.known_codes)]
        specification = recipe.specification
        own_sums = with_triangles(own_sums, chunks, specification, model.problem())
        model = fit_sums(own_sums, recipe, start=model.user_theta)
    # What the search stood on is at hand for what follows, until the model is pickled.
    vars(noise)["problem"] = problem
    return replace(
        model,
        n_iterations=best.n_iterations,
        is_certified=bool(model.is_certified and best.is_certified),
        noise=noise,
    )


def _check_effects(model: FittedModel, rows: CodedRows, noise: NoiseRows, binding: Binding) -> None:
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
    for factor, codes in zip(model.specification.factors, rows.known_codes, strict=True):
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


def refuse_noise(model: FittedModel) -> None:
    """Refuse a model with a residual structure.

    Raises
    ------
    ValueError
    """
    if model.noise is not None:
        kind = model.noise.binding.kind
        raise ValueError(
            f"This is not available for a model with a residual structure, here {kind}: it assumes "
            "independent noise. The user guide, Correlated measurements, lists what is supported. "
            "residual=None fits the model without the structure."
        )


def _search(problem: CorrelatedProblem, independent: FittedModel, recipe: Recipe) -> Arrival:
    components = problem.parameters.components
    covariances = []
    for root, structure in zip(independent.roots, components.structures, strict=True):
        lifted = root @ root.T + LEAST_VARIANCE * np.eye(len(root))
        covariances.append(structure.project(lifted, floor=LEAST_VARIANCE))
    log_scale = 0.5 * np.log(max(independent.noise_variance, SMALLEST) / problem.fixed.scale**2)
    theta = components.theta_of(covariances)
    return _best(_descents(problem, theta, float(log_scale), recipe))


def _descents(
    problem: CorrelatedProblem, theta: FloatArray, log_scale: float, recipe: Recipe
) -> list[Arrival]:
    """Searches from all starts."""
    return [
        descend_from(problem, start, max_iter=recipe.max_iter, tol=recipe.tol)
        for start in problem.starts(problem.residuals(), theta, log_scale)
    ]


def _best(arrivals: Sequence[Arrival]) -> Arrival:
    """The lowest; without a certificate, only if no certified optimum is as good.

    Then a search follows a likelihood that rises to a singular covariance, or for ever.
    """
    return min(
        arrivals,
        key=lambda own: own.evaluation.objective + MUCH_BETTER * (not own.is_certified),
    )


def _check_identified(
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
        raise _not_identified()
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
            raise _not_identified(binding.of_part(number), limit)


def _limit(
    part: Monomial,
    point: FloatArray,
    binding: Binding,
    margin: float,
    is_flat: NDArray[np.bool_],
) -> str | None:
    """What has run away to where the covariance is singular, in words; None if nothing has."""
    names = [*binding.deviation_names, "variance ratio"][: part.n_deviations]
    for name in compress(names, is_flat):
        return f": the {name} runs away"
    for k, (rho, own) in enumerate(zip(part.bounded(point)[0], part.ranges, strict=True)):
        is_upper = own.upper - rho < rho - own.lower
        distance = min(own.upper - rho, rho - own.lower)
        # A correlation of zero is an end of its range, and as good as any.
        is_end = is_upper or own.lower < 0.0
        if is_end and (distance < margin or is_flat[part.n_deviations + k]):
            assert binding.correlation is not None
            occasions = [] if binding.occasions is None else list(map(str, binding.occasions))
            name = binding.correlation.names(occasions)[k]
            kind = "partial " if isinstance(part, PartialCorrelations) else ""
            end = own.upper if is_upper else own.lower
            return f": the {kind}{name} tends to {end:.3g}"
    return None


def _not_identified(where: str = "", limit: str = "") -> NotIdentifiedError:
    return NotIdentifiedError(
        f"The residual covariance{where} is not identified by these rows: the likelihood rises "
        f"until it is singular{limit}. Too few levels have all occasions, the effects reproduce "
        "the response of some rows exactly, or the structure cannot be told from the random "
        "effects. Use a structure with fewer parameters, or fewer effects."
    )


@dataclass(frozen=True, slots=True)
class CorrelatedInformation:
    """What degrees of freedom rest on; see `BlockLikelihood.kenward_roger`.

    Attributes
    ----------
    to_user : ndarray of shape (p_user, p)
        Coefficients from those of the engine, in the units of the response.
    inverse_root : ndarray of shape (p, p)
    covariance : ndarray of shape (n_parameters, n_parameters)
    changes : ndarray of shape (n_parameters, p, p)
    excess : ndarray of shape (p, p)
    """

    to_user: FloatArray
    inverse_root: FloatArray
    covariance: FloatArray
    changes: FloatArray
    excess: FloatArray


@once_per_fit
def correlated_information(model: FittedModel) -> CorrelatedInformation:
    """The observed information of all variance parameters, and what it says of the coefficients."""
    noise: FittedNoise = model.noise
    problem = noise.problem
    found = problem.for_inference().kenward_roger(noise.point)
    fixed = problem.fixed
    return CorrelatedInformation(fixed.scale * fixed.to_user, *found)
