"""Refits of a fitted model to responses that it generated, many at a time.

A response is ``X beta + d`` with beta as fitted, and only its deviations d are looked at. All but
the response stays: the fixed columns, the random columns and the levels' bases. With one grouping
factor and few levels, where Python takes more time than arithmetic, a whole batch of responses is
refitted at once (`engines.batch`, `search.batch`), from the estimates that generated them. Other
models are refitted one by one from their sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.algebra import smallest_deviation
from mixedlearn.covariance.structures import Structure
from mixedlearn.data.responses import ResponseColumns, ResponseSums
from mixedlearn.engines.bases import with_response
from mixedlearn.engines.batch import OneFactorBatch
from mixedlearn.engines.levels import (
    NO_VARIATION,
    LevelMoments,
    conditional_means,
    factorise_with_inverse,
    reduce_levels,
)
from mixedlearn.engines.problem import NOISE_FLOOR, likelihood_of
from mixedlearn.engines.recipe import MAX_ITER, TOL
from mixedlearn.model.fit import refit
from mixedlearn.model.fitted import SINGULAR, FittedModel, user_effects
from mixedlearn.model.residual_parameters import residual_parameters
from mixedlearn.search.batch import Ends, minimise

FloatArray = NDArray[np.float64]

# With more numbers in the reduced data, arithmetic takes longer than Python.
FEW_NUMBERS = 20_000
# Numbers in the reduced data of the responses of a batch, and entries of their rows.
BATCH_NUMBERS = 100_000
BATCH_ENTRIES = 1 << 21
MOST_IN_BATCH = 250


@dataclass(frozen=True, slots=True)
class Refits:
    """The estimates of refits, and the refitted models on demand.

    Attributes
    ----------
    covariances : tuple of ndarray of shape (n, q, q)
        For every factor, the covariances of its random effects.
    noise_variance : ndarray of shape (n,)
    coef : ndarray of shape (n, p)
        Coefficients, the intercept first if there is one.
    residual : ndarray of shape (n, n_residual)
        The parameters of the residual structure, in the order of `residual_parameters`.
    objective : ndarray of shape (n,)
        NaN, as all estimates, where the residual covariance is not identified.
    is_certified, is_singular : ndarray of shape (n,), bool
        As in `FittedModel`.
    model : callable
        Gives the model of a response by its number.
    """

    covariances: tuple[FloatArray, ...]
    noise_variance: FloatArray
    coef: FloatArray
    residual: FloatArray
    objective: FloatArray
    is_certified: NDArray[np.bool_]
    is_singular: NDArray[np.bool_]
    model: Callable[[int], FittedModel]


def refits_of(model: FittedModel, models: Sequence[FittedModel | None]) -> Refits:
    """The estimates of refits of a model; None stands for one that is not identified."""

    def column(estimate: Callable[[FittedModel], Any]) -> FloatArray:
        nothing = np.full(np.shape(estimate(model)), np.nan)
        found = [nothing if own is None else estimate(own) for own in models]
        return np.array(found, dtype=float).reshape(len(models), *nothing.shape)

    def fitted(number: int) -> FittedModel:
        own = models[number]
        assert own is not None
        return own

    return Refits(
        covariances=tuple(
            column(lambda own, k=k: own.covariances[k])  # type: ignore[misc]
            for k in range(len(model.roots))
        ),
        noise_variance=column(lambda own: own.noise_variance),
        coef=column(lambda own: own.coef),
        residual=column(_residual_values),
        objective=column(lambda own: own.objective),
        is_certified=np.array([own is not None and own.is_certified for own in models]),
        is_singular=np.array([own is not None and own.is_singular for own in models]),
        model=fitted,
    )


def _residual_values(model: FittedModel) -> list[float]:
    return [] if model.noise is None else list(residual_parameters(model).values())


def batch_size(n_rows: int) -> int:
    """How many responses of so many rows are to come at a time."""
    return int(np.clip(BATCH_ENTRIES // n_rows, 1, MOST_IN_BATCH))


class Refitter:
    """Refits of a model, one by one from its sums.

    Parameters
    ----------
    model : FittedModel
    rows : ResponseColumns
        The rows of the fit.
    """

    def __init__(self, model: FittedModel, rows: ResponseColumns):
        self._model = model
        self._rows = rows
        specification = model.specification
        self._trend = model.sums.shifted(
            model.coef, specification.fixed, specification.fit_intercept
        )

    def batch_size(self, n_rows: int) -> int:
        """How many responses are to come at a time."""
        return batch_size(n_rows)

    def refit(self, deviations: FloatArray) -> Refits:
        """Refit to responses whose deviations from ``X beta`` are the columns of a matrix."""
        sums = self._rows.sums(deviations)
        models = [
            refit(
                self._model,
                sums=self._rows.with_response(sums, number, self._trend),
                start=self._model.user_theta,
            )
            for number in range(deviations.shape[1])
        ]
        return refits_of(self._model, models)


def make_refitter(model: FittedModel, rows: ResponseColumns) -> Refitter:
    """The refitter that suits a model."""
    # With hardly any noise, a response may turn out to have none; a fit sees to that.
    has_noise = model.noise_variance > 0.0 and model.fixed_effects.noise_variance > NOISE_FLOOR
    if len(model.roots) != 1 or model.is_bounded or not has_noise:
        return Refitter(model, rows)
    factor, random = model.specification.factors[0], model.random_bases[0]
    structure = factor.structure.in_engine(random.kept)
    if structure.n_effects == 0 or not structure.is_linear:
        return Refitter(model, rows)
    moments = reduce_levels(model.sums, 0, model.fixed_basis, random)
    # Where the levels use up all rows, random effects may be noise; see `confounding`.
    if moments.rows.size > FEW_NUMBERS or moments.n_spanned >= model.sums.n_rows:
        return Refitter(model, rows)
    return OneFactorRefitter(model, rows, moments, structure)


class OneFactorRefitter(Refitter):
    """Refits of a model with one grouping factor, a batch at a time.

    Parameters
    ----------
    model : FittedModel
    rows : ResponseColumns
        The rows of the fit.
    moments : LevelMoments
        The levels of the fit in its columns.
    structure : Structure
        Structure of D in the engine's columns.
    """

    def __init__(
        self,
        model: FittedModel,
        rows: ResponseColumns,
        moments: LevelMoments,
        structure: Structure,
    ):
        super().__init__(model, rows)
        whole, fixed = model.sums, model.fixed_basis
        p = fixed.columns.shape[1]
        # The fixed columns of the fit are already those that stand alone; see `separate_levels`.
        squares = np.diag(moments.within)[:p]
        within = np.zeros_like(moments.within)
        within[:p, :p] = np.diag(np.where(squares < NO_VARIATION, 0.0, squares))
        self._moments = replace(moments, within=within)
        self._structure = structure
        self._start = structure.theta_of_root(model.roots[0])
        _, self._to_rows = factorise_with_inverse(whole.z_level_products(0))
        # Every response has a scale of its own, which the batch adds.
        self._likelihood = likelihood_of(whole, model.specification, replace(fixed, scale=1.0))

    def batch_size(self, n_rows: int) -> int:
        """How many responses are to come at a time."""
        return min(super().batch_size(n_rows), max(BATCH_NUMBERS // self._moments.rows.size, 1))

    def refit(self, deviations: FloatArray) -> Refits:
        """Refit to responses whose deviations from ``X beta`` are the columns of a matrix."""
        sums = self._rows.sums(deviations)
        projections = sums.products(self._model.fixed_basis.columns)
        batch = self._batch(sums, projections)
        ends = minimise(batch, self._start, max_iter=MAX_ITER, tol=TOL)
        basis = self._model.fixed_basis
        fixed = ends.evaluation.fixed
        own_roots = self._structure.root(ends.evaluation.theta)
        roots = self._model.random_bases[0].to_user @ own_roots
        noise_variance = fixed.noise_variance * batch.scales**2
        coef = projections.T + batch.scales[:, None] * fixed.coef
        n_effects = self._model.specification.factors[0].structure.n_effects
        return Refits(
            covariances=(noise_variance[:, None, None] * (roots @ roots.transpose(0, 2, 1)),),
            noise_variance=noise_variance,
            coef=self._model.coef + coef @ basis.to_user.T,
            residual=np.empty((len(coef), 0)),
            objective=ends.evaluation.objective,
            is_certified=ends.is_certified,
            is_singular=(smallest_deviation(own_roots) < SINGULAR)
            | (own_roots.shape[1] < n_effects),
            model=lambda number: self._fitted(batch, ends, sums, number),
        )

    def _batch(self, sums: ResponseSums, projections: FloatArray) -> OneFactorBatch:
        """The likelihoods of the deviations, what ordinary least squares explains taken out."""
        q, total = self._moments.n_effects, self._likelihood.total
        scales = np.sqrt((sums.squares - np.square(projections).sum(axis=0)) / total)
        fixed_rows = self._moments.rows[:, q:-1]
        inside = sums.level_products(0, self._to_rows)
        inside -= np.einsum("rpm,pn->rnm", fixed_rows, projections)
        inside /= scales[:, None]
        varies = np.append(np.diag(self._moments.within)[:-1] > 0.0, True)
        cross = np.empty((len(scales), len(varies)))
        cross[:, :-1] = -np.einsum("rpm,rnm->np", fixed_rows, inside)
        cross[:, -1] = total - np.einsum("rnm,rnm->n", inside, inside)
        return OneFactorBatch(
            self._moments,
            self._structure,
            self._likelihood,
            inside,
            np.where(varies, cross, 0.0),
            scales,
        )

    def _fitted(
        self, batch: OneFactorBatch, ends: Ends, sums: ResponseSums, number: int
    ) -> FittedModel:
        """The model of one response."""
        model, random = self._model, self._model.random_bases[0]
        whole = self._rows.with_response(sums, number, self._trend)
        own = model.specification
        fixed_basis = with_response(model.fixed_basis, whole, own.fixed, own.fit_intercept)
        fixed_effects = ends.evaluation.fixed.of(number)
        root = self._structure.root(ends.evaluation.theta[number])
        blups = conditional_means(batch.moments(number), root, fixed_effects)
        return replace(
            model,
            sums=whole,
            fixed_basis=fixed_basis,
            roots=(root,),
            fixed_effects=fixed_effects,
            blups=(user_effects(fixed_basis, random, blups),),
            objective=float(ends.evaluation.objective[number]),
            n_iterations=max(int(ends.n_iterations[number]), 1),
            is_certified=bool(ends.is_certified[number]),
            warnings=(),
        )
