"""Write ``hard_problems.json``: the best criterion known for every hard problem.

Run ``python tests/reference/make_hard_references.py``: two processes, about two minutes. Every
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

from reference.brute_force import best_fit
from reference.hard_problems import hard_problem
from reference.problems_file import known_optima, write

TARGET = Path(__file__).with_name("hard_problems.json")


def reference(seed, n_starts=40):
    """The stored entry of one seed."""
    problem = hard_problem(seed)
    X, Z, codes = problem.matrices()
    data = (X, problem.y, Z, codes, problem.sample_weight, problem.reml, problem.covariance)
    fits = [best_fit(*data, n_starts=n_starts, seed=2 * seed + again) for again in range(2)]
    best = min(fits, key=lambda fit: fit.criterion)
    return {
        "seed": seed,
        "kind": problem.kind,
        "sha256": problem.fingerprint(),
        "criterion": best.criterion,
        "D": best.D.tolist(),
        "factor": best.factor.tolist(),
        "s2": best.s2,
        "local_optima": known_optima(fits, 1e-4),
        "at_bound": best.at_bound,
        "agreement": abs(fits[0].criterion - fits[1].criterion),
    }


def remark(entry):
    if len(entry["local_optima"]) == 1 and not entry["at_bound"] and entry["agreement"] <= 1e-7:
        return None
    return entry["agreement"], entry["at_bound"]


if __name__ == "__main__":
    write(TARGET, reference, 320, remark, __doc__)
