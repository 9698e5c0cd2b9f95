"""Refits of a fitted model to responses that it generated, many at a time.

A response is ``X beta + d`` with beta as fitted, and only its deviations d are looked at. All but
the response stays: the fixed columns, the random columns and the levels' bases. With one grouping
factor and few levels, where Python takes more time than arithmetic, a whole batch of responses is
refitted at once (`one_factor_batch`, `optimize_batch`), from the estimates that generated them. A
refit that shows a sign of several optima starts from all the further starts of a fit, and what the
batch does not settle goes to the optimiser of single fits. Other models are refitted one by one
from their cross-products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.structures import CovarianceStructure, engine_structure
from mixedlearn.data.responses import ResponseColumns, ResponseSums
from mixedlearn.engines.bases import with_response
from mixedlearn.engines.batch import BatchEvaluation, OneFactorBatch
from mixedlearn.engines.choose import NOISE_FLOOR
from mixedlearn.engines.levels import (
    NO_VARIATION,
    LevelMoments,
    conditional_means,
    factorise_with_inverse,
    reduce_levels,
)
from mixedlearn.engines.likelihood import ProfiledLikelihood
from mixedlearn.engines.one_factor import OneFactorEngine
from mixedlearn.model.fit import MAX_ITER, TOL, refit
from mixedlearn.model.fitted import SINGULAR, FittedModel
from mixedlearn.search.batch import descend, polished
from mixedlearn.search.newton import (
    FEW_LEVELS,
    MANY_ITERATIONS,
    MUCH_NOISE,
    SMALL_DEVIATION,
    ZERO_LOSS,
    Optimum,
    further_starts,
    may_be_local,
    minimise_from,
)

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
    is_certified, is_singular : ndarray of shape (n,), bool
        As in `FittedModel`.
    model : callable
        Gives the model of a response by its number.
    """

    covariances: tuple[FloatArray, ...]
    noise_variance: FloatArray
    coef: FloatArray
    is_certified: NDArray[np.bool_]
    is_singular: NDArray[np.bool_]
    model: Callable[[int], FittedModel]


class Refitter:
    """Refits of a model, one by one from its cross-products.

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
        return int(np.clip(BATCH_ENTRIES // n_rows, 1, MOST_IN_BATCH))

    def refit(self, deviations: FloatArray) -> Refits:
        """Refit to responses whose deviations from ``X beta`` are the columns of a matrix."""
        sums = self._rows.sums(deviations)
        models = [
            refit(
                self._model,
                sums=self._rows.with_response(sums, number, self._trend),
                start=self._model.theta,
            )
            for number in range(deviations.shape[1])
        ]
        return Refits(
            covariances=tuple(
                np.array([model.covariances[k] for model in models])
                for k in range(len(self._model.factors))
            ),
            noise_variance=np.array([model.noise_variance for model in models]),
            coef=np.array([model.coef for model in models]),
            is_certified=np.array([model.is_certified for model in models]),
            is_singular=np.array([model.is_singular for model in models]),
            model=models.__getitem__,
        )


def make_refitter(model: FittedModel, rows: ResponseColumns) -> Refitter:
    """The refitter that suits a model."""
    # With hardly any noise, a response may turn out to have none; a fit sees to that.
    has_noise = model.noise_variance > 0.0 and model.fixed_effects.noise_variance > NOISE_FLOOR
    if len(model.factors) != 1 or model.is_bounded or not has_noise:
        return Refitter(model, rows)
    factor, random = model.specification.factors[0], model.random_bases[0]
    structure = engine_structure(factor.structure, random.kept)
    if structure.n_effects == 0 or (structure.kind == "unrestricted" and not structure.mask.all()):
        return Refitter(model, rows)
    moments = reduce_levels(model.sums, 0, model.fixed_basis, random)
    # Where the levels use up all rows, random effects may be noise; see `confounding`.
    if moments.rows.size > FEW_NUMBERS or moments.n_spanned >= model.sums.n_rows:
        return Refitter(model, rows)
    return OneFactorRefitter(model, rows, moments, structure)


@dataclass(slots=True)
class _Ends:
    """Where the refits of a batch have arrived; see `Evaluation` and `Optimum`."""

    theta: FloatArray
    evaluation: BatchEvaluation
    is_certified: NDArray[np.bool_]
    n_iterations: NDArray[np.intp]

    def put(self, number: int, optimum: Optimum) -> None:
        """Replace the end of one refit."""
        found = optimum.evaluation
        self.theta[number] = found.theta
        self.evaluation.objective[number] = found.objective
        self.evaluation.coef[number] = found.fixed.coef
        self.evaluation.inverse_root[number] = found.fixed.inverse_root
        self.evaluation.noise_variance[number] = found.fixed.noise_variance
        self.is_certified[number] = optimum.is_certified
        self.n_iterations[number] += optimum.n_iterations


class OneFactorRefitter(Refitter):
    """Refits of a model with one grouping factor, a batch at a time.

    Parameters
    ----------
    model : FittedModel
    rows : ResponseColumns
        The rows of the fit.
    moments : LevelMoments
        The levels of the fit in its columns.
    structure : CovarianceStructure
        Structure of D in the engine's columns.
    """

    def __init__(
        self,
        model: FittedModel,
        rows: ResponseColumns,
        moments: LevelMoments,
        structure: CovarianceStructure,
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
        self._start = structure.theta_from_lambda(model.factors[0])
        _, self._to_rows = factorise_with_inverse(whole.z_level_products(0))
        reml = model.specification.reml
        constant = -whole.sum_log_weights + (fixed.log_det_gram if reml else 0.0)
        self._likelihood = ProfiledLikelihood(whole.n_rows, p, reml, constant)

    def batch_size(self, n_rows: int) -> int:
        """How many responses are to come at a time."""
        return min(super().batch_size(n_rows), max(BATCH_NUMBERS // self._moments.rows.size, 1))

    def refit(self, deviations: FloatArray) -> Refits:
        """Refit to responses whose deviations from ``X beta`` are the columns of a matrix."""
        sums = self._rows.sums(deviations)
        projections = sums.products(self._model.fixed_basis.columns)
        batch = self._batch(sums, projections)
        ends = self._optimise(batch)
        basis = self._model.fixed_basis
        evaluation = ends.evaluation
        factors = batch.factors(ends.theta)
        roots = self._model.random_bases[0].to_user @ factors
        noise_variance = evaluation.noise_variance * batch.scales**2
        coef = projections.T + batch.scales[:, None] * evaluation.coef
        deviation = np.linalg.svd(factors, compute_uv=False).min(axis=1)
        n_effects = self._model.specification.factors[0].structure.n_effects
        return Refits(
            covariances=(noise_variance[:, None, None] * (roots @ roots.transpose(0, 2, 1)),),
            noise_variance=noise_variance,
            coef=self._model.coef + coef @ basis.to_user.T,
            is_certified=ends.is_certified,
            is_singular=(deviation < SINGULAR) | (factors.shape[1] < n_effects),
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

    def _optimise(self, batch: OneFactorBatch) -> _Ends:
        """The optimum of every response."""
        every = np.arange(batch.n_responses)
        starts = np.repeat(self._start[None], batch.n_responses, axis=0)
        state, arrived = descend(batch, starts, every, TOL)
        theta, is_determined = polished(state)
        evaluation = batch.evaluate(theta, every, 0)
        loss = evaluation.objective - state.objective
        is_worse = ~(loss <= evaluation.rounding)
        ends = _Ends(theta, evaluation, arrived & ~is_worse, state.n_steps)
        deviation = np.linalg.svd(batch.factors(theta), compute_uv=False).min(axis=1)
        squares, df = batch.residuals_within()
        is_settled = (
            ends.is_certified
            & is_determined
            & (deviation >= SMALL_DEVIATION)
            & (evaluation.noise_variance <= MUCH_NOISE * squares / max(df, 1))
            & (state.n_steps <= MANY_ITERATIONS)
            & (self._moments.rows.shape[2] > FEW_LEVELS)
            & (df > 0)
        )
        in_doubt = {}
        for number in np.flatnonzero(~is_settled).tolist():
            engine = batch.engine(number)
            optimum = minimise_from(engine, state.theta[number], MAX_ITER, TOL)
            if may_be_local(engine, optimum) or state.n_steps[number] > MANY_ITERATIONS:
                in_doubt[number] = engine, optimum
            else:
                ends.put(number, optimum)
        for number, optimum in _best_of_starts(batch, in_doubt).items():
            ends.put(number, optimum)
        return ends

    def _fitted(
        self, batch: OneFactorBatch, ends: _Ends, sums: ResponseSums, number: int
    ) -> FittedModel:
        """The model of one response."""
        model, random = self._model, self._model.random_bases[0]
        whole = self._rows.with_response(sums, number, self._trend)
        fixed_basis = with_response(model.fixed_basis, whole, model.specification.fit_intercept)
        fixed_effects = ends.evaluation.fixed_effects(number)
        factor = batch.factors(ends.theta)[number]
        blups = conditional_means(batch.moments(number), factor, fixed_effects)
        return replace(
            model,
            sums=whole,
            fixed_basis=fixed_basis,
            factors=(factor,),
            fixed_effects=fixed_effects,
            blups=(fixed_basis.scale * (random.to_user @ blups).T,),
            objective=float(ends.evaluation.objective[number]),
            n_iterations=max(int(ends.n_iterations[number]), 1),
            is_certified=bool(ends.is_certified[number]),
            warnings=(),
            observed_sums=None,
        )


def _best_of_starts(
    batch: OneFactorBatch, in_doubt: dict[int, tuple[OneFactorEngine, Optimum]]
) -> dict[int, Optimum]:
    """The lowest optimum from all further starts, for refits that may be at another one."""
    if not in_doubt:
        return {}
    owners, starts = [], []
    for number, (engine, _) in in_doubt.items():
        for covariances in further_starts(engine):
            owners.append(number)
            starts.append(engine.components.theta_from_covariances(covariances))
    state, arrived = descend(batch, np.array(starts), np.array(owners), TOL)
    best = {number: optimum for number, (_, optimum) in in_doubt.items()}
    for place, number in enumerate(owners):
        engine, optimum = in_doubt[number][0], best[number]
        theta = state.theta[place] if arrived[place] else starts[place]
        lowest = optimum.evaluation.objective - ZERO_LOSS - state.rounding[place]
        if arrived[place] and optimum.is_certified and state.objective[place] >= lowest:
            continue
        other = minimise_from(engine, theta, MAX_ITER, TOL)
        gain = optimum.evaluation.objective - other.evaluation.objective
        least = ZERO_LOSS + other.evaluation.rounding
        if gain > least or (other.is_certified and not optimum.is_certified and gain > -least):
            best[number] = other
    for number, optimum in best.items():
        if not optimum.is_certified:
            # The lowest end may be on its way: it is one more start, as in `minimise`.
            theta = optimum.evaluation.theta
            other = minimise_from(in_doubt[number][0], theta, MAX_ITER, TOL)
            if other.evaluation.objective <= optimum.evaluation.objective:
                best[number] = other
    return best
