"""Models that are to be compared: of the same data, each nested in the next, by one criterion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixedlearn.data.sums import Sums
from mixedlearn.inference._criteria import n_parameters
from mixedlearn.inference._models import by_maximum_likelihood
from mixedlearn.inference._nested import Nesting, is_one_variance, nesting
from mixedlearn.inference._noise_nesting import missing_noise
from mixedlearn.inference._spans import INSIDE
from mixedlearn.model.fitted import FittedModel

# Means and sums of squares of the response that differ by less than this share are the same.
SAME_DATA = 1e-9
# A determinant so close to one is one.
SAME_VOLUME = 1e-6


@dataclass(frozen=True, slots=True)
class Pair:
    """What a smaller model and a larger one have of each other.

    Attributes
    ----------
    forth, back : Nesting
        Of the smaller model in the larger one, and of the larger one in the smaller.
    is_one_variance : bool
        Whether the larger model has exactly one variance more, maybe with covariances.
    """

    forth: Nesting
    back: Nesting
    is_one_variance: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """Nested models, the smallest first.

    Attributes
    ----------
    models : tuple of FittedModel
    places : tuple of int
        Their places among the models as they came.
    pairs : tuple of Pair
        Of each model but the last and the next.
    is_refitted : bool
        Whether a model was fitted by REML and has been refitted by ML.
    """

    models: tuple[FittedModel, ...]
    places: tuple[int, ...]
    pairs: tuple[Pair, ...]
    is_refitted: bool

    def pair(self, step: int) -> tuple[FittedModel, FittedModel, Pair]:
        """A model, the next, and what they have of each other."""
        return self.models[step], self.models[step + 1], self.pairs[step]


def compare_models(models: Sequence[FittedModel], *, refit: bool) -> Comparison:
    """Order models by size, and make sure that they can be compared.

    Parameters
    ----------
    models : sequence of FittedModel
        Two or more.
    refit : bool
        Whether to fit all by maximum likelihood.

    Raises
    ------
    ValueError
        If they cannot be compared.
    """
    for other in models[1:]:
        _check_same_data(models[0].sums_of_rows, other.sums_of_rows)
    places = sorted(range(len(models)), key=lambda place: _size(models[place]))
    ordered = [models[place] for place in places]
    pairs = []
    for step in range(len(models) - 1):
        smaller, larger = ordered[step], ordered[step + 1]
        is_one = len(models) == 2
        names = "The two models" if is_one else f"Models {places[step]} and {places[step + 1]}"
        pairs.append(_pair(smaller, larger, names))
        if not refit:
            _check_comparable(smaller, larger, pairs[-1])
    is_refitted = refit and any(model.specification.reml for model in models)
    if refit:
        ordered = [by_maximum_likelihood(model) for model in ordered]
    return Comparison(tuple(ordered), tuple(places), tuple(pairs), is_refitted)


def _size(model: FittedModel) -> tuple[int, int]:
    """Number of parameters, and of columns, of which some may be aliased."""
    specification = model.specification
    n_effects = sum(factor.structure.n_effects for factor in specification.factors)
    return n_parameters(model), len(specification.coef_names) + n_effects


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
            "differ): fit both to the same y, with the same offset."
        )


def _pair(smaller: FittedModel, larger: FittedModel, names: str) -> Pair:
    """What two models have of each other.

    Raises
    ------
    ValueError
        If the first is not nested in the second, or each in the other.
    """
    forth, back = nesting(smaller, larger), nesting(larger, smaller)
    lacks, lacks_back = missing_noise(smaller, larger), missing_noise(larger, smaller)
    is_same = forth.is_nested and back.is_nested and not (lacks or lacks_back)
    if is_same and _size(smaller) == _size(larger):
        raise ValueError(f"{names} are the same: there is nothing to test.")
    has_noise = smaller.noise is not None or larger.noise is not None
    if has_noise and not forth.is_aligned:
        raise ValueError(
            f"{names} have residual structures, and their rows are in different orders: fit both "
            "to the same rows in the same order."
        )
    if forth.is_nested and lacks:
        forth = replace(forth, missing=lacks, is_known=True)
    if not forth.is_nested:
        raise ValueError(_why_not(forth, names, smaller.sums.n_rows))
    has_same_fixed = back.fixed.is_inside
    is_one = has_same_fixed and not lacks_back and is_one_variance(smaller, larger, forth)
    return Pair(forth, back, is_one)


def _why_not(found: Nesting, names: str, n_rows: int) -> str:
    """Why two models cannot be compared, and what to do."""
    if found.is_known:
        return (
            f"{names} are not nested: {found.missing} of the smaller model is not in the larger "
            "one, whatever names its columns have. A likelihood-ratio test needs a "
            "model whose fixed effects, random effects and covariances are all in the other; AIC "
            "compares others."
        )
    if not found.is_aligned:
        return (
            f"{names} are not nested, by their names: {found.missing} of the smaller model is not "
            "in the larger one, or its values are others there. The rows of the two fits are in "
            "different orders, or came by partial_fit, so that columns of different names cannot "
            "be compared: give both models the same rows in the same order by fit."
        )
    return (
        f"Whether {names[0].lower()}{names[1:]} are nested cannot be told: what the fits keep of "
        f"their {n_rows} rows leaves open whether {found.missing} of the smaller model is in the "
        "larger one. Give the larger model that column itself instead of a column that it can be "
        "made from."
    )


def _check_comparable(smaller: FittedModel, larger: FittedModel, pair: Pair) -> None:
    """Refuse likelihoods of different kinds."""
    one, other = smaller.specification, larger.specification
    if one.reml != other.reml:
        raise ValueError(
            "One model was fitted by REML, the other by ML: their likelihoods cannot be compared. "
            "Use refit=True, or fit both alike."
        )
    if not one.reml or set(one.coef_names) == set(other.coef_names):
        return
    if not pair.back.fixed.is_inside:
        lacking = [
            name
            for name, verdict in zip(other.coef_names, pair.back.fixed.verdicts, strict=True)
            if verdict != INSIDE
        ]
        raise ValueError(
            "Restricted likelihoods of models with different fixed effects cannot be compared; the "
            f"smaller model lacks {', '.join(map(repr, sorted(lacking)))}. Use refit=True."
        )
    matrix = pair.forth.fixed.matrix
    is_square = matrix.shape[0] == matrix.shape[1]
    if not (is_square and abs(np.linalg.slogdet(matrix)[1]) < SAME_VOLUME):
        raise ValueError(
            "Restricted likelihoods depend on the units of the fixed effects, and the two models "
            "write the same fixed effects by other columns: use refit=True, or give both the same "
            "columns."
        )
