"""Timing of several programs in turn, so that a drift of the machine's speed hits all alike."""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable


def time_in_turn(
    programs: dict[str, Callable[[], object]], repeats: dict[str, int]
) -> dict[str, float]:
    """Median seconds of each program over its repeats, after one call that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for name, program in programs.items():
        if repeats[name] > 1:
            program()
    for turn in range(max(repeats.values())):
        for name, program in programs.items():
            if turn < repeats[name]:
                start = time.perf_counter()
                program()
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def extra_memory(program: Callable[[], object]) -> int:
    """Most bytes that a program has allocated at once, beyond what there was before."""
    tracemalloc.start()
    program()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def print_table(title: str, ours: str, seconds: dict[str, float]) -> None:
    """Print seconds and what each program takes relative to ours."""
    print(f"\n{title}")
    for name, value in seconds.items():
        relation = "" if name == ours else f"   {ours} takes {seconds[ours] / value:8.3f} of that"
        print(f"  {name:<28}{value * 1e3:12.2f} ms{relation}")
