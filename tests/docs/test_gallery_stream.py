"""The page on rows that keep coming prints what it says."""

import matplotlib.pyplot as plt
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def stream(gallery):
    yield gallery("stream")
    plt.close("all")


def test_the_variances_drawn_are_found(stream):
    table = stream["model"].summary(std_error=True).random_effects
    drawn = [0.25, 0.0009, 0.64]
    assert (abs(table["variance"] - drawn) < 4.5 * table["std_error"]).all()


def test_files_and_memory_agree(stream):
    # The model of the folder has the rows of the last month, too, by now.
    model, again = stream["model"], stream["again"]
    assert model.log_likelihood_ == pytest.approx(again.log_likelihood_, abs=1e-6)
    assert model.n_groups_ == again.n_groups_
    last = stream["history"].iloc[-1]
    assert stream["stream"].log_likelihood_ == pytest.approx(
        stream["in_memory"].log_likelihood_, abs=1e-6
    )
    assert last["cold"] == pytest.approx(stream["in_memory"].coef_[0], rel=1e-8)


def test_houses_join_and_warm_months_say_little(stream):
    assert stream["n_before"] < stream["model"].n_groups_["house"]
    errors = stream["history"]["error"]
    assert errors.is_monotonic_decreasing
    assert errors[9] / errors[5] > 0.9
    assert errors[5] / errors[1] < 0.6


def test_the_houses_named_lose_heat(stream):
    assert stream["slopes"].corr(stream["truth"][stream["slopes"].index]) > 0.85
    assert (stream["truth"][stream["worst"]] > 0.03).sum() > 60
