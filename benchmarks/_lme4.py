"""lme4 beside ours: `lmer.R` in a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

SCRIPT = Path(__file__).with_name("lmer.R")


def fit_by_lme4(
    data: pd.DataFrame, formula: str, repeats: int | str, matrix: np.ndarray | None = None
) -> np.ndarray | None:
    """Seconds and criterion of every fit, shape (n_fits, 2); None without R or lme4."""
    if shutil.which("Rscript") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data.csv")
        data.to_csv(path, index=False)
        command = ["Rscript", str(SCRIPT), str(path), formula, str(repeats)]
        if matrix is not None:
            command.append(str(Path(folder, "matrix.csv")))
            pd.DataFrame(matrix).to_csv(command[-1], index=False)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 3:
        return None
    done.check_returncode()
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()]
    return np.array([[float(value.replace("NA", "nan")) for value in row] for row in rows])
