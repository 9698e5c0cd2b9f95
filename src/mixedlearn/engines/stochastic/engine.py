"""Crossed factors of any size: iterative solutions, and random probes for the traces.

The factor of the most levels is eliminated level by level (`eliminated`). The rest, the tail, is
never made dense: conjugate gradients solve its equations (`system`). Of the likelihood and its
derivatives only ``log|V|`` and the traces ``tr V^-1 Z_k Z_k'`` are no forms of such solutions: they
are estimated with random signs (`traces`, `quadrature`). Fixed effects, BLUPs and the residual sum
of squares have no such error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.components import VarianceComponents, theta_gradient, theta_hessian
from mixedlearn.engines.levels import NO_VARIATION
from mixedlearn.engines.likelihood import ProfiledLikelihood
from mixedlearn.engines.moments import start_from_moments
from mixedlearn.engines.protocol import Curvature, Evaluation, FixedEffects, worthless_evaluation
from mixedlearn.engines.stochastic.posterior import StochasticPosterior
from mixedlearn.engines.stochastic.products import Products, Side, replace_large
from mixedlearn.engines.stochastic.quadrature import log_det_samples
from mixedlearn.engines.stochastic.small import SmallFactors
from mixedlearn.engines.stochastic.system import System, form
from mixedlearn.engines.stochastic.traces import draw_probes, information_samples
from mixedlearn.threads import one_thread

FloatArray = NDArray[np.float64]

# Residuals of the equations for X and y while searching and at the end, and of those for average
# information, relative to their right-hand sides.
SEARCH_TOLERANCE, FINAL_TOLERANCE, INFORMATION_TOLERANCE = 1e-9, 1e-13, 1e-4


@dataclass(frozen=True, slots=True)
class SolvedData:
    """The columns ``[S X y]``, those of small factors first, with all other effects taken out.

    Attributes
    ----------
    solutions : ndarray of shape (T, s + p + 1)
        Of the tail's equations.
    first_blups, tail_blups : ndarray of shape (n, s + p + 1)
        BLUPs for each of the columns.
    small : SmallFactors
    """

    solutions: FloatArray
    first_blups: FloatArray
    tail_blups: FloatArray
    small: SmallFactors


class StochasticEngine:
    """The likelihood with crossed factors, its traces estimated.

    Parameters
    ----------
    products : Products
    components : VarianceComponents
        Structures of the D_k in the engine's columns.
    likelihood : ProfiledLikelihood
    within : ndarray of shape (p + 1, p + 1)
        Cross-products of X and y within the levels that are eliminated first.
    within_variance : float
        Residual variance there.
    n_probes, seed : int
        Number of vectors of random signs, and what they are drawn from.
    """

    has_exact_hessian = False

    def __init__(
        self,
        products: Products,
        components: VarianceComponents,
        likelihood: ProfiledLikelihood,
        within: FloatArray,
        within_variance: float,
        n_probes: int,
        seed: int,
    ):
        self.components = components
        self.likelihood = likelihood
        self.n_levels = tuple(m for _, m in products.plan.shapes)
        self.n_rows = likelihood.n_rows
        self.within_variance = within_variance
        self.n_probes = n_probes
        self._products, self._within, self._seed = products, within, seed
        self.size = products.first_data.size + products.tail_data.size
        self._probes = draw_probes(products, n_probes, seed)
        self._solutions: FloatArray | None = None
        self._turned: FloatArray | None = None

    def with_probes(self, n_probes: int) -> StochasticEngine:
        """The same engine with another number of probes."""
        return StochasticEngine(
            self._products,
            self.components,
            self.likelihood,
            self._within,
            self.within_variance,
            n_probes,
            self._seed,
        )

    def start(self) -> tuple[FloatArray, ...]:
        """The D_k by the method of moments, from the residuals of ordinary least squares."""
        return self._moments_of(np.zeros(self.likelihood.n_fixed))

    def start_from_within(self) -> tuple[FloatArray, ...]:
        """The same from the residuals of the regression within levels."""
        p = self.likelihood.n_fixed
        squares, beside = self._within[:p, :p], self._within[:p, p]
        coef = np.linalg.lstsq(squares, beside, rcond=NO_VARIATION)[0]
        return self._moments_of(np.asarray(coef, dtype=np.float64))

    def _moments_of(self, coef: FloatArray) -> tuple[FloatArray, ...]:
        products = self._products
        s = products.small.size
        contrast = np.append(-coef, 1.0)[:, None]
        residuals = self._by_factor(
            products.first_data[:, s:] @ contrast,
            products.tail_data[:, s:] @ contrast,
            products.gram[:s, s:] @ contrast,
        )
        sizes = [np.einsum("aam->am", own) for own in products.squares]
        inverse = [np.where(own > 0.0, 1.0 / np.where(own > 0.0, own, 1.0), 0.0) for own in sizes]
        n_factors = len(sizes)
        overlaps: list[list[FloatArray]] = [[np.empty(0)] * n_factors for _ in sizes]
        for k in range(n_factors):
            overlaps[k][k] = np.einsum("am,abm->ab", inverse[k], np.square(products.squares[k]))
            for other in range(k + 1, n_factors):
                own, theirs, values = products.entries(k, other)
                squares = np.square(values)
                overlaps[k][other] = np.einsum("am,abm->ab", inverse[k][:, own], squares)
                overlaps[other][k] = np.einsum("bm,abm->ba", inverse[other][:, theirs], squares)
        moments = [np.square(own[:, :, 0]) for own in residuals]
        ratios = [(own * inv).sum(axis=1) for own, inv in zip(moments, inverse, strict=True)]
        return start_from_moments(
            squares=np.concatenate(ratios),
            counts=np.concatenate([(own > 0.0).sum(axis=1) for own in sizes]).astype(float),
            sizes=np.concatenate([own.sum(axis=1) for own in sizes]),
            overlaps=np.block(overlaps),
            total=float((contrast.T @ products.gram[s:, s:] @ contrast).item()),
            df=self.likelihood.total,
            n_effects=[structure.n_effects for structure in self.components.structures],
        )

    def evaluate(self, theta: FloatArray, order: int) -> Evaluation:
        """Objective at order 0; gradient at order 1, and average information at order 2.

        With derivatives comes an objective that is but near: it lacks what the probes say of it.
        """
        with one_thread:
            try:
                system = System(self._products, self.components.roots(theta))
                data = self._solve_data(system, SEARCH_TOLERANCE, self._solutions)
                fixed = self.likelihood.least_squares(data.small.cross)
                if np.isfinite(fixed.noise_variance):
                    self._solutions = data.solutions
                    if order == 0:
                        return self._evaluate_objective(theta, system, data, fixed)
                    return self._evaluate_derivatives(theta, system, data, fixed, order)
            except np.linalg.LinAlgError:
                # No point to stay at.
                pass
        return worthless_evaluation(theta, self.likelihood.n_fixed, self.components)

    def _evaluate_objective(
        self, theta: FloatArray, system: System, data: SolvedData, fixed: FixedEffects
    ) -> Evaluation:
        found, unsettled = log_det_samples(system, self._probes.tail_signs)
        samples = self._probes.as_samples(found)
        log_det = system.first.log_det + data.small.log_det + float(samples.mean())
        objective = self.likelihood.objective(log_det, fixed)
        rounding = self.likelihood.rounding(objective, fixed, 0.0) + unsettled
        nothing = np.empty(0)
        parts = objective, nothing, nothing, (), fixed, rounding
        return Evaluation(theta, *parts, sampled_objectives=samples - samples.mean())

    def _evaluate_derivatives(
        self, theta: FloatArray, system: System, data: SolvedData, fixed: FixedEffects, order: int
    ) -> Evaluation:
        first, tail = self._scores(system, data)
        scores = self._data_scores(data, first, tail)
        u = [own[:, :, -1] - own[:, :, :-1] @ fixed.coef for own in scores]
        squares = [own @ own.T / fixed.noise_variance for own in u]
        samples = self._information_samples(system, data, first, tail)
        gradients = []
        for own, square, information in zip(scores, squares, samples, strict=True):
            gradient = information.mean(axis=0) - square
            if self.likelihood.reml:
                mixed = own[:, :, :-1] @ fixed.inverse_root
                gradient -= np.einsum("amr,bmr->ab", mixed, mixed)
            gradients.append(gradient)
        directions, roots = self.components.directions(theta), system.roots
        deviations = [own - own.mean(axis=0) for own in samples]
        curvature, hessian = None, np.empty(0)
        if order == 2:
            g = np.concatenate([square.ravel() for square in squares])
            average = self._average_information(system, data, u, fixed)
            second = average - np.outer(g, g) / self.likelihood.df
            curvature = Curvature(second, tuple(-square for square in squares), 2.0 * average)
            bends = self.components.curvatures(theta)
            hessian = theta_hessian(directions, roots, gradients, second, bends)
        log_det = system.first.log_det + data.small.log_det + system.log_det_blocks
        objective = self.likelihood.objective(log_det, fixed)
        return Evaluation(
            theta,
            objective,
            theta_gradient(directions, roots, gradients),
            hessian,
            tuple(gradients),
            fixed,
            self.likelihood.rounding(objective, fixed, 0.0),
            curvature,
            sampled_gradients=tuple(deviations),
        )

    def fixed_effects(self, theta: FloatArray) -> FixedEffects | None:
        """Generalised least squares at theta to some digits; None where it cannot be had."""
        with one_thread:
            try:
                system = System(self._products, self.components.roots(theta))
                data = self._solve_data(system, INFORMATION_TOLERANCE, None)
            except np.linalg.LinAlgError:
                return None
        fixed = self.likelihood.least_squares(data.small.cross)
        return None if np.isinf(fixed.noise_variance) else fixed

    def random_effects(
        self, roots: Sequence[FloatArray], fixed: FixedEffects
    ) -> tuple[FloatArray, ...]:
        """BLUPs of the engine's random effects, ``D_k u_k``."""
        data = self._solve_data(System(self._products, roots), FINAL_TOLERANCE, self._solutions)
        contrast = np.append(-fixed.coef, 1.0)[:, None]
        return tuple(part[:, :, 0] for part in self._blups(data, contrast))

    def posterior(self, roots: Sequence[FloatArray]) -> StochasticPosterior:
        """Distribution of the random effects given the response."""
        system = System(self._products, roots)
        data = self._solve_data(system, FINAL_TOLERANCE, self._solutions)
        blups = self._blups(data, np.eye(self.likelihood.n_fixed + 1)[:, :-1])
        response = tuple(own.transpose(0, 2, 1) for own in blups)
        s = self._products.small.size
        of_small = data.first_blups[:, :s], data.tail_blups[:, :s]
        return StochasticPosterior(system, data.small.covariance, *of_small, response)

    def _blups(self, data: SolvedData, contrasts: FloatArray) -> list[FloatArray]:
        """BLUPs of every factor for combinations of X and y: (p + 1, c) gives (q, m, c)."""
        small = data.small
        return self._by_factor(
            small.spread(data.first_blups) @ contrasts,
            small.spread(data.tail_blups) @ contrasts,
            small.blups @ contrasts,
        )

    def _by_factor(
        self, first: FloatArray, tail: FloatArray, small: FloatArray
    ) -> list[FloatArray]:
        """Vectors over first, tail and small factors by factor of the model, (q, m, c)."""
        products = self._products
        found: dict[int, FloatArray] = {}
        for side, vectors in (
            (products.first, first),
            (products.tail, tail),
            (products.small, small),
        ):
            found |= zip(side.factors, side.parts(vectors), strict=True)
        return [found[k] for k in range(len(found))]

    def _solve_data(self, system: System, tol: float, start: FloatArray | None) -> SolvedData:
        products, first = self._products, system.first
        pushed = first.times(products.first_data)
        right = system.turn(products.tail_data - products.to_tail(pushed), transposed=True)
        solutions, residuals = system.solve(right, tol, start)
        cross = products.gram - products.first_data.T @ pushed
        cross = (cross + cross.T) / 2.0 - form(solutions, right, residuals)
        tail_blups = system.turn(solutions)
        first_blups = pushed - first.times(products.to_first(tail_blups))
        small = SmallFactors(products.small, system.roots, cross)
        return SolvedData(solutions, first_blups, tail_blups, small)

    def _scores(self, system: System, data: SolvedData) -> tuple[FloatArray, FloatArray]:
        """``Z'V_o^-1[S X y]`` over the first factor and over the tail."""
        products = self._products
        found = []
        for side, right, blups in (
            (products.first, products.first_data, data.first_blups),
            (products.tail, products.tail_data, data.tail_blups),
        ):
            scores = right - products.times(side, data.first_blups, data.tail_blups)
            replace_large(side, system.roots, scores, blups)
            found.append(scores)
        return found[0], found[1]

    def _data_scores(
        self, data: SolvedData, first: FloatArray, tail: FloatArray
    ) -> list[FloatArray]:
        """``Z_k'V^-1[X y]`` of every factor, shapes (q, m, p + 1)."""
        small = data.small
        return self._by_factor(small.spread(first), small.spread(tail), small.scores())

    def _information_samples(
        self, system: System, data: SolvedData, first: FloatArray, tail: FloatArray
    ) -> list[FloatArray]:
        """N_k of every factor as each probe has it; of small factors they are all the same."""
        products, small = self._products, data.small
        found = information_samples(system, self._probes)
        s = products.small.size
        for side, scores in ((products.first, first), (products.tail, tail)):
            for k, part in zip(side.factors, side.parts(scores[:, :s].copy()), strict=True):
                found[k] = found[k] - small.taken(part)
        for k, own in zip(products.small.factors, small.information(), strict=True):
            found[k] = np.tile(own, (self.n_probes, 1, 1))
        return found

    def _average_information(
        self, system: System, data: SolvedData, u: Sequence[FloatArray], fixed: FixedEffects
    ) -> FloatArray:
        """``w'P w / s2`` for the columns ``w = Z_k e_a e_b'u_k``, shape (sum q_k^2, sum q_k^2)."""
        products, first, small = self._products, system.first, data.small
        s = products.small.size
        in_first, in_tail, in_small = (
            self._turned_columns(side, u)
            for side in (products.first, products.tail, products.small)
        )
        first_data = products.times(products.first, in_first, in_tail)
        first_data += products.first_data[:, :s] @ in_small
        tail_data = products.times(products.tail, in_first, in_tail)
        tail_data += products.tail_data[:, :s] @ in_small
        beside = in_first.T @ products.first_data + in_tail.T @ products.tail_data
        beside += in_small.T @ products.gram[:s]
        squares = in_first.T @ first_data + in_tail.T @ tail_data + beside[:, :s] @ in_small
        pushed = first.times(first_data)
        right = system.turn(tail_data - products.to_tail(pushed), transposed=True)
        solutions, residuals = system.solve(right, INFORMATION_TOLERANCE, self._turned)
        self._turned = solutions
        squares -= first_data.T @ pushed
        squares = (squares + squares.T) / 2.0 - form(solutions, right, residuals)
        beside -= pushed.T @ products.first_data + right.T @ data.solutions
        squares -= beside[:, :s] @ small.covariance @ beside[:, :s].T
        projection = small.spread(beside)[:, :-1] @ fixed.inverse_root
        return (squares - projection @ projection.T) / fixed.noise_variance

    def _turned_columns(self, side: Side, u: Sequence[FloatArray]) -> FloatArray:
        """The coordinates of ``Z_k e_a e_b'u_k`` of all factors in one side, (n, sum q_k^2)."""
        columns = np.zeros((side.size, sum(len(own) ** 2 for own in u)))
        parts = dict(zip(side.factors, side.parts(columns), strict=True))
        start = 0
        for k, effect in enumerate(u):
            q = len(effect)
            if k in parts:
                for a in range(q):
                    parts[k][a, :, start + a * q : start + (a + 1) * q] = effect.T
            start += q * q
        return columns
