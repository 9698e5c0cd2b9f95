"""How rows are read for a model whose columns are known: further ones of a fit, or to predict."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.frames import as_frame, is_frame
from mixedlearn.data.labels import Labels, shown
from mixedlearn.data.rows import Rows
from mixedlearn.data.sources import refuse_source
from mixedlearn.estimator.columns_by_name import column_of, columns_of_frame
from mixedlearn.estimator.validation import (
    among_all,
    check_frame,
    check_response,
    check_weights,
    find_labels,
    find_offset,
    formula_frame,
    is_table,
    lacks_only_others,
    numeric_columns,
    some_numeric_columns,
    transformed_response,
)
from mixedlearn.exceptions import PopulationPredictionWarning
from mixedlearn.formula import CompiledFormula, FormulaError
from mixedlearn.specification import Specification

FloatArray = NDArray[np.float64]

NO_RESPONSE = object()

_NO_OFFSET = (
    "The model was fitted with an offset, which predictions and residuals need for these rows too: "
    "pass offset=..., a number for each row. offset=0 leaves it out. scikit-learn's searches and "
    "cross-validations pass it on with metadata routing; an offset in a formula needs no passing."
)
_NO_OFFSET_OF_FIT = (
    "offset was passed, but the model was fitted without one: pass it to fit(..., offset=...) too. "
    "The offset of a formula is computed from X."
)


@contextmanager
def in_part(what: str, number: int) -> Iterator[None]:
    """Say of an error which batch or partition of rows it is in."""
    try:
        yield
    except FormulaError:
        # Says where the formula is wrong, whatever the rows are.
        raise
    except (ValueError, TypeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{what} {number}: {error}") from error


class RowReader:
    """Reads rows for a model whose columns are known.

    It needs no fit, and can be pickled if the estimator can.

    Parameters
    ----------
    estimator : MixedLinearRegressor
        Its parameter ``handle_unknown``, and the names of its columns.
    specification : Specification
    formula : CompiledFormula or None
        What makes the columns of rows, if the model was given by a formula.
    needs_offset : bool
        Whether rows need an offset beside X, as the first ones had.
    """

    def __init__(
        self,
        estimator: Any,
        specification: Specification,
        formula: CompiledFormula | None,
        *,
        needs_offset: bool,
    ):
        self._estimator = estimator
        self.specification = specification
        self.formula = formula
        self.needs_offset = needs_offset

    def features(self, X: Any) -> Any:
        """X without the columns that `fit` took by name for response, weights and offset.

        Raises
        ------
        ValueError
            If the rows are not in memory.
        """
        refuse_source(X)
        X = as_frame(X)
        beside = getattr(self._estimator, "_beside_X", {}).values()
        if not beside or self.formula is not None or not is_frame(X):
            # A formula goes by names, and its left-hand side may need them.
            return X
        names = [name for name in X.columns if name not in beside]
        return X if len(names) == len(X.columns) else X[names]

    def rows(
        self,
        X: Any,
        groups: Any = None,
        y: Any = NO_RESPONSE,
        sample_weight: Any = None,
        offset: Any = None,
        *,
        needs_groups: bool = False,
        is_batch: bool = False,
    ) -> Rows:
        """Read rows, with their labels if any came; a response is less its offset.

        ``is_batch``: whether they are further rows of the fit; see `batch`.

        Raises
        ------
        ValueError
            As `MixedLinearRegressor.predict`; if groups are needed and missing; if responses or
            weights are not finite numbers, one for each row.
        """
        names = self.specification.factor_names
        if y is not NO_RESPONSE:
            X, y, sample_weight, offset = columns_of_frame(X, y, sample_weight, offset)
        X = self.features(X)
        present: Any = None
        if is_batch and self.formula is not None:
            # Nothing is read of rows of weight zero, as in `fit`.
            weights = check_weights(sample_weight, formula_frame(X, groups))
            present = slice(None) if weights is None or weights.all() else weights > 0.0
        columns, labels = self._read(
            X, groups, names, all_columns=True, may_miss=False, present=present
        )
        if needs_groups and names and not labels:
            raise ValueError(
                f"No groups were passed, but the model has the grouping factors "
                f"{', '.join(map(repr, names))}: pass groups=... as to fit."
            )
        weights = check_weights(sample_weight, columns, may_vanish=is_batch)
        if y is NO_RESPONSE:
            return Rows(columns, tuple(labels), None, weights)
        response, known = self.response(X, y, weights), self.offset(X, offset, weights)
        response = response if known is None else response - known
        return Rows(columns, tuple(labels), response, weights)

    def batch(self, X: Any, y: Any, groups: Any, sample_weight: Any, offset: Any) -> Rows:
        """Read further rows of the fit: those of positive weight, of which there may be none.

        Raises
        ------
        ValueError
            As `rows`; if groups came and the first rows had none; if a category of a formula was
            not declared by the first rows.
        """
        X = self.features(X)
        if self.formula is not None and sample_weight is not None:
            weights = check_weights(sample_weight, formula_frame(X, groups), may_vanish=True)
            if weights is not None and not weights.any():
                return Rows(np.empty((0, len(self.specification.columns))), ())
        if groups is not None and self.formula is None and not self.specification.factors:
            raise ValueError(
                "groups were passed, but the first rows had none: pass them with all rows, or with "
                "none."
            )
        rows = self.rows(X, groups, y, sample_weight, offset, needs_groups=True, is_batch=True)
        return rows.present()

    def rows_to_predict(
        self,
        X: Any,
        groups: Any,
        wanted: Sequence[str],
        *,
        return_std: bool,
        stacklevel: int = 1,
    ) -> Rows:
        """Read rows for `predict`: what the prediction does not use may be missing.

        These are the labels of factors that are not wanted, and the columns that only their random
        effects have, which are zero then. A standard deviation uses all columns. Labels that are
        wanted may be missing too; such rows have an unknown level.

        Returns
        -------
        rows : Rows
            With the labels of the wanted factors, in the order of the model.

        Raises
        ------
        ValueError
            As `MixedLinearRegressor.predict`.
        """
        X = self.features(X)
        unknown: dict[str, Any] | None = {} if self._estimator.handle_unknown == "average" else None
        columns, labels = self._read(
            X, groups, wanted, all_columns=return_std, may_miss=True, unknown=unknown
        )
        for expression, label in (unknown or {}).items():
            warnings.warn(
                f"fit did not see all categories of {expression!r}, {shown(label)} for example: "
                "rows of unknown ones are predicted at the average of the categories of fit.",
                PopulationPredictionWarning,
                stacklevel=stacklevel + 1,
            )
        return Rows(columns, tuple(labels))

    def check_columns(
        self, X: Any, groups: Any, wanted: Sequence[str], *, return_std: bool
    ) -> None:
        """Refuse X for its columns alone, as `rows_to_predict`; what its rows hold does not count.

        Raises
        ------
        ValueError
            If a column is missing that is used.
        """
        places = self._places(wanted, all_columns=return_std)
        if self.formula is not None:
            names = [self.formula.names[place] for place in places]
            self.formula.check_columns(formula_frame(X, groups), names, wanted)
        elif not self._lacks_only_others(X, places, wanted):
            self._checked(X, groups)

    def _read(
        self,
        X: Any,
        groups: Any,
        wanted: Sequence[str],
        *,
        all_columns: bool,
        may_miss: bool,
        present: NDArray[np.bool_] | slice | None = None,
        unknown: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.floating], list[Labels]]:
        """The numeric columns and the labels; see `rows_to_predict`.

        Without ``may_miss`` X has all columns that `fit` had. For a formula, ``present`` are those
        of further rows of the fit that count, and ``unknown`` is for categories that `fit` did not
        see; see `Coding.columns`.
        """
        estimator, specification = self._estimator, self.specification
        places = self._places(wanted, all_columns=all_columns)
        if self.formula is not None:
            frame = formula_frame(X, groups)
            names = [self.formula.names[place] for place in places]
            if present is None:
                made = self.formula.rows(frame, names, wanted, unknown=unknown)
            else:
                made = self.formula.rows(frame[present], names, wanted, is_batch=True)
                made = made if isinstance(present, slice) else among_all(made, present)
            labels = self.formula.labels(frame, wanted, may_miss=may_miss)
            return numeric_columns(estimator, made, specification), labels
        is_part = may_miss and self._lacks_only_others(X, places, wanted)
        frame = X if is_part else self._checked(X, groups)
        labels = self._labels(frame, groups, wanted, may_miss=may_miss)
        if is_part or len(places) < len(specification.columns):
            return some_numeric_columns(estimator, frame, specification, places), labels
        return numeric_columns(estimator, frame, specification), labels

    def _places(self, wanted: Sequence[str], *, all_columns: bool) -> list[int]:
        """Which of the numeric columns are used: all, or those of some factors beside the fixed."""
        specification = self.specification
        needed = set(range(len(specification.columns)) if all_columns else specification.fixed)
        for factor in specification.factors:
            if factor.name in wanted:
                needed.update(factor.slopes)
        return sorted(needed)

    def _lacks_only_others(self, X: Any, places: Sequence[int], wanted: Sequence[str]) -> bool:
        """Whether X lacks columns of `fit`, but none that is used."""
        specification = self.specification
        used = [specification.columns[place] for place in places]
        for factor in specification.factors:
            if factor.name in wanted:
                used.extend(factor.columns)
        names = [specification.names[column] for column in used]
        return lacks_only_others(self._estimator, X, names)

    def _checked(self, X: Any, groups: Any) -> Any:
        """X, with the columns that `fit` had."""
        estimator = self._estimator
        is_like_fit = is_table(X) and X.shape[1] == estimator.n_features_in_
        if is_like_fit and not hasattr(estimator, "feature_names_in_"):
            return X
        has_groups = groups is not None or estimator.n_features_in_ == 0
        return check_frame(estimator, X, has_groups=has_groups, reset=False)

    def _labels(
        self,
        X: Any,
        groups: Any,
        wanted: Sequence[str],
        *,
        may_miss: bool,
    ) -> list[Labels]:
        """The labels of some factors, by the parameters of the constructor."""
        specification = self.specification
        names = specification.factor_names
        of_columns = [factor for factor in specification.factors if factor.columns]
        if groups is None:
            of_columns = [factor for factor in of_columns if factor.name in wanted]
        group_columns = [factor.columns for factor in of_columns]
        labels = find_labels(
            X, groups, specification.names, group_columns, names or None, may_miss=may_miss
        )
        return [own for own in labels if own.name in wanted]

    def response(self, X: Any, y: Any, weights: FloatArray | None = None) -> FloatArray:
        """The response of rows on the scale of the model, shape (n,).

        The left-hand side of a formula is computed from y, and from X where it has more columns;
        it is zero for rows of weight zero, which are absent.

        Raises
        ------
        ValueError
            If responses are not finite numbers, one for each row.
        """
        X, formula = as_frame(X), self.formula
        if formula is None or formula.response is None:
            return check_response(self._estimator, X, y)
        frame = formula_frame(X, None)
        return transformed_response(self._estimator, formula.response, frame, y, weights)

    def offset(self, X: Any, offset: Any, weights: FloatArray | None = None) -> FloatArray | None:
        """What is known of the response of rows, shape (n,); None if the model has no offset.

        Raises
        ------
        ValueError
            If `fit` got an offset and these rows have none, or the other way around; if it is not
            a finite number for each row; or if its column, or one of the formula's offset, is
            missing.
        """
        if self.needs_offset != (offset is not None):
            raise ValueError(_NO_OFFSET if offset is None else _NO_OFFSET_OF_FIT)
        if not self.has_offset:
            return None
        if isinstance(offset, str):
            offset = column_of(X, offset, "offset")
        X = as_frame(X) if self.formula is None else formula_frame(X, None)
        return find_offset(offset, self.formula, X, weights)

    @property
    def has_offset(self) -> bool:
        """Whether the model has an offset, of its formula or beside X."""
        return self.needs_offset or bool(self.formula and self.formula.offsets)
