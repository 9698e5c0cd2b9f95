"""Linear mixed models for scikit-learn."""

from mixedlearn.estimator import MixedLinearRegressor
from mixedlearn.lmer import lmer

__all__ = ["MixedLinearRegressor", "__version__", "lmer"]

__version__ = "0.1.0"
