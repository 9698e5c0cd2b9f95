"""Write ``exacting_problems.json``: the best criterion known for every problem that costs digits.

Run ``python tests/reference/make_exacting_references.py``: two processes, about fifteen minutes.
The problems are searched as those of `make_crossed_references` are; the criterion is then computed
in eighty digits (mpmath) at the best end.
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

from reference.brute_force_several import best_fit
from reference.exacting_problems import N_PROBLEMS, exacting_problem
from reference.problems_file import write

TARGET = Path(__file__).with_name("exacting_problems.json")


def reference(seed):
    """The stored entry of one seed."""
    problem = exacting_problem(seed)
    X, Zs = problem.matrices()
    # Columns of length one, and a response of the size of its residuals: the search is in doubles.
    sizes = np.sqrt((X**2).mean(axis=0))
    beta = np.linalg.lstsq(X / sizes, problem.y, rcond=None)[0]
    rest = problem.y - (X / sizes) @ beta
    best = best_fit(
        X,
        rest,
        Zs,
        list(problem.codes),
        problem.sample_weight,
        problem.reml,
        list(problem.covariance),
        n_starts=16,
        seed=seed,
    )
    criterion, _ = problem.rows().criterion([factor.tolist() for factor in best.factors])
    return {
        "seed": seed,
        "kind": problem.kind,
        "sha256": problem.fingerprint(),
        "criterion": float(criterion),
        "local_optima": list(best.local_optima),
        "at_bound": best.at_bound,
        "slope": best.slope,
    }


def remark(entry):
    return (entry["slope"],) if entry["at_bound"] or entry["slope"] > 1e-6 else None


if __name__ == "__main__":
    write(TARGET, reference, N_PROBLEMS, remark, __doc__)
