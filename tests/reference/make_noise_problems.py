"""Write ``noise_problems.json``: the best criterion known for every problem of `noise_problems`.

Run ``python tests/reference/make_noise_problems.py``: two processes, some five minutes. Every
problem is searched twice, from different random starts; `agreement` is the difference of the two
criteria.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ in ("__main__", "__mp_main__"):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from scipy.optimize import minimize

from reference.noise_problems import criterion_of, is_at_edge, noise_problem
from reference.problems_file import write

TARGET = Path(__file__).with_name("noise_problems.json")
# Optima whose criteria differ by less are one.
SAME = 1e-4


def search(seed, n_starts, again):
    """Criteria of the optima from random starts, the best first, and where that is, polished."""
    n, criterion = criterion_of(noise_problem(seed))

    def bounded(parameters):
        value = criterion(parameters)
        return value if np.isfinite(value) else 1e10

    rng = np.random.default_rng([again, seed])
    ends = []
    for number in range(n_starts):
        start = rng.normal(0.0, (0.3, 1.0)[number % 2], n)
        found = minimize(bounded, start, method="L-BFGS-B", options={"maxiter": 300})
        ends.append((float(found.fun), found.x))
    ends.sort(key=lambda end: end[0])
    best = ends[0]
    for _ in range(2):
        found = minimize(bounded, best[1], method="BFGS", jac="3-point", options={"gtol": 1e-7})
        best = min(best, (float(found.fun), found.x), key=lambda end: end[0])
    optima = [best[0]]
    for value, _ in ends:
        if value > optima[-1] + SAME:
            optima.append(value)
    return optima, best[1]


def reference(seed, n_starts=24):
    """The stored entry of one seed."""
    problem = noise_problem(seed)
    found = [search(seed, n_starts, again) for again in range(2)]
    optima, parameters = min(found, key=lambda own: own[0][0])
    return {
        "seed": seed,
        "kind": problem.kind,
        "sha256": problem.fingerprint(),
        "criterion": optima[0],
        "parameters": parameters.tolist(),
        "at_edge": is_at_edge(problem, parameters),
        "local_optima": optima,
        "agreement": abs(found[0][0][0] - found[1][0][0]),
    }


def remark(entry):
    if entry["agreement"] <= 1e-6 and not entry["at_edge"]:
        return None
    return entry["agreement"], entry["at_edge"]


if __name__ == "__main__":
    write(TARGET, reference, 200, remark, __doc__)
