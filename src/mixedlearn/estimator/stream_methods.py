"""The method of the estimator that takes rows batch by batch, and the fit to them."""

from __future__ import annotations

import warnings
from typing import Any, Self

from numpy.typing import ArrayLike

from mixedlearn.data.sources import refuse_source
from mixedlearn.estimator.by_name import groups_by_name
from mixedlearn.estimator.columns_by_name import names_given
from mixedlearn.estimator.from_source import columns_of_model
from mixedlearn.estimator.notices import level_of_user, warn_of_fit, warn_of_rows
from mixedlearn.estimator.recipes import recipe_of
from mixedlearn.estimator.rows import in_part
from mixedlearn.estimator.state import FittedState
from mixedlearn.estimator.stream import (
    Stream,
    after_fit,
    begin,
    has_parameters_of,
    specification_of,
)
from mixedlearn.exceptions import DataWarning
from mixedlearn.threads import one_thread

_DROPPED = (
    "update_random_effects gave the model rows that do not belong to its fit: partial_fit drops "
    "them. Pass them to partial_fit if they are to count."
)


_NO_WEIGHTS = (
    "The first rows had their weights in the column {0!r}, which these rows have, too, and which "
    "is not looked at: each of them counts with weight one. Pass sample_weight={0!r} if it is to "
    "count."
)


class StreamMethods(FittedState):
    """Fits to rows that come batch by batch."""

    @groups_by_name
    def partial_fit(
        self,
        X: Any,
        y: ArrayLike | str | None = None,
        *,
        groups: Any = None,
        sample_weight: ArrayLike | str | None = None,
        offset: ArrayLike | str | None = None,
    ) -> Self:
        """Fit the model to further rows and all those before.

        The result is that of `fit` on all rows, but for rounding error, however they are split and
        in whatever order they come, with levels that come late. A call reads the rows and adds them
        to sums. The model is solved when an attribute or a method of the fit is asked for, with the
        parameters of that moment, and again after further calls; warnings of the fit come then. The
        last rows wait until they take as much memory as the sums, or 16 megabytes, and no others
        are kept.

        After `fit`, its rows are the first ones. `fit` begins anew. Rows of `update_random_effects`
        belong to no fit, and the next call of ``partial_fit`` drops them with a warning.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
            As for `fit`; the columns of the first call in all calls.
        y : array-like of shape (n_samples,) or str, default=None
            Response, or the name of its column in X, as for `fit`; None if the formula names it.
        groups : array-like of shape (n_samples,) or (n_samples, n_factors), default=None
            Labels, as for `fit`; with all calls or with none.
        sample_weight : array-like of shape (n_samples,) or str, default=None
            Precision weights, or the name of their column as for `fit`, by default one for each
            row. A row of weight zero counts as absent, and all rows of a call may have that weight.
        offset : float, array-like of shape (n_samples,) or str, default=None
            As for `fit`; with all calls or with none.

        Returns
        -------
        self : MixedLinearRegressor
            With all rows so far.

        Raises
        ------
        ValueError
            As `fit`; the message begins with the number of the call, and counts rows within it. If
            a parameter has changed that the sums depend on: ``formula``, ``groups``,
            ``fixed_effects`` or ``random_slopes``. If there is a residual structure, which needs
            all rows at once. If the formula learns from the rows or depends on other rows, such as
            ``scale(x)`` or ``bs(x, df=4)``; give knots and bounds. If a category comes that the
            first call neither had nor declared. The model is then as it was before the call.
        TypeError
            As `fit`.

        Warns
        -----
        DataWarning
            If rows of `update_random_effects` are dropped, or the first call named the column of
            the weights, and further rows have it but no weights.
        DegenerateModelWarning
            When the model is solved: as `fit`, and if the sums keep too few digits of the rows,
            which `fit` would look at again.

        See Also
        --------
        update_random_effects : Takes further rows into the random effects alone, and is quicker.

        Notes
        -----
        Everything that the likelihood needs is a sum over rows [1]_, so that sums of batches are
        added, level by level. A formula takes the categories of its columns from the first call.
        Those that a pandas category, or its like in polars and Arrow, declares count even if no row
        has them; the first is the reference. Where the first call has one category alone, it must
        declare all. A category that never comes has a coefficient of zero,
        of which a warning tells.

        References
        ----------
        .. [1] Bates, D., Maechler, M., Bolker, B. & Walker, S. (2015). Fitting linear mixed-effects
           models using lme4. Journal of Statistical Software 67(1), section 3.

        Examples
        --------
        >>> from mixedlearn import MixedLinearRegressor
        >>> from mixedlearn.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True)
        >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"])
        >>> for first in range(0, 180, 50):
        ...     _ = model.partial_fit(X[first : first + 50], y[first : first + 50])
        >>> round(model.intercept_, 3), model.coef_.round(3)
        (251.405, array([10.467]))
        """
        # Nothing changes before all is read.
        self._set_stream(self._with_batch(X, y, groups, sample_weight, offset))
        return self

    def _with_batch(self, X: Any, y: Any, groups: Any, sample_weight: Any, offset: Any) -> Stream:
        """All rows so far and further ones."""
        before: Stream | None = vars(self).get("_stream")
        fitted = vars(self).get("_fitted")
        if fitted is not None and fitted.known.layers:
            warnings.warn(_DROPPED, DataWarning, stacklevel=level_of_user())
        if before is None or not has_parameters_of(self, before.first):
            self._validate_params()
            if before is not None:
                specification_of(self, before)
            elif fitted is not None:
                before = after_fit(self, fitted)
        number = 1 if before is None else before.n_batches + 1
        refuse_source(X, "call fit, which reads all batches, or partial_fit for each of them.")
        with in_part("batch", number):
            beside = names_given(y, sample_weight, offset)
            X, y, sample_weight, offset = columns_of_model(self, X, y, sample_weight, offset)
            if before is None:
                stream = begin(self, X, y, groups, sample_weight, offset)
                if beside:
                    stream.first._beside_X = beside
                return stream
            weights = getattr(before.first, "_beside_X", {}).get("sample_weight")
            if sample_weight is None and weights in getattr(X, "columns", ()):
                warnings.warn(_NO_WEIGHTS.format(weights), DataWarning, stacklevel=level_of_user())
            return before.with_batch(X, y, groups, sample_weight, offset)

    def _solve(self) -> None:
        self._validate_params()
        stream = self._stream
        specification = specification_of(self, stream)
        with one_thread:
            model = stream.solve(recipe_of(self, specification))
        level = level_of_user()
        has_groups = bool(specification.factors)
        warn_of_rows(stream.formula, stream.notes.values(), level, has_groups=has_groups)
        warn_of_fit(model, self.max_iter, level)
        self._set_solution(stream, *stream.solved(model))
