"""What tests of several packages share: which cases are slow, and how many were left out."""

from collections import Counter

import pytest

LEFT_OUT = pytest.StashKey[int]()


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
