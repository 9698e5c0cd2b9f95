"""What a residual covariance is: the protocol.

The noise of the rows of one level has the covariance ``R``, a function of parameters and of what
is known of the rows: their occasions, the times between them, strata, covariates. What is known
is the `Layout`; entries of the arrays may have leading axes, ``...``, one entry for each of several
sets of rows.

A search moves in *local coordinates*: a step of length one is about as far as a quadratic model of
the likelihood holds, whatever the data and their units, and the parameters at a point are what
`moved` makes of it. Derivatives are those at the origin of the local coordinates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Layout:
    """What is known of rows whose noise is correlated.

    Attributes
    ----------
    deviations : ndarray of shape (..., T, n_deviations)
        The logarithm of a row's standard deviation, relative to that of a row of zeros, is a
        combination of these columns.
    exponents : ndarray of shape (n_correlations, ..., T, T)
        The correlation of two rows is the product of the powers of the correlation parameters.
    occasions : ndarray of shape (..., T), int
        The occasion of every row, by its number.
    is_correlated : ndarray of shape (..., T, T) or None
        Which rows are of one series; None: all of them.
    """

    deviations: FloatArray
    exponents: FloatArray
    occasions: NDArray[np.integer]
    is_correlated: NDArray[np.bool_] | None = None


class ResidualCovariance(ABC):
    """A family of covariances R of the noise.

    Attributes
    ----------
    is_relative : bool
        Whether R is relative to the variance of a row of reference, and has no parameter for that.
    """

    is_relative: bool

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Number of local coordinates."""

    @abstractmethod
    def covariance(self, point: FloatArray, layout: Layout) -> FloatArray:
        """R, shape (..., T, T)."""

    @abstractmethod
    def directions(self, point: FloatArray, layout: Layout) -> FloatArray:
        """Its derivatives by the local coordinates, shape (n_parameters, ..., T, T)."""

    @abstractmethod
    def second(self, point: FloatArray, layout: Layout, weights: FloatArray) -> FloatArray:
        """``sum(R_ab * weights)`` of the second derivatives, (n_parameters, n_parameters).

        Parameters
        ----------
        point : ndarray
        layout : Layout
        weights : ndarray of shape (..., T, T)
            Symmetric.
        """

    @abstractmethod
    def moved(self, point: FloatArray, step: FloatArray) -> FloatArray:
        """The point after a step in the local coordinates at another."""

    @abstractmethod
    def starts(self, moments: Any) -> list[FloatArray]:
        """Points to search from; the first is the likeliest."""
