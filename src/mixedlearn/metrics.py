"""Scorers that carry groups to `predict`.

scikit-learn's own scorers call ``predict(X)``, so that a mixed model scored by name (``"r2"``, say)
predicts the population even for groups it knows. A `GroupsScorer` asks for the groups and passes
them on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.metrics import check_scoring
from sklearn.utils.metadata_routing import UNUSED

__all__ = ["GroupsScorer"]


class GroupsScorer(BaseEstimator):
    """Scorer that passes groups to `predict`.

    With metadata routing enabled, cross-validation with ``scoring=GroupsScorer("r2")`` and
    ``params={"groups": groups}`` scores predictions with the BLUPs of groups that `fit` saw, and
    those of the population for groups it did not see. Without routing it can be called directly.
    An offset goes the same way. ``GroupsScorer("r2").set_score_request(sample_weight=True)`` asks
    for weights too.

    Parameters
    ----------
    scoring : str or callable, default="r2"
        Name of a scikit-learn scorer of regressors, or a scorer ``scoring(estimator, X, y)``, which
        may call ``estimator.predict(X)`` with ``return_std=True`` and other arguments of `predict`.

    Examples
    --------
    >>> import sklearn
    >>> from sklearn.model_selection import KFold, cross_val_score
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.metrics import GroupsScorer
    >>> study = load_sleepstudy()
    >>> with sklearn.config_context(enable_metadata_routing=True):
    ...     scores = cross_val_score(
    ...         MixedLinearRegressor(random_slopes=["Days"]),
    ...         study.data[["Days"]],
    ...         study.target,
    ...         scoring=GroupsScorer("neg_root_mean_squared_error"),
    ...         cv=KFold(5, shuffle=True, random_state=0),
    ...         params={"groups": study.groups},
    ...     )
    >>> print(f"{-scores.mean():.1f} ms")
    27.1 ms
    """

    __metadata_request__score: ClassVar = {"groups": True, "offset": True, "estimator": UNUSED}

    def __init__(self, scoring: str | Callable[..., float] = "r2"):
        self.scoring = scoring

    def __call__(
        self,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        groups: Any = None,
        sample_weight: ArrayLike | None = None,
        offset: ArrayLike | None = None,
    ) -> float:
        """Score an estimator; see `score`."""
        return self.score(
            estimator, X, y, groups=groups, sample_weight=sample_weight, offset=offset
        )

    def score(
        self,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        groups: Any = None,
        sample_weight: ArrayLike | None = None,
        offset: ArrayLike | None = None,
    ) -> float:
        """Score an estimator on rows and their groups.

        Parameters
        ----------
        estimator : estimator with ``predict(X, groups=...)``
            A fitted `MixedLinearRegressor`, or a Pipeline or search that ends in one.
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,)
            True responses, in the units of the data: the left-hand side of a formula is computed
            from them.
        groups : array-like of shape (n_samples,) or (n_samples, n_factors), default=None
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, which are passed to the scorer if there are any.
        offset : float or array-like of shape (n_samples,), default=None
            Offset of the predictions, if the model was fitted with one.

        Returns
        -------
        score : float
            What the scorer named by ``scoring`` makes of the predictions.

        Examples
        --------
        >>> from mixedlearn import MixedLinearRegressor
        >>> from mixedlearn.datasets import load_sleepstudy
        >>> from mixedlearn.metrics import GroupsScorer
        >>> study = load_sleepstudy()
        >>> X, y, subjects = study.data[["Days"]], study.target, study.groups
        >>> model = MixedLinearRegressor(random_slopes=["Days"]).fit(X, y, groups=subjects)
        >>> round(GroupsScorer("r2").score(model, X, y, groups=subjects), 3)
        0.826
        """
        # The predict of a search takes no groups; that of its best estimator does.
        estimator = getattr(estimator, "best_estimator_", estimator)
        scorer = check_scoring(estimator, scoring=self.scoring)
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        return scorer(
            _WithGroups(estimator, groups, offset), X, _response(estimator, X, y), **weights
        )


def _response(estimator: Any, X: Any, y: ArrayLike) -> ArrayLike:
    """The response on the scale of the predictions: that of a formula's left-hand side."""
    steps = getattr(estimator, "steps", None)
    last = steps[-1][1] if steps else estimator
    if not hasattr(last, "transform_response"):
        return y
    return last.transform_response(y, X if hasattr(X, "columns") else None)


class _WithGroups(RegressorMixin, BaseEstimator):
    """An estimator whose ``predict(X)`` knows the groups and the offset of X."""

    def __init__(self, estimator: Any, groups: Any, offset: Any):
        self.estimator = estimator
        self.groups = groups
        self.offset = offset

    def predict(self, X: Any, **arguments: Any) -> Any:
        for name in ("groups", "offset"):
            if (own := getattr(self, name)) is not None:
                arguments[name] = own
        return self.estimator.predict(X, **arguments)

    def __sklearn_is_fitted__(self) -> bool:
        return True
