"""`MixedLinearRegressor`: parameters, warnings and thin methods."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn import config_context
from sklearn.base import BaseEstimator, RegressorMixin, _fit_context
from sklearn.metrics import r2_score
from sklearn.utils._param_validation import Interval, StrOptions

from mixedlearn.data.labels import Labels
from mixedlearn.data.rows import CodedRows, Codes
from mixedlearn.data.sources import Source, refuse_source
from mixedlearn.data.sums import Sums
from mixedlearn.engines.correlated.bind import bind
from mixedlearn.engines.description import ModelDescription, describe_model
from mixedlearn.engines.plan import check_search_memory
from mixedlearn.engines.recipe import MAX_ITER, TOL
from mixedlearn.estimator.by_name import groups_by_name
from mixedlearn.estimator.callbacks import (
    FIT_STACKLEVEL,
    CallbackSupportMixin,
    begin_fit,
    with_callbacks,
)
from mixedlearn.estimator.columns_by_name import columns_of_frame, names_given
from mixedlearn.estimator.from_source import columns_of_model, find_source, fit_source
from mixedlearn.estimator.noise import has_noise
from mixedlearn.estimator.notices import warn_of_fit, warn_of_missing_groups, warn_of_rows
from mixedlearn.estimator.reading import read_factors, read_fit
from mixedlearn.estimator.recipes import recipe_of
from mixedlearn.estimator.report_methods import ReportMethods
from mixedlearn.estimator.sampling_methods import SamplingMethods
from mixedlearn.estimator.stream import column_attributes
from mixedlearn.estimator.stream_methods import StreamMethods
from mixedlearn.estimator.validation import (
    StructureName,
    check_weights,
    numeric_columns,
)
from mixedlearn.estimator.view import Fitted, FittedView
from mixedlearn.estimator.warm import warm_theta
from mixedlearn.model.correlated import fit_correlated
from mixedlearn.model.digits import RowsAtHand, with_more_digits
from mixedlearn.model.fit import fit_sums
from mixedlearn.model.known import Known
from mixedlearn.specification import plain_name
from mixedlearn.threads import one_thread

FloatArray = NDArray[np.float64]


class MixedLinearRegressor(
    CallbackSupportMixin, RegressorMixin, StreamMethods, SamplingMethods, ReportMethods
):
    r"""Linear mixed model for grouped data.

    Fits :math:`y = X\beta + \sum_k Z_k b_k + e` with fixed effects :math:`\beta`, random effects
    :math:`b_k` that differ between the levels of one or several grouping factors, and noise
    :math:`e`, by restricted maximum likelihood or maximum likelihood. Factors may be nested,
    crossed or both. Predictions are those of the fixed effects plus, for levels seen in `fit`, the
    best linear unbiased predictions (BLUPs) of the random effects.

    Parameters
    ----------
    formula : str, default=None
        The model in lme4's notation: ``"Time + (1 + Time | Pig)"``. X is then a DataFrame, of which
        the formula names columns; others are not looked at. With a left-hand side,
        ``"np.log(y) ~ Time + (1 | Pig)"``, the model is one of that function of the response. The
        parameters up to ``fit_intercept`` say the same in another way and must be left out. See
        Notes.
    groups : str, int, tuple or list of these, default=None
        Columns of X that hold the grouping factors, by name or position: one column, or a list with
        an entry for each factor. A tuple of columns is their interaction: ``("batch", "cask")``,
        lme4's ``batch:cask``, has a level for every combination that occurs, and the factor is
        called "batch:cask". Group columns may hold labels of any kind and have no fixed effect.
        None: the labels are passed as ``fit(X, y, groups=labels)``.
    fixed_effects : str, int or list of these, default=None
        Columns of X with a fixed effect; None: all but the group columns. Columns without any
        effect are not looked at.
    random_intercept : bool or dict, default=True
        Whether each level has an intercept of its own. A dict gives it by the factors' names; a
        factor that it leaves out has one.
    random_slopes : str, int, list of these, or dict, default=None
        Columns of X whose coefficient differs between levels. They need no fixed effect. A list
        holds for every factor; a dict gives the list by the factors' names, and none to a factor
        that it leaves out.
    covariance : str, array-like of bool, or dict, default="full"
        Structure of the covariance of the q random effects of a level (the intercept first, then
        the slopes in their order):

        - "full": all variances and covariances free;
        - "diagonal": no covariances;
        - "scalar": no covariances, and one variance for all effects;
        - "compound_symmetry": one variance, and one correlation for all pairs of effects;
        - "heterogeneous_compound_symmetry": the same with a variance for each effect;
        - "ar1": one variance, and correlations r^abs(i - j) that fall with the distance in the
          order of the effects;
        - "heterogeneous_ar1": the same with a variance for each effect;
        - a mask of shape (q, q): covariances zero wherever the mask is False. The zeros hold
          exactly; a mask whose covariances form a cycle of four or more effects without a chord is
          refused.

        A dict gives it by the factors' names; a factor that it leaves out has a full covariance.
    fit_intercept : bool, default=True
        Whether the fixed effects have an intercept.
    reml : bool, default=True
        Whether to maximise the restricted likelihood, which allows for the degrees of freedom that
        the fixed effects use, or the likelihood.
    handle_unknown : {"population", "average", "error"}, default="population"
        What `predict` does with what `fit` did not see. A level, or a missing label: an error, or a
        prediction without an effect of that factor. A category of a formula's fixed effects: an
        error, or with "average" the mean of the predictions for all categories, and a warning.
    max_iter : int, default=100
        Most iterations of the optimiser from one start; with the stochastic solver, in all.
    tol : float, default=1e-8
        The fit is accepted when the quadratic model of minus twice the log-likelihood promises no
        further decrease beyond this and rounding error; at least 1e-4 counts where the random
        effects reproduce the response and the noise has to be kept from zero.
    warm_start : bool, default=False
        Whether a further call of `fit` starts from the variance components of the last one.
    solver : {"auto", "exact", "stochastic"}, default="auto"
        How crossed factors are fitted. "exact": the random effects of all factors but the largest
        share a dense block. "stochastic": no dense block; equations are solved by iteration, and
        the variances have a Monte Carlo error of about a hundredth of their standard errors, while
        coefficients and BLUPs follow from them without such an error. "auto": "exact" where the
        dense block fits into memory and takes seconds, else "stochastic". One factor, factors that
        are nested in each other, and further factors of at most 64 random effects together are
        always exact.
    random_state : int, RandomState instance or None, default=None
        What the random signs of the stochastic solver are drawn from. Pass an int for the same
        estimates in every call.
    residual : str or object of mixedlearn.residual, default=None
        Covariance of the noise of the rows of a level. None: all rows have the same variance, and
        none are correlated. By name, with ``time``:

        - "ar1": correlations r^d of rows that are d time units apart; "continuous_ar1" for times
          that are not whole numbers;
        - "compound_symmetry": one correlation for all rows of a level;
        - "toeplitz": a correlation for every distance in the order of the occasions;
        - "antedependence": one for every two occasions that follow each other;
        - "heterogeneous_ar1" and the like: the same with a variance for each occasion;
        - "unstructured": a variance for each occasion and a correlation for every two of them.

        The objects of `mixedlearn.residual`, such as `AR1`, `Stratified` and `Power`, have further
        parameters. The levels are those of ``groups``; with ``random_intercept=False``, or a
        formula without a bar beside ``groups``, they have no random effects. The fitted model then
        keeps the rows, from which forecasts continue.
    time : str or int, default=None
        Column of X that holds the times or the occasions of the rows of a level, for ``residual``:
        numbers or a category. It has a fixed effect like any other unless ``fixed_effects`` leaves
        it out. Ignored if ``residual`` is None.

    Attributes
    ----------
    coef_ : ndarray of shape (n_fixed_effects,)
        Fixed effects of the columns, in the order of ``fixed_effects``; group columns have none. Of
        columns that are combinations of others (all dummies of a category, say) the shortest
        coefficients that predict the same, as in `LinearRegression`; with a formula, the later
        columns are left out as in R, and their coefficients are zero.
    intercept_ : float
        Fixed intercept; zero if ``fit_intercept`` is False.
    coef_covariance_ : DataFrame of shape (p, p)
        Covariance matrix of the fixed effects, the intercept first.
    noise_variance_ : float
        Variance of the noise of a row of weight one, in squared units of y. Where ``residual``
        gives rows different variances, that of the first occasion and stratum, and of a covariate
        of one.
    residual_parameters_ : dict of str to float
        Parameters of ``residual``: correlations, variances or their ratios to ``noise_variance_``,
        powers.
    residual_covariance_ : DataFrame of shape (n_occasions, n_occasions)
        Covariance of the noise of the rows of a level, by occasion, in the first stratum and for
        covariates of one. With ``by`` a dict, with a covariance for each value of the column.
    covariances_ : dict of str to DataFrame of shape (q, q)
        For every factor, variances and covariances (no standard deviations) of its random effects.
    random_effects_ : dict of str to DataFrame of shape (n_levels, q)
        For every factor, the BLUPs of its levels. The levels of an interaction are a MultiIndex.
    random_effects_covariances_ : dict of str to ndarray of shape (n_levels, q, q)
        For every factor, the covariance of each level's effects given the data, the fixed effects
        taken as known (lme4's ``condVar``).
    theta_ : ndarray of shape (n_parameters,)
        Factor by factor, free entries, column by column, of the Cholesky factor of the random
        effects' covariance relative to the noise variance: the q entries of its diagonal for a
        diagonal covariance, one entry for a scalar one, and with a mask those of the effects in an
        order that keeps its zeros. For compound symmetry, the roots of the eigenvalues of the mean
        of the effects and of their differences; for an AR(1), the standard deviation and the arc
        sine of the correlation; with a variance for each effect, the roots of the standard
        deviations and an angle that stands for the correlation.
    log_likelihood_ : float
        Maximum of the log-likelihood; of the restricted one if ``reml``.
    n_iter_ : int
        Number of iterations of the optimiser.
    converged_ : bool
        Whether the optimum carries its certificate: no step in any direction promises a decrease,
        by the Hessian or, with several factors and more than 400 random effects, by average
        information.
    is_singular_ : bool
        Whether the covariance of some factor's random effects is singular: a variance is zero or
        effects are perfectly correlated.
    solver_ : {"exact", "stochastic"}
        The solver that was used.
    monte_carlo_errors_ : dict
        With the stochastic solver, the standard errors over draws of its random signs: of the
        entries of ``covariances_`` ("covariances", a dict by factor), of ``noise_variance_``
        ("noise_variance") and of ``log_likelihood_`` ("log_likelihood").
    n_groups_ : dict of str to int
        Number of levels of every factor.
    n_features_in_ : int
        Number of columns of X, the group columns among them.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns of X, if it had names.
    formula_ : str
        The model in lme4's notation, whichever way it was given. What lme4 cannot write is noted:
        ``(1 + x + z | g; no covariance of x and z)`` for a mask whose zeros do not separate blocks
        of effects.

    Notes
    -----
    In a formula, the fixed effects are those of formulaic: ``a*b`` and ``a:b``, ``np.log(x)``,
    ``I(x**2)``, ``poly(x, 2)``, ``bs(x, df=4)``, ``.`` for all columns but the grouping factors,
    ``0 +`` without an intercept. Text, booleans and pandas' categories (ordered or not) are coded
    by treatment contrasts; ``predict`` refuses categories that `fit` did not see. A random term
    ``(effects | grouping)`` is lme4's: ``(1 | a/b)`` for ``(1 | a) + (1 | a:b)``; the effects of
    one term are correlated, those of different terms are not, whence ``(1 + x || g)`` for
    ``(1 | g) + (0 + x | g)``. As in lme4, ``(c || g)`` of a categorical column ``c`` separates
    terms, not categories: its effects have a full covariance, without one with the intercept.
    Structures are written as lme4 2.0 does: ``us()``, ``diag()``, ``cs()`` and ``ar1()`` around a
    term, ``cs(0 + visit | id)``, with ``hom = TRUE`` for one variance (what ``ar1()`` has by
    default) and ``hom = FALSE`` for a variance of each effect.
    What ``poly``, ``bs``, ``ns``, ``cr``, ``center`` and ``scale`` learn in `fit` holds in
    ``predict``; other Python, such as ``{x - x.mean()}``, is computed anew from the new rows, of
    which `fit` warns. Splines go on beyond the rows of `fit` as R's do; ``bs(...,
    extrapolation="raise")`` refuses such rows, ``"clip"`` takes the nearest value. Arithmetic is
    that of real numbers, whatever the types of the columns; booleans in it are zeros and ones.
    A name in backticks is always a column, a name that is called always a function. Expressions
    are run: take no formula from strangers. A term ``offset(np.log(t))`` has no coefficient: the
    model is fitted to the response less the offset, which predictions add.

    The response that is passed to any method is in the units of the data, and a formula's left-hand
    side is computed from it: ``score``, `update_random_effects`, `mixedlearn.inference` and
    `GroupsScorer` transform it as `fit` did, with what ``scale(y)`` learnt there. Predictions,
    coefficients, variances and samples are on the scale of the left-hand side, and
    `transform_response` takes responses there. A scorer of scikit-learn by name compares
    predictions with the response as it is passed: use ``scoring=None`` or a `GroupsScorer`.

    ``sample_weight`` are precision weights: the noise variance of row i is ``noise_variance_ /
    w_i``, as in lme4. A row of weight 2 is therefore not the same as two rows of weight 1, except
    where there are no random effects: two rows of a level hold two noises.

    The optimiser takes EM steps, then trust-region Newton-Raphson steps with exact derivatives
    [1]_ [2]_; with several factors and many levels, average information stands for the Hessian
    [3]_. A variance of exactly zero is an ordinary answer and sets ``is_singular_``.

    Factors that are nested in each other cost time and memory in proportion to their levels. Of
    crossed factors the largest does so too, and the others share a dense block; `describe` shows
    what a model costs before it is fitted.

    References
    ----------
    .. [1] Lindstrom, M. J. & Bates, D. M. (1988). Newton-Raphson and EM algorithms for linear
       mixed-effects models for repeated-measures data. Journal of the American Statistical
       Association 83, 1014-1022.
    .. [2] Bates, D., Maechler, M., Bolker, B. & Walker, S. (2015). Fitting linear mixed-effects
       models using lme4. Journal of Statistical Software 67(1).
    .. [3] Gilmour, A. R., Thompson, R. & Cullis, B. R. (1995). Average information REML: an
       efficient algorithm for variance parameter estimation in linear mixed models. Biometrics 51,
       1440-1450.

    Examples
    --------
    A growth curve for every subject:

    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> round(model.intercept_, 3), model.coef_.round(3)
    (251.405, array([10.467]))
    >>> model.covariances_["Subject"].round(2)
               intercept   Days
    intercept     612.09   9.60
    Days            9.60  35.07
    >>> round(model.noise_variance_, 2)
    654.94
    >>> model.predict(X.head(2)).round(1)
    array([253.7, 273.3])

    The same by a formula:

    >>> model = MixedLinearRegressor(formula="Days + (1 + Days | Subject)").fit(X, y)
    >>> model.predict(X.head(2)).round(1)
    array([253.7, 273.3])

    Two crossed factors, every sample of penicillin on every plate:

    >>> from mixedlearn.datasets import load_penicillin
    >>> X, y = load_penicillin(return_X_y=True)
    >>> model = MixedLinearRegressor(groups=["plate", "sample"]).fit(X, y)
    >>> for name, covariance in model.covariances_.items():
    ...     print(name, covariance.to_numpy().round(4))
    plate [[0.7169]]
    sample [[3.7309]]
    >>> model.predict(X.head(2), random_effects=["sample"]).round(2)
    array([25.16, 21.96])
    """

    # Groups and offsets go wherever scikit-learn routes metadata, so nobody has to request them.
    __metadata_request__fit: ClassVar = {"groups": True, "offset": True}
    __metadata_request__partial_fit: ClassVar = {"groups": True, "offset": True}
    __metadata_request__predict: ClassVar = {"groups": True, "offset": True}
    __metadata_request__score: ClassVar = {"groups": True, "offset": True}

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "formula": [str, None],
        "groups": [str, Integral, list, tuple, None],
        "fixed_effects": ["array-like", str, Integral, None],
        "random_intercept": ["boolean", dict],
        "random_slopes": ["array-like", str, Integral, dict, None],
        "covariance": [StructureName(), "array-like", dict],
        "fit_intercept": ["boolean"],
        "reml": ["boolean"],
        "handle_unknown": [StrOptions({"population", "average", "error"})],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "warm_start": ["boolean"],
        "solver": [StrOptions({"auto", "exact", "stochastic"})],
        "random_state": ["random_state"],
        "residual": [str, BaseEstimator, None],
        "time": [str, Integral, None],
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
        residual: Any = None,
        time: Any = None,
    ):
        self.formula = formula
        self.groups = groups
        self.fixed_effects = fixed_effects
        self.random_intercept = random_intercept
        self.random_slopes = random_slopes
        self.covariance = covariance
        self.fit_intercept = fit_intercept
        self.reml = reml
        self.handle_unknown = handle_unknown
        self.max_iter = max_iter
        self.tol = tol
        self.warm_start = warm_start
        self.solver = solver
        self.random_state = random_state
        self.residual = residual
        self.time = time

    @groups_by_name
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: ArrayLike | str | None = None,
        *,
        groups: Any = None,
        sample_weight: ArrayLike | str | None = None,
        offset: ArrayLike | str | None = None,
    ) -> MixedLinearRegressor:
        """Fit the model.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features), or source of batches
            Columns with fixed or random effects, and the group columns if the constructor names
            them; a DataFrame if there is a formula. A source has rows that are not in memory: the
            path of a Parquet file or folder, a pyarrow ``Dataset`` or ``RecordBatchReader``, a
            ``LazyFrame`` of polars, or an iterator of data frames. It is read batch by batch; see
            Notes.
        y : array-like of shape (n_samples,) or str, default=None
            Response, in the units of the data: the left-hand side of a formula is computed from it.
            Where that has several columns, y is a DataFrame of them, or a Series with the name of
            one, and the others are in X. The name of a column of a frame or a source stands for
            that column, which then does not belong to X. None, if the formula has a left-hand side:
            its columns are those of X.
        groups : array-like of shape (n_samples,) or (n_samples, n_factors), default=None
            Labels of the grouping factors, aligned with X by position, a column for each. A Series
            or a DataFrame gives the factors their names; otherwise one factor is called "group",
            several "group0", "group1" and so on. A list of tuples is one factor whose labels are
            tuples.
        sample_weight : array-like of shape (n_samples,) or str, default=None
            Precision weights, or the name of their column if y is one or None; a row of weight zero
            counts as absent.
        offset : float, array-like of shape (n_samples,) or str, default=None
            What is known of the mean of the response, on the scale of the left-hand side of a
            formula, or the name of its column if y is one or None: the model is fitted to the
            response less the offset, and predictions add it. A formula may have offsets of its own,
            ``offset(log(t))``; all are added up.

        Returns
        -------
        self : MixedLinearRegressor
            Fitted.

        Raises
        ------
        ValueError
            If a parameter is not allowed; if a column is missing, there twice, not numeric or not
            finite; if a label is missing, or a floating-point number so large that its type does
            not hold every whole number; if lengths differ; if groups are given twice; if the
            formula is not as it should be (the message shows where); if weights are negative or all
            zero; if offsets are not finite numbers; or if there are groups but no more rows than
            columns. Of a source, the message begins with the number of the batch and counts rows
            within it; further, if the formula learns from all rows, as ``scale(x)`` does, if there
            is a residual structure, or if groups are passed beside it.
        ImportError
            If X is a path and pyarrow is not installed.
        MemoryError
            If the dense block of crossed factors would not fit into memory, or the search for
            covariances of very many parameters; see `describe`.
        TypeError
            If labels are not hashable, or X holds objects that are no numbers.

        Warns
        -----
        NoGroupsWarning
            If there are no groups: the model then has no random effects.
        DataWarning
            If integers are too large for floats, a pandas category of numbers is taken as numbers,
            or an expression of the formula depends on the other rows.
        DegenerateModelWarning
            If some part of the model cannot be estimated.
        ConvergenceWarning
            If the optimum does not carry its certificate.

        Notes
        -----
        The fit to a source is that to the same rows in memory, but for rounding error. Memory is
        that of some batches and of the sums, which have a share for each level and none for each
        row. Only the columns that the model uses are read. Sources but ``RecordBatchReader`` and
        iterators can be read again: a formula then finds its categories in a pass of its own
        before, and rows are looked at again where sums of squares lose digits. In a stream, the
        first batch must have or declare all categories. A fit that fails leaves the estimator as it
        was.

        The index that pandas writes into Parquet files and tables of Arrow is a column if it has a
        name, and is left out if it has none.

        Examples
        --------
        >>> from mixedlearn import MixedLinearRegressor
        >>> from mixedlearn.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True)
        >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
        >>> model.converged_, model.n_groups_
        (True, {'Subject': 18})

        Batch by batch, with the response among the columns:

        >>> study = load_sleepstudy().frame
        >>> batches = (study[first : first + 50] for first in range(0, 180, 50))
        >>> model.fit(batches, "Reaction").n_groups_
        {'Subject': 18}
        """
        with one_thread, self._as_it_was():
            self.__dict__.pop("_beside_X", None)
            if beside := names_given(y, sample_weight, offset):
                self._beside_X = beside
            source = find_source(X, y)
            if source is not None:
                return self._fit_source(source, y, groups, sample_weight, offset)
            X, y, sample_weight, offset = columns_of_model(self, X, y, sample_weight, offset)
            return self._fit(X, y, groups, sample_weight, offset)

    def _fit(
        self, X: Any, y: Any, groups: Any, sample_weight: Any, offset: Any
    ) -> MixedLinearRegressor:
        read = read_fit(self, X, y, groups, sample_weight, offset)
        specification, formula = read.specification, read.formula
        check_search_memory(specification)
        has_groups = bool(read.rows.labels) or has_noise(self)
        warn_of_rows(formula, read.notes.values(), FIT_STACKLEVEL, has_groups=has_groups)
        metadata = {"groups": groups, "sample_weight": sample_weight, "offset": offset}
        task = begin_fit(self, X, y, metadata)
        try:
            sums = Sums.of(read.rows, specification.slopes)
        except ValueError:
            # Names the column at fault, also where scikit-learn is told to assume that all is well.
            with config_context(assume_finite=False):
                numeric_columns(self, read.source, specification)
            raise
        recipe = recipe_of(self, specification)
        with task.searching():
            model = fit_sums(sums, recipe, start=warm_theta(self, specification))
            model = with_more_digits(model, RowsAtHand(read.rows))
            if read.noise is not None:
                found, columns = read.noise
                binding, noise_rows = bind(found.residual, found.names, columns)
                coded = read.rows.coded(sums.levels)
                model = fit_correlated(model, coded, noise_rows, binding)
        source = None if read.noise is None else read.noise[0]
        self._set_fitted(
            Fitted(
                Known(model),
                formula,
                noise=source,
                needs_offset=offset is not None,
                weights=read.rows.weight_range,
            )
        )
        warn_of_fit(model, self.max_iter, FIT_STACKLEVEL)
        task.end()
        return self

    def _fit_source(
        self, source: Source, y: Any, groups: Any, sample_weight: Any, offset: Any
    ) -> MixedLinearRegressor:
        """The same of rows that are read batch by batch."""
        metadata = {"sample_weight": sample_weight, "offset": offset}
        task = begin_fit(self, None, None, metadata)
        found = fit_source(self, source, y, groups, sample_weight, offset, task)
        formula = found.reader.formula
        has_groups = bool(found.model.specification.factors)
        warn_of_rows(formula, found.notes.values(), FIT_STACKLEVEL, has_groups=has_groups)
        for name, value in column_attributes(found.first).items():
            setattr(self, name, value)
        self._set_fitted(
            Fitted(
                Known(found.model),
                formula,
                needs_offset=found.reader.needs_offset,
                weights=found.weights,
            )
        )
        warn_of_fit(found.model, self.max_iter, FIT_STACKLEVEL)
        task.end()
        return self

    @groups_by_name
    def predict(
        self,
        X: Any,
        *,
        groups: Any = None,
        offset: ArrayLike | str | None = None,
        random_effects: Any = "all",
        return_std: bool = False,
    ) -> FloatArray | tuple[FloatArray, FloatArray]:
        """Predict with fixed effects and BLUPs.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
            The columns that `fit` had; with a formula, those that it uses, whatever others there
            are. Columns that `fit` took by name for y, weights or offset are not looked at. A
            DataFrame needs only the columns that the prediction uses: without those of
            factors that ``random_effects`` leaves out.
        groups : array-like of shape (n_samples,) or (n_samples, n_factors), default=None
            Labels, if they came beside X in `fit`: the columns of a DataFrame by the factors'
            names, others by position. A level that `fit` did not see, or a missing label (NaN or
            None), has no effect, or is refused if ``handle_unknown="error"``; the effects of the
            other factors are added all the same.
        offset : float, array-like of shape (n_samples,) or str, default=None
            What is added to the predictions, or the name of its column in X, if `fit` had an offset
            beside X: it must be passed then, and zero leaves it out. That of a formula is computed
            from X.
        random_effects : {"all", "none"}, str, tuple or list of these, default="all"
            Names of the factors whose BLUPs are added, an interaction also as the tuple of its
            columns; "none" predicts the population.
        return_std : bool, default=False
            Whether to return the standard deviation of a new observation as well. With the
            stochastic solver each distinct row takes a solution of the equations.

        Returns
        -------
        y_mean : ndarray of shape (n_samples,)
            Predictions, on the scale of the left-hand side of a formula: those of
            ``np.log(y) ~ x`` are logarithms.
        y_std : ndarray of shape (n_samples,)
            Standard deviation of a new observation of weight one, in units of y, only if
            ``return_std``: it covers the noise, the uncertainty of the fixed effects and of the
            BLUPs of all factors with their covariances, and for an unseen level, or a factor that
            is left out, the whole variance of its random effects.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If the columns are not those of `fit`, not numeric or not finite; if a category of a
            formula was not seen in `fit`, unless ``handle_unknown="average"``; if a label is
            missing or unknown and ``handle_unknown="error"``; if lengths differ; if `fit` had an
            offset and there is none, or the other way around; or if ``random_effects`` names a
            factor that the model does not have. With a residual structure, if a column that it uses
            is missing or has a value that it cannot take, or if a row of a known level has another
            value of ``by`` than the level.

        Warns
        -----
        PopulationPredictionWarning
            If groups are missing although the random effects have a variance, if no level of a
            factor is known and its labels are of another kind than in `fit`: text and not numbers,
            say, or if ``handle_unknown="average"`` and a category was not seen in `fit`.

        Examples
        --------
        >>> from mixedlearn import MixedLinearRegressor
        >>> from mixedlearn.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True)
        >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
        >>> model.predict(X.head(2)).round(1)
        array([253.7, 273.3])
        >>> model.predict(X.head(2), random_effects="none").round(1)
        array([251.4, 261.9])
        >>> somebody = X.head(2).assign(Subject=999)
        >>> mean, std = model.predict(somebody, return_std=True)
        >>> mean.round(1), std.round(1)
        (array([251.4, 261.9]), array([36.2, 37. ]))
        """
        return self._predict(X, groups, offset, random_effects, return_std, stacklevel=4)

    def _predict(
        self,
        X: Any,
        groups: Any,
        offset: Any,
        random_effects: Any,
        return_std: bool,
        stacklevel: int,
    ) -> FloatArray | tuple[FloatArray, FloatArray]:
        view = FittedView(self)
        names = view.specification.factor_names
        if view.noise is not None:
            return self._predict_correlated(
                view, X, groups, random_effects, return_std, offset, stacklevel
            )
        wanted = wanted_factors(random_effects, names)
        rows = view.rows_to_predict(X, groups, wanted, return_std=return_std, stacklevel=stacklevel)
        codes = _codes(view, rows.labels, wanted, stacklevel + 1)
        coded = CodedRows(rows.X, codes)
        # A product with a vector is one wait for threads, and many rows gain by them.
        with one_thread if return_std else nullcontext():
            mean = view.mean(coded)
            known = view.offset(X, offset)
            mean = mean if known is None else mean + known
            return (mean, view.std(coded)) if return_std else mean

    def _predict_correlated(
        self,
        view: FittedView,
        X: Any,
        groups: Any,
        random_effects: Any,
        return_std: bool,
        offset: Any,
        stacklevel: int,
    ) -> FloatArray | tuple[FloatArray, FloatArray]:
        """The same with a residual structure."""
        names = view.specification.factor_names
        series = view.noise.series
        known = names if series is None or series in names else (*names, series)
        wanted = wanted_factors(random_effects, known)
        own = tuple(name for name in wanted if name in names)
        rows = view.rows_to_predict(
            X, groups, own, return_std=return_std, stacklevel=stacklevel + 1
        )
        coded = CodedRows(rows.X, _codes(view, rows.labels, own, stacklevel + 2))
        mean = view.mean(coded)
        known_offset = view.offset(X, offset)
        mean = mean if known_offset is None else mean + known_offset
        if not return_std and (series is None or series not in wanted):
            # Only what rows of a level say of each other changes a mean.
            return mean
        found = view.condition(X, groups, stacklevel + 2, is_wanted=series in wanted)
        mean = mean + found.mean
        return (mean, view.std(coded, found)) if return_std else mean

    def transform_response(self, y: Any, X: Any = None) -> FloatArray:
        """The response on the scale of the model, which is that of `predict`.

        Parameters
        ----------
        y : array-like of shape (n_samples,), or DataFrame
            Response in the units of the data, as for `fit`.
        X : DataFrame of shape (n_samples, n_features), default=None
            Where the left-hand side of the formula has several columns, those that y does not have.

        Returns
        -------
        response : ndarray of shape (n_samples,)
            The left-hand side of the formula, with what it learnt in `fit`; y itself if the formula
            has none, or there is no formula.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If responses are not finite numbers, one for each row, or a column is missing.

        Examples
        --------
        >>> from mixedlearn import lmer
        >>> from mixedlearn.datasets import load_sleepstudy
        >>> study = load_sleepstudy().frame
        >>> model = lmer("np.log(Reaction) ~ Days + (1 | Subject)", study)
        >>> residuals = model.transform_response(study["Reaction"]) - model.predict(study)
        >>> print(f"{residuals.std():.4f}")
        0.0921
        """
        view = FittedView(self)
        return view.response(pd.DataFrame(index=range(len(y))) if X is None else X, y)

    @groups_by_name
    def score(
        self,
        X: Any,
        y: ArrayLike | str,
        *,
        groups: Any = None,
        sample_weight: ArrayLike | str | None = None,
        offset: ArrayLike | str | None = None,
    ) -> float:
        """Coefficient of determination of the predictions.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
            The columns that `fit` had.
        y : array-like of shape (n_samples,) or str
            True responses, in the units of the data, or the name of their column in X: the
            left-hand side of a formula is computed from them, as in `fit`.
        groups : array-like of shape (n_samples,) or (n_samples, n_factors), default=None
            Labels, as for `predict`.
        sample_weight : array-like of shape (n_samples,) or str, default=None
            Weights of the rows, or the name of their column if y is one.
        offset : float, array-like of shape (n_samples,) or str, default=None
            As for `predict`.

        Returns
        -------
        score : float
            R squared of ``predict(X, groups=groups)``, on the scale of the left-hand side of a
            formula.

        Raises
        ------
        ValueError
            As `predict`, or if y or the weights are not finite numbers, one for each row.

        Warns
        -----
        PopulationPredictionWarning
            If groups are missing although the random effects have a variance, if no level of a
            factor is known and its labels are of another kind than in `fit`: text and not numbers,
            say, or if ``handle_unknown="average"`` and a category was not seen in `fit`.

        Examples
        --------
        >>> from mixedlearn import MixedLinearRegressor
        >>> from mixedlearn.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True)
        >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
        >>> round(model.score(X, y), 3)
        0.826
        """
        X, y, sample_weight, offset = columns_of_frame(X, y, sample_weight, offset)
        mean = self._predict(X, groups, offset, "all", return_std=False, stacklevel=4)
        truth = FittedView(self).response(X, y)
        return r2_score(truth, mean, sample_weight=check_weights(sample_weight, mean))

    @groups_by_name
    def describe(self, X: Any, *, groups: Any = None) -> ModelDescription:
        """Describe the blocks of the model and their cost, without fitting it.

        Factors that are nested in each other are eliminated level by level, which takes time and
        memory in proportion to the numbers of levels. Factors that are crossed with the largest one
        share one dense block: its memory grows with the square of their levels, its time with the
        cube.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
            As for `fit`; only its group columns are looked at.
        groups : array-like of shape (n_samples,) or (n_samples, n_factors), default=None
            Labels, as for `fit`.

        Returns
        -------
        description : ModelDescription
            Prints as a table: each factor with its levels, effects and how they are stored, in the
            order of elimination, and the dense block with the memory that it takes during a fit.

        Raises
        ------
        ValueError
            If parameters or labels are not allowed, as for `fit`.

        Examples
        --------
        >>> from mixedlearn import MixedLinearRegressor
        >>> from mixedlearn.datasets import load_insteval
        >>> X, y = load_insteval(return_X_y=True)
        >>> factors = ["s", "d", "dept"]
        >>> model = MixedLinearRegressor(groups=factors, fixed_effects=["service"])
        >>> print(model.describe(X))
        73,421 rows, 2 fixed effects, 4,114 random effects of 3 grouping factors
        factor  levels  effects  stored as
        s        2,972        1  2,972 blocks of 1 x 1;
                                 89,667 entries beside the dense block
        d        1,128        1  part of the dense block
        dept        14        1  part of the dense block
        dense block: 1,142 x 1,142, 20.9 MB, about 1.5e+09 multiplications an evaluation
        solver: exact
        """
        self._validate_params()
        refuse_source(
            X,
            "read the group columns alone, for example by pandas.read_parquet(path, columns=...).",
        )
        specification, rows = read_factors(self, X, groups)
        sums = Sums.of(rows, [()] * len(rows.labels))
        return describe_model(sums, specification, self.solver)

    def _validate_params(self) -> None:
        """Check the parameters; scikit-learn's message would show labels and not say what to do."""
        if hasattr(self.groups, "__array__") and np.ndim(self.groups) > 0:
            raise ValueError(
                "groups of the constructor names columns of X, as groups='column'. It was given "
                "labels: pass these to fit(X, y, groups=...), or put them into X as a column."
            )
        super()._validate_params()

    def get_metadata_routing(self) -> Any:
        """Metadata that this object requests.

        Groups that are routed to the splitter of a cross-validation are not for an estimator that
        finds its groups in a column of X.

        Returns
        -------
        routing : MetadataRequest
            What `fit`, `partial_fit`, `predict` and `score` ask for.
        """
        routing = super().get_metadata_routing()
        if self.groups is not None or self.formula is not None:
            for method in ("fit", "partial_fit", "predict", "score"):
                request = getattr(routing, method)
                if request.requests.get("groups") is True:
                    request.add_request(param="groups", alias=False)
        return routing


def _codes(
    view: FittedView, labels: Sequence[Labels], wanted: Sequence[str], stacklevel: int
) -> tuple[Codes | None, ...]:
    """The levels of rows to predict, with warnings if there are none that `fit` saw."""
    if wanted and not labels:
        warn_of_missing_groups(view, stacklevel)
    codes = view.codes(labels, wanted)
    view.warn_of_kinds(labels, codes, stacklevel)
    return codes


def wanted_factors(random_effects: Any, names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the factors whose BLUPs are wanted."""
    if isinstance(random_effects, str):
        if random_effects in ("all", "none"):
            return names if random_effects == "all" else ()
        random_effects = [random_effects]
    if isinstance(random_effects, tuple):
        random_effects = [random_effects]
    if not isinstance(random_effects, list):
        raise ValueError(
            f"random_effects must be 'all', 'none' or a list of factors, got {random_effects!r}."
        )
    wanted = tuple(plain_name(name) for name in random_effects)
    for name in wanted:
        if name not in names:
            known = ", ".join(map(repr, names)) or "none: it was fitted without groups"
            raise ValueError(
                f"random_effects names the factor {name!r}, but the model's grouping factors "
                f"are {known}. Give 'all', 'none' or a list of factors."
            )
    return wanted
