"""Residual structures: noise whose variances differ, and that is correlated within a level.

A structure is passed to ``MixedLinearRegressor(residual=...)``: one of the objects below, or the
name of one with the estimator's ``time``. The objects have ``get_params``, so that a grid search
reaches into them.
"""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator, clone

from mixedlearn.covariance.residual.correlations import (
    ByAnyTime,
    ByDistance,
    ByStep,
    ByTime,
    Correlation,
    Equal,
    Free,
)
from mixedlearn.exceptions import did_you_mean

__all__ = [
    "AR1",
    "Antedependence",
    "CompoundSymmetry",
    "ContinuousAR1",
    "Power",
    "Stratified",
    "Toeplitz",
    "Unstructured",
]

HETEROGENEOUS = "heterogeneous"


class Variance(BaseEstimator):
    """What the variance of the noise depends on."""


class Stratified(Variance):
    """A variance of its own for each value of a column.

    Alone, as ``residual=Stratified(by="Sex")``, it is noise without correlation; as the
    ``variance`` of a structure it holds beside the correlation (nlme's ``varIdent``).

    Parameters
    ----------
    by : str or int
        Column of X, by name or position. Its values are strata.

    Examples
    --------
    >>> from mixedlearn.residual import Stratified
    >>> Stratified(by="Sex")
    Stratified(by='Sex')
    """

    def __init__(self, by: Any = None):
        self.by = by


class Power(Variance):
    """A variance that is a power of a covariate: ``noise_variance_ * abs(v) ** (2 * power)``.

    Alone, as ``residual=Power(of="age")``, it is noise without correlation; as the ``variance`` of
    a structure it holds beside the correlation (nlme's ``varPower``).

    Parameters
    ----------
    of : str or int
        Column of X, by name or position. Its values are numbers other than zero.

    Examples
    --------
    >>> from mixedlearn.residual import Power
    >>> Power(of="age")
    Power(of='age')
    """

    def __init__(self, of: Any = None):
        self.of = of


class Correlated(BaseEstimator):
    """What structures with correlations share."""

    def __init__(
        self, *, time: Any = None, within: Any = None, variance: Any = None, by: Any = None
    ):
        self.time = time
        self.within = within
        self.variance = variance
        self.by = by


class AR1(Correlated):
    """Correlations r^d of rows of a level that are d time units apart.

    Where all rows of a level are an even number of units apart, both signs of r are the same model:
    r is taken as positive, and `predict` warns of rows at odd distances.

    Parameters
    ----------
    time : str or int, default=None
        Column of X, by name or position, that holds the times: whole numbers, or a category, whose
        values are one unit apart. None: that of the estimator, and without one the order of the
        rows of a level.
    within : str or tuple, default=None
        Grouping factor in whose levels rows are correlated, an interaction also as the tuple of its
        columns; needed where there are several.
    variance : None, "heterogeneous", Stratified, Power, or a list of these, default=None
        None: all rows have one variance. "heterogeneous": one for each occasion. Those of a list
        are multiplied.
    by : str or int, default=None
        Column of X, each value of which has parameters of its own. All rows of a level have the
        same value.

    Examples
    --------
    >>> from mixedlearn.residual import AR1
    >>> AR1(time="week")
    AR1(time='week')
    """


class ContinuousAR1(Correlated):
    """Correlations r^d of rows of a level that are d time units apart, d any number.

    The correlation is positive.

    Parameters
    ----------
    time : str or int, default=None
        Column of X, by name or position, that holds the times, which are numbers. None: that of
        the estimator.
    within : str or tuple, default=None
        Grouping factor in whose levels rows are correlated, an interaction also as the tuple of its
        columns; needed where there are several.
    variance : None, "heterogeneous", Stratified, Power, or a list of these, default=None
        None: all rows have one variance. "heterogeneous": one for each occasion. Those of a list
        are multiplied.
    by : str or int, default=None
        Column of X, each value of which has parameters of its own. All rows of a level have the
        same value.

    Examples
    --------
    >>> from mixedlearn.residual import ContinuousAR1
    >>> ContinuousAR1(time="hours")
    ContinuousAR1(time='hours')
    """


class CompoundSymmetry(Correlated):
    """One correlation for all pairs of rows of a level, which may be negative.

    Parameters
    ----------
    time : str or int, default=None
        Column of X, by name or position, that holds the occasions, which matter for the
        variances only. None: that of the estimator, and without one the order of the rows of a
        level.
    within : str or tuple, default=None
        Grouping factor in whose levels rows are correlated, an interaction also as the tuple of its
        columns; needed where there are several.
    variance : None, "heterogeneous", Stratified, Power, or a list of these, default=None
        None: all rows have one variance. "heterogeneous": one for each occasion. Those of a list
        are multiplied.
    by : str or int, default=None
        Column of X, each value of which has parameters of its own. All rows of a level have the
        same value.

    Examples
    --------
    >>> from mixedlearn.residual import CompoundSymmetry
    >>> CompoundSymmetry(time="visit", variance="heterogeneous")
    CompoundSymmetry(time='visit', variance='heterogeneous')
    """


class Toeplitz(Correlated):
    """A correlation for every distance in the order of the occasions.

    The search goes over partial correlations, whose matrices are all covariances
    (Barndorff-Nielsen & Schou 1973). A fit whose likelihood is highest where the matrix is singular
    is refused.

    Parameters
    ----------
    time : str or int, default=None
        Column of X, by name or position, that holds the occasions: numbers or a category. None:
        that of the estimator.
    within : str or tuple, default=None
        Grouping factor in whose levels rows are correlated, an interaction also as the tuple of its
        columns; needed where there are several.
    variance : None, "heterogeneous", Stratified, Power, or a list of these, default=None
        None: all rows have one variance. "heterogeneous": one for each occasion. Those of a list
        are multiplied.
    by : str or int, default=None
        Column of X, each value of which has parameters of its own. All rows of a level have the
        same value.

    Examples
    --------
    >>> from mixedlearn.residual import Toeplitz
    >>> Toeplitz(time="visit")
    Toeplitz(time='visit')
    """


class Antedependence(Correlated):
    """A correlation for every two occasions that follow each other; others are their products.

    Of first order (Gabriel 1962; Zimmerman & Nunez-Anton 2010).

    Parameters
    ----------
    time : str or int, default=None
        Column of X, by name or position, that holds the occasions: numbers or a category. None:
        that of the estimator.
    within : str or tuple, default=None
        Grouping factor in whose levels rows are correlated, an interaction also as the tuple of its
        columns; needed where there are several.
    variance : None, "heterogeneous", Stratified, Power, or a list of these, default=None
        None: all rows have one variance. "heterogeneous": one for each occasion. Those of a list
        are multiplied.
    by : str or int, default=None
        Column of X, each value of which has parameters of its own. All rows of a level have the
        same value.

    Examples
    --------
    >>> from mixedlearn.residual import Antedependence
    >>> Antedependence(time="visit")
    Antedependence(time='visit')
    """


class Unstructured(Correlated):
    """A variance for every occasion and a correlation for every two of them.

    What clinical trials call MMRM (Mallinckrodt et al. 2008).

    Parameters
    ----------
    time : str or int, default=None
        Column of X, by name or position, that holds the occasions: numbers or a category. None:
        that of the estimator.
    within : str or tuple, default=None
        Grouping factor in whose levels rows are correlated, an interaction also as the tuple of its
        columns; needed where there are several.
    by : str or int, default=None
        Column of X, each value of which has a covariance of its own. All rows of a level have the
        same value.

    Examples
    --------
    >>> from mixedlearn.residual import Unstructured
    >>> Unstructured(time="visit")
    Unstructured(time='visit')
    """

    def __init__(self, *, time: Any = None, within: Any = None, by: Any = None):
        self.time = time
        self.within = within
        self.by = by

    @property
    def variance(self) -> None:
        """Variances belong to the structure."""


Residual = Correlated | Variance
_BY_NAME: dict[str, tuple[type[Correlated], Any]] = {
    "ar1": (AR1, None),
    "heterogeneous_ar1": (AR1, HETEROGENEOUS),
    "continuous_ar1": (ContinuousAR1, None),
    "heterogeneous_continuous_ar1": (ContinuousAR1, HETEROGENEOUS),
    "compound_symmetry": (CompoundSymmetry, None),
    "heterogeneous_compound_symmetry": (CompoundSymmetry, HETEROGENEOUS),
    "toeplitz": (Toeplitz, None),
    "heterogeneous_toeplitz": (Toeplitz, HETEROGENEOUS),
    "antedependence": (Antedependence, None),
    "heterogeneous_antedependence": (Antedependence, HETEROGENEOUS),
}
NAMES = (*_BY_NAME, "unstructured")
_CORRELATIONS: dict[type[Correlated], Correlation] = {
    AR1: ByTime(),
    ContinuousAR1: ByAnyTime(),
    CompoundSymmetry: Equal(),
    Toeplitz: ByDistance(),
    Antedependence: ByStep(),
    Unstructured: Free(),
}


def correlation_of(residual: Residual) -> Correlation | None:
    """The kind of correlation of a structure; None where rows are not correlated."""
    return _CORRELATIONS[type(residual)] if isinstance(residual, Correlated) else None


def resolve(residual: Any, time: Any) -> Residual:
    """The structure that the estimator's parameters say.

    Raises
    ------
    ValueError
        If it is no structure.
    """
    if isinstance(residual, str):
        if residual == "unstructured":
            return Unstructured(time=time)
        if residual not in _BY_NAME:
            raise ValueError(
                f"residual={residual!r} is no residual structure.{did_you_mean(residual, NAMES)} "
                f"Use one of {', '.join(map(repr, NAMES))}, or an object of mixedlearn.residual."
            )
        kind, variance = _BY_NAME[residual]
        return kind(time=time, variance=variance)
    if not isinstance(residual, (Correlated, Variance)):
        raise ValueError(
            f"residual must be a name, such as 'ar1', or an object of mixedlearn.residual, got "
            f"{residual!r}."
        )
    # What users do to their object after the fit is no matter of the model.
    return clone(residual)
