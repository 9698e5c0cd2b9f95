"""Comparison of models: likelihood-ratio tests, and what each term of the fixed effects is worth.

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

from mixedlearn.data.sums import Sums
from mixedlearn.inference._criteria import aic, bic, likelihood_ratio, n_parameters
from mixedlearn.inference._models import by_maximum_likelihood, model_of, warn_of_untestable
from mixedlearn.inference._nested import what_is_missing
from mixedlearn.inference._text import (
    ResultTable,
    in_lines,
    lines_html,
    p_equation,
    table_html,
    table_text,
)
from mixedlearn.model.fit import refit as refit_model
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.submodels import without_coefs
from mixedlearn.specification import Factor, Specification, Term

# Means and sums of squares of the response that differ by less than this share are the same.
SAME_DATA = 1e-9


@dataclass(frozen=True, slots=True)
class LikelihoodRatioTest:
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
        kind = "restricted likelihoods" if self.likelihood == "REML" else "likelihoods"
        above = [f"Likelihood-ratio test of nested models ({kind})"]
        if self.is_refitted:
            above.append("Models fitted by REML were refitted by ML.")
        below = []
        if not np.isnan(self.p_value_mixture):
            below.append(
                "One variance is tested at zero; the even mixture of chi-squared gives "
                f"{p_equation(self.p_value_mixture)}."
            )
        if not self.is_converged:
            below.append("Not every optimum carries its certificate: the test may be off.")
        return "\n".join(map(in_lines, above)), "\n".join(map(in_lines, below))


def likelihood_ratio_test(est0: Any, est1: Any, *, refit: bool = True) -> LikelihoodRatioTest:
    """Compare two nested models by their likelihoods.

    Parameters
    ----------
    est0, est1 : MixedLinearRegressor
        Fitted to the same rows, in either order. One must be nested in the other: its fixed effects
        and random effects are among the other's, by their names, and so are its covariances.
    refit : bool, default=True
        Whether models fitted by REML are refitted by ML, from their sums. Restricted
        likelihoods (False) can be compared only between models of the same fixed effects; both
        models must then be fitted alike.

    Returns
    -------
    test : LikelihoodRatioTest
        Its ``p_value`` is NaN where aliased columns leave no parameter to test, and a warning names
        them.

    Raises
    ------
    ValueError
        If the models were fitted to different data, if neither is nested in the other, if they are
        the same model, or if restricted likelihoods cannot be compared.
    TypeError
        If an estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    Notes
    -----
    The distribution of the statistic is asymptotic. Where a variance is tested at zero, the
    chi-squared distribution gives p-values that are too large; ``p_value_mixture`` allows for that
    [1]_, `exact_restricted_lrt` does so in finite samples. Of fixed effects in few groups, p-values
    are too small [2]_.

    Whether columns of different names span each other cannot be told from two fits: name the
    smaller model's columns among the larger's, x and x squared rather than two sets of orthogonal
    polynomials.

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
    models = [model_of(est0), model_of(est1)]
    _check_same_data(*(model.sums for model in models))
    smaller, larger = _in_order(*models)
    is_refitted = refit and any(model.specification.reml for model in models)
    if refit:
        smaller, larger = by_maximum_likelihood(smaller), by_maximum_likelihood(larger)
    else:
        _check_comparable(smaller.specification, larger.specification)
    df = n_parameters(larger) - n_parameters(smaller)
    if df <= 0:
        known = smaller.specification.coef_names
        added = [name for name in larger.specification.coef_names if name not in known]
        warn_of_untestable("likelihood_ratio_test", added)
    statistic = likelihood_ratio(smaller, larger)
    p_value = float(chi2.sf(statistic, df)) if df > 0 else np.nan
    mixture = np.nan
    if df > 0 and _is_one_variance(smaller.specification, larger.specification):
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


def drop1(estimator: Any) -> pd.DataFrame:
    """Likelihood-ratio tests of dropping each term of the fixed effects.

    A term is dropped only if no other term contains it: not x where there is an interaction of x.
    The intercept is no term. Models are refitted by ML, from the sums.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Fitted by REML or ML.

    Returns
    -------
    table : DataFrame
        A row for the model as it is, "<none>", and for each term: df, the number of parameters that
        it has; aic of the model without it; lrt, the likelihood-ratio statistic; p_value by the
        chi-squared distribution. A term that is aliased altogether has df 0 and NaN, and a warning
        names it.

    Raises
    ------
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import drop1
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    >>> drop1(model).round(3)
              df       aic     lrt  p_value
    <none>  <NA>  1763.939     NaN      NaN
    Days       1  1785.476  23.537      0.0
    """
    model = by_maximum_likelihood(model_of(estimator))
    names, criteria, statistics = ["<none>"], [aic(model)], [np.nan]
    df: list[int | None] = [None]
    for term in _droppable(model.specification.terms):
        smaller = refit_model(
            model,
            specification=without_coefs(model.specification, set(term.coefs)),
            start=model.user_theta,
        )
        names.append(term.name)
        df.append(n_parameters(model) - n_parameters(smaller))
        criteria.append(aic(smaller))
        statistics.append(likelihood_ratio(smaller, model))
    untestable = [name for name, own in zip(names[1:], df[1:], strict=True) if not own]
    warn_of_untestable("drop1", untestable)
    p_values = [
        chi2.sf(statistic, own) if own else np.nan
        for own, statistic in zip(df, statistics, strict=True)
    ]
    return ResultTable(
        {
            "df": pd.array(df, dtype="Int64"),
            "aic": criteria,
            "lrt": statistics,
            "p_value": p_values,
        },
        index=names,
    )


def _droppable(terms: tuple[Term, ...]) -> list[Term]:
    """Terms that no other contains."""
    return [term for term in terms if not any(term.variables < other.variables for other in terms)]


def _criteria(model: FittedModel) -> dict[str, float]:
    return {
        "n_parameters": n_parameters(model),
        "aic": aic(model),
        "bic": bic(model),
        "log_likelihood": -model.objective / 2.0,
        "deviance": model.objective,
    }


def _check_same_data(first: Sums, second: Sums) -> None:
    """Refuse models of different rows, as far as rows, weights and response tell."""
    if first.n_rows != second.n_rows:
        raise ValueError(
            f"The models were fitted to different data: one to {first.n_rows} rows, the other to "
            f"{second.n_rows}. Fit both to the same rows."
        )
    total = first.total_weight
    weights = np.array([[own.total_weight, own.sum_log_weights] for own in (first, second)])
    if not np.allclose(weights[0], weights[1], rtol=SAME_DATA, atol=SAME_DATA):
        raise ValueError(
            "The models were fitted with different sample weights: fit both with the same ones."
        )
    moments = [own.response_moments() for own in (first, second)]
    spread = np.sqrt(max(square for _, square in moments) / total)
    tolerance = SAME_DATA * (spread + abs(moments[0][0]))
    if abs(moments[0][0] - moments[1][0]) > tolerance or not np.isclose(
        moments[0][1], moments[1][1], rtol=SAME_DATA, atol=tolerance**2 * total
    ):
        raise ValueError(
            "The models were fitted to different responses (their means or sums of squares "
            "differ): fit both to the same y."
        )


def _in_order(first: FittedModel, second: FittedModel) -> tuple[FittedModel, FittedModel]:
    """The smaller model, then the larger one.

    Raises
    ------
    ValueError
        If neither is nested in the other, or each in the other.
    """
    one, other = first.specification, second.specification
    missing, missing_back = what_is_missing(one, other), what_is_missing(other, one)
    if not missing and not missing_back:
        raise ValueError("The two models are the same: there is nothing to test.")
    if missing and missing_back:
        if n_parameters(first) > n_parameters(second):
            missing = missing_back
        raise ValueError(
            f"The models are not nested, by their names: {missing} of the smaller model is not in "
            "the larger one. A likelihood-ratio test needs a model whose fixed effects, random "
            "effects and covariances are all in the other; AIC compares others."
        )
    return (second, first) if missing else (first, second)


def _check_comparable(smaller: Specification, larger: Specification) -> None:
    """Refuse likelihoods of different kinds."""
    if smaller.reml != larger.reml:
        raise ValueError(
            "One model was fitted by REML, the other by ML: their likelihoods cannot be compared. "
            "Use refit=True, or fit both alike."
        )
    if smaller.reml and set(smaller.coef_names) != set(larger.coef_names):
        names = sorted(set(larger.coef_names) - set(smaller.coef_names))
        raise ValueError(
            "Restricted likelihoods of models with different fixed effects cannot be compared; the "
            f"smaller model lacks {', '.join(map(repr, names))}. Use refit=True."
        )


def _is_one_variance(smaller: Specification, larger: Specification) -> bool:
    """Whether the larger model has exactly one variance more, maybe with covariances."""
    if set(smaller.coef_names) != set(larger.coef_names):
        return False
    n_more = 0
    for factor in larger.factors:
        if factor.name not in smaller.factor_names:
            if not factor.structure.has_free_covariances:
                return False
            n_more += len(factor.structure.deviations)
            continue
        other = smaller.factors[smaller.factor_names.index(factor.name)]
        if not _has_same_covariances(other, factor):
            return False
        n_more += len(factor.effects) - len(other.effects)
    return n_more == 1


def _has_same_covariances(smaller: Factor, larger: Factor) -> bool:
    """Whether the effects that both have share their structure."""
    own, other = smaller.structure, larger.structure
    if not (own.has_free_covariances and other.has_free_covariances):
        return smaller.effects == larger.effects and own.is_same(other)
    at = [larger.effects.index(effect) for effect in smaller.effects]
    is_shared = [len(each.deviations) < each.n_effects for each in (own, other)]
    return np.array_equal(own.mask, other.mask[np.ix_(at, at)]) and is_shared[0] == is_shared[1]
