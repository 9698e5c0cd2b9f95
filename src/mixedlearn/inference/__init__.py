"""Inference about a fitted model: tables, tests, intervals, simulation, influence.

Every function takes a fitted `MixedLinearRegressor` and leaves it as it is.
"""

from mixedlearn.inference.hypothesis_tests import ContrastTest, anova, contrast_test
from mixedlearn.inference.intervals import confidence_intervals
from mixedlearn.inference.profiles import ProfileLikelihood, profile_likelihood
from mixedlearn.inference.tables import (
    coefficient_covariance,
    coefficient_table,
    variance_table,
)

__all__ = [
    "ContrastTest",
    "ProfileLikelihood",
    "anova",
    "coefficient_covariance",
    "coefficient_table",
    "confidence_intervals",
    "contrast_test",
    "profile_likelihood",
    "variance_table",
]
