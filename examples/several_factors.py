"""
Several grouping factors: crossed, nested, and a rating table of 73,421 lectures
================================================================================

Three classic data sets: samples of penicillin on plates (crossed), casks of paste in batches
(nested), and students' evaluations of lectures (crossed, with departments). Run it with

    python examples/several_factors.py
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold, cross_val_score

from mixedlearn import MixedLinearRegressor
from mixedlearn.datasets import load_insteval, load_pastes, load_penicillin


def print_fit(name: str, model: MixedLinearRegressor) -> None:
    """Print the criterion and the standard deviations, as lme4's summary does."""
    deviations = {
        factor: float(np.sqrt(covariance.loc["intercept", "intercept"]))
        for factor, covariance in model.covariances_.items()
    }
    deviations["noise"] = float(np.sqrt(model.noise_variance_))
    print(f"\n{name}\n  -2 log REML {-2.0 * model.log_likelihood_:.5f}, standard deviations")
    print(pd.Series(deviations).round(5).to_string())


def penicillin() -> None:
    """Every sample on every plate; and what comes out if the samples are nested in the plates."""
    X, y = load_penicillin(return_X_y=True)
    print_fit("Penicillin, crossed", MixedLinearRegressor(groups=["plate", "sample"]).fit(X, y))
    # A sample is the same on all plates, so its levels are shared between them. As an effect within
    # plates it has one row in each level: it is noise, and what samples have in common is lost.
    nested = MixedLinearRegressor(groups="plate", fixed_effects=[]).fit(X, y)
    print_fit("Penicillin, samples taken for noise within plates", nested)


def pastes() -> None:
    """Casks within batches: cask "a" of one batch is not cask "a" of another."""
    X, y = load_pastes(return_X_y=True)
    model = MixedLinearRegressor(groups=["batch", ("batch", "cask")], fixed_effects=[]).fit(X, y)
    print_fit("Pastes, casks nested in batches", model)
    print(model.random_effects_["batch:cask"].head(3).round(3).to_string())


def evaluations() -> None:
    """Students, lecturers and departments; predictions for known and for new students."""
    X, y = load_insteval(return_X_y=True)
    model = MixedLinearRegressor(groups=["s", "d", "dept"], fixed_effects=["service"])
    print(f"\nInstEval, before it is fitted:\n{model.describe(X)}")
    print_fit("InstEval", model.fit(X, y))
    scores = cross_val_score(model, X, y, cv=KFold(5, shuffle=True, random_state=0))
    print(f"R2 for rows left out, of students and lecturers that are known: {scores.mean():.3f}")
    row = X.head(1)
    new_student = row.assign(s=-1)
    for who, rows in (("a known student", row), ("a new student", new_student)):
        mean, std = model.predict(rows, return_std=True)
        print(f"the first lecture, rated by {who}: {mean[0]:.2f} +- {std[0]:.2f}")
    mean = model.predict(row, random_effects=["d", "dept"])
    print(f"the same by lecturer and department alone: {mean[0]:.2f}")


if __name__ == "__main__":
    penicillin()
    pastes()
    evaluations()
