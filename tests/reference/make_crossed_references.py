"""Write ``crossed_problems.json``: the best criterion known for every crossed problem.

Run ``python tests/reference/make_crossed_references.py``: two processes, about eight minutes. Every
problem is searched twice, from different random starts, 16 each, or 100 where several optima are
known; `agreement` is the difference of the two criteria, `n_reached` of the `n_starts` descents
ended within 1e-4 of the better one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ in ("__main__", "__mp_main__"):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reference.brute_force_several import SAME, best_fit
from reference.crossed_problems import N_PROBLEMS, N_REGULAR, crossed_problem
from reference.problems_file import known_optima, write

TARGET = Path(__file__).with_name("crossed_problems.json")


def reference(seed):
    """The stored entry of one seed."""
    problem = crossed_problem(seed)
    n_starts = 16 if seed < N_REGULAR else 100
    structures = list(problem.covariance.values())
    fits = [
        best_fit(*problem.data(), structures, n_starts=n_starts, seed=2 * seed + again)
        for again in range(2)
    ]
    best = min(fits, key=lambda fit: fit.criterion)
    return {
        "seed": seed,
        "kind": problem.kind,
        "sha256": problem.fingerprint(),
        "criterion": best.criterion,
        "factors": [factor.tolist() for factor in best.factors],
        "s2": best.s2,
        "local_optima": known_optima(fits, SAME),
        "n_reached": sum(
            fit.n_reached for fit in fits if fit.criterion < best.criterion + SAME / 2
        ),
        "n_starts": sum(fit.n_starts for fit in fits),
        "at_bound": best.at_bound,
        "slope": best.slope,
        "agreement": abs(fits[0].criterion - fits[1].criterion),
    }


def remark(entry):
    few = entry["n_reached"] < entry["n_starts"] / 2
    odd = entry["at_bound"] or entry["agreement"] > 1e-7 or entry["slope"] > 1e-6
    if len(entry["local_optima"]) == 1 and not few and not odd:
        return None
    reached = f"{entry['n_reached']}/{entry['n_starts']}"
    return reached, entry["agreement"], entry["slope"], entry["at_bound"]


if __name__ == "__main__":
    write(TARGET, reference, N_PROBLEMS, remark, __doc__)
