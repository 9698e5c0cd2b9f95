"""Warnings of mixedlearn."""


class NoGroupsWarning(UserWarning):
    """`fit` received no groups, so the model has no random effects.

    scikit-learn hands groups to `fit` only if it is told to: see the user guide of metadata
    routing, or name the group column in the constructor.
    """


class PopulationPredictionWarning(UserWarning):
    """A model with random effects was asked to predict without groups.

    The prediction is that of the population: the fixed effects alone.
    """


class DegenerateModelWarning(UserWarning):
    """Some part of the model cannot be estimated from these data; the message says which."""
