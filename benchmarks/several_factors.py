"""Several grouping factors, nested and crossed: speed and memory, beside lme4 and mixedlm.

pip install -e ".[bench]"    # and R with lme4, without which its rows are left out
python benchmarks/several_factors.py            # all cases; about four minutes
python benchmarks/several_factors.py --quick    # without the peers and the big cases
python benchmarks/several_factors.py --all      # and the peers on the big crossed cases: far longer
python benchmarks/several_factors.py insteval   # one case
"""

from __future__ import annotations

import argparse
import functools
import platform
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import mixedlm
import numpy as np
import pandas as pd
from _timing import extra_resident_memory, print_steps, print_table, time_in_turn, time_steps

from mixedlearn import MixedLinearRegressor
from mixedlearn.datasets import load_insteval
from mixedlearn.engines.elimination.engine import SeveralFactorsEngine

OURS = "mixedlearn"
LME4 = "lme4"
LME4_UNCHECKED = "lme4, calc.derivs=FALSE"
MIXEDLM = "mixedlm"
SEED = 20260101
R_SCRIPT = Path(__file__).with_suffix(".R")
# Criteria that differ by more are not the same optimum.
AGREEMENT = 1e-3
GIB = 1 << 30

ENGINE = "mixedlearn.engines.elimination.engine:SeveralFactorsEngine"
STEPS = {
    "encoding": ("mixedlearn.data.levels:encode",),
    "cross-products": ("mixedlearn.data.sums:sum_rows",),
    "reduction": ("mixedlearn.engines.elimination.reduced:reduce_several",),
    "elimination of the chain": (f"{ENGINE}._eliminate",),
    "inverse of the tail": ("mixedlearn.engines.elimination.engine:solve_tail",),
    "X, y and BLUPs": (f"{ENGINE}._eliminate_data", f"{ENGINE}._scores"),
    "traces of the gradient": (f"{ENGINE}._information",),
    "average information": (f"{ENGINE}._average_information",),
}


@dataclass(frozen=True, slots=True)
class Data:
    """A response y, columns with a fixed effect, and factors with a random intercept.

    Attributes
    ----------
    frame : DataFrame
        All columns.
    fixed : list of str
    groups : list of str
    """

    frame: pd.DataFrame
    fixed: list[str]
    groups: list[str]

    @property
    def formula(self) -> str:
        """The model as lme4 writes it."""
        fixed = self.fixed or ["1"]
        return "y ~ " + " + ".join([*fixed, *(f"(1 | {name})" for name in self.groups)])


@dataclass(frozen=True, slots=True)
class Scope:
    """What a run includes.

    Attributes
    ----------
    quick : bool
        No peers, and nothing big.
    has_lme4 : bool
        Whether lme4 can be run.
    everywhere : bool
        Peers on the big crossed cases as well.
    """

    quick: bool
    has_lme4: bool
    everywhere: bool


@dataclass(frozen=True, slots=True)
class Reached:
    """Where a program stopped: its criterion, and the iterations or evaluations it took."""

    criterion: float
    effort: str


def insteval() -> Data:
    """The evaluations of lectures: students x lecturers, and departments."""
    return Data(load_insteval().frame, ["service"], ["s", "d", "dept"])


def nested(n_rows: int) -> Data:
    """Five rows a pupil, twenty pupils a class, twenty classes a school, all on average."""
    rng = np.random.default_rng(SEED)

    def members(size: int, n_levels: int) -> np.ndarray:
        """Random levels, each of them at least once."""
        more = rng.integers(0, n_levels, size - n_levels)
        return rng.permutation(np.concatenate([np.arange(n_levels), more]))

    n_pupils, n_classes, n_schools = n_rows // 5, n_rows // 100, n_rows // 2000
    pupil = members(n_rows, n_pupils)
    own_class = members(n_pupils, n_classes)[pupil]
    school = members(n_classes, n_schools)[own_class]
    x = rng.standard_normal(n_rows)
    y = 0.5 * x + rng.standard_normal(n_rows)
    for codes, n_levels, sd in (
        (school, n_schools, 0.3),
        (own_class, n_classes, 0.3),
        (pupil, n_pupils, 0.5),
    ):
        y += rng.normal(0.0, sd, n_levels)[codes]
    frame = pd.DataFrame({"school": school, "class": own_class, "pupil": pupil, "x": x, "y": y})
    return Data(frame, ["x"], ["school", "class", "pupil"])


def ratings() -> Data:
    """The shape of MovieLens-1M: 1e6 distinct pairs of 6040 users and 3706 items, heavy tails.

    Users have 20 to about 2300 ratings, half of them less than a hundred; items 1 to about 3400.
    """
    n_rows, n_users, n_items = 1_000_000, 6040, 3706
    rng = np.random.default_rng(SEED)
    sizes = np.exp(1.05 * rng.standard_normal(n_users))
    for _ in range(20):
        sizes = np.clip(sizes * (n_rows / sizes.sum()), 20, 2300)
    sizes = sizes.astype(int)
    sizes[rng.choice(n_users, n_rows - sizes.sum(), replace=False)] += 1
    popularity = rng.standard_normal(n_items)
    log_popularity = np.maximum(1.7 * popularity - 0.12 * popularity**2, -5.0)
    items = []
    for size in sizes:
        # The largest of these are a sample by popularity, without replacement.
        keys = log_popularity + rng.gumbel(size=n_items)
        items.append(np.argpartition(keys, n_items - size)[n_items - size :])
    user, item = np.repeat(np.arange(n_users), sizes), np.concatenate(items)
    unrated = np.setdiff1d(np.arange(n_items), item)
    most_rated = np.bincount(item).argmax()
    item[np.flatnonzero(item == most_rated)[: len(unrated)]] = unrated
    order = rng.permutation(n_rows)
    return _crossed(rng, user[order], item[order], ("user", "item"), (0.4, 0.5, 0.9))


def purchases() -> Data:
    """2.7e6 purchases of 800 items by 80,000 customers; an item's popularity is 1 / its rank."""
    n_rows, n_customers, n_items = 2_700_000, 80_000, 800
    rng = np.random.default_rng(SEED)
    popularity = 1.0 / np.arange(1, n_items + 1)
    item = rng.choice(n_items, n_rows, p=popularity / popularity.sum())
    customer = rng.integers(0, n_customers, n_rows)
    return _crossed(rng, customer, item, ("customer", "item"), (0.5, 0.5, 1.0))


def _crossed(
    rng: np.random.Generator,
    first: np.ndarray,
    second: np.ndarray,
    names: tuple[str, str],
    sds: tuple[float, float, float],
) -> Data:
    """A mean, an effect of each factor and noise; the labels are numbers in no order."""
    y = 3.5 + rng.normal(0.0, sds[-1], len(first))
    columns = {}
    for name, codes, sd in zip(names, (first, second), sds[:-1], strict=True):
        n_levels = codes.max() + 1
        y += rng.normal(0.0, sd, n_levels)[codes]
        columns[name] = rng.permutation(np.arange(1, 10 * n_levels, 10))[codes]
    return Data(pd.DataFrame({**columns, "y": y}), [], list(names))


def make_fit(data: Data) -> Callable[[], MixedLinearRegressor]:
    """Our fit of the data as a program."""
    X, y = data.frame[data.fixed + data.groups], data.frame["y"]
    return functools.partial(MixedLinearRegressor(groups=data.groups).fit, X, y)


def fit_lme4(data: Data, options: dict[str, str]) -> tuple[dict[str, float], dict[str, Reached]]:
    """Seconds of lmer alone and what it reaches, by option; all fits in one process of R."""
    seconds, reached = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("y", *data.fixed):
            data.frame[name].to_numpy(np.float64).tofile(Path(folder, f"{name}.float64"))
        for name in data.groups:
            codes = pd.factorize(data.frame[name])[0]
            codes.astype(np.int32).tofile(Path(folder, f"{name}.int32"))
        lines = run_r(folder, data.formula, *options.values()).splitlines()
    for name, line in zip(options, lines, strict=True):
        elapsed, criterion, evaluations = map(float, line.split())
        seconds[name] = elapsed
        reached[name] = Reached(criterion, f"{evaluations:.0f} evaluations")
    return seconds, reached


def run_r(*arguments: str) -> str:
    """What the R script prints."""
    command = ["Rscript", "--vanilla", str(R_SCRIPT), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def lme4_versions() -> str | None:
    """Versions of R, lme4 and its BLAS; None without them."""
    if shutil.which("Rscript") is None:
        return None
    try:
        return ", ".join(run_r().splitlines())
    except subprocess.CalledProcessError:
        return None


def compare(
    title: str, data: Data, *, repeats: int, lme4: dict[str, str], with_mixedlm: bool
) -> float:
    """Print time, criterion, iterations and steps of our fit beside the peers'; our seconds."""
    fit = make_fit(data)
    programs: dict[str, Callable] = {OURS: fit}
    results = {}
    if with_mixedlm:
        programs[MIXEDLM] = lambda: results.update(fit=mixedlm.lmer(data.formula, data.frame))
    seconds = time_in_turn(programs, {OURS: repeats, MIXEDLM: 1})
    estimator = fit.func.__self__
    reached = {OURS: Reached(-2.0 * estimator.log_likelihood_, f"{estimator.n_iter_} iterations")}
    if lme4:
        for ours, theirs in zip((seconds, reached), fit_lme4(data, lme4), strict=True):
            ours.update(theirs)
    if with_mixedlm:
        peer = results["fit"]
        reached[MIXEDLM] = Reached(peer.deviance, f"{peer.n_iter} iterations")
    print_table(title, OURS, seconds)
    print_criteria(reached)
    print_evaluations(fit)
    print_steps(time_steps(fit, STEPS))
    return seconds[OURS]


def print_evaluations(fit: Callable[[], object]) -> None:
    """Print how often a fit asks for the objective, with or without derivatives, and how long."""
    seconds: dict[int, list[float]] = {}
    evaluate = SeveralFactorsEngine.evaluate

    def timed(engine: SeveralFactorsEngine, theta: np.ndarray, order: int) -> object:
        start = time.perf_counter()
        found = evaluate(engine, theta, order)
        seconds.setdefault(order, []).append(time.perf_counter() - start)
        return found

    with mock.patch.object(SeveralFactorsEngine, "evaluate", timed):
        fit()
    print("  evaluations")
    for order, values in sorted(seconds.items()):
        what = "objective alone" if order == 0 else "with gradient and average information"
        print(f"    {len(values):3d} {what:<40}{1e3 * np.mean(values):10.1f} ms each")


def print_criteria(reached: dict[str, Reached]) -> None:
    """Print the criteria, minus twice the restricted log-likelihood, and how far above ours."""
    ours = reached[OURS].criterion
    print("  criterion reached")
    for name, peer in reached.items():
        above = peer.criterion - ours
        relation = "" if name == OURS else f"   {above:+.1e}"
        verdict = "" if abs(above) <= AGREEMENT else "   THEY DO NOT AGREE"
        print(f"    {name:<26}{peer.criterion:16.6f} after {peer.effort}{relation}{verdict}")


def print_memory(data: Data, budget: str = "") -> None:
    """Print how much our fit adds to the memory of a process that holds the data."""
    memory = extra_resident_memory(make_fit, data)
    size = data.frame.memory_usage(index=False).sum()
    text = "not measured here" if memory is None else f"{memory / GIB:.3f} GiB{budget}"
    print(f"  extra memory of the fit: {text}; the data are {size / GIB:.3f} GiB")


def run_insteval(scope: Scope) -> None:
    """Three factors of real data."""
    data = insteval()
    title = f"InstEval, {len(data.frame):,} rows: {data.formula}"
    lme4 = {LME4: "TRUE", LME4_UNCHECKED: "FALSE"} if scope.has_lme4 else {}
    compare(title, data, repeats=3, lme4=lme4, with_mixedlm=not scope.quick)
    print_memory(data)


def run_nested(scope: Scope) -> None:
    """Three levels; the time should grow with the rows, all else in proportion."""
    seconds = {}
    for n_rows in (250_000, 500_000) if scope.quick else (250_000, 500_000, 1_000_000):
        data = nested(n_rows)
        counts = ", ".join(f"{data.frame[name].nunique():,} {name}" for name in data.groups)
        is_biggest = n_rows == 1_000_000
        seconds[n_rows] = compare(
            f"nested, {n_rows:,} rows ({counts}): {data.formula}",
            data,
            repeats=1 if is_biggest else 3,
            lme4={LME4: "TRUE"} if scope.has_lme4 and is_biggest else {},
            with_mixedlm=False,
        )
    print_memory(data)
    print("\nnested: time by rows")
    for n_rows, value in seconds.items():
        print(f"  {n_rows:>9,} rows {value:8.2f} s {value / n_rows * 1e6:8.2f} us a row")


def run_ratings(scope: Scope) -> None:
    """Two crossed factors, each with thousands of levels."""
    data = ratings()
    seconds = _run_crossed("MovieLens-1M shape", data, scope)
    print(f"  {seconds:.2f} s (budget 10 s)")
    print_memory(data, " (budget 1 GiB)")


def run_purchases(scope: Scope) -> None:
    """Two crossed factors, one of them small."""
    data = purchases()
    seconds = _run_crossed("purchases", data, scope)
    encoding = time_in_turn(
        {name: functools.partial(pd.factorize, data.frame[name]) for name in data.groups},
        dict.fromkeys(data.groups, 3),
    )
    for name, value in encoding.items():
        print(f"  pandas.factorize of {name:<12}{value * 1e3:12.2f} ms")
    print(f"  beyond the encoding: {seconds - sum(encoding.values()):.2f} s (budget 3 s)")
    print_memory(data)


def _run_crossed(name: str, data: Data, scope: Scope) -> float:
    rows = [data.frame[group].value_counts() for group in data.groups]
    counts = ", ".join(
        f"{len(sizes):,} {group}s of {sizes.min():,} to {sizes.max():,} rows"
        for group, sizes in zip(data.groups, rows, strict=True)
    )
    return compare(
        f"{name}, {len(data.frame):,} rows ({counts}): {data.formula}",
        data,
        repeats=1,
        lme4={LME4: "TRUE"} if scope.has_lme4 and scope.everywhere else {},
        with_mixedlm=scope.everywhere,
    )


CASES = {
    "insteval": run_insteval,
    "nested": run_nested,
    "ratings": run_ratings,
    "purchases": run_purchases,
}
QUICK = ("insteval", "nested")


def main() -> None:
    """Run the cases and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", help=f"some of {', '.join(CASES)}; none: all")
    parser.add_argument("--quick", action="store_true", help="no peers and no big cases")
    parser.add_argument("--all", action="store_true", help="peers on the big crossed cases too")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(unknown)}")
    packages = ("mixedlearn", "numpy", "scipy", "pandas", "mixedlm")
    print(f"Python {platform.python_version()},", ", ".join(f"{p} {version(p)}" for p in packages))
    lme4 = None if options.quick else lme4_versions()
    if not options.quick:
        print(lme4 or "Rscript or its package lme4 is missing: no comparison with lme4")
    warnings.simplefilter("ignore")
    everywhere = options.all and not options.quick
    scope = Scope(quick=options.quick, has_lme4=lme4 is not None, everywhere=everywhere)
    for case in options.cases or (QUICK if options.quick else CASES):
        CASES[case](scope)


if __name__ == "__main__":
    main()
