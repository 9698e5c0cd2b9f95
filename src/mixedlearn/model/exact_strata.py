"""Variances of the noise that no rows tell: those of rows that the effects can follow exactly.

A variance of its own has a stratum, an occasion or a value of ``by``; its rows are S. The
likelihood rises for ever as the variance falls where some effects leave these rows no residual,

    rank [X_S, Z_S] = n_S > rank Z_S

whatever the response is and however good another, inner optimum looks. (With Z_S alone of that rank
the variance of the effects keeps that of the response from zero.) The restricted likelihood is
that of the residuals of least squares, and does not depend on the variance at all where these are
zero in S: where all leverages are one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.covariance.residual.correlations import Free
from mixedlearn.data.labels import shown
from mixedlearn.engines.correlated.binding import Binding
from mixedlearn.engines.correlated.problem import CorrelatedProblem
from mixedlearn.engines.correlated.rows import NoiseRows

FloatArray = NDArray[np.float64]

# A leverage is one, and a singular value zero, but for rounding error of this size.
ROUNDING = 1e-8
# Strata of more rows are not looked at beside random effects: these would have to follow all but a
# few of them, and then the few say little of the variance anyway.
MOST_ROWS = 400


def refuse_exact_strata(
    problem: CorrelatedProblem, binding: Binding, noise: NoiseRows, reml: bool
) -> None:
    """Refuse variances of rows that the effects can follow exactly, whatever the response is.

    Raises
    ------
    ValueError
        If there are any; it names the stratum, the occasion or the value of ``by``.
    """
    most = MOST_ROWS if problem.has_effects and not reml else problem.n_fixed
    for name, rows in _strata(binding, noise):
        if not 0 < len(rows) <= most:
            continue
        X, Z = problem.design(rows)
        n = len(rows)
        is_free = bool((np.einsum("ij,ij->i", X, X) > 1.0 - ROUNDING).all())
        counted = f"{n} rows" if n > 1 else "row"
        if is_free:
            raise ValueError(
                f"The variance of the noise of {name} cannot be estimated: the fixed effects "
                f"follow its {counted} exactly, whatever the response is. Join it with another, "
                "leave out the fixed effects that are its own, or leave out the rows."
            )
        if reml or _rank(Z) == n or _rank(np.hstack([X, Z])) < n:
            continue
        who = "fixed and random effects" if Z.shape[1] else "fixed effects"
        raise ValueError(
            f"By maximum likelihood the variance of the noise of {name} cannot be estimated: the "
            f"{who} can follow its {counted} exactly, and the likelihood rises for ever as the "
            "variance falls. Fit by REML (reml=True), join it with another, or leave out effects."
        )


def _strata(binding: Binding, noise: NoiseRows) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """What has a variance of its own, in words, and its rows."""
    names = binding.names
    families: list[tuple[str, pd.Index, NDArray[Any]]] = []
    start = 0
    for name, levels in zip(names.strata, binding.strata, strict=True):
        own = noise.deviations[:, start : start + len(levels) - 1]
        families.append((name, levels, own @ np.arange(1, len(levels))))
        start += len(levels) - 1
    if names.is_heterogeneous or isinstance(binding.correlation, Free):
        assert binding.occasions is not None
        families.append((str(names.time), binding.occasions, noise.occasions))
    if binding.by is not None and not families:
        families.append((str(names.by), binding.by, noise.part))
    for name, levels, codes in families:
        for part in range(len(binding.parts)):
            is_own = noise.part == part
            where = "" if levels is binding.by else binding.of_part(part)
            for code, level in enumerate(levels):
                rows = np.flatnonzero(is_own & (codes == code))
                yield f"{name} {shown(level)}{where}", rows


def _rank(columns: FloatArray) -> int:
    if not columns.shape[1]:
        return 0
    sizes = np.linalg.norm(columns, axis=0)
    sizes[sizes == 0.0] = 1.0
    values = np.linalg.svd(columns / sizes, compute_uv=False)
    return int((values > ROUNDING).sum())
