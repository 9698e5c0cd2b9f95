"""No covariances, a variance for each effect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.structures.base import Notation, Structure
from mixedlearn.covariance.structures.pattern import Pattern

FloatArray = NDArray[np.float64]


class Diagonal(Pattern):
    """A diagonal covariance matrix; theta is its root's diagonal."""

    name = "diagonal"
    notation = Notation("diag", hom=False)

    def __init__(self, n_effects: int):
        super().__init__(np.eye(n_effects, dtype=bool), np.arange(n_effects))

    def theta_of_root(self, root: FloatArray) -> FloatArray:
        """The lengths of the root's rows."""
        return np.linalg.norm(root, axis=1)

    def restricted(self, kept: Sequence[int]) -> Structure:
        """A diagonal covariance of fewer effects."""
        return Diagonal(len(kept))

    def in_engine(self, kept: NDArray[np.intp]) -> Structure:
        """The same of the effects that have a column."""
        return Diagonal(len(kept))
