"""Parts that come one by one, and are joined like the digits of a binary counter.

So each is joined a few times, however many come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Part = TypeVar("Part")

# A part takes in the one after it as soon as that has a share of its size.
MERGED_SHARE = 4


def with_newest(
    parts: Sequence[Part],
    newest: Part,
    size: Callable[[Part], int],
    join: Callable[[Part, Part], Part],
) -> tuple[Part, ...]:
    """Parts and a further one, the oldest first; those of similar sizes are joined."""
    older = list(parts)
    while older and MERGED_SHARE * size(newest) >= size(older[-1]):
        newest = join(older.pop(), newest)
    return (*older, newest)
