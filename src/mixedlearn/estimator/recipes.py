"""How an estimator fits: the recipe that its parameters describe."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from mixedlearn.engines.recipe import Recipe
from mixedlearn.specification import Specification


def recipe_of(estimator: Any, specification: Specification) -> Recipe:
    """The recipe of an estimator for a model.

    Random numbers are drawn only where a solver may use some: with several factors.
    """
    seed = 0
    if estimator.solver != "exact" and len(specification.factors) > 1:
        generator = check_random_state(estimator.random_state)
        seed = int(generator.randint(np.iinfo(np.int32).max))
    return Recipe(
        specification,
        max_iter=estimator.max_iter,
        tol=estimator.tol,
        solver=estimator.solver,
        seed=seed,
    )
