"""The estimator: what scikit-learn sees."""

from mixedlearn.estimator.regressor import MixedLinearRegressor

__all__ = ["MixedLinearRegressor"]
