"""The fit of models whose noise is correlated or has several variances.

At a given noise covariance R the model is an ordinary one for the rows times a root of ``R^-1``:
its sums are those in the metric of R, and everything that is known of mixed models holds for them.
What is new is the search for R, and what R says of other rows of a level.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.residual.monomial import Monomial
from mixedlearn.covariance.residual.unrestricted import Unrestricted
from mixedlearn.data.labels import shown
from mixedlearn.data.rows import CodedRows, Rows
from mixedlearn.data.sums import Sums
from mixedlearn.engines.bases import fixed_basis, random_basis
from mixedlearn.engines.correlated.binding import Binding
from mixedlearn.engines.correlated.covariance import Point
from mixedlearn.engines.correlated.problem import CorrelatedProblem, NoiseRows
from mixedlearn.engines.recipe import Recipe
from mixedlearn.model.fit import fit_sums
from mixedlearn.model.fitted import FittedModel
from mixedlearn.search.moving import Arrival, descend_from

FloatArray = NDArray[np.float64]

# A correlation matrix whose smallest eigenvalue is below this is singular.
SINGULAR_CORRELATION = 1e-7
# The covariance of the random effects that a search starts from is at least this, relative to the
# noise: from zero no derivative shows the way.
LEAST_VARIANCE = 0.1


@dataclass(frozen=True)
class FittedNoise:
    """The noise of a fitted model.

    Attributes
    ----------
    binding : Binding
    sums : Sums
        Of the rows, as if the noise was independent.
    rows : CodedRows
    noise_rows : NoiseRows
        What the noise of the rows depends on.
    point : Point
        The parameters, in the engine's columns.
    """

    binding: Binding
    sums: Sums
    rows: CodedRows
    noise_rows: NoiseRows
    point: Point = field(repr=False)

    def problem(self, recipe: Recipe) -> CorrelatedProblem:
        """The likelihood of the rows."""
        return make_correlated(self.sums, self.rows, self.noise_rows, self.binding, recipe)


def make_correlated(
    sums: Sums, rows: CodedRows, noise: NoiseRows, binding: Binding, recipe: Recipe
) -> CorrelatedProblem:
    """The likelihood of rows with correlated noise."""
    specification = recipe.specification
    fixed = fixed_basis(
        sums, specification.fixed, specification.fit_intercept, specification.drops_aliased
    )
    randoms = [
        random_basis(sums, k, factor.random_intercept, factor.structure)
        for k, factor in enumerate(specification.factors)
    ]
    return CorrelatedProblem(sums, rows, noise, binding.parts, specification, fixed, randoms)


def fit_correlated(
    independent: FittedModel, rows: Rows, noise: NoiseRows, binding: Binding
) -> FittedModel:
    """Fit the model again with a residual structure.

    Parameters
    ----------
    independent : FittedModel
        The model of the same rows with independent noise.
    rows : Rows
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
    coded = rows.coded(sums.levels)
    problem = make_correlated(sums, coded, noise, binding, recipe)
    best = _search(problem, independent, recipe)
    _check_identified(problem, best, binding)
    model = fit_sums(problem.sums_at(best.point), recipe)
    return replace(
        model,
        n_iterations=best.n_iterations,
        is_certified=model.is_certified and best.is_certified,
        noise=FittedNoise(binding, sums, coded, noise, best.point),
    )


def _search(problem: CorrelatedProblem, independent: FittedModel, recipe: Recipe) -> Arrival:
    components = problem.parameters.components
    covariances = []
    for root, structure in zip(independent.roots, components.structures, strict=True):
        lifted = root @ root.T + LEAST_VARIANCE * np.eye(len(root))
        covariances.append(structure.project(lifted, floor=LEAST_VARIANCE))
    theta = components.theta_of(covariances)
    arrivals = [
        descend_from(problem, start, max_iter=recipe.max_iter, tol=recipe.tol)
        for start in problem.starts(problem.residuals(), theta)
    ]
    certified = [own for own in arrivals if own.is_certified] or arrivals
    return min(certified, key=lambda own: own.evaluation.objective)


def _check_identified(problem: CorrelatedProblem, arrival: Arrival, binding: Binding) -> None:
    """Refuse a noise covariance that has run away.

    Raises
    ------
    ValueError
        If it is singular, so that the likelihood has no maximum.
    """
    for number, (part, point) in enumerate(
        zip(problem.parameters.parts, arrival.point.parts, strict=True)
    ):
        if isinstance(part, Unrestricted):
            covariance = point @ point.T
            sizes = np.sqrt(np.diag(covariance))
            smallest = np.linalg.eigvalsh(covariance / np.outer(sizes, sizes))[0]
            is_singular = smallest < SINGULAR_CORRELATION or not arrival.is_certified
        else:
            assert isinstance(part, Monomial)
            is_singular = any(
                min(rho - own.lower, own.upper - rho) < SINGULAR_CORRELATION
                for rho, own in zip(part.correlations(point), part.ranges, strict=True)
            )
        if is_singular:
            where = "" if binding.by is None else f" of {shown(binding.by[number])}"
            raise ValueError(
                f"The residual covariance{where} is not identified by these rows: the likelihood "
                "rises for ever as it becomes singular. Too few levels have all occasions, or the "
                "structure cannot be told from the random effects. Use a structure with fewer "
                "parameters, or fewer random effects."
            )
