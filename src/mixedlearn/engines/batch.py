"""One grouping factor, many responses: the likelihoods of `one_factor`, all at once.

The responses of a bootstrap share the rows' columns, so U_i and the part of R_i that belongs to X
are common to all of them, and so is W but for its last row. Every response has a Lambda of its own.
The formulas are those of `one_factor`; arrays have the responses before the columns and the levels
last, (r, n, columns, m), so that Python's share of an evaluation is divided by n.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.structures import Structure
from mixedlearn.engines.levels import NO_VARIATION, LevelMoments
from mixedlearn.engines.likelihood import NO_RESIDUAL, ROUNDING, ProfiledLikelihood
from mixedlearn.engines.one_factor import OneFactorEngine
from mixedlearn.engines.protocol import FixedEffects

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BatchEvaluation:
    """Objectives of several responses, and what was asked of their derivatives.

    Attributes
    ----------
    objective, rounding : ndarray of shape (n,)
        As in `Evaluation`; the objective is infinite where it cannot be computed.
    gradient : ndarray of shape (n, n_parameters)
        Empty below order 2.
    hessian : ndarray of shape (n, n_parameters, n_parameters)
        Empty below order 2.
    coef : ndarray of shape (n, p)
    inverse_root : ndarray of shape (n, p, p)
    noise_variance : ndarray of shape (n,)
        As in `FixedEffects`.
    """

    objective: FloatArray
    rounding: FloatArray
    gradient: FloatArray
    hessian: FloatArray
    coef: FloatArray
    inverse_root: FloatArray
    noise_variance: FloatArray

    def fixed_effects(self, response: int) -> FixedEffects:
        """Generalised least squares of one response."""
        return FixedEffects(
            self.coef[response], self.inverse_root[response], float(self.noise_variance[response])
        )


class OneFactorBatch:
    """The likelihoods of several responses with one grouping factor.

    Parameters
    ----------
    moments : LevelMoments
        The common part; what it has of a response is not looked at.
    structure : Structure
        Structure of D in the engine's columns; its root is linear in theta.
    likelihood : ProfiledLikelihood
        Its constant for a response whose scale is one.
    responses : ndarray of shape (r, n, m)
        ``Q_i'y*`` of every response.
    cross : ndarray of shape (n, p + 1)
        The last row of W of every response.
    scales : ndarray of shape (n,)
        Residual standard deviations of ordinary least squares.
    """

    def __init__(
        self,
        moments: LevelMoments,
        structure: Structure,
        likelihood: ProfiledLikelihood,
        responses: FloatArray,
        cross: FloatArray,
        scales: FloatArray,
    ):
        self.structure = structure
        self.likelihood = likelihood
        self.scales = scales
        self._moments = moments
        self._responses = responses
        p = likelihood.n_fixed
        self._within = np.repeat(moments.within[None], len(scales), axis=0)
        self._within[:, p] = self._within[:, :, p] = cross
        self._constants = likelihood.constant + 2.0 * likelihood.df * np.log(scales)

    @property
    def n_responses(self) -> int:
        """Number of responses."""
        return len(self.scales)

    def residuals_within(self) -> tuple[FloatArray, int]:
        """Residual sums of squares within levels and their df; see `levels.within_residual`."""
        p = self.likelihood.n_fixed
        values = np.diag(self._moments.within)[:p]
        usable = values > NO_VARIATION
        projection = self._within[:, :p, p][:, usable] / np.sqrt(values[usable])
        squares = self._within[:, p, p] - np.square(projection).sum(axis=1)
        df = self.likelihood.n_rows - self._moments.n_spanned - int(usable.sum())
        return squares, df

    def moments(self, response: int) -> LevelMoments:
        """The moments of one response."""
        rows = self._moments.rows.copy()
        rows[:, -1] = self._responses[:, response]
        return replace(self._moments, rows=rows, within=self._within[response])

    def engine(self, response: int) -> OneFactorEngine:
        """The engine of one response."""
        likelihood = replace(self.likelihood, constant=float(self._constants[response]))
        return OneFactorEngine(self.moments(response), self.structure, likelihood)

    def factors(self, theta: FloatArray) -> FloatArray:
        """Lambda of every row of theta, shape (n, q, q)."""
        return self.structure.root(theta)

    def evaluate(
        self, theta: FloatArray, responses: NDArray[np.intp], order: int
    ) -> BatchEvaluation:
        """Objectives at a theta for each of some responses, with derivatives at order 2."""
        likelihood, p = self.likelihood, self.likelihood.n_fixed
        factors = self.factors(theta)
        solved, log_det = self._solve(factors, responses)
        q = factors.shape[1]
        cross = self._within[responses]
        for row in solved:
            cross += row[:, q:] @ row[:, q:].transpose(0, 2, 1)
        inverse_root = _inverse_roots(cross[:, :p, :p])
        projection = np.einsum("nab,na->nb", inverse_root, cross[:, :p, p])
        residual = cross[:, p, p] - np.square(projection).sum(axis=1)
        with np.errstate(invalid="ignore"):
            is_lost = ~(residual > NO_RESIDUAL * likelihood.total)
        s2 = np.where(is_lost, 1.0, residual) / likelihood.df
        coef = np.einsum("nab,nb->na", inverse_root, projection)
        objective = self._constants[responses] + log_det
        objective += likelihood.df * (1.0 + np.log(2.0 * np.pi * s2))
        if likelihood.reml:
            diagonal = np.einsum("naa->na", inverse_root)
            objective -= 2.0 * np.log(diagonal).sum(axis=1)
        objective[is_lost] = np.inf
        largest = np.square(factors).max(axis=(1, 2), initial=0.0)
        with np.errstate(invalid="ignore"):
            rounding = ROUNDING * (np.abs(objective) + likelihood.total / s2)
        rounding += 4.0 * np.finfo(float).eps * largest
        gradient, hessian = np.empty((0, 0)), np.empty((0, 0, 0))
        if order == 2:
            by_covariance = self._derivatives(solved, coef, inverse_root, s2)
            gradient, hessian = self._by_theta(factors, *by_covariance)
            gradient[is_lost], hessian[is_lost] = 0.0, 0.0
        return BatchEvaluation(objective, rounding, gradient, hessian, coef, inverse_root, s2)

    def _solve(
        self, factors: FloatArray, responses: NDArray[np.intp]
    ) -> tuple[FloatArray, FloatArray]:
        """``L_i^-1 [U_i, R_i]`` of every response, (r, n, q + p + 1, m), and log|V|."""
        rows = self._moments.rows
        r, q, n = len(rows), factors.shape[1], len(factors)
        spread = np.zeros((r, n, q + r, rows.shape[2]))
        solved = np.empty((r, n, *rows.shape[1:]))
        log_det = np.zeros(n)
        transposed = factors.transpose(0, 2, 1)
        for j in range(r):
            np.matmul(transposed, rows[j, :q], out=spread[j, :, :q])
            spread[j, :, q + j] = 1.0
            solved[j] = rows[j]
            solved[j, :, -1] = self._responses[j, responses]
            for k in range(j):
                entry = np.einsum("nkm,nkm->nm", spread[j], spread[k])[:, None]
                spread[j] -= entry * spread[k]
                solved[j] -= entry * solved[k]
            pivots = np.sqrt(np.einsum("nkm,nkm->nm", spread[j], spread[j]))
            log_det += 2.0 * np.log(pivots).sum(axis=1)
            inverse = (1.0 / pivots)[:, None]
            spread[j] *= inverse
            solved[j] *= inverse
        return solved, log_det

    def _derivatives(
        self, solved: FloatArray, coef: FloatArray, inverse_root: FloatArray, s2: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """First and second derivatives by the entries of D, (n, q, q) and (n, q q, q q)."""
        n, p = coef.shape
        q, m = solved.shape[2] - p - 1, solved.shape[3]
        reml = self.likelihood.reml
        noise = s2[:, None, None]
        u = np.zeros((n, q, m))
        square = np.zeros((n, q, q, m))
        mixed = np.zeros((n, q, p, m))
        to_root = inverse_root.transpose(0, 2, 1)
        for row in solved:
            root, fixed = row[:, :q], row[:, q:-1]
            residual = row[:, -1] - np.matmul(coef[:, None], fixed)[:, 0]
            u += root * residual[:, None]
            square += root[:, :, None] * root[:, None]
            mixed += root[:, :, None] * (to_root @ fixed)[:, None]
        across = u.transpose(0, 2, 1)
        scores = u @ across / noise
        flat = mixed.reshape(n, q * p, m)
        gradient = square.sum(axis=3) - scores
        weight = (2.0 / noise[..., None]) * u[:, :, None] * u[:, None] - square
        if reml:
            leverages = (flat @ flat.transpose(0, 2, 1)).reshape(n, q, p, q, p)
            gradient -= np.einsum("napbp->nab", leverages)
            weight += 2.0 * np.einsum("napm,nbpm->nabm", mixed, mixed)
        fourth = square.reshape(n, q * q, m) @ weight.reshape(n, q * q, m).transpose(0, 2, 1)
        second = fourth.reshape(n, q, q, q, q).transpose(0, 4, 1, 2, 3).reshape(n, q * q, q * q)
        c = (flat @ across).reshape(n, q, p, q).transpose(0, 1, 3, 2).reshape(n, q * q, p)
        g = scores.reshape(n, q * q)
        second = second - (2.0 / noise) * (c @ c.transpose(0, 2, 1))
        second -= g[:, :, None] * g[:, None] / self.likelihood.df
        if reml:
            t = leverages.transpose(0, 1, 3, 2, 4).reshape(n, q * q, p * p)
            second -= t @ t.transpose(0, 2, 1)
        return gradient, second

    def _by_theta(
        self, factors: FloatArray, gradient: FloatArray, second: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Derivatives by theta; see `components`."""
        # A linear structure has the same directions everywhere.
        directions = self.structure.directions(np.empty(0))
        n, (size, q, _) = len(factors), directions.shape
        flat = directions.reshape(size, q * q)
        by_theta = (2.0 * gradient @ factors).reshape(n, q * q) @ flat.T
        one_sided = directions @ factors.transpose(0, 2, 1)[:, None]
        change = (one_sided + one_sided.transpose(0, 1, 3, 2)).reshape(n, size, q * q)
        turned = (gradient[:, None] @ directions).reshape(n, size, q * q)
        hessian = change @ second @ change.transpose(0, 2, 1) + 2.0 * turned @ flat.T
        return by_theta, (hessian + hessian.transpose(0, 2, 1)) / 2.0


def _inverse_roots(squares: FloatArray) -> FloatArray:
    """Upper triangular roots of the inverses, NaN for a matrix that is singular to rounding."""
    try:
        roots = np.linalg.cholesky(squares)
    except np.linalg.LinAlgError:
        roots = np.full_like(squares, np.nan)
        for root, square in zip(roots, squares, strict=True):
            try:
                root[:] = np.linalg.cholesky(square)
            except np.linalg.LinAlgError:
                root[:] = np.nan * np.eye(len(root))
    return np.linalg.inv(roots).transpose(0, 2, 1)
