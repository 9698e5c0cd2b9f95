"""Warnings of mixedlearn, and what its errors suggest."""

import difflib
from collections.abc import Sequence


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


def did_you_mean(name: object, names: Sequence[str]) -> str:
    """A hint at the nearest of some names, for the end of a sentence; empty where none is near."""
    near = [other for other in names if other.lower() == str(name).lower()]
    near += difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
