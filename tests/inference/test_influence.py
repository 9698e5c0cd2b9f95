"""Residuals, leverage and influence against dense algebra and against fits without the case."""

import numpy as np
import pandas as pd
import pytest

from mixedlearn import MixedLinearRegressor
from mixedlearn.datasets import load_sleepstudy
from mixedlearn.inference import influence, residuals
from reference.two_factors import FIXED, MODELS, dense_at, draw, fit, fit_levels_of_one_row

LEVELS = [(name, by) for name, model in MODELS.items() for by in model.get("groups", [])]
FILTER = pytest.mark.filterwarnings("ignore::mixedlearn.exceptions.NoGroupsWarning")


def again(rows):
    """Arguments of the functions, of the same rows."""
    return {"X": rows[[*FIXED, "g", "h"]], "y": rows["y"], "sample_weight": rows["w"]}


def hat_diagonal(rows, dense):
    return 1.0 - np.diag(dense.P) / rows["w"]


@FILTER
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("model", MODELS)
def test_residuals_and_leverage_follow_from_the_dense_projection(model):
    rows = draw()
    est = fit(rows, model)
    dense = dense_at(est, rows)
    conditional = dense.P @ rows["y"] / rows["w"]
    marginal = rows["y"] - np.column_stack([np.ones(len(rows)), rows[FIXED]]) @ dense.coef
    scaled = conditional * np.sqrt(rows["w"] / est.noise_variance_)
    leverage = hat_diagonal(rows, dense)
    for kind, expected in [
        ("conditional", conditional),
        ("marginal", marginal),
        ("scaled", scaled),
        ("studentized", scaled / np.sqrt(1.0 - leverage)),
    ]:
        found = residuals(est, **again(rows), kind=kind)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8, err_msg=kind)
        assert found.name == kind
    result = influence(est, **again(rows))
    np.testing.assert_allclose(result.leverage, leverage, rtol=1e-8)
    distance = scaled**2 * leverage / (1.0 - leverage) ** 2 / 3
    np.testing.assert_allclose(result.cooks_distance, distance, rtol=1e-5, atol=1e-12)


def test_standard_errors_of_residuals_are_those_of_simulated_responses():
    rows = draw(n=40)
    est = fit(rows, "crossed")
    solution = dense_at(est, rows)
    rng = np.random.default_rng(1)
    V = np.linalg.inv(solution.inverse)
    noise = np.linalg.cholesky(V) @ rng.standard_normal((len(rows), 20_000))
    simulated = (solution.P @ noise) / rows["w"].to_numpy()[:, None]
    # A standard deviation of 20,000 draws is known to 0.5%: six times that is beyond chance.
    ratio = residuals(est, **again(rows)) / residuals(est, **again(rows), kind="studentized")
    np.testing.assert_allclose(
        np.sqrt(est.noise_variance_) * simulated.std(axis=1), ratio, rtol=0.03
    )


@pytest.mark.slow_cases(every=3)
@FILTER
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("model", MODELS)
def test_rows_left_out_at_fixed_variances_against_dense_algebra(model):
    rows = draw(1, n=45)
    est = fit(rows, model)
    result = influence(est, **again(rows))
    _check_deletions(est, rows, result, [rows.index == row for row in rows.index])


@pytest.mark.slow_cases(every=3)
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(("model", "by"), LEVELS)
def test_levels_left_out_at_fixed_variances_against_dense_algebra(model, by):
    rows = draw(2)
    est = fit(rows, model)
    result = influence(est, **again(rows), by=by)
    cases = [rows[by] == level for level in result.leverage.index]
    _check_deletions(est, rows, result, cases)
    dense = dense_at(est, rows)
    sums = hat_diagonal(rows, dense).groupby(rows[by]).sum()
    pd.testing.assert_series_equal(result.leverage, sums, check_names=False, rtol=1e-8)
    covariance = est.noise_variance_ * dense.coef_covariance
    change = result.coef_change.to_numpy()
    distance = np.einsum("ca,ab,cb->c", change, np.linalg.inv(covariance), change) / 3
    np.testing.assert_allclose(result.cooks_distance, distance, rtol=1e-6)


def _check_deletions(est, rows, result, cases):
    """Compare with generalised least squares of the other rows at the same covariances."""
    whole = np.append(est.intercept_, est.coef_)
    for position, gone in enumerate(cases):
        rest = rows[~gone]
        dense = dense_at(est, rest)
        std = np.sqrt(est.noise_variance_ * np.diag(dense.coef_covariance))
        np.testing.assert_allclose(result.coef.iloc[position], dense.coef, rtol=1e-7, atol=1e-9)
        change = dense.coef - whole
        np.testing.assert_allclose(result.coef_change.iloc[position], change, atol=1e-8)
        np.testing.assert_allclose(result.dfbetas.iloc[position], change / std, atol=1e-6)
    assert list(result.coef.columns) == ["intercept", *FIXED]
    assert result.variance_components is None


@pytest.mark.slow_cases(
    "elimination-True-crossed", "elimination-False-crossed", "joint-False-crossed", "crossed-g"
)
@FILTER
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(("model", "by"), [("slope", "g"), ("crossed", "g"), ("crossed", "h")])
@pytest.mark.parametrize("reml", [True, False])
def test_refits_are_fits_of_the_other_rows(model, by, reml):
    rows = draw(3)
    est = fit(rows, model, reml=reml)
    result = influence(est, **again(rows), by=by, refit=True)
    for level in result.coef.index[:3]:
        _check_refit(result, level, fit(rows[rows[by] != level], model, reml=reml))


@pytest.mark.slow_cases("crossed", "scalar")
@FILTER
@pytest.mark.parametrize("model", ["intercept", "crossed", "scalar", "nothing"])
def test_refits_by_row_are_fits_of_the_other_rows(model):
    rows = draw(4, n=40)
    est = fit(rows, model)
    result = influence(est, **again(rows), refit=True)
    for row in [0, 7, 39]:
        _check_refit(result, row, fit(rows.drop(index=row), model))


def _check_refit(result, case, expected):
    coef = np.append(expected.intercept_, expected.coef_)
    np.testing.assert_allclose(result.coef.loc[case], coef, rtol=2e-4, atol=2e-5)
    std = np.sqrt(np.diag(expected.coef_covariance_))
    np.testing.assert_allclose(
        result.dfbetas.loc[case], result.coef_change.loc[case] / std, rtol=2e-3, atol=1e-4
    )
    components = result.variance_components.loc[case]
    assert components["sd(noise)"] == pytest.approx(np.sqrt(expected.noise_variance_), rel=1e-4)
    for factor, covariance in expected.covariances_.items():
        for effect in covariance.columns:
            sd = np.sqrt(covariance.loc[effect, effect])
            one = f"sd({effect}|{factor})"
            common = f"sd({','.join(covariance.columns)}|{factor})"
            found = components[one if one in components else common]
            assert found == pytest.approx(sd, abs=3e-4)
            for other in covariance.columns[: list(covariance.columns).index(effect)]:
                name = f"cor({other},{effect}|{factor})"
                if name in components and sd > 0.01:
                    own = np.sqrt(covariance.loc[other, other])
                    correlation = covariance.loc[other, effect] / own / sd
                    assert components[name] == pytest.approx(correlation, abs=3e-3)


@pytest.mark.slow_cases("True-crossed")
@pytest.mark.parametrize("model", ["slope", "crossed"])
@pytest.mark.parametrize("refit", [False, True])
def test_change_of_origin_and_unit(model, refit):
    rows = draw(5, n=40)
    moved = rows.assign(x1=1e3 * rows["x1"] + 1e5, y=10.0 * rows["y"] - 1e3)
    results = [
        influence(fit(own, model), **again(own), by="g", refit=refit) for own in (rows, moved)
    ]
    tolerance = {"rtol": 5e-3, "atol": 1e-3} if refit else {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(results[0].leverage, results[1].leverage, **tolerance)
    np.testing.assert_allclose(results[0].cooks_distance, results[1].cooks_distance, **tolerance)
    np.testing.assert_allclose(results[0].coef["x1"], 100.0 * results[1].coef["x1"], **tolerance)
    np.testing.assert_allclose(results[0].dfbetas["x2"], results[1].dfbetas["x2"], **tolerance)


def test_rows_in_another_order_have_their_own_influence():
    rows = draw(6, n=40)
    est = fit(rows, "crossed")
    order = np.random.default_rng(0).permutation(len(rows))
    straight, turned = influence(est, **again(rows)), influence(est, **again(rows.iloc[order]))
    np.testing.assert_allclose(straight.coef.to_numpy()[order], turned.coef, rtol=1e-10)
    np.testing.assert_allclose(straight.leverage.to_numpy()[order], turned.leverage, rtol=1e-10)


@pytest.mark.slow
def test_rows_of_weight_zero_are_absent():
    rows = draw(7, n=40)
    extra = rows.iloc[[0]].assign(w=0.0, y=99.0, g="unknown")
    with_extra = pd.concat([rows, extra], ignore_index=True)
    est = fit(rows, "slope")
    for by, refit in [("row", False), ("row", True), ("g", False), ("g", True)]:
        expected = influence(est, **again(rows), by=by, refit=refit)
        found = influence(est, **again(with_extra), by=by, refit=refit)
        size = len(expected.coef)
        np.testing.assert_allclose(found.coef.iloc[:size], expected.coef, rtol=1e-9)
        np.testing.assert_allclose(found.leverage[:size], expected.leverage, rtol=1e-9)
        if by == "row":
            assert found.leverage.iloc[-1] == 0.0
            assert abs(found.coef_change.iloc[-1]).max() < 1e-4
    kinds = {
        kind: residuals(est, **again(with_extra), kind=kind)
        for kind in ("conditional", "scaled", "studentized")
    }
    assert kinds["conditional"].iloc[-1] > 50.0
    assert kinds["scaled"].iloc[-1] == 0.0
    assert np.isnan(kinds["studentized"].iloc[-1])


@pytest.mark.parametrize("refit", [False, True])
def test_a_level_that_alone_determines_a_coefficient_cannot_be_left_out(refit):
    rows = draw(8)
    rows["x2"] = (rows["g"] == "g003").astype(float) * 0.1
    est = fit(rows, "crossed")
    result = influence(est, **again(rows), by="g", refit=refit)
    assert result.coef.loc["g003"].isna().all()
    assert np.isnan(result.cooks_distance["g003"])
    assert result.dfbetas.loc["g003"].isna().all()
    assert not result.coef.drop(index="g003").isna().any(axis=None)


@pytest.mark.parametrize("refit", [False, True])
def test_a_row_that_alone_determines_a_coefficient_cannot_be_left_out(refit):
    rows = draw(9, n=30)
    rows["x2"] = np.where(rows.index == 4, 7.0, 0.0)
    est = fit(rows, "intercept")
    result = influence(est, **again(rows), refit=refit)
    assert result.coef.isna().all(axis=1).tolist() == [row == 4 for row in rows.index]
    assert result.leverage[4] == pytest.approx(1.0)
    assert result.cooks_distance.isna().tolist() == [row == 4 for row in rows.index]
    studentized = residuals(est, **again(rows), kind="studentized")
    assert studentized.isna().tolist() == [row == 4 for row in rows.index]


def test_the_only_level_cannot_be_left_out():
    rows = draw(10, n=30).assign(g="one")
    with pytest.warns(UserWarning, match="one level"):
        est = fit(rows, "intercept")
    for refit in (False, True):
        result = influence(est, **again(rows), by="g", refit=refit)
        assert result.coef.isna().all(axis=None)
    assert np.isfinite(influence(est, **again(rows)).coef).all(axis=None)


def test_a_singular_fit():
    rows = draw(11)
    rng = np.random.default_rng(0)
    rows["y"] = rows["x1"] + rng.standard_normal(len(rows)) / np.sqrt(rows["w"])
    est = fit(rows, "slope")
    assert est.is_singular_
    for by in ("row", "g"):
        result = influence(est, **again(rows), by=by)
        name = rows.index if by == "row" else rows["g"]
        _check_deletions(est, rows, result, [name == case for case in result.coef.index])
    result = influence(est, **again(rows), by="g", refit=True)
    for level in ("g000", "g005"):
        expected = fit(rows[rows["g"] != level], "slope")
        coef = np.append(expected.intercept_, expected.coef_)
        np.testing.assert_allclose(result.coef.loc[level], coef, rtol=1e-3, atol=1e-4)


def test_an_aliased_column_changes_nothing():
    rows = draw(12, n=40)
    X = rows[["x1", "x2", "g"]].assign(twice=2.0 * rows["x1"])
    plain = MixedLinearRegressor(groups="g").fit(rows[["x1", "x2", "g"]], rows["y"])
    with pytest.warns(UserWarning, match="aliased"):
        est = MixedLinearRegressor(groups="g").fit(X, rows["y"])
    for by in ("row", "g"):
        expected = influence(plain, rows[["x1", "x2", "g"]], rows["y"], by=by)
        found = influence(est, X, rows["y"], by=by)
        own = found.coef.assign(x1=found.coef["x1"] + 2.0 * found.coef["twice"])
        np.testing.assert_allclose(own[expected.coef.columns], expected.coef, rtol=1e-7)
        np.testing.assert_allclose(found.cooks_distance, expected.cooks_distance, rtol=1e-6)
        np.testing.assert_allclose(found.coef["twice"], 2.0 * found.coef["x1"], rtol=1e-7)
        assert found.dfbetas[["x1", "twice"]].isna().all(axis=None)
        assert found.dfbetas[["intercept", "x2"]].notna().all(axis=None)


def test_an_exact_fit():
    rows = draw(13, n=30)
    rows["y"] = 2.0 * rows["x1"] - rows["x2"]
    with pytest.warns(UserWarning, match="reproduce the response exactly"):
        est = fit(rows, "crossed")
    result = influence(est, **again(rows))
    assert abs(result.coef_change).max(axis=None) < 1e-8
    assert result.cooks_distance.isna().all()
    assert result.leverage.sum() == pytest.approx(3.0)
    assert residuals(est, **again(rows), kind="scaled").isna().all()
    for refit in (False, True):
        with_levels = influence(est, **again(rows), by="g", refit=refit)
        assert abs(with_levels.coef_change).max(axis=None) < 1e-8


def test_random_effects_that_reproduce_the_response():
    rows = draw(14, n=24).assign(w=1.0)
    rows["g"] = [f"g{row // 4}" for row in range(24)]
    rows["y"] = rows["g"].astype("category").cat.codes * 1.0
    with pytest.warns(UserWarning, match="reproduce the response"):
        est = fit(rows, "intercept")
    for by in ("row", "g"):
        result = influence(est, **again(rows), by=by)
        assert np.isfinite(result.coef).all(axis=None)


def test_levels_of_one_row_each():
    est, rows = fit_levels_of_one_row(15)
    by_row, by_level = (influence(est, **again(rows), by=by) for by in ("row", "g"))
    np.testing.assert_allclose(by_row.coef, by_level.coef, rtol=1e-7)
    ols = np.linalg.lstsq(
        np.column_stack([np.ones(29), rows[FIXED][1:]]), rows["y"][1:], rcond=None
    )[0]
    np.testing.assert_allclose(by_row.coef.iloc[0], ols, rtol=1e-7)


def test_without_fixed_effects():
    rows = draw(16, n=30)
    est = MixedLinearRegressor(groups="g", fixed_effects=[], fit_intercept=False)
    est.fit(rows[["g"]], rows["y"])
    result = influence(est, rows[["g"]], rows["y"], by="g")
    assert result.coef.shape == (8, 0)
    assert result.cooks_distance.isna().all()
    assert influence(est, rows[["g"]], rows["y"], refit=True).coef.shape == (30, 0)


def test_an_interaction_as_factor_keeps_its_index():
    rows = draw(17)
    X = rows[["x1", "g", "h"]]
    est = MixedLinearRegressor(groups=[("g", "h"), "h"], fixed_effects=["x1"]).fit(X, rows["y"])
    result = influence(est, X, rows["y"], by="g:h")
    assert result.coef.index.names == ["g", "h"]
    level = result.coef.index[3]
    gone = (rows["g"] == level[0]) & (rows["h"] == level[1])
    refitted = influence(est, X, rows["y"], by="g:h", refit=True)
    expected = MixedLinearRegressor(groups=[("g", "h"), "h"], fixed_effects=["x1"])
    expected.fit(X[~gone], rows["y"][~gone])
    assert refitted.coef.loc[level, "x1"] == pytest.approx(expected.coef_[0], rel=1e-4)


def test_single_precision_rows_are_those_of_the_fit():
    rows = draw(18)
    X = rows[FIXED].to_numpy(dtype=np.float32)
    est = MixedLinearRegressor().fit(X, rows["y"], groups=rows["g"])
    result = influence(est, X, rows["y"], groups=rows["g"], by="g")
    assert result.coef.notna().all(axis=None)


def test_other_rows_are_refused():
    rows = draw(19)
    est = fit(rows, "crossed")
    whole = again(rows)
    with pytest.raises(ValueError, match="69 of positive weight, but the model was fitted to 70"):
        influence(est, **again(rows[1:]))
    with pytest.raises(ValueError, match="y differs"):
        influence(est, **{**whole, "y": rows["y"] + 0.1})
    with pytest.raises(ValueError, match="'x2' differs"):
        influence(est, **again(rows.assign(x2=rows["x2"] * 1.01)))
    with pytest.raises(ValueError, match="weights differ"):
        influence(est, **{**whole, "sample_weight": None})
    swapped = rows.assign(h=rows["h"].to_numpy()[::-1])
    with pytest.raises(ValueError, match="labels of 'h'"):
        residuals(est, **again(swapped))
    plain = {"X": rows[[*FIXED, "g"]], "y": rows["y"].to_numpy()}
    unweighted = MixedLinearRegressor(groups="g").fit(**plain)
    with pytest.raises(ValueError, match="in another order"):
        residuals(unweighted, plain["X"], plain["y"][::-1])
    unknown = rows.assign(g=rows["g"].replace({"g002": "other"}))
    with pytest.raises(ValueError, match="level of 'g' in row"):
        residuals(est, **again(unknown))


def test_labels_beside_X_are_asked_for():
    rows = draw(20)
    est = MixedLinearRegressor().fit(rows[FIXED], rows["y"], groups=rows["g"])
    with pytest.raises(
        ValueError, match="No groups were passed, but the model has the grouping factors 'g'"
    ):
        influence(est, rows[FIXED], rows["y"])


def test_unknown_names_are_refused():
    X, y = load_sleepstudy(return_X_y=True)
    est = MixedLinearRegressor(groups="Subject").fit(X, y)
    with pytest.raises(ValueError, match=r"by='Days' is no grouping factor.*'Subject'"):
        influence(est, X, y, by="Days")
    with pytest.raises(ValueError, match="kind must be one of"):
        residuals(est, X, y, kind="pearson")
    with pytest.raises(TypeError, match="got int"):
        residuals(3, X, y)


def test_it_prints_the_most_influential_cases():
    X, y = load_sleepstudy(return_X_y=True)
    est = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
    result = influence(est, X, y, by="Subject")
    top = result.cooks_distance.idxmax()
    assert str(top) in str(result)
    assert "levels of 'Subject'" in str(result)
    assert "<table" in result._repr_html_()
    assert str(top) in result._repr_html_()
    assert "refitted" in str(influence(est, X, y, by="Subject", refit=True))


def test_an_interaction_is_named_by_its_columns_too():
    rows = draw(5)
    est = MixedLinearRegressor(groups=["g", ("g", "h")], fixed_effects=FIXED)
    est.fit(rows, rows["y"])
    found = influence(est, rows, rows["y"], by=("g", "h"))
    expected = influence(est, rows, rows["y"], by="g:h")
    assert found.by == "g:h"
    pd.testing.assert_frame_equal(found.coef, expected.coef)
