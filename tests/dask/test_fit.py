"""Rows in partitions on workers: the model is that of `fit` on all of them."""

import os
import signal
from pathlib import Path

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask import delayed
from numpy.testing import assert_allclose

from helpers.same_fit import assert_same_fit
from mixedlearn import MixedLinearRegressor
from mixedlearn.dask import DaskMixedLinearRegressor
from mixedlearn.exceptions import DataWarning, DegenerateModelWarning, NoGroupsWarning

N_PARTITIONS = 20


@pytest.fixture(scope="module")
def frame():
    """Columns that drift, levels and categories of which no partition has all."""
    rng = np.random.default_rng(0)
    n = 3_000
    place = np.arange(n) // 100
    a = np.array([f"a{code}" for code in (place + rng.integers(0, 8, n)) % 25])
    b, kind = rng.integers(0, 12, n), np.array(["low", "mid", "high", "none"])[place % 4]
    x, z = 5.0 + place + rng.normal(size=n), rng.normal(size=n)
    effects = dict(zip(sorted(set(a)), rng.normal(size=(25, 2)), strict=True))
    own = np.array([effects[label] for label in a])
    y = x - z + own[:, 0] + own[:, 1] * z + 2.0 * rng.normal(size=12)[b] + 0.3 * place % 4
    y += rng.normal(size=n)
    weights = rng.choice([0.0, 0.5, 1.0, 2.0], n)
    return pd.DataFrame({"x": x, "z": z, "a": a, "b": b, "kind": kind, "y": y, "w": weights})


def collection(frame, n_partitions=N_PARTITIONS):
    return dd.from_pandas(frame, npartitions=n_partitions, sort=False)


def both_fits(client, frame, columns, beside=(), n_partitions=N_PARTITIONS, **parameters):
    """The fit of partitions and that of all rows in memory."""
    split = collection(frame, n_partitions)
    own = {name: split[column] for name, column in dict(beside).items()}
    model = DaskMixedLinearRegressor(client=client, **parameters)
    model.fit(split[columns], split["y"], **own)
    own = {name: frame[column] for name, column in dict(beside).items()}
    whole = MixedLinearRegressor(**parameters).fit(frame[columns], frame["y"], **own)
    return model, whole


MODELS = {
    "one factor": {"groups": "a", "random_slopes": ["z"]},
    "several": {"groups": ["a", "b"], "random_slopes": {"a": ["z"]}, "covariance": "diagonal"},
    "interaction": {"groups": ["b", ("a", "b")], "reml": False},
}


class TestEqualsFit:
    @pytest.mark.parametrize("parameters", MODELS.values(), ids=MODELS)
    @pytest.mark.parametrize(
        "beside", [{}, {"sample_weight": "w", "offset": "z"}], ids=["plain", "weighted"]
    )
    def test_parameters(self, client, frame, parameters, beside):
        assert_same_fit(*both_fits(client, frame, ["x", "z", "a", "b"], beside, **parameters))

    def test_rounding(self, client, frame):
        """Not to more than rounding: the optimum is the same to the digits that a fit has."""
        model, whole = both_fits(client, frame, ["x", "z", "a"], groups="a", tol=1e-12)
        assert_allclose(model.log_likelihood_, whole.log_likelihood_, rtol=1e-13)
        assert_allclose(model.coef_, whole.coef_, rtol=1e-10)

    @pytest.mark.parametrize(
        "formula",
        [
            "x * kind + (1 + z | a) + (1 | b)",
            "C(b) + x + (1 | a)",
            "y ~ x + (0 + kind | a)",
            "{x > 10} + np.where(z > 1, 'many', 'few') + (1 | a)",
            "np.exp(y / 20) ~ . - w - x + offset(x / 9) + (1 | a)",
            "np.log(x + 9) + bs(z, knots=[0.0], lower_bound=-9.0, upper_bound=9.0) + (1 | a)",
        ],
    )
    def test_formula(self, client, frame, formula):
        columns = ["kind", "z", "x", "a", "b"] + ["w"] * (". - w" in formula)
        with_weights = {} if "w" in columns else {"sample_weight": "w"}
        assert_same_fit(*both_fits(client, frame, columns, with_weights, formula=formula))

    @pytest.mark.parametrize("kind", ["known", "unknown", "object", "string"])
    @pytest.mark.parametrize("formula", ["kind + x + (1 | a)", None])
    def test_types_of_labels_and_categories(self, client, frame, kind, formula):
        split = collection(frame[["kind", "a", "x", "y"]])
        if kind == "known":
            known = {name: pd.CategoricalDtype(frame[name].unique()) for name in ("kind", "a")}
            split = split.astype(known)
        elif kind == "unknown":
            # Each partition has categories of its own.
            split = split.astype({"kind": "category", "a": "category"})
        else:
            split = split.astype({"kind": kind, "a": kind})
        parameters = {"groups": "a", "fixed_effects": ["x"]} if formula is None else {}
        model = DaskMixedLinearRegressor(client=client, formula=formula, **parameters)
        model.fit(split[["kind", "x", "a"]], split["y"])
        whole = MixedLinearRegressor(formula=formula, **parameters)
        local = split.compute()
        assert_same_fit(model, whole.fit(local[["kind", "x", "a"]], local["y"]))

    def test_text_of_arrow(self, client, frame):
        frame = frame.astype({"a": "string[pyarrow]", "kind": "string[pyarrow]"})
        columns = ["x", "a", "kind"]
        assert_same_fit(*both_fits(client, frame, columns, formula="x + kind + (1 | a)"))

    def test_groups_beside_x(self, client, frame):
        assert_same_fit(*both_fits(client, frame, ["x", "z"], {"groups": "a"}))
        assert_same_fit(*both_fits(client, frame, ["x", "z"], {"groups": ["a", "b"]}))

    def test_arrays(self, client, frame):
        X, y = frame[["x", "z"]].to_numpy(), frame["y"].to_numpy()
        labels = frame[["a", "b"]].to_numpy(dtype=object)
        whole = MixedLinearRegressor().fit(X, y, groups=labels)
        rows, (own_y, own_labels) = (150, 1), (da.from_array(own, 150) for own in (y, labels))
        model = DaskMixedLinearRegressor(client=client)
        assert_same_fit(model.fit(da.from_array(X, rows), own_y, groups=own_labels), whole)
        assert not hasattr(model, "feature_names_in_")
        # Of unknown sizes, beside a data frame.
        split = collection(frame)
        model.fit(split[["x", "z"]].values, split["y"].values, groups=split[["a", "b"]])
        whole.fit(X, y, groups=frame[["a", "b"]])
        assert_same_fit(model, whole)

    def test_least_squares(self, client, frame):
        with pytest.warns(NoGroupsWarning, match="received no groups") as caught:
            model, whole = both_fits(client, frame, ["x", "z"])
        assert [warning.filename for warning in caught] == [__file__] * 2
        assert_same_fit(model, whole)

    def test_one_partition(self, client, frame):
        assert_same_fit(*both_fits(client, frame, ["x", "a"], n_partitions=1, groups="a"))

    def test_warm_start(self, client, frame):
        split = collection(frame)
        model = DaskMixedLinearRegressor(client=client, groups="a", warm_start=True)
        first = model.fit(split[["x", "a"]], split["y"]).n_iter_
        assert model.fit(split[["x", "a"]], split["y"]).n_iter_ < first

    def test_refit_to_arrays_forgets_names(self, client, frame):
        split = collection(frame)
        model = DaskMixedLinearRegressor(client=client, groups=0)
        model.fit(split[["b", "x"]], split["y"])
        assert list(model.feature_names_in_) == ["b", "x"]
        model.fit(split[["b", "x", "z"]].values, split["y"])
        assert not hasattr(model, "feature_names_in_")
        assert model.n_features_in_ == 3

    def test_goes_on_from_rows_in_memory(self, client, frame):
        split = collection(frame[:2_000])
        model = DaskMixedLinearRegressor(client=client, groups="a")
        model.fit(split[["x", "a"]], split["y"])
        model.partial_fit(frame[["x", "a"]][2_000:], frame["y"][2_000:])
        whole = MixedLinearRegressor(groups="a").fit(frame[["x", "a"]], frame["y"])
        assert_same_fit(model, whole)


class TestRowsThatDoNotCount:
    @pytest.mark.parametrize("formula", [None, "x + kind + (1 | a)"])
    def test_empty_partitions(self, client, frame, formula):
        parameters = {"formula": formula} if formula else {"groups": "a", "fixed_effects": ["x"]}
        kept = (frame["x"] > 9.0) & (frame["x"] < 25.0)
        split = collection(frame)
        split = split[(split["x"] > 9.0) & (split["x"] < 25.0)]
        sizes = split.map_partitions(len).compute()
        assert sizes.min() == 0 == sizes.iloc[0]
        model = DaskMixedLinearRegressor(client=client, **parameters)
        model.fit(split[["x", "kind", "a"]], split["y"])
        local = frame[kept]
        whole = MixedLinearRegressor(**parameters).fit(local[["x", "kind", "a"]], local["y"])
        assert_same_fit(model, whole)

    @pytest.mark.parametrize("formula", [None, "x + kind + (1 | a)"])
    def test_partitions_of_weight_zero(self, client, frame, formula):
        parameters = {"formula": formula} if formula else {"groups": "a", "fixed_effects": ["x"]}
        # Two kinds are among rows of weight zero alone.
        frame = frame.assign(w=np.where((frame["x"] > 9.0) & (frame["kind"] < "m"), 1.0, 0.0))
        columns = ["x", "kind", "a"]
        model, whole = both_fits(client, frame, columns, {"sample_weight": "w"}, **parameters)
        assert_same_fit(model, whole)

    def test_no_row_counts(self, client, frame):
        split = collection(frame)
        model = DaskMixedLinearRegressor(client=client, groups="a")
        with pytest.raises(ValueError, match="No partition has a row of positive weight"):
            model.fit(split[["x", "a"]], split["y"], sample_weight=0.0)

    def test_a_number_for_all_rows(self, client, frame):
        split = collection(frame)
        model = DaskMixedLinearRegressor(client=client, groups="a")
        model.fit(split[["x", "a"]], split["y"], sample_weight=2.0, offset=1.0)
        whole = MixedLinearRegressor(groups="a")
        whole.fit(frame[["x", "a"]], frame["y"], sample_weight=2.0, offset=1.0)
        assert_same_fit(model, whole)


class TestDigits:
    """Sums of squares that lose digits are formed anew, without squares, where the rows are."""

    @pytest.mark.parametrize("groups", ["a", ["a", "b"]])
    @pytest.mark.parametrize("in_elimination", [False, True])
    def test_little_noise(self, client, frame, groups, in_elimination, use_engine):
        if in_elimination:
            use_engine("elimination")
        signal = 1e7 * frame["x"]
        frame = frame.assign(y=frame["y"] + signal)
        model, whole = both_fits(client, frame, ["x", "a", "b"], groups=groups)
        plain = MixedLinearRegressor(groups=groups)
        plain.fit(frame[["x", "a", "b"]], frame["y"] - signal)
        assert_allclose(model.noise_variance_, whole.noise_variance_, rtol=1e-7)
        assert_allclose(model.noise_variance_, plain.noise_variance_, rtol=1e-5)
        assert_allclose(model.log_likelihood_, whole.log_likelihood_, rtol=1e-9)
        assert model.converged_

    def test_weights_far_apart(self, client, frame):
        frame = frame.assign(w=np.where(frame["b"] < 6, 1e-10, 1.0))
        own = {"sample_weight": "w"}
        assert_same_fit(*both_fits(client, frame, ["x", "a"], own, groups="a"))

    def test_notes_of_columns(self, client, frame):
        # One row of one partition.
        large = frame["b"].astype(np.int64)
        large.iloc[2_000] = 2**60 + 1
        split = collection(frame.assign(large=large))
        model = DaskMixedLinearRegressor(client=client, groups="a")
        with pytest.warns(DataWarning, match="'large'"):
            model.fit(split[["large", "a"]], split["y"])

    def test_notes_of_the_fit(self, client, frame):
        split = collection(frame.assign(twice=2.0 * frame["x"]))
        model = DaskMixedLinearRegressor(client=client, groups="a")
        with pytest.warns(DegenerateModelWarning) as caught:
            model.fit(split[["x", "twice", "a"]], split["y"])
        assert {warning.filename for warning in caught} == {__file__}


def die_once(part, flag):
    """Kill the process of the worker that comes here first."""
    if not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return part


def test_a_worker_that_is_killed(client, frame, tmp_path):
    columns = ["x", "kind", "a", "y"]
    parts = collection(frame[columns]).to_delayed()
    flag = str(tmp_path / "died")
    # Most partitions have been summed up when it dies.
    parts[-2] = delayed(die_once)(parts[-2], flag)
    split = dd.from_delayed(parts, meta=frame[columns].iloc[:0], verify_meta=False)
    before = set(client.scheduler_info()["workers"])
    model = DaskMixedLinearRegressor(client=client, groups="a", fixed_effects="x")
    model.fit(split[["x", "kind", "a"]], split["y"])
    assert Path(flag).exists()
    client.wait_for_workers(2)
    assert set(client.scheduler_info()["workers"]) != before
    whole = MixedLinearRegressor(groups="a", fixed_effects="x")
    assert_same_fit(model, whole.fit(frame[["x", "kind", "a"]], frame["y"]))
