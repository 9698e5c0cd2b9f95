"""Methods that take rows by position, and groups and weights by name alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])


def groups_by_name(method: Method) -> Method:
    """Say how groups and weights are passed where they come by position.

    Third arguments are weights to scikit-learn and were groups to older versions of this package,
    so that neither is guessed.
    """
    kinds = signature(method).parameters
    positional = [name for name, own in kinds.items() if own.kind is not Parameter.KEYWORD_ONLY]
    by_name = [name for name in ("groups", "sample_weight") if name in kinds]

    @wraps(method)
    def with_names(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(args) >= len(positional):
            rows = ", ".join(positional[1:])
            calls = " or ".join(f"{method.__name__}({rows}, {name}=...)" for name in by_name)
            raise TypeError(
                f"{method.__name__} takes {rows} by position and {' and '.join(by_name)} by name, "
                f"but got {len(args)} positional arguments: write {calls}."
            )
        return method(self, *args, **kwargs)

    return with_names  # type: ignore[return-value]
