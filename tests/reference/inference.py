"""The models of inference.json, fitted by their columns or by their formulas."""

import functools
import json
import warnings

import numpy as np
import pandas as pd
import pytest

from mixedlearn import MixedLinearRegressor, datasets, lmer
from reference import FOLDER

REFERENCE = json.loads((FOLDER / "inference.json").read_text(encoding="utf-8"))
MODELS = {model["id"]: model for model in REFERENCE["models"]}
DDF = {"Satterthwaite": "satterthwaite", "Kenward-Roger": "kenward-roger"}
# A model by columns and parameters, and the same one by lme4's formula.
WAYS = ("columns", "formula")


def entries(kind, *keys, where=lambda entry: True):
    """Entries of one of the lists, as parameters of a test that these keys give its name."""
    return [
        pytest.param(entry, id="-".join(str(entry[key]) for key in ("model", *keys)))
        for entry in REFERENCE[kind]
        if where(entry)
    ]


def array(values):
    """Numbers of the file; null is NaN."""
    return np.array(values, dtype=float)


def close(found, expected, rtol, atol=0.0):
    """Hold numbers of the file against what was found, NaN against NaN."""
    found = np.asarray(found, dtype=float)
    np.testing.assert_allclose(found, array(expected), rtol=rtol, atol=atol)


@functools.cache
def rows(model_id):
    """All columns of the rows that were fitted, dummy variables too."""
    model = MODELS[model_id]
    if model["data_set"] is not None:
        frame = getattr(datasets, f"load_{model['data_set']}")().frame
    else:
        frame = pd.read_csv(FOLDER / model["data_file"])
    if model["kept_rows"] is not None:
        frame = frame.iloc[model["kept_rows"]].reset_index(drop=True)
    for name, expression in (model["derived_columns"] or {}).items():
        frame = frame.assign(**{name: frame.eval(expression)})
    return frame


def training(model_id):
    """The arguments of `fit`."""
    model, frame = MODELS[model_id], rows(model_id)
    weights = model["weights"]
    return {
        "X": frame.drop(columns=model["target"]),
        "y": frame[model["target"]],
        "sample_weight": None if weights is None else array(weights),
    }


def unfitted(model_id):
    """The estimator whose parameters say what the model is."""
    model = MODELS[model_id]
    return MixedLinearRegressor(
        groups=[tuple(own) if isinstance(own, list) else own for own in model["groups"]],
        fixed_effects=model["fixed_effects"],
        random_slopes=model["random_slopes"],
        covariance=model["covariance"],
        reml=model["reml"],
    )


@functools.cache
def fitted(model_id, way="columns"):
    """The fit, which warns of nothing; both ways name the factors alike."""
    arguments, model = training(model_id), MODELS[model_id]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if way == "columns":
            return unfitted(model_id).fit(**arguments)
        return lmer(
            model["formula"],
            rows(model_id),
            reml=model["reml"],
            sample_weight=arguments["sample_weight"],
        )


def names_in_r(names):
    """Names of coefficients in R's way: `recipeB:temp`.

    A column that stands for the product is called recipeB_temp, and that of a formula
    recipe[T.B]:temp.
    """
    plain = [name.replace("[T.", "").replace("]", "").replace("_", ":") for name in names]
    return ["(Intercept)" if name == "intercept" else name for name in plain]
