"""`describe`: the blocks of a model before it is fitted, and the refusal of what does not fit."""

import numpy as np
import pandas as pd
import pytest

from mixedlearn import MixedLinearRegressor
from mixedlearn.datasets import load_insteval, load_pastes, load_sleepstudy
from mixedlearn.engines import plan
from mixedlearn.engines.stochastic import products


def lines(model, X, **arguments):
    return str(model.describe(X, **arguments)).splitlines()


def nested_and_crossed():
    """Pupils in classes in schools, and raters across them; 900 pupils, 60 classes, 6 schools."""
    pupil = np.repeat(np.arange(900), 2)
    rater = np.random.default_rng(0).permutation(np.arange(1800) % 50)
    school = pupil // 150
    return pd.DataFrame(
        {"school": school, "rater": rater, "pupil": pupil, "class": pupil // 15, "x": pupil % 7}
    )


def test_one_factor():
    X, _ = load_sleepstudy(return_X_y=True)
    model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"])
    assert lines(model, X) == [
        "180 rows, 2 fixed effects, 36 random effects of 1 grouping factor",
        "factor   levels  effects  stored as",
        "Subject      18        2  18 blocks of 2 x 2",
    ]


def test_few_random_effects_are_one_block():
    X, _ = load_pastes(return_X_y=True)
    model = MixedLinearRegressor(groups=["batch", ("batch", "cask")], fixed_effects=[])
    found = model.describe(X)
    assert found.factors == ("batch", "batch:cask")
    assert found.n_levels == (10, 30)
    assert found.tail_size == 40
    assert set(found.blocks) == {"part of one dense block"}


def test_crossed_factors_share_the_dense_block():
    X, _ = load_insteval(return_X_y=True)
    model = MixedLinearRegressor(groups=["dept", "d", "s"], fixed_effects=["service"])
    found = model.describe(X)
    assert found.factors == ("s", "d", "dept")
    assert found.tail_size == 1128 + 14
    pairs = len(X[["s", "d"]].drop_duplicates()) + len(X[["s", "dept"]].drop_duplicates())
    assert f"{pairs:,} entries beside the dense block" in found.blocks[0]
    lines = str(found).split("\n")
    assert max(map(len, lines)) <= 80
    assert lines[2].index("2,972 blocks") == lines[3].index(f"{pairs:,} entries")
    # Two matrices of doubles.
    assert found.tail_gigabytes == pytest.approx(2 * 8 * 1142**2 / 1e9)


def test_a_chain_of_nested_factors_leaves_the_others_to_the_dense_block():
    X = nested_and_crossed()
    groups = ["school", "rater", "pupil", "class"]
    found = MixedLinearRegressor(groups=groups, random_slopes={"rater": ["x"]}).describe(X)
    assert found.factors == ("pupil", "class", "school", "rater")
    assert found.n_effects == (1, 1, 1, 2)
    assert found.tail_size == 100
    assert "nested in class" in found.blocks[0]
    assert "nested in school" in found.blocks[1]
    assert "nested" not in found.blocks[2]


def test_purely_nested_factors_have_no_dense_block():
    X = nested_and_crossed()
    model = MixedLinearRegressor(groups=["class", "school", "pupil"])
    assert model.describe(X).tail_size == 0
    assert "dense" not in str(model.describe(X))


def test_labels_beside_the_columns():
    X = nested_and_crossed()
    model = MixedLinearRegressor()
    found = model.describe(X[["x"]], groups=X[["pupil", "rater"]])
    assert found.factors == ("pupil", "rater")
    assert found.n_fixed == 2


def test_describing_leaves_no_trace():
    X, _ = load_sleepstudy(return_X_y=True)
    model = MixedLinearRegressor(groups="Subject")
    before = set(vars(model))
    model.describe(X)
    assert set(vars(model)) == before


def test_without_groups_there_are_no_blocks():
    found = lines(MixedLinearRegressor(), np.zeros((5, 2)))
    assert found == ["5 rows, 3 fixed effects, 0 random effects of 0 grouping factors"]


def test_a_dense_block_that_does_not_fit_is_refused(monkeypatch):
    X = nested_and_crossed()
    y = np.random.default_rng(1).standard_normal(len(X))
    model = MixedLinearRegressor(groups=["pupil", "rater"], solver="exact")
    monkeypatch.setattr(plan, "_memory", lambda: 2 * 8 * 50**2)
    model.fit(X[["pupil", "rater", "x"]], y)
    monkeypatch.setattr(plan, "_memory", lambda: 2 * 8 * 50**2 - 1)
    with pytest.raises(MemoryError, match=r"'rater' \(50\).*needs 0\.0 GB.*leave out"):
        model.fit(X[["pupil", "rater", "x"]], y)
    # Without such a block the model fits all the same.
    monkeypatch.setattr(products, "MOST_SMALL_EFFECTS", 49)
    model.set_params(solver="auto", random_state=0).fit(X[["pupil", "rater", "x"]], y)
    assert model.solver_ == "stochastic"
    # Nested factors need no dense block, whatever their number.
    MixedLinearRegressor(groups=["pupil", "class", "school"]).fit(X.drop(columns="rater"), y)


def test_a_machine_that_does_not_say_how_much_memory_it_has(monkeypatch):
    monkeypatch.delattr(plan.os, "sysconf")
    assert plan._memory() is None


@pytest.mark.parametrize(("text", "expected"), [("max", 4096 * 1000), ("1234", 1234)])
def test_the_limit_of_a_container_counts(text, expected, monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    limit.write_text(text)
    monkeypatch.setattr(plan, "CGROUP_LIMIT", limit)
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}
    monkeypatch.setattr(plan.os, "sysconf", pages.__getitem__)
    assert plan._memory() == expected


@pytest.mark.parametrize(
    ("groups", "engine"),
    [
        (["pupil"], "one_factor"),
        (["school", "rater"], "joint"),
        (["pupil", "rater"], "elimination"),
    ],
)
def test_the_fit_follows_the_plan_that_is_described(groups, engine):
    X = nested_and_crossed()
    y = X["x"] + np.random.default_rng(0).standard_normal(len(X))
    model = MixedLinearRegressor(groups=groups, fixed_effects=["x"]).fit(X, y)
    followed, found = model._fitted.model.problem().plan, model.describe(X)
    assert followed.engine == engine
    assert found.tail_size == followed.n_dense
    assert found.tail_gigabytes == followed.memory / 1e9
    assert found.factors == tuple(groups[block.factor] for block in followed.blocks)
