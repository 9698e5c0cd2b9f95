"""
Dyestuff: one random effect, and a variance of zero
===================================================

The smallest mixed model there is: a mean, a random effect for six batches, and noise. With as many
measurements in each batch its estimates have closed forms, so that everything can be checked by
hand. Two data sets of the same layout show what can happen: in one the batches differ, in the other
their estimated variance is exactly zero. Bates' draft of a book on lme4 begins with them [1]_.
"""

# %%
# The data
# --------
# Five preparations of a dyestuff were made from each of six batches of an intermediate product; the
# yield is in grams of standard colour [2]_. The second table was made up with the same layout [3]_.

import numpy as np
import pandas as pd

from mixedlearn import inference, lmer
from mixedlearn.datasets import load_dyestuff, load_dyestuff2

dyestuff, dyestuff2 = load_dyestuff().frame, load_dyestuff2().frame
pd.concat(
    {
        "dyestuff": dyestuff.groupby("Batch").mean(),
        "dyestuff2": dyestuff2.groupby("Batch").mean(),
    },
    axis=1,
)

# %%
# The batches differ
# ------------------

reml = lmer("Yield ~ 1 + (1 | Batch)", dyestuff)
print(reml.summary())

# %%
# The same by maximum likelihood:

ml = lmer("Yield ~ 1 + (1 | Batch)", dyestuff, reml=False)
print(ml.summary())

# %%
# The book prints a criterion of 319.6543 with standard deviations of 42.00 and 49.51 by REML, and
# by maximum likelihood one of 327.3271 with 37.26 and 49.51. It is the same here. MixedModels.jl
# tests its own fits against 319.65427684225216.
#
# By hand
# -------
# The analysis of variance gives the REML estimates: the noise variance is the mean square within
# batches, and the mean square between batches estimates the noise variance plus five times the
# variance between batches. Maximum likelihood divides the sum of squares between batches by six
# instead of five, as if the mean were known, so that its variance between batches is smaller.


def by_hand(frame):
    """Mean squares of the analysis of variance, and the estimates by them."""
    batches = frame.groupby("Batch")["Yield"]
    n_batches, n_rows = batches.ngroups, len(frame)
    size = n_rows // n_batches
    between = size * ((batches.mean() - frame["Yield"].mean()) ** 2).sum()
    within = ((frame["Yield"] - batches.transform("mean")) ** 2).sum()
    mean_square, noise = (between / (n_batches - 1), within / (n_rows - n_batches))
    return pd.Series(
        {
            "mean square between": mean_square,
            "mean square within": noise,
            "variance between, REML": (mean_square - noise) / size,
            "variance between, ML": (between / n_batches - noise) / size,
        }
    )


fitted = pd.Series(
    {
        "mean square within": reml.noise_variance_,
        "variance between, REML": reml.covariances_["Batch"].iloc[0, 0],
        "variance between, ML": ml.covariances_["Batch"].iloc[0, 0],
    }
)
pd.DataFrame({"by hand": by_hand(dyestuff), "fitted": fitted}).round(6)

# %%
# The BLUP of a batch is the distance of its mean from the total mean, times a factor that says how
# much of the distance is likely to be the batch's. For five measurements it is 5 v / (5 v + noise
# variance) with v the variance between batches.

squares = by_hand(dyestuff)
factor = 1.0 - squares["mean square within"] / squares["mean square between"]
distance = dyestuff.groupby("Batch")["Yield"].mean() - dyestuff["Yield"].mean()
print(f"factor {factor:.4f}")
pd.DataFrame(
    {
        "distance": distance,
        "shrunk": factor * distance,
        "BLUP": reml.random_effects_["Batch"]["intercept"],
    }
).round(4)

# %%
# The picture has a line for the mean of each batch and a diamond for the mean plus BLUP.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
singular = lmer("Yield ~ 1 + (1 | Batch)", dyestuff2)
for ax, frame, model, title in (
    (axes[0], dyestuff, reml, "Dyestuff"),
    (axes[1], dyestuff2, singular, "Dyestuff2"),
):
    batches = frame.groupby("Batch")["Yield"].mean()
    ax.axhline(
        model.intercept_, color="black", linestyle="--", linewidth=1, label="total mean"
    )
    ax.plot(
        frame["Batch"], frame["Yield"], "o", color="0.45", mfc="none", label="yield"
    )
    ax.plot(
        batches.index,
        batches,
        "_",
        color="black",
        ms=22,
        mew=2,
        label="mean of the batch",
    )
    levels = model.intercept_ + model.random_effects_["Batch"]["intercept"]
    ax.plot(levels.index, levels, "D", color="#0072B2", label="mean plus BLUP")
    ax.margins(x=0.09)
    ax.set(xlabel="batch", ylabel="yield", title=title)
_ = figure.legend(
    *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4
)

# %%
# On the left the diamonds are between the lines and the total mean, at 78 per cent of the distance.
# On the right they are all on the total mean.
#
# How well is a standard deviation of six batches known? Not well: the interval of level 0.95 goes
# from 12 to 84 grams.

inference.confidence_intervals(reml, method="profile").round(3)

# %%
# lme4 1.1.31 has 12.199 to 84.063, 38.230 to 67.658 and 1486.451 to 1568.549, the first end by
# interpolation (12.197 here). The estimate in the table, 37.26, is that of maximum likelihood,
# whose profile these intervals are taken from.
#
# Do the batches differ at all? The distribution of the restricted likelihood ratio under the
# hypothesis that they do not is no chi-squared distribution: the estimate is zero in more than half
# of the samples. It can be simulated exactly [4]_.

test = inference.exact_restricted_lrt(reml, random_state=0)
print(test)

# %%
# RLRsim, in R, prints a statistic of 6.369 and a p-value of 0.004. In this layout the statistic
# grows with the ratio of the mean squares, so that the F test is the same test, and its
# distribution in closed form:

from scipy import stats

f_ratio = squares["mean square between"] / squares["mean square within"]
p_value = stats.f.sf(f_ratio, 5, 24)
p_zero = stats.f.cdf(1.0, 5, 24)
print(f"F = {f_ratio:.3f}, p = {p_value:.4f}")
print(f"the estimate is zero with probability {p_zero:.3f}")

# %%
# A variance of exactly zero
# --------------------------
# In the second table the batches differ less than the noise alone would make them differ. The
# analysis of variance estimates a negative variance, which cannot be; the best one that can is
# zero.

by_hand(dyestuff2).round(4).to_frame("by hand")

# %%

singular_ml = lmer("Yield ~ 1 + (1 | Batch)", dyestuff2, reml=False)
print(singular.summary())
print(f"\nis_singular_: {singular.is_singular_}, converged_: {singular.converged_}")
print(f"by ML: {-2.0 * singular_ml.log_likelihood_:.10f}")

# %%
# This is no failure. MixedModels.jl tests its fit by maximum likelihood against 162.87303665382575,
# a noise standard deviation of 3.653231351374652 and a standard error of 0.6669857396443261, with a
# variance of zero; lme4 prints 161.8 by REML and the message "boundary (singular) fit".
#
# A model whose only variance is zero is a linear model. Its coefficient, standard error, noise and
# likelihoods are those of least squares:

from sklearn.linear_model import LinearRegression

ones = np.ones((len(dyestuff2), 1))
ols = LinearRegression(fit_intercept=False).fit(ones, dyestuff2["Yield"])
residuals = dyestuff2["Yield"] - ols.predict(ones)
n = len(residuals)
noise = (residuals**2).sum() / (n - 1)
log_likelihood = stats.norm.logpdf(residuals, scale=np.sqrt((n - 1) / n * noise)).sum()
restricted = stats.norm.logpdf(residuals, scale=np.sqrt(noise)).sum()
restricted += 0.5 * np.log(2.0 * np.pi * noise / n)
pd.DataFrame(
    {
        "least squares": {
            "coefficient": ols.coef_[0],
            "standard error": np.sqrt(noise / n),
            "noise variance": noise,
            "log-likelihood": log_likelihood,
            "restricted log-likelihood": restricted,
        },
        "mixed model": {
            "coefficient": singular.intercept_,
            "standard error": singular.coef_covariance_.iloc[0, 0] ** 0.5,
            "noise variance": singular.noise_variance_,
            "log-likelihood": singular_ml.log_likelihood_,
            "restricted log-likelihood": singular.log_likelihood_,
        },
    }
).round(10)

# %%
# R prints the same of ``lm``: 5.6656 with a standard error of 0.6784, and log-likelihoods of
# -81.43651833 and -80.91413891. Even the degrees of freedom agree, 29 by Satterthwaite's method.
# Predictions are the same for a batch that was measured and for one that was not, and so are their
# standard deviations:

batches = pd.DataFrame({"Batch": ["A", "B", "a new batch"]})
mean, std = singular.predict(batches, return_std=True)
batches.assign(
    mean=mean,
    std=std,
    least_squares=ols.predict(np.ones((3, 1))),
    least_squares_std=np.sqrt(noise * (1.0 + 1.0 / n)),
)

# %%
# One number differs: AIC counts the variance as a parameter, whatever its value, and is larger by
# two.
#
# The profile at the bound
# ------------------------
# The profile of the standard deviation between batches has its summit inside for the one table and
# at zero for the other, where the curve starts flat. The interval then begins at zero.

from mixedlearn.plot import ProfileLikelihoodDisplay

figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
for ax, model, title in ((axes[0], reml, "Dyestuff"), (axes[1], singular, "Dyestuff2")):
    ProfileLikelihoodDisplay.from_estimator(
        model, "sd(intercept|Batch)", n_points=61, ax=ax
    )
    ax.set_title(title)

# %%
# Zero is the estimate, not the truth: standard deviations up to 2.08 are in the interval, more than
# half of that of the noise.

intervals = inference.confidence_intervals(singular, method="profile")
intervals.round(4)

# %%
# lme4 1.1.31 has 4.3121 to 7.0191 for the mean, where this interval is 4.3128 to 7.0184. Here we
# can tell who is right. Far from the estimated mean the batches' means are so far off that their
# variance is not zero any more, and the profile changes its form where that begins; a spline that
# is laid through a few of its points cannot follow. The profile of the mean has a closed form in
# each part:

from scipy.optimize import brentq

groups = dyestuff2["Yield"].to_numpy().reshape(6, 5)
within = ((groups - groups.mean(axis=1, keepdims=True)) ** 2).sum()


def deviance(mean):
    """Minus twice the profile log-likelihood of the mean, less a constant."""
    between = 5.0 * ((groups.mean(axis=1) - mean) ** 2).sum()
    noise, total = within / 24.0, between / 6.0
    if total < noise:
        noise = total = (within + between) / 30.0
    return 24.0 * np.log(noise) + 6.0 * np.log(total) + within / noise + between / total


center, cutoff = groups.mean(), stats.chi2.ppf(0.95, 1)
by_formula = [
    brentq(
        lambda mean: deviance(mean) - deviance(center) - cutoff,
        center,
        center + side * 4.0,
    )
    for side in (-1.0, 1.0)
]
print("by the closed form", np.round(by_formula, 4))

# %%
# Last, the exact test. Its statistic is zero, which is the most likely value if the batches do not
# differ, and no simulated statistic is smaller:

test2 = inference.exact_restricted_lrt(singular, random_state=0)
print(test2)

# %%
# RLRsim prints a p-value of 0.44 here, with a statistic of 5.7e-14. The statistic is zero but for
# rounding, and the simulated zeros, more than half of all, count as smaller.
#
# What we have learned
# --------------------
# * With six batches a variance is known badly; by chance it is estimated as zero often, with a
#   probability of 0.56 if it is zero.
# * A singular fit is an answer. The model is then the linear model, in every number but AIC, and
#   the interval tells which variances are possible all the same.
#
# .. rubric:: References
#
# .. [1] \D. Bates (2010). *lme4: Mixed-effects modeling with R*, chapter 1. Draft.
# .. [2] O. L. Davies and P. L. Goldsmith, eds. (1972). *Statistical Methods in Research and
#    Production*, 4th edition, section 6.4. Oliver and Boyd, Edinburgh.
# .. [3] G. E. P. Box and G. C. Tiao (1973). *Bayesian Inference in Statistical Analysis*, section
#    5.1.2. Addison-Wesley, Reading.
# .. [4] C. M. Crainiceanu and D. Ruppert (2004). Likelihood ratio tests in linear mixed models with
#    one variance component. *Journal of the Royal Statistical Society B* 66(1), 165-185.
