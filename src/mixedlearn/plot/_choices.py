"""Which grouping factors and random effects a picture shows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mixedlearn.design import plain_name
from mixedlearn.exceptions import did_you_mean


def chosen(given: Any, names: Iterable[str], parameter: str, owner: str) -> list[str]:
    """The names that were asked for, one or a list, in the order of the model; all if None.

    An interaction may be given as the tuple of its columns.

    Raises
    ------
    ValueError
        If one of them is not among the names, or none was asked for.
    """
    known = list(dict.fromkeys(names))
    if given is None:
        return known
    single = isinstance(given, (str, tuple)) or not isinstance(given, Iterable)
    wanted = [plain_name(name) for name in ([given] if single else given)]
    choices = f"Choose from: {', '.join(map(repr, known))}."
    for name in wanted:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ValueError(f"{owner} has no {parameter} {name!r}.{hint} {choices}")
    if not wanted:
        raise ValueError(f"{parameter} is empty: there is nothing to draw. {choices}")
    return [name for name in known if name in wanted]
