"""Numbers are numbers and dates are refused, whatever the type of the column that holds them."""

import datetime
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.exceptions import DataWarning

RANDOM = np.random.default_rng(2)
N_ROWS = 120
NUMBERS = RANDOM.integers(1, 9, N_ROWS)
DATA = pd.DataFrame({"k": NUMBERS / 4, "g": np.repeat(np.arange(12), 10)})
DATA["y"] = DATA["k"] + RANDOM.normal(size=12)[DATA["g"]] + RANDOM.normal(size=N_ROWS)
KINDS = {
    "decimals": [Decimal(int(number)) / 4 for number in NUMBERS],
    "fractions": [Fraction(int(number), 4) for number in NUMBERS],
    "floats": [float(number) / 4 for number in NUMBERS],
    "mixed": [Decimal(int(n)) / 4 if row % 2 else float(n) / 4 for row, n in enumerate(NUMBERS)],
    "arrow": pd.array(
        [Decimal(int(number)) / 4 for number in NUMBERS],
        dtype=pd.ArrowDtype(pytest.importorskip("pyarrow").decimal128(10, 2)),
    ),
}


def with_kind(kind):
    values = KINDS[kind]
    return DATA.assign(k=pd.Series(values, dtype=object if isinstance(values, list) else None))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "formula",
    [
        "y ~ k + (1 | g)",
        "y ~ I(k**2) + (1 | g)",
        "y ~ 1 + (k | g)",
        "y ~ poly(k, 2) + (1 | g)",
    ],
)
def test_numbers_in_formulas(kind, formula):
    found, expected = lmer(formula, with_kind(kind)), lmer(formula, DATA)
    assert found.formula_ == expected.formula_
    assert found.log_likelihood_ == pytest.approx(expected.log_likelihood_, abs=1e-8)
    assert_allclose(found.predict(with_kind(kind).head(3)), expected.predict(DATA.head(3)))


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_by_parameters_and_as_responses(kind):
    model = MixedLinearRegressor(groups="g", random_slopes=["k"])
    X, y = with_kind(kind)[["k", "g"]], DATA["y"]
    expected = model.fit(DATA[["k", "g"]], y).log_likelihood_
    assert model.fit(X, y).log_likelihood_ == pytest.approx(expected)
    expected = lmer("k ~ y + (1 | g)", DATA).log_likelihood_
    assert lmer("k ~ y + (1 | g)", with_kind(kind)).log_likelihood_ == pytest.approx(expected)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_missing_numbers(missing):
    data = with_kind("decimals")
    data.loc[7, "k"] = missing
    with pytest.raises(ValueError, match=r"column 'k' of the formula has a missing .* row 7"):
        lmer("y ~ k + (1 | g)", data)


def day(number):
    return datetime.date(2020, 1, int(number))


DATES = {
    "datetime64": (pd.Timestamp("2020-01-01") + pd.to_timedelta(NUMBERS, unit="D"), "date"),
    "dates": (list(map(day, NUMBERS)), "date"),
    "timestamps": (pd.Series(list(map(pd.Timestamp, map(day, NUMBERS))), dtype=object), "date"),
    "times": ([datetime.time(int(number)) for number in NUMBERS], "date"),
    "arrow": (pd.array(list(map(day, NUMBERS)), dtype="date32[pyarrow]"), "date"),
    "numpy": (pd.Series([np.datetime64(day(n)) for n in NUMBERS], dtype=object), "date"),
    "timedelta64": (pd.to_timedelta(NUMBERS, unit="D"), "time difference"),
    "timedeltas": (
        pd.Series([datetime.timedelta(int(number)) for number in NUMBERS], dtype=object),
        "time difference",
    ),
}


@pytest.mark.parametrize("kind", DATES)
def test_dates_are_refused_in_the_same_words(kind):
    values, what = DATES[kind]
    data = DATA.assign(k=values)
    message = (
        f"'k' of the formula is not numeric: it holds {what}s. Convert it to numbers, or write"
    )
    for formula in ("y ~ k + (1 | g)", "y ~ 1 + (k | g)", "y ~ 1 + (0 + k | g)", "k ~ y + (1 | g)"):
        with pytest.raises(ValueError, match=message):
            lmer(formula, data)
    with pytest.raises(ValueError, match=f"Column 'k' of X is not numeric: .* is a {what}"):
        MixedLinearRegressor(groups="g").fit(data[["k", "g"]], data["y"])
    with pytest.raises(ValueError, match=f"y is not numeric: .* is a {what}"):
        MixedLinearRegressor(groups="g").fit(data[["y", "g"]], data["k"])
    # They are labels and categories like any others.
    n_days = len(set(NUMBERS))
    assert lmer("y ~ 1 + (1 | k)", data).n_groups_ == {"k": n_days}
    assert len(lmer("y ~ C(k) + (1 | g)", data).coef_) == n_days - 1


def test_a_category_of_numbers_by_parameters_is_told():
    X = DATA[["k", "g"]].assign(k=pd.Categorical(NUMBERS))
    model = MixedLinearRegressor(groups="g")
    with pytest.warns(
        DataWarning, match="Column 'k' of X is a pandas category of numbers"
    ) as caught:
        model.fit(X, DATA["y"])
    assert caught[0].filename == __file__
    assert model.coef_.shape == (1,)
    # As a group it is what it is.
    MixedLinearRegressor(groups=["g", "k"], fixed_effects=[]).fit(X, DATA["y"])
    by_formula = MixedLinearRegressor(formula="k + (1 | g)").fit(X, DATA["y"])
    assert by_formula.coef_.shape == (len(set(NUMBERS)) - 1,)
