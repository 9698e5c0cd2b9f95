"""All variances and covariances free."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.algebra import triangular_root
from mixedlearn.covariance.structures.base import Notation, Structure
from mixedlearn.covariance.structures.pattern import Pattern

FloatArray = NDArray[np.float64]


class Full(Pattern):
    """Any covariance matrix."""

    name = "full"
    notation = Notation("us")

    def __init__(self, n_effects: int):
        super().__init__(np.ones((n_effects, n_effects), bool), np.arange(n_effects))

    def theta_of_root(self, root: FloatArray) -> FloatArray:
        """Theta of ``root root'``."""
        return self._theta_of_triangle(triangular_root(root))

    def restricted(self, kept: Sequence[int]) -> Structure:
        """A full covariance of fewer effects."""
        return Full(len(kept))
