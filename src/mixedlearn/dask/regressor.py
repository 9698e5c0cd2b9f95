"""`DaskMixedLinearRegressor`: rows in Dask collections, summed up where they are."""

from __future__ import annotations

from copy import copy
from operator import add
from typing import Any, ClassVar

from dask import delayed
from distributed import Client, default_client

from mixedlearn.dask.lazy import predictions
from mixedlearn.dask.predictions import score_partition
from mixedlearn.dask.rows import in_tree, partitions_of, read_rows, response_of_formula
from mixedlearn.engines.recipe import MAX_ITER, TOL
from mixedlearn.estimator import MixedLinearRegressor
from mixedlearn.estimator.by_name import groups_by_name
from mixedlearn.estimator.callbacks import begin_fit, with_callbacks
from mixedlearn.estimator.columns_by_name import split_columns
from mixedlearn.estimator.notices import (
    level_of_user,
    warn_of_fit,
    warn_of_missing_groups,
    warn_of_rows,
)
from mixedlearn.estimator.partitions import Partition
from mixedlearn.estimator.recipes import recipe_of
from mixedlearn.estimator.regressor import wanted_factors
from mixedlearn.estimator.stream import COLUMN_ATTRIBUTES, column_attributes
from mixedlearn.estimator.view import Fitted, FittedView
from mixedlearn.estimator.warm import warm_theta
from mixedlearn.model.digits import with_more_digits
from mixedlearn.model.fit import fit_sums
from mixedlearn.model.known import Known
from mixedlearn.threads import one_thread

__all__ = ["DaskMixedLinearRegressor"]


class DaskMixedLinearRegressor(MixedLinearRegressor):
    """Linear mixed model for rows in Dask collections.

    The model is that of `MixedLinearRegressor` on all rows, but for rounding error. Every partition
    becomes sums on a worker, which workers add up. The client gets the sums of all rows, whose size
    goes with the levels, and solves for the model. See :doc:`/user_guide/large_data`.

    Parameters
    ----------
    formula : str, default=None
        As for `MixedLinearRegressor`. What learns from all rows is refused, ``scale(x)`` or
        ``bs(x, df=4)``; categories are found in all partitions.
    groups : str, int, tuple or list of these, default=None
        As for `MixedLinearRegressor`, as are all that follow but for ``client``.
    fixed_effects : str, int or list of these, default=None
        Columns of X with a fixed effect.
    random_intercept : bool or dict, default=True
        Whether each level has an intercept of its own.
    random_slopes : str, int, list of these, or dict, default=None
        Columns of X whose coefficient differs between levels.
    covariance : str, array-like of bool, or dict, default="full"
        Structure of the covariance of the random effects of a level.
    fit_intercept : bool, default=True
        Whether the fixed effects have an intercept.
    reml : bool, default=True
        Whether to maximise the restricted likelihood, or the likelihood.
    handle_unknown : {"population", "average", "error"}, default="population"
        What `predict` does with levels and categories that `fit` did not see.
    max_iter : int, default=100
        Most iterations of the optimiser from one start.
    tol : float, default=1e-8
        How far from the optimum a fit may end.
    warm_start : bool, default=False
        Whether a further call of `fit` starts from the variance components of the last one.
    solver : {"auto", "exact", "stochastic"}, default="auto"
        How crossed factors are fitted.
    random_state : int, RandomState instance or None, default=None
        What the random signs of the stochastic solver are drawn from.
    client : distributed.Client, default=None
        Where the partitions are read. None: the client that was made last. It is not pickled.

    Attributes
    ----------
    client_ : distributed.Client
        The client that methods use: ``client``, or the one that was made last.

    See Also
    --------
    MixedLinearRegressor : Rows in memory. It has all other attributes, and their description.

    Notes
    -----
    Methods that `MixedLinearRegressor` has beside `fit`, `predict` and `score` take rows in memory,
    as do the functions of `mixedlearn.inference`. Pass ``to_local()`` to `mixedlearn.plot` and to
    scorers. Residual structures need all rows at once, and are not there.

    A worker that is lost takes no rows with it: Dask computes its partitions again.

    Examples
    --------
    >>> import dask.dataframe as dd
    >>> from distributed import Client
    >>> from mixedlearn.dask import DaskMixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> study = dd.from_pandas(load_sleepstudy().frame, npartitions=3)
    >>> X, y = study[["Days", "Subject"]], study["Reaction"]
    >>> with Client(n_workers=1, processes=False, dashboard_address=":0") as client:
    ...     model = DaskMixedLinearRegressor(groups="Subject", random_slopes=["Days"])
    ...     mean = model.fit(X, y).predict(X)
    ...     print(mean.partitions[0].compute().head(2).round(1).tolist())
    [253.7, 273.3]
    >>> round(model.intercept_, 3), model.coef_.round(3)
    (251.405, array([10.467]))
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **MixedLinearRegressor._parameter_constraints,
        "client": [Client, None],
    }

    def __init__(
        self,
        *,
        formula: str | None = None,
        groups: Any = None,
        fixed_effects: Any = None,
        random_intercept: Any = True,
        random_slopes: Any = None,
        covariance: Any = "full",
        fit_intercept: bool = True,
        reml: bool = True,
        handle_unknown: str = "population",
        max_iter: int = MAX_ITER,
        tol: float = TOL,
        warm_start: bool = False,
        solver: str = "auto",
        random_state: Any = None,
        client: Client | None = None,
    ):
        super().__init__(
            formula=formula,
            groups=groups,
            fixed_effects=fixed_effects,
            random_intercept=random_intercept,
            random_slopes=random_slopes,
            covariance=covariance,
            fit_intercept=fit_intercept,
            reml=reml,
            handle_unknown=handle_unknown,
            max_iter=max_iter,
            tol=tol,
            warm_start=warm_start,
            solver=solver,
            random_state=random_state,
        )
        self.client = client

    def __getstate__(self) -> dict[str, Any]:
        """The state to save: without the client, which belongs to this process."""
        return {**super().__getstate__(), "client": None}

    def __sklearn_clone__(self) -> DaskMixedLinearRegressor:
        """An estimator that is not fitted, with the same client."""
        own = copy(self)
        cloned = super(DaskMixedLinearRegressor, own).__sklearn_clone__()
        cloned.client = self.client
        return cloned

    @property
    def client_(self) -> Client:
        """The client that methods use."""
        return default_client() if self.client is None else self.client

    @groups_by_name
    @with_callbacks
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        groups: Any = None,
        sample_weight: Any = None,
        offset: Any = None,
    ) -> DaskMixedLinearRegressor:
        """Fit the model.

        Parameters
        ----------
        X : dask.dataframe.DataFrame or dask.array.Array of shape (n_samples, n_features)
            Columns with fixed or random effects, and the group columns if the constructor names
            them; a DataFrame if there is a formula. All arguments that are Dask collections have
            the same partitions, whose rows belong together by position.
        y : dask Series, DataFrame or Array of shape (n_samples,), str or None, default=None
            Response, as for `MixedLinearRegressor.fit`; or the name of a column of X, which does
            not belong to X then. None if the left-hand side of a formula has columns of X.
        groups : dask Series, DataFrame or Array, default=None
            Labels of the grouping factors, of shape (n_samples,) or (n_samples, n_factors).
        sample_weight : float, str, dask Series or Array of shape (n_samples,), default=None
            Precision weights; a row of weight zero counts as absent. Where y is a name or None,
            this may be a name as well.
        offset : float, str, dask Series or Array of shape (n_samples,), default=None
            What is known of the mean of the response; a name as ``sample_weight``.

        Returns
        -------
        self : DaskMixedLinearRegressor
            Fitted.

        Raises
        ------
        ValueError
            As `MixedLinearRegressor.fit`; if collections differ in their partitions; if the formula
            learns from all rows; or if no row has a positive weight. What is wrong with rows names
            the partition, counted from zero, and counts rows within it.
        TypeError
            As `MixedLinearRegressor.fit`, or if an argument is no Dask collection.
        MemoryError
            As `MixedLinearRegressor.fit`.

        Warns
        -----
        NoGroupsWarning, DataWarning, DegenerateModelWarning, ConvergenceWarning
            As `MixedLinearRegressor.fit`.

        Examples
        --------
        Labels and response as arrays with unknown numbers of rows:

        >>> import dask.dataframe as dd
        >>> from distributed import Client
        >>> from mixedlearn.dask import DaskMixedLinearRegressor
        >>> from mixedlearn.datasets import load_sleepstudy
        >>> study = dd.from_pandas(load_sleepstudy().frame, npartitions=3)
        >>> X, y, labels = (study[name].values for name in (["Days"], "Reaction", "Subject"))
        >>> with Client(n_workers=1, processes=False, dashboard_address=":0") as client:
        ...     model = DaskMixedLinearRegressor().fit(X, y, groups=labels)
        >>> model.n_groups_
        {'group': 18}
        """
        with one_thread, self._as_it_was():
            return self._fit(X, y, groups, sample_weight, offset)

    def _fit(
        self, X: Any, y: Any, groups: Any, sample_weight: Any, offset: Any
    ) -> DaskMixedLinearRegressor:
        self._validate_params()
        response = response_of_formula(self.formula, X) if y is None else []
        if response or isinstance(y, str):
            X, y, sample_weight, offset = split_columns(X, y, sample_weight, offset, response)
        metadata = {"groups": groups, "sample_weight": sample_weight, "offset": offset}
        task = begin_fit(self, X, y, metadata)
        first = _unfitted(self)
        rows = read_rows(self.client_, first, Partition(X, y, groups, sample_weight, offset))
        found, formula = rows.found, rows.reader.formula
        specification = rows.reader.specification
        level = level_of_user()
        has_groups = bool(specification.factors)
        warn_of_rows(formula, found.notes.values(), level, has_groups=has_groups)
        recipe = recipe_of(self, specification)
        with task.searching():
            model = fit_sums(found.sums, recipe, start=warm_theta(self, specification))
            model = with_more_digits(model, rows)
        for name in COLUMN_ATTRIBUTES:
            self.__dict__.pop(name, None)
        self.__dict__.update(column_attributes(first))
        needs_offset = offset is not None
        self._set_fitted(
            Fitted(Known(model), formula, needs_offset=needs_offset, weights=found.weights)
        )
        warn_of_fit(model, self.max_iter, level)
        task.end()
        return self

    @groups_by_name
    def predict(
        self,
        X: Any,
        *,
        groups: Any = None,
        offset: Any = None,
        random_effects: Any = "all",
        return_std: bool = False,
    ) -> Any:
        """Predict with fixed effects and BLUPs, partition by partition, when Dask computes them.

        Parameters
        ----------
        X : dask.dataframe.DataFrame or dask.array.Array of shape (n_samples, n_features)
            As for `MixedLinearRegressor.predict`.
        groups : dask Series, DataFrame or Array, default=None
            Labels, if they came beside X in `fit`.
        offset : float, dask Series or Array of shape (n_samples,), default=None
            What is added to the predictions, if `fit` had an offset beside X.
        random_effects : {"all", "none"}, str, tuple or list of these, default="all"
            Names of the factors whose BLUPs are added.
        return_std : bool, default=False
            Whether to return the standard deviation of a new observation as well.

        Returns
        -------
        y_mean : dask Series or Array of shape (n_samples,)
            Predictions: a Series "prediction" with the index of X if that is a DataFrame. It can
            become a column of the frame that X was taken from, ``rows.assign(mean=y_mean)``.
        y_std : dask Series or Array of shape (n_samples,)
            Standard deviations, only if ``return_std``; a Series is named "prediction_std".

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If collections differ in their partitions, a column is missing, or ``random_effects``
            names a factor that the model does not have. What is wrong with rows is found when they
            are computed. Dask may read several files of Parquet as one partition then, and the
            error counts those.
        TypeError
            If an argument is no Dask collection.

        Warns
        -----
        PopulationPredictionWarning
            If groups are missing although the random effects have a variance. What partitions warn
            of is in the logs of the workers.

        Examples
        --------
        >>> import dask.array as da
        >>> from distributed import Client
        >>> from mixedlearn.dask import DaskMixedLinearRegressor
        >>> X, labels = da.arange(20, chunks=5)[:, None] % 7, da.arange(20, chunks=5) % 4
        >>> with Client(n_workers=1, processes=False, dashboard_address=":0") as client:
        ...     model = DaskMixedLinearRegressor().fit(X, X[:, 0] ** 2 + labels**3, groups=labels)
        ...     mean, std = model.predict(X, groups=labels, return_std=True)
        ...     print(mean.npartitions, mean.compute()[:2].round(1))
        4 [-4.5  2.3]
        """
        effects = self._effects(groups, random_effects, level_of_user())
        given = Partition(X, None, groups, None, offset)
        return predictions(self.to_local(), given, effects, return_std=return_std)

    @groups_by_name
    def score(
        self,
        X: Any,
        y: Any,
        *,
        groups: Any = None,
        sample_weight: Any = None,
        offset: Any = None,
    ) -> float:
        """Coefficient of determination of the predictions, computed at once.

        Parameters
        ----------
        X : dask.dataframe.DataFrame or dask.array.Array of shape (n_samples, n_features)
            The columns that `fit` had.
        y : dask Series, DataFrame or Array of shape (n_samples,)
            True responses, in the units of the data.
        groups : dask Series, DataFrame or Array, default=None
            Labels, as for `predict`.
        sample_weight : float, dask Series or Array of shape (n_samples,), default=None
            Weights of the rows.
        offset : float, dask Series or Array of shape (n_samples,), default=None
            As for `predict`.

        Returns
        -------
        score : float
            R squared of ``predict(X, groups=groups)``; zero if all responses are the same and
            predictions are not, one if both are, and NaN without rows of positive weight.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError, TypeError
            As `predict`, with the partition at fault.

        Warns
        -----
        PopulationPredictionWarning
            As `predict`.

        Examples
        --------
        >>> import dask.dataframe as dd
        >>> from distributed import Client
        >>> from mixedlearn.dask import DaskMixedLinearRegressor
        >>> from mixedlearn.datasets import load_sleepstudy
        >>> study = dd.from_pandas(load_sleepstudy().frame, npartitions=3)
        >>> X, y = study[["Days", "Subject"]], study["Reaction"]
        >>> with Client(n_workers=1, processes=False, dashboard_address=":0") as client:
        ...     model = DaskMixedLinearRegressor(groups="Subject", random_slopes=["Days"])
        ...     print(round(model.fit(X, y).score(X, y), 3))
        0.826
        """
        options = {"random_effects": self._effects(groups, "all", level_of_user())}
        sent = delayed(self.to_local().for_serving(), traverse=False)
        given = Partition(X, y, groups, sample_weight, offset)
        found = [
            delayed(score_partition)(sent, number, own, options)
            for number, own in enumerate(partitions_of(given))
        ]
        total = self.client_.compute(in_tree(add, found)).result()
        return float("nan") if total is None else total.r2

    def to_local(self) -> MixedLinearRegressor:
        """The same fitted model for rows in memory.

        Returns
        -------
        local : MixedLinearRegressor
            With the parameters but for ``client``, and the attributes of the fit.

        Raises
        ------
        NotFittedError
            Before `fit`.

        Examples
        --------
        >>> import dask.array as da
        >>> from distributed import Client
        >>> from mixedlearn.dask import DaskMixedLinearRegressor
        >>> X, labels = da.arange(20, chunks=5)[:, None] % 7, da.arange(20, chunks=5) % 4
        >>> with Client(n_workers=1, processes=False, dashboard_address=":0") as client:
        ...     model = DaskMixedLinearRegressor().fit(X, X[:, 0] ** 2 + labels**3, groups=labels)
        >>> model.to_local().predict([[2.0]], groups=[3]).round(1)
        array([33.4])
        """
        FittedView(self)
        local = MixedLinearRegressor()
        local.__dict__.update({name: own for name, own in vars(self).items() if name != "client"})
        return local

    def _effects(self, groups: Any, random_effects: Any, stacklevel: int) -> Any:
        """The factors whose BLUPs are added: none if rows have no labels, of which this warns.

        Every partition would warn otherwise.
        """
        view = FittedView(self)
        factors = view.specification.factors
        wanted = list(wanted_factors(random_effects, view.specification.factor_names))
        in_columns = view.formula is not None or any(own.columns for own in factors)
        if groups is not None or in_columns or not wanted:
            return wanted
        warn_of_missing_groups(view, stacklevel + 1)
        return "none"


def _unfitted(estimator: DaskMixedLinearRegressor) -> MixedLinearRegressor:
    """An estimator with the same parameters that knows no client."""
    parameters = estimator.get_params(deep=False)
    del parameters["client"]
    return MixedLinearRegressor(**parameters)
