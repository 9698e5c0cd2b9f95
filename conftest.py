"""Every test process computes with one thread and draws without a screen.

The tests run in as many processes as there are cores. Threads of linear algebra on top of that wait
for each other and take many times as long. The examples in `src`, `docs` and the README are tests
too, so this is at the root; the rest is in `tests/conftest.py`.
"""

import matplotlib as mpl
import pytest
from threadpoolctl import threadpool_limits

import mixedlearn  # noqa: F401  (so that the libraries to be limited are loaded)

threadpool_limits(1)
mpl.use("Agg")

LEFT_OUT = pytest.StashKey[int]()


@pytest.fixture(autouse=True)
def _close_figures():
    """No figure of one test is left to the next."""
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


# --- the last lines say how many slow tests were left out ------------------------------------------
def pytest_deselected(items):
    for item in items:
        stash = item.config.stash
        is_slow = item.get_closest_marker("slow") is not None
        stash[LEFT_OUT] = stash.get(LEFT_OUT, 0) + is_slow


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # one of the processes of pytest-xdist
        session.config.workeroutput["left_out"] = session.config.stash.get(LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Every process of pytest-xdist collects the same tests, and leaves out the same."""
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", 0)


def pytest_terminal_summary(terminalreporter, config):
    left_out = config.stash.get(LEFT_OUT, 0)
    if left_out and config.getoption("markexpr") == "not slow":
        terminalreporter.write_line("")
        terminalreporter.write_line(f'{left_out} slow tests were not run: pytest -m "" runs all.')
