"""Which of many cases are in the default run."""

import pytest


def some_of_every_family(seeds, n_families):
    """Problems of numbered families, seed by seed: every fifth of each is not slow."""
    return [
        pytest.param(seed, marks=pytest.mark.slow if seed // n_families % 5 else ())
        for seed in seeds
    ]
