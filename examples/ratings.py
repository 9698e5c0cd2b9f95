"""
Ratings: users and items
========================

Half a million ratings of 8,000 items by 20,000 users, most of whom rate little. Which items are the
best, and how will a user like an item? Averages answer both questions badly where there are few
ratings. A mixed model with a random effect for each user and each item draws such averages towards
the mean, by as much as the data say. The data are synthetic, so that the truth is known, but their
numbers of ratings are as skewed as those of real collections.
"""

# %%
# The data
# --------
#
# The popularity of an item and the activity of a user are log-normal: a few have a thousand ratings,
# half of them a dozen or so at most. A rating is the sum of the item's quality, the user's leniency and
# noise, rounded to half stars between half a star and five.

import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.sparse import coo_array, hstack
from scipy.sparse.linalg import lsqr
from sklearn.metrics import root_mean_squared_error

from mixedlearn import MixedLinearRegressor

rng = np.random.default_rng(20260201)
n_ratings, n_users, n_items = 560_000, 20_000, 8_000


def draw(n_levels, sigma, largest):
    """Levels of the ratings, none of which has more than the largest share."""
    shares = rng.lognormal(sigma=sigma, size=n_levels)
    for _ in range(20):
        shares = np.minimum(shares / shares.sum(), largest)
    return rng.choice(n_levels, n_ratings, p=shares / shares.sum())


pairs = pd.DataFrame(
    {"user": draw(n_users, 1.3, 0.003), "item": draw(n_items, 2.2, 0.0035)}
)
X = pairs.drop_duplicates(ignore_index=True)
leniency = rng.normal(0.0, 0.4, n_users)
quality = rng.normal(0.0, 0.5, n_items)
noise = rng.normal(0.0, 0.85, len(X))
stars = 3.5 + leniency[X["user"]] + quality[X["item"]] + noise
y = pd.Series(np.clip(np.round(2.0 * stars) / 2.0, 0.5, 5.0), name="rating")
pd.DataFrame(
    {name: X[name].value_counts().describe() for name in ("user", "item")}
).round(0)

# %%
# Rows are held out in two ways. The ratings of 5 percent of the users are kept back entirely: these
# are new users. Of the others, one rating in ten is kept back: these are known users, and the items
# may have any number of ratings.

is_new = np.isin(X["user"], rng.choice(n_users, n_users // 20, replace=False))
is_held_out = ~is_new & (rng.random(len(X)) < 0.1)
is_training = ~is_new & ~is_held_out
X_train, y_train = X[is_training], y[is_training]
len(X_train)

# %%
# The fit
# -------
#
# The two factors are crossed. The exact solver eliminates the users and keeps a dense matrix with a
# row for each item. That is affordable here, but it grows with the square of the number of items.
# ``solver="stochastic"`` needs no such matrix: it solves the equations by iteration. `describe` says
# so before the fit.

model = MixedLinearRegressor(
    groups=["user", "item"], solver="stochastic", random_state=0
)
print(model.describe(X_train))

# %%

start = time.perf_counter()
model.fit(X_train, y_train)
print(f"{time.perf_counter() - start:.1f} s")

# %%
# The summary has two kinds of error. ``std_error`` is what other data would change.
# ``monte_carlo_error`` is what another ``random_state`` would change, since the solver estimates the
# traces in the derivatives of the likelihood with random signs.

model.summary(std_error=True)

# %%
# The Monte Carlo errors are less than a hundredth of the standard errors, so they do not matter. They
# are also in ``monte_carlo_errors_``. The deviance has a larger one: a likelihood ratio test of two
# such fits warns if its statistic drowns in it.
#
# As a check, here are the ratings of 1,000 users, fitted by both solvers. The BLUPs differ by the
# difference of the variances alone.

few = X_train["user"].isin(
    X_train["user"].drop_duplicates().sample(1_000, random_state=0)
)
by_solver = {
    solver: MixedLinearRegressor(
        groups=["user", "item"], solver=solver, random_state=0
    ).fit(X_train[few], y_train[few])
    for solver in ("exact", "stochastic")
}
solvers = pd.DataFrame(
    {
        solver: fitted.summary().random_effects["variance"]
        for solver, fitted in by_solver.items()
    }
)
solvers["std_error"] = (
    by_solver["exact"].summary(std_error=True).random_effects["std_error"]
)
solvers.round(6)

# %%

apart = max(
    (by_solver["exact"].random_effects_[name] - effects).abs().to_numpy().max()
    for name, effects in by_solver["stochastic"].random_effects_.items()
)
print(f"The BLUPs differ by {apart:.1e} stars at most.")

# %%
# The best items
# --------------
#
# By raw mean the best items are those with a rating or two, all of them five stars. That is chance. By
# BLUP they are items that many users have rated highly. ``quality`` is the truth, which an analyst does
# not have.

items = y_train.groupby(X_train["item"]).agg(["count", "mean"])
items["BLUP"] = model.intercept_ + model.random_effects_["item"]["intercept"]
items["quality"] = 3.5 + quality[items.index]
top = pd.concat(
    {
        "by raw mean": items.nlargest(8, "mean").reset_index(),
        "by BLUP": items.nlargest(8, "BLUP").reset_index(),
    },
    axis=1,
)
top.round(2)

# %%
# Of the hundred items at the top of each list, this is the mean of the true qualities, and the number
# that are among the truly best hundred:

best = set(items.nlargest(100, "quality").index)
lists = {by: items.nlargest(100, by) for by in ("mean", "BLUP", "quality")}
quality_of_lists = pd.DataFrame(
    {
        by: {
            "true quality": own["quality"].mean(),
            "among the best": len(best & set(own.index)),
        }
        for by, own in lists.items()
    }
).T
quality_of_lists.round(2)

# %%
# The reason is in the picture. Raw means fan out where there are few ratings: the spread on the left
# is noise. BLUPs do the opposite. An item about which nothing is known is put at the mean.

figure, axes = plt.subplots(
    1, 2, figsize=(8.5, 4), sharex=True, sharey=True, layout="constrained"
)
for ax, column, title in [(axes[0], "mean", "raw mean"), (axes[1], "BLUP", "BLUP")]:
    ax.plot(items["count"], items[column], ".", color="#0072B2", markersize=2)
    ax.axhline(model.intercept_, color="black", linewidth=1)
    ax.set(xscale="log", xlabel="ratings of the item", title=title)
axes[0].set_ylabel("stars")

# %%
# An item with n ratings keeps about n / (n + noise variance / item variance) of the distance of its
# raw mean from the overall mean. Half is kept at

variances = {name: own.iloc[0, 0] for name, own in model.covariances_.items()}
half = model.noise_variance_ / variances["item"]
print(f"{half:.1f} ratings.")

# %%
# That is a rule of thumb. BLUPs also allow for who rated: five stars from a user who is strict are
# worth more.
#
# Held-out ratings
# ----------------
#
# The candidates are the global mean, the item's mean, fixed means for users and items together by
# least squares (a column of zeros and ones for each), and the mixed model. Where one of them knows
# nothing it falls back: an item that has no training rows gets the mean of all ratings.


def indicators(codes, n):
    """A column of zeros and ones for each level."""
    return coo_array(
        (np.ones(len(codes)), (np.arange(len(codes)), codes)), (len(codes), n)
    )


design = hstack(
    [indicators(X_train["user"], n_users), indicators(X_train["item"], n_items)]
).tocsr()
mean = y_train.mean()
coefs = lsqr(design, y_train - mean, atol=1e-7, btol=1e-7, iter_lim=500)[0]
user_means, item_means = coefs[:n_users], coefs[n_users:]


def predictions(rows):
    """The predictions of all candidates."""
    return pd.DataFrame(
        {
            "global mean": mean,
            "item mean": rows["item"].map(items["mean"]).fillna(mean),
            "user and item means": mean
            + user_means[rows["user"]]
            + item_means[rows["item"]],
            "mixed model": model.predict(rows),
        },
        index=rows.index,
    )


def errors_of(which):
    """Root mean squared errors of all candidates."""
    return predictions(X[which]).apply(
        lambda own: root_mean_squared_error(y[which], own)
    )


errors = pd.DataFrame(
    {"known users": errors_of(is_held_out), "new users": errors_of(is_new)}
)
errors.round(4)

# %%
# For known users, the mixed model is best. The fixed means use the same information, but pay for
# every level that has few rows. For new users only the item is known. Most ratings are of items with many
# ratings, so that the last three candidates are nearly equal. The noise alone, which nothing can predict,
# has a standard deviation of

print(f"{model.noise_variance_**0.5:.4f}")

# %%
# The gain is where the data are thin. Here are the known users again, by the number of ratings that
# the user or the item has in the training rows, whichever is smaller:

sizes = [X_train[name].value_counts() for name in ("user", "item")]
fewest = np.minimum(
    X["user"].map(sizes[0]).fillna(0), X["item"].map(sizes[1]).fillna(0)
)
classes = pd.cut(
    fewest, [-1, 2, 5, 10, 30, np.inf], labels=["0-2", "3-5", "6-10", "11-30", "more"]
)
by_size = pd.DataFrame(
    {
        label: errors_of(is_held_out & (classes == label))
        for label in classes.cat.categories
    }
).T
by_size.round(3)

# %%

figure, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
styles = {"item mean": ":s", "user and item means": "--^", "mixed model": "-o"}
for name, style in styles.items():
    color = "#0072B2" if name == "mixed model" else "black"
    ax.plot(by_size.index, by_size[name], style, color=color, label=name)
ax.axhline(model.noise_variance_**0.5, color="0.6", linewidth=1, label="noise")
ax.set(xlabel="ratings of user or item, the fewer", ylabel="RMSE (stars)")
ax.legend(frameon=False)

# %%
# How sure is a prediction?
# -------------------------
#
# ``return_std`` gives the standard deviation of a new rating. It is larger if the user or the item
# is little known, and largest if both are new.

often, seldom = (
    (sizes[1].idxmax(), sizes[0].idxmax()),
    (sizes[1].idxmin(), sizes[0].idxmin()),
)
cases = pd.DataFrame(
    [(often[1], often[0]), (seldom[1], often[0]), (seldom[1], seldom[0]), (-1, -1)],
    columns=["user", "item"],
    index=[
        "both well known",
        "user with one rating",
        "both with one rating",
        "both new",
    ],
)
rating, std = model.predict(cases, return_std=True)
certainty = pd.DataFrame({"rating": rating, "std": std}, index=cases.index)
certainty.round(3)

# %%
# A new user who has rated
# ------------------------
#
# `update_random_effects` takes ratings of new users into the model without a refit. Here each new
# user with at least 20 ratings has the first five taken in, and the others are predicted.

new = X[is_new]
place = new.groupby("user").cumcount()
has_enough = new.groupby("user")["user"].transform("size") >= 20
first, later = new[has_enough & (place < 5)], new[has_enough & (place >= 5)]
before = root_mean_squared_error(y[later.index], model.predict(later))
model.update_random_effects(first, y[first.index])
after = root_mean_squared_error(y[later.index], model.predict(later))
pd.Series({"no rating": before, "five ratings": after}, name="RMSE").round(4).to_frame()

# %%
# What the model does not know
# ----------------------------
#
# In these data, who rates what is independent of the ratings. In real ones it is not: people choose
# items that they expect to like, and good items become popular. An item with few ratings is then
# worse than the mean, and should be drawn to a lower value. A fixed effect of the logarithm of the
# number of ratings lets the model do that. Nor does a model of two main effects know tastes: that
# this user likes this kind of item goes into the noise.
