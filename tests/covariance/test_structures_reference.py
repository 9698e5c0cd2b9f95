"""Structures against nlme (pdCompSymm) and glmmTMB (cs(), ar1()); see reference/make_structures.R.

nlme's estimates are polished by EM, glmmTMB's by Newton steps with its own gradient, so that the
stored digits are theirs. Five of them are promised to users; here are seven.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mixedlearn import lmer

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "structures.json").read_text())
ESTIMATES = 1e-7
CRITERION = 1e-8
FORMULAS = {
    "machines": "score ~ machine + {}(0 + machine | worker{})",
    "sleep": "reaction ~ days + {}(0 + occasion | subject{})",
}
NOTATION = {
    "compound_symmetry": ("cs", ", hom = TRUE"),
    "heterogeneous_compound_symmetry": ("cs", ""),
    "ar1": ("ar1", ""),
}


@pytest.mark.parametrize(
    "entry", REFERENCE["models"], ids=lambda entry: f"{entry['id']} {entry['reml']}"
)
def test_the_estimates_are_those_of_r(entry):
    data = pd.DataFrame(REFERENCE["data"][entry["data"]])
    formula = FORMULAS[entry["data"]].format(*NOTATION[entry["covariance"]])
    model = lmer(formula, data, reml=entry["reml"])
    assert model.converged_
    assert -2.0 * model.log_likelihood_ == pytest.approx(entry["criterion"], abs=CRITERION)
    (covariance,) = model.covariances_.values()
    expected = np.array(entry["random_covariance"])
    np.testing.assert_allclose(covariance, expected, rtol=ESTIMATES)
    assert model.noise_variance_ == pytest.approx(entry["noise_variance"], rel=ESTIMATES)
    coef = np.append(model.intercept_, model.coef_)
    np.testing.assert_allclose(coef, entry["coef"], rtol=ESTIMATES)
