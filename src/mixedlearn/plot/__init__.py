"""Pictures of fitted models, by scikit-learn's Display conventions.

``SomethingDisplay.from_estimator(model, ...)`` computes what is to be drawn and draws it. The attributes
of a display hold the numbers, so that a picture can be checked, or drawn again with `plot`. matplotlib
is imported when something is drawn.
"""

from mixedlearn.plot.covariances import CovarianceDisplay
from mixedlearn.plot.random_effects import RandomEffectsDisplay

__all__ = ["CovarianceDisplay", "RandomEffectsDisplay"]
