"""
Pastes: nested factors
======================

A chemical paste is delivered in batches of casks. From each of ten batches three casks were drawn,
and the strength of the paste of each was measured twice. Where does the strength vary: between
batches, between the casks of a batch, or between two measurements? The data are from Davies &
Goldsmith (1972, section 6.5).
"""

# %%
# The same label need not be the same cask
# ----------------------------------------
#
# Casks are called a, b and c in every batch, but cask a of one batch has nothing to do with cask
# a of another: casks are *nested* in batches.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mixedlearn import lmer
from mixedlearn.datasets import load_pastes
from mixedlearn.inference import (
    confidence_intervals,
    exact_restricted_lrt,
    likelihood_ratio_test,
)
from mixedlearn.plot import ProfileLikelihoodDisplay, RandomEffectsDisplay

data = load_pastes().frame
data[["batch", "cask", "strength"]].head(8)

# %%
# Each batch is a row of this picture, its casks in the order of their means.

means = data.groupby("batch")["strength"].mean().sort_values()
figure, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
for cask, marker in zip("abc", "osD", strict=True):
    rows = data[data["cask"] == cask]
    ax.plot(
        rows["strength"],
        means.index.get_indexer(rows["batch"]),
        marker,
        color="black",
        markerfacecolor="white",
        label=f"cask {cask}",
    )
ax.set(
    yticks=range(len(means)), yticklabels=means.index, xlabel="strength", ylabel="batch"
)
ax.legend(frameon=False)

# %%
# The two measurements of a cask lie close together, the casks of a batch do not, and the batches
# overlap. ``(1 | batch/cask)`` is short for ``(1 | batch) + (1 | batch:cask)``: an effect of every
# batch, and one of every combination of batch and cask that occurs. As parameters,
# ``MixedLinearRegressor(groups=["batch", ("batch", "cask")])`` is the same.

model = lmer("strength ~ 1 + (1 | batch/cask)", data)
model.summary()

# %%
# Had we written ``(1 | batch) + (1 | cask)``, the ten casks called "a" would share an effect.
# That is a legal model, of another experiment: the label would then have to mean something. Its
# likelihood says that it does not here, and all the variance between casks goes into the noise:

mislabelled = lmer("strength ~ 1 + (1 | batch) + (1 | cask)", data)
pd.DataFrame(
    {
        "log restricted likelihood": [
            model.log_likelihood_,
            mislabelled.log_likelihood_,
        ],
        "noise sd": [model.noise_variance_**0.5, mislabelled.noise_variance_**0.5],
    },
    index=["(1 | batch/cask)", "(1 | batch) + (1 | cask)"],
).round(3)

# %%
# The same numbers elsewhere
# --------------------------
#
# lme4 1.1-31 by REML, and what the documentation of MixedModels.jl prints, by maximum likelihood.

by_likelihood = lmer("strength ~ 1 + (1 | batch/cask)", data, reml=False)


def printed_by(model):
    """The numbers that the other programs print."""
    return [
        -2.0 * model.log_likelihood_,
        model.covariances_["batch:cask"].iloc[0, 0],
        model.covariances_["batch"].iloc[0, 0],
        model.noise_variance_,
        model.intercept_,
        np.sqrt(model.coef_covariance_.iloc[0, 0]),
    ]


comparison = pd.DataFrame(
    {
        "REML": printed_by(model),
        "lme4": [246.9907, 8.4337, 1.6573, 0.6780, 60.0533, 0.6769],
        "ML": printed_by(by_likelihood),
        "MixedModels.jl": [247.9945, 8.433617, 1.199180, 0.678002, 60.0533, 0.642136],
    },
    index=["-2 log L", "batch:cask", "batch", "noise", "intercept", "std. error"],
)
comparison.round(6)

# %%
# MixedModels.jl stops a little early: its variances differ in the fifth or sixth digit, the
# likelihood does not.
#
# Do the batches differ?
# ----------------------
#
# The casks do; of the batches it is hard to say. The profile of their standard deviation is nearly
# flat towards zero, and its 95 percent interval begins there.

display = ProfileLikelihoodDisplay.from_estimator(
    by_likelihood, ["sd(intercept|batch)", "sd(intercept|batch:cask)"]
)
confidence_intervals(by_likelihood, method="profile").round(3)

# %%
# The likelihood-ratio test of the variance of the batches has a p-value of 0.52. That takes
# chi-squared with one degree of freedom for its distribution, which a variance at the edge of its
# range does not have: half of the time its estimate is zero and so is the statistic. The mixture
# that allows for this is half of it, 0.26. Neither is exact with ten batches. The exact
# distribution of the restricted test, by simulation, gives 0.18: no reason to believe in a
# difference either.

casks_alone = lmer("strength ~ 1 + (1 | batch:cask)", data, reml=False)
likelihood_ratio_test(casks_alone, by_likelihood)

# %%

exact_restricted_lrt(model, factor="batch", random_state=0)

# %%
# A test that does not reject is no proof that batches are alike, and ten batches cannot give one.
# The design has batches, so the model keeps them: without them the standard error of the mean
# strength would take the casks of a batch for independent.

display = RandomEffectsDisplay.from_estimator(model, factor="batch")

# %%
# The BLUPs of the batches are drawn to zero, since their variance is small beside that of the mean
# of three casks: no interval excludes zero.
#
# A new cask of a known batch
# ---------------------------
#
# What a prediction may use depends on what is known. Of a new cask of batch A the model knows the
# batch, of a cask of a new batch nothing; the standard deviation of a new measurement says so.

cases = pd.DataFrame(
    {"batch": ["A", "A", "new"], "cask": ["a", "new", "new"]},
    index=["known cask", "new cask of a known batch", "new batch"],
)
mean, std = model.predict(cases, return_std=True)
pd.DataFrame({"strength": mean, "std": std}, index=cases.index).round(2)
