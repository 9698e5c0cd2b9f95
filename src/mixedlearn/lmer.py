"""`lmer`: a model by a formula with its response, from one data frame."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mixedlearn.data.sources import as_source
from mixedlearn.estimator import MixedLinearRegressor
from mixedlearn.estimator.columns_by_name import column_of, names_given
from mixedlearn.estimator.noise import columns_named
from mixedlearn.exceptions import DataWarning, did_you_mean
from mixedlearn.formula import (
    as_pandas,
    columns_used,
    is_transformed,
    learn_response,
    response_columns,
    split_response,
)

# What to do where R's lmer has an argument.
IN_PLACE_OF_R = {
    "contrasts": " Name them in the formula: C(x, contr.sum) for contr.sum.",
    "subset": " Pass those rows of the data.",
    "na.action": " missing='drop' leaves out rows with missing values.",
}


_NO_DROPPING = (
    "The rows of data are read batch by batch, and missing='drop' needs all of them at once: leave "
    "out such rows where they come from, or pass rows that are in memory."
)


def lmer(
    formula: str,
    data: Any,
    *,
    reml: bool = True,
    sample_weight: ArrayLike | str | None = None,
    offset: ArrayLike | str | None = None,
    missing: str = "error",
    **parameters: Any,
) -> MixedLinearRegressor:
    """Fit a linear mixed model given by a formula in lme4's notation.

    Parameters
    ----------
    formula : str
        ``"Weight ~ Time + (1 + Time | Pig)"``: the response, which may be an expression such as
        ``log(Weight)``, the fixed effects and the random terms. See `MixedLinearRegressor`. The
        model knows its response: predictions are on the scale of the left-hand side, and methods
        that take a response take it in the units of the data.
    data : DataFrame of shape (n_samples, n_columns), or source of batches
        The columns that the formula names; others are not looked at. A dot in the formula stands
        for all columns but those of the response and the grouping factors. Rows that are not in
        memory, such as those of a Parquet folder, are read batch by batch: see
        `MixedLinearRegressor.fit`.
    reml : bool, default=True
        Whether to maximise the restricted likelihood or the likelihood.
    sample_weight : array-like of shape (n_samples,) or str, default=None
        Precision weights, or the name of their column, which the formula then does not use; a name
        if data is a source. A row of weight zero counts as absent.
    offset : float, array-like of shape (n_samples,) or str, default=None
        What is known of the mean of the response, or the name of its column, as with weights; see
        `MixedLinearRegressor.fit`. ``predict`` asks for it again; an offset in the formula,
        ``... + offset(log(t))``, is computed from new data.
    missing : {"error", "drop"}, default="error"
        What to do with rows that miss a value (NaN or None) in a column that the formula uses,
        their weight or their offset: raise an error, or leave them out and warn how many they are,
        and of which columns. Methods that ask for the rows of the fit want those that are left.
    **parameters
        Further parameters of `MixedLinearRegressor`: ``residual``, ``time`` and ``groups`` of a
        residual structure, ``solver`` and its ``random_state``, ``handle_unknown``, ``max_iter``,
        ``tol``.

    Returns
    -------
    estimator : MixedLinearRegressor
        Fitted to the columns that the right-hand side uses; ``predict`` takes a frame that has
        them, with or without the response.

    Raises
    ------
    TypeError
        If the formula is no text, or there is no such parameter.
    ValueError
        If the formula is not as it should be (the message shows where), if data is no data frame,
        if a value is missing and rows are not dropped, or as for `MixedLinearRegressor.fit`.

    Warns
    -----
    DataWarning
        If rows are left out, and as `MixedLinearRegressor.fit`.

    References
    ----------
    Bates, D., Maechler, M., Bolker, B. & Walker, S. (2015). Fitting linear mixed-effects models
    using lme4. Journal of Statistical Software 67(1).

    Examples
    --------
    >>> from mixedlearn import lmer
    >>> from mixedlearn.datasets import load_dietox
    >>> pigs = load_dietox().frame
    >>> model = lmer("Weight ~ Time + (1 + Time | Pig)", pigs)
    >>> model.covariances_["Pig"].round(3)
               intercept   Time
    intercept     19.493  0.294
    Time           0.294  0.416
    >>> model.formula_
    'Time + (1 + Time | Pig)'
    >>> model.predict(pigs.head(2)).round(1)
    array([22. , 28.8])
    """
    _check_formula(formula)
    source = as_source(data, "data")
    _check_arguments(parameters)
    if missing not in ("error", "drop"):
        raise ValueError(f"missing must be 'error' or 'drop', got {missing!r}.")
    response, predictors = split_response(formula)
    if source is not None:
        if missing == "drop":
            raise ValueError(_NO_DROPPING)
        left, y = (formula, None) if is_transformed(response) else (predictors, response)
        estimator = MixedLinearRegressor(formula=left, reml=reml, **parameters)
        column = y and response_columns(y, source.names)[0]
        return estimator.fit(source, column, sample_weight=sample_weight, offset=offset)
    frame, sample_weight, offset = _named_columns(as_pandas(data, "data"), sample_weight, offset)
    used = columns_used(predictors, frame, response)
    # Those that the residual structure names besides.
    residual, time, groups = (parameters.get(name) for name in ("residual", "time", "groups"))
    used += columns_named(residual, time, groups, list(frame.columns))
    if missing == "drop":
        needed = [*used, *response_columns(response, frame.columns)]
        frame, sample_weight, offset = _complete_rows(frame, needed, sample_weight, offset)
    X = _columns(frame, used)
    if is_transformed(response):
        estimator = MixedLinearRegressor(formula=formula, reml=reml, **parameters)
        columns = _columns(frame, response_columns(response, frame.columns))
        return estimator.fit(X, columns, sample_weight=sample_weight, offset=offset)
    estimator = MixedLinearRegressor(formula=predictors, reml=reml, **parameters)
    learnt, values = learn_response(response, frame)
    for note in learnt.coding.notes:
        warnings.warn(note, DataWarning, stacklevel=2)
    return estimator.fit(X, values, sample_weight=sample_weight, offset=offset)


def _named_columns(
    frame: pd.DataFrame, sample_weight: Any, offset: Any
) -> tuple[pd.DataFrame, Any, Any]:
    """The frame without the columns that are named as weights and offset, and the values of both.

    Raises
    ------
    ValueError
        If there is no such column.
    """
    named = names_given(None, sample_weight, offset)
    found = {argument: column_of(frame, name, argument) for argument, name in named.items()}
    weights, known = found.get("sample_weight", sample_weight), found.get("offset", offset)
    return frame.drop(columns=list(named.values())) if named else frame, weights, known


def _complete_rows(
    frame: pd.DataFrame,
    names: Sequence[str],
    sample_weight: ArrayLike | None,
    offset: ArrayLike | None,
) -> tuple[pd.DataFrame, ArrayLike | None, ArrayLike | None]:
    """The rows without a missing value in some columns, with their weights and offset.

    Warns of the others.
    """
    missing = {name: frame[name].isna().to_numpy() for name in dict.fromkeys(names)}
    beside = {"sample_weight": sample_weight, "offset": offset}
    arrays = {name: np.asarray(own) for name, own in beside.items() if np.ndim(own) > 0}  # type: ignore[arg-type]
    for name, values in arrays.items():
        if values.shape != (len(frame),):
            raise ValueError(
                f"{name} has shape {values.shape}, but data has {len(frame)} rows: give one value "
                "for each row."
            )
        missing[name] = np.asarray(pd.isna(values))
    incomplete = np.any(list(missing.values()), axis=0)
    if not incomplete.any():
        return frame, sample_weight, offset
    n_missing = {name: int(own.sum()) for name, own in missing.items() if own.any()}
    listed = ", ".join(f"{n:,} in {name!r}" for name, n in n_missing.items())
    if incomplete.all():
        raise ValueError(f"Every row misses a value: {listed}. Leave out such a column.")
    warnings.warn(
        f"{incomplete.sum():,} of {len(frame):,} rows were left out, since they miss a value: "
        f"{listed}.",
        DataWarning,
        stacklevel=3,
    )
    kept = {name: values[~incomplete] for name, values in arrays.items()}
    complete = {**beside, **kept}
    return frame[~incomplete], complete["sample_weight"], complete["offset"]


def _columns(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Some columns by position, which pandas does in a third of the time that names take."""
    return frame.take([k for k, name in enumerate(frame.columns) if name in names], axis=1)


def _check_formula(formula: Any) -> None:
    if not isinstance(formula, str):
        raise TypeError(
            "lmer takes the formula, a string such as 'y ~ x + (1 | g)', and then the data: got "
            f"{type(formula).__name__} for the formula."
        )


def _check_arguments(parameters: dict[str, Any]) -> None:
    """Refuse what R's lmer would take otherwise."""
    beside = ("sample_weight", "offset")
    known = [*MixedLinearRegressor().get_params(), *beside] if parameters else []
    for name in parameters:
        if name not in known:
            hint = IN_PLACE_OF_R.get(name) or did_you_mean(name, known)
            raise TypeError(f"lmer has no parameter {name!r}.{hint}")
