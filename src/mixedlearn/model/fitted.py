"""The fitted model: a frozen object with everything the attributes and later inference need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, wraps
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.covariance.algebra import smallest_deviation
from mixedlearn.covariance.components import VarianceComponents, covariance_directions
from mixedlearn.data.levels import LevelTable
from mixedlearn.data.sums import Sums
from mixedlearn.engines.bases import FixedBasis, RandomBasis
from mixedlearn.engines.problem import Problem, engine_in_bases, make_problem
from mixedlearn.engines.protocol import Engine, FixedEffects, Posterior
from mixedlearn.engines.recipe import Recipe
from mixedlearn.search.sampled import SamplingErrors, standard_error
from mixedlearn.specification import Specification
from mixedlearn.threads import one_thread

FloatArray = NDArray[np.float64]
Result = TypeVar("Result")

# A standard deviation of the engine's effects, relative to its natural unit, that is zero.
SINGULAR = 1e-8
# Share of its terms that is left of a sum that is zero.
ROUNDING = 1e-14


@dataclass(frozen=True, slots=True)
class Sampling:
    """The sampling error of a fit with random probes.

    Attributes
    ----------
    errors : SamplingErrors
        Of the variance parameters.
    objectives : ndarray of shape (n_probes,)
        How the objective of every probe differs from the mean of all.
    """

    errors: SamplingErrors
    objectives: FloatArray

    @property
    def objective_error(self) -> float:
        """Standard error of the objective."""
        return standard_error(self.objectives)


@dataclass(frozen=True)
class FittedModel:
    """A model with its estimates. Holds sums, and rows only for the noise of a residual structure.

    Attributes
    ----------
    recipe : Recipe
        How it was fitted; refits follow it.
    sums : Sums
        Of the rows of the fit, with their levels.
    fixed_basis : FixedBasis
    random_bases : tuple of RandomBasis
        One for every factor.
    roots : tuple of ndarray of shape (q*, q*)
        Lambda of every factor in the engine's columns.
    fixed_effects : FixedEffects
        Generalised least squares in the engine's columns.
    blups : tuple of ndarray of shape (m, q)
        Conditional means of every factor's random effects, in the user's units.
    objective : float
        Minus twice the (restricted) log-likelihood.
    n_iterations : int
        Iterations of the optimiser.
    is_certified : bool
        Whether the optimum carries its certificate.
    rounding : float
        How far rounding error may have moved the objective.
    warnings : tuple of str
        What could not be estimated, in words.
    observed_sums : Sums, optional
        Of the rows that the random effects are predicted from, if these are more than the rows of
        the fit: their levels are those of ``blups``. The estimates and the likelihood are always
        those of ``sums``.
    unknown_variances : dict of int to ndarray of shape (q,), bool
        By factor, the effects whose variances the data say nothing of, since fixed effects explain
        them.
    sampling : Sampling, optional
        What is known of the sampling error, if the fit was one with random probes.
    noise : FittedNoise, optional
        The covariance of the noise, if it has a residual structure: the sums are then those in its
        metric.
    """

    recipe: Recipe
    sums: Sums
    fixed_basis: FixedBasis
    random_bases: tuple[RandomBasis, ...]
    roots: tuple[FloatArray, ...]
    fixed_effects: FixedEffects
    blups: tuple[FloatArray, ...]
    objective: float
    n_iterations: int
    is_certified: bool
    rounding: float
    warnings: tuple[str, ...]
    observed_sums: Sums | None = None
    unknown_variances: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)
    sampling: Sampling | None = None
    noise: Any = None

    @property
    def specification(self) -> Specification:
        """The model in terms of the columns."""
        return self.recipe.specification

    @property
    def is_bounded(self) -> bool:
        """Whether noise was added, to bound the likelihood."""
        return self.recipe.is_bounded

    @property
    def observed(self) -> Sums:
        """The sums that the random effects are predicted from; see ``observed_sums``."""
        return self.sums if self.observed_sums is None else self.observed_sums

    @property
    def sums_of_rows(self) -> Sums:
        """The sums of the rows of the fit as they are, whatever the covariance of the noise."""
        return self.sums if self.noise is None else self.noise.sums

    @property
    def levels(self) -> tuple[pd.Index, ...]:
        """For every factor, the levels that ``blups`` belong to."""
        return self.observed.levels

    @cached_property
    def tables(self) -> tuple[LevelTable, ...]:
        """The levels, prepared for look-ups."""
        return tuple(map(LevelTable, self.levels))

    @property
    def noise_variance(self) -> float:
        """Residual variance of a row of weight one."""
        if self.fixed_basis.is_exact:
            return 0.0
        return self.fixed_effects.noise_variance * self.fixed_basis.scale**2

    @property
    def likelihood_df(self) -> int:
        """Rows; of the restricted likelihood those less the fixed effects that are not aliased."""
        n_fixed = len(self.fixed_effects.coef) if self.specification.reml else 0
        return self.sums.n_rows - n_fixed

    @property
    def coef(self) -> FloatArray:
        """Coefficients, the intercept first if there is one; aliased ones are zero."""
        basis = self.fixed_basis
        return basis.offset + basis.scale * (basis.to_user @ self.fixed_effects.coef)

    @property
    def coef_covariance(self) -> FloatArray:
        """Covariance of the coefficients, the variance components taken as known."""
        root = self.fixed_basis.to_user @ self.fixed_effects.inverse_root
        return self.noise_variance * root @ root.T

    @property
    def relative_roots(self) -> tuple[FloatArray, ...]:
        """A root of every factor's D in the user's units, shapes (q, q*)."""
        relative = []
        for k, (random, root) in enumerate(zip(self.random_bases, self.roots, strict=True)):
            own = random.to_user @ root
            if k in self.unknown_variances:
                # A variance that was taken as zero is zero in the user's units, too.
                own[np.abs(own) <= ROUNDING * (np.abs(random.to_user) @ np.abs(root))] = 0.0
            relative.append(own)
        return tuple(relative)

    @property
    def user_theta(self) -> FloatArray:
        """Free entries of every factor's Lambda in the user's units."""
        parts = [np.empty(0)]
        for factor, random, relative in zip(
            self.specification.factors, self.random_bases, self.relative_roots, strict=True
        ):
            root = np.zeros((factor.structure.n_effects, factor.structure.n_effects))
            root[:, random.kept] = relative
            parts.append(factor.structure.theta_of_root(root))
        return np.concatenate(parts)

    @property
    def covariances(self) -> tuple[FloatArray, ...]:
        """Covariance of the random effects of a level of every factor, shapes (q, q)."""
        return tuple(self.noise_variance * root @ root.T for root in self.relative_roots)

    @property
    def is_singular(self) -> bool:
        """Whether the covariance of some factor's random effects has no full rank."""
        return any(
            len(root) < own.structure.n_effects or bool(smallest_deviation(root) < SINGULAR)
            for root, own in zip(self.roots, self.specification.factors, strict=True)
        )

    @property
    def has_random_effects(self) -> bool:
        """Whether the random effects have any variance."""
        return any(bool(root.any()) for root in self.roots)

    def problem(self) -> Problem:
        """The likelihood of the fit, made from its sums."""
        return make_problem(self.sums, self.recipe)

    @cached_property
    def posterior(self) -> Posterior:
        """Distribution of the random effects given the response, in the engine's columns."""
        with one_thread:
            engine = engine_in_bases(
                self.observed, self.recipe, self.fixed_basis, self.random_bases
            )
            return engine.posterior(self.roots)

    def conditional_covariances(self, k: int) -> FloatArray:
        """Covariance of the effects of each level of factor k given the response, (m, q, q).

        The coefficients are taken as known, as in lme4's ``ranef(condVar=TRUE)``.
        """
        to_user = self.random_bases[k].to_user
        partial = np.einsum("ai,ijm->maj", to_user, self.posterior.covariance(k))
        return self.noise_variance * (partial @ to_user.T)

    @cached_property
    def computed(self) -> dict[Callable[[FittedModel], Any], Any]:
        """What functions that are `once_per_fit` have found."""
        return {}

    def observing(self, sums: Sums | None, blups: tuple[FloatArray, ...]) -> FittedModel:
        """The same estimates, with the BLUPs of other rows, or of those of the fit (None)."""
        other = replace(self, observed_sums=sums, blups=blups)
        # What follows from the estimates alone is known of both.
        vars(other)["computed"] = self.computed
        return other

    def __getstate__(self) -> dict[str, object]:
        """The state to pickle: what can be computed again is left out, and may be large."""
        return {own.name: getattr(self, own.name) for own in fields(self)}


def covariance_changes(
    model: FittedModel,
    components: VarianceComponents,
    theta: FloatArray,
    entries: NDArray[np.intp],
    log_noise: FloatArray,
) -> tuple[FloatArray, ...]:
    """Derivatives of ``s2 T Lambda Lambda' T'``, the covariances in the user's units.

    Parameters
    ----------
    model : FittedModel
    components : VarianceComponents
        The structures in the engine's columns.
    theta : ndarray of shape (n_parameters,)
        In the engine's columns.
    entries : ndarray of shape (a,), int
        The entries of theta by which the derivatives are.
    log_noise : ndarray of shape (a,)
        Derivatives of the logarithm of the noise variance by them.

    Returns
    -------
    changes : tuple of ndarray of shape (a, q_k, q_k)
    """
    found = []
    for random, change, covariance in zip(
        model.random_bases,
        covariance_directions(components, theta),
        model.covariances,
        strict=True,
    ):
        turned = model.noise_variance * (random.to_user @ change[entries] @ random.to_user.T)
        found.append(turned + log_noise[:, None, None] * covariance)
    return tuple(found)


def once_per_fit(compute: Callable[[FittedModel], Result]) -> Callable[[FittedModel], Result]:
    """Compute something of the estimates and the rows of a fit once, however many tables need it.

    It is kept beside the model, which never changes: another fit is another model, and starts with
    nothing. Pickles and copies do not hold it.
    """

    @wraps(compute)
    def known(model: FittedModel) -> Result:
        if compute not in model.computed:
            model.computed[compute] = compute(model)
        found: Result = model.computed[compute]
        return found

    return known


def user_blups(
    engine: Engine,
    fixed: FixedBasis,
    randoms: Sequence[RandomBasis],
    roots: tuple[FloatArray, ...],
    fixed_effects: FixedEffects,
) -> tuple[FloatArray, ...]:
    """BLUPs of every factor's random effects in the user's units, shapes (m, q)."""
    blups = engine.random_effects(roots, fixed_effects) if roots else ()
    return tuple(user_effects(fixed, *own) for own in zip(randoms, blups, strict=True))


def user_effects(fixed: FixedBasis, random: RandomBasis, effects: FloatArray) -> FloatArray:
    """Random effects of shape (q*, m) in the user's units, shape (m, q)."""
    return fixed.scale * (random.to_user @ effects).T
