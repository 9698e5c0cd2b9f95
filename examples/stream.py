"""
Meters: a fit from Parquet files, and rows that keep coming
===========================================================

Three thousand houses report their use of electricity every few hours. The rows lie in a folder of
Parquet files, one file a month, and another file comes every month. A mixed model needs the rows
only once, as sums, so the folder may be larger than memory, and a new month costs what its own rows
cost. The data are simulated: the truth is known.
"""

# %%
# A folder of files
# -----------------
# The use of a house grows in the cold: by how much, ``cold`` says, the degrees that are missing to
# 18 °C. Houses differ in their level and in their response to cold. Some houses join late.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow.dataset as ds

from mixedlearn import MixedLinearRegressor

rng = np.random.default_rng(0)
n_houses = 3_000
level = rng.normal(0.0, 0.5, n_houses)
response_to_cold = 0.08 + rng.normal(0.0, 0.03, n_houses)
joins = np.where(rng.random(n_houses) < 0.8, 0, rng.integers(1, 12, n_houses))


def readings(month, n=60_000):
    """The readings of one month."""
    present = np.flatnonzero(joins <= month)
    house = rng.choice(present, n)
    season = 9.0 + 9.0 * np.cos(2.0 * np.pi * month / 12.0)
    cold = np.maximum(rng.normal(season, 3.0, n), 0.0)
    use = 3.0 + level[house] + response_to_cold[house] * cold + rng.normal(0.0, 0.8, n)
    names = pd.Series(house).map("house {:04d}".format)
    return pd.DataFrame({"house": names, "cold": cold, "use": use})


temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
for month in range(11):
    readings(month).to_parquet(folder / f"month-{month:02d}.parquet", index=False)

dataset = ds.dataset(folder)
print(f"{dataset.count_rows():,} rows in {len(dataset.files)} files")

# %%
# Fit from the folder
# -------------------
# `fit` takes the path of the folder, or a dataset of pyarrow, and the name of the response. It reads
# batches of the columns that the model needs, and keeps sums.

model = MixedLinearRegressor(groups="house", random_slopes=["cold"])
model.fit(dataset, "use")
model.summary(ddf="normal")

# %%
# The standard deviations that were drawn are 0.5 for the level, 0.03 for the response to cold and
# 0.8 for the noise. The fit is that of the same rows in memory, but for rounding error:

rows = dataset.to_table().to_pandas()
in_memory = MixedLinearRegressor(groups="house", random_slopes=["cold"])
in_memory.fit(rows[["house", "cold"]], rows["use"])
print(
    f"log-likelihoods: {model.log_likelihood_:.6f} and {in_memory.log_likelihood_:.6f}"
)

# %%
# A new month
# -----------
# `partial_fit` adds the rows of a new month. New houses come with it.

december = readings(11)
n_before = model.n_groups_["house"]
model.partial_fit(december[["house", "cold"]], december["use"])
print(f"{n_before:,} houses before, {model.n_groups_['house']:,} now")

# %%
# The model is solved when it is asked for something. It is again that of all rows: no row is
# weighted down because it came late.

everything = pd.concat([rows, december])
again = MixedLinearRegressor(groups="house", random_slopes=["cold"])
again.fit(everything[["house", "cold"]], everything["use"])
print(f"log-likelihoods: {model.log_likelihood_:.6f} and {again.log_likelihood_:.6f}")

# %%
# What the months bring
# ---------------------
# A stream from the first month on shows how estimates settle. Every row is read once; each point is
# a full fit to all rows so far.

stream = MixedLinearRegressor(groups="house", random_slopes=["cold"])
history = []
for path in sorted(folder.glob("*.parquet")):
    batch = pd.read_parquet(path)
    stream.partial_fit(batch[["house", "cold"]], batch["use"])
    error = np.sqrt(stream.coef_covariance_.loc["cold", "cold"])
    history.append(
        {"cold": stream.coef_[0], "error": error, "houses": stream.n_groups_["house"]}
    )
history = pd.DataFrame(history, index=pd.RangeIndex(1, len(history) + 1, name="months"))
history.round(4)

# %%
# Months 5 to 9 are warm: they say little about cold, and the interval hardly shrinks.

_, axes = plt.subplots(figsize=(7, 4))
axes.errorbar(
    history.index, history["cold"], 1.96 * history["error"], fmt="o", capsize=3
)
mean = response_to_cold.mean()
axes.axhline(mean, linestyle="--", color="gray", label="mean of all houses")
axes.set(xlabel="months read", ylabel="use per degree of cold", xticks=history.index)
axes.legend()
plt.tight_layout()

# %%
# Which houses lose heat?
# -----------------------
# The BLUPs of the slopes rank the houses. A house that joined late is drawn towards the mean, since
# little is known of it.

slopes = model.random_effects_["house"]["cold"]
truth = pd.Series(
    response_to_cold - 0.08, index=[f"house {i:04d}" for i in range(n_houses)]
)
worst = slopes.nlargest(100).index
print(f"correlation with the truth: {slopes.corr(truth[slopes.index]):.3f}")
print(
    f"of the 100 houses named, {(truth[worst] > 0.03).sum()} are among the worst sixth"
)

# %%
# The folder was temporary.

temporary.cleanup()
