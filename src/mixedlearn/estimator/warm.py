"""Where `warm_start` lets a fit start."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedlearn.estimator.view import FittedView
from mixedlearn.specification import Specification

FloatArray = NDArray[np.float64]


def warm_theta(estimator: Any, specification: Specification) -> FloatArray | None:
    """Theta of the last fit, if it belongs to a model with the same random effects."""
    if not (estimator.warm_start and "_fitted" in vars(estimator)):
        return None
    last = FittedView(estimator).specification.factors
    if len(last) != len(specification.factors):
        return None
    for old, new in zip(last, specification.factors, strict=True):
        if (old.name, old.effects) != (new.name, new.effects):
            return None
        if not new.structure.is_same(old.structure):
            return None
    return estimator.theta_
