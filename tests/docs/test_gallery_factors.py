"""The pages on crossed and nested factors and on scikit-learn print what they say."""

import numpy as np
import pytest


@pytest.mark.parametrize(("page", "lme4_off"), [("penicillin", {"sample"}), ("pastes", set())])
def test_other_programs_print_the_same(gallery, page, lme4_off):
    table = gallery(page)["comparison"]
    for ours, theirs, tolerance in [("REML", "lme4", 6e-5), ("ML", "MixedModels.jl", 6e-5)]:
        rows = table.drop(index=list(lme4_off)) if theirs == "lme4" else table
        np.testing.assert_allclose(rows[ours], rows[theirs], rtol=tolerance, atol=6e-5)
    for row in lme4_off:  # the page says so
        assert 1e-4 < abs(table.loc[row, "REML"] - table.loc[row, "lme4"]) < 3e-4


def test_nested_variance_components_lose_the_samples(gallery):
    page = gallery("penicillin")
    assert page["plates_alone"].log_likelihood_ == pytest.approx(-306.6, abs=0.05)
    assert page["model"].log_likelihood_ == pytest.approx(-165.4, abs=0.05)


@pytest.mark.slow
def test_lecturers(gallery):
    page = gallery("insteval")
    assert -2.0 * page["model"].log_likelihood_ == pytest.approx(237733.834128, abs=1e-4)
    # The documentation of MixedModels.jl.
    departments = page["departments"]
    assert departments.log_likelihood_ == pytest.approx(-118792.7767, abs=1e-4)
    assert departments.covariances_["s"].iloc[0, 0] == pytest.approx(0.105418, abs=1.5e-6)
    assert departments.covariances_["d"].iloc[0, 0] == pytest.approx(0.258416, abs=1.5e-6)
    assert departments.noise_variance_ == pytest.approx(1.384728, abs=1.5e-6)
    shares = page["excluded"].groupby(page["table"]["factor"]).mean()
    assert shares["d"].round(2) == 0.44
    assert shares["s"].round(2) == 0.14
    highest = page["ranking"].nlargest(4, "mean")
    assert highest["count"].max() < 40


@pytest.mark.slow
def test_known_and_new_people(gallery):
    page = gallery("cross_validation")
    errors = page["errors"]
    assert errors["known people"].idxmin() == "mixed model, random intercept and slope"
    assert np.ptp(errors["new people"]) < 0.2
    # The more days of a new person are seen, the better the later ones are predicted.
    assert page["rmse"].is_monotonic_decreasing
    assert page["X"].loc[page["mine"], "Subject"].nunique() == 1


@pytest.mark.slow
def test_features(gallery):
    page = gallery("pipeline_features")
    errors = page["errors"]
    assert page["n_shops"] - len(page["counts"]) == 40
    known = errors["known shops"]
    assert known["boosting with BLUPs of the same rows"] < known["boosting with BLUPs"]
    assert errors["known shops"].nsmallest(2).index.str.contains("BLUPs").all()
