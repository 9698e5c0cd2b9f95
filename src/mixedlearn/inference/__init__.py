"""Inference about a fitted model: tables, tests, intervals, simulation, influence.

Every function takes a fitted `MixedLinearRegressor` and leaves it as it is.
"""

from mixedlearn.inference.hypothesis_tests import ContrastTest, anova, contrast_test
from mixedlearn.inference.tables import (
    coefficient_covariance,
    coefficient_table,
    variance_table,
)

__all__ = [
    "ContrastTest",
    "anova",
    "coefficient_covariance",
    "coefficient_table",
    "contrast_test",
    "variance_table",
]
