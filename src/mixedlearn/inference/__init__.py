"""Inference about a fitted model: tables, tests, intervals, simulation, influence.

Every function takes a fitted `MixedLinearRegressor` and leaves it as it is.
"""

from mixedlearn.inference._bootstrap import parametric_bootstrap
from mixedlearn.inference._bootstrap_result import BootstrapResult
from mixedlearn.inference._random_effects import random_effects_table

__all__ = ["BootstrapResult", "parametric_bootstrap", "random_effects_table"]
