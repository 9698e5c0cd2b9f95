"""Warnings of mixedlearn, and what its errors suggest."""

import difflib
from collections.abc import Sequence

__all__ = [
    "DataWarning",
    "DegenerateModelWarning",
    "InconsistentVersionWarning",
    "NoGroupsWarning",
    "PopulationPredictionWarning",
    "SamplingWarning",
]


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


class SamplingWarning(UserWarning):
    """A likelihood that the stochastic solver has estimated is too uncertain for a test.

    Examples
    --------
    >>> import warnings
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_penicillin
    >>> from mixedlearn.exceptions import SamplingWarning
    >>> from mixedlearn.inference import ranova
    >>> X, y = load_penicillin(return_X_y=True)
    >>> model = MixedLinearRegressor(
    ...     groups=["plate", "sample"], solver="stochastic", random_state=0).fit(X, y)
    >>> with warnings.catch_warnings(category=SamplingWarning, action="ignore"):
    ...     table = ranova(model)
    >>> list(table.index)
    ['<none>', '(1 | plate)', '(1 | sample)']
    """


class PopulationPredictionWarning(UserWarning):
    """A model with random effects was asked to predict without groups.

    The prediction is that of the population: the fixed effects alone. The same warning says that no
    level of a factor is known and that its labels are of another kind than in `fit`, text and not
    numbers, say, so that all levels are new; `sample_y` and `update_random_effects` warn of it too.

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


class DataWarning(UserWarning):
    """The columns are taken in a way that may not be the one that was meant.

    Integers lose digits as floats, a formula has an expression whose value for a row depends on the
    other rows, or a pandas category of numbers is taken as numbers; the message names the column.

    Examples
    --------
    >>> import warnings
    >>> from mixedlearn import lmer
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.exceptions import DataWarning
    >>> study = load_sleepstudy().frame
    >>> with warnings.catch_warnings(category=DataWarning, action="ignore"):
    ...     model = lmer("Reaction ~ I(Days - Days.mean()) + (1 | Subject)", study)
    >>> model.coef_.round(2)
    array([10.47])
    """


class InconsistentVersionWarning(UserWarning):
    """An estimator was loaded by another version of mixedlearn than the one that saved it.

    What a fitted estimator holds may differ between versions, so that it may fail or give other
    results. The message names both versions: load it with the one that saved it, or fit anew.

    Examples
    --------
    To refuse such files:

    >>> import warnings
    >>> from mixedlearn.exceptions import InconsistentVersionWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", InconsistentVersionWarning)
    ...     # model = joblib.load("model.joblib")
    """


def did_you_mean(name: object, names: Sequence[str]) -> str:
    """A hint at the nearest of some names, for the end of a sentence; empty where none is near."""
    near = [other for other in names if other.lower() == str(name).lower()]
    # What a ColumnTransformer makes of a name.
    near += [other for other in names if other.endswith(f"__{name}")]
    near += difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
