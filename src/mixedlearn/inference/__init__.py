"""Inference about a fitted model: tables, tests, intervals, simulation, influence.

Every function takes a fitted `MixedLinearRegressor` and leaves it as it is.
"""

from mixedlearn.inference._profile_table import ProfileLikelihood, profile_likelihood

__all__ = ["ProfileLikelihood", "profile_likelihood"]
