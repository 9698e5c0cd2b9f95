"""
Mixed effects as features of another model
==========================================

A mixed model need not be the last step. Its BLUPs are an encoding of a category with many levels:
one number for each level, drawn to zero where there are few rows. Gradient boosting on top of them
can find what a linear model misses, and each does what it is good at. The page puts the two
together in one scikit-learn estimator.
"""

# %%
# Data: sales with a curve, in many shops
# ---------------------------------------
#
# We generate 3,000 sales in 300 shops, 40 of which happen to sell nothing. A shop has its own
# level; price and season act in a way that is not linear; shops are of very different size, as they
# are in life.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import TargetEncoder

from mixedlearn import MixedLinearRegressor

rng = np.random.default_rng(0)
n_rows, n_shops = 3000, 300
sizes = rng.pareto(1.5, n_shops) + 0.2
shops = rng.choice(n_shops, n_rows, p=sizes / sizes.sum())
price, season = rng.uniform(1, 5, n_rows), rng.uniform(0, 1, n_rows)
level = rng.normal(0, 2, n_shops)
signal = 8 / price + 1.5 * np.sin(2 * np.pi * season) * (price < 3) + level[shops]
X = pd.DataFrame(
    {"shop": [f"shop {k}" for k in shops], "price": price, "season": season}
)
y = pd.Series(signal + rng.normal(0, 2, n_rows), name="sales")
counts = X["shop"].value_counts()
counts.describe(percentiles=[0.5]).round(0)

# %%
# The transformer
# ---------------
#
# `BlupEncoder` replaces the column of a grouping factor by the BLUPs of a mixed model. The BLUP
# of a shop has seen the sale that it is to explain, and a model trained on it might trust it too
# much, above all in small shops. So `fit_transform`, which a Pipeline calls on the training rows,
# can compute BLUPs out of fold, as scikit-learn's ``TargetEncoder`` does with its means.


class BlupEncoder(TransformerMixin, BaseEstimator):
    """Random effects of a mixed model in place of the labels of its groups."""

    def __init__(self, model, out_of_fold=True):
        self.model = model
        self.out_of_fold = out_of_fold

    def fit(self, X, y):
        """Fit the mixed model."""
        self.model_ = clone(self.model).fit(X, y)
        return self

    def transform(self, X):
        """Replace the group column by the random effect of its level."""
        effect = self.model_.predict(X) - self.model_.predict(X, random_effects="none")
        return X.drop(columns=self.model.groups).assign(random_effect=effect)

    def fit_transform(self, X, y):
        """Fit the model, and encode every row by a model that has not seen it."""
        if not self.out_of_fold:
            return self.fit(X, y).transform(X)
        folds = KFold(5, shuffle=True, random_state=0)
        parts = pd.concat(
            [
                clone(self).fit(X.iloc[train], y.iloc[train]).transform(X.iloc[test])
                for train, test in folds.split(X)
            ]
        )
        self.fit(X, y)
        return parts.loc[X.index]


# %%
# Which is best?
# --------------
#
# The mixed model alone is linear in price and season. Boosting alone knows no shops, or knows
# them by the means of their sales, which is what target encoding is.

boosting = HistGradientBoostingRegressor(max_iter=60, random_state=0)
mixed = MixedLinearRegressor(groups="shop")
without_shop = make_column_transformer(("passthrough", ["price", "season"]))
target_encoded = make_column_transformer(
    (TargetEncoder(), ["shop"]), remainder="passthrough"
)
candidates = {
    "mixed model": mixed,
    "boosting without the shop": make_pipeline(without_shop, boosting),
    "boosting with target encoding": make_pipeline(target_encoded, boosting),
    "boosting with BLUPs of the same rows": make_pipeline(
        BlupEncoder(mixed, out_of_fold=False), boosting
    ),
    "boosting with BLUPs": make_pipeline(BlupEncoder(mixed), boosting),
}
scoring = "neg_root_mean_squared_error"
errors = pd.DataFrame(
    {
        name: {
            "known shops": -cross_val_score(
                candidate,
                X,
                y,
                cv=KFold(5, shuffle=True, random_state=1),
                scoring=scoring,
            ).mean(),
            "new shops": -cross_val_score(
                candidate, X, y, groups=X["shop"], cv=GroupKFold(5), scoring=scoring
            ).mean(),
        }
        for name, candidate in candidates.items()
    }
).T
errors.round(3)

# %%
# These are root mean squared errors; the noise has a standard deviation of two, so in the long run
# nothing can do better than that. For known shops, boosting with BLUPs beats both of its parts and
# the target encoding. For new shops all have to do without the shop, and boosting with BLUPs loses
# nothing by the extra column: a new shop's random effect is zero, the mean of all shops.
#
# BLUPs of the same rows do no harm here, they are even a little better: a BLUP is drawn to zero the
# more, the more a single row could do to it. The mixed model sees only straight lines in price and
# season; better fixed effects (a spline, as in :ref:`sphx_glr_auto_examples_cross_validation.py`)
# would make better BLUPs.
#
# What a shop is worth
# --------------------
#
# The encoded column against the truth, which we know since we made the data. Small shops are
# drawn to zero: of them there is little to know.

encoder = BlupEncoder(mixed).fit(X, y)
every_shop = pd.DataFrame(
    {"shop": counts.index, "price": price.mean(), "season": season.mean()}
)
effects = encoder.transform(every_shop)["random_effect"].to_numpy()
truth = level[counts.index.str.removeprefix("shop ").astype(int)]
figure, ax = plt.subplots(figsize=(6, 4.5), layout="constrained")
small = counts.to_numpy() <= 3
ax.plot(
    truth[~small], effects[~small], "o", color="#0072B2", label="more than three sales"
)
ax.plot(truth[small], effects[small], "x", color="black", label="one to three sales")
ax.axline((0, 0), slope=1, color="0.6", linewidth=1)
ax.set(xlabel="true level of the shop", ylabel="BLUP", title="Shops in the fit")
ax.legend(frameon=False)
