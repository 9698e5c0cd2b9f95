"""Inference: profiles, bootstraps and Kenward-Roger, beside lme4 and pbkrtest.

pip install -e .    # and R with lme4, pbkrtest and jsonlite, without which its rows are left out
python benchmarks/inference.py            # all cases; some minutes, nearly all of them R's
python benchmarks/inference.py profile    # one case
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from _timing import print_table, time_in_turn
from numpy.typing import ArrayLike

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.datasets import load_sleepstudy
from mixedlearn.inference import (
    BootstrapTest,
    bootstrap_lrt,
    coefficient_covariance,
    coefficient_table,
    confidence_intervals,
    parametric_bootstrap,
)

OURS = "mixedlearn"
R_SCRIPT = Path(__file__).with_suffix(".R")
# What the R script says without its packages.
NO_PACKAGES = 3
REPEATS = 11
N_RESAMPLES = 1000
SLEEPSTUDY = "Reaction ~ Days + (1 + Days | Subject)"


def run_r(*arguments: object) -> str | None:
    """What the R script prints; None without R or its packages."""
    rscript = shutil.which("Rscript")
    if rscript is None:
        return None
    command = [rscript, str(R_SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == NO_PACKAGES:
        return None
    done.check_returncode()
    return done.stdout


def compare(title: str, program: Callable[[], object], peers: Mapping[str, float]) -> None:
    """Print our seconds beside those of the peers."""
    seconds = time_in_turn({OURS: program}, {OURS: REPEATS})
    print_table(title, OURS, seconds | dict(peers))
    for name, value in peers.items():
        print(f"  {OURS} is {value / seconds[OURS]:.0f} times as fast as {name}")


def print_difference(what: str, ours: ArrayLike, theirs: ArrayLike) -> None:
    """Print the largest relative difference of two sets of numbers."""
    difference = np.max(np.abs(np.asarray(ours) / np.asarray(theirs) - 1.0))
    print(f"  {what} differ by at most {difference:.1e}, relatively")


def profile(path: Path) -> None:
    """Profile intervals of all six parameters of the sleep study, by ML."""
    model = lmer(SLEEPSTUDY, pd.read_csv(path), reml=False)
    printed = run_r("profile", path)
    theirs = json.loads(printed) if printed else {}
    compare(
        "Profile intervals of the six parameters of sleepstudy",
        lambda: confidence_intervals(model, method="profile"),
        {"lme4, confint": theirs["seconds"]} if theirs else {},
    )
    if theirs:
        ours = confidence_intervals(model, method="profile")
        print_difference("ends", ours["upper"], theirs["upper"])


def bootstrap(path: Path) -> None:
    """A thousand refits of the sleep study, by REML, in one process."""
    frame = pd.read_csv(path)
    model = lmer(SLEEPSTUDY, frame)
    printed = run_r("bootstrap", path)
    theirs = json.loads(printed) if printed else {}
    compare(
        f"{N_RESAMPLES:,} parametric bootstrap refits of sleepstudy",
        lambda: _resampled(model, frame),
        {"lme4, bootMer": theirs["seconds"]} if theirs else {},
    )
    if theirs:
        ours = _resampled(model, frame).samples[["intercept", "Days"]].std()
        print_difference(
            "standard errors of the fixed effects", ours, theirs["standard_errors"][:2]
        )


def _resampled(model: MixedLinearRegressor, frame: pd.DataFrame) -> object:
    return parametric_bootstrap(model, frame, n_resamples=N_RESAMPLES, random_state=0)


def kenward_roger(path: Path) -> None:
    """Adjusted standard errors and degrees of freedom: 2,000 rows, 200 levels, a random slope."""
    slopes = path.with_name("slopes.csv")
    if run_r("data", slopes) is None:
        print("\nKenward-Roger: R makes the data, and is missing")
        return
    model = lmer("y ~ x + (1 + x | g)", pd.read_csv(slopes))
    theirs = json.loads(run_r("kenward-roger", slopes) or "{}")
    compare(
        "Kenward-Roger standard errors and tests, 2,000 rows and 200 levels",
        lambda: coefficient_table(model, ddf="kenward-roger"),
        {
            "pbkrtest, vcovAdj alone": theirs["vcov_adj_seconds"],
            "pbkrtest, KRmodcomp": theirs["test_seconds"],
        },
    )
    ours = np.sqrt(np.diag(coefficient_covariance(model, "kenward-roger")))
    print_difference("adjusted standard errors", ours, theirs["std_errors"])


def bootstrap_test(path: Path) -> None:
    """The line of the sleep study against a parabola: both refitted to a thousand responses."""
    frame = pd.read_csv(path)
    line = lmer(SLEEPSTUDY, frame)
    curve = lmer(SLEEPSTUDY.replace("~ Days", "~ poly(Days, 2)"), frame)

    def test() -> BootstrapTest:
        return bootstrap_lrt(line, curve, frame, n_resamples=N_RESAMPLES, random_state=0)

    printed = run_r("bootstrap-test", path)
    theirs = json.loads(printed) if printed else {}
    compare(
        f"Parametric-bootstrap test of two models of sleepstudy, {N_RESAMPLES:,} resamples",
        test,
        {"pbkrtest, PBmodcomp": theirs["seconds"]} if theirs else {},
    )
    if theirs:
        ours = test()
        print_difference("statistics", ours.statistic, theirs["statistic"])
        pooled = (ours.p_value + theirs["p"]) / 2.0
        error = np.sqrt(2.0 * pooled * (1.0 - pooled) / N_RESAMPLES)
        print(
            f"  p-values {ours.p_value:.4f} and {theirs['p']:.4f} differ by "
            f"{abs(ours.p_value - theirs['p']) / error:.1f} Monte Carlo standard errors"
        )


CASES = {
    "profile": profile,
    "bootstrap": bootstrap,
    "kenward-roger": kenward_roger,
    "bootstrap-test": bootstrap_test,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all, unless named")
    chosen = parser.parse_args().cases or list(CASES)
    unknown = sorted(set(chosen) - set(CASES))
    if unknown:
        parser.error(f"unknown cases: {', '.join(unknown)}")
    print(f"Python {platform.python_version()}")
    print(run_r() or "no R with lme4, pbkrtest and jsonlite: our rows alone")
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "sleepstudy.csv"
        load_sleepstudy().frame.to_csv(path, index=False)
        for case in chosen:
            CASES[case](path)


if __name__ == "__main__":
    main()
