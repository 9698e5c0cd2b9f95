"""
Extroversion in schools: a tour of merMod
=========================================

Jared Knowles's two tutorials, *Getting Started with Mixed Effect Models in R* [1]_ and *Fun with
merMod Objects* [2]_, have introduced many people to lme4. They take 1,200 pupils, 50 in each of
four classes in each of six schools, and ask how openness, agreeableness and social engagement go
with extroversion. This page walks through both, step by step: the call in R, its counterpart here,
and what the answer means.

The tutorials' data are not ours to pass on. The pupils here are generated in the same arrangement,
so the tutorials' numbers (in their first mixed model a standard deviation of 9.79 between schools
and noise of 2.67) cannot come out, and are not meant to. In exchange the truth is known: schools
differ with a standard deviation of 9, classes within a school with one of 2.8, and pupils with one
of 1. A point of openness is worth 0.02 points of extroversion, one of social engagement 0.03 on
average, with a standard deviation of 0.025 between classes; agreeableness is worth nothing.
"""

# %%
# The pupils
# ----------
# **R**: ``read.table(...)``, ``head(lmm.data)``, ``table(lmm.data$class, lmm.data$school)``

import textwrap
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mixedlearn import inference, lmer
from mixedlearn.exceptions import NoGroupsWarning
from mixedlearn.plot import (
    CovarianceDisplay,
    ProfileLikelihoodDisplay,
    QQDisplay,
    RandomEffectsDisplay,
    ResidualsDisplay,
    SimulatedPredictionsDisplay,
)

BLUE = "#0072B2"
SCHOOLS, CLASSES, N_PUPILS = (
    ["I", "II", "III", "IV", "V", "VI"],
    ["a", "b", "c", "d"],
    50,
)

rng = np.random.default_rng(0)
school, class_, _ = np.indices((len(SCHOOLS), len(CLASSES), N_PUPILS)).reshape(3, -1)
n_rows, own_class = len(school), len(CLASSES) * school + class_
openness = rng.normal(40.0, 6.0, n_rows)
agreeableness = rng.normal(35.0, 5.5, n_rows)
social = rng.normal(98.0, 18.0, n_rows)
of_school = rng.normal(0.0, 9.0, len(SCHOOLS))
of_class = rng.normal(0.0, 2.8, len(SCHOOLS) * len(CLASSES))
slope = 0.03 + rng.normal(0.0, 0.025, len(SCHOOLS) * len(CLASSES))
extro = (
    60.0
    + of_school[school]
    + of_class[own_class]
    + 0.02 * (openness - 40.0)
    + slope[own_class] * (social - 98.0)
    + rng.normal(0.0, 1.0, n_rows)
)
pupils = pd.DataFrame(
    {
        "extro": extro.round(2),
        "open": openness.round(2),
        "agree": agreeableness.round(2),
        "social": social.round(2),
        "class": np.array(CLASSES)[class_],
        "school": np.array(SCHOOLS)[school],
    }
)
pd.crosstab(pupils["class"], pupils["school"])

# %%
# **R**: ``xyplot(extro ~ open + social + agree | school, data = lmm.data)``
#
# Schools differ, and within each of them classes differ: the pupils of a class form a band. Within
# the bands, social engagement goes with a little more extroversion.

MARKERS = [
    ("o", "black", 4),
    ("s", "#0072B2", 4),
    (".", "0.55", 6),
    ("x", "#D55E00", 5),
]
figure, axes = plt.subplots(
    2, 3, figsize=(8, 5.6), sharex=True, sharey=True, layout="constrained"
)
for ax, (name, own) in zip(axes.flat, pupils.groupby("school"), strict=True):
    for (letter, rows), (marker, color, size) in zip(
        own.groupby("class"), MARKERS, strict=True
    ):
        ax.plot(
            rows["social"],
            rows["extro"],
            marker,
            color=color,
            markersize=size,
            markeredgewidth=0.8,
            markerfacecolor="none",
            label=letter,
        )
    ax.set_title(f"school {name}")
for ax in axes[-1]:
    ax.set_xlabel("social")
for ax in axes[:, 0]:
    ax.set_ylabel("extro")
_ = figure.legend(
    *axes[0, 0].get_legend_handles_labels(),
    title="class",
    loc="outside right center",
    frameon=False,
)

# %%
# Without random effects
# ----------------------
# **R**: ``lm(extro ~ open + agree + social)``, then ``glm`` with ``+ class``, with ``+ school``,
# with ``+ school:class``; ``AIC``; ``anova(..., test = "F")``
#
# A formula without random terms is ordinary least squares, and says so in a warning, which is not
# needed here. Dummy variables for the schools explain most of the variance, and those for each
# class of each school nearly all the rest. A dummy for the letter of the class explains little:
# class a of one school has nothing in common with class a of another.

FIXED = "extro ~ open + agree + social"


def least_squares(formula, reml=False):
    """Least squares; R's `glm` has the AIC of maximum likelihood, without `reml`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoGroupsWarning)
        return lmer(formula, pupils, reml=reml)


by_least_squares = {
    terms: least_squares(FIXED + terms)
    for terms in ("", " + class", " + school", " + school:class")
}
pd.DataFrame(
    {
        FIXED + terms: {
            "AIC": model.aic(),
            "noise sd": model.noise_variance_**0.5,
            "coef of open": model.coef_[0],
            "coef of social": model.coef_[2],
        }
        for terms, model in by_least_squares.items()
    }
).T.round(3)

# %%
# The F test of all schools at once. Its noise variance is over the residual degrees of freedom,
# which is that of REML:

f_tests = inference.anova(least_squares(FIXED + " + school", reml=True), ddf="residual")
f_tests.round(4)

# %%
# **R**: ``dlply(lmm.data, .(school, class), function(x) glm(extro ~ open + agree + social, data =
# x))``
#
# A regression in every class. The coefficients scatter; whether more than by chance, such a list
# does not say.

covariates = ["open", "agree", "social"]
separate = pd.DataFrame(
    {
        name: np.linalg.lstsq(
            np.column_stack([np.ones(len(own)), own[covariates]]),
            own["extro"],
            rcond=None,
        )[0][1:]
        for name, own in pupils.groupby(["school", "class"])
    },
    index=covariates,
).T
separate.describe().loc[["mean", "std", "min", "max"]].round(3)

# %%
# Random intercepts: schools, letters, classes
# --------------------------------------------
# **R**: ``lmer(... + (1|school))``, ``(1|school) + (1|class)``, ``(1|school/class)``
#
# The second model crosses school and letter: it has four class effects, the same in every school.
# The third has an effect of each of the 24 classes; ``school/class`` is short for a school and a
# class within it. Which of them is right is not in the notation but in the data. Here the letter is
# a name only. In the tutorial's data it is not: there the second model brings the noise down from
# 2.67 to 1.67.

by_school = lmer(FIXED + " + (1 | school)", pupils)
crossed = lmer(FIXED + " + (1 | school) + (1 | class)", pupils)
nested = lmer(FIXED + " + (1 | school/class)", pupils)
print(nested.summary())

# %%
# **R**: ``display(MLexamp.6)`` and so on, ``AIC``, ``VarCorr``
#
# In the first two models the differences between classes are left in the noise. The effect of
# openness is estimated with a standard error of more than half its true size, 0.02, and comes out
# at twice that size. In the third model the noise is less than half of that, so are the standard
# errors, and the estimate is nearer to the truth.

models = {
    "(1 | school)": by_school,
    "(1 | school) + (1 | class)": crossed,
    "(1 | school/class)": nested,
}
pd.DataFrame(
    {
        terms: {
            "AIC": model.aic(),
            "sd of schools": model.covariances_["school"].iloc[0, 0] ** 0.5,
            "noise sd": model.noise_variance_**0.5,
            "open": model.coef_[0],
            "std_error": model.coef_covariance_.loc["open", "open"] ** 0.5,
            "p_value": inference.coefficient_table(model).loc["open", "p_value"],
        }
        for terms, model in models.items()
    }
).T.round(3)

# %%
# **R**: ``anova(MLexamp.6, MLexamp.8)``

inference.likelihood_ratio_test(by_school, nested)

# %%
# What is in a fit
# ----------------
# **R**: ``slotNames``, ``MLexamp1@call``, ``MLexamp1@beta``, ``methods(class = "merMod")``
#
# The second tutorial goes on with the first model, ``by_school``, and so do the next steps. A
# fitted estimator has parameters, and attributes that end in an underscore. What R computes by
# methods of the fit are functions of `mixedlearn.inference`; the guide :doc:`/coming_from_r` has
# them all.

print(by_school.formula_)
attributes = [
    name for name in dir(by_school) if name.endswith("_") and not name.startswith("_")
]
print(textwrap.fill(", ".join(attributes), 90))
print(textwrap.fill(", ".join(inference.__all__), 90))

# %%
# **R**: ``fixef(MLexamp1)``, ``vcov(MLexamp1)``

print(
    pd.Series(
        [by_school.intercept_, *by_school.coef_], by_school.coef_covariance_.index
    )
)
by_school.coef_covariance_.round(5)

# %%
# **R**: ``confint(MLexamp1, level = 0.99)``
#
# By profile likelihood, as in R, where the first row is called ``.sig01`` and the second
# ``.sigma``; it is that of ML, and so are the estimates. The standard deviation of schools is known
# badly, which is no wonder with six of them; the intervals of openness and of social engagement
# exclude zero, that of agreeableness does not.

intervals = inference.confidence_intervals(by_school, method="profile", level=0.99)
intervals.round(3)

# %%
# The curves behind such intervals: twice the drop of the log-likelihood, as its signed root. For
# social it is a straight line, so the interval is that of a normal distribution. For the schools it
# is bent: a standard deviation much larger than the estimate is far more plausible than one as much
# smaller.

profiles = ProfileLikelihoodDisplay.from_estimator(
    by_school, ["sd(intercept|school)", "social"], kind="signed_root"
)

# %%
# **R**: ``sigma(MLexamp1)``, ``fixef(MLexamp1) / sigma(MLexamp1)``
#
# Effect sizes. Per standard deviation of the noise, as in the tutorial, compares with pupils of the
# same school; per total standard deviation with pupils of any school. The last column is in
# standard deviations of both the covariate and extroversion.

sizes = inference.effect_sizes(by_school)
print(f"sigma {by_school.noise_variance_**0.5:.3f}")
sizes.round(4)

# %%
# **R**: ``VarCorr(MLexamp1)``, and ``icc`` and ``r2`` of the package performance
#
# Two pupils of the same school correlate by the intraclass correlation; with the classes in the
# model, two of the same class by the sum of both rows.

print(inference.variance_table(by_school).round(3))
print(inference.intraclass_correlation(nested).round(3))
inference.r2(nested).round(3)

# %%
# Random effects
# --------------
# **R**: ``ranef(MLexamp1)``, ``ranef(MLexamp1, condVar = TRUE)``, ``attr(..., "postVar")``
#
# The effect of each school, and its variance given the data, in which the fixed effects count as
# known.

print(by_school.random_effects_["school"].round(3))
print(by_school.random_effects_covariances_["school"].ravel().round(4))
effects = inference.random_effects_table(by_school)
effects.round(3)

# %%
# **R**: ``dotplot(ranef(MLexamp1, condVar = TRUE))``
#
# The caterpillar plot, of the nested model: schools above, their classes below. The intervals of
# the schools are wide now, because a school is known by four classes rather than by 200 pupils.

caterpillar = RandomEffectsDisplay.from_estimator(nested)

# %%
# **R**: ``REsim(MLexamp1, whichel = "school", nsims = 1000)``, by ``sim`` of the package arm
#
# Draws of the random effects. Their standard deviation is many times that of the conditional
# variances: it includes that the intercept of the population is estimated, from six schools.

draws = by_school.sample_random_effects(n_samples=1000, random_state=0)
draws = draws["school"][:, :, 0]
simulated = pd.DataFrame(
    {
        "mean": draws.mean(axis=0),
        "median": np.median(draws, axis=0),
        "sd": draws.std(axis=0),
    },
    index=by_school.random_effects_["school"].index,
)
simulated.round(3)

# %%
# **R**: ``plotREsim(REsim(MLexamp1))``
#
# The tutorial calls this the more conservative view. It is, of the distance of a school from the
# population. That uncertainty is common to all schools: it moves them together, and the difference
# between two schools is known far better than either of them. The conditional intervals are so
# short that the points hide them.

difference = draws[:, 1] - draws[:, 0]
print(f"sd of school I: {draws[:, 0].std():.2f}")
print(f"sd of school II minus school I: {difference.std():.2f}")

figure, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
order = simulated["mean"].argsort()
ordered, exact = simulated.iloc[order], effects.iloc[order]
places = np.arange(len(ordered))
ax.axhline(0.0, color="0.45", linewidth=0.8)
ax.errorbar(
    places - 0.08,
    ordered["mean"],
    1.96 * ordered["sd"],
    fmt="s",
    color=BLUE,
    capsize=3,
    label="draws: fixed effects estimated",
)
ax.errorbar(
    places + 0.08,
    exact["estimate"],
    1.96 * exact["std_error"],
    fmt="o",
    color="black",
    capsize=3,
    label="conditional: fixed effects known",
)
ax.set(
    xticks=places, xticklabels=ordered.index, xlabel="school", ylabel="effect on extro"
)
ax.set_title("Effects of the schools, 95 % intervals")
_ = ax.legend(frameon=False)

# %%
# Is there a school effect at all?
# --------------------------------
# **R**: ``exactLRT(m = MLexamp1, m0 = lm(...))``, with ``refitML``; ``exactRLRT(MLexamp1)``; of
# RLRsim
#
# A variance of zero is at the boundary of what a variance can be, where the usual chi-squared
# distribution is wrong. The exact null distribution is simulated instead. A model fitted by REML is
# refitted by ML where the test wants it. With 10,000 simulated statistics no p-value is below
# 0.0001; RLRsim prints 2.2e-16 where it means that none was as large.

exact_ml = inference.exact_lrt(by_school, random_state=0)
exact_reml = inference.exact_restricted_lrt(by_school, random_state=0)
print(exact_ml, exact_reml, sep="\n\n")

# %%
# In the model with both factors, each can be tested in the presence of the other.

exact_school = inference.exact_restricted_lrt(nested, "school", random_state=0)
print(exact_school)

# %%
# Fitted values and residuals
# ---------------------------
# **R**: ``fitted(MLexamp.8)``, ``residuals(MLexamp.8)``, ``plot(MLexamp.8)``, ``qqnorm``,
# ``qqmath(ranef(...))``
#
# A fit keeps no rows, so what is computed from rows takes them again.

fitted = nested.predict(pupils)
residuals = inference.residuals(nested, pupils, pupils["extro"])
print(residuals.describe().round(3))
residual_plot = ResidualsDisplay.from_estimator(nested, pupils, pupils["extro"])

# %%
# The noise is as normal as it should be, but for one pupil.

noise_plot = QQDisplay.from_estimator(nested, pupils, pupils["extro"])

# %%
# The random effects are as normal as six schools and 24 classes can show: at the edge of the band
# is the class that is lowest in the caterpillar plot.

effects_plot = QQDisplay.from_estimator(nested)

# %%
# Varying slopes
# --------------
# **R**: ``lmer(... + (1 + open|school/class))``
#
# Does openness count for more in one class than in another? In the tutorial the correlations come
# out as 1.00. Here one of them is minus one, that of the classes: the fit is singular, and the
# summary says so in its last line. That is an answer. The criterion is hardly lower than without
# the four further parameters, so the data show no such differences.

by_openness = lmer(FIXED + " + (1 + open | school/class)", pupils)
print(by_openness.summary())

# %%
# Social engagement is another matter, though no picture of the residuals gave it away: its effect
# differs between classes. It is standardised first, so that the intercept of a class is that of a
# pupil of average engagement, not of one without any, and the slope has the size of the other
# effects.

centred = pupils["social"] - pupils["social"].mean()
pupils["social_z"] = centred / pupils["social"].std()
by_engagement = lmer(
    "extro ~ open + agree + social_z + (1 | school) + (1 + social_z | school:class)",
    pupils,
)
print(by_engagement.summary())

# %%
# The exact test of the variance of a slope, RLRsim's ``exactRLRT(m, mA, m0)``, wants it to be
# uncorrelated with the intercept, which is ``||``.

uncorrelated = lmer(
    "extro ~ open + agree + social_z + (1 | school) + (1 + social_z || school:class)",
    pupils,
)
exact_slope = inference.exact_restricted_lrt(
    uncorrelated, "school:class", "social_z", random_state=0
)
print(exact_slope)

# %%
# The random effects of the classes: standard deviations, and hardly a correlation.

covariance_plot = CovarianceDisplay.from_estimator(by_engagement, factor="school:class")

# %%
# What do random effects matter?
# ------------------------------
# **R**: ``expand.grid(case, school)``, ``fixef`` and ``REsim`` put together by hand; later
# ``predictInterval(MLexamp1, newdata)`` of merTools
#
# The tutorial takes twelve pupils and puts each of them into every school. Within a panel is what
# the school makes of a pupil; between panels, at the same school, what makes pupils different.
# Schools matter a great deal, who the pupil is hardly.

cases = pupils.sample(12, random_state=3)[["open", "agree", "social"]]
cases.index = [f"pupil {row}" for row in cases.index]
figure, axes = plt.subplots(
    3, 4, figsize=(9, 6.5), sharex=True, sharey=True, layout="constrained"
)
in_every_school = SimulatedPredictionsDisplay.from_estimator(
    by_school, cases, factor="school", include_noise=True, ax=axes.ravel()
)
axes[0, 0].get_legend().remove()
handles = [in_every_school.errorbars_[0], in_every_school.population_lines_[0]]
_ = figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)

# %%
# The same the other way round, a panel for each school: pupils hardly differ.

figure, axes = plt.subplots(1, 6, figsize=(9, 2.6), sharey=True, layout="constrained")
predictions = in_every_school.predictions
for ax, (name, own) in zip(
    axes, predictions.groupby("level", observed=True), strict=True
):
    ax.plot(range(len(own)), own["prediction"], "o", color=BLUE, markersize=4)
    ax.set(title=f"school {name}", xticks=[], xlabel="12 pupils")
_ = axes[0].set_ylabel("prediction")

# %%
# The intervals are those of a new pupil, with the noise. Here they are computed: ``predict`` gives
# the standard deviation with ``return_std``. For these pupils merTools simulates intervals about
# twice as wide, because unless it is told otherwise (``fix.intercept.variance = TRUE``) it draws
# intercept and school effects as if they were independent; but where the intercept is
# overestimated, the school effects are underestimated.

grid = pupils.head(1)[covariates].merge(
    pd.DataFrame({"school": [*SCHOOLS, "VII"]}), how="cross"
)
mean, std = by_school.predict(grid, return_std=True)
predicted = pd.DataFrame(
    {"fit": mean, "upr": mean + 1.96 * std, "lwr": mean - 1.96 * std},
    index=grid["school"],
)
print(predicted.round(2))

mean, std = by_school.predict(pupils, return_std=True)
inside = abs(pupils["extro"] - mean) < 1.96 * std
print(f"{inside.mean():.1%} of the pupils are within the interval of their school")

# %%
# The share is not quite 95 per cent. This model does not know of classes, whose pupils are off
# together, and 24 classes are few.
#
# School VII does not exist; the prediction for it is that of the population, and its interval as
# wide as schools are different. Ten of its pupils, here borrowed from school III, suffice to know
# better, without a refit: the fixed effects and variances stay what they are, and the new school
# gets its BLUP.

newcomers = pupils[pupils["school"] == "III"].head(10).assign(school="VII")
updated = lmer(FIXED + " + (1 | school)", pupils).update_random_effects(
    newcomers, newcomers["extro"]
)
mean, std = updated.predict(grid.tail(1), return_std=True)
lower, upper = mean[0] - 1.96 * std[0], mean[0] + 1.96 * std[0]
print(f"school VII: {mean[0]:.1f}, from {lower:.1f} to {upper:.1f}")
updated.random_effects_["school"].round(2)

# %%
# Conclusion
# ----------
# Extroversion differs between schools, between classes within them, and little by anything else.
# Which class a pupil is in must be in the model, as a class *of its school*: otherwise its variance
# is taken for noise, and small true effects are badly estimated. The effect of social engagement
# differs between classes, that of openness does not, and agreeableness has none. That is what was
# put in.
#
# .. rubric:: References
#
# .. [1] Knowles, J. E. (2013). Getting started with mixed effect models in R.
#    https://www.jaredknowles.com/journal/2013/11/25/getting-started-with-mixed-effect-models-in-r
# .. [2] Knowles, J. E. (2014). Mixed effects tutorial 2: fun with merMod objects.
#    https://www.jaredknowles.com/journal/2014/5/17/mixed-effects-tutorial-2-fun-with-mermod-objects
