"""`fit` from a Parquet folder beside pyarrow's bare reading of the same columns: time and memory.

python benchmarks/out_of_core.py                # 1e6, 1e7 and 1e8 rows: about five minutes
python benchmarks/out_of_core.py 1e6 1e7        # some sizes: 1e8 rows take 9 gigabytes of disk

Every program runs in a process of its own, so that its peak of memory is its own, after the files
were read once. The folder is deleted at the end.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from mixedlearn import MixedLinearRegressor

N_COLUMNS, N_GROUPS = 10, 1_000_000
ROWS_OF_FILE, ROWS_OF_GROUP = 10_000_000, 1_000_000


def write(folder: Path, n_rows: int) -> None:
    """Rows of random groups in files of ten million rows."""
    rng = np.random.default_rng(20260101)
    effects = rng.standard_normal(N_GROUPS)
    for number, first in enumerate(range(0, n_rows, ROWS_OF_FILE)):
        writer = None
        for _ in range(0, min(ROWS_OF_FILE, n_rows - first), ROWS_OF_GROUP):
            X = rng.standard_normal((N_COLUMNS, min(ROWS_OF_GROUP, n_rows)))
            groups = rng.integers(0, N_GROUPS, X.shape[1])
            y = X.sum(axis=0) + effects[groups] + rng.standard_normal(X.shape[1])
            columns = {f"x{j}": own for j, own in enumerate(X)}
            table = pa.table({**columns, "user": groups, "y": y})
            writer = writer or pq.ParquetWriter(folder / f"{number:03}.parquet", table.schema)
            writer.write_table(table)
        writer.close()


def fit(folder: str) -> str:
    """Ours: from the path to a fitted model."""
    model = MixedLinearRegressor(groups="user").fit(folder, "y")
    return f"{model.n_groups_['user']:,} groups, {'' if model.converged_ else 'not '}certified"


def read(folder: str) -> str:
    """What pyarrow needs to read the same columns, as it does by itself."""
    return _touch(ds.dataset(folder).scanner())


def read_sparingly(folder: str) -> str:
    """The same as `fit` reads them: without reading whole files ahead, which takes less memory."""
    options = ds.ParquetFragmentScanOptions(pre_buffer=False)
    scanner = ds.dataset(folder).scanner(
        batch_size=1 << 17, batch_readahead=2, fragment_readahead=1, fragment_scan_options=options
    )
    return _touch(scanner)


def _touch(scanner: ds.Scanner) -> str:
    total = 0.0
    for batch in scanner.to_batches():
        total += sum(pc.sum(column).as_py() for column in batch.columns)
    return f"sum {total:.6g}"


def measure(program: Callable[[str], str], folder: Path) -> tuple[float, float, float, str]:
    """Seconds, seconds of all processors, peak of memory in GiB, and what a program says."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (program, str(folder)))


def _measured(program: Callable[[str], str], folder: str) -> tuple[float, float, float, str]:
    start, busy = time.perf_counter(), time.process_time()
    said = program(folder)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in status if line.startswith("VmHWM"))
    return seconds, busy, int(peak.split()[1]) / 2**20, said


def main() -> None:
    """Run all sizes and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="*", type=float, default=[1e6, 1e7, 1e8])
    sizes = [int(own) for own in parser.parse_args().rows]
    packages = ("mixedlearn", "pyarrow", "numpy")
    print(f"Python {platform.python_version()},", ", ".join(f"{p} {version(p)}" for p in packages))
    print("rows  program  seconds  of all processors  peak GiB  x pyarrow's seconds")
    for n_rows in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(folder, n_rows)
            measure(read_sparingly, folder)
            bare = measure(read, folder)
            for program in (read, read_sparingly, fit):
                seconds, busy, peak, said = bare if program is read else measure(program, folder)
                print(
                    f"{n_rows:.0e}  {program.__name__}  {seconds:.2f}  {busy:.2f}  {peak:.2f}  "
                    f"{seconds / bare[0]:.2f}  ({said})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
