"""Two ways to one likelihood of rows with correlated noise."""

import numpy as np
import pytest

from mixedlearn.engines.correlated.effects_likelihood import EffectsLikelihood
from mixedlearn.engines.correlated.likelihood import BlockLikelihood
from mixedlearn.model.correlated import make_correlated


def both(model):
    """The problem of a model as it is and in dense blocks, and the point of the fit."""
    noise = model.__mixedlearn_fitted__().model_of_fit.noise
    blocks = make_correlated(
        noise.sums, noise.rows, noise.noise_rows, noise.binding, noise.recipe, in_blocks=True
    )
    assert isinstance(noise.problem.likelihood, EffectsLikelihood)
    assert isinstance(blocks.likelihood, BlockLikelihood)
    return noise.problem, blocks, noise.point


def assert_same(problem, blocks, point):
    """The same criterion, derivatives, coefficients and inference at a point."""
    own, other = problem.evaluate(point, 2), blocks.evaluate(point, 2)
    assert own.objective == pytest.approx(other.objective, rel=1e-12)
    np.testing.assert_allclose(own.gradient, other.gradient, atol=1e-8)
    np.testing.assert_allclose(own.hessian, other.hessian, rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(own.coef, other.coef, atol=1e-12)
    for mine, its in zip(
        problem.for_inference().kenward_roger(point),
        blocks.for_inference().kenward_roger(point),
        strict=True,
    ):
        np.testing.assert_allclose(mine, its, rtol=1e-7, atol=1e-8 * np.abs(its).max())


def assert_same_rows(problem, blocks, point):
    """The same sums in the metric of the noise."""
    own, other = problem.sums_at(point)[0], blocks.sums_at(point)[0]
    identity = np.eye(own.n_basis)
    np.testing.assert_allclose(own.products(identity), other.products(identity), rtol=1e-9)
    assert own.sum_log_weights == pytest.approx(other.sum_log_weights, abs=1e-9)
