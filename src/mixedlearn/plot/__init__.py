"""Pictures of fitted models, by scikit-learn's Display conventions.

``SomethingDisplay.from_estimator(model, ...)`` computes what is to be drawn and draws it. The
attributes of a display hold the numbers, so that a picture can be checked, or drawn again with
`plot`. matplotlib is imported when something is drawn.
"""

from mixedlearn.plot.covariances import CovarianceDisplay
from mixedlearn.plot.group_lines import GroupLinesDisplay
from mixedlearn.plot.marginal_means import MarginalMeansDisplay
from mixedlearn.plot.profile_likelihood import ProfileLikelihoodDisplay
from mixedlearn.plot.qq import QQDisplay
from mixedlearn.plot.random_effects import RandomEffectsDisplay
from mixedlearn.plot.residuals import ResidualsDisplay
from mixedlearn.plot.simulated_predictions import SimulatedPredictionsDisplay

__all__ = [
    "CovarianceDisplay",
    "GroupLinesDisplay",
    "MarginalMeansDisplay",
    "ProfileLikelihoodDisplay",
    "QQDisplay",
    "RandomEffectsDisplay",
    "ResidualsDisplay",
    "SimulatedPredictionsDisplay",
]
