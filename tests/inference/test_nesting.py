"""Nesting by column spaces against R, whatever columns and levels are called; refusals."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.datasets import load_cake, load_sleepstudy
from mixedlearn.exceptions import NoGroupsWarning
from mixedlearn.inference import (
    bootstrap_lrt,
    likelihood_ratio_test,
)
from mixedlearn.inference._models import model_of
from mixedlearn.inference._resampling import Draws, draw_in_batches, rows_of_fit
from reference import FOLDER

STORED = json.loads((FOLDER / "nested.json").read_text(encoding="utf-8"))


def sleepstudy():
    frame = load_sleepstudy().frame
    return frame.assign(
        half=np.resize(["a", "b"], 180),
        z=np.resize([0.0, 1.0, 3.0, -2.0, 1.0, 0.0, 2.0], 180),
        year=2000 + frame["Days"],
        person=[f"no. {label}" for label in frame["Subject"]],
        other=np.random.default_rng(0).permutation(frame["Days"]),
    )


FRAMES = {"sleepstudy": sleepstudy(), "cake": load_cake().frame}


def in_python(formula):
    return formula.replace("factor(", "C(").replace("^", "**")


def fit(formula, data="sleepstudy", *, reml=False):
    data = FRAMES[data] if isinstance(data, str) else data
    return lmer(in_python(formula), data, reml=reml)


def case(entry):
    return " in ".join(formula.split("~")[1].strip() for formula in entry["formulas"])


@pytest.mark.parametrize("entry", STORED["comparisons"], ids=case)
@pytest.mark.parametrize("reml", [False, True])
def test_tests_are_those_of_lme4(entry, reml):
    models = [fit(formula, entry["data"], reml=reml) for formula in entry["formulas"]]
    for ordered in (models, models[::-1]):
        test = likelihood_ratio_test(*ordered)
        assert test.statistic == pytest.approx(entry["chi2"], abs=2e-5)
        assert test.df == entry["df"]
        assert test.p_value == pytest.approx(entry["p"], rel=1e-4)


@pytest.mark.parametrize(
    ("smaller", "larger", "df"),
    [
        ("Days + (1 | Subject)", "year + I(year**2) + (1 | person)", 1),
        ("0 + half + (1 | Subject)", "half * Days + (1 | Subject)", 2),
        ("Days + (Days || Subject)", "Days + (year | person)", 1),
        ("Days + (1 | Subject)", "Days + (year | person)", 2),
        ("C(Days) + (1 | Subject)", "poly(Days, 9) + (Days | person)", 2),
        ("Days + (1 | half:Subject)", "Days + z + (1 | person:half)", 1),
        ("Days + cs(0 + half | Subject)", "Days + (half | Subject)", 0),
        ("Days", "C(Days)", 8),
    ],
)
@pytest.mark.filterwarnings("ignore::mixedlearn.exceptions.NoGroupsWarning")
@pytest.mark.filterwarnings("ignore:likelihood_ratio_test cannot test")
def test_other_names(smaller, larger, df):
    one, other = fit(f"Reaction ~ {smaller}"), fit(f"Reaction ~ {larger}")
    if not df:
        with pytest.raises(ValueError, match="are the same"):
            likelihood_ratio_test(one, other)
        return
    test = likelihood_ratio_test(one, other)
    assert test.df == df
    expected = 2.0 * (other.log_likelihood_ - one.log_likelihood_)
    assert test.statistic == pytest.approx(max(expected, 0.0), abs=1e-5)


@pytest.mark.parametrize(
    ("smaller", "larger", "message"),
    [
        ("other + (1 | Subject)", "Days + z + (1 | Subject)", "fixed effect 'other'"),
        ("other + (1 | Subject)", "poly(Days, 9) + (1 | Subject)", "fixed effect 'other'"),
        ("Days + (1 | half)", "Days + z + (1 | person)", "grouping factor 'half'"),
        ("Days + (1 | half)", "Days + z + (1 | half:Subject)", "grouping factor 'half'"),
        ("Days + (year || Subject)", "Days + z + (Days || Subject)", "structure .diagonal"),
        ("Days + (other | Subject)", "z + Days + (poly(Days, 2) | Subject)", "effect 'other'"),
        ("Days + (Days | Subject)", "0 + Days + (Days + z | Subject)", "'intercept'"),
        ("Days + (half | Subject)", "z + Days + cs(0 + half | Subject, hom = TRUE)", "structure"),
    ],
)
def test_what_is_not_nested_is_refused(smaller, larger, message):
    one, other = fit(f"Reaction ~ {smaller}"), fit(f"Reaction ~ {larger}")
    for ordered in ((one, other), (other, one)):
        with pytest.raises(ValueError, match=f"not nested.*({message})|{message}"):
            likelihood_ratio_test(*ordered)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.booleans(), st.booleans())
def test_combinations_of_columns_are_told_from_others(seed, p, has_intercept, has_weights):
    generator = np.random.default_rng(seed)
    n = 60
    larger = generator.standard_normal((n, p + 1)) * 10.0 ** generator.integers(-1, 2, p + 1)
    smaller = larger @ generator.standard_normal((p + 1, p))
    groups, y = np.arange(n) % 7, generator.standard_normal(n)
    model = MixedLinearRegressor(fit_intercept=has_intercept, reml=False)
    given_to_fit = {"groups": groups}
    if has_weights:
        given_to_fit["sample_weight"] = generator.uniform(0.5, 2.0, n)
    fits = [
        MixedLinearRegressor(**model.get_params()).fit(X, y, **given_to_fit)
        for X in (smaller, larger)
    ]
    assert likelihood_ratio_test(*fits).df == 1
    place = generator.integers(n)
    smaller[place, 0] += 1e-4 * np.linalg.norm(smaller[:, 0])
    off = MixedLinearRegressor(**model.get_params()).fit(smaller, y, **given_to_fit)
    with pytest.raises(ValueError, match="not nested: the fixed effect 'x0'"):
        likelihood_ratio_test(off, fits[1])


def many_rows(n=20_000):
    generator = np.random.default_rng(1)
    shares = generator.random(30) ** 4
    frame = pd.DataFrame(
        {
            "x": generator.standard_normal(n),
            "w": generator.standard_normal(n),
            "k": generator.poisson(2.0, n),
            "g": generator.integers(0, 100, n),
            "site": generator.choice([f"s{j:02}" for j in range(30)], n, p=shares / shares.sum()),
        }
    )
    return frame.assign(y=generator.standard_normal(n) + generator.standard_normal(100)[frame["g"]])


@pytest.mark.filterwarnings("ignore:The fixed effects of .* are aliased")
@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        ("site * x + (1 | g)", "x * site + w + (1 | g)"),
        ("k + (1 | g)", "C(k) + (1 | g)"),
        ("x + (1 | g)", "poly(x, 3) + (w | g)"),
    ],
)
def test_rare_categories_among_many_rows(smaller, larger):
    frame = many_rows()
    assert frame["k"].value_counts().min() < 5
    models = [fit(f"y ~ {right}", frame) for right in (smaller, larger)]
    assert likelihood_ratio_test(*models).df > 0
    # Beyond the rows that take part in the sketch, products over all rows tell.
    frame.loc[frame.index[-1], ["x", "k"]] += 1
    off = fit(f"y ~ {smaller}", frame)
    with pytest.raises(ValueError, match=r"not nested|cannot be told"):
        likelihood_ratio_test(off, models[1])


def test_what_cannot_be_told_is_refused_and_says_so():
    frame = many_rows().assign(
        k=lambda own: np.where(own.index % 400 == 1, 1.0 + own.index // 400, 0.0)
    )
    with pytest.warns(NoGroupsWarning):
        models = [fit(f"y ~ {right}", frame) for right in ("k", "C(k)")]
    with pytest.raises(ValueError, match=r"cannot be told: .*20000 rows leaves open"):
        likelihood_ratio_test(*models)


def test_rows_in_other_orders_are_compared_by_name():
    frame = FRAMES["sleepstudy"]
    shuffled = frame.sample(frac=1.0, random_state=0)
    small = fit("Reaction ~ Days + (1 | Subject)", shuffled)
    assert likelihood_ratio_test(small, fit("Reaction ~ Days + (Days | Subject)")).df == 2
    for larger in ("poly(Days, 2) + (1 | Subject)", "z + Days + (1 | person)"):
        with pytest.raises(ValueError, match="not nested, by their names"):
            likelihood_ratio_test(small, fit(f"Reaction ~ {larger}"))
    # The same name does not make a column the same.
    mixed = shuffled.assign(Days=shuffled["other"])
    with pytest.raises(ValueError, match=r"'Days' .*its values are others"):
        likelihood_ratio_test(
            fit("Reaction ~ Days + (1 | Subject)", mixed), fit("Reaction ~ Days + (Days | Subject)")
        )


def test_the_same_names_of_other_columns_are_refused():
    frame = FRAMES["sleepstudy"]
    small = fit("Reaction ~ Days + (1 | Subject)", frame.assign(Days=frame["other"]))
    with pytest.raises(ValueError, match="fixed effect 'Days'"):
        likelihood_ratio_test(small, fit("Reaction ~ Days + (Days | Subject)"))
    groups = np.random.default_rng(1).permutation(frame["Subject"])
    small = fit("Reaction ~ Days + (1 | Subject)", frame.assign(Subject=groups))
    with pytest.raises(ValueError, match="grouping factor 'Subject'"):
        likelihood_ratio_test(small, fit("Reaction ~ Days + (Days | Subject)"))


def test_nesting_is_told_after_a_pickle_and_an_update():
    frame = FRAMES["sleepstudy"]
    small = fit("Reaction ~ Days + (1 | Subject)")
    large = pickle.loads(pickle.dumps(fit("Reaction ~ poly(Days, 2) + (1 | person)")))
    before = likelihood_ratio_test(small, large)
    small.update_random_effects(frame.head(3), frame["Reaction"].head(3))
    assert likelihood_ratio_test(small, large).statistic == before.statistic


def test_restricted_likelihoods_need_columns_of_the_same_units():
    wide = fit("Reaction ~ Days + (Days | Subject)", reml=True)
    shifted = fit("Reaction ~ year + (1 | Subject)", reml=True)
    test = likelihood_ratio_test(shifted, wide, refit=False)
    assert test.statistic == pytest.approx(42.837, abs=1e-3)
    scaled = fit("Reaction ~ I(2 * Days) + (1 | Subject)", reml=True)
    with pytest.raises(ValueError, match="depend on the units of the fixed effects"):
        likelihood_ratio_test(scaled, wide, refit=False)
    larger = fit("Reaction ~ Days + I(Days**2) + (Days | Subject)", reml=True)
    with pytest.raises(ValueError, match=r"lacks 'I\(Days \*\* 2\)'"):
        likelihood_ratio_test(shifted, larger, refit=False)


def test_mixture_of_other_columns():
    line = fit("Reaction ~ Days + (Days | Subject)")
    test = likelihood_ratio_test(line, fit("Reaction ~ year + (poly(Days, 2) | person)"))
    assert test.p_value_mixture < test.p_value


class TestSeveralModels:
    @pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0, 3, 1]])
    def test_the_table_is_that_of_lme4(self, order):
        stored = STORED["several"]
        models = [fit(stored["formulas"][place]) for place in order]
        tests = likelihood_ratio_test(*models)
        assert list(tests.table.index) == [f"model {order.index(place)}" for place in range(4)]
        for ours, theirs in {
            "n_parameters": "npar",
            "aic": "aic",
            "bic": "bic",
            "log_likelihood": "log_likelihood",
            "chi2": "chi2",
            "df": "df",
            "p_value": "p",
        }.items():
            expected = np.array(stored[theirs], dtype=float)
            found = tests.table[ours].to_numpy(dtype=float, na_value=np.nan)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)
        assert [test.df for test in tests.tests] == stored["df"][1:]
        assert tests.likelihood == "ML"
        assert tests.is_converged
        assert not tests.is_refitted

    def test_it_prints_its_models(self):
        models = [fit(formula, reml=True) for formula in STORED["several"]["formulas"]]
        tests = likelihood_ratio_test(*models)
        text = str(tests)
        assert "Models fitted by REML were refitted by ML." in text
        assert f"model 3: {models[3].formula_}" in text
        assert "nan" not in text.lower()
        assert "<table" in tests._repr_html_()

    def test_neighbours_that_are_not_nested_are_named(self):
        models = [
            fit(f"Reaction ~ {right} + (1 | Subject)")
            for right in ("z + other + Days", "half", "Days + other")
        ]
        with pytest.raises(ValueError, match=r"Models 1 and 2 are not nested: .*'half.T.b.'"):
            likelihood_ratio_test(*models)
        with pytest.raises(ValueError, match="Models 0 and 1 are the same"):
            likelihood_ratio_test(models[0], models[0], models[2])


class TestBootstrap:
    @pytest.mark.parametrize("entry", STORED["bootstraps"], ids=case)
    def test_p_values_are_those_of_pbkrtest(self, entry):
        data = FRAMES[entry["data"]]
        models = [fit(formula, data, reml=True) for formula in entry["formulas"]]
        n = 500
        test = bootstrap_lrt(*models, data, n_resamples=n, random_state=0)
        assert test.statistic == pytest.approx(entry["statistic"], abs=2e-5)
        assert test.df == entry["df"]
        # Five standard errors of the difference: false alarms below 1e-6.
        share = entry["p"] * (1.0 - entry["p"])
        bound = 5.0 * np.sqrt(share * (1.0 / n + 1.0 / entry["n_sim"]))
        for ours, theirs in {"bootstrap": "p", "Bartlett": "bartlett", "gamma": "gamma"}.items():
            assert test.table.loc[ours, "p_value"] == pytest.approx(entry[theirs], abs=bound)
        assert test.p_value == ((test.simulated >= test.statistic).sum() + 1) / (n + 1)
        assert test.n_not_converged == 0

    def test_a_resample_is_a_refit_of_both(self):
        data = FRAMES["sleepstudy"]
        smaller, larger = (
            fit("Reaction ~ Days + (1 | Subject)"),
            fit("Reaction ~ poly(Days, 2) + (Days | person)"),
        )
        test = bootstrap_lrt(larger, smaller, data, n_resamples=4, random_state=3)
        model = model_of(smaller)
        draws = Draws.of(model, rows_of_fit(smaller, model, data, None, None))
        (deviations,) = draw_in_batches(smaller, "draws", draws.deviations, 4, 4, 3, None)
        mean = smaller.predict(data, random_effects="none")
        for number in range(4):
            drawn = data.assign(Reaction=mean + deviations[:, number])
            ours = [fit(f"Reaction ~ {own.formula_}", drawn) for own in (smaller, larger)]
            statistic = 2.0 * (ours[1].log_likelihood_ - ours[0].log_likelihood_)
            assert test.simulated[number] == pytest.approx(statistic, abs=1e-5)
        again = bootstrap_lrt(smaller, larger, data, n_resamples=2, random_state=3, n_jobs=2)
        np.testing.assert_array_equal(again.simulated, test.simulated[:2])

    @pytest.mark.slow
    def test_p_values_under_the_hypothesis_are_uniform_enough(self):
        generator = np.random.default_rng(5)
        X = pd.DataFrame(generator.standard_normal((60, 2)), columns=["a", "b"])
        groups = np.arange(60) % 6
        p_values = []
        for _ in range(40):
            y = X["a"] + generator.standard_normal(6)[groups] + generator.standard_normal(60)
            small = MixedLinearRegressor(fixed_effects=["a"]).fit(X, y, groups=groups)
            large = MixedLinearRegressor().fit(X[["b", "a"]], y, groups=groups)
            test = bootstrap_lrt(
                small, large, X, groups=groups, n_resamples=99, random_state=generator
            )
            p_values.append(test.p_value)
        # Of 40 fair coins, so many heads or so few have a probability below 1e-4.
        assert 8 <= np.sum(np.array(p_values) < 0.5) <= 32

    def test_a_variance_and_models_without_groups(self):
        data = FRAMES["sleepstudy"]
        with pytest.warns(UserWarning, match="no groups"):
            none = MixedLinearRegressor().fit(data[["Days"]], data["Reaction"])
        some = MixedLinearRegressor().fit(
            data[["Days"]], data["Reaction"], groups=data[["Subject"]]
        )
        test = bootstrap_lrt(
            none, some, data, groups=data[["Subject"]], n_resamples=19, random_state=0
        )
        assert test.p_value == 0.05
        assert (test.simulated >= 0.0).all()
        assert "Parametric-bootstrap test" in str(test)
        assert "<table" in test._repr_html_()

    def test_aliased_columns_leave_nothing_to_test(self):
        data = FRAMES["sleepstudy"].assign(twice=lambda own: 2 * own["Days"])
        small = fit("Reaction ~ Days + (1 | Subject)", data)
        with pytest.warns(UserWarning, match="aliased"):
            large = fit("Reaction ~ Days + twice + (1 | Subject)", data)
        with pytest.warns(UserWarning, match="cannot test 'twice'"):
            test = bootstrap_lrt(small, large, data)
        assert np.isnan(test.p_value)
        assert test.df == 0
        assert str(test)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"n_resamples": 0}, "n_resamples must be a positive integer"),
            ({"X": FRAMES["sleepstudy"].head(20)}, "X has 20 rows"),
            (
                {"X": FRAMES["sleepstudy"].assign(Days=FRAMES["sleepstudy"]["z"])},
                "not those of the",
            ),
            ({"X": FRAMES["sleepstudy"].assign(Subject=1)}, "was not seen in fit"),
            ({"sample_weight": np.full(180, 2.0)}, "not those of the fit"),
            ({"est1": fit("Reaction ~ other + (1 | Subject)")}, "not nested"),
            ({"random_state": "seed"}, "random_state"),
        ],
    )
    def test_bad_input(self, change, message):
        arguments = {
            "est0": fit("Reaction ~ Days + (1 | Subject)"),
            "est1": fit("Reaction ~ Days + (Days | Subject)"),
            "X": FRAMES["sleepstudy"],
            "n_resamples": 2,
        }
        with pytest.raises(ValueError, match=message):
            bootstrap_lrt(**(arguments | change))
