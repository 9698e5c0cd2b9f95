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


@pytest.fixture(autouse=True)
def _close_figures():
    """No figure of one test is left to the next."""
    yield
    import matplotlib.pyplot as plt

    plt.close("all")
