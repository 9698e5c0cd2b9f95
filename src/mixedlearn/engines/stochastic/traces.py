"""Traces by random probes: ``N_k = sum_i Z_i'V^-1 Z_i`` of every factor.

Notation
--------
For random signs e, one for each level of a factor, and any symmetric S, ``e'S e`` is tr(S) on
average, and exactly so where S is diagonal (Hutchinson 1990). Blocks of q effects take a vector e_a
for each effect, with the same signs, so that the blocks on the diagonal count exactly. What is
probed, with C and M as in `system`:

    tail     Lambda'N Lambda = m I - sum_i (C^-1)_ii
    first    N = sum_i Z_i'V_c^-1 Z_i - sum_i R_i'C^-1 R_i,    R = Lambda'Z_t'V_c^-1 Z

and where the Lambda of a factor of the tail is singular or nearly so,

    tail     N = sum_i M_ii - sum_i R_i'C^-1 R_i,              R = Lambda'M

Signs that multiply each other add noise, most of it known beforehand: with P the diagonal blocks of
C, the mean of ``e'P^-1 C P^-1 e`` is ``tr P^-1``, and that of ``e'R'P^-1 R e`` is a sum over pairs
of levels. What the probes say of these is taken out of what they say of C^-1, and the mean put in
its place.

The signs are the same at every theta, so that estimates are smooth functions of it. Where there are
fewer levels than probes, multiples of unit vectors take the place of signs: they leave no error.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mixedlearn.engines.stochastic.conjugate_gradients import BLOCK_COLUMNS
from mixedlearn.engines.stochastic.products import Products, Side
from mixedlearn.engines.stochastic.system import System

FloatArray = NDArray[np.float64]
Signs = NDArray[np.int8] | FloatArray

# Residuals of probes, relative to them: the traces are off by the square.
TOLERANCE = 1e-4
# A smaller singular value of Lambda, in natural units, would cost digits where it divides.
SMALL_ROOT = 1e-2


@dataclass(slots=True)
class Probes:
    """Random signs for the levels of every factor, and the last solutions for them.

    Attributes
    ----------
    signs : list of ndarray of shape (m, min(m, n_probes))
        For every factor of the model; unit vectors, times the root of m, if m is below n_probes.
    tail_signs : ndarray of shape (T, min(T, n_probes))
        For every effect of the tail, for its log-determinant.
    n_probes : int
    solutions : dict of (int, bool) to ndarray of shape (T, q n_probes)
        For a factor, and for either way to probe it, what to start from.
    """

    signs: list[Signs]
    tail_signs: Signs
    n_probes: int
    solutions: dict[tuple[int, bool], FloatArray] = field(default_factory=dict)

    def as_samples(self, values: FloatArray) -> FloatArray:
        """What each probe says; unit vectors are right on average, and all probes say that."""
        if len(values) == self.n_probes:
            return values
        return np.repeat(values.mean(axis=0, keepdims=True), self.n_probes, axis=0)


def draw_probes(products: Products, n_probes: int, seed: int) -> Probes:
    """Random signs; those of more probes begin with those of fewer."""

    def draw(stream: int, size: int) -> Signs:
        if 0 < size < n_probes:
            return np.sqrt(size) * np.eye(size)
        signs = [
            np.random.default_rng([seed, stream, probe]).integers(0, 2, size, dtype=np.int8)
            for probe in range(n_probes)
        ]
        return 2 * np.array(signs).T - np.int8(1)

    sizes = [m for _, m in products.plan.shapes]
    signs = [draw(k, m) for k, m in enumerate(sizes)]
    return Probes(signs, draw(len(sizes), products.tail.size), n_probes)


def information_samples(system: System, probes: Probes) -> list[FloatArray]:
    """N_k of every factor as each probe has it, shapes (n_probes, q, q)."""
    products = system.products
    found: list[FloatArray] = [np.empty(0)] * len(products.plan.shapes)
    (first,) = products.first.factors
    known = system.first.information()
    found[first] = known - probes.as_samples(_first_samples(system, probes, first))
    for block, k in zip(system.blocks, products.tail.factors, strict=True):
        root, m = system.roots[k], products.plan.shapes[k][1]
        if np.linalg.svd(root, compute_uv=False)[-1] > SMALL_ROOT:
            undone = np.linalg.inv(root)
            taken = probes.as_samples(_tail_samples(system, probes, k))
            found[k] = undone.T @ (m * np.eye(len(root)) - taken) @ undone
        else:
            found[k] = probes.as_samples(_singular_samples(system, probes, k, block))
    return found


def _first_samples(system: System, probes: Probes, k: int) -> FloatArray:
    """``sum_i R_i'C^-1 R_i`` for the first factor."""
    products, signs = system.products, probes.signs[k]
    parts = [
        _first_rows(system, k, signs[:, start : start + BLOCK_COLUMNS])
        for start in range(0, signs.shape[1], BLOCK_COLUMNS)
    ]
    n_columns = len(system.roots[k]) * signs.shape[1]
    right = np.concatenate(parts, axis=2).reshape(products.tail.size, n_columns)
    control = _pairs(right, system.precondition(right), len(system.roots[k]))
    forms = _forms(system, probes, k, right, is_singular=False)
    return forms + system.preconditioned_rows() - control


def _first_rows(system: System, k: int, signs: Signs) -> FloatArray:
    """``R e`` for each effect of the first factor and some probes, (T, q, n_probes)."""
    products = system.products
    vectors = _spread(products.first, k, signs)
    vectors -= system.first.times(products.first_times(vectors))
    right = system.turn(products.to_tail(vectors), transposed=True)
    return right.reshape(products.tail.size, len(system.roots[k]), signs.shape[1])


def _tail_samples(system: System, probes: Probes, k: int) -> FloatArray:
    """``sum_i (C^-1)_ii`` for a factor of the tail."""
    vectors = _spread(system.products.tail, k, probes.signs[k])
    near = system.precondition(vectors)
    control = _pairs(near, system.times(near) - vectors, len(system.roots[k]))
    return _forms(system, probes, k, vectors, is_singular=False) + control


def _singular_samples(system: System, probes: Probes, k: int, block: FloatArray) -> FloatArray:
    """N of a factor of the tail whose Lambda cannot be inverted."""
    vectors = _spread(system.products.tail, k, probes.signs[k])
    right = system.turn(system.times_products(vectors), transposed=True)
    return block.sum(axis=2) - _forms(system, probes, k, right, is_singular=True)


def _spread(side: Side, k: int, signs: Signs) -> FloatArray:
    """The signs for each effect of a factor in turn: shape (n, q n_probes)."""
    place = side.factors.index(k)
    q, n_probes = side.shapes[place][0], signs.shape[1]
    vectors = np.zeros((side.size, q * n_probes))
    part = side.parts(vectors)[place]
    for effect in range(q):
        part[effect, :, effect * n_probes : (effect + 1) * n_probes] = signs
    return vectors


def _forms(
    system: System, probes: Probes, k: int, right: FloatArray, *, is_singular: bool
) -> FloatArray:
    """``r_a'C^-1 r_b`` for every two effects, of every probe: shape (n_probes, q, q)."""
    start = probes.solutions.get((k, is_singular))
    solution, residual = system.solve(right, TOLERANCE, start)
    probes.solutions[k, is_singular] = solution
    forms = _pairs(solution, right + residual, len(system.roots[k]))
    return (forms + forms.transpose(0, 2, 1)) / 2.0


def _pairs(left: FloatArray, right: FloatArray, q: int) -> FloatArray:
    """Products of columns for every two effects, of every probe: shape (n_probes, q, q)."""
    shape = (len(left), q, left.shape[1] // q)
    return np.einsum("naj,nbj->jab", left.reshape(shape), right.reshape(shape), optimize=True)
