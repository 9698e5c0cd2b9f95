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
from mixedlearn.data.rows import CodedRows
from mixedlearn.data.same_rows import difference
from mixedlearn.inference._models import view_of
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.simulation import make_generator, random_design

FloatArray = NDArray[np.float64]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Draws:
    """What generates responses.

    Attributes
    ----------
    design : csr_array of shape (n_rows, n_effects)
        Random columns of all factors times their Lambda.
    weights : ndarray of shape (n_rows,) or None
    noise_variance : float
    """

    design: csr_array
    weights: FloatArray | None
    noise_variance: float

    @classmethod
    def of(cls, model: FittedModel, rows: CodedRows) -> Draws:
        """What generates responses of a model for the rows of its fit."""
        parts = [
            random_design(model, rows.X, codes, k, m)
            for k, (codes, m) in enumerate(zip(rows.known_codes, model.sums.n_levels, strict=True))
        ]
        design = csr_array(hstack(parts)) if parts else csr_array((len(rows.X), 0))
        return cls(design, rows.weights, model.noise_variance)

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
        if self.weights is not None:
            noises /= np.sqrt(self.weights)[:, None]
        deviations = self.design @ normal[:n_effects] + noises
        return np.asarray(np.sqrt(self.noise_variance) * deviations)


def rows_of_fit(
    estimator: Any, model: FittedModel, X: Any, groups: Any, sample_weight: Any
) -> CodedRows:
    """Read rows, and check that they are those of the fit.

    Raises
    ------
    ValueError
        If they are not.
    """
    rows = view_of(estimator).rows(X, groups, sample_weight=sample_weight, needs_groups=True)
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
    if difference(model.sums, coded, *names) is not None:
        raise ValueError(
            "X, groups and sample_weight are not those of the fit: their cross-products differ. "
            "Pass the rows that the model was fitted to, in any order."
        )
    return coded


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

    return list(view_of(estimator).with_progress(name, n_resamples, run))
