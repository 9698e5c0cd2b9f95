"""
Penicillin: crossed factors
===========================

Six samples of penicillin were tested on each of 24 plates of a bacterial culture. Where a drop of
penicillin diffuses into the culture nothing grows, and the diameter of that zone, in millimetres,
measures the concentration. How much of the variation in the diameters comes from the samples, how
much from the plates, and how much from the measurement? The data are from Davies & Goldsmith (1972,
section 6.6); Bates et al. and the documentation of MixedModels.jl use them to show crossed factors.
"""

# %%
# Every sample is on every plate
# ------------------------------

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.datasets import load_penicillin
from mixedlearn.inference import confidence_intervals, intraclass_correlation
from mixedlearn.plot import ProfileLikelihoodDisplay, RandomEffectsDisplay

data = load_penicillin().frame
data.pivot_table(index="sample", columns="plate", values="diameter").iloc[:, :8]

# %%
# Both factors are samples from a larger population: other plates and other samples could have been
# used. Neither contains the other, so they are *crossed*. In lme4's notation the model has one
# random term for each.

model = lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", data)
model.summary()

# %%
# The samples differ most: their standard deviation of 1.9 mm is more than three times that of the
# noise. As shares of the variance of one measurement:

intraclass_correlation(model)

# %%
# Two diameters of the same sample on different plates have in common what the sample contributes;
# two on the same plate what the plate contributes. The noise is only six percent.
#
# The same numbers elsewhere
# --------------------------
#
# MixedModels.jl fits by maximum likelihood and prints this model in its documentation. lme4's
# default is REML; its numbers here are those of lme4 1.1-31.

by_likelihood = lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", data, reml=False)


def printed_by(model):
    """The numbers that the other programs print."""
    return [
        -2.0 * model.log_likelihood_,
        model.covariances_["plate"].iloc[0, 0],
        model.covariances_["sample"].iloc[0, 0],
        model.noise_variance_,
        model.intercept_,
        np.sqrt(model.coef_covariance_.iloc[0, 0]),
    ]


comparison = pd.DataFrame(
    {
        "REML": printed_by(model),
        "lme4": [330.8606, 0.7169, 3.7311, 0.3024, 22.9722, 0.8086],
        "ML": printed_by(by_likelihood),
        "MixedModels.jl": [332.1883, 0.714979, 3.135193, 0.302426, 22.9722, 0.744596],
    },
    index=["-2 log L", "plate", "sample", "noise", "intercept", "std. error"],
)
comparison.round(6)

# %%
# All agree in the criterion. Variances differ from the fifth digit on (lme4 has 3.7311 for the
# samples, MixedModels.jl 0.714979 for the plates), since those programs stop when the likelihood
# no longer changes in the digits that they ask for.
#
# REML and ML disagree where there are few levels: with six samples, ML divides by six where REML
# divides by five. The noise variance, which 144 rows determine, is the same.
#
# Every plate and every sample
# ----------------------------
#
# The BLUPs say which samples are strong. Plates are told apart less well: a plate has six rows, a
# sample 24, so the intervals of the plates are wider. A full point has an interval that excludes
# zero.

figure, axes = plt.subplots(1, 2, figsize=(8, 5), sharex=True, layout="constrained")
display = RandomEffectsDisplay.from_estimator(model, ax=axes)

# %%
# How sure are we of the variances?
# ---------------------------------
#
# With six samples their variance is known only roughly, and its profile is far from symmetric.
# The cut-offs are the intervals of 50, 80, 90, 95 and 99 percent: the interval of the standard
# deviation of the samples reaches much further up than down.

intervals = confidence_intervals(by_likelihood, method="profile")
display = ProfileLikelihoodDisplay.from_estimator(
    by_likelihood,
    [name for name in intervals.index if name.startswith("sd(")],
    kind="signed_root",
)
intervals.round(4)

# %%
# A straight line would mean that the estimate is as good as normal. These are curved, and
# intervals of the form "estimate plus or minus two standard errors" would be wrong.
#
# What goes wrong with nested terms
# ---------------------------------
#
# It looks natural to fit these data in statsmodels with ``groups="plate"`` and the samples as
# variance components; version 0.15.0 then stops at a log-likelihood of -306.7. In statsmodels
# variance components are nested in the groups: each plate then has six sample effects of its own,
# with one row each, and these cannot be told from noise. What a sample has in common on all plates,
# most of the variance, is lost. What is left is the model with plates alone:

plates_alone = MixedLinearRegressor(groups="plate", fixed_effects=[]).fit(
    data[["plate", "sample"]], data["diameter"]
)
pd.Series(
    {"plates alone": plates_alone.log_likelihood_, "crossed": model.log_likelihood_},
    name="log restricted likelihood",
).round(1)

# %%
# The crossed model is better by 141 units of log-likelihood, with one parameter more.
