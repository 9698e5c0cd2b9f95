"""Single deletions: what each term of the fixed effects and of the random effects is worth.

Every smaller model is refitted from the sums of the fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from scipy.stats import chi2

from mixedlearn.covariance.structures import make_structure
from mixedlearn.data.sums import Sums
from mixedlearn.inference._criteria import aic, likelihood_ratio, n_parameters
from mixedlearn.inference._models import (
    by_maximum_likelihood,
    model_of,
    view_of,
    warn_of_sampling,
    warn_of_untestable,
)
from mixedlearn.inference._text import ResultTable
from mixedlearn.model.fit import refit
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.submodels import with_intercept_alone, without_coefs, without_effects
from mixedlearn.specification import INTERCEPT, EffectTerm, Factor, Specification, Term

AnyTerm = TypeVar("AnyTerm", Term, EffectTerm)


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
    model = by_maximum_likelihood(model_of(estimator, takes_noise=True))
    terms = droppable(model.specification.terms)
    models = [
        refit(
            model,
            specification=without_coefs(model.specification, set(term.coefs)),
            start=model.user_theta,
        )
        for term in terms
    ]
    warn_of_sampling("drop1", models, [model] * len(models))
    table = _table(model, [term.name for term in terms], models)
    warn_of_untestable("drop1", list(table.index[1:][table["df"].iloc[1:] == 0]))
    return table


def ranova(estimator: Any) -> pd.DataFrame:
    """Likelihood-ratio tests of leaving out each term of the random effects.

    What lmerTest's ``ranova`` does: of ``(x + z | g)`` the slopes of x and of z are left out in
    turn, each with its covariances; of ``(1 | g)`` the intercept. An intercept beside slopes that
    it covaries with stays, as does a term that another contains. ``(0 + c | g)``, of all categories
    of c, becomes ``(1 | g)`` if that is nested in it. Where covariances do not allow a smaller
    term, as with one variance for all effects, the whole goes.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Models of one fitted by REML are compared by REML, those of one fitted by ML by ML.

    Returns
    -------
    table : DataFrame
        A row for the model as it is, "<none>", and for each term, as `drop1`: df, the number of
        parameters that it has; aic of the model without it; lrt, the likelihood-ratio statistic;
        p_value by the chi-squared distribution, which is too large where a variance is tested,
        since zero is its boundary.

    Raises
    ------
    ValueError
        If the model has no random effects.
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    See Also
    --------
    exact_restricted_lrt : Of one variance, by its exact distribution.
    likelihood_ratio_test : Of any two nested models; with a p-value that allows for the boundary.
    bootstrap_lrt : The same by simulation.

    References
    ----------
    Kuznetsova, A., Brockhoff, P. B. & Christensen, R. H. B. (2017). lmerTest package: tests in
    linear mixed effects models. Journal of Statistical Software 82(13).

    Examples
    --------
    >>> from mixedlearn import lmer
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import ranova
    >>> model = lmer("Reaction ~ Days + (Days || Subject)", load_sleepstudy().frame)
    >>> ranova(model).round(2)
                            df      aic    lrt  p_value
    <none>                <NA>  1753.67    NaN      NaN
    (1 | Subject)            1  1774.53  22.86      0.0
    (0 + Days | Subject)     1  1794.47  42.80      0.0
    """
    model = model_of(estimator, takes_noise=True)
    if not model.specification.factors:
        raise ValueError("The model has no random effects: there is no term to leave out.")
    names, models = [], []
    for k, (factor, terms) in enumerate(
        zip(model.specification.factors, _effect_terms(estimator, model), strict=True)
    ):
        for name, sums, specification in _smaller(model, k, factor, terms):
            names.append(name)
            models.append(refit(model, sums=sums, specification=specification))
    warn_of_sampling("ranova", models, [model] * len(models))
    return _table(model, names, models)


def _table(model: FittedModel, names: Sequence[str], models: Sequence[FittedModel]) -> pd.DataFrame:
    """Tests of a model against smaller ones."""
    df = [n_parameters(model) - n_parameters(own) for own in models]
    statistics = [likelihood_ratio(own, model) for own in models]
    p_values = [
        chi2.sf(statistic, own) if own else np.nan
        for own, statistic in zip(df, statistics, strict=True)
    ]
    return ResultTable(
        {
            "df": pd.array([None, *df], dtype="Int64"),
            "aic": [aic(own) for own in (model, *models)],
            "lrt": [np.nan, *statistics],
            "p_value": [np.nan, *p_values],
        },
        index=["<none>", *names],
    )


def _effect_terms(estimator: Any, model: FittedModel) -> list[tuple[EffectTerm, ...]]:
    """For every factor, its random effects but for the intercept, by terms."""
    formula = view_of(estimator, takes_noise=True).formula
    if formula is not None:
        return list(formula.effect_terms())
    return [
        tuple(
            EffectTerm(name, (name,), frozenset([name]))
            for name in factor.effects
            if name != INTERCEPT
        )
        for factor in model.specification.factors
    ]


def _smaller(
    model: FittedModel, k: int, factor: Factor, terms: Sequence[EffectTerm]
) -> Iterator[tuple[str, Sums, Specification]]:
    """What is left out of factor k, in words, and the model without it."""
    sums, specification = model.sums_of_rows, model.specification
    for own_terms, block in _blocks(factor, terms):
        has_intercept = factor.random_intercept and 0 in block
        names = ["1" if has_intercept else "0", *(term.name for term in own_terms)]
        text = f"({' + '.join(names)} | {factor.name})"
        whole = True
        for term in droppable(own_terms):
            dropped = {factor.effects.index(name) for name in term.effects}
            if dropped < block and _allows(factor, dropped):
                whole = False
                yield f"{term.name} in {text}", *without_effects(sums, specification, k, dropped)
            elif term.has_constant and dropped == set(range(len(factor.effects))):
                ones = np.ones((len(dropped), 1))
                if factor.structure.contains(make_structure("full", [INTERCEPT]), ones):
                    whole = False
                    yield f"{term.name} in {text}", *with_intercept_alone(sums, specification, k)
        if whole:
            yield text, *without_effects(sums, specification, k, block)


def _allows(factor: Factor, dropped: set[int]) -> bool:
    """Whether the structure has the covariances of the other effects, these effects zero."""
    rest = [effect for effect in range(len(factor.effects)) if effect not in dropped]
    embedding = np.eye(len(factor.effects))[:, rest]
    return factor.structure.contains(factor.structure.restricted(rest), embedding)


def _blocks(
    factor: Factor, terms: Sequence[EffectTerm]
) -> Iterator[tuple[list[EffectTerm], set[int]]]:
    """Terms whose effects share parameters, and the positions of these effects."""
    shared = factor.structure.mask.copy()
    for group in factor.structure.deviations:
        shared[np.ix_(group, group)] = True
    for term in terms:
        own = [factor.effects.index(name) for name in term.effects]
        shared[np.ix_(own, own)] = True
    reach = np.linalg.matrix_power(shared.astype(float), len(shared)) > 0.0
    for first, row in enumerate(reach):
        if not row[:first].any():
            block = set(np.flatnonzero(row).tolist())
            yield [term for term in terms if factor.effects.index(term.effects[0]) in block], block


def droppable(terms: Sequence[AnyTerm]) -> list[AnyTerm]:
    """Terms that no other contains."""
    return [term for term in terms if not any(term.variables < other.variables for other in terms)]
