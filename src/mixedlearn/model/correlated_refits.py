"""Refits of a model with a residual structure to responses that it generated.

The blocks of rows and their patterns are found once, and every search starts from the fit.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.rows import CodedRows
from mixedlearn.engines.correlated.rows import NoiseRows
from mixedlearn.engines.recipe import Recipe
from mixedlearn.model.correlated import FittedNoise, refit_response
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.identified import NotIdentifiedError
from mixedlearn.model.prediction import fixed_mean
from mixedlearn.model.refits import Refits, batch_size, refits_of

FloatArray = NDArray[np.float64]

# A refit takes so long that few are enough for a process, and for a look at the progress.
FEW = 10


class CorrelatedRefitter:
    """Refits of a model with a residual structure, one by one.

    Parameters
    ----------
    model : FittedModel
    rows : CodedRows
        The rows of the fit.
    noise_rows : NoiseRows
        What their noise depends on.
    """

    def __init__(self, model: FittedModel, rows: CodedRows, noise_rows: NoiseRows):
        self._model, self._rows = model, rows
        recipe = Recipe(model.specification)
        self._noise: FittedNoise = replace(
            model.noise, recipe=recipe, rows=rows, noise_rows=noise_rows
        )
        self._problem = self._noise.problem
        self._mean = fixed_mean(model.specification, model.coef, rows.X)

    def batch_size(self, n_rows: int) -> int:
        """How many responses are to come at a time."""
        return min(batch_size(n_rows), FEW)

    def refit(self, deviations: FloatArray) -> Refits:
        """Refit to responses whose deviations from ``X beta`` are the columns of a matrix.

        What is not identified is NaN.
        """
        return refits_of(self._model, [self._refitted(own) for own in deviations.T])

    def _refitted(self, deviation: FloatArray) -> FittedModel | None:
        rows = replace(self._rows, response=self._mean + deviation)
        problem = self._problem.with_response(rows)
        ratio = self._problem.fixed.scale / problem.fixed.scale
        start = problem.parameters.scaled(self._noise.point, ratio)
        try:
            noise = replace(self._noise, rows=rows, point=start)
            return refit_response(noise, problem)
        except NotIdentifiedError:
            return None
