"""One grouping factor: speed and memory beside the peers, in one run on the same arrays.

pip install -e ".[bench]"
python benchmarks/one_factor.py            # all; about three minutes
python benchmarks/one_factor.py --quick    # without the peers that take minutes
"""

from __future__ import annotations

import argparse
import platform
import warnings
from importlib.metadata import version

import mixedlm
import mixedlm_rs
import numpy as np
import pandas as pd
import statsmodels.api as sm
from _timing import extra_memory, print_table, time_in_turn
from sklearn.linear_model import LinearRegression

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.data.sums import sum_rows
from mixedlearn.datasets import load_sleepstudy
from mixedlearn.engines.problem import make_problem
from mixedlearn.engines.recipe import Recipe
from mixedlearn.specification import make_specification

OURS = "mixedlearn"
SEED = 20260101


def simulate(
    n_rows: int, n_columns: int, groups: np.ndarray, *, slope: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal columns; random intercepts and slopes of the first, of variance one."""
    rng = np.random.default_rng(SEED)
    X = rng.standard_normal((n_rows, n_columns))
    n_levels = groups.max() + 1
    y = X @ rng.standard_normal(n_columns) + rng.standard_normal(n_rows)
    y += rng.standard_normal(n_levels)[groups]
    if slope:
        y += rng.standard_normal(n_levels)[groups] * X[:, 0]
    return X, y


def fit_million_rows(slope: bool, quick: bool) -> None:
    """1e6 rows x 10 columns, 1e5 groups: random intercept, or a random slope as well."""
    n_rows, n_columns = 1_000_000, 10
    groups = np.random.default_rng(SEED).integers(0, 100_000, n_rows)
    X, y = simulate(n_rows, n_columns, groups, slope=slope)
    with_constant = np.column_stack([np.ones(n_rows), X])
    z = with_constant[:, : 1 + slope].copy()
    estimator = MixedLinearRegressor(random_slopes=[0] if slope else None)
    programs = {
        "LinearRegression": lambda: LinearRegression().fit(X, y),
        OURS: lambda: estimator.fit(X, y, groups=groups),
        "mixedlm-rs": lambda: mixedlm_rs.MixedLM(y, with_constant, groups, exog_re=z).fit(),
    }
    repeats = {"LinearRegression": 9, OURS: 9, "mixedlm-rs": 3, "mixedlm": 1}
    if not quick:
        names = [f"x{j}" for j in range(n_columns)]
        frame = pd.DataFrame(X, columns=names).assign(y=y, g=groups)
        formula = f"y ~ {' + '.join(names)} + ({'x0' if slope else '1'} | g)"
        programs["mixedlm"] = lambda: mixedlm.lmer(formula, frame)
    effects = "random intercept and slope" if slope else "random intercept"
    title = f"1e6 rows x 10 columns, 1e5 groups, {effects}"
    print_table(title, OURS, time_in_turn(programs, repeats))
    peer = programs["mixedlm-rs"]().llf
    print(
        f"  log-likelihood reached: {OURS} {estimator.log_likelihood_:.4f}, mixedlm-rs {peer:.4f}"
    )
    memory = extra_memory(lambda: estimator.fit(X, y, groups=groups))
    print(f"  extra memory of the fit: {memory / X.nbytes:.2f} x the size of X")
    if not slope:
        time_predictions(estimator, X, y, groups)


def fit_by_formula() -> None:
    """The same 1e6 rows x 10 columns in a data frame, by parameters and by formula."""
    n_rows, n_columns = 1_000_000, 10
    groups = np.random.default_rng(SEED).integers(0, 100_000, n_rows)
    X, y = simulate(n_rows, n_columns, groups, slope=True)
    names = [f"x{j}" for j in range(n_columns)]
    frame = pd.DataFrame(X, columns=names).assign(g=groups)
    with_response = frame.assign(y=y)
    formula = f"{' + '.join(names)} + (1 + x0 | g)"
    by_parameters, by_formula, by_lmer = "by parameters", "by formula", "lmer"
    programs = {
        by_parameters: lambda: MixedLinearRegressor(groups="g", random_slopes=["x0"]).fit(frame, y),
        by_formula: lambda: MixedLinearRegressor(formula=formula).fit(frame, y),
        by_lmer: lambda: lmer(f"y ~ {formula}", with_response),
    }
    seconds = time_in_turn(programs, dict.fromkeys(programs, 9))
    print_table("1e6 rows x 10 columns of a data frame, 1e5 groups", by_parameters, seconds)
    for name in (by_formula, by_lmer):
        print(f"  {name} / {by_parameters}: {seconds[name] / seconds[by_parameters]:.2f}")


def time_predictions(
    estimator: MixedLinearRegressor, X: np.ndarray, y: np.ndarray, groups: np.ndarray
) -> None:
    """Predict for the same rows; the encoding of the labels is timed on its own."""
    linear = LinearRegression().fit(X, y)
    levels = pd.Index(np.unique(groups))
    programs = {
        "LinearRegression.predict": lambda: linear.predict(X),
        "encoding (pandas)": lambda: levels.get_indexer(groups),
        OURS: lambda: estimator.predict(X, groups=groups),
    }
    seconds = time_in_turn(programs, dict.fromkeys(programs, 9))
    print_table("predict on the same 1e6 rows", OURS, seconds)
    beyond = seconds[OURS] - seconds["encoding (pandas)"]
    ratio = beyond / seconds["LinearRegression.predict"]
    print(f"  beyond the encoding: {ratio:.2f} x LinearRegression.predict")


def fit_small_groups() -> None:
    """125,000 groups x 4 rows, random intercept; rows sorted by group and shuffled."""
    n_levels = 125_000
    for order in ("sorted", "shuffled"):
        groups = np.repeat(np.arange(n_levels), 4)
        if order == "shuffled":
            groups = np.random.default_rng(SEED).permutation(groups)
        for n_columns in (1, 10):
            X, y = simulate(len(groups), n_columns, groups, slope=False)
            programs = {
                "LinearRegression": lambda X=X, y=y: LinearRegression().fit(X, y),
                OURS: lambda X=X, y=y, groups=groups: MixedLinearRegressor().fit(
                    X, y, groups=groups
                ),
            }
            title = f"125,000 groups x 4 rows ({order}), {n_columns} column(s), random intercept"
            print_table(title, OURS, time_in_turn(programs, dict.fromkeys(programs, 9)))


def fit_sleepstudy() -> None:
    """180 rows, from the same arrays and from the same data frame."""
    study = load_sleepstudy()
    X, y = study.data[["Days"]].to_numpy(float), study.target.to_numpy(float)
    groups = study.groups.to_numpy()
    with_constant = np.column_stack([np.ones(len(y)), X])
    array_model = MixedLinearRegressor(random_slopes=[0])
    frame_model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"])
    formula = "Reaction ~ Days"
    arrays = {
        "LinearRegression": lambda: LinearRegression().fit(X, y),
        OURS: lambda: array_model.fit(X, y, groups=groups),
        "mixedlm-rs": lambda: mixedlm_rs.MixedLM(
            y, with_constant, groups, exog_re=with_constant
        ).fit(),
        "statsmodels": lambda: sm.MixedLM(y, with_constant, groups, exog_re=with_constant).fit(),
    }
    frames = {
        OURS: lambda: frame_model.fit(study.data, study.target),
        f"{OURS} by lmer": lambda: lmer("Reaction ~ Days + (1 + Days | Subject)", study.frame),
        "mixedlm-rs": lambda: mixedlm_rs.mixedlm(
            formula, study.frame, groups=study.groups, re_formula="~Days"
        ).fit(),
        "mixedlm": lambda: mixedlm.lmer("Reaction ~ Days + (Days | Subject)", study.frame),
        "statsmodels": lambda: sm.MixedLM.from_formula(
            formula, study.frame, groups="Subject", re_formula="~Days"
        ).fit(),
    }
    for source, programs in (("arrays", arrays), ("the data frame", frames)):
        title = f"sleepstudy, random slope, from {source}"
        print_table(title, OURS, time_in_turn(programs, dict.fromkeys(programs, 51)))
    reached = {
        OURS: array_model.log_likelihood_,
        "mixedlm-rs": arrays["mixedlm-rs"]().llf,
        "statsmodels": arrays["statsmodels"]().llf,
    }
    print("  log-likelihood reached:", ", ".join(f"{k} {v:.4f}" for k, v in reached.items()))


def time_iterations() -> None:
    """An iteration costs the same whatever the number of rows."""
    print("\none evaluation of objective, gradient and Hessian, 10,000 groups, random slope")
    specification = make_specification(
        [f"x{j}" for j in range(5)],
        [("group", ())],
        fixed_effects=None,
        random_intercept=True,
        random_slopes=[0],
        covariance="full",
        fit_intercept=True,
        reml=True,
    )
    for n_rows in (100_000, 1_000_000, 4_000_000):
        groups = np.random.default_rng(SEED).integers(0, 10_000, n_rows).astype(np.int32)
        X, y = simulate(n_rows, 5, groups, slope=True)
        levels = [pd.RangeIndex(10_000)]
        sums = sum_rows(X, y, [groups], levels, specification.slopes)
        engine = make_problem(sums, Recipe(specification)).engine
        theta = engine.components.theta_of([np.eye(2)])
        seconds = time_in_turn(
            {"evaluate": lambda e=engine, t=theta: e.evaluate(t, 2)}, {"evaluate": 15}
        )
        print(f"  {n_rows:>9,} rows {seconds['evaluate'] * 1e3:8.2f} ms")


def main() -> None:
    """Run all cases and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out peers that take minutes")
    quick = parser.parse_args().quick
    packages = ("mixedlearn", "scikit-learn", "numpy", "mixedlm-rs", "mixedlm", "statsmodels")
    print(f"Python {platform.python_version()},", ", ".join(f"{p} {version(p)}" for p in packages))
    warnings.simplefilter("ignore")
    fit_sleepstudy()
    fit_small_groups()
    fit_million_rows(slope=False, quick=quick)
    fit_million_rows(slope=True, quick=quick)
    fit_by_formula()
    time_iterations()


if __name__ == "__main__":
    main()
