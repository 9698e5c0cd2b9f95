"""Which grouping factors and random effects a picture shows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mixedlearn.exceptions import did_you_mean
from mixedlearn.specification import Specification, plain_name


def chosen_factors(
    specification: Specification,
    factor: Any,
    *,
    instead: str = "fit it with groups or a random term",
) -> list[str]:
    """The grouping factors that were asked for, in the order of the model; all if None.

    Parameters
    ----------
    specification : Specification
    factor : str, tuple of str, list of these, or None
        An interaction may be given as the tuple of its columns.
    instead : str
        What to do about a model that has none.

    Raises
    ------
    ValueError
        If the model has no such factor or none at all, or none was asked for.
    """
    names = specification.factor_names
    if not names:
        raise ValueError(
            f"The model was fitted without groups, so it has no random effects to draw: {instead}."
        )
    return _chosen(factor, names, "factor", "The model has no grouping factor")


def only_factor(specification: Specification, factor: Any) -> int:
    """Position of the one factor that was asked for, or of the only one.

    Raises
    ------
    ValueError
        As for `chosen_factors`; or if there are several, and not one of them was asked for.
    """
    names = chosen_factors(specification, factor)
    if len(names) > 1:
        raise ValueError(
            f"The picture is of one of {len(names)} grouping factors: choose it by factor=..., "
            f"from {', '.join(map(repr, names))}."
        )
    return list(specification.factor_names).index(names[0])


def chosen_effects(
    specification: Specification, factors: list[str], effect: Any
) -> dict[str, list[str]]:
    """The random effects that were asked for, by factor; factors without any are left out.

    Raises
    ------
    ValueError
        If none of the factors has such an effect, or none was asked for.
    """
    known = {own.name: own.effects for own in specification.factors if own.name in factors}
    owner = f"{', '.join(map(repr, factors))} has no random effect"
    names = [name for effects in known.values() for name in effects]
    wanted = _chosen(effect, names, "effect", owner)
    by_factor = {
        factor: [name for name in effects if name in wanted] for factor, effects in known.items()
    }
    return {factor: effects for factor, effects in by_factor.items() if effects}


def _chosen(given: Any, names: Iterable[str], parameter: str, lacks: str) -> list[str]:
    known = list(dict.fromkeys(names))
    if given is None:
        return known
    is_one = isinstance(given, (str, tuple)) or not isinstance(given, Iterable)
    wanted = [plain_name(name) for name in ([given] if is_one else given)]
    for name in wanted:
        if name not in known:
            raise ValueError(f"{lacks} {name!r}.{did_you_mean(name, known)} {_choices(known)}")
    if not wanted:
        raise ValueError(f"{parameter} is empty: there is nothing to draw. {_choices(known)}")
    return [name for name in known if name in wanted]


def _choices(names: list[str]) -> str:
    return f"Choose from: {', '.join(map(repr, names))}."
