"""Groups on their way through scikit-learn: cross-validation, pipelines, searches.

Every row of the table of what scikit-learn does with groups is a test, compared with the folds done
by hand.
"""

import inspect
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_squared_error, r2_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers.versions import ASKS_FOR_SCORE, asks_for_score, names_polars
from mixedlearn import MixedLinearRegressor
from mixedlearn.datasets import load_sleepstudy
from mixedlearn.exceptions import NoGroupsWarning, PopulationPredictionWarning
from mixedlearn.metrics import GroupsScorer

STUDY = load_sleepstudy()
X, Y, GROUPS = STUDY.data[["Days"]], STUDY.target, STUDY.groups
TABLE = STUDY.data[["Days", "Subject"]]
FOLDS = KFold(4, shuffle=True, random_state=0)
BY_GROUP = GroupKFold(3)
SCORINGS = [pytest.param(None, marks=asks_for_score), "r2"]


def growth(**parameters):
    return MixedLinearRegressor(**{"random_slopes": ["Days"], **parameters})


def column_model(**parameters):
    return growth(groups="Subject", **parameters)


def folds_of(cv, groups):
    """The folds; KFold would warn of groups."""
    return cv.split(X, Y, None if isinstance(cv, KFold) else groups)


def by_hand(cv, *, groups=GROUPS, split_by=GROUPS, known=True, score=r2_score, **parameters):
    """Scores of the folds; known: whether predictions have the BLUPs of groups seen in fit."""
    scores = []
    for train, test in folds_of(cv, split_by):
        model = growth(**parameters).fit(X.iloc[train], Y.iloc[train], groups=groups.iloc[train])
        predicted = model.predict(
            X.iloc[test],
            groups=groups.iloc[test],
            random_effects="all" if known else "none",
        )
        scores.append(score(Y.iloc[test], predicted))
    return np.array(scores)


def predictions_by_hand(cv, known=True):
    predicted = np.empty(len(Y))
    for train, test in folds_of(cv, GROUPS):
        model = growth().fit(X.iloc[train], Y.iloc[train], groups=GROUPS.iloc[train])
        predicted[test] = model.predict(
            X.iloc[test], groups=GROUPS.iloc[test], random_effects="all" if known else "none"
        )
    return predicted


def close(scores, expected):
    np.testing.assert_allclose(scores, expected, rtol=1e-9)


def test_by_hand_tells_known_groups_from_the_population():
    """Or the tests below could not tell whether groups arrived."""
    assert (by_hand(FOLDS) > by_hand(FOLDS, known=False) + 0.2).all()
    close(by_hand(BY_GROUP), by_hand(BY_GROUP, known=False))


class TestTable:
    """The rows of the table, in its order."""

    def test_groups_of_the_splitter_only(self):
        with pytest.warns(NoGroupsWarning) as record:
            scores = cross_val_score(growth(), X, Y, groups=GROUPS, cv=BY_GROUP)
        assert [warning.category for warning in record] == [NoGroupsWarning] * 3
        close(scores, cross_val_score(LinearRegression(), X, Y, groups=GROUPS, cv=BY_GROUP))

    @pytest.mark.parametrize("cv", [BY_GROUP, FOLDS], ids=str)
    def test_params_without_routing_reach_fit_only(self, cv):
        groups = None if cv is FOLDS else GROUPS
        with pytest.warns(PopulationPredictionWarning) as record:
            scores = cross_val_score(
                growth(), X, Y, groups=groups, params={"groups": GROUPS}, cv=cv
            )
        assert {warning.category for warning in record} == {PopulationPredictionWarning}
        assert len(record) == cv.get_n_splits()
        close(scores, by_hand(cv, known=False))

    @pytest.mark.usefixtures("routing")
    @pytest.mark.parametrize("cv", [BY_GROUP, FOLDS, LeaveOneGroupOut()], ids=str)
    def test_params_with_routing_reach_fit_predict_and_score(self, cv):
        scores = cross_val_score(
            growth(), X, Y, params={"groups": GROUPS}, cv=cv, error_score="raise"
        )
        close(scores, by_hand(cv))

    @pytest.mark.usefixtures("routing")
    @pytest.mark.parametrize(
        ("scoring", "score"),
        [
            ("r2", r2_score),
            ("neg_mean_squared_error", lambda y, predicted: -mean_squared_error(y, predicted)),
        ],
        ids=["r2", "neg_mean_squared_error"],
    )
    def test_scoring_by_name_loses_groups_and_the_scorer_carries_them(self, scoring, score):
        settings = {"params": {"groups": GROUPS}, "cv": FOLDS, "error_score": "raise"}
        with pytest.warns(PopulationPredictionWarning):
            lost = cross_val_score(growth(), X, Y, scoring=scoring, **settings)
        close(lost, by_hand(FOLDS, known=False, score=score))
        carried = cross_val_score(growth(), X, Y, scoring=GroupsScorer(scoring), **settings)
        close(carried, by_hand(FOLDS, score=score))

    @pytest.mark.usefixtures("routing")
    def test_cross_val_predict_loses_groups(self):
        with pytest.warns(PopulationPredictionWarning):
            predicted = cross_val_predict(growth(), X, Y, params={"groups": GROUPS}, cv=FOLDS)
        close(predicted, predictions_by_hand(FOLDS, known=False))

    @pytest.mark.usefixtures("routing")
    def test_search_predict_takes_no_groups_and_score_does(self):
        search = GridSearchCV(growth(), {"reml": [True]}, cv=FOLDS).fit(X, Y, groups=GROUPS)
        with pytest.raises(TypeError, match="groups"):
            search.predict(X, groups=GROUPS)
        with pytest.warns(PopulationPredictionWarning):
            population = search.predict(X)
        predicted = search.best_estimator_.predict(X, groups=GROUPS)
        close(predicted, growth().fit(X, Y, groups=GROUPS).predict(X, groups=GROUPS))
        assert np.abs(predicted - population).max() > 30
        close(search.score(X, Y, groups=GROUPS), r2_score(Y, predicted))

    def test_pipeline_score_without_routing_drops_groups(self):
        pipeline = make_pipeline(StandardScaler(), growth(random_slopes=[0]))
        pipeline.fit(X, Y, mixedlinearregressor__groups=GROUPS)
        with pytest.warns(PopulationPredictionWarning):
            dropped = pipeline.score(X, Y, groups=GROUPS)
        close(dropped, r2_score(Y, pipeline.predict(X, random_effects="none")))
        known = pipeline.predict(X, groups=GROUPS)
        assert r2_score(Y, known) > dropped + 0.4
        # The scorer needs no routing to be called.
        close(GroupsScorer()(pipeline, X, Y, groups=GROUPS), r2_score(Y, known))

    @pytest.mark.usefixtures("routing")
    def test_pipeline_score_with_routing(self):
        pipeline = make_pipeline(StandardScaler(), growth(random_slopes=[0]))
        pipeline.fit(X, Y, groups=GROUPS)
        close(pipeline.score(X, Y, groups=GROUPS), r2_score(Y, pipeline.predict(X, groups=GROUPS)))

    @pytest.mark.usefixtures("routing")
    def test_pipeline_score_with_routing_needs_sample_weight(self):
        """Why `score` takes sample_weight: a Pipeline passes it, None or not."""

        class WithoutWeights(MixedLinearRegressor):
            def score(self, X, y, groups=None):
                return super().score(X, y, groups=groups)

        assert "sample_weight" in inspect.signature(MixedLinearRegressor.score).parameters
        pipeline = make_pipeline(StandardScaler(), WithoutWeights()).fit(X, Y, groups=GROUPS)
        with pytest.raises(TypeError, match="sample_weight"):
            pipeline.score(X, Y, groups=GROUPS)

    @pytest.mark.parametrize("is_routing", [False, True])
    def test_group_column_works_everywhere(self, is_routing):
        with sklearn.config_context(enable_metadata_routing=is_routing):
            for scoring in (None, "r2"):
                scores = cross_val_score(column_model(), TABLE, Y, cv=FOLDS, scoring=scoring)
                close(scores, by_hand(FOLDS))
            predicted = cross_val_predict(column_model(), TABLE, Y, cv=FOLDS)
            close(predicted, predictions_by_hand(FOLDS))
            search = GridSearchCV(column_model(), {"reml": [True]}, cv=FOLDS).fit(TABLE, Y)
            close(search.best_score_, by_hand(FOLDS).mean())
            expected = growth().fit(X, Y, groups=GROUPS).predict(X, groups=GROUPS)
            close(search.predict(TABLE), expected)
            close(search.score(TABLE, Y), r2_score(Y, expected))


class TestGroupColumnAndSplitters:
    """The splitter needs groups as well; the estimator has its own."""

    @pytest.mark.parametrize("cv", [BY_GROUP, LeaveOneGroupOut()], ids=str)
    def test_without_routing(self, cv):
        close(
            cross_val_score(column_model(), TABLE, Y, groups=GROUPS, cv=cv),
            by_hand(cv),
        )

    @pytest.mark.usefixtures("routing")
    @pytest.mark.parametrize("cv", [BY_GROUP, LeaveOneGroupOut()], ids=str)
    @pytest.mark.parametrize("scoring", SCORINGS)
    def test_with_routing(self, cv, scoring):
        scores = cross_val_score(
            column_model(),
            TABLE,
            Y,
            scoring=scoring,
            params={"groups": GROUPS},
            cv=cv,
            error_score="raise",
        )
        close(scores, by_hand(cv))

    @pytest.mark.usefixtures("routing")
    def test_search_with_routing(self):
        search = GridSearchCV(
            column_model(), {"reml": [True, False]}, scoring="r2", cv=BY_GROUP, error_score="raise"
        ).fit(TABLE, Y, groups=GROUPS)
        for position, reml in enumerate((True, False)):
            close(
                search.cv_results_["mean_test_score"][position],
                by_hand(BY_GROUP, reml=reml).mean(),
            )

    @pytest.mark.usefixtures("routing")
    def test_another_grouping_splits(self):
        """Folds by block of days, effects of subjects: all subjects are known."""
        blocks = X["Days"] // 3
        scores = cross_val_score(
            column_model(random_slopes=None),
            TABLE,
            Y,
            scoring="r2",
            params={"groups": blocks},
            cv=LeaveOneGroupOut(),
            error_score="raise",
        )
        close(scores, by_hand(LeaveOneGroupOut(), split_by=blocks, random_slopes=None))

    @pytest.mark.usefixtures("routing")
    def test_labels_are_not_requested_twice_by_name(self):
        """What was passed beside a named column by hand stays an error."""
        with pytest.raises(ValueError, match="given twice"):
            column_model().fit(TABLE, Y, groups=GROUPS)


class TestAlias:
    """One grouping for the splitter, another for the model."""

    PIGS = GROUPS.rename("pigs")
    VILLAGES = pd.Series(np.arange(len(Y)) // 2 % 5, name="village")

    @pytest.fixture
    def estimator(self, routing):
        return (
            growth()
            .set_fit_request(groups="pigs")
            .set_predict_request(groups="pigs")
            .set_score_request(groups="pigs")
        )

    @property
    def settings(self):
        return {
            "params": {"groups": self.VILLAGES, "pigs": self.PIGS},
            "cv": GroupKFold(5),
            "error_score": "raise",
        }

    def expected(self, **parameters):
        return by_hand(GroupKFold(5), split_by=self.VILLAGES, **parameters)

    def test_score(self, estimator):
        close(cross_val_score(estimator, X, Y, **self.settings), self.expected())
        assert (self.expected() > self.expected(known=False) + 0.1).all()

    def test_scorer(self, estimator):
        scorer = GroupsScorer().set_score_request(groups="pigs")
        close(cross_val_score(estimator, X, Y, scoring=scorer, **self.settings), self.expected())

    def test_scorer_without_alias_gets_the_other_grouping(self, estimator):
        """Villages are no subjects, so every prediction is the population's."""
        scores = cross_val_score(estimator, X, Y, scoring=GroupsScorer(), **self.settings)
        close(scores, self.expected(known=False))

    @pytest.mark.parametrize("is_scorer", [pytest.param(False, marks=asks_for_score), True])
    def test_pipeline_and_search(self, estimator, is_scorer):
        """The scorer calls ``predict(X, groups=...)``, so a Pipeline must route that name."""
        scoring = None
        if is_scorer:
            scoring = GroupsScorer().set_score_request(groups="pigs")
            estimator.set_predict_request(groups=True)
        scale = ColumnTransformer([("days", "passthrough", ["Days"])])
        estimator.set_params(random_slopes=[0])
        search = GridSearchCV(
            make_pipeline(scale, estimator),
            {"mixedlinearregressor__reml": [True, False]},
            scoring=scoring,
            cv=GroupKFold(5),
            error_score="raise",
        )
        search.fit(X, Y, **self.settings["params"])
        for position, reml in enumerate((True, False)):
            close(
                search.cv_results_["mean_test_score"][position],
                self.expected(reml=reml).mean(),
            )

    def test_requests_survive_clone_and_pickle(self, estimator):
        for copy in (clone(estimator), pickle.loads(pickle.dumps(estimator))):
            close(cross_val_score(copy, X, Y, **self.settings), self.expected())


class TestScorer:
    @pytest.mark.usefixtures("routing")
    def test_several_scorers(self):
        results = cross_validate(
            growth(),
            X,
            Y,
            scoring={"r2": GroupsScorer(), "mse": GroupsScorer("neg_mean_squared_error")},
            params={"groups": GROUPS},
            cv=FOLDS,
            error_score="raise",
        )
        close(results["test_r2"], by_hand(FOLDS))
        close(-results["test_mse"], by_hand(FOLDS, score=mean_squared_error))

    @pytest.mark.usefixtures("routing")
    def test_own_scorer(self):
        def closeness(estimator, X, y):
            return -np.abs(estimator.predict(X) - y).max()

        scores = cross_val_score(
            growth(),
            X,
            Y,
            scoring=GroupsScorer(closeness),
            params={"groups": GROUPS},
            cv=FOLDS,
            error_score="raise",
        )
        close(scores, by_hand(FOLDS, score=lambda y, predicted: -np.abs(y - predicted).max()))

    @pytest.mark.usefixtures("routing")
    def test_a_scorer_of_standard_deviations(self):
        def log_score(estimator, X, y):
            mean, std = estimator.predict(X, return_std=True)
            return -np.mean(np.log(std) + 0.5 * ((y - mean) / std) ** 2)

        scores = cross_val_score(
            growth(),
            X,
            Y,
            scoring=GroupsScorer(log_score),
            params={"groups": GROUPS},
            cv=FOLDS,
            error_score="raise",
        )
        for score, (train, test) in zip(scores, FOLDS.split(X, Y), strict=True):
            model = growth().fit(X.iloc[train], Y[train], groups=GROUPS[train])
            mean, std = model.predict(X.iloc[test], groups=GROUPS[test], return_std=True)
            close(score, -np.mean(np.log(std) + 0.5 * ((Y[test] - mean) / std) ** 2))

    @pytest.mark.usefixtures("routing")
    def test_weights_reach_the_scorer(self):
        weights = 1.0 + np.arange(len(Y)) % 3
        scores = cross_val_score(
            growth().set_fit_request(sample_weight=True),
            X,
            Y,
            scoring=GroupsScorer().set_score_request(sample_weight=True),
            params={"groups": GROUPS, "sample_weight": weights},
            cv=FOLDS,
            error_score="raise",
        )
        for score, (train, test) in zip(scores, FOLDS.split(X, Y), strict=True):
            own = {"groups": GROUPS[train], "sample_weight": weights[train]}
            model = growth().fit(X.iloc[train], Y[train], **own)
            mean = model.predict(X.iloc[test], groups=GROUPS[test])
            close(score, r2_score(Y[test], mean, sample_weight=weights[test]))

    @pytest.mark.parametrize("is_routing", [False, True])
    def test_direct_call(self, is_routing):
        model = growth().fit(X, Y, groups=GROUPS)
        expected = r2_score(Y, model.predict(X, groups=GROUPS))
        with sklearn.config_context(enable_metadata_routing=is_routing):
            close(GroupsScorer()(model, X, Y, groups=GROUPS), expected)
            with pytest.warns(PopulationPredictionWarning):
                population = GroupsScorer()(model, X, Y)
        assert population < expected - 0.4

    @pytest.mark.usefixtures("routing")
    def test_search(self):
        """A search's `predict` takes no groups; that of its best estimator does."""
        search = GridSearchCV(growth(), {"reml": [True, False]}, cv=FOLDS)
        search.fit(X, Y, groups=GROUPS)
        predicted = search.best_estimator_.predict(X, groups=GROUPS)
        close(GroupsScorer()(search, X, Y, groups=GROUPS), r2_score(Y, predicted))

    def test_group_column_needs_no_groups(self):
        model = column_model().fit(TABLE, Y)
        close(GroupsScorer()(model, TABLE, Y), model.score(TABLE, Y))

    def test_clone_and_repr(self):
        scorer = GroupsScorer("neg_mean_absolute_error")
        assert clone(scorer).scoring == "neg_mean_absolute_error"
        assert repr(scorer) == "GroupsScorer(scoring='neg_mean_absolute_error')"


def keep_groups(container="default", verbose=False):
    """Scale the days and keep the group column, which comes last."""
    return ColumnTransformer(
        [("scale", StandardScaler(), ["Days"])],
        remainder="passthrough",
        verbose_feature_names_out=verbose,
    ).set_output(transform=container)


class TestPipeline:
    @pytest.mark.parametrize("is_routing", [False, True])
    def test_groups_beside_columns(self, is_routing):
        pipeline = make_pipeline(StandardScaler(), growth(random_slopes=[0]))
        expected = growth().fit(X, Y, groups=GROUPS)
        with sklearn.config_context(enable_metadata_routing=is_routing):
            name = "groups" if is_routing else "mixedlinearregressor__groups"
            pipeline.fit(X, Y, **{name: GROUPS})
            close(pipeline.predict(X, groups=GROUPS), expected.predict(X, groups=GROUPS))
            # The model does not depend on the unit and the origin of the days.
            assert pipeline[-1].log_likelihood_ == pytest.approx(
                expected.log_likelihood_ + np.log(X["Days"].std(ddof=0))
            )
            with pytest.warns(PopulationPredictionWarning):
                pipeline.predict(X)

    def test_groups_lost_in_a_pipeline_are_noticed(self):
        with pytest.warns(NoGroupsWarning):
            make_pipeline(StandardScaler(), growth(random_slopes=[0])).fit(X, Y)

    @pytest.mark.usefixtures("routing")
    @pytest.mark.parametrize("cv", [FOLDS, BY_GROUP, LeaveOneGroupOut()], ids=str)
    def test_cross_validation(self, cv):
        pipeline = make_pipeline(StandardScaler(), growth(random_slopes=[0], tol=1e-10))
        for scoring in (None, GroupsScorer()) if ASKS_FOR_SCORE else (GroupsScorer(),):
            scores = cross_val_score(
                pipeline,
                X,
                Y,
                scoring=scoring,
                params={"groups": GROUPS},
                cv=cv,
                error_score="raise",
            )
            np.testing.assert_allclose(scores, by_hand(cv), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize(
        "container", ["pandas", pytest.param("polars", marks=names_polars), "default"]
    )
    @pytest.mark.parametrize("labels", ["numbers", "text"])
    def test_column_transformer_keeps_the_group_column(self, container, labels):
        table = TABLE
        if labels == "text":
            table = TABLE.assign(Subject=[f"s{subject}" for subject in TABLE["Subject"]])
        if container == "polars":
            table = pl.DataFrame({name: table[name].tolist() for name in table})
        named = container != "default"
        pipeline = make_pipeline(
            keep_groups(container),
            MixedLinearRegressor(
                groups="Subject" if named else 1, random_slopes=["Days" if named else 0]
            ),
        ).fit(table, Y.to_numpy())
        expected = growth().fit(X, Y, groups=GROUPS).predict(X, groups=GROUPS)
        np.testing.assert_allclose(pipeline.predict(table), expected, rtol=1e-6)
        close(pipeline.score(table, Y.to_numpy()), r2_score(Y, pipeline.predict(table)))
        if named:
            assert list(pipeline[-1].feature_names_in_) == ["Days", "Subject"]

    def test_set_output_of_the_pipeline(self):
        pipeline = make_pipeline(keep_groups(), column_model()).set_output(transform="pandas")
        np.testing.assert_allclose(
            cross_val_predict(pipeline, TABLE, Y, cv=FOLDS), predictions_by_hand(FOLDS), rtol=1e-6
        )

    def test_group_column_lost_by_a_transformer_is_an_error(self):
        pipeline = make_pipeline(keep_groups("pandas").set_params(remainder="drop"), column_model())
        with pytest.raises(ValueError, match="Subject"):
            pipeline.fit(TABLE, Y)
        pipeline = make_pipeline(keep_groups("pandas", verbose=True), column_model())
        with pytest.raises(ValueError, match="Did you mean 'remainder__Subject'"):
            pipeline.fit(TABLE, Y)

    def test_html_repr(self):
        html = make_pipeline(keep_groups(), column_model())._repr_html_()
        assert "MixedLinearRegressor" in html
        assert "StandardScaler" in html


def correlated_data():
    """Intercepts and slopes that are nearly proportional, in groups of three rows."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(150), 3)
    x = rng.uniform(0, 2, len(groups))
    intercepts = 3.0 * rng.standard_normal(150)
    slopes = -intercepts + 0.1 * rng.standard_normal(150)
    y = intercepts[groups] + slopes[groups] * x + 1.5 * rng.standard_normal(len(groups))
    return x[:, None], y, groups


GRID = {"random_slopes": [None, ["Days"]], "reml": [True, False]}


class TestSearch:
    def assert_scores(self, search, cv):
        results = search.cv_results_
        for parameters, score in zip(results["params"], results["mean_test_score"], strict=True):
            close(score, by_hand(cv, **parameters).mean())

    @pytest.mark.usefixtures("routing")
    @pytest.mark.parametrize("cv", [FOLDS, BY_GROUP], ids=str)
    @pytest.mark.parametrize("scoring", [None, GroupsScorer()], ids=str)
    def test_random_slopes_and_reml(self, cv, scoring):
        search = GridSearchCV(growth(), GRID, cv=cv, scoring=scoring, error_score="raise")
        search.fit(X, Y, groups=GROUPS)
        self.assert_scores(search, cv)
        assert search.best_score_ == search.cv_results_["mean_test_score"].max()
        if cv is FOLDS:
            # Known people have slopes of their own.
            assert search.best_params_["random_slopes"] == ["Days"]
            assert search.best_estimator_.theta_.shape == (3,)

    def test_group_column(self):
        search = GridSearchCV(column_model(), GRID, cv=FOLDS).fit(TABLE, Y)
        self.assert_scores(search, FOLDS)
        assert search.best_params_["random_slopes"] == ["Days"]
        close(
            search.predict(TABLE),
            growth(**search.best_params_).fit(X, Y, groups=GROUPS).predict(X, groups=GROUPS),
        )

    @pytest.mark.usefixtures("routing")
    def test_covariance(self):
        X, y, groups = correlated_data()
        mask = np.eye(2, dtype=bool)
        search = GridSearchCV(
            MixedLinearRegressor(random_slopes=[0]),
            {"covariance": ["scalar", "diagonal", mask, "full"]},
            cv=FOLDS,
            error_score="raise",
        ).fit(X, y, groups=groups)
        scalar, diagonal, masked, full = search.cv_results_["mean_test_score"]
        assert search.best_params_ == {"covariance": "full"}
        assert full > max(scalar, diagonal) + 0.01
        assert masked == pytest.approx(diagonal, rel=1e-6)
        (covariance,) = search.best_estimator_.covariances_.values()
        assert covariance.iloc[0, 1] < -5

    def test_groups_lost_by_the_search_are_noticed(self):
        """The search gives its groups to the splitter alone."""
        search = GridSearchCV(growth(), {"reml": [True, False]}, cv=BY_GROUP)
        with pytest.warns(NoGroupsWarning) as record:
            search.fit(X, Y, groups=GROUPS)
        assert len(record) == 2 * 3 + 1
        least_squares = cross_val_score(LinearRegression(), X, Y, groups=GROUPS, cv=BY_GROUP)
        close(search.best_score_, least_squares.mean())

    @pytest.mark.usefixtures("routing")
    @pytest.mark.parametrize(
        "scoring", [pytest.param(None, marks=asks_for_score), GroupsScorer()], ids=str
    )
    def test_nested(self, scoring):
        outer = KFold(3, shuffle=True, random_state=1)
        search = GridSearchCV(growth(), GRID, cv=FOLDS, error_score="raise")
        scores = cross_val_score(
            search,
            X,
            Y,
            scoring=scoring,
            params={"groups": GROUPS},
            cv=outer,
            error_score="raise",
        )
        expected = []
        for train, test in outer.split(X):
            inner = clone(search).fit(X.iloc[train], Y.iloc[train], groups=GROUPS.iloc[train])
            model = growth(**inner.best_params_)
            model.fit(X.iloc[train], Y.iloc[train], groups=GROUPS.iloc[train])
            expected.append(model.score(X.iloc[test], Y.iloc[test], groups=GROUPS.iloc[test]))
        close(scores, expected)
        close(
            cross_val_score(search.set_params(estimator=column_model()), TABLE, Y, cv=outer),
            expected,
        )

    @pytest.mark.usefixtures("routing")
    def test_pipeline(self):
        search = GridSearchCV(
            make_pipeline(StandardScaler().set_output(transform="pandas"), growth()),
            {f"mixedlinearregressor__{name}": values for name, values in GRID.items()},
            scoring=GroupsScorer(),
            cv=FOLDS,
            error_score="raise",
        ).fit(X, Y, groups=GROUPS)
        results = search.cv_results_
        for parameters, score in zip(results["params"], results["mean_test_score"], strict=True):
            bare = {name.split("__")[1]: value for name, value in parameters.items()}
            assert score == pytest.approx(by_hand(FOLDS, **bare).mean(), rel=1e-6)
        assert search.best_params_["mixedlinearregressor__random_slopes"] == ["Days"]


@pytest.mark.usefixtures("routing")
def test_two_jobs():
    """Groups, requests and the configuration reach the workers."""
    for scoring in (None, GroupsScorer()):
        scores = cross_val_score(
            growth(),
            X,
            Y,
            scoring=scoring,
            params={"groups": GROUPS},
            cv=FOLDS,
            n_jobs=2,
            error_score="raise",
        )
        close(scores, by_hand(FOLDS))
    search = GridSearchCV(growth(), {"random_slopes": [None, ["Days"]]}, cv=FOLDS, n_jobs=2)
    search.fit(X, Y, groups=GROUPS)
    close(search.best_score_, by_hand(FOLDS).mean())
    close(
        cross_val_predict(column_model(), TABLE, Y, cv=FOLDS, n_jobs=2),
        predictions_by_hand(FOLDS),
    )


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("container", ["pandas", "polars", "numpy"])
def test_containers(container):
    """Cross-validation cuts X, y and groups of any kind into the same folds."""
    convert = {
        "pandas": lambda part: part,
        "polars": lambda part: (
            pl.DataFrame({name: part[name].tolist() for name in part})
            if part.ndim == 2
            else pl.Series(part.tolist())
        ),
        "numpy": lambda part: part.to_numpy(),
    }[container]
    scores = cross_val_score(
        growth(random_slopes=[0]),
        convert(X),
        Y.to_numpy(),
        params={"groups": convert(GROUPS)},
        cv=FOLDS,
        error_score="raise",
    )
    close(scores, by_hand(FOLDS))
    scores = cross_val_score(
        MixedLinearRegressor(groups=1, random_slopes=[0]),
        convert(TABLE),
        Y.to_numpy(),
        cv=FOLDS,
        error_score="raise",
    )
    close(scores, by_hand(FOLDS))


@pytest.mark.usefixtures("routing")
def test_weights_are_routed_when_requested():
    weights = np.linspace(1, 3, len(Y))
    estimator = growth().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    scores = cross_val_score(
        estimator,
        X,
        Y,
        params={"groups": GROUPS, "sample_weight": weights},
        cv=FOLDS,
        error_score="raise",
    )
    expected = []
    for train, test in FOLDS.split(X):
        model = growth().fit(
            X.iloc[train], Y.iloc[train], groups=GROUPS.iloc[train], sample_weight=weights[train]
        )
        predicted = model.predict(X.iloc[test], groups=GROUPS.iloc[test])
        expected.append(r2_score(Y.iloc[test], predicted, sample_weight=weights[test]))
    close(scores, expected)


@pytest.mark.usefixtures("routing")
def test_groups_are_requested_by_default():
    requests = growth().get_metadata_routing()
    for method in ("fit", "predict", "score"):
        assert getattr(requests, method).requests["groups"] is True
    assert GroupsScorer().get_metadata_routing().score.requests["groups"] is True
