"""The fit of models whose noise is correlated or has several variances.

At a given noise covariance R the model is an ordinary one for the rows times a root of ``R^-1``:
its sums are those in the metric of R, and everything that is known of mixed models holds for them.
What is new is the search for R, and what R says of other rows of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

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
from mixedlearn.model.identified import check_effects, check_identified, not_identified
from mixedlearn.search.moving import Arrival, descend_from

FloatArray = NDArray[np.float64]

# By how much less an objective without a certificate has to be.
MUCH_BETTER = 1e-4
# The covariance of the random effects that a search starts from is at least this, relative to the
# noise: from zero no derivative shows the way.
LEAST_VARIANCE = 0.1


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
    check_effects(independent.specification, rows, noise, binding)
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
    check_identified(problem, best, noise.binding, noise.noise_rows, recipe.max_iter)
    try:
        own_sums, basis = problem.sums_at(best.point)
    except np.linalg.LinAlgError:
        raise not_identified() from None
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
            "independent noise. The user guide, Correlated measurements, says what is not "
            "supported. residual=None fits the model without the structure."
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
