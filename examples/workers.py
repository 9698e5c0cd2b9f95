"""
Workers and firms
=================

Some firms pay more than others for the same work. How much of the variance of wages is the worker, how
much the firm? Workers who move tell the two apart (Abowd, Kramarz and Margolis, 1999). The usual
estimate by dummies for all workers and firms is biased where few move: it overstates the variance of
firms. A mixed model is not, as long as its assumption holds that good workers are not found in good
firms more than elsewhere. The page shows both, with synthetic wages whose truth is known.
"""

# %%
# The data
# --------
#
# Fifty thousand workers earn six yearly wages each, in logarithms. A quarter of them move once. Sizes of
# firms are log-normal, so that many of the 5,000 firms have a handful of workers. ``sorting`` is zero for
# now: firms and workers meet at random.

import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.sparse import coo_array, diags_array, hstack
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import lsqr, norm
from sklearn.base import clone

from mixedlearn import MixedLinearRegressor

N_WORKERS, N_FIRMS, N_YEARS = 50_000, 5_000, 6


def wages(sorting=0.0, seed=0):
    """Wages, with the true effects of their worker and firm beside them."""
    rng = np.random.default_rng(seed)
    worker_effect = rng.normal(0.0, 0.5, N_WORKERS)
    firm_effect = rng.normal(0.0, 0.2, N_FIRMS)
    size = rng.lognormal(sigma=1.6, size=N_FIRMS)
    size = np.minimum(size / size.sum(), 0.01)

    def with_noise(effect):
        """A ranking that follows the effect as far as there is sorting."""
        noise = rng.standard_normal(len(effect))
        return np.sqrt(sorting) * effect / effect.std() + np.sqrt(1 - sorting) * noise

    def employer():
        """A firm for each worker: both stand in a queue, the best at the end."""
        firms = np.argsort(with_noise(firm_effect))
        places = np.cumsum(size[firms]) / size.sum()
        queue = (np.argsort(np.argsort(with_noise(worker_effect))) + 0.5) / N_WORKERS
        return firms[np.searchsorted(places, queue)]

    first, second = employer(), employer()
    moves = rng.random(N_WORKERS) < 0.25
    last_year = np.where(moves, rng.integers(1, N_YEARS, N_WORKERS), N_YEARS)
    worker = np.repeat(np.arange(N_WORKERS), N_YEARS)
    year = np.tile(np.arange(N_YEARS), N_WORKERS)
    firm = np.where(year < last_year[worker], first[worker], second[worker])
    noise = rng.normal(0.0, 0.3, len(worker))
    return pd.DataFrame(
        {
            "worker": worker,
            "firm": firm,
            "year": year,
            "wage": 3.0
            + 0.02 * year
            + worker_effect[worker]
            + firm_effect[firm]
            + noise,
            "true worker": worker_effect[worker],
            "true firm": firm_effect[firm],
        }
    )


# %%
# Dummies can only compare firms that movers connect. So, as is usual, all that follows is about the
# largest set of connected firms, which loses the smallest ones.


def indicators(codes):
    """A column of zeros and ones for each level, codes being 0, 1, 2, ..."""
    return coo_array((np.ones(len(codes)), (np.arange(len(codes)), codes))).tocsr()


def connected(frame):
    """The rows of the largest set of firms that are connected by movers."""
    codes, _ = pd.factorize(frame["firm"])
    meetings = indicators(frame["worker"]).T @ indicators(codes)
    component = connected_components(meetings.T @ meetings)[1][codes]
    return frame[component == np.bincount(component).argmax()].reset_index(drop=True)


data = connected(wages())
firms = data.groupby("firm")["worker"].nunique()
firms_of_worker = data.groupby("worker")["firm"].nunique()
movers = firms_of_worker.index[firms_of_worker > 1]
pd.Series(
    {
        "rows": len(data),
        "workers": data["worker"].nunique(),
        "movers": len(movers),
        "firms": len(firms),
        "firms with at most five workers": (firms <= 5).sum(),
    }
).to_frame("number")

# %%
# The mixed model
# ---------------
#
# Both factors are large. The stochastic solver needs no dense matrix of firms by firms, so that the same
# lines fit more than a million workers in a hundred thousand firms (``benchmarks/crossed.py``).

model = MixedLinearRegressor(
    groups=["worker", "firm"], solver="stochastic", random_state=0
)
columns = ["worker", "firm", "year"]
start = time.perf_counter()
model.fit(data[columns], data["wage"])
print(f"{time.perf_counter() - start:.1f} s")
model.summary(std_error=True)

# %%
# The effects and the noise were drawn with variances 0.25, 0.04 and 0.09. The estimates are within two
# standard errors of these, and the Monte Carlo errors are smaller than a hundredth of a standard error.
#
# Least squares with dummies
# --------------------------
#
# The alternative takes all effects as fixed: a column of zeros and ones for each worker and each
# firm, and least squares. `scipy.sparse.linalg.lsqr` does this; columns of equal length
# help it to converge.


def least_squares(frame):
    """Effects of the worker and of the firm of each row, by dummies."""
    workers, _ = pd.factorize(frame["worker"])
    firms, _ = pd.factorize(frame["firm"])
    year = (frame["year"] - frame["year"].mean()).to_numpy()[:, None]
    design = hstack([indicators(workers), indicators(firms), coo_array(year)]).tocsr()
    lengths = norm(design, axis=0)
    found = lsqr(
        design @ diags_array(1.0 / lengths),
        frame["wage"] - frame["wage"].mean(),
        atol=1e-8,
        btol=1e-8,
        iter_lim=3_000,
    )
    coefs = found[0] / lengths
    effects = {"worker": coefs[workers], "firm": coefs[workers.max() + 1 + firms]}
    return pd.DataFrame(effects).sub(pd.DataFrame(effects).mean())


dummies = least_squares(data)

# %%
# Who explains the variance of wages?
# -----------------------------------
#
# The plug-in estimate is the variance of the estimated effects over the rows, as if they were the
# effects. But each is the effect plus an error, and the variance of the errors comes on top. It is large
# for firms, because the dummies learn about a firm from the wages of its movers alone, and most firms
# have few. BLUPs err in the other direction: they are drawn to zero, so their variance is too small. The
# estimate of the mixed model is neither; it is the parameter of the likelihood.


def blups(fitted, frame):
    """BLUPs of the worker and of the firm of each row."""
    return pd.DataFrame(
        {
            name: frame[name].map(effects["intercept"])
            for name, effects in fitted.random_effects_.items()
        }
    )


def decomposition(fitted, frame, by_dummies):
    """Variances by all ways, and the correlation of the effects over the rows."""
    truth = frame[["true worker", "true firm"]].set_axis(["worker", "firm"], axis=1)
    ways = {"truth": truth, "dummies": by_dummies, "BLUPs": blups(fitted, frame)}
    table = {name: [*own.var(), own.corr().iloc[0, 1]] for name, own in ways.items()}
    estimates = [own.iloc[0, 0] for own in fitted.covariances_.values()]
    table["mixed model"] = [*estimates, np.nan]
    rows = ["worker variance", "firm variance", "correlation"]
    return pd.DataFrame(table, index=rows).T


shares = decomposition(model, data, dummies)
shares.round(3)

# %%
# The truth is that of the effects which the rows have. A few large firms hold many of the rows, and their
# effects happen to differ by a little more than 0.04. The mixed model estimates the variance of a firm
# drawn at random.
#
# Dummies overstate the variance of the firms and find a negative correlation where there is none:
# a firm that looks too good makes its workers look too bad. This is called limited-mobility
# bias (Andrews et al., 2008). More workers who stay do not help, since their dummies take up all that
# they say about the firm. More moves for each firm do. Here are the same data with half of the movers:

is_kept = ~data["worker"].isin(movers) | (data["worker"] % 2 == 0)
fewer = connected(data[is_kept])
fewer_model = clone(model).fit(fewer[columns], fewer["wage"])
fewer_shares = decomposition(fewer_model, fewer, least_squares(fewer))
fewer_shares.round(3)

# %%
# The plug-in variance is further off, and so is the correlation. The mixed model is where it was.
#
# The effects of firms
# --------------------
#
# One point for each firm. Small firms are spread by noise in the dummies, and drawn to zero in the
# BLUPs.

by_firm = (
    pd.DataFrame(
        {
            "truth": data["true firm"],
            "dummies": dummies["firm"],
            "BLUP": blups(model, data)["firm"],
        }
    )
    .groupby(data["firm"])
    .first()
)
is_small = firms <= 5
figure, axes = plt.subplots(
    1, 2, figsize=(8.5, 4.3), sharex=True, sharey=True, layout="constrained"
)
for ax, column in zip(axes, ["dummies", "BLUP"], strict=True):
    for which, style, color, label in [
        (is_small, "x", "black", "at most five workers"),
        (~is_small, ".", "#0072B2", "more workers"),
    ]:
        ax.plot(
            by_firm.loc[which, "truth"],
            by_firm.loc[which, column],
            style,
            color=color,
            markersize=3,
            label=label,
        )
    ax.axline((0, 0), slope=1, color="0.6", linewidth=1)
    ax.set(xlabel="true effect of the firm", title=column)
axes[0].set_ylabel("estimate")
axes[1].legend(frameon=False, markerscale=2)

# %%
# The root mean squared errors of the estimated firm effects:

firm_errors = (
    by_firm[["dummies", "BLUP"]]
    .sub(by_firm["truth"], axis="index")
    .pow(2)
    .groupby(is_small.map({True: "at most five workers", False: "more workers"}))
    .mean()
    .pow(0.5)
)
firm_errors.round(3)

# %%
# Where the assumption fails: sorting
# -----------------------------------
#
# Random effects are taken to be independent of each other. So the model reads a firm whose workers all
# earn much as a firm that pays much. If good workers gather in good firms, the firm gets credit that
# is due to its workers. Here are wages with sorting.

sorted_data = connected(wages(sorting=0.25))
sorted_model = clone(model).fit(sorted_data[columns], sorted_data["wage"])
sorted_shares = decomposition(sorted_model, sorted_data, least_squares(sorted_data))
sorted_shares.round(3)

# %%
# Now the mixed model is wrong, and far more than the dummies: it overstates the variance of firms and
# understates that of workers. The correlation of BLUPs is no estimate of the true one, even if it is
# near it here: the BLUPs come from a model in which it is zero. But it is a warning, as it is far from
# zero, which it was not in the first table. Nothing in the summary says so. Standard errors hold for the
# model, and the model does not hold.
#
# Do movers gain what the model says?
# -----------------------------------
#
# There is a check that does not rest on the assumption. Leave out some movers, and predict by how much
# their wages change from the BLUPs of their two firms. The worker's own effect cancels in the
# change. If the model holds, the slope of the actual changes on the predicted ones is one, since BLUPs
# are what to expect given the data. If firms get credit for their workers, it is less. (Like the dummies,
# the check assumes that nobody moves because of this year's noise.)


def changes_of_movers(frame):
    """Actual and predicted changes of wages, of movers who were not in the fit."""
    n_firms = frame.groupby("worker")["firm"].transform("nunique")
    is_out = (n_firms > 1) & (frame["worker"] % 4 == 0)
    rest = frame[~is_out]
    fitted = clone(model).fit(rest[columns], rest["wage"])
    out = frame[is_out]
    # The workers are new, so that the prediction has the effects of year and firm alone.
    out = out.assign(predicted=fitted.predict(out[columns]))
    jobs = out.groupby(["worker", "firm"], sort=False)[["wage", "predicted"]].mean()
    by_worker = jobs.groupby("worker", sort=False)
    return by_worker.last() - by_worker.first()


changes = {
    "at random": changes_of_movers(data),
    "with sorting": changes_of_movers(sorted_data),
}
slopes = pd.Series(
    {
        name: np.polyfit(own["predicted"], own["wage"], 1)[0]
        for name, own in changes.items()
    }
)
slopes.round(2).to_frame("slope")

# %%

figure, axes = plt.subplots(
    1, 2, figsize=(8.5, 4.3), sharex=True, sharey=True, layout="constrained"
)
for ax, (name, own) in zip(axes, changes.items(), strict=True):
    bins = pd.qcut(own["predicted"], 20)
    means = own.groupby(bins, observed=True).mean()
    ax.plot(means["predicted"], means["wage"], "o", color="#0072B2")
    ax.axline((0, 0), slope=1, color="0.6", linewidth=1, label="slope one")
    ax.set(xlabel="predicted change of the wage", title=name)
axes[0].set_ylabel("actual change (means of 20 classes)")
axes[0].legend(frameon=False)

# %%
# With sorting, movers gain two thirds of what the model predicts.
#
# Which estimate to trust
# -----------------------
#
# - If the slope is one, the mixed model gives variances without limited-mobility bias, with standard
#   errors, and the better estimates of single firms.
# - If it is less than one, do not report the variances of the mixed model. What workers are sorted by may
#   be known: schooling, occupation, age. As fixed effects they take the sorting out of the
#   random effects, and the check says whether that is enough.
# - Otherwise use dummies with a correction for their bias, that of Andrews et al. (2008), or that of
#   Kline, Saggio and Sølvsten (2020) where the variance of the noise differs from row to row.
#
# .. rubric:: References
#
# Abowd, J. M., Kramarz, F. & Margolis, D. N. (1999). High wage workers and high wage firms.
# Econometrica 67, 251-333.
#
# Andrews, M. J., Gill, L., Schank, T. & Upward, R. (2008). High wage workers and low wage firms:
# negative assortative matching or limited mobility bias? Journal of the Royal Statistical Society A
# 171, 673-697.
#
# Kline, P., Saggio, R. & Sølvsten, M. (2020). Leave-out estimation of variance components.
# Econometrica 88, 1859-1898.
