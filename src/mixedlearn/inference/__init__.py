"""Inference about a fitted model: tables, tests, intervals, simulation, influence.

Every function takes a fitted `MixedLinearRegressor` and leaves it as it is.
"""

from mixedlearn.inference.comparison import LikelihoodRatioTest, drop1, likelihood_ratio_test
from mixedlearn.inference.conditional import ConditionalAIC, conditional_aic
from mixedlearn.inference.exact_tests import ExactTest, exact_lrt, exact_restricted_lrt
from mixedlearn.inference.goodness import effect_sizes, intraclass_correlation, r2
from mixedlearn.inference.influence import Influence, influence
from mixedlearn.inference.residuals import residuals

__all__ = [
    "ConditionalAIC",
    "ExactTest",
    "Influence",
    "LikelihoodRatioTest",
    "conditional_aic",
    "drop1",
    "effect_sizes",
    "exact_lrt",
    "exact_restricted_lrt",
    "influence",
    "intraclass_correlation",
    "likelihood_ratio_test",
    "r2",
    "residuals",
]
