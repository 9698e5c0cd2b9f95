"""Progress: whoever wants to know of the iterations of a search is told of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_listener: ContextVar[Callable[[], None] | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Callable[[], None]) -> Iterator[None]:
    """A context in which a function is called at every iteration of a search."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell_iteration() -> None:
    """Say that an iteration is done."""
    listener = _listener.get()
    if listener is not None:
        listener()
