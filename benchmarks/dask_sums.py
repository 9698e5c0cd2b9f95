"""What a Dask fit sends to the client, and how long it takes, beside one fit of the same rows.

python benchmarks/dask_sums.py    # half a minute; needs pip install "mixedlearn[dask]"
"""

from __future__ import annotations

import os
import pickle
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from time import perf_counter

import dask.array as da
import numpy as np
from distributed import Client, LocalCluster, wait
from distributed.comm import tcp

from mixedlearn import MixedLinearRegressor
from mixedlearn.dask import DaskMixedLinearRegressor
from mixedlearn.inference import variance_table

N_COLUMNS, N_PARTITIONS = 5, 20
# Rows and levels: first more rows, then more levels.
CASES = (
    (100_000, 1_000),
    (1_000_000, 1_000),
    (10_000_000, 1_000),
    (1_000_000, 10_000),
    (1_000_000, 100_000),
)


@contextmanager
def counted_bytes() -> Iterator[list[int]]:
    """Bytes that this process receives: it has the client and the scheduler, workers are others."""
    received = [0]
    read = tcp.from_frames

    async def counting(frames: list, *args: object, **kwargs: object) -> object:
        received[0] += sum(memoryview(frame).nbytes for frame in frames)
        return await read(frames, *args, **kwargs)

    tcp.from_frames = counting
    try:
        yield received
    finally:
        tcp.from_frames = read


def make_rows(n_rows: int, n_levels: int) -> tuple[da.Array, da.Array, da.Array]:
    """Columns, response and labels, on the workers."""
    random = da.random.default_rng(20260101)
    chunk = n_rows // N_PARTITIONS
    X = random.standard_normal((n_rows, N_COLUMNS), chunks=(chunk, N_COLUMNS))
    labels = random.integers(0, n_levels, n_rows, chunks=chunk)
    effects = np.random.default_rng(0).standard_normal(n_levels)
    y = X.sum(axis=1) + labels.map_blocks(lambda own: effects[own], dtype=float)
    y += random.standard_normal(n_rows, chunks=chunk)
    rows = tuple(own.persist() for own in (X, y, labels))
    wait(rows)
    return rows


def compare(client: Client, n_rows: int, n_levels: int) -> None:
    """One line of the table."""
    X, y, labels = make_rows(n_rows, n_levels)
    model = DaskMixedLinearRegressor(client=client)
    model.fit(X, y, groups=labels)  # once for the imports of the workers
    with counted_bytes() as received:
        begun = perf_counter()
        model.fit(X, y, groups=labels)
        split = perf_counter() - begun
    X, y, labels = (own.compute() for own in (X, y, labels))
    begun = perf_counter()
    whole = MixedLinearRegressor().fit(X, y, groups=labels)
    at_once = perf_counter() - begun
    sums = len(pickle.dumps(model.__mixedlearn_fitted__().model_of_fit.sums))
    variances = [variance_table(own)["variance"].to_numpy() for own in (model, whole)]
    apart = np.abs(variances[0] / variances[1] - 1.0).max()
    print(
        f"{n_rows:>10,} {n_levels:>8,} {X.nbytes / 1e6:>9.1f} {received[0] / 1e6:>9.2f} "
        f"{sums / 1e6:>9.2f} {split:>8.2f} {at_once:>8.2f} {apart:>9.0e}"
    )


def main() -> None:
    """Run all cases and print the table."""
    packages = ("mixedlearn", "dask", "distributed", "numpy")
    print(f"Python {platform.python_version()},", ", ".join(f"{p} {version(p)}" for p in packages))
    print("      rows   levels   MB of X  MB to us  MB of sums  s, Dask  s, once    differ")
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        for case in CASES:
            compare(client, *case)


if __name__ == "__main__":
    # Workers are processes of this script.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    warnings.simplefilter("ignore", UserWarning)
    main()
