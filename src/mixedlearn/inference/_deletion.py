"""Deletion of cases: the fixed effects, and the variances, without some rows.

Notation
--------
In the engine's columns and rows scaled by the roots of their weights. Leaving rows R out is the
same as giving each of them a fixed effect of its own, so for fixed variance components
(Christensen, Pearson & Johnson 1992), with P = V^-1 - V^-1 X H^-1 X'V^-1,

    beta(R) = beta - H^-1 (X'V^-1)_R (P_RR)^-1 (P y)_R

For one row, ``P_RR = 1 - h`` and ``(P y)_R`` is the conditional residual. With the noise covariance
R of a residual structure ``P_RR = (R^-1)_RR - q`` with q of the row's ``R^-1 [Z X]`` (`residuals`),
and ``(P y)_R`` is ``R^-1`` times the conditional residuals. For a level i of the only
factor, what the level adds to ``H = X'V^-1 X`` is taken away:

    H(i) = H - X_i'V_i^-1 X_i,     beta(i) = beta - H(i)^-1 X_i'V_i^-1 (y_i - X_i beta)

where ``V_i^-1 = I - Z_i C_i Z_i'`` with C_i the covariance of the level's effects given the
response. Otherwise the sums of the case's rows are taken from those of all rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.remainders import Remainders
from mixedlearn.data.rows import CodedRows
from mixedlearn.data.sums import Sums
from mixedlearn.engines.problem import make_problem
from mixedlearn.inference.residuals import conditional_residuals, row_leverage
from mixedlearn.model.fit import engine_theta, refit
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.row_noise import RowNoise

FloatArray = NDArray[np.float64]

# If the rows that stay hold less than this share of some fixed column's square, it is gone.
NOTHING_LEFT = 1e-9


@dataclass(frozen=True, slots=True)
class Deletion:
    """Estimates without each case; NaN where the rest of the rows does not determine beta.

    Attributes
    ----------
    coef : ndarray of shape (n_cases, p)
        Fixed effects.
    std : ndarray of shape (n_cases, p)
        Their standard errors.
    """

    coef: FloatArray
    std: FloatArray


@dataclass(frozen=True, slots=True)
class RowDeletion(Deletion):
    """Estimates without each row.

    Attributes
    ----------
    spread : ndarray of shape (n,)
        q of the row's ``R^-1 [Z X]``: the leverage, where noise is independent.
    shift : ndarray of shape (n,)
        The row's response, times the root of its weight, minus what the others predict.
    """

    spread: FloatArray
    shift: FloatArray


def delete_rows(model: FittedModel, rows: CodedRows, noise: RowNoise | None) -> RowDeletion:
    """Leave out each row, the variance components fixed."""
    basis = model.fixed_basis
    residual = conditional_residuals(model, rows) * np.sqrt(rows.given_weights)
    precision, solved = np.ones(len(residual)), None
    if noise is not None:
        residual = noise.solved(residual[:, None])[:, 0]
        precision, solved = noise.precisions, noise.solved(noise.basis)
    to_user = basis.to_user @ model.fixed_effects.inverse_root
    n = len(residual)
    coef, std = np.empty((n, len(to_user))), np.empty((n, len(to_user)))
    spread, shift = np.empty(n), np.empty(n)
    variance = np.diag(model.coef_covariance)
    for chunk in rows.chunks():
        own = row_leverage(model, rows, chunk, solved)
        spread[chunk] = own.variance
        left = 1.0 - np.einsum("rj,rj->r", own.fixed, own.fixed) / precision[chunk]
        rest = np.where(left > NOTHING_LEFT, precision[chunk] - own.variance, np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            shift[chunk] = residual[chunk] / rest
        direction = own.turned @ to_user.T
        coef[chunk] = model.coef - direction * shift[chunk, None]
        std[chunk] = np.sqrt(variance + model.noise_variance * direction**2 / rest[:, None])
    return RowDeletion(coef, std, spread, shift)


def delete_levels(
    model: FittedModel,
    rows: CodedRows,
    cases: NDArray[np.integer],
    remaining: NDArray[np.bool_],
    metric: FloatArray | None,
) -> Deletion:
    """Leave out each level, the variance components fixed.

    Of the only factor, or of the series of a model without random effects.
    """
    basis = model.fixed_basis
    root = model.fixed_effects.inverse_root
    columns = np.column_stack([basis.columns, basis.response])
    squares = case_squares(model, rows, cases, len(remaining), columns, metric)
    if model.random_bases:
        (random,) = model.random_bases
        turned = model.sums.level_products(0, random.columns, columns).transpose(2, 0, 1)
        covariance = model.posterior.covariance(0).transpose(2, 0, 1)
        squares -= turned.transpose(0, 2, 1) @ covariance @ turned
    # [X_i y_i]'V_i^-1 [X_i y_i], then in coordinates where H is the identity.
    share = root.T @ squares[:, :-1, :-1] @ root
    score = (squares[:, :-1, -1] - squares[:, :-1, :-1] @ model.fixed_effects.coef) @ root
    kept = np.eye(len(root)) - share[remaining]
    coef = np.full((len(remaining), len(basis.to_user)), np.nan)
    std = np.full_like(coef, np.nan)
    step = np.linalg.solve(kept, score[remaining][:, :, None])[:, :, 0]
    to_user = basis.to_user @ root
    coef[remaining] = model.coef - basis.scale * step @ to_user.T
    spread = np.einsum("ap,mpq,aq->ma", to_user, np.linalg.inv(kept), to_user, optimize=True)
    # A variance that is zero may come out a rounding error below it.
    std[remaining] = np.sqrt(model.noise_variance * np.maximum(spread, 0.0))
    return Deletion(coef, std)


def case_squares(
    model: FittedModel,
    rows: CodedRows,
    cases: NDArray[np.integer],
    n_cases: int,
    columns: FloatArray,
    metric: FloatArray | None,
) -> FloatArray:
    """Products of combinations of the basis columns within each case: (n_cases, c, c).

    ``metric``: the basis columns of the rows in the metric of R; None: in that of the weights.
    """
    c = columns.shape[1]
    squares = np.zeros((n_cases, c, c))
    for chunk in rows.chunks():
        basis = model.sums.weighted_rows(rows, chunk) if metric is None else metric[chunk]
        turned = basis @ columns
        own = cases[chunk].clip(0)
        for i in range(c):
            for j in range(i + 1):
                weights = turned[:, i] * turned[:, j]
                squares[:, i, j] += np.bincount(own, weights=weights, minlength=n_cases)
    lower = np.tril_indices(c, -1)
    squares[:, lower[1], lower[0]] = squares[:, lower[0], lower[1]]
    return squares


def is_determined(
    model: FittedModel,
    rows: CodedRows,
    cases: NDArray[np.integer],
    n_cases: int,
    metric: FloatArray | None,
    *,
    to_spare: bool,
) -> NDArray[np.bool_]:
    """Whether the rows without each case determine the fixed effects, maybe with some to spare."""
    squares = case_squares(model, rows, cases, n_cases, model.fixed_basis.columns, metric)
    p = squares.shape[1]
    present = rows.given_weights > 0.0
    n_left = model.sums.n_rows - np.bincount(cases[present], minlength=n_cases)
    left = np.linalg.eigvalsh(np.eye(p) - squares) > NOTHING_LEFT
    return left.all(axis=1) & (n_left >= (p + 1 if to_spare else max(p, 1)))


def delete_cases(
    model: FittedModel, remainders: Remainders, remaining: NDArray[np.bool_]
) -> Deletion:
    """Leave out each case of any kind, the variance components fixed."""
    coef = np.full((len(remaining), len(model.coef)), np.nan)
    std = np.full_like(coef, np.nan)
    user_theta = model.user_theta
    for case in np.flatnonzero(remaining):
        sums = remainders.without(int(case))
        coef[case], std[case] = _at_theta(model, sums, user_theta)
    return Deletion(coef, std)


def _at_theta(
    model: FittedModel, sums: Sums, user_theta: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Fixed effects and their standard errors at the model's variance components."""
    problem = make_problem(sums, model.recipe)
    basis, engine = problem.fixed, problem.engine
    if basis.is_exact:
        return basis.offset, np.full(len(basis.offset), np.nan)
    theta = engine_theta(model.specification, problem.randoms, engine.components, user_theta)
    fixed = engine.evaluate(theta, 0).fixed
    root = basis.to_user @ fixed.inverse_root
    variance = model.noise_variance * np.square(root).sum(axis=1)
    return basis.offset + basis.scale * (basis.to_user @ fixed.coef), np.sqrt(variance)


def refit_cases(
    model: FittedModel, remainders: Remainders, remaining: NDArray[np.bool_]
) -> Iterator[FittedModel | None]:
    """Refit without each case; None where the rest does not determine the fixed effects."""
    user_theta = model.user_theta
    for case, is_left in enumerate(remaining):
        yield refit(model, sums=remainders.without(case), start=user_theta) if is_left else None
