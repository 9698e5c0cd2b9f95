"""Responses that a fitted model generates for the rows of its fit, drawn in batches.

Each response has a seed of its own, so that the draws depend neither on the number of processes nor
on how many are made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from joblib import Parallel, delayed
from numpy.random import SeedSequence
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack

from mixedlearn.data.labels import shown
from mixedlearn.data.responses import ResponseColumns
from mixedlearn.data.rows import CodedRows
from mixedlearn.data.same_rows import difference, is_of
from mixedlearn.engines.correlated.rows import NoiseRows
from mixedlearn.inference._models import view_of
from mixedlearn.model.continuation import noise_draw
from mixedlearn.model.correlated_refits import CorrelatedRefitter
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.given_noise import Given
from mixedlearn.model.known import Known
from mixedlearn.model.refits import Refitter, make_refitter
from mixedlearn.model.row_noise import row_noise
from mixedlearn.model.simulation import make_generator, random_design

FloatArray = NDArray[np.float64]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class FitRows:
    """The rows of a fit, which were passed again.

    Attributes
    ----------
    coded : CodedRows
    noise : NoiseRows or None
        What their noise depends on, if there is a residual structure.
    """

    coded: CodedRows
    noise: NoiseRows | None

    def refitter(self, model: FittedModel) -> Refitter | CorrelatedRefitter:
        """What refits the model to other responses of these rows."""
        if self.noise is None:
            return make_refitter(model, ResponseColumns(model.sums, self.coded))
        return CorrelatedRefitter(model, self.coded, self.noise)


@dataclass(frozen=True, slots=True)
class Draws:
    """What generates responses.

    Attributes
    ----------
    design : csr_array of shape (n_rows, n_effects)
        Random columns of all factors times their Lambda.
    weights : ndarray of shape (n_rows,) or None
    noise_variance : float
    given : Given or None
        What the noise of a residual structure is drawn from.
    """

    design: csr_array
    weights: FloatArray | None
    noise_variance: float
    given: Given | None = None

    @classmethod
    def of(cls, model: FittedModel, rows: FitRows) -> Draws:
        """What generates responses of a model for the rows of its fit."""
        coded, given = rows.coded, None
        parts = [
            random_design(model, coded.X, codes, k, m)
            for k, (codes, m) in enumerate(zip(coded.known_codes, model.sums.n_levels, strict=True))
        ]
        design = csr_array(hstack(parts)) if parts else csr_array((len(coded.X), 0))
        if rows.noise is not None:
            given = noise_draw(Known(model), rows.noise, is_continued=False).given
        return cls(design, coded.weights, model.noise_variance, given)

    @property
    def n_rows(self) -> int:
        """Number of rows of a response."""
        return self.design.shape[0]

    def deviations(self, seeds: Sequence[SeedSequence]) -> FloatArray:
        """Deviations of a response from ``X beta`` for each seed, shape (n_rows, n)."""
        n_effects = self.design.shape[1]
        normal = np.empty((n_effects + self.n_rows, len(seeds)))
        for column, seed in enumerate(seeds):
            normal[:, column] = np.random.default_rng(seed).standard_normal(len(normal))
        noises = normal[n_effects:]
        if self.given is not None:
            noises = self.given.drawn(noises)
        if self.weights is not None:
            noises /= np.sqrt(self.weights)[:, None]
        deviations = self.design @ normal[:n_effects] + noises
        return np.asarray(np.sqrt(self.noise_variance) * deviations)


def rows_of_fit(
    estimator: Any, model: FittedModel, X: Any, groups: Any, sample_weight: Any
) -> FitRows:
    """Read rows, and check that they are those of the fit.

    Raises
    ------
    ValueError
        If they are not.
    """
    view = view_of(estimator, takes_noise=True)
    rows = view.rows(X, groups, sample_weight=sample_weight, needs_groups=True)
    present = np.ones(len(rows.X), dtype=bool) if rows.weights is None else rows.weights > 0.0
    rows, specification = rows.present(), model.specification
    coded = rows.coded(model.sums.levels)
    for own, codes, name in zip(
        rows.labels, coded.known_codes, specification.factor_names, strict=False
    ):
        if (codes < 0).any():
            row = int(np.argmax(codes < 0))
            raise ValueError(
                f"The level {shown(own.at(row))} of {name!r} was not seen in fit: pass the rows "
                "that the model was fitted to."
            )
    if len(coded.X) != model.sums.n_rows:
        raise ValueError(
            f"X has {len(coded.X)} rows (of positive weight), but the model was fitted to "
            f"{model.sums.n_rows}: pass the rows of the fit."
        )
    names = specification.column_names, specification.factor_names
    if difference(model.sums_of_rows, coded, *names) is not None:
        raise ValueError(
            "X, groups and sample_weight are not those of the fit: their cross-products differ. "
            "Pass the rows that the model was fitted to, in any order."
        )
    if model.noise is None:
        return FitRows(coded, None)
    found = row_noise(model, coded, view.noise_rows(X, groups, present))
    if not is_of(model.sums, found.whitened(found.basis)[:, :-1]):
        raise ValueError(
            f"X, groups and sample_weight are not those of the fit: what {model.noise.description} "
            "takes from them differs. Pass the rows that the model was fitted to; without a time "
            "column in the same order."
        )
    return FitRows(coded, found.rows)


def draw_in_batches(
    estimator: Any,
    name: str,
    work: Callable[[list[SeedSequence]], Result],
    n_resamples: int,
    batch_size: int,
    random_state: Any,
    n_jobs: int | None,
) -> list[Result]:
    """Do some work for batches of seeds, and tell the estimator's callbacks of each seed.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Its callbacks are told.
    name : str
        What the work is called.
    work : callable
        Takes the seeds of a batch.
    n_resamples, batch_size : int
    random_state : int, RandomState, Generator or None
    n_jobs : int or None
    """
    entropy = make_generator(random_state).integers(2**32, size=4).tolist()
    seeds = SeedSequence(entropy).spawn(n_resamples)
    batches = [seeds[start : start + batch_size] for start in range(0, n_resamples, batch_size)]

    def run(advance: Callable[[int], None]) -> list[Result]:
        parallel = Parallel(n_jobs=n_jobs, return_as="generator")
        done: list[Result] = []
        found = parallel(delayed(work)(own) for own in batches)
        for own, result in zip(batches, found, strict=True):
            advance(len(own))
            done.append(result)
        return done

    view = view_of(estimator, takes_noise=True)
    return list(view.with_progress(name, n_resamples, run))
