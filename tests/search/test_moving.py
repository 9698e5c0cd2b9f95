"""Newton-Raphson over points that know how to move."""

from dataclasses import dataclass

import numpy as np
import pytest

from mixedlearn.search.moving import descend_from


@dataclass
class Value:
    objective: float
    gradient: np.ndarray
    hessian: np.ndarray


class Bowl:
    """A smooth bowl around ones, far above zero, so that its values have few digits."""

    def __init__(self, height: float):
        self.height = height

    def evaluate(self, point, order):
        off = point - 1.0
        value = self.height + np.sum(np.cosh(off) - 1.0)
        return Value(value, np.sinh(off), np.diag(np.cosh(off)))

    def moved(self, point, step):
        return point + step

    def charted(self, point):
        return point, np.arange(len(point))

    def lengths(self, point):
        return np.ones(len(point))


@pytest.mark.parametrize("height", [0.0, 1e5, 1e9])
@pytest.mark.parametrize("start", [0.999, 1.003, 3.0])
def test_few_digits_of_the_objective_do_not_cost_the_certificate(height, start):
    end = descend_from(Bowl(height), np.full(40, start), max_iter=50, tol=1e-8)
    assert end.is_certified
    # As near as the objective shows, and nearer by the gradient.
    np.testing.assert_allclose(end.point, 1.0, atol=1e-4)


def test_a_search_that_may_not_go_on_has_no_certificate():
    end = descend_from(Bowl(0.0), np.full(3, 30.0), max_iter=2, tol=1e-8)
    assert not end.is_certified
    assert end.n_iterations == 2
