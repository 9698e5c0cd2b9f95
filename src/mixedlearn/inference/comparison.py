"""Comparison of nested models: likelihood-ratio tests.

With the maxima l_0 of a model and l_1 of a larger one with d more parameters, ``2 (l_1 - l_0)`` is
asymptotically chi-squared with d degrees of freedom if the smaller model holds and its parameters
are inside the larger model's parameter space. A variance of zero is on the boundary of that space.
One random effect more, with c free covariances, gives an even mixture of chi-squared distributions
with c and c + 1 degrees of freedom (Stram & Lee 1994, case 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2

from mixedlearn.inference._criteria import aic, bic, likelihood_ratio, n_parameters
from mixedlearn.inference._models import model_of, warn_of_sampling, warn_of_untestable
from mixedlearn.inference._pairs import Pair, compare_models
from mixedlearn.inference._text import (
    ResultTable,
    in_lines,
    lines_html,
    p_equation,
    table_html,
    table_text,
)
from mixedlearn.model.fitted import FittedModel

NOT_CERTIFIED = "Not every optimum carries its certificate: the test may be off."


class _Printed:
    """A table of models that prints with words above and below it."""

    __slots__ = ()
    table: pd.DataFrame

    def __repr__(self) -> str:
        above, below = self._words()
        # Minus twice the log-likelihood would not fit the line.
        table = table_text(self.table.drop(columns="deviance"))
        return "\n".join(part for part in (above, table, below) if part)

    def _repr_html_(self) -> str:
        above, below = self._words()
        return lines_html(above) + table_html(self.table) + (lines_html(below) if below else "")

    def _words(self) -> tuple[str, str]:
        """What stands above and below the table."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, repr=False)
class LikelihoodRatioTest(_Printed):
    """A likelihood-ratio test of two nested models; prints as a table.

    Attributes
    ----------
    statistic : float
        Twice the difference of the log-likelihoods; at least zero.
    df : int
        How many parameters more the larger model has.
    p_value : float
        By the chi-squared distribution with df degrees of freedom. Where a variance is tested at
        zero this is conservative: too large, for one variance by a factor of about two.
    p_value_mixture : float
        Where the larger model has exactly one random effect more, of one factor, and the same fixed
        effects: by the even mixture of the chi-squared distributions with df - 1 and df degrees of
        freedom, which allows for the boundary. Else NaN.
    table : DataFrame of shape (2, 8)
        The models ("smaller" and "larger"): n_parameters, aic, bic, log_likelihood, deviance (minus
        twice the log-likelihood), and in the second row chi2, df, p_value.
    likelihood : {"ML", "REML"}
        Which likelihood was compared.
    is_refitted : bool
        Whether a model was fitted by REML and has been refitted by ML.
    is_converged : bool
        Whether the optima of both models carry their certificates.

    See Also
    --------
    likelihood_ratio_test : Computes it.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import likelihood_ratio_test
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> intercepts = MixedLinearRegressor(groups="Subject").fit(X, y)
    >>> slopes = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> test = likelihood_ratio_test(intercepts, slopes)
    >>> round(test.statistic, 3), test.df, test.is_refitted
    (42.139, 2, True)
    """

    statistic: float
    df: int
    p_value: float
    p_value_mixture: float
    table: pd.DataFrame
    likelihood: str
    is_refitted: bool
    is_converged: bool

    def _words(self) -> tuple[str, str]:
        """What stands above and below the table."""
        above = _heading("test", self.likelihood, is_refitted=self.is_refitted)
        below = []
        if not np.isnan(self.p_value_mixture):
            below.append(
                "One variance is tested at zero; the even mixture of chi-squared gives "
                f"{p_equation(self.p_value_mixture)}."
            )
        if not self.is_converged:
            below.append(NOT_CERTIFIED)
        return above, "\n".join(map(in_lines, below))


@dataclass(frozen=True, slots=True, repr=False)
class LikelihoodRatioTests(_Printed):
    """Likelihood-ratio tests of three or more nested models; prints as a table.

    Attributes
    ----------
    table : DataFrame
        A row for every model, by the number of parameters: n_parameters, aic, bic, log_likelihood,
        deviance, and from the second row on the test against the model before: chi2, df, p_value.
        "model 0" is the first that was passed.
    tests : tuple of LikelihoodRatioTest
        The test of every model but the first against the one before.
    formulas : Series of str
        The models in the same order.
    likelihood : {"ML", "REML"}
        Which likelihood was compared.
    is_refitted : bool
        Whether models were fitted by REML and have been refitted by ML.
    is_converged : bool
        Whether the optima of all models carry their certificates.

    See Also
    --------
    likelihood_ratio_test : Computes it.

    Examples
    --------
    >>> from mixedlearn import lmer
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import likelihood_ratio_test
    >>> data = load_sleepstudy().frame
    >>> formulas = ["1 + (1 | Subject)", "Days + (1 | Subject)", "Days + (Days | Subject)"]
    >>> models = [lmer(f"Reaction ~ {own}", data, reml=False) for own in formulas]
    >>> print(likelihood_ratio_test(*models))
    Likelihood-ratio tests of nested models (likelihoods)
    model 0: 1 + (1 | Subject)
    model 1: Days + (1 | Subject)
    model 2: Days + (1 + Days | Subject)
            n_parameters      aic      bic log_likelihood     chi2 df  p_value
    model 0            3  1916.54  1926.12        -955.27
    model 1            4  1802.08  1814.85        -897.04  116.462  1  < 0.001
    model 2            6  1763.94  1783.10        -875.97   42.139  2  < 0.001
    """

    table: pd.DataFrame
    tests: tuple[LikelihoodRatioTest, ...]
    formulas: pd.Series
    likelihood: str
    is_refitted: bool
    is_converged: bool

    def _words(self) -> tuple[str, str]:
        """What stands above and below the table."""
        models = "\n".join(
            in_lines(f"{name}: {formula}", "  ") for name, formula in self.formulas.items()
        )
        above = _heading("tests", self.likelihood, is_refitted=self.is_refitted)
        return f"{above}\n{models}", "" if self.is_converged else NOT_CERTIFIED


def _heading(what: str, likelihood: str, *, is_refitted: bool) -> str:
    kind = "restricted likelihoods" if likelihood == "REML" else "likelihoods"
    lines = [f"Likelihood-ratio {what} of nested models ({kind})"]
    if is_refitted:
        lines.append("Models fitted by REML were refitted by ML.")
    return "\n".join(lines)


def likelihood_ratio_test(
    est0: Any, est1: Any, *others: Any, refit: bool = True
) -> LikelihoodRatioTest | LikelihoodRatioTests:
    """Compare nested models by their likelihoods.

    Parameters
    ----------
    est0, est1, *others : MixedLinearRegressor
        Two or more models, fitted to the same rows, in any order. Ordered by their number of
        parameters, each must be nested in the next: its fixed columns are combinations of those of
        the next, its random effects too, and its covariances are possible there.
    refit : bool, default=True
        Whether models fitted by REML are refitted by ML, from their sums. Restricted
        likelihoods (False) can be compared only between models of the same fixed effects; all
        models must then be fitted alike.

    Returns
    -------
    test : LikelihoodRatioTest or LikelihoodRatioTests
        The test of two models; of more, a table with a test of each against the one before. A
        ``p_value`` is NaN where aliased columns leave no parameter to test, and a warning names
        them.

    Raises
    ------
    ValueError
        If the models were fitted to different data, if they are not nested or that cannot be told,
        if two are the same model, or if restricted likelihoods cannot be compared.
    TypeError
        If an estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    Notes
    -----
    The distribution of the statistic is asymptotic. Where a variance is tested at zero, the
    chi-squared distribution gives p-values that are too large; ``p_value_mixture`` allows for that
    [1]_, `exact_restricted_lrt` does so in finite samples. Of fixed effects in few groups, p-values
    are too small [2]_; `bootstrap_lrt` simulates the distribution instead.

    Columns are compared by their values: ``x:z`` is ``z:x``, and x a combination of ``poly(x, 2)``
    or of the categories ``C(x)``. Fits keep random combinations of their rows for that, up to 128
    of up to 2,048 rows, and products over all rows confirm what these say. What they cannot tell
    is refused. If the rows of two fits are in different orders, or came by ``partial_fit`` and were
    let go, columns are compared by name.

    References
    ----------
    .. [1] Stram, D. O. & Lee, J. W. (1994). Variance components testing in the longitudinal mixed
       effects model. Biometrics 50, 1171-1177.
    .. [2] Pinheiro, J. C. & Bates, D. M. (2000). Mixed-Effects Models in S and S-PLUS, section
       2.4. Springer.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import likelihood_ratio_test
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> intercepts = MixedLinearRegressor(groups="Subject").fit(X, y)
    >>> slopes = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> print(likelihood_ratio_test(intercepts, slopes))
    Likelihood-ratio test of nested models (likelihoods)
    Models fitted by REML were refitted by ML.
            n_parameters      aic      bic log_likelihood    chi2 df  p_value
    smaller            4  1802.08  1814.85        -897.04
    larger             6  1763.94  1783.10        -875.97  42.139  2  < 0.001
    One variance is tested at zero; the even mixture of chi-squared gives p < 0.001.
    """
    estimators = [est0, est1, *others]
    comparison = compare_models(
        [model_of(own, takes_noise=True) for own in estimators], refit=refit
    )
    pairs = [
        _test(*comparison.pair(step), is_refitted=comparison.is_refitted)
        for step in range(len(others) + 1)
    ]
    warn_of_sampling("likelihood_ratio_test", comparison.models[:-1], comparison.models[1:])
    for step, test in enumerate(pairs):
        if test.df <= 0:
            smaller, larger, _ = comparison.pair(step)
            known = smaller.specification.coef_names
            added = [name for name in larger.specification.coef_names if name not in known]
            warn_of_untestable("likelihood_ratio_test", added)
    if not others:
        return pairs[0]
    rows = pd.concat([pairs[0].table, *(test.table.iloc[1:] for test in pairs[1:])])
    names = [f"model {place}" for place in comparison.places]
    formulas = [estimators[place].formula_ for place in comparison.places]
    return LikelihoodRatioTests(
        table=ResultTable(rows.set_axis(names, axis=0)),
        tests=tuple(pairs),
        formulas=pd.Series(formulas, index=names),
        likelihood=pairs[0].likelihood,
        is_refitted=comparison.is_refitted,
        is_converged=all(test.is_converged for test in pairs),
    )


def _test(
    smaller: FittedModel, larger: FittedModel, found: Pair, *, is_refitted: bool
) -> LikelihoodRatioTest:
    """The test of two models that are ready to be compared."""
    df = n_parameters(larger) - n_parameters(smaller)
    statistic = likelihood_ratio(smaller, larger)
    p_value = float(chi2.sf(statistic, df)) if df > 0 else np.nan
    mixture = np.nan
    if df > 0 and found.is_one_variance:
        below = float(chi2.sf(statistic, df - 1)) if df > 1 else float(statistic <= 0.0)
        mixture = (below + p_value) / 2.0
    table = pd.DataFrame(
        [_criteria(smaller), _criteria(larger)], index=["smaller", "larger"]
    ).assign(
        chi2=[np.nan, statistic],
        df=pd.array([None, df], dtype="Int64"),
        p_value=[np.nan, p_value],
    )
    return LikelihoodRatioTest(
        statistic=statistic,
        df=df,
        p_value=p_value,
        p_value_mixture=mixture,
        table=ResultTable(table),
        likelihood="REML" if smaller.specification.reml else "ML",
        is_refitted=is_refitted,
        is_converged=smaller.is_certified and larger.is_certified,
    )


def _criteria(model: FittedModel) -> dict[str, float]:
    return {
        "n_parameters": n_parameters(model),
        "aic": aic(model),
        "bic": bic(model),
        "log_likelihood": -model.objective / 2.0,
        "deviance": model.objective,
    }
