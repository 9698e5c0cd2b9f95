"""Warnings of mixedlearn, and what its errors suggest."""

import difflib
from collections.abc import Sequence

__all__ = ["DegenerateModelWarning", "NoGroupsWarning", "PopulationPredictionWarning"]


class NoGroupsWarning(UserWarning):
    """`fit` received no groups, so the model has no random effects.

    scikit-learn hands groups to `fit` only if it is told to: see the user guide of metadata
    routing, or name the group column in the constructor.

    Examples
    --------
    >>> import warnings
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.exceptions import NoGroupsWarning
    >>> study = load_sleepstudy()
    >>> with warnings.catch_warnings(category=NoGroupsWarning, action="ignore"):
    ...     least_squares = MixedLinearRegressor().fit(study.data[["Days"]], study.target)
    >>> least_squares.n_groups_
    {}
    """


class PopulationPredictionWarning(UserWarning):
    """A model with random effects was asked to predict without groups.

    The prediction is that of the population: the fixed effects alone. The same warning says that
    labels are numbers in `fit` and the same numbers as text in `predict`, or the other way round,
    so that all levels are new.

    Examples
    --------
    >>> import warnings
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.exceptions import PopulationPredictionWarning
    >>> study = load_sleepstudy()
    >>> X = study.data[["Days"]]
    >>> model = MixedLinearRegressor().fit(X, study.target, groups=study.groups)
    >>> with warnings.catch_warnings(category=PopulationPredictionWarning, action="ignore"):
    ...     mean = model.predict(X.head(2))
    >>> mean.round(1)
    array([251.4, 261.9])
    """


class DegenerateModelWarning(UserWarning):
    """Some part of the model cannot be estimated from these data; the message says which.

    Examples
    --------
    >>> import warnings
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.exceptions import DegenerateModelWarning
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> X["hours"] = 24 * X["Days"]
    >>> with warnings.catch_warnings(category=DegenerateModelWarning, action="ignore"):
    ...     model = MixedLinearRegressor(groups="Subject").fit(X, y)
    >>> model.coef_.round(3)
    array([0.018, 0.435])
    """


def did_you_mean(name: object, names: Sequence[str]) -> str:
    """A hint at the nearest of some names, for the end of a sentence; empty where none is near."""
    near = [other for other in names if other.lower() == str(name).lower()]
    # What a ColumnTransformer makes of a name.
    near += [other for other in names if other.endswith(f"__{name}")]
    near += difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
