"""Autoregression of order one with a variance for each effect; see `ar1`."""

from __future__ import annotations

from collections.abc import Sequence

from mixedlearn.covariance.structures.ar1 import AutoregressiveCorrelation, restricted_places
from mixedlearn.covariance.structures.base import Notation, Structure
from mixedlearn.covariance.structures.full import Full
from mixedlearn.covariance.structures.one_correlation import OwnVariances


class HeterogeneousAR1(AutoregressiveCorrelation, OwnVariances):
    """A variance for each effect, and correlations r^|i - j|."""

    name = "heterogeneous_ar1"
    notation = Notation("ar1", hom=False, is_default=False)

    def restricted(self, kept: Sequence[int]) -> Structure:
        """The same of fewer effects, which keep their places."""
        if len(kept) < 2:
            return Full(len(kept))
        return HeterogeneousAR1(restricted_places(self.places, kept))
