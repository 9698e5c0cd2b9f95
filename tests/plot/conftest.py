import numpy as np
import pandas as pd
import pytest

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.datasets import load_penicillin, load_sleepstudy
from reference.noise_models import fit


@pytest.fixture(scope="module")
def sleepstudy():
    """A fit by its columns, with the rows."""
    X, y = load_sleepstudy(return_X_y=True)
    return MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y), X, y


@pytest.fixture(scope="module")
def study():
    """The same model by its formula."""
    return lmer("Reaction ~ Days + (1 + Days | Subject)", load_sleepstudy().frame)


@pytest.fixture(scope="module")
def crossed():
    return lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", load_penicillin().frame)


@pytest.fixture(scope="module")
def many_levels():
    """A fit with a hundred thousand levels of two rows each, and the rows."""
    generator = np.random.default_rng(0)
    m = 100_000
    X = pd.DataFrame({"x": generator.uniform(size=2 * m), "g": np.tile(np.arange(m), 2)})
    y = X["x"] + generator.normal(size=m)[X["g"]] + generator.normal(size=2 * m)
    return MixedLinearRegressor(groups="g").fit(X, y), X, y


@pytest.fixture(scope="module")
def mares():
    """A fit with a residual structure beside random effects, and the rows."""
    found = fit("ovary_lme")
    return found.model, found.frame, found.y


@pytest.fixture
def without_noise():
    """A fit that reproduces its rows, and the rows."""
    X = pd.DataFrame({"x": np.arange(8.0), "g": np.repeat(["a", "b"], 4)})
    y = 2.0 * X["x"]
    model = MixedLinearRegressor(groups="g")
    with pytest.warns(UserWarning, match="reproduce"):
        model.fit(X, y)
    return model, X, y
