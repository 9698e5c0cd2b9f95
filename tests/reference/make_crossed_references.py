"""Write ``crossed_problems.json``: the best criterion known for every crossed problem.

Run ``python tests/reference/make_crossed_references.py``: two processes, about eight minutes. Every
problem is searched twice, from different random starts, 16 each, or 100 where several optima are
known; `agreement` is the difference of the two criteria, `n_reached` of the `n_starts` descents
ended within 1e-4 of the better one.
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

from reference.brute_force_several import SAME, best_fit
from reference.crossed_problems import N_PROBLEMS, N_REGULAR, crossed_problem

TARGET = Path(__file__).with_name("crossed_problems.json")


def reference(seed):
    """The stored entry of one seed."""
    began = time.perf_counter()
    problem = crossed_problem(seed)
    n_starts = 16 if seed < N_REGULAR else 100
    structures = list(problem.covariance.values())
    fits = [
        best_fit(*problem.data(), structures, n_starts=n_starts, seed=2 * seed + again)
        for again in range(2)
    ]
    best = min(fits, key=lambda fit: fit.criterion)
    optima = list(best.local_optima)
    for fit in fits:
        for value in fit.local_optima:
            if all(abs(value - other) > SAME for other in optima):
                optima.append(value)
    entry = {
        "seed": seed,
        "kind": problem.kind,
        "sha256": problem.fingerprint(),
        "criterion": best.criterion,
        "factors": [factor.tolist() for factor in best.factors],
        "s2": best.s2,
        "local_optima": sorted(optima),
        "n_reached": sum(
            fit.n_reached for fit in fits if fit.criterion < best.criterion + SAME / 2
        ),
        "n_starts": sum(fit.n_starts for fit in fits),
        "at_bound": best.at_bound,
        "slope": best.slope,
        "agreement": abs(fits[0].criterion - fits[1].criterion),
    }
    return entry, time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=N_PROBLEMS)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    entries, seconds = [], []
    with multiprocessing.Pool(arguments.processes) as pool:
        for entry, spent in pool.imap(reference, range(arguments.problems)):
            entries.append(entry)
            seconds.append(spent)
            print(f"{entry['seed']} {spent:.1f} s", end="\r", flush=True)
    versions = {"numpy": np.__version__, "scipy": scipy.__version__}
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    TARGET.write_text(f'{{"versions": {json.dumps(versions)},\n"problems": [\n{lines}\n]}}\n')
    print(f"{len(entries)} problems, {np.median(seconds):.2f} s each, longest {max(seconds):.2f} s")
    for entry in entries:
        few = entry["n_reached"] < entry["n_starts"] / 2
        odd = entry["at_bound"] or entry["agreement"] > 1e-7 or entry["slope"] > 1e-6
        if len(entry["local_optima"]) > 1 or few or odd:
            gaps = [round(v - entry["criterion"], 4) for v in entry["local_optima"][1:]]
            reached = f"{entry['n_reached']}/{entry['n_starts']}"
            certificate = (entry["agreement"], entry["slope"], entry["at_bound"])
            print(entry["seed"], entry["kind"], reached, *certificate, gaps)


if __name__ == "__main__":
    main()
