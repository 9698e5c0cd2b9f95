"""Deletion of cases: the fixed effects, and the variances, without some rows.

Notation
--------
In the engine's columns and rows scaled by the roots of their weights. Leaving rows R out is the
same as giving each of them a fixed effect of its own, so for fixed variance components
(Christensen, Pearson & Johnson 1992), with P = V^-1 - V^-1 X H^-1 X'V^-1,

    beta(R) = beta - H^-1 (X'V^-1)_R (P_RR)^-1 (P y)_R

For one row, ``P_RR = 1 - h`` and ``(P y)_R`` is the conditional residual. For a level i of the only
factor, what the level adds to ``H = X'V^-1 X`` is taken away:

    H(i) = H - X_i'V_i^-1 X_i,     beta(i) = beta - H(i)^-1 X_i'V_i^-1 (y_i - X_i beta)

where ``V_i^-1 = I - Z_i C_i Z_i'`` with C_i the covariance of the level's effects given the
response. Otherwise the cross-products of the case's rows are taken from those of all rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.sums import Crossing, CrossProducts
from mixedlearn.engines.choose import make_problem
from mixedlearn.inference._training import TrainingRows
from mixedlearn.inference.residuals import conditional_residuals, row_leverage
from mixedlearn.model.fit import engine_theta, refit
from mixedlearn.model.fitted import FittedModel

FloatArray = NDArray[np.float64]

# If the rows that stay hold less than this share of some fixed column's square, it is gone.
NOTHING_LEFT = 1e-9
# Share of a column's square that is rounding error once the rest was taken away.
REMAINDER = 1e-13


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


def delete_rows(model: FittedModel, rows: TrainingRows) -> tuple[Deletion, FloatArray, FloatArray]:
    """Leave out each row, the variance components fixed.

    Returns
    -------
    deletion : Deletion
    leverage : ndarray of shape (n,)
    residual : ndarray of shape (n,)
        Conditional residuals, times the root of the weight.
    """
    basis = model.fixed_basis
    residual = conditional_residuals(model, rows) * np.sqrt(rows.weights)
    to_user = basis.to_user @ model.fixed_effects.inverse_root
    n = len(residual)
    coef, std = np.empty((n, len(to_user))), np.empty((n, len(to_user)))
    leverage = np.empty(n)
    variance = np.diag(model.coef_covariance)
    for chunk in rows.chunks():
        own = row_leverage(model, rows, chunk)
        leverage[chunk] = own.leverage
        left = 1.0 - np.einsum("rj,rj->r", own.fixed, own.fixed)
        rest = np.where(left > NOTHING_LEFT, 1.0 - own.leverage, np.nan)[:, None]
        direction = own.turned @ to_user.T
        coef[chunk] = model.coef - direction * residual[chunk, None] / rest
        std[chunk] = np.sqrt(variance + model.noise_variance * direction**2 / rest)
    return Deletion(coef, std), leverage, residual


def delete_levels(model: FittedModel, rows: TrainingRows, remaining: NDArray[np.bool_]) -> Deletion:
    """Leave out each level of the only factor, the variance components fixed."""
    basis, (random,) = model.fixed_basis, model.random_bases
    root = model.fixed_effects.inverse_root
    columns = np.column_stack([basis.columns, basis.response])
    squares = case_squares(rows, rows.codes[0], len(remaining), columns)
    turned = np.einsum("za,zbm->mab", random.columns, model.products.grouped[0]) @ columns
    covariance = model.posterior.covariance(0).transpose(2, 0, 1)
    # [X_i y_i]'V_i^-1 [X_i y_i], then in coordinates where H is the identity.
    squares -= turned.transpose(0, 2, 1) @ covariance @ turned
    share = root.T @ squares[:, :-1, :-1] @ root
    score = (squares[:, :-1, -1] - squares[:, :-1, :-1] @ model.fixed_effects.coef) @ root
    kept = np.eye(len(root)) - share[remaining]
    coef = np.full((len(remaining), len(basis.to_user)), np.nan)
    std = np.full_like(coef, np.nan)
    step = np.linalg.solve(kept, score[remaining][:, :, None])[:, :, 0]
    to_user = basis.to_user @ root
    coef[remaining] = model.coef - basis.scale * step @ to_user.T
    spread = np.einsum("ap,mpq,aq->ma", to_user, np.linalg.inv(kept), to_user, optimize=True)
    std[remaining] = np.sqrt(model.noise_variance * spread)
    return Deletion(coef, std)


def case_squares(
    rows: TrainingRows, cases: NDArray[np.integer], n_cases: int, columns: FloatArray
) -> FloatArray:
    """Products of combinations of the basis columns within each case: (n_cases, c, c)."""
    c = columns.shape[1]
    squares = np.zeros((n_cases, c, c))
    for chunk in rows.chunks():
        turned = rows.basis(chunk) @ columns
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
    rows: TrainingRows,
    cases: NDArray[np.integer],
    n_cases: int,
    *,
    to_spare: bool,
) -> NDArray[np.bool_]:
    """Whether the rows without each case determine the fixed effects, maybe with some to spare."""
    squares = case_squares(rows, cases, n_cases, model.fixed_basis.columns)
    p = squares.shape[1]
    present = rows.weights > 0.0
    n_left = model.products.n_rows - np.bincount(cases[present], minlength=n_cases)
    left = np.linalg.eigvalsh(np.eye(p) - squares) > NOTHING_LEFT
    return left.all(axis=1) & (n_left >= (p + 1 if to_spare else max(p, 1)))


class Remainders:
    """Cross-products without each case, from one pass over the rows.

    Parameters
    ----------
    model : FittedModel
    rows : TrainingRows
    cases : ndarray of shape (n,), int
        The case of every row.
    n_cases : int
    """

    def __init__(
        self,
        model: FittedModel,
        rows: TrainingRows,
        cases: NDArray[np.integer],
        n_cases: int,
    ):
        self._products, self._rows = model.products, rows
        present = np.flatnonzero(rows.weights > 0.0)
        self._order = present[np.argsort(cases[present], kind="stable")]
        self._bounds = np.append(0, np.cumsum(np.bincount(cases[present], minlength=n_cases)))
        self._n_levels = [grouped.shape[2] for grouped in self._products.grouped]
        self._sizes = [
            np.bincount(codes[present], minlength=m)
            for codes, m in zip(rows.codes, self._n_levels, strict=True)
        ]
        self._keys = {}
        self._pair_sizes = {}
        for pair, crossing in self._products.crossings.items():
            keys = self._key(pair, crossing.first, crossing.second)
            found = np.searchsorted(keys, self._row_keys(pair, present))
            self._keys[pair] = keys
            self._pair_sizes[pair] = np.bincount(found, minlength=len(keys))

    def _key(
        self, pair: tuple[int, int], first: NDArray[np.integer], second: NDArray[np.integer]
    ) -> NDArray[np.int64]:
        return first.astype(np.int64) * self._n_levels[pair[1]] + second

    def _row_keys(self, pair: tuple[int, int], rows: NDArray[np.intp]) -> NDArray[np.int64]:
        codes = self._rows.codes
        return self._key(pair, codes[pair[0]][rows], codes[pair[1]][rows])

    def without(self, case: int) -> CrossProducts:
        """The cross-products of all rows but those of a case."""
        products = self._products
        gone = self._order[self._bounds[case] : self._bounds[case + 1]]
        basis = self._rows.basis(gone)
        gram = products.gram - basis.T @ basis
        is_lost = np.diag(gram) < REMAINDER * np.diag(products.gram)
        gram[is_lost] = 0.0
        gram[:, is_lost] = 0.0
        grouped, numbers = [], []
        for k, z in enumerate(products.z_columns):
            own, stays = self._levels_without(k, z, gone, basis)
            grouped.append(own)
            numbers.append(np.where(stays, np.cumsum(stays) - 1, -1).astype(np.int32))
        return replace(
            products,
            n_rows=products.n_rows - len(gone),
            sum_log_weights=products.sum_log_weights
            - float(np.log(self._rows.weights[gone]).sum()),
            gram=gram,
            grouped=tuple(grouped),
            crossings={
                pair: self._crossing_without(pair, gone, basis, numbers)
                for pair in products.crossings
            },
        )

    def _levels_without(
        self, k: int, z: tuple[int, ...], gone: NDArray[np.intp], basis: FloatArray
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Products of the levels of factor k that have rows left, and which levels these are."""
        levels, place = np.unique(self._rows.codes[k][gone], return_inverse=True)
        taken = np.zeros((len(levels), len(z), basis.shape[1]))
        np.add.at(taken, place, basis[:, list(z), None] * basis[:, None, :])
        grouped = self._products.grouped[k].copy()
        grouped[:, :, levels] -= taken.transpose(1, 2, 0)
        stays = np.ones(grouped.shape[2], bool)
        stays[levels] = self._sizes[k][levels] > np.bincount(place)
        return (grouped if stays.all() else grouped[:, :, stays]), stays

    def _crossing_without(
        self,
        pair: tuple[int, int],
        gone: NDArray[np.intp],
        basis: FloatArray,
        numbers: list[NDArray[np.int32]],
    ) -> Crossing:
        crossing = self._products.crossings[pair]
        left, right = (list(self._products.z_columns[k]) for k in pair)
        keys, place = np.unique(self._row_keys(pair, gone), return_inverse=True)
        at = np.searchsorted(self._keys[pair], keys)
        taken = np.zeros((len(at), len(left), len(right)))
        np.add.at(taken, place, basis[:, left, None] * basis[:, None, right])
        products = crossing.products.copy()
        products[:, :, at] -= taken.transpose(1, 2, 0)
        stays = np.ones(products.shape[2], bool)
        stays[at] = self._pair_sizes[pair][at] > np.bincount(place)
        return Crossing(
            numbers[pair[0]][crossing.first[stays]],
            numbers[pair[1]][crossing.second[stays]],
            products[:, :, stays],
        )


def delete_cases(
    model: FittedModel, remainders: Remainders, remaining: NDArray[np.bool_]
) -> Deletion:
    """Leave out each case of any kind, the variance components fixed."""
    coef = np.full((len(remaining), len(model.coef)), np.nan)
    std = np.full_like(coef, np.nan)
    theta = model.theta
    for case in np.flatnonzero(remaining):
        coef[case], std[case] = _at_theta(model, remainders.without(int(case)), theta)
    return Deletion(coef, std)


def _at_theta(
    model: FittedModel, products: CrossProducts, theta: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Fixed effects and their standard errors at the model's variance components."""
    problem = make_problem(products, model.specification, bound_noise=model.is_bounded)
    basis, engine = problem.fixed, problem.engine
    if basis.is_exact:
        return basis.offset, np.full(len(basis.offset), np.nan)
    own = engine_theta(model.specification, problem.randoms, engine.components, theta)
    fixed = engine.evaluate(own, 0).fixed
    root = basis.to_user @ fixed.inverse_root
    variance = model.noise_variance * np.square(root).sum(axis=1)
    return basis.offset + basis.scale * (basis.to_user @ fixed.coef), np.sqrt(variance)


def refit_cases(
    model: FittedModel, remainders: Remainders, remaining: NDArray[np.bool_]
) -> Iterator[FittedModel | None]:
    """Refit without each case; None where the rest does not determine the fixed effects."""
    theta = model.theta
    for case, is_left in enumerate(remaining):
        yield refit(model, products=remainders.without(case), start=theta) if is_left else None
