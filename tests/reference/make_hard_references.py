"""Write ``hard_problems.json``: the best criterion known for every hard problem.

Run ``python tests/reference/make_hard_references.py``: two processes, about two minutes. Every
problem is searched twice, from different random starts; `agreement` is the difference of the two
criteria.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

if __name__ in ("__main__", "__mp_main__"):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import scipy

from reference.brute_force import best_fit
from reference.hard_problems import hard_problem

TARGET = Path(__file__).with_name("hard_problems.json")


def reference(seed, n_starts=40):
    """The stored entry of one seed."""
    began = time.perf_counter()
    problem = hard_problem(seed)
    X, Z, codes = problem.matrices()
    data = (X, problem.y, Z, codes, problem.sample_weight, problem.reml, problem.covariance)
    first = best_fit(*data, n_starts=n_starts, seed=2 * seed)
    second = best_fit(*data, n_starts=n_starts, seed=2 * seed + 1)
    best = min(first, second, key=lambda fit: fit.criterion)
    optima = list(best.local_optima)
    for value in second.local_optima + first.local_optima:
        if all(abs(value - other) > 1e-4 for other in optima):
            optima.append(value)
    entry = {
        "seed": seed,
        "kind": problem.kind,
        "sha256": problem.fingerprint(),
        "criterion": best.criterion,
        "D": best.D.tolist(),
        "factor": best.factor.tolist(),
        "s2": best.s2,
        "local_optima": sorted(optima),
        "at_bound": best.at_bound,
        "agreement": abs(first.criterion - second.criterion),
    }
    return entry, time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=320)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    entries, seconds = [], []
    with multiprocessing.Pool(arguments.processes) as pool:
        for entry, spent in pool.imap(reference, range(arguments.problems)):
            entries.append(entry)
            seconds.append(spent)
    versions = {"numpy": np.__version__, "scipy": scipy.__version__}
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    TARGET.write_text(f'{{"versions": {json.dumps(versions)},\n"problems": [\n{lines}\n]}}\n')
    print(f"{len(entries)} problems, {np.median(seconds):.2f} s each, longest {max(seconds):.2f} s")
    for entry in entries:
        if len(entry["local_optima"]) > 1 or entry["at_bound"] or entry["agreement"] > 1e-7:
            gaps = [round(v - entry["criterion"], 4) for v in entry["local_optima"][1:]]
            print(entry["seed"], entry["kind"], entry["agreement"], entry["at_bound"], gaps)


if __name__ == "__main__":
    main()
