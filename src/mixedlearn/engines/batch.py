"""One grouping factor, many responses: the moments of `one_factor` for any of them, at once.

The responses of a bootstrap share the rows' columns, so U_i and the part of R_i that belongs to X
are common to all of them, and so is W but for its last row.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.structures import Structure
from mixedlearn.engines.levels import LevelMoments
from mixedlearn.engines.likelihood import ProfiledLikelihood
from mixedlearn.engines.one_factor import OneFactorEngine

FloatArray = NDArray[np.float64]


class OneFactorBatch:
    """The likelihoods of several responses with one grouping factor.

    Parameters
    ----------
    moments : LevelMoments
        The common part; what it has of a response is not looked at.
    structure : Structure
        Structure of D in the engine's columns.
    likelihood : ProfiledLikelihood
        Its constant for a response whose scale is one.
    responses : ndarray of shape (r, n, m)
        ``Q_i'y*`` of every response.
    cross : ndarray of shape (n, p + 1)
        The last row of W of every response.
    scales : ndarray of shape (n,)
        Residual standard deviations of ordinary least squares.
    """

    def __init__(
        self,
        moments: LevelMoments,
        structure: Structure,
        likelihood: ProfiledLikelihood,
        responses: FloatArray,
        cross: FloatArray,
        scales: FloatArray,
    ):
        self.structure = structure
        self.likelihood = likelihood
        self.scales = scales
        self._moments = moments
        self._responses = responses
        p = likelihood.n_fixed
        self._within = np.repeat(moments.within[None], len(scales), axis=0)
        self._within[:, p] = self._within[:, :, p] = cross
        self._constants = likelihood.constant + 2.0 * likelihood.df * np.log(scales)

    @property
    def n_responses(self) -> int:
        """Number of responses."""
        return len(self.scales)

    def moments(self, responses: int | NDArray[np.intp]) -> LevelMoments:
        """The moments of one response, or of several."""
        own = self._responses[:, responses]
        common = self._moments.rows[:, :-1]
        rows = np.empty((*own.shape[:-1], common.shape[1] + 1, own.shape[-1]))
        rows[..., :-1, :] = common if own.ndim == 2 else common[:, None]
        rows[..., -1, :] = own
        return replace(self._moments, rows=rows, within=self._within[responses])

    def engine(self, responses: int | NDArray[np.intp]) -> OneFactorEngine:
        """The engine of one response, or of several."""
        constant: Any = self._constants[responses]
        likelihood = replace(self.likelihood, constant=constant)
        return OneFactorEngine(self.moments(responses), self.structure, likelihood)
