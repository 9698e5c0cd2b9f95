"""Every function of inference on models that are legal but degenerate, or large.

None may fail or warn, but for what it says cannot be asked, and what comes out is held against a
model that is not degenerate: least squares where no random effects are left, the model without an
aliased column, the rows without those of weight zero, dummy variables in the place of categories.
Such pairs are fits of their own, to 1e-8 of the criterion: estimates and tables get 1e-5 of their
size.
"""

import functools
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, norm, t

from mixedlearn import MixedLinearRegressor, inference
from mixedlearn.datasets import load_dyestuff2

DDF = ("satterthwaite", "kenward-roger", "residual", "normal")
RTOL = 1e-5
N = 60
RNG = np.random.default_rng(0)
G, H = np.arange(N) % 6, np.repeat(np.arange(5), 12)
ROWS = pd.DataFrame(
    {
        "x": RNG.normal(size=N),
        "z": 2.0 + RNG.normal(size=N),
        "c": RNG.choice(["p", "q", "r"], N),
        "g": [f"g{code}" for code in G],
        "h": [f"h{code}" for code in H],
        "one": "only",
        "row": np.arange(N),
    }
)
ROWS["doubled"] = 2.0 * ROWS["x"] - 1.0
ROWS["cq"], ROWS["cr"] = 1.0 * (ROWS["c"] == "q"), 1.0 * (ROWS["c"] == "r")
ROWS["xcq"], ROWS["xcr"] = ROWS["x"] * ROWS["cq"], ROWS["x"] * ROWS["cr"]
SLOPES = RNG.normal(size=6)
ROWS["y"] = 1.0 + ROWS["x"] + RNG.normal(size=6)[G] + SLOPES[G] * ROWS["z"]
ROWS["y"] += RNG.normal(size=5)[H] + 0.7 * RNG.normal(size=N)
ROWS["line"] = 2.0 + 3.0 * ROWS["x"]
WEIGHTS = RNG.uniform(0.5, 2.0, N)
WEIGHTS[::7] = WEIGHTS[G == 2] = 0.0


def large_rows():
    """Two crossed factors, more effects than the dense engine takes."""
    rng = np.random.default_rng(1)
    n, n_a, n_b = 6000, 2000, 40
    a, b = rng.integers(0, n_a, n), rng.integers(0, n_b, n)
    frame = pd.DataFrame({"x": rng.normal(size=n), "a": a, "b": b})
    frame["y"] = 1.0 + frame["x"] + rng.normal(size=n_a)[a] + 0.5 * rng.normal(size=n_b)[b]
    frame["y"] += rng.normal(size=n)
    return frame


@functools.cache
def fit(name):
    """A model of the gallery: the estimator, and the arguments that `fit` had."""
    parameters, how = GALLERY[name]
    frame = how.get("rows", lambda: ROWS)()[how.get("keep", slice(None))]
    y = frame[how.get("y", "y")]
    arguments = {"X": frame.drop(columns=y.name), "y": y, "sample_weight": how.get("weights")}
    estimator = MixedLinearRegressor(**parameters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(**arguments)
    assert len(caught) == how.get("n_warnings", 0), [str(own.message) for own in caught]
    return estimator, arguments


GROUPED = {"groups": "g", "fixed_effects": ["x"]}
SLOPED = GROUPED | {"random_slopes": ["z"]}
CROSSED = {"groups": ["g", "h"], "fixed_effects": ["x"], "random_slopes": {"g": ["z"]}}
INTERCEPTS = {"groups": ["g", "h"], "fixed_effects": ["x"]}
EXACT = {"y": "line", "n_warnings": 1}
GALLERY = {
    "no groups": ({"fixed_effects": ["x", "z"]}, {"n_warnings": 1}),
    "no groups, formula": ({"formula": "c * x"}, {"n_warnings": 1}),
    "nothing fixed": ({"groups": "g", "fixed_effects": [], "fit_intercept": False}, {}),
    "exact": (SLOPED, EXACT),
    "exact, crossed": (CROSSED, EXACT),
    "exact, formula": ({"formula": "c + x + (1 | g)"}, EXACT),
    "dyestuff2": ({"groups": "Batch"}, {"rows": lambda: load_dyestuff2().frame, "y": "Yield"}),
    "correlation of one": (SLOPED, {}),
    "diagonal": (SLOPED | {"covariance": "diagonal", "reml": False}, {}),
    "scalar": (SLOPED | {"covariance": "scalar"}, {}),
    "one level": (GROUPED | {"groups": "one"}, {"n_warnings": 1}),
    "one level, slope": (SLOPED | {"groups": "one"}, {"n_warnings": 1}),
    "one level, crossed": (GROUPED | {"groups": ["g", "one"]}, {"n_warnings": 1}),
    "a level for every row": (GROUPED | {"groups": "row"}, {"n_warnings": 1}),
    "aliased": (INTERCEPTS | {"fixed_effects": ["x", "z", "doubled"]}, {"n_warnings": 1}),
    "not aliased": (INTERCEPTS | {"fixed_effects": ["x", "z"]}, {}),
    "aliased, formula": ({"formula": "c * x + doubled + (1 | g)"}, {"n_warnings": 1}),
    "weights of zero": (INTERCEPTS, {"weights": WEIGHTS}),
    "without these rows": (INTERCEPTS, {"keep": WEIGHTS > 0.0, "weights": WEIGHTS[WEIGHTS > 0.0]}),
    "formula": ({"formula": "c * x + (1 + z | g) + (1 | h)"}, {}),
    "dummy variables": (CROSSED | {"fixed_effects": ["cq", "cr", "x", "xcq", "xcr"]}, {}),
    "categorical slopes": ({"formula": "0 + c + x + (0 + c | g)"}, {}),
    "large": ({"groups": ["a", "b"], "fixed_effects": ["x"]}, {"rows": large_rows}),
}


# The coefficients that cannot be estimated by themselves. Each table warns of them.
NOT_ALONE = {"aliased": ["intercept", "x", "doubled"], "aliased, formula": ["doubled"]}
pytestmark = pytest.mark.filterwarnings(r"ignore:.*\(aliased\):UserWarning")


def likelihood_ratio(est, arguments):
    """Against the model of the same fixed effects without random effects."""
    specification = est._fitted.model.specification
    smaller = MixedLinearRegressor(
        fixed_effects=[name for name in specification.coef_names if name != "intercept"],
        fit_intercept=specification.fit_intercept,
    )
    matrix = inference.model_matrix(est, arguments["X"]).assign(unused=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        smaller.fit(matrix, arguments["y"], sample_weight=arguments["sample_weight"])
    return inference.likelihood_ratio_test(smaller, est)


def named(name, **parameters):
    """A function of inference that needs no rows."""
    return lambda est, _: getattr(inference, name)(est, **parameters)


def with_rows(name, **parameters):
    """A function of inference that needs the rows of the fit."""
    return lambda est, arguments: getattr(inference, name)(est, **arguments, **parameters)


FUNCTIONS = {
    "summary": lambda est, _: est.summary(std_error=True),
    "formula_": lambda est, _: est.formula_,
    **{f"coefficient_table {ddf}": named("coefficient_table", ddf=ddf) for ddf in DDF},
    **{
        f"anova {kind} {ddf}": named("anova", type=kind, ddf=ddf)
        for kind in (1, 2, 3)
        for ddf in DDF[:2]
    },
    "contrast_test": lambda est, _: inference.contrast_test(
        est, {est._fitted.model.specification.coef_names[0]: 1.0}, rhs=1.0
    ),
    "coefficient_covariance": named("coefficient_covariance"),
    "coefficient_covariance kenward-roger": named("coefficient_covariance", kind="kenward-roger"),
    "variance_table": named("variance_table"),
    "wald": named("confidence_intervals"),
    "profile": named("confidence_intervals", method="profile"),
    "restricted profile": named("confidence_intervals", method="profile", reml=True),
    "profile_likelihood": named("profile_likelihood", parameter="sd(noise)", n_points=3),
    "drop1": named("drop1"),
    "likelihood_ratio_test": likelihood_ratio,
    "information_criteria": named("information_criteria"),
    "conditional_aic": named("conditional_aic"),
    "r2": named("r2"),
    "intraclass_correlation": named("intraclass_correlation"),
    "effect_sizes": named("effect_sizes"),
    "level_coefficients": named("level_coefficients"),
    "random_effects_table": named("random_effects_table"),
    "sample_random_effects": lambda est, _: est.sample_random_effects(5, random_state=0),
    "model_matrix": lambda est, arguments: inference.model_matrix(est, arguments["X"]),
    **{
        f"residuals {kind}": with_rows("residuals", kind=kind)
        for kind in ("conditional", "marginal", "scaled", "studentized")
    },
    "influence": with_rows("influence"),
    "influence refit": with_rows("influence", refit=True),
    "influence by level": lambda est, arguments: [
        inference.influence(est, **arguments, by=factor) for factor in est.n_groups_
    ],
    "influence by level refit": lambda est, arguments: [
        inference.influence(est, **arguments, by=factor, refit=True) for factor in est.n_groups_
    ],
    "exact_lrt": named("exact_lrt", n_resamples=100, random_state=0),
    "exact_restricted_lrt": lambda est, _: [
        inference.exact_restricted_lrt(est, factor, n_resamples=100, random_state=0)
        for factor in est.n_groups_
    ],
}
# Slow, and tested below or on other models.
LEFT_OUT = {
    "large": {
        "influence refit",
        "influence by level",
        "influence by level refit",
        "profile",
        "restricted profile",
        "exact_restricted_lrt",
        *(name for name in FUNCTIONS if "kenward-roger" in name),
    },
    **{
        case: {"influence refit"}
        for case in ("formula", "dummy variables", "categorical slopes", "correlation of one")
    },
    "one level, slope": {"influence refit"},
}
HAS_ONE_VARIANCE = {
    "nothing fixed",
    "exact, formula",
    "dyestuff2",
    "scalar",
    "one level",
    "a level for every row",
    "aliased, formula",
}
HAS_COVARIANCES = {
    "exact",
    "exact, crossed",
    "correlation of one",
    "one level, slope",
    "formula",
    "dummy variables",
    "categorical slopes",
}


def refusal(case, function):
    """What a function says that it cannot do for this model; None where it must not refuse."""
    if case == "diagonal" and "kenward-roger" in function:
        return "restricted maximum likelihood"
    if case.startswith("exact") and function == "profile_likelihood":
        return "cannot be estimated"
    if case == "aliased" and function == "contrast_test":
        return "cannot be estimated: .*'intercept', 'x', 'doubled'"
    if case.startswith("no groups") and function == "likelihood_ratio_test":
        return "the same"
    if function == "exact_lrt" and case not in HAS_ONE_VARIANCE:
        return "no variance to test" if case.startswith("no groups") else "one variance is tested"
    if function == "exact_restricted_lrt" and case in HAS_COVARIANCES:
        return "one variance is tested at a time"
    if function == "exact_restricted_lrt" and case == "diagonal":
        return "one variance is tested at a time"
    return None


@pytest.mark.slow_cases("influence refit", "influence by level refit", every=3)
@pytest.mark.parametrize(
    ("case", "function"),
    [
        (case, function)
        for case in GALLERY
        for function in FUNCTIONS
        if function not in LEFT_OUT.get(case, ())
        and (case, function) != ("nothing fixed", "contrast_test")
    ],
)
def test_every_function_works_on_every_model(case, function):
    est, arguments = fit(case)
    message = refusal(case, function)
    if message is not None:
        with pytest.raises(ValueError, match=message):
            FUNCTIONS[function](est, arguments)
        return
    result = FUNCTIONS[function](est, arguments)
    for part in result if isinstance(result, list) else [result]:
        assert str(part)


@pytest.mark.parametrize("ddf", DDF)
@pytest.mark.parametrize("case", GALLERY)
def test_tables_are_sensible(case, ddf):
    if (case, ddf) in {("diagonal", "kenward-roger"), ("large", "kenward-roger")}:
        pytest.skip("this method is not for the model, or slow")
    est, _ = fit(case)
    table = inference.coefficient_table(est, ddf=ddf)
    is_aliased = table.index.isin(NOT_ALONE.get(case, []))
    assert table[is_aliased].drop(columns="estimate").isna().all(axis=None)
    table = table[~is_aliased]
    assert np.isfinite(table[["estimate", "std_error", "lower", "upper"]]).all(axis=None)
    assert (table["std_error"] >= 0.0).all()
    assert (table["lower"] <= table["estimate"]).all()
    assert (table["estimate"] <= table["upper"]).all()
    n_rows = est._fitted.model.sums.n_rows
    assert (table["df"] > 0.0).all()
    assert ddf == "normal" or (table["df"] <= n_rows * 1.01).all()
    assert table["p_value"].between(0.0, 1.0).all()
    # Kenward and Roger add what the variances' estimation costs: something, but no multiple.
    model = np.sqrt(np.diag(est.coef_covariance_)[~is_aliased])
    assert (table["std_error"] <= 2.0 * model).all()


@pytest.mark.slow_cases(every=3)
@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("case", [name for name in GALLERY if name != "large"])
def test_profile_intervals_are_sensible(case, reml):
    est, _ = fit(case)
    table = inference.confidence_intervals(est, method="profile", reml=reml)
    known = table[table[["lower", "upper"]].notna().all(axis=1)]
    assert (known["lower"] <= known["estimate"]).all()
    assert (known["estimate"] <= known["upper"]).all()
    assert (known.filter(like="sd(", axis=0)["lower"] >= 0.0).all()
    assert (known.filter(like="cor(", axis=0).abs() <= 1.0).all(axis=None)
    # A single level says nothing of its variance by REML, but something by ML.
    unbounded = known.index[np.isinf(known["upper"])]
    expected = ["sd(intercept|one)"] if reml and case.startswith("one level") else []
    assert list(unbounded) == expected
    unknown = set(table.index) - set(known.index)
    if case.startswith("exact"):
        assert unknown == set(table.index)
    else:
        alone = [name for name in unknown if name not in NOT_ALONE.get(case, [])]
        assert all(name.startswith("cor(") for name in alone)


def least_squares(X, y):
    """Coefficients, their covariance, and the variance of the noise by REML."""
    inverse = np.linalg.inv(X.T @ X)
    coef = inverse @ X.T @ y
    noise = float(np.square(y - X @ coef).sum()) / (len(y) - X.shape[1])
    return coef, noise * inverse, noise


@pytest.mark.parametrize("case", ["no groups", "one level", "a level for every row", "dyestuff2"])
def test_without_random_effects_everything_is_least_squares(case):
    est, arguments = fit(case)
    y = arguments["y"].to_numpy(dtype=float)
    X = inference.model_matrix(est, arguments["X"]).to_numpy()
    n, p = X.shape
    coef, covariance, noise = least_squares(X, y)
    errors = np.sqrt(np.diag(covariance))
    residual = y - X @ coef
    hat = np.einsum("ri,ij,rj->r", X, covariance / noise, X)
    table = inference.coefficient_table(est)
    np.testing.assert_allclose(table["estimate"], coef)
    np.testing.assert_allclose(table["std_error"], errors)
    np.testing.assert_allclose(table["df"], n - p)
    np.testing.assert_allclose(table["p_value"], 2.0 * t.sf(np.abs(coef / errors), n - p))
    adjusted = inference.coefficient_table(est, ddf="kenward-roger")
    if case != "dyestuff2":  # whose variance Kenward and Roger take to be estimated
        pd.testing.assert_frame_equal(adjusted, table)
    terms = inference.anova(est)
    np.testing.assert_allclose(terms["f_value"].astype(float), (coef[1:] / errors[1:]) ** 2)
    dropped = inference.drop1(est)["lrt"].iloc[1:]
    np.testing.assert_allclose(dropped, n * np.log1p((coef[1:] / errors[1:]) ** 2 / (n - p)))
    wald = inference.confidence_intervals(est)
    coefs = list(table.index)
    np.testing.assert_allclose(wald.loc[coefs, "upper"], coef + norm.ppf(0.975) * errors)
    assert np.isfinite(wald.loc["sd(noise)"]).all()
    components = inference.variance_table(est).iloc[-1]
    assert components["std_error"] == pytest.approx(noise * np.sqrt(2.0 / (n - p)))
    fitted = {"rtol": 1e-6, "atol": 1e-9}
    scaled = residual / np.sqrt(noise)
    found = inference.residuals(est, **arguments, kind="scaled")
    np.testing.assert_allclose(found, scaled, **fitted)
    found = inference.residuals(est, **arguments, kind="studentized")
    np.testing.assert_allclose(found, scaled / np.sqrt(1.0 - hat), **fitted)
    result = inference.influence(est, **arguments)
    np.testing.assert_allclose(result.leverage, hat, **fitted)
    np.testing.assert_allclose(
        result.cooks_distance, scaled**2 * hat / (1.0 - hat) ** 2 / p, **fitted
    )
    shares = inference.r2(est)
    assert shares["marginal"] == pytest.approx(shares["conditional"])
    explained = float(np.var(X @ coef, ddof=1))
    assert shares["marginal"] == pytest.approx(explained / (explained + noise))
    criterion = inference.conditional_aic(est)
    assert criterion.effective_df == pytest.approx(p)
    density = norm.logpdf(residual, scale=np.sqrt(noise)).sum()
    assert criterion.log_likelihood == pytest.approx(density)


def test_profiles_of_least_squares():
    # f(v) = n log(1 + t^2 / (n - p)) for a coefficient; n (log s2 + r2 / (n s2)) for the noise.
    est, arguments = fit("no groups")
    X = inference.model_matrix(est, arguments["X"]).to_numpy()
    n, p = X.shape
    coef, covariance, noise = least_squares(X, arguments["y"].to_numpy())
    margin = np.sqrt((n - p) * np.expm1(chi2.ppf(0.95, 1) / n) * np.diag(covariance))
    table = inference.confidence_intervals(est, method="profile")
    np.testing.assert_allclose(table["lower"].iloc[1:], coef - margin)
    np.testing.assert_allclose(table["upper"].iloc[1:], coef + margin)
    for reml, df in [(False, n), (True, n - p)]:
        own = inference.confidence_intervals(est, "sd(noise)", method="profile", reml=reml)
        ratio = (n - p) * noise / df / own[["lower", "upper"]].to_numpy() ** 2
        np.testing.assert_allclose(df * (ratio - 1.0 - np.log(ratio)), chi2.ppf(0.95, 1))


@pytest.mark.parametrize("case", [name for name in GALLERY if name.startswith("exact")])
def test_an_exact_fit_has_no_noise_and_no_likelihood(case):
    est, arguments = fit(case)
    table = inference.coefficient_table(est)
    assert (table["std_error"] == 0.0).all()
    assert table.loc["x", "p_value"] == 0.0
    assert np.isinf(table.loc["x", "t_value"])
    assert inference.anova(est).loc["x", "p_value"] == 0.0
    criteria = inference.information_criteria(est)
    assert (criteria[["deviance", "aic", "bic"]] == -np.inf).all()
    assert inference.drop1(est).loc["x", "lrt"] == np.inf
    np.testing.assert_allclose(inference.residuals(est, **arguments), 0.0, atol=1e-10)
    assert inference.residuals(est, **arguments, kind="scaled").isna().all()
    result = inference.influence(est, **arguments)
    np.testing.assert_allclose(result.coef_change, 0.0, atol=1e-10)
    assert result.dfbetas.isna().all(axis=None)


PAIRS = [
    ("aliased", "not aliased"),
    ("weights of zero", "without these rows"),
    ("formula", "dummy variables"),
]
SAME_NUMBERS = (
    *(f"coefficient_table {ddf}" for ddf in DDF),
    "coefficient_covariance",
    "coefficient_covariance kenward-roger",
    "variance_table",
    "wald",
    "profile",
    "restricted profile",
    "information_criteria",
    "r2",
    "intraclass_correlation",
    "effect_sizes",
)


def numbers(case, function):
    """Numeric columns, without the rows of columns that are aliased in one of the guises."""
    table = pd.DataFrame(FUNCTIONS[function](*fit(case))).select_dtypes("number")
    lost = NOT_ALONE["aliased"] if case in ("aliased", "not aliased") else []
    return table.drop(index=lost, columns=lost, errors="ignore").to_numpy(dtype=float)


@pytest.mark.parametrize("function", SAME_NUMBERS)
@pytest.mark.parametrize(("case", "other"), PAIRS)
def test_the_same_model_in_two_guises(case, other, function):
    pair = [numbers(name, function) for name in (case, other)]
    pair = [own[:, : pair[1].shape[1]] for own in pair]
    np.testing.assert_allclose(*pair, rtol=RTOL, atol=RTOL)


@pytest.mark.parametrize(("case", "other"), PAIRS)
def test_rows_of_the_same_model_in_two_guises(case, other):
    (est, arguments), (same, those) = fit(case), fit(other)
    kept = slice(None) if case != "weights of zero" else WEIGHTS > 0.0
    for function in ("residuals conditional", "residuals marginal", "residuals studentized"):
        own, their = (FUNCTIONS[function](*fit(name)).to_numpy() for name in (case, other))
        np.testing.assert_allclose(own[kept], their, rtol=RTOL, atol=RTOL)
    for by in ("row", "g"):
        own = inference.influence(est, **arguments, by=by)
        their = inference.influence(same, **those, by=by)
        some = kept if by == "row" else own.leverage.index.isin(their.leverage.index)
        for field in ("leverage", "cooks_distance"):
            found = getattr(own, field)[some]
            np.testing.assert_allclose(found, getattr(their, field), rtol=RTOL, atol=RTOL)
        change = own.coef_change[some].copy()
        if "doubled" in change:
            doubled = change.pop("doubled")
            change["x"] += 2.0 * doubled
            change["intercept"] -= doubled
        np.testing.assert_allclose(change, their.coef_change, rtol=RTOL, atol=RTOL)
    test = inference.conditional_aic(est), inference.conditional_aic(same)
    assert test[0].value == pytest.approx(test[1].value, rel=RTOL)
    assert test[0].effective_df == pytest.approx(test[1].effective_df, rel=RTOL)


def test_an_aliased_column_has_no_results_of_its_own():
    est, _ = fit("aliased")
    lost = ["x", "doubled"]
    table = inference.anova(est)
    assert (table.loc[lost, "num_df"] == 0).all()
    assert table.loc[lost, "p_value"].isna().all()
    expected = inference.anova(fit("not aliased")[0])
    pd.testing.assert_frame_equal(table.drop(index=lost), expected.drop(index="x"), rtol=RTOL)
    # The other column takes the place of the one that is dropped.
    dropped = inference.drop1(est).loc[["x", "doubled"]]
    assert (dropped["df"] == 0).all()
    assert (dropped["lrt"] == 0.0).all()
    assert dropped["p_value"].isna().all()
    with pytest.raises(ValueError, match="cannot be estimated"):
        inference.profile_likelihood(est, "doubled")
    with pytest.raises(ValueError, match="cannot be estimated"):
        inference.contrast_test(est, {"doubled": 1.0})


def test_a_formula_tests_its_categories_as_dummy_variables_do():
    est, same = fit("formula")[0], fit("dummy variables")[0]
    table = inference.anova(est)
    assert list(table.index) == ["c", "x", "c:x"]
    together = inference.contrast_test(same, np.eye(6)[[4, 5]])
    found = table.loc["c:x", ["f_value", "num_df", "den_df", "p_value"]].to_list()
    expected = [together.f_value, together.num_df, together.den_df, together.p_value]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert list(inference.drop1(est).index) == ["<none>", "c:x"]


def test_the_curve_of_a_flat_profile_is_finite():
    for case, parameter in [
        ("one level", "sd(intercept|one)"),
        ("one level, crossed", "sd(intercept|one)"),
        ("a level for every row", "sd(noise)"),
    ]:
        profile = inference.profile_likelihood(fit(case)[0], parameter, n_points=5, reml=True)
        assert np.isfinite(profile.table).all(axis=None)
        is_inside = profile.table["value"] < 1.5
        np.testing.assert_allclose(profile.table["deviance"][is_inside], 0.0, atol=1e-6)


def test_a_large_model():
    # 2,040 effects of two crossed factors; sums over all rows that are known of any model.
    est, arguments = fit("large")
    names = ["sd(intercept|a)", "sd(intercept|b)", "sd(noise)", "intercept", "x"]
    wald = inference.confidence_intervals(est).loc[names]
    half = (wald["upper"] - wald["lower"]) / 2.0
    # Of five parameters, one with 40 levels: a false alarm in less than one of 10,000 seeds.
    truth = np.array([1.0, 0.5, 1.0, 1.0, 1.0])
    wide = inference.confidence_intervals(est, level=1.0 - 1e-6).loc[names]
    assert ((wide["lower"] < truth) & (truth < wide["upper"])).all()
    for reml in (False, True):
        own = inference.confidence_intervals(est, names[:3], method="profile", reml=reml)
        assert (np.abs(own["lower"] - wald["lower"].iloc[:3]) < 0.1 * half.iloc[:3]).all()
        assert (np.abs(own["upper"] - wald["upper"].iloc[:3]) < 0.1 * half.iloc[:3]).all()
    table = inference.coefficient_table(est)
    assert 39.0 < table.loc["intercept", "df"] < 60.0
    assert 3900.0 < table.loc["x", "df"] < 6000.0
    result = inference.influence(est, **arguments)
    total = inference.conditional_aic(est).effective_df
    assert result.leverage.sum() == pytest.approx(total, rel=1e-6)
    by_level = inference.influence(est, **arguments, by="b")
    assert by_level.leverage.sum() == pytest.approx(total, rel=1e-6)
    assert np.isfinite(by_level.cooks_distance).all()
    assert inference.exact_restricted_lrt(est, "b", n_resamples=100).p_value < 0.02
    assert {name: len(own) for name, own in inference.level_coefficients(est).items()} == {
        "a": est.n_groups_["a"],
        "b": 40,
    }
