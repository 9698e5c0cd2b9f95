"""Every test process computes with one thread and draws without a screen.

The tests run in as many processes as there are cores. Threads of linear algebra on top of that wait
for each other and take many times as long.
"""

import runpy
from pathlib import Path

import matplotlib as mpl
import pytest
from threadpoolctl import threadpool_limits

import mixedlearn  # noqa: F401  (so that the libraries to be limited are loaded)

threadpool_limits(1)
mpl.use("Agg")

EXAMPLES = Path(__file__).parent / "examples"


@pytest.fixture(autouse=True)
def _close_figures():
    """No figure of one test is left to the next."""
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture(scope="session")
def gallery():
    """Run a page of the gallery, once in a process, and give its variables."""
    pages = {}

    def run(name):
        if name not in pages:
            pages[name] = runpy.run_path(str(EXAMPLES / f"{name}.py"))
        return pages[name]

    return run
