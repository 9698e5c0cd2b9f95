"""
Growth curves of pigs: three mixed models, cross-validated, searched and drawn
==============================================================================

The data are weekly weights of 72 pigs (`mixedlearn.datasets.load_dietox`). The models are those of
the usual tutorials: every pig has its own level; its own level and its own growth; the same without
a covariance between the two. Run it with

    python examples/growth_curves.py

It prints the fits and saves ``growth_curves.png``.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import sklearn

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score

from mixedlearn import MixedLinearRegressor
from mixedlearn.datasets import load_dietox

MODELS = {
    "random intercept": MixedLinearRegressor(groups="Pig"),
    "random intercept and slope": MixedLinearRegressor(groups="Pig", random_slopes=["Time"]),
    "the same, uncorrelated": MixedLinearRegressor(
        groups="Pig", random_slopes=["Time"], covariance="diagonal"
    ),
}


def print_fit(name: str, model: MixedLinearRegressor) -> None:
    """Print what the tutorials print: criterion, fixed effects, variance components."""
    coef = np.append(model.intercept_, model.coef_)
    std_error = np.sqrt(np.diag(model.coef_covariance_))
    fixed = pd.DataFrame(
        {"estimate": coef, "std_error": std_error, "t": coef / std_error},
        index=model.coef_covariance_.index,
    )
    print(f"\n{name}")
    print(f"  -2 log REML {-2.0 * model.log_likelihood_:.5f} in {model.n_iter_} iterations")
    print(fixed.round(4).to_string())
    print("  variances and covariances between pigs")
    print(model.covariances_["Pig"].round(5).to_string())
    print(f"  noise variance {model.noise_variance_:.5f}")


def cross_validate(X: pd.DataFrame, y: pd.Series, pigs: pd.Series) -> pd.DataFrame:
    """Root mean squared error in kilograms, for pigs that the model knows and for new pigs."""
    known = KFold(5, shuffle=True, random_state=0)
    rows = {}
    for name, model in MODELS.items():
        rows[name] = {
            "known pigs": -cross_val_score(
                model, X, y, cv=known, scoring="neg_root_mean_squared_error"
            ).mean(),
            "new pigs": -cross_val_score(
                model, X, y, groups=pigs, cv=GroupKFold(5), scoring="neg_root_mean_squared_error"
            ).mean(),
        }
    return pd.DataFrame(rows).T


def search(X: pd.DataFrame, y: pd.Series) -> GridSearchCV:
    """Choose the random-effects structure by cross-validation on known pigs."""
    grid = [
        {"random_slopes": [None]},
        {"random_slopes": [["Time"]], "covariance": ["full", "diagonal"]},
    ]
    return GridSearchCV(
        MixedLinearRegressor(groups="Pig"),
        grid,
        cv=KFold(5, shuffle=True, random_state=0),
        scoring="neg_root_mean_squared_error",
    ).fit(X, y)


def draw(model: MixedLinearRegressor, X: pd.DataFrame, y: pd.Series, path: Path) -> None:
    """Draw the pigs' weights, the line of every pig and the line of the population."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    weeks = np.linspace(X["Time"].min(), X["Time"].max(), 2)
    for pig in model.random_effects_["Pig"].index:
        line = model.predict(pd.DataFrame({"Pig": pig, "Time": weeks}))
        axes.plot(weeks, line, color="tab:blue", linewidth=0.7, alpha=0.5)
    axes.plot(X["Time"], y, ".", color="0.35", markersize=2.5, label="weighings")
    population = pd.DataFrame({"Pig": X["Pig"].iloc[0], "Time": weeks})
    axes.plot([], [], color="tab:blue", linewidth=0.7, label="each pig (BLUP)")
    axes.plot(
        weeks,
        model.predict(population, random_effects="none"),
        color="black",
        linewidth=2.5,
        linestyle="--",
        label="population",
    )
    axes.set(xlabel="time (weeks)", ylabel="weight (kg)", title="Growth curves of 72 pigs")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Fit, cross-validate, search and draw."""
    dietox = load_dietox()
    X, y, pigs = dietox.data[["Pig", "Time"]], dietox.target, dietox.groups
    print(f"{len(y)} weighings of {pigs.nunique()} pigs, scikit-learn {sklearn.__version__}")
    for name, model in MODELS.items():
        print_fit(name, model.fit(X, y))
    print("\nroot mean squared error (kg) in 5-fold cross-validation")
    print(cross_validate(X, y, pigs).round(3).to_string())
    found = search(X, y)
    print(f"\nbest structure for known pigs: {found.best_params_}")
    path = Path("growth_curves.png")
    draw(MODELS["random intercept and slope"], X, y, path)
    print(f"picture saved to {path}")


if __name__ == "__main__":
    main()
