"""Exact likelihood-ratio tests of a variance of zero.

The statistics are those of fits to the sums; `_exact_null` simulates their null
distributions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedlearn.inference._criteria import NO_STATISTIC, likelihood_ratio
from mixedlearn.inference._exact_null import NullDistribution, spectrum
from mixedlearn.inference._models import check_count, model_of, with_criterion
from mixedlearn.inference._text import in_lines, lines_html, p_text
from mixedlearn.model.fit import refit
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.simulation import make_generator
from mixedlearn.model.submodels import without_coefs, without_effects
from mixedlearn.specification import Factor, plain_name

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ExactTest:
    """An exact test of a variance of zero; prints its result.

    Attributes
    ----------
    hypothesis : str
        What is zero under the hypothesis.
    statistic : float
        The (restricted) likelihood-ratio statistic.
    p_value : float
        Share of simulated statistics at or above the observed one, which counts as one of them:
        (k + 1) / (n_resamples + 1).
    zero_share : float
        Share of simulated statistics that are zero: how often the variance is estimated as zero
        if it is.
    n_resamples : int
        Number of simulated statistics.
    is_restricted : bool
        Whether restricted likelihoods were compared.

    See Also
    --------
    exact_restricted_lrt, exact_lrt : Compute it.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_dyestuff
    >>> from mixedlearn.inference import exact_restricted_lrt
    >>> X, y = load_dyestuff(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Batch").fit(X, y)
    >>> test = exact_restricted_lrt(model, random_state=0)
    >>> test.hypothesis, round(test.statistic, 3), round(test.zero_share, 2)
    ('var(intercept|Batch) = 0', 6.369, 0.55)
    """

    hypothesis: str
    statistic: float
    p_value: float
    zero_share: float
    n_resamples: int
    is_restricted: bool

    def __repr__(self) -> str:
        kind = "restricted likelihood-ratio" if self.is_restricted else "likelihood-ratio"
        title = in_lines(f"Exact {kind} test of {self.hypothesis}")
        return (
            f"{title}\n"
            f"statistic: {self.statistic:.4g}    p-value: {p_text(self.p_value)}\n"
            f"({self.n_resamples:,} simulated statistics, {self.zero_share:.1%} of them zero)"
        )

    def _repr_html_(self) -> str:
        return lines_html(str(self))


def exact_restricted_lrt(
    estimator: Any,
    factor: str | tuple[str, ...] | None = None,
    effect: str | None = None,
    *,
    n_resamples: int = 10_000,
    random_state: Any = None,
) -> ExactTest:
    """Test whether a variance is zero, by the exact null distribution of the restricted likelihood.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        A model fitted by ML is refitted by REML, from its sums.
    factor : str or tuple of str, optional
        Grouping factor whose variance is tested, an interaction also as the tuple of its columns;
        may be left out if there is one.
    effect : str, optional
        Random effect whose variance is tested; may be left out if the factor has one, or a
        ``covariance="scalar"``, whose only variance is tested. The effect may not have covariances
        with others: fit the model with ``covariance="diagonal"``.
    n_resamples : int, default=10000
        Number of statistics that are simulated.
    random_state : int, RandomState, Generator or None, default=None
        Seed of the random numbers.

    Returns
    -------
    test : ExactTest
        Its statistic is NaN where the fixed effects reproduce the response exactly.

    Raises
    ------
    ValueError
        If the model has no random effects or no such factor or effect, if it has several and none
        is named, or if the effect has covariances with others.
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    Notes
    -----
    With one variance the null distribution is exact in finite samples [1]_. With several, that of
    the tested variance alone stands for it, as if the other random effects were known, which is
    accurate [2]_; it is what RLRsim's ``exactRLRT(m, mA, m0)`` does [3]_.

    Time grows with the cube of the number of levels that differ in size (random intercept) or of
    all levels (random slope).

    References
    ----------
    .. [1] Crainiceanu, C. & Ruppert, D. (2004). Likelihood ratio tests in linear mixed models with
       one variance component. Journal of the Royal Statistical Society B 66, 165-185.
    .. [2] Greven, S., Crainiceanu, C., Kuechenhoff, H. & Peters, A. (2008). Restricted likelihood
       ratio testing for zero variance components in linear mixed models. Journal of Computational
       and Graphical Statistics 17, 870-891.
    .. [3] Scheipl, F., Greven, S. & Kuechenhoff, H. (2008). Size and power of tests for a zero
       random effect variance or polynomial regression in additive and linear mixed models.
       Computational Statistics & Data Analysis 52, 3283-3299.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_dyestuff
    >>> from mixedlearn.inference import exact_restricted_lrt
    >>> X, y = load_dyestuff(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Batch").fit(X, y)
    >>> print(exact_restricted_lrt(model, random_state=0))
    Exact restricted likelihood-ratio test of var(intercept|Batch) = 0
    statistic: 6.369    p-value: 0.0044
    (10,000 simulated statistics, 55.3% of them zero)
    """
    model = _exact_model(estimator)
    check_count(n_resamples, "n_resamples")
    generator = make_generator(random_state)
    k, effects = _find_variance(model, factor, effect)
    model = with_criterion(model, reml=True)
    sums, specification = without_effects(model.sums, model.specification, k, set(effects))
    null = refit(model, sums=sums, specification=specification)
    mu, multiplicity, _ = spectrum(model, k, effects)
    df = model.likelihood_df
    draw = NullDistribution(df, df, mu, multiplicity, mu, multiplicity, 0)
    simulated = draw.statistics(n_resamples, generator)
    return _result(null, model, simulated, _hypothesis(model, k, effects, ()))


def exact_lrt(
    estimator: Any,
    *,
    fixed_effects: Sequence[str] = (),
    n_resamples: int = 10_000,
    random_state: Any = None,
) -> ExactTest:
    """Test whether the variance is zero, and fixed effects with it, by the exact null distribution.

    The likelihood-ratio test (by ML) of a model with one variance component.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Has one variance component; a model fitted by REML is refitted by ML.
    fixed_effects : sequence of str, default=()
        Fixed effects that are zero under the hypothesis as well, "intercept" for the constant: of a
        spline, say, whose random effects are the departures from a polynomial.
    n_resamples : int, default=10000
        Number of statistics that are simulated.
    random_state : int, RandomState, Generator or None, default=None
        Seed of the random numbers.

    Returns
    -------
    test : ExactTest
        The hypothesis, the statistic and its p-value.

    Raises
    ------
    ValueError
        If the model has not exactly one variance component, or no such fixed effect.
    TypeError
        If the estimator is no `MixedLinearRegressor`.
    NotFittedError
        Before `fit`.

    See Also
    --------
    exact_restricted_lrt : More powerful where no fixed effects are tested; several variances.

    References
    ----------
    Crainiceanu, C. & Ruppert, D. (2004). Likelihood ratio tests in linear mixed models with one
    variance component. Journal of the Royal Statistical Society B 66, 165-185.

    Examples
    --------
    >>> from mixedlearn import MixedLinearRegressor
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> from mixedlearn.inference import exact_lrt
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedLinearRegressor(groups="Subject").fit(X, y)
    >>> print(exact_lrt(model, fixed_effects=["Days"], random_state=0))
    Exact likelihood-ratio test of var(intercept|Subject) = 0, Days = 0
    statistic: 167    p-value: < 0.001
    (10,000 simulated statistics, 0.0% of them zero)
    """
    model = _exact_model(estimator)
    check_count(n_resamples, "n_resamples")
    generator = make_generator(random_state)
    k, effects = _find_variance(model, None, None)
    coefs = _find_coefs(model, fixed_effects)
    model = with_criterion(model, reml=False)
    sums, specification = without_effects(
        model.sums, without_coefs(model.specification, set(coefs)), k, set(effects)
    )
    null = refit(model, sums=sums, specification=specification)
    mu, multiplicity, xi = spectrum(model, k, effects)
    n, p = model.sums.n_rows, len(model.fixed_effects.coef)
    n_tested = p - len(null.fixed_effects.coef)
    sizes, counts = np.unique(xi, return_counts=True)
    draw = NullDistribution(n, n - p, mu, multiplicity, sizes, counts.astype(float), n_tested)
    simulated = draw.statistics(n_resamples, generator)
    return _result(null, model, simulated, _hypothesis(model, k, effects, fixed_effects))


def _exact_model(estimator: Any) -> FittedModel:
    """The fitted model, if its likelihood is exact."""
    model = model_of(estimator)
    if model.sampling is not None:
        raise ValueError(
            "Exact tests need a likelihood without Monte Carlo error: fit the model with "
            "solver='exact'."
        )
    return model


def _result(
    null: FittedModel, model: FittedModel, simulated: FloatArray, hypothesis: str
) -> ExactTest:
    statistic, p_value = likelihood_ratio(null, model), np.nan
    if not np.isnan(statistic):
        p_value = float((simulated >= statistic).sum() + 1) / (len(simulated) + 1)
    return ExactTest(
        hypothesis=hypothesis,
        statistic=statistic,
        p_value=p_value,
        zero_share=float((simulated < NO_STATISTIC).mean()),
        n_resamples=len(simulated),
        is_restricted=model.specification.reml,
    )


def _hypothesis(
    model: FittedModel, k: int, effects: Sequence[int], fixed_effects: Sequence[str]
) -> str:
    factor = model.specification.factors[k]
    names = ", ".join(factor.effects[effect] for effect in effects)
    zeros = [f"var({names}|{factor.name}) = 0", *(f"{name} = 0" for name in fixed_effects)]
    return ", ".join(zeros)


def _find_variance(
    model: FittedModel, factor: str | tuple[str, ...] | None, effect: str | None
) -> tuple[int, list[int]]:
    """Position of the factor, and of the effects that share the tested variance."""
    factors = model.specification.factors
    names = model.specification.factor_names
    if not factors:
        raise ValueError("The model has no random effects: there is no variance to test.")
    if factor is None and len(factors) > 1:
        raise ValueError(
            f"The model has the grouping factors {', '.join(map(repr, names))}: one variance is "
            "tested at a time, by exact_restricted_lrt(model, factor=...)."
        )
    factor = plain_name(factor)
    if factor is not None and factor not in names:
        raise ValueError(
            f"The model has no grouping factor {factor!r}: its factors are "
            f"{', '.join(map(repr, names))}."
        )
    k = 0 if factor is None else names.index(factor)
    own = factors[k]
    listed = ", ".join(map(repr, own.effects))
    if effect is not None and effect not in own.effects:
        raise ValueError(
            f"The factor {own.name!r} has no random effect {effect!r}: its effects are {listed}."
        )
    group = own.structure.group_of(0)
    if len(group) == len(own.effects) > 1:
        if effect is not None:
            raise ValueError(
                f"The random effects {listed} of {own.name!r} share one variance "
                f'(covariance="{own.structure.name}"): leave effect out to test it.'
            )
        _refuse_covariance(own, group)
        return k, list(group)
    if effect is None and len(own.effects) > 1:
        raise ValueError(
            f"The factor {own.name!r} has the random effects {listed}: one variance is tested at a "
            "time, by exact_restricted_lrt(model, factor=..., effect=...)."
        )
    position = 0 if effect is None else own.effects.index(effect)
    group = own.structure.group_of(position)
    _refuse_covariance(own, group)
    return k, list(group)


def _refuse_covariance(factor: Factor, effects: Sequence[int]) -> None:
    """Refuse to test a variance of effects that have covariances."""
    for effect in effects:
        others = np.flatnonzero(factor.structure.mask[effect])
        others = others[others != effect]
        if len(others):
            raise ValueError(
                f"The random effect {factor.effects[effect]!r} of {factor.name!r} has a covariance "
                f"with {factor.effects[others[0]]!r}, so its variance is not tested alone: fit the "
                'model with covariance="diagonal", or use likelihood_ratio_test.'
            )


def _find_coefs(model: FittedModel, fixed_effects: Sequence[str]) -> list[int]:
    if isinstance(fixed_effects, str):
        raise ValueError(f"fixed_effects must be a list of names, got {fixed_effects!r}.")
    names = model.specification.coef_names
    for name in fixed_effects:
        if name not in names:
            raise ValueError(
                f"fixed_effects names {name!r}, but the model's fixed effects are "
                f"{', '.join(map(repr, names))}."
            )
    return [names.index(name) for name in fixed_effects]
