"""Categories of a formula are equal exactly where labels of groups are."""

import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mixedlearn import lmer

RNG = np.random.default_rng(0)
N = 48
CODES = np.arange(N) % 4
FRAME = pd.DataFrame({"x": RNG.normal(size=N), "g": np.arange(N) // 6})
FRAME["y"] = CODES + FRAME["x"] + RNG.normal(size=8)[FRAME["g"]] + RNG.normal(size=N)
LARGE = 2**60 + CODES
DAYS = pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(CODES, unit="D"))
# What the same categories may come as.
SAME = {
    "booleans": [
        pd.Series(CODES > 1),
        pd.Series((CODES > 1) * 1),
        pd.Series((CODES > 1) * 1.0),
        pd.Series(CODES > 1, dtype="boolean"),
        pd.Series((CODES > 1) * 1, dtype="Int64"),
        pd.Series(CODES > 1, dtype=object),
    ],
    "large integers": [
        pd.Series(LARGE),
        pd.Series(LARGE, dtype="Int64"),
        pd.Series(LARGE.astype(np.uint64)),
        pd.Series(LARGE, dtype="int64[pyarrow]"),
        pd.Series([int(label) for label in LARGE], dtype=object),
        pd.Series([Decimal(int(label)) for label in LARGE], dtype=object),
        pd.Series(LARGE).astype("category"),
    ],
    "days": [DAYS, DAYS.dt.date.astype(object), DAYS.astype("datetime64[s]")],
    "text": [
        pd.Series(list("abcd"))[CODES].reset_index(drop=True),
        pd.Series(list("abcd"), dtype="string")[CODES].reset_index(drop=True),
        pd.Series(list("abcd"))[CODES].reset_index(drop=True).astype("category"),
        pd.Series(list("abcd"))[CODES]
        .reset_index(drop=True)
        .astype(pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))),
    ],
}
PAIRS = [
    pytest.param(first, second, id=f"{kind}-{i}-{j}")
    for kind, forms in SAME.items()
    for i, first in enumerate(forms)
    for j, second in enumerate(forms)
]


@pytest.mark.parametrize(("in_fit", "in_predict"), PAIRS)
def test_equal_categories_are_found(in_fit, in_predict):
    model = lmer("y ~ C(t, contr.sum):x + C(t) + (1 | g)", FRAME.assign(t=in_fit))
    np.testing.assert_array_equal(
        model.predict(FRAME.assign(t=in_predict)), model.predict(FRAME.assign(t=in_fit))
    )


@pytest.mark.parametrize("position", range(len(SAME["large integers"])))
def test_large_integers_stay_apart(position):
    model = lmer("y ~ C(t) + x + (1 | g)", FRAME.assign(t=SAME["large integers"][position]))
    expected = lmer("y ~ C(t) + x + (1 | g)", FRAME.assign(t=CODES))
    assert model.log_likelihood_ == pytest.approx(expected.log_likelihood_, rel=1e-12)


def test_decimal_fractions_that_floats_do_not_tell_apart_stay_apart():
    close = [Decimal(1) + Decimal(int(code)) / Decimal(10**20) for code in CODES]
    model = lmer("y ~ C(t) + x + (1 | g)", FRAME.assign(t=close))
    expected = lmer("y ~ C(t) + x + (1 | g)", FRAME.assign(t=CODES))
    assert model.log_likelihood_ == pytest.approx(expected.log_likelihood_, rel=1e-12)


def test_floats_that_do_not_hold_every_integer_are_refused():
    with pytest.raises(ValueError, match=r"categories of 'C\(t\)' have the label 9007199254740992"):
        lmer("y ~ C(t) + x + (1 | g)", FRAME.assign(t=2.0**53 + CODES))


@pytest.mark.parametrize("form", ["{}", "C({})"])
@pytest.mark.parametrize(
    "expression",
    [
        "np.where(x > 0, 'high', 'low')",
        "np.select([x > 0.5, x > -0.5], ['high', 'middle'], 'low')",
        "np.asarray(s)",
    ],
)
def test_text_of_numpy_is_categories(expression, form):
    data = FRAME.assign(s=SAME["text"][0])
    codes = {
        "np.where(x > 0, 'high', 'low')": np.where(FRAME["x"] > 0, "high", "low"),
        "np.select([x > 0.5, x > -0.5], ['high', 'middle'], 'low')": np.select(
            [FRAME["x"] > 0.5, FRAME["x"] > -0.5], ["high", "middle"], "low"
        ),
        "np.asarray(s)": data["s"].to_numpy(),
    }[expression]
    model = lmer(f"y ~ {form.format(expression)} + (1 | g)", data)
    expected = lmer("y ~ s + (1 | g)", data.assign(s=codes))
    np.testing.assert_allclose(model.coef_, expected.coef_)
    np.testing.assert_allclose(
        model.predict(data.tail(5)), expected.predict(data.assign(s=codes).tail(5))
    )


def test_a_category_of_another_kind_is_refused():
    model = lmer("y ~ C(t) + (1 | g)", FRAME.assign(t=CODES))
    text = FRAME.assign(t=CODES.astype(str))
    with pytest.raises(ValueError, match=r"'0' of 'C\(t\)' \(row 0\) was not seen in fit"):
        model.predict(text)


def test_dates_are_days():
    today = [datetime.date(2024, 1, 1 + int(code)) for code in CODES]
    model = lmer("y ~ C(t) + (1 | g)", FRAME.assign(t=today))
    assert len(model.coef_) == 3
