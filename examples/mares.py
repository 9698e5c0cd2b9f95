"""
Cycles of mares: noise that is correlated from day to day
=========================================================

The ovarian follicles of 11 mares were counted every day, from three days before an ovulation to
three days after the next [1]_. Pinheiro and Bates take these data for their chapter on correlated
noise [2]_. A sine and a cosine describe the cycle, and whatever lifts the count of one day lifts
that of the next day, too. What happens to the standard errors if a model ignores this? And is the
correlation a matter of the mares, or of the days?
"""

# %%
# The data
# --------
# ``Time`` is 0 at the first ovulation and 1 at the second. ``Day`` counts the days of a mare.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mixedlearn import inference, lmer
from mixedlearn.datasets import load_ovary

ovary = load_ovary().frame
ovary["sine"] = np.sin(2 * np.pi * ovary["Time"])
ovary["cosine"] = np.cos(2 * np.pi * ovary["Time"])
ovary.head(3)

# %%
figure, ax = plt.subplots(layout="constrained")
for _, own in ovary.groupby("Mare"):
    ax.plot(own["Time"], own["follicles"], color="0.6", linewidth=1)
by_share = ovary.groupby((24 * ovary["Time"]).round() / 24)["follicles"].mean()
ax.plot(by_share, "o-", color="black", label="mean of all mares")
ax.legend()
_ = ax.set(xlabel="time in the cycle", ylabel="follicles of more than 10 mm")

# %%
# Mares differ in level, and each curve wanders: it stays above or below the mean for days.
#
# A model without correlation
# ---------------------------
# The first model of the book gives every mare her own level and her own height of the sine. Its
# noise is independent.

cycle = "follicles ~ sine + cosine"
independent = lmer(f"{cycle} + (sine || Mare)", ovary)
print(independent.summary())

# %%
# The book has the same AIC of 1638.1. But are the residuals independent? Correlate residuals of
# the same mare that are one day apart, two days apart, and so on:


def correlation_by_lag(residuals, n_lags=14):
    """Correlations of residuals of the same mare, by the number of days between them."""
    by_mare = residuals.groupby(ovary["Mare"])
    return pd.Series(
        {lag: residuals.corr(by_mare.shift(lag)) for lag in range(1, n_lags + 1)}
    )


conditional = inference.residuals(independent, ovary, ovary["follicles"])
by_lag = correlation_by_lag(conditional)

figure, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
ax.bar(by_lag.index, by_lag, width=0.3, color="0.4")
ax.axhline(0.0, color="black", linewidth=1)
for side in (-1, 1):
    ax.axhline(side * 1.96 / np.sqrt(len(ovary)), color="black", linestyle="--")
_ = ax.set(xlabel="days between two counts", ylabel="correlation of residuals")

# %%
# If the noise were independent, 19 of 20 bars would end between the dashed lines. Residuals of
# neighbouring days have a correlation of 0.40, those of two days apart one of 0.19. (Far bars are
# negative, since the residuals of a mare are distances from a curve that was fitted to them.)
#
# Noise with memory
# -----------------
# ``residual="ar1"`` says that the noise of two days of a mare has a correlation of r to the power
# of the number of days between them. There is one parameter more.

slopes = lmer(f"{cycle} + (sine || Mare)", ovary, residual="ar1", time="Day")
test = inference.likelihood_ratio_test(independent, slopes, refit=False)
print(test)

# %%
# The statistic is 76.6 on one degree of freedom; the book prints 76.63. The correlation:

print(f"r = {slopes.residual_parameters_['correlation']:.4f}")

# %%
# ``refit=False`` compares the restricted likelihoods, which is right here because the fixed effects
# of both models are the same.
#
# Which structure?
# ----------------
# Correlation of the days of a mare has three possible sources: her level, her height of the sine,
# and the memory of the noise. ``groups`` names the series where a formula has no random term. This
# is what ``gls`` does in R, and the models with random terms are those of ``lme``.

models = {
    "random intercept": lmer(f"{cycle} + (1 | Mare)", ovary),
    "random intercept and sine": independent,
    "AR(1)": lmer(cycle, ovary, groups="Mare", residual="ar1", time="Day"),
    "AR(1), random intercept": lmer(
        f"{cycle} + (1 | Mare)", ovary, residual="ar1", time="Day"
    ),
    "AR(1), random intercept and sine": slopes,
}
structures = pd.DataFrame(
    {
        name: {
            "-2 log-likelihood": -2.0 * model.log_likelihood_,
            "AIC": model.aic(),
            "BIC": model.bic(),
        }
        for name, model in models.items()
    }
).T
structures.round(1)

# %%
# AIC is lowest for AR(1) beside a random intercept. The tests say the same: the level of the mares
# is needed beside AR(1), and once the noise has a memory the random sine is not needed any more:

level = inference.likelihood_ratio_test(
    models["AR(1)"], models["AR(1), random intercept"], refit=False
)
sine = inference.likelihood_ratio_test(
    models["AR(1), random intercept"], slopes, refit=False
)
print(level)
print()
print(sine)

# %%
# A picture shows why. The bars are correlations of what the cycle leaves over, between days of the
# same mare. A random intercept alone says that all of them are equal. AR(1) alone says that they
# fall to zero. With both they fall to the share of the variance that belongs to the mares.

chosen = models["AR(1), random intercept"]
left_over = ovary["follicles"] - chosen.predict(ovary, random_effects="none")
observed = correlation_by_lag(left_over, n_lags=20)
lags = np.arange(1, 21)


def implied(model):
    """The correlation of two days of a mare that a model with an intercept implies."""
    between = model.covariances_["Mare"].iloc[0, 0] if model.covariances_ else 0.0
    noise = model.noise_variance_
    r = (model.residual_parameters_ if model.residual else {}).get("correlation", 0.0)
    return (between + noise * r**lags) / (between + noise)


figure, ax = plt.subplots(layout="constrained")
ax.bar(lags, observed, width=0.3, color="0.75", label="observed")
for name, linestyle in (
    ("random intercept", ":"),
    ("AR(1)", "--"),
    ("AR(1), random intercept", "-"),
):
    ax.plot(lags, implied(models[name]), linestyle, color="black", label=name)
ax.legend()
_ = ax.set(
    xlabel="days between two counts", ylabel="correlation", xticks=range(2, 21, 2)
)

# %%
# What the correlation does to the tests
# --------------------------------------

tables = {
    name: inference.coefficient_table(models[name], ddf="kenward-roger")
    for name in ("random intercept", "AR(1), random intercept")
}
for name, table in tables.items():
    print(name)
    print(table)

# %%
# The curve hardly changes, but its standard errors nearly double. 308 counts with independent noise
# would have 295 degrees of freedom for the cycle. Counts that repeat much of what the day before
# said are worth fewer. Without correlation the cosine has a p-value of 0.002, and with it there is
# no evidence for it.
#
# Days, or shares of the cycle?
# -----------------------------
# AR(1) counts days. ``"continuous_ar1"`` takes any numbers, such as the share of the cycle in
# ``Time``:

by_cycle = lmer(f"{cycle} + (1 | Mare)", ovary, residual="continuous_ar1", time="Time")
print(f"AIC by days: {chosen.aic():.1f}, by share of the cycle: {by_cycle.aic():.1f}")
print(f"correlation after a day: {chosen.residual_parameters_['correlation']:.3f}")
a_day = ovary.groupby("Mare")["Time"].diff().mean()
print(
    "correlation after a mean day of the cycle: "
    f"{by_cycle.residual_parameters_['correlation'] ** a_day:.3f}"
)

# %%
# Cycles are about equally long, so both say nearly the same.
#
# Two mares
# ---------
# The line of a mare is the cycle of all mares, moved to her level. The noise around it is what AR(1)
# describes; it is no part of the line, because for a day of the data ``predict`` gives what the
# effects say.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
for ax, mare in zip(axes, (7, 8), strict=True):
    own = ovary[ovary["Mare"] == mare]
    ax.plot(own["Time"], own["follicles"], "o", color="0.5", label="counted")
    ax.plot(own["Time"], chosen.predict(own), color="black", label="this mare")
    ax.plot(
        own["Time"],
        chosen.predict(own, random_effects="none"),
        "--",
        color="black",
        label="all mares",
    )
    ax.set(title=f"mare {mare}", xlabel="time in the cycle")
axes[0].set_ylabel("follicles")
_ = axes[0].legend()

# %%
# What we have learned
# --------------------
# * Counts of neighbouring days have a correlation of about 0.6 beyond the cycle and the level of
#   the mare. It halves in about a day and a half.
# * Mares differ in level. That some have higher waves than others cannot be shown: the random sine
#   took the place of the correlation that the first model left out.
# * The sine is beyond doubt. The cosine is not, and only a model with correlated noise says so.
#
# .. rubric:: References
#
# .. [1] R. A. Pierson and O. J. Ginther (1987). Follicular population dynamics during the estrus
#    cycle of the mare. *Animal Reproduction Science* 14(3), 219-231. R package nlme, data set Ovary.
# .. [2] J. C. Pinheiro and D. M. Bates (2000). *Mixed-Effects Models in S and S-PLUS*, section
#    5.3. Springer, New York.
