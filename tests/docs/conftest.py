import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def gallery():
    """Run a page of the gallery, once in a process, and give its variables."""
    pages = {}

    def run(name):
        if name not in pages:
            pages[name] = runpy.run_path(str(EXAMPLES / f"{name}.py"))
        return pages[name]

    return run
