"""Predictions, scores, errors, and what users of Dask estimators expect of one."""

import pickle
import subprocess
import sys

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from helpers.same_fit import assert_same_fit
from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.dask import DaskMixedLinearRegressor
from mixedlearn.datasets import load_penicillin, load_sleepstudy
from mixedlearn.exceptions import PopulationPredictionWarning
from mixedlearn.formula import FormulaError
from mixedlearn.inference import coefficient_table


def run(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


@pytest.fixture(scope="module")
def study():
    return load_sleepstudy().frame


@pytest.fixture(scope="module")
def split(study):
    return dd.from_pandas(study, npartitions=6)


@pytest.fixture(scope="module")
def fitted(client, split):
    model = DaskMixedLinearRegressor(groups="Subject", random_slopes=["Days"], client=client)
    return model.fit(split[["Days", "Subject"]], split["Reaction"])


@pytest.fixture(scope="module")
def whole(study):
    model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"])
    return model.fit(study[["Days", "Subject"]], study["Reaction"])


class TestPredict:
    def test_series(self, fitted, whole, study, split):
        X = split[["Days", "Subject"]]
        mean = fitted.predict(X)
        assert isinstance(mean, dd.Series)
        assert mean.divisions == X.divisions
        found = mean.compute()
        assert_allclose(found, whole.predict(study[["Days", "Subject"]]), rtol=1e-6)
        assert_array_equal(found.index, study.index)
        assert found.dtype == mean.dtype == np.float64
        # Lazy collections go on.
        residuals = (split["Reaction"] - mean).compute()
        assert_allclose(residuals, study["Reaction"] - found)

    def test_std_and_factors(self, fitted, whole, study, split):
        X, local = split[["Days", "Subject"]], study[["Days", "Subject"]]
        found = fitted.predict(X, return_std=True, random_effects="none")
        expected = whole.predict(local, return_std=True, random_effects="none")
        for own, other in zip(found, expected, strict=True):
            assert_allclose(own.compute(), other, rtol=1e-6)

    @pytest.mark.parametrize("return_std", [False, True])
    def test_empty_partitions(self, fitted, whole, study, split, return_std):
        some = split[(split.index > 40) & (split["Days"] > 7)][["Days", "Subject"]]
        assert some.map_partitions(len).compute().iloc[0] == 0
        found = fitted.predict(some, return_std=return_std)
        expected = whole.predict(some.compute(), return_std=return_std)
        pairs = zip(found, expected, strict=True) if return_std else [(found, expected)]
        for own, other in pairs:
            assert_allclose(own.compute(), other, rtol=1e-6)

    def test_arrays(self, client, study, split):
        X, y = study[["Days"]].to_numpy(float), study["Reaction"].to_numpy()
        labels, shift = study["Subject"].to_numpy(), np.arange(180.0)
        rows, vectors = (
            da.from_array(X, (50, 1)),
            [da.from_array(o, 50) for o in (y, labels, shift)],
        )
        model = DaskMixedLinearRegressor(client=client)
        model.fit(rows, vectors[0], groups=vectors[1], offset=vectors[2])
        local = MixedLinearRegressor().fit(X, y, groups=labels, offset=shift)
        mean = model.predict(rows, groups=vectors[1], offset=vectors[2])
        assert isinstance(mean, da.Array)
        assert mean.chunks == ((50, 50, 50, 30),)
        assert_allclose(mean.compute(), local.predict(X, groups=labels, offset=shift), rtol=1e-6)
        unknown = split[["Days"]].values
        mean = model.predict(unknown, groups=split["Subject"], offset=0.0)
        assert np.isnan(mean.chunks[0]).all()
        expected = local.predict(X, groups=labels, offset=0.0)
        assert_allclose(mean.compute(), expected, rtol=1e-6)

    def test_columns_in_several_chunks(self, client, study):
        rng = np.random.default_rng(0)
        X, codes = rng.normal(size=(60, 4)), np.arange(60) % 5
        y = X.sum(axis=1) + rng.normal(size=5)[codes] + rng.normal(size=60)
        rows, labels, response = (
            da.from_array(X, (20, 3)),
            da.from_array(codes, 20),
            da.from_array(y, 20),
        )
        model = DaskMixedLinearRegressor(client=client).fit(rows, response, groups=labels)
        local = MixedLinearRegressor().fit(X, y, groups=codes)
        assert_same_fit(model, local)
        found = model.predict(rows, groups=labels).compute()
        assert_allclose(found, local.predict(X, groups=codes), rtol=1e-6)

    def test_no_groups_is_said_once(self, client, split):
        X = split[["Days"]]
        model = DaskMixedLinearRegressor(client=client)
        model.fit(X, split["Reaction"], groups=split["Subject"])
        with pytest.warns(PopulationPredictionWarning, match="received no groups") as caught:
            mean = model.predict(X)
        assert [warning.filename for warning in caught] == [__file__]
        assert_allclose(mean.compute(), model.predict(X, random_effects="none").compute())

    def test_errors(self, fitted, split):
        with pytest.raises(ValueError, match="random_effects names the factor 'nobody'"):
            fitted.predict(split, random_effects=["nobody"])
        broken = split[["Days", "Subject"]].assign(Days=split["Days"] / (split.index != 100))
        late = fitted.predict(broken)
        with pytest.raises(
            ValueError, match=r"partition 3: .*NaN in column 'Days', the first at row 10"
        ):
            late.compute()
        with pytest.raises(NotFittedError):
            DaskMixedLinearRegressor().predict(split)

    def test_missing_column(self, client, fitted, split):
        with pytest.raises(ValueError, match=r"should match(.|\n)*Subject"):
            fitted.predict(split[["Days"]])
        # As in memory, what no prediction needs may be missing.
        assert fitted.predict(split[["Days"]], random_effects="none").name == "prediction"
        with pytest.raises(ValueError, match="should match"):
            fitted.predict(split[["Subject"]])
        model = DaskMixedLinearRegressor(formula="np.log1p(Days) + (1 | Subject)", client=client)
        model.fit(split, split["Reaction"])
        with pytest.raises(ValueError, match="X has no column 'Days'"):
            model.predict(split[["Subject"]])
        with pytest.raises(ValueError, match="X has no column 'Subject'"):
            model.predict(split[["Days"]])


class TestScore:
    def test_as_in_memory(self, client, study, split):
        X, local = split[["Days", "Subject"]], study[["Days", "Subject"]]
        weights = (study["Days"] * (study["Subject"] > 330)).rename("w")
        own = dd.from_pandas(weights, npartitions=6)
        for formula in ("Days + (Days | Subject)", "np.log(Reaction) ~ Days + (1 | Subject)"):
            model = DaskMixedLinearRegressor(formula=formula, client=client)
            model.fit(X, split["Reaction"])
            there = MixedLinearRegressor(formula=formula).fit(local, study["Reaction"])
            expected = there.score(local, study["Reaction"])
            assert_allclose(model.score(X, split["Reaction"]), expected, rtol=1e-6)
            expected = there.score(local, study["Reaction"], sample_weight=weights)
            found = model.score(X, split["Reaction"], sample_weight=own)
            assert_allclose(found, expected, rtol=1e-6)

    def test_nothing_to_explain(self, fitted, split):
        X, y = split[["Days", "Subject"]], split["Reaction"]
        assert fitted.score(X, 0.0 * y + 3.0) == 0.0
        assert np.isnan(fitted.score(X, y, sample_weight=0.0))


class TestErrors:
    """They name the partition, and leave the estimator as it was."""

    def bad(self, study):
        study = study.assign(kind=np.where(study["Days"] > 4, "late", "early"))
        for column, value, text in [
            ("Days", np.nan, "NaN in column 'Days', the first at row 3"),
            ("Reaction", np.inf, "y contains infinity, the first at row 3"),
            ("Subject", None, "missing label"),
            ("kind", None, "'kind' of the formula has a missing value .*row 3"),
        ]:
            broken = study.astype({"Days": float, "Subject": object})
            broken.loc[broken.index[123], column] = value
            yield column, broken, text

    def test_rows(self, client, study):
        for column, broken, text in self.bad(study):
            split = dd.from_pandas(broken, npartitions=6)
            formula = "Days + kind + (1 | Subject)" if column == "kind" else None
            model = DaskMixedLinearRegressor(formula=formula, client=client)
            if formula is None:
                model.set_params(groups="Subject", fixed_effects="Days")
            before = dict(vars(model))
            with pytest.raises(ValueError, match=f"^partition 4: .*{text}"):
                model.fit(split[["Days", "Subject", "kind"]], split["Reaction"])
            assert vars(model) == before

    def test_of_a_fitted_one(self, client, fitted, split, whole):
        model = pickle.loads(pickle.dumps(fitted)).set_params(client=client)
        with pytest.raises(ValueError, match=r"partition 0: .*inconsistent numbers of samples"):
            model.fit(split[["Days", "Subject"]], split["Reaction"].loc[1:])
        assert_same_fit(model, whole)

    def test_partitions(self, fitted, split):
        X, y = split[["Days", "Subject"]], split["Reaction"]
        with pytest.raises(ValueError, match="y has 3 partitions, but X has 6"):
            fitted.fit(X, y.repartition(npartitions=3))
        with pytest.raises(ValueError, match="sample_weight has 4 partitions, but X has 6"):
            fitted.fit(X, y, sample_weight=da.ones(180, chunks=45))

    def test_no_collections(self, fitted, study, split):
        X, y = split[["Days", "Subject"]], split["Reaction"]
        with pytest.raises(TypeError, match=r"X must be a Dask DataFrame.*got DataFrame"):
            fitted.fit(study, y)
        with pytest.raises(TypeError, match=r"y must be a Dask DataFrame.*got Series"):
            fitted.fit(X, study["Reaction"])
        with pytest.raises(ValueError, match="DaskMixedLinearRegressor requires y"):
            fitted.fit(X, None)
        with pytest.raises(TypeError, match=r"sample_weight must be a Dask.*got ndarray"):
            fitted.fit(X, y, sample_weight=np.ones(180))
        with pytest.raises(TypeError, match=r"X must be a Dask DataFrame.*got ndarray"):
            fitted.predict(study[["Days"]].to_numpy())

    def test_formula(self, client, split):
        X, y = split[["Days", "Subject"]], split["Reaction"]

        def fit(formula, X=X, **beside):
            DaskMixedLinearRegressor(formula=formula, client=client).fit(X, y, **beside)

        with pytest.raises(ValueError, match=r"'scale\(Days\)' of the formula learns from all"):
            fit("scale(Days) + (1 | Subject)")
        with pytest.raises(FormulaError, match="names 'Dyas'"):
            fit("Dyas + (1 | Subject)")
        with pytest.raises(ValueError, match="must be a DataFrame, got Array"):
            fit("Days + (1 | Subject)", X.values)
        with pytest.raises(ValueError, match="names the grouping factors itself"):
            fit("Days + (1 | Subject)", groups=split["Subject"])

    def test_parameters(self, split):
        with pytest.raises(ValueError, match="'client' parameter"):
            DaskMixedLinearRegressor(client=3).fit(split, split["Reaction"])
        with pytest.raises(TypeError, match="residual"):
            DaskMixedLinearRegressor(residual="ar1")

    def test_no_client(self):
        program = (
            "import dask.dataframe as dd\n"
            "from mixedlearn.dask import DaskMixedLinearRegressor\n"
            "from mixedlearn.datasets import load_sleepstudy\n"
            "study = dd.from_pandas(load_sleepstudy().frame, npartitions=2)\n"
            "DaskMixedLinearRegressor(groups=0).fit(study[['Subject']], study['Reaction'])\n"
        )
        assert "ValueError: No clients found" in run(program).stderr


class TestConventions:
    def test_client(self, client, split):
        model = DaskMixedLinearRegressor(groups="Subject")
        # The fixture's is the one that was made last.
        assert model.client_ is client
        with Client(client.scheduler.address, set_as_default=False) as other:
            assert model.set_params(client=other).client_ is other
            assert clone(model).client is other
            model.fit(split[["Days", "Subject"]], split["Reaction"])

    def test_parameters(self):
        ours = DaskMixedLinearRegressor().get_params()
        theirs = MixedLinearRegressor().get_params()
        assert ours.pop("client") is None
        assert ours == {k: own for k, own in theirs.items() if k not in ("residual", "time")}

    def test_to_local(self, fitted, whole, study):
        local = fitted.to_local()
        assert type(local) is MixedLinearRegressor
        assert local.get_params() == whole.get_params()
        assert_same_fit(local, whole)
        X = study[["Days", "Subject"]]
        assert_allclose(local.predict(X), whole.predict(X), rtol=1e-6)
        assert vars(local).keys() == vars(whole).keys()
        with pytest.raises(NotFittedError):
            DaskMixedLinearRegressor().to_local()

    def test_pickle(self, fitted, whole, client, split):
        back = pickle.loads(pickle.dumps(fitted))
        assert back.client is None
        assert_same_fit(back, whole)
        X = split[["Days", "Subject"]]
        assert_allclose(back.predict(X).compute(), fitted.predict(X).compute())

    def test_inference(self, fitted, whole):
        ours, theirs = coefficient_table(fitted), coefficient_table(whole)
        pd.testing.assert_frame_equal(ours, theirs, rtol=1e-5)
        assert str(fitted.summary()).splitlines()[0] == str(whole.summary()).splitlines()[0]

    def test_several_factors_by_name(self, client):
        X, y = load_penicillin(return_X_y=True)
        model = DaskMixedLinearRegressor(groups=["plate", "sample"], client=client)
        model.fit(dd.from_pandas(X, npartitions=7), dd.from_pandas(y, npartitions=7))
        assert_same_fit(model, MixedLinearRegressor(groups=["plate", "sample"]).fit(X, y))


class TestRowsInMemory:
    """What takes rows in memory says what to do with a frame of Dask."""

    @pytest.mark.parametrize("formula", [None, "Days + (1 | Subject)"])
    @pytest.mark.parametrize("method", ["fit", "partial_fit", "describe", "predict", "sample_y"])
    def test_methods(self, fitted, split, formula, method):
        X, y = split[["Days", "Subject"]], split["Reaction"]
        model = MixedLinearRegressor(formula=formula, groups=None if formula else "Subject")
        if method in ("predict", "sample_y"):
            model = fitted.to_local()
        given = (X, y) if "fit" in method else (X,)
        with pytest.raises(TypeError, match=r"Dask DataFrame.*compute\(\).*to_local\(\)"):
            getattr(model, method)(*given)

    def test_names_of_columns(self, split):
        with pytest.raises(TypeError, match=r"mixedlearn\.dask\.DaskMixedLinearRegressor"):
            MixedLinearRegressor(groups="Subject").fit(split, "Reaction")
        with pytest.raises(TypeError, match=r"mixedlearn\.dask\.DaskMixedLinearRegressor"):
            lmer("Reaction ~ Days + (1 | Subject)", split)

    def test_of_a_dask_estimator(self, split):
        model = DaskMixedLinearRegressor(groups="Subject")
        with pytest.raises(TypeError, match="batch 1: Rows came in a Dask DataFrame"):
            model.partial_fit(split[["Days", "Subject"]], split["Reaction"])
        with pytest.raises(TypeError, match="Rows came in a Dask DataFrame"):
            model.describe(split[["Days", "Subject"]])


def test_dask_is_not_imported_without_need():
    program = "import sys, mixedlearn; assert not {'dask', 'distributed'} & set(sys.modules)"
    assert run(program).returncode == 0


def test_without_dask():
    program = "import sys; sys.modules['distributed'] = None; import mixedlearn.dask"
    assert 'pip install "mixedlearn[dask]"' in run(program).stderr
