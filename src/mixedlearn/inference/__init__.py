"""Inference about a fitted model: tables, tests, intervals, simulation, influence.

Every function takes a fitted `MixedLinearRegressor` and leaves it as it is.
"""

from mixedlearn.inference._bootstrap import parametric_bootstrap
from mixedlearn.inference._bootstrap_result import BootstrapResult
from mixedlearn.inference._random_effects import random_effects_table
from mixedlearn.inference.bootstrap_tests import BootstrapTest, bootstrap_lrt
from mixedlearn.inference.coefficients import (
    information_criteria,
    level_coefficients,
    model_matrix,
)
from mixedlearn.inference.comparison import (
    LikelihoodRatioTest,
    LikelihoodRatioTests,
    likelihood_ratio_test,
)
from mixedlearn.inference.conditional import ConditionalAIC, conditional_aic
from mixedlearn.inference.deletions import drop1, ranova
from mixedlearn.inference.exact_tests import ExactTest, exact_lrt, exact_restricted_lrt
from mixedlearn.inference.goodness import effect_sizes, intraclass_correlation, r2
from mixedlearn.inference.hypothesis_tests import ContrastTest, anova, contrast_test
from mixedlearn.inference.influence import Influence, influence
from mixedlearn.inference.intervals import confidence_intervals
from mixedlearn.inference.marginal_means import (
    MarginalMeans,
    marginal_means,
    marginal_slopes,
)
from mixedlearn.inference.mean_comparisons import MeanComparisons, compare_means
from mixedlearn.inference.predictions import prediction_intervals
from mixedlearn.inference.profiles import ProfileLikelihood, profile_likelihood
from mixedlearn.inference.residuals import residuals
from mixedlearn.inference.robust import RobustCovariance, robust_covariance
from mixedlearn.inference.tables import coefficient_covariance, coefficient_table, variance_table

__all__ = [
    "BootstrapResult",
    "BootstrapTest",
    "ConditionalAIC",
    "ContrastTest",
    "ExactTest",
    "Influence",
    "LikelihoodRatioTest",
    "LikelihoodRatioTests",
    "MarginalMeans",
    "MeanComparisons",
    "ProfileLikelihood",
    "RobustCovariance",
    "anova",
    "bootstrap_lrt",
    "coefficient_covariance",
    "coefficient_table",
    "compare_means",
    "conditional_aic",
    "confidence_intervals",
    "contrast_test",
    "drop1",
    "effect_sizes",
    "exact_lrt",
    "exact_restricted_lrt",
    "influence",
    "information_criteria",
    "intraclass_correlation",
    "level_coefficients",
    "likelihood_ratio_test",
    "marginal_means",
    "marginal_slopes",
    "model_matrix",
    "parametric_bootstrap",
    "prediction_intervals",
    "profile_likelihood",
    "r2",
    "random_effects_table",
    "ranova",
    "residuals",
    "robust_covariance",
    "variance_table",
]
