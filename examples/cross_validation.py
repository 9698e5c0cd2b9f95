"""
Cross-validation and grid search with groups
============================================

For readers who know scikit-learn: what changes when the rows come in groups. A score can answer two
questions. How good are predictions for *groups that the model has seen*? And how good are they
for *new groups*? The splitter decides which one is answered, and a mixed model answers both.
The data are reaction times of 18 people in a study of too little sleep (Belenky et al., 2003).
"""

# %%
# The data: a column says who
# ---------------------------

from itertools import pairwise

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, SplineTransformer

from mixedlearn import MixedLinearRegressor
from mixedlearn.datasets import load_sleepstudy
from mixedlearn.plot import GroupLinesDisplay

X, y = load_sleepstudy(return_X_y=True)
X.assign(Reaction=y).sample(5, random_state=0)

# %%
# `MixedLinearRegressor` takes the name of that column in its constructor and is from then on a
# regressor like any other: nothing has to be routed.

model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"])
_ = model.fit(X, y)
display = GroupLinesDisplay.from_estimator(model, X, y)

# %%
# Known groups and new groups
# ---------------------------
#
# ``KFold`` leaves out single rows: every person is in the training rows as well. ``GroupKFold``
# leaves out whole people.

known = KFold(6, shuffle=True, random_state=0)
new = GroupKFold(6)
one_hot = make_column_transformer(
    (OneHotEncoder(handle_unknown="ignore"), ["Subject"]), remainder="passthrough"
)
days_alone = make_column_transformer(("passthrough", ["Days"]))
candidates = {
    "LinearRegression, Days": make_pipeline(days_alone, LinearRegression()),
    "LinearRegression, Days and one-hot people": make_pipeline(
        one_hot, LinearRegression()
    ),
    "random forest, Days and one-hot people": make_pipeline(
        one_hot, RandomForestRegressor(200, min_samples_leaf=3, random_state=0)
    ),
    "mixed model, random intercept": MixedLinearRegressor(groups="Subject"),
    "mixed model, random intercept and slope": model,
}
scoring = "neg_root_mean_squared_error"
errors = pd.DataFrame(
    {
        name: {
            "known people": -cross_val_score(
                candidate, X, y, cv=known, scoring=scoring
            ).mean(),
            "new people": -cross_val_score(
                candidate, X, y, groups=X["Subject"], cv=new, scoring=scoring
            ).mean(),
        }
        for name, candidate in candidates.items()
    }
).T
errors.round(1)

# %%
# These are root mean squared errors in milliseconds.
#
# - For known people the mixed model with a random slope is best: it has learned how fast each
#   of them slows down. A column for each person lets levels differ, but not slopes.
# - For new people it falls back on the population line. How other people depart from it does not
#   help, and all the models are equally good.
# - Reporting the first column for a model that will meet new people would be wrong by a factor of
#   almost two. That mistake is common: ``KFold`` is the default of ``cross_val_score``.

# %%
# How sure is a prediction?
# -------------------------
#
# The standard deviation of a new observation knows the difference: for a new person it contains
# the variance between people.

row = X.query("Days == 9").head(1)
cases = pd.concat([row, row.assign(Subject="someone new")])
mean, std = model.predict(cases, return_std=True)
pd.DataFrame(
    {"mean": mean, "std": std}, index=["a known person", "a new person"]
).round(1)

# %%
# Grid search over the random effects
# -----------------------------------
#
# The structure of the random effects is a parameter like any other. Which is best depends on the
# question, so search with the splitter that asks it. For known people:

grid = [
    {"random_slopes": [None]},
    {"random_slopes": [["Days"]], "covariance": ["full", "diagonal"]},
]
search = GridSearchCV(
    MixedLinearRegressor(groups="Subject"), grid, cv=known, scoring=scoring
)
_ = search.fit(X, y)


def results(search):
    """The mean error of every candidate."""
    found = search.cv_results_
    parameters = pd.DataFrame(found["params"]).rename(
        columns=lambda name: name.split("__")[-1]
    )
    return parameters.assign(RMSE=-found["mean_test_score"]).fillna("")


results(search).round(2)

# %%
# For new people all structures predict with the population line, and hardly differ:

search_new = GridSearchCV(
    MixedLinearRegressor(groups="Subject"), grid, cv=new, scoring=scoring
)
_ = search_new.fit(X, y, groups=X["Subject"])
results(search_new).round(2)

# %%
# In a Pipeline
# -------------
#
# Transformers must leave the group column alone. A ``ColumnTransformer`` with
# ``remainder="passthrough"`` and pandas output keeps it and its name. Here the days become a
# spline, and the search chooses how flexible it is.

spline = make_column_transformer(
    (SplineTransformer(degree=3, include_bias=False), ["Days"]),
    ("passthrough", ["Subject"]),
    verbose_feature_names_out=False,
).set_output(transform="pandas")
pipeline = make_pipeline(spline, MixedLinearRegressor(groups="Subject"))
spline_search = GridSearchCV(
    pipeline,
    {"columntransformer__splinetransformer__n_knots": [2, 3, 4, 6]},
    cv=new,
    scoring=scoring,
).fit(X, y, groups=X["Subject"])
results(spline_search).round(2)

# %%
# The curve gains nothing on new people: two knots are a single cubic, and each further knot makes
# it worse. The straight line above has a lower error still.
#
# A new group with a few labelled rows
# ------------------------------------
#
# Between known and new there is a third case: a new person of whom a few days have been seen.
# `update_random_effects` gives BLUPs for that person, without a refit of the model. Each person
# is left out in turn, and the reaction times of days 5 to 9 are predicted after some of the days
# 0 to 4.


def forecasts(person, stops=(0, 1, 2, 3, 4, 5)):
    """Predictions for a person who was not in the fit, after each number of days."""
    mine = X["Subject"] == person
    others = clone(model).fit(X[~mine], y[~mine])
    past, reactions = X[mine], y[mine]
    lines = {0: others.predict(past)}
    for start, stop in pairwise(stops):
        others.update_random_effects(past.iloc[start:stop], reactions.iloc[start:stop])
        lines[stop] = others.predict(past)
    return pd.DataFrame(lines, index=past.index)


predictions = pd.concat([forecasts(person) for person in X["Subject"].unique()])
later = X["Days"] >= 5
squares = predictions[later].sub(y[later], axis="index") ** 2
rmse = (squares.mean() ** 0.5).rename_axis("days seen").rename("RMSE of days 5 to 9")
rmse.round(1).to_frame()

# %%
# One reading helps with the person's level, each further day with the slope. For one of the
# people:

# sphinx_gallery_thumbnail_number = 2
mine = X["Subject"] == 337
figure, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
ax.plot(X.loc[mine, "Days"], y[mine], "o", color="black", label="observed")
for n_days, dashes in [(0, ":"), (2, "--"), (5, "-")]:
    ax.plot(
        X.loc[mine, "Days"],
        predictions.loc[mine, n_days],
        dashes,
        color="black",
        label=f"predicted after {n_days} days",
    )
ax.axvspan(-0.2, 4.5, color="0.93", zorder=0)
ax.set(xlabel="Days", ylabel="Reaction (ms)", title="A new person, day by day")
ax.legend(frameon=False)

# %%
# .. rubric:: References
#
# Belenky, G. et al. (2003). Patterns of performance degradation and restoration during sleep
# restriction and subsequent recovery: a sleep dose-response study. Journal of Sleep Research 12.
