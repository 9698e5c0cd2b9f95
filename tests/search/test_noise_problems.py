"""The noise problems: the best optimum known is found and certified, or refused at the edge.

The references come from a dense likelihood with charts of its own; see `reference.noise_problems`.
"""

import dataclasses
import json
import warnings

import numpy as np
import pytest

from helpers.selection import some_of_every_family
from mixedlearn import MixedLinearRegressor
from reference import FOLDER
from reference.noise_problems import (
    FAMILIES,
    KINDS,
    criterion_of,
    is_at_edge,
    noise_problem,
)

STORED = json.loads((FOLDER / "noise_problems.json").read_text())["problems"]
SEEDS = range(len(STORED))
# What a criterion may exceed the best known one by.
WORSE = 1e-6


def fit(problem):
    """The fit, or the message of the refusal."""
    model = MixedLinearRegressor(
        formula=problem.formula,
        groups=problem.groups,
        residual=problem.residual,
        reml=problem.reml,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return model.fit(problem.data, problem.data["y"], sample_weight=problem.weights)
        except ValueError as error:
            return str(error)


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("seed", some_of_every_family(SEEDS, len(FAMILIES)))
def test_the_best_optimum_is_found_and_certified(seed):
    entry = STORED[seed]
    assert entry["seed"] == seed
    assert noise_problem(seed).fingerprint() == entry["sha256"]
    model = fit(noise_problem(seed))
    if entry["at_edge"]:
        assert "is not identified by these rows: the likelihood rises until it is" in model
        return
    assert model.converged_
    found = -2.0 * model.log_likelihood_
    assert found <= entry["criterion"] + WORSE
    # A lower one would not be of the same likelihood: the reference has been searched twice.
    assert found >= entry["criterion"] - 1e-5


@pytest.mark.parametrize("seed", some_of_every_family(SEEDS, len(FAMILIES)))
def test_the_references_are_what_they_say(seed):
    entry, problem = STORED[seed], noise_problem(seed)
    n, criterion = criterion_of(problem)
    parameters = np.array(entry["parameters"])
    assert len(parameters) == n
    assert criterion(parameters) == pytest.approx(entry["criterion"], rel=1e-12)
    assert is_at_edge(problem, parameters) == entry["at_edge"]
    # At the edge a likelihood may rise for ever, and no search sees the end.
    assert entry["at_edge"] or entry["agreement"] <= 1e-6


def test_there_are_problems_of_all_kinds():
    kinds = {noise_problem(seed).correlation for seed in SEEDS}
    assert kinds == {*KINDS, None}
    interior = [entry for entry in STORED if not entry["at_edge"]]
    assert len(interior) > 0.9 * len(STORED)
    assert sum(len(entry["local_optima"]) > 1 for entry in interior) > 10
    words = " ".join(entry["kind"] for entry in STORED)
    for word in ("dropout", "gaps", "irregular", "weighted", "REML", " ML"):
        assert word in words


def test_an_optimum_at_the_edge_is_named():
    """Beside random effects the likelihood may be highest where a Toeplitz matrix is singular."""
    problem = dataclasses.replace(
        noise_problem(2), correlation="toeplitz", is_heterogeneous=True, randoms=(("id", False),)
    )
    assert "the partial correlation at distance 3 tends to -1" in fit(problem)
    inner = dataclasses.replace(noise_problem(7), correlation="toeplitz", randoms=(("id", False),))
    assert fit(inner).converged_
