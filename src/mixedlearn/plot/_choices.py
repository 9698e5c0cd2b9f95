"""Which grouping factors and random effects a picture shows."""

from __future__ import annotations

from collections.abc import Iterable

from mixedlearn.exceptions import did_you_mean


def chosen(
    given: str | Iterable[str] | None, names: Iterable[str], parameter: str, whose: str
) -> list[str]:
    """The names that were asked for, in the order of the model; all if None.

    Raises
    ------
    ValueError
        If one of them is not among the names, or none was asked for.
    """
    known = list(dict.fromkeys(names))
    if given is None:
        return known
    wanted = [given] if isinstance(given, str) else list(given)
    choices = ", ".join(map(repr, known))
    for name in wanted:
        if name not in known:
            raise ValueError(
                f"{parameter}={name!r}: {whose} has no such {parameter}."
                f"{did_you_mean(name, known)} Choose from: {choices}."
            )
    if not wanted:
        raise ValueError(f"{parameter} names nothing to draw. Choose from: {choices}.")
    return [name for name in known if name in wanted]
