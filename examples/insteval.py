"""
InstEval: 73,421 lecture evaluations
====================================

At ETH Zurich 2,972 students rated the lectures of 1,128 lecturers from 1 to 5. A student rates many
lecturers and a lecturer is rated by many students, so the two factors are crossed, but only
partly: most pairs never meet. How much of a rating is the lecturer, how much the student? The data
come with lme4, which took them from the university's survey.
"""

# %%
# The data
# --------

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold, cross_validate

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.datasets import load_insteval
from mixedlearn.inference import (
    coefficient_table,
    intraclass_correlation,
    random_effects_table,
)
from mixedlearn.plot import RandomEffectsDisplay

X, y = load_insteval(return_X_y=True)
X.assign(y=y).head()

# %%
# ``s`` is the student, ``d`` the lecturer, ``dept`` the department, and ``service`` says whether
# the lecture was given for another department. The three factors are named in the constructor;
# everything else about the model is decided by the data. `describe` tells before the fit how it
# will be done:

model = MixedLinearRegressor(groups=["s", "d", "dept"], fixed_effects=["service"])
print(model.describe(X))

# %%
# The students, the largest factor, are eliminated one by one; lecturers and departments share a
# dense block. The fit then takes less than a second.

model.fit(X, y)
model.summary()

# %%
# lme4 arrives at the same criterion, 237,733.83, and the same variances; the benchmarks compare
# the times.
#
# Whose opinion is a rating?
# --------------------------

intraclass_correlation(model).round(3)

# %%
# The lecturer explains about 15 percent of the variance of a rating, the student 6, the
# department less than one. The other 79 percent differ from one rating to the next of the same
# student and are noise for this model. Fixed effects can be tested as usual; lectures for another
# department get slightly lower ratings:

coefficient_table(model).round(4)

# %%
# The best and the worst lecturer
# -------------------------------
#
# Raw means are extreme where chance is largest, with lecturers who have few ratings. BLUPs are
# drawn to zero the more, the fewer ratings there are, and they allow for who rated: a 4 of a
# strict student is worth more than one of a mild student.

lecturers = random_effects_table(model).query("factor == 'd'").set_index("level")
ratings = y.groupby(X["d"]).agg(["count", "mean"])
ranking = lecturers[["estimate", "std_error"]].join(ratings).sort_values("estimate")
pd.concat([ranking.tail(4)[::-1], ranking.head(4)[::-1]]).round(2)

# %%
# The highest raw means belong to lecturers with few ratings. Their BLUPs are drawn to zero more,
# and their standard errors are larger, than those of a lecturer with many:

ranking.sort_values("mean").tail(4)[::-1].round(2)

# %%
# Four thousand intervals in one picture. The dark ones exclude zero.

figure, axes = plt.subplots(1, 3, figsize=(9, 4.5), layout="constrained")
display = RandomEffectsDisplay.from_estimator(model, ax=axes)

# %%
# The intervals of 44 percent of the lecturers exclude zero, those of 14 percent of the students.
# (These are intervals of one level at a time, about a BLUP that is drawn to zero; they are not
# tests.)

table = random_effects_table(model)
excluded = (table["lower"] > 0) | (table["upper"] < 0)
excluded.groupby(table["factor"]).mean().round(3)

# %%
# Does it predict?
# ----------------
#
# Five-fold cross-validation of single ratings: students and lecturers are known from other
# ratings.

folds = KFold(5, shuffle=True, random_state=0)
candidates = {
    "service": LinearRegression(),
    "service, d": MixedLinearRegressor(groups="d"),
    "service, s, d": MixedLinearRegressor(groups=["s", "d"]),
    "service, s, d, dept": MixedLinearRegressor(groups=["s", "d", "dept"]),
}
scores = {}
for columns, candidate in candidates.items():
    found = cross_validate(
        candidate,
        X[columns.split(", ")],
        y,
        cv=folds,
        scoring=["r2", "neg_root_mean_squared_error"],
    )
    scores[columns] = {
        "R2": found["test_r2"].mean(),
        "RMSE": -found["test_neg_root_mean_squared_error"].mean(),
    }
pd.DataFrame(scores).T.round(4)

# %%
# Without the factors there is nothing to predict with. The students add to the lecturers, though a
# student's leniency is known from some 25 ratings only; the departments add nothing once the
# lecturers are known. What remains is mostly the noise, whose standard deviation is 1.18.
#
# A rating of a lecturer by a student who has not rated before uses the lecturer alone, and says
# so in its standard deviation:

row = X.head(1)
cases = pd.concat([row, row.assign(s=-1), row.assign(s=-1, d=-1)])
cases.index = [
    "known student, known lecturer",
    "new student",
    "new student and lecturer",
]
mean, std = model.predict(cases, return_std=True)
pd.DataFrame({"rating": mean, "std": std}, index=cases.index).round(3)

# %%
# Departments as fixed effects
# ----------------------------
#
# The documentation of MixedModels.jl fits another model to these data, with the departments and
# their interaction with ``service`` as fixed effects, by maximum likelihood. It prints
# -118792.7767 for the log-likelihood, and variances 0.105418 (students), 0.258416 (lecturers) and
# 1.384728.

departments = lmer(
    "y ~ service * dept + (1 | s) + (1 | d)",
    X.assign(y=y, dept=X["dept"].astype(str)),
    reml=False,
)
pd.Series(
    {
        "log-likelihood": departments.log_likelihood_,
        "students": departments.covariances_["s"].iloc[0, 0],
        "lecturers": departments.covariances_["d"].iloc[0, 0],
        "noise": departments.noise_variance_,
    }
).round(6)

# %%
# All agree to a unit of the last digit printed.
