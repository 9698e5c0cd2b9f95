"""Several grouping factors in scikit-learn: copies, containers, labels, routing and predictions.

Tolerances: the same rows in another container give the same sums, so 1e-9 or none at all; the same
model with its rows or its columns in another order, or from another start, is held to 1e-6 of the
largest number, as far as the optimiser's promise of 1e-8 of the criterion goes.
"""

import pickle
import re
from io import BytesIO

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.metrics import mean_squared_error, r2_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers.versions import asks_for_score, names_polars
from mixedlearn import MixedLinearRegressor
from mixedlearn.exceptions import (
    DegenerateModelWarning,
    NoGroupsWarning,
    PopulationPredictionWarning,
)
from mixedlearn.metrics import GroupsScorer


def crossed_data(n=180, seed=0):
    """Plots crossed with years, with effects of their combinations as well."""
    rng = np.random.default_rng(seed)
    plot, year = rng.integers(8, size=n), rng.integers(6, size=n)
    x = rng.standard_normal((n, 2))
    y = 1.0 + x @ [2.0, -1.0]
    y += 2.0 * rng.standard_normal(8)[plot] + 1.5 * rng.standard_normal(6)[year]
    y += rng.standard_normal(8)[plot] * x[:, 0]
    y += rng.standard_normal((8, 6))[plot, year] + rng.standard_normal(n)
    X = pd.DataFrame(x, columns=["rain", "heat"])
    return X, pd.Series(y), pd.DataFrame({"plot": plot, "year": 2000 + year})


X, Y, GROUPS = crossed_data()
TABLE = X.join(GROUPS)
SLOPES = {"plot": ["rain"]}
NESTED = ["plot", "year", ("plot", "year")]
# A seventh of the combinations is left for predictions.
SEEN = (GROUPS["plot"] + GROUPS["year"] - 2000) % 7 != 0
FOLDS = KFold(4, shuffle=True, random_state=0)


def crossed(**parameters):
    return MixedLinearRegressor(**{"random_slopes": SLOPES, **parameters})


def column_model(**parameters):
    return crossed(**{"groups": ["plot", "year"], **parameters})


@pytest.fixture(scope="module")
def model():
    """Two factors beside X."""
    return crossed().fit(X, Y, groups=GROUPS)


@pytest.fixture(scope="module")
def nested():
    """Two factors and their interaction, columns of X; some combinations unseen."""
    return column_model(groups=NESTED).fit(TABLE[SEEN], Y[SEEN])


def close(found, expected, rtol=1e-9):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)


def assert_same_fit(one, other, rtol=1e-6, names=None):
    """Equal estimates; ``names`` maps the factors of the one to those of the other."""
    names = names or {name: name for name in other.random_effects_}
    close(one.log_likelihood_, other.log_likelihood_, min(rtol, 1e-9))
    close(one.coef_, other.coef_, rtol)
    close(one.intercept_, other.intercept_, rtol)
    close(one.noise_variance_, other.noise_variance_, rtol)
    assert set(names) == set(one.random_effects_)
    for name, known in names.items():
        close(one.covariances_[name], other.covariances_[known], rtol)
        effects, expected = one.random_effects_[name], other.random_effects_[known]
        assert set(effects.index) == set(expected.index)
        close(effects.loc[expected.index], expected, rtol)


class TestIdentity:
    PARAMETERS = {  # noqa: RUF012
        "groups": NESTED,
        "random_intercept": {"plot": True, ("plot", "year"): True},
        "random_slopes": {"plot": ["rain"], "year": ["heat"]},
        "covariance": {"plot": np.eye(2, dtype=bool), "year": "diagonal"},
    }

    def test_clone_and_get_params(self):
        estimator = MixedLinearRegressor(**self.PARAMETERS)
        copy = clone(estimator)
        assert str(copy.get_params()) == str(estimator.get_params())
        assert copy.groups == NESTED
        assert copy.groups is not estimator.groups
        assert isinstance(copy.groups[2], tuple)
        assert copy.random_slopes == self.PARAMETERS["random_slopes"]
        assert_same_fit(copy.fit(TABLE, Y), estimator.fit(TABLE, Y), rtol=0)
        assert not hasattr(clone(copy), "_model")

    def test_fit_leaves_the_parameters_alone(self):
        estimator = MixedLinearRegressor(**self.PARAMETERS)
        before = pickle.dumps(estimator.get_params())
        estimator.fit(TABLE, Y)
        assert pickle.dumps(estimator.get_params()) == before

    def test_set_params(self):
        estimator = column_model().fit(TABLE, Y)
        before = estimator.log_likelihood_
        estimator.set_params(groups=NESTED, random_slopes=None).fit(TABLE, Y)
        assert list(estimator.n_groups_) == ["plot", "year", "plot:year"]
        assert estimator.log_likelihood_ != before
        fresh = MixedLinearRegressor(groups=NESTED).fit(TABLE, Y)
        assert_same_fit(estimator, fresh, rtol=0)

    def test_repr(self, model):
        shown = "MixedLinearRegressor(groups=['plot', ('plot', 'year')])"
        assert repr(MixedLinearRegressor(groups=["plot", ("plot", "year")])) == shown
        for estimator in (column_model(groups=NESTED), model):
            assert "random_slopes" in estimator._repr_html_()

    @pytest.mark.parametrize("module", [pickle, joblib])
    def test_round_trip(self, nested, module):
        stream = BytesIO()
        module.dump(nested, stream)
        stream.seek(0)
        copy = module.load(stream)
        assert_same_fit(copy, nested, rtol=0)
        for one, other in zip(
            copy.predict(TABLE, return_std=True),
            nested.predict(TABLE, return_std=True),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)
        assert isinstance(copy.random_effects_["plot:year"].index, pd.MultiIndex)

    def test_attributes(self, nested):
        assert list(nested.feature_names_in_) == ["rain", "heat", "plot", "year"]
        assert nested.n_features_in_ == 4
        combinations = sorted(set(GROUPS[SEEN].itertuples(index=False, name=None)))
        assert nested.n_groups_ == {"plot": 8, "year": 6, "plot:year": len(combinations)}
        assert list(nested.coef_covariance_) == ["intercept", "rain", "heat"]
        assert {name: list(own) for name, own in nested.covariances_.items()} == {
            "plot": ["intercept", "rain"],
            "year": ["intercept"],
            "plot:year": ["intercept"],
        }
        effects = nested.random_effects_
        assert effects["plot"].index.equals(pd.RangeIndex(8))
        assert effects["plot"].index.name == "plot"
        assert list(effects["plot:year"].index) == combinations
        assert list(effects["plot:year"].index.names) == ["plot", "year"]
        for name, n_effects in {"plot": 2, "year": 1, "plot:year": 1}.items():
            shape = (nested.n_groups_[name], n_effects, n_effects)
            assert nested.random_effects_covariances_[name].shape == shape
        assert nested.theta_.shape == (5,)

    def test_refit_forgets_the_last_factors(self):
        estimator = crossed().fit(X, Y, groups=GROUPS)
        estimator.set_params(random_slopes=None).fit(X, Y, groups=GROUPS["year"])
        assert list(estimator.random_effects_) == ["year"]
        estimator.predict(X, groups=GROUPS["year"])


FORMS = {
    "pandas": GROUPS,
    "columns in another order": GROUPS[["year", "plot"]],
    "polars": pl.DataFrame({name: GROUPS[name].tolist() for name in GROUPS}),
    "MultiIndex": pd.MultiIndex.from_frame(GROUPS),
    "array": GROUPS.to_numpy(),
    "array in Fortran's order": np.asfortranarray(GROUPS.to_numpy()),
    "object array": GROUPS.to_numpy().astype(object),
    "rows": GROUPS.to_numpy().tolist(),
    "tuple of rows": tuple(GROUPS.to_numpy().tolist()),
    "unnamed MultiIndex": pd.MultiIndex.from_arrays(GROUPS.to_numpy().T),
    "categories": GROUPS.astype("category"),
    "another index": GROUPS.set_axis(np.random.default_rng(1).permutation(len(Y)), axis=0),
    "nullable": GROUPS.astype("Int64"),
    "floats": GROUPS.astype(float),
}
UNNAMED = [name for name in FORMS if "array" in name or "rows" in name or "unnamed" in name]


class TestContainers:
    """The same labels in any container give the same fit and the same predictions."""

    @pytest.mark.slow_cases(every=3)
    @pytest.mark.parametrize("form", FORMS)
    def test_fit(self, model, form):
        slopes, names = SLOPES, {"plot": "plot", "year": "year"}
        if form in UNNAMED:
            slopes, names = {"group0": ["rain"]}, {"group0": "plot", "group1": "year"}
        estimator = MixedLinearRegressor(random_slopes=slopes).fit(X, Y, groups=FORMS[form])
        is_reordered = form == "columns in another order"
        assert list(estimator.n_groups_) == (["year", "plot"] if is_reordered else list(names))
        assert_same_fit(estimator, model, names=names)
        close(
            estimator.predict(X, groups=FORMS[form]),
            model.predict(X, groups=GROUPS),
            1e-6 if is_reordered else 1e-9,
        )

    @pytest.mark.parametrize("form", FORMS)
    def test_predict(self, model, form):
        for found, expected in zip(
            model.predict(X, groups=FORMS[form], return_std=True),
            model.predict(X, groups=GROUPS, return_std=True),
            strict=True,
        ):
            np.testing.assert_array_equal(found, expected)
        assert model.score(X, Y, groups=FORMS[form]) == model.score(X, Y, groups=GROUPS)

    @pytest.mark.parametrize(
        "container", ["pandas", pytest.param("polars", marks=names_polars), "numpy", "objects"]
    )
    def test_columns_of_x(self, nested, container):
        convert = {
            "pandas": lambda part: part,
            "polars": lambda part: pl.DataFrame({name: part[name].tolist() for name in part}),
            "numpy": lambda part: part.to_numpy(),
            "objects": lambda part: part.to_numpy().astype(object),
        }[container]
        parameters, names = {"groups": NESTED, "random_slopes": SLOPES}, None
        if container in ("numpy", "objects"):
            parameters = {"groups": [2, 3, (2, 3)], "random_slopes": {"x2": [0]}}
            names = {"x2": "plot", "x3": "year", "x2:x3": "plot:year"}
        estimator = MixedLinearRegressor(**parameters).fit(convert(TABLE[SEEN]), Y[SEEN].to_numpy())
        assert_same_fit(estimator, nested, names=names)
        close(estimator.predict(convert(TABLE)), nested.predict(TABLE))

    def test_columns_beside_and_of_x_are_the_same(self, model):
        estimator = column_model().fit(TABLE, Y)
        assert_same_fit(estimator, model, rtol=0)
        np.testing.assert_array_equal(estimator.predict(TABLE), model.predict(X, groups=GROUPS))

    def test_an_interaction_is_the_factor_of_its_combinations(self, nested):
        """Tuples, text and a column of numbers say the same as the interaction."""
        pairs = list(GROUPS.itertuples(index=False, name=None))
        for labels in (
            pairs,
            [f"{plot} in {year}" for plot, year in pairs],
            100 * GROUPS["year"] + GROUPS["plot"],
        ):
            groups = GROUPS.assign(both=labels)
            estimator = crossed().fit(X[SEEN], Y[SEEN], groups=groups[SEEN])
            close(estimator.log_likelihood_, nested.log_likelihood_)
            close(estimator.predict(X, groups=groups), nested.predict(TABLE), 1e-6)

    @pytest.mark.parametrize("order", [["year", "plot"], [("plot", "year"), "year", "plot"]])
    def test_order_of_the_factors(self, order):
        expected = column_model(groups=order[::-1]).fit(TABLE, Y)
        estimator = column_model(groups=order).fit(TABLE, Y)
        assert list(estimator.n_groups_) == list(expected.n_groups_)[::-1]
        assert_same_fit(estimator, expected)
        close(estimator.predict(TABLE), expected.predict(TABLE), 1e-6)

    def test_order_of_the_columns(self, model):
        shuffled = TABLE[["year", "heat", "plot", "rain"]]
        estimator = column_model(fixed_effects=["rain", "heat"]).fit(shuffled, Y)
        assert_same_fit(estimator, model)
        close(estimator.predict(shuffled), model.predict(X, groups=GROUPS), 1e-6)

    def test_order_of_an_interaction(self):
        one = column_model(groups=["plot", ("plot", "year")]).fit(TABLE, Y)
        other = column_model(groups=["plot", ("year", "plot")]).fit(TABLE, Y)
        close(one.log_likelihood_, other.log_likelihood_)
        close(one.predict(TABLE), other.predict(TABLE), 1e-6)
        effects = other.random_effects_["year:plot"].swaplevel()
        close(effects.loc[one.random_effects_["plot:year"].index], one.random_effects_["plot:year"])


KINDS = {
    "numbers": lambda codes: codes,
    "text": lambda codes: [f"g{code:02}" for code in codes],
    "floats": lambda codes: codes + 0.5,
    "categories": lambda codes: pd.Categorical(codes, categories=range(40, -1, -1)),
    "ordered text": lambda codes: pd.Categorical([f"g{code}" for code in codes], ordered=True),
    "dates": lambda codes: pd.Timestamp("2020-01-01") + pd.to_timedelta(codes, unit="D"),
    "zoned dates": lambda codes: (
        pd.Timestamp("2020-01-01", tz="Europe/Rome") + pd.to_timedelta(codes, unit="D")
    ),
    "periods": lambda codes: pd.PeriodIndex.from_ordinals(codes, freq="M"),
    "intervals": lambda codes: pd.IntervalIndex.from_arrays(codes, codes + 1),
    "tuples": lambda codes: [(int(code), "a") for code in codes],
    "mixed": lambda codes: [int(code) if code % 2 else f"g{code}" for code in codes],
    "nullable": lambda codes: pd.array(codes, dtype="Int64"),
    "large numbers": lambda codes: codes + 2**62,
}


class TestLabels:
    """Labels of every kind, in each of the factors, and their combinations."""

    @staticmethod
    def table(kind, other):
        plot = pd.Series(KINDS[kind](GROUPS["plot"].to_numpy()))
        year = pd.Series(KINDS[other](GROUPS["year"].to_numpy() - 2000))
        return X.assign(plot=plot, year=year)

    @pytest.mark.slow_cases(every=5)
    @pytest.mark.parametrize(
        ("kind", "other"),
        [*zip(KINDS, [*list(KINDS)[5:], *list(KINDS)[:5]], strict=True)],
    )
    def test_kind(self, kind, other):
        table = self.table(kind, other)
        expected = column_model(groups=NESTED).fit(TABLE, Y)
        estimator = column_model(groups=NESTED).fit(table, Y)
        assert estimator.n_groups_ == expected.n_groups_
        close(estimator.log_likelihood_, expected.log_likelihood_)
        close(estimator.predict(table), expected.predict(TABLE), 1e-6)
        effects = estimator.random_effects_
        for name in ("plot", "year"):
            assert set(effects[name].index) == set(table[name])
        pairs = list(zip(table["plot"], table["year"], strict=True))
        assert set(effects["plot:year"].index) == set(pairs)
        by_label = dict(
            zip(effects["plot:year"].index, effects["plot:year"].iloc[:, 0], strict=True)
        )
        by_code = expected.random_effects_["plot:year"].iloc[:, 0]
        known = list(GROUPS.itertuples(index=False, name=None))
        close([by_label[pair] for pair in pairs], by_code.loc[known], 1e-6)
        # Beside X, and as an array without a dtype for each column.
        beside = crossed().fit(X, Y, groups=table[["plot", "year"]])
        found = beside.predict(X, groups=table[["plot", "year"]])
        objects = np.empty((len(Y), 2), dtype=object)
        objects[:, 0], objects[:, 1] = list(table["plot"]), list(table["year"])
        np.testing.assert_array_equal(beside.predict(X, groups=objects), found)
        np.testing.assert_array_equal(beside.predict(X, groups=objects.tolist()), found)

    def test_truth_values(self):
        """Two levels of one factor, three of another."""
        wet = X["rain"].to_numpy() > 0.5
        table = TABLE.assign(wet=wet)
        estimator = MixedLinearRegressor(groups=["plot", ("plot", "wet")]).fit(table, Y)
        expected = MixedLinearRegressor(groups=["plot", ("plot", "wet")]).fit(
            table.assign(wet=np.where(wet, "yes", "no")), Y
        )
        assert estimator.n_groups_ == expected.n_groups_
        assert (3, True) in estimator.random_effects_["plot:wet"].index
        close(
            estimator.predict(table), expected.predict(table.assign(wet=np.where(wet, "yes", "no")))
        )

    @names_polars
    def test_polars_dates_and_categories(self):
        days = pd.Timestamp("2020-01-01") + pd.to_timedelta(GROUPS["year"], unit="D")
        table = pl.DataFrame(
            {
                "rain": X["rain"].tolist(),
                "heat": X["heat"].tolist(),
                "plot": pl.Series([f"p{plot}" for plot in GROUPS["plot"]], dtype=pl.Categorical),
                "year": pl.Series(list(days)).cast(pl.Date),
            }
        )
        estimator = column_model(groups=NESTED).fit(table, Y.to_numpy())
        expected = column_model(groups=NESTED).fit(TABLE, Y)
        close(estimator.log_likelihood_, expected.log_likelihood_)
        close(estimator.predict(table), expected.predict(TABLE), 1e-6)
        beside = crossed().fit(X, Y, groups=table[["plot", "year"]])
        assert list(beside.n_groups_) == ["plot", "year"]

    def test_equal_labels_of_two_factors_are_different_levels(self, model):
        groups = GROUPS.assign(year=GROUPS["year"] - 2000)
        estimator = crossed().fit(X, Y, groups=groups)
        close(estimator.predict(X, groups=groups), model.predict(X, groups=GROUPS))

    def test_categories_that_do_not_occur_are_no_levels(self):
        table = TABLE.assign(plot=pd.Categorical(GROUPS["plot"], categories=range(100)))
        assert column_model(groups=NESTED).fit(table, Y).n_groups_["plot"] == 8

    def test_interaction_of_many_columns_with_many_levels(self):
        """More combinations than 64 bits can count."""
        rng = np.random.default_rng(0)
        names = [f"c{j}" for j in range(7)]
        level = np.repeat(np.arange(1000), 2)
        ids = np.stack([rng.permutation(1000)[level] for _ in names], axis=1)
        y = rng.standard_normal(1000)[level] + rng.standard_normal(2000)
        table = pd.DataFrame(ids, columns=names)
        estimator = MixedLinearRegressor(groups=tuple(names), fixed_effects=[]).fit(table, y)
        expected = MixedLinearRegressor(groups="c3", fixed_effects=[]).fit(table, y)
        assert list(estimator.n_groups_.values()) == [1000]
        close(estimator.log_likelihood_, expected.log_likelihood_)
        close(estimator.predict(table), expected.predict(table), 1e-6)
        table.loc[0, "c3"] = table.loc[5, "c3"]
        assert estimator.predict(table)[0] == estimator.intercept_


class TestWeights:
    def test_rows_of_weight_zero_are_absent(self):
        weights = np.where((GROUPS["plot"] == 3) | (GROUPS["year"] == 2004), 0.0, 1.0)
        weights[::9] = 0.0
        kept = weights > 0.0
        estimator = column_model(groups=NESTED).fit(
            TABLE, Y.where(kept, 1e6), sample_weight=weights
        )
        expected = column_model(groups=NESTED).fit(TABLE[kept], Y[kept])
        assert_same_fit(estimator, expected)
        assert estimator.n_groups_ == expected.n_groups_
        effects = estimator.random_effects_
        assert 3 not in effects["plot"].index
        assert 2004 not in effects["year"].index
        assert 3 not in effects["plot:year"].index.levels[0]
        close(estimator.predict(TABLE), expected.predict(TABLE), 1e-6)
        beside = crossed().fit(X, Y.where(kept, 1e6), groups=GROUPS, sample_weight=weights)
        assert beside.n_groups_ == {"plot": 7, "year": 5}

    def test_a_factor_left_without_levels_but_one(self):
        weights = (GROUPS["year"] == 2004).astype(float)
        with pytest.warns(DegenerateModelWarning, match="'year'"):
            estimator = MixedLinearRegressor().fit(X, Y, groups=GROUPS, sample_weight=weights)
        assert estimator.n_groups_["year"] == 1


class TestWarmStart:
    def test_second_fit_starts_at_the_optimum(self):
        estimator = column_model(groups=NESTED, warm_start=True).fit(TABLE, Y)
        cold = clone(estimator).fit(TABLE, Y)
        estimator.fit(TABLE, Y)
        assert estimator.n_iter_ < cold.n_iter_
        assert estimator.converged_
        assert_same_fit(estimator, cold, rtol=1e-5)

    @pytest.mark.slow_cases(every=3)
    @pytest.mark.parametrize(
        "other",
        [
            {"groups": ["year", "plot"]},
            {"groups": NESTED},
            {"groups": "plot"},
            {"random_slopes": {"year": ["rain"]}},
            {"random_slopes": {"plot": ["heat"]}},
            {"covariance": {"plot": "diagonal"}},
        ],
        ids=str,
    )
    def test_another_model_starts_afresh(self, other):
        estimator = column_model(warm_start=True).fit(TABLE, Y)
        estimator.set_params(**other).fit(TABLE, Y)
        cold = column_model(**other).fit(TABLE, Y)
        if "groups" not in other or other["groups"] != "plot":
            assert_same_fit(estimator, cold, rtol=0)
        assert estimator.n_iter_ == cold.n_iter_

    def test_other_data(self):
        estimator = column_model(warm_start=True).fit(TABLE, 1e3 * Y)
        others, y, groups = crossed_data(300, seed=3)
        estimator.fit(others.join(groups), y)
        cold = column_model().fit(others.join(groups), y)
        assert_same_fit(estimator, cold, rtol=1e-5)


def by_hand(cv=FOLDS, split_by=None, score=r2_score, known=True, groups=GROUPS, **parameters):
    """Scores of the folds, with the groups beside X."""
    scores = []
    for train, test in cv.split(X, Y, split_by):
        estimator = crossed(**parameters)
        estimator.fit(X.iloc[train], Y.iloc[train], groups=groups.iloc[train])
        predicted = estimator.predict(
            X.iloc[test], groups=groups.iloc[test], random_effects="all" if known else "none"
        )
        scores.append(score(Y.iloc[test], predicted))
    return np.array(scores)


class TestModelSelection:
    @pytest.mark.slow
    @pytest.mark.parametrize("is_routing", [False, True])
    def test_group_columns_work_everywhere(self, is_routing):
        assert (by_hand() > by_hand(known=False) + 0.1).all()
        with sklearn.config_context(enable_metadata_routing=is_routing):
            for scoring in (None, "r2"):
                scores = cross_val_score(column_model(), TABLE, Y, cv=FOLDS, scoring=scoring)
                close(scores, by_hand())
            predicted = cross_val_predict(column_model(), TABLE, Y, cv=FOLDS)
        for (_, test), score in zip(FOLDS.split(X), by_hand(), strict=True):
            close(r2_score(Y.iloc[test], predicted[test]), score)

    @pytest.mark.slow_cases(every=5)
    @pytest.mark.parametrize("labels", ["numbers", "text"])
    @pytest.mark.parametrize(
        "container", ["pandas", pytest.param("polars", marks=names_polars), "default"]
    )
    def test_column_transformer_keeps_the_group_columns(self, labels, container):
        table = TABLE
        if labels == "text":
            table = TABLE.assign(plot=[f"p{plot}" for plot in TABLE["plot"]])
        expected = column_model(groups=NESTED).fit(table, Y).predict(table)
        if container == "polars":
            table = pl.DataFrame({name: table[name].tolist() for name in table})
        keep = ColumnTransformer(
            [("scale", StandardScaler(), ["rain", "heat"])],
            remainder="passthrough",
            verbose_feature_names_out=False,
        ).set_output(transform=container)
        estimator = column_model(groups=NESTED)
        if container == "default":
            estimator.set_params(groups=[2, 3, (2, 3)], random_slopes={"x2": [0]})
        pipeline = make_pipeline(keep, estimator).fit(table, Y.to_numpy())
        close(pipeline.predict(table), expected, 1e-6)
        close(pipeline.score(table, Y.to_numpy()), r2_score(Y, expected), 1e-6)
        if container != "default":
            assert list(pipeline[-1].n_groups_) == ["plot", "year", "plot:year"]

    def test_lost_group_column_is_an_error(self):
        keep = ColumnTransformer([("year", "passthrough", ["rain", "heat", "year"])])
        pipeline = make_pipeline(keep.set_output(transform="pandas"), column_model())
        with pytest.raises(ValueError, match="names the column 'plot', which X does not have"):
            pipeline.fit(TABLE, Y)
        keep.set_params(remainder="passthrough")
        with pytest.raises(ValueError, match=r"Its columns are: .*'remainder__plot'"):
            pipeline.fit(TABLE, Y)

    @pytest.mark.slow
    def test_search_over_slopes(self):
        grid = {"random_slopes": [None, SLOPES, {"year": ["heat"]}, ["rain", "heat"]]}
        search = GridSearchCV(column_model(), grid, cv=FOLDS, error_score="raise").fit(TABLE, Y)
        for slopes, score in zip(
            grid["random_slopes"], search.cv_results_["mean_test_score"], strict=True
        ):
            close(score, by_hand(random_slopes=slopes).mean())
        # Only the slopes of rain differ, between plots.
        assert search.best_params_["random_slopes"] in (SLOPES, ["rain", "heat"])
        close(
            search.predict(TABLE), column_model(**search.best_params_).fit(TABLE, Y).predict(TABLE)
        )

    @pytest.mark.slow
    def test_search_over_covariances(self):
        grid = {
            "covariance": [
                {"plot": "full"},
                {"plot": "diagonal", "year": "scalar"},
                {"plot": np.eye(2, dtype=bool)},
                "diagonal",
            ]
        }
        search = GridSearchCV(column_model(), grid, cv=FOLDS, error_score="raise").fit(TABLE, Y)
        full, *others = search.cv_results_["mean_test_score"]
        close(others, others[0], 1e-6)
        assert abs(full - others[0]) > 1e-6

    def test_search_over_groups(self):
        grid = {
            "groups": [["plot"], "year", ["plot", "year"], NESTED, ("plot", "year")],
            "reml": [True],
        }
        search = GridSearchCV(
            column_model(random_slopes=None, fixed_effects=["rain", "heat"]),
            grid,
            cv=FOLDS,
            error_score="raise",
        ).fit(TABLE, Y)
        scores = search.cv_results_["mean_test_score"]
        assert scores.argmax() == 3
        assert search.best_params_["groups"] == NESTED
        assert list(search.best_estimator_.n_groups_) == ["plot", "year", "plot:year"]
        for position, names in {0: ["plot"], 1: ["year"], 2: ["plot", "year"]}.items():
            expected = by_hand(groups=GROUPS[names], random_slopes=None)
            close(scores[position], expected.mean())

    @pytest.mark.slow
    def test_pipeline_in_a_search(self):
        keep = ColumnTransformer(
            [("scale", StandardScaler(), ["rain", "heat"])],
            remainder="passthrough",
            verbose_feature_names_out=False,
        ).set_output(transform="pandas")
        search = GridSearchCV(
            make_pipeline(keep, column_model()),
            {"mixedlinearregressor__groups": [["plot", "year"], NESTED]},
            cv=FOLDS,
            error_score="raise",
        ).fit(TABLE, Y)
        close(search.cv_results_["mean_test_score"][0], by_hand().mean(), 1e-6)

    @pytest.mark.slow
    def test_two_jobs(self):
        scores = cross_val_score(column_model(groups=NESTED), TABLE, Y, cv=FOLDS, n_jobs=2)
        close(scores, cross_val_score(column_model(groups=NESTED), TABLE, Y, cv=FOLDS))


@pytest.mark.usefixtures("routing")
class TestRouting:
    """2-D groups on their way to `fit`, `predict` and `score`."""

    SETTINGS = {"params": {"groups": GROUPS}, "cv": FOLDS, "error_score": "raise"}  # noqa: RUF012
    BLOCKS = pd.Series(np.arange(len(Y)) // 6 % 10)

    @pytest.mark.slow_cases(every=7)
    @pytest.mark.parametrize("form", [form for form in FORMS if form not in UNNAMED])
    def test_params(self, form):
        scores = cross_val_score(
            crossed(), X, Y, params={"groups": FORMS[form]}, cv=FOLDS, error_score="raise"
        )
        close(scores, by_hand(), 1e-6 if form == "columns in another order" else 1e-9)

    @pytest.mark.slow_cases(every=3)
    @pytest.mark.parametrize("form", UNNAMED)
    def test_params_without_names(self, form):
        scores = cross_val_score(
            crossed(random_slopes={"group0": ["rain"]}),
            X,
            Y,
            params={"groups": FORMS[form]},
            cv=FOLDS,
            error_score="raise",
        )
        close(scores, by_hand())

    def test_scorer(self):
        results = cross_validate(
            crossed(),
            X,
            Y,
            scoring={"r2": GroupsScorer(), "mse": GroupsScorer("neg_mean_squared_error")},
            **self.SETTINGS,
        )
        close(results["test_r2"], by_hand())
        close(-results["test_mse"], by_hand(score=mean_squared_error))

    @pytest.mark.slow
    def test_scoring_by_name_loses_the_groups(self):
        with pytest.warns(PopulationPredictionWarning, match="'plot', 'year'"):
            scores = cross_val_score(crossed(), X, Y, scoring="r2", **self.SETTINGS)
        close(scores, by_hand(known=False))

    @staticmethod
    def aliased(estimator):
        return (
            estimator.set_fit_request(groups="factors")
            .set_predict_request(groups="factors")
            .set_score_request(groups="factors")
        )

    @pytest.mark.slow_cases("True", "polars")
    @pytest.mark.parametrize("form", ["pandas", "polars"])
    @pytest.mark.parametrize("is_scorer", [False, True])
    def test_alias_beside_the_groups_of_the_splitter(self, form, is_scorer):
        scorer = GroupsScorer().set_score_request(groups="factors") if is_scorer else None
        scores = cross_val_score(
            self.aliased(crossed()),
            X,
            Y,
            scoring=scorer,
            params={"factors": FORMS[form], "groups": self.BLOCKS},
            cv=GroupKFold(5),
            error_score="raise",
        )
        expected = by_hand(GroupKFold(5), split_by=self.BLOCKS)
        close(scores, expected)
        population = by_hand(GroupKFold(5), split_by=self.BLOCKS, known=False)
        assert (expected > population + 0.05).all()

    @pytest.mark.slow
    def test_alias_survives_clone_and_pickle(self):
        estimator = self.aliased(crossed())
        for copy in (clone(estimator), pickle.loads(pickle.dumps(estimator))):
            search = GridSearchCV(
                copy, {"reml": [True, False]}, cv=GroupKFold(5), error_score="raise"
            )
            search.fit(X, Y, factors=GROUPS, groups=self.BLOCKS)
            for reml, score in zip(
                (True, False), search.cv_results_["mean_test_score"], strict=True
            ):
                close(score, by_hand(GroupKFold(5), split_by=self.BLOCKS, reml=reml).mean())

    def test_folds_of_one_factor(self):
        """Whole plots are left out: their years are known."""
        scores = cross_val_score(
            self.aliased(crossed()),
            X,
            Y,
            params={"factors": GROUPS, "groups": GROUPS["plot"]},
            cv=GroupKFold(4),
            error_score="raise",
        )
        close(scores, by_hand(GroupKFold(4), split_by=GROUPS["plot"]))

    @pytest.mark.slow
    @pytest.mark.parametrize("scoring", [pytest.param(None, marks=asks_for_score), "r2"])
    def test_group_columns_and_the_groups_of_the_splitter(self, scoring):
        scores = cross_val_score(
            column_model(),
            TABLE,
            Y,
            scoring=scoring,
            params={"groups": self.BLOCKS},
            cv=GroupKFold(5),
            error_score="raise",
        )
        close(scores, by_hand(GroupKFold(5), split_by=self.BLOCKS))

    def test_pipeline(self):
        scale = StandardScaler().set_output(transform="pandas")
        pipeline = make_pipeline(scale, crossed()).fit(X, Y, groups=GROUPS)
        expected = crossed().fit(X, Y, groups=GROUPS).predict(X, groups=GROUPS)
        close(pipeline.predict(X, groups=GROUPS), expected, 1e-6)
        close(pipeline.score(X, Y, groups=GROUPS), r2_score(Y, expected), 1e-6)


@pytest.mark.parametrize("is_routing", [False, True])
def test_scorer_called_directly(model, is_routing):
    with sklearn.config_context(enable_metadata_routing=is_routing):
        close(GroupsScorer()(model, X, Y, groups=GROUPS), model.score(X, Y, groups=GROUPS))


# Predictions


def effects_of(model, name, labels, x):
    """The BLUPs of rows, summed by hand; nothing for levels that are not in the table."""
    effects = model.random_effects_[name]
    found = np.zeros(len(labels))
    for row, label in enumerate(labels):
        if label in effects.index:
            for effect, value in effects.loc[label].items():
                found[row] += value * (1.0 if effect == "intercept" else x[effect].iloc[row])
    return found


def labels_of(table):
    return {
        "plot": list(table["plot"]),
        "year": list(table["year"]),
        "plot:year": list(zip(table["plot"], table["year"], strict=True)),
    }


def population_of(model, table):
    return model.intercept_ + table[["rain", "heat"]].to_numpy() @ model.coef_


@pytest.fixture(scope="module")
def new_rows():
    """Every mix of known and unknown plots, years and combinations."""
    rng = np.random.default_rng(5)
    plots, years = np.meshgrid([*range(8), 50, -1], [*range(2000, 2006), 1999], indexing="ij")
    table = pd.DataFrame({"plot": plots.ravel(), "year": years.ravel()})
    table.insert(0, "heat", rng.standard_normal(len(table)))
    table.insert(0, "rain", 3.0 * rng.standard_normal(len(table)))
    return table


WANTED = [
    ("all", ["plot", "year", "plot:year"]),
    ("none", []),
    ([], []),
    ("plot", ["plot"]),
    (["year"], ["year"]),
    (["plot", "year"], ["plot", "year"]),
    (["year", "plot"], ["plot", "year"]),
    ("plot:year", ["plot:year"]),
    ([("plot", "year")], ["plot:year"]),
    (["plot", ("plot", "year")], ["plot", "plot:year"]),
    (("plot", "year"), ["plot:year"]),
    (["plot", "plot"], ["plot"]),
]


class TestPredict:
    def test_rows_have_every_mix(self, nested, new_rows):
        known = np.array(
            [
                [label in nested.random_effects_[name].index for label in labels]
                for name, labels in labels_of(new_rows).items()
            ]
        )
        # A combination is known only if its parts are.
        mixes = [(1, 1, 1), (1, 1, 0), (1, 0, 0), (0, 1, 0), (0, 0, 0)]
        assert set(map(tuple, known.T.astype(int))) == set(mixes)

    @pytest.mark.parametrize(("random_effects", "names"), WANTED, ids=str)
    def test_sum_of_the_known_effects(self, nested, new_rows, random_effects, names):
        labels = labels_of(new_rows)
        expected = population_of(nested, new_rows)
        for name in names:
            expected = expected + effects_of(nested, name, labels[name], new_rows)
        found = nested.predict(new_rows, random_effects=random_effects)
        close(found, expected)
        with_std, std = nested.predict(new_rows, random_effects=random_effects, return_std=True)
        np.testing.assert_array_equal(with_std, found)
        assert (std > np.sqrt(nested.noise_variance_)).all()

    @pytest.mark.parametrize("names", [["plot", "year"], ["plot"], ["year"], []], ids=str)
    def test_groups_beside_columns(self, model, new_rows, names):
        labels = labels_of(new_rows)
        expected = population_of(model, new_rows)
        for name in names:
            expected = expected + effects_of(model, name, labels[name], new_rows)
        x = new_rows[["rain", "heat"]]
        for groups in (new_rows[["plot", "year"]], new_rows[["plot", "year"]].to_numpy()):
            close(model.predict(x, groups=groups, random_effects=names), expected)

    @pytest.mark.parametrize("random_effects", ["all", "none", "year", ["plot", "plot:year"]])
    def test_one_row_at_a_time(self, nested, new_rows, random_effects):
        mean, std = nested.predict(new_rows, random_effects=random_effects, return_std=True)
        for row in range(0, len(new_rows), 7):
            found = nested.predict(
                new_rows.iloc[[row]], random_effects=random_effects, return_std=True
            )
            close(found, (mean[[row]], std[[row]]))

    @pytest.mark.parametrize(
        "form",
        [
            lambda groups: groups,
            lambda groups: groups.to_numpy(),
            lambda groups: groups.to_numpy().tolist(),
            lambda groups: pd.MultiIndex.from_frame(groups),
        ],
        ids=["pandas", "array", "rows", "MultiIndex"],
    )
    @pytest.mark.parametrize("n_rows", [1, 2, 3])
    def test_as_few_rows_as_factors(self, model, new_rows, form, n_rows):
        rows = new_rows[:n_rows]
        x, groups = rows[["rain", "heat"]], rows[["plot", "year"]]
        expected = model.predict(new_rows[["rain", "heat"]], groups=new_rows[["plot", "year"]])
        close(model.predict(x, groups=form(groups)), expected[:n_rows])

    @pytest.mark.parametrize("random_effects", ["all", "none", "plot", ["year", "plot:year"]])
    def test_standard_deviation_by_dense_algebra(self, nested, new_rows, random_effects):
        """The prediction error variance from the covariance of all rows, old and new.

        A factor that is left out counts as one of new levels.
        """
        table = TABLE[SEEN]
        wanted = list(nested.n_groups_) if random_effects == "all" else random_effects
        noise = nested.noise_variance_
        total = noise * np.eye(len(table))
        cross = np.zeros((len(new_rows), len(table)))
        own = np.full(len(new_rows), noise)
        for name, covariance in nested.covariances_.items():
            z, new = (
                np.column_stack(
                    [
                        np.ones(len(part)) if effect == "intercept" else part[effect]
                        for effect in covariance
                    ]
                )
                for part in (table, new_rows)
            )
            codes, levels = pd.factorize(pd.Series(labels_of(table)[name]))
            new_codes = pd.Index(levels, tupleize_cols=False).get_indexer(
                pd.Index(labels_of(new_rows)[name], tupleize_cols=False)
            )
            D = covariance.to_numpy()
            total += (z @ D @ z.T) * (codes[:, None] == codes)
            own += np.einsum("ri,ij,rj->r", new, D, new)
            if name in wanted:
                cross += (new @ D @ z.T) * (new_codes[:, None] == codes)
        fixed, new_fixed = (
            np.column_stack([np.ones(len(part)), part[["rain", "heat"]]])
            for part in (table, new_rows)
        )
        weights = np.linalg.solve(total, cross.T)
        information = fixed.T @ np.linalg.solve(total, fixed)
        gap = new_fixed - weights.T @ fixed
        variance = own - np.einsum("rn,nr->r", cross, weights)
        variance += np.einsum("rp,pq,rq->r", gap, np.linalg.inv(information), gap)
        _, std = nested.predict(new_rows, random_effects=random_effects, return_std=True)
        close(std, np.sqrt(variance), 1e-7)

    def test_more_is_known_of_known_levels(self, nested, new_rows):
        everything = nested.predict(new_rows, return_std=True)[1]
        nothing = nested.predict(new_rows, random_effects="none", return_std=True)[1]
        assert (everything <= nothing * (1 + 1e-9)).all()
        unknown = (new_rows["plot"] == 50) & (new_rows["year"] == 1999)
        close(everything[unknown], nothing[unknown])

    def test_combination_of_known_parts_is_unknown(self, nested):
        rows = TABLE[~SEEN]
        assert len(rows) > 10
        np.testing.assert_array_equal(
            nested.predict(rows), nested.predict(rows, random_effects=["plot", "year"])
        )
        effects = nested.random_effects_["plot:year"]
        assert not set(rows[["plot", "year"]].itertuples(index=False, name=None)) & set(
            effects.index
        )

    def test_parts_are_not_joined_as_text(self):
        """("a:b", "c") and ("a", "b:c") are different levels."""
        first = np.repeat(["a:b", "a", "d"], 20)
        second = np.repeat(["c", "b:c", "d"], 20)
        rng = np.random.default_rng(0)
        y = np.repeat([0.0, 10.0, 5.0], 20) + rng.standard_normal(60)
        table = pd.DataFrame({"first": first, "second": second})
        estimator = MixedLinearRegressor(groups=("first", "second")).fit(table, y)
        assert estimator.n_groups_ == {"first:second": 3}
        assert estimator.predict(table)[20] > estimator.predict(table)[0] + 8

    def test_score(self, nested, model):
        close(nested.score(TABLE, Y), r2_score(Y, nested.predict(TABLE)))
        weights = np.linspace(1.0, 2.0, len(Y))
        close(
            model.score(X, Y, groups=GROUPS, sample_weight=weights),
            r2_score(Y, model.predict(X, groups=GROUPS), sample_weight=weights),
        )

    def test_population_is_warned_of(self, model):
        expected = population_of(model, X)
        message = re.escape(
            "received no groups, but the model has random effects for 'plot', 'year'"
        )
        for random_effects in ("all", ["year"]):
            with pytest.warns(PopulationPredictionWarning, match=message) as record:
                close(model.predict(X, random_effects=random_effects), expected)
            assert len(record) == 1
            assert record[0].filename == __file__
        with pytest.warns(PopulationPredictionWarning, match=message):
            close(model.score(X, Y), r2_score(Y, expected))
        for random_effects in ("none", []):
            close(model.predict(X, random_effects=random_effects), expected)

    def test_no_groups_in_fit(self):
        with pytest.warns(NoGroupsWarning):
            estimator = MixedLinearRegressor(random_slopes=SLOPES).fit(X, Y)
        assert estimator.random_effects_ == {}

    def test_levels_of_another_factor_are_unknown(self, model):
        swapped = GROUPS[["year", "plot"]].to_numpy()
        close(model.predict(X, groups=swapped), population_of(model, X))
