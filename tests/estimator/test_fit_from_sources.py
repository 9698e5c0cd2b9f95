"""Rows from disk or from a stream: the model is that of `fit` on the same rows in memory."""

import warnings
from unittest import mock

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from mixedlearn import MixedLinearRegressor, lmer
from mixedlearn.data import sources
from mixedlearn.exceptions import DataWarning, DegenerateModelWarning
from mixedlearn.inference import residuals

N_ROWS = 120


def made_up(seed, n=N_ROWS):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 9, n), rng.integers(0, 4, n)
    frame = pd.DataFrame(
        {
            "x": np.sort(rng.normal(size=n)) + 3.0,
            "w": rng.choice([0.0, 0.5, 1.0, 4.0], n),
            "z": rng.integers(-4, 5, n).astype("int16"),
            "a": np.sort(a) * 7 - 20,
            "b": [f"b{code}" for code in b],
            "known": rng.normal(size=n).astype("float32"),
            "kind": np.array(["low", "mid", "high"])[rng.integers(0, 3, n)],
            "unused": [None] * n,
        }
    )
    effects = 1.5 * rng.normal(size=(9, 2))
    price = frame["x"] - 0.3 * frame["z"] + effects[a, 0] + effects[a, 1] * frame["z"]
    frame["price"] = price + rng.normal(size=4)[b] + (frame["kind"] == "mid") + rng.normal(size=n)
    return frame.assign(level=np.exp(frame["price"] / 20.0))


def assert_same_fit(found, whole):
    assert_allclose(found.log_likelihood_, whole.log_likelihood_, rtol=1e-9, atol=1e-7)
    assert_allclose(found.intercept_, whole.intercept_, rtol=1e-6, atol=1e-6)
    assert_allclose(found.coef_, whole.coef_, rtol=1e-6, atol=1e-6)
    assert_allclose(found.coef_covariance_, whole.coef_covariance_, rtol=1e-5, atol=1e-6)
    assert_allclose(found.noise_variance_, whole.noise_variance_, rtol=1e-6)
    assert_array_equal(found.feature_names_in_, whole.feature_names_in_)
    assert found.n_features_in_ == whole.n_features_in_
    assert found.n_groups_ == whole.n_groups_
    assert found.formula_ == whole.formula_
    assert found.converged_ == whole.converged_
    assert found.is_singular_ == whole.is_singular_
    for name, effects in whole.random_effects_.items():
        assert found.random_effects_[name].index.equals(effects.index)
        assert_allclose(found.random_effects_[name], effects, rtol=1e-4, atol=1e-5)


def parts_of(frame, ends):
    return [frame.iloc[rows] for rows in np.split(np.arange(len(frame)), sorted(ends))]


def parquet(frame, ends, folder):
    for number, part in enumerate(parts_of(frame, ends)):
        table = pa.Table.from_pandas(part, preserve_index=False)
        pq.write_table(table, folder / f"part-{number:03}.parquet", row_group_size=17)
    return folder


def reader(frame, ends, folder):
    schema = pa.Schema.from_pandas(frame, preserve_index=False)
    batches = [
        pa.RecordBatch.from_pandas(part, schema=schema, preserve_index=False)
        for part in parts_of(frame, ends)
    ]
    return pa.RecordBatchReader.from_batches(schema, batches)


SOURCES = {
    "folder": parquet,
    "text of a path": lambda *args: str(parquet(*args)),
    "dataset": lambda *args: ds.dataset(parquet(*args)),
    "dataset in memory": lambda frame, ends, folder: ds.dataset(
        pa.Table.from_pandas(frame, preserve_index=False)
    ),
    "reader": reader,
    "lazy frame": lambda *args: pl.scan_parquet(parquet(*args)),
    "lazy frame in memory": lambda frame, ends, folder: pl.from_pandas(frame).lazy(),
    "pandas frames": lambda frame, ends, folder: iter(parts_of(frame, ends)),
    "polars frames": lambda frame, ends, folder: map(pl.from_pandas, parts_of(frame, ends)),
    "tables": lambda frame, ends, folder: (
        pa.Table.from_pandas(part, preserve_index=False) for part in parts_of(frame, ends)
    ),
}
READABLE_AGAIN = [name for name in SOURCES if "folder" in name or "lazy" in name or "data" in name]

MODELS = {
    "slope": {"groups": "a", "fixed_effects": ["x", "z"], "random_slopes": ["z"]},
    "crossed": {"groups": ["a", "b"], "fixed_effects": ["z", "x"]},
    "interaction": {"groups": ["b", ("a", "b")], "fixed_effects": ["x"], "reml": False},
    "no groups' columns": {"groups": "b", "fixed_effects": []},
}
FORMULAS = {
    "plain": "x + z + (1 + z || a)",
    "categories": "x * kind + (1 | a) + (1 | b)",
    "response": "np.log(level) ~ x + kind + (1 | a)",
    "offset": "x + offset(known) + (1 | a:b)",
    "slopes of categories": "x + (0 + kind | a)",
}


@pytest.fixture
def folder(tmp_path_factory):
    return lambda: tmp_path_factory.mktemp("rows")


def in_batches_of(entries):
    return mock.patch.object(sources, "BATCH_ENTRIES", entries)


def fit_quietly(estimator, *args, **kwargs):
    """Of some made-up data a variance is zero, and a covariance singular."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateModelWarning)
        return clone(estimator).fit(*args, **kwargs)


class TestEqualsFitInMemory:
    @pytest.mark.slow
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        seed=st.integers(0, 10**6),
        ends=st.sets(st.integers(0, N_ROWS), max_size=6),
        kind=st.sampled_from(sorted(SOURCES)),
        model=st.sampled_from(sorted(MODELS)),
        entries=st.sampled_from([1, 100, 10**6]),
        weight=st.sampled_from([None, "w"]),
        offset=st.sampled_from([None, "known"]),
    )
    def test_by_parameters(self, folder, seed, ends, kind, model, entries, weight, offset):
        frame = made_up(seed)
        source = SOURCES[kind](frame, ends, folder())
        estimator = MixedLinearRegressor(**MODELS[model])
        named = [name for name in ("price", weight, offset) if name]
        whole = fit_quietly(
            estimator,
            frame.drop(columns=named),
            frame["price"],
            sample_weight=weight and frame[weight],
            offset=offset and frame[offset],
        )
        with in_batches_of(entries):
            found = fit_quietly(estimator, source, "price", sample_weight=weight, offset=offset)
        assert_same_fit(found, whole)

    @pytest.mark.slow
    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        seed=st.integers(0, 10**6),
        ends=st.sets(st.integers(0, N_ROWS), max_size=6),
        kind=st.sampled_from(READABLE_AGAIN),
        model=st.sampled_from(sorted(FORMULAS)),
        entries=st.sampled_from([100, 10**6]),
        declares=st.booleans(),
        weight=st.sampled_from([None, "w"]),
    )
    def test_by_formula(self, folder, seed, ends, kind, model, entries, declares, weight):
        frame = made_up(seed).sort_values("kind", ignore_index=True)
        if declares and "lazy" not in kind:  # polars has its own order of categories
            # In an order of their own, and one that does not occur.
            order = ["mid", "never", "low", "high"]
            frame["kind"] = pd.Categorical(frame["kind"], categories=order)
        source = SOURCES[kind](frame, ends, folder())
        text = FORMULAS[model]
        estimator = MixedLinearRegressor(formula=text)
        y, response = (None, frame[["level"]]) if "~" in text else ("price", frame["price"])
        used = [name for name in frame.columns if name in text and name not in ("level", "w")]
        weights = weight and frame[weight]
        whole = fit_quietly(estimator, frame[used], response, sample_weight=weights)
        with in_batches_of(entries):
            found = fit_quietly(estimator, source, y, sample_weight=weight)
        assert_same_fit(found, whole)
        assert_allclose(found.predict(frame), whole.predict(frame), rtol=1e-6)

    @pytest.mark.parametrize("kind", READABLE_AGAIN)
    @pytest.mark.parametrize(
        ("term", "by"),
        [
            ("C(z)", "z"),
            ("C(z > 0)", "z"),
            ("x:C(z)", "z"),
            ("flag", "flag"),
            ("kind", "kind"),
            ("x:kind", "kind"),
        ],
    )
    def test_categories_of_sorted_rows(self, folder, kind, term, by):
        frame = made_up(5).assign(flag=made_up(6)["z"] > 0)
        frame = frame.sort_values(by, ignore_index=True)
        for text in (f"price ~ {term} + (1 | a)", f"price ~ x + (0 + {term} || b)"):
            if text.endswith("b)") and ":" in term:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DegenerateModelWarning)
                whole = lmer(text, frame)
                with in_batches_of(40):
                    found = lmer(text, SOURCES[kind](frame, {9, 20, 60}, folder()))
            assert_same_fit(found, whole)
            assert_array_equal(found.coef_covariance_.columns, whole.coef_covariance_.columns)

    @pytest.mark.parametrize("kind", READABLE_AGAIN)
    def test_rows_of_weight_zero_have_no_category(self, folder, kind):
        frame = made_up(7).sort_values("kind", ignore_index=True)
        frame["w"] = np.where(np.arange(N_ROWS) < 30, 0.0, 1.0)
        frame.loc[:24, "kind"] = None
        frame.loc[25:29, "kind"] = "never"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateModelWarning)
            whole = lmer("price ~ kind + (1 | a)", frame, sample_weight=frame["w"])
            with in_batches_of(40):
                source = SOURCES[kind](frame, {9, 35, 80}, folder())
                found = lmer("price ~ kind + (1 | a)", source, sample_weight="w")
        assert_same_fit(found, whole)

    def test_one_category_of_all_rows(self, folder):
        frame = made_up(8).assign(kind="low")
        found = lmer("price ~ x + kind + (1 | a)", parquet(frame, {30}, folder()))
        assert_same_fit(found, lmer("price ~ x + kind + (1 | a)", frame))

    def test_files_that_declare_other_categories(self, folder):
        frame = made_up(9)
        late = frame["kind"] == "low"
        path = folder()
        for number, (rows, order) in enumerate(((~late, ["mid", "high"]), (late, ["low", "mid"]))):
            part = frame[rows].astype({"kind": pd.CategoricalDtype(order)})
            table = pa.Table.from_pandas(part, preserve_index=False)
            pq.write_table(table, path / f"part-{number}.parquet")
        found = lmer("price ~ x + kind + (1 | a)", path)
        whole = pd.concat([frame[~late], frame[late]])
        whole["kind"] = pd.Categorical(whole["kind"], categories=["mid", "high", "low"])
        assert_same_fit(found, lmer("price ~ x + kind + (1 | a)", whole))

    @pytest.mark.parametrize("kind", sorted(SOURCES))
    @pytest.mark.parametrize("text", ["price ~ x + (1 | a)", "np.log(level) ~ x + (1 | a)"])
    def test_lmer(self, folder, kind, text):
        frame = made_up(0)
        found = lmer(text, SOURCES[kind](frame, {30, 60}, folder()))
        assert_same_fit(found, lmer(text, frame))


class TestIndexOfPandas:
    """What pandas writes of its index is no feature, and can be the group if it has a name."""

    SOURCES = (
        ("folder", lambda path: path.parent),
        ("lazy frame", pl.scan_parquet),
        ("reader", lambda path: pq.read_table(path).to_reader()),
        ("table", pq.read_table),
        ("polars frame", pl.read_parquet),
    )

    @pytest.mark.parametrize("kind", [name for name, _ in SOURCES])
    @pytest.mark.parametrize("index", [None, "a"])
    def test_fit(self, folder, kind, index):
        frame = made_up(0)[["x", "z", "a", "price"]].sample(frac=1.0, random_state=0)
        path = folder() / "rows.parquet"
        (frame.set_index(index) if index else frame).to_parquet(path)
        estimator = MixedLinearRegressor(groups="a")
        source = dict(self.SOURCES)[kind](path)
        found = fit_quietly(estimator, source, "price")
        features = [name for name in ("x", "z", "a") if name != index] + ([index] if index else [])
        whole = fit_quietly(estimator, frame[features], frame["price"])
        assert_same_fit(found, whole)
        table = pq.read_table(path).drop_columns(["price"])
        assert_allclose(found.predict(table), whole.predict(frame[features]), rtol=1e-6)

    def test_a_dot_of_a_formula(self, folder):
        frame = made_up(0)[["x", "z", "a", "price"]].sample(frac=1.0, random_state=0)
        path = folder() / "rows.parquet"
        frame.to_parquet(path)
        whole = lmer("price ~ . + (1 | a)", frame)
        for source in (path, pq.read_table(path), pl.read_parquet(path)):
            assert_same_fit(lmer("price ~ . + (1 | a)", source), whole)


class Columns:
    """A data set that remembers which columns were asked for."""

    def __init__(self, dataset):
        self.dataset, self.schema, self.asked = dataset, dataset.schema, []

    def scanner(self, columns, **options):
        self.asked.append(columns)
        return self.dataset.scanner(columns=columns, **options)


class TestColumns:
    def test_those_without_an_effect_are_not_read(self, folder):
        dataset = Columns(ds.dataset(parquet(made_up(1), {40}, folder())))
        model = fit_quietly(MixedLinearRegressor(**MODELS["slope"]), dataset, "price")
        assert [set(own) for own in dataset.asked] == [{"x", "z", "a", "price"}]
        assert model.n_features_in_ == 9

    def test_of_a_formula_those_that_it_uses(self, folder):
        dataset = Columns(ds.dataset(parquet(made_up(1), {40}, folder())))
        model = lmer("price ~ x + kind + (1 | a)", dataset)
        assert [set(own) for own in dataset.asked] == 2 * [{"x", "kind", "a", "price"}]
        assert_array_equal(model.feature_names_in_, ["x", "a", "kind"])

    @pytest.mark.parametrize("kind", ["folder", "pandas frames"])
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("prize",), r"y names the column 'prize'.*Did you mean 'price'"),
            ((None,), "y is None: pass the name of the column"),
            ((np.zeros(N_ROWS),), "y must be the name of a column, got ndarray"),
        ],
    )
    def test_a_response_that_is_not_there(self, folder, kind, arguments, message):
        source = SOURCES[kind](made_up(0), {40}, folder())
        with pytest.raises(ValueError, match=message):
            MixedLinearRegressor(**MODELS["slope"]).fit(source, *arguments)

    def test_weights_and_offset_are_names(self, folder):
        path = parquet(made_up(0), {40}, folder())
        for parameter in ("sample_weight", "offset"):
            with pytest.raises(ValueError, match=f"{parameter} must be the name of a column"):
                MixedLinearRegressor(groups="a").fit(path, "price", **{parameter: [1.0]})

    def test_groups_beside(self, folder):
        path = parquet(made_up(0), {40}, folder())
        with pytest.raises(ValueError, match=r"name their columns in the constructor"):
            MixedLinearRegressor().fit(path, "price", groups="a")

    def test_of_a_frame_in_memory(self):
        frame = made_up(2)
        estimator = MixedLinearRegressor(**MODELS["crossed"])
        found = fit_quietly(estimator, frame, "price", sample_weight="w", offset="known")
        X = frame.drop(columns=["price", "w", "known"])
        beside = {"sample_weight": frame["w"], "offset": frame["known"]}
        assert_same_fit(found, fit_quietly(estimator, X, frame["price"], **beside))
        streamed = clone(estimator)
        for part in parts_of(frame, {50}):
            streamed.partial_fit(part, "price", sample_weight="w", offset="known")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateModelWarning)
            assert_same_fit(streamed, found)

    @pytest.mark.parametrize("method", ["fit", "partial_fit"])
    def test_methods_take_the_columns_of_the_fit(self, method):
        frame = made_up(2)[["w", "x", "price", "z", "a", "known"]]
        named = {"sample_weight": "w", "offset": "known"}
        X, y = frame[["x", "z", "a"]], frame["price"]
        beside = {"sample_weight": frame["w"], "offset": frame["known"]}
        whole = fit_quietly(MixedLinearRegressor(**MODELS["slope"]), X, y, **beside)
        found = MixedLinearRegressor(**MODELS["slope"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateModelWarning)
            mean = getattr(found, method)(frame, "price", **named).predict(frame, offset="known")
        assert_allclose(mean, whole.predict(X, offset=frame["known"]), rtol=1e-6)
        # Also without the labels of levels that are not asked for, and of another library.
        rows = pl.from_pandas(frame.drop(columns="a"))
        population = found.predict(rows, offset=0.0, random_effects="none")
        assert_allclose(population, whole.predict(X, offset=0.0, random_effects="none"), rtol=1e-6)
        assert_allclose(found.score(frame, "price", **named), whole.score(X, y, **beside))
        of_found, of_whole = (
            residuals(found, frame, "price", **named),
            residuals(whole, X, y, **beside),
        )
        assert_allclose(of_found, of_whole, atol=1e-6)
        found.update_random_effects(frame[:9], "price", **named)
        whole.update_random_effects(
            X[:9], y[:9], **{name: values[:9] for name, values in beside.items()}
        )
        assert_allclose(found.random_effects_["a"], whole.random_effects_["a"], atol=1e-6)

    def test_columns_of_an_earlier_fit_are_unknown(self):
        frame = made_up(2)[["x", "z", "a", "price", "w"]]
        model = MixedLinearRegressor(**MODELS["slope"]).fit(frame, "price", sample_weight="w")
        model.fit(frame[["x", "z", "a", "w"]], frame["price"])
        with pytest.raises(ValueError, match="unseen at fit time:\n- price"):
            model.predict(frame)

    def test_of_a_residual_structure(self):
        frame = made_up(2)[["price", "z", "a", "x"]].assign(t=np.arange(N_ROWS))
        X, y = frame[["z", "a", "x", "t"]], frame["price"]
        estimator = MixedLinearRegressor(groups="a", fixed_effects=["x"], residual="ar1", time="t")
        whole, found = fit_quietly(estimator, X, y), fit_quietly(estimator, frame, "price")
        assert_allclose(found.predict(frame), whole.predict(X))
        for kind in ("conditional", "normalized"):
            of_found = residuals(found, frame, "price", kind=kind)
            assert_allclose(of_found, residuals(whole, X, y, kind=kind))

    def test_batches_that_leave_out_weights(self):
        frame = made_up(2)[["x", "z", "a", "price", "w"]]
        first, second = parts_of(frame, {60})
        model = MixedLinearRegressor(**MODELS["slope"])
        model.partial_fit(first, "price", sample_weight="w")
        with pytest.warns(DataWarning, match=r"'w', .* sample_weight='w'"):
            model.partial_fit(second, "price")
        weights = np.append(first["w"], np.ones(60))
        X = frame[["x", "z", "a"]]
        whole = fit_quietly(model, X, frame["price"], sample_weight=weights)
        assert_allclose(model.coef_, whole.coef_, rtol=1e-6)

    def test_names_go_with_the_name_of_the_response(self):
        frame = made_up(0)
        X, y = frame[["x", "a", "w"]], frame["price"]
        for method in ("fit", "partial_fit"):
            model = MixedLinearRegressor(groups="a")
            with pytest.raises(ValueError, match=r"sample_weight='w' is the name .* as y, or the"):
                getattr(model, method)(X, y, sample_weight="w")

    @pytest.mark.parametrize("convert", [lambda frame: frame, pl.from_pandas, pa.Table.from_pandas])
    def test_a_formula_names_the_response(self, convert):
        frame = made_up(1)
        text = "np.log(level) ~ x + z + (1 | a)"
        beside = {"sample_weight": frame["w"], "offset": frame["known"]}
        whole = lmer(text, frame, **beside)
        for named in (beside, {"sample_weight": "w", "offset": "known"}):
            found = MixedLinearRegressor(formula=text).fit(convert(frame), **named)
            assert_same_fit(found, whole)
        streamed = MixedLinearRegressor(formula=text)
        for part in parts_of(frame, {50}):
            streamed.partial_fit(convert(part), sample_weight="w", offset="known")
        assert_same_fit(streamed, whole)

    def test_a_dot_leaves_out_the_response_of_the_formula(self):
        frame = made_up(1)[["x", "z", "a", "price"]]
        found = MixedLinearRegressor(formula="price ~ . + (1 | a)").fit(frame)
        whole = MixedLinearRegressor(formula="price ~ x + z + (1 | a)")
        assert_same_fit(found, whole.fit(frame[["x", "z", "a"]], frame["price"]))

    @pytest.mark.parametrize("method", ["fit", "partial_fit"])
    def test_a_response_that_nobody_names(self, method):
        frame = made_up(1)[["x", "a"]]
        for formula, message in [
            ("x + (1 | a)", "requires y to be passed"),
            ("price ~ x + (1 | a)", "left-hand side of the formula names the column 'price'"),
        ]:
            with pytest.raises(ValueError, match=message):
                getattr(MixedLinearRegressor(formula=formula), method)(frame)

    @pytest.mark.parametrize("text", ["price ~ . + (1 | a)", "exp(price / 9) ~ x + z + (1 | a)"])
    def test_lmer_takes_names_of_a_frame(self, text):
        frame = made_up(1)[["known", "x", "z", "a", "price", "w"]]
        X = frame.drop(columns=["known", "w"])
        beside = {"sample_weight": frame["w"], "offset": frame["known"]}
        whole = lmer(text, X, **beside)
        for data in (frame, pl.from_pandas(frame)):
            found = lmer(text, data, sample_weight="w", offset="known")
            assert_same_fit(found, whole)
            assert_allclose(
                found.predict(data, offset="known"), whole.predict(X, offset=frame["known"])
            )
        frame.loc[3, "w"] = np.nan
        with pytest.warns(DataWarning, match="1 in 'sample_weight'"):
            lmer(text, frame, sample_weight="w", missing="drop")
        with pytest.raises(ValueError, match="sample_weight names the column 'W'"):
            lmer(text, frame, sample_weight="W")

    def test_an_array_has_no_names(self):
        with pytest.raises(ValueError, match="y names the column 'price', but X has no names"):
            MixedLinearRegressor().fit(np.zeros((3, 1)), "price", groups=[1, 2, 1])

    def test_goes_on_with_partial_fit(self, folder):
        frame = made_up(3)
        first, second = parts_of(frame, {70})
        estimator = MixedLinearRegressor(**MODELS["slope"])
        found = fit_quietly(estimator, parquet(first, {30}, folder()), "price")
        found.partial_fit(second, "price")
        assert_same_fit(found, fit_quietly(estimator, frame, "price"))


class TestRefusals:
    def test_a_bad_row_names_its_batch_and_leaves_the_model(self, folder):
        frame = made_up(0)
        model = fit_quietly(MixedLinearRegressor(**MODELS["slope"]), frame, "price")
        before = dict(vars(model))
        frame.loc[75, "x"] = np.nan
        for kind in ("pandas frames", "reader"):
            source = SOURCES[kind](frame, {30, 60, 90}, folder())
            with (
                in_batches_of(1),
                pytest.raises(ValueError, match=r"batch \d+: Input X contains NaN in column 'x'"),
            ):
                model.fit(source, "price")
            assert vars(model) == before

    def test_a_batch_of_an_iterator_is_the_user_s(self):
        frame = made_up(0)
        frame["a"] = frame["a"].astype("Int64")
        frame.loc[65, "a"] = pd.NA
        with pytest.raises(ValueError, match=r"^batch 3: .*'a' have missing labels.* row 5"):
            MixedLinearRegressor(**MODELS["slope"]).fit(iter(parts_of(frame, {30, 60})), "price")

    @pytest.mark.parametrize("column", ["price", "x", "a", "kind"])
    def test_a_bad_row_of_a_formula_names_its_batch(self, folder, column):
        frame = made_up(0)
        frame["a"] = frame["a"].astype("Int64")
        # The only one of its category, but for the category itself.
        frame["kind"] = np.where(
            np.arange(N_ROWS) == 65, "mid", frame["kind"].replace("mid", "low")
        )
        frame.loc[65, column] = pd.NA if column == "a" else None
        path = parquet(frame, {30, 60}, folder())
        with (
            in_batches_of(4 * 30),
            pytest.raises(ValueError, match=rf"^batch 3: .*({column}|Input y)"),
        ):
            lmer("price ~ x + kind + (1 | a)", path)

    def test_squares_that_overflow(self):
        frame = made_up(0)
        frame.loc[65, "x"] = 1e200
        for last in (90, 120):
            parts = iter(parts_of(frame[:last], {30, 60, 90}))
            with pytest.raises(ValueError, match=r"^batch 3: The squares of the numeric column"):
                MixedLinearRegressor(**MODELS["slope"]).fit(parts, "price")

    def test_of_two_bad_batches_the_first_is_named(self):
        frame = made_up(0)
        frame.loc[35, "x"] = 1e200
        frame.loc[65, "x"] = np.nan
        with pytest.raises(ValueError, match=r"^batch 2: The squares of the numeric column"):
            MixedLinearRegressor(**MODELS["slope"]).fit(iter(parts_of(frame, {30, 60})), "price")

    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
    def test_an_interruption_leaves_the_model(self, error):
        frame = made_up(0)
        model = fit_quietly(MixedLinearRegressor(**MODELS["slope"]), frame, "price")
        before = dict(vars(model))

        def interrupted():
            yield from parts_of(frame, {30, 60})[:2]
            raise error

        with pytest.raises(error):
            model.fit(interrupted(), "price")
        assert vars(model) == before

    def test_an_iterator_of_something_else(self):
        with pytest.raises(TypeError, match=r"batch 1: .*data frames.*ndarray"):
            MixedLinearRegressor().fit(iter([np.zeros((3, 2))]), "y")

    def test_no_rows(self, folder):
        with pytest.raises(ValueError, match="X is an iterator of batches, and gives none"):
            MixedLinearRegressor(groups="a").fit(iter([]), "price")
        for frame in (made_up(0)[:0], made_up(0).assign(w=0.0)):
            path = parquet(frame, set(), folder())
            with pytest.raises(ValueError, match="X has no rows, or none of positive weight"):
                MixedLinearRegressor(**MODELS["slope"]).fit(path, "price", sample_weight="w")

    def test_a_path_without_files(self, tmp_path):
        with pytest.raises(ValueError, match=r"path '.*nowhere'"):
            MixedLinearRegressor(groups="a").fit(tmp_path / "nowhere", "price")
        with pytest.raises(ValueError, match="a folder without Parquet files"):
            MixedLinearRegressor(groups="a").fit(tmp_path, "price")

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda path: [path], r"list of paths: pass pyarrow\.dataset\.dataset\(X\)"),
            (lambda path: [made_up(0)], r"list of data frames: pass iter\(X\)"),
            (lambda path: pq.ParquetFile(path), r"pass X\.iter_batches\(\)"),
            (lambda path: ds.dataset(path).scanner(), r"pass X\.to_reader\(\)"),
            (lambda path: path.parent / "*.parquet", r"no file and no folder.*glob\.glob"),
            (lambda path: path.parent / "other", "no file and no folder"),
        ],
    )
    def test_what_is_like_a_source(self, folder, make, message):
        path = folder() / "rows.parquet"
        made_up(0).to_parquet(path)
        with pytest.raises(ValueError, match=message):
            MixedLinearRegressor(groups="a").fit(make(path), "price")

    def test_other_files(self, tmp_path):
        frame = made_up(0)
        path = tmp_path / "rows.csv"
        frame.to_csv(path, index=False)
        for own in (path, tmp_path):
            with pytest.raises(ValueError, match="Parquet files cannot be read from there"):
                MixedLinearRegressor(groups="a").fit(own, "price")
        estimator = MixedLinearRegressor(**MODELS["slope"])
        whole = fit_quietly(estimator, frame, "price")
        for source in (ds.dataset(path, format="csv"), pd.read_csv(path, chunksize=50)):
            found = fit_quietly(estimator, source, "price")
            assert_allclose(found.coef_, whole.coef_, rtol=1e-6)

    def test_a_batch_without_a_column(self):
        first, second = parts_of(made_up(0), {60})
        with pytest.raises(ValueError, match=r"^batch 2: the columns 'x' of the first batch"):
            MixedLinearRegressor(**MODELS["slope"]).fit(
                iter([first, second.drop(columns="x")]), "price"
            )

    @pytest.mark.parametrize("kind", ["text of a path", "dataset", "reader", "pandas frames"])
    def test_methods_of_rows_in_memory(self, folder, kind):
        frame = made_up(0)
        source = SOURCES[kind](frame, {40}, folder())
        model = fit_quietly(MixedLinearRegressor(**MODELS["slope"]), frame, "price")
        for method in (
            model.predict,
            lambda X: model.score(X, "price"),
            lambda X: residuals(model, X, frame["price"]),
        ):
            with pytest.raises(ValueError, match="not rows that are in memory: read it batch by"):
                method(source)
        with pytest.raises(ValueError, match="in memory: read the group columns alone"):
            model.describe(source)
        with pytest.raises(ValueError, match="in memory: call fit, which reads all batches"):
            model.partial_fit(source, "price")

    def test_a_category_that_comes_late_in_a_stream(self):
        frame = made_up(0)
        parts = [frame[frame["kind"] != "mid"], frame[frame["kind"] == "mid"]]
        with pytest.raises(ValueError, match=r"^batch 2: The category 'mid' of 'kind'") as caught:
            lmer("price ~ x + kind + (1 | a)", iter(parts))
        assert "declare all categories in the first batch" in str(caught.value)

    @pytest.mark.parametrize("text", ["price ~ kind + (1 | a)", "price ~ x + (kind | a)"])
    def test_one_category_in_the_first_batch_of_a_stream(self, text):
        frame = made_up(0).sort_values("kind", ignore_index=True)
        with pytest.raises(ValueError, match=r"^batch 1: 'kind' .* has the one category 'high'"):
            lmer(text, iter(parts_of(frame, {20})))

    def test_arguments_of_lmer_that_are_swapped(self):
        with pytest.raises(
            TypeError, match=r"takes the formula.* and then the data: got DataFrame"
        ):
            lmer(made_up(0), "price ~ x + (1 | a)")

    def test_lmer_calls_its_argument_data(self, tmp_path):
        with pytest.raises(ValueError, match=r"^data is the path '.*nowhere'"):
            lmer("price ~ x + (1 | a)", tmp_path / "nowhere")
        with pytest.raises(ValueError, match=r"^data is an iterator of batches, and gives none"):
            lmer("price ~ x + (1 | a)", iter([]))

    def test_what_learns_from_rows(self, folder):
        path = parquet(made_up(0), {40}, folder())
        with pytest.raises(ValueError, match=r"'scale\(x\)' of the formula learns from all rows"):
            lmer("price ~ scale(x) + (1 | a)", path)

    def test_missing_rows_are_not_dropped(self, folder):
        path = parquet(made_up(0), {40}, folder())
        with pytest.raises(ValueError, match="missing='drop' needs all of them"):
            lmer("price ~ x + (1 | a)", path, missing="drop")

    def test_a_residual_structure(self, folder):
        path = parquet(made_up(0), {40}, folder())
        with pytest.raises(ValueError, match=r"residual structure .* needs all of them at once"):
            MixedLinearRegressor(groups="a", residual="ar1", time="z").fit(path, "price")


class TestDigits:
    """Squares keep no digits of the noise: the rows are looked at again, if they can be."""

    @staticmethod
    def frame():
        rng = np.random.default_rng(0)
        x, a = rng.normal(size=300), rng.integers(0, 20, 300)
        price = 1e6 * x + rng.normal(size=20)[a] * 1e-3 + 1e-3 * rng.normal(size=300)
        return pd.DataFrame({"x": x, "a": a, "price": price})

    def test_a_second_look(self, folder):
        frame = self.frame()
        estimator = MixedLinearRegressor(groups="a")
        whole = clone(estimator).fit(frame, "price")
        with in_batches_of(100):
            found = clone(estimator).fit(parquet(frame, {100}, folder()), "price")
        assert_allclose(found.noise_variance_, whole.noise_variance_, rtol=1e-6)
        assert_allclose(found.coef_covariance_, whole.coef_covariance_, rtol=1e-6)

    def test_a_stream_says_so(self):
        frames = iter(parts_of(self.frame(), {100}))
        model = MixedLinearRegressor(groups="a")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            with pytest.warns(DegenerateModelWarning, match="read batch by batch keep"):
                model.fit(frames, "price")


def search_of(seen):
    """What a search of one iteration or more tells."""
    n_iterations = max(seen.count(("begin", "iteration")), 1)
    iterations = n_iterations * [("begin", "iteration"), ("end", "iteration")]
    return [("begin", "search"), *iterations, ("end", "search")]


def test_progress_of_batches(folder):
    callback = pytest.importorskip("sklearn.callback")
    frame = made_up(0)
    seen = []

    class Counter:
        def setup(self, estimator, context):
            pass

        def teardown(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context):
            seen.append(("begin", context.task_name))

        def on_fit_task_end(self, estimator, context):
            seen.append(("end", context.task_name))

    model = MixedLinearRegressor(**MODELS["slope"])
    model.set_callbacks(Counter(), callback.ProgressBar())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateModelWarning)
        model.fit(iter(parts_of(frame, {30, 60})), "price")
    batch = [("begin", "batch"), ("end", "batch")]
    whole = [("begin", "read rows"), *3 * batch, ("end", "read rows")]
    assert seen == [("begin", "fit"), *whole, *search_of(seen), ("end", "fit")]
    seen.clear()
    model.fit(frame.drop(columns="price"), frame["price"])
    assert seen == [("begin", "fit"), *search_of(seen), ("end", "fit")]
    assert_same_fit(model, fit_quietly(MixedLinearRegressor(**MODELS["slope"]), frame, "price"))
