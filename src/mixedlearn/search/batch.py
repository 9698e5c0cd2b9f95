"""The search for many objectives at once, of responses that share Z.

The same steps, charts and certificate as for one objective (`local_model`), for a stack of thetas.
What does not arrive here is left to `newton`: rare enough that it may cost what it costs. A
response that shows a sign of several optima starts from all the further starts of `starts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mixedlearn.engines.batch import OneFactorBatch
from mixedlearn.engines.one_factor import OneFactorEngine
from mixedlearn.engines.protocol import Evaluation
from mixedlearn.search.local_model import (
    LocalModel,
    evaluate_with_model,
    judge,
    trust_region_step,
)
from mixedlearn.search.newton import ZERO_LOSS, Optimum, minimise_from
from mixedlearn.search.starts import (
    MANY_ITERATIONS,
    better_of,
    from_its_end,
    further_starts,
    may_be_local,
)

FloatArray = NDArray[np.float64]

# Most steps of a batch; what needs more is for the optimiser of single objectives.
MAX_STEPS = 25


@dataclass(slots=True)
class Ends:
    """Where the searches of several responses have arrived; see `Evaluation` and `Optimum`.

    Attributes
    ----------
    evaluation : Evaluation
    is_certified : ndarray of shape (n,), bool
    n_iterations : ndarray of shape (n,), int
    """

    evaluation: Evaluation
    is_certified: NDArray[np.bool_]
    n_iterations: NDArray[np.intp]

    def put(self, number: int, optimum: Optimum) -> None:
        """Replace the end of one response."""
        found = optimum.evaluation
        self.evaluation.theta[number] = found.theta
        self.evaluation.objective[number] = found.objective
        self.evaluation.fixed.coef[number] = found.fixed.coef
        self.evaluation.fixed.inverse_root[number] = found.fixed.inverse_root
        self.evaluation.fixed.noise_variance[number] = found.fixed.noise_variance
        self.is_certified[number] = optimum.is_certified
        self.n_iterations[number] += optimum.n_iterations


def minimise(batch: OneFactorBatch, start: FloatArray, *, max_iter: int, tol: float) -> Ends:
    """Minimise the objectives of all responses of a batch.

    Parameters
    ----------
    batch : OneFactorBatch
    start : ndarray of shape (n_parameters,)
        Theta to start from, for all of them.
    max_iter : int
        Most iterations of a response that needs a search of its own.
    tol : float
        Promised decrease of the objective at which to stop.
    """
    every = np.arange(batch.n_responses)
    model, n_steps = descend(batch, np.repeat(start[None], len(every), axis=0), every, tol)
    arrived = model.is_minimum(tol)
    engine = batch.engine(every)
    # The last Newton step squares the error, as for one objective.
    with np.errstate(invalid="ignore"):
        evaluation = engine.evaluate(model.newton_end(), 0)
        is_worse = ~(evaluation.objective - model.objective <= evaluation.rounding)
    ends = Ends(evaluation, arrived & ~is_worse, n_steps)
    is_open = may_be_local(engine, evaluation, ends.is_certified, n_steps)
    is_open = is_open | ~model.is_determined.all(axis=1)
    in_doubt = {}
    for number in np.flatnonzero(is_open).tolist():
        own = batch.engine(number)
        optimum = minimise_from(own, model.theta[number], max_iter, tol)
        is_long = n_steps[number] > MANY_ITERATIONS
        if is_long or may_be_local(
            own, optimum.evaluation, optimum.is_certified, optimum.n_iterations
        ):
            in_doubt[number] = own, optimum
        else:
            ends.put(number, optimum)
    for number, optimum in _best_of_starts(batch, in_doubt, max_iter, tol).items():
        ends.put(number, optimum)
    return ends


def descend(
    batch: OneFactorBatch, theta: FloatArray, responses: NDArray[np.intp], tol: float
) -> tuple[LocalModel, NDArray[np.intp]]:
    """Newton-Raphson for the objectives of some responses, from a row of theta each.

    Returns
    -------
    model : LocalModel
        Where each has come to; a minimum or not.
    n_steps : ndarray of shape (n,), int
        Steps taken so far.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        _, model = evaluate_with_model(batch.engine(responses), theta)
        radius = np.ones(len(theta))
        n_steps = np.zeros(len(theta), dtype=np.intp)
        done = model.is_minimum(tol) | ~np.isfinite(model.objective)
        for step in range(1, MAX_STEPS + 1):
            active = np.flatnonzero(~done)
            if not len(active):
                break
            before = model.rows(active)
            steps = trust_region_step(before.slope, before.curvature, radius[active])
            promised = before.promised_by(steps)
            _, trial = evaluate_with_model(batch.engine(responses[active]), before.moved(steps))
            gained = before.objective - trial.objective
            size = np.sqrt(np.square(steps).sum(axis=1))
            is_accepted, radius[active] = judge(
                gained, promised, before.rounding, size, radius[active]
            )
            # Where the promise drowns in rounding error without a certificate, nothing helps here.
            is_stuck = promised <= before.rounding
            better = np.flatnonzero(is_accepted & ~is_stuck)
            model.put(active[better], trial.rows(better))
            n_steps[active[better]] = step
            done[active] = is_stuck
            done[active[better]] = trial.is_minimum(tol)[better]
    return model, n_steps


def _best_of_starts(
    batch: OneFactorBatch,
    in_doubt: dict[int, tuple[OneFactorEngine, Optimum]],
    max_iter: int,
    tol: float,
) -> dict[int, Optimum]:
    """The lowest optimum from all further starts, for responses that may be at another one."""
    if not in_doubt:
        return {}
    owners, starts = [], []
    for number, (engine, _) in in_doubt.items():
        for covariances in further_starts(engine):
            owners.append(number)
            starts.append(engine.components.theta_of(covariances))
    model, _ = descend(batch, np.array(starts), np.array(owners), tol)
    arrived = model.is_minimum(tol)
    best = {number: optimum for number, (_, optimum) in in_doubt.items()}
    for place, number in enumerate(owners):
        optimum = best[number]
        theta = model.theta[place] if arrived[place] else starts[place]
        lowest = optimum.evaluation.objective - ZERO_LOSS - model.rounding[place]
        if arrived[place] and optimum.is_certified and model.objective[place] >= lowest:
            continue
        other = minimise_from(in_doubt[number][0], theta, max_iter, tol)
        best[number] = better_of(optimum, other)
    for number, (engine, _) in in_doubt.items():
        search = partial(minimise_from, engine, max_iter=max_iter, tol=tol)
        best[number] = from_its_end(best[number], search)
    return best
