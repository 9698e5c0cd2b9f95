"""
Pupils in classrooms, by every method
=====================================

Pupils sit in classrooms. Does the education of their parents show in their scores, and by how much?
This page answers with every method that a tutorial would try in turn: one regression of all pupils,
dummy variables for the classrooms, a regression of classroom means, a regression in every classroom
whose slopes are then averaged, and mixed models. All end in one table. The pupils are generated, so
the right answer is known, and a simulation shows where each method finds it and where it does not.

The plan is that of the chapter on linear mixed models in the course *Statistics and Machine
Learning in Python* [1]_, which has 60 pupils in three classrooms. The data here are our own, more
classrooms and of unequal size, so the numbers cannot agree with those of the chapter; some verdicts
differ, too.
"""

# %%
# The pupils
# ----------
# Twenty-four classrooms of 5 to 25 pupils. ``edu`` is the education of a pupil's parents in steps
# from 0 to 10, ``score`` a mark out of 20. In half of the classrooms there is a homework ``club``.
# Four things happen that happen in schools:
#
# - within a classroom a step of ``edu`` is worth 0.5 points on average: this is the slope to be
#   found;
# - classrooms differ in level, teachers being what they are;
# - where parents are better educated on average, so is the classroom better equipped: each step of
#   the classroom's mean adds another 0.8 points for everyone;
# - the slope differs between classrooms, and a homework club lowers it by 0.3.

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats
from sklearn.model_selection import GroupKFold, KFold

from mixedlearn import MixedLinearRegressor, inference, lmer
from mixedlearn.exceptions import NoGroupsWarning
from mixedlearn.plot import GroupLinesDisplay

BLUE, ORANGE = "#0072B2", "#E69F00"
SLOPE, CLUB = 0.5, -0.3


def make_pupils(
    rng,
    sizes,
    *,
    level_sd=1.2,
    context=0.8,
    slope_sd=0.2,
    club_effect=CLUB,
    classroom_sd=1.3,
):
    """Pupils of a classroom of each size; every other one has a homework club."""
    classroom = np.repeat(np.arange(len(sizes)), sizes)
    mean_edu = rng.normal(5.0, classroom_sd, len(sizes))
    edu = np.clip(np.round(rng.normal(mean_edu[classroom], 2.2)), 0.0, 10.0)
    club = np.arange(len(sizes)) % 2
    level = 11.0 + context * (mean_edu - 5.0) + rng.normal(0.0, level_sd, len(sizes))
    slope = SLOPE + club_effect * (club - 0.5) + rng.normal(0.0, slope_sd, len(sizes))
    noise = rng.normal(0.0, 1.8, len(edu))
    score = level[classroom] + slope[classroom] * (edu - 5.0) + noise
    return pd.DataFrame(
        {
            "classroom": np.array([f"c{j + 1:02d}" for j in range(len(sizes))])[
                classroom
            ],
            "club": club[classroom].astype(float),
            "edu": edu,
            "score": score.round(2),
        }
    )


rng = np.random.default_rng(0)
pupils = make_pupils(rng, rng.integers(5, 26, 24))
pupils["classroom_edu"] = pupils.groupby("classroom")["edu"].transform("mean")
print(f"{len(pupils)} pupils in {pupils['classroom'].nunique()} classrooms")
pupils.head()

# %%
# Two helpers: least squares are a mixed model without random terms, and of every regression we note
# what the chapter notes, the root mean squared error (residual sum of squares over residual degrees
# of freedom), the coefficient, its statistic and its p-value. The error is that of the rows which
# the regression sees: pupils, classrooms or slopes.


def least_squares(formula, data):
    """An `lmer` without random terms, which would otherwise warn that it has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoGroupsWarning)
        return lmer(formula, data)


def note(model, data, response, effect="edu", ddf="satterthwaite"):
    """RMSE, coefficient, statistic and p-value of one effect."""
    table = inference.coefficient_table(model, ddf=ddf)
    residual = inference.residuals(model, data, data[response])
    row = table.loc[effect]
    return {
        "RMSE": np.sqrt((residual**2).sum() / (len(data) - len(table))),
        "coef": row["estimate"],
        "std_error": row["std_error"],
        "stat": row["t_value"],
        "df": row["df"],
        "p_value": row["p_value"],
    }


results = {}

# %%
# One regression of all pupils
# ----------------------------
# Pooled regression does not know of classrooms. Its line runs through pupils of poor and of
# well-equipped classrooms alike, and so counts part of the equipment as an effect of the parents.

pooled = least_squares("score ~ edu", pupils)
results["edu", "pooled regression"] = note(pooled, pupils, "score", ddf="residual")
inference.coefficient_table(pooled, ddf="residual").round(4)

# %%
# Dummy variables for the classrooms: ANCOVA
# ------------------------------------------
# With a dummy variable for every classroom, pupils are compared within classrooms only. Whatever
# the classrooms differ in is taken out, so the slope is not biased. With a single slope the
# standard error takes that slope to be the same everywhere. With a slope of its own for every
# classroom (coded so that the coefficient of ``edu`` is their mean) it holds for these 24
# classrooms, and says nothing of others.

ancova = least_squares("score ~ edu + classroom", pupils)
ancova_slopes = least_squares("score ~ edu * C(classroom, contr.sum)", pupils)
results["edu", "ANCOVA: classroom dummies"] = note(
    ancova, pupils, "score", ddf="residual"
)
results["edu", "ANCOVA: dummies and slopes"] = note(
    ancova_slopes, pupils, "score", ddf="residual"
)
inference.anova(ancova_slopes, ddf="residual").round(4)

# %%
# Aggregation: classroom means
# ----------------------------
# Means of classrooms are independent of each other, so their regression is a valid one. It answers
# another question, though: how much better *classrooms* do whose parents are better educated. To
# read it as the effect of a pupil's own parents is the ecological fallacy. Of the pupils, only 24
# rows are left.

means = pupils.groupby("classroom", as_index=False)[["edu", "score", "club"]].mean()
aggregated = least_squares("score ~ edu", means)
results["edu", "aggregation: classroom means"] = note(
    aggregated, means, "score", ddf="residual"
)

figure, ax = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
jitter = np.random.default_rng(0).uniform(-0.25, 0.25, len(pupils))
ax.plot(pupils["edu"] + jitter, pupils["score"], ".", color="0.65", label="pupils")
ax.plot(means["edu"], means["score"], "s", color=BLUE, label="classroom means")
edu = np.array([0.0, 10.0])
pooled_y = pooled.predict(pd.DataFrame({"edu": edu}))
ax.plot(
    edu,
    aggregated.predict(pd.DataFrame({"edu": edu})),
    color=BLUE,
    linestyle="-.",
    linewidth=2,
    label="line of the means",
)
ax.plot(edu, pooled_y, color="black", linestyle="--", linewidth=2, label="pooled line")
centre = pupils["edu"].mean(), pupils["score"].mean()
ax.axline(
    centre,
    slope=SLOPE,
    color=ORANGE,
    linewidth=2,
    label="true slope within a classroom",
)
ax.set(xlabel="education of the parents", ylabel="score", ylim=(-1.0, 26.0))
ax.set_title("Three slopes in the same data")
_ = ax.legend(frameon=False)

# %%
# Two stages: a regression in every classroom
# -------------------------------------------
# First a regression in every classroom, then a test of its slopes: is their mean zero? The slopes
# are independent numbers, one for each classroom, so the t-test is valid, and its standard error
# includes that slopes differ. But a slope from five pupils counts as much as one from twenty-five.

lines = pd.DataFrame(
    [
        (name, own["club"].iloc[0], len(own), *np.polyfit(own["edu"], own["score"], 1))
        for name, own in pupils.groupby("classroom")
    ],
    columns=["classroom", "club", "n_pupils", "slope", "intercept"],
)
averaged = least_squares("slope ~ 1", lines)
results["edu", "two stages: mean of slopes"] = note(
    averaged, lines, "slope", "intercept", ddf="residual"
)
lines.round(2).head()

# %%
# Mixed models
# ------------
# A mixed model estimates all at once: the slope of the population, how much classrooms vary around
# it, and each classroom's own line. Classrooms with few pupils count for less and borrow from the
# others. The random intercept is lme4's ``(1 | classroom)``, with a random slope ``(1 + edu |
# classroom)``.

intercepts = lmer("score ~ edu + (1 | classroom)", pupils)
slopes = lmer("score ~ edu + (1 + edu | classroom)", pupils)
results["edu", "mixed: random intercept"] = note(intercepts, pupils, "score")
results["edu", "mixed: random intercept and slope"] = note(slopes, pupils, "score")
inference.likelihood_ratio_test(intercepts, slopes)

# %%
# The slopes do differ, with a standard deviation of 0.25 (the club included), but 24 classrooms of
# this size need not show it: the test does not reject. A random slope for the effect that is asked
# for belongs to the design, whatever a test with little power says.
#
# A random intercept is supposed to be unrelated to the covariate. Here it is not: classrooms of
# better educated parents are better equipped. The remedy is to tell the model, by the mean of the
# classroom as a further covariate [2]_. The coefficient of ``edu`` is then the slope within
# classrooms, that of ``classroom_edu`` what the classroom's mean adds to it. Of the latter these
# pupils say little, because the means of 24 classrooms lie close together: the true 0.8 is in its
# interval, and so is zero.

within = lmer("score ~ edu + classroom_edu + (1 + edu | classroom)", pupils)
results["edu", "mixed: slope and classroom mean"] = note(within, pupils, "score")
print(within.summary())

# %%
# What makes slopes differ: the homework club
# -------------------------------------------
# The club is the same for all pupils of a classroom. Whether it changes the slope can be asked of
# all three methods that have slopes. ANCOVA takes every pupil for an independent witness of the
# club; the two stages (slopes regressed on the club) and the mixed model (the product of ``edu``
# and ``club``) know that only 24 classrooms bear witness.

by_club = least_squares("score ~ edu + edu:club + classroom", pupils)
slopes_on_club = least_squares("slope ~ club", lines)
mixed_club = lmer("score ~ edu * club + classroom_edu + (1 + edu | classroom)", pupils)
results["edu:club", "ANCOVA: classroom dummies"] = note(
    by_club, pupils, "score", "edu:club", ddf="residual"
)
results["edu:club", "two stages: slopes on club"] = note(
    slopes_on_club, lines, "slope", "club", ddf="residual"
)
results["edu:club", "mixed: slope and classroom mean"] = note(
    mixed_club, pupils, "score", "edu:club"
)

# %%
# One table
# ---------
# The generating coefficients are 0.5 for ``edu`` and -0.3 for ``edu:club``.

table = pd.DataFrame(results).T.rename_axis(["effect", "method"])
decimals = {"RMSE": 2, "coef": 3, "std_error": 3, "stat": 2, "df": 1}
table.round(decimals).assign(p_value=table["p_value"].map("{:.1e}".format))

# %%
# For the slope of ``edu``, whose true mean is 0.5:
#
# - *Pooled regression* is three of its standard errors off, and sure of itself: it credits the
#   parents with the equipment of the classroom, and its standard error counts pupils as if they sat
#   anywhere.
# - *ANCOVA* compares within classrooms. With one slope it is off by what chance does. Its standard
#   error is too small for classrooms in general, since slopes differ. With a slope for each
#   classroom the coefficient is the plain mean of the slopes, that of the two stages, and the
#   standard error is that of these 24 classrooms only.
# - *Aggregation* is further off than pooled regression, since it sees nothing but the differences
#   between classrooms; its standard error is so large that this could be chance. Its RMSE is small
#   only because means vary less than pupils do.
# - *Two stages* find the slope, here better than they could be expected to, with an honest standard
#   error.
# - The *random intercept* is pulled a little towards the line of the means, and its standard error
#   is that of ANCOVA. With a *random slope* the standard error is larger; with the *mean of the
#   classroom* as a covariate the pull is gone, too. This is how the data were generated, but for
#   the club.
#
# For the effect of the club on the slope, ANCOVA's statistic is the largest and the least
# trustworthy. The mixed model has a smaller standard error than the two stages, because it knows
# which slopes are known well.
#
# One data set cannot tell a good method from a lucky one. The simulation below can.

# %%
# The mixed model in pictures
# ---------------------------
# Six classrooms: pupils, the line that the mixed model predicts for the classroom, and the line of
# the population; dotted, the classroom's own regression, dash-dotted, the pooled one. In a large
# classroom such as c12 or c15 the model's line and the own regression nearly agree. In a small one,
# such as c06, c08 or c24, the mixed model trusts the few pupils less and stays closer to the
# population. So it does in c07, where all parents have much the same education and the slope is
# badly known. The pooled line is too steep for most.

chosen = ["c12", "c15", "c07", "c06", "c08", "c24"]
display = GroupLinesDisplay.from_estimator(
    slopes, pupils[["classroom", "edu"]], pupils["score"], feature="edu", levels=chosen
)
by_classroom = lines.set_index("classroom")
for name, ax in zip(chosen, display.axes_, strict=True):
    own = pupils.loc[pupils["classroom"] == name, "edu"].agg(["min", "max"]).to_numpy()
    own_y = by_classroom.loc[name, "intercept"] + by_classroom.loc[name, "slope"] * own
    (own_line,) = ax.plot(own, own_y, color="black", linestyle=":", linewidth=1.8)
    (pooled_line,) = ax.plot(edu, pooled_y, color=ORANGE, linestyle="-.", linewidth=1.2)
_ = display.figure_.legend(
    [own_line, pooled_line],
    ["own regression", "pooled regression"],
    loc="outside upper left",
    ncols=2,
    frameon=False,
)

# %%
# The slopes of all classrooms, from their own regressions and from the mixed model. The arrows are
# called shrinkage: the fewer the pupils and the less their ``edu`` varies, the longer.

predicted = inference.level_coefficients(slopes)["classroom"].loc[
    by_classroom.index, "edu"
]
figure, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
for size, one, other in zip(
    by_classroom["n_pupils"], by_classroom["slope"], predicted, strict=True
):
    ax.annotate(
        "",
        xy=(size, other),
        xytext=(size, one),
        arrowprops={"arrowstyle": "->", "color": "0.6", "shrinkA": 3, "shrinkB": 3},
    )
n_pupils = by_classroom["n_pupils"]
ax.plot(
    n_pupils,
    by_classroom["slope"],
    "o",
    mfc="white",
    color=BLUE,
    label="own regression",
)
ax.plot(n_pupils, predicted, "s", color="black", markersize=4.5, label="mixed model")
ax.axhline(
    slopes.coef_[0], color="black", linestyle="--", linewidth=1, label="population"
)
ax.set(
    xlabel="pupils in the classroom",
    xticks=range(5, 26, 5),
    ylabel="slope of edu",
    title="Slopes of the classrooms",
)
_ = ax.legend(frameon=False)

# %%
# Known and new classrooms
# ------------------------
# The errors of the table above are those of different rows, and of rows that the regression has
# seen. What can be compared are errors of prediction: of pupils left out from classrooms that the
# model knows, and of whole classrooms left out.


def predict_pooled(train, test):
    return least_squares("score ~ edu", train).predict(test)


def predict_ancova(train, test):
    return least_squares("score ~ edu + classroom", train).predict(test)


def predict_from_means(train, test):
    return least_squares(
        "score ~ edu", train.groupby("classroom")[["edu", "score"]].mean()
    ).predict(test)


def predict_two_stages(train, test):
    own = {
        name: np.polyfit(rows["edu"], rows["score"], 1)
        for name, rows in train.groupby("classroom")
    }
    average = np.mean(list(own.values()), axis=0)
    line = np.array([own.get(name, average) for name in test["classroom"]])
    return line[:, 0] * test["edu"] + line[:, 1]


def predict_mixed(formula):
    return lambda train, test: lmer(formula, train).predict(test)


def rmse(predict, splits):
    errors = [
        pupils["score"].iloc[test] - predict(pupils.iloc[train], pupils.iloc[test])
        for train, test in splits
    ]
    return np.sqrt((pd.concat(errors) ** 2).mean())


predictors = {
    "pooled regression": predict_pooled,
    "ANCOVA: classroom dummies": predict_ancova,
    "aggregation: classroom means": predict_from_means,
    "two stages: own line, or mean line": predict_two_stages,
    "mixed: random intercept": predict_mixed("score ~ edu + (1 | classroom)"),
    "mixed: random intercept and slope": predict_mixed(
        "score ~ edu + (1 + edu | classroom)"
    ),
    "mixed: slope and classroom mean": predict_mixed(
        "score ~ edu + classroom_edu + (1 + edu | classroom)"
    ),
}
known = list(KFold(5, shuffle=True, random_state=0).split(pupils))
new = list(GroupKFold(6).split(pupils, groups=pupils["classroom"]))
errors = pd.DataFrame(
    {
        "known classrooms": {
            name: rmse(predict, known) for name, predict in predictors.items()
        },
        "new classrooms": {
            name: rmse(predict, new)
            for name, predict in predictors.items()
            if predict is not predict_ancova
        },
    }
)
errors.round(2)

# %%
# In classrooms that they know, the mixed models predict best, and ANCOVA follows closely. The two
# stages do not, because they believe the line of a classroom with five pupils. For a new classroom
# ANCOVA has no dummy variable and so no prediction at all. A mixed model predicts from the
# population, and its ``return_std`` counts that the new classroom's line is not known. Without the
# classroom's mean of ``edu`` it does no better than pooled regression, which for new classrooms is
# not a bad method: the bias of its slope stands for the equipment that the parents come with. The
# mean as a covariate says the same openly, and is the best here, though not by much.

# %%
# Which method is right, and when
# -------------------------------
# One data set proves little. Four kinds of schools, 50 data sets each, and the estimates of six
# methods: where are they centred, how widely do they scatter, and how often does the claimed 95 %
# interval hold the true 0.5? (A share of 50 has a standard error of three per cent and more. ANCOVA
# is computed from deviations from the classroom's mean, which is the same. Intervals of the mixed
# model with a slope use the classrooms as degrees of freedom, like those of the two stages.)

METHODS = (
    "pooled regression",
    "ANCOVA: dummies",
    "classroom means",
    "mean of slopes",
    "mixed: intercept",
    "mixed: slope, mean of edu",
)


def regress(x, y):
    """Slope of a line by least squares, standard error and degrees of freedom."""
    line = stats.linregress(x, y)
    return line.slope, line.stderr, len(y) - 2


def estimates(data):
    """Slope, standard error and degrees of freedom by each of the methods."""
    edu, score, classroom = data["edu"], data["score"], data["classroom"]
    means = data.groupby("classroom")[["edu", "score"]].mean()
    n_classrooms = len(means)
    mean = means.loc[classroom].reset_index(drop=True)
    x, y = edu - mean["edu"], score - mean["score"]
    yield regress(edu, score)
    slope, std_error, df = regress(x, y)
    dummies = n_classrooms - 1
    yield slope, std_error * np.sqrt(df / (df - dummies)), df - dummies
    yield regress(means["edu"], means["score"])
    own = (x * y).groupby(classroom).sum() / (x * x).groupby(classroom).sum()
    yield own.mean(), own.sem(), n_classrooms - 1
    for columns, random_slopes, df in (
        (edu.to_frame(), None, len(data) - 2),
        (pd.DataFrame({"edu": edu, "mean": mean["edu"]}), ["edu"], n_classrooms - 2),
    ):
        model = MixedLinearRegressor(random_slopes=random_slopes)
        model.fit(columns, score, groups=classroom)
        yield (model.coef_[0], np.sqrt(model.coef_covariance_.loc["edu", "edu"]), df)


large, small = rng.integers(5, 26, 24), rng.integers(3, 7, 24)
scenarios = {
    "levels differ": (large, {"context": 0.0, "slope_sd": 0.0}),
    "levels follow the mean of edu": (large, {"slope_sd": 0.0}),
    "slopes differ": (large, {"context": 0.0, "slope_sd": 0.4}),
    "slopes differ, small classrooms": (small, {"context": 0.0, "slope_sd": 0.4}),
}
N_REPEATS = 50
simulated = np.array(
    [
        [
            list(estimates(make_pupils(rng, sizes, club_effect=0.0, **differences)))
            for _ in range(N_REPEATS)
        ]
        for sizes, differences in scenarios.values()
    ]
)
coef, std_error, df = np.moveaxis(simulated, -1, 0)
half_width = stats.t.ppf(0.975, df) * std_error
covered = (abs(coef - SLOPE) < half_width).mean(axis=1)

figure, axes = plt.subplots(
    2, 2, figsize=(8, 6), sharex=True, sharey=True, layout="constrained"
)
rows = np.arange(len(METHODS))[::-1]
for ax, name, found, width, share in zip(
    axes.flat, scenarios, coef, half_width, covered, strict=True
):
    ax.axvline(SLOPE, color=ORANGE, linewidth=1.5, zorder=0, label="true slope")
    centre = found.mean(axis=0)
    ax.errorbar(
        centre,
        rows,
        xerr=1.96 * found.std(axis=0),
        fmt="o",
        color="black",
        capsize=3,
        markersize=4,
        label="estimates: mean and 95 % of them",
    )
    claimed = width.mean(axis=0)
    ax.hlines(
        rows - 0.25,
        centre - claimed,
        centre + claimed,
        color=BLUE,
        linestyle=(0, (3, 1)),
        linewidth=2,
        label="width of the claimed intervals",
    )
    for row, covers in zip(rows, share, strict=True):
        ax.text(2.1, row, f"{covers:.0%}", ha="right", va="center")
    ax.set(title=name, xlim=(-0.15, 2.15), yticks=rows, yticklabels=METHODS)
for ax in axes[-1]:
    ax.set_xlabel("slope of edu; intervals that hold 0.5")
handles, labels = ax.get_legend_handles_labels()
_ = figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)

# %%
# - *Levels differ*, and nothing else: every method is centred at the truth. Pooled regression
#   scatters more than it admits, because part of ``edu`` is common to a classroom. The two stages
#   scatter more than they need to.
# - *Levels follow the mean of edu*: pooled regression and classroom means are biased. The mixed
#   model with a random intercept is, too, though little; the classroom's mean as a covariate cures
#   it.
# - *Slopes differ*: all methods with a single slope for pupils claim intervals that are far too
#   narrow. Those of two stages and of the random slope are as wide as the estimates scatter.
# - *Small classrooms*: the same to a lesser degree, and now the mean of slopes scatters more than
#   the mixed model's slope, because badly known slopes count in full.
#
# Conclusion
# ----------
# Pooled regression is for data without groups. ANCOVA gives the slope within the classrooms at
# hand, if it is the same in all of them, and nothing for others. Aggregation answers a question
# about classrooms, not about pupils. Two stages are sound where every classroom is large. The mixed
# model does what each of them does well, provided that it is given the structure there is: a random
# slope where slopes differ, and the classroom's mean where classrooms differ with the covariate.
#
# .. rubric:: References
#
# .. [1] Duchesnay, E., Lofstedt, T. & Younes, F. *Statistics and Machine Learning in Python*,
#    chapter Linear Mixed Models. https://duchesnay.github.io/pystatsml/
# .. [2] Mundlak, Y. (1978). On the pooling of time series and cross section data. *Econometrica*
#    46, 69-85.
