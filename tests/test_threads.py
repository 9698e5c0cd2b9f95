"""Threads of BLAS: one within a fit, as many as before after it."""

from threading import Thread

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from mixedlearn import MixedLinearRegressor
from mixedlearn.estimator import regressor
from mixedlearn.model.fit import fit_sums
from mixedlearn.threads import LARGE_PRODUCT, one_thread, threads_for

CONTROLLER = ThreadpoolController().select(user_api="blas")


def numbers():
    return [library.get_num_threads() for library in CONTROLLER.lib_controllers]


@pytest.fixture(params=[1, 2])
def allowed(request):
    with threadpool_limits(request.param, user_api="blas"):
        yield [request.param] * len(CONTROLLER.lib_controllers)


def test_one_thread_within_and_all_after(allowed):
    with one_thread:
        assert set(numbers()) == {1}
        with one_thread:
            assert set(numbers()) == {1}
        assert set(numbers()) == {1}
    assert numbers() == allowed


def test_large_products_have_the_threads_that_are_allowed(allowed):
    with one_thread:
        with threads_for(LARGE_PRODUCT):
            assert numbers() == allowed
        assert set(numbers()) == {1}
        with threads_for(0.99 * LARGE_PRODUCT):
            assert set(numbers()) == {1}
    with threads_for(LARGE_PRODUCT):
        assert numbers() == allowed


def test_numbers_come_back_after_an_error(allowed):
    with pytest.raises(ZeroDivisionError), one_thread, threads_for(LARGE_PRODUCT):
        1 / 0  # noqa: B018
    assert numbers() == allowed


def test_contexts_overlap_in_threads_of_python(allowed):
    def enter_often():
        for _ in range(200):
            with one_thread, threads_for(LARGE_PRODUCT):
                pass

    workers = [Thread(target=enter_often) for _ in range(4)]
    with one_thread:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert numbers() == allowed


def test_a_fit_has_one_thread(allowed, monkeypatch):
    seen = []

    def watched(sums, recipe, start):
        seen.append(numbers())
        return fit_sums(sums, recipe, start)

    monkeypatch.setattr(regressor, "fit_sums", watched)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 2)), rng.normal(size=40)
    MixedLinearRegressor().fit(X, y, groups=np.arange(40) % 8)
    assert seen == [[1] * len(allowed)]
    assert numbers() == allowed
