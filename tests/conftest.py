"""What tests of several packages share: which cases are slow."""

from collections import Counter

import pytest


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
