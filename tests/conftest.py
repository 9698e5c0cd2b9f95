"""What tests of several packages share: engines, which cases are slow, how many were left out."""

import os
from collections import Counter

import hypothesis
import pytest

# The same examples in every run: what fails, fails again. HYPOTHESIS_PROFILE=default draws others.
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

LEFT_OUT = pytest.StashKey[int]()
# Up to so many random effects of several factors are one dense block.
ENGINES = {"joint": 10**6, "elimination": 0}


@pytest.fixture
def use_engine(monkeypatch):
    """Have models of several factors fitted by one of the engines from here on."""

    def use(name):
        monkeypatch.setattr("mixedlearn.engines.choose.MOST_JOINT_EFFECTS", ENGINES[name])

    return use


@pytest.fixture(params=ENGINES)
def engine(request, use_engine):
    """Each engine for several factors in turn; a test that asks for this gets its name."""
    use_engine(request.param)
    return request.param


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark the cases that `slow_cases` says: its texts are in their ids, or all but every n-th."""
    seen = Counter()
    for item in items:
        for marker in item.iter_markers("slow_cases"):
            test = item.nodeid.partition("[")[0]
            is_slow = any(text in item.callspec.id for text in marker.args)
            is_slow |= seen[test] % marker.kwargs.get("every", 1) != 0
            seen[test] += 1
            if is_slow:
                item.add_marker("slow")


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
