"""Time and memory of programs, timed in turn so that a drift of the machine hits all alike."""

from __future__ import annotations

import functools
import multiprocessing
import pkgutil
import re
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import TypeVar
from unittest import mock

REST = "the rest"
Result = TypeVar("Result")


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


def extra_resident_memory(
    prepare: Callable[..., Callable[[], object]], *arguments: object
) -> int | None:
    """Most resident bytes of a program beyond what there was before, in a process of its own.

    Unlike `extra_memory` this slows nothing down and counts what compiled code allocates. The peak
    is the kernel's VmHWM, reset when the program starts: `resource.getrusage` would begin at the
    peak of the parent process, which a child inherits. None where there is no such file (Linux).
    """
    if not Path("/proc/self/clear_refs").exists():
        return None
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_resident_growth, (prepare, arguments))


def time_and_memory(
    prepare: Callable[..., Callable[[], Result]], *arguments: object
) -> tuple[float, int, Result]:
    """Seconds and resident bytes of one call of a program, and its result; see above."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_seconds_and_growth, (prepare, arguments))


def _seconds_and_growth(prepare: Callable[..., Callable[[], Result]], arguments: tuple) -> tuple:
    program = prepare(*arguments)
    Path("/proc/self/clear_refs").write_text("5")
    before, start = _resident("VmRSS"), time.perf_counter()
    result = program()
    return time.perf_counter() - start, _resident("VmHWM") - before, result


def _resident_growth(prepare: Callable[..., Callable[[], object]], arguments: tuple) -> int:
    program = prepare(*arguments)
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    program()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    return 1024 * int(re.search(rf"{field}:\s*(\d+)", Path("/proc/self/status").read_text())[1])


def time_steps(
    program: Callable[[], object], steps: Mapping[str, tuple[str, ...]]
) -> dict[str, float]:
    """Seconds that one call of a program spends in named steps, and in the rest.

    Parameters
    ----------
    program : callable
    steps : mapping of str to tuple of str
        The functions ("module:function") and methods ("module:Class.method") of each step. A second
        counts for the innermost step that is running.

    Returns
    -------
    dict of str to float
        Seconds of each step, and of `REST`; they add up to the whole.
    """
    seconds = dict.fromkeys([*steps, REST], 0.0)
    running = [REST]
    since = 0.0

    def switch() -> None:
        nonlocal since
        now = time.perf_counter()
        seconds[running[-1]] += now - since
        since = now

    def timed(step: str, function: Callable) -> Callable:
        @functools.wraps(function)
        def wrapper(*args: object, **kwargs: object) -> object:
            switch()
            running.append(step)
            try:
                return function(*args, **kwargs)
            finally:
                switch()
                running.pop()

        return wrapper

    with ExitStack() as stack:
        for step, targets in steps.items():
            for target in targets:
                wrapper = timed(step, pkgutil.resolve_name(target))
                for owner, name in _bindings(target):
                    stack.enter_context(mock.patch.object(owner, name, wrapper))
        since = time.perf_counter()
        program()
        switch()
    return seconds


def _bindings(target: str) -> Iterator[tuple[ModuleType | type, str]]:
    """Where the package looks a function up: every module that has imported it, or its class."""
    module, _, path = target.partition(":")
    owner, _, name = path.rpartition(".")
    if owner:
        yield pkgutil.resolve_name(f"{module}:{owner}"), name
        return
    function = pkgutil.resolve_name(target)
    package = module.partition(".")[0]
    for other in list(sys.modules.values()):
        if getattr(other, "__name__", "").partition(".")[0] == package:
            yield from ((other, name) for name, value in vars(other).items() if value is function)


def print_table(title: str, ours: str, seconds: dict[str, float]) -> None:
    """Print seconds and what each program takes relative to ours."""
    print(f"\n{title}")
    for name, value in seconds.items():
        relation = "" if name == ours else f"   {ours} takes {seconds[ours] / value:8.3f} of that"
        print(f"  {name:<28}{value * 1e3:12.2f} ms{relation}")


def print_steps(seconds: dict[str, float]) -> None:
    """Print the seconds of each step and its share of the whole."""
    total = sum(seconds.values())
    print("  where the time goes (a fit of its own)")
    for step, value in seconds.items():
        print(f"    {step:<26}{value * 1e3:12.2f} ms{value / total:8.1%}")
