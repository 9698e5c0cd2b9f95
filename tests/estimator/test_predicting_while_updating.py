"""A prediction during an update is that of the state before or after it."""

import sys
import threading

import numpy as np
import pytest

from mixedlearn import MixedLinearRegressor

N_PREDICTIONS = 10_000


@pytest.fixture
def short_turns():
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.slow
@pytest.mark.usefixtures("short_turns")
def test_every_prediction_is_that_of_a_state_that_existed():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(100, 140), 3)
    x = rng.standard_normal((120, 1))
    y = x[:, 0] + rng.standard_normal(40)[groups - 100] + 0.1 * rng.standard_normal(120)
    model = MixedLinearRegressor().fit(x, y, groups=groups)
    known = np.arange(100, 140)
    at = np.zeros((40, 1))

    def predicted():
        return model.predict(at, groups=known)

    states = [predicted().tobytes()]
    is_done = threading.Event()
    found, failures = set(), []

    def predict():
        try:
            for _ in range(N_PREDICTIONS):
                found.add(predicted().tobytes())
        except Exception as error:
            failures.append(error)
        is_done.set()

    thread = threading.Thread(target=predict)
    thread.start()
    # Labels that sort before all others: levels and BLUPs of the known ones move at every update.
    new = iter(range(99, 0, -1))
    while not is_done.is_set():
        label = next(new, None)
        if label is None:
            break
        more = [label, 100 + label % 40]
        model.update_random_effects(np.zeros((2, 1)), [5.0, -5.0], groups=more)
        states.append(predicted().tobytes())
    thread.join()
    assert not failures
    assert len(found) > 1  # updates came in between
    assert found <= set(states)
