"""Searches numbered problems in several processes, and writes the best that is known of each."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy

Entry = dict[str, object]


def known_optima(fits, same):
    """The criteria of all local optima that several searches of one problem have seen."""
    optima = list(min(fits, key=lambda fit: fit.criterion).local_optima)
    for fit in fits:
        for value in fit.local_optima:
            if all(abs(value - other) > same for other in optima):
                optima.append(value)
    return sorted(optima)


def timed(task):
    reference, seed = task
    began = time.perf_counter()
    return reference(seed), time.perf_counter() - began


def write(
    target: Path,
    reference: Callable[[int], Entry],
    n_problems: int,
    remark: Callable[[Entry], tuple | None],
    description: str | None,
) -> None:
    """Write the entries of all seeds, and print what `remark` has to say of them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--problems", type=int, default=n_problems)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    entries, seconds = [], []
    with multiprocessing.Pool(arguments.processes) as pool:
        tasks = ((reference, seed) for seed in range(arguments.problems))
        for entry, spent in pool.imap(timed, tasks):
            entries.append(entry)
            seconds.append(spent)
            print(f"{entry['seed']} {spent:.1f} s", end="\r", flush=True)
    versions = {"numpy": np.__version__, "scipy": scipy.__version__}
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    target.write_text(f'{{"versions": {json.dumps(versions)},\n"problems": [\n{lines}\n]}}\n')
    print(f"{len(entries)} problems, {np.median(seconds):.2f} s each, longest {max(seconds):.2f} s")
    for entry in entries:
        said = remark(entry)
        if said is not None:
            gaps = [round(v - entry["criterion"], 4) for v in entry["local_optima"][1:]]
            print(entry["seed"], entry["kind"], *said, gaps)
