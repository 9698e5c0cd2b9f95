"""Linear mixed models for scikit-learn."""

from mixedlearn.estimator import MixedLinearRegressor

__all__ = ["MixedLinearRegressor", "__version__"]

__version__ = "0.1.0"
